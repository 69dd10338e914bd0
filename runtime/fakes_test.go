package runtime_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// passThrough is a serializer whose native state is records, in Go; its knobs make it misbehave.
type passThrough struct {
	name    string
	version string
	schema  uint64
	reads   []uint64
	ops     []string
	media   string
	lossy   bool  // Load drops the last record
	drop    bool  // Save drops the last record of each batch
	shuffle bool  // not canonical: Load gives the records in reverse order of batches, Save sorts them
	strict  bool  // Save refuses no bytes at all
	saveErr error // Save fails after its first batch
	loadErr error // Load fails after its first batch
	migrate func(*record.Batch) []byte
	pause   func() // called once, in the middle of the next Save
	loads   atomic.Int64
}

func newPassThrough() *passThrough {
	return &passThrough{name: "pass", version: "1", media: abi.MediaRecords, schema: 1, reads: []uint64{1}, ops: []string{abi.OpSave, abi.OpLoad}}
}

func (p *passThrough) Descriptor() abi.Descriptor {
	return abi.Descriptor{Name: p.name, Version: p.version, Schema: p.schema, Reads: p.reads, Media: p.media,
		Operations: p.ops, Canonical: !p.shuffle}
}

func (p *passThrough) Digest() [sha256.Size]byte { return sha256.Sum256(p.Wasm()) }

func (p *passThrough) Wasm() []byte { return fmt.Appendf(nil, "%s %s", p.name, p.version) }

func (p *passThrough) Save(ctx context.Context, call abi.Call, native io.Reader, sink record.Sink) error {
	r := record.NewReader(native, 0)
	for n := 0; ; n++ {
		b, err := r.ReadBatch()
		if errors.Is(err, io.EOF) {
			if p.strict && n == 0 {
				return fmt.Errorf("the input is empty: %w", abi.ErrCorrupt)
			}
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		if p.drop {
			b = &record.Batch{Data: b.Data[:b.Refs[b.Len()-1].Start], Refs: b.Refs[:b.Len()-1]}
		}
		if err := sink.WriteBatch(b); err != nil {
			return err
		}
		if pause := p.pause; pause != nil {
			p.pause = nil
			pause()
		}
		if p.saveErr != nil {
			return p.saveErr
		}
	}
}

func (p *passThrough) Load(ctx context.Context, call abi.Call, records record.Source, native io.Writer) error {
	p.loads.Add(1)
	for {
		b, err := records.ReadBatch()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if p.loadErr != nil {
			return p.loadErr
		}
		data := b.Data
		if p.lossy {
			data = data[:b.Refs[b.Len()-1].Start]
		}
		if _, err := native.Write(data); err != nil {
			return err
		}
	}
}

func (p *passThrough) Migrate(ctx context.Context, call abi.Call, records record.Source, sink record.Sink) error {
	if call.From == call.To || p.migrate == nil {
		return fmt.Errorf("%w: schema %d to %d", abi.ErrVersion, call.From, call.To)
	}
	for {
		b, err := records.ReadBatch()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := sink.WriteBatch(scan(p.migrate(b))); err != nil {
			return err
		}
	}
}

func scan(data []byte) *record.Batch {
	var s record.Scanner
	refs, err := s.Scan(data, nil)
	if err != nil {
		panic(err)
	}
	return &record.Batch{Data: data, Refs: refs}
}

func appendRecord(dst []byte, key, value string) []byte {
	return record.AppendText(record.AppendText(record.AppendText(record.AppendRecord(dst), ""), key), value)
}

// table is a service of one part: a map of text, as its source.
type table struct {
	mu       sync.Mutex
	m        map[string]string
	dirty    runtime.Dirty
	atomic   bool
	inside   atomic.Int64 // requests under way, to catch a capture among them
	torn     atomic.Bool
	restores atomic.Int64
	capErr   error
}

func newTable() *table { return &table{m: map[string]string{}, atomic: true} }

func (t *table) put(key, value string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.m[key] = value
	t.dirty.Mark(key)
}

func (t *table) all() map[string]string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.m)
}

func (t *table) AtomicCapture() bool { return t.atomic }

func (t *table) Capture(context.Context) (runtime.Capture, error) {
	if t.inside.Load() > 0 {
		t.torn.Store(true)
	}
	return tableCapture(t.all()), t.capErr
}

