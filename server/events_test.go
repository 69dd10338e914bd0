package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/vfs"
	"github.com/torpor-run/torpor/server"
)

// listener reads a stream of events.
type listener struct {
	t     *testing.T
	resp  *http.Response
	lines *bufio.Scanner
}

// listen connects to the events of a server; last is the Last-Event-ID, "" for none. It returns when the server has
// answered, so that what happens from then on is told.
func listen(t *testing.T, base, last string) *listener {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/_torpor/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || got != "text/event-stream" {
		t.Fatalf("%d %s", resp.StatusCode, got)
	}
	l := &listener{t, resp, bufio.NewScanner(resp.Body)}
	l.until(": events")
	return l
}

// until reads to a line that begins so.
func (l *listener) until(prefix string) string {
	l.t.Helper()
	for l.lines.Scan() {
		if strings.HasPrefix(l.lines.Text(), prefix) {
			return l.lines.Text()
		}
	}
	l.t.Fatalf("the stream ended before a line %q: %v", prefix, l.lines.Err())
	return ""
}

// next reads an event; id is "" for one without.
func (l *listener) next() (id string, ev server.Event) {
	l.t.Helper()
	kind := ""
	for l.lines.Scan() {
		name, value, _ := strings.Cut(l.lines.Text(), ": ")
		switch name {
		case "id":
			id = value
		case "event":
			kind = value
		case "data":
			if err := json.Unmarshal([]byte(value), &ev); err != nil {
				l.t.Fatal(err)
			}
			if ev.Kind != kind {
				l.t.Errorf("the event %s has data of %s", kind, ev.Kind)
			}
			if ev.At.IsZero() {
				l.t.Errorf("the event %s has no time", kind)
			}
			return id, ev
		}
	}
	l.t.Fatalf("the stream ended: %v", l.lines.Err())
	return "", ev
}

// over reads to the end of the stream.
func (l *listener) over() {
	l.t.Helper()
	for l.lines.Scan() {
		if l.lines.Text() != "" {
			l.t.Errorf("unexpected: %s", l.lines.Text())
		}
	}
	if err := l.lines.Err(); err != nil {
		l.t.Error(err)
	}
}

// eventful serves events alone.
func eventful(t *testing.T, heartbeat time.Duration) (*server.Events, string) {
	t.Helper()
	e := server.NewEvents(heartbeat)
	mux := http.NewServeMux()
	mux.Handle("GET /_torpor/events", e)
	srv := httptest.NewServer(documented(t, mux))
	t.Cleanup(srv.Close)
	t.Cleanup(e.Close) // before the server waits for its requests
	return e, srv.URL
}

func TestEventsTellWhatTheRuntimeDoes(t *testing.T) {
	e, url := eventful(t, 0)
	var o runtime.Observer = e
	var lives runtime.LifeObserver = e
	l := listen(t, url, "")
	boom := errors.New("boom")
	o.SaveFinished(runtime.SaveEvent{Service: "s3", Part: "store", Generation: 3, Delta: true, Records: 5, Bytes: 60, Written: 70, Total: 2 * time.Second})
	o.SaveFinished(runtime.SaveEvent{Service: "s3", Part: "store", Err: boom})
	o.RestoreFinished(runtime.RestoreEvent{Service: "s3", Part: "store", Generation: 3, Records: 5, Bytes: 60, Total: time.Second})
	o.RequestsHeld("s3", time.Second, nil) // told of by what it was for
	o.RequestsHeld("s3", time.Second, runtime.ErrBusy)
	o.GenerationQuarantined("s3", "store")
	lives.ServiceWoken(runtime.WakeEvent{Service: "s3", Total: time.Second})
	lives.ServiceSlept(runtime.SleepEvent{Service: "s3", Err: boom})
	lives.ProcessExited("s3")
	e.Tell(server.Event{Kind: server.EventSnapshot, Action: "save", Name: "seed", Version: 2, Services: []string{"s3"}})
	last := uint64(0)
	for _, want := range []string{
		`{"kind":"save","service":"s3","part":"store","generation":3,"delta":true,"records":5,"bytes":60,"written":70,"seconds":2}`,
		`{"kind":"save","service":"s3","part":"store","error":"boom"}`,
		`{"kind":"restore","service":"s3","part":"store","generation":3,"records":5,"bytes":60,"seconds":1}`,
		`{"kind":"hold","service":"s3","seconds":1,"error":"requests under way did not end in time"}`,
		`{"kind":"quarantine","service":"s3","part":"store"}`,
		`{"kind":"wake","service":"s3","seconds":1}`,
		`{"kind":"sleep","service":"s3","error":"boom"}`,
		`{"kind":"exit","service":"s3"}`,
		`{"kind":"snapshot","action":"save","name":"seed","version":2,"services":["s3"]}`,
	} {
		id, ev := l.next()
		n, err := strconv.ParseUint(id, 10, 64)
		if err != nil || n <= last {
			t.Errorf("id %q behind %d", id, last)
		}
		last = n
		at := ev.At.Format(time.RFC3339Nano)
		got, err := json.Marshal(ev)
		if text := strings.Replace(string(got), `"at":"`+at+`",`, "", 1); err != nil || text != want {
			t.Errorf("told %s %v, want %s", text, err, want)
		}
	}
}

