package host_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/modules"
)

const stateAt = 0x200 // where the guests below put what they tell

// keepers are guests that keep something: tell leaves it at stateAt, in four bytes; change changes it.
var keepers = map[string]struct {
	reusable bool
	build    func(g *guest)
	tell     code
	change   code
}{
	"memory":  {true, nil, nil, seq(constI32(stateAt), constI32(1), storeI32)},
	"an i32":  {true, global(i32, constI32(7)), seq(constI32(stateAt), getGlobal(0), storeI32), seq(constI32(8), setGlobal(0))},
	"an i64":  {true, global(i64, constI64(-1)), seq(constI32(stateAt), getGlobal(0), wrap, storeI32), seq(constI64(8), setGlobal(0))},
	"an f32":  {true, global(f32, code{0x43, 1, 0, 0xc0, 0x7f}), seq(constI32(stateAt), getGlobal(0), code{0xbc}, storeI32), seq(code{0x43, 0, 0, 0, 0}, setGlobal(0))},
	"an f64":  {true, global(f64, code{0x44, 1, 0, 0, 0, 0, 0, 0xf8, 0x7f}), seq(constI32(stateAt), getGlobal(0), code{0xbd}, wrap, storeI32), seq(code{0x44, 0, 0, 0, 0, 0, 0, 0, 0}, setGlobal(0))},
	"a v128":  {false, global(v128, append(code{0xfd, 12}, make([]byte, 16)...)), seq(constI32(stateAt), getGlobal(0), code{0xfd, 27, 3}, storeI32), seq(constI32(5), code{0xfd, 17}, setGlobal(0))},
	"a size":  {true, nil, seq(constI32(stateAt), sizeMemory, storeI32), seq(constI32(1), growMemory, drop)},
	"a table": {false, func(g *guest) { g.tables = [][]byte{table(2, 2)}; g.elements = declared }, seq(constI32(stateAt), constI32(1), getTable, isNull, storeI32), seq(constI32(1), constI32(0), getTable, setTable)},
	"a function": {false, func(g *guest) { global(funcRef, nullFunc)(g); g.tables = [][]byte{table(2, 2)}; g.elements = declared },
		seq(constI32(stateAt), getGlobal(0), isNull, storeI32), seq(constI32(0), getTable, setGlobal(0))},
	"a table's size": {false, func(g *guest) { g.tables = [][]byte{table(2, 20)} },
		seq(constI32(stateAt), code{0xfc, 16, 0}, storeI32), seq(nullFunc, constI32(1), growTable, drop)},
	"a dropped segment": {false, func(g *guest) { g.passive = [][]byte{[]byte("data")} },
		seq(constI32(stateAt), constI32(0), constI32(4), code{0xfc, 8, 0, 0}), dropData},
	"a dropped element segment": {false, func(g *guest) { g.tables, g.elements = [][]byte{table(2, 2)}, [][]byte{{1, 0, 1, firstOwn}} },
		seq(constI32(0), constI32(0), constI32(1), code{0xfc, 12, 0, 0}), code{0xfc, 13, 0}},
}

// declared puts the guest's first own function into its table.
var declared = [][]byte{{0, 0x41, 0, 0x0b, 1, firstOwn}}

func global(kind byte, initial code) func(g *guest) {
	return func(g *guest) { g.globals = append(g.globals, variable(kind, initial)) }
}

