package jsonscan

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"strconv"

	"github.com/torpor-run/torpor/host/abi/record"
	torpor "github.com/torpor-run/torpor/sdk/go"
)

// How a JSON value is written as a CBOR item. It loses nothing but white space and the choice of escapes:
//
//	null, true, false   the same
//	a string            a text string
//	an array, an object an array, a map with text keys; names keep their order, and may repeat
//	a number            an integer, if it is spelled as one and between -2^64 and 2^64-1; else its
//	                    spelling, as a byte string with tag 262, which stands for JSON in CBOR
const tagJSON = 262

// First bytes of items (RFC 8949, section 3.1).
const (
	headNegative = 1 << 5
	headText     = 3 << 5
	headArray    = 4 << 5
	headMap      = 5 << 5
	itemFalse    = 7<<5 | 20
	itemTrue     = 7<<5 | 21
	itemNull     = 7<<5 | 22
)

// ahead is how much of the window must be there for a value to be read in words.
const ahead = 32

// AppendItem reads a value of any kind and adds it to dst as one CBOR item. A value that nests deeper than
// one of a record may is an error of torpor.CodeTooLarge. After an error what was added means nothing.
//
// [Writer.Item] is its reverse, and says how values and items correspond.
func (s *Scanner) AppendItem(dst []byte) []byte {
	// One function and few calls, because those are what costs a guest. What is seldom, such as a string
	// with escapes or the end of the window, is left to the methods above, which do all of it.
	if !s.value {
		s.misused("AppendItem")
		return dst
	}
	var (
		le    = binary.LittleEndian
		outer = s.depth
		d     = dst[:cap(dst)]
		n     = len(dst)
		w     = s.w
		p     = s.p
		l     *level
		c     byte
		x     uint64
		found uint64
		q     int
	)
	if outer > 0 {
		l = &s.levels[outer-1]
	}

value:
	if len(d)-n < room {
		d = slices.Grow(d[:n], max(room, len(d)))
		d = d[:cap(d)]
	}
	if len(w)-p < ahead {
		goto slow
	}
	c = w[p]
	if c == '"' {
		// Up to 24 bytes are copied while they are looked at.
		q = p + 1
		for {
			x = le.Uint64(w[q:])
			le.PutUint64(d[n+q-p:], x)
			if found = special(x, tops); found != 0 || q-p > 16 {
				break
			}
			q += 8
		}
		q += bits.TrailingZeros64(found) / 8 // 8, if there is none
		if found == 0 {
			q += plain(w[q:], tops)
			if q == len(w) {
				goto slow
			}
		}
		if w[q] != '"' {
			goto slow
		}
		if k := q - p - 1; k < 24 {
			d[n] = headText | byte(k)
			n += 1 + k
		} else {
			d = record.AppendText(d[:n], w[p+1:q])
			n = len(d)
			d = d[:cap(d)]
		}
		p = q + 1
		goto after
	}
	if c == '{' || c == '[' {
		goto open
	}
	if c-'0' < 10 || c == '-' {
		q = p
		if c == '-' {
			q++
		}
		v, k := digits(w[q:])
		c = w[q+k]
		if k == 0 || k > 16 || k > 1 && w[q] == '0' || c == '.' || c|0x20 == 'e' || c == '+' || c == '-' || v == 0 && q > p {
			goto slow
		}
		if q > p {
			d = record.AppendInt(d[:n], -int64(v))
		} else if v < 24 {
			d[n] = byte(v)
			d = d[:n+1]
		} else {
			d = record.AppendUint(d[:n], v)
		}
		n = len(d)
		d = d[:cap(d)]
		p = q + k
		goto after
	}
	switch {
	case c == 't' && w[p+1] == 'r' && w[p+2] == 'u' && w[p+3] == 'e':
		d[n] = itemTrue
		p += 4
	case c == 'f' && w[p+1] == 'a' && w[p+2] == 'l' && w[p+3] == 's' && w[p+4] == 'e':
		d[n] = itemFalse
		p += 5
	case c == 'n' && w[p+1] == 'u' && w[p+2] == 'l' && w[p+3] == 'l':
		d[n] = itemNull
		p += 4
	default:
		goto slow
	}
	n++
	goto after

slow:
	s.p, s.value = p, true
	if c = s.next(); c == '{' || c == '[' {
		w, p = s.w, s.p
		goto open
	}
	d = s.appendScalar(d[:n], s.depth-outer)
	n = len(d)
	d = d[:cap(d)]
	if s.err != nil {
		return d[:n]
	}
	w, p = s.w, s.p
	goto after

open:
	if s.depth-outer == record.MaxDepth {
		s.p = p
		s.failed(torpor.CodeTooLarge, p, "nested deeper than "+strconv.Itoa(record.MaxDepth)+", the limit for the value of a record")
		return d[:n]
	}
	s.p = p
	s.heads[s.depth-outer] = n
	s.open(c == '{')
	if s.err != nil {
		return d[:n]
	}
	l = &s.levels[s.depth-1]
	n++ // room for the shortest head
	p++
	if p == len(w) || w[p] <= ' ' {
		s.p, s.between = p, true
		s.next()
		w, p = s.w, s.p
	}
	if l.object {
		if p < len(w) && w[p] == '}' {
			goto close
		}
		goto name
	}
	if p < len(w) && w[p] == ']' {
		goto close
	}
	l.n = 1
	s.between = false
	goto value

name:
	if len(d)-n < room {
		d = slices.Grow(d[:n], max(room, len(d)))
		d = d[:cap(d)]
	}
	if len(w)-p < ahead || w[p] != '"' {
		goto slowName
	}
	q = p + 1
	for {
		x = le.Uint64(w[q:])
		le.PutUint64(d[n+q-p:], x)
		if found = special(x, tops); found != 0 || q-p > 16 {
			break
		}
		q += 8
	}
	q += bits.TrailingZeros64(found) / 8
	if q-p > 24 || w[q] != '"' || w[q+1] != ':' {
		goto slowName
	}
	d[n] = headText | byte(q-p-1)
	n += q - p
	l.held, l.begin, l.end = false, p+1, q
	l.n++
	p = q + 2
	goto value

slowName:
	s.p, s.value = p, false
	d = s.appendName(d[:n], l)
	n = len(d)
	d = d[:cap(d)]
	if s.err != nil {
		return d[:n]
	}
	w, p = s.w, s.p
	goto value

after:
	if s.depth == outer {
		s.p, s.value = p, false
		return d[:n]
	}
	if p == len(w) || w[p] <= ' ' {
		s.p, s.value, s.between = p, false, true
		s.next()
		w, p = s.w, s.p
		s.between = false
		if p == len(w) {
			goto neither
		}
	}
	if w[p] == ',' {
		p++
		if l.object {
			goto name
		}
		l.n++
		goto value
	}
	if l.object && w[p] != '}' || !l.object && w[p] != ']' {
		goto neither
	}

close:
	// The head takes more than the byte that was left for it only where there are 24 or more.
	p++
	s.depth--
	s.between = false
	q = s.heads[s.depth-outer]
	c = headArray
	if l.object {
		c = headMap
	}
	if l.n < 24 {
		d[q] = c | byte(l.n)
	} else {
		d = widen(d[:n], q, c, l.n)
		n = len(d)
		d = d[:cap(d)]
	}
	l = nil
	if s.depth > 0 {
		l = &s.levels[s.depth-1]
	}
	goto after

neither:
	s.p, s.value, s.between = p, false, true
	if l.object {
		s.wrong("a comma or the end of the object")
	} else {
		s.wrong("a comma or the end of the array")
	}
	return d[:n]
}

