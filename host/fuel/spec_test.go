package fuel

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/torpor-run/torpor/tests/need"
)

// wazeroDir is where wazero's sources are: with them come the test modules of the specification.
func wazeroDir(t testing.TB) string {
	t.Helper()
	out, err := exec.Command(need.Program(t, "go"), "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// script is a test of the specification: modules, and what to do with them.
type script struct {
	Commands []struct {
		Type     string
		Line     int
		Name     string // of a module
		As       string // under which it is registered
		Filename string
		Kind     string `json:"module_type"`
		Action   struct {
			Type, Module, Field string
			Args                []value
		}
	}
}

type value struct {
	Type  string
	Lane  string `json:"lane_type"`
	Value any
}

// slots are the value's 64-bit slots, as wazero passes it.
func (v value) slots(t testing.TB) []uint64 {
	number := func(s any, bits int) uint64 {
		text, _ := s.(string)
		if n, err := strconv.ParseInt(text, 10, 64); err == nil && n < 0 {
			return uint64(n) & (1<<bits - 1)
		}
		n, err := strconv.ParseUint(text, 10, bits)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	switch v.Type {
	case "v128":
		width, err := strconv.Atoi(v.Lane[1:])
		if err != nil {
			t.Fatal(err)
		}
		var slots [2]uint64
		for i, lane := range v.Value.([]any) {
			slots[i*width/64] |= number(lane, width) << (i * width % 64)
		}
		return slots[:]
	case "externref", "funcref":
		if v.Value == "null" {
			return []uint64{0}
		}
		return []uint64{number(v.Value, 64) + 1}
	}
	bits, err := strconv.Atoi(v.Type[1:])
	if err != nil {
		t.Fatal(err)
	}
	return []uint64{number(v.Value, bits)}
}

// outcome is what came of a call, as something that can be compared.
func outcome(f api.Function, results []uint64, err error) string {
	if err != nil {
		text, _, _ := strings.Cut(err.Error(), "\n") // the stack is told behind it
		return "error: " + text
	}
	var b strings.Builder
	at := 0
	for _, t := range f.Definition().ResultTypes() {
		v := results[at]
		at++
		switch t {
		case api.ValueTypeI32, api.ValueTypeF32:
			v = uint64(uint32(v))
		case 0x7b: // v128
			fmt.Fprintf(&b, " %#x", results[at])
			at++
		case 0x70: // funcref: an address
			v = min(v, 1)
		}
		fmt.Fprintf(&b, " %#x", v)
	}
	return b.String()
}

// world is one run of a script.
type world struct {
	runtime wazero.Runtime
	fuel    bool
	last    api.Module
	named   map[string]api.Module
}

// prepare is the module as this world runs it.
func (w *world) prepare(wasm []byte) ([]byte, error) {
	if !w.fuel {
		return wasm, nil
	}
	out, _, err := Instrument(wasm, Options{Initial: plenty})
	return out, err
}

// compiles tells whether the module is accepted.
func (w *world) compiles(wasm []byte) error {
	wasm, err := w.prepare(wasm)
	if err != nil {
		return err
	}
	c, err := w.runtime.CompileModule(context.Background(), wasm)
	if err == nil {
		c.Close(context.Background())
	}
	return err
}

func (w *world) instantiate(wasm []byte, name string) (api.Module, error) {
	wasm, err := w.prepare(wasm)
	if err != nil {
		return nil, err
	}
	return w.runtime.InstantiateWithConfig(context.Background(), wasm, wazero.NewModuleConfig().WithName(name))
}

// The test modules of the specification do the same with and without a counter, down to the bits of
// their results and the kinds of their traps; and what is invalid without is invalid with one.
func TestSpecification(t *testing.T) {
	dir := filepath.Join(wazeroDir(t), "internal", "integration_test", "spectest")
	library, err := os.ReadFile(filepath.Join(dir, "testdata", "spectest.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	scripts, err := filepath.Glob(filepath.Join(dir, "v2", "testdata", "*.json"))
	if err != nil || len(scripts) < 100 {
		t.Fatal(len(scripts), err)
	}
	for _, e := range engines {
		modules, calls, invalid := 0, 0, 0
		for _, path := range scripts {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var s script
			if err := json.Unmarshal(text, &s); err != nil {
				t.Fatal(path, err)
			}
			ctx := context.Background()
			var worlds [2]*world
			for i := range worlds {
				worlds[i] = &world{runtime: wazero.NewRuntimeWithConfig(ctx, e.config()), fuel: i == 1, named: map[string]api.Module{}}
				if _, err := worlds[i].instantiate(library, "spectest"); err != nil {
					t.Fatal(err)
				}
			}
			for i, c := range s.Commands {
				where := fmt.Sprintf("%s: %s:%d", e.name, filepath.Base(path), c.Line)
				var wasm []byte
				if c.Filename != "" && c.Kind != "text" {
					if wasm, err = os.ReadFile(filepath.Join(filepath.Dir(path), c.Filename)); err != nil {
						t.Fatal(err)
					}
				}
				switch c.Type {
				case "module":
					as := ""
					if next := i + 1; next < len(s.Commands) && s.Commands[next].Type == "register" {
						as = s.Commands[next].As
					}
					for _, w := range worlds {
						m, err := w.instantiate(wasm, as)
						if err != nil {
							t.Fatal(where, err)
						}
						w.last, w.named[c.Name] = m, m
					}
					modules++
				case "assert_uninstantiable", "assert_unlinkable", "assert_invalid", "assert_malformed":
					if wasm == nil {
						continue
					}
					if err := worlds[0].compiles(wasm); err != nil {
						if worlds[1].compiles(wasm) == nil {
							t.Errorf("%s: accepted with a counter; without: %v", where, err)
						}
						invalid++
						continue
					}
					var seen [2]string
					for i, w := range worlds {
						_, err := w.instantiate(wasm, "")
						seen[i], _, _ = strings.Cut(fmt.Sprint(err), "\n")
					}
					if seen[0] != seen[1] {
						t.Errorf("%s: %s; with a counter: %s", where, seen[0], seen[1])
					}
				case "assert_return", "action", "assert_trap", "assert_exhaustion":
					var args []uint64
					for _, a := range c.Action.Args {
						args = append(args, a.slots(t)...)
					}
					var seen [2]string
					for i, w := range worlds {
						m := w.last
						if c.Action.Module != "" {
							m = w.named[c.Action.Module]
						}
						if c.Action.Type == "get" {
							seen[i] = fmt.Sprint(m.ExportedGlobal(c.Action.Field).Get())
							continue
						}
						f := m.ExportedFunction(c.Action.Field)
						results, err := f.Call(ctx, args...)
						seen[i] = outcome(f, results, err)
						if w.fuel && int64(m.ExportedGlobal(DefaultExport).(api.MutableGlobal).Get()) > plenty {
							t.Errorf("%s: more fuel than there was", where)
						}
					}
					if seen[0] != seen[1] {
						t.Errorf("%s: %s; with a counter: %s", where, seen[0], seen[1])
					}
					calls++
				}
			}
			for _, w := range worlds {
				w.runtime.Close(ctx)
			}
		}
		t.Logf("%s: %d modules, %d calls, %d invalid modules", e.name, modules, calls, invalid)
		if modules < 1500 || calls < 40_000 || invalid < 2000 {
			t.Error("these are fewer than there were")
		}
	}
}

// Every other module that comes with wazero, of many compilers and of its fuzzing, is accepted if wazero
// does.
func TestModulesOfWazero(t *testing.T) {
	ctx := context.Background()
	w := [2]*world{{}, {fuel: true}}
	for i := range w {
		w[i].runtime = wazero.NewRuntimeWithConfig(ctx, interpreter.config())
		defer w[i].runtime.Close(ctx)
	}
	accepted := 0
	err := filepath.WalkDir(wazeroDir(t), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".wasm") || strings.Contains(filepath.ToSlash(path), "spectest/v") {
			return err
		}
		wasm, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		without, with := w[0].compiles(wasm), w[1].compiles(wasm)
		if (without == nil) != (with == nil) {
			t.Errorf("%s: %v; with a counter: %v", path, without, with)
		}
		if without == nil {
			accepted++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d modules", accepted)
	if accepted < 200 {
		t.Error("these are fewer than there were")
	}
}
