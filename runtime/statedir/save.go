package statedir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"slices"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// Pending is the next generation of a part while it is written, in full or as a delta. It is an io.Writer
// for a statefile.Writer, unbuffered. It is not safe for concurrent use. Either Commit or Abort must be
// called; Abort after Commit does nothing, so that it can be deferred.
type Pending struct {
	d          *Dir
	id         PartID
	p          *part
	draft      *draft    // of a full save
	addition   *addition // of a delta
	generation uint64
	done       bool
}

// errDone: a Pending was used after its end.
var errDone = errors.New("the save has been committed or aborted")

// Begin begins the next generation of a part, in full. At most one can be pending at a time.
//
// If the newest generation on disk is damaged it is moved aside or cut off first. If it is of a format this
// program does not know, or can not be read from the disk, and has not been read before, Begin fails
// with that error: what was never read must not be superseded.
func (d *Dir) Begin(service, part string) (*Pending, error) {
	id := PartID{service, part}
	p, leave, err := d.part(id)
	if err != nil {
		return nil, err
	}
	defer leave()
	generation, err := d.next(id, p)
	if err != nil {
		return nil, fmt.Errorf("save %v: %w", id, err)
	}
	if err := d.makeFolder(id.folder()); err != nil {
		return nil, fmt.Errorf("save %v: %w", id, err)
	}
	t, err := d.newDraft(id.folder(), stateFile{part: id.Part, kind: newest}.name())
	if err != nil {
		return nil, fmt.Errorf("save %v: %w", id, err)
	}
	p.saving = true
	return &Pending{d: d, id: id, p: p, draft: t, generation: generation}, nil
}

// next is the number of the next generation, for a save that can begin.
func (d *Dir) next(id PartID, p *part) (uint64, error) {
	if p.saving {
		return 0, errors.New("another save of it is under way")
	}
	if _, err := d.settle(id, p); err != nil {
		return 0, err
	}
	if p.high == math.MaxUint64 {
		return 0, fmt.Errorf("%w: generation %d is in %s, there is no number after it; move it out of the folder",
			abi.ErrTooLarge, p.high, vfs.Path(d.fs, id.folder()))
	}
	return p.high + 1, nil
}

// settle returns the files of a part and sees to it that <part>.state, if there is one, is whole to its
// end and durable and has a known number in p.current: only so it can be kept under that number, or be
// appended to.
func (d *Dir) settle(id PartID, p *part) ([]stateFile, error) {
	files, err := d.list(id)
	if err != nil {
		return nil, err
	}
	p.see(files)
	if len(files) == 0 || files[0].kind != newest || p.current != 0 {
		return files, nil
	}
	if err := d.cutLimit(id, p); err != nil {
		return nil, err
	}
	o, bad, err := d.read(id, p, files[0], true)
	if err != nil {
		return nil, err
	}
	if bad == nil {
		return files, errors.Join(d.settled(p, o), o.Close())
	}
	if o != nil {
		if err := o.Close(); err != nil {
			return nil, err
		}
	}
	q := d.setAside(id, p, *bad)
	switch {
	case q.MoveErr != nil && bad.cut != nil:
		return nil, fmt.Errorf("the end of the newest state file is damaged and can not be cut off: %w", errors.Join(q.MoveErr, bad.err))
	case q.MoveErr != nil:
		return nil, fmt.Errorf("the newest generation is damaged and can not be moved aside: %w", errors.Join(q.MoveErr, bad.err))
	case bad.cut == nil:
		files = files[1:]
	}
	return files, nil
}

// settled makes a newest file durable that was found whole, and takes note of it. An earlier process may
// have left it in the system's memory: what is handed out, built upon or kept must not vanish in a power
// cut. After a sync that failed another one proves nothing: the file is written anew.
func (d *Dir) settled(p *part, o *Opened) error {
	if p.current == o.Generation || p.limit != 0 {
		return nil
	}
	if p.doubt {
		if err := d.writeAnew(o); err != nil {
			return fmt.Errorf("%s could not be synced and can not be written anew: %w", o.Path, err)
		}
		p.doubt = false
	} else if err := o.handle.Sync(); err != nil {
		p.doubt = true
		return err
	}
	p.know(o.file.Tail())
	return nil
}

// writeAnew puts a copy of a newest file, checked whole, in its place.
func (d *Dir) writeAnew(o *Opened) error {
	t, err := d.newDraft(o.id.folder(), stateFile{part: o.id.Part, kind: newest}.name())
	if err != nil {
		return err
	}
	_, err = io.Copy(t, io.NewSectionReader(o.handle, 0, o.file.Info().Size))
	if err == nil {
		var f *statefile.File
		if f, err = statefile.Open(t.file, t.size, vfs.Path(d.fs, t.path(t.temp))); err == nil {
			err = f.Verify(context.Background())
		}
	}
	if err != nil {
		t.discard()
		return err
	}
	return t.publish("")
}

// Generation is the number of the generation, for its header.
func (p *Pending) Generation() uint64 { return p.generation }

// Write appends to the file. After an error the save can only be aborted. The error of a delta wraps
// ErrDeltaTooLarge if it would take more than [Compaction] allows; then a full save is to be made instead.
func (p *Pending) Write(b []byte) (int, error) {
	if p.done {
		return 0, fmt.Errorf("save %v: %w", p.id, errDone)
	}
	n, err := p.write(b)
	if err != nil {
		err = fmt.Errorf("save %v: %w", p.id, err)
	}
	return n, err
}

