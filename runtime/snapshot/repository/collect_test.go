package repository_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
	"github.com/torpor-run/torpor/runtime/vfs"
)

func collect(t testing.TB, r *repository.Repository, o repository.CollectOptions) repository.Collected {
	t.Helper()
	c, err := r.Collect(t.Context(), o)
	if err != nil {
		t.Fatalf("Collect: %v", err)
	}
	return c
}

func TestCollect(t *testing.T) {
	m, c := vfs.NewMem(), newClock()
	r := open(t, m, c)
	s := newState(20_000, 200, 1)
	kept := shot(t, encode(t, header("orders", "store"), s.records()))
	save(t, r, "kept", kept, seal.Lock{})
	full := bytesIn(blobs(t, m, "packs/"))
	other := shot(t, encode(t, header("payments", "store"), newState(20_000, 200, 2).records()))
	save(t, r, "gone", other, seal.Lock{})
	both := bytesIn(blobs(t, m, "packs/"))
	if got := collect(t, r, repository.CollectOptions{Grace: -1}); got.Packs != 0 || got.Freed != 0 || got.Kept != both || got.Waiting != 0 {
		t.Errorf("with nothing to do: %+v; there are %d bytes", got, both)
	}
	c.now = c.now.Add(repository.DefaultGrace + time.Second)
	if err := r.Remove(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	// Someone may have begun to save while it was there, and rely on it.
	if got := collect(t, r, repository.CollectOptions{}); got.Packs != 0 || got.Freed != 0 || got.Kept != both || got.Waiting < full*9/10 {
		t.Errorf("within the grace time: %+v", got)
	}
	c.now = c.now.Add(repository.DefaultGrace + time.Second)
	dry := collect(t, r, repository.CollectOptions{DryRun: true})
	if now := bytesIn(blobs(t, m, "packs/")); now != both {
		t.Fatalf("a dry run left %d of %d bytes", now, both)
	}
	var last, total int64
	got := collect(t, r, repository.CollectOptions{Progress: func(d, n int64) { last, total = d, n }})
	now := bytesIn(blobs(t, m, "packs/"))
	if got.Freed != both-now || got.Kept != now || got.Waiting != 0 || now > full*101/100 || last != total || total == 0 {
		t.Errorf("collected %+v, progress %d of %d; there were %d bytes, %d are left of which %d were needed", got, last, total, both, now, full)
	}
	dry.DryRun = false
	if dry != got {
		t.Errorf("the dry run said %+v, then it was %+v", dry, got)
	}
	wantLoaded(t, open(t, m, c), "kept", 0, seal.Key{}, kept)
	wantLoaded(t, r, "kept", 0, seal.Key{}, kept)
	wantSound(t, "collected", r)
	if v := save(t, r, "gone", small(t, "again"), seal.Lock{}); v.Number != 2 {
		t.Errorf("after collecting, number %d was given", v.Number)
	}
}

// What is left of a version that others are changes of is kept; packs that hold little else are written anew.
func TestCollectWritesAnew(t *testing.T) {
	m, c := vfs.NewMem(), newClock()
	r := open(t, m, c)
	s := newState(20_000, 200, 1)
	versions := []int{1, 2, 3, 4}
	for range versions {
		save(t, r, "a", shot(t, encode(t, header("orders", "store"), s.records()), encode(t, header("large", "assets"), newState(1000, 3000, uint64(s.values[s.keys[0]][0])).records())), seal.Lock{})
		s.change(0.3, uint64(len(blobs(t, m, ""))))
	}
	want, err := r.Open(t.Context(), "a", 4, seal.Key{})
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	if err := r.Remove(t.Context(), "a", 1, 2, 3); err != nil {
		t.Fatal(err)
	}
	before := bytesIn(blobs(t, m, "packs/"))
	got := collect(t, r, repository.CollectOptions{Grace: -1})
	after := bytesIn(blobs(t, m, "packs/"))
	if got.Rewrote == 0 || got.Freed != before-after || after > before*9/10 {
		t.Errorf("collected %+v; there were %d bytes, there are %d", got, before, after)
	}
	wantLoaded(t, open(t, m, c), "a", 0, seal.Key{}, want) // want itself reads from what was written anew
	wantSound(t, "written anew", r)
	if again := collect(t, r, repository.CollectOptions{Grace: -1}); again.Packs != 0 || again.Kept != after {
		t.Errorf("collecting again: %+v", again)
	}
}

func TestCollectPutsSmallPacksTogether(t *testing.T) {
	m := vfs.NewMem()
	r := open(t, m, newClock())
	for i := range 40 {
		save(t, r, "a", small(t, fmt.Sprint(i)), seal.Lock{})
	}
	before := blobs(t, m, "packs/")
	got := collect(t, r, repository.CollectOptions{Grace: -1})
	after := blobs(t, m, "packs/")
	if got.Rewrote != len(before) || len(after) != 1 || got.Freed != bytesIn(before)-bytesIn(after) {
		t.Errorf("collected %+v; of %d packs there are %d", got, len(before), len(after))
	}
	for i := range 40 {
		if got := text(t, r, "a", uint64(i+1)); got != fmt.Sprint(i) {
			t.Errorf("version %d is %q", i+1, got)
		}
	}
	wantSound(t, "put together", r)
}

// What a snapshot that is open needs is left alone, though its version has been removed.
func TestCollectSparesWhatIsOpen(t *testing.T) {
	m := vfs.NewMem()
	r := open(t, m, newClock())
	in := shot(t, encode(t, header("orders", "store"), newState(20_000, 200, 1).records()))
	save(t, r, "a", in, seal.Lock{})
	s, err := r.Open(t.Context(), "a", 0, seal.Key{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Remove(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if got := collect(t, r, repository.CollectOptions{Grace: -1}); got.Packs != 0 {
		t.Errorf("collected %+v", got)
	}
	if _, err := contents(s); err != nil {
		t.Errorf("reading what was open: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := collect(t, r, repository.CollectOptions{Grace: -1}); got.Packs == 0 || got.Kept != 0 {
		t.Errorf("collected %+v", got)
	}
}

// Orphans are packs of a save that never came to its commit.
func TestCollectOrphans(t *testing.T) {
	m, c := vfs.NewMem(), newClock()
	r := open(t, m, c)
	save(t, r, "a", small(t, "kept"), seal.Lock{})
	w := vfs.Faulty(m, vfs.Fault{})
	broken := open(t, w, c)
	w.Inject(vfs.Fault{At: 1, Err: errors.New("broken"), Sticky: true, Match: func(op vfs.Op, name string) bool {
		return op == vfs.OpRename && name[:4] == "comm"
	}})
	in := shot(t, encode(t, header("orders", "store"), newState(20_000, 200, 1).records()))
	if _, err := broken.Save(t.Context(), "a", in, repository.SaveOptions{}); err == nil {
		t.Fatal("Save: no error")
	}
	if got := text(t, r, "a", 0); got != "kept" {
		t.Errorf("the newest version is %q", got)
	}
	orphans := bytesIn(blobs(t, m, "packs/"))
	c.now = c.now.Add(time.Second)
	// Whoever saves the same does not rely on them: they may be collected at any moment.
	if v := save(t, r, "b", in, seal.Lock{}); v.Stored < orphans*9/10 {
		t.Errorf("a version of %d bytes relies on packs that no other needs", v.Stored)
	}
	if got := collect(t, r, repository.CollectOptions{}); got.Packs != 0 || got.Waiting < orphans*8/10 {
		t.Errorf("collected %+v of packs that may be another's", got)
	}
	c.now = c.now.Add(2 * repository.DefaultGrace)
	if got := collect(t, r, repository.CollectOptions{}); got.Freed < orphans*8/10 {
		t.Errorf("collected %+v of %d bytes", got, orphans)
	}
	wantLoaded(t, r, "b", 0, seal.Key{}, in)
	wantSound(t, "collected", r)
}

// While it is not known what a version needs, nothing is deleted.
func TestCollectRefusesWhatIsDamaged(t *testing.T) {
	m := vfs.NewMem()
	r := open(t, m, newClock())
	save(t, r, "a", small(t, "1"), seal.Lock{})
	save(t, r, "a", shot(t, encode(t, header("orders", "store"), newState(20_000, 200, 1).records())), seal.Lock{})
	commit := "commits/a/000000000001"
	sound := blobs(t, m, "commits/")[commit]
	damaged := append([]byte{}, sound...)
	damaged[20] ^= 1
	replace(t, m, commit, damaged)
	if err := r.Remove(t.Context(), "a", 2); err != nil {
		t.Fatal(err)
	}
	r = open(t, m, newClock())
	before := len(blobs(t, m, "packs/"))
	if _, err := r.Collect(t.Context(), repository.CollectOptions{Grace: -1}); !errors.Is(err, abi.ErrCorrupt) || len(blobs(t, m, "packs/")) != before {
		t.Errorf("Collect: %v; of %d packs there are %d", err, before, len(blobs(t, m, "packs/")))
	}
	replace(t, m, commit, sound)
	if got := collect(t, r, repository.CollectOptions{Grace: -1}); got.Freed == 0 || text(t, r, "a", 1) != "1" {
		t.Errorf("put right again: %+v", got)
	}
	replace(t, m, commit, damaged)
	r = open(t, m, newClock())
	if err := r.Remove(t.Context(), "a", 1); err != nil {
		t.Fatalf("removing a damaged version: %v", err)
	}
	if got := collect(t, r, repository.CollectOptions{Grace: -1}); got.Kept != 0 {
		t.Errorf("without the damaged version: %+v", got)
	}
}

// Saving, removing, reading and collecting at once, by two of the same place, leaves every version whole.
func TestCollectBesideOthers(t *testing.T) {
	m, c := vfs.NewMem(), newClock()
	one, two := open(t, m, c), open(t, m, c)
	var wg sync.WaitGroup
	for i := range 4 {
		r, name := one, fmt.Sprint("n", i%2)
		if i >= 2 {
			r = two
		}
		wg.Go(func() {
			for j := range 8 {
				v, err := r.Save(t.Context(), name, small(t, fmt.Sprint(i, j)), repository.SaveOptions{})
				if err != nil {
					t.Errorf("Save: %v", err)
					return
				}
				if got := text(t, r, name, v.Number); got != fmt.Sprint(i, j) {
					t.Errorf("version %d holds %q", v.Number, got)
				}
				if j%2 == 0 {
					if err := r.Remove(t.Context(), name, v.Number); err != nil {
						t.Errorf("Remove: %v", err)
					}
				}
			}
		})
	}
	for range 10 {
		// One collects without a grace time beside what it does itself; the other is not kept from it by that, so that
		// there the grace time is what keeps packs.
		for _, r := range []*repository.Repository{one, two} {
			if _, err := r.Collect(t.Context(), repository.CollectOptions{}); err != nil {
				t.Errorf("Collect: %v", err)
			}
		}
	}
	wg.Wait()
	collect(t, one, repository.CollectOptions{Grace: -1})
	for _, name := range []string{"n0", "n1"} {
		versions, err := two.Versions(t.Context(), name)
		if err != nil || len(versions) != 8 {
			t.Errorf("%s has %d versions, %v", name, len(versions), err)
		}
		for _, v := range versions {
			text(t, two, name, v.Number)
		}
	}
	wantSound(t, "after all that", two)
}

// One process, no grace time: saves wait for what is being collected, and the other way around.
func TestCollectWhileSaving(t *testing.T) {
	m, c := vfs.NewMem(), newClock()
	r := open(t, m, c)
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			for j := range 10 {
				v, err := r.Save(t.Context(), "a", small(t, fmt.Sprint(j)), repository.SaveOptions{})
				if err == nil && text(t, r, "a", v.Number) == fmt.Sprint(j) && (i+j)%3 == 0 {
					err = r.Remove(t.Context(), "a", v.Number)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 20 {
		collect(t, r, repository.CollectOptions{Grace: -1})
	}
	wg.Wait()
	wantSound(t, "after all that", r)
}
