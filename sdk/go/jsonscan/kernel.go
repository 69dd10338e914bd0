package jsonscan

import (
	"math/bits"
	"unicode/utf8"

	"github.com/torpor-run/torpor/host/abi/record"
)

// The kernels below do nearly all of the work of [Scanner.AppendItem] and [Writer.Item]: they turn JSON
// into CBOR and back for as long as what comes is usual, and stop where it is not, between two tokens, for
// the methods that know all of it to do the next one.
//
// They are shaped by what WebAssembly made by Go takes time for:
//
//   - A call costs some 12 ns, and the function that makes it may be left and entered again there, so around
//     it everything lives in memory. So the kernels call nothing (what they seem to call is put in line), and
//     one run does many tokens.
//   - A jump, forwards or back, goes through one table at the function's beginning and costs some 4 ns; to go
//     on to the next line is free. So what is usual is written down in the order in which it happens, with
//     ifs for what leaves it, twice where two ways would have to meet, and nothing goes byte by byte.
//   - A check of an index costs as much as what it guards. So one comparison for each name or element makes
//     sure of a margin, within which the token is read and written: see bytes.go.

// margin is how many bytes beyond the limit of a kernel may be read or written: more than a name and a string
// of up to 23 bytes take, with what is around them and the words that reach behind them.
const margin = 80

// Where a run of a kernel begins and ends.
const (
	atValue  = iota // before a value
	atOpened        // behind the first byte of an object or array
	atName          // before the name of a member, which must come
	atAfter         // behind a value
	atEnd           // behind the value that was to be read
)

// Pairs of bytes, as pairAt reads them.
const (
	pairComma = ',' | '"'<<8
	pairColon = '"' | ':'<<8
)

// Words of four bytes, as quadAt reads them.
const (
	quadTrue = 't' | 'r'<<8 | 'u'<<16 | 'e'<<24
	quadNull = 'n' | 'u'<<8 | 'l'<<16 | 'l'<<24
	quadAlse = 'a' | 'l'<<8 | 's'<<16 | 'e'<<24
)

// quadSpelling is what comes before the spelling of a number, but for its length, which is less than 24: tag 262
// and the head of a byte string.
const (
	quadSpelling  = headTag | follow2 | tagJSON>>8<<8 | tagJSON&0xff<<16 | headBytes<<24
	spellingBytes = 4
)

// The first bits of characters of two, three and four bytes in UTF-8, as quadAt reads them.
const (
	rune2, maskRune2 = 0x80c0, 0xc0e0
	rune3, maskRune3 = 0x8080e0, 0xc0c0f0
	rune4, maskRune4 = 0x808080f0, 0xc0c0c0f8
)

// Longer heads of CBOR (RFC 8949, section 3).
const (
	follow1 = 24 + iota // the argument follows in so many bytes
	follow2
	follow4
	follow8
)

