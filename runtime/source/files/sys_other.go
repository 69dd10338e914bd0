//go:build !linux

package files

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const openFlags = os.O_RDONLY

func superuser() bool { return false }

// stampOf knows no inodes: so nothing is ever taken for unchanged.
func stampOf(info fs.FileInfo) stamp {
	t := info.ModTime().UnixNano()
	return stamp{size: info.Size(), mtime: t, ctime: t, mode: uint32(info.Mode()), links: 1}
}

func inTime(info fs.FileInfo) bool { t := info.ModTime(); return time.Unix(0, t.UnixNano()).Equal(t) }

func permissions(info fs.FileInfo) uint32 { return uint32(info.Mode().Perm()) }

func xattrsOf(*os.File) ([]xattr, error) { return nil, nil }

func setXattr(_ *os.File, x xattr) error {
	return &fs.PathError{Op: "setxattr", Path: x.name, Err: errors.ErrUnsupported}
}

func clone(_, _ *os.File) bool { return false }

func protectPages(*os.File) {}

func nextRun(*os.File, int64) (run, bool, error) { return run{}, false, errors.ErrUnsupported }

func setTimes(dir *os.File, name string, mtime int64) error {
	path := filepath.Join(dir.Name(), name)
	if info, err := os.Lstat(path); err != nil || info.Mode()&fs.ModeSymlink != 0 {
		return err // a link's own time cannot be set
	}
	t := time.Unix(0, mtime)
	return os.Chtimes(path, t, t)
}

func exchange(_, _ string) error { return errors.ErrUnsupported }

func syncAll(*os.File) error { return errors.ErrUnsupported }

func cannotMove(error) bool { return false }

func cannotExchange(err error) bool { return errors.Is(err, errors.ErrUnsupported) }

func mounted(string) bool { return false }

func mountBelow(string) (string, bool) { return "", false }

func removeXattr(*os.File, string) error { return nil }
