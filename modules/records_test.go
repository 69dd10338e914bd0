package modules_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/modules"
)

// bufferBytes is the input buffer of the records module: records around this size are where fragments
// begin.
const bufferBytes = 128 << 10

// streamRecord adds a record of some 250 bytes and 13 items, like those of a cloud emulator.
func streamRecord(dst []byte, r *rand.Rand, i int) []byte {
	dst = record.AppendRecord(dst)
	dst = record.AppendText(dst, "000000000000/eu-west-1")
	dst = record.AppendText(dst, fmt.Sprintf("stream-%08d", i))
	dst = record.AppendMap(dst, 5)
	dst = record.AppendText(dst, "arn")
	dst = record.AppendText(dst, fmt.Sprintf("arn:aws:kinesis:eu-west-1:000000000000:stream/stream-%08d", i))
	dst = record.AppendText(dst, "created")
	dst = record.AppendUint(dst, uint64(1_700_000_000+r.IntN(1_000_000)))
	dst = record.AppendText(dst, "active")
	dst = record.AppendBool(dst, r.IntN(2) == 0)
	dst = record.AppendText(dst, "shards")
	dst = record.AppendUint(dst, uint64(r.IntN(100)))
	dst = record.AppendText(dst, "blob")
	return record.AppendBytes(dst, randomBytes(r, 106))
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// streamRecords is at least size bytes of them.
func streamRecords(size int) (data []byte, count int) {
	r := rand.New(rand.NewPCG(1, 2))
	for len(data) < size {
		data = streamRecord(data, r, count)
		count++
	}
	return data, count
}

// anyItem adds an item of any kind; its strings are shorter than size.
func anyItem(dst []byte, r *rand.Rand, depth, size int) []byte {
	kinds := 11
	if depth == 0 {
		kinds = 8
	}
	switch r.IntN(kinds) {
	case 0:
		return record.AppendUint(dst, r.Uint64()>>r.IntN(64))
	case 1:
		return record.AppendInt(dst, -int64(r.Uint64()>>(1+r.IntN(63))))
	case 2:
		return record.AppendBytes(dst, randomBytes(r, r.IntN(size)))
	case 3:
		return record.AppendText(dst, strings.Repeat("ß", r.IntN(size/2)))
	case 4:
		return record.AppendBool(dst, r.IntN(2) == 0)
	case 5:
		return record.AppendNull(dst)
	case 6:
		width := r.IntN(3)
		return append(append(dst, 0xf9+byte(width)), randomBytes(r, 2<<width)...)
	case 7:
		return append(dst, 0xf8, 32+byte(r.IntN(224)))
	case 8:
		n := r.IntN(2 + size/10)
		dst = record.AppendArray(dst, n)
		for range n {
			dst = anyItem(dst, r, depth-1, size)
		}
		return dst
	case 9:
		n := r.IntN(2 + size/20)
		dst = record.AppendMap(dst, n)
		for range 2 * n {
			dst = anyItem(dst, r, depth-1, size)
		}
		return dst
	default:
		return anyItem(record.AppendTag(dst, r.Uint64()>>r.IntN(64)), r, depth-1, size)
	}
}

// anyRecord adds a record of any shape; its strings are shorter than size.
func anyRecord(dst []byte, r *rand.Rand, size int) []byte {
	dst = record.AppendRecord(dst)
	dst = record.AppendText(dst, []string{"", "000000000000/eu-west-1", "größe/zürich", strings.Repeat("p", size)}[r.IntN(4)])
	if r.IntN(2) == 0 {
		dst = record.AppendText(dst, strings.Repeat("schlüssel", r.IntN(1+size/10)))
	} else {
		dst = record.AppendBytes(dst, randomBytes(r, r.IntN(size)))
	}
	return anyItem(dst, r, 3, size)
}

// sizedRecord is a record of exactly size bytes whose value is one string.
func sizedRecord(t testing.TB, size int) []byte {
	t.Helper()
	for head := 1; head <= 9; head++ {
		b := record.AppendRecord(nil)
		b = record.AppendText(b, "p")
		b = record.AppendText(b, "sized")
		if n := size - len(b) - head; n >= 0 {
			if b = record.AppendBytes(b, make([]byte, n)); len(b) == size {
				return b
			}
		}
	}
	t.Fatalf("no record is of %d bytes", size)
	return nil
}

// manyItems is one record of about size bytes whose value is small items: none of it can be passed
// over in one step.
func manyItems(size int) []byte {
	b := record.AppendRecord(nil)
	b = record.AppendText(b, "p")
	b = record.AppendText(b, "many")
	b = record.AppendArray(b, size/8)
	for i := range size / 8 {
		b = record.AppendArray(b, 2)
		b = record.AppendUint(b, uint64(i)|1<<20)
		b = record.AppendText(b, "x")
	}
	return b
}

// samples are inputs that the module must accept.
func samples(t testing.TB) map[string][]byte {
	r := rand.New(rand.NewPCG(3, 4))
	var mixed []byte
	for range 100 {
		mixed = anyRecord(mixed, r, 300)
	}
	stream, _ := streamRecords(200_000)
	big := sizedRecord(t, 5_000_000)
	longest := record.AppendRecord(nil)
	longest = record.AppendText(longest, strings.Repeat("p", record.MaxPartitionBytes))
	longest = record.AppendText(longest, strings.Repeat("k", record.MaxKeyBytes))
	longest = record.AppendNull(longest)
	m := map[string][]byte{
		"none":        nil,
		"one":         sizedRecord(t, 20),
		"mixed":       mixed,
		"stream":      stream,
		"longest key": slices.Concat(longest, longest, longest),
		"big":         slices.Concat(mixed, big, mixed),
		"many items":  slices.Concat(manyItems(200_000), sizedRecord(t, 40), manyItems(200_000)),
	}
	for _, d := range []int{-1, 0, 1} {
		at := sizedRecord(t, bufferBytes+d)
		m[fmt.Sprintf("buffer%+d", d)] = slices.Concat(at, sizedRecord(t, 30), at, at)
		m[fmt.Sprintf("two buffers%+d", d)] = slices.Concat(sizedRecord(t, 17), sizedRecord(t, 2*bufferBytes+d), sizedRecord(t, 30))
	}
	return m
}

// pieces are ways a host may hand out input.
func pieces() map[string]func(room int) int {
	r := rand.New(rand.NewPCG(5, 6))
	return map[string]func(int) int{
		"full":     nil,
		"1 byte":   func(int) int { return 1 },
		"7 bytes":  func(int) int { return 7 },
		"64 KiB-1": func(int) int { return 64<<10 - 1 },
		"random":   func(int) int { return 1 << r.IntN(18) },
	}
}

// passing are the operations that give out what they are given.
var passing = []struct {
	export          string
	native, records bool
}{
	{abi.ExportSave, true, true},
	{abi.ExportLoad, false, false},
	{abi.ExportMigrate, false, true},
}

// TestPassThrough: what is sound leaves as it came, byte for byte, however the host cuts it, and the
// guest's memory does not follow it.
func TestPassThrough(t *testing.T) {
	g := newGuest(t, modules.Records())
	memory := g.instance.Memory().Size()
	for name, data := range samples(t) {
		for cut, piece := range pieces() {
			if strings.Contains(cut, "byte") && len(data) > 500_000 {
				continue // minutes of nothing new
			}
			for _, op := range passing {
				for _, late := range []bool{false, true} {
					c := g.run(op.export, &call{input: data, native: op.native, records: op.records, piece: piece, late: late, arg: migration(1, 1)})
					if !c.accepted() {
						t.Fatalf("%s of %s in pieces (%s): %v", op.export, name, cut, c)
					}
					if !bytes.Equal(c.output.Bytes(), data) {
						t.Fatalf("%s of %s in pieces (%s): %d bytes in, other %d out", op.export, name, cut, len(data), c.output.Len())
					}
					if c.largest > bufferBytes {
						t.Errorf("%s of %s emits %d bytes at once", op.export, name, c.largest)
					}
				}
			}
		}
	}
	if now := g.instance.Memory().Size(); now != memory || now > 512<<10 {
		t.Errorf("guest memory is %d bytes after %d at the start", now, memory)
	}
}

// TestBulk: whole records leave as many at a time as there are, or the module is not worth its speed.
func TestBulk(t *testing.T) {
	g := newGuest(t, modules.Records())
	data, _ := streamRecords(10 << 20)
	c := g.run(abi.ExportSave, &call{input: data, native: true, records: true})
	if most := len(data)/bufferBytes + 2; !c.accepted() || c.emits > most {
		t.Errorf("%d calls of emit for %d bytes, want at most %d (%v)", c.emits, len(data), most, c)
	}
}

// TestTruncated: an input that ends inside a record is corrupt, at its end, and the record is named.
func TestTruncated(t *testing.T) {
	g := newGuest(t, modules.Records())
	r := rand.New(rand.NewPCG(7, 8))
	var data []byte
	ends := []int{0}
	for len(data) < 900 {
		data = anyRecord(data, r, 20)
		ends = append(ends, len(data))
	}
	for cut := range data {
		done, whole := slices.BinarySearch(ends, cut)
		if !whole {
			done--
		}
		for _, op := range passing {
			for _, step := range []int{0, 1, 13} {
				c := &call{input: data[:cut], native: op.native, records: op.records, arg: migration(1, 1)}
				if step > 0 {
					c.piece = func(int) int { return step }
				}
				g.run(op.export, c)
				if whole {
					if !c.accepted() || c.output.Len() != cut {
						t.Fatalf("%s of %d bytes, which are %d records: %v", op.export, cut, done, c)
					}
					continue
				}
				place := fmt.Sprintf("record %d", done+1)
				if c.trap != nil || c.status != int32(abi.CodeCorrupt) || c.code != abi.CodeCorrupt || c.failures != 1 ||
					c.failure.Offset != uint64(cut) || c.failure.Path != place || c.failure.Msg == "" {
					t.Fatalf("%s of %d bytes, cut in %s: %v", op.export, cut, place, c)
				}
			}
		}
	}
	for _, cut := range []int{1, bufferBytes, bufferBytes + 1, 4_999_999} { // in fragments already given out
		c := g.run(abi.ExportSave, &call{input: sizedRecord(t, 5_000_000)[:cut], native: true, records: true})
		if c.code != abi.CodeCorrupt || c.failure.Offset != uint64(cut) || c.failure.Path != "record 1" {
			t.Errorf("cut at %d: %v", cut, c)
		}
	}
}

// judge holds what the module did with data against the host's own check.
func judge(t *testing.T, c *call, data []byte) {
	t.Helper()
	if c.trap != nil {
		t.Fatalf("trap: %v", c.trap)
	}
	var s record.Scanner
	_, err := s.Scan(data, nil)
	if err == nil {
		if !c.accepted() || !bytes.Equal(c.output.Bytes(), data) {
			t.Fatalf("sound, but: %v, %d bytes of %d out", c, c.output.Len(), len(data))
		}
		return
	}
	var f *record.FormatError
	if !errors.As(err, &f) {
		t.Fatal(err)
	}
	want := abi.CodeCorrupt
	if errors.Is(err, abi.ErrTooLarge) {
		want = abi.CodeTooLarge
	}
	if c.status != int32(want) || c.code != want || c.failures != 1 {
		t.Fatalf("%v; the host's check says: %v", c, err)
	}
	if c.failure.Offset != uint64(f.Offset) {
		t.Fatalf("%v; the host's check says offset %d: %v", c, f.Offset, err)
	}
}

// judgeAll does so for every operation and several ways of cutting the input.
func judgeAll(t *testing.T, g *guest, data []byte) {
	t.Helper()
	for _, op := range passing {
		for _, step := range []int{0, 1, 5} {
			c := &call{input: data, native: op.native, records: op.records, arg: migration(1, 1)}
			if step > 0 {
				c.piece = func(int) int { return step }
			}
			judge(t, g.run(op.export, c), data)
		}
	}
}

// TestLimits: the module draws each line where the host does.
func TestLimits(t *testing.T) {
	g := newGuest(t, modules.Records())
	named := func(partition, key int, value ...byte) []byte {
		b := record.AppendRecord(nil)
		b = record.AppendText(b, strings.Repeat("p", partition))
		b = record.AppendText(b, strings.Repeat("k", key))
		return append(b, value...)
	}
	null := byte(0xf6)
	deep := func(open byte, n int, last ...byte) []byte {
		return named(1, 1, append(bytes.Repeat([]byte{open}, n), last...)...)
	}
	for name, data := range map[string][]byte{
		"partition":               named(record.MaxPartitionBytes, 1, null),
		"partition and one":       named(record.MaxPartitionBytes+1, 1, null),
		"key":                     named(1, record.MaxKeyBytes, null),
		"key and one":             named(1, record.MaxKeyBytes+1, null),
		"both":                    named(record.MaxPartitionBytes, record.MaxKeyBytes, null),
		"arrays":                  deep(0x81, record.MaxDepth, null),
		"arrays and one":          deep(0x81, record.MaxDepth+1, null),
		"arrays and an empty one": deep(0x81, record.MaxDepth, 0x80),
		"arrays and an empty map": deep(0x81, record.MaxDepth, 0xa0),
		"tags":                    deep(0xc1, record.MaxDepth, null),
		"tags and one":            deep(0xc1, record.MaxDepth+1, null),
		"maps":                    named(0, 0, append(bytes.Repeat([]byte{0xa1, 0x00}, record.MaxDepth), null)...),
		"maps and one":            named(0, 0, append(bytes.Repeat([]byte{0xa1, 0x00}, record.MaxDepth+1), null)...),
		"string of 1 GiB":         named(0, 0, 0x5a, 0x40, 0, 0, 0),
		"string of 1 GiB and one": named(0, 0, 0x5a, 0x40, 0, 0, 1),
		"string of 4 GiB":         named(0, 0, 0x7b, 0, 0, 0, 1, 0, 0, 0, 0),
		"string of 2^64-1":        named(0, 0, 0x7b, 255, 255, 255, 255, 255, 255, 255, 255),
		"array of 2^30":           named(0, 0, 0x9a, 0x40, 0, 0, 0),
		"array of 2^30+1":         named(0, 0, 0x9a, 0x40, 0, 0, 1),
		"map of 2^30":             named(0, 0, 0xba, 0x40, 0, 0, 0),
		"map of 2^63":             named(0, 0, 0xbb, 0x80, 0, 0, 0, 0, 0, 0, 0),
		"tag of 2^64-1":           named(0, 0, 0xdb, 255, 255, 255, 255, 255, 255, 255, 255, null),
		"text value not UTF-8":    named(0, 0, 0x61, 0xff),
		"partition not UTF-8":     {0x83, 0x61, 0xff, 0x60, null},
		"key not UTF-8":           {0x83, 0x60, 0x62, 0xc3, 0x28, null},
		"key a surrogate":         {0x83, 0x60, 0x63, 0xed, 0xa0, 0x80, null},
		"key of bytes":            {0x83, 0x60, 0x42, 0xc3, 0x28, null},
		"partition of bytes":      {0x83, 0x40, 0x60, null},
		"key a number":            {0x83, 0x60, 0x01, null},
		"array of two":            {0x82, 0x60, 0x60},
		"indefinite array":        {0x9f, 0x60, 0x60, null, 0xff},
		"nothing but a break":     {0xff},
	} {
		t.Run(name, func(t *testing.T) { judgeAll(t, g, data) })
	}
	for first := range 256 { // every first byte of a value, with enough behind it
		judgeAll(t, g, named(0, 1, append([]byte{byte(first)}, bytes.Repeat([]byte{0x20}, 40)...)...))
		judgeAll(t, g, named(0, 1, append([]byte{byte(first)}, make([]byte, 40)...)...))
		judgeAll(t, g, append([]byte{byte(first)}, named(0, 1, null)[1:]...))
	}
}

// TestDamaged: whatever a byte is changed to, the module says of it what the host does, and never
// traps.
func TestDamaged(t *testing.T) {
	g := newGuest(t, modules.Records())
	r := rand.New(rand.NewPCG(9, 10))
	var data []byte
	for len(data) < 600 {
		data = anyRecord(data, r, 20)
	}
	for i, b := range data {
		for _, change := range []byte{b ^ 0x01, b ^ 0x20, b ^ 0x80, b + 1, 0, 0xff, 0x9f, 0x5b} {
			bad := bytes.Clone(data)
			bad[i] = change
			judge(t, g.run(abi.ExportSave, &call{input: bad, native: true, records: true}), bad)
		}
		without := slices.Concat(data[:i], data[i+1:])
		judge(t, g.run(abi.ExportSave, &call{input: without, native: true, records: true}), without)
	}
	sound := data
	if c := g.run(abi.ExportSave, &call{input: sound, native: true, records: true}); !c.accepted() {
		t.Errorf("after all that, a sound input: %v", c)
	}
}

// FuzzRecordsModule holds the module against the host's check on any bytes, cut anyhow.
func FuzzRecordsModule(f *testing.F) {
	r := rand.New(rand.NewPCG(11, 12))
	for range 20 {
		f.Add(anyRecord(anyRecord(nil, r, 30), r, 30), 1+r.IntN(64), r.IntN(2) == 0)
	}
	f.Add(sizedRecord(f, bufferBytes+1), 1000, true)
	f.Add([]byte{0x83, 0x60, 0x60, 0x5a, 0x40, 0, 0, 1}, 3, false)
	g := newGuest(f, modules.Records())
	f.Fuzz(func(t *testing.T, data []byte, step int, late bool) {
		for _, op := range passing {
			c := &call{input: data, native: op.native, records: op.records, late: late, arg: migration(1, 1)}
			if step > 0 {
				c.piece = func(int) int { return step }
			}
			judge(t, g.run(op.export, c), data)
		}
		if c := g.run(abi.ExportInspect, &call{input: data}); c.trap != nil {
			t.Fatal(c.trap)
		}
	})
}

// TestHostGivesUp: a guest whose input fails or whose output is refused returns at once with an error.
func TestHostGivesUp(t *testing.T) {
	g := newGuest(t, modules.Records())
	data, _ := streamRecords(1 << 20)
	for _, op := range passing {
		if c := g.run(op.export, &call{input: data, native: op.native, broken: true, arg: migration(1, 1)}); c.trap != nil || c.status == 0 {
			t.Errorf("%s with an input that fails: %v", op.export, c)
		}
		c := g.run(op.export, &call{input: data, native: op.native, refuse: 2, arg: migration(1, 1)})
		if c.trap != nil || c.status == 0 || c.emits != 3 {
			t.Errorf("%s with an output that is refused: %v after %d calls of emit", op.export, c, c.emits)
		}
	}
}

// TestSame: a fresh instance and a used one give the same bytes.
func TestSame(t *testing.T) {
	used := newGuest(t, modules.Records())
	used.run(abi.ExportSave, &call{input: []byte{0x83, 0x61}, native: true, records: true})
	for name, data := range samples(t) {
		for _, export := range []string{abi.ExportDescribe, abi.ExportSave, abi.ExportLoad, abi.ExportInspect} {
			a := used.run(export, &call{input: data, native: export == abi.ExportSave, records: export == abi.ExportSave})
			b := newGuest(t, modules.Records()).run(export, &call{input: data, native: export == abi.ExportSave, records: export == abi.ExportSave})
			if a.status != 0 || b.status != 0 || !bytes.Equal(a.output.Bytes(), b.output.Bytes()) {
				t.Errorf("%s of %s differs between two instances: %v and %v", export, name, a, b)
			}
		}
	}
}

// callArg is the parameters of a call, as a host encodes them.
func callArg(op string, pairs ...func([]byte) []byte) []byte {
	b := record.AppendMap(nil, 3+len(pairs))
	for _, kv := range []string{"op", op, "part", "store", "service", "orders"} {
		b = record.AppendText(b, kv)
	}
	for _, p := range pairs {
		b = p(b)
	}
	return b
}

func number(name string, n uint64) func([]byte) []byte {
	return func(b []byte) []byte { return record.AppendUint(record.AppendText(b, name), n) }
}

func settings(pairs ...func([]byte) []byte) func([]byte) []byte {
	return func(b []byte) []byte {
		b = record.AppendMap(record.AppendText(b, "settings"), len(pairs))
		for _, p := range pairs {
			b = p(b)
		}
		return b
	}
}

func migration(from, to uint64) []byte {
	return callArg(abi.OpMigrate, number("from", from), number("to", to))
}

// TestSchema: the service's own schema number is held against the settings, and there is no way
// between two of them.
func TestSchema(t *testing.T) {
	g := newGuest(t, modules.Records())
	data := sizedRecord(t, 100)
	text := func(b []byte) []byte { return record.AppendText(record.AppendText(b, "schema"), "three") }
	for _, c := range []struct {
		name, export string
		arg          []byte
		code         abi.Code // 0: accepted
		msg, path    string
	}{
		{"no settings", abi.ExportLoad, callArg("load", number("schema", 3)), 0, "", ""},
		{"as set", abi.ExportLoad, callArg("load", number("schema", 3), settings(number("schema", 3))), 0, "", ""},
		{"other than set", abi.ExportLoad, callArg("load", number("schema", 2), settings(number("schema", 3))), abi.CodeVersion, "the records are of schema 2, the service speaks schema 3", ""},
		{"save does not mind", abi.ExportSave, callArg("save", number("schema", 0), settings(number("schema", 3))), 0, "", ""},
		{"zero", abi.ExportSave, callArg("save", settings(number("schema", 0))), abi.CodeUnsupported, "a whole number from 1 expected", "settings.schema"},
		{"text", abi.ExportLoad, callArg("load", settings(text)), abi.CodeUnsupported, "a whole number from 1 expected", "settings.schema"},
		{"misspelled", abi.ExportMigrate, callArg("migrate", number("from", 1), number("to", 1), settings(number("shema", 3))), abi.CodeUnsupported, "unknown setting; known are: schema", "settings.shema"},
		{"same", abi.ExportMigrate, migration(7, 7), 0, "", ""},
		{"up", abi.ExportMigrate, migration(1, 2), abi.CodeVersion, "the records are of schema 1, wanted is schema 2", ""},
		{"down", abi.ExportMigrate, migration(2, 1), abi.CodeVersion, "the records are of schema 2, wanted is schema 1", ""},
		{"neither", abi.ExportMigrate, callArg("migrate"), abi.CodeInternal, "the call does not say", ""},
		{"no map", abi.ExportSave, []byte{0x60}, abi.CodeInternal, "a map expected", ""},
		{"cut", abi.ExportSave, callArg("save")[:9], abi.CodeInternal, "the bytes end inside an item", ""},
		{"too long", abi.ExportSave, callArg("save", settings(func(b []byte) []byte {
			return record.AppendText(record.AppendText(b, "schema"), make([]byte, 64<<10))
		})), abi.CodeTooLarge, "the parameters of the call are too long", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := g.run(c.export, &call{input: data, native: c.export == abi.ExportSave, arg: c.arg})
			if c.code == 0 {
				if !got.accepted() || !bytes.Equal(got.output.Bytes(), data) {
					t.Error(got)
				}
				return
			}
			if got.trap != nil || got.status != int32(c.code) || got.code != c.code || got.output.Len() != 0 ||
				!strings.Contains(got.failure.Msg, c.msg) || got.failure.Path != c.path {
				t.Errorf("%v; want code %d, %q, at %q", got, c.code, c.msg, c.path)
			}
		})
	}
}

