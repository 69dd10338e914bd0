package s3

import (
	"context"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime"
)

// Delta is what has changed since the base. It is nil where that is not known, and where more than half
// of all there is was touched.
func (c *capture) Delta() runtime.Delta {
	buckets, err := c.state()
	if err != nil {
		return nil
	}
	c.s.mu.RLock()
	sets, known := c.s.changes.until(c.end)
	limit := c.s.changes.limit
	c.s.mu.RUnlock()
	things := len(buckets)
	for _, b := range buckets {
		things += b.objects.Len() + b.uploads.Len()
	}
	for _, set := range sets {
		if set.all || set.n > things/2 {
			return nil // without joining
		}
	}
	all := new(touched)
	for _, set := range slices.Backward(sets) { // the shorter ones first
		all = join(set, all, limit)
	}
	if !known || all.all || all.n > things/2 {
		return nil
	}
	return newDelta(c, buckets, all)
}

// Committed makes the capture the base of later ones. After Close it does nothing.
func (c *capture) Committed() {
	if _, err := c.state(); err != nil {
		return
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.changes.committed(c.end)
}

// delta is the difference between a capture and its base.
type delta struct {
	c       *capture
	buckets []changedBucket // by name
	growth  int64
}

// changedBucket is the bucket of one name, of which something was touched since the base.
type changedBucket struct {
	*touchedBucket
	name             string
	now              *bucket  // nil where there is none
	objects, uploads []string // what was touched, sorted
}

func newDelta(c *capture, buckets []*bucket, all *touched) *delta {
	d := &delta{c: c}
	for _, name := range slices.Sorted(maps.Keys(all.buckets)) {
		b := changedBucket{touchedBucket: all.buckets[name], name: name}
		if i, found := slices.BinarySearchFunc(buckets, name, func(b *bucket, name string) int { return strings.Compare(b.name, name) }); found {
			b.now = buckets[i]
		}
		b.objects = slices.Sorted(maps.Keys(b.touchedBucket.objects))
		b.uploads = slices.Sorted(maps.Keys(b.touchedBucket.uploads))
		d.buckets = append(d.buckets, b)
		d.growth += b.growth()
	}
	return d
}

// object is what is under key, and an image of what the base has there.
func (b *changedBucket) object(key string) (base objectImage, now object) {
	if b.now != nil {
		now, _ = b.now.objects.Get(key)
	}
	return b.touchedBucket.objects[key], now
}

// upload is an upload in progress, nil if there is none, and an image of the one the base has.
func (b *changedBucket) upload(id string) (base touchedUpload, now *upload) {
	if b.now != nil {
		now, _ = b.now.uploads.Get(id)
	}
	return b.touchedBucket.uploads[id], now
}

// stayed reports whether the bucket is there as before, so that its records can be the same.
func (b *changedBucket) stayed() bool {
	return b.existed && b.now != nil && b.partition == b.now.partition
}

// growth is how many more records the bucket has than in the base.
func (b *changedBucket) growth() int64 {
	n := int64(0)
	if b.itself {
		n = int64(count(b.now != nil) - count(b.existed))
	}
	for _, key := range b.objects {
		base, now := b.object(key)
		n += now.image().count() - base.count()
	}
	for _, id := range b.uploads {
		base, now := b.upload(id)
		n += now.image().count() - base.count()
	}
	return n
}

// Growth is how many more records there are than in the base.
func (d *delta) Growth() int64 { return d.growth }

// byPartition gives the buckets by the partition they are in, as partition tells it, then by name, but
// for those that are in none.
func (d *delta) byPartition(partition func(*changedBucket) (name string, exists bool)) []*changedBucket {
	var list []*changedBucket
	for i := range d.buckets {
		if _, exists := partition(&d.buckets[i]); exists {
			list = append(list, &d.buckets[i])
		}
	}
	slices.SortStableFunc(list, func(a, b *changedBucket) int {
		first, _ := partition(a)
		second, _ := partition(b)
		return strings.Compare(first, second)
	})
	return list
}

// before is the partition the bucket is in in the base.
func (b *changedBucket) before() (partition string, exists bool) { return b.partition, b.existed }

// after is the partition the bucket is in in the capture.
func (b *changedBucket) after() (partition string, exists bool) {
	if b.now == nil {
		return "", false
	}
	return b.now.partition, true
}

// WriteUpserts writes the records that are new or changed, in the order WriteNative writes them in.
func (d *delta) WriteUpserts(ctx context.Context, w io.Writer) error {
	if _, err := d.c.state(); err != nil {
		return err
	}
	sw := newStateWriter(ctx, w)
	for _, b := range d.byPartition((*changedBucket).after) {
		sw.changed(b)
	}
	sw.flush()
	return sw.err
}

// changed writes the records of a bucket that are not the same in the base.
func (w *stateWriter) changed(b *changedBucket) {
	w.b = b.now
	if b.itself {
		w.itself()
	}
	for _, key := range b.objects {
		base, now := b.object(key)
		if now.current == nil {
			continue
		}
		if !b.stayed() {
			base = nil
		}
		if w.object(key, now, base); w.err != nil {
			return
		}
	}
	for _, id := range b.uploads {
		base, now := b.upload(id)
		if now == nil {
			continue
		}
		if !b.stayed() {
			base = touchedUpload{}
		}
		if w.upload(now, base.uploadImage); w.err != nil {
			return
		}
	}
}

// WriteTombstones writes tombstones of the records that are gone, by partition, in batches of about
// 64 KiB.
func (d *delta) WriteTombstones(ctx context.Context, sink record.Sink) error {
	if _, err := d.c.state(); err != nil {
		return err
	}
	w := tombstoneWriter{ctx: ctx, sink: sink}
	for _, b := range d.byPartition((*changedBucket).before) {
		w.bucket(b)
	}
	w.flush()
	return w.err
}

// tombstoneWriter writes tombstones. After the first error it does nothing more.
type tombstoneWriter struct {
	ctx   context.Context
	sink  record.Sink
	batch record.Batch
	key   []byte
	b     *changedBucket
	there map[[2]string]struct{}
	err   error
}

func (w *tombstoneWriter) flush() {
	if w.err == nil {
		w.err = w.ctx.Err()
	}
	if w.err == nil && w.batch.Len() > 0 {
		if w.err = w.sink.WriteBatch(&w.batch); w.err != nil {
			w.err = fmt.Errorf("s3: writing tombstones: %w", w.err)
		}
	}
	w.batch.Data, w.batch.Refs = w.batch.Data[:0], w.batch.Refs[:0]
}

func (w *tombstoneWriter) bucket(b *changedBucket) {
	w.b = b
	stayed := b.stayed()
	if !stayed {
		w.tombstone(kindBucket, "", "")
	}
	for _, key := range b.objects {
		base, now := b.object(key)
		if !stayed {
			now = object{}
		}
		w.gone(key, base.records(), now.image().records())
		if w.err != nil {
			return
		}
	}
	for _, id := range b.uploads {
		base, now := b.upload(id)
		if !stayed {
			now = nil
		}
		w.gone(base.key, base.records(id), now.image().records(id))
		if w.err != nil {
			return
		}
	}
}

// gone writes tombstones of those records of before that are not in now.
func (w *tombstoneWriter) gone(key string, before, now iter.Seq2[string, string]) {
	clear(w.there)
	for kind, ids := range now {
		if w.there == nil {
			w.there = map[[2]string]struct{}{}
		}
		w.there[[2]string{kind, ids}] = struct{}{}
	}
	for kind, ids := range before {
		if _, there := w.there[[2]string{kind, ids}]; !there {
			w.tombstone(kind, ids, key)
		}
	}
}

func (w *tombstoneWriter) tombstone(kind, ids, key string) {
	b := &w.batch
	ref := record.Ref{Start: len(b.Data), Partition: len(b.Data) + 1}
	b.Data = record.AppendText(record.AppendTombstone(b.Data), w.b.partition)
	ref.Key = len(b.Data)
	w.key = appendKey(w.key[:0], kind, w.b.name, ids, key)
	b.Data = appendString(b.Data, w.key)
	ref.Value, ref.End = len(b.Data), len(b.Data)
	b.Refs = append(b.Refs, ref)
	if len(b.Data) >= flushBytes {
		w.flush()
	}
}
