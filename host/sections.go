package host

import (
	"encoding/binary"

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
	sectionCode      = 10
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

// leb reads the numbers of a module, which are LEB128 as encoding/binary has it. Past the end it gives
// zeros and is short.
type leb struct {
	b     []byte
	short bool
}

func (r *leb) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.b, r.short = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
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