// summary is what inspect tells.
type summary struct {
	schema, records, bytes uint64
	partitions             map[string][2]uint64 // records, bytes
	order                  []string
	other                  [2]uint64
	partition, key         string
	largest                uint64
	textKey, cut           bool
}

func parseSummary(t *testing.T, b []byte) summary {
	t.Helper()
	s := summary{partitions: map[string][2]uint64{}}
	d := record.NewPull(b)
	counts := func() (c [2]uint64) {
		for range d.Map() {
			switch key := string(d.Text()); key {
			case "records":
				c[0] = d.Uint()
			case "bytes":
				c[1] = d.Uint()
			default:
				t.Fatalf("unknown key %q in a count", key)
			}
		}
		return c
	}
	for range d.Map() {
		switch key := string(d.Text()); key {
		case "schema":
			s.schema = d.Uint()
		case "records":
			s.records = d.Uint()
		case "bytes":
			s.bytes = d.Uint()
		case "partitions":
			for range d.Map() {
				name := string(d.Text())
				s.order = append(s.order, name)
				s.partitions[name] = counts()
			}
		case "other":
			s.other = counts()
		case "largest":
			for range d.Map() {
				switch key := string(d.Text()); key {
				case "partition":
					s.partition = string(d.Text())
				case "key":
					k, text := d.TextOrBytes()
					s.key, s.textKey = string(k), text
				case "bytes":
					s.largest = d.Uint()
				case "cut":
					s.cut = d.Bool()
				default:
					t.Fatalf("unknown key %q in largest", key)
				}
			}
		default:
			t.Fatalf("unknown key %q in a summary", key)
		}
	}
	if err := d.End(); err != nil {
		t.Fatalf("the summary is no map: %v", err)
	}
	return s
}

