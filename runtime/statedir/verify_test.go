package statedir_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// kept makes a folder of two files: the older with generations 1 and 2, the newest with 3, 4 and 5.
func kept(t *testing.T) (m *vfs.Mem, contents map[uint64]string) {
	t.Helper()
	m, contents = vfs.NewMem(), map[uint64]string{}
	d := open(t, m, options(2))
	check(t, d.KeepModule(sha256.Sum256([]byte(defaultModule)), []byte(defaultModule)))
	full := func(content string) {
		g, err := save(d, service, store, content)
		check(t, err)
		contents[g] = content
	}
	delta := func(key string) {
		content, g := mustSaveDelta(t, d, key, strings.Repeat(key, 900))
		contents[g] = content
	}
	full("first")
	delta("a")
	full("second")
	delta("b")
	delta("c")
	check(t, d.Close())
	if len(contents) != 5 || contents[5] == "" {
		t.Fatalf("saved %v", slices.Sorted(maps.Keys(contents)))
	}
	return m, contents
}

// verify runs Verify and returns what it found wrong, by file name, and all it found.
func verify(fsys vfs.FS, repair bool) (wrong map[string]statedir.Finding, all []statedir.Finding, err error) {
	wrong = map[string]statedir.Finding{}
	opt := options(0)
	err = statedir.Verify(context.Background(), fsys, statedir.VerifyOptions{Repair: repair, Now: opt.Now, Module: func(digest [32]byte) ([]byte, bool) {
		return []byte(defaultModule), digest == sha256.Sum256([]byte(defaultModule))
	}}, func(f statedir.Finding) {
		all = append(all, f)
		if f.Err != nil {
			wrong[path.Base(f.Path)] = f
		}
	})
	return wrong, all, err
}

const olderFile = folder + "/store.state.g000000000002"

// harms are what is done to the folder, and which generation is the newest sound one then.
func harms() map[string]struct {
	file   string
	harm   func(t *testing.T, b []byte) []byte // nil: the file is removed
	newest uint64
	good   bool // something of the file is
} {
	// In a folder of small states what is looked for is in one chunk.
	flip := func(what string) func(*testing.T, []byte) []byte {
		return func(t *testing.T, b []byte) []byte {
			t.Helper()
			i := bytes.Index(b, []byte(what))
			if i < 0 {
				t.Fatalf("there is no %q to damage", what)
			}
			b[i] ^= 1
			return b
		}
	}
	module := "modules/" + moduleName(defaultModule)
	return map[string]struct {
		file   string
		harm   func(t *testing.T, b []byte) []byte
		newest uint64
		good   bool
	}{
		"the last delta":                  {current, flip("ccccc"), 4, true},
		"the delta before":                {current, flip("bbbbb"), 3, true},
		"the newest full save":            {current, flip("second"), 2, false},
		"the newest trailer":              {current, func(_ *testing.T, b []byte) []byte { b[len(b)-14] ^= 1; return b }, 4, true},
		"the older file's delta":          {olderFile, flip("aaaaa"), 5, true},
		"the older file's full save":      {olderFile, flip("first"), 5, false},
		"the newest is no state file":     {current, func(*testing.T, []byte) []byte { return []byte("something else") }, 2, false},
		"the newest is of another part":   {current, flip("store"), 2, false},
		"the newest is empty":             {current, func(*testing.T, []byte) []byte { return []byte{} }, 2, false},
		"the older file under a new name": {olderFile, nil, 5, false},
		"the module":                      {module, flip("module"), 5, false},
		"no module":                       {module, nil, 5, false},
	}
}

