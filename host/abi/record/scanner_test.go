package record_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// unhex reads hex digits with spaces between them.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// withValue is a record of partition "p" and key "k" with the given encoded value.
func withValue(value ...byte) []byte {
	return append([]byte{0x83, 0x61, 'p', 0x61, 'k'}, value...)
}

// valueAt is where a value of withValue begins.
const valueAt = 5

// zeros is a byte string of n zeros.
func zeros(n int) []byte { return append(record.AppendBytesHead(nil, n), make([]byte, n)...) }

// nested is n arrays of one element around inner.
func nested(n int, inner ...byte) []byte {
	return append(bytes.Repeat([]byte{0x81}, n), inner...)
}

func TestScannerAccepts(t *testing.T) {
	values := map[string][]byte{
		"uint in the head":           unhex(t, "17"),
		"uint of 1 byte":             unhex(t, "18 18"),
		"uint of 1 byte, largest":    unhex(t, "18 ff"),
		"uint of 2 bytes, smallest":  unhex(t, "19 0100"),
		"uint of 2 bytes, largest":   unhex(t, "19 ffff"),
		"uint of 4 bytes, smallest":  unhex(t, "1a 00010000"),
		"uint of 8 bytes, smallest":  unhex(t, "1b 0000000100000000"),
		"uint of 8 bytes, largest":   unhex(t, "1b ffffffffffffffff"),
		"negative in the head":       unhex(t, "37"),
		"negative of 1 byte":         unhex(t, "38 18"),
		"negative of 8 bytes":        unhex(t, "3b ffffffffffffffff"),
		"empty bytes":                unhex(t, "40"),
		"23 bytes":                   zeros(23),
		"24 bytes":                   zeros(24),
		"255 bytes":                  zeros(255),
		"256 bytes":                  zeros(256),
		"65536 bytes":                zeros(65536),
		"text":                       unhex(t, "62 c3a9"),
		"text in a value, not UTF-8": unhex(t, "61 ff"),
		"empty array":                unhex(t, "80"),
		"array":                      unhex(t, "83 01 02 03"),
		"array of 24":                append(unhex(t, "98 18"), make([]byte, 24)...),
		"empty map":                  unhex(t, "a0"),
		"map":                        unhex(t, "a2 01 02 61 61 80"),
		"map with a map as key":      unhex(t, "a1 a1 01 02 03"),
		"tag in the head":            unhex(t, "c1 00"),
		"tag of 1 byte":              unhex(t, "d8 1c 80"),
		"tag of 2 bytes":             unhex(t, "d9 d9f7 80"),
		"tag of 8 bytes":             unhex(t, "db ffffffffffffffff f6"),
		"tags on a tag":              unhex(t, "c1 c2 c3 40"),
		"false, true, null":          unhex(t, "83 f4 f5 f6"),
		"undefined":                  unhex(t, "f7"),
		"unassigned simple values":   unhex(t, "82 e0 f3"),
		"simple value 32":            unhex(t, "f8 20"),
		"simple value 255":           unhex(t, "f8 ff"),
		"half float":                 unhex(t, "f9 3c00"),
		"single float":               unhex(t, "fa 47c35000"),
		"double float":               unhex(t, "fb 3ff199999999999a"),
		"NaN with a payload":         unhex(t, "f9 7e01"),
		"64 arrays":                  nested(64, 0x00),
		"64 arrays, the last empty":  nested(63, 0x80),
		"64 tags":                    append(bytes.Repeat([]byte{0xc1}, 64), 0x00),
		"64 maps":                    append(bytes.Repeat(unhex(t, "a1 00"), 64), 0x00),
		"deep, then shallow again":   append(append([]byte{0x82}, nested(63, 0x00)...), nested(63, 0x00)...),
	}
	for name, value := range values {
		t.Run(name, func(t *testing.T) {
			data := withValue(value...)
			if err := reference(data, 0, false); err != nil {
				t.Fatalf("the reference refuses it: %v", err)
			}
			if err := wellformed(t, data); err != nil {
				t.Fatalf("cbor refuses it: %v", err)
			}
			var s record.Scanner
			refs, err := s.Scan(data, nil)
			if err != nil {
				t.Fatal(err)
			}
			want := record.Ref{Start: 0, Partition: 1, Key: 3, Value: valueAt, End: len(data)}
			if len(refs) != 1 || refs[0] != want {
				t.Fatalf("refs %+v, want %+v", refs, want)
			}
			refs, err = s.Scan(append(data, withValue(zeros(100)...)...), nil) // so that the kernels read it
			if err != nil || len(refs) != 2 || refs[0] != want {
				t.Fatalf("with another record behind it: refs %+v, %v; want %+v", refs, err, want)
			}
		})
	}
}

