// Package examples builds the examples as an author would and runs the modules in package host.
package examples_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	torpor "github.com/torpor-run/torpor/sdk/go"
	"github.com/torpor-run/torpor/sdk/go/jsonscan"
	"github.com/torpor-run/torpor/tests/need"
	"github.com/torpor-run/torpor/tests/sdktest"
)

var built = struct {
	sync.Mutex
	wasm map[string][]byte
}{wasm: map[string][]byte{}}

// cache is where package host keeps what it compiled for all tests.
var cache string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if cache, err = os.MkdirTemp("", "torpor-sdk-go"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(cache)
		return m.Run()
	}())
}

// build builds the module of the program in dir, once for all tests.
func build(t testing.TB, dir string) []byte {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if wasm := built.wasm[dir]; wasm != nil {
		return wasm
	}
	out := filepath.Join(t.TempDir(), "module.wasm")
	cmd := exec.Command(need.Program(t, "go"), "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", out, "./"+dir)
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, msg)
	}
	wasm, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	built.wasm[dir] = wasm
	return wasm
}

// compile builds and compiles a module. What it logs goes to log.
func compile(t testing.TB, dir string, log io.Writer) (*host.Module, *sdktest.Costs) {
	t.Helper()
	return sdktest.Compile(t, dir, build(t, dir), host.Config{CacheDir: filepath.Join(cache, "compiled"), Logger: slog.New(slog.NewTextHandler(log, nil))})
}

var call = abi.Call{Service: "tasks", Part: "store", Schema: 2, Time: 1_800_000_000_000_000_000}

func save(m *host.Module, native []byte) ([]byte, error) {
	var out sdktest.Records
	c := call
	c.Schema = m.Descriptor().Schema
	err := m.Save(context.Background(), c, bytes.NewReader(native), &out)
	return out.Bytes(), err
}

func load(m *host.Module, records []byte) ([]byte, error) {
	var out bytes.Buffer
	c := call
	c.Schema = m.Descriptor().Schema
	err := m.Load(context.Background(), c, record.NewReader(bytes.NewReader(records), 0), &out)
	return out.Bytes(), err
}

// todoState is a small state of the to-do service, with what strings may hold, and todoBefore the same as it
// was in schema 1.
const (
	todoState = `{"format":"todo","schema":2}
{"id":"0001","list":"home","title":"Buy milk","owner":{"given":"Ada","family":"Lovelace"},"date":"2026-05-01","time":"18:00","priority":2,"done":false,"tags":["shop","food"]}
{"id":"0002","list":"","title":"Say \"hi\" \u003cb\u003e \\ \n\u2028 Größe 漢字 😀","owner":{"given":"","family":""},"date":"","time":"","priority":0,"done":true,"tags":[]}
{"tasks":2}
`
	todoBefore = `{"format":"todo","schema":1}
{"id":"0001","list":"home","title":"Buy milk","assignee":"Ada Lovelace","due":"2026-05-01T18:00","priority":2,"done":false,"tags":["shop","food"]}
{"id":"0002","list":"","title":"Say \"hi\" \u003cb\u003e \\ \n\u2028 Größe 漢字 😀","assignee":"","due":"","priority":0,"done":true,"tags":[]}
{"tasks":2}
`
)

