package notation_test

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/notation"
)

func text(s string) []byte { return record.AppendText(nil, s) }

// deep is an item nested as deep as a record's value may be.
func deep() []byte {
	return append(bytes.Repeat([]byte{0x81}, record.MaxDepth), 0xf6)
}

func TestJSON(t *testing.T) {
	n, err := notation.New()
	if err != nil {
		t.Fatal(err)
	}
	item := func(v any) []byte {
		b, err := cbor.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	mapOf := func(pairs ...[]byte) []byte {
		return append(record.AppendMap(nil, len(pairs)/2), bytes.Join(pairs, nil)...)
	}
	for _, c := range []struct {
		name string
		item []byte
		want string
	}{
		{"text", text("a\"é\x00<&>"), `"a\"é\u0000<&>"`},
		{"empty text", text(""), `""`},
		{"text that is not UTF-8", text("a\xff"), `{"$item":"YmH/"}`},
		{"bytes", record.AppendBytes(nil, []byte{0, 255}), `{"$bytes":"AP8="}`},
		{"true", record.AppendBool(nil, true), `true`},
		{"false", record.AppendBool(nil, false), `false`},
		{"null", record.AppendNull(nil), `null`},
		{"undefined", []byte{0xf7}, `{"$cbor":"undefined"}`},
		{"simple value", []byte{0xf8, 0xff}, `{"$cbor":"simple(255)"}`},
		{"integer", item(42), `42`},
		{"largest integer", item(uint64(math.MaxUint64)), `18446744073709551615`},
		{"negative", item(-1), `-1`},
		{"smallest integer", []byte{0x3b, 255, 255, 255, 255, 255, 255, 255, 255}, `-18446744073709551616`},
		{"float", item(1.5), `1.5`},
		{"half a float", []byte{0xf9, 0x3c, 0x00}, `1`},
		{"single float", item(float32(0.5)), `0.5`},
		{"NaN", item(math.NaN()), `{"$cbor":"NaN"}`},
		{"infinity", item(math.Inf(1)), `{"$cbor":"Infinity"}`},
		{"minus infinity", item(math.Inf(-1)), `{"$cbor":"-Infinity"}`},
		{"array", item([]any{1, "a", nil, []any{}}), `[1,"a",null,[]]`},
		{"map", mapOf(text("b"), item(1), text("a"), item([]any{true})), `{"a":[true],"b":1}`},
		{"empty map", mapOf(), `{}`},
		{"map with integer keys", mapOf(item(1), text("a")), `{"$cbor":"{1: \"a\"}"}`},
		{"map with byte keys", mapOf(record.AppendBytes(nil, "k"), text("a")), `{"$cbor":"{h'6b': \"a\"}"}`},
		{"map with a key twice", mapOf(text("k"), item(1), text("k"), item(2)), `{"$cbor":"{\"k\": 1, \"k\": 2}"}`},
		{"map with a key that is not UTF-8", mapOf(text("\xff"), item(1)), `{"$item":"oWH/AQ=="}`},
		{"map within", mapOf(text("m"), mapOf(item(1), item(2))), `{"m":{"$cbor":"{1: 2}"}}`},
		{"time", append([]byte{0xc0}, text("2026-01-01T00:00:00Z")...), `{"$cbor":"0(\"2026-01-01T00:00:00Z\")"}`},
		{"time beyond JSON's", append([]byte{0xc1}, item(uint64(1)<<60)...), `{"$cbor":"1(1152921504606846976)"}`},
		{"bignum", append([]byte{0xc2}, record.AppendBytes(nil, []byte{1, 0, 0, 0, 0, 0, 0, 0, 0})...), `{"$cbor":"18446744073709551616"}`},
		{"embedded JSON", append(record.AppendTag(nil, 262), record.AppendBytes(nil, `{"n": 1.50, "a": [ 1e5, "\u00e9" ]}`)...), `{"$json":{"n":1.50,"a":[1e5,"\u00e9"]}}`},
		{"embedded, and no JSON", append(record.AppendTag(nil, 262), record.AppendBytes(nil, "{")...), `{"$cbor":"262(h'7b')"}`},
		{"embedded text", append(record.AppendTag(nil, 262), text("{}")...), `{"$cbor":"262(\"{}\")"}`},
		{"unknown tag", append(record.AppendTag(nil, 4711), item(1)...), `{"$cbor":"4711(1)"}`},
		{"deep", deep(), strings.Repeat("[", 64) + "null" + strings.Repeat("]", 64)},
		{"large", append(record.AppendArray(nil, 200_000), make([]byte, 200_000)...), "[0" + strings.Repeat(",0", 199_999) + "]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			enc := json.NewEncoder(&out)
			enc.SetEscapeHTML(false)
			if err := enc.Encode(n.JSON(c.item)); err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSuffix(out.String(), "\n"); got != c.want {
				t.Errorf("%x gives %.200s, want %.200s", c.item, got, c.want)
			}
		})
	}
}

// FuzzJSON: whatever a record's value is, it can be written as JSON.
func FuzzJSON(f *testing.F) {
	for _, b := range [][]byte{deep(), text("a\xff"), {0xf7}, {0xa1, 0x01, 0x02}, {0xc1, 0x1b, 0x10, 0, 0, 0, 0, 0, 0, 0}, {0xfb, 0x7f, 0xf0, 0, 0, 0, 0, 0, 1}} {
		f.Add(b)
	}
	n, err := notation.New()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		data := append(record.AppendText(record.AppendText(record.AppendRecord(nil), ""), "k"), value...)
		var scan record.Scanner
		if refs, err := scan.Scan(data, nil); err != nil || len(refs) != 1 {
			t.Skip()
		}
		if _, err := json.Marshal(n.JSON(value)); err != nil {
			t.Errorf("%x: %v", value, err)
		}
	})
}

func TestForPeople(t *testing.T) {
	n, err := notation.New()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ what, got, want string }{
		{"text", n.Text(text("a \"b\"")), `a "b"`},
		{"shown text", n.Show(text("a \"b\"")), `"a \"b\""`},
		{"a number as text", n.Text([]byte{0x18, 42}), "42"},
		{"what has no notation", n.Show(text("a\xff")), "6261ff (CBOR without a notation)"},
		{"a key", notation.Key(text("stream/a")), "stream/a"},
		{"an empty key", notation.Key(text("")), `""`},
		{"a key of bytes", notation.Key(record.AppendBytes(nil, "\x00\xff")), "h'00ff'"},
		{"a key that breaks the line", notation.Key(text("a\nb")), `"a\nb"`},
		{"a word", notation.OneWord("é b"), "é b"},
		{"a deletion", notation.OneWord("\x7f"), `"\x7f"`},
		{"short enough", notation.Shorten("ééé", 3), "ééé"},
		{"too long", notation.Shorten("éééé", 3), "ééé… (4 characters)"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s, want %s", c.what, c.got, c.want)
		}
	}
}
