package repository_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/remote/folder"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// cuts is how many ways of losing what was not durable are looked at for every crash.
var cuts = flag.Int("cuts", 3, "power cuts for every crash")

// ledger is what whoever used a repository has been told, and so what must be found.
type ledger struct {
	saved   map[repository.Ref]string   // acknowledged
	tried   map[string][]string         // by name: what was not acknowledged, and may be there
	removed map[repository.Ref]bool     // acknowledged
	going   map[repository.Ref]struct{} // removals that were not acknowledged
}

func newLedger() *ledger {
	return &ledger{saved: map[repository.Ref]string{}, tried: map[string][]string{}, removed: map[repository.Ref]bool{}, going: map[repository.Ref]struct{}{}}
}

// crashState is a state that one text changes a little: most of it is kept as a change.
func crashState(t testing.TB, content string) []byte {
	s := newState(60, 20, 1)
	s.keys = append(s.keys, "text")
	s.values["text"] = []byte(content)
	return encode(t, header("orders", "store"), s.records())
}

func (l *ledger) save(t testing.TB, r *repository.Repository, name, content string) {
	v, err := r.Save(context.Background(), name, shot(t, crashState(t, content)), repository.SaveOptions{})
	if err != nil {
		l.tried[name] = append(l.tried[name], content)
		return
	}
	ref := repository.Ref{Name: name, Version: v.Number}
	if was, twice := l.saved[ref]; twice {
		t.Fatalf("%v was given to %q and %q", ref, was, content)
	}
	l.saved[ref] = content
}

func (l *ledger) remove(r *repository.Repository, name string, version uint64) {
	ref := repository.Ref{Name: name, Version: version}
	if err := r.Remove(context.Background(), name, version); err == nil {
		l.removed[ref] = true
	} else if !errors.Is(err, abi.ErrNotFound) {
		l.going[ref] = struct{}{}
	}
}

// work saves, removes and collects.
func (l *ledger) work(t testing.TB, r *repository.Repository) {
	l.save(t, r, "a", "a1")
	l.save(t, r, "a", "a2")
	l.save(t, r, "B", "b1")
	l.remove(r, "a", 1)
	_, _ = r.Collect(context.Background(), repository.CollectOptions{Grace: -1})
	l.save(t, r, "a", "a3")
	l.remove(r, "B", 1)
	l.remove(r, "a", 2)
	_, _ = r.Collect(context.Background(), repository.CollectOptions{Grace: -1})
}

// check opens what is left and compares it with the ledger, then goes on with it.
func (l *ledger) check(t *testing.T, what string, m *vfs.Mem) {
	t.Helper()
	r := openFresh(t, m)
	summaries, err := r.List(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	found := map[repository.Ref]string{}
	for _, s := range summaries {
		versions, err := r.Versions(t.Context(), s.Name)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for _, v := range versions {
			ref := repository.Ref{Name: s.Name, Version: v.Number}
			all, err := load(r, s.Name, v.Number, seal.Key{})
			if err != nil {
				t.Fatalf("%s: %v is there and not whole: %v", what, ref, err)
			}
			for _, content := range append(slices.Clone(l.tried[s.Name]), l.saved[ref]) {
				if records := encode(t, header("orders", "store"), []byte(all["orders/store"])); content != "" && string(records) == string(crashState(t, content)) {
					found[ref] = content
				}
			}
			if acked, ok := l.saved[ref]; found[ref] == "" || ok && found[ref] != acked || l.removed[ref] {
				t.Fatalf("%s: %v holds %q, acknowledged was %q, its removal %t", what, ref, found[ref], acked, l.removed[ref])
			}
		}
	}
	for ref, content := range l.saved {
		if _, going := l.going[ref]; found[ref] == "" && !l.removed[ref] && !going {
			t.Fatalf("%s: %v, acknowledged with %q, is not there", what, ref, content)
		}
	}
	wantSound(t, what, r)
	if _, err := r.Collect(t.Context(), repository.CollectOptions{Grace: -1}); err != nil {
		t.Fatalf("%s: collecting: %v", what, err)
	}
	for _, name := range []string{"a", "B"} {
		v, err := r.Save(t.Context(), name, shot(t, crashState(t, "later")), repository.SaveOptions{})
		if err != nil {
			t.Fatalf("%s: saving later: %v", what, err)
		}
		if _, taken := l.saved[repository.Ref{Name: name, Version: v.Number}]; taken {
			t.Fatalf("%s: version %d of %s was given again", what, v.Number, name)
		}
	}
	wantSound(t, what+", later", r)
}

func openFresh(t testing.TB, fsys vfs.FS) *repository.Repository { return open(t, fsys, newClock()) }

func TestCrashAnywhere(t *testing.T) {
	for k := 1; ; k += *every {
		m := vfs.NewMem()
		fsys := vfs.Faulty(m, vfs.Crash(k))
		l := newLedger()
		l.work(t, openFresh(t, fsys))
		what := fmt.Sprint("crash at operation ", k)
		l.check(t, what, m.Kill())
		for cut := range *cuts {
			l.check(t, fmt.Sprint(what, ", power cut ", cut), m.PowerCut(rand.New(rand.NewPCG(uint64(k), uint64(cut)))))
		}
		if !fsys.Fired() {
			if k < 100 {
				t.Fatalf("only %d operations", k)
			}
			if len(l.tried)+len(l.going) > 0 || len(l.saved) != 4 || len(l.removed) != 3 {
				t.Fatalf("without a crash: %+v", l)
			}
			break
		}
	}
}

// An operation fails, and the process goes on.
func TestFaultAnywhere(t *testing.T) {
	for _, extent := range []vfs.Extent{vfs.Nothing, vfs.Part, vfs.All} {
		for k := 1 + int(extent); ; k += *every {
			m := vfs.NewMem()
			fsys := vfs.Faulty(m, vfs.Fault{At: k, Err: syscall.EIO, Extent: extent})
			l := newLedger()
			r := openFresh(t, fsys)
			l.work(t, r)
			what := fmt.Sprintf("fault at operation %d, extent %d", k, extent)
			l.check(t, what, m.Kill())
			l.check(t, what+", power cut", m.PowerCut(rand.New(rand.NewPCG(uint64(k), 1))))
			if !fsys.Fired() {
				break
			}
		}
	}
}

// A second process that crashes while it puts a blob is not in the way of the first.
func TestCrashBesideAnother(t *testing.T) {
	for k := 1; ; k++ {
		m := vfs.NewMem()
		r := openFresh(t, m)
		save(t, r, "a", shot(t, crashState(t, "before")), seal.Lock{})
		fsys := vfs.Faulty(m, vfs.Crash(k))
		if err := folder.Open(fsys).Put(t.Context(), "packs/other", bytes.NewReader(make([]byte, 1000)), 1000); err != nil != fsys.Fired() {
			t.Fatalf("Put: %v", err)
		}
		v := save(t, r, "a", shot(t, crashState(t, "after")), seal.Lock{})
		if v.Number != 2 {
			t.Fatalf("crash at operation %d of another: number %d", k, v.Number)
		}
		wantSound(t, fmt.Sprintf("crash at operation %d of another", k), r)
		if !fsys.Fired() {
			break
		}
	}
}