func TestEventsGoOnWhereTheClientWas(t *testing.T) {
	e, url := eventful(t, 0)
	tell := func(n int) { e.ProcessExited(strconv.Itoa(n)) }
	first := listen(t, url, "")
	tell(0)
	id, _ := first.next()
	for n := range 4 {
		tell(n + 1)
	}
	l := listen(t, url, id)
	tell(5)
	for n := range 5 {
		if _, ev := l.next(); ev.Service != strconv.Itoa(n+1) {
			t.Errorf("told of %s, want %d", ev.Service, n+1)
		}
	}

	// More than are kept: those there are, and how many there were besides.
	for n := range server.MaxEvents {
		tell(n)
	}
	l = listen(t, url, id)
	lostID, lost := l.next()
	if lost.Kind != server.EventLost || lost.Lost == nil || *lost.Lost != 5 || lostID != "" {
		t.Errorf("told %s %+v, want that 5 are lost", lostID, lost)
	}
	for n := range server.MaxEvents {
		if _, ev := l.next(); ev.Service != strconv.Itoa(n) {
			t.Fatalf("told of %s, want %d", ev.Service, n)
		}
	}

	// Of another life of the process, before this one or, if the clock was set back, after it.
	for _, id := range []string{"1", "18446744073709551615"} {
		l = listen(t, url, id)
		if _, ev := l.next(); ev.Kind != server.EventLost || ev.Lost != nil {
			t.Errorf("behind %s: %+v, want that nobody knows how many are lost", id, ev)
		}
		if _, ev := l.next(); ev.Service != "0" {
			t.Errorf("behind %s: %+v, want all that are kept", id, ev)
		}
	}
}

func TestEventsOfABadID(t *testing.T) {
	e := server.NewEvents(0)
	for _, id := range []string{"x", "-1", "1.5", "18446744073709551616"} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "/_torpor/events", nil)
		r.Header.Set("Last-Event-ID", id)
		e.ServeHTTP(w, r)
		answer{w.Code, w.Header(), w.Body.String()}.fault(t, http.StatusBadRequest, "bad_request")
	}
}

func TestEventsEndWithTheServer(t *testing.T) {
	e, url := eventful(t, 0)
	l := listen(t, url, "")
	e.Close()
	e.Close()
	l.over()
	listen(t, url, "").over() // one that begins later
	e.ProcessExited("x")      // which is no error

	// As serve does it: Shutdown waits for streams, which end since it tells of itself.
	e = server.NewEvents(0)
	srv := httptest.NewUnstartedServer(e)
	srv.Config.RegisterOnShutdown(e.Close)
	srv.Start()
	l = listen(t, srv.URL, "")
	if err := srv.Config.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	l.over()
	srv.Close()
}

func TestEventsShowThatTheyLive(t *testing.T) {
	_, url := eventful(t, time.Millisecond)
	l := listen(t, url, "")
	l.until(": still here")
	l.until(": still here")
}

func TestEventsHaveNotTooManyClients(t *testing.T) {
	e, url := eventful(t, 0)
	var first *listener
	for range server.MaxEventClients {
		l := listen(t, url, "")
		if first == nil {
			first = l
		}
	}
	ask := func() answer {
		w := httptest.NewRecorder()
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // so that it is not waited for, should it be served
		e.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/_torpor/events", nil).WithContext(ctx))
		return answer{w.Code, w.Header(), w.Body.String()}
	}
	a := ask()
	a.fault(t, http.StatusServiceUnavailable, "unavailable")
	if a.header.Get("Retry-After") == "" {
		t.Error("the client is not told when to come back")
	}
	first.resp.Body.Close()
	// The server notices in a while.
	for ask().status != http.StatusOK {
		time.Sleep(time.Millisecond)
	}
}

// TestEventsWaitForNoClient: who does not read keeps neither the runtime nor those who read from going on.
func TestEventsWaitForNoClient(t *testing.T) {
	e, url := eventful(t, 0)
	listen(t, url, "") // and never read
	l := listen(t, url, "")
	var telling sync.WaitGroup
	long := strings.Repeat("x", 10_000)
	const tellers, each = 4, 500
	for i := range tellers {
		telling.Go(func() {
			for n := range each {
				e.ProcessExited(fmt.Sprint(i, " ", n, " ", long))
			}
		})
	}
	telling.Wait() // it would not end if a client were waited for
	e.ProcessExited("last")
	told, lost, last := 0, uint64(0), uint64(0)
	for {
		id, ev := l.next()
		if ev.Kind == server.EventLost {
			lost += *ev.Lost
			continue
		}
		n, _ := strconv.ParseUint(id, 10, 64)
		if n <= last {
			t.Fatalf("id %d behind %d", n, last)
		}
		last = n
		told++
		if ev.Service == "last" {
			break
		}
	}
	if uint64(told)+lost != tellers*each+1 {
		t.Errorf("told of %d events and that %d are lost; there were %d", told, lost, tellers*each+1)
	}
}

// TestEventsOfAServer: what is done to services is told, and nothing where there are no events.
func TestEventsOfAServer(t *testing.T) {
	e := server.NewEvents(0)
	l := begin(t, vfs.NewMem(), func(l *life, cfg *runtime.Config) {
		cfg.Observer = runtime.Observers(e)
		l.change = func(c *server.Config) { c.Events = e }
	})
	defer l.end(t)
	defer e.Close()
	events := listen(t, l.URL, "")
	l.do(t, http.MethodPut, "/a", "1")
	l.do(t, http.MethodPost, "/_torpor/services/notes/save", "")
	for {
		if _, ev := events.next(); ev.Kind == server.EventSave {
			if ev.Service != "notes" || ev.Part != "store" || ev.Generation != 1 || ev.Records != 1 || ev.Error != "" {
				t.Errorf("told %+v", ev)
			}
			break
		}
	}

	without := begin(t, nil, nil)
	defer without.end(t)
	without.do(t, http.MethodGet, "/_torpor/events", "").fault(t, http.StatusNotFound, "not_found")
	var none *server.Events
	none.Tell(server.Event{Kind: server.EventExit})
}
