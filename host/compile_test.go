package host_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/modules"
)

const opCompile = "compile"

func TestCompile(t *testing.T) {
	h := newHost(t, host.Config{})
	wasm := newGuest().bytes()
	m := compile(t, h, wasm)
	if !reflect.DeepEqual(m.Descriptor(), descriptor()) {
		t.Errorf("descriptor %+v, want %+v", m.Descriptor(), descriptor())
	}
	if m.Digest() != sha256.Sum256(wasm) || !bytes.Equal(m.Wasm(), wasm) {
		t.Error("the module does not keep its bytes and their digest")
	}
	for _, op := range []string{abi.OpSave, abi.OpLoad, abi.OpMigrate, abi.OpInspect} {
		if out, err := perform(t.Context(), m, op, oneRecord("k")); err != nil || len(out) > 0 {
			t.Errorf("%s: %d bytes, %v", op, len(out), err)
		}
	}
}

// The same bytes are compiled once, whatever they are called.
func TestCompileTwice(t *testing.T) {
	h := newHost(t, host.Config{})
	wasm := newGuest().does(abi.ExportSave, unreachable).bytes()
	first := compile(t, h, wasm)
	second, err := h.Compile(t.Context(), "again", wasm)
	if err != nil {
		t.Fatal(err)
	}
	_, err = perform(t.Context(), second, abi.OpSave, nil)
	if err == nil || !strings.HasPrefix(err.Error(), "module again: save: ") {
		t.Errorf("under its second name: %v", err)
	}
	_, err = perform(t.Context(), first, abi.OpSave, nil)
	wantModuleError(t, err, abi.OpSave, nil, "trapped")
}

