package statedir_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// cuts is how many ways of losing what was not durable are looked at for every crash; half as many,
// twice, for every fault.
var cuts = flag.Int("cuts", 8, "power cuts for every crash")

// options have a clock that stands still: times are written to disk, and crashes are to be repeatable.
func options(keep int) statedir.Options {
	return statedir.Options{Keep: keep, Now: at("2026-11-22T17:42:03Z")}
}

// ledger is what a client of a state directory has been told, and so what must be found.
type ledger struct {
	content    string   // of the last save acknowledged; "" if there was none
	generation uint64   // its number
	tried      []string // of saves after it, which were not acknowledged: each may be in place
	highest    uint64   // the highest number that is taken
	evidence   []byte   // a damaged file's bytes, which must be kept
	modules    map[string]bool
}

func (l *ledger) clone() *ledger {
	c := *l
	c.modules = map[string]bool{}
	for m, acked := range l.modules {
		c.modules[m] = acked
	}
	return &c
}

// save saves and takes down the outcome.
func (l *ledger) save(d *statedir.Dir, content string) error {
	l.tried = append(slices.Clone(l.tried), content)
	g, err := save(d, service, store, content)
	if err == nil {
		l.content, l.generation, l.tried = content, g, nil
		l.highest = max(l.highest, g)
	}
	return err
}

func (l *ledger) keep(d *statedir.Dir, wasm string) error {
	l.modules[wasm] = l.modules[wasm] || false
	err := d.KeepModule(sha256.Sum256([]byte(wasm)), []byte(wasm))
	if err == nil {
		l.modules[wasm] = true
	}
	return err
}

// check opens what a crash has left and compares it with the ledger, then saves once more.
func (l *ledger) check(t *testing.T, what string, m *vfs.Mem, keep int) {
	t.Helper()
	d, err := statedir.Open(m, options(keep))
	if err != nil {
		t.Fatalf("%s: opening again: %v", what, err)
	}
	found := l.wantState(t, what, d)
	l.wantModules(t, what, d)
	wantNoTemps(t, what, m)

	// What was handed out must not be taken back, even by a power cut at this moment.
	again := m.PowerCut(rng(1))
	da, err := statedir.Open(again, options(keep))
	if err != nil {
		t.Fatalf("%s: opening after another power cut: %v", what, err)
	}
	if content, g, _, err := load(da, service, store); content != found.content || g != found.generation {
		t.Fatalf("%s: loaded %q of generation %d; after a power cut %q of generation %d, %v",
			what, found.content, found.generation, content, g, err)
	}

	wantSound(t, what, d)
	next := l.clone()
	if err := next.save(d, "later"); err != nil {
		t.Fatalf("%s: a later save: %v", what, err)
	}
	if next.generation <= max(l.highest, found.generation) {
		t.Fatalf("%s: generation %d was given again; %d was taken, %d found", what, next.generation, l.highest, found.generation)
	}
	gens, err := d.Generations(service, store)
	if err != nil || len(gens) > keep {
		t.Fatalf("%s: after the later save %d generations, %v; want at most %d", what, len(gens), err, keep)
	}
	if err := d.Close(); err != nil {
		t.Fatalf("%s: Close: %v", what, err)
	}
	after := m.PowerCut(rng(2))
	d, err = statedir.Open(after, options(keep))
	if err != nil {
		t.Fatalf("%s: opening after the later save: %v", what, err)
	}
	next.wantState(t, what+", later save", d)
	wantSound(t, what+", later save", d) // removals are not synced: more than keep may be there
	l.wantEvidence(t, what, after)
}

// wantSound fails if any generation that is kept and not set aside can not be loaded.
func wantSound(t *testing.T, what string, d *statedir.Dir) {
	t.Helper()
	gens, err := d.Generations(service, store)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	for _, g := range gens {
		if g.Err != nil {
			t.Fatalf("%s: generation %d: %v", what, g.Number, g.Err)
		}
	}
}

type loaded struct {
	content    string
	generation uint64
}

