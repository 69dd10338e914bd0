package runtime

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/torpor-run/torpor/host/abi"
)

// Process is the program of a service, which the runtime starts and stops; *supervisor.Supervisor is one.
// It must not start the program again by itself: the runtime does, and gives it its state back. Whoever
// runs the program tells [Service.ProcessExited] when it ends without having been stopped. It must be safe
// for concurrent use.
type Process interface {
	// Start returns when the program is ready, at once if it is already. After an error other than of ctx
	// nothing is left running.
	Start(ctx context.Context) error
	// Stop returns when nothing of the program is left. It ends the program even when ctx is done, and a start
	// under way with it. It is no error if it does not run.
	Stop(ctx context.Context) error
}

// ErrProcess: a service's program could not be started, or ended by itself. The next request, or Wake, tries
// again.
var ErrProcess = errors.New("its program is not running")

// ErrExternal: a service cannot be stopped, because somebody else runs it.
var ErrExternal = errors.New("somebody else runs it")

// waking is one try to wake a service; err is set before done is closed.
type waking struct {
	done chan struct{}
	err  error
}

// offline reports whether the part is restored and reset while the process is stopped.
func (p *part) offline() bool {
	o, ok := p.Source.(OfflineSource)
	return ok && o.Offline()
}

func online(p *part) bool { return !p.offline() }

// some are the parts that choose takes, in order.
func (s *Service) some(choose func(*part) bool) []*part {
	return slices.DeleteFunc(slices.Clone(s.parts), func(p *part) bool { return !choose(p) })
}

// Wake returns when the service can serve requests: when its process is ready and its state is loaded, as its
// load strategy says. Errors are those of Enter.
func (s *Service) Wake(ctx context.Context) error {
	if !s.rt.Persistent() && s.process == nil {
		return nil
	}
	return s.ensureAwake(ctx)
}

// ensureAwake returns once the service can serve; one caller wakes it, the others wait and have the same
// result.
func (s *Service) ensureAwake(ctx context.Context) error {
	for {
		s.mu.Lock()
		status, err, w := s.status, s.err, s.waking
		if status == StatusAvailable {
			w = &waking{done: make(chan struct{})}
			if !s.rt.background(func() {
				defer close(w.done)
				w.err = s.work(s.rt.life, s.wake)
			}) {
				s.mu.Unlock()
				return fmt.Errorf("service %s: %w", s.name, context.Canceled)
			}
			s.status, s.waking = StatusStarting, w
		}
		s.mu.Unlock()
		switch status {
		case StatusRunning:
			return nil
		case StatusError:
			return err
		case StatusStopping: // requests are held until it sleeps, or goes on
			if err := s.gate.enter(ctx); err != nil {
				return fmt.Errorf("service %s: waiting for it to be put to sleep, and woken: %w", s.name, err)
			}
			s.gate.leave()
			continue
		}
		select {
		case <-w.done:
			if w.err != nil {
				return w.err
			}
		case <-ctx.Done():
			return fmt.Errorf("service %s: waiting for it to be woken: %w", s.name, context.Cause(ctx))
		}
	}
}

