package json_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/tests/sdktest"
	"github.com/torpor-run/torpor/tests/serializers/files/through"
)

// TestWork: what is large or odd takes work that follows its size, and the host gets a look at it on the way.
func TestWork(t *testing.T) {
	module, costs := sdktest.Compile(t, "json", modules.JSON(), host.Config{Limits: host.Limits{SliceFuel: 60_000_000}})
	times := strings.Repeat
	const size = 4 << 20
	var ids []any
	for i := range 32 {
		ids = append(ids, fmt.Sprintf("none%04d", i))
	}
	for _, c := range []struct {
		name, text string
		most       float64 // units of fuel a byte, either way
		settings   map[string]any
	}{
		{"white space before a value", `{"a":{"b":` + times(" ", size) + `1}}`, 300, nil},
		{"white space behind an object", `{"a":{"b":1}` + times(" \n", size/2) + `}`, 300, nil},
		{"white space behind all", `{"a":{"b":1}}` + times("\n", size), 300, nil},
		{"white space inside a record", `{"a":{"b":[1,` + times(" ", size) + `2]}}`, 300, nil},
		{"white space in an empty object", `{"a":{` + times(" ", size) + `}}`, 300, nil},
		{"white space before all", times(" ", size) + `{}`, 300, nil},
		{"a long number", `{"a":{"b":[` + times("7", size) + `]}}`, 300, nil},
		{"a long fraction", `{"a":{"b":[0.` + times("7", size) + `]}}`, 300, nil},
		{"a long string", `{"a":{"b":"` + times("x", size) + `"}}`, 100, nil},
		{"a long string that is not ASCII", `{"a":{"b":"` + times("é東", size/5) + `"}}`, 200, nil},
		{"a long string of escapes", `{"a":{"b":"` + times(`\u0041`, size/6) + `"}}`, 1000, nil},
		{"a long string as Python writes it", `{"a":{"b":"` + times(`\u00e9`, size/6) + `"}}`, 1000, nil},
		{"odd at the end of 59 levels", `{"a":{"b":` + times("[", 59) + times("1,", size/2) + `1` + times(" ]", 59) + `}}`, 1000, nil},
		{"odd at each level", `{"a":{"b":[` + times(times("[", 50)+"1 "+times("]", 50)+",", size/110) + `1]}}`, 1000, nil},
		{"deep and odd", `{"a":{"b":[` + times(times("[ ", 9000)+times("]", 9000)+",", 100) + `1]}}`, 1000, nil},
		{"floats of 16 digits", `{"a":{"b":[` + times("0.1234567890123456,", size/19) + `1]}}`, 1500, nil},
		{"floats with many zeros", `{"a":{"b":[` + times("0.00000000000000000000000000012345,", size/35) + `1]}}`, 1500, nil},
		{"a wide entry without any of 32 ids", `[{` + times(`"a":1,`, size/6) + `"b":1}]`, 3000, map[string]any{"id": ids}},
		{"one name, again and again", `{"a":{` + times(`"":1,`, size/5) + `"":1}}`, 1000, nil},
		{"nothing but objects that are opened", `{` + times(`"a":{},`, size/7) + `"":1}`, 1000, nil},
	} {
		m := through.Module{Module: module, Settings: c.settings}
		m.RoundTrip(t, []byte(c.text))
		for _, op := range []string{abi.OpSave, abi.OpLoad} {
			if got := float64(costs.Of(op).Fuel) / float64(len(c.text)); got > c.most {
				t.Errorf("%s: %s takes %.0f units of fuel a byte", c.name, op, got)
			}
		}
		if t.Failed() {
			t.Fatal(c.name)
		}
	}
	// What is wrong far behind is found, and told where it is.
	m := through.Module{Module: module}
	for _, bad := range []struct{ text, want string }{
		{`{"a":{"b":"` + times("é", size/2) + "\xff\"}}", "not UTF-8"},
		{`{"a":{"b":` + times("[", 59) + times("1,", size/2) + `1` + times(" ]", 58) + ` }`, "end of the array"},
	} {
		_, err := m.Records(t, []byte(bad.text))
		if !errors.Is(err, abi.ErrCorrupt) || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%.20s: %.300v", bad.text, err)
		}
	}
}

