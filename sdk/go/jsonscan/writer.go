package jsonscan

import (
	"encoding/binary"
	"math"
	"math/bits"
	"strconv"
	"unicode/utf8"
	"unsafe"

	"github.com/torpor-run/torpor/host/abi/record"
	torpor "github.com/torpor-run/torpor/sdk/go"
)

// Writer writes JSON to an Output: compact, with what commas and colons are needed, and with the fewest
// escapes. That objects and arrays are ended, and that a member has a name and one value, is the caller's
// to see to.
//
// Its error is sticky: after the first, what is written means nothing. Ask [Writer.Err] once, or let
// [Writer.Item] say it. Not safe for concurrent use.
type Writer struct {
	// EscapeHTML spells <, >, &, U+2028 and U+2029 as escapes, as encoding/json does unless told
	// otherwise. The result is then what encoding/json gives, byte for byte.
	EscapeHTML bool

	out   *torpor.Output
	comma bool // one comes before the next value
	err   *torpor.Error
	stack [record.MaxDepth]open
}

// open is an array or map of which Item is writing the items.
type open struct {
	left uint64 // items to come: two for each pair of a map
	last byte   // what ends it: ] or }
}

// NewWriter makes a Writer that writes to out. The two may be used by turns.
func NewWriter(out *torpor.Output) *Writer { return &Writer{out: out} }

// Err is the first error met: text that is not UTF-8, or a number that is none.
func (w *Writer) Err() error {
	if w.err == nil {
		return nil
	}
	return w.err
}

func (w *Writer) failed(msg string) {
	if w.err == nil {
		w.err = &torpor.Error{Code: torpor.CodeCorrupt, Msg: msg}
	}
}

// begin is the output's buffer, with the comma before a value.
func (w *Writer) begin() []byte {
	b := w.out.AvailableBuffer()
	if w.comma {
		b = append(b, ',')
	}
	w.comma = true
	return b
}

// Object begins an object.
func (w *Writer) Object() {
	w.out.Put(append(w.begin(), '{'))
	w.comma = false
}

// EndObject ends an object.
func (w *Writer) EndObject() {
	w.out.PutByte('}')
	w.comma = true
}

// Array begins an array.
func (w *Writer) Array() {
	w.out.Put(append(w.begin(), '['))
	w.comma = false
}

// EndArray ends an array.
func (w *Writer) EndArray() {
	w.out.PutByte(']')
	w.comma = true
}

// Newline ends a document, so that another may follow on a line of its own.
func (w *Writer) Newline() {
	w.out.PutByte('\n')
	w.comma = false
}

// Key begins a member of an object; its value is to be written next.
func (w *Writer) Key(name string) { w.KeyBytes(text(name)) }

// KeyBytes is Key for a name that is bytes.
func (w *Writer) KeyBytes(name []byte) {
	w.text(name)
	w.out.PutByte(':')
	w.comma = false
}

// Text writes a string.
func (w *Writer) Text(s string) { w.text(text(s)) }

// TextBytes writes a string.
func (w *Writer) TextBytes(s []byte) { w.text(s) }

// Number writes a number as it is spelled.
func (w *Writer) Number(spelled []byte) {
	if _, ok := number(spelled); !ok {
		w.failed("not a number as JSON has them: " + strconv.Quote(string(spelled[:min(len(spelled), 40)])))
		return
	}
	w.out.Put(w.begin())
	w.out.Put(spelled)
}

// Uint writes an unsigned integer.
func (w *Writer) Uint(v uint64) { w.out.Put(strconv.AppendUint(w.begin(), v, 10)) }

// Int writes an integer.
func (w *Writer) Int(v int64) { w.out.Put(strconv.AppendInt(w.begin(), v, 10)) }

// Float writes a float in the fewest digits that give it back, spelled as encoding/json does.
func (w *Writer) Float(v float64) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		w.failed("a float that is no number, which JSON has no spelling for")
		return
	}
	w.out.Put(appendFloat(w.begin(), v))
}

