package sdktest

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi/record"
)

// Costs is a host.Observer that keeps what the last call of each operation took.
type Costs struct {
	mu   sync.Mutex
	last map[string]host.CallCost
}

// ModuleCompiled implements [host.Observer].
func (*Costs) ModuleCompiled(string, time.Duration, error) {}

// ModuleCalled implements [host.Observer].
func (c *Costs) ModuleCalled(_, op string, cost host.CallCost) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil {
		c.last = map[string]host.CallCost{}
	}
	c.last[op] = cost
}

// Of is what the last call of an operation took.
func (c *Costs) Of(op string) host.CallCost {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last[op]
}

// Compile compiles a module in a host of its own, which ends with the test, as cfg says but for the observer;
// without a logger it is silent.
func Compile(t testing.TB, name string, wasm []byte, cfg host.Config) (*host.Module, *Costs) {
	t.Helper()
	ctx := context.Background() // a test's own is done before its cleanups run
	costs := &Costs{}
	cfg.Observer = costs
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	h, err := host.New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	m, err := h.Compile(ctx, name, wasm)
	if err != nil {
		t.Fatal(err)
	}
	return m, costs
}

// Records is a record.Sink that keeps the bytes.
type Records struct{ bytes.Buffer }

// WriteBatch implements [record.Sink].
func (r *Records) WriteBatch(b *record.Batch) error { r.Write(b.Data); return nil }