// TestForged: records that no save has made, as a merge or a person may, are written right or refused with
// their key.
func TestForged(t *testing.T) {
	m := through.New(t, "json", modules.JSON())
	of := func(key string, value any) []any { return []any{"", key, value} }
	kind := func(said ...any) any { return cbor.Tag{Number: 27, Content: said} }
	spelling := func(s string) any { return cbor.Tag{Number: 262, Content: []byte(s)} }
	space := func(name, s string) any { return map[string]any{name: s} }
	object, array := of("", kind("object")), of("", kind("array"))
	for _, c := range []struct {
		records []any
		want    string // the text, or words of the refusal
		wrong   string // the key of what is refused
	}{
		{[]any{object, of("/a", 1), []any{"p", "/b", 2}}, `{"a":1,"b":2}`, ""},
		{[]any{object, of("/a~#2", 1)}, `{"a":1}`, ""},
		{[]any{object, of("/a", 1), of("/a~#2", 2)}, `{"a":1,"a":2}`, ""},
		{[]any{object, of(`/~"\u0061"`, 1), of("/a", 1)}, `{"\u0061":1,"a":1}`, ""},
		{[]any{object, of("/", kind("object")), of("//", 1)}, `{"":{"":1}}`, ""},
		{[]any{array, of("/0", 1), of("/3", 2), of("/id=7", 3), of("/9", 4)}, `[1,2,3,4]`, ""},
		{[]any{array, of("/id=7", 1), of("/id=7~#2", 2)}, `[1,2]`, ""},
		{[]any{array, of("/0", kind("array")), of("/0/0", 1), of("/1", kind("array")), of("/1/0", 1)}, `[[1],[1]]`, ""},
		{[]any{object, of("/a", kind("object", space("empty", " "))), of("/a/b", 1)}, `{"a":{"b":1}}`, ""},
		{[]any{of("", kind("value", space("before", bom+" "), 1))}, bom + " 1", ""},

		{[]any{object, of("/a", 1), of("/a", 2)}, "one record of this key", "/a"},
		{[]any{object, of("/a", 1), []any{"p", "/a", 1}}, "one record of this key", "/a"},
		{[]any{object, of("/a", kind("object")), of("/a/b", 1), of("/a", kind("object"))}, "one record of this key", "/a"},
		{[]any{object, of("/a~1b", 1), of("/a~1b", 1)}, "one record of this key", "/a~1b"},
		{[]any{object, of(`/~"\x"`, 1)}, "a name in quotes", `/~"\x"`},
		{[]any{object, of(`/~"\~1"`, 1), of(`/~"\~1"`, 1)}, "one record of this key", `/~"\~1"`},
		{[]any{object, of("/a", kind("value", space("after", " "), 1)), of("/a", 1)}, "one record of this key", "/a"},
		{[]any{object, of("/~end", " "), of("/~end", "\n")}, "one record of this key", "/~end"},
		{[]any{array, of("/id=7", 1), of("/id=7", 2)}, "one record of this key", "/id=7"},
		{[]any{array, of("/1", 1), of("/0", 2)}, "a place in the array", "/0"},
		{[]any{array, of("/0", 1), of("/0", 2)}, "a place in the array", "/0"},
		{[]any{array, of("/0", kind("object")), of("/0", kind("object"))}, "a place in the array", "/0"},
		{[]any{array, of("/99999999999999999999", 1)}, "a place in the array", "/99999999999999999999"},
		{[]any{array, of("/name", 1)}, "a place in the array", "/name"},
		{[]any{object, of("", 1)}, "one record of the root", ""},
		{[]any{of("", 1), of("/a", 1)}, "behind that of the object or array", "/a"},
		{[]any{object, of("/a", 1), of("/a/b", 1)}, "behind that of the object or array", "/a/b"},
		{[]any{object, of("/a", kind("object")), of("/ab/c", 1)}, "behind that of the object or array", "/ab/c"},
		{[]any{object, of("/ab", kind("object")), of("/a/c", 1)}, "behind that of the object or array", "/a/c"},
		{[]any{object, of("/a", kind("object")), of("/b", 1), of("/a/c", 1)}, "behind that of the object or array", "/a/c"},
		{[]any{object, of("/a/c", 1), of("/a", kind("object"))}, "behind that of the object or array", "/a/c"},
		{[]any{object, of("a", 1)}, "a JSON Pointer", "a"},
		{[]any{object, of("/a~2", 1)}, "a JSON Pointer", "/a~2"},
		{[]any{object, []any{"", []byte("/a"), 1}}, "a key in text", ""},
		{[]any{object, of("/a", []byte("b"))}, "stands for JSON", "/a"},
		{[]any{object, of("/a", map[any]any{1: 1})}, "stands for JSON", "/a"},
		{[]any{object, of("/a", spelling(" 1"))}, "JSON in tag 262", "/a"},
		{[]any{object, of("/a", spelling("1,2"))}, "JSON in tag 262", "/a"},
		{[]any{object, of("/a", spelling("1e"))}, "JSON in tag 262", "/a"},
		{[]any{object, of("/a", spelling("01"))}, "JSON in tag 262", "/a"},
		{[]any{object, of("/a", spelling("[1]]"))}, "JSON in tag 262", "/a"},
		{[]any{object, of("/a", spelling("\"\xff\""))}, "JSON in tag 262", "/a"},
		{[]any{object, of("/a", kind("value", space("before", "x"), 1))}, "white space", "/a"},
		{[]any{object, of("/a", kind("value", space("empty", " "), 1))}, "can be said of such a value", "/a"},
		{[]any{object, of("/a", kind("object", space("after", " ")))}, "can be said of such a value", "/a"},
		{[]any{array, of("/0", kind("value", space("before_name", " "), 1))}, "can be said of such a value", "/0"},
		{[]any{of("", kind("object", space("before_colon", " ")))}, "can be said of such a value", ""},
		{[]any{of("", kind("value", space("before", bom+bom), 1))}, "white space", ""},
		{[]any{object, of("/a", kind("object", space("indent", " ")))}, "no style but in the root", "/a"},
	} {
		var records [][]byte
		for _, r := range c.records {
			b, err := cbor.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			records = append(records, b)
		}
		got, err := m.Native(t, records)
		if err == nil {
			if string(got) != c.want {
				t.Errorf("%v: load writes %s, want %s", c.records, got, c.want)
			}
			continue
		}
		var e *host.GuestError
		if !errors.As(err, &e) || e.Code != abi.CodeCorrupt || !strings.Contains(e.Failure.Msg, c.want) || e.Failure.Path != c.wrong {
			t.Errorf("%v: %v; want %s at %q", c.records, err, c.want, c.wrong)
		}
	}
}

