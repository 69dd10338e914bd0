package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// nativeOf captures a state.
func nativeOf(t testing.TB, s *Source) []byte {
	t.Helper()
	c, err := s.Capture(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := errors.Join(c.WriteNative(t.Context(), &b), c.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestStepsFail fails each step of a swap in turn, as a crash or a disk would. A single database is old or
// new, each of several too, and the Restore made again heals it.
func TestStepsFail(t *testing.T) {
	for _, folder := range []bool{false, true} {
		for _, mode := range []string{"WAL", "DELETE"} {
			for k := 1; ; k++ {
				dir := t.TempDir()
				names := []string{"a.db"}
				cfg := Config{Path: filepath.Join(dir, "a.db")}
				if folder {
					names = []string{"a.db", "b.db", "c.db"}
					cfg = Config{Path: dir, Pattern: "*.db"}
				}
				s, err := New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				for _, n := range names {
					put(t, filepath.Join(dir, n), mode, 1)
				}
				state := nativeOf(t, s)
				for _, n := range append(names, "d.db") {
					if folder || n == "a.db" {
						put(t, filepath.Join(dir, n), mode, 2)
					}
				}
				was := query(t, filepath.Join(dir, "a.db"), look)
				before := nativeOf(t, s)
				at := 0
				s.step = func(string) error {
					if at++; at == k {
						return errors.New("power cut")
					}
					return nil
				}
				err = s.Restore(t.Context(), bytes.NewReader(state))
				s.step = func(string) error { return nil }
				for _, n := range names {
					now := query(t, filepath.Join(dir, n), look)
					isNew := !strings.Contains(now, "row 2")
					if now != was && (!isNew || !strings.Contains(now, "row 1")) || err == nil && !isNew {
						t.Fatalf("step %d (%v): %s is neither old nor new: %q", k, err, n, now)
					}
				}
				if now := nativeOf(t, s); !folder && !bytes.Equal(now, before) && !bytes.Equal(now, state) {
					t.Fatalf("step %d (%v): the database is neither old nor new to a capture", k, err)
				}
				if err := s.Restore(t.Context(), bytes.NewReader(state)); err != nil {
					t.Fatalf("step %d: again: %v", k, err)
				}
				if !bytes.Equal(nativeOf(t, s), state) {
					t.Fatalf("step %d: the Restore made again does not heal it", k)
				}
				if left := others(t, dir, names...); len(left) > 0 {
					t.Errorf("left: %q", left)
				}
				if err == nil {
					if k < 4 {
						t.Errorf("only %d steps", k)
					}
					break
				}
			}
		}
	}
}

// TestKilled kills a process that restores, at moments that differ. What is there is old or new.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("TORPOR_SQLITE_RESTORE"); dir != "" {
		restoreForEver(t, dir)
		return
	}
	for _, mode := range []string{"WAL", "DELETE"} {
		dir := t.TempDir()
		file := filepath.Join(dir, "a.db")
		s, err := New(Config{Path: file})
		if err != nil {
			t.Fatal(err)
		}
		states := map[string]bool{}
		for n := 1; n <= 2; n++ {
			put(t, file, mode, n)
			states[query(t, file, look)] = true
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("state", n)), nativeOf(t, s), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		rounds := 15
		if testing.Short() {
			rounds = 4
		}
		for i := range rounds {
			ctx, cancel := context.WithCancel(t.Context())
			cmd := exec.CommandContext(ctx, os.Args[0], "-test.run", "^TestKilled$", "-test.count", "1")
			cmd.Env = append(os.Environ(), "TORPOR_SQLITE_RESTORE="+dir)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			os.Remove(filepath.Join(dir, "begun"))
			for range 2000 { // until it restores
				if _, err := os.Stat(filepath.Join(dir, "begun")); err == nil {
					break
				}
				time.Sleep(5 * time.Millisecond)
			}
			time.Sleep(time.Duration(i*1700) * time.Microsecond)
			cancel()
			cmd.Wait()
			if now := query(t, file, look); !states[now] {
				t.Fatalf("killed in round %d, the database is neither old nor new: %q", i, now)
			}
			if got := query(t, file, "PRAGMA integrity_check"); got != "ok|||\n" {
				t.Fatal(got)
			}
		}
		state, err := os.ReadFile(filepath.Join(dir, "state1"))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Restore(t.Context(), bytes.NewReader(state)); err != nil {
			t.Fatal(err)
		}
		if left := others(t, dir, "a.db", "state1", "state2", "begun"); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	}
}

// restoreForEver restores one state after the other until the process is killed.
func restoreForEver(t *testing.T, dir string) {
	s, err := New(Config{Path: filepath.Join(dir, "a.db")})
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < 100_000; n++ {
		state, err := os.ReadFile(filepath.Join(dir, fmt.Sprint("state", n%2+1)))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Restore(t.Context(), bytes.NewReader(state)); err != nil {
			t.Fatal(err)
		}
		if n == 1 {
			if err := os.WriteFile(filepath.Join(dir, "begun"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}
