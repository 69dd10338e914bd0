package host_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/host/fuel"
)

// These tests run modules that mean harm, or act as if they did: each passes a limit, and none may crash,
// hang or bloat the host, or give out anything as if it were sound.

// everywhere is where a guest's code can run.
var everywhere = []string{abi.ExportInitialize, abi.ExportDescribe, abi.ExportSave, abi.ExportLoad, abi.ExportMigrate, abi.ExportInspect}

// in puts body at one of these places.
func (g *guest) in(export string, body ...code) *guest {
	if export == abi.ExportInitialize {
		return g.initializes(body...)
	}
	return g.does(export, seq(body...), unreachable)
}

// run compiles wasm and calls export if Compile did not. op is the operation that an error must tell.
func run(t *testing.T, h *host.Host, wasm []byte, export string, input []byte) (op string, err error) {
	t.Helper()
	switch export {
	case abi.ExportInitialize:
		_, err = h.Compile(t.Context(), guestName, wasm)
		return opCompile, err
	case abi.ExportDescribe:
		_, err = h.Compile(t.Context(), guestName, wasm)
		return abi.OpDescribe, err
	}
	op = strings.TrimPrefix(export, "torpor_")
	m := compile(t, h, wasm)
	_, err = perform(t.Context(), m, op, input)
	for _, other := range allOps { // the module is none the worse
		if other == op {
			continue
		}
		if _, err := perform(t.Context(), m, other, oneRecord("k")); err != nil {
			t.Errorf("%s after %s: %v", other, op, err)
		}
	}
	return op, err
}

// A guest that computes for ever and never comes back is ended, wherever it does so.
func TestEndlessLoops(t *testing.T) {
	for _, export := range everywhere {
		t.Run(export, func(t *testing.T) {
			g := newGuest()
			spin := g.function("spin", forever())
			wasm := g.in(export, call(spin)).bytes()
			slice := newHost(t, host.Config{Limits: host.Limits{SliceFuel: host.MinSliceFuel}})
			op, err := run(t, slice, wasm, export, oneRecord("k"))
			wantModuleError(t, err, op, abi.ErrTooLarge,
				"it did not come back to the host, in function spin: it computed for more than 1000000 units of fuel without a look of the host, which it takes at each 16th call at the latest (SliceFuel)")
			total := newHost(t, host.Config{Limits: host.Limits{CallFuel: host.MinCallFuel}})
			op, err = run(t, total, wasm, export, oneRecord("k"))
			wantModuleError(t, err, op, abi.ErrTooLarge, "it used up its fuel, in function spin: more than 1000000 units, the limit of a call (CallFuel)")
			leavesNothing(t, func() { run(t, slice, wasm, export, nil) })
		})
	}
}

// storms are guests that call the host for ever. Their bodies may use function indices of g.
var storms = map[string]func(g *guest) code{
	"next at its end": func(*guest) code {
		return seq(drain, forever(constI32(bufferAt), constI32(64), call(next), drop))
	},
	"emit of nothing":  func(*guest) code { return forever(emitFrom(0, 0)) },
	"arg without room": func(*guest) code { return forever(constI32(0), constI32(0), call(arg), drop) },
	"arg":              func(*guest) code { return forever(constI32(bufferAt), constI32(bufferCap), call(arg), drop) },
	"fail":             func(*guest) code { return forever(failWith(1, 0, 100)) },
	"log":              func(*guest) code { return forever(logFrom(abi.LogError, 0, 1024)) },
	"clock_time_get": func(g *guest) code {
		return forever(constI32(1), constI64(1), constI32(0), call(g.wasi("clock_time_get", i32, i64, i32)), drop)
	},
	"random_get": func(g *guest) code {
		return forever(constI32(0), constI32(8), call(g.wasi("random_get", i32, i32)), drop)
	},
	"random_get of all": func(g *guest) code {
		return forever(constI32(0), constI32(memoryBytes), call(g.wasi("random_get", i32, i32)), drop)
	},
	"fd_write": func(g *guest) code {
		g.has(64, []byte{0, 4, 0, 0, 100, 0, 0, 0})
		return forever(constI32(2), constI32(64), constI32(1), constI32(0), call(g.wasi("fd_write", i32, i32, i32, i32)), drop)
	},
	"fd_read": func(g *guest) code {
		return forever(constI32(0), constI32(64), constI32(1000), constI32(0), call(g.wasi("fd_read", i32, i32, i32, i32)), drop)
	},
	"poll_oneoff": func(g *guest) code {
		return forever(constI32(0), constI32(64), constI32(1), constI32(0), call(g.wasi("poll_oneoff", i32, i32, i32, i32)), drop)
	},
	"sched_yield": func(g *guest) code { return forever(call(g.wasi("sched_yield")), drop) },
}

