package file

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/torpor-run/torpor/runtime/spool"
	"github.com/torpor-run/torpor/tests/need"
)

// TestPipe: nothing waits for one.
func TestPipe(t *testing.T) {
	s := open(t, Config{})
	must(t, unix.Mkfifo(s.cfg.Path, 0o600))
	if _, err := s.Capture(t.Context()); err == nil || !strings.Contains(err.Error(), "it is a pipe, not a file") {
		t.Error(err)
	}
	if err := s.Restore(t.Context(), strings.NewReader("x")); err == nil || !strings.Contains(err.Error(), "it is a pipe") {
		t.Error(err)
	}
	must(t, os.Remove(s.cfg.Path))
	if f, err := os.OpenFile("/dev/null", os.O_RDONLY, 0); err == nil {
		info, serr := f.Stat()
		must(t, errors.Join(serr, f.Close()))
		if got := kind(info.Mode()); got != "device" {
			t.Error(got)
		}
	}
}

// asNobody does something with the rights of a user who owns nothing.
func asNobody(t *testing.T, do func()) {
	t.Helper()
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	const nobody = 65534
	for _, set := range []func(int) (int, error){unix.SetfsgidRetGid, unix.SetfsuidRetUid} {
		was, err := set(nobody)
		must(t, err)
		defer func() {
			_, err := set(was)
			must(t, err)
		}()
	}
	do()
}

func owners(t *testing.T, path string) (uid, gid uint32) {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	st := info.Sys().(*syscall.Stat_t)
	return st.Uid, st.Gid
}

// TestOwner: a file keeps its owner, and a new one gets that of the folder.
func TestOwner(t *testing.T) {
	need.Root(t, "give files away")
	s := open(t, Config{})
	put(t, s, "state")
	must(t, os.Chown(s.cfg.Path, 1234, 4321))
	restore(t, s, "again")
	if uid, gid := owners(t, s.cfg.Path); uid != 1234 || gid != 4321 {
		t.Error(uid, gid)
	}
	must(t, s.Reset(t.Context()))
	must(t, os.Chown(s.folder, 77, 78))
	restore(t, s, "new")
	if uid, gid := owners(t, s.cfg.Path); uid != 77 || gid != 78 {
		t.Error(uid, gid)
	}
}

// TestNoPermission: who may not read the file, write to the folder or give the file its owner is told so, and nothing
// has changed.
func TestNoPermission(t *testing.T) {
	need.Root(t, "do things with another user's rights")
	s := open(t, Config{})
	put(t, s, "state")
	must(t, os.Chmod(s.folder, 0o755))
	must(t, os.Chmod(s.cfg.Path, 0o600))
	refused := func(what, want string, f func() error) {
		t.Helper()
		var err error
		asNobody(t, func() { err = f() })
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), s.cfg.Path) {
			t.Errorf("%s: %v", what, err)
		}
		if got := look(t, s); got != "state" {
			t.Fatalf("%s: %q", what, got)
		}
		if l := left(t, s); len(l) > 0 {
			t.Errorf("%s: left %q", what, l)
		}
	}
	refused("read the file", "permission denied", func() error {
		_, err := s.Capture(t.Context())
		return err
	})
	refused("write to the folder", "it stays as it is", func() error { return s.Restore(t.Context(), strings.NewReader("x")) })
	refused("remove the file", "it stays as it is", func() error { return s.Reset(t.Context()) })
	must(t, os.Chmod(s.folder, 0o777))
	refused("give it away", "cannot be given to user 0", func() error { return s.Restore(t.Context(), strings.NewReader("x")) })
	must(t, os.Chmod(s.cfg.Path, 0o644))
	asNobody(t, func() {
		if got := native(t, s); got != "state" {
			t.Error(got)
		}
	})
}

// TestFull: a disk that is full, of the file and of the spool, is told, and nothing has changed; a read-only one can
// be captured.
func TestFull(t *testing.T) {
	need.Root(t, "mount a file system")
	volume := filepath.Join(t.TempDir(), "volume")
	must(t, os.Mkdir(volume, 0o700))
	if err := unix.Mount("none", volume, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("this system does not let a test mount anything: %v", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(volume, 0)) })
	s := open(t, Config{Path: filepath.Join(volume, "db.json")})
	put(t, s, "state")
	if err := s.Restore(t.Context(), bytes.NewReader(make([]byte, 1<<20))); !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
	if l := left(t, s); len(l) > 0 || look(t, s) != "state" {
		t.Errorf("left %q, %q", l, look(t, s))
	}
	large := open(t, Config{Spool: spool.Config{Memory: 1, Folder: volume}})
	put(t, large, strings.Repeat("x", 1<<20))
	if _, err := large.Capture(t.Context()); !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
	if l := left(t, s); len(l) > 0 {
		t.Errorf("left %q", l)
	}
	must(t, unix.Mount("none", volume, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	s = open(t, s.cfg)
	if got := native(t, s); got != "state" {
		t.Error(got)
	}
	for name, err := range map[string]error{"Restore": s.Restore(t.Context(), strings.NewReader("x")), "Reset": s.Reset(t.Context())} {
		if !errors.Is(err, syscall.EROFS) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestMapped: what a service writes through a memory map is captured.
func TestMapped(t *testing.T) {
	s := open(t, Config{Path: filepath.Join(t.TempDir(), "db")})
	var on unix.Statfs_t
	must(t, unix.Statfs(s.folder, &on))
	if on.Type == unix.TMPFS_MAGIC || on.Type == unix.OVERLAYFS_SUPER_MAGIC {
		t.Skip("temporary files lie where changes through a memory map do not show")
	}
	put(t, s, "0000000000")
	f, err := os.OpenFile(s.cfg.Path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, 10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	defer func() { must(t, unix.Munmap(m)) }()
	for i := byte('1'); i < '6'; i++ {
		copy(m, bytes.Repeat([]byte{i}, len(m)))
		if got := native(t, s); got != string(m) {
			t.Errorf("%q is captured as %q", m, got)
		}
	}
}
