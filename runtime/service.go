package runtime

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// Status is what a service is doing; the words are LocalStack's.
type Status string

// The states of a service.
const (
	StatusAvailable Status = "available" // not loaded yet, or asleep: its next request wakes it
	StatusStarting  Status = "starting"  // being woken: its process started, its state loaded
	StatusRunning   Status = "running"
	StatusStopping  Status = "stopping" // being put to sleep
	StatusError     Status = "error"    // its saved state cannot be loaded; it is neither served nor saved
)

// Service is one service of a [Runtime]. It is safe for concurrent use.
type Service struct {
	rt    *Runtime
	name  string
	parts []*part
	save  SaveStrategy
	load  LoadStrategy
	flushInterval,
	holdTimeout,
	idle time.Duration
	process  Process
	external bool
	changes  func(context.Context) (bool, error)
	restarts Restarts
	gate     *gate

	// working serializes saves, loads and resets; it is taken before state.
	working chan struct{}
	asking  chan struct{}             // serializes asking whether it has changed: the answer counts once, and for all who ask
	given   map[*part]*statefile.File // what restores give instead of what is saved; under work

	mu        sync.Mutex // guards what follows and the parts' figures
	status    Status
	err       error   // of status error
	unread    bool    // MANUAL load: there is a saved state that has not been loaded
	waking    *waking // of status starting
	up        bool    // the process runs
	asleep    bool    // put to sleep, and not woken yet
	ran       bool    // in this runtime's life: what lies in its files is not replaced when it is woken
	lived     bool    // it has run in this runtime's life: what is saved is given back whatever the load strategy
	unclean   bool    // it did not end in order when it was put to sleep
	giving    bool    // the process runs and is given its state; its end is then kept in exited
	exited    error
	deaths    uint64      // how often the process ended by itself
	deadAt    time.Time   // when it did last
	resetting bool        // and what is live is half of a reset, of no use if the process dies
	undo      bool        // a reset failed: what is saved is given back, however old it is
	exits     []time.Time // when it ended by itself, lately
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
	stopped    uint64  // Dirty's count of marks when it was last captured with the process stopped
	lost       error   // changes that died with the process; nil once somebody has accepted that
	found      bool    // there was something where the source looks; under work
}

func (rt *Runtime) newService(sc ServiceConfig) (*Service, error) {
	s := &Service{rt: rt, name: sc.Name, save: sc.Save, load: sc.Load, flushInterval: sc.FlushInterval,
		holdTimeout: sc.HoldTimeout, idle: sc.Idle, process: sc.Process, external: sc.External, changes: sc.Changes, restarts: sc.Restarts, gate: newGate(), working: make(chan struct{}, 1), asking: make(chan struct{}, 1), status: StatusRunning}
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
	if s.idle != 0 && (s.idle < MinIdle || s.idle > MaxIdle) {
		return nil, fmt.Errorf("idle time of service %s is %v; it may be %v to %v, or 0 for never", sc.Name, s.idle, MinIdle, MaxIdle)
	}
	if s.idle > 0 && s.external {
		return nil, fmt.Errorf("service %s: %w, so it cannot have an idle time", sc.Name, ErrExternal)
	}
	if s.external && s.process != nil {
		return nil, fmt.Errorf("service %s: it has a process and is external at once", sc.Name)
	}
	if s.restarts == (Restarts{}) {
		s.restarts = Restarts{Most: DefaultRestarts, Within: DefaultWithin}
	}
	if rt.Persistent() && s.load != LoadManual || s.process != nil {
		s.status = StatusAvailable
	}
	for _, pc := range sc.Parts {
		if pc.Proof, err = Parse(fmt.Sprintf("proof of %s/%s", sc.Name, pc.Name), string(pc.Proof), Proofs()); err != nil {
			return nil, err
		}
		if pc.Compression, err = Parse(fmt.Sprintf("compression of %s/%s", sc.Name, pc.Name), pc.Compression, Compressions()); err != nil {
			return nil, err
		}
		if rt.dir != nil && (pc.Serializer == nil && rt.Persistent() || pc.Source == nil || pc.Dirty == nil) {
			return nil, fmt.Errorf("service %s, part %s: serializer, source and dirty mark are required", sc.Name, pc.Name)
		}
		if pc.Lag < 0 || pc.Lag > MaxLag {
			return nil, fmt.Errorf("service %s, part %s: lag is %v; it may be up to %v", sc.Name, pc.Name, pc.Lag, MaxLag)
		}
		if pc.Schema == 0 && pc.Serializer != nil {
			pc.Schema = pc.Serializer.Descriptor().Schema
		}
		p := &part{PartConfig: pc, service: sc.Name}
		if rt.Persistent() && s.external && p.offline() && !pc.SelfMarking && s.load != LoadManual {
			return nil, fmt.Errorf("service %s, part %s: %w, and its source would replace files under it: have Torpor run it, or set its load strategy to MANUAL", sc.Name, pc.Name, ErrExternal)
		}
		s.parts = append(s.parts, p)
	}
	return s, nil
}

