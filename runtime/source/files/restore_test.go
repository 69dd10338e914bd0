package files

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// rich fills a folder with one of everything that the system can do.
func rich(t testing.TB, s *Source) {
	t.Helper()
	at := func(p string) string { return filepath.Join(s.cfg.Root, p) }
	put(t, s, "a/b/deep", "inside")
	put(t, s, "a-b", "a name that sorts between a and a/b for those who compare bytes")
	put(t, s, "a.b", "")
	must(t, os.Mkdir(at("empty"), 0o711))
	put(t, s, "readonly/file", "r")
	must(t, os.Chmod(at("readonly/file"), 0o400))
	put(t, s, "large", strings.Repeat("0123456789abcdef", 200_000))
	old := time.Date(1969, 12, 31, 23, 59, 59, 123456789, time.UTC)
	must(t, os.Chtimes(at("a.b"), old, old))
	if runtime.GOOS != "windows" {
		put(t, s, "new\nline", "n")
		put(t, s, strings.Repeat("ü", 127)+"x", "255 bytes of name")
		must(t, os.Symlink("a/b", at("link")))
		must(t, os.Symlink("../nowhere", at("a/dangling")))
	}
	if runtime.GOOS == "linux" {
		put(t, s, "not\xffUTF-8/\x01", "b")
		must(t, os.Link(at("large"), at("linked")))
		must(t, os.Link(at("large"), at("a/linked")))
		put(t, s, "sparse", "begin")
		must(t, os.Truncate(at("sparse"), 96<<20))
		f, err := os.OpenFile(at("sparse"), os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteAt([]byte("middle"), 48<<20)
		must(t, err)
		must(t, f.Close())
		put(t, s, "hole", "")
		must(t, os.Truncate(at("hole"), 64<<20))
		f, err = os.Open(at("a/b/deep"))
		must(t, err)
		if err := setXattr(f, xattr{"user.etag", "\x00\xff"}); err == nil {
			must(t, setXattr(f, xattr{"user.a", ""}))
		}
		must(t, f.Close())
		must(t, os.Chmod(at("empty"), 0o711|os.ModeSticky|os.ModeSetgid))
		if os.Geteuid() == 0 {
			must(t, os.Chown(at("a.b"), 1234, 4321))
			must(t, os.Lchown(at("link"), 99, 98))
			must(t, os.Chown(s.cfg.Root, 77, 78))
		}
	}
	must(t, os.Chtimes(at("empty"), old, old))
	must(t, os.Chmod(at("readonly"), 0o500))
	must(t, os.Chmod(s.cfg.Root, 0o750))
	t.Cleanup(func() {
		_ = os.Chmod(at("readonly"), 0o700)
	})
}

// TestRestoreIsExact: bytes, permissions, times, owners, links, holes, attributes and names, into the same
// folder, another one and one that is a mount point.
func TestRestoreIsExact(t *testing.T) {
	s := open(t, Config{Root: filepath.Join(t.TempDir(), "data")}) // on the disk, for what only it keeps
	rich(t, s)
	want, state := picture(t, s.cfg.Root), native(t, s)
	check := func(s *Source, where string) {
		t.Helper()
		restore(t, s, state)
		if got := picture(t, s.cfg.Root); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", where, got, want)
		}
		if again := native(t, s); !bytes.Equal(again, state) {
			t.Errorf("%s: what was restored is captured as %d other bytes, %d were restored", where, len(again), len(state))
		}
		if l := left(t, s); len(l) > 0 {
			t.Errorf("left: %q", l)
		}
		t.Cleanup(func() {
			_ = os.Chmod(filepath.Join(s.cfg.Root, "readonly"), 0o700)
		})
	}
	check(s, "the same folder")
	other := open(t, Config{Root: filepath.Join(t.TempDir(), "data")})
	put(t, other, "large/was a folder", "x")
	check(other, "another folder")
	check(other, "again")
	mount := open(t, Config{Root: filepath.Join(t.TempDir(), "data")})
	asMount(t, mount)
	put(t, mount, "empty", "was a file")
	check(mount, "a mount point")
	if runtime.GOOS == "linux" {
		if u := used(t, filepath.Join(other.cfg.Root, "sparse")); u > 1<<20 {
			t.Errorf("the file with holes takes %d bytes", u)
		}
		if !bytes.Contains(state, []byte("user.etag")) {
			t.Log("this file system keeps no extended attributes")
		}
	}
}

// asMount has a source treat its folder as a mount point.
func asMount(t testing.TB, s *Source) {
	t.Helper()
	s.inside, s.work = true, filepath.Join(s.cfg.Root, insideWork)
	must(t, os.MkdirAll(s.work, 0o700))
}

