package record

import (
	"encoding/binary"
	"math"
	"math/bits"
	"strconv"
)

// Pull reads items one after another, without reflection or allocation. Its error is sticky: after
// the first, every method returns the zero value, so a reader asks [Pull.Err] once at the end. Not
// safe for concurrent use.
type Pull struct {
	b   []byte // nil after an error, so that no fast path has to ask for one
	p   int
	err error
	s   Scanner
}

// Kind is what an item is, as [Pull.Peek] tells it.
type Kind uint8

// The kinds of items.
const (
	KindNone  Kind = iota // no item: the end, or an error before it
	KindUint              // an unsigned integer
	KindNeg               // a negative integer
	KindBytes             // a byte string
	KindText              // a text string
	KindArray             // the head of an array
	KindMap               // the head of a map
	KindTag               // the head of a tag
	KindBool              // true or false
	KindNull              // null
	KindFloat             // a float of any width
	KindOther             // undefined, another simple value, or what begins no item
)

// NewPull reads b, which it keeps until the last call.
func NewPull(b []byte) *Pull { return &Pull{b: b} }

// Reset starts over with b, so that one Pull can serve many records.
func (d *Pull) Reset(b []byte) { d.b, d.p, d.err = b, 0, nil }

// Err is the first error met, a *[FormatError], or nil.
func (d *Pull) Err() error { return d.err }

// Offset is how many bytes have been read.
func (d *Pull) Offset() int { return d.p }

// End reports an error if any bytes are left, and returns Err.
func (d *Pull) End() error {
	if d.err == nil && d.p < len(d.b) {
		d.fail(corrupt(d.p, strconv.Itoa(len(d.b)-d.p)+" bytes after the end"))
	}
	return d.err
}

func (d *Pull) fail(err error) {
	if d.err != nil {
		return
	}
	if _, short := err.(errShort); short {
		err = corrupt(d.p, err.Error())
	}
	d.err, d.b = err, nil
}

// Peek is the kind of the item that comes next. It reads nothing and never fails.
func (d *Pull) Peek() Kind {
	if d.p >= len(d.b) {
		return KindNone
	}
	first := d.b[d.p]
	if first < majorOther {
		return KindUint + Kind(first>>5)
	}
	switch first {
	case majorOther | 20, majorOther | 21:
		return KindBool
	case majorOther | 22:
		return KindNull
	case majorOther | 25, majorOther | 26, majorOther | 27:
		return KindFloat
	}
	return KindOther
}

func (d *Pull) head(major byte, what string) uint64 {
	if d.p >= len(d.b) || d.b[d.p]&0xe0 != major {
		d.other(what)
		return 0
	}
	arg, q, err := head(d.b, d.p)
	if err != nil {
		d.fail(err)
		return 0
	}
	d.p = q
	return arg
}

// Uint reads an unsigned integer.
func (d *Pull) Uint() uint64 {
	// The usual case by hand, here and below: in a guest a call costs more than all of this.
	if p := d.p; p < len(d.b) && d.b[p] < majorUint|24 {
		d.p = p + 1
		return uint64(d.b[p])
	}
	return d.head(majorUint, "an unsigned integer")
}

// Int reads an integer that fits in 64 bits with its sign.
func (d *Pull) Int() int64 {
	neg := d.p < len(d.b) && d.b[d.p]&0xe0 == majorNeg
	at := d.p
	var v uint64
	if neg {
		v = d.head(majorNeg, "an integer")
	} else {
		v = d.head(majorUint, "an integer")
	}
	if v > math.MaxInt64 {
		d.fail(corrupt(at, "an integer beyond 64 bits"))
	}
	if d.err != nil {
		return 0
	}
	if neg {
		return -1 - int64(v)
	}
	return int64(v)
}

// Bytes reads a byte string; the result shares memory with the input.
func (d *Pull) Bytes() []byte { return d.str(majorBytes, "a byte string") }

// Text reads a text string; the result shares memory with the input. Whether it is UTF-8 is the
// caller's to check: a [Scanner] has done so for partitions and keys, not for values.
func (d *Pull) Text() []byte {
	if p := d.p; p < len(d.b) {
		if n := int(d.b[p]) - majorText; n >= 0 && n < 24 && n < len(d.b)-p {
			d.p = p + 1 + n
			return d.b[p+1 : p+1+n : p+1+n]
		}
	}
	return d.str(majorText, "a text string")
}