// transcode reads JSON from s.w[p:] and writes CBOR to d[n:], beginning at a place between two tokens and
// ending at the next one where it needs help, or at the end of the value that was begun at depth outer. It
// changes p, n, the place, and what s knows of open levels, as far as it came.
//
// It writes no more bytes than it reads, so what bounds the one bounds the other; but for numbers that keep their
// spelling, each of which lowers the bound of both.
func (s *Scanner) transcode(d []byte, n, p, outer, place int) (int, int, int) {
	var (
		w     = s.w
		limit = p + min(len(w)-p, len(d)-n) - margin
		depth = s.depth
		l     = &s.levels[(depth-1)&(MaxDepth-1)] // of depth 0 it is not used
		c     byte
		major byte
		x, y  uint64
		v     uint64
		found uint64
		q, i  int
	)
	switch place {
	case atName:
		goto name
	case atAfter:
		goto after
	case atOpened:
		goto opened
	}
	if p > limit {
		goto outValue
	}

value:
	c = byteAt(w, p)
	if c == '"' {
		x = wordAt(w, p+1)
		setWord(d, n+1, x)
		found = unusual(x) & tops
		if found != 0 {
			q = 1 + bits.TrailingZeros64(found)>>3
		} else {
			y = wordAt(w, p+9)
			setWord(d, n+9, y)
			found = unusual(y) & tops
			if found != 0 {
				q = 9 + bits.TrailingZeros64(found)>>3
			} else {
				v = wordAt(w, p+17)
				setWord(d, n+17, v)
				found = unusual(v) & tops
				if found == 0 {
					goto long
				}
				q = 17 + bits.TrailingZeros64(found)>>3
			}
		}
		if byteAt(w, p+q) != '"' {
			goto text
		}
		setByte(d, n, headText-1+byte(q))
		n += q
		p += q + 1
		goto after
	}
	if c-'0' < 10 {
		major = 0
		q = p
		goto number
	}
	if c == '{' || c == '[' {
		if depth-outer == record.MaxDepth || depth == MaxDepth {
			goto outValue
		}
		s.heads[(depth-outer)&(record.MaxDepth-1)] = n
		n++ // room for the shortest head
		p++
		l = &s.levels[depth&(MaxDepth-1)]
		l.object, l.held, l.n = c == '{', false, 0
		depth++
		goto opened
	}
	v = uint64(quadAt(w, p))
	if v == quadTrue {
		setByte(d, n, itemTrue)
		n++
		p += 4
		goto after
	}
	if v == quadNull {
		setByte(d, n, itemNull)
		n++
		p += 4
		goto after
	}
	if c == 'f' {
		if quadAt(w, p+1) != quadAlse {
			goto outValue
		}
		setByte(d, n, itemFalse)
		n++
		p += 5
		goto after
	}
	if c == '-' {
		major = headNegative
		q = p + 1
		goto number
	}
	for c == ' ' || c == '\n' || c == '\r' || c == '\t' {
		if p >= limit {
			goto outValue
		}
		p++
		c = byteAt(w, p)
		if c > ' ' {
			goto value
		}
	}
	goto outValue

after:
	if depth == outer {
		place = atEnd
		goto out
	}
	if p > limit+margin/2 {
		goto outAfter
	}
	c = byteAt(w, p)
	if c == ',' {
		p++
		if l.object {
			goto name
		}
		if p > limit {
			p--
			goto outAfter
		}
		l.n++
		goto value
	}
	if l.object {
		if c == '}' {
			goto closed
		}
	} else if c == ']' {
		goto closed
	}
	for c == ' ' || c == '\n' || c == '\r' || c == '\t' {
		if p >= limit {
			goto outAfter
		}
		p++
		c = byteAt(w, p)
		if c > ' ' {
			goto after
		}
	}
	goto outAfter

name:
	if p > limit {
		goto outName
	}
	if byteAt(w, p) != '"' {
		goto space
	}
	x = wordAt(w, p+1)
	setWord(d, n+1, x)
	found = unusual(x) & tops
	if found != 0 {
		q = 1 + bits.TrailingZeros64(found)>>3
	} else {
		x = wordAt(w, p+9)
		setWord(d, n+9, x)
		found = unusual(x) & tops
		if found != 0 {
			q = 9 + bits.TrailingZeros64(found)>>3
		} else {
			x = wordAt(w, p+17)
			setWord(d, n+17, x)
			found = unusual(x) & tops
			if found == 0 {
				goto outName
			}
			q = 17 + bits.TrailingZeros64(found)>>3
		}
	}
	if pairAt(w, p+q) != pairColon {
		goto outName
	}
	l.held, l.begin, l.end = false, p+1, p+q
	l.n++
	setByte(d, n, headText-1+byte(q))
	n += q
	p += q + 2
	goto value

space:
	c = byteAt(w, p)
	for c == ' ' || c == '\n' || c == '\r' || c == '\t' {
		p++
		if p > limit {
			goto outName
		}
		c = byteAt(w, p)
		if c == '"' {
			goto name
		}
	}
	goto outName

long:
	// It takes a head of two bytes, so that it begins a byte further on.
	setWord(d, n+2, x)
	setWord(d, n+10, y)
	setWord(d, n+18, v)
	for q = p + 25; q <= limit+margin/2; q += 16 {
		x = wordAt(w, q)
		y = wordAt(w, q+8)
		setWord(d, n+1+q-p, x)
		setWord(d, n+9+q-p, y)
		x = unusual(x)
		y = unusual(y)
		if (x|y)&tops != 0 {
			x &= tops
			if x == 0 {
				x = y & tops
				q += 8
			}
			q += bits.TrailingZeros64(x)>>3 - p
			if byteAt(w, p+q) != '"' {
				goto text
			}
			if q > 256 {
				goto outValue
			}
			setPair(d, n, headText|follow1|uint16(q-1)<<8)
			n += 1 + q
			p += 1 + q
			goto after
		}
	}
	goto outValue

text:
	// With escapes, or with what is no ASCII, and of up to 255 bytes. It is written as if it took a head of two
	// bytes.
	q = p + 1
	i = n + 2
	for q <= limit+margin/2 {
		x = wordAt(w, q)
		setWord(d, i, x)
		found = unusual(x) & tops
		if found == 0 {
			q += 8
			i += 8
			continue
		}
		found = uint64(bits.TrailingZeros64(found)) >> 3
		q += int(found)
		i += int(found)
		v = uint64(quadAt(w, q))
		if v&0x80 != 0 {
			setQuad(d, i, uint32(v))
			if v&maskRune2 == rune2 {
				if v&0x1e == 0 {
					goto outValue
				}
				q += 2
				i += 2
				continue
			}
			if v&maskRune3 == rune3 {
				y = v&0xf<<12 | v>>8&0x3f<<6 | v>>16&0x3f
				if y < 0x800 || y&0xf800 == 0xd800 {
					goto outValue
				}
				q += 3
				i += 3
				continue
			}
			y = v&7<<18 | v>>8&0x3f<<12 | v>>16&0x3f<<6 | v>>24&0x3f
			if v&maskRune4 != rune4 || y < 0x10000 || y > utf8.MaxRune {
				goto outValue
			}
			q += 4
			i += 4
			continue
		}
		c = byte(v)
		if c == '\\' {
			c = byte(v >> 8)
			if c == 'n' {
				c = '\n'
			} else if c == 't' {
				c = '\t'
			} else if c == 'r' {
				c = '\r'
			} else if c == 'b' {
				c = '\b'
			} else if c == 'f' {
				c = '\f'
			} else if c != '"' && c != '\\' && c != '/' { // one of four digits, or none
				goto outValue
			}
			setByte(d, i, c)
			q += 2
			i++
			continue
		}
		v = uint64(i - n - 2)
		if c != '"' || v > 255 {
			goto outValue
		}
		p = q + 1
		if v >= 24 {
			setPair(d, n, headText|follow1|uint16(v)<<8)
			n = i
			goto after
		}
		x = wordAt(d, n+2)
		y = wordAt(d, n+10)
		found = wordAt(d, n+18)
		setByte(d, n, headText|byte(v))
		setWord(d, n+1, x)
		setWord(d, n+9, y)
		setWord(d, n+17, found)
		n = i - 1
		goto after
	}
	goto outValue

number:
	// Up to 15 digits, of which the last 8 make one word and those before them another.
	x = wordAt(w, q) ^ zeros
	found = countDigits(x)
	if found == 0 {
		goto outValue
	}
	v = value(x << ((64 - 8*found) & 63))
	if found > 1 && x&0xff == 0 { // 01
		goto outValue
	}
	q += int(found)
	if found == 8 {
		found = countDigits(wordAt(w, q) ^ zeros)
		if found == 8 {
			goto outValue
		}
		if found > 0 {
			q += int(found)
			v = value(x<<((64-8*found)&63))*1e8 + value(wordAt(w, q-8)^zeros)
		}
	}
	c = byteAt(w, q)
	if c != ',' && c|0x20 != '}' && c > ' ' { // 1.5, 1e5, or what is no number
		goto spelling
	}
	if major != 0 {
		if v == 0 { // -0
			goto outValue
		}
		v--
	}
	p = q
	if v < 24 {
		setByte(d, n, major|byte(v))
		n++
		goto after
	}
	if v < 1<<8 {
		setPair(d, n, uint16(major|follow1)|uint16(v)<<8)
		n += 2
		goto after
	}
	if v < 1<<16 {
		setByte(d, n, major|follow2)
		setPair(d, n+1, bits.ReverseBytes16(uint16(v)))
		n += 3
		goto after
	}
	if v < 1<<32 {
		setByte(d, n, major|follow4)
		setQuad(d, n+1, bits.ReverseBytes32(uint32(v)))
		n += 5
		goto after
	}
	setByte(d, n, major|follow8)
	setWord(d, n+1, bits.ReverseBytes64(v))
	n += 9
	goto after

spelling:
	// Less than 24 bytes, of which the digits before a point or exponent have been read: what is no integer
	// keeps its spelling.
	if c == '.' {
		q++
		found = countDigits(wordAt(w, q) ^ zeros)
		if found == 0 {
			goto outValue
		}
		q += int(found)
		if found == 8 {
			found = countDigits(wordAt(w, q) ^ zeros)
			q += int(found)
			if found == 8 {
				found = countDigits(wordAt(w, q) ^ zeros)
				q += int(found)
			}
		}
		c = byteAt(w, q)
	}
	if c|0x20 == 'e' {
		q++
		c = byteAt(w, q)
		if c == '-' || c == '+' {
			q++
		}
		found = countDigits(wordAt(w, q) ^ zeros)
		if found == 0 {
			goto outValue
		}
		q += int(found)
		c = byteAt(w, q)
	}
	if c != ',' && c|0x20 != '}' && c > ' ' || q-p >= 24 || depth-outer == record.MaxDepth {
		goto outValue
	}
	setQuad(d, n, quadSpelling+uint32(q-p)<<24)
	setWord(d, n+4, wordAt(w, p))
	setWord(d, n+12, wordAt(w, p+8))
	setWord(d, n+20, wordAt(w, p+16))
	n += spellingBytes + q - p
	p = q
	limit -= spellingBytes
	goto after

opened:
	if p > limit {
		goto outOpened
	}
	c = byteAt(w, p)
	if l.object {
		if c == '"' {
			goto name
		}
		if c == '}' {
			goto closed
		}
	} else if c == ']' {
		goto closed
	} else if c > ' ' {
		l.n = 1
		goto value
	}
	for c == ' ' || c == '\n' || c == '\r' || c == '\t' {
		if p >= limit {
			goto outOpened
		}
		p++
		c = byteAt(w, p)
		if c > ' ' {
			goto opened
		}
	}
	goto outOpened

closed:
	if l.n >= 24 { // the head takes more than the byte that was left for it
		goto outAfter
	}
	p++
	depth--
	c = headArray
	if l.object {
		c = headMap
	}
	setByte(d, s.heads[(depth-outer)&(record.MaxDepth-1)], c|byte(l.n))
	l = &s.levels[(depth-1)&(MaxDepth-1)]
	goto after

outValue:
	place = atValue
	goto out
outOpened:
	place = atOpened
	goto out
outName:
	place = atName
	goto out
outAfter:
	place = atAfter
out:
	s.depth = depth
	return n, p, place
}

