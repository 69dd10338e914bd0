//go:build unix

package supervisor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	osexec "os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/torpor-run/torpor/runtime/supervisor"
)

// unguarded is the name of a program that does not call Guard.
const unguarded = "unguarded"

// The test binary, begun again, is the guard, a service, what a service begins, or a runtime to be killed. These
// end by syscall.Exit, as the race detector has os.Exit wait for a second.
func TestMain(m *testing.M) {
	if os.Args[0] != unguarded {
		if code, ok := supervisor.Guard(os.Args[1:]); ok {
			syscall.Exit(code)
		}
	}
	switch do := os.Getenv("DO"); do {
	case "":
		if os.Args[0] == unguarded {
			os.Exit(0)
		}
		goleak.VerifyTestMain(m)
	case "runtime":
		os.Exit(fakeRuntime())
	default:
		syscall.Exit(fakeService(do))
	}
}

// fakeService does what its arguments and environment say:
//
//	DO=serve    listens on its first argument and answers /health, /env, /exit/N and /say
//	DO=sleep    does nothing for long
//	DO=daemon   begins a sleep in a session of its own, and ends
//	DO=exit     says "no luck" and ends with code CODE
//	DO=flood    writes MUCH bytes for ever, or so many lines of it as LINES says
//
// before which it waits for the file WAIT to be there, or for DELAY; leaves its number in the folder PIDS; begins
// CHILDREN, a list of group, session, daemon and stubborn; and with IGNORE set it does not end on SIGTERM.
func fakeService(do string) int {
	if folder := os.Getenv("PIDS"); folder != "" {
		if err := os.WriteFile(filepath.Join(folder, strconv.Itoa(os.Getpid())), []byte(do), 0o600); err != nil {
			fmt.Println(err)
			return 9
		}
	}
	if os.Getenv("IGNORE") != "" {
		signal.Ignore(syscall.SIGTERM)
	}
	for child := range strings.FieldsSeq(os.Getenv("CHILDREN")) {
		cmd := osexec.Command(os.Args[0])
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr // kept open
		cmd.Env = []string{"DO=sleep", "PIDS=" + os.Getenv("PIDS")}
		switch child {
		case "session":
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		case "daemon":
			cmd.Env[0] = "DO=daemon"
		case "stubborn":
			cmd.Env = append(cmd.Env, "IGNORE=1")
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		}
		if err := cmd.Start(); err != nil {
			fmt.Println(err)
			return 9
		}
		if child == "daemon" {
			_ = cmd.Wait()
		}
	}
	if d, err := time.ParseDuration(os.Getenv("DELAY")); err == nil {
		time.Sleep(d)
	}
	for name := os.Getenv("WAIT"); name != ""; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(name); err == nil {
			break
		}
	}
	switch do {
	case "serve":
		return serve(os.Args[1])
	case "sleep":
		time.Sleep(10 * time.Minute)
	case "daemon":
		cmd := osexec.Command(os.Args[0])
		cmd.Env = []string{"DO=sleep", "PIDS=" + os.Getenv("PIDS")}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			fmt.Println(err)
			return 9
		}
	case "exit":
		fmt.Fprintln(os.Stderr, "no luck")
		code, _ := strconv.Atoi(os.Getenv("CODE"))
		return code
	case "flood":
		lines, err := strconv.Atoi(os.Getenv("LINES"))
		for i := 0; err != nil || i < lines; i++ {
			if _, err := io.WriteString(os.Stdout, os.Getenv("MUCH")); err != nil {
				return 9
			}
		}
		fmt.Println("\nall said")
		time.Sleep(10 * time.Minute)
	}
	return 0
}

