package s3

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/source/sourcetest"
)

// TestSource holds the service to what the runtime asks of every source.
func TestSource(t *testing.T) {
	sourcetest.Test(t, func(t *testing.T) sourcetest.Fixture {
		s := New(Options{Clock: newTestClock().Now})
		request := func(method, target, body string) *httptest.ResponseRecorder {
			w := httptest.NewRecorder()
			r := httptest.NewRequest(method, target, strings.NewReader(body))
			r.Header.Set("Content-Length", fmt.Sprint(len(body)))
			s.Handler().ServeHTTP(w, r)
			return w
		}
		return sourcetest.Fixture{
			Source: s,
			Put: func(n int) {
				request(http.MethodPut, "/bucket", "")
				if w := request(http.MethodPut, "/bucket/key", strings.Repeat(fmt.Sprint("object ", n), 100)); w.Code != http.StatusOK {
					t.Errorf("put: status %d", w.Code)
				}
			},
			State: func() string {
				keys := regexp.MustCompile("<Key>.*?</Key>").FindAllString(request(http.MethodGet, "/bucket", "").Body.String(), -1)
				w := request(http.MethodGet, "/bucket/key", "")
				if w.Code != http.StatusOK {
					return fmt.Sprint("none: ", w.Code, keys)
				}
				return fmt.Sprint(keys, w.Header().Get("ETag"), w.Body.String())
			},
			// A sequence of records has no end of its own: cut between two of them it is another state.
			Sound: func(beginning []byte) bool {
				r := record.NewReader(bytes.NewReader(beginning), record.DefaultMaxBytes)
				for {
					if _, err := r.ReadBatch(); err != nil {
						return errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF)
					}
				}
			},
			Request: func(n int) { request(http.MethodPut, fmt.Sprint("/bucket/other", n%10), "x") },
		}
	})
}