type tableCapture map[string]string

func (c tableCapture) WriteNative(_ context.Context, w io.Writer) error {
	var data []byte
	for _, k := range slices.Sorted(maps.Keys(c)) {
		data = appendRecord(data, k, c[k])
	}
	_, err := w.Write(data)
	return err
}

func (tableCapture) Close() error { return nil }

func (t *table) Restore(_ context.Context, native io.Reader) error {
	t.restores.Add(1)
	r := record.NewReader(native, 0)
	m := map[string]string{}
	for {
		b, err := r.ReadBatch()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		for i := range b.Len() {
			key, _ := b.Key(i)
			m[string(key)] = string(record.NewPull(b.Value(i)).Text())
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.m = m
	return nil
}

func (t *table) Reset(context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.m = map[string]string{}
	return nil
}

// observed keeps what the runtime told.
type observed struct {
	mu          sync.Mutex
	saves       []runtime.SaveEvent
	restores    []runtime.RestoreEvent
	holds       []error
	quarantined int
}

func (o *observed) SaveFinished(e runtime.SaveEvent) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.saves = append(o.saves, e)
}
func (o *observed) RestoreFinished(e runtime.RestoreEvent) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.restores = append(o.restores, e)
}
func (o *observed) RequestsHeld(_ string, _ time.Duration, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.holds = append(o.holds, err)
}
func (o *observed) GenerationQuarantined(string, string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.quarantined++
}

// life is one life of a runtime over a file system that outlives it.
type life struct {
	*runtime.Runtime
	svc   *runtime.Service
	table *table
	ser   *passThrough
	seen  *observed
	dir   *statedir.Dir
	log   *bytes.Buffer
}

// lockedBuffer is a log that goroutines may write to.
type lockedBuffer struct {
	mu sync.Mutex
	b  *bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// begin starts a life; change may alter its configuration first.
func begin(t *testing.T, fsys vfs.FS, change func(*life, *runtime.Config)) *life {
	t.Helper()
	l := &life{table: newTable(), ser: newPassThrough(), seen: &observed{}, log: &bytes.Buffer{}}
	logger := slog.New(slog.NewTextHandler(&lockedBuffer{b: l.log}, nil))
	dir, err := statedir.Open(fsys, statedir.Options{Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	l.dir = dir
	cfg := runtime.Config{Dir: dir, Logger: logger, Observer: l.seen, Services: []runtime.ServiceConfig{{
		Name: "svc", Save: runtime.SaveManual, Load: runtime.LoadOnStartup,
		Parts: []runtime.PartConfig{{Name: "store", Serializer: l.ser, Source: l.table, Dirty: &l.table.dirty}}}}}
	if change != nil {
		change(l, &cfg)
	}
	if l.Runtime, err = runtime.New(cfg); err != nil {
		t.Fatal(err)
	}
	if err := l.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	if l.svc, err = l.Service("svc"); err != nil {
		t.Fatal(err)
	}
	return l
}

// end closes a life in order.
func (l *life) end(t *testing.T) error {
	t.Helper()
	err := l.Close(context.Background())
	if err := l.dir.Close(); err != nil {
		t.Error(err)
	}
	return err
}

func (l *life) part() runtime.PartStatus { return l.svc.Status().Parts[0] }

func (l *life) save(t *testing.T) {
	t.Helper()
	if err := l.svc.Save(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func (l *life) wants(t *testing.T, want map[string]string) {
	t.Helper()
	if got := l.table.all(); !maps.Equal(got, want) {
		t.Errorf("state is %v, want %v", got, want)
	}
}

// newestFile reads the newest state file; damage writes it back changed.
const newestFile = "state/api_states/svc/store.state"

func damage(t *testing.T, fsys vfs.FS, change func([]byte) []byte) {
	t.Helper()
	b := readFile(t, fsys, newestFile)
	if err := fsys.Remove(newestFile); err != nil {
		t.Fatal(err)
	}
	f, err := fsys.OpenFile(newestFile, vfs.Create)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(change(b)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, fsys vfs.FS, name string) []byte {
	t.Helper()
	f, err := fsys.OpenFile(name, vfs.Read)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return b
}

// eventually waits for what another goroutine is about to do.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 2000 {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("still not: %s", what)
}
