package sqlite_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/runtime/source/sqlite"
	"github.com/torpor-run/torpor/tests/need"
	"github.com/torpor-run/torpor/tests/serializers/files/through"
)

// shell is the sqlite3 program.
type shell string

func tool(t testing.TB) shell { return shell(need.Program(t, "sqlite3")) }

// run gives what sqlite3 says to commands and SQL.
func (s shell) run(t testing.TB, file, script string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), string(s), "-batch", "-bail", file)
	cmd.Stdin = strings.NewReader(".timeout 20000\n" + script)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("sqlite3 %s: %v\n%s", file, err, out)
	}
	return string(out)
}

// look is all that can be seen of a database.
func (s shell) look(t testing.TB, file string) string {
	t.Helper()
	return s.run(t, file, "PRAGMA page_size; PRAGMA encoding; PRAGMA auto_vacuum; PRAGMA journal_mode; PRAGMA user_version; PRAGMA application_id;\n"+
		"PRAGMA integrity_check;\n.dump\n")
}

func module(t testing.TB) *through.Module { return through.New(t, "sqlite", modules.SQLite()) }

func source(t testing.TB, cfg sqlite.Config) *sqlite.Source {
	t.Helper()
	s, err := sqlite.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// native captures a state.
func native(t testing.TB, s *sqlite.Source) []byte {
	t.Helper()
	b, err := tryNative(t, s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func tryNative(t testing.TB, s *sqlite.Source) ([]byte, error) {
	t.Helper()
	c, err := s.Capture(t.Context())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var b, again bytes.Buffer
	if err := c.WriteNative(t.Context(), &b); err != nil {
		return nil, err
	}
	if err := c.WriteNative(t.Context(), &again); err != nil || !bytes.Equal(b.Bytes(), again.Bytes()) {
		t.Fatalf("WriteNative gives other bytes the second time (%v)", err)
	}
	return b.Bytes(), nil
}

func restore(t testing.TB, s *sqlite.Source, native []byte) {
	t.Helper()
	if err := s.Restore(t.Context(), bytes.NewReader(native)); err != nil {
		t.Fatal(err)
	}
}

// keys are the keys of records.
func keys(t testing.TB, records [][]byte) []string {
	t.Helper()
	var all []string
	for _, r := range records {
		all = append(all, through.Key(t, r))
	}
	return all
}

// files lists a folder, and all below it.
func files(t testing.TB, dir string) []string {
	t.Helper()
	var all []string
	if err := filepath.Walk(dir, func(name string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			rel, _ := filepath.Rel(dir, name)
			all = append(all, rel)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return all
}
