package gateway_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/torpor-run/torpor/server/gateway"
)

// shapes are answers of many kinds.
func shapes() map[string]http.HandlerFunc {
	write := func(status int, body string, fields ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			for i := 0; i < len(fields); i += 2 {
				w.Header()[fields[i]] = append(w.Header()[fields[i]], fields[i+1])
			}
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	all := map[string]http.HandlerFunc{
		"small": write(200, "hello"),
		"empty": write(200, ""),
		"html":  write(200, "<html><body>x"),
		"no type": func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Type"] = nil
			io.WriteString(w, "<html>")
		},
		"no date":          func(w http.ResponseWriter, r *http.Request) { w.Header()["Date"] = nil; io.WriteString(w, "x") },
		"date of its own":  write(200, "x", "Date", "Mon, 01 Jan 2024 00:00:00 GMT"),
		"server":           write(200, "x", "Server", "orders/1"),
		"204":              write(204, ""),
		"304":              write(304, "", "Etag", `"x"`),
		"304 with length":  write(304, "", "Content-Length", "55"),
		"created":          write(201, "x", "Location", "/there?a=b%2Fc"),
		"redirect":         write(302, "", "Location", "http://elsewhere.example/x"),
		"404":              write(404, "no"),
		"500":              write(500, "boom"),
		"418":              write(418, "teapot"),
		"a status unknown": write(799, "x"),
		"cookies":          write(200, "", "Set-Cookie", "a=1; Path=/", "Set-Cookie", "b=2; HttpOnly"),
		"many values":      write(200, "", "X-Many", "1", "X-Many", "2,3", "X-Many", ""),
		"long field":       write(200, "", "X-Long", strings.Repeat("x", 8<<10)),
		"bytes in field":   write(200, "", "X-Bytes", "caf\xe9 \u20ac"),
		"range":            write(206, "ell", "Content-Range", "bytes 1-3/5"),
		"gzip": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			g := gzip.NewWriter(w)
			io.WriteString(g, "zipped")
			g.Close()
		},
		"10 MiB": write(200, strings.Repeat("0123456789", 1<<20), "Content-Length", strconv.Itoa(10<<20)),
		"1 MiB in chunks": func(w http.ResponseWriter, r *http.Request) {
			for i := range 64 {
				w.Write(bytes.Repeat([]byte{byte(i)}, 16<<10))
				w.(http.Flusher).Flush()
			}
		},
		"flushed, empty": func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush() },
		"trailers": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-Sum, X-Other")
			io.WriteString(w, "body")
			w.Header().Set("X-Sum", "1")
			w.Header().Add("X-Other", "a")
			w.Header().Add("X-Other", "b")
		},
		"trailers, no body": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "Grpc-Status")
			w.WriteHeader(200)
			w.Header().Set("Grpc-Status", "0")
		},
		"trailers unannounced": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "body")
			w.(http.Flusher).Flush()
			w.Header().Set(http.TrailerPrefix+"X-Late", "1")
		},
		"hop by hop": write(200, "x", "Keep-Alive", "timeout=5", "Proxy-Authenticate", "Basic", "X-Kept", "1"),
		"hints": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</a.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Set("X-Final", "1")
			io.WriteString(w, "x")
		},
		"echo": func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			json.NewEncoder(w).Encode(map[string]any{"method": r.Method, "length": r.ContentLength, "body": string(b), "trailer": r.Trailer, "host": r.Host,
				"te": r.Header["Te"], "agent": r.Header["User-Agent"], "encoding": r.Header["Accept-Encoding"], "x": r.Header["X-Field"], "cookie": r.Header["Cookie"]})
		},
	}
	return all
}

