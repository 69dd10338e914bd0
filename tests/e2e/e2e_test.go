//go:build unix

// Package e2e runs the program as its users do: the built binary as a child process, on data folders of
// its own, spoken to with the AWS SDK, curl and plain HTTP. The tests here own what only a whole process
// shows: signals and exit codes, death at any moment, the disk, the environment.
package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/torpor-run/torpor/server"
	"github.com/torpor-run/torpor/tests/program"
)

// torporFile is the built binary, built once by TestMain.
var torporFile string

func TestMain(m *testing.M) { os.Exit(program.Run(m, &torporFile)) }

const patience = program.Patience

// options of a child.
type options struct {
	env  []string            // beside PATH and HOME, which is all it has of the environment
	args []string            // after serve; --listen 127.0.0.1:0 is there unless one of them is --listen
	user *syscall.Credential // nil: the one of the tests
}

// on gives the options for a data folder.
func on(data string, args ...string) options {
	return options{args: append([]string{"--data", data}, args...)}
}

// with adds environment variables, as KEY=value.
func (o options) with(env ...string) options {
	o.env = append(append([]string(nil), o.env...), env...)
	return o
}

// child is a running program.
type child struct {
	t      testing.TB
	cmd    *exec.Cmd
	url    string
	out    *program.Output
	log    *program.Output
	exited chan struct{} // closed when it has ended
}

// says waits until the log has s: it comes by another way than answers do.
func (c *child) says(s string) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("the log says %q", s), func() bool { return strings.Contains(c.log.String(), s) })
}

// command prepares the program with a command line of its own.
func command(t testing.TB, env []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(torporFile, args...)
	cmd.Dir = t.TempDir() // so that nothing depends on, or litters, this one
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + cmd.Dir}, env...)
	return cmd
}

// torpor runs the program to its end.
func torpor(t testing.TB, env []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := command(t, env, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// spawn starts serve and does not wait for it to listen.
func spawn(t testing.TB, o options) (*child, *program.Serving) {
	t.Helper()
	args := []string{"serve"}
	if !strings.Contains(strings.Join(o.args, " "), "--listen") && !strings.Contains(strings.Join(o.env, " "), "TORPOR_LISTEN") {
		args = append(args, "--listen", "127.0.0.1:0")
	}
	cmd := command(t, o.env, append(args, o.args...)...)
	if o.user != nil {
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: o.user}
	}
	serving := program.Start(t, cmd, nil, nil)
	return &child{t: t, cmd: cmd, out: serving.Out, log: serving.Log, exited: serving.Exited}, serving
}

// start runs serve and returns when it listens.
func start(t testing.TB, o options) *child {
	t.Helper()
	c, serving := spawn(t, o)
	c.url = serving.URL(t)
	return c
}

// refuses runs serve where it must end by itself before it listens.
func refuses(t testing.TB, o options) (stderr string, code int) {
	t.Helper()
	c, serving := spawn(t, o)
	if line, ok := serving.First(); ok {
		t.Fatalf("serve started: %s", line)
	}
	code = c.wait()
	return c.log.String(), code
}

// wait waits for the end and gives the exit code, or -1 where a signal ended it.
func (c *child) wait() int {
	c.t.Helper()
	select {
	case <-c.exited:
	case <-time.After(patience):
		c.t.Fatalf("torpor does not end: %s", c.log)
	}
	return c.cmd.ProcessState.ExitCode()
}

func (c *child) signal(s os.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		c.t.Fatal(err)
	}
}

// stop ends it in order.
func (c *child) stop() {
	c.t.Helper()
	c.signal(syscall.SIGTERM)
	if code := c.wait(); code != 0 {
		c.t.Fatalf("exit code %d after SIGTERM: %s", code, c.log)
	}
}

// kill ends it as a crash would.
func (c *child) kill() {
	c.t.Helper()
	_ = c.cmd.Process.Kill() // it may have ended by itself, which wait tells
	c.wait()
}

// eventually waits for what is bound to happen.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %v still not: %s", patience, what)
		}
	}
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// do sends a request. Connections are not kept: a child that is gone must not be remembered.
func (c *child) do(method, path, body string, header ...string) answer {
	c.t.Helper()
	a, err := c.try(method, path, body, header...)
	if err != nil {
		c.t.Fatal(err)
	}
	return a
}

func (c *child) try(method, path, body string, header ...string) (answer, error) {
	req, err := http.NewRequest(method, c.url+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Close = true
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(b)}, err
}