// Every example round trips in package host and says what it is.
func TestExamplesInTheHost(t *testing.T) {
	for _, e := range []struct {
		name, native string
		want         abi.Descriptor
		interpreted  bool // as well; it takes seconds
	}{
		{"settings", "colour=green\nname=Ada = Lovelace\nzoom=\n", abi.Descriptor{Name: "settings", Version: "1.0.0", Schema: 1, Reads: []uint64{1}, Canonical: true}, false},
		{"todo", todoState, abi.Descriptor{Name: "todo", Version: "2.0.0", Schema: 2, Reads: []uint64{1, 2}}, true},
		{"todo/testdata/v1", todoBefore, abi.Descriptor{Name: "todo", Version: "1.0.0", Schema: 1, Reads: []uint64{1}, Canonical: true}, false},
		{"document", string(cloudState(3000)), abi.Descriptor{Name: "document", Version: "1.0.0", Schema: 1, Reads: []uint64{1}}, true},
	} {
		t.Run(e.name, func(t *testing.T) {
			m, _ := compile(t, e.name, t.Output())
			d := m.Descriptor()
			if d.Name != e.want.Name || d.Version != e.want.Version || d.Schema != e.want.Schema || !slices.Equal(d.Reads, e.want.Reads) || d.Canonical != e.want.Canonical {
				t.Errorf("descriptor %+v", d)
			}
			records, err := save(m, []byte(e.native))
			if err != nil {
				t.Fatal(err)
			}
			back, err := load(m, records)
			if err != nil || string(back) != e.native {
				t.Fatalf("load gives %q, %v", back, err)
			}
			// The same again, in the same compiled code and in the interpreter.
			if again, err := save(m, []byte(e.native)); err != nil || !bytes.Equal(again, records) {
				t.Errorf("the second save gives %x, %v; the first %x", again, err, records)
			}
			if again, err := load(m, records); err != nil || !bytes.Equal(again, back) {
				t.Errorf("the second load gives %q, %v; the first %q", again, err, back)
			}
			if e.interpreted && !testing.Short() {
				run := interpreter(t, build(t, e.name), d.Schema)
				if other, err := run(abi.ExportSave, []byte(e.native)); err != nil || !bytes.Equal(other, records) {
					t.Errorf("save in the interpreter gives %x, %v; compiled %x", other, err, records)
				}
				if other, err := run(abi.ExportLoad, records); err != nil || !bytes.Equal(other, back) {
					t.Errorf("load in the interpreter gives %q, %v; compiled %q", other, err, back)
				}
			}
			for cut := 1; cut < min(len(e.native), 500)-1; cut += 13 { // natively every cut is tried
				if e.name == "settings" && e.native[cut-1] == '\n' {
					continue // whole lines are a sound state
				}
				_, err := save(m, []byte(e.native[:cut]))
				var ge *host.GuestError
				if !errors.As(err, &ge) || !errors.Is(err, abi.ErrCorrupt) || ge.Failure.Offset > uint64(cut) {
					t.Fatalf("cut at %d: %v", cut, err)
				}
			}
		})
	}
}

func TestInspectInTheHost(t *testing.T) {
	m, _ := compile(t, "todo", t.Output())
	if ops := m.Descriptor().Operations; !slices.Equal(ops, []string{abi.OpSave, abi.OpLoad, abi.OpMigrate, abi.OpInspect}) {
		t.Errorf("operations %v", ops)
	}
	records, err := save(m, []byte(todoState))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := m.Inspect(t.Context(), call, record.NewReader(bytes.NewReader(records), 0), &out); err != nil {
		t.Fatal(err)
	}
	want := record.AppendMap(nil, 2)
	want = record.AppendUint(record.AppendText(want, "tasks"), 2)
	want = record.AppendUint(record.AppendText(want, "done"), 1)
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("summary %x, want %x", out.Bytes(), want)
	}
	later := call
	later.Schema = 3
	err = m.Load(t.Context(), later, record.NewReader(bytes.NewReader(records), 0), io.Discard)
	if !errors.Is(err, abi.ErrVersion) || !strings.Contains(err.Error(), "records of schema 3; this serializer reads schemas 1 and 2") {
		t.Errorf("load of schema 3: %v", err)
	}
}

// What the module of schema 1 saved, the module of today loads and migrates.
func TestMigrationInTheHost(t *testing.T) {
	old, _ := compile(t, "todo/testdata/v1", t.Output())
	today, _ := compile(t, "todo", t.Output())
	before, err := save(old, []byte(todoBefore))
	if err != nil {
		t.Fatal(err)
	}
	c := call
	c.Schema = 1
	var native bytes.Buffer
	if err := today.Load(t.Context(), c, record.NewReader(bytes.NewReader(before), 0), &native); err != nil || native.String() != todoState {
		t.Errorf("load of schema 1 gives %s, %v", native.String(), err)
	}
	c = call
	c.Schema, c.From, c.To = 0, 1, 2
	var migrated sdktest.Records
	if err := today.Migrate(t.Context(), c, record.NewReader(bytes.NewReader(before), 0), &migrated); err != nil {
		t.Fatal(err)
	}
	if want, err := save(today, []byte(todoState)); err != nil || !bytes.Equal(migrated.Bytes(), want) {
		t.Errorf("migrate gives %x, %v; save %x", migrated.Bytes(), err, want)
	}
	if _, err := save(today, []byte(todoBefore)); !errors.Is(err, abi.ErrVersion) {
		t.Errorf("save of a file of schema 1: %v", err)
	}
}

