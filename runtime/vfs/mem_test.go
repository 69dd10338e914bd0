package vfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/torpor-run/torpor/runtime/vfs"
)

// seeds is how many power cuts a test looks at: enough that an outcome with odds of one in a few is
// among them.
const seeds = 200

func rng(seed int) *rand.Rand { return rand.New(rand.NewPCG(uint64(seed), 1)) }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t testing.TB, fsys vfs.FS, name string, content []byte) vfs.File {
	t.Helper()
	f, err := fsys.OpenFile(name, vfs.Create)
	check(t, err)
	t.Cleanup(func() { f.Close() })
	_, err = f.Write(content)
	check(t, err)
	return f
}

func syncFolder(t testing.TB, fsys vfs.FS, name string) {
	t.Helper()
	f, err := fsys.OpenFile(name, vfs.Read)
	check(t, err)
	check(t, f.Sync())
	check(t, f.Close())
}

// read returns what name holds, "-" if there is no such file.
func read(t testing.TB, fsys vfs.FS, name string) string {
	t.Helper()
	f, err := fsys.OpenFile(name, vfs.Read)
	if errors.Is(err, fs.ErrNotExist) {
		return "-"
	}
	check(t, err)
	defer f.Close()
	size, err := f.Size()
	check(t, err)
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return string(b)
}

// outcomes cuts the power many times and says what was seen how often.
func outcomes(m *vfs.Mem, look func(*vfs.Mem) string) map[string]int {
	seen := map[string]int{}
	for seed := range seeds {
		seen[look(m.PowerCut(rng(seed)))]++
	}
	return seen
}

// want fails unless exactly these outcomes were seen.
func want(t *testing.T, seen map[string]int, outcomes ...string) {
	t.Helper()
	for _, o := range outcomes {
		if seen[o] == 0 {
			t.Errorf("never saw %q in %d power cuts: %v", o, seeds, seen)
		}
		delete(seen, o)
	}
	for o, n := range seen {
		t.Errorf("saw %q %d times in %d power cuts", o, n, seeds)
	}
}

func TestPowerCutKeepsWhatWasSynced(t *testing.T) {
	m := vfs.NewMem()
	check(t, m.Mkdir("d"))
	f := create(t, m, "d/f", []byte("synced"))
	check(t, f.Sync())
	syncFolder(t, m, "d")
	syncFolder(t, m, ".")
	want(t, outcomes(m, func(c *vfs.Mem) string { return read(t, c, "d/f") }), "synced")
}

func TestPowerCutLosesNamesWithoutFolderSync(t *testing.T) {
	m := vfs.NewMem()
	f := create(t, m, "f", []byte("x"))
	check(t, f.Sync())
	want(t, outcomes(m, func(c *vfs.Mem) string { return read(t, c, "f") }), "x", "-")

	check(t, m.Mkdir("d"))
	f = create(t, m, "d/f", []byte("x"))
	check(t, f.Sync())
	syncFolder(t, m, "d") // but not its parent
	want(t, outcomes(m, func(c *vfs.Mem) string { return read(t, c, "d/f") }), "x", "-")
}

func TestPowerCutKeepsRenameWholeOrNotAtAll(t *testing.T) {
	m := vfs.NewMem()
	for _, name := range []string{"a", "b"} {
		check(t, create(t, m, name, []byte(strings.ToUpper(name))).Sync())
	}
	syncFolder(t, m, ".")
	check(t, m.Rename("a", "b"))
	look := func(c *vfs.Mem) string { return read(t, c, "a") + read(t, c, "b") }
	want(t, outcomes(m, look), "AB", "-A")
	syncFolder(t, m, ".")
	want(t, outcomes(m, look), "-A")
	check(t, m.Remove("b"))
	want(t, outcomes(m, look), "-A", "--")
}

