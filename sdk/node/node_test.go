// Package node_test tests the kit for services in Node: by its own tests, and by the example service
// under the runtime, its serializer and its state directory.
package node_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	nethttp "net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/source/http"
	"github.com/torpor-run/torpor/runtime/source/sourcetest"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/vfs"
	"github.com/torpor-run/torpor/tests/need"
	"github.com/torpor-run/torpor/tests/sdktest"
)

const (
	token = "of-the-test"
	state = "/_torpor/state/store"
)

// TestKit runs the kit's own tests.
func TestKit(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), need.Program(t, "node"), "--test", "--test-reporter=tap", "torpor.test.mjs")
	out, err := cmd.CombinedOutput()
	if err != nil && bytes.Contains(out, []byte("bad option")) { // Node 18 before 18.15 has this reporter alone
		cmd = exec.CommandContext(t.Context(), cmd.Path, "--test", "torpor.test.mjs")
		out, err = cmd.CombinedOutput()
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !regexp.MustCompile(`(?m)^# pass [1-9]`).Match(out) || !regexp.MustCompile(`(?m)^# fail 0$`).Match(out) {
		t.Fatalf("no tests were run:\n%s", out)
	}
}

// service is the example, running.
type service struct {
	t      testing.TB
	cmd    *exec.Cmd
	ended  chan struct{}
	url    string
	client *nethttp.Client
}

// start starts a service on a free port and waits until it listens; it is killed when the test ends.
func start(t testing.TB, args ...string) *service {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), need.Program(t, "node"), append(args, "--port=0")...)
	cmd.Env = append(os.Environ(), "TORPOR_STATE_TOKEN="+token)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &service{t: t, cmd: cmd, ended: make(chan struct{}), client: &nethttp.Client{Transport: &nethttp.Transport{DisableKeepAlives: true}}}
	said := bufio.NewReader(out)
	line, err := said.ReadString('\n')
	go func() {
		defer close(s.ended)
		_, _ = io.Copy(io.Discard, said)
		_ = cmd.Wait() // killed
	}()
	t.Cleanup(s.kill)
	_, url, ok := strings.Cut(strings.TrimSpace(line), "listening on ")
	if err != nil || !ok {
		t.Fatalf("the service says %q (%v)", line, err)
	}
	s.url = url
	return s
}

// kill is kill -9.
func (s *service) kill() {
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.ended
}

// ask sends a request, and gives the answer to one that succeeds.
func (s *service) ask(method, path string, body any) ([]byte, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	r, err := nethttp.NewRequestWithContext(context.Background(), method, s.url+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	answer, err := s.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != nethttp.StatusOK {
		err = fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, said)
	}
	return said, err
}

