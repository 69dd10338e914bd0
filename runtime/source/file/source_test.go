package file

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/source/sourcetest"
	"github.com/torpor-run/torpor/runtime/spool"
)

// TestSource holds the source to what the runtime asks of every one.
func TestSource(t *testing.T) {
	for name, c := range map[string]struct {
		cfg   Config
		write func(testing.TB, *Source, string)
	}{
		"any bytes":              {Config{}, put},
		"JSON, written in place": {Config{Check: JSON, Empty: []byte("{}")}, put},
		"JSON, replaced":         {Config{Check: JSON, Empty: []byte("{}"), Atomic: true, Spool: spool.Config{Memory: 1}}, swap},
	} {
		t.Run(name, func(t *testing.T) {
			sourcetest.Test(t, func(t *testing.T) sourcetest.Fixture {
				s := open(t, c.cfg)
				return sourcetest.Fixture{
					Source: s,
					Put: func(n int) {
						c.write(t, s, fmt.Sprintf(`{"state":%d,"more":[%s1e3]}`, n, strings.Repeat(`"ü",null,`, n%50)))
					},
					State: func() string {
						if content := look(t, s); content != none {
							return content
						}
						return string(s.cfg.Empty) // as a service takes it
					},
					Opaque: c.cfg.Check == Unchecked,
					Left:   func() []string { return left(t, s) },
				}
			})
		})
	}
}

func TestKinds(t *testing.T) {
	s := open(t, Config{})
	if !s.Offline() || s.AtomicCapture() || !open(t, Config{Atomic: true}).AtomicCapture() {
		t.Error("a file is restored offline, and atomic only if the configuration says so")
	}
}

// TestNoFile: what a file that is not there is captured as, and what that is restored as.
func TestNoFile(t *testing.T) {
	s := open(t, Config{})
	if got := native(t, s); got != "" {
		t.Errorf("captured as %q", got)
	}
	put(t, s, "state")
	restore(t, s, "")
	if got := look(t, s); got != none {
		t.Errorf("restored as %q", got)
	}
	put(t, s, "")
	if got := native(t, s); got != "" {
		t.Errorf("an empty file is captured as %q", got)
	}
	s = open(t, Config{Empty: []byte("{}"), Check: JSON})
	if got := native(t, s); got != "{}" {
		t.Errorf("captured as %q", got)
	}
	put(t, s, "[]")
	restore(t, s, "{}")
	if got := look(t, s); got != "{}" {
		t.Errorf("restored as %q", got)
	}
	if err := s.Restore(t.Context(), strings.NewReader("")); !errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("no bytes, which are no JSON: %v", err)
	}
	if got := look(t, s); got != "{}" {
		t.Errorf("refused, and now %q", got)
	}
	s = open(t, Config{Empty: []byte("x")})
	restore(t, s, "")
	if got := look(t, s); got != "" {
		t.Errorf("an empty file, where Empty is something else, is restored as %q", got)
	}
	// A folder that is gone is no state: a disk may not be there.
	must(t, os.RemoveAll(s.folder))
	if c, err := s.Capture(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is gone: %v %v", c, err)
	}
	restore(t, s, "state")
	if got := look(t, s); got != "state" {
		t.Errorf("restored into a folder that was gone as %q", got)
	}
}

// TestReset removes the file and what a crash has left.
func TestReset(t *testing.T) {
	s := open(t, Config{Empty: []byte("{}")})
	put(t, s, "state")
	temp := newPlace(nil, filepath.Base(s.cfg.Path)).temp
	must(t, os.WriteFile(filepath.Join(s.folder, temp), []byte("half"), 0o600))
	must(t, s.Reset(t.Context()))
	must(t, s.Reset(t.Context()))
	if got := look(t, s); got != none {
		t.Error(got)
	}
	if l := left(t, s); len(l) > 0 {
		t.Errorf("left %q", l)
	}
}

