package jsonscan_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	torpor "github.com/torpor-run/torpor/sdk/go"
	"github.com/torpor-run/torpor/sdk/go/jsonscan"
	"github.com/torpor-run/torpor/sdk/go/torportest"
)

// reading is a serializer whose save is a function, so that a Scanner has an Input.
type reading func(s *jsonscan.Scanner) error

func (reading) Describe() torpor.Descriptor {
	return torpor.Descriptor{Name: "reading", Version: "1", Media: "application/json"}
}

func (r reading) Save(_ *torpor.Call, native *torpor.Input, _ *torpor.Output) error {
	return r(jsonscan.New(native))
}

func (reading) Load(*torpor.Call, *torpor.Input, *torpor.Output) error { return nil }

// read runs f on a document that comes in pieces of so many bytes; 0: whole.
func read(document []byte, piece int, f func(s *jsonscan.Scanner) error) error {
	h := torportest.Host{Call: abi.Call{Op: abi.OpSave}, Input: document, Piece: piece, LateEnd: piece%2 == 1}
	_, err := h.Run(reading(f))
	return err
}

// wantError holds err against the error that it should be.
func wantError(t *testing.T, what string, err error, code torpor.Code, offset int, msg string) {
	t.Helper()
	var e *torpor.Error
	if !errors.As(err, &e) || e.Code != code || e.Offset != uint64(offset) || !strings.Contains(e.Msg, msg) {
		t.Errorf("%s: %v, want code %d, %q (offset %d)", what, err, code, msg, offset)
	}
}

// value reads a value into what encoding/json makes of it, with UseNumber. Of names that repeat the last
// one counts.
func value(s *jsonscan.Scanner) any {
	switch s.Peek() {
	case jsonscan.KindNull:
		s.Null()
		return nil
	case jsonscan.KindBool:
		return s.Bool()
	case jsonscan.KindNumber:
		return json.Number(s.Number())
	case jsonscan.KindString:
		return string(s.Text())
	case jsonscan.KindArray:
		a := []any{}
		s.Array()
		for s.More() {
			a = append(a, value(s))
		}
		return a
	case jsonscan.KindObject:
		o := map[string]any{}
		s.Object()
		for {
			name, ok := s.Key()
			if !ok {
				return o
			}
			key := string(name)
			o[key] = value(s)
		}
	default:
		s.Skip() // says what is wrong
		return nil
	}
}

