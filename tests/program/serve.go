package program

import (
	"bufio"
	"bytes"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// Patience is how long anything may take that is bound to happen. The machine may be busy with other things; no test
// depends on how long something takes.
const Patience = 2 * time.Minute

// Output is what a program writes. It is safe for concurrent use.
type Output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// String is what has been written so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// Serving is torpor serve.
type Serving struct {
	Cmd      *exec.Cmd
	Out, Log *Output       // standard output and error
	Exited   chan struct{} // closed when it has ended
	lines    chan string   // what it said first; closed then
}

// Start starts cmd, which is torpor serve, by begin, nil being cmd.Start, and does not wait for it to listen. end is
// what ends it with the test; nil kills it.
func Start(t testing.TB, cmd *exec.Cmd, begin, end func(*exec.Cmd) error) *Serving {
	t.Helper()
	s := &Serving{Cmd: cmd, Out: &Output{}, Log: &Output{}, Exited: make(chan struct{}), lines: make(chan string, 1)}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = s.Log
	if begin == nil {
		begin = (*exec.Cmd).Start
	}
	if err := begin(cmd); err != nil {
		t.Fatal(err)
	}
	go func() {
		r := bufio.NewReader(io.TeeReader(stdout, s.Out))
		if line, err := r.ReadString('\n'); err == nil {
			s.lines <- line
		}
		close(s.lines)
		_, _ = io.Copy(io.Discard, r)
		_ = cmd.Wait() // the exit code is asked for where it matters
		close(s.Exited)
	}()
	t.Cleanup(func() {
		if end != nil && end(cmd) == nil {
			select {
			case <-s.Exited:
			case <-time.After(Patience):
			}
		}
		_ = cmd.Process.Kill()
		<-s.Exited
		if t.Failed() {
			t.Logf("torpor %q said:\n%s", cmd.Args[1:], s.Log)
		}
	})
	return s
}

// First waits for the first line that it says; ok is false if it ends without one.
func (s *Serving) First() (line string, ok bool) {
	line, ok = <-s.lines
	return line, ok
}

// URL waits until it listens and says where.
func (s *Serving) URL(t testing.TB) string {
	t.Helper()
	select {
	case line, ok := <-s.lines:
		if !ok {
			t.Fatalf("serve ended with exit code %d: %s", s.Wait(t), s.Log)
		}
		_, url, ok := strings.Cut(strings.TrimSpace(line), " is listening on ")
		if !ok || !strings.HasPrefix(url, "http://") {
			t.Fatalf("serve says %q; where does it listen?", line)
		}
		return url
	case <-time.After(Patience):
		t.Fatalf("serve does not listen after %v: %s", Patience, s.Log)
	}
	return ""
}

// Wait waits for its end and gives the exit code, or -1 where a signal ended it.
func (s *Serving) Wait(t testing.TB) int {
	t.Helper()
	select {
	case <-s.Exited:
	case <-time.After(Patience):
		t.Fatalf("torpor does not end: %s", s.Log)
	}
	return s.Cmd.ProcessState.ExitCode()
}

// Contains reports whether s has been written.
func (o *Output) Contains(s string) bool { return strings.Contains(o.String(), s) }