// What goes wrong in a guest is told as it happened.
func TestTroubleInTheHost(t *testing.T) {
	var log bytes.Buffer
	m, _ := compile(t, "testdata/trouble", &log)
	for _, c := range []struct {
		native, want string
		code         abi.Code
	}{
		{"ok\npanic on purpose\n", "save: the serializer panicked: on purpose in main.trouble.Save at main.go:", abi.CodeInternal},
		{"nil\n", "the serializer panicked: runtime error: invalid memory address or nil pointer dereference in main.trouble.Save at main.go:", abi.CodeInternal},
		{"index\n", "the serializer panicked: runtime error: index out of range [1] with length 0 in main.trouble.Save at main.go:", abi.CodeInternal},
		{"ok\nerror gone\nok\n", "save: line 2: gone at a path (offset 14)", 64},
		{"short\nok\n", "save: the serializer returned before its input had ended (offset 6)", abi.CodeInternal},
		{"value x\n", `strconv.Atoi: parsing "x": invalid syntax`, abi.CodeInternal},
	} {
		_, err := save(m, []byte(c.native))
		var ge *host.GuestError
		if !errors.As(err, &ge) || ge.Code != c.code || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v; want code %d, %q", c.native, err, c.code, c.want)
		}
	}
	// What a module allows itself beyond the SDK works as far as the sandbox goes.
	records, err := save(m, []byte(`print {"b":1,"a":[2]}`+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	if back, err := load(m, records); err != nil || string(back) != "2027-01-15T08:00:00Z" {
		t.Errorf("the wall clock shows %q, %v; want that of the call", back, err)
	}
	for _, line := range []string{"level=INFO msg=\"serializer: printed map[a:[2] b:1]\"", "level=WARN msg=\"serializer: logged 2027-01-15T08:00:00Z\""} {
		if !strings.Contains(log.String(), line) {
			t.Errorf("the log lacks %s:\n%s", line, &log)
		}
	}
}

// A value longer than every buffer leaves in fragments and comes back.
func TestLongRecordsInTheHost(t *testing.T) {
	m, c := compile(t, "testdata/trouble", t.Output())
	native := "value 10\nvalue 65536\nvalue 3000000\nvalue 0\nlast\n"
	records, err := save(m, []byte(native))
	if err != nil {
		t.Fatal(err)
	}
	if mem := c.Of(abi.OpSave).Memory; mem > 16<<20 {
		t.Errorf("save of a value that it writes in pieces took %d bytes of memory", mem)
	}
	var scan record.Scanner
	refs, err := scan.Scan(records, nil)
	if err != nil || len(refs) != 5 {
		t.Fatalf("%d records, %v", len(refs), err)
	}
	want := bytes.Repeat([]byte{1}, 10)
	want = append(want, bytes.Repeat([]byte{2}, 65536)...)
	want = append(want, bytes.Repeat([]byte{3}, 3000000)...)
	want = append(want, "last\n"...)
	back, err := load(m, records)
	if err != nil || !bytes.Equal(back, want) {
		t.Errorf("load gives %d bytes, %v; want %d", len(back), err, len(want))
	}
}

// A guest's memory follows the longest record, not the state and not the garbage it makes.
func TestMemoryStaysBounded(t *testing.T) {
	size := 200 << 20
	if testing.Short() {
		size = 10 << 20
	}
	m, c := compile(t, "todo", t.Output())
	line := taskLine(1000)
	in := newTasks(line, size/len(line))
	pipe := make(batches, 4)
	saved := make(chan error, 1)
	go func() {
		defer close(pipe)
		saved <- m.Save(t.Context(), call, in, pipe)
	}()
	out := sha256.New()
	if err := m.Load(t.Context(), call, pipe, out); err != nil {
		t.Error(err)
		for range pipe { // so that save comes to its end
		}
	}
	if err := <-saved; err != nil {
		t.Fatal(err)
	}
	if got, want := out.Sum(nil), in.sum.Sum(nil); !bytes.Equal(got, want) {
		t.Errorf("load gave back other bytes than save was given")
	}
	for _, op := range []string{abi.OpSave, abi.OpLoad} {
		mem := c.Of(op).Memory
		t.Logf("%s of %d MB took %d bytes of memory", op, size>>20, mem)
		if mem == 0 || mem > 16<<20 {
			t.Errorf("want at most %d", 16<<20)
		}
	}

	m, c = compile(t, "testdata/trouble", t.Output())
	if _, err := save(m, fmt.Appendf(nil, "garbage %d\n", size>>22)); err != nil {
		t.Fatal(err)
	}
	if mem := c.Of(abi.OpSave).Memory; mem > 32<<20 {
		t.Errorf("a call that made %d MB of garbage took %d bytes of memory", size>>22, mem)
	}
}

// batches hands the records of one call to another.
type batches chan *record.Batch

func (c batches) WriteBatch(b *record.Batch) error { c <- b.Clone(); return nil }

func (c batches) ReadBatch() (*record.Batch, error) {
	if b, ok := <-c; ok {
		return b, nil
	}
	return nil, io.EOF
}

// taskLine is the line of a task with a title of so many bytes.
func taskLine(title int) string {
	const words = "Take the bicycle to the shop and ask about the squeaking front brake. "
	return `{"id":"000000000000","list":"household","title":"` + strings.Repeat(words, title/len(words)+1)[:title] +
		`","owner":{"given":"Ada","family":"Lovelace"},"date":"2026-05-01","time":"18:00","priority":2,"done":false,"tags":["errands","bicycle","Größe 28\"","spring"]}` + "\n"
}

// tasks is a state of the to-do service, made while it is read.
type tasks struct {
	n, next int // lines
	line    []byte
	pending []byte
	sum     hash.Hash // of what was read
}

// newTasks is a state of n tasks, which are like line but for their ids.
func newTasks(line string, n int) *tasks {
	return &tasks{n: n, line: []byte(line), sum: sha256.New()}
}

func (s *tasks) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		if len(s.pending) == 0 {
			switch s.next++; {
			case s.next == 1:
				s.pending = []byte(`{"format":"todo","schema":2}` + "\n")
			case s.next <= s.n+1:
				const firstDigit, digits = len(`{"id":"`), 12
				for i := firstDigit + digits - 1; ; i-- {
					if s.line[i]++; s.line[i] <= '9' {
						break
					}
					s.line[i] = '0'
				}
				s.pending = s.line
			case s.next == s.n+2:
				s.pending = fmt.Appendf(nil, `{"tasks":%d}`+"\n", s.n)
			case n == 0:
				return 0, io.EOF
			default:
				s.sum.Write(p[:n])
				return n, nil
			}
		}
		c := copy(p[n:], s.pending)
		s.pending = s.pending[c:]
		n += c
	}
	s.sum.Write(p)
	return n, nil
}

