package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/statedir"
)

// Defaults and bounds of [ServiceConfig].
const (
	DefaultFlushInterval = 15 * time.Second // LocalStack's SNAPSHOT_FLUSH_INTERVAL
	MinFlushInterval     = 100 * time.Millisecond
	MaxFlushInterval     = 24 * time.Hour

	DefaultHoldTimeout = 5 * time.Second
)

// Config is what a [Runtime] is made of.
type Config struct {
	Dir      *statedir.Dir // nil: persistence is disabled, nothing is read or written
	Services []ServiceConfig
	// Compile makes a serializer of a module kept in the state directory, for states that the
	// configured serializer does not read; name is the one it wrote into the state. nil: such states are
	// refused.
	Compile  func(ctx context.Context, name string, wasm []byte) (Serializer, error)
	Logger   *slog.Logger // required
	Observer Observer     // may be nil
}

// ServiceConfig describes one service. Zero fields mean the defaults.
type ServiceConfig struct {
	Name          string
	Parts         []PartConfig
	Save          SaveStrategy
	Load          LoadStrategy
	FlushInterval time.Duration
	HoldTimeout   time.Duration // how long a save may wait for requests under way
}

// PartConfig describes one part of a service.
type PartConfig struct {
	Name       string // store, backend, assets
	Serializer Serializer
	Source     Source
	Dirty      *Dirty         // what the source marks
	Schema     uint64         // of the service's records, for a serializer that carries one; 0: the serializer's own
	Settings   map[string]any // for the serializer
	Proof      Proof          // "": full
	// Compression of the state file's chunks, from its next full save on: one of [Compressions]; "" is the
	// first.
	Compression string
}

// Runtime pauses and resumes the state of services. It is safe for concurrent use.
type Runtime struct {
	dir      *statedir.Dir
	compile  func(context.Context, string, []byte) (Serializer, error)
	logger   *slog.Logger
	observer Observer
	services []*Service

	life     context.Context // ends with Close
	stop     context.CancelFunc
	flushers sync.WaitGroup
}

// New makes a runtime from cfg. It reads nothing yet: Start does.
func New(cfg Config) (*Runtime, error) {
	if cfg.Observer == nil {
		cfg.Observer = noObserver{}
	}
	life, stop := context.WithCancel(context.Background())
	rt := &Runtime{dir: cfg.Dir, compile: cfg.Compile, logger: cfg.Logger, observer: cfg.Observer, life: life, stop: stop}
	for _, sc := range cfg.Services {
		s, err := rt.newService(sc)
		if err != nil {
			stop()
			return nil, err
		}
		rt.services = append(rt.services, s)
	}
	return rt, nil
}

// Start looks at what is saved, loads the services whose strategy is ON_STARTUP and begins to save by
// schedule. A service that cannot be loaded does not keep the others from starting: its status says
// so, and it is neither served nor saved until it is loaded or reset.
func (rt *Runtime) Start(ctx context.Context) error {
	if !rt.Persistent() {
		return nil
	}
	for _, s := range rt.services {
		s.peek()
		if s.load == LoadOnStartup {
			if err := s.ensureLoaded(ctx); err != nil && ctx.Err() != nil {
				return err
			}
		}
		if s.save == SaveScheduled {
			rt.flushers.Go(func() { s.flush(rt.life) })
		}
	}
	return nil
}

// Close stops saving by schedule and saves what is dirty, save for services whose strategy is MANUAL.
// The caller has stopped requests before. A cancelled ctx ends a save under way, which leaves the last
// good generation in place. The error names every service that could not be saved.
func (rt *Runtime) Close(ctx context.Context) error {
	rt.stop()
	rt.flushers.Wait()
	var errs []error
	for _, s := range rt.services {
		if s.save != SaveManual && rt.Persistent() {
			errs = append(errs, s.saveIfDirty(ctx))
		}
	}
	return errors.Join(errs...)
}

// Persistent reports whether state is read and written at all.
func (rt *Runtime) Persistent() bool { return rt.dir != nil }

// Services lists the services in the order of the configuration. Do not change the slice.
func (rt *Runtime) Services() []*Service { return rt.services }

// Service finds a service by name; the error wraps abi.ErrNotFound and lists the names there are.
func (rt *Runtime) Service(name string) (*Service, error) {
	names := make([]string, len(rt.services))
	for i, s := range rt.services {
		if s.name == name {
			return s, nil
		}
		names[i] = s.name
	}
	return nil, fmt.Errorf("service %q: %w; the services are %q", name, abi.ErrNotFound, names)
}

// errDisabled is the answer to control calls where there is nothing to save to.
var errDisabled = errors.New("persistence is disabled (PERSISTENCE=0)")