// Name is the service's name.
func (s *Service) Name() string { return s.name }

// Enter admits a request: it wakes the service at the first one, and waits while requests are held. ctx
// bounds the wait, not the waking, which other requests may be waiting for too. An error means that the
// request must not be served: the state cannot be loaded, the process cannot be started ([ErrProcess]; the
// next request tries again), or ctx is done. The leave it returns must be called once, when the request has
// been handled and before its answer is finished: with ON_REQUEST saving it returns when what the request
// changed is saved.
func (s *Service) Enter(ctx context.Context) (leave func(), err error) {
	if s.rt.dir == nil {
		if s.process != nil {
			return func() {}, s.ensureAwake(ctx)
		}
		return func() {}, nil
	}
	for {
		if err := s.ensureAwake(ctx); err != nil {
			return nil, err
		}
		if err := s.gate.enter(ctx); err != nil {
			return nil, fmt.Errorf("service %s: waiting for a save to let requests on: %w", s.name, err)
		}
		if s.state() == StatusRunning {
			break
		}
		s.gate.leave() // it was put to sleep while this request was held
	}
	return s.entered(ctx), nil
}

// EnterNow is Enter where that need not wait: otherwise, or where Enter would give an error, ok is false and nothing
// has been done. Of ctx it takes only the values.
func (s *Service) EnterNow(ctx context.Context) (leave func(), ok bool) {
	if s.state() != StatusRunning {
		return nil, false
	}
	if s.rt.dir == nil {
		return func() {}, true
	}
	if !s.gate.enterNow() {
		return nil, false
	}
	if s.state() != StatusRunning {
		s.gate.leave() // it was put to sleep in between
		return nil, false
	}
	return s.entered(ctx), true
}

// entered gives what a request that is inside the gate leaves by.
func (s *Service) entered(ctx context.Context) (leave func()) {
	before := s.marks()
	return func() {
		s.gate.leave()
		// Not: if the service is dirty. What this request changed may be in a save that is under way
		// and not committed yet; that is to be waited for.
		if s.save == SaveOnRequest && s.rt.Persistent() && s.marks() != before {
			// The request is over; its client's going away must not end the save.
			ctx := context.WithoutCancel(ctx)
			err := s.settle(ctx)
			if err == nil {
				err = s.saveIfDirty(ctx)
			}
			if err != nil {
				s.rt.logger.Error("save after a request failed", "service", s.name, "error", err)
			}
		}
	}
}

// Changed says that a request changed something, or may have, so that the service is saved when its strategy
// says. It is for services that do not mark their changes themselves, and to be called when the change can be
// captured and before the request is answered.
func (s *Service) Changed() {
	for _, p := range s.parts {
		if !p.SelfMarking && p.Dirty != nil {
			p.Dirty.Mark()
		}
	}
}

// ask marks the service changed if it says so when asked.
func (s *Service) ask(ctx context.Context) {
	if s.changes == nil {
		return
	}
	select {
	case s.asking <- struct{}{}:
		defer func() { <-s.asking }()
	case <-ctx.Done(): // which is an error of changes too
		if s.state() == StatusRunning {
			s.Changed()
		}
		return
	}
	if s.state() != StatusRunning {
		return
	}
	changed, err := s.changes(ctx)
	if err != nil && s.state() != StatusRunning {
		return // its end, which is why, has been accounted for
	}
	if err != nil && ctx.Err() == nil {
		s.rt.logger.Warn("it cannot be told whether the service has changed, so it is taken as changed", "service", s.name, "error", err)
	}
	if changed || err != nil {
		s.Changed()
	}
}

