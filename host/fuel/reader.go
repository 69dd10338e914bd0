package fuel

// reader reads the parts of a module. After the first thing that cannot be read it is bad: it says why
// and where, and gives zeros.
type reader struct {
	b   []byte // the whole module
	at  int    // where the next byte is
	end int    // where the part that is read ends
	why string // what was wrong; "" while nothing was
	off int    // where it was wrong
}

// fail makes the reader bad, if it is not so already.
func (r *reader) fail(why string) {
	if r.why == "" {
		r.why, r.off = why, r.at
	}
	r.at = r.end
}

func (r *reader) bad() bool { return r.why != "" }

// left is how many bytes there are.
func (r *reader) left() int { return r.end - r.at }

func (r *reader) byte() byte {
	if r.at >= r.end {
		r.fail("it is cut short")
		return 0
	}
	b := r.b[r.at]
	r.at++
	return b
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(r.left()) {
		r.fail("it is cut short")
		return nil
	}
	b := r.b[r.at : r.at+int(n)]
	r.at += int(n)
	return b
}

// part is a reader of the next n bytes, which are skipped.
func (r *reader) part(n uint64) reader {
	start := r.at
	r.bytes(n)
	return reader{b: r.b, at: min(start, r.at), end: r.at}
}

// zero reads a reserved byte. wazero, unlike the specification's grammar, knows one encoding of it only.
func (r *reader) zero() {
	if r.byte() != 0 {
		r.fail("a reserved byte is not zero")
	}
}

// uint reads an unsigned LEB128 number of up to bits bits, in as many bytes as the specification
// allows: not only in the fewest.
func (r *reader) uint(bits uint) uint64 {
	var v uint64
	for shift := uint(0); ; shift += 7 {
		b := r.byte()
		if rest := bits - shift; rest < 7 && b>>rest != 0 {
			r.fail("a number is too long or too large")
			return 0
		}
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
}

func (r *reader) u32() uint32 { return uint32(r.uint(32)) }

// count reads how many things follow, of which each takes a byte or more.
func (r *reader) count() int {
	n := r.u32()
	if uint64(n) > uint64(r.left()) {
		r.fail("more entries are announced than there are bytes")
		return 0
	}
	return int(n)
}

// sint reads a signed LEB128 number of up to bits bits.
func (r *reader) sint(bits uint) int64 {
	var v int64
	for shift := uint(0); ; shift += 7 {
		b := r.byte()
		if rest := bits - shift; rest < 7 {
			// The last byte there may be: its unused bits continue the sign.
			if top := int8(b<<1) >> rest; b >= 0x80 || top != 0 && top != -1 {
				r.fail("a number is too long or too large")
				return 0
			}
		}
		v |= int64(b&0x7f) << shift
		if b < 0x80 {
			if shift += 7; shift < 64 && b&0x40 != 0 {
				v |= -1 << shift
			}
			return v
		}
	}
}

// Value types that take more than a byte: a reference, nullable or not, to a heap type that follows.
const (
	refNull = 0x63
	ref     = 0x64
)

// valueType reads past a value type. Which ones there are is wazero's matter.
func (r *reader) valueType() {
	if b := r.byte(); b == refNull || b == ref {
		r.sint(33)
	}
}

func appendUint(dst []byte, v uint64) []byte {
	for v >= 0x80 {
		dst = append(dst, byte(v)|0x80)
		v >>= 7
	}
	return append(dst, byte(v))
}

func appendInt(dst []byte, v int64) []byte {
	for v < -0x40 || v >= 0x40 {
		dst = append(dst, byte(v)|0x80)
		v >>= 7
	}
	return append(dst, byte(v)&0x7f)
}
