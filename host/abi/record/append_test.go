package record_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/torpor-run/torpor/host/abi/record"
)

// boundaries are the numbers around which heads change their length.
var boundaries = []uint64{
	0, 1, 23, 24, 25, math.MaxUint8 - 1, math.MaxUint8, math.MaxUint8 + 1, math.MaxUint16 - 1, math.MaxUint16,
	math.MaxUint16 + 1, math.MaxUint32 - 1, math.MaxUint32, math.MaxUint32 + 1, math.MaxInt64 - 1, math.MaxInt64,
	math.MaxInt64 + 1, math.MaxUint64 - 1, math.MaxUint64,
}

// oracle encodes v with fxamacker/cbor: its default options are the shortest form and definite lengths.
func oracle(t testing.TB, v any) []byte {
	t.Helper()
	b, err := cbor.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// wantAppended holds got, which a call appended to "..", against the oracle's encoding.
func wantAppended(t *testing.T, what string, v any, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, append([]byte(".."), want...)) {
		t.Errorf("%s(%v): % x, want % x", what, v, got, want)
	}
}

func dots() []byte { return []byte("..") }

func TestAppendIntegers(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	numbers := append([]uint64(nil), boundaries...)
	for range 1000 {
		numbers = append(numbers, r.Uint64()>>r.UintN(64))
	}
	for _, v := range numbers {
		wantAppended(t, "AppendUint", v, record.AppendUint(dots(), v), oracle(t, v))
		i := int64(v)
		wantAppended(t, "AppendInt", i, record.AppendInt(dots(), i), oracle(t, i))
		wantAppended(t, "AppendInt", -i, record.AppendInt(dots(), -i), oracle(t, -i))
	}
}

func TestAppendStrings(t *testing.T) {
	for _, n := range []int{0, 1, 23, 24, 255, 256, 65535, 65536} {
		s := bytes.Repeat([]byte("é"), n/2+1)[:n&^1]
		wantAppended(t, "AppendText", n, record.AppendText(dots(), string(s)), oracle(t, string(s)))
		wantAppended(t, "AppendText", n, record.AppendText(dots(), s), oracle(t, string(s)))
		b := bytes.Repeat([]byte{0xff}, n)
		wantAppended(t, "AppendBytes", n, record.AppendBytes(dots(), b), oracle(t, b))
		wantAppended(t, "AppendBytes", n, record.AppendBytes(dots(), string(b)), oracle(t, b))
		wantAppended(t, "AppendTextHead", n, append(record.AppendTextHead(dots(), len(s)), s...), oracle(t, string(s)))
		wantAppended(t, "AppendBytesHead", n, append(record.AppendBytesHead(dots(), n), b...), oracle(t, b))
	}
}

func TestAppendCollections(t *testing.T) {
	for _, n := range []int{0, 1, 23, 24, 255, 256, 70_000} {
		want := oracle(t, make([]bool, n))
		got := record.AppendArray(dots(), n)
		for range n {
			got = record.AppendBool(got, false)
		}
		wantAppended(t, "AppendArray", n, got, want)

		m := map[int]bool{}
		for i := range n {
			m[i] = true
		}
		em, err := cbor.CoreDetEncOptions().EncMode()
		if err != nil {
			t.Fatal(err)
		}
		if want, err = em.Marshal(m); err != nil {
			t.Fatal(err)
		}
		got = record.AppendMap(dots(), n)
		for i := range n {
			got = record.AppendBool(record.AppendInt(got, int64(i)), true)
		}
		wantAppended(t, "AppendMap", n, got, want)
	}
	for _, v := range boundaries {
		wantAppended(t, "AppendTag", v, record.AppendUint(record.AppendTag(dots(), v), 1), oracle(t, cbor.Tag{Number: v, Content: 1}))
	}
	wantAppended(t, "AppendNull", nil, record.AppendNull(dots()), oracle(t, nil))
	wantAppended(t, "AppendBool", true, record.AppendBool(dots(), true), oracle(t, true))
}

func TestAppendFloat(t *testing.T) {
	em, err := cbor.EncOptions{ShortestFloat: cbor.ShortestFloatNone, InfConvert: cbor.InfConvertNone}.EncMode()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []float64{0, math.Copysign(0, -1), 1, -1.5, math.MaxFloat64, math.SmallestNonzeroFloat64, math.Inf(1), math.Inf(-1), math.Pi} {
		want, err := em.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		wantAppended(t, "AppendFloat", v, record.AppendFloat(dots(), v), want)
	}
	nan := uint64(0x7ff4_0000_0000_0001) // its bits are kept
	wantAppended(t, "AppendFloat", "NaN", record.AppendFloat(dots(), math.Float64frombits(nan)), binary.BigEndian.AppendUint64([]byte{0xfb}, nan))
}

func TestAppendRecord(t *testing.T) {
	got := record.AppendRecord(dots())
	got = record.AppendText(got, "p")
	got = record.AppendBytes(got, []byte{1, 2})
	got = record.AppendArray(got, 0)
	wantAppended(t, "AppendRecord", "", got, oracle(t, []any{"p", []byte{1, 2}, []any{}}))
}

func TestAppendTombstone(t *testing.T) {
	got := record.AppendTombstone(dots())
	got = record.AppendText(got, "p")
	got = record.AppendBytes(got, []byte{1, 2})
	wantAppended(t, "AppendTombstone", "", got, oracle(t, []any{"p", []byte{1, 2}}))
}
