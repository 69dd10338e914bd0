package files

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime"
)

// Capture fixes the folder as it is at one moment: every file was as it is captured between the end of the
// first listing and the beginning of the second. What was captured before and has the same inode, size and
// times is not read again. A folder that does not stay the same for long enough is refused, naming what
// changed; that error can be tried again. Other errors name the entry that no state can hold, or wrap
// abi.ErrTooLarge, or are ctx's.
func (s *Source) Capture(ctx context.Context) (runtime.Capture, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	var t *tree
	for try := 1; ; try++ {
		var err error
		if t, err = s.snapshot(ctx); err == nil {
			break
		}
		var moved *changedError
		if !errors.As(err, &moved) {
			return nil, fmt.Errorf("files: %s: %w", s.cfg.Root, err)
		}
		if try == s.cfg.Tries {
			return nil, fmt.Errorf("files: %s changes while it is captured: %q %s, the last of %d times: let the service rest, or exclude what is not state", s.cfg.Root, moved.path, moved.how, try)
		}
		if err := wait(ctx, s.cfg.Settle); err != nil {
			return nil, err
		}
	}
	s.spool.hold(t)
	s.spool.hold(t) // once for the capture, once for the next to compare with
	before := s.last
	s.last = t
	if err := s.spool.drop(before); err != nil {
		return nil, fmt.Errorf("files: the spool: %w", errors.Join(err, s.spool.drop(t)))
	}
	return &capture{s: s, tree: t}, nil
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

// snapshot lists, reads what has changed, and lists again.
func (s *Source) snapshot(ctx context.Context) (_ *tree, err error) {
	root, err := os.OpenRoot(s.cfg.Root)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	entries, err := s.list(ctx, root)
	if err != nil {
		return nil, err
	}
	var detours []*entry
	for _, e := range entries {
		if e.kind == link && detour(e.target) {
			detours = append(detours, e)
		}
	}
	if err := s.checkDetours(root, detours); err != nil {
		return nil, err
	}
	had := map[inode]*entry{}
	if s.last != nil {
		for _, e := range s.last.entries {
			if e.stamp.ino != 0 && (e.kind == file || e.kind == folder) {
				had[e.stamp.inode()] = e
			}
		}
	}
	f := &filler{s: s, tree: &tree{entries: entries, packs: map[*pack]int64{}}, buf: make([]byte, copyBytes)}
	defer func() {
		if err != nil {
			f.abandon()
		}
	}()
	var stale []*entry
	var newest, total int64
	for _, e := range entries {
		switch old := had[e.stamp.inode()]; {
		case e.kind != file && e.kind != folder:
		case e.stamp.ino != 0 && old != nil && old.kind == e.kind && old.stamp == e.stamp:
			e.xattrs, e.runs, e.body = old.xattrs, old.runs, old.body
		default:
			stale = append(stale, e)
			newest = max(newest, e.stamp.ctime, e.stamp.mtime)
		}
	}
	// What is read must be older than a step of the clock: then whatever is written from here on shows.
	if left := s.cfg.Settle - time.Since(time.Unix(0, newest)); len(stale) > 0 && left > 0 {
		if err := wait(ctx, min(left, s.cfg.Settle)); err != nil {
			return nil, err
		}
	}
	parent := &parentRoot{root: root}
	defer parent.close()
	for _, e := range stale {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := s.read(parent, e, f); err != nil {
			return nil, err
		}
	}
	for _, e := range entries {
		f.need(e)
		if total += e.content(); e.kind == file && total > s.cfg.MaxBytes {
			return nil, fmt.Errorf("%w: more than %d bytes of content (MaxBytes)", abi.ErrTooLarge, s.cfg.MaxBytes)
		}
	}
	if err := f.compact(); err != nil {
		return nil, err
	}
	if err := f.finish(); err != nil {
		return nil, err
	}
	again, err := s.list(ctx, root)
	if err != nil {
		return nil, err
	}
	if now, err := os.Lstat(s.cfg.Root); err != nil || entries[0].stamp.ino != stampFor(now).ino {
		return nil, &changedError{rootPath, "is another folder now"}
	}
	if err := differ(entries, again); err != nil {
		return nil, err
	}
	return f.tree, nil
}

// parentRoot keeps the folder open in which entries come one after another.
type parentRoot struct {
	root *os.Root
	path string
	dir  *os.Root
	file *os.File // the same folder as a file, if at was called
}

// at opens the folder that of gave last as a file.
func (p *parentRoot) at(dir *os.Root) (*os.File, error) {
	if p.file == nil {
		var err error
		if p.file, err = dir.Open(rootPath); err != nil {
			return nil, err
		}
	}
	return p.file, nil
}

func (p *parentRoot) close() {
	if p.file != nil {
		_ = p.file.Close()
		p.file = nil
	}
	if p.dir != nil {
		_ = p.dir.Close()
		p.dir = nil
	}
}

// of opens the folder that an entry lies in, and gives the entry's name there.
func (p *parentRoot) of(path string) (*os.Root, string, error) {
	slash := len(path) - 1
	for slash >= 0 && path[slash] != '/' {
		slash--
	}
	if slash < 0 {
		if p.path != "" {
			p.close()
			p.path = ""
		}
		return p.root, path, nil
	}
	if p.dir == nil || p.path != path[:slash] {
		p.close()
		dir, err := p.root.OpenRoot(filepath.FromSlash(path[:slash]))
		if err != nil {
			return nil, "", err
		}
		p.dir, p.path = dir, path[:slash]
	}
	return p.dir, path[slash+1:], nil
}

// read takes what listing does not tell: extended attributes, holes, content.
func (s *Source) read(parent *parentRoot, e *entry, f *filler) (err error) {
	dir, name, err := parent.of(e.path)
	if err != nil {
		return changed(e.path, err)
	}
	in, err := dir.OpenFile(name, openFlags, 0)
	if err != nil {
		if info, serr := dir.Lstat(name); serr != nil || stampFor(info).inode() != e.stamp.inode() {
			return &changedError{e.path, "has changed"}
		}
		return err
	}
	defer in.Close()
	s.reads++
	same := func() error {
		info, err := in.Stat()
		if err != nil {
			return err
		}
		if stampFor(info) != e.stamp {
			return &changedError{e.path, "has changed while it was read"}
		}
		return nil
	}
	// What fails because the file has changed is tried again.
	defer func() {
		var moved *changedError
		if err == nil || errors.As(err, &moved) {
			return
		}
		if serr := same(); errors.As(serr, &moved) {
			err = serr
		}
	}()
	if e.kind == file {
		protectPages(in)
	}
	if err := same(); err != nil {
		return err
	}
	if e.xattrs, err = xattrsOf(in); err != nil {
		return fmt.Errorf("extended attributes of %q: %w", e.path, err)
	}
	var size int64
	for _, x := range e.xattrs {
		size += int64(len(x.name) + len(x.value))
	}
	if size > s.cfg.MaxXattrBytes {
		return fmt.Errorf("%w: %q has %d bytes of extended attributes, the limit is %d (MaxXattrBytes)", abi.ErrTooLarge, e.path, size, s.cfg.MaxXattrBytes)
	}
	if e.kind != file {
		return same()
	}
	if e.runs, err = runsOf(in, e); err != nil {
		return fmt.Errorf("holes of %q: %w", e.path, err)
	}
	if err := f.put(e, in); err != nil {
		return err
	}
	return same()
}

// runsOf finds the data of a file that takes less room than its size; nil if it has no hole worth keeping.
func runsOf(f *os.File, e *entry) ([]run, error) {
	if !e.stamp.sparse || e.size < minHole {
		return nil, nil
	}
	runs := []run{}
	var end int64
	for end < e.size {
		next, ok, err := nextRun(f, end)
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		next.size = min(next.size, e.size-next.at)
		last := len(runs) - 1
		switch {
		case next.size <= 0:
			return nil, &changedError{e.path, "became shorter while it was read"}
		case last < 0 && next.at < minHole:
			runs = append(runs, run{0, next.at + next.size})
		case last >= 0 && next.at-end < minHole:
			runs[last].size = next.at + next.size - runs[last].at
		case len(runs) == maxRuns:
			runs[last].size = e.size - runs[last].at
			return runs, nil
		default:
			runs = append(runs, next)
		}
		end = next.at + next.size
	}
	if last := len(runs) - 1; last >= 0 && e.size-end < minHole {
		runs[last].size = e.size - runs[last].at
	}
	if len(runs) == 1 && runs[0].size == e.size {
		return nil, nil
	}
	return runs, nil
}

// capture is the folder at one moment.
type capture struct {
	s    *Source
	tree *tree
}

// Close gives the copies back that nothing else needs.
func (c *capture) Close() error {
	t := c.tree
	c.tree = nil
	return c.s.spool.drop(t)
}

// WriteNative writes the folder as entries, sorted by path.
func (c *capture) WriteNative(ctx context.Context, w io.Writer) error {
	if c.tree == nil {
		return errors.New("files: the capture is closed")
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	out := bufio.NewWriterSize(w, 64<<10)
	b := record.AppendArray(nil, 2)
	b = record.AppendText(b, headerName)
	b = record.AppendUint(b, headerVersion)
	buf := make([]byte, copyBytes)
	var in *os.File
	var open *pack
	defer func() {
		if in != nil {
			_ = in.Close()
		}
	}()
	for _, e := range c.tree.entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		b = e.append(b)
		if _, err := out.Write(b); err != nil {
			return err
		}
		b = b[:0]
		if e.body.pack != nil && e.body.pack != open {
			if in != nil {
				_ = in.Close()
			}
			var err error
			if in, err = os.Open(e.body.pack.path); err != nil {
				return fmt.Errorf("files: the spool's copy of %q cannot be read: %w", e.path, err)
			}
			open = e.body.pack
		}
		var before int64
		for _, r := range e.data() {
			if err := copyRun(ctx, out, in, e.body.where(r, before), r.size, buf); err != nil {
				var damage *spoiltError
				if errors.As(err, &damage) {
					return fmt.Errorf("files: the spool's copy of %q cannot be read: %w", e.path, damage.err)
				}
				return err
			}
			before += r.size
		}
	}
	if _, err := out.Write(record.AppendUint(nil, uint64(len(c.tree.entries)))); err != nil {
		return err
	}
	return out.Flush()
}

// spoiltError is an error of reading a pack, which is not one of writing.
type spoiltError struct{ err error }

func (e *spoiltError) Error() string { return e.err.Error() }

// copyRun writes size bytes of a pack, and looks at ctx on the way.
func copyRun(ctx context.Context, w io.Writer, r io.ReaderAt, at, size int64, buf []byte) error {
	for size > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := int(min(size, int64(len(buf))))
		got, err := r.ReadAt(buf[:n], at)
		if got < n {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return &spoiltError{err}
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		at, size = at+int64(n), size-int64(n)
	}
	return nil
}

// append adds an entry in its native form, up to its content.
func (e *entry) append(b []byte) []byte {
	items, pairs := 2, 1
	if e.kind == file {
		items, pairs = 3, 2 // type and size
	}
	if e.kind == folder || e.kind == file {
		pairs++ // mode
	}
	if e.kind != hardlink {
		pairs++ // mtime
		if e.owner != nil {
			pairs += 2
		}
	}
	if e.kind == link || e.kind == hardlink {
		pairs++ // target
	}
	if e.kind == file && e.runs != nil {
		pairs++
	}
	if len(e.xattrs) > 0 && e.kind != hardlink && e.kind != link {
		pairs++
	}
	b = record.AppendArray(b, items)
	b = appendName(b, e.path)
	b = record.AppendMap(b, pairs)
	b = record.AppendText(b, "type")
	b = record.AppendText(b, string(e.kind))
	if e.kind == hardlink {
		return appendName(record.AppendText(b, "target"), e.target)
	}
	if e.kind != link {
		b = record.AppendUint(record.AppendText(b, "mode"), uint64(e.mode))
	}
	b = record.AppendInt(record.AppendText(b, "mtime"), e.mtime)
	if e.owner != nil {
		b = record.AppendUint(record.AppendText(b, "uid"), uint64(e.owner.uid))
		b = record.AppendUint(record.AppendText(b, "gid"), uint64(e.owner.gid))
	}
	if e.kind == link {
		return appendName(record.AppendText(b, "target"), e.target)
	}
	if e.kind == file {
		b = record.AppendUint(record.AppendText(b, "size"), uint64(e.size))
		if e.runs != nil {
			b = record.AppendArray(record.AppendText(b, "data"), 2*len(e.runs))
			var end int64
			for _, r := range e.runs {
				b = record.AppendUint(b, uint64(r.at-end))
				b = record.AppendUint(b, uint64(r.size))
				end = r.at + r.size
			}
		}
	}
	if len(e.xattrs) > 0 {
		b = record.AppendMap(record.AppendText(b, "xattrs"), len(e.xattrs))
		for _, x := range e.xattrs {
			b = record.AppendBytes(record.AppendText(b, x.name), x.value)
		}
	}
	if e.kind == file {
		b = record.AppendBytesHead(b, int(e.content()))
	}
	return b
}
