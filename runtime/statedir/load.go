package statedir

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
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
	Path   string           // of the file; a full save and the deltas on it are in one
	Size   int64            // in bytes, of the file up to the end of this generation
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
	kind   kind // of the file
	file   *statefile.File
	handle vfs.File
}

// File is the open file. It must not be used after Close.
func (o *Opened) File() *statefile.File { return o.file }

// Close closes the file.
func (o *Opened) Close() error { return o.handle.Close() }

// Quarantine is a damaged generation that was set aside.
type Quarantine struct {
	Generation uint64 // the newest, where several were appended to one file and set aside together
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
	if len(files) == 0 || files[0].kind != newest {
		p.forgetFile()
	}
}

// badFile is a file found damaged, or the end of one, and how.
type badFile struct {
	stateFile
	err error
	// generations are those that are lost with it, as far as they are known, oldest first.
	generations []uint64
	cut         *cut // nil: all of the file is damaged
}

// cut is where the damaged end of a file begins.
type cut struct {
	end  int64
	torn bool           // it is an append that was cut off, not damage: nothing was ever acknowledged
	good statefile.Tail // of what is before
}

// read opens a file of a part: the newest generation in it that is sound or, of an older file, the one
// it is named after. bad is what of the file is damaged; then o is what is before that, nil if nothing
// is. With check, the last delta of a newest file that this process has not looked at yet is read whole:
// it is what a power cut may have left half written. It changes nothing on disk.
func (d *Dir) read(id PartID, p *part, f stateFile, check bool) (o *Opened, bad *badFile, err error) {
	name := path.Join(id.folder(), f.name())
	o = &Opened{Path: vfs.Path(d.fs, name), id: id, kind: f.kind}
	fail := func(err error) (*Opened, *badFile, error) {
		if o.handle != nil {
			err = errors.Join(err, o.handle.Close())
		}
		err = fmt.Errorf("state of %v: %w", id, err)
		if errors.Is(err, abi.ErrCorrupt) {
			return nil, &badFile{stateFile: f, err: err}, nil
		}
		return nil, nil, err
	}
	if o.handle, err = d.fs.OpenFile(name, vfs.Read); err != nil {
		return fail(err)
	}
	size, err := o.handle.Size()
	if err != nil {
		return fail(err)
	}
	if f.kind == newest && p.limit != 0 {
		size = min(size, p.limit)
	}
	o.file, err = statefile.Open(o.handle, size, o.Path)
	if err == nil && check && f.kind == newest && o.file.Header().Generation != p.current {
		err = o.file.VerifyLast(context.Background())
	}
	if errors.Is(err, abi.ErrCorrupt) {
		bad, err = o.retreat(size, err)
		if bad != nil && (f.kind == older || max(p.current, p.was) > bad.cut.good.Header().Generation) {
			bad.cut.torn = false // it was whole once
		}
	}
	if err == nil {
		err = claims(o.file.Header(), o.Path, id, 0)
	}
	if err != nil {
		return fail(err)
	}
	saves := o.file.Saves()
	p.high = max(p.high, saves[len(saves)-1].Generation)
	// What was found damaged before and could not be moved or cut off.
	if i := slices.IndexFunc(saves, func(s statefile.Save) bool { return p.bad[s.Generation] != nil }); i >= 0 {
		b := &badFile{err: p.bad[saves[i].Generation], generations: numbers(saves[i:])}
		if bad != nil {
			b.generations = append(b.generations, bad.generations...)
		}
		if bad = b; i == 0 {
			bad.stateFile = f
			return nil, bad, o.handle.Close()
		}
		if bad.cut, err = o.reopen(saves[i-1].End); err != nil {
			return fail(err)
		}
	}
	if f.kind == older && o.file.Header().Generation != f.generation && bad == nil {
		i := slices.IndexFunc(saves, func(s statefile.Save) bool { return s.Generation == f.generation })
		if i < 0 {
			return fail(claims(o.file.Header(), o.Path, id, f.generation))
		}
		// It got its name when it was to be cut: see cutAndKeep.
		bad = &badFile{generations: numbers(saves[i+1:]), err: claims(o.file.Header(), o.Path, id, f.generation)}
		if bad.cut, err = o.reopen(saves[i].End); err != nil {
			return fail(err)
		}
	}
	if bad != nil {
		bad.stateFile = f
		bad.err = fmt.Errorf("state of %v: %w", id, bad.err)
		p.high = max(p.high, bad.last())
	}
	o.Generation = o.file.Header().Generation
	return o, bad, nil
}

