package runtime

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/torpor-run/torpor/host/abi"
)

// Status is what a service is doing; the words are LocalStack's.
type Status string

// The states of a service.
const (
	StatusAvailable Status = "available" // not loaded yet: its first request loads it
	StatusStarting  Status = "starting"  // being loaded
	StatusRunning   Status = "running"
	StatusError     Status = "error" // its saved state cannot be loaded; it is neither served nor saved
)

// Service is one service of a [Runtime]. It is safe for concurrent use.
type Service struct {
	rt    *Runtime
	name  string
	parts []*part
	save  SaveStrategy
	load  LoadStrategy
	flushInterval,
	holdTimeout time.Duration
	gate *gate

	// working serializes saves, loads and resets; it is taken before state.
	working chan struct{}

	mu      sync.Mutex // guards what follows and the parts' figures
	status  Status
	err     error // of status error
	unread  bool  // MANUAL load: there is a saved state that has not been loaded
	loading chan struct{}
}

// part is one part of a service; its figures are guarded by the service's mu.
type part struct {
	PartConfig
	service    string
	generation uint64
	savedAt    time.Time
	records    uint64
	bytes      uint64
	fileBytes  int64
	deltas     int
	lastErr    error
	captured   changes // what a save under way is about to commit
	kept       bool    // the serializer's module lies in the state directory
	base       uint64  // the generation that the source tells changes from; 0: it cannot
}

func (rt *Runtime) newService(sc ServiceConfig) (*Service, error) {
	s := &Service{rt: rt, name: sc.Name, save: sc.Save, load: sc.Load, flushInterval: sc.FlushInterval,
		holdTimeout: sc.HoldTimeout, gate: newGate(), working: make(chan struct{}, 1), status: StatusRunning}
	var err error
	if s.save, err = Parse("save strategy of service "+sc.Name, string(sc.Save), SaveStrategies()); err != nil {
		return nil, err
	}
	if s.load, err = Parse("load strategy of service "+sc.Name, string(sc.Load), LoadStrategies()); err != nil {
		return nil, err
	}
	if s.flushInterval == 0 {
		s.flushInterval = DefaultFlushInterval
	}
	if s.flushInterval < MinFlushInterval || s.flushInterval > MaxFlushInterval {
		return nil, fmt.Errorf("flush interval of service %s is %v; it may be %v to %v", sc.Name, s.flushInterval, MinFlushInterval, MaxFlushInterval)
	}
	if s.holdTimeout == 0 {
		s.holdTimeout = DefaultHoldTimeout
	}
	if rt.Persistent() && s.load != LoadManual {
		s.status = StatusAvailable
	}
	for _, pc := range sc.Parts {
		if pc.Proof, err = Parse(fmt.Sprintf("proof of %s/%s", sc.Name, pc.Name), string(pc.Proof), Proofs()); err != nil {
			return nil, err
		}
		if pc.Compression, err = Parse(fmt.Sprintf("compression of %s/%s", sc.Name, pc.Name), pc.Compression, Compressions()); err != nil {
			return nil, err
		}
		if rt.Persistent() && (pc.Serializer == nil || pc.Source == nil || pc.Dirty == nil) {
			return nil, fmt.Errorf("service %s, part %s: serializer, source and dirty mark are required", sc.Name, pc.Name)
		}
		if pc.Schema == 0 && pc.Serializer != nil {
			pc.Schema = pc.Serializer.Descriptor().Schema
		}
		s.parts = append(s.parts, &part{PartConfig: pc, service: sc.Name})
	}
	return s, nil
}

// Name is the service's name.
func (s *Service) Name() string { return s.name }

