package runtime

import (
	"sync/atomic"
	"time"
)

// Dirty remembers since when a part has changes that no committed generation holds. A source marks it;
// the runtime clears it when it captures the part, and sets it back when that save fails. The zero
// value is clean. It is safe for concurrent use, and Mark is cheap enough for every write.
type Dirty struct {
	since atomic.Int64  // Unix nanoseconds; 0: clean
	marks atomic.Uint64 // how often Mark was called
}

// Mark says that the part has changed. It must be called after the change can be captured.
func (d *Dirty) Mark() {
	d.marks.Add(1)
	if d.since.Load() == 0 {
		d.since.CompareAndSwap(0, time.Now().UnixNano())
	}
}

// Since is when the oldest unsaved change was marked; ok is false when there is none.
func (d *Dirty) Since() (at time.Time, ok bool) {
	ns := d.since.Load()
	return time.Unix(0, ns), ns != 0
}

// take clears the mark and returns it for putBack.
func (d *Dirty) take() int64 { return d.since.Swap(0) }

// putBack marks the part dirty since at again, unless it is already so for longer.
func (d *Dirty) putBack(at int64) {
	if at == 0 {
		return
	}
	for {
		now := d.since.Load()
		if now != 0 && now <= at || d.since.CompareAndSwap(now, at) {
			return
		}
	}
}
