package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// Strategy says what becomes of the state that is there when a snapshot is loaded. The names are LocalStack's.
type Strategy string

// The strategies.
const (
	// AccountRegionMerge: every named partition (account and region) that the snapshot has takes the place of that
	// partition, wholly; partitions that only the live state has stay. Records of no account, of partition "", are
	// merged as by ServiceMerge where either of the two has a named partition, else the snapshot's take the place of
	// all. What is inside of a record of a partition, by its key, goes with it.
	AccountRegionMerge Strategy = "account-region-merge"
	// Overwrite: the snapshot takes the place of all there is.
	Overwrite Strategy = "overwrite"
	// ServiceMerge: records of the snapshot take the place of those of the same partition and key, what else there is
	// stays, and new ones are added.
	ServiceMerge Strategy = "service-merge"
)

// Strategies lists all strategies, the default first.
func Strategies() []Strategy { return []Strategy{AccountRegionMerge, Overwrite, ServiceMerge} }

// MaxMergeRecords is how many records a merge or a diff remembers at most: those of the state that is loaded, or of the
// older of two parts of which not all chunks are the same. Of each some 60 bytes are held in memory.
const MaxMergeRecords = 8 << 20

// Merged says what a merge changes in the live state of one part, in records.
type Merged struct {
	Added   uint64 `json:"added"`
	Changed uint64 `json:"changed"` // of the same partition and key, with another value
	Removed uint64 `json:"removed"`
	Kept    uint64 `json:"kept"` // of live, left as they are
}

// MergeOptions of Merge.
type MergeOptions struct {
	Strategy Strategy // "": the first of Strategies
	// Nesting and Ordered are what the serializer's descriptor says: see abi.Descriptor.
	Nesting string
	Ordered bool
	Folder  string // for temporary files; "": the system's
}

// Merge writes to sink what the state of a part is when in is loaded over live, which may be nil: nothing is there. A nil
// sink is given nothing, so that only what would change is counted. Both are read up to three times and left as they are.
//
// The records of in come out all, and each once. Live's keep their order. What only in has comes right behind what
// stands before it in in, inside of the same record and of the same partition, and behind all that is inside of that; or
// first, if nothing does. Three things come elsewhere: entries that are numbered, in rising order, which is then kept;
// a record that closes another one, as the last; and everything of an Ordered serializer, which comes in the order of its
// keys. A record of live whose value becomes one of another sort (see abi.Descriptor's Nesting) loses what is inside of it,
// unless in has that, too; so does one whose record is removed.
//
// In memory are some bytes of each record of in, and what it holds is put into a temporary file where it is large. The error
// wraps abi.ErrTooLarge for more than MaxMergeRecords of them, though Overwrite takes any number and compares no more; or is
// that of a state, which cannot be read, or of sink. Of a live state that is damaged Overwrite counts all as removed.
func Merge(ctx context.Context, live, in *statefile.File, m MergeOptions, sink record.Sink) (Merged, error) {
	if m.Strategy == "" {
		m.Strategy = Strategies()[0]
	}
	if !slices.Contains(Strategies(), m.Strategy) {
		return Merged{}, fmt.Errorf("merge strategy %q: there are %q", m.Strategy, Strategies())
	}
	if live == nil {
		return Merged{Added: in.Info().Records}, pass(ctx, in, sink)
	}
	if m.Strategy == AccountRegionMerge && !named(live) && !named(in) {
		m.Strategy = Overwrite
	}
	why := incomparable(live, in)
	if m.Strategy == Overwrite {
		counts := Merged{Added: in.Info().Records, Removed: live.Info().Records}
		if why == "" && in.Info().Records <= MaxMergeRecords {
			var err error
			counts, err = compared(ctx, live, in, m)
			if errors.Is(err, errLive) && ctx.Err() == nil {
				counts, err = Merged{Added: in.Info().Records, Removed: live.Info().Records}, nil
			}
			if err != nil {
				return Merged{}, err
			}
		}
		return counts, pass(ctx, in, sink)
	}
	if why != "" {
		return Merged{}, fmt.Errorf("the states cannot be merged: %s; load the snapshot with the merge strategy %s", why, Overwrite)
	}
	if same(live, in) {
		return Merged{Kept: in.Info().Records}, pass(ctx, in, sink)
	}
	g := newMerger(m, live, in)
	defer g.in.close()
	if err := g.in.read(ctx, in.Records()); err != nil {
		return Merged{}, err
	}
	if err := g.plan(ctx); err != nil {
		return Merged{}, err
	}
	if sink == nil {
		return g.counts, nil
	}
	return g.counts, g.write(ctx, sink)
}