// TestSameAsDirect compares what comes through the gateway with what the service itself gives.
func TestSameAsDirect(t *testing.T) {
	all := shapes()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { all[r.URL.Query().Get("shape")](w, r) })
	for _, protocol := range []gateway.Protocol{gateway.HTTP1, gateway.H2C} {
		for _, hold := range []bool{false, true} {
			for _, reads := range []bool{false, true} {
				if hold && reads {
					continue // reads are not held
				}
				s := newStand(t, h, options{reads: reads, config: func(c *gateway.Config) { c.Protocol = protocol }, visit: func(v *gateway.Visit, _ *http.Request) { v.Hold = hold }})
				for _, name := range slices.Sorted(maps.Keys(all)) {
					for _, method := range []string{"GET", "HEAD", "POST", "DELETE", "PURGE"} {
						if name != "echo" && name != "small" && (method == "DELETE" || method == "PURGE") || strings.Contains(name, "MiB") && method == "HEAD" {
							continue
						}
						for _, c := range []struct {
							name   string
							client *http.Client
						}{{"HTTP/1.1", s.h1}, {"HTTP/2", s.h2}} {
							what := fmt.Sprintf("%s %s over %s, service %s, held %v, reads %v", method, name, c.name, protocol, hold, reads)
							// The service itself answers by the protocol in which it is spoken to.
							direct := s.h1
							if protocol == gateway.H2C {
								direct = s.h2
							}
							send := func(client *http.Client, address string) answer {
								var body io.Reader
								if method == "POST" {
									body = strings.NewReader("sent")
								}
								fields := []string{"X-Field", "1", "X-Field", "2", "Accept-Encoding", "gzip, x", "Cookie", "a=1; b=2", "User-Agent", ""}
								req, _ := http.NewRequest(method, "http://"+address+"/?shape="+strings.ReplaceAll(name, " ", "+"), body)
								req.Host = "orders.example:123"
								for i := 0; i < len(fields); i += 2 {
									req.Header.Add(fields[i], fields[i+1])
								}
								resp, err := client.Do(req)
								if err != nil {
									return answer{err: err}
								}
								defer resp.Body.Close()
								b, err := io.ReadAll(resp.Body)
								return answer{resp, string(b), err}
							}
							compare(t, what, send(direct, s.service), send(c.client, s.gateway))
						}
					}
				}
			}
		}
	}
}

func compare(t *testing.T, what string, want, got answer) {
	t.Helper()
	if want.err != nil && want.Response != nil && want.StatusCode == 304 {
		return // net/http's client waits for a body over HTTP/2; the gateway's does not
	}
	if want.err != nil || got.err != nil {
		t.Errorf("%s: direct %v, gateway %v", what, want.err, got.err)
		return
	}
	if want.StatusCode != got.StatusCode || want.body != got.body {
		t.Errorf("%s: %d and %d bytes, want %d and %d bytes", what, got.StatusCode, len(got.body), want.StatusCode, len(want.body))
	}
	for _, h := range []http.Header{want.Header, got.Header} {
		for _, name := range []string{"Connection", "Keep-Alive", "Proxy-Authenticate"} {
			h.Del(name) // of one connection
		}
	}
	a, b := want.Header, got.Header
	if want.Request.Method == "HEAD" { // there will be none
		a.Del("Trailer")
		b.Del("Trailer")
		want.Trailer, got.Trailer = nil, nil
	}
	if !slices.Equal(a["Date"], b["Date"]) && len(a["Date"]) == len(b["Date"]) {
		b["Date"] = a["Date"] // a second may have gone by
	}
	if want.StatusCode == 304 { // net/http's server drops the length over HTTP/1.1
		a.Del("Content-Length")
		b.Del("Content-Length")
	}
	// Whether a length is said before the end or by it is a matter of framing, except where there is no body.
	if bodyless := want.Request.Method == "HEAD" || want.StatusCode == 304 || want.StatusCode == 204; !bodyless && (a.Get("Content-Length") == "" || b.Get("Content-Length") == "") {
		for _, h := range []http.Header{a, b} {
			if l := h.Get("Content-Length"); l != "" && l != strconv.Itoa(len(want.body)) {
				t.Errorf("%s: length %s of %d", what, l, len(want.body))
			}
			h.Del("Content-Length")
		}
	}
	if !maps.EqualFunc(a, b, slices.Equal) {
		t.Errorf("%s: header %v, want %v", what, b, a)
	}
	if !maps.EqualFunc(want.Trailer, got.Trailer, slices.Equal) {
		t.Errorf("%s: trailer %v, want %v", what, got.Trailer, want.Trailer)
	}
}

