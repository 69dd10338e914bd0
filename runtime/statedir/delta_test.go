package statedir_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math"
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

func TestDeltas(t *testing.T) {
	m := vfs.NewMem()
	d := open(t, m, statedir.Options{})
	mustSave(t, d, "one")
	mustSave(t, d, "two")
	full := readFile(t, m, current)
	held := []string{"two"}
	for i, kv := range [][2]string{{"a", "1"}, {"b", "2"}, {"a", "3"}, {"b", ""}} {
		content, g := mustSaveDelta(t, d, kv[0], kv[1])
		if g != uint64(3+i) {
			t.Fatalf("delta %d is generation %d", i, g)
		}
		held = append(held, content)
		wantNewest(t, d, content, g)
		wantNames(t, m, folder, "store.state", "store.state.g000000000001")
		if !bytes.HasPrefix(readFile(t, m, current), full) {
			t.Fatal("an append has changed what was there")
		}
	}
	if last := held[len(held)-1]; last != "two+a=3#b=" {
		t.Fatalf("the newest generation holds %q", last)
	}
	check(t, d.Close())

	d = open(t, m, statedir.Options{})
	defer d.Close()
	content, g := mustSaveDelta(t, d, "c", "4") // what another process has written is built upon
	held = append(held, content)
	if g != 7 {
		t.Errorf("the next generation is %d, want 7", g)
	}

	// Each is a generation that can be opened.
	gens, err := d.Generations(service, store)
	check(t, err)
	if len(gens) != 7 {
		t.Fatalf("%d generations are listed, want 7: %+v", len(gens), gens)
	}
	for i, gen := range gens {
		number := uint64(7 - i)
		if gen.Number != number || gen.Err != nil || gen.Header.Generation != number || gen.Header.Created.IsZero() ||
			i > 0 && i < 6 && gen.Size >= gens[i-1].Size || (gen.Path == current) != (number >= 2) {
			t.Errorf("generation %d is listed as %+v", number, gen)
		}
		o, err := d.Open(service, store, number)
		check(t, err)
		want := "one"
		if number >= 2 {
			want = held[number-2]
		}
		got, err := contentOf(o)
		if err != nil || got != want || o.Generation != number || o.File().Info().Size != gen.Size {
			t.Errorf("generation %d is opened as %d and holds %q, want %q; %v", number, o.Generation, got, want, err)
		}
		check(t, o.Close())
	}

	// A full save keeps the file under the number of its last delta, and each generation in it.
	mustSave(t, d, "eight")
	wantNames(t, m, folder, "store.state", "store.state.g000000000007")
	o, err := d.Open(service, store, 4)
	check(t, err)
	if got, err := contentOf(o); err != nil || got != held[2] {
		t.Errorf("a generation inside an older file holds %q, %v; want %q", got, err, held[2])
	}
	check(t, o.Close())
	if _, err := d.Open(service, store, 1); !errors.Is(err, abi.ErrNotFound) {
		t.Errorf("a generation whose file was removed: %v", err)
	}
	mustSave(t, d, "nine")
	wantNames(t, m, folder, "store.state", "store.state.g000000000008")
}

func begin(t testing.TB, d *statedir.Dir, base uint64) *statedir.Pending {
	t.Helper()
	p, ok, err := d.BeginDelta(service, store, base, serializer(defaultModule))
	check(t, err)
	if !ok {
		t.Fatalf("a delta on generation %d is refused", base)
	}
	return p
}

func wantRefused(t testing.TB, what string, d *statedir.Dir, base uint64, by statefile.Serializer) {
	t.Helper()
	p, ok, err := d.BeginDelta(service, store, base, by)
	if err != nil || ok || p != nil {
		t.Errorf("%s: a delta is begun: %t, %v", what, ok, err)
	}
}