func (p *Pending) write(b []byte) (int, error) {
	if p.addition != nil {
		return p.addition.Write(b)
	}
	return p.draft.Write(b)
}

// Commit makes the generation the newest one, durably. What was written must be a whole state file of
// this service, part and generation, or a whole delta, which is read again to the last byte; anything else
// is refused. Older files beyond those to keep are removed, and modules that only they needed; if that
// fails, the log tells and the next commit tries again.
//
// After an error the generation does not count and its number may be given again; the generation
// before is kept and found. See the package comment for the one error after which the new one is found
// too, until the next save supersedes it. After the error of a delta the next save must be full, unless it
// was for want of room.
func (p *Pending) Commit() error {
	if p.done {
		return fmt.Errorf("save %v: %w", p.id, errDone)
	}
	_, leave, err := p.d.part(p.id)
	if err != nil {
		// The directory has been closed: its files are no longer ours to touch.
		return errors.Join(fmt.Errorf("save %v: %w", p.id, err), p.abandon())
	}
	pruned, err := p.commit()
	p.end()
	leave()
	if err != nil {
		return fmt.Errorf("save %v generation %d: %w", p.id, p.generation, err)
	}
	if pruned {
		p.d.collect()
	}
	return nil
}

// end ends a save; the part is locked.
func (p *Pending) end() {
	p.done = true
	p.p.saving = false
}

// abandon ends a save without touching the folder.
func (p *Pending) abandon() error {
	p.done = true
	if p.addition != nil {
		return p.addition.close()
	}
	return p.draft.close()
}

func (p *Pending) commit() (pruned bool, err error) {
	if p.addition != nil {
		return false, p.commitDelta()
	}
	tail, err := p.verify()
	if err != nil {
		p.draft.discard()
		return false, err
	}
	keep, err := p.makeRoom()
	if err != nil {
		p.draft.discard()
		return false, err
	}
	if err := p.draft.publish(keep); err != nil {
		// Which file has the name now, and whether that is durable, is read from the disk when it matters.
		p.p.forgetFile()
		p.p.synced = false
		return false, err
	}
	p.p.know(tail)
	p.p.high, p.p.synced, p.p.full = p.generation, true, false
	return p.prune(), nil
}

// verify looks at the draft as a later load will and returns what can be appended to.
func (p *Pending) verify() (statefile.Tail, error) {
	if p.draft.err != nil {
		return statefile.Tail{}, p.draft.err
	}
	file := vfs.Path(p.d.fs, p.draft.path(p.draft.temp))
	f, err := statefile.Open(p.draft.file, p.draft.size, file)
	if err == nil {
		err = claims(f.Header(), file, p.id, p.generation)
	}
	if err != nil {
		return statefile.Tail{}, fmt.Errorf("what was written is not a whole state file: %w", err)
	}
	return f.Tail(), nil
}

// numberIsFree says why the pending generation's number can not be used any more.
func (p *Pending) numberIsFree() error {
	if p.p.high >= p.generation {
		return fmt.Errorf("generation %d has appeared in the folder meanwhile: is anything else writing there? The next save takes a number above it", p.p.high)
	}
	return nil
}

// makeRoom returns the name to keep <part>.state under, "" if there is none, and sees to it that no
// other file has that name.
func (p *Pending) makeRoom() (keep string, err error) {
	files, err := p.d.settle(p.id, p.p)
	if err != nil {
		return "", err
	}
	if err := p.numberIsFree(); err != nil {
		return "", err
	}
	if p.p.current == 0 {
		return "", nil
	}
	kept := stateFile{part: p.id.Part, kind: older, generation: p.p.current}
	if slices.Contains(files, kept) {
		// Someone has copied an older generation over the newest. The copy was loaded and stays; the
		// other may differ.
		q := p.d.setAside(p.id, p.p, badFile{stateFile: kept, err: errors.New("another file of the same generation took its place")})
		if q.MoveErr != nil {
			return "", q.MoveErr
		}
	}
	return kept.name(), nil
}

// prune removes files beyond those to keep and reports whether it removed any.
func (p *Pending) prune() (pruned bool) {
	files, err := p.d.list(p.id)
	if err != nil {
		p.d.log.Warn("older generations could not be removed", "service", p.id.Service, "part", p.id.Part, "error", err)
		return false
	}
	left := p.d.keep - 1
	for _, f := range files {
		if f.kind != older || p.p.bad[f.generation] != nil {
			continue
		}
		if left > 0 {
			left--
			continue
		}
		name := path.Join(p.id.folder(), f.name())
		if err := p.d.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			p.d.log.Warn("an older generation could not be removed; the next save tries again",
				"service", p.id.Service, "part", p.id.Part, "path", vfs.Path(p.d.fs, name), "error", err)
			continue
		}
		pruned = true
	}
	return pruned
}

// Abort drops the generation and what was written of it.
func (p *Pending) Abort() {
	if p.done {
		return
	}
	_, leave, err := p.d.part(p.id)
	if err != nil {
		_ = p.abandon() // the directory has been closed
		return
	}
	defer leave()
	defer p.end()
	if p.addition != nil {
		p.takeBack()
		return
	}
	p.draft.discard()
}
