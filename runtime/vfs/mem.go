package vfs

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"sync"
	"syscall"
)

// memPage is the unit in which Mem keeps or loses unsynced bytes: a disk sector rather than the
// kernel's page of 4 KiB, so that small files can be torn too.
const memPage = 512

// Mem is a file system in memory that remembers what of it is durable. It implements [FS] and
// [Locker]; locks of one Mem exclude each other. Nothing but a Sync makes anything durable.
type Mem struct {
	mu    sync.Mutex
	root  *memNode
	locks map[string]*memLock
}

// memNode is a file or a folder: as programs see it and as the disk has it.
type memNode struct {
	folder bool

	// A file. A page in dirty differs between data and disk as far as the system knows. A page that
	// does differ and is not in dirty is one a failed sync has dropped; nothing will ever write it. cuts
	// are the truncations the disk may not know of, in order.
	data  []byte
	disk  []byte
	dirty map[int]bool
	cuts  []memCut

	// A folder. pending are the changes from durable to entries, in order.
	entries map[string]*memNode
	durable map[string]*memNode
	pending []memChange
}

// memCut is a truncation: to which length, and the file as it was before. It is never changed.
type memCut struct {
	size  int
	data  []byte
	dirty map[int]bool
}

// memChange is one change of a folder, which the disk has as a whole or not at all: names and what
// they then refer to, nil for nothing.
type memChange struct {
	names   []memName
	written bool // the disk has it, though others from before it may be missing
}

type memName struct {
	name string
	node *memNode
}

// NewMem returns an empty file system.
func NewMem() *Mem { return &Mem{root: newMemFolder(), locks: map[string]*memLock{}} }

func newMemFolder() *memNode {
	return &memNode{folder: true, entries: map[string]*memNode{}, durable: map[string]*memNode{}}
}

// Kill returns a copy of m as it is after the process has died, the system lives on: all that was
// written is there, locks are not, and what was not durable still is not.
func (m *Mem) Kill() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	copies := map[*memNode]*memNode{}
	return &Mem{root: m.root.copy(copies), locks: map[string]*memLock{}}
}

// PowerCut returns a copy of m as it is found after the power failed: what was synced is there; each
// change of a folder since its last sync, each unsynced page of a file, and the length of a file that
// has grown, is kept or lost as rng decides. So is a truncation: a file whose cut is lost is what a power
// cut before it would have left, but for the page the cut goes through, which may have been written since.
// What was appended behind a cut that is kept is, page by page, there, zeros, or what stood there before,
// since the disk may use again the place it was given back. All in the copy is durable. m itself is
// unchanged.
func (m *Mem) PowerCut(rng *rand.Rand) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	survivors := map[*memNode]*memNode{}
	return &Mem{root: m.root.survivor(rng, survivors), locks: map[string]*memLock{}}
}

// copy copies a tree; copies holds what has been copied, since a file can have two names on disk.
func (n *memNode) copy(copies map[*memNode]*memNode) *memNode {
	if n == nil {
		return nil
	}
	if c := copies[n]; c != nil {
		return c
	}
	c := &memNode{folder: n.folder, data: slices.Clone(n.data), disk: slices.Clone(n.disk),
		dirty: maps.Clone(n.dirty), cuts: slices.Clone(n.cuts)}
	copies[n] = c
	if !n.folder {
		return c
	}
	c.entries, c.durable = map[string]*memNode{}, map[string]*memNode{}
	for name, e := range n.entries {
		c.entries[name] = e.copy(copies)
	}
	for name, e := range n.durable {
		c.durable[name] = e.copy(copies)
	}
	for _, change := range n.pending {
		cc := memChange{written: change.written}
		for _, e := range change.names {
			cc.names = append(cc.names, memName{e.name, e.node.copy(copies)})
		}
		c.pending = append(c.pending, cc)
	}
	return c
}

