package push_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/source/push"
	"github.com/torpor-run/torpor/runtime/source/sourcetest"
	"github.com/torpor-run/torpor/runtime/spool"
)

var _ runtime.AtomicSource = (*push.Source)(nil)

func Example() {
	dirty := new(runtime.Dirty)
	source, err := push.New(push.Config{Service: "notes", Part: "store", Dirty: dirty})
	if err != nil {
		fmt.Println(err)
		return
	}
	put := httptest.NewRequest(http.MethodPut, "/state", strings.NewReader("tea"))
	source.ServeHTTP(httptest.NewRecorder(), put)
	_, unsaved := dirty.Since()
	fmt.Println("to be saved:", unsaved)

	answer := httptest.NewRecorder()
	source.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/state", nil))
	fmt.Println(answer.Body)
	// Output:
	// to be saved: true
	// tea
}

func newSource(t testing.TB, config spool.Config) (*push.Source, *runtime.Dirty) {
	t.Helper()
	dirty := new(runtime.Dirty)
	s, err := push.New(push.Config{Service: "notes", Part: "store", Dirty: dirty, Media: "text/plain", Spool: config})
	if err != nil {
		t.Fatal(err)
	}
	return s, dirty
}

func TestSource(t *testing.T) {
	for _, memory := range []int{0, 10} {
		t.Run(fmt.Sprintf("memory %d", memory), func(t *testing.T) {
			sourcetest.Test(t, func(t *testing.T) sourcetest.Fixture {
				s, _ := newSource(t, spool.Config{Memory: memory, Folder: os.TempDir()})
				text := func(n int) string { return fmt.Sprintf("state %d of the service", n) }
				return sourcetest.Fixture{
					Source: s,
					Opaque: true,
					Put: func(n int) {
						if err := s.Put(context.Background(), strings.NewReader(text(n))); err != nil {
							t.Error(err)
						}
					},
					Request: func(n int) { _ = s.Put(context.Background(), strings.NewReader(text(n))) },
					State: func() string {
						answer := ask(s, http.MethodGet, nil)
						return fmt.Sprint(answer.Code, answer.Body)
					},
					Close: func() {
						if err := s.Reset(context.Background()); err != nil { // gives the spool back
							t.Error(err)
						}
					},
				}
			})
		})
	}
}

func ask(s *push.Source, method string, body io.Reader) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	s.ServeHTTP(answer, httptest.NewRequest(method, "/state", body))
	return answer
}

func TestHTTP(t *testing.T) {
	s, dirty := newSource(t, spool.Config{Bytes: 10})
	unsaved := func() bool {
		_, is := dirty.Since()
		return is
	}
	if a := ask(s, http.MethodGet, nil); a.Code != http.StatusNoContent || a.Body.Len() > 0 {
		t.Errorf("GET before all: %d %s", a.Code, a.Body)
	}
	if a := ask(s, http.MethodPut, strings.NewReader("eleven byte")); a.Code != http.StatusRequestEntityTooLarge || unsaved() {
		t.Errorf("PUT of too much: %d %s, unsaved %v", a.Code, a.Body, unsaved())
	}
	if a := ask(s, http.MethodPut, strings.NewReader("ten bytes.")); a.Code != http.StatusNoContent || !unsaved() {
		t.Errorf("PUT: %d %s, unsaved %v", a.Code, a.Body, unsaved())
	}
	if a := ask(s, http.MethodGet, nil); a.Code != http.StatusOK || a.Body.String() != "ten bytes." || a.Header().Get("Content-Length") != "10" || a.Header().Get("Content-Type") != "text/plain" {
		t.Errorf("GET: %d %s %v", a.Code, a.Body, a.Header())
	}
	if a := ask(s, http.MethodHead, nil); a.Code != http.StatusOK || a.Body.Len() > 0 || a.Header().Get("Content-Length") != "10" {
		t.Errorf("HEAD: %d %s %v", a.Code, a.Body, a.Header())
	}
	for _, cut := range []struct {
		err  error
		code int
	}{{io.ErrUnexpectedEOF, http.StatusBadRequest}, {errors.New("broken"), http.StatusInternalServerError}} {
		body := io.MultiReader(strings.NewReader("half"), failing{cut.err})
		if a := ask(s, http.MethodPut, body); a.Code != cut.code {
			t.Errorf("PUT that breaks off (%v): %d", cut.err, a.Code)
		}
	}
	if a := ask(s, http.MethodGet, nil); a.Body.String() != "ten bytes." {
		t.Errorf("after PUTs that failed the state is %q", a.Body)
	}
	if a := ask(s, http.MethodPost, nil); a.Code != http.StatusMethodNotAllowed || a.Header().Get("Allow") != "GET, HEAD, PUT, DELETE" {
		t.Errorf("POST: %d %v", a.Code, a.Header())
	}
	other, dirty := newSource(t, spool.Config{})
	if a := ask(other, http.MethodDelete, nil); a.Code != http.StatusNoContent {
		t.Errorf("DELETE: %d", a.Code)
	}
	if _, is := dirty.Since(); !is {
		t.Error("DELETE changes nothing that is to be saved")
	}
}

// TestRealBodyIsCutOff: a client that dies half way has handed nothing over.
func TestRealBodyIsCutOff(t *testing.T) {
	s, dirty := newSource(t, spool.Config{})
	server := httptest.NewServer(s)
	defer server.Close()
	for _, length := range []int64{100, -1} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, server.URL, io.MultiReader(strings.NewReader("half"), failing{errors.New("the client dies")}))
		if err != nil {
			t.Fatal(err)
		}
		r.ContentLength = length
		if answer, err := http.DefaultClient.Do(r); err == nil {
			t.Errorf("a body of length %d that was cut off is answered with %s", length, answer.Status)
			_ = answer.Body.Close()
		}
	}
	if _, is := dirty.Since(); is {
		t.Error("half a state is to be saved")
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestRestoreIsNotDirty: what the runtime restores is saved already.
func TestRestoreIsNotDirty(t *testing.T) {
	s, dirty := newSource(t, spool.Config{})
	if err := errors.Join(s.Restore(t.Context(), strings.NewReader("tea")), s.Reset(t.Context())); err != nil {
		t.Fatal(err)
	}
	if _, is := dirty.Since(); is {
		t.Error("it is")
	}
	c, err := s.Capture(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := errors.Join(c.WriteNative(t.Context(), &out), c.Close()); err != nil || out.Len() > 0 {
		t.Errorf("the empty state is %q (%v)", out.String(), err)
	}
}

func TestConfiguration(t *testing.T) {
	if _, err := push.New(push.Config{}); err == nil {
		t.Error("no Dirty passes")
	}
	if _, err := push.New(push.Config{Dirty: new(runtime.Dirty), Spool: spool.Config{Memory: -1}}); err == nil {
		t.Error("a spool out of bounds passes")
	}
	s, _ := newSource(t, spool.Config{Bytes: 1})
	if err := s.Put(t.Context(), strings.NewReader("xx")); !errors.Is(err, abi.ErrTooLarge) || !strings.Contains(err.Error(), "part store") {
		t.Errorf("%v", err)
	}
}
