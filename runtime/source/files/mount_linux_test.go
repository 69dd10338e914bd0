package files

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/torpor-run/torpor/tests/need"
)

// TestMountPoint: a folder that is a mount point, as a volume of a container is, cannot be renamed.
func TestMountPoint(t *testing.T) {
	need.Root(t, "mount a file system")
	root := filepath.Join(t.TempDir(), "volume")
	must(t, os.Mkdir(root, 0o700))
	if err := unix.Mount("none", root, "tmpfs", 0, "size=16m"); err != nil {
		t.Skipf("this system does not let a test mount anything: %v", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(root, 0)) })
	s := open(t, Config{Root: root})
	if !s.inside {
		t.Fatal("the mount point is taken for a folder like any other")
	}
	put(t, s, "a/b", "state")
	put(t, s, "c", "state")
	must(t, os.Chmod(root, 0o711))
	want, state := picture(t, root), native(t, s)
	put(t, s, "a/x", "other")
	must(t, os.Remove(filepath.Join(root, "c")))
	must(t, s.Reset(t.Context()))
	if found, err := os.ReadDir(root); err != nil || len(found) != 1 { // the work folder
		t.Errorf("%v %v", found, err)
	}
	restore(t, s, state)
	if got := picture(t, root); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if l := left(t, s); len(l) > 0 {
		t.Errorf("left %q", l)
	}
}

// TestMountBelow: a folder with a mount point in it is refused: replacing it would empty what is mounted there.
func TestMountBelow(t *testing.T) {
	need.Root(t, "mount a file system")
	root := filepath.Join(t.TempDir(), "da ta")
	s := open(t, Config{Root: root})
	state := native(t, s)
	volume := filepath.Join(root, "vol\nume")
	must(t, os.Mkdir(volume, 0o700))
	if err := unix.Mount("none", volume, "tmpfs", 0, "size=16m"); err != nil {
		t.Skipf("this system does not let a test mount anything: %v", err)
	}
	mounted := true
	t.Cleanup(func() {
		if mounted {
			must(t, unix.Unmount(volume, 0))
		}
	})
	must(t, os.WriteFile(filepath.Join(volume, "f"), []byte("state"), 0o600))
	for name, f := range map[string]func() error{
		"Restore": func() error { return s.Restore(t.Context(), bytes.NewReader(state)) },
		"Reset":   func() error { return s.Reset(t.Context()) },
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), "mount point") {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := os.ReadFile(filepath.Join(volume, "f")); err != nil || string(got) != "state" {
			mounted = false
			t.Fatalf("%s: %q %v", name, got, err)
		}
	}
	must(t, s.Close())
	if _, err := New(Config{Root: root}); err == nil || !strings.Contains(err.Error(), "mount point") {
		t.Errorf("New: %v", err)
	}
}