// wake makes a starting service ready. What sources of files find is left alone if the service ran before,
// in this runtime's life: it is what was saved when it was put to sleep, or newer when its process died.
func (s *Service) wake(ctx context.Context) (err error) {
	start := time.Now()
	s.mu.Lock()
	if s.status != StatusStarting { // a load or a reset came first
		defer s.mu.Unlock()
		return s.err
	}
	restore := s.rt.Persistent() && (s.load != LoadManual || s.ran && !s.unread)
	ran := s.ran
	s.exited = nil
	s.mu.Unlock()

	event := WakeEvent{Service: s.name}
	defer func() {
		event.Total, event.Err = time.Since(start), err
		s.rt.lives.ServiceWoken(event)
	}()
	if restore && !ran && s.process != nil {
		if _, err := s.restoreParts(ctx, s.some((*part).offline)); err != nil {
			return err
		}
		event.Restore = time.Since(start)
	}
	if s.process != nil {
		starting := time.Now()
		if err := s.startProcess(ctx); err != nil {
			return err
		}
		event.Start = time.Since(starting)
	}
	if restore {
		restoring, rest := time.Now(), s.parts
		if s.process != nil {
			rest = s.some(online)
		}
		if _, err := s.restoreParts(ctx, rest); err != nil {
			return errors.Join(s.diedWaking(err), s.stopProcess(context.WithoutCancel(ctx)))
		}
		event.Restore += time.Since(restoring)
	}
	s.gate.touch()
	s.mu.Lock()
	if s.exited == nil {
		s.status, s.err, s.asleep, s.unread = StatusRunning, nil, false, s.unread && !restore
	}
	s.mu.Unlock()
	if err := s.diedWaking(nil); err != nil {
		return err
	}
	s.adopt()
	if s.process != nil {
		s.rt.logger.Info("service is awake", "service", s.name, "took", time.Since(start))
	}
	return nil
}

// diedWaking tells whether the process died while the service was starting, which its next request puts
// right; otherwise it gives err.
func (s *Service) diedWaking(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.exited == nil {
		return err
	}
	s.status, s.err = StatusAvailable, s.exited
	return s.exited
}

// adopt marks what sources of files find where nothing of it was ever saved.
func (s *Service) adopt() {
	if s.process == nil || !s.rt.Persistent() {
		return
	}
	for _, p := range s.some((*part).offline) {
		if s.generationOf(p) == 0 {
			p.Dirty.Mark()
		}
	}
}

