package runtime

import (
	"cmp"
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

// ErrLost: a service's process died with changes that it had acknowledged and that were not saved.
var ErrLost = errors.New("what was not saved is lost")

// ErrExternal: a service cannot be stopped, because somebody else runs it.
var ErrExternal = errors.New("somebody else runs it")

// errUnknown stands where nobody noted an error.
var errUnknown = errors.New("its saved state cannot be loaded")

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
			return cmp.Or(err, errUnknown)
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
// in this runtime's life: it is what was saved when it was put to sleep, or newer when its process died. At the first
// start it is left alone if it is newer than what is saved.
func (s *Service) wake(ctx context.Context) (err error) {
	start := time.Now()
	s.mu.Lock()
	if s.status == StatusAvailable { // a load or a reset came first, and failed
		s.status = StatusStarting
	}
	if s.status != StatusStarting { // one came first
		defer s.mu.Unlock()
		return s.err
	}
	restore := s.rt.Persistent() && (s.load != LoadManual || s.lived && !s.unread)
	ran, crashed, undo := s.ran, s.ran && (!s.asleep || s.unclean), s.undo
	s.mu.Unlock()

	event := WakeEvent{Service: s.name}
	defer func() {
		event.Total, event.Err = time.Since(start), err
		s.rt.lives.ServiceWoken(event)
	}()
	if restore && !ran && s.process != nil && (undo || !s.keepNewer(ctx)) {
		if _, err := s.restoreParts(ctx, s.some((*part).offline)); err != nil {
			return err
		}
		event.Restore = time.Since(start)
	}
	if restore && crashed && s.process != nil {
		if err := s.replaceTorn(ctx); err != nil {
			return err
		}
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
		var gone []func()
		if s.process != nil {
			rest = s.some(online)
			gone = s.losses(rest)
		}
		if _, err := s.give(ctx, rest); err != nil {
			return err
		}
		for _, lose := range gone {
			lose()
		}
		event.Restore += time.Since(restoring)
	}
	s.gate.touch()
	s.mu.Lock()
	if err := s.died(); err != nil {
		s.mu.Unlock()
		return err
	}
	s.runs()
	s.unread = s.unread && !restore
	s.undo = false
	s.mu.Unlock()
	s.adopt()
	if s.process != nil {
		s.rt.logger.Info("service is awake", "service", s.name, "took", time.Since(start))
	}
	return nil
}

// give restores parts whose process runs. Where that fails, nothing is left running; if it was because the process
// died, the service is available, and its next request tries again.
func (s *Service) give(ctx context.Context, parts []*part) (found bool, err error) {
	found, err = s.restoreParts(ctx, parts)
	if err == nil || s.process == nil {
		return found, err
	}
	if !errors.Is(err, abi.ErrCorrupt) && !errors.Is(err, abi.ErrVersion) && !errors.Is(err, abi.ErrTooLarge) {
		// A connection that breaks off is there before the news of the process's end is.
		for end := time.Now().Add(exitNews); time.Now().Before(end) && !s.hasExited(); {
			if s.sleepUntil(ctx, time.Now().Add(exitNews/100), "its process's end") != nil {
				break
			}
		}
	}
	s.mu.Lock()
	died := s.died()
	if died != nil {
		err = fmt.Errorf("%w: %w", died, err)
	}
	stays := s.status == StatusRunning // nothing was replaced
	s.mu.Unlock()
	if stays {
		return false, err
	}
	return false, errors.Join(err, s.stopProcess(context.WithoutCancel(ctx)))
}

// exitNews is how long a process's end may take to be known.
const exitNews = 2 * time.Second

func (s *Service) hasExited() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.exited != nil
}

// died tells whether the process has ended since it was started, and makes the service available then. It ends
// the time in which an end is kept for it. The caller holds mu.
func (s *Service) died() error {
	exited := s.exited
	s.exited, s.giving = nil, false
	if exited != nil {
		s.status, s.err = StatusAvailable, exited
	}
	return exited
}

