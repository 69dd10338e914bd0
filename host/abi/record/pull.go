package record

import (
	"math"
	"strconv"
)

// Pull reads items one after another, without reflection or allocation. Its error is sticky: after
// the first, every method returns the zero value, so a reader asks [Pull.Err] once at the end. Not
// safe for concurrent use.
type Pull struct {
	b   []byte
	p   int
	err error
	s   Scanner
}

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
		d.err = corrupt(d.p, strconv.Itoa(len(d.b)-d.p)+" bytes after the end")
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
	d.err = err
}

func (d *Pull) head(major byte, what string) uint64 {
	if d.err != nil {
		return 0
	}
	if d.p >= len(d.b) {
		d.fail(errShort{})
		return 0
	}
	if d.b[d.p]&0xe0 != major {
		d.fail(corrupt(d.p, what+" expected, found "+hex(d.b[d.p])))
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
func (d *Pull) Uint() uint64 { return d.head(majorUint, "an unsigned integer") }

// Int reads an integer that fits in 64 bits with its sign.
func (d *Pull) Int() int64 {
	neg := d.err == nil && d.p < len(d.b) && d.b[d.p]&0xe0 == majorNeg
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
func (d *Pull) Text() []byte { return d.str(majorText, "a text string") }

// TextOrBytes reads a string of either kind.
func (d *Pull) TextOrBytes() (s []byte, text bool) {
	if d.err == nil && d.p < len(d.b) && d.b[d.p]&0xe0 == majorBytes {
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
func (d *Pull) Array() int { return d.count(majorArray, 1, "an array") }

// Map reads the head of a map: the number of pairs that follow.
func (d *Pull) Map() int { return d.count(majorMap, 2, "a map") }

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
	if d.err != nil {
		return false
	}
	if d.p >= len(d.b) {
		d.fail(errShort{})
		return false
	}
	switch d.b[d.p] {
	case majorOther | 20, majorOther | 21:
		d.p++
		return d.b[d.p-1] == majorOther|21
	}
	d.fail(corrupt(d.p, "true or false expected, found "+hex(d.b[d.p])))
	return false
}

// Skip passes over one item of any kind and returns its bytes.
func (d *Pull) Skip() []byte {
	if d.err != nil {
		return nil
	}
	end, err := d.s.item(d.b, d.p)
	if err != nil {
		d.fail(err)
		return nil
	}
	item := d.b[d.p:end]
	d.p = end
	return item
}
