//go:build linux

// Package examples runs the folders of examples/ as their READMEs say: the built program with the folder's
// torpor.yaml, the real services behind it, and real clients. Everything is killed, started again, put to sleep and
// woken, and must be there.
package examples

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/torpor-run/torpor/server"
	"github.com/torpor-run/torpor/tests/need"
	"github.com/torpor-run/torpor/tests/program"
)

// torporFile is the built binary, built once by TestMain.
var torporFile string

func TestMain(m *testing.M) { os.Exit(program.Run(m, &torporFile)) }

// patience is how long anything may take that is bound to happen.
const patience = 2 * time.Minute

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// installed gives the folder of programs that npm ci makes in an example's folder, which must have them.
func installed(t testing.TB, example string, programs ...string) string {
	t.Helper()
	need.Program(t, "node")
	bin, err := filepath.Abs(filepath.Join("../../examples", example, "node_modules/.bin"))
	must(t, err)
	for _, name := range programs {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			need.Missing(t, name+", which npm ci installs in examples/"+example)
		}
	}
	return bin
}

// example is an example on a data folder, and the program that runs on it.
type example struct {
	t    *testing.T
	file string // torpor.yaml
	data string
	path string // folders of programs, in front of PATH

	cmd    *exec.Cmd
	log    *program.Output
	exited chan struct{}
	url    string
}

// open prepares an example. bin are folders of programs that its README puts into PATH.
func open(t *testing.T, name string, bin ...string) *example {
	t.Helper()
	file, err := filepath.Abs(filepath.Join("../../examples", name, "torpor.yaml"))
	must(t, err)
	return &example{t: t, file: file, data: filepath.Join(t.TempDir(), "data"), path: strings.Join(append(bin, os.Getenv("PATH")), ":")}
}

// command prepares torpor with a command line.
func (e *example) command(args ...string) *exec.Cmd {
	cmd := exec.Command(torporFile, args...)
	cmd.Dir = e.t.TempDir() // so that nothing is found there by chance
	cmd.Env = []string{"PATH=" + e.path, "HOME=" + cmd.Dir, "TORPOR_DATA=" + e.data}
	return cmd
}

// torpor runs it to its end, which must be a good one.
func (e *example) torpor(args ...string) string {
	e.t.Helper()
	out, err := e.command(args...).CombinedOutput()
	if err != nil {
		e.t.Fatalf("torpor %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// start starts torpor serve, and returns when it listens.
func (e *example) start() {
	e.t.Helper()
	s := program.Start(e.t, e.command("serve", "--config", e.file, "--listen", "127.0.0.1:0"), nil, func(cmd *exec.Cmd) error { return cmd.Process.Signal(syscall.SIGTERM) })
	e.cmd, e.log, e.exited = s.Cmd, s.Log, s.Exited
	e.url = s.URL(e.t)
}

// stop ends it in order.
func (e *example) stop() {
	e.t.Helper()
	must(e.t, e.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-e.exited:
	case <-time.After(patience):
		e.t.Fatal("torpor serve does not end")
	}
	if code := e.cmd.ProcessState.ExitCode(); code != 0 {
		e.t.Fatalf("exit code %d", code)
	}
}

// parents gives the parent of each process that has not ended.
func parents(t testing.TB) map[int]int {
	t.Helper()
	all := map[int]int{}
	entries, err := os.ReadDir("/proc")
	must(t, err)
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "stat"))
		if err != nil {
			continue // it has ended
		}
		// The name, in brackets, may have spaces: state and parent come behind it.
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if parent, err := strconv.Atoi(fields[1]); err == nil && fields[0] != "Z" {
			all[pid] = parent
		}
	}
	return all
}

// family are the program and all that it has started.
func (e *example) family() []int {
	e.t.Helper()
	parents, all := parents(e.t), []int{e.cmd.Process.Pid}
	for i := 0; i < len(all); i++ {
		for pid, parent := range parents {
			if parent == all[i] {
				all = append(all, pid)
			}
		}
	}
	return all
}

