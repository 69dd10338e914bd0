//go:build unix

package supervisor_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/supervisor"
)

func TestStartAndStop(t *testing.T) {
	f := newFixture(t, supervisor.Config{}, "DO=serve")
	if st := f.Status(); st.State != supervisor.Stopped || st.Address != "" || f.Stop(t.Context()) != nil {
		t.Errorf("before its start: %+v", st)
	}
	var address string
	for range 3 {
		f.start(t)
		f.start(t) // is nothing
		st := f.Status()
		if st.State != supervisor.Running || f.get(t, "/pid") != strconv.Itoa(st.PID) {
			t.Errorf("%+v, and process %s answers", st, f.get(t, "/pid"))
		}
		if address != "" && address != f.Address() {
			t.Errorf("it was at %s and is at %s", address, f.Address())
		}
		address = f.Address()
		for range 2 {
			if err := f.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		f.gone(t)
		st = f.Status()
		if st.State != supervisor.Stopped || st.PID != 0 || st.Exit == nil || st.Exit.Signal != "SIGTERM" || st.Exit.Forced || st.Exit.Err != nil {
			t.Errorf("stopped: %+v, %+v", st, st.Exit)
		}
	}
	for _, line := range []string{`msg="fake: listening on 127.0.0.1`, "service started", "service stopped"} {
		if n := strings.Count(f.log.String(), line); n != 3 {
			t.Errorf("the log has %q %d times", line, n)
		}
	}
}

func TestReady(t *testing.T) {
	for _, c := range []struct {
		name  string
		ready supervisor.Ready
		env   []string
	}{
		{"tcp", supervisor.Ready{}, []string{"DO=serve", "DELAY=100ms"}},
		{"http", supervisor.Ready{HTTP: "/health"}, []string{"DO=serve", "UNHEALTHY=100ms"}},
		{"http status", supervisor.Ready{HTTP: "/nothing", Status: 404}, []string{"DO=serve"}},
		{"line", supervisor.Ready{Line: `^listening on .*:\d+$`}, []string{"DO=serve", "DELAY=100ms"}},
		{"none", supervisor.Ready{None: true}, []string{"DO=sleep"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, supervisor.Config{Ready: c.ready}, c.env...)
			f.start(t)
			if c.name == "none" {
				return
			}
			if f.get(t, "/health") != "" {
				t.Error("it was not ready")
			}
		})
	}
}

// TestLocalhost: a program that listens on ::1 only is found there.
func TestLocalhost(t *testing.T) {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("this machine has no IPv6: ", err)
	}
	l.Close()
	for _, ready := range []supervisor.Ready{{}, {HTTP: "/health"}, {Line: "listening"}} {
		f := newFixture(t, supervisor.Config{Ready: ready, Command: []string{self(t), "[::1]:{port}"}}, "DO=serve")
		f.start(t)
		if !strings.HasPrefix(f.Address(), "[::1]:") || f.get(t, "/health") != "" {
			t.Errorf("%+v: it is at %s", ready, f.Address())
		}
	}
}

