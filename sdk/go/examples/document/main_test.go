package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	torpor "github.com/torpor-run/torpor/sdk/go"
	"github.com/torpor-run/torpor/sdk/go/torportest"
)

const sample = `{"":{"":""},"streams":{"orders":{"shards":[0,1.50,-3]},"refunds":{"shards":[]}},"topics":{}, "version" : 3, "\u00fc":{"a":"\u2028 \"x\"","b":null}}`

func TestRoundTrip(t *testing.T) {
	for _, native := range []string{`{}`, ` { } `, `{"a":1}`, `{"a":{}}`, `{"a":[],"b":{"":{}}}`, sample} {
		records := torportest.RoundTrip(t, document{}, []byte(native))
		back, err := torportest.Load(document{}, records)
		if err != nil {
			t.Fatal(err)
		}
		var want, got any
		if err := errors.Join(json.Unmarshal([]byte(native), &want), json.Unmarshal(back, &got)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s became %s, %v", native, back, err)
		}
	}
	back, err := torportest.Load(document{}, torportest.RoundTrip(t, document{}, []byte(sample)))
	if want := `{"":{"":""},"streams":{"orders":{"shards":[0,1.50,-3]},"refunds":{"shards":[]}},"topics":{},"version":3,"ü":{"a":"` + "\u2028" + ` \"x\"","b":null}}`; err != nil || string(back) != want {
		t.Errorf("%s, %v; want\n%s", back, err, want)
	}
}

func TestRecords(t *testing.T) {
	records, err := torportest.Save(document{}, []byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	var scan record.Scanner
	refs, err := scan.Scan(records, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := record.Batch{Data: records, Refs: refs}
	var got []string
	for i := range b.Len() {
		key, text := b.Key(i)
		got = append(got, fmt.Sprintf("%s %v %q", b.Partition(i), text, key))
	}
	if want := `[ true "" streams true "orders" streams true "refunds" topics false "" version false "" ü true "a" ü true "b"]`; fmt.Sprint(got) != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestBadDocuments(t *testing.T) {
	for _, c := range []struct {
		native string
		code   torpor.Code
		want   string
	}{
		{``, torpor.CodeCorrupt, "the document ends where an object should be at $"},
		{`[]`, torpor.CodeCorrupt, `an object expected, found "[" at $`},
		{`{"a":1`, torpor.CodeCorrupt, "the document ends where a comma or the end of the object should be at $ (offset 6)"},
		{`{"a":{"b":{"c":[0,x]}}}`, torpor.CodeCorrupt, `a value expected, found "x" at $.a.b.c[1] (offset 18)`},
		{`{"a":1} x`, torpor.CodeCorrupt, `more after the end`},
		{`{"b":1,"a":2}`, torpor.CodeUnsupported, "the names in an object must ascend, so that none can come twice; have the service sort them at $.a (offset 11)"},
		{`{"a":1,"a":2}`, torpor.CodeUnsupported, "at $.a"},
		{`{"a":{"y":1,"x":2}}`, torpor.CodeUnsupported, "at $.a.x"},
		{`{"a":{"x":1,"x":2}}`, torpor.CodeUnsupported, "at $.a.x"},
		{`{"a":{"x":"\ud800"}}`, torpor.CodeUnsupported, "half a character (a lone surrogate), which is no text in UTF-8 at $.a.x (offset 11)"},
		{`{"a":{"x":` + strings.Repeat("[", 65) + strings.Repeat("]", 65) + `}}`, torpor.CodeTooLarge, "nested deeper than 64"},
	} {
		_, err := torportest.Save(document{}, []byte(c.native))
		var e *torpor.Error
		if !errors.As(err, &e) || e.Code != c.code || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want code %d, %s", c.native, err, c.code, c.want)
		}
	}
	for n := range len(sample) {
		_, err := torportest.Save(document{}, []byte(sample)[:n])
		if !errors.Is(err, abi.ErrCorrupt) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
}

func TestBadRecords(t *testing.T) {
	text := func(partition, key string) []byte {
		return record.AppendText(record.AppendText(record.AppendRecord(nil), partition), key)
	}
	bytesKey := func(partition, key string) []byte {
		return record.AppendBytes(record.AppendText(record.AppendRecord(nil), partition), key)
	}
	for _, c := range []struct {
		records []byte
		code    torpor.Code
		want    string
	}{
		{record.AppendBytes(text("a", "b"), "x"), torpor.CodeUnsupported, `a byte string, which JSON has not at record 1, key "b" in "a" (offset 5)`},
		{record.AppendText(record.AppendArray(text("a", "b"), 1), "\xff"), torpor.CodeCorrupt, `a text that is not UTF-8 at record 1, key "b" in "a" (offset 7)`},
		{record.AppendNull(bytesKey("a", "x")), torpor.CodeUnsupported, "a key is a text"},
		{append(record.AppendNull(text("a", "x")), record.AppendNull(bytesKey("a", ""))...), torpor.CodeUnsupported, "a key is a text"},
		{append(record.AppendNull(bytesKey("a", "")), record.AppendNull(text("a", "x"))...), torpor.CodeUnsupported, "together"},
		{append(record.AppendNull(text("b", "")), record.AppendNull(text("a", "x"))...), torpor.CodeUnsupported, "together"},
	} {
		_, err := torportest.Load(document{}, c.records)
		var e *torpor.Error
		if !errors.As(err, &e) || e.Code != c.code || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%x: %v, want code %d, %s", c.records, err, c.code, c.want)
		}
	}
}

func TestUnknownSetting(t *testing.T) {
	for _, op := range []string{abi.OpSave, abi.OpLoad} {
		h := torportest.Host{Call: abi.Call{Op: op, Schema: 1, Settings: map[string]any{"indent": 2}}, Input: []byte(nil)}
		_, err := h.Run(document{})
		var e *torpor.Error
		if !errors.As(err, &e) || e.Code != torpor.CodeUnsupported || e.Path != "settings.indent" {
			t.Errorf("%s: %v", op, err)
		}
	}
}

// Whatever is saved comes back meaning the same.
func FuzzSave(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte(`{"a":{"b":1e5,"c":{}},"d":[]}`))
	f.Fuzz(func(t *testing.T, native []byte) {
		records, err := torportest.Save(document{}, native)
		if err != nil {
			var e *torpor.Error
			if !errors.As(err, &e) || e.Code == torpor.CodeInternal {
				t.Fatal(err)
			}
			return
		}
		back, err := torportest.Load(document{}, records)
		if err != nil {
			t.Fatal(err)
		}
		again, err := torportest.Save(document{}, back)
		if err != nil || !bytes.Equal(again, records) {
			t.Fatalf("%q became %q: %v", native, back, err)
		}
	})
}
