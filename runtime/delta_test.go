package runtime_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// deltaTable is a table that tells what has changed: it compares with the base it keeps.
type deltaTable struct {
	*table
	base    map[string]string // nil: not known
	deltas  int               // how often a delta was asked for
	refuses bool              // tells nothing
}

func (t *deltaTable) Capture(ctx context.Context) (runtime.Capture, error) {
	c, err := t.table.Capture(ctx)
	if err != nil {
		return nil, err
	}
	return &deltaCapture{tableCapture: c.(tableCapture), t: t, base: t.base}, nil
}

func (t *deltaTable) Restore(ctx context.Context, native io.Reader) error {
	if err := t.table.Restore(ctx, native); err != nil {
		return err
	}
	t.base = t.all()
	return nil
}

func (t *deltaTable) Reset(ctx context.Context) error {
	t.base = nil
	return t.table.Reset(ctx)
}

type deltaCapture struct {
	tableCapture
	t    *deltaTable
	base map[string]string
}

func (c *deltaCapture) Committed() { c.t.base = c.tableCapture }

func (c *deltaCapture) Delta() runtime.Delta {
	c.t.deltas++
	if c.base == nil || c.t.refuses {
		return nil
	}
	return c
}

func (c *deltaCapture) WriteUpserts(ctx context.Context, w io.Writer) error {
	changed := tableCapture{}
	for k, v := range c.tableCapture {
		if old, ok := c.base[k]; !ok || old != v {
			changed[k] = v
		}
	}
	return changed.WriteNative(ctx, w)
}

func (c *deltaCapture) WriteTombstones(_ context.Context, sink record.Sink) error {
	var data []byte
	for _, k := range slices.Sorted(maps.Keys(c.base)) {
		if _, ok := c.tableCapture[k]; !ok {
			data = record.AppendText(record.AppendText(record.AppendTombstone(data), ""), k)
		}
	}
	s := record.Scanner{Tombstones: true}
	refs, err := s.Scan(data, nil)
	if err != nil {
		return err
	}
	return sink.WriteBatch(&record.Batch{Data: data, Refs: refs})
}

func (c *deltaCapture) Growth() int64 { return int64(len(c.tableCapture) - len(c.base)) }

func (t *table) remove(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.m, key)
	t.dirty.Mark(key)
}

// beginDelta begins a life whose service tells what changes.
func beginDelta(t *testing.T, fsys vfs.FS, change func(*life, *runtime.Config)) (*life, *deltaTable) {
	t.Helper()
	var source *deltaTable
	l := begin(t, fsys, func(l *life, cfg *runtime.Config) {
		source = &deltaTable{table: l.table}
		cfg.Services[0].Parts[0].Source = source
		if change != nil {
			change(l, cfg)
		}
	})
	return l, source
}

// last is the save told of last.
func (o *observed) last() runtime.SaveEvent {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.saves[len(o.saves)-1]
}