func TestCompileRefuses(t *testing.T) {
	describing := func(change func(d *abi.Descriptor)) func(*guest) {
		return func(g *guest) {
			d := descriptor()
			change(&d)
			g.describe(cborOf(d))
		}
	}
	noParams, oneInt := []byte(nil), []byte{i32}
	for _, c := range []struct {
		name     string
		change   func(g *guest)
		op       string // opCompile if empty
		sentinel error
		reason   string
	}{
		// Imports.
		{"an unknown import of the ABI", func(g *guest) { g.importing("torpor_v1", "exec", noParams, oneInt) },
			"", nil, "imports torpor_v1.exec, which the ABI does not have"},
		{"arg with another result", func(g *guest) { g.imports[arg].results = []byte{i64} },
			"", nil, "imports torpor_v1.arg as (i32, i32) -> (i64); the ABI has (i32, i32) -> (i32)"},
		{"log with another parameter", func(g *guest) { g.imports[logLine].params = []byte{i32, i64, i32} },
			"", nil, "imports torpor_v1.log as (i32, i64, i32) -> (); the ABI has (i32, i32, i32) -> ()"},
		{"fail with a result", func(g *guest) { g.imports[fail].results = oneInt },
			"", nil, "imports torpor_v1.fail as (i32, i32, i32) -> (i32); the ABI has (i32, i32, i32) -> ()"},
		{"another namespace", func(g *guest) { g.importing("env", "abort", noParams, nil) },
			"", nil, "imports env.abort; a serializer may import only torpor_v1"},
		{"a file function of WASI", func(g *guest) {
			g.importing("wasi_snapshot_preview1", "path_open", []byte{i32, i32, i32, i32, i32, i64, i64, i32, i32}, oneInt)
		}, "", nil, "imports wasi_snapshot_preview1.path_open"},
		{"a socket function of WASI", func(g *guest) {
			g.importing("wasi_snapshot_preview1", "sock_accept", []byte{i32, i32, i32}, oneInt)
		}, "", nil, "imports wasi_snapshot_preview1.sock_accept"},
		{"an older WASI", func(g *guest) { g.importing("wasi_unstable", "proc_exit", oneInt, nil) },
			"", nil, "imports wasi_unstable.proc_exit"},
		{"WASI with another signature", func(g *guest) { g.importing("wasi_snapshot_preview1", "proc_exit", noParams, nil) },
			"", nil, "it imports wasi_snapshot_preview1.proc_exit as () -> (); the ABI has (i32) -> ()"},
		{"the next ABI", func(g *guest) { g.imports[arg].from = "torpor_v2" },
			"", abi.ErrVersion, "it is written for ABI torpor_v2; this host speaks torpor_v1"},
		{"a far ABI", func(g *guest) { g.imports[next].from = "torpor_v10" },
			"", abi.ErrVersion, "torpor_v10"},
		{"no ABI at all", func(g *guest) { g.imports[next].from = "torpor_vx" },
			"", nil, "imports torpor_vx.next; a serializer may import only"},
		{"an imported memory", func(g *guest) {
			g.memory = nil
			g.imports = append(g.imports, imported{from: "env", name: "memory", kind: 2, desc: []byte{0, 1}})
		}, "", nil, "imports a memory, env.memory"},
		{"an imported table", func(g *guest) {
			g.imports = append(g.imports, imported{from: "env", name: "table", kind: 1, desc: []byte{0x70, 0, 1}})
		}, "", nil, "imports a table, env.table"},
		{"an imported global", func(g *guest) {
			g.imports = append(g.imports, imported{from: "torpor_v1", name: "base", kind: 3, desc: []byte{i32, 0}})
		}, "", nil, "imports a global, torpor_v1.base"},

		// Exports.
		{"no memory", func(g *guest) { g.memory, g.exports, g.data = nil, nil, nil },
			"", nil, `exports no memory named "memory"`},
		{"memory not exported", func(g *guest) { g.exports = nil },
			"", nil, `exports no memory named "memory"`},
		{"memory under another name", func(g *guest) { g.exports = map[string]byte{"mem": 2} },
			"", nil, `exports no memory named "memory"`},
		{"no describe", func(g *guest) { g.without(abi.ExportDescribe) }, "", nil, "exports no function torpor_describe"},
		{"no save", func(g *guest) { g.without(abi.ExportSave) }, "", nil, "exports no function torpor_save"},
		{"no load", func(g *guest) { g.without(abi.ExportLoad) }, "", nil, "exports no function torpor_load"},
		{"a global named as save", func(g *guest) {
			g.without(abi.ExportSave)
			g.globals = [][]byte{slices.Concat([]byte{i32, 0}, constI32(0), []byte{0x0b})}
			g.exports[abi.ExportSave] = 3
		}, "", nil, "exports no function torpor_save"},
		{"save without a result", func(g *guest) {
			g.without(abi.ExportSave)
			g.funcs = append(g.funcs, fn{export: abi.ExportSave})
		}, "", nil, "exports torpor_save as () -> (); the ABI has () -> (i32)"},
		{"load with a parameter", func(g *guest) {
			g.without(abi.ExportLoad)
			g.funcs = append(g.funcs, fn{export: abi.ExportLoad, params: []byte{i32}, results: []byte{i32}, body: constI32(0)})
		}, "", nil, "exports torpor_load as (i32) -> (i32); the ABI has () -> (i32)"},
		{"migrate with a wide result", func(g *guest) {
			g.without(abi.ExportMigrate)
			g.funcs = append(g.funcs, fn{export: abi.ExportMigrate, results: []byte{i64}, body: constI64(0)})
		}, "", nil, "exports torpor_migrate as () -> (i64); the ABI has () -> (i32)"},
		{"initialize with a result", func(g *guest) {
			g.funcs = append(g.funcs, fn{export: abi.ExportInitialize, results: []byte{i32}, body: constI32(0)})
		}, "", nil, "exports _initialize as () -> (i32); the ABI has () -> ()"},

		// Shape and limits.
		{"memory above the limit", func(g *guest) { g.memory = append([]byte{0}, uleb128(1025)...) },
			"", abi.ErrTooLarge, "begins with 1025 pages of memory (64 KiB each); the limit is 1024"},
		{"memory above the limit, with a maximum", func(g *guest) {
			g.memory = slices.Concat([]byte{1}, uleb128(5000), uleb128(6000))
		}, "", abi.ErrTooLarge, "begins with 5000 pages"},
		{"shared memory", func(g *guest) { g.memory = []byte{3, 1, 2} }, "", nil, "memory is shared"},
		{"memory of 64 bits", func(g *guest) { g.memory = []byte{4, 1} }, "", nil, "of 64 bits"},
		{"a start function", func(g *guest) {
			g.funcs = append(g.funcs, fn{})
			g.start = firstOwn + len(g.funcs) - 1
		}, "", nil, "has a start section; what must run first is _initialize"},
		{"data outside its memory", func(g *guest) { g.has(memoryBytes-1, []byte("ab")) },
			"", nil, "cannot be instantiated"},
		{"no sound code", func(g *guest) { g.does(abi.ExportSave) }, "", abi.ErrCorrupt, "not enough results"},

		// Descriptor.
		{"describe traps", func(g *guest) { g.does(abi.ExportDescribe, unreachable) },
			abi.OpDescribe, nil, "torpor_describe trapped: wasm error: unreachable"},
		{"describe returns 1", func(g *guest) { g.does(abi.ExportDescribe, constI32(1)) },
			abi.OpDescribe, nil, "torpor_describe returned 1 without saying why"},
		{"describe says nothing", func(g *guest) { g.describe(nil) }, abi.OpDescribe, nil, "no CBOR map of the expected form: EOF"},
		{"a descriptor that is no CBOR", func(g *guest) { g.describe([]byte{0xff}) }, abi.OpDescribe, nil, "no CBOR map of the expected form"},
		{"a descriptor that is cut short", func(g *guest) { b := cborOf(descriptor()); g.describe(b[:len(b)-1]) },
			abi.OpDescribe, nil, "no CBOR map of the expected form"},
		{"a descriptor that goes on", func(g *guest) { g.describe(append(cborOf(descriptor()), 0)) },
			abi.OpDescribe, nil, "no CBOR map of the expected form"},
		{"a descriptor that is an array", func(g *guest) { g.describe(cborOf([]int{1})) },
			abi.OpDescribe, nil, "no CBOR map of the expected form"},
		{"a schema that is text", func(g *guest) { g.describe(cborOf(map[string]any{"name": "n", "schema": "1"})) },
			abi.OpDescribe, nil, "no CBOR map of the expected form"},
		{"a key twice", func(g *guest) { g.describe([]byte("\xa2\x64name\x61a\x64name\x61b")) },
			abi.OpDescribe, nil, "duplicate map key"},
		{"in fragments", func(g *guest) {
			g.does(abi.ExportDescribe, emitMore(descriptorAt, 10), emitFrom(descriptorAt+10, len(cborOf(descriptor()))-10), constI32(0))
		}, abi.OpDescribe, nil, "emitted a fragment where output has no records"},
		{"no name", describing(func(d *abi.Descriptor) { d.Name = "" }), abi.OpDescribe, nil, "lacks name, version or media"},
		{"no version", describing(func(d *abi.Descriptor) { d.Version = "" }), abi.OpDescribe, nil, "lacks name, version or media"},
		{"a long nesting", describing(func(d *abi.Descriptor) { d.Nesting = strings.Repeat("/", abi.MaxNestingBytes+1) }), abi.OpDescribe, nil, "its nesting"},
		{"a nesting with a space", describing(func(d *abi.Descriptor) { d.Nesting = "/ ." }), abi.OpDescribe, nil, "its nesting"},
		{"a nesting beyond ASCII", describing(func(d *abi.Descriptor) { d.Nesting = "é" }), abi.OpDescribe, nil, "its nesting"},
		{"no media type", describing(func(d *abi.Descriptor) { d.Media = "" }), abi.OpDescribe, nil, "lacks name, version or media"},
		{"a schema it does not read", describing(func(d *abi.Descriptor) { d.Schema, d.Reads = 3, []uint64{1, 2} }),
			abi.OpDescribe, nil, "writes schema 3 but reads only [1 2]"},
		{"reads nothing", describing(func(d *abi.Descriptor) { d.Reads = nil }), abi.OpDescribe, nil, "reads only []"},
		{"load not offered", describing(func(d *abi.Descriptor) { d.Operations = []string{abi.OpSave} }),
			abi.OpDescribe, nil, "operations [save] lack load"},
		{"migrate offered, not exported", func(g *guest) { g.without(abi.ExportMigrate) },
			abi.OpDescribe, nil, "offers migrate but exports no torpor_migrate"},
		{"inspect offered, not exported", func(g *guest) { g.without(abi.ExportInspect) },
			abi.OpDescribe, nil, "offers inspect but exports no torpor_inspect"},
		{"a huge descriptor", func(g *guest) {
			g.does(abi.ExportDescribe, forever(emitFrom(descriptorAt, 1000)))
		}, abi.OpDescribe, abi.ErrTooLarge, "emitted more than 65536 bytes"},
		{"a descriptor of a thousand keys", func(g *guest) {
			many := map[string]int{}
			for i := range 1025 {
				many[fmt.Sprint(i)] = i
			}
			g.describe(cborOf(many))
		}, abi.OpDescribe, nil, "no CBOR map of the expected form"},
		{"describe fails", func(g *guest) {
			f := cborOf(abi.Failure{Msg: "no idea"})
			g.has(textAt, f).does(abi.ExportDescribe, failWith(abi.CodeInternal, textAt, len(f)), constI32(1))
		}, abi.OpDescribe, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t, host.Config{Limits: host.Limits{MemoryBytes: 64 << 20}})
			g := newGuest()
			c.change(g)
			m, err := h.Compile(t.Context(), guestName, g.bytes())
			if err == nil || m != nil {
				t.Fatalf("compiled: %v, %v", m, err)
			}
			op := c.op
			if op == "" {
				op = opCompile
			}
			var ge *host.GuestError
			if errors.As(err, &ge) {
				if c.reason != "" || ge.Module != guestName || ge.Op != op {
					t.Errorf("%v, want %q", err, c.reason)
				}
			} else {
				wantModuleError(t, err, op, c.sentinel, c.reason)
			}
			compile(t, h, newGuest().bytes()) // the host is none the worse
		})
	}
}