func (l *ledger) wantState(t *testing.T, what string, d *statedir.Dir) loaded {
	t.Helper()
	content, g, _, err := load(d, service, store)
	switch {
	case errors.Is(err, abi.ErrNotFound):
		if l.content != "" {
			t.Fatalf("%s: nothing is left; %q of generation %d was acknowledged", what, l.content, l.generation)
		}
	case err != nil:
		t.Fatalf("%s: loading: %v; %q of generation %d was acknowledged", what, err, l.content, l.generation)
	case content == l.content && g == l.generation:
	case slices.Contains(l.tried, content) && g > l.generation:
	default:
		t.Fatalf("%s: loaded %q of generation %d; want %q of generation %d or %q", what, content, g, l.content, l.generation, l.tried)
	}
	return loaded{content, g}
}

func (l *ledger) wantModules(t *testing.T, what string, d *statedir.Dir) {
	t.Helper()
	for wasm, acked := range l.modules {
		got, err := d.Module(sha256.Sum256([]byte(wasm)))
		switch {
		case err == nil && string(got) == wasm:
		case errors.Is(err, abi.ErrNotFound) && !acked:
		default:
			t.Fatalf("%s: module %.10q, acknowledged %t: %.10q, %v", what, wasm, acked, got, err)
		}
	}
}

func (l *ledger) wantEvidence(t *testing.T, what string, m *vfs.Mem) {
	t.Helper()
	if l.evidence == nil {
		return
	}
	for _, name := range names(t, m, folder) {
		if bytes.Equal(readFile(t, m, path.Join(folder, name)), l.evidence) {
			return
		}
	}
	t.Fatalf("%s: the damaged file is lost; the folder has %q", what, names(t, m, folder))
}

func wantNoTemps(t *testing.T, what string, m *vfs.Mem) {
	t.Helper()
	for _, f := range []string{folder, "modules"} {
		for _, name := range names(t, m, f) {
			if strings.Contains(name, ".tmp-") {
				t.Fatalf("%s: %s/%s was left behind", what, f, name)
			}
		}
	}
}

// script is a way of using a state directory that is to survive anything.
type script struct {
	name string
	keep int
	// prepare makes, without faults, what is there before.
	prepare func(t *testing.T, m *vfs.Mem, l *ledger)
	// act is what goes wrong at some point. It ends with its first error, but for what it can live with.
	act func(d *statedir.Dir, l *ledger) error
}

