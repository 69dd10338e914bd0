package modules_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/modules"
)

func Example() {
	for _, m := range modules.All() {
		fmt.Printf("%s: %q\n", m.Name, m.Wasm[:4])
	}
	// Output:
	// files: "\x00asm"
	// json: "\x00asm"
	// pickle: "\x00asm"
	// raw: "\x00asm"
	// records: "\x00asm"
	// sqlite: "\x00asm"
}

func ExampleRecords() {
	ctx := context.Background()
	r := wazero.NewRuntime(ctx)
	defer func() { _ = r.Close(ctx) }()
	m, err := r.CompileModule(ctx, modules.Records()) // host.Compile also checks it, and can run it
	if err != nil {
		fmt.Println(err)
		return
	}
	_, saves := m.ExportedFunctions()[abi.ExportSave]
	fmt.Println("it saves:", saves)
	// Output:
	// it saves: true
}

// TestKeepToTheABI: every built-in module imports only what ABI.md has, exports what it asks for, and
// says how much memory it may ever have.
func TestKeepToTheABI(t *testing.T) {
	i32, i64 := api.ValueTypeI32, api.ValueTypeI64
	imports := map[string][2][]api.ValueType{
		abi.ImportNext: {{i32, i32}, {i64}},
		abi.ImportEmit: {{i32, i32, i32}, {i32}},
		abi.ImportArg:  {{i32, i32}, {i32}},
		abi.ImportFail: {{i32, i32, i32}, nil},
		abi.ImportLog:  {{i32, i32, i32}, nil},
	}
	ctx := context.Background()
	r := wazero.NewRuntime(ctx)
	defer func() { _ = r.Close(ctx) }()
	for _, m := range modules.All() {
		if len(m.Wasm) > 384<<10 {
			t.Errorf("%s: %d bytes; a built-in module is 384 KB at most", m.Name, len(m.Wasm))
		}
		c, err := r.CompileModule(ctx, m.Wasm)
		if err != nil {
			t.Fatalf("%s: %v", m.Name, err)
		}
		for _, f := range c.ImportedFunctions() {
			from, name, _ := f.Import()
			want, ok := imports[name]
			if from != abi.Namespace || !ok {
				t.Errorf("%s imports %s.%s", m.Name, from, name)
				continue
			}
			if !slices.Equal(f.ParamTypes(), want[0]) || !slices.Equal(f.ResultTypes(), want[1]) {
				t.Errorf("%s imports %s as %x -> %x", m.Name, name, f.ParamTypes(), f.ResultTypes())
			}
		}
		if n := len(c.ImportedMemories()); n > 0 {
			t.Errorf("%s imports %d memories", m.Name, n)
		}
		for _, name := range []string{abi.ExportDescribe, abi.ExportSave, abi.ExportLoad, abi.ExportMigrate, abi.ExportInspect} {
			f, ok := c.ExportedFunctions()[name]
			if !ok || len(f.ParamTypes()) != 0 || !slices.Equal(f.ResultTypes(), []api.ValueType{i32}) {
				t.Errorf("%s does not export %s as () -> (i32)", m.Name, name)
			}
		}
		memory, ok := c.ExportedMemories()[abi.ExportMemory]
		if !ok {
			t.Fatalf("%s exports no memory", m.Name)
		}
		if most, declared := memory.Max(); !declared || int64(most)<<16 != maxMemory(t, m.Name) {
			t.Errorf("%s declares at most %d pages of memory (%v), want %d bytes", m.Name, most, declared, maxMemory(t, m.Name))
		}
	}
}

// maxMemory is the most memory a module may have: what its folder says, or 1 MiB.
func maxMemory(t *testing.T, name string) int64 {
	said, err := os.ReadFile(filepath.Join(name, "max-memory"))
	if errors.Is(err, fs.ErrNotExist) {
		return 1 << 20
	}
	if err != nil {
		t.Fatal(err)
	}
	bytes, err := strconv.ParseInt(strings.TrimSpace(string(said)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

// TestDescribe: each module says of itself what All says of it, and what its README does.
func TestDescribe(t *testing.T) {
	nesting := map[string]string{"json": "/", "pickle": ".[!", "sqlite": "."}
	for _, m := range modules.All() {
		c := newGuest(t, m.Wasm).run(abi.ExportDescribe, &call{native: true})
		if c.trap != nil || c.status != 0 {
			t.Fatalf("%s: %v", m.Name, c)
		}
		d, err := parseDescriptor(c.output.Bytes())
		if err != nil {
			t.Fatalf("%s: %v", m.Name, err)
		}
		if d.Name != m.Name || d.Version == "" || d.Media == "" || d.Memory == 0 || !slices.Contains(d.Reads, d.Schema) || d.Nesting != nesting[m.Name] {
			t.Errorf("%s describes itself as %+v", m.Name, d)
		}
	}
	c := newGuest(t, modules.Records()).run(abi.ExportDescribe, &call{native: true})
	d, err := parseDescriptor(c.output.Bytes())
	want := abi.Descriptor{Name: "records", Version: "1.0.0", Schema: 1, Reads: []uint64{1}, Media: "application/cbor-seq",
		Operations: []string{abi.OpSave, abi.OpLoad, abi.OpMigrate, abi.OpInspect}, Canonical: true, Memory: d.Memory}
	if err != nil || fmt.Sprint(d) != fmt.Sprint(want) {
		t.Errorf("%+v (%v), want %+v", d, err, want)
	}
}

func parseDescriptor(b []byte) (abi.Descriptor, error) {
	var d abi.Descriptor
	p := record.NewPull(b)
	for range p.Map() {
		switch key := string(p.Text()); key {
		case "name":
			d.Name = string(p.Text())
		case "version":
			d.Version = string(p.Text())
		case "schema":
			d.Schema = p.Uint()
		case "reads":
			for range p.Array() {
				d.Reads = append(d.Reads, p.Uint())
			}
		case "media":
			d.Media = string(p.Text())
		case "operations":
			for range p.Array() {
				d.Operations = append(d.Operations, string(p.Text()))
			}
		case "ordered":
			d.Ordered = p.Bool()
		case "canonical":
			d.Canonical = p.Bool()
		case "nesting":
			d.Nesting = string(p.Text())
		case "memory":
			d.Memory = p.Uint()
		default:
			return d, fmt.Errorf("unknown key %q", key)
		}
	}
	return d, p.End()
}

// TestAllAreEmbedded: a module that is built is one of All, and the other way round.
func TestAllAreEmbedded(t *testing.T) {
	var sources, embedded []string
	found, err := filepath.Glob("*/src/lib.rs")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		sources = append(sources, filepath.Dir(filepath.Dir(f)))
	}
	for _, m := range modules.All() {
		embedded = append(embedded, m.Name)
		file, err := os.ReadFile(m.Name + ".wasm")
		if err != nil || string(file) != string(m.Wasm) {
			t.Errorf("%s is not what lies in %s.wasm (%v)", m.Name, m.Name, err)
		}
	}
	if !slices.Equal(sources, embedded) {
		t.Errorf("sources of %q, but %q are embedded", sources, embedded)
	}
}
