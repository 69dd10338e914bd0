package gateway

import (
	"net/http"
	"sync"
	"time"
)

// flushes has the answers of a proxy flushed that are long in coming. It has one timer for all of them, and only while
// there are any: one of its own for each, which nearly all stop unused, cost a tenth of a small request, since the
// scheduler wakes a thread for every timer that is the next one.
type flushes struct {
	mu      sync.Mutex
	waiting map[*answer]uint64 // of which something waits, and the tick after which it began to
	tick    uint64
	set     bool // the timer
}

// add has the answer flushed, after one to two times half of flushInterval.
func (f *flushes) add(a *answer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waiting == nil {
		f.waiting = map[*answer]uint64{}
	}
	f.waiting[a] = f.tick
	if !f.set {
		f.set = true
		time.AfterFunc(flushInterval/2, f.due)
	}
}

func (f *flushes) remove(a *answer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.waiting, a)
}

// due flushes what was there a tick ago. Each by itself, as a client that does not read holds only its own answer up.
func (f *flushes) due() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for a, began := range f.waiting {
		if began < f.tick {
			delete(f.waiting, a)
			go a.flushLate()
		}
	}
	f.tick++
	if f.set = len(f.waiting) > 0; f.set {
		time.AfterFunc(flushInterval/2, f.due)
	}
}

// flushLate flushes what waits, unless the answer has ended.
func (a *answer) flushLate() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.timely && a.waits {
		a.waits = false
		_ = http.NewResponseController(a.ResponseWriter).Flush()
	}
}

// wait notes that something was written that waits for more. The caller holds mu.
func (a *answer) wait() {
	if !a.waits {
		a.waits = true
		a.pass.proxy.flushes.add(a)
	}
}

// untimely is called when nothing is written any more: when it returns, nothing is flushed either.
func (a *answer) untimely() {
	if !a.timely {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.timely = false
	if a.waits {
		a.waits = false
		a.pass.proxy.flushes.remove(a)
	}
}