func scripts() []script {
	saves := func(keep int, contents ...string) func(*testing.T, *vfs.Mem, *ledger) {
		return func(t *testing.T, m *vfs.Mem, l *ledger) {
			d := open(t, m, options(keep))
			for _, c := range contents {
				check(t, l.save(d, c))
			}
			check(t, d.Close())
		}
	}
	damaged := func(trailer bool) func(*testing.T, *vfs.Mem, *ledger) {
		return func(t *testing.T, m *vfs.Mem, l *ledger) {
			saves(2, "one", "two")(t, m, l)
			before := *l
			saves(2, "damaged")(t, m, l)
			l.content, l.generation = before.content, before.generation
			l.evidence = damage(t, m, current, trailer)
		}
	}
	loads := func(d *statedir.Dir, _ *ledger) error {
		_, _, _, err := load(d, service, store)
		return err
	}
	wasm := strings.Repeat("\x00asm", 700)
	return []script{
		{name: "first save", keep: 2,
			prepare: func(*testing.T, *vfs.Mem, *ledger) {},
			act:     func(d *statedir.Dir, l *ledger) error { return l.save(d, "first") }},
		{name: "later save", keep: 2,
			prepare: saves(2, "one", "two", "three"),
			act:     func(d *statedir.Dir, l *ledger) error { return l.save(d, "four") }},
		{name: "only the newest kept", keep: 1,
			prepare: saves(1, "one", "two"),
			act:     func(d *statedir.Dir, l *ledger) error { return l.save(d, "three") }},
		{name: "pruning several", keep: 2,
			prepare: saves(5, "one", "two", "three", "four", "five"),
			act:     func(d *statedir.Dir, l *ledger) error { return l.save(d, "six") }},
		{name: "three saves", keep: 3,
			prepare: saves(3, "one"),
			act: func(d *statedir.Dir, l *ledger) error {
				for _, c := range []string{"two", "three", "four"} {
					if err := l.save(d, c); err != nil {
						return err
					}
				}
				return nil
			}},
		{name: "aborted save", keep: 2,
			prepare: saves(2, "one"),
			act: func(d *statedir.Dir, l *ledger) error {
				p, err := d.Begin(service, store)
				if err != nil {
					return err
				}
				defer p.Abort()
				return encode(p, service, store, p.Generation(), "dropped")
			}},
		{name: "quarantine at opening", keep: 2, prepare: damaged(true), act: loads},
		{name: "quarantine at reading", keep: 2, prepare: damaged(false), act: loads},
		{name: "quarantine by a save", keep: 2, prepare: damaged(true),
			act: func(d *statedir.Dir, l *ledger) error { return l.save(d, "three") }},
		{name: "quarantine, then a save", keep: 2, prepare: damaged(false),
			act: func(d *statedir.Dir, l *ledger) error {
				if err := loads(d, l); err != nil {
					return err // a service that could not be loaded must not be saved
				}
				return l.save(d, "three")
			}},
		{name: "module", keep: 2,
			prepare: saves(2, "one"),
			act: func(d *statedir.Dir, l *ledger) error {
				if err := l.keep(d, wasm); err != nil {
					return err
				}
				return l.save(d, "by the module")
			}},
		{name: "module written anew", keep: 2,
			prepare: func(t *testing.T, m *vfs.Mem, l *ledger) {
				d := open(t, m, options(0))
				check(t, l.keep(d, wasm))
				check(t, d.Close())
			},
			act: func(d *statedir.Dir, l *ledger) error { return l.keep(d, wasm) }},
		{name: "module of a process that died", keep: 2,
			prepare: func(t *testing.T, m *vfs.Mem, l *ledger) {
				// It died before the sync of the folder: the module is there, its name is not durable.
				w := vfs.Faulty(m, vfs.Fault{})
				d := open(t, w, options(0))
				w.Inject(vfs.Fault{At: 1, Err: vfs.ErrCrashed, Sticky: true,
					Match: func(op vfs.Op, name string) bool { return op == vfs.OpSync && name == "modules" }})
				if err := l.keep(d, wasm); !errors.Is(err, vfs.ErrCrashed) {
					t.Fatal(err)
				}
				check(t, d.Close())
			},
			act: func(d *statedir.Dir, l *ledger) error { return l.keep(d, wasm) }},
	}
}

// TestCrash crashes every script at its k-th operation for every k, looks at what a killed process and
// what a power cut leave, and checks that it is what was there before or after, that nothing
// acknowledged is lost, and that life goes on.
func TestCrash(t *testing.T) {
	for _, s := range scripts() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			base := vfs.NewMem()
			before := &ledger{modules: map[string]bool{}}
			s.prepare(t, base, before)
			crashes := 0
			for k := 1; ; k++ {
				m, l := base.Kill(), before.clone()
				w := vfs.Faulty(m, vfs.Crash(k))
				d, err := statedir.Open(w, options(s.keep))
				if err == nil {
					err = s.act(d, l)
				}
				if !w.Fired() {
					check(t, err)
					l.check(t, "without a crash", m.PowerCut(rng(0)), s.keep)
					break
				}
				crashes++
				l.check(t, fmt.Sprintf("killed at operation %d", k), m.Kill(), s.keep)
				for cut := range *cuts {
					l.check(t, fmt.Sprintf("power cut %d at operation %d", cut, k), m.PowerCut(rng(cut)), s.keep)
				}
			}
			if crashes < 5 {
				t.Errorf("only %d crashes: is anything counted?", crashes)
			}
			t.Logf("%d crashes, %d power cuts each", crashes, *cuts)
		})
	}
}