func openNewest(t *testing.T, fsys vfs.FS) *statefile.File {
	t.Helper()
	b := readFile(t, fsys, newestFile)
	f, err := statefile.Open(bytes.NewReader(b), int64(len(b)), newestFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Verify(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestOnlyWhatChangedIsWritten(t *testing.T) {
	disk := vfs.NewMem()
	l, _ := beginDelta(t, disk, nil)
	for i := range 1000 {
		l.table.put(fmt.Sprintf("key-%04d", i), strings.Repeat("x", 200))
	}
	l.save(t)
	full := l.seen.last()
	if full.Delta || full.Written != full.FileBytes || full.Written < 200_000 || full.Records != 1000 {
		t.Fatalf("first save %+v", full)
	}
	l.table.put("key-0500", "changed")
	l.table.put("new", "added")
	l.table.remove("key-0001")
	l.table.remove("key-0002")
	l.save(t)
	e := l.seen.last()
	if !e.Delta || e.Deltas != 1 || e.Written > 2000 || e.FileBytes != full.FileBytes+e.Written || e.Records != 999 || e.Generation != 2 {
		t.Errorf("second save %+v", e)
	}
	p := l.part()
	if p.Generation != 2 || p.Deltas != 1 || p.Records != 999 || p.FileBytes != e.FileBytes || !p.DirtySince.IsZero() {
		t.Errorf("status %+v", p)
	}
	want := l.table.all()
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
	if info := openNewest(t, disk).Info(); info.Deltas != 1 || info.Changes != 4 {
		t.Errorf("file %+v", info)
	}

	// A restored state is one to tell changes from, too.
	l, _ = beginDelta(t, disk, nil)
	l.wants(t, want)
	if p := l.part(); p.Generation != 2 || p.Deltas != 1 || p.Records != 999 {
		t.Errorf("restored %+v", p)
	}
	if r := l.seen.restores[0]; r.Records != 999 || r.Bytes >= full.Bytes || r.Bytes < full.Bytes*9/10 {
		t.Errorf("restore %+v, saved %+v", r, full)
	}
	l.table.remove("new")
	l.save(t)
	if e := l.seen.last(); !e.Delta || e.Deltas != 2 || e.Records != 998 {
		t.Errorf("a save after the restore %+v", e)
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

// Whatever keeps a delta from being one, everything is saved.
func TestSavedInFullWhereADeltaCannotBe(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*life, *deltaTable)
		config func(*life, *runtime.Config)
	}{
		"the source does not know":       {change: func(_ *life, s *deltaTable) { s.refuses = true }},
		"the state was reset":            {change: func(l *life, _ *deltaTable) { _ = l.svc.Reset(context.Background()) }},
		"too much changed":               {change: func(l *life, _ *deltaTable) { l.table.put("large", strings.Repeat("x", 3<<20)) }},
		"the serializer is another":      {change: func(l *life, _ *deltaTable) { l.ser.version = "2" }},
		"native state is no records":     {config: func(l *life, _ *runtime.Config) { l.ser.media = "text/plain" }},
		"the serializer changes records": {change: func(l *life, _ *deltaTable) { l.ser.drop = true }},
	} {
		t.Run(name, func(t *testing.T) {
			disk := vfs.NewMem()
			l, source := beginDelta(t, disk, func(l *life, cfg *runtime.Config) {
				cfg.Services[0].Parts[0].Proof = runtime.ProofOff
				if c.config != nil {
					c.config(l, cfg)
				}
			})
			l.table.put("a", "1")
			l.table.put("b", "2")
			l.save(t)
			if c.change != nil {
				c.change(l, source)
			}
			l.table.put("c", "3")
			l.save(t)
			if e := l.seen.last(); e.Delta || e.Deltas != 0 || e.Written != e.FileBytes {
				t.Errorf("saved %+v", e)
			}
			if err := l.end(t); err != nil {
				t.Fatal(err)
			}
			if saves := openNewest(t, disk).Saves(); len(saves) != 1 {
				t.Errorf("the file holds %+v", saves)
			}
		})
	}
}

// What a save that failed had captured is in the next one.
func TestFailedDeltaLosesNothing(t *testing.T) {
	disk := vfs.NewMem()
	l, _ := beginDelta(t, disk, nil)
	l.table.put("a", "1")
	l.table.put("b", "2")
	l.save(t)
	l.table.put("c", "3")
	l.table.remove("a")
	l.ser.saveErr = errors.New("no")
	if err := l.svc.Save(t.Context()); err == nil {
		t.Fatal("the save did not fail")
	}
	if p := l.part(); p.DirtySince.IsZero() || p.Err == nil || p.Generation != 1 {
		t.Errorf("status %+v", p)
	}
	l.ser.saveErr = nil
	l.table.put("d", "4")
	l.save(t)
	want := map[string]string{"b": "2", "c": "3", "d": "4"}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
	if err := statedirVerify(t, disk); err != nil {
		t.Error(err)
	}
	l, _ = beginDelta(t, disk, nil)
	l.wants(t, want)
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

func statedirVerify(t *testing.T, fsys vfs.FS) (wrong error) {
	t.Helper()
	err := statedir.Verify(t.Context(), fsys, statedir.VerifyOptions{}, func(f statedir.Finding) {
		wrong = errors.Join(wrong, f.Err)
	})
	if err != nil {
		t.Fatal(err)
	}
	return wrong
}

// A proof that fails keeps a delta from being committed, as it does a full save.
func TestDeltaIsProved(t *testing.T) {
	disk := vfs.NewMem()
	l, _ := beginDelta(t, disk, nil)
	l.table.put("a", "1")
	l.save(t)
	before := readFile(t, disk, newestFile)
	l.ser.lossy = true
	l.table.put("b", "2")
	if err := l.svc.Save(t.Context()); err == nil || !strings.Contains(err.Error(), "proof") {
		t.Errorf("saved with %v", err)
	}
	if !bytes.Equal(readFile(t, disk, newestFile), before) {
		t.Error("the file was changed")
	}
	l.ser.lossy = false
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

// Damage in a delta costs the generations from it on, not those before it in the file.
func TestDamagedDeltaFallsBackInTheFile(t *testing.T) {
	disk := vfs.NewMem()
	l, _ := beginDelta(t, disk, nil)
	for i := range 4 {
		l.table.put(fmt.Sprintf("key-%d", i), strings.Repeat("x", 100))
		l.save(t)
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
	saves := openNewest(t, disk).Saves()
	if len(saves) != 4 {
		t.Fatalf("the file holds %+v", saves)
	}
	damage(t, disk, func(b []byte) []byte {
		b[saves[1].End+20] ^= 1 // in the delta of generation 3
		return b
	})
	l, _ = beginDelta(t, disk, nil)
	l.wants(t, map[string]string{"key-0": strings.Repeat("x", 100), "key-1": strings.Repeat("x", 100)})
	if p := l.part(); p.Generation != 2 || p.Err == nil || !strings.Contains(p.Err.Error(), "generation 2 was loaded instead") || l.seen.quarantined != 1 {
		t.Errorf("status %+v, %d set aside", p, l.seen.quarantined)
	}
	l.table.put("later", "1")
	l.save(t)
	if e := l.seen.last(); e.Generation <= 4 {
		t.Errorf("generation %d was given again", e.Generation)
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
	if err := statedirVerify(t, disk); err != nil {
		t.Error(err)
	}
}

// TestDeltaFaultAtEveryOperation lets every operation on the disk fail in turn while changes are saved:
// nothing is lost, and what is loaded afterwards is what was live.
func TestDeltaFaultAtEveryOperation(t *testing.T) {
	for _, extent := range []vfs.Extent{vfs.Nothing, vfs.Part, vfs.All} {
		for k := 1; ; k++ {
			mem := vfs.NewMem()
			disk := vfs.Faulty(mem, vfs.Fault{})
			l, _ := beginDelta(t, disk, nil)
			for i := range 20 {
				l.table.put(fmt.Sprint(i), "before")
			}
			l.save(t)
			disk.Inject(vfs.Fault{At: k, Err: errors.New("injected"), Extent: extent})
			for i := range 3 {
				l.table.put(fmt.Sprint(i), "after")
				l.table.remove(fmt.Sprint(10 + i))
				_ = l.svc.Save(t.Context()) // it may fail
			}
			fired := disk.Fired()
			disk.Inject(vfs.Fault{})
			l.table.put("last", "1")
			l.save(t)
			want := l.table.all()
			l.dir.Close()
			cut := mem.PowerCut(rand.New(rand.NewPCG(uint64(k), 0)))
			l, _ = beginDelta(t, cut, nil)
			l.wants(t, want)
			if err := l.end(t); err != nil {
				t.Fatal(err)
			}
			if err := statedirVerify(t, cut); err != nil {
				t.Errorf("after a fault at operation %d: %v", k, err)
			}
			if !fired {
				if k < 15 {
					t.Errorf("only %d operations", k)
				}
				break
			}
		}
	}
}

// TestDeltasAtRandom saves random changes, in many lives, and compares what is restored with what was.
func TestDeltasAtRandom(t *testing.T) {
	for seed := range 5 {
		r := rand.New(rand.NewPCG(uint64(seed), 0))
		disk := vfs.NewMem()
		live := map[string]string{}
		deltas := 0
		for range 12 {
			l, _ := beginDelta(t, disk, nil)
			l.wants(t, live)
			for range 6 {
				for range r.IntN(20) {
					key := fmt.Sprint(r.IntN(60))
					if r.IntN(3) == 0 {
						l.table.remove(key)
					} else {
						l.table.put(key, strings.Repeat(fmt.Sprint(r.Int()), r.IntN(300)))
					}
				}
				l.save(t)
				if len(l.seen.saves) > 0 && l.seen.last().Delta {
					deltas++
				}
				if n := l.part().Records; n != uint64(len(l.table.all())) {
					t.Fatalf("%d records are said to be saved of %d", n, len(l.table.all()))
				}
			}
			live = l.table.all()
			if err := l.end(t); err != nil {
				t.Fatal(err)
			}
			if err := statedirVerify(t, disk); err != nil {
				t.Fatal(err)
			}
		}
		if deltas < 30 {
			t.Errorf("seed %d: only %d deltas", seed, deltas)
		}
	}
}

// TestCompression: what a full save is compressed with, its deltas are, too; another takes effect at the
// next full save.
func TestCompression(t *testing.T) {
	disk := vfs.NewMem()
	compressed := func(c string) func(*life, *runtime.Config) {
		return func(_ *life, cfg *runtime.Config) { cfg.Services[0].Parts[0].Compression = c }
	}
	save := func(config, key string, full bool) statefile.Header {
		l, source := beginDelta(t, disk, compressed(config))
		source.refuses = full
		l.table.put(key, strings.Repeat("compressible ", 1000))
		l.save(t)
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
		return openNewest(t, disk).Header()
	}
	for _, c := range []struct {
		config, key string
		full        bool
		want        string
	}{
		{"", "a", true, "none"}, {"zstd", "b", false, "none"}, {"zstd", "c", true, "zstd"}, {"", "d", false, "zstd"}, {"none", "e", true, "none"},
	} {
		if got := save(c.config, c.key, c.full); got.Compression != c.want {
			t.Errorf("saved with %q, full %t: the file has %q", c.config, c.full, got.Compression)
		}
	}
	l, _ := beginDelta(t, disk, nil)
	if n := len(l.table.all()); n != 5 {
		t.Errorf("%d of 5 records were restored", n)
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
	if _, err := runtime.New(runtime.Config{Services: []runtime.ServiceConfig{{Name: "svc", Parts: []runtime.PartConfig{{Name: "store", Compression: "gzip"}}}}}); err == nil || !strings.Contains(err.Error(), "zstd") {
		t.Errorf("an unknown compression: %v", err)
	}
}

// cancelling ends the save's context while the delta is asked for.
type cancelling struct {
	*deltaTable
	cancel context.CancelFunc
}

type cancellingCapture struct {
	runtime.DeltaCapture
	s *cancelling
}

func (s *cancelling) Capture(ctx context.Context) (runtime.Capture, error) {
	c, err := s.deltaTable.Capture(ctx)
	return cancellingCapture{c.(runtime.DeltaCapture), s}, err
}

func (c cancellingCapture) Delta() runtime.Delta {
	d := c.DeltaCapture.Delta()
	if c.s.cancel != nil {
		c.s.cancel()
	}
	return d
}

// TestCancelledSaveIsNotReportedAsSaved: neither where the state directory wanted everything saved.
func TestCancelledSaveIsNotReportedAsSaved(t *testing.T) {
	disk := vfs.NewMem()
	var source *cancelling
	l, _ := beginDelta(t, disk, func(l *life, cfg *runtime.Config) {
		source = &cancelling{deltaTable: &deltaTable{table: l.table}}
		cfg.Services[0].Parts[0].Source = source
		cfg.Services[0].Save = runtime.SaveOnShutdown
	})
	l.table.put("a", "1")
	l.save(t)
	l.ser.version = "2" // BeginDelta refuses without an error, as it does at every compaction
	l.table.put("b", "2")
	ctx, cancel := context.WithCancel(t.Context())
	source.cancel = cancel
	err := l.svc.Save(ctx)
	p := l.part()
	if err == nil || p.Generation != 1 || p.DirtySince.IsZero() {
		t.Errorf("a cancelled save that wrote nothing: %v, %+v", err, p)
	}
	source.cancel = nil
	if err := l.end(t); err != nil { // saves what is dirty
		t.Fatal(err)
	}
	l, _ = beginDelta(t, disk, nil)
	l.ser.version = "2"
	l.wants(t, map[string]string{"a": "1", "b": "2"})
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}
