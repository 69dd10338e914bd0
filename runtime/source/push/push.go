// Package push is the source of services that keep time themselves: the service, or a script beside it,
// hands its native state over when it likes, and asks for it when it starts. The runtime saves what was
// handed over last.
//
//	PUT    the state URL   the native state: kept as the part's state, and saved by the strategy
//	GET    the state URL   the native state that was put last, or loaded; 204 where there is none
//	DELETE the state URL   no state, as before the first PUT; so does a PUT of no bytes
//
// The state URL is wherever [Source.ServeHTTP] is mounted.
package push

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/spool"
)

// Config is what a [Source] is made of.
type Config struct {
	Service, Part string         // for messages
	Media         string         // media type of the native state, for answers; "" is application/octet-stream
	Spool         spool.Config   // where the state is kept
	Dirty         *runtime.Dirty // marked by what is put or deleted; required
}

// Source keeps the native state that was handed over last. It is a [runtime.AtomicSource] and an
// http.Handler, safe for concurrent use.
type Source struct {
	config Config

	mu    sync.Mutex
	state *spool.Spool // nil: none, which is captured as no bytes
}

// New makes a source that has been handed nothing yet.
func New(config Config) (*Source, error) {
	if config.Dirty == nil {
		return nil, errors.New("push source: Dirty is required")
	}
	if config.Media == "" {
		config.Media = "application/octet-stream"
	}
	var err error
	config.Spool, err = config.Spool.Check()
	return &Source{config: config}, err
}

// held is the state of now, held for the caller; nil is the empty one.
func (s *Source) held() *spool.Spool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == nil {
		return nil
	}
	return s.state.Hold()
}

// replace makes next the state.
func (s *Source) replace(next *spool.Spool) error {
	s.mu.Lock()
	last := s.state
	s.state = next
	s.mu.Unlock()
	if last != nil {
		return last.Close()
	}
	return nil
}

// Offline implements [runtime.OfflineSource]: a service asks for its state when it starts, so it must be there
// before, and the service started again to see another.
func (s *Source) Offline() bool { return true }

// Capture implements [runtime.Source]. Where there is no state it gives no bytes.
func (s *Source) Capture(ctx context.Context) (runtime.Capture, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if state := s.held(); state != nil {
		return state, nil
	}
	return s.config.Spool.Fill(ctx, func(io.Writer) error { return nil })
}

// AtomicCapture implements [runtime.AtomicSource]: a state is put as a whole.
func (s *Source) AtomicCapture() bool { return true }

// Restore implements [runtime.Source].
func (s *Source) Restore(ctx context.Context, native io.Reader) error { return s.take(ctx, native) }

// Reset implements [runtime.Source].
func (s *Source) Reset(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.replace(nil)
}

// Put keeps what r has as the part's state, once r has ended with io.EOF, and marks it as not saved yet.
// After an error the state is what it was.
func (s *Source) Put(ctx context.Context, r io.Reader) error {
	if err := s.take(ctx, r); err != nil {
		return err
	}
	s.config.Dirty.Mark()
	return nil
}

func (s *Source) take(ctx context.Context, r io.Reader) error {
	next, err := s.config.Spool.Fill(ctx, func(w io.Writer) error {
		_, err := io.Copy(w, r)
		return err
	})
	if err != nil {
		return fmt.Errorf("service %s, part %s: the state handed over: %w", s.config.Service, s.config.Part, err)
	}
	if next.Size() == 0 {
		return errors.Join(next.Close(), s.replace(nil))
	}
	return s.replace(next)
}

// ServeHTTP answers PUT, GET, HEAD and DELETE as the package comment says: 204 for a state that was put or
// deleted and where there is none to get, 400 for a body that was cut off, 413 for one that is too large.
func (s *Source) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodPut:
		if err := s.Put(r.Context(), r.Body); err != nil {
			status := http.StatusInternalServerError
			switch {
			case errors.Is(err, abi.ErrTooLarge):
				status = http.StatusRequestEntityTooLarge
			case errors.Is(err, io.ErrUnexpectedEOF):
				status = http.StatusBadRequest
			}
			http.Error(w, err.Error(), status)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	case http.MethodGet, http.MethodHead:
		state := s.held()
		if state == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		w.Header().Set("Content-Type", s.config.Media)
		w.Header().Set("Content-Length", strconv.FormatInt(state.Size(), 10))
		if r.Method == http.MethodGet {
			// The answer has begun: a client that went away is all that can be wrong, and it knows.
			_ = state.WriteNative(r.Context(), w)
		}
		_ = state.Close() // what was put is kept by others, or by none
	case http.MethodDelete:
		if err := s.Reset(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		s.config.Dirty.Mark()
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Allow", "GET, HEAD, PUT, DELETE")
		http.Error(w, "a state is got, put or deleted", http.StatusMethodNotAllowed)
	}
}