// No call sees what another one left, whether or not they ran in the same instance and however the other
// one ended.
func TestCallsBeginAnew(t *testing.T) {
	good := oneRecord("k")
	failure := cborOf(abi.Failure{Msg: "m"})
	for name, k := range keepers {
		t.Run(name, func(t *testing.T) {
			g := newGuest().has(textAt, good).has(textAt+100, failure)
			if k.build != nil {
				k.build(g)
			}
			all := seq(k.tell, emitFrom(0, memoryBytes), k.change, drain, // all of memory as it began
				constI32(0), constI32(0x55), constI32(memoryBytes), fillMemory)
			g.does(abi.ExportLoad, all, constI32(0))
			g.does(abi.ExportInspect, all, unreachable)
			g.does(abi.ExportMigrate, k.change, failWith(abi.CodeInternal, textAt+100, len(failure)), constI32(1))
			g.does(abi.ExportSave, k.change, emitFrom(textAt, len(good)), drain, constI32(0))
			w := &watcher{}
			h := newHost(t, host.Config{Idle: 1, Observer: w, Limits: host.Limits{CallFuel: 100_000_000}})
			m := compile(t, h, g.bytes())
			if m.Shape().Reusable != k.reusable {
				t.Errorf("reusable: %v", m.Shape().Reusable)
			}
			var want []byte
			same := func(after string) {
				t.Helper()
				out, err := perform(t.Context(), m, abi.OpLoad, good)
				if err != nil {
					t.Fatalf("after %s: %v", after, err)
				}
				if want == nil {
					want = out
				}
				if !bytes.Equal(out, want) {
					t.Errorf("after %s: a call begins with something else: %x, not %x", after, out[stateAt:stateAt+8], want[stateAt:stateAt+8])
				}
			}
			same("nothing")
			same("a call")
			same("two calls")
			if _, err := perform(t.Context(), m, abi.OpInspect, good); err == nil {
				t.Error("no trap")
			}
			same("a trap")
			var ge *host.GuestError
			if _, err := perform(t.Context(), m, abi.OpMigrate, good); !errors.As(err, &ge) {
				t.Error(err)
			}
			same("a failure")
			if err := m.Save(t.Context(), abi.Call{}, bytes.NewReader(nil), sinkFunc(func(*record.Batch) error { panic("no room") })); err == nil {
				t.Error("no panic")
			}
			same("a panic of the sink")
			if err := m.Save(t.Context(), abi.Call{}, bytes.NewReader(nil), sinkFunc(func(*record.Batch) error { return io.ErrClosedPipe })); err != io.ErrClosedPipe {
				t.Error(err)
			}
			same("an error of the sink")
			ctx, cancel := context.WithCancel(t.Context())
			if err := m.Save(ctx, abi.Call{}, bytes.NewReader(nil), sinkFunc(func(*record.Batch) error { cancel(); return nil })); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			same("a cancelled call")
			// While one call is under way, and has changed what there is, others begin anew too.
			if err := m.Save(t.Context(), abi.Call{}, bytes.NewReader(nil), sinkFunc(func(*record.Batch) error { same("the beginning of another"); return nil })); err != nil {
				t.Error(err)
			}
			same("that one's end")
		})
	}
}

// What _initialize made is what each call begins with, clocks and random numbers included; where instances
// can be used again it runs once, else for each of them, and makes the same.
func TestInitializedOnce(t *testing.T) {
	var outs [][]byte
	for _, reusable := range []bool{true, false} {
		j := &journal{}
		h := newHost(t, host.Config{Logger: j.logger(), Idle: 1})
		g := newGuest().has(textAt, []byte("up"))
		g.memory = []byte{0, 1}
		clock, random := g.wasi("clock_time_get", i32, i64, i32), g.wasi("random_get", i32, i32)
		read := func(at int32) code {
			return seq(constI32(0), constI64(1), constI32(at), call(clock), drop, constI32(1), constI64(1), constI32(at+8), call(clock), drop,
				constI32(at+16), constI32(5), call(random), drop)
		}
		g.globals = [][]byte{variable(i32, constI32(1))}
		if !reusable {
			g.globals = append(g.globals, variable(funcRef, nullFunc))
		}
		g.initializes(read(stateAt), logFrom(abi.LogInfo, textAt, 2), constI32(3), setGlobal(0), constI32(1), growMemory, drop, constI32(1<<16+8), constI32(77), storeI32)
		g.does(abi.ExportLoad, read(stateAt+32), constI32(stateAt+64), getGlobal(0), storeI32, constI32(stateAt+68), sizeMemory, storeI32,
			emitFrom(0, 2<<16), drain, constI32(0))
		m := compile(t, h, g.bytes())
		if m.Shape().Reusable != reusable {
			t.Errorf("reusable: %v", !reusable)
		}
		for range 4 {
			out, err := perform(t.Context(), m, abi.OpLoad, nil)
			if err != nil {
				t.Fatal(err)
			}
			outs = append(outs, out)
		}
		want := 1
		if !reusable {
			want = 6 // to find whether it can, for describe, and for each call
		}
		if up := j.containing("serializer: up"); len(up) != want {
			t.Errorf("reusable %v: _initialize ran %d times", reusable, len(up))
		}
	}
	for i, out := range outs {
		if !bytes.Equal(out, outs[0]) {
			t.Errorf("call %d begins with something else", i)
		}
	}
	if first := outs[0]; first[stateAt+64] != 3 || first[stateAt+68] != 2 || first[1<<16+8] != 77 || !bytes.Equal(first[stateAt:stateAt+8], make([]byte, 8)) ||
		bytes.Equal(first[stateAt+16:stateAt+21], first[stateAt+48:stateAt+53]) {
		t.Errorf("% x", first[stateAt:stateAt+80])
	}
}