func TestVerifyTellsAndRepairs(t *testing.T) {
	for name, h := range harms() {
		t.Run(name, func(t *testing.T) {
			m, contents := kept(t)
			if wrong, all, err := verify(m, false); err != nil || len(wrong) > 0 || len(all) != 3 {
				t.Fatalf("before: %v, %v, %v", wrong, all, err)
			}
			b := readFile(t, m, h.file)
			check(t, m.Remove(h.file))
			var damaged []byte
			if h.harm != nil {
				damaged = h.harm(t, b)
				writeFile(t, m, h.file, damaged)
			}
			before := tree(t, m)
			wrong, _, err := verify(m, false)
			check(t, err)
			found := wrong[path.Base(h.file)]
			if h.harm != nil && (!errors.Is(found.Err, abi.ErrCorrupt) || found.Good > 0 != h.good || found.Torn) {
				t.Errorf("found %+v", wrong)
			}
			if after := tree(t, m); !maps.Equal(before, after) {
				t.Error("without being asked to repair, Verify changed something")
			}
			wrong, _, err = verify(m, true)
			check(t, err)
			for file, f := range wrong {
				if f.Repair == "" && h.harm != nil && !errors.Is(f.Err, abi.ErrNotFound) {
					t.Errorf("%s was not repaired: %v", file, f.Err)
				}
			}
			wantRepaired(t, "repaired", m, damaged, contents[h.newest], h.newest)
		})
	}
}

func tree(t *testing.T, m *vfs.Mem) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, f := range []string{folder, "modules"} {
		for _, name := range names(t, m, f) {
			all[f+"/"+name] = string(readFile(t, m, f+"/"+name))
		}
	}
	return all
}

// wantRepaired checks that all is sound, that what was damaged is kept, and which generation is found.
func wantRepaired(t *testing.T, what string, m *vfs.Mem, damaged []byte, content string, newest uint64) {
	t.Helper()
	if wrong, _, err := verify(m, false); err != nil || len(wrong) > 0 {
		t.Errorf("%s: Verify says %v, %v", what, wrong, err)
	}
	isKept := damaged == nil
	all := tree(t, m)
	for _, b := range all {
		for _, rest := range append(slices.Collect(maps.Values(all)), "") { // of a file whose end was moved, the two together
			isKept = isKept || b+rest == string(damaged)
		}
	}
	if !isKept {
		t.Errorf("%s: what was damaged is lost: %q", what, names(t, m, folder))
	}
	d := open(t, m, options(2))
	got, g, set, err := load(d, service, store)
	if err != nil || got != content || g != newest || len(set) > 0 {
		t.Errorf("%s: loaded generation %d, want %d: %v, %v", what, g, newest, set, err)
	}
	check(t, d.Close())
}

// TestCrashWhileRepairing: a repair that is cut off at any operation has lost nothing, and the next one
// ends it.
func TestCrashWhileRepairing(t *testing.T) {
	if testing.Short() {
		t.Skip("thousands of crashes, one after the other")
	}
	for name, h := range harms() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base, contents := kept(t)
			b := readFile(t, base, h.file)
			check(t, base.Remove(h.file))
			var damaged []byte
			if h.harm != nil {
				damaged = h.harm(t, b)
				writeFile(t, base, h.file, damaged)
			}
			base = synced(t, base)
			crashes := 0
			for k := 1; ; k++ {
				m := base.Kill()
				w := vfs.Faulty(m, vfs.Crash(k))
				_, _, err := verify(w, true)
				if !w.Fired() {
					check(t, err)
					break
				}
				crashes++
				after := []*vfs.Mem{m.Kill()}
				for cut := range *cuts {
					after = append(after, m.PowerCut(rng(cut)))
				}
				for i, m := range after {
					what := fmt.Sprintf("crashed at operation %d, %d", k, i)
					if _, _, err := verify(m, true); err != nil {
						t.Fatalf("%s: %v", what, err)
					}
					wantRepaired(t, what, m, damaged, contents[h.newest], h.newest)
				}
			}
			if crashes < 10 {
				t.Errorf("only %d crashes", crashes)
			}
		})
	}
}

// synced is m as it is when all of it is durable.
func synced(t *testing.T, m *vfs.Mem) *vfs.Mem {
	t.Helper()
	for _, f := range []string{".", "state", "state/api_states", folder, "modules"} {
		for _, name := range append(names(t, m, f), ".") {
			h, err := m.OpenFile(path.Join(f, name), vfs.Read)
			check(t, err)
			check(t, h.Sync())
			check(t, h.Close())
		}
	}
	return m
}