// TestLongKeys: no record has a key that the host refuses; what would have one is told with its path.
func TestLongKeys(t *testing.T) {
	m := through.New(t, "json", modules.JSON())
	kept := 0
	for _, n := range []int{65_000, 65_400, 65_480, 65_495, 65_500, 65_503, 65_504, 65_530, 65_536} {
		name := strings.Repeat("n", n)
		for _, c := range []struct {
			text     string
			settings map[string]any
		}{
			{`{"` + name + `":[` + strings.Repeat(`[`, 28) + `1` + strings.Repeat(`]`, 28) + `]}`, map[string]any{"records": strings.Repeat("/*", 30)}},
			{`{"` + name + `":[{"id":"` + strings.Repeat("i", 500) + `"}]}`, nil},
			{`{"` + name + `":[{"id":"` + strings.Repeat("/", 500) + `"}]}`, nil},
			{`{"` + name + `":{} }`, nil},
			{`{"a":{"` + name + `":{} ,"` + name + `":1}}`, map[string]any{"records": "/*/*/*"}},
		} {
			m.Settings = c.settings
			records, err := m.Records(t, []byte(c.text))
			var e *host.GuestError
			switch {
			case err == nil:
				kept++
				if got, err := m.Native(t, records); err != nil || string(got) != c.text {
					t.Errorf("%d: %v", n, err)
				}
			case !errors.As(err, &e) || e.Code != abi.CodeTooLarge || !strings.Contains(e.Failure.Msg, "setting records"):
				t.Errorf("%d: %.300v", n, err)
			}
		}
	}
	if kept < 10 {
		t.Errorf("only %d were kept", kept)
	}
}