func TestCompileRefusesBytes(t *testing.T) {
	wasm := newGuest().bytes()
	with := func(at int, b ...byte) []byte {
		w := bytes.Clone(wasm)
		copy(w[at:], b)
		return w
	}
	for _, c := range []struct {
		name     string
		wasm     []byte
		sentinel error
		reason   string
	}{
		{"nothing", nil, abi.ErrCorrupt, `no WebAssembly module: it does not begin with \0asm`},
		{"a shell script", []byte("#!/bin/sh\nexit 0\n"), abi.ErrCorrupt, "no WebAssembly module"},
		{"the text format", []byte("(module)"), abi.ErrCorrupt, "no WebAssembly module"},
		{"only a magic number", wasm[:4], abi.ErrCorrupt, "no WebAssembly module"},
		{"a component", with(4, 0x0d, 0, 1, 0), abi.ErrVersion, "a WebAssembly component or another binary version (0d 00 01 00)"},
		{"a later core version", with(4, 2), abi.ErrVersion, "another binary version (02 00 00 00)"},
		{"nothing after the version", wasm[:8], nil, `exports no memory named "memory"`},
		{"a section past the end", append(wasm[:8:8], 1, 0x7f), abi.ErrCorrupt, "the section at offset 8 goes on past the end"},
		{"a section without a length", append(wasm[:8:8], 1), abi.ErrCorrupt, "the section at offset 8"},
		{"a section of 2^63 bytes", append(wasm[:8:8], 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f), abi.ErrCorrupt, "the section at offset 8"},
		{"a length without an end", append(wasm[:8:8], 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), abi.ErrCorrupt, "the section at offset 8"},
		{"4 G imports in 6 bytes", append(wasm[:8:8], 2, 6, 0xff, 0xff, 0xff, 0xff, 0x0f, 0), abi.ErrCorrupt, "the section at offset 8 has 4294967295 entries in 1 bytes"},
		{"an import cut short", append(wasm[:8:8], 2, 3, 1, 5, 'e'), abi.ErrCorrupt, "the section that ends at offset 13 is damaged"},
		{"a memory cut short", append(wasm[:8:8], 5, 2, 1, 0), abi.ErrCorrupt, "the section that ends at offset 12 is damaged"},
		{"an unknown section", append(bytes.Clone(wasm), 99, 1, 0), abi.ErrVersion, "section 99"},
		{"a tag section", append(wasm[:8:8], 13, 3, 1, 0, 0), nil, "exceptions"},
		{"twice the same section", append(bytes.Clone(wasm), 5, 3, 1, 0, 1), abi.ErrCorrupt, "section"},
		{"too large", append(bytes.Clone(wasm), make([]byte, 64<<10)...), abi.ErrTooLarge, "bytes; the limit is 65536"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t, host.Config{Limits: host.Limits{ModuleBytes: 64 << 10}})
			_, err := h.Compile(t.Context(), guestName, c.wasm)
			wantModuleError(t, err, opCompile, c.sentinel, c.reason)
		})
	}
}

