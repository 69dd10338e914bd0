package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/torpor-run/torpor/runtime/remote/folder"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
	"github.com/torpor-run/torpor/runtime/vfs"
	"github.com/torpor-run/torpor/server"
)

// What LocalStack's clients send and read is tested against the whole program, in tests/localstack. Here is what a
// program would have to be broken for, or configured otherwise.

// loads checks the completion of a call about a named snapshot.
func (a answer) completes(t *testing.T, want string) {
	t.Helper()
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/x-ndjson" || !strings.Contains(a.body, `{"event":"completion",`+want) {
		t.Errorf("answer %d %s, want a completion with %s", a.status, a.body, want)
	}
}

func TestPodsWithoutAPlaceForThem(t *testing.T) {
	l, _ := beginNative(t, vfs.NewMem(), func(c *server.Config) { c.Snapshots = nil })
	l.put(t, "/a", "1")
	for _, call := range [][2]string{
		{http.MethodGet, ""}, {http.MethodPost, "/base"}, {http.MethodPut, "/base"}, {http.MethodDelete, "/base"}, {http.MethodGet, "/base/versions"}, {http.MethodGet, "/base/diff"},
	} {
		l.do(t, call[0], "/_localstack/pods"+call[1], "{}").fault(t, http.StatusConflict, "snapshots_disabled")
	}
	l.do(t, http.MethodGet, "/_localstack/platform/v1/cloudpods", "").fault(t, http.StatusConflict, "snapshots_disabled")
	if a := l.do(t, http.MethodGet, "/_localstack/pods/state", ""); a.status != http.StatusOK {
		t.Errorf("an export needs no such place, and was answered with %d %s", a.status, a.body)
	}
}

func TestPodBodies(t *testing.T) {
	l, _ := beginNative(t, vfs.NewMem(), func(c *server.Config) { c.MaxUpload = 100 })
	l.put(t, "/a", "1")
	const path = "/_localstack/pods"
	l.do(t, http.MethodPost, path, strings.Repeat("x", 101)).fault(t, http.StatusRequestEntityTooLarge, "too_large")
	l.do(t, http.MethodPost, path, strings.Repeat("x", 100)).fault(t, http.StatusUnprocessableEntity, "incompatible")
	l.do(t, http.MethodPost, path, "").fault(t, http.StatusBadRequest, "bad_request")
	l.do(t, http.MethodPost, path, "--x", "Content-Type", "multipart/form-data; boundary=x").fault(t, http.StatusBadRequest, "bad_request")
	l.do(t, http.MethodPost, path, "x", "Content-Type", "multipart/form-data").fault(t, http.StatusBadRequest, "bad_request")
	for _, call := range [][2]string{{http.MethodGet, ""}, {http.MethodPost, "/base"}, {http.MethodPut, "/base"}, {http.MethodDelete, "/base"}, {http.MethodGet, "/base/versions"}, {http.MethodGet, "/base/diff"}, {http.MethodPost, "/remotes/r"}} {
		l.do(t, call[0], path+call[1], "[]").fault(t, http.StatusBadRequest, "bad_request")
		l.do(t, call[0], path+call[1], `"`+strings.Repeat("x", 1<<20)+`"`).fault(t, http.StatusRequestEntityTooLarge, "too_large")
	}
	l.do(t, http.MethodGet, path+"/state?pod_name=a/b", "").fault(t, http.StatusBadRequest, "bad_request")
	l.do(t, http.MethodGet, "/_localstack/platform/v1/cloudpods/-", "").fault(t, http.StatusBadRequest, "bad_request")
	l.do(t, http.MethodPost, "/_localstack/state/notes/load", strings.Repeat(" ", 1<<20+1)).lineOf(t, http.StatusRequestEntityTooLarge)
	l.do(t, http.MethodPost, "/_localstack/state/load", "[]").fault(t, http.StatusBadRequest, "bad_request")
}

// lineOf checks an answer of one line that is an error.
func (a answer) lineOf(t *testing.T, status int) {
	t.Helper()
	var got struct{ Service, Status, Message string }
	if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != status || got.Status != "error" || got.Message == "" {
		t.Errorf("answer %d %s (%v), want %d and an error", a.status, a.body, err, status)
	}
}

