package fuel

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero/api"

	"github.com/torpor-run/torpor/host/abi"
)

// withGlobals is a module of nothing but globals, each its type, whether it is a variable, and what it
// begins with, and exports of some of them.
func withGlobals(exports map[string]uint32, globals ...[]byte) []byte {
	wasm := []byte("\x00asm\x01\x00\x00\x00")
	// The function is for ref.func.
	wasm = appendSection(wasm, sectionType, []byte{1, typeFunction, 0, 0})
	wasm = appendSection(wasm, sectionFunction, []byte{1, 0})
	wasm = appendSection(wasm, sectionGlobal, append(appendUint(nil, uint64(len(globals))), bytes.Join(globals, nil)...))
	var named []byte
	for name, i := range exports {
		named = appendExport(named, name, i)
	}
	wasm = appendSection(wasm, sectionExport, append(appendUint(nil, uint64(len(exports))), named...))
	return appendSection(wasm, sectionCode, []byte{1, 2, 0, opEnd})
}

func globalOf(kind, mutable byte, initial ...byte) []byte {
	return append(append([]byte{kind, mutable}, initial...), opEnd)
}

// The variables of a number type are exported, in their order, with what they begin with and as variables;
// nothing else is.
func TestVariables(t *testing.T) {
	wasm := withGlobals(map[string]uint32{"mine": 1},
		globalOf(typeI32, 1, opI32Const, 5),
		globalOf(typeI64, 0, opI64Const, 6),
		globalOf(typeI64, 1, opI64Const, 0x7f),
		globalOf(f32, 1, opF32Const, 1, 0, 0xc0, 0x7f),
		globalOf(f64, 0, opF64Const, 1, 0, 0, 0, 0, 0, 0xf8, 0x7f),
		globalOf(fref, 0, opRefNull, fref),
		globalOf(f64, 1, opF64Const, 1, 0, 0, 0, 0, 0, 0xf8, 0x7f),
		globalOf(v128, 0, append([]byte{opVector, vectorConst}, make([]byte, 16)...)...),
	)
	out, info, err := Instrument(wasm, Options{Export: "fuel"})
	if err != nil || info.Variables != 4 || info.Keeps || info.GrowsTables || info.Global != 8 {
		t.Fatalf("%+v, %v", info, err)
	}
	for _, e := range engines {
		r := start(t, e, out)
		for i, want := range []uint64{5, math.MaxUint64, 0x7fc00001, 0x7ff8000000000001} {
			v, ok := r.ExportedGlobal(Variable("fuel", i)).(api.MutableGlobal)
			if !ok || v.Get() != want {
				t.Fatalf("%s, variable %d: %v, want %x", e.name, i, v, want)
			}
			v.Set(want ^ 1)
			if v.Get() != want^1 {
				t.Errorf("%s, variable %d keeps %x", e.name, i, v.Get())
			}
		}
		if r.ExportedGlobal(Variable("fuel", 4)) != nil || r.ExportedGlobal("mine").Get() != 6 {
			t.Errorf("%s: other exports than those", e.name)
		}
	}
}