// faults are what a disk can do to a process that lives on.
func faults() map[string]func(k int) vfs.Fault {
	writing := func(op vfs.Op, _ string) bool {
		return op == vfs.OpWrite || op == vfs.OpOpen || op == vfs.OpMkdir || op == vfs.OpSync || op == vfs.OpRename
	}
	return map[string]func(k int) vfs.Fault{
		"EIO":              func(k int) vfs.Fault { return vfs.Fault{At: k, Err: syscall.EIO} },
		"EIO though done":  func(k int) vfs.Fault { return vfs.Fault{At: k, Err: syscall.EIO, Extent: vfs.All} },
		"EIO from then on": func(k int) vfs.Fault { return vfs.Fault{At: k, Err: syscall.EIO, Sticky: true} },
		"disk full":        func(k int) vfs.Fault { return vfs.Fault{At: k, Err: syscall.ENOSPC, Extent: vfs.Part, Match: writing} },
		"disk full from then on": func(k int) vfs.Fault {
			return vfs.Fault{At: k, Err: syscall.ENOSPC, Extent: vfs.Part, Sticky: true, Match: writing}
		},
		"read-only from then on": func(k int) vfs.Fault { return vfs.Fault{At: k, Err: syscall.EROFS, Sticky: true, Match: writing} },
		"sync fails":             func(k int) vfs.Fault { return vfs.Fault{At: k, Err: syscall.EIO, Match: only(vfs.OpSync)} },
		"sync fails from then on": func(k int) vfs.Fault {
			return vfs.Fault{At: k, Err: syscall.EIO, Sticky: true, Match: only(vfs.OpSync)}
		},
		"rename fails": func(k int) vfs.Fault { return vfs.Fault{At: k, Err: syscall.EIO, Match: only(vfs.OpRename)} },
		"rename fails though done": func(k int) vfs.Fault {
			return vfs.Fault{At: k, Err: syscall.EIO, Extent: vfs.All, Match: only(vfs.OpRename)}
		},
		"renames fail from then on": func(k int) vfs.Fault {
			return vfs.Fault{At: k, Err: syscall.EIO, Sticky: true, Match: only(vfs.OpRename)}
		},
	}
}

func only(wanted vfs.Op) func(vfs.Op, string) bool {
	return func(op vfs.Op, _ string) bool { return op == wanted }
}

// TestFault lets the k-th operation of every script fail for every k, and the process live on: what was
// acknowledged stays loadable, in the process and after a crash; and as soon as the disk is well again,
// a save succeeds and is durable.
func TestFault(t *testing.T) {
	for _, s := range scripts() {
		for kind, fault := range faults() {
			t.Run(s.name+"/"+kind, func(t *testing.T) {
				t.Parallel()
				base := vfs.NewMem()
				before := &ledger{modules: map[string]bool{}}
				s.prepare(t, base, before)
				for k := 1; ; k++ {
					m, l := base.Kill(), before.clone()
					w := vfs.Faulty(m, vfs.Fault{})
					d := open(t, w, options(s.keep))
					w.Inject(fault(k))
					err := s.act(d, l)
					fired := w.Fired()
					if err != nil && !fired {
						t.Fatal(err)
					}
					what := fmt.Sprintf("after a fault at operation %d (%v)", k, err)
					w.Inject(vfs.Fault{})
					for cut := range (*cuts + 1) / 2 {
						l.check(t, fmt.Sprintf("%s, power cut %d", what, cut), m.PowerCut(rng(cut)), s.keep)
					}
					l.wantState(t, what, d)
					l.wantModules(t, what, d)
					if err := l.save(d, "well again"); err != nil {
						t.Fatalf("%s, a save on a disk that is well again: %v", what, err)
					}
					l.wantState(t, what+", saved again", d)
					l.wantEvidence(t, what+", saved again", m)
					for cut := range (*cuts + 1) / 2 {
						l.check(t, fmt.Sprintf("%s, saved again, power cut %d", what, cut), m.PowerCut(rng(cut)), s.keep)
					}
					check(t, d.Close())
					if !fired {
						break
					}
				}
			})
		}
	}
}

