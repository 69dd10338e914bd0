package host_test

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// This file assembles guests, instruction by instruction, in the binary format of the WebAssembly core
// specification (section 5), so that a test can hold a module that no compiler would write.

// Value types.
const (
	i32 = byte(0x7f)
	i64 = byte(0x7e)
	f32 = byte(0x7d)
	f64 = byte(0x7c)

	v128    = byte(0x7b)
	funcRef = byte(0x70)
)

// code is the body of a function, or a part of one.
type code []byte

func seq(parts ...code) code { return slices.Concat(parts...) }

// leb128 encodes a signed number, which for those below 64 is also the unsigned encoding.
func leb128(v int64) (b []byte) {
	for {
		low := byte(v & 0x7f)
		v >>= 7
		if v == 0 && low&0x40 == 0 || v == -1 && low&0x40 != 0 {
			return append(b, low)
		}
		b = append(b, low|0x80)
	}
}

func uleb128(v uint64) []byte { return binary.AppendUvarint(nil, v) }

func constI32(v int32) code { return append(code{0x41}, leb128(int64(v))...) }
func constI64(v int64) code { return append(code{0x42}, leb128(v)...) }
func call(f int) code       { return append(code{0x10}, uleb128(uint64(f))...) }
func get(local int) code    { return append(code{0x20}, uleb128(uint64(local))...) }
func set(local int) code    { return append(code{0x21}, uleb128(uint64(local))...) }
func getGlobal(n int) code  { return append(code{0x23}, uleb128(uint64(n))...) }
func setGlobal(n int) code  { return append(code{0x24}, uleb128(uint64(n))...) }

// loop runs body again and again for as long as it leaves something other than 0.
func loop(body ...code) code {
	return seq(code{0x03, 0x40}, seq(body...), code{0x0d, 0x00, 0x0b})
}

var (
	unreachable = code{0x00}
	drop        = code{0x1a}
	storeI32    = code{0x36, 2, 0} // address, value
	storeI64    = code{0x37, 0, 0}
	loadI32     = code{0x28, 2, 0}
	sizeMemory  = code{0x3f, 0}
	growMemory  = code{0x40, 0}
	ne32        = code{0x47}
	add32       = code{0x6a}
	divS32      = code{0x6d}
	eqz64       = code{0x50}
	and32       = code{0x71}
	and64       = code{0x83}
	shrU64      = code{0x88}
	wrap        = code{0xa7} // i64 to i32
	fillMemory  = code{0xfc, 11, 0}
	dropData    = code{0xfc, 9, 0} // of segment 0
	setTable    = code{0x26, 0}
	getTable    = code{0x25, 0}
	growTable   = code{0xfc, 15, 0}
	nullFunc    = code{0xd0, funcRef}
	isNull      = code{0xd1}
	sub32       = code{0x6b}
	less32      = code{0x49} // unsigned
	shl32       = code{0x74}
)

// fn is one function of a guest.
type fn struct {
	export  string // "" for none
	name    string // in the name section; "" for none
	params  []byte
	results []byte
	locals  []byte
	body    code
}

// imported is one import: a function if kind is 0.
type imported struct {
	from, name      string
	kind            byte
	params, results []byte
	desc            []byte // of other kinds
}

// data is what memory holds at the start.
type data struct {
	at    int
	bytes []byte
}

// guest is a module under construction.
type guest struct {
	imports  []imported
	types    [][]byte // more than the functions need
	tables   [][]byte
	memory   []byte // the memory's limits; nil for none
	globals  [][]byte
	exports  map[string]byte // of the memory (2) or other things with index 0
	inner    []fn            // before funcs
	funcs    []fn
	start    int      // index of the start function; 0 for none
	elements [][]byte // segments
	passive  [][]byte // data segments that are nowhere at the start; they come first
	data     []data
	custom   map[string][]byte
}

// Indices of the functions every guest of newGuest imports.
const (
	next = iota
	emit
	arg
	fail
	logLine
	firstOwn // the first function of the guest's own
)

// Where the guests of these tests keep things in their memory of two pages.
const (
	descriptorAt = 0x400
	textAt       = 0x1000 // what a test puts there
	bufferAt     = 0x8000
	bufferCap    = 0x8000
	memoryBytes  = 2 << 16
)