func TestScannerKeysAndPartitions(t *testing.T) {
	for _, c := range []struct {
		name, hex, partition, key string
		text                      bool
	}{
		{"all empty", "83 60 60 f6", "", "", true},
		{"empty byte key", "83 60 40 f6", "", "", false},
		{"text key", "83 61 70 61 6b 00", "p", "k", true},
		{"byte key", "83 61 70 43 00ff80 00", "p", "\x00\xff\x80", false},
		{"UTF-8", "83 62 c3a9 64 f09f98b4 00", "é", "😴", true},
		{"NUL", "83 61 00 61 00 00", "\x00", "\x00", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := unhex(t, c.hex)
			var s record.Scanner
			refs, err := s.Scan(data, nil)
			if err != nil {
				t.Fatal(err)
			}
			b := record.Batch{Data: data, Refs: refs}
			if b.Len() != 1 {
				t.Fatalf("%d records", b.Len())
			}
			key, text := b.Key(0)
			if string(b.Partition(0)) != c.partition || string(key) != c.key || text != c.text {
				t.Errorf("partition %q, key %q, text %v; want %q, %q, %v", b.Partition(0), key, text, c.partition, c.key, c.text)
			}
		})
	}
	// Every length of head a partition and a key can have, up to their limits.
	for _, n := range []int{0, 23, 24, 255, 256, record.MaxPartitionBytes, 65535, record.MaxKeyBytes} {
		for _, text := range []bool{true, false} {
			p := strings.Repeat("p", min(n, record.MaxPartitionBytes))
			k := strings.Repeat("k", n)
			data := record.AppendText(record.AppendRecord(nil), p)
			if text {
				data = record.AppendText(data, k)
			} else {
				data = record.AppendBytes(data, k)
			}
			data = record.AppendNull(data)
			var s record.Scanner
			refs, err := s.Scan(data, nil)
			if err != nil {
				t.Fatalf("key of %d bytes: %v", n, err)
			}
			b := record.Batch{Data: data, Refs: refs}
			key, isText := b.Key(0)
			if string(b.Partition(0)) != p || string(key) != k || isText != text {
				t.Errorf("partition of %d and key of %d bytes come back as %d and %d, text %v", len(p), n, len(b.Partition(0)), len(key), isText)
			}
			if got := b.KeyItem(0); !bytes.HasSuffix(got, []byte(k)) || len(got) != refs[0].Value-refs[0].Key {
				t.Errorf("KeyItem of a key of %d bytes has %d", n, len(got))
			}
			if !bytes.Equal(b.Value(0), []byte{0xf6}) {
				t.Errorf("value % x", b.Value(0))
			}
		}
	}
}