func serve(address string) int {
	l, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Println(err)
		return 3
	}
	fmt.Println("\x1b[32mlistening on", l.Addr())
	begun := time.Now()
	mux := http.NewServeMux()
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		if d, err := time.ParseDuration(os.Getenv("UNHEALTHY")); err == nil && time.Since(begun) < d {
			http.Error(w, "not yet", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("/env", func(w http.ResponseWriter, _ *http.Request) {
		folder, err := os.Getwd()
		fmt.Fprintf(w, "%q %q %q %v", os.Args[1:], os.Environ(), folder, err)
	})
	mux.HandleFunc("/pid", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, os.Getpid()) })
	mux.HandleFunc("/exit/{code}", func(_ http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.PathValue("code"))
		fmt.Println("told to exit")
		syscall.Exit(code)
	})
	fmt.Println((&http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}).Serve(l))
	return 4
}

// fakeRuntime supervises a service that the environment describes until it is killed.
func fakeRuntime() int {
	var env []string
	for _, v := range os.Environ() {
		if v, ok := strings.CutPrefix(v, "SERVICE_"); ok {
			env = append(env, v)
		}
	}
	port, _ := strconv.Atoi(os.Getenv("PORT"))
	s, err := supervisor.New(supervisor.Config{Service: "doomed", Command: []string{"/proc/self/exe", "{address}"}, Env: env, Port: port,
		StopTimeout: time.Minute, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("starting")
	if err := s.Start(context.Background()); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ready")
	if most, _ := strconv.Atoi(os.Getenv("STOP")); most > 0 { // as soon as so many processes are there
		for entries, _ := os.ReadDir(os.Getenv("SERVICE_PIDS")); len(entries) < most; entries, _ = os.ReadDir(os.Getenv("SERVICE_PIDS")) {
			time.Sleep(time.Millisecond)
		}
		err := s.Stop(context.Background())
		fmt.Println("stopped", err)
		return 1
	}
	select {}
}

// self is the test binary.
func self(t testing.TB) string {
	t.Helper()
	name, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// log keeps what is logged.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// fixture is a supervisor of a fake service.
type fixture struct {
	*supervisor.Supervisor
	log  *log
	pids string // folder
}

// newFixture makes one; env describes the service. It is stopped at the test's end, and looked whether
// anything is left.
func newFixture(t testing.TB, c supervisor.Config, env ...string) fixture {
	t.Helper()
	f := fixture{log: &log{}, pids: t.TempDir()}
	c.Service = "fake"
	if c.Command == nil {
		c.Command = []string{self(t), "{address}"}
	}
	c.Env = append([]string{"PIDS=" + f.pids}, append(env, c.Env...)...)
	c.Logger = slog.New(slog.NewTextHandler(f.log, nil))
	var err error
	if f.Supervisor, err = supervisor.New(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		f.gone(t)
		if strings.Contains(f.log.String(), "DATA RACE") {
			t.Error("a race in the guard or the fake service")
		}
		if t.Failed() {
			t.Logf("log:\n%s", f.log)
		}
	})
	return f
}

// gone fails if a process that left its number is still there: Stop has returned.
func (f fixture) gone(t testing.TB) {
	t.Helper()
	for _, pid := range pidsIn(t, f.pids) {
		if runs(pid) {
			t.Errorf("process %d is left", pid)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

func (f fixture) start(t testing.TB) {
	t.Helper()
	if err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// get asks the service.
func (f fixture) get(t testing.TB, path string) string {
	t.Helper()
	text, err := get(f.Address(), path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func get(address, path string) (string, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	resp, err := client.Get("http://" + address + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// exit has the service end by itself.
func (f fixture) exit(t testing.TB, code int) {
	t.Helper()
	if _, err := get(f.Address(), fmt.Sprint("/exit/", code)); err == nil {
		t.Fatal("it has not ended")
	}
}

func pidsIn(t testing.TB, folder string) []int {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// runs reports whether a process is there and no zombie, whose parent may be slow to look.
func runs(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return false
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(b, []byte(") Z "))
}

// eventually waits for something that takes milliseconds.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not after a minute", what)
		}
	}
}
