package snapshot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/statedir"
)

// Generations opens what a state directory holds of services (none: of all): of every part the newest sound generation, or
// with back the one that many before it. Generations that are damaged are not counted, and nothing is done about them.
//
// Close it. The error wraps abi.ErrNotFound and names the service that has nothing there, or the part that has no such
// generation; others say what cannot be opened, abi.ErrVersion if it is of a later Torpor.
func Generations(dir *statedir.Dir, back int, services ...string) (*Snapshot, error) {
	ids, err := dir.Parts()
	if err != nil {
		return nil, err
	}
	for _, name := range services {
		if !slices.ContainsFunc(ids, func(id statedir.PartID) bool { return id.Service == name }) {
			return nil, fmt.Errorf("saved state of service %q: %w", name, abi.ErrNotFound)
		}
	}
	var opened []*statedir.Opened
	closeAll := func() error {
		var errs []error
		for _, o := range opened {
			errs = append(errs, o.Close())
		}
		return errors.Join(errs...)
	}
	var info Info
	var parts []Part
	for _, id := range ids {
		if len(services) > 0 && !slices.Contains(services, id.Service) {
			continue
		}
		o, err := openGeneration(dir, id, back)
		if err != nil {
			return nil, errors.Join(err, closeAll())
		}
		opened = append(opened, o)
		parts = append(parts, Part{Service: id.Service, Name: id.Part, File: o.File()})
		if at := o.File().Header().Created; at.After(info.Created) {
			info.Created = at
		}
	}
	module := func(_ context.Context, digest [sha256.Size]byte) ([]byte, error) { return dir.Module(digest) }
	s, err := New(info, parts, module, closeAll)
	if err != nil {
		return nil, errors.Join(err, closeAll())
	}
	return s, nil
}

// openGeneration opens the sound generation of a part that is back before the newest.
func openGeneration(dir *statedir.Dir, id statedir.PartID, back int) (*statedir.Opened, error) {
	for again := 0; ; again++ {
		sound, err := soundGenerations(dir, id)
		if err != nil {
			return nil, err
		}
		if back >= len(sound) {
			return nil, fmt.Errorf("state of %v: a generation %d before the newest: %w; of those kept %d can be read", id, back, abi.ErrNotFound, len(sound))
		}
		// A save may have removed it meanwhile.
		if o, err := dir.Open(id.Service, id.Part, sound[back]); err == nil || !errors.Is(err, abi.ErrNotFound) || again == 3 {
			return o, err
		}
	}
}

// soundGenerations lists the numbers of a part's generations that are not damaged, from the newest on.
func soundGenerations(dir *statedir.Dir, id statedir.PartID) ([]uint64, error) {
	all, err := dir.Generations(id.Service, id.Part)
	if err != nil {
		return nil, err
	}
	var sound []uint64
	for _, g := range all {
		switch {
		case g.Err == nil:
			sound = append(sound, g.Number)
		case !errors.Is(g.Err, abi.ErrCorrupt):
			return nil, fmt.Errorf("state of %v: %w", id, g.Err)
		}
	}
	return sound, nil
}
