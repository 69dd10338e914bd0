package record_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

func seeds(f *testing.F, add func(data []byte)) {
	data, ends := sample(f)
	add(data)
	start := 0
	for _, end := range ends {
		add(data[start:end])
		add(data[start : end-1])
		start = end
	}
	add(streamRecords(2))
	add(withValue(nested(65, 0)...))
	add(unhex(f, "83 61 61 61 61 9f ff"))
	add(unhex(f, "83 61 61 61 61 1817"))
	add(unhex(f, "83 61 61 61 61 bb 8000000000000000"))
	add(unhex(f, "83 61 61 5a 00010000"))
	add(append(append(tombstone(), data...), tombstone()...))
	add(unhex(f, "82 60 60 82 61 61 41"))
}

// What the scanner accepts, the reference accepts, cbor finds well-formed, and the refs cover without
// gaps; what it refuses, the reference refuses.
func FuzzScanner(f *testing.F) {
	seeds(f, func(data []byte) { f.Add(data, false); f.Add(data, true) })
	const maxBytes = record.MinMaxBytes
	tail := withValue(zeros(100)...) // so that the kernels read what is before it
	f.Fuzz(func(t *testing.T, data []byte, tombstones bool) {
		s := record.Scanner{MaxBytes: maxBytes, Tombstones: tombstones}
		longer := append(bytes.Clone(data), tail...)
		all, err := s.Scan(longer, nil)
		if want := reference(longer, maxBytes, tombstones); (want == nil) != (err == nil) {
			t.Fatalf("with more behind it: reference says %v, scanner %v", want, err)
		}
		checkRefs(t, longer, all, maxBytes, tombstones)
		refs, err := s.Scan(data, nil)
		if want := reference(data, maxBytes, tombstones); (want == nil) != (err == nil) {
			t.Fatalf("reference says %v, scanner %v", want, err)
		}
		checkRefs(t, data, refs, maxBytes, tombstones)
		end := 0
		if len(refs) > 0 {
			end = refs[len(refs)-1].End
		}
		if err == nil && end != len(data) {
			t.Fatalf("the refs end at %d of %d bytes", end, len(data))
		}
		if err != nil {
			var fe *record.FormatError
			if !errors.As(err, &fe) || fe.Offset < end || fe.Offset > len(data) ||
				errors.Is(err, abi.ErrCorrupt) == errors.Is(err, abi.ErrTooLarge) {
				t.Fatalf("after %d of %d bytes: %#v", end, len(data), err)
			}
		}
		prefix, n, perr := s.ScanPrefix(data, nil)
		if len(prefix) != len(refs) || n != end || perr != nil && err == nil {
			t.Fatalf("Scan: %d records in %d bytes, %v; ScanPrefix: %d in %d, %v", len(refs), end, err, len(prefix), n, perr)
		}
	})
}

// A stream in pieces gives what a scan of the whole gives.
func FuzzReader(f *testing.F) {
	seeds(f, func(data []byte) { f.Add(data, uint16(1)); f.Add(data, uint16(7)) })
	f.Fuzz(func(t *testing.T, data []byte, piece uint16) {
		const maxBytes = record.MinMaxBytes
		s := record.Scanner{MaxBytes: maxBytes}
		want, scanErr := s.Scan(data, nil)
		end := 0
		if len(want) > 0 {
			end = want[len(want)-1].End
		}
		got, n, err := drain(t, record.NewReader(pieces{bytes.NewReader(data), int(piece)}, maxBytes))
		if n != len(want) || !bytes.Equal(got, data[:end]) {
			t.Fatalf("%d records in %d bytes, %v; a scan finds %d in %d, %v", n, len(got), err, len(want), end, scanErr)
		}
		if (err == nil) != (scanErr == nil) || errors.Is(err, abi.ErrCorrupt) != errors.Is(scanErr, abi.ErrCorrupt) {
			t.Fatalf("reader says %v, scanner %v", err, scanErr)
		}
		var a, b *record.FormatError
		if errors.As(err, &a) && (!errors.As(scanErr, &b) || a.Offset != b.Offset) {
			t.Fatalf("reader says %v, scanner %v", err, scanErr)
		}
	})
}

// pieces reads at most n bytes at a time.
type pieces struct {
	r io.Reader
	n int
}

func (p pieces) Read(b []byte) (int, error) { return p.r.Read(b[:min(len(b), max(1, p.n))]) }

// Any reads in any order on any bytes: no panic, nothing outside the bytes, a sticky error.
func FuzzPull(f *testing.F) {
	script := []byte{5, 3, 4, 6, 3, 0, 3, 7, 12}
	seeds(f, func(data []byte) {
		f.Add(data, script)
		f.Add(data, []byte{5, 4, 4, 12})
		f.Add(data, []byte{5, 4, 4, 9, 10, 8, 11})
	})
	f.Fuzz(func(t *testing.T, data, script []byte) {
		d := record.NewPull(data)
		var failed error
		last := 0
		for _, op := range script {
			n := -1
			var s []byte
			kind := d.Peek()
			switch op % 13 {
			case 0:
				d.Uint()
			case 1:
				d.Int()
			case 2:
				s = d.Bytes()
			case 3:
				s = d.Text()
			case 4:
				s, _ = d.TextOrBytes()
			case 5:
				n = d.Array()
			case 6:
				n = 2 * d.Map()
			case 7:
				d.Bool()
			case 8:
				d.Null()
			case 9:
				d.Tag()
			case 10:
				d.Float()
			case 11:
				d.End()
			case 12:
				if s = d.Skip(); s != nil {
					if err := wellformed(t, s); err != nil {
						t.Fatalf("Skip passed over what cbor refuses: %v", err)
					}
				}
			}
			at := d.Offset()
			if kind == record.KindNone && at != last || kind != record.KindNone && (failed != nil || last == len(data)) {
				t.Fatalf("kind %d at %d of %d bytes, %v", kind, last, len(data), failed)
			}
			if at < last || at > len(data) || len(s) > at-last {
				t.Fatalf("offset %d after %d in %d bytes, %d given", at, last, len(data), len(s))
			}
			if n > len(data)-at {
				t.Fatalf("%d items promised, %d bytes left", n, len(data)-at)
			}
			last = at
			var fe *record.FormatError
			if err := d.Err(); failed != nil && err != failed {
				t.Fatalf("first %v, then %v", failed, err)
			} else if err != nil && (!errors.As(err, &fe) || fe.Offset > len(data)) {
				t.Fatalf("%#v in %d bytes", err, len(data))
			}
			failed = d.Err()
		}
	})
}
