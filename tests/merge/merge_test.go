// Package merge_test holds the merge of states (package snapshot) against the built-in serializers: what comes out must load,
// and be what a merge of the native states themselves is.
package merge_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/notation"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/tests/serializers/files/through"
)

// state is a native state as a state file.
func state(t testing.TB, m *through.Module, native []byte) *statefile.File {
	t.Helper()
	return write(t, m.Descriptor().Name, func(w *statefile.Writer) error {
		return m.Save(t.Context(), m.Call(), bytes.NewReader(native), w)
	})
}

func write(t testing.TB, serializer string, fill func(*statefile.Writer) error) *statefile.File {
	t.Helper()
	var file bytes.Buffer
	w, err := statefile.NewWriter(&file, statefile.Header{Service: "folder", Part: "store", Generation: 1, Created: time.Unix(1, 0),
		Serializer: statefile.Serializer{Name: serializer, Version: "1.0.0", Schema: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if err := fill(w); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, file.Bytes())
}

func open(t testing.TB, b []byte) *statefile.File {
	t.Helper()
	f, err := statefile.Open(bytes.NewReader(b), int64(len(b)), "store.state")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// merge merges what d describes.
func merge(t testing.TB, d abi.Descriptor, strategy snapshot.Strategy, live, in *statefile.File) (*statefile.File, snapshot.Merged) {
	t.Helper()
	var counts snapshot.Merged
	merged := write(t, d.Name, func(w *statefile.Writer) (err error) {
		counts, err = snapshot.Merge(t.Context(), live, in, snapshot.MergeOptions{Strategy: strategy, Nesting: d.Nesting, Ordered: d.Ordered, Folder: t.TempDir()}, w)
		return err
	})
	if n := merged.Info().Records; n != counts.Added+counts.Changed+counts.Kept {
		t.Errorf("%d records, counted are %+v", n, counts)
	}
	return merged, counts
}

// native is what a state loads to.
func native(t testing.TB, m *through.Module, f *statefile.File) ([]byte, error) {
	t.Helper()
	var b bytes.Buffer
	err := m.Load(t.Context(), m.Call(), f.Records(), &b)
	return b.Bytes(), err
}

// records lists the records of partitions of a state, or of all.
func records(t testing.TB, f *statefile.File, partitions ...string) [][]byte {
	t.Helper()
	var all through.Sink
	r := f.Records(partitions...)
	for {
		b, err := r.ReadBatch()
		if err != nil {
			return all
		}
		if err := all.WriteBatch(b); err != nil {
			t.Fatal(err)
		}
	}
}

// properties checks what holds of any two states.
func properties(t testing.TB, d abi.Descriptor, live, in *statefile.File) {
	t.Helper()
	for _, s := range snapshot.Strategies() {
		if got, counts := merge(t, d, s, in, in); counts != (snapshot.Merged{Kept: in.Info().Records}) || got.Info().Root != in.Info().Root {
			t.Errorf("%s: a state merged into itself is another one: %+v", s, counts)
		}
		if got, counts := merge(t, d, s, nil, in); counts != (snapshot.Merged{Added: in.Info().Records}) || got.Info().Root != in.Info().Root {
			t.Errorf("%s: a state merged into nothing is another one: %+v", s, counts)
		}
	}
	got, _ := merge(t, d, snapshot.AccountRegionMerge, live, in)
	for _, p := range in.Partitions() {
		if p.Name != "" && !same(records(t, got, p.Name), records(t, in, p.Name)) {
			t.Errorf("partition %s is not that of the snapshot", p.Name)
		}
	}
	for _, p := range live.Partitions() {
		if len(records(t, in, p.Name)) == 0 && p.Name != "" && !same(records(t, got, p.Name), records(t, live, p.Name)) {
			t.Errorf("partition %s, which only the live state has, has changed", p.Name)
		}
	}
}

// same compares records whatever their order.
func same(a, b [][]byte) bool {
	slices.SortFunc(a, bytes.Compare)
	slices.SortFunc(b, bytes.Compare)
	return slices.EqualFunc(a, b, bytes.Equal)
}

// show is a state for people.
func show(t testing.TB, f *statefile.File) string {
	t.Helper()
	n, err := notation.New()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, r := range records(t, f) {
		b.WriteString(n.Show(r) + "\n")
	}
	return b.String()
}
