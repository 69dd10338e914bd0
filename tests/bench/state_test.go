package main

import (
	"bytes"
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host/abi/record"
)

// Memory must follow the chunk, not the state: saving, with the full proof, and restoring 200 MB leave
// much room below half of that.
func TestMemoryDoesNotFollowTheState(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: it passes 200 MB through the runtime")
	}
	t.Setenv("TMPDIR", t.TempDir())
	const size, most = 200_000_000, 96 << 20
	saved, restored, err := measureMemory(t.Context(), newSynthetic(size))
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range map[string]through{"save": saved, "restore": restored} {
		t.Logf("%s of %.0f MB: %s of heap above idle, %s resident, guests %s", name, float64(m.bytes)/1e6, mib(m.heap), mib(m.rss), mib(m.guest))
		if m.bytes < size*9/10 || m.guest == 0 || m.heap < m.guest {
			t.Errorf("%s: %d bytes of records, %s of heap, %s of guests in it: this has not measured what it should", name, m.bytes, mib(m.heap), mib(m.guest))
		}
		if m.heap > most {
			t.Errorf("%s of %.0f MB took %s of heap above idle, at most %s is wanted", name, float64(m.bytes)/1e6, mib(m.heap), mib(most))
		}
	}
}

// The meter must see what is there for a moment only.
func TestPeakOf(t *testing.T) {
	const size = 128 << 20
	peak, err := peakOf(func() error {
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(i)
		}
		sha256.Sum256(b) // some time passes
		return nil
	})
	if err != nil || peak.heap < size || peak.heap > 2*size {
		t.Errorf("a peak of %+v for %d bytes, error %v", peak, size, err)
	}
	// A little may have lain ready in what was mapped before.
	if peak.mapped < size*9/10 || peak.rss != 0 && peak.rss < size*9/10 {
		t.Errorf("a peak of %+v for %d bytes", peak, size)
	}
}

// A synthetic state is some records in ten partitions, of the size asked for, the same each time, and
// one edit changes one of them.
func TestSynthetic(t *testing.T) {
	const size = 3_000_000
	all := func(s synthetic) []byte {
		var b []byte
		if err := s.pieces(func(piece []byte) error { b = append(b, piece...); return nil }); err != nil {
			t.Fatal(err)
		}
		return b
	}
	src := &source{now: newSynthetic(size)}
	before := all(src.now)
	var scan record.Scanner
	refs, err := scan.Scan(before, nil)
	if err != nil {
		t.Fatal(err)
	}
	batch := record.Batch{Data: before, Refs: refs}
	seen := map[string]int{}
	for i := range refs {
		seen[string(batch.Partition(i))]++
	}
	if len(seen) != partitions || len(refs) != src.now.records || len(before) < size*9/10 || len(before) > size*11/10 {
		t.Fatalf("%d records of %d bytes in partitions %v", len(refs), len(before), seen)
	}
	if !bytes.Equal(before, all(newSynthetic(size))) {
		t.Error("it is not the same each time")
	}
	src.edit(1234)
	after := all(src.now)
	refs, err = scan.Scan(after, nil)
	if err != nil || len(refs) != batch.Len() {
		t.Fatal(len(refs), err)
	}
	edited := record.Batch{Data: after, Refs: refs}
	for i := range refs {
		if same := bytes.Equal(edited.Record(i), batch.Record(i)); same == (i == 1234) {
			t.Errorf("record %d: unchanged %v", i, same)
		}
	}
	if !bytes.Equal(edited.KeyItem(1234), batch.KeyItem(1234)) {
		t.Error("an edit changes the key")
	}
}

// A save of one changed record costs what the record costs, in the process that saved all and in the one
// after it.
func TestDeltaDoesNotFollowTheState(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	const size, most = 20_000_000, 16 << 10
	d, err := measureDelta(t.Context(), 5, newSynthetic(size))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("in full %d bytes, one record at most %d bytes, after a restart %d", d.fullWritten, d.written, d.restartedWritten)
	if d.fullWritten < size*9/10 || d.written == 0 || d.written > most || d.restartedWritten == 0 || d.restartedWritten > most {
		t.Errorf("of %d bytes, one record: %d bytes written, after a restart %d; at most %d are wanted", d.fullWritten, d.written, d.restartedWritten, most)
	}
}

// All that benchState prints, measured with a small state: whatever is read back must be what was
// written, or it fails.
func TestBenchState(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var out strings.Builder
	if err := benchState(t.Context(), &out, 1, 1, 2_000_000); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"## A state file of 2 MB", "share of a restore", "## Memory", "## One record changed"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
}
