package host

import (
	"context"
	"iter"
	"sync"
)

// prepareWorkers is how many modules are compiled at once in the background: calls under way keep the
// rest of the machine.
const prepareWorkers = 2

// Prepare begins to compile modules, by name and bytes, in the background and returns at once, so that
// Compile finds them ready, or waits for what is under way. A module that cannot be compiled is logged;
// Compile gives the error. It takes modules from the sequence one by one, and ends early when ctx does or
// Close is called, which waits for it.
func (h *Host) Prepare(ctx context.Context, modules iter.Seq2[string, []byte]) {
	if h.begin() != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(h.closing, cancel)
	type job struct {
		name string
		wasm []byte
	}
	jobs := make(chan job)
	var workers sync.WaitGroup
	for range prepareWorkers {
		workers.Go(func() {
			for j := range jobs {
				if _, err := h.Compile(ctx, j.name, j.wasm); err != nil && ctx.Err() == nil && h.closing.Err() == nil {
					h.logger.Warn("a module could not be compiled ahead of its use", "module", j.name, "error", err)
				}
			}
		})
	}
	go func() {
		defer h.done()
		defer stop()
		defer cancel()
		defer workers.Wait()
		defer close(jobs)
		for name, wasm := range modules {
			if ctx.Err() != nil || h.closing.Err() != nil { // though a worker is free
				return
			}
			select {
			case jobs <- job{name, wasm}:
			case <-ctx.Done():
				return
			}
		}
	}()
}
