package sqlite_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/source/sqlite"
)

// dynamo is a database of the shape that DynamoDB Local's have: the tables' descriptions, the items by
// BLOB keys, and the tables of streams, time to live and transactions.
func dynamo(items int) string {
	var b strings.Builder
	b.WriteString(`CREATE TABLE cf (version TEXT);
		CREATE TABLE dm (TableName TEXT, CreationDateTime INTEGER, LastDecreaseDate INTEGER, LastIncreaseDate INTEGER, NumberOfDecreasesToday INTEGER,
			ReadCapacityUnits INTEGER, WriteCapacityUnits INTEGER, TableInfo BLOB, BillingMode INTEGER DEFAULT 0, PayPerRequestDateTime INTEGER DEFAULT 0, PRIMARY KEY(TableName));
		CREATE TABLE ss (StreamID TEXT, StreamStatus TEXT, TableName TEXT, PRIMARY KEY(StreamID));
		CREATE TABLE tr (transactionId TEXT, requestHash BLOB, PRIMARY KEY(transactionId));
		CREATE TABLE us (StreamID TEXT, ShardID TEXT, SequenceNumber TEXT, data BLOB, PRIMARY KEY(StreamID, ShardID, SequenceNumber));
		INSERT INTO cf VALUES('v2.4.0');
		INSERT INTO dm VALUES('Music', 1700000000000, 0, 0, 0, 5, 5, x'7b7d', 0, 0);
		CREATE TABLE "Music" (hashKey TEXT DEFAULT NULL, rangeKey BLOB DEFAULT NULL, hashValue BLOB NOT NULL, rangeValue BLOB NOT NULL, itemSize INTEGER DEFAULT 0,
			ObjectJSON BLOB NOT NULL, PRIMARY KEY(hashKey, rangeKey));
		CREATE INDEX "Music*HVI" ON "Music" (hashValue);
		INSERT INTO ss VALUES('arn:stream/1','ENABLED','Music');
		INSERT INTO us VALUES('arn:stream/1','shardId-1','000000000000000000001',x'00ff');
		INSERT INTO tr VALUES('t-1',x'0102');
	`)
	fmt.Fprintf(&b, `WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<%d)
		INSERT INTO "Music" SELECT printf('artist %%04d', i/3), CAST(printf('song %%d', i) AS BLOB), randomblob(20), randomblob(10), 120, CAST('{"Artist":{"S":"artist"},"n":{"N":"'||i||'"}}' AS BLOB) FROM c;`, items)
	return b.String()
}

