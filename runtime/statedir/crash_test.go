package statedir_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// cuts is how many ways of losing what was not durable are looked at for every crash; an eighth of them,
// three times, for every fault, of which there are many more.
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
	mine       map[string]bool // modules the process at work was told are kept
	deltas     int             // acknowledged ones

	pins      map[string]string   // acknowledged: name to module, "" for none
	triedPins map[string][]string // after them: each may be in place
}

func newLedger() *ledger {
	return &ledger{modules: map[string]bool{}, mine: map[string]bool{}, pins: map[string]string{}, triedPins: map[string][]string{}}
}

// clone is for another process.
func (l *ledger) clone() *ledger {
	c := *l
	c.modules, c.mine = map[string]bool{}, map[string]bool{}
	for m, acked := range l.modules {
		c.modules[m] = acked
	}
	c.pins, c.triedPins = maps.Clone(l.pins), maps.Clone(l.triedPins)
	return &c
}

// save saves and takes down the outcome.
func (l *ledger) save(d *statedir.Dir, content string) error {
	return l.saveBy(d, defaultModule, content)
}

func (l *ledger) saveBy(d *statedir.Dir, module, content string) error {
	l.tried = append(slices.Clone(l.tried), content)
	g, err := saveBy(d, module, service, store, content)
	l.outcome(content, g, err)
	return err
}

func (l *ledger) outcome(content string, g uint64, err error) {
	if err == nil {
		l.content, l.generation, l.tried = content, g, nil
		l.highest = max(l.highest, g)
	}
}

// change saves the change of a key, as a delta if it can be one, and takes down the outcome.
func (l *ledger) change(d *statedir.Dir, key, value string) error {
	content := changed(l.content, key, value)
	before := l.tried
	l.tried = append(slices.Clone(l.tried), content)
	g, err := saveDelta(d, l.generation, l.content, key, value)
	if errors.Is(err, errFull) || errors.Is(err, statedir.ErrDeltaTooLarge) {
		l.tried = before
		return l.save(d, content)
	}
	if err == nil {
		l.deltas++
	}
	l.outcome(content, g, err)
	return err
}

func (l *ledger) keep(d *statedir.Dir, wasm string) error {
	l.modules[wasm] = l.modules[wasm] || false
	err := d.KeepModule(sha256.Sum256([]byte(wasm)), []byte(wasm))
	if err == nil {
		l.modules[wasm], l.mine[wasm] = true, true
	}
	return err
}

// pin gives a name to a module; "" takes the name away.
func (l *ledger) pin(d *statedir.Dir, name, wasm string) error {
	l.triedPins[name] = append(slices.Clone(l.triedPins[name]), wasm)
	var err error
	if wasm == "" {
		err = d.Unpin(name)
	} else {
		_, _, err = d.Pin(name, "1.0.0", []byte(wasm))
	}
	if err == nil {
		l.pins[name] = wasm
		delete(l.triedPins, name)
	}
	return err
}

// wantPins fails unless every name stands for what was acknowledged or tried later, and that is there.
func (l *ledger) wantPins(t *testing.T, what string, d *statedir.Dir) (found map[string]string) {
	t.Helper()
	pins, err := d.Pins()
	if err != nil {
		t.Fatalf("%s: pins: %v", what, err)
	}
	found = map[string]string{}
	for _, p := range pins {
		wasm, err := d.Module(p.Digest)
		if err != nil {
			t.Fatalf("%s: the module pinned as %s: %v", what, p.Name, err)
		}
		found[p.Name] = string(wasm)
	}
	names := maps.Clone(l.pins)
	for name := range l.triedPins {
		names[name] = l.pins[name]
	}
	for name := range found {
		names[name] = l.pins[name]
	}
	for name, acked := range names {
		if got := found[name]; got != acked && !slices.Contains(l.triedPins[name], got) {
			t.Fatalf("%s: %s is pinned to %.10q; want %.10q or %.10q", what, name, got, acked, l.triedPins[name])
		}
	}
	return found
}