func TestFailures(t *testing.T) {
	folder := t.TempDir()
	file := func(name, text string, mode fs.FileMode) string {
		name = filepath.Join(folder, name)
		if err := os.WriteFile(name, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return name
	}
	short := supervisor.Config{ReadyTimeout: 3 * time.Second}
	for _, c := range []struct {
		name   string
		config supervisor.Config
		env    []string
		is     error
		says   []string
	}{
		{"exits at once", supervisor.Config{}, []string{"DO=exit", "CODE=7"}, nil, []string{"service fake: ", "exit code 7", "before it was ready", "no luck"}},
		{"exits with 0", supervisor.Config{}, []string{"DO=exit"}, nil, []string{"exit code 0", "before it was ready"}},
		{"exits before its line", supervisor.Config{Ready: supervisor.Ready{Line: "listening"}}, []string{"DO=exit"}, nil, []string{"before it was ready"}},
		{"is killed", supervisor.Config{Command: []string{"/bin/sh", "-c", "kill -9 $$"}}, nil, nil, []string{"SIGKILL"}},
		{"never ready", short, []string{"DO=sleep"}, context.DeadlineExceeded, []string{"not ready after 3s", "connection refused"}},
		{"never healthy", supervisor.Config{ReadyTimeout: 3 * time.Second, Ready: supervisor.Ready{HTTP: "/health"}}, []string{"DO=serve", "UNHEALTHY=1h"},
			context.DeadlineExceeded, []string{"/health: 503", "listening on"}},
		{"never said", supervisor.Config{ReadyTimeout: 3 * time.Second, Ready: supervisor.Ready{Line: "no such line"}}, []string{"DO=serve"},
			context.DeadlineExceeded, []string{`"no such line"`, "listening on"}},
		{"no command", supervisor.Config{Command: []string{"/no/such/program"}}, nil, abi.ErrNotFound, []string{"/no/such/program"}},
		{"no command in PATH", supervisor.Config{Command: []string{"nonesuch"}, Env: []string{"PATH=/usr/bin:/bin"}}, nil, abi.ErrNotFound, []string{"nonesuch", "/usr/bin:/bin"}},
		{"relative command", supervisor.Config{Command: []string{"./nonesuch"}, Folder: folder}, nil, abi.ErrNotFound, []string{folder + "/nonesuch"}},
		{"no folder", supervisor.Config{Folder: "/no/such/folder"}, nil, abi.ErrNotFound, []string{"/no/such/folder", "folder to run in"}},
		{"folder is a file", supervisor.Config{Folder: file("f", "", 0o600)}, nil, abi.ErrNotFound, []string{"no folder"}},
		{"not executable", supervisor.Config{Command: []string{file("text", "text", 0o600)}}, nil, fs.ErrPermission, []string{"may not be executed"}},
		{"a folder", supervisor.Config{Command: []string{folder}}, nil, fs.ErrPermission, []string{"is a folder"}},
		{"no program", supervisor.Config{Command: []string{file("nothing", "what is this", 0o700)}}, nil, syscall.ENOEXEC, []string{"interpreter"}},
		{"no interpreter", supervisor.Config{Command: []string{file("script", "#!/no/such/shell\n", 0o700)}}, nil, abi.ErrNotFound, []string{"interpreter"}},
		{"too much", supervisor.Config{Command: []string{"/bin/sh", strings.Repeat("x", 4<<20)}}, nil, abi.ErrTooLarge, []string{"arguments"}},
		{"not prepared", supervisor.Config{Prepare: func(context.Context, string) error { return fs.ErrInvalid }}, []string{"DO=serve"}, fs.ErrInvalid, []string{"listening"}},
		{"dies while prepared", supervisor.Config{Prepare: func(ctx context.Context, address string) error {
			_, _ = get(address, "/exit/5")
			<-ctx.Done()
			return ctx.Err()
		}}, []string{"DO=serve"}, nil, []string{"exit code 5", "before it was ready"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, c.config, c.env...)
			err := f.Start(t.Context())
			if err == nil || c.is != nil && !errors.Is(err, c.is) {
				t.Fatalf("%v, want %v", err, c.is)
			}
			for _, part := range c.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q says nothing of %q", err, part)
				}
			}
			f.gone(t)
			if st := f.Status(); st.State != supervisor.Failed || st.Err == nil || st.PID != 0 || st.Restarts != 0 {
				t.Errorf("%+v", st)
			}
			if err := f.Stop(t.Context()); err != nil || f.Status().State != supervisor.Stopped {
				t.Errorf("%v, %+v", err, f.Status())
			}
		})
	}
}

