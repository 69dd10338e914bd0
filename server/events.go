package server

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/torpor-run/torpor/runtime"
)

// Limits of what is told by GET /_torpor/events.
const (
	// MaxEvents is how many events are kept for clients that are slow, or come back.
	MaxEvents = 1024
	// MaxEventClients is how many clients are served at a time; the next one is answered with 503.
	MaxEventClients = 100
	// DefaultHeartbeat is how often a client is told that the connection is alive.
	DefaultHeartbeat = 15 * time.Second
	// eventRetry is how long a client is asked to wait before it comes back.
	eventRetry = 2 * time.Second
	// eventPatience is how long a client may take to read what is written to it before it is given up.
	eventPatience = 30 * time.Second
)

// What an event is about: its name in the stream, and kind in its data.
const (
	EventSave       = "save"       // a part was saved, or not
	EventRestore    = "restore"    // a part was restored, or not
	EventWake       = "wake"       // a service was made ready for requests, or not
	EventSleep      = "sleep"      // a service was put to sleep, or not
	EventHold       = "hold"       // requests could not be held in time, and so nothing was done
	EventQuarantine = "quarantine" // a damaged generation was moved aside
	EventExit       = "exit"       // a service's program ended by itself
	EventSnapshot   = "snapshot"   // a snapshot was saved, loaded, imported, exported or removed
	EventLost       = "lost"       // not an event itself: this client missed some
)

// Event is the data of an event in the stream. What an event has nothing to say about is left out.
type Event struct {
	Kind       string    `json:"kind"`
	At         time.Time `json:"at"`
	Service    string    `json:"service,omitempty"`
	Part       string    `json:"part,omitempty"`
	Generation uint64    `json:"generation,omitempty"`
	Delta      bool      `json:"delta,omitempty"` // of a save: only what had changed was written
	Records    uint64    `json:"records,omitempty"`
	Bytes      uint64    `json:"bytes,omitempty"`   // of records, uncompressed
	Written    int64     `json:"written,omitempty"` // bytes of the state file
	Seconds    float64   `json:"seconds,omitempty"` // that it took, by the clock
	Error      string    `json:"error,omitempty"`   // why it failed; left out: it did not

	// Of a snapshot.

	Action   string   `json:"action,omitempty"` // save, load, import, export, remove, collect
	Name     string   `json:"name,omitempty"`
	Version  uint64   `json:"version,omitempty"`
	Services []string `json:"services,omitempty"`

	Lost *uint64 `json:"lost,omitempty"` // how many events this client missed; left out: nobody knows
}

// Events tells clients, as server-sent events, what the runtime does and what becomes of snapshots. It is a
// [runtime.Observer] and a [runtime.LifeObserver], and safe for concurrent use; telling it something never waits for a
// client. Each event has a number, higher than that of every event before, in this process and, as long as the clock is
// not set back, in those before it. The newest MaxEvents are kept: who is slower than that misses some and is told how
// many. A nil *Events takes what it is told and forgets it.
type Events struct {
	heartbeat time.Duration

	mu      sync.Mutex
	kept    []numbered    // the newest, in order
	begun   uint64        // the number that the first follows
	last    uint64        // that of the newest
	changed chan struct{} // closed when there is a new one; nil: nobody waits
	clients int
	done    chan struct{} // closed by Close
	closed  bool
}

// numbered is an event as it is sent.
type numbered struct {
	id   uint64
	kind string
	data []byte
}

// NewEvents makes one that has nothing to tell yet. heartbeat is how often a silent stream says that it lives; 0 is
// DefaultHeartbeat.
func NewEvents(heartbeat time.Duration) *Events {
	if heartbeat <= 0 {
		heartbeat = DefaultHeartbeat
	}
	// The clock's microseconds, so that numbers rise over restarts too, and fit where JavaScript counts.
	begun := uint64(time.Now().UnixMicro())
	return &Events{heartbeat: heartbeat, begun: begun, last: begun, done: make(chan struct{})}
}

// Close ends all streams, and those that begin later; it may be called more than once. A server that is being shut
// down waits for its requests, and these end in no other way: give Close to http.Server's RegisterOnShutdown.
func (e *Events) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.closed {
		e.closed = true
		close(e.done)
	}
}

// Tell adds an event, made now if At is not set.
func (e *Events) Tell(ev Event) {
	if e == nil {
		return
	}
	if ev.At.IsZero() {
		ev.At = time.Now()
	}
	ev.At = ev.At.UTC()
	data, err := json.Marshal(ev)
	if err != nil {
		return // no event has what JSON cannot say
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last++
	if len(e.kept) == MaxEvents {
		copy(e.kept, e.kept[1:])
		e.kept = e.kept[:MaxEvents-1]
	}
	e.kept = append(e.kept, numbered{e.last, ev.Kind, data})
	if e.changed != nil {
		close(e.changed)
		e.changed = nil
	}
}

// news is what has happened behind an event.
type news struct {
	events  []numbered
	lost    *uint64         // how many came before these and are there no more; nil: some, nobody knows how many
	last    uint64          // number of the newest
	changed <-chan struct{} // closed when there are newer ones
}

// since gives the events behind the one numbered after. A number that no event of this process has is taken as one that
// came before all of them.
func (e *Events) since(after uint64) news {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.changed == nil {
		e.changed = make(chan struct{})
	}
	n := news{last: e.last, changed: e.changed}
	oldest := e.last - uint64(len(e.kept)) // the number before that of the oldest kept
	if after >= e.begun && after <= e.last {
		n.lost = new(max(oldest, after) - after)
		oldest = max(oldest, after)
	}
	n.events = append(n.events, e.kept[len(e.kept)-int(e.last-oldest):]...)
	return n
}

// enter counts a client in, unless there are too many.
func (e *Events) enter() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.clients == MaxEventClients {
		return fmt.Errorf("%d clients are told of events, and there may be no more", MaxEventClients)
	}
	e.clients++
	return nil
}

