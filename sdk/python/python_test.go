// Package python_test tests the kit for services in Python: by its own tests, and by the example service
// under the runtime, its serializer and its state directory.
package python_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/source/sourcetest"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/tests/live"
	"github.com/torpor-run/torpor/tests/need"
	"github.com/torpor-run/torpor/tests/sdktest"
)

const (
	account = "000000000000"
	region  = "us-east-1"
)

// python is a command that leaves no compiled files behind. It ends with ctx.
func python(ctx context.Context, t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(ctx, need.Program(t, "python3"), args...)
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	return cmd
}

// TestKit runs the kit's own tests, and compiles every file.
func TestKit(t *testing.T) {
	t.Parallel()
	out, err := python(t.Context(), t, "-W", "error::ResourceWarning", "-m", "unittest", "-q").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "Ran ") || strings.Contains(string(out), "Ran 0 ") {
		t.Fatalf("no tests were run:\n%s", out)
	}
	files, err := filepath.Glob("examples/*/*.py")
	if err != nil || len(files) == 0 {
		t.Fatalf("examples: %q, %v", files, err)
	}
	for _, file := range append(files, "torpor.py", "test_torpor.py") {
		check := python(t.Context(), t, "-W", "error", "-c", "import sys; compile(open(sys.argv[1], encoding='utf-8').read(), sys.argv[1], 'exec')", file)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

// start starts a service on a free port and waits until it listens; it is killed when the test ends.
func start(t testing.TB, args ...string) *live.Service {
	t.Helper()
	return startIn(t, "", args...)
}

// startIn is start in a folder.
func startIn(t testing.TB, dir string, args ...string) *live.Service {
	t.Helper()
	cmd := python(context.WithoutCancel(t.Context()), t, args...)
	cmd.Dir = dir
	return live.Start(t, cmd)
}

type entry struct {
	Quantity int    `json:"quantity"`
	Supplier string `json:"supplier"`
	Phone    string `json:"phone,omitempty"`
}

type stock struct {
	Items     map[string]entry    `json:"items"`
	Suppliers map[string][]string `json:"suppliers"`
}

const inventory = "examples/inventory/inventory.py"

// TestSource holds the example to what every source must keep, through the http source.
func TestSource(t *testing.T) {
	need.Program(t, "python3")
	sourcetest.Test(t, func(t *testing.T) sourcetest.Fixture {
		running := start(t, inventory)
		warehouse := "/" + account + "/" + region
		take := func(n int) map[string]entry {
			return map[string]entry{"tea": {Quantity: n, Supplier: "acme"}, fmt.Sprint("sku-", n): {Quantity: 1, Supplier: "acme"}}
		}
		return sourcetest.Fixture{
			Source: running.Source(),
			Put:    func(n int) { running.Must("PUT", warehouse, take(n)) },
			State:  func() string { return string(running.Must("GET", "/", nil)) },
			Request: func(n int) {
				if _, err := running.Ask("PUT", fmt.Sprintf("%s/items/sku-%d", warehouse, n%5), entry{Quantity: n, Supplier: "other"}); err != nil {
					t.Error(err)
				}
			},
			Close: running.Kill,
		}
	})
}

// partitions counts the records of the state saved in folder by their partition.
func partitions(t testing.TB, folder string) map[string]int {
	t.Helper()
	found := map[string]int{}
	err := filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Base(path) != "store.state" {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, err := statefile.Open(bytes.NewReader(b), int64(len(b)), path)
		if err != nil {
			return err
		}
		for r := f.Records(); ; {
			batch, err := r.ReadBatch()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			for i := range batch.Len() {
				found[string(batch.Partition(i))]++
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestKilled: requests change the service, its state is saved, and service and runtime end without a
// word. The next ones have all of it, what was one object being one again.
func TestKilled(t *testing.T) {
	t.Parallel()
	pickle, _ := sdktest.Compile(t, "pickle", modules.Pickle(), host.Config{Logger: slog.New(slog.DiscardHandler)})
	folder := t.TempDir()
	first := start(t, inventory)
	const warehouse, other = "/" + account + "/" + region, "/111111111111/eu-west-1"
	first.Must("PUT", warehouse+"/items/tea", entry{Quantity: 3, Supplier: "acme"})
	first.Must("PUT", warehouse+"/items/milk", entry{Quantity: 5, Supplier: "acme"})
	first.Must("PUT", warehouse+"/items/cups", entry{Quantity: 7, Supplier: "potters"})
	first.Must("PUT", other+"/items/tea", entry{Quantity: 1, Supplier: "acme"})
	_, save, end := live.Open(t, folder, pickle, first.Source())
	save()
	first.Must("PUT", warehouse+"/suppliers/acme", map[string]string{"phone": "555-0100"})
	save()
	want := first.Must("GET", "/", nil)
	first.Must("DELETE", warehouse+"/items/tea", nil) // and is not saved
	first.Kill()
	end()
	got := partitions(t, folder)
	for _, partition := range []string{account + "/" + region, "111111111111/eu-west-1"} {
		if got[partition] == 0 {
			t.Errorf("no record is of partition %s: %v", partition, got)
		}
	}

	second := start(t, inventory)
	svc, save, endSecond := live.Open(t, folder, pickle, second.Source())
	defer endSecond()
	if status := svc.Status(); status.Status != runtime.StatusRunning || status.Parts[0].Generation != 2 {
		t.Fatalf("after the second start: %+v", status)
	}
	if all := second.Must("GET", "/", nil); !bytes.Equal(all, want) {
		t.Errorf("the service has\n%s\nit had\n%s", all, want)
	}
	// One supplier is still one, seen at each of its items, and in its own warehouse alone.
	second.Must("PUT", warehouse+"/suppliers/acme", map[string]string{"phone": "555-0199"})
	second.Must("DELETE", warehouse+"/items/milk", nil)
	second.Must("PUT", warehouse+"/items/soap", entry{Quantity: 2, Supplier: "acme"})
	for path, want := range map[string]stock{
		warehouse: {
			Items:     map[string]entry{"tea": {3, "acme", "555-0199"}, "cups": {7, "potters", ""}, "soap": {2, "acme", "555-0199"}},
			Suppliers: map[string][]string{"acme": {"soap", "tea"}, "potters": {"cups"}}},
		other: {Items: map[string]entry{"tea": {1, "acme", ""}}, Suppliers: map[string][]string{"acme": {"tea"}}},
	} {
		var got stock
		if err := json.Unmarshal(second.Must("GET", path, nil), &got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s is\n%+v\nwant\n%+v", path, got, want)
		}
	}

	// A reset empties it, and the empty state can be saved and loaded.
	if err := svc.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if all := second.Must("GET", "/", nil); string(all) != "{}" {
		t.Errorf("after Reset: %s", all)
	}
	save()
	second.Must("PUT", other+"/items/tea", entry{Quantity: 1, Supplier: "acme"})
	if _, err := svc.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if all := second.Must("GET", "/", nil); string(all) != "{}" {
		t.Errorf("after a load of the empty state: %s", all)
	}
}

// TestREADME runs the example that README.md begins with, as it stands there.
func TestREADME(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, code, _ := strings.Cut(string(readme), "```python\n")
	code, _, ok := strings.Cut(code, "```")
	if !ok || !strings.Contains(code, "port=4601") {
		t.Fatalf("README.md begins with no example on port 4601:\n%s", code)
	}
	dir := t.TempDir()
	kit, err := os.ReadFile("torpor.py")
	if err != nil {
		t.Fatal(err)
	}
	main := strings.Replace(code, "port=4601", "port=0", 1)
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "torpor.py"), kit, 0o600), os.WriteFile(filepath.Join(dir, "main.py"), []byte(main), 0o600),
		os.WriteFile(filepath.Join(dir, "warehouse.py"), []byte("class Store:\n    def __init__(self):\n        self.items = {}\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	const run = `
import sys, time
import main
main.put("000000000000", "us-east-1", "tea", 3)
print("listening on " + main.server.url("").split("/_torpor")[0], flush=True)
time.sleep(3600)
`
	running := startIn(t, dir, "-c", run)
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
	if !bytes.Contains(native.Bytes(), []byte("tea")) {
		t.Errorf("the state is %q", native.Bytes())
	}
	if err := errors.Join(source.Reset(t.Context()), source.Restore(t.Context(), &native)); err != nil {
		t.Fatal(err)
	}
}
