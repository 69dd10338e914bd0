package sqlite_test

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/runtime/source/sqlite"
	"github.com/torpor-run/torpor/tests/serializers/files/through"
)

// features are databases, each of one feature, and keys that their records must have.
var features = []struct {
	name, sql string
	keys      []string
}{
	{"nothing", "PRAGMA user_version=0; VACUUM;", []string{"pragma"}},
	{"a table", "CREATE TABLE orders(id INTEGER PRIMARY KEY, what TEXT); INSERT INTO orders VALUES(42,'x'),(-7,NULL);", []string{"pragma", "schema table orders", "orders(-7)", "orders(42)"}},
	{"pragmas", "PRAGMA page_size=8192; PRAGMA auto_vacuum=2; PRAGMA application_id=-5; PRAGMA user_version=77; CREATE TABLE t(a); INSERT INTO t VALUES(1);", []string{"t(rowid 1)"}},
	{"auto_vacuum full", "PRAGMA auto_vacuum=1; CREATE TABLE t(a); INSERT INTO t VALUES(zeroblob(50000)); DELETE FROM t;", nil},
	{"wal", "PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1);", nil},
	{"utf-16le", "PRAGMA encoding='UTF-16le'; CREATE TABLE \"größe\"(\"€\" TEXT PRIMARY KEY); INSERT INTO \"größe\" VALUES('żółć'),('😀'),('a'||char(0)||'b'),(char(0xfffe)),('');", []string{"größe('😀')"}},
	{"utf-16be", "PRAGMA encoding='UTF-16be'; CREATE TABLE t(a); INSERT INTO t VALUES('x'),(CAST(x'd800' AS TEXT)),(CAST(x'dc00d800' AS TEXT)),(CAST(x'feff' AS TEXT)),(CAST(x'ffff' AS TEXT));", nil},
	{"values", `CREATE TABLE v(k TEXT PRIMARY KEY, a); INSERT INTO v VALUES('max',9223372036854775807),('min',-9223372036854775808),('inf',9e999),('-inf',-9e999),
		('tiny',5e-324),('pi',3.141592653589793),('-0',-0.0),('one',1.0),('text',''),('blob',x''),('null',NULL),('quote','it''s "x"'),('bytes',x'00ff27'),('nul','a'||char(0)||'b'),
		('bad',CAST(x'ff80' AS TEXT)),(CAST(x'c328' AS TEXT),2),('big',1e308),('int text','12');`, []string{"v('quote')", "v(CAST(x'c328' AS TEXT))"}},
	{"affinities", "CREATE TABLE a(i INTEGER, r REAL, n NUMERIC, t TEXT, b BLOB, x); INSERT INTO a VALUES('1','1','1',1,1,'1'),(1.0,1,1.5,1.5,'b',1.0),(9e18,9223372036854775807,'9223372036854775808','x',x'01',NULL),('x','y','z',NULL,2.5,x'00');", nil},
	{"without rowid", "CREATE TABLE kv(a TEXT, b BLOB, v, PRIMARY KEY(b DESC, a)) WITHOUT ROWID; INSERT INTO kv VALUES('a',x'00ff',1),('b',x'00ff',2),('a',x'01',3.5);", []string{"kv(x'01','a')", "kv(x'00ff','b')"}},
	{"composite key", "CREATE TABLE c(v, a INT, b REAL, PRIMARY KEY(a,b)); INSERT INTO c VALUES(1,2,3.0),(4,NULL,6),(7,8,1e300);", []string{"c(2,3.0)", "c(rowid 2)", "c(8,1e300)"}},
	{"rowids", "CREATE TABLE r(a); INSERT INTO r(rowid,a) VALUES(5,'x'),(-3,'y'),(9223372036854775807,'z');", []string{"r(rowid -3)", "r(rowid 9223372036854775807)"}},
	{"shadowed rowid", "CREATE TABLE s(rowid TEXT, _rowid_ INT, v); INSERT INTO s(oid,rowid,_rowid_,v) VALUES(10,'ten',1,2),(20,'twenty',3,4);", []string{"s(rowid 20)"}},
	{"no name for the rowid", "CREATE TABLE s(rowid TEXT, _rowid_ INT, OID); INSERT INTO s VALUES('a',1,2),('b',3,4);", []string{"s(rowid 2)"}},
	{"integer primary key desc", "CREATE TABLE d(id INTEGER PRIMARY KEY DESC, v); INSERT INTO d(rowid,id,v) VALUES(3,1,'x'),(1,2,'y');", []string{"d(2)", "d(1)"}},
	{"int primary key", "CREATE TABLE d(id INT PRIMARY KEY, v); INSERT INTO d(rowid,id,v) VALUES(3,1,'x'),(1,2,'y');", nil},
	{"autoincrement", "CREATE TABLE b(x); CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT, v); INSERT INTO a(v) VALUES(1),(2),(3); DELETE FROM a WHERE id>1; CREATE TABLE c(id INTEGER PRIMARY KEY AUTOINCREMENT); UPDATE sqlite_sequence SET seq=100 WHERE name='a'; INSERT INTO sqlite_sequence VALUES('gone',5);", []string{"sqlite_sequence(rowid 1)"}},
	{"autoincrement dropped", "CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT); DROP TABLE a; CREATE TABLE b(x); CREATE TABLE c(id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO c VALUES(7);", nil},
	{"generated", "CREATE TABLE g(a INT, v INT AS (a*2), s TEXT AS (a||'s') STORED, b, UNIQUE(s)); INSERT INTO g(a,b) VALUES(1,2),(3,4); CREATE INDEX gi ON g(v);", nil},
	{"strict", "CREATE TABLE st(i INTEGER, r REAL, t TEXT, b BLOB, a ANY) STRICT; INSERT INTO st VALUES(1,1,'x',x'00','1'),(NULL,2.5,NULL,NULL,1);", nil},
	{"indexes", "CREATE TABLE t(a TEXT COLLATE NOCASE, b, c); CREATE INDEX i1 ON t(a DESC, b COLLATE RTRIM); CREATE UNIQUE INDEX i2 ON t(c) WHERE c > 5; CREATE INDEX i3 ON t(lower(a), abs(b)); INSERT INTO t VALUES('A',1,6),('a',2,1),('b',-3,1);", []string{`schema index i2`}},
	{"stat", "CREATE TABLE t(a,b); CREATE INDEX i ON t(a); INSERT INTO t VALUES(1,2),(1,3),(2,2); ANALYZE;", []string{"sqlite_stat1(rowid 1)"}},
	{"views and triggers", "CREATE TABLE t(a); CREATE TABLE log(x); CREATE VIEW v(y) AS SELECT a+1 FROM t; CREATE TRIGGER tr AFTER INSERT ON t BEGIN INSERT INTO log VALUES(new.a); END; CREATE TRIGGER iv INSTEAD OF INSERT ON v BEGIN INSERT INTO t VALUES(new.y-1); DELETE FROM log WHERE x='; ATTACH'; END; INSERT INTO t VALUES(1); INSERT INTO v VALUES(9); CREATE VIEW broken AS SELECT * FROM gone;", []string{"schema trigger iv", `schema view broken`}},
	{"foreign keys", "CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p(id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED); INSERT INTO c VALUES(1,99); CREATE TABLE p(id INTEGER PRIMARY KEY);", nil},
	{"checks and defaults", "CREATE TABLE t(a CHECK(a>0), b DEFAULT (datetime('now')), c NOT NULL DEFAULT 'x''y', UNIQUE(a) ON CONFLICT REPLACE); INSERT INTO t(a) VALUES(1); PRAGMA ignore_check_constraints=ON; INSERT INTO t(a,b) VALUES(-1,NULL);", nil},
	{"names", "CREATE TABLE \"select\"(\"from\" INTEGER PRIMARY KEY, \"a\"\"b\", [c d], `e`, \"\"); INSERT INTO \"select\" VALUES(1,2,3,4,5); CREATE TABLE \"we\"\"ird (x) -- y\"(a); INSERT INTO \"we\"\"ird (x) -- y\" VALUES(1); CREATE TABLE 'quoted'(a); CREATE TABLE \"\"(a); INSERT INTO \"\" VALUES(3); CREATE TABLE \"日本\"(\"名\" TEXT PRIMARY KEY); INSERT INTO \"日本\" VALUES('x'); CREATE TABLE _u1$x(a);", []string{`"select"(1)`, `"we""ird (x) -- y"(rowid 1)`, `""(rowid 1)`, "日本('x')"}},
	{"comments", "CREATE TABLE /* a ( */ t /* b */ -- c\n (a /* d */, b -- e\n); INSERT INTO t VALUES(1,2);", nil},
	{"altered", "CREATE TABLE old(a,b,c); INSERT INTO old VALUES(1,2,3); CREATE INDEX i ON old(b); CREATE VIEW v AS SELECT a FROM old; ALTER TABLE old RENAME TO \"new\"; ALTER TABLE \"new\" ADD COLUMN d DEFAULT 7; ALTER TABLE \"new\" RENAME COLUMN a TO aa; ALTER TABLE \"new\" DROP COLUMN c;", []string{"new(rowid 1)"}},
	{"fts5", "CREATE VIRTUAL TABLE ft USING fts5(title, body, tokenize='porter'); INSERT INTO ft VALUES('one','running dogs'),('two','the cat'); CREATE TABLE after(x); CREATE VIRTUAL TABLE ext USING fts5(a, content=docs, content_rowid=id); CREATE TABLE docs(id INTEGER PRIMARY KEY, a); INSERT INTO docs VALUES(3,'hello'); INSERT INTO ext(ext) VALUES('rebuild');", []string{"schema table ft", "ft_content(1)"}},
	{"fts4 and fts3", "CREATE VIRTUAL TABLE f4 USING fts4(a,b); INSERT INTO f4 VALUES('x y','z'); CREATE VIRTUAL TABLE f3 USING fts3(a); INSERT INTO f3 VALUES('words'); INSERT INTO f4(f4) VALUES('optimize');", nil},
	{"rtree", "CREATE VIRTUAL TABLE rt USING rtree(id,x0,x1,+note TEXT); INSERT INTO rt VALUES(1,0.5,2.5,'n'),(2,-1,1,'m');", nil},
	{"long values", "CREATE TABLE f(id INTEGER PRIMARY KEY, name TEXT, data BLOB, more TEXT, x); INSERT INTO f VALUES(1,'a',randomblob(1000000),NULL,1),(2,'b',randomblob(262144),hex(randomblob(300000)),2),(3,'c',randomblob(262145),'',3),(4,'d',randomblob(250000),hex(randomblob(125000)),hex(randomblob(125000)));", []string{"f(1)", "f(1).data[0]", "f(1).data[3]", "f(2).more[2]"}},
	{"long values in utf-16", "PRAGMA encoding='UTF-16le'; CREATE TABLE f(id TEXT PRIMARY KEY, t TEXT, b) WITHOUT ROWID; INSERT INTO f VALUES('x',hex(randomblob(300000)),randomblob(500000));", []string{"f('x').t[0]"}},
	{"long keys", "CREATE TABLE k(a TEXT PRIMARY KEY); INSERT INTO k VALUES(hex(zeroblob(40000))||'1'),(hex(zeroblob(40000))||'2'),(hex(zeroblob(200000)));", nil},
	{"nothing in utf-16", "PRAGMA page_size=512; PRAGMA auto_vacuum=2; PRAGMA encoding='UTF-16be'; PRAGMA application_id=7; CREATE TABLE t(a); DROP TABLE t;", []string{"pragma"}},
	{"nothing but pragmas", "PRAGMA page_size=65536; PRAGMA auto_vacuum=1; PRAGMA user_version=5;", []string{"pragma"}},
	{"names apart by the case of other letters", `CREATE TABLE "Ä"(a); CREATE TABLE "ä"(b); INSERT INTO "Ä" VALUES(1); INSERT INTO "ä" VALUES(2);`, []string{"Ä(rowid 1)", "ä(rowid 1)"}},
	{"a key behind long values", "CREATE TABLE t(a,b,c,d,k TEXT PRIMARY KEY,e) WITHOUT ROWID; INSERT INTO t VALUES(zeroblob(200000),zeroblob(200000),zeroblob(200000),zeroblob(186390),'a key of more than sixteen bytes',zeroblob(20));", []string{"t('a key of more than sixteen bytes')", "t('a key of more than sixteen bytes').e[0]"}},
	{"words in double quotation marks", ".dbconfig dqs_ddl on\nCREATE TABLE t(a CHECK(a IN (\"x\",\"y\"))); CREATE INDEX i ON t(a) WHERE a = \"x\"; INSERT INTO t VALUES('x');", nil},
	{"a module that is not there", "PRAGMA writable_schema=ON; INSERT INTO sqlite_schema VALUES('table','v','v',0,'CREATE VIRTUAL TABLE v USING nosuch(a)'); CREATE TABLE t(a);", []string{"schema table v"}},
	{"comments behind", "CREATE TABLE t(a) -- x\n; CREATE VIEW v AS SELECT 1 /* y */ -- z\n; CREATE INDEX i ON t(a) -- q\n ; CREATE TRIGGER tr AFTER INSERT ON t BEGIN SELECT 1; END -- x\n;", nil},
	{"without rowid, by integer", "CREATE TABLE t(a INTEGER PRIMARY KEY, b) WITHOUT ROWID; INSERT INTO t VALUES(3,1),(-2,5);", []string{"t(-2)"}},
	{"wide", "CREATE TABLE w(" + columns(1999) + "); INSERT INTO w(c1,c1998) VALUES(1,'x');", nil},
}

