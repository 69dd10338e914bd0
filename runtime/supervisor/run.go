package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/torpor-run/torpor/host/abi"
)

// Bounds of what should take milliseconds.
const (
	guardWithin = 10 * time.Second // a guard is begun and takes its order
	endMargin   = 5 * time.Second  // it kills and goes, beyond the service's own time
	outputDelay = 2 * time.Second  // the output ends once nobody is left
)

// run is one life of a service's program, from its start until nothing of it is left.
type run struct {
	service string
	grace   time.Duration
	guard   *osexec.Cmd
	control *os.File // its end is the service's, at once
	out     *output
	said    *os.File // where out reads
	begun   time.Time

	started chan struct{} // closed when pid or refused is known
	pid     int           // of the program
	refused error         // why it could not be run

	exited chan struct{} // closed when the program has ended and exit is known, but for its Tail
	exit   Exit

	gone   chan struct{} // closed when nothing is left, and killed and left are known
	killed bool          // SIGKILL was needed
	left   []int         // processes that could not be killed

	cut sync.Once // control is closed
}

// spawn begins the service under a guard.
func (s *Supervisor) spawn(ctx context.Context, port int) (*run, error) {
	var ready *regexp.Regexp
	if s.config.Ready.Line != "" {
		ready = regexp.MustCompile(s.config.Ready.Line) // Check has compiled it
	}
	command, env := s.config.filled(port)
	out := newOutput(s.config.Service, s.config.Output, ready, s.config.Logger)
	return spawn(ctx, order{Args: toBytes(command), Env: toBytes(env), Folder: []byte(s.config.Folder), Grace: s.config.StopTimeout}, out,
		func() { s.watchOutput(out) })
}

// spawn begins a guard and has it run a program, which it looks for; begun is called when there is something to
// hear. The run that it gives with an error must be ended too, if it is not nil.
func spawn(ctx context.Context, o order, out *output, begun func()) (*run, error) {
	self, err := guardProgram()
	if err != nil {
		return nil, err
	}
	if os.Getenv(guardMark) != "" {
		return nil, errors.New("this program was begun as the guard of a service and has not called supervisor.Guard")
	}
	command, folder := string(o.Args[0]), string(o.Folder)
	if info, err := os.Stat(folder); err != nil {
		return nil, missing(fmt.Errorf("the folder to run in: %w", err))
	} else if !info.IsDir() {
		return nil, fmt.Errorf("the folder to run in: %s is no folder: %w", folder, abi.ErrNotFound)
	}
	program, err := find(command, toStrings(o.Env), folder)
	if err != nil {
		return nil, err
	}
	o.Program = []byte(program)
	line, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}

	var pipes [3][2]*os.File // control, reports, output; what is read and what is written
	for i := range pipes {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(pipes[:i])
			return nil, err
		}
		pipes[i] = [2]*os.File{r, w}
	}
	r := &run{service: out.service, grace: o.Grace, control: pipes[0][1], said: pipes[2][0], begun: time.Now(), out: out,
		started: make(chan struct{}), exited: make(chan struct{}), gone: make(chan struct{})}
	r.guard = &osexec.Cmd{Path: self, Args: []string{filepath.Base(os.Args[0]), guardWord, out.service}, Env: []string{guardMark + "=1"},
		Dir: "/", Stdout: pipes[2][1], Stderr: pipes[2][1], ExtraFiles: []*os.File{pipes[0][0], pipes[1][1]}, SysProcAttr: ownSession()}
	if err := r.guard.Start(); err != nil {
		closeAll(pipes[:])
		return nil, fmt.Errorf("the guard of the service: %w", err)
	}
	pipes[0][0].Close()
	pipes[1][1].Close()
	pipes[2][1].Close()
	go r.out.read(r.said)
	go r.follow(pipes[1][0])
	begun()

	_ = r.control.SetWriteDeadline(time.Now().Add(guardWithin))
	_, err = r.control.Write(append(line, '\n'))
	_ = r.control.SetWriteDeadline(time.Time{})
	timer := time.NewTimer(guardWithin)
	defer timer.Stop()
	select {
	case <-r.started:
		err = r.refused // says more than a broken pipe does
	case <-ctx.Done():
		return r, ctx.Err()
	case <-timer.C:
		err = errors.Join(err, fmt.Errorf("the guard of the service has not answered for %v", guardWithin))
	}
	if err != nil {
		return r, fmt.Errorf("%s: %w", command, err)
	}
	return r, nil
}

func closeAll(pipes [][2]*os.File) {
	for _, p := range pipes {
		p[0].Close()
		p[1].Close()
	}
}

