package snapshot

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// none is no entry.
const none = ^uint32(0)

// What is known of an entry.
const (
	matched  uint16 = 1 << iota // the other state has a record of its partition and key
	equal                       // and that is the same
	placed                      // it comes where the other state's is
	wholly                      // what is inside of the other state's record is not kept
	closing                     // it closes what it is inside of
	numbered                    // it is called by a number
	unsorted                    // numbers of what is inside of it do not rise
	parted                      // something inside of it is of a named partition
	theirs                      // the other state's record stays, with what is inside of it
	dropped                     // it is inside of one of which the other state's stays
	written
)

// structure are the flags that do not depend on the other state, or are decided once.
const structure = closing | numbered | unsorted | parted | theirs

// entry is what is kept in memory of one record, in 16 bytes: there may be millions.
type entry struct {
	low   uint32 // of where it is in the spool
	end   uint32 // the entries up to it are inside of this one
	next  uint32 // of the outermost ones: the next of the same partition
	high  uint16
	flags uint16
}

// offset is where the record begins in the spool.
func (e entry) offset() uint64 { return uint64(e.high)<<32 | uint64(e.low) }

// maxSpool is how many bytes of records there may be, as an entry counts them.
const maxSpool = 1 << 48

// index is the records of a state in their order, found by partition and key. It is not safe for concurrent use.
type index struct {
	nesting nesting
	most    int // how many there may be
	at      map[[16]byte]uint32
	entries []entry
	spool   spool
	outer   map[string]*outermost
	parts   []*outermost // in the order in which they come first

	hash []byte
	scan record.Scanner
	refs []record.Ref
}

// outermost are the records of a partition that are inside of no other one.
type outermost struct {
	first, last uint32

	// For a merge:
	replaced bool // all of live's records of it go
	live     int  // how many outermost ones live has that have not come yet
	begun    bool
	ordered  uint32 // the next one to be placed by its key
}

func newIndex(nest nesting, folder string) *index {
	return &index{nesting: nest, most: MaxMergeRecords, at: map[[16]byte]uint32{}, spool: spool{folder: folder}, outer: map[string]*outermost{},
		scan: record.Scanner{MaxBytes: record.MaxMaxBytes}}
}

func (x *index) close() { x.spool.close() }

// digest identifies a record by its partition and key: so that nobody can make two of them alike it is a cryptographic one.
func (x *index) digest(b *record.Batch, i int) [16]byte {
	partition := b.Partition(i)
	x.hash = binary.LittleEndian.AppendUint32(x.hash[:0], uint32(len(partition)))
	x.hash = append(x.hash, partition...)
	x.hash = append(x.hash, b.KeyItem(i)...)
	sum := sha256.Sum256(x.hash)
	return [16]byte(sum[:16])
}

// find gives the entry of the same partition and key.
func (x *index) find(b *record.Batch, i int) (uint32, bool) {
	at, ok := x.at[x.digest(b, i)]
	return at, ok
}

// of gives the outermost records of a partition, which may be none.
func (x *index) of(partition []byte) *outermost {
	o := x.outer[string(partition)]
	if o == nil {
		o = &outermost{first: none, last: none, ordered: none}
		x.outer[string(partition)] = o
		x.parts = append(x.parts, o)
	}
	return o
}

// read takes in all records of a state.
func (x *index) read(ctx context.Context, from record.Source) error {
	var open stack[uint32]
	err := each(ctx, from, func(b *record.Batch) error {
		for i := range b.Refs {
			if len(x.entries) >= x.most || x.spool.size >= maxSpool {
				return tooMany()
			}
			at := uint32(len(x.entries))
			digest := x.digest(b, i)
			if _, twice := x.at[digest]; twice {
				key, _ := b.Key(i)
				return fmt.Errorf("partition %q, key %q: %w: there are two records of it", b.Partition(i), key, abi.ErrCorrupt)
			}
			x.at[digest] = at
			e := entry{low: uint32(x.spool.size), high: uint16(x.spool.size >> 32), next: none}
			if x.nesting != "" {
				key, _ := b.Key(i)
				for open.inside(x.nesting, b.Partition(i), key) < open.depth {
					x.entries[open.pop().data].end = at
				}
				if c := open.top(); c != nil {
					e.flags = x.called(c, key)
				}
				open.push(b.Partition(i), key, at)
				if len(b.Partition(i)) > 0 {
					for d := open.depth - 1; d > 0 && x.entries[open.frames[d-1].data].flags&parted == 0; d-- {
						x.entries[open.frames[d-1].data].flags |= parted
					}
				}
			} else {
				e.end = at + 1
			}
			if open.depth <= 1 {
				x.addOuter(b.Partition(i), at)
			}
			x.entries = append(x.entries, e)
			if err := x.spool.write(b.Record(i)); err != nil {
				return err
			}
		}
		return nil
	})
	for open.depth > 0 {
		x.entries[open.pop().data].end = uint32(len(x.entries))
	}
	if err == nil {
		err = x.spool.flush()
	}
	return err
}

func (x *index) addOuter(partition []byte, at uint32) {
	o := x.of(partition)
	if o.first == none {
		o.first = at
	} else {
		x.entries[o.last].next = at
	}
	o.last = at
}

// called says what the key of a record inside of c is: one that closes, or a number.
func (x *index) called(c *frame[uint32], key []byte) uint16 {
	if x.nesting.closes(c.key, key) {
		return closing
	}
	n, ok := x.nesting.number(c.key, key)
	if !ok {
		return 0
	}
	if c.numbers && n <= c.number {
		x.entries[c.data].flags |= unsorted
	}
	c.numbers, c.number = true, n
	return numbered
}

// record reads a record. It is valid until the next call.
func (x *index) record(at uint32) ([]byte, error) {
	end := uint64(x.spool.size)
	if int(at)+1 < len(x.entries) {
		end = x.entries[at+1].offset()
	}
	from := x.entries[at].offset()
	return x.spool.read(from, int(end-from))
}

// batch reads a record as a batch. It is valid until the next call of it or of record.
func (x *index) batch(at uint32) (*record.Batch, error) {
	data, err := x.record(at)
	if err != nil {
		return nil, err
	}
	if x.refs, err = x.scan.Scan(data, x.refs[:0]); err != nil {
		return nil, fmt.Errorf("a temporary file does not hold what was written to it: %w", err)
	}
	return &record.Batch{Data: data, Refs: x.refs}, nil
}

// sibling is what comes after at inside of the same record, which ends at end.
func (x *index) sibling(at, end uint32) uint32 {
	if next := x.entries[at].end; next < end {
		return next
	}
	return none
}
