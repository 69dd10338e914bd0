package cli

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// savedPart is a part of a service that something is saved of, found in a data folder that may be in use.
type savedPart struct {
	statedir.PartID
	files []savedFile // the newest first
}

// savedFile is one file of a part.
type savedFile struct {
	path       string
	generation uint64 // 0: it is the newest file
}

// savedParts lists what is saved in a data folder of services, or of all, by service and part. It takes no lock and
// changes nothing. The error wraps abi.ErrNotFound where there is no data folder, or nothing of a service.
func savedParts(data string, services ...string) ([]savedPart, error) {
	folder := filepath.Join(data, "state", "api_states") // see package statedir
	if _, err := os.Stat(data); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("data folder %s: %w; name another with --data", data, abi.ErrNotFound)
	}
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("data folder %s: %w", data, err)
	}
	var found []savedPart
	for _, e := range entries {
		if !e.IsDir() || statedir.CheckName(e.Name()) != nil || len(services) > 0 && !slices.Contains(services, e.Name()) {
			continue
		}
		parts, err := partsIn(filepath.Join(folder, e.Name()), e.Name())
		if err != nil {
			return nil, err
		}
		found = append(found, parts...)
	}
	for _, name := range services {
		if !slices.ContainsFunc(found, func(p savedPart) bool { return p.Service == name }) {
			return nil, fmt.Errorf("service %s: %w in the data folder %s", name, abi.ErrNotFound, data)
		}
	}
	return found, nil
}

// partsIn lists the parts in a service's folder.
func partsIn(folder, service string) (found []savedPart, _ error) {
	entries, err := os.ReadDir(folder) // ordered by name, so that a part's files are together
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		part, rest, ok := strings.Cut(e.Name(), ".state")
		if !ok || !e.Type().IsRegular() || statedir.CheckName(part) != nil {
			continue
		}
		f := savedFile{path: filepath.Join(folder, e.Name())}
		if rest != "" {
			digits, older := strings.CutPrefix(rest, ".g")
			f.generation, err = strconv.ParseUint(digits, 10, 64)
			if !older || err != nil {
				continue // damaged and moved aside, or temporary
			}
		}
		id := statedir.PartID{Service: service, Part: part}
		if len(found) == 0 || found[len(found)-1].PartID != id {
			found = append(found, savedPart{PartID: id})
		}
		last := &found[len(found)-1]
		last.files = append(last.files, f)
	}
	slices.SortFunc(found, func(a, b savedPart) int { return strings.Compare(a.Part, b.Part) })
	for _, p := range found {
		slices.SortFunc(p.files, func(a, b savedFile) int { // the newest file has 0, which is above all
			return cmp.Compare(b.generation-1, a.generation-1)
		})
	}
	return found, nil
}

// openedState is a state file that is open.
type openedState struct {
	*statefile.File
	handle *os.File
	torn   int64 // bytes behind it, of a save that did not come to its end
}

func (o *openedState) Close() error { return o.handle.Close() }

// openStateFile opens a state file, without what a save that did not come to its end has left behind it.
func openStateFile(ctx context.Context, path string) (*openedState, error) {
	handle, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("state file %s: %w", path, abi.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("state file: %w", err)
	}
	o := &openedState{handle: handle}
	info, err := handle.Stat()
	switch {
	case err != nil:
		err = fmt.Errorf("state file: %w", err)
	case !info.Mode().IsRegular():
		err = usageError{fmt.Errorf("%s is no file: name a state file, such as .torpor/state/api_states/s3/store.state", path)}
	default:
		o.File, err = statefile.Open(handle, info.Size(), path)
	}
	if errors.Is(err, abi.ErrCorrupt) {
		if end, torn, _ := statefile.LastGood(ctx, handle, info.Size(), path); torn && end > 0 {
			o.torn = info.Size() - end
			o.File, err = statefile.Open(handle, end, path)
		}
	}
	if err != nil {
		return nil, errors.Join(err, handle.Close())
	}
	return o, nil
}

// open opens the generation that many before the newest.
func (p savedPart) open(ctx context.Context, back int) (*openedState, error) {
	left := back
	for _, f := range p.files {
		o, err := openStateFile(ctx, f.path)
		if err != nil {
			return nil, err
		}
		saves := o.Saves()
		if left < len(saves) {
			if left > 0 {
				o.File, err = statefile.Open(o.handle, saves[len(saves)-1-left].End, f.path)
			}
			if err != nil {
				return nil, errors.Join(err, o.Close())
			}
			return o, nil
		}
		left -= len(saves)
		if err := o.Close(); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("part %s: generation %d before the newest: %w; %d are kept", p.PartID, back, abi.ErrNotFound, back-left)
}

// savedSnapshot is what a data folder, which may be in use, holds of services, or of all: of every part the generation that
// many before the newest. Close it.
func savedSnapshot(ctx context.Context, data string, back int, services ...string) (_ *snapshot.Snapshot, err error) {
	var s *snapshot.Snapshot
	// A save renames the newest file.
	for attempt := 0; attempt < 3; attempt++ {
		if s, err = trySaved(ctx, data, back, services...); err == nil || !errors.Is(err, abi.ErrNotFound) {
			break
		}
	}
	return s, err
}

func trySaved(ctx context.Context, data string, back int, services ...string) (_ *snapshot.Snapshot, err error) {
	found, err := savedParts(data, services...)
	if err != nil {
		return nil, err
	}
	fsys, err := vfs.OS(data)
	if err != nil {
		return nil, err
	}
	held := []func() error{fsys.Close}
	closeAll := func() error {
		var errs []error
		for _, c := range held {
			errs = append(errs, c())
		}
		return errors.Join(errs...)
	}
	info := snapshot.Info{}
	var parts []snapshot.Part
	for _, p := range found {
		o, err := p.open(ctx, back)
		if err != nil {
			return nil, errors.Join(err, closeAll())
		}
		held = append(held, o.Close)
		parts = append(parts, snapshot.Part{Service: p.Service, Name: p.Part, File: o.File})
		if at := o.Header().Created; at.After(info.Created) {
			info.Created = at
		}
	}
	if info.Created.IsZero() {
		info.Created = time.Unix(0, 0).UTC()
	}
	module := func(_ context.Context, digest [sha256.Size]byte) ([]byte, error) {
		if wasm, ok := builtIn(digest); ok {
			return wasm, nil
		}
		return statedir.ReadModule(fsys, digest)
	}
	s, err := snapshot.New(info, parts, module, closeAll)
	if err != nil {
		return nil, errors.Join(err, closeAll())
	}
	return s, nil
}