func TestScannerRefuses(t *testing.T) {
	text := func(n int) []byte { return record.AppendText(nil, strings.Repeat("x", n)) }
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for _, c := range []struct {
		name   string
		data   []byte
		at     int
		err    error
		reason string
	}{
		{"no array", unhex(t, "00"), 0, abi.ErrCorrupt, "array of three"},
		{"array of two", unhex(t, "82 60 60"), 0, abi.ErrCorrupt, "array of three"},
		{"array of four", unhex(t, "84 60 60 00 00"), 0, abi.ErrCorrupt, "array of three"},
		{"array of three in a long head", unhex(t, "98 03 60 60 00"), 0, abi.ErrCorrupt, "array of three"},
		{"indefinite array", unhex(t, "9f 60 60 00 ff"), 0, abi.ErrCorrupt, "array of three"},
		{"map", unhex(t, "a3 60 60 00 00 00 00"), 0, abi.ErrCorrupt, "array of three"},
		{"self-described CBOR", unhex(t, "d9d9f7 83 60 60 00"), 0, abi.ErrCorrupt, "array of three"},
		{"second record bad", unhex(t, "83 60 60 00  84"), 4, abi.ErrCorrupt, "array of three"},

		{"partition is a number", unhex(t, "83 01 60 00"), 1, abi.ErrCorrupt, "partition must be a text string"},
		{"partition is bytes", unhex(t, "83 40 60 00"), 1, abi.ErrCorrupt, "partition must be a text string"},
		{"partition is null", unhex(t, "83 f6 60 00"), 1, abi.ErrCorrupt, "partition must be a text string"},
		{"partition indefinite", unhex(t, "83 7f 61 61 ff 60 00"), 1, abi.ErrCorrupt, "indefinite"},
		{"partition not UTF-8", unhex(t, "83 62 61ff 60 00"), 2, abi.ErrCorrupt, "not UTF-8"},
		{"partition a lone surrogate", unhex(t, "83 63 eda080 60 00"), 2, abi.ErrCorrupt, "not UTF-8"},
		{"partition with a long head", unhex(t, "83 78 01 61 60 00"), 1, abi.ErrCorrupt, "shortest"},
		{"partition over its limit", join(unhex(t, "83"), text(record.MaxPartitionBytes+1), unhex(t, "60 00")), 1, abi.ErrTooLarge, "partition is 4097 bytes"},
		{"partition of 2^64-1", unhex(t, "83 7b ffffffffffffffff"), 1, abi.ErrTooLarge, "partition"},

		{"key is a number", unhex(t, "83 60 01 00"), 2, abi.ErrCorrupt, "key must be a text or byte string"},
		{"key is an array", unhex(t, "83 60 80 00"), 2, abi.ErrCorrupt, "key must be a text or byte string"},
		{"key tagged", unhex(t, "83 60 c1 60 00"), 2, abi.ErrCorrupt, "key must be a text or byte string"},
		{"key indefinite", unhex(t, "83 60 5f 41 61 ff 00"), 2, abi.ErrCorrupt, "indefinite"},
		{"key not UTF-8", unhex(t, "83 60 61 80 00"), 3, abi.ErrCorrupt, "not UTF-8"},
		{"key with a long head", unhex(t, "83 60 59 0001 61 00"), 2, abi.ErrCorrupt, "shortest"},
		{"text key over its limit", join(unhex(t, "83 60"), text(record.MaxKeyBytes+1), unhex(t, "00")), 2, abi.ErrTooLarge, "key is 65537 bytes"},
		{"byte key over its limit", join(unhex(t, "83 60"), zeros(record.MaxKeyBytes+1), unhex(t, "00")), 2, abi.ErrTooLarge, "key is 65537 bytes"},

		{"uint, 1 byte too many", withValue(0x18, 0x17), valueAt, abi.ErrCorrupt, "shortest"},
		{"uint, 2 bytes too many", withValue(0x19, 0x00, 0xff), valueAt, abi.ErrCorrupt, "shortest"},
		{"uint, 4 bytes too many", withValue(unhex(t, "1a 0000ffff")...), valueAt, abi.ErrCorrupt, "shortest"},
		{"uint, 8 bytes too many", withValue(unhex(t, "1b 00000000ffffffff")...), valueAt, abi.ErrCorrupt, "shortest"},
		{"negative in a long head", withValue(0x38, 0x00), valueAt, abi.ErrCorrupt, "shortest"},
		{"bytes in a long head", withValue(0x58, 0x01, 0x00), valueAt, abi.ErrCorrupt, "shortest"},
		{"array in a long head", withValue(0x98, 0x01, 0x00), valueAt, abi.ErrCorrupt, "shortest"},
		{"map in a long head", withValue(0xb8, 0x01, 0x00, 0x00), valueAt, abi.ErrCorrupt, "shortest"},
		{"tag in a long head", withValue(0xd8, 0x01, 0x00), valueAt, abi.ErrCorrupt, "shortest"},
		{"shortest, further inside", withValue(0x82, 0x00, 0x18, 0x17), valueAt + 2, abi.ErrCorrupt, "shortest"},

		{"reserved 28", withValue(0x1c), valueAt, abi.ErrCorrupt, "begins no CBOR item"},
		{"reserved 29", withValue(0x5d), valueAt, abi.ErrCorrupt, "begins no CBOR item"},
		{"reserved 30", withValue(0xde), valueAt, abi.ErrCorrupt, "begins no CBOR item"},
		{"reserved 28 of major 7", withValue(0xfc), valueAt, abi.ErrCorrupt, "begins no CBOR item"},
		{"indefinite uint", withValue(0x1f), valueAt, abi.ErrCorrupt, "indefinite"},
		{"indefinite bytes", withValue(0x5f, 0xff), valueAt, abi.ErrCorrupt, "indefinite"},
		{"indefinite text", withValue(0x7f, 0xff), valueAt, abi.ErrCorrupt, "indefinite"},
		{"indefinite array", withValue(0x9f, 0xff), valueAt, abi.ErrCorrupt, "indefinite"},
		{"indefinite map", withValue(0xbf, 0xff), valueAt, abi.ErrCorrupt, "indefinite"},
		{"break", withValue(0xff), valueAt, abi.ErrCorrupt, "break"},
		{"break inside an array", withValue(0x81, 0xff), valueAt + 1, abi.ErrCorrupt, "break"},
		{"simple value 31 in two bytes", withValue(0xf8, 0x1f), valueAt, abi.ErrCorrupt, "simple value"},
		{"true in two bytes", withValue(0xf8, 0x15), valueAt, abi.ErrCorrupt, "simple value"},

		{"65 arrays", withValue(nested(65, 0x00)...), valueAt + 64, abi.ErrTooLarge, "deeper than 64"},
		{"65 arrays, the last empty", withValue(nested(64, 0x80)...), valueAt + 64, abi.ErrTooLarge, "deeper than 64"},
		{"65 tags", withValue(append(bytes.Repeat([]byte{0xc1}, 65), 0)...), valueAt + 64, abi.ErrTooLarge, "deeper than 64"},
		{"65 maps", withValue(append(bytes.Repeat(unhex(t, "a1 00"), 65), 0)...), valueAt + 128, abi.ErrTooLarge, "deeper than 64"},
		{"a million arrays", withValue(nested(1_000_000, 0x00)...), valueAt + 64, abi.ErrTooLarge, "deeper than 64"},

		{"bytes of 2^64-1", withValue(unhex(t, "5b ffffffffffffffff")...), valueAt, abi.ErrTooLarge, "string of 18446744073709551615 bytes"},
		{"array of 2^64-1", withValue(unhex(t, "9b ffffffffffffffff")...), valueAt, abi.ErrTooLarge, "collection of 18446744073709551615 items"},
		{"map of 2^63", withValue(unhex(t, "bb 8000000000000000")...), valueAt, abi.ErrTooLarge, "collection of 9223372036854775808 items"},
		{"bytes over every limit", withValue(unhex(t, "5a 40000001")...), valueAt, abi.ErrTooLarge, "string of 1073741825 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			// The same fault after a sound record, so that offsets do not count from the bad one.
			for _, before := range [][]byte{nil, withValue(0x00)} {
				data := append(bytes.Clone(before), c.data...)
				if reference(data, 0, false) == nil {
					t.Fatal("the reference accepts it")
				}
				var s record.Scanner
				_, err := s.Scan(data, nil)
				wantFormatError(t, err, c.err, len(before)+c.at, c.reason)
			}
		})
	}
}

