package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestExitCodes(t *testing.T) {
	for err, want := range map[error]int{
		nil:                                     0,
		errors.New("x"):                         1,
		usageError{errors.New("x")}:             2,
		usageError{abi.ErrNotFound}:             2, // the caller's words, whatever is wrong with them
		fmt.Errorf("x: %w", abi.ErrCorrupt):     3,
		fmt.Errorf("x: %w", abi.ErrVersion):     4,
		fmt.Errorf("x: %w", abi.ErrNotFound):    5,
		fmt.Errorf("x: %w", abi.ErrLocked):      6,
		fmt.Errorf("x: %w", abi.ErrTooLarge):    7,
		fmt.Errorf("x: %w", errNotAllowed):      8,
		fmt.Errorf("x: %w", seal.ErrKey):        9,
		errDifferent:                            1,
		fmt.Errorf("x: %w", notAllowed{io.EOF}): 8,
		fmt.Errorf("x: %w", fs.ErrPermission):   1,
		errors.Join(nil, abi.ErrLocked, io.EOF): 6,
	} {
		if got := exitCode(err); got != want {
			t.Errorf("%v: exit code %d, want %d", err, got, want)
		}
	}
}

func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		name      string
		args      []string
		code      int
		out, errs string // what must be in them; "" with errs: nothing may
	}{
		{"nothing", nil, 0, "Available Commands", ""},
		{"help", []string{"--help"}, 0, "Exit codes", ""},
		{"help of a command", []string{"serve", "--help"}, 0, "--save-strategy", ""},
		{"version flag", []string{"--version"}, 0, Version, ""},
		{"version", []string{"version"}, 0, "torpor " + Version, ""},
		{"module", []string{"module"}, 0, "warm", ""},
		{"unknown command", []string{"start"}, 2, "", `unknown command "start"; the commands are completion, config, diff, health, inspect, load, module, records, reset, save, serve, sleep, snapshot, status, sync, verify, version, wake`},
		{"unknown command of module", []string{"module", "cool"}, 2, "", `"cool"`},
		{"unknown flag", []string{"serve", "--lisen", "x"}, 2, "", "unknown flag: --lisen; torpor serve has --api-key-file, "},
		{"flag without a value", []string{"serve", "--listen"}, 2, "", "--listen"},
		{"an argument too many", []string{"serve", "now"}, 2, "", `"now"`},
		{"mistaken setting", []string{"serve", "--proof", "no"}, 2, "", `--proof is "no"; allowed are full, sampled, off`},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, errs, code := torpor(t, nil, c.args...)
			if code != c.code || !strings.Contains(out, c.out) || !strings.Contains(errs, c.errs) || c.errs == "" && errs != "" {
				t.Errorf("exit code %d, want %d\noutput %q, want %q\nerrors %q, want %q", code, c.code, out, c.out, errs, c.errs)
			}
		})
	}
}

func TestVersionJSON(t *testing.T) {
	out, _, code := torpor(t, nil, "version", "--json")
	var v struct{ Version, Revision, Go string }
	if err := json.Unmarshal([]byte(out), &v); err != nil || code != 0 {
		t.Fatalf("exit code %d, %v in %q", code, err, out)
	}
	if v.Version != Version || !strings.HasPrefix(v.Go, "go1.") {
		t.Errorf("version %+v", v)
	}
}

func TestReachable(t *testing.T) {
	for listen, want := range map[string]string{
		"127.0.0.1:4566": "127.0.0.1:4566",
		"0.0.0.0:4566":   "127.0.0.1:4566",
		":4566":          "127.0.0.1:4566",
		"[::]:4566":      "127.0.0.1:4566",
		"[::1]:4566":     "[::1]:4566",
		"torpor:4566":    "torpor:4566",
	} {
		if got := reachable(listen); got != want {
			t.Errorf("%s is to be called at %s, want %s", listen, got, want)
		}
	}
}

