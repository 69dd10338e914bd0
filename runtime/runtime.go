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

	MinIdle = 100 * time.Millisecond
	MaxIdle = 30 * 24 * time.Hour

	MaxLag = time.Hour

	DefaultRestarts = 10
	DefaultWithin   = 10 * time.Minute
)

// Config is what a [Runtime] is made of.
type Config struct {
	Dir *statedir.Dir // nil: persistence is disabled, nothing is read or written
	// Ephemeral says that Dir lasts as long as the process: persistence is disabled, and Dir is there for snapshots
	// alone. Then a part may do without a serializer.
	Ephemeral bool
	Scratch   string // folder for temporary files; "" is the system's
	Version   string // of the program, for snapshots to say
	Services  []ServiceConfig
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

	// Process is the service's program, which the runtime starts when the service is needed and stops when it
	// is put to sleep and at the end. nil: the service is in this process, or runs by itself.
	Process Process
	// External says that somebody else runs the service, so that it cannot be put to sleep.
	External bool
	// Changes asks whether the service has changed since it was asked last, where requests do not go through
	// the runtime: before each scheduled save and whatever else saves. An error counts as a change. May be nil.
	Changes func(context.Context) (bool, error)
	// Idle puts the service to sleep when there was no request for so long; 0: never. It takes persistence.
	Idle time.Duration
	// Restarts bounds how often a process that has ended by itself is started again without a request.
	Restarts Restarts
}

// Restarts is how often, Most times Within a time; a negative Most is never. Beyond it only the next request
// starts the process.
type Restarts struct {
	Most   int
	Within time.Duration
}

// PartConfig describes one part of a service.
type PartConfig struct {
	Name       string // store, backend, assets
	Serializer Serializer
	Source     Source
	Dirty      *Dirty // what the source marks
	// SelfMarking says that the source marks Dirty, so that Service.Changed need not.
	SelfMarking bool
	// Lag is how long the service may take until the source finds a change that it has acknowledged.
	Lag      time.Duration
	Schema   uint64         // of the service's records, for a serializer that carries one; 0: the serializer's own
	Settings map[string]any // for the serializer
	Proof    Proof          // "": full
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
	lives    LifeObserver
	services []*Service

	ephemeral bool
	scratch   string
	version   string

	life     context.Context // ends with Close
	stop     context.CancelFunc
	mu       sync.Mutex // guards closed, and flushers against being added to while Close waits
	closed   bool
	flushers sync.WaitGroup // what runs beside requests
	// transfers are captures and loads of snapshots, which may start programs: Close waits for them before all else.
	transfers sync.WaitGroup
}

// New makes a runtime from cfg. It reads nothing yet: Start does.
func New(cfg Config) (*Runtime, error) {
	if cfg.Observer == nil {
		cfg.Observer = noObserver{}
	}
	life, stop := context.WithCancel(context.Background())
	rt := &Runtime{dir: cfg.Dir, compile: cfg.Compile, logger: cfg.Logger, observer: cfg.Observer, lives: noObserver{},
		ephemeral: cfg.Ephemeral, scratch: cfg.Scratch, version: cfg.Version, life: life, stop: stop}
	if l, ok := cfg.Observer.(LifeObserver); ok {
		rt.lives = l
	}
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

// Start looks at what is saved, wakes the services whose load strategy is ON_STARTUP and begins to save by
// schedule and to put idle services to sleep. A service that cannot be loaded does not keep the others from
// starting: its status says so, and it is neither served nor saved until it is loaded or reset.
func (rt *Runtime) Start(ctx context.Context) error {
	for _, s := range rt.services {
		if s.idle > 0 && rt.Persistent() {
			rt.background(func() { s.watchIdle(rt.life) })
		}
		if !rt.Persistent() && s.process == nil {
			continue
		}
		if rt.Persistent() {
			s.peek()
		}
		if s.load == LoadOnStartup {
			if err := s.ensureAwake(ctx); err != nil && ctx.Err() != nil {
				return err
			}
		}
		if s.save == SaveScheduled && rt.Persistent() {
			rt.background(func() { s.flush(rt.life) })
		}
	}
	return nil
}

// Close stops saving by schedule, saves what is dirty, save for services whose strategy is MANUAL, and stops
// the services' processes. The caller has stopped requests before. A cancelled ctx ends a save under way,
// which leaves the last good generation in place; processes are stopped all the same. The error names every
// service that could not be saved or stopped.
func (rt *Runtime) Close(ctx context.Context) error {
	rt.mu.Lock()
	rt.closed = true
	rt.mu.Unlock()
	rt.transfers.Wait()
	rt.stop()
	rt.flushers.Wait()
	// At once, because a program may take its time to stop, and a container gives little of it.
	errs := make([]error, len(rt.services))
	var closing sync.WaitGroup
	for i, s := range rt.services {
		closing.Go(func() { errs[i] = s.close(ctx) })
	}
	closing.Wait()
	return errors.Join(errs...)
}

// background runs f beside requests, and has Close wait for it; false: the runtime is closed already.
func (rt *Runtime) background(f func()) bool {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if rt.closed {
		return false
	}
	rt.flushers.Go(f)
	return true
}

// Persistent reports whether state is read and written at all.
func (rt *Runtime) Persistent() bool { return rt.dir != nil && !rt.ephemeral }

// Services lists the services in the order of the configuration. Do not change the slice.
func (rt *Runtime) Services() []*Service { return rt.services }

// Service finds a service by name; the error wraps abi.ErrNotFound and lists the names there are.
func (rt *Runtime) Service(name string) (*Service, error) {
	for _, s := range rt.services {
		if s.name == name {
			return s, nil
		}
	}
	names := make([]string, len(rt.services))
	for i, s := range rt.services {
		names[i] = s.name
	}
	return nil, fmt.Errorf("service %q: %w; the services are %q", name, abi.ErrNotFound, names)
}

// errDisabled is the answer to control calls where there is nothing to save to.
var errDisabled = errors.New("persistence is disabled (PERSISTENCE=0)")
