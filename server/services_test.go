package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/vfs"
	"github.com/torpor-run/torpor/server"
	"github.com/torpor-run/torpor/server/gateway"
)

// process stands for a service's program; start, if not nil, is what starting it does.
type process struct{ start func(context.Context) error }

func (p process) Start(ctx context.Context) error {
	if p.start == nil {
		return nil
	}
	return p.start(ctx)
}

func (process) Stop(context.Context) error { return nil }

// outside has notes served behind a proxy, by a service that marks nothing itself.
func outside(t *testing.T, save runtime.SaveStrategy, wake time.Duration, start func(context.Context) error) func(*life, *runtime.Config) {
	return func(l *life, cfg *runtime.Config) {
		upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			l.notes.ServeHTTP(w, r)
		}))
		t.Cleanup(upstream.Close)
		proxy, err := gateway.New(gateway.Config{Service: "notes", Address: upstream.Listener.Addr().String, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(proxy.Close)
		service := &cfg.Services[0]
		service.Save, service.Parts[0].Dirty = save, new(runtime.Dirty) // not the one that notes marks
		service.Process = process{start}
		l.change = func(c *server.Config) {
			c.Backends["notes"] = server.Backend{Handler: proxy, WakeTimeout: wake, Save: save}
			c.Processes = func(name string) (any, bool) {
				return server.Process{State: "running", PID: 42, Restarts: 3}, name == "notes"
			}
			c.Push = map[string]http.Handler{"notes/store": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Pushed", r.Method)
				if r.Method != http.MethodGet {
					w.WriteHeader(http.StatusNoContent)
				}
			})}
			c.Rules = []gateway.Rule{{Service: "more", Paths: []string{"/more"}, Strip: true}}
			c.Init = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "init "+r.URL.Path) })
		}
	}
}