// images is how many instances there are that share a module's first memory.
func images(t *testing.T) int {
	t.Helper()
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skip("instances cannot be counted here")
	}
	return takeFootprint().images
}

// Idle bounds how many instances stay, and Close leaves none.
func TestIdle(t *testing.T) {
	before := images(t)
	files := takeFootprint().files
	const idle, calls = 2, 6
	h := newHost(t, host.Config{Idle: idle})
	m := compile(t, h, newGuest().bytes())
	if n := images(t) - before; n != 1 { // that of describe
		t.Errorf("%d instances after Compile", n)
	}
	release := make(chan struct{})
	var reading, ended sync.WaitGroup
	reading.Add(calls)
	for range calls {
		ended.Go(func() {
			first := true
			err := m.Save(context.Background(), abi.Call{}, readerFunc(func([]byte) (int, error) {
				if first {
					first = false
					reading.Done()
				}
				<-release
				return 0, io.EOF
			}), &collector{})
			if err != nil {
				t.Error(err)
			}
		})
	}
	reading.Wait()
	if n := images(t) - before; n != calls {
		t.Errorf("%d instances for %d calls", n, calls)
	}
	close(release)
	ended.Wait()
	if n := images(t) - before; n != idle {
		t.Errorf("%d instances stay, want %d", n, idle)
	}
	// One that grew, trapped or was ended does not come back.
	bad := compile(t, h, newGuest().does(abi.ExportSave, constI32(1), growMemory, drop, drain, constI32(0)).does(abi.ExportLoad, unreachable).bytes())
	for _, op := range []string{abi.OpSave, abi.OpLoad} {
		_, _ = perform(t.Context(), bad, op, nil)
		if n := images(t) - before; n != idle {
			t.Errorf("%d instances after %s", n, op)
		}
		if _, err := perform(t.Context(), bad, abi.OpInspect, nil); err != nil {
			t.Error(err)
		}
	}
	if err := h.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if f := takeFootprint(); f.images != before || f.files != files {
		t.Errorf("after Close %d instances and %d files, before %d and %d", f.images, f.files, before, files)
	}
}

// Calls bounds how many run at once.
func TestCalls(t *testing.T) {
	const calls, most = 12, 3
	h := newHost(t, host.Config{Calls: most})
	m := compile(t, h, newGuest().bytes())
	var now, highest atomic.Int64
	var ended sync.WaitGroup
	full := make(chan struct{})
	for range calls {
		ended.Go(func() {
			in := false
			err := m.Save(t.Context(), abi.Call{}, readerFunc(func([]byte) (int, error) {
				if !in {
					in = true
					n := now.Add(1)
					for {
						if old := highest.Load(); n <= old || highest.CompareAndSwap(old, n) {
							break
						}
					}
					if n == most {
						select {
						case <-full:
						default:
							close(full)
						}
					}
					<-full // until as many as may are there
					runtime.Gosched()
				}
				now.Add(-1)
				return 0, io.EOF
			}), &collector{})
			if err != nil {
				t.Error(err)
			}
		})
	}
	ended.Wait()
	if n := highest.Load(); n != most {
		t.Errorf("%d calls at once, want %d", n, most)
	}
}