// TestGivenOnly: a service gets what it is given, with the placeholders replaced, and nothing of the runtime's,
// which may hold keys.
func TestGivenOnly(t *testing.T) {
	t.Setenv("TORPOR_API_KEY", "secret")
	folder, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, supervisor.Config{Folder: folder, Command: []string{self(t), "{address}", "--data={folder}/x", "{port}{other}", "\xff"}},
		"DO=serve", "AT=http://{address}/", "{port}=1")
	f.start(t)
	_, port, err := net.SplitHostPort(f.Address())
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%q %q %q <nil>", []string{"127.0.0.1:" + port, "--data=" + folder + "/x", port + "{other}", "\xff"},
		[]string{"PIDS=" + f.pids, "DO=serve", "AT=http://127.0.0.1:" + port + "/", "{port}=1"}, folder)
	if got := f.get(t, "/env"); got != want {
		t.Errorf("it got %s\nwant   %s", got, want)
	}
}

// TestFoundInPath: the PATH is the one given; a relative entry counts from the folder.
func TestFoundInPath(t *testing.T) {
	folder := t.TempDir()
	if err := os.Mkdir(filepath.Join(folder, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self(t), filepath.Join(folder, "bin", "fake")); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]string{{"fake", "PATH=/nowhere:" + folder + "/bin"}, {"fake", "PATH=bin"}, {"./bin/fake", "A=b"}, {"{folder}/bin/fake", "A=b"}} {
		f := newFixture(t, supervisor.Config{Folder: folder, Command: []string{c[0], "{address}"}}, "DO=serve", c[1])
		f.start(t)
	}
}

// TestNothingIsLeft: whatever a service has begun is gone when Stop returns.
func TestNothingIsLeft(t *testing.T) {
	for _, c := range []struct {
		name     string
		env      []string
		children int
		forced   bool
	}{
		{"alone", nil, 0, false},
		{"group", []string{"CHILDREN=group group"}, 2, false},
		{"session", []string{"CHILDREN=session"}, 1, false},
		{"daemon", []string{"CHILDREN=daemon"}, 2, false},
		{"stubborn", []string{"IGNORE=1"}, 0, true},
		{"stubborn child", []string{"CHILDREN=group stubborn daemon"}, 4, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			grace := time.Minute
			if c.forced {
				grace = 200 * time.Millisecond
			}
			f := newFixture(t, supervisor.Config{StopTimeout: grace}, append(c.env, "DO=serve")...)
			f.start(t)
			eventually(t, "all children", func() bool { return len(pidsIn(t, f.pids)) == 1+c.children })
			begun := time.Now()
			if err := f.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			f.gone(t)
			if !c.forced && time.Since(begun) > grace/2 {
				t.Errorf("Stop took %v", time.Since(begun))
			}
			if exit := f.Status().Exit; exit == nil || exit.Forced != c.forced {
				t.Errorf("%+v", exit)
			}
		})
	}
}

// TestStoppedProcess: one that was stopped by SIGSTOP is ended too.
func TestStoppedProcess(t *testing.T) {
	f := newFixture(t, supervisor.Config{StopTimeout: time.Minute}, "DO=serve")
	f.start(t)
	if err := syscall.Kill(f.Status().PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := f.Stop(t.Context()); err != nil || f.Status().Exit.Signal != "SIGTERM" {
		t.Errorf("%v, %+v", err, f.Status().Exit)
	}
}

// TestStopAtOnce: the end of Stop's context ends the service's grace.
func TestStopAtOnce(t *testing.T) {
	f := newFixture(t, supervisor.Config{StopTimeout: time.Hour}, "DO=serve", "IGNORE=1", "CHILDREN=stubborn")
	f.start(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	f.gone(t)
	if exit := f.Status().Exit; exit.Signal != "SIGKILL" || !exit.Forced {
		t.Errorf("%+v", exit)
	}
}

// exits collects what Config.Exited is told.
type exits struct {
	mu   sync.Mutex
	list []supervisor.Exit
}

func (e *exits) add(x supervisor.Exit) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, x)
}

func (e *exits) all() []supervisor.Exit {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]supervisor.Exit(nil), e.list...)
}

