package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/vfs"
	"github.com/torpor-run/torpor/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// life is a server over one or two services of notes, and a file system that outlives it.
type life struct {
	*httptest.Server
	runtime *runtime.Runtime
	notes   *notes
	more    *notes // a second service
	served  *served
	dir     *statedir.Dir
	change  func(*server.Config) // may alter the server's configuration; set by begin's change
}

func handlerOf(t *testing.T, cfg server.Config) http.Handler {
	t.Helper()
	h, err := server.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return documented(t, h)
}

// served keeps what the server told of requests.
type served struct {
	mu   sync.Mutex
	seen []string
}

func (s *served) RequestServed(service string, status int, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d < 0 {
		service += " in negative time"
	}
	s.seen = append(s.seen, fmt.Sprint(service, " ", status))
}

func (s *served) last() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.seen) == 0 {
		return ""
	}
	return s.seen[len(s.seen)-1]
}

// begin starts a life; fsys nil is without persistence, change may alter the configuration.
func begin(t *testing.T, fsys vfs.FS, change func(*life, *runtime.Config)) *life {
	t.Helper()
	l := &life{notes: newNotes(), more: newNotes(), served: &served{}}
	logger := slog.New(slog.DiscardHandler)
	service := func(name string, n *notes) runtime.ServiceConfig {
		return runtime.ServiceConfig{Name: name, Save: runtime.SaveManual, Parts: []runtime.PartConfig{
			{Name: "store", Serializer: records{}, Source: n, Dirty: &n.dirty}}}
	}
	cfg := runtime.Config{Logger: logger, Services: []runtime.ServiceConfig{service("notes", l.notes), service("more", l.more)}}
	if fsys != nil {
		var err error
		if l.dir, err = statedir.Open(fsys, statedir.Options{Logger: logger}); err != nil {
			t.Fatal(err)
		}
		cfg.Dir = l.dir
	}
	if change != nil {
		change(l, &cfg)
	}
	rt, err := runtime.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := rt.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	l.runtime = rt
	config := server.Config{Runtime: rt, Default: "notes",
		Backends: map[string]server.Backend{"notes": {Handler: l.notes}, "more": {Handler: l.more}},
		Metrics:  http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "metrics of "+r.Method) }),
		Observer: l.served, Logger: logger, Version: "1.2.3", Session: "session", Started: time.Now().Add(-time.Hour)}
	if l.change != nil {
		l.change(&config)
	}
	l.Server = httptest.NewServer(handlerOf(t, config))
	return l
}