// Custom sections may stand anywhere and hold anything.
func TestCompileIgnoresCustomSections(t *testing.T) {
	g := newGuest()
	g.custom = map[string][]byte{"producers": bytes.Repeat([]byte{0xff}, 300), "": nil}
	compile(t, newHost(t, host.Config{}), g.bytes())
}

// WASI's functions that language runtimes need are there.
func TestCompileAllowsSomeOfWASI(t *testing.T) {
	g := newGuest()
	for name, params := range map[string][]byte{
		"args_get": {i32, i32}, "args_sizes_get": {i32, i32}, "environ_get": {i32, i32}, "environ_sizes_get": {i32, i32},
		"clock_time_get": {i32, i64, i32}, "random_get": {i32, i32}, "fd_write": {i32, i32, i32, i32}, "fd_close": {i32},
		"fd_seek": {i32, i64, i32, i32}, "fd_fdstat_get": {i32, i32}, "fd_prestat_get": {i32, i32},
		"fd_prestat_dir_name": {i32, i32, i32}, "poll_oneoff": {i32, i32, i32, i32}, "sched_yield": nil,
		"fd_read": {i32, i32, i32, i32}, "fd_fdstat_set_flags": {i32, i32},
	} {
		g.importing("wasi_snapshot_preview1", name, params, []byte{i32})
	}
	g.importing("wasi_snapshot_preview1", "proc_exit", []byte{i32}, nil)
	compile(t, newHost(t, host.Config{}), g.bytes())
}

