package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// FS is a tree of files. Names are relative to its root, with slashes, as fs.ValidPath has them, "."
// being the root; any other name is an error that is fs.ErrInvalid. Errors name the operation and the
// file and wrap fs.ErrNotExist, fs.ErrExist or the system's own error. All methods are safe for
// concurrent use. None makes anything durable: see the package comment.
type FS interface {
	// OpenFile opens a file or, with Read, a folder.
	OpenFile(name string, mode Mode) (File, error)
	// Rename gives the file oldname the name newname, replacing a file of that name, in one step: at
	// any moment a reader finds the one or the other. Handles stay with the file they were opened for.
	// Folders are not renamed.
	Rename(oldname, newname string) error
	// Remove removes a file or an empty folder. Handles of a removed file stay readable.
	Remove(name string) error
	// ReadDir lists a folder, sorted by name.
	ReadDir(name string) ([]Entry, error)
	// Mkdir makes one folder; its parent must exist. The error is fs.ErrExist if the name is taken.
	Mkdir(name string) error
}

// Mode says what a file is opened for.
type Mode int

const (
	// Read opens an existing file to read and sync it, or a folder to sync it.
	Read Mode = iota
	// Create makes a new, empty file and opens it to write, read and sync. The error is fs.ErrExist if
	// the name is taken.
	Create
	// Append opens an existing file, not a folder, to write behind its end, truncate, read and sync it.
	// The error is fs.ErrNotExist if there is none.
	Append
)

// File is an open file. ReadAt is safe for concurrent use, also beside Write; the other methods are
// not. Of an open folder only Sync and Close mean anything; reading and writing it are errors. After
// Close every method fails with an error that is fs.ErrClosed. A file can be cut with [Truncate].
type File interface {
	io.ReaderAt
	// Write appends. On a file opened with Read it is an error.
	io.Writer
	// Sync makes the file's bytes, or the folder's entries, durable. After an error nothing is known
	// about them: see the package comment.
	Sync() error
	// Size is the file's length in bytes.
	Size() (int64, error)
	io.Closer
}

// Truncater is a [File] that can be cut; use [Truncate].
type Truncater interface {
	// Truncate cuts the file to its first size bytes; the next Write goes behind them. It only ever
	// shrinks a file: a size that is negative or above the file's is an error that is fs.ErrInvalid. On
	// a file opened with Read it is an error. After an error the file has the old length or the new.
	Truncate(size int64) error
}

// Truncate cuts a file to its first size bytes; see [Truncater]. The error is errors.ErrUnsupported if f
// can not be cut. As with all else, only Sync makes the cut durable.
func Truncate(f File, size int64) error {
	t, ok := f.(Truncater)
	if !ok {
		return fmt.Errorf("truncate: %w by this file system", errors.ErrUnsupported)
	}
	return t.Truncate(size)
}

// shrinks refuses to cut a file of have bytes to size bytes unless that makes it no longer.
func shrinks(path string, size, have int64) error {
	if size < 0 || size > have {
		return &fs.PathError{Op: "truncate", Path: path,
			Err: fmt.Errorf("to %d of %d bytes: %w", size, have, fs.ErrInvalid)}
	}
	return nil
}

// Entry is one name in a folder.
type Entry struct {
	Name string
	Type fs.FileMode // type bits only: 0 for a regular file, fs.ModeDir for a folder
}

// Locker is an [FS] that has locks; use [Lock].
type Locker interface {
	// Lock takes the lock called name without waiting and holds it until Close, or the end of the
	// process, however it ends. The file of that name is made if need be, stays when the lock is given
	// back and means nothing by itself. While the lock is held it has content, of at most
	// MaxLockContent bytes, which is for people: failing to write it does not fail Lock.
	Lock(name string, content []byte) (io.Closer, error)
}

// MaxLockContent is how many bytes of a lock file are read.
const MaxLockContent = 4 << 10

// Lock takes a lock on fsys; see [Locker]. The error is a *[HeldError] if it is held, in this process
// or another, and errors.ErrUnsupported if fsys has no locks.
func Lock(fsys FS, name string, content []byte) (io.Closer, error) {
	l, ok := fsys.(Locker)
	if !ok {
		return nil, fmt.Errorf("lock %s: %w by this file system", Path(fsys, name), errors.ErrUnsupported)
	}
	return l.Lock(name, content)
}

// HeldError says that a lock is held by someone else.
type HeldError struct {
	Path    string
	Content []byte // what the holder wrote; empty for the moment between taking the lock and writing
}

func (e *HeldError) Error() string { return "lock " + e.Path + ": held by another" }

// Path is name as a person would look for it: with the folder fsys stands on, where it has one.
func Path(fsys FS, name string) string {
	if p, ok := fsys.(interface{ Path(name string) string }); ok {
		return p.Path(name)
	}
	return name
}

// check refuses names that are not of the form FS documents.
func check(op, name string) error {
	if !fs.ValidPath(name) {
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	return nil
}
