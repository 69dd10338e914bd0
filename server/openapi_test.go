package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
)

// contract is openapi.yaml, which answers are held against.
type contract struct {
	doc    *openapi3.T
	router routers.Router

	mu   sync.Mutex
	kept map[string]bool // operations of which there was an answer that was no error
}

// theContract reads it once for all tests.
var theContract = sync.OnceValues(func() (*contract, error) {
	text, err := os.ReadFile("openapi.yaml")
	if err != nil {
		return nil, err
	}
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		return nil, err
	}
	if err := doc.Validate(context.Background(), openapi3.EnableExamplesValidation(), openapi3.EnableSchemaDefaultsValidation()); err != nil {
		return nil, err
	}
	router, err := legacy.NewRouter(doc)
	return &contract{doc: doc, router: router, kept: map[string]bool{}}, err
})

// documented is a handler whose answers under /_torpor/ must be as openapi.yaml says they are.
func documented(t *testing.T, h http.Handler) http.Handler {
	c, err := theContract()
	if err != nil {
		t.Fatalf("openapi.yaml: %v", err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/_torpor/") {
			h.ServeHTTP(w, r)
			return
		}
		asked := r.Clone(context.WithoutCancel(r.Context()))
		var sent bytes.Buffer
		if r.Body != nil {
			r.Body = struct {
				io.Reader
				io.Closer
			}{io.TeeReader(r.Body, &sent), r.Body}
		}
		got := &recorded{ResponseWriter: w}
		h.ServeHTTP(got, r)
		if err := c.check(asked, sent.Bytes(), got.status, w.Header(), got.body.Bytes()); err != nil {
			t.Errorf("openapi.yaml does not say what %s %s does: %v", r.Method, r.URL.RequestURI(), err)
		}
	})
}

// recorded keeps what is written.
type recorded struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (r *recorded) WriteHeader(status int) {
	if r.status == 0 && status >= 200 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorded) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	r.body.Write(b)
	return r.ResponseWriter.Write(b)
}

func (r *recorded) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// check says what about a request and its answer is not in the document.
func (c *contract) check(r *http.Request, sent []byte, status int, header http.Header, body []byte) error {
	if status == 0 {
		status = http.StatusOK
	}
	r.URL = &url.URL{Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery} // whatever the host
	route, path, err := c.router.FindRoute(r)
	if err != nil {
		if status == http.StatusNotFound || status == http.StatusMethodNotAllowed {
			return c.visit(c.doc.Components.Schemas["Error"], body)
		}
		return fmt.Errorf("it is not there: %w", err)
	}
	input := &openapi3filter.RequestValidationInput{Request: r, PathParams: path, Route: route, Options: &openapi3filter.Options{
		AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true,
		ExcludeRequestBody: !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") && route.Operation.RequestBody != nil &&
			route.Operation.RequestBody.Value.Content.Get("application/json") == nil}}
	if status < 300 {
		if err := c.request(input, sent); err != nil {
			return fmt.Errorf("the request: %w", err)
		}
		c.mu.Lock()
		c.kept[route.Operation.OperationID] = true
		c.mu.Unlock()
	}
	if err := c.answer(input, status, header, body); err != nil {
		return fmt.Errorf("the answer, %d: %w", status, err)
	}
	return nil
}

// forget forgets what there were answers of.
func (c *contract) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.kept)
}

// unanswered are the operations of which there was no answer that was no error.
func (c *contract) unanswered() (missing []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, item := range c.doc.Paths.Map() {
		for _, op := range item.Operations() {
			if !c.kept[op.OperationID] {
				missing = append(missing, op.OperationID)
			}
		}
	}
	return missing
}

func (c *contract) request(input *openapi3filter.RequestValidationInput, sent []byte) error {
	r := input.Request
	for name := range r.URL.Query() {
		if input.Route.Operation.Parameters.GetByInAndName("query", name) == nil {
			return fmt.Errorf("there is no parameter %s", name)
		}
	}
	r.Body = io.NopCloser(bytes.NewReader(sent))
	r.ContentLength = int64(len(sent))
	if len(sent) > 0 && r.Header.Get("Content-Type") == "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return openapi3filter.ValidateRequest(r.Context(), input)
}

