package sqlite_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/source/sqlite"
)

// TestWhileWritten saves a database that another process writes to. Every state is of one moment: the sum
// of a ledger's accounts never changes, and its log agrees with them.
func TestWhileWritten(t *testing.T) {
	sqlite3 := tool(t)
	m := module(t)
	for _, mode := range []string{"WAL", "DELETE", "TRUNCATE"} {
		t.Run(mode, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "ledger.db")
			sqlite3.run(t, file, "PRAGMA journal_mode="+mode+`;
				CREATE TABLE account(id INTEGER PRIMARY KEY, money INT); CREATE TABLE log(id INTEGER PRIMARY KEY, f, t, n);
				WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<2000) INSERT INTO account SELECT i, 1000 FROM c;`)
			var script strings.Builder
			script.WriteString(".timeout 20000\nPRAGMA synchronous=OFF;\n")
			for i := range 20000 {
				fmt.Fprintf(&script, "BEGIN IMMEDIATE; UPDATE account SET money=money-%d WHERE id=%d; UPDATE account SET money=money+%d WHERE id=%d; INSERT INTO log(f,t,n) VALUES(%d,%d,%d); COMMIT;\n",
					i%7, i%2000+1, i%7, (i*31)%2000+1, i%2000+1, (i*31)%2000+1, i%7)
			}
			ctx, stop := context.WithCancel(t.Context())
			writer := exec.CommandContext(ctx, string(sqlite3), "-batch", "-bail", file)
			writer.Stdin = strings.NewReader(script.String())
			var said bytes.Buffer
			writer.Stdout, writer.Stderr = &said, &said
			if err := writer.Start(); err != nil {
				t.Fatal(err)
			}
			over := make(chan error, 1)
			go func() { over <- writer.Wait() }()
			s := source(t, sqlite.Config{Path: file, Wait: 20 * time.Second})
			var states [][]byte
			var err error
			done := false
			for !done && len(states) < 12 {
				select {
				case err = <-over:
					done = true
				default:
				}
				states = append(states, native(t, s))
			}
			stop()
			if !done {
				<-over
			} else if err != nil {
				t.Errorf("the writer: %v\n%s", err, said.String())
			}
			fresh := filepath.Join(dir, "fresh.db")
			into := source(t, sqlite.Config{Path: fresh})
			seen := map[string]bool{}
			for i, state := range states {
				if i == 0 {
					m.RoundTrip(t, state)
				}
				restore(t, into, state)
				got := sqlite3.run(t, fresh, `SELECT sum(money) FROM account; PRAGMA integrity_check;
					SELECT count(*) FROM account a WHERE money <> 1000 + (SELECT total(n) FROM log WHERE t=a.id) - (SELECT total(n) FROM log WHERE f=a.id);`)
				if got != "2000000\nok\n0\n" {
					t.Fatalf("state %d is of no moment: %q", i, got)
				}
				seen[sqlite3.run(t, fresh, "SELECT count(*) FROM log")] = true
			}
			if len(states) > 5 && len(seen) < 3 {
				t.Errorf("%d states show %d moments: nothing was written meanwhile", len(states), len(seen))
			}
			t.Logf("%d states of %d moments", len(states), len(seen))
		})
	}
}

// TestLocked: who holds a lock is waited for and then told of, and nothing changes.
func TestLocked(t *testing.T) {
	sqlite3 := tool(t)
	for _, c := range []struct{ mode, hold string }{
		{"DELETE", "BEGIN EXCLUSIVE"},
		{"DELETE", "BEGIN; SELECT * FROM t"},
		{"WAL", "BEGIN; SELECT * FROM t"},
		{"WAL", "SELECT * FROM t"},
		{"WAL", "BEGIN IMMEDIATE; INSERT INTO t VALUES(2)"},
	} {
		t.Run(c.mode+" "+c.hold, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "a.db")
			sqlite3.run(t, file, "PRAGMA journal_mode="+c.mode+"; CREATE TABLE t(a); INSERT INTO t VALUES(1);")
			state := native(t, source(t, sqlite.Config{Path: file}))
			holder := exec.CommandContext(t.Context(), string(sqlite3), "-batch", file)
			in, err := holder.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := holder.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := holder.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { in.Close(); holder.Wait() }()
			fmt.Fprintf(in, "%s; SELECT 'held';\n", c.hold)
			var heard []byte
			for b := make([]byte, 64); !bytes.Contains(heard, []byte("held")); {
				n, err := out.Read(b)
				if err != nil {
					t.Fatal(err)
				}
				heard = append(heard, b[:n]...)
			}
			s := source(t, sqlite.Config{Path: file, Wait: 50 * time.Millisecond})
			if err := s.Restore(t.Context(), bytes.NewReader(state)); !errors.Is(err, abi.ErrLocked) {
				t.Errorf("Restore: %v", err)
			}
			if err := s.Reset(t.Context()); !errors.Is(err, abi.ErrLocked) {
				t.Errorf("Reset: %v", err)
			}
			_, err = tryNative(t, s)
			if exclusive := strings.Contains(c.hold, "EXCLUSIVE"); exclusive != errors.Is(err, abi.ErrLocked) || !exclusive && err != nil {
				t.Errorf("Capture: %v", err)
			}
			fmt.Fprintln(in, "ROLLBACK;")
			in.Close()
			holder.Wait()
			if got := sqlite3.run(t, file, "SELECT * FROM t; PRAGMA integrity_check"); got != "1\nok\n" {
				t.Errorf("%q", got)
			}
			if left := files(t, dir); !slices.Equal(left, []string{"a.db"}) {
				t.Errorf("left: %q", left)
			}
			restore(t, s, state)
		})
	}
}

