// Package notation writes CBOR items, such as the keys and values of records, for people and for JSON. People get
// CBOR's diagnostic notation (RFC 8949, section 8); in JSON nothing is lost or guessed: a byte string is
// {"$bytes": base64}, other CBOR that JSON does not have (tags, NaN, maps whose keys are not text) is
// {"$cbor": diagnostic notation}, and what has no such notation, as text that is not UTF-8, is {"$item": base64 of the
// CBOR}. Embedded JSON, tag 262, is {"$json": that JSON, without its spacing}.
package notation

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"

	"github.com/torpor-run/torpor/host/abi/record"
)

// Notation writes items, which a record.Scanner must have checked. Its zero value is not ready: take [New]. It is a
// value, and safe for concurrent use.
type Notation struct{ diag cbor.DiagMode }

// New makes a Notation that is able to write whatever a record may hold. The error is of the program, not of any input.
func New() (Notation, error) {
	// As much as a record may hold: the library's own limits are lower.
	diag, err := cbor.DiagOptions{MaxNestedLevels: record.MaxDepth + 1, MaxArrayElements: record.MaxMaxBytes, MaxMapPairs: record.MaxMaxBytes}.DiagMode()
	if err != nil {
		return Notation{}, fmt.Errorf("cbor diagnostic notation: %w", err)
	}
	return Notation{diag}, nil
}

// Diagnose is an item in diagnostic notation; ok is false where it has none.
func (n Notation) Diagnose(item []byte) (s string, ok bool) {
	s, err := n.diag.Diagnose(item)
	return s, err == nil
}

// Show is an item for people: in diagnostic notation, or as hexadecimal digits where it has none. It may be as long as
// the item, or longer: see [Shorten].
func (n Notation) Show(item []byte) string {
	s, ok := n.Diagnose(item)
	if !ok {
		s = fmt.Sprintf("%x (CBOR without a notation)", item)
	}
	return s
}

// Text is text as it is, and another item as Show has it.
func (n Notation) Text(item []byte) string {
	if item[0]>>5 == 3 {
		return string(record.NewPull(item).Text())
	}
	return n.Show(item)
}

// JSON turns an item, a key's or a value's, into what encoding/json writes.
func (n Notation) JSON(item []byte) any {
	d := record.NewPull(item)
	switch item[0] >> 5 { // the major type, RFC 8949, section 3.1
	case 0, 1:
		if digits, ok := n.Diagnose(item); ok {
			return json.Number(digits)
		}
	case 2:
		return map[string]string{"$bytes": base64.StdEncoding.EncodeToString(d.Bytes())}
	case 3:
		if text := d.Text(); utf8.Valid(text) {
			return string(text)
		}
	case 4:
		all := make([]any, d.Array())
		for i := range all {
			all[i] = n.JSON(d.Skip())
		}
		return all
	case 5:
		if object, ok := n.object(d); ok {
			return object
		}
	case 6:
		if text, ok := embeddedJSON(d); ok {
			return map[string]json.RawMessage{"$json": text}
		}
	case 7:
		switch item[0] & 0x1f {
		case 20, 21:
			return d.Bool()
		case 22:
			return nil
		case 25, 26, 27:
			var f float64
			if err := cbor.Unmarshal(item, &f); err == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
				return f
			}
		}
	}
	return n.outsideJSON(item)
}

// tagJSON is that of JSON in a byte string (RFC 8949 has it in IANA's registry), as which the serializer json keeps what is
// spelled or spaced otherwise than most programs do.
const tagJSON = 262

// embeddedJSON is such JSON, without its spacing.
func embeddedJSON(d *record.Pull) (json.RawMessage, bool) {
	if d.Tag() != tagJSON {
		return nil, false
	}
	text := d.Bytes()
	var compact bytes.Buffer
	if d.Err() != nil || !utf8.Valid(text) || json.Compact(&compact, text) != nil {
		return nil, false
	}
	return compact.Bytes(), true
}

// object reads a map whose keys are text, each only once.
func (n Notation) object(d *record.Pull) (object map[string]any, ok bool) {
	object = map[string]any{}
	for range d.Map() {
		key, value := d.Skip(), d.Skip()
		if key[0]>>5 != 3 {
			return nil, false
		}
		name := record.NewPull(key).Text()
		if _, again := object[string(name)]; again || !utf8.Valid(name) {
			return nil, false
		}
		object[string(name)] = n.JSON(value)
	}
	return object, true
}

func (n Notation) outsideJSON(item []byte) any {
	if s, ok := n.Diagnose(item); ok {
		return map[string]string{"$cbor": s}
	}
	return map[string]string{"$item": base64.StdEncoding.EncodeToString(item)}
}

// Key is a record's key, a text or byte item, for people: text as [OneWord] has it, bytes as h'...'.
func Key(item []byte) string {
	key, text := record.NewPull(item).TextOrBytes()
	if !text {
		return "h'" + hex.EncodeToString(key) + "'"
	}
	return OneWord(string(key))
}

// OneWord is s for people: as it is, unless it is empty or would break the line; then it is quoted.
func OneWord(s string) string {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return strconv.Quote(s)
	}
	return s
}

// Shorten cuts s behind most characters, and says how many there were.
func Shorten(s string, most int) string {
	n := utf8.RuneCountInString(s)
	if n <= most {
		return s
	}
	return string([]rune(s)[:most]) + fmt.Sprintf("… (%d characters)", n)
}