func (c *contract) answer(input *openapi3filter.RequestValidationInput, status int, header http.Header, body []byte) error {
	ref := input.Route.Operation.Responses.Status(status)
	if ref == nil && (status == http.StatusMethodNotAllowed || status == http.StatusTooManyRequests) {
		ref = input.Route.Operation.Responses.Default()
	}
	if ref == nil {
		return fmt.Errorf("there is no such status")
	}
	if input.Request.Method == http.MethodHead || len(ref.Value.Content) == 0 {
		if len(body) > 0 && input.Request.Method != http.MethodHead {
			return fmt.Errorf("it has a body, %q", body)
		}
		return nil
	}
	media := header.Get("Content-Type")
	content := ref.Value.Content.Get(media)
	if content == nil {
		return fmt.Errorf("it is %q; there are %v", media, slices.Collect(func(yield func(string) bool) {
			for name := range ref.Value.Content {
				if !yield(name) {
					return
				}
			}
		}))
	}
	var pieces [][]byte
	schema := content.Schema
	switch media {
	case "application/json":
		pieces = [][]byte{body}
	case "application/x-ndjson":
		pieces = bytes.Split(bytes.TrimSuffix(body, []byte("\n")), []byte("\n"))
	case "text/event-stream":
		schema = c.doc.Components.Schemas["Event"]
		for line := range bytes.Lines(body) {
			if data, ok := bytes.CutPrefix(line, []byte("data: ")); ok && bytes.HasSuffix(data, []byte("\n")) {
				pieces = append(pieces, data)
			}
		}
	}
	for _, piece := range pieces {
		if err := c.visit(schema, piece); err != nil {
			return err
		}
	}
	return openapi3filter.ValidateResponse(input.Request.Context(), &openapi3filter.ResponseValidationInput{RequestValidationInput: input,
		Status: status, Header: header, Options: &openapi3filter.Options{ExcludeResponseBody: true, IncludeResponseStatus: true}})
}

func (c *contract) visit(schema *openapi3.SchemaRef, text []byte) error {
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		return fmt.Errorf("%w in %q", err, text)
	}
	if err := schema.Value.VisitJSON(v, openapi3.VisitAsResponse(), openapi3.MultiErrors()); err != nil {
		return fmt.Errorf("%w in %s", err, text)
	}
	return nil
}