// retreat opens what is before the damaged end of a file.
func (o *Opened) retreat(size int64, damage error) (bad *badFile, err error) {
	end, torn, err := statefile.LastGood(context.Background(), o.handle, size, o.Path)
	if errors.Is(err, abi.ErrNotFound) {
		return nil, damage // of the full save
	}
	if err != nil {
		return nil, err
	}
	bad = &badFile{err: damage}
	if o.file != nil { // the structure is sound and says which generations there are
		for _, s := range o.file.Saves() {
			if s.End > end {
				bad.generations = append(bad.generations, s.Generation)
			}
		}
	}
	if bad.cut, err = o.reopen(end); err != nil {
		return nil, err
	}
	bad.cut.torn = torn
	return bad, nil
}

// reopen makes o what its file is up to an end.
func (o *Opened) reopen(end int64) (*cut, error) {
	file, err := statefile.Open(o.handle, end, o.Path)
	if err != nil {
		return nil, err
	}
	o.file = file
	return &cut{end: end, good: file.Tail()}, nil
}

func numbers(saves []statefile.Save) []uint64 {
	out := make([]uint64, len(saves))
	for i, s := range saves {
		out[i] = s.Generation
	}
	return out
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
	if err := errors.Join(vfs.SyncFolder(d.fs, statesFolder), vfs.SyncFolder(d.fs, id.folder())); err != nil {
		d.log.Warn("a folder could not be synced before reading", "path", vfs.Path(d.fs, id.folder()), "error", err)
		return
	}
	p.synced = true
}

// Generations lists what is kept of a part, from the newest to the oldest, damaged files, and damaged
// ends of files, that have not been set aside included. It changes nothing. A part without any gives an
// empty list.
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
		if f.kind != damaged {
			out = append(out, d.generationsIn(id, p, f)...)
		}
	}
	slices.SortStableFunc(out, func(a, b Generation) int {
		if a.Number == 0 || b.Number == 0 {
			return 0 // a newest file that does not say its number stays first
		}
		return cmp.Compare(b.Number, a.Number)
	})
	return out, nil
}

// generationsIn lists the generations in one file, newest first.
func (d *Dir) generationsIn(id PartID, p *part, f stateFile) (out []Generation) {
	name := path.Join(id.folder(), f.name())
	g := Generation{Number: f.generation, Path: vfs.Path(d.fs, name)}
	o, bad, err := d.read(id, p, f, false)
	switch {
	case err != nil:
		g.Err, g.Size = err, d.size(name)
		out = append(out, g)
	case bad != nil && (bad.cut == nil || !bad.cut.torn):
		g.Err, g.Size = bad.err, d.size(name)
		if n := len(bad.generations); n > 0 {
			g.Number = bad.generations[n-1]
		}
		out = append(out, g)
	}
	if o == nil {
		return out
	}
	saves := o.file.Saves()
	err = o.Close()
	for _, s := range slices.Backward(saves) {
		h := o.file.Header()
		h.Generation, h.Created = s.Generation, s.Created
		out = append(out, Generation{Number: s.Generation, Path: g.Path, Size: s.End, Header: h, Err: err})
	}
	return out
}

// size is a file's length, 0 if it can not be found out.
func (d *Dir) size(name string) int64 {
	size, err := d.sizeOf(name)
	if err != nil {
		return 0
	}
	return size
}

// exists reports whether there is a file of that name, or it can not be found out.
func (d *Dir) exists(name string) bool {
	_, err := d.sizeOf(name)
	return !errors.Is(err, fs.ErrNotExist)
}

func (d *Dir) sizeOf(name string) (int64, error) {
	f, err := d.fs.OpenFile(name, vfs.Read)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Size()
}

