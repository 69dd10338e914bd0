// Package jsonscan reads and writes JSON (RFC 8259) in a serializer: value by value, without reflection,
// without an allocation for each value, and without ever holding more of a document than one string.
//
// A [Scanner] reads from a [torpor.Input]. Who knows what a document looks like reads it member by
// member:
//
//	s.Object()
//	for {
//		name, ok := s.Key()
//		if !ok {
//			break
//		}
//		switch string(name) {
//		case "title":
//			title = append(title[:0], s.Text()...)
//		case "done":
//			done = s.Bool()
//		default:
//			s.Skip()
//		}
//	}
//
// Who does not has [Scanner.Peek], and [Scanner.AppendItem], which makes any value one CBOR item. A
// [Writer] writes JSON to a [torpor.Output], with [Writer.Item] for the way back.
//
// What is read is read strictly: no comments, no trailing commas, no leading zeros, no bare control
// characters; bytes that are not UTF-8 are refused. Two things that the grammar allows are left to the
// caller: names that repeat in an object, and \u escapes of half a character ("lone surrogates"), which
// are refused only where a string is decoded, because UTF-8 has none of them; [Scanner.RawText] gives the
// string as it is spelled.
package jsonscan

import (
	"errors"
	"io"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/torpor-run/torpor/host/abi/record"
	torpor "github.com/torpor-run/torpor/sdk/go"
)

// MaxDepth is how deep objects and arrays may nest in what a [Scanner] reads: four times as deep as in
// the value of a record. A Scanner's memory follows from it, and from nothing else of the input but its
// longest string.
const MaxDepth = 256

// maxPathKeyBytes is how much of a name is told in a path.
const maxPathKeyBytes = 100

// Kind is what a value is, as [Scanner.Peek] tells it.
type Kind uint8

// The kinds of values.
const (
	KindNone Kind = iota // no value comes next: the end, an error, or what begins no value
	KindNull
	KindBool
	KindNumber
	KindString
	KindArray
	KindObject
)

// Scanner reads one JSON document, or one after another ([Scanner.Next]), from an Input, which is its own
// from the first call to the last.
//
// Its error is sticky, like that of a record.Pull: after the first, methods return zero values and false,
// so a reader asks [Scanner.End] or [Scanner.Err] once. Errors are a *torpor.Error with the offset and the
// path: $.tasks[3].title. Slices are valid until the next method. Not safe for concurrent use.
type Scanner struct {
	in      *torpor.Input
	w       []byte // the input's window
	p       int    // w[p:] is unread
	keep    int    // w[keep:] must stay when the window moves; -1: only what is unread
	value   bool   // a value comes next; else a comma, the end of an object or array, or that of the document
	between bool   // what is read is between two members, and of neither
	first   uint64 // where in the input the Scanner began
	depth   int
	err     error

	levels [MaxDepth]level
	names  []byte               // those of open levels which have left the window
	text   []byte               // what the string read last means, if that is not how it is spelled
	heads  [record.MaxDepth]int // where AppendItem has left room for heads
}

// level is an object or array that is open.
type level struct {
	object bool
	held   bool   // the name is in names, not in w
	begin  int    // the name of the member under way
	end    int    //
	n      uint64 // members or elements begun
}

// New makes a Scanner that reads in from where it is.
func New(in *torpor.Input) *Scanner {
	return &Scanner{in: in, w: in.Bytes(), keep: -1, value: true, first: in.Offset()}
}

// Err is the first error met, or nil.
func (s *Scanner) Err() error { return s.err }

// Offset is the offset in the input of what is read next.
func (s *Scanner) Offset() uint64 { return s.in.Offset() + uint64(s.p) }

// Path says where in the document the Scanner is, for people.
func (s *Scanner) Path() string {
	path := []byte("$")
	for i := range s.depth {
		l := &s.levels[i]
		switch {
		case l.n == 0, i == s.depth-1 && s.between:
		case !l.object:
			path = append(strconv.AppendUint(append(path, '['), l.n-1, 10), ']')
		default:
			name := s.w
			if l.held {
				name = s.names
			}
			if name = name[l.begin:l.end]; bare(name) {
				path = append(append(path, '.'), name...)
				break
			}
			path = append(path, `["`...)
			path = append(path, name[:min(len(name), maxPathKeyBytes)]...)
			path = append(path, `"]`...)
		}
	}
	return string(path)
}