func (n *memNode) survivor(rng *rand.Rand, survivors map[*memNode]*memNode) *memNode {
	if s := survivors[n]; s != nil {
		return s
	}
	if !n.folder {
		s := n.survivingFile(rng)
		survivors[n] = s
		return s
	}
	s := newMemFolder()
	survivors[n] = s
	left := maps.Clone(n.durable)
	for _, change := range n.pending {
		if change.written || rng.IntN(2) == 0 {
			change.apply(left)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(left)) {
		e := left[name].survivor(rng, survivors)
		s.entries[name], s.durable[name] = e, e
	}
	return s
}

func (n *memNode) survivingFile(rng *rand.Rand) *memNode {
	disk, old, lost := slices.Clone(n.disk), []byte(nil), false
	for _, c := range n.cuts {
		disk = survivingPages(rng, survivingLength(rng, disk, old, len(c.data)), c.data, c.dirty)
		if lost = rng.IntN(2) == 0; lost {
			break // nor is any length from after it there
		}
		old, disk = disk, slices.Clone(disk[:min(c.size, len(disk))])
	}
	if !lost {
		disk = survivingLength(rng, disk, old, len(n.data))
	}
	disk = survivingPages(rng, disk, n.data, n.dirty)
	return &memNode{data: disk, disk: slices.Clone(disk), dirty: map[int]bool{}}
}

// survivingLength gives a file that has grown to a length the old one, the new one, or one in between.
func survivingLength(rng *rand.Rand, disk, old []byte, to int) []byte {
	if from := len(disk); from < to {
		switch rng.IntN(3) {
		case 0: // the old length
		case 1:
			return regrow(rng, disk, old, to)
		case 2:
			return regrow(rng, disk, old, from+rng.IntN(to-from+1))
		}
	}
	return disk
}

// regrow is resize for a file that was once old: it may find its pages again.
func regrow(rng *rand.Rand, disk, old []byte, to int) []byte {
	from := len(disk)
	disk = resize(disk, to)
	for at := from; at < min(to, len(old)); at += memPage - at%memPage {
		if rng.IntN(2) == 0 {
			copy(disk[at:min(at-at%memPage+memPage, to)], old[at:])
		}
	}
	return disk
}

func survivingPages(rng *rand.Rand, disk, data []byte, dirty map[int]bool) []byte {
	for _, page := range slices.Sorted(maps.Keys(dirty)) {
		if rng.IntN(2) == 0 {
			copyPage(disk, data, page)
		}
	}
	return disk
}

func (c memChange) apply(entries map[string]*memNode) {
	for _, e := range c.names {
		if e.node == nil {
			delete(entries, e.name)
		} else {
			entries[e.name] = e.node
		}
	}
}

// resize returns b with n bytes, those added being zero.
func resize(b []byte, n int) []byte {
	if n <= len(b) {
		return b[:n]
	}
	return append(b, make([]byte, n-len(b))...)
}

// copyPage copies a page from src to dst, as far as dst has it. The system writes whole pages: behind the
// end of src that is zeros.
func copyPage(dst, src []byte, page int) {
	from := page * memPage
	if from < len(dst) && from < len(src) {
		to := dst[from:min(from+memPage, len(dst))]
		clear(to[copy(to, src[from:]):])
	}
}

// change changes the entries of a folder and leaves it to the next sync to make that durable.
func (n *memNode) change(names ...memName) {
	c := memChange{names: names}
	c.apply(n.entries)
	n.pending = append(n.pending, c)
}

// sync writes what the system knows to be unwritten.
func (n *memNode) sync() {
	for _, c := range n.pending {
		c.apply(n.durable)
	}
	n.pending = nil
	n.disk = resize(n.disk, len(n.data))
	for page := range n.dirty {
		copyPage(n.disk, n.data, page)
	}
	clear(n.dirty)
	n.cuts = nil
}

// truncate cuts a file. The rest of the page the cut goes through is zeros from now on, and the system
// writes it so.
func (n *memNode) truncate(size int) {
	n.cuts = append(n.cuts, memCut{size: size, data: n.data, dirty: maps.Clone(n.dirty)})
	n.data = slices.Clone(n.data[:size])
	maps.DeleteFunc(n.dirty, func(page int, _ bool) bool { return page*memPage >= size })
	if size%memPage != 0 {
		n.dirty[size/memPage] = true
	}
}

// failSync is a sync during which the disk failed. Of a file, rng decides for each page and for the
// length, truncations with it, whether it was written; all pages are clean afterwards, and those that
// were not written read as before or, once dropped from memory, as the disk has them. A length that was
// not written is, by the next sync (the journal keeps it): it is bytes that are lost. Of a folder, rng decides for each
// change whether it was written; all are written again by the next sync (the journal keeps them).
func (n *memNode) failSync(rng *rand.Rand) {
	for i := range n.pending {
		if rng.IntN(2) == 0 {
			n.pending[i].written = true
		}
	}
	if rng.IntN(2) == 0 {
		old := n.disk
		for _, c := range n.cuts {
			n.disk = slices.Clone(n.disk[:min(c.size, len(n.disk))])
		}
		if len(n.disk) < len(n.data) {
			n.disk = regrow(rng, n.disk, old, len(n.data))
		}
		n.cuts = nil
	}
	for _, page := range slices.Sorted(maps.Keys(n.dirty)) {
		switch rng.IntN(3) {
		case 0:
			copyPage(n.disk, n.data, page)
		case 1: // not written, still in memory
		case 2:
			copyPage(n.data, resize(slices.Clone(n.disk), len(n.data)), page)
		}
	}
	clear(n.dirty)
}

// find returns the folder a name stands in, its last element and what it refers to, nil for nothing.
func (m *Mem) find(op, name string) (folder *memNode, base string, node *memNode, err error) {
	if err := check(op, name); err != nil {
		return nil, "", nil, err
	}
	if name == "." {
		return nil, ".", m.root, nil
	}
	fail := func(err error) (*memNode, string, *memNode, error) {
		return nil, "", nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	dir, base := path.Split(name)
	if dir == "" {
		return m.root, base, m.root.entries[base], nil
	}
	_, _, folder, err = m.find(op, path.Clean(dir))
	switch {
	case err != nil:
		return nil, "", nil, err
	case folder == nil:
		return fail(fs.ErrNotExist)
	case !folder.folder:
		return fail(syscall.ENOTDIR)
	}
	return folder, base, folder.entries[base], nil
}

// OpenFile implements [FS].
func (m *Mem) OpenFile(name string, mode Mode) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	folder, base, node, err := m.find("open", name)
	switch {
	case err != nil:
		return nil, err
	case mode == Append && node != nil && node.folder:
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EISDIR}
	case mode == Create && node != nil:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrExist}
	case mode == Create:
		node = &memNode{dirty: map[int]bool{}}
		folder.change(memName{base, node})
	case node == nil:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &memFile{m: m, node: node, name: name, writable: mode != Read}, nil
}

