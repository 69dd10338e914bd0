package fuel

import (
	"fmt"
	"slices"
	"strings"

	"github.com/torpor-run/torpor/host/abi"
)

// Ids of sections (WebAssembly core specification 2.0, section 5.5.2).
const (
	sectionCustom    = 0
	sectionType      = 1
	sectionImport    = 2
	sectionFunction  = 3
	sectionTable     = 4
	sectionMemory    = 5
	sectionGlobal    = 6
	sectionExport    = 7
	sectionStart     = 8
	sectionElement   = 9
	sectionCode      = 10
	sectionData      = 11
	sectionDataCount = 12
	sectionTag       = 13
)

// Kinds of imports and exports.
const (
	kindFunction = 0
	kindTable    = 1
	kindMemory   = 2
	kindGlobal   = 3
)

// rank is the place of a section in a module; ok is false for an unknown one.
func rank(id byte) (place int, ok bool) {
	place = slices.Index([]byte{sectionType, sectionImport, sectionFunction, sectionTable, sectionMemory, sectionGlobal,
		sectionExport, sectionStart, sectionElement, sectionDataCount, sectionCode, sectionData}, id)
	return place, place >= 0
}

// section is a section as it is found.
type section struct {
	id         byte
	start, end int  // with its header
	body       int  // where its content begins
	stale      bool // it tells of offsets in the code, which do not stay
}

// signature is how many values a function takes and gives.
type signature struct {
	params, results int
	from, to        int // where the types of the results are
}

// module is what must be known of a module to rewrite its functions.
type module struct {
	wasm     []byte
	sections []section
	types    []signature
	entries  int      // of the type section: a group is one
	funcs    []uint32 // types of all functions, the imported ones first
	imported int      // how many of them are imported
	globals  uint32   // how many globals there are, the imported ones first
	defined  uint32   // how many of them are the module's own
	exports  int
	bodies   []body
	mutable  []uint32 // indices of the module's own globals that are variables of a number type
	keeps    bool     // what a call changes may be out of the reach of memory and of those globals
	grows    bool     // a table may grow
	refers   bool     // code makes references to functions
	segments bool     // code names data segments
}

// body is one function's code in the module.
type body struct {
	start, end int // without its size
}

// corrupt is an error about bytes that cannot be what they stand for.
func corrupt(what string, off int, why string) error {
	return fmt.Errorf("fuel: %s, offset %#x: %s: %w", what, off, why, abi.ErrCorrupt)
}

// tooLarge is an error about a limit.
func tooLarge(what string, n, limit int) error {
	return fmt.Errorf("fuel: %s: %d; the limit is %d: %w", what, n, limit, abi.ErrTooLarge)
}

// parse finds the sections of a module and reads those that matter.
func parse(wasm []byte, export string) (*module, error) {
	if len(wasm) > MaxModuleBytes {
		return nil, tooLarge("bytes of the module", len(wasm), MaxModuleBytes)
	}
	if len(wasm) < 8 || string(wasm[:4]) != "\x00asm" {
		return nil, corrupt("header", 0, "this is no WebAssembly module: it does not begin with \\0asm")
	}
	if string(wasm[4:8]) != "\x01\x00\x00\x00" {
		return nil, fmt.Errorf("fuel: header: binary version % x; a core module of version 1 is needed: %w", wasm[4:8], abi.ErrVersion)
	}
	m := &module{wasm: wasm}
	last := -1
	for r := (reader{b: wasm, at: 8, end: len(wasm)}); r.left() > 0; {
		s := section{start: r.at}
		s.id = r.byte()
		size := r.u32()
		s.body = r.at
		content := r.part(uint64(size))
		s.end = r.at
		what := fmt.Sprintf("section %d", s.id)
		if r.bad() {
			return nil, corrupt(what, r.off, r.why)
		}
		if s.id == sectionTag {
			return nil, fmt.Errorf("fuel: section %d, offset %#x: exceptions are not known here: %w", s.id, s.start, abi.ErrVersion)
		}
		if s.id != sectionCustom {
			place, ok := rank(s.id)
			if !ok {
				return nil, fmt.Errorf("fuel: section %d, offset %#x: not known: %w", s.id, s.start, abi.ErrVersion)
			}
			if place <= last {
				return nil, corrupt(what, s.start, "it stands twice or in the wrong place")
			}
			last = place
		}
		if s.id == sectionCustom {
			// DWARF: wazero would name wrong lines of source in traps. Names of functions stay right.
			s.stale = strings.HasPrefix(string(content.bytes(uint64(content.u32()))), ".debug_")
		} else if err := m.read(s.id, &content, export); err != nil {
			return nil, err
		}
		switch s.id {
		case sectionType, sectionImport, sectionFunction, sectionGlobal, sectionExport, sectionCode: // read to their end
			if content.left() > 0 {
				content.fail("the section goes on past its last entry")
			}
		}
		if content.bad() {
			return nil, corrupt(what, content.off, content.why)
		}
		m.sections = append(m.sections, s)
	}
	if n := len(m.funcs) - m.imported; n != len(m.bodies) {
		return nil, corrupt("code", len(wasm), fmt.Sprintf("%d functions are declared and %d have code", n, len(m.bodies)))
	}
	return m, nil
}