// shortName gives where the name of a member lies whose comma, if it is not the first, begins at w[p], if it
// is spelled as usual: in ASCII of less than 24 bytes, without an escape, and with a colon right behind it. Else
// end is 0.
func shortName(w []byte, p int, comma bool) (begin, end int) {
	if p > len(w)-margin {
		return 0, 0
	}
	if comma {
		if byteAt(w, p) != ',' {
			return 0, 0
		}
		p++
	}
	if byteAt(w, p) != '"' {
		return 0, 0
	}
	p++
	q := p
	found := unusual(wordAt(w, q)) & tops
	if found == 0 {
		q += 8
		found = unusual(wordAt(w, q)) & tops
		if found == 0 {
			q += 8
			found = unusual(wordAt(w, q)) & tops
			if found == 0 {
				return 0, 0
			}
		}
	}
	q += bits.TrailingZeros64(found) >> 3
	if pairAt(w, q) != pairColon {
		return 0, 0
	}
	return p, q
}

// quotable is how long a text may be that quote takes.
const quotable = 256

// quote writes a text to d[n:] in quotes, if nothing in it needs an escape or is no ASCII, and gives the end;
// else 0. There must be room for both quotes and four bytes more.
func quote(d []byte, n int, s []byte, escape bool) int {
	size := len(s)
	setByte(d, n, '"')
	n++
	var x, y, found uint64
	if size >= 8 {
		for i := 0; i < size-8; i += 8 {
			x = wordAt(s, i)
			setWord(d, n+i, x)
			found |= unusual(x) & tops
			if escape {
				found |= html(x)
			}
		}
		x = wordAt(s, size-8)
		setWord(d, n+size-8, x)
	} else if size >= 4 {
		x = uint64(quadAt(s, 0))
		y = uint64(quadAt(s, size-4))
		setQuad(d, n, uint32(x))
		setQuad(d, n+size-4, uint32(y))
		x |= y << 32
	} else if size > 0 {
		x = uint64(byteAt(s, 0))
		y = uint64(byteAt(s, size>>1))
		found = uint64(byteAt(s, size-1))
		setByte(d, n, byte(x))
		setByte(d, n+size>>1, byte(y))
		setByte(d, n+size-1, byte(found))
		x |= y<<8 | found<<16 | zeros&^0xffffff
		found = 0
	} else {
		x = zeros
	}
	found |= unusual(x) & tops
	if escape {
		found |= html(x)
	}
	if found != 0 {
		return 0
	}
	n += size
	setByte(d, n, '"')
	return n + 1
}

