package runtime_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// onlyPart makes a snapshot of one part of another.
func onlyPart(t *testing.T, s *snapshot.Snapshot, part string) *snapshot.Snapshot {
	t.Helper()
	p, ok := s.Part("svc", part)
	if !ok {
		t.Fatalf("no part %s", part)
	}
	out, err := snapshot.New(s.Info, []snapshot.Part{p}, s.Module, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// parts begins a life whose service has, besides store, a part assets.
func parts(t *testing.T, fsys vfs.FS, change func(*runtime.Config)) (*life, *table) {
	t.Helper()
	assets := newTable()
	l := begin(t, fsys, func(l *life, c *runtime.Config) {
		c.Services[0].Parts = append(c.Services[0].Parts, runtime.PartConfig{Name: "assets", Serializer: l.ser, Source: assets, Dirty: &assets.dirty})
		if change != nil {
			change(c)
		}
	})
	return l, assets
}

func (l *life) mustEnd(t *testing.T) {
	t.Helper()
	if err := l.end(t); err != nil {
		t.Error(err)
	}
}

func kv(k, v string) map[string]string { return map[string]string{k: v} }

// A part that the snapshot has nothing of keeps what is saved of it when its service was not loaded yet.
func TestTransferApplyBeforeTheFirstRequest(t *testing.T) {
	src, more := parts(t, vfs.NewMem(), nil)
	src.table.put("a", "new")
	more.put("x", "new")
	in := onlyPart(t, capture(t, src), "store")
	fsys := vfs.NewMem()
	l, assets := parts(t, fsys, nil)
	l.table.put("a", "old")
	assets.put("x", "old")
	l.save(t)
	l.mustEnd(t)

	l, assets = parts(t, fsys, func(c *runtime.Config) {
		c.Services[0].Load, c.Services[0].Save = runtime.LoadOnRequest, runtime.SaveOnShutdown
	})
	if _, err := l.Apply(t.Context(), in, runtime.ApplyOptions{Strategy: snapshot.Overwrite}); err != nil {
		t.Fatal(err)
	}
	l.enterOnce(t)
	l.wants(t, kv("a", "new"))
	if got := assets.all(); !maps.Equal(got, kv("x", "old")) {
		t.Errorf("assets, of which the snapshot has nothing, are %v while the service runs", got)
	}
	l.svc.Changed() // as the gateway says of each request that may have changed something
	l.mustEnd(t)
	l, assets = parts(t, fsys, nil)
	if got := assets.all(); !maps.Equal(got, kv("x", "old")) {
		t.Errorf("in the next life assets are %v", got)
	}
	l.mustEnd(t)
	src.mustEnd(t)
}

// A service in error is in error again when a snapshot could not be loaded: its requests are refused, and what is saved of
// it is as it was.
func TestTransferUndoOfAServiceInError(t *testing.T) {
	src, tail := two(t, vfs.NewMem(), runtime.SaveManual)
	src.table.put("a", "new")
	tail.put("b", "new")
	in := capture(t, src)
	fsys := vfs.NewMem()
	l, _ := two(t, fsys, runtime.SaveOnShutdown)
	l.table.put("a", "old")
	l.mustEnd(t)

	refusing, second := &half{}, &half{table: newTable()}
	l = begin(t, fsys, func(l *life, c *runtime.Config) {
		refusing.table = l.table
		refusing.fail = func(n int64) bool { return n == 1 }
		c.Services[0].Parts[0].Source = refusing
		c.Services[0].Save = runtime.SaveScheduled
		c.Services = append(c.Services, runtime.ServiceConfig{Name: "tail", Save: runtime.SaveScheduled, Load: runtime.LoadOnRequest,
			Parts: []runtime.PartConfig{{Name: "store", Serializer: l.ser, Source: second, Dirty: &second.dirty}}})
	})
	if l.status() != runtime.StatusError {
		t.Fatalf("status %v", l.status())
	}
	second.fail = func(int64) bool { return true }
	if _, err := l.Apply(t.Context(), in, runtime.ApplyOptions{Strategy: snapshot.Overwrite}); err == nil {
		t.Fatal("it was loaded")
	}
	second.fail = nil
	if st := l.svc.Status(); st.Status != runtime.StatusError || st.Err == nil {
		t.Errorf("status %v, error %v", st.Status, st.Err)
	}
	if gens, err := l.dir.Generations("svc", "store"); err != nil || len(gens) != 1 {
		t.Errorf("what is saved was replaced: %d generations, %v", len(gens), err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	entered := make(chan error, 1)
	go func() {
		leave, err := l.svc.Enter(ctx)
		if err == nil {
			leave()
		}
		entered <- err
	}()
	select {
	case err := <-entered:
		if err == nil {
			t.Error("a request was let in")
		}
	case <-time.After(2 * time.Second):
		t.Error("Enter does not return, though its ctx ended: it spins")
		if err := l.svc.Reset(t.Context()); err != nil {
			t.Error(err)
		}
		<-entered
	}
	_ = l.end(t)
	src.mustEnd(t)
}

// What a MANUAL load has not loaded is not saved over by itself after a snapshot could not be loaded.
func TestTransferUndoKeepsWhatIsUnread(t *testing.T) {
	in := snapshotOf(t, kv("a", "new"), nil)
	fsys := vfs.NewMem()
	l := begin(t, fsys, nil)
	l.table.put("a", "saved")
	l.save(t)
	l.mustEnd(t)
	source := &half{}
	l = begin(t, fsys, func(l *life, c *runtime.Config) {
		source.table = l.table
		source.fail = func(n int64) bool { return n == 1 }
		c.Services[0].Parts[0].Source = source
		c.Services[0].Load, c.Services[0].Save = runtime.LoadManual, runtime.SaveOnShutdown
	})
	if _, err := l.svc.Sync(t.Context()); err != nil { // nothing is dirty
		t.Fatal(err)
	}
	if _, err := l.Apply(t.Context(), in, runtime.ApplyOptions{Strategy: snapshot.Overwrite}); err == nil {
		t.Fatal("it was loaded")
	}
	l.svc.Changed()
	_, _ = l.svc.Sync(t.Context())
	if n := l.part().Generation; n != 1 {
		t.Errorf("generation %d was saved over a state that was never loaded", n)
	}
	_ = l.end(t)
}

// When Apply says that nothing was loaded, what is saved is what it was, too: the process may be killed next.
func TestTransferUndoOnDisk(t *testing.T) {
	src, tail := two(t, vfs.NewMem(), runtime.SaveManual)
	src.table.put("a", "new")
	tail.put("b", "new")
	in := capture(t, src)
	l, tail := two(t, vfs.NewMem(), runtime.SaveOnShutdown)
	l.table.put("a", "old")
	tail.put("b", "old")
	for _, s := range l.Services() {
		if err := s.Save(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	n := tail.restores.Load()
	tail.fail = func(i int64) bool { return i == n+1 }
	if _, err := l.Apply(t.Context(), in, runtime.ApplyOptions{Strategy: snapshot.Overwrite}); err == nil || errors.Is(err, runtime.ErrHalf) {
		t.Fatal(err)
	}
	saved, err := l.Generations(0)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := contents(t, saved, "svc", "store")["a"], contents(t, saved, "tail", "store")["b"]; a != "old" || b != "old" {
		t.Errorf("saved are %q and %q: a crash now gives half of a snapshot that was not loaded", a, b)
	}
	if err := saved.Close(); err != nil {
		t.Error(err)
	}
	l.mustEnd(t)
	src.mustEnd(t)
}

// slowFS lists folders slowly when told to.
type slowFS struct {
	*vfs.Mem
	slow atomic.Bool
}

func (f *slowFS) ReadDir(name string) ([]vfs.Entry, error) {
	if f.slow.Load() {
		time.Sleep(50 * time.Millisecond)
	}
	return f.Mem.ReadDir(name)
}

// A request may come while a capture wakes a service.
func TestTransferRequestWhileACaptureWakes(t *testing.T) {
	fsys := &slowFS{Mem: vfs.NewMem()}
	l := begin(t, fsys, func(_ *life, c *runtime.Config) { c.Services[0].Load = runtime.LoadOnRequest })
	fsys.slow.Store(true)
	var both sync.WaitGroup
	both.Go(func() {
		s, err := l.Capture(t.Context())
		if err != nil {
			t.Error(err)
			return
		}
		_ = s.Close()
	})
	both.Go(func() {
		defer func() {
			if r := recover(); r != nil {
				t.Errorf("the request panicked: %v", r)
			}
		}()
		for range 5000 {
			if l.status() != runtime.StatusAvailable {
				break
			}
			time.Sleep(100 * time.Microsecond)
		}
		leave, err := l.svc.Enter(t.Context())
		if err != nil {
			t.Error(err)
			return
		}
		leave()
	})
	both.Wait()
	l.mustEnd(t)
}

// A state that was saved by an older schema is migrated also where a snapshot has nothing of its part.
func TestTransferApplyBesideOlderStates(t *testing.T) {
	v1 := begin(t, vfs.NewMem(), nil)
	v1.mustEnd(t)
	newer := func(l *life) {
		l.ser.schema, l.ser.reads, l.ser.version = 2, []uint64{2}, "2"
		l.ser.ops = append(l.ser.ops, abi.OpMigrate)
		l.ser.migrate = func(b *record.Batch) []byte {
			var out []byte
			for i := range b.Len() {
				key, _ := b.Key(i)
				out = appendRecord(out, string(key), strings.ToUpper(string(record.NewPull(b.Value(i)).Text())))
			}
			return out
		}
	}
	fsys := vfs.NewMem()
	l := begin(t, fsys, nil)
	l.table.put("a", "x")
	l.save(t)
	l.mustEnd(t)

	in := snapshotOf(t, kv("a", "NEW"), func(l *life, _ *runtime.Config) { newer(l) })
	source := &half{}
	l = begin(t, fsys, func(l *life, c *runtime.Config) {
		newer(l)
		source.table = l.table
		source.fail = func(n int64) bool { return n == 1 }
		c.Services[0].Parts[0].Source = source
		c.Services[0].Load, c.Services[0].Save = runtime.LoadOnRequest, runtime.SaveOnShutdown
	})
	if _, err := l.Apply(t.Context(), in, runtime.ApplyOptions{Strategy: snapshot.Overwrite}); err == nil {
		t.Fatal("it was loaded")
	}
	l.wants(t, kv("a", "X"))
	l.mustEnd(t)

	// A program is given all its parts anew, and what it is given is saved.
	src, p := beginProgram(t, vfs.NewMem(), newTable(), nil)
	p.set(t, src.svc, "a", "new")
	in = onlyPart(t, capture(t, src), "store")
	fsys = vfs.NewMem()
	l, p = beginProgram(t, fsys, newTable(), nil)
	p.set(t, l.svc, "a", "x")
	l.mustEnd(t)
	l, p = beginProgram(t, fsys, newTable(), func(sc *runtime.ServiceConfig) {
		ser := sc.Parts[0].Serializer.(*passThrough)
		newer(&life{ser: ser})
	})
	if _, err := l.Apply(t.Context(), in, runtime.ApplyOptions{Strategy: snapshot.ServiceMerge}); err != nil {
		t.Fatal(err)
	}
	if got := p.disk.all()["a"]; got != "X" {
		t.Errorf("assets, of which the snapshot has nothing, were given as %q, which is of the old schema, and saved as the new one", got)
	}
	l.mustEnd(t)
	src.mustEnd(t)
}

// A program that dies after it was given a snapshot has not got it.
func TestTransferProgramDiesBesideAnother(t *testing.T) {
	build := func(fsys vfs.FS) (*life, *program, *half) {
		p, tail := &program{memory: newTable()}, &half{table: newTable()}
		l := begin(t, fsys, func(l *life, c *runtime.Config) {
			l.table = p.memory
			c.Services[0].Process, c.Services[0].Load = p, runtime.LoadOnRequest
			c.Services[0].Parts[0].Source, c.Services[0].Parts[0].Dirty = online{p.memory, p}, &p.memory.dirty
			c.Services = append(c.Services, runtime.ServiceConfig{Name: "tail", Save: runtime.SaveManual, Load: runtime.LoadOnStartup,
				Parts: []runtime.PartConfig{{Name: "store", Serializer: l.ser, Source: tail, Dirty: &tail.dirty}}})
		})
		return l, p, tail
	}
	src, p, tail := build(vfs.NewMem())
	p.set(t, src.svc, "a", "new")
	tail.put("b", "new")
	in := capture(t, src)
	l, p, tail := build(vfs.NewMem())
	p.set(t, l.svc, "a", "old")
	var once sync.Once
	tail.fail = func(int64) bool {
		once.Do(func() { l.kill(p) })
		return false
	}
	_, err := l.Apply(t.Context(), in, runtime.ApplyOptions{Strategy: snapshot.Overwrite})
	if err == nil {
		l.runsAgain(t)
		if got := l.table.all()["a"]; got != "new" {
			_, lost := l.svc.Sync(t.Context())
			t.Errorf("Apply says that all is loaded; svc has %q, and Sync says %v", got, lost)
		}
	}
	l.mustEnd(t)
	src.mustEnd(t)
}

// Close waits until a snapshot is loaded or not: no half of it is kept.
func TestTransferApplyBesideClose(t *testing.T) {
	build := func(fsys vfs.FS, save runtime.SaveStrategy) (*life, *program, *half) {
		p, tail := &program{memory: newTable()}, &half{table: newTable()}
		l := begin(t, fsys, func(l *life, c *runtime.Config) {
			l.table = p.memory
			c.Services[0].Process, c.Services[0].Load, c.Services[0].Save = p, runtime.LoadOnRequest, save
			c.Services[0].Parts[0].Source, c.Services[0].Parts[0].Dirty = online{p.memory, p}, &p.memory.dirty
			c.Services = append(c.Services, runtime.ServiceConfig{Name: "tail", Save: save, Load: runtime.LoadOnStartup,
				Parts: []runtime.PartConfig{{Name: "store", Serializer: l.ser, Source: tail, Dirty: &tail.dirty}}})
		})
		return l, p, tail
	}
	src, p, tail := build(vfs.NewMem(), runtime.SaveManual)
	p.set(t, src.svc, "a", "new")
	tail.put("b", "new")
	in := capture(t, src)
	fsys := vfs.NewMem()
	l, p, tail := build(fsys, runtime.SaveOnShutdown)
	p.set(t, l.svc, "a", "old")
	tail.put("b", "old")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	closed := make(chan error, 1)
	var once sync.Once
	tail.fail = func(int64) (fails bool) {
		once.Do(func() { // the server is told to end: its requests are cut off, then the runtime is closed
			cancel()
			go func() { closed <- l.Close(context.Background()) }()
			time.Sleep(100 * time.Millisecond)
			fails = true
		})
		return fails
	}
	_, err := l.Apply(ctx, in, runtime.ApplyOptions{Strategy: snapshot.Overwrite})
	if err == nil || errors.Is(err, runtime.ErrHalf) {
		t.Errorf("Apply: %v", err)
	}
	t.Logf("Close: %v", <-closed)
	if err := l.dir.Close(); err != nil {
		t.Error(err)
	}
	l, _, tail = build(fsys, runtime.SaveManual)
	l.enterOnce(t)
	if a, b := l.table.all()["a"], tail.all()["b"]; a != b {
		t.Errorf("in the next life: %q and %q", a, b)
	}
	l.mustEnd(t)
	src.mustEnd(t)
}

// What a source has of which nothing was ever saved is merged with, also where a request is about to wake its service.
func TestTransferApplyBeforeAWakeUnderWay(t *testing.T) {
	in := snapshotOf(t, kv("a", "new"), nil)
	l := begin(t, vfs.NewMem(), func(l *life, c *runtime.Config) { c.Services[0].Load = runtime.LoadOnRequest })
	l.table.put("z", "there before")
	saving := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	l.ser.pause = func() { close(saving); <-ctx.Done() }
	var all sync.WaitGroup
	all.Go(func() { _ = l.svc.Save(ctx) }) // does not save: it is given up
	<-saving
	all.Go(func() {
		if _, err := l.Apply(context.Background(), in, runtime.ApplyOptions{Strategy: snapshot.ServiceMerge}); err != nil {
			t.Error(err)
		}
	})
	time.Sleep(50 * time.Millisecond)
	all.Go(func() {
		leave, err := l.svc.Enter(context.Background())
		if err != nil {
			t.Error(err)
			return
		}
		leave()
	})
	time.Sleep(50 * time.Millisecond)
	if n := l.part().Generation; n != 0 {
		t.Fatalf("generation %d was saved", n)
	}
	cancel()
	all.Wait()
	l.wants(t, map[string]string{"a": "new", "z": "there before"})
	_ = l.end(t)
}

// Where a part had nothing, it has nothing again when a snapshot could not be loaded.
func TestTransferUndoOfANewPart(t *testing.T) {
	build := func(fsys vfs.FS, load runtime.LoadStrategy) (*life, *table, *half) {
		tail := &half{table: newTable()}
		l, assets := parts(t, fsys, func(c *runtime.Config) {
			c.Services[0].Load = load
			c.Services = append(c.Services, runtime.ServiceConfig{Name: "tail", Load: runtime.LoadOnStartup, Save: runtime.SaveManual,
				Parts: []runtime.PartConfig{{Name: "store", Serializer: c.Services[0].Parts[0].Serializer, Source: tail, Dirty: &tail.dirty}}})
		})
		return l, assets, tail
	}
	src, assets, tail := build(vfs.NewMem(), runtime.LoadOnStartup)
	assets.put("x", "new")
	tail.put("b", "new")
	all := capture(t, src)
	p1, _ := all.Part("svc", "assets")
	p2, _ := all.Part("tail", "store")
	in, err := snapshot.New(all.Info, []snapshot.Part{p1, p2}, all.Module, nil)
	if err != nil {
		t.Fatal(err)
	}
	fsys := vfs.NewMem()
	l, _, _ := build(fsys, runtime.LoadOnStartup)
	l.table.put("a", "old")
	if _, err := l.svc.Sync(t.Context()); err != nil { // saves what is dirty: store alone
		t.Fatal(err)
	}
	l.mustEnd(t)
	l, assets, tail = build(fsys, runtime.LoadOnRequest)
	n := tail.restores.Load()
	tail.fail = func(i int64) bool { return i == n+1 }
	if _, err := l.Apply(t.Context(), in, runtime.ApplyOptions{}); err == nil {
		t.Fatal("it was loaded")
	}
	l.enterOnce(t)
	if got := assets.all(); len(got) > 0 {
		t.Errorf("of a snapshot that was not loaded there is %v", got)
	}
	l.wants(t, kv("a", "old"))
	l.mustEnd(t)
	src.mustEnd(t)
}

// A capture that moves damage aside tells so, as a load does, and goes on with nothing where that is what is left.
func TestTransferCaptureTellsOfDamage(t *testing.T) {
	fsys := vfs.NewMem()
	l := begin(t, fsys, nil)
	l.table.put("a", "1")
	l.save(t)
	l.mustEnd(t)
	damage(t, fsys, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
	l = begin(t, fsys, func(_ *life, c *runtime.Config) { c.Services[0].Load = runtime.LoadOnRequest })
	s, err := l.Capture(t.Context())
	if err == nil {
		_ = s.Close()
	}
	l.seen.mu.Lock()
	n := l.seen.quarantined
	l.seen.mu.Unlock()
	if n != 1 || l.part().Err == nil {
		t.Errorf("a generation was moved aside, and the observer was told of %d; last error: %v; Capture: %v", n, l.part().Err, err)
	}
	l.mustEnd(t)
}

// A program that is started for a snapshot asks for its state at once; for that its service must not look as if somebody
// had to wake it (see server.push), who would wait for the very Apply that starts it.
func TestTransferStatusWhileAProgramIsStarted(t *testing.T) {
	src, p := beginProgram(t, vfs.NewMem(), newTable(), nil)
	p.set(t, src.svc, "a", "new")
	in := capture(t, src)
	l, p := beginProgram(t, vfs.NewMem(), newTable(), nil)
	var seen runtime.Status
	p.onStart = func() { seen = l.status() }
	if _, err := l.Apply(t.Context(), in, runtime.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	if seen == runtime.StatusAvailable {
		t.Errorf("status %v while it is started", seen)
	}
	l.mustEnd(t)
	src.mustEnd(t)
}

// What a program writes at its end is merged with, and given back: Apply ends it.
func TestTransferApplyTakesWhatIsWrittenAtTheEnd(t *testing.T) {
	src, p := beginProgram(t, vfs.NewMem(), newTable(), nil)
	p.set(t, src.svc, "a", "new")
	in := onlyPart(t, capture(t, src), "assets")
	l, p := beginProgram(t, vfs.NewMem(), newTable(), nil)
	p.set(t, l.svc, "a", "old")
	if _, err := l.Apply(t.Context(), in, runtime.ApplyOptions{Strategy: snapshot.ServiceMerge}); err != nil {
		t.Fatal(err)
	}
	if got := p.disk.all(); got["stopped"] != "in order" || got["a"] != "new" {
		t.Errorf("files are %v: what the program wrote when it was stopped is gone", got)
	}
	l.mustEnd(t)
	src.mustEnd(t)
}
