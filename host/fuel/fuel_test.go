package fuel

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
)

// Every shape of an endless loop ends, on both engines, after the same steps.
func TestEndlessLoops(t *testing.T) {
	nothing := [2][]byte{}
	forever := loop(br(0))
	shapes := map[string][]fn{
		"loop":              {{name: "f", body: forever}},
		"loop, br_if":       {{name: "f", body: loop(con32(1), brIf(0))}},
		"loop, br_table":    {{name: "f", body: loop(con32(5), code{opBrTable, 2, 0, 0, 0})}},
		"loop, big body":    {{name: "f", body: loop(bytes.Repeat(seq(con32(1), code{opDrop}), 500), br(0))}},
		"loops":             {{name: "f", body: loop(loop(br(1)))}},
		"loops inside out":  {{name: "f", body: loop(loop(loop(con32(0), brIf(0)), br(1)))}},
		"loop out of block": {{name: "f", body: loop(scope(con32(0), brIf(0), br(1)), br(0))}},
		"loop with if":      {{name: "f", body: loop(con32(1), when(br(1), code{opUnreachable}))}},
		"loop with else":    {{name: "f", body: loop(con32(0), when(code{opReturn}, br(1)))}},
		"loop that calls":   {{name: "f", body: loop(call(1), br(0))}, {}},
		"loop that grows":   {{name: "f", body: loop(con32(1), code{opMemoryGrow, 0, opDrop}, br(0))}},
		"loop of values":    {{name: "f", body: seq(con32(1), code{opLoop}, appendInt(nil, 1), br(0), code{opEnd, opDrop})}},
		"recursion":         {{name: "f", body: call(0)}},
		"recursion, nested": {{name: "f", body: scope(call(0), br(0))}},
		"recursion by two":  {{name: "f", body: call(1)}, {body: call(0)}},
		"recursion by table": {{name: "f", body: seq(con32(1), callTable(1))},
			{body: seq(con32(0), callTable(0))}},
		"tree of calls": {{name: "f", body: seq(call(1), call(1))}, {body: seq(call(2), call(2))}, {body: seq(call(3), call(3))},
			{body: loop(con32(1), brIf(0))}},
		"copies":     {{name: "f", body: loop(con32(0), con32(1), con32(65536), misc(miscMemoryCopy, 0, 0), br(0))}},
		"initialize": {{name: "f", body: forever}, {name: abi.ExportInitialize, body: call(0)}},
	}
	for name, fns := range shapes {
		types := [][2][]byte{nothing}
		if name == "loop of values" {
			types[0] = [2][]byte{{typeI32}, {typeI32}}
		}
		wasm := mustInstrument(t, testModule(fns, types...), Options{})
		export := "f"
		if name == "initialize" {
			export = abi.ExportInitialize
		}
		for _, e := range engines {
			r := start(t, e, wasm)
			for _, fuel := range []int64{0, 1, 1000} {
				result, _ := r.run(export, fuel)
				if got := int64(r.counter.Get()); !strings.Contains(result, "unreachable") || got >= 0 {
					t.Errorf("%s, %s, fuel %d: %s, %d left", name, e.name, fuel, result, got)
				}
			}
			// What is spent stays so.
			r.counter.Set(^uint64(0))
			if result, _ := r.run(export, -1); !strings.Contains(result, "unreachable") {
				t.Errorf("%s, %s: runs without fuel: %s", name, e.name, result)
			}
		}
	}
}

// What the functions on a deep stack have still to do is not done on credit.
func TestUnwinding(t *testing.T) {
	long := bytes.Repeat(seq(con32(1), code{opDrop}), 1000)
	// f(n): if n > 0 then f(n-1); if the global is not 0 then long.
	body := seq(get(0), when(seq(get(0), con32(1), code{0x6b}, call(0)), nil), code{opGlobalGet, 0}, when(long, nil))
	wasm := mustInstrument(t, testModule([]fn{{name: "f", params: []byte{typeI32}, body: body}}), Options{})
	for _, e := range engines {
		const depth, fuel = 1000, 100_000
		result, used := start(t, e, wasm).run("f", fuel, depth)
		if !strings.Contains(result, "unreachable") || used != fuel+1 {
			t.Errorf("%s: %s, used %d", e.name, result, used)
		}
		// Neither call pays for the long part of the other one before it looks.
		if result, used = start(t, e, wasm).run("f", plenty, depth); result != "" || used < 2000*depth {
			t.Errorf("%s: %s, used %d", e.name, result, used)
		}
	}
}

