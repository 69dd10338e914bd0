package statedir

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// VerifyOptions of [Verify]. The zero value is ready.
type VerifyOptions struct {
	// Repair lets Verify set right what can be: by moving and copying only.
	Repair bool
	// Module gives a module that this program has built in, so that a missing one can be put back; nil:
	// none are.
	Module func(digest [32]byte) (wasm []byte, ok bool)
	// Progress is told, from time to time, how many of how many bytes have been read; nil: nobody is.
	Progress func(done, total int64)
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Kind says what a [Finding] is about.
type Kind string

// Kinds of findings.
const (
	KindState     Kind = "state"     // a generation: the newest or an older one
	KindSetAside  Kind = "set-aside" // a damaged file that was moved aside before; it is not looked into
	KindModule    Kind = "module"    // a kept serializer
	KindPins      Kind = "pins"      // the names of pinned serializers
	KindTemporary Kind = "temporary" // left by a save that was interrupted; the next start removes it
)

// Finding is what [Verify] found out about one file, be it sound.
type Finding struct {
	Path    string
	Kind    Kind
	Size    int64         // in bytes
	State   *StateSummary // of a state file that can be opened; of a damaged one, what is still good of it
	Err     error         // what is wrong; nil: nothing. It wraps abi.ErrCorrupt, abi.ErrVersion …
	Good    int64         // of a damaged state file: how many bytes, from the beginning, are a whole state file
	Torn    bool          // what follows those is an append that did not come to its end: nothing saved is lost
	Missing bool          // Err is that a serializer it names is not kept; the state, or the pins, are sound
	Repair  string        // what was done about Err; "" for nothing
	Left    error         // what of Err is still so after the repair; without one, Err

	tail  statefile.Tail   // of what is good of a damaged file
	saves []statefile.Save // in the file, as far as it tells
}

// StateSummary is what a state file holds.
type StateSummary struct {
	Header statefile.Header
	Info   statefile.Info
}

// Verify reads all of the state directory that fsys is the root of and tells each about every file, in
// order of service, part and age. It checks the structure, every checksum, every record and their number,
// that each file is what its name says, and that the serializers of all states, and those pinned, are kept
// and whole.
//
// It takes the directory's lock meanwhile: the error is a *[LockedError] if a runtime has it. Where
// nothing can be written, and so nothing is changed by anyone with the same rights, it goes on without.
//
// With Repair, a damaged file is moved aside, as a runtime that finds it would do; of one whose beginning
// is good, what is behind it is moved to a file of its own; a missing or damaged module that this program
// has built in is put back. No byte is lost by it. Pins that are damaged are moved aside, too: then nothing
// is pinned, and no module is removed as long as that file is there.
//
// What is wrong with files is in the findings; the error is of the search itself, or ctx's.
func Verify(ctx context.Context, fsys vfs.FS, opt VerifyOptions, each func(Finding)) (err error) {
	d := newDir(fsys, Options{Now: opt.Now})
	switch err := d.takeLock(); {
	case err == nil:
		defer func() { err = errors.Join(err, d.lock.Close()) }()
	case !opt.Repair && (errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS)):
	default:
		return err
	}
	v := &verifier{ctx: ctx, d: d, opt: opt, each: each, modules: map[moduleDigest]error{}}
	if err := v.collect(); err != nil {
		return err
	}
	for _, name := range v.moduleFiles {
		v.module(name)
	}
	if slices.Contains(v.moduleFiles, pinsName) {
		v.each(v.pins())
	}
	for _, s := range v.services {
		for _, f := range s.files {
			v.file(s, f)
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("verify %s: %w", vfs.Path(fsys, "."), err)
			}
		}
	}
	return nil
}

// VerifyFile checks one state file of size bytes, wherever it lies, as [Verify] does, but for where it
// belongs and its serializer.
func VerifyFile(ctx context.Context, r io.ReaderAt, size int64, name string) Finding {
	found := Finding{Path: name, Kind: KindState, Size: size}
	f, err := statefile.Open(r, size, name)
	if err == nil {
		found.summarize(f)
		found.saves = f.Saves()
		err = f.Verify(ctx)
	}
	found.Left = err
	if found.Err = err; !errors.Is(err, abi.ErrCorrupt) {
		return found
	}
	found.State = nil
	good, torn, err := goodBeginning(ctx, r, size, name)
	switch {
	case err == nil:
		found.Good, found.Torn, found.tail = good.Info().Size, torn, good.Tail()
		found.summarize(good)
	case !errors.Is(err, abi.ErrNotFound):
		found.Err = errors.Join(found.Err, err)
		found.Left = found.Err
	}
	return found
}

