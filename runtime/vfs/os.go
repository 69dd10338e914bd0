package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Permissions of what is made: state may hold secrets, so it is its owner's only.
const (
	filePerm   = 0o600
	folderPerm = 0o700
)

// OSFS is a folder of the operating system. It implements [FS] and [Locker].
type OSFS struct {
	root *os.Root
	path string
}

// OS opens the folder root, making it and its missing parents, durably, if need be. root itself may be
// a symbolic link; below it none is followed out of the folder (os.Root). Files are made with
// permissions 0600, folders with 0700.
func OS(root string) (*OSFS, error) {
	path, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	if err := makeDurably(path); err != nil {
		return nil, err
	}
	r, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return &OSFS{root: r, path: path}, nil
}

// makeDurably makes the folder path and its missing parents and syncs the folder each was made in.
func makeDurably(path string) error {
	parent := filepath.Dir(path)
	err := os.Mkdir(path, folderPerm)
	if errors.Is(err, fs.ErrNotExist) && parent != path {
		if err := makeDurably(parent); err != nil {
			return err
		}
		err = os.Mkdir(path, folderPerm)
	}
	if err != nil {
		// That something is there is all Mkdir can know; some systems answer with EROFS or EACCES
		// before they look. Whether it is a folder, opening it tells.
		if _, serr := os.Stat(path); serr == nil {
			return nil
		}
		return err
	}
	f, err := os.Open(parent)
	if err != nil {
		return err
	}
	return errors.Join((&osFile{f: f}).Sync(), f.Close())
}

// Close gives the folder back. Open files and locks stay as they are; no more can be opened.
func (o *OSFS) Close() error { return o.root.Close() }

// Path is the absolute path of name.
func (o *OSFS) Path(name string) string { return filepath.Join(o.path, filepath.FromSlash(name)) }

// OpenFile implements [FS].
func (o *OSFS) OpenFile(name string, mode Mode) (File, error) {
	if err := check("open", name); err != nil {
		return nil, err
	}
	flag := os.O_RDONLY
	switch mode {
	case Create: // O_APPEND: what follows a truncation goes behind the cut
		flag = os.O_RDWR | os.O_CREATE | os.O_EXCL | os.O_APPEND
	case Append:
		flag = os.O_RDWR | os.O_APPEND
	}
	f, err := o.root.OpenFile(filepath.FromSlash(name), flag, filePerm)
	if err != nil {
		return nil, o.named(err, name)
	}
	if mode == Append { // a folder was refused by the system; devices and pipes keep nothing
		info, err := f.Stat()
		if err == nil && !info.Mode().IsRegular() {
			err = &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
		}
		if err != nil {
			return nil, o.named(errors.Join(err, f.Close()), name)
		}
	}
	return &osFile{f: f}, nil
}

// Rename implements [FS].
func (o *OSFS) Rename(oldname, newname string) error {
	if err := errors.Join(check("rename", oldname), check("rename", newname)); err != nil {
		return err
	}
	err := o.root.Rename(filepath.FromSlash(oldname), filepath.FromSlash(newname))
	if le := (*os.LinkError)(nil); errors.As(err, &le) {
		return &os.LinkError{Op: "rename", Old: o.Path(oldname), New: o.Path(newname), Err: le.Err}
	}
	return err
}

// Remove implements [FS].
func (o *OSFS) Remove(name string) error {
	if err := check("remove", name); err != nil {
		return err
	}
	return o.named(o.root.Remove(filepath.FromSlash(name)), name)
}

// ReadDir implements [FS].
func (o *OSFS) ReadDir(name string) ([]Entry, error) {
	if err := check("list", name); err != nil {
		return nil, err
	}
	f, err := o.root.Open(filepath.FromSlash(name))
	if err != nil {
		return nil, o.named(err, name)
	}
	defer f.Close()
	found, err := f.ReadDir(-1)
	if err != nil {
		return nil, o.named(err, name)
	}
	entries := make([]Entry, len(found))
	for i, e := range found {
		entries[i] = Entry{Name: e.Name(), Type: e.Type()}
	}
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return entries, nil
}

// Mkdir implements [FS].
func (o *OSFS) Mkdir(name string) error {
	if err := check("mkdir", name); err != nil {
		return err
	}
	return o.named(o.root.Mkdir(filepath.FromSlash(name), folderPerm), name)
}

// Lock implements [Locker] by flock(2). On a network file system it is worth what that system's locks
// are worth.
func (o *OSFS) Lock(name string, content []byte) (io.Closer, error) {
	if err := check("lock", name); err != nil {
		return nil, err
	}
	f, err := o.root.OpenFile(filepath.FromSlash(name), os.O_RDWR|os.O_CREATE, filePerm)
	if err != nil {
		return nil, o.named(err, name)
	}
	switch held, err := flock(f); {
	case err != nil:
		f.Close()
		return nil, &fs.PathError{Op: "lock", Path: o.Path(name), Err: err}
	case held:
		was, err := io.ReadAll(io.NewSectionReader(f, 0, MaxLockContent))
		if err != nil {
			was = nil
		}
		f.Close()
		return nil, &HeldError{Path: o.Path(name), Content: was}
	}
	// Written over what was there, then cut: that needs no room on a full disk.
	if _, err := f.WriteAt(content, 0); err == nil {
		_ = f.Truncate(int64(len(content)))
	}
	return osLock{f}, nil
}

// osLock is a held lock: closing the file gives it back. The file is not removed, for another process
// may have it open already and would then lock a file nobody else can find.
type osLock struct{ f *os.File }

func (l osLock) Close() error {
	_ = l.f.Truncate(0)
	return l.f.Close()
}

// named puts the whole path into errors of os.Root, which know the name below the root only.
func (o *OSFS) named(err error, name string) error {
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		return &fs.PathError{Op: pe.Op, Path: o.Path(name), Err: pe.Err}
	}
	return err
}

type osFile struct{ f *os.File }

func (f *osFile) ReadAt(b []byte, off int64) (int, error) { return f.f.ReadAt(b, off) }
func (f *osFile) Write(b []byte) (int, error)             { return f.f.Write(b) }
func (f *osFile) Close() error                            { return f.f.Close() }

func (f *osFile) Sync() error {
	err := f.f.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		// Some file systems know no sync of a folder and need none or offer no way; PostgreSQL's
		// fsync_fname lets that pass too. Of a file it is an error like any other.
		if info, serr := f.f.Stat(); serr == nil && info.IsDir() {
			return nil
		}
	}
	return err
}

// Truncate implements [Truncater].
func (f *osFile) Truncate(size int64) error {
	have, err := f.Size()
	if err != nil {
		return err
	}
	if err := shrinks(f.f.Name(), size, have); err != nil {
		return err
	}
	return f.f.Truncate(size)
}

func (f *osFile) Size() (int64, error) {
	info, err := f.f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
