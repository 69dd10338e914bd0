package gateway_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/torpor-run/torpor/server/gateway"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// TestHeldAnswers: nobody has the end of an answer before the request has left, which is when what it changed is
// saved; of a small one not even the header.
func TestHeldAnswers(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 20<<10)
	for _, c := range []struct {
		name    string
		serve   http.HandlerFunc
		header  bool // comes before
		trailer string
	}{
		{"empty", func(w http.ResponseWriter, r *http.Request) {}, false, ""},
		{"204", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) }, false, ""},
		{"small", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(201); io.WriteString(w, "small") }, false, ""},
		{"in chunks", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "sm")
			w.(http.Flusher).Flush()
			io.WriteString(w, "all")
		}, false, ""},
		{"64 KiB", func(w http.ResponseWriter, r *http.Request) { w.Write(big[:gateway.HeldBytes]) }, false, ""},
		{"more", func(w http.ResponseWriter, r *http.Request) { w.Write(big) }, true, ""},
		{"more, length known", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(big)))
			w.Write(big)
		}, true, ""},
		{"trailers", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-Sum")
			io.WriteString(w, "x")
			w.Header().Set("X-Sum", "1")
		}, true, "1"},
		{"trailers unannounced", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "x")
			w.(http.Flusher).Flush()
			w.Header().Set(http.TrailerPrefix+"X-Sum", "2")
		}, false, "2"},
		{"slow", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "begun")
			w.(http.Flusher).Flush()
			time.Sleep(1500 * time.Millisecond)
			io.WriteString(w, "ended")
		}, true, ""},
		{"slow, length known", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "10")
			io.WriteString(w, "begun")
			w.(http.Flusher).Flush()
			time.Sleep(1500 * time.Millisecond)
			io.WriteString(w, "ended")
		}, true, ""},
		{"nothing for a while", func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			time.Sleep(1500 * time.Millisecond)
		}, true, ""},
	} {
		for _, two := range []bool{false, true} {
			t.Run(fmt.Sprint(c.name, two), func(t *testing.T) {
				t.Parallel()
				leaving, saved := make(chan struct{}), make(chan struct{})
				s := newStand(t, c.serve, options{visit: func(v *gateway.Visit, _ *http.Request) {
					v.Hold = true
					v.Leave = func() { close(leaving); <-saved }
				}})
				client := s.h1
				if two {
					client = s.h2
				}
				begun, done := make(chan struct{}), make(chan struct{})
				var b []byte
				go func() {
					defer close(done)
					resp, err := client.Post("http://"+s.gateway+"/", "", nil)
					close(begun)
					if err != nil {
						t.Error(err)
						return
					}
					defer resp.Body.Close()
					if b, err = io.ReadAll(resp.Body); err != nil || resp.Trailer.Get("X-Sum") != c.trailer {
						t.Errorf("%v, trailer %v", err, resp.Trailer)
					}
				}()
				<-leaving
				if s.events.count("changed") == 0 {
					t.Error("it left before it was said that something changed")
				}
				if c.header {
					<-begun
				}
				select {
				case <-begun:
					if !c.header {
						t.Error("the client has the header already")
					}
				case <-time.After(30 * time.Millisecond): // for what must not come
				}
				select {
				case <-done:
					t.Errorf("the client has all of it already: %d bytes", len(b))
				case <-time.After(30 * time.Millisecond):
				}
				close(saved)
				<-done
			})
		}
	}
}

// TestReadsAreNotHeld: there is nothing to wait for.
func TestReadsAreNotHeld(t *testing.T) {
	next := make(chan struct{})
	s := newStand(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "begun")
		w.(http.Flusher).Flush()
		<-next
	}), options{reads: true, visit: func(v *gateway.Visit, _ *http.Request) { v.Hold = true }})
	resp, err := s.h1.Get("http://" + s.gateway + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b := make([]byte, 5)
	if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != "begun" {
		t.Errorf("%q, %v", b, err)
	}
	close(next)
	if got := s.events.all(); strings.Contains(got, "changed") {
		t.Errorf("told: %s", got)
	}
}
