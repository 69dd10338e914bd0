package jsonscan_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	torpor "github.com/torpor-run/torpor/sdk/go"
	"github.com/torpor-run/torpor/sdk/go/jsonscan"
	"github.com/torpor-run/torpor/sdk/go/torportest"
)

// writing is a serializer whose load is a function, so that a Writer has an Output.
type writing struct {
	reading
	html bool
	f    func(w *jsonscan.Writer) error
}

func (l writing) Load(_ *torpor.Call, records *torpor.Input, native *torpor.Output) error {
	w := jsonscan.NewWriter(native)
	w.EscapeHTML = l.html
	if err := l.f(w); err != nil {
		return err
	}
	if _, err := records.Record(); err == nil {
		return errors.New("a record")
	}
	return w.Err()
}

// written gives what f writes.
func written(html bool, f func(w *jsonscan.Writer) error) ([]byte, error) {
	h := torportest.Host{Call: abi.Call{Op: abi.OpLoad}}
	out, err := h.Run(writing{html: html, f: f})
	return bytes.Clone(out), err
}

func TestWriter(t *testing.T) {
	got, err := written(false, func(w *jsonscan.Writer) error {
		w.Object()
		w.Key("a")
		w.Array()
		w.Uint(math.MaxUint64)
		w.Int(math.MinInt64)
		w.Bool(true)
		w.Bool(false)
		w.Null()
		w.Float(1.5)
		w.Number([]byte("1.50"))
		w.Array()
		w.EndArray()
		w.Object()
		w.EndObject()
		w.EndArray()
		w.KeyBytes([]byte("b\n"))
		w.Object()
		w.Key("")
		w.Text("x\"y")
		w.Key("t")
		w.TextBytes([]byte("</é\u2028>"))
		w.EndObject()
		w.Key("c")
		if err := w.Item(record.AppendNull(nil)); err != nil {
			return err
		}
		w.Key("d")
		w.Uint(0)
		w.EndObject()
		w.Newline()
		w.Uint(7)
		w.Newline()
		return nil
	})
	want := `{"a":[18446744073709551615,-9223372036854775808,true,false,null,1.5,1.50,[],{}],"b\n":{"":"x\"y","t":"</é` + "\u2028" + `>"},"c":null,"d":0}` + "\n7\n"
	if err != nil || string(got) != want {
		t.Errorf("%s, %v; want\n%s", got, err, want)
	}
}

// marshal is what encoding/json gives.
func marshal(t *testing.T, html bool, v any) string {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(html)
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	s := strings.TrimSuffix(b.String(), "\n")
	if !html { // these it escapes always
		s = strings.ReplaceAll(strings.ReplaceAll(s, `\u2028`, "\u2028"), `\u2029`, "\u2029")
	}
	return s
}

// Strings are spelled as encoding/json spells them, whatever is in them and however long they are.
func TestStringsAreSpelledAsByEncodingJSON(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	texts := []string{"", "</script>", "a & b", "\u2027\u2028\u2029\u202a", "漢字\u2028漢字", "\u2028", "é\u2028<é", strings.Repeat("é", 1000), strings.Repeat("\x01", 100_000), strings.Repeat("漢字 <", 50_000)}
	for c := range rune(0x100) {
		for _, before := range []int{0, 7, 170} {
			texts = append(texts, strings.Repeat("a", before)+string(c)+"b", strings.Repeat("é", before)+string(c))
		}
	}
	for range 200 {
		s := make([]rune, r.IntN(400))
		for i := range s {
			s[i] = rune('a' + r.IntN(26))
			switch r.IntN(30) {
			case 0:
				s[i] = rune(r.IntN(0x80))
			case 1:
				s[i] = rune(0x2020 + r.IntN(16))
			case 2:
				s[i] = rune(0x10000 + r.IntN(0x1000))
			}
		}
		texts = append(texts, string(s))
	}
	for _, s := range texts {
		for _, html := range []bool{false, true} {
			want := marshal(t, html, s)
			for name, f := range map[string]func(w *jsonscan.Writer) error{
				"Text":      func(w *jsonscan.Writer) error { w.Text(s); return nil },
				"TextBytes": func(w *jsonscan.Writer) error { w.TextBytes([]byte(s)); return nil },
				"Item":      func(w *jsonscan.Writer) error { return w.Item(record.AppendText(nil, s)) },
				"Item, with more behind it": func(w *jsonscan.Writer) error {
					b := record.AppendText(nil, s)
					return w.Item(append(b, "\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\""...)[:len(b)])
				},
			} {
				if got, err := written(html, f); err != nil || string(got) != want {
					t.Fatalf("%s of %.100q is %.200s, %v; want %.200s", name, s, got, err, want)
				}
			}
		}
	}
}

