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

	open                        // what Item is in the midst of
	depth int                   // how many there are
	stack [record.MaxDepth]open // those around it
}

// open is an array or map of which Item is writing the items.
type open struct {
	left uint64 // items or pairs to come
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
	if !w.short(name, true) {
		w.text(name)
		w.out.PutByte(':')
	}
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

// room is more than what comes before and behind a string takes.
const room = 32

// atOnce is how long a string may be that fits into the output's room however it is spelled.
const atOnce = (torpor.AvailableBytes - room) / len(`\u00e9`)

// text is the bytes of s, which nothing writes to.
func text(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) } //nolint:gosec // read only

func (w *Writer) text(s []byte) {
	if w.short(s, false) {
		return
	}
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

// short writes a string that is short and needs no escapes, and a colon behind it if it is a name; or it
// reports that it has not.
func (w *Writer) short(s []byte, colon bool) bool {
	if len(s) > quotable {
		return false
	}
	b := w.out.AvailableBuffer()
	b = b[:cap(b)]
	n := 0
	if w.comma {
		b[0] = ','
		n = 1
	}
	if n = quote(b, n, s, w.EscapeHTML); n == 0 {
		return false
	}
	if colon {
		b[n] = ':'
		n++
	}
	w.out.Put(b[:n])
	w.comma = true
	return true
}

// appendText adds the inside of a string.
func (w *Writer) appendText(dst, s []byte) []byte {
	stop := uint64(tops) // bytes that are no ASCII; once they have been looked at, they are passed over
	for len(s) > 0 {
		n := plain(s, stop)
		if w.EscapeHTML {
			n = plainHTML(s[:n])
		}
		dst = append(dst, s[:n]...)
		if s = s[n:]; len(s) == 0 {
			break
		}
		if s[0] >= utf8.RuneSelf && !w.EscapeHTML {
			if !validUTF8(s) {
				w.failed(notUTF8)
				return dst
			}
			stop = 0
			continue
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
		if found := html(binary.LittleEndian.Uint64(s[i:])); found != 0 {
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
	w.depth, w.open = 0, open{}
	d, p, place := w.begin(), 0, atValue
	n := len(d)
	for {
		// A kernel does what is usual, and part the one item that is not.
		n, p, place = w.spell(d[:cap(d)], n, item, p, place)
		w.out.Put(d[:n])
		if place == atEnd {
			w.comma = true
			if p < len(item) {
				return w.bad(torpor.CodeCorrupt, p, "more behind the item")
			}
			return nil
		}
		if cap(d)-n >= roomy {
			p, place = w.part(item, p, place)
			if w.err != nil {
				return w.err
			}
		}
		d, n = w.out.AvailableBuffer(), 0
	}
}

// part writes the next item, or as much of it as the head of an array or map, wherever spell has stopped, and
// says where it leads.
func (w *Writer) part(b []byte, p, place int) (int, int) {
	if p >= len(b) {
		return w.not(torpor.CodeCorrupt, p, noItem)
	}
	w.comma = false
	major := b[p] >> 5
	if place == atName && major != 3 {
		return w.not(torpor.CodeUnsupported, p, "a map with a key that is no text, which JSON has not")
	}
	if major > 5 || major == 2 {
		k, err := w.rare(b[p:], p)
		if err != nil {
			return p, place
		}
		return p + k, atAfter
	}
	v, k, ok := argument(b[p:])
	if !ok || major == 3 && v > uint64(len(b)-p-k) || major > 3 && v > uint64(len(b)-p) {
		return w.not(torpor.CodeCorrupt, p, noItem)
	}
	p += k
	switch major {
	case 0:
		w.Uint(v)
	case 1:
		w.out.PutByte('-')
		if v++; v == 0 {
			w.out.PutString("18446744073709551616")
			break
		}
		w.Uint(v)
	case 3:
		w.text(b[p : p+int(v)])
		if w.err != nil {
			w.err = nil // it comes without an offset
			return w.not(torpor.CodeCorrupt, p, notUTF8)
		}
		p += int(v)
		if place == atName {
			w.out.PutByte(':')
			return p, atValue
		}
	default:
		if w.depth == record.MaxDepth {
			return w.not(torpor.CodeTooLarge, p-k, "nested deeper than "+strconv.Itoa(record.MaxDepth))
		}
		w.stack[w.depth] = w.open
		w.depth++
		if major == 5 {
			w.out.PutByte('{')
			w.open, place = open{v, '}'}, atName
		} else {
			w.out.PutByte('[')
			w.open, place = open{v, ']'}, atValue
		}
		if v > 0 {
			return p, place
		}
		w.out.PutByte(w.last)
		w.depth--
		w.open = w.stack[w.depth]
	}
	return p, atAfter
}

// not is bad, for part.
func (w *Writer) not(code torpor.Code, p int, msg string) (int, int) {
	_ = w.bad(code, p, msg)
	return p, atEnd
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
	case record.KindBool:
		w.Bool(d.Bool())
	case record.KindNull:
		d.Null()
		w.Null()
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
