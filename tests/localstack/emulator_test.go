//go:build unix

// Package localstack tests Torpor as LocalStack's published clients use it, the lstk command line first: what it sends,
// byte for byte where that matters, and what it reads of the answers. Every test is one thing that a person does with
// it. The program is the built one, with the built-in S3 and a service of another kind, and what is looked at in the
// end is what is in these services.
package localstack

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/torpor-run/torpor/tests/program"
)

var (
	torporFile string // the built program
	cache      string // of compiled modules, shared by all runs
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "torpor-localstack-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	cache = filepath.Join(dir, "cache")
	code := program.Run(m, &torporFile)
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// emulator is a running Torpor, as the clients see it: S3, and a service called orders.
type emulator struct {
	t       testing.TB
	url     string
	data    string
	config  string // torpor.yaml
	env     []string
	log     *program.Output
	serving *program.Serving
	orders  *orders
}

// begin starts one with nothing in it.
func begin(t testing.TB, env ...string) *emulator {
	t.Helper()
	e := &emulator{t: t, env: env, data: filepath.Join(t.TempDir(), "data"), orders: &orders{}}
	service := httptest.NewServer(e.orders)
	t.Cleanup(service.Close)
	e.config = `
services:
  orders:
    upstream: ` + service.URL + `
    match: {path: [/orders]}
    parts:
      store: {serializer: json, source: {http: {url: "http://{address}/state", atomic: true}}}
`
	e.serve()
	return e
}

// lone starts one that has S3 only, and nothing in it.
func lone(t testing.TB) *emulator {
	t.Helper()
	e := &emulator{t: t, data: filepath.Join(t.TempDir(), "data")}
	e.serve()
	return e
}

// filled starts one with a bucket of one object, and an order.
func filled(t testing.TB, env ...string) *emulator {
	t.Helper()
	e := begin(t, env...)
	e.bucket("fruits", "")
	e.put("/fruits/apple", "red")
	e.order("1", "bread")
	return e
}

// again ends the program as LocalStack's clients do, and starts it again on what it has kept.
func (e *emulator) again() {
	e.t.Helper()
	e.do(http.MethodPost, "/_localstack/health", `{"action":"kill"}`).is(http.StatusOK).text("ok")
	if code := e.serving.Wait(e.t); code != 0 {
		e.t.Fatalf("it ended with exit code %d: %s", code, e.log)
	}
	e.serve()
}

// serve starts the program.
func (e *emulator) serve() {
	e.t.Helper()
	dir := e.t.TempDir()
	config := filepath.Join(dir, "torpor.yaml")
	if err := os.WriteFile(config, []byte(e.config), 0o600); err != nil {
		e.t.Fatal(err)
	}
	cmd := exec.Command(torporFile, "serve", "--listen", "127.0.0.1:0", "--data", e.data, "--cache", cache, "--config", config)
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}, e.env...)
	e.serving = program.Start(e.t, cmd, nil, nil)
	e.log, e.url = e.serving.Log, e.serving.URL(e.t)
}

// orders is a service that keeps texts by number, with its state at /state.
type orders struct {
	mu    sync.Mutex
	texts map[string]string
	bad   bool // takes no state
}

func (o *orders) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	number, order := strings.CutPrefix(r.URL.Path, "/orders/")
	switch {
	case order && r.Method == http.MethodPut:
		if o.texts == nil {
			o.texts = map[string]string{}
		}
		o.texts[number] = string(body)
	case order && r.Method == http.MethodDelete:
		delete(o.texts, number)
	case r.URL.Path != "/state":
		http.NotFound(w, r)
	case r.Method == http.MethodGet:
		w.Header().Set("Content-Type", "application/json")
		b, _ := json.Marshal(o.texts) // of texts: cannot fail
		_, _ = w.Write(b)
	case r.Method == http.MethodPut:
		var texts map[string]string
		if o.bad || json.Unmarshal(body, &texts) != nil {
			http.Error(w, "no state of mine", http.StatusUnprocessableEntity)
			return
		}
		o.texts = texts
	case r.Method == http.MethodDelete:
		o.texts = nil
	}
}

func (o *orders) refuse(bad bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.bad = bad
}

// wants checks all orders there are.
func (e *emulator) wants(want map[string]string) {
	e.t.Helper()
	e.orders.mu.Lock()
	defer e.orders.mu.Unlock()
	if !maps.Equal(e.orders.texts, want) {
		e.t.Errorf("the orders are %v, want %v", e.orders.texts, want)
	}
}

// answer is what came back.
type answer struct {
	t      testing.TB
	status int
	header http.Header
	body   []byte
}

