package gateway

import (
	"bufio"
	"maps"
	"mime"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// HeldBytes is how much of an answer is kept with its header until the request has left, where [Visit].Hold says
// so; of a longer one the header and the beginning go on, and only the end waits.
const HeldBytes = 64 << 10

// heldFor is how long: an answer that takes longer is one to be read while it comes.
const heldFor = time.Second

// answer is the way back of one passage.
type answer struct {
	http.ResponseWriter
	pass *passage

	status  int   // 0: not known yet
	length  int64 // of the body, as the header says it; -1: it does not
	written int64 // bytes of the body, those held included
	writes  int
	spliced bool

	timely bool // it is flushed by the proxy's flushes, when it is long in coming
	waits  bool // for that

	mu sync.Mutex // between the service's answer and a timer, where it is timely or holds

	// What follows is used where the end of the answer waits.
	holds  bool
	header http.Header
	all    bool   // nothing has gone out yet
	held   []byte // what waits
	timer  *time.Timer
}

func newAnswer(w http.ResponseWriter, pass *passage) *answer {
	a := &answer{ResponseWriter: w, pass: pass, length: -1}
	if pass.visit.Hold && pass.visit.Changed != nil {
		a.holds, a.header = true, http.Header{}
	}
	return a
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header {
	if a.holds {
		return a.header
	}
	return a.ResponseWriter.Header()
}

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if status < 200 {
		a.inform(status)
		return
	}
	if a.status != 0 {
		return
	}
	a.status = status
	h := a.Header()
	if a.pass.in.ProtoMajor == 1 && h.Get("Trailer") != "" && a.pass.in.Method != http.MethodHead {
		h.Del("Content-Length") // HTTP/2 may have both, HTTP/1.1 has trailers only after chunks
	}
	if length := h.Get("Content-Length"); length != "" {
		if n, err := strconv.ParseInt(length, 10, 64); err == nil {
			a.length = n
		}
	}
	if !a.pass.own {
		// Where the service says neither, the server would: nil keeps it from that.
		for _, name := range [...]string{"Date", "Content-Type"} {
			if _, said := h[name]; !said {
				h[name] = nil
			}
		}
	}
	if body := a.pass.body; body != nil && a.pass.in.ProtoMajor == 1 && !body.ended.Load() {
		// The answer comes before the end of the request: both go on at once, which without this the server
		// would not let them. What follows on such a connection may be the rest of this request, so it is closed.
		if http.NewResponseController(a.ResponseWriter).EnableFullDuplex() == nil {
			h["Connection"] = []string{"close"}
		}
	}
	if a.holds {
		a.hold(h)
		return
	}
	a.pass.changed()
	a.ResponseWriter.WriteHeader(status)
	if a.timely {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.wait()
	}
}

// inform passes a 1xx answer on.
func (a *answer) inform(status int) {
	h := a.Header()
	for _, name := range connectionOnly() {
		h.Del(name)
	}
	if !a.pass.in.ProtoAtLeast(1, 1) {
		return // HTTP/1.0 has none
	}
	if a.holds {
		maps.Copy(a.ResponseWriter.Header(), h)
		defer clear(a.ResponseWriter.Header())
	}
	a.ResponseWriter.WriteHeader(status)
}

// connectionOnly are header fields of one connection, which net/http/httputil forgets in 1xx answers.
func connectionOnly() [9]string {
	return [...]string{"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}
}

// Write implements http.ResponseWriter.
func (a *answer) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	if a.holds {
		return a.keep(b)
	}
	a.writes++
	a.written += int64(len(b))
	if a.writes > 1 && a.written == a.length {
		a.pass.changed() // again, as it was long in coming, and before the client has the end
	}
	if a.timely {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.length < 0 || a.written < a.length { // the end goes out when the passage ends, which is now
			a.wait()
		}
	}
	return a.ResponseWriter.Write(b)
}

// Flush implements http.Flusher.
func (a *answer) Flush() {
	if a.spliced {
		return // by somebody else than writes it, and nothing waits
	}
	if a.holds || a.timely {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.all {
			return
		}
	}
	_ = http.NewResponseController(a.ResponseWriter).Flush()
}

// Unwrap lets http.ResponseController reach what the underlying writer can do.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Hijack implements http.Hijacker. What the client sent already is read first.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(a.ResponseWriter).Hijack()
	if err != nil {
		return conn, rw, err
	}
	if n := rw.Reader.Buffered(); n > 0 {
		early, _ := rw.Reader.Peek(n)
		conn = &begunConn{Conn: conn, early: slices.Clone(early)}
	}
	return conn, rw, nil
}

// begunConn is a connection of which something was read already.
type begunConn struct {
	net.Conn
	early []byte
}

func (c *begunConn) Read(b []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(b, c.early)
		c.early = c.early[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// CloseWrite says to the client that nothing more comes.
func (c *begunConn) CloseWrite() error { return closeWrite(c.Conn) }

// closeWrite ends one direction of a connection that can do so.
func closeWrite(conn any) error {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// hold begins to hold the answer.
func (a *answer) hold(h http.Header) {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.Copy(a.ResponseWriter.Header(), h)
	a.all = true
	if streams(h) {
		a.release()
		return
	}
	a.timer = time.AfterFunc(heldFor, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.all {
			a.release()
			_ = http.NewResponseController(a.ResponseWriter).Flush()
		}
	})
}

// streams tells answers that are read while they come. Trailers come after a header that has gone out.
func streams(h http.Header) bool {
	kind, _, _ := mime.ParseMediaType(h.Get("Content-Type"))
	return kind == "text/event-stream" || strings.HasPrefix(kind, "application/grpc") || strings.HasPrefix(kind, "multipart/x-") || h.Get("Trailer") != ""
}

// release lets go out what was held; only the end waits from now on. The caller holds mu.
func (a *answer) release() {
	a.all = false
	a.pass.changed()
	a.ResponseWriter.WriteHeader(a.status)
	if a.length < 0 || a.written < a.length {
		_, _ = a.ResponseWriter.Write(a.held) // the next write tells of the error
		a.held = nil
	}
}

// keep holds b back, or writes it if it need not wait.
func (a *answer) keep(b []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.written += int64(len(b))
	if a.all && len(a.held)+len(b) > HeldBytes {
		a.release()
	}
	if a.all || a.written == a.length {
		a.held = append(a.held, b...)
		return len(b), nil
	}
	return a.ResponseWriter.Write(b)
}

// stop is called last: nothing is written after it.
func (a *answer) stop() {
	a.untimely()
	if !a.holds {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = false
	if a.timer != nil {
		a.timer.Stop()
	}
}

// finish is called when the service has answered to the end: the request leaves, and then so does the end of the
// answer.
func (a *answer) finish() {
	if a.status == 0 {
		return // it is no HTTP any more
	}
	if !a.holds {
		if a.length < 0 && a.writes > 0 {
			a.pass.changed()
		}
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pass.changed()
	a.pass.leave()
	under := a.ResponseWriter.Header()
	for name, values := range a.header {
		if _, there := under[name]; !there || !a.all {
			under[name] = values // trailers have come since
		}
	}
	if a.all {
		a.ResponseWriter.WriteHeader(a.status)
	}
	if len(a.held) > 0 {
		_, _ = a.ResponseWriter.Write(a.held)
	}
}
