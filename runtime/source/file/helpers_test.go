package file

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// open makes a source of db.json in a new folder, with a small Settle so that tests are quick.
func open(t testing.TB, cfg Config) *Source {
	t.Helper()
	if cfg.Path == "" {
		cfg.Path = filepath.Join(memory(t), "db.json")
	}
	if cfg.Settle == 0 {
		cfg.Settle = 10 * time.Millisecond
	}
	s, err := New(cfg)
	must(t, err)
	return s
}

// memory is a folder in memory where the system has such, for tests that write much.
func memory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "torpor-file")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// put writes the file as a service does that writes into it.
func put(t testing.TB, s *Source, content string) {
	t.Helper()
	must(t, os.WriteFile(s.cfg.Path, []byte(content), 0o644))
}

// swap replaces the file as a service does that writes a new one.
func swap(t testing.TB, s *Source, content string) {
	t.Helper()
	must(t, swapped(s, []byte(content)))
}

func swapped(s *Source, content []byte) error {
	return errors.Join(os.WriteFile(s.cfg.Path+".new", content, 0o644), os.Rename(s.cfg.Path+".new", s.cfg.Path))
}

const none = "(none)"

// look is what the file holds.
func look(t testing.TB, s *Source) string {
	t.Helper()
	b, err := os.ReadFile(s.cfg.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return none
	}
	must(t, err)
	return string(b)
}

func native(t testing.TB, s *Source) string {
	t.Helper()
	c, err := s.Capture(t.Context())
	must(t, err)
	var b bytes.Buffer
	must(t, c.WriteNative(t.Context(), &b))
	must(t, c.Close())
	return b.String()
}

func restore(t testing.TB, s *Source, state string) {
	t.Helper()
	must(t, s.Restore(t.Context(), bytes.NewReader([]byte(state))))
}

// left lists what lies beside the file.
func left(t testing.TB, s *Source) []string {
	t.Helper()
	var all []string
	found, err := os.ReadDir(s.folder)
	must(t, err)
	for _, e := range found {
		if e.Name() != filepath.Base(s.cfg.Path) {
			all = append(all, e.Name())
		}
	}
	return all
}
