// Package folder is a repository.Remote in a folder: a blob is a file whose path is its name.
//
// Several processes can have one folder. Who puts a blob holds the lock file LOCK meanwhile, so that of two who put the
// same name one is told that it exists: giving a file its name by renaming replaces what has the name, and a file that is
// made under its own name could be seen half written. It also makes a temporary file that is found there one that a
// crash has left.
package folder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
	"github.com/torpor-run/torpor/runtime/vfs"
)

const (
	lockName = "LOCK"
	tempName = ".tmp" // no blob's name has an element that begins with a dot

	// MaxWait is how long Put waits for another process that is putting a blob.
	MaxWait = time.Minute

	firstPause, lastPause = time.Millisecond, 50 * time.Millisecond // between attempts to have the lock
)

// Folder is a Remote in a folder. Blob.Modified is not known of its blobs.
type Folder struct {
	fsys vfs.FS
	turn chan struct{} // taken while a blob is put
	// made are the folders known to be durable; only who has the turn looks.
	made map[string]bool
}

var _ repository.Remote = (*Folder)(nil)

// Open takes the root of fsys as the place. It reads and writes nothing.
func Open(fsys vfs.FS) *Folder {
	return &Folder{fsys: fsys, turn: make(chan struct{}, 1), made: map[string]bool{}}
}

// Put implements repository.Remote. Its error wraps abi.ErrLocked where another process has the lock for longer than
// MaxWait, and errors.ErrUnsupported on a file system without locks.
func (f *Folder) Put(ctx context.Context, name string, r io.Reader, size int64) (err error) {
	if err := repository.CheckBlobName(name); err != nil {
		return err
	}
	unlock, err := f.lock(ctx)
	if err != nil {
		return fmt.Errorf("put %s: %w", vfs.Path(f.fsys, name), err)
	}
	defer unlock()
	if err := f.makeFolder(path.Dir(name)); err != nil {
		return fmt.Errorf("put %s: %w", vfs.Path(f.fsys, name), err)
	}
	switch there, _, err := f.open(name); {
	case err == nil:
		// Who gave it its name may have died before that was durable.
		if err := errors.Join(there.Close(), vfs.SyncFolder(f.fsys, path.Dir(name))); err != nil {
			return fmt.Errorf("put %s: %w", vfs.Path(f.fsys, name), err)
		}
		return fmt.Errorf("put %s: %w", vfs.Path(f.fsys, name), fs.ErrExist)
	case !errors.Is(err, abi.ErrNotFound):
		return err
	}
	if err := f.write(ctx, name, r, size); err != nil {
		return fmt.Errorf("put %s: %w", vfs.Path(f.fsys, name), err)
	}
	return nil
}

