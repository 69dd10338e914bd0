package host

// segment is what memory holds at one place at the start.
type segment struct {
	at    uint32
	bytes []byte
}

// takeData takes the data segments out of the instrumented module, for wazero writes them in every instance
// it makes, of thousands of which those of a Go guest have: most of what an empty call of one took. The first
// instance gets them from the host, and the others its image of memory. Where the host cannot be sure to do
// what wazero would, they stay.
func (c *code) takeData(metered []byte) []byte {
	if c.info.NamesData {
		return metered
	}
	segments, ok := plainSegments(c.wasm)
	if !ok {
		return metered
	}
	c.data = segments
	out := append(make([]byte, 0, len(metered)), metered[:8]...)
	_ = eachSection(metered, func(id byte, whole, _ []byte) bool {
		if id != sectionData && id != sectionDataCount {
			out = append(out, whole...)
		}
		return true
	})
	return out
}

// eachSection goes through the sections of a module for as long as visit gives true, and reports whether
// they all were sound and visited. whole is a section with its head, body what is in it.
func eachSection(wasm []byte, visit func(id byte, whole, body []byte) bool) bool {
	for at := 8; at < len(wasm); {
		r := leb{b: wasm[at+1:]}
		body := r.bytes(r.uint())
		end := len(wasm) - len(r.b)
		if r.short || !visit(wasm[at], wasm[at:end], body) {
			return false
		}
		at = end
	}
	return true
}

// plainSegments gives the data segments of a module if all are at fixed places within what its one memory
// has at the start, and if there is nothing about them that wazero might find fault with. Of the order of
// sections package fuel takes care.
func plainSegments(wasm []byte) (segments []segment, ok bool) {
	memories, size := uint64(0), uint64(0)
	counted, count := false, uint64(0)
	ok = eachSection(wasm, func(id byte, _, body []byte) bool {
		r := leb{b: body}
		switch id {
		case sectionMemory:
			memories = r.u32()
			r.byte()
			size = r.u32() * wasmPage
			return !r.short
		case sectionDataCount:
			counted, count = true, r.u32()
			return !r.short && len(r.b) == 0
		case sectionData:
			n := r.u32()
			if r.short || counted && n != count {
				return false
			}
			for ; n > 0; n-- {
				const inMemory, constant, end = 0, 0x41, 0x0b
				if r.byte() != inMemory || r.byte() != constant {
					return false
				}
				s := segment{at: uint32(r.i32())}
				if r.byte() != end {
					return false
				}
				s.bytes = r.bytes(r.u32())
				if r.short || uint64(s.at)+uint64(len(s.bytes)) > size {
					return false
				}
				segments = append(segments, s)
			}
			return len(r.b) == 0
		}
		return true
	})
	return segments, ok && memories == 1 && len(segments) > 0
}
