package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"sync"
)

// Op is a kind of operation, as [FaultFS] counts them.
type Op string

// The ten operations. Asking for a size and closing are not counted, and never fail for a fault.
const (
	OpOpen     Op = "open"
	OpRead     Op = "read"
	OpWrite    Op = "write"
	OpTruncate Op = "truncate"
	OpSync     Op = "sync"
	OpRename   Op = "rename"
	OpRemove   Op = "remove"
	OpList     Op = "list"
	OpMkdir    Op = "mkdir"
	OpLock     Op = "lock"
)

// ErrCrashed is what operations fail with from a [Crash] on.
var ErrCrashed = errors.New("crashed (injected)")

// Extent is how much of a failing operation is carried out all the same.
type Extent int

const (
	// Nothing is done, except by Sync, which fails as a disk does: see [FaultFS].
	Nothing Extent = iota
	// Part: a write writes the first half of its bytes; other operations are as with Nothing.
	Part
	// All is done, and then an error returned, as a network file system may when an answer is lost.
	All
)

// Fault is what is to go wrong. The zero value is: nothing.
type Fault struct {
	At     int   // the operation that fails, counted from 1; 0 for none
	Err    error // with what: syscall.EIO, syscall.ENOSPC …
	Extent Extent
	Sticky bool // every later operation that matches fails too, with nothing done

	// Match says which operations are counted and fail; nil: all. name is as given to the FS.
	Match func(op Op, name string) bool
}

// Crash is the fault of a process that dies at its at-th operation.
func Crash(at int) Fault { return Fault{At: at, Err: ErrCrashed, Extent: Part, Sticky: true} }

// FaultFS passes operations on to a file system until one of them is to fail. It implements [FS] and
// [Locker]. On a [Mem], a sync that fails leaves each unsynced page written or not, at random, and
// clean, as Linux does; on others it is not carried out.
type FaultFS struct {
	fsys FS

	mu    sync.Mutex
	fault Fault
	count int
	fired bool
	rng   *rand.Rand
}

// Faulty wraps fsys. Without a fault the wrapper behaves as fsys does.
func Faulty(fsys FS, f Fault) *FaultFS {
	w := &FaultFS{fsys: fsys}
	w.Inject(f)
	return w
}

// Inject begins to count anew, for another fault; Inject(Fault{}) heals the file system.
func (w *FaultFS) Inject(f Fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault, w.count, w.fired = f, 0, false
	w.rng = rand.New(rand.NewPCG(uint64(f.At), 0)) // a failure can be seen again
}

// Count is the number of operations counted since the last Inject.
func (w *FaultFS) Count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count
}

// Fired reports whether the fault has happened.
func (w *FaultFS) Fired() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fired
}

// next counts an operation and returns to what extent it is carried out and the error it then fails
// with, if it does.
func (w *FaultFS) next(op Op, name string) (Extent, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.fault
	if f.Match != nil && !f.Match(op, name) {
		return All, nil
	}
	w.count++
	if f.At == 0 || w.count < f.At || w.count > f.At && !f.Sticky {
		return All, nil
	}
	extent := f.Extent
	if w.count > f.At {
		extent = Nothing
	}
	w.fired = true
	return extent, &fs.PathError{Op: string(op), Path: w.Path(name), Err: f.Err}
}

// do is next for operations that return an error only.
func (w *FaultFS) do(op Op, name string, carryOut func() error) error {
	extent, fault := w.next(op, name)
	if fault == nil {
		return carryOut()
	}
	if extent == All {
		if err := carryOut(); err != nil {
			return err
		}
	}
	return fault
}

// Path is the path of name in the file system wrapped.
func (w *FaultFS) Path(name string) string { return Path(w.fsys, name) }

// OpenFile implements [FS].
func (w *FaultFS) OpenFile(name string, mode Mode) (f File, err error) {
	err = w.do(OpOpen, name, func() error {
		f, err = w.fsys.OpenFile(name, mode)
		return err
	})
	if err != nil {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
		return nil, err
	}
	return &faultFile{File: f, w: w, name: name}, nil
}

// Rename implements [FS]. For a fault's Match its name is newname.
func (w *FaultFS) Rename(oldname, newname string) error {
	return w.do(OpRename, newname, func() error { return w.fsys.Rename(oldname, newname) })
}

// Remove implements [FS].
func (w *FaultFS) Remove(name string) error {
	return w.do(OpRemove, name, func() error { return w.fsys.Remove(name) })
}

// ReadDir implements [FS].
func (w *FaultFS) ReadDir(name string) (entries []Entry, err error) {
	if _, fault := w.next(OpList, name); fault != nil {
		return nil, fault
	}
	return w.fsys.ReadDir(name)
}

// Mkdir implements [FS].
func (w *FaultFS) Mkdir(name string) error {
	return w.do(OpMkdir, name, func() error { return w.fsys.Mkdir(name) })
}

// Lock implements [Locker]. A lock that fails is not held.
func (w *FaultFS) Lock(name string, content []byte) (io.Closer, error) {
	if _, fault := w.next(OpLock, name); fault != nil {
		return nil, fault
	}
	return Lock(w.fsys, name, content)
}

type faultFile struct {
	File
	w    *FaultFS
	name string
}

func (f *faultFile) ReadAt(b []byte, off int64) (int, error) {
	if _, fault := f.w.next(OpRead, f.name); fault != nil {
		return 0, fault
	}
	return f.File.ReadAt(b, off)
}

func (f *faultFile) Write(b []byte) (int, error) {
	extent, fault := f.w.next(OpWrite, f.name)
	switch {
	case fault == nil:
		return f.File.Write(b)
	case extent == Nothing:
		return 0, fault
	case extent == Part:
		b = b[:len(b)/2]
	}
	n, err := f.File.Write(b)
	if err != nil {
		return n, fmt.Errorf("%w; and %w", fault, err)
	}
	return n, fault
}

// Truncate implements [Truncater].
func (f *faultFile) Truncate(size int64) error {
	return f.w.do(OpTruncate, f.name, func() error { return Truncate(f.File, size) })
}

func (f *faultFile) Sync() error {
	extent, fault := f.w.next(OpSync, f.name)
	switch {
	case fault == nil:
		return f.File.Sync()
	case extent == All:
		return errors.Join(f.File.Sync(), fault)
	case !errors.Is(fault, ErrCrashed):
		if m, ok := f.File.(interface{ failSync(*rand.Rand) }); ok {
			f.w.mu.Lock()
			defer f.w.mu.Unlock()
			m.failSync(f.w.rng)
		}
	}
	return fault
}
