package file

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// place is where the file lies, for as long as one call.
type place struct {
	fs    vfs.FS
	name  string       // the file
	temp  string       // what is to become the file
	dress func() error // gives the temporary file permissions and owner; nil: nothing to give
	close func()       // gives the place back
}

// newPlace is the place of a file in a file system.
func newPlace(fsys vfs.FS, name string) *place {
	sum := sha256.Sum256([]byte(name)) // for a name may be as long as names can be
	return &place{fs: fsys, name: name, temp: tempPrefix + hex.EncodeToString(sum[:8]), close: func() {}}
}

// tempPrefix begins the names of temporary files.
const tempPrefix = ".torpor-restore-"

// place opens the folder, making it if need be.
func (s *Source) place() (*place, error) {
	folder, err := vfs.OS(s.folder)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(s.folder)
	if err != nil {
		return nil, errors.Join(err, folder.Close())
	}
	name, info, err := s.find(root)
	if err != nil {
		return nil, errors.Join(err, root.Close(), folder.Close())
	}
	var fsys vfs.FS = folder
	if s.fsys != nil {
		fsys = s.fsys(fsys)
	}
	p := newPlace(fsys, name)
	p.dress = func() error { return s.dress(root, p.temp, info) }
	p.close = func() {
		_ = root.Close()
		_ = folder.Close()
	}
	return p, nil
}

// dress gives the temporary file the permissions and the owner of the file that is there, or those of a new one.
func (s *Source) dress(root *os.Root, temp string, like fs.FileInfo) error {
	f, err := root.OpenFile(temp, os.O_WRONLY|noFollow, 0)
	if err != nil {
		return err
	}
	mode := s.cfg.Mode
	if like != nil {
		mode = like.Mode().Perm()
		err = setOwner(f, like)
	} else if folder, serr := root.Stat("."); serr == nil && superuser() {
		// The service may not run as the superuser, and a file of the superuser's would be of no use to it. Where
		// even the superuser may not give files away, it is so.
		_ = setOwner(f, folder)
	}
	if err == nil {
		err = f.Chmod(mode)
	}
	return errors.Join(err, f.Close())
}

// Restore puts the file that native is in the place of the one that is there. Errors wrap abi.ErrCorrupt where
// native is not what Check asks for and abi.ErrTooLarge where there is too much of it, or are those of native, of
// ctx and of the system; then the file is as it was. Only if the last sync of the folder failed, which the
// error says, the new file is in place: whole, but not certain to be found there after a power cut.
func (s *Source) Restore(ctx context.Context, native io.Reader) error {
	return s.change(ctx, func(p *place) error { return s.replace(ctx, p, native) })
}

// Reset removes the file, as Restore replaces it: a service finds none at its first start. It is no error if
// there is none.
func (s *Source) Reset(ctx context.Context) error {
	return s.change(ctx, func(p *place) error {
		if err := p.discard(); err != nil {
			return err
		}
		return p.remove()
	})
}

// change calls f with the place, for one at a time.
func (s *Source) change(ctx context.Context, f func(*place) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return s.about(err)
	}
	p, err := s.place()
	if err != nil {
		return s.about(err)
	}
	defer p.close()
	if err := f(p); err != nil {
		return s.about(err)
	}
	return nil
}

// replace makes the state that native gives the file. It is written beside the file rather than spooled: until it
// has ended nobody looks at it there either.
func (s *Source) replace(ctx context.Context, p *place, native io.Reader) error {
	if err := p.discard(); err != nil {
		return err
	}
	f, err := p.fs.OpenFile(p.temp, vfs.Create)
	if err != nil {
		return fmt.Errorf("it stays as it is: %w", err)
	}
	size, err := s.fill(ctx, f, native)
	if err == nil && size == 0 && len(s.cfg.Empty) == 0 { // what a file that is not there is captured as
		if err = errors.Join(f.Close(), p.discard()); err == nil {
			err = p.remove()
		}
		return err
	}
	if err == nil && p.dress != nil {
		err = p.dress()
	}
	if err != nil {
		return fmt.Errorf("it stays as it is: %w", errors.Join(err, f.Close(), p.discard()))
	}
	err = vfs.Publish(p.fs, f, vfs.Publication{Temp: p.temp, Name: p.name})
	if unsynced := (*vfs.UnsyncedError)(nil); err != nil && !errors.As(err, &unsynced) {
		err = fmt.Errorf("it stays as it is: %w", errors.Join(err, p.discard()))
	}
	return err
}

// fill writes what native gives, to its end, and tells how much that is.
func (s *Source) fill(ctx context.Context, f vfs.File, native io.Reader) (size int64, err error) {
	check := newChecker(s.cfg.Check)
	_, err = io.Copy(writerFunc(func(b []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if size += int64(len(b)); size > s.cfg.MaxBytes {
			return 0, s.tooLarge(size)
		}
		if _, err := check.Write(b); err != nil {
			return 0, err
		}
		return f.Write(b)
	}), native)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil && (size > 0 || len(s.cfg.Empty) > 0) {
		err = check.end()
	}
	var form *formError
	if errors.As(err, &form) {
		err = fmt.Errorf("%w: the state to restore is %w", abi.ErrCorrupt, form)
	}
	return size, err
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// discard removes the temporary file, or one that was left by a crash.
func (p *place) discard() error {
	if err := p.fs.Remove(p.temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("a temporary file cannot be removed: %w", err)
	}
	return nil
}

// remove removes the file durably. One that is not there may have been removed by a call that could not sync.
func (p *place) remove() error {
	if err := p.fs.Remove(p.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("it stays as it is: %w", err)
	}
	return p.sync()
}

// sync makes the folder's names durable.
func (p *place) sync() error {
	if err := vfs.SyncFolder(p.fs, "."); err != nil {
		return fmt.Errorf("it is removed, but may be there again after a power cut: %w", err)
	}
	return nil
}