// hammer writes to the file all the time, for as long as the test looks at it.
func hammer(t *testing.T, write func(n int) error, while func()) {
	done := make(chan struct{})
	var writer sync.WaitGroup
	defer writer.Wait()
	defer close(done)
	writer.Go(func() {
		for n := 1; ; n++ {
			select {
			case <-done:
				return
			default:
				if err := write(n); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	while()
}

// whole tells whether a text is one that write has written.
func whole(t testing.TB, text string) {
	t.Helper()
	var numbers []int
	if err := json.Unmarshal([]byte(text), &numbers); err != nil {
		t.Fatalf("%v: %.100q", err, text)
	}
	for _, n := range numbers {
		if n != numbers[0] || len(numbers) != 2000 {
			t.Fatalf("%d numbers, %d and %d among them", len(numbers), numbers[0], n)
		}
	}
}

func numbers(n int) []byte {
	return []byte("[" + strings.Repeat(fmt.Sprintf("%d,", n), 1999) + fmt.Sprintf("%d]", n))
}

// TestTorn: a file that is written in place, with pauses in between that are longer than Settle, is never captured
// torn.
func TestTorn(t *testing.T) {
	s := open(t, Config{Check: JSON, Tries: MaxTries, Settle: 5 * time.Millisecond})
	put(t, s, string(numbers(0)))
	unlike := map[string]bool{}
	hammer(t, func(n int) error {
		f, err := os.OpenFile(s.cfg.Path, os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		for text := numbers(n); len(text) > 0; {
			cut := min(len(text), 1+rand.IntN(len(text)))
			if _, err := f.Write(text[:cut]); err != nil {
				return err
			}
			text = text[cut:]
			time.Sleep(time.Duration(rand.IntN(12)) * time.Millisecond)
		}
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
		return nil
	}, func() {
		for captures := 0; captures < 25 || len(unlike) < 5; captures++ {
			text := native(t, s)
			whole(t, text)
			unlike[text] = true
		}
	})
}

// TestTornStays: a file that was left half-written is refused, and so is one that is empty; what was captured before is
// not touched, and it is captured once it is whole.
func TestTornStays(t *testing.T) {
	s := open(t, Config{Check: JSON, Tries: 2, Empty: []byte("{}")})
	for content, want := range map[string]string{
		"":              "byte 0: it is empty",
		`{"a":[1,2`:     "byte 9: it ends in the midst",
		`{"a":1}{"a"`:   "byte 7: something follows",
		"[1,2]\x00\x00": "byte 5: something follows",
	} {
		put(t, s, content)
		_, err := s.Capture(t.Context())
		if err == nil || !strings.Contains(err.Error(), "torn") || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), "the last of 2 times") || !strings.Contains(err.Error(), s.cfg.Path) || !errors.Is(err, abi.ErrCorrupt) {
			t.Errorf("%q: %v", content, err)
		}
	}
	put(t, s, `{"a":1}`)
	if got := native(t, s); got != `{"a":1}` {
		t.Error(got)
	}
	put(t, s, strings.Repeat("[", maxDepth+1))
	if _, err := s.Capture(t.Context()); !errors.Is(err, abi.ErrTooLarge) || strings.Contains(err.Error(), "torn") {
		t.Error(err)
	}
}

// refusal captures until that is refused: a writer may be kept waiting for longer than Settle by the system.
func refusal(t *testing.T, s *Source) error {
	t.Helper()
	for range 100 {
		c, err := s.Capture(t.Context())
		if err != nil {
			return err
		}
		must(t, c.Close())
	}
	return errors.New("nothing was refused")
}

// TestComing: as long as files come and go in its folder, a file that is not there may be one of them.
func TestComing(t *testing.T) {
	s := open(t, Config{Tries: 2, Empty: []byte("{}")})
	other := filepath.Join(s.folder, "other")
	hammer(t, func(int) error { return errors.Join(os.WriteFile(other, nil, 0o600), os.Remove(other)) }, func() {
		if err := refusal(t, s); !strings.Contains(err.Error(), "it is not there, and files come") {
			t.Error(err)
		}
	})
	if got := native(t, s); got != "{}" {
		t.Error(got)
	}
}

// TestRestless: a file that is written to without an end is refused.
func TestRestless(t *testing.T) {
	s := open(t, Config{Tries: 3, Settle: 20 * time.Millisecond})
	put(t, s, "state")
	f, err := os.OpenFile(s.cfg.Path, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	defer f.Close()
	hammer(t, func(int) error {
		_, err := f.WriteString("more\n")
		return err
	}, func() {
		if err := refusal(t, s); !strings.Contains(err.Error(), "it is written to, the last of 3 times") {
			t.Error(err)
		}
	})
	must(t, f.Truncate(7))
	if got := native(t, s); got != "statemo" {
		t.Error(got)
	}
}

// TestReplaced: a service that replaces the file all the time is captured at the first try.
func TestReplaced(t *testing.T) {
	s := open(t, Config{Tries: 1, Settle: 5 * time.Millisecond})
	swap(t, s, string(numbers(0)))
	unlike := map[string]bool{}
	hammer(t, func(n int) error { return swapped(s, numbers(n)) }, func() {
		for captures := 0; captures < 50 || len(unlike) < 10; captures++ {
			c, err := s.Capture(t.Context())
			if err != nil && strings.Contains(err.Error(), "just been replaced") { // between two looks at it
				continue
			}
			must(t, err)
			var b bytes.Buffer
			must(t, errors.Join(c.WriteNative(t.Context(), &b), c.Close()))
			whole(t, b.String())
			unlike[b.String()] = true
		}
	})
}

// TestRemovedAndMade: a service that removes the file before it gives another its name is not taken for one
// without a file.
func TestRemovedAndMade(t *testing.T) {
	s := open(t, Config{Tries: MaxTries, Settle: 100 * time.Millisecond})
	swap(t, s, string(numbers(0)))
	hammer(t, func(n int) error {
		return errors.Join(os.WriteFile(s.cfg.Path+".new", numbers(n), 0o600), os.Remove(s.cfg.Path), os.Rename(s.cfg.Path+".new", s.cfg.Path))
	}, func() {
		for range 10 {
			whole(t, native(t, s))
		}
	})
}

// TestChanges: whatever happens to the file between two looks at it is seen, but what leaves it as it was.
func TestChanges(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, s *Source)
		seen   bool
	}{
		"other bytes": {func(t *testing.T, s *Source) { put(t, s, "STATE") }, true},
		"fewer":       {func(t *testing.T, s *Source) { must(t, os.Truncate(s.cfg.Path, 3)) }, true},
		"more":        {func(t *testing.T, s *Source) { must(t, os.Truncate(s.cfg.Path, 9)) }, true},
		"a change that hides": {func(t *testing.T, s *Source) {
			info, err := os.Stat(s.cfg.Path)
			must(t, err)
			put(t, s, "STATE")
			must(t, os.Chtimes(s.cfg.Path, info.ModTime(), info.ModTime()))
		}, goruntime.GOOS == "linux"},
		"nothing":      {func(*testing.T, *Source) {}, false},
		"another file": {func(t *testing.T, s *Source) { swap(t, s, "STATE") }, false},
		"none":         {func(t *testing.T, s *Source) { must(t, os.Remove(s.cfg.Path)) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, Config{})
			put(t, s, "state")
			root, err := os.OpenRoot(s.folder)
			must(t, err)
			defer root.Close()
			in, err := root.Open("db.json")
			must(t, err)
			defer in.Close()
			was, err := in.Stat()
			must(t, err)
			time.Sleep(20 * time.Millisecond) // a step of the clock, which Capture waits for
			c.change(t, s)
			if err := s.changed(root, in, was); (err != nil) != c.seen {
				t.Errorf("%v", err)
			}
		})
	}
}

// meddler is a context that does something when it is asked a second time whether it has ended: by then the first
// piece of the file is being copied.
type meddler struct {
	context.Context
	asked int
	do    func()
}

func (m *meddler) Err() error {
	if m.asked++; m.asked == 2 {
		m.do()
	}
	return m.Context.Err()
}

// TestChangesWhileCopied: what happens while the file is copied is seen, and a file that is replaced then is captured as
// it was.
func TestChangesWhileCopied(t *testing.T) {
	const size = 1 << 20
	was := strings.Repeat("x", size)
	for name, c := range map[string]struct {
		do   func(t *testing.T, s *Source)
		want string
	}{
		"written to": {func(t *testing.T, s *Source) { put(t, s, strings.Repeat("y", size)) }, "it is written to"},
		"cut":        {func(t *testing.T, s *Source) { must(t, os.Truncate(s.cfg.Path, size/2)) }, "it is written to"},
		"replaced":   {func(t *testing.T, s *Source) { swap(t, s, "y") }, ""},
		"removed":    {func(t *testing.T, s *Source) { must(t, os.Remove(s.cfg.Path)) }, ""},
	} {
		s := open(t, Config{Tries: 1})
		put(t, s, was)
		m := &meddler{Context: t.Context(), do: func() { c.do(t, s) }}
		got, err := s.Capture(m)
		switch {
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) || c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case err == nil:
			var b bytes.Buffer
			must(t, errors.Join(got.WriteNative(t.Context(), &b), got.Close()))
			if b.String() != was {
				t.Errorf("%s: captured as %d other bytes", name, b.Len())
			}
		}
		if m.asked < 3 {
			t.Errorf("%s: asked %d times", name, m.asked)
		}
	}
}