// TestInspect: the summary counts what is there, and stays small whatever is there.
func TestInspect(t *testing.T) {
	g := newGuest(t, modules.Records())
	for name, data := range samples(t) {
		var s record.Scanner
		refs, err := s.Scan(data, nil)
		if err != nil {
			t.Fatal(err)
		}
		batch := record.Batch{Data: data, Refs: refs}
		want := summary{schema: 5, partitions: map[string][2]uint64{}, records: uint64(batch.Len()), bytes: uint64(len(data))}
		for i := range batch.Len() {
			p, size := string(batch.Partition(i)), uint64(len(batch.Record(i)))
			c := want.partitions[p]
			want.partitions[p] = [2]uint64{c[0] + 1, c[1] + size}
			if size > want.largest {
				key, text := batch.Key(i)
				want.largest, want.partition, want.key, want.textKey = size, p, string(key), text
			}
		}
		const told = 1 << 10
		if want.cut = len(want.partition) > told || len(want.key) > told; want.cut {
			want.partition, want.key = want.partition[:min(told, len(want.partition))], want.key[:min(told, len(want.key))]
		}
		for cut, piece := range pieces() {
			if strings.Contains(cut, "byte") && len(data) > 500_000 {
				continue
			}
			c := g.run(abi.ExportInspect, &call{input: data, piece: piece, arg: callArg("inspect", number("schema", 5))})
			if !c.accepted() {
				t.Fatalf("%s: %v", name, c)
			}
			got := parseSummary(t, c.output.Bytes())
			got.order = nil
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("%s in pieces (%s):\n got %v\nwant %v", name, cut, got, want)
			}
		}
	}
}

