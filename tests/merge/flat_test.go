package merge_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/tests/serializers/files/through"
)

// objects is a state as the service S3 has it: records of buckets and objects, by account and region.
func objects(rng *rand.Rand) (native []byte, values map[string]string) {
	values = map[string]string{}
	for _, p := range []string{"", "000000000000/us-east-1", "000000000000/eu-west-1", "111122223333/us-east-1"} {
		if rng.IntN(4) == 0 {
			continue
		}
		for i := range 30 {
			if rng.IntN(3) == 0 {
				continue
			}
			key := fmt.Sprintf("bucket-%d/folder/%d.txt", i%3, i)
			native = record.AppendText(record.AppendText(record.AppendRecord(native), p), key)
			value := strings.Repeat("v", rng.IntN(4))
			native = record.AppendText(native, value)
			values[p+"|"+key] = value
		}
	}
	return native, values
}

func TestRecords(t *testing.T) {
	m := through.New(t, "records", modules.Records())
	d := m.Descriptor()
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 3))
		a, before := objects(rng)
		b, after := objects(rng)
		live, in := state(t, m, a), state(t, m, b)
		properties(t, d, live, in)
		parts := map[string]bool{}
		named := false
		for key := range after {
			p, _, _ := strings.Cut(key, "|")
			parts[p] = true
			named = named || p != ""
		}
		for key := range before {
			named = named || key[0] != '|'
		}
		for _, s := range snapshot.Strategies() {
			want := map[string]string{}
			for key, value := range before {
				p, _, _ := strings.Cut(key, "|")
				if s == snapshot.ServiceMerge || s == snapshot.AccountRegionMerge && named && (p == "" || !parts[p]) {
					want[key] = value
				}
			}
			for key, value := range after {
				want[key] = value
			}
			merged, _ := merge(t, d, s, live, in)
			got, err := native(t, m, merged)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			r := through.Reader(got)
			for {
				b, err := r.ReadBatch()
				if err != nil {
					break
				}
				for i := range b.Refs {
					key, _ := b.Key(i)
					n++
					if value, ok := want[string(b.Partition(i))+"|"+string(key)]; !ok || value != string(record.NewPull(b.Value(i)).Text()) {
						t.Errorf("seed %d, %s: %s %s", seed, s, b.Partition(i), b.Record(i))
					}
				}
			}
			if n != len(want) {
				t.Errorf("seed %d, %s: %d records, want %d", seed, s, n, len(want))
			}
		}
	}
}

// TestPieces: a state that is one thing in pieces cannot be merged, and is refused as that; the default merge replaces it.
func TestPieces(t *testing.T) {
	m := through.New(t, "raw", modules.Raw())
	rng := rand.New(rand.NewPCG(1, 1))
	bytesOf := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	a := bytesOf(300_000)
	b := append(bytesOf(100_000), a[:200_000]...)
	live, in := state(t, m, a), state(t, m, b)
	properties(t, m.Descriptor(), live, in)
	merged, _ := merge(t, m.Descriptor(), snapshot.AccountRegionMerge, live, in)
	if got, err := native(t, m, merged); err != nil || !bytes.Equal(got, b) {
		t.Errorf("the default merge: %d bytes, %v", len(got), err)
	}
	merged, _ = merge(t, m.Descriptor(), snapshot.ServiceMerge, live, in)
	_, err := native(t, m, merged)
	if err == nil {
		t.Fatal("pieces of two states are taken for one")
	}
	err = &snapshot.RefusedError{Serializer: "raw", Strategy: snapshot.ServiceMerge, Err: err}
	if text := err.Error(); !errors.Is(err, abi.ErrCorrupt) || !strings.Contains(text, "serializer raw") || !strings.Contains(text, "strategy overwrite") {
		t.Errorf("%v", err)
	}
}