// goodBeginning opens the longest beginning of a damaged state file that is a whole state file, all of
// it checked. The error wraps abi.ErrNotFound if there is none.
func goodBeginning(ctx context.Context, r io.ReaderAt, size int64, name string) (f *statefile.File, torn bool, err error) {
	end, torn, err := statefile.LastGood(ctx, r, size, name)
	for err == nil {
		if f, err = statefile.Open(r, end, name); err != nil {
			break
		}
		if err = f.Verify(ctx); err == nil {
			return f, torn, nil
		}
		var fe *statefile.FileError
		if !errors.As(err, &fe) || !errors.Is(err, abi.ErrCorrupt) {
			break
		}
		// Only what ends before the damage can be good.
		torn, end, err = false, 0, fmt.Errorf("state file %s: a whole save: %w", name, abi.ErrNotFound)
		for _, s := range f.Saves() {
			if s.End <= fe.Offset && s.End < f.Info().Size {
				end, err = s.End, nil
			}
		}
	}
	return nil, false, err
}

func (f *Finding) summarize(file *statefile.File) {
	f.State = &StateSummary{Header: file.Header(), Info: file.Info()}
}

// verifier is one run of Verify.
type verifier struct {
	ctx         context.Context
	d           *Dir
	opt         VerifyOptions
	each        func(Finding)
	services    []*serviceFiles
	moduleFiles []string
	modules     map[moduleDigest]error // kept: nil, or what is wrong with it
	done, total int64
}

type serviceFiles struct {
	name  string
	files []stateFile
}

// collect lists what there is.
func (v *verifier) collect() error {
	entries := func(folder string) ([]vfs.Entry, error) {
		list, err := v.d.fs.ReadDir(folder)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return list, err
	}
	modules, err := entries(modulesPlace)
	if err != nil {
		return err
	}
	for _, e := range modules {
		if e.Type.IsRegular() {
			v.moduleFiles = append(v.moduleFiles, e.Name)
			v.total += v.d.size(path.Join(modulesPlace, e.Name))
		}
	}
	services, err := entries(statesFolder)
	if err != nil {
		return err
	}
	for _, e := range services {
		if !e.Type.IsDir() || CheckName(e.Name) != nil {
			continue
		}
		list, err := entries(path.Join(statesFolder, e.Name))
		if err != nil {
			return err
		}
		s := &serviceFiles{name: e.Name}
		for _, e := range list {
			if f, ok := parseName(e.Name); ok && e.Type.IsRegular() {
				s.files = append(s.files, f)
				if f.kind == newest || f.kind == older {
					v.total += v.d.size(path.Join(statesFolder, s.name, e.Name))
				}
			}
		}
		v.services = append(v.services, s)
	}
	return nil
}

// counted reports progress.
type counted struct {
	io.ReaderAt
	v *verifier
}

func (c counted) ReadAt(b []byte, off int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(b, off)
	c.v.done += int64(n)
	if c.v.opt.Progress != nil {
		c.v.opt.Progress(min(c.v.done, c.v.total), c.v.total)
	}
	return n, err
}