// Enter admits a request: it loads the service's state at the first one, where the strategy says so,
// and waits while requests are held. ctx bounds the wait, not the load, which other requests may be
// waiting for too. An error means that the request must not be served: the state cannot be loaded, or
// ctx is done. The leave it returns must be called once, when the request has been handled and before
// its answer is finished: with ON_REQUEST saving it returns when what the request changed is saved.
func (s *Service) Enter(ctx context.Context) (leave func(), err error) {
	if !s.rt.Persistent() {
		return func() {}, nil
	}
	if err := s.ensureLoaded(ctx); err != nil {
		return nil, err
	}
	if err := s.gate.enter(ctx); err != nil {
		return nil, fmt.Errorf("service %s: waiting for a save to let requests on: %w", s.name, err)
	}
	before := s.marks()
	return func() {
		s.gate.leave()
		// Not: if the service is dirty. What this request changed may be in a save that is under way
		// and not committed yet; that is to be waited for.
		if s.save == SaveOnRequest && s.marks() != before {
			// The request is over; its client's going away must not end the save.
			if err := s.saveIfDirty(context.WithoutCancel(ctx)); err != nil {
				s.rt.logger.Error("save after a request failed", "service", s.name, "error", err)
			}
		}
	}, nil
}

// Save saves every part that has unsaved changes, or has never been saved, and returns when they are
// committed. When it fails the last good generation stays in place, and the part stays dirty.
func (s *Service) Save(ctx context.Context) error {
	if !s.rt.Persistent() {
		return errDisabled
	}
	return s.work(ctx, func(ctx context.Context) error {
		if err := s.refused(); err != nil {
			return err
		}
		if err := s.saveParts(ctx, func(p *part) bool {
			_, dirty := p.Dirty.Since()
			return dirty || s.generationOf(p) == 0
		}); err != nil {
			return err
		}
		s.mu.Lock()
		s.unread = false // saved over on purpose
		s.mu.Unlock()
		return nil
	})
}

// Load replaces the live state by the newest good generation, unsaved changes included; requests are
// held meanwhile. Where nothing is saved the live state stays, and found is false. When it fails before
// anything was replaced, a service that was running goes on as it was.
func (s *Service) Load(ctx context.Context) (found bool, err error) {
	if !s.rt.Persistent() {
		return false, errDisabled
	}
	err = s.work(ctx, func(ctx context.Context) error {
		return s.holding(ctx, func(ctx context.Context) error {
			found, err = s.restoreParts(ctx)
			return err
		})
	})
	return found, err
}

// Reset empties the live state and, unless the save strategy is MANUAL, saves that; the generation
// before stays beside it. It also ends the status error. Where nothing can be saved over what is there,
// nothing is done.
func (s *Service) Reset(ctx context.Context) error {
	reset := func(ctx context.Context) error {
		for _, p := range s.parts {
			p.base = 0
			if err := p.Source.Reset(ctx); err != nil {
				return fmt.Errorf("service %s, part %s: reset: %w", s.name, p.Name, err)
			}
			p.Dirty.Mark()
		}
		s.set(StatusRunning, nil)
		return nil
	}
	if !s.rt.Persistent() {
		return reset(ctx)
	}
	return s.work(ctx, func(ctx context.Context) error {
		// Looked at first: what is live must not be given up where the empty state cannot be saved, as
		// over a state file of a newer format.
		if s.save == SaveManual {
			return s.holding(ctx, reset)
		}
		if err := s.writable(); err != nil {
			return err
		}
		if err := s.holding(ctx, reset); err != nil {
			return err
		}
		return s.saveParts(ctx, func(*part) bool { return true })
	})
}

// writable says why a part cannot be saved.
func (s *Service) writable() error {
	for _, p := range s.parts {
		pending, err := s.rt.dir.Begin(s.name, p.Name)
		if err != nil {
			return fmt.Errorf("service %s, part %s: nothing was done, because the result could not be saved (a state of a newer format has to be moved away by hand): %w", s.name, p.Name, err)
		}
		pending.Abort()
	}
	return nil
}

// work runs f alone among the service's saves, loads and resets.
func (s *Service) work(ctx context.Context, f func(context.Context) error) error {
	select {
	case s.working <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("service %s: waiting for a save, load or reset under way: %w", s.name, context.Cause(ctx))
	}
	defer func() { <-s.working }()
	return f(ctx)
}

// ErrBusy: requests under way did not end in time, so that a save, load or reset was not done.
var ErrBusy = errors.New("requests under way did not end in time")