func TestPowerCutKeepsChangesOfFolderIndependently(t *testing.T) {
	m := vfs.NewMem()
	check(t, create(t, m, "n", []byte("1")).Sync())
	syncFolder(t, m, ".")
	check(t, create(t, m, "t", []byte("2")).Sync())
	check(t, m.Rename("n", "o"))
	check(t, m.Rename("t", "n"))
	// n, o and t after each of the eight choices of what is kept of: create t, n to o, t to n.
	want(t, outcomes(m, func(c *vfs.Mem) string { return read(t, c, "n") + read(t, c, "o") + read(t, c, "t") }),
		"1--", "1-2", "-1-", "-12", "2--", "21-")
}

func TestPowerCutTearsUnsyncedBytes(t *testing.T) {
	m := vfs.NewMem()
	old, added := bytes.Repeat([]byte("o"), 3000), bytes.Repeat([]byte("n"), 5000)
	f := create(t, m, "f", old)
	check(t, f.Sync())
	syncFolder(t, m, ".")
	_, err := f.Write(added)
	check(t, err)
	var lost, whole, holes, cut int
	for seed := range seeds {
		got := []byte(read(t, m.PowerCut(rng(seed)), "f"))
		if !bytes.HasPrefix(got, old) {
			t.Fatal("synced bytes were lost")
		}
		if len(got) > len(old)+len(added) {
			t.Fatalf("the file grew to %d bytes", len(got))
		}
		tail := got[len(old):]
		if strings.Trim(string(tail), "n\x00") != "" {
			t.Fatalf("the unsynced bytes hold what nobody wrote: %q", tail)
		}
		switch zeros := bytes.Count(tail, []byte{0}); {
		case len(tail) == 0:
			lost++
		case zeros > 0:
			holes++
		case len(tail) < len(added):
			cut++
		default:
			whole++
		}
	}
	if lost == 0 || holes == 0 {
		t.Errorf("of %d power cuts %d lost all unsynced bytes, %d left holes, %d cut the file, %d kept all", seeds, lost, holes, cut, whole)
	}
	check(t, f.Sync())
	want(t, outcomes(m, func(c *vfs.Mem) string { return read(t, c, "f") }), string(old)+string(added))
}

func TestPowerCutWithinAPage(t *testing.T) {
	m := vfs.NewMem()
	f := create(t, m, "f", []byte("synced"))
	check(t, f.Sync())
	syncFolder(t, m, ".")
	_, err := f.Write([]byte("+"))
	check(t, err)
	want(t, outcomes(m, func(c *vfs.Mem) string { return read(t, c, "f") }), "synced", "synced+", "synced\x00")
	check(t, f.Sync())
	want(t, outcomes(m, func(c *vfs.Mem) string { return read(t, c, "f") }), "synced+")
}