// hostile is a native state whose entries follow the folder itself.
func hostile(entries ...[]byte) []byte {
	b := record.AppendUint(record.AppendText(record.AppendArray(nil, 2), headerName), headerVersion)
	root := &entry{path: rootPath, kind: folder, mode: 0o700}
	b = root.append(b)
	for _, e := range entries {
		b = append(b, e...)
	}
	return record.AppendUint(b, uint64(len(entries)+1))
}

func fileEntry(path, content string) []byte {
	e := &entry{path: path, kind: file, mode: 0o644, size: int64(len(content))}
	return append(e.append(nil), content...)
}

func otherEntry(k kind, path, target string) []byte {
	return (&entry{path: path, kind: k, mode: 0o755, target: target}).append(nil)
}

// TestHostileStates: no state, however it was made, writes outside the folder, follows a link, or replaces
// a part of it.
func TestHostileStates(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Config{Root: filepath.Join(dir, "data"), MaxFiles: 100, MaxBytes: 1 << 20, MaxXattrBytes: 100, MaxPath: 50})
	put(t, s, "old", "state")
	outside := filepath.Join(dir, "outside")
	must(t, os.WriteFile(outside, []byte("mine"), 0o600))
	// all but the time of the work folder, where a state is put together before it is refused
	look := func() string {
		var lines []string
		for line := range strings.SplitSeq(picture(t, dir), "\n") {
			if !strings.HasPrefix(line, `".data.torpor" `) {
				lines = append(lines, line)
			}
		}
		return strings.Join(lines, "\n")
	}
	want := look()
	long := func(k kind) []byte { return otherEntry(k, strings.Repeat("x", 51), "t") }
	many := make([][]byte, 200)
	for i := range many {
		many[i] = fileEntry(fmt.Sprintf("f%03d", i), "")
	}
	setuid := (&entry{path: "f", kind: file, mode: 0o4755}).append(nil)
	attrs := func(x ...xattr) []byte { return (&entry{path: "f", kind: folder, xattrs: x}).append(nil) }
	for name, state := range map[string][]byte{
		"parent":                hostile(fileEntry("../outside", "theirs")),
		"parent below":          hostile(otherEntry(folder, "a", ""), fileEntry("a/../../outside", "theirs")),
		"absolute":              hostile(fileEntry(outside, "theirs")),
		"below a link":          hostile(otherEntry(link, "l", ".."), fileEntry("l/outside", "theirs")),
		"below a link inside":   hostile(otherEntry(folder, "a", ""), otherEntry(link, "l", "a"), fileEntry("l/x", "theirs")),
		"over a link":           hostile(otherEntry(link, "l", "../outside"), fileEntry("l", "theirs")),
		"link out":              hostile(otherEntry(link, "l", "../outside")),
		"link out by a detour":  hostile(otherEntry(folder, "a", ""), otherEntry(link, "a/l", "b/../../../outside")),
		"absolute link":         hostile(otherEntry(link, "l", outside)),
		"hard link out":         hostile(otherEntry(hardlink, "h", "../outside")),
		"hard link to nothing":  hostile(otherEntry(hardlink, "h", "z")),
		"hard link to a folder": hostile(otherEntry(folder, "a", ""), otherEntry(hardlink, "h", "a")),
		"hard link to a link":   hostile(otherEntry(link, "a", "b"), otherEntry(hardlink, "h", "a")),
		"hard link by a link":   hostile(otherEntry(folder, "a", ""), fileEntry("a/f", "x"), otherEntry(link, "b", "../"), otherEntry(hardlink, "h", "b/outside")),
		"twice":                 hostile(fileEntry("a", "1"), fileEntry("a", "2")),
		"out of order":          hostile(fileEntry("b", "1"), fileEntry("a", "2")),
		"no folder":             hostile(fileEntry("a/b", "1")),
		"below a file":          hostile(fileEntry("a", "1"), fileEntry("a/b", "2")),
		"zero byte":             hostile(fileEntry("a\x00b", "1")),
		"empty name":            hostile(otherEntry(folder, "a", ""), fileEntry("a//b", "1")),
		"root twice":            hostile(otherEntry(folder, ".", "")),
		"work folder":           hostile(otherEntry(folder, insideWork, "")),
		"in the work folder":    hostile(otherEntry(folder, insideWork, ""), fileEntry(insideWork+"/lock", "")),
		"setuid":                hostile(setuid),
		"long path":             hostile(long(folder)),
		"long target":           hostile(otherEntry(link, "l", strings.Repeat("x", 51))),
		"too many":              hostile(many...),
		"too large":             hostile(fileEntry("f", strings.Repeat("x", 1<<20+1))),
		"larger than it is":     append(hostile(), record.AppendBytesHead(nil, 1<<30)...),
		"lying length":          append(bytes.TrimSuffix(hostile(), []byte{1}), 0x83, 0x7b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		"other attributes":      hostile(attrs(xattr{"security.capability", "x"})),
		"attributes unsorted":   hostile(attrs(xattr{"user.b", ""}, xattr{"user.a", ""})),
		"large attributes":      hostile(attrs(xattr{"user.a", strings.Repeat("x", 100)})),
		"no entries":            bytes.TrimSuffix(hostile(), []byte{1}),
		"other version":         []byte("\x82\x6ctorpor-files\x02"),
		"other name":            []byte("\x82\x6ctorpor-filer\x01"),
		"nothing":               nil,
	} {
		err := s.Restore(t.Context(), bytes.NewReader(state))
		if err == nil || !errors.Is(err, abi.ErrCorrupt) && !errors.Is(err, abi.ErrTooLarge) && !errors.Is(err, abi.ErrVersion) {
			t.Errorf("%s: %v", name, err)
		}
		if now := look(); now != want {
			t.Fatalf("%s:\n%s\nwant\n%s", name, now, want)
		}
		if l := left(t, s); len(l) > 0 {
			t.Errorf("%s left %q", name, l)
		}
	}
	// What is asked for is kept: a link out of the folder, which is not followed.
	s.cfg.OutsideLinks, s.cfg.SetID = true, true
	restore(t, s, hostile(otherEntry(folder, "a", ""), otherEntry(link, "l", "../outside"), (&entry{path: "s", kind: file, mode: 0o4755}).append(nil)))
	if b, err := os.ReadFile(filepath.Join(s.cfg.Root, "l")); string(b) != "mine" {
		t.Errorf("%q %v", b, err)
	}
	if info, err := os.Stat(filepath.Join(s.cfg.Root, "s")); err != nil || info.Mode()&fs.ModeSetuid == 0 {
		t.Errorf("%v %v", info, err)
	}
	if err := s.Restore(t.Context(), bytes.NewReader(hostile(otherEntry(link, "l", ".."), fileEntry("l/outside", "theirs")))); !errors.Is(err, abi.ErrCorrupt) {
		t.Error(err)
	}
}

