package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/torpor-run/torpor/host/abi"
)

// ErrStopped: the service was stopped while somebody waited for it to be ready.
var ErrStopped = errors.New("stopped before it was ready")

// State is what a service's program is doing.
type State string

// The states of a [Supervisor].
const (
	Stopped    State = "stopped"     // not begun, or stopped on purpose
	Starting   State = "starting"    // begun and not ready yet
	Running    State = "running"     // ready
	Stopping   State = "stopping"    // being ended, or what it has left behind is
	BackingOff State = "backing off" // it is started when the pause is over, see Status.Next
	Failed     State = "failed"      // it could not be started, or has died too often; Start tries again
)

// Exit says how a service's program ended.
type Exit struct {
	Time   time.Time
	Ran    time.Duration // since its start
	Code   int           // its exit code; -1 if there is none
	Signal string        // that ended it, "SIGKILL", or ""
	Lost   bool          // how is not known, as its guard was killed
	Forced bool          // it had to be killed: SIGTERM was not enough
	Tail   []string      // the last lines it said
	Again  bool          // it will be started again by itself
	Err    error         // for people: how it ended or could not be started, and what it said; nil if it was stopped
}

func (e *Exit) at(begun time.Time) { e.Time, e.Ran = time.Now(), time.Since(begun) }

// String says how it ended, "ended with exit code 3 after 1.2s".
func (e Exit) String() string {
	ran := e.Ran.Round(time.Millisecond)
	switch {
	case e.Ran == 0:
		return "could not be started"
	case e.Lost:
		return fmt.Sprintf("was killed with its guard after %v", ran)
	case e.Signal != "":
		return fmt.Sprintf("was ended by %s after %v", e.Signal, ran)
	}
	return fmt.Sprintf("ended with exit code %d after %v", e.Code, ran)
}

// Status is what is known of a service's program at one moment.
type Status struct {
	State    State
	Since    time.Time // of the state
	PID      int       // 0 if it does not run
	Address  string    // where it listens, or did last; "" before its first start
	Restarts int       // by itself, since the last Start that began it
	Next     time.Time // of a BackingOff service: when it is started
	Exit     *Exit     // its last end, if there was one
	Err      error     // of a Failed service: why
	Tail     []string  // the last lines it said
}

// Supervisor runs one service's program. It is safe for concurrent use. It must be stopped before it is
// let go of.
type Supervisor struct {
	config Config

	mu      sync.Mutex
	status  Status        // but for Tail
	life    *life         // nil when stopped or failed
	out     *output       // of the last run
	changed chan struct{} // closed at each change of status or life, and replaced

	// Of the life's goroutine; one life begins when the one before has ended.
	port     int // kept, 0 if none yet
	pause    time.Duration
	notUntil time.Time
	restarts []time.Time
}

// life is the time from a Start to a Stop, or until the service is given up.
type life struct {
	ctx      context.Context // ends when it is to be stopped
	stop     context.CancelFunc
	kill     chan struct{} // closed when it is to be killed
	killOnce sync.Once
	done     chan struct{} // closed when nothing is left; err and left are set
	err      error         // for those who wait in Start
	left     error         // for those who wait in Stop
	ran      bool          // it was ready once
	over     bool          // it ended by itself and is not started again; guarded by mu
}

// New makes a supervisor; it runs nothing yet. The error names what is wrong with the configuration.
func New(config Config) (*Supervisor, error) {
	config, err := config.Check()
	if err != nil {
		return nil, err
	}
	if config.Ports == nil {
		config.Ports = &Ports{}
	}
	return &Supervisor{config: config, port: config.Port, status: Status{State: Stopped, Since: time.Now()}, changed: make(chan struct{})}, nil
}

