//go:build unix

// Package cli runs the scripts in testdata: the built program as its users call it, with what it prints and the exit codes it
// ends with. A script can use, beside the commands of package testscript:
//
//	torpor ARG...          runs torpor, which has to end with exit code 0
//	ends CODE torpor ARG…  runs it, and it has to end with that exit code
//	serve ARG...           starts torpor serve on a free port and puts where it is into $TORPOR_URL
//	stop                   ends it as SIGTERM does, and it has to end with exit code 0
//	http METHOD PATH [FILE]  asks what serve started; FILE is the body
//
// Without serve, $TORPOR_LISTEN is where nobody listens, so that no torpor that runs on this machine is asked.
package cli

import (
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/torpor-run/torpor/tests/program"
)

// torporFile is the built binary, built once by TestMain.
var torporFile string

func TestMain(m *testing.M) { os.Exit(program.Run(m, &torporFile)) }

// updateScripts: look at what has changed before you commit it.
var updateScripts = flag.Bool("update-scripts", false, "write what is compared by cmp into the scripts")

const (
	urlVariable    = "TORPOR_URL"
	listenVariable = "TORPOR_LISTEN"
)

// key of what a script keeps.
type key struct{}

// script is one that runs.
type script struct {
	t       testing.TB
	serving *program.Serving // nil: nothing is
}

func TestScripts(t *testing.T) {
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// Nothing is accepted here, and when it is closed nobody listens.
	if err := nobody.Close(); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                "testdata",
		RequireUniqueNames: true,
		UpdateScripts:      *updateScripts,
		Setup: func(env *testscript.Env) error {
			tb, ok := env.T().(testing.TB)
			if !ok {
				return errors.New("a script's test is no testing.TB")
			}
			s := &script{t: tb}
			env.Values[key{}] = s
			env.Defer(s.kill)
			env.Setenv("PATH", filepath.Dir(torporFile)+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv(listenVariable, nobody.Addr().String())
			env.Setenv("NOBODY", "http://"+nobody.Addr().String())
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"torpor": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg {
					ts.Fatalf("say how it ends: ends CODE torpor …")
				}
				ends(ts, 0, args)
			},
			"ends": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) < 2 || args[1] != "torpor" {
					ts.Fatalf("usage: ends CODE torpor ARG...")
				}
				code, err := strconv.Atoi(args[0])
				ts.Check(err)
				ends(ts, code, args[2:])
			},
			"serve": serve,
			"stop":  stop,
			"http":  ask,
		},
	})
}

// ends runs torpor, which has to end with that exit code.
func ends(ts *testscript.TestScript, want int, args []string) {
	err := ts.Exec("torpor", args...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if code != want {
		ts.Fatalf("torpor %s: exit code %d, want %d", strings.Join(args, " "), code, want)
	}
}

func serve(ts *testscript.TestScript, neg bool, args []string) {
	s := ts.Value(key{}).(*script)
	if neg || s.serving != nil {
		ts.Fatalf("it is served already: stop that first")
	}
	cmd := exec.Command(torporFile, append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "WORK", "TORPOR_API_KEY", "PERSISTENCE"} {
		if v := ts.Getenv(name); v != "" {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	s.serving = program.Start(s.t, cmd, nil, nil)
	ts.Setenv(urlVariable, s.serving.URL(s.t))
}

func stop(ts *testscript.TestScript, neg bool, args []string) {
	s := ts.Value(key{}).(*script)
	if neg || len(args) > 0 || s.serving == nil {
		ts.Fatalf("usage: stop, after serve")
	}
	ts.Check(s.serving.Cmd.Process.Signal(syscall.SIGTERM))
	if code := s.serving.Wait(s.t); code != 0 {
		ts.Fatalf("serve ended with exit code %d: %s", code, s.serving.Log)
	}
	s.serving = nil
	ts.Setenv(urlVariable, "")
}

// kill ends what a script has left, before its folder is removed.
func (s *script) kill() {
	if s.serving != nil {
		_ = s.serving.Cmd.Process.Kill()
		<-s.serving.Exited
	}
}

func ask(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: http METHOD PATH [FILE]")
	}
	var body io.Reader
	if len(args) == 3 {
		body = strings.NewReader(ts.ReadFile(args[2]))
	}
	req, err := http.NewRequest(args[0], ts.Getenv(urlVariable)+args[1], body)
	ts.Check(err)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	ts.Check(err)
	ts.Logf("%s: %s", resp.Status, answer)
	if failed := resp.StatusCode >= 400; failed != neg {
		ts.Fatalf("%s %s: %s: %s", args[0], args[1], resp.Status, answer)
	}
}
