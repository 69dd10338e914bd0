package files

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// open makes a source for a new folder, with a small Settle so that tests are quick.
func open(t testing.TB, cfg Config) *Source {
	t.Helper()
	if cfg.Root == "" {
		cfg.Root = filepath.Join(memory(t), "data")
	}
	if cfg.Settle == 0 {
		cfg.Settle = 10 * time.Millisecond
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// memory is a folder in memory where the system has such, for tests that write much.
func memory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "torpor-files")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

// put writes a file below the source's folder, with the folders it lies in.
func put(t testing.TB, s *Source, path, content string) {
	t.Helper()
	full := filepath.Join(s.cfg.Root, path)
	must(t, os.MkdirAll(filepath.Dir(full), 0o755))
	must(t, os.WriteFile(full, []byte(content), 0o644))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// native captures and writes.
func native(t testing.TB, s *Source) []byte {
	t.Helper()
	c, err := s.Capture(t.Context())
	must(t, err)
	var b bytes.Buffer
	must(t, c.WriteNative(t.Context(), &b))
	must(t, c.Close())
	return b.Bytes()
}

func restore(t testing.TB, s *Source, state []byte) {
	t.Helper()
	must(t, s.Restore(t.Context(), bytes.NewReader(state)))
}

// picture is a folder in text, made without the code under test: all that Restore promises to bring back.
func picture(t testing.TB, root string) string {
	t.Helper()
	var lines []string
	seen := map[string]string{}
	must(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		if rel == insideWork {
			return filepath.SkipDir
		}
		line := fmt.Sprintf("%q %v %d %s", rel, info.Mode(), info.ModTime().UnixNano(), system(t, p, info))
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line += " -> " + target
		case info.Mode().IsRegular():
			f, err := os.Open(p)
			if err != nil {
				return err
			}
			h := sha256.New()
			if _, err := io.Copy(h, f); err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %x", info.Size(), h.Sum(nil)[:8])
			must(t, f.Close())
			if id := linked(info); id != "" {
				if first, ok := seen[id]; ok {
					line += " = " + first
				} else {
					seen[id] = rel
				}
			}
		}
		lines = append(lines, line)
		return nil
	}))
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// left lists what lies in the work folder and is no copy that is in use.
func left(t testing.TB, s *Source) []string {
	t.Helper()
	var all []string
	found, err := os.ReadDir(s.work)
	must(t, err)
	for _, e := range found {
		if e.Name() != workLock && e.Name() != workSpool {
			all = append(all, e.Name())
		}
	}
	used := map[string]bool{}
	if s.last != nil {
		for p := range s.last.packs {
			used[filepath.Base(p.path)] = true
		}
	}
	packs, err := os.ReadDir(s.spool.dir)
	must(t, err)
	for _, e := range packs {
		if !used[e.Name()] {
			all = append(all, "spool/"+e.Name())
		}
	}
	return all
}
