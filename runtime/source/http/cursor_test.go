package http_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	nethttp "net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/source/http"
	"github.com/torpor-run/torpor/runtime/source/sourcetest"
	"github.com/torpor-run/torpor/runtime/spool"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// place is where a record is.
type place struct{ partition, key string }

// ledger is a service that keeps records and knows what has changed since each cursor that it gave.
type ledger struct {
	mu      sync.Mutex
	life    int // names its cursors, with now
	now     int
	records map[place]string
	touched map[place]int // when it changed last
	counts  map[int]int   // how many records there were at each cursor it knows
	asked   []string      // the requests it answered, and how

	silent  bool                                                    // PUT is answered without a cursor
	before  func()                                                  // called before each GET is answered
	instead func(w nethttp.ResponseWriter, r *nethttp.Request) bool // answers, or not, in its place
}

func newLedger() *ledger {
	return &ledger{records: map[place]string{}, touched: map[place]int{}, counts: map[int]int{}}
}

func (l *ledger) put(partition, key, value string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now++
	l.records[place{partition, key}], l.touched[place{partition, key}] = value, l.now
}

func (l *ledger) remove(partition, key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now++
	delete(l.records, place{partition, key})
	l.touched[place{partition, key}] = l.now
}

// forget makes it know no cursor any more.
func (l *ledger) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.counts)
	clear(l.touched)
}

// restart ends it and starts it again, without a state.
func (l *ledger) restart() {
	l.forget()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.life++
	l.now = 0
	clear(l.records)
}

func (l *ledger) all() map[place]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.records)
}

// answers gives how requests were answered since the last time.
func (l *ledger) answers() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := strings.Join(l.asked, ", ")
	l.asked = nil
	return s
}

func (l *ledger) cursor() string {
	l.counts[l.now] = len(l.records)
	return fmt.Sprintf("%d-%d", l.life, l.now)
}

