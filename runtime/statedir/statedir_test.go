package statedir_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/vfs"
)

func TestSaveAndLoad(t *testing.T) {
	m := vfs.NewMem()
	d := open(t, m, statedir.Options{})
	if _, err := d.OpenNewest(service, store); !errors.Is(err, abi.ErrNotFound) {
		t.Fatalf("before the first save: %v, want ErrNotFound", err)
	}
	for i := range uint64(5) {
		content := fmt.Sprintf("content %d", i)
		if g := mustSave(t, d, content); g != i+1 {
			t.Fatalf("save %d is generation %d", i, g)
		}
		wantNewest(t, d, content, i+1)
	}
	wantNames(t, m, folder, "store.state", "store.state.g000000000004")
	check(t, d.Close())

	d = open(t, m, statedir.Options{})
	wantNewest(t, d, "content 4", 5)
	mustSave(t, d, "content 5")
	wantNewest(t, d, "content 5", 6)
	o, err := d.Open(service, store, 5)
	check(t, err)
	if got, err := contentOf(o); err != nil || got != "content 4" {
		t.Errorf("the generation before holds %q, %v", got, err)
	}
	check(t, o.Close())
	if _, err := d.Open(service, store, 4); !errors.Is(err, abi.ErrNotFound) {
		t.Errorf("a generation that was removed: %v, want ErrNotFound", err)
	}
	check(t, d.Close())
}

func TestKeep(t *testing.T) {
	for keep := 1; keep <= 4; keep++ {
		m := vfs.NewMem()
		d := open(t, m, statedir.Options{Keep: keep})
		for i := range 6 {
			mustSave(t, d, fmt.Sprint(i))
		}
		gens, err := d.Generations(service, store)
		check(t, err)
		if len(gens) != keep {
			t.Fatalf("with Keep %d, %d generations are kept", keep, len(gens))
		}
		for i, g := range gens {
			if g.Err != nil || g.Number != uint64(6-i) || g.Header.Generation != g.Number || g.Size == 0 || g.Path == "" {
				t.Errorf("with Keep %d, generation %d is %+v", keep, i, g)
			}
		}
		check(t, d.Close())
		// A smaller number takes effect at the next save.
		d = open(t, m, statedir.Options{Keep: 1})
		mustSave(t, d, "x")
		wantNames(t, m, folder, "store.state")
		check(t, d.Close())
	}
	if _, err := statedir.Open(vfs.NewMem(), statedir.Options{Keep: -1}); err == nil {
		t.Error("Keep -1 is accepted")
	}
}

func TestPartsAreApart(t *testing.T) {
	m := vfs.NewMem()
	d := open(t, m, statedir.Options{})
	defer d.Close()
	all := []statedir.PartID{{Service: "kinesis", Part: "backend"}, {Service: "kinesis", Part: "store"}, {Service: "s3", Part: "store"}}
	for _, id := range all {
		for range 3 {
			_, err := save(d, id.Service, id.Part, id.String())
			check(t, err)
		}
	}
	// What is not ours is not listed.
	check(t, m.Mkdir("state/api_states/lost+found"))
	check(t, m.Mkdir("state/api_states/empty"))
	writeFile(t, m, "state/api_states/s3/store.state.bak", nil)
	writeFile(t, m, "state/api_states/s3/old.state.corrupt-20261122T174203Z-g000000000007", nil)
	writeFile(t, m, "state/api_states/file", nil)
	got, err := d.Parts()
	check(t, err)
	if !slices.Equal(got, all) {
		t.Errorf("Parts = %v, want %v", got, all)
	}
	for _, id := range all {
		content, g, _, err := load(d, id.Service, id.Part)
		if err != nil || g != 3 || content != id.String() {
			t.Errorf("%v: %q of generation %d, %v", id, content, g, err)
		}
	}
}

func TestBadNames(t *testing.T) {
	m := vfs.NewMem()
	d := open(t, m, statedir.Options{})
	defer d.Close()
	for _, id := range []statedir.PartID{{Service: "..", Part: store}, {Service: service, Part: "../../x"}, {Service: "", Part: store}, {Service: service, Part: ".hidden"}} {
		_, err1 := d.Begin(id.Service, id.Part)
		_, err2 := d.OpenNewest(id.Service, id.Part)
		_, err3 := d.Open(id.Service, id.Part, 1)
		_, err4 := d.Generations(id.Service, id.Part)
		for i, err := range []error{err1, err2, err3, err4} {
			if err == nil || !strings.Contains(err.Error(), "not allowed") {
				t.Errorf("%v, method %d: %v", id, i, err)
			}
		}
	}
	wantNames(t, m, "state/api_states")
}