// wantFormatError holds err against what a *record.FormatError must say.
func wantFormatError(t *testing.T, err, sentinel error, at int, reason string) {
	t.Helper()
	var fe *record.FormatError
	if !errors.As(err, &fe) {
		t.Fatalf("error %v (%T), want a *FormatError", err, err)
	}
	other := abi.ErrTooLarge
	if sentinel == abi.ErrTooLarge {
		other = abi.ErrCorrupt
	}
	if !errors.Is(err, sentinel) || errors.Is(err, other) {
		t.Errorf("%v wraps %v, want %v", err, fe.Err, sentinel)
	}
	if fe.Offset != at {
		t.Errorf("%v: offset %d, want %d", err, fe.Offset, at)
	}
	if !strings.Contains(fe.Reason, reason) {
		t.Errorf("reason %q, want %q in it", fe.Reason, reason)
	}
	if want := fmt.Sprintf("%v record at offset %d: %s", sentinel, fe.Offset, fe.Reason); err.Error() != want {
		t.Errorf("message %q, want %q", err, want)
	}
}

func TestScannerRecordLimit(t *testing.T) {
	const head = 3 + 3 // of withValue with zeros of 256 to 65535 bytes
	sized := func(n int) []byte { return withValue(zeros(n - head - 2)...) }
	for _, c := range []struct {
		name     string
		max, len int
		ok       bool
	}{
		{"at the limit", 2000, 2000, true},
		{"one over", 2000, 2001, false},
		{"below the smallest limit", 10, record.MinMaxBytes, true},
		{"over the smallest limit", 10, record.MinMaxBytes + 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := record.Scanner{MaxBytes: c.max}
			data := sized(c.len)
			if len(data) != c.len {
				t.Fatalf("the test's record has %d bytes, not %d", len(data), c.len)
			}
			refs, err := s.Scan(append(withValue(0), data...), nil)
			if c.ok {
				if err != nil || len(refs) != 2 {
					t.Fatal(len(refs), err)
				}
				return
			}
			wantFormatError(t, err, abi.ErrTooLarge, valueAt+1, "limit")
			if len(refs) != 1 {
				t.Errorf("%d records before the fault, want 1", len(refs))
			}
		})
	}
	t.Run("default", func(t *testing.T) {
		var s record.Scanner
		data := withValue(record.AppendBytesHead(nil, record.DefaultMaxBytes-10)...)
		data = append(data, make([]byte, record.DefaultMaxBytes-10)...) // exactly the limit
		if len(data) != record.DefaultMaxBytes {
			t.Fatalf("the test's record has %d bytes", len(data))
		}
		if _, err := s.Scan(data, nil); err != nil {
			t.Error(err)
		}
		data = withValue(record.AppendBytesHead(nil, record.DefaultMaxBytes-9)...)
		data = append(data, make([]byte, record.DefaultMaxBytes-9)...)
		_, err := s.Scan(data, nil)
		wantFormatError(t, err, abi.ErrTooLarge, 0, "67108865 bytes; the limit is 67108864")
	})
	t.Run("a prefix over the limit", func(t *testing.T) {
		s := record.Scanner{MaxBytes: 2000}
		data := sized(5000)[:2001]
		_, n, err := s.ScanPrefix(data, nil)
		if n != 0 {
			t.Errorf("%d bytes taken", n)
		}
		wantFormatError(t, err, abi.ErrTooLarge, 0, "longer than the limit of 2000 bytes")
		if _, _, err := s.ScanPrefix(data[:2000], nil); err != nil {
			t.Errorf("what may still become a record of 2000 bytes is refused: %v", err)
		}
	})
}

