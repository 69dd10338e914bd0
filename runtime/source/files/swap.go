package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// errCut is what operations fail with once a test has the process die.
var errCut = errors.New("cut off")

// syncFolder makes the names in an open folder durable, where the system can.
func syncFolder(f *os.File) error {
	err := f.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrPermission) {
		return nil // some systems know no sync of a folder
	}
	return err
}

func (s *Source) syncNames(path string) error {
	return s.do("sync", path, func() error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(syncFolder(f), f.Close())
	})
}

func (s *Source) rename(from, to string) error {
	return s.do("rename", from, func() error {
		return writable(func() error { return os.Rename(from, to) }, from)
	})
}

// writable moves folders that their owner may not write to: only the superuser can give such a folder another
// parent. They are made writable for that moment and have their permissions again whatever becomes of it, but
// for a process that dies just then.
func writable(move func() error, folders ...string) (err error) {
	if err = move(); !errors.Is(err, fs.ErrPermission) {
		return err
	}
	for _, path := range folders {
		f, oerr := os.Open(path)
		if oerr != nil {
			return err
		}
		defer f.Close()
		info, serr := f.Stat()
		if serr != nil || !info.IsDir() || info.Mode()&0o200 != 0 {
			continue
		}
		if cerr := f.Chmod(info.Mode() | 0o200); cerr != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Chmod(info.Mode())) }()
	}
	return move()
}

func there(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// swap puts a whole, durable folder in the place of the source's. After an error the old one is there.
func (s *Source) swap(fresh string) error {
	if s.inside {
		return s.swapNames(fresh)
	}
	old := filepath.Join(s.work, workOld)
	err := s.do("exchange", s.cfg.Root, func() error {
		return writable(func() error { return exchange(fresh, s.cfg.Root) }, fresh, s.cfg.Root)
	})
	switch {
	case err == nil:
	case cannotMove(err):
		return fmt.Errorf("the folder cannot be replaced, it is a mount point that came after New, or its name is on another file system: %w", err)
	case cannotExchange(err) || !there(s.cfg.Root):
		// Two steps. Between them there is no folder; recover puts the old one back.
		if there(s.cfg.Root) {
			if err := s.rename(s.cfg.Root, old); err != nil {
				return err
			}
		}
		if err := s.rename(fresh, s.cfg.Root); err != nil {
			return errors.Join(err, s.recover())
		}
	default:
		return err
	}
	// From here on the new folder is in place. That its name may not be durable yet is no reason to go back.
	return errors.Join(s.syncNames(filepath.Dir(s.cfg.Root)), s.syncNames(s.work))
}

// swapNames puts the names of a folder in the place of those in the source's, which is a mount point and
// cannot be moved. Once the new folder is called ready, the swap is finished, if not now then by recover; an
// error on the way undoes it.
func (s *Source) swapNames(fresh string) error {
	ready, moving, old := filepath.Join(s.work, workReady), filepath.Join(s.work, workMoving), filepath.Join(s.work, workOld)
	if err := s.do("mkdir", old, func() error { return os.Mkdir(old, 0o700) }); err != nil {
		return err
	}
	// The folder's own attributes are kept on an empty one: the time of this one changes as names leave it.
	like, was := filepath.Join(s.work, workLike), filepath.Join(s.work, workWas)
	for _, c := range []struct{ to, from string }{{like, fresh}, {was, s.cfg.Root}} {
		to, from := c.to, c.from
		if err := s.do("mkdir", to, func() error { return os.Mkdir(to, 0o700) }); err != nil {
			return err
		}
		if err := s.dress(to, from); err != nil {
			return err
		}
		if err := s.syncNames(to); err != nil {
			return err
		}
	}
	// From the rename on recover finishes the swap, with these folders.
	if err := s.syncNames(s.work); err != nil {
		return err
	}
	if err := s.rename(fresh, ready); err != nil {
		return err
	}
	err := s.finishNames()
	if err == nil {
		return nil
	}
	// Undo: first what is new goes back, then what was old.
	undo := func() error {
		if there(moving) {
			if err := s.moveNames(s.cfg.Root, moving); err != nil {
				return err
			}
			if err := s.rename(moving, ready); err != nil {
				return err
			}
		}
		if err := s.moveNames(old, s.cfg.Root); err != nil {
			return err
		}
		if err := s.dress(s.cfg.Root, was); err != nil {
			return err
		}
		return s.rename(ready, fresh)
	}
	if uerr := undo(); uerr != nil {
		return fmt.Errorf("%w; and it cannot be undone (%w): the next start finishes it", err, uerr)
	}
	return err
}

// finishNames does, or goes on with, what swapNames does.
func (s *Source) finishNames() error {
	ready, moving, old := filepath.Join(s.work, workReady), filepath.Join(s.work, workMoving), filepath.Join(s.work, workOld)
	if there(ready) {
		if err := s.syncNames(s.work); err != nil {
			return err
		}
		if err := s.moveNames(s.cfg.Root, old); err != nil {
			return err
		}
		// No old name may come back between the new ones.
		if err := errors.Join(s.syncNames(old), s.syncNames(s.cfg.Root)); err != nil {
			return err
		}
		if err := s.rename(ready, moving); err != nil {
			return err
		}
		if err := s.syncNames(s.work); err != nil {
			return err
		}
	}
	if err := s.moveNames(moving, s.cfg.Root); err != nil {
		return err
	}
	if err := s.dress(s.cfg.Root, filepath.Join(s.work, workLike)); err != nil {
		return err
	}
	if err := s.syncNames(s.cfg.Root); err != nil {
		return err
	}
	return s.remove(moving)
}

// moveNames moves all names from one folder to another, but the work folder.
func (s *Source) moveNames(from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	names, err := f.Readdirnames(-1)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if filepath.Join(from, name) == s.work {
			continue
		}
		if err := s.rename(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
			return err
		}
	}
	return nil
}

