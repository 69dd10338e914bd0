package raw_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/fxamacker/cbor/v2"

	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/tests/serializers/files/through"
)

func noise(n int, seed uint64) []byte {
	var key [32]byte
	key[0] = byte(seed)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}

// pieces cuts as README.md says, in Go.
func pieces(data []byte) [][]byte {
	const least, average, most = 4 << 10, 16 << 10, 64 << 10
	var all [][]byte
	for len(data) > 0 {
		end := min(len(data), most)
		n := min(end, least)
		for ; n < end; n++ {
			bits := 16
			if n >= average {
				bits = 12
			}
			near := binary.LittleEndian.Uint64(data[n-7:])
			if (near^0x165667b19e3779f9)*0x9e3779b185ebca87>>(64-bits) == 0 {
				n++
				break
			}
		}
		all = append(all, data[:n])
		data = data[n:]
	}
	return all
}

// TestPieces: the records are those that README.md describes, made here in Go from the description.
func TestPieces(t *testing.T) {
	m := through.New(t, "raw", modules.Raw())
	for name, data := range map[string][]byte{
		"nothing": nil,
		"a byte":  {7},
		"noise":   noise(1<<20, 1),
		"zeros":   make([]byte, 300_000),
		"twice":   bytes.Repeat(noise(200_000, 2), 2),
		"text":    bytes.Repeat([]byte("a line of a log, number and all\n"), 20_000),
	} {
		t.Run(name, func(t *testing.T) {
			records := m.RoundTrip(t, data)
			count := map[uint64]int{}
			var want []string
			for _, p := range pieces(data) {
				h := xxhash.Sum64(p)
				key := fmt.Sprintf("%016x", h)
				if n := count[h%32768]; n > 0 {
					key += fmt.Sprint(".", n)
				}
				count[h%32768]++
				want = append(want, string(record.AppendBytes(record.AppendText(record.AppendText(record.AppendRecord(nil), ""), key), p)))
			}
			if len(records) != len(want)+1 {
				t.Fatalf("%d records, want %d", len(records), len(want)+1)
			}
			for i := range want {
				if string(records[i]) != want[i] {
					t.Fatalf("record %d is %.60x…, want %.60x…", i, records[i], want[i])
				}
			}
			var last []any
			if err := cbor.Unmarshal(records[len(want)], &last); err != nil || last[1] != "end" {
				t.Errorf("the last record is %v (%v)", last, err)
			}
		})
	}
}

// TestChanges: bytes that come, go or change in one place change a few records.
func TestChanges(t *testing.T) {
	m := through.New(t, "raw", modules.Raw())
	data := noise(20<<20, 3)
	before := m.RoundTrip(t, data)
	for name, now := range map[string][]byte{
		"insert":   bytes.Join([][]byte{data[:5_000_000], []byte("ten bytes!"), data[5_000_000:]}, nil),
		"remove":   bytes.Join([][]byte{data[:5_000_000], data[5_000_100:]}, nil),
		"in front": append([]byte("x"), data...),
		"append":   append(bytes.Clone(data), 'x'),
	} {
		if n := through.Changed(before, m.RoundTrip(t, now)); n == 0 || n > 5 || len(before) < 800 {
			t.Errorf("%s: %d records of %d have changed", name, n, len(before))
		}
	}
}

func TestInspect(t *testing.T) {
	m := through.New(t, "raw", modules.Raw())
	records := m.RoundTrip(t, noise(1<<20, 4))
	var s struct {
		Pieces, Records int
		StateBytes      int `cbor:"state_bytes"`
		Kinds           map[string]struct{ Count, Bytes int }
	}
	if err := cbor.Unmarshal(m.Summary(t, records), &s); err != nil {
		t.Fatal(err)
	}
	count, size := 0, 0
	for kind, k := range s.Kinds {
		if !strings.HasPrefix(kind, "piece ") {
			t.Error(kind)
		}
		count, size = count+k.Count, size+k.Bytes
	}
	if s.Pieces != len(records)-1 || s.Records != len(records) || s.StateBytes != 1<<20 || count != s.Pieces || size != s.StateBytes {
		t.Errorf("%+v of %d records", s, len(records))
	}
}

// TestDamagedRecords: records of a state in another order, some missing or some changed, are refused.
func TestDamagedRecords(t *testing.T) {
	m := through.New(t, "raw", modules.Raw())
	records := m.RoundTrip(t, noise(300_000, 5))
	r := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		now := append([][]byte(nil), records...)
		i, j := r.IntN(len(now)), r.IntN(len(now))
		switch r.IntN(4) {
		case 0:
			if i == j {
				continue
			}
			now[i], now[j] = now[j], now[i]
		case 1:
			now = append(now[:i], now[i+1:]...)
		case 2:
			now = append(now, now[i])
		case 3:
			now[i] = bytes.Clone(now[i])
			now[i][len(now[i])-1-r.IntN(8)] ^= byte(1 + r.IntN(255))
		}
		if _, err := m.Native(t, now); err == nil {
			t.Fatal("records that are no state are loaded")
		}
	}
}

func TestConformance(t *testing.T) {
	through.Conforms(t, "raw", modules.Raw(), "../../../modules/raw/fixtures")
}

// TestUnit runs the unit tests of the module.
func TestUnit(t *testing.T) { through.Unit(t, "raw") }

func FuzzNative(f *testing.F) {
	m := through.New(f, "raw", modules.Raw())
	for _, n := range []int{0, 1, 100, 5000, 70_000} {
		f.Add(noise(n, 1))
	}
	f.Fuzz(func(t *testing.T, native []byte) { m.Sane(t, native) })
}

func Benchmark(b *testing.B) {
	m := through.New(b, "raw", modules.Raw())
	data := noise(64<<20, 6)
	records := m.RoundTrip(b, data)
	all := bytes.Join(records, nil)
	b.Run("save", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			if err := m.Save(b.Context(), m.Call(), bytes.NewReader(data), &through.Discard{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("load", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			if err := m.Load(b.Context(), m.Call(), through.Reader(all), &through.Bytes{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("cut and hash in Go", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			var sum uint64
			for _, p := range pieces(data) {
				sum += xxhash.Sum64(p)
			}
			if sum == 0 {
				b.Fatal("no pieces")
			}
		}
	})
}