// interpreter makes a function that runs an export in wazero's interpreter, which shares no code with
// its compiler.
func interpreter(t *testing.T, wasm []byte, schema uint64) func(export string, input []byte) ([]byte, error) {
	t.Helper()
	ctx := t.Context()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	t.Cleanup(func() { _ = r.Close(context.Background()) })
	var input, out []byte
	var failed error
	b := r.NewHostModuleBuilder(abi.Namespace)
	memory := func(m api.Module, at, size uint32) []byte {
		p, ok := m.Memory().Read(at, size)
		if !ok {
			panic("outside the guest's memory")
		}
		return p
	}
	b.NewFunctionBuilder().WithFunc(func(_ context.Context, m api.Module, buf, size uint32) int64 {
		n := copy(memory(m, buf, size), input)
		if input = input[n:]; len(input) == 0 {
			return int64(n) | abi.NextEnd
		}
		return int64(n)
	}).Export(abi.ImportNext)
	b.NewFunctionBuilder().WithFunc(func(_ context.Context, m api.Module, p, size, _ uint32) int32 {
		out = append(out, memory(m, p, size)...)
		return abi.EmitOK
	}).Export(abi.ImportEmit)
	b.NewFunctionBuilder().WithFunc(func(_ context.Context, m api.Module, buf, size uint32) int32 {
		arg := record.AppendUint(record.AppendText(record.AppendMap(nil, 1), "schema"), schema)
		if int(size) >= len(arg) {
			copy(memory(m, buf, uint32(len(arg))), arg)
		}
		return int32(len(arg))
	}).Export(abi.ImportArg)
	b.NewFunctionBuilder().WithFunc(func(_ context.Context, m api.Module, code int32, p, size uint32) {
		failed = fmt.Errorf("code %d: %x", code, memory(m, p, size))
	}).Export(abi.ImportFail)
	b.NewFunctionBuilder().WithFunc(func(int32, uint32, uint32) {}).Export(abi.ImportLog)
	if _, err := b.Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
	wasi_snapshot_preview1.MustInstantiate(ctx, r)
	compiled, err := r.CompileModule(ctx, wasm)
	if err != nil {
		t.Fatal(err)
	}
	return func(export string, in []byte) ([]byte, error) {
		input, out, failed = in, nil, nil
		m, err := r.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions(abi.ExportInitialize))
		if err != nil {
			return nil, err
		}
		defer m.Close(ctx)
		if _, err := m.ExportedFunction(export).Call(ctx); err != nil {
			return nil, err
		}
		return out, failed
	}
}