func TestDeltaRefused(t *testing.T) {
	m := vfs.NewMem()
	w := vfs.Faulty(m, vfs.Fault{})
	d := open(t, w, statedir.Options{})
	defer d.Close()
	by := serializer(defaultModule)
	wantRefused(t, "where nothing is", d, 0, by)
	wantRefused(t, "where nothing is", d, 1, by)
	mustSave(t, d, "one")
	mustSave(t, d, "two")
	wantRefused(t, "on an older generation", d, 1, by)
	wantRefused(t, "on one to come", d, 3, by)
	wantRefused(t, "by another module", d, 2, serializer("another"))
	other := by
	other.Schema++
	wantRefused(t, "with another schema", d, 2, other)

	p := begin(t, d, 2)
	if p.Generation() != 3 || p.Tail().Header().Generation != 2 || p.Tail().Size() != int64(len(readFile(t, m, current))) {
		t.Errorf("generation %d on %+v", p.Generation(), p.Tail())
	}
	if _, _, err := d.BeginDelta(service, store, 2, by); err == nil {
		t.Error("two deltas at once")
	}
	if _, err := d.Begin(service, store); err == nil {
		t.Error("a full save beside a delta")
	}
	// Aborted before anything was written, it has changed nothing, and another may begin.
	p.Abort()
	p.Abort()
	if err := p.Commit(); err == nil {
		t.Error("an aborted delta was committed")
	}
	if _, err := p.Write([]byte("x")); err == nil {
		t.Error("an aborted delta was written to")
	}
	p = begin(t, d, 2)
	check(t, encodeDelta(p, p.Tail(), p.Generation(), "two", "a", "1"))
	p.Abort()
	wantNewest(t, d, "two", 2)
	if content, g := mustSaveDelta(t, d, "b", "2"); g != 3 || strings.Contains(content, "a=") {
		t.Errorf("after an aborted delta generation %d is %s", g, content)
	}
	mustSave(t, d, "three")
	if _, _, err := d.BeginDelta("..", store, 4, by); err == nil {
		t.Error("a bad name is accepted")
	}
	// Where the folder can not be synced, a full save is to tell.
	d2 := open(t, vfs.Faulty(m.Kill(), vfs.Fault{At: 1, Sticky: true, Err: syscall.EIO,
		Match: func(op vfs.Op, name string) bool { return op == vfs.OpSync && name == folder }}), statedir.Options{})
	defer d2.Close()
	wantRefused(t, "where the folder can not be synced", d2, 4, by)
}