// TestCutOff: a restore that fails, or whose process dies, at any of its operations leaves the old folder or the
// new one, never a mix, and nothing else once a source is made again.
func TestCutOff(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(testing.TB, *Source)
		noSwap  bool // the system cannot exchange
	}{
		"in one step":      {func(testing.TB, *Source) {}, false},
		"in two steps":     {func(testing.TB, *Source) {}, true},
		"in a mount point": {asMount, false},
	} {
		t.Run(name, func(t *testing.T) {
			from := open(t, Config{})
			put(t, from, "a/new", "new")
			put(t, from, "both", "new")
			put(t, from, "n", "new")
			must(t, os.Chmod(from.cfg.Root, 0o711))
			state := native(t, from)
			newOnes := picture(t, from.cfg.Root)
			outcomes := map[string]int{}
			for _, dies := range []bool{true, false} {
				for at := 1; ; at++ {
					s := open(t, Config{})
					put(t, s, "both", "old")
					put(t, s, "o/ld", "old")
					c.prepare(t, s)
					oldOnes := picture(t, s.cfg.Root)
					count := 0
					s.step = func(op, path string) error {
						if count++; count == at || dies && count > at {
							return fmt.Errorf("%w: %s %s", errCut, op, path)
						}
						if op == "exchange" && c.noSwap {
							return errors.ErrUnsupported
						}
						return nil
					}
					err := s.Restore(t.Context(), bytes.NewReader(state))
					s.step = nil
					if dies { // and is started again
						must(t, s.recover())
					}
					got := picture(t, s.cfg.Root)
					switch got {
					case oldOnes:
						outcomes["old"]++
						if err == nil {
							t.Errorf("operation %d: succeeded, and the old folder is there", at)
						}
					case newOnes:
						outcomes["new"]++
					default:
						t.Fatalf("operation %d (dies: %v): %v\n%s", at, dies, err, got)
					}
					if !dies && got == oldOnes && count >= at && !errors.Is(err, errCut) {
						t.Errorf("operation %d: %v", at, err)
					}
					restore(t, s, state)
					if got := picture(t, s.cfg.Root); got != newOnes {
						t.Errorf("operation %d: a restore afterwards gives\n%s", at, got)
					}
					if l := left(t, s); len(l) > 0 {
						t.Errorf("operation %d: left %q", at, l)
					}
					must(t, s.Close())
					if count < at {
						break
					}
				}
			}
			if outcomes["old"] < 10 || outcomes["new"] < 3 {
				t.Errorf("%v: too few operations failed", outcomes)
			}
		})
	}
}

