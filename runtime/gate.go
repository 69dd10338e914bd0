package runtime

import (
	"context"
	"sync"
	"time"
)

// gate admits requests to a service and can hold new ones back until those under way are done.
type gate struct {
	mu      sync.Mutex
	inside  int
	used    time.Time // when a request came or went last
	held    bool
	changed chan struct{} // closed and replaced when held ends or inside falls to 0 while held
}

func newGate() *gate { return &gate{changed: make(chan struct{}), used: time.Now()} }

func (g *gate) broadcast() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// enter waits until the gate is not held and counts the request in; ctx bounds the wait.
func (g *gate) enter(ctx context.Context) error {
	g.mu.Lock()
	for g.held {
		changed := g.changed
		g.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		g.mu.Lock()
	}
	g.inside++
	g.used = time.Now()
	g.mu.Unlock()
	return nil
}

// enterNow counts the request in unless the gate is held.
func (g *gate) enterNow() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held {
		return false
	}
	g.inside++
	g.used = time.Now()
	return true
}

// leave counts a request out.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.used = time.Now()
	if g.inside--; g.inside == 0 && g.held {
		g.broadcast()
	}
}

// hold stops new requests and waits until none is inside; ctx bounds the wait, after which requests go
// on as before and the context's error is returned. Calls must not overlap.
func (g *gate) hold(ctx context.Context) error {
	g.mu.Lock()
	g.held = true
	for g.inside > 0 {
		changed := g.changed
		g.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			g.release()
			return context.Cause(ctx)
		}
		g.mu.Lock()
	}
	g.mu.Unlock()
	return nil
}

// release lets requests go on.
func (g *gate) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = false
	g.broadcast()
}

// touch counts as a request that came and went.
func (g *gate) touch() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.used = time.Now()
}

// idleSince is when the last request left; ok is false while one is inside.
func (g *gate) idleSince() (at time.Time, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.used, g.inside == 0
}

// closed reports whether requests are held.
func (g *gate) closed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.held
}

// count is how many requests are inside.
func (g *gate) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inside
}