// Rename implements [FS]. Between two folders the change is one of each of them: a power cut may leave
// both names, or none.
func (m *Mem) Rename(oldname, newname string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	from, oldbase, node, err := m.find("rename", oldname)
	if err != nil {
		return err
	}
	to, newbase, target, err := m.find("rename", newname)
	if err != nil {
		return err
	}
	fail := func(err error) error { return &fs.PathError{Op: "rename", Path: oldname, Err: err} }
	switch {
	case node == nil:
		return fail(fs.ErrNotExist)
	case from == nil || to == nil:
		return fail(syscall.EBUSY)
	case node.folder || target != nil && target.folder:
		return fail(syscall.EISDIR) // only files are ever renamed
	case from == to && oldbase == newbase:
	case from == to:
		from.change(memName{oldbase, nil}, memName{newbase, node})
	default:
		from.change(memName{oldbase, nil})
		to.change(memName{newbase, node})
	}
	return nil
}

// Remove implements [FS].
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	folder, base, node, err := m.find("remove", name)
	if err != nil {
		return err
	}
	fail := func(err error) error { return &fs.PathError{Op: "remove", Path: name, Err: err} }
	switch {
	case node == nil:
		return fail(fs.ErrNotExist)
	case folder == nil:
		return fail(syscall.EBUSY)
	case len(node.entries) > 0:
		return fail(syscall.ENOTEMPTY)
	}
	folder.change(memName{base, nil})
	return nil
}