// survived remembers, by SHA-256, what checkCut has found well.
var survived sync.Map

// checkCut is check for what a power cut has left. Of that everything is durable, so that its names and bytes are all
// there is to it, and check does the same each time: what is alike, as most of what a fault or a cut can leave is, is
// looked at once. Where two files have the same bytes they may be one of two names, so that is always looked at.
func (l *ledger) checkCut(t *testing.T, what string, m *vfs.Mem, keep int) {
	t.Helper()
	h := sha256.New()
	fmt.Fprintf(h, "%d %q %d %q %d %q %v %q %q\n", keep, l.content, l.generation, l.tried, l.highest, l.evidence, l.modules, l.pins, l.triedPins)
	files := map[string]bool{}
	twice := hashTree(t, h, files, m, ".")
	sum := [sha256.Size]byte(h.Sum(nil))
	if _, seen := survived.Load(sum); seen && !twice {
		return
	}
	l.check(t, what, m, keep)
	survived.Store(sum, true)
}

// hashTree writes all names and bytes of a folder, puts the bytes of its files into files and says whether some were
// there before.
func hashTree(t *testing.T, w io.Writer, files map[string]bool, fsys vfs.FS, folder string) (twice bool) {
	t.Helper()
	entries, err := fsys.ReadDir(folder)
	check(t, err)
	for _, e := range entries {
		name := path.Join(folder, e.Name)
		if e.Type.IsDir() {
			fmt.Fprintf(w, "%q/\n", name)
			twice = hashTree(t, w, files, fsys, name) || twice
			continue
		}
		b := readFile(t, fsys, name)
		fmt.Fprintf(w, "%q %d\n", name, len(b))
		_, _ = w.Write(b) // to a hash
		twice = twice || files[string(b)]
		files[string(b)] = true
	}
	return twice
}