// TestTargetsAreUntouched: the request line is the one that the client sent.
func TestTargetsAreUntouched(t *testing.T) {
	lines := make(chan string, 1)
	s := before(t, rawService(t, func(conn net.Conn, r *bufio.Reader) {
		for {
			h, err := header(r)
			if err != nil {
				return
			}
			line, _, _ := strings.Cut(h, "\r\n")
			lines <- line
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	}), options{})
	for _, target := range []string{"/", "/a%2Fb", "/a%2fb", "//", "//a//b", "/a/../b", "/./..", "/%2e%2e/x", "/a b"[:2], "/a?", "/a?b=c;d=%zz&&e", "/?%", "/a+b?a+b", `/a"b|c^d{e}[f]`,
		"/caf\xc3\xa9", "/caf\xe9", "/%00", "/a%20b?q=%20", "/a?b?c", "/a;b=c", "/~a!$&'()*+,;=:@", "/a%25", "/?a=<b>"} {
		raw(t, s.gateway, "GET "+target+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if got, want := <-lines, "GET "+target+" HTTP/1.1"; got != want {
			t.Errorf("%q reached the service as %q", want, got)
		}
	}
	// A whole URL is what is sent to proxies; the service gets its path.
	raw(t, s.gateway, "GET http://orders.example/a%2Fb?c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	if got := <-lines; got != "GET /a%2Fb?c HTTP/1.1" {
		t.Errorf("a whole URL: %q", got)
	}
	if got := raw(t, s.gateway, "CONNECT orders.example:80 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 405 ") {
		t.Errorf("CONNECT: %q", got)
	}
}

// TestHeaderOfRequests: what reaches the service, byte for byte.
func TestHeaderOfRequests(t *testing.T) {
	headers := make(chan string, 1)
	s := before(t, rawService(t, func(conn net.Conn, r *bufio.Reader) {
		h, _ := header(r)
		headers <- h
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	}), options{})
	for _, c := range []struct {
		name, send string
		want       []string // lines that must be there, in sorted order, besides the X-Forwarded ones
	}{
		{"plain", "GET / HTTP/1.1\r\nHost: orders.example:99\r\n", []string{"GET / HTTP/1.1", "Host: orders.example:99"}},
		{"of one connection", "GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nProxy-Authorization: x\r\nTE: gzip\r\nX-Yours: 1\r\n",
			[]string{"GET / HTTP/1.1", "Host: x", "X-Yours: 1"}},
		{"TE", "GET / HTTP/1.1\r\nHost: x\r\nTE: trailers, gzip\r\n", []string{"GET / HTTP/1.1", "Host: x", "Te: trailers"}},
		{"signed", "POST / HTTP/1.1\r\nHost: x\r\nAuthorization: AWS4-HMAC-SHA256 x\r\nX-Amz-Date: 1\r\nContent-Length: 0\r\nUser-Agent: aws-sdk\r\nAccept-Encoding: identity\r\n",
			[]string{"Accept-Encoding: identity", "Authorization: AWS4-HMAC-SHA256 x", "Content-Length: 0", "Host: x", "POST / HTTP/1.1", "User-Agent: aws-sdk", "X-Amz-Date: 1"}},
		{"h2c upgrade", "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n", []string{"GET / HTTP/1.1", "Host: x"}},
		{"key of idempotency", "POST / HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\nContent-Length: 0\r\n", []string{"Content-Length: 0", "Host: x", "POST / HTTP/1.1", "idempotency-key: k"}},
		{"forwarded", "GET / HTTP/1.1\r\nHost: x\r\nForwarded: for=1.2.3.4\r\n", []string{"Forwarded: for=1.2.3.4", "GET / HTTP/1.1", "Host: x"}},
		{"DELETE without a length", "DELETE /a HTTP/1.1\r\nHost: x\r\n", []string{"DELETE /a HTTP/1.1", "Host: x"}},
	} {
		raw(t, s.gateway, strings.Replace(c.send, "Host: x\r\n", "Host: x\r\n", 1)+"\r\n"+closer)
		var got []string
		for line := range strings.SplitSeq(strings.TrimSpace(<-headers), "\r\n") {
			if !strings.HasPrefix(line, "X-Forwarded-") {
				got = append(got, line)
			}
		}
		if slices.Sort(got); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	for _, c := range []struct{ name, send, want string }{
		{"the first proxy", "", "X-Forwarded-For: 127.0.0.1|X-Forwarded-Host: x|X-Forwarded-Proto: http"},
		{"behind another", "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 5.6.7.8\r\nX-Forwarded-Host: outer\r\nX-Forwarded-Proto: https\r\n",
			"X-Forwarded-For: 1.2.3.4, 5.6.7.8, 127.0.0.1|X-Forwarded-Host: outer|X-Forwarded-Proto: https"},
	} {
		raw(t, s.gateway, "GET / HTTP/1.1\r\nHost: x\r\n"+c.send+"\r\n"+closer)
		var got []string
		for line := range strings.SplitSeq(strings.TrimSpace(<-headers), "\r\n") {
			if strings.HasPrefix(line, "X-Forwarded-") {
				got = append(got, line)
			}
		}
		if slices.Sort(got); strings.Join(got, "|") != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// closer is a second request that the gateway refuses, so that it ends the connection.
const closer = "BAD\r\n\r\n"

// TestRequestBodies: lengths, chunks and trailers reach the service.
func TestRequestBodies(t *testing.T) {
	s := newStand(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %d %v %s %v %v", r.Method, r.ContentLength, r.TransferEncoding, b, r.Trailer, err)
	}), options{})
	for _, c := range []struct{ send, want string }{
		{"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", "POST 3 [] abc map[] <nil>"},
		{"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", "GET 3 [] abc map[] <nil>"},
		{"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", "POST -1 [chunked] abc map[] <nil>"},
		{"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 6\r\n\r\n", "PUT -1 [chunked] abc map[X-Sum:[6]] <nil>"},
		{"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "POST -1 [chunked]  map[] <nil>"},
	} {
		if got := raw(t, s.gateway, c.send+closer); !strings.Contains(got, c.want) {
			t.Errorf("%q: %q, want %q", c.send, got, c.want)
		}
	}
}

// TestAnswersThatDoNotWait: a service need not read a body to answer, and net/http's transport must not take what
// the server then does to the body for a failure.
func TestAnswersThatDoNotWait(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	s := newStand(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, long) }), options{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 30 {
				if a := s.do(t, s.h1, s.gateway, "POST", "/", strings.NewReader("sent")); a.err != nil || a.body != long {
					t.Errorf("%d bytes of the answer, %v", len(a.body), a.err)
				}
			}
		})
	}
	wg.Wait()
}

