package fuel

import (
	"math"
	"strconv"
)

// Version is that of the rules by which modules are rewritten: it changes whenever the same module and
// options give another result, be it an [Info] that tells more.
const Version = 3

// DefaultExport is the name under which a module's counter is exported if [Options] name none.
const DefaultExport = "torpor_fuel"

// Limits on the modules that are taken. They bound all memory that [Instrument] uses, and what it takes to
// compile the result: some functions of a few kilobytes take wazero minutes. The largest functions of Go
// programs have a complexity of 30,000.
const (
	MaxModuleBytes   = 64 << 20  // of the module
	MaxResultBytes   = 256 << 20 // of the instrumented module
	MaxFunctionBytes = 512 << 10 // of one function's code
	MaxFunctions     = 200_000   // imported and own ones
	MaxLocals        = 5_000     // declared by a function
	MaxValues        = 1_000     // parameters or results of a type
	MaxNesting       = 10_000    // blocks within one another
	MaxComplexity    = 1_500_000 // of a function: blocks x (locals + blocks/100), where labels of br_table and more count as blocks
)

// What costs how much.
const (
	unitBits      = 4  // log2 of the bytes of memory that a unit pays for
	pageBits      = 16 // log2 of the bytes of a page of memory
	itemBits      = 3  // log2 of the bytes of a reference in a table
	valuesPerUnit = 8  // parameters, results and locals that a unit pays for

	divideCost = 4  // of whole numbers
	rootCost   = 16 // square roots, and division of floats
	bulkCost   = 16 // memory.copy and the like, beside what they move
	growCost   = 64 // memory.grow and table.grow, beside what they add: the guest is left for it

	labelsPerBlock = 4   // labels of br_table that are as hard to compile as a block
	blocksPerLocal = 100 // as many blocks make a function as hard to compile as one local more
)

const (
	// defaultSlack was found by measuring: less means more charges, more makes code in which wazero
	// shares registers badly. See BenchmarkSerializers.
	defaultSlack = 4
	maxRounds    = 16                // for distribute; real code takes no more than a few
	unbounded    = math.MaxInt64 / 4 // more than any code costs
)

// Options say how a module is instrumented.
type Options struct {
	// Export is the name of the exported counter; "" means [DefaultExport].
	Export string
	// Initial is what a new instance's counter begins with. With 0, nothing of the module can run until
	// its host has set the counter; that is right unless the module has a start section.
	Initial int64

	slack int64 // more than 0: other than defaultSlack; less than 0: none
}

// Info tells of an instrumented module.
type Info struct {
	Global    uint32 // index of the counter among the globals
	Functions int    // functions with code
	Charges   int    // places at which the counter is lowered
	BytesIn   int    // size of the module
	BytesOut  int    // size of the instrumented module

	// Variables is how many of the module's own globals are variables: they are exported too, as the
	// counter's name with ".0" and so on behind it. With them and its memory an instance can be put back
	// into a state it had before, unless Keeps says otherwise.
	Variables int
	// Keeps tells that a call may change more than memory and Variables: a table, a global that holds a
	// vector or a reference, or which data and elements were dropped. Then no variable is exported.
	Keeps bool
	// GrowsTables tells that the code can make a table grow.
	GrowsTables bool
	// RefersToFunctions tells that the code makes references to functions (ref.func; element segments
	// and globals do not count). wazero takes some 30 bytes for each that is made, until the instance is
	// closed.
	RefersToFunctions bool
	// NamesData tells that the code names data segments (memory.init, data.drop), so that a module without
	// them would be another.
	NamesData bool
}

// MaxVariables is how many variables are exported; a module with more is said to keep some.
const MaxVariables = 1_000