func TestCompaction(t *testing.T) {
	// deltas counts how many are made on a full save before one is refused.
	deltas := func(c statedir.Compaction, text string) (n int, tail statefile.Tail) {
		m := vfs.NewMem()
		d := open(t, m, statedir.Options{Compaction: c})
		defer d.Close()
		content, g := text, mustSave(t, d, text)
		for {
			next, err := saveDelta(d, g, content, "k", fmt.Sprint(n))
			if errors.Is(err, errFull) || errors.Is(err, statedir.ErrDeltaTooLarge) {
				b := readFile(t, m, current)
				f, err := statefile.Open(bytes.NewReader(b), int64(len(b)), current)
				check(t, err)
				tail = f.Tail()
				wantNewest(t, d, content, g)
				// Nothing of it stands in the way.
				if got := mustSave(t, d, "full"); got != g+1 {
					t.Fatalf("after a refused delta the next generation is %d, want %d", got, g+1)
				}
				return n, tail
			}
			check(t, err)
			content, g = changed(content, "k", fmt.Sprint(n)), next
			if n++; n > 3000 {
				t.Fatal("no bound is in force")
			}
		}
	}
	if n, _ := deltas(statedir.Compaction{Deltas: 5}, "x"); n != 5 {
		t.Errorf("with 5 deltas allowed, %d were made", n)
	}
	if n, tail := deltas(statedir.Compaction{Changes: 5}, "x"); n != 3 || tail.Changes() != 6 {
		t.Errorf("with 5 changes allowed, %d deltas of two were made", n)
	}
	if n, tail := deltas(statedir.Compaction{Bytes: 5000}, "x"); n != 3 || tail.Size()-tail.Full() > 5000 {
		t.Errorf("with 5000 bytes allowed, %d deltas of %d bytes in all were made", n, tail.Size()-tail.Full())
	}
	// By default a small file may take 1 MiB, a larger one half of what it has.
	if n, tail := deltas(statedir.Compaction{Deltas: 3000}, "x"); tail.Size()-tail.Full() > 1<<20 || tail.Size()-tail.Full() < 1<<20-5000 {
		t.Errorf("on a small file %d deltas of %d bytes were made", n, tail.Size()-tail.Full())
	}
	if n, tail := deltas(statedir.Compaction{Deltas: 3000}, strings.Repeat("large", 1<<18)); tail.Size()-tail.Full() > tail.Full()/2 ||
		tail.Size()-tail.Full() < tail.Full()/2-5000 {
		t.Errorf("on a file of %d bytes %d deltas of %d bytes were made", tail.Full(), n, tail.Size()-tail.Full())
	}
	if n, _ := deltas(statedir.Compaction{}, "x"); n >= statedir.DefaultDeltaCount {
		t.Errorf("%d deltas on a small file", n)
	}
	for _, c := range []statedir.Compaction{{Bytes: -1}, {Deltas: -1}} {
		if _, err := statedir.Open(vfs.NewMem(), statedir.Options{Compaction: c}); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
	d := open(t, vfs.NewMem(), statedir.Options{Compaction: statedir.Compaction{Bytes: math.MaxInt64, Deltas: math.MaxInt, Changes: math.MaxUint64}})
	check(t, d.Close())
}

func TestCommitRefusesWhatIsNoDelta(t *testing.T) {
	write := map[string]func(p *statedir.Pending) error{
		"nothing": func(*statedir.Pending) error { return nil },
		"text":    func(p *statedir.Pending) error { _, err := p.Write([]byte("hello")); return err },
		"a delta cut short": func(p *statedir.Pending) error {
			var w bytes.Buffer
			if err := encodeDelta(&w, p.Tail(), p.Generation(), "kept", "a", "1"); err != nil {
				return err
			}
			_, err := p.Write(w.Bytes()[:w.Len()-1])
			return err
		},
		"another generation": func(p *statedir.Pending) error {
			return encodeDelta(p, p.Tail(), p.Generation()+1, "kept", "a", "1")
		},
		"a full save": func(p *statedir.Pending) error { return encode(p, service, store, p.Generation(), "x") },
		"two deltas": func(p *statedir.Pending) error {
			return errors.Join(encodeDelta(p, p.Tail(), p.Generation(), "kept", "a", "1"), encodeDelta(p, p.Tail(), p.Generation(), "kept", "a", "1"))
		},
		"a damaged delta": func(p *statedir.Pending) error {
			var w bytes.Buffer
			if err := encodeDelta(&w, p.Tail(), p.Generation(), "kept", "a", "1"); err != nil {
				return err
			}
			b := w.Bytes()
			b[bytes.Index(b, []byte("a=1"))] ^= 1
			_, err := p.Write(b)
			return err
		},
	}
	for what, w := range write {
		m := vfs.NewMem()
		d := open(t, m, statedir.Options{})
		mustSave(t, d, "kept")
		before := readFile(t, m, current)
		p := begin(t, d, 1)
		check(t, w(p))
		if err := p.Commit(); err == nil || !strings.Contains(err.Error(), "s3/store generation 2") {
			t.Errorf("%s was committed: %v", what, err)
		}
		if !bytes.Equal(readFile(t, m, current), before) {
			t.Errorf("%s has stayed behind", what)
		}
		wantNewest(t, d, "kept", 1)
		if g := mustSave(t, d, "next"); g != 2 {
			t.Errorf("%s: the next generation is %d", what, g)
		}
		check(t, d.Close())
	}
}

// Whatever an append fails at, the folder is as it was, to the byte.
func TestFailedDeltaLeavesTheFolderAsItWas(t *testing.T) {
	for _, fault := range []vfs.Fault{
		{At: 1, Err: syscall.ENOSPC, Extent: vfs.Part, Match: only(vfs.OpWrite)},
		{At: 2, Err: syscall.ENOSPC, Extent: vfs.Part, Match: only(vfs.OpWrite)},
		{At: 2, Err: syscall.EIO, Extent: vfs.All, Match: only(vfs.OpWrite)},
		{At: 1, Err: syscall.EIO, Match: only(vfs.OpRead)},
		{At: 3, Err: syscall.EIO, Match: only(vfs.OpRead)},
		{At: 1, Err: syscall.EIO, Match: only(vfs.OpSync)},
		{At: 1, Err: syscall.EIO, Extent: vfs.All, Match: only(vfs.OpSync)},
	} {
		m := vfs.NewMem()
		w := vfs.Faulty(m, vfs.Fault{})
		d := open(t, w, options(0))
		mustSave(t, d, "one")
		content, g := mustSaveDelta(t, d, "a", "1")
		before := readFile(t, m, current)
		w.Inject(fault)
		if _, err := saveDelta(d, g, content, "b", "2"); !errors.Is(err, fault.Err) || !strings.Contains(err.Error(), "s3/store") {
			t.Errorf("%+v: %v", fault, err)
		}
		if !w.Fired() {
			t.Errorf("%+v: nothing failed", fault)
		}
		wantNames(t, m, folder, "store.state")
		for seed := range 20 {
			if !bytes.Equal(readFile(t, m.PowerCut(rng(seed)), current), before) {
				t.Fatalf("%+v: the file has changed", fault)
			}
		}
		if errors.Is(fault.Err, syscall.ENOSPC) {
			// As soon as there is room for it, the next delta is saved.
			if _, next := mustSaveDelta(t, d, "b", "2"); next != g+1 {
				t.Errorf("%+v: the next generation is %d", fault, next)
			}
		} else {
			wantRefused(t, "after one that failed", d, g, serializer(defaultModule))
			if next := mustSave(t, d, "two"); next != g+1 {
				t.Errorf("%+v: the next generation is %d", fault, next)
			}
		}
		mustSaveDelta(t, d, "c", "3")
		check(t, d.Close())
	}
}

// Where what was appended can not be taken back either, it is not read, its number is taken, and it goes
// before anything else is done to the file.
func TestFailedDeltaThatStays(t *testing.T) {
	m := vfs.NewMem()
	var log logs
	w := vfs.Faulty(m, vfs.Fault{})
	d := open(t, w, statedir.Options{Logger: log.logger()})
	defer d.Close()
	mustSave(t, d, "one")
	content, g := mustSaveDelta(t, d, "a", "1")
	before := readFile(t, m, current)
	w.Inject(vfs.Fault{At: 1, Err: syscall.EIO, Sticky: true,
		Match: func(op vfs.Op, _ string) bool { return op == vfs.OpSync || op == vfs.OpTruncate }})
	if _, err := saveDelta(d, g, content, "b", "2"); !errors.Is(err, syscall.EIO) {
		t.Fatalf("a delta: %v", err)
	}
	log.want(t, slog.LevelWarn, "appended in vain", "generation=3")
	if len(readFile(t, m, current)) == len(before) {
		t.Fatal("it has been cut off: this test tests nothing")
	}
	wantNewest(t, d, content, g) // though the delta is there, whole
	if gens, err := d.Generations(service, store); err != nil || len(gens) != 2 {
		t.Errorf("listed: %+v, %v", gens, err)
	}
	if _, err := save(d, service, store, "two"); !errors.Is(err, syscall.EIO) {
		t.Errorf("a save: %v, want EIO", err)
	}
	w.Inject(vfs.Fault{})
	if next := mustSave(t, d, "two"); next != 4 {
		t.Errorf("the next generation is %d, want 4", next)
	}
	if !bytes.Equal(readFile(t, m, folder+"/store.state.g000000000002"), before) {
		t.Error("the generation before is not what it was")
	}
}

// A part is read while a delta is appended to it, as it was before.
func TestLoadBesideDelta(t *testing.T) {
	m := vfs.NewMem()
	var log logs
	d := open(t, m, statedir.Options{Logger: log.logger()})
	defer d.Close()
	mustSave(t, d, "one")
	p := begin(t, d, 1)
	var delta bytes.Buffer
	check(t, encodeDelta(&delta, p.Tail(), p.Generation(), "one", "a", "1"))
	for _, b := range [][]byte{delta.Bytes()[:100], delta.Bytes()[100:]} {
		_, err := p.Write(b)
		check(t, err)
		wantNewest(t, d, "one", 1)
		gens, err := d.Generations(service, store)
		if err != nil || len(gens) != 1 || gens[0].Err != nil {
			t.Errorf("beside a delta there are %+v, %v", gens, err)
		}
	}
	check(t, p.Commit())
	wantNewest(t, d, "one+a=1#a=1", 2)
	if strings.Contains(log.String(), "WARN") {
		t.Errorf("the log has\n%s", log.String())
	}

	// Damage found meanwhile ends the delta, whichever way it goes.
	for _, tail := range []bool{false, true} {
		content, g := mustSaveDelta(t, d, "b", "2")
		o, err := d.OpenNewest(service, store)
		check(t, err)
		p = begin(t, d, g)
		_, err = p.Write(delta.Bytes()[:100])
		check(t, err)
		cause := abi.ErrCorrupt
		if tail {
			saves := o.File().Saves()
			cause = &statefile.FileError{File: o.Path, Offset: saves[len(saves)-2].End, Reason: "test", Err: abi.ErrCorrupt}
		}
		q := d.Quarantine(o, cause)
		if (q.MoveErr != nil) != tail || q.Generation != g {
			t.Errorf("Quarantine = %+v", q)
		}
		check(t, o.Close())
		_, err = p.Write(delta.Bytes()[100:])
		check(t, err)
		if err := p.Commit(); err == nil {
			t.Error("a delta on a damaged generation was committed")
		}
		if got, _, _, err := load(d, service, store); got == content || err == nil && strings.Contains(got, "b=2") {
			t.Errorf("after that %q is loaded, %v", got, err)
		}
		mustSave(t, d, "anew")
	}
}

// For the race detector as much as for what it looks at.
func TestParallelDeltas(t *testing.T) {
	d := open(t, vfs.NewMem(), statedir.Options{Compaction: statedir.Compaction{Deltas: 7}})
	defer d.Close()
	want := map[uint64]string{1: "x"}
	for g := uint64(2); g <= 40; g++ {
		want[g] = changed(want[g-1], fmt.Sprint("k", g%3), fmt.Sprint(g))
	}
	mustSave(t, d, want[1])
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		defer close(done)
		for g := uint64(2); g <= 40; g++ {
			_, err := saveDelta(d, g-1, want[g-1], fmt.Sprint("k", g%3), fmt.Sprint(g))
			if errors.Is(err, errFull) {
				_, err = save(d, service, store, want[g])
			}
			if err != nil {
				t.Errorf("generation %d: %v", g, err)
				return
			}
		}
	})
	for range 2 {
		wg.Go(func() {
			for {
				content, g, set, err := load(d, service, store)
				if err != nil || len(set) > 0 || content != want[g] {
					t.Errorf("generation %d holds %q, want %q; %+v, %v", g, content, want[g], set, err)
					return
				}
				gens, err := d.Generations(service, store)
				if err != nil || gens[0].Err != nil || gens[0].Number < g {
					t.Errorf("after generation %d: %+v, %v", g, gens, err)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	wg.Wait()
	wantNewest(t, d, want[40], 40)
}

func TestCloseBesideDelta(t *testing.T) {
	m := vfs.NewMem()
	d := open(t, m, statedir.Options{})
	mustSave(t, d, "one")
	_, err := save(d, service, "backend", "one")
	check(t, err)
	p := begin(t, d, 1)
	check(t, encodeDelta(p, p.Tail(), p.Generation(), "one", "a", "1"))
	q, ok, err := d.BeginDelta(service, "backend", 1, serializer(defaultModule))
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	_, err = q.Write([]byte("half of it"))
	check(t, err)
	check(t, d.Close())
	q.Abort()
	if err := p.Commit(); err == nil {
		t.Error("a delta was committed after Close")
	}
	// What it has written is all there, and none of it was promised: it may be found.
	var log logs
	d = open(t, m, statedir.Options{Logger: log.logger()})
	defer d.Close()
	wantNewest(t, d, "one+a=1#a=1", 2)
	content, g, set, err := load(d, service, "backend")
	if err != nil || content != "one" || g != 1 || len(set) > 0 {
		t.Errorf("backend: %q of generation %d, %+v, %v", content, g, set, err)
	}
	log.want(t, slog.LevelWarn, "interrupted", "was cut off", "backend.state")
}

func TestTornEndIsCutOff(t *testing.T) {
	m := vfs.NewMem()
	var log logs
	opt := statedir.Options{Logger: log.logger()}
	d := open(t, m, opt)
	mustSave(t, d, "one")
	content, g := mustSaveDelta(t, d, "a", "1")
	check(t, d.Close())
	whole := readFile(t, m, current)
	d = open(t, m, opt)
	mustSaveDelta(t, d, "b", "2")
	check(t, d.Close())
	longer := readFile(t, m, current)
	for _, end := range []int{len(whole) + 1, len(whole) + 100, len(longer) - 31, len(longer) - 1} {
		log.Reset()
		writeFile(t, m, current, longer[:end])
		d = open(t, m, opt)
		if gens, err := d.Generations(service, store); err != nil || len(gens) != 2 || gens[0].Err != nil || gens[0].Number != g {
			t.Errorf("cut at %d: listed %+v, %v", end, gens, err)
		}
		if got := readFile(t, m, current); len(got) != end {
			t.Error("listing has changed the file")
		}
		wantNewest(t, d, content, g)
		log.want(t, slog.LevelWarn, "interrupted", "was cut off", fmt.Sprint("end=", len(whole)))
		if strings.Contains(log.String(), "ERROR") {
			t.Errorf("the log has\n%s", log.String())
		}
		if !bytes.Equal(readFile(t, m, current), whole) {
			t.Errorf("cut at %d: the end is still there", end)
		}
		if _, next := mustSaveDelta(t, d, "c", "3"); next != g+1 {
			t.Errorf("the next generation is %d", next)
		}
		check(t, d.Close())
	}
}

func TestDamagedEndIsSetAside(t *testing.T) {
	for _, of := range []struct {
		name  string
		spoil func(*testing.T, *vfs.Mem, []statefile.Save)
	}{{"chunk", damageChunk}, {"index", damageIndex}} {
		t.Run(of.name, func(t *testing.T) {
			m := vfs.NewMem()
			var log logs
			opt := statedir.Options{Logger: log.logger(), Now: at("2026-11-22T17:42:03Z")}
			d := open(t, m, opt)
			mustSave(t, d, "one")
			content, _ := mustSaveDelta(t, d, "a", "1")
			whole := readFile(t, m, current)
			for _, k := range []string{"b", "c"} {
				mustSaveDelta(t, d, k, "lost")
			}
			check(t, d.Close())
			of.spoil(t, m, nil)
			end := readFile(t, m, current)[len(whole):]

			d = open(t, m, opt)
			defer d.Close()
			got, g, set, err := load(d, service, store)
			if err != nil || got != content || g != 2 {
				t.Fatalf("loaded %q of generation %d, %v; want %q", got, g, err, content)
			}
			if len(set) != 1 || set[0].Generation != 4 || set[0].Path != folder+"/"+asideTail(4) || set[0].MoveErr != nil ||
				!errors.Is(set[0].Err, abi.ErrCorrupt) {
				t.Errorf("set aside: %+v", set)
			}
			log.want(t, slog.LevelError, "service=s3", "part=store", "generation=4", asideTail(4))
			wantNames(t, m, folder, "store.state", asideTail(4))
			if !bytes.Equal(readFile(t, m, folder+"/"+asideTail(4)), end) || !bytes.Equal(readFile(t, m, current), whole) {
				t.Error("the two parts are not what the file was")
			}
			for seed := range 20 {
				after := m.PowerCut(rng(seed))
				if !bytes.Equal(readFile(t, after, current), whole) || !bytes.Equal(readFile(t, after, folder+"/"+asideTail(4)), end) {
					t.Fatal("that is not durable")
				}
			}
			// The numbers are taken, and the file is not built upon.
			wantRefused(t, "on a file that has lost a part", d, 2, serializer(defaultModule))
			if g := mustSave(t, d, "next"); g != 5 {
				t.Errorf("the next generation is %d, want 5", g)
			}
		})
	}
}

// Where the end can not be cut off, what is before it is read all the same, and the damage told at every
// load.
func TestDamagedEndThatStays(t *testing.T) {
	for _, spoil := range []func(*testing.T, *vfs.Mem, []statefile.Save){damageChunk, damageIndex} {
		m := vfs.NewMem()
		w := vfs.Faulty(m, vfs.Fault{})
		var log logs
		d := open(t, w, statedir.Options{Logger: log.logger(), Now: at("2026-11-22T17:42:03Z")})
		mustSave(t, d, "one")
		content, _ := mustSaveDelta(t, d, "a", "1")
		mustSaveDelta(t, d, "b", "lost")
		mustSaveDelta(t, d, "c", "lost")
		spoil(t, m, nil)
		before := readFile(t, m, current)
		w.Inject(vfs.Fault{At: 1, Sticky: true, Err: syscall.EROFS, Match: only(vfs.OpTruncate)})
		for i := range 3 {
			got, g, set, err := load(d, service, store)
			if err != nil || got != content || g != 2 {
				t.Fatalf("loaded %q of generation %d, %v; want %q", got, g, err, content)
			}
			if len(set) != 1 || set[0].Path != current || !errors.Is(set[0].MoveErr, syscall.EROFS) ||
				!errors.Is(set[0].Err, abi.ErrCorrupt) || set[0].Generation != 4 {
				t.Fatalf("load %d: set aside: %+v", i, set)
			}
			wantNames(t, m, folder, "store.state", asideTail(4)) // one copy, however often it is tried
		}
		log.want(t, slog.LevelError, "could not be cut off", "generation=4")
		gens, err := d.Generations(service, store)
		if err != nil || len(gens) != 3 || gens[0].Err == nil || gens[1].Number != 2 || gens[1].Err != nil {
			t.Errorf("listed: %+v, %v", gens, err)
		}
		if _, _, err := d.BeginDelta(service, store, 2, serializer(defaultModule)); !errors.Is(err, syscall.EROFS) {
			t.Errorf("a delta behind a damaged end: %v", err)
		}
		if _, err := save(d, service, store, "next"); !errors.Is(err, syscall.EROFS) {
			t.Errorf("a save: %v, want EROFS", err)
		}
		if !bytes.Equal(readFile(t, m, current), before) {
			t.Error("the file was changed")
		}
		w.Inject(vfs.Fault{})
		if g := mustSave(t, d, "next"); g != 5 {
			t.Errorf("the next generation is %d, want 5", g)
		}
		wantNames(t, m, folder, "store.state", asideTail(4), "store.state.g000000000002")
		check(t, d.Close())
	}
}

// The damage lies in a delta below others; a full save has renamed the file meanwhile.
func TestQuarantineOfTheEndOfARenamedFile(t *testing.T) {
	m := vfs.NewMem()
	d := open(t, m, statedir.Options{Keep: 3, Now: at("2026-11-22T17:42:03Z")})
	defer d.Close()
	mustSave(t, d, "one")
	mustSaveDelta(t, d, "a", "1")
	mustSaveDelta(t, d, "b", "2")
	o, err := d.OpenNewest(service, store)
	check(t, err)
	mustSaveDelta(t, d, "c", "3")
	mustSave(t, d, "five")
	saves := o.File().Saves()
	damage := &statefile.FileError{File: o.Path, Offset: saves[1].End + 5, Reason: "test", Err: abi.ErrCorrupt}
	q := d.Quarantine(o, fmt.Errorf("found while reading: %w", damage))
	if q.MoveErr != nil || q.Generation != 4 || q.Path != folder+"/"+asideTail(4) {
		t.Errorf("Quarantine = %+v", q)
	}
	wantNames(t, m, folder, "store.state", asideTail(4), "store.state.g000000000002")
	check(t, o.Close())
	o, err = d.Open(service, store, 2)
	check(t, err)
	if got, err := contentOf(o); err != nil || got != "one+a=1#a=1" {
		t.Errorf("what is left holds %q, %v", got, err)
	}
	// In the full save itself: all of the file.
	damage.Offset = saves[0].End - 1
	if q := d.Quarantine(o, damage); q.MoveErr != nil || q.Generation != 2 || q.Path != folder+"/store.state.corrupt-20261122T174203Z-g000000000002" {
		t.Errorf("Quarantine = %+v", q)
	}
	check(t, o.Close())
	wantNewest(t, d, "five", 5)
}

// A sync that failed is not made up for by another one: the file is written anew.
func TestNewestThatCanNotBeSynced(t *testing.T) {
	m := vfs.NewMem()
	d := open(t, m, statedir.Options{})
	mustSave(t, d, "one")
	content, _ := mustSaveDelta(t, d, "a", "1")
	check(t, d.Close())
	var log logs
	w := vfs.Faulty(m, vfs.Fault{})
	d = open(t, w, statedir.Options{Logger: log.logger()})
	defer d.Close()
	w.Inject(vfs.Fault{At: 1, Err: syscall.EIO, Match: func(op vfs.Op, name string) bool { return op == vfs.OpSync && name == current }})
	wantNewest(t, d, content, 2)
	log.want(t, slog.LevelWarn, "could not be made durable", current)
	written := 0
	w.Inject(vfs.Fault{At: math.MaxInt, Match: func(op vfs.Op, name string) bool {
		if op == vfs.OpRename && name == current {
			written++
		}
		return true
	}})
	mustSaveDelta(t, d, "b", "2")
	if written != 1 {
		t.Errorf("the file was written anew %d times", written)
	}
	wantNewest(t, d, "one+a=1+b=2#b=2", 3)
}

func TestFileChangedFromOutside(t *testing.T) {
	m := vfs.NewMem()
	d := open(t, m, statedir.Options{})
	defer d.Close()
	mustSave(t, d, "one")
	writeFile(t, m, current, append(readFile(t, m, current), "more"...))
	wantRefused(t, "on a file that someone has appended to", d, 1, serializer(defaultModule))
	mustSave(t, d, "two")
	wantNewest(t, d, "two", 2)
	o, err := d.Open(service, store, 1)
	check(t, err)
	if got, err := contentOf(o); err != nil || got != "one" {
		t.Errorf("the generation before holds %q, %v", got, err)
	}
	check(t, o.Close())
}

func TestModulesAreCollected(t *testing.T) {
	m := vfs.NewMem()
	var log logs
	opt := statedir.Options{Logger: log.logger(), Now: at("2026-11-22T17:42:03Z")}
	// life is a process that saves by a module.
	life := func(module string, contents ...string) {
		t.Helper()
		d := open(t, m, opt)
		check(t, d.KeepModule(sha256.Sum256([]byte(module)), []byte(module)))
		for _, c := range contents {
			_, err := saveBy(d, module, service, store, c)
			check(t, err)
		}
		check(t, d.Close())
	}
	wantModules := func(modules ...string) {
		t.Helper()
		var want []string
		for _, module := range modules {
			want = append(want, moduleName(module))
		}
		slices.Sort(want)
		wantNames(t, m, "modules", want...)
	}
	life("unused")
	life("a", "1") // opening removes what the last life kept for nothing
	wantModules("a")
	log.want(t, slog.LevelInfo, "removed a module", moduleName("unused"))
	life("b", "2")
	wantModules("a", "b") // the generation before needs it
	life("c", "3")
	wantModules("b", "c")
	log.want(t, slog.LevelInfo, "removed a module", moduleName("a"))

	// What is not a module of ours stays.
	writeFile(t, m, "modules/notes.wasm", nil)
	writeFile(t, m, "modules/"+strings.ToUpper(moduleName("a")[:64])+".wasm", nil)
	life("c")
	if got := names(t, m, "modules"); len(got) != 4 {
		t.Errorf("modules has %q", got)
	}
	for _, name := range names(t, m, "modules") {
		if name != moduleName("b") && name != moduleName("c") {
			check(t, m.Remove("modules/"+name))
		}
	}

	// Another service's state needs its module as well, and so does one set aside.
	d := open(t, m, opt)
	check(t, d.KeepModule(sha256.Sum256([]byte("sqs")), []byte("sqs")))
	_, err := saveBy(d, "sqs", "sqs", store, "x")
	check(t, err)
	o, err := d.OpenNewest("sqs", store)
	check(t, err)
	if q := d.Quarantine(o, abi.ErrCorrupt); q.MoveErr != nil {
		t.Fatal(q.MoveErr)
	}
	check(t, o.Close())
	check(t, d.Close())
	life("c")
	wantModules("b", "c", "sqs")

	// A state that does not say what wrote it may need any.
	for _, name := range []string{folder + "/store.state.g000000000001", folder + "/other.state", folder + "/" + asideTail(9),
		folder + "/store.state.corrupt-20261122T174203Z-g000000000009", "state/api_states/sqs/x.state.g000000000001"} {
		writeFile(t, m, name, []byte("damaged"))
		life("d")
		life("c")
		wantModules("b", "c", "d", "sqs")
		check(t, m.Remove(name))
		life("c")
		wantModules("b", "c", "sqs")
	}
	log.want(t, slog.LevelDebug, "no module is removed")
}

// Where all modules are this process's own, no state file is opened for them.
func TestCollectingIsCheap(t *testing.T) {
	w := vfs.Faulty(vfs.NewMem(), vfs.Fault{})
	d := open(t, w, statedir.Options{Keep: 1})
	defer d.Close()
	check(t, d.KeepModule(sha256.Sum256([]byte(defaultModule)), []byte(defaultModule)))
	for i := range 20 {
		_, err := save(d, "other", fmt.Sprint("part", i), "x")
		check(t, err)
	}
	mustSave(t, d, "one")
	opened := map[string]bool{}
	w.Inject(vfs.Fault{At: math.MaxInt, Match: func(op vfs.Op, name string) bool {
		if op == vfs.OpOpen && path.Dir(name) != "state/api_states" {
			opened[name] = true
		}
		return true
	}})
	mustSave(t, d, "two")
	for name := range opened {
		if strings.Contains(name, "other") {
			t.Errorf("%s was opened", name)
		}
	}
}

// TestFlippedTrailerIsDamage: one changed byte is no append that was cut off; what it costs is kept and told.
func TestFlippedTrailerIsDamage(t *testing.T) {
	base := vfs.NewMem()
	d := open(t, base, statedir.Options{})
	mustSave(t, d, "one")
	mustSaveDelta(t, d, "a", "1")
	mustSaveDelta(t, d, "b", "2")
	check(t, d.Close())
	whole := readFile(t, base, current)
	var silent []int
	for i := 1; i <= 40; i++ {
		m := vfs.NewMem()
		d := open(t, m, statedir.Options{})
		mustSave(t, d, "one")
		check(t, d.Close())
		b := append([]byte(nil), whole...)
		b[len(b)-i] ^= 1
		writeFile(t, m, current, b)
		d = open(t, m, statedir.Options{})
		_, g, set, err := load(d, service, store)
		if err == nil && g == 2 && len(set) == 0 {
			silent = append(silent, i)
		}
		d.Close()
	}
	if len(silent) > 0 {
		t.Errorf("an acknowledged generation is destroyed without a report when byte -%v flips", silent)
	}
}
