//go:build linux

package examples

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/tests/examples/azure"
	"github.com/torpor-run/torpor/tests/need"
)

func TestJSONServer(t *testing.T) {
	t.Parallel()
	e := open(t, "json-server", installed(t, "json-server", "json-server"))
	e.round([]string{"posts"}, func() string {
		for n := range 5 {
			e.ask("POST", "/api/posts", fmt.Sprintf(`{"title":"post %d"}`, n), http.StatusCreated)
		}
		e.ask("DELETE", "/api/comments/1", "", http.StatusOK)
		e.ask("PUT", "/api/profile", `{"name":"Ada"}`, http.StatusOK)
		return `[json-server post 0 post 1 post 2 post 3 post 4] [] Ada`
	}, func() string {
		var all struct {
			Posts    []struct{ Title string }
			Comments []any
			Profile  struct{ Name string }
		}
		must(t, json.Unmarshal([]byte(e.ask("GET", "/api/db", "", http.StatusOK)), &all))
		var titles []string
		for _, p := range all.Posts {
			titles = append(titles, p.Title)
		}
		return fmt.Sprintf("%v %v %s", titles, all.Comments, all.Profile.Name)
	}, func() { e.ask("POST", "/api/posts", `{"title":"one more"}`, http.StatusCreated) })
	e.has("state/posts/db.json", "state/api_states/posts/store.state")
}

// TestTodo: the serializer is built and added as the README says.
func TestTodo(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	e := open(t, "todo", bin)
	run := func(env []string, args ...string) {
		t.Helper()
		cmd := exec.Command("go", args...)
		cmd.Dir, cmd.Env = "../..", append(os.Environ(), env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %q: %v\n%s", args, err, out)
		}
	}
	run(nil, "build", "-o", filepath.Join(bin, "todo"), "./examples/todo")
	run([]string{"GOOS=wasip1", "GOARCH=wasm"}, "build", "-buildmode=c-shared", "-o", filepath.Join(bin, "todo.wasm"), "./sdk/go/examples/todo")
	e.torpor("module", "add", filepath.Join(bin, "todo.wasm"))

	e.round([]string{"todo"}, func() string {
		for n := range 9 {
			e.ask("PUT", fmt.Sprintf("/tasks/%04d", n), fmt.Sprintf(`{"list":"home","title":"Task <%d>","owner":{"given":"Ada","family":"Lovelace"},"date":"2026-05-01","time":"18:00","priority":%d,"tags":["shop"]}`, n, n), http.StatusOK)
		}
		e.ask("DELETE", "/tasks/0003", "", http.StatusOK)
		return e.ask("GET", "/tasks", "", http.StatusOK)
	}, func() string { return e.ask("GET", "/tasks", "", http.StatusOK) },
		func() { e.ask("DELETE", "/tasks/0005", "", http.StatusOK) })
	e.has("state/todo/tasks.todo", "state/api_states/todo/store.state")
	if records := e.torpor("inspect", "--records", e.data+"/state/api_states/todo/store.state"); !strings.Contains(records, "0008") || strings.Contains(records, "0003") {
		t.Errorf("the records are not the tasks: %s", records)
	}

	// Saved with every answer: what was answered is there, though nobody has asked for a save.
	e.start()
	e.ask("PUT", "/tasks/last", `{"title":"The last one"}`, http.StatusOK)
	e.kill()
	e.forget("todo")
	e.start()
	if got := e.ask("GET", "/tasks/last", "", http.StatusOK); !strings.Contains(got, "The last one") {
		t.Error(got)
	}
}

