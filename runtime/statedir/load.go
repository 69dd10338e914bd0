package statedir

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// Generation is one kept save of a part.
type Generation struct {
	Number uint64           // 0 if the file does not say: it is damaged
	Path   string           // of the file
	Size   int64            // in bytes
	Header statefile.Header // the zero value with Err
	Err    error            // why the file could not be opened; wraps what statefile.Open gives
}

// Opened is a generation opened to be read. It stays readable whatever is saved meanwhile. Close it.
type Opened struct {
	Generation uint64
	Path       string // of the file when it was opened; a save may have renamed it since
	// Quarantined are the generations that were passed over because they are damaged.
	Quarantined []Quarantine

	id     PartID
	file   *statefile.File
	handle vfs.File
}

// File is the open file. It must not be used after Close.
func (o *Opened) File() *statefile.File { return o.file }

// Close closes the file.
func (o *Opened) Close() error { return o.handle.Close() }

// Quarantine is a damaged generation that was set aside.
type Quarantine struct {
	Generation uint64
	Path       string // where it is now
	Err        error  // what is wrong with it
	MoveErr    error  // why it could not be moved, and is at Path under its old name; nil if it was
}

// DamagedError says that a part has generations and none of them is sound. It wraps abi.ErrCorrupt.
type DamagedError struct {
	PartID
	Quarantined []Quarantine // newest first, at least one
}

func (e *DamagedError) Error() string {
	last := e.Quarantined[0]
	return fmt.Sprintf("state of %v: no sound generation is left; %d damaged and kept, the newest as %s: %v",
		e.PartID, len(e.Quarantined), last.Path, last.Err)
}

func (e *DamagedError) Unwrap() error { return abi.ErrCorrupt }

// list returns the files of a part, the newest first, then older and damaged ones from the highest
// number down. A folder that is not there has none.
func (d *Dir) list(id PartID) ([]stateFile, error) {
	entries, err := d.fs.ReadDir(id.folder())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("state of %v: %w", id, err)
	}
	var files []stateFile
	for _, e := range entries {
		if f, ok := parseName(e.Name); ok && e.Type.IsRegular() && f.part == id.Part && f.kind != temp {
			files = append(files, f)
		}
	}
	slices.SortFunc(files, func(a, b stateFile) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(b.generation, a.generation), b.since.Compare(a.since))
	})
	return files, nil
}

// see takes note of the numbers that file names tell, and of whether there is a newest file.
func (p *part) see(files []stateFile) {
	for _, f := range files {
		p.high = max(p.high, f.generation)
	}
	if !slices.ContainsFunc(files, func(f stateFile) bool { return f.kind == newest }) {
		p.current = 0
	}
}

// open opens a file of a part and checks that it is what its name says. An error wraps abi.ErrCorrupt
// if it is not.
func (d *Dir) open(id PartID, p *part, f stateFile) (*Opened, error) {
	name := path.Join(id.folder(), f.name())
	full := vfs.Path(d.fs, name)
	fail := func(err error) (*Opened, error) { return nil, fmt.Errorf("state of %v: %w", id, err) }
	handle, err := d.fs.OpenFile(name, vfs.Read)
	if err != nil {
		return fail(err)
	}
	size, err := handle.Size()
	if err != nil {
		return fail(errors.Join(err, handle.Close()))
	}
	file, err := statefile.Open(handle, size, full)
	if err == nil {
		err = claims(file.Header(), full, id, f.generation)
	}
	if err != nil {
		return fail(errors.Join(err, handle.Close()))
	}
	o := &Opened{Generation: file.Header().Generation, Path: full, id: id, file: file, handle: handle}
	p.high = max(p.high, o.Generation)
	if f.kind == newest {
		p.current = o.Generation
	}
	return o, nil
}

// claims checks that a header is of the part and, unless generation is 0, of the generation.
func claims(h statefile.Header, file string, id PartID, generation uint64) error {
	if h.Service == id.Service && h.Part == id.Part && (generation == 0 || h.Generation == generation) {
		return nil
	}
	want := id.String()
	if generation != 0 {
		want += fmt.Sprintf(" generation %d", generation)
	}
	return &statefile.FileError{File: file, Err: abi.ErrCorrupt,
		Reason: fmt.Sprintf("the header says %s/%s generation %d where %s belongs", h.Service, h.Part, h.Generation, want)}
}

// settleFolder makes durable, once, what an earlier process may have left in the system's memory: a
// generation handed out must not vanish in a power cut. On a folder that can not be synced that is
// not to be had, and reading goes on.
func (d *Dir) settleFolder(id PartID, p *part) {
	if p.synced {
		return
	}
	if err := errors.Join(syncFolder(d.fs, statesFolder), syncFolder(d.fs, id.folder())); err != nil {
		d.log.Warn("a folder could not be synced before reading", "path", vfs.Path(d.fs, id.folder()), "error", err)
		return
	}
	p.synced = true
}

