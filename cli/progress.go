package cli

import (
	"io"
	"os"
	"slices"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress is a bar on a terminal, with rate and time left, and nothing elsewhere.
type progress struct {
	bar  *progressbar.ProgressBar // nil: nothing is shown
	what string
}

// progress makes a bar on standard error, if that is a terminal.
func (p *program) progress(what string) *progress {
	if !isTerminal(p.Err) {
		return &progress{}
	}
	return &progress{progressbar.NewOptions64(1, progressbar.OptionSetWriter(p.Err), progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(true), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetWidth(30), progressbar.OptionUseANSICodes(!slices.Contains(p.environ, "TERM=dumb"))), what}
}

// spinner is a bar for what has no known end: it shows how much has been done, and the rate.
func (p *program) spinner(what string) *progress {
	if !isTerminal(p.Err) {
		return &progress{}
	}
	return &progress{progressbar.NewOptions64(-1, progressbar.OptionSetWriter(p.Err), progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(true), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100*time.Millisecond)), what}
}

func (p *progress) shown() bool { return p.bar != nil }

// step says what is under way now.
func (p *progress) step(name string) {
	if p.bar != nil && name != "" && name != p.what {
		p.what = name
		p.bar.Describe(name)
	}
}

func (p *progress) set(done, total int64) {
	if p.bar == nil {
		return
	}
	if total >= 0 {
		p.bar.ChangeMax64(max(total, 1))
		done = min(done, total)
	}
	_ = p.bar.Set64(done) // a bar that can't be drawn is no reason to fail
}

// of shows how much of total bytes, -1 where that is not known, has been read from r.
func (p *progress) of(r io.Reader, total int64) io.Reader {
	if p.bar == nil {
		return r
	}
	return &countedReader{Reader: r, count: func(n int64) { p.set(n, total) }}
}

func (p *progress) close() {
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}

// countedReader tells how much of it has been read.
type countedReader struct {
	io.Reader
	n     int64
	count func(int64)
}

func (c *countedReader) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n += int64(n)
	c.count(c.n)
	return n, err
}

// isTerminal tells whether one of the standard streams is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// width is how many columns standard output has; 0: it is no terminal.
func (p *program) width() int {
	if !isTerminal(p.Out) {
		return 0
	}
	w, _, err := term.GetSize(int(p.Out.(*os.File).Fd()))
	if err != nil {
		return 0
	}
	return w
}

// colour of a piece of text on a terminal.
type colour string

// The colours used, as SGR parameters.
const (
	red    colour = "31"
	green  colour = "32"
	yellow colour = "33"
	bold   colour = "1"
)

// paint gives a function that colours text for standard output: not where that is no terminal, nor where NO_COLOR is
// set (https://no-color.org).
func (p *program) paint() func(colour, string) string {
	if !isTerminal(p.Out) || p.env("NO_COLOR") != "" || p.env("TERM") == "dumb" {
		return func(_ colour, s string) string { return s }
	}
	return func(c colour, s string) string { return "\x1b[" + string(c) + "m" + s + "\x1b[0m" }
}