func TestServicesBehindAProxy(t *testing.T) {
	l := begin(t, vfs.NewMem(), outside(t, runtime.SaveManual, 0, nil))
	defer l.end(t)
	l.do(t, http.MethodGet, "/nothing", "")
	if _, h := l.health(t); h.Services[0].Parts[0].Status == "dirty" {
		t.Errorf("after reading: %+v", h)
	}
	l.do(t, http.MethodPut, "/a", "1").wants(t, http.StatusOK, "")
	if _, h := l.health(t); h.Services[0].Parts[0].Status != "dirty" {
		t.Errorf("after a change: %+v", h)
	}
	var synced server.Synced
	a := l.do(t, http.MethodPost, "/_torpor/services/notes/sync", "")
	if err := json.Unmarshal([]byte(a.body), &synced); err != nil || a.status != http.StatusOK || synced.Service != "notes" || len(synced.Parts) != 1 ||
		synced.Parts[0].Part != "store" || synced.Parts[0].Generation != 1 || synced.Parts[0].SavedAt == nil {
		t.Errorf("sync: %d %s %v", a.status, a.body, err)
	}
	if _, h := l.health(t); h.Services[0].Parts[0].Status != "saved" {
		t.Errorf("after sync: %+v", h)
	}

	var h server.ServiceHealth
	a = l.do(t, http.MethodPost, "/_torpor/services/notes/sleep", "")
	if err := json.Unmarshal([]byte(a.body), &h); err != nil || a.status != http.StatusOK || !h.Asleep || h.Status != "available" || h.Name != "notes" {
		t.Errorf("sleep: %d %s %v", a.status, a.body, err)
	}
	if a := l.do(t, http.MethodGet, "/_localstack/health", ""); !strings.Contains(a.body, `"notes":"available"`) {
		t.Errorf("LocalStack's health: %s", a.body)
	}
	l.notes.Reset(context.Background())
	l.do(t, http.MethodGet, "/a", "").wants(t, http.StatusOK, "1") // woken, with its state
	l.do(t, http.MethodPost, "/_torpor/services/notes/sleep", "")
	a = l.do(t, http.MethodPost, "/_torpor/services/notes/wake", "")
	if err := json.Unmarshal([]byte(a.body), &h); err != nil || a.status != http.StatusOK || h.Asleep || h.Status != "running" {
		t.Errorf("wake: %d %s %v", a.status, a.body, err)
	}
	if process, _ := h.Process.(map[string]any); process["pid"] != 42.0 || process["restarts"] != 3.0 {
		t.Errorf("process: %v", h.Process)
	}

	// Routes, and what is not there.
	l.do(t, http.MethodPut, "/more/x", "2").wants(t, http.StatusOK, "")
	if got := l.served.last(); got != "more 200" || l.more.texts["/x"] != "2" {
		t.Errorf("a rule's path: %s, %v", got, l.more.texts)
	}
	l.do(t, http.MethodGet, "/_localstack/init", "").wants(t, http.StatusOK, "init /_localstack/init")
	l.do(t, http.MethodGet, "/_localstack/init/ready", "").wants(t, http.StatusOK, "init /_localstack/init/ready")
	for _, m := range []string{http.MethodPut, http.MethodGet, http.MethodDelete} {
		if a := l.do(t, m, "/_torpor/services/notes/parts/store/state", ""); a.status >= 300 || a.header.Get("Pushed") != m {
			t.Errorf("%s: %d %s, pushed by %q", m, a.status, a.body, a.header.Get("Pushed"))
		}
		l.do(t, m, "/_torpor/services/notes/parts/assets/state", "").fault(t, http.StatusNotFound, "not_found")
		l.do(t, m, "/_torpor/services/notes/parts/store/state", "", "Origin", "https://example.com").fault(t, http.StatusForbidden, "foreign_origin")
	}
	l.do(t, http.MethodPost, "/_torpor/services/notes/parts/store/state", "").fault(t, http.StatusMethodNotAllowed, "method_not_allowed")
	for _, action := range []string{"sleep", "wake", "sync"} {
		l.do(t, http.MethodPost, "/_torpor/services/nobody/"+action, "").fault(t, http.StatusNotFound, "not_found")
		l.do(t, http.MethodGet, "/_torpor/services/notes/"+action, "").fault(t, http.StatusMethodNotAllowed, "method_not_allowed")
		l.do(t, http.MethodPost, "/_torpor/services/notes/"+action, "", "Origin", "https://example.com").fault(t, http.StatusForbidden, "foreign_origin")
	}
}

// TestSaveBeforeTheAnswer: with ON_REQUEST who has an answer has it saved.
func TestSaveBeforeTheAnswer(t *testing.T) {
	l := begin(t, vfs.NewMem(), outside(t, runtime.SaveOnRequest, 0, nil))
	defer l.end(t)
	for i := range 20 {
		l.do(t, http.MethodPut, "/a", strings.Repeat("x", i)).wants(t, http.StatusOK, "")
		if _, h := l.health(t); h.Services[0].Parts[0].Status != "saved" || h.Services[0].Parts[0].Generation != uint64(i+1) {
			t.Fatalf("after change %d: %+v", i, h)
		}
	}
}