// A guest that calls the host for ever is ended by its time, and by its fuel.
func TestCallStorms(t *testing.T) {
	for name, body := range storms {
		t.Run(name, func(t *testing.T) {
			g := newGuest()
			wasm := g.does(abi.ExportLoad, body(g)).bytes()
			late := newHost(t, host.Config{Limits: host.Limits{CallTime: host.MinCallTime}})
			op, err := run(t, late, wasm, abi.ExportLoad, nil)
			wantModuleError(t, err, op, abi.ErrTooLarge, "it ran for longer than 100ms")
			w := &watcher{}
			dry := newHost(t, host.Config{Limits: host.Limits{CallFuel: host.MinCallFuel}, Observer: w})
			m := compile(t, dry, wasm)
			for range 2 {
				_, err = perform(t.Context(), m, abi.OpLoad, nil)
				wantModuleError(t, err, op, abi.ErrTooLarge, "it used up its fuel, ")
				wantModuleError(t, err, op, abi.ErrTooLarge, "the limit of a call (CallFuel)")
				if c := w.last().cost; c.Fuel < host.MinCallFuel || c.Fuel > host.MinCallFuel+memoryBytes || c.Err != err {
					t.Errorf("cost %+v", c)
				}
			}
		})
	}
}

// A call storm in _initialize ends by fuel too.
func TestInitializeStorm(t *testing.T) {
	h := newHost(t, host.Config{Limits: host.Limits{CallFuel: host.MinCallFuel}})
	_, err := h.Compile(t.Context(), guestName, newGuest().initializes(forever(logFrom(abi.LogInfo, 0, 1))).bytes())
	wantModuleError(t, err, opCompile, abi.ErrTooLarge, "it used up its fuel, ")
}

// What took its fuel in slices is not ended by a slice: a guest that computes for long calls arg or log on
// its way.
func TestComingBackGrantsASlice(t *testing.T) {
	round := func(visit code) code { // some 700,000 units, then a visit; ten times
		return seq(constI32(10), set(2), loop(
			constI32(100_000), set(1), loop(get(1), constI32(1), sub32, code{0x22, 1}),
			visit,
			get(2), constI32(1), sub32, code{0x22, 2}))
	}
	for name, visit := range map[string]code{"arg": seq(constI32(0), constI32(0), call(arg), drop), "log": logFrom(abi.LogDebug, 0, 0)} {
		h := newHost(t, host.Config{Limits: host.Limits{SliceFuel: host.MinSliceFuel}})
		m := compile(t, h, newGuest().does(abi.ExportSave, drain, round(visit), constI32(0)).does(abi.ExportInspect, drain, round(nil), constI32(0)).bytes())
		if _, err := perform(t.Context(), m, abi.OpSave, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_, err := perform(t.Context(), m, abi.OpInspect, nil)
		wantModuleError(t, err, abi.OpInspect, abi.ErrTooLarge, "(SliceFuel)")
	}
}

func TestMemoryBombs(t *testing.T) {
	const limit = 32 << 20
	h := newHost(t, host.Config{Limits: host.Limits{MemoryBytes: limit, CallFuel: 10_000_000}})
	grow := loop(constI32(1), growMemory, constI32(-1), ne32)
	fill := seq(constI32(0), constI32(0xaa), constI32(limit), fillMemory)
	for name, c := range map[string]struct {
		body   code
		reason string // "" for none
	}{
		"grown for ever":             {forever(constI32(1), growMemory, drop), "(CallFuel)"},
		"grown at once, for ever":    {forever(constI32(math.MaxInt32), growMemory, drop), "(CallFuel)"},
		"grown, filled":              {seq(grow, fill, drain, constI32(0)), ""},
		"grown, filled, and trapped": {seq(grow, fill, unreachable), "trapped: wasm error: unreachable"},
		"filled for ever":            {seq(grow, forever(fill)), "(CallFuel)"},
		"filled past its end":        {seq(grow, constI32(1), constI32(0xaa), constI32(limit), fillMemory, unreachable), "out of bounds memory access"},
	} {
		t.Run(name, func(t *testing.T) {
			m := compile(t, h, newGuest().does(abi.ExportSave, c.body).bytes())
			leavesNothing(t, func() {
				_, err := perform(t.Context(), m, abi.OpSave, nil)
				if c.reason == "" && err != nil || c.reason != "" && (err == nil || !strings.Contains(err.Error(), c.reason)) {
					t.Errorf("%v, want %q", err, c.reason)
				}
				if out, err := perform(t.Context(), m, abi.OpLoad, nil); err != nil || len(out) > 0 {
					t.Errorf("the next call: %q, %v", out, err)
				}
			})
		})
	}
}

// A module that begins with much memory and keeps some of it filled costs that once, however many there
// are; and one whose data lies outside of it costs nothing.
func TestMemoryOfModules(t *testing.T) {
	h := newHost(t, host.Config{})
	leavesNothing(t, func() {
		for n := range 30 { // each would leave a mapping or two
			g := newGuest().has(memoryBytes-1, []byte{1, 2, byte(n)})
			_, err := h.Compile(t.Context(), guestName, g.bytes())
			wantModuleError(t, err, opCompile, nil, "cannot be instantiated")
		}
	})
	before := takeFootprint()
	for n := range 3 {
		g := newGuest().has(textAt, []byte{byte(n)})
		g.memory = append([]byte{0}, uleb128(200<<20/65536)...)
		m := compile(t, h, g.bytes())
		if _, err := perform(t.Context(), m, abi.OpSave, nil); err != nil {
			t.Error(err)
		}
	}
	if grown := takeFootprint().resident - before.resident; grown > 100<<20 {
		t.Errorf("three modules with 200 MiB of nothing each hold %d MiB", grown>>20)
	}
}

// table is a table of functions; most is -1 if it declares none.
func table(least, most int) []byte {
	if most < 0 {
		return append([]byte{funcRef, 0}, uleb128(uint64(least))...)
	}
	return slices.Concat([]byte{funcRef, 1}, uleb128(uint64(least)), uleb128(uint64(most)))
}

func TestTableBombs(t *testing.T) {
	grow := func(n int) code { return seq(nullFunc, constI32(int32(n)), growTable) }
	limits := host.Limits{TableElements: 1000, CallFuel: 10_000_000}
	for _, c := range []struct {
		name   string
		tables [][]byte
		grows  bool
		reason string // "" if it is taken
	}{
		{"one that begins at the limit", [][]byte{table(1000, -1)}, false, ""},
		{"one that begins above", [][]byte{table(1001, -1)}, false, "its tables begin with 1001 elements; the limit is 1000"},
		{"one that begins far above", [][]byte{table(math.MaxUint32, -1)}, false, "its tables begin with 4294967295 elements"},
		{"two that are too much together", [][]byte{table(600, -1), table(401, -1)}, false, "its tables begin with 1001 elements"},
		{"a maximum above that nothing reaches for", [][]byte{table(10, 100_000)}, false, ""},
		{"grown without a maximum", [][]byte{table(10, -1)}, true, "it can make a table grow that declares no maximum; the limit is 1000 elements"},
		{"grown, with another that has none", [][]byte{table(10, 20), table(10, -1)}, true, "declares no maximum"},
		{"grown above the limit", [][]byte{table(10, 1001)}, true, "its tables may grow to 1001 elements; the limit is 1000"},
		{"grown above the limit together", [][]byte{table(10, 500), table(10, 501)}, true, "its tables may grow to 1001 elements"},
		{"grown to the limit", [][]byte{table(10, 1000)}, true, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t, host.Config{Limits: limits})
			g := newGuest()
			g.tables = c.tables
			if c.grows { // 990 more are there; the rest is refused, and no harm
				g.does(abi.ExportSave, drain, grow(990), constI32(10), ne32, grow(1), constI32(-1), ne32, code{0x72}, grow(math.MaxInt32), constI32(-1), ne32, code{0x72})
				g.does(abi.ExportMigrate, forever(grow(1), drop))
			}
			m, err := h.Compile(t.Context(), guestName, g.bytes())
			if c.reason != "" {
				wantModuleError(t, err, opCompile, abi.ErrTooLarge, c.reason)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if _, err := perform(t.Context(), m, abi.OpSave, nil); err != nil {
					t.Error(err)
				}
			}
			if c.grows {
				_, err := perform(t.Context(), m, abi.OpMigrate, nil)
				wantModuleError(t, err, abi.OpMigrate, abi.ErrTooLarge, "(CallFuel)")
			}
		})
	}
}

