package statefile_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// TestDiffering: what both files hold for certain is left out of both, and nothing else.
func TestDiffering(t *testing.T) {
	file := func(compression string, keep func(p string, i int) bool, value func(i int) string) []byte {
		var out bytes.Buffer
		w, err := statefile.NewWriter(&out, statefile.Header{Service: "s3", Part: "store", Generation: 1, Created: time.Unix(1, 0), Compression: compression,
			Serializer: statefile.Serializer{Name: "records", Version: "1", Schema: 1}})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{"a", "b"} {
			for i := range 4000 {
				if keep(p, i) {
					writeOne(t, w, p, fmt.Sprintf("k%05d", i), value(i))
				}
			}
		}
		if _, err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	all := func(string, int) bool { return true }
	long := func(int) string { return strings.Repeat("v", 200) }
	changed := func(i int) string {
		if i == 2000 {
			return "changed"
		}
		return long(i)
	}
	full := file("", all, long)
	delta := bytes.NewBuffer(bytes.Clone(full))
	w, err := statefile.NewDeltaWriter(delta, openFile(t, full).Tail(), 2, time.Unix(2, 0))
	if err != nil {
		t.Fatal(err)
	}
	writeOne(t, w, "a", "k00001", "delta")
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		a, b []byte
		both bool // some are skipped
	}{
		{"the same", full, full, true},
		{"another compression", full, file("zstd", all, long), true},
		{"one changed", full, file("", all, changed), true},
		{"one gone", full, file("", func(p string, i int) bool { return p != "a" || i != 77 }, long), true},
		{"a partition gone", full, file("", func(p string, i int) bool { return p == "b" }, long), true},
		{"nothing alike", full, file("", all, func(i int) string { return "x" }), false},
		{"a delta", full, delta.Bytes(), false},
		{"two deltas", delta.Bytes(), delta.Bytes(), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := openFile(t, c.a), openFile(t, c.b)
			inA, inB, both := statefile.Differing(a, b)
			hasA, hasB := recordsOf(t, a.Records()), recordsOf(t, b.Records())
			onlyA, onlyB := recordsOf(t, inA), recordsOf(t, inB)
			if uint64(len(onlyA))+both != uint64(len(hasA)) || uint64(len(onlyB))+both != uint64(len(hasB)) || (both > 0) != c.both {
				t.Errorf("%d of %d and %d of %d records, %d in both", len(onlyA), len(hasA), len(onlyB), len(hasB), both)
			}
			for r := range hasA {
				if onlyA[r] != onlyB[r] && hasB[r] {
					t.Errorf("%q is left out of one only", r)
				}
				if !hasB[r] && !onlyA[r] {
					t.Errorf("%q is left out", r)
				}
			}
			for r := range hasB {
				if !hasA[r] && !onlyB[r] {
					t.Errorf("%q is left out", r)
				}
			}
		})
	}
}

func openFile(t *testing.T, b []byte) *statefile.File {
	t.Helper()
	f, err := statefile.Open(bytes.NewReader(b), int64(len(b)), "store.state")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func writeOne(t *testing.T, w *statefile.Writer, partition, key, value string) {
	t.Helper()
	data := record.AppendText(record.AppendText(record.AppendText(record.AppendRecord(nil), partition), key), value)
	var scan record.Scanner
	refs, err := scan.Scan(data, nil)
	if err == nil {
		err = w.WriteBatch(&record.Batch{Data: data, Refs: refs})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func recordsOf(t *testing.T, r *statefile.RecordReader) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for {
		b, err := r.ReadBatch()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		for i := range b.Refs {
			all[string(b.Record(i))] = true
		}
	}
}