// put stores an object, making its bucket if need be, by plain HTTP.
func (c *child) put(path, body string) {
	c.t.Helper()
	bucket, _, _ := strings.Cut(path[1:], "/")
	if a := c.do(http.MethodPut, "/"+bucket, ""); a.status != http.StatusOK {
		c.t.Fatalf("bucket %s: %d %s", bucket, a.status, a.body)
	}
	if a := c.do(http.MethodPut, path, body); a.status != http.StatusOK {
		c.t.Fatalf("PUT %s: %d %s", path, a.status, a.body)
	}
}

// has checks that an object is there with that content.
func (c *child) has(path, body string) {
	c.t.Helper()
	if a := c.do(http.MethodGet, path, ""); a.status != http.StatusOK || a.body != body {
		c.t.Errorf("GET %s: %d %.200q, want %.200q", path, a.status, a.body, body)
	}
}

// lacks checks that an object, or its bucket, is not there.
func (c *child) lacks(path string) {
	c.t.Helper()
	if a := c.do(http.MethodGet, path, ""); a.status != http.StatusNotFound {
		c.t.Errorf("GET %s: %d %.200q, want 404", path, a.status, a.body)
	}
}

// save asks for a save, which must go well.
func (c *child) save() {
	c.t.Helper()
	if a := c.do(http.MethodPost, "/_localstack/state/s3/save", ""); a.status != http.StatusOK || a.body != `{"service":"s3","status":"ok"}`+"\n" {
		c.t.Fatalf("save: %d %s", a.status, a.body)
	}
}

// health asks how it is.
func (c *child) health() (status int, h server.Health) {
	c.t.Helper()
	a := c.do(http.MethodGet, "/_torpor/health", "")
	if err := json.Unmarshal([]byte(a.body), &h); err != nil {
		c.t.Fatalf("health: %v in %s", err, a.body)
	}
	if len(h.Services) != 1 || len(h.Services[0].Parts) != 1 || h.Services[0].Name != "s3" || h.Services[0].Parts[0].Name != "store" {
		c.t.Fatalf("health: %s", a.body)
	}
	return a.status, h
}

// part is the health of the one part there is.
func (c *child) part() server.PartHealth {
	c.t.Helper()
	_, h := c.health()
	return h.Services[0].Parts[0]
}

// healthy checks that nothing is wrong.
func (c *child) healthy() {
	c.t.Helper()
	if status, h := c.health(); status != http.StatusOK || h.Status != "ok" || h.Services[0].Parts[0].LastError != "" {
		c.t.Errorf("health: %d %+v", status, h)
	}
}

// metric gives the value of one series of /metrics, 0 if it is not there.
func (c *child) metric(series string) float64 {
	c.t.Helper()
	for line := range strings.Lines(c.do(http.MethodGet, "/metrics", "").body) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			var v float64
			if _, err := fmt.Sscan(rest, &v); err != nil {
				c.t.Fatalf("%s: %v", line, err)
			}
			return v
		}
	}
	return 0
}

// client is the AWS SDK's, as its documentation says for S3-compatible services.
func (c *child) client() *s3.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	c.t.Cleanup(transport.CloseIdleConnections)
	return s3.New(s3.Options{
		BaseEndpoint: aws.String(c.url), UsePathStyle: true, Region: "us-east-1",
		Credentials:      credentials.NewStaticCredentialsProvider("test", "test", ""),
		HTTPClient:       &http.Client{Transport: transport},
		RetryMaxAttempts: 1, // a test wants to know
	})
}

// bg is the context of calls that nothing needs to cut short.
func bg() context.Context { return context.Background() }

// storeFile is the newest state file of S3.
func storeFile(data string) string {
	return filepath.Join(data, "state", "api_states", "s3", "store.state")
}

// readFile reads a file that must be there.
func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// writeFile overwrites a file.
func writeFile(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// tree gives what lies below a folder: the folders, and the files with the SHA-256 of their content. The
// lock file, which says who holds the folder, is left out.
func tree(t testing.TB, root string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		switch {
		case err != nil:
			return err
		case d.IsDir():
			found[name] = "folder"
			return nil
		case name == "LOCK":
			return nil
		}
		b, err := os.ReadFile(path)
		found[name] = fmt.Sprintf("%x", sha256.Sum256(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// files lists the names in the folder of S3's state, without the part's own.
func files(t testing.TB, data string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(storeFile(data)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// noLeftovers checks that a data folder holds no half-written and no damaged files.
func noLeftovers(t testing.TB, data string) {
	t.Helper()
	for name := range tree(t, data) {
		if strings.Contains(name, ".tmp-") || strings.Contains(name, ".corrupt-") {
			t.Errorf("%s was left behind", name)
		}
	}
}
