package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// How often it is looked whether a service is ready: soon at first, as fast ones are in a few milliseconds, and
// then so that looking late adds little to what the start takes anyway.
const (
	firstLook = 2 * time.Millisecond
	mostLook  = 100 * time.Millisecond
	lateBy    = 8               // a part of the time since the start
	lookFor   = 5 * time.Second // one look
	maxAnswer = 64 << 10        // of an answer that is read, so that a service can end it in order
)

// errEnded: the program has ended before it was ready.
var errEnded = errors.New("it has ended before it was ready")

// awaitReady waits until a run is ready and gives the address it is ready at.
func (s *Supervisor) awaitReady(ctx context.Context, r *run, port int) (string, error) {
	limit := s.config.ReadyTimeout
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errNotReady)
	defer cancel()
	ended := func() error {
		if err := context.Cause(ctx); !errors.Is(err, errNotReady) {
			return err
		}
		return fmt.Errorf("not ready after %v: %w", limit, context.DeadlineExceeded)
	}
	switch ready := s.config.Ready; {
	case ready.None:
		return loopback(ipv4, port), nil
	case ready.Line != "":
		select {
		case <-r.out.matched:
			address, err := connect(ctx, port)
			if err != nil {
				address = loopback(ipv4, port) // it may listen later
			}
			return address, nil
		case <-r.exited:
			return "", errEnded
		case <-ctx.Done():
			return "", fmt.Errorf("%w: no line of its output matches %q", ended(), ready.Line)
		}
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true}, // no proxy
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       lookFor,
	}
	var last error // what it did when it was looked at, not that the time was over then
	for {
		address, err := s.look(ctx, client, port)
		if deadline, _ := ctx.Deadline(); last == nil || time.Now().Before(deadline) {
			last = err
		}
		select {
		case <-r.exited: // then who answered was not it
			return "", errEnded
		default:
		}
		if err == nil {
			who, ok := stranger(port, r.guard.Process.Pid)
			if !ok { // the guard is gone, and that will be known in a moment
				<-r.exited
				return "", errEnded
			}
			if who != "" {
				return "", fmt.Errorf("%w: %s listens on %d in its stead", errPort, who, port)
			}
			return address, nil
		}
		select {
		case <-r.exited:
			return "", errEnded
		case <-ctx.Done():
			return "", fmt.Errorf("%w: %w", ended(), last)
		case <-time.After(min(max(firstLook, time.Since(r.begun)/lateBy), mostLook)):
		}
	}
}

// errNotReady is the cause of a context that ended with ReadyTimeout.
var errNotReady = errors.New("not ready in time")

// look looks once.
func (s *Supervisor) look(ctx context.Context, client *http.Client, port int) (string, error) {
	address, err := connect(ctx, port)
	if err != nil || s.config.Ready.HTTP == "" {
		return address, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+s.config.Ready.HTTP, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer)
	if want := s.config.Ready.Status; want == resp.StatusCode || want == 0 && resp.StatusCode/100 == 2 {
		return address, nil
	}
	return "", fmt.Errorf("GET %s: %s", req.URL, resp.Status)
}

// connect gives the address at which connections to a port are accepted. Some programs listen on
// "localhost", which may be ::1 alone.
func connect(ctx context.Context, port int) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookFor)
	defer cancel()
	var failed error
	for _, host := range []string{ipv4, ipv6} {
		address := loopback(host, port)
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err == nil {
			_ = c.Close()
			return address, nil
		}
		if failed == nil {
			failed = err
		}
	}
	return "", failed
}