// Bool writes true or false.
func (w *Writer) Bool(v bool) { w.out.Put(strconv.AppendBool(w.begin(), v)) }

// Null writes null.
func (w *Writer) Null() { w.out.Put(append(w.begin(), "null"...)) }

func appendFloat(dst []byte, v float64) []byte {
	format := byte('f')
	if a := math.Abs(v); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	dst = strconv.AppendFloat(dst, v, format, -1, 64)
	if n := len(dst); format == 'e' && dst[n-4] == 'e' && dst[n-3] == '-' && dst[n-2] == '0' {
		dst[n-2] = dst[n-1] // e-09 is spelled e-9
		dst = dst[:n-1]
	}
	return dst
}

// room is how much an item takes at most that is neither a long text nor of a seldom kind, with what comes
// before and behind it.
const room = 32

// atOnce is how long a string may be that fits into the output's room however it is spelled.
const atOnce = (torpor.AvailableBytes - room) / len(`\u00e9`)

// text is the bytes of s, which nothing writes to.
func text(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) } //nolint:gosec // read only

func (w *Writer) text(s []byte) {
	b := append(w.begin(), '"')
	for len(s) > atOnce {
		// In pieces, each of whole characters.
		n := atOnce
		for n > atOnce-utf8.UTFMax && !utf8.RuneStart(s[n]) {
			n--
		}
		b = w.appendText(b, s[:n])
		w.out.Put(b)
		b = w.out.AvailableBuffer()
		s = s[n:]
	}
	w.out.Put(append(w.appendText(b, s), '"'))
}

// appendText adds the inside of a string.
func (w *Writer) appendText(dst, s []byte) []byte {
	for len(s) > 0 {
		n := plain(s, tops)
		if w.EscapeHTML {
			n = plainHTML(s[:n])
		}
		dst = append(dst, s[:n]...)
		if s = s[n:]; len(s) == 0 {
			break
		}
		if s[0] >= utf8.RuneSelf {
			// What is no ASCII goes on to the next byte that is.
			for n = 1; n < len(s) && s[n] >= utf8.RuneSelf; n++ {
			}
			if !utf8.Valid(s[:n]) {
				w.failed(notUTF8)
				return dst
			}
			dst = w.appendForeign(dst, s[:n])
			s = s[n:]
			continue
		}
		dst = appendEscape(dst, s[0])
		s = s[1:]
	}
	return dst
}

// plainHTML is how many bytes at the beginning of s are neither <, > nor &.
func plainHTML(s []byte) int {
	i := 0
	for ; i+8 <= len(s); i += 8 {
		x := binary.LittleEndian.Uint64(s[i:])
		and, angle := x^'&'*ones, x&^(2*ones)^'<'*ones // < and > differ in this bit
		if found := ((and-ones)&^and | (angle-ones)&^angle) & tops; found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for ; i < len(s); i++ {
		if c := s[i]; c == '<' || c == '>' || c == '&' {
			return i
		}
	}
	return i
}

// appendForeign adds sound UTF-8 of which nothing is ASCII.
func (w *Writer) appendForeign(dst, s []byte) []byte {
	if w.EscapeHTML {
		for i := 0; i+3 <= len(s); i++ {
			if s[i] == 0xe2 && s[i+1] == 0x80 && s[i+2]&^1 == 0xa8 {
				dst = append(dst, s[:i]...)
				dst = append(dst, `\u202`...)
				dst = append(dst, '8'+s[i+2]&1)
				s, i = s[i+3:], -1
			}
		}
	}
	return append(dst, s...)
}

// appendEscape adds an ASCII character that does not stand for itself.
func appendEscape(dst []byte, c byte) []byte {
	const hex = "0123456789abcdef"
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, `\b`...)
	case '\f':
		return append(dst, `\f`...)
	case '\n':
		return append(dst, `\n`...)
	case '\r':
		return append(dst, `\r`...)
	case '\t':
		return append(dst, `\t`...)
	}
	return append(append(dst, `\u00`...), hex[c>>4], hex[c&0xf])
}