// Generations lists what is kept of a part, from the newest to the oldest, damaged files that have not
// been set aside included. It changes nothing. A part without any gives an empty list.
func (d *Dir) Generations(service, part string) ([]Generation, error) {
	id := PartID{service, part}
	p, leave, err := d.part(id)
	if err != nil {
		return nil, err
	}
	defer leave()
	files, err := d.list(id)
	if err != nil {
		return nil, err
	}
	var out []Generation
	for _, f := range files {
		if f.kind == damaged {
			continue
		}
		g := Generation{Number: f.generation, Path: vfs.Path(d.fs, path.Join(id.folder(), f.name()))}
		o, err := d.open(id, p, f)
		if err != nil {
			g.Err = err
			g.Size = d.size(path.Join(id.folder(), f.name()))
		} else {
			g.Number, g.Header, g.Size = o.Generation, o.file.Header(), o.file.Info().Size
			g.Err = o.Close()
		}
		out = append(out, g)
	}
	slices.SortStableFunc(out, func(a, b Generation) int {
		if a.Number == 0 || b.Number == 0 {
			return 0 // a newest file that does not say its number stays first
		}
		return cmp.Compare(b.Number, a.Number)
	})
	return out, nil
}

// size is a file's length, 0 if it can not be found out.
func (d *Dir) size(name string) int64 {
	f, err := d.fs.OpenFile(name, vfs.Read)
	if err != nil {
		return 0
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return 0
	}
	return size
}

// Open opens one generation of a part. The error wraps abi.ErrNotFound if it is not kept, or what
// statefile.Open gives for its file, or for a newest file that may be it. It changes nothing.
func (d *Dir) Open(service, part string, generation uint64) (*Opened, error) {
	id := PartID{service, part}
	p, leave, err := d.part(id)
	if err != nil {
		return nil, err
	}
	defer leave()
	files, err := d.list(id)
	if err != nil {
		return nil, err
	}
	d.settleFolder(id, p)
	var unreadable error // a newest file that does not say its number
	for _, f := range files {
		if f.kind == damaged || f.kind == older && f.generation != generation {
			continue
		}
		o, err := d.open(id, p, f)
		switch {
		case err != nil && f.kind == older:
			return nil, err
		case err != nil:
			unreadable = err
		case o.Generation == generation:
			return o, nil
		default:
			if err := o.Close(); err != nil {
				return nil, err
			}
		}
	}
	if unreadable != nil {
		return nil, fmt.Errorf("generation %d is none of the older ones, and the newest does not open: %w", generation, unreadable)
	}
	return nil, fmt.Errorf("state of %v: generation %d: %w in %s", id, generation, abi.ErrNotFound, vfs.Path(d.fs, id.folder()))
}

// OpenNewest opens the newest sound generation of a part: of <part>.state and those kept from before,
// the one with the highest number whose structure, header and index are whole. Damaged ones above it
// are moved aside, which the log and Opened.Quarantined tell; if moving fails, they are passed over all
// the same.
//
// The error wraps abi.ErrNotFound if there is no generation. It is a *[DamagedError] if there is none
// that is sound. If the newest is of a format this program does not know (abi.ErrVersion), is larger
// than it accepts, or can not be read from the disk, that error is returned, nothing else is opened in
// its place and nothing is changed.
func (d *Dir) OpenNewest(service, part string) (*Opened, error) {
	id := PartID{service, part}
	p, leave, err := d.part(id)
	if err != nil {
		return nil, err
	}
	defer leave()
	files, err := d.list(id)
	if err != nil {
		return nil, err
	}
	p.see(files)
	if len(files) == 0 || files[0].kind == damaged {
		return nil, d.nothing(id, files)
	}
	d.settleFolder(id, p)
	o, bad, err := d.choose(id, p, files)
	if err != nil {
		return nil, err
	}
	// Only now is it certain that something is to be changed.
	var set []Quarantine
	for _, b := range bad {
		set = append(set, d.setAside(id, p, b))
	}
	if o == nil {
		return nil, &DamagedError{PartID: id, Quarantined: set}
	}
	o.Quarantined = set
	return o, nil
}

// nothing is the error for a part without generations.
func (d *Dir) nothing(id PartID, files []stateFile) error {
	err := fmt.Errorf("state of %v: %w in %s", id, abi.ErrNotFound, vfs.Path(d.fs, id.folder()))
	if len(files) > 0 {
		err = fmt.Errorf("%w; %d damaged generations are kept there, the newest as %s", err, len(files), files[0].name())
	}
	return err
}

// badFile is a file found damaged, and how.
type badFile struct {
	stateFile
	err error
}