// Start returns when the service is ready: it starts it if it does not run, and waits if somebody else does
// or a pause after a failure is not over. Whoever waits gets the same result. When ctx ends so does the wait,
// not the start. An error says what the program said last. It wraps abi.ErrNotFound if the command or the
// folder is missing, abi.ErrLocked if a configured port is taken, context.DeadlineExceeded if it was not ready
// in time (or ctx was over), [ErrStopped] if Stop was called, and what Config.Prepare returned. After an error
// other than of ctx nothing is left running.
func (s *Supervisor) Start(ctx context.Context) error {
	var joined *life
	for {
		if err := ctx.Err(); err != nil {
			return s.about(fmt.Errorf("not waited for any longer, it is %s: %w", s.Status().State, context.Cause(ctx)))
		}
		s.mu.Lock()
		if joined == nil {
			switch {
			case s.life == nil:
				joined = s.begin()
			case s.life.ctx.Err() == nil && !s.life.over:
				joined = s.life
			}
		}
		running := joined != nil && joined == s.life && s.status.State == Running && joined.ctx.Err() == nil
		changed := s.changed
		s.mu.Unlock()
		if running {
			return nil
		}
		if joined == nil { // one is being stopped, or is over; ours is the next
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		select {
		case <-joined.done:
			return s.about(joined.err)
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// Stop ends the service and all that it has begun, and returns when nothing of it is left: it is asked
// (SIGTERM), and killed (SIGKILL) after Config.StopTimeout, or when ctx ends. It is not an error to stop what
// does not run, or to have to kill; an error says which processes could not even be killed. Those who wait in
// Start get [ErrStopped]. After Stop the service stays stopped until the next Start.
func (s *Supervisor) Stop(ctx context.Context) error {
	s.mu.Lock()
	l := s.life
	if l == nil {
		if s.status.State != Stopped {
			s.set(func(st *Status) { st.State, st.Err = Stopped, nil })
		}
		s.mu.Unlock()
		return nil
	}
	l.stop()
	s.mu.Unlock()
	select {
	case <-l.done:
	case <-ctx.Done():
		l.killOnce.Do(func() { close(l.kill) })
		<-l.done
	}
	return s.about(l.left)
}

// Address is where the service listens, "127.0.0.1:34567", or "" if it has not been ready yet. It may change
// with a restart.
func (s *Supervisor) Address() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status.Address
}

// Status tells what the service is doing.
func (s *Supervisor) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status
	if st.Exit != nil {
		exit := *st.Exit
		exit.Tail = slices.Clone(exit.Tail)
		st.Exit = &exit
	}
	if s.out != nil {
		st.Tail = s.out.tail()
	}
	return st
}

func (s *Supervisor) about(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("service %s: %w", s.config.Service, err)
}

// set changes the status; s.mu is held.
func (s *Supervisor) set(change func(*Status)) {
	before := s.status.State
	change(&s.status)
	if s.status.State != before {
		s.status.Since = time.Now()
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Supervisor) update(change func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set(change)
}

func (s *Supervisor) watchOutput(o *output) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = o
}

// begin begins a life; s.mu is held.
func (s *Supervisor) begin() *life {
	l := &life{kill: make(chan struct{}), done: make(chan struct{})}
	l.ctx, l.stop = context.WithCancel(context.Background())
	s.life = l
	s.set(func(st *Status) { st.State, st.Restarts, st.Err = Starting, 0, nil })
	go s.live(l)
	return l
}

// live runs the service until it is stopped or given up.
func (s *Supervisor) live(l *life) {
	defer close(l.done)
	if by, ok := s.takeFixed(); !ok {
		l.err = fmt.Errorf("port %d is %w by service %s; configure another port for one of them, or none", s.config.Port, abi.ErrLocked, by)
	} else {
		for again := true; again; {
			again = s.once(l)
		}
		if s.config.Port != 0 {
			s.config.Ports.release(s.config.Port)
		}
	}
	state := Failed
	if l.ctx.Err() != nil {
		state, l.err = Stopped, ErrStopped
	}
	l.stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.life = nil
	s.set(func(st *Status) {
		st.State, st.PID, st.Next = state, 0, time.Time{}
		if state == Failed {
			st.Err = l.err
		}
	})
}

// once waits for a pause to be over, starts the service, waits for its end, and says whether to do so again. If
// not, l.err says why.
func (s *Supervisor) once(l *life) (again bool) {
	if !s.sleep(l) {
		return false
	}
	s.update(func(st *Status) { st.State = Starting })
	r, exit := s.attempt(l)
	if r == nil {
		return l.ctx.Err() == nil && s.failed(l, exit)
	}
	l.ran = true
	s.config.Logger.Info("service started", "service", s.config.Service, "pid", r.pid, "address", s.Address(), "seconds", time.Since(r.begun).Seconds())
	s.update(func(st *Status) { st.State, st.PID = Running, r.pid })
	select {
	case <-r.exited:
	case <-l.ctx.Done():
	}
	s.update(func(st *Status) { st.State, st.PID = Stopping, 0 })
	exit = s.finish(l, r, l.kill)
	if l.ctx.Err() != nil {
		s.config.Logger.Info("service stopped", "service", s.config.Service, "how", exit.String(), "forced", exit.Forced)
		return false
	}
	exit.Err = fmt.Errorf("it %v%s", exit, said(exit.Tail))
	return s.failed(l, exit)
}

// finish ends a run, at once when kill is closed, and keeps how it ended.
func (s *Supervisor) finish(l *life, r *run, kill <-chan struct{}) Exit {
	l.left = r.end(kill)
	exit := r.exit
	exit.Tail, exit.Forced = r.out.tail(), r.killed || exit.Signal == "SIGKILL" && l.ctx.Err() != nil
	if l.left != nil {
		s.config.Logger.Error("what a service began could not be ended", "service", s.config.Service, "error", l.left)
	}
	s.update(func(st *Status) { st.Exit, st.PID = &exit, 0 })
	return exit // what is in the status is another copy
}

// sleep waits for the pause after a failure to be over; false: the service is to be stopped.
func (s *Supervisor) sleep(l *life) bool {
	if d := time.Until(s.notUntil); d > 0 {
		s.update(func(st *Status) { st.State, st.Next = BackingOff, s.notUntil })
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-l.ctx.Done():
		}
		s.update(func(st *Status) { st.Next = time.Time{} })
	}
	return l.ctx.Err() == nil
}

// failed keeps account of an end that nobody wanted, and says whether to start again.
func (s *Supervisor) failed(l *life, exit Exit) (again bool) {
	now := time.Now()
	if exit.Ran >= s.config.Backoff.Sound {
		s.pause, s.restarts = 0, nil
	}
	if s.pause = min(2*s.pause, s.config.Backoff.Most); s.pause == 0 {
		s.pause = s.config.Backoff.First
	}
	s.notUntil = now.Add(s.pause)
	l.err = exit.Err
	if !l.ran {
		s.update(func(st *Status) { st.Exit = &exit })
		s.config.Logger.Error("service could not be started", "service", s.config.Service, "error", exit.Err)
		return false // who called Start is told
	}
	s.restarts = slices.DeleteFunc(s.restarts, func(t time.Time) bool { return now.Sub(t) > s.config.Restarts.Within })
	if exit.Again = len(s.restarts) < s.config.Restarts.Most; exit.Again {
		s.restarts = append(s.restarts, now)
		s.config.Logger.Error("service has died; it is started again", "service", s.config.Service, "in", s.pause, "error", exit.Err)
	} else if s.config.Restarts.Most < 0 {
		s.config.Logger.Error("service has died", "service", s.config.Service, "error", exit.Err)
	} else {
		if n := len(s.restarts); n > 0 {
			l.err = fmt.Errorf("it has been started again %d times within %v and is given up: %w", n, s.config.Restarts.Within, exit.Err)
		}
		s.config.Logger.Error("service has died and is not started again by itself", "service", s.config.Service, "error", l.err)
	}
	s.update(func(st *Status) {
		if l.over = !exit.Again; exit.Again {
			st.Restarts++
		}
		e := exit
		st.Exit = &e
	})
	if s.config.Exited != nil {
		s.config.Exited(exit)
	}
	return exit.Again
}

// attempt starts the service and waits until it is ready. If somebody else has taken the port that was chosen
// for it, it is started again with another. Without a run nothing is left running, and Exit.Err says why.
func (s *Supervisor) attempt(l *life) (*run, Exit) {
	for try := 1; ; try++ {
		r, exit := s.tryPort(l)
		if r != nil || l.ctx.Err() != nil {
			return r, exit
		}
		if s.config.Port != 0 || try == portTries || !errors.Is(exit.Err, errPort) {
			return nil, exit
		}
		s.config.Logger.Warn("somebody has taken the port chosen for a service; it is started with another", "service", s.config.Service,
			"port", s.port, "error", exit.Err)
		s.dropPort()
	}
}

// errPort: somebody else has the service's port.
var errPort = fmt.Errorf("its port is %w by somebody else", abi.ErrLocked)

// tryPort starts the service on one port.
func (s *Supervisor) tryPort(l *life) (*run, Exit) {
	none := func(err error) (*run, Exit) { return nil, Exit{Time: time.Now(), Code: -1, Err: err} }
	if err := s.takePort(l.ctx); err != nil {
		return none(err)
	}
	r, err := s.spawn(l.ctx, s.port)
	if r == nil {
		return none(err)
	}
	if err == nil {
		s.update(func(st *Status) { st.PID = r.pid })
		var address string
		if address, err = s.awaitReady(l.ctx, r, s.port); err == nil {
			s.update(func(st *Status) { st.Address = address })
			if err = s.prepare(l.ctx, r, address); err == nil {
				return r, Exit{}
			}
		}
	}
	kill := l.kill
	if !r.runs() {
		kill = closed() // there is nothing to ask
	}
	exit := s.finish(l, r, kill)
	switch {
	case r.pid == 0:
		return none(err)
	case errors.Is(err, errEnded):
		exit.Err = fmt.Errorf("it %v, before it was ready%s", exit, said(exit.Tail))
		if taken(s.port) { // nothing of the service is left
			exit.Err = fmt.Errorf("%w: %w", errPort, exit.Err)
		}
	default:
		exit.Err = fmt.Errorf("%w%s", err, said(exit.Tail))
	}
	return nil, exit
}

// prepare calls Config.Prepare; the service must live meanwhile.
func (s *Supervisor) prepare(ctx context.Context, r *run, address string) error {
	if s.config.Prepare == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-r.exited:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := s.config.Prepare(ctx, address)
	select {
	case <-r.exited:
		return errEnded
	default:
	}
	return err
}

// takeFixed takes a configured port for this life.
func (s *Supervisor) takeFixed() (by string, ok bool) {
	if s.config.Port == 0 {
		return "", true
	}
	return s.config.Ports.hold(s.config.Port, s.config.Service)
}

// takePort sees to it that there is a port that can be listened on: the one the service had, if nobody has
// taken it.
func (s *Supervisor) takePort(ctx context.Context) error {
	if s.config.Port != 0 {
		return waitFree(ctx, s.port)
	}
	if s.port != 0 && !taken(s.port) {
		return nil
	}
	if s.port != 0 {
		s.config.Logger.Warn("somebody has taken the port of a service while it did not run; it gets another", "service", s.config.Service, "port", s.port)
		s.dropPort()
	}
	port, err := s.config.Ports.choose(s.config.Service)
	s.port = port
	return err
}

func (s *Supervisor) dropPort() {
	s.config.Ports.release(s.port)
	s.port = 0
}

// closed gives a channel that is closed.
func closed() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}