// The names of functions are told when the fuel ends in them.
func TestTrapsNameFunctions(t *testing.T) {
	wasm := testModule([]fn{{name: "f", body: call(1)}, {body: loop(br(0))}})
	names := seq([]byte{4}, []byte("name"), []byte{1, 16, 2, 0, 5}, []byte("outer"), []byte{1, 6}, []byte("busily"))
	wasm = appendSection(wasm, sectionCustom, names)
	r := start(t, compiler, mustInstrument(t, wasm, Options{}))
	r.counter.Set(100)
	_, err := r.ExportedFunction("f").Call(t.Context())
	if err == nil || !strings.Contains(err.Error(), ".busily()") || !strings.Contains(err.Error(), ".outer()") {
		t.Error(err)
	}
}

// A length is paid for before the work, on both engines alike.
func TestLengthsArePaidFor(t *testing.T) {
	i := []byte{typeI32}
	fns := []fn{
		{name: "memory.copy", params: i, body: seq(con32(0), con32(0), get(0), misc(miscMemoryCopy, 0, 0))},
		{name: "memory.fill", params: i, body: seq(con32(0), con32(0), get(0), misc(miscMemoryFill, 0))},
		{name: "memory.init", params: i, body: seq(con32(0), con32(0), get(0), misc(miscMemoryInit, 0, 0))},
		{name: "table.copy", params: i, body: seq(con32(0), con32(0), get(0), misc(miscTableCopy, 0, 0))},
		{name: "table.fill", params: i, body: seq(con32(0), code{opRefNull, xref}, get(0), misc(miscTableFill, 1))},
		{name: "table.init", params: i, body: seq(con32(0), con32(0), get(0), misc(miscTableInit, 1, 0))},
		{name: "memory.grow", params: i, results: i, body: seq(get(0), code{opMemoryGrow, 0})},
		{name: "table.grow", params: i, results: i, body: seq(code{opRefNull, xref}, get(0), misc(miscTableGrow, 1))},
	}
	wasm := mustInstrument(t, testModule(fns), Options{})
	for _, e := range engines {
		r := start(t, e, wasm)
		for _, c := range []struct {
			name   string
			n      uint64
			more   int64 // than for 0
			result string
		}{
			{"memory.copy", 15, 0, ""}, {"memory.copy", 16, 1, ""}, {"memory.copy", 1 << 17, 1 << 13, ""},
			{"memory.copy", 1<<32 - 1, 1<<28 - 1, "out of bounds memory access"},
			{"memory.fill", 1 << 16, 1 << 12, ""}, {"memory.init", 30, 1, ""}, {"memory.init", 1 << 20, 1 << 16, "out of bounds"},
			{"table.copy", 16, 8, ""}, {"table.fill", 8, 4, ""}, {"table.init", 8, 4, ""},
			{"memory.grow", 2, 2 << 12, " 0x2"}, {"memory.grow", 100, 0, " 0xffffffff"}, {"memory.grow", 1<<32 - 1, 0, " 0xffffffff"},
			{"table.grow", 8, 4, " 0x8"}, {"table.grow", 1 << 20, 0, " 0xffffffff"},
		} {
			_, base := r.run(c.name, plenty, 0)
			result, used := r.run(c.name, plenty, c.n)
			if strings.HasPrefix(result, "error") {
				used = c.more + base // how much of it is told is no matter
			}
			if !strings.Contains(result, c.result) || (c.result == "") != (result == "") || used != base+c.more {
				t.Errorf("%s, %s of %d: %q, used %d above %d; want %q, %d", e.name, c.name, c.n, result, used-base, base, c.result, c.more)
			}
		}
		if result, _ := r.run("memory.copy", 1000, 1<<17); !strings.Contains(result, "unreachable") || int64(r.counter.Get()) >= 0 {
			t.Errorf("%s: a copy that is not paid for: %s", e.name, result)
		}
	}
}

