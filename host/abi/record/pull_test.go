package record_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

func TestPullIntegers(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	numbers := append([]uint64(nil), boundaries...)
	for range 1000 {
		numbers = append(numbers, r.Uint64()>>r.UintN(64))
	}
	var d record.Pull
	for _, v := range numbers {
		d.Reset(oracle(t, v))
		if got := d.Uint(); got != v || d.End() != nil {
			t.Errorf("Uint: %d, want %d; %v", got, v, d.Err())
		}
		for _, i := range []int64{int64(v), -int64(v)} {
			d.Reset(oracle(t, i))
			if got := d.Int(); got != i || d.End() != nil {
				t.Errorf("Int: %d, want %d; %v", got, i, d.Err())
			}
		}
	}
	for _, beyond := range []string{"1b 8000000000000000", "1b ffffffffffffffff", "3b 8000000000000000", "3b ffffffffffffffff"} {
		d.Reset(unhex(t, beyond))
		if got := d.Int(); got != 0 {
			t.Errorf("Int of %s: %d", beyond, got)
		}
		wantFormatError(t, d.Err(), abi.ErrCorrupt, 0, "beyond 64 bits")
	}
}

func TestPullStrings(t *testing.T) {
	for _, n := range []int{0, 23, 24, 255, 256, 65535, 65536} {
		s := strings.Repeat("x", n)
		d := record.NewPull(append(oracle(t, s), oracle(t, []byte(s))...))
		got, text := d.TextOrBytes()
		if string(got) != s || !text || cap(got) != n {
			t.Errorf("TextOrBytes of text of %d: %d bytes, text %v, capacity %d", n, len(got), text, cap(got))
		}
		if got, text = d.TextOrBytes(); string(got) != s || text {
			t.Errorf("TextOrBytes of %d bytes: %d bytes, text %v", n, len(got), text)
		}
		if d.End() != nil {
			t.Error(d.End())
		}
		d.Reset(oracle(t, s))
		if got := d.Text(); string(got) != s || d.End() != nil {
			t.Errorf("Text of %d: %d bytes, %v", n, len(got), d.Err())
		}
		d.Reset(oracle(t, []byte(s)))
		if got := d.Bytes(); string(got) != s || d.End() != nil {
			t.Errorf("Bytes of %d: %d bytes, %v", n, len(got), d.Err())
		}
	}
}

// pullAny reads any item the way cbor decodes into an empty interface.
func pullAny(d *record.Pull, b []byte) any {
	switch first := b[d.Offset()]; first >> 5 {
	case 0:
		return d.Uint()
	case 1:
		return d.Int()
	case 2:
		return append([]byte{}, d.Bytes()...)
	case 3:
		return string(d.Text())
	case 4:
		s := make([]any, d.Array())
		for i := range s {
			s[i] = pullAny(d, b)
		}
		return s
	case 5:
		n := d.Map()
		m := make(map[any]any, n)
		for range n {
			k := pullAny(d, b)
			m[k] = pullAny(d, b)
		}
		return m
	default:
		if first == 0xf6 {
			d.Skip()
			return nil
		}
		return d.Bool()
	}
}

// randomValue is a value of the kinds Pull reads.
func randomValue(r *rand.Rand, depth int) any {
	kinds := 8
	if depth == 0 {
		kinds = 6
	}
	switch r.IntN(kinds) {
	case 0:
		return r.Uint64() >> r.UintN(64)
	case 1:
		return -1 - int64(r.Uint64()>>(1+r.UintN(63)))
	case 2:
		return bytes.Repeat([]byte{byte(r.Uint32())}, r.IntN(300))
	case 3:
		return strings.Repeat("ü", r.IntN(150))
	case 4:
		return r.IntN(2) == 0
	case 5:
		return nil
	case 6:
		s := make([]any, r.IntN(30))
		for i := range s {
			s[i] = randomValue(r, depth-1)
		}
		return s
	default:
		m := map[any]any{}
		for range r.IntN(30) {
			m[fmt.Sprint(r.Uint32())] = randomValue(r, depth-1)
		}
		return m
	}
}

func TestPullAgainstOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for range 300 {
		v := randomValue(r, 4)
		b := oracle(t, v)
		d := record.NewPull(b)
		got := pullAny(d, b)
		if err := d.End(); err != nil {
			t.Fatalf("% x: %v", b, err)
		}
		em, err := cbor.CoreDetEncOptions().EncMode()
		if err != nil {
			t.Fatal(err)
		}
		want, err := em.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := em.Marshal(got); err != nil || !bytes.Equal(back, want) {
			t.Fatalf("% x came back as % x, %v", want, back, err)
		}
		d.Reset(b)
		if got := d.Skip(); !bytes.Equal(got, b) || d.End() != nil {
			t.Fatalf("Skip of % x: % x, %v", b, got, d.Err())
		}
	}
}

// Every method, on every kind of item and on every truncation of it: the right value or the zero value
// and an error, and always inside the bytes.
func TestPullWrongKindAndShort(t *testing.T) {
	methods := map[string]func(*record.Pull) (zero bool){
		"uint":      func(d *record.Pull) bool { return d.Uint() == 0 },
		"int":       func(d *record.Pull) bool { return d.Int() == 0 },
		"bytes":     func(d *record.Pull) bool { return d.Bytes() == nil },
		"text":      func(d *record.Pull) bool { return d.Text() == nil },
		"either":    func(d *record.Pull) bool { s, _ := d.TextOrBytes(); return s == nil },
		"array":     func(d *record.Pull) bool { return d.Array() == 0 },
		"map":       func(d *record.Pull) bool { return d.Map() == 0 },
		"bool":      func(d *record.Pull) bool { return !d.Bool() },
		"null":      func(d *record.Pull) bool { return !d.Null() },
		"tag":       func(d *record.Pull) bool { return d.Tag() == 0 },
		"float":     func(d *record.Pull) bool { return d.Float() == 0 },
		"skip":      func(d *record.Pull) bool { return d.Skip() == nil },
		"offset":    func(d *record.Pull) bool { return d.Offset() == 0 },
		"array+all": func(d *record.Pull) bool { n := d.Array(); d.Skip(); return n == 0 },
	}
	reads := map[string][]string{ // which methods read which item
		"1b 0000000100000000":    {"uint", "int", "skip"},
		"19 0100":                {"uint", "int", "skip"},
		"3a 00010000":            {"int", "skip"},
		"43 010203":              {"bytes", "either", "skip"},
		"63 616263":              {"text", "either", "skip"},
		"82 01 02":               {"array", "skip"},
		"a1 01 02":               {"map", "skip"},
		"f5":                     {"bool", "skip"},
		"f6":                     {"null", "skip"},
		"c1 01":                  {"tag", "skip"},
		"f9 3e00":                {"float", "skip"},
		"fa 3fc00000":            {"float", "skip"},
		"fb 3ff199999999999a":    {"float", "skip"},
		"d9 d9f7 82 a1 00 01 40": {"tag", "skip"},
		"05":                     {"uint", "int", "skip"},
		"64 61626364":            {"text", "either", "skip"},
		"f7":                     {"skip"},
		"f8 ff":                  {"skip"},
	}
	for item, good := range reads {
		whole := unhex(t, item)
		for name, read := range methods {
			if name == "offset" || name == "array+all" {
				continue
			}
			works := false
			for _, g := range good {
				works = works || g == name
			}
			d := record.NewPull(whole)
			zero := read(d)
			if works != (d.Err() == nil) || zero == works {
				t.Errorf("%s of %s: zero value %v, %v", name, item, zero, d.Err())
			}
			if !works && name != "map" && name != "array" {
				wantFormatError(t, d.Err(), abi.ErrCorrupt, 0, "expected")
			}
			for n := range whole {
				d.Reset(whole[:n:n])
				zero := read(d)
				headOnly := works && n > 0 && (name == "array" || name == "map" || name == "tag") && d.Err() == nil
				if !headOnly && (!zero || !errors.Is(d.Err(), abi.ErrCorrupt)) {
					t.Errorf("%s of the first %d bytes of %s: zero value %v, %v", name, n, item, zero, d.Err())
				}
				if d.Offset() > n {
					t.Errorf("%s of the first %d bytes of %s read %d", name, n, item, d.Offset())
				}
			}
		}
	}
}

