// Package node_test tests the kit for services in Node: by its own tests, and by the example service
// under the runtime, its serializer and its state directory.
package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/source/sourcetest"
	"github.com/torpor-run/torpor/tests/live"
	"github.com/torpor-run/torpor/tests/need"
	"github.com/torpor-run/torpor/tests/sdktest"
)

// TestKit runs the kit's own tests.
func TestKit(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), need.Program(t, "node"), "--test", "--test-reporter=tap", "torpor.test.mjs")
	out, err := cmd.CombinedOutput()
	if err != nil && bytes.Contains(out, []byte("bad option")) { // Node 18 before 18.15 has this reporter alone
		cmd = exec.CommandContext(t.Context(), cmd.Path, "--test", "torpor.test.mjs")
		out, err = cmd.CombinedOutput()
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !regexp.MustCompile(`(?m)^# pass [1-9]`).Match(out) || !regexp.MustCompile(`(?m)^# fail 0$`).Match(out) {
		t.Fatalf("no tests were run:\n%s", out)
	}
}

// start starts a service on a free port and waits until it listens; it is killed when the test ends.
func start(t testing.TB, args ...string) *live.Service {
	t.Helper()
	return live.Start(t, exec.CommandContext(context.WithoutCancel(t.Context()), need.Program(t, "node"), append(args, "--port=0")...))
}

type note struct {
	Title string `json:"title"`
	Text  string `json:"text"`
}

const example = "examples/notes/notes.mjs"

// TestSource holds the example to what every source must keep, through the http source.
func TestSource(t *testing.T) {
	need.Program(t, "node")
	sourcetest.Test(t, func(t *testing.T) sourcetest.Fixture {
		running := start(t, example)
		return sourcetest.Fixture{
			Source: running.Source(),
			Put: func(n int) {
				running.Must("PUT", "/notes", map[string]note{"tea": {"tea", fmt.Sprint("cups: ", n)}, fmt.Sprint("note-", n): {"é", "\x00"}})
			},
			State: func() string { return string(running.Must("GET", "/notes", nil)) },
			Request: func(n int) {
				if _, err := running.Ask("PUT", fmt.Sprint("/notes/note-", n%5), note{Title: "a", Text: fmt.Sprint(n)}); err != nil {
					t.Error(err)
				}
			},
			Close: running.Kill,
		}
	})
}

// TestKilled: requests change the service, its state is saved, and service and runtime end without a
// word. The next ones have all of it.
func TestKilled(t *testing.T) {
	t.Parallel()
	json, _ := sdktest.Compile(t, "json", modules.JSON(), host.Config{Logger: slog.New(slog.DiscardHandler)})
	folder := t.TempDir()
	first := start(t, example)
	for i := range 100 {
		first.Must("PUT", fmt.Sprint("/notes/", i), note{Title: fmt.Sprint("note ", i), Text: "é \u2028 \" \x00"})
	}
	first.Must("DELETE", "/notes/50", nil)
	svc, save, end := live.Open(t, folder, json, first.Source())
	save()
	first.Must("POST", "/notes/7", "more")
	save()
	if part := svc.Status().Parts[0]; part.Records < 99 {
		t.Errorf("99 notes are %d records", part.Records)
	}
	want := first.Must("GET", "/notes", nil)
	first.Must("DELETE", "/notes/7", nil) // and is not saved
	first.Kill()
	end()

	second := start(t, example)
	svc, save, end = live.Open(t, folder, json, second.Source())
	defer func() { end() }()
	if status := svc.Status(); status.Status != runtime.StatusRunning || status.Parts[0].Generation != 2 {
		t.Fatalf("after the second start: %+v", status)
	}
	if all := second.Must("GET", "/notes", nil); !bytes.Equal(all, want) {
		t.Errorf("the service has\n%s\nit had\n%s", all, want)
	}

	// A reset empties it, and the empty state can be saved and loaded.
	const empty = `{"words":0,"notes":{}}`
	if err := svc.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if all := second.Must("GET", "/notes", nil); string(all) != empty {
		t.Errorf("after Reset: %s", all)
	}
	save()
	second.Must("PUT", "/notes/1", note{Title: "a", Text: "b"})
	if _, err := svc.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if all := second.Must("GET", "/notes", nil); string(all) != empty {
		t.Errorf("after a load of the empty state: %s", all)
	}
}

// TestREADME runs the example that README.md begins with, as it stands there, and as a CommonJS module.
func TestREADME(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, code, _ := strings.Cut(string(readme), "```js\n")
	code, _, ok := strings.Cut(code, "```")
	if !ok || !strings.Contains(code, "listen(4700") {
		t.Fatalf("README.md begins with no example on port 4700:\n%s", code)
	}
	kit, err := os.ReadFile("torpor.cjs")
	if err != nil {
		t.Fatal(err)
	}
	code = strings.Replace(code, "listen(4700", "listen(0", 1) + "\nserver.on(\"listening\", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));\n"
	required := regexp.MustCompile(`(?m)^import (.*) from (".*");$`).ReplaceAllString(code, "const $1 = require($2);")
	if required == code {
		t.Fatal("README.md's example imports nothing")
	}
	for name, code := range map[string]string{"main.mjs": code, "main.cjs": required} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			main := filepath.Join(dir, name)
			if err := errors.Join(os.WriteFile(filepath.Join(dir, "torpor.cjs"), kit, 0o600), os.WriteFile(main, []byte(code), 0o600)); err != nil {
				t.Fatal(err)
			}
			running := start(t, main)
			running.Must("PUT", "/tea", "three cups")
			source := running.Source()
			capture, err := source.Capture(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer capture.Close()
			var native bytes.Buffer
			if err := capture.WriteNative(t.Context(), &native); err != nil {
				t.Fatal(err)
			}
			if got := native.String(); got != `{"tea":"\"three cups\""}` {
				t.Errorf("the state is %s", got)
			}
			if err := errors.Join(source.Reset(t.Context()), source.Restore(t.Context(), &native)); err != nil {
				t.Fatal(err)
			}
		})
	}
}
