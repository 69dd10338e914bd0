package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// maxLinks is how many symbolic links are followed, one to the other.
const maxLinks = 8

// Source is a file as a [runtime.Source]. Methods are safe for concurrent use and wait for each other. There must
// be no other Source of the same file. It holds nothing open between calls.
type Source struct {
	cfg    Config
	folder string
	mu     sync.Mutex

	// fsys wraps the file system that Restore and Reset work on; nil but in tests.
	fsys func(vfs.FS) vfs.FS
}

var (
	_ runtime.AtomicSource  = (*Source)(nil)
	_ runtime.OfflineSource = (*Source)(nil)
	_ runtime.DatedSource   = (*Source)(nil)
)

// New makes the source of the file that cfg names, makes the folder it is to lie in, durably, and removes what a
// Restore that was cut off has left there. The error names the field that is wrong, or says what is there that
// is no file.
func New(cfg Config) (*Source, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Source{cfg: cfg, folder: filepath.Dir(cfg.Path)}
	p, err := s.place()
	if err != nil {
		return nil, s.about(err)
	}
	defer p.close()
	if err := p.discard(); err != nil && !errors.Is(err, syscall.EROFS) { // where nothing can be left either
		return nil, s.about(err)
	}
	return s, nil
}

func (s *Source) about(err error) error { return fmt.Errorf("file source: %s: %w", s.cfg.Path, err) }

// AtomicCapture implements [runtime.AtomicSource].
func (s *Source) AtomicCapture() bool { return s.cfg.Atomic }

// Offline implements [runtime.OfflineSource]: the service must not run while the file is restored or reset.
func (s *Source) Offline() bool { return true }

// Modified implements [runtime.DatedSource].
func (s *Source) Modified(context.Context) (time.Time, error) {
	root, err := os.OpenRoot(s.folder)
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, s.about(err)
	}
	defer root.Close()
	_, info, err := s.find(root)
	if err != nil || info == nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

// unrestError says that the file was not left alone, or is torn: it is looked at again.
type unrestError struct{ err error }

func (e *unrestError) Error() string { return e.err.Error() }
func (e *unrestError) Unwrap() error { return e.err }

func unrest(what string) error { return &unrestError{errors.New(what)} }

