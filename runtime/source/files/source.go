package files

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// insideWork is the work folder inside a folder that is a mount point.
const insideWork = ".torpor-restore"

// Names in the work folder.
const (
	workNew    = "new"    // a folder that is being put together
	workReady  = "ready"  // one that is whole, to be swapped in name by name
	workMoving = "moving" // the same, once the old names are out of the way
	workOld    = "old"    // the folder or the names that were replaced
	workLike   = "like"   // an empty one with the attributes of that which is ready or moving
	workWas    = "was"    // an empty one with those of the folder before
	workSpool  = "spool"
	workLock   = "lock"
)

// Source is a folder as a runtime.Source. The service must not be running on the folder while it is restored
// or reset: it would go on with files that are no longer there. Methods are safe for concurrent use and wait
// for each other.
type Source struct {
	cfg    Config
	owners bool   // are kept
	work   string // the work folder
	inside bool   // which is in the folder itself
	spool  *spool
	lock   io.Closer

	mu     sync.Mutex
	last   *tree // what was captured last, to tell what has changed
	reads  int   // files and folders opened by captures
	closed bool

	// step is called before each operation of Restore, Reset and recovery that changes the disk; its error is the
	// operation's. Nil but in tests.
	step func(op, path string) error
}

var (
	_ runtime.OfflineSource = (*Source)(nil)
	_ runtime.DatedSource   = (*Source)(nil)
)

// New opens the folder that cfg names, making it if need be, and finishes or undoes a Restore that was cut off.
// The error wraps abi.ErrLocked if another Source has the folder. Close gives it back.
func New(cfg Config) (*Source, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Source{cfg: cfg, owners: superuser() && !cfg.IgnoreOwner}
	if err := s.open(); err != nil {
		return nil, err
	}
	return s, nil
}

// open does what New does.
func (s *Source) open() (err error) {
	if target, err := filepath.EvalSymlinks(s.cfg.Root); err == nil {
		s.cfg.Root = target // a link to the folder must not be replaced by it
	}
	parent, name := filepath.Split(s.cfg.Root)
	s.work = filepath.Join(parent, "."+name+".torpor")
	// Where its names were being swapped they must be, even if it is no mount point any more.
	inside := filepath.Join(s.cfg.Root, insideWork)
	if s.inside = mounted(s.cfg.Root) || there(filepath.Join(inside, workReady)) || there(filepath.Join(inside, workMoving)); s.inside {
		s.work = inside
	}
	work, err := vfs.OS(s.work)
	if err != nil {
		return fmt.Errorf("files: the folder for %s: %w", s.cfg.Root, err)
	}
	defer func() { _ = work.Close() }()
	if s.lock, err = vfs.Lock(work, workLock, nil); err != nil {
		var held *vfs.HeldError
		if errors.As(err, &held) {
			err = fmt.Errorf("%w: %w", abi.ErrLocked, err)
		}
		return fmt.Errorf("files: %s is in use: %w", s.cfg.Root, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("files: %w", err), s.lock.Close())
		}
	}()
	if err := s.checkMounts(); err != nil {
		return err
	}
	if err := s.recover(); err != nil {
		return err
	}
	if err := os.MkdirAll(s.cfg.Root, 0o700); err != nil {
		return err
	}
	dir, err := s.spoolFolder()
	if err == nil {
		s.spool, err = openSpool(dir)
	}
	return err
}

// spoolFolder is the folder for copies of this source alone: openSpool empties it.
func (s *Source) spoolFolder() (string, error) {
	if s.cfg.Spool == "" {
		return filepath.Join(s.work, workSpool), nil
	}
	root, err := filepath.EvalSymlinks(s.cfg.Root)
	if err != nil {
		return "", err
	}
	for _, dir := range []string{s.cfg.Spool, ""} {
		if dir == "" { // what it is called may be a link
			if err := os.MkdirAll(s.cfg.Spool, 0o700); err != nil {
				return "", err
			}
			if dir, err = filepath.EvalSymlinks(s.cfg.Spool); err != nil {
				return "", err
			}
		}
		if rel, err := filepath.Rel(root, dir); err != nil || filepath.IsLocal(rel) {
			return "", fmt.Errorf("the spool %s lies in %s, which it is to hold copies of", s.cfg.Spool, s.cfg.Root)
		}
	}
	sum := sha256.Sum256([]byte(root))
	return filepath.Join(s.cfg.Spool, hex.EncodeToString(sum[:8])), nil
}

// checkMounts refuses a folder in which another file system is mounted: that would move with the old folder, and
// be emptied with it.
func (s *Source) checkMounts() error {
	if path, ok := mountBelow(s.cfg.Root); ok {
		return fmt.Errorf("%q is a mount point: a folder with one in it cannot be replaced. Keep it out of %s, or make it a part of its own", path, s.cfg.Root)
	}
	return nil
}

