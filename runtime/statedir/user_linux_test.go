package statedir_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// asOrdinaryUser runs f as someone whom permissions bind. Root is not: so for root, root's files are
// given to another user and f's thread uses the file system as that user (setfsuid(2)).
func asOrdinaryUser(t *testing.T, root string, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	const nobody = 65534
	check(t, filepath.WalkDir(root, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(name, nobody, nobody)
	}))
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// setfsuid says nothing of success; asking with an invalid user tells who is in force.
	set := func(uid int) {
		_, _ = unix.SetfsuidRetUid(uid)
		if now, err := unix.SetfsuidRetUid(-1); err != nil || now != uid {
			t.Fatalf("setfsuid(%d): %d is in force, %v", uid, now, err)
		}
	}
	set(nobody)
	defer set(0)
	f()
}