func TestAbort(t *testing.T) {
	m := vfs.NewMem()
	d := open(t, m, statedir.Options{})
	mustSave(t, d, "kept")
	p, err := d.Begin(service, store)
	check(t, err)
	if _, err := d.Begin(service, store); err == nil {
		t.Error("two saves of a part at once")
	}
	check(t, encode(p, service, store, p.Generation(), "dropped"))
	p.Abort()
	p.Abort()
	if err := p.Commit(); err == nil {
		t.Error("an aborted save was committed")
	}
	if _, err := p.Write([]byte("x")); err == nil {
		t.Error("an aborted save was written to")
	}
	wantNames(t, m, folder, "store.state")
	wantNewest(t, d, "kept", 1)
	if g := mustSave(t, d, "next"); g != 2 {
		t.Errorf("after an aborted save the next generation is %d", g)
	}

	// Closing the directory ends what is pending; its file goes at the next Open.
	p, err = d.Begin(service, store)
	check(t, err)
	q, err := d.Begin(service, "backend")
	check(t, err)
	check(t, d.Close())
	if err := p.Commit(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Commit after Close: %v, want ErrClosed", err)
	}
	q.Abort()
	if got := len(names(t, m, folder)); got != 4 {
		t.Errorf("files were touched after Close: %v", names(t, m, folder))
	}
	check(t, open(t, m, statedir.Options{}).Close())
	wantNames(t, m, folder, "store.state", "store.state.g000000000001")
}

func TestCommitRefusesWhatIsNoState(t *testing.T) {
	write := map[string]func(p *statedir.Pending) error{
		"nothing": func(*statedir.Pending) error { return nil },
		"text":    func(p *statedir.Pending) error { _, err := p.Write([]byte("hello")); return err },
		"a file cut short": func(p *statedir.Pending) error {
			var whole strings.Builder
			if err := encode(&whole, service, store, p.Generation(), "x"); err != nil {
				return err
			}
			_, err := p.Write([]byte(whole.String()[:whole.Len()-1]))
			return err
		},
		"another part":       func(p *statedir.Pending) error { return encode(p, service, "backend", p.Generation(), "x") },
		"another service":    func(p *statedir.Pending) error { return encode(p, "sqs", store, p.Generation(), "x") },
		"another generation": func(p *statedir.Pending) error { return encode(p, service, store, p.Generation()+1, "x") },
	}
	for what, w := range write {
		m := vfs.NewMem()
		d := open(t, m, statedir.Options{})
		mustSave(t, d, "kept")
		p, err := d.Begin(service, store)
		check(t, err)
		check(t, w(p))
		if err := p.Commit(); err == nil || !strings.Contains(err.Error(), "s3/store") {
			t.Errorf("%s was committed: %v", what, err)
		}
		wantNames(t, m, folder, "store.state")
		wantNewest(t, d, "kept", 1)
		mustSave(t, d, "next")
		check(t, d.Close())
	}
}

func TestDamagedNewestFallsBack(t *testing.T) {
	for _, trailer := range []bool{true, false} {
		m := vfs.NewMem()
		var log logs
		opt := statedir.Options{Logger: log.logger(), Now: at("2026-11-22T17:42:03Z")}
		d := open(t, m, opt)
		mustSave(t, d, "one")
		mustSave(t, d, "two")
		mustSave(t, d, "three")
		check(t, d.Close())
		bad := damage(t, m, current, trailer)

		d = open(t, m, opt)
		content, g, set, err := load(d, service, store)
		check(t, err)
		if content != "two" || g != 2 {
			t.Fatalf("loaded %q of generation %d, want the one before", content, g)
		}
		const aside = "store.state.corrupt-20261122T174203Z-g000000000003"
		if len(set) != 1 || set[0].Generation != 3 || set[0].Path != folder+"/"+aside || set[0].MoveErr != nil ||
			!errors.Is(set[0].Err, abi.ErrCorrupt) {
			t.Errorf("set aside: %+v", set)
		}
		log.want(t, slog.LevelError, "service=s3", "part=store", "generation=3", aside)
		wantNames(t, m, folder, aside, "store.state.g000000000002")
		if got := readFile(t, m, folder+"/"+aside); string(got) != string(bad) {
			t.Error("the damaged file was changed")
		}
		// The number of the damaged one is taken.
		if g := mustSave(t, d, "four"); g != 4 {
			t.Errorf("the next generation is %d, want 4", g)
		}
		wantNames(t, m, folder, "store.state", aside, "store.state.g000000000002")
		wantNewest(t, d, "four", 4)
		check(t, d.Close())

		// Damage the new one as well, at the same time of day.
		damage(t, m, current, trailer)
		d = open(t, m, opt)
		wantNewest(t, d, "two", 2)
		wantNames(t, m, folder, aside, "store.state.corrupt-20261122T174203Z-g000000000004", "store.state.g000000000002")
		check(t, d.Close())
	}
}

