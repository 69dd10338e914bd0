package snapshot

import (
	"bytes"
	"cmp"
	"context"
	"fmt"

	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// Kinds of changes.
const (
	Added   = "added"
	Changed = "changed"
	Removed = "removed"
)

// Change is a record that two snapshots do not have alike. What it points to is valid until the function it was handed
// to returns.
type Change struct {
	Service   string
	Part      string
	Partition string
	Key       []byte // a CBOR item: text or bytes
	Before    []byte // the value, a CBOR item; nil: there was none
	After     []byte // the value, a CBOR item; nil: there is none any more
}

// Kind is Added, Changed or Removed.
func (c Change) Kind() string {
	switch {
	case c.Before == nil:
		return Added
	case c.After == nil:
		return Removed
	}
	return Changed
}

// Stat sums up how one part differs, in records.
type Stat struct {
	Service string `json:"service"`
	Part    string `json:"part"`
	Added   uint64 `json:"added"`
	Changed uint64 `json:"changed"`
	Removed uint64 `json:"removed"`
	Same    uint64 `json:"same"`
	// BytesAdded and BytesRemoved are the bytes of records that only the newer one has, and only the older one. A
	// changed record counts in both.
	BytesAdded   uint64 `json:"bytes_added"`
	BytesRemoved uint64 `json:"bytes_removed"`
	// Incomparable says why the records of the two could not be held against each other; then nothing was counted.
	// "": they could.
	Incomparable string `json:"incomparable,omitempty"`
}

// Equal reports whether the part is known to be the same in both.
func (s Stat) Equal() bool { return s.Added+s.Changed+s.Removed == 0 && s.Incomparable == "" }

// Diff compares two snapshots part by part and tells each of every record that is not alike in both; a service or part
// that only one has is all added or removed. It returns one Stat for each part that either has, in their order, by service
// and part. A nil each is told nothing.
//
// Of each part what was added or changed comes first, in the order in which to has it, then what was removed, in the order
// of from. Records are alike if their values are the same bytes. That they stand in another order is no change. Chunks that
// both files have are not read, unless one of them has deltas: so what it costs follows what differs. In memory are some
// bytes of each record of the other chunks of from, and what they hold is put into a temporary file where it is large. The
// error wraps abi.ErrTooLarge for more than MaxMergeRecords of them in a part; others are each's, or those of a file that
// cannot be read. The changes up to an error have been told, and the Stats of whole parts are returned.
func Diff(ctx context.Context, from, to *Snapshot, each func(Change) error) ([]Stat, error) {
	if each == nil {
		each = func(Change) error { return nil }
	}
	var stats []Stat
	a, b := from.Parts, to.Parts
	for len(a)+len(b) > 0 {
		d := differ{ctx: ctx, each: each}
		order := -1
		switch {
		case len(a) == 0:
			order = 1
		case len(b) > 0:
			order = a[0].compare(b[0])
		}
		var was, is *statefile.File
		if order <= 0 {
			was, d.stat.Service, d.stat.Part = a[0].File, a[0].Service, a[0].Name
			a = a[1:]
		}
		if order >= 0 {
			is, d.stat.Service, d.stat.Part = b[0].File, b[0].Service, b[0].Name
			b = b[1:]
		}
		if err := d.part(was, is); err != nil {
			return stats, fmt.Errorf("diff of %s/%s: %w", d.stat.Service, d.stat.Part, err)
		}
		stats = append(stats, d.stat)
	}
	return stats, nil
}

// differ compares one part.
type differ struct {
	ctx  context.Context
	each func(Change) error
	stat Stat
}

func (d *differ) part(was, is *statefile.File) error {
	switch {
	case was == nil:
		return each(d.ctx, is.Records(), func(b *record.Batch) error { return d.all(b, (*differ).added) })
	case is == nil:
		return each(d.ctx, was.Records(), func(b *record.Batch) error { return d.all(b, (*differ).removed) })
	}
	if d.stat.Incomparable = incomparable(was, is); d.stat.Incomparable != "" {
		return nil
	}
	before, after, same := statefile.Differing(was, is)
	d.stat.Same = same
	x := newIndex("", "")
	defer x.close()
	if err := x.read(d.ctx, before); err != nil {
		return err
	}
	err := each(d.ctx, after, func(b *record.Batch) error {
		for i := range b.Refs {
			at, ok := x.find(b, i)
			if !ok {
				if err := d.added(b, i); err != nil {
					return err
				}
				continue
			}
			x.entries[at].flags |= matched
			had, err := x.batch(at)
			if err != nil {
				return err
			}
			if bytes.Equal(had.Data, b.Record(i)) {
				d.stat.Same++
				continue
			}
			d.stat.Changed++
			d.stat.BytesAdded += uint64(len(b.Record(i)))
			d.stat.BytesRemoved += uint64(len(had.Data))
			if err := d.tell(b, i, had.Value(0), b.Value(i)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for at := range x.entries {
		if x.entries[at].flags&matched != 0 {
			continue
		}
		had, err := x.batch(uint32(at))
		if err == nil {
			err = d.removed(had, 0)
		}
		if err = cmp.Or(err, d.ctx.Err()); err != nil {
			return err
		}
	}
	return nil
}

func (d *differ) all(b *record.Batch, do func(*differ, *record.Batch, int) error) error {
	for i := range b.Refs {
		if err := do(d, b, i); err != nil {
			return err
		}
	}
	return nil
}

func (d *differ) added(b *record.Batch, i int) error {
	d.stat.Added++
	d.stat.BytesAdded += uint64(len(b.Record(i)))
	return d.tell(b, i, nil, b.Value(i))
}

func (d *differ) removed(b *record.Batch, i int) error {
	d.stat.Removed++
	d.stat.BytesRemoved += uint64(len(b.Record(i)))
	return d.tell(b, i, b.Value(i), nil)
}

func (d *differ) tell(b *record.Batch, i int, before, after []byte) error {
	return d.each(Change{Service: d.stat.Service, Part: d.stat.Part, Partition: string(b.Partition(i)), Key: b.KeyItem(i),
		Before: before, After: after})
}
