package host

import (
	"encoding/binary"
	"math"

	"github.com/torpor-run/torpor/host/abi"
)

// Ids of the sections of a module, and kinds of what it imports (WebAssembly core specification 2.0,
// sections 5.5.2 and 5.5.5).
const (
	sectionCustom    = 0
	sectionImport    = 2
	sectionFunction  = 3
	sectionTable     = 4
	sectionMemory    = 5
	sectionStart     = 8
	sectionElement   = 9
	sectionCode      = 10
	sectionData      = 11
	sectionDataCount = 12
	sectionTag       = 13

	importFunction = 0
	importTable    = 1
	importMemory   = 2
	importGlobal   = 3
)

// checkSections refuses what the ABI forbids and wazero either allows or does not tell apart: it looks
// at a module's outermost shape before anything is compiled.
func (c *code) checkSections() error {
	wasm := c.wasm
	if len(wasm) < 8 || string(wasm[:4]) != "\x00asm" {
		return c.refusal(abi.ErrCorrupt, "this is no WebAssembly module: it does not begin with \\0asm")
	}
	if string(wasm[4:8]) != "\x01\x00\x00\x00" {
		return c.refusal(abi.ErrVersion, "a WebAssembly component or another binary version (% x); a core module of version 1 is needed", wasm[4:8])
	}
	for at := 8; at < len(wasm); {
		id := wasm[at]
		r := leb{b: wasm[at+1:]}
		body := leb{b: r.bytes(r.uint())}
		if r.short {
			return c.refusal(abi.ErrCorrupt, "it is cut short: the section at offset %d goes on past the end", at)
		}
		if entries := body; id != sectionCustom && id != sectionStart && id != sectionDataCount {
			// wazero makes room for all entries before it reads the first; each takes a byte or more.
			n := entries.uint()
			if n > uint64(len(entries.b)) {
				return c.refusal(abi.ErrCorrupt, "the section at offset %d has %d entries in %d bytes", at, n, len(entries.b))
			}
			if n > maxSectionEntries && id != sectionFunction && id != sectionCode { // those are for package fuel to bound
				return c.refusal(abi.ErrTooLarge, "the section at offset %d has %d entries; the limit is %d", at, n, maxSectionEntries)
			}
		}
		at = len(wasm) - len(r.b)
		var err error
		switch id {
		case sectionCustom:
			err = c.checkCustom(&body)
		case sectionElement:
			err = c.checkElements(&body)
		case sectionData:
			checkData(&body)
		case sectionImport:
			err = c.checkImports(&body)
		case sectionTable:
			err = c.checkTable(&body)
		case sectionMemory:
			err = c.checkMemory(&body)
		case sectionStart:
			err = c.refusal(nil, "it has a start section; what must run first is %s", abi.ExportInitialize)
		case sectionTag:
			err = c.refusal(nil, "it uses exceptions, which serializers do not have")
		}
		if err == nil && body.short {
			err = c.refusal(abi.ErrCorrupt, "the section that ends at offset %d is damaged", at)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkImports refuses imports of anything but functions; those are looked at when they are compiled.
func (c *code) checkImports(r *leb) error {
	for n := r.uint(); n > 0 && !r.short; n-- {
		from, name := r.bytes(r.uint()), r.bytes(r.uint())
		kind := r.byte()
		if kind == importFunction {
			r.uint() // its type
			continue
		}
		what := "something of an unknown kind"
		switch kind {
		case importTable:
			what = "a table"
		case importMemory:
			what = "a memory"
		case importGlobal:
			what = "a global"
		}
		if r.short {
			break
		}
		return c.refusal(nil, "it imports %s, %s.%s; a serializer imports functions only and owns its memory", what, from, name)
	}
	return nil
}

// tables is what a module's tables begin with and may grow to, all together.
type tables struct {
	least, most uint64 // elements
	unbounded   bool   // one declares no maximum
}

// checkTable refuses tables that begin above the limit; wazero would make them without a look.
func (c *code) checkTable(r *leb) error {
	for n := r.uint(); n > 0 && !r.short; n-- {
		if kind := r.byte(); kind == 0x63 || kind == 0x64 { // a reference to a type that follows
			r.uint()
		} else if kind == 0x40 { // with an initial value
			return c.refusal(abi.ErrVersion, "one of its tables has an initial value, which is of a later WebAssembly")
		}
		flags := r.byte()
		least := r.uint()
		c.tables.least += min(least, 1<<32)
		if flags&1 != 0 {
			c.tables.most += min(r.uint(), 1<<32)
		} else {
			c.tables.unbounded = true
		}
		if r.short {
			break
		}
		if flags > 1 {
			return c.refusal(nil, "one of its tables is shared or of 64 bits; a serializer's is neither")
		}
		if limit := uint64(c.limits.TableElements); c.tables.least > limit {
			return c.refusal(abi.ErrTooLarge, "its tables begin with %d elements; the limit is %d", c.tables.least, limit)
		}
	}
	return nil
}

// checkMemory refuses a memory that begins above the limit, or is shared or of 64 bits.
func (c *code) checkMemory(r *leb) error {
	for n := r.uint(); n > 0 && !r.short; n-- {
		flags := r.byte()
		pages := r.uint()
		if flags&1 != 0 {
			r.uint() // its maximum; memory ends at the limit all the same
		}
		if r.short {
			break
		}
		if flags > 1 {
			return c.refusal(nil, "its memory is shared or of 64 bits; a serializer's is neither")
		}
		if limit := uint64(c.limits.MemoryBytes / wasmPage); pages > limit {
			return c.refusal(abi.ErrTooLarge, "it begins with %d pages of memory (64 KiB each); the limit is %d", pages, limit)
		}
	}
	return nil
}

// checkData looks whether data segments are as long as they say: wazero makes room before it reads them.
func checkData(r *leb) {
	for n := r.uint(); n > 0 && !r.short; n-- {
		flags := r.uint()
		if flags == 2 {
			r.uint() // the memory
		}
		if flags != 1 {
			r.constant()
		}
		r.bytes(r.uint())
	}
}

// checkElements bounds the elements of all segments: wazero makes room before it reads them, and again in
// each instance.
func (c *code) checkElements(r *leb) error {
	const passive, explicit, expressions = 1, 2, 4 // bits of a segment's flags
	total := uint64(0)
	for n := r.uint(); n > 0 && !r.short; n-- {
		flags := r.uint()
		if flags&(passive|explicit) == explicit {
			r.uint() // the table
		}
		if flags&passive == 0 {
			r.constant()
		}
		if flags&(passive|explicit) != 0 { // a kind, or a type
			if kind := r.byte(); flags&expressions != 0 && (kind == 0x63 || kind == 0x64) {
				r.uint()
			}
		}
		elements := r.uint()
		if elements > uint64(len(r.b)) {
			r.short = true
			break
		}
		if total += elements; total > uint64(c.limits.TableElements) {
			return c.refusal(abi.ErrTooLarge, "its element segments hold %d elements or more; the limit is that of tables, %d", total, c.limits.TableElements)
		}
		for ; elements > 0 && !r.short; elements-- {
			if flags&expressions != 0 {
				r.constant()
			} else {
				r.uint()
			}
		}
	}
	return nil
}

// checkCustom looks at the one custom section that wazero reads, the names of functions and locals: it
// makes room before it reads them.
func (c *code) checkCustom(r *leb) error {
	if string(r.bytes(r.uint())) != "name" {
		r.short = false // what it is, nobody reads
		return nil
	}
	const ofFunctions, ofLocals = 1, 2
	total := uint64(0)
	names := func(r *leb) {
		n := r.uint()
		if total += min(n, maxNames+1); total > maxNames || n > uint64(len(r.b)) {
			r.short = true
		}
		for ; n > 0 && !r.short; n-- {
			r.uint()
			r.bytes(r.uint())
		}
	}
	for len(r.b) > 0 && !r.short {
		id := r.byte()
		part := leb{b: r.bytes(r.uint())}
		switch id {
		case 0: // of the module
			part.bytes(part.uint())
		case ofFunctions:
			names(&part)
		case ofLocals:
			n := part.uint()
			if n > uint64(len(part.b)) || n > maxNames {
				part.short = true
			}
			for ; n > 0 && !part.short; n-- {
				part.uint()
				names(&part)
			}
		default:
			part.b = nil
		}
		if total > maxNames {
			return c.refusal(abi.ErrTooLarge, "its name section has more than %d names", maxNames)
		}
		// wazero goes by the counts, not by the lengths of the parts.
		r.short = r.short || part.short || len(part.b) > 0
	}
	if r.short {
		return c.refusal(abi.ErrCorrupt, "its name section is damaged")
	}
	return nil
}

// leb reads the numbers of a module, which are LEB128 as encoding/binary has it. Past the end it gives
// zeros and is short.
type leb struct {
	b     []byte
	short bool
}

func (r *leb) uint() uint64 {
	v, _ := r.number()
	return v
}

// number gives the bits of a number and how many bytes it takes.
func (r *leb) number() (v uint64, n int) {
	v, n = binary.Uvarint(r.b)
	if n <= 0 {
		r.b, r.short = nil, true
		return 0, 0
	}
	r.b = r.b[n:]
	return v, n
}

// maxLEB32 is how many bytes a number of 32 bits may take.
const maxLEB32 = 5

// u32 is uint for a number of 32 bits; where it is larger, or takes too many bytes, that counts as cut short.
func (r *leb) u32() uint64 {
	v, n := r.number()
	r.short = r.short || n > maxLEB32 || v > math.MaxUint32
	return v
}

// i32 is u32 for a number with a sign.
func (r *leb) i32() int32 {
	v, n := r.number()
	if bits := 7 * n; bits > 0 && v>>(bits-1) != 0 {
		v |= math.MaxUint64 << bits
	}
	r.short = r.short || n > maxLEB32 || int64(v) != int64(int32(v))
	return int32(v)
}

// constant reads past a constant expression. What is none of those that wazero knows counts as cut short.
func (r *leb) constant() {
	for !r.short {
		switch op := r.byte(); op {
		case 0x0b: // end
			return
		case 0x23, 0x41, 0x42, 0xd0, 0xd2: // global.get, i32.const, i64.const, ref.null, ref.func
			for r.byte() >= 0x80 { // a number, with a sign or not
			}
		case 0x43: // f32.const
			r.bytes(4)
		case 0x44: // f64.const
			r.bytes(8)
		case 0x6a, 0x6b, 0x6c, 0x7c, 0x7d, 0x7e: // add, sub and mul of i32 and i64
		case 0xfd: // v128.const
			r.short = r.short || r.byte() != 0x0c
			r.bytes(16)
		default:
			r.short = true
		}
	}
}

func (r *leb) byte() byte {
	b := r.bytes(1)
	if r.short {
		return 0
	}
	return b[0]
}

func (r *leb) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.b, r.short = nil, true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}
