package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/torpor-run/torpor/server/gateway"
)

// told has a visit tell of all there is.
func told(s **stand, release bool) func(*gateway.Visit, *http.Request) {
	return func(v *gateway.Visit, _ *http.Request) {
		e := (*s).events
		v.Release, v.Every = release, time.Millisecond
		v.Switched = func() { e.add("switched") }
		v.Written = func() { e.add("written") }
		v.Active = func() { e.add("active") }
	}
}

func TestWebSocket(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"echo"}, CompressionMode: websocket.CompressionContextTakeover})
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(1 << 21)
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if string(b) == "end" {
				c.Close(4000, "as you say")
				return
			}
			c.Write(r.Context(), kind, b)
		}
	})
	for _, release := range []bool{true, false} {
		for _, hold := range []bool{false, true} {
			t.Run(fmt.Sprintf("release %v, held %v", release, hold), func(t *testing.T) {
				t.Parallel()
				var s *stand
				visit := told(&s, release)
				s = newStand(t, h, options{visit: func(v *gateway.Visit, r *http.Request) { visit(v, r); v.Hold = hold }})
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				c, resp, err := websocket.Dial(ctx, "ws://"+s.gateway+"/chat", &websocket.DialOptions{HTTPClient: s.h1, Subprotocols: []string{"echo"}, CompressionMode: websocket.CompressionContextTakeover})
				if err != nil {
					t.Fatal(err)
				}
				if c.Subprotocol() != "echo" || resp.StatusCode != 101 {
					t.Errorf("%d, protocol %q", resp.StatusCode, c.Subprotocol())
				}
				c.SetReadLimit(1 << 21)
				if release {
					s.events.until(t, "active", 3)
				}
				if got := s.events.count("leave"); (got == 1) != release || s.events.count("switched") != 1 || s.events.count("written") != 0 {
					t.Errorf("switched: %s", strings.ReplaceAll(s.events.all(), " active", ""))
				}
				start := time.Now()
				for i := range 60 {
					want := strings.Repeat(string(rune('a'+i%26)), 1+i*i*50)
					if err := c.Write(ctx, websocket.MessageText, []byte(want)); err != nil {
						t.Fatal(err)
					}
					if _, b, err := c.Read(ctx); err != nil || string(b) != want {
						t.Fatalf("%d bytes of %d, %v", len(b), len(want), err)
					}
				}
				s.events.until(t, "written", 1)
				if got, most := s.events.count("written"), 1+int(time.Since(start)/time.Second); got > most {
					t.Errorf("written was told %d times in %v", got, time.Since(start))
				}
				before := s.events.count("written")
				if err := c.Write(ctx, websocket.MessageText, []byte("end")); err != nil {
					t.Fatal(err)
				}
				if _, _, err := c.Read(ctx); websocket.CloseStatus(err) != 4000 {
					t.Errorf("the end: %v", err)
				}
				c.CloseNow()
				s.events.until(t, "written", before+1)
				s.events.until(t, "leave", 1)
				if got := s.events.all(); strings.Count(got, "leave") != 1 || strings.Contains(got, "changed") {
					t.Errorf("told: %s", strings.ReplaceAll(got, " active", ""))
				}
			})
		}
	}
}

// TestTunnels: any other protocol, what the client sends before it is asked to, and the end of one direction only.
func TestTunnels(t *testing.T) {
	var s *stand
	s = before(t, rawService(t, func(conn net.Conn, r *bufio.Reader) {
		h, err := header(r)
		if err != nil || !strings.Contains(h, "Upgrade: shout") || !strings.Contains(h, "Connection: Upgrade") {
			io.WriteString(conn, "HTTP/1.1 426 Upgrade Required\r\nUpgrade: shout\r\nContent-Length: 2\r\n\r\nno")
			return
		}
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: shout\r\nX-Field: 1\r\n\r\nwelcome ")
		b, _ := io.ReadAll(r) // to the end of this direction
		io.WriteString(conn, strings.ToUpper(string(b)))
	}), options{visit: told(&s, true)})
	conn, err := net.Dial("tcp", s.gateway)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	io.WriteString(conn, "POST /x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\nearly ")
	r := bufio.NewReader(conn)
	h, err := header(r)
	if err != nil || !strings.HasPrefix(h, "HTTP/1.1 101 ") || !strings.Contains(h, "X-Field: 1\r\n") {
		t.Fatalf("%q, %v", h, err)
	}
	io.WriteString(conn, "and late")
	conn.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(r); string(b) != "welcome EARLY AND LATE" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	s.events.until(t, "written", 1)
	// What is not switched is a request like any other.
	if a := s.do(t, s.h1, s.gateway, "GET", "/", nil, "Connection", "Upgrade", "Upgrade", "whisper"); a.err != nil || a.StatusCode != 426 || a.body != "no" {
		t.Errorf("%+v", a)
	}
	if s.events.count("changed") != 1 || s.events.count("switched") != 1 {
		t.Errorf("told: %s", strings.ReplaceAll(s.events.all(), " active", ""))
	}
}

// TestTunnelsEndWithTheService: a service that is stopped takes them with it.
func TestTunnelsEndWithTheService(t *testing.T) {
	var s *stand
	stop := make(chan struct{})
	s = before(t, rawService(t, func(conn net.Conn, r *bufio.Reader) {
		header(r)
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		<-stop
	}), options{visit: told(&s, false)})
	conn, err := net.Dial("tcp", s.gateway)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
	header(bufio.NewReader(conn))
	if s.events.count("leave") != 0 {
		t.Error("it has left")
	}
	close(stop)
	conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the client was not told")
	}
	conn.Close()
	s.events.until(t, "leave", 1)
}