// occupy begins a call that has a turn until release is closed.
func occupy(ctx context.Context, t *testing.T, m *host.Module) (release chan struct{}, ended chan error) {
	t.Helper()
	release, ended = make(chan struct{}), make(chan error, 1)
	in := make(chan struct{})
	go func() {
		ended <- m.Save(ctx, abi.Call{}, readerFunc(func([]byte) (int, error) {
			close(in)
			<-release
			return 0, io.EOF
		}), &collector{})
	}()
	<-in
	return release, ended
}

// A call that waits for its turn ends when its context does, or the host is closed.
func TestWaitingForATurn(t *testing.T) {
	w := &watcher{}
	h := newHost(t, host.Config{Calls: 1, Observer: w})
	m := compile(t, h, newGuest().bytes())
	release, ended := occupy(context.Background(), t, m)
	why := errors.New("the operator said stop")
	grouped := context.WithValue(t.Context(), abi.GroupKey{}, "g")
	for _, parent := range []context.Context{t.Context(), grouped} {
		ctx, cancel := context.WithCancelCause(parent)
		waiting := make(chan error, 1)
		go func() { waiting <- m.Save(ctx, abi.Call{}, endless{}, &collector{}) }()
		cancel(why)
		if err := within(t, "the call", func() error { return <-waiting }); !errors.Is(err, context.Canceled) || !errors.Is(err, why) {
			t.Error(err)
		}
		if c := w.last(); c.op != abi.OpSave || !errors.Is(c.cost.Err, why) || c.cost.Fuel != 0 || c.cost.Input != 0 {
			t.Errorf("%+v", c)
		}
	}
	// And an operator's Close.
	waiting := make(chan error, 2)
	for _, ctx := range []context.Context{context.Background(), context.WithValue(context.Background(), abi.GroupKey{}, "g")} {
		go func() { waiting <- m.Save(ctx, abi.Call{}, endless{}, &collector{}) }()
	}
	closed := make(chan error, 1)
	go func() { closed <- h.Close(context.Background()) }()
	for range 2 {
		if err := <-waiting; err == nil || !strings.Contains(err.Error(), "the module host is closed") {
			t.Error(err)
		}
	}
	close(release)
	<-ended
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// pipe is a sink and a source of records, one batch at a time.
type pipe struct {
	batches chan *record.Batch
	done    context.Context
}

func (p *pipe) WriteBatch(b *record.Batch) error {
	select {
	case p.batches <- b.Clone():
		return nil
	case <-p.done.Done():
		return p.done.Err()
	}
}

func (p *pipe) ReadBatch() (*record.Batch, error) {
	select {
	case b, more := <-p.batches:
		if !more {
			return nil, io.EOF
		}
		return b, nil
	case <-p.done.Done():
		return nil, p.done.Err()
	}
}

// Calls that wait for one another run though there is a turn for one only; and several such groups do, one
// after another.
func TestGroups(t *testing.T) {
	h := newHost(t, host.Config{Calls: 1, Idle: 1})
	m := compile(t, h, modules.Records())
	var groups sync.WaitGroup
	for g := range 4 {
		groups.Go(func() {
			ctx := context.WithValue(t.Context(), abi.GroupKey{}, g)
			data := mixedRecords(uint64(g), 200, 5000)
			call := abi.Call{Schema: 1, From: 1, To: 1}
			// load -> save -> migrate -> load
			native, toSave := io.Pipe()
			one, two := &pipe{make(chan *record.Batch), ctx}, &pipe{make(chan *record.Batch), ctx}
			var out bytes.Buffer
			errs := make([]error, 4)
			var calls sync.WaitGroup
			calls.Go(func() {
				errs[0] = m.Load(ctx, call, record.NewReader(bytes.NewReader(data), 0), toSave)
				toSave.CloseWithError(errs[0])
			})
			calls.Go(func() { errs[1] = m.Save(ctx, call, native, one); close(one.batches) })
			calls.Go(func() { errs[2] = m.Migrate(ctx, call, one, two); close(two.batches) })
			calls.Go(func() { errs[3] = m.Load(ctx, call, two, &out) })
			calls.Wait()
			if err := errors.Join(errs...); err != nil || !bytes.Equal(out.Bytes(), data) {
				t.Errorf("group %d: %d bytes of %d, %v", g, out.Len(), len(data), err)
			}
		})
	}
	if err := within(t, "a group", func() error { groups.Wait(); return nil }); err != nil {
		t.Error(err)
	}
	release, ended := occupy(t.Context(), t, m) // the turn has come back
	close(release)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A group whose first call is cancelled while it waits for all goes on waiting.
func TestGroupLosesItsFirstCall(t *testing.T) {
	for range 20 {
		h := newHost(t, host.Config{Calls: 1})
		m := compile(t, h, newGuest().bytes())
		release, ended := occupy(t.Context(), t, m)
		group := context.WithValue(t.Context(), abi.GroupKey{}, "group")
		const others = 3
		first, cancel := context.WithCancel(group)
		errs := make(chan error, others)
		cancelled := make(chan error, 1)
		go func() { cancelled <- m.Save(first, abi.Call{}, bytes.NewReader(nil), &collector{}) }()
		time.Sleep(2 * time.Millisecond) // mostly, it is the first
		for range others {
			go func() { errs <- m.Save(group, abi.Call{}, bytes.NewReader(nil), &collector{}) }()
		}
		time.Sleep(2 * time.Millisecond)
		cancel()
		if err := <-cancelled; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		close(release)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		for range others {
			if err := within(t, "the group", func() error { return <-errs }); err != nil {
				t.Errorf("another of the group: %v", err)
			}
		}
		if _, err := perform(t.Context(), m, abi.OpSave, nil); err != nil {
			t.Error(err)
		}
	}
}

// Each goroutine gets its own answer, however calls that succeed, fail, trap and are cancelled mix.
func TestPoolUnderLoad(t *testing.T) {
	before := takeFootprint()
	h := newHost(t, host.Config{Calls: 4, Idle: 2})
	failure := cborOf(abi.Failure{Msg: "m"})
	g := newGuest().has(textAt, failure)
	g.globals = [][]byte{variable(i64, constI64(0))}
	// Emits its input and the counter, which nothing but this call may have raised.
	g.does(abi.ExportLoad, echo(100, false), getGlobal(0), constI64(1), code{0x7c}, setGlobal(0),
		constI32(stateAt), getGlobal(0), storeI64, emitFrom(stateAt, 8), constI32(0))
	g.does(abi.ExportSave, constI64(1000), setGlobal(0), unreachable)
	g.does(abi.ExportMigrate, constI64(1000), setGlobal(0), failWith(1, textAt, len(failure)), constI32(1))
	m := compile(t, h, g.bytes())
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			data := bytes.Repeat(oneRecord(string(rune('a'+n))), n+1)
			want := append(slices.Clone(data), 1, 0, 0, 0, 0, 0, 0, 0)
			for i := range 30 {
				switch i % 4 {
				case 0:
					_, _ = perform(t.Context(), m, abi.OpSave, data)
				case 1:
					_, _ = perform(t.Context(), m, abi.OpMigrate, data)
				case 2:
					ctx, cancel := context.WithCancel(t.Context())
					go cancel()
					_, _ = perform(ctx, m, abi.OpLoad, data)
					cancel()
				}
				if out, err := perform(t.Context(), m, abi.OpLoad, data); err != nil || !bytes.Equal(out, want) {
					t.Errorf("%x, %v; want %x", out, err, want)
				}
			}
		})
	}
	wg.Wait()
	if f := takeFootprint(); f.images > before.images+2 {
		t.Errorf("%d instances stay", f.images-before.images)
	}
}

