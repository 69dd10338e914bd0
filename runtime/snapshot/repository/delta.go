package repository

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

// A delta makes a piece of another: a sequence of operations, each an unsigned varint n; with n's lowest bit set, n>>1
// bytes are copied from the base, at a place that a signed varint says, counted from where the last copy ended; else the
// n>>1 bytes that follow are taken.

const (
	deltaBlock = 16 // bytes that must be alike to be found
	deltaStep  = 8  // how far apart the blocks are that are looked for
)

// differ writes deltas; it keeps its memory from one to the next. It is not safe for concurrent use.
type differ struct{ table []int32 }

// append adds to dst what makes target of base, unless that would take limit bytes or more: then ok is false.
func (d *differ) append(dst, base, target []byte, limit int) (delta []byte, ok bool) {
	if len(base) < deltaBlock || len(target) < deltaBlock {
		return dst, false
	}
	start := len(dst)
	shift := d.fill(base)
	taken, copied := 0, 0 // of target what is written, of base where the last copy ended
	insert := func(to int) {
		if to > taken {
			dst = binary.AppendUvarint(dst, uint64(to-taken)<<1)
			dst = append(dst, target[taken:to]...)
		}
	}
	for at := 0; at+deltaBlock <= len(target); {
		from := int(d.table[deltaHash(target[at:], shift)]) - 1
		if from < 0 || string(base[from:from+deltaBlock]) != string(target[at:at+deltaBlock]) {
			if at++; len(dst)-start+at-taken >= limit {
				return dst[:start], false
			}
			continue
		}
		end := at + deltaBlock
		for b := from + deltaBlock; end < len(target) && b < len(base) && base[b] == target[end]; b++ {
			end++
		}
		for at > taken && from > 0 && base[from-1] == target[at-1] {
			at--
			from--
		}
		insert(at)
		dst = binary.AppendUvarint(dst, uint64(end-at)<<1|1)
		dst = binary.AppendVarint(dst, int64(from-copied))
		copied = from + end - at
		at, taken = end, end
	}
	insert(len(target))
	return dst, len(dst)-start < limit
}

// fill notes where the blocks of base are.
func (d *differ) fill(base []byte) (shift int) {
	n := bits.Len(uint(2*len(base)/deltaStep)) + 1
	if cap(d.table) < 1<<n {
		d.table = make([]int32, 1<<n)
	}
	d.table = d.table[:1<<n]
	clear(d.table)
	for at := 0; at+deltaBlock <= len(base); at += deltaStep {
		if h := deltaHash(base[at:], 64-n); d.table[h] == 0 {
			d.table[h] = int32(at) + 1
		}
	}
	return 64 - n
}

// deltaHash is multiplicative, by Knuth's golden ratio and a prime of xxHash.
func deltaHash(b []byte, shift int) uint64 {
	return (binary.LittleEndian.Uint64(b)*0x9e3779b97f4a7c15 ^ binary.LittleEndian.Uint64(b[8:])*0xc2b2ae3d27d4eb4f) >> shift
}

// applyDelta adds to dst, which has room for raw bytes, what delta makes of base.
func applyDelta(dst, base, delta []byte, raw int) ([]byte, error) {
	start, copied := len(dst), int64(0)
	for len(delta) > 0 {
		op, n := binary.Uvarint(delta)
		if n <= 0 {
			return nil, errors.New("an operation of the delta is cut off")
		}
		delta = delta[n:]
		length := op >> 1
		if length > uint64(raw-(len(dst)-start)) {
			return nil, errors.New("the delta makes more than it should")
		}
		if op&1 == 0 {
			if length > uint64(len(delta)) {
				return nil, errors.New("the delta ends within what it adds")
			}
			dst = append(dst, delta[:length]...)
			delta = delta[length:]
			continue
		}
		move, n := binary.Varint(delta)
		if n <= 0 {
			return nil, errors.New("an operation of the delta is cut off")
		}
		delta = delta[n:]
		if move < -copied || move > int64(len(base))-copied || length > uint64(int64(len(base))-copied-move) {
			return nil, errors.New("the delta copies what its base does not have")
		}
		from := copied + move
		copied = from + int64(length)
		dst = append(dst, base[from:copied]...)
	}
	if len(dst)-start != raw {
		return nil, errors.New("the delta makes less than it should")
	}
	return dst, nil
}
