package jsonscan

import (
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
	headBytes    = 2 << 5
	headText     = 3 << 5
	headArray    = 4 << 5
	headMap      = 5 << 5
	headTag      = 6 << 5
	itemFalse    = 7<<5 | 20
	itemTrue     = 7<<5 | 21
	itemNull     = 7<<5 | 22
)

// AppendItem reads a value of any kind and adds it to dst as one CBOR item. A value that nests deeper than
// one of a record may is an error of torpor.CodeTooLarge. After an error what was added means nothing.
//
// [Writer.Item] is its reverse, and says how values and items correspond.
func (s *Scanner) AppendItem(dst []byte) []byte {
	if !s.value {
		s.misused("AppendItem")
		return dst
	}
	outer, place := s.depth, atValue
	d, n := dst[:cap(dst)], len(dst)
	for {
		// A kernel does what is usual, and the methods above the one token that is not.
		if len(d)-n < 2*margin {
			d = slices.Grow(d[:n], max(2*margin, len(d)))
			d = d[:cap(d)]
		}
		n, s.p, place = s.transcode(d, n, s.p, outer, place)
		if place == atEnd {
			s.value = false
			return d[:n]
		}
		d, place = s.appendToken(d[:n], outer, place)
		if s.err != nil {
			return d
		}
		n, d = len(d), d[:cap(d)]
	}
}

// appendToken reads the next token, wherever transcode has stopped, and says where it leads.
func (s *Scanner) appendToken(dst []byte, outer, place int) ([]byte, int) {
	if place == atValue {
		s.value = true
		c := s.next()
		if c != '{' && c != '[' {
			return s.appendScalar(dst, s.depth-outer), atAfter
		}
		if s.depth-outer == record.MaxDepth {
			s.failed(torpor.CodeTooLarge, s.p, "nested deeper than "+strconv.Itoa(record.MaxDepth)+", the limit for the value of a record")
			return dst, place
		}
		s.heads[s.depth-outer] = len(dst)
		s.open(c == '{')
		return append(dst, 0), atOpened // room for the shortest head
	}
	l := &s.levels[s.depth-1]
	if place == atName {
		return s.appendName(dst, l), atValue
	}
	s.value, s.between = false, true
	c := s.next()
	switch {
	case l.object && c == '}', !l.object && c == ']':
		s.close()
		return endItem(dst, s.heads[s.depth-outer], l), atAfter
	case place == atOpened && l.object:
		return s.appendName(dst, l), atValue
	case place == atOpened:
	case c == ',':
		s.p++
		if l.object {
			return dst, atName
		}
	case l.object:
		s.wrong("a comma or the end of the object")
		return dst, place
	default:
		s.wrong("a comma or the end of the array")
		return dst, place
	}
	l.n++
	s.between = false
	return dst, atValue
}

// endItem writes the head of an object or array, for which one byte was left: more only where there are 24 or
// more.
func endItem(dst []byte, at int, l *level) []byte {
	major := byte(headArray)
	if l.object {
		major = headMap
	}
	if l.n < 24 {
		dst[at] = major | byte(l.n)
		return dst
	}
	return widen(dst, at, major, l.n)
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
