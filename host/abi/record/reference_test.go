package record_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"

	"github.com/torpor-run/torpor/host/abi/record"
)

// wellformed asks fxamacker/cbor, with its own limits out of the way.
func wellformed(t testing.TB, item []byte) error {
	t.Helper()
	dm, err := lenient()
	if err != nil {
		t.Fatal(err)
	}
	return dm.Wellformed(item)
}

var lenient = sync.OnceValues(cbor.DecOptions{MaxNestedLevels: 65535, MaxArrayElements: math.MaxInt32, MaxMapPairs: math.MaxInt32}.DecMode)

// reference says whether data is records, as plainly as the rules of the package comment can be
// written down. maxBytes 0 means the default; tombstones says whether those
// count as records.
func reference(data []byte, maxBytes int, tombstones bool) error {
	if maxBytes == 0 {
		maxBytes = record.DefaultMaxBytes
	}
	for len(data) > 0 {
		rest, err := referenceRecord(data, tombstones)
		if err != nil {
			return err
		}
		if len(data)-len(rest) > maxBytes {
			return errors.New("too long a record")
		}
		data = rest
	}
	return nil
}

func referenceRecord(b []byte, tombstones bool) (rest []byte, err error) {
	major, n, b, err := referenceHead(b)
	gone := tombstones && n == 2
	if err != nil || major != 4 || n != 3 && !gone {
		return nil, fmt.Errorf("no array of three: %v", err)
	}
	for _, part := range []struct {
		name  string
		bytes bool
		max   uint64
	}{{"partition", false, record.MaxPartitionBytes}, {"key", true, record.MaxKeyBytes}} {
		if major, n, b, err = referenceHead(b); err != nil {
			return nil, err
		}
		if major != 3 && (major != 2 || !part.bytes) || n > part.max || n > uint64(len(b)) {
			return nil, errors.New("bad " + part.name)
		}
		if major == 3 && !utf8.Valid(b[:n]) {
			return nil, errors.New(part.name + " is not UTF-8")
		}
		b = b[n:]
	}
	if gone {
		return b, nil
	}
	return referenceItem(b, 0)
}

func referenceItem(b []byte, depth int) (rest []byte, err error) {
	major, n, b, err := referenceHead(b)
	if err != nil {
		return nil, err
	}
	items := n
	switch major {
	case 2, 3:
		if n > uint64(len(b)) {
			return nil, errors.New("short")
		}
		return b[n:], nil
	case 4:
	case 5:
		if n > uint64(len(b)) {
			return nil, errors.New("short")
		}
		items = 2 * n
	case 6:
		items = 1
	default:
		return b, nil
	}
	if depth == record.MaxDepth {
		return nil, errors.New("too deep")
	}
	for ; items > 0; items-- {
		if b, err = referenceItem(b, depth+1); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// referenceHead reads a head, or a whole item of major type 7.
func referenceHead(b []byte) (major byte, n uint64, rest []byte, err error) {
	if len(b) == 0 {
		return 0, 0, nil, errors.New("short")
	}
	major, info := b[0]>>5, b[0]&0x1f
	if info < 24 {
		return major, uint64(info), b[1:], nil
	}
	if info > 27 {
		return 0, 0, nil, errors.New("reserved or indefinite")
	}
	size := 1 << (info - 24)
	if len(b) < 1+size {
		return 0, 0, nil, errors.New("short")
	}
	var wide [8]byte
	copy(wide[8-size:], b[1:])
	n = binary.BigEndian.Uint64(wide[:])
	smallest := []uint64{24, 1 << 8, 1 << 16, 1 << 32}[info-24]
	if major == 7 {
		smallest = []uint64{32, 0, 0, 0}[info-24] // simple values; floats have their own widths
	}
	if n < smallest {
		return 0, 0, nil, errors.New("not the shortest form")
	}
	return major, n, b[1+size:], nil
}

// checkRefs holds what a scan of data found against cbor and against the rules for a Batch.
func checkRefs(t *testing.T, data []byte, refs []record.Ref, maxBytes int, tombstones bool) {
	t.Helper()
	b := record.Batch{Data: data, Refs: refs}
	at := 0
	for i, r := range refs {
		if r.Start != at || r.Partition != at+1 || r.Key <= r.Partition || r.Value <= r.Key || r.End < r.Value || r.End > len(data) {
			t.Fatalf("record %d: %+v after offset %d", i, r, at)
		}
		at = r.End
		if err := wellformed(t, b.Record(i)); err != nil {
			t.Fatalf("record %d: cbor refuses it: %v", i, err)
		}
		gone := data[r.Start] == 0x82
		if b.Tombstone(i) != gone || gone && !tombstones || gone != (len(b.Value(i)) == 0) {
			t.Fatalf("record %d begins with %#02x: Tombstone says %v, its value has %d bytes", i, data[r.Start], b.Tombstone(i), len(b.Value(i)))
		}
		s := record.Scanner{MaxBytes: maxBytes, Tombstones: tombstones}
		again, err := s.Scan(b.Record(i), nil)
		shifted := record.Ref{Partition: r.Partition - r.Start, Key: r.Key - r.Start, Value: r.Value - r.Start, End: r.End - r.Start}
		if err != nil || len(again) != 1 || again[0] != shifted {
			t.Fatalf("record %d scanned alone: %v, %v; want %+v", i, again, err, shifted)
		}
		if err := wellformed(t, b.Value(i)); err != nil && !gone {
			t.Fatalf("record %d: cbor refuses its value: %v", i, err)
		}
		var partition string
		if err := cbor.Unmarshal(data[r.Partition:r.Key], &partition); err != nil || partition != string(b.Partition(i)) {
			t.Fatalf("record %d: partition %q, cbor says %q, %v", i, b.Partition(i), partition, err)
		}
		key, text := b.Key(i)
		var want []byte
		if text {
			var s string
			err = cbor.Unmarshal(b.KeyItem(i), &s)
			want = []byte(s)
		} else {
			err = cbor.Unmarshal(b.KeyItem(i), &want)
		}
		if err != nil || !bytes.Equal(key, want) {
			t.Fatalf("record %d: key %q, cbor says %q, %v", i, key, want, err)
		}
	}
}