// Activity says that the service is in use although no request is under way, so that it does not count as
// idle.
func (s *Service) Activity() { s.gate.touch() }

// Save saves every part that has unsaved changes, or has never been saved, and returns when they are
// committed. When it fails the last good generation stays in place, and the part stays dirty.
func (s *Service) Save(ctx context.Context) error {
	if !s.rt.Persistent() {
		return errDisabled
	}
	if err := s.settle(ctx); err != nil {
		return err
	}
	return s.work(ctx, func(ctx context.Context) error {
		if err := s.refused(); err != nil {
			return err
		}
		s.mu.Lock()
		up := s.process == nil || s.up
		s.mu.Unlock()
		parts := s.some(func(p *part) bool {
			_, dirty := p.Dirty.Since()
			return dirty || s.generationOf(p) == 0 && (up || p.offline())
		})
		if err := s.saveParts(ctx, func(p *part) bool { return slices.Contains(parts, p) }); err != nil {
			return err
		}
		s.mu.Lock()
		s.unread = s.unread && len(parts) == 0 // saved over on purpose
		s.mu.Unlock()
		s.accept()
		return nil
	})
}

// Load replaces the live state by the newest good generation, unsaved changes included; requests are
// held meanwhile. A process is stopped and started again where a source needs that. Where nothing is saved
// the live state stays, and found is false. When it fails before anything was replaced, a service that was
// running goes on as it was.
func (s *Service) Load(ctx context.Context) (found bool, err error) {
	if !s.rt.Persistent() {
		return false, errDisabled
	}
	again := false
	err = s.work(ctx, func(ctx context.Context) error {
		return s.holding(ctx, func(ctx context.Context) error {
			if s.process != nil {
				found, again, err = s.reload(ctx)
				return err
			}
			found, err = s.restoreParts(ctx, s.parts)
			if err == nil {
				s.set(StatusRunning, nil)
			}
			return err
		})
	})
	if again {
		err = errors.Join(err, s.ensureAwake(ctx))
	}
	if err == nil {
		s.accept()
	}
	return found, err
}

