package server_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/runtime/hooks"
	"github.com/torpor-run/torpor/server"
)

type initState []hooks.StageState

func (s initState) State() []hooks.StageState { return s }

var (
	_ server.InitState = (*hooks.Hooks)(nil)
	_ server.InitState = initState(nil)
)

// TestInit holds the answers against LocalStack's: the first is what its own test of shutdown hooks,
// tests/bootstrap/test_init.py, wants while the second of two runs.
func TestInit(t *testing.T) {
	h := server.Init(initState{
		{Stage: hooks.Boot, Completed: true},
		{Stage: hooks.Start, Completed: true},
		{Stage: hooks.Ready, Completed: true},
		{Stage: hooks.Shutdown, Scripts: []hooks.Script{
			{Name: "on_shutdown_00.sh", Path: "shutdown.d/on_shutdown_00.sh", State: hooks.Successful},
			{Name: "on_shutdown_01.sh", Path: "shutdown.d/deep/on_shutdown_01.sh", State: hooks.Running}}},
	})
	const scripts = `"scripts": [{"name": "on_shutdown_00.sh", "stage": "SHUTDOWN", "state": "SUCCESSFUL"},
		{"name": "on_shutdown_01.sh", "stage": "SHUTDOWN", "state": "RUNNING"}]`
	for _, c := range []struct {
		method, path string
		status       int
		want         string // as JSON; "" is for an error, and no body
	}{
		{"GET", "/_localstack/init", 200, `{"completed": {"BOOT": true, "READY": true, "SHUTDOWN": false, "START": true}, ` + scripts + `}`},
		{"GET", "/_localstack/init/shutdown", 200, `{"completed": false, ` + scripts + `}`},
		{"GET", "/_localstack/init/SHUTDOWN", 200, `{"completed": false, ` + scripts + `}`},
		{"GET", "/_localstack/init/Ready", 200, `{"completed": true, "scripts": []}`},
		{"HEAD", "/_localstack/init", 200, ""},
		{"GET", "/_localstack/init/", 404, ""},
		{"GET", "/_localstack/init/ready/", 404, ""},
		{"GET", "/_localstack/init/ready.d", 404, ""},
		{"GET", "/_localstack/init/sleep", 404, ""},
		{"POST", "/_localstack/init", 405, ""},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.path, nil))
		if w.Code != c.status || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: %d %v", c.method, c.path, w.Code, w.Header())
		}
		if c.want == "" {
			if c.status != http.StatusOK && !strings.Contains(w.Body.String(), `"error":{"code":"`) {
				t.Errorf("%s %s: %s", c.method, c.path, w.Body)
			}
			continue
		}
		var got, want any
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatalf("%s: %v", c.path, err)
		}
		if err := json.Unmarshal([]byte(c.want), &want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s %s: %s, want %s", c.method, c.path, w.Body, c.want)
		}
	}
}