// Instrument gives a copy of the module that counts fuel. See the package's comment for what it costs
// and guarantees. wasm is not changed and not kept; the same bytes and options always give the same
// result, and instrumenting may go on in many goroutines at once.
//
// The module need not have been validated: what is not WebAssembly gives an error, never a panic. But
// Instrument does not check types, so the result must be validated as any module must, by compiling it.
//
// Errors wrap abi.ErrCorrupt for bytes that are no module and for one that exports the counter's name, or
// one that begins with it and a point, abi.ErrVersion for sections and instructions that are not known, and abi.ErrTooLarge for a
// limit; they tell the function, by its index, and the offset in wasm.
func Instrument(wasm []byte, opt Options) ([]byte, Info, error) {
	if opt.Export == "" {
		opt.Export = DefaultExport
	}
	switch {
	case opt.slack == 0:
		opt.slack = defaultSlack
	case opt.slack < 0:
		opt.slack = 0
	}
	m, err := parse(wasm, opt.Export)
	if err != nil {
		return nil, Info{}, err
	}
	info := Info{Global: m.globals, Functions: len(m.bodies), BytesIn: len(wasm)}
	e := emitter{global: uint64(m.globals), added: map[string]uint64{}, next: uint64(len(m.types))}
	code, err := m.instrument(opt, &e)
	if err != nil {
		return nil, Info{}, err
	}
	info.Charges = e.charges
	if len(m.mutable) > MaxVariables {
		m.keeps = true
	}
	if m.keeps {
		m.mutable = nil
	}
	info.Variables, info.Keeps, info.GrowsTables = len(m.mutable), m.keeps, m.grows
	info.RefersToFunctions, info.NamesData = m.refers, m.segments
	out := m.assemble(opt, code, &e)
	if len(out) > MaxResultBytes {
		return nil, Info{}, tooLarge("bytes of the instrumented module", len(out), MaxResultBytes)
	}
	info.BytesOut = len(out)
	return out, info, nil
}

// instrument gives the new content of the code section.
func (m *module) instrument(opt Options, e *emitter) ([]byte, error) {
	code := appendUint(nil, uint64(len(m.bodies)))
	var f function
	for i := range m.bodies {
		if err := f.scan(m, i); err != nil {
			return nil, err
		}
		f.distribute(opt.slack)
		f.keep()
		e.out = e.out[:0]
		e.emit(&f)
		code = append(appendUint(code, uint64(len(e.out))), e.out...)
		if len(code) > MaxResultBytes {
			return nil, tooLarge("bytes of the instrumented module", len(code), MaxResultBytes)
		}
	}
	return code, nil
}

// assemble puts the new module together.
func (m *module) assemble(opt Options, code []byte, e *emitter) []byte {
	out := append(make([]byte, 0, len(m.wasm)+len(code)+64), m.wasm[:8]...)
	var global, export []byte
	global = append(global, typeI64, 1, opI64Const)
	global = append(appendInt(global, opt.Initial), opEnd)
	export = appendExport(export, opt.Export, m.globals)
	for i, global := range m.mutable {
		export = appendExport(export, Variable(opt.Export, i), global)
	}
	exports := 1 + len(m.mutable)
	// A section that is missing comes before the first that must follow it or, if there is none, behind
	// the last that must precede it: custom sections at the end stay there.
	missing := []struct {
		id      byte
		content []byte
	}{{sectionGlobal, append([]byte{1}, global...)}, {sectionExport, append(appendUint(nil, uint64(exports)), export...)}}
	last := -1
	for i, s := range m.sections {
		if s.id != sectionCustom {
			last = i
		}
	}
	for i, s := range m.sections {
		if s.id == sectionCustom {
			if i > last {
				for _, add := range missing {
					out = appendSection(out, add.id, add.content)
				}
				missing = nil
			}
			if !s.stale {
				out = append(out, m.wasm[s.start:s.end]...)
			}
			continue
		}
		place, _ := rank(s.id)
		for len(missing) > 0 {
			if own, _ := rank(missing[0].id); own > place {
				break
			} else if own < place {
				out = appendSection(out, missing[0].id, missing[0].content)
			}
			missing = missing[1:]
		}
		switch s.id {
		case sectionType:
			out = appendSection(out, s.id, m.grow(s, uint64(m.entries+len(e.added)), e.types))
		case sectionGlobal:
			out = appendSection(out, s.id, m.grow(s, uint64(m.defined)+1, global))
		case sectionExport:
			out = appendSection(out, s.id, m.grow(s, uint64(m.exports+exports), export))
		case sectionCode:
			out = appendSection(out, s.id, code)
		default:
			out = append(out, m.wasm[s.start:s.end]...)
		}
	}
	for _, add := range missing {
		out = appendSection(out, add.id, add.content)
	}
	return out
}

// Variable is the name under which the i-th variable of a module is exported, beside the counter's.
func Variable(export string, i int) string { return export + "." + strconv.Itoa(i) }

func appendExport(dst []byte, name string, global uint32) []byte {
	dst = append(appendUint(dst, uint64(len(name))), name...)
	return appendUint(append(dst, kindGlobal), uint64(global))
}

// grow gives the content of a section with more entries behind it, which make it n.
func (m *module) grow(s section, n uint64, more []byte) []byte {
	r := reader{b: m.wasm, at: s.body, end: s.end}
	r.u32()
	content := append(appendUint(nil, n), m.wasm[r.at:s.end]...)
	return append(content, more...)
}

func appendSection(dst []byte, id byte, content []byte) []byte {
	return append(appendUint(append(dst, id), uint64(len(content))), content...)
}