// descriptor is what the guests of these tests say about themselves.
func descriptor() abi.Descriptor {
	return abi.Descriptor{Name: "test", Version: "1", Schema: 1, Reads: []uint64{1}, Media: "application/octet-stream",
		Operations: []string{abi.OpSave, abi.OpLoad, abi.OpMigrate, abi.OpInspect}, Nesting: "/.[!"}
}

// newGuest is a guest that is right in all ways: it describes itself; every operation reads its input
// to the end and emits nothing.
func newGuest() *guest {
	g := &guest{
		memory:  []byte{0x00, 2},
		exports: map[string]byte{abi.ExportMemory: 2},
	}
	for _, f := range []imported{
		next:    {name: abi.ImportNext, params: []byte{i32, i32}, results: []byte{i64}},
		emit:    {name: abi.ImportEmit, params: []byte{i32, i32, i32}, results: []byte{i32}},
		arg:     {name: abi.ImportArg, params: []byte{i32, i32}, results: []byte{i32}},
		fail:    {name: abi.ImportFail, params: []byte{i32, i32, i32}},
		logLine: {name: abi.ImportLog, params: []byte{i32, i32, i32}},
	} {
		f.from = abi.Namespace
		g.imports = append(g.imports, f)
	}
	g.describe(cborOf(descriptor()))
	for _, export := range []string{abi.ExportSave, abi.ExportLoad, abi.ExportMigrate, abi.ExportInspect} {
		g.does(export, drain, constI32(0))
	}
	return g
}

// describe makes the guest emit b as its descriptor.
func (g *guest) describe(b []byte) *guest {
	g.data = slices.DeleteFunc(g.data, func(d data) bool { return d.at == descriptorAt })
	return g.has(descriptorAt, b).does(abi.ExportDescribe, emitFrom(descriptorAt, len(b)), constI32(0))
}

// has puts bytes into the guest's memory.
func (g *guest) has(at int, b []byte) *guest {
	g.data = append(g.data, data{at, b})
	return g
}

// does makes export run body, which may use one local number 0 of type i64 and two, 1 and 2, of type i32.
func (g *guest) does(export string, body ...code) *guest {
	g.without(export)
	g.funcs = append(g.funcs, fn{export: export, results: []byte{i32}, locals: []byte{i64, i32, i32}, body: seq(body...)})
	return g
}

// initializes makes _initialize run body.
func (g *guest) initializes(body ...code) *guest {
	g.funcs = append(g.funcs, fn{export: abi.ExportInitialize, locals: []byte{i64, i32, i32}, body: seq(body...)})
	return g
}

// function adds a function of the guest's own and says its index; imports must be there already. It may
// use the locals that those of does have.
func (g *guest) function(name string, body ...code) int {
	g.inner = append(g.inner, fn{name: name, locals: []byte{i64, i32, i32}, body: seq(body...)})
	return len(g.imports) + len(g.inner) - 1
}

// wasi imports a function of WASI whose result is an error number and says its index.
func (g *guest) wasi(name string, params ...byte) int {
	_, f := g.importing("wasi_snapshot_preview1", name, params, []byte{i32})
	return f
}

// variable is a global that can be set.
func variable(kind byte, initial code) []byte {
	return slices.Concat([]byte{kind, 1}, initial, []byte{0x0b})
}

// without takes an exported function away.
func (g *guest) without(export string) *guest {
	g.funcs = slices.DeleteFunc(g.funcs, func(f fn) bool { return f.export == export })
	return g
}

// importing adds an imported function and says its index.
func (g *guest) importing(from, name string, params, results []byte) (*guest, int) {
	g.imports = append(g.imports, imported{from: from, name: name, params: params, results: results})
	return g, len(g.imports) - 1
}

// drain reads the input to its end.
var drain = loop(constI32(bufferAt), constI32(bufferCap), call(next), constI64(abi.NextEnd), and64, eqz64)

// emitFrom emits what lies in memory.
func emitFrom(at, n int) code {
	return seq(constI32(int32(at)), constI32(int32(n)), constI32(0), call(emit), drop)
}

// emitMore emits a fragment.
func emitMore(at, n int) code {
	return seq(constI32(int32(at)), constI32(int32(n)), constI32(abi.EmitMore), call(emit), drop)
}

// failWith calls fail with what lies in memory.
func failWith(c abi.Code, at, n int) code {
	return seq(constI32(int32(c)), constI32(int32(at)), constI32(int32(n)), call(fail))
}