func TestOpenOneGeneration(t *testing.T) {
	m := vfs.NewMem()
	d := open(t, m, statedir.Options{Keep: 3})
	defer d.Close()
	for _, c := range []string{"one", "two", "three"} {
		mustSave(t, d, c)
	}
	for i, want := range []string{"one", "two", "three"} {
		o, err := d.Open(service, store, uint64(i+1))
		check(t, err)
		if got, err := contentOf(o); err != nil || got != want || o.Generation != uint64(i+1) {
			t.Errorf("generation %d is %d and holds %q, %v", i+1, o.Generation, got, err)
		}
		check(t, o.Close())
	}
	if _, err := d.Open(service, store, 4); !errors.Is(err, abi.ErrNotFound) || errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("a generation that never was: %v", err)
	}
	damage(t, m, folder+"/store.state.g000000000002", true)
	damage(t, m, current, true)
	before := names(t, m, folder)
	if _, err := d.Open(service, store, 2); !errors.Is(err, abi.ErrCorrupt) || !strings.Contains(err.Error(), "g000000000002") {
		t.Errorf("a damaged generation: %v", err)
	}
	// The newest does not say any more that it is generation 3.
	if _, err := d.Open(service, store, 3); errors.Is(err, abi.ErrNotFound) || !errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("the damaged newest: %v", err)
	}
	gens, err := d.Generations(service, store)
	check(t, err)
	if len(gens) != 3 || gens[0].Path != current || !errors.Is(gens[0].Err, abi.ErrCorrupt) || gens[0].Size == 0 ||
		gens[1].Number != 2 || !errors.Is(gens[1].Err, abi.ErrCorrupt) || gens[2].Number != 1 || gens[2].Err != nil {
		t.Errorf("Generations = %+v", gens)
	}
	if !slices.Equal(names(t, m, folder), before) {
		t.Error("looking has moved files")
	}
}

func TestAllDamaged(t *testing.T) {
	m := vfs.NewMem()
	d := open(t, m, statedir.Options{Keep: 3, Now: at("2026-11-22T17:42:03Z")})
	defer d.Close()
	for _, c := range []string{"one", "two", "three"} {
		mustSave(t, d, c)
	}
	damage(t, m, current, true)
	damage(t, m, folder+"/store.state.g000000000002", true)
	damage(t, m, folder+"/store.state.g000000000001", true)
	_, err := d.OpenNewest(service, store)
	de := (*statedir.DamagedError)(nil)
	if !errors.As(err, &de) || !errors.Is(err, abi.ErrCorrupt) || errors.Is(err, abi.ErrNotFound) {
		t.Fatalf("OpenNewest = %v, want a DamagedError", err)
	}
	if len(de.Quarantined) != 3 || de.Quarantined[0].Generation != 3 || de.Quarantined[2].Generation != 1 || de.Service != service {
		t.Errorf("set aside: %+v", de.Quarantined)
	}
	for _, word := range []string{"s3/store", "3 damaged", de.Quarantined[0].Path} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not say %q: %v", word, err)
		}
	}
	if got := len(names(t, m, folder)); got != 3 {
		t.Errorf("%d of 3 damaged files are kept", got)
	}
	// From now on there is none; the error still says that something is there.
	if _, err := d.OpenNewest(service, store); !errors.Is(err, abi.ErrNotFound) || !strings.Contains(err.Error(), "3 damaged generations") {
		t.Errorf("after that: %v", err)
	}
	if g := mustSave(t, d, "anew"); g != 4 {
		t.Errorf("the next generation is %d, want 4", g)
	}
}

// The newest generation's number is in its header only. Where that is damaged, the file gets the
// number it must have had.
func TestDamagedHeader(t *testing.T) {
	for _, known := range []bool{true, false} {
		m := vfs.NewMem()
		opt := statedir.Options{Now: at("2026-11-22T17:42:03Z")}
		d := open(t, m, opt)
		for i := range 5 {
			mustSave(t, d, fmt.Sprint(i))
		}
		if !known { // the number is not remembered either
			check(t, d.Close())
			d = open(t, m, opt)
		}
		writeFile(t, m, current, []byte("not a state at all"))
		wantNewest(t, d, "3", 4)
		wantNames(t, m, folder, "store.state.corrupt-20261122T174203Z-g000000000005", "store.state.g000000000004")
		if g := mustSave(t, d, "next"); g != 6 {
			t.Errorf("the next generation is %d, want 6", g)
		}
		check(t, d.Close())
	}
}

