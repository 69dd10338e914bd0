package sourcetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime"
)

// fault is one thing that a source does wrong.
type fault string

// note is a service whose state is one text; its source does wrong what its fault says. Native state is
// the text's length in decimal, a colon, the text, and a checksum.
type note struct {
	fault fault

	mu   sync.Mutex
	text string
	held []*os.File
}

type noteCapture struct {
	n       *note
	text    string
	written int
}

func (n *note) get() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text
}

func (n *note) set(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.text = text
}

func encode(text string) []byte {
	b := fmt.Appendf(nil, "%d:%s", len(text), text)
	return fmt.Appendf(b, "%08x", crc32.ChecksumIEEE(b))
}

func decode(b []byte) (string, error) {
	sum := len(b) - 8
	if sum < 0 || fmt.Sprintf("%08x", crc32.ChecksumIEEE(b[:sum])) != string(b[sum:]) {
		return "", fmt.Errorf("%w: the checksum is wrong", abi.ErrCorrupt)
	}
	length, text, ok := strings.Cut(string(b[:sum]), ":")
	if !ok || length != fmt.Sprint(len(text)) {
		return "", fmt.Errorf("%w: the length is wrong", abi.ErrCorrupt)
	}
	return text, nil
}

func (n *note) AtomicCapture() bool { return n.fault != "not atomic" }

func (n *note) Capture(ctx context.Context) (runtime.Capture, error) {
	if err := ctx.Err(); err != nil && n.fault != "captures without a context" {
		return nil, err
	}
	text := n.get()
	switch n.fault {
	case "torn badly":
		text += "torn"
	case "stale":
		if strings.HasPrefix(text, "state 2") {
			text = fmt.Sprintf("state %d %s", 1, long)
		}
	case "leaks files":
		f, err := os.Open(os.DevNull)
		if err != nil {
			return nil, err
		}
		n.mu.Lock()
		n.held = append(n.held, f)
		n.mu.Unlock()
	}
	return &noteCapture{n: n, text: text}, nil
}

func (c *noteCapture) WriteNative(ctx context.Context, w io.Writer) error {
	if err := ctx.Err(); err != nil && c.n.fault != "writes without a context" {
		return err
	}
	c.written++
	text := c.text
	switch {
	case c.n.fault == "not fixed":
		text = c.n.get()
	case c.n.fault == "other bytes each time" && c.written > 1:
		text += " "
	}
	_, err := w.Write(encode(text))
	switch c.n.fault {
	case "swallows the writer's error":
		return nil
	case "hides the writer's error":
		if err != nil {
			return errors.New("some error")
		}
	}
	return err
}

func (c *noteCapture) Close() error {
	switch c.n.fault {
	case "close fails":
		return errBroken
	case "closes all":
		c.n.set("")
	case "leaves temporary files":
		f, err := os.CreateTemp("", "note")
		if err != nil {
			return err
		}
		return f.Close()
	case "leaves goroutines":
		go func() { select {} }()
	}
	return nil
}

func (n *note) Restore(ctx context.Context, r io.Reader) error {
	if n.fault == "empties first" {
		n.set("")
	}
	b, err := io.ReadAll(r)
	switch {
	case err != nil && n.fault == "takes what a reader gave":
		n.set("cut")
		return err
	case err != nil && n.fault == "hides the reader's error":
		return errors.New("some error")
	case err != nil && n.fault == "corrupt reader":
		return fmt.Errorf("%w: %w", abi.ErrCorrupt, err)
	case err != nil:
		return err
	}
	if n.fault != "restores without a context" && ctx.Err() != nil {
		return ctx.Err()
	}
	text, err := decode(b)
	switch {
	case err != nil && n.fault == "takes anything":
		n.set(string(b))
		return nil
	case err != nil && n.fault == "errors without a kind":
		return errors.New("bad")
	case err != nil && n.fault == "empties at an error":
		n.set("")
		return err
	case err != nil && n.fault == "takes the empty state" && len(b) == 0:
		n.set("")
		return nil
	case err != nil && n.fault == "takes bytes behind" && len(b) > 100 && b[len(b)-1] == 0xff && b[len(b)-16] == 0xff:
		return nil
	case err != nil:
		return err
	}
	if n.fault == "restores another state" {
		text += "?"
	}
	if n.fault != "restores nothing" {
		n.set(text)
	}
	return nil
}

func (n *note) Reset(ctx context.Context) error {
	if err := ctx.Err(); err != nil && n.fault != "resets without a context" {
		return err
	}
	if n.fault != "resets nothing" {
		n.set("")
	}
	return nil
}

