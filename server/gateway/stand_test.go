package gateway_test

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/torpor-run/torpor/server/gateway"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stand is a gateway in front of one service, with clients for both.
type stand struct {
	service string // addresses, host:port
	gateway string
	h1, h2  *http.Client
	events  *events
}

// events are what the gateway told, in order.
type events struct {
	mu    sync.Mutex
	seen  []string
	added chan struct{} // closed and replaced with each
}

func (e *events) add(what string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen = append(e.seen, what)
	close(e.added)
	e.added = make(chan struct{})
}

func (e *events) all() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.seen, " ")
}

func (e *events) count(what string) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.seen {
		if s == what {
			n++
		}
	}
	return n
}

// until waits for events.
func (e *events) until(t *testing.T, what string, n int) {
	t.Helper()
	for deadline := time.After(patience); e.count(what) < n; {
		e.mu.Lock()
		added := e.added
		e.mu.Unlock()
		if e.count(what) >= n {
			return
		}
		select {
		case <-added:
		case <-deadline:
			t.Fatalf("no %s: %s", what, e.all())
		}
	}
}

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// options are what a test may want otherwise.
type options struct {
	config func(*gateway.Config)
	visit  func(*gateway.Visit, *http.Request)
	reads  bool
}

// newStand puts a gateway in front of a handler; h2c services speak HTTP/2.
func newStand(t testing.TB, h http.Handler, o options) *stand {
	t.Helper()
	service := httptest.NewUnstartedServer(h)
	service.Config.Protocols = both()
	service.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	service.Start()
	t.Cleanup(service.Close)
	return before(t, service.Listener.Addr().String(), o)
}

func both() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	return p
}

// before puts a gateway in front of an address.
func before(t testing.TB, address string, o options) *stand {
	t.Helper()
	s := &stand{service: address, events: &events{added: make(chan struct{})}}
	cfg := gateway.Config{Service: "orders", Address: func() string { return address }, Logger: slog.New(slog.DiscardHandler)}
	if o.config != nil {
		o.config(&cfg)
	}
	proxy, err := gateway.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := gateway.Visit{Leave: func() { s.events.add("leave") }, Changed: func() { s.events.add("changed") }}
		if o.reads {
			v.Changed = nil
		}
		if o.visit != nil {
			o.visit(&v, r)
		}
		proxy.Pass(w, r, v)
	}))
	front.Config.Protocols = both()
	front.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	front.Start()
	t.Cleanup(front.Close)
	s.gateway = front.Listener.Addr().String()
	h1 := &http.Transport{DisableCompression: true, ExpectContinueTimeout: patience}
	h2 := &http.Transport{DisableCompression: true, Protocols: new(http.Protocols)}
	h2.Protocols.SetUnencryptedHTTP2(true)
	s.h1, s.h2 = &http.Client{Transport: h1, CheckRedirect: asItIs}, &http.Client{Transport: h2, CheckRedirect: asItIs}
	t.Cleanup(h1.CloseIdleConnections)
	t.Cleanup(h2.CloseIdleConnections)
	return s
}

func asItIs(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// rawService is a service that answers by hand: serve gets each connection, and what it has to say it with.
func rawService(t testing.TB, serve func(conn net.Conn, r *bufio.Reader)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			wg.Go(func() {
				defer conn.Close()
				serve(conn, bufio.NewReader(conn))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// header reads the header of a message.
func header(r *bufio.Reader) (string, error) {
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		b.WriteString(line)
		if err != nil || strings.TrimRight(line, "\r\n") == "" {
			return b.String(), err
		}
	}
}

// saying answers every request on a connection with the same bytes, and then ends it.
func saying(answer string) func(net.Conn, *bufio.Reader) {
	return func(conn net.Conn, r *bufio.Reader) {
		if _, err := header(r); err == nil {
			io.WriteString(conn, answer)
		}
	}
}

// raw sends bytes and gives all that comes back until the other side ends it.
func raw(t *testing.T, address, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	io.WriteString(conn, request)
	b, err := io.ReadAll(conn)
	if err != nil && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "reset") {
		t.Errorf("%v after %q", err, b)
	}
	return string(b)
}

// answer is one read to its end.
type answer struct {
	*http.Response
	body string
	err  error
}

func (s *stand) do(t testing.TB, client *http.Client, address, method, target string, body io.Reader, fields ...string) answer {
	t.Helper()
	req, err := http.NewRequest(method, "http://"+address+target, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(fields); i += 2 {
		req.Header.Add(fields[i], fields[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp, string(b), err}
}
