package sqlite_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/source/sqlite"
	"github.com/torpor-run/torpor/tests/serializers/files/through"
)

// rows makes a database of some size: n rows of about 250 bytes, with an index.
func rows(n int) string {
	return fmt.Sprintf(`PRAGMA journal_mode=WAL; CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, price REAL, tags TEXT, data BLOB);
		WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<%d) INSERT INTO item SELECT i, 'the name of item '||i, i*1.25, 'a,b,c', randomblob(180) FROM c;
		CREATE INDEX byname ON item(name); PRAGMA wal_checkpoint(TRUNCATE);`, n)
}

// peak is the most memory that this process has had resident, in MiB; 0 where that is not known.
func peak() int {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n / 1024
		}
	}
	return 0
}

// resetPeak begins to measure peak anew, where the system can.
func resetPeak() { os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) }

// pipe takes a capture through save, records, load and Restore at once, as the runtime would but for the
// state file between, and nothing of it is whole in memory.
func pipe(t testing.TB, m *through.Module, from, to *sqlite.Source) (records int64) {
	t.Helper()
	c, err := from.Capture(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	nr, nw := io.Pipe()
	rr, rw := io.Pipe()
	br, bw := io.Pipe()
	errs := make(chan error, 3)
	ctx := context.WithValue(t.Context(), abi.GroupKey{}, t)
	go func() {
		w := bufio.NewWriterSize(nw, 256<<10)
		err := errors.Join(c.WriteNative(ctx, w), w.Flush())
		nw.CloseWithError(err)
		errs <- err
	}()
	sink := &writer{w: rw}
	go func() {
		err := m.Save(ctx, m.Call(), nr, sink)
		nr.CloseWithError(err)
		rw.CloseWithError(err)
		errs <- err
	}()
	go func() {
		err := m.Load(ctx, m.Call(), record.NewReader(rr, record.DefaultMaxBytes), bw)
		rr.CloseWithError(err)
		bw.CloseWithError(err)
		errs <- err
	}()
	err = to.Restore(ctx, br)
	br.CloseWithError(err)
	for range 3 {
		err = errors.Join(err, <-errs)
	}
	if err != nil {
		t.Fatal(err)
	}
	return sink.records
}

type writer struct {
	w       io.Writer
	records int64
}

func (w *writer) WriteBatch(b *record.Batch) error {
	w.records += int64(b.Len())
	_, err := w.w.Write(b.Data)
	return err
}

// TestLarge takes 200 MB through, and a value of 100 MB, in bounded memory; a half and a third of that if not
// asked for all of it, where the bounds are still below what holding the state would take.
func TestLarge(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a quarter of a minute")
	}
	count, value, bounds := 350_000, 30_000_000, [2]int{92, 200}
	if os.Getenv("TORPOR_SQLITE_THOROUGH") != "" {
		count, value, bounds = 700_000, 100_000_000, [2]int{128, 600}
	}
	sqlite3 := tool(t)
	m := module(t)
	dir := t.TempDir()
	for _, c := range []struct {
		name  string
		bound int // MiB of memory that are more than before
		sql   string
	}{
		{"rows", bounds[0], rows(count)},
		{"a value", bounds[1], fmt.Sprintf("CREATE TABLE f(id INTEGER PRIMARY KEY, data BLOB, t TEXT); INSERT INTO f VALUES(1, zeroblob(%d), 'x'), (2, x'00', 'y');", value)},
	} {
		t.Run(c.name, func(t *testing.T) {
			old, fresh := filepath.Join(dir, "old.db"), filepath.Join(dir, "new.db")
			os.Remove(old)
			sqlite3.run(t, old, c.sql)
			info, err := os.Stat(old)
			if err != nil {
				t.Fatal(err)
			}
			debug.FreeOSMemory()
			resetPeak()
			before := peak()
			start := time.Now()
			n := pipe(t, m, source(t, sqlite.Config{Path: old}), source(t, sqlite.Config{Path: fresh}))
			t.Logf("%d MB, %d records, %v, at most %d MiB resident, before %d", info.Size()/1e6, n, time.Since(start), peak(), before)
			if got := peak() - before; got > c.bound {
				t.Errorf("memory follows the state: %d MiB more", got)
			}
			if out, err := exec.CommandContext(t.Context(), "sh", "-c", `a=$("$0" "$1" .dump | sha256sum); b=$("$0" "$2" .dump | sha256sum); [ "$a" = "$b" ]`, string(sqlite3), old, fresh).CombinedOutput(); err != nil {
				t.Errorf("the dumps differ (%v) %s", err, out)
			}
		})
	}
}