func TestDeepRecursion(t *testing.T) {
	h := newHost(t, host.Config{})
	places := everywhere
	if testing.Short() {
		places = []string{abi.ExportInitialize, abi.ExportSave}
	}
	for _, export := range places {
		t.Run(export, func(t *testing.T) {
			g := newGuest()
			deep := len(g.imports)
			g.function("deep", call(deep), call(deep))
			wasm := g.in(export, call(deep)).bytes()
			leavesNothing(t, func() {
				op, err := run(t, h, wasm, export, nil)
				wantModuleError(t, err, op, nil, export+" trapped: stack overflow")
			})
		})
	}
}

func TestRecordLimit(t *testing.T) {
	two := append(oneRecord("a"), oneRecord("b")...)
	for name, body := range map[string]code{
		"one by one":   forever(emitFrom(textAt, len(two)/2)),
		"two at once":  forever(emitFrom(textAt, len(two))),
		"in fragments": forever(emitMore(textAt, 1), emitFrom(textAt+1, len(two)/2-1)),
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, host.Config{Limits: host.Limits{Records: 7}})
			g := newGuest().has(textAt, two).does(abi.ExportSave, drain, body)
			g.does(abi.ExportMigrate, drain, bytes.Repeat(emitFrom(textAt, len(two)/2), 7), constI32(0))
			g.does(abi.ExportLoad, drain, bytes.Repeat(emitFrom(textAt, len(two)), 7), constI32(0)) // no records
			m := compile(t, h, g.bytes())
			var sink collector
			err := m.Save(t.Context(), abi.Call{}, bytes.NewReader(nil), &sink)
			wantModuleError(t, err, abi.OpSave, abi.ErrTooLarge, "it emitted more than 7 records")
			if sink.records > 7 {
				t.Errorf("%d records came", sink.records)
			}
			for _, op := range []string{abi.OpMigrate, abi.OpLoad} {
				if _, err := perform(t.Context(), m, op, nil); err != nil {
					t.Errorf("%s: %v", op, err)
				}
			}
		})
	}
}