// appendTo opens a file that is there, for appending.
func appendTo(t testing.TB, fsys vfs.FS, name string) vfs.File {
	t.Helper()
	f, err := fsys.OpenFile(name, vfs.Append)
	check(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func TestPowerCutTearsWhatWasAppended(t *testing.T) {
	m := vfs.NewMem()
	check(t, create(t, m, "f", bytes.Repeat([]byte("o"), 700)).Sync())
	syncFolder(t, m, ".")
	f := appendTo(t, m, "f")
	_, err := f.Write(bytes.Repeat([]byte("n"), 324)) // the rest of the second page
	check(t, err)
	old := strings.Repeat("o", 700)
	seen := map[string]int{}
	for seed := range seeds {
		got := read(t, m.PowerCut(rng(seed)), "f")
		if !strings.HasPrefix(got, old) || len(got) > 1024 {
			t.Fatalf("power cut %d left %d bytes, or lost synced ones", seed, len(got))
		}
		switch tail := got[700:]; tail {
		case "":
			seen["nothing"]++
		case strings.Repeat("n", 324):
			seen["all"]++
		case strings.Repeat("n", len(tail)):
			seen["a beginning"]++
		case strings.Repeat("\x00", len(tail)):
			seen["zeros"]++
		default:
			seen["else"]++
		}
	}
	want(t, seen, "nothing", "all", "a beginning", "zeros")
	check(t, f.Sync())
	want(t, outcomes(m, func(c *vfs.Mem) string { return read(t, c, "f") }), old+strings.Repeat("n", 324))
}

// shape writes what a file holds as runs: "512o+188n" is 512 bytes 'o' and 188 'n'; zeros are z.
func shape(content string) string {
	var runs []string
	for len(content) > 0 {
		c := content[0]
		rest := strings.TrimLeft(content, string(c))
		if c == 0 {
			c = 'z'
		}
		runs = append(runs, fmt.Sprintf("%d%c", len(content)-len(rest), c))
		content = rest
	}
	return strings.Join(runs, "+")
}

func TestPowerCutLosesTruncation(t *testing.T) {
	m := vfs.NewMem()
	f := create(t, m, "f", bytes.Repeat([]byte("o"), 1500))
	check(t, f.Sync())
	syncFolder(t, m, ".")
	look := func(c *vfs.Mem) string { return shape(read(t, c, "f")) }
	check(t, vfs.Truncate(f, 700))
	// Cut, not cut, and not cut but for the page the cut goes through.
	want(t, outcomes(m, look), "700o", "1500o", "700o+324z+476o")
	want(t, outcomes(m.Kill(), look), "700o", "1500o", "700o+324z+476o")
	check(t, f.Sync())
	want(t, outcomes(m, look), "700o")
	check(t, vfs.Truncate(f, 512)) // between two pages
	want(t, outcomes(m, look), "700o", "512o")
	check(t, vfs.Truncate(f, 0))
	want(t, outcomes(m, look), "700o", "512o", "")
	check(t, f.Sync())
	want(t, outcomes(m, look), "")
}

// What was appended and not synced may be on disk although it has been cut off again.
func TestPowerCutFindsWhatWasCutOff(t *testing.T) {
	m := vfs.NewMem()
	check(t, create(t, m, "f", bytes.Repeat([]byte("o"), 512)).Sync())
	syncFolder(t, m, ".")
	f := appendTo(t, m, "f")
	_, err := f.Write(bytes.Repeat([]byte("n"), 512))
	check(t, err)
	check(t, vfs.Truncate(f, 512))
	seen := outcomes(m, func(c *vfs.Mem) string { return shape(read(t, c, "f")) })
	if seen["512o"] == 0 || seen["512o+512n"] == 0 {
		t.Errorf("power cuts left %v", seen)
	}
	check(t, f.Sync())
	want(t, outcomes(m, func(c *vfs.Mem) string { return shape(read(t, c, "f")) }), "512o")
}

// Behind a cut that was not synced there may be new bytes, zeros and old bytes, and the cut may be lost.
func TestPowerCutMixesWhatFollowsAnUnsyncedTruncation(t *testing.T) {
	m := vfs.NewMem()
	f := create(t, m, "f", bytes.Repeat([]byte("o"), 2048))
	check(t, f.Sync())
	syncFolder(t, m, ".")
	check(t, vfs.Truncate(f, 512))
	_, err := f.Write(bytes.Repeat([]byte("n"), 1024))
	check(t, err)
	seen := map[string]int{}
	for seed := range 5 * seeds {
		got := read(t, m.PowerCut(rng(seed)), "f")
		if !strings.HasPrefix(got, strings.Repeat("o", 512)) {
			t.Fatalf("power cut %d lost synced bytes before the cut: %s", seed, shape(got))
		}
		seen[shape(got)]++
	}
	for _, o := range []string{"2048o", "512o", "512o+1024n", "1536o", "512o+1024z", "1024o+512n", "512o+512n+512z", "512o+1024n+512o"} {
		if seen[o] == 0 {
			t.Errorf("never saw %q: %v", o, seen)
		}
	}
	check(t, f.Sync())
	want(t, outcomes(m, func(c *vfs.Mem) string { return shape(read(t, c, "f")) }), "512o+1024n")
}

func TestFailedSyncOfTruncation(t *testing.T) {
	seen := map[string]int{}
	for i := range 50 {
		m := vfs.NewMem()
		w := vfs.Faulty(m, vfs.Fault{})
		f := create(t, w, "f", bytes.Repeat([]byte("o"), 1500))
		check(t, f.Sync())
		syncFolder(t, w, ".")
		check(t, vfs.Truncate(f, 700))
		// At seeds the wrapper: another disk fails each time.
		w.Inject(vfs.Fault{At: i + 1, Err: syscall.EIO, Match: func(op vfs.Op, _ string) bool { return op == vfs.OpSync }})
		for range i {
			syncFolder(t, w, ".")
		}
		if err := f.Sync(); !errors.Is(err, syscall.EIO) {
			t.Fatalf("Sync = %v, want EIO", err)
		}
		if got := shape(read(t, w, "f")); got != "700o" {
			t.Fatalf("after a failed sync a cut file reads %q", got)
		}
		for o, n := range outcomes(m, func(c *vfs.Mem) string { return shape(read(t, c, "f")) }) {
			seen[o] += n
		}
		check(t, f.Sync()) // it is a length, and no bytes are lost
		want(t, outcomes(m, func(c *vfs.Mem) string { return shape(read(t, c, "f")) }), "700o")
	}
	want(t, seen, "700o", "1500o", "700o+324z+476o")
}

func TestPowerCutIsRepeatableAndLeavesTheOriginal(t *testing.T) {
	m := vfs.NewMem()
	check(t, m.Mkdir("d"))
	for i := range 20 {
		create(t, m, fmt.Sprintf("d/%d", i), bytes.Repeat([]byte{byte('a' + i)}, 1000*i))
	}
	state := func(m *vfs.Mem) string {
		var b strings.Builder
		top, err := m.ReadDir(".")
		check(t, err)
		b.WriteString(fmt.Sprint(top))
		if len(top) == 0 {
			return "no folder"
		}
		entries, err := m.ReadDir("d")
		check(t, err)
		for _, e := range entries {
			b.WriteString(e.Name + "=" + read(t, m, "d/"+e.Name) + "\n")
		}
		return b.String()
	}
	before := state(m)
	for seed := range 20 {
		one, two := m.PowerCut(rng(seed)), m.PowerCut(rng(seed))
		if state(one) != state(two) {
			t.Fatalf("seed %d gives two different power cuts", seed)
		}
		if again := one.PowerCut(rng(seed + 1)); state(again) != state(one) {
			t.Fatalf("seed %d: what survived one power cut does not survive the next", seed)
		}
		create(t, one, "new", []byte("in the copy only"))
		if state(m) != before {
			t.Fatal("a power cut changed the original")
		}
	}
}

func TestKillKeepsAllThatWasWritten(t *testing.T) {
	m := vfs.NewMem()
	f := create(t, m, "f", []byte("unsynced"))
	if _, err := m.Lock("LOCK", []byte("me")); err != nil {
		t.Fatal(err)
	}
	k := m.Kill()
	if got := read(t, k, "f"); got != "unsynced" {
		t.Errorf("after the process died, the file holds %q", got)
	}
	_, err := f.Write([]byte(" and more"))
	check(t, err)
	check(t, m.Remove("f"))
	if got := read(t, k, "f"); got != "unsynced" {
		t.Errorf("what the original does shows in the copy: %q", got)
	}
	l, err := k.Lock("LOCK", []byte("next"))
	if err != nil {
		t.Fatalf("the lock outlived its process: %v", err)
	}
	check(t, l.Close())
	// What was not durable still is not.
	seen := outcomes(k, func(c *vfs.Mem) string { return read(t, c, "f") })
	if seen["-"] == 0 || seen["unsynced"] == 0 {
		t.Errorf("power cuts after that: %v", seen)
	}
}

func TestFailedSyncMarksPagesClean(t *testing.T) {
	content := bytes.Repeat([]byte("x"), 4096)
	var kept, lost, misread, agreed int
	for i := range 50 {
		m := vfs.NewMem()
		w := vfs.Faulty(m, vfs.Fault{})
		f := create(t, w, "f", content)
		syncFolder(t, w, ".")
		// At seeds the wrapper: another disk fails each time.
		w.Inject(vfs.Fault{At: i + 1, Err: syscall.EIO, Match: func(op vfs.Op, _ string) bool { return op == vfs.OpSync }})
		for range i {
			syncFolder(t, w, ".")
		}
		if err := f.Sync(); !errors.Is(err, syscall.EIO) {
			t.Fatalf("Sync = %v, want EIO", err)
		}
		if err := f.Sync(); err != nil { // the trap: it says that all is well
			t.Fatalf("the second Sync = %v", err)
		}
		if read(t, m, "f") != string(content) {
			misread++
		}
		if after := read(t, m.PowerCut(rng(i)), "f"); after == string(content) {
			kept++
		} else if lost++; after == read(t, m, "f") {
			agreed++
		}
	}
	// What is lost is not always to be seen before the power cut.
	if lost == 0 || misread == 0 || agreed == lost {
		t.Errorf("of 50 failed syncs %d lost bytes although a second one passed; %d showed that to a reader, %d of them all of it; want some of each",
			lost, misread, agreed)
	}
	t.Logf("%d kept, %d lost, %d seen by a reader, %d wholly", kept, lost, misread, agreed)
}

func TestFailedFolderSync(t *testing.T) {
	seen := map[string]int{}
	settled := 0
	for i := range 50 {
		m := vfs.NewMem()
		w := vfs.Faulty(m, vfs.Fault{})
		check(t, create(t, w, "n", []byte("1")).Sync())
		check(t, create(t, w, "t", []byte("2")).Sync())
		syncFolder(t, w, ".")
		check(t, w.Rename("n", "o"))
		check(t, w.Rename("t", "n"))
		folder, err := w.OpenFile(".", vfs.Read)
		check(t, err)
		// At seeds the wrapper: another disk fails each time.
		w.Inject(vfs.Fault{At: i + 1, Err: syscall.EIO, Match: func(op vfs.Op, _ string) bool { return op == vfs.OpRead || op == vfs.OpSync }})
		f, err := w.OpenFile("n", vfs.Read)
		check(t, err)
		for range i {
			_, err := f.ReadAt(make([]byte, 1), 0)
			check(t, err)
		}
		check(t, f.Close())
		if err := folder.Sync(); !errors.Is(err, syscall.EIO) {
			t.Fatalf("Sync = %v, want EIO", err)
		}
		look := func(c *vfs.Mem) string { return read(t, c, "n") + read(t, c, "o") + read(t, c, "t") }
		after := outcomes(m, look)
		for outcome, n := range after {
			seen[outcome] += n
		}
		if len(after) == 1 {
			settled++
		}
		// A sync that succeeds writes all changes, whichever of them the failed one had written.
		check(t, folder.Sync())
		check(t, folder.Close())
		want(t, outcomes(m, look), "21-")
	}
	want(t, seen, "1-2", "-12", "2--", "21-")
	if settled == 0 || settled == 50 {
		t.Errorf("%d of 50 failed syncs had written all changes; want some", settled)
	}
}

func TestFaults(t *testing.T) {
	// everything does each operation once and returns their errors by operation.
	everything := func(fsys vfs.FS) map[vfs.Op]error {
		errs := map[vfs.Op]error{}
		errs[vfs.OpMkdir] = fsys.Mkdir("d")
		f, err := fsys.OpenFile("d/f", vfs.Create)
		errs[vfs.OpOpen] = err
		if err == nil {
			_, errs[vfs.OpWrite] = f.Write([]byte("0123456789"))
			_, errs[vfs.OpRead] = f.ReadAt(make([]byte, 1), 0)
			errs[vfs.OpTruncate] = vfs.Truncate(f, 9)
			errs[vfs.OpSync] = f.Sync()
			f.Close()
		}
		errs[vfs.OpRename] = fsys.Rename("d/f", "d/g")
		_, errs[vfs.OpList] = fsys.ReadDir("d")
		errs[vfs.OpRemove] = fsys.Remove("d/g")
		var l io.Closer
		l, errs[vfs.OpLock] = vfs.Lock(fsys, "LOCK", nil)
		if l != nil {
			l.Close()
		}
		return errs
	}
	w := vfs.Faulty(vfs.NewMem(), vfs.Fault{})
	for op, err := range everything(w) {
		if err != nil {
			t.Errorf("without a fault, %s: %v", op, err)
		}
	}
	if w.Count() != 10 || w.Fired() {
		t.Errorf("counted %d operations, fired %t; want 10, false", w.Count(), w.Fired())
	}
	for _, op := range []vfs.Op{vfs.OpOpen, vfs.OpRead, vfs.OpWrite, vfs.OpTruncate, vfs.OpSync, vfs.OpRename, vfs.OpRemove, vfs.OpList, vfs.OpMkdir, vfs.OpLock} {
		w := vfs.Faulty(vfs.NewMem(), vfs.Fault{At: 1, Err: syscall.ENOSPC, Match: func(o vfs.Op, _ string) bool { return o == op }})
		errs := everything(w)
		if !errors.Is(errs[op], syscall.ENOSPC) || !strings.Contains(errs[op].Error(), string(op)) || !w.Fired() {
			t.Errorf("%s failed with %v, want ENOSPC naming the operation", op, errs[op])
		}
		for other, err := range errs {
			if other != op && errors.Is(err, syscall.ENOSPC) {
				t.Errorf("a fault of %s failed %s: %v", op, other, err)
			}
		}
	}
	w.Inject(vfs.Crash(1))
	for op, err := range everything(w) {
		if !errors.Is(err, vfs.ErrCrashed) {
			t.Errorf("after a crash, %s: %v", op, err)
		}
	}
}

func TestFaultExtent(t *testing.T) {
	for extent, left := range map[vfs.Extent]string{vfs.Nothing: "", vfs.Part: "01234", vfs.All: "0123456789"} {
		m := vfs.NewMem()
		w := vfs.Faulty(m, vfs.Fault{})
		f := create(t, w, "f", nil)
		w.Inject(vfs.Fault{At: 1, Err: syscall.ENOSPC, Extent: extent})
		n, err := f.Write([]byte("0123456789"))
		if !errors.Is(err, syscall.ENOSPC) || n != len(left) || read(t, m, "f") != left {
			t.Errorf("extent %d: wrote %d, %v, the file holds %q; want %q", extent, n, err, read(t, m, "f"), left)
		}
		_, err = f.Write([]byte("+"))
		check(t, err) // the fault is over
		w.Inject(vfs.Fault{At: 1, Err: syscall.EIO, Extent: extent})
		err = vfs.Truncate(f, 0)
		cut := read(t, m, "f") == ""
		if !errors.Is(err, syscall.EIO) || cut != (extent == vfs.All) {
			t.Errorf("extent %d: Truncate = %v, cut %t", extent, err, cut)
		}
		w.Inject(vfs.Fault{At: 1, Err: syscall.EIO, Extent: extent})
		err = w.Rename("f", "g")
		moved := read(t, m, "g") != "-"
		if !errors.Is(err, syscall.EIO) || moved != (extent == vfs.All) {
			t.Errorf("extent %d: Rename = %v, moved %t", extent, err, moved)
		}
	}
}

func TestStickyFaultEndsWithInject(t *testing.T) {
	w := vfs.Faulty(vfs.NewMem(), vfs.Fault{At: 2, Err: syscall.ENOSPC, Sticky: true,
		Match: func(op vfs.Op, name string) bool { return op == vfs.OpMkdir && strings.HasPrefix(name, "full") }})
	check(t, w.Mkdir("full1"))
	for range 3 {
		if err := w.Mkdir("full2"); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("Mkdir = %v, want ENOSPC", err)
		}
	}
	check(t, w.Mkdir("elsewhere"))
	w.Inject(vfs.Fault{})
	check(t, w.Mkdir("full2"))
}