// A save without a load before must not cover up damage, nor count a damaged file as one to fall back on.
func TestSaveSetsDamageAside(t *testing.T) {
	m := vfs.NewMem()
	opt := statedir.Options{Now: at("2026-11-22T17:42:03Z")}
	d := open(t, m, opt)
	mustSave(t, d, "one")
	mustSave(t, d, "two")
	check(t, d.Close())
	damage(t, m, current, true)
	d = open(t, m, opt)
	defer d.Close()
	if g := mustSave(t, d, "three"); g != 3 {
		t.Errorf("the next generation is %d", g)
	}
	wantNames(t, m, folder, "store.state", "store.state.corrupt-20261122T174203Z-g000000000002", "store.state.g000000000001")
	wantNewest(t, d, "three", 3)
}

func TestQuarantineOfWhatASaveHasRenamed(t *testing.T) {
	m := vfs.NewMem()
	d := open(t, m, statedir.Options{Keep: 3, Now: at("2026-11-22T17:42:03Z")})
	defer d.Close()
	mustSave(t, d, "one")
	mustSave(t, d, "two")
	o, err := d.OpenNewest(service, store)
	check(t, err)
	mustSave(t, d, "three")
	if got, err := contentOf(o); err != nil || got != "two" {
		t.Fatalf("an open generation reads %q, %v after a save", got, err)
	}
	q := d.Quarantine(o, abi.ErrCorrupt)
	if q.MoveErr != nil || q.Generation != 2 || q.Path != folder+"/store.state.corrupt-20261122T174203Z-g000000000002" {
		t.Errorf("Quarantine = %+v", q)
	}
	wantNewest(t, d, "three", 3)
	if q := d.Quarantine(o, abi.ErrCorrupt); !errors.Is(q.MoveErr, abi.ErrNotFound) {
		t.Errorf("once more: %+v", q)
	}
	wantNames(t, m, folder, "store.state", "store.state.corrupt-20261122T174203Z-g000000000002", "store.state.g000000000001")
	check(t, o.Close())
}

func TestQuarantineIsDurable(t *testing.T) {
	for _, trailer := range []bool{true, false} {
		m := vfs.NewMem()
		d := open(t, m, statedir.Options{Now: at("2026-11-22T17:42:03Z")})
		mustSave(t, d, "one")
		mustSave(t, d, "two")
		damage(t, m, current, trailer)
		wantNewest(t, d, "one", 1)
		for seed := range 20 {
			wantNames(t, m.PowerCut(rng(seed)), folder, "store.state.corrupt-20261122T174203Z-g000000000002", "store.state.g000000000001")
		}
		check(t, d.Close())
	}
}

// Where not even the folder can be listed, a generation found damaged is passed over all the same.
func TestQuarantineThatFailsIsRemembered(t *testing.T) {
	w := vfs.Faulty(vfs.NewMem(), vfs.Fault{})
	d := open(t, w, statedir.Options{})
	defer d.Close()
	mustSave(t, d, "one")
	mustSave(t, d, "two")
	o, err := d.OpenNewest(service, store)
	check(t, err)
	defer o.Close()
	w.Inject(vfs.Fault{At: 1, Err: syscall.EIO, Match: func(op vfs.Op, _ string) bool { return op == vfs.OpList }})
	if q := d.Quarantine(o, abi.ErrCorrupt); !errors.Is(q.MoveErr, syscall.EIO) || q.Path != current || q.Generation != 2 {
		t.Errorf("Quarantine = %+v", q)
	}
	content, _, set, err := load(d, service, store)
	if err != nil || content != "one" || len(set) != 1 || set[0].Generation != 2 || set[0].MoveErr != nil {
		t.Errorf("loaded %q, %+v, %v; want the generation before, and the damaged one moved now", content, set, err)
	}
}

// Two damaged files of one number, at one time of day, are both kept.
func TestQuarantineOverwritesNothing(t *testing.T) {
	m := vfs.NewMem()
	d := open(t, m, statedir.Options{Now: at("2026-11-22T23:59:59Z")})
	defer d.Close()
	check(t, m.Mkdir(folder))
	for _, content := range []string{"a", "b", "c"} {
		writeFile(t, m, folder+"/store.state.g000000000007", []byte(content))
		if _, err := d.OpenNewest(service, store); !errors.Is(err, abi.ErrCorrupt) {
			t.Fatalf("OpenNewest = %v", err)
		}
	}
	wantNames(t, m, folder, "store.state.corrupt-20261122T235959Z-g000000000007",
		"store.state.corrupt-20261123T000000Z-g000000000007", "store.state.corrupt-20261123T000001Z-g000000000007")
	if g := mustSave(t, d, "x"); g != 8 {
		t.Errorf("the next generation is %d, want 8", g)
	}
}