// BenchmarkTodo runs the to-do serializer through package host, on a state of 10 MB.
func BenchmarkTodo(b *testing.B) {
	ctx := context.Background()
	b.Logf("todo.wasm has %d bytes", len(build(b, "todo")))
	m, c := compile(b, "todo", b.Output())
	line := taskLine(70)
	state, err := io.ReadAll(newTasks(line, 10_000_000/len(line)))
	if err != nil {
		b.Fatal(err)
	}
	records, err := save(m, state)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("save", func(b *testing.B) {
		b.SetBytes(int64(len(state)))
		for b.Loop() {
			if err := m.Save(ctx, call, bytes.NewReader(state), discard{}); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(c.Of(abi.OpSave).Memory)/(1<<20), "guest-MiB")
	})
	b.Run("load", func(b *testing.B) {
		b.SetBytes(int64(len(state)))
		for b.Loop() {
			if err := m.Load(ctx, call, record.NewReader(bytes.NewReader(records), 0), io.Discard); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(c.Of(abi.OpLoad).Memory)/(1<<20), "guest-MiB")
	})
}

type discard struct{}

func (discard) WriteBatch(*record.Batch) error { return nil }

// cloudState is a document of about size bytes, as an emulator of cloud services keeps it.
func cloudState(size int) []byte {
	b := []byte(`{"streams":{`)
	for i := 0; len(b) < size; i++ {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `"orders-%08d":{"active":true,"arn":"arn:aws:kinesis:eu-west-1:000000000000:stream/orders-%08d","created":%d,"cursor":null,`+
			`"shards":[{"count":%d,"from":0,"id":"shardId-%012d"}],"tags":{"env":"dev","team":"orders"}}`, i, i, 1_700_000_000+i, i%1000, i%7)
	}
	return append(b, `},"version":3}`...)
}

// inProcess is what package host is to a module, for a serializer in this process: it gives input and
// takes output, and does no more.
type inProcess struct {
	rest []byte
	out  []byte
}

func (h *inProcess) Next(buf []byte) int64 {
	n := copy(buf, h.rest)
	if h.rest = h.rest[n:]; len(h.rest) == 0 {
		return int64(n) | abi.NextEnd
	}
	return int64(n)
}

func (h *inProcess) Emit(p []byte, _ bool) int32 {
	h.out = append(h.out, p...)
	return abi.EmitOK
}

func (*inProcess) Arg(buf []byte) int {
	buf[0] = 0xa0
	return 1
}

func (*inProcess) Fail(torpor.Code, []byte) {}

func (*inProcess) Log(torpor.Level, string) {}

// jsonToItems and itemsToJSON are what the document example's save and load are but for the keys.
type jsonToItems struct{}

func (jsonToItems) Describe() torpor.Descriptor { return torpor.Descriptor{} }

func (jsonToItems) Save(_ *torpor.Call, native *torpor.Input, records *torpor.Output) error {
	s := jsonscan.New(native)
	var item []byte
	s.Object()
	for {
		partition, ok := s.Key()
		if !ok {
			return s.End()
		}
		if s.Peek() != jsonscan.KindObject {
			s.Skip()
			continue
		}
		p := string(partition)
		s.Object()
		for {
			key, ok := s.Key()
			if !ok {
				break
			}
			records.RecordText([]byte(p), key)
			item = s.AppendItem(item[:0])
			records.Put(item)
		}
	}
}

func (jsonToItems) Load(_ *torpor.Call, records *torpor.Input, native *torpor.Output) error {
	w := jsonscan.NewWriter(native)
	w.Object()
	for {
		r, err := records.Record()
		if errors.Is(err, io.EOF) {
			w.EndObject()
			return nil
		}
		if err != nil {
			return err
		}
		w.KeyBytes(r.Key)
		if err := w.Item(r.Value); err != nil {
			return err
		}
	}
}