// A module may lack what it does not offer.
func TestCompileMinimal(t *testing.T) {
	d := descriptor()
	d.Operations = []string{abi.OpLoad, abi.OpSave}
	g := newGuest().without(abi.ExportMigrate).without(abi.ExportInspect).describe(cborOf(d))
	m := compile(t, newHost(t, host.Config{}), g.bytes())
	for _, op := range []string{abi.OpMigrate, abi.OpInspect} {
		_, err := perform(t.Context(), m, op, nil)
		wantModuleError(t, err, op, abi.ErrVersion, "does not offer this operation")
	}
}

// A descriptor may hold keys that this version does not know.
func TestCompileIgnoresUnknownDescriptorKeys(t *testing.T) {
	all := map[string]any{"name": "n", "version": "1", "schema": 2, "reads": []int{1, 2}, "media": "m",
		"operations": []string{abi.OpSave, abi.OpLoad}, "colour": map[string]any{"deep": []any{1, "x"}}}
	m := compile(t, newHost(t, host.Config{}), newGuest().describe(cborOf(all)).bytes())
	if d := m.Descriptor(); d.Schema != 2 || !slices.Equal(d.Reads, []uint64{1, 2}) || d.Canonical || d.Ordered {
		t.Errorf("%+v", d)
	}
}

// Every truncation of a module is refused, as damage or for what it lacks.
func TestCompileTruncated(t *testing.T) {
	h := newHost(t, host.Config{})
	wasm := newGuest().bytes()
	for n := range len(wasm) {
		m, err := h.Compile(t.Context(), guestName, wasm[:n])
		var me *host.ModuleError
		if m != nil || !errors.As(err, &me) || errors.Is(err, abi.ErrTooLarge) {
			t.Fatalf("first %d of %d bytes: %v", n, len(wasm), err)
		}
	}
}

func TestCompileCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h := newHost(t, host.Config{})
	if _, err := h.Compile(ctx, guestName, newGuest().bytes()); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	compile(t, h, newGuest().bytes())
}

func TestBuiltInModulesCompile(t *testing.T) {
	h := newHost(t, host.Config{})
	seen := map[string]bool{}
	for _, m := range modules.All() {
		c, err := h.Compile(t.Context(), m.Name, m.Wasm)
		if err != nil {
			t.Fatal(err)
		}
		if c.Descriptor().Name != m.Name {
			t.Errorf("%s says it is %s", m.Name, c.Descriptor().Name)
		}
		seen[m.Name] = true
	}
	if len(seen) != len(modules.All()) || !seen["records"] {
		t.Errorf("built in: %v", slices.Sorted(maps.Keys(seen)))
	}
}
