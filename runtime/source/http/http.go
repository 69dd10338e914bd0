package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	nethttp "net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/spool"
)

// Defaults and bounds of [Config].
const (
	MinTimeout     = 100 * time.Millisecond
	DefaultTimeout = 5 * time.Minute
	MaxTimeout     = 24 * time.Hour
)

// maxSaid is how much of an answer that is an error is told, in bytes.
const maxSaid = 1 << 10

// Config is what a [Source] is made of. Zero fields mean the defaults.
type Config struct {
	Service, Part string         // for messages
	URL           string         // the state URL, http or https; required
	Header        nethttp.Header // sent with every request, such as Authorization
	Media         string         // media type of the native state; "" is application/octet-stream, with Cursor abi.MediaRecords
	Timeout       time.Duration  // for one exchange
	Atomic        bool           // the service gives a consistent state by itself: requests need not be held for GET
	Cursor        bool           // the service tells what has changed since a cursor; needs Atomic, and records
	Spool         spool.Config   // where states are kept on their way
}

// Source takes and gives a service's state over HTTP. It is a [runtime.AtomicSource], safe for concurrent
// use as far as the service is.
type Source struct {
	config Config
	client *nethttp.Client

	mu   sync.Mutex
	base string // the cursor that changes are asked for since; "" where none is known
}

// New makes a source; it sends nothing yet. The error names what is wrong with the configuration.
func New(config Config) (*Source, error) {
	u, err := url.Parse(config.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("http source: %q is no URL of a service's state, such as http://127.0.0.1:8080/state", config.URL)
	}
	switch {
	case config.Cursor && !config.Atomic:
		return nil, errors.New("http source: Cursor is set without Atomic: a service that tells what has changed since a moment knows its state at one")
	case config.Cursor && config.Media != "" && config.Media != abi.MediaRecords:
		return nil, fmt.Errorf("http source: Cursor is set and Media is %q; what has changed can be told of records only, %s", config.Media, abi.MediaRecords)
	case config.Cursor:
		config.Media = abi.MediaRecords
	}
	if config.Media == "" {
		config.Media = "application/octet-stream"
	}
	if config.Timeout == 0 {
		config.Timeout = DefaultTimeout
	}
	if config.Timeout < MinTimeout || config.Timeout > MaxTimeout {
		return nil, fmt.Errorf("http source: Timeout is %v; it may be %v to %v", config.Timeout, MinTimeout, MaxTimeout)
	}
	if config.Spool, err = config.Spool.Check(); err != nil {
		return nil, err
	}
	return &Source{config: config, client: &nethttp.Client{
		// A state is asked for now and then: a connection that was kept meanwhile may be gone when a PUT,
		// which can not be sent twice, is half way. Nor may anything stand between that changes bytes.
		Transport:     &nethttp.Transport{DisableKeepAlives: true, DisableCompression: true},
		CheckRedirect: func(*nethttp.Request, []*nethttp.Request) error { return nethttp.ErrUseLastResponse },
	}}, nil
}

// AtomicCapture implements [runtime.AtomicSource].
func (s *Source) AtomicCapture() bool { return s.config.Atomic }

// Capture implements [runtime.Source]: it reads the state to its end. The error wraps abi.ErrNotFound
// where the service knows no such URL, abi.ErrTooLarge where the state passes Config.Spool.Bytes.
//
// With Config.Cursor it is a [runtime.DeltaCapture]. Where that gives a Delta only what has changed was
// read, and its WriteNative asks the service for all, as it is by then.
func (s *Source) Capture(ctx context.Context) (runtime.Capture, error) {
	if s.config.Cursor {
		return s.captureSince(ctx)
	}
	a, err := s.get(ctx, "")
	if err != nil {
		return nil, err
	}
	return a.body, nil
}

// answer is what a service has answered to GET.
type answer struct {
	body    *spool.Spool
	cursor  string // of its moment; "" where there is none
	changes bool   // body is what has changed, otherwise all of the state
	growth  int64  // of changes
}

// get asks for the state, or for what has changed since a cursor.
func (s *Source) get(ctx context.Context, since string) (a answer, err error) {
	err = s.exchange(ctx, request{method: nethttp.MethodGet, since: since}, func(ctx context.Context, r *nethttp.Response) (err error) {
		a.changes = since != "" && r.StatusCode == nethttp.StatusIMUsed
		if !a.changes && r.StatusCode != nethttp.StatusOK && r.StatusCode != nethttp.StatusNoContent {
			return fmt.Errorf("%s: a state is answered with 200, none with 204", r.Status)
		}
		if coding := r.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
			return fmt.Errorf("the answer has the Content-Encoding %q, which was not asked for", coding)
		}
		if !ends(r) {
			return errors.New("the answer says neither how long it is nor comes in chunks: where it ends could not be told from a broken connection")
		}
		if s.config.Cursor {
			if a.cursor, err = cursorIn(r.Header); err != nil {
				return err
			}
		}
		read := func(w io.Writer) error {
			_, err := io.Copy(w, r.Body)
			return err
		}
		if a.changes {
			var told told
			if told, err = toldIn(r.Header, since, a.cursor); err != nil {
				return err
			}
			a.growth = told.growth
			read = func(w io.Writer) error { return told.check(io.TeeReader(r.Body, w)) }
		}
		a.body, err = s.config.Spool.Fill(ctx, read)
		return err
	})
	return a, err
}

