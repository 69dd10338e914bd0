package repository_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/runtime/vfs"
)

func TestRoundTrip(t *testing.T) {
	zstd := header("s3", "store")
	zstd.Compression = statefile.CompressionZstd
	delta := bytes.NewBuffer(encode(t, header("sqs", "store"), newState(50, 1000, 1).records()))
	w, err := statefile.NewDeltaWriter(delta, openFile(t, delta.Bytes()).Tail(), 9, time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	w.Grow(-1)
	gone := record.AppendText(record.AppendText(record.AppendTombstone(nil), "000000000000/us-east-1"), "key-00000007")
	writeRecords(t, w, gone)
	in := shot(t,
		encode(t, header("orders", "store"), newState(3000, 100, 1).records()),
		encode(t, header("orders", "backend"), nil),
		encode(t, zstd, newState(2000, 300, 2).records()),
		encode(t, header("large", "assets"), newState(3, 9<<20, 3).records()), // of more than one piece each
		delta.Bytes(),
		encode(t, header("empty", "assets"), (&state{partition: "p", keys: []string{"zeros"}, values: map[string][]byte{"zeros": make([]byte, 20<<20)}}).records()),
	)
	r := open(t, vfs.NewMem(), newClock())
	var done int64
	v, err := r.Save(t.Context(), "Mine.1", in, repository.SaveOptions{Description: "all there is", Progress: func(d, total int64) {
		if d <= done || total != in.Size() {
			t.Errorf("progress: %d of %d after %d", d, total, done)
		}
		done = d
	}})
	if err != nil {
		t.Fatal(err)
	}
	wantLoaded(t, r, "Mine.1", 0, seal.Key{}, in)
	wantSound(t, "saved", r)
	if done == 0 || v.Number != 1 || v.Size < 47<<20 || v.Stored < 27<<20 || v.Stored > 30<<20 || v.Encrypted || v.Description != "all there is" || v.Torpor != "0.7.0" ||
		fmt.Sprint(v.Services) != "[empty large orders s3 sqs]" || len(v.Parts) != 6 || !v.Created.Equal(newClock().now) {
		t.Errorf("saved as %+v", v)
	}
	if p := v.Parts[5]; p.Service != "sqs" || p.Name != "store" || p.Generation != 9 || p.Records != 49 || p.Serializer != "records 1.0.0" {
		t.Errorf("a part is told of as %+v", p)
	}
	all, err := r.Versions(t.Context(), "Mine.1")
	if err != nil || len(all) != 1 || fmt.Sprint(all[0]) != fmt.Sprint(v) {
		t.Errorf("Versions gives %+v, %v; Save gave %+v", all, err, v)
	}
	names, err := r.List(t.Context())
	if err != nil || len(names) != 1 || names[0].Name != "Mine.1" || names[0].Newest != 1 || names[0].Versions != 1 || names[0].Size != v.Size || len(names[0].Services) != 5 {
		t.Errorf("List gives %+v, %v", names, err)
	}
	s, err := r.Open(t.Context(), "Mine.1", 1, seal.Key{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Name != "Mine.1" || s.Version != 1 || s.Torpor != "0.7.0" || s.Description != "all there is" || !s.Created.Equal(v.Created) {
		t.Errorf("opened as %+v", s.Info)
	}
	for _, p := range s.Parts {
		was, _ := in.Part(p.Service, p.Name)
		h, g := was.File.Header(), p.File.Header()
		h.Compression = statefile.CompressionNone
		if g != h || p.File.Info().Deltas != 0 || was.File.Info().Deltas == 0 && p.File.Info().Root != was.File.Info().Root {
			t.Errorf("%s: header %+v, was %+v; root %x, was %x", p, g, h, p.File.Info().Root, was.File.Info().Root)
		}
	}
}

// Equal pieces are kept once, also those of another name.
func TestEqualPiecesAreKeptOnce(t *testing.T) {
	m := vfs.NewMem()
	r := open(t, m, newClock())
	in := shot(t, encode(t, header("orders", "store"), newState(5000, 200, 1).records()))
	first := save(t, r, "a", in, seal.Lock{})
	for i, name := range []string{"a", "b"} {
		again := save(t, open(t, m, newClock()), name, in, seal.Lock{})
		if again.Stored > first.Stored/100 {
			t.Errorf("%d: the first added %d bytes, the same again %d", i, first.Stored, again.Stored)
		}
		wantLoaded(t, r, name, 0, seal.Key{}, in)
	}
	wantSound(t, "saved", r)
}

func TestNumbers(t *testing.T) {
	m := vfs.NewMem()
	r, other := open(t, m, newClock()), open(t, m, newClock())
	for i, r := range []*repository.Repository{r, other, r, r, other} {
		if v := save(t, r, "a", small(t, fmt.Sprint("v", i+1)), seal.Lock{}); v.Number != uint64(i+1) {
			t.Errorf("save %d got number %d", i+1, v.Number)
		}
	}
	if err := r.Remove(t.Context(), "a", 2, 5); err != nil {
		t.Fatal(err)
	}
	numbers := func() (all []uint64) {
		versions, err := other.Versions(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range versions {
			all = append(all, v.Number)
		}
		return all
	}
	if got := numbers(); !slices.Equal(got, []uint64{1, 3, 4}) {
		t.Errorf("versions %d", got)
	}
	for version, want := range map[uint64]string{0: "v4", 1: "v1", 3: "v3", 4: "v4", 2: "-", 5: "-", 6: "-"} {
		if got := text(t, other, "a", version); got != want {
			t.Errorf("version %d is %q, want %q", version, got, want)
		}
	}
	for _, c := range []struct {
		version, newest uint64
		removed         bool
	}{{5, 4, true}, {9, 4, false}} {
		_, err := r.Open(t.Context(), "a", c.version, seal.Key{})
		var ve *repository.VersionError
		if !errors.As(err, &ve) || ve.Name != "a" || ve.Version != c.version || ve.Newest != c.newest || ve.Removed != c.removed {
			t.Errorf("version %d: %v", c.version, err)
		}
		if err := r.Remove(t.Context(), "a", 1, c.version); !errors.As(err, &ve) || text(t, r, "a", 1) != "v1" {
			t.Errorf("removing versions 1 and %d: %v", c.version, err)
		}
	}
	if err := r.Remove(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if all, err := other.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("all are removed, and there are %v, %v", all, err)
	}
	for _, f := range []func() error{
		func() error { return r.Remove(t.Context(), "a") },
		func() error { _, err := r.Versions(t.Context(), "a"); return err },
		func() error { _, err := r.Open(t.Context(), "a", 0, seal.Key{}); return err },
		func() error { _, err := r.Open(t.Context(), "never", 3, seal.Key{}); return err },
	} {
		var ve *repository.VersionError
		if err := f(); !errors.As(err, &ve) || ve.Newest != 0 || !errors.Is(err, abi.ErrNotFound) {
			t.Errorf("of what is not there: %v", err)
		}
	}
	if v := save(t, other, "a", small(t, "again"), seal.Lock{}); v.Number != 6 {
		t.Errorf("after all were removed the next got number %d", v.Number)
	}
	wantSound(t, "after all that", r)
}

func TestNames(t *testing.T) {
	m := vfs.NewMem()
	r := open(t, m, newClock())
	long := string(bytes.Repeat([]byte("aB"), 64))
	names := []string{"a", "A", "aB", "Ab", "AB", "ab", "a.b", "a-b", "a_b", "0", "x.", long, string(bytes.ToUpper([]byte(long))), "Foo.Bar-1"}
	for _, name := range names {
		save(t, r, name, small(t, name), seal.Lock{})
	}
	slices.Sort(names)
	all, err := open(t, m, newClock()).List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range all {
		got = append(got, s.Name)
		if text(t, r, s.Name, 0) != s.Name {
			t.Errorf("%s is another's", s.Name)
		}
	}
	if !slices.Equal(got, names) {
		t.Errorf("List gives %q", got)
	}
	folded := map[string]bool{}
	for blob := range blobs(t, m, "") {
		if lower := string(bytes.ToLower([]byte(blob))); lower != blob || folded[lower] {
			t.Errorf("blob %q is not safe where case is not told apart", blob)
		}
		folded[blob] = true
	}
	for _, name := range []string{"", ".a", "-a", "_a", "a/b", "a b", "ä", "a=1", "..", long + "a"} {
		if _, err := r.Save(t.Context(), name, small(t, "x"), repository.SaveOptions{}); err == nil {
			t.Errorf("%q was taken for a name", name)
		}
		if repository.CheckName(name) == nil {
			t.Errorf("CheckName lets %q pass", name)
		}
	}
}

// Everyone who saves at once gets a number of their own.
func TestSavesAtOnce(t *testing.T) {
	m := vfs.NewMem()
	repos := []*repository.Repository{open(t, m, newClock()), open(t, m, newClock()), open(t, m, newClock())}
	const each = 6
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		given = map[uint64]string{}
	)
	for i := range each * len(repos) {
		wg.Go(func() {
			content := fmt.Sprint("of ", i)
			v, err := repos[i%len(repos)].Save(t.Context(), "a", small(t, content), repository.SaveOptions{})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Errorf("Save: %v", err)
			} else if was, twice := given[v.Number]; twice {
				t.Errorf("number %d was given to %q and %q", v.Number, was, content)
			}
			given[v.Number] = content
		})
	}
	wg.Wait()
	for n := range uint64(each * len(repos)) {
		if got := text(t, repos[0], "a", n+1); got != given[n+1] {
			t.Errorf("version %d holds %q, want %q", n+1, got, given[n+1])
		}
	}
	wantSound(t, "saved at once", repos[1])
}