// TestFolder takes a folder like DynamoDB Local's through: partitions by the names of files, keys by
// tables and keys, databases that come, go and change.
func TestFolder(t *testing.T) {
	sqlite3 := tool(t)
	m := module(t)
	dir, fresh := t.TempDir(), filepath.Join(t.TempDir(), "made", "for it")
	for _, d := range []string{"sub", "none"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sqlite3.run(t, filepath.Join(dir, "000000000000_eu-west-1.db"), dynamo(200))
	sqlite3.run(t, filepath.Join(dir, "000000000000_us-east-1.db"), "PRAGMA journal_mode=WAL;"+dynamo(3))
	sqlite3.run(t, filepath.Join(dir, "shared-local-instance.db"), dynamo(5))
	sqlite3.run(t, filepath.Join(dir, "sub", "000000000000_eu-west-1.db"), "CREATE TABLE t(a); INSERT INTO t VALUES(1);")
	for _, other := range []string{"notes.txt", "x.db-wal", "y.db.torpor-new"} {
		if err := os.WriteFile(filepath.Join(dir, other), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	state := native(t, source(t, sqlite.Config{Path: dir, Pattern: "*.db"}))
	records := m.RoundTrip(t, state)
	partitions := map[string][]string{}
	for _, r := range records {
		var parts []any
		if err := cbor.Unmarshal(r, &parts); err != nil {
			t.Fatal(err)
		}
		p := parts[0].(string)
		partitions[p] = append(partitions[p], parts[1].(string))
	}
	for p, want := range map[string][]string{
		"000000000000/eu-west-1": {"pragma", "Music('artist 0010',x'" + fmt.Sprintf("%x", "song 30") + "')", "dm('Music')", "us('arn:stream/1','shardId-1','000000000000000000001')", "cf(rowid 1)"},
		"000000000000/us-east-1": {"pragma", "tr('t-1')"},
		"":                       {`"shared-local-instance.db".pragma`, `"shared-local-instance.db".dm('Music')`, `"sub/000000000000_eu-west-1.db".t(rowid 1)`},
	} {
		for _, k := range want {
			if !slices.Contains(partitions[p], k) {
				t.Errorf("partition %q has no %s: %.1000q", p, k, partitions[p])
			}
		}
	}
	if len(partitions) != 3 {
		t.Errorf("%d partitions", len(partitions))
	}
	m.Settings = map[string]any{"partition": "p"}
	for _, k := range keys(t, m.RoundTrip(t, state)) {
		if !strings.HasPrefix(k, `"`) {
			t.Errorf("in one partition: %s", k)
		}
	}
	m.Settings = nil
	s := source(t, sqlite.Config{Path: fresh, Pattern: "*.db"})
	restore(t, s, state)
	for i := range 3 {
		want := []string{"000000000000_eu-west-1.db", "000000000000_us-east-1.db", "shared-local-instance.db", "sub/000000000000_eu-west-1.db"}
		if got := files(t, fresh); !slices.Equal(got, want) {
			t.Errorf("%d: %q", i, got)
		}
		for _, f := range want {
			if sqlite3.look(t, filepath.Join(dir, f)) != sqlite3.look(t, filepath.Join(fresh, f)) {
				t.Errorf("%s is another", f)
			}
		}
		switch i {
		case 0: // what is there and not in the state goes, what a killed restore left too
			sqlite3.run(t, filepath.Join(fresh, "more.db"), "CREATE TABLE x(y)")
			os.WriteFile(filepath.Join(fresh, "000000000000_us-east-1.db.torpor-new"), []byte("half"), 0o600)
			os.Remove(filepath.Join(fresh, "shared-local-instance.db"))
			sqlite3.run(t, filepath.Join(fresh, "000000000000_eu-west-1.db"), "DELETE FROM Music")
			restore(t, s, state)
		case 1: // pages too
			p := source(t, sqlite.Config{Path: fresh, Pattern: "*.db", Form: sqlite.Pages})
			pages := native(t, p)
			if err := p.Reset(t.Context()); err != nil || len(files(t, fresh)) > 0 {
				t.Errorf("after Reset: %q (%v)", files(t, fresh), err)
			}
			restore(t, p, pages)
		}
	}
	// Records of one partition are a state, and rows may come behind those of other databases.
	var some [][]byte
	for _, r := range records {
		if bytes.Contains(r[:40], []byte("eu-west-1")) && r[1] != 0x60 {
			some = append(some, r)
		}
	}
	moved := append(append(some[:len(some)-5:len(some)-5], records[len(records)-1-countOf(partitions[""])+1:]...), some[len(some)-5:]...)
	back, err := m.Native(t, moved)
	if err != nil {
		t.Fatal(err)
	}
	again, err := m.Records(t, back)
	if err != nil || !slices.EqualFunc(again, moved, bytes.Equal) {
		t.Errorf("records in another order come back as %d others (%v)", len(again), err)
	}
	restore(t, s, back)
	if sqlite3.run(t, filepath.Join(fresh, "000000000000_eu-west-1.db"), "SELECT count(*) FROM Music") != "200\n" || len(files(t, fresh)) != 3 {
		t.Errorf("%q", files(t, fresh))
	}
}

func countOf(s []string) int { return len(s) }

// TestNames: a state's names cannot leave the folder, or be none of its databases.
func TestNames(t *testing.T) {
	outside := t.TempDir()
	dir := filepath.Join(outside, "in")
	if err := os.MkdirAll(filepath.Join(outside, "elsewhere"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../elsewhere", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	s := source(t, sqlite.Config{Path: dir, Pattern: "*.db"})
	for _, name := range []string{"", ".", "..", "/a.db", "../a.db", "a/../../b.db", "a//b.db", "./a.db", "a.txt", "link/a.db", "a\\b.db", "a\x00.db", "a.db.torpor-new", "a.db/", strings.Repeat("a", 2000) + ".db", "\xff.db"} {
		err := s.Restore(t.Context(), bytes.NewReader(stateOf(name)))
		if !errors.Is(err, abi.ErrCorrupt) && !errors.Is(err, abi.ErrTooLarge) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if left := files(t, outside); !slices.Equal(left, []string{"in/link"}) {
		t.Errorf("%q", left)
	}
	restore(t, s, stateOf("deep/er/a.db"))
	if left := files(t, outside); !slices.Equal(left, []string{"in/deep/er/a.db", "in/link"}) {
		t.Errorf("%q", left)
	}
}

// stateOf is a state of one database without tables, and whatever items follow.
func stateOf(name string, items ...[]byte) []byte {
	b := record.AppendText([]byte{0x83, 0}, "torpor-sqlite")
	b = append(b, 1, 0x82, 1)
	b = record.AppendMap(b, 7)
	for _, p := range []struct {
		key   string
		value any
	}{{"name", name}, {"page_size", 4096}, {"encoding", "UTF-8"}, {"auto_vacuum", 0}, {"journal_mode", "delete"}, {"user_version", 0}, {"application_id", 0}} {
		b = record.AppendText(b, p.key)
		switch v := p.value.(type) {
		case string:
			b = record.AppendText(b, v)
		case int:
			b = record.AppendInt(b, int64(v))
		}
	}
	for _, i := range items {
		b = append(b, i...)
	}
	return append(b, 0x81, 7)
}

// object is an item of a schema.
func object(kind, name, table, sql string, columns ...string) []byte {
	b := []byte{0x82, 2}
	n := 4
	if len(columns) > 0 {
		n = 7
	}
	b = record.AppendMap(b, n)
	for i, k := range []string{"type", "name", "table", "sql"} {
		b = record.AppendText(record.AppendText(b, k), []string{kind, name, table, sql}[i])
	}
	if n == 7 {
		b = record.AppendArray(record.AppendText(b, "columns"), len(columns))
		for _, c := range columns {
			b = record.AppendText(b, c)
		}
		b = record.AppendArray(record.AppendText(b, "key"), 0)
		b = record.AppendBool(record.AppendText(b, "rowid"), true)
	}
	return b
}

// TestHostile: SQL of a state that is more than what makes one thing is refused, and nothing has run.
func TestHostile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a.db")
	evil := filepath.Join(dir, "evil.db")
	tool(t).run(t, file, "CREATE TABLE keep(a); INSERT INTO keep VALUES('kept');")
	s := source(t, sqlite.Config{Path: file})
	good := object("table", "x", "x", "CREATE TABLE x(a)", "a")
	for name, items := range map[string][][]byte{
		"attach":                  {object("table", "x", "x", "CREATE TABLE x(a); ATTACH '"+evil+"' AS e", "a")},
		"attach alone":            {object("table", "x", "x", "ATTACH '"+evil+"' AS x", "x")},
		"pragma":                  {object("table", "x", "x", "PRAGMA writable_schema=ON", "a")},
		"a comment then another":  {object("table", "x", "x", "CREATE TABLE x(a) /* */ ; DROP TABLE x", "a")},
		"a semicolon":             {object("table", "x", "x", "CREATE TABLE x(a);", "a")},
		"as select":               {object("table", "x", "x", "CREATE TABLE x AS SELECT 1 AS a", "a")},
		"temporary":               {object("table", "x", "x", "CREATE TEMP TABLE x(a)", "a")},
		"of another database":     {object("table", "x", "x", "CREATE TABLE temp.x(a)", "a")},
		"if not exists":           {object("table", "x", "x", "CREATE TABLE IF NOT EXISTS x(a)", "a")},
		"another name":            {object("table", "x", "x", "CREATE TABLE y(a)", "a")},
		"other columns":           {object("table", "x", "x", "CREATE TABLE x(b)", "a")},
		"twice":                   {good, good},
		"sqlite_schema":           {object("table", "sqlite_schema", "sqlite_schema", "CREATE TABLE sqlite_schema(a)", "a")},
		"sqlite_other":            {object("table", "sqlite_other", "sqlite_other", "CREATE TABLE sqlite_other(a)", "a")},
		"a view and more":         {good, object("view", "v", "v", "CREATE VIEW v AS SELECT 1; ATTACH '"+evil+"' AS e")},
		"a temporary view":        {good, object("view", "v", "v", "CREATE TEMP VIEW v AS SELECT 1")},
		"a view that is a table":  {good, object("view", "v", "v", "CREATE TABLE v(a)")},
		"a trigger and more":      {good, object("trigger", "t", "x", "CREATE TRIGGER t AFTER INSERT ON x BEGIN SELECT 1; END; DELETE FROM x")},
		"a trigger of none":       {object("trigger", "t", "gone", "CREATE TRIGGER t AFTER INSERT ON gone BEGIN SELECT 1; END")},
		"an index and more":       {good, object("index", "i", "x", "CREATE INDEX i ON x(a); ATTACH '"+evil+"' AS e")},
		"an index of a function":  {good, object("index", "i", "x", "CREATE INDEX i ON x(load_extension(a))")},
		"a virtual table, more":   {object("table", "f", "f", "CREATE VIRTUAL TABLE f USING fts5(a); ATTACH '"+evil+"' AS e")},
		"a virtual table, other":  {object("table", "f", "f", "CREATE VIRTUAL TABLE g USING fts5(a)")},
		"a virtual table, rows":   {object("table", "f", "f", "CREATE VIRTUAL TABLE f USING fts5(a)", "a")},
		"a kind":                  {object("extension", "x", "x", "CREATE TABLE x(a)")},
		"a NUL byte":              {object("table", "x", "x", "CREATE TABLE x(a)\x00", "a")},
		"an index before a table": {object("index", "i", "x", "CREATE INDEX i ON x(a)")},
	} {
		err := s.Restore(t.Context(), bytes.NewReader(stateOf("", items...)))
		if !errors.Is(err, abi.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		if testing.Verbose() {
			t.Logf("%s: %v", name, err)
		}
	}
	if left := files(t, dir); !slices.Equal(left, []string{"a.db"}) {
		t.Errorf("%q", left)
	}
	if got := tool(t).run(t, file, "SELECT * FROM keep"); got != "kept\n" {
		t.Errorf("%q", got)
	}
	restore(t, s, stateOf("", good))
}

// TestMigration restores an older service's state for a newer one.
func TestMigration(t *testing.T) {
	sqlite3 := tool(t)
	m := module(t)
	dir := t.TempDir()
	old, fresh := filepath.Join(dir, "old.db"), filepath.Join(dir, "new.db")
	sqlite3.run(t, old, `CREATE TABLE orders_v1(id INTEGER PRIMARY KEY, what TEXT, legacy BLOB, "odd name" INT);
		CREATE INDEX i ON orders_v1(what); CREATE VIEW v AS SELECT id, what FROM orders_v1;
		CREATE TRIGGER tr AFTER DELETE ON orders_v1 BEGIN INSERT INTO gone VALUES(old.id); END; CREATE TABLE gone(id REFERENCES orders_v1(id));
		INSERT INTO orders_v1 VALUES(1,'x',x'00',5),(2,'y',NULL,6);`)
	records := m.RoundTrip(t, native(t, source(t, sqlite.Config{Path: old})))
	state, err := m.Native(t, records)
	if err != nil {
		t.Fatal(err)
	}
	cfg := sqlite.Config{Path: fresh, Migrate: sqlite.Migration{
		Rename: map[string]string{"orders_v1": "orders", "not there": "x"},
		Drop:   map[string][]string{"orders": {"legacy", "odd name", "not there"}, "nor here": {"a"}},
	}}
	s := source(t, cfg)
	restore(t, s, state)
	want := `SELECT * FROM orders; DELETE FROM orders WHERE id=1; SELECT * FROM gone; SELECT * FROM v; SELECT count(*) FROM pragma_table_info('orders');`
	if got := sqlite3.run(t, fresh, want); got != "1|x\n2|y\n1\n2|y\n2\n" {
		t.Errorf("%s", got)
	}
	// What is new already stays, for ever.
	now := native(t, s)
	restore(t, s, now)
	if !bytes.Equal(native(t, s), now) {
		t.Error("a migrated state is migrated again")
	}
	if !slices.Contains(keys(t, m.RoundTrip(t, now)), "orders(2)") {
		t.Error("its records are those of the old one")
	}
	for name, mig := range map[string]sqlite.Migration{
		"a name that is taken":   {Rename: map[string]string{"orders_v1": "gone"}},
		"a column of an index":   {Drop: map[string][]string{"orders_v1": {"what"}}},
		"the key":                {Drop: map[string][]string{"orders_v1": {"id"}}},
		"the schema of SQLite's": {Rename: map[string]string{"orders_v1": "sqlite_x"}},
	} {
		cfg.Migrate = mig
		err := source(t, cfg).Restore(t.Context(), bytes.NewReader(state))
		if err == nil || !strings.Contains(err.Error(), "migration") || errors.Is(err, abi.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.Equal(native(t, s), now) {
			t.Errorf("%s: the database has changed", name)
		}
	}
}