// TestInspectBounds: partitions beyond the bound are counted together, and none is lost.
func TestInspectBounds(t *testing.T) {
	g := newGuest(t, modules.Records())
	for _, c := range []struct {
		partitions, size, named int
	}{
		{256, 1, 256},   // as many as are named
		{1000, 1, 256},  // more
		{100, 4000, 16}, // whose names are too long together
	} {
		var data []byte
		for round := range 3 {
			for i := range c.partitions {
				data = record.AppendRecord(data)
				data = record.AppendText(data, fmt.Sprintf("%0*d", c.size, i))
				data = record.AppendText(data, fmt.Sprintf("key-%d", round))
				data = record.AppendNull(data)
			}
		}
		got := g.run(abi.ExportInspect, &call{input: data})
		if !got.accepted() {
			t.Fatal(got)
		}
		s := parseSummary(t, got.output.Bytes())
		total := s.other
		for name, n := range s.partitions {
			if n[0] != 3 {
				t.Errorf("partition %.20s has %d records, want 3", name, n[0])
			}
			total[0], total[1] = total[0]+n[0], total[1]+n[1]
		}
		if len(s.partitions) != c.named || total != [2]uint64{uint64(3 * c.partitions), uint64(len(data))} || s.records != total[0] || s.bytes != total[1] {
			t.Errorf("%d partitions of %d bytes: %d named, %v in all, want %d named", c.partitions, c.size, len(s.partitions), total, c.named)
		}
	}
	long := record.AppendRecord(nil)
	long = record.AppendText(long, strings.Repeat("é", 600))
	long = record.AppendText(long, "x"+strings.Repeat("é", 600))
	long = record.AppendNull(long)
	s := parseSummary(t, g.run(abi.ExportInspect, &call{input: long}).output.Bytes())
	if !s.cut || s.partition != strings.Repeat("é", 512) || s.key != "x"+strings.Repeat("é", 511) {
		t.Errorf("names are cut to %d and %d bytes: %q", len(s.partition), len(s.key), s.key)
	}
	if s := parseSummary(t, g.run(abi.ExportInspect, &call{}).output.Bytes()); s.records != 0 || s.schema != 1 {
		t.Errorf("of nothing: %+v", s)
	}
	if c := g.run(abi.ExportInspect, &call{input: []byte{0x83, 0x60}}); c.code != abi.CodeCorrupt || c.output.Len() > 0 {
		t.Errorf("of a cut record: %v", c)
	}
}