// The one failure after which the new generation is in place: it counts as one, under its own number.
func TestSaveAfterFailedFolderSync(t *testing.T) {
	m := vfs.NewMem()
	w := vfs.Faulty(m, vfs.Fault{})
	d := open(t, w, statedir.Options{})
	mustSave(t, d, "one")
	mustSave(t, d, "two")
	w.Inject(vfs.Fault{At: 1, Err: syscall.EIO, Match: func(op vfs.Op, name string) bool { return op == vfs.OpSync && name == folder }})
	if _, err := save(d, service, store, "three"); !errors.Is(err, syscall.EIO) {
		t.Fatalf("save = %v, want EIO", err)
	}
	if g := mustSave(t, d, "four"); g != 4 {
		t.Errorf("the next generation is %d, want 4", g)
	}
	wantNames(t, m, folder, "store.state", "store.state.g000000000003")
	gens, err := d.Generations(service, store)
	check(t, err)
	for i, want := range []uint64{4, 3} {
		if gens[i].Number != want || gens[i].Err != nil {
			t.Errorf("generation %d is %+v", want, gens[i])
		}
	}
	check(t, d.Close())
}

func TestForeignFilesAreDamage(t *testing.T) {
	m := vfs.NewMem()
	d := open(t, m, statedir.Options{})
	defer d.Close()
	mustSave(t, d, "one")
	mustSave(t, d, "two")
	_, err := save(d, "sqs", store, "of another service")
	check(t, err)
	writeFile(t, m, current, readFile(t, m, "state/api_states/sqs/store.state"))
	content, g, set, err := load(d, service, store)
	if err != nil || content != "one" || g != 1 || len(set) != 1 || !strings.Contains(set[0].Err.Error(), "sqs/store") {
		t.Errorf("%q of generation %d, %+v, %v; want the generation before", content, g, set, err)
	}
	// An older file with another number than its name says.
	mustSave(t, d, "three")
	writeFile(t, m, folder+"/store.state.g000000000009", readFile(t, m, folder+"/store.state.g000000000001"))
	content, g, set, err = load(d, service, store)
	if err != nil || content != "three" || len(set) != 1 || set[0].Generation != 9 {
		t.Errorf("%q of generation %d, %+v, %v", content, g, set, err)
	}
}

// newerFormat makes a file say that it is of format 2, in header and trailer.
func newerFormat(t *testing.T, fsys vfs.FS, name string) {
	t.Helper()
	b := readFile(t, fsys, name)
	i := strings.Index(string(b), "torpor\x01")
	if i < 0 || b[len(b)-1] != 1 {
		t.Fatal("the format has changed: this helper must too")
	}
	b[i+len("torpor")] = 2
	b[len(b)-1] = 2
	writeFile(t, fsys, name, b)
}

func TestNewerFormatIsLeftAlone(t *testing.T) {
	for _, name := range []string{current, folder + "/store.state.g000000000002"} {
		m := vfs.NewMem()
		d := open(t, m, statedir.Options{Keep: 3})
		for _, c := range []string{"one", "two", "three"} {
			mustSave(t, d, c)
		}
		check(t, d.Close())
		if name != current {
			damage(t, m, current, true)
		}
		newerFormat(t, m, name)
		before := names(t, m, folder)

		w := vfs.Faulty(m, vfs.Fault{})
		d = open(t, w, statedir.Options{Keep: 3})
		changes := 0
		w.Inject(vfs.Fault{At: math.MaxInt, Match: func(op vfs.Op, _ string) bool {
			if op == vfs.OpRename || op == vfs.OpRemove || op == vfs.OpWrite {
				changes++
			}
			return false
		}})
		if _, err := d.OpenNewest(service, store); !errors.Is(err, abi.ErrVersion) || errors.Is(err, abi.ErrCorrupt) {
			t.Errorf("%s: OpenNewest = %v, want ErrVersion", name, err)
		}
		if name == current {
			if _, err := d.Begin(service, store); !errors.Is(err, abi.ErrVersion) {
				t.Errorf("Begin over a newer format: %v, want ErrVersion", err)
			}
		}
		gens, err := d.Generations(service, store)
		if err != nil || len(gens) != 3 {
			t.Errorf("Generations = %v, %v", gens, err)
		}
		if changes != 0 || !slices.Equal(names(t, m, folder), before) {
			t.Errorf("%s: %d changes on disk", name, changes)
		}
		check(t, d.Close())
	}
}

