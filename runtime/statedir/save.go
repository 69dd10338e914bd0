package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// Pending is the next generation of a part while it is written. It is an io.Writer for a
// statefile.Writer, unbuffered. It is not safe for concurrent use. Either Commit or Abort must be
// called; Abort after Commit does nothing, so that it can be deferred.
type Pending struct {
	d          *Dir
	id         PartID
	p          *part
	draft      *draft
	generation uint64
	done       bool
}

// errDone: a Pending was used after its end.
var errDone = errors.New("the save has been committed or aborted")

// Begin begins the next generation of a part. At most one can be pending at a time.
//
// If the newest generation on disk is damaged it is moved aside first. If it is of a format this
// program does not know, or can not be read from the disk, and has not been read before, Begin fails
// with that error: what was never read must not be superseded.
func (d *Dir) Begin(service, part string) (*Pending, error) {
	id := PartID{service, part}
	p, leave, err := d.part(id)
	if err != nil {
		return nil, err
	}
	defer leave()
	if p.saving {
		return nil, fmt.Errorf("save %v: another save of it is under way", id)
	}
	if _, err := d.settle(id, p); err != nil {
		return nil, fmt.Errorf("save %v: %w", id, err)
	}
	if p.high == math.MaxUint64 {
		return nil, fmt.Errorf("save %v: %w: generation %d is in %s, there is no number after it; move it out of the folder",
			id, abi.ErrTooLarge, p.high, vfs.Path(d.fs, id.folder()))
	}
	if err := d.makeFolder(id.folder()); err != nil {
		return nil, fmt.Errorf("save %v: %w", id, err)
	}
	t, err := d.newDraft(id.folder(), stateFile{part: id.Part, kind: newest}.name())
	if err != nil {
		return nil, fmt.Errorf("save %v: %w", id, err)
	}
	p.saving = true
	return &Pending{d: d, id: id, p: p, draft: t, generation: p.high + 1}, nil
}

// settle returns the files of a part and sees to it that <part>.state, if there is one, has a known
// number in p.current: only so it can be kept under that number.
func (d *Dir) settle(id PartID, p *part) ([]stateFile, error) {
	files, err := d.list(id)
	if err != nil {
		return nil, err
	}
	p.see(files)
	if len(files) == 0 || files[0].kind != newest || p.current != 0 {
		return files, nil
	}
	o, err := d.open(id, p, files[0])
	if err == nil {
		return files, o.Close()
	}
	if !errors.Is(err, abi.ErrCorrupt) {
		return nil, err
	}
	if q := d.setAside(id, p, badFile{files[0], err}); q.MoveErr != nil {
		return nil, fmt.Errorf("the newest generation is damaged and can not be moved aside: %w", errors.Join(q.MoveErr, err))
	}
	return files[1:], nil
}

// Generation is the number of the generation, for its header.
func (p *Pending) Generation() uint64 { return p.generation }

// Write appends to the file. After an error the save can only be aborted.
func (p *Pending) Write(b []byte) (int, error) {
	if p.done {
		return 0, fmt.Errorf("save %v: %w", p.id, errDone)
	}
	n, err := p.draft.Write(b)
	if err != nil {
		err = fmt.Errorf("save %v: %w", p.id, err)
	}
	return n, err
}

// Commit makes the generation the newest one, durably. What was written must be a whole state file of
// this service, part and generation; anything else is refused. Older generations beyond those to keep
// are removed; if that fails, the log tells and the next commit tries again.
//
// After an error the generation does not count and its number may be given again; the generation
// before is kept and found. See the package comment for the one error after which the new one is found
// too, until the next save supersedes it.
func (p *Pending) Commit() error {
	if p.done {
		return fmt.Errorf("save %v: %w", p.id, errDone)
	}
	_, leave, err := p.d.part(p.id)
	if err != nil {
		// The directory has been closed: its files are no longer ours to touch.
		p.done = true
		return errors.Join(fmt.Errorf("save %v: %w", p.id, err), p.draft.close())
	}
	defer leave()
	defer p.end()
	if err := p.commit(); err != nil {
		return fmt.Errorf("save %v generation %d: %w", p.id, p.generation, err)
	}
	p.p.current, p.p.high = p.generation, p.generation
	p.prune()
	return nil
}

func (p *Pending) end() {
	p.done = true
	p.p.saving = false
}

func (p *Pending) commit() error {
	if err := p.verify(); err != nil {
		p.draft.discard()
		return err
	}
	keep, err := p.makeRoom()
	if err != nil {
		p.draft.discard()
		return err
	}
	if err := p.draft.publish(keep); err != nil {
		p.p.current = 0 // which file has the name now is read from the disk when it matters
		return err
	}
	return nil
}

// verify looks at the draft as a later load will.
func (p *Pending) verify() error {
	if p.draft.err != nil {
		return p.draft.err
	}
	file := vfs.Path(p.d.fs, p.draft.path(p.draft.temp))
	f, err := statefile.Open(p.draft.file, p.draft.size, file)
	if err == nil {
		err = claims(f.Header(), file, p.id, p.generation)
	}
	if err != nil {
		return fmt.Errorf("what was written is not a whole state file: %w", err)
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
	if p.p.high >= p.generation {
		return "", fmt.Errorf("generation %d has appeared in the folder meanwhile: is anything else writing there? The next save takes a number above it", p.p.high)
	}
	if p.p.current == 0 {
		return "", nil
	}
	if cause := p.p.bad[p.p.current]; cause != nil {
		// It could not be moved aside before; it is not kept as one to fall back on.
		return "", p.d.setAside(p.id, p.p, badFile{stateFile{part: p.id.Part, kind: newest}, cause}).MoveErr
	}
	kept := stateFile{part: p.id.Part, kind: older, generation: p.p.current}
	if slices.Contains(files, kept) {
		// Someone has copied an older generation over the newest. The copy was loaded and stays; the
		// other may differ.
		q := p.d.setAside(p.id, p.p, badFile{kept, errors.New("another file of the same generation took its place")})
		if q.MoveErr != nil {
			return "", q.MoveErr
		}
	}
	return kept.name(), nil
}

// prune removes generations beyond those to keep.
func (p *Pending) prune() {
	files, err := p.d.list(p.id)
	if err != nil {
		p.d.log.Warn("older generations could not be removed", "service", p.id.Service, "part", p.id.Part, "error", err)
		return
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
		}
	}
}

// Abort drops the generation and its file.
func (p *Pending) Abort() {
	if p.done {
		return
	}
	_, leave, err := p.d.part(p.id)
	if err != nil {
		p.done = true // the directory has been closed
		_ = p.draft.close()
		return
	}
	defer leave()
	defer p.end()
	p.draft.discard()
}
