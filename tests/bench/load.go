package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// load is what a generator is told to do: requests over connections that are kept, each connection one request
// after another.
type load struct {
	Address     string // host:port
	Requests    []sent // taken in turn, each connection beginning with another
	Connections int
	Warm        int           // requests of each connection beforehand, which are not measured
	Count       int           // requests of each connection; 0: as many as For allows
	For         time.Duration // used where Count is 0
	// Every is the time from the beginning of one request to that of the next, over all connections; 0: the next
	// begins when the one before has been answered. A request that cannot begin in time, as its connection still
	// waits, counts from when it should have begun.
	Every time.Duration
}

// sent is a request; its answer must have a status of 2xx and say how long it is.
type sent struct {
	Method, Path string
	Body         string
	Zeros        int64 // instead of Body: so many bytes
	Read         int64 // how many bytes the answer must have; -1: any
}

// outcome is what a generator measured.
type outcome struct {
	Took   []time.Duration // of each request, in no order
	Wall   time.Duration
	Failed string // what went wrong; then the rest says nothing
}

// generate does the loads that it is told on in, one after the other.
func generate(in io.Reader, out io.Writer) error {
	orders, answers := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var l load
		if err := orders.Decode(&l); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		answer, err := l.run()
		if err != nil {
			answer.Failed = err.Error()
		}
		if err := answers.Encode(answer); err != nil {
			return err
		}
	}
}

func (l load) run() (outcome, error) {
	lines := make([]*line, l.Connections)
	for i := range lines {
		conn, err := net.DialTimeout("tcp", l.Address, time.Minute)
		if err != nil {
			return outcome{}, err
		}
		defer conn.Close()
		lines[i] = &line{conn: conn, r: bufio.NewReaderSize(conn, 64<<10), next: i % len(l.Requests)}
	}
	errs := make([]error, len(lines))
	each := func(f func(i int, c *line) error) error {
		var all sync.WaitGroup
		for i, c := range lines {
			all.Go(func() { errs[i] = f(i, c) })
		}
		all.Wait()
		return errors.Join(errs...)
	}
	if err := each(func(_ int, c *line) error { return c.warm(l) }); err != nil {
		return outcome{}, err
	}
	start := time.Now()
	err := each(func(i int, c *line) error { return c.measure(l, start, i) })
	answer := outcome{Wall: time.Since(start)}
	for _, c := range lines {
		answer.Took = append(answer.Took, c.took...)
	}
	return answer, err
}

// line is one connection.
type line struct {
	conn net.Conn
	r    *bufio.Reader
	out  []byte
	next int // of the requests
	took []time.Duration
}

func (c *line) warm(l load) error {
	for range l.Warm {
		if err := c.exchange(l.Requests); err != nil {
			return err
		}
	}
	return nil
}

// measure does the part of the connection number i.
func (c *line) measure(l load, start time.Time, i int) error {
	step := l.Every * time.Duration(l.Connections)
	due := start.Add(l.Every * time.Duration(i))
	end := start.Add(l.For)
	for n := 0; ; n++ {
		if l.Count > 0 && n == l.Count {
			return nil
		}
		begun := time.Now()
		if l.Every > 0 {
			if wait := due.Sub(begun); wait > 0 {
				time.Sleep(wait)
				begun = time.Now() // sleeping too long is this process's doing
			} else {
				begun = due
			}
			due = due.Add(step)
		}
		if l.Count == 0 && !begun.Before(end) {
			return nil
		}
		if err := c.exchange(l.Requests); err != nil {
			return err
		}
		c.took = append(c.took, time.Since(begun))
	}
}

// exchange sends the next request and reads its answer.
func (c *line) exchange(requests []sent) error {
	s := requests[c.next]
	c.next = (c.next + 1) % len(requests)
	if err := c.conn.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		return err
	}
	c.out = fmt.Appendf(c.out[:0], "%s %s HTTP/1.1\r\nHost: bench.test\r\n", s.Method, s.Path)
	if n := s.Zeros + int64(len(s.Body)); n > 0 || s.Method != "GET" {
		c.out = fmt.Appendf(c.out, "Content-Length: %d\r\n", n)
	}
	c.out = append(append(c.out, "\r\n"...), s.Body...)
	if _, err := c.conn.Write(c.out); err != nil {
		return err
	}
	for left := s.Zeros; left > 0; {
		n, err := c.conn.Write(zeroes[:min(left, int64(len(zeroes)))])
		if err != nil {
			return err
		}
		left -= int64(n)
	}
	read, err := c.answer()
	if err == nil && s.Read >= 0 && read != s.Read {
		err = fmt.Errorf("the answer has %d bytes, not %d", read, s.Read)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", s.Method, s.Path, err)
	}
	return nil
}

// zeroes are only read.
var zeroes [256 << 10]byte

// answer reads an answer to its end.
func (c *line) answer() (read int64, err error) {
	status, err := c.r.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 2")) {
		rest := make([]byte, 512)
		said := string(status)
		n, _ := c.r.Read(rest) // for the message
		return 0, fmt.Errorf("%q", said+string(rest[:n]))
	}
	length := int64(-1)
	for {
		field, err := c.r.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		field = bytes.TrimRight(field, "\r\n")
		if len(field) == 0 {
			break
		}
		name, value, _ := bytes.Cut(field, []byte(":"))
		if bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64); err != nil {
				return 0, err
			}
		}
	}
	if bytes.HasPrefix(status, []byte("HTTP/1.1 204")) {
		return 0, nil
	}
	if length < 0 {
		return 0, errors.New("the answer does not say how long it is")
	}
	for read < length {
		n, err := c.discard(length - read)
		read += n
		if err != nil {
			return read, err
		}
	}
	return read, nil
}

// discard reads some of the body, past the buffer where it is empty: a large body costs the generator little.
func (c *line) discard(most int64) (int64, error) {
	if buffered := c.r.Buffered(); buffered > 0 || most < 64<<10 {
		n, err := c.r.Discard(int(min(most, max(int64(buffered), 1))))
		return int64(n), err
	}
	if cap(c.out) < 1<<20 {
		c.out = make([]byte, 1<<20)
	}
	n, err := c.conn.Read(c.out[:min(most, 1<<20)])
	return int64(n), err
}