func TestReadErrorIsNotDamage(t *testing.T) {
	m := vfs.NewMem()
	w := vfs.Faulty(m, vfs.Fault{})
	d := open(t, w, statedir.Options{})
	mustSave(t, d, "one")
	mustSave(t, d, "two")
	check(t, d.Close())
	before := names(t, m, folder)
	for k := 1; ; k++ {
		d := open(t, w, statedir.Options{})
		w.Inject(vfs.Fault{At: k, Err: syscall.EIO, Match: func(op vfs.Op, name string) bool {
			return op == vfs.OpRead || (op == vfs.OpOpen || op == vfs.OpList) && name != "state/api_states"
		}})
		o, err := d.OpenNewest(service, store)
		if err == nil {
			check(t, o.Close())
			if o.Generation != 2 {
				t.Fatalf("an I/O error at operation %d made generation %d the newest", k, o.Generation)
			}
		} else if !errors.Is(err, syscall.EIO) || errors.Is(err, abi.ErrCorrupt) || errors.Is(err, abi.ErrNotFound) {
			t.Fatalf("an I/O error at operation %d: %v", k, err)
		}
		if !slices.Equal(names(t, m, folder), before) {
			t.Fatalf("an I/O error at operation %d moved files", k)
		}
		fired := w.Fired()
		w.Inject(vfs.Fault{})
		wantNewest(t, d, "two", 2)
		check(t, d.Close())
		if !fired {
			break
		}
	}
}

// On a folder that can be read only, damage is still passed over, and told at every load.
func TestFallbackWithoutMoving(t *testing.T) {
	for _, trailer := range []bool{true, false} {
		m := vfs.NewMem()
		var log logs
		w := vfs.Faulty(m, vfs.Fault{})
		d := open(t, w, statedir.Options{Logger: log.logger()})
		mustSave(t, d, "one")
		mustSave(t, d, "two")
		damage(t, m, current, trailer)
		before := names(t, m, folder)
		w.Inject(vfs.Fault{At: 1, Sticky: true, Err: syscall.EROFS, Match: func(op vfs.Op, _ string) bool {
			return op == vfs.OpRename || op == vfs.OpRemove || op == vfs.OpWrite || op == vfs.OpMkdir
		}})
		for range 3 {
			content, g, set, err := load(d, service, store)
			if err != nil || content != "one" || g != 1 {
				t.Fatalf("loaded %q of generation %d, %v; want the one before", content, g, err)
			}
			if len(set) != 1 || set[0].Path != current || !errors.Is(set[0].MoveErr, syscall.EROFS) ||
				!errors.Is(set[0].Err, abi.ErrCorrupt) || set[0].Generation != 2 {
				t.Fatalf("set aside: %+v", set)
			}
		}
		log.want(t, slog.LevelError, "could not be moved aside", "generation=2", "store.state")
		if _, err := save(d, service, store, "three"); !errors.Is(err, syscall.EROFS) {
			t.Fatalf("a save: %v, want EROFS", err)
		}
		if !slices.Equal(names(t, m, folder), before) {
			t.Fatalf("files were moved: %v", names(t, m, folder))
		}
		// Writable again: the next save moves the damaged file aside, and takes a number of its own.
		w.Inject(vfs.Fault{})
		if g := mustSave(t, d, "four"); g != 3 {
			t.Errorf("the next generation is %d, want 3", g)
		}
		wantNewest(t, d, "four", 3)
		got := names(t, m, folder)
		if len(got) != 3 || !strings.HasPrefix(got[1], "store.state.corrupt-") || !strings.HasSuffix(got[1], "-g000000000002") || got[2] != "store.state.g000000000001" {
			t.Errorf("the folder has %v", got)
		}
		check(t, d.Close())
	}
}

// A crash between the two renames of a commit leaves no <part>.state.
func TestNewestNameMissing(t *testing.T) {
	m := vfs.NewMem()
	d := open(t, m, statedir.Options{Keep: 3})
	for _, c := range []string{"one", "two", "three"} {
		mustSave(t, d, c)
	}
	check(t, d.Close())
	check(t, m.Rename(current, folder+"/store.state.g000000000003"))
	d = open(t, m, statedir.Options{Keep: 3})
	defer d.Close()
	wantNewest(t, d, "three", 3)
	if g := mustSave(t, d, "four"); g != 4 {
		t.Errorf("the next generation is %d, want 4", g)
	}
	wantNewest(t, d, "four", 4)
	wantNames(t, m, folder, "store.state", "store.state.g000000000002", "store.state.g000000000003")
}

