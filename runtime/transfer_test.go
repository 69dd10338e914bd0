package runtime_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// contents reads a part of a snapshot.
func contents(t *testing.T, s *snapshot.Snapshot, service, part string) map[string]string {
	t.Helper()
	p, ok := s.Part(service, part)
	if !ok {
		return nil
	}
	m := map[string]string{}
	var b record.Batch
	for records := p.File.Records(); ; {
		if err := records.ReadInto(&b); err != nil {
			return m
		}
		for i := range b.Len() {
			key, _ := b.Key(i)
			m[string(key)] = string(record.NewPull(b.Value(i)).Text())
		}
	}
}

func capture(t *testing.T, l *life, services ...string) *snapshot.Snapshot {
	t.Helper()
	s, err := l.Capture(t.Context(), services...)
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

// snapshotOf makes a snapshot of a service svc whose part holds m, in a life of its own.
func snapshotOf(t *testing.T, m map[string]string, change func(*life, *runtime.Config)) *snapshot.Snapshot {
	t.Helper()
	l := begin(t, vfs.NewMem(), change)
	for k, v := range m {
		l.table.put(k, v)
	}
	s := capture(t, l)
	t.Cleanup(func() {
		if err := l.end(t); err != nil {
			t.Error(err)
		}
	})
	return s
}

// half is a table whose restores fail when told to.
type half struct {
	*table
	fail func(n int64) bool // of the n-th restore
}

func (h *half) Restore(ctx context.Context, native io.Reader) error {
	if h.fail != nil && h.fail(h.table.restores.Load()+1) {
		h.table.restores.Add(1)
		return errors.New("the service says no")
	}
	return h.table.Restore(ctx, native)
}

func TestCapture(t *testing.T) {
	l := begin(t, vfs.NewMem(), nil)
	l.table.put("a", "1")
	s := capture(t, l)
	l.table.put("a", "2")
	if got := contents(t, s, "svc", "store"); !maps.Equal(got, map[string]string{"a": "1"}) {
		t.Errorf("captured %v", got)
	}
	if p := l.part(); p.Generation != 0 || p.DirtySince.IsZero() {
		t.Errorf("a capture saves nothing and leaves marks alone: %+v", p)
	}
	wasm, err := s.Module(t.Context(), s.Modules()[0])
	if err != nil || sha256.Sum256(wasm) != l.ser.Digest() {
		t.Errorf("module: %q, %v", wasm, err)
	}
	if _, err := l.Capture(t.Context(), "nobody"); !errors.Is(err, abi.ErrNotFound) {
		t.Errorf("of a service there is not: %v", err)
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

// Requests are held for a capture whose source is not atomic.
func TestCaptureHoldsRequests(t *testing.T) {
	l := begin(t, vfs.NewMem(), func(l *life, c *runtime.Config) {
		l.table.atomic = false
		c.Services[0].HoldTimeout = 50 * time.Millisecond
	})
	leave, err := l.svc.Enter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Capture(t.Context()); !errors.Is(err, runtime.ErrBusy) {
		t.Errorf("with a request under way: %v", err)
	}
	leave()
	capture(t, l)
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

// A service that sleeps, or was not asked for yet, is captured as it is saved, and not woken.
func TestCaptureOfASleeper(t *testing.T) {
	fsys := vfs.NewMem()
	l, p := beginProgram(t, fsys, newTable(), nil)
	p.set(t, l.svc, "a", "1")
	if err := l.svc.Sleep(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := capture(t, l)
	for _, part := range []string{"store", "assets"} {
		if got := contents(t, s, "svc", part); got["a"] != "1" {
			t.Errorf("%s: %v", part, got)
		}
	}
	// What its files have that is not saved counts.
	p.disk.put("b", "2")
	if got := contents(t, capture(t, l), "svc", "assets"); got["b"] != "2" {
		t.Errorf("unsaved files: %v", got)
	}
	if p.starts.Load() != 1 {
		t.Errorf("the program was started %d times", p.starts.Load())
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

func TestApply(t *testing.T) {
	fsys := vfs.NewMem()
	l := begin(t, fsys, func(_ *life, c *runtime.Config) { c.Services[0].Save = runtime.SaveScheduled })
	in := snapshotOf(t, map[string]string{"a": "new", "b": "new"}, nil)
	l.table.put("a", "old")
	l.table.put("z", "old")
	dry, err := l.Apply(t.Context(), in, runtime.ApplyOptions{Strategy: snapshot.ServiceMerge, DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	want := snapshot.Merged{Added: 1, Changed: 1, Kept: 1}
	if len(dry) != 1 || dry[0].Service != "svc" || len(dry[0].Parts) != 1 || dry[0].Parts[0].Merged != want {
		t.Errorf("dry run: %+v", dry)
	}
	l.wants(t, map[string]string{"a": "old", "z": "old"})
	if l.part().Generation != 0 {
		t.Error("a dry run saved")
	}
	done, err := l.Apply(t.Context(), in, runtime.ApplyOptions{Strategy: snapshot.ServiceMerge})
	if err != nil || len(done) != 1 || done[0].Parts[0].Merged != want {
		t.Fatalf("%+v, %v", done, err)
	}
	l.wants(t, map[string]string{"a": "new", "b": "new", "z": "old"})
	if p := l.part(); p.Generation != 1 || !p.DirtySince.IsZero() {
		t.Errorf("loaded, and not saved: %+v", p)
	}
	if _, err := l.Apply(t.Context(), in, runtime.ApplyOptions{Strategy: snapshot.Overwrite}); err != nil {
		t.Fatal(err)
	}
	l.wants(t, map[string]string{"a": "new", "b": "new"})
	if _, err := l.Apply(t.Context(), in, runtime.ApplyOptions{Strategy: "sideways"}); err == nil || !strings.Contains(err.Error(), "account-region-merge") {
		t.Errorf("a strategy there is not: %v", err)
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
	l = begin(t, fsys, nil)
	l.wants(t, map[string]string{"a": "new", "b": "new"})
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

func TestApplyOfWhatIsUnknown(t *testing.T) {
	l := begin(t, vfs.NewMem(), nil)
	l.table.put("a", "1")
	for name, change := range map[string]func(*life, *runtime.Config){
		"svc/backend": func(_ *life, c *runtime.Config) { c.Services[0].Parts[0].Name = "backend" },
		"other": func(_ *life, c *runtime.Config) {
			c.Services = append(c.Services, c.Services[0])
			c.Services[1].Name = "other"
		},
	} {
		in := snapshotOf(t, map[string]string{"a": "2"}, change)
		_, err := l.Apply(t.Context(), in, runtime.ApplyOptions{})
		var unknown *runtime.UnknownPartsError
		if !errors.As(err, &unknown) || !slices.Equal(unknown.Unknown, []string{name}) || !errors.Is(err, abi.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
		l.wants(t, map[string]string{"a": "1"})
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

// two begins a life with a second service, "tail", behind svc.
func two(t *testing.T, fsys vfs.FS, save runtime.SaveStrategy) (*life, *half) {
	second := &half{table: newTable()}
	l := begin(t, fsys, func(l *life, c *runtime.Config) {
		c.Services[0].Save = save
		c.Services = append(c.Services, runtime.ServiceConfig{Name: "tail", Save: save, Load: runtime.LoadOnStartup,
			Parts: []runtime.PartConfig{{Name: "store", Serializer: l.ser, Source: second, Dirty: &second.dirty}}})
	})
	return l, second
}

// Where the second service refuses what it is given, the first one gets back what it had, on disk too.
func TestApplyIsAllOrNothing(t *testing.T) {
	src, tail := two(t, vfs.NewMem(), runtime.SaveManual)
	src.table.put("a", "new")
	tail.put("b", "new")
	in := capture(t, src)
	for _, before := range []bool{true, false} {
		fsys := vfs.NewMem()
		l, tail := two(t, fsys, runtime.SaveScheduled)
		want, wantTail := map[string]string{}, map[string]string{}
		if before {
			want["a"], wantTail["b"] = "old", "old"
			l.table.put("a", "old")
			tail.put("b", "old")
		}
		n := tail.restores.Load()
		tail.fail = func(i int64) bool { return i == n+1 }
		_, err := l.Apply(t.Context(), in, runtime.ApplyOptions{Strategy: snapshot.Overwrite})
		if err == nil || !strings.Contains(err.Error(), "tail") || errors.Is(err, runtime.ErrHalf) {
			t.Errorf("%v", err)
		}
		check := func() {
			t.Helper()
			l.wants(t, want)
			if got := tail.all(); !maps.Equal(got, wantTail) {
				t.Errorf("tail has %v", got)
			}
		}
		check()
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
		l, tail = two(t, fsys, runtime.SaveManual)
		check()
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	}
	if err := src.end(t); err != nil {
		t.Fatal(err)
	}
}

// Where the state before cannot be given back either, that is said, and the service is not served.
func TestApplyThatCannotBeUndone(t *testing.T) {
	src, tail := two(t, vfs.NewMem(), runtime.SaveManual)
	src.table.put("a", "new")
	tail.put("b", "new")
	in := capture(t, src)
	first, second := &half{}, &half{table: newTable(), fail: func(int64) bool { return true }}
	l := begin(t, vfs.NewMem(), func(l *life, c *runtime.Config) {
		first.table = l.table
		first.fail = func(n int64) bool { return n > 1 }
		c.Services[0].Parts[0].Source = first
		c.Services = append(c.Services, runtime.ServiceConfig{Name: "tail", Save: runtime.SaveManual, Load: runtime.LoadOnStartup,
			Parts: []runtime.PartConfig{{Name: "store", Serializer: l.ser, Source: second, Dirty: &second.dirty}}})
	})
	l.table.put("a", "old")
	second.put("b", "old")
	if _, err := l.Apply(t.Context(), in, runtime.ApplyOptions{Strategy: snapshot.Overwrite}); !errors.Is(err, runtime.ErrHalf) {
		t.Errorf("%v", err)
	}
	if l.status() != runtime.StatusError {
		t.Errorf("half of a snapshot is served: %v", l.status())
	}
	if got := second.all(); got["b"] != "old" {
		t.Errorf("the one that refused has %v", got)
	}
	for _, l := range []*life{src, l} {
		_ = l.end(t)
	}
}

// At every operation on the disk that can fail, either all is loaded and saved, or nothing has changed.
func TestApplyFaultAtEveryOperation(t *testing.T) {
	src, tail := two(t, vfs.NewMem(), runtime.SaveManual)
	src.table.put("a", "new")
	tail.put("b", "new")
	in := capture(t, src)
	failed, done := 0, 0
	for k := 1; done == 0; k++ {
		disk := vfs.NewMem()
		fsys := vfs.Faulty(disk, vfs.Fault{})
		l, tail := two(t, fsys, runtime.SaveOnShutdown)
		l.table.put("a", "old")
		tail.put("b", "old")
		for _, s := range l.Services() {
			if err := s.Save(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		fsys.Inject(vfs.Fault{At: k, Err: syscall.EIO})
		_, err := l.Apply(t.Context(), in, runtime.ApplyOptions{Strategy: snapshot.Overwrite})
		fired := fsys.Fired()
		fsys.Inject(vfs.Fault{})
		want := "new"
		if err != nil {
			failed++
			want = "old"
		} else if !fired {
			done++
		}
		check := func(when string) {
			t.Helper()
			if a, b := l.table.all()["a"], tail.all()["b"]; a != want || b != want {
				t.Fatalf("operation %d failed (%v); %s: %q and %q, want %q", k, err, when, a, b, want)
			}
		}
		check("live")
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
		l, tail = two(t, disk, runtime.SaveManual)
		check("in the next life")
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	}
	if failed < 5 {
		t.Errorf("only %d operations failed", failed)
	}
	if err := src.end(t); err != nil {
		t.Fatal(err)
	}
}

// A service whose saved state cannot be loaded runs again when another one takes its place, and only then.
func TestApplyToAServiceInError(t *testing.T) {
	fsys := vfs.NewMem()
	l := begin(t, fsys, nil)
	l.table.put("a", "saved")
	l.save(t)
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
	in := snapshotOf(t, map[string]string{"a": "new"}, nil)
	refusing := &half{}
	l = begin(t, fsys, func(l *life, c *runtime.Config) {
		refusing.table = l.table
		refusing.fail = func(n int64) bool { return n <= 2 }
		c.Services[0].Parts[0].Source = refusing
		c.Services[0].Save = runtime.SaveScheduled
	})
	if l.status() != runtime.StatusError {
		t.Fatalf("status %v", l.status())
	}
	if _, err := l.Apply(t.Context(), in, runtime.ApplyOptions{Strategy: snapshot.Overwrite}); err == nil || l.status() != runtime.StatusError {
		t.Errorf("%v, %v", err, l.status())
	}
	if gens, err := l.dir.Generations("svc", "store"); err != nil || len(gens) != 1 {
		t.Errorf("what is saved was replaced: %v, %v", gens, err)
	}
	if _, err := l.Apply(t.Context(), in, runtime.ApplyOptions{Strategy: snapshot.Overwrite}); err != nil || l.status() != runtime.StatusRunning {
		t.Fatalf("%v, %v", err, l.status())
	}
	l.wants(t, map[string]string{"a": "new"})
	if p := l.part(); p.Generation != 2 || p.Err != nil {
		t.Errorf("%+v", p)
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

// Without persistence there are captures and loads all the same, and nothing is saved.
func TestTransferWithoutPersistence(t *testing.T) {
	l := begin(t, vfs.NewMem(), func(_ *life, c *runtime.Config) {
		c.Ephemeral = true
		c.Services[0].Save = runtime.SaveOnRequest
	})
	if l.Persistent() {
		t.Error("it counts as persistence")
	}
	in := snapshotOf(t, map[string]string{"a": "new"}, nil)
	l.table.put("a", "old")
	s := capture(t, l)
	if got := contents(t, s, "svc", "store"); got["a"] != "old" {
		t.Errorf("captured %v", got)
	}
	if _, err := l.Apply(t.Context(), in, runtime.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	l.wants(t, map[string]string{"a": "new"})
	l.enterOnce(t)
	if gens, err := l.dir.Generations("svc", "store"); err == nil && len(gens) > 0 {
		t.Errorf("saved: %v", gens)
	}
	if err := l.svc.Save(t.Context()); err == nil {
		t.Error("Save does as if it had saved")
	}
	if err := l.svc.Reset(t.Context()); err != nil {
		t.Error(err)
	}
	l.wants(t, nil)
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

// A program with files and memory is stopped for its files, and gets all; where its memory then cannot be given, it has
// what it had.
func TestApplyToAProgram(t *testing.T) {
	source, p := beginProgram(t, vfs.NewMem(), newTable(), nil)
	p.set(t, source.svc, "a", "new")
	in := capture(t, source)
	for _, fails := range []bool{false, true} {
		fsys := vfs.NewMem()
		var memory *half
		l, p := beginProgram(t, fsys, newTable(), func(sc *runtime.ServiceConfig) {
			on, _ := sc.Parts[0].Source.(online)
			memory = &half{table: on.table}
			sc.Parts[0].Source = memory
		})
		p.set(t, l.svc, "a", "old")
		p.set(t, l.svc, "z", "old")
		if fails {
			n := memory.restores.Load()
			memory.fail = func(i int64) bool { return i == n+1 }
		}
		_, err := l.Apply(t.Context(), in, runtime.ApplyOptions{Strategy: snapshot.ServiceMerge})
		if (err != nil) != fails {
			t.Fatal(err)
		}
		want := map[string]string{"a": "new", "z": "old"}
		if fails {
			want["a"] = "old"
		}
		l.wants(t, want)
		if got := p.disk.all(); got["a"] != want["a"] || got["z"] != "old" {
			t.Errorf("files: %v", got)
		}
		if !p.running() || l.status() != runtime.StatusRunning {
			t.Errorf("it does not run: %v", l.status())
		}
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	}
	if err := source.end(t); err != nil {
		t.Fatal(err)
	}
}

// A snapshot of an older schema is migrated, one of another serializer goes through the module that comes with it.
func TestApplyOfOlderStates(t *testing.T) {
	upper := func(b *record.Batch) []byte {
		var out []byte
		for i := range b.Len() {
			key, _ := b.Key(i)
			out = appendRecord(out, string(key), strings.ToUpper(string(record.NewPull(b.Value(i)).Text())))
		}
		return out
	}
	in := snapshotOf(t, map[string]string{"a": "x"}, nil)
	l := begin(t, vfs.NewMem(), func(l *life, c *runtime.Config) {
		l.ser.schema, l.ser.reads, l.ser.version = 2, []uint64{2}, "2"
		l.ser.ops = append(l.ser.ops, abi.OpMigrate)
		l.ser.migrate = upper
	})
	l.table.put("b", "y")
	if _, err := l.Apply(t.Context(), in, runtime.ApplyOptions{Strategy: snapshot.ServiceMerge}); err != nil {
		t.Fatal(err)
	}
	l.wants(t, map[string]string{"a": "X", "b": "y"})
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}

	var compiled []string
	l = begin(t, vfs.NewMem(), func(l *life, c *runtime.Config) {
		l.ser.name = "other"
		c.Compile = func(_ context.Context, name string, wasm []byte) (runtime.Serializer, error) {
			compiled = append(compiled, name+": "+string(wasm))
			return newPassThrough(), nil
		}
	})
	l.table.put("b", "y")
	if _, err := l.Apply(t.Context(), in, runtime.ApplyOptions{Strategy: snapshot.ServiceMerge}); err != nil {
		t.Fatal(err)
	}
	l.wants(t, map[string]string{"a": "x", "b": "y"})
	if !slices.Equal(compiled, []string{"pass: pass 1"}) {
		t.Errorf("compiled %q", compiled)
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

// What the serializer refuses is refused before anything is touched.
func TestApplyOfWhatCannotBeLoaded(t *testing.T) {
	in := snapshotOf(t, map[string]string{"a": "new"}, nil)
	l := begin(t, vfs.NewMem(), nil)
	l.table.put("a", "old")
	n := l.table.restores.Load()
	l.ser.loadErr = abi.ErrCorrupt
	if _, err := l.Apply(t.Context(), in, runtime.ApplyOptions{Strategy: snapshot.Overwrite}); !errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("%v", err)
	}
	l.ser.loadErr = nil
	if l.table.restores.Load() != n {
		t.Error("the service was touched")
	}
	l.wants(t, map[string]string{"a": "old"})
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

// A part that has never had a state is left out: its source gives no bytes, and its serializer takes none.
func TestCaptureOfNothing(t *testing.T) {
	l := begin(t, vfs.NewMem(), func(l *life, _ *runtime.Config) { l.ser.strict = true })
	if s := capture(t, l); len(s.Parts) != 0 {
		t.Errorf("captured %v", s.Parts)
	}
	l.table.put("a", "1")
	if s := capture(t, l); len(s.Parts) != 1 {
		t.Errorf("captured %v", s.Parts)
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

// What a service has may be no state any more: then a snapshot can still take its place, and nothing else can be merged.
func TestApplyOverwritesWhatIsNoState(t *testing.T) {
	in := snapshotOf(t, map[string]string{"a": "new"}, nil)
	l := begin(t, vfs.NewMem(), nil)
	l.table.put("a", "old")
	l.table.capErr = fmt.Errorf("no JSON: %w", abi.ErrCorrupt)
	if _, err := l.Apply(t.Context(), in, runtime.ApplyOptions{Strategy: snapshot.ServiceMerge}); !errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("merged: %v", err)
	}
	l.wants(t, map[string]string{"a": "old"})
	if _, err := l.Apply(t.Context(), in, runtime.ApplyOptions{Strategy: snapshot.Overwrite}); err != nil {
		t.Fatal(err)
	}
	l.wants(t, map[string]string{"a": "new"})
	l.table.capErr = nil
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}
