package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/torpor-run/torpor/host/abi"
)

// changedError says that the folder has changed while it was looked at.
type changedError struct{ path, how string }

func (e *changedError) Error() string { return e.path + " " + e.how }

// changed makes an error that is tried again of what is gone, or no longer what it was.
func changed(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &changedError{path, "is gone"}
	}
	return err
}

// list gives the entries of the folder, sorted, with what listing alone tells of them. Only one folder is open
// at a time, so that depth costs nothing.
func (s *Source) list(ctx context.Context, root *os.Root) ([]*entry, error) {
	info, err := root.Lstat(rootPath)
	if err != nil {
		return nil, err
	}
	top, err := s.entryOf(info, rootPath)
	if err != nil {
		return nil, err
	}
	all := []*entry{top}
	folders := []*entry{top}
	for len(folders) > 0 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		parent := folders[len(folders)-1]
		folders = folders[:len(folders)-1]
		found, err := s.listOne(root, parent)
		if err != nil {
			return nil, err
		}
		for _, e := range found {
			if e.kind == folder {
				folders = append(folders, e)
			}
		}
		if all = append(all, found...); int64(len(all)) > s.cfg.MaxFiles {
			return nil, s.tooMany()
		}
	}
	slices.SortFunc(all[1:], func(a, b *entry) int { return comparePaths(a.path, b.path) })
	first := map[inode]string{}
	for _, e := range all {
		if e.kind == file && e.stamp.links > 1 {
			if p, ok := first[e.stamp.inode()]; ok {
				e.kind, e.target, e.size = hardlink, p, 0
				continue
			}
			first[e.stamp.inode()] = e.path
		}
	}
	return all, nil
}

// listOne gives the entries of one folder.
func (s *Source) listOne(root *os.Root, parent *entry) ([]*entry, error) {
	dir, err := root.OpenRoot(filepath.FromSlash(parent.path))
	if err != nil {
		return nil, changed(parent.path, err)
	}
	defer dir.Close()
	info, err := dir.Lstat(rootPath)
	if err != nil {
		return nil, err
	}
	if stampFor(info) != parent.stamp { // or a link to another folder took its place
		return nil, &changedError{parent.path, "has changed"}
	}
	f, err := dir.Open(rootPath)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var found []*entry
	for {
		names, err := f.Readdirnames(namesAtOnce)
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		if found, err = s.listNames(dir, parent, names, found); err != nil {
			return nil, err
		}
		if int64(len(found)) > s.cfg.MaxFiles {
			return nil, s.tooMany()
		}
	}
}

// namesAtOnce is how many names of a folder are read before they are held against MaxFiles.
const namesAtOnce = 4096

func (s *Source) tooMany() error {
	return fmt.Errorf("%w: more than %d entries (MaxFiles)", abi.ErrTooLarge, s.cfg.MaxFiles)
}

// listNames adds the entries of some names of a folder.
func (s *Source) listNames(dir *os.Root, parent *entry, names []string, found []*entry) ([]*entry, error) {
	for _, name := range names {
		p := name
		if parent.path != rootPath {
			p = parent.path + "/" + name
		} else if name == insideWork {
			continue
		}
		if matches(s.cfg.Exclude, p) {
			continue
		}
		info, err := dir.Lstat(name)
		if err != nil {
			return nil, changed(p, err)
		}
		if len(s.cfg.Include) > 0 && !info.IsDir() && !matches(s.cfg.Include, p) {
			continue
		}
		if info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket|fs.ModeDevice|fs.ModeCharDevice|fs.ModeIrregular) != 0 {
			if s.cfg.SkipSpecial {
				continue
			}
			return nil, fmt.Errorf("%q is a %s, which no state can hold: exclude it, or set SkipSpecial", p, special(info.Mode()))
		}
		e, err := s.entryOf(info, p)
		if err != nil {
			return nil, err
		}
		if e.kind == link {
			if e.target, err = dir.Readlink(name); err != nil {
				return nil, changed(p, err)
			}
			e.target = filepath.ToSlash(e.target)
			if err := checkTarget(s.cfg.Root, p, e.target); err != nil && !s.cfg.OutsideLinks {
				return nil, fmt.Errorf("%q: %w", p, err)
			}
		}
		found = append(found, e)
	}
	return found, nil
}

// entryOf is what listing tells of an entry.
func (s *Source) entryOf(info fs.FileInfo, p string) (*entry, error) {
	e := &entry{path: p, mode: permissions(info), mtime: info.ModTime().UnixNano(), stamp: stampFor(info)}
	switch {
	case info.IsDir():
		e.kind = folder
	case info.Mode()&fs.ModeSymlink != 0:
		e.kind, e.mode = link, 0
	default:
		e.kind, e.size = file, info.Size()
	}
	if s.owners {
		e.owner = &owner{e.stamp.uid, e.stamp.gid}
	}
	switch {
	case int64(len(p)) > s.cfg.MaxPath:
		return nil, fmt.Errorf("%w: %.200q… has a path of %d bytes, the limit is %d (MaxPath)", abi.ErrTooLarge, p, len(p), s.cfg.MaxPath)
	case !inTime(info):
		return nil, fmt.Errorf("%q was changed in the year %d, which no state can say: give it another time", p, info.ModTime().Year())
	case e.kind == file && e.mode&0o6000 != 0 && !s.cfg.SetID:
		return nil, fmt.Errorf("%q runs with the rights of its owner or group: take them away, or set SetID", p)
	}
	return e, nil
}

func special(m fs.FileMode) string {
	switch {
	case m&fs.ModeNamedPipe != 0:
		return "pipe"
	case m&fs.ModeSocket != 0:
		return "socket"
	}
	return "device"
}

// differ names the first entry that two lists do not have in common.
func differ(before, now []*entry) error {
	for i := range max(len(before), len(now)) {
		switch {
		case i >= len(now):
			return &changedError{before[i].path, "is gone"}
		case i >= len(before):
			return &changedError{now[i].path, "is new"}
		}
		b, n := before[i], now[i]
		if c := comparePaths(b.path, n.path); c < 0 {
			return &changedError{b.path, "is gone"}
		} else if c > 0 {
			return &changedError{n.path, "is new"}
		}
		if b.stamp != n.stamp || b.kind != n.kind || b.target != n.target {
			return &changedError{b.path, "has changed"}
		}
	}
	return nil
}