func TestPodDryRunChangesNothing(t *testing.T) {
	l, _ := beginNative(t, vfs.NewMem(), nil)
	l.put(t, "/a", "1")
	l.do(t, http.MethodPost, "/_localstack/pods/base", "{}").completes(t, `"operation":"save","status":"ok"`)
	l.put(t, "/a", "2")
	l.do(t, http.MethodPut, "/_localstack/pods/base?dry_run=true", "{}").completes(t, `"operation":"load","status":"ok"`)
	l.do(t, http.MethodGet, "/a", "").wants(t, http.StatusOK, "2")
	l.do(t, http.MethodPut, "/_localstack/pods/base?dry_run=maybe", "{}").fault(t, http.StatusBadRequest, "bad_request")
	l.do(t, http.MethodPut, "/_localstack/pods/base", "{}").completes(t, `"operation":"load","status":"ok"`)
	l.do(t, http.MethodGet, "/a", "").wants(t, http.StatusOK, "1")
}

func TestPodFailuresHaveTheirOwnStatus(t *testing.T) {
	l, _ := beginNative(t, vfs.NewMem(), nil)
	l.put(t, "/a", "1")
	l.do(t, http.MethodPost, "/_localstack/pods/base", "{}").completes(t, `"operation":"save","status":"ok"`)
	broken := errors.New("the service is broken")
	l.notes.fail(broken, nil)
	for _, call := range [][2]string{
		{http.MethodPost, "/pods/base"}, {http.MethodPut, "/pods/base"}, {http.MethodGet, "/pods/base/diff"}, {http.MethodGet, "/pods/state"}, {http.MethodGet, "/pods/state/metamodel"},
	} {
		if message, _ := l.do(t, call[0], "/_localstack"+call[1], "").fault(t, http.StatusInternalServerError, "internal"); !strings.Contains(message, broken.Error()) {
			t.Errorf("%s: %s", call, message)
		}
	}
	l.notes.fail(nil, broken)
	l.put(t, "/a", "2")
	l.do(t, http.MethodPut, "/_localstack/pods/base", "").fault(t, http.StatusInternalServerError, "internal")
	l.notes.fail(nil, nil)
	l.do(t, http.MethodPut, "/_localstack/pods/base", "").completes(t, `"operation":"load","status":"ok"`)
}

// TestPodDiffByStrategy: what only the live state has is removed as the strategy removes it.
func TestPodDiffByStrategy(t *testing.T) {
	l, _ := beginNative(t, vfs.NewMem(), nil)
	l.put(t, "/a", "1", "/b", "1")
	l.do(t, http.MethodPost, "/_localstack/pods/base", `{"attributes":{"services":["notes"]}}`).completes(t, `"operation":"save","status":"ok"`)
	l.do(t, http.MethodPost, "/_localstack/state/notes/reset", "")
	l.put(t, "/a", "2", "/c", "1")
	const changes = `{"operation_type":"MODIFICATION","account_id":"","region_name":"","part":"store","key":"/a"},{"operation_type":"ADDITION","account_id":"","region_name":"","part":"store","key":"/b"}`
	const removal = `,{"operation_type":"DELETION","account_id":"","region_name":"","part":"store","key":"/c"}`
	for strategy, want := range map[string]string{"": changes + removal, "account-region-merge": changes + removal, "overwrite": changes + removal, "service-merge": changes} {
		l.do(t, http.MethodGet, "/_localstack/pods/base/diff?merge="+strategy, "").wants(t, http.StatusOK, `{"notes":[`+want+"]}\n")
	}
	l.do(t, http.MethodGet, "/_localstack/pods/base/diff?merge=mixed", "").fault(t, http.StatusBadRequest, "bad_request")
	l.do(t, http.MethodPut, "/_localstack/pods/base", "")
	l.do(t, http.MethodGet, "/_localstack/pods/base/diff", "").wants(t, http.StatusOK, "{}\n")
}