// However many records a guest emits at once, and however large one becomes in fragments, the host does not
// need many times the memory of the guest.
func TestEmittingCostsTheHostLittle(t *testing.T) {
	const size = 64 << 20
	h := newHost(t, host.Config{})
	smallest := []byte{0x83, 0x60, 0x60, 0xf6}
	// Doubles what there is until memory is full of it.
	full := seq(constI32(size/65536), growMemory, drop, constI32(int32(len(smallest))), set(1),
		loop(constI32(textAt), get(1), code{0x6a}, constI32(textAt), get(1), code{0xfc, 10, 0, 0},
			get(1), constI32(1), shl32, code{0x22, 1}, constI32(size/2), less32))
	g := newGuest().has(textAt, smallest)
	g.does(abi.ExportSave, drain, full, emitFrom(textAt, size/2), constI32(0))
	g.does(abi.ExportMigrate, drain, forever(emitMore(bufferAt, bufferCap)))
	m := compile(t, h, g.bytes())
	records := 0
	used := allocated(func() {
		if err := m.Save(t.Context(), abi.Call{}, bytes.NewReader(nil), sinkFunc(func(b *record.Batch) error { records += b.Len(); return nil })); err != nil {
			t.Error(err)
		}
	})
	if records != size/2/len(smallest) || used > 24<<20 {
		t.Errorf("%d records of %d cost the host %d MiB", records, size/2/len(smallest), used>>20)
	}
	leavesNothing(t, func() {
		used = allocated(func() {
			_, err := perform(t.Context(), m, abi.OpMigrate, nil)
			wantModuleError(t, err, abi.OpMigrate, abi.ErrTooLarge, "it emitted a record of more than 67108864 bytes")
		})
		if used > 8*64<<20 { // what is doubled while it grows
			t.Errorf("one record without end cost the host %d MiB", used>>20)
		}
	})
}

// Records that lie across the pieces in which the host looks at what is emitted come whole.
func TestRecordsOfOneEmit(t *testing.T) {
	data := mixedRecords(5, 4000, 3000)
	for _, large := range []int{0, 1 << 18, 1<<18 + 1, 3 << 20} {
		data = append(data, recordOf(large)...)
	}
	data = append(data, mixedRecords(6, 100, 1000)...)
	pages := len(data)/65536 + 2
	g := newGuest()
	g.memory = append([]byte{0}, uleb128(uint64(pages))...)
	// All input into memory, then all of it at once.
	all := seq(
		constI32(bufferAt), set(1),
		loop(get(1), constI32(int32(pages<<16-bufferAt)), get(1), sub32, constI32(bufferAt), add32, call(next), set(0),
			get(1), get(0), wrap, add32, set(1),
			get(0), constI64(abi.NextEnd), and64, eqz64),
		constI32(bufferAt), get(1), constI32(bufferAt), sub32)
	g.does(abi.ExportSave, all, constI32(0), call(emit), drop, constI32(0))
	m := compile(t, newHost(t, host.Config{}), g.bytes())
	want, i := batchOf(t, data), 0
	err := m.Save(t.Context(), abi.Call{}, bytes.NewReader(data), sinkFunc(func(b *record.Batch) error {
		for j := range b.Len() {
			if !bytes.Equal(b.Record(j), want.Record(i)) || !bytes.Equal(b.Value(j), want.Value(i)) {
				return fmt.Errorf("record %d differs", i)
			}
			i++
		}
		return nil
	}))
	if err != nil || i != want.Len() {
		t.Errorf("%d records of %d, %v", i, want.Len(), err)
	}
	for _, end := range []int{1, 100, 5000} { // the last record is not whole
		_, err := perform(t.Context(), m, abi.OpSave, data[:len(data)-end])
		wantModuleError(t, err, abi.OpSave, nil, fmt.Sprintf("what it emitted is no record, at offset %d of %[1]d bytes: the input ends inside the record that begins at offset ", len(data)-end))
	}
	bad := bytes.Clone(data)
	at := want.Refs[want.Len()-3].Start
	bad[at] = 0x84
	_, err = perform(t.Context(), m, abi.OpSave, bad)
	wantModuleError(t, err, abi.OpSave, nil, fmt.Sprintf("what it emitted is no record, at offset %d of %d bytes: a record is an array of three", at, len(data)))
}

// However much a guest logs, a few lines come, and one that says how many did not.
func TestLogFlood(t *testing.T) {
	const lines = 10_000
	j := &journal{}
	h := newHost(t, host.Config{Logger: j.logger(), Limits: host.Limits{LogLines: 3}})
	g := newGuest().has(64, []byte{0, 4, 0, 0, 0, 0, 1, 0}) // a vector of 64 KiB
	write := g.wasi("fd_write", i32, i32, i32, i32)
	flood := func(c code) code {
		return seq(constI32(lines/2), set(1), loop(c, get(1), constI32(1), sub32, code{0x22, 1}))
	}
	m := compile(t, h, g.does(abi.ExportSave, drain, flood(logFrom(abi.LogError, 0, memoryBytes)),
		flood(seq(constI32(2), constI32(64), constI32(1), constI32(0), call(write), drop)), constI32(0)).bytes())
	for range 2 {
		before := len(j.containing("serializer: "))
		if _, err := perform(t.Context(), m, abi.OpSave, nil); err != nil {
			t.Fatal(err)
		}
		got := j.containing("serializer: ")[before:]
		if len(got) != 3 || len(strings.Join(got, "")) > 3*(abi.MaxLogBytes*4+200) {
			t.Errorf("%d lines, %d bytes", len(got), len(strings.Join(got, "")))
		}
	}
	if dropped := j.containing("serializer log lines dropped"); len(dropped) != 2 || !strings.Contains(dropped[0], fmt.Sprint("dropped=", lines-3)) {
		t.Errorf("%q", dropped)
	}
}