// module checks one file of the modules' folder.
func (v *verifier) module(name string) {
	file := path.Join(modulesPlace, name)
	found := Finding{Path: vfs.Path(v.d.fs, file), Kind: KindModule, Size: v.d.size(file)}
	v.done += found.Size
	digits, isModule := strings.CutSuffix(name, moduleSuffix)
	sum, err := hex.DecodeString(digits)
	switch {
	case isModuleTemp(name), isPinsTemp(name):
		found.Kind = KindTemporary
	case strings.Contains(name, moduleSuffix+damagedInfix), isPinsAside(name):
		found.Kind = KindSetAside
	case !isModule || err != nil || len(sum) != len(moduleDigest{}):
		return // nothing of ours
	default:
		digest := moduleDigest(sum)
		_, found.Err = v.d.readModule(digest)
		found.Left = found.Err
		if v.opt.Repair && errors.Is(found.Err, abi.ErrCorrupt) {
			var err error
			if found.Repair, err = v.replaceModule(digest, name); err != nil {
				found.Err = fmt.Errorf("%w; and it could not be repaired: %w", found.Err, err)
				found.Left = found.Err
			} else {
				found.Left = nil
			}
		}
		v.modules[digest] = found.Left
		if found.Repair != "" && !v.d.exists(file) {
			delete(v.modules, digest) // moved aside, and this program has none to put in its place
		}
	}
	v.each(found)
}

// replaceModule moves a damaged module aside and puts back the one built in, if there is one.
func (v *verifier) replaceModule(digest moduleDigest, name string) (done string, err error) {
	done, err = v.moveAside(name)
	if err == nil && v.restoreModule(digest) {
		done += "; this program's own copy is in its place"
	}
	return done, err
}

// moveAside renames a damaged file of the modules' folder and says how.
func (v *verifier) moveAside(name string) (done string, err error) {
	var aside string
	for at := v.d.now().UTC(); ; at = at.Add(time.Second) {
		aside = name + damagedInfix + at.Format(damagedLayout)
		_, err := v.d.sizeOf(path.Join(modulesPlace, aside))
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return "", err
		}
	}
	if err := errors.Join(v.d.fs.Rename(path.Join(modulesPlace, name), path.Join(modulesPlace, aside)), vfs.SyncFolder(v.d.fs, modulesPlace)); err != nil {
		return "", err
	}
	return "moved aside as " + vfs.Path(v.d.fs, path.Join(modulesPlace, aside)), nil
}

// restoreModule puts a module back that this program has built in.
func (v *verifier) restoreModule(digest moduleDigest) bool {
	if v.opt.Module == nil {
		return false
	}
	wasm, ok := v.opt.Module(digest)
	return ok && v.d.keepModule(digest, wasm) == nil
}

// pins checks what is pinned, when the modules have been looked at.
func (v *verifier) pins() Finding {
	found := Finding{Path: vfs.Path(v.d.fs, pinsPath()), Kind: KindPins, Size: v.d.size(pinsPath())}
	pins, err := v.d.readPins()
	found.Err, found.Left = err, err
	if v.opt.Repair && errors.Is(err, abi.ErrCorrupt) {
		if found.Repair, err = v.moveAside(pinsName); err != nil {
			found.Err = fmt.Errorf("%w; and it could not be repaired: %w", found.Err, err)
			found.Left = found.Err
		} else {
			found.Left = nil
		}
	}
	for _, p := range pins {
		problem, kept := v.modules[p.Digest]
		if kept && problem == nil {
			continue
		}
		if !kept {
			problem = fmt.Errorf("module %s: %w", vfs.Path(v.d.fs, modulePath(p.Digest)), abi.ErrNotFound)
		}
		problem = fmt.Errorf("%s: %s %s is pinned and is not kept; add it again with torpor module add: %w", found.Path, p.Name, p.Version, problem)
		found.Err, found.Missing = errors.Join(found.Err, problem), true
		if v.opt.Repair && !kept && v.restoreModule(p.Digest) {
			v.modules[p.Digest] = nil
			found.Repair = "a pinned serializer, which this program has built in, was put back"
			continue
		}
		found.Left = errors.Join(found.Left, problem)
	}
	return found
}

// file checks one file of a service's folder.
func (v *verifier) file(s *serviceFiles, f stateFile) {
	id := PartID{Service: s.name, Part: f.part}
	name := path.Join(id.folder(), f.name())
	found := Finding{Path: vfs.Path(v.d.fs, name), Kind: KindState, Size: v.d.size(name)}
	switch f.kind {
	case damaged:
		found.Kind = KindSetAside
	case temp:
		found.Kind = KindTemporary
	default:
		found = v.state(id, f, name)
	}
	v.each(found)
}