// Item writes one encoded CBOR item as JSON: the reverse of [Scanner.AppendItem].
//
//	null, true, false      the same
//	a text string          a string
//	an array               an array
//	a map                  an object; its keys must be text
//	an integer             a number
//	a byte string, tag 262 the number it spells
//	a float                a number, as Writer.Float does; AppendItem makes none
//
// Another item is an error of torpor.CodeUnsupported, text that is not UTF-8 or a number that is none one
// of torpor.CodeCorrupt, with the offset in the item; torpor.Record.ValueError makes one about a record of
// it. The error is that of the call; one of a call before is given again.
func (w *Writer) Item(item []byte) error {
	if w.err != nil {
		return w.err
	}
	// One function and few calls, as AppendItem.
	var (
		le    = binary.LittleEndian
		d     = w.begin()
		n     = len(d)
		b     = item
		over  = item[:cap(item)] // so that words may be read that begin in the item and end behind it
		p     = 0
		depth = 0
		left  = uint64(1)
		last  = byte(0)
		first byte
		size  int
		i     int
		found uint64
	)
	d = d[:cap(d)]

next:
	// An item begins at b[p], and what comes before it has been written. In a map left is even before a
	// key and odd before its value.
	if len(d)-n < 2*room {
		w.out.Put(d[:n])
		d, n = w.out.AvailableBuffer(), 0
		d = d[:cap(d)]
	}
	if p >= len(b) {
		return w.bad(torpor.CodeCorrupt, p, noItem)
	}
	first = b[p]
	if size = int(first) - headText; size >= 0 && size < 24 && size < len(b)-p && len(over)-p > 24 {
		p++
		d[n] = '"'
		for i = 0; i < size; i += 8 {
			x := le.Uint64(over[p+i:])
			le.PutUint64(d[n+1+i:], x)
			if found = special(x, tops); found != 0 {
				if i+bits.TrailingZeros64(found)/8 < size {
					break
				}
			}
		}
		if i < size || w.EscapeHTML && plainHTML(b[p:p+size]) < size {
			p--
			goto text
		}
		n += size + 2
		d[n-1] = '"'
		p += size
		goto after
	}
	if first>>5 == 3 {
		if first != headText|24 || w.EscapeHTML || len(b)-p < 2 {
			goto text
		}
		size = int(b[p+1])
		if size > len(b)-p-2 || plain(b[p+2:p+2+size], tops) < size {
			goto text
		}
		if len(d)-n < size+room {
			w.out.Put(d[:n])
			d, n = w.out.AvailableBuffer(), 0
			d = d[:cap(d)]
		}
		d[n] = '"'
		copy(d[n+1:], b[p+2:p+2+size])
		n += size + 2
		d[n-1] = '"'
		p += size + 2
		goto after
	}
	if last == '}' && left&1 == 0 {
		return w.bad(torpor.CodeUnsupported, p, "a map with a key that is no text, which JSON has not")
	}
	switch first >> 5 {
	case 0, 1:
		v, k, ok := argument(b[p:])
		if !ok {
			return w.bad(torpor.CodeCorrupt, p, noItem)
		}
		p += k
		if first >= headNegative {
			d[n] = '-'
			n++
			if v++; v == 0 {
				n += copy(d[n:], "18446744073709551616")
				goto after
			}
		}
		if v < 10 {
			d[n] = '0' + byte(v)
			n++
		} else {
			n = len(strconv.AppendUint(d[:n], v, 10))
		}
		goto after
	case 4, 5:
		v, k, ok := argument(b[p:])
		if !ok || v > uint64(len(b)-p) {
			return w.bad(torpor.CodeCorrupt, p, noItem)
		}
		if depth == record.MaxDepth {
			return w.bad(torpor.CodeTooLarge, p, "nested deeper than "+strconv.Itoa(record.MaxDepth))
		}
		p += k
		w.stack[depth] = open{left, last}
		depth++
		d[n] = '['
		left, last = v, ']'
		if first >= headMap {
			d[n] = '{'
			left, last = 2*v, '}'
		}
		n++
		if left == 0 {
			goto end
		}
		goto next
	}
	switch first {
	case itemFalse:
		n += copy(d[n:], "false")
		p++
	case itemTrue:
		n += copy(d[n:], "true")
		p++
	case itemNull:
		n += copy(d[n:], "null")
		p++
	default:
		w.out.Put(d[:n])
		w.comma = false
		k, err := w.rare(b[p:], p)
		if err != nil {
			return err
		}
		p += k
		d, n = w.out.AvailableBuffer(), 0
		d = d[:cap(d)]
	}
	goto after

text:
	{
		v, k, ok := argument(b[p:])
		if !ok || v > uint64(len(b)-p-k) {
			return w.bad(torpor.CodeCorrupt, p, noItem)
		}
		p += k
		w.out.Put(d[:n])
		w.comma = false
		if w.text(b[p : p+int(v)]); w.err != nil {
			w.err = nil // it comes without an offset
			return w.bad(torpor.CodeCorrupt, p, notUTF8)
		}
		p += int(v)
		d, n = w.out.AvailableBuffer(), 0
		d = d[:cap(d)]
	}

after:
	if depth == 0 {
		w.out.Put(d[:n])
		w.comma = true
		if p < len(b) {
			return w.bad(torpor.CodeCorrupt, p, "more behind the item")
		}
		return nil
	}
	if left--; left > 0 {
		d[n] = ','
		if last == '}' && left&1 == 1 {
			d[n] = ':'
		}
		n++
		goto next
	}

end:
	d[n] = last
	n++
	depth--
	left, last = w.stack[depth].left, w.stack[depth].last
	if len(d)-n < room {
		w.out.Put(d[:n])
		d, n = w.out.AvailableBuffer(), 0
		d = d[:cap(d)]
	}
	goto after
}

