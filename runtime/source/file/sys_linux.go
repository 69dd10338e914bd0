package file

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	noFollow = syscall.O_NOFOLLOW
	// openFlags opens a file that may since have become a pipe or a link.
	openFlags = os.O_RDONLY | noFollow | syscall.O_NONBLOCK
)

func superuser() bool { return os.Geteuid() == 0 }

// inodeTime is when a file was changed last, or something about it.
func inodeTime(info fs.FileInfo) time.Time {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(s.Ctim.Unix())
	}
	return info.ModTime()
}

// protectPages has the system write out what is dirty of a file, without waiting for that: from then on the first
// change through a memory map shows in the file's times.
func protectPages(f *os.File) {
	_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE)
}

// setOwner gives a file the owner and group of another. That they cannot be given is an error: a service that is not
// the file's owner any more may not be able to read it.
func setOwner(f *os.File, like fs.FileInfo) error {
	want, ok := like.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if has, ok := info.Sys().(*syscall.Stat_t); ok && has.Uid == want.Uid && has.Gid == want.Gid {
		return nil
	}
	if err := f.Chown(int(want.Uid), int(want.Gid)); err != nil {
		return fmt.Errorf("the new file cannot be given to user %d and group %d, which the old one belongs to: %w", want.Uid, want.Gid, err)
	}
	return nil
}
