package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if played, err := playRole(); played {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// All that is measured through torpor serve, with small states and few requests: every answer must be right, or it
// fails.
func TestBenchServe(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	short := 50 * time.Millisecond
	for name, c := range map[string]struct {
		run  func(out *strings.Builder) error
		want []string
	}{
		"gateway": {func(out *strings.Builder) error {
			return benchGateway(t.Context(), out, gatewayPlan{rounds: 1, turns: 1, requests: 3, clients: 4, each: short, large: 1 << 20, bodies: 1})
		}, []string{"## The gateway", "| a GET |", "| a PUT ", "| the service answers at once |", "| to the client |", "| to the service |"}},
		"wake": {func(out *strings.Builder) error { return benchWake(t.Context(), out, 1, 100_000) },
			[]string{"## Sleep and wake", "| the embedded S3 |", "| a service in Go", "a service in Python", "| torpor itself"}},
		"saves": {func(out *strings.Builder) error {
			return benchSaves(t.Context(), out, savesPlan{rounds: 1, size: 100_000, every: 5 * time.Millisecond, each: 2 * flushInterval})
		}, []string{"## Requests while saves run", "| the embedded S3 |", "| source `http`, requests held", "`atomic: true` |"}},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			if err := c.run(&out); err != nil {
				t.Fatal(err)
			}
			for _, want := range c.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("%q is missing in\n%s", want, out.String())
				}
			}
			columns := 0 // of a table
			for line := range strings.Lines(out.String()) {
				n := strings.Count(line, "|")
				if columns != 0 && n != 0 && n != columns {
					t.Errorf("%d columns of %d: %s", n-1, columns-1, line)
				}
				columns = n
			}
		})
	}
}

// A generator measures as many requests as it is told to, and fails with an answer that is not what was asked for.
func TestLoad(t *testing.T) {
	server := httptest.NewServer((&items{items: map[string]json.RawMessage{}}).handler())
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://")
	small := sent{Method: "GET", Path: "/small", Read: int64(len(smallAnswer))}
	const large = 3 << 20
	for name, c := range map[string]struct {
		load load
		took int    // requests measured; -1: some
		fail string // in what it says
	}{
		"counted":         {load{Requests: []sent{small}, Connections: 3, Warm: 1, Count: 5}, 15, ""},
		"for a time":      {load{Requests: []sent{small}, Connections: 2, For: 20 * time.Millisecond}, -1, ""},
		"at a rate":       {load{Requests: []sent{small}, Connections: 2, For: 50 * time.Millisecond, Every: 10 * time.Millisecond}, 5, ""},
		"large bodies":    {load{Requests: []sent{{Method: "GET", Path: fmt.Sprintf("/large/%d", large), Read: large}, {Method: "PUT", Path: "/large", Zeros: large, Read: 7}}, Connections: 1, Count: 4}, 4, ""},
		"work":            {load{Requests: []sent{{Method: "GET", Path: "/busy", Read: small.Read}}, Connections: 1, Count: 1}, 1, ""},
		"not there":       {load{Requests: []sent{{Method: "GET", Path: "/items/none", Read: -1}}, Connections: 1, Count: 1}, 0, "404"},
		"of other length": {load{Requests: []sent{{Method: "GET", Path: "/small", Read: 1}}, Connections: 1, Count: 1}, 0, "bytes, not 1"},
	} {
		t.Run(name, func(t *testing.T) {
			c.load.Address = address
			answer, err := c.load.run()
			if c.fail != "" {
				if err == nil || !strings.Contains(err.Error(), c.fail) {
					t.Errorf("%v, want %q in it", err, c.fail)
				}
				return
			}
			if err != nil || answer.Wall <= 0 || c.took >= 0 && len(answer.Took) != c.took || len(answer.Took) == 0 || slices.Min(answer.Took) <= 0 {
				t.Errorf("%d requests in %v, %v; want %d", len(answer.Took), answer.Wall, err, c.took)
			}
		})
	}
}

// What the service gives as its state it takes again, and other bytes it does not.
func TestItems(t *testing.T) {
	s := &items{items: map[string]json.RawMessage{}}
	do := func(method, path, body string) (int, string) {
		w := httptest.NewRecorder()
		s.handler().ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
		return w.Code, w.Body.String()
	}
	want := itemsOf(50_000)
	if code, said := do("PUT", statePath, string(want.native())); code != 200 {
		t.Fatal(code, said)
	}
	if _, said := do("GET", "/items/asked", ""); said != smallAnswer {
		t.Error(said)
	}
	if code, _ := do("PUT", "/items/a/b", `{"c":1}`); code != 200 {
		t.Error(code)
	}
	want.Items["a/b"] = json.RawMessage(`{"c":1}`)
	_, native := do("GET", statePath, "")
	if native != string(want.native()) {
		t.Errorf("%.200q, want %.200q", native, want.native())
	}
	if code, _ := do("PUT", statePath, native[:len(native)/2]); code != 422 {
		t.Error(code)
	}
	if _, after := do("GET", statePath, ""); after != native {
		t.Error("a state that was refused has changed it")
	}
	do("DELETE", statePath, "")
	if _, empty := do("GET", statePath, ""); empty != `{"items":{}}` {
		t.Error(empty)
	}
}

// What a process uses of the processors is told, children included.
func TestProcessorTime(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("there is no /proc")
	}
	before := processorTime(os.Getpid())
	for sum := 0; processorTime(os.Getpid()) < before+50*time.Millisecond; sum++ {
		_ = fmt.Sprint(sum)
	}
	if processorTime(1<<30) != 0 {
		t.Error("a process that is not there has used some")
	}
}

// nginx gets a configuration that it takes for what it is: sizes and paths in it are those given.
func TestNginxConfig(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "n")
	text := nginxConfig(folder, "127.0.0.1:1", "127.0.0.1:2")
	lines := bufio.NewScanner(bytes.NewReader(text))
	depth := 0
	for lines.Scan() {
		depth += strings.Count(lines.Text(), "{") - strings.Count(lines.Text(), "}")
		if strings.Contains(lines.Text(), "%!") {
			t.Error(lines.Text())
		}
	}
	if depth != 0 || !bytes.Contains(text, []byte("listen 127.0.0.1:1;")) || !bytes.Contains(text, []byte("server 127.0.0.1:2;")) || !bytes.Contains(text, []byte(folder+"/nginx.pid")) {
		t.Errorf("%s", text)
	}
}
