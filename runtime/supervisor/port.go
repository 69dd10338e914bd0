package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/torpor-run/torpor/host/abi"
)

const (
	ipv4 = "127.0.0.1"
	ipv6 = "::1"
)

// loopback is the address of a port on this machine.
func loopback(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// How often a free port is chosen before giving up, and how long to wait for a configured one to be free: a
// service of a runtime that was killed is gone in milliseconds.
const (
	portTries = 20
	portWait  = time.Second
	portTick  = 20 * time.Millisecond
)

// Ports are the ports of the services of one process: of two that start at once the system may well say that
// the same port is free. The zero value is ready to use; it must not be copied. It is safe for concurrent use.
type Ports struct {
	mu   sync.Mutex
	held map[int]string // by which service
}

// hold takes a port for a service, or says which other one has it.
func (p *Ports) hold(port int, service string) (by string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if by, ok := p.held[port]; ok {
		return by, false
	}
	if p.held == nil {
		p.held = map[int]string{}
	}
	p.held[port] = service
	return "", true
}

func (p *Ports) release(port int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.held, port)
}

// choose takes a free port.
func (p *Ports) choose(service string) (int, error) {
	for range portTries {
		l, err := net.Listen("tcp4", loopback(ipv4, 0))
		if err != nil {
			return 0, fmt.Errorf("no free port: %w", err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		_ = l.Close()
		if _, ok := p.hold(port, service); !ok {
			continue
		}
		if !taken(port) && listener(port) == "" {
			return port, nil
		}
		p.release(port)
	}
	return 0, fmt.Errorf("none of %d ports the system calls free is free", portTries)
}

// taken reports whether somebody listens on a port of this machine's.
func taken(port int) bool {
	for _, host := range []string{ipv4, ipv6} {
		l, err := net.Listen("tcp", loopback(host, port))
		if err == nil {
			_ = l.Close()
		} else if errors.Is(err, syscall.EADDRINUSE) {
			return true // any other error is for the service to see: it may be allowed more, or have no IPv6
		}
	}
	return false
}

// waitFree waits a little for a configured port to be free.
func waitFree(ctx context.Context, port int) error {
	for deadline := time.Now().Add(portWait); taken(port); {
		if time.Now().After(deadline) {
			who := listener(port)
			if who == "" {
				who = "another program"
			}
			return fmt.Errorf("port %d is %w: %s listens on it; end that or configure another port, or none", port, abi.ErrLocked, who)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(portTick):
		}
	}
	return nil
}
