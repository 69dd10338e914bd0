package pickle_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi/record"
)

// one is a record and the key that tells it from others.
type one struct {
	key, data string
	head      int // where the value begins in data
}

// split gives records one by one.
func split(t testing.TB, records []byte) []one {
	t.Helper()
	var scan record.Scanner
	refs, err := scan.Scan(records, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := record.Batch{Data: records, Refs: refs}
	all := make([]one, b.Len())
	for i := range all {
		all[i] = one{string(b.Partition(i)) + "\x00" + string(b.KeyItem(i)), string(b.Record(i)), len(b.Record(i)) - len(b.Value(i))}
	}
	return all
}

// merge applies to records what a later save changed: in its place, or at the end.
func merge(base, now []one) []byte {
	latest := map[string]string{}
	for _, r := range now {
		latest[r.key] = r.data
	}
	var merged bytes.Buffer
	had := map[string]bool{}
	for _, r := range base {
		had[r.key] = true
		merged.WriteString(latest[r.key])
	}
	for _, r := range now {
		if !had[r.key] {
			merged.WriteString(r.data)
		}
	}
	return merged.Bytes()
}

// TestMerged: records of one save with what a later one changed give the later state, or are refused
// clearly; never another state.
func TestMerged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	states, original, result := filepath.Join(dir, "states"), filepath.Join(dir, "original"), filepath.Join(dir, "result")
	mustPython(t, "state.py", "stability", states, "60")
	m := compile(t, host.Limits{}, nil)
	later, merged := newArchive(t, original), newArchive(t, result)
	var base []one
	loaded := 0
	entries(t, states, func(e entry) {
		records, err := m.save(e.data)
		if err != nil {
			t.Fatal(err)
		}
		now := split(t, records)
		if base == nil {
			base = now
		}
		var refused *host.GuestError
		native, err := m.load(merge(base, now))
		switch {
		case err == nil:
			loaded++
			later.add(t, e)
			merged.add(t, entry{name: e.name, data: native})
		case !errors.As(err, &refused) || unclear(err, 1<<30) != "":
			t.Errorf("%s: %v: %s", e.name, err, unclear(err, 1<<30))
		default:
			t.Logf("%s: %v", e.name, err)
		}
	})
	later.close(t)
	merged.close(t)
	t.Log(mustPython(t, "compare.py", original, result))
	if loaded < 3 { // adding and changing must work
		t.Errorf("only %d merged states were loaded", loaded)
	}
}

// TestStrangeRecords: records that are gone, twice there, in another order, of another key or of another
// save give a pickle that save takes, or a clear error.
func TestStrangeRecords(t *testing.T) {
	t.Parallel()
	m := compile(t, host.Limits{}, nil)
	failed := &complaints{t: t}
	refused, loaded := 0, 0
	try := func(what string, records []string) {
		data := []byte(strings.Join(records, ""))
		native, err := m.load(data)
		if err != nil {
			refused++
			if said := unclear(err, len(data)); said != "" {
				failed.add("%s: %v: %s", what, err, said)
			}
			return
		}
		loaded++
		if _, _, err := m.roundTrip(native); err != nil {
			failed.add("%s: what load wrote: %v\n%s", what, err, shown(native))
		}
	}
	for _, file := range fixtureFiles(t) {
		data := read(t, file)
		if len(data) > 10_000 {
			continue
		}
		saved, err := m.with(map[string]any{"depth": 4}).save(data)
		if err != nil {
			t.Fatal(err)
		}
		var records, values []string
		for _, r := range split(t, saved) {
			records = append(records, r.data)
			values = append(values, r.data[r.head:])
		}
		for i := range min(len(records), 20) {
			what := fmt.Sprintf("%s, record %d", filepath.Base(file), i)
			try(what+" gone", slices.Delete(slices.Clone(records), i, i+1))
			try(what+" twice", slices.Insert(slices.Clone(records), i, records[i]))
			try(what+" alone", records[i:i+1])
			try(what+" and nothing before", records[i:])
			try(what+" and nothing behind", records[:i])
			for _, j := range []int{0, i / 2, i + 1, len(records) - 1} {
				if j >= len(records) || j == i {
					continue
				}
				swapped := slices.Clone(records)
				swapped[i], swapped[j] = swapped[j], swapped[i]
				try(fmt.Sprintf("%s in the place of %d", what, j), swapped)
				other := slices.Clone(records)
				other[i] = other[i][:len(other[i])-len(values[i])] + values[j]
				try(fmt.Sprintf("%s with the value of %d", what, j), other)
			}
		}
	}
	failed.done()
	t.Logf("%d refused, %d loaded", refused, loaded)
}

// FuzzRecords gives load any records: it refuses them clearly, or writes a pickle that save takes.
func FuzzRecords(f *testing.F) {
	m := compile(f, host.Limits{CallFuel: 20_000_000_000}, nil)
	for _, file := range fixtureFiles(f) {
		if data := read(f, file); len(data) < 8<<10 {
			records, err := m.save(data)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(records)
		}
	}
	f.Fuzz(func(t *testing.T, records []byte) {
		var scan record.Scanner
		if _, err := scan.Scan(records, nil); err != nil || len(records) > 1<<20 {
			return
		}
		native, err := m.load(records)
		if err != nil {
			if said := unclear(err, len(records)); said != "" {
				t.Fatalf("%v: %s", err, said)
			}
			return
		}
		if _, err := m.save(native); err != nil {
			t.Fatalf("load writes what save refuses: %v\n%s", err, shown(native))
		}
	})
}