// lock waits for its turn, in this process and among others.
func (f *Folder) lock(ctx context.Context) (unlock func(), err error) {
	select {
	case f.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	held, err := f.lockFile(ctx)
	if err != nil {
		<-f.turn
		return nil, err
	}
	return func() {
		held.Close()
		<-f.turn
	}, nil
}

func (f *Folder) lockFile(ctx context.Context) (io.Closer, error) {
	pause := firstPause
	for waited := time.Duration(0); ; waited += pause {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		held, err := vfs.Lock(f.fsys, lockName, nil)
		var by *vfs.HeldError
		switch {
		case err == nil:
			return held, nil
		case !errors.As(err, &by):
			return nil, err
		case waited >= MaxWait:
			return nil, fmt.Errorf("%w for %s by another process that puts a blob: %w", abi.ErrLocked, MaxWait, err)
		}
		pause = min(2*pause, lastPause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// makeFolder makes a folder and its parents and sees to it that all are durable, also those that are there already.
func (f *Folder) makeFolder(folder string) error {
	if folder == "." || f.made[folder] {
		return nil
	}
	parent := path.Dir(folder)
	if err := f.makeFolder(parent); err != nil {
		return err
	}
	if err := f.fsys.Mkdir(folder); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := vfs.SyncFolder(f.fsys, parent); err != nil {
		return err
	}
	f.made[folder] = true
	return nil
}

// write makes the file under another name and publishes it.
func (f *Folder) write(ctx context.Context, name string, r io.Reader, size int64) error {
	temp := path.Join(path.Dir(name), tempName)
	file, err := f.fsys.OpenFile(temp, vfs.Create)
	if errors.Is(err, fs.ErrExist) { // this process has the lock: a crash left it
		if err := f.fsys.Remove(temp); err != nil {
			return err
		}
		file, err = f.fsys.OpenFile(temp, vfs.Create)
	}
	if err != nil {
		return err
	}
	n, err := io.Copy(file, &reader{ctx: ctx, r: io.LimitReader(r, size+1)})
	if err == nil && n != size {
		err = fmt.Errorf("%w: there are not the %d bytes that were announced", io.ErrUnexpectedEOF, size)
	}
	if err != nil {
		err = errors.Join(err, file.Close())
	} else {
		err = vfs.Publish(f.fsys, file, vfs.Publication{Temp: temp, Name: name})
	}
	var unsynced *vfs.UnsyncedError
	if err != nil && !errors.As(err, &unsynced) {
		// If it cannot be removed, whoever puts the next blob here does it.
		if rerr := f.fsys.Remove(temp); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}

// reader ends with its context.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r *reader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}

// open opens a blob and tells its size. The error wraps abi.ErrNotFound if there is none.
func (f *Folder) open(name string) (vfs.File, int64, error) {
	if err := repository.CheckBlobName(name); err != nil {
		return nil, 0, err
	}
	file, err := f.fsys.OpenFile(name, vfs.Read)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return nil, 0, fmt.Errorf("%s: %w", vfs.Path(f.fsys, name), abi.ErrNotFound)
	case err != nil:
		return nil, 0, err
	}
	// A folder can be opened, too, and only reading tells.
	_, err = file.ReadAt(make([]byte, 1), 0)
	if errors.Is(err, syscall.EISDIR) {
		err = fmt.Errorf("%s is a folder: %w", vfs.Path(f.fsys, name), abi.ErrNotFound)
	} else if errors.Is(err, io.EOF) {
		err = nil
	}
	var size int64
	if err == nil {
		size, err = file.Size()
	}
	if err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	return file, size, nil
}

// Get implements repository.Remote.
func (f *Folder) Get(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, fmt.Errorf("get %s: offset %d: %w", name, offset, fs.ErrInvalid)
	}
	file, size, err := f.open(name)
	if err != nil {
		return nil, err
	}
	if rest := max(size-offset, 0); length < 0 || length > rest {
		length = rest
	}
	return &section{SectionReader: io.NewSectionReader(file, offset, length), file: file}, nil
}

type section struct {
	*io.SectionReader
	file vfs.File
}

func (s *section) Close() error { return s.file.Close() }

// Stat implements repository.Remote.
func (f *Folder) Stat(ctx context.Context, name string) (repository.Blob, error) {
	if err := ctx.Err(); err != nil {
		return repository.Blob{}, err
	}
	file, size, err := f.open(name)
	if err != nil {
		return repository.Blob{}, err
	}
	return repository.Blob{Name: name, Size: size}, file.Close()
}

// List implements repository.Remote.
func (f *Folder) List(ctx context.Context, prefix string, each func(repository.Blob) error) error {
	return f.list(ctx, ".", prefix, each)
}

func (f *Folder) list(ctx context.Context, folder, prefix string, each func(repository.Blob) error) error {
	entries, err := f.fsys.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed meanwhile, if it ever was there
	}
	if err != nil {
		return err
	}
	// What is in a folder comes where its name with the slash stands: "a-b/1" before "a/1".
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = path.Join(folder, e.Name)
		if e.Type.IsDir() {
			names[i] += "/"
		}
	}
	slices.SortFunc(names, cmp.Compare[string])
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		inner, isFolder := strings.CutSuffix(name, "/")
		if isFolder {
			if strings.HasPrefix(name, prefix) || strings.HasPrefix(prefix, name) {
				err = f.list(ctx, inner, prefix, each)
			}
		} else if strings.HasPrefix(name, prefix) && repository.CheckBlobName(name) == nil {
			err = f.tell(ctx, name, each)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *Folder) tell(ctx context.Context, name string, each func(repository.Blob) error) error {
	blob, err := f.Stat(ctx, name)
	if errors.Is(err, abi.ErrNotFound) {
		return nil // deleted meanwhile
	}
	if err != nil {
		return err
	}
	return each(blob)
}

// Delete implements repository.Remote. A power cut may bring back what it removed.
func (f *Folder) Delete(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := repository.CheckBlobName(name); err != nil {
		return err
	}
	if !strings.HasPrefix(name, repository.PacksPrefix) {
		return fmt.Errorf("delete %s: %w: only packs are ever deleted", vfs.Path(f.fsys, name), fs.ErrPermission)
	}
	if err := f.fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