// TestContractIsKept: what tests hold answers against finds what is wrong.
func TestContractIsKept(t *testing.T) {
	c, err := theContract()
	if err != nil {
		t.Fatal(err)
	}
	const health = `{"status":"ok","version":"1","features":{"persistence":"disabled"},"services":[]}`
	const fault = `{"error":{"code":"x","message":"y","hint":""}}`
	for _, test := range []struct {
		name, method, url, sent string
		status                  int
		media, body             string
		wrong                   string // "": nothing
	}{
		{"health", "GET", "/_torpor/health", "", 200, "application/json", health, ""},
		{"not JSON", "GET", "/_torpor/health", "", 200, "application/json", "{", "unexpected end"},
		{"a field too many", "GET", "/_torpor/health", "", 200, "application/json", strings.Replace(health, "{", `{"more":1,`, 1), "more"},
		{"a field too few", "GET", "/_torpor/health", "", 200, "application/json", `{"status":"ok"}`, "version"},
		{"a word that is none", "GET", "/_torpor/health", "", 200, "application/json", strings.Replace(health, "ok", "fine", 1), "fine"},
		{"another media type", "GET", "/_torpor/health", "", 200, "text/plain", health, "text/plain"},
		{"another status", "GET", "/_torpor/health", "", 404, "application/json", fault, "no such status"},
		{"a route that is not there", "GET", "/_torpor/nothing", "", 200, "application/json", "{}", "not there"},
		{"an error of a route that is not there", "GET", "/_torpor/nothing", "", 404, "application/json", fault, ""},
		{"another error of it", "GET", "/_torpor/nothing", "", 404, "application/json", `{"message":"x"}`, "message"},
		{"a wrong method", "PUT", "/_torpor/health", "", 405, "application/json", fault, ""},
		{"an undocumented method", "PUT", "/_torpor/health", "", 200, "application/json", health, "not there"},
		{"an undocumented parameter", "GET", "/_torpor/services?x=1", "", 200, "application/json", `{"services":[]}`, "parameter x"},
		{"a parameter that is no number", "GET", "/_torpor/services/a/parts/b/records?limit=x", "", 200, "application/json", `{"records":[],"next":null,"more":false,"generation":0}`, "limit"},
		{"the same, refused", "GET", "/_torpor/services/a/parts/b/records?limit=x", "", 400, "application/json", fault, ""},
		{"an undocumented field in a body", "POST", "/_torpor/snapshots/gc", `{"dry":true}`, 200, "application/json", `{"packs":0,"rewrote":0,"freed":0,"waiting":0,"kept":0,"dry_run":false}`, "dry"},
		{"lines", "GET", "/_torpor/diff", "", 200, "application/x-ndjson", `{"change":{"service":"a","part":"b","partition":"","key":{"$bytes":"AA=="},"kind":"added","bytes_before":0,"bytes_after":1,"after":null}}` + "\n" + `{"summary":[]}` + "\n", ""},
		{"a wrong line", "GET", "/_torpor/diff", "", 200, "application/x-ndjson", `{"summary":[]}` + "\n" + `{"sum":[]}` + "\n", "sum"},
		{"two in one line", "GET", "/_torpor/diff", "", 200, "application/x-ndjson", `{"summary":[],"error":{"code":"a","message":"b","hint":""}}` + "\n", "at most 1 properties"},
		{"events", "GET", "/_torpor/events", "", 200, "text/event-stream", "retry: 1\n\nid: 1\nevent: exit\ndata: {\"kind\":\"exit\",\"at\":\"2026-04-01T12:00:00Z\"}\n\ndata: {\"cut", ""},
		{"a wrong event", "GET", "/_torpor/events", "", 200, "text/event-stream", "data: {\"kind\":\"end\",\"at\":\"2026-04-01T12:00:00Z\"}\n\n", "kind"},
		{"a body where there is none", "DELETE", "/_torpor/snapshots/a", "", 204, "", "gone", "body"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := httptest.NewRequest(test.method, test.url, nil)
			err := c.check(r, []byte(test.sent), test.status, http.Header{"Content-Type": {test.media}}, []byte(test.body))
			switch {
			case test.wrong == "" && err != nil:
				t.Error(err)
			case test.wrong != "" && (err == nil || !strings.Contains(err.Error(), test.wrong)):
				t.Errorf("found: %v; wanted something about %q", err, test.wrong)
			}
		})
	}
}

// TestContractIsServed: who asks Torpor gets the document that tests hold it against.
func TestContractIsServed(t *testing.T) {
	l := begin(t, nil, nil)
	defer l.end(t)
	text, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	a := l.do(t, http.MethodGet, "/_torpor/openapi.yaml", "")
	a.wants(t, http.StatusOK, string(text))
	if got := a.header.Get("Content-Type"); got != "application/yaml" {
		t.Errorf("it is %s", got)
	}
}

// TestContractHasNames for what clients are made from.
func TestContractHasNames(t *testing.T) {
	c, err := theContract()
	if err != nil {
		t.Fatal(err)
	}
	for path, item := range c.doc.Paths.Map() {
		for method, op := range item.Operations() {
			if op.OperationID == "" || op.Summary == "" || len(op.Tags) != 1 {
				t.Errorf("%s %s has no operationId, no summary, or not one tag", method, path)
			}
		}
	}
}
