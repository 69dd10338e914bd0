//go:build unix

package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/tests/need"
)

// torporYAML writes a configuration file and gives its path.
func torporYAML(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "torpor.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestSleepWakeSync: the commands, against the built-in service.
func TestSleepWakeSync(t *testing.T) {
	c := start(t, on(filepath.Join(t.TempDir(), "data"), "--save-strategy", "MANUAL"))
	listen := "--listen=" + strings.TrimPrefix(c.url, "http://")
	c.put("/bucket/key", "content")
	run := func(want int, words ...string) (out, errs string) {
		t.Helper()
		out, errs, code := torpor(t, nil, append(words, listen)...)
		if code != want {
			t.Fatalf("torpor %q: exit code %d, want %d\n%s%s", words, code, want, out, errs)
		}
		return out, errs
	}
	if out, _ := run(0, "sync", "s3"); out != "s3/store: generation 1\n" {
		t.Errorf("sync says %q", out)
	}
	if out, _ := run(0, "sync", "s3", "--json"); fields(t, out)["service"] != "s3" {
		t.Errorf("sync --json says %q", out)
	}
	if out, _ := run(0, "sleep", "s3"); out != "s3 is asleep\n" {
		t.Errorf("sleep says %q", out)
	}
	if out, _ := run(0, "health"); !strings.Contains(out, "asleep") {
		t.Errorf("health says %q", out)
	}
	if health := fields(t, c.do(http.MethodGet, "/_localstack/health", "").body); health["services"].(map[string]any)["s3"] != "available" {
		t.Errorf("LocalStack's health of a sleeping service: %v", health)
	}
	if got := c.do(http.MethodGet, "/bucket/key", ""); got.body != "content" {
		t.Errorf("the request that wakes it: %+v", got)
	}
	if out, _ := run(0, "wake", "s3"); out != "s3 is running\n" {
		t.Errorf("wake says %q", out)
	}
	if _, errs := run(5, "sleep", "sqs"); !strings.Contains(errs, `"sqs"`) || !strings.Contains(errs, "s3") {
		t.Errorf("of an unknown service: %q", errs)
	}
}

// TestStateThatIsHandedOver: a script puts a part's state, and finds it after kill -9.
func TestStateThatIsHandedOver(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "path %s", r.URL.Path) }))
	defer upstream.Close()
	config := torporYAML(t, `
services:
  notes:
    upstream: `+upstream.URL+`
    match: {path: [/notes], strip: true}
    parts:
      store: {serializer: json, source: {push: {media: application/json}}}
`)
	data := filepath.Join(t.TempDir(), "data")
	const state, text = "/_torpor/services/notes/parts/store/state", `{"a": [1, 2.50]}`
	c := start(t, on(data, "--config", config))
	if got := c.do(http.MethodGet, state, ""); got.status != http.StatusNoContent {
		t.Errorf("before: %+v", got)
	}
	if got := c.do(http.MethodPut, state, text); got.status != http.StatusNoContent {
		t.Fatalf("put: %+v", got)
	}
	if got := c.do(http.MethodPost, "/_torpor/services/notes/sync", ""); got.status != http.StatusOK || !strings.Contains(got.body, `"generation":1`) {
		t.Fatalf("sync: %+v", got)
	}
	if got := c.do(http.MethodGet, "/notes/x", ""); got.body != "path /x" {
		t.Errorf("through the gateway: %+v", got)
	}
	if got := c.do(http.MethodPost, "/_torpor/services/notes/sleep", ""); got.status != http.StatusConflict {
		t.Errorf("sleep of what somebody else runs: %+v", got)
	}
	c.kill()
	c = start(t, on(data, "--config", config))
	if got := c.do(http.MethodGet, state, ""); got.status != http.StatusOK || got.body != text {
		t.Errorf("after kill -9: %+v", got)
	}
	if got := c.do(http.MethodGet, "/_torpor/services/notes/parts/backend/state", ""); got.status != http.StatusNotFound {
		t.Errorf("of a part that there is not: %+v", got)
	}
}

// TestServiceWithoutPersistence: services are run and spoken to all the same.
func TestServiceWithoutPersistence(t *testing.T) {
	python := need.Program(t, "python3")
	config := torporYAML(t, `
services:
  web:
    run: {command: [`+python+`, -m, http.server, "{port}", --bind, 127.0.0.1, --directory, "{data}"]}
    match: {path: [/web], strip: true}
    parts: {assets: {serializer: files, source: {files: {root: "{data}"}}}}
`)
	c := start(t, options{args: []string{"--config", config, "--data", filepath.Join(t.TempDir(), "data")}}.with("PERSISTENCE=0"))
	if got := c.do(http.MethodGet, "/web/", ""); got.status != http.StatusOK || !strings.Contains(got.body, "Directory listing") {
		t.Errorf("answer: %+v", got)
	}
	if got := c.do(http.MethodPost, "/_torpor/services/web/sync", ""); got.status != http.StatusConflict {
		t.Errorf("sync: %+v", got)
	}
}

// TestInitScripts: the four stages, in order, and what they can do.
func TestInitScripts(t *testing.T) {
	need.Program(t, "curl")
	folder, data := t.TempDir(), filepath.Join(t.TempDir(), "data")
	seen := filepath.Join(folder, "seen")
	write := func(stage, name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(folder, stage), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, stage, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, stage := range []string{"boot", "start", "shutdown"} {
		write(stage+".d", "note.sh", "#!/bin/sh\necho "+stage+" >>"+seen+"\n")
	}
	write("ready.d", "1 bad.sh", "#!/bin/sh\nexit 3\n")
	write("ready.d", "2 seed.sh", "#!/bin/sh\nset -e\ncurl -sS -X PUT $URL/seeded\ncurl -sS -X PUT -d content $URL/seeded/key\necho ready >>"+seen+"\n")
	port := freePort(t)
	c := start(t, options{args: []string{"--data", data, "--init", folder, "--listen", "127.0.0.1:" + port}}.with("URL=http://127.0.0.1:"+port))
	eventually(t, "the scripts have run", func() bool {
		return fields(t, c.do(http.MethodGet, "/_localstack/init/ready", "").body)["completed"] == true
	})
	if got := c.do(http.MethodGet, "/_localstack/init", "").body; !strings.Contains(got, `"name":"2 seed.sh","state":"SUCCESSFUL"`) ||
		!strings.Contains(got, `"name":"1 bad.sh","state":"ERROR"`) || !strings.Contains(got, `"SHUTDOWN":false`) {
		t.Errorf("states: %s", got)
	}
	if got := c.do(http.MethodGet, "/seeded/key", ""); got.body != "content" {
		t.Errorf("what the script wrote: %+v", got)
	}
	c.stop()
	if b, err := os.ReadFile(seen); err != nil || string(b) != "boot\nstart\nready\nshutdown\n" {
		t.Errorf("order %q, %v", b, err)
	}
}