const (
	wasiFault   = 21 // of WASI's error numbers
	wasiInvalid = 28
)

// What a guest gives WASI's functions may lie outside its memory; they say so, and touch nothing.
func TestWASIPointers(t *testing.T) {
	const outside, far, zero = memoryBytes - 3, -1, textAt
	n := constI32
	for _, c := range []struct {
		name   string
		params []byte
		args   []code
		want   uint32
	}{
		{"args_sizes_get", []byte{i32, i32}, []code{n(outside), n(zero)}, wasiFault},
		{"args_sizes_get", []byte{i32, i32}, []code{n(zero), n(far)}, wasiFault},
		{"args_get", []byte{i32, i32}, []code{n(far), n(far)}, 0}, // there are none to write
		{"environ_sizes_get", []byte{i32, i32}, []code{n(far), n(zero)}, wasiFault},
		{"environ_sizes_get", []byte{i32, i32}, []code{n(zero), n(outside)}, wasiFault},
		{"environ_get", []byte{i32, i32}, []code{n(far), n(far)}, 0},
		{"clock_time_get", []byte{i32, i64, i32}, []code{n(0), constI64(0), n(memoryBytes - 7)}, wasiFault},
		{"clock_time_get", []byte{i32, i64, i32}, []code{n(1), constI64(-1), n(far)}, wasiFault},
		{"clock_time_get", []byte{i32, i64, i32}, []code{n(2), constI64(0), n(zero)}, wasiInvalid},
		{"random_get", []byte{i32, i32}, []code{n(outside), n(4)}, wasiFault},
		{"random_get", []byte{i32, i32}, []code{n(1), n(far)}, wasiFault},
		{"random_get", []byte{i32, i32}, []code{n(memoryBytes), n(0)}, 0},
		{"fd_write", []byte{i32, i32, i32, i32}, []code{n(1), n(memoryBytes - 7), n(1), n(zero)}, wasiFault},
		{"fd_write", []byte{i32, i32, i32, i32}, []code{n(1), n(far), n(1024), n(zero)}, wasiFault},
		{"fd_write", []byte{i32, i32, i32, i32}, []code{n(1), n(0), n(1), n(outside)}, wasiFault},
		{"fd_write", []byte{i32, i32, i32, i32}, []code{n(2), n(16), n(1), n(zero)}, wasiFault}, // the vector's bytes
		{"fd_write", []byte{i32, i32, i32, i32}, []code{n(1), n(0), n(1025), n(zero)}, wasiInvalid},
		{"fd_write", []byte{i32, i32, i32, i32}, []code{n(1), n(0), n(far), n(zero)}, wasiInvalid},
		{"fd_read", []byte{i32, i32, i32, i32}, []code{n(0), n(memoryBytes - 7), n(1), n(zero)}, wasiFault},
		{"fd_read", []byte{i32, i32, i32, i32}, []code{n(0), n(0), n(1), n(far)}, wasiFault},
		{"fd_read", []byte{i32, i32, i32, i32}, []code{n(0), n(16), n(1), n(zero)}, wasiFault},
		{"fd_read", []byte{i32, i32, i32, i32}, []code{n(0), n(0), n(0x20000001), n(zero)}, wasiInvalid},
		{"fd_fdstat_get", []byte{i32, i32}, []code{n(0), n(memoryBytes - 23)}, wasiFault},
		{"fd_fdstat_get", []byte{i32, i32}, []code{n(1), n(far)}, wasiFault},
		{"fd_prestat_get", []byte{i32, i32}, []code{n(0), n(far)}, 8},
		{"fd_prestat_dir_name", []byte{i32, i32, i32}, []code{n(0), n(far), n(far)}, 8},
		{"fd_seek", []byte{i32, i64, i32, i32}, []code{n(0), constI64(-1), n(99), n(far)}, 70},
		{"poll_oneoff", []byte{i32, i32, i32, i32}, []code{n(memoryBytes - 47), n(0), n(1), n(zero)}, wasiFault},
		{"poll_oneoff", []byte{i32, i32, i32, i32}, []code{n(0), n(memoryBytes - 31), n(1), n(zero)}, wasiFault},
		{"poll_oneoff", []byte{i32, i32, i32, i32}, []code{n(0), n(0), n(1), n(outside)}, wasiFault},
		{"poll_oneoff", []byte{i32, i32, i32, i32}, []code{n(0), n(0), n(1025), n(zero)}, wasiInvalid},
		{"poll_oneoff", []byte{i32, i32, i32, i32}, []code{n(0), n(0), n(0), n(zero)}, wasiInvalid},
		{"poll_oneoff", []byte{i32, i32, i32, i32}, []code{n(0), n(0), n(far), n(zero)}, wasiInvalid},
	} {
		g := newGuest().has(16, []byte{0xff, 0xff, 1, 0, 2, 0, 0, 0}) // a vector of two bytes, the second outside
		f := g.wasi(c.name, c.params...)
		g.does(abi.ExportLoad, drain, n(textAt+64), seq(c.args...), call(f), storeI32, emitFrom(textAt+64, 4), constI32(0))
		out, err := perform(t.Context(), compile(t, newHost(t, host.Config{}), g.bytes()), abi.OpLoad, nil)
		if err != nil || binary.LittleEndian.Uint32(out) != c.want {
			t.Errorf("%s%x: %x, %v; want %d", c.name, c.args, out, err, c.want)
		}
	}
}