// replaceTorn looks at what a process that died has left in its files. Where that is nothing that could be saved,
// such as a file that was cut off half way, a program would not start from it either, and every file is given back as
// it was saved.
func (s *Service) replaceTorn(ctx context.Context) error {
	offline := s.some((*part).offline)
	for _, p := range offline {
		c, err := p.Source.Capture(ctx)
		if err == nil {
			err = c.Close()
		}
		if ctx.Err() != nil {
			return fmt.Errorf("service %s, part %s: looking at what its program left: %w", s.name, p.Name, context.Cause(ctx))
		}
		if err == nil || !slices.ContainsFunc(offline, s.saved) {
			continue
		}
		if !errors.Is(err, abi.ErrCorrupt) { // the disk is full, or the like: that says nothing of the files
			s.rt.logger.Warn("what the service's program left when it died could not be looked at; it is started from it", "service", s.name, "part", p.Name, "error", err)
			continue
		}
		s.rt.logger.Error("what the service's program left when it died is no state; what was saved is given back", "service", s.name, "part", p.Name, "error", err)
		gone := s.losses(s.some(func(p *part) bool { return p.offline() && s.saved(p) }))
		if _, err := s.restoreParts(ctx, offline); err != nil {
			return err
		}
		for _, lose := range gone {
			lose()
		}
		return nil
	}
	return nil
}

// keepNewer reports whether, at a runtime's first start of a service, the service's files are newer than what is saved
// of them, so that they stay and are to be saved: as a runtime that was killed leaves them, or a person who changed
// them. It is so only for services that keep all in files, as parts of one service must be of one moment, and if what
// is there could be saved.
func (s *Service) keepNewer(ctx context.Context) bool {
	var newer []*part
	for _, p := range s.parts {
		d, ok := p.Source.(DatedSource)
		if !ok || !p.offline() {
			return false
		}
		s.mu.Lock()
		savedAt := p.savedAt
		s.mu.Unlock()
		at, err := d.Modified(ctx)
		if err != nil || at.IsZero() || savedAt.IsZero() {
			return false // nothing there, or nothing saved: restoring does what is right
		}
		if at.After(savedAt) {
			newer = append(newer, p)
		}
	}
	for _, p := range newer {
		c, err := p.Source.Capture(ctx)
		if err == nil {
			err = c.Close()
		}
		if err != nil {
			s.rt.logger.Warn("the service's files are newer than what is saved, and no state that could be saved; what was saved is given back",
				"service", s.name, "part", p.Name, "error", err)
			return false
		}
	}
	for _, p := range newer {
		s.rt.logger.Warn("the service's files are newer than what is saved; they stay, and are saved (load the service to have what was saved)",
			"service", s.name, "part", p.Name, "generation", s.generationOf(p))
		p.Dirty.Mark()
	}
	return len(newer) > 0
}

// losses is what is to be called for what of parts is not saved, when it has been replaced by what is.
func (s *Service) losses(parts []*part) (gone []func()) {
	for _, p := range parts {
		if since, dirty := p.Dirty.Since(); dirty && !p.SelfMarking {
			gone = append(gone, func() { s.lose(p, since) })
		}
	}
	return gone
}

// adopt marks what sources of files find where nothing of it was ever saved.
func (s *Service) adopt() {
	if s.process == nil || !s.rt.Persistent() {
		return
	}
	for _, p := range s.some((*part).offline) {
		if d, ok := p.Source.(DatedSource); ok {
			if at, err := d.Modified(context.WithoutCancel(s.rt.life)); err == nil && at.IsZero() {
				continue // there is nothing
			}
		}
		if s.generationOf(p) == 0 && !p.SelfMarking {
			p.Dirty.Mark()
		}
	}
}

