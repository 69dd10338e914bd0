//go:build unix

package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/torpor-run/torpor/tests/need"
)

// root is where README.md and go.mod are, seen from this package.
const root = "../.."

// walk is the README's block of commands behind the mark <!-- walk -->.
func walk(t *testing.T) string {
	t.Helper()
	block := regexp.MustCompile("(?s)<!-- walk -->\\s*\n```[a-z]*\n(.*?)\n```").FindStringSubmatch(string(readFile(t, filepath.Join(root, "README.md"))))
	if block == nil {
		t.Fatal("README.md has no block of commands behind <!-- walk -->")
	}
	return block[1]
}

// TestREADMEWalk does what README.md tells a newcomer to do, as it stands there, save two things: the
// port is another, since someone may be using that one, and the program, which the walk begins by
// building, has been built already.
func TestREADMEWalk(t *testing.T) {
	bash := need.Program(t, "bash")
	need.Program(t, "curl")
	commands := walk(t)
	const port, build = "4566", "go build -o torpor .\n"
	if !strings.Contains(commands, ":"+port) || !strings.Contains(commands, build) {
		t.Fatalf("the walk does not use port %s, or does not begin with %s", port, build)
	}
	other := freePort(t)
	commands = strings.Replace(strings.ReplaceAll(commands, ":"+port, ":"+other), build, "cp "+torporFile+" torpor\n", 1)
	cmd := exec.Command(bash, "-c", "set -euo pipefail\n"+commands+"\n")
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "TORPOR_LISTEN=127.0.0.1:"+other, "TMPDIR="+t.TempDir())

	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// A walk that fails must not leave its program behind.
	t.Cleanup(func() {
		if cmd.Process != nil {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
	})
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the walk fails: %v\n%s", err, out)
	}
	said := string(out)
	for _, want := range []string{`{"service":"s3","status":"ok"}`, "persistence initialized", "HTTP/1.1 200 OK", "Content-Type: text/plain", "Etag: ",
		"written before the crash", "generation   2", "notes/first.txt", "notes/second.txt"} {
		if !strings.Contains(said, want) {
			t.Errorf("the walk does not show %q", want)
		}
	}
	if n := strings.Count(said, "is listening on http://127.0.0.1:"+other+"\n"); n != 2 {
		t.Errorf("the walk starts the program %d times, want 2", n)
	}
	if t.Failed() {
		t.Logf("the walk:\n%s", said)
	}
	if left, err := net.Dial("tcp", "127.0.0.1:"+other); err == nil {
		left.Close()
		t.Error("the walk leaves a program running")
	}
}

// TestREADMETellsOfEveryCommand: what --help lists is in the README.
func TestREADMETellsOfEveryCommand(t *testing.T) {
	readme := string(readFile(t, filepath.Join(root, "README.md")))
	help, _, code := torpor(t, nil, "--help")
	if code != 0 {
		t.Fatalf("exit code %d", code)
	}
	commands := regexp.MustCompile(`(?m)^  ([a-z]+) {2,}`).FindAllStringSubmatch(help, -1)
	if len(commands) < 5 {
		t.Fatalf("--help lists %v", commands)
	}
	for _, c := range commands {
		if name := c[1]; name != "help" && name != "completion" && !strings.Contains(strings.Join(strings.Fields(readme), " "), "`torpor "+name) {
			t.Errorf("README.md does not tell of torpor %s", name)
		}
	}
}

// freePort is a port that nobody listens on now.
func freePort(t *testing.T) string {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer free.Close()
	_, port, err := net.SplitHostPort(free.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
