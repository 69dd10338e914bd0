package main

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"strconv"
	"unicode/utf8"

	torpor "github.com/torpor-run/torpor/sdk/go"
)

// parser reads one line of JSON in the one spelling that encoding/json gives it. A method that finds
// something else returns false and stops there.
type parser struct {
	line []byte
	at   int
	base uint64 // the line's offset in the file
	// What strings with escapes mean, and how they are spelled. Slices given out point into means, so
	// it is not moved before the line ends.
	means, spelled []byte
}

func (p *parser) reset(line []byte, offset uint64) {
	p.line, p.at, p.base = line, 0, offset
	if cap(p.means) < len(line) {
		p.means = make([]byte, 0, 2*len(line)) // no string means more bytes than it is spelled with
	}
	p.means = p.means[:0]
}

func (p *parser) offset() uint64 { return p.base + uint64(p.at) }

func (p *parser) corrupt(msg string) error {
	return &torpor.Error{Code: torpor.CodeCorrupt, Msg: msg, Offset: p.offset()}
}

// malformed is the error for what stands where the parser is.
func (p *parser) malformed() error {
	if !bytes.HasSuffix(p.line, []byte("\n")) {
		return &torpor.Error{Code: torpor.CodeCorrupt, Msg: "the file ends inside a line", Offset: p.base + uint64(len(p.line))}
	}
	rest := p.line[p.at:]
	return p.corrupt("not as the to-do service writes it: " + strconv.Quote(string(rest[:min(len(rest), 40)])))
}

// literal passes over s.
func (p *parser) literal(s string) bool {
	if len(p.line)-p.at < len(s) || string(p.line[p.at:p.at+len(s)]) != s {
		return false
	}
	p.at += len(s)
	return true
}

// uint reads an unsigned integer.
func (p *parser) uint() (v uint64, ok bool) {
	end := p.at
	for end < len(p.line) && p.line[end]-'0' < 10 {
		end++
	}
	digits := p.line[p.at:end]
	if len(digits) == 0 || len(digits) > 1 && digits[0] == '0' {
		return 0, false
	}
	v, err := strconv.ParseUint(string(digits), 10, 64)
	if err != nil {
		return 0, false
	}
	p.at = end
	return v, true
}

// text reads a string, from behind its opening quote.
func (p *parser) text(s *[]byte) bool {
	begin := p.at
	p.at += plain(p.line[begin:])
	if p.at < len(p.line) && p.line[p.at] == '"' {
		*s = p.line[begin:p.at]
		p.at++
		return true
	}
	// Anything but plain characters: find what it means, and whether that is spelled like this.
	end := p.at
	for end < len(p.line) && p.line[end] != '"' {
		if p.line[end] == '\\' {
			end++
		}
		end++
	}
	if end >= len(p.line) {
		return false
	}
	from := len(p.means)
	p.means = appendMeaning(p.means, p.line[begin:end])
	*s = p.means[from:]
	p.spelled = appendSpelled(p.spelled[:0], *s)
	if !bytes.Equal(p.spelled, p.line[begin:end]) {
		p.at = begin
		return false
	}
	p.at = end + 1
	return true
}

// plain is how many bytes at the beginning of s stand for themselves in every string. It looks at
// eight at a time: a loop over bytes would take a guest most of its time.
func plain(s []byte) int {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(s); i += 8 {
		w := binary.LittleEndian.Uint64(s[i:])
		// In x-ones&^x the top bit of a byte is set if the byte is zero; below the first such byte it is
		// set in no other. So the lowest top bit tells where the first of the bytes looked for is.
		quote := w | 4*ones ^ '&'*ones // zero for " and &, which differ in this bit
		angle := w | 2*ones ^ '>'*ones // zero for < and >
		slash := w ^ '\\'*ones
		found := (quote-ones)&^quote | (angle-ones)&^angle | (slash-ones)&^slash | (w-' '*ones)&^w | w
		if found &= tops; found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for ; i < len(s); i++ {
		switch c := s[i]; {
		case c < ' ' || c >= utf8.RuneSelf, c == '"', c == '\\', c == '<', c == '>', c == '&':
			return i
		}
	}
	return i
}

// appendMeaning adds what the inside of a string means. Of what is no sound spelling it makes
// something; the caller spells the meaning and compares.
func appendMeaning(dst, s []byte) []byte {
	for {
		n := bytes.IndexByte(s, '\\')
		if n < 0 || n+1 == len(s) {
			return append(dst, s...)
		}
		dst = append(dst, s[:n]...)
		c := s[n+1]
		s = s[n+2:]
		switch c {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			// encoding/json spells so only characters below U+10000, and no surrogates.
			n := min(4, len(s))
			v, err := strconv.ParseUint(string(s[:n]), 16, 16)
			if err != nil {
				return dst
			}
			dst = utf8.AppendRune(dst, rune(v))
			s = s[n:]
		default:
			dst = append(dst, c)
		}
	}
}

// appendSpelled adds s as encoding/json spells the inside of a string.
func appendSpelled(dst, s []byte) []byte {
	const hex = "0123456789abcdef"
	for {
		n := plain(s)
		dst = append(dst, s[:n]...)
		if s = s[n:]; len(s) == 0 {
			return dst
		}
		r, n := utf8.DecodeRune(s)
		switch {
		case r == utf8.RuneError && n == 1:
			dst = append(dst, `\ufffd`...)
		case r == '\u2028' || r == '\u2029':
			dst = append(dst, `\u202`...)
			dst = append(dst, hex[r&0xf])
		case r >= utf8.RuneSelf:
			dst = append(dst, s[:n]...)
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r == '\b':
			dst = append(dst, `\b`...)
		case r == '\f':
			dst = append(dst, `\f`...)
		case r == '\n':
			dst = append(dst, `\n`...)
		case r == '\r':
			dst = append(dst, `\r`...)
		case r == '\t':
			dst = append(dst, `\t`...)
		default:
			dst = append(dst, `\u00`...)
			dst = append(dst, hex[r>>4], hex[r&0xf])
		}
		s = s[n:]
	}
}

// appendText adds s as a string.
func appendText(dst, s []byte) []byte {
	dst = append(dst, '"')
	if plain(s) == len(s) {
		dst = append(dst, s...)
	} else {
		dst = appendSpelled(dst, s)
	}
	return append(dst, '"')
}