// startProcess starts the process. After an error the service is available: its next request tries again.
func (s *Service) startProcess(ctx context.Context) error {
	s.mu.Lock()
	s.exited, s.giving = nil, true
	s.mu.Unlock()
	err := s.process.Start(ctx)
	if err == nil {
		err = s.rt.life.Err() // Close stops what runs, and must not miss this one
	}
	if err != nil {
		err = fmt.Errorf("service %s: %w: %w", s.name, ErrProcess, err)
		// Whoever waited may have gone; the start may not have.
		if ctx.Err() != nil || s.rt.life.Err() != nil {
			err = errors.Join(err, s.process.Stop(context.WithoutCancel(ctx)))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up = err == nil && s.exited == nil; err != nil {
		s.status, s.err, s.giving = StatusAvailable, err, false
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
	s.up, s.giving = err != nil, false
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
	s.deaths++
	s.deadAt = time.Now()
	if s.giving || s.status == StatusStopping {
		s.exited = cause
	}
	fallen := func() {}
	if !s.giving && s.status == StatusRunning {
		fallen = s.fell(cause)
	}
	s.mu.Unlock()
	fallen()
}

// fell makes a service whose process has ended available; what it returns accounts for what is lost, and wakes the
// service if it may. The caller holds mu, and calls that without it.
func (s *Service) fell(cause error) (fallen func()) {
	s.status, s.err, s.ran, s.lived, s.exited = StatusAvailable, cause, !s.resetting, true, nil
	s.undo = s.undo || s.resetting
	resetting, again, at := s.resetting, s.mayRestart(), s.deadAt
	return func() { s.fallen(cause, at, resetting, again) }
}

func (s *Service) fallen(cause error, at time.Time, resetting, again bool) {
	if resetting {
		s.clean()
	} else {
		s.countLost(at)
	}
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

// countLost puts the dirty marks right after the process died, at at: what the service kept in memory and nobody
// saved is gone, what lies in its files is still to be saved.
func (s *Service) countLost(at time.Time) {
	if !s.rt.Persistent() {
		return // nothing ever is
	}
	for _, p := range s.parts {
		if p.Dirty == nil || p.SelfMarking {
			continue
		}
		since, dirty := p.Dirty.Since()
		if p.offline() {
			last := p.Dirty.lastMark()
			p.Dirty.Mark()
			if !dirty || p.Lag == 0 || at.Sub(last) > p.Lag {
				continue
			}
			since = last // may not have been written yet
		} else if dirty {
			p.Dirty.take()
		} else {
			continue
		}
		s.lose(p, since)
	}
}

// lose notes that changes since a time are gone.
func (s *Service) lose(p *part, since time.Time) {
	generation := s.generationOf(p)
	err := fmt.Errorf("service %s, part %s: its program died, and %w: it changed from %s on, and generation %d is the last one saved (save, load or reset the service to accept that)",
		s.name, p.Name, ErrLost, since.UTC().Format(time.RFC3339), generation)
	s.rt.logger.Error("the service's program died, and with it what was not saved", "service", s.name, "part", p.Name,
		"unsaved_since", since, "generation", generation)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.lost == nil { // the first one tells since when
		p.lost = err
	}
}

// accept forgets what was lost.
func (s *Service) accept() { s.acceptParts(func(*part) bool { return true }) }

// acceptParts forgets what was lost of some parts.
func (s *Service) acceptParts(which func(*part) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.parts {
		if which(p) {
			p.lost = nil
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
		if st := s.state(); st == StatusAvailable || st == StatusStarting { // to be woken when this is over
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
	// Some programs write late, and nothing at their end.
	if err := s.settle(ctx); err != nil {
		return s.goOn(err)
	}
	stays := func(p *part) bool { return s.process != nil && p.offline() } // saved when the process has ended
	if err := s.saveParts(ctx, func(p *part) bool {
		_, dirty := p.Dirty.Since()
		return dirty && !stays(p)
	}); err != nil {
		return s.goOn(err)
	}
	s.mu.Lock()
	died := s.exited
	s.mu.Unlock()
	if died != nil { // before it may have written all
		return s.goOn(died)
	}
	stopping := time.Now()
	// From here on whoever asked for it may go: a program that is killed for it may not have written all, and what it
	// has written is to be saved. What the runtime's end breaks off, that saves.
	ctx = s.rt.life
	err := s.stopProcess(context.WithoutCancel(ctx))
	event.Stop = time.Since(stopping)
	if err == nil {
		err = s.saveStopped(ctx)
	}
	s.mu.Lock()
	s.ran, s.lived, s.asleep, s.unclean, s.exited = true, true, true, err != nil || s.exited != nil, nil
	s.mu.Unlock()
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

// goOn has a service that could not be put to sleep run on, or start again if its process has died meanwhile.
func (s *Service) goOn(err error) error {
	s.mu.Lock()
	fallen := func() {}
	if s.exited != nil {
		fallen = s.fell(s.exited)
	} else {
		s.runs()
	}
	s.mu.Unlock()
	fallen()
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
	if s.process == nil {
		if saves {
			s.ask(ctx)
			return s.saveIfDirty(ctx)
		}
		return nil
	}
	var unsettled error
	if saves {
		unsettled = s.settle(ctx)
	}
	stopped := false
	err := s.work(ctx, func(ctx context.Context) error { // not in the middle of a load, which starts it again
		err := unsettled
		if saves && err == nil {
			err = s.saveChosen(ctx, func(p *part) bool {
				_, dirty := p.Dirty.Since()
				return dirty && !p.offline()
			})
		}
		stopped = true
		stopErr := s.stopProcess(ctx)
		if stopErr == nil && saves {
			err = errors.Join(err, s.saveStopped(ctx))
		}
		return errors.Join(err, stopErr)
	})
	if !stopped {
		err = errors.Join(err, s.stopProcess(ctx))
	}
	return err
}

// reload is Load for a service with a process, while requests are held. again: it failed, nothing was replaced,
// and the process, which was running, has been stopped: the service is to be woken.
func (s *Service) reload(ctx context.Context) (found, again bool, err error) {
	saved := slices.ContainsFunc(s.parts, s.saved)
	s.mu.Lock()
	running := s.status == StatusRunning
	if !saved && s.status == StatusError {
		s.status, s.err = StatusAvailable, nil
	}
	s.mu.Unlock()
	if !saved {
		return false, false, nil
	}
	stopped := false
	if offline := s.some((*part).offline); slices.ContainsFunc(offline, s.saved) {
		// Looked at first: what the process keeps in memory goes when it is stopped.
		if running && len(offline) < len(s.parts) && s.given == nil { // a snapshot has been looked at
			if err := s.loadable(ctx, s.parts); err != nil {
				return false, false, err
			}
		}
		stopped = true
		if err := s.stopProcess(context.WithoutCancel(ctx)); err != nil {
			return false, false, err
		}
		found, err = s.restoreParts(ctx, offline)
		if err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			if again = s.status == StatusRunning; again {
				s.status, s.err = StatusAvailable, err
			}
			return false, again, err
		}
	}
	defer s.starting()(&err)
	if err := s.startProcess(ctx); err != nil {
		return false, false, err
	}
	foundOnline, err := s.give(ctx, s.some(online))
	if err != nil {
		if stopped && s.state() == StatusRunning { // what is live is not what it was any more
			s.set(StatusError, err)
			err = errors.Join(err, s.stopProcess(context.WithoutCancel(ctx)))
		}
		return false, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.died(); err != nil {
		return false, false, err
	}
	s.runs()
	s.unread = false
	return found || foundOnline, false, nil
}

// saved reports whether there is something to restore: a state file of the part, sound or not, or what a snapshot gives.
func (s *Service) saved(p *part) bool {
	if s.given != nil {
		return s.given[p] != nil
	}
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
	if s.process == nil {
		if err := reset(s.parts); err != nil {
			return err
		}
		s.set(StatusRunning, nil)
		return nil
	}
	if offline := s.some((*part).offline); len(offline) > 0 {
		if err := s.stopProcess(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		if err := reset(offline); err != nil {
			return s.unreset(ctx, err)
		}
	}
	if err := s.startProcess(ctx); err != nil {
		return s.unreset(ctx, err)
	}
	if err := reset(s.some(online)); err != nil {
		return s.unreset(ctx, err)
	}
	s.mu.Lock()
	err := s.died()
	if err == nil {
		s.runs()
		s.unread = false
	}
	s.mu.Unlock()
	if err != nil {
		return s.unreset(ctx, err)
	}
	s.accept()
	return nil
}

// unreset has the next wake give every part what is saved of it: after half a reset nothing that lives is of use.
func (s *Service) unreset(ctx context.Context, err error) error {
	err = errors.Join(err, s.stopProcess(context.WithoutCancel(ctx)))
	s.clean()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.err, s.ran, s.undo = StatusAvailable, err, false, true
	return err
}

// clean takes the dirty marks away.
func (s *Service) clean() {
	for _, p := range s.parts {
		if p.Dirty != nil {
			p.Dirty.take()
		}
	}
}

func (s *Service) setResetting(v bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resetting = v
}

// watchIdle puts the service to sleep when it has been idle for long enough, until ctx ends.
func (s *Service) watchIdle(ctx context.Context) {
	notBefore := time.Now()
	for {
		since, idle := s.gate.idleSince()
		until := since.Add(s.idle)
		if !idle || s.state() != StatusRunning {
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