// Close gives the folder back and removes the copies. Captures must be closed before.
func (s *Source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	err := s.spool.drop(s.last)
	s.last = nil
	return errors.Join(err, s.lock.Close())
}

// ready tells whether a call can begin.
func (s *Source) ready(ctx context.Context) error {
	if s.closed {
		return errors.New("files: the source is closed")
	}
	return ctx.Err()
}

// Offline implements runtime.OfflineSource: a service that runs has files of the folder open.
func (s *Source) Offline() bool { return true }

// Modified implements runtime.DatedSource.
func (s *Source) Modified(ctx context.Context) (time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.ready(ctx); err != nil {
		return time.Time{}, err
	}
	root, err := os.OpenRoot(s.cfg.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	defer root.Close()
	entries, err := s.list(ctx, root)
	if err != nil || len(entries) < 2 { // the first one is the folder itself
		return time.Time{}, err
	}
	var newest int64
	for _, e := range entries {
		newest = max(newest, e.mtime)
	}
	return time.Unix(0, newest), nil
}

// Restore puts the folder that native describes together beside the old one, makes it durable and swaps the
// two. Errors wrap abi.ErrCorrupt or abi.ErrTooLarge where native is at fault, or are those of native, of ctx
// and of the system; then the folder is as it was. If the process dies meanwhile, the folder is the old or the
// new one once New has been called. Where the folder is a mount point it cannot be swapped in one step: its
// names are, one by one, and New finishes what was cut off.
func (s *Source) Restore(ctx context.Context, native io.Reader) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.ready(ctx); err != nil {
		return err
	}
	return s.replace(ctx, func(b *builder) error {
		d := newDecoder(ctx, native, s.cfg)
		if err := d.header(); err != nil {
			return err
		}
		for {
			e, err := d.next()
			if err != nil || e == nil {
				return err
			}
			if err := b.add(d, e); err != nil {
				return err
			}
		}
	})
}

// Reset replaces the folder by an empty one with the same permissions and owner, as Restore does.
func (s *Source) Reset(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.ready(ctx); err != nil {
		return err
	}
	info, err := os.Lstat(s.cfg.Root)
	if err != nil {
		return fmt.Errorf("files: %w", err)
	}
	return s.replace(ctx, func(b *builder) error {
		e := &entry{path: rootPath, kind: folder, mode: permissions(info), mtime: info.ModTime().UnixNano()}
		if st := stampFor(info); s.owners {
			e.owner = &owner{st.uid, st.gid}
		}
		return b.add(nil, e)
	})
}

// replace swaps in the folder that fill puts together.
func (s *Source) replace(ctx context.Context, fill func(*builder) error) (err error) {
	err = s.checkMounts()
	if err == nil {
		err = s.recover()
	}
	if err != nil {
		return fmt.Errorf("files: %w", err)
	}
	// What is left in the work folder is removed, whatever happened; what cannot be is removed by the next call.
	defer func() {
		if rerr := s.recover(); rerr != nil && err == nil && !errors.Is(rerr, errCut) {
			err = fmt.Errorf("files: %s has been replaced, but what is left of the old state cannot be removed: %w", s.cfg.Root, rerr)
		}
	}()
	fresh := filepath.Join(s.work, workNew)
	b, err := s.build(fresh)
	if err == nil {
		err = errors.Join(fill(b), b.close())
	}
	if err == nil {
		err = b.finish()
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("files: %s stays as it is: %w", s.cfg.Root, err)
	}
	if err := s.swap(fresh); err != nil {
		return fmt.Errorf("files: %s: %w", s.cfg.Root, err)
	}
	derr := s.spool.drop(s.last) // all inodes are new
	s.last = nil
	return derr
}

// builder puts a folder together. Everything goes through an os.Root, which nothing leaves.
type builder struct {
	s       *Source
	path    string
	root    *os.Root
	parent  *parentRoot
	folders []*entry
	detours []*entry // links that take one
	files   int
	buf     []byte
}

func (s *Source) build(path string) (*builder, error) {
	if err := s.do("mkdir", path, func() error { return os.Mkdir(path, 0o700) }); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return &builder{s: s, path: path, root: root, parent: &parentRoot{root: root}, buf: make([]byte, copyBytes)}, nil
}

// do runs an operation that changes the disk.
func (s *Source) do(op, path string, f func() error) error {
	if s.step != nil {
		if err := s.step(op, path); err != nil {
			return err
		}
	}
	return f()
}

// fewFiles are made durable one by one; more of them all at once.
const fewFiles = 100

