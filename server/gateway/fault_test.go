package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/torpor-run/torpor/server/gateway"
)

// fault checks an answer of the gateway's own making.
func (a answer) fault(t *testing.T, status int, code string, words ...string) {
	t.Helper()
	if a.err != nil {
		t.Fatal(a.err)
	}
	var b struct {
		Error struct{ Code, Message, Hint string }
	}
	if err := json.Unmarshal([]byte(a.body), &b); err != nil {
		t.Fatalf("%v in %q", err, a.body)
	}
	if a.StatusCode != status || b.Error.Code != code || a.Header.Get("Content-Type") != "application/json" || a.Header.Get("Date") == "" {
		t.Errorf("answer %d %v %s, want %d with code %s", a.StatusCode, a.Header, a.body, status, code)
	}
	for _, want := range append(words, "service orders") {
		if !strings.Contains(b.Error.Message, want) {
			t.Errorf("the message does not say %q: %s", want, b.Error.Message)
		}
	}
}

// TestServiceIsAway: nobody listens, or it is not known where.
func TestServiceIsAway(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	for _, hold := range []bool{false, true} {
		s := before(t, l.Addr().String(), options{visit: func(v *gateway.Visit, _ *http.Request) { v.Hold = hold }})
		for _, client := range []*http.Client{s.h1, s.h2} {
			for _, body := range []io.Reader{nil, strings.NewReader("x"), io.LimitReader(zeros{}, 100<<10), io.LimitReader(zeros{}, 10<<20)} {
				a := s.do(t, client, s.gateway, "POST", "/", body)
				if errors.Is(a.err, io.ErrClosedPipe) || a.err != nil && strings.Contains(a.err.Error(), "broken pipe") || a.err != nil && strings.Contains(a.err.Error(), "reset") {
					continue // the client was still sending, and did not look for the answer
				}
				a.fault(t, http.StatusBadGateway, "upstream_away", l.Addr().String(), "refused")
				if a.Header.Get("Retry-After") == "" {
					t.Error("it does not say when to try again")
				}
			}
		}
		// Nothing was sent, so nothing has changed.
		if got := s.events.all(); strings.Contains(got, "changed") || !strings.Contains(got, "leave") {
			t.Errorf("told: %s", got)
		}
	}
	s := before(t, "", options{})
	s.do(t, s.h1, s.gateway, "GET", "/", nil).fault(t, http.StatusBadGateway, "upstream_away", "nowhere")
}

// TestAnswersThatAreNone: the client is told, and the service may have done what was asked.
func TestAnswersThatAreNone(t *testing.T) {
	for name, said := range map[string]string{
		"nothing":          "",
		"half a line":      "HTTP/1.1 20",
		"no HTTP":          "SSH-2.0-OpenSSH\r\n\r\n",
		"half a header":    "HTTP/1.1 200 OK\r\nContent-Le",
		"a bad field":      "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
		"a bad length":     "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
		"two lengths":      "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxy",
		"a bad status":     "HTTP/1.1 abc OK\r\n\r\n",
		"a coding unknown": "HTTP/1.1 200 OK\r\nTransfer-Encoding: snappy\r\n\r\n",
		"another protocol": "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
	} {
		for _, hold := range []bool{false, true} {
			s := before(t, rawService(t, saying(said)), options{visit: func(v *gateway.Visit, _ *http.Request) { v.Hold = hold }})
			for _, client := range []*http.Client{s.h1, s.h2} {
				s.do(t, client, s.gateway, "POST", "/", strings.NewReader("x")).fault(t, http.StatusBadGateway, "upstream_failed", s.service)
			}
			if s.events.count("changed") < 2 || s.events.count("leave") != 2 {
				t.Errorf("%s: told: %s", name, s.events.all())
			}
		}
	}
}