// sample is some records of every kind of item.
func sample(t testing.TB) (data []byte, ends []int) {
	t.Helper()
	for _, r := range [][]byte{
		unhex(t, "83 60 60 f6"),
		unhex(t, "83 75 3030303030303030303030302f65752d776573742d 61 6b a2 61 61 82 01 38 18 61 62 f5"),
		append(unhex(t, "83 61 70 43 00ff80"), zeros(300)...),
		withValue(unhex(t, "d9 d9f7 84 f9 3c00 fa 47c35000 fb 3ff199999999999a f8 ff")...),
		withValue(unhex(t, "85 19 0100 1a 00010000 1b 0000000100000000 3b ffffffffffffffff 78 18 787878787878787878787878787878787878787878787878")...),
		withValue(nested(64, 0x0a)...),
	} {
		data = append(data, r...)
		ends = append(ends, len(data))
	}
	return data, ends
}

func TestScannerTruncated(t *testing.T) {
	data, ends := sample(t)
	var s record.Scanner
	all, err := s.Scan(data, nil)
	if err != nil || len(all) != len(ends) {
		t.Fatal(len(all), err)
	}
	for n := range len(data) + 1 {
		whole := 0
		for whole < len(ends) && ends[whole] <= n {
			whole++
		}
		start := 0
		if whole > 0 {
			start = ends[whole-1]
		}
		refs, end, err := s.ScanPrefix(data[:n], nil)
		if err != nil || end != start || len(refs) != whole {
			t.Fatalf("first %d bytes: %d records in %d bytes, %v; want %d in %d", n, len(refs), end, err, whole, start)
		}
		refs, err = s.Scan(data[:n], nil)
		if n == start {
			if err != nil || len(refs) != whole {
				t.Fatalf("first %d bytes are %d whole records, yet: %d, %v", n, whole, len(refs), err)
			}
			continue
		}
		wantFormatError(t, err, abi.ErrCorrupt, n, fmt.Sprintf("ends inside the record that begins at offset %d", start))
		if len(refs) != whole {
			t.Fatalf("first %d bytes: %d records before the fault, want %d", n, len(refs), whole)
		}
	}
}

