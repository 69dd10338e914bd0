package main

import (
	"encoding/binary"
	"slices"
)

// Exports of the guest.
const (
	copies  = "copies"  // gives back what it is given, byte for byte
	hands   = "hands"   // says that its output is its input, without a look at it
	returns = "returns" // does nothing
)

// Value types.
const (
	i32 = 0x7f
	i64 = 0x7e
)

// Functions that the guest imports, in this order, and then its own.
const (
	inputLength = iota
	inputOffset
	inputLoad8
	inputLoad64
	alloc
	store8
	store64
	outputSet
	firstOwn
)

// guest is a plug-in for Extism, in the binary format of WebAssembly. Extism's functions move eight bytes
// a call, and its Go SDK has no faster way; a plug-in's own memory and its language would only add to that.
func guest() []byte {
	type function struct {
		name            string
		params, results []byte
		body            []byte // of the guest's own
	}
	imports := []function{
		inputLength: {name: "input_length", results: []byte{i64}},
		inputOffset: {name: "input_offset", results: []byte{i64}},
		inputLoad8:  {name: "input_load_u8", params: []byte{i64}, results: []byte{i32}},
		inputLoad64: {name: "input_load_u64", params: []byte{i64}, results: []byte{i64}},
		alloc:       {name: "alloc", params: []byte{i64}, results: []byte{i64}},
		store8:      {name: "store_u8", params: []byte{i64, i32}},
		store64:     {name: "store_u64", params: []byte{i64, i64}},
		outputSet:   {name: "output_set", params: []byte{i64, i64}},
	}
	own := []function{
		{name: copies, results: []byte{i32}, body: copying()},
		{name: hands, results: []byte{i32}, body: slices.Concat(call(inputOffset), call(inputLength), call(outputSet), constI32(0))},
		{name: returns, results: []byte{i32}, body: constI32(0)},
	}

	var types, from, functions, exports, codes [][]byte
	typeOf := func(f function) []byte {
		types = append(types, slices.Concat([]byte{0x60}, vector(f.params), vector(f.results)))
		return uleb128(len(types) - 1)
	}
	for _, f := range imports {
		from = append(from, slices.Concat(vector([]byte("extism:host/env")), vector([]byte(f.name)), []byte{0}, typeOf(f)))
	}
	for i, f := range own {
		functions = append(functions, typeOf(f))
		exports = append(exports, slices.Concat(vector([]byte(f.name)), []byte{0}, uleb128(firstOwn+i)))
		locals := []byte{1, 3, i64} // three of type i64
		codes = append(codes, vector(slices.Concat(locals, f.body, []byte{0x0b})))
	}
	wasm := []byte("\x00asm\x01\x00\x00\x00")
	for _, s := range []struct {
		id       byte
		elements [][]byte
	}{{1, types}, {2, from}, {3, functions}, {7, exports}, {10, codes}} {
		wasm = append(append(wasm, s.id), vector(slices.Concat(uleb128(len(s.elements)), slices.Concat(s.elements...)))...)
	}
	return wasm
}

// copying is the body of copies.
func copying() []byte {
	const length, output, at = 0, 1, 2 // locals
	// each runs body with one more word of so many bytes copied, for as long as there is one.
	each := func(bytes int, move []byte) []byte {
		return slices.Concat([]byte{0x02, 0x40, 0x03, 0x40}, // block, loop
			get(at), constI64(bytes), []byte{0x7c}, get(length), []byte{0x56, 0x0d, 1}, // at+bytes > length: leave the block
			move,
			get(at), constI64(bytes), []byte{0x7c}, set(at), // at += bytes
			[]byte{0x0c, 0, 0x0b, 0x0b}) // again
	}
	to := slices.Concat(get(output), get(at), []byte{0x7c})
	return slices.Concat(
		call(inputLength), set(length),
		get(length), call(alloc), set(output),
		each(8, slices.Concat(to, get(at), call(inputLoad64), call(store64))),
		each(1, slices.Concat(to, get(at), call(inputLoad8), call(store8))),
		get(output), get(length), call(outputSet),
		constI32(0))
}

func uleb128(v int) []byte   { return binary.AppendUvarint(nil, uint64(v)) }
func vector(b []byte) []byte { return append(uleb128(len(b)), b...) }
func call(f int) []byte      { return append([]byte{0x10}, uleb128(f)...) }
func get(local byte) []byte  { return []byte{0x20, local} }
func set(local byte) []byte  { return []byte{0x21, local} }
func constI32(v byte) []byte { return []byte{0x41, v} } // v is below 64
func constI64(v int) []byte  { return []byte{0x42, byte(v)} }