// What a call may change beside memory and variables is told, and then no variable is exported.
func TestKeeps(t *testing.T) {
	body := func(c ...code) []byte { return testModule([]fn{{name: "f", body: seq(c...)}}) }
	null := func(kind byte) code { return code{opRefNull, kind} }
	many := func(n int) []byte {
		globals := make([][]byte, n)
		for i := range globals {
			globals[i] = globalOf(typeI32, 1, opI32Const, 0)
		}
		return withGlobals(nil, globals...)
	}
	for name, c := range map[string]struct {
		wasm         []byte
		variables    int
		keeps, grows bool
	}{
		"nothing":          {body(), 2, false, false},
		"memory":           {body(con32(1), code{opMemoryGrow, 0, opDrop}, con32(0), con32(0), con32(9), misc(miscMemoryFill, 0)), 2, false, false},
		"memory.copy":      {body(con32(0), con32(0), con32(9), misc(miscMemoryCopy, 0, 0)), 2, false, false},
		"memory.init":      {body(con32(0), con32(0), con32(9), misc(miscMemoryInit, 0, 0)), 2, false, false},
		"reading a table":  {body(con32(0), code{0x25, 0, opDrop}, misc(miscTableSize, 0), code{opDrop}), 2, false, false},
		"calling by table": {body(con32(0), callTable(0)), 2, false, false},
		"table.set":        {body(con32(0), null(fref), code{opTableSet, 0}), 0, true, false},
		"table.grow":       {body(null(xref), con32(1), misc(miscTableGrow, 1), code{opDrop}), 0, true, true},
		"table.fill":       {body(con32(0), null(xref), con32(1), misc(miscTableFill, 1)), 0, true, false},
		"table.copy":       {body(con32(0), con32(0), con32(1), misc(miscTableCopy, 0, 0)), 0, true, false},
		"table.init":       {body(con32(0), con32(0), con32(1), misc(miscTableInit, 1, 0)), 0, true, false},
		"elem.drop":        {body(misc(miscElemDrop, 1)), 0, true, false},
		"data.drop":        {body(misc(miscDataDrop, 0)), 0, true, false},
		"never reached":    {body(code{opUnreachable}, misc(miscDataDrop, 0)), 0, true, false},
		"a vector":         {withGlobals(nil, globalOf(typeI32, 1, opI32Const, 0), globalOf(v128, 1, append([]byte{opVector, vectorConst}, make([]byte, 16)...)...)), 0, true, false},
		"a function":       {withGlobals(nil, globalOf(fref, 1, opRefFunc, 0)), 0, true, false},
		"a reference":      {withGlobals(nil, globalOf(xref, 1, opRefNull, xref)), 0, true, false},
		"as many as may":   {many(MaxVariables), MaxVariables, false, false},
		"one more":         {many(MaxVariables + 1), 0, true, false},
		"none":             {withGlobals(nil), 0, false, false},
	} {
		out, info, err := Instrument(c.wasm, Options{})
		if err != nil || info.Variables != c.variables || info.Keeps != c.keeps || info.GrowsTables != c.grows {
			t.Errorf("%s: %+v, %v; want %+v", name, info, err, []any{c.variables, c.keeps, c.grows})
			continue
		}
		if named := name == "memory.init" || name == "data.drop" || name == "never reached"; info.NamesData != named {
			t.Errorf("%s: data segments are named: %v", name, !named)
		}
		m, err := parse(out, "another")
		if err != nil {
			t.Fatal(err)
		}
		before, err := parse(c.wasm, "another")
		if err != nil {
			t.Fatal(err)
		}
		if m.exports != before.exports+1+c.variables {
			t.Errorf("%s: %d exports, %d before", name, m.exports, before.exports)
		}
		// What was compiled runs.
		start(t, compiler, out)
	}
}

// The names that the counter and the variables have are the module's no more.
func TestReservedNames(t *testing.T) {
	for name, refused := range map[string]bool{
		"torpor_fuel": true, "torpor_fuel.": true, "torpor_fuel.0": true, "torpor_fuel.1000000": true, "torpor_fuel.x": true, "torpor_fuel.0.0": true,
		"torpor_fuels": false, "torpor_fue": false, "Torpor_fuel": false, "xtorpor_fuel.0": false, "": false, ".0": false, "torpor_fuel_0": false,
	} {
		for _, wasm := range [][]byte{withGlobals(map[string]uint32{name: 0}, globalOf(typeI32, 1, opI32Const, 0)), testModule([]fn{{name: "f"}, {name: name}})} {
			if name == "" && len(wasm) > 100 {
				continue // no name is no export there
			}
			_, _, err := Instrument(wasm, Options{})
			if refused != (err != nil) || refused && (!errors.Is(err, abi.ErrCorrupt) || !strings.Contains(err.Error(), "that name is kept")) {
				t.Errorf("%q: %v", name, err)
			}
			// Under another name for the counter, it is free.
			if _, _, err := Instrument(wasm, Options{Export: "counter"}); err != nil {
				t.Errorf("%q beside another counter: %v", name, err)
			}
		}
	}
	if got := Variable("torpor_fuel", 17); got != "torpor_fuel.17" {
		t.Errorf("variable 17 is %q", got)
	}
}