// TestLarge: memory does not follow the size of the file.
func TestLarge(t *testing.T) {
	if testing.Short() {
		t.Skip("a file of 128 MB")
	}
	s := open(t, Config{Check: JSON, Spool: spool.Config{Memory: 1 << 20}})
	f, err := os.Create(s.cfg.Path)
	must(t, err)
	piece := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	_, err = f.WriteString(`"`)
	for range 128 {
		must(t, err)
		_, err = f.Write(piece)
	}
	must(t, err)
	_, err = f.WriteString(`"`)
	must(t, errors.Join(err, f.Close()))
	other := open(t, Config{Check: JSON})
	var before, after goruntime.MemStats
	goruntime.ReadMemStats(&before)
	start := time.Now()
	c, err := s.Capture(t.Context())
	must(t, err)
	captured := time.Since(start)
	r, w := io.Pipe()
	go func() { _ = w.CloseWithError(c.WriteNative(t.Context(), w)) }()
	must(t, other.Restore(t.Context(), r))
	goruntime.ReadMemStats(&after)
	must(t, c.Close())
	t.Logf("captured in %v, restored in %v", captured, time.Since(start)-captured)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
		t.Errorf("%d bytes were allocated", grown)
	}
	if look(t, other) != look(t, s) {
		t.Error("it is another file")
	}
}