// TestMutated damages a state in many ways: Restore refuses it and the old database stays, or takes it and
// it is a sound one.
func TestMutated(t *testing.T) {
	sqlite3 := tool(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "a.db")
	sqlite3.run(t, file, `PRAGMA user_version=3; CREATE TABLE seq(id INTEGER PRIMARY KEY AUTOINCREMENT, v); INSERT INTO seq(v) VALUES(1),(2.5),('x');
		CREATE TABLE kv(a TEXT, b BLOB, v, PRIMARY KEY(b DESC, a)) WITHOUT ROWID; INSERT INTO kv VALUES('a',x'00ff',1),('b',x'00ff',9e999);
		CREATE TABLE g(a INT, v INT AS (a*2), s TEXT AS (a||'s') STORED, b, UNIQUE(s)); INSERT INTO g(a,b) VALUES(1,2),(3,4);
		CREATE TABLE st(i INTEGER, t TEXT, a ANY) STRICT; INSERT INTO st VALUES(1,'x','1'),(NULL,NULL,1);
		CREATE UNIQUE INDEX ix ON g(b) WHERE b > 5; CREATE INDEX iy ON kv(lower(a)); CREATE VIEW v AS SELECT a FROM kv;
		CREATE TRIGGER tr AFTER INSERT ON g BEGIN INSERT INTO st VALUES(new.a,'',0); END;
		CREATE VIRTUAL TABLE ft USING fts5(a); INSERT INTO ft VALUES('some words'),('more'); ANALYZE;`)
	s := source(t, sqlite.Config{Path: file})
	state := native(t, s)
	r := rand.New(rand.NewPCG(1, 2))
	refused := 0
	m := module(t)
	end := time.Now().Add(5 * time.Second)
	for i := 0; i < 600 && time.Now().Before(end); i++ {
		b := bytes.Clone(state)
		for range 1 + r.IntN(3) {
			at := r.IntN(len(b))
			switch r.IntN(4) {
			case 0:
				b[at] ^= 1 << r.IntN(8)
			case 1:
				b[at] = byte(r.Uint32())
			case 2:
				n := min(len(b)-at, r.IntN(40))
				b = append(b[:at], b[at+n:]...)
			case 3:
				n := min(len(b)-at, r.IntN(200))
				b = append(b[:at:at], append(bytes.Clone(b[at:at+n]), b[at:]...)...)
			}
		}
		m.Sane(t, b)
		if err := s.Restore(t.Context(), bytes.NewReader(b)); err == nil {
			if got := sqlite3.run(t, file, "PRAGMA integrity_check"); got != "ok\n" {
				t.Fatalf("a damaged state makes an unsound database: %s", got)
			}
			restore(t, s, state)
			continue
		} else if !errors.Is(err, abi.ErrCorrupt) && !errors.Is(err, abi.ErrTooLarge) && !errors.Is(err, abi.ErrVersion) {
			t.Fatalf("round %d: %v", i, err)
		}
		refused++
	}
	if !bytes.Equal(native(t, s), state) || refused == 0 {
		t.Errorf("the database has changed (%d states were refused)", refused)
	}
	t.Logf("%d refused", refused)
}