// TestFailedSaveLeavesTheFolderAsItWas: not only what is loaded, also what lies there, for all steps up
// to the sync of the folder.
func TestFailedSaveLeavesTheFolderAsItWas(t *testing.T) {
	for _, fault := range []vfs.Fault{
		{At: 2, Err: syscall.ENOSPC, Extent: vfs.Part, Match: only(vfs.OpWrite)},
		{At: 1, Err: syscall.EIO, Match: only(vfs.OpSync)},
		{At: 1, Err: syscall.EIO, Match: only(vfs.OpRename)}, // newest to its generation's name
		{At: 2, Err: syscall.EIO, Match: only(vfs.OpRename)}, // new to newest
		{At: 2, Err: syscall.EIO, Extent: vfs.All, Match: only(vfs.OpRename)},
	} {
		m := vfs.NewMem()
		w := vfs.Faulty(m, vfs.Fault{})
		d := open(t, w, options(0))
		mustSave(t, d, "one")
		mustSave(t, d, "two")
		before := map[string]string{}
		for _, name := range names(t, m, folder) {
			before[name] = string(readFile(t, m, path.Join(folder, name)))
		}
		w.Inject(fault)
		if _, err := save(d, service, store, "three"); !errors.Is(err, fault.Err) || !strings.Contains(err.Error(), "s3/store") {
			t.Errorf("%+v: save = %v", fault, err)
		}
		for _, name := range names(t, m, folder) {
			if before[name] != string(readFile(t, m, path.Join(folder, name))) {
				t.Errorf("%+v: %s has changed or is new", fault, name)
			}
			delete(before, name)
		}
		for name := range before {
			t.Errorf("%+v: %s is gone", fault, name)
		}
		check(t, d.Close())
	}
}

// TestFaultAtOpen: whatever fails while a directory is opened, nothing is held afterwards and nothing
// is lost.
func TestFaultAtOpen(t *testing.T) {
	for kind, fault := range faults() {
		base := vfs.NewMem()
		l := &ledger{modules: map[string]bool{}}
		d := open(t, base, options(0))
		check(t, l.save(d, "one"))
		check(t, d.Close())
		writeFile(t, base, folder+"/store.state.tmp-1", []byte("left behind"))
		for k := 1; ; k++ {
			m := base.Kill()
			w := vfs.Faulty(m, fault(k))
			d, err := statedir.Open(w, options(0))
			fired := w.Fired()
			if err == nil {
				check(t, d.Close())
			} else if !fired {
				t.Fatal(err)
			}
			w.Inject(vfs.Fault{})
			d, err = statedir.Open(w, options(0))
			if err != nil {
				t.Fatalf("%s at operation %d: opening on a disk that is well again: %v", kind, k, err)
			}
			check(t, d.Close())
			l.check(t, fmt.Sprintf("%s at operation %d", kind, k), m, 2)
			if !fired {
				break
			}
		}
	}
}

// TestSoak does all of this at random, for long: saves, loads, faults, deaths, power cuts, damage.
func TestSoak(t *testing.T) {
	lives, seeds := 30, 4*(*cuts)
	kinds := faults()
	order := make([]string, 0, len(kinds))
	for kind := range kinds {
		order = append(order, kind)
	}
	slices.Sort(order)
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rng(seed)
			keep := 1 + r.IntN(3)
			m := vfs.NewMem()
			l := &ledger{modules: map[string]bool{}}
			content := 0
			for life := range lives {
				w := vfs.Faulty(m, vfs.Fault{})
				d, err := statedir.Open(w, options(keep))
				check(t, err)
				// The first load settles what the last life's end has left.
				found := l.wantState(t, fmt.Sprintf("life %d", life), d)
				l.content, l.generation, l.tried = found.content, found.generation, nil
				l.highest = max(l.highest, found.generation)
				crash := r.IntN(2) == 0
				if crash {
					w.Inject(vfs.Crash(1 + r.IntN(150)))
				}
				for range r.IntN(8) {
					if !crash && r.IntN(2) == 0 {
						w.Inject(kinds[order[r.IntN(len(order))]](1 + r.IntN(25)))
					}
					content++
					if err := l.save(d, fmt.Sprint("content ", content)); err != nil {
						if !w.Fired() {
							t.Fatalf("life %d: %v", life, err)
						}
						if crash {
							break // a dead process tries nothing else
						}
					}
					if !crash {
						w.Inject(vfs.Fault{})
						l.wantState(t, fmt.Sprintf("life %d", life), d)
					}
				}
				switch r.IntN(3) {
				case 0:
					m = m.Kill()
				default:
					m = m.PowerCut(r)
				}
			}
		})
	}
}