// widen puts a head of more than one byte where one byte was left for it, before the end of dst.
func widen(dst []byte, at int, major byte, count uint64) []byte {
	var b [9]byte
	var longer []byte
	if major == headMap {
		longer = record.AppendMap(b[:0], int(count))
	} else {
		longer = record.AppendArray(b[:0], int(count))
	}
	n := len(dst)
	dst = append(dst, longer[1:]...) // for room
	copy(dst[at+len(longer):], dst[at+1:n])
	copy(dst[at:], longer)
	return dst
}

// appendScalar reads a value that is no object or array. It is inside so many of them.
func (s *Scanner) appendScalar(dst []byte, depth int) []byte {
	switch s.Peek() {
	case KindString:
		return record.AppendText(dst, s.Text())
	case KindBool:
		return record.AppendBool(dst, s.Bool())
	case KindNull:
		s.Null()
		return record.AppendNull(dst)
	case KindNumber:
		spelled := s.Number()
		if s.err != nil {
			return dst
		}
		if v, ok := integer(spelled); ok {
			return record.AppendUint(dst, v)
		}
		if spelled[0] == '-' {
			// -1 is written as 0, -2 as 1, and so on.
			if v, ok := integer(spelled[1:]); ok && v > 0 {
				return appendNegative(dst, v-1)
			} else if string(spelled) == "-18446744073709551616" {
				return appendNegative(dst, 1<<64-1)
			}
		}
		if depth == record.MaxDepth {
			s.failed(torpor.CodeTooLarge, s.p, "a number that is no integer, nested as deep as the value of a record may")
			return dst
		}
		return record.AppendBytes(record.AppendTag(dst, tagJSON), spelled)
	default:
		s.wrong("a value")
		return dst
	}
}

// integer is the value of digits, if they are nothing else and it fits.
func integer(digits []byte) (v uint64, ok bool) {
	for _, c := range digits {
		high, low := bits.Mul64(v, 10)
		sum, carry := bits.Add64(low, uint64(c-'0'), 0)
		if c-'0' > 9 || high > 0 || carry > 0 {
			return 0, false
		}
		v = sum
	}
	return v, true
}

// appendNegative adds the negative integer -1-v.
func appendNegative(dst []byte, v uint64) []byte {
	at := len(dst)
	dst = record.AppendUint(dst, v)
	dst[at] |= headNegative
	return dst
}

// appendName reads the name of the next member of an object, of which the comma has been read.
func (s *Scanner) appendName(dst []byte, l *level) []byte {
	s.between = true
	if s.next() != '"' {
		s.wrong("a name")
		return dst
	}
	begin, end, escaped, ok := s.member(l)
	if !ok {
		return dst
	}
	name := s.w[begin:end]
	if escaped {
		if name, ok = s.decode(begin, end); !ok {
			return dst
		}
	}
	return record.AppendText(dst, name)
}