// errLive marks an error of the live state.
var errLive = errors.New("the live state")

// same reports whether two files are known to hold the same records in the same order.
func same(a, b *statefile.File) bool {
	x, y := a.Info(), b.Info()
	return x.Deltas == 0 && y.Deltas == 0 && x.Root == y.Root
}

// named reports whether a file has records of an account.
func named(f *statefile.File) bool {
	return slices.ContainsFunc(f.Partitions(), func(p statefile.Partition) bool { return p.Name != "" })
}

// incomparable says why the records of two files mean different things, or nothing.
func incomparable(a, b *statefile.File) string {
	x, y := a.Header().Serializer, b.Header().Serializer
	switch {
	case x.Name != y.Name:
		return fmt.Sprintf("the records of the one are by the serializer %s, those of the other by %s", x.Name, y.Name)
	case x.Schema != y.Schema:
		return fmt.Sprintf("the records of the one are of schema %d of the serializer %s, those of the other of %d", x.Schema, x.Name, y.Schema)
	}
	return ""
}

// pass gives all records of f to sink.
func pass(ctx context.Context, f *statefile.File, sink record.Sink) error {
	if sink == nil {
		return nil
	}
	return each(ctx, f.Records(), sink.WriteBatch)
}

// each hands out a source's batches until it ends.
func each(ctx context.Context, from record.Source, do func(*record.Batch) error) error {
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		b, err := from.ReadBatch()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := do(b); err != nil {
			return err
		}
	}
}

// compared counts what becomes of live when in takes its place.
func compared(ctx context.Context, live, in *statefile.File, m MergeOptions) (Merged, error) {
	if same(live, in) {
		return Merged{Kept: in.Info().Records}, nil
	}
	x := newIndex("", m.Folder)
	defer x.close()
	if err := x.read(ctx, in.Records()); err != nil {
		return Merged{}, err
	}
	var c Merged
	var found uint64
	source := live.Records()
	for {
		b, err := source.ReadBatch()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return Merged{}, fmt.Errorf("%w: %w", errLive, err)
		}
		for i := range b.Refs {
			at, ok := x.find(b, i)
			if !ok || x.entries[at].flags&matched != 0 {
				c.Removed++
				continue
			}
			x.entries[at].flags |= matched
			found++
			record, err := x.record(at)
			if err != nil {
				return Merged{}, err
			}
			if string(record) == string(b.Record(i)) {
				c.Kept++
			} else {
				c.Changed++
			}
		}
	}
	c.Added = uint64(len(x.entries)) - found
	return c, nil
}

// Replaced lists the partitions of live that a merge replaces wholly, in live's order: what they had goes, but for what
// in has too. live may be nil.
func Replaced(live, in *statefile.File, strategy Strategy) []string {
	replaced := []string{}
	if live == nil || strategy == ServiceMerge {
		return replaced
	}
	had, has := live.Partitions(), in.Partitions()
	named := func(p statefile.Partition) bool { return p.Name != "" }
	accounts := slices.ContainsFunc(had, named) || slices.ContainsFunc(has, named)
	for _, p := range had {
		there := slices.ContainsFunc(has, func(q statefile.Partition) bool { return q.Name == p.Name })
		if strategy == Overwrite || there && (named(p) || !accounts) {
			replaced = append(replaced, p.Name)
		}
	}
	return replaced
}

// A RefusedError says that the serializer does not take the records that a merge made: some keep no order that a merge
// could know, or hold pieces that belong together, such as those of raw and files. Nothing has been changed.
type RefusedError struct {
	Serializer string
	Strategy   Strategy
	Err        error // what the serializer says
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the serializer %s does not take the two states merged record by record (%s): %v; load the snapshot with the merge strategy %s",
		e.Serializer, e.Strategy, e.Err, Overwrite)
}

func (e *RefusedError) Unwrap() error { return e.Err }

// tooMany is the error of more records than are remembered.
func tooMany() error {
	return fmt.Errorf("more than %d records: %w for a merge or diff record by record", MaxMergeRecords, abi.ErrTooLarge)
}