func TestHealthOfWhatever(t *testing.T) {
	const running = `{"status":"degraded","version":"9.9.9","features":{"persistence":"initialized"},"services":[{"name":"s3","status":"running",
		"parts":[{"name":"store","status":"error","generation":12,"dirty_seconds":2.25,"last_good_save":"2026-04-01T12:00:00Z","last_error":"disk full\nreally"}]}]}`
	for _, c := range []struct {
		name      string
		status    int
		body      string
		code      int
		out, errs string
	}{
		{"served", 200, running, 0, "torpor 9.9.9: degraded, persistence initialized\n", ""},
		{"served, its row", 200, running, 0, "s3       running  store  error  12          2.2 s        2026-04-01T12:00:00Z  disk full; really\n", ""},
		{"never saved", 200, `{"status":"ok","services":[{"name":"s3","parts":[{"last_good_save":null}]}]}`, 0, "never", ""},
		{"not served", 503, strings.Replace(running, "degraded", "error", 1), 1, "torpor 9.9.9: error", "a service is not served"},
		{"not torpor", 200, "<html>", 1, "", "not as torpor does"},
		{"not torpor's JSON", 200, "{}", 1, "", "not as torpor does"},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/_torpor/health" {
					t.Errorf("asked for %s", r.URL)
				}
				w.WriteHeader(c.status)
				io.WriteString(w, c.body)
			}))
			defer srv.Close()
			addr := srv.Listener.Addr().String()
			// A proxy that is no use: what listens here is called straight.
			environ := []string{"TORPOR_LISTEN=" + addr}
			t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
			out, errs, code := torpor(t, environ, "health")
			if code != c.code || !strings.Contains(out, c.out) || !strings.Contains(errs, c.errs) {
				t.Errorf("exit code %d, want %d\noutput %s, want %s\nerrors %q, want %q", code, c.code, out, c.out, errs, c.errs)
			}
			if out, _, _ := torpor(t, nil, "health", "--listen", addr, "--json"); c.code == 0 && out != c.body {
				t.Errorf("--json gives %q, want the answer as it came, %q", out, c.body)
			}
		})
	}
}

func TestHealthOfNobody(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	if _, errs, code := torpor(t, nil, "health", "--listen", addr); code != 1 || !strings.Contains(errs, "no torpor answers") {
		t.Errorf("exit code %d: %s", code, errs)
	}

	// One that takes the call and says nothing.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if _, errs, code := torpor(t, nil, "health", "--listen", silent.Addr().String(), "--timeout", "50ms"); code != 1 || !strings.Contains(errs, "no torpor answers") {
		t.Errorf("exit code %d: %s", code, errs)
	}
}

func TestModuleWarm(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "cache")
	first, errs, code := torpor(t, nil, "module", "warm", "--cache", cache)
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	for _, m := range modules.All() {
		if !strings.Contains(first, m.Name+" ") {
			t.Errorf("%s is not in the output: %s", m.Name, first)
		}
	}
	info, err := os.Stat(cache)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("the cache has mode %o: what lies in it is run", info.Mode().Perm())
	}
	before := cacheFiles(t, cache)
	if len(before) == 0 {
		t.Fatal("nothing was cached")
	}
	if _, errs, code := torpor(t, nil, "module", "warm", "--cache", cache); code != 0 {
		t.Fatalf("the second time: exit code %d: %s", code, errs)
	}
	if after := cacheFiles(t, cache); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("the second time compiled again: %v, then %v", before, after)
	}

	if err := os.Chmod(cache, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := torpor(t, nil, "module", "warm", "--cache", cache); code != 1 || !strings.Contains(errs, "chmod 0700") {
		t.Errorf("a cache that all can write to: exit code %d: %s", code, errs)
	}
}