// follow takes the guard's reports until it is gone.
func (r *run) follow(reports *os.File) {
	defer reports.Close()
	var greeted, started, exited bool
	for dec := json.NewDecoder(reports); ; {
		var m report
		if err := dec.Decode(&m); err != nil {
			break
		}
		switch {
		case m.Guard != 0:
			greeted = m.Guard == guardVersion
		case !greeted:
			continue
		case m.Started != 0 && !started:
			r.pid, started = m.Started, true
			close(r.started)
		case m.Refused != "" && !started:
			r.refused, started = errors.New(m.Refused), true
			if m.Errno != 0 {
				r.refused = explain(syscall.Errno(m.Errno))
			}
			close(r.started)
		case m.Ended != nil && !exited:
			r.exit, exited = Exit{Code: m.Ended.Code, Signal: signalName(m.Ended.Signal)}, true
			r.exit.at(r.begun)
			close(r.exited)
		case m.Killed:
			r.killed = true
		case len(m.Left) > 0:
			r.left = m.Left
		}
	}
	if !started {
		r.refused = errors.New("the guard of the service has ended by itself; does main call supervisor.Guard first?")
		close(r.started)
	}
	if !exited {
		if r.pid > 0 {
			killGroup(r.pid) // somebody has killed the guard; the program dies with it, and this is for the rest of its group
		}
		r.exit = Exit{Code: -1, Lost: r.pid > 0}
		r.exit.at(r.begun)
		close(r.exited)
	}
	_ = r.guard.Wait() // what there is to know has been reported
	timer := time.NewTimer(outputDelay)
	defer timer.Stop()
	select {
	case <-r.out.done:
	case <-timer.C: // something that was not caught holds the pipe
		r.said.Close()
		<-r.out.done
	}
	r.close()
	close(r.gone)
}

// runs reports whether the program has been started.
func (r *run) runs() bool {
	select {
	case <-r.started:
		return r.pid > 0
	default:
		return false
	}
}

// close ends the control pipe: the guard kills all there is.
func (r *run) close() { r.cut.Do(func() { r.control.Close() }) }

// end ends the program in good order, or at once when kill is closed, and returns when nothing is left. The
// error says what is. It may be called when the program has ended by itself.
func (r *run) end(kill <-chan struct{}) error {
	_, _ = r.control.Write([]byte{askByte}) // an error means that the guard is gone; one byte has room in any pipe
	timer := time.NewTimer(r.grace + endMargin)
	defer timer.Stop()
	select {
	case <-r.gone:
	case <-kill:
	case <-timer.C: // the guard hangs
	}
	r.close()
	timer.Reset(endMargin + outputDelay)
	select {
	case <-r.gone:
	case <-timer.C:
		if r.runs() {
			killGroup(r.pid)
		}
		_ = r.guard.Process.Kill()
		<-r.gone
	}
	if len(r.left) > 0 {
		return fmt.Errorf("processes %v could not be killed", r.left)
	}
	return nil
}

// find gives the program to execute for a command's name, as a shell in the folder would.
func find(name string, env []string, folder string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(folder, name)
		}
		return name, executable(name)
	}
	path := ""
	for _, v := range env {
		if value, ok := strings.CutPrefix(v, "PATH="); ok {
			path = value
		}
	}
	var found error
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(folder, dir)
		}
		program := filepath.Join(dir, name)
		err := executable(program)
		if err == nil {
			return program, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && found == nil {
			found = err
		}
	}
	if found != nil {
		return "", found
	}
	return "", fmt.Errorf("%s is not in the PATH of its environment, %q: %w", name, path, abi.ErrNotFound)
}

func executable(program string) error {
	info, err := os.Stat(program)
	switch {
	case err != nil:
		return missing(err)
	case info.IsDir():
		return fmt.Errorf("%s is a folder: %w", program, fs.ErrPermission)
	case info.Mode()&0o111 == 0:
		return fmt.Errorf("%s may not be executed, see its mode: %w", program, fs.ErrPermission)
	}
	return nil
}

// missing has an error be abi.ErrNotFound if it says that.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", abi.ErrNotFound, err)
	}
	return err
}

// explain says what execve's less known errors mean.
func explain(errno syscall.Errno) error {
	switch errno {
	case syscall.ENOEXEC:
		return fmt.Errorf("%w: a script needs a first line with its interpreter, and a program must be made for this machine", errno)
	case syscall.ENOENT: // the file itself has been looked at
		return fmt.Errorf("%w: the interpreter or loader that it asks for is not there: %w", abi.ErrNotFound, errno)
	case syscall.E2BIG:
		return fmt.Errorf("%w: arguments and environment pass what the system allows: %w", abi.ErrTooLarge, errno)
	}
	return errno
}
