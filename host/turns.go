package host

import (
	"context"
	"sync"

	"github.com/torpor-run/torpor/host/abi"
)

// turns bounds how many calls run at once. Calls of a group count as one: they wait for one another, so
// that one that runs and one that waits for its turn would wait for ever.
type turns struct {
	free   chan struct{} // holds what may be taken
	mu     *sync.Mutex
	groups map[any]*group
}

// group is the calls that have one turn together.
type group struct {
	calls int
	ready chan struct{} // closed once the turn has come, or will not
	err   error         // why it will not
}

func newTurns(n int) turns {
	t := turns{free: make(chan struct{}, n), mu: new(sync.Mutex), groups: map[any]*group{}}
	for range n {
		t.free <- struct{}{}
	}
	return t
}

// take waits for a turn, which the caller gives back. The error is ctx's.
func (t turns) take(ctx context.Context) (giveBack func(), err error) {
	key := ctx.Value(abi.GroupKey{})
	if key == nil {
		if err := t.wait(ctx); err != nil {
			return nil, err
		}
		return func() { t.free <- struct{}{} }, nil
	}
	for {
		t.mu.Lock()
		g, first := t.groups[key], false
		if g == nil {
			g, first = &group{ready: make(chan struct{})}, true
			t.groups[key] = g
		}
		g.calls++
		t.mu.Unlock()
		if first {
			if g.err = t.wait(ctx); g.err != nil { // it may be another's turn to wait for all
				t.mu.Lock()
				delete(t.groups, key)
				t.mu.Unlock()
			}
			close(g.ready)
		}
		select {
		case <-g.ready:
			err = g.err
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err == nil {
			return func() { t.leave(key, g) }, nil
		}
		t.leave(key, g)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

func (t turns) wait(ctx context.Context) error {
	select {
	case <-t.free:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// leave takes a call out of its group; the last one gives the turn back.
func (t turns) leave(key any, g *group) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if g.calls--; g.calls > 0 || t.groups[key] != g { // a group without a turn is not there any more
		return
	}
	delete(t.groups, key)
	t.free <- struct{}{}
}
