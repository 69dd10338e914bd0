//go:build unix

package exec_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/source/exec"
	"github.com/torpor-run/torpor/runtime/source/sourcetest"
	"github.com/torpor-run/torpor/runtime/spool"
)

var _ runtime.AtomicSource = (*exec.Source)(nil)

func Example() {
	source, err := exec.New(exec.Config{Service: "notes", Part: "store", Dump: []string{"echo", "tea"}, Restore: []string{"true"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	capture, err := source.Capture(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer capture.Close()
	_ = capture.WriteNative(ctx, os.Stdout)
	// Output:
	// tea
}

// The service is a file; its dump has a checksum behind it, and restore looks.
const (
	dump    = `cat state; cksum < state`
	restore = `cat > new; head -c -1 new > /dev/null; size=$(wc -c < new); sum=$(tail -n 1 new); n=$((size - ${#sum} - 1)); [ $n -ge 0 ] || exit 65
head -c $n new > next; [ "$(cat next; cksum < next; echo .)" = "$(cat new; echo .)" ] || { echo not mine >&2; rm -f new next; exit 65; }
rm new; mv next state`
	reset = `: > state`
)

func sh(script string) []string { return []string{"/bin/sh", "-c", script} }

func newSource(t testing.TB, c exec.Config) *exec.Source {
	t.Helper()
	c.Service, c.Part = "notes", "store"
	c.Env = append(c.Env, "PATH="+os.Getenv("PATH"), "LC_ALL=C")
	if c.Dump == nil {
		c.Dump = sh(dump)
	}
	if c.Restore == nil {
		c.Restore = sh(restore)
	}
	s, err := exec.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSource(t *testing.T) {
	sourcetest.Test(t, func(t *testing.T) sourcetest.Fixture {
		folder := t.TempDir()
		set := func(text string) error { return os.WriteFile(filepath.Join(folder, "state"), []byte(text), 0o600) }
		if err := set(""); err != nil {
			t.Fatal(err)
		}
		return sourcetest.Fixture{
			Source: newSource(t, exec.Config{Folder: folder, Reset: sh(reset), Spool: spool.Config{Memory: 10, Folder: os.TempDir()}}),
			Put: func(n int) {
				if err := set(fmt.Sprintf("state %d\nof the file\n", n)); err != nil {
					t.Fatal(err)
				}
			},
			State: func() string {
				b, err := os.ReadFile(filepath.Join(folder, "state"))
				return fmt.Sprintf("%q %v", b, err)
			},
		}
	})
}

func TestFailures(t *testing.T) {
	for _, c := range []struct {
		name, script string
		says         []string
		is           error
	}{
		{"exit code", "echo half; echo no such table >&2; exit 3", []string{"service notes, part store", "/bin/sh", "exit status 3", "no such table"}, nil},
		{"not its state", "echo not mine >&2; exit 65", []string{"exit code 65", "not mine"}, abi.ErrCorrupt},
		{"killed", "kill -9 $$", []string{"killed"}, nil},
		{"much said", "yes complaint | head -c 100000 >&2; echo last >&2; exit 1", []string{"…", "last"}, nil},
		{"garbled", `printf '\377\001' >&2; exit 1`, []string{`\x01`}, nil},
		{"outlived", "sleep 100 & exit 0", []string{"kept its output open"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSource(t, exec.Config{Dump: sh(c.script), Restore: sh(c.script), Reset: sh(c.script), Grace: 100 * time.Millisecond})
			_, captured := s.Capture(t.Context())
			for op, err := range map[string]error{"Capture": captured, "Restore": s.Restore(t.Context(), strings.NewReader("x")), "Reset": s.Reset(t.Context())} {
				if err == nil || c.is != nil && !errors.Is(err, c.is) || c.is == nil && errors.Is(err, abi.ErrCorrupt) {
					t.Errorf("%s: %v, want %v", op, err, c.is)
					continue
				}
				for _, part := range c.says {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("%s says %q, without %q", op, err, part)
					}
				}
				if len(err.Error()) > 3000 {
					t.Errorf("%s says %d bytes", op, len(err.Error()))
				}
			}
		})
	}
	s := newSource(t, exec.Config{Dump: []string{"/no/such/program"}})
	if _, err := s.Capture(t.Context()); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "/no/such/program") {
		t.Errorf("%v", err)
	}
	if err := s.Reset(t.Context()); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Reset without a command: %v", err)
	}
}

// TestNothingIsLeft: a command that is ended takes what it began with it, even if it would not go.
func TestNothingIsLeft(t *testing.T) {
	for name, script := range map[string]string{
		"asked":    `sleep 100 & echo $! > child; echo $$ > self; wait`,
		"stubborn": `trap "" TERM; sleep 100 & echo $! > child; echo $$ > self; while :; do sleep 1; done`,
		"done":     `sleep 100 > /dev/null 2>&1 & echo $! > child; echo $$ > self`,
		"flooding": `sleep 100 & echo $! > child; echo $$ > self; exec yes`,
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			config := exec.Config{Folder: folder, Dump: sh(script), Grace: 100 * time.Millisecond, Timeout: time.Second}
			want := context.DeadlineExceeded
			switch name {
			case "flooding":
				config.Timeout, config.Spool.Bytes, want = time.Minute, 1<<20, abi.ErrTooLarge
			case "done":
				config.Timeout, want = time.Minute, nil
			}
			if _, err := newSource(t, config).Capture(t.Context()); !errors.Is(err, want) {
				t.Errorf("%v, want %v", err, want)
			}
			for _, file := range []string{"child", "self"} {
				b, err := os.ReadFile(filepath.Join(folder, file))
				if err != nil {
					t.Fatal(err)
				}
				pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
				if err != nil {
					t.Fatal(err)
				}
				gone := false
				for range 100 {
					if gone = !runs(pid); gone {
						break
					}
					time.Sleep(20 * time.Millisecond)
				}
				if !gone {
					t.Errorf("%s, process %d, is still there", file, pid)
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			}
		})
	}
}

// runs reports whether a process is there and no zombie, whose parent may be slow to look.
func runs(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || !bytes.Contains(b, []byte(") Z "))
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	s := newSource(t, exec.Config{Restore: sh("sleep 100")})
	if err := s.Restore(ctx, strings.NewReader("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestEnvironment: commands get what they are given and nothing of the runtime's, which may hold keys.
func TestEnvironment(t *testing.T) {
	t.Setenv("TORPOR_API_KEY", "secret")
	s, err := exec.New(exec.Config{Dump: []string{"/usr/bin/env"}, Restore: []string{"true"}, Env: []string{"A=b c"}})
	if err != nil {
		t.Fatal(err)
	}
	for want, s := range map[string]*exec.Source{"A=b c\n": s, "": func() *exec.Source {
		s, err := exec.New(exec.Config{Dump: []string{"/usr/bin/env"}, Restore: []string{"true"}})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}()} {
		c, err := s.Capture(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := errors.Join(c.WriteNative(t.Context(), &out), c.Close()); err != nil || out.String() != want {
			t.Errorf("the environment is %q (%v), want %q", out.String(), err, want)
		}
	}
}

func TestConfiguration(t *testing.T) {
	ok := []string{"true"}
	for _, c := range []exec.Config{{}, {Dump: ok}, {Restore: ok}, {Dump: []string{""}, Restore: ok}, {Dump: ok, Restore: ok, Reset: []string{""}},
		{Dump: ok, Restore: ok, Env: []string{"A"}}, {Dump: ok, Restore: ok, Env: []string{"=b"}}, {Dump: ok, Restore: ok, Timeout: 1},
		{Dump: ok, Restore: ok, Timeout: exec.MaxTimeout + 1}, {Dump: ok, Restore: ok, Grace: -1}, {Dump: ok, Restore: ok, Spool: spool.Config{Bytes: -1}}} {
		if _, err := exec.New(c); err == nil {
			t.Errorf("%+v passes", c)
		}
	}
	if s := newSource(t, exec.Config{Atomic: true}); !s.AtomicCapture() || newSource(t, exec.Config{}).AtomicCapture() {
		t.Error("atomic is not what was configured")
	}
}