// long makes native states of more than one piece.
var long = strings.Repeat("x", 3000)

func fixture(n *note) Fixture {
	return Fixture{
		Source:  n,
		Put:     func(i int) { n.set(fmt.Sprintf("state %d %s", i, long)) },
		State:   n.get,
		Request: func(i int) { n.set(fmt.Sprint("request", i)) },
		Close: func() {
			for _, f := range n.held {
				_ = f.Close()
			}
		},
	}
}

func TestARightSourcePasses(t *testing.T) {
	Test(t, func(*testing.T) Fixture { return fixture(&note{}) })
}

// TestWrongSourcesAreFound: for each thing a source can do wrong the check that is there for it fails, so
// that none of them is a check that can not fail.
func TestWrongSourcesAreFound(t *testing.T) {
	const (
		gives, stays, apart, empties = "Restore gives back what was captured", "a capture stays what it was", "captures are independent", "Reset empties"
		cut, damage                  = "a cut native state is refused", "a damaged native state is refused"
		reader, writer               = "a failing reader changes nothing", "a failing writer is told"
		ended, requests              = "a context that has ended", "requests during Restore"
		left, moment                 = "nothing is left behind", "an atomic capture is of one moment"
	)
	found := map[string]bool{}
	for wrong, names := range map[fault][]string{
		"restores nothing":            {gives, empties},
		"restores another state":      {gives, stays, apart, empties, cut, damage, reader, requests, left},
		"resets nothing":              {empties},
		"not fixed":                   {stays, apart},
		"other bytes each time":       {stays, apart, writer, ended},
		"closes all":                  {gives},
		"close fails":                 {gives, stays, apart, empties, cut, left},
		"takes anything":              {cut, damage, left},
		"takes the empty state":       {cut},
		"takes bytes behind":          {damage},
		"errors without a kind":       {cut, damage},
		"empties at an error":         {cut, damage},
		"empties first":               {cut, damage, reader},
		"takes what a reader gave":    {reader},
		"hides the reader's error":    {reader},
		"corrupt reader":              {reader},
		"swallows the writer's error": {writer},
		"hides the writer's error":    {writer},
		"captures without a context":  {ended},
		"writes without a context":    {ended},
		"restores without a context":  {ended},
		"resets without a context":    {ended},
		"leaves temporary files":      {left},
		"leaves goroutines":           {left},
		"leaks files":                 {left},
		"torn badly":                  {moment, gives},
		"stale":                       {moment},
	} {
		for _, c := range checks() {
			want := false
			for _, name := range names {
				want = want || name == c.name
			}
			if !want {
				continue
			}
			found[c.name] = true
			t.Run(string(wrong)+"/"+c.name, func(t *testing.T) {
				t.Setenv("TMPDIR", t.TempDir())
				f := fixture(&note{fault: wrong})
				defer f.Close()
				if err := c.run(t.Context(), f); err == nil {
					t.Error("the check passes")
				}
			})
		}
	}
	for _, c := range checks() {
		if !found[c.name] {
			t.Errorf("no wrong source fails %q", c.name)
		}
	}
}

// TestSkips: what a source does not promise is not asked of it.
func TestSkips(t *testing.T) {
	f := fixture(&note{fault: "not atomic"})
	f.Request = nil
	for _, c := range checks() {
		if c.name != "an atomic capture is of one moment" && c.name != "requests during Restore" {
			continue
		}
		if err := c.run(t.Context(), f); !errors.As(err, new(skipped)) {
			t.Errorf("%s: %v, want it skipped", c.name, err)
		}
	}
}

// TestSound: where the beginning of a state is a state, it must be taken.
func TestSound(t *testing.T) {
	f := fixture(&note{})
	f.Sound = func(b []byte) bool { return len(b) == 7 }
	if err := refusesCut(t.Context(), f); err == nil || !strings.Contains(err.Error(), "first 7 bytes") {
		t.Errorf("a source that refuses a sound state passes: %v", err)
	}
	f = fixture(&note{fault: "takes the empty state"})
	f.Sound = func(b []byte) bool { return len(b) == 0 }
	if err := refusesCut(t.Context(), f); err != nil {
		t.Error(err)
	}
}

func TestSamples(t *testing.T) {
	if got := samples(5, 10); !bytes.Equal([]byte(fmt.Sprint(got)), []byte("[0 1 2 3 4]")) {
		t.Error(got)
	}
	got := samples(1_000_000, 100)
	if len(got) > 100 || len(got) < 60 || got[0] != 0 || got[len(got)-1] != 999_999 || got[24] != 24 {
		t.Error(got)
	}
}