// TestPodsOnARemote: the credentials of a call reach whoever opens the remote, and nobody else.
func TestPodsOnARemote(t *testing.T) {
	far := vfs.NewMem()
	var url string
	var params map[string]string
	l, _ := beginNative(t, vfs.NewMem(), func(c *server.Config) {
		c.Remotes = func(_ context.Context, name, u string, p map[string]string) (repository.Remote, error) {
			if url, params = u, p; p["key"] != "secret" {
				return nil, errors.New(name + " does not know you")
			}
			return folder.Open(far), nil
		}
	})
	l.put(t, "/a", "1")
	l.do(t, http.MethodPost, "/_localstack/pods/remotes/far", `{"remote_url":"s3://far?key={key}"}`).wants(t, http.StatusOK, `{"name":"far","protocols":[],"remote_url":"s3://far?key={key}"}`+"\n")
	const body = `{"remote":{"remote_name":"far","remote_params":{"key":"secret"}}}`
	l.do(t, http.MethodPost, "/_localstack/pods/base", body).completes(t, `"operation":"save","status":"ok"`)
	if url != "s3://far?key={key}" || !maps.Equal(params, map[string]string{"key": "secret"}) {
		t.Errorf("the remote was opened with %s and %v", url, params)
	}
	if a := l.do(t, http.MethodGet, "/_localstack/pods", body); !strings.Contains(a.body, `"pod_name":"base","max_version":1,`) {
		t.Errorf("there are %s", a.body)
	}
	l.do(t, http.MethodGet, "/_localstack/pods", "").wants(t, http.StatusOK, `{"cloudpods":[]}`+"\n")
	l.put(t, "/a", "2")
	l.do(t, http.MethodPut, "/_localstack/pods/base", body).completes(t, `"operation":"load","status":"ok"`)
	l.do(t, http.MethodGet, "/a", "").wants(t, http.StatusOK, "1")
	l.do(t, http.MethodDelete, "/_localstack/pods/base", body).wants(t, http.StatusOK, `{"pod_name":"base"}`+"\n")
	l.do(t, http.MethodGet, "/_localstack/pods", body).wants(t, http.StatusOK, `{"cloudpods":[]}`+"\n")
	l.do(t, http.MethodGet, "/_localstack/pods", `{"remote":{"remote_name":"far"}}`).fault(t, http.StatusBadRequest, "bad_request")
}

// names of the files there are.
func names(t *testing.T, fsys vfs.FS) (all []string) {
	t.Helper()
	entries, err := fsys.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name)
	}
	return all
}

