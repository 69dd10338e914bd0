package json_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/fxamacker/cbor/v2"

	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/tests/serializers/files/through"
)

// style writes JSON as some program does. Values are [any] slices, [members], texts and spellings.
type style struct {
	name                  string
	comma, before, colon  string
	indent, newline, last string
	indented, ascii       bool
	says                  string // what the root's record says of it, in diagnostic notation
}

type (
	member  struct{ name, value any }
	members []member
	spelled string // a number or a literal
)

func styles() []style {
	return []style{
		{name: "compact", says: `27(["object"])`},
		{name: "compact with a newline", last: "\n", says: `27(["object"])`},
		{name: "json.dumps", comma: " ", colon: " ", ascii: true, says: `27(["object", {"comma": " ", "colon": " ", "ascii": true}])`},
		{name: "json.dumps(ensure_ascii=False)", comma: " ", colon: " ", says: `27(["object", {"comma": " ", "colon": " "}])`},
		{name: "json.dumps(separators=(',', ':'))", ascii: true, says: `27(["object", {"ascii": true}])`},
		{name: "json.dumps(indent=4)", indented: true, indent: "    ", newline: "\n", colon: " ", ascii: true, says: `27(["object", {"indent": "    ", "colon": " ", "ascii": true}])`},
		{name: "json.dumps(indent=0)", indented: true, newline: "\n", colon: " ", ascii: true, says: `27(["object", {"indent": "", "colon": " ", "ascii": true}])`},
		{name: "JSON.stringify(v, null, 2)", indented: true, indent: "  ", newline: "\n", colon: " ", says: `27(["object", {"indent": "  ", "colon": " "}])`},
		{name: "JSON.stringify(v, null, 2) with a newline", indented: true, indent: "  ", newline: "\n", colon: " ", last: "\n", says: `27(["object", {"indent": "  ", "colon": " "}])`},
		{name: "a tab", indented: true, indent: "\t", newline: "\n", colon: " ", says: `27(["object", {"indent": "\t", "colon": " "}])`},
		{name: "lines of Windows", indented: true, indent: "  ", newline: "\r\n", colon: " ", last: "\r\n", says: `27(["object", {"indent": "  ", "newline": "\r\n", "colon": " "}])`},
		{name: "space before colons", indented: true, indent: "  ", newline: "\n", before: " ", colon: " ", says: `27(["object", {"indent": "  ", "space_colon": " ", "colon": " "}])`},
		{name: "newlines behind commas", comma: "\n", says: `27(["object", {"comma": "\n"}])`},
	}
}

func (s style) write(v any) string {
	var b strings.Builder
	s.value(&b, v, 0)
	return b.String() + s.last
}

func (s style) line(b *strings.Builder, depth int) {
	if s.indented {
		b.WriteString(s.newline + strings.Repeat(s.indent, depth))
	}
}

func (s style) value(b *strings.Builder, v any, depth int) {
	switch v := v.(type) {
	case spelled:
		b.WriteString(string(v))
	case string:
		s.text(b, v)
	case []any:
		b.WriteByte('[')
		for i, v := range v {
			if i > 0 {
				b.WriteString("," + s.comma)
			}
			s.line(b, depth+1)
			s.value(b, v, depth+1)
		}
		if len(v) > 0 {
			s.line(b, depth)
		}
		b.WriteByte(']')
	case members:
		b.WriteByte('{')
		for i, m := range v {
			if i > 0 {
				b.WriteString("," + s.comma)
			}
			s.line(b, depth+1)
			s.value(b, m.name, depth+1)
			b.WriteString(s.before + ":" + s.colon)
			s.value(b, m.value, depth+1)
		}
		if len(v) > 0 {
			s.line(b, depth)
		}
		b.WriteByte('}')
	}
}

func (s style) text(b *strings.Builder, v string) {
	b.WriteByte('"')
	for _, c := range v {
		switch {
		case c == '"' || c == '\\':
			b.WriteString("\\" + string(c))
		case strings.ContainsRune("\b\t\n\f\r", c):
			b.WriteString("\\" + string("btn fr"[c-8]))
		case c < 0x20:
			fmt.Fprintf(b, "\\u%04x", c)
		case c >= 0x80 && s.ascii:
			for _, u := range utf16.Encode([]rune{c}) {
				fmt.Fprintf(b, "\\u%04x", u)
			}
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
}

var sample any = members{
	{"version", spelled("3")},
	{"café", members{
		{"orders", []any{members{{"id", spelled("1")}, {"tags", []any{"a\n\x01\"b\"", "ümlaut 😀", members{}}}}, members{}, []any{}}},
		{"empty", members{}},
		{"none", []any{}},
		{"float", spelled("1.5")},
	}},
	{"list", []any{spelled("1"), members{{"deep", members{{"er", []any{[]any{spelled("null")}}}}}}}},
	{"last", members{{"a", members{{"b", spelled("true")}}}}},
}

// TestStyles: a text that follows a style has nothing in its records but the style and its values.
func TestStyles(t *testing.T) {
	m := through.New(t, "json", modules.JSON())
	plain := m.RoundTrip(t, []byte(styles()[0].write(sample)))
	for _, s := range styles() {
		text := s.write(sample)
		records := m.RoundTrip(t, []byte(text))
		says, err := cbor.Diagnose(records[0])
		if want := `["", "", ` + s.says + `]`; err != nil || says != want {
			t.Errorf("%s: the root is %s, want %s (%v)", s.name, says, want, err)
		}
		records = records[1:]
		if s.last != "" {
			if end, err := cbor.Diagnose(records[len(records)-1]); err != nil || end != fmt.Sprintf(`["", "/~end", %q]`, s.last) {
				t.Errorf("%s: it ends with %s (%v)", s.name, end, err)
			}
			records = records[:len(records)-1]
		}
		if !bytes.Equal(bytes.Join(records, nil), bytes.Join(plain[1:], nil)) {
			t.Errorf("%s: its records are others than those of the compact text", s.name)
		}
	}
}

// TestStylesAreThoseOfPrograms: the styles of the test are those of package encoding/json.
func TestStylesAreThoseOfPrograms(t *testing.T) {
	compact := []byte(styles()[0].write(sample))
	for _, s := range styles() {
		var want bytes.Buffer
		if !s.indented || s.ascii || s.newline != "\n" || s.before != "" {
			continue
		}
		if err := json.Indent(&want, compact, "", s.indent); err != nil || want.String()+s.last != s.write(sample) {
			t.Errorf("%s: %q, want %q (%v)", s.name, s.write(sample), want.String(), err)
		}
	}
}
