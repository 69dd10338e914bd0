package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"syscall"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime"
)

func TestStatusOf(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{fmt.Errorf("x: %w", abi.ErrNotFound), 404, "not_found"},
		{fmt.Errorf("x: %w", runtime.ErrBusy), 503, "busy"},
		{fmt.Errorf("x: %w", runtime.ErrExternal), 409, "external"},
		{fmt.Errorf("x: %w", runtime.ErrProcess), 503, "process"},
		{fmt.Errorf("x: %w", abi.ErrCorrupt), 500, "corrupt"},
		{fmt.Errorf("x: %w", abi.ErrVersion), 500, "unsupported_version"},
		{fmt.Errorf("x: %w", abi.ErrTooLarge), 413, "too_large"},
		{&os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, 507, "no_space"},
		{context.DeadlineExceeded, 503, "unavailable"},
		{fmt.Errorf("x: %w", context.Canceled), 503, "unavailable"},
		{errors.New("x"), 500, "internal"},
	} {
		if status, code := statusOf(c.err); status != c.status || code != c.code {
			t.Errorf("%v: %d %s, want %d %s", c.err, status, code, c.status, c.code)
		}
	}
}

func TestOwnPaths(t *testing.T) {
	for path, want := range map[string]bool{
		"/_localstack": true, "/_localstack/": true, "/_localstack/health": true, "/_torpor": true, "/_torpor/x": true,
		"/_localstackx": false, "/_torpor-bucket/x": false, "/": false, "/bucket/_torpor/health": false, "//_torpor/health": false, "": false,
	} {
		if got := own(path); got != want {
			t.Errorf("%s is Torpor's own: %v, want %v", path, got, want)
		}
	}
}

func TestIsAWS(t *testing.T) {
	for _, c := range []struct {
		name, url, authorization string
		want                     bool
	}{
		{"plain", "/metrics", "", false},
		{"signed", "/metrics", "AWS4-HMAC-SHA256 Credential=x", true},
		{"signed with keys of any region", "/metrics", "AWS4-ECDSA-P256-SHA256 Credential=x", true},
		{"signed in the old way", "/metrics", "AWS key:signature", true},
		{"presigned", "/metrics?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=0", "", true},
		{"presigned in the old way", "/metrics?AWSAccessKeyId=x&Signature=0&Expires=1", "", true},
		{"a scraper's password", "/metrics", "Basic eDp5", false},
		{"a scraper's parameter", "/metrics?Signature=0", "", false},
	} {
		r := httptest.NewRequest(http.MethodGet, c.url, nil)
		if c.authorization != "" {
			r.Header.Set("Authorization", c.authorization)
		}
		if got := isAWS(r); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// writer is a ResponseWriter that notes what reached it.
type writer struct {
	httptest.ResponseRecorder
	flushed bool
}

func (w *writer) Flush() { w.flushed = true }

func TestStatusRecorder(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(http.ResponseWriter)
		want int
	}{
		{"nothing", func(http.ResponseWriter) {}, 200},
		{"a status", func(w http.ResponseWriter) { w.WriteHeader(404) }, 404},
		{"content first", func(w http.ResponseWriter) { io.WriteString(w, "x"); w.WriteHeader(500) }, 200},
		{"a flush first", func(w http.ResponseWriter) { w.(http.Flusher).Flush(); w.WriteHeader(500) }, 200},
		{"the first of two", func(w http.ResponseWriter) { w.WriteHeader(404); w.WriteHeader(500) }, 404},
		{"after information", func(w http.ResponseWriter) { w.WriteHeader(100); w.WriteHeader(103); w.WriteHeader(201) }, 201},
		{"another protocol", func(w http.ResponseWriter) { w.WriteHeader(101) }, 101},
	} {
		t.Run(c.name, func(t *testing.T) {
			rec := &statusRecorder{ResponseWriter: httptest.NewRecorder(), status: http.StatusOK}
			c.do(rec)
			if rec.status != c.want {
				t.Errorf("status %d, want %d", rec.status, c.want)
			}
		})
	}
}

func TestStatusRecorderHidesNothing(t *testing.T) {
	under := &writer{ResponseRecorder: *httptest.NewRecorder()}
	rec := &statusRecorder{ResponseWriter: under}
	rec.Flush()
	if !under.flushed {
		t.Error("Flush did not reach the writer")
	}
	under.flushed = false
	if err := http.NewResponseController(rec).Flush(); err != nil || !under.flushed {
		t.Errorf("a ResponseController's Flush: %v", err)
	}
	if rec.Unwrap() != http.ResponseWriter(under) {
		t.Error("Unwrap gives another writer")
	}
	if err := http.NewResponseController(rec).EnableFullDuplex(); !errors.Is(err, http.ErrNotSupported) {
		t.Errorf("what the writer cannot do: %v", err)
	}
}