func TestRemotesAreKept(t *testing.T) {
	kept := vfs.NewMem()
	again := func() *life {
		l, _ := beginNative(t, vfs.NewMem(), func(c *server.Config) { c.Kept = kept })
		return l
	}
	const path = "/_localstack/pods/remotes"
	l := again()
	for _, name := range []string{"b", "a", "c"} {
		l.do(t, http.MethodPost, path+"/"+name, `{"protocols":["s3"],"remote_url":"s3://`+name+`"}`)
	}
	l.do(t, http.MethodDelete, path+"/c", "")
	const two = `{"remotes":[{"name":"a","protocols":["s3"],"remote_url":"s3://a"},{"name":"b","protocols":["s3"],"remote_url":"s3://b"}]}` + "\n"
	again().do(t, http.MethodGet, path, "").wants(t, http.StatusOK, two)
	if got := fmt.Sprint(names(t, kept)); got != "["+server.RemotesFile+"]" {
		t.Errorf("there are %s", got)
	}

	// A disk that fails, at whatever it does: what is told is what is kept.
	faulty := vfs.Faulty(kept, vfs.Fault{})
	l, _ = beginNative(t, vfs.NewMem(), func(c *server.Config) { c.Kept = faulty })
	failures := 0
	for at := 1; ; at++ {
		faulty.Inject(vfs.Fault{At: at, Err: syscall.EIO})
		a := l.do(t, http.MethodPost, path+"/d", `{"remote_url":"s3://d"}`)
		fired := faulty.Fired()
		faulty.Inject(vfs.Fault{})
		again().do(t, http.MethodGet, path, "").wants(t, http.StatusOK, l.do(t, http.MethodGet, path, "").body)
		if !fired {
			break
		}
		if a.status != http.StatusOK {
			failures++
		}
		l.do(t, http.MethodDelete, path+"/d", "")
		l.do(t, http.MethodGet, path, "").wants(t, http.StatusOK, two)
	}
	if failures < 4 {
		t.Errorf("%d calls failed", failures)
	}

	// A file that cannot be read is kept aside.
	for _, text := range []string{"{", `[{"name":"a","remote_url":"s3://user:secret@a"}]`, `"` + strings.Repeat("x", 8<<20) + `"`} {
		if err := kept.Remove(server.RemotesFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		f, err := kept.OpenFile(server.RemotesFile, vfs.Create)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(f, text); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		again().do(t, http.MethodGet, path, "").wants(t, http.StatusOK, `{"remotes":[]}`+"\n")
		if got := fmt.Sprint(names(t, kept)); got != "["+server.RemotesFile+".damaged]" {
			t.Errorf("there are %s", got)
		}
	}
}

func TestRemotesHaveLimits(t *testing.T) {
	l, _ := beginNative(t, vfs.NewMem(), nil)
	const path = "/_localstack/pods/remotes/"
	l.do(t, http.MethodPost, path+"long", `{"remote_url":"s3://`+strings.Repeat("x", server.MaxRemoteURLBytes)+`"}`).fault(t, http.StatusRequestEntityTooLarge, "too_large")
	l.do(t, http.MethodPost, path+"wide", `{"remote_url":"s3://b","protocols":[`+strings.Repeat(`"s3",`, 16)+`"s3"]}`).fault(t, http.StatusBadRequest, "bad_request")
	l.do(t, http.MethodPost, path+"-", `{"remote_url":"s3://b"}`).fault(t, http.StatusBadRequest, "bad_request")
	for i := range server.MaxRemotes {
		if a := l.do(t, http.MethodPost, fmt.Sprint(path, i), `{"remote_url":"s3://b"}`); a.status != http.StatusOK {
			t.Fatalf("remote %d: %d %s", i, a.status, a.body)
		}
	}
	l.do(t, http.MethodPost, path+"more", `{"remote_url":"s3://b"}`).fault(t, http.StatusRequestEntityTooLarge, "too_large")
	l.do(t, http.MethodPost, path+"7", `{"remote_url":"s3://c"}`).wants(t, http.StatusOK, `{"name":"7","protocols":[],"remote_url":"s3://c"}`+"\n")
}

// TestResourcesInLines: no line is longer than a client may read.
func TestResourcesInLines(t *testing.T) {
	l, _ := beginNative(t, vfs.NewMem(), func(c *server.Config) {
		c.Resources = map[string]server.Resource{"notes": func(key []byte) (string, string, bool) {
			name, ok := strings.CutPrefix(string(key), "/n")
			return "Torpor::Notes::Note", name, ok
		}}
	})
	const many = 2500
	for i := range many {
		l.notes.mu.Lock()
		l.notes.texts[fmt.Sprintf("/n%d", i)] = ""
		l.notes.mu.Unlock()
	}
	l.put(t, "/other", "")
	seen := map[string]bool{}
	for _, line := range linesOf[map[string][]struct{ ID string }](t, l.do(t, http.MethodGet, "/_localstack/resources", "")) {
		list := line["Torpor::Notes::Note"]
		if len(list) == 0 || len(list) > 1000 {
			t.Errorf("a line has %d", len(list))
		}
		for _, r := range list {
			seen[r.ID] = true
		}
	}
	if len(seen) != many {
		t.Errorf("%d were told of, want %d", len(seen), many)
	}
	l.notes.fail(errors.New("broken"), nil)
	l.do(t, http.MethodGet, "/_localstack/resources", "").fault(t, http.StatusInternalServerError, "internal")
}

func TestHealthActions(t *testing.T) {
	var did []string
	l, _ := beginNative(t, vfs.NewMem(), func(c *server.Config) {
		c.Restart = func() error {
			did = append(did, "restart")
			return nil
		}
	})
	const path = "/_localstack/health"
	l.do(t, http.MethodPost, path, `{"action":"restart"}`).wants(t, http.StatusOK, "ok")
	l.do(t, http.MethodPost, path, `{"action":"kill"}`).fault(t, http.StatusNotImplemented, "not_implemented")
	l.do(t, http.MethodPost, path, `{"action":"sleep"}`).fault(t, http.StatusBadRequest, "bad_request")
	l.do(t, http.MethodPost, path, ``).fault(t, http.StatusBadRequest, "bad_request")
	if fmt.Sprint(did) != "[restart]" {
		t.Errorf("done were %q", did)
	}
}

func TestMaxUploadIsChecked(t *testing.T) {
	if _, err := server.New(server.Config{MaxUpload: -1}); err == nil {
		t.Error("a negative limit was taken")
	}
}
