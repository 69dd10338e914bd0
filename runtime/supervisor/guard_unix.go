//go:build unix

package supervisor

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

// How long a guard tries to kill, and how often it looks meanwhile. Killing takes milliseconds unless a
// process hangs in the kernel, on a dead network disk for one.
const (
	killFor  = 5 * time.Second
	killTick = 10 * time.Millisecond
)

// Guard is the other half of a [Supervisor], in a process of its own: see the package's comment. A program
// that runs supervisors calls it before anything else with its arguments, os.Args[1:]; if it was begun as a
// guard the call returns when the service is gone, with handled true, and the program must then exit with
// code. Otherwise it does nothing and returns at once. It takes over the process: signals, children, the
// file descriptors 3 and 4.
func Guard(args []string) (code int, handled bool) {
	if len(args) == 0 || args[0] != guardWord || os.Getenv(guardMark) == "" {
		return 0, false
	}
	// The program dies with the thread that began it.
	runtime.LockOSThread()
	syscall.CloseOnExec(controlFD)
	syscall.CloseOnExec(reportFD)
	// Not ignored, as the program would inherit that: caught, and nobody looks. When to end is the runtime's to
	// say, not the one's who signals everything that is called torpor.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
	g := &guard{reports: json.NewEncoder(os.NewFile(reportFD, "reports")), children: make(chan os.Signal, 1)}
	signal.Notify(g.children, syscall.SIGCHLD)
	adopt(args[1:])
	if err := g.run(bufio.NewReader(os.NewFile(controlFD, "control"))); err != nil {
		g.tell(report{Refused: err.Error()})
		return 1, true
	}
	return 0, true
}

type guard struct {
	reports  *json.Encoder
	children chan os.Signal // a child has ended, perhaps several
	pid      int            // of the program, which is also its process group's
	reaped   bool           // the program's number is free for others
}

// tell reports to the runtime. If that is dead the control pipe says so too.
func (g *guard) tell(r report) { _ = g.reports.Encode(r) }

func (g *guard) run(control *bufio.Reader) error {
	g.tell(report{Guard: guardVersion})
	line, err := control.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("the runtime gave no order: %w", err)
	}
	var o order
	if err := json.Unmarshal(line, &o); err != nil {
		return fmt.Errorf("order: %w", err)
	}
	g.pid, err = syscall.ForkExec(string(o.Program), toStrings(o.Args),
		&syscall.ProcAttr{Dir: string(o.Folder), Env: toStrings(o.Env), Files: []uintptr{0, 1, 2}, Sys: ownGroup()})
	if err != nil {
		var errno syscall.Errno
		_ = errors.As(err, &errno)
		g.tell(report{Refused: err.Error(), Errno: int(errno)})
		return nil
	}
	g.tell(report{Started: g.pid})
	ask, orphaned := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(orphaned)
		for asked := false; ; {
			b, err := control.ReadByte()
			if err != nil {
				return
			}
			if b == askByte && !asked {
				asked = true
				close(ask)
			}
		}
	}()
	g.watch(o.Grace, ask, orphaned)
	return nil
}

// watch waits until nothing is left of the program, and sees to it when that is wanted.
func (g *guard) watch(grace time.Duration, ask, orphaned <-chan struct{}) {
	var (
		asked, killing bool
		kill           <-chan time.Time // the grace is over
		tick           <-chan time.Time // look again
		giveUp         time.Time
	)
	begin := func(killNow bool) {
		if !asked && !killNow {
			g.signal(syscall.SIGTERM)
			g.signal(syscall.SIGCONT) // who is stopped does not hear
			kill = time.After(grace)
		}
		if killNow && !killing {
			killing, giveUp = true, time.Now().Add(killFor)
		}
		if !asked {
			asked, tick = true, time.Tick(killTick)
		}
	}
	for {
		if none := g.reap(); none && !g.groupLives() {
			return
		}
		if g.reaped {
			begin(false) // what the program has left behind
		}
		if killing {
			g.signal(syscall.SIGKILL)
			if time.Now().After(giveUp) {
				g.tell(report{Left: g.left()})
				return
			}
		}
		select {
		case <-g.children:
		case <-tick:
		case <-ask:
			ask = nil
			begin(false)
		case <-kill:
			kill = nil
			g.tell(report{Killed: true})
			begin(true)
		case <-orphaned:
			orphaned = nil
			begin(true)
		}
	}
}

// reap collects the children that have ended and reports whether there are no others.
func (g *guard) reap() (none bool) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return true // ECHILD: no child is left, so no descendant is
		case pid == 0:
			return false
		}
		if pid == g.pid {
			g.reaped = true
			e := &ended{Code: status.ExitStatus()}
			if status.Signaled() {
				e.Signal = int(status.Signal())
			}
			g.tell(report{Ended: e})
		}
	}
}