// choose opens the best of files and returns the damaged ones above it. It changes nothing on disk.
func (d *Dir) choose(id PartID, p *part, files []stateFile) (o *Opened, bad []badFile, err error) {
	var first *Opened // the newest file, opened for its number
	defer func() {
		if first != nil && first != o {
			_ = first.Close() // only read from
		}
	}()
	candidates := slices.Clone(files)
	if files[0].kind == newest {
		first, err = d.open(id, p, files[0])
		switch {
		case errors.Is(err, abi.ErrCorrupt):
			bad = append(bad, badFile{files[0], err})
			candidates = candidates[1:]
		case err != nil:
			return nil, nil, err
		default:
			candidates[0].generation = first.Generation
			slices.SortStableFunc(candidates, func(a, b stateFile) int { return cmp.Compare(b.generation, a.generation) })
		}
	}
	for _, c := range candidates {
		if c.kind == damaged {
			continue
		}
		if cause := p.bad[c.generation]; cause != nil {
			bad = append(bad, badFile{c, cause})
			continue
		}
		if c.kind == newest {
			return first, bad, nil
		}
		found, err := d.open(id, p, c)
		switch {
		case err == nil:
			return found, bad, nil
		case errors.Is(err, abi.ErrCorrupt):
			bad = append(bad, badFile{c, err})
		default:
			return nil, nil, err
		}
	}
	return nil, bad, nil
}

// setAside renames a damaged file, so that it is kept and neither loaded nor replaced. A newest file
// that does not say its number gets the one it had when it was last read or, never read, the one it
// must have been given: the next.
func (d *Dir) setAside(id PartID, p *part, b badFile) Quarantine {
	b.generation = cmp.Or(b.generation, p.current)
	known := b.generation != 0
	if !known {
		b.generation = p.high + 1
	}
	q := Quarantine{Generation: b.generation, Err: b.err}
	from := path.Join(id.folder(), b.name())
	to, err := d.freeName(id, b.generation)
	if err == nil {
		err = d.fs.Rename(from, path.Join(id.folder(), to))
	}
	log := d.log.With("service", id.Service, "part", id.Part, "generation", b.generation, "damage", b.err)
	if err != nil {
		if known {
			p.bad[b.generation] = b.err
		}
		q.Path, q.MoveErr = vfs.Path(d.fs, from), err
		log.Error("a damaged generation could not be moved aside; it is passed over", "path", q.Path, "error", err)
		return q
	}
	delete(p.bad, b.generation)
	p.high = max(p.high, b.generation)
	if b.kind == newest {
		p.current = 0
	}
	q.Path = vfs.Path(d.fs, path.Join(id.folder(), to))
	log.Error("a damaged generation was moved aside and is kept", "path", q.Path)
	if err := syncFolder(d.fs, id.folder()); err != nil {
		// After a power cut it may have its old name, and be found damaged again.
		log.Warn("the folder of a damaged generation could not be synced", "path", q.Path, "error", err)
	}
	return q
}

// freeName is a name for a damaged generation that no file has.
func (d *Dir) freeName(id PartID, generation uint64) (string, error) {
	files, err := d.list(id)
	if err != nil {
		return "", err
	}
	f := stateFile{part: id.Part, kind: damaged, generation: generation, since: d.now()}
	for taken := func(g stateFile) bool { return g.name() == f.name() }; slices.ContainsFunc(files, taken); {
		f.since = f.since.Add(time.Second)
	}
	return f.name(), nil
}

// Quarantine sets a generation aside whose damage was found while its records were read; cause is what
// was found. It is passed over by OpenNewest from now on, so that opening the newest again gives the
// one before; if it could not be moved, OpenNewest tells of it again. o must still be closed.
func (d *Dir) Quarantine(o *Opened, cause error) Quarantine {
	q := Quarantine{Generation: o.Generation, Path: o.Path, Err: cause}
	p, leave, err := d.part(o.id)
	if err != nil {
		q.MoveErr = err
		return q
	}
	defer leave()
	f, err := d.find(o, p)
	if err != nil {
		p.bad[o.Generation] = cause
		q.MoveErr = err
		d.log.Error("a damaged generation could not be moved aside; it is passed over",
			"service", o.id.Service, "part", o.id.Part, "generation", o.Generation, "damage", cause, "path", o.Path, "error", err)
		return q
	}
	return d.setAside(o.id, p, badFile{f, cause})
}

// find returns the file a generation is in now: a save may have renamed it since it was opened.
func (d *Dir) find(o *Opened, p *part) (stateFile, error) {
	files, err := d.settle(o.id, p)
	if err != nil {
		return stateFile{}, err
	}
	for _, f := range files {
		switch {
		case f.kind == newest && p.current == o.Generation:
			f.generation = o.Generation
			return f, nil
		case f.kind == older && f.generation == o.Generation:
			return f, nil
		}
	}
	return stateFile{}, fmt.Errorf("state of %v: generation %d: %w: it is not kept any more", o.id, o.Generation, abi.ErrNotFound)
}