// TestNewFinishes: what a process that died has left is put right by New.
func TestNewFinishes(t *testing.T) {
	s := open(t, Config{})
	put(t, s, "f", "state")
	want := picture(t, s.cfg.Root)
	must(t, s.Close())
	must(t, os.Rename(s.cfg.Root, filepath.Join(s.work, workOld))) // between the two steps
	must(t, os.Mkdir(filepath.Join(s.work, workNew), 0o700))
	must(t, os.WriteFile(filepath.Join(s.spool.dir, "17"), []byte("left"), 0o600))
	s = open(t, Config{Root: s.cfg.Root})
	if got := picture(t, s.cfg.Root); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if l := left(t, s); len(l) > 0 {
		t.Errorf("left %q", l)
	}
}

// TestRootIsALink: a link to the folder stays one.
func TestRootIsALink(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "real"), 0o700))
	must(t, os.Symlink("real", filepath.Join(dir, "data")))
	s := open(t, Config{Root: filepath.Join(dir, "data")})
	put(t, s, "f", "1")
	state := native(t, s)
	put(t, s, "f", "2")
	restore(t, s, state)
	if b, err := os.ReadFile(filepath.Join(dir, "data", "f")); err != nil || string(b) != "1" {
		t.Errorf("%q %v", b, err)
	}
	if info, err := os.Lstat(filepath.Join(dir, "data")); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("%v %v", info, err)
	}
}

// TestManyFiles: thousands of them, at once and again with one change.
func TestManyFiles(t *testing.T) {
	n := 20_000
	if testing.Short() {
		n = 2000
	}
	s := open(t, Config{})
	for i := range n {
		p := filepath.Join(s.cfg.Root, fmt.Sprint("d", i%300))
		if i < 300 {
			must(t, os.Mkdir(p, 0o700))
		}
		must(t, os.WriteFile(filepath.Join(p, fmt.Sprint(i)), fmt.Appendf(nil, "%d", i), 0o600))
	}
	start := time.Now()
	state := native(t, s)
	first := time.Since(start)
	put(t, s, "d7/7", "changed")
	s.reads = 0
	start = time.Now()
	c, err := s.Capture(t.Context())
	must(t, err)
	again := time.Since(start)
	must(t, c.Close())
	if s.reads > 2 {
		t.Errorf("%d opened for one change", s.reads)
	}
	start = time.Now()
	restore(t, s, state)
	t.Logf("%d files: first capture and write %v, capture with one change %v, restore %v", n, first, again, time.Since(start))
	if b, err := os.ReadFile(filepath.Join(s.cfg.Root, "d7/7")); err != nil || string(b) != "7" {
		t.Errorf("%q %v", b, err)
	}
}

// TestLargeFile: memory does not follow the size of a file.
func TestLargeFile(t *testing.T) {
	if testing.Short() {
		t.Skip("a file of 128 MB")
	}
	s := open(t, Config{})
	f, err := os.Create(filepath.Join(s.cfg.Root, "large"))
	must(t, err)
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{1}), 128<<20)
	must(t, err)
	must(t, f.Close())
	want := picture(t, s.cfg.Root)
	c, err := s.Capture(t.Context())
	must(t, err)
	r, w := io.Pipe()
	go func() { _ = w.CloseWithError(c.WriteNative(t.Context(), w)) }()
	other := open(t, Config{})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	must(t, other.Restore(t.Context(), r))
	runtime.ReadMemStats(&after)
	must(t, c.Close())
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 16<<20 {
		t.Errorf("%d bytes were allocated", grown)
	}
	if got := picture(t, other.cfg.Root); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// FuzzRestore: arbitrary states are refused, or are what a capture then gives back, byte for byte.
func FuzzRestore(f *testing.F) {
	f.Add(hostile())
	f.Add(hostile(otherEntry(folder, "a", ""), fileEntry("a/b", "content"), otherEntry(hardlink, "h", "a/b"), otherEntry(link, "l", "a")))
	f.Add(hostile((&entry{path: "x", kind: file, size: 1 << 20, runs: []run{{1 << 17, 3}}, xattrs: []xattr{{"user.x", "y"}}}).append(nil), []byte("abc")))
	s := open(f, Config{MaxFiles: 100, MaxBytes: 1 << 20, Settle: time.Millisecond})
	other := open(f, Config{Settle: time.Millisecond})
	f.Fuzz(func(t *testing.T, state []byte) {
		before := picture(t, s.cfg.Root)
		if err := s.Restore(t.Context(), bytes.NewReader(state)); err != nil {
			if now := picture(t, s.cfg.Root); now != before {
				t.Fatalf("refused (%v), and the folder has changed:\n%s\nwas\n%s", err, now, before)
			}
			return
		}
		want := picture(t, s.cfg.Root)
		again := native(t, s)
		restore(t, other, again)
		if got := picture(t, other.cfg.Root); got != want {
			t.Fatalf("%s\nwant\n%s", got, want)
		}
	})
}