// TestPython: objects of Python classes, pickled by account and region.
func TestPython(t *testing.T) {
	t.Parallel()
	need.Program(t, "python3")
	e := open(t, "python")
	e.round([]string{"inventory"}, func() string {
		for _, account := range []string{"000000000000", "111122223333"} {
			for _, region := range []string{"us-east-1", "eu-west-1"} {
				for n := range 3 {
					e.ask("PUT", fmt.Sprintf("/stock/%s/%s/items/sku-%d", account, region, n), fmt.Sprintf(`{"quantity":%d,"supplier":"acme"}`, n), http.StatusOK)
				}
			}
		}
		return e.ask("GET", "/stock/", "", http.StatusOK)
	}, func() string { return e.ask("GET", "/stock/", "", http.StatusOK) },
		func() { e.ask("DELETE", "/stock/000000000000/us-east-1/items/sku-1", "", http.StatusOK) })

	// One supplier in two items is one object again: what is said of it is seen at both.
	e.start()
	e.ask("PUT", "/stock/111122223333/eu-west-1/suppliers/acme", `{"phone":"555-0100"}`, http.StatusOK)
	if got := e.ask("GET", "/stock/111122223333/eu-west-1", "", http.StatusOK); strings.Count(got, "555-0100") != 3 {
		t.Errorf("the items have lost their supplier: %s", got)
	}
	e.has("state/api_states/inventory/backend.state")
	if records := e.torpor("inspect", "--records", e.data+"/state/api_states/inventory/backend.state"); !strings.Contains(records, "111122223333/eu-west-1") {
		t.Errorf("records have no account and region: %.2000s", records)
	}
}

// TestRedis: a service that is no HTTP, on a port of its own.
func TestRedis(t *testing.T) {
	t.Parallel()
	need.Program(t, "redis-server")
	cli := need.Program(t, "redis-cli")
	e := open(t, "redis")
	b, err := os.ReadFile(e.file)
	must(t, err)
	const given = "port: 6390"
	if !strings.Contains(string(b), given) {
		t.Fatalf("%s has no %q", e.file, given)
	}
	port := freePort(t)
	e.file = filepath.Join(t.TempDir(), "torpor.yaml")
	must(t, os.WriteFile(e.file, []byte(strings.Replace(string(b), given, "port: "+port, 1)), 0o600))

	redis := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(cli, append([]string{"-e", "-p", port}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("redis-cli %q: %v: %s", args, err, out)
		}
		return string(out)
	}
	now := func() string {
		return redis("GET", "greeting") + redis("HGETALL", "order") + redis("LRANGE", "queue", "0", "-1") + redis("FCALL", "answer", "0")
	}
	want := "hello\nid\n17\n1\n2\n3\n42\n"
	e.start()
	redis("SET", "greeting", "hello")
	redis("HSET", "order", "id", "17")
	redis("RPUSH", "queue", "1", "2", "3")
	redis("FUNCTION", "LOAD", "#!lua name=example\nredis.register_function('answer', function() return 42 end)")
	if got := now(); got != want {
		t.Fatalf("at first: %q", got)
	}
	same := func(when string) {
		t.Helper()
		if got := now(); got != want {
			t.Fatalf("%s: %q, want %q", when, got, want)
		}
	}
	e.sync("redis")
	e.kill()
	e.forget("redis")
	e.start()
	same("after kill -9")

	// It is put to sleep and woken by command, and what has changed is saved though nobody has said so.
	redis("DEL", "greeting")
	redis("SET", "greeting", "again")
	want = strings.Replace(want, "hello", "again", 1)
	e.ask("POST", "/_torpor/services/redis/sleep", "", http.StatusOK)
	e.sleeps("redis")
	e.ask("POST", "/_torpor/services/redis/wake", "", http.StatusOK)
	same("when it was woken")

	// So it is at the stop.
	redis("SET", "greeting", "stopped")
	want = strings.Replace(want, "again", "stopped", 1)
	e.stop()
	e.forget("redis")
	e.start()
	same("after a stop in order")
	e.has("state/api_states/redis/store.state")
}

// TestAzurite: blobs, which azurite has not on disk before five seconds have passed.
func TestAzurite(t *testing.T) {
	t.Parallel()
	e := open(t, "azurite", installed(t, "azurite", "azurite-blob"))
	blob := func(method, path, body string) string {
		t.Helper()
		said, err := azure.Do(t.Context(), e.url, method, path, body)
		must(t, err)
		return said
	}
	e.round([]string{"blobs"}, func() string {
		var want string
		blob("PUT", "/box", "")
		for n := range 5 {
			content := strings.Repeat(fmt.Sprint("content ", n, "\n"), 1000)
			blob("PUT", fmt.Sprint("/box/blob-", n), content)
			want += content
		}
		return want
	}, func() string {
		var got string
		for n := range 5 {
			got += blob("GET", fmt.Sprint("/box/blob-", n), "")
		}
		return got
	}, func() { blob("PUT", "/box/blob-2", "another") })
	e.has("state/blobs/__azurite_db_blob__.json", "state/api_states/blobs/store.state")
}
