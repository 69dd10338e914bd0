package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of [Config].
const (
	DefaultDialTimeout = 5 * time.Second
	// DefaultIdleTimeout is how long a connection to an upstream is kept without a request. Servers close theirs
	// after 2 seconds (gunicorn), 5 (Node.js, uvicorn) and more: what is sent in that moment is lost, and must
	// not be sent again if it may change something. So it is given up before.
	DefaultIdleTimeout = 1500 * time.Millisecond
)

// flushInterval is how long a piece of an answer of known length waits for more of it. What has no length, and
// events, do not wait.
const flushInterval = 20 * time.Millisecond

// Protocol is what an upstream speaks.
type Protocol string

// The protocols.
const (
	HTTP1 Protocol = "http1" // HTTP/1.1
	H2C   Protocol = "h2c"   // HTTP/2 without TLS, as gRPC servers speak it
)

// Config is what a [Proxy] is made of.
type Config struct {
	Service string // for messages; required
	// Address is where the service listens, "127.0.0.1:3000", asked for each request: one that was started again
	// may listen elsewhere. "" says that it does not. Required.
	Address       func() string
	Protocol      Protocol      // "": http1
	DialTimeout   time.Duration // 0: DefaultDialTimeout
	IdleTimeout   time.Duration // 0: DefaultIdleTimeout
	HeaderTimeout time.Duration // from the end of the request to the answer's header; 0: as long as it takes
	Logger        *slog.Logger  // required
}

// Visit is one request's passage through a service, as the runtime sees it. All functions but Leave may be nil.
type Visit struct {
	// Leave is called once, when the service has done with the request.
	Leave func()
	// Changed is called when the request may have changed something: after the service did, and before the client
	// can know. nil: the request only reads.
	Changed func()
	// Hold keeps the end of the answer, and an answer of up to HeldBytes with all of its header, until Leave has
	// returned. Only for requests that change something.
	Hold bool

	// Release says that a connection that is no longer HTTP (a WebSocket) leaves at once, when it was switched;
	// otherwise when it ends.
	Release bool
	// Switched is called when the connection is switched, before it leaves. Changed is not called for it: whatever
	// the request was, from here on it may change something.
	Switched func()
	// Written is called when a switched connection has brought something to the service, at most once a second
	// and off the connection's way, and when it ends, before it leaves if it has not.
	Written func()
	// Active is called every Every while a switched connection lasts that was released.
	Active func()
	Every  time.Duration
}

// Proxy passes requests on to a service over HTTP. It is safe for concurrent use, and to be closed when it is no
// longer needed.
type Proxy struct {
	config    Config
	transport *http.Transport
	buffers   buffers
	template  httputil.ReverseProxy
	flushes   flushes
}

// New makes a proxy. It connects to nothing yet.
func New(cfg Config) (*Proxy, error) {
	if cfg.Service == "" || cfg.Address == nil || cfg.Logger == nil {
		return nil, errors.New("gateway: Service, Address and Logger are required")
	}
	if cfg.DialTimeout == 0 {
		cfg.DialTimeout = DefaultDialTimeout
	}
	if cfg.IdleTimeout == 0 {
		cfg.IdleTimeout = DefaultIdleTimeout
	}
	protocols := new(http.Protocols)
	switch cfg.Protocol {
	case "", HTTP1:
		protocols.SetHTTP1(true)
	case H2C:
		protocols.SetUnencryptedHTTP2(true)
	default:
		return nil, fmt.Errorf("service %s: protocol %q is neither %s nor %s", cfg.Service, cfg.Protocol, HTTP1, H2C)
	}
	p := &Proxy{config: cfg}
	p.transport = &http.Transport{
		Protocols:          protocols,
		DialContext:        dial(&net.Dialer{Timeout: cfg.DialTimeout}),
		DisableCompression: true, // what the client asked for is what it gets
		// As many as there are clients at once: the service bounds itself.
		MaxIdleConns: 0, MaxIdleConnsPerHost: 1024,
		IdleConnTimeout:       cfg.IdleTimeout,
		ResponseHeaderTimeout: cfg.HeaderTimeout,
		ExpectContinueTimeout: time.Second, // for a service that knows nothing of it
	}
	p.template = httputil.ReverseProxy{Transport: p.transport, BufferPool: &p.buffers, FlushInterval: flushInterval,
		ErrorLog: slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug)}
	return p, nil
}