func TestPullCollectionsFitTheBytes(t *testing.T) {
	for _, c := range []struct {
		hex  string
		read func(*record.Pull) int
		want int
	}{
		{"83 01 02 03", (*record.Pull).Array, 3},
		{"83 01 02", (*record.Pull).Array, 0},
		{"9b ffffffffffffffff 00", (*record.Pull).Array, 0},
		{"a2 01 02 03 04", (*record.Pull).Map, 2},
		{"a2 01 02 03", (*record.Pull).Map, 0},
		{"bb 8000000000000001 00 00", (*record.Pull).Map, 0},
		{"bb 7fffffffffffffff 00 00", (*record.Pull).Map, 0},
	} {
		d := record.NewPull(unhex(t, c.hex))
		if got := c.read(d); got != c.want || (d.Err() == nil) != (c.want > 0) {
			t.Errorf("%s: %d, %v; want %d", c.hex, got, d.Err(), c.want)
		}
		if c.want == 0 {
			wantFormatError(t, d.Err(), abi.ErrCorrupt, 0, "end inside")
		}
	}
}

func TestPullErrorIsSticky(t *testing.T) {
	d := record.NewPull(unhex(t, "01 61 78 02 f5"))
	d.Uint()
	d.Uint() // a text
	first := d.Err()
	wantFormatError(t, first, abi.ErrCorrupt, 1, "unsigned integer expected, found 0x61")
	text, isText := d.TextOrBytes()
	if d.Uint() != 0 || d.Int() != 0 || d.Bytes() != nil || d.Text() != nil || text != nil || !isText ||
		d.Array() != 0 || d.Map() != 0 || d.Bool() || d.Null() || d.Tag() != 0 || d.Float() != 0 || d.Peek() != record.KindNone || d.Skip() != nil {
		t.Error("a method gave something after an error")
	}
	if d.Err() != first || d.End() != first || d.Offset() != 1 {
		t.Errorf("after the error: %v, %v, offset %d", d.Err(), d.End(), d.Offset())
	}
	d.Reset(unhex(t, "02"))
	if d.Err() != nil || d.Uint() != 2 || d.End() != nil {
		t.Errorf("after Reset: %v", d.Err())
	}
}

func TestPullPeek(t *testing.T) {
	kinds := map[record.Kind]string{
		record.KindUint: "00 17 18ff 1bffffffffffffffff", record.KindNeg: "20 37 38ff", record.KindBytes: "40 5800", record.KindText: "60 7801",
		record.KindArray: "80 9800 9f", record.KindMap: "a0 b800", record.KindTag: "c0 d9d9f7", record.KindBool: "f4 f5", record.KindNull: "f6",
		record.KindFloat: "f9 fa fb", record.KindOther: "e0 f3 f7 f8ff fc fd fe ff",
	}
	var d record.Pull
	for kind, items := range kinds {
		for _, item := range strings.Fields(items) {
			if d.Reset(unhex(t, item)); d.Peek() != kind || d.Offset() != 0 || d.Err() != nil {
				t.Errorf("%s is of kind %d, %v; want %d", item, d.Peek(), d.Err(), kind)
			}
		}
	}
	if d.Reset(nil); d.Peek() != record.KindNone || d.Err() != nil {
		t.Errorf("nothing is of kind %d, %v", d.Peek(), d.Err())
	}
}