// logFrom logs what lies in memory.
func logFrom(level, at, n int) code {
	return seq(constI32(int32(level)), constI32(int32(at)), constI32(int32(n)), call(logLine))
}

// echo emits its input as it comes, in buffers of n bytes. With fragments, records of more than n bytes
// are emitted in fragments.
func echo(n int, fragments bool) code {
	flags := constI32(0)
	if fragments {
		flags = seq(get(0), constI64(33), shrU64, wrap, constI32(1), and32)
	}
	return loop(
		constI32(bufferAt), constI32(int32(n)), call(next), set(0),
		constI32(bufferAt), get(0), wrap, flags, call(emit), drop,
		get(0), constI64(abi.NextEnd), and64, eqz64,
	)
}

// forever runs body without end.
func forever(body ...code) code { return seq(loop(seq(body...), constI32(1)), unreachable) }

// bytes is the module in the binary format.
func (g *guest) bytes() []byte {
	var types [][]byte
	typeOf := func(params, results []byte) []byte {
		t := slices.Concat([]byte{0x60}, vector(params), vector(results))
		i := slices.IndexFunc(types, func(u []byte) bool { return slices.Equal(t, u) })
		if i < 0 {
			i = len(types)
			types = append(types, t)
		}
		return uleb128(uint64(i))
	}
	var imports, functions, exports, codes, segments [][]byte
	count := 0 // of functions
	for _, im := range g.imports {
		desc := im.desc
		if im.kind == 0 {
			desc = typeOf(im.params, im.results)
			count++
		}
		imports = append(imports, slices.Concat(vector([]byte(im.from)), vector([]byte(im.name)), []byte{im.kind}, desc))
	}
	var names [][]byte
	for _, f := range slices.Concat(g.inner, g.funcs) {
		if f.name != "" {
			names = append(names, slices.Concat(uleb128(uint64(count)), vector([]byte(f.name))))
		}
		functions = append(functions, typeOf(f.params, f.results))
		if f.export != "" {
			exports = append(exports, slices.Concat(vector([]byte(f.export)), []byte{0}, uleb128(uint64(count))))
		}
		var locals [][]byte
		for _, t := range f.locals {
			locals = append(locals, []byte{1, t})
		}
		codes = append(codes, vector(slices.Concat(vectorOf(locals), f.body, []byte{0x0b})))
		count++
	}
	for _, name := range slices.Sorted(maps.Keys(g.exports)) {
		exports = append(exports, slices.Concat(vector([]byte(name)), []byte{g.exports[name], 0}))
	}
	for _, b := range g.passive {
		segments = append(segments, append([]byte{1}, vector(b)...))
	}
	for _, d := range g.data {
		segments = append(segments, slices.Concat([]byte{0x00}, constI32(int32(d.at)), []byte{0x0b}, vector(d.bytes)))
	}

	out := []byte("\x00asm\x01\x00\x00\x00")
	section := func(id byte, body []byte) { out = slices.Concat(out, []byte{id}, vector(body)) }
	for name, b := range g.custom {
		section(0, slices.Concat(vector([]byte(name)), b))
	}
	section(1, vectorOf(slices.Concat(types, g.types)))
	section(2, vectorOf(imports))
	section(3, vectorOf(functions))
	if g.tables != nil {
		section(4, vectorOf(g.tables))
	}
	if g.memory != nil {
		section(5, vectorOf([][]byte{g.memory}))
	}
	section(6, vectorOf(g.globals))
	section(7, vectorOf(exports))
	if g.start > 0 {
		section(8, uleb128(uint64(g.start)))
	}
	if g.elements != nil {
		section(9, vectorOf(g.elements))
	}
	if g.passive != nil {
		section(12, uleb128(uint64(len(segments))))
	}
	section(10, vectorOf(codes))
	section(11, vectorOf(segments))
	if names != nil {
		section(0, slices.Concat(vector([]byte("name")), []byte{1}, vector(vectorOf(names))))
	}
	return out
}

// vector is bytes after their count.
func vector(b []byte) []byte { return append(uleb128(uint64(len(b))), b...) }

// vectorOf is elements after their count.
func vectorOf(elements [][]byte) []byte {
	return append(uleb128(uint64(len(elements))), slices.Concat(elements...)...)
}

// oneRecord is a small record.
func oneRecord(key string) []byte {
	b := record.AppendText(record.AppendRecord(nil), "p")
	return record.AppendNull(record.AppendText(b, key))
}