// read reads the content of a section. What it cannot read makes r bad; the error is for the rest.
func (m *module) read(id byte, r *reader, export string) error {
	switch id {
	case sectionType:
		return m.readTypes(r)
	case sectionImport:
		return m.readImports(r)
	case sectionFunction:
		n := r.count()
		if n > MaxFunctions {
			return tooLarge("functions", n, MaxFunctions)
		}
		m.funcs = slices.Grow(m.funcs, n)
		for ; n > 0 && !r.bad(); n-- {
			m.funcs = append(m.funcs, m.typeIndex(r))
		}
	case sectionGlobal:
		return m.readGlobals(r)
	case sectionExport:
		return m.readExports(r, export)
	case sectionCode:
		n := r.count()
		if declared := len(m.funcs) - m.imported; !r.bad() && n != declared {
			r.fail(fmt.Sprintf("%d functions are declared and %d have code", declared, n))
		}
		m.bodies = slices.Grow(m.bodies, n)
		for ; n > 0 && !r.bad(); n-- {
			size := r.u32()
			if size > MaxFunctionBytes {
				return tooLarge(fmt.Sprintf("bytes of function %d", m.imported+len(m.bodies)), int(size), MaxFunctionBytes)
			}
			start := r.at
			r.bytes(uint64(size))
			m.bodies = append(m.bodies, body{start, r.at})
		}
	default:
		return nil // kept as it is
	}
	return nil
}

// typeIndex reads the index of a function type.
func (m *module) typeIndex(r *reader) uint32 {
	i := r.u32()
	if !r.bad() && uint64(i) >= uint64(len(m.types)) {
		r.fail(fmt.Sprintf("there is no type %d", i))
	}
	return i
}

const (
	typeFunction = 0x60
	typeGroup    = 0x4e // of types that refer to one another
)

func (m *module) readTypes(r *reader) error {
	m.entries = r.count()
	for n := m.entries; n > 0 && !r.bad(); n-- {
		form := r.byte()
		group := 1
		if form == typeGroup {
			if group = r.count(); group > 0 {
				form = r.byte()
			}
		}
		for ; group > 0 && !r.bad(); group-- {
			if form != typeFunction {
				r.fail("this is no function type")
				break
			}
			var s signature
			for _, to := range []*int{&s.params, &s.results} {
				if *to = r.count(); *to > MaxValues {
					return tooLarge(fmt.Sprintf("parameters or results of type %d", len(m.types)), *to, MaxValues)
				}
				s.from = r.at
				for range *to {
					r.valueType()
				}
				s.to = r.at
			}
			m.types = append(m.types, s)
			if group > 1 {
				form = r.byte()
			}
		}
	}
	return nil
}

func (m *module) readImports(r *reader) error {
	for n := r.count(); n > 0 && !r.bad(); n-- {
		r.bytes(uint64(r.u32()))
		r.bytes(uint64(r.u32()))
		switch kind := r.byte(); kind {
		case kindFunction:
			if len(m.funcs) == MaxFunctions {
				return tooLarge("imported functions", len(m.funcs)+1, MaxFunctions)
			}
			m.funcs = append(m.funcs, m.typeIndex(r))
		case kindTable, kindMemory:
			if kind == kindTable {
				r.valueType()
			}
			flags := r.byte()
			r.u32()
			if flags&1 != 0 {
				r.u32()
			}
		case kindGlobal:
			r.valueType()
			r.byte()
			m.globals++
		default:
			return fmt.Errorf("fuel: imports, offset %#x: kind %d is not known: %w", r.at-1, kind, abi.ErrVersion)
		}
	}
	m.imported = len(m.funcs)
	return nil
}

func (m *module) readGlobals(r *reader) error {
	m.defined = uint32(r.count())
	for i := range m.defined {
		if r.bad() {
			break
		}
		number := false
		if r.left() > 0 {
			number = r.b[r.at] >= typeF64 && r.b[r.at] <= typeI32
		}
		r.valueType()
		if r.byte() == 1 { // a variable
			if number {
				m.mutable = append(m.mutable, m.globals+i)
			} else {
				m.keeps = true
			}
		}
		if err := m.readConstant(r); err != nil {
			return err
		}
	}
	m.globals += m.defined
	return nil
}

// readConstant reads past a constant expression. Whether it is one of the right type is wazero's matter.
func (m *module) readConstant(r *reader) error {
	for !r.bad() {
		at := r.at
		switch op := r.byte(); {
		case op == opEnd:
			return nil
		case op == opGlobalGet || op == opRefFunc:
			r.u32()
		case op == opI32Const:
			r.sint(32)
		case op == opI64Const:
			r.sint(64)
		case op == opF32Const:
			r.bytes(4)
		case op == opF64Const:
			r.bytes(8)
		case op == opRefNull:
			r.sint(33)
		case op >= opI32Add && op <= opI32Mul || op >= opI64Add && op <= opI64Mul:
		case op == opVector:
			if sub := r.u32(); !r.bad() && sub != vectorConst {
				return fmt.Errorf("fuel: globals, offset %#x: instruction %#x %#x is not known in a constant: %w", at, op, sub, abi.ErrVersion)
			}
			r.bytes(16)
		default:
			if !r.bad() {
				return fmt.Errorf("fuel: globals, offset %#x: instruction %#x is not known in a constant: %w", at, op, abi.ErrVersion)
			}
		}
	}
	return nil
}

// reserved reports whether name is one that the counter, or a variable told by [Info.Variables], would have.
func reserved(name, export string) bool {
	rest, ok := strings.CutPrefix(name, export)
	return ok && (rest == "" || rest[0] == '.')
}

func (m *module) readExports(r *reader, export string) error {
	m.exports = r.count()
	for n := m.exports; n > 0 && !r.bad(); n-- {
		at := r.at
		name := r.bytes(uint64(r.u32()))
		kind := r.byte()
		i := r.u32()
		if r.bad() {
			break
		}
		if reserved(string(name), export) {
			return fmt.Errorf("fuel: exports, offset %#x: the module exports %q; that name is kept for the fuel counter: %w", at, name, abi.ErrCorrupt)
		}
		if kind == kindGlobal && i >= m.globals {
			r.fail(fmt.Sprintf("there is no global %d", i))
		}
	}
	return nil
}