// TextOrBytes reads a string of either kind.
func (d *Pull) TextOrBytes() (s []byte, text bool) {
	if d.p < len(d.b) && d.b[d.p]&0xe0 == majorBytes {
		return d.Bytes(), false
	}
	return d.Text(), true
}

func (d *Pull) str(major byte, what string) []byte {
	n := d.head(major, what)
	if d.err != nil {
		return nil
	}
	if n > uint64(len(d.b)-d.p) {
		d.fail(errShort{})
		return nil
	}
	s := d.b[d.p : d.p+int(n) : d.p+int(n)]
	d.p += int(n)
	return s
}

// Array reads the head of an array: the number of items that follow.
func (d *Pull) Array() int {
	if p := d.p; p < len(d.b) {
		if n := int(d.b[p]) - majorArray; n >= 0 && n < 24 && n < len(d.b)-p {
			d.p = p + 1
			return n
		}
	}
	return d.count(majorArray, 1, "an array")
}

// Map reads the head of a map: the number of pairs that follow.
func (d *Pull) Map() int {
	if p := d.p; p < len(d.b) {
		if n := int(d.b[p]) - majorMap; n >= 0 && n < 24 && 2*n < len(d.b)-p {
			d.p = p + 1
			return n
		}
	}
	return d.count(majorMap, 2, "a map")
}

// Tag reads a tag; its content follows.
func (d *Pull) Tag() uint64 { return d.head(majorTag, "a tag") }

// count refuses a collection that the bytes left cannot hold, so that a caller may allocate by it.
func (d *Pull) count(major byte, each uint64, what string) int {
	at := d.p
	n := d.head(major, what)
	if n > uint64(len(d.b)-d.p)/each {
		d.p = at
		d.fail(errShort{})
		return 0
	}
	return int(n)
}

// Bool reads true or false.
func (d *Pull) Bool() bool {
	if d.p < len(d.b) && d.b[d.p]&^1 == majorOther|20 {
		d.p++
		return d.b[d.p-1] == majorOther|21
	}
	d.other("true or false")
	return false
}

// Null reads null and reports whether it could.
func (d *Pull) Null() bool {
	if d.p < len(d.b) && d.b[d.p] == majorOther|22 {
		d.p++
		return true
	}
	d.other("null")
	return false
}

// Float reads a float of two, four or eight bytes. The bits of a NaN are widened as they are.
func (d *Pull) Float() float64 {
	if d.Peek() != KindFloat {
		d.other("a float")
		return 0
	}
	size := 1 << (d.b[d.p] - (majorOther | 24))
	if len(d.b)-d.p <= size {
		d.fail(errShort{})
		return 0
	}
	b := d.b[d.p+1:]
	d.p += 1 + size
	switch size {
	case 2:
		return math.Float64frombits(widen(uint64(binary.BigEndian.Uint16(b)), 10, 5))
	case 4:
		return math.Float64frombits(widen(uint64(binary.BigEndian.Uint32(b)), 23, 8))
	default:
		return math.Float64frombits(binary.BigEndian.Uint64(b))
	}
}

// widen gives the bits of a float of eight bytes for those of a shorter one, whose fraction and exponent
// have so many bits. (A conversion by the processor would quiet a signalling NaN.)
func widen(v uint64, fraction, exponent int) uint64 {
	const longFraction, longBias, longMax = 52, 1023, 2047
	sign := v >> (fraction + exponent) << 63
	e := int(v >> fraction & (1<<exponent - 1))
	f := v & (1<<fraction - 1)
	bias := 1<<(exponent-1) - 1
	switch {
	case e == 1<<exponent-1: // infinite, or no number
		e = longMax
	case e > 0:
		e += longBias - bias
	case f > 0: // subnormal: shift its first bit to where a longer float has an implied one
		shift := fraction + 1 - bits.Len64(f)
		f = f << shift & (1<<fraction - 1)
		e = longBias - bias + 1 - shift
	}
	return sign | uint64(e)<<longFraction | f<<(longFraction-fraction)
}

// other fails because what comes next is not what is wanted.
func (d *Pull) other(what string) {
	switch {
	case d.err != nil:
	case d.p >= len(d.b):
		d.fail(errShort{})
	default:
		d.fail(corrupt(d.p, what+" expected, found "+hex(d.b[d.p])))
	}
}

// Skip passes over one item of any kind and returns its bytes.
func (d *Pull) Skip() []byte {
	if d.err != nil {
		return nil
	}
	end, err := d.s.items(d.b, d.p, 0, 1)
	if err != nil {
		d.fail(err)
		return nil
	}
	item := d.b[d.p:end]
	d.p = end
	return item
}