// TestTruncated: no state that is cut is saved, wherever.
func TestTruncated(t *testing.T) {
	m := module(t)
	file := filepath.Join(t.TempDir(), "a.db")
	tool(t).run(t, file, features[1].sql+features[9].sql)
	state := native(t, source(t, sqlite.Config{Path: file}))
	for n := range state {
		if _, err := m.Records(t, state[:n]); err == nil {
			t.Fatalf("the first %d of %d bytes are saved", n, len(state))
		}
	}
	records := m.RoundTrip(t, state)
	for i := range records { // a record that is missing leaves its table's others in their places, or is told
		some := append(append([][]byte(nil), records[:i]...), records[i+1:]...)
		if back, err := m.Native(t, some); err == nil {
			if again, err := m.Records(t, back); err != nil || len(again) != len(some) {
				t.Fatalf("without record %d: %v", i, err)
			}
		}
	}
}

// FuzzNative gives the module anything: it is refused, or comes back as it was.
func FuzzNative(f *testing.F) {
	m := module(f)
	names, err := filepath.Glob("../../../modules/sqlite/fixtures/*")
	if err != nil || len(names) == 0 {
		f.Fatal("no fixtures")
	}
	for _, n := range names {
		if b, err := os.ReadFile(n); err == nil && len(b) < 20_000 {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, native []byte) { m.Sane(t, native) })
}

// Benchmark measures the whole path beside what sqlite3 does with the same database in the same run. MB are
// those of the database file.
func Benchmark(b *testing.B) {
	sqlite3 := tool(b)
	m := module(b)
	dir := b.TempDir()
	file, fresh := filepath.Join(dir, "a.db"), filepath.Join(dir, "b.db")
	const count = 150_000
	sqlite3.run(b, file, rows(count))
	info, err := os.Stat(file)
	if err != nil {
		b.Fatal(err)
	}
	from, to := source(b, sqlite.Config{Path: file}), source(b, sqlite.Config{Path: fresh})
	state := native(b, from)
	records, err := m.Records(b, state)
	if err != nil {
		b.Fatal(err)
	}
	all := bytes.Join(records, nil)
	measure := func(name string, f func() error) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(info.Size())
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(count*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
	measure("capture", func() error {
		c, err := from.Capture(b.Context())
		if err == nil {
			err = c.Close()
		}
		return err
	})
	write := func(s *sqlite.Source, w io.Writer) error {
		c, err := s.Capture(b.Context())
		if err != nil {
			return err
		}
		return errors.Join(c.WriteNative(b.Context(), w), c.Close())
	}
	measure("capture and rows out", func() error { return write(from, io.Discard) })
	measure("the same unchecked", func() error { return write(source(b, sqlite.Config{Path: file, Unchecked: true}), io.Discard) })
	measure("capture and pages out", func() error { return write(source(b, sqlite.Config{Path: file, Form: sqlite.Pages}), io.Discard) })
	measure("module save", func() error { return m.Save(b.Context(), m.Call(), bytes.NewReader(state), &through.Discard{}) })
	measure("module load", func() error { return m.Load(b.Context(), m.Call(), through.Reader(all), io.Discard) })
	measure("rows in", func() error { return to.Restore(b.Context(), bytes.NewReader(state)) })
	measure("all of it there and back", func() error { pipe(b, m, from, to); return nil })
	script := func(s string) func() error {
		return func() error {
			os.Remove(fresh)
			out, err := exec.CommandContext(b.Context(), "sh", "-c", s, string(sqlite3), file, fresh, filepath.Join(dir, "dump.sql")).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		}
	}
	measure("sqlite3 .dump", script(`"$0" "$1" .dump >"$3"`))
	measure("sqlite3 .read", script(`"$0" "$2" ".read '$3'"`))
	measure("sqlite3 .backup", script(`"$0" "$1" ".backup '$2'"`))
}