// Close gives back the connections that no request uses.
func (p *Proxy) Close() { p.transport.CloseIdleConnections() }

// ServeHTTP passes a request on that nobody keeps account of.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.Pass(w, r, Visit{Leave: func() {}})
}

// Pass passes a request on and answers with what the service answers. Where there is no answer it makes one:
// 502 if the service cannot be reached or what it answers is not HTTP, 504 if it takes longer than it may, 400
// if the request's body was cut off. An answer that breaks off does so for the client too: Pass then panics with
// [http.ErrAbortHandler].
func (p *Proxy) Pass(w http.ResponseWriter, r *http.Request, v Visit) {
	pass := &passage{proxy: p, visit: v, in: r}
	defer pass.end()
	if r.Method == http.MethodConnect {
		pass.unsent = true
		WriteError(w, http.StatusMethodNotAllowed, "method_not_allowed", "CONNECT is not passed on", "send requests to the services by their own methods")
		return
	}
	out := new(http.Request)
	*out = *r
	if r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0 {
		pass.body = &body{ReadCloser: r.Body, left: r.ContentLength}
		out.Body = pass.body
	}
	a := newAnswer(w, pass)
	pass.answer = a
	defer a.stop()
	rp := p.template
	pass.rp = &rp
	rp.Rewrite, rp.ModifyResponse, rp.ErrorHandler = pass.rewrite, pass.answered, pass.failed
	rp.ServeHTTP(a, out)
	a.finish()
}

// passage is one request on its way.
type passage struct {
	proxy  *Proxy
	visit  Visit
	in     *http.Request
	body   *body // of the request; nil: none
	answer *answer
	rp     *httputil.ReverseProxy // of this passage
	conn   *upstreamConn          // that it got; nil: not known
	unsent bool                   // nothing of it reached the service
	own    bool                   // the answer is the gateway's own
	marked atomic.Bool            // Changed was called

	leaving sync.Once
	tunnel  *tunnel // the connection, once it was switched
}

// changed says that the request may have changed something.
func (p *passage) changed() {
	if p.visit.Changed != nil && !p.unsent {
		p.marked.Store(true)
		p.visit.Changed()
	}
}

func (p *passage) leave() { p.leaving.Do(p.visit.Leave) }

// end is the end of the passage, however it ended. What was sent may have changed something even if nothing was
// answered.
func (p *passage) end() {
	if p.tunnel != nil {
		p.tunnel.end()
	}
	if !p.marked.Load() {
		p.changed()
	}
	p.leave()
}

// rewrite makes the request to the service.
func (p *passage) rewrite(pr *httputil.ProxyRequest) {
	in, out := p.in, pr.Out
	path, query := target(in)
	// Two slashes in front would be taken for a host.
	out.URL = &url.URL{Scheme: "http", Host: p.proxy.config.Address(), RawQuery: strings.TrimPrefix(query, "?"), ForceQuery: query == "?"}
	if strings.HasPrefix(path, "//") || !strings.HasPrefix(path, "/") {
		out.URL.Path, out.URL.RawPath = in.URL.Path, in.URL.RawPath
	} else {
		out.URL.Opaque = path
	}
	if len(out.Trailer) > 0 {
		// The server fills it when the body has been read; a copy would stay as it is now.
		out.Trailer = in.Trailer
	}
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if values := in.Header[name]; len(values) > 0 {
			out.Header[name] = values
		}
	}
	if client, _, err := net.SplitHostPort(in.RemoteAddr); err == nil {
		way := append(slices.Clone(in.Header["X-Forwarded-For"]), client)
		out.Header["X-Forwarded-For"] = []string{strings.Join(way, ", ")}
	}
	// A proxy in front of this one knows better how the client came.
	for _, said := range [...]header{{"X-Forwarded-Host", in.Host}, {"X-Forwarded-Proto", "http"}} {
		if len(out.Header[said.name]) == 0 && said.value != "" {
			out.Header[said.name] = []string{said.value}
		}
	}
	if upgrade := out.Header.Get("Upgrade"); strings.EqualFold(upgrade, "h2c") {
		// Nobody needs it any more, and in it requests would pass unseen.
		out.Header.Del("Upgrade")
		out.Header.Del("Connection")
	}
	// net/http sends a request again by itself if the connection broke and the method is one that may be
	// repeated; this field makes it think so of any method. Under another case's name it does not see it.
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		if values, is := out.Header[name]; is {
			delete(out.Header, name)
			out.Header[strings.ToLower(name)] = values
		}
	}
	pr.Out = p.watchConn(out)
}