// TestSmuggling: what may be read in two ways is refused, or goes on in one way only.
func TestSmuggling(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	s := before(t, rawService(t, func(conn net.Conn, r *bufio.Reader) {
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if req.URL.Path != "/early" {
				io.Copy(io.Discard, req.Body)
			}
			mu.Lock()
			seen = append(seen, req.Method+" "+req.URL.Path)
			mu.Unlock()
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			if req.URL.Path == "/early" {
				io.Copy(io.Discard, r)
				return
			}
		}
	}), options{})
	const evil = "GET /evil HTTP/1.1\r\nHost: x\r\n\r\n"
	for _, c := range []struct{ name, send string }{
		{"length and chunks", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{"two lengths", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 33\r\n\r\n" + evil},
		{"a length with a sign", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: +33\r\n\r\n" + evil},
		{"an odd coding", "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\nContent-Length: 33\r\n\r\n" + evil},
		{"a space before the colon", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length : 33\r\n\r\n" + evil},
		{"length hidden by Connection", "POST /a HTTP/1.1\r\nHost: x\r\nConnection: Content-Length\r\nContent-Length: 33\r\n\r\n" + strings.Repeat("x", 33)},
		{"a body with a request in it, answered early", fmt.Sprintf("POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", 300<<10) + strings.Repeat(evil, 300<<10/len(evil))},
		{"the same in chunks", "POST /early HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n40000\r\n" + strings.Repeat(evil, 100)},
		{"Expect without waiting", "POST /early HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 10000\r\n\r\n" + strings.Repeat(evil, 100)},
	} {
		mu.Lock()
		seen = nil
		mu.Unlock()
		conn, err := net.Dial("tcp", s.gateway)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(patience))
		go io.WriteString(conn, c.send)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		time.Sleep(20 * time.Millisecond) // for what must not come
		conn.Close()
		mu.Lock()
		for _, line := range seen {
			if strings.Contains(line, "evil") {
				t.Errorf("%s: the service saw %q", c.name, seen)
				break
			}
		}
		mu.Unlock()
	}
	// Lines in h2 fields can not become lines of HTTP/1.1.
	for _, fields := range [][]string{{"X-A", "1\r\nX-Evil: 1"}, {"X-A\r\nX-Evil", "1"}} {
		if a := s.do(t, s.h2, s.gateway, "GET", "/", nil, fields...); a.err == nil {
			t.Errorf("%q went through", fields)
		}
	}
}

// TestContinue: the service decides whether a body is sent at all.
func TestContinue(t *testing.T) {
	asked := make(chan string, 1)
	s := before(t, rawService(t, func(conn net.Conn, r *bufio.Reader) {
		h, err := header(r)
		if err != nil {
			return
		}
		asked <- h
		if strings.HasPrefix(h, "PUT /no") {
			io.WriteString(conn, "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
			return
		}
		io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n")
		b := make([]byte, 4)
		io.ReadFull(r, b)
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\n%s", b)
	}), options{})
	for _, c := range []struct {
		client *http.Client
		path   string
		want   string
		sent   bool
	}{{s.h1, "/yes", "200 body", true}, {s.h1, "/no", "417 no", false}} {
		continued := false
		sent := &counting{Reader: strings.NewReader("body")}
		ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{Got100Continue: func() { continued = true }})
		req, _ := http.NewRequestWithContext(ctx, "PUT", "http://"+s.gateway+c.path, sent)
		req.ContentLength = 4
		req.Header.Set("Expect", "100-continue")
		resp, err := c.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if got := fmt.Sprint(resp.StatusCode, " ", string(b)); got != c.want || continued != c.sent || (sent.n > 0) != c.sent {
			t.Errorf("%s: %s, continued %v, %d bytes sent", c.path, got, continued, sent.n)
		}
		if h := <-asked; !strings.Contains(h, "Expect: 100-continue") {
			t.Errorf("the service was not asked: %q", h)
		}
	}
}

type counting struct {
	io.Reader
	n int
}

func (c *counting) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n += n
	return n, err
}

// TestInformation: 1xx answers pass, without what belongs to the other connection.
func TestInformation(t *testing.T) {
	s := before(t, rawService(t, saying("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: X-Mine\r\nKeep-Alive: 5\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx")), options{})
	for _, client := range []*http.Client{s.h1, s.h2} {
		var got []string
		ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			got = append(got, fmt.Sprint(code, h))
			return nil
		}})
		req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+s.gateway+"/", nil)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if strings.Join(got, " ") != "103 map[Link:[</a>]] 102 map[]" || resp.StatusCode != 200 || resp.Header.Get("Link") != "" {
			t.Errorf("%s: %q, then %d %v", resp.Proto, got, resp.StatusCode, resp.Header)
		}
	}
	// HTTP/1.0 knows none.
	if got := raw(t, s.gateway, "GET / HTTP/1.0\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.0 200 OK\r\n") {
		t.Errorf("HTTP/1.0: %q", got)
	}
}