// TestAnswersThatBreakOff: the client must not take them for whole.
func TestAnswersThatBreakOff(t *testing.T) {
	long := strings.Repeat("x", 2<<20)
	for name, said := range map[string]string{
		"length":           "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
		"chunks":           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
		"within a chunk":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n30\r\nabc",
		"no chunk":         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
		"long":             "HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + long,
		"long, and spoilt": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n200000\r\n" + long + "zz",
	} {
		for _, hold := range []bool{false, true} {
			s := before(t, rawService(t, saying(said)), options{visit: func(v *gateway.Visit, r *http.Request) {
				v.Hold = hold
				if r.Method == "GET" {
					v.Changed = nil
				}
			}})
			for _, client := range []*http.Client{s.h1, s.h2} {
				for _, method := range []string{"GET", "POST"} {
					if a := s.do(t, client, s.gateway, method, "/", nil); a.err == nil {
						t.Errorf("%s, held %v: %s is answered with %d and %d bytes as if whole", name, hold, method, a.StatusCode, len(a.body))
					}
				}
			}
			if s.events.count("changed") < 2 || s.events.count("leave") != 4 {
				t.Errorf("%s: told: %s", name, s.events.all())
			}
		}
	}
}

// TestSlowAnswers: 504 where a time is set.
func TestSlowAnswers(t *testing.T) {
	release := make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-release })
	for _, protocol := range []gateway.Protocol{gateway.HTTP1, gateway.H2C} {
		s := newStand(t, h, options{config: func(c *gateway.Config) { c.HeaderTimeout, c.Protocol = 50*time.Millisecond, protocol }})
		s.do(t, s.h1, s.gateway, "POST", "/", nil).fault(t, http.StatusGatewayTimeout, "upstream_timeout", "50ms")
		if got := s.events.all(); !strings.HasPrefix(got, "changed") {
			t.Errorf("told: %s", got)
		}
	}
	close(release)
}

// TestClientsThatBreakOff: the service hears of it, and may have changed something.
func TestClientsThatBreakOff(t *testing.T) {
	gone := make(chan error, 1)
	here := make(chan struct{}, 1)
	s := newStand(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		here <- struct{}{}
		if r.URL.Path == "/body" {
			_, err := io.Copy(io.Discard, r.Body)
			gone <- err
			return
		}
		<-r.Context().Done()
		gone <- r.Context().Err()
	}), options{})
	for i, client := range []*http.Client{s.h1, s.h2} {
		ctx, cancel := context.WithCancel(context.Background())
		req, _ := http.NewRequestWithContext(ctx, "POST", "http://"+s.gateway+"/", nil)
		go func() {
			<-here
			cancel()
		}()
		if resp, err := client.Do(req); err == nil {
			resp.Body.Close()
			t.Error("answered")
		}
		if err := <-gone; err == nil {
			t.Error("the service was not told")
		}
		s.events.until(t, "leave", i+1)
		s.events.until(t, "changed", i+1)
	}
	// In the middle of the body.
	conn, err := net.Dial("tcp", s.gateway)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"+strings.Repeat("x", 50000))
	<-here
	conn.(*net.TCPConn).CloseWrite()
	if err := <-gone; err == nil {
		t.Error("half a body reached the service as a whole one")
	}
	s.events.until(t, "changed", 3)
	// A body that is no body.
	raw(t, s.gateway, "POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\nzz\r\n")
	<-here
	if err := <-gone; err == nil {
		t.Error("a spoilt body reached the service as a whole one")
	}
	s.events.until(t, "changed", 4)
}