// answered is called when the header of the answer is here.
func (p *passage) answered(res *http.Response) error {
	switch res.StatusCode {
	case http.StatusSwitchingProtocols:
	case http.StatusNoContent, http.StatusNotModified:
		// Over HTTP/2 net/http waits for as much of a body as the header says there would be.
		_ = res.Body.Close()
		res.Body = http.NoBody
		return nil
	default:
		res.Body = p.splice(res)
		// What has no length is flushed at once, by httputil; trailers, which only what is said in pieces has over
		// HTTP/1.1, are left to it too.
		if res.ContentLength >= 0 && res.ProtoMajor == 1 && !p.answer.holds && !p.answer.spliced {
			p.answer.timely, p.rp.FlushInterval = true, 0
		}
		return nil
	}
	conn, ok := res.Body.(io.ReadWriteCloser)
	if !ok {
		return nil
	}
	p.marked.Store(true)
	p.tunnel = newTunnel(conn, p)
	res.Body = p.tunnel
	return nil
}

// statusClientGone is what goes to the log and the metrics where nobody reads the answer any more.
const statusClientGone = 499

// failed answers where the service did not.
func (p *passage) failed(w http.ResponseWriter, _ *http.Request, err error) {
	p.own = true
	name, address := p.proxy.config.Service, p.proxy.config.Address()
	var op *net.OpError
	var timeout net.Error
	switch {
	case p.in.Context().Err() != nil:
		w.WriteHeader(statusClientGone)
	case address == "" || errors.As(err, &op) && op.Op == "dial":
		p.unsent = true
		w.Header().Set("Retry-After", "1")
		why := "it listens nowhere yet"
		if address != "" {
			why = "nothing answers at " + address + ": " + err.Error()
		}
		WriteError(w, http.StatusBadGateway, "upstream_away", "service "+name+": "+why, "see whether it runs: /_torpor/health, and its log")
	case p.body != nil && p.body.failure() != nil:
		WriteError(w, http.StatusBadRequest, "bad_request", fmt.Sprintf("service %s: the request's body could not be read to its end: %v", name, p.body.failure()), "")
	case errors.As(err, &timeout) && timeout.Timeout() && p.proxy.config.HeaderTimeout > 0:
		WriteError(w, http.StatusGatewayTimeout, "upstream_timeout", fmt.Sprintf("service %s at %s did not begin to answer within %v", name, address, p.proxy.config.HeaderTimeout), "")
	default:
		WriteError(w, http.StatusBadGateway, "upstream_failed", fmt.Sprintf("service %s at %s gave no answer that is HTTP: %v", name, address, err), "it may have done what was asked; see its log")
	}
	p.proxy.config.Logger.Log(context.WithoutCancel(p.in.Context()), slog.LevelDebug, "a request was not answered by its service", "service", name, "method", p.in.Method, "path", p.in.URL.Path, "error", err)
}

// body is the request's body, and what became of it. Its end is told with its last bytes, and only by it: net/http
// looks for more after it has sent them, when the answer may be here already, and the server then has closed what
// is below; it would take that for a failure and close the connection in the middle of the answer.
type body struct {
	io.ReadCloser
	left   int64 // bytes to come; negative: not known
	ended  atomic.Bool
	broken atomic.Pointer[error]
}

func (b *body) Read(to []byte) (int, error) {
	if b.ended.Load() {
		return 0, io.EOF
	}
	n, err := b.ReadCloser.Read(to)
	if b.left > 0 {
		if b.left -= int64(n); b.left == 0 && err == nil {
			err = io.EOF
		}
	}
	switch {
	case err == io.EOF:
		b.ended.Store(true)
	case err != nil:
		b.broken.CompareAndSwap(nil, &err)
	}
	return n, err
}

func (b *body) failure() error {
	if err := b.broken.Load(); err != nil {
		return *err
	}
	return nil
}

// buffers are what bodies are copied through.
type buffers struct{ pool sync.Pool }

// bufferSize is what one read from a service takes at most.
const bufferSize = 64 << 10

func (b *buffers) Get() []byte {
	if kept, ok := b.pool.Get().(*[bufferSize]byte); ok {
		return kept[:]
	}
	return new([bufferSize]byte)[:]
}

func (b *buffers) Put(buf []byte) { b.pool.Put((*[bufferSize]byte)(buf)) }