// Capture copies the file as it was at one moment of the call; a file that is not there is Config.Empty. A file
// that is not left alone for long enough, or that Check finds torn (the error wraps abi.ErrCorrupt then), is refused;
// that error can be tried again.
// Other errors say what is there that is no file, or wrap abi.ErrTooLarge, or are ctx's and the system's.
func (s *Source) Capture(ctx context.Context) (runtime.Capture, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, s.about(err)
	}
	for try := 1; ; try++ {
		c, err := s.capture(ctx)
		if err == nil {
			return c, nil
		}
		var again *unrestError
		if !errors.As(err, &again) {
			return nil, s.about(err)
		}
		if try == s.cfg.Tries {
			return nil, s.about(fmt.Errorf("%w, the last of %d times: it is written to, or was left half-written. Save again once the service rests", again, try))
		}
		if err := wait(ctx, s.cfg.Settle); err != nil {
			return nil, s.about(err)
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// capture is one try.
func (s *Source) capture(ctx context.Context) (_ runtime.Capture, err error) {
	root, err := os.OpenRoot(s.folder) // anew each time: the folder may be another one by now
	if err != nil {
		return nil, err
	}
	defer root.Close()
	name, info, err := s.find(root)
	if err != nil {
		return nil, err
	}
	if info == nil {
		if err := s.absent(ctx, root); err != nil {
			return nil, err
		}
		return s.spool(ctx, func(w io.Writer) error {
			_, err := w.Write(s.cfg.Empty)
			return err
		})
	}
	in, err := root.OpenFile(name, openFlags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, unrest("it has just gone")
	}
	if err != nil {
		return nil, err
	}
	defer in.Close()
	was, err := in.Stat()
	if err != nil {
		return nil, err
	}
	if !os.SameFile(was, info) { // so it is a regular one
		return nil, unrest("it has just been replaced")
	}
	if was.Size() > s.cfg.MaxBytes {
		return nil, s.tooLarge(was.Size())
	}
	// What is read must be older than a step of the clock: then whatever is written from here on shows.
	newest := was.ModTime()
	if t := inodeTime(was); t.After(newest) {
		newest = t
	}
	if left := s.cfg.Settle - time.Since(newest); left > 0 {
		if err := wait(ctx, min(left, s.cfg.Settle)); err != nil {
			return nil, err
		}
	}
	protectPages(in)
	if err := s.changed(root, in, was); err != nil {
		return nil, err
	}
	return s.spool(ctx, func(w io.Writer) error {
		check := newChecker(s.cfg.Check)
		err := copyFile(io.MultiWriter(w, check), in, was.Size())
		if err == nil {
			err = check.end()
		}
		// What is wrong with the bytes says nothing if they are not those of one moment.
		if cerr := s.changed(root, in, was); cerr != nil {
			return cerr
		}
		var torn *formError
		if errors.As(err, &torn) {
			return &unrestError{fmt.Errorf("it is torn (%w): it is %w", abi.ErrCorrupt, torn)}
		}
		return err
	})
}

// absent makes sure that a file that was not found is not there for good. Some services remove the file before they
// give another its name, which is no state of theirs: so nothing may come to the folder, or go, for a while.
func (s *Source) absent(ctx context.Context, root *os.Root) error {
	was, err := root.Stat(".")
	if err != nil {
		return err
	}
	if err := wait(ctx, s.cfg.Settle); err != nil {
		return err
	}
	now, err := root.Stat(".")
	if err != nil {
		return err
	}
	if _, info, err := s.find(root); err != nil {
		return err
	} else if info != nil || !now.ModTime().Equal(was.ModTime()) {
		return unrest("it is not there, and files come to its folder or go")
	}
	return nil
}

// spool keeps what write writes.
func (s *Source) spool(ctx context.Context, write func(io.Writer) error) (runtime.Capture, error) {
	c, err := s.cfg.Spool.Fill(ctx, write)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (s *Source) tooLarge(size int64) error {
	return fmt.Errorf("%w: %d bytes, the limit is %d (MaxBytes)", abi.ErrTooLarge, size, s.cfg.MaxBytes)
}

// copyFile copies the first size bytes of a file, which has as many.
func copyFile(w io.Writer, in *os.File, size int64) error {
	// A section's reader keeps the copy from following a file that grows.
	n, err := io.Copy(struct{ io.Writer }{w}, io.NewSectionReader(in, 0, size))
	if err == nil && n != size {
		err = unrest("it became shorter while it was read")
	}
	return err
}

// changed tells whether an open file is no longer what it was.
func (s *Source) changed(root *os.Root, in *os.File, was fs.FileInfo) error {
	now, err := in.Stat()
	if err != nil {
		return err
	}
	if now.Size() != was.Size() || !now.ModTime().Equal(was.ModTime()) {
		return unrest("it is written to")
	}
	if inodeTime(now).Equal(inodeTime(was)) {
		return nil
	}
	// The inode's own time is another: that of a change that hides, or of the name that was taken from the file. If
	// it was, the file has been replaced or removed as a whole, and is still what it was.
	if _, named, err := s.find(root); err == nil && (named == nil || !os.SameFile(named, now)) {
		return nil
	}
	return unrest("it is written to")
}

// find follows links within the folder to the file, and tells what it is: nil if it is not there.
func (s *Source) find(root *os.Root) (name string, info fs.FileInfo, err error) {
	name = filepath.Base(s.cfg.Path)
	for range maxLinks + 1 {
		info, err := root.Lstat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return name, nil, nil
		case err != nil:
			return "", nil, err
		case info.Mode().IsRegular():
			return name, info, nil
		case info.Mode()&fs.ModeSymlink == 0:
			return "", nil, fmt.Errorf("it is a %s, not a file", kind(info.Mode()))
		}
		target, err := root.Readlink(name)
		if err != nil {
			return "", nil, err
		}
		at := filepath.Clean(target)
		if !filepath.IsAbs(at) {
			at = filepath.Join(s.folder, at)
		}
		if filepath.Dir(at) != s.folder || !fs.ValidPath(filepath.Base(at)) {
			return "", nil, fmt.Errorf("it is a symbolic link to %q, out of its folder: name the file itself", target)
		}
		name = filepath.Base(at)
	}
	return "", nil, fmt.Errorf("more than %d symbolic links, one to the other", maxLinks)
}

func kind(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "folder"
	case m&fs.ModeNamedPipe != 0:
		return "pipe"
	case m&fs.ModeSocket != 0:
		return "socket"
	}
	return "device"
}
