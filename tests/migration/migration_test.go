// Package migration tests what happens to a state when the service and its serializer change their schema:
// the to-do example of the Go SDK, with the module of schema 1 that wrote a state and the one of schema 2
// that opens it.
package migration_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/runtime/vfs"
	"github.com/torpor-run/torpor/tests/live"
	"github.com/torpor-run/torpor/tests/need"
)

// Where the example is, and what it was in schema 1.
const (
	today  = "../../sdk/go/examples/todo"
	before = today + "/testdata/v1"
)

// build builds the module of an example, as its author does.
func build(t *testing.T, dir string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "module.wasm")
	cmd := exec.Command(need.Program(t, "go"), "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", out, ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v in %s: %v\n%s", cmd, dir, err, msg)
	}
	wasm, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// converted is a file of schema 1 as the service of today would write it: what the module's migration
// should come to, found by another way.
func converted(t *testing.T, native []byte) string {
	t.Helper()
	type (
		owner struct {
			Given  string `json:"given"`
			Family string `json:"family"`
		}
		task struct {
			ID       string   `json:"id"`
			List     string   `json:"list"`
			Title    string   `json:"title"`
			Assignee string   `json:"assignee,omitempty"`
			Owner    owner    `json:"owner"`
			Due      string   `json:"due,omitempty"`
			Date     string   `json:"date"`
			Time     string   `json:"time"`
			Priority uint64   `json:"priority"`
			Done     bool     `json:"done"`
			Tags     []string `json:"tags"`
		}
	)
	lines := strings.SplitAfter(string(native), "\n")
	lines[0] = `{"format":"todo","schema":2}` + "\n"
	for i := 1; i < len(lines)-2; i++ { // all but the first, the one that counts, and what is after it
		var v task
		if err := json.Unmarshal([]byte(lines[i]), &v); err != nil {
			t.Fatal(err)
		}
		v.Owner.Given = v.Assignee
		if at := strings.LastIndex(v.Assignee, " "); at >= 0 {
			v.Owner = owner{v.Assignee[:at], v.Assignee[at+1:]}
		}
		v.Date, v.Time, _ = strings.Cut(v.Due, "T")
		v.Assignee, v.Due = "", ""
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		lines[i] = string(b) + "\n"
	}
	return strings.Join(lines, "")
}

// statePath is where the state of the service is.
const statePath = "state/api_states/tasks/store.state"

// run is one run of Torpor over a disk, with the service's serializer of that time: what f does, with a
// service that has been given the state that is there.
func run(t *testing.T, disk vfs.FS, serializer runtime.Serializer, f func(part *live.Part, svc *runtime.Service)) {
	t.Helper()
	logger := slog.New(slog.NewTextHandler(t.Output(), nil))
	dir, err := statedir.Open(disk, statedir.Options{Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	part := &live.Part{}
	rt, err := runtime.New(runtime.Config{Dir: dir, Logger: logger, Services: []runtime.ServiceConfig{{
		Name: "tasks", Save: runtime.SaveManual, Load: runtime.LoadOnStartup,
		Parts: []runtime.PartConfig{{Name: "store", Serializer: serializer, Source: part, Dirty: &part.Dirty}}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := rt.Start(t.Context()); err != nil {
		t.Log(err) // the status says what it is
	}
	svc, err := rt.Service("tasks")
	if err != nil {
		t.Fatal(err)
	}
	f(part, svc)
	if err := errors.Join(rt.Close(context.Background()), dir.Close()); err != nil {
		t.Error(err)
	}
}

// save saves what the service has.
func save(t *testing.T, part *live.Part, svc *runtime.Service) {
	t.Helper()
	part.Dirty.Mark("all")
	if err := svc.Save(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// file is the state file on a disk.
func file(t *testing.T, disk vfs.FS) []byte {
	t.Helper()
	f, err := disk.OpenFile(statePath, vfs.Read)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// wantWriter checks which module a state file says that it was written by.
func wantWriter(t *testing.T, state, wasm []byte, version string, schema uint64) {
	t.Helper()
	f, err := statefile.Open(bytes.NewReader(state), int64(len(state)), statePath)
	if err != nil {
		t.Fatal(err)
	}
	if w := f.Header().Serializer; w.Name != "todo" || w.Version != version || w.Schema != schema || w.Digest != sha256.Sum256(wasm) {
		t.Errorf("the state was written by %+v, want version %s, schema %d", w, version, schema)
	}
}

// migrating is a module that does not load records of schema 1 itself, so that the runtime must have them
// migrated first.
type migrating struct{ *host.Module }

func (m migrating) Descriptor() abi.Descriptor {
	d := m.Module.Descriptor()
	d.Reads = []uint64{d.Schema}
	return d
}

// A state file that the module of schema 1 wrote is opened with the module of schema 2: the service of today
// is given its own format, with nothing lost, and the next save is of schema 2.
func TestStateOfSchema1IsOpenedByTheModuleOfSchema2(t *testing.T) {
	oldWasm, newWasm := build(t, before), build(t, today)
	h, err := host.New(t.Context(), host.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	oldModule, err := h.Compile(t.Context(), "todo", oldWasm)
	if err != nil {
		t.Fatal(err)
	}
	newModule, err := h.Compile(t.Context(), "todo", newWasm)
	if err != nil {
		t.Fatal(err)
	}
	fixtures, err := filepath.Glob(before + "/fixtures/*.todo")
	if err != nil || len(fixtures) < 3 {
		t.Fatalf("%d fixtures of schema 1, %v", len(fixtures), err)
	}
	for _, fixture := range fixtures {
		native, err := os.ReadFile(fixture)
		if err != nil {
			t.Fatal(err)
		}
		want := converted(t, native)
		for name, opener := range map[string]runtime.Serializer{"load reads schema 1": newModule, "schema 1 is migrated": migrating{newModule}} {
			t.Run(filepath.Base(fixture)+", "+name, func(t *testing.T) {
				disk := vfs.NewMem()
				run(t, disk, oldModule, func(part *live.Part, svc *runtime.Service) {
					part.Native = native
					save(t, part, svc)
				})
				first := file(t, disk)
				wantWriter(t, first, oldWasm, "1.0.0", 1)

				run(t, disk, opener, func(part *live.Part, svc *runtime.Service) {
					if st := svc.Status(); st.Status != runtime.StatusRunning || st.Parts[0].Err != nil {
						t.Fatalf("status %+v", st)
					}
					if string(part.Native) != want {
						t.Errorf("the service is given\n%s, want\n%s", part.Native, want)
					}
					if !bytes.Equal(file(t, disk), first) {
						t.Error("opening the state changed its file")
					}
					save(t, part, svc)
				})
				second := file(t, disk)
				wantWriter(t, second, newWasm, "2.0.0", 2)

				// From here on there is nothing of schema 1 any more, and the module of that time says so and
				// leaves the state as it is.
				run(t, disk, newModule, func(part *live.Part, _ *runtime.Service) {
					if string(part.Native) != want {
						t.Errorf("saved and opened once more the service is given\n%s", part.Native)
					}
				})
				run(t, disk, oldModule, func(part *live.Part, svc *runtime.Service) {
					st := svc.Status()
					if err := st.Parts[0].Err; !errors.Is(err, abi.ErrVersion) || !strings.Contains(err.Error(), "schema 2") || part.Native != nil {
						t.Errorf("status %+v, native state %q", st, part.Native)
					}
				})
				if !bytes.Equal(file(t, disk), second) {
					t.Error("the module of schema 1 changed a state of schema 2")
				}
			})
		}
	}
}