// TestLongPartitions: partitions of what is opened are kept whole, or refused.
func TestLongPartitions(t *testing.T) {
	m := through.New(t, "json", modules.JSON())
	m.Settings = map[string]any{"records": strings.Repeat("/*", 9), "partition": "{1}"}
	name := strings.Repeat("p", 4000)
	text := `{"` + name + `":` + strings.Repeat(`{"a":`, 6) + "1" + strings.Repeat(" }", 6) + `}`
	records, err := m.Records(t, []byte(text))
	if err != nil {
		if !errors.Is(err, abi.ErrTooLarge) || !strings.Contains(err.Error(), "setting partition") {
			t.Error(err)
		}
		return
	}
	for _, r := range records[1:] {
		if partitionOf(t, r) != name {
			t.Errorf("%.60s is in %.20q", through.Key(t, r)[4000:], partitionOf(t, r))
		}
	}
}

// TestEveryByteEverywhere holds the check of UTF-8, which looks at sixteen bytes at a time, against package
// utf8: every byte at every place, and what is at the bounds of what is UTF-8 across those of sixteen.
func TestEveryByteEverywhere(t *testing.T) {
	m := through.New(t, "json", modules.JSON())
	var sound []string
	check := func(s string, load bool) {
		text := `{"a":{"b":"` + s + `"}}`
		if utf8.ValidString(s) && json.Valid([]byte(text)) {
			sound = append(sound, s)
			return
		}
		if _, err := m.Records(t, []byte(text)); !errors.Is(err, abi.ErrCorrupt) {
			t.Fatalf("save takes %q: %v", s, err)
		}
		if utf8.ValidString(s) || !load {
			return
		}
		rec := record.AppendText(record.AppendText(append([]byte{}, 0x83, 0x60), "/b"), s)
		if _, err := m.Native(t, [][]byte{[]byte("\x83\x60\x60\xd8\x1b\x81\x66object"), rec}); !errors.Is(err, abi.ErrCorrupt) {
			t.Fatalf("load takes %q: %v", s, err)
		}
	}
	for at := range 64 {
		for b := range 256 {
			// One character before it, so that the string is looked at as one that is not ASCII.
			check("é"+strings.Repeat("x", at)+string([]byte{byte(b)})+"yz", at < 16)
		}
	}
	seconds := []byte{0x22, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0}
	thirds := []byte{0x7f, 0x80, 0xbf, 0xc2}
	for _, at := range []int{11, 12, 13, 29} {
		before := "é" + strings.Repeat("x", at)
		for _, a := range []byte{0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff} {
			check(before+string([]byte{a}), at == 12)
			for _, b := range seconds[1:] {
				check(before+string([]byte{a, b}), at == 12)
				for _, c := range thirds {
					check(before+string([]byte{a, b, c}), at == 12)
					for _, d := range thirds {
						check(before+string([]byte{a, b, c, d}), at == 12)
					}
				}
			}
		}
	}
	if len(sound) < 1000 {
		t.Errorf("only %d are UTF-8", len(sound))
	}
	// All that is sound comes back, as strings and as names.
	slices.Sort(sound)
	sound = slices.Compact(sound)
	for _, text := range []string{`{"a":{"b":["` + strings.Join(sound, `","`) + `"]}}`, `{"a":{"` + strings.Join(sound, `":1,"`) + `":1}}`, `{"a":{"b":{"` + strings.Join(sound, `":1,"`) + `":1}}}`} {
		m.RoundTrip(t, []byte(text))
	}
}

// TestPieces: how the text is cut when it comes, and how long it is, makes no difference.
func TestPieces(t *testing.T) {
	m := through.New(t, "json", modules.JSON())
	for _, s := range styles() {
		var root members
		for i := range 6 {
			var entries members
			for j := range 150 {
				entries = append(entries, member{fmt.Sprintf("entry %d", j), members{{"name", strings.Repeat("é\n", j)}, {"list", sample}, {"n", spelled(fmt.Sprint(i * j))}}})
			}
			root = append(root, member{fmt.Sprint(i), entries})
		}
		text := s.write(root)
		want := m.RoundTrip(t, []byte(text))
		for _, step := range []int{1000, 65_537, 131_071} {
			var got through.Sink
			if err := m.Save(t.Context(), m.Call(), &pieces{text: text, step: step}, &got); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(bytes.Join(got, nil), bytes.Join(want, nil)) {
				t.Fatalf("%s in pieces of %d: other records", s.name, step)
			}
		}
	}
}

// pieces reads a text some bytes at a time.
type pieces struct {
	text string
	step int
}

func (p *pieces) Read(b []byte) (int, error) {
	n := copy(b[:min(len(b), p.step)], p.text)
	if p.text = p.text[n:]; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}