// Open opens one generation of a part. The error wraps abi.ErrNotFound if it is not kept, or what
// statefile.Open gives for its file, or for a file that may hold it. It changes nothing.
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
	var unreadable error // a file that may hold it
	for _, f := range files {
		if f.kind == damaged || f.kind == older && f.generation < generation {
			continue
		}
		o, bad, err := d.read(id, p, f, false)
		if err == nil && bad != nil {
			err = bad.err
		}
		if o != nil {
			found, oerr := o.at(generation)
			if found && oerr == nil && (f.kind == older || p.current == 0) {
				if serr := o.handle.Sync(); serr != nil { // see settled
					d.log.Warn("a state file could not be made durable before it is read", "path", o.Path, "error", serr)
				}
			}
			if found {
				return o, oerr
			}
			err = errors.Join(err, oerr)
		}
		if err != nil && f.kind == older && f.generation == generation {
			return nil, err
		}
		unreadable = cmp.Or(unreadable, err)
	}
	if unreadable != nil {
		return nil, fmt.Errorf("generation %d is in none of the files that are sound, and this one is not: %w", generation, unreadable)
	}
	return nil, fmt.Errorf("state of %v: generation %d: %w in %s", id, generation, abi.ErrNotFound, vfs.Path(d.fs, id.folder()))
}

// at makes o the generation given, if its file has it. Otherwise, or with an error, it closes o.
func (o *Opened) at(generation uint64) (found bool, err error) {
	for _, s := range o.file.Saves() {
		if s.Generation == generation {
			o.Generation = generation
			_, err = o.reopen(s.End)
			found = true
		}
	}
	if !found || err != nil {
		err = errors.Join(err, o.Close())
	}
	return found, err
}

