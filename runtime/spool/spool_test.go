package spool_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/spool"
)

func Example() {
	s, err := spool.Config{}.Fill(context.Background(), func(w io.Writer) error {
		_, err := io.WriteString(w, "what the service is now")
		return err
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	_ = s.WriteNative(context.Background(), os.Stdout)
	// Output:
	// what the service is now
}

var _ runtime.Capture = (*spool.Spool)(nil)

// pieces writes content in pieces of n bytes.
func pieces(content string, n int) func(io.Writer) error {
	return func(w io.Writer) error {
		for rest := content; rest != ""; {
			p := rest[:min(n, len(rest))]
			rest = rest[len(p):]
			if _, err := io.WriteString(w, p); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestGivesWhatWasWritten(t *testing.T) {
	for _, size := range []int{0, 1, 99, 100, 101, 5000} {
		for _, piece := range []int{1, 33, 100, 10_000} {
			folder := t.TempDir()
			content := strings.Repeat("0123456789abcdef", size/16+1)[:size]
			s, err := spool.Config{Folder: folder, Memory: 100}.Fill(t.Context(), pieces(content, piece))
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				var out bytes.Buffer
				if err := s.WriteNative(t.Context(), &out); err != nil || out.String() != content || s.Size() != int64(size) {
					t.Fatalf("%d bytes in pieces of %d: %d came back (%v), and Size is %d", size, piece, out.Len(), err, s.Size())
				}
			}
			// Two readers read for themselves.
			a, b := s.Reader(), s.Reader()
			first, _ := io.ReadAll(io.LimitReader(a, 50))
			all, err := io.ReadAll(b)
			rest, _ := io.ReadAll(a)
			if err != nil || string(all) != content || string(first)+string(rest) != content {
				t.Fatalf("%d bytes: readers disturb each other (%v)", size, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if left := names(t, folder); len(left) > 0 {
				t.Fatalf("%d bytes: %q are left", size, left)
			}
		}
	}
}

func names(t *testing.T, folder string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestHold(t *testing.T) {
	s, err := spool.Config{Folder: t.TempDir(), Memory: 1}.Fill(t.Context(), pieces("content", 7))
	if err != nil {
		t.Fatal(err)
	}
	other := s.Hold()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(other.Reader()); err != nil || string(b) != "content" {
		t.Errorf("a spool that is still held gives %q (%v)", b, err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
}

var errBroken = errors.New("broken (injected)")

func TestFailuresLeaveNothing(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	for _, c := range []struct {
		name   string
		ctx    context.Context
		config spool.Config
		write  func(io.Writer) error
		want   error
	}{
		{"too much for memory and file", t.Context(), spool.Config{Memory: 10, Bytes: 100}, pieces(strings.Repeat("x", 101), 20), abi.ErrTooLarge},
		{"too much at once", t.Context(), spool.Config{Bytes: 100}, pieces(strings.Repeat("x", 101), 101), abi.ErrTooLarge},
		{"too much, and told so in vain", t.Context(), spool.Config{Bytes: 100}, func(w io.Writer) error {
			for range 3 {
				_, _ = w.Write(make([]byte, 60))
			}
			return nil
		}, abi.ErrTooLarge},
		{"a writer that fails", t.Context(), spool.Config{Memory: 10}, func(w io.Writer) error {
			return errors.Join(pieces(strings.Repeat("x", 100), 20)(w), errBroken)
		}, errBroken},
		{"a context that ends", cancelled, spool.Config{Memory: 10}, func(w io.Writer) error {
			if err := pieces(strings.Repeat("x", 100), 20)(w); err != nil {
				return err
			}
			cancel()
			_, err := w.Write([]byte("y"))
			return err
		}, context.Canceled},
		{"a context that has ended when all is written", cancelled, spool.Config{}, func(io.Writer) error { return nil }, context.Canceled},
		{"no folder", t.Context(), spool.Config{Memory: 1, Folder: "nowhere/at/all"}, pieces("xx", 2), os.ErrNotExist},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.config.Folder == "" {
				c.config.Folder = t.TempDir()
				defer func() {
					if left := names(t, c.config.Folder); len(left) > 0 {
						t.Errorf("%q are left", left)
					}
				}()
			}
			if s, err := c.config.Fill(c.ctx, c.write); !errors.Is(err, c.want) || s != nil {
				t.Errorf("%v, %v; want %v", s, err, c.want)
			}
		})
	}
	if s, err := (spool.Config{Bytes: 100}).Fill(t.Context(), pieces(strings.Repeat("x", 100), 7)); err != nil || s.Size() != 100 {
		t.Errorf("as much as there may be: %v", err)
	}
}

func TestWriteNativeObeys(t *testing.T) {
	s, err := spool.Config{}.Fill(t.Context(), pieces(strings.Repeat("x", 1<<20), 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.WriteNative(ctx, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	if err := s.WriteNative(t.Context(), failing{}); !errors.Is(err, errBroken) {
		t.Errorf("to a writer that fails: %v", err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errBroken }

func TestBounds(t *testing.T) {
	for _, c := range []spool.Config{{Memory: -1}, {Memory: spool.MaxMemory + 1}, {Bytes: -1}, {Bytes: spool.MaxBytes + 1}} {
		if _, err := c.Check(); err == nil {
			t.Errorf("%+v passes", c)
		}
		if _, err := c.Fill(t.Context(), func(io.Writer) error { return nil }); err == nil {
			t.Errorf("%+v is used", c)
		}
	}
	if c, err := (spool.Config{}).Check(); err != nil || c.Memory != spool.DefaultMemory || c.Bytes != spool.DefaultBytes {
		t.Errorf("%+v (%v)", c, err)
	}
}