func (l *life) end(t *testing.T) {
	t.Helper()
	l.Close()
	if err := l.runtime.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if l.dir != nil {
		if err := l.dir.Close(); err != nil {
			t.Error(err)
		}
	}
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// do sends a request as it is written: the path is not cleaned.
func (l *life) do(t *testing.T, method, path, body string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequest(method, l.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := l.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

// wants checks status and body.
func (a answer) wants(t *testing.T, status int, body string) {
	t.Helper()
	if a.status != status || a.body != body {
		t.Errorf("answer %d %q, want %d %q", a.status, a.body, status, body)
	}
}

// fault checks an answer of Torpor's own making and gives its error.
func (a answer) fault(t *testing.T, status int, code string) (message, hint string) {
	t.Helper()
	var b struct {
		Error struct{ Code, Message, Hint string }
	}
	if err := json.Unmarshal([]byte(a.body), &b); err != nil {
		t.Fatalf("%v in %q", err, a.body)
	}
	if a.status != status || b.Error.Code != code || a.header.Get("Content-Type") != "application/json" || b.Error.Message == "" {
		t.Errorf("answer %d %q %s, want %d with code %s", a.status, a.header.Get("Content-Type"), a.body, status, code)
	}
	return b.Error.Message, b.Error.Hint
}

func (l *life) health(t *testing.T) (int, server.Health) {
	t.Helper()
	a := l.do(t, http.MethodGet, "/_torpor/health", "")
	var h server.Health
	if err := json.Unmarshal([]byte(a.body), &h); err != nil {
		t.Fatalf("%v in %q", err, a.body)
	}
	return a.status, h
}

// TestPathsReachTheBackendAsTheyCame: to an object store "a//b" and "a/../b" are names.
func TestPathsReachTheBackendAsTheyCame(t *testing.T) {
	l := begin(t, vfs.NewMem(), nil)
	defer l.end(t)
	for _, path := range []string{"/", "//", "/bucket/a//b", "//bucket", "/bucket/a%2Fb", "/bucket/../x", "/bucket/./x", "/bucket/%2e%2e/x",
		"/bucket/a%20b", "/bucket/a+b", "/bucket/%C3%A9%E2%82%AC", "/bucket/%00", "/bucket/a%252Fb", "/bucket/", "/metrics/", "/metrics/key",
		"/metrics//", "//metrics", "/_torporx", "/_localstack-bucket/key", "/_/health", "/bucket/_torpor/health", "/bucket?list-type=2&prefix=a%2Fb"} {
		var got string
		l.notes.serve = func(w http.ResponseWriter, r *http.Request) { got = r.RequestURI + " " + r.URL.RequestURI() }
		if a := l.do(t, http.MethodPost, path, ""); a.status != http.StatusOK {
			t.Errorf("%s was answered with %d %s", path, a.status, a.body)
		}
		if got != path+" "+path {
			t.Errorf("%s reached the backend as %q", path, got)
		}
	}
}

func TestRequestsAndAnswersPassWhole(t *testing.T) {
	l := begin(t, vfs.NewMem(), nil)
	defer l.end(t)
	payload := strings.Repeat("0123456789abcdef", 1<<16)
	l.do(t, http.MethodPut, "/a", payload).wants(t, http.StatusOK, "")
	l.do(t, http.MethodGet, "/a", "").wants(t, http.StatusOK, payload)
	if got := l.served.last(); got != "notes 200" {
		t.Errorf("the observer was told %q", got)
	}
	l.do(t, http.MethodGet, "/b", "").wants(t, http.StatusNotFound, "no note /b\n")
	if got := l.served.last(); got != "notes 404" {
		t.Errorf("the observer was told %q", got)
	}

	// Answers stream: the client reads the beginning while the service still works on the end.
	read := make(chan struct{})
	l.notes.serve = func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "beginning")
		w.(http.Flusher).Flush()
		<-read
		io.WriteString(w, " and end")
	}
	resp, err := l.Client().Get(l.URL + "/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	begun := make([]byte, len("beginning"))
	if _, err := io.ReadFull(resp.Body, begun); err != nil {
		t.Fatal(err)
	}
	close(read)
	rest, err := io.ReadAll(resp.Body)
	if err != nil || string(begun)+string(rest) != "beginning and end" {
		t.Errorf("%q, then %q, %v", begun, rest, err)
	}
}

func TestMetricsIsAlsoABucket(t *testing.T) {
	l := begin(t, vfs.NewMem(), nil)
	defer l.end(t)
	const signed = "AWS4-HMAC-SHA256 Credential=test/20260401/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
	l.do(t, http.MethodGet, "/metrics", "").wants(t, http.StatusOK, "metrics of GET")
	if a := l.do(t, http.MethodHead, "/metrics", ""); a.status != http.StatusOK {
		t.Errorf("HEAD: %d", a.status)
	}
	l.do(t, http.MethodGet, "/metrics?name[]=torpor_build_info", "").wants(t, http.StatusOK, "metrics of GET")
	l.do(t, http.MethodPut, "/metrics", "bucket").wants(t, http.StatusOK, "")
	l.do(t, http.MethodGet, "/metrics", "", "Authorization", signed).wants(t, http.StatusOK, "bucket")
	l.do(t, http.MethodGet, "/metrics?X-Amz-Signature=0", "").wants(t, http.StatusOK, "bucket")
	l.do(t, http.MethodGet, "/metrics", "", "Authorization", "Bearer of-a-scraper").wants(t, http.StatusOK, "metrics of GET")
}

func TestStateCallsOfAllServices(t *testing.T) {
	fsys := vfs.NewMem()
	l := begin(t, fsys, nil)
	l.do(t, http.MethodPut, "/a", "1")
	a := l.do(t, http.MethodPost, "/_localstack/state/save", "")
	a.wants(t, http.StatusOK, `{"service":"notes","status":"ok"}`+"\n"+`{"service":"more","status":"ok"}`+"\n")
	if got := a.header.Get("Content-Type"); got != "application/x-ndjson" {
		t.Errorf("content type %s", got)
	}
	l.end(t)

	l = begin(t, fsys, nil)
	defer l.end(t)
	l.do(t, http.MethodGet, "/a", "").wants(t, http.StatusOK, "1")
	l.do(t, http.MethodPut, "/a", "2")
	l.do(t, http.MethodPost, "/_localstack/state/load", "").wants(t, http.StatusOK,
		`{"service":"notes","status":"ok"}`+"\n"+`{"service":"more","status":"ok"}`+"\n")
	l.do(t, http.MethodGet, "/a", "").wants(t, http.StatusOK, "1")
	l.do(t, http.MethodPost, "/_localstack/state/reset", "").wants(t, http.StatusOK,
		`{"service":"notes","status":"ok"}`+"\n"+`{"service":"more","status":"ok"}`+"\n")
	if a := l.do(t, http.MethodGet, "/a", ""); a.status != http.StatusNotFound {
		t.Errorf("after the reset: %d %s", a.status, a.body)
	}

	// One that fails does not keep the others, and its line says so.
	l.notes.fail(errors.New("boom"), nil)
	l.do(t, http.MethodPut, "/a", "3")
	a = l.do(t, http.MethodPost, "/_localstack/state/save", "")
	lines := strings.Split(a.body, "\n")
	if a.status != http.StatusOK || len(lines) != 3 || !strings.Contains(lines[0], `"service":"notes","status":"error","message":"`) ||
		!strings.Contains(lines[0], "boom") || lines[1] != `{"service":"more","status":"ok"}` {
		t.Errorf("answer %d %s", a.status, a.body)
	}
}

func TestStateCallsOfOneService(t *testing.T) {
	l := begin(t, vfs.NewMem(), nil)
	defer l.end(t)
	l.do(t, http.MethodPost, "/_localstack/state/notes/load", "").wants(t, http.StatusOK,
		`{"service":"notes","status":"ok","message":"nothing is saved; the live state stays as it is"}`+"\n")
	l.do(t, http.MethodPut, "/a", "1")
	l.do(t, http.MethodPost, "/_localstack/state/notes/save", "").wants(t, http.StatusOK, `{"service":"notes","status":"ok"}`+"\n")
	if _, h := l.health(t); h.Services[0].Parts[0].Generation != 1 || h.Services[1].Parts[0].Generation != 0 {
		t.Errorf("saving one service: %+v", h)
	}
	l.notes.fail(errors.New("boom"), nil)
	l.do(t, http.MethodPut, "/a", "2")
	if a := l.do(t, http.MethodPost, "/_localstack/state/notes/save", ""); a.status != http.StatusInternalServerError ||
		!strings.Contains(a.body, `"status":"error"`) || !strings.Contains(a.body, "boom") {
		t.Errorf("a save that fails: %d %s", a.status, a.body)
	}
	l.notes.fail(nil, nil)
	for _, action := range []string{"save", "load", "reset"} {
		a := l.do(t, http.MethodPost, "/_localstack/state/nothing/"+action, "")
		if a.status != http.StatusNotFound || !strings.Contains(a.body, `{"service":"nothing","status":"error"`) ||
			!strings.Contains(a.body, "notes") || !strings.Contains(a.body, "more") || a.header.Get("Content-Type") != "application/x-ndjson" {
			t.Errorf("%s of an unknown service: %d %s", action, a.status, a.body)
		}
	}
}

func TestStateCallsWithoutPersistence(t *testing.T) {
	l := begin(t, nil, nil)
	defer l.end(t)
	l.do(t, http.MethodPut, "/a", "1").wants(t, http.StatusOK, "")
	for _, action := range []string{"save", "load"} {
		if a := l.do(t, http.MethodPost, "/_localstack/state/notes/"+action, ""); a.status != http.StatusInternalServerError || !strings.Contains(a.body, "PERSISTENCE=0") {
			t.Errorf("%s: %d %s", action, a.status, a.body)
		}
	}
	l.do(t, http.MethodPost, "/_localstack/state/notes/reset", "").wants(t, http.StatusOK, `{"service":"notes","status":"ok"}`+"\n")
	if a := l.do(t, http.MethodGet, "/a", ""); a.status != http.StatusNotFound {
		t.Errorf("after the reset: %d %s", a.status, a.body)
	}
	if _, h := l.health(t); h.Features["persistence"] != "disabled" {
		t.Errorf("health %+v", h)
	}
	if a := l.do(t, http.MethodGet, "/_localstack/health", ""); !strings.Contains(a.body, `"features":{"persistence":"disabled"}`) {
		t.Errorf("LocalStack's health: %s", a.body)
	}
}

func TestForeignPagesAreRefused(t *testing.T) {
	l := begin(t, vfs.NewMem(), nil)
	defer l.end(t)
	l.do(t, http.MethodPut, "/a", "1")
	for _, path := range []string{"/_localstack/state/reset", "/_localstack/state/notes/reset"} {
		for _, origin := range []string{"https://example.com", "null", "http://127.0.0.1:1", l.URL + ".example.com", "https://" + l.Listener.Addr().String() + "@evil", "::"} {
			message, _ := l.do(t, http.MethodPost, path, "", "Origin", origin).fault(t, http.StatusForbidden, "foreign_origin")
			if !strings.Contains(message, origin) {
				t.Errorf("the refusal does not name %s: %s", origin, message)
			}
		}
		l.do(t, http.MethodGet, "/a", "").wants(t, http.StatusOK, "1")
	}
	if a := l.do(t, http.MethodPost, "/_localstack/state/notes/reset", "", "Origin", l.URL); a.status != http.StatusOK {
		t.Errorf("a page of our own: %d %s", a.status, a.body)
	}
}

func TestUnknownRoutes(t *testing.T) {
	l := begin(t, vfs.NewMem(), nil)
	defer l.end(t)
	for _, path := range []string{"/_localstack", "/_localstack/", "/_torpor", "/_torpor/", "/_torpor/nothing", "/_localstack/state", "/_localstack/state/notes/burn"} {
		message, hint := l.do(t, http.MethodGet, path, "").fault(t, http.StatusNotFound, "not_found")
		if !strings.Contains(message, "GET "+path) || hint == "" {
			t.Errorf("%s: message %q, hint %q", path, message, hint)
		}
	}
	for method, path := range map[string]string{http.MethodGet: "/_localstack/state/save", http.MethodDelete: "/_torpor/health"} {
		a := l.do(t, method, path, "")
		a.fault(t, http.StatusMethodNotAllowed, "method_not_allowed")
		if a.header.Get("Allow") == "" {
			t.Errorf("%s %s: the answer does not say which methods are allowed", method, path)
		}
	}
	if got := l.served.last(); got != "" {
		t.Errorf("a service was asked: %s", got)
	}
}

func TestHealthTellsOfParts(t *testing.T) {
	l := begin(t, vfs.NewMem(), nil)
	defer l.end(t)
	status, h := l.health(t)
	if p := h.Services[0].Parts[0]; status != http.StatusOK || h.Status != "ok" || h.Version != "1.2.3" || h.Features["persistence"] != "initialized" ||
		h.Services[0].Name != "notes" || h.Services[0].Status != "available" || p.Name != "store" || p.Status != "empty" || p.LastGoodSave != nil || p.Serializer != "records 1" {
		t.Errorf("at the beginning: %d %+v", status, h)
	}
	l.do(t, http.MethodPut, "/a", "1")
	if _, h := l.health(t); h.Services[0].Status != "running" || h.Services[0].Parts[0].Status != "dirty" || h.Services[0].Parts[0].DirtySeconds <= 0 {
		t.Errorf("with a change: %+v", h)
	}
	l.do(t, http.MethodPost, "/_localstack/state/notes/save", "")
	if _, h := l.health(t); h.Services[0].Parts[0].Status != "saved" || h.Services[0].Parts[0].DirtySeconds != 0 || h.Services[0].Parts[0].LastGoodSave == nil ||
		h.Services[0].Parts[0].Records != 1 || h.Services[0].Parts[0].Bytes == 0 || h.Services[0].Parts[0].FileBytes == 0 {
		t.Errorf("after a save: %+v", h)
	}
	l.do(t, http.MethodPut, "/a", "2")
	l.notes.fail(errors.New("boom"), nil)
	l.do(t, http.MethodPost, "/_localstack/state/notes/save", "")
	status, h = l.health(t)
	if p := h.Services[0].Parts[0]; status != http.StatusOK || h.Status != "degraded" || p.Status != "error" || !strings.Contains(p.LastError, "boom") || p.DirtySeconds <= 0 || p.Generation != 1 {
		t.Errorf("after a save that failed: %d %+v", status, h)
	}
	l.notes.fail(nil, nil)
	l.do(t, http.MethodPost, "/_localstack/state/notes/save", "")
	if _, h := l.health(t); h.Status != "ok" || h.Services[0].Parts[0].LastError != "" || h.Services[0].Parts[0].Generation != 2 {
		t.Errorf("after one that went well: %+v", h)
	}
	if a := l.do(t, http.MethodHead, "/_torpor/health", ""); a.status != http.StatusOK || a.body != "" {
		t.Errorf("HEAD: %d %q", a.status, a.body)
	}
}

func TestLocalStackHealthAndInfo(t *testing.T) {
	l := begin(t, vfs.NewMem(), nil)
	defer l.end(t)
	l.do(t, http.MethodGet, "/_localstack/health", "").wants(t, http.StatusOK,
		`{"services":{"more":"available","notes":"available"},"edition":"torpor","version":"1.2.3","features":{"persistence":"initialized"}}`+"\n")
	var info map[string]any
	a := l.do(t, http.MethodGet, "/_localstack/info", "")
	if err := json.Unmarshal([]byte(a.body), &info); err != nil {
		t.Fatal(err)
	}
	if info["version"] != "1.2.3" || info["session_id"] != "session" || info["edition"] != "torpor" || info["is_license_activated"] != false ||
		info["uptime"].(float64) < 3600 || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("info %v", info)
	}
	if _, err := time.Parse("2006-01-02T15:04:05", info["server_time_utc"].(string)); err != nil {
		t.Error(err)
	}
	for _, key := range []string{"system", "is_docker"} {
		if _, ok := info[key]; !ok {
			t.Errorf("info lacks %s", key)
		}
	}
}

// TestStateThatCannotBeLoaded: the service is not served, says why, and loses nothing.
func TestStateThatCannotBeLoaded(t *testing.T) {
	fsys := vfs.NewMem()
	l := begin(t, fsys, nil)
	l.do(t, http.MethodPut, "/a", "1")
	l.do(t, http.MethodPost, "/_localstack/state/save", "")
	l.end(t)

	l = begin(t, fsys, func(l *life, cfg *runtime.Config) { cfg.Services[0].Save = runtime.SaveOnRequest })
	defer l.end(t)
	l.notes.fail(nil, fmt.Errorf("%w: it is of tomorrow", abi.ErrVersion))
	for _, method := range []string{http.MethodGet, http.MethodPut} {
		a := l.do(t, method, "/a", "2")
		message, hint := a.fault(t, http.StatusServiceUnavailable, "service_unavailable")
		for _, want := range []string{"service notes", "part store", "it is of tomorrow"} {
			if !strings.Contains(message, want) {
				t.Errorf("%s: the message does not say %q: %s", method, want, message)
			}
		}
		if !strings.Contains(hint, "/_localstack/state/notes/load") || !strings.Contains(hint, "/_localstack/state/notes/reset") || a.header.Get("Retry-After") == "" {
			t.Errorf("%s: hint %q, Retry-After %q", method, hint, a.header.Get("Retry-After"))
		}
		if got := l.served.last(); got != "notes 503" {
			t.Errorf("the observer was told %q", got)
		}
	}
	if a := l.do(t, http.MethodPost, "/_localstack/state/notes/save", ""); a.status != http.StatusInternalServerError || !strings.Contains(a.body, "could not be loaded") {
		t.Errorf("a save over it: %d %s", a.status, a.body)
	}
	status, h := l.health(t)
	if status != http.StatusServiceUnavailable || h.Status != "error" || h.Services[0].Status != "error" || !strings.Contains(h.Services[0].Error, "tomorrow") || h.Services[1].Status != "available" {
		t.Errorf("health %d %+v", status, h)
	}
	if a := l.do(t, http.MethodGet, "/_localstack/health", ""); a.status != http.StatusOK || !strings.Contains(a.body, `"notes":"error"`) {
		t.Errorf("LocalStack's health: %d %s", a.status, a.body)
	}
	// With the cause gone it can be loaded, and nothing was lost.
	l.notes.fail(nil, nil)
	l.do(t, http.MethodPost, "/_localstack/state/notes/load", "").wants(t, http.StatusOK, `{"service":"notes","status":"ok"}`+"\n")
	l.do(t, http.MethodGet, "/a", "").wants(t, http.StatusOK, "1")
}

func TestServiceWithoutRuntime(t *testing.T) {
	rt, err := runtime.New(runtime.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	h := handlerOf(t, server.Config{Runtime: rt, Default: "notes", Logger: slog.New(slog.DiscardHandler)})
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/a", nil))
	answer{rec.Code, rec.Header(), rec.Body.String()}.fault(t, http.StatusNotFound, "not_found")
}

// TestRequestsWaitForAHold: while a load holds requests they wait, and are then answered.
func TestRequestsWaitForAHold(t *testing.T) {
	l := begin(t, vfs.NewMem(), nil)
	defer l.end(t)
	l.do(t, http.MethodPut, "/a", "1")
	l.do(t, http.MethodPost, "/_localstack/state/save", "")

	inside, goOn := make(chan struct{}), make(chan struct{})
	l.notes.serve = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(inside)
			<-goOn
		}
		select {
		case <-goOn:
		default:
			t.Errorf("%s was served while requests were held", r.URL.Path)
		}
		io.WriteString(w, r.URL.Path)
	}
	var wg sync.WaitGroup
	wg.Go(func() { l.do(t, http.MethodGet, "/slow", "").wants(t, http.StatusOK, "/slow") })
	<-inside
	wg.Go(func() { // holds requests until the slow one is done
		if a := l.do(t, http.MethodPost, "/_localstack/state/notes/load", ""); a.status != http.StatusOK {
			t.Errorf("load: %d %s", a.status, a.body)
		}
	})
	l.untilHeld(t)
	for range 5 {
		wg.Go(func() { l.do(t, http.MethodGet, "/quick", "").wants(t, http.StatusOK, "/quick") })
	}
	// Nothing says that a request waits; it is given the time to come through if it does not.
	time.Sleep(20 * time.Millisecond)
	close(goOn)
	wg.Wait()
}

