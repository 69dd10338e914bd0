package runtime

import (
	"maps"
	"sync"
	"time"
)

// MaxDirtyKeys is how many changed keys a [Dirty] remembers one by one. Beyond it only the fact stays
// that much has changed: saving all is then cheaper than saving the difference.
const MaxDirtyKeys = 1 << 20

// Dirty remembers since when a part has changes that no committed generation holds, and what they
// touched. A source marks it; the runtime clears it when it captures the part, and sets it back when
// that save fails. The zero value is clean. It is safe for concurrent use, and Mark is cheap enough
// for every write.
type Dirty struct {
	mu    sync.Mutex
	marks uint64    // how often Mark was called
	last  time.Time // when it was called last
	taken changes
}

// changes is what Mark has gathered.
type changes struct {
	since time.Time           // zero: clean
	keys  map[string]struct{} // what was touched
	all   bool                // more than MaxDirtyKeys, or a change that named no key
}

// Mark says that what keys name has changed; without any, that anything may have. It must be called
// after the change can be captured.
func (d *Dirty) Mark(keys ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.marks++
	d.last = time.Now()
	c := &d.taken
	if c.since.IsZero() {
		c.since = d.last
	}
	c.all = c.all || len(keys) == 0
	if c.all {
		c.keys = nil
		return
	}
	if c.keys == nil {
		c.keys = map[string]struct{}{}
	}
	for _, k := range keys {
		c.keys[k] = struct{}{}
	}
	c.bound()
}

func (c *changes) bound() {
	if c.all || len(c.keys) > MaxDirtyKeys {
		c.keys, c.all = nil, true
	}
}

// Since is when the oldest unsaved change was marked; ok is false when there is none.
func (d *Dirty) Since() (at time.Time, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.taken.since, !d.taken.since.IsZero()
}

// Keys is how many keys have unsaved changes; all says that there are more than are counted, or that
// what changed is not known by key.
func (d *Dirty) Keys() (n int, all bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.taken.keys), d.taken.all
}

// count is how often Mark was called.
func (d *Dirty) count() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.marks
}

// lastMark is when Mark was called last; zero: never.
func (d *Dirty) lastMark() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last
}

// take clears the mark and returns what there was, for putBack.
func (d *Dirty) take() changes {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.taken
	d.taken = changes{}
	return c
}

// putBack adds c again to what has been marked since it was taken.
func (d *Dirty) putBack(c changes) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.taken = d.taken.after(c)
}

// with sums up what is marked now together with earlier, which was taken before and is not saved yet.
func (d *Dirty) with(earlier changes) (since time.Time, keys int, all bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if earlier.since.IsZero() {
		return d.taken.since, len(d.taken.keys), d.taken.all
	}
	if earlier.all || d.taken.all {
		return earlier.since, 0, true
	}
	// Counted, not joined: this is asked at every scrape, and the sets may be large.
	keys = len(earlier.keys)
	for k := range d.taken.keys {
		if _, twice := earlier.keys[k]; !twice {
			keys++
		}
	}
	return earlier.since, keys, false
}

// after joins c with what was taken before it.
func (c changes) after(earlier changes) changes {
	if earlier.since.IsZero() {
		return c
	}
	joined := changes{since: earlier.since, all: c.all || earlier.all}
	if !joined.all {
		joined.keys = maps.Clone(earlier.keys)
		maps.Copy(joined.keys, c.keys)
	}
	joined.bound()
	return joined
}
