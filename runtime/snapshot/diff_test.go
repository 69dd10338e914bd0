package snapshot_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/notation"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// snapshotOf makes a snapshot of parts called "service/part".
func snapshotOf(t testing.TB, files map[string]*statefile.File) *snapshot.Snapshot {
	t.Helper()
	var parts []snapshot.Part
	for name, f := range files {
		service, part, _ := strings.Cut(name, "/")
		parts = append(parts, snapshot.Part{Service: service, Name: part, File: f})
	}
	s, err := snapshot.New(snapshot.Info{}, parts, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func fileOf(t testing.TB, name, serializer, compression string, all []row) *statefile.File {
	t.Helper()
	service, part, _ := strings.Cut(name, "/")
	var file bytes.Buffer
	w, err := statefile.NewWriter(&file, statefile.Header{Service: service, Part: part, Generation: 1, Created: time.Unix(1, 0), Compression: compression,
		Serializer: statefile.Serializer{Name: serializer, Version: "1", Schema: 1}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, w, all)
	return openState(t, file.Bytes())
}

// told is what a diff says, a line for each change.
func told(t testing.TB, from, to *snapshot.Snapshot) (changes []string, stats []snapshot.Stat) {
	t.Helper()
	stats, err := snapshot.Diff(t.Context(), from, to, func(c snapshot.Change) error {
		value := func(item []byte) string {
			if item == nil {
				return "-"
			}
			return string(record.NewPull(item).Text())
		}
		changes = append(changes, fmt.Sprintf("%s/%s %s|%s %s %s %s", c.Service, c.Part, c.Partition, notation.Key(c.Key), c.Kind(), value(c.Before), value(c.After)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return changes, stats
}

func TestDiff(t *testing.T) {
	from := snapshotOf(t, map[string]*statefile.File{
		"s3/store":      fileOf(t, "s3/store", "records", "", rows("a|1=x \n a|2=y \n b|1=z \n b|2=w")),
		"sqs/store":     fileOf(t, "sqs/store", "records", "", rows("|q=1")),
		"sns/store":     fileOf(t, "sns/store", "json", "", rows("|q=1")),
		"lambda/assets": fileOf(t, "lambda/assets", "raw", "", rows("|f=1")),
	})
	to := snapshotOf(t, map[string]*statefile.File{
		"s3/store":   fileOf(t, "s3/store", "records", "zstd", rows("b|1=z \n a|3=n \n a|2=Y \n c|1=x")),
		"s3/assets":  fileOf(t, "s3/assets", "raw", "", rows("|f=1")),
		"sqs/store":  fileOf(t, "sqs/store", "records", "", rows("|q=1")),
		"sns/store":  fileOf(t, "sns/store", "pickle", "", rows("|q=2")),
		"sns/assets": fileOf(t, "sns/assets", "raw", "", rows("")),
	})
	changes, stats := told(t, from, to)
	if want := []string{
		"lambda/assets |f removed 1 -",
		"s3/assets |f added - 1",
		"s3/store a|3 added - n",
		"s3/store a|2 changed y Y",
		"s3/store c|1 added - x",
		"s3/store a|1 removed x -",
		"s3/store b|2 removed w -",
	}; !slices.Equal(changes, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(changes, "\n"), strings.Join(want, "\n"))
	}
	want := []snapshot.Stat{
		{Service: "lambda", Part: "assets", Removed: 1, BytesRemoved: 6},
		{Service: "s3", Part: "assets", Added: 1, BytesAdded: 6},
		{Service: "s3", Part: "store", Added: 2, Changed: 1, Removed: 2, Same: 1, BytesAdded: 21, BytesRemoved: 21},
		{Service: "sns", Part: "assets"},
		{Service: "sns", Part: "store", Incomparable: "the records of the one are by the serializer json, those of the other by pickle"},
		{Service: "sqs", Part: "store", Same: 1},
	}
	if !slices.Equal(stats, want) {
		t.Errorf("got\n%+v\nwant\n%+v", stats, want)
	}
	for i, equal := range []bool{false, false, false, true, false, true} {
		if stats[i].Equal() != equal {
			t.Errorf("%+v counts as equal: %v", stats[i], !equal)
		}
	}
	if again, err := snapshot.Diff(t.Context(), from, to, nil); err != nil || !slices.Equal(again, want) {
		t.Errorf("without a function: %+v, %v", again, err)
	}
}

// TestDiffDeltas: deltas are applied on both sides.
func TestDiffDeltas(t *testing.T) {
	base := rows("|a=1 \n |b=2")
	from := snapshotOf(t, map[string]*statefile.File{"s3/store": stateOfRows(t, "json", base)})
	to := snapshotOf(t, map[string]*statefile.File{"s3/store": stateOfRows(t, "json", base, rows("|c=3 \n |a=9"))})
	for _, c := range []struct {
		from, to *snapshot.Snapshot
		want     []string
	}{
		{from, to, []string{"s3/store |a changed 1 9", "s3/store |c added - 3"}},
		{to, from, []string{"s3/store |a changed 9 1", "s3/store |c removed 3 -"}},
		{to, to, nil},
	} {
		if changes, stats := told(t, c.from, c.to); !slices.Equal(changes, c.want) || stats[0].Same < 1 {
			t.Errorf("%q, %+v, want %q", changes, stats, c.want)
		}
	}
}

// TestDiffSkips: of two large states that differ in one record, only what is around it is read.
func TestDiffSkips(t *testing.T) {
	var all []row
	for i := range 40_000 {
		all = append(all, row{"", fmt.Sprintf("k%06d", i), strings.Repeat("v", 100)})
	}
	other := slices.Clone(all)
	other[20_000].value = "changed"
	other = slices.Delete(other, 30_000, 30_001)
	states := make([]*counted, 2)
	snapshots := make([]*snapshot.Snapshot, 2)
	for i, rows := range [][]row{all, other} {
		var file bytes.Buffer
		w, err := statefile.NewWriter(&file, statefile.Header{Service: "s3", Part: "store", Generation: 1, Serializer: statefile.Serializer{Name: "json", Version: "1", Schema: 1}})
		if err != nil {
			t.Fatal(err)
		}
		write(t, w, rows)
		states[i] = &counted{Reader: bytes.NewReader(file.Bytes())}
		f, err := statefile.Open(states[i], int64(file.Len()), "s3")
		if err != nil {
			t.Fatal(err)
		}
		states[i].n = 0
		snapshots[i] = snapshotOf(t, map[string]*statefile.File{"s3/store": f})
	}
	changes, stats := told(t, snapshots[0], snapshots[1])
	if len(changes) != 2 || stats[0].Same != 39_998 || stats[0].Changed != 1 || stats[0].Removed != 1 {
		t.Errorf("%d changes, %+v", len(changes), stats)
	}
	for i, s := range states {
		if s.n == 0 || s.n > s.Size()/4 {
			t.Errorf("state %d: %d of %d bytes were read", i, s.n, s.Size())
		}
	}
}

type counted struct {
	*bytes.Reader
	n int64
}

func (c *counted) ReadAt(b []byte, off int64) (int, error) {
	c.n += int64(len(b))
	return c.Reader.ReadAt(b, off)
}

func TestDiffErrors(t *testing.T) {
	a := snapshotOf(t, map[string]*statefile.File{"s3/store": stateOfRows(t, "json", rows("|a=1"))})
	b := snapshotOf(t, map[string]*statefile.File{"s3/store": stateOfRows(t, "json", rows("|a=2 \n |b=1"))})
	empty := snapshotOf(t, nil)
	stop := errors.New("stop")
	for _, from := range []*snapshot.Snapshot{a, b, empty} {
		for _, to := range []*snapshot.Snapshot{a, b, empty} {
			if from == to {
				continue
			}
			stats, err := snapshot.Diff(t.Context(), from, to, func(snapshot.Change) error { return stop })
			if !errors.Is(err, stop) || !strings.Contains(err.Error(), "s3/store") || len(stats) > 0 {
				t.Errorf("%v, %v", stats, err)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := snapshot.Diff(ctx, a, b, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	twice := snapshotOf(t, map[string]*statefile.File{"s3/store": stateOfRows(t, "json", rows("|a=2 \n |a=1"))})
	if _, err := snapshot.Diff(t.Context(), twice, a, nil); !errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("a key twice: %v", err)
	}
}

// FuzzDiff: what is told of two states makes the one of the other.
func FuzzDiff(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 9))
		a, b := randomState(rng, []string{"p", "q"}), randomState(rng, []string{"p", "q", "r"})
		state := func(all []row) *snapshot.Snapshot {
			n := len(all)
			if n > 3 && rng.IntN(2) == 0 { // the last ones are a delta
				n -= 3
			}
			if n == len(all) {
				return snapshotOf(t, map[string]*statefile.File{"s3/store": stateOfRows(t, "json", all)})
			}
			return snapshotOf(t, map[string]*statefile.File{"s3/store": stateOfRows(t, "json", all[:n], all[n:])})
		}
		values := map[string]string{}
		for _, r := range a {
			values[r.partition+"|"+r.key] = string(r.item())
		}
		stats, err := snapshot.Diff(t.Context(), state(a), state(b), func(c snapshot.Change) error {
			key := c.Partition + "|" + string(record.NewPull(c.Key).Text())
			if values[key] != string(c.Before) || string(c.Before) == string(c.After) {
				return fmt.Errorf("%s was %q, not %q", key, values[key], c.Before)
			}
			if values[key] = string(c.After); c.After == nil {
				delete(values, key)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range b {
			if values[r.partition+"|"+r.key] != string(r.item()) {
				t.Errorf("%v is %q", r, values[r.partition+"|"+r.key])
			}
		}
		if s := stats[0]; len(values) != len(b) || s.Same+s.Changed+s.Added != uint64(len(b)) || s.Same+s.Changed+s.Removed != uint64(len(a)) {
			t.Errorf("%d records, want %d; %+v", len(values), len(b), s)
		}
	})
}
