package s3

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/xml"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// testClock ticks at each reading, by less than what clients see of a time.
type testClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(1234567 * time.Nanosecond)
	return c.now
}

func newTestClock() *testClock {
	return &testClock{now: time.Date(2024, 2, 29, 23, 59, 58, 987654321, time.UTC)}
}

// testLog sends a service's log to the test's.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// server is a service with an HTTP server in front.
type server struct {
	*Service
	t   testing.TB
	url string
}

func newServer(t testing.TB, o Options) *server {
	t.Helper()
	if o.Clock == nil {
		o.Clock = newTestClock().Now
	}
	if o.Logger == nil {
		o.Logger = testLog(t)
	}
	s := New(o)
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(srv.Close)
	return &server{s, t, srv.URL}
}

// client is the AWS SDK for Go against the server, with the defaults its users have.
func (s *server) client() *awss3.Client {
	return awss3.New(awss3.Options{
		Region: "us-east-1", BaseEndpoint: &s.url, UsePathStyle: true, RetryMaxAttempts: 1,
		Credentials:                credentials.NewStaticCredentialsProvider("test", "test", "a-session-token"),
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenSupported,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenSupported,
	})
}

// answer is what came back from a plain request.
type answer struct {
	*http.Response
	body string
}

// code is the error code in the body.
func (a answer) code() string {
	var e struct{ Code string }
	if err := xml.Unmarshal([]byte(a.body), &e); err != nil {
		return "no error: " + a.body
	}
	return e.Code
}

// do makes a plain request. headers are names and values in turn.
func (s *server) do(method, target, body string, headers ...string) answer {
	s.t.Helper()
	r, err := http.NewRequest(method, s.url+target, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{resp, string(got)}
}

// expect is do for requests that must be answered with that status.
func (s *server) expect(status int, method, target, body string, headers ...string) answer {
	s.t.Helper()
	a := s.do(method, target, body, headers...)
	if a.StatusCode != status {
		s.t.Fatalf("%s %s: status %d, want %d\n%s", method, target, a.StatusCode, status, a.body)
	}
	return a
}

// native is the state as it is now.
func native(t testing.TB, s *Service) []byte {
	t.Helper()
	c, err := s.Capture(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	var b bytes.Buffer
	if err := c.WriteNative(context.Background(), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// restart puts the service's state to sleep and wakes an emptied service with it; the state must be
// the same, byte for byte.
func (s *server) restart() {
	s.t.Helper()
	before := native(s.t, s.Service)
	if err := s.Reset(context.Background()); err != nil {
		s.t.Fatal(err)
	}
	if rest := native(s.t, s.Service); len(rest) > 0 {
		s.t.Fatalf("%d bytes of state after Reset", len(rest))
	}
	if err := s.Restore(context.Background(), bytes.NewReader(before)); err != nil {
		s.t.Fatal(err)
	}
	if after := native(s.t, s.Service); !bytes.Equal(before, after) {
		s.t.Fatalf("the state changed over a restart:\n%q\n%q", before, after)
	}
}

// unescape undoes encoding-type "url".
func unescape(t testing.TB, s string) string {
	t.Helper()
	out, err := url.PathUnescape(s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// merged is a listing's keys and prefixes in one order, as S3 pages through them.
func merged(t testing.TB, objects []types.Object, prefixes []types.CommonPrefix) []string {
	t.Helper()
	var names []string
	for _, o := range objects {
		names = append(names, unescape(t, *o.Key))
	}
	for _, p := range prefixes {
		names = append(names, "prefix "+unescape(t, *p.Prefix))
	}
	slices.SortFunc(names, func(a, b string) int {
		return strings.Compare(strings.TrimPrefix(a, "prefix "), strings.TrimPrefix(b, "prefix "))
	})
	return names
}

// plainETag is the entity tag of content put at once, by the book.
func plainETag(content string) string { return fmt.Sprintf("%x", md5.Sum([]byte(content))) }

// multipartETag is the entity tag of content uploaded in parts of that length, by the book.
func multipartETag(content []byte, length int) string {
	var sums []byte
	n := 0
	for part := range slices.Chunk(content, length) {
		sum := md5.Sum(part)
		sums = append(sums, sum[:]...)
		n++
	}
	return fmt.Sprintf("%x-%d", md5.Sum(sums), n)
}