// Floats of every width mean what the oracle says, every one of two bytes, and bits of NaNs are kept.
func TestPullFloats(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	var items [][]byte
	for v := range 1 << 16 {
		items = append(items, []byte{0xf9, byte(v >> 8), byte(v)})
	}
	for range 20000 {
		items = append(items, binary.BigEndian.AppendUint32([]byte{0xfa}, r.Uint32()), binary.BigEndian.AppendUint64([]byte{0xfb}, r.Uint64()))
	}
	for e := range uint32(256) { // every exponent, and what is next to it
		for _, f := range []uint32{0, 1, 1 << 22, 1<<23 - 1} {
			items = append(items, binary.BigEndian.AppendUint32([]byte{0xfa}, e<<23|f), binary.BigEndian.AppendUint32([]byte{0xfa}, 1<<31|e<<23|f))
		}
	}
	var d record.Pull
	for _, item := range items {
		var want float64
		if err := cbor.Unmarshal(item, &want); err != nil {
			t.Fatal(err)
		}
		d.Reset(item)
		got := d.Float()
		if d.End() != nil || got != want && !(math.IsNaN(got) && math.IsNaN(want)) || math.Signbit(got) != math.Signbit(want) {
			t.Fatalf("% x is %v, %v; want %v", item, got, d.Err(), want)
		}
		if math.IsNaN(want) {
			bits := math.Float64bits(got)
			var keeps bool
			switch v := item[1:]; len(v) {
			case 2:
				keeps = bits<<12>>54 == uint64(binary.BigEndian.Uint16(v)&0x3ff)
			case 4:
				keeps = bits<<12>>41 == uint64(binary.BigEndian.Uint32(v)&0x7fffff)
			default:
				keeps = bits == binary.BigEndian.Uint64(v)
			}
			if !keeps {
				t.Fatalf("% x became %x", item, bits)
			}
		}
	}
}

func TestPullEnd(t *testing.T) {
	d := record.NewPull(unhex(t, "01 02 03"))
	d.Uint()
	wantFormatError(t, d.End(), abi.ErrCorrupt, 1, "2 bytes after the end")
	wantFormatError(t, d.Err(), abi.ErrCorrupt, 1, "2 bytes after the end")
	if d.Uint() != 0 || d.Peek() != record.KindNone {
		t.Error("something comes after an error")
	}
	d.Reset(nil)
	if d.End() != nil {
		t.Error(d.Err())
	}
	d.Uint()
	wantFormatError(t, d.Err(), abi.ErrCorrupt, 0, "end inside an item")
}

func TestPullSkipIsAsStrictAsAScan(t *testing.T) {
	for _, c := range []struct {
		item   []byte
		err    error
		at     int
		reason string
	}{
		{nested(65, 0), abi.ErrTooLarge, 64, "deeper"},
		{unhex(t, "82 00 1817"), abi.ErrCorrupt, 2, "shortest"},
		{unhex(t, "9f ff"), abi.ErrCorrupt, 0, "indefinite"},
		{unhex(t, "82 00"), abi.ErrCorrupt, 0, "end inside an item"},
	} {
		d := record.NewPull(c.item)
		if d.Skip() != nil {
			t.Errorf("% x: skipped", c.item)
		}
		wantFormatError(t, d.Err(), c.err, c.at, c.reason)
	}
}

func TestPullDoesNotAllocate(t *testing.T) {
	b := withValue(unhex(t, "a2 61 61 1903e8 61 62 82 20 f5")...)
	var d record.Pull
	read := func() {
		d.Reset(b)
		d.Array()
		d.Text()
		d.TextOrBytes()
		for range d.Map() {
			d.Text()
			d.Skip()
		}
		if d.End() != nil {
			t.Fatal(d.Err())
		}
	}
	if allocs := testing.AllocsPerRun(100, read); allocs > 0 {
		t.Errorf("%v allocations a record", allocs)
	}
}