// untilHeld returns once requests to the first service are held.
func (l *life) untilHeld(t *testing.T) {
	t.Helper()
	svc, err := l.runtime.Service("notes")
	if err != nil {
		t.Fatal(err)
	}
	for { // before, Enter lets in at once
		probe, stop := context.WithTimeout(context.Background(), 10*time.Millisecond)
		leave, err := svc.Enter(probe)
		stop()
		if err != nil {
			return
		}
		leave()
	}
}

// TestClientGoesAwayWhileHeld: its request is not served.
func TestClientGoesAwayWhileHeld(t *testing.T) {
	l := begin(t, vfs.NewMem(), nil)
	defer l.end(t)
	inside, goOn := make(chan struct{}), make(chan struct{})
	l.notes.serve = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/slow" {
			t.Errorf("%s was served", r.URL.Path)
		}
		close(inside)
		<-goOn
	}
	var wg sync.WaitGroup
	wg.Go(func() { l.do(t, http.MethodGet, "/slow", "") })
	<-inside
	wg.Go(func() { l.do(t, http.MethodPost, "/_localstack/state/notes/load", "") })

	l.untilHeld(t)
	h := handlerOf(t, server.Config{Runtime: l.runtime, Default: "notes", Backends: map[string]server.Backend{"notes": {Handler: l.notes}}, Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/gone", nil).WithContext(ctx))
	answer{rec.Code, rec.Header(), rec.Body.String()}.fault(t, http.StatusServiceUnavailable, "service_unavailable")
	close(goOn)
	wg.Wait()
}

func TestConcurrentUse(t *testing.T) {
	l := begin(t, vfs.NewMem(), nil)
	defer l.end(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				path := fmt.Sprintf("/%d/%d", i, j)
				l.do(t, http.MethodPut, path, path).wants(t, http.StatusOK, "")
				if j%5 == 0 {
					l.do(t, http.MethodPost, "/_localstack/state/notes/save", "").wants(t, http.StatusOK, `{"service":"notes","status":"ok"}`+"\n")
				}
				l.do(t, http.MethodGet, path, "").wants(t, http.StatusOK, path)
				l.health(t)
			}
		})
	}
	wg.Wait()
}

