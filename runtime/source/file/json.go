package file

import (
	"fmt"
	"io"

	"github.com/torpor-run/torpor/host/abi"
)

// maxDepth is how deep a JSON text may nest, that of the serializer json.
const maxDepth = 10_000

// checker is told all bytes of a file, and then whether that was all.
type checker interface {
	io.Writer
	// end tells whether the bytes so far are the whole of what they should be.
	end() error
}

func newChecker(c Check) checker {
	if c == JSON {
		return &jsonChecker{}
	}
	return anything{}
}

// checked tells whether some bytes have a form.
func checked(c Check, b []byte) error {
	k := newChecker(c)
	if _, err := k.Write(b); err != nil {
		return err
	}
	return k.end()
}

// anything is the checker that finds nothing wrong.
type anything struct{}

func (anything) Write(p []byte) (int, error) { return len(p), nil }
func (anything) end() error                  { return nil }

// formError says where bytes stop being what they should be.
type formError struct {
	offset int64
	what   string
}

func (e *formError) Error() string {
	return fmt.Sprintf("no whole JSON text: byte %d: %s", e.offset, e.what)
}

// jsonState is what may come next in a JSON text.
type jsonState uint8

const (
	jsonStart    jsonState = iota // a byte order mark, or as jsonValue
	jsonMark                      // the rest of a byte order mark
	jsonValue                     // a value
	jsonFirst                     // a value, or the end of the array that has just begun
	jsonName                      // a name
	jsonNameOr                    // a name, or the end of the object that has just begun
	jsonColon                     // the colon behind a name
	jsonBehind                    // what follows a value
	jsonString                    // the rest of a string
	jsonEscape                    // what follows a backslash
	jsonHex                       // the rest of four digits
	jsonMinus                     // the first digit of a number
	jsonZero                      // what follows a zero at the beginning of a number
	jsonDigits                    // more digits, or what follows them
	jsonPoint                     // the first digit behind the point
	jsonFraction                  // more of them, or what follows
	jsonExponent                  // a sign or the first digit of the exponent
	jsonSign                      // the first digit of the exponent
	jsonPower                     // more of them, or what follows
	jsonWord                      // the rest of true, false or null
)

// jsonChecker checks a JSON text of any length, piece by piece, in constant memory.
type jsonChecker struct {
	state   jsonState
	name    bool   // the string is a name
	hex     int    // digits that are missing
	rest    string // of a word or mark
	depth   int
	objects [maxDepth/64 + 1]uint64 // bit i: what is open at depth i is an object
	offset  int64
	failed  error
}

// Write implements io.Writer. An error is a *formError, or abi.ErrTooLarge where the text nests too deep, and stays.
func (c *jsonChecker) Write(p []byte) (int, error) {
	for i := 0; i < len(p) && c.failed == nil; i++ {
		switch c.state { // most bytes of most files are of these
		case jsonString:
			for i < len(p) && p[i] >= ' ' && p[i] != '"' && p[i] != '\\' {
				i++
			}
		case jsonDigits, jsonFraction, jsonPower:
			for i < len(p) && digit(p[i]) {
				i++
			}
		}
		if i == len(p) {
			break
		}
		if what := c.step(p[i]); what != "" {
			c.failed = &formError{c.offset + int64(i), what}
		} else if c.depth > maxDepth {
			c.failed = fmt.Errorf("byte %d: nested deeper than %d: %w", c.offset+int64(i), maxDepth, abi.ErrTooLarge)
		}
	}
	if c.failed != nil {
		return 0, c.failed
	}
	c.offset += int64(len(p))
	return len(p), nil
}

// end implements checker.
func (c *jsonChecker) end() error {
	switch c.state {
	case jsonZero, jsonDigits, jsonFraction, jsonPower:
		c.state = jsonBehind // only the end tells that there are no more digits
	}
	switch {
	case c.failed != nil:
	case c.offset == 0:
		c.failed = &formError{0, "it is empty"}
	case c.state != jsonBehind || c.depth > 0:
		c.failed = &formError{c.offset, "it ends in the midst"}
	}
	return c.failed
}

