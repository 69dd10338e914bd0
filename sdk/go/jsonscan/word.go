package jsonscan

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// What follows looks at eight bytes at a time. In a guest a jump costs some 4 ns and a call 12, so a loop
// over bytes takes longer than all else a serializer does.

// Words of eight equal bytes.
const (
	ones  = 0x0101010101010101
	tops  = 0x8080808080808080
	zeros = '0' * ones
)

// special has the top bit set of each of eight bytes that does not stand for itself in a string: a quote,
// a backslash, a control character, and, if stop has its top bit set, what is no ASCII. Only the lowest
// bit that is set can be relied upon.
func special(x, stop uint64) uint64 { return unusual(x)&^x&tops | x&stop }

// unusual is special, with tops for stop, in the top bits; its other bits mean nothing.
func unusual(x uint64) uint64 {
	// x^2 is below '!' for what is below ' ' and for a quote, and for nothing else: 2 exchanges the quote
	// with ' '. A subtraction borrows from the byte above only if it sets the top bit of its own.
	return ((x ^ 2*ones) - '!'*ones) | ((x ^ '\\'*ones) - ones) | x
}

// html has the top bit set of each of eight bytes that is <, > or &. Only the lowest bit that is set can be
// relied upon.
func html(x uint64) uint64 {
	and, angle := x^'&'*ones, x&^(2*ones)^'<'*ones // < and > differ in this bit
	return ((and-ones)&^and | (angle-ones)&^angle) & tops
}

// plain is how many bytes at the beginning of b stand for themselves in a string.
func plain(b []byte, stop uint64) int {
	i := 0
	for ; i+8 <= len(b); i += 8 {
		if found := special(binary.LittleEndian.Uint64(b[i:]), stop); found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	if left := len(b) - i; left > 0 && i > 0 { // the last eight bytes, of which the first have been looked at
		x := binary.LittleEndian.Uint64(b[len(b)-8:])>>(64-8*left) | zeros<<(8*left)
		if found := special(x, stop); found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
		return len(b)
	}
	for ; i < len(b); i++ {
		if c := b[i]; c == '"' || c == '\\' || c < ' ' || uint64(c)&stop != 0 {
			return i
		}
	}
	return i
}

// validUTF8 is utf8.Valid without calls and without a look at each byte that is ASCII.
func validUTF8(b []byte) bool {
	le := binary.LittleEndian
	for len(b) >= 8 {
		found := le.Uint64(b) & tops
		if found == 0 {
			b = b[8:]
			continue
		}
		b = b[bits.TrailingZeros64(found)/8:]
		if len(b) < utf8.UTFMax {
			break
		}
		switch v := le.Uint32(b); {
		case v&maskRune2 == rune2:
			if v&0x1e == 0 { // shorter would do
				return false
			}
			b = b[2:]
		case v&maskRune3 == rune3:
			if r := v&0xf<<12 | v>>8&0x3f<<6 | v>>16&0x3f; r < 0x800 || r&0xf800 == 0xd800 {
				return false
			}
			b = b[3:]
		case v&maskRune4 == rune4:
			if r := v&7<<18 | v>>8&0x3f<<12 | v>>16&0x3f<<6 | v>>24&0x3f; r < 0x10000 || r > utf8.MaxRune {
				return false
			}
			b = b[4:]
		default:
			return false
		}
	}
	return utf8.Valid(b)
}

// digits reads the digits b begins with and says how many there are: up to 16, and 17 for more, of which
// it gives no value. b must have 17 bytes.
func digits(b []byte) (v uint64, n int) {
	le := binary.LittleEndian
	x := le.Uint64(b) ^ zeros
	n = int(countDigits(x))
	if n == 0 {
		return 0, 0
	}
	v = value(x << (64 - 8*n))
	if n < 8 {
		return v, n
	}
	n = int(countDigits(le.Uint64(b[8:]) ^ zeros))
	if n == 0 {
		return v, 8
	}
	if n == 8 && b[16]-'0' < 10 {
		return 0, 17
	}
	return value(x<<(64-8*n))*1e8 + value(le.Uint64(b[n:])^zeros), 8 + n
}

// countDigits is how many of eight bytes, from the lowest, were digits before '0' was taken off them.
func countDigits(x uint64) uint64 {
	const sevens, over = 0x7f * ones, (0x80 - 10) * ones
	return uint64(bits.TrailingZeros64(((x&sevens)+over|x)&tops)) >> 3
}

// value is the number that eight digits make, the highest one in the lowest byte.
func value(x uint64) uint64 {
	x = x * (10<<8 + 1) >> 8 & 0x00ff00ff00ff00ff
	x = x * (100<<16 + 1) >> 16 & 0x0000ffff0000ffff
	return x * (10000<<32 + 1) >> 32
}

// spelled is the eight digits of a number below 10^8, the highest one in the lowest byte, without the '0'.
func spelled(v uint64) uint64 {
	high := uint64(uint32(v) / 10000)
	x := high | (v-10000*high)<<32
	q := x * 10486 >> 20 & 0x0000007f0000007f // a hundredth of each
	x = q | (x-100*q)<<16
	q = x * 103 >> 10 & 0x000f000f000f000f // a tenth of each
	return q | (x-10*q)<<8
}