// TestInPlace restores below a process that has the database open.
func TestInPlace(t *testing.T) {
	sqlite3 := tool(t)
	for _, mode := range []string{"WAL", "DELETE"} {
		file := filepath.Join(t.TempDir(), "a.db")
		sqlite3.run(t, file, "PRAGMA journal_mode="+mode+"; CREATE TABLE t(a); INSERT INTO t VALUES(1);")
		s := source(t, sqlite.Config{Path: file, InPlace: true})
		state := native(t, s)
		holder := exec.CommandContext(t.Context(), string(sqlite3), "-batch", file)
		in, err := holder.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		holder.Stdout, holder.Stderr = &out, &out
		fmt.Fprintln(in, "") // begins to read before anything is restored
		if err := holder.Start(); err != nil {
			t.Fatal(err)
		}
		// The look below may hold the lock just then; the tool waits for it only where it is told to.
		fmt.Fprintln(in, ".timeout 60000\nINSERT INTO t VALUES(2); SELECT count(*) FROM t;\n.shell true")
		for wait := time.Now().Add(2 * time.Minute); sqlite3.run(t, file, "SELECT count(*) FROM t") != "2\n"; {
			if time.Now().After(wait) {
				t.Fatal("the holder writes nothing")
			}
		}
		restore(t, s, state)
		fmt.Fprintln(in, "SELECT 'now ' || count(*) FROM t;")
		in.Close()
		if err := holder.Wait(); err != nil || !strings.HasSuffix(out.String(), "now 1\n") {
			t.Errorf("%s: the holder sees %q (%v)", mode, out.String(), err)
		}
	}
}

// TestRefused: what SQLite cannot read is told apart from what is damaged, locked or of another version.
func TestRefused(t *testing.T) {
	sqlite3 := tool(t)
	whole := filepath.Join(t.TempDir(), "whole.db")
	sqlite3.run(t, whole, "CREATE TABLE t(a, b); CREATE INDEX i ON t(a); WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<2000) INSERT INTO t SELECT i, hex(randomblob(50)) FROM c;")
	bytesOf, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	state := native(t, source(t, sqlite.Config{Path: whole}))
	for name, c := range map[string]struct {
		change func(b []byte) []byte
		want   error
		words  string
	}{
		"encrypted":      {func(b []byte) []byte { copy(b, "not what it was "); return b }, abi.ErrCorrupt, "encrypted"},
		"noise":          {func(b []byte) []byte { return bytes.Repeat([]byte{0x5a, 0xc3}, 5000) }, abi.ErrCorrupt, "encrypted"},
		"a page damaged": {func(b []byte) []byte { copy(b[4096*3:4096*3+200], bytes.Repeat([]byte{0xff}, 200)); return b }, abi.ErrCorrupt, ""},
		"cut":            {func(b []byte) []byte { return b[:len(b)/2] }, abi.ErrCorrupt, ""},
		"schema damaged": {func(b []byte) []byte {
			return bytes.Replace(b, []byte("CREATE TABLE t(a, b)"), []byte("CREATE TABLE t(a,,b)"), 1)
		}, abi.ErrCorrupt, "newer SQLite"},
		"a newer schema": {func(b []byte) []byte { b[47] = 9; return b }, abi.ErrVersion, "newer"},
		"the index disagree": {func(b []byte) []byte {
			return bytes.Replace(b, []byte("CREATE INDEX i ON t(a)"), []byte("CREATE INDEX i ON t(b)"), 1)
		}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "x.db")
			if err := os.WriteFile(file, c.change(bytes.Clone(bytesOf)), 0o644); err != nil {
				t.Fatal(err)
			}
			s := source(t, sqlite.Config{Path: file})
			_, err := tryNative(t, s)
			if c.want != nil && (!errors.Is(err, c.want) || !strings.Contains(err.Error(), c.words) || !strings.Contains(err.Error(), file)) {
				t.Errorf("%v", err)
			}
			t.Log(err)
			restore(t, s, state) // it can be replaced all the same
			if want, got := sqlite3.look(t, whole), sqlite3.look(t, file); got != want {
				t.Error("restored over it, it is another")
			}
		})
	}
}