// must is ask where it succeeds.
func (s *service) must(method, path string, body any) []byte {
	s.t.Helper()
	said, err := s.ask(method, path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	return said
}

// source is the service's state as the runtime takes it.
func (s *service) source() *http.Source {
	s.t.Helper()
	header := nethttp.Header{"Authorization": {"Bearer " + token}}
	source, err := http.New(http.Config{Service: "service", Part: "store", URL: s.url + state, Header: header, Atomic: true})
	if err != nil {
		s.t.Fatal(err)
	}
	return source
}

type note struct {
	Title string `json:"title"`
	Text  string `json:"text"`
}

const example = "examples/notes/notes.mjs"

// TestSource holds the example to what every source must keep, through the http source.
func TestSource(t *testing.T) {
	need.Program(t, "node")
	sourcetest.Test(t, func(t *testing.T) sourcetest.Fixture {
		live := start(t, example)
		return sourcetest.Fixture{
			Source: live.source(),
			Put: func(n int) {
				live.must("PUT", "/notes", map[string]note{"tea": {"tea", fmt.Sprint("cups: ", n)}, fmt.Sprint("note-", n): {"é", "\x00"}})
			},
			State: func() string { return string(live.must("GET", "/notes", nil)) },
			Request: func(n int) {
				if _, err := live.ask("PUT", fmt.Sprint("/notes/note-", n%5), note{Title: "a", Text: fmt.Sprint(n)}); err != nil {
					t.Error(err)
				}
			},
			Close: live.kill,
		}
	})
}

// opened is a runtime for one live service, on a state directory in folder, once it has loaded what is there.
// save saves it as after a change, end ends the runtime without saving.
func opened(t testing.TB, folder string, serializer runtime.Serializer, source runtime.Source) (svc *runtime.Service, save, end func()) {
	t.Helper()
	var dirty runtime.Dirty
	logger := slog.New(slog.NewTextHandler(t.Output(), nil))
	fsys, err := vfs.OS(folder)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := statedir.Open(fsys, statedir.Options{Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	rt, err := runtime.New(runtime.Config{Dir: dir, Logger: logger, Services: []runtime.ServiceConfig{{
		Name: "service", Save: runtime.SaveManual, Load: runtime.LoadOnStartup,
		Parts: []runtime.PartConfig{{Name: "store", Serializer: serializer, Source: source, Dirty: &dirty}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if svc, err = rt.Service("service"); err != nil {
		t.Fatal(err)
	}
	save = func() {
		dirty.Mark()
		if err := svc.Save(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return svc, save, func() {
		if err := errors.Join(rt.Close(context.Background()), dir.Close()); err != nil {
			t.Error(err)
		}
	}
}

// TestKilled: requests change the service, its state is saved, and service and runtime end without a
// word. The next ones have all of it.
func TestKilled(t *testing.T) {
	t.Parallel()
	json, _ := sdktest.Compile(t, "json", modules.JSON(), host.Config{Logger: slog.New(slog.DiscardHandler)})
	folder := t.TempDir()
	first := start(t, example)
	for i := range 100 {
		first.must("PUT", fmt.Sprint("/notes/", i), note{Title: fmt.Sprint("note ", i), Text: "é \u2028 \" \x00"})
	}
	first.must("DELETE", "/notes/50", nil)
	svc, save, end := opened(t, folder, json, first.source())
	save()
	first.must("POST", "/notes/7", "more")
	save()
	if part := svc.Status().Parts[0]; part.Records < 99 {
		t.Errorf("99 notes are %d records", part.Records)
	}
	want := first.must("GET", "/notes", nil)
	first.must("DELETE", "/notes/7", nil) // and is not saved
	first.kill()
	end()

	second := start(t, example)
	svc, save, end = opened(t, folder, json, second.source())
	defer func() { end() }()
	if status := svc.Status(); status.Status != runtime.StatusRunning || status.Parts[0].Generation != 2 {
		t.Fatalf("after the second start: %+v", status)
	}
	if all := second.must("GET", "/notes", nil); !bytes.Equal(all, want) {
		t.Errorf("the service has\n%s\nit had\n%s", all, want)
	}

	// A reset empties it, and the empty state can be saved and loaded.
	const empty = `{"words":0,"notes":{}}`
	if err := svc.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if all := second.must("GET", "/notes", nil); string(all) != empty {
		t.Errorf("after Reset: %s", all)
	}
	save()
	second.must("PUT", "/notes/1", note{Title: "a", Text: "b"})
	if _, err := svc.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if all := second.must("GET", "/notes", nil); string(all) != empty {
		t.Errorf("after a load of the empty state: %s", all)
	}
}

// TestREADME runs the example that README.md begins with, as it stands there, and as a CommonJS module.
func TestREADME(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, code, _ := strings.Cut(string(readme), "```js\n")
	code, _, ok := strings.Cut(code, "```")
	if !ok || !strings.Contains(code, "listen(4700") {
		t.Fatalf("README.md begins with no example on port 4700:\n%s", code)
	}
	kit, err := os.ReadFile("torpor.cjs")
	if err != nil {
		t.Fatal(err)
	}
	code = strings.Replace(code, "listen(4700", "listen(0", 1) + "\nserver.on(\"listening\", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));\n"
	required := regexp.MustCompile(`(?m)^import (.*) from (".*");$`).ReplaceAllString(code, "const $1 = require($2);")
	if required == code {
		t.Fatal("README.md's example imports nothing")
	}
	for name, code := range map[string]string{"main.mjs": code, "main.cjs": required} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			main := filepath.Join(dir, name)
			if err := errors.Join(os.WriteFile(filepath.Join(dir, "torpor.cjs"), kit, 0o600), os.WriteFile(main, []byte(code), 0o600)); err != nil {
				t.Fatal(err)
			}
			live := start(t, main)
			live.must("PUT", "/tea", "three cups")
			source := live.source()
			capture, err := source.Capture(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer capture.Close()
			var native bytes.Buffer
			if err := capture.WriteNative(t.Context(), &native); err != nil {
				t.Fatal(err)
			}
			if got := native.String(); got != `{"tea":"\"three cups\""}` {
				t.Errorf("the state is %s", got)
			}
			if err := errors.Join(source.Reset(t.Context()), source.Restore(t.Context(), &native)); err != nil {
				t.Fatal(err)
			}
		})
	}
}
