// Package http is the source of services that hand over their state themselves, at a URL of their own:
//
//	GET    the state URL   200 and the native state as it is, in no Content-Encoding, or 204 for none
//	PUT    the state URL   the native state in the body; 2xx once it has replaced what there was
//	DELETE the state URL   2xx once the service is empty
//
// That is all a service needs, in any language. It must take a PUT wholly or not at all, and refuse a
// body that is not a state of its own with 400 or 422 (then the state file is taken to be damaged), 415
// for one of a version it does not read, 413 for one that is too large. A body that is cut off must not be
// taken: the request says its length.
//
// The state crosses in a spool both ways: a GET is read to its end before requests to the service go on,
// and a PUT begins when all that is to be restored is there. So a state file that turns out to be damaged
// half way never reaches the service.
package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	nethttp "net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/source/spool"
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
	Media         string         // media type of the native state; "" is application/octet-stream
	Timeout       time.Duration  // for one exchange
	Atomic        bool           // the service gives a consistent state by itself: requests need not be held for GET
	Spool         spool.Config   // where states are kept on their way
}

// Source takes and gives a service's state over HTTP. It is a [runtime.AtomicSource], safe for concurrent
// use as far as the service is.
type Source struct {
	config Config
	client *nethttp.Client
}

// New makes a source; it sends nothing yet. The error names what is wrong with the configuration.
func New(config Config) (*Source, error) {
	u, err := url.Parse(config.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("http source: %q is no URL of a service's state, such as http://127.0.0.1:8080/state", config.URL)
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
func (s *Source) Capture(ctx context.Context) (runtime.Capture, error) {
	var state *spool.Spool
	err := s.exchange(ctx, nethttp.MethodGet, nil, func(ctx context.Context, r *nethttp.Response) (err error) {
		if r.StatusCode != nethttp.StatusOK && r.StatusCode != nethttp.StatusNoContent {
			return fmt.Errorf("%s: a state is answered with 200, none with 204", r.Status)
		}
		if coding := r.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
			return fmt.Errorf("the answer has the Content-Encoding %q, which was not asked for", coding)
		}
		if !ends(r) {
			return errors.New("the answer says neither how long it is nor comes in chunks: where it ends could not be told from a broken connection")
		}
		state, err = s.config.Spool.Fill(ctx, func(w io.Writer) error {
			_, err := io.Copy(w, r.Body)
			return err
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return state, nil
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
	return s.exchange(ctx, nethttp.MethodPut, state, drain)
}

// Reset implements [runtime.Source]. The error wraps errors.ErrUnsupported where the service cannot be
// emptied (405, 501).
func (s *Source) Reset(ctx context.Context) error {
	return s.exchange(ctx, nethttp.MethodDelete, nil, drain)
}

// drain reads what a service says besides its status.
func drain(_ context.Context, r *nethttp.Response) error {
	_, err := io.Copy(io.Discard, io.LimitReader(r.Body, maxSaid))
	return err
}

// exchange sends one request and hands a good answer to take.
func (s *Source) exchange(ctx context.Context, method string, state *spool.Spool, take func(context.Context, *nethttp.Response) error) error {
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