// ends reports whether the end of an answer's body is more than the end of its connection.
func ends(r *nethttp.Response) bool {
	return r.ContentLength >= 0 || len(r.TransferEncoding) > 0 || r.ProtoMajor > 1
}

// Restore implements [runtime.Source].
func (s *Source) Restore(ctx context.Context, native io.Reader) (err error) {
	state, err := s.config.Spool.Fill(ctx, func(w io.Writer) error {
		_, err := io.Copy(w, native)
		return err
	})
	if err != nil {
		return s.about(err)
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	s.setBase("") // until it is certain what there is
	return s.exchange(ctx, request{method: nethttp.MethodPut, state: state}, func(ctx context.Context, r *nethttp.Response) error {
		cursor, cursorErr := "", error(nil)
		if s.config.Cursor {
			cursor, cursorErr = cursorIn(r.Header)
		}
		err := drain(ctx, r)
		if err == nil && cursorErr == nil {
			s.setBase(cursor) // a cursor that is none is as none: the state has been replaced
		}
		return err
	})
}

// Reset implements [runtime.Source]. The error wraps errors.ErrUnsupported where the service cannot be
// emptied (405, 501).
func (s *Source) Reset(ctx context.Context) error {
	s.setBase("")
	return s.exchange(ctx, request{method: nethttp.MethodDelete}, drain)
}

// drain reads what a service says besides its status.
func drain(_ context.Context, r *nethttp.Response) error {
	_, err := io.Copy(io.Discard, io.LimitReader(r.Body, maxSaid))
	return err
}

// request is what is asked of a service.
type request struct {
	method string
	state  *spool.Spool // the body; nil for none
	since  string       // the cursor since which changes are asked for; "" for none
}

// exchange sends one request and hands a good answer to take.
func (s *Source) exchange(ctx context.Context, q request, take func(context.Context, *nethttp.Response) error) error {
	method, state := q.method, q.state
	ctx, cancel := context.WithTimeoutCause(ctx, s.config.Timeout, fmt.Errorf("no end after %v: %w", s.config.Timeout, context.DeadlineExceeded))
	defer cancel()
	r, err := nethttp.NewRequestWithContext(ctx, method, s.config.URL, nethttp.NoBody)
	if err != nil {
		return s.about(err)
	}
	for name, values := range s.config.Header {
		r.Header[name] = values
	}
	r.Header.Set("Accept-Encoding", "identity")
	if q.since != "" {
		r.Header.Set(headerSince, q.since)
	}
	var sent *counted
	if state != nil {
		sent = &counted{r: state.Reader()}
	}
	switch {
	case state == nil:
		r.Header.Set("Accept", s.config.Media)
	default:
		r.Header.Set("Content-Type", s.config.Media)
		if state.Size() > 0 {
			r.Body, r.ContentLength = io.NopCloser(sent), state.Size()
		}
	}
	answer, err := s.client.Do(r)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return s.about(fmt.Errorf("%s %s: %w", method, s.config.URL, withoutURL(err)))
	}
	defer answer.Body.Close()
	if err := refused(answer); err != nil {
		return s.about(fmt.Errorf("%s %s: %w", method, s.config.URL, err))
	}
	if sent != nil && sent.n.Load() < state.Size() {
		return s.about(fmt.Errorf("%s %s: %s, before the service can have read the state: %d of %d bytes were sent", method, s.config.URL, answer.Status, sent.n.Load(), state.Size()))
	}
	if err := take(ctx, answer); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return s.about(fmt.Errorf("%s %s: %w", method, s.config.URL, err))
	}
	return nil
}

// counted counts what was read of a state. The transport may go on reading while the answer is looked at.
type counted struct {
	r io.Reader
	n atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// withoutURL takes off what net/http says of method and URL: exchange says it.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func (s *Source) about(err error) error {
	return fmt.Errorf("service %s, part %s: %w", s.config.Service, s.config.Part, err)
}

// refused is the error that a status means; nil for 2xx.
func refused(r *nethttp.Response) error {
	if r.StatusCode >= 200 && r.StatusCode < 300 {
		return nil
	}
	said, _ := io.ReadAll(io.LimitReader(r.Body, maxSaid)) // an answer that breaks off says less
	err := errors.New(r.Status)
	if text := strings.TrimSpace(strings.ToValidUTF8(string(said), "\uFFFD")); text != "" {
		err = fmt.Errorf("%s: %q", r.Status, text)
	}
	if to := r.Header.Get("Location"); to != "" && r.StatusCode < 400 {
		return fmt.Errorf("%w: it points to %q; name the URL that answers itself", err, to)
	}
	switch r.StatusCode {
	case nethttp.StatusBadRequest, nethttp.StatusUnprocessableEntity:
		return fmt.Errorf("the service refuses the state: %w: %w", err, abi.ErrCorrupt)
	case nethttp.StatusUnsupportedMediaType:
		return fmt.Errorf("the service does not read such a state: %w: %w", err, abi.ErrVersion)
	case nethttp.StatusRequestEntityTooLarge:
		return fmt.Errorf("the service refuses the state: %w: %w", err, abi.ErrTooLarge)
	case nethttp.StatusNotFound:
		return fmt.Errorf("%w: %w", err, abi.ErrNotFound)
	case nethttp.StatusMethodNotAllowed, nethttp.StatusNotImplemented:
		return fmt.Errorf("%w: %w", err, errors.ErrUnsupported)
	}
	return err
}