// Many vectors that name the same bytes make a line no longer than any, and more bytes than can be
// counted are refused.
func TestVectors(t *testing.T) {
	const vectors = 1024
	for _, c := range []struct{ pages, want int }{{2, 0}, {128, wasiInvalid}} {
		j := &journal{}
		h := newHost(t, host.Config{Logger: j.logger()})
		g := newGuest()
		g.memory = append([]byte{0}, uleb128(uint64(c.pages))...)
		size := uint32(c.pages << 16)
		g.has(textAt, bytes.Repeat(binary.LittleEndian.AppendUint32(make([]byte, 4), size), vectors))
		write, read := g.wasi("fd_write", i32, i32, i32, i32), g.wasi("fd_read", i32, i32, i32, i32)
		at := constI32(bufferAt)
		g.does(abi.ExportLoad, drain,
			at, constI32(1), constI32(textAt), constI32(vectors), constI32(bufferAt+4), call(write), storeI32,
			constI32(bufferAt+8), constI32(0), constI32(textAt), constI32(vectors), constI32(bufferAt+12), call(read), storeI32,
			emitFrom(bufferAt, 16), constI32(0))
		m := compile(t, h, g.bytes())
		var out []byte
		var err error
		if used := allocated(func() { out, err = perform(t.Context(), m, abi.OpLoad, nil) }); used > 4<<20 {
			t.Errorf("%d bytes allocated", used)
		}
		if err != nil {
			t.Fatal(err)
		}
		word := func(i int) uint32 { return binary.LittleEndian.Uint32(out[4*i:]) }
		written := uint32(0)
		if c.want == 0 {
			written = vectors * size
		}
		if word(0) != uint32(c.want) || word(1) != written || word(2) != 0 || word(3) != 0 {
			t.Errorf("%d pages: % x", c.pages, out)
		}
		if lines := j.containing("serializer: "); c.want == 0 && (len(lines) != 1 || len(lines[0]) > abi.MaxLogBytes*4+200) || c.want != 0 && len(lines) > 0 {
			t.Errorf("%d lines", len(lines))
		}
	}
}