// Every value of every byte of the sample: accepted where the reference accepts it, and nowhere else.
func TestScannerDamaged(t *testing.T) {
	data, _ := sample(t)
	var s record.Scanner
	for i := range data {
		was := data[i]
		for v := range 256 {
			data[i] = byte(v)
			want := reference(data, 0, false)
			_, err := s.Scan(data, nil)
			if (want == nil) != (err == nil) {
				t.Fatalf("byte %d as %#02x: reference says %v, scanner %v", i, v, want, err)
			}
		}
		data[i] = was
	}
}

// tombstone is one of partition "p" and key "k".
func tombstone() []byte { return []byte{0x82, 0x61, 'p', 0x61, 'k'} }

func TestScannerTombstones(t *testing.T) {
	data := append(tombstone(), withValue(0x80)...)
	data = append(data, unhex(t, "82 60 43 00ff80")...)
	data = append(data, tombstone()...)
	s := record.Scanner{Tombstones: true}
	refs, err := s.Scan(data, nil)
	if err != nil || len(refs) != 4 {
		t.Fatal(refs, err)
	}
	b := record.Batch{Data: data, Refs: refs}
	checkRefs(t, data, refs, 0, true)
	for i, want := range []bool{true, false, true, true} {
		if b.Tombstone(i) != want || (len(b.Value(i)) == 0) != want {
			t.Errorf("record %d: tombstone %v, value % x", i, b.Tombstone(i), b.Value(i))
		}
	}
	if key, text := b.Key(2); string(key) != "\x00\xff\x80" || text || len(b.Partition(2)) != 0 {
		t.Errorf("key % x, text %v, partition %q", key, text, b.Partition(2))
	}
	if key, text := b.Key(3); string(key) != "k" || !text || string(b.Partition(3)) != "p" || !bytes.Equal(b.Record(3), tombstone()) {
		t.Errorf("key %q, text %v, partition %q, whole % x", key, text, b.Partition(3), b.Record(3))
	}
	if c := b.Clone(); !c.Tombstone(0) || c.Tombstone(1) {
		t.Error("the clone has other tombstones")
	}
	if allocs := testing.AllocsPerRun(100, func() { refs, _ = s.Scan(data, refs[:0]) }); allocs > 0 {
		t.Errorf("%v allocations in a scan with room for its refs", allocs)
	}
	// Whoever has not asked for them meets none.
	var plain record.Scanner
	none, err := plain.Scan(data, nil)
	if len(none) > 0 {
		t.Errorf("a scanner that was not asked for tombstones takes %d", len(none))
	}
	wantFormatError(t, err, abi.ErrCorrupt, 0, "array of three")
	if _, n, err := drain(t, record.NewReader(bytes.NewReader(data), 0)); n > 0 || !errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("a reader takes %d, %v", n, err)
	}
}