func TestFloatsAreSpelledAsByEncodingJSON(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	floats := []float64{0, math.Copysign(0, -1), 1, -1.5, 1e-6, 9.9e-7, 1e-9, 1e-10, 1e20, 1e21, 1e100, math.MaxFloat64, math.SmallestNonzeroFloat64, 1.0 / 3}
	for range 2000 {
		if v := math.Float64frombits(r.Uint64()); !math.IsNaN(v) && !math.IsInf(v, 0) {
			floats = append(floats, v)
		}
	}
	for _, v := range floats {
		want := marshal(t, false, v)
		got, err := written(false, func(w *jsonscan.Writer) error { w.Float(v); return nil })
		if err != nil || string(got) != want {
			t.Errorf("Float(%g) is %s, %v; want %s", v, got, err, want)
		}
		if got, err = written(false, func(w *jsonscan.Writer) error { return w.Item(record.AppendFloat(nil, v)) }); err != nil || string(got) != want {
			t.Errorf("Item of %g is %s, %v; want %s", v, got, err, want)
		}
	}
}

func TestWriterErrors(t *testing.T) {
	for name, f := range map[string]func(w *jsonscan.Writer){
		"a text that is not UTF-8":    func(w *jsonscan.Writer) { w.Text("a\xff") },
		"a float that is no number":   func(w *jsonscan.Writer) { w.Float(math.NaN()) },
		"a float that is no number, ": func(w *jsonscan.Writer) { w.Float(math.Inf(-1)) },
		`not a number`:                func(w *jsonscan.Writer) { w.Number([]byte("01")) },
		`not a number as JSON`:        func(w *jsonscan.Writer) { w.Number(nil) },
	} {
		_, err := written(false, func(w *jsonscan.Writer) error {
			f(w)
			first := w.Err()
			w.Text("\xff")
			if w.Err() != first || w.Item(record.AppendNull(nil)) != first {
				t.Errorf("first %v, then %v", first, w.Err())
			}
			return nil
		})
		wantError(t, name, err, torpor.CodeCorrupt, 0, name)
	}
}

func TestItemErrors(t *testing.T) {
	one := func(b ...byte) []byte { return b }
	deep := append(bytes.Repeat([]byte{0x81}, record.MaxDepth+1), 0)
	for _, c := range []struct {
		item   []byte
		code   torpor.Code
		offset int
		msg    string
	}{
		{nil, torpor.CodeCorrupt, 0, "not one whole CBOR item"},
		{one(0x00, 0x00), torpor.CodeCorrupt, 1, "more behind the item"},
		{one(0x18), torpor.CodeCorrupt, 0, "not one whole"},
		{one(0x1c), torpor.CodeCorrupt, 0, "not one whole"},
		{one(0x82, 0x01), torpor.CodeCorrupt, 2, "not one whole"},
		{one(0x83, 0x01), torpor.CodeCorrupt, 0, "not one whole"},
		{one(0x62, 'a'), torpor.CodeCorrupt, 0, "not one whole"},
		{one(0x78, 30, 'a'), torpor.CodeCorrupt, 0, "not one whole"},
		{one(0x7b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 'a'), torpor.CodeCorrupt, 0, "not one whole"},
		{one(0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 'a'), torpor.CodeCorrupt, 0, "not one whole"},
		{one(0xa1, 0x61, 'a'), torpor.CodeCorrupt, 3, "not one whole"},
		{one(0xa1, 0x01, 0x02), torpor.CodeUnsupported, 1, "a map with a key that is no text"},
		{one(0xa1, 0xf6, 0x02), torpor.CodeUnsupported, 1, "a map with a key that is no text"},
		{one(0xa1, 0x61, 'a', 0x41, 'x'), torpor.CodeUnsupported, 3, "a byte string, which JSON has not"},
		{one(0xc1, 0x01), torpor.CodeUnsupported, 0, "a tag, which JSON has not"},
		{one(0xd9, 0x01, 0x06, 0x61, '1'), torpor.CodeUnsupported, 0, "a tag, which JSON has not"},
		{one(0xd9, 0x01, 0x06, 0x42, '0', '1'), torpor.CodeCorrupt, 0, `not a number as JSON has them: "01"`},
		{one(0xd9, 0x01, 0x06, 0x42, '1'), torpor.CodeCorrupt, 0, "not one whole"},
		{one(0xf7), torpor.CodeUnsupported, 0, "an item that JSON has not"},
		{one(0xf8, 0xff), torpor.CodeUnsupported, 0, "an item that JSON has not"},
		{one(0xf9, 0x7e, 0x00), torpor.CodeCorrupt, 0, "a float that is no number"},
		{one(0x81, 0xfb, 0x00), torpor.CodeCorrupt, 1, "not one whole"},
		{one(0x82, 0x00, 0x61, 0xff), torpor.CodeCorrupt, 3, "not UTF-8"},
		{deep, torpor.CodeTooLarge, record.MaxDepth, "nested deeper than 64"},
	} {
		for _, room := range []int{0, 64, 100} { // bytes behind the item
			item := append(bytes.Clone(c.item), make([]byte, room)...)[:len(c.item)]
			_, err := written(false, func(w *jsonscan.Writer) error { return w.Item(item) })
			wantError(t, fmt.Sprintf("%x", c.item), err, c.code, c.offset, c.msg)
		}
	}
	got, err := written(false, func(w *jsonscan.Writer) error { return w.Item(one(0xf9, 0x3c, 0x00)) })
	if err != nil || string(got) != "1" {
		t.Errorf("%s, %v", got, err)
	}
}