func (b *builder) add(d *decoder, e *entry) error {
	if e.path == rootPath {
		b.folders = append(b.folders, e)
		return nil
	}
	dir, name, err := b.parent.of(e.path)
	if err != nil {
		return err
	}
	return b.s.do("create "+string(e.kind), e.path, func() error {
		switch e.kind {
		case folder:
			b.folders = append(b.folders, e) // it gets its attributes when it is full
			return dir.Mkdir(name, 0o700)
		case hardlink:
			info, err := b.root.Lstat(filepath.FromSlash(e.target))
			if err != nil || !info.Mode().IsRegular() {
				return d.corrupt("a hard link to %.300q, which is no file before it", e.target)
			}
			return b.root.Link(filepath.FromSlash(e.target), filepath.FromSlash(e.path))
		case link:
			if detour(e.target) {
				b.detours = append(b.detours, e)
			}
			if err := dir.Symlink(e.target, name); err != nil {
				return err
			}
			if b.s.owners && e.owner != nil {
				if err := dir.Lchown(name, int(e.owner.uid), int(e.owner.gid)); err != nil {
					return err
				}
			}
			return b.time(dir, name, e)
		}
		return b.file(dir, name, d, e)
	})
}

// inFolder opens a folder for a moment.
func inFolder(dir *os.Root, do func(*os.File) error) error {
	f, err := dir.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(do(f), f.Close())
}

func (b *builder) file(dir *os.Root, name string, d *decoder, e *entry) (err error) {
	f, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := d.content(e, f, b.buf); err != nil {
		return err
	}
	if e.runs != nil {
		if err := f.Truncate(e.size); err != nil {
			return err
		}
	}
	if err := b.dress(f, e); err != nil {
		return err
	}
	if err := b.time(dir, name, e); err != nil {
		return err
	}
	if b.files++; b.files <= fewFiles {
		return b.s.do("sync", e.path, f.Sync)
	}
	return nil
}

// dress gives what an open file or folder has beside its content and time.
func (b *builder) dress(f *os.File, e *entry) error {
	for _, x := range e.xattrs {
		if err := setXattr(f, x); err != nil {
			return fmt.Errorf("extended attribute %q of %q: %w", x.name, e.path, err)
		}
	}
	if b.s.owners && e.owner != nil {
		if err := f.Chown(int(e.owner.uid), int(e.owner.gid)); err != nil {
			return err
		}
	}
	mode := fs.FileMode(e.mode & 0o777)
	for bit, m := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if e.mode&bit != 0 {
			mode |= m
		}
	}
	return f.Chmod(mode)
}

// finish gives the folders their attributes, the inner ones first, and makes all of it durable.
func (b *builder) finish() (err error) {
	if b.root, err = os.OpenRoot(b.path); err != nil {
		return err
	}
	b.parent = &parentRoot{root: b.root}
	defer func() { err = errors.Join(err, b.close()) }()
	if len(b.folders) == 0 {
		return errors.New("a state without the folder itself")
	}
	if err := b.s.checkDetours(b.root, b.detours); err != nil {
		return fmt.Errorf("%w: %w", abi.ErrCorrupt, err)
	}
	for i := len(b.folders) - 1; i >= 0; i-- {
		e := b.folders[i]
		if err := b.s.do("finish folder", e.path, func() error { return b.folder(e) }); err != nil {
			return err
		}
	}
	if b.files <= fewFiles && len(b.folders) <= fewFiles {
		return nil
	}
	return b.s.do("sync", b.path, func() error {
		return inFolder(b.root, func(f *os.File) error {
			if err := syncAll(f); !errors.Is(err, errors.ErrUnsupported) {
				return err
			}
			return b.syncEach()
		})
	})
}

// folder gives a folder its attributes.
func (b *builder) folder(e *entry) error {
	f, err := b.root.Open(filepath.FromSlash(e.path))
	if err != nil {
		return err
	}
	// The time first: that of the folder itself takes the right to enter it, and nothing of the rest changes it.
	if e.path == rootPath {
		err = setTimes(f, ".", e.mtime)
	} else {
		var dir *os.Root
		var name string
		if dir, name, err = b.parent.of(e.path); err == nil {
			err = b.time(dir, name, e)
		}
	}
	if err == nil {
		err = b.dress(f, e)
	}
	if err == nil && len(b.folders) <= fewFiles {
		err = syncFolder(f)
	}
	return errors.Join(err, f.Close())
}

// time sets the time of what has a name in the folder that is open.
func (b *builder) time(dir *os.Root, name string, e *entry) error {
	f, err := b.parent.at(dir)
	if err != nil {
		return err
	}
	return setTimes(f, name, e.mtime)
}

// syncEach makes every file and folder durable where the system cannot do so at once.
func (b *builder) syncEach() error {
	return fs.WalkDir(b.root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		f, err := b.root.Open(filepath.FromSlash(p))
		if err != nil {
			return err
		}
		if d.IsDir() {
			err = syncFolder(f)
		} else {
			err = f.Sync()
		}
		return errors.Join(err, f.Close())
	})
}

func (b *builder) close() error {
	b.parent.close()
	return b.root.Close()
}
