package snapshot

import (
	"bytes"
	"context"

	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// mergeBatch is how many bytes of records are handed on at once, at least.
const mergeBatch = 64 << 10

// merger merges the records of one state, in, into those of another one, live, which it goes through twice: to see what
// both have, and then to write.
type merger struct {
	MergeOptions
	live   *statefile.File
	in     *index
	counts Merged
	// named are the partitions that in has but "", taken those of them that take the place of live's.
	named, taken map[string]bool

	open  stack[liveFrame]
	out   record.Batch
	sink  record.Sink
	order *outermost // of an Ordered serializer: the partition of the last record of live
}

// liveFrame is what is known of a record of live that is open.
type liveFrame struct {
	at   uint32 // the entry of in that takes its place; none: it is only in live
	gone bool   // nothing of live that is inside of it stays
	// differs says that this is only since in's record is of another sort, and holds nothing of a partition.
	differs bool
	next    uint32 // the next entry inside of at that comes in the order of its number
	goal    uint64 // that number
}

func newMerger(m MergeOptions, live, in *statefile.File) *merger {
	nest := nesting(m.Nesting)
	if m.Ordered {
		nest = "" // what stands where its key says needs no container
	}
	g := &merger{MergeOptions: m, live: live, in: newIndex(nest, m.Folder), named: map[string]bool{}}
	for _, p := range in.Partitions() {
		g.named[p.Name] = p.Name != ""
	}
	if m.Strategy == AccountRegionMerge {
		g.taken = g.named
	}
	return g
}

// plan goes through live and notes in the entries of in what becomes of them, and counts.
func (g *merger) plan(ctx context.Context) error {
	for {
		again := false
		if err := each(ctx, g.live.Records(), func(b *record.Batch) error {
			for i := range b.Refs {
				undecided, err := g.planRecord(b, i)
				if err != nil {
					return err
				}
				again = again || undecided
			}
			return nil
		}); err != nil {
			return err
		}
		g.open.depth = 0
		if !again {
			break
		}
		g.counts = Merged{}
		for _, o := range g.in.parts {
			o.live, o.replaced = 0, false
		}
		for at := range g.in.entries {
			g.in.entries[at].flags &= structure
		}
		for at, e := range g.in.entries {
			for inside := at + 1; e.flags&theirs != 0 && inside < int(e.end); inside++ {
				g.in.entries[inside].flags |= dropped
			}
		}
	}
	for at := range g.in.entries {
		if g.in.entries[at].flags&(matched|dropped) == 0 {
			g.counts.Added++
		}
	}
	return nil
}

// planRecord notes what becomes of a record of live. undecided says that what has been noted of others before does not
// hold, and all is to be planned again.
func (g *merger) planRecord(b *record.Batch, i int) (undecided bool, err error) {
	key, _ := b.Key(i)
	partition := b.Partition(i)
	if g.in.nesting != "" {
		g.open.depth = g.open.inside(g.in.nesting, partition, key)
	}
	within := g.open.top()
	at, both := g.find(b, i)
	again := both && g.in.entries[at].flags&matched != 0 // a second record of this key goes
	if both = both && !again; !both {
		at = none
	}
	gone := again || within != nil && within.data.gone
	taken := g.taken[string(partition)]
	if within == nil {
		if o := g.in.of(partition); taken {
			o.replaced = true
			gone = true
		} else {
			o.live++
		}
	}
	data := liveFrame{at: at, gone: gone}
	switch {
	case both:
		if err := g.planBoth(b, i, taken, &data); err != nil {
			return false, err
		}
	case gone || taken:
		data.gone = true
		g.counts.Removed++
	default:
		g.counts.Kept++
	}
	if g.in.nesting == "" {
		return false, nil
	}
	if len(partition) > 0 && !g.named[string(partition)] {
		undecided = g.stay()
	}
	if within != nil && within.data.at != none && !within.data.gone && !data.gone {
		g.numbers(within, key)
	}
	g.open.push(partition, key, data)
	return undecided, nil
}

// planBoth notes what becomes of a record of live that in has, too.
func (g *merger) planBoth(b *record.Batch, i int, taken bool, data *liveFrame) error {
	e := &g.in.entries[data.at]
	e.flags |= matched
	ours, err := g.in.batch(data.at)
	if err != nil {
		return err
	}
	alike := bytes.Equal(ours.Data, b.Record(i))
	if alike {
		e.flags |= equal
	}
	if !data.gone {
		e.flags |= placed
		switch {
		case taken:
			e.flags |= wholly
		case alike || e.flags&theirs != 0 || sameSort(ours.Value(0), b.Value(i)):
		case emptied(ours.Value(0), b.Value(i)):
			e.flags |= theirs
		default:
			e.flags |= wholly
			data.differs = e.flags&parted == 0
		}
		data.gone = e.flags&wholly != 0
	}
	if alike || e.flags&theirs != 0 {
		g.counts.Kept++
	} else {
		g.counts.Changed++
	}
	return nil
}

// stay sees to it that a record of a partition that only live has does not go with one it is inside of, where in has nothing of any
// partition in its place: then live's stays, too.
func (g *merger) stay() (decided bool) {
	for _, f := range g.open.frames[:g.open.depth] {
		if f.data.differs && g.in.entries[f.data.at].flags&theirs == 0 {
			g.in.entries[f.data.at].flags |= theirs
			decided = true
		}
	}
	return decided
}

// find gives the entry of in for a record of live.
func (g *merger) find(b *record.Batch, i int) (uint32, bool) {
	at, ok := g.in.find(b, i)
	return at, ok && g.in.entries[at].flags&dropped == 0
}

// numbers sees to it that what is inside of c goes by its numbers only where those of live rise.
func (g *merger) numbers(c *frame[liveFrame], key []byte) {
	n, ok := g.in.nesting.number(c.key, key)
	if !ok {
		return
	}
	if c.numbers && n <= c.number {
		g.in.entries[c.data.at].flags |= unsorted
	}
	c.numbers, c.number = true, n
}

// write goes through live again and writes what is merged.
func (g *merger) write(ctx context.Context, sink record.Sink) error {
	g.sink = sink
	err := each(ctx, g.live.Records(), func(b *record.Batch) error {
		for i := range b.Refs {
			if err := g.writeLive(b, i); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := g.closeTo(0); err != nil {
		return err
	}
	for _, o := range g.in.parts {
		next := o.ordered
		if !o.begun { // live has no such partition
			next = o.first
		}
		if err := g.run(next, none); err != nil {
			return err
		}
	}
	// What is inside of what live has, though that is inside of something else there: no sound state is so.
	if err := g.block(0, uint32(len(g.in.entries)), true); err != nil {
		return err
	}
	return g.flush()
}

// writeLive writes a record of live, or what takes its place, and what comes before it.
func (g *merger) writeLive(b *record.Batch, i int) error {
	key, _ := b.Key(i)
	partition := b.Partition(i)
	if err := g.closeTo(g.open.inside(g.in.nesting, partition, key)); err != nil {
		return err
	}
	within := g.open.top()
	at, both := g.find(b, i)
	if !both {
		at = none
	} else if g.in.entries[at].flags&(placed|written) != placed {
		// It comes elsewhere, or has come: a second record of its key goes.
		g.open.push(partition, key, liveFrame{at: none, gone: true, next: none})
		return g.begin(within, partition, b.KeyItem(i))
	}
	gone := within != nil && within.data.gone
	if !both && (gone || g.taken[string(partition)]) {
		g.open.push(partition, key, liveFrame{at: none, gone: true, next: none})
		return g.begin(within, partition, b.KeyItem(i))
	}
	if err := g.begin(within, partition, b.KeyItem(i)); err != nil {
		return err
	}
	if within != nil {
		if n, ok := g.in.nesting.number(within.key, key); ok {
			if err := g.before(within, n); err != nil {
				return err
			}
		}
	}
	data := liveFrame{at: at, next: none}
	if !both {
		g.open.push(partition, key, data)
		return g.add(b, i)
	}
	e := &g.in.entries[at]
	e.flags |= written
	data.gone = e.flags&wholly != 0
	f := g.open.push(partition, key, data)
	from, row := b, i
	if e.flags&(equal|theirs) == 0 {
		ours, err := g.in.batch(at)
		if err != nil {
			return err
		}
		from, row = ours, 0
	}
	if err := g.add(from, row); err != nil {
		return err
	}
	if data.gone {
		return g.block(at+1, e.end, false)
	}
	if at+1 == e.end || e.flags&theirs != 0 {
		return nil
	}
	if e.flags&unsorted == 0 {
		f.data.next = at + 1
		if err := g.seek(f); err != nil {
			return err
		}
	}
	return g.run(at+1, at)
}

// begin writes what comes before a record of live that is inside of no other one.
func (g *merger) begin(within *frame[liveFrame], partition, key []byte) error {
	if within != nil {
		return nil
	}
	o := g.in.of(partition)
	if g.Ordered {
		if g.order != nil && g.order != o && g.order.live == 0 {
			if err := g.run(g.order.ordered, none); err != nil {
				return err
			}
			g.order.ordered = none // those of a partition stay together
		}
		g.order = o
	}
	if !o.begun {
		o.begun, o.ordered = true, o.first
		if !g.Ordered || o.replaced {
			if err := g.run(o.first, none); err != nil {
				return err
			}
			o.ordered = none
		}
	}
	o.live--
	for o.ordered != none {
		e := &g.in.entries[o.ordered]
		if e.flags&placed == 0 {
			ours, err := g.in.batch(o.ordered)
			if err != nil {
				return err
			}
			if bytes.Compare(ours.KeyItem(0), key) >= 0 {
				break
			}
			if err := g.block(o.ordered, e.end, false); err != nil {
				return err
			}
		}
		o.ordered = e.next
	}
	return nil
}

// closeTo closes what is open until only depth are, and writes what comes behind each.
func (g *merger) closeTo(depth int) error {
	for g.open.depth > depth {
		f := g.open.pop()
		at := f.data.at
		if at == none {
			continue
		}
		end := g.in.entries[at].end
		if err := g.before(f, none64); err != nil {
			return err
		}
		if !f.data.gone && at+1 < end && g.in.entries[end-1].flags&closing != 0 {
			if err := g.block(end-1, end, false); err != nil {
				return err
			}
		}
		next := g.in.entries[at].next
		parent := none
		if c := g.open.top(); c != nil {
			if c.data.gone {
				continue
			}
			if parent = c.data.at; parent == none {
				continue
			}
			next = g.in.sibling(at, g.in.entries[parent].end)
		} else if g.Ordered {
			continue
		}
		if err := g.run(next, parent); err != nil {
			return err
		}
	}
	return nil
}

// none64 is above all numbers there can be among the entries of one state but itself.
const none64 = ^uint64(0)

// run writes entry at and those behind it, inside of parent, until one that has its place elsewhere.
func (g *merger) run(at, parent uint32) error {
	for at != none {
		e := &g.in.entries[at]
		if e.flags&placed != 0 {
			return nil
		}
		next, end := e.next, none
		byNumber := false
		if parent != none {
			end = g.in.entries[parent].end
			next = g.in.sibling(at, end)
			byNumber = e.flags&numbered != 0 && g.in.entries[parent].flags&unsorted == 0
		}
		last := e.flags&closing != 0 && e.end == end
		if !byNumber && !last {
			if err := g.block(at, e.end, false); err != nil {
				return err
			}
		}
		at = next
	}
	return nil
}

// seek goes to the next entry inside of f that comes by its number, f's next included.
func (g *merger) seek(f *frame[liveFrame]) error {
	end := g.in.entries[f.data.at].end
	for f.data.next != none {
		e := g.in.entries[f.data.next]
		if e.flags&numbered != 0 && e.flags&placed == 0 {
			ours, err := g.in.batch(f.data.next)
			if err != nil {
				return err
			}
			key, _ := ours.Key(0)
			f.data.goal, _ = g.in.nesting.number(f.key, key)
			return nil
		}
		f.data.next = g.in.sibling(f.data.next, end)
	}
	return nil
}

// before writes what is inside of f and comes before the number n.
func (g *merger) before(f *frame[liveFrame], n uint64) error {
	for f.data.next != none && (f.data.goal < n || n == none64) {
		at := f.data.next
		if err := g.block(at, g.in.entries[at].end, false); err != nil {
			return err
		}
		f.data.next = g.in.sibling(at, g.in.entries[f.data.at].end)
		if err := g.seek(f); err != nil {
			return err
		}
	}
	return nil
}

// block writes the entries from at to end, but for those that have come, and for those that have their place elsewhere
// unless all is set.
func (g *merger) block(at, end uint32, all bool) error {
	for ; at < end; at++ {
		e := &g.in.entries[at]
		if e.flags&(written|dropped) != 0 || e.flags&placed != 0 && !all {
			continue
		}
		e.flags |= written
		ours, err := g.in.batch(at)
		if err != nil {
			return err
		}
		if err := g.add(ours, 0); err != nil {
			return err
		}
	}
	return nil
}

// add hands a record on.
func (g *merger) add(b *record.Batch, i int) error {
	ref := b.Refs[i]
	shift := len(g.out.Data) - ref.Start
	g.out.Data = append(g.out.Data, b.Record(i)...)
	g.out.Refs = append(g.out.Refs, record.Ref{Start: ref.Start + shift, Partition: ref.Partition + shift, Key: ref.Key + shift,
		Value: ref.Value + shift, End: ref.End + shift})
	if len(g.out.Data) < mergeBatch {
		return nil
	}
	return g.flush()
}

func (g *merger) flush() error {
	if len(g.out.Refs) == 0 {
		return nil
	}
	err := g.sink.WriteBatch(&g.out)
	g.out.Data, g.out.Refs = g.out.Data[:0], g.out.Refs[:0]
	return err
}