// dress gives a folder the attributes of another.
func (s *Source) dress(to, from string) error {
	return s.do("dress", from, func() error {
		like, err := os.Open(from)
		if err != nil {
			return err
		}
		defer like.Close()
		info, err := like.Stat()
		if err != nil {
			return err
		}
		root, err := os.Open(to)
		if err != nil {
			return err
		}
		defer root.Close()
		st := stampFor(info)
		e := &entry{path: rootPath, mode: permissions(info), owner: &owner{st.uid, st.gid}}
		if e.xattrs, err = xattrsOf(like); err != nil {
			return err
		}
		had, err := xattrsOf(root)
		if err != nil {
			return err
		}
		for _, x := range had {
			if !slices.ContainsFunc(e.xattrs, func(y xattr) bool { return y.name == x.name }) {
				if err := removeXattr(root, x.name); err != nil {
					return err
				}
			}
		}
		// The time first: it takes the right to enter the folder, and nothing of the rest changes it.
		if err := setTimes(root, ".", info.ModTime().UnixNano()); err != nil {
			return err
		}
		return (&builder{s: s}).dress(root, e)
	})
}

// recover finishes or undoes a swap that was cut off, and removes what is left of it. It is called at every
// beginning and end.
func (s *Source) recover() error {
	ready, moving, old := filepath.Join(s.work, workReady), filepath.Join(s.work, workMoving), filepath.Join(s.work, workOld)
	switch {
	case s.inside && (there(ready) || there(moving)):
		if err := s.finishNames(); err != nil {
			return fmt.Errorf("finishing a restore that was cut off: %w", err)
		}
	case !s.inside && there(old) && !there(s.cfg.Root):
		if err := s.rename(old, s.cfg.Root); err != nil {
			return fmt.Errorf("undoing a restore that was cut off: %w", err)
		}
		if err := s.syncNames(filepath.Dir(s.cfg.Root)); err != nil {
			return err
		}
	}
	for _, name := range []string{workNew, workOld, workLike, workWas} {
		if err := s.remove(filepath.Join(s.work, name)); err != nil {
			return fmt.Errorf("removing what a restore has left: %w", err)
		}
	}
	return nil
}

// remove removes a folder, with folders in it that nothing may be removed from.
func (s *Source) remove(path string) error {
	if !there(path) {
		return nil
	}
	return s.do("remove", path, func() error {
		err := os.RemoveAll(path)
		if err == nil || !errors.Is(err, fs.ErrPermission) {
			return err
		}
		werr := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
			if d == nil || !d.IsDir() || err != nil {
				return nil //nolint:nilerr // what cannot be looked into now, RemoveAll tells
			}
			return os.Chmod(p, 0o700)
		})
		return errors.Join(werr, os.RemoveAll(path))
	})
}