// With AsLeft, what a call leaves is there for the next: so a module that depends on it can be found out.
func TestAsLeft(t *testing.T) {
	g := newGuest().does(abi.ExportLoad, seq(constI32(textAt), constI32(textAt), loadI32, constI32(1), code{0x6a}, storeI32, emitFrom(textAt, 4), drain), constI32(0))
	wasm := g.bytes()
	for asLeft, want := range map[bool]string{false: "\x01\x00\x00\x00", true: "\x03\x00\x00\x00"} {
		m := compile(t, newHost(t, host.Config{AsLeft: asLeft}), wasm)
		var last []byte
		for range 3 {
			out, err := perform(t.Context(), m, abi.OpLoad, nil)
			if err != nil {
				t.Fatal(err)
			}
			last = out
		}
		if string(last) != want {
			t.Errorf("as left %v: %q", asLeft, last)
		}
	}
}

// With another Seed guests have other random numbers, each time the same ones.
func TestSeed(t *testing.T) {
	g, random := newGuest().importing("wasi_snapshot_preview1", "random_get", []byte{i32, i32}, []byte{i32})
	wasm := g.does(abi.ExportLoad, seq(constI32(textAt), constI32(32), call(random), drop, emitFrom(textAt, 32), drain), constI32(0)).bytes()
	seen := map[string]uint64{}
	for _, seed := range []uint64{0, 1, 1 << 60} {
		m := compile(t, newHost(t, host.Config{Seed: seed}), wasm)
		first, err := perform(t.Context(), m, abi.OpLoad, nil)
		again, errAgain := perform(t.Context(), m, abi.OpLoad, nil)
		if err != nil || errAgain != nil || !bytes.Equal(first, again) || bytes.Equal(first, make([]byte, 32)) {
			t.Errorf("seed %d: %x and %x, %v, %v", seed, first, again, err, errAgain)
		}
		if other, ok := seen[string(first)]; ok {
			t.Errorf("seeds %d and %d give the same", other, seed)
		}
		seen[string(first)] = seed
	}
}

