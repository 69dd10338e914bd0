package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/torpor-run/torpor/runtime/notation"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
)

// Change is a record that two snapshots do not have alike: what a line of GET /_torpor/diff tells of.
type Change struct {
	Service     string `json:"service"`
	Part        string `json:"part"`
	Partition   string `json:"partition"`
	Key         any    `json:"key"`
	Kind        string `json:"kind"`         // added, changed or removed
	BytesBefore int    `json:"bytes_before"` // of the value, as it is saved; 0: there was none
	BytesAfter  int    `json:"bytes_after"`
	Before      *any   `json:"before,omitempty"` // left out: there was none, it was not asked for, or is longer than MaxValueBytes
	After       *any   `json:"after,omitempty"`
}

// diff answers with a line for each record that two snapshots do not have alike, then one that sums up.
func (s *server) diff(w http.ResponseWriter, r *http.Request, _ echo.Context) (err error) {
	p := parametersOf(r)
	from, to := referenceIn(p, "from", "saved"), referenceIn(p, "to", "live")
	services := p.list("service")
	stat, values := p.truth("stat", false), p.truth("values", true)
	if err := p.done(); err != nil {
		return err
	}
	key, err := keyOf(r)
	if err != nil {
		return err
	}
	n, err := notation.New()
	if err != nil {
		return err
	}
	older, err := s.resolve(r.Context(), from, key, services)
	if err != nil {
		return fmt.Errorf("from %s: %w", from, err)
	}
	defer s.closing(older)
	newer, err := s.resolve(r.Context(), to, key, services)
	if err != nil {
		return fmt.Errorf("to %s: %w", to, err)
	}
	defer s.closing(newer)
	lines := lineWriter{w: w}
	stats, err := snapshot.Diff(r.Context(), older, newer, func(c snapshot.Change) error {
		if stat {
			return nil
		}
		change := Change{Service: c.Service, Part: c.Part, Partition: c.Partition, Key: n.JSON(c.Key), Kind: c.Kind(),
			BytesBefore: len(c.Before), BytesAfter: len(c.After)}
		if values {
			change.Before, change.After = valueOf(n, c.Before), valueOf(n, c.After)
		}
		return lines.write(map[string]Change{"change": change})
	})
	if err != nil {
		return lines.fail(err)
	}
	if stats == nil {
		stats = []snapshot.Stat{}
	}
	_ = lines.write(map[string][]snapshot.Stat{"summary": stats})
	return nil
}

// referenceIn reads a parameter that says where a snapshot is.
func referenceIn(p *parameters, name, usual string) snapshot.Reference {
	text, there := p.text(name)
	if !there {
		text = usual
	}
	ref, err := reference(text)
	if err != nil {
		p.errs = append(p.errs, badRequest("parameter %s is %q: %w", name, text, err))
	}
	return ref
}

// reference reads where a snapshot is. The paths of files are those of the command line: to who calls from elsewhere
// they would show this machine's.
func reference(text string) (snapshot.Reference, error) {
	ref, err := snapshot.ParseReference(text)
	if err == nil && (ref.Kind == snapshot.ReferenceArchive || ref.Kind == snapshot.ReferenceState) {
		err = errors.New("files are for the commands of torpor only; import the file, or name live, saved, saved~N or snapshot:NAME@VERSION")
	}
	return ref, err
}

// resolve opens what a reference points to, and of that the services named, or all. Close it.
func (s *server) resolve(ctx context.Context, ref snapshot.Reference, key seal.Key, services []string) (*snapshot.Snapshot, error) {
	switch ref.Kind {
	case snapshot.ReferenceLive:
		return s.Runtime.Capture(ctx, services...)
	case snapshot.ReferenceSaved:
		return s.generations(ref.Back, services...)
	}
	return s.version(ctx, ref.Name, ref.Version, key, services)
}

// generations is what is saved: see runtime.Runtime.Generations.
func (s *server) generations(back int, services ...string) (*snapshot.Snapshot, error) {
	in, err := s.Runtime.Generations(back, services...)
	if err != nil && !s.Runtime.Persistent() {
		err = marked{err, errNothingSaved}
	}
	return in, err
}

// closing closes a snapshot that has been read.
func (s *server) closing(in *snapshot.Snapshot) {
	if err := in.Close(); err != nil {
		s.Logger.Warn("a snapshot that was read could not be closed", "snapshot", in.Name, "error", err)
	}
}