// TestHotJournal: what a killed service left is rolled back, as it would be for the service.
func TestHotJournal(t *testing.T) {
	sqlite3 := tool(t)
	for _, mode := range []string{"DELETE", "WAL"} {
		dir := t.TempDir()
		file := filepath.Join(dir, "a.db")
		sqlite3.run(t, file, "PRAGMA journal_mode="+mode+"; CREATE TABLE t(a); INSERT INTO t VALUES(1);")
		state := native(t, source(t, sqlite.Config{Path: file}))
		cmd := exec.CommandContext(t.Context(), string(sqlite3), "-batch", file)
		cmd.Stdin = strings.NewReader(`PRAGMA cache_size=2; INSERT INTO t VALUES(2); BEGIN;
			WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<2000) INSERT INTO t SELECT hex(randomblob(500)) FROM c;` + "\n.shell kill -9 $PPID\n")
		if out, err := cmd.CombinedOutput(); err == nil {
			t.Fatalf("not killed: %s", out)
		}
		if left := files(t, dir); len(left) < 2 {
			t.Fatalf("%s: nothing was left: %q", mode, left)
		}
		s := source(t, sqlite.Config{Path: file})
		now := native(t, s)
		if got := sqlite3.run(t, file, "SELECT * FROM t; PRAGMA integrity_check"); got != "1\n2\nok\n" || bytes.Equal(now, state) {
			t.Errorf("%s: %q", mode, got)
		}
		// The same left again, and a restore over it.
		cmd = exec.CommandContext(t.Context(), string(sqlite3), "-batch", file)
		cmd.Stdin = strings.NewReader("PRAGMA cache_size=2; BEGIN; INSERT INTO t SELECT hex(randomblob(500000));\n.shell kill -9 $PPID")
		if out, err := cmd.CombinedOutput(); err == nil {
			t.Fatalf("not killed: %s", out)
		}
		restore(t, s, state)
		if got := sqlite3.run(t, file, "SELECT * FROM t; PRAGMA integrity_check"); got != "1\nok\n" {
			t.Errorf("%s: restored over a journal: %q", mode, got)
		}
		if left := files(t, dir); !slices.Equal(left, []string{"a.db"}) {
			t.Errorf("left: %q", left)
		}
	}
}

// TestOwn: what only the service can make again is refused as rows, at the save, and saved as pages.
func TestOwn(t *testing.T) {
	sqlite3 := tool(t)
	for name, c := range map[string]struct{ sql, object, now string }{
		"collation":            {"CREATE TABLE t(a TEXT COLLATE nocase); INSERT INTO t VALUES('x')", "t", "CREATE TABLE t(a TEXT COLLATE nosuch)"},
		"collation of a key":   {"CREATE TABLE t(a PRIMARY KEY COLLATE nocase); INSERT INTO t VALUES('x')", "t", "CREATE TABLE t(a PRIMARY KEY COLLATE nosuch)"},
		"check":                {"CREATE TABLE t(a CHECK(abs(a))); INSERT INTO t VALUES(1)", "t", "CREATE TABLE t(a CHECK(nosuch(a)))"},
		"generated":            {"CREATE TABLE t(a, b AS (abs(a))); INSERT INTO t VALUES(1)", "t", "CREATE TABLE t(a, b AS (nosuch(a)))"},
		"index":                {"CREATE TABLE t(a); INSERT INTO t VALUES(1); CREATE INDEX i ON t(abs(a))", "i", "CREATE INDEX i ON t(nosuch(a))"},
		"tokenizer":            {"CREATE VIRTUAL TABLE f USING fts5(a); INSERT INTO f VALUES('x')", "f", "CREATE VIRTUAL TABLE f USING fts5(a, tokenize=nosuch)"},
		"SQL not of SQLite's":  {"CREATE TABLE t(a)", "t", "create table t(a)"},
		"a table named by two": {"CREATE TABLE t(a)", "t", "CREATE TABLE u(a)"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			old, fresh := filepath.Join(dir, "old.db"), filepath.Join(dir, "new.db")
			sqlite3.run(t, old, c.sql+"; PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql='"+c.now+"' WHERE name='"+c.object+"'")
			_, err := tryNative(t, source(t, sqlite.Config{Path: old}))
			if err == nil || errors.Is(err, abi.ErrCorrupt) != strings.HasPrefix(name, "a table") || !strings.HasPrefix(name, "a table") && !strings.Contains(err.Error(), `(form "pages")`) {
				t.Errorf("saved as rows: %v", err)
			}
			if strings.HasPrefix(name, "a table") { // which SQLite itself does not open
				return
			}
			pages := native(t, source(t, sqlite.Config{Path: old, Form: sqlite.Pages}))
			restore(t, source(t, sqlite.Config{Path: fresh, Form: sqlite.Pages}), pages)
			if !bytes.Equal(native(t, source(t, sqlite.Config{Path: fresh, Form: sqlite.Pages})), pages) {
				t.Error("restored from pages, it is another")
			}
		})
	}
}