// What a module announces costs no memory before it is there.
func TestAnnouncedSizes(t *testing.T) {
	wasm := newGuest().bytes()
	section := func(id byte, content ...[]byte) []byte {
		return append([]byte{id}, vector(slices.Concat(content...))...)
	}
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0x0f}
	many := func(n int, entry []byte) []byte { return append(uleb128(uint64(n)), bytes.Repeat(entry, n)...) }
	header := wasm[:8:8]
	zero := []byte{0x41, 0, 0x0b}
	custom := func(parts ...[]byte) []byte {
		return append(bytes.Clone(wasm), section(0, append([][]byte{vector([]byte("name"))}, parts...)...)...)
	}
	for _, c := range []struct {
		name     string
		wasm     []byte
		sentinel error
		reason   string
	}{
		{"100,001 types", append(header, section(1, many(100_001, []byte{0x60, 0, 0}))...), abi.ErrTooLarge, "the section at offset 8 has 100001 entries; the limit is 100000"},
		{"100,001 globals", append(header, section(6, many(100_001, slices.Concat([]byte{i32, 1}, zero)))...), abi.ErrTooLarge, "100001 entries"},
		{"100,001 exports", append(header, section(7, many(100_001, []byte{0, 0, 0}))...), abi.ErrTooLarge, "100001 entries"},
		{"100,001 element segments", append(header, section(9, many(100_001, slices.Concat([]byte{0}, zero, []byte{0})))...), abi.ErrTooLarge, "100001 entries"},
		{"100,001 data segments", append(header, section(11, many(100_001, []byte{1, 0}))...), abi.ErrTooLarge, "100001 entries"},
		{"a data segment of 4 GiB", append(header, section(11, []byte{1, 1}, huge)...), abi.ErrCorrupt, "is damaged"},
		{"an active data segment of 4 GiB", append(header, section(11, []byte{1, 0}, zero, huge)...), abi.ErrCorrupt, "is damaged"},
		{"data in memory 0, of 4 GiB", append(header, section(11, []byte{1, 2, 0}, zero, huge)...), abi.ErrCorrupt, "is damaged"},
		{"4 G elements", append(header, section(9, []byte{1, 0}, zero, huge)...), abi.ErrCorrupt, "is damaged"},
		{"4 G passive elements", append(header, section(9, []byte{1, 1, 0}, huge)...), abi.ErrCorrupt, "is damaged"},
		{"4 G elements of table 1", append(header, section(9, []byte{1, 2, 1}, zero, []byte{0}, huge)...), abi.ErrCorrupt, "is damaged"},
		{"4 G expressions", append(header, section(9, []byte{1, 4}, zero, huge)...), abi.ErrCorrupt, "is damaged"},
		{"4 G passive expressions", append(header, section(9, []byte{1, 5, funcRef}, huge)...), abi.ErrCorrupt, "is damaged"},
		{"4 G expressions of a typed reference", append(header, section(9, []byte{1, 7, 0x64, 0x70}, huge)...), abi.ErrCorrupt, "is damaged"},
		{"elements above the limit", append(header, section(9, []byte{1, 1, 0}, many(100_001, []byte{0}))...), abi.ErrTooLarge, "its element segments hold 100001 elements or more; the limit is that of tables, 100000"},
		{"elements above the limit, together", append(header, section(9, []byte{2, 1, 0}, many(100_000, []byte{0}), []byte{5, funcRef}, many(1, []byte{0xd0, funcRef, 0x0b}))...),
			abi.ErrTooLarge, "100001 elements"},
		{"4 G names of functions", custom([]byte{1}, vector(huge)), abi.ErrTooLarge, "more than 1000000 names"},
		{"4 G names of locals", custom([]byte{2}, vector(huge)), abi.ErrCorrupt, "name section is damaged"},
		{"4 G names of locals of one function", custom([]byte{2}, vector(append([]byte{1, 0}, huge...))), abi.ErrTooLarge, "more than 1000000 names"},
		{"a name of 4 GiB", custom([]byte{0}, vector(huge)), abi.ErrCorrupt, "name section is damaged"},
		{"a function's name of 4 GiB", custom([]byte{1}, vector(append([]byte{1, 0}, huge...))), abi.ErrCorrupt, "name section is damaged"},
		{"names behind the end of their part", custom([]byte{1, 1, 2}, []byte{0, 1, 'a', 1, 1, 'b'}), abi.ErrCorrupt, "name section is damaged"},
		{"too many names", custom([]byte{1}, vector(many(1_000_001, []byte{0, 0}))), abi.ErrTooLarge, "its name section has more than 1000000 names"},
		{"too many names of locals", custom([]byte{2}, vector(slices.Concat([]byte{2}, []byte{0}, many(600_000, []byte{0, 0}), []byte{1}, many(600_000, []byte{0, 0})))), abi.ErrTooLarge, "more than 1000000 names"},
		{"too many locals", newGuest().with(fn{locals: bytes.Repeat([]byte{i64}, fuel.MaxLocals+1)}).bytes(), abi.ErrTooLarge, fmt.Sprintf("locals: %d; the limit is %d", fuel.MaxLocals+1, fuel.MaxLocals)},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t, host.Config{})
			var err error
			used := allocated(func() { _, err = h.Compile(t.Context(), guestName, c.wasm) })
			wantModuleError(t, err, opCompile, c.sentinel, c.reason)
			if used > 8<<20+4*int64(len(c.wasm)) {
				t.Errorf("the host asks for %d MiB", used>>20)
			}
		})
	}
	// What is sound is none of it.
	g := newGuest()
	g.tables = [][]byte{table(10, -1), table(10, -1)}
	g.elements = [][]byte{
		slices.Concat([]byte{0}, zero, vectorOf([][]byte{{5}})),
		slices.Concat([]byte{1, 0}, vectorOf([][]byte{{5}, {6}})),
		slices.Concat([]byte{2, 1}, zero, []byte{0}, vectorOf([][]byte{{5}})),
		slices.Concat([]byte{3, 0}, vectorOf([][]byte{{7}})),
		slices.Concat([]byte{4}, zero, vectorOf([][]byte{{0xd2, 5, 0x0b}, {0xd0, funcRef, 0x0b}})),
		slices.Concat([]byte{5, funcRef}, vectorOf([][]byte{{0xd2, 5, 0x0b}})),
		slices.Concat([]byte{6, 1}, []byte{0x41}, leb128(3), []byte{0x0b}, []byte{funcRef}, vectorOf([][]byte{{0xd2, 5, 0x0b}})),
		slices.Concat([]byte{7, funcRef}, vectorOf([][]byte{{0xd2, 5, 0x0b}})),
	}
	g.passive = [][]byte{[]byte("passive"), nil}
	g.function("named", drain)
	compile(t, newHost(t, host.Config{}), g.bytes())
	compile(t, newHost(t, host.Config{}), custom([]byte{0}, vector(vector([]byte("module"))), []byte{1}, vector([]byte{1, 5, 1, 'f'}),
		[]byte{2}, vector([]byte{1, 5, 1, 0, 1, 'x'}), []byte{9}, vector([]byte("what is not known"))))
}

// with adds a function that nothing calls.
func (g *guest) with(f fn) *guest {
	g.funcs = append(g.funcs, f)
	return g
}