// TestRestart: a service that dies is cleared away, told of, started again at the same address, prepared, and
// given up when it dies too often.
func TestRestart(t *testing.T) {
	var told exits
	var prepared atomic.Int32
	f := newFixture(t, supervisor.Config{
		Backoff: supervisor.Backoff{First: time.Millisecond, Most: 4 * time.Millisecond}, Restarts: supervisor.Restarts{Most: 2},
		Exited:  told.add,
		Prepare: func(context.Context, string) error { prepared.Add(1); return nil },
	}, "DO=serve", "CHILDREN=group daemon")
	f.start(t)
	address := f.Address()
	for i := range 3 {
		eventually(t, "it runs", func() bool { return f.Status().State == supervisor.Running })
		if st := f.Status(); st.Restarts != i || st.Address != address || int(prepared.Load()) != i+1 {
			t.Fatalf("life %d: %+v; it was at %s, and prepared %d times", i, st, address, prepared.Load())
		}
		f.exit(t, 5)
		eventually(t, "somebody is told", func() bool { return len(told.all()) == i+1 })
		exit := told.all()[i]
		if exit.Code != 5 || exit.Signal != "" || exit.Again != (i < 2) || !strings.Contains(fmt.Sprint(exit.Err), "exit code 5") ||
			!strings.Contains(strings.Join(exit.Tail, "\n"), "told to exit") {
			t.Errorf("exit %d: %+v", i, exit)
		}
	}
	eventually(t, "it is given up", func() bool { return f.Status().State == supervisor.Failed })
	f.gone(t)
	if st := f.Status(); !strings.Contains(fmt.Sprint(st.Err), "given up") || st.Exit == nil || st.Exit.Again {
		t.Errorf("%+v", st)
	}
	f.start(t) // begins anew
	if st := f.Status(); st.State != supervisor.Running || st.Restarts != 0 || st.Err != nil {
		t.Errorf("%+v", st)
	}
}

// TestRestartFails: a restart that fails counts as a death.
func TestRestartFails(t *testing.T) {
	var told exits
	broken := errors.New("broken")
	var prepared atomic.Int32
	f := newFixture(t, supervisor.Config{Backoff: supervisor.Backoff{First: time.Millisecond}, Restarts: supervisor.Restarts{Most: 3}, Exited: told.add,
		Prepare: func(context.Context, string) error {
			if prepared.Add(1) == 2 {
				return broken
			}
			return nil
		}}, "DO=serve")
	f.start(t)
	f.exit(t, 1)
	eventually(t, "two ends", func() bool { return len(told.all()) == 2 })
	if second := told.all()[1]; !second.Again || !errors.Is(second.Err, broken) {
		t.Errorf("%+v", second)
	}
	f.start(t) // waits for the third
	if prepared.Load() != 3 {
		t.Errorf("prepared %d times", prepared.Load())
	}
}

// TestNoRestart: neither while stopped on purpose nor where it is not wanted.
func TestNoRestart(t *testing.T) {
	var told exits
	f := newFixture(t, supervisor.Config{Restarts: supervisor.Restarts{Most: -1}, Exited: told.add}, "DO=serve")
	f.start(t)
	f.exit(t, 0)
	eventually(t, "it has failed", func() bool { return f.Status().State == supervisor.Failed })
	if all := told.all(); len(all) != 1 || all[0].Again {
		t.Errorf("%+v", all)
	}
	told = exits{}
	g := newFixture(t, supervisor.Config{Backoff: supervisor.Backoff{First: time.Hour, Most: time.Hour}, Exited: told.add}, "DO=serve")
	g.start(t)
	if err := g.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(told.all()) != 0 {
		t.Errorf("%+v", told.all())
	}
	g.start(t)
	g.exit(t, 0)
	eventually(t, "the pause", func() bool { return g.Status().State == supervisor.BackingOff })
	if st := g.Status(); time.Until(st.Next) < time.Minute {
		t.Errorf("%+v", st)
	}
	// Start waits for the pause, as long as its context.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := g.Start(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "backing off") {
		t.Error(err)
	}
	waiting := make(chan error)
	go func() { waiting <- g.Start(context.Background()) }()
	time.Sleep(10 * time.Millisecond)
	if err := g.Stop(t.Context()); err != nil || g.Status().State != supervisor.Stopped {
		t.Errorf("%v, %+v", err, g.Status())
	}
	// It was waiting, or comes after Stop and finds the pause still to be waited for.
	select {
	case err := <-waiting:
		if !errors.Is(err, supervisor.ErrStopped) {
			t.Error(err)
		}
	case <-time.After(time.Second):
		if err := g.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-waiting; !errors.Is(err, supervisor.ErrStopped) {
			t.Error(err)
		}
	}
}