// What data segments say is in memory when an instance begins, the first and all others, with each engine,
// whether instances can be used again or not and whoever writes it there.
func TestDataSegments(t *testing.T) {
	want := make([]byte, memoryBytes)
	begin := func() *guest {
		g := newGuest()
		for _, d := range []data{{0x2000, []byte("overwritten")}, {0x2004, []byte("in part")}, {0xfff8, []byte("across a page")}, {memoryBytes - 1, []byte("!")}, {memoryBytes, nil}} {
			g.has(d.at, d.bytes)
		}
		return g.does(abi.ExportLoad, emitFrom(0, memoryBytes), constI32(0x2000), constI32(77), constI32(memoryBytes-0x2000), fillMemory, drain, constI32(0))
	}
	for _, d := range begin().data {
		copy(want[d.at:], d.bytes)
	}
	for name, change := range map[string]func(g *guest){
		"plain":     func(*guest) {},
		"passive":   func(g *guest) { g.passive = [][]byte{[]byte("nowhere")} },
		"named":     func(g *guest) { g.passive = [][]byte{[]byte("nowhere")}; g.function("drop", dropData) },
		"not again": func(g *guest) { g.globals = [][]byte{variable(funcRef, nullFunc)} },
	} {
		for _, interpreted := range []bool{false, true} {
			g := begin()
			change(g)
			m := compile(t, newHost(t, host.Config{Interpreter: interpreted, Idle: 1}), g.bytes())
			depth := 0
			var load func()
			load = func() {
				var out bytes.Buffer
				err := m.Load(t.Context(), abi.Call{Schema: 1}, &chunks{}, writerFunc(func(p []byte) (int, error) {
					if depth++; depth < 3 { // in an instance that none has used
						load()
					}
					return out.Write(p)
				}))
				if err != nil || !bytes.Equal(out.Bytes(), want) {
					t.Errorf("%s, interpreted %v, call %d: memory is other than it should be, %v", name, interpreted, depth, err)
				}
			}
			for range 3 {
				depth = 0
				load()
			}
		}
	}
}