// edges is a document with texts, names and numbers of every length, and whatever else is at the edge of what
// jsonscan's kernels do, each in many places of a word and of the buffers.
func edges(before int) []byte {
	b := fmt.Appendf(nil, `{"edges":{"":"%s"`, strings.Repeat("x", before))
	for n := range 300 {
		b = fmt.Appendf(b, `,"%08d":{"text":"%s","%s":["",%d,-%d]`, n, strings.Repeat("t", n), strings.Repeat("n", n), n*n*n, n+1)
		b = append(b, `,"literals":[true,false,null],"empty":[{},[]],"deep":`...)
		b = append(append(append(b, strings.Repeat(`[{"":`, n%31)...), `"Größe \"28\" \\ \n"`...), strings.Repeat("}]", n%31)...)
		b = append(fmt.Appendf(b, `,"digits":1%d,"more":0.%d`, n, n), strings.Repeat("7", n%20)...)
		b = append(append(append(b, `,"many":[8`...), strings.Repeat(",9", n%30)...), "]}"...)
	}
	return append(b, `}}`...)
}

// What bytes_wasm.go reads and writes without a check is what Go reads and writes with it.
func TestKernelsInTheHost(t *testing.T) {
	m, _ := compile(t, "document", t.Output())
	for before := range 9 {
		state := edges(7 * before)
		native := inProcess{rest: state}
		if torpor.Run(&native, abi.OpSave, jsonToItems{}) != 0 {
			t.Fatal("the document is wrong")
		}
		records, err := save(m, state)
		if err != nil || !bytes.Equal(records, native.out) {
			t.Fatalf("save gives %d bytes, %v; in plain Go %d", len(records), err, len(native.out))
		}
		if back, err := load(m, records); err != nil || !bytes.Equal(back, state) {
			t.Fatalf("load gives %d bytes, %v; want %d", len(back), err, len(state))
		}
	}
}

// BenchmarkDocument runs the document serializer on a JSON state of 10 MB: through package host, the same
// conversions in plain Go, and what encoding/json takes for them in plain Go.
func BenchmarkDocument(b *testing.B) {
	ctx := context.Background()
	b.Logf("document.wasm has %d bytes", len(build(b, "document")))
	m, c := compile(b, "document", b.Output())
	state := cloudState(10_000_000)
	records, err := save(m, state)
	if err != nil {
		b.Fatal(err)
	}
	speed := map[string]float64{}
	run := func(name, memory string, f func() error) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(state)))
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
			if memory != "" {
				b.ReportMetric(float64(c.Of(memory).Memory)/(1<<20), "guest-MiB")
			}
			speed[name] = float64(len(state)) * float64(b.N) / b.Elapsed().Seconds() / 1e6
		})
	}
	run("save", abi.OpSave, func() error { return m.Save(ctx, call, bytes.NewReader(state), discard{}) })
	run("load", abi.OpLoad, func() error {
		return m.Load(ctx, call, record.NewReader(bytes.NewReader(records), 0), io.Discard)
	})
	native := func(op string, input []byte) func() error {
		h := inProcess{out: make([]byte, 0, 2*len(input))}
		return func() error {
			h.rest, h.out = input, h.out[:0]
			if torpor.Run(&h, op, jsonToItems{}) != 0 {
				return errors.New("failed")
			}
			return nil
		}
	}
	run("save-in-plain-Go", "", native(abi.OpSave, state))
	run("load-in-plain-Go", "", native(abi.OpLoad, records))
	var decoded map[string]any
	run("Unmarshal-in-plain-Go", "", func() error {
		decoded = nil
		return json.Unmarshal(state, &decoded)
	})
	run("Marshal-in-plain-Go", "", func() error {
		_, err := json.Marshal(decoded)
		return err
	})
	for _, r := range [][2]string{{"save", "save-in-plain-Go"}, {"load", "load-in-plain-Go"}, {"save", "Unmarshal-in-plain-Go"}, {"load", "Marshal-in-plain-Go"}} {
		if speed[r[0]] > 0 && speed[r[1]] > 0 {
			b.Logf("%s in the host is %.2f times as fast as %s", r[0], speed[r[0]]/speed[r[1]], r[1])
		}
	}
}