// item is AppendItem, by way of the other methods.
func item(s *jsonscan.Scanner, dst []byte) []byte {
	switch s.Peek() {
	case jsonscan.KindNull:
		s.Null()
		return record.AppendNull(dst)
	case jsonscan.KindBool:
		return record.AppendBool(dst, s.Bool())
	case jsonscan.KindNumber:
		spelled := string(s.Number())
		var v uint64
		var i int64
		if _, err := fmt.Sscan(spelled, &v); err == nil && fmt.Sprint(v) == spelled {
			return record.AppendUint(dst, v)
		}
		if _, err := fmt.Sscan(spelled, &i); err == nil && fmt.Sprint(i) == spelled {
			return record.AppendInt(dst, i)
		}
		if len(spelled) > 1 && spelled[0] == '-' && !strings.ContainsAny(spelled, ".eE") {
			if spelled == "-18446744073709551616" {
				return append(dst, 0x3b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
			}
			if _, err := fmt.Sscan(spelled[1:], &v); err == nil && v > 0 {
				at := len(dst)
				dst = record.AppendUint(dst, v-1)
				dst[at] |= 0x20
				return dst
			}
		}
		return record.AppendBytes(record.AppendTag(dst, 262), spelled)
	case jsonscan.KindString:
		return record.AppendText(dst, s.Text())
	case jsonscan.KindArray:
		n, items := 0, []byte{}
		s.Array()
		for s.More() {
			items = item(s, items)
			n++
		}
		return append(record.AppendArray(dst, n), items...)
	case jsonscan.KindObject:
		n, items := 0, []byte{}
		s.Object()
		for {
			name, ok := s.Key()
			if !ok {
				return append(record.AppendMap(dst, n), items...)
			}
			items = item(s, record.AppendText(items, name))
			n++
		}
	default:
		s.Skip()
		return dst
	}
}

// depth is how deep a document nests that is sound as far as its brackets go.
func depth(document []byte) int {
	depth, most, quoted := 0, 0, false
	for i := 0; i < len(document); i++ {
		switch c := document[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
			most = max(most, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return most
}

// loneSurrogate reports whether a sound document has an escape of half a character.
func loneSurrogate(document []byte) bool {
	marked := bytes.ReplaceAll(document, []byte("\uFFFD"), []byte("?"))
	marked = bytes.ReplaceAll(marked, []byte(`\ufffd`), []byte("?"))
	marked = bytes.ReplaceAll(marked, []byte(`\uFFFD`), []byte("?"))
	var v any
	d := json.NewDecoder(bytes.NewReader(marked))
	d.UseNumber()
	if d.Decode(&v) != nil {
		return false
	}
	b, err := json.Marshal(v)
	return err == nil && bytes.Contains(b, []byte("\uFFFD"))
}

// check holds everything that reads a document against encoding/json.
func check(t *testing.T, document []byte, piece int) {
	t.Helper()
	sound := json.Valid(document) && utf8.Valid(document)
	deep := sound && depth(document) > jsonscan.MaxDepth
	err := read(document, piece, func(s *jsonscan.Scanner) error {
		s.Skip()
		return s.End()
	})
	if (err == nil) != (sound && !deep) {
		t.Fatalf("%.200q in pieces of %d: Skip says %v; sound %v, too deep %v", document, piece, err, sound, deep)
	}
	var e *torpor.Error
	if err != nil && (!errors.As(err, &e) || e.Code == torpor.CodeInternal || e.Offset > uint64(len(document)) || e.Path == "") {
		t.Fatalf("%.200q in pieces of %d: %#v", document, piece, err)
	}
	if deep && e.Code != torpor.CodeTooLarge {
		t.Fatalf("%.200q in pieces of %d: %v", document, piece, err)
	}

	var got any
	valueErr := read(document, piece, func(s *jsonscan.Scanner) error {
		got = value(s)
		return s.End()
	})
	var items, want []byte
	itemErr := read(document, piece, func(s *jsonscan.Scanner) error {
		items = s.AppendItem([]byte("before"))
		return s.End()
	})
	wantErr := read(document, piece, func(s *jsonscan.Scanner) error {
		want = item(s, []byte("before"))
		return s.End()
	})
	if err != nil {
		// The same error in each way, unless they come upon another one before.
		for name, other := range map[string]error{"value by value": valueErr, "AppendItem": itemErr} {
			if other == nil {
				t.Fatalf("%.200q in pieces of %d: Skip says %v, %s nothing", document, piece, err, name)
			}
			var o *torpor.Error
			if !errors.As(other, &o) || o.Code == e.Code && (o.Msg != e.Msg || o.Path != e.Path || o.Offset != e.Offset) && o.Code != torpor.CodeTooLarge {
				t.Fatalf("%.200q in pieces of %d: Skip says %v, %s %v", document, piece, err, name, other)
			}
		}
		return
	}
	if valueErr != nil {
		if !errors.As(valueErr, &e) || e.Code != torpor.CodeUnsupported || !loneSurrogate(document) || itemErr == nil {
			t.Fatalf("%.200q in pieces of %d: %v; AppendItem %v", document, piece, valueErr, itemErr)
		}
		return
	}
	d := json.NewDecoder(bytes.NewReader(document))
	d.UseNumber()
	var wanted any
	if err := d.Decode(&wanted); err != nil || !reflect.DeepEqual(got, wanted) {
		t.Fatalf("%.200q in pieces of %d is %#v, want %#v, %v", document, piece, got, wanted, err)
	}
	if itemErr != nil {
		if !errors.As(itemErr, &e) || e.Code != torpor.CodeTooLarge || depth(document) < record.MaxDepth {
			t.Fatalf("%.200q in pieces of %d: AppendItem: %v", document, piece, itemErr)
		}
		return
	}
	if wantErr != nil || !bytes.Equal(items, want) {
		t.Fatalf("%.200q in pieces of %d: AppendItem gives\n%x, want\n%x, %v", document, piece, items, want, wantErr)
	}
	checkItem(t, items[len("before"):], wanted)
}

// checkItem holds an item made of a document against what the document means.
func checkItem(t *testing.T, item []byte, wanted any) {
	t.Helper()
	var scan record.Scanner
	whole := append(record.AppendText(record.AppendText(record.AppendRecord(nil), ""), "k"), item...)
	if _, err := scan.Scan(whole, nil); err != nil {
		t.Fatalf("%x: %v", item, err)
	}
	for _, html := range []bool{false, true} {
		back, err := writtenItem(html, item)
		if err != nil {
			t.Fatalf("Item of %x: %v", item, err)
		}
		d := json.NewDecoder(bytes.NewReader(back))
		d.UseNumber()
		var got any
		if err := d.Decode(&got); err != nil || !reflect.DeepEqual(got, wanted) || !json.Valid(back) {
			t.Fatalf("Item of %x gives %.200q, %v", item, back, err)
		}
		var again []byte
		err = read(back, 0, func(s *jsonscan.Scanner) error {
			again = s.AppendItem(nil)
			return s.End()
		})
		if err != nil || !bytes.Equal(again, item) {
			t.Fatalf("%x became %.200q and then %x, %v", item, back, again, err)
		}
	}
}

// accepted are sound documents, with what is at the edge of the grammar.
func accepted() []string {
	all := []string{
		`null`, `true`, `false`, ` null `, "\t\r\n[\n]\t", `{}`, `[]`, `""`, `0`, `-0`, `[ ]`, `{ }`,
		`1`, `-1`, `10`, `1.0`, `1.50`, `-0.0`, `0e0`, `0E+1`, `1e-9`, `1E5`, `123456789.987654321e123`,
		`23`, `24`, `255`, `256`, `65535`, `65536`, `4294967295`, `4294967296`, `1234567`, `12345678`, `123456789`,
		`1234567812345678`, `12345678123456789`, `18446744073709551615`, `18446744073709551616`, `-18446744073709551616`,
		`-18446744073709551617`, `-9223372036854775808`, `-9223372036854775809`, `100000000000000000000000`,
		`[1,2,3]`, `[1 , 2 ,3 ]`, `[[],[[]],{}]`, `[true,false,null]`, `[-1,-24,-25,-256,-257]`,
		`{"a":1}`, `{ "a" : 1 , "b" : [ ] }`, `{"a":{"b":{"c":[1,{"d":2}]}}}`, `{"":0}`, `{"a":1,"a":2}`,
		`"a"`, `"\u0000"`, `"\"\\\/\b\f\n\r\t"`, `"\u00e9\u00E9"`, `"\ud83d\ude00"`, `"😀"`, `"\ud83d\ude00\ud83d\ude00x"`, `"é漢字"`, `"` + "\u007f" + `"`,
		`"\ufffd"`, `"` + "\ufffd" + `"`, `"\ud800"`, `"\udc00\ud800"`, `"\ud800\u0041"`, `{"\ud800x":1}`, `"\ud83dx\ude00"`, `["\ud800","` + "\ufffd" + `"]`,
		`{"a\"b":1,"c\u0064":{"e\\":2}}`, "\"\u2028\u2029<>&\"", `"exactly twenty-three by"`, `"and here are twenty-four"`, `"a string that goes on beyond what is copied in words"`,
		`{"a name that goes on beyond what is copied in words":"a string that goes on beyond what is copied in words"}`,
		strings.Repeat(`[`, 63) + strings.Repeat(`]`, 63), strings.Repeat(`[`, 64) + strings.Repeat(`]`, 64), strings.Repeat(`[`, 65) + strings.Repeat(`]`, 65),
		strings.Repeat(`[`, 63) + `1.5` + strings.Repeat(`]`, 63), strings.Repeat(`[`, 64) + `1.5` + strings.Repeat(`]`, 64),
		strings.Repeat(`{"a":`, 64) + `[]` + strings.Repeat(`}`, 64), strings.Repeat(`[`, 256) + `1` + strings.Repeat(`]`, 256),
	}
	for _, n := range []int{22, 23, 24, 25, 255, 256, 257, 300, 1000} {
		var members []string
		for i := range n {
			members = append(members, fmt.Sprintf(`"%d":%d`, i, i*i*i))
		}
		all = append(all, "{"+strings.Join(members, ",")+"}", "["+strings.Repeat("7,", n-1)+"7]", `"`+strings.Repeat("x", n)+`"`,
			`["`+strings.Repeat("é", n)+`","`+strings.Repeat("x", n)+`\n"]`, `{"`+strings.Repeat("k", n)+`":`+strings.Repeat("9", n)+`}`)
	}
	for _, before := range []int{0, 3, 7, 8, 15, 20, 23} { // every character at many places of a word, as it is or escaped
		var texts []string
		for c := range rune(0x80) {
			texts = append(texts, strings.Repeat("a", before)+string(c)+strings.Repeat("b", 9))
		}
		b, err := json.Marshal(texts)
		if err != nil {
			panic(err)
		}
		all = append(all, string(b))
	}
	return all
}

// refused are documents that are not sound, with the offset at which they stop being so.
func refused() []struct {
	document string
	offset   int
	msg      string
} {
	return []struct {
		document string
		offset   int
		msg      string
	}{
		{``, 0, "the document ends where a value should be"},
		{` `, 1, "the document ends where a value should be"},
		{`nul`, 0, `null expected`},
		{`nulL`, 0, `null expected, found "n"`},
		{`True`, 0, `a value expected, found "T"`},
		{`trye`, 0, `true expected`},
		{`falsE`, 0, `false expected`},
		{`undefined`, 0, `a value expected, found "u"`},
		{`NaN`, 0, `a value expected`},
		{`Infinity`, 0, `a value expected`},
		{`-Infinity`, 1, `not a number`},
		{`'a'`, 0, `a value expected, found "'"`},
		{`// no`, 0, `a value expected, found "/"`},
		{`1 // no`, 2, `more after the end`},
		{`[1/**/]`, 2, `a comma or the end of the array expected, found "/"`},
		{`+1`, 0, `a value expected, found "+"`},
		{`.5`, 0, `a value expected`},
		{`5.`, 2, `not a number as JSON has them: "5."`},
		{`05`, 1, `not a number`},
		{`-05`, 2, `not a number`},
		{`-`, 1, `not a number`},
		{`--1`, 1, `not a number`},
		{`1e`, 2, `not a number`},
		{`1e+`, 3, `not a number`},
		{`1.e1`, 2, `not a number`},
		{`1.5.5`, 3, `not a number`},
		{`1e5e5`, 3, `not a number`},
		{`1-1`, 1, `not a number`},
		{`[1234567-1, "and more behind it, so that there is room"]`, 8, `not a number`},
		{`[00, "and more behind it, so that there is room"]`, 2, `not a number`},
		{`[-x, "and more behind it, so that there is room"]`, 2, `not a number`},
		{`0x10`, 1, `more after the end of the document`},
		{`1_000`, 1, `more after`},
		{`１`, 0, `a value expected, found "１"`},
		{`[`, 1, `the document ends where a value should be`},
		{`]`, 0, `a value expected, found "]"`},
		{`[1`, 2, `the document ends where a comma or the end of the array should be`},
		{`[1,`, 3, `the document ends where a value should be`},
		{`[1,]`, 3, `a value expected, found "]"`},
		{`[,1]`, 1, `a value expected, found ","`},
		{`[1,,2]`, 3, `a value expected, found ","`},
		{`[1 2]`, 3, `a comma or the end of the array expected, found "2"`},
		{`[1}`, 2, `a comma or the end of the array expected, found "}"`},
		{`[}`, 1, `a value expected, found "}"`},
		{`{`, 1, `the document ends where a name should be`},
		{`{]`, 1, `a name expected, found "]"`},
		{`{"a"`, 4, `the document ends where a colon should be`},
		{`{"a":`, 5, `the document ends where a value should be`},
		{`{"a":}`, 5, `a value expected, found "}"`},
		{`{"a":1`, 6, `the document ends where a comma or the end of the object should be`},
		{`{"a":1,`, 7, `the document ends where a name should be`},
		{`{"a":1,}`, 7, `a name expected, found "}"`},
		{`{,"a":1}`, 1, `a name expected, found ","`},
		{`{"a":1,,"b":2}`, 7, `a name expected, found ","`},
		{`{"a":1 "b":2}`, 7, `a comma or the end of the object expected, found "\""`},
		{`{"a":1]`, 6, `a comma or the end of the object expected, found "]"`},
		{`{"a",1}`, 4, `a colon expected, found ","`},
		{`{"a"::1}`, 5, `a value expected, found ":"`},
		{`{a:1}`, 1, `a name expected, found "a"`},
		{`{1:1}`, 1, `a name expected, found "1"`},
		{`{null:1}`, 1, `a name expected`},
		{`{"a":1}}`, 7, `more after the end of the document`},
		{`{} {}`, 3, `more after the end of the document`},
		{`1 2`, 2, `more after the end of the document`},
		{`""x`, 2, `more after the end of the document`},
		{`"`, 1, `the document ends inside a string`},
		{`"a`, 2, `the document ends inside a string`},
		{`"\`, 2, `the document ends inside a string`},
		{`"\"`, 3, `the document ends inside a string`},
		{`"\u00e`, 6, `the document ends inside a string`},
		{`"\x41"`, 1, `not an escape that JSON has`},
		{`"\'"`, 1, `not an escape that JSON has`},
		{`"\U0041"`, 1, `not an escape`},
		{`"\u00g0"`, 1, `not an escape`},
		{`"\u+123"`, 1, `not an escape`},
		{`"\a"`, 1, `not an escape`},
		{"\"\\\n\"", 1, `not an escape`},
		{"\"\t\"", 1, `a control character`},
		{"\"a\nb\"", 2, `a control character`},
		{"\"a name of many bytes\x00\"", 21, `a control character`},
		{"{\"a name of many bytes\x1f\":1}", 22, `a control character`},
		{"\"\xff\"", 1, `not UTF-8`},
		{"\"a\x80\"", 2, `not UTF-8`},
		{"\"é\xc3\"", 3, `not UTF-8`},
		{"\"\xc0\xaf\"", 1, `not UTF-8`},
		{"\"\xed\xa0\x80\"", 1, `not UTF-8`},
		{"\"\xf4\x90\x80\x80\"", 1, `not UTF-8`},
		{"{\"\xff\":1}", 2, `not UTF-8`},
		{"\ufeff[]", 0, "a value expected, found \"\\ufeff\""},
		{"\xff", 0, `a value expected, found "\xff"`},
		{"[1]\x00", 3, `more after the end of the document`},
		{"\x00", 0, `a value expected`},
		{"[1\x00]", 2, `a comma or the end of the array`},
		{"[\u00a01]", 1, `a value expected`},
		{"[\v1]", 1, `a value expected`},
	}
}

// behind is a document with another one in it and enough behind that for the kernels to read all of it.
func behind(document string) string {
	return `{"":["", ` + document + `],"a":` + document + `,"b":"` + strings.Repeat("x", 100) + `"}`
}

func TestAccepted(t *testing.T) {
	for _, document := range accepted() {
		if !json.Valid([]byte(document)) {
			t.Fatalf("%.100q is not sound", document)
		}
		// With much behind it, too, so that the kernels read it, and before it, so that they do not.
		for _, d := range []string{document, behind(document), strings.Repeat(" ", 100) + document} {
			for _, piece := range []int{0, 1, 5} {
				check(t, []byte(d), piece)
			}
		}
	}
	check(t, []byte(strings.Repeat(`[`, 257)+strings.Repeat(`]`, 257)), 0)
}

func TestRefused(t *testing.T) {
	for _, c := range refused() {
		for _, piece := range []int{0, 1, 2, 3, 7} {
			what := fmt.Sprintf("%q in pieces of %d", c.document, piece)
			wantError(t, what, read([]byte(c.document), piece, func(s *jsonscan.Scanner) error {
				s.Skip()
				return s.End()
			}), torpor.CodeCorrupt, c.offset, c.msg)
			check(t, []byte(c.document), piece)
			check(t, []byte(`{"":`+c.document+`,"`+strings.Repeat("x", 100)+`":1}`), piece)
		}
	}
}

// sample is a document with something of everything.
const sample = `{"streams":{"orders":{"arn":"arn:aws:kinesis:eu-west-1:000000000000:stream/orders","created":1700000012,"active":true,"shards":[
 {"id":"shardId-000000000000","range":[0,340282366920938463463374607431768211455],"ratio":-1.5e-3},{}],"tags":{"Größe":"28\" \u00e9\ud83d\ude00","\n":null}}},
 "empty":[], "n":-7 }`

func TestEveryCut(t *testing.T) {
	for n := range len(sample) {
		err := read([]byte(sample[:n]), 0, func(s *jsonscan.Scanner) error {
			s.Skip()
			return s.End()
		})
		var e *torpor.Error
		if !errors.As(err, &e) || e.Code != torpor.CodeCorrupt || e.Offset > uint64(n) {
			t.Errorf("cut at %d: %v", n, err)
		}
		for _, piece := range []int{0, 1, 5} {
			check(t, []byte(sample[:n]), piece)
		}
	}
}

func TestEveryPieceAndEveryByteChanged(t *testing.T) {
	for piece := range len(sample) + 1 {
		check(t, []byte(sample), piece)
	}
	for i := range sample {
		for _, c := range []byte{0, '"', '\\', '0', ',', ':', '{', ']', ' ', 0x80, sample[i] ^ 1} {
			bad := []byte(sample)
			bad[i] = c
			check(t, bad, i%3)
		}
	}
}

func TestPath(t *testing.T) {
	for _, c := range []struct{ document, path string }{
		{`?`, `$`},
		{`{"a":{"b":[0,1,2,?]}}`, `$.a.b[3]`},
		{`[[],[0,{"x-y_Z9":?}]]`, `$[1][1].x-y_Z9`},
		{`{"a b":{"":?}}`, `$["a b"][""]`},
		{`{"a\"b":?}`, `$["a\"b"]`},
		{`{"a":1,?}`, `$`},
		{`{"a":{"b":1 ?}}`, `$.a`},
		{`[[1,2 ?]]`, `$[0]`},
		{`{"a":[?`, `$.a[0]`},
		{`{"a":{"b":[]},"c":[{"d":[1,2,{}]},?]}`, `$.c[1]`},
		{`{"` + strings.Repeat("n", 150) + `":?}`, `$["` + strings.Repeat("n", 100) + `"]`},
		{`{"a":{"b":1},"long":"` + strings.Repeat("x", 70000) + `","c":[?`, `$.c[0]`},
		{`{"a":{"b":["` + strings.Repeat("x", 70000) + `",{"c":1},{"d":?`, `$.a.b[2].d`},
	} {
		for _, piece := range []int{0, 1, 5, 1000} {
			for name, f := range map[string]func(*jsonscan.Scanner){
				"Skip": (*jsonscan.Scanner).Skip, "value by value": func(s *jsonscan.Scanner) { value(s) }, "AppendItem": func(s *jsonscan.Scanner) { s.AppendItem(nil) }} {
				err := read([]byte(c.document), piece, func(s *jsonscan.Scanner) error {
					f(s)
					return s.End()
				})
				var e *torpor.Error
				if !errors.As(err, &e) || e.Path != c.path || e.Offset != uint64(strings.IndexByte(c.document, '?')) {
					t.Errorf("%.60q in pieces of %d, %s: %v, want path %s", c.document, piece, name, err, c.path)
				}
			}
		}
	}
}

// What a caller finds wrong is told with the place of what was read last.
func TestErrorOfTheCaller(t *testing.T) {
	err := read([]byte(`{"a":{"b":[7,8]}}`), 1, func(s *jsonscan.Scanner) error {
		s.Object()
		s.Key()
		s.Object()
		s.Key()
		s.Array()
		s.More()
		s.Uint()
		s.More()
		s.Uint()
		return s.Error(torpor.CodeUnsupported, "eight")
	})
	if want := "eight at $.a.b[1] (offset 14)"; fmt.Sprint(err) != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestTyped(t *testing.T) {
	for _, c := range []struct {
		document string
		read     func(s *jsonscan.Scanner) any
		want     any
		msg      string
	}{
		{`18446744073709551615`, func(s *jsonscan.Scanner) any { return s.Uint() }, uint64(math.MaxUint64), ""},
		{`18446744073709551616`, func(s *jsonscan.Scanner) any { return s.Uint() }, uint64(0), "an unsigned integer of 64 bits expected"},
		{`1.0`, func(s *jsonscan.Scanner) any { return s.Uint() }, uint64(0), "an unsigned integer of 64 bits"},
		{`1e2`, func(s *jsonscan.Scanner) any { return s.Uint() }, uint64(0), "an unsigned integer of 64 bits"},
		{`-1`, func(s *jsonscan.Scanner) any { return s.Uint() }, uint64(0), `an unsigned integer expected, found "-"`},
		{`"1"`, func(s *jsonscan.Scanner) any { return s.Uint() }, uint64(0), `an unsigned integer expected, found "\""`},
		{`00`, func(s *jsonscan.Scanner) any { return s.Uint() }, uint64(0), `not a number`},
		{`-9223372036854775808`, func(s *jsonscan.Scanner) any { return s.Int() }, int64(math.MinInt64), ""},
		{`9223372036854775807`, func(s *jsonscan.Scanner) any { return s.Int() }, int64(math.MaxInt64), ""},
		{`9223372036854775808`, func(s *jsonscan.Scanner) any { return s.Int() }, int64(0), "an integer of 64 bits expected"},
		{`1.5`, func(s *jsonscan.Scanner) any { return s.Int() }, int64(0), "an integer of 64 bits expected"},
		{`-`, func(s *jsonscan.Scanner) any { return s.Int() }, int64(0), "not a number"},
		{`x`, func(s *jsonscan.Scanner) any { return s.Int() }, int64(0), "an integer expected"},
		{`true`, func(s *jsonscan.Scanner) any { return s.Bool() }, true, ""},
		{`false`, func(s *jsonscan.Scanner) any { return s.Bool() }, false, ""},
		{`null`, func(s *jsonscan.Scanner) any { return s.Bool() }, false, "true or false expected"},
		{`null`, func(s *jsonscan.Scanner) any { return s.Null() }, true, ""},
		{`0`, func(s *jsonscan.Scanner) any { return s.Null() }, false, `null expected, found "0"`},
		{`"a\u0062"`, func(s *jsonscan.Scanner) any { return string(s.Text()) }, "ab", ""},
		{`"a\u0062"`, func(s *jsonscan.Scanner) any { return string(s.RawText()) }, `a\u0062`, ""},
		{`"\ud800"`, func(s *jsonscan.Scanner) any { return string(s.RawText()) }, `\ud800`, ""},
		{`"\ud800"`, func(s *jsonscan.Scanner) any { return string(s.Text()) }, "", "half a character"},
		{`1`, func(s *jsonscan.Scanner) any { return string(s.Text()) }, "", `a string expected, found "1"`},
		{`1`, func(s *jsonscan.Scanner) any { return string(s.RawText()) }, "", `a string expected, found "1"`},
		{`1.50`, func(s *jsonscan.Scanner) any { return string(s.Number()) }, "1.50", ""},
		{`"1"`, func(s *jsonscan.Scanner) any { return string(s.Number()) }, "", "a number expected"},
		{`{"\u0061":1}`, func(s *jsonscan.Scanner) any {
			s.Object()
			name, _ := s.RawKey()
			defer func() { s.Skip(); s.RawKey() }()
			return string(name)
		}, `\u0061`, ""},
		{`[]`, func(s *jsonscan.Scanner) any { s.Object(); return nil }, nil, `an object expected, found "["`},
		{`{}`, func(s *jsonscan.Scanner) any { s.Array(); return nil }, nil, `an array expected, found "{"`},
	} {
		for _, piece := range []int{0, 1} {
			for _, before := range []string{"", strings.Repeat(" ", 30)} {
				var got any
				err := read([]byte(c.document+before), piece, func(s *jsonscan.Scanner) error {
					got = c.read(s)
					return s.End()
				})
				if !reflect.DeepEqual(got, c.want) || (err == nil) != (c.msg == "") || err != nil && !strings.Contains(err.Error(), c.msg) {
					t.Errorf("%s: %v, %v; want %v, %s", c.document, got, err, c.want, c.msg)
				}
			}
		}
	}
}

// Uint, in words and without, agrees about every number of digits.
func TestUint(t *testing.T) {
	for n := range 25 {
		for _, digits := range []string{"1234567890123456789012345", "9999999999999999999999999", "1000000000000000000000000"} {
			for _, behind := range []string{"", ",", strings.Repeat(" ", 30), ".", "e1"} {
				spelled := digits[:n]
				document := []byte("[" + spelled + behind)
				var want uint64
				wantErr := json.Unmarshal([]byte(spelled), &want)
				if behind == "." || behind == "e1" {
					wantErr, want = io.EOF, 0
				}
				_ = read(document, 0, func(s *jsonscan.Scanner) error {
					s.Array()
					s.More()
					got := s.Uint()
					if got != want && wantErr == nil || (s.Err() == nil) != (wantErr == nil) {
						t.Errorf("%s: %d, %v; want %d, %v", document, got, s.Err(), want, wantErr)
					}
					return nil
				})
			}
		}
	}
}

func TestDocumentsOneAfterAnother(t *testing.T) {
	for _, c := range []struct {
		input string
		want  string
		err   string
	}{
		{"", "[]", ""},
		{" \n", "[]", ""},
		{"1\n2\n{\"a\":3}\n", "[1 2 map[a:3]]", ""},
		{"[1][2] \"x\"", "[[1] [2] x]", ""},
		{"1 x", "[1 <nil>]", `a value expected, found "x" at $ (offset 2)`},
		{"[1", "[[1]]", "the document ends where a comma or the end of the array should be at $ (offset 2)"},
	} {
		for _, piece := range []int{0, 1} {
			var got []any
			err := read([]byte(c.input), piece, func(s *jsonscan.Scanner) error {
				for s.Next() {
					got = append(got, value(s))
				}
				return s.Err()
			})
			if fmt.Sprint(got) != c.want || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
				t.Errorf("%q: %v, %v; want %s, %s", c.input, got, err, c.want, c.err)
			}
		}
	}
}

// A method called out of turn is an error, never a wrong value.
func TestMisuse(t *testing.T) {
	for name, f := range map[string]func(s *jsonscan.Scanner){
		"Text": func(s *jsonscan.Scanner) { s.Text() }, "Number": func(s *jsonscan.Scanner) { s.Number() }, "Uint": func(s *jsonscan.Scanner) { s.Uint() },
		"Int": func(s *jsonscan.Scanner) { s.Int() }, "Bool": func(s *jsonscan.Scanner) { s.Bool() }, "Null": func(s *jsonscan.Scanner) { s.Null() },
		"Object": (*jsonscan.Scanner).Object, "Array": (*jsonscan.Scanner).Array, "Skip": (*jsonscan.Scanner).Skip, "RawText": func(s *jsonscan.Scanner) { s.RawText() },
		"AppendItem": func(s *jsonscan.Scanner) { s.AppendItem(nil) },
		"More":       func(s *jsonscan.Scanner) { s.More() }, "End": func(s *jsonscan.Scanner) { _ = s.End() }, "Next": func(s *jsonscan.Scanner) { s.Next() },
	} {
		err := read([]byte(`{"a":1}`), 0, func(s *jsonscan.Scanner) error {
			s.Object()
			if s.Peek() != jsonscan.KindNone {
				t.Error("a value where a name is next")
			}
			f(s)
			return s.Err()
		})
		wantError(t, name, err, torpor.CodeInternal, 1, "jsonscan's "+name+" where there is none")
	}
	for name, f := range map[string]func(s *jsonscan.Scanner){
		"Key": func(s *jsonscan.Scanner) { s.Key() }, "RawKey": func(s *jsonscan.Scanner) { s.RawKey() }, "More": func(s *jsonscan.Scanner) { s.More() },
	} {
		err := read([]byte(`{"a":1}`), 0, func(s *jsonscan.Scanner) error {
			f(s)
			return s.Err()
		})
		wantError(t, name, err, torpor.CodeInternal, 0, "jsonscan's "+name)
	}
}

// After an error nothing comes any more, and the error stays.
func TestErrorIsSticky(t *testing.T) {
	err := read([]byte(`[1,x,{"a":2}]`), 0, func(s *jsonscan.Scanner) error {
		s.Array()
		s.More()
		s.Uint()
		s.More()
		s.Uint()
		first := s.Err()
		s.Skip()
		s.Object()
		s.Array()
		name, ok := s.Key()
		if s.More() || s.Uint() != 0 || s.Int() != 0 || s.Bool() || s.Null() || s.Text() != nil || s.RawText() != nil || len(s.Number()) > 0 ||
			name != nil || ok || s.Peek() != jsonscan.KindNone || s.Next() || len(s.AppendItem(nil)) > 0 {
			t.Error("something comes after an error")
		}
		if s.Err() != first || s.End() != first {
			t.Errorf("first %v, then %v", first, s.Err())
		}
		return first
	})
	wantError(t, "the first", err, torpor.CodeCorrupt, 3, "an unsigned integer expected")
}

func TestStringLongerThanTheLimit(t *testing.T) {
	document := []byte(`{"a":["` + strings.Repeat("x", 200_000) + `"]}`)
	for name, f := range map[string]func(*jsonscan.Scanner){"Skip": (*jsonscan.Scanner).Skip, "AppendItem": func(s *jsonscan.Scanner) { s.AppendItem(nil) }} {
		h := torportest.Host{Call: abi.Call{Op: abi.OpSave}, Input: document}
		_, err := h.Run(limited(func(s *jsonscan.Scanner) error {
			f(s)
			return s.End()
		}))
		if !errors.Is(err, abi.ErrTooLarge) || !strings.Contains(err.Error(), "$.a[0]") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type limited reading

func (limited) Describe() torpor.Descriptor { return reading(nil).Describe() }

func (l limited) Save(_ *torpor.Call, native *torpor.Input, _ *torpor.Output) error {
	native.Limit(100_000)
	return l(jsonscan.New(native))
}

func (limited) Load(*torpor.Call, *torpor.Input, *torpor.Output) error { return nil }

func TestScannerDoesNotAllocate(t *testing.T) {
	document := []byte("[" + strings.Repeat(sample+",", 1000) + "0]")
	for name, f := range map[string]func(*jsonscan.Scanner){
		"Skip": (*jsonscan.Scanner).Skip,
		"AppendItem": func(s *jsonscan.Scanner) {
			var item []byte
			s.Array()
			for s.More() {
				item = s.AppendItem(item[:0])
			}
		},
	} {
		err := read(document, 0, func(s *jsonscan.Scanner) error {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			f(s)
			runtime.ReadMemStats(&after)
			if n := after.Mallocs - before.Mallocs; n > 100 {
				t.Errorf("%s of %d bytes made %d allocations", name, len(document), n)
			}
			return s.End()
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// Whatever comes, Scanner and encoding/json agree about it.
func FuzzScanner(f *testing.F) {
	for i, document := range accepted() {
		f.Add([]byte(document), uint8(i))
	}
	for i, c := range refused() {
		f.Add([]byte(c.document), uint8(i))
	}
	f.Add([]byte(sample), uint8(3))
	f.Fuzz(func(t *testing.T, document []byte, piece uint8) {
		check(t, document, int(piece))
		check(t, []byte(behind(string(document))), int(piece))
	})
}