// roomy is how much room a kernel must have for each token it writes: 24 bytes of text, or 17 of a number, and
// what comes before and behind it.
const roomy = 64

// Pairs and words of JSON, as setPair and setQuad write them.
const (
	pairArray  = '[' | ']'<<8
	pairObject = '{' | '}'<<8
	quadFals   = 'f' | 'a'<<8 | 'l'<<16 | 's'<<24
)

// spell reads CBOR from item[p:] and writes JSON to d[n:], as transcode does the reverse: from a place between two
// items to the next one where it needs help, or to the end of the item that was begun at depth 0. w has what
// is open.
func (w *Writer) spell(d []byte, n int, item []byte, p, place int) (int, int, int) {
	var (
		b      = item[:cap(item)] // so that words may be read that begin in the item and end behind it
		end    = len(item)
		limit  = min(end-1, len(b)-margin)
		room   = len(d) - roomy
		depth  = w.depth
		left   = w.left
		last   = w.last
		escape = w.EscapeHTML
		first  byte
		v      uint64
		x, y   uint64
		found  uint64
		q, i   int
		m      int
	)
	if place == atName {
		goto name
	}
	if place == atAfter {
		goto after
	}

value:
	place = atValue
	if p > limit || n > room {
		goto out
	}
	first = byteAt(b, p)
	q = int(first) - headText
	if uint(q) < 24 {
		if p+q >= end {
			goto out
		}
		x = wordAt(b, p+1)
		setByte(d, n, '"')
		setWord(d, n+1, x)
		found = unusual(x) & tops
		if escape {
			found |= html(x)
		}
		i = q
		if i > 8 {
			if found != 0 {
				goto text
			}
			x = wordAt(b, p+9)
			setWord(d, n+9, x)
			found = unusual(x) & tops
			if escape {
				found |= html(x)
			}
			i -= 8
			if i > 8 {
				if found != 0 {
					goto text
				}
				x = wordAt(b, p+17)
				setWord(d, n+17, x)
				found = unusual(x) & tops
				if escape {
					found |= html(x)
				}
				i -= 8
			}
		}
		if found<<((32-4*i)&63)<<((32-4*i)&63) != 0 { // of the last word only the first i bytes count
			goto text
		}
		n += q + 2
		setByte(d, n-1, '"')
		p += q + 1
		goto after
	}
	if first < headNegative+24 {
		v = uint64(first & 0x1f)
		if v >= 24 {
			goto wide
		}
		if first < 10 {
			setByte(d, n, '0'+first)
			n++
			p++
			goto after
		}
		q = 1
		goto number
	}
	if first >= headArray {
		if first == itemTrue {
			setQuad(d, n, quadTrue)
			n += 4
			p++
			goto after
		}
		if first == itemFalse {
			setQuad(d, n, quadFals)
			setByte(d, n+4, 'e')
			n += 5
			p++
			goto after
		}
		if first == itemNull {
			setQuad(d, n, quadNull)
			n += 4
			p++
			goto after
		}
		if first >= headMap+24 {
			goto spelling
		}
		v = uint64(first & 0x1f)
		if v >= 24 || int(v) >= end-p || depth == record.MaxDepth {
			goto out
		}
		p++
		if v == 0 {
			setPair(d, n, pairArray)
			if first >= headMap {
				setPair(d, n, pairObject)
			}
			n += 2
			goto after
		}
		w.stack[depth&(record.MaxDepth-1)] = open{left, last}
		depth++
		left = v
		if first >= headMap {
			setByte(d, n, '{')
			n++
			last = '}'
			goto name
		}
		setByte(d, n, '[')
		n++
		last = ']'
		goto value
	}
	if first == headText|follow1 {
		q = int(byteAt(b, p+1))
		if escape || q < 24 || q >= end-p-1 || q > len(b)-margin-p || q > room-n {
			goto out
		}
		setByte(d, n, '"')
		for i = 0; i < q-16; i += 16 {
			x = wordAt(b, p+2+i)
			y = wordAt(b, p+10+i)
			setWord(d, n+1+i, x)
			setWord(d, n+9+i, y)
			if (unusual(x)|unusual(y))&tops != 0 {
				goto text
			}
		}
		x = wordAt(b, p+q-14) // the last 16 bytes
		y = wordAt(b, p+q-6)
		setWord(d, n+q-15, x)
		setWord(d, n+q-7, y)
		if (unusual(x)|unusual(y))&tops != 0 {
			goto text
		}
		n += q + 2
		setByte(d, n-1, '"')
		p += q + 2
		goto after
	}

wide:
	if first == follow1 || first == headNegative|follow1 {
		v = uint64(byteAt(b, p+1))
		q = 2
	} else if first == follow2 || first == headNegative|follow2 {
		v = uint64(bits.ReverseBytes16(pairAt(b, p+1)))
		q = 3
	} else if first == follow4 || first == headNegative|follow4 {
		v = uint64(bits.ReverseBytes32(quadAt(b, p+1)))
		q = 5
	} else if first == follow8 || first == headNegative|follow8 {
		v = bits.ReverseBytes64(wordAt(b, p+1))
		q = 9
	} else {
		goto out
	}

number:
	if q > end-p || v >= 1e16-1 {
		goto out
	}
	if first >= headNegative {
		v++
		setByte(d, n, '-')
		n++
	}
	p += q
	if v < 1e8 {
		x = spelled(v)
		q = bits.TrailingZeros64(x|1<<56) >> 3 // of 0 one digit is left
		setWord(d, n, (x+zeros)>>((8*q)&63))
		n += 8 - q
		goto after
	}
	x = spelled(v / 1e8)
	q = bits.TrailingZeros64(x) >> 3
	setWord(d, n, (x+zeros)>>((8*q)&63))
	n += 8 - q
	setWord(d, n, spelled(v%1e8)+zeros)
	n += 8
	goto after

text:
	// What needs escapes of two bytes, or is not all ASCII. That it lies in the item has been seen.
	if first == headText|follow1 {
		i = p + 2
		q = i + int(byteAt(b, p+1))
	} else {
		i = p + 1
		q = i + int(first) - headText
	}
	if escape || 2*(q-i) > room-n {
		goto out
	}
	setByte(d, n, '"')
	m = n + 1
	for i < q {
		x = wordAt(b, i)
		setWord(d, m, x)
		found = unusual(x) & tops
		if found == 0 {
			i += 8
			m += 8
			continue
		}
		found = uint64(bits.TrailingZeros64(found)) >> 3
		i += int(found)
		m += int(found)
		if i >= q {
			break
		}
		v = uint64(quadAt(b, i))
		if v&0x80 != 0 {
			setQuad(d, m, uint32(v))
			if v&maskRune2 == rune2 {
				if v&0x1e == 0 || i+2 > q {
					goto out
				}
				i += 2
				m += 2
				continue
			}
			if v&maskRune3 == rune3 {
				y = v&0xf<<12 | v>>8&0x3f<<6 | v>>16&0x3f
				if y < 0x800 || y&0xf800 == 0xd800 || i+3 > q {
					goto out
				}
				i += 3
				m += 3
				continue
			}
			y = v&7<<18 | v>>8&0x3f<<12 | v>>16&0x3f<<6 | v>>24&0x3f
			if v&maskRune4 != rune4 || y < 0x10000 || y > utf8.MaxRune || i+4 > q {
				goto out
			}
			i += 4
			m += 4
			continue
		}
		first = byte(v)
		if first == '\n' {
			first = 'n'
		} else if first == '\t' {
			first = 't'
		} else if first == '\r' {
			first = 'r'
		} else if first == '\b' {
			first = 'b'
		} else if first == '\f' {
			first = 'f'
		} else if first != '"' && first != '\\' { // one of four digits
			goto out
		}
		setPair(d, m, '\\'|uint16(first)<<8)
		i++
		m += 2
	}
	n = m - (i - q) + 1 // the last word may go on behind the text
	setByte(d, n-1, '"')
	p = q
	goto after

spelling:
	q = int(quadAt(b, p)>>24) - headBytes
	if quadAt(b, p)&0xffffff != quadSpelling&0xffffff || uint(q) >= 24 || p+q >= end-spellingBytes+1 {
		goto out
	}
	i = p + spellingBytes
	if byteAt(b, i) == '-' {
		i++
	}
	x = wordAt(b, i) ^ zeros
	found = countDigits(x)
	if found == 0 || found > 1 && x&0xff == 0 {
		goto out
	}
	i += int(found)
	if found == 8 {
		found = countDigits(wordAt(b, i) ^ zeros)
		i += int(found)
	}
	if byteAt(b, i) == '.' {
		i++
		found = countDigits(wordAt(b, i) ^ zeros)
		if found == 0 {
			goto out
		}
		i += int(found)
		if found == 8 {
			found = countDigits(wordAt(b, i) ^ zeros)
			i += int(found)
			if found == 8 {
				found = countDigits(wordAt(b, i) ^ zeros)
				i += int(found)
			}
		}
	}
	if byteAt(b, i)|0x20 == 'e' {
		i++
		if byteAt(b, i) == '-' || byteAt(b, i) == '+' {
			i++
		}
		found = countDigits(wordAt(b, i) ^ zeros)
		if found == 0 {
			goto out
		}
		i += int(found)
	}
	if i != p+spellingBytes+q { // longer, or no number, or what is behind it looks like digits
		goto out
	}
	setWord(d, n, wordAt(b, p+4))
	setWord(d, n+8, wordAt(b, p+12))
	setWord(d, n+16, wordAt(b, p+20))
	n += q
	p = i

after:
	place = atAfter
	if depth == 0 {
		place = atEnd
		goto out
	}
	if n > room {
		goto out
	}
	left--
	if left == 0 {
		setByte(d, n, last)
		n++
		depth--
		left = w.stack[depth&(record.MaxDepth-1)].left
		last = w.stack[depth&(record.MaxDepth-1)].last
		goto after
	}
	setByte(d, n, ',')
	n++
	if last == ']' {
		goto value
	}

name:
	place = atName
	if p > limit || n > room {
		goto out
	}
	q = int(byteAt(b, p)) - headText
	if uint(q) >= 24 || p+q >= end {
		goto out
	}
	x = wordAt(b, p+1)
	setByte(d, n, '"')
	setWord(d, n+1, x)
	found = unusual(x) & tops
	if escape {
		found |= html(x)
	}
	i = q
	if i > 8 {
		if found != 0 {
			goto out
		}
		x = wordAt(b, p+9)
		setWord(d, n+9, x)
		found = unusual(x) & tops
		if escape {
			found |= html(x)
		}
		i -= 8
		if i > 8 {
			if found != 0 {
				goto out
			}
			x = wordAt(b, p+17)
			setWord(d, n+17, x)
			found = unusual(x) & tops
			if escape {
				found |= html(x)
			}
			i -= 8
		}
	}
	if found<<((32-4*i)&63)<<((32-4*i)&63) != 0 {
		goto out
	}
	n += q + 3
	setPair(d, n-2, pairColon)
	p += q + 1
	goto value

out:
	w.depth, w.left, w.last = depth, left, last
	return n, p, place
}
