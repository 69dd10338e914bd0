package file

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/torpor-run/torpor/runtime/vfs"
)

const oldState, newState = "the old state", "the state that is restored, which is longer"

// change is Restore of newState, Restore of nothing or Reset, on a file system in memory.
type change struct {
	name string
	want string
	run  func(t *testing.T, s *Source, p *place) error
}

func changes() []change {
	to := func(state string) func(*testing.T, *Source, *place) error {
		return func(t *testing.T, s *Source, p *place) error {
			// In pieces, so that there are writes to fail at.
			return s.replace(t.Context(), p, &pieces{[]byte(state)})
		}
	}
	return []change{
		{"restore", newState, to(newState)},
		{"restore of no file", none, to("")},
		{"reset", none, func(_ *testing.T, _ *Source, p *place) error { return errors.Join(p.discard(), p.remove()) }},
	}
}

// pieces reads ten bytes at a time.
type pieces struct{ rest []byte }

func (p *pieces) Read(b []byte) (int, error) {
	n := copy(b, p.rest[:min(10, len(p.rest))])
	p.rest = p.rest[n:]
	if n == 0 {
		return bytes.NewReader(nil).Read(b[:1])
	}
	return n, nil
}

// memFile is what a file of a file system in memory holds.
func memFile(t *testing.T, fsys vfs.FS, name string) string {
	t.Helper()
	f, err := fsys.OpenFile(name, vfs.Read)
	if errors.Is(err, fs.ErrNotExist) {
		return none
	}
	must(t, err)
	defer f.Close()
	size, err := f.Size()
	must(t, err)
	b := make([]byte, size)
	if size > 0 {
		_, err = f.ReadAt(b, 0)
		must(t, err)
	}
	return string(b)
}

// withFile is a file system in which a file is durable, or none.
func withFile(t *testing.T, content string) *vfs.Mem {
	t.Helper()
	m := vfs.NewMem()
	if content == none {
		return m
	}
	f, err := m.OpenFile("db", vfs.Create)
	must(t, err)
	_, err = f.Write([]byte(content))
	must(t, errors.Join(err, f.Sync(), f.Close(), newPlace(m, "db").sync()))
	return m
}

// TestCrash: after a crash or a power cut at any operation there is the old file or the new one, the new one for
// certain if the change had succeeded, and what is left beside it goes with the next start.
func TestCrash(t *testing.T) {
	s := open(t, Config{})
	for _, was := range []string{oldState, none} {
		for _, c := range changes() {
			crashes := 0
			for k := 1; ; k++ {
				m := withFile(t, was)
				w := vfs.Faulty(m, vfs.Crash(k))
				err := c.run(t, s, newPlace(w, "db"))
				after := []*vfs.Mem{m.Kill()}
				for seed := range uint64(50) {
					after = append(after, m.PowerCut(rand.New(rand.NewPCG(seed, uint64(k)))))
				}
				for _, m := range after {
					got := memFile(t, m, "db")
					if got != c.want && (err == nil || got != was) {
						t.Fatalf("%s of %q, crash %d (%v): %q", c.name, was, k, err, got)
					}
					p := newPlace(m, "db")
					must(t, p.discard())
					if found, err := m.ReadDir("."); err != nil || len(found) > 1 || len(found) == 1 && found[0].Name != "db" {
						t.Fatalf("%s, crash %d: left %v (%v)", c.name, k, found, err)
					}
					must(t, c.run(t, s, p))
					if got := memFile(t, m.PowerCut(rand.New(rand.NewPCG(0, 0))), "db"); got != c.want {
						t.Fatalf("%s, crash %d, and again: %q", c.name, k, got)
					}
				}
				if !w.Fired() {
					must(t, err)
					break
				}
				crashes++
			}
			if crashes < 4 {
				t.Errorf("%s: %d crashes", c.name, crashes)
			}
		}
	}
}