// BenchmarkRecords measures a guest that is warm, and the host's copying to it; what it emits is only
// counted. Beside the mean it gives the best call, which says more on a machine with other work.
func BenchmarkRecords(b *testing.B) {
	small, count := streamRecords(20 << 20)
	b.Logf("records of %d bytes", len(small)/count)
	large := bytes.Repeat(sizedRecord(b, 5_000_000), 4)
	for _, bench := range []struct {
		name, export string
		native       bool
		data         []byte
	}{
		{"save", abi.ExportSave, true, small},
		{"load", abi.ExportLoad, false, small},
		{"inspect", abi.ExportInspect, false, small},
		{"save 5 MB records", abi.ExportSave, true, large},
	} {
		b.Run(bench.name, func(b *testing.B) {
			g := newGuest(b, modules.Records())
			var s record.Scanner
			refs, err := s.Scan(bench.data, nil)
			if err != nil {
				b.Fatal(err)
			}
			ends := make([]int, len(refs))
			for i, r := range refs {
				ends[i] = r.End
			}
			b.SetBytes(int64(len(bench.data)))
			best := time.Duration(math.MaxInt64)
			for b.Loop() {
				start := time.Now()
				if c := g.run(bench.export, &call{input: bench.data, native: bench.native, discard: true, whole: ends}); !c.accepted() {
					b.Fatal(c)
				}
				best = min(best, time.Since(start))
			}
			b.ReportMetric(float64(len(bench.data))/1e6/best.Seconds(), "best-MB/s")
		})
	}
}