// TestBothWaysAtOnce: each side reads what the other has just said.
func TestBothWaysAtOnce(t *testing.T) {
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		rc.EnableFullDuplex()
		w.Header().Set("Trailer", "Grpc-Status")
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		rc.Flush()
		b := make([]byte, 100)
		for {
			n, err := r.Body.Read(b)
			w.Write(bytes.ToUpper(b[:n]))
			rc.Flush()
			if err != nil {
				break
			}
		}
		w.Header().Set("Grpc-Status", "0")
	})
	for _, c := range []struct {
		protocol gateway.Protocol
		two      bool // the client speaks HTTP/2
		hold     bool
	}{{gateway.H2C, true, false}, {gateway.H2C, true, true}, {gateway.HTTP1, true, false}, {gateway.HTTP1, false, false}, {gateway.HTTP1, false, true}} {
		s := newStand(t, echo, options{config: func(cfg *gateway.Config) { cfg.Protocol = c.protocol }, visit: func(v *gateway.Visit, _ *http.Request) { v.Hold = c.hold }})
		client := s.h1
		if c.two {
			client = s.h2
		}
		in, out := io.Pipe()
		req, _ := http.NewRequest("POST", "http://"+s.gateway+"/", in)
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("TE", "trailers")
		resp, err := client.Do(req)
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		if s.events.count("changed") != 1 {
			t.Errorf("%+v: at the header of the answer: %s", c, s.events.all())
		}
		b := make([]byte, 3)
		for _, word := range []string{"one", "two", "six"} {
			io.WriteString(out, word)
			if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != strings.ToUpper(word) {
				t.Errorf("%+v: %q, %v", c, b, err)
			}
		}
		out.Close()
		if rest, err := io.ReadAll(resp.Body); len(rest) > 0 || err != nil || resp.Trailer.Get("Grpc-Status") != "0" {
			t.Errorf("%+v: %q, %v, trailer %v", c, rest, err, resp.Trailer)
		}
		resp.Body.Close()
		if got := s.events.count("changed"); got != 2 {
			t.Errorf("%+v: at the end: %s", c, s.events.all())
		}
	}
}

