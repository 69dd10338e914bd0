package host_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/modules"
)

// fuels is what calls of m over input used, by operation.
func fuels(t *testing.T, h *host.Host, w *watcher, wasm, input []byte) map[string]int64 {
	t.Helper()
	m := compile(t, h, wasm)
	used := map[string]int64{}
	for _, op := range allOps {
		if _, err := perform(t.Context(), m, op, input); err != nil {
			t.Fatal(err)
		}
		used[op] = w.last().cost.Fuel
	}
	return used
}

// What a call uses depends on the module and the input alone: not on the engine, the host, the instance,
// or what ran in it before.
func TestFuelIsTheSame(t *testing.T) {
	keeping := newGuest().does(abi.ExportSave, drain, constI32(0), setGlobal(0), constI32(0)).initializes(loop(get(2), constI32(1), add32, code{0x22, 2}, constI32(1000), ne32))
	keeping.globals = [][]byte{variable(i32, constI32(0)), variable(funcRef, nullFunc)}
	for name, c := range map[string]struct {
		wasm  []byte
		input []byte
	}{
		"records":   {modules.Records(), mixedRecords(7, 300, 3000)},
		"assembled": {newGuest().does(abi.ExportMigrate, echo(100, true), constI32(0)).bytes(), mixedRecords(8, 50, 500)},
		"keeping":   {keeping.bytes(), oneRecord("k")},
	} {
		t.Run(name, func(t *testing.T) {
			var want map[string]int64
			same := func(how string, got map[string]int64) {
				t.Helper()
				if want == nil {
					want = got
				}
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("%s: %v, want %v", how, got, want)
				}
			}
			w := &watcher{}
			h := newHost(t, host.Config{Observer: w, Idle: 1})
			same("first", fuels(t, h, w, c.wasm, c.input))
			same("in a used instance", fuels(t, h, w, c.wasm, c.input))
			// While a call holds the one idle instance, others get fresh ones.
			m := compile(t, h, c.wasm)
			err := m.Load(t.Context(), abi.Call{Schema: 1}, sourceFunc(func() (*record.Batch, error) {
				same("in a fresh instance", fuels(t, h, w, c.wasm, c.input))
				return record.NewReader(bytes.NewReader(nil), 0).ReadBatch()
			}), &bytes.Buffer{})
			if err != nil {
				t.Error(err)
			}
			// After a call that was broken off.
			if err := m.Save(t.Context(), abi.Call{Schema: 1}, readerFunc(func([]byte) (int, error) { return 0, context.Canceled }), &collector{}); err == nil {
				t.Error("a broken input")
			}
			same("after one that was broken off", fuels(t, h, w, c.wasm, c.input))

			w = &watcher{}
			same("in another host", fuels(t, newHost(t, host.Config{Observer: w, CacheDir: t.TempDir()}), w, c.wasm, c.input))
			w = &watcher{}
			same("in slices", fuels(t, newHost(t, host.Config{Observer: w, Limits: host.Limits{SliceFuel: host.MinSliceFuel}}), w, c.wasm, c.input))
			w = &watcher{}
			same("interpreted", fuels(t, newHost(t, host.Config{Observer: w, Interpreter: true}), w, c.wasm, c.input))
			w = &watcher{}
			more := fuels(t, newHost(t, host.Config{Observer: w}), w, c.wasm, append(bytes.Clone(c.input), c.input...))
			for op := range want {
				if name != "keeping" && (want[op] <= 0 || more[op] < want[op]) {
					t.Errorf("%s: %d units, of twice the input %d", op, want[op], more[op])
				}
			}
			if name == "records" && more[abi.OpSave] < want[abi.OpSave]*3/2 {
				t.Errorf("%v units, of twice the input %v", want, more)
			}
		})
	}
}

// Calls that run at once do not count one another's fuel.
func TestFuelOfConcurrentCalls(t *testing.T) {
	w := &watcher{}
	h := newHost(t, host.Config{Observer: w, Idle: 2})
	m := compile(t, h, modules.Records())
	input := mixedRecords(9, 100, 3000)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 3 {
				if _, err := perform(t.Context(), m, abi.OpSave, input); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, c := range w.called[1:] {
		if c.cost.Fuel != w.called[1].cost.Fuel {
			t.Errorf("%d units, and %d", c.cost.Fuel, w.called[1].cost.Fuel)
		}
	}
}

// Which limit ended a call is told apart, and so is where the guest was; the fuel told is that of the call.
func TestSpentFuel(t *testing.T) {
	g := newGuest()
	spin := g.function("spin", forever())
	wasm := g.does(abi.ExportSave, call(spin), constI32(0)).
		does(abi.ExportLoad, forever(constI32(0), constI32(0), call(arg), drop)).bytes()
	for _, interpreted := range []bool{false, true} {
		for _, c := range []struct {
			limits host.Limits
			op     string
			reason string
			fuel   int64
		}{
			{host.Limits{CallFuel: 1_000_000, SliceFuel: 1_000_000}, abi.OpSave, "(CallFuel)", 1_000_000},
			{host.Limits{CallFuel: 1_000_001, SliceFuel: 1_000_000}, abi.OpSave, "(SliceFuel)", 1_000_000},
			{host.Limits{CallFuel: 1_000_000, SliceFuel: 2_000_000}, abi.OpSave, "(CallFuel)", 1_000_000},
			{host.Limits{CallFuel: 3_000_000, SliceFuel: 1_000_000}, abi.OpLoad, "(CallFuel)", 3_000_000},
		} {
			w := &watcher{}
			h := newHost(t, host.Config{Limits: c.limits, Observer: w, Interpreter: interpreted})
			m := compile(t, h, wasm)
			var first string
			for range 2 {
				_, err := perform(t.Context(), m, c.op, nil)
				wantModuleError(t, err, c.op, abi.ErrTooLarge, c.reason)
				if first == "" {
					first = err.Error()
				}
				if got := w.last().cost.Fuel; got != c.fuel || err.Error() != first {
					t.Errorf("interpreted %v, %+v: %d units, %v", interpreted, c.limits, got, err)
				}
			}
		}
	}
}
