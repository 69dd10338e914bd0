package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// What is kept of the end of the output: lines, bytes of each, and bytes of a message.
const (
	tailLines = 20
	tailBytes = 500
	maxSaid   = 1 << 10
)

// readBytes is how much is read at once.
const readBytes = 32 << 10

// output takes what a service says, line by line, into the log.
type output struct {
	service string
	kind    string // what is called so
	limit   Output
	logger  *slog.Logger
	done    chan struct{} // all has been read

	ready   *regexp.Regexp // nil: no line is waited for
	matched chan struct{}  // one has come

	mu    sync.Mutex
	lines []string // the last ones

	// Of the reading goroutine alone.
	line    []byte // the beginning of a line whose end has not come
	over    int    // how much of it is left out
	tokens  float64
	filled  time.Time // when tokens was
	dropped int       // lines not logged and not told of yet
	told    time.Time // when the last ones were
}

func newOutput(service string, limit Output, ready *regexp.Regexp, logger *slog.Logger) *output {
	now := time.Now()
	return &output{service: service, kind: "service", limit: limit, logger: logger, ready: ready, done: make(chan struct{}), matched: make(chan struct{}),
		tokens: float64(limit.LinesPerSecond), filled: now, told: now}
}

// read reads until nobody can write any more, or r is closed.
func (o *output) read(r *os.File) {
	defer close(o.done)
	defer r.Close()
	b := make([]byte, readBytes)
	for {
		if o.dropped > 0 {
			_ = r.SetReadDeadline(o.told.Add(time.Second))
		}
		n, err := r.Read(b)
		o.take(b[:n])
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			_ = r.SetReadDeadline(time.Time{})
			o.tellDropped()
		case err != nil:
			if len(o.line) > 0 || o.over > 0 {
				o.end()
			}
			o.tellDropped()
			return
		case o.dropped > 0 && time.Since(o.told) > time.Second:
			o.tellDropped()
		}
	}
}

func (o *output) take(b []byte) {
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		part := b
		if i >= 0 {
			part = b[:i]
		}
		n := min(len(part), o.limit.LineBytes-len(o.line))
		o.line = append(o.line, part[:n]...)
		o.over += len(part) - n
		if i < 0 {
			return
		}
		o.end()
		b = b[i+1:]
	}
}

// end is called with a whole line in o.line.
func (o *output) end() {
	text := printable(bytes.TrimSuffix(o.line, []byte("\r")))
	defer o.match(text) // when the line is in the log, which then tells things in their order
	if o.over > 0 {
		text += fmt.Sprintf("… (%d bytes more)", o.over)
	}
	o.line, o.over = o.line[:0], 0
	o.mu.Lock()
	if len(o.lines) == tailLines {
		o.lines = append(o.lines[:0], o.lines[1:]...)
	}
	o.lines = append(o.lines, cut(text, tailBytes))
	o.mu.Unlock()

	now := time.Now()
	o.tokens = min(float64(o.limit.LinesPerSecond), o.tokens+now.Sub(o.filled).Seconds()*float64(o.limit.LinesPerSecond))
	o.filled = now
	if o.tokens < 1 {
		if o.dropped == 0 {
			o.told = now
		}
		o.dropped++
		return
	}
	o.tokens--
	o.logger.Info(o.service+": "+text, o.kind, o.service)
}

func (o *output) match(text string) {
	if o.ready != nil && o.ready.MatchString(text) {
		close(o.matched)
		o.ready = nil
	}
}

func (o *output) tellDropped() {
	if o.dropped > 0 {
		o.logger.Warn("the "+o.kind+" says too much; lines are left out of the log", o.kind, o.service, "lines", o.dropped,
			"per_second", o.limit.LinesPerSecond)
	}
	o.dropped, o.told = 0, time.Now()
}

// tail gives the last lines.
func (o *output) tail() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.lines...)
}

// said is a tail to be put behind a message; empty if that is nothing.
func said(tail []string) string {
	text := strings.TrimSpace(strings.Join(tail, "\n"))
	if text == "" {
		return ""
	}
	from := ""
	if len(text) > maxSaid {
		from, text = "… ", text[len(text)-maxSaid:]
		for len(text) > 0 && !utf8.RuneStart(text[0]) {
			text = text[1:]
		}
	}
	return fmt.Sprintf("; it said %s%q", from, text)
}

// cut shortens a text to n bytes, or some fewer so that no character is broken.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n] + "…"
}

// printable makes a line of anything: colours and other orders to a terminal are left out, what is no text is
// replaced. A log is read in terminals too, which must not do what a service's data says.
func printable(line []byte) string {
	if !bytes.ContainsFunc(line, func(r rune) bool { return r == utf8.RuneError || r != '\t' && !unicode.IsPrint(r) }) {
		return string(line)
	}
	var b strings.Builder
	for len(line) > 0 {
		if n := escape(line); n > 0 {
			line = line[n:]
			continue
		}
		r, n := utf8.DecodeRune(line)
		line = line[n:]
		if r != '\t' && !unicode.IsPrint(r) && !unicode.Is(unicode.Zs, r) {
			r = utf8.RuneError
		}
		b.WriteRune(r)
	}
	return b.String()
}

// escape is the length of the control sequence (ECMA-48) that a text begins with; 0 if there is none.
func escape(b []byte) int {
	if len(b) < 2 || b[0] != 0x1b || b[1] != '[' {
		return 0
	}
	for i, c := range b[2:] {
		switch {
		case c >= 0x40 && c <= 0x7e:
			return 2 + i + 1
		case c < 0x20 || c > 0x7e:
			return 2 + i
		}
	}
	return len(b)
}