func (l *ledger) ServeHTTP(w nethttp.ResponseWriter, r *nethttp.Request) {
	l.mu.Lock()
	before, instead := l.before, l.instead
	l.mu.Unlock()
	if before != nil && r.Method == nethttp.MethodGet {
		before()
	}
	if instead != nil && instead(w, r) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	status, what := nethttp.StatusNoContent, r.Method
	var body []byte
	switch r.Method {
	case nethttp.MethodGet:
		status, what, body = l.get(r.Header.Get("Torpor-Since"), w.Header())
	case nethttp.MethodPut:
		records, err := read(record.NewReader(r.Body, 0))
		if err != nil {
			nethttp.Error(w, err.Error(), nethttp.StatusUnprocessableEntity)
			return
		}
		l.replace(records)
		if !l.silent {
			w.Header().Set("Torpor-Cursor", l.cursor())
		}
	case nethttp.MethodDelete:
		l.replace(nil)
	}
	l.asked = append(l.asked, what)
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

func (l *ledger) replace(records map[place]string) {
	l.now++
	clear(l.counts)
	clear(l.touched)
	l.records = map[place]string{}
	maps.Copy(l.records, records)
}

// get is the answer to GET.
func (l *ledger) get(since string, h nethttp.Header) (status int, what string, body []byte) {
	h.Set("Torpor-Cursor", l.cursor())
	h.Set("Content-Type", abi.MediaRecords)
	order := func(a, b place) int {
		return strings.Compare(a.partition+"\x00"+a.key, b.partition+"\x00"+b.key)
	}
	life, at, _ := strings.Cut(since, "-")
	then, _ := strconv.Atoi(at) // of what is no cursor nothing is known
	count, known := l.counts[then]
	if !known || life != strconv.Itoa(l.life) {
		for _, p := range slices.SortedFunc(maps.Keys(l.records), order) {
			body = upsert(body, p.partition, p.key, l.records[p])
		}
		if since != "" {
			return nethttp.StatusOK, "all instead", body
		}
		return nethttp.StatusOK, "all", body
	}
	n := 0
	for _, p := range slices.SortedFunc(maps.Keys(l.touched), order) {
		if l.touched[p] <= then {
			continue
		}
		n++
		if value, there := l.records[p]; there {
			body = upsert(body, p.partition, p.key, value)
		} else {
			body = tombstone(body, p.partition, p.key)
		}
	}
	h.Set("Torpor-Growth", strconv.Itoa(len(l.records)-count))
	return nethttp.StatusIMUsed, fmt.Sprint(n, " changes"), body
}

func upsert(dst []byte, partition, key, value string) []byte {
	return record.AppendText(record.AppendText(record.AppendText(record.AppendRecord(dst), partition), key), value)
}

func tombstone(dst []byte, partition, key string) []byte {
	return record.AppendText(record.AppendText(record.AppendTombstone(dst), partition), key)
}

// read gives the records there are.
func read(from record.Source) (map[place]string, error) {
	records := map[place]string{}
	for {
		b, err := from.ReadBatch()
		if errors.Is(err, io.EOF) {
			return records, nil
		}
		if err != nil {
			return nil, err
		}
		for i := range b.Len() {
			key, _ := b.Key(i)
			p := place{string(b.Partition(i)), string(key)}
			if _, twice := records[p]; twice {
				return nil, fmt.Errorf("%q is there twice", p)
			}
			records[p] = string(record.NewPull(b.Value(i)).Text())
		}
	}
}

// watcher keeps what the runtime tells of saves.
type watcher struct {
	mu    sync.Mutex
	saves []runtime.SaveEvent
}

func (w *watcher) SaveFinished(e runtime.SaveEvent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.saves = append(w.saves, e)
}
func (*watcher) RestoreFinished(runtime.RestoreEvent)       {}
func (*watcher) RequestsHeld(string, time.Duration, error)  {}
func (*watcher) GenerationQuarantined(service, part string) {}
func (w *watcher) last() runtime.SaveEvent {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.saves[len(w.saves)-1]
}

// world is a ledger and a disk, which outlive the runtimes between them.
type world struct {
	*ledger
	disk       *vfs.FaultFS
	url        string
	serializer runtime.Serializer
	compaction statedir.Compaction
}

func newWorld(t *testing.T) *world {
	t.Helper()
	h, err := host.New(t.Context(), host.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	m, err := h.Compile(t.Context(), "records", modules.Records())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{ledger: newLedger(), disk: vfs.Faulty(vfs.NewMem(), vfs.Fault{}), serializer: m}
	server := httptest.NewServer(w.ledger)
	t.Cleanup(server.Close)
	w.url = server.URL
	return w
}

func (w *world) source(t testing.TB) *http.Source {
	return newSource(t, http.Config{URL: w.url + "/state?of=ledger", Atomic: true, Cursor: true})
}

// life is one life of a runtime.
type life struct {
	w     *world
	dir   *statedir.Dir
	rt    *runtime.Runtime
	svc   *runtime.Service
	dirty runtime.Dirty
	seen  watcher
}

// begin starts a runtime, which restores what was saved.
func (w *world) begin(t *testing.T) *life {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	l := &life{w: w}
	var err error
	if l.dir, err = statedir.Open(w.disk, statedir.Options{Logger: logger, Compaction: w.compaction}); err != nil {
		t.Fatal(err)
	}
	l.rt, err = runtime.New(runtime.Config{Dir: l.dir, Logger: logger, Observer: &l.seen, Services: []runtime.ServiceConfig{{
		Name: "svc", Save: runtime.SaveManual, Load: runtime.LoadOnStartup,
		Parts: []runtime.PartConfig{{Name: "store", Serializer: w.serializer, Source: w.source(t), Dirty: &l.dirty}}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l.svc, err = l.rt.Service("svc"); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *life) end(t *testing.T) {
	t.Helper()
	if err := errors.Join(l.rt.Close(context.Background()), l.dir.Close()); err != nil {
		t.Fatal(err)
	}
}

// save saves, which must succeed, and holds the state file against the ledger.
func (l *life) save(t *testing.T) runtime.SaveEvent {
	t.Helper()
	l.dirty.Mark()
	if err := l.svc.Save(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.saved(t, l.w.all())
	return l.seen.last()
}

// saved holds the newest state file against want, and checks the whole of it.
func (l *life) saved(t *testing.T, want map[place]string) {
	t.Helper()
	opened, err := l.dir.OpenNewest("svc", "store")
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	if err := opened.File().Verify(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := read(opened.File().Records())
	if err != nil || !maps.Equal(got, want) {
		t.Fatalf("saved is %v (%v), want %v", got, err, want)
	}
}

func (l *life) fails(t *testing.T, why string) {
	t.Helper()
	l.dirty.Mark()
	err := l.svc.Save(t.Context())
	if err == nil || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), "GET "+l.w.url) {
		t.Fatalf("saved with %v, want an error of the URL that says %q", err, why)
	}
}

func wantDelta(t *testing.T, e runtime.SaveEvent, delta bool) {
	t.Helper()
	if e.Delta != delta {
		t.Errorf("saved as a delta: %t, want %t; %+v", e.Delta, delta, e)
	}
}

func wantAnswers(t *testing.T, l *ledger, want string) {
	t.Helper()
	if got := l.answers(); got != want {
		t.Errorf("the service answered %s; want %s", got, want)
	}
}

func TestOnlyWhatChangedIsAskedFor(t *testing.T) {
	w := newWorld(t)
	l := w.begin(t)
	for i := range 1000 {
		w.put("", fmt.Sprint(i), strings.Repeat("x", 200))
	}
	wantDelta(t, l.save(t), false)
	w.put("", "5", "changed")
	w.put("other", "5", "added")
	w.remove("", "1")
	w.remove("", "2")
	w.put("", "passing", "soon gone")
	w.remove("", "passing")
	e := l.save(t)
	wantDelta(t, e, true)
	if e.Written > 2000 || e.Records != 999 {
		t.Errorf("saved %+v", e)
	}
	wantDelta(t, l.save(t), true) // nothing has changed
	wantAnswers(t, w.ledger, "all, 5 changes, 0 changes")
	want := w.all()
	l.end(t)

	// What was restored is known to the service by the cursor of its answer.
	w.restart()
	l = w.begin(t)
	if got := w.all(); !maps.Equal(got, want) {
		t.Fatalf("restored %d records of %d, or others", len(got), len(want))
	}
	w.remove("", "7")
	wantDelta(t, l.save(t), true)
	wantAnswers(t, w.ledger, "PUT, 1 changes")
	l.end(t)

	// Where it has none, all is saved.
	w.restart()
	w.silent = true
	l = w.begin(t)
	w.put("", "8", "changed")
	wantDelta(t, l.save(t), false)
	w.put("", "9", "changed")
	wantDelta(t, l.save(t), true)
	wantAnswers(t, w.ledger, "PUT, all, 1 changes")
	if err := l.svc.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.put("", "first", "again")
	wantDelta(t, l.save(t), false)
	wantAnswers(t, w.ledger, "DELETE, all")
	l.end(t)
}

func TestForgottenCursor(t *testing.T) {
	w := newWorld(t)
	l := w.begin(t)
	w.put("", "a", "1")
	l.save(t)
	w.put("", "b", "2")
	w.forget()
	wantDelta(t, l.save(t), false)
	w.remove("", "a")
	wantDelta(t, l.save(t), true)
	wantAnswers(t, w.ledger, "all, all instead, 1 changes")
	l.end(t)
}

// A save that fails leaves the base where it was, wherever it fails.
func TestFailedSaveKeepsTheBase(t *testing.T) {
	w := newWorld(t)
	l := w.begin(t)
	w.put("", "a", "1")
	w.put("", "b", "1")
	l.save(t)
	w.put("", "c", "1")
	w.remove("", "a")
	w.instead = func(rw nethttp.ResponseWriter, _ *nethttp.Request) bool {
		nethttp.Error(rw, "not now", nethttp.StatusServiceUnavailable)
		return true
	}
	l.fails(t, "not now")
	w.instead = func(rw nethttp.ResponseWriter, r *nethttp.Request) bool {
		rw.Header().Set("Content-Length", "1000")
		w.mu.Lock()
		defer w.mu.Unlock()
		status, _, body := w.get(r.Header.Get("Torpor-Since"), rw.Header())
		rw.WriteHeader(status)
		_, _ = rw.Write(body)
		return true
	}
	l.fails(t, "unexpected EOF")
	w.instead = nil
	w.put("", "d", "1")
	wantDelta(t, l.save(t), true)
	wantAnswers(t, w.ledger, "all, 3 changes")

	w.put("", "e", "1")
	w.disk.Inject(vfs.Fault{At: 1, Err: syscall.ENOSPC, Sticky: true})
	l.dirty.Mark()
	if err := l.svc.Save(t.Context()); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("saved on a full disk: %v", err)
	}
	w.disk.Inject(vfs.Fault{})
	w.remove("", "b")
	l.save(t)
	wantAnswers(t, w.ledger, "1 changes, 2 changes")
	l.end(t)
}

// Where the state directory wants everything, that is asked for, as it is by then, and told from.
func TestEverythingIsAskedForAnew(t *testing.T) {
	w := newWorld(t)
	w.compaction = statedir.Compaction{Deltas: 2}
	l := w.begin(t)
	w.put("", "a", "1")
	l.save(t)
	n := 0
	w.before = func() { // something is always new, and something goes
		n++
		w.put("", fmt.Sprint("new ", n), "1")
		w.remove("", fmt.Sprint("new ", n-3))
	}
	for i := range 7 {
		wantDelta(t, l.save(t), i%3 != 2)
	}
	// The first changes after a full save are those since all was asked for.
	wantAnswers(t, w.ledger, "all, 2 changes, 2 changes, 2 changes, all, 2 changes, 2 changes, 2 changes, all, 2 changes")
	want := w.all()
	l.end(t)
	w.before = nil
	w.restart()
	l = w.begin(t)
	if got := w.all(); !maps.Equal(got, want) {
		t.Errorf("restored %v, want %v", got, want)
	}
	l.end(t)
}

// TestWhatADeltaCaptureKeeps: the rules of package runtime, and that everything, once it was asked for, is all that
// a capture has.
func TestWhatADeltaCaptureKeeps(t *testing.T) {
	w := newWorld(t)
	s := w.source(t)
	capture := func() runtime.DeltaCapture {
		c, err := s.Capture(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return c.(runtime.DeltaCapture)
	}
	native := func(write func(context.Context, io.Writer) error) string {
		t.Helper()
		var b bytes.Buffer
		if err := write(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	w.put("", "a", "1")
	w.put("", "b", "1")
	c := capture()
	if d := c.Delta(); d != nil {
		t.Fatalf("a delta of no base: %v", d)
	}
	c.Committed()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	w.put("", "c", "1")
	w.remove("", "a")
	w.put("p", "a", "1")
	w.answers()
	c, uncommitted := capture(), capture()
	d := c.Delta()
	w.put("", "d", "1")
	if d.Growth() != 1 {
		t.Errorf("growth %d", d.Growth())
	}
	want := string(upsert(upsert(nil, "", "c", "1"), "p", "a", "1"))
	for range 2 {
		if got := native(d.WriteUpserts); got != want {
			t.Errorf("upserts %q, want %q", got, want)
		}
		var gone record.Batch
		if err := d.WriteTombstones(t.Context(), sink(func(b *record.Batch) error {
			gone = *b.Clone()
			return nil
		})); err != nil {
			t.Fatal(err)
		}
		if key, text := gone.Key(0); gone.Len() != 1 || !gone.Tombstone(0) || string(key) != "a" || !text || len(gone.Partition(0)) > 0 || !bytes.Equal(gone.Data, tombstone(nil, "", "a")) {
			t.Errorf("tombstones %+v", gone)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	broken := errors.New("broken")
	for _, write := range []func(context.Context, io.Writer) error{d.WriteUpserts, c.WriteNative} {
		if err := write(ended, io.Discard); !errors.Is(err, context.Canceled) {
			t.Errorf("a context that has ended: %v", err)
		}
		if err := write(t.Context(), failing{broken}); !errors.Is(err, broken) {
			t.Errorf("a writer that fails: %v", err)
		}
	}
	first := native(c.WriteNative)
	w.put("", "e", "1")
	if again := native(c.WriteNative); again != first || !bytes.HasSuffix([]byte(first), upsert(upsert(nil, "", "d", "1"), "p", "a", "1")) {
		t.Errorf("all of the state is %q, then %q", first, again)
	}
	wantAnswers(t, w.ledger, "3 changes, 3 changes, all")
	if d := c.Delta(); d != nil {
		t.Errorf("a delta though everything was asked for: %v", d)
	}
	if err := d.WriteUpserts(t.Context(), io.Discard); err == nil {
		t.Error("upserts though everything was asked for")
	}
	c.Committed()
	if err := errors.Join(c.Close(), uncommitted.Close()); err != nil {
		t.Fatal(err)
	}
	if d := uncommitted.Delta(); d != nil {
		t.Error("a delta of what is closed")
	}
	if err := uncommitted.WriteNative(t.Context(), io.Discard); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("what was closed is written: %v", err)
	}
	c = capture()
	if got, want := native(c.Delta().WriteUpserts), string(upsert(nil, "", "e", "1")); got != want {
		t.Errorf("since everything was asked for %q, want %q", got, want)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}

	// A state that is refused is not there, but who knows: everything is asked for.
	if err := s.Restore(t.Context(), strings.NewReader("no records")); !errors.Is(err, abi.ErrCorrupt) {
		t.Fatalf("restored: %v", err)
	}
	w.answers()
	if err := capture().Close(); err != nil {
		t.Fatal(err)
	}
	wantAnswers(t, w.ledger, "all")
}

type sink func(*record.Batch) error

func (s sink) WriteBatch(b *record.Batch) error { return s(b) }

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// forged is an answer about changes.
type forged struct {
	status  int
	headers nethttp.Header
	body    []byte
	want    string // in the error; "" for none
}

func (f forged) ServeHTTP(w nethttp.ResponseWriter, _ *nethttp.Request) {
	maps.Copy(w.Header(), f.headers)
	w.WriteHeader(f.status)
	_, _ = w.Write(f.body)
}

// says is an answer's headers.
func says(pairs ...string) nethttp.Header {
	h := nethttp.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

// TestForgedAnswers: none of what cannot be true is saved, and everything is asked for next.
func TestForgedAnswers(t *testing.T) {
	const c, g = "Torpor-Cursor", "Torpor-Growth"
	a, b, gone := upsert(nil, "", "a", "2"), upsert(nil, "", "b", "2"), tombstone(nil, "", "a")
	three := slices.Concat(b, gone, upsert(nil, "", "c", "2"))
	var long []byte
	for i := range 20_000 {
		long = upsert(long, "", strconv.Itoa(i), "2")
	}
	for name, f := range map[string]forged{
		"right":                      {226, says(c, "next", g, "1"), three, ""},
		"right, all new":             {226, says(c, "next", g, "2"), three, ""},
		"right, none new":            {226, says(c, "next", g, "-1"), three, ""},
		"no cursor":                  {226, says(g, "1"), three, "no Torpor-Cursor"},
		"an empty cursor":            {226, says(c, "", g, "1"), three, "with 1 to 1024"},
		"two cursors":                {226, says(c, "next", c, "other", g, "1"), three, "2 times"},
		"a cursor of two words":      {226, says(c, "next one", g, "1"), three, "printable"},
		"a cursor that is not text":  {226, says(c, "n\xc3\xa4chster", g, "1"), three, "printable"},
		"a long cursor":              {226, says(c, strings.Repeat("x", 1025), g, "1"), three, "1025 bytes"},
		"the cursor it was":          {226, says(c, "0-1", g, "1"), three, "is what it was"},
		"nothing, the cursor it was": {226, says(c, "0-1", g, "0"), nil, ""},
		"nothing grows":              {226, says(c, "next", g, "1"), nil, "cannot make"},
		"no growth":                  {226, says(c, "next"), three, "0 times"},
		"two growths":                {226, says(c, "next", g, "1", g, "1"), three, "2 times"},
		"a growth that is none":      {226, says(c, "next", g, "one"), three, "no number"},
		"a growth beyond 64 bits":    {226, says(c, "next", g, "9223372036854775808"), three, "no number"},
		"grown too much":             {226, says(c, "next", g, "3"), three, "2 records and 1 tombstones cannot make"},
		"shrunk too much":            {226, says(c, "next", g, "-2"), three, "2 records and 1 tombstones cannot make"},
		"a key twice":                {226, says(c, "next", g, "1"), slices.Concat(a, b, a), `key "a" of partition "" is there twice`},
		"gone and there":             {226, says(c, "next", g, "0"), slices.Concat(gone, b, a), "twice"},
		"gone twice":                 {226, says(c, "next", g, "-1"), slices.Concat(gone, b, gone), "twice"},
		"no records":                 {226, says(c, "next", g, "0"), []byte("{}"), "offset 0"},
		"damage far behind":          {226, says(c, "next", g, "0"), slices.Concat(long, []byte{0xff}), fmt.Sprint("offset ", len(long), ":")},
		"it ends inside":             {226, says(c, "next", g, "1"), three[:len(three)-1], "ends inside"},
		"gzip":                       {226, says(c, "next", g, "1", "Content-Encoding", "gzip"), three, "gzip"},
		"206":                        {206, says(c, "next", g, "1"), three, "206"},
		"all, with a broken cursor":  {200, says(c, "a b"), b, "printable"},
		"all, without a cursor":      {200, says(), b, ""},
		"none":                       {204, says(c, "next"), nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{ledger: newLedger()}
			server := httptest.NewServer(w.ledger)
			defer server.Close()
			w.url = server.URL
			s := w.source(t)
			w.put("", "a", "1")
			before, err := s.Capture(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			before.(runtime.DeltaCapture).Committed()
			w.instead = func(rw nethttp.ResponseWriter, r *nethttp.Request) bool {
				f.ServeHTTP(rw, r)
				return true
			}
			got, err := s.Capture(t.Context())
			if f.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if d := got.(runtime.DeltaCapture).Delta(); (d != nil) != (f.status == 226) {
					t.Errorf("a delta of an answer with %d: %v", f.status, d)
				}
				if err := errors.Join(before.Close(), got.Close()); err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), f.want) || !strings.Contains(err.Error(), "GET "+w.url+"/state?of=ledger") || !strings.Contains(err.Error(), "service notes, part store") {
				t.Fatalf("captured with %v, want %q", err, f.want)
			}
			w.instead = nil
			w.answers()
			after, err := s.Capture(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want := "all"
			if name == "206" || name == "gzip" { // says nothing of the cursor
				want = "0 changes"
			}
			wantAnswers(t, w.ledger, want)
			if err := errors.Join(before.Close(), after.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestChangesWithoutACursor: 226 is no answer to who has not asked for changes.
func TestChangesWithoutACursor(t *testing.T) {
	f := forged{226, says("Torpor-Cursor", "next", "Torpor-Growth", "0"), nil, ""}
	server := httptest.NewServer(f)
	defer server.Close()
	for _, cursor := range []bool{true, false} {
		if c, err := newSource(t, http.Config{URL: server.URL, Atomic: true, Cursor: cursor}).Capture(t.Context()); err == nil || !strings.Contains(err.Error(), "226") {
			t.Errorf("%v was captured (%v)", c, err)
		}
	}
}

// TestWhatIsTooMuchForADelta: all of the state is captured in its place, by the spool's limit.
func TestWhatIsTooMuchForADelta(t *testing.T) {
	many := make([]byte, 0, 16<<20)
	for i := range 1<<20 + 1 {
		many = tombstone(many, "", strconv.Itoa(i))
	}
	for name, c := range map[string]struct {
		body  []byte
		limit int64
	}{
		"changes":  {many, 0},
		"a record": {record.AppendBytesHead(record.AppendText(record.AppendText(record.AppendRecord(nil), ""), ""), 65<<20), 0},
		"bytes":    {upsert(nil, "", "k", strings.Repeat("x", 1000)), 1000},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			server := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
				asked++
				w.Header().Set("Torpor-Cursor", strconv.Itoa(asked))
				if r.Header.Get("Torpor-Since") == "" {
					_, _ = w.Write(upsert(nil, "", "all", "1"))
					return
				}
				w.Header().Set("Torpor-Growth", "0")
				w.WriteHeader(nethttp.StatusIMUsed)
				_, _ = w.Write(c.body)
				if name == "a record" {
					_, _ = w.Write(make([]byte, 65<<20))
				}
			}))
			defer server.Close()
			s := newSource(t, http.Config{URL: server.URL, Atomic: true, Cursor: true, Spool: spool.Config{Bytes: c.limit}})
			for range 2 {
				c, err := s.Capture(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				d := c.(runtime.DeltaCapture)
				if d.Delta() != nil {
					t.Error("a delta")
				}
				d.Committed()
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if asked != 3 {
				t.Errorf("%d requests", asked)
			}
		})
	}
}

// TestSourceWithCursors: the rest of what a source must keep holds with cursors, too.
func TestSourceWithCursors(t *testing.T) {
	sourcetest.Test(t, func(t *testing.T) sourcetest.Fixture {
		live := &service{}
		server := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
			if r.Method == nethttp.MethodGet {
				w.Header().Set("Torpor-Cursor", "moment")
			}
			live.ServeHTTP(w, r)
		}))
		text := func(n int) string { return strings.Repeat(fmt.Sprintf("state %d ", n), 20) }
		return sourcetest.Fixture{
			Source:  newSource(t, http.Config{URL: server.URL, Atomic: true, Cursor: true}),
			Put:     func(n int) { live.set(text(n)) },
			State:   live.get,
			Request: func(n int) { live.set(text(n)) },
			Close:   server.Close,
		}
	})
}

// TestAtRandom: after every save the file holds what the service has, after every restart the service what the
// file holds, whatever was forgotten, broken or said wrongly between.
func TestAtRandom(t *testing.T) {
	for seed := range 4 {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(seed), 0))
			w := newWorld(t)
			w.compaction = statedir.Compaction{Deltas: 9}
			l := w.begin(t)
			deltas, fulls := 0, 0
			save := func() {
				if l.save(t).Delta {
					deltas++
				} else {
					fulls++
				}
			}
			for range 150 {
				for range r.IntN(8) {
					partition, key := fmt.Sprint(r.IntN(3)), fmt.Sprint(r.IntN(40))
					if r.IntN(3) == 0 {
						w.remove(partition, key)
					} else {
						w.put(partition, key, strings.Repeat(fmt.Sprint(r.Int()), r.IntN(50)))
					}
				}
				switch r.IntN(12) {
				case 0:
					w.forget()
				case 1: // the answer breaks off, or is of another service
					status, n := []int{226, 500}[r.IntN(2)], r.IntN(1000)
					w.instead = func(rw nethttp.ResponseWriter, _ *nethttp.Request) bool {
						forged{status, says("Torpor-Cursor", "0-1", "Torpor-Growth", "1", "Content-Length", strconv.Itoa(n+1)), make([]byte, n), ""}.ServeHTTP(rw, nil)
						return true
					}
					l.fails(t, "")
					w.instead = nil
				case 2: // the runtime ends, and the service too, perhaps
					save()
					want := w.all()
					l.end(t)
					w.silent = r.IntN(4) == 0
					if r.IntN(2) == 0 {
						w.restart()
					}
					l = w.begin(t)
					if got := w.all(); !maps.Equal(got, want) {
						t.Fatalf("restored %v, want %v", got, want)
					}
				case 3: // what was not saved is lost
					save()
					want := w.all()
					w.put("lost", "lost", "1")
					if _, err := l.svc.Load(t.Context()); err != nil {
						t.Fatal(err)
					}
					if got := w.all(); !maps.Equal(got, want) {
						t.Fatalf("loaded %v, want %v", got, want)
					}
				case 4:
					if err := l.svc.Reset(t.Context()); err != nil {
						t.Fatal(err)
					}
				case 5: // it changes while it is saved
					n := r.Int()
					w.before = func() { w.put("before", fmt.Sprint(n%5), fmt.Sprint(r.Int())) }
					save()
					w.before = nil
				default:
					save()
				}
			}
			l.end(t)
			if deltas < 50 || fulls < 10 {
				t.Errorf("%d deltas, %d full saves", deltas, fulls)
			}
			err := statedir.Verify(t.Context(), w.disk, statedir.VerifyOptions{}, func(f statedir.Finding) {
				if f.Err != nil {
					t.Errorf("%+v", f)
				}
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}