// What a module calls its functions comes out in messages, but not whole if it is a book.
func TestLongNames(t *testing.T) {
	name := strings.Repeat("n", 1<<20)
	g := newGuest()
	f := g.function(name, unreachable)
	j := &journal{}
	h := newHost(t, host.Config{Logger: j.logger()})
	m := compile(t, h, g.does(abi.ExportSave, call(f), constI32(0)).bytes())
	_, err := perform(t.Context(), m, abi.OpSave, nil)
	wantModuleError(t, err, abi.OpSave, nil, "torpor_save trapped: wasm error: unreachable, in function nnnnn")
	if len(err.Error()) > 500 || j.lines.Len() > 64<<10 {
		t.Errorf("a message of %d bytes, a log of %d", len(err.Error()), j.lines.Len())
	}
	for what, g := range map[string]*guest{
		"import":    importing(newGuest(), abi.Namespace, name),
		"namespace": importing(newGuest(), name, "f"),
		"export":    newGuest().with(fn{export: fuel.DefaultExport + "." + name}),
	} {
		if _, err := h.Compile(t.Context(), guestName, g.bytes()); err == nil || len(err.Error()) > 17<<10 {
			t.Errorf("%s: a message of %d bytes", what, len(fmt.Sprint(err)))
		}
	}
	// Nor can it break a line, or take the place of what follows.
	for name, want := range map[string]string{"a\x1b[31mb": "in function a [31mb", "f(i32": "in function f", "\n\t": "unreachable", "": "in function $5", "\xe2\x80\xae": "in function  "} {
		g := newGuest()
		f := g.function(name, unreachable)
		m := compile(t, h, g.does(abi.ExportSave, call(f), constI32(0)).bytes())
		_, err := perform(t.Context(), m, abi.OpSave, nil)
		wantModuleError(t, err, abi.OpSave, nil, want)
	}
}

func importing(g *guest, from, name string) *guest {
	g.importing(from, name, nil, nil)
	return g
}

// _initialize that says it failed has failed, whatever it returns and whether or not instances can be used
// again.
func TestInitializeFails(t *testing.T) {
	f := cborOf(abi.Failure{Msg: "not today"})
	for _, keeps := range []bool{false, true} {
		g := newGuest().has(textAt, f).initializes(failWith(abi.CodeInternal, textAt, len(f)))
		if keeps {
			g.globals = [][]byte{variable(funcRef, nullFunc)}
		}
		_, err := newHost(t, host.Config{}).Compile(t.Context(), guestName, g.bytes())
		var ge *host.GuestError
		if !errors.As(err, &ge) || ge.Op != opCompile || ge.Failure.Msg != "not today" {
			t.Errorf("keeps %v: %v", keeps, err)
		}
	}
}

// The end is looked for in what takes long without coming back to the guest.
func TestRandomGetOfMuch(t *testing.T) {
	const size = 512 << 20
	h := newHost(t, host.Config{Limits: host.Limits{MemoryBytes: size + memoryBytes}})
	g := newGuest()
	random := g.wasi("random_get", i32, i32)
	m := compile(t, h, g.does(abi.ExportSave, constI32(bufferAt), constI32(1), call(next), drop,
		constI32(size/65536), growMemory, drop, constI32(0), constI32(size), call(random)).bytes())
	ctx, cancel := context.WithCancel(t.Context())
	read := readerFunc(func(p []byte) (int, error) {
		time.AfterFunc(5*time.Millisecond, cancel)
		return 1, nil
	})
	if err := m.Save(ctx, abi.Call{}, read, &collector{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v; it went on to the end", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// recordOf is a record of about n bytes.
func recordOf(n int) []byte {
	return append(record.AppendBytesHead(record.AppendText(record.AppendText(record.AppendRecord(nil), "p"), "k"), n), make([]byte, n)...)
}

// References to functions take memory that nothing gives back: code that makes them is refused.
func TestReferencesToFunctions(t *testing.T) {
	g := newGuest().does(abi.ExportSave, forever(code{0xd2, firstOwn}, drop))
	g.tables, g.elements = [][]byte{table(2, 2)}, declared
	_, err := newHost(t, host.Config{}).Compile(t.Context(), guestName, g.bytes())
	wantModuleError(t, err, opCompile, nil, "its code makes references to functions (ref.func)")
}

// A memory too large to be noted begins anew all the same, and nothing of it stays when the call has ended.
func TestLargeMemoryIsNotKept(t *testing.T) {
	const pages = 65 << 4 // 65 MiB
	g := newGuest().initializes(constI32(pages), growMemory, drop).has(textAt, oneRecord("k")).
		does(abi.ExportSave, drain, emitFrom(textAt, len(oneRecord("k"))), constI32(0))
	m := compile(t, newHost(t, host.Config{}), g.bytes())
	if m.Shape().Reusable {
		t.Error("an instance with 65 MiB is kept")
	}
	for range 2 {
		if out, err := perform(t.Context(), m, abi.OpSave, nil); err != nil || !bytes.Equal(out, oneRecord("k")) {
			t.Errorf("%q, %v", out, err)
		}
	}
}
