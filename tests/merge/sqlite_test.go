package merge_test

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/source/sqlite"
	"github.com/torpor-run/torpor/tests/need"
	"github.com/torpor-run/torpor/tests/serializers/files/through"
)

// TestSQLite: rows of two databases, values in pieces among them, and databases of accounts and regions.
func TestSQLite(t *testing.T) {
	program := need.Program(t, "sqlite3")
	sql := func(file, script string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), program, "-batch", "-bail", file)
		cmd.Stdin = strings.NewReader(script)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	m := through.New(t, "sqlite", modules.SQLite())
	source := func(dir string) *sqlite.Source {
		s, err := sqlite.New(sqlite.Config{Path: dir, Pattern: "*.db"})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	capture := func(dir string) []byte {
		t.Helper()
		c, err := source(dir).Capture(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var b bytes.Buffer
		if err := c.WriteNative(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	a, b := t.TempDir(), t.TempDir()
	const orders = "CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT); CREATE TABLE files (id INTEGER PRIMARY KEY, data BLOB);"
	const region = "000000000000_us-east-1.db"
	sql(filepath.Join(a, "shop.db"), orders+"INSERT INTO orders VALUES (1, 'chair'), (2, 'desk'), (5, 'lamp'); INSERT INTO files VALUES (1, randomblob(700000)), (2, randomblob(600000)), (3, 'x');")
	sql(filepath.Join(b, "shop.db"), orders+"CREATE TABLE notes (n TEXT); CREATE INDEX what ON orders (what); INSERT INTO orders VALUES (2, 'table'), (3, 'shelf'); INSERT INTO files VALUES (0, randomblob(300000)), (2, zeroblob(300000)); INSERT INTO notes VALUES ('new');")
	for dir, script := range map[string]string{a: "INSERT INTO t VALUES (1), (2)", b: "INSERT INTO t VALUES (2), (3)"} {
		sql(filepath.Join(dir, region), "CREATE TABLE t (i INTEGER PRIMARY KEY);"+script)
	}
	sql(filepath.Join(a, "000000000000_eu-west-1.db"), "CREATE TABLE t (i INTEGER PRIMARY KEY); INSERT INTO t VALUES (7)")
	live, in := state(t, m, capture(a)), state(t, m, capture(b))
	properties(t, m.Descriptor(), live, in)
	for _, c := range []struct {
		strategy            snapshot.Strategy
		orders, files, east string
		west                bool
	}{
		{snapshot.Overwrite, "2|table,3|shelf", "0|300000,2|300000", "2,3", false},
		{snapshot.AccountRegionMerge, "1|chair,2|table,3|shelf,5|lamp", "0|300000,1|700000,2|300000,3|1", "2,3", true},
		{snapshot.ServiceMerge, "1|chair,2|table,3|shelf,5|lamp", "0|300000,1|700000,2|300000,3|1", "1,2,3", true},
	} {
		merged, counts := merge(t, m.Descriptor(), c.strategy, live, in)
		got, err := native(t, m, merged)
		if err != nil {
			t.Fatalf("%s, %+v: %v", c.strategy, counts, err)
		}
		dir := t.TempDir()
		if err := source(dir).Restore(t.Context(), bytes.NewReader(got)); err != nil {
			t.Fatal(err)
		}
		look := func(file, query string) string {
			return strings.ReplaceAll(sql(filepath.Join(dir, file), query), "\n", ",")
		}
		if got := look("shop.db", "SELECT * FROM orders ORDER BY id"); got != c.orders {
			t.Errorf("%s: orders %s, want %s", c.strategy, got, c.orders)
		}
		if got := look("shop.db", "SELECT id, length(data) FROM files ORDER BY id"); got != c.files {
			t.Errorf("%s: files %s, want %s", c.strategy, got, c.files)
		}
		if got := look("shop.db", "SELECT * FROM notes; PRAGMA integrity_check"); got != "new,ok" {
			t.Errorf("%s: notes %s", c.strategy, got)
		}
		if got := look(region, "SELECT i FROM t ORDER BY i"); got != c.east {
			t.Errorf("%s: east %s, want %s", c.strategy, got, c.east)
		}
		if got := look("000000000000_eu-west-1.db", "CREATE TABLE IF NOT EXISTS t (i); SELECT i FROM t"); got != map[bool]string{true: "7"}[c.west] {
			t.Errorf("%s: west %s", c.strategy, got)
		}
	}
}