// Copying an older generation over the newest is how a person goes back.
func TestOlderCopiedOverNewest(t *testing.T) {
	m := vfs.NewMem()
	d := open(t, m, statedir.Options{Now: at("2026-11-22T17:42:03Z")})
	mustSave(t, d, "one")
	mustSave(t, d, "two")
	check(t, d.Close())
	writeFile(t, m, current, readFile(t, m, folder+"/store.state.g000000000001"))
	d = open(t, m, statedir.Options{Now: at("2026-11-22T17:42:03Z")})
	defer d.Close()
	o, err := d.OpenNewest(service, store)
	check(t, err)
	if o.Generation != 1 || o.Path != current {
		t.Errorf("opened generation %d from %s", o.Generation, o.Path)
	}
	check(t, o.Close())
	mustSave(t, d, "three")
	// Neither of the two files of generation 1 is lost.
	wantNames(t, m, folder, "store.state", "store.state.corrupt-20261122T174203Z-g000000000001", "store.state.g000000000001")
}

func TestHigherGenerationAppears(t *testing.T) {
	m := vfs.NewMem()
	d := open(t, m, statedir.Options{})
	defer d.Close()
	mustSave(t, d, "one")
	p, err := d.Begin(service, store)
	check(t, err)
	check(t, encode(p, service, store, p.Generation(), "two"))
	var nine strings.Builder
	check(t, encode(&nine, service, store, 9, "nine"))
	writeFile(t, m, folder+"/store.state.g000000000009", []byte(nine.String()))
	if err := p.Commit(); err == nil || !strings.Contains(err.Error(), "generation 9") {
		t.Errorf("Commit below a higher generation: %v", err)
	}
	if g := mustSave(t, d, "ten"); g != 10 {
		t.Errorf("the next generation is %d, want 10", g)
	}
	wantNewest(t, d, "ten", 10)
}

func TestLastGenerationNumber(t *testing.T) {
	m := vfs.NewMem()
	d := open(t, m, statedir.Options{})
	defer d.Close()
	var last strings.Builder
	check(t, encode(&last, service, store, math.MaxUint64, "last"))
	check(t, m.Mkdir(folder))
	writeFile(t, m, current, []byte(last.String()))
	wantNewest(t, d, "last", math.MaxUint64)
	if _, err := d.Begin(service, store); !errors.Is(err, abi.ErrTooLarge) {
		t.Errorf("Begin: %v, want ErrTooLarge", err)
	}
}

func TestSweep(t *testing.T) {
	m := vfs.NewMem()
	d := open(t, m, statedir.Options{})
	mustSave(t, d, "one")
	check(t, d.Close())
	digest := strings.Repeat("ab", sha256.Size)
	for _, name := range []string{folder + "/store.state.tmp-3", folder + "/other.state.tmp-1", "modules/" + digest + ".wasm.tmp-1",
		folder + "/notes.tmp-1", folder + "/store.state.tmp-x", "modules/notes.tmp-1"} {
		writeFile(t, m, name, []byte("x"))
	}
	check(t, m.Mkdir(folder+"/store.state.tmp-9"))
	var log logs
	d = open(t, m, statedir.Options{Logger: log.logger()})
	defer d.Close()
	wantNames(t, m, folder, "notes.tmp-1", "store.state", "store.state.tmp-9", "store.state.tmp-x")
	wantNames(t, m, "modules", "notes.tmp-1")
	log.want(t, slog.LevelInfo, "removed", "store.state.tmp-3")
	mustSave(t, d, "two")
	wantNewest(t, d, "two", 2)
}

// A temporary file that can not be removed is no obstacle, neither to opening nor to saving.
func TestTempThatStays(t *testing.T) {
	m := vfs.NewMem()
	d := open(t, m, statedir.Options{})
	mustSave(t, d, "one")
	check(t, d.Close())
	writeFile(t, m, folder+"/store.state.tmp-1", []byte("x"))
	writeFile(t, m, folder+"/store.state.tmp-2", []byte("x"))
	var log logs
	w := vfs.Faulty(m, vfs.Fault{At: 1, Sticky: true, Err: syscall.EIO, Match: func(op vfs.Op, _ string) bool { return op == vfs.OpRemove }})
	d = open(t, w, statedir.Options{Logger: log.logger(), Keep: 1})
	defer d.Close()
	mustSave(t, d, "two")
	wantNewest(t, d, "two", 2)
	log.want(t, slog.LevelWarn, "could not be removed", "store.state.tmp-1")
	log.want(t, slog.LevelWarn, "could not be removed", "store.state.g000000000001") // pruning
	w.Inject(vfs.Fault{})
	mustSave(t, d, "three")
	wantNames(t, m, folder, "store.state", "store.state.tmp-1", "store.state.tmp-2")
}