// The counter tells a host function what has been used, and what the host sets counts from there on.
func TestUsedIsExactBetweenCalls(t *testing.T) {
	wasm := testModule([]fn{
		{name: "nothing"},
		{name: "ten", body: bytes.Repeat(seq(con32(1), code{opDrop}), 5)},
		{name: "if", params: []byte{typeI32}, body: seq(get(0), when(bytes.Repeat(seq(con32(1), code{opDrop}), 50), con64(1)[:0]))},
		{name: "rounds", params: []byte{typeI32}, body: loop(get(0), con32(1), code{0x6b, opLocalTee, 0}, brIf(0))},
	})
	for _, slack := range []int64{-1, 0} {
		out := mustInstrument(t, wasm, Options{slack: slack})
		for _, e := range engines {
			r := start(t, e, out)
			for _, c := range []struct {
				name string
				args []uint64
				want int64
			}{{"nothing", nil, 1}, {"ten", nil, 11}, {"if", []uint64{1}, 103}, {"if", []uint64{0}, 3}, {"rounds", []uint64{1000}, 6001}} {
				if _, used := r.run(c.name, plenty, c.args...); used != c.want {
					t.Errorf("%s, slack %d: %s%d used %d, want %d", e.name, slack, c.name, c.args, used, c.want)
				}
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	good := testModule([]fn{{name: "f", body: loop(br(0))}})
	body := func(c code) []byte { return testModule([]fn{{name: "f", body: c}}) }
	header := good[:8:8]
	for name, c := range map[string]struct {
		wasm []byte
		want error
		text string
	}{
		"nothing":          {nil, abi.ErrCorrupt, "no WebAssembly module"},
		"text":             {[]byte("(module)"), abi.ErrCorrupt, "no WebAssembly module"},
		"component":        {[]byte("\x00asm\x0d\x00\x01\x00"), abi.ErrVersion, "version 0d 00 01 00"},
		"too large":        {make([]byte, MaxModuleBytes+1), abi.ErrTooLarge, "the limit is 67108864"},
		"cut":              {good[:len(good)-1], abi.ErrCorrupt, "cut short"},
		"name taken":       {testModule([]fn{{name: DefaultExport}}), abi.ErrCorrupt, `exports "torpor_fuel"`},
		"unknown section":  {appendSection(header, 14, nil), abi.ErrVersion, "section 14, offset 0x8"},
		"exceptions":       {appendSection(header, sectionTag, nil), abi.ErrVersion, "exceptions"},
		"twice":            {appendSection(appendSection(header, sectionType, []byte{0}), sectionType, []byte{0}), abi.ErrCorrupt, "twice"},
		"long section":     {appendSection(header, sectionType, []byte{0, 0}), abi.ErrCorrupt, "past its last entry"},
		"announced":        {appendSection(header, sectionType, []byte{0xff, 0xff, 0xff, 0xff, 0x0f}), abi.ErrCorrupt, "more entries"},
		"parameters":       {appendSection(header, sectionType, append([]byte{1, typeFunction, 0xe9, 7}, make([]byte, 1001)...)), abi.ErrTooLarge, "type 0"},
		"struct type":      {appendSection(header, sectionType, []byte{1, 0x5f, 0}), abi.ErrCorrupt, "no function type"},
		"tag import":       {appendSection(header, sectionImport, []byte{1, 0, 0, 4, 0, 0}), abi.ErrVersion, "kind 4"},
		"no code":          {appendSection(appendSection(header, sectionType, []byte{1, typeFunction, 0, 0}), sectionFunction, []byte{1, 0}), abi.ErrCorrupt, "1 functions are declared and 0 have code"},
		"no type":          {appendSection(header, sectionFunction, []byte{1, 0}), abi.ErrCorrupt, "no type 0"},
		"locals":           {testModule([]fn{{locals: bytes.Repeat([]byte{typeI32}, MaxLocals+1)}}), abi.ErrTooLarge, "function 0: locals"},
		"nesting":          {body(seq(bytes.Repeat(code{opBlock, typeEmpty}, MaxNesting+1), bytes.Repeat(code{opEnd}, MaxNesting+1))), abi.ErrTooLarge, "function 0: nesting"},
		"function":         {body(bytes.Repeat(code{opNop}, MaxFunctionBytes)), abi.ErrTooLarge, "bytes of function 0"},
		"the counter":      {body(code{opGlobalGet, 2, opDrop}), abi.ErrCorrupt, "no global 2"},
		"an added local":   {body(code{opLocalGet, 0, opDrop}), abi.ErrCorrupt, "no local 0"},
		"label":            {body(br(1)), abi.ErrCorrupt, "no label 1"},
		"else":             {body(code{opElse}), abi.ErrCorrupt, "else without if"},
		"behind the end":   {body(code{opEnd}), abi.ErrCorrupt, "past its end"},
		"open":             {body(code{opBlock, typeEmpty}), abi.ErrCorrupt, "cut short"},
		"try_table":        {body(code{0x1f, typeEmpty, 0, opEnd}), abi.ErrVersion, "function 0, offset 0x"},
		"return_call":      {body(code{0x12, 0}), abi.ErrVersion, "instruction 0x12"},
		"atomics":          {body(code{0xfe, 3, 0}), abi.ErrVersion, "instruction 0xfe"},
		"misc":             {body(misc(18)), abi.ErrVersion, "0xfc 18"},
		"relaxed vectors":  {body(code{opVector, 0x80, 2}), abi.ErrVersion, "fd 80 02"},
		"vector not there": {body(code{opVector, 0x9a, 1}), abi.ErrVersion, "0xfd 0x9a"},
	} {
		_, _, err := Instrument(c.wasm, Options{})
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v; want %v, %q", name, err, c.want, c.text)
		}
	}
}

// Cutting a module anywhere, or changing a byte, gives an error or a module, and the same again.
func TestDamage(t *testing.T) {
	wasm := randomModule(7)
	for i := range wasm {
		if i%5 == 0 {
			if _, _, err := Instrument(wasm[:i], Options{}); err != nil && !errors.Is(err, abi.ErrCorrupt) {
				t.Fatalf("cut at %d: %v", i, err)
			}
		}
		if !testing.Short() || i%5 == 0 {
			changed := bytes.Clone(wasm)
			changed[i] ^= []byte{1, 0x80, 0xff}[i%3]
			one, _, err1 := Instrument(changed, Options{})
			two, _, err2 := Instrument(changed, Options{})
			if !bytes.Equal(one, two) || fmt.Sprint(err1) != fmt.Sprint(err2) {
				t.Fatalf("byte %d: %v and %v", i, err1, err2)
			}
		}
	}
}

// Sections that a module lacks are put where they belong, and what tells of offsets is left out.
func TestSections(t *testing.T) {
	custom := func(name string) []byte { return append([]byte{byte(len(name))}, name...) }
	plain := []byte("\x00asm\x01\x00\x00\x00")
	plain = appendSection(plain, sectionCustom, custom("first"))
	plain = appendSection(plain, sectionType, []byte{1, typeFunction, 0, 2, typeI32, typeI64})
	plain = appendSection(plain, sectionCustom, custom("second"))
	plain = appendSection(plain, sectionFunction, []byte{1, 0})
	plain = appendSection(plain, sectionCustom, custom(".debug_line"))
	plain = appendSection(plain, sectionCode, []byte{1, 6, 0, opI32Const, 1, opI64Const, 2, opEnd})
	plain = appendSection(plain, sectionCustom, custom("name"))
	out, info, err := Instrument(plain, Options{Export: "fuel", Initial: 77})
	if err != nil {
		t.Fatal(err)
	}
	if want := (Info{Functions: 1, Charges: 1, BytesIn: len(plain), BytesOut: len(out)}); info != want {
		t.Errorf("%+v, want %+v", info, want)
	}
	m, err := parse(out, "another")
	if err != nil {
		t.Fatal(err)
	}
	var ids []byte
	for _, s := range m.sections {
		ids = append(ids, s.id)
	}
	if want := []byte{0, sectionType, 0, sectionFunction, sectionGlobal, sectionExport, sectionCode, 0}; !bytes.Equal(ids, want) {
		t.Errorf("sections %d, want %d", ids, want)
	}
	r := start(t, compiler, out)
	if got := r.ExportedGlobal("fuel").Get(); got != 77 {
		t.Errorf("the counter begins with %d", got)
	}
	if out, _, err := Instrument(plain[:8], Options{}); err != nil || start(t, compiler, out).counter == nil {
		t.Errorf("an empty module: %v", err)
	}
}

// What a processor needs long for costs more than what it does in a cycle.
func TestSlowInstructions(t *testing.T) {
	one := func(body code) []fn { return []fn{{name: "f", params: []byte{typeI32}, body: seq(body, code{opDrop})}} }
	f32 := code{opF32Const, 0, 0, 0x80, 0x3f}
	f64 := code{opF64Const, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f}
	vector := seq(f64, code{opVector, 0x14}) // f64x2.splat
	fast := map[string]int64{}
	for _, c := range []struct {
		name string
		body code
		cost int64
	}{
		{"i32.div_s", seq(con32(7), con32(3), code{0x6d}), divideCost}, {"i32.rem_u", seq(con32(7), con32(3), code{0x70}), divideCost},
		{"i64.div_s", seq(con64(7), con64(3), code{0x7f}), divideCost}, {"i64.rem_u", seq(con64(7), con64(3), code{0x82}), divideCost},
		{"i32.and", seq(con32(7), con32(3), code{0x71}), 1}, {"i64.mul", seq(con64(7), con64(3), code{0x7e}), 1},
		{"f32.sqrt", seq(f32, code{0x91}), rootCost}, {"f32.div", seq(f32, f32, code{0x95}), rootCost},
		{"f64.sqrt", seq(f64, code{0x9f}), rootCost}, {"f64.div", seq(f64, f64, code{0xa3}), rootCost}, {"f64.mul", seq(f64, f64, code{0xa2}), 1},
		{"f32x4.sqrt", seq(vector, code{opVector, 0xe3, 1}), rootCost}, {"f32x4.div", seq(vector, vector, code{opVector, 0xe7, 1}), rootCost},
		{"f64x2.sqrt", seq(vector, code{opVector, 0xef, 1}), rootCost}, {"f64x2.div", seq(vector, vector, code{opVector, 0xf3, 1}), rootCost},
		{"f64x2.mul", seq(vector, vector, code{opVector, 0xf2, 1}), 1},
	} {
		_, used := start(t, compiler, mustInstrument(t, testModule(one(c.body)), Options{})).run("f", plenty, 0)
		operands := int64(2)
		if strings.Contains(c.name, "sqrt") {
			operands = 1
		}
		if strings.Contains(c.name, "x") {
			operands *= 2 // a constant and a splat
		}
		fast[c.name] = used - operands - c.cost
	}
	for name, rest := range fast {
		if rest != fast["i32.and"] {
			t.Errorf("%s: %d units beside what it should cost, i32.and %d", name, rest, fast["i32.and"])
		}
	}
}

// Functions of some kilobytes that wazero would compile for minutes, or with gigabytes, are refused before.
func TestHardToCompile(t *testing.T) {
	many := func(n int, what ...code) code { return bytes.Repeat(seq(what...), n) }
	loop := code{opLoop, typeEmpty, opLocalGet, 0, opBrIf, 0, opEnd}
	labels := func(n int) code {
		return seq(code{opBlock, typeEmpty, opLocalGet, 0, opBrTable}, appendUint(nil, uint64(n)), make([]byte, n+1), code{opEnd})
	}
	for _, c := range []struct {
		name        string
		locals      int
		sound, hard code
	}{
		{"loops", 1, many(1000, loop), many(8000, loop)},
		{"blocks within one another", 1, seq(many(1000, code{opBlock, typeEmpty}), many(1000, code{opEnd})), seq(many(9999, code{opBlock, typeEmpty}), many(9999, code{opEnd}), many(5000, loop))},
		{"many locals", 1000, many(100, loop), many(2000, loop)},
		{"labels", 1, labels(16_000), labels(200_000)},
		{"copies", 1, many(1000, con32(0), con32(0), con32(0), misc(miscMemoryCopy, 0, 0)), many(20_000, con32(0), con32(0), con32(0), misc(miscMemoryCopy, 0, 0))},
		{"grown memory", 1, many(1000, con32(0), code{opMemoryGrow, 0, opDrop}), many(20_000, con32(0), code{opMemoryGrow, 0, opDrop})},
		{"conversions", 1, many(1000, code{opF64Const, 0, 0, 0, 0, 0, 0, 0, 0, opI64TruncF64U, opDrop}), many(40_000, code{opF64Const, 0, 0, 0, 0, 0, 0, 0, 0, opI64TruncF64U, opDrop})},
		{"saturating conversions", 1, many(1000, code{opF64Const, 0, 0, 0, 0, 0, 0, 0, 0, opMisc, 7, opDrop}), many(40_000, code{opF64Const, 0, 0, 0, 0, 0, 0, 0, 0, opMisc, 7, opDrop})},
	} {
		of := func(body code) []byte {
			return testModule([]fn{{name: "f", params: []byte{typeI32}, locals: bytes.Repeat([]byte{typeI32}, c.locals), body: body}})
		}
		if _, _, err := Instrument(of(c.sound), Options{}); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if _, _, err := Instrument(of(c.hard), Options{}); !errors.Is(err, abi.ErrTooLarge) || !strings.Contains(err.Error(), "function 0: complexity") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// Code that makes references is told of; tables and globals may have them.
func TestRefersToFunctions(t *testing.T) {
	body := code{opRefFunc, 0, opDrop}
	if _, info, err := Instrument(testModule([]fn{{name: "f", body: body}}), Options{}); err != nil || !info.RefersToFunctions {
		t.Errorf("%+v, %v", info, err)
	}
	if _, info, err := Instrument(testModule([]fn{{name: "f"}}), Options{}); err != nil || info.RefersToFunctions {
		t.Errorf("%+v, %v", info, err)
	}
}
