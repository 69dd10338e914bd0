package files

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

const (
	// bigFile has a file in the spool of its own; smaller ones share one for each capture.
	bigFile = 1 << 20
	// maxPacks is how many shared files there may be before small ones are put together.
	maxPacks  = 64
	copyBytes = 256 << 10
)

// spool is the folder for copies of what was captured. Its files never change once a capture is made, and are
// removed when no tree needs them.
type spool struct {
	dir string

	mu   sync.Mutex
	next int
}

// pack is a file in the spool.
type pack struct {
	spool *spool
	path  string
	size  int64
	trees int // how many need it, guarded by spool.mu
}

// body is the content of a file in the spool: its runs one behind the other, or where they were if it is a
// clone.
type body struct {
	pack  *pack
	at    int64
	clone bool
}

// where is the place in the pack of a run, before which there are so many bytes of content.
func (b body) where(r run, before int64) int64 {
	if b.clone {
		return r.at
	}
	return b.at + before
}

// openSpool empties a folder and makes it the spool.
func openSpool(dir string) (*spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range left {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return nil, err
		}
	}
	return &spool{dir: dir}, nil
}

// create makes a pack, needed by one tree: the one that is being made.
func (s *spool) create() (*pack, *os.File, error) {
	s.mu.Lock()
	s.next++
	path := filepath.Join(s.dir, strconv.Itoa(s.next))
	s.mu.Unlock()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, nil, err
	}
	return &pack{spool: s, path: path}, f, nil
}

// tree is the folder at one moment.
type tree struct {
	entries []*entry
	packs   map[*pack]int64 // with how many bytes of each it needs
	refs    int             // who holds it, guarded by spool.mu
}

// hold counts one more who needs the tree.
func (s *spool) hold(t *tree) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.refs++; t.refs == 1 {
		for p := range t.packs {
			p.trees++
		}
	}
}

// drop counts one less, and removes what nobody needs.
func (s *spool) drop(t *tree) error {
	if t == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.refs--; t.refs > 0 {
		return nil
	}
	var errs []error
	for p := range t.packs {
		if p.trees--; p.trees == 0 {
			errs = append(errs, os.Remove(p.path))
		}
	}
	return errors.Join(errs...)
}

// filler puts the content of a tree into the spool.
type filler struct {
	s      *Source
	shared *pack
	out    *os.File
	tree   *tree
	made   []*pack
	buf    []byte
}

// abandon removes what was put there for a tree that is not to be.
func (f *filler) abandon() {
	if f.out != nil {
		_ = f.out.Close()
	}
	for _, p := range f.made {
		_ = os.Remove(p.path)
	}
}

// finish closes the shared pack.
func (f *filler) finish() error {
	if f.out == nil {
		return nil
	}
	out := f.out
	f.out = nil
	return out.Close()
}

// share is the pack of small files.
func (f *filler) share() (*pack, *os.File, error) {
	if f.shared == nil {
		p, out, err := f.s.spool.create()
		if err != nil {
			return nil, nil, err
		}
		f.shared, f.out = p, out
		f.made = append(f.made, p)
	}
	return f.shared, f.out, nil
}

// need notes that the tree needs the content of an entry.
func (f *filler) need(e *entry) {
	if e.body.pack != nil {
		f.tree.packs[e.body.pack] += e.content()
	}
}

// put copies the content of a file, of which runs and size are known.
func (f *filler) put(e *entry, in *os.File) error {
	if e.content() == 0 {
		return nil
	}
	if e.size >= bigFile {
		p, out, err := f.s.spool.create()
		if err != nil {
			return err
		}
		f.made = append(f.made, p)
		e.body = body{pack: p, clone: clone(out, in)}
		if !e.body.clone {
			err = f.copy(e, p, out, in)
		}
		return errors.Join(err, out.Close())
	}
	p, out, err := f.share()
	if err != nil {
		return err
	}
	e.body = body{pack: p, at: p.size}
	return f.copy(e, p, out, in)
}

// copy adds the runs of a file to a pack.
func (f *filler) copy(e *entry, p *pack, out *os.File, in io.ReaderAt) error {
	for _, r := range e.data() {
		// A section's reader keeps the copy from being handed to the system, which would follow a file that grows.
		n, err := io.CopyBuffer(struct{ io.Writer }{out}, io.NewSectionReader(in, r.at, r.size), f.buf)
		p.size += n
		if err != nil {
			return err
		}
		if n != r.size {
			return &changedError{e.path, "became shorter while it was read"}
		}
	}
	return nil
}

// compact puts the small files of packs that are mostly waste, or too many, into the shared pack, so that the
// spool stays below twice what it holds.
func (f *filler) compact() error {
	waste := map[*pack]bool{}
	for p, live := range f.tree.packs {
		if p != f.shared && p.size > 0 && (live*2 < p.size || len(f.tree.packs) > maxPacks && p.size < bigFile) {
			waste[p] = true
		}
	}
	if len(waste) == 0 {
		return nil
	}
	var in *os.File
	var open *pack
	defer func() {
		if in != nil {
			_ = in.Close()
		}
	}()
	for _, e := range f.tree.entries {
		from := e.body.pack
		if from == nil || !waste[from] || e.body.clone {
			continue
		}
		if open != from {
			if in != nil {
				_ = in.Close()
			}
			var err error
			if in, err = os.Open(from.path); err != nil {
				return err
			}
			open = from
		}
		p, out, err := f.share()
		if err != nil {
			return err
		}
		at := p.size
		n, err := io.CopyBuffer(struct{ io.Writer }{out}, io.NewSectionReader(in, e.body.at, e.content()), f.buf)
		p.size += n
		if err != nil || n != e.content() {
			return fmt.Errorf("the spool's copy of %q is damaged: %w", e.path, errors.Join(err, io.ErrUnexpectedEOF))
		}
		f.tree.packs[from] -= n
		if f.tree.packs[from] == 0 {
			delete(f.tree.packs, from)
		}
		e.body = body{pack: p, at: at}
		f.tree.packs[p] += n
	}
	return nil
}