// OpenNewest opens the newest sound generation of a part: of those in <part>.state and in the files kept
// from before, the one with the highest number whose structure, header and index are whole. Damaged ones
// above it are moved aside or cut off, which the log and Opened.Quarantined tell; if that fails, they are
// passed over all the same. The end of a file that was cut off while it was written is removed, which
// only the log tells.
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
	if err := d.cutLimit(id, p); err != nil {
		d.log.Warn("an end of a state file is passed over", "service", id.Service, "part", id.Part, "error", err)
	}
	o, bad, err := d.choose(id, p, files)
	if err != nil {
		return nil, err
	}
	// Only now is it certain that something is to be changed.
	var set []Quarantine
	for _, b := range bad {
		q := d.setAside(id, p, b)
		if b.cut == nil || !b.cut.torn {
			set = append(set, q)
		}
	}
	if o == nil {
		return nil, &DamagedError{PartID: id, Quarantined: set}
	}
	switch {
	case o.kind == older:
		err = o.handle.Sync() // it may have been cut, and it is what is handed out
	case !slices.ContainsFunc(bad, func(b badFile) bool { return b.kind == newest }):
		err = d.settled(p, o)
	}
	if err != nil {
		d.log.Warn("a state file could not be made durable before it is read", "path", o.Path, "error", err)
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

// choose opens the best of files and returns what is damaged above it. It changes nothing on disk.
func (d *Dir) choose(id PartID, p *part, files []stateFile) (best *Opened, bad []badFile, err error) {
	drop := func(o *Opened) {
		if o != nil {
			_ = o.Close() // only read from
		}
	}
	for _, f := range files {
		if f.kind == damaged || best != nil && best.Generation >= f.generation && f.kind == older {
			break // nor are those that follow
		}
		o, b, err := d.read(id, p, f, true)
		if err != nil {
			drop(best)
			return nil, nil, err
		}
		if b != nil {
			bad = append(bad, *b)
		}
		if o == nil {
			continue
		}
		if best != nil && best.Generation >= o.Generation {
			o, best = best, o
		}
		drop(best)
		best = o
	}
	return best, bad, nil
}

// setAside renames a damaged file, so that it is kept and neither loaded nor replaced; of a file that is
// sound before some point it cuts off what is behind. For a newest file that does not say its number see
// numberOf.
func (d *Dir) setAside(id PartID, p *part, b badFile) Quarantine {
	if b.cut != nil {
		return d.cutOff(id, p, b)
	}
	old := b.name()
	b.generation = cmp.Or(b.generation, b.last())
	var err error
	if b.generation == 0 {
		b.generation, err = d.numberOf(id, p, b)
	}
	if b.generation != 0 {
		b.generations = append(b.generations, b.generation)
	}
	q := Quarantine{Generation: b.generation, Err: b.err}
	from := path.Join(id.folder(), old)
	var to string
	if err == nil {
		to, err = d.freeName(id, b.generation)
	}
	if err == nil {
		err = d.fs.Rename(from, path.Join(id.folder(), to))
	}
	log := d.log.With("service", id.Service, "part", id.Part, "generation", b.generation, "damage", b.err)
	if err != nil {
		p.passOver(b)
		q.Path, q.MoveErr = vfs.Path(d.fs, from), err
		log.Error("a damaged generation could not be moved aside; it is passed over", "path", q.Path, "error", err)
		return q
	}
	p.gone(b)
	if b.kind == newest {
		p.forgetFile()
	}
	q.Path = vfs.Path(d.fs, path.Join(id.folder(), to))
	log.Error("a damaged generation was moved aside and is kept", "path", q.Path)
	if err := vfs.SyncFolder(d.fs, id.folder()); err != nil {
		// After a power cut it may have its old name, and be found damaged again.
		log.Warn("the folder of a damaged generation could not be synced", "path", q.Path, "error", err)
	}
	return q
}

// last is the newest generation lost, 0 if that is not known.
func (b *badFile) last() uint64 {
	if n := len(b.generations); n > 0 {
		return b.generations[n-1]
	}
	return 0
}

// passOver remembers what is damaged and has stayed where it is.
func (p *part) passOver(b badFile) {
	for _, g := range b.generations {
		p.bad[g] = b.err
	}
	if b.kind == newest {
		p.forget()
	}
}

// gone takes note of what is out of the way.
func (p *part) gone(b badFile) {
	for _, g := range b.generations {
		delete(p.bad, g)
	}
	p.high = max(p.high, b.generation, b.last())
}

// cutOff cuts off the end of a file that is damaged, which is kept as a file of its own, or that an append
// has left which did not come to its end.
func (d *Dir) cutOff(id PartID, p *part, b badFile) Quarantine {
	var aside string
	var err error
	if b.last() == 0 && !b.cut.torn {
		var number uint64
		if number, err = d.numberOf(id, p, b); err == nil {
			b.generations = []uint64{number}
		}
	}
	if err == nil {
		aside, err = d.cutAndKeep(id, p, &b)
	}
	q := Quarantine{Generation: b.last(), Err: b.err}
	full := vfs.Path(d.fs, path.Join(id.folder(), b.name()))
	log := d.log.With("service", id.Service, "part", id.Part, "path", full, "end", b.cut.end, "damage", b.err)
	switch {
	case err != nil:
		p.passOver(b)
		q.Path, q.MoveErr = full, err
		if b.cut.torn {
			log.Warn("the end of a save that was interrupted could not be cut off; it is passed over", "error", err)
		} else {
			log.Error("the damaged end of a state file could not be cut off; it is passed over", "generation", q.Generation, "error", err)
		}
		return q
	case b.cut.torn:
		log.Warn("the end of a save that was interrupted was cut off")
	default:
		q.Path = vfs.Path(d.fs, path.Join(id.folder(), aside))
		log.Error("the damaged end of a state file was cut off and is kept", "generation", q.Generation, "kept", q.Path)
	}
	p.gone(b)
	if b.kind == newest {
		p.know(b.cut.good)
		p.limit = 0
		p.full = p.full || !b.cut.torn // a file that has lost a part is not built upon
	}
	return q
}

// cutAndKeep copies the end of a file to a file of its own, unless it is torn, and cuts it off. It
// returns the name of the copy. Each step can be done again after a crash.
func (d *Dir) cutAndKeep(id PartID, p *part, b *badFile) (aside string, err error) {
	if b.kind == newest && p.appending {
		return "", errors.New("a save is being appended to the file")
	}
	if !b.cut.torn {
		if aside, err = d.keepEnd(id, *b); err != nil {
			return "", err
		}
	}
	name := b.name()
	if left := b.cut.good.Header().Generation; b.kind == older && left != b.generation {
		// What is left is an older generation than the file is named after. It gets its name first, durably:
		// a file that has more than its name says is cut again, one that has less is foreign.
		to := stateFile{part: id.Part, kind: older, generation: left}.name()
		if d.exists(path.Join(id.folder(), to)) {
			return aside, fmt.Errorf("%s can not get the name %s: %w", name, to, fs.ErrExist)
		}
		if err := d.fs.Rename(path.Join(id.folder(), name), path.Join(id.folder(), to)); err != nil {
			return aside, err
		}
		b.generation, name = left, to
		if err := vfs.SyncFolder(d.fs, id.folder()); err != nil {
			return aside, err
		}
	}
	return aside, d.cutName(path.Join(id.folder(), name), b.cut.end)
}

// keepEnd publishes a copy of what is to be cut off. A copy that is there already, of an attempt before
// that failed to cut, is enough.
func (d *Dir) keepEnd(id PartID, b badFile) (aside string, err error) {
	from, err := d.fs.OpenFile(path.Join(id.folder(), b.name()), vfs.Read)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	size, err := from.Size()
	if err != nil {
		return "", err
	}
	end := io.NewSectionReader(from, b.cut.end, size-b.cut.end)
	files, err := d.list(id)
	if err != nil {
		return "", err
	}
	for _, f := range files {
		if !f.tail || f.generation != b.last() {
			continue
		}
		same, err := d.holds(path.Join(id.folder(), f.name()), end)
		if err != nil {
			return "", err
		}
		if same {
			return f.name(), vfs.SyncFolder(d.fs, id.folder())
		}
	}
	if aside, err = d.free(id, stateFile{generation: b.last(), tail: true}); err != nil {
		return "", err
	}
	t, err := d.newDraft(id.folder(), aside)
	if err != nil {
		return "", err
	}
	if _, err := io.Copy(t, io.NewSectionReader(end, 0, end.Size())); err != nil {
		t.discard()
		return "", err
	}
	return aside, t.publish("")
}

// holds reports whether a file holds exactly these bytes.
func (d *Dir) holds(name string, want *io.SectionReader) (bool, error) {
	f, err := d.fs.OpenFile(name, vfs.Read)
	if err != nil {
		return false, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil || size != want.Size() {
		return false, err
	}
	const step = 64 << 10
	a, b := make([]byte, step), make([]byte, step)
	for off := int64(0); off < size; off += step {
		n := min(step, size-off)
		if _, err := io.ReadFull(io.NewSectionReader(f, off, n), a[:n]); err != nil {
			return false, err
		}
		if _, err := io.ReadFull(io.NewSectionReader(want, off, n), b[:n]); err != nil {
			return false, err
		}
		if !bytes.Equal(a[:n], b[:n]) {
			return false, nil
		}
	}
	return true, nil
}

// numberOf is the newest generation in a damaged file, or the damaged end of one, that does not say it: the
// one the file had when it was last read or, never read, as many above all others as saves can lie there.
func (d *Dir) numberOf(id PartID, p *part, b badFile) (number uint64, err error) {
	if b.kind == older {
		return b.generation, nil
	}
	var good uint64 // the newest that is not lost
	var from int64
	if b.cut != nil {
		good, from = b.cut.good.Header().Generation, b.cut.end
	}
	if last := max(p.current, p.was); last > good {
		return last, nil
	}
	n, err := d.countSaves(path.Join(id.folder(), b.name()), from)
	if err != nil {
		return 0, err
	}
	return p.high + max(1, n), nil
}

// countSaves counts what may be ends of saves behind a point of a file: the last bytes of their trailers
// (FORMAT.md, "Trailer"). Bytes of records that look alike count, too.
func (d *Dir) countSaves(name string, from int64) (n uint64, err error) {
	f, err := d.fs.OpenFile(name, vfs.Read)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return 0, err
	}
	word := []byte("torpor\x00\x01")
	const step = 64 << 10
	buf := make([]byte, step+len(word)-1)
	for off := from; off < size; off += step {
		b := buf[:min(int64(len(buf)), size-off)]
		if _, err := io.ReadFull(io.NewSectionReader(f, off, int64(len(b))), b); err != nil {
			return 0, err
		}
		n += uint64(bytes.Count(b, word))
	}
	return n, nil
}

// freeName is a name for a damaged generation that no file has.
func (d *Dir) freeName(id PartID, generation uint64) (string, error) {
	return d.free(id, stateFile{generation: generation})
}

// free is freeName for a file, or the end of one, that is set aside now.
func (d *Dir) free(id PartID, f stateFile) (string, error) {
	files, err := d.list(id)
	if err != nil {
		return "", err
	}
	f.part, f.kind, f.since = id.Part, damaged, d.now()
	for taken := func(g stateFile) bool { return g.name() == f.name() }; slices.ContainsFunc(files, taken); {
		f.since = f.since.Add(time.Second)
	}
	return f.name(), nil
}

// Quarantine sets a generation aside whose damage was found while its records were read; cause is what
// was found. It is passed over by OpenNewest from now on, so that opening the newest again gives the
// one before; if it could not be moved, OpenNewest tells of it again. Where cause is a
// *statefile.FileError whose offset lies behind the end of an earlier save of the file, that save is the
// one before: what is behind it is cut off and kept, later saves that were appended meanwhile included.
// o must still be closed.
func (d *Dir) Quarantine(o *Opened, cause error) Quarantine {
	q := Quarantine{Generation: o.Generation, Path: o.Path, Err: cause}
	p, leave, err := d.part(o.id)
	if err != nil {
		q.MoveErr = err
		return q
	}
	defer leave()
	b := badFile{stateFile: stateFile{part: o.id.Part, kind: o.kind, generation: o.Generation}, err: cause}
	saves := o.file.Saves()
	good := soundBefore(saves, cause)
	f, now, err := d.find(o, p)
	if err == nil && now != nil {
		saves = now
	}
	if b.generations = numbers(saves[good+1:]); err == nil && good >= 0 {
		b.cut, err = o.cutAt(saves[good].End)
	}
	if err != nil {
		p.passOver(b)
		q.MoveErr = err
		d.log.Error("a damaged generation could not be moved aside; it is passed over",
			"service", o.id.Service, "part", o.id.Part, "generation", o.Generation, "damage", cause, "path", o.Path, "error", err)
		return q
	}
	b.stateFile = f
	return d.setAside(o.id, p, b)
}

// cutAt is a cut of o's file, which is not changed.
func (o *Opened) cutAt(end int64) (*cut, error) {
	before := *o
	return before.reopen(end)
}

// soundBefore is the place in saves of the last one that damage does not touch and that is not the
// newest; -1 if there is none.
func soundBefore(saves []statefile.Save, damage error) int {
	if fe := (*statefile.FileError)(nil); errors.As(damage, &fe) {
		for i := len(saves) - 2; i >= 0; i-- {
			if fe.Offset >= saves[i].End {
				return i
			}
		}
	}
	return -1
}

// find returns the file a generation is in now, and the saves that are in it, nil if they are those of o:
// since it was opened, saves may have been appended to it, and one may have renamed it.
func (d *Dir) find(o *Opened, p *part) (stateFile, []statefile.Save, error) {
	files, err := d.settle(o.id, p)
	if err != nil {
		return stateFile{}, nil, err
	}
	for _, f := range files {
		switch {
		case f.kind == older && f.generation == o.Generation:
			return f, nil, nil
		case f.kind == damaged, f.kind == older && f.generation < o.Generation, f.kind == newest && p.current < o.Generation:
			continue
		}
		now, _, err := d.read(o.id, p, f, false)
		if err != nil {
			return stateFile{}, nil, err
		}
		if now == nil {
			continue
		}
		saves := now.file.Saves()
		if err := now.Close(); err != nil {
			return stateFile{}, nil, err
		}
		// A full save is in one file only.
		if saves[0].Generation == o.file.Saves()[0].Generation && saves[len(saves)-1].Generation >= o.Generation {
			if f.kind == newest {
				f.generation = p.current
			}
			return f, saves, nil
		}
	}
	return stateFile{}, nil, fmt.Errorf("state of %v: generation %d: %w: it is not kept any more", o.id, o.Generation, abi.ErrNotFound)
}