// TestStateLinesComeAsTheyAreDone: a client that reads line by line need not wait for the last service.
func TestStateLinesComeAsTheyAreDone(t *testing.T) {
	goOn := make(chan struct{})
	l := begin(t, vfs.NewMem(), func(l *life, cfg *runtime.Config) {
		cfg.Services[1].Parts[0].Source = slowCapture{l.more, goOn}
	})
	defer l.end(t)
	resp, err := l.Client().Post(l.URL+"/_localstack/state/save", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := make([]byte, len(`{"service":"notes","status":"ok"}`))
	if _, err := io.ReadFull(resp.Body, first); err != nil || !bytes.Contains(first, []byte("notes")) {
		t.Errorf("%q, %v", first, err)
	}
	close(goOn)
	if rest, err := io.ReadAll(resp.Body); err != nil || !bytes.Contains(rest, []byte("more")) {
		t.Errorf("%q, %v", rest, err)
	}
}

// slowCapture captures when it is let.
type slowCapture struct {
	*notes
	goOn <-chan struct{}
}

func (s slowCapture) Capture(ctx context.Context) (runtime.Capture, error) {
	<-s.goOn
	return s.notes.Capture(ctx)
}

func TestDockerIsSeen(t *testing.T) {
	l := begin(t, nil, nil)
	defer l.end(t)
	_, err := os.Stat("/.dockerenv")
	if a := l.do(t, http.MethodGet, "/_localstack/info", ""); !strings.Contains(a.body, fmt.Sprintf(`"is_docker":%v`, err == nil)) {
		t.Errorf("info %s", a.body)
	}
}