// holding runs f while no request is inside the service.
func (s *Service) holding(ctx context.Context, f func(context.Context) error) error {
	start := time.Now()
	wait, cancel := context.WithTimeoutCause(ctx, s.holdTimeout, ErrBusy)
	defer cancel()
	if err := s.gate.hold(wait); err != nil {
		s.rt.observer.RequestsHeld(s.name, time.Since(start), err)
		return fmt.Errorf("service %s: %d requests under way after %v, nothing was done: %w", s.name, s.gate.count(), time.Since(start).Round(time.Millisecond), err)
	}
	defer func() {
		s.gate.release()
		s.rt.observer.RequestsHeld(s.name, time.Since(start), nil)
	}()
	return f(ctx)
}

// saveIfDirty saves when a part has unsaved changes, having waited for a save under way; it is what
// strategies call. It does not save over a state that a MANUAL load has not loaded, nor a service whose
// state could not be loaded.
func (s *Service) saveIfDirty(ctx context.Context) error {
	return s.work(ctx, func(ctx context.Context) error {
		if !s.dirty() {
			return nil
		}
		if err := s.refused(); err != nil {
			return err
		}
		s.mu.Lock()
		unread := s.unread
		s.mu.Unlock()
		if unread {
			err := fmt.Errorf("service %s: not saved, because its saved state has not been loaded and would be replaced: load it, reset the service, or save it by a control call", s.name)
			s.note(err)
			return err
		}
		return s.saveParts(ctx, func(p *part) bool { _, dirty := p.Dirty.Since(); return dirty })
	})
}

// refused says why the service may not be saved: what cannot be loaded must not be replaced.
func (s *Service) refused() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status == StatusError {
		return fmt.Errorf("service %s: not saved, because its saved state could not be loaded and would be replaced (reset the service to start anew): %w", s.name, s.err)
	}
	return nil
}

func (s *Service) dirty() bool {
	for _, p := range s.parts {
		if _, dirty := p.Dirty.Since(); dirty {
			return true
		}
	}
	return false
}

// marks counts the changes ever marked.
func (s *Service) marks() uint64 {
	var n uint64
	for _, p := range s.parts {
		n += p.Dirty.count()
	}
	return n
}

func (s *Service) generationOf(p *part) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return p.generation
}

func (s *Service) set(status Status, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.err = status, err
	if status == StatusRunning {
		s.unread = false
	}
}

// note keeps err as the last error of every part.
func (s *Service) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.parts {
		p.lastErr = err
	}
}

// flush saves every flush interval until ctx ends. A failure is logged and tried again at the next.
func (s *Service) flush(ctx context.Context) {
	tick := time.NewTicker(s.flushInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := s.saveIfDirty(ctx); err != nil && ctx.Err() == nil {
				s.rt.logger.Error("scheduled save failed; the last good generation stays, the next try follows", "service", s.name, "in", s.flushInterval, "error", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// peek looks at what is saved, so that status can speak of it before it is loaded.
func (s *Service) peek() {
	for _, p := range s.parts {
		gens, err := s.rt.dir.Generations(s.name, p.Name)
		if err != nil && !errors.Is(err, abi.ErrNotFound) {
			s.rt.logger.Warn("saved state cannot be looked at", "service", s.name, "part", p.Name, "error", err)
			continue
		}
		for _, g := range gens {
			if g.Err != nil {
				continue
			}
			s.mu.Lock()
			p.generation, p.savedAt, p.fileBytes = g.Number, g.Header.Created, g.Size
			s.unread = s.unread || s.load == LoadManual
			s.mu.Unlock()
			break
		}
	}
}

// ensureLoaded returns once the service's state is loaded; one caller loads, the others wait.
func (s *Service) ensureLoaded(ctx context.Context) error {
	for {
		s.mu.Lock()
		status, err, loading := s.status, s.err, s.loading
		switch status {
		case StatusRunning:
			s.mu.Unlock()
			return nil
		case StatusError:
			s.mu.Unlock()
			return err
		case StatusAvailable:
			loading = make(chan struct{})
			s.status, s.loading = StatusStarting, loading
			s.rt.flushers.Go(func() {
				defer close(loading)
				// What goes wrong is kept in the status.
				_ = s.work(s.rt.life, func(ctx context.Context) error {
					_, err := s.restoreParts(ctx)
					return err
				})
			})
		}
		s.mu.Unlock()
		select {
		case <-loading:
		case <-ctx.Done():
			return fmt.Errorf("service %s: waiting for its state to be loaded: %w", s.name, context.Cause(ctx))
		}
	}
}