// bare reports whether a name needs no quotes in a path.
func bare(name []byte) bool {
	for _, c := range name {
		if c != '_' && c != '-' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return len(name) > 0 && len(name) <= maxPathKeyBytes
}

// Error makes an error about where the Scanner is.
func (s *Scanner) Error(code torpor.Code, msg string) *torpor.Error {
	return &torpor.Error{Code: code, Msg: msg, Path: s.Path(), Offset: s.Offset()}
}

// failed notes an error about the byte at p, if it is the first.
func (s *Scanner) failed(code torpor.Code, p int, msg string) {
	if s.err == nil {
		e := s.Error(code, msg)
		e.Offset = s.in.Offset() + uint64(p)
		s.err = e
	}
	s.w, s.keep, s.value = s.w[:s.p], -1, false // so that nothing else has to ask whether there was one
}

// wrong is the error for what is next, where something else should be.
func (s *Scanner) wrong(want string) {
	if s.err != nil {
		return
	}
	if s.p == len(s.w) {
		s.failed(torpor.CodeCorrupt, s.p, "the document ends where "+want+" should be")
		return
	}
	for !utf8.FullRune(s.w[s.p:]) && s.more() { // the rest of a character
	}
	found := s.w[s.p : s.p+1]
	if r, n := utf8.DecodeRune(s.w[s.p:]); r != utf8.RuneError {
		found = s.w[s.p : s.p+n]
	}
	s.failed(torpor.CodeCorrupt, s.p, want+" expected, found "+strconv.Quote(string(found)))
}

// misused is the error for a method that was called where it makes no sense: a fault of the serializer.
func (s *Scanner) misused(method string) {
	s.failed(torpor.CodeInternal, s.p, "the serializer called jsonscan's "+method+" where there is none to come")
}

// more adds to the window, which may move, and reports whether it could. Indices into w that matter are
// p, keep, and those of names.
func (s *Scanner) more() bool {
	if s.err != nil {
		return false
	}
	keep := s.p
	if s.keep >= 0 {
		keep = s.keep
	}
	s.hold(keep)
	s.in.Consume(keep)
	err := s.in.Fill()
	s.w = s.in.Bytes()
	s.p -= keep
	if s.keep > 0 {
		s.keep = 0
	}
	if err == nil {
		return true
	}
	if !errors.Is(err, io.EOF) {
		var e *torpor.Error
		if errors.As(err, &e) {
			s.failed(e.Code, 0, e.Msg)
		} else {
			s.failed(torpor.CodeInternal, 0, err.Error())
		}
	}
	return false
}

// hold copies the names that are about to leave the window. Those that have left it are always of the
// outermost levels.
func (s *Scanner) hold(keep int) {
	used := 0
	for i := range s.depth {
		l := &s.levels[i]
		switch {
		case !l.object || l.n == 0:
		case l.held:
			used = l.end
		case l.begin >= keep:
			l.begin, l.end = l.begin-keep, l.end-keep
		default:
			s.names = append(s.names[:used], s.w[l.begin:min(l.end, l.begin+maxPathKeyBytes+1)]...)
			l.held, l.begin, l.end = true, used, len(s.names)
			used = l.end
		}
	}
}

// space passes over white space and gives the byte behind it, which is next, or 0 at the end. (The byte 0
// begins nothing, so the two need no telling apart.)
func (s *Scanner) space() byte {
	for {
		for s.p < len(s.w) {
			switch c := s.w[s.p]; c {
			case ' ', '\t', '\r', '\n':
				s.p++
			default:
				return c
			}
		}
		if !s.more() {
			return 0
		}
	}
}

// next is space, in short, for a byte that is there and no white space.
func (s *Scanner) next() byte {
	if s.p < len(s.w) {
		if c := s.w[s.p]; c > ' ' {
			return c
		}
	}
	return s.space()
}

// Peek is the kind of the value that comes next. It reads white space at most.
func (s *Scanner) Peek() Kind {
	if !s.value {
		return KindNone
	}
	switch c := s.next(); c {
	case '"':
		return KindString
	case '{':
		return KindObject
	case '[':
		return KindArray
	case 't', 'f':
		return KindBool
	case 'n':
		return KindNull
	default:
		if c == '-' || c-'0' < 10 {
			return KindNumber
		}
		return KindNone
	}
}

// begin goes to the value that comes next and gives its first byte, or 0 if there is none.
func (s *Scanner) begin(method string) byte {
	if !s.value {
		s.misused(method)
		return 0
	}
	return s.next()
}

// Object begins an object. [Scanner.Key] then goes through its members and ends it.
func (s *Scanner) Object() {
	if s.begin("Object") != '{' {
		s.wrong("an object")
		return
	}
	s.open(true)
}

// Array begins an array. [Scanner.More] then goes through its elements and ends it.
func (s *Scanner) Array() {
	if s.begin("Array") != '[' {
		s.wrong("an array")
		return
	}
	s.open(false)
}

func (s *Scanner) open(object bool) {
	if s.depth == MaxDepth {
		s.failed(torpor.CodeTooLarge, s.p, "nested deeper than "+strconv.Itoa(MaxDepth))
		return
	}
	s.p++
	l := &s.levels[s.depth]
	l.object, l.held, l.n = object, false, 0
	s.depth++
	s.value = false
}

// inside is the innermost level, if it is of the kind and what comes next is no value.
func (s *Scanner) inside(object bool) *level {
	if s.value || s.err != nil || s.depth == 0 {
		return nil
	}
	if l := &s.levels[s.depth-1]; l.object == object {
		return l
	}
	return nil
}

// More goes to the next element of an array, or ends the array and returns false.
func (s *Scanner) More() bool {
	l := s.inside(false)
	if l == nil {
		s.misused("More")
		return false
	}
	s.between = true
	switch c := s.next(); {
	case c == ']':
		s.close()
		return false
	case l.n == 0:
	case c == ',':
		s.p++
	default:
		s.wrong("a comma or the end of the array")
		return false
	}
	l.n++
	s.value, s.between = true, false
	return true
}

// close ends the innermost level, whose last byte is next.
func (s *Scanner) close() {
	s.p++
	s.depth--
	s.between = false
}

// Key goes to the next member of an object and gives its name, or ends the object and returns false.
func (s *Scanner) Key() (name []byte, ok bool) {
	if l := s.inside(true); l != nil {
		if begin, end := shortName(s.w, s.p, l.n > 0); end > 0 {
			s.p = end + len(`":`)
			l.held, l.begin, l.end = false, begin, end
			l.n++
			s.value, s.between = true, false
			return s.w[begin:end:end], true
		}
	}
	begin, end, escaped, ok := s.key("Key")
	if !ok {
		return nil, false
	}
	if escaped {
		return s.decode(begin, end)
	}
	return s.w[begin:end:end], true
}

// RawKey is Key, with the name as it is spelled between its quotes.
func (s *Scanner) RawKey() (name []byte, ok bool) {
	begin, end, _, ok := s.key("RawKey")
	if !ok {
		return nil, false
	}
	return s.w[begin:end:end], true
}

func (s *Scanner) key(method string) (begin, end int, escaped, ok bool) {
	l := s.inside(true)
	if l == nil {
		s.misused(method)
		return 0, 0, false, false
	}
	s.between = true
	c := s.next()
	if c == '}' {
		s.close()
		return 0, 0, false, false
	}
	if l.n > 0 {
		if c != ',' {
			s.wrong("a comma or the end of the object")
			return 0, 0, false, false
		}
		s.p++
		c = s.next()
	}
	if c != '"' {
		s.wrong("a name")
		return 0, 0, false, false
	}
	return s.member(l)
}

// member reads a name, whose first quote is next, and the colon.
func (s *Scanner) member(l *level) (begin, end int, escaped, ok bool) {
	escaped, ok = s.str()
	if !ok {
		return 0, 0, false, false
	}
	n := s.p - 1 - s.keep
	if s.next() != ':' {
		s.wrong("a colon")
		return 0, 0, false, false
	}
	s.p++
	begin, end = s.keep, s.keep+n
	s.keep = -1
	l.held, l.begin, l.end = false, begin, end
	l.n++
	s.value, s.between = true, false
	return begin, end, escaped, true
}

// Text reads a string and gives what it means.
func (s *Scanner) Text() []byte {
	begin, end, escaped, ok := s.quoted("Text")
	switch {
	case !ok:
		return nil
	case escaped:
		text, _ := s.decode(begin, end)
		return text
	}
	return s.w[begin:end:end]
}

// RawText reads a string and gives it as it is spelled between its quotes.
func (s *Scanner) RawText() []byte {
	begin, end, _, ok := s.quoted("RawText")
	if !ok {
		return nil
	}
	return s.w[begin:end:end]
}

func (s *Scanner) quoted(method string) (begin, end int, escaped, ok bool) {
	if s.begin(method) != '"' {
		s.wrong("a string")
		return 0, 0, false, false
	}
	if escaped, ok = s.str(); !ok {
		return 0, 0, false, false
	}
	begin, end = s.keep, s.p-1
	s.keep, s.value = -1, false
	return begin, end, escaped, true
}

// str reads a string whose first quote is next. What is between the quotes then begins at keep and ends
// before the byte before p.
func (s *Scanner) str() (escaped, ok bool) {
	s.p++
	s.keep = s.p
	stop := uint64(tops) // bytes that are no ASCII; once there is one, they are passed over
	for {
		s.p += plain(s.w[s.p:], stop)
		if s.p == len(s.w) {
			if !s.more() {
				s.failed(torpor.CodeCorrupt, s.p, "the document ends inside a string")
				return false, false
			}
			continue
		}
		switch c := s.w[s.p]; {
		case c == '"':
			if stop == 0 && !validUTF8(s.w[s.keep:s.p]) {
				s.failed(torpor.CodeCorrupt, s.keep+invalid(s.w[s.keep:s.p]), "not UTF-8")
				return false, false
			}
			s.p++
			return escaped, true
		case c == '\\':
			escaped = true
			if !s.escape() {
				return false, false
			}
		case c < ' ':
			s.failed(torpor.CodeCorrupt, s.p, "a control character in a string, where it must be escaped")
			return false, false
		default:
			stop = 0
		}
	}
}

// invalid is where b stops being UTF-8.
func invalid(b []byte) int {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(b)
}

// escape passes over an escape, whose backslash is next.
func (s *Scanner) escape() bool {
	const short, long = len(`\n`), len(`\u00e9`)
	if !s.have(short) {
		return false
	}
	switch s.w[s.p+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.p += short
		return true
	case 'u':
		if !s.have(long) {
			return false
		}
		if _, ok := unhex(s.w[s.p+short : s.p+long]); ok {
			s.p += long
			return true
		}
	}
	s.failed(torpor.CodeCorrupt, s.p, "not an escape that JSON has")
	return false
}

// have sees to it that there are n bytes unread, inside a string.
func (s *Scanner) have(n int) bool {
	for len(s.w)-s.p < n {
		if !s.more() {
			s.failed(torpor.CodeCorrupt, len(s.w), "the document ends inside a string")
			return false
		}
	}
	return true
}

// unhex reads the digits of an escape.
func unhex(digits []byte) (r rune, ok bool) {
	for _, c := range digits {
		switch {
		case c-'0' < 10:
			c -= '0'
		case c|0x20-'a' < 6:
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// decode gives what a string means whose spelling, sound and with escapes, is w[begin:end].
func (s *Scanner) decode(begin, end int) ([]byte, bool) {
	text := s.text[:0]
	for i := begin; i < end; {
		if s.w[i] != '\\' {
			run := i + plain(s.w[i:], 0) // to the next backslash, or the quote at end
			text = append(text, s.w[i:run]...)
			i = run
			continue
		}
		c := s.w[i+1]
		switch c {
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			r, _ := unhex(s.w[i+2 : i+6])
			if utf16.IsSurrogate(r) {
				low := rune(0)
				if i+12 <= end && s.w[i+6] == '\\' && s.w[i+7] == 'u' {
					low, _ = unhex(s.w[i+8 : i+12])
				}
				if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
					s.failed(torpor.CodeUnsupported, i, "an escape of half a character (a lone surrogate), which is no text in UTF-8")
					return nil, false
				}
				i += 6
			}
			text = utf8.AppendRune(text, r)
			i += 6
			continue
		}
		text = append(text, c)
		i += 2
	}
	s.text = text
	return text, true
}

// Number reads a number and gives it as it is spelled: 1.50 is not 1.5. It is a sound number, of any
// size.
func (s *Scanner) Number() []byte {
	c := s.begin("Number")
	if c != '-' && c-'0' > 9 {
		s.wrong("a number")
		return nil
	}
	begin, end := s.number()
	return s.w[begin:end:end]
}

// number reads a number, whose first byte is next.
func (s *Scanner) number() (begin, end int) {
	s.keep = s.p
	for {
		p := s.p
		for p < len(s.w) && (s.w[p]-'0' < 10 || s.w[p] == '.' || s.w[p]|0x20 == 'e' || s.w[p] == '-' || s.w[p] == '+') {
			p++
		}
		s.p = p
		if p < len(s.w) || !s.more() {
			break
		}
	}
	if s.err != nil {
		return 0, 0
	}
	begin, end = s.keep, s.p
	if at, ok := number(s.w[begin:end]); !ok {
		msg := "not a number as JSON has them: " + strconv.Quote(string(s.w[begin:min(end, begin+40)]))
		s.failed(torpor.CodeCorrupt, begin+at, msg)
		return 0, 0
	}
	s.keep, s.value = -1, false
	return begin, end
}

// number reports whether b is a number, and if not, where it goes wrong.
func number(b []byte) (at int, ok bool) {
	i := 0
	digits := func() bool {
		from := i
		for i < len(b) && b[i]-'0' < 10 {
			i++
		}
		return i > from
	}
	if i < len(b) && b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if !digits() {
		return i, false
	}
	if i < len(b) && b[i] == '.' {
		i++
		if !digits() {
			return i, false
		}
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		i++
		if i < len(b) && (b[i] == '-' || b[i] == '+') {
			i++
		}
		if !digits() {
			return i, false
		}
	}
	return i, i == len(b)
}

// Uint reads a number that is an integer in digits alone, up to 2^64-1.
func (s *Scanner) Uint() uint64 {
	c := s.begin("Uint")
	if c-'0' > 9 {
		s.wrong("an unsigned integer")
		return 0
	}
	v, ok := s.uint()
	if !ok {
		s.failed(torpor.CodeCorrupt, s.p, "an unsigned integer of 64 bits expected")
	}
	return v
}

// Int reads a number that is an integer in digits alone, between -2^63 and 2^63-1.
func (s *Scanner) Int() int64 {
	c := s.begin("Int")
	if c != '-' && c-'0' > 9 {
		s.wrong("an integer")
		return 0
	}
	begin, end := s.number()
	if s.err != nil {
		return 0
	}
	v, err := strconv.ParseInt(string(s.w[begin:end]), 10, 64)
	if err != nil {
		s.failed(torpor.CodeCorrupt, begin, "an integer of 64 bits expected")
		return 0
	}
	return v
}

// uint reads the digits that are next.
func (s *Scanner) uint() (uint64, bool) {
	const most = 16 // digits, after which there must be something else
	if w := s.w[s.p:]; len(w) > most+1 {
		if v, n := digits(w); n <= most && (w[0] != '0' || n == 1) && w[n] != '.' && w[n]|0x20 != 'e' && w[n] != '+' && w[n] != '-' {
			s.p += n
			s.value = false
			return v, true
		}
	}
	begin, end := s.number()
	if s.err != nil {
		return 0, true
	}
	v, ok := integer(s.w[begin:end])
	if !ok {
		s.p = begin
	}
	return v, ok
}

// Bool reads true or false.
func (s *Scanner) Bool() bool {
	switch s.begin("Bool") {
	case 't':
		return s.literal("true")
	case 'f':
		s.literal("false")
	default:
		s.wrong("true or false")
	}
	return false
}

// Null reads null and reports whether it could.
func (s *Scanner) Null() bool {
	if s.begin("Null") != 'n' {
		s.wrong("null")
		return false
	}
	return s.literal("null")
}

// literal reads a word whose first letter is next.
func (s *Scanner) literal(word string) bool {
	for len(s.w)-s.p < len(word) {
		if !s.more() {
			break
		}
	}
	if w := s.w[s.p:]; len(w) < len(word) || string(w[:len(word)]) != word {
		if s.err == nil {
			s.wrong(word)
		}
		return false
	}
	s.p += len(word)
	s.value = false
	return true
}

// Skip passes over a value of any kind.
func (s *Scanner) Skip() {
	outer := s.depth
	s.skip()
	for s.depth > outer && s.err == nil {
		var more bool
		if s.levels[s.depth-1].object {
			_, _, _, more = s.key("Skip")
		} else {
			more = s.More()
		}
		if more {
			s.skip()
		}
	}
}

// skip passes over a value, or into an object or array.
func (s *Scanner) skip() {
	switch c := s.begin("Skip"); c {
	case '"':
		s.quoted("Skip")
	case '{', '[':
		s.open(c == '{')
	case 't', 'f':
		s.Bool()
	case 'n':
		s.Null()
	default:
		if c != '-' && c-'0' > 9 {
			s.wrong("a value")
			return
		}
		s.number()
	}
}

// End checks that there is nothing but white space after the document, and returns Err.
func (s *Scanner) End() error {
	if s.err == nil && (s.value || s.depth > 0) {
		s.misused("End")
	}
	if s.next() != 0 || s.p < len(s.w) {
		s.failed(torpor.CodeCorrupt, s.p, "more after the end of the document")
	}
	s.give()
	return s.err
}

// Next goes to the next of several documents, one after another with white space between them or none,
// as in a file of JSON lines. It returns false at the end of the input and after an error. A Scanner
// that is new stands before the first document with or without it.
func (s *Scanner) Next() bool {
	if s.depth > 0 || s.value && s.Offset() != s.first {
		s.misused("Next")
	}
	more := s.next() != 0 || s.p < len(s.w)
	s.give()
	s.value = more && s.err == nil
	return s.value
}

// give gives up what has been read.
func (s *Scanner) give() {
	if s.err == nil {
		s.in.Consume(s.p)
		s.w, s.p = s.in.Bytes(), 0
	}
}
