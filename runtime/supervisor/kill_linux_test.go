package supervisor_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/torpor-run/torpor/runtime/supervisor"
)

// doomed begins a runtime that is to be killed; said gives the lines it says.
func doomed(t *testing.T, env ...string) (cmd *osexec.Cmd, said func() string, pids string) {
	t.Helper()
	pids = t.TempDir()
	cmd = osexec.Command(self(t))
	cmd.Env = append(env, "DO=runtime", "SERVICE_PIDS="+pids)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	return cmd, func() string {
		lines.Scan()
		return lines.Text()
	}, pids
}

// guards lists the guards of a service.
func guards(t *testing.T, service string) []int {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err == nil && bytes.HasSuffix(b, []byte("\x00guard-service\x00"+service+"\x00")) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

// left waits for the guards of a runtime that was killed to go, and fails if they have left anything.
func left(t *testing.T, pids string) {
	t.Helper()
	eventually(t, "the guard is gone", func() bool { return len(guards(t, "doomed")) == 0 })
	fixture{pids: pids}.gone(t)
}

// TestRuntimeKilled: nothing of a service is left when the runtime is killed, whatever it was doing.
func TestRuntimeKilled(t *testing.T) {
	const family = "SERVICE_CHILDREN=group session daemon stubborn"
	for _, c := range []struct {
		name string
		env  []string
		when string // it has said so
	}{
		{"running", []string{family, "SERVICE_DO=serve"}, "ready"},
		{"running, stubborn", []string{family, "SERVICE_DO=serve", "SERVICE_IGNORE=1"}, "ready"},
		{"starting", []string{family, "SERVICE_DO=sleep"}, "starting"},
		{"stopping", []string{family, "SERVICE_DO=serve", "SERVICE_IGNORE=1", "STOP=6"}, "ready"},
		{"flooding", []string{family, "SERVICE_DO=flood", "SERVICE_MUCH=much\n", "SERVICE_IGNORE=1"}, "starting"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd, said, pids := doomed(t, c.env...)
			for line := said(); line != c.when; line = said() {
				if line == "" {
					t.Fatal("it has said nothing more")
				}
			}
			eventually(t, "the family is there", func() bool { return len(pidsIn(t, pids)) == 6 })
			if len(guards(t, "doomed")) != 1 {
				t.Errorf("guards %v", guards(t, "doomed"))
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			left(t, pids)
		})
	}
}

// TestRuntimeKilledAtAnyMoment kills at moments of no choice, mostly while the guard and the service are begun.
func TestRuntimeKilledAtAnyMoment(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const times = 30
	begun := 0
	var ready time.Duration // how long it takes when it is left alone
	for i := range 1 + times {
		cmd, said, pids := doomed(t, "SERVICE_DO=serve", "SERVICE_CHILDREN=daemon")
		if said() != "starting" {
			t.Fatal("it does not start")
		}
		if since := time.Now(); i > 0 {
			time.Sleep(time.Duration(random.Int64N(int64(ready))))
		} else if said() == "ready" {
			ready = time.Since(since)
		} else {
			t.Fatal("it does not get ready")
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		left(t, pids)
		if i > 0 && len(pidsIn(t, pids)) > 0 {
			begun++
		}
	}
	t.Logf("in %d of %d the service had begun", begun, times)
	if begun == 0 {
		t.Error("it was always killed before anything had begun")
	}
}

// TestNextRuntime: one that starts as soon as the one before has been killed gets its service's port.
func TestNextRuntime(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	cmd, said, pids := doomed(t, "SERVICE_DO=serve", "SERVICE_IGNORE=1", fmt.Sprint("PORT=", port))
	if said() != "starting" || said() != "ready" {
		t.Fatal("it does not start")
	}
	f := newFixture(t, supervisor.Config{Port: port}, "DO=serve")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	f.start(t)
	left(t, pids)
	if f.get(t, "/pid") != strconv.Itoa(f.Status().PID) {
		t.Error("somebody else answers")
	}
}

func parent(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "\nPPid:\t")
	line, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestGuardKilled: who kills the guard kills the service, its group too, and it is started again.
func TestGuardKilled(t *testing.T) {
	var told exits
	f := newFixture(t, supervisor.Config{Backoff: supervisor.Backoff{First: time.Millisecond}, Exited: told.add}, "DO=serve", "CHILDREN=group", "IGNORE=1")
	f.start(t)
	pid := f.Status().PID
	eventually(t, "its child is there", func() bool { return len(pidsIn(t, f.pids)) == 2 })
	family := pidsIn(t, f.pids)
	if err := syscall.Kill(parent(t, pid), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "somebody is told", func() bool { return len(told.all()) == 1 })
	for _, pid := range family {
		eventually(t, "it is gone", func() bool { return !runs(pid) })
	}
	if exit := told.all()[0]; !exit.Lost || !exit.Again || !strings.Contains(exit.Err.Error(), "guard") {
		t.Errorf("%+v", exit)
	}
	f.start(t)
	if f.Status().PID == pid {
		t.Error("it is not another")
	}
	_ = f.Stop(t.Context())
	// The others of this one's group end with it, as its guard is there.
}

// TestBothKilled: the program does not outlive its guard, even if no runtime is there to see to it.
func TestBothKilled(t *testing.T) {
	cmd, said, pids := doomed(t, "SERVICE_DO=serve", "SERVICE_IGNORE=1")
	if said() != "starting" || said() != "ready" {
		t.Fatal("it does not start")
	}
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for _, guard := range guards(t, "doomed") {
		if err := syscall.Kill(guard, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	for _, pid := range pidsIn(t, pids) {
		eventually(t, "the program is gone", func() bool { return !runs(pid) })
	}
}

// TestGuard: it has a name of its own, is not ended by who ends all that is called so, and reaps orphans.
func TestGuard(t *testing.T) {
	f := newFixture(t, supervisor.Config{}, "DO=serve", "CHILDREN=daemon")
	f.start(t)
	guard := parent(t, f.Status().PID)
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", guard)); err != nil || string(b) != "guard:fake\n" {
		t.Errorf("the guard is called %q (%v)", b, err)
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", guard)); err != nil || string(b) != "TORPOR_GUARD=1\x00" {
		t.Errorf("the guard has %q in its environment (%v)", b, err)
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE} {
		if err := syscall.Kill(guard, sig); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the daemon is there", func() bool { return len(pidsIn(t, f.pids)) == 3 })
	for _, pid := range pidsIn(t, f.pids) {
		if pid == f.Status().PID || !runs(pid) { // the one between has ended
			continue
		}
		if p := parent(t, pid); p != guard {
			t.Errorf("the daemon's parent is %d, want the guard, %d", p, guard)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the daemon is reaped", func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) })
	}
	if pid := f.Status().PID; f.get(t, "/pid") != strconv.Itoa(pid) || parent(t, pid) != guard {
		t.Error("it is another, or has another guard")
	}
}

// TestGuardNotCalled: a program that forgets Guard is told so, and does not begin itself over and over.
func TestGuardNotCalled(t *testing.T) {
	cmd := osexec.Command(self(t))
	cmd.Args[0] = unguarded
	cmd.Env = []string{"DO=runtime", "SERVICE_DO=serve"}
	out, err := cmd.Output()
	if err == nil || !strings.Contains(string(out), "does main call supervisor.Guard first?") {
		t.Errorf("%v: %s", err, out)
	}
	t.Setenv("TORPOR_GUARD", "1")
	f := newFixture(t, supervisor.Config{}, "DO=serve")
	if err := f.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "has not called supervisor.Guard") {
		t.Errorf("%v", err)
	}
}

func TestGuardLeavesOthersAlone(t *testing.T) {
	for _, args := range [][]string{nil, {}, {"serve"}, {"guard-service", "fake"}} {
		if _, handled := supervisor.Guard(args); handled {
			t.Errorf("%q was taken for a guard", args)
		}
	}
}