// kill is kill -9 of the program, the services and what watches over them.
func (e *example) kill() {
	e.t.Helper()
	family := e.family()
	if len(family) < 2 {
		e.t.Errorf("the program has started nothing: %d", family)
	}
	for _, pid := range family {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended with another
	}
	<-e.exited
	e.eventually(fmt.Sprintf("the processes %d are gone", family), func() bool {
		left := parents(e.t)
		return !slices.ContainsFunc(family, func(pid int) bool { _, ok := left[pid]; return ok })
	})
}

func (e *example) eventually(what string, ok func() bool) {
	e.t.Helper()
	for begun := time.Now(); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Since(begun) > patience {
			e.t.Fatalf("not after %v: %s", patience, what)
		}
	}
}

// ask sends a request and gives what is answered, which must be of the given status.
func (e *example) ask(method, path, body string, status int) string {
	e.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, e.url+path, strings.NewReader(body))
	must(e.t, err)
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	must(e.t, err)
	defer func() { _ = answer.Body.Close() }()
	b, err := io.ReadAll(answer.Body)
	must(e.t, err)
	if answer.StatusCode != status {
		e.t.Fatalf("%s %s: %s: %s", method, path, answer.Status, b)
	}
	return string(b)
}

// sync returns when all that a service has acknowledged is saved.
func (e *example) sync(service string) {
	e.t.Helper()
	var s server.Synced
	must(e.t, json.Unmarshal([]byte(e.ask("POST", "/_torpor/services/"+service+"/sync", "", http.StatusOK)), &s))
	if len(s.Parts) != 1 || s.Parts[0].Generation == 0 {
		e.t.Fatalf("sync of %s: %+v", service, s)
	}
}

// health is what is said of one service.
func (e *example) health(service string) server.ServiceHealth {
	e.t.Helper()
	var h server.Health
	must(e.t, json.Unmarshal([]byte(e.ask("GET", "/_torpor/health", "", http.StatusOK)), &h))
	for _, s := range h.Services {
		if s.Name == service {
			return s
		}
	}
	e.t.Fatalf("there is no service %s: %+v", service, h)
	return server.ServiceHealth{}
}

// sleeps waits until services have been put to sleep by themselves and no process of theirs is left.
func (e *example) sleeps(services ...string) {
	e.t.Helper()
	for _, s := range services {
		e.eventually(s+" is asleep", func() bool { return e.health(s).Asleep })
	}
	e.eventually("no service runs", func() bool { return len(e.family()) == 1 })
}

// forget removes what a service itself has on disk, so that only what Torpor has saved can bring it back.
func (e *example) forget(service string) {
	e.t.Helper()
	must(e.t, os.RemoveAll(filepath.Join(e.data, "state", service)))
}

// has says that files are in the data folder.
func (e *example) has(paths ...string) {
	e.t.Helper()
	for _, p := range paths {
		if info, err := os.Stat(filepath.Join(e.data, p)); err != nil || info.Size() == 0 {
			e.t.Errorf("%s: %v", p, err)
		}
	}
	if e.t.Failed() {
		_ = filepath.WalkDir(e.data, func(p string, _ fs.DirEntry, err error) error { e.t.Log(p); return err })
	}
}

// round takes an example through everything that may happen to it. change makes changes and says what is there
// then, now says what is there, and more changes something else.
func (e *example) round(services []string, change, now func() string, more func()) {
	e.t.Helper()
	e.start()
	want := change()
	same := func(when string) {
		e.t.Helper()
		if got := now(); got != want {
			e.t.Fatalf("%s there is %s, want %s", when, got, want)
		}
	}
	all := func(f func(string)) {
		e.t.Helper()
		for _, s := range services {
			f(s)
		}
	}
	all(e.sync) // at once, as a service may have answered what its disk has not
	same("at first")
	e.kill()
	e.start()
	same("after kill -9")
	e.kill()
	all(e.forget)
	e.start()
	same("after kill -9 and the loss of what the services keep")
	e.sleeps(services...)
	same("when it was woken")
	more()
	before := want
	if want = now(); want == before {
		e.t.Fatalf("nothing more is there than %s", want)
	}
	e.stop()
	all(e.forget)
	e.start()
	same("after a stop in order")
	e.stop()
}

// freePort is one that nobody listens on now.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	_, port, err := net.SplitHostPort(l.Addr().String())
	must(t, errors.Join(err, l.Close()))
	return port
}