// What is wrong with an item.
const (
	noItem  = "not one whole CBOR item"
	notUTF8 = "a text that is not UTF-8"
)

// bad notes what is wrong with an item, and where in it.
func (w *Writer) bad(code torpor.Code, p int, msg string) error {
	w.err = &torpor.Error{Code: code, Msg: msg, Offset: uint64(p)}
	return w.err
}

// rare writes an item of a seldom kind, which stands at p, and gives its length.
func (w *Writer) rare(b []byte, p int) (int, error) {
	d := record.NewPull(b)
	switch d.Peek() {
	case record.KindFloat:
		if v := d.Float(); d.Err() == nil {
			w.Float(v)
		}
	case record.KindTag:
		if d.Tag() != tagJSON || d.Peek() != record.KindBytes {
			return 0, w.bad(torpor.CodeUnsupported, p, "a tag, which JSON has not")
		}
		if spelled := d.Bytes(); d.Err() == nil {
			w.Number(spelled)
		}
	case record.KindBytes:
		return 0, w.bad(torpor.CodeUnsupported, p, "a byte string, which JSON has not")
	default:
		return 0, w.bad(torpor.CodeUnsupported, p, "an item that JSON has not")
	}
	if d.Err() != nil {
		return 0, w.bad(torpor.CodeCorrupt, p, noItem)
	}
	if w.err != nil {
		return 0, w.bad(w.err.Code, p, w.err.Msg)
	}
	return d.Offset(), nil
}

// argument reads the head b begins with: its argument and its length.
func argument(b []byte) (v uint64, n int, ok bool) {
	n = 1
	switch info := b[0] & 0x1f; {
	case info < 24:
		return uint64(info), n, true
	case info < 28:
		n += 1 << (info - 24)
	default:
		return 0, 0, false
	}
	if len(b) < n {
		return 0, 0, false
	}
	for _, c := range b[1:n] {
		v = v<<8 | uint64(c)
	}
	return v, n, true
}
