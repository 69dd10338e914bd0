package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// What stands in a native state; modules/files/README.md describes it.
const (
	headerName    = "torpor-files"
	headerVersion = 1
	rootPath      = "."

	// minHole is the shortest hole of a file that is kept; shorter ones are zeros.
	minHole = 64 << 10
	// maxRuns is how many runs of data a file with holes may have; what comes after is one.
	maxRuns = 1000
)

// kind is the kind of an entry, as it is written.
type kind string

const (
	file     kind = "file"
	folder   kind = "folder"
	link     kind = "link"
	hardlink kind = "hardlink"
)

// entry is one name in the folder.
type entry struct {
	path   string
	kind   kind
	mode   uint32 // permission bits with setuid, setgid and sticky
	mtime  int64  // nanoseconds since 1970
	owner  *owner // nil if it is not kept
	size   int64  // of a file
	runs   []run  // of a file with holes; nil: it is one run
	target string // of a link
	xattrs []xattr

	stamp stamp
	body  body // where a file's content is
}

type owner struct{ uid, gid uint32 }

// run is some bytes of a file that are no hole.
type run struct{ at, size int64 }

// xattr is an extended attribute.
type xattr struct{ name, value string }

// data is the runs of a file.
func (e *entry) data() []run {
	if e.runs == nil && e.size > 0 {
		return []run{{0, e.size}}
	}
	return e.runs
}

// content is how many bytes of it are no hole.
func (e *entry) content() int64 {
	var n int64
	for _, r := range e.data() {
		n += r.size
	}
	return n
}

// stamp is what changes when an entry changes.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime int64
	mode         uint32 // as the system has it, type and all
	uid, gid     uint32
	links        uint64
	sparse       bool
}

// stampFor is that of a file or folder. The size of a folder means nothing, and some systems change it on
// their own.
func stampFor(info fs.FileInfo) stamp {
	s := stampOf(info)
	if info.IsDir() {
		s.size, s.sparse = 0, false
	}
	return s
}

// inode finds what was captured of a file before, whatever it was called then.
type inode struct{ dev, ino uint64 }

func (s stamp) inode() inode { return inode{s.dev, s.ino} }

// checkPath refuses what is no path below the folder, as it is written.
func checkPath(p string) error {
	if p == rootPath {
		return nil
	}
	if strings.ContainsRune(p, 0) {
		return errors.New("a path with a zero byte")
	}
	for name := range strings.SplitSeq(p, "/") {
		switch name {
		case "":
			return errors.New("a path that is absolute, empty, or has an empty name in it")
		case ".", "..":
			return errors.New(`a path with "." or ".." in it`)
		}
	}
	return nil
}

// comparePaths compares names one by one from the first folder down, as bytes: what is in a folder comes
// right behind it.
func comparePaths(a, b string) int {
	for i := range min(len(a), len(b)) {
		if x, y := a[i], b[i]; x != y {
			switch {
			case x == '/':
				return -1
			case y == '/':
				return 1
			}
			return int(x) - int(y)
		}
	}
	return len(a) - len(b)
}

// checkTarget refuses a symbolic link that points out of the folder. It is told from the names alone; where those
// may mislead, checkDetours looks.
func checkTarget(root, p, target string) error {
	rest := target
	depth := strings.Count(p, "/")
	if strings.HasPrefix(target, "/") {
		if target != root && !strings.HasPrefix(target, root+"/") {
			return fmt.Errorf("the link points to %q, out of the folder: what is there is not part of the state (OutsideLinks keeps such links)", target)
		}
		rest, depth = target[len(root):], 0
	}
	for name := range strings.SplitSeq(rest, "/") {
		switch name {
		case "", ".":
		case "..":
			depth--
		default:
			depth++
		}
		if depth < 0 {
			return fmt.Errorf("the link points to %q, out of the folder: what is there is not part of the state (OutsideLinks keeps such links)", target)
		}
	}
	return nil
}

// detour tells whether a link's target has ".." behind a name. If that is another link, it leads back from where
// that points, not from where it lies.
func detour(target string) bool {
	named := false
	for name := range strings.SplitSeq(target, "/") {
		switch name {
		case "", ".":
		case "..":
			if named {
				return true
			}
		default:
			named = true
		}
	}
	return false
}

// checkDetours refuses links whose detours lead through other links: where they end can not be told from their names.
func (s *Source) checkDetours(root *os.Root, links []*entry) error {
	if s.cfg.OutsideLinks {
		return nil
	}
	for _, e := range links {
		var at []string // the folder that is looked at, from the root
		target := e.target
		if rest, ok := strings.CutPrefix(target, s.cfg.Root+"/"); ok {
			target = rest
		} else {
			at = strings.Split(e.path, "/")
			at = at[:len(at)-1]
		}
		names := strings.Split(target, "/")
		last := len(names) - 1
		for names[last] != ".." {
			last--
		}
		for _, name := range names[:last+1] {
			switch name {
			case "", ".":
			case "..":
				at = at[:max(len(at)-1, 0)] // checkTarget has seen that there is one
			default:
				at = append(slices.Clone(at), name)
				info, err := root.Lstat(filepath.FromSlash(strings.Join(at, "/")))
				if err == nil && info.Mode()&fs.ModeSymlink != 0 {
					return fmt.Errorf("%q: the link points to %q, back from where another link leads, which may be out of the folder (OutsideLinks keeps such links)", e.path, e.target)
				}
			}
		}
	}
	return nil
}
