package http_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/source/http"
	"github.com/torpor-run/torpor/runtime/source/sourcetest"
	"github.com/torpor-run/torpor/runtime/spool"
)

// service is a small one that keeps a text, and hands it over with a checksum behind it.
type service struct {
	mu   sync.Mutex
	text string
}

func (s *service) get() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text
}

func (s *service) set(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = text
}

func sealed(text string) string {
	return fmt.Sprintf("%s %08x", text, crc32.ChecksumIEEE([]byte(text)))
}

func (s *service) ServeHTTP(w nethttp.ResponseWriter, r *nethttp.Request) {
	switch r.Method {
	case nethttp.MethodGet:
		_, _ = io.WriteString(w, sealed(s.get()))
	case nethttp.MethodPut:
		b, err := io.ReadAll(r.Body)
		text := ""
		if at := bytes.LastIndexByte(b, ' '); at >= 0 {
			text = string(b[:at])
		}
		if err != nil || sealed(text) != string(b) {
			nethttp.Error(w, "not a state of mine", nethttp.StatusUnprocessableEntity)
			return
		}
		s.set(text)
		w.WriteHeader(nethttp.StatusNoContent)
	case nethttp.MethodDelete:
		s.set("")
		w.WriteHeader(nethttp.StatusNoContent)
	}
}

func newSource(t testing.TB, config http.Config) *http.Source {
	t.Helper()
	config.Service, config.Part = "notes", "store"
	s, err := http.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func Example() {
	live := &service{text: "tea"}
	server := httptest.NewServer(live)
	defer server.Close()
	source, err := http.New(http.Config{Service: "notes", Part: "store", URL: server.URL + "/state"})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	capture, err := source.Capture(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer capture.Close()
	live.set("coffee") // what was captured stays what it was
	_ = capture.WriteNative(ctx, os.Stdout)
	// Output:
	// tea 8e86d7b2
}

func TestSource(t *testing.T) {
	for _, memory := range []int{0, 16} {
		t.Run(fmt.Sprintf("memory %d", memory), func(t *testing.T) {
			sourcetest.Test(t, func(t *testing.T) sourcetest.Fixture {
				live := &service{}
				server := httptest.NewServer(live)
				text := func(n int) string { return strings.Repeat(fmt.Sprintf("state %d ", n), 20) }
				return sourcetest.Fixture{
					Source:  newSource(t, http.Config{URL: server.URL, Atomic: true, Spool: spool.Config{Memory: memory, Folder: os.TempDir()}}),
					Put:     func(n int) { live.set(text(n)) },
					State:   live.get,
					Request: func(n int) { live.set(text(n)) },
					Close:   server.Close,
				}
			})
		})
	}
}

// answering is a source whose service answers so.
func answering(t *testing.T, f nethttp.HandlerFunc) *http.Source {
	t.Helper()
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	return newSource(t, http.Config{URL: server.URL})
}

func TestStatuses(t *testing.T) {
	for status, want := range map[int]error{400: abi.ErrCorrupt, 422: abi.ErrCorrupt, 415: abi.ErrVersion, 413: abi.ErrTooLarge, 404: abi.ErrNotFound,
		405: errors.ErrUnsupported, 501: errors.ErrUnsupported, 500: nil, 503: nil, 302: nil, 401: nil} {
		s := answering(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "what it says\x00")
		})
		_, captured := s.Capture(t.Context())
		for op, err := range map[string]error{"Capture": captured, "Restore": s.Restore(t.Context(), strings.NewReader("x")), "Reset": s.Reset(t.Context())} {
			if err == nil || want != nil && !errors.Is(err, want) {
				t.Errorf("%d: %s gives %v, want %v", status, op, err, want)
				continue
			}
			for _, part := range []string{"service notes, part store", strconv.Itoa(status), "what it says", "http://127.0.0.1"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%d: %s says %q, without %q", status, op, err, part)
				}
			}
			if other := errors.Is(err, abi.ErrCorrupt); other && want != abi.ErrCorrupt {
				t.Errorf("%d: %s is taken for damage: %v", status, op, err)
			}
		}
	}
}

// TestOtherAnswers: what is a success of HTTP but no state is not captured as one.
func TestOtherAnswers(t *testing.T) {
	for name, f := range map[string]nethttp.HandlerFunc{
		"202": func(w nethttp.ResponseWriter, _ *nethttp.Request) {
			w.WriteHeader(202)
			_, _ = io.WriteString(w, "later")
		},
		"206": func(w nethttp.ResponseWriter, _ *nethttp.Request) {
			w.WriteHeader(206)
			_, _ = io.WriteString(w, "half")
		},
		"gzip": func(w nethttp.ResponseWriter, _ *nethttp.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, "\x1f\x8b")
		},
	} {
		if c, err := answering(t, f).Capture(t.Context()); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v %v", name, c, err)
		}
	}
	s := answering(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		w.Header().Set("Content-Encoding", "identity")
		_, _ = io.WriteString(w, "state")
	})
	c, err := s.Capture(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

// TestUnread: a service that says it has taken a state before it can have read it has not.
func TestUnread(t *testing.T) {
	s := answering(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) { w.WriteHeader(nethttp.StatusNoContent) })
	if err := s.Restore(t.Context(), strings.NewReader(strings.Repeat("x", 32<<20))); err == nil {
		t.Error("taken")
	}
}