// startProcess starts the process. After an error the service is available: its next request tries again.
func (s *Service) startProcess(ctx context.Context) error {
	err := s.process.Start(ctx)
	if err != nil {
		err = fmt.Errorf("service %s: %w: %w", s.name, ErrProcess, err)
		// Whoever waited may have gone; the start may not have.
		if ctx.Err() != nil {
			err = errors.Join(err, s.process.Stop(context.WithoutCancel(ctx)))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up = err == nil; !s.up {
		s.status, s.err = StatusAvailable, err
	}
	return err
}

// stopProcess stops the process, if there is one.
func (s *Service) stopProcess(ctx context.Context) error {
	if s.process == nil {
		return nil
	}
	err := s.process.Stop(ctx)
	if err != nil {
		err = fmt.Errorf("service %s: its program could not be stopped: %w", s.name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.up = err != nil
	return err
}

// ProcessExited says that the process has ended without having been stopped, and that nothing of it is left.
// The service is started again, unless that happens too often, and gets back what was saved of what it kept
// in memory; its files stay as they are. cause says how it ended.
func (s *Service) ProcessExited(cause error) {
	s.rt.lives.ProcessExited(s.name)
	cause = fmt.Errorf("service %s: %w: %w", s.name, ErrProcess, cause)
	s.mu.Lock()
	s.up = false
	if s.status == StatusStarting {
		s.exited = cause
	}
	if s.status != StatusRunning {
		s.mu.Unlock()
		return
	}
	s.status, s.err, s.ran = StatusAvailable, cause, true
	again := s.mayRestart()
	s.mu.Unlock()
	s.countLost()
	if !again {
		s.rt.logger.Error("the service's program has ended too often; its next request starts it", "service", s.name, "error", cause)
		return
	}
	s.rt.background(func() {
		for {
			err := s.ensureAwake(s.rt.life)
			if err == nil || !errors.Is(err, ErrProcess) || s.rt.life.Err() != nil {
				return
			}
			s.mu.Lock()
			again := s.mayRestart()
			s.mu.Unlock()
			if !again {
				s.rt.logger.Error("the service's program could not be started again; its next request tries", "service", s.name, "error", err)
				return
			}
		}
	})
}

// countLost puts the dirty marks right after the process died: what the service kept in memory and nobody
// saved is gone, what lies in its files is still to be saved.
func (s *Service) countLost() {
	for _, p := range s.parts {
		if p.Dirty == nil || p.SelfMarking {
			continue
		}
		if p.offline() {
			p.Dirty.Mark()
			continue
		}
		if since, dirty := p.Dirty.Since(); dirty {
			p.Dirty.take()
			s.rt.logger.Error("the service's program died, and with it what was not saved", "service", s.name, "part", p.Name,
				"unsaved_since", since, "generation", s.generationOf(p))
		}
	}
}

// mayRestart counts an end of the process, and tells whether it may be started again without a request. The
// caller holds mu.
func (s *Service) mayRestart() bool {
	now := time.Now()
	s.exits = append(slices.DeleteFunc(s.exits, func(at time.Time) bool { return now.Sub(at) > s.restarts.Within }), now)
	return len(s.exits) <= s.restarts.Most
}

// Sleep saves the service, whatever its save strategy is, stops its process or, where it is in this process,
// empties it, and so gives its memory back; its next request wakes it. It returns nil if the service does
// not run. Requests are held meanwhile, and then wake it. An error that wraps [ErrBusy] says that requests
// under way did not end in time; one that wraps [ErrExternal] that the service can not be stopped. After an
// error before the process was stopped, the service goes on as it was; after a later one it is asleep, and
// what could not be saved stays dirty.
func (s *Service) Sleep(ctx context.Context) error {
	if s.external {
		return fmt.Errorf("service %s: %w, so it cannot be put to sleep", s.name, ErrExternal)
	}
	if !s.rt.Persistent() {
		return fmt.Errorf("service %s: not put to sleep: %w", s.name, errDisabled)
	}
	return s.work(ctx, func(ctx context.Context) error {
		if s.Status().Status == StatusAvailable {
			return nil
		}
		s.ask(ctx)
		start := time.Now()
		event := SleepEvent{Service: s.name}
		err := s.replaceable()
		if err == nil {
			var release func()
			if release, err = s.hold(ctx); err == nil {
				err = s.suspend(ctx, &event)
				release()
			}
		}
		event.Total, event.Err = time.Since(start), err
		s.rt.lives.ServiceSlept(event)
		if err == nil {
			s.rt.logger.Info("service is asleep", "service", s.name, "took", event.Total)
		}
		return err
	})
}

// suspend puts a running service to sleep while requests are held.
func (s *Service) suspend(ctx context.Context, event *SleepEvent) error {
	s.mu.Lock()
	if s.status != StatusRunning { // the process has just died
		defer s.mu.Unlock()
		return s.err
	}
	s.status = StatusStopping
	s.mu.Unlock()
	stays := func(p *part) bool { return s.process != nil && p.offline() } // saved when the process has ended
	if err := s.saveParts(ctx, func(p *part) bool {
		_, dirty := p.Dirty.Since()
		return dirty && !stays(p)
	}); err != nil {
		s.set(StatusRunning, nil)
		return err
	}
	stopping := time.Now()
	err := s.stopProcess(ctx)
	event.Stop = time.Since(stopping)
	s.mu.Lock()
	s.ran, s.asleep = true, true
	s.mu.Unlock()
	if err == nil {
		err = s.saveStopped(ctx)
	}
	if s.process == nil {
		for _, p := range s.parts {
			p.base = 0
			if resetErr := p.Source.Reset(ctx); resetErr != nil {
				err = errors.Join(err, fmt.Errorf("service %s, part %s: saved, but its memory could not be given back: %w", s.name, p.Name, resetErr))
			}
			p.Dirty.take()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.err = StatusAvailable, nil
	return err
}

// saveStopped saves what a process that has been stopped may have written since it was captured last.
func (s *Service) saveStopped(ctx context.Context) error {
	if s.process == nil {
		return nil
	}
	return s.saveChosen(ctx, func(p *part) bool {
		_, dirty := p.Dirty.Since()
		return p.offline() && (dirty || p.Dirty.count() != p.stopped)
	})
}

// close saves what is dirty, unless the strategy is MANUAL, and stops the process.
func (s *Service) close(ctx context.Context) error {
	saves := s.rt.Persistent() && s.save != SaveManual
	if saves {
		s.ask(ctx)
	}
	if s.process == nil {
		if saves {
			return s.saveIfDirty(ctx)
		}
		return nil
	}
	var err error
	if saves {
		err = s.work(ctx, func(ctx context.Context) error {
			return s.saveChosen(ctx, func(p *part) bool {
				_, dirty := p.Dirty.Since()
				return dirty && !p.offline()
			})
		})
	}
	stopErr := s.stopProcess(ctx)
	if stopErr == nil && saves {
		err = errors.Join(err, s.work(ctx, s.saveStopped))
	}
	return errors.Join(err, stopErr)
}

// reload is Load for a service with a process, while requests are held.
func (s *Service) reload(ctx context.Context) (found bool, err error) {
	saved := slices.ContainsFunc(s.parts, s.saved)
	s.mu.Lock()
	running, up := s.status == StatusRunning, s.up
	if !saved && s.status == StatusError {
		s.status, s.err = StatusAvailable, nil
	}
	s.mu.Unlock()
	if !saved {
		return false, nil
	}
	if offline := s.some((*part).offline); slices.ContainsFunc(offline, s.saved) {
		if err := s.stopProcess(ctx); err != nil {
			return false, err
		}
		found, err = s.restoreParts(ctx, offline)
		if err != nil {
			if running && up && s.Status().Status == StatusRunning {
				err = errors.Join(err, s.startProcess(ctx)) // as it was
			}
			return false, err
		}
	}
	if err := s.startProcess(ctx); err != nil {
		return false, err
	}
	foundOnline, err := s.restoreParts(ctx, s.some(online))
	if err != nil {
		if found {
			s.set(StatusError, err)
		}
		if s.Status().Status != StatusRunning {
			err = errors.Join(err, s.stopProcess(context.WithoutCancel(ctx)))
		}
		return false, err
	}
	s.set(StatusRunning, nil)
	return found || foundOnline, nil
}

// saved reports whether there is a state file of the part, sound or not.
func (s *Service) saved(p *part) bool {
	gens, err := s.rt.dir.Generations(s.name, p.Name)
	return !errors.Is(err, abi.ErrNotFound) && (err != nil || len(gens) > 0)
}

// empty resets every part; a process is stopped where its source needs that, and running afterwards.
func (s *Service) empty(ctx context.Context) error {
	reset := func(parts []*part) error {
		for _, p := range parts {
			p.base = 0
			if err := p.Source.Reset(ctx); err != nil {
				return fmt.Errorf("service %s, part %s: reset: %w", s.name, p.Name, err)
			}
			if p.Dirty != nil {
				p.Dirty.Mark()
			}
		}
		return nil
	}
	rest := s.parts
	if s.process != nil {
		rest = s.some(online)
		offline := s.some((*part).offline)
		if len(offline) > 0 {
			if err := s.stopProcess(ctx); err != nil {
				return err
			}
		}
		resetErr := reset(offline)
		if err := errors.Join(resetErr, s.startProcess(ctx)); err != nil {
			return err
		}
	}
	if err := reset(rest); err != nil {
		return err
	}
	s.set(StatusRunning, nil)
	return nil
}

// watchIdle puts the service to sleep when it has been idle for long enough, until ctx ends.
func (s *Service) watchIdle(ctx context.Context) {
	notBefore := time.Now()
	for {
		since, idle := s.gate.idleSince()
		until := since.Add(s.idle)
		if !idle || s.Status().Status != StatusRunning {
			until = time.Now().Add(s.idle)
		}
		if until.Before(notBefore) {
			until = notBefore
		}
		if time.Until(until) > 0 {
			if s.sleepUntil(ctx, until, "idle") != nil {
				return
			}
			continue
		}
		if err := s.Sleep(ctx); err != nil && ctx.Err() == nil {
			s.rt.logger.Error("an idle service could not be put to sleep", "service", s.name, "next_try_in", s.idle, "error", err)
		}
		notBefore = time.Now().Add(s.idle)
	}
}
