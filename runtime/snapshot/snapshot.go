package snapshot

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// MaxParts is how many parts a snapshot may have.
const MaxParts = 4096

// Info is what is known of a snapshot as a whole.
type Info struct {
	Name        string    // "": it has none
	Version     uint64    // from 1; 0: it is no version of a named snapshot
	Created     time.Time // UTC
	Torpor      string    // version of the program that made it
	Description string
}

// Snapshot is the states of services at one time. Its fields are not to be changed; it is safe for concurrent use as
// far as its files are, which those of this house are. Close it.
type Snapshot struct {
	Info
	// Parts are ordered by service and name, no two alike.
	Parts []Part
	// Module reads the serializer of that digest that a part was written by; the error wraps abi.ErrNotFound where it
	// does not come with the snapshot.
	Module func(ctx context.Context, digest [sha256.Size]byte) ([]byte, error)

	close []func() error
}

// Part is the state of one part of a service.
type Part struct {
	Service string
	Name    string // store, backend, assets
	File    *statefile.File
}

// New makes a snapshot of parts, which it sorts. done is called once, by Close; may be nil. The error says what is
// wrong with the parts: a name that cannot be one, two that are the same, one whose file is another part's, or more
// than MaxParts (abi.ErrTooLarge); done has not been called then. A nil module is one that finds nothing.
func New(info Info, parts []Part, module func(context.Context, [sha256.Size]byte) ([]byte, error), done func() error) (*Snapshot, error) {
	if len(parts) > MaxParts {
		return nil, fmt.Errorf("a snapshot of %d parts: %w; there may be %d", len(parts), abi.ErrTooLarge, MaxParts)
	}
	if module == nil {
		module = func(_ context.Context, digest [sha256.Size]byte) ([]byte, error) {
			return nil, fmt.Errorf("serializer module %x: %w: it does not come with the snapshot", digest, abi.ErrNotFound)
		}
	}
	s := &Snapshot{Info: info, Parts: slices.Clone(parts), Module: module}
	slices.SortFunc(s.Parts, Part.compare)
	for i, p := range s.Parts {
		for _, name := range []string{p.Service, p.Name} {
			if err := statedir.CheckName(name); err != nil {
				return nil, fmt.Errorf("snapshot: part %s: %w: %w", p, abi.ErrCorrupt, err)
			}
		}
		if i > 0 && p.compare(s.Parts[i-1]) == 0 {
			return nil, fmt.Errorf("snapshot: part %s is in it twice: %w", p, abi.ErrCorrupt)
		}
		if h := p.File.Header(); h.Service != p.Service || h.Part != p.Name {
			return nil, fmt.Errorf("snapshot: the state file of part %s is that of %s/%s: %w", p, h.Service, h.Part, abi.ErrCorrupt)
		}
	}
	if done != nil {
		s.close = append(s.close, done)
	}
	return s, nil
}

func (p Part) String() string { return p.Service + "/" + p.Name }

func (p Part) compare(q Part) int {
	return cmp.Or(strings.Compare(p.Service, q.Service), strings.Compare(p.Name, q.Name))
}

// Services names the services there is a part of, in order.
func (s *Snapshot) Services() []string {
	var names []string
	for _, p := range s.Parts {
		names = append(names, p.Service)
	}
	return slices.Compact(names)
}

// Of gives the parts of one service.
func (s *Snapshot) Of(service string) []Part {
	return slices.DeleteFunc(slices.Clone(s.Parts), func(p Part) bool { return p.Service != service })
}

// Part finds a part; ok is false where there is none.
func (s *Snapshot) Part(service, name string) (p Part, ok bool) {
	i, ok := slices.BinarySearchFunc(s.Parts, Part{Service: service, Name: name}, Part.compare)
	if !ok {
		return Part{}, false
	}
	return s.Parts[i], true
}

// Only leaves out what is of other services than those named; none named: nothing is. It shares the files: close the
// one or the other, once. The error wraps abi.ErrNotFound and names a service that is not in the snapshot.
func (s *Snapshot) Only(services ...string) (*Snapshot, error) {
	if len(services) == 0 {
		return s, nil
	}
	there := s.Services()
	for _, name := range services {
		if !slices.Contains(there, name) {
			return nil, fmt.Errorf("service %q: %w in the snapshot; it has %q", name, abi.ErrNotFound, there)
		}
	}
	only := *s
	only.Parts = slices.DeleteFunc(slices.Clone(s.Parts), func(p Part) bool { return !slices.Contains(services, p.Service) })
	return &only, nil
}

// Size is how many bytes the state files take.
func (s *Snapshot) Size() int64 {
	var n int64
	for _, p := range s.Parts {
		n += p.File.Info().Size
	}
	return n
}

// Modules lists the digests of the serializers that the parts were written by, each once, in order.
func (s *Snapshot) Modules() [][sha256.Size]byte {
	var all [][sha256.Size]byte
	for _, p := range s.Parts {
		all = append(all, p.File.Header().Serializer.Digest)
	}
	slices.SortFunc(all, func(a, b [sha256.Size]byte) int { return slices.Compare(a[:], b[:]) })
	return slices.Compact(all)
}

// Close gives back what the snapshot holds. Its files must not be used after it.
func (s *Snapshot) Close() error {
	var errs []error
	for _, f := range s.close {
		errs = append(errs, f())
	}
	s.close = nil
	return errors.Join(errs...)
}