func TestNoState(t *testing.T) {
	s := answering(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) { w.WriteHeader(nethttp.StatusNoContent) })
	c, err := s.Capture(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var out bytes.Buffer
	if err := c.WriteNative(t.Context(), &out); err != nil || out.Len() > 0 {
		t.Errorf("%q (%v)", out.String(), err)
	}
}

// TestWhatIsSent: the length, so that a service can tell a body that was cut off, and what was configured.
func TestWhatIsSent(t *testing.T) {
	var got []string
	server := httptest.NewServer(nethttp.HandlerFunc(func(_ nethttp.ResponseWriter, r *nethttp.Request) {
		b, err := io.ReadAll(r.Body)
		got = append(got, fmt.Sprint(r.Method, " ", r.URL.Path, " ", r.ContentLength, len(r.TransferEncoding), len(b), err, " ", r.Header.Get("Content-Type"), " ",
			r.Header.Get("Accept"), " ", r.Header.Get("Authorization"), " ", r.Header.Get("Accept-Encoding")))
	}))
	defer server.Close()
	s := newSource(t, http.Config{URL: server.URL + "/state", Media: "application/json", Header: nethttp.Header{"Authorization": {"Bearer key"}}})
	c, err := s.Capture(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	for _, n := range []int{0, 100_000} {
		if err := s.Restore(t.Context(), strings.NewReader(strings.Repeat("x", n))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"GET /state 0 0 0 <nil>  application/json Bearer key identity",
		"PUT /state 0 0 0 <nil> application/json  Bearer key identity",
		"PUT /state 100000 0 100000 <nil> application/json  Bearer key identity",
		"DELETE /state 0 0 0 <nil>  application/json Bearer key identity",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("sent\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestBrokenStreams: a service that dies while it answers does not give half a state.
func TestBrokenStreams(t *testing.T) {
	for name, answer := range map[string]string{
		"shorter than it says":    "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
		"chunks without an end":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
		"no length and no chunks": "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf",
		"HTTP/1.0 without length": "HTTP/1.0 200 OK\r\n\r\nhalf",
		"no HTTP":                 "half\r\n\r\n",
		"nothing":                 "",
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Read(make([]byte, 4096))
				_, _ = io.WriteString(c, answer)
				_ = c.Close()
			}()
			s := newSource(t, http.Config{URL: "http://" + l.Addr().String()})
			if c, err := s.Capture(t.Context()); err == nil {
				t.Errorf("%v was captured", c)
			}
		})
	}
}

// TestNobodyThere: the error says what to look at.
func TestNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	_ = l.Close()
	_, err = newSource(t, http.Config{URL: url}).Capture(t.Context())
	if err == nil || !strings.Contains(err.Error(), "GET "+url+":") || strings.Count(err.Error(), url) != 1 {
		t.Errorf("%v", err)
	}
}

func TestTimeout(t *testing.T) {
	done := make(chan struct{})
	server := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if r.URL.Path == "/body" {
			_, _ = io.WriteString(w, "half")
			_ = nethttp.NewResponseController(w).Flush()
		}
		<-done
	}))
	defer server.Close()
	defer close(done)
	for _, path := range []string{"/", "/body"} {
		s := newSource(t, http.Config{URL: server.URL + path, Timeout: http.MinTimeout})
		if _, err := s.Capture(t.Context()); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "100ms") {
			t.Errorf("%s: %v", path, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		s = newSource(t, http.Config{URL: server.URL + path})
		time.AfterFunc(50*time.Millisecond, cancel)
		if _, err := s.Capture(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s, cancelled: %v", path, err)
		}
	}
}

func TestTooLarge(t *testing.T) {
	s := newSource(t, http.Config{URL: "http://127.0.0.1:1", Spool: spool.Config{Bytes: 10}})
	if err := s.Restore(t.Context(), strings.NewReader("eleven bytes")); !errors.Is(err, abi.ErrTooLarge) {
		t.Errorf("%v", err)
	}
}

func TestConfiguration(t *testing.T) {
	for _, c := range []http.Config{{}, {URL: "127.0.0.1:80/state"}, {URL: "ftp://x/"}, {URL: "http://"}, {URL: "http://x/%zz"}, {URL: "http://x", Timeout: -1},
		{URL: "http://x", Timeout: http.MaxTimeout + 1}, {URL: "http://x", Spool: spool.Config{Memory: -1}},
		{URL: "http://x", Cursor: true}, {URL: "http://x", Cursor: true, Atomic: true, Media: "application/json"}} {
		if s, err := http.New(c); err == nil {
			t.Errorf("%+v passes: %v", c, s)
		}
	}
	if s := newSource(t, http.Config{URL: "http://x", Atomic: true}); !s.AtomicCapture() || newSource(t, http.Config{URL: "http://x"}).AtomicCapture() {
		t.Error("atomic is not what was configured")
	}
}

var _ runtime.AtomicSource = (*http.Source)(nil)
