package sqlite

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/source/sourcetest"
)

// query gives what a query finds, as text.
func query(t testing.TB, file, sql string) string {
	t.Helper()
	if _, err := os.Stat(file); err != nil {
		return "none"
	}
	c, err := open(file, openWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	var b strings.Builder
	if err := c.each(sql, func(s *stmt) error {
		for i := range 3 {
			fmt.Fprintf(&b, "%s|", s.bytes(i))
		}
		b.WriteByte('\n')
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// service runs statements as the service would.
func service(t testing.TB, file, sql string) {
	t.Helper()
	c, err := open(file, openCreate)
	if err == nil {
		err = c.exec("PRAGMA busy_timeout=5000; " + sql)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
}

// put brings a database into state n.
func put(t testing.TB, file, mode string, n int) {
	t.Helper()
	service(t, file, fmt.Sprintf(`PRAGMA journal_mode=%s; BEGIN IMMEDIATE;
		CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v TEXT, b BLOB);
		CREATE INDEX IF NOT EXISTS i ON t(v);
		CREATE TABLE IF NOT EXISTS n(n);
		DELETE FROM n; INSERT INTO n VALUES(%d);
		DELETE FROM t;
		INSERT INTO t VALUES(1, 'row %d', x'00ff'), (2, NULL, zeroblob(%d));
		COMMIT`, mode, n, n, n%50))
}

const look = "SELECT id, v, hex(b) FROM t UNION ALL SELECT n, '', '' FROM n"

func TestConformance(t *testing.T) {
	for _, form := range []Form{Rows, Pages} {
		for _, mode := range []string{"WAL", "DELETE"} {
			for _, inPlace := range []bool{false, true} {
				// Rows in place differ from pages in place only in what comes before. All is for those who ask.
				some := form == Rows && inPlace != (mode == "WAL") || form == Pages && mode == "DELETE" && !inPlace
				if !some && os.Getenv("TORPOR_SQLITE_THOROUGH") == "" || testing.Short() && inPlace {
					continue
				}
				t.Run(fmt.Sprintf("%s %s in place %v", form, mode, inPlace), func(t *testing.T) {
					sourcetest.Test(t, func(t *testing.T) sourcetest.Fixture {
						dir := t.TempDir()
						file := filepath.Join(dir, "orders.db")
						s, err := New(Config{Path: file, Form: form, InPlace: inPlace})
						if err != nil {
							t.Fatal(err)
						}
						var sound func([]byte) bool
						if form == Pages {
							sound = func(b []byte) bool { return len(b) == 0 } // no database
						}
						return sourcetest.Fixture{
							Source: s,
							Put:    func(n int) { put(t, file, mode, n) },
							State: func() string {
								if _, err := os.Stat(file); err == nil && inPlace && query(t, file, "SELECT count(*), '', '' FROM sqlite_schema") == "0|||\n" {
									return "none"
								}
								return query(t, file, look)
							},
							Sound: sound,
							Left:  func() []string { return others(t, dir, "orders.db") },
						}
					})
				})
			}
		}
		if testing.Short() && form == Pages {
			continue
		}
		t.Run(string(form)+" of a folder", func(t *testing.T) {
			sourcetest.Test(t, func(t *testing.T) sourcetest.Fixture {
				dir := t.TempDir()
				s, err := New(Config{Path: dir, Pattern: "*.db", Form: form})
				if err != nil {
					t.Fatal(err)
				}
				return sourcetest.Fixture{
					Source: s,
					Put: func(n int) {
						put(t, filepath.Join(dir, "a.db"), "WAL", n)
						if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o755); err != nil {
							t.Fatal(err)
						}
						put(t, filepath.Join(dir, "sub", "b.db"), "DELETE", n+1)
						if n%2 == 0 {
							put(t, filepath.Join(dir, "c.db"), "WAL", n+2)
						} else {
							os.Remove(filepath.Join(dir, "c.db"))
						}
					},
					State: func() string {
						var b strings.Builder
						for _, n := range []string{"a.db", "sub/b.db", "c.db"} {
							b.WriteString(query(t, filepath.Join(dir, n), look))
						}
						return b.String()
					},
					Left: func() []string { return others(t, dir, "a.db", "b.db", "c.db") },
				}
			})
		})
	}
}

// others lists the files of a folder but for those named.
func others(t testing.TB, dir string, but ...string) []string {
	t.Helper()
	var names []string
	err := filepath.Walk(dir, func(name string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		for _, b := range but {
			if info.Name() == b {
				return nil
			}
		}
		names = append(names, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestConfig(t *testing.T) {
	dir := t.TempDir()
	for name, cfg := range map[string]Config{
		"no path":      {},
		"pattern":      {Path: dir, Pattern: "[a"},
		"a path in it": {Path: dir, Pattern: "a/*.db"},
		"form":         {Path: dir, Form: "row"},
		"wait":         {Path: dir, Wait: -1},
		"databases":    {Path: dir, MaxDatabases: MaxMaxDatabases + 1},
		"no databases": {Path: dir, MaxDatabases: -1},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	s, err := New(Config{Path: dir, Pattern: "*.db", MaxDatabases: 2})
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "a.db"), "WAL", 1)
	put(t, filepath.Join(dir, "b.db"), "WAL", 1)
	state := nativeOf(t, s)
	put(t, filepath.Join(dir, "c.db"), "WAL", 1)
	if _, err := s.Capture(t.Context()); !errors.Is(err, abi.ErrTooLarge) {
		t.Errorf("Capture of three: %v", err)
	}
	s.cfg.MaxDatabases = 1
	if err := s.Restore(t.Context(), bytes.NewReader(state)); !errors.Is(err, abi.ErrTooLarge) {
		t.Errorf("Restore of two: %v", err)
	}
	if _, err := New(Config{Path: filepath.Join(dir, "a.db")}); err != nil {
		t.Error(err)
	}
	if file, err := New(Config{Path: dir}); err != nil {
		t.Error(err)
	} else if _, err := file.Capture(t.Context()); err == nil || !strings.Contains(err.Error(), "give a pattern") {
		t.Errorf("a folder as a file: %v", err)
	}
}

// TestKeeps: a file that is replaced keeps its mode, and a link to it stays one.
func TestKeeps(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "real", "a.db"), filepath.Join(dir, "link.db")
	if err := os.Mkdir(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, file, "WAL", 1)
	if err := os.Symlink("real/a.db", link); err != nil {
		t.Skip(err)
	}
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Path: link})
	if err != nil {
		t.Fatal(err)
	}
	state := nativeOf(t, s)
	put(t, link, "WAL", 2)
	if err := s.Restore(t.Context(), bytes.NewReader(state)); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(link)
	if err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is %v (%v)", info, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the file is %v (%v)", info.Mode(), err)
	}
	if got := query(t, file, look); !strings.Contains(got, "row 1") {
		t.Error(got)
	}
}

// TestLockedOneOfMany: where one database is locked, none has changed, its journal mode neither.
func TestLockedOneOfMany(t *testing.T) {
	dir := t.TempDir()
	s, err := New(Config{Path: dir, Pattern: "*.db", Wait: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "a.db"), "WAL", 1)
	put(t, filepath.Join(dir, "b.db"), "DELETE", 1)
	state := nativeOf(t, s)
	c, err := open(filepath.Join(dir, "b.db"), openWrite)
	if err == nil {
		err = c.exec("BEGIN EXCLUSIVE")
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Restore(t.Context(), bytes.NewReader(state)); !errors.Is(err, abi.ErrLocked) {
		t.Errorf("Restore: %v", err)
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(nativeOf(t, s), state) {
		t.Error("a database has changed")
	}
}

// TestMadeFolders: the folders that a Restore makes are on the disk with what is in them.
func TestMadeFolders(t *testing.T) {
	dir := t.TempDir()
	s, err := New(Config{Path: filepath.Join(dir, "x"), Pattern: "*.db"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "x", "y", "z"), 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "x", "y", "z", "a.db"), "WAL", 1)
	state := nativeOf(t, s)
	if err := os.RemoveAll(filepath.Join(dir, "x")); err != nil {
		t.Fatal(err)
	}
	synced := map[string]bool{}
	s.step = func(what string) error { synced[what] = true; return nil }
	if err := s.Restore(t.Context(), bytes.NewReader(state)); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"", "x", "x/y", "x/y/z"} {
		if !synced["sync "+filepath.Join(dir, d)] {
			t.Errorf("%q was not put on the disk: %v", d, synced)
		}
	}
}

// TestLinkedTemp: a link with the name of what is built leads nowhere.
func TestLinkedTemp(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	for _, form := range []Form{Rows, Pages} {
		dir := t.TempDir()
		s, err := New(Config{Path: dir, Pattern: "*.db", Form: form})
		if err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(dir, "a.db"), "WAL", 1)
		state := nativeOf(t, s)
		if err := os.Symlink(outside, filepath.Join(dir, "a.db"+stagedEnding)); err != nil {
			t.Skip(err)
		}
		if err := s.Restore(t.Context(), bytes.NewReader(state)); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(outside); err == nil {
			t.Errorf("%s: written through a link", form)
		}
		if info, err := os.Lstat(filepath.Join(dir, "a.db")); err != nil || !info.Mode().IsRegular() {
			t.Errorf("%s: the database is %v (%v)", form, info, err)
		}
	}
}

// TestBackslash: a name that Restore refuses is not saved.
func TestBackslash(t *testing.T) {
	if filepath.Separator == '\\' {
		t.Skip("no name here has one")
	}
	dir := t.TempDir()
	put(t, filepath.Join(dir, `a\b.db`), "DELETE", 1)
	s, err := New(Config{Path: dir, Pattern: "*.db"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Capture(t.Context()); err == nil || !strings.Contains(err.Error(), "backslash") {
		t.Error(err)
	}
}
