package host

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/tetratelabs/wazero"
)

// Config is what a [Host] is made of.
type Config struct {
	// CacheDir keeps compiled modules from one process to the next. It is made with mode 0700 if
	// need be: whoever can write to it can run code here. Entries that are damaged are made anew.
	// "" keeps compiled modules in memory only.
	CacheDir string
	// Limits bounds what each module may use; Modules has other limits for some, by the names that
	// Compile is given. A zero field there is as in Limits.
	Limits  Limits
	Modules map[string]Limits
	// Calls is how many calls may run at once; further ones wait. Calls whose contexts have the same
	// value under [abi.GroupKey] count as one. 0 means DefaultCalls.
	Calls int
	// Idle is how many instances of a module are kept for the next calls; 0 means DefaultIdle.
	Idle int
	// InputPiece, if it is not 0, is the most bytes that one next gives: for tests of modules, whose
	// output must not depend on it.
	InputPiece int
	// AsLeft uses instances again as calls leave them, as the ABI allows a host to, instead of putting them
	// back to how they began: for tests of modules, whose output must not depend on it.
	AsLeft bool
	// Seed, if it is not 0, gives guests other random numbers than they always have: for tests of modules,
	// whose output must not depend on them, as it does on those of Go where a map's order shows.
	Seed uint64
	// Interpreter runs modules in wazero's interpreter instead of compiling them: some fifty times
	// slower, and with no cache. It is for tests, which compare the two, and for processors that
	// wazero has no compiler for.
	Interpreter bool
	Logger      *slog.Logger // required
	Observer    Observer     // may be nil
}

// Bounds and defaults of [Config].
const (
	DefaultCalls = 32
	MaxCalls     = 1024
	DefaultIdle  = 4
	MaxIdle      = 64
)

// Observer is told what modules cost. Its methods are called from the goroutine of the compile or
// call, at its end; they must be safe for concurrent use and return soon.
type Observer interface {
	ModuleCompiled(module string, d time.Duration, err error)
	ModuleCalled(module, op string, c CallCost)
}

// CallCost is what one call of a module took.
type CallCost struct {
	Duration time.Duration // from its turn to the end, waiting for input and output included
	Memory   int64         // bytes of guest memory at the end, which is its high-water mark
	Fuel     int64         // units of fuel: what the export computed, the same for the same input
	Input    int64         // bytes the guest took in
	Output   int64         // bytes the guest emitted
	Err      error
}

// Host compiles and runs modules. It is safe for concurrent use.
type Host struct {
	cacheDir string // "" for none
	limits   Limits
	named    map[string]Limits // whole
	piece    int
	asLeft   bool
	seed     [32]byte
	idle     int
	engine   func() wazero.RuntimeConfig
	turns    turns
	logger   *slog.Logger
	observer Observer
	decode   cbor.DecMode
	encode   cbor.EncMode
	closing  context.Context // done once Close is called
	end      context.CancelCauseFunc

	mu        sync.Mutex
	modules   map[identity]*code
	compiling map[identity]*compilation
	active    int           // compiles and calls under way
	quiet     chan struct{} // closed when Close waits and active comes to 0
}

// identity is what makes two modules the same.
type identity struct {
	digest [sha256.Size]byte
	limits Limits
}

// errClosed is why calls fail during and after Close.
var errClosed = errors.New("the module host is closed")

// New makes a host. Close must be called when its modules are no longer used. That ctx ends does not
// matter to the host.
func New(ctx context.Context, cfg Config) (*Host, error) {
	limits, err := cfg.Limits.withDefaults(Limits{})
	if err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		return nil, errors.New("host: Logger is required; slog.New(slog.DiscardHandler) is one that is silent")
	}
	h := &Host{cacheDir: cfg.CacheDir, limits: limits, named: map[string]Limits{}, piece: cfg.InputPiece, asLeft: cfg.AsLeft, seed: randomSeed, idle: cmp.Or(cfg.Idle, DefaultIdle),
		engine: wazero.NewRuntimeConfig, logger: cfg.Logger, observer: cfg.Observer, modules: map[identity]*code{}, compiling: map[identity]*compilation{}}
	if cfg.Seed != 0 {
		binary.LittleEndian.PutUint64(h.seed[:], cfg.Seed)
	}
	for name, own := range cfg.Modules {
		if h.named[name], err = own.withDefaults(limits); err != nil {
			return nil, fmt.Errorf("module %s: %w", name, err)
		}
	}
	calls := cmp.Or(cfg.Calls, DefaultCalls)
	switch {
	case calls < 1 || calls > MaxCalls:
		return nil, fmt.Errorf("host: Calls is %d; it may be 1 to %d", calls, MaxCalls)
	case h.idle < 1 || h.idle > MaxIdle:
		return nil, fmt.Errorf("host: Idle is %d; it may be 1 to %d", h.idle, MaxIdle)
	case h.piece < 0:
		return nil, fmt.Errorf("host: InputPiece is %d", h.piece)
	}
	h.turns = newTurns(calls)
	if cfg.Interpreter {
		h.engine, h.cacheDir = wazero.NewRuntimeConfigInterpreter, ""
	}
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
	if h.active--; h.active == 0 && h.quiet != nil {
		close(h.quiet)
		h.quiet = nil
	}
}

// Close ends the calls under way, waits for them and frees all modules. A guest ends when it next calls
// the host, or has used up its slice of fuel; if ctx is done before, Close returns ctx's error and frees
// nothing, and may be called again.
func (h *Host) Close(ctx context.Context) error {
	h.mu.Lock()
	h.end(errClosed)
	for h.active > 0 {
		if h.quiet == nil {
			h.quiet = make(chan struct{})
		}
		quiet := h.quiet
		h.mu.Unlock()
		select {
		case <-quiet:
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
	return fmt.Sprintf("module %s: %s: %s", e.Module, e.Op, printable(clip(e.Reason, maxReasonBytes)))
}

func (e *ModuleError) Unwrap() error { return e.Err }
