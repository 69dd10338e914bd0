package statedir

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"syscall"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// Defaults of [Compaction].
const (
	DefaultDeltaBytes   = 64 << 20  // bytes appended to a full save
	DefaultDeltaCount   = 1000      // deltas on a full save
	DefaultDeltaChanges = 128 << 10 // records and tombstones in them

	// minDeltaBytes may always be appended, however small the full save is.
	minDeltaBytes = 1 << 20
)

// Compaction bounds what may be appended to a full save. What is appended is, sooner or later, dead: it
// replaces records that are still there, and is replaced itself. All of it is read at every load. When a
// bound is reached the next save must be full, which leaves what is dead behind. A bound of 0 is its
// default.
type Compaction struct {
	// Bytes bounds what is appended to a file, together with half of its full save: of the two the smaller
	// counts, but 1 MiB may be appended always where Bytes allows it.
	Bytes int64
	// Deltas is how many deltas a file may have; never more than statefile.MaxDeltas.
	Deltas int
	// Changes is how many records and tombstones its deltas may have before another one begins. Loading
	// keeps a few bytes of each in memory. Never more than statefile.MaxChanges.
	Changes uint64
}

func (c Compaction) orDefault() Compaction {
	return Compaction{
		Bytes:   cmp.Or(c.Bytes, DefaultDeltaBytes),
		Deltas:  min(cmp.Or(c.Deltas, DefaultDeltaCount), statefile.MaxDeltas),
		Changes: min(cmp.Or(c.Changes, DefaultDeltaChanges), statefile.MaxChanges),
	}
}

// end is how long a file may become by appending.
func (c Compaction) end(t statefile.Tail) int64 {
	return t.Full() + min(c.Bytes, max(minDeltaBytes, t.Full()/2))
}

// ErrDeltaTooLarge says that a delta would append more than [Compaction] allows. The save is to be aborted
// and begun anew in full.
var ErrDeltaTooLarge = errors.New("the delta is too large: save in full")

// addition is a delta while it is appended to <part>.state.
type addition struct {
	file vfs.File
	tail statefile.Tail // of the file before
	most int64          // how long the file may become
	size int64          // bytes appended
	err  error          // of the first write that failed
	// doubt: the disk has failed, so that nothing is known about what it holds.
	doubt bool
}

// BeginDelta begins the next generation of a part as a delta: what is written to p, by a
// statefile.NewDeltaWriter on p.Tail, is appended to the file of generation base, to which it says the
// difference. At most one save can be pending at a time.
//
// ok is false, without an error, if the next save must be full: base is not the newest generation in
// <part>.state, a bound of [Compaction] is reached, by is not the serializer the file was written by, or
// the last append failed, otherwise than for want of room. Errors are as of [Dir.Begin].
func (d *Dir) BeginDelta(service, part string, base uint64, by statefile.Serializer) (p *Pending, ok bool, err error) {
	id := PartID{service, part}
	pt, leave, err := d.part(id)
	if err != nil {
		return nil, false, err
	}
	defer leave()
	generation, err := d.next(id, pt)
	if err != nil {
		return nil, false, fmt.Errorf("save %v: %w", id, err)
	}
	t := pt.tail
	switch {
	case pt.current == 0 || pt.current != base || pt.full,
		t.Header().Serializer != by,
		t.Deltas() >= d.most.Deltas, t.Changes() >= d.most.Changes, t.Size() >= d.most.end(t):
		return nil, false, nil
	}
	// What is appended has the file's name, which must be durable by then.
	if d.settleFolder(id, pt); !pt.synced {
		return nil, false, nil
	}
	file, err := d.fs.OpenFile(path.Join(id.folder(), stateFile{part: id.Part, kind: newest}.name()), vfs.Append)
	if err != nil {
		return nil, false, fmt.Errorf("save %v: %w", id, err)
	}
	size, err := file.Size()
	if err != nil || size != t.Size() {
		if err == nil {
			pt.forget() // someone else has changed the file
		} else {
			err = fmt.Errorf("save %v: %w", id, err)
		}
		return nil, false, errors.Join(err, file.Close())
	}
	pt.saving, pt.appending, pt.limit = true, true, t.Size()
	return &Pending{d: d, id: id, p: pt, generation: generation,
		addition: &addition{file: file, tail: t, most: d.most.end(t)}}, true, nil
}

// Tail is what a delta is appended to, for statefile.NewDeltaWriter; the zero value if the save is full.
func (p *Pending) Tail() statefile.Tail {
	if p.addition == nil {
		return statefile.Tail{}
	}
	return p.addition.tail
}