// step takes one byte; the text says what is wrong with it.
func (c *jsonChecker) step(b byte) string {
	switch c.state {
	case jsonString:
		switch {
		case b == '\\':
			c.state = jsonEscape
		case b < ' ':
			return "a control character in a string"
		case b == '"' && c.name:
			c.state, c.name = jsonColon, false
		case b == '"':
			c.state = jsonBehind
		}
		return ""
	case jsonEscape:
		switch b {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			c.state = jsonString
		case 'u':
			c.state, c.hex = jsonHex, 4
		default:
			return "an escape that there is not"
		}
		return ""
	case jsonHex:
		if !digit(b) && (b|0x20 < 'a' || b|0x20 > 'f') {
			return "an escape needs four hexadecimal digits"
		}
		if c.hex--; c.hex == 0 {
			c.state = jsonString
		}
		return ""
	case jsonWord, jsonMark:
		if b != c.rest[0] {
			return "want true, false or null"
		}
		if c.rest = c.rest[1:]; c.rest == "" && c.state == jsonMark {
			c.state = jsonValue
		} else if c.rest == "" {
			c.state = jsonBehind
		}
		return ""
	case jsonMinus, jsonZero, jsonDigits, jsonPoint, jsonFraction, jsonExponent, jsonSign, jsonPower:
		if done, what := c.number(b); !done {
			return what
		}
	case jsonStart:
		if b == 0xEF {
			c.state, c.rest = jsonMark, "\xBB\xBF"
			return ""
		}
	}
	if b == ' ' || b == '\n' || b == '\t' || b == '\r' {
		if c.state == jsonStart {
			c.state = jsonValue
		}
		return ""
	}
	return c.structure(b)
}

// number takes a byte of a number, unless that has ended before it: then it is done.
func (c *jsonChecker) number(b byte) (done bool, what string) {
	point, exponent := b == '.', b == 'e' || b == 'E'
	switch {
	case c.state == jsonMinus && b == '0':
		c.state = jsonZero
	case (c.state == jsonMinus || c.state == jsonDigits) && digit(b):
		c.state = jsonDigits
	case (c.state == jsonPoint || c.state == jsonFraction) && digit(b):
		c.state = jsonFraction
	case (c.state == jsonExponent || c.state == jsonSign || c.state == jsonPower) && digit(b):
		c.state = jsonPower
	case c.state == jsonExponent && (b == '+' || b == '-'):
		c.state = jsonSign
	case (c.state == jsonZero || c.state == jsonDigits) && point:
		c.state = jsonPoint
	case (c.state == jsonZero || c.state == jsonDigits || c.state == jsonFraction) && exponent:
		c.state = jsonExponent
	case c.state == jsonMinus || c.state == jsonPoint || c.state == jsonExponent || c.state == jsonSign:
		return false, "a number without a digit"
	default:
		c.state = jsonBehind
		return true, ""
	}
	return false, ""
}

// structure takes a byte that begins a value or a name, or stands between two.
func (c *jsonChecker) structure(b byte) string {
	object := c.objects[c.depth/64]>>(c.depth%64)&1 == 1
	switch c.state {
	case jsonStart, jsonValue, jsonFirst:
		if c.state == jsonFirst && b == ']' {
			c.depth--
			c.state = jsonBehind
			return ""
		}
		return c.value(b)
	case jsonName, jsonNameOr:
		switch {
		case b == '"':
			c.state, c.name = jsonString, true
		case b == '}' && c.state == jsonNameOr:
			c.depth--
			c.state = jsonBehind
		default:
			return "want a name"
		}
	case jsonColon:
		if b != ':' {
			return "want a colon"
		}
		c.state = jsonValue
	case jsonBehind:
		switch {
		case c.depth == 0:
			return "something follows the text"
		case b == ',' && object:
			c.state = jsonName
		case b == ',':
			c.state = jsonValue
		case b == '}' && object, b == ']' && !object:
			c.depth--
		default:
			return "want a comma or an end"
		}
	}
	return ""
}

// value takes the first byte of a value.
func (c *jsonChecker) value(b byte) string {
	switch {
	case b == '"':
		c.state = jsonString
	case b == '{' || b == '[':
		if c.depth++; c.depth > maxDepth {
			return ""
		}
		bit := uint64(1) << (c.depth % 64)
		if c.objects[c.depth/64] &^= bit; b == '{' {
			c.objects[c.depth/64] |= bit
			c.state = jsonNameOr
		} else {
			c.state = jsonFirst
		}
	case b == '-':
		c.state = jsonMinus
	case b == '0':
		c.state = jsonZero
	case digit(b):
		c.state = jsonDigits
	case b == 't':
		c.state, c.rest = jsonWord, "true"[1:]
	case b == 'f':
		c.state, c.rest = jsonWord, "false"[1:]
	case b == 'n':
		c.state, c.rest = jsonWord, "null"[1:]
	default:
		return "want a value"
	}
	return ""
}

func digit(b byte) bool { return b >= '0' && b <= '9' }
