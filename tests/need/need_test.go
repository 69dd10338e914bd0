package need_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/tests/need"
)

// recorder is a test that only notes how it was ended.
type recorder struct {
	testing.TB
	ended string
}

func (r *recorder) Helper() {}
func (r *recorder) Fatalf(format string, args ...any) {
	r.ended = "failed: " + fmt.Sprintf(format, args...)
	runtime.Goexit()
}
func (r *recorder) Skipf(format string, args ...any) {
	r.ended = "skipped: " + fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// ended runs f as a test would be run and tells how it ended; "" is by itself.
func ended(f func(testing.TB)) string {
	r := &recorder{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(r)
	}()
	<-done
	return r.ended
}

func TestMissingSkipsAndFailsInCI(t *testing.T) {
	for _, c := range []struct{ name, ci, want string }{
		{"on a person's machine", "", "skipped: "},
		{"CI=false", "false", "skipped: "},
		{"in CI", "true", "failed: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("CI", c.ci)
			for what, f := range map[string]func(testing.TB){
				"no-such-program-anywhere": func(tb testing.TB) { need.Program(tb, "no-such-program-anywhere") },
				"to fly":                   func(tb testing.TB) { need.Missing(tb, "wings, to fly") },
			} {
				if got := ended(f); !strings.HasPrefix(got, c.want) || !strings.Contains(got, what) {
					t.Errorf("ended with %q; want %q and the name %q", got, c.want, what)
				}
			}
		})
	}
}

func TestWhatIsThereIsNotMissing(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "present")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	if got := ended(func(tb testing.TB) {
		if p := need.Program(tb, "present"); p != program {
			t.Errorf("found %s, want %s", p, program)
		}
	}); got != "" {
		t.Error(got)
	}
}