// Write appends. After an error the delta can only be aborted.
func (a *addition) Write(b []byte) (int, error) {
	if a.err != nil {
		return 0, a.err
	}
	if end := a.tail.Size() + a.size + int64(len(b)); end > a.most {
		a.err = fmt.Errorf("%w (the file would have %d bytes, of which %d are its full save; the bound is %d)",
			ErrDeltaTooLarge, end, a.tail.Full(), a.most)
		return 0, a.err
	}
	n, err := a.file.Write(b)
	a.size += int64(n)
	a.err = err
	a.doubt = err != nil && !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT)
	return n, err
}

// commitDelta makes what was appended the newest generation.
func (p *Pending) commitDelta() error {
	a := p.addition
	next, err := p.checkDelta()
	if err == nil {
		err = a.file.Sync()
	}
	if err != nil {
		a.doubt = a.doubt || a.err == nil // what was written is not there, or may not be
		p.takeBack()
		return err
	}
	if err := a.close(); err != nil { // all of it is on disk already
		p.d.log.Warn("closing a state file failed", "service", p.id.Service, "part", p.id.Part, "error", err)
	}
	p.p.know(next)
	p.p.high, p.p.limit, p.p.appending = p.generation, 0, false
	return nil
}

// checkDelta reads what was appended, all of it, and returns the tail after it.
func (p *Pending) checkDelta() (statefile.Tail, error) {
	a := p.addition
	if a.err != nil {
		return statefile.Tail{}, a.err
	}
	if _, err := p.d.settle(p.id, p.p); err != nil {
		return statefile.Tail{}, err
	}
	if base := a.tail.Header().Generation; p.p.current != base {
		return statefile.Tail{}, fmt.Errorf("generation %d, which it changes, is not the newest any more: it was set aside or replaced meanwhile", base)
	}
	if err := p.numberIsFree(); err != nil {
		return statefile.Tail{}, err
	}
	size, err := a.file.Size()
	if err != nil {
		return statefile.Tail{}, err
	}
	file := vfs.Path(p.d.fs, path.Join(p.id.folder(), stateFile{part: p.id.Part, kind: newest}.name()))
	if size != a.tail.Size()+a.size {
		return statefile.Tail{}, &statefile.FileError{File: file, Offset: size, Err: abi.ErrCorrupt,
			Reason: fmt.Sprintf("%d bytes were appended at %d: is anything else writing there?", a.size, a.tail.Size())}
	}
	next, err := a.tail.Next(context.Background(), a.file, size, file)
	if err == nil {
		err = claims(next.Header(), file, p.id, p.generation)
	}
	if err != nil {
		return statefile.Tail{}, fmt.Errorf("what was appended is not a whole delta: %w", err)
	}
	return next, nil
}

// takeBack cuts off what was appended, durably. If that fails, it is not known what the disk holds behind
// the old end: nobody reads there any more, the number counts as given, and the cut is tried again before
// the next save. Then, and where the disk has failed otherwise than by being full, the next save is a full
// one, to another file.
func (p *Pending) takeBack() {
	a, pt := p.addition, p.p
	pt.appending = false
	var err error
	if a.size > 0 || a.err != nil {
		err = cutFile(a.file, a.tail.Size())
		pt.full = pt.full || a.doubt || err != nil
	}
	if cerr := a.close(); cerr != nil {
		p.d.log.Warn("closing a state file failed", "service", p.id.Service, "part", p.id.Part, "error", cerr)
	}
	if err == nil {
		pt.limit = 0
		return
	}
	pt.high = max(pt.high, p.generation)
	pt.forget()
	p.d.log.Warn("what was appended in vain could not be cut off; it is not read, and the next save tries again",
		"service", p.id.Service, "part", p.id.Part, "generation", p.generation, "error", err)
}

// cutFile cuts a file, durably.
func cutFile(f vfs.File, end int64) error {
	if err := vfs.Truncate(f, end); err != nil {
		return err
	}
	return f.Sync()
}

// cutName is cutFile for a file that is not open.
func (d *Dir) cutName(name string, end int64) error {
	f, err := d.fs.OpenFile(name, vfs.Append)
	if err != nil {
		return err
	}
	return errors.Join(cutFile(f, end), f.Close())
}

// cutLimit cuts off what an append has left that could not be taken back at once.
func (d *Dir) cutLimit(id PartID, p *part) error {
	if p.limit == 0 || p.appending {
		return nil
	}
	name := path.Join(id.folder(), stateFile{part: id.Part, kind: newest}.name())
	if err := d.cutName(name, p.limit); err != nil && !errors.Is(err, fs.ErrInvalid) { // shorter: it is another file
		return fmt.Errorf("what was appended in vain can not be cut off: %w", err)
	}
	p.limit = 0
	return nil
}

// close closes the file once.
func (a *addition) close() error {
	if a.file == nil {
		return nil
	}
	f := a.file
	a.file = nil
	return f.Close()
}