func TestTooLarge(t *testing.T) {
	s := open(t, Config{MaxBytes: 10})
	put(t, s, "0123456789")
	if got := native(t, s); got != "0123456789" {
		t.Error(got)
	}
	restore(t, s, "9876543210")
	put(t, s, "01234567890")
	if _, err := s.Capture(t.Context()); !errors.Is(err, abi.ErrTooLarge) || !strings.Contains(err.Error(), "MaxBytes") {
		t.Error(err)
	}
	if err := s.Restore(t.Context(), strings.NewReader("a state too large")); !errors.Is(err, abi.ErrTooLarge) || !strings.Contains(err.Error(), "MaxBytes") {
		t.Error(err)
	}
	if got := look(t, s); got != "01234567890" {
		t.Error(got)
	}
	if l := left(t, s); len(l) > 0 {
		t.Errorf("left %q", l)
	}
}

// TestLinks: a link to another file of the folder is followed and stays, any other is refused.
func TestLinks(t *testing.T) {
	s := open(t, Config{})
	at := func(name string) string { return filepath.Join(s.folder, name) }
	outside := filepath.Join(t.TempDir(), "outside")
	must(t, os.WriteFile(outside, []byte("mine"), 0o600))
	must(t, os.Mkdir(at("sub"), 0o700))
	must(t, os.Symlink(outside, at("sub/link")))
	for target, want := range map[string]string{
		outside:                                 "out of its folder",
		"../" + filepath.Base(s.folder) + "x/y": "out of its folder",
		"sub/link":                              "out of its folder",
		"sub":                                   "it is a folder",
		".":                                     "out of its folder",
		"db.json":                               "more than 8 symbolic links",
	} {
		must(t, os.Symlink(target, s.cfg.Path))
		_, err := New(s.cfg)
		_, cerr := s.Capture(t.Context())
		for call, err := range map[string]error{
			"New": err, "Capture": cerr, "Restore": s.Restore(t.Context(), strings.NewReader("theirs")), "Reset": s.Reset(t.Context()),
		} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s, a link to %s: %v", call, target, err)
			}
		}
		must(t, os.Remove(s.cfg.Path))
	}
	if b, err := os.ReadFile(outside); err != nil || string(b) != "mine" {
		t.Errorf("%q %v", b, err)
	}
	must(t, os.Symlink("hop", s.cfg.Path))
	must(t, os.Symlink(at("real"), at("hop")))
	if got := native(t, s); got != "" {
		t.Errorf("a link to nothing is captured as %q", got)
	}
	restore(t, s, "1")
	must(t, os.WriteFile(at("real"), []byte("2"), 0o600))
	if got := native(t, s); got != "2" {
		t.Error(got)
	}
	restore(t, s, "3")
	if b, err := os.ReadFile(at("real")); err != nil || string(b) != "3" || look(t, s) != "3" {
		t.Errorf("%q %v", b, err)
	}
	must(t, s.Reset(t.Context()))
	if target, err := os.Readlink(s.cfg.Path); err != nil || target != "hop" {
		t.Errorf("%q %v", target, err)
	}
	if _, err := os.Lstat(at("real")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// TestNoFileInItsPlace: a folder in the place of the file, and a file in that of the folder.
func TestNoFileInItsPlace(t *testing.T) {
	s := open(t, Config{})
	must(t, os.Mkdir(s.cfg.Path, 0o700))
	if _, err := s.Capture(t.Context()); err == nil || !strings.Contains(err.Error(), "it is a folder, not a file") {
		t.Error(err)
	}
	if err := s.Restore(t.Context(), strings.NewReader("x")); err == nil || !strings.Contains(err.Error(), "it is a folder") {
		t.Error(err)
	}
	if err := s.Reset(t.Context()); err == nil || !strings.Contains(err.Error(), "it is a folder") {
		t.Error(err)
	}
	must(t, os.Remove(s.cfg.Path))
	put(t, s, "state")
	if _, err := New(Config{Path: filepath.Join(s.cfg.Path, "below")}); err == nil {
		t.Error("a file below a file")
	}
}

func TestConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	for want, cfg := range map[string]Config{
		"Path is missing":    {},
		"cannot be a file's": {Path: "/"},
		"Tries is 1001":      {Path: file, Tries: 1001},
		"Settle is -1":       {Path: file, Settle: -1},
		"MaxBytes is -5":     {Path: file, MaxBytes: -5},
		"Mode is":            {Path: file, Mode: 0o600 | os.ModeSetuid},
		"Check is \"xml\"":   {Path: file, Check: "xml"},
		"Empty has 3 bytes":  {Path: file, MaxBytes: 2, Empty: []byte("abc")},
		"Empty is not what":  {Path: file, Check: JSON, Empty: []byte("{")},
		"Memory is -1":       {Path: file, Spool: spool.Config{Memory: -1}},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", cfg, err, want)
		}
	}
}

// TestStopped: a capture that is stopped while it waits ends at once.
func TestStopped(t *testing.T) {
	s := open(t, Config{Settle: MaxSettle})
	for _, content := range []string{none, "just now"} {
		if content != none {
			put(t, s, content)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		if _, err := s.Capture(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", content, err)
		}
		cancel()
	}
}
