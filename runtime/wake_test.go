package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// program is a service's process: what it keeps in memory goes with it, what it has on disk stays, and it
// writes "stopped" there when it is asked to end.
type program struct {
	mu       sync.Mutex
	up       bool
	memory   *table // nil: none
	disk     *disk  // nil: none
	starts   atomic.Int64
	stops    atomic.Int64
	startErr error
	ready    chan struct{} // if not nil, Start waits for it
	onStart  func()
}

func (p *program) Start(ctx context.Context) error {
	if p.ready != nil {
		select {
		case <-p.ready:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.startErr != nil {
		return p.startErr
	}
	if !p.up {
		p.up = true
		p.starts.Add(1)
		if p.onStart != nil {
			p.onStart()
		}
	}
	return nil
}

func (p *program) Stop(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.up && p.disk != nil {
		p.disk.write("stopped", "in order")
	}
	if p.up {
		p.stops.Add(1)
	}
	p.end()
	return nil
}

// die is kill -9.
func (p *program) die() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end()
}

func (p *program) end() {
	p.up = false
	if p.memory != nil {
		_ = p.memory.Reset(context.Background())
	}
}

func (p *program) running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.up
}

// set puts, as a request would.
func (p *program) set(t *testing.T, svc *runtime.Service, key, value string) {
	t.Helper()
	leave, err := svc.Enter(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	if p.memory != nil {
		p.memory.write(key, value)
	}
	if p.disk != nil {
		p.disk.write(key, value)
	}
	svc.Changed()
}

// write changes the table without marking it: the request's handler does.
func (t *table) write(key, value string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.m[key] = value
}

// disk is a table that must not be restored or reset while its program runs.
type disk struct {
	*table
	program *program
	misused atomic.Bool
}

func (d *disk) Offline() bool { return true }

func (d *disk) Restore(ctx context.Context, native io.Reader) error {
	if d.program.running() {
		d.misused.Store(true)
	}
	return d.table.Restore(ctx, native)
}

func (d *disk) Reset(ctx context.Context) error {
	if d.program.running() {
		d.misused.Store(true)
	}
	return d.table.Reset(ctx)
}

// online is a table whose capture and restore need the program.
type online struct {
	*table
	program *program
}

func (o online) Capture(ctx context.Context) (runtime.Capture, error) {
	if !o.program.running() {
		return nil, errors.New("connection refused")
	}
	return o.table.Capture(ctx)
}

func (o online) Restore(ctx context.Context, native io.Reader) error {
	if !o.program.running() {
		return errors.New("connection refused")
	}
	return o.table.Restore(ctx, native)
}

func (o online) Reset(ctx context.Context) error {
	if !o.program.running() {
		return errors.New("connection refused")
	}
	return o.table.Reset(ctx)
}

// beginProgram begins a life with one service: a program with a store in memory, and files where assets.
func beginProgram(t *testing.T, fsys vfs.FS, files *table, change func(*runtime.ServiceConfig)) (*life, *program) {
	t.Helper()
	p := &program{memory: newTable()}
	l := begin(t, fsys, func(l *life, cfg *runtime.Config) {
		sc := &cfg.Services[0]
		l.table = p.memory
		sc.Process, sc.Load, sc.Save = p, runtime.LoadOnRequest, runtime.SaveOnShutdown
		sc.Parts = []runtime.PartConfig{{Name: "store", Serializer: l.ser, Source: online{p.memory, p}, Dirty: &p.memory.dirty}}
		if files != nil {
			p.disk = &disk{table: files, program: p}
			sc.Parts = append(sc.Parts, runtime.PartConfig{Name: "assets", Serializer: l.ser, Source: p.disk, Dirty: &p.disk.dirty})
		}
		if change != nil {
			change(sc)
		}
	})
	t.Cleanup(func() {
		if p.disk != nil && p.disk.misused.Load() {
			t.Error("files were restored or reset while the program ran")
		}
	})
	return l, p
}

func (l *life) status() runtime.Status { return l.svc.Status().Status }

// kill ends the program and tells the runtime so.
func (l *life) kill(p *program) {
	p.die()
	l.svc.ProcessExited(errors.New("ended with SIGKILL"))
}

func (l *life) runsAgain(t *testing.T) {
	t.Helper()
	eventually(t, "running again", func() bool { return l.status() == runtime.StatusRunning })
}

func TestRequestStartsTheProgram(t *testing.T) {
	l, p := beginProgram(t, vfs.NewMem(), nil, nil)
	if p.running() || l.status() != runtime.StatusAvailable {
		t.Fatalf("before the first request: running %v, status %v", p.running(), l.status())
	}
	var requests sync.WaitGroup
	for range 50 {
		requests.Go(func() {
			leave, err := l.svc.Enter(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			leave()
		})
	}
	requests.Wait()
	if n := p.starts.Load(); n != 1 || l.status() != runtime.StatusRunning {
		t.Errorf("50 requests at once started it %d times, status %v", n, l.status())
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
	if p.running() {
		t.Error("it runs on after the runtime's end")
	}
}

func TestSleepAndWake(t *testing.T) {
	files := newTable()
	l, p := beginProgram(t, vfs.NewMem(), files, func(sc *runtime.ServiceConfig) { sc.Save = runtime.SaveManual })
	p.set(t, l.svc, "a", "1")
	if err := l.svc.Sleep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st := l.svc.Status(); p.running() || st.Status != runtime.StatusAvailable || !st.Asleep || st.Parts[0].Generation != 1 || st.Parts[1].Generation != 1 {
		t.Fatalf("asleep: running %v, status %+v", p.running(), st)
	}
	if len(p.memory.all()) != 0 {
		t.Fatal("the test's own program keeps its memory")
	}
	if err := l.svc.Sleep(t.Context()); err != nil {
		t.Errorf("put to sleep twice: %v", err)
	}
	p.set(t, l.svc, "b", "2")
	l.wants(t, map[string]string{"a": "1", "b": "2"})
	if got := files.all(); !maps.Equal(got, map[string]string{"a": "1", "b": "2", "stopped": "in order"}) {
		t.Errorf("files are %v", got)
	}
	if st := l.svc.Status(); st.Asleep || st.Status != runtime.StatusRunning || p.starts.Load() != 2 {
		t.Errorf("awake: %+v, %d starts", st, p.starts.Load())
	}
	if err := l.end(t); err != nil { // MANUAL: b is not saved
		t.Fatal(err)
	}
}

// What a program writes when it ends is in the state of the next life.
func TestCloseSavesWhatTheProgramWritesAtItsEnd(t *testing.T) {
	fsys := vfs.NewMem()
	l, p := beginProgram(t, fsys, newTable(), nil)
	p.set(t, l.svc, "a", "1")
	if err := l.svc.Save(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
	files := newTable()
	files.write("left", "by somebody")
	l, p = beginProgram(t, fsys, files, nil)
	if err := l.svc.Wake(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.wants(t, map[string]string{"a": "1"})
	if got := files.all(); !maps.Equal(got, map[string]string{"a": "1", "stopped": "in order"}) {
		t.Errorf("files are %v", got)
	}
	// Nothing has changed: the end writes nothing.
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
	if n := len(l.seen.saves); n != 0 {
		t.Errorf("%d saves of what has not changed", n)
	}
	_ = p
}

// Files that are there before anything was saved are the service's state, and are saved.
func TestFilesOfAnEarlierLifeAreAdopted(t *testing.T) {
	fsys := vfs.NewMem()
	files := newTable()
	files.write("old", "1")
	l, _ := beginProgram(t, fsys, files, nil)
	if err := l.svc.Wake(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
	files = newTable()
	l, _ = beginProgram(t, fsys, files, nil)
	if err := l.svc.Wake(t.Context()); err != nil {
		t.Fatal(err)
	}
	if files.all()["old"] != "1" {
		t.Errorf("files are %v", files.all())
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

func TestDeadProgramIsStartedAgain(t *testing.T) {
	files := newTable()
	l, p := beginProgram(t, vfs.NewMem(), files, nil)
	p.set(t, l.svc, "a", "1")
	l.save(t)
	p.set(t, l.svc, "b", "2")
	l.kill(p)
	eventually(t, "started again", func() bool { return l.status() == runtime.StatusRunning })
	l.wants(t, map[string]string{"a": "1"}) // what memory held and nobody saved is gone, and that is said
	if got := files.all(); !maps.Equal(got, map[string]string{"a": "1", "b": "2"}) {
		t.Errorf("files are %v: those of a dead program are newer than what is saved", got)
	}
	if !strings.Contains(l.log.String(), "died, and with it what was not saved") {
		t.Error("the loss is not told")
	}
	st := l.svc.Status()
	if !st.Parts[0].DirtySince.IsZero() || st.Parts[1].DirtySince.IsZero() {
		t.Errorf("dirty: store %v, assets %v", st.Parts[0].DirtySince, st.Parts[1].DirtySince)
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

func TestProgramThatDiesTooOften(t *testing.T) {
	l, p := beginProgram(t, vfs.NewMem(), nil, func(sc *runtime.ServiceConfig) {
		sc.Restarts = runtime.Restarts{Most: 2, Within: time.Hour}
	})
	l.enterOnce(t)
	for range 3 {
		eventually(t, "running", func() bool { return l.status() == runtime.StatusRunning })
		p.die()
		l.svc.ProcessExited(errors.New("ended with exit code 1"))
	}
	time.Sleep(20 * time.Millisecond)
	st := l.svc.Status()
	if st.Status != runtime.StatusAvailable || p.running() || !errors.Is(st.Err, runtime.ErrProcess) {
		t.Fatalf("after three ends: %+v, running %v", st, p.running())
	}
	leave, err := l.svc.Enter(t.Context()) // a request is another try
	if err != nil {
		t.Fatal(err)
	}
	leave()
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

func TestProgramThatCannotBeStarted(t *testing.T) {
	l, p := beginProgram(t, vfs.NewMem(), nil, nil)
	p.startErr = errors.New("no such file")
	for range 2 {
		if _, err := l.svc.Enter(t.Context()); !errors.Is(err, runtime.ErrProcess) || !strings.Contains(err.Error(), "no such file") {
			t.Fatalf("error %v", err)
		}
		if st := l.svc.Status(); st.Status != runtime.StatusAvailable || st.Err == nil || st.Asleep {
			t.Fatalf("status %+v", st)
		}
	}
	p.mu.Lock()
	p.startErr = nil
	p.mu.Unlock()
	p.set(t, l.svc, "a", "1")
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

// A program that dies while it is given its state back is tried again by the next request; one that
// refuses the state is not, and does not stay.
func TestWakeFailsInRestore(t *testing.T) {
	fsys := vfs.NewMem()
	l, p := beginProgram(t, fsys, nil, nil)
	p.set(t, l.svc, "a", "1")
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}

	l, p = beginProgram(t, fsys, nil, nil)
	svc := l.svc
	p.onStart = func() {
		p.onStart = nil
		p.up = false
		svc.ProcessExited(errors.New("ended with exit code 1"))
	}
	if _, err := l.svc.Enter(t.Context()); !errors.Is(err, runtime.ErrProcess) || l.status() != runtime.StatusAvailable {
		t.Fatalf("died meanwhile: error %v, status %v", err, l.status())
	}
	if err := l.svc.Wake(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.wants(t, map[string]string{"a": "1"})
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}

	l, p = beginProgram(t, fsys, nil, nil)
	l.ser.loadErr = errors.New("no")
	if _, err := l.svc.Enter(t.Context()); err == nil || errors.Is(err, runtime.ErrProcess) || l.status() != runtime.StatusError || p.running() {
		t.Fatalf("state refused: error %v, status %v, running %v", err, l.status(), p.running())
	}
	if err := l.svc.Sleep(t.Context()); err == nil {
		t.Error("a service whose state could not be loaded was put to sleep: that would replace the state")
	}
	l.ser.loadErr = nil
	if found, err := l.svc.Load(t.Context()); err != nil || !found || !p.running() {
		t.Fatalf("load: %v, %v, running %v", found, err, p.running())
	}
	l.wants(t, map[string]string{"a": "1"})
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

func TestSleepThatFails(t *testing.T) {
	l, p := beginProgram(t, vfs.NewMem(), newTable(), func(sc *runtime.ServiceConfig) {
		sc.HoldTimeout = 20 * time.Millisecond
		sc.Save = runtime.SaveManual
	})
	p.set(t, l.svc, "a", "1")
	leave, err := l.svc.Enter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.svc.Sleep(t.Context()); !errors.Is(err, runtime.ErrBusy) || !p.running() || l.status() != runtime.StatusRunning {
		t.Errorf("with a request under way: error %v, running %v, status %v", err, p.running(), l.status())
	}
	leave()
	l.ser.saveErr = errors.New("no")
	if err := l.svc.Sleep(t.Context()); err == nil || !p.running() || l.status() != runtime.StatusRunning {
		t.Errorf("memory not saved: error %v, running %v, status %v", err, p.running(), l.status())
	}
	l.ser.saveErr = nil
	l.save(t)
	p.set(t, l.svc, "b", "2")
	// The store is saved, the files cannot be, once the program has ended: they stay and are not replaced by
	// the older ones that are saved.
	p.disk.capErr = errors.New("no")
	if err := l.svc.Sleep(t.Context()); err == nil || p.running() || l.status() != runtime.StatusAvailable {
		t.Fatalf("files not saved: error %v, running %v, status %v", err, p.running(), l.status())
	}
	if l.svc.Status().Parts[1].DirtySince.IsZero() {
		t.Error("what was not saved is not dirty")
	}
	p.disk.capErr = nil
	if err := l.svc.Wake(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := p.disk.all(); got["b"] != "2" {
		t.Errorf("files are %v", got)
	}
	l.wants(t, map[string]string{"a": "1", "b": "2"})
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

// Requests that come while a service is put to sleep are held, and then wake it.
func TestRequestDuringSleep(t *testing.T) {
	l, p := beginProgram(t, vfs.NewMem(), nil, nil)
	p.set(t, l.svc, "a", "1")
	var requests sync.WaitGroup
	stop := make(chan struct{})
	var served atomic.Int64
	for range 8 {
		requests.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				leave, err := l.svc.Enter(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				if !p.running() || p.memory.all()["a"] != "1" {
					t.Error("a request was let in while the service slept")
				}
				served.Add(1)
				leave()
			}
		})
	}
	for range 30 {
		if err := l.svc.Sleep(t.Context()); err != nil {
			t.Error(err)
		}
		n := served.Load()
		eventually(t, "served", func() bool { return served.Load() > n })
	}
	close(stop)
	requests.Wait()
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

func TestIdleServiceSleeps(t *testing.T) {
	l, p := beginProgram(t, vfs.NewMem(), nil, func(sc *runtime.ServiceConfig) { sc.Idle = runtime.MinIdle })
	for range 2 {
		p.set(t, l.svc, "a", "1")
		eventually(t, "asleep", func() bool { return l.svc.Status().Asleep })
		if p.running() {
			t.Fatal("asleep, and its program runs")
		}
	}
	leave, err := l.svc.Enter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l.wants(t, map[string]string{"a": "1"})
	time.Sleep(3 * runtime.MinIdle)
	if !p.running() {
		t.Error("put to sleep under a request")
	}
	leave()
	for range 10 {
		time.Sleep(runtime.MinIdle / 4)
		l.svc.Activity()
	}
	if l.svc.Status().Asleep {
		t.Error("put to sleep while it was in use")
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

// A service in this process gives its memory back when it sleeps.
func TestSleepInProcess(t *testing.T) {
	l := begin(t, vfs.NewMem(), nil)
	l.table.put("a", "1")
	if err := l.svc.Sleep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st := l.svc.Status(); !st.Asleep || len(l.table.all()) != 0 || !st.Parts[0].DirtySince.IsZero() {
		t.Fatalf("asleep: %+v, state %v", st, l.table.all())
	}
	l.enterOnce(t)
	l.wants(t, map[string]string{"a": "1"})
	l.table.put("b", "2")
	if err := l.svc.Sleep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.svc.Wake(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.wants(t, map[string]string{"a": "1", "b": "2"})
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

func (l *life) enterOnce(t *testing.T) {
	t.Helper()
	leave, err := l.svc.Enter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	leave()
}

func TestSleepIsRefused(t *testing.T) {
	l := begin(t, vfs.NewMem(), func(_ *life, cfg *runtime.Config) { cfg.Services[0].External = true })
	if err := l.svc.Sleep(t.Context()); !errors.Is(err, runtime.ErrExternal) {
		t.Errorf("external: %v", err)
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}

	// A state that MANUAL loading has not loaded must not be replaced by falling asleep.
	fsys := vfs.NewMem()
	l = begin(t, fsys, nil)
	l.table.put("a", "1")
	l.save(t)
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
	l, p := beginProgram(t, fsys, nil, func(sc *runtime.ServiceConfig) { sc.Load = runtime.LoadManual })
	p.set(t, l.svc, "b", "2")
	if err := l.svc.Sleep(t.Context()); err == nil || !p.running() {
		t.Errorf("unread state: %v, running %v", err, p.running())
	}
	if found, err := l.svc.Load(t.Context()); err != nil || !found {
		t.Fatal(found, err)
	}
	l.wants(t, map[string]string{"a": "1"})
	if err := l.svc.Sleep(t.Context()); err != nil {
		t.Error(err)
	}
	l.enterOnce(t) // though loading is MANUAL
	l.wants(t, map[string]string{"a": "1"})
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}

	cfg := runtime.Config{Logger: slog.New(slog.DiscardHandler), Services: []runtime.ServiceConfig{{Name: "svc", Process: &program{}}}}
	rt, err := runtime.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	svc, _ := rt.Service("svc")
	if err := svc.Sleep(t.Context()); err == nil {
		t.Error("put to sleep without persistence")
	}
	if err := svc.Wake(t.Context()); err != nil {
		t.Error(err)
	}
	if err := rt.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLoadAndResetOfAProgram(t *testing.T) {
	files := newTable()
	l, p := beginProgram(t, vfs.NewMem(), files, nil)
	if found, err := l.svc.Load(t.Context()); err != nil || found || p.running() {
		t.Errorf("nothing saved: %v, %v, running %v", found, err, p.running())
	}
	p.set(t, l.svc, "a", "1")
	l.save(t)
	p.set(t, l.svc, "b", "2")
	if found, err := l.svc.Load(t.Context()); err != nil || !found {
		t.Fatal(found, err)
	}
	l.wants(t, map[string]string{"a": "1"})
	if got := files.all(); !maps.Equal(got, map[string]string{"a": "1"}) {
		t.Errorf("files are %v", got)
	}
	// Files that cannot be given back leave the service as it was, and running.
	p.set(t, l.svc, "b", "2")
	l.ser.loadErr = errors.New("no")
	if _, err := l.svc.Load(t.Context()); err == nil || !p.running() || l.status() != runtime.StatusRunning {
		t.Errorf("load failed: %v, running %v, status %v", err, p.running(), l.status())
	}
	if files.all()["b"] != "2" {
		t.Errorf("files are %v", files.all())
	}
	l.ser.loadErr = nil
	if err := l.svc.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.wants(t, map[string]string{})
	if got := files.all(); len(got) != 0 || !p.running() {
		t.Errorf("reset: files are %v, running %v", got, p.running())
	}
	if g := l.part().Generation; g != 2 {
		t.Errorf("reset saved generation %d", g)
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

// Sync waits for what the service writes late, and saves whatever the strategy is.
func TestSyncWithLag(t *testing.T) {
	const lag = 300 * time.Millisecond
	files := newTable()
	var late atomic.Bool
	l, p := beginProgram(t, vfs.NewMem(), files, func(sc *runtime.ServiceConfig) {
		sc.Parts = sc.Parts[1:]
		sc.Parts[0].Lag = lag
		sc.Save = runtime.SaveManual
	})
	p.disk = nil // written late, by the test
	leave, err := l.svc.Enter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(lag/3, func() { files.write("late", "1"); late.Store(true) })
	l.svc.Changed()
	leave()
	gens, err := l.svc.Sync(t.Context())
	if err != nil || len(gens) != 1 || gens[0].Part != "assets" || gens[0].Generation != 1 || gens[0].SavedAt.IsZero() {
		t.Fatalf("sync: %+v, %v", gens, err)
	}
	if !late.Load() || l.seen.saves[0].Records != 1 {
		t.Errorf("sync came back before the service had written: %d records", l.seen.saves[0].Records)
	}
	if again, err := l.svc.Sync(t.Context()); err != nil || again[0] != gens[0] {
		t.Errorf("sync of nothing new: %+v, %v", again, err)
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

// A scheduled save that came before the service had written keeps the part dirty.
func TestScheduledSaveWithLag(t *testing.T) {
	files := newTable()
	l, p := beginProgram(t, vfs.NewMem(), files, func(sc *runtime.ServiceConfig) {
		sc.Parts = sc.Parts[1:]
		sc.Parts[0].Lag = 800 * time.Millisecond
		sc.Save, sc.FlushInterval = runtime.SaveScheduled, runtime.MinFlushInterval
	})
	p.disk = nil
	leave, err := l.svc.Enter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l.svc.Changed()
	leave()
	saves := func() []runtime.SaveEvent {
		l.seen.mu.Lock()
		defer l.seen.mu.Unlock()
		return l.seen.saves
	}
	eventually(t, "saved", func() bool { return len(saves()) > 0 })
	if saves()[0].Records != 0 {
		t.Fatal("the test is too late")
	}
	files.write("late", "1")
	eventually(t, "saved wholly, and clean", func() bool {
		all := saves()
		return all[len(all)-1].Records == 1 && l.part().DirtySince.IsZero()
	})
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

// Services whose requests do not pass through the runtime are asked.
func TestChangesAreAskedFor(t *testing.T) {
	var changed atomic.Int64
	l, p := beginProgram(t, vfs.NewMem(), nil, func(sc *runtime.ServiceConfig) {
		sc.Changes = func(context.Context) (bool, error) {
			if changed.Load() < 0 {
				return false, errors.New("no answer")
			}
			return changed.Swap(0) > 0, nil
		}
	})
	if _, err := l.svc.Sync(t.Context()); err != nil || len(l.seen.saves) != 0 {
		t.Fatalf("sync of what never ran: %v, %d saves", err, len(l.seen.saves))
	}
	l.enterOnce(t)
	p.memory.write("a", "1")
	changed.Store(1)
	for _, want := range []uint64{1, 1} {
		gens, err := l.svc.Sync(t.Context())
		if err != nil || gens[0].Generation != want {
			t.Fatalf("sync: %+v, %v", gens, err)
		}
	}
	changed.Store(-1)
	if gens, err := l.svc.Sync(t.Context()); err != nil || gens[0].Generation != 2 {
		t.Errorf("what cannot be asked counts as changed: %+v, %v", gens, err)
	}
	changed.Store(1)
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
	if n := len(l.seen.saves); n != 3 {
		t.Errorf("%d saves", n)
	}
}

// The runtime can be closed while a program starts, and a request that waits is told.
func TestCloseDuringWake(t *testing.T) {
	l, p := beginProgram(t, vfs.NewMem(), nil, nil)
	p.ready = make(chan struct{})
	got := make(chan error, 1)
	go func() { got <- l.svc.Wake(context.Background()) }()
	eventually(t, "starting", func() bool { return l.status() == runtime.StatusStarting })
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err == nil || p.running() {
		t.Errorf("error %v, running %v", err, p.running())
	}
	l.svc.ProcessExited(errors.New("late"))
	if err := l.svc.Wake(t.Context()); err == nil {
		t.Error("woken after the end")
	}
}

// breaking is a table whose restore fails as a broken connection does: the program has died, and the news of it
// comes later.
type breaking struct {
	online
	fail func() // nil: not any more
}

func (b *breaking) Restore(ctx context.Context, native io.Reader) error {
	if fail := b.fail; fail != nil {
		b.fail = nil
		fail()
		return errors.New("connection reset by peer")
	}
	return b.online.Restore(ctx, native)
}

// A broken connection is there before the news of the process's end: that is waited for, so that the service is
// not taken for one whose state cannot be loaded.
func TestProgramDiesInRestoreAndTheNewsIsLate(t *testing.T) {
	fsys := vfs.NewMem()
	l, p := beginProgram(t, fsys, nil, nil)
	p.set(t, l.svc, "a", "1")
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
	for _, load := range []bool{false, true} {
		var b *breaking
		l, p = beginProgram(t, fsys, nil, func(sc *runtime.ServiceConfig) {
			o, _ := sc.Parts[0].Source.(online)
			b = &breaking{online: o}
			sc.Parts[0].Source = b
		})
		svc := l.svc
		if load {
			if err := svc.Wake(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := svc.Sleep(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		b.fail = func() {
			p.die()
			time.AfterFunc(50*time.Millisecond, func() { svc.ProcessExited(errors.New("ended with SIGSEGV")) })
		}
		var err error
		if load {
			_, err = svc.Load(t.Context())
		} else {
			err = svc.Wake(t.Context())
		}
		if !errors.Is(err, runtime.ErrProcess) || !strings.Contains(err.Error(), "SIGSEGV") || l.status() != runtime.StatusAvailable {
			t.Fatalf("load %v: error %v, status %v", load, err, l.status())
		}
		if err := svc.Wake(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.wants(t, map[string]string{"a": "1"})
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	}
}

// What was acknowledged and is lost makes a barrier fail until somebody accepts it.
func TestSyncAfterALoss(t *testing.T) {
	l, p := beginProgram(t, vfs.NewMem(), nil, nil)
	p.set(t, l.svc, "a", "1")
	for _, accept := range []func() error{
		func() error { return l.svc.Save(t.Context()) },
		func() error { _, err := l.svc.Load(t.Context()); return err },
		func() error { return l.svc.Reset(t.Context()) },
	} {
		if _, err := l.svc.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.set(t, l.svc, "b", "2")
		l.kill(p)
		l.runsAgain(t)
		for range 2 {
			if _, err := l.svc.Sync(t.Context()); !errors.Is(err, runtime.ErrLost) {
				t.Fatalf("sync after a loss: %v", err)
			}
		}
		if err := l.part().Err; !errors.Is(err, runtime.ErrLost) {
			t.Errorf("the part's last error is %v", err)
		}
		if err := accept(); err != nil {
			t.Fatal(err)
		}
		if err := l.part().Err; err != nil {
			t.Errorf("the part's last error is %v", err)
		}
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

// What a program left in its files when it died is kept, unless it is no state.
func TestTornFilesAreReplaced(t *testing.T) {
	files := newTable()
	l, p := beginProgram(t, vfs.NewMem(), files, nil)
	p.set(t, l.svc, "a", "1")
	l.save(t)
	p.set(t, l.svc, "b", "2")
	files.mu.Lock()
	files.capErr = fmt.Errorf("it ends in the middle: %w", abi.ErrCorrupt)
	files.mu.Unlock()
	p.onStart = func() {
		files.mu.Lock()
		defer files.mu.Unlock()
		files.capErr = nil
	}
	l.kill(p)
	l.runsAgain(t)
	if got := files.all(); !maps.Equal(got, map[string]string{"a": "1"}) {
		t.Errorf("files are %v", got)
	}
	if _, err := l.svc.Sync(t.Context()); !errors.Is(err, runtime.ErrLost) {
		t.Errorf("sync after a loss: %v", err)
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

// dying is a table whose program dies while it is captured.
type dying struct {
	online
	die func() // nil: not any more
}

func (d *dying) Capture(ctx context.Context) (runtime.Capture, error) {
	if die := d.die; die != nil {
		d.die = nil
		die()
		return nil, errors.New("unexpected EOF")
	}
	return d.online.Capture(ctx)
}

// What was not saved is lost, and told so, however late the news of the end is, and whatever was under way.
func TestProgramDiesInCapture(t *testing.T) {
	for name, do := range map[string]func(*runtime.Service) error{
		"save":  func(s *runtime.Service) error { return s.Save(context.Background()) },
		"sleep": func(s *runtime.Service) error { return s.Sleep(context.Background()) },
		"reset": func(s *runtime.Service) error { return s.Reset(context.Background()) },
	} {
		for _, late := range []time.Duration{0, 30 * time.Millisecond} {
			var d *dying
			files := newTable()
			l, p := beginProgram(t, vfs.NewMem(), files, func(sc *runtime.ServiceConfig) {
				o, _ := sc.Parts[0].Source.(online)
				d = &dying{online: o}
				sc.Parts[0].Source = d
			})
			svc := l.svc
			p.set(t, svc, "a", "1")
			l.save(t)
			p.set(t, svc, "b", "2")
			news := func() { svc.ProcessExited(errors.New("ended with SIGKILL")) }
			d.die = func() {
				p.die()
				if late == 0 {
					news()
				}
			}
			if err := do(svc); err == nil {
				t.Errorf("%s: no error", name)
			}
			if late > 0 {
				time.Sleep(late)
				news()
			}
			if name == "reset" {
				if err := svc.Wake(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			l.runsAgain(t)
			l.wants(t, map[string]string{"a": "1"})
			want := map[string]string{"a": "1", "b": "2"}
			if name == "reset" { // it was told to go wholly or not at all
				want = map[string]string{"a": "1"}
			} else if _, err := svc.Sync(t.Context()); !errors.Is(err, runtime.ErrLost) {
				t.Errorf("%s, news after %v: sync says %v", name, late, err)
			}
			if got := files.all(); !maps.Equal(got, want) {
				t.Errorf("%s, news after %v: files are %v, want %v", name, late, got, want)
			}
			if err := l.end(t); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A program that writes late, and nothing at its end, is given the time it needs before it is stopped.
func TestStopWaitsForTheLag(t *testing.T) {
	const lag = 300 * time.Millisecond
	for name, stop := range map[string]func(*life) error{
		"sleep": func(l *life) error { return l.svc.Sleep(context.Background()) },
		"close": func(l *life) error { return l.Close(context.Background()) },
	} {
		files := newTable()
		l, p := beginProgram(t, vfs.NewMem(), files, func(sc *runtime.ServiceConfig) {
			sc.Parts = sc.Parts[1:]
			sc.Parts[0].Lag = lag
		})
		disk := p.disk
		p.disk = nil
		l.enterOnce(t)
		time.AfterFunc(lag/3, func() {
			if p.running() {
				disk.write("late", "1")
			}
		})
		l.svc.Changed()
		if err := stop(l); err != nil {
			t.Fatal(err)
		}
		l.seen.mu.Lock()
		saves := l.seen.saves
		l.seen.mu.Unlock()
		if len(saves) == 0 || saves[len(saves)-1].Records != 1 {
			t.Errorf("%s: what was written late is not saved: %+v", name, saves)
		}
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	}
}

// tripped is files whose restore is disturbed: once, before anything is replaced.
type tripped struct {
	*disk
	trip func() error // nil: not any more
}

func (d *tripped) Restore(ctx context.Context, native io.Reader) error {
	if trip := d.trip; trip != nil {
		d.trip = nil
		if err := trip(); err != nil {
			return err
		}
	}
	return d.disk.Restore(ctx, native)
}

func beginTripped(t *testing.T, fsys vfs.FS, change func(*runtime.ServiceConfig)) (*life, *program, *tripped) {
	t.Helper()
	var d *tripped
	l, p := beginProgram(t, fsys, newTable(), func(sc *runtime.ServiceConfig) {
		files, _ := sc.Parts[1].Source.(*disk)
		d = &tripped{disk: files}
		sc.Parts[1].Source = d
		if change != nil {
			change(sc)
		}
	})
	return l, p, d
}

// A load for which the program was stopped, and which then fails, leaves no empty memory to be saved over what is
// saved, and no program whose end nobody notices.
func TestLoadThatFailsAfterTheStop(t *testing.T) {
	l, p, d := beginTripped(t, vfs.NewMem(), nil)
	p.set(t, l.svc, "a", "1")
	l.save(t)
	p.set(t, l.svc, "b", "2")
	d.trip = func() error { return errors.New("the disk is full") }
	if _, err := l.svc.Load(t.Context()); err == nil || !p.running() || l.status() != runtime.StatusRunning {
		t.Fatalf("error %v, running %v, status %v", err, p.running(), l.status())
	}
	l.wants(t, map[string]string{"a": "1"})
	if got := d.all(); got["b"] != "2" {
		t.Errorf("files are %v", got)
	}
	if _, err := l.svc.Sync(t.Context()); !errors.Is(err, runtime.ErrLost) {
		t.Errorf("b was in memory, was not saved and is gone; sync says %v", err)
	}
	n := p.starts.Load()
	l.kill(p)
	eventually(t, "started again", func() bool { return p.starts.Load() > n && l.status() == runtime.StatusRunning })
	l.wants(t, map[string]string{"a": "1"})
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

// Whoever asked for a load may go: a service that sleeps is not one whose state cannot be loaded, and files that are
// newer than what is saved stay.
func TestLoadThatIsCancelled(t *testing.T) {
	for name, asleep := range map[string]bool{"asleep": true, "awake": false} {
		l, p, d := beginTripped(t, vfs.NewMem(), nil)
		p.set(t, l.svc, "a", "1")
		l.save(t)
		if asleep {
			if err := l.svc.Sleep(t.Context()); err != nil {
				t.Fatal(err)
			}
		} else {
			p.set(t, l.svc, "b", "2")
		}
		ctx, cancel := context.WithCancel(t.Context())
		d.trip = func() error { cancel(); return context.Cause(ctx) }
		if _, err := l.svc.Load(ctx); !errors.Is(err, context.Canceled) {
			t.Fatalf("%s: %v", name, err)
		}
		if err := l.svc.Wake(t.Context()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := d.all(); !asleep && got["b"] != "2" {
			t.Errorf("%s: what was acknowledged is gone, without a word: %v", name, got)
		}
		l.wants(t, map[string]string{"a": "1"})
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	}
}

// A program that dies while it is given its state back is given it when it is started again, however states are
// loaded.
func TestProgramDiesInLoadWithManualLoading(t *testing.T) {
	var b *breaking
	l, p := beginProgram(t, vfs.NewMem(), nil, func(sc *runtime.ServiceConfig) {
		sc.Load = runtime.LoadManual
		o, _ := sc.Parts[0].Source.(online)
		b = &breaking{online: o}
		sc.Parts[0].Source = b
	})
	p.set(t, l.svc, "a", "1")
	l.save(t)
	b.fail = func() {
		p.die()
		l.svc.ProcessExited(errors.New("ended with SIGSEGV"))
	}
	if _, err := l.svc.Load(t.Context()); !errors.Is(err, runtime.ErrProcess) {
		t.Fatal(err)
	}
	p.set(t, l.svc, "b", "2")
	l.wants(t, map[string]string{"a": "1", "b": "2"})
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

// hurried is a program that is killed when whoever waits for its end goes.
type hurried struct {
	*program
	onStop func()
	killed atomic.Bool
}

func (h *hurried) Stop(ctx context.Context) error {
	h.onStop()
	if ctx.Err() != nil && h.running() {
		h.killed.Store(true)
		h.die()
		return nil
	}
	return h.program.Stop(ctx)
}

// A program that is being put to sleep may take its time, though whoever asked for it goes, or the runtime ends.
func TestStopIsNotHurried(t *testing.T) {
	for _, closes := range []bool{false, true} {
		var h *hurried
		files := newTable()
		l, p := beginProgram(t, vfs.NewMem(), files, func(sc *runtime.ServiceConfig) {
			p, _ := sc.Process.(*program)
			h = &hurried{program: p}
			sc.Process = h
			if closes {
				sc.Idle = runtime.MinIdle
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		closing := make(chan error, 1)
		var once sync.Once
		h.onStop = func() {
			once.Do(func() {
				if !closes {
					cancel()
					return
				}
				go func() { closing <- l.Close(context.Background()) }()
				time.Sleep(50 * time.Millisecond)
			})
		}
		p.set(t, l.svc, "a", "1")
		if closes {
			if err := <-closing; err != nil {
				t.Fatal(err)
			}
		} else {
			if err := l.svc.Sleep(ctx); err != nil {
				t.Errorf("stopped, and not saved: %v", err)
			}
		}
		cancel()
		if h.killed.Load() || files.all()["stopped"] == "" {
			t.Errorf("close %v: the program was killed while it wrote", closes)
		}
		if st := l.svc.Status().Parts[1]; !st.DirtySince.IsZero() || st.Generation == 0 {
			t.Errorf("close %v: not saved: %+v", closes, st)
		}
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	}
}

// Where the files of one part are torn, those of all are replaced, and what all lose is told.
func TestTornFilesOfSeveralParts(t *testing.T) {
	more := newTable()
	files := newTable()
	l, p := beginProgram(t, vfs.NewMem(), files, func(sc *runtime.ServiceConfig) {
		part := sc.Parts[1]
		part.Name, part.Source, part.Dirty = "more", offlineTable{more}, &more.dirty
		sc.Parts = append(sc.Parts, part)
	})
	p.set(t, l.svc, "a", "1")
	more.write("a", "1")
	l.save(t)
	p.set(t, l.svc, "b", "2")
	more.write("b", "2")
	l.save(t)
	more.write("c", "3")
	more.dirty.Mark()
	files.mu.Lock()
	files.capErr = fmt.Errorf("it ends in the middle: %w", abi.ErrCorrupt)
	files.mu.Unlock()
	p.onStart = func() {
		files.mu.Lock()
		defer files.mu.Unlock()
		files.capErr = nil
	}
	l.kill(p)
	l.runsAgain(t)
	if got := more.all(); !maps.Equal(got, map[string]string{"a": "1", "b": "2"}) {
		t.Errorf("files are %v", got)
	}
	if err := l.svc.Status().Parts[2].Err; !errors.Is(err, runtime.ErrLost) {
		t.Errorf("c is gone, and the part says %v", err)
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

type offlineTable struct{ *table }

func (offlineTable) Offline() bool { return true }

// A program that was put to sleep, and left what is no state, does not have to start from that.
func TestTornFilesOfASleeper(t *testing.T) {
	files := newTable()
	l, p := beginProgram(t, vfs.NewMem(), files, nil)
	p.set(t, l.svc, "a", "1")
	l.save(t)
	p.set(t, l.svc, "b", "2")
	files.mu.Lock()
	files.capErr = fmt.Errorf("it ends in the middle: %w", abi.ErrCorrupt)
	files.mu.Unlock()
	if err := l.svc.Sleep(t.Context()); err == nil {
		t.Fatal("no error")
	}
	p.onStart = func() {
		files.mu.Lock()
		defer files.mu.Unlock()
		files.capErr = nil
	}
	if err := l.svc.Wake(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := files.all(); !maps.Equal(got, map[string]string{"a": "1"}) {
		t.Errorf("files are %v", got)
	}
	if _, err := l.svc.Sync(t.Context()); !errors.Is(err, runtime.ErrLost) {
		t.Errorf("sync after a loss: %v", err)
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

// A save that had nothing to save has saved nothing over on purpose.
func TestSaveOfNothingKeepsWhatIsUnread(t *testing.T) {
	fsys := vfs.NewMem()
	l := begin(t, fsys, nil)
	l.table.put("a", "1")
	l.save(t)
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
	l = begin(t, fsys, func(_ *life, cfg *runtime.Config) {
		cfg.Services[0].Load, cfg.Services[0].Save = runtime.LoadManual, runtime.SaveOnShutdown
	})
	l.save(t)
	l.table.put("b", "2")
	if _, err := l.svc.Sync(t.Context()); err == nil {
		t.Error("what is saved was replaced, though nobody has loaded it")
	}
	if err := l.end(t); err == nil {
		t.Error("what is saved was replaced at the end")
	}
}

// A load under way when the runtime closes leaves no program running.
func TestCloseDuringLoad(t *testing.T) {
	for _, save := range runtime.SaveStrategies() {
		l, p, d := beginTripped(t, vfs.NewMem(), func(sc *runtime.ServiceConfig) { sc.Save = save })
		p.set(t, l.svc, "a", "1")
		l.save(t)
		closed := make(chan error, 1)
		d.trip = func() error {
			go func() { closed <- l.Close(context.Background()) }()
			time.Sleep(50 * time.Millisecond)
			return nil
		}
		_, _ = l.svc.Load(t.Context())
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if p.running() {
			t.Errorf("%s: it runs on after the runtime's end", save)
		}
		if err := l.dir.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// What was captured before the service may have written it, and is lost with its program, is told.
func TestEarlySaveAndADeath(t *testing.T) {
	const lag = 2 * time.Second
	for _, name := range []string{"store", "assets"} {
		l, p := beginProgram(t, vfs.NewMem(), newTable(), func(sc *runtime.ServiceConfig) {
			sc.Save, sc.FlushInterval = runtime.SaveScheduled, runtime.MinFlushInterval
			for i := range sc.Parts {
				if sc.Parts[i].Name == name {
					sc.Parts[i].Lag = lag
				}
			}
		})
		svc := l.svc
		l.ser.pause = func() { // while it is saved
			p.die()
			svc.ProcessExited(errors.New("ended with SIGKILL"))
		}
		p.set(t, svc, "a", "1")
		eventually(t, "saved", func() bool { return svc.Status().Parts[1].Generation > 0 })
		l.runsAgain(t)
		if _, err := svc.Sync(t.Context()); !errors.Is(err, runtime.ErrLost) {
			t.Errorf("%s: a may be lost, and sync says %v", name, err)
		}
		if err := l.svc.Save(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := l.end(t); err != nil {
			t.Fatal(err)
		}
	}
}

// A change that is told when the program that took it has died already is lost, and told so.
func TestChangeToldAfterTheDeath(t *testing.T) {
	l, p := beginProgram(t, vfs.NewMem(), nil, nil)
	p.set(t, l.svc, "a", "1")
	l.save(t)
	leave, err := l.svc.Enter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.memory.write("b", "2")
	p.ready = make(chan struct{})
	p.mu.Unlock()
	l.kill(p)
	l.svc.Changed() // the answer was on its way
	leave()
	close(p.ready)
	l.runsAgain(t)
	if _, err := l.svc.Sync(t.Context()); !errors.Is(err, runtime.ErrLost) {
		t.Errorf("sync says %v", err)
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

// Whether something has changed is told once: who asks at the same time must not take the other's answer for no.
func TestChangesAskedAtOnce(t *testing.T) {
	asked := make(chan struct{})
	var changed atomic.Bool
	var calls atomic.Int64
	l, p := beginProgram(t, vfs.NewMem(), nil, func(sc *runtime.ServiceConfig) {
		sc.Changes = func(context.Context) (bool, error) {
			told := changed.Swap(false)
			if calls.Add(1) == 1 {
				close(asked)
				time.Sleep(100 * time.Millisecond)
			}
			return told, nil
		}
	})
	l.enterOnce(t)
	p.memory.write("a", "1")
	changed.Store(true)
	first := make(chan error, 1)
	go func() { _, err := l.svc.Sync(t.Context()); first <- err }()
	<-asked
	parts, err := l.svc.Sync(t.Context())
	if err != nil || parts[0].Generation == 0 {
		t.Errorf("sync says %v, %v, and nothing is saved", parts, err)
	}
	if err := <-first; err != nil {
		t.Error(err)
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

// stuck is a table whose restore waits for the end of its context.
type stuck struct {
	online
	waits chan struct{}
}

func (s *stuck) Restore(ctx context.Context, native io.Reader) error {
	if w := s.waits; w != nil {
		s.waits = nil
		close(w)
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return s.online.Restore(ctx, native)
}

// What a dead program left in its files is saved at the end, though it was being woken.
func TestCloseDuringTheRestoreAfterADeath(t *testing.T) {
	fsys := vfs.NewMem()
	var s *stuck
	l, p := beginProgram(t, fsys, newTable(), func(sc *runtime.ServiceConfig) {
		o, _ := sc.Parts[0].Source.(online)
		s = &stuck{online: o}
		sc.Parts[0].Source = s
	})
	p.set(t, l.svc, "a", "1")
	l.save(t)
	p.disk.write("b", "2")
	p.disk.dirty.Mark()
	waits := make(chan struct{})
	s.waits = waits
	l.kill(p)
	<-waits
	if err := l.end(t); err != nil {
		t.Error(err)
	}
	files := newTable()
	l, _ = beginProgram(t, fsys, files, nil)
	l.enterOnce(t)
	if got := files.all(); got["b"] != "2" {
		t.Errorf("files are %v", got)
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

// A program that dies while it is given the time to write late, before it is put to sleep, may not have written all:
// that is told, and it is started again.
func TestDeathBeforeSleep(t *testing.T) {
	l, p := beginProgram(t, vfs.NewMem(), newTable(), func(sc *runtime.ServiceConfig) {
		sc.Parts = sc.Parts[1:]
		sc.Parts[0].Lag = 500 * time.Millisecond
	})
	for _, cancelled := range []bool{false, true} {
		p.set(t, l.svc, "a", "1")
		ctx, cancel := context.WithCancel(t.Context())
		slept := make(chan error, 1)
		go func() { slept <- l.svc.Sleep(ctx) }()
		eventually(t, "on its way", func() bool { return l.status() == runtime.StatusStopping })
		l.kill(p)
		if cancelled {
			cancel()
		}
		if err := <-slept; err == nil {
			t.Error("no error")
		}
		cancel()
		eventually(t, "running again", func() bool { return l.status() == runtime.StatusRunning && p.running() })
		if _, err := l.svc.Sync(t.Context()); !errors.Is(err, runtime.ErrLost) {
			t.Errorf("sync says %v", err)
		}
		l.save(t)
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

// dated is a disk that knows when it was written.
type dated struct {
	*disk
	at time.Time
}

func (d *dated) Modified(context.Context) (time.Time, error) {
	if len(d.all()) == 0 {
		return time.Time{}, nil
	}
	return d.at, nil
}

// TestNewerFilesStay: what a killed runtime, or a person, left in a service's files is not replaced by what is older.
func TestNewerFilesStay(t *testing.T) {
	for name, c := range map[string]struct {
		after  time.Duration // the files were changed so long after the save
		torn   error
		memory bool // the service keeps something in memory, too
		want   string
	}{
		"newer":                {after: time.Second, want: "2"},
		"older":                {after: -time.Second, want: "1"},
		"newer and torn":       {after: time.Second, torn: fmt.Errorf("it ends in the middle: %w", abi.ErrCorrupt), want: "1"},
		"newer, one of two":    {after: time.Second, memory: true, want: "1"},
		"newer, nothing there": {want: "1"},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := vfs.NewMem()
			d := &dated{}
			life := func(files *table) (*life, *program) {
				return beginProgram(t, fsys, files, func(sc *runtime.ServiceConfig) {
					o, _ := sc.Parts[1].Source.(*disk)
					d.disk = o
					sc.Parts[1].Source = d
					if !c.memory {
						sc.Parts = sc.Parts[1:]
					}
				})
			}
			files := newTable()
			l, p := life(files)
			p.set(t, l.svc, "a", "1")
			l.save(t)
			parts := l.svc.Status().Parts
			saved := parts[len(parts)-1].SavedAt
			if err := l.dir.Close(); err != nil { // kill -9
				t.Fatal(err)
			}
			defer func() { _ = l.Close(t.Context()) }()

			again := newTable()
			if c.after != 0 {
				again.write("a", "2")
				d.at = saved.Add(c.after)
			}
			again.capErr = c.torn
			l2, p2 := life(again)
			if err := l2.svc.Wake(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := again.all()["a"]; got != c.want {
				t.Errorf("files have %q, want %q", got, c.want)
			}
			again.capErr = nil
			parts = l2.svc.Status().Parts
			if dirty := !parts[len(parts)-1].DirtySince.IsZero(); dirty != (c.want == "2") {
				t.Errorf("dirty %v", dirty)
			}
			if err := l2.end(t); err != nil {
				t.Fatal(err)
			}
			_ = p2
		})
	}
}

// TestNothingWhereTheStateShouldBe: a source that never finds anything of a service that changes is told of.
func TestNothingWhereTheStateShouldBe(t *testing.T) {
	d := &dated{at: time.Now()}
	l, p := beginProgram(t, vfs.NewMem(), newTable(), func(sc *runtime.ServiceConfig) {
		d.disk, _ = sc.Parts[1].Source.(*disk)
		sc.Parts[1].Source = d
		sc.Parts = sc.Parts[1:]
	})
	p.disk = nil // the service writes elsewhere
	l.enterOnce(t)
	for _, want := range []bool{true, false, false} {
		l.svc.Changed()
		l.save(t)
		if err := l.part().Err; (err != nil) != want {
			t.Errorf("the part's last error is %v, want one %v", err, want)
		}
		if want {
			d.write("a", "1")
		} else {
			_ = d.table.Reset(t.Context()) // emptied on purpose
		}
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

// TestFailedResetOfNewerFiles: what a program makes anew after half a reset is newer than what is saved, and is not kept
// for it.
func TestFailedResetOfNewerFiles(t *testing.T) {
	d := &dated{}
	files := newTable()
	l, p := beginProgram(t, vfs.NewMem(), files, func(sc *runtime.ServiceConfig) {
		d.disk, _ = sc.Parts[1].Source.(*disk)
		sc.Parts[1].Source = d
		sc.Parts = sc.Parts[1:]
	})
	p.set(t, l.svc, "a", "1")
	l.save(t)
	d.at = time.Now().Add(time.Hour)
	p.onStart = func() { files.write("example", "of the program") }
	l.ser.saveErr = errors.New("no")
	if err := l.svc.Reset(t.Context()); err == nil || p.running() {
		t.Fatalf("reset: %v, running %v", err, p.running())
	}
	l.ser.saveErr = nil
	p.onStart = nil
	if got := files.all(); got["example"] == "" {
		t.Fatalf("the program has made nothing: %v", got)
	}
	if err := l.svc.Wake(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := files.all(); !maps.Equal(got, map[string]string{"a": "1"}) {
		t.Errorf("files are %v", got)
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
}

// TestFilesOfAnExternalService: nobody could stop it while they are replaced.
func TestFilesOfAnExternalService(t *testing.T) {
	for load, want := range map[runtime.LoadStrategy]bool{runtime.LoadOnRequest: false, runtime.LoadOnStartup: false, runtime.LoadManual: true} {
		dir, err := statedir.Open(vfs.NewMem(), statedir.Options{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		d := &disk{table: newTable(), program: &program{}}
		rt, err := runtime.New(runtime.Config{Dir: dir, Logger: slog.New(slog.DiscardHandler), Services: []runtime.ServiceConfig{{Name: "svc", External: true, Load: load,
			Parts: []runtime.PartConfig{{Name: "store", Serializer: newPassThrough(), Source: d, Dirty: &d.dirty}}}}})
		if (err == nil) != want {
			t.Errorf("%s: error %v", load, err)
		}
		if err == nil {
			_ = rt.Close(t.Context())
		}
		_ = dir.Close()
	}
}