// cacheFiles gives the files of a cache with their times and sizes.
func cacheFiles(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			files[path] = fmt.Sprint(info.ModTime(), info.Size())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// serving runs serve in this process until stop is called, which gives the exit code.
func serving(t *testing.T, environ []string, args ...string) (url string, stop func() (errs string, code int)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out, outWriter := io.Pipe()
	var errs lockedBuffer
	code := make(chan int, 1)
	go func() {
		args := append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)
		code <- Run(ctx, sources(), Streams{In: strings.NewReader(""), Out: outWriter, Err: &errs}, environ, args)
		outWriter.Close()
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		cancel()
		t.Fatalf("serve ended with exit code %d: %s", <-code, errs.String())
	}
	_, url, _ = strings.Cut(strings.TrimSpace(line), " is listening on ")
	return url, func() (string, int) {
		cancel()
		return errs.String(), <-code
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// call makes one request without keeping the connection.
func call(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestServeUntilTheContextEnds(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	url, stop := serving(t, nil, "--data", data, "--save-strategy", "ON_SHUTDOWN")
	call(t, http.MethodPut, url+"/bucket", "")
	call(t, http.MethodPut, url+"/bucket/key", "content")
	if errs, code := stop(); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	url, stop = serving(t, []string{"TORPOR_DATA=" + data, "SNAPSHOT_LOAD_STRATEGY=ON_STARTUP"})
	if status, body := call(t, http.MethodGet, url+"/bucket/key", ""); status != 200 || body != "content" {
		t.Errorf("after the restart: %d %s", status, body)
	}
	if errs, code := stop(); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
}

func TestServeGivesUpCleanly(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(t.TempDir(), "data")
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"the port is taken", []string{"--listen", taken.Addr().String(), "--data", data}, 1, "choose one with --listen"},
		{"the address is not ours", []string{"--listen", "192.0.2.1:0", "--data", data}, 1, "192.0.2.1"},
		{"the data folder is a file", []string{"--listen", "127.0.0.1:0", "--data", file}, 1, file},
		{"the cache is a file", []string{"--listen", "127.0.0.1:0", "--data", data, "--cache", file}, 1, file},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, errs, code := torpor(t, nil, append([]string{"serve"}, c.args...)...)
			if code != c.code || !strings.Contains(errs, c.want) {
				t.Errorf("exit code %d, want %d; the error should say %q:\n%s", code, c.code, c.want, errs)
			}
		})
	}
	// None of them holds the data folder now.
	_, stop := serving(t, nil, "--data", data)
	if errs, code := stop(); code != 0 {
		t.Errorf("exit code %d: %s", code, errs)
	}
}

// TestServeStoppedBeforeItIsUp: a signal that comes while the program starts is a stop like any other.
func TestServeStoppedBeforeItIsUp(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out, errs lockedBuffer
	code := Run(ctx, sources(), Streams{In: strings.NewReader(""), Out: &out, Err: &errs}, nil,
		[]string{"serve", "--listen", "127.0.0.1:0", "--data", filepath.Join(t.TempDir(), "data"), "--load-strategy", "ON_STARTUP"})
	if code != 0 {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
}

func TestLogger(t *testing.T) {
	var b strings.Builder
	log := newLogger(&b, "warn", "json", false)
	log.Info("not this")
	log.Warn("this", "key", 1)
	var line map[string]any
	if err := json.Unmarshal([]byte(b.String()), &line); err != nil || line["msg"] != "this" || line["key"] != 1.0 {
		t.Errorf("JSON: %v in %q", err, b.String())
	}
	for _, format := range []string{"text", "auto"} { // what is no terminal gets text
		b.Reset()
		log := newLogger(&b, "debug", format, false)
		log.Debug("this")
		if !strings.Contains(b.String(), "level=DEBUG msg=this") {
			t.Errorf("%s: %q", format, b.String())
		}
	}
}

func TestSessionsDiffer(t *testing.T) {
	if a, b := session(), session(); a == b || len(a) != 32 {
		t.Errorf("sessions %s and %s", a, b)
	}
}
