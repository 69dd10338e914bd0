package files

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
)

// TestSpoolIsShared: sources whose spools are in one folder keep their copies apart, and touch nothing else there.
func TestSpoolIsShared(t *testing.T) {
	dir := t.TempDir()
	spool := filepath.Join(dir, "spool")
	must(t, os.Mkdir(spool, 0o700))
	foreign := filepath.Join(spool, "1")
	must(t, os.WriteFile(foreign, []byte("mine"), 0o600))
	a := open(t, Config{Root: filepath.Join(dir, "a"), Spool: spool})
	put(t, a, "f", "of a")
	c, err := a.Capture(t.Context())
	must(t, err)
	b := open(t, Config{Root: filepath.Join(dir, "b"), Spool: spool})
	put(t, b, "f", "of b")
	native(t, b)
	var out bytes.Buffer
	if err := c.WriteNative(t.Context(), &out); err != nil || !bytes.Contains(out.Bytes(), []byte("of a")) {
		t.Errorf("%q %v", out.Bytes(), err)
	}
	must(t, c.Close())
	if got, err := os.ReadFile(foreign); err != nil || string(got) != "mine" {
		t.Errorf("what else was in the folder: %q %v", got, err)
	}
}

// TestSpoolInRoot: a spool inside the folder is refused however it is called, and nothing is removed.
func TestSpoolInRoot(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	must(t, os.MkdirAll(filepath.Join(dir, "data", "sub"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "data", "f"), []byte("state"), 0o600))
	must(t, os.Symlink(filepath.Join("data", "sub"), filepath.Join(dir, "link")))
	for _, spool := range []string{"data", "data/sub", "link", filepath.Join(dir, "link")} {
		s, err := New(Config{Root: "data", Spool: spool})
		if err == nil {
			must(t, s.Close())
		}
		if err == nil || !strings.Contains(err.Error(), "which it is to hold") {
			t.Errorf("spool %s: %v", spool, err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "data", "f")); err != nil || string(got) != "state" {
			t.Fatalf("spool %s: %q %v", spool, got, err)
		}
	}
}

// TestUnfinishedElsewhere: a restore that was cut off in a mount point is finished where the folder is none any more.
func TestUnfinishedElsewhere(t *testing.T) {
	from := open(t, Config{})
	put(t, from, "new", "new")
	put(t, from, "n/ew", "new")
	state, want := native(t, from), picture(t, from.cfg.Root)
	s := open(t, Config{})
	asMount(t, s)
	put(t, s, "old", "old")
	moves := 0
	s.step = func(op, path string) error {
		if op == "rename" && filepath.Dir(path) == filepath.Join(s.work, workMoving) {
			moves++
		}
		if moves > 1 { // the process dies
			return errCut
		}
		return nil
	}
	if err := s.Restore(t.Context(), bytes.NewReader(state)); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	s.step = nil
	must(t, s.Close())
	s = open(t, Config{Root: s.cfg.Root})
	if got := picture(t, s.cfg.Root); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if !bytes.Equal(native(t, s), state) {
		t.Error("captured as another state")
	}
}

// TestMountPointIsDurable: in a mount point each step is durable before the next relies on it, so that no power
// cut leaves names of two states.
func TestMountPointIsDurable(t *testing.T) {
	from := open(t, Config{})
	put(t, from, "new", "new")
	state := native(t, from)
	s := open(t, Config{})
	asMount(t, s)
	put(t, s, "old", "old")
	var steps []string
	s.step = func(op, path string) error {
		steps = append(steps, op+" "+path)
		return nil
	}
	restore(t, s, state)
	s.step = nil
	work := func(name string) string { return filepath.Join(s.work, name) }
	at := 0
	for _, want := range [][]string{
		{"sync " + s.work}, {"rename " + work(workNew)}, // what finishing needs is there
		{"sync " + s.work}, {"rename " + filepath.Join(s.cfg.Root, "old")},
		{"sync " + work(workOld), "sync " + s.cfg.Root}, {"rename " + work(workReady)}, // no old name comes back
		{"sync " + s.work}, {"rename " + filepath.Join(work(workMoving), "new")},
		{"sync " + s.cfg.Root}, {"remove " + work(workMoving)},
	} {
		next := at
		for _, w := range want {
			i := slices.Index(steps[at:], w)
			if i < 0 {
				t.Fatalf("no %q behind %q in\n%s", w, steps[:at], strings.Join(steps, "\n"))
			}
			next = max(next, at+i+1)
		}
		at = next
	}
}

// TestDetours: a link whose ".." comes behind another link points elsewhere than its names say.
func TestDetours(t *testing.T) {
	s := open(t, Config{})
	put(t, s, "f", "state")
	want := picture(t, s.cfg.Root)
	top := otherEntry(link, "a/b/top", "../..")
	for name, target := range map[string]string{"z": "a/b/top/../outside", "zz": s.cfg.Root + "/a/b/top/../outside"} {
		state := hostile(otherEntry(folder, "a", ""), otherEntry(folder, "a/b", ""), top, otherEntry(link, name, target))
		if err := s.Restore(t.Context(), bytes.NewReader(state)); !errors.Is(err, abi.ErrCorrupt) {
			t.Errorf("%s: %v", target, err)
		}
		if got := picture(t, s.cfg.Root); got != want {
			t.Fatalf("%s\nwant\n%s", got, want)
		}
	}
	// Names that are folders, or nothing, mislead nobody.
	restore(t, s, hostile(otherEntry(folder, "a", ""), otherEntry(folder, "a/b", ""), top, otherEntry(link, "a/x", "b/../b/top"), otherEntry(link, "z", "gone/../a")))
	native(t, s)
	must(t, os.Symlink("a/b/top/../outside", filepath.Join(s.cfg.Root, "zz")))
	if _, err := s.Capture(t.Context()); err == nil || !strings.Contains(err.Error(), `"zz"`) {
		t.Errorf("captured: %v", err)
	}
	s.cfg.OutsideLinks = true
	restore(t, s, native(t, s))
}

// fullDisk is a writer whose error is one of the file system's.
type fullDisk struct{ err error }

func (w fullDisk) Write([]byte) (int, error) { return 0, w.err }

// TestWriterFails: the error of the writer is not taken for one of the spool.
func TestWriterFails(t *testing.T) {
	s := open(t, Config{})
	put(t, s, "f", strings.Repeat("x", 300<<10))
	c, err := s.Capture(t.Context())
	must(t, err)
	defer func() { must(t, c.Close()) }()
	full := &fs.PathError{Op: "write", Path: "out", Err: errors.New("no space left on device")}
	if err := c.WriteNative(t.Context(), fullDisk{full}); !errors.Is(err, full) || strings.Contains(err.Error(), "spool") {
		t.Error(err)
	}
}