// ReadDir implements [FS].
func (m *Mem) ReadDir(name string) ([]Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _, node, err := m.find("list", name)
	switch {
	case err != nil:
		return nil, err
	case node == nil:
		return nil, &fs.PathError{Op: "list", Path: name, Err: fs.ErrNotExist}
	case !node.folder:
		return nil, &fs.PathError{Op: "list", Path: name, Err: syscall.ENOTDIR}
	}
	entries := make([]Entry, 0, len(node.entries))
	for _, base := range slices.Sorted(maps.Keys(node.entries)) {
		e := Entry{Name: base}
		if node.entries[base].folder {
			e.Type = fs.ModeDir
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// Mkdir implements [FS].
func (m *Mem) Mkdir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	folder, base, node, err := m.find("mkdir", name)
	if err != nil {
		return err
	}
	if node != nil {
		return &fs.PathError{Op: "mkdir", Path: name, Err: fs.ErrExist}
	}
	folder.change(memName{base, newMemFolder()})
	return nil
}

// Lock implements [Locker].
func (m *Mem) Lock(name string, content []byte) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	folder, base, node, err := m.find("lock", name)
	if err != nil {
		return nil, err
	}
	if l := m.locks[name]; l != nil {
		return nil, &HeldError{Path: name, Content: slices.Clone(l.node.data)}
	}
	if node == nil {
		node = &memNode{}
		folder.change(memName{base, node})
	}
	if node.folder {
		return nil, &fs.PathError{Op: "lock", Path: name, Err: syscall.EISDIR}
	}
	node.write(content)
	l := &memLock{m: m, name: name, node: node}
	m.locks[name] = l
	return l, nil
}

// write replaces a file's bytes.
func (n *memNode) write(b []byte) {
	n.data = slices.Clone(b)
	n.disk = n.disk[:min(len(n.disk), len(b))]
	n.cuts = nil
	n.dirty = map[int]bool{}
	for page := range (len(b) + memPage - 1) / memPage {
		n.dirty[page] = true
	}
}

type memLock struct {
	m    *Mem
	name string
	node *memNode
}

func (l *memLock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.m.locks[l.name] != l {
		return &fs.PathError{Op: "unlock", Path: l.name, Err: fs.ErrClosed}
	}
	delete(l.m.locks, l.name)
	l.node.write(nil)
	return nil
}

type memFile struct {
	m        *Mem
	node     *memNode
	name     string
	writable bool
	closed   bool
}

// check returns why an operation can not be done on f, if it can not.
func (f *memFile) check(op string, bytes bool) error {
	var err error
	switch {
	case f.closed:
		err = fs.ErrClosed
	case bytes && f.node.folder:
		err = syscall.EISDIR
	default:
		return nil
	}
	return &fs.PathError{Op: op, Path: f.name, Err: err}
}

func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.check("read", true); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, &fs.PathError{Op: "read", Path: f.name, Err: errors.New("negative offset")}
	}
	if off >= int64(len(f.node.data)) {
		if len(b) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	n := copy(b, f.node.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) Write(b []byte) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.check("write", true); err != nil {
		return 0, err
	}
	if !f.writable {
		return 0, &fs.PathError{Op: "write", Path: f.name, Err: syscall.EBADF}
	}
	from := len(f.node.data)
	f.node.data = append(f.node.data, b...)
	for at := from - from%memPage; at < len(f.node.data); at += memPage {
		f.node.dirty[at/memPage] = true
	}
	return len(b), nil
}

// Truncate implements [Truncater].
func (f *memFile) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.check("truncate", true); err != nil {
		return err
	}
	if !f.writable {
		return &fs.PathError{Op: "truncate", Path: f.name, Err: syscall.EINVAL}
	}
	if err := shrinks(f.name, size, int64(len(f.node.data))); err != nil {
		return err
	}
	f.node.truncate(int(size))
	return nil
}

func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.check("sync", false); err != nil {
		return err
	}
	f.node.sync()
	return nil
}

func (f *memFile) failSync(rng *rand.Rand) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.node.failSync(rng)
}

func (f *memFile) Size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.check("size", true); err != nil {
		return 0, err
	}
	return int64(len(f.node.data)), nil
}

func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.check("close", false); err != nil {
		return err
	}
	f.closed = true
	return nil
}