// state checks a generation.
func (v *verifier) state(id PartID, f stateFile, name string) Finding {
	full := vfs.Path(v.d.fs, name)
	handle, err := v.d.fs.OpenFile(name, vfs.Read)
	if err != nil {
		return Finding{Path: full, Kind: KindState, Err: err, Left: err}
	}
	size, err := handle.Size()
	if err != nil {
		err = errors.Join(err, handle.Close())
		return Finding{Path: full, Kind: KindState, Err: err, Left: err}
	}
	found := VerifyFile(v.ctx, counted{handle, v}, size, full)
	v.place(id, f, handle, &found)
	found.Left = found.Err
	if v.opt.Repair && errors.Is(found.Err, abi.ErrCorrupt) && !found.Torn { // the next start sees to a torn end
		if found.Repair, err = v.repair(id, f, found); err != nil {
			found.Err = fmt.Errorf("%w; and it could not be repaired: %w", found.Err, err)
			found.Left = found.Err
		} else {
			found.Left = nil
		}
	}
	if err := handle.Close(); err != nil {
		found.Err, found.Left = errors.Join(found.Err, err), errors.Join(found.Left, err)
	}
	if found.State != nil {
		v.needs(&found)
	}
	return found
}

// place holds what was found of a file against its name.
func (v *verifier) place(id PartID, f stateFile, handle io.ReaderAt, found *Finding) {
	if f.kind == older {
		found.Torn = false // it was whole once
	}
	if found.State == nil {
		return
	}
	h := found.State.Header
	number := f.generation
	if found.Err != nil {
		number = 0 // what is good of it is an earlier one
	}
	err := claims(h, found.Path, id, number)
	if err == nil {
		return
	}
	found.Err = errors.Join(found.Err, err)
	// It may have got its name to be cut, when its end was found damaged (cutAndKeep).
	for _, s := range found.saves {
		if f.kind == older && s.Generation == f.generation && found.Good == 0 && claims(h, found.Path, id, 0) == nil {
			if good, err := statefile.Open(handle, s.End, found.Path); err == nil {
				found.Good, found.tail = s.End, good.Tail()
				found.summarize(good)
				return
			}
		}
	}
	found.Good, found.Torn, found.State = 0, false, nil
}

// needs checks that the serializer of a state is kept.
func (v *verifier) needs(found *Finding) {
	by := found.State.Header.Serializer
	problem, kept := v.modules[by.Digest]
	if kept && problem == nil {
		return
	}
	if !kept {
		problem = fmt.Errorf("module %s: %w", vfs.Path(v.d.fs, modulePath(by.Digest)), abi.ErrNotFound)
	}
	missing := fmt.Errorf("%s: its serializer, %s %s, is not kept, and is needed where no other reads schema %d: %w",
		found.Path, by.Name, by.Version, by.Schema, problem)
	if v.opt.Repair && !kept && v.restoreModule(by.Digest) {
		v.modules[by.Digest] = nil
		if found.Err == nil {
			found.Err, found.Missing = missing, true
		}
		found.Repair = strings.TrimPrefix(found.Repair+"; its serializer, which this program has built in, was put back", "; ")
		return
	}
	found.Missing = found.Err == nil
	found.Err, found.Left = errors.Join(found.Err, missing), errors.Join(found.Left, missing)
}

// repair moves a damaged file aside, or what is damaged of its end, as a runtime that finds it would.
func (v *verifier) repair(id PartID, f stateFile, found Finding) (done string, err error) {
	p := &part{bad: map[uint64]error{}}
	files, err := v.d.list(id)
	if err != nil {
		return "", err
	}
	p.see(files)
	b := badFile{stateFile: f, err: found.Err}
	for _, s := range found.saves {
		if s.End > found.Good {
			b.generations = append(b.generations, s.Generation)
		}
	}
	if found.Good > 0 {
		p.high = max(p.high, found.tail.Header().Generation) // the numbers behind it are above
		b.cut = &cut{end: found.Good, good: found.tail}
	}
	q := v.d.setAside(id, p, b)
	if q.MoveErr != nil {
		return "", q.MoveErr
	}
	if found.Good > 0 {
		return fmt.Sprintf("what is behind its first %d bytes was moved aside as %s", found.Good, q.Path), nil
	}
	return "moved aside as " + q.Path, nil
}