// A global's first value may be any constant expression that wazero takes, which Instrument reads to its
// end; what is none is refused.
func TestConstantExpressions(t *testing.T) {
	vector := append([]byte{opVector, vectorConst}, bytes.Repeat([]byte{opEnd}, 16)...)
	for name, c := range map[string]struct {
		kind    byte
		initial []byte
		want    error
		text    string
	}{
		"i32.const":           {typeI32, []byte{opI32Const, 0x80, 0x80, 0x80, 0x80, 0x78}, nil, ""},
		"i64.const":           {typeI64, append(code{opI64Const}, appendInt(nil, math.MinInt64)...), nil, ""},
		"f32.const":           {f32, []byte{opF32Const, opEnd, opEnd, opEnd, opEnd}, nil, ""},
		"f64.const":           {f64, append(code{opF64Const}, bytes.Repeat([]byte{opEnd}, 8)...), nil, ""},
		"v128.const":          {v128, vector, nil, ""},
		"ref.null func":       {fref, []byte{opRefNull, fref}, nil, ""},
		"ref.null extern":     {xref, []byte{opRefNull, xref}, nil, ""},
		"ref.func":            {fref, []byte{opRefFunc, 0}, nil, ""},
		"nothing":             {typeI32, nil, nil, ""}, // wazero's to refuse
		"i32.const too long":  {typeI32, []byte{opI32Const, 0x80, 0x80, 0x80, 0x80, 0x80, 0}, abi.ErrCorrupt, "too long"},
		"f64.const cut short": {f64, []byte{opF64Const, 1, 2}, abi.ErrCorrupt, "cut short"},
		"a vector's addition": {v128, []byte{opVector, 0xae, 1}, abi.ErrVersion, "0xfd 0xae is not known in a constant"},
		"nop":                 {typeI32, []byte{opNop}, abi.ErrVersion, "instruction 0x1 is not known in a constant"},
		"a call":              {typeI32, []byte{opCall, 0}, abi.ErrVersion, "is not known in a constant"},
		"a block":             {typeI32, []byte{opBlock, typeEmpty}, abi.ErrVersion, "is not known in a constant"},
		"memory.size":         {typeI32, []byte{0x3f, 0}, abi.ErrVersion, "is not known in a constant"},
		"i32.div":             {typeI32, []byte{opI32Const, 1, opI32Const, 1, 0x6d}, abi.ErrVersion, "instruction 0x6d"},
	} {
		// One more behind it tells that its end was found.
		wasm := withGlobals(nil, globalOf(c.kind, 0, c.initial...), globalOf(typeI32, 1, opI32Const, 3))
		out, info, err := Instrument(wasm, Options{})
		if c.want != nil {
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%s: %v; want %v, %q", name, err, c.want, c.text)
			}
			continue
		}
		if err != nil || info.Variables != 1 || info.Global != 2 {
			t.Errorf("%s: %+v, %v", name, info, err)
			continue
		}
		if c.initial != nil {
			if r := start(t, interpreter, out); r.ExportedGlobal(Variable(DefaultExport, 0)).Get() != 3 {
				t.Errorf("%s: the variable behind it", name)
			}
		}
	}
	// Sums, of extended constants: Instrument reads past them, whether or not wazero is told to.
	for name, initial := range map[string][]byte{
		"i32":            {opI32Const, 5, opI32Const, 6, opI32Add, opI32Const, 7, opI32Mul, opI32Const, 1, opI32Add + 1},
		"i64":            {opI64Const, 5, opI64Const, 6, opI64Add, opI64Const, 7, opI64Mul, opI64Const, 1, opI64Add + 1},
		"another global": {opGlobalGet, 0},
	} {
		if _, info, err := Instrument(withGlobals(nil, globalOf(typeI32, 0, initial...), globalOf(typeI32, 1, opI32Const, 3)), Options{}); err != nil || info.Variables != 1 {
			t.Errorf("%s: %+v, %v", name, info, err)
		}
	}
}