func TestModules(t *testing.T) {
	m := vfs.NewMem()
	d := open(t, m, statedir.Options{})
	wasm := []byte("\x00asm one")
	digest := sha256.Sum256(wasm)
	if _, err := d.Module(digest); !errors.Is(err, abi.ErrNotFound) {
		t.Errorf("a module that is not kept: %v, want ErrNotFound", err)
	}
	if err := d.KeepModule(digest, []byte("something else")); !errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("keeping another module than the digest says: %v, want ErrCorrupt", err)
	}
	wantNames(t, m, "modules")
	check(t, d.KeepModule(digest, wasm))
	_, err := saveBy(d, string(wasm), service, store, "by it")
	check(t, err)
	file := fmt.Sprintf("modules/%x.wasm", digest)
	wantNames(t, m, "modules", file[len("modules/"):])
	got, err := d.Module(digest)
	if err != nil || string(got) != string(wasm) {
		t.Errorf("Module = %q, %v", got, err)
	}

	// Keeping it again writes nothing.
	w := vfs.Faulty(m, vfs.Fault{At: 1, Sticky: true, Err: syscall.ENOSPC, Match: func(op vfs.Op, _ string) bool {
		return op == vfs.OpWrite || op == vfs.OpRename
	}})
	check(t, d.Close())
	d = open(t, w, statedir.Options{})
	check(t, d.KeepModule(digest, wasm))
	check(t, d.KeepModule(digest, wasm))
	w.Inject(vfs.Fault{})

	// A damaged, a missing and a too large file.
	writeFile(t, m, file, []byte("\x00asm two"))
	if _, err := d.Module(digest); !errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("a damaged module: %v, want ErrCorrupt", err)
	}
	check(t, d.Close())
	d = open(t, m, statedir.Options{})
	defer d.Close()
	check(t, d.KeepModule(digest, wasm))
	if got, err := d.Module(digest); err != nil || string(got) != string(wasm) {
		t.Errorf("a damaged module was not written anew: %q, %v", got, err)
	}
	check(t, m.Remove(file))
	check(t, d.KeepModule(digest, wasm))
	if got, err := d.Module(digest); err != nil || string(got) != string(wasm) {
		t.Errorf("a module that vanished was not written anew: %q, %v", got, err)
	}
	large := make([]byte, statedir.MaxModuleBytes+1)
	if err := d.KeepModule(sha256.Sum256(large), large); !errors.Is(err, abi.ErrTooLarge) {
		t.Errorf("keeping a module that is too large: %v", err)
	}
	writeFile(t, m, file, large)
	if _, err := d.Module(digest); !errors.Is(err, abi.ErrTooLarge) {
		t.Errorf("reading a module that is too large: %v", err)
	}
}

func TestClosed(t *testing.T) {
	d := open(t, vfs.NewMem(), statedir.Options{})
	mustSave(t, d, "one")
	o, err := d.OpenNewest(service, store)
	check(t, err)
	check(t, d.Close())
	if got, err := contentOf(o); err != nil || got != "one" {
		t.Errorf("an open generation reads %q, %v after Close", got, err)
	}
	if q := d.Quarantine(o, abi.ErrCorrupt); !errors.Is(q.MoveErr, fs.ErrClosed) || q.Path != current {
		t.Errorf("Quarantine after Close: %+v", q)
	}
	check(t, o.Close())
	_, err1 := d.Begin(service, store)
	_, err2 := d.OpenNewest(service, store)
	_, err3 := d.Open(service, store, 1)
	_, err4 := d.Generations(service, store)
	_, err5 := d.Parts()
	err6 := d.KeepModule(sha256.Sum256(nil), nil)
	_, err7 := d.Module(sha256.Sum256(nil))
	for i, err := range []error{err1, err2, err3, err4, err5, err6, err7, d.Close()} {
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("method %d after Close: %v, want ErrClosed", i+1, err)
		}
	}
}

func TestParallel(t *testing.T) {
	d := open(t, vfs.NewMem(), statedir.Options{})
	var wg sync.WaitGroup
	for i := range 4 {
		part := fmt.Sprintf("part%d", i%2)
		wg.Go(func() {
			for j := range 20 {
				switch i {
				case 0, 1: // saves its part
					if _, err := save(d, service, part, fmt.Sprint(j)); err != nil {
						t.Error(err)
						return
					}
				default: // reads the other's
					content, g, _, err := load(d, service, part)
					if err == nil && content != fmt.Sprint(g-1) {
						t.Errorf("generation %d holds %q", g, content)
					}
					if err != nil && !errors.Is(err, abi.ErrNotFound) {
						t.Error(err)
					}
					if _, err := d.Generations(service, part); err != nil {
						t.Error(err)
					}
					if _, err := d.Parts(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	check(t, d.Close())
}