func TestScannerRefusesTombstones(t *testing.T) {
	long := func(n int) []byte { return append([]byte{0x82, 0x60}, zeros(n)...) }
	for _, c := range []struct {
		name   string
		data   []byte
		at     int
		err    error
		reason string
	}{
		{"with a value", append(tombstone(), 0xf6), 5, abi.ErrCorrupt, "array of three"},
		{"without a key", unhex(t, "82 61 70"), 3, abi.ErrCorrupt, "ends inside the record"},
		{"an array of one", unhex(t, "81 60"), 0, abi.ErrCorrupt, "array of three"},
		{"in a long head", unhex(t, "98 02 60 60"), 0, abi.ErrCorrupt, "array of three"},
		{"a map of one", unhex(t, "a1 60 60"), 0, abi.ErrCorrupt, "array of three"},
		{"a text of two", unhex(t, "62 60 60"), 0, abi.ErrCorrupt, "array of three"},
		{"its partition bytes", unhex(t, "82 40 60"), 1, abi.ErrCorrupt, "partition must be a text string"},
		{"its partition not UTF-8", unhex(t, "82 61 ff 60"), 2, abi.ErrCorrupt, "not UTF-8"},
		{"its key a number", unhex(t, "82 60 01"), 2, abi.ErrCorrupt, "key must be a text or byte string"},
		{"its key not UTF-8", unhex(t, "82 60 61 ff"), 3, abi.ErrCorrupt, "not UTF-8"},
		{"its key indefinite", unhex(t, "82 60 5f 41 61 ff"), 2, abi.ErrCorrupt, "indefinite"},
		{"its key over its limit", long(record.MaxKeyBytes + 1), 2, abi.ErrTooLarge, "key is 65537 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, before := range [][]byte{nil, withValue(0x00), tombstone()} {
				data := append(bytes.Clone(before), c.data...)
				if reference(data, 0, true) == nil {
					t.Fatal("the reference accepts it")
				}
				s := record.Scanner{Tombstones: true}
				_, err := s.Scan(data, nil)
				wantFormatError(t, err, c.err, len(before)+c.at, c.reason)
			}
		})
	}
	// The limit on a record is one on tombstones, too.
	for n, ok := range map[int]bool{record.MinMaxBytes: true, record.MinMaxBytes + 1: false} {
		data := long(n - 5)
		if len(data) != n {
			t.Fatalf("the test's tombstone has %d bytes, not %d", len(data), n)
		}
		s := record.Scanner{Tombstones: true, MaxBytes: 1}
		_, err := s.Scan(data, nil)
		if ok && err != nil {
			t.Errorf("%d bytes: %v", n, err)
		} else if !ok {
			wantFormatError(t, err, abi.ErrTooLarge, 0, "1025 bytes; the limit is 1024")
		}
	}
}

// Every byte of tombstones and records as any other, and the bytes cut anywhere: accepted where the
// reference accepts it.
func TestScannerDamagedTombstones(t *testing.T) {
	data := append(append(tombstone(), withValue(0x82, 0x00, 0x01)...), unhex(t, "82 62 c3a9 43 00ff80")...)
	s := record.Scanner{Tombstones: true}
	for n := range len(data) + 1 {
		want := reference(data[:n], 0, true)
		if _, err := s.Scan(data[:n], nil); (want == nil) != (err == nil) {
			t.Fatalf("first %d bytes: reference says %v, scanner %v", n, want, err)
		}
	}
	for i := range data {
		was := data[i]
		for v := range 256 {
			data[i] = byte(v)
			want := reference(data, 0, true)
			refs, err := s.Scan(data, nil)
			if (want == nil) != (err == nil) {
				t.Fatalf("byte %d as %#02x: reference says %v, scanner %v", i, v, want, err)
			}
			checkRefs(t, data, refs, 0, true)
		}
		data[i] = was
	}
}

func TestScannerAppendsToRefs(t *testing.T) {
	data := append(withValue(0x00), withValue(0x01)...)
	var s record.Scanner
	kept := record.Ref{Start: 7, End: 9}
	refs, err := s.Scan(data, []record.Ref{kept})
	if err != nil || len(refs) != 3 || refs[0] != kept || refs[2].Start != valueAt+1 {
		t.Fatal(refs, err)
	}
	if refs, err = s.Scan(nil, refs[:1]); err != nil || len(refs) != 1 {
		t.Fatal(refs, err)
	}
	if allocs := testing.AllocsPerRun(100, func() { refs, _ = s.Scan(data, refs[:0]) }); allocs > 0 {
		t.Errorf("%v allocations in a scan with room for its refs", allocs)
	}
}

func TestBatchClone(t *testing.T) {
	data := append(withValue(0x00), withValue(0x01)...)
	var s record.Scanner
	refs, err := s.Scan(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &record.Batch{Data: data, Refs: refs}
	c := b.Clone()
	clear(data)
	clear(refs)
	if c.Len() != 2 || !bytes.Equal(c.Record(1), withValue(0x01)) || !bytes.Equal(c.Value(0), []byte{0x00}) {
		t.Errorf("the clone shares memory: % x, %v", c.Data, c.Refs)
	}
}