// do sends a request. A body that is a string or bytes has a length, any other reader's goes out in chunks, as a file's
// from lstk.
func (e *emulator) do(method, path string, body any, header ...string) answer {
	e.t.Helper()
	var from io.Reader
	switch b := body.(type) {
	case string:
		from = strings.NewReader(b)
	case []byte:
		from = bytes.NewReader(b)
	case io.Reader:
		from = b
	}
	r, err := http.NewRequest(method, e.url+path, from)
	if err != nil {
		e.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	return answer{e.t, resp.StatusCode, resp.Header, b}
}

// call sends what lstk sends about a named snapshot.
func (e *emulator) call(method, path, body string) answer {
	e.t.Helper()
	return e.do(method, path, body, "Content-Type", "application/json", "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(":token")))
}

// chunks is a reader of bytes that nobody can see to be of a known length.
func chunks(b []byte) io.Reader { return io.MultiReader(bytes.NewReader(b)) }

// is checks the status.
func (a answer) is(status int) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("answered with %d %s; want %d", a.status, a.body, status)
	}
	return a
}

// text checks that the body has a text somewhere, in any case of letters, as lstk looks for it.
func (a answer) text(want string) answer {
	a.t.Helper()
	if !strings.Contains(strings.ToLower(string(a.body)), strings.ToLower(want)) {
		a.t.Errorf("answered with %d %s; want a text with %q", a.status, a.body, want)
	}
	return a
}

// json reads the body into v.
func (a answer) json(v any) {
	a.t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		a.t.Fatalf("%v in %s", err, a.body)
	}
}

// event is a line of NDJSON, as lstk reads it.
type event struct {
	Event     string `json:"event"`
	Operation string `json:"operation"`
	Service   string `json:"service"`
	Status    string `json:"status"`
	Message   string `json:"message"`
	Info      struct {
		Version  int      `json:"version"`
		Services []string `json:"services"`
		Size     int64    `json:"size"`
	} `json:"info"`
}

func (a answer) lines() (events []event) {
	a.t.Helper()
	in := bufio.NewScanner(bytes.NewReader(a.body))
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var ev event
		if err := json.Unmarshal(in.Bytes(), &ev); err != nil {
			a.t.Fatalf("%v in the line %s", err, in.Text())
		}
		events = append(events, ev)
	}
	if err := in.Err(); err != nil {
		a.t.Fatal(err)
	}
	return events
}

// done checks that lines are those of an operation that went well on services, in any order, and gives the completion.
func (a answer) done(operation string, services ...string) event {
	a.t.Helper()
	events := a.is(http.StatusOK).lines()
	left := map[string]bool{}
	for _, name := range services {
		left[name] = true
	}
	for _, ev := range events[:len(events)-1] {
		if ev.Event != "service" || ev.Status != "ok" || ev.Operation != operation || !left[ev.Service] {
			a.t.Errorf("a line is %+v", ev)
		}
		delete(left, ev.Service)
	}
	last := events[len(events)-1]
	if len(left) > 0 || last.Event != "completion" || last.Status != "ok" || last.Operation != operation {
		a.t.Fatalf("the lines are %s", a.body)
	}
	return last
}

// loaded checks the lines of a snapshot file that was loaded.
func (a answer) loaded(services ...string) {
	a.t.Helper()
	var got []string
	for _, ev := range a.is(http.StatusCreated).lines() {
		if ev.Status != "ok" {
			a.t.Errorf("a line is %+v", ev)
		}
		got = append(got, ev.Service)
	}
	if fmt.Sprint(got) != fmt.Sprint(services) {
		a.t.Errorf("loaded were %q, want %q", got, services)
	}
}

// bucket makes one; region "" is the default.
func (e *emulator) bucket(name, region string) {
	e.t.Helper()
	body := ""
	if region != "" {
		body = `<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><LocationConstraint>` + region + `</LocationConstraint></CreateBucketConfiguration>`
	}
	e.do(http.MethodPut, "/"+name, body).is(http.StatusOK)
}

func (e *emulator) put(path, body string) {
	e.t.Helper()
	e.do(http.MethodPut, path, body).is(http.StatusOK)
}

func (e *emulator) order(number, text string) {
	e.t.Helper()
	e.do(http.MethodPut, "/orders/"+number, text).is(http.StatusOK)
}

func (e *emulator) has(path, body string) {
	e.t.Helper()
	if a := e.do(http.MethodGet, path, nil); a.status != http.StatusOK || string(a.body) != body {
		e.t.Errorf("GET %s: %d %.200s, want %s", path, a.status, a.body, body)
	}
}

func (e *emulator) lacks(path string) {
	e.t.Helper()
	if a := e.do(http.MethodGet, path, nil); a.status != http.StatusNotFound {
		e.t.Errorf("GET %s: %d %.200s, want 404", path, a.status, a.body)
	}
}