func columns(n int) string {
	var all []string
	for i := range n {
		all = append(all, "c"+strings.Repeat("x", i%3)+string('0'+rune(i/1000))+string('0'+rune(i/100%10))+string('0'+rune(i/10%10))+string('0'+rune(i%10)))
	}
	all[1], all[n-1] = "c1", "c1998"
	return strings.Join(all, ",")
}

// TestFeatures: what goes through the source, the module and back is the same to the sqlite3 program.
func TestFeatures(t *testing.T) {
	sqlite3 := tool(t)
	m := module(t)
	for _, f := range features {
		t.Run(f.name, func(t *testing.T) {
			dir := t.TempDir()
			old, fresh := filepath.Join(dir, "old.db"), filepath.Join(dir, "new.db")
			sqlite3.run(t, old, f.sql)
			state := native(t, source(t, sqlite.Config{Path: old}))
			records := m.RoundTrip(t, state)
			has := keys(t, records)
			for _, k := range f.keys {
				if !slices.Contains(has, k) {
					t.Errorf("no record %s among %.2000q", k, has)
				}
			}
			if slices.Sort(has); len(slices.Compact(has)) != len(records) {
				t.Errorf("keys are there twice: %.2000q", has)
			}
			s := source(t, sqlite.Config{Path: fresh})
			restore(t, s, state)
			if want, got := sqlite3.look(t, old), sqlite3.look(t, fresh); got != want {
				t.Errorf("restored:\n%.3000s\nwant\n%.3000s", got, want)
			}
			if again := native(t, s); !bytes.Equal(again, state) {
				t.Errorf("a capture of what was restored is another: %d bytes, want %d", len(again), len(state))
			}
			// The other form, through the same doors.
			pages := native(t, source(t, sqlite.Config{Path: old, Form: sqlite.Pages}))
			restore(t, source(t, sqlite.Config{Path: fresh, Form: sqlite.Pages}), pages)
			if want, got := sqlite3.look(t, old), sqlite3.look(t, fresh); got != want {
				t.Errorf("restored from pages:\n%.3000s\nwant\n%.3000s", got, want)
			}
			if left := files(t, dir); !slices.Equal(left, []string{"new.db", "old.db"}) {
				t.Errorf("left: %q", left)
			}
		})
	}
}

func TestConformance(t *testing.T) {
	through.Conforms(t, "sqlite", module(t).Wasm(), "../../../modules/sqlite/fixtures")
}

// TestUnit runs the unit tests of the module.
func TestUnit(t *testing.T) { through.Unit(t, "sqlite") }