// Reset empties the live state and, unless the save strategy is MANUAL, saves that; the generation
// before stays beside it. It also ends the status error. Where nothing can be saved over what is there,
// nothing is done. When it fails later, a service with a process is stopped, and the next wake gives back what is
// saved.
func (s *Service) Reset(ctx context.Context) error {
	if s.rt.dir == nil {
		return s.work(ctx, s.empty)
	}
	return s.work(ctx, func(ctx context.Context) error {
		// Looked at first: what is live must not be given up where the empty state cannot be saved, as
		// over a state file of a newer format.
		if s.save == SaveManual || !s.rt.Persistent() {
			return s.holding(ctx, s.empty)
		}
		if err := s.writable(); err != nil {
			return err
		}
		s.setResetting(true)
		defer s.setResetting(false)
		// Held until it is saved: what a request brings in between would go with a save that fails.
		return s.holding(ctx, func(ctx context.Context) error {
			if err := s.empty(ctx); err != nil {
				return err
			}
			err := s.saveParts(ctx, func(*part) bool { return true })
			if err != nil && s.process != nil {
				err = s.unreset(ctx, err)
			}
			return err
		})
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
	release, err := s.hold(ctx)
	if err != nil {
		return err
	}
	defer func() {
		release()
		s.rt.observer.RequestsHeld(s.name, time.Since(start), nil)
	}()
	return f(ctx)
}

// hold waits until no request is inside the service, and keeps it so until release. The caller is in work.
func (s *Service) hold(ctx context.Context) (release func(), err error) {
	start := time.Now()
	wait, cancel := context.WithTimeoutCause(ctx, s.holdTimeout, ErrBusy)
	defer cancel()
	if err := s.gate.hold(wait); err != nil {
		s.rt.observer.RequestsHeld(s.name, time.Since(start), err)
		return nil, fmt.Errorf("service %s: %d requests under way after %v, nothing was done: %w", s.name, s.gate.count(), time.Since(start).Round(time.Millisecond), err)
	}
	return s.gate.release, nil
}

// saveIfDirty saves when a part has unsaved changes, having waited for a save under way; it is what
// strategies call. It does not save over a state that a MANUAL load has not loaded, nor a service whose
// state could not be loaded.
func (s *Service) saveIfDirty(ctx context.Context) error {
	return s.work(ctx, func(ctx context.Context) error {
		return s.saveChosen(ctx, func(p *part) bool { _, dirty := p.Dirty.Since(); return dirty })
	})
}

// saveChosen saves the parts chosen, if there are any, under the same conditions.
func (s *Service) saveChosen(ctx context.Context, choose func(*part) bool) error {
	if !slices.ContainsFunc(s.parts, choose) {
		return nil
	}
	if err := s.replaceable(); err != nil {
		return err
	}
	return s.saveParts(ctx, choose)
}

// replaceable says why what is saved must not be replaced without being told to.
func (s *Service) replaceable() error {
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
	return nil
}

// Sync returns once everything that the service acknowledged before the call is committed, and tells the
// newest generation of every part. It saves under the same conditions as a schedule does, whatever the
// strategy is. After the service's process has died with changes that were not saved, that is not to be had, and
// the error wraps [ErrLost] until Save, Load or Reset has accepted it, or [Runtime.Apply] for the parts it replaced.
func (s *Service) Sync(ctx context.Context) ([]PartGeneration, error) {
	if !s.rt.Persistent() {
		return nil, errDisabled
	}
	if err := s.settle(ctx); err != nil {
		return nil, err
	}
	if err := s.saveIfDirty(ctx); err != nil {
		s.rt.logger.Error("save for a sync failed; the last good generation stays", "service", s.name, "error", err)
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]PartGeneration, len(s.parts))
	for i, p := range s.parts {
		if p.lost != nil {
			return nil, p.lost
		}
		all[i] = PartGeneration{Part: p.Name, Generation: p.generation, SavedAt: p.savedAt}
	}
	return all, nil
}

// PartGeneration is the newest committed generation of a part: number 0 where there is none.
type PartGeneration struct {
	Part       string
	Generation uint64
	SavedAt    time.Time
}

// settle waits until the sources find what has been acknowledged so far, and it is known what has changed.
func (s *Service) settle(ctx context.Context) error {
	s.ask(ctx)
	s.mu.Lock()
	up := s.process == nil || s.up
	s.mu.Unlock()
	if !up {
		return nil // what has ended writes no more
	}
	var until time.Time
	for _, p := range s.parts {
		if p.Lag == 0 {
			continue
		}
		if at := p.Dirty.lastMark(); !at.IsZero() && at.Add(p.Lag).After(until) {
			until = at.Add(p.Lag)
		}
	}
	if until.IsZero() {
		return nil
	}
	return s.sleepUntil(ctx, until, "waiting until the service has written its changes")
}

func (s *Service) sleepUntil(ctx context.Context, until time.Time, what string) error {
	wait := time.NewTimer(time.Until(until))
	defer wait.Stop()
	select {
	case <-wait.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("service %s: %s: %w", s.name, what, context.Cause(ctx))
	}
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

// state is the status alone, for what is asked at every request.
func (s *Service) state() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

func (s *Service) set(status Status, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status, s.err = status, err; status == StatusRunning {
		s.runs()
		s.unread = false
	}
}

// runs makes the service one that runs. The caller holds mu.
func (s *Service) runs() {
	s.status, s.err = StatusRunning, nil
	s.asleep, s.unclean, s.ran, s.lived = false, false, true, true
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
			s.ask(ctx)
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
			var info statefile.Info
			if opened, err := s.rt.dir.Open(s.name, p.Name, g.Number); err == nil {
				info = opened.File().Info()
				_ = opened.Close() // read only
			}
			s.mu.Lock()
			p.generation, p.savedAt, p.fileBytes = g.Number, g.Header.Created, g.Size
			p.records, p.bytes, p.deltas = info.Records, info.Raw, info.Deltas
			s.unread = s.unread || s.load == LoadManual
			s.mu.Unlock()
			break
		}
	}
}