func (e *Events) leave() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.clients--
}

// newest is the number of the newest event.
func (e *Events) newest() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.last
}

// RestoreFinished implements runtime.Observer.
func (e *Events) RestoreFinished(r runtime.RestoreEvent) {
	e.Tell(Event{Kind: EventRestore, Service: r.Service, Part: r.Part, Generation: r.Generation, Records: r.Records, Bytes: r.Bytes,
		Seconds: r.Total.Seconds(), Error: textOf(r.Err)})
}

// SaveFinished implements runtime.Observer.
func (e *Events) SaveFinished(s runtime.SaveEvent) {
	e.Tell(Event{Kind: EventSave, Service: s.Service, Part: s.Part, Generation: s.Generation, Delta: s.Delta, Records: s.Records,
		Bytes: s.Bytes, Written: s.Written, Seconds: s.Total.Seconds(), Error: textOf(s.Err)})
}

// RequestsHeld implements runtime.Observer. What went well is no event: the save, load or reset that it was for is.
func (e *Events) RequestsHeld(service string, d time.Duration, err error) {
	if err != nil {
		e.Tell(Event{Kind: EventHold, Service: service, Seconds: d.Seconds(), Error: err.Error()})
	}
}

// GenerationQuarantined implements runtime.Observer.
func (e *Events) GenerationQuarantined(service, part string) {
	e.Tell(Event{Kind: EventQuarantine, Service: service, Part: part})
}

// ServiceWoken implements runtime.LifeObserver.
func (e *Events) ServiceWoken(w runtime.WakeEvent) {
	e.Tell(Event{Kind: EventWake, Service: w.Service, Seconds: w.Total.Seconds(), Error: textOf(w.Err)})
}

// ServiceSlept implements runtime.LifeObserver.
func (e *Events) ServiceSlept(s runtime.SleepEvent) {
	e.Tell(Event{Kind: EventSleep, Service: s.Service, Seconds: s.Total.Seconds(), Error: textOf(s.Err)})
}

// ProcessExited implements runtime.LifeObserver.
func (e *Events) ProcessExited(service string) { e.Tell(Event{Kind: EventExit, Service: service}) }

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// ServeHTTP answers GET with the events from now on, or with those behind the one that the header Last-Event-ID names,
// until the client goes away or Close is called.
func (e *Events) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	after := e.newest()
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		n, err := strconv.ParseUint(id, 10, 64)
		if err != nil {
			writeError(w, http.StatusBadRequest, "bad_request", fmt.Sprintf("Last-Event-ID is %q, which is no event's number", id), "send the id of the last event that came, or no such header")
			return
		}
		after = n
	}
	if err := e.enter(); err != nil {
		w.Header().Set("Retry-After", "1")
		writeError(w, http.StatusServiceUnavailable, "unavailable", err.Error(), "")
		return
	}
	defer e.leave()

	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // else nginx in front keeps events back
	rc := http.NewResponseController(w)
	// A client that reads no more must not keep the stream, nor the server from ending, for ever. Where deadlines cannot
	// be set there is no connection that could be stuck.
	patience := func() { _ = rc.SetWriteDeadline(time.Now().Add(eventPatience)) }
	defer func() { _ = rc.SetWriteDeadline(time.Time{}) }()
	beat := time.NewTicker(e.heartbeat)
	defer beat.Stop()
	patience()
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "retry: %d\n: events\n\n", eventRetry.Milliseconds()) // at once: the client is to know that it is heard
	for {
		n := e.since(after)
		patience()
		if n.lost == nil || *n.lost > 0 {
			data, _ := json.Marshal(Event{Kind: EventLost, At: time.Now().UTC(), Lost: n.lost})
			fmt.Fprintf(out, "event: %s\ndata: %s\n\n", EventLost, data)
		}
		for _, ev := range n.events {
			fmt.Fprintf(out, "id: %d\nevent: %s\ndata: %s\n\n", ev.id, ev.kind, ev.data)
		}
		after = n.last
		if err := errors.Join(out.Flush(), rc.Flush()); err != nil {
			return // the client has gone away, or does not read
		}
		select {
		case <-n.changed:
		case <-beat.C:
			fmt.Fprint(out, ": still here\n\n")
		case <-e.done:
			return
		case <-r.Context().Done():
			return
		}
	}
}
