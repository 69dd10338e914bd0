package hooks_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/torpor-run/torpor/runtime/hooks"
)

// TestUnreadable: a folder that may not be read may hide scripts, which is told; what can be read is run.
func TestUnreadable(t *testing.T) {
	folder, err := os.MkdirTemp("", "hooks") // t.TempDir cannot be reached by another user
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	f := newFixture(t, hooks.Config{Folder: folder}, sh("boot.d/a.sh"), sh("boot.d/closed/b.sh"), sh("boot.d/open/c.sh"))
	if err := os.Chmod(filepath.Join(folder, "boot.d", "closed"), 0); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 { // whom permissions do not bind
		err := filepath.WalkDir(folder, func(name string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Chown(name, 65534, 65534))
		})
		if err != nil {
			t.Fatal(err)
		}
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		_, _ = unix.SetfsuidRetUid(65534)
		defer func() { _, _ = unix.SetfsuidRetUid(0) }()
	}
	err = f.Run(t.Context(), hooks.Boot)
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "boot.d/closed in the init folder is left out") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
	equal(t, "scripts", f.scripts(hooks.Boot), []string{"boot.d/a.sh SUCCESSFUL", "boot.d/open/c.sh SUCCESSFUL"})
	if !strings.Contains(f.log.String(), "init scripts may be missing") {
		t.Error("the log does not say so")
	}
}
