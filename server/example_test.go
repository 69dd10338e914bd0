package server_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/vfs"
	"github.com/torpor-run/torpor/server"
)

// A server stands in front of a service: it passes requests on, and answers the control calls itself.
// Here the service keeps notes, and the state directory is in memory.
func ExampleNew() {
	logger := slog.New(slog.DiscardHandler)
	dir, err := statedir.Open(vfs.NewMem(), statedir.Options{Logger: logger})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dir.Close()
	notes := newNotes()
	rt, err := runtime.New(runtime.Config{Dir: dir, Logger: logger, Services: []runtime.ServiceConfig{{Name: "notes",
		Parts: []runtime.PartConfig{{Name: "store", Serializer: records{}, Source: notes, Dirty: &notes.dirty}}}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := rt.Start(context.Background()); err != nil {
		fmt.Println(err)
		return
	}
	defer rt.Close(context.Background())

	handler, err := server.New(server.Config{Runtime: rt, Default: "notes", Backends: map[string]server.Backend{"notes": {Handler: notes}},
		Metrics: http.NotFoundHandler(), Logger: logger, Version: "1.0.0", Started: time.Now()})
	if err != nil {
		fmt.Println(err)
		return
	}

	send := func(method, path, body string) {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(method, "http://localhost"+path, strings.NewReader(body))
		r.RemoteAddr = "127.0.0.1:50000" // without a key only this machine may control
		handler.ServeHTTP(w, r)
		answer, _ := io.ReadAll(w.Body)
		fmt.Println(strings.TrimSpace(fmt.Sprint(method, " ", path, " ", w.Code, " ", string(answer))))
	}
	send("PUT", "/shopping", "milk")
	send("POST", "/_localstack/state/save", "")
	send("PUT", "/shopping", "nothing")
	send("POST", "/_localstack/state/notes/load", "")
	send("GET", "/shopping", "")
	send("GET", "/_localstack/health", "")
	// Output:
	// PUT /shopping 200
	// POST /_localstack/state/save 200 {"service":"notes","status":"ok"}
	// PUT /shopping 200
	// POST /_localstack/state/notes/load 200 {"service":"notes","status":"ok"}
	// GET /shopping 200 milk
	// GET /_localstack/health 200 {"services":{"notes":"running"},"edition":"torpor","version":"1.0.0","features":{"persistence":"initialized"}}
}