// withOlder makes a folder in which generations 1 to 3 lie in the older file, whose name is given, and 4 in
// the newest.
func withOlder(t *testing.T) (m *vfs.Mem, name string) {
	t.Helper()
	m = vfs.NewMem()
	d := open(t, m, statedir.Options{})
	mustSave(t, d, "one")
	mustSaveDelta(t, d, "a", "1")
	mustSaveDelta(t, d, "b", "2")
	mustSave(t, d, "two")
	check(t, d.Close())
	return m, folder + "/store.state.g000000000003"
}

// TestOlderFileCutShortIsNotTorn: it was whole once, so what is missing was saved.
func TestOlderFileCutShortIsNotTorn(t *testing.T) {
	m, name := withOlder(t)
	b := readFile(t, m, name)
	writeFile(t, m, name, b[:len(b)-10])
	_, all, err := verify(m, false)
	check(t, err)
	for _, f := range all {
		if strings.HasSuffix(f.Path, "g000000000003") && (f.Torn || f.Left == nil || f.Good == 0) {
			t.Errorf("generation 3 is lost, and Verify says %+v", f)
		}
	}
}

// TestRepairGivesNoNumberTwice: the generations that are lost have had theirs.
func TestRepairGivesNoNumberTwice(t *testing.T) {
	for _, repair := range []bool{false, true} {
		m := vfs.NewMem()
		d := open(t, m, statedir.Options{})
		mustSave(t, d, "one")
		for _, k := range []string{"a", "b", "c", "d"} {
			mustSaveDelta(t, d, k, "1")
		}
		check(t, d.Close())
		saves := savesIn(t, m, current)
		b := readFile(t, m, current)
		b[saves[0].End+40] ^= 1 // a chunk of generation 2
		writeFile(t, m, current, b)
		if repair {
			_, _, err := verify(m, true)
			check(t, err)
		}
		d = open(t, m, statedir.Options{})
		_, _, _, err := load(d, service, store)
		check(t, err)
		g := mustSave(t, d, "later")
		if g <= 5 {
			t.Errorf("repair %v: generation %d was given again, up to 5 were acknowledged", repair, g)
		}
		check(t, d.Close())
	}
}

// TestRepairAfterCrashInCut: an older file gets its name before it is cut.
func TestRepairAfterCrashInCut(t *testing.T) {
	m, name := withOlder(t)
	saves := savesIn(t, m, name)
	whole := readFile(t, m, name)
	for _, damaged := range []bool{true, false} {
		m, _ := withOlder(t)
		b := append([]byte(nil), whole...)
		if damaged {
			b[saves[1].End+40] ^= 1
		}
		check(t, m.Remove(name))
		writeFile(t, m, folder+"/store.state.g000000000002", b)
		_, rep, err := verify(m, true)
		check(t, err)
		for _, f := range rep {
			if f.Kind == statedir.KindState && f.Err != nil && (f.Repair == "" || f.Left != nil) && !f.Missing {
				t.Errorf("damaged=%v: not repaired: %v", damaged, f.Err)
			}
			if f.Err != nil && f.Good == 0 && strings.Contains(f.Path, "g000000000002") {
				t.Errorf("damaged=%v: nothing of it is good?", damaged)
			}
		}
	}
}

func TestRepairThatFailedIsNoRepair(t *testing.T) {
	m := vfs.NewMem()
	d := open(t, m, statedir.Options{})
	check(t, d.KeepModule(serializer(defaultModule).Digest, []byte(defaultModule)))
	mustSave(t, d, "one")
	check(t, d.Close())
	mod := "modules/" + names(t, m, "modules")[0]
	writeFile(t, m, mod, []byte("damaged"))
	w := vfs.Faulty(m, vfs.Fault{At: 1, Sticky: true, Err: syscall.EACCES, Match: func(op vfs.Op, _ string) bool { return op == vfs.OpRename }})
	_, rep, err := verify(w, true)
	check(t, err)
	if rep[0].Left == nil || rep[0].Repair != "" {
		t.Errorf("a module that could not be moved counts as repaired: %+v", rep[0])
	}
}