// TestFaults: whatever the disk does at any operation, on a real folder, there is the old file or the new one, the
// error is told, and nothing is left beside it that the next start does not remove.
func TestFaults(t *testing.T) {
	only := func(wanted ...vfs.Op) func(vfs.Op, string) bool {
		return func(op vfs.Op, _ string) bool { return strings.Contains(fmt.Sprint(wanted), string(op)) }
	}
	for name, fault := range map[string]vfs.Fault{
		"EIO":                    {Err: syscall.EIO},
		"EIO though done":        {Err: syscall.EIO, Extent: vfs.All},
		"EIO from then on":       {Err: syscall.EIO, Sticky: true},
		"disk full":              {Err: syscall.ENOSPC, Extent: vfs.Part, Match: only(vfs.OpWrite, vfs.OpOpen, vfs.OpSync)},
		"disk full from then on": {Err: syscall.ENOSPC, Extent: vfs.Part, Sticky: true, Match: only(vfs.OpWrite, vfs.OpOpen, vfs.OpSync)},
		"read-only from then on": {Err: syscall.EROFS, Sticky: true, Match: only(vfs.OpWrite, vfs.OpOpen, vfs.OpRename, vfs.OpRemove)},
		"syncs fail":             {Err: syscall.EIO, Sticky: true, Match: only(vfs.OpSync)},
	} {
		for _, reset := range []bool{false, true} {
			reached := 0
			for k := 1; ; k++ {
				s := open(t, Config{})
				put(t, s, oldState)
				fault.At = k
				var w *vfs.FaultFS
				s.fsys = func(fsys vfs.FS) vfs.FS {
					w = vfs.Faulty(fsys, fault)
					return w
				}
				var err error
				want := newState
				if reset {
					want = none
					err = s.Reset(t.Context())
				} else {
					err = s.Restore(t.Context(), &pieces{[]byte(newState)})
				}
				got := look(t, s)
				switch {
				case !w.Fired() && (err != nil || got != want),
					err == nil && got != want,
					got != oldState && got != want,
					err != nil && (!errors.Is(err, fault.Err) || !strings.Contains(err.Error(), s.cfg.Path)):
					t.Errorf("%s at %d, reset %v: %v, %q", name, k, reset, err, got)
				}
				if l := left(t, s); len(l) > 0 && !fault.Sticky && fault.Match != nil {
					t.Errorf("%s at %d: left %q", name, k, l)
				}
				again, err := New(s.cfg)
				must(t, err)
				if l := left(t, s); len(l) > 0 {
					t.Errorf("%s at %d: New left %q", name, k, l)
				}
				restore(t, again, newState)
				if got := look(t, s); got != newState {
					t.Errorf("%s at %d, and again: %q", name, k, got)
				}
				if !w.Fired() {
					break
				}
				reached++
			}
			if reached < 2 && (reached == 0 || !reset || name != "syncs fail") {
				t.Errorf("%s: at %d operations", name, reached)
			}
		}
	}
}

// TestPermissions: a file keeps those of the one it replaces; a new one has Mode, whatever the process's mask.
func TestPermissions(t *testing.T) {
	if goruntime.GOOS == "windows" {
		t.Skip("this system has no permissions")
	}
	s := open(t, Config{})
	check := func(want fs.FileMode) {
		t.Helper()
		restore(t, s, "state")
		info, err := os.Stat(s.cfg.Path)
		must(t, err)
		if info.Mode() != want {
			t.Errorf("%v, want %v", info.Mode(), want)
		}
	}
	check(0o600)
	must(t, os.Chmod(s.cfg.Path, 0o664))
	check(0o664)
	must(t, os.Chmod(s.cfg.Path, 0o444))
	check(0o444)
	must(t, os.Chmod(s.cfg.Path, 0o755|os.ModeSetuid)) // a state does not run with anybody's rights
	check(0o755)
	must(t, s.Reset(t.Context()))
	s.cfg.Mode = 0o666
	check(0o666)
}

// TestCutOffRestore: what a process that died has left is removed by New, of any name.
func TestCutOffRestore(t *testing.T) {
	s := open(t, Config{Path: filepath.Join(memory(t), strings.Repeat("n", 255))})
	restore(t, s, "state")
	p, err := s.place()
	must(t, err)
	defer p.close()
	must(t, os.WriteFile(filepath.Join(s.folder, p.temp), []byte("half"), 0o600))
	must(t, os.WriteFile(filepath.Join(s.folder, "other"), []byte("not ours"), 0o600))
	s = open(t, s.cfg)
	if l := left(t, s); len(l) != 1 || l[0] != "other" {
		t.Errorf("left %q", l)
	}
	must(t, os.WriteFile(filepath.Join(s.folder, p.temp), []byte("half"), 0o600))
	restore(t, s, "again")
	if l := left(t, s); len(l) != 1 || look(t, s) != "again" {
		t.Errorf("left %q, %q", l, look(t, s))
	}
}