// check opens what a crash has left and compares it with the ledger, then saves once more.
func (l *ledger) check(t *testing.T, what string, m *vfs.Mem, keep int) {
	t.Helper()
	d, err := statedir.Open(m, options(keep))
	if err != nil {
		t.Fatalf("%s: opening again: %v", what, err)
	}
	found := l.wantState(t, what, d)
	pinned := l.wantPins(t, what, d)
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
	if again := l.wantPins(t, what+", another power cut", da); !maps.Equal(pinned, again) {
		t.Fatalf("%s: pinned were %.20q; after a power cut %.20q", what, pinned, again)
	}

	l.wantSound(t, what, m, d)
	wantEach(t, what, d)
	next := l.clone()
	next.content, next.generation, next.tried = found.content, found.generation, nil
	next.pins, next.triedPins = pinned, map[string][]string{}
	if found.generation > 0 {
		if err := next.change(d, "later", "1"); err != nil {
			t.Fatalf("%s: a later change: %v", what, err)
		}
		if next.generation <= max(l.highest, found.generation) {
			t.Fatalf("%s: generation %d was given again; %d was taken, %d found", what, next.generation, l.highest, found.generation)
		}
		next.wantState(t, what+", a later change", d)
	}
	highest := max(l.highest, next.generation)
	if err := next.save(d, "later"); err != nil {
		t.Fatalf("%s: a later save: %v", what, err)
	}
	if next.generation <= highest {
		t.Fatalf("%s: generation %d was given again; %d was taken, %d found", what, next.generation, l.highest, found.generation)
	}
	if files := stateFiles(t, m); len(files) > keep {
		t.Fatalf("%s: after the later save there are %q; want at most %d", what, files, keep)
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
	next.wantPins(t, what+", later save", d)
	l.wantSound(t, what+", later save", after, d) // removals are not synced: more than keep may be there
	l.wantEvidence(t, what, after)
}

// stateFiles are the state files of the part that are not set aside.
func stateFiles(t *testing.T, fsys vfs.FS) (files []string) {
	t.Helper()
	for _, name := range names(t, fsys, folder) {
		if strings.HasPrefix(name, "store.state") && !strings.Contains(name, ".corrupt-") {
			files = append(files, path.Join(folder, name))
		}
	}
	return files
}

// wantEach fails unless every generation that is listed can be opened by its number.
func wantEach(t *testing.T, what string, d *statedir.Dir) {
	t.Helper()
	gens, err := d.Generations(service, store)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	for _, g := range gens {
		o, err := d.Open(service, store, g.Number)
		if err != nil || o.Generation != g.Number || o.File().Header().Generation != g.Number {
			t.Fatalf("%s: opening generation %d: %+v, %v", what, g.Number, o, err)
		}
		check(t, o.Close())
	}
}

// verified remembers, by SHA-256, the files that wantSound has found whole: crashes leave the same ones
// thousands of times.
var verified sync.Map

// wantSound fails unless all that is kept and not set aside is sound: every generation, every file to its
// last byte, the serializer of each.
func (l *ledger) wantSound(t *testing.T, what string, fsys vfs.FS, d *statedir.Dir) {
	t.Helper()
	gens, err := d.Generations(service, store)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	for _, g := range gens {
		if g.Err != nil {
			t.Fatalf("%s: generation %d: %v", what, g.Number, g.Err)
		}
		for wasm, acked := range l.modules {
			if !acked {
				continue
			}
			if digest := sha256.Sum256([]byte(wasm)); digest == g.Header.Serializer.Digest {
				if got, err := d.Module(digest); err != nil || string(got) != wasm {
					t.Fatalf("%s: the module of generation %d: %v", what, g.Number, err)
				}
			}
		}
	}
	for _, name := range stateFiles(t, fsys) {
		b := readFile(t, fsys, name)
		sum := sha256.Sum256(b)
		if _, seen := verified.Load(sum); seen {
			continue
		}
		f, err := statefile.Open(bytes.NewReader(b), int64(len(b)), name)
		if err == nil {
			err = f.Verify(t.Context())
		}
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		verified.Store(sum, true)
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
	for wasm := range l.mine {
		if got, err := d.Module(sha256.Sum256([]byte(wasm))); err != nil || string(got) != wasm {
			t.Fatalf("%s: module %.10q, which is kept: %.10q, %v", what, wasm, got, err)
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

// savesIn lists what a file holds.
func savesIn(t *testing.T, fsys vfs.FS, name string) []statefile.Save {
	t.Helper()
	b := readFile(t, fsys, name)
	f, err := statefile.Open(bytes.NewReader(b), int64(len(b)), name)
	check(t, err)
	return f.Saves()
}

// wantDeltas fails unless <part>.state has so many deltas.
func wantDeltas(n int) func(*testing.T, *vfs.Mem, *ledger) {
	return func(t *testing.T, m *vfs.Mem, _ *ledger) {
		t.Helper()
		if got := len(savesIn(t, m, current)) - 1; got != n {
			t.Errorf("the newest file has %d deltas, want %d", got, n)
		}
	}
}

// damageChunk damages records of the first delta whose value is "lost", damageIndex its index.
func damageChunk(t *testing.T, m *vfs.Mem, _ []statefile.Save) {
	b := readFile(t, m, current)
	b[bytes.Index(b, []byte("=lost;"))+1] ^= 1
	writeFile(t, m, current, b)
}

func damageIndex(t *testing.T, m *vfs.Mem, _ []statefile.Save) {
	b := readFile(t, m, current)
	from := bytes.Index(b, []byte("=lost;"))
	b[from+bytes.Index(b[from:], []byte("generation"))] ^= 1
	writeFile(t, m, current, b)
}

func asideTail(generation int) string {
	return fmt.Sprintf("store.state.corrupt-20261122T174203Z-g%012d-tail", generation)
}

func moduleName(wasm string) string { return fmt.Sprintf("%x.wasm", sha256.Sum256([]byte(wasm))) }

// script is a way of using a state directory that is to survive anything.
type script struct {
	name string
	keep int
	// compaction is what the script's process has.
	compaction statedir.Compaction
	// reach are operations, as in "sync store.state", that the script must be made to fail at.
	reach []string
	// prepare makes, without faults, what is there before.
	prepare func(t *testing.T, m *vfs.Mem, l *ledger)
	// act is what goes wrong at some point. It ends with its first error, but for what it can live with.
	act func(d *statedir.Dir, l *ledger) error
	// after looks at what is there when nothing went wrong; nil: nothing.
	after func(t *testing.T, m *vfs.Mem, l *ledger)
}

// tally counts operations at which something was made to go wrong, by script; "" counts kinds of faults.
type tally struct {
	mu sync.Mutex
	n  map[[2]string]int
}

func (c *tally) count(script, op string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[[2]string]int{}
	}
	c.n[[2]string{script, op}]++
}

func (c *tally) of(script, op string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[[2]string{script, op}]
}

func (s script) options() statedir.Options {
	opt := options(s.keep)
	opt.Compaction = s.compaction
	return opt
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
	// deltas makes a full save and changes on it.
	deltas := func(keys ...string) func(*testing.T, *vfs.Mem, *ledger) {
		return func(t *testing.T, m *vfs.Mem, l *ledger) {
			saves(2, "one", "two")(t, m, l)
			d := open(t, m, options(2))
			for _, k := range keys {
				check(t, l.change(d, k, "1"))
			}
			check(t, d.Close())
			if l.deltas != len(keys) {
				t.Fatalf("%d deltas were made, want %d", l.deltas, len(keys))
			}
		}
	}
	change := func(pairs ...string) func(*statedir.Dir, *ledger) error {
		return func(d *statedir.Dir, l *ledger) error {
			for i := 0; i < len(pairs); i += 2 {
				if err := l.change(d, pairs[i], pairs[i+1]); err != nil {
					return err
				}
			}
			return nil
		}
	}
	appends := []string{"open store.state", "write store.state", "read store.state", "sync store.state"}
	cuts := []string{"truncate store.state", "sync store.state"}
	// lost makes deltas of keys, the first good ones of which stay sound, and damages what is behind.
	lost := func(good int, spoil func(t *testing.T, m *vfs.Mem, saves []statefile.Save), keys ...string) func(*testing.T, *vfs.Mem, *ledger) {
		return func(t *testing.T, m *vfs.Mem, l *ledger) {
			deltas(keys[:good]...)(t, m, l)
			left := l.clone()
			d := open(t, m, options(2))
			for _, k := range keys[good:] {
				check(t, l.change(d, k, "lost"))
			}
			check(t, d.Close())
			all := savesIn(t, m, current)
			spoil(t, m, all)
			l.content, l.generation = left.content, left.generation
			l.evidence = readFile(t, m, current)[all[good].End:]
		}
	}
	pins := func(pairs ...string) func(*statedir.Dir, *ledger) error {
		return func(d *statedir.Dir, l *ledger) error {
			for i := 0; i < len(pairs); i += 2 {
				if err := l.pin(d, pairs[i], pairs[i+1]); err != nil {
					return err
				}
			}
			return nil
		}
	}
	pinned := func(pairs ...string) func(*testing.T, *vfs.Mem, *ledger) {
		return func(t *testing.T, m *vfs.Mem, l *ledger) {
			saves(2, "one")(t, m, l)
			d := open(t, m, options(2))
			check(t, pins(pairs...)(d, l))
			check(t, d.Close())
		}
	}
	pinning := []string{"open pins.json.tmp-2", "write pins.json.tmp-2", "sync pins.json.tmp-2", "rename pins.json", "sync modules"}
	return []script{
		{name: "pin", keep: 2, reach: append(pinning, "rename "+moduleName(wasm)),
			prepare: saves(2, "one"), act: pins("settings", wasm)},
		{name: "pin replaced, another added", keep: 2, reach: append(pinning, "rename "+moduleName("two")),
			prepare: pinned("settings", "one", "todo", "beside"), act: pins("settings", "two", "orders", wasm)},
		{name: "pin given back", keep: 2, reach: []string{"rename pins.json"},
			prepare: pinned("settings", "one"), act: pins("settings", "two", "settings", "one", "settings", "one")},
		{name: "unpin", keep: 2, reach: []string{"rename pins.json", "sync modules"},
			prepare: pinned("settings", "one", "todo", "two"), act: pins("settings", "")},
		{name: "module collected when its pin is replaced", keep: 1,
			reach:   []string{"remove " + moduleName("one"), "sync modules", "rename pins.json"},
			prepare: pinned("settings", "one", "todo", "two"),
			act: func(d *statedir.Dir, l *ledger) error {
				if err := pins("settings", "three")(d, l); err != nil {
					return err
				}
				return l.save(d, "two") // which removes the generation before, and then what nobody needs
			},
			after: func(t *testing.T, m *vfs.Mem, _ *ledger) {
				want := []string{moduleName("three"), moduleName("two"), "pins.json"}
				slices.Sort(want)
				wantNames(t, m, "modules", want...)
			}},
		{name: "pin of a process that died", keep: 2,
			prepare: func(t *testing.T, m *vfs.Mem, l *ledger) {
				// It died before the sync of the folder: the pin is there, its name is not durable, and what
				// it replaced seems to be needed by nobody.
				pinned("settings", "one")(t, m, l)
				w := vfs.Faulty(m, vfs.Fault{})
				d := open(t, w, options(2))
				renamed := false
				w.Inject(vfs.Fault{At: 1, Err: vfs.ErrCrashed, Sticky: true,
					Match: func(op vfs.Op, name string) bool {
						renamed = renamed || op == vfs.OpRename && path.Base(name) == "pins.json"
						return renamed && op == vfs.OpSync
					}})
				if err := l.pin(d, "settings", "two"); !errors.Is(err, vfs.ErrCrashed) {
					t.Fatal(err)
				}
				check(t, d.Close())
			},
			act:   loads,
			after: func(t *testing.T, m *vfs.Mem, _ *ledger) { wantNames(t, m, "modules", moduleName("two"), "pins.json") }},
		{name: "delta append", keep: 2, reach: append(appends, "sync s3"),
			prepare: saves(2, "one", "two"), act: change("a", "1"), after: wantDeltas(1)},
		{name: "several deltas", keep: 2, reach: appends,
			prepare: saves(2, "one"), act: change("a", "1", "b", "2", "a", "3", "b", ""), after: wantDeltas(4)},
		{name: "deltas on one generation kept", keep: 1, reach: appends,
			prepare: saves(1, "one"), act: change("a", "1", "b", "2"), after: wantDeltas(2)},
		{name: "deltas in spite of failures", keep: 2, reach: appends,
			prepare: saves(2, "one", "two"),
			act: func(d *statedir.Dir, l *ledger) error {
				return errors.Join(l.change(d, "a", "1"), l.change(d, "b", "2"), l.change(d, "c", "3"))
			}, after: wantDeltas(3)},
		{name: "delta aborted", keep: 2, reach: append(cuts, appends...), prepare: deltas("a"),
			act: func(d *statedir.Dir, l *ledger) error {
				p, ok, err := d.BeginDelta(service, store, l.generation, serializer(defaultModule))
				if err != nil {
					return err
				}
				if !ok {
					return errFull
				}
				l.tried = append(l.tried, changed(l.content, "dropped", "1")) // if it is not even aborted
				err = encodeDelta(p, p.Tail(), p.Generation(), l.content, "dropped", "1")
				p.Abort()
				if err != nil {
					return err
				}
				return l.change(d, "b", "2") // where the other was
			}, after: wantDeltas(2)},
		{name: "delta then full (compaction)", keep: 2, compaction: statedir.Compaction{Deltas: 2},
			reach:   append(appends, "rename store.state.g000000000004", "rename store.state"),
			prepare: saves(2, "one", "two"), act: change("a", "1", "b", "2", "c", "3", "d", "4"), after: wantDeltas(1)},
		{name: "delta too large", keep: 2, compaction: statedir.Compaction{Bytes: 1500},
			reach:   append(cuts, "rename store.state"),
			prepare: deltas("a"), act: change("b", "2"), after: wantDeltas(0)},
		{name: "full save over deltas", keep: 2, reach: []string{"rename store.state.g000000000004"},
			prepare: deltas("a", "b"), act: func(d *statedir.Dir, l *ledger) error { return l.save(d, "reset") }, after: wantDeltas(0)},
		{name: "deltas pruned", keep: 2, reach: []string{"remove store.state.g000000000004"}, prepare: deltas("a", "b"),
			act: func(d *statedir.Dir, l *ledger) error {
				return errors.Join(l.save(d, "three"), l.save(d, "four"))
			}},
		{name: "delta after a torn append", keep: 2, reach: append(cuts, appends...),
			prepare: func(t *testing.T, m *vfs.Mem, l *ledger) {
				deltas("a")(t, m, l)
				other := m.Kill()
				d := open(t, other, options(2))
				check(t, l.clone().change(d, "torn", "1"))
				check(t, d.Close())
				whole, before := readFile(t, other, current), len(readFile(t, m, current))
				writeFile(t, m, current, whole[:(before+len(whole))/2])
			},
			act: change("b", "2"), after: wantDeltas(2)},
		{name: "delta of a process that died", keep: 2, reach: []string{"sync store.state"},
			prepare: func(t *testing.T, m *vfs.Mem, l *ledger) {
				// It died before the sync: all of the delta is there, and none of it is durable.
				deltas("a")(t, m, l)
				w := vfs.Faulty(m, vfs.Fault{})
				d := open(t, w, options(2))
				_, _, _, err := load(d, service, store)
				check(t, err)
				w.Inject(vfs.Fault{At: 1, Err: vfs.ErrCrashed, Sticky: true,
					Match: func(op vfs.Op, name string) bool {
						return name == current && (op == vfs.OpSync || op == vfs.OpTruncate)
					}})
				if err := l.change(d, "b", "2"); !errors.Is(err, vfs.ErrCrashed) {
					t.Fatal(err)
				}
				check(t, d.Close())
			},
			act: loads},
		{name: "damaged delta set aside", keep: 2, reach: append(cuts, "write store.state.tmp-1", "rename "+asideTail(4)),
			prepare: lost(1, damageChunk, "a", "b"), act: loads, after: wantDeltas(1)},
		{name: "damaged index of a delta set aside", keep: 2, reach: append(cuts, "rename "+asideTail(4)),
			prepare: lost(1, damageIndex, "a", "b"), act: loads, after: wantDeltas(1)},
		{name: "damaged delta under others set aside", keep: 2, reach: append(cuts, "rename "+asideTail(5)),
			prepare: lost(1, damageChunk, "a", "b", "c"), act: loads, after: wantDeltas(1)},
		{name: "damaged index under others set aside", keep: 2, reach: append(cuts, "rename "+asideTail(6)),
			prepare: lost(0, damageIndex, "a", "b", "c", "d"), act: loads, after: wantDeltas(0)},
		{name: "damaged header under deltas", keep: 2, reach: []string{"rename store.state.corrupt-20261122T174203Z-g000000000004"},
			prepare: func(t *testing.T, m *vfs.Mem, l *ledger) {
				deltas("a", "b")(t, m, l)
				b := readFile(t, m, current)
				b[10] ^= 1
				writeFile(t, m, current, b)
				l.content, l.generation, l.evidence = "one", 1, b
			},
			act: loads},
		{name: "damaged delta, then saves", keep: 2, reach: append(cuts, "rename "+asideTail(4), "rename store.state.g000000000003"),
			prepare: lost(1, damageChunk, "a", "b"), after: wantDeltas(1),
			act: func(d *statedir.Dir, l *ledger) error {
				if err := loads(d, l); err != nil {
					return err
				}
				return change("c", "3", "d", "4")(d, l)
			}},
		{name: "damaged delta set aside by a save", keep: 2, reach: append(cuts, "rename "+asideTail(4)),
			prepare: lost(1, damageChunk, "a", "b"), after: wantDeltas(0),
			act: func(d *statedir.Dir, l *ledger) error { return l.save(d, "three") }},
		{name: "damaged delta of an older file", keep: 2, reach: []string{"truncate store.state.g000000000003", "rename store.state.g000000000003"},
			prepare: func(t *testing.T, m *vfs.Mem, l *ledger) {
				lost(1, damageChunk, "a", "b")(t, m, l)
				check(t, m.Rename(current, folder+"/store.state.g000000000004"))
				writeFile(t, m, current, []byte("no state at all"))
			},
			act: loads},
		{name: "module collected with its last generation", keep: 1,
			reach: []string{"remove " + moduleName("old"), "sync s3"},
			prepare: func(t *testing.T, m *vfs.Mem, l *ledger) {
				d := open(t, m, options(1))
				check(t, l.keep(d, "old"))
				check(t, l.saveBy(d, "old", "one"))
				check(t, d.Close())
			},
			act: func(d *statedir.Dir, l *ledger) error {
				if err := l.keep(d, "new"); err != nil {
					return err
				}
				return l.saveBy(d, "new", "two")
			},
			after: func(t *testing.T, m *vfs.Mem, _ *ledger) { wantNames(t, m, "modules", moduleName("new")) }},
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
				return l.saveBy(d, wasm, "by the module")
			}},
		{name: "module written anew", keep: 2,
			prepare: func(t *testing.T, m *vfs.Mem, l *ledger) {
				d := open(t, m, options(0))
				check(t, l.keep(d, wasm))
				check(t, l.saveBy(d, wasm, "by the module"))
				check(t, d.Close())
				writeFile(t, m, "modules/"+moduleName(wasm), []byte("damaged"))
				l.modules[wasm] = false
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
	if testing.Short() {
		t.Skip("thousands of crashes, one after the other")
	}
	for _, s := range scripts() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			base := vfs.NewMem()
			before := newLedger()
			s.prepare(t, base, before)
			crashes, reached := 0, map[string]int{}
			for k := 1; ; k++ {
				m, l := base.Kill(), before.clone()
				fault, n := vfs.Crash(k), 0
				fault.Match = func(op vfs.Op, name string) bool {
					if n++; n == k {
						reached[string(op)+" "+path.Base(name)]++
					}
					return true
				}
				w := vfs.Faulty(m, fault)
				d, err := statedir.Open(w, s.options())
				if err == nil {
					err = s.act(d, l)
				}
				if !w.Fired() {
					check(t, err)
					if s.after != nil {
						s.after(t, m, l)
					}
					for cut := range *cuts {
						l.checkCut(t, fmt.Sprintf("power cut %d behind the last operation", cut), m.PowerCut(rng(cut)), s.keep)
					}
					break
				}
				crashes++
				l.check(t, fmt.Sprintf("killed at operation %d", k), m.Kill(), s.keep)
				for cut := range *cuts {
					l.checkCut(t, fmt.Sprintf("power cut %d at operation %d", cut, k), m.PowerCut(rng(cut)), s.keep)
				}
			}
			if crashes < 5 {
				t.Errorf("only %d crashes: is anything counted?", crashes)
			}
			for _, op := range s.reach {
				if reached[op] == 0 {
					t.Errorf("no crash at %q; there were at %v", op, slices.Sorted(maps.Keys(reached)))
				}
			}
			t.Logf("%d crashes, %d power cuts each", crashes, *cuts)
		})
	}
}

// faults are what a disk can do to a process that lives on.
func faults() map[string]func(k int) vfs.Fault {
	writing := func(op vfs.Op, _ string) bool {
		return op == vfs.OpWrite || op == vfs.OpOpen || op == vfs.OpMkdir || op == vfs.OpSync || op == vfs.OpRename || op == vfs.OpTruncate
	}
	appending := func(op vfs.Op, _ string) bool { return op == vfs.OpSync || op == vfs.OpTruncate }
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
		"writing fails from then on": func(k int) vfs.Fault {
			return vfs.Fault{At: k, Err: syscall.EIO, Extent: vfs.Part, Sticky: true, Match: writing}
		},
		"sync and truncate fail from then on": func(k int) vfs.Fault {
			return vfs.Fault{At: k, Err: syscall.EIO, Sticky: true, Match: appending}
		},
		"truncate fails though done": func(k int) vfs.Fault {
			return vfs.Fault{At: k, Err: syscall.EIO, Extent: vfs.All, Match: only(vfs.OpTruncate)}
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
	if testing.Short() {
		t.Skip("thousands of crashes, one after the other")
	}
	failed := &tally{}
	t.Cleanup(func() { // after the subtests
		for _, s := range scripts() {
			for _, op := range s.reach {
				if failed.of(s.name, "") == len(faults()) && failed.of(s.name, op) == 0 {
					t.Errorf("%s: no fault at %q", s.name, op)
				}
			}
		}
	})
	for _, s := range scripts() {
		for kind, fault := range faults() {
			t.Run(s.name+"/"+kind, func(t *testing.T) {
				t.Parallel()
				base := vfs.NewMem()
				before := newLedger()
				s.prepare(t, base, before)
				for k := 1; ; k++ {
					m, l := base.Kill(), before.clone()
					w := vfs.Faulty(m, vfs.Fault{})
					d := open(t, w, s.options())
					f, n := fault(k), 0
					matches := f.Match
					f.Match = func(op vfs.Op, name string) bool {
						if matches != nil && !matches(op, name) {
							return false
						}
						if n++; n == k {
							failed.count(s.name, string(op)+" "+path.Base(name))
						}
						return true
					}
					w.Inject(f)
					err := s.act(d, l)
					fired := w.Fired()
					if err != nil && !fired {
						t.Fatal(err)
					}
					what := fmt.Sprintf("after a fault at operation %d (%v)", k, err)
					w.Inject(vfs.Fault{})
					for cut := range (*cuts + 7) / 8 {
						l.checkCut(t, fmt.Sprintf("%s, power cut %d", what, cut), m.PowerCut(rng(k+cut)), s.keep)
					}
					l.wantState(t, what, d)
					l.wantModules(t, what, d)
					pinned := l.wantPins(t, what, d)
					// A runtime changes what it has; where it could not load, it has nothing.
					found := l.wantState(t, what, d)
					l.content, l.generation, l.tried = found.content, found.generation, nil
					l.highest = max(l.highest, found.generation)
					l.pins, l.triedPins = pinned, map[string][]string{}
					if err := l.pin(d, "well", "again"); err != nil {
						t.Fatalf("%s, a pin on a disk that is well again: %v", what, err)
					}
					if err := l.change(d, "well", "again"); err != nil {
						t.Fatalf("%s, a change on a disk that is well again: %v", what, err)
					}
					for cut := range (*cuts + 7) / 8 {
						l.checkCut(t, fmt.Sprintf("%s, changed again, power cut %d", what, cut), m.PowerCut(rng(k+cut)), s.keep)
					}
					if err := l.save(d, "well again"); err != nil {
						t.Fatalf("%s, a save on a disk that is well again: %v", what, err)
					}
					l.wantState(t, what+", saved again", d)
					l.wantEvidence(t, what+", saved again", m)
					for cut := range (*cuts + 7) / 8 {
						l.checkCut(t, fmt.Sprintf("%s, saved again, power cut %d", what, cut), m.PowerCut(rng(k+cut)), s.keep)
					}
					check(t, d.Close())
					if !fired {
						break
					}
				}
				failed.count(s.name, "")
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
		l := newLedger()
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
			l := newLedger()
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
					var err error
					if r.IntN(3) > 0 {
						err = l.change(d, fmt.Sprint("key", r.IntN(5)), fmt.Sprint(content%4))
					} else {
						err = l.save(d, fmt.Sprint("content ", content))
					}
					if err != nil {
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
