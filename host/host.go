package host

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// Config is what a [Host] is made of.
type Config struct {
	// CacheDir keeps compiled modules from one process to the next. It is made with mode 0700 if
	// need be: whoever can write to it can run code here. Entries that are damaged are made anew.
	// "" keeps compiled modules in memory only.
	CacheDir string
	Limits   Limits
	Logger   *slog.Logger // required
	Observer Observer     // may be nil
}

// Observer is told what modules cost. Its methods are called from the goroutine of the compile or
// call, at its end; they must be safe for concurrent use and return soon.
type Observer interface {
	ModuleCompiled(module string, d time.Duration, err error)
	ModuleCalled(module, op string, c CallCost)
}

// CallCost is what one call of a module took.
type CallCost struct {
	Duration time.Duration // from instantiation to the end, waiting for input and output included
	Memory   int64         // bytes of guest memory at the end, which is its high-water mark
	Input    int64         // bytes the guest took in
	Output   int64         // bytes the guest emitted
	Err      error
}

// Host compiles and runs modules. It is safe for concurrent use.
type Host struct {
	cacheDir string // "" for none
	limits   Limits
	logger   *slog.Logger
	observer Observer
	decode   cbor.DecMode
	encode   cbor.EncMode
	closing  context.Context // done once Close is called
	end      context.CancelCauseFunc

	mu      sync.Mutex
	modules map[[sha256.Size]byte]*Module
	active  int           // compiles and calls under way
	idle    chan struct{} // closed when Close waits and active comes to 0
}

// errClosed is why calls fail during and after Close.
var errClosed = errors.New("the module host is closed")

// New makes a host. Close must be called when its modules are no longer used. That ctx ends does not
// matter to the host.
func New(ctx context.Context, cfg Config) (*Host, error) {
	limits, err := cfg.Limits.withDefaults()
	if err != nil {
		return nil, err
	}
	h := &Host{cacheDir: cfg.CacheDir, limits: limits, logger: cfg.Logger, observer: cfg.Observer, modules: map[[sha256.Size]byte]*Module{}}
	if h.decode, err = (cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxNestedLevels: 8, MaxArrayElements: 1024, MaxMapPairs: 1024}).DecMode(); err != nil {
		return nil, fmt.Errorf("host: cbor decoder: %w", err)
	}
	// Canonical, so that the same call gives the guest the same bytes.
	if h.encode, err = cbor.CanonicalEncOptions().EncMode(); err != nil {
		return nil, fmt.Errorf("host: cbor encoder: %w", err)
	}
	if h.cacheDir != "" {
		if err := openCacheDir(h.cacheDir); err != nil {
			return nil, err
		}
	}
	h.closing, h.end = context.WithCancelCause(context.WithoutCancel(ctx))
	return h, nil
}

// begin counts a compile or call, which Close waits for.
func (h *Host) begin() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closing.Err() != nil {
		return errClosed
	}
	h.active++
	return nil
}

func (h *Host) done() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.active--; h.active == 0 && h.idle != nil {
		close(h.idle)
		h.idle = nil
	}
}

// Close ends the calls under way, waits for them and frees all modules. Where a guest does not come
// back to the host before ctx is done, Close returns ctx's error and frees nothing; it may be called
// again.
func (h *Host) Close(ctx context.Context) error {
	h.mu.Lock()
	h.end(errClosed)
	for h.active > 0 {
		if h.idle == nil {
			h.idle = make(chan struct{})
		}
		idle := h.idle
		h.mu.Unlock()
		select {
		case <-idle:
		case <-ctx.Done():
			return fmt.Errorf("module host: close: a module still runs: %w", ctx.Err())
		}
		h.mu.Lock()
	}
	modules := h.modules
	h.modules = nil
	h.mu.Unlock()
	var err error
	for _, m := range modules {
		err = errors.Join(err, m.close(ctx))
	}
	return err
}

// A ModuleError says what is wrong with a module or with what it did: a refusal at Compile, a trap, a
// breach of the ABI. Err, where there is one, is a sentinel of package abi: ErrCorrupt for bytes that
// are no sound WebAssembly, ErrVersion for another ABI or an operation the module does not offer,
// ErrTooLarge for a limit. What a sound module does wrong is never ErrCorrupt: the state is not at
// fault.
type ModuleError struct {
	Module string // name for people
	Op     string // compile, or an operation of package abi
	Reason string
	Err    error // may be nil
}

func (e *ModuleError) Error() string {
	return fmt.Sprintf("module %s: %s: %s", e.Module, e.Op, printable(e.Reason))
}

func (e *ModuleError) Unwrap() error { return e.Err }
