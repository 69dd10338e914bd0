package files

import (
	"bytes"
	"errors"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// openFlags opens a file that may since have become a pipe or a link.
const openFlags = os.O_RDONLY | syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// superuser tells whether owners can be kept.
func superuser() bool { return os.Geteuid() == 0 }

func stampOf(info fs.FileInfo) stamp {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return stamp{size: info.Size(), mtime: info.ModTime().UnixNano(), mode: uint32(info.Mode())}
	}
	return stamp{dev: s.Dev, ino: s.Ino, size: s.Size, mtime: s.Mtim.Nano(), ctime: s.Ctim.Nano(), mode: s.Mode, uid: s.Uid, gid: s.Gid,
		links: s.Nlink, sparse: s.Mode&syscall.S_IFMT == syscall.S_IFREG && s.Blocks*512 < s.Size}
}

// inTime tells whether a time of last change is one that 64 bits of nanoseconds can say.
func inTime(info fs.FileInfo) bool { t := info.ModTime(); return time.Unix(0, t.UnixNano()).Equal(t) }

// permissions is the mode bits that are kept.
func permissions(info fs.FileInfo) uint32 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Mode & 0o7777
	}
	return uint32(info.Mode().Perm())
}

// xattrsOf reads the extended attributes in "user.", sorted by name. none if the file system has none.
func xattrsOf(f *os.File) ([]xattr, error) {
	fd := int(f.Fd())
	var buf []byte
	for {
		n, err := unix.Flistxattr(fd, nil)
		if err != nil || n == 0 {
			if errors.Is(err, unix.ENOTSUP) {
				err = nil
			}
			return nil, err
		}
		buf = make([]byte, n)
		if n, err = unix.Flistxattr(fd, buf); errors.Is(err, unix.ERANGE) {
			continue
		} else if err != nil {
			return nil, err
		}
		buf = buf[:n]
		break
	}
	var all []xattr
	for name := range bytes.SplitSeq(bytes.TrimSuffix(buf, []byte{0}), []byte{0}) {
		if !bytes.HasPrefix(name, []byte("user.")) {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Fgetxattr(fd, string(name), value)
		if err != nil {
			return nil, err
		}
		all = append(all, xattr{string(name), string(value[:n])})
	}
	slices.SortFunc(all, func(a, b xattr) int { return strings.Compare(a.name, b.name) })
	return all, nil
}

func setXattr(f *os.File, x xattr) error {
	return unix.Fsetxattr(int(f.Fd()), x.name, []byte(x.value), 0)
}

// clone makes dst share the content of src, if the file system can.
func clone(dst, src *os.File) bool {
	return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil
}

// protectPages has the system write out what is dirty of a file, without waiting until that is done: from then on
// the first change through a memory map shows in the file's times, which others of a page that is dirty do not.
// Where the system cannot, such changes show late or, in memory, never.
func protectPages(f *os.File) {
	_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE)
}

// nextRun is the next data at or behind a place, or false if there is none.
func nextRun(f *os.File, at int64) (run, bool, error) {
	start, err := f.Seek(at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return run{}, false, nil
	}
	if err != nil {
		return run{}, false, err
	}
	end, err := f.Seek(start, unix.SEEK_HOLE)
	return run{start, end - start}, err == nil, err
}

// setTimes sets the time of last change of what a path names, not of what a link there points to.
func setTimes(dir *os.File, name string, mtime int64) error {
	t := unix.NsecToTimespec(mtime)
	return unix.UtimesNanoAt(int(dir.Fd()), name, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
}

// exchange gives each of two folders the other's name, in one step.
func exchange(a, b string) error {
	return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}

// syncAll makes all that was written on the file system of a folder durable.
func syncAll(dir *os.File) error { return unix.Syncfs(int(dir.Fd())) }

// cannotMove tells whether a rename failed because a folder is a mount point, or on another file system.
func cannotMove(err error) bool { return errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EXDEV) }

// cannotExchange tells whether the system or the file system does not know how.
func cannotExchange(err error) bool {
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, unix.EINVAL)
}

// mounted tells whether a folder is a mount point.
func mounted(path string) bool {
	for at := range mounts() {
		if at == path {
			return true
		}
	}
	return false
}

// mountBelow gives a mount point that lies in a folder, if there is one.
func mountBelow(path string) (string, bool) {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	for at := range mounts() {
		if strings.HasPrefix(at, path+"/") {
			return at, true
		}
	}
	return "", false
}

// mounts gives the mount points, or none where the system does not tell.
func mounts() iter.Seq[string] {
	return func(yield func(string) bool) {
		table, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			return
		}
		plain := strings.NewReplacer(`\134`, `\`, `\040`, " ", `\011`, "\t", `\012`, "\n")
		for line := range strings.SplitSeq(string(table), "\n") {
			if fields := strings.Fields(line); len(fields) > 4 && !yield(plain.Replace(fields[4])) {
				return
			}
		}
	}
}

func removeXattr(f *os.File, name string) error {
	return unix.Fremovexattr(int(f.Fd()), name)
}