// An item is written in the same way wherever in the output's buffer it begins.
func TestItemAtEveryPlaceOfTheBuffer(t *testing.T) {
	var item []byte
	if err := read([]byte(sample), 0, func(s *jsonscan.Scanner) error {
		item = s.AppendItem(nil)
		return s.End()
	}); err != nil {
		t.Fatal(err)
	}
	one, err := written(false, func(w *jsonscan.Writer) error { return w.Item(item) })
	if err != nil {
		t.Fatal(err)
	}
	for before := 64<<10 - 2*len(one); before < 64<<10+10; before += 3 {
		got, err := written(false, func(w *jsonscan.Writer) error {
			w.Text(strings.Repeat("x", before))
			return w.Item(item)
		})
		if want := `"` + strings.Repeat("x", before) + `",` + string(one); err != nil || string(got) != want {
			t.Fatalf("after %d bytes: %v", before, err)
		}
	}
}

// writtenItem is what Item makes of an item. It is the same whether there is something behind the item, so that
// the kernel reads all of it, or nothing, so that it does not come to the end.
func writtenItem(html bool, item []byte) ([]byte, error) {
	write := func(item []byte) ([]byte, error) {
		return written(html, func(w *jsonscan.Writer) error { return w.Item(item) })
	}
	got, err := write(item[:len(item):len(item)])
	for _, fill := range []byte{0, 'x', 0xff} {
		other, otherErr := write(append(bytes.Clone(item), bytes.Repeat([]byte{fill}, 100)...)[:len(item)])
		if fmt.Sprint(err) != fmt.Sprint(otherErr) || err == nil && !bytes.Equal(got, other) {
			return nil, fmt.Errorf("%q, %w; but with bytes of %#x behind it %q, %w", got, err, fill, other, otherErr)
		}
	}
	return got, err
}

// Whatever an item is, what Item makes of it is JSON that means the same.
func FuzzItem(f *testing.F) {
	for _, document := range accepted() {
		_ = read([]byte(document), 0, func(s *jsonscan.Scanner) error {
			f.Add(s.AppendItem(nil))
			return nil
		})
	}
	f.Add([]byte{0xa1, 0x61, 'a', 0xfb, 1, 2, 3, 4, 5, 6, 7, 8})
	f.Fuzz(func(t *testing.T, item []byte) {
		for _, html := range []bool{false, true} {
			got, err := writtenItem(html, item)
			if err != nil {
				var e *torpor.Error
				if !errors.As(err, &e) || e.Code == torpor.CodeInternal || e.Offset > uint64(len(item)) {
					t.Fatalf("%x: %#v", item, err)
				}
				continue
			}
			if !json.Valid(got) {
				t.Fatalf("%x became %q", item, got)
			}
			var again []byte
			err = read(got, 0, func(s *jsonscan.Scanner) error {
				again = s.AppendItem(nil)
				return s.End()
			})
			if err != nil {
				t.Fatalf("%x became %q: %v", item, got, err)
			}
			back, err := writtenItem(html, again)
			if err != nil || !bytes.Equal(back, got) {
				t.Fatalf("%x became %q, then %x, then %q, %v", item, got, again, back, err)
			}
		}
	})
}