// TestEventsComeAtOnce: what a service flushes need not wait for more.
func TestEventsComeAtOnce(t *testing.T) {
	for _, hold := range []bool{false, true} {
		next := make(chan struct{})
		s := newStand(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			for i := range 3 {
				fmt.Fprintf(w, "data: %d\n\n", i)
				w.(http.Flusher).Flush()
				<-next
			}
		}), options{visit: func(v *gateway.Visit, _ *http.Request) { v.Hold = hold }})
		for _, client := range []*http.Client{s.h1, s.h2} {
			resp, err := client.Get("http://" + s.gateway + "/")
			if err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReader(resp.Body)
			for i := range 3 {
				if line, err := r.ReadString('\n'); err != nil || line != fmt.Sprintf("data: %d\n", i) {
					t.Errorf("%q, %v", line, err)
				}
				r.ReadString('\n')
				next <- struct{}{}
			}
			resp.Body.Close()
		}
	}
}

// TestLargeBodies: a gibibyte each way leaves the memory as it is.
func TestLargeBodies(t *testing.T) {
	size := int64(1 << 30)
	if testing.Short() {
		size = 64 << 20
	}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		if r.Method == "PUT" {
			fmt.Fprint(w, n)
			return
		}
		if r.URL.Path != "/chunked" {
			w.Header().Set("Content-Length", fmt.Sprint(size))
		}
		io.CopyN(w, zeros{}, size)
	})
	for _, protocol := range []gateway.Protocol{gateway.HTTP1, gateway.H2C} {
		s := newStand(t, h, options{reads: true, config: func(c *gateway.Config) { c.Protocol = protocol }})
		client := s.h1
		if protocol == gateway.H2C {
			client, size = s.h2, 64<<20
		}
		var most uint64
		watch := func() {
			var m goruntime.MemStats
			goruntime.ReadMemStats(&m)
			most = max(most, m.HeapInuse)
		}
		goruntime.GC()
		watch()
		idle := most
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for tick := time.NewTicker(5 * time.Millisecond); ; {
				select {
				case <-tick.C:
					watch()
				case <-stop:
					tick.Stop()
					return
				}
			}
		})
		for _, path := range []string{"/", "/chunked"} {
			resp, err := client.Get("http://" + s.gateway + path)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, resp.Body); n != size || err != nil {
				t.Errorf("%s: %d of %d bytes, %v", path, n, size, err)
			}
			resp.Body.Close()
		}
		for _, length := range []int64{size, -1} {
			req, _ := http.NewRequest("PUT", "http://"+s.gateway+"/", io.LimitReader(zeros{}, size))
			req.ContentLength = length
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if b, _ := io.ReadAll(resp.Body); string(b) != fmt.Sprint(size) {
				t.Errorf("%s of %d bytes reached the service", b, size)
			}
			resp.Body.Close()
		}
		close(stop)
		wg.Wait()
		if more := most - idle; more > 32<<20 {
			t.Errorf("%s: %d MiB of memory more while %d MiB went through", protocol, more>>20, size>>20)
		}
	}
}

// TestSlowPiecesComeAsTheyAre: what a service has sent of an answer of known length reaches the client though the rest
// is long in coming, whatever the other clients do.
func TestSlowPiecesComeAsTheyAre(t *testing.T) {
	next := make(chan struct{})
	s := newStand(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "6")
		if r.URL.Path == "/unread" {
			w.Header().Set("Content-Length", fmt.Sprint(64<<20))
			io.CopyN(w, zeros{}, 64<<20)
			return
		}
		for _, piece := range []string{"", "abc", "def"} {
			io.WriteString(w, piece)
			w.(http.Flusher).Flush()
			<-next
		}
	}), options{})
	for range 3 { // clients that do not read
		conn, err := net.Dial("tcp", s.gateway)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, "GET /unread HTTP/1.1\r\nHost: a\r\n\r\n")
		io.ReadFull(conn, make([]byte, 64))
	}
	for _, client := range []*http.Client{s.h1, s.h2} {
		for range 3 {
			resp, err := client.Get("http://" + s.gateway + "/")
			if err != nil {
				t.Fatal(err)
			}
			if resp.ContentLength != 6 {
				t.Errorf("length %d", resp.ContentLength)
			}
			next <- struct{}{}
			for _, want := range []string{"abc", "def"} {
				got := make([]byte, 3)
				if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != want {
					t.Errorf("%q, %v; want %q", got, err, want)
				}
				next <- struct{}{}
			}
			resp.Body.Close()
		}
	}
}