func TestWakingTakesLong(t *testing.T) {
	started := make(chan struct{})
	l := begin(t, vfs.NewMem(), outside(t, runtime.SaveManual, 30*time.Millisecond, func(ctx context.Context) error {
		select {
		case <-started:
		case <-ctx.Done():
		}
		return ctx.Err()
	}))
	defer l.end(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			a := l.do(t, http.MethodGet, "/a", "")
			if message, _ := a.fault(t, http.StatusServiceUnavailable, "service_waking"); !strings.Contains(message, "notes") || !strings.Contains(message, "30ms") || a.header.Get("Retry-After") == "" {
				t.Errorf("%v %s", a.header, message)
			}
		})
	}
	wg.Wait()
	close(started)
	for a := l.do(t, http.MethodGet, "/a", ""); a.status != http.StatusNotFound; a = l.do(t, http.MethodGet, "/a", "") {
		if a.status != http.StatusServiceUnavailable {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
}

func TestProgramThatDoesNotStart(t *testing.T) {
	l := begin(t, vfs.NewMem(), outside(t, runtime.SaveManual, 0, func(context.Context) error { return errors.New("no such program") }))
	defer l.end(t)
	a := l.do(t, http.MethodGet, "/a", "")
	if message, hint := a.fault(t, http.StatusServiceUnavailable, "service_unavailable"); !strings.Contains(message, "no such program") || strings.Contains(hint, "reset") {
		t.Errorf("%s; %s", message, hint)
	}
	l.do(t, http.MethodPost, "/_torpor/services/notes/wake", "").fault(t, http.StatusServiceUnavailable, "process")
	if status, h := l.health(t); status != http.StatusOK || h.Status != "degraded" || !strings.Contains(h.Services[0].Error, "no such program") {
		t.Errorf("health %d %+v", status, h)
	}
}

func TestServicesThatCannotSleep(t *testing.T) {
	l := begin(t, vfs.NewMem(), func(_ *life, cfg *runtime.Config) { cfg.Services[0].External = true })
	defer l.end(t)
	l.do(t, http.MethodPost, "/_torpor/services/notes/sleep", "").fault(t, http.StatusConflict, "external")
	without := begin(t, nil, nil)
	defer without.end(t)
	for _, action := range []string{"sleep", "sync"} {
		without.do(t, http.MethodPost, "/_torpor/services/notes/"+action, "").fault(t, http.StatusConflict, "persistence_disabled")
	}
	if a := without.do(t, http.MethodPost, "/_torpor/services/notes/wake", ""); a.status != http.StatusOK {
		t.Errorf("wake: %d %s", a.status, a.body)
	}
}

// TestBusyServices: one that cannot be held is not put to sleep, and the answer says when to try again.
func TestBusyServices(t *testing.T) {
	l := begin(t, vfs.NewMem(), func(_ *life, cfg *runtime.Config) { cfg.Services[0].HoldTimeout = 10 * time.Millisecond })
	defer l.end(t)
	inside, goOn := make(chan struct{}), make(chan struct{})
	l.notes.serve = func(http.ResponseWriter, *http.Request) { close(inside); <-goOn }
	var wg sync.WaitGroup
	wg.Go(func() { l.do(t, http.MethodGet, "/slow", "") })
	<-inside
	a := l.do(t, http.MethodPost, "/_torpor/services/notes/sleep", "")
	if a.fault(t, http.StatusServiceUnavailable, "busy"); a.header.Get("Retry-After") == "" {
		t.Errorf("header %v", a.header)
	}
	close(goOn)
	wg.Wait()
}

func TestServerConfigurationsThatAreRefused(t *testing.T) {
	rt, err := runtime.New(runtime.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	one := server.Backend{Handler: http.NotFoundHandler()}
	for want, cfg := range map[string]server.Config{
		"no condition":        {Rules: []gateway.Rule{{Service: "a"}}, Backends: map[string]server.Backend{"a": one}},
		"names the service b": {Rules: []gateway.Rule{{Service: "b", Paths: []string{"/"}}}, Backends: map[string]server.Backend{"a": one}},
		"reads":               {Backends: map[string]server.Backend{"a": {Handler: one.Handler, Reads: gateway.Reads{Paths: []string{"x"}}}}},
		"upgraded":            {Backends: map[string]server.Backend{"a": {Handler: one.Handler, Upgraded: "never"}}},
		"no handler":          {Backends: map[string]server.Backend{"a": {}}},
	} {
		cfg.Runtime, cfg.Logger = rt, slog.New(slog.DiscardHandler)
		if _, err := server.New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	h, err := server.New(server.Config{Runtime: rt, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/a", nil))
	answer{rec.Code, rec.Header(), rec.Body.String()}.fault(t, http.StatusNotFound, "no_service")
}