// TestPauses: pauses double up to the most, and begin anew after a sound run.
func TestPauses(t *testing.T) {
	const first = 20 * time.Millisecond
	f := newFixture(t, supervisor.Config{Backoff: supervisor.Backoff{First: first, Most: 3 * first, Sound: time.Hour}}, "DO=exit")
	var ends []time.Time
	for range 5 {
		if err := f.Start(t.Context()); err == nil {
			t.Fatal("it started")
		}
		ends = append(ends, f.Status().Exit.Time)
	}
	for i, least := range []time.Duration{first, 2 * first, 3 * first, 3 * first} {
		if d := ends[i+1].Sub(ends[i]); d < least {
			t.Errorf("%v between start %d and the next, at least %v is due", d, i, least)
		}
	}
	var told exits
	g := newFixture(t, supervisor.Config{Backoff: supervisor.Backoff{First: time.Millisecond, Most: time.Hour, Sound: time.Millisecond},
		Restarts: supervisor.Restarts{Most: 1}, Exited: told.add}, "DO=serve", "DELAY=5ms")
	for i := range 25 { // would be hours, and too often
		g.start(t)
		g.exit(t, 0)
		eventually(t, "told", func() bool { return len(told.all()) == i+1 })
	}
}

// TestStartsOnce: who starts what is being started waits for that.
func TestStartsOnce(t *testing.T) {
	f := newFixture(t, supervisor.Config{}, "DO=serve", "DELAY=50ms")
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if err := f.Start(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(pidsIn(t, f.pids)); n != 1 {
		t.Errorf("started %d times", n)
	}
	// The end of one's wait is not the end of the start.
	g := newFixture(t, supervisor.Config{}, "DO=serve", "DELAY=200ms")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := g.Start(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	g.start(t)
	if n := len(pidsIn(t, g.pids)); n != 1 {
		t.Errorf("started %d times", n)
	}
}

func TestStopWhileStarting(t *testing.T) {
	for _, env := range []string{"DO=sleep", "DO=serve"} {
		hangs := make(chan struct{})
		f := newFixture(t, supervisor.Config{Prepare: func(ctx context.Context, _ string) error {
			close(hangs)
			<-ctx.Done()
			return ctx.Err()
		}}, env)
		waiting := make(chan error)
		go func() { waiting <- f.Start(context.Background()) }()
		if env == "DO=serve" {
			<-hangs
		} else {
			eventually(t, "it runs", func() bool { return len(pidsIn(t, f.pids)) == 1 })
		}
		if err := f.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-waiting; !errors.Is(err, supervisor.ErrStopped) {
			t.Error(err)
		}
		if st := f.Status(); st.State != supervisor.Stopped {
			t.Errorf("%+v", st)
		}
	}
}

// TestStartAndStopAtOnce: a hundred who start and stop as they like leave it stopped or running, never both, and no
// process, file or goroutine behind.
func TestStartAndStopAtOnce(t *testing.T) {
	f := newFixture(t, supervisor.Config{}, "DO=serve", "CHILDREN=daemon")
	f.start(t)
	if err := f.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := openFiles(t)
	var wg sync.WaitGroup
	var started, stopped atomic.Int32
	for i := range 100 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 0))
			for range 3 {
				time.Sleep(time.Duration(random.IntN(500)) * time.Millisecond)
				if random.IntN(5) > 0 {
					switch err := f.Start(t.Context()); {
					case err == nil:
						started.Add(1)
					case !errors.Is(err, supervisor.ErrStopped):
						t.Error(err)
					}
				} else if err := f.Stop(t.Context()); err != nil {
					t.Error(err)
				} else {
					stopped.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if err := f.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	f.gone(t)
	if after := openFiles(t); after > before {
		t.Errorf("%d open files before, %d after", before, after)
	}
	t.Logf("ready %d times, stopped %d times, %d processes", started.Load(), stopped.Load(), len(pidsIn(t, f.pids)))
}

func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/dev/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(entries)
}

// TestManyServices: each has its own port, also of those that start at once.
func TestManyServices(t *testing.T) {
	ports := &supervisor.Ports{}
	var wg sync.WaitGroup
	addresses := make([]string, 20)
	for i := range addresses {
		f := newFixture(t, supervisor.Config{Ports: ports}, "DO=serve", "DELAY=50ms")
		wg.Go(func() {
			if err := f.Start(t.Context()); err != nil {
				t.Error(err)
				return
			}
			addresses[i] = f.Address()
			if pid, err := get(addresses[i], "/pid"); err != nil || pid != strconv.Itoa(f.Status().PID) {
				t.Errorf("%s answers at %s, want %d (%v)", pid, addresses[i], f.Status().PID, err)
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, a := range addresses {
		if seen[a] {
			t.Errorf("%s is given twice", a)
		}
		seen[a] = true
	}
}

// TestPortTaken: who has a configured port is named, and is not taken for the service.
func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	f := newFixture(t, supervisor.Config{Port: port}, "DO=serve")
	err = f.Start(t.Context())
	if !errors.Is(err, abi.ErrLocked) || !strings.Contains(err.Error(), strconv.Itoa(port)) || len(pidsIn(t, f.pids)) != 0 {
		t.Fatalf("%v", err)
	}
	if _, no := os.Stat("/proc/self/fd"); no == nil && !strings.Contains(err.Error(), fmt.Sprintf("(process %d)", os.Getpid())) {
		t.Errorf("%q does not name this process, %d", err, os.Getpid())
	}
	l.Close()
	f.start(t)
	if f.Address() != fmt.Sprintf("127.0.0.1:%d", port) {
		t.Errorf("it is at %s", f.Address())
	}
}

// TestSamePort: two services with one port are told apart.
func TestSamePort(t *testing.T) {
	ports := &supervisor.Ports{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	a := newFixture(t, supervisor.Config{Port: port, Ports: ports}, "DO=serve")
	b := newFixture(t, supervisor.Config{Port: port, Ports: ports}, "DO=serve")
	a.start(t)
	if err := b.Start(t.Context()); !errors.Is(err, abi.ErrLocked) || !strings.Contains(err.Error(), "by service fake") {
		t.Errorf("%v", err)
	}
	if err := a.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.start(t)
}

// TestPortStolen: between the choice of a port and the service's own listening somebody else takes it.
func TestPortStolen(t *testing.T) {
	for _, c := range []struct {
		name  string
		ready supervisor.Ready
	}{{"tcp", supervisor.Ready{}}, {"line", supervisor.Ready{Line: "listening"}}} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := os.Stat("/proc/self/net/tcp"); err != nil && c.name == "tcp" {
				t.Skip("this system does not tell who listens")
			}
			go1 := filepath.Join(t.TempDir(), "go")
			f := newFixture(t, supervisor.Config{Ready: c.ready, Command: []string{self(t), "{address}"}}, "DO=serve", "WAIT="+go1, "AT={address}")
			waiting := make(chan error, 1)
			go func() { waiting <- f.Start(context.Background()) }()
			eventually(t, "it waits", func() bool { return len(pidsIn(t, f.pids)) == 1 })
			address := given(t, pidsIn(t, f.pids)[0], "AT")
			l, err := net.Listen("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if err := os.WriteFile(go1, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := <-waiting; err != nil {
				t.Fatal(err)
			}
			if f.Address() == address || f.get(t, "/pid") != strconv.Itoa(f.Status().PID) {
				t.Errorf("it was to be at %s, which is ours, and is at %s", address, f.Address())
			}
			// And one that is taken while it sleeps.
			before := f.Address()
			if err := f.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			l2, err := net.Listen("tcp", before)
			if err != nil {
				t.Fatal(err)
			}
			defer l2.Close()
			f.start(t)
			if f.Address() == before || f.get(t, "/pid") != strconv.Itoa(f.Status().PID) {
				t.Errorf("it was at %s, which is ours, and is at %s", before, f.Address())
			}
		})
	}
}

// given reads a process's environment.
func given(t *testing.T, pid int, name string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		t.Skip(err)
	}
	for v := range strings.SplitSeq(string(b), "\x00") {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	t.Fatalf("process %d has no %s", pid, name)
	return ""
}

// TestOutput: whatever a service says, the log has lines, and the service is not held up.
func TestOutput(t *testing.T) {
	t.Run("long lines", func(t *testing.T) {
		f := newFixture(t, supervisor.Config{Ready: supervisor.Ready{Line: "all said"}, Output: supervisor.Output{LineBytes: 100}},
			"DO=flood", "LINES=50000", "MUCH="+strings.Repeat("x", 100))
		f.start(t)
		if want := strings.Repeat("x", 100) + "… (4999900 bytes more)"; !strings.Contains(f.log.String(), want) || f.Status().Tail[0] != want {
			t.Errorf("no line %q; %.200q", want, f.Status().Tail)
		}
	})
	t.Run("binary", func(t *testing.T) {
		f := newFixture(t, supervisor.Config{Ready: supervisor.Ready{Line: "all said"}}, "DO=flood", "LINES=1", "MUCH=\x1b[1;31mred\x1b[0m\x1b]0;title\x07 \xff\xfe\x01\ttab\r\n")
		f.start(t)
		if got, want := f.Status().Tail[0], "red\uFFFD]0;title\uFFFD \uFFFD\uFFFD\uFFFD\ttab"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
	t.Run("flood", func(t *testing.T) {
		f := newFixture(t, supervisor.Config{Ready: supervisor.Ready{Line: "all said"}, Output: supervisor.Output{LinesPerSecond: 10}},
			"DO=flood", "LINES=100000", "MUCH=much\n")
		f.start(t)
		eventually(t, "it is told that lines are left out", func() bool { return strings.Contains(f.log.String(), "lines are left out") })
		if n := strings.Count(f.log.String(), "fake: much"); n < 10 || n > 10_000 {
			t.Errorf("%d lines are in the log", n)
		}
	})
	t.Run("endless flood", func(t *testing.T) {
		f := newFixture(t, supervisor.Config{Ready: supervisor.Ready{None: true}, Output: supervisor.Output{LinesPerSecond: 10}},
			"DO=flood", "MUCH="+strings.Repeat("z", 1000)+"\n", "IGNORE=1")
		f.start(t)
		eventually(t, "it is told that lines are left out", func() bool { return strings.Contains(f.log.String(), "lines are left out") })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := f.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
}

// TestNoLeaks: a service that is started and stopped over and over leaves nothing in this process.
func TestNoLeaks(t *testing.T) {
	f := newFixture(t, supervisor.Config{Backoff: supervisor.Backoff{First: time.Millisecond, Most: time.Millisecond}}, "DO=serve")
	g := newFixture(t, supervisor.Config{Backoff: supervisor.Backoff{First: time.Millisecond, Most: time.Millisecond}}, "DO=exit")
	h := newFixture(t, supervisor.Config{Backoff: supervisor.Backoff{First: time.Millisecond, Most: time.Millisecond}, Command: []string{"/bin/false/x"}})
	cycle := func() {
		f.start(t)
		if g.Start(t.Context()) == nil || h.Start(t.Context()) == nil {
			t.Error("it started")
		}
		if err := f.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
	cycle()
	const cycles = 10
	before := openFiles(t)
	for range cycles {
		cycle()
	}
	// The Go runtime may keep one of its own; a leak is one for each cycle.
	if after := openFiles(t); after >= before+cycles/2 {
		t.Errorf("%d open files before, %d after", before, after)
	}
}

func TestConfiguration(t *testing.T) {
	logger := slog.New(slog.DiscardHandler)
	good := supervisor.Config{Service: "a", Command: []string{"/bin/true"}, Logger: logger}
	c, err := good.Check()
	if err != nil {
		t.Fatal(err)
	}
	if c.ReadyTimeout != supervisor.DefaultReadyTimeout || c.StopTimeout != supervisor.DefaultStopTimeout || c.Restarts.Most != supervisor.DefaultRestarts ||
		c.Backoff.Most != supervisor.DefaultMostPause || c.Output.LineBytes != supervisor.DefaultLineBytes || !filepath.IsAbs(c.Folder) {
		t.Errorf("%+v", c)
	}
	if again, err := c.Check(); err != nil || fmt.Sprint(again) != fmt.Sprint(c) {
		t.Errorf("%v: %+v is %+v when checked again", err, c, again)
	}
	for name, change := range map[string]func(*supervisor.Config){
		"Service":               func(c *supervisor.Config) { c.Service = "" },
		"Logger":                func(c *supervisor.Config) { c.Logger = nil },
		"Command":               func(c *supervisor.Config) { c.Command = nil },
		"no program":            func(c *supervisor.Config) { c.Command = []string{""} },
		"PATH":                  func(c *supervisor.Config) { c.Command = []string{"true"} },
		"zero byte":             func(c *supervisor.Config) { c.Command = []string{"/bin/true", "a\x00b"} },
		"NAME=VALUE":            func(c *supervisor.Config) { c.Env = []string{"A"} },
		`"=b"`:                  func(c *supervisor.Config) { c.Env = []string{"=b"} },
		"Port":                  func(c *supervisor.Config) { c.Port = 65536 },
		"ReadyTimeout":          func(c *supervisor.Config) { c.ReadyTimeout = 1 },
		"StopTimeout":           func(c *supervisor.Config) { c.StopTimeout = -1 },
		"Backoff.First":         func(c *supervisor.Config) { c.Backoff.First = 1 },
		"less than":             func(c *supervisor.Config) { c.Backoff.First, c.Backoff.Most = time.Minute, time.Second },
		"Backoff.Sound":         func(c *supervisor.Config) { c.Backoff.Sound = 48 * time.Hour },
		"Restarts.Most":         func(c *supervisor.Config) { c.Restarts.Most = 1e6 },
		"Restarts.Within":       func(c *supervisor.Config) { c.Restarts.Within = 1 },
		"Output.LineBytes":      func(c *supervisor.Config) { c.Output.LineBytes = 1 },
		"Output.LinesPerSecond": func(c *supervisor.Config) { c.Output.LinesPerSecond = -1 },
		"only one":              func(c *supervisor.Config) { c.Ready = supervisor.Ready{HTTP: "/", None: true} },
		"begins with /":         func(c *supervisor.Config) { c.Ready.HTTP = "health" },
		"HTTP":                  func(c *supervisor.Config) { c.Ready.HTTP = "/\x7f" },
		"with HTTP only":        func(c *supervisor.Config) { c.Ready.Status = 200 },
		"Status is 99":          func(c *supervisor.Config) { c.Ready = supervisor.Ready{HTTP: "/", Status: 99} },
		"Line":                  func(c *supervisor.Config) { c.Ready.Line = "(" },
	} {
		bad := good
		change(&bad)
		if _, err := supervisor.New(bad); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whoever is told of an end may start the service again: the start is not one of the life that is over.
func TestStartWhenItHasExited(t *testing.T) {
	var f fixture
	started := make(chan error, 1)
	f = newFixture(t, supervisor.Config{Restarts: supervisor.Restarts{Most: -1}, Backoff: supervisor.Backoff{First: time.Millisecond},
		Exited: func(supervisor.Exit) {
			go func() { started <- f.Start(context.Background()) }()
			time.Sleep(20 * time.Millisecond)
		}}, "DO=serve")
	f.start(t)
	f.exit(t, 0)
	if err := <-started; err != nil {
		t.Error(err)
	}
}