// TestConnectionsThatAreStale: what may be sent twice is; what may change something is not.
func TestConnectionsThatAreStale(t *testing.T) {
	for _, c := range []struct {
		method, body string
		fields       []string
		want         string // what the service sees in all
		again        bool
	}{
		{"GET", "", nil, "GET GET GET", true},
		{"POST", "x", nil, "GET POST", false},
		{"POST", "", []string{"Idempotency-Key", "k"}, "GET POST", false},
		{"POST", "", []string{"X-Idempotency-Key", "k"}, "GET POST", false},
		{"DELETE", "", nil, "GET DELETE", false},
	} {
		var seen atomic.Pointer[string]
		seen.Store(new(string))
		var conns atomic.Int32
		s := before(t, rawService(t, func(conn net.Conn, r *bufio.Reader) {
			first := conns.Add(1) == 1
			for i := 0; ; i++ {
				req, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				io.Copy(io.Discard, req.Body)
				all := strings.TrimSpace(*seen.Load() + " " + req.Method)
				seen.Store(&all)
				if first && i == 1 {
					return // the second request on a connection is lost
				}
				io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
		}), options{})
		s.do(t, s.h1, s.gateway, "GET", "/", nil)
		var body io.Reader
		if c.body != "" {
			body = strings.NewReader(c.body)
		}
		a := s.do(t, s.h1, s.gateway, c.method, "/", body, c.fields...)
		if c.again != (a.err == nil && a.StatusCode == 200) || *seen.Load() != c.want {
			t.Errorf("%s %q %v: %v, the service saw %s, want %s", c.method, c.body, c.fields, a.err, *seen.Load(), c.want)
		}
		if !c.again {
			a.fault(t, http.StatusBadGateway, "upstream_failed")
		}
	}
}

// TestAddressIsAskedAgain: a service that was started again listens elsewhere.
func TestAddressIsAskedAgain(t *testing.T) {
	one, two := rawService(t, saying("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none")), rawService(t, saying("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo"))
	var now atomic.Value
	now.Store(one)
	s := before(t, "", options{config: func(c *gateway.Config) { c.Address = func() string { return now.Load().(string) } }})
	if a := s.do(t, s.h1, s.gateway, "GET", "/", nil); a.body != "one" {
		t.Errorf("%q, %v", a.body, a.err)
	}
	now.Store(two)
	if a := s.do(t, s.h1, s.gateway, "GET", "/", nil); a.body != "two" {
		t.Errorf("%q, %v", a.body, a.err)
	}
}

// TestChangedComesBeforeTheAnswer: who has any of the answer can count on it.
func TestChangedComesBeforeTheAnswer(t *testing.T) {
	next := make(chan struct{})
	s := newStand(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/known" {
			w.Header().Set("Content-Length", "4")
		}
		io.WriteString(w, "ab")
		w.(http.Flusher).Flush()
		<-next
		io.WriteString(w, "cd")
	}), options{})
	for i, path := range []string{"/known", "/"} {
		resp, err := s.h1.Post("http://"+s.gateway+path, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1)
		io.ReadFull(resp.Body, b)
		if got := s.events.count("changed"); got < 2*i+1 {
			t.Errorf("%s: at the first byte: %s", path, s.events.all())
		}
		next <- struct{}{}
		if rest, err := io.ReadAll(resp.Body); string(rest) != "bcd" || err != nil {
			t.Errorf("%q, %v", rest, err)
		}
		resp.Body.Close()
		// Again, as it was long in coming: a save may have come between.
		if got := s.events.count("changed"); got != 2*i+2 {
			t.Errorf("%s: at the last byte: %s", path, s.events.all())
		}
	}
}

// TestLongAnswersAreSpliced: they are whole whatever has been read ahead, and end with the client.
func TestLongAnswersAreSpliced(t *testing.T) {
	pattern := make([]byte, 5<<20)
	for i := range pattern {
		pattern[i] = byte(i>>8) ^ byte(i*7)
	}
	var conns atomic.Int32
	ended := make(chan struct{}, 1)
	address := rawService(t, func(conn net.Conn, r *bufio.Reader) {
		conns.Add(1)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if req.URL.Path == "/stuck" {
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nbegun", len(pattern))
				io.Copy(io.Discard, r)
				ended <- struct{}{}
				return
			}
			for rest := append(fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(pattern)), pattern...); len(rest) > 0; {
				n := min(len(rest), 1+int(req.Header.Get("X-Step")[0])*977)
				if _, err := conn.Write(rest[:n]); err != nil {
					return
				}
				rest = rest[n:]
			}
		}
	})
	s := before(t, address, options{reads: true})
	for _, step := range []string{"\x21", "a", "z"} {
		for _, client := range []*http.Client{s.h1, s.h2} {
			for _, method := range []string{"GET", "GET", "POST"} {
				if a := s.do(t, client, s.gateway, method, "/", nil, "X-Step", step); a.err != nil || !bytes.Equal([]byte(a.body), pattern) {
					t.Errorf("%s: %d bytes of %d, %v", method, len(a.body), len(pattern), a.err)
				}
			}
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+s.gateway+"/stuck", nil)
	resp, err := s.h1.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	io.ReadFull(resp.Body, make([]byte, 5))
	cancel()
	resp.Body.Close()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("the service goes on answering a client that has gone")
	}
}

func TestConfigurationThatIsRefused(t *testing.T) {
	if _, err := gateway.New(gateway.Config{}); err == nil {
		t.Error("nothing was taken for a configuration")
	}
	s := before(t, "x", options{})
	_ = s
	_, err := gateway.New(gateway.Config{Service: "orders", Address: func() string { return "" }, Logger: discard(), Protocol: "http3"})
	if err == nil || !strings.Contains(err.Error(), "http3") {
		t.Error(err)
	}
}
