package fuel

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// code is WebAssembly instructions.
type code = []byte

func seq(parts ...code) code { return slices.Concat(parts...) }

func con32(v int64) code       { return appendInt(code{opI32Const}, v) }
func con64(v int64) code       { return appendInt(code{opI64Const}, v) }
func get(local int) code       { return appendUint(code{opLocalGet}, uint64(local)) }
func set(local int) code       { return appendUint(code{opLocalSet}, uint64(local)) }
func call(f int) code          { return appendUint(code{opCall}, uint64(f)) }
func callTable(t int) code     { return append(appendUint(code{opCallIndirect}, uint64(t)), 0) }
func br(label int) code        { return appendUint(code{opBr}, uint64(label)) }
func brIf(label int) code      { return appendUint(code{opBrIf}, uint64(label)) }
func scope(parts ...code) code { return seq(code{opBlock, typeEmpty}, seq(parts...), code{opEnd}) }
func loop(parts ...code) code  { return seq(code{opLoop, typeEmpty}, seq(parts...), code{opEnd}) }
func when(yes code, no code) code {
	return seq(code{opIf, typeEmpty}, yes, code{opElse}, no, code{opEnd})
}
func misc(op byte, imm ...byte) code { return append(code{opMisc, op}, imm...) }

const (
	f32  = 0x7d
	f64  = 0x7c
	v128 = 0x7b
	fref = 0x70
	xref = 0x6f
)

// fn is a function of a test module; it is exported under its name.
type fn struct {
	name            string
	params, results []byte
	locals          []byte
	body            code
}

// testModule builds a module of functions that has one of everything they may need: two pages of memory,
// a table of 16 functions and one of 8 references, two globals, a passive data and element segment, and
// an active element segment with all functions. Function i is of type i; after these come types.
func testModule(fns []fn, types ...[2][]byte) []byte {
	vec := func(items ...[]byte) []byte { return append(appendUint(nil, uint64(len(items))), seq(items...)...) }
	bytes := func(b []byte) []byte { return append(appendUint(nil, uint64(len(b))), b...) }
	var sections [14][][]byte
	kind := func(params, results []byte) {
		sections[sectionType] = append(sections[sectionType], seq([]byte{typeFunction}, bytes(params), bytes(results)))
	}
	indices := []byte(nil)
	for i, f := range fns {
		kind(f.params, f.results)
		index := appendUint(nil, uint64(i))
		indices = append(indices, index...)
		sections[sectionFunction] = append(sections[sectionFunction], index)
		if f.name != "" {
			sections[sectionExport] = append(sections[sectionExport], seq(bytes([]byte(f.name)), []byte{kindFunction}, index))
		}
		var locals [][]byte
		for _, l := range f.locals {
			locals = append(locals, []byte{1, l})
		}
		sections[sectionCode] = append(sections[sectionCode], bytes(seq(vec(locals...), f.body, []byte{opEnd})))
	}
	for _, t := range types {
		kind(t[0], t[1])
	}
	count := appendUint(nil, uint64(len(fns)))
	sections[sectionTable] = [][]byte{{fref, 1, 16, 32}, {xref, 1, 8, 24}}
	sections[sectionMemory] = [][]byte{{1, 2, 8}}
	sections[sectionGlobal] = [][]byte{{typeI32, 1, opI32Const, 60, opEnd}, {typeI64, 1, opI64Const, 9, opEnd}}
	sections[sectionExport] = append(sections[sectionExport], seq(bytes([]byte("memory")), []byte{kindMemory, 0}))
	sections[sectionElement] = [][]byte{
		seq([]byte{0, opI32Const, 0, opEnd}, count, indices),
		seq([]byte{1, 0}, count, indices),
		seq([]byte{5, xref, 1, opRefNull, xref, opEnd}),
	}
	sections[sectionData] = [][]byte{seq([]byte{1}, bytes([]byte("some passive data of a segment")))}
	out := []byte("\x00asm\x01\x00\x00\x00")
	for _, id := range []byte{sectionType, sectionFunction, sectionTable, sectionMemory, sectionGlobal, sectionExport, sectionElement, sectionDataCount, sectionCode, sectionData} {
		if id == sectionDataCount {
			out = appendSection(out, id, []byte{1})
		} else {
			out = appendSection(out, id, vec(sections[id]...))
		}
	}
	return out
}

// running is an instance of a test module.
type running struct {
	api.Module
	counter api.MutableGlobal // nil without one
}

func start(t testing.TB, e engine, wasm []byte) running {
	t.Helper()
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, e.config())
	t.Cleanup(func() { rt.Close(ctx) })
	m, err := rt.InstantiateWithConfig(ctx, wasm, wazero.NewModuleConfig().WithStartFunctions())
	if err != nil {
		t.Fatal(err)
	}
	r := running{Module: m}
	if g := m.ExportedGlobal(DefaultExport); g != nil {
		r.counter = g.(api.MutableGlobal)
	}
	return r
}

// run calls a function with fuel, and gives what came of it and how much was used.
func (r running) run(name string, fuel int64, args ...uint64) (result string, used int64) {
	if r.counter != nil {
		r.counter.Set(uint64(fuel))
	}
	f := r.ExportedFunction(name)
	results, err := f.Call(context.Background(), args...)
	result = outcome(f, results, err)
	if r.counter != nil {
		used = fuel - int64(r.counter.Get())
	}
	return result, used
}

// state is what a module's memory holds.
func (r running) state() string {
	b, _ := r.Memory().Read(0, r.Memory().Size())
	return string(b)
}

// plenty is more fuel than anything takes here.
const plenty = math.MaxInt64 / 2
