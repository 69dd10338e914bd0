package fuel

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// engine is one of wazero's two.
type engine struct {
	name   string
	config func() wazero.RuntimeConfig
}

var (
	compiler    = engine{"compiler", wazero.NewRuntimeConfigCompiler}
	interpreter = engine{"interpreter", wazero.NewRuntimeConfigInterpreter}
	engines     = []engine{compiler, interpreter}
)

// mustInstrument instruments a module that the test knows to be sound.
func mustInstrument(t testing.TB, wasm []byte, opt Options) []byte {
	t.Helper()
	out, _, err := Instrument(wasm, opt)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// serializer is an instance of a module of the ABI, with a host that gives it an input and keeps or
// counts what it emits.
type serializer struct {
	instance api.Module
	counter  api.MutableGlobal // nil for a module as it was

	parts   [][]byte // what each next gives
	n       int
	keep    bool
	output  bytes.Buffer
	emitted int
	failed  string
}

func newSerializer(t testing.TB, e engine, wasm []byte, fuel int64) *serializer {
	t.Helper()
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, e.config())
	t.Cleanup(func() { rt.Close(ctx) })
	s := &serializer{}
	i32, i64 := api.ValueTypeI32, api.ValueTypeI64
	b := rt.NewHostModuleBuilder(abi.Namespace)
	for _, f := range []struct {
		name            string
		params, results []api.ValueType
		call            func(mem api.Memory, stack []uint64)
	}{
		{abi.ImportNext, []api.ValueType{i32, i32}, []api.ValueType{i64}, s.next},
		{abi.ImportEmit, []api.ValueType{i32, i32, i32}, []api.ValueType{i32}, s.emit},
		{abi.ImportArg, []api.ValueType{i32, i32}, []api.ValueType{i32}, s.arg},
		{abi.ImportFail, []api.ValueType{i32, i32, i32}, nil, s.fail},
		{abi.ImportLog, []api.ValueType{i32, i32, i32}, nil, func(api.Memory, []uint64) {}},
	} {
		b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(_ context.Context, m api.Module, stack []uint64) {
			f.call(m.Memory(), stack)
		}), f.params, f.results).Export(f.name)
	}
	if _, err := b.Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, rt); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.instance, err = rt.InstantiateWithConfig(ctx, wasm, wazero.NewModuleConfig().WithStartFunctions()); err != nil {
		t.Fatal(err)
	}
	if g := s.instance.ExportedGlobal(DefaultExport); g != nil {
		s.counter = g.(api.MutableGlobal)
		s.counter.Set(uint64(fuel))
	}
	if f := s.instance.ExportedFunction(abi.ExportInitialize); f != nil {
		if _, err := f.Call(ctx); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// call runs an export over parts, with fuel set anew, and gives how much of it was used.
func (s *serializer) call(t testing.TB, export string, parts [][]byte) (used int64) {
	t.Helper()
	s.parts, s.n, s.emitted = parts, 0, 0
	s.output.Reset()
	const fuel = math.MaxInt64
	if s.counter != nil {
		s.counter.Set(fuel)
	}
	res, err := s.instance.ExportedFunction(export).Call(context.Background())
	if err != nil || res[0] != 0 || s.failed != "" {
		t.Fatal(res, err, s.failed)
	}
	if s.counter != nil {
		used = fuel - int64(s.counter.Get())
	}
	return used
}

func (s *serializer) next(mem api.Memory, stack []uint64) {
	buf, _ := mem.Read(uint32(stack[0]), uint32(stack[1]))
	p := s.parts[s.n]
	n := copy(buf, p)
	if n < len(p) {
		panic(fmt.Sprintf("room for %d bytes of %d", len(buf), len(p)))
	}
	stack[0] = uint64(n)
	if s.n++; s.n == len(s.parts) {
		stack[0] |= uint64(abi.NextEnd)
	}
}

func (s *serializer) emit(mem api.Memory, stack []uint64) {
	p, _ := mem.Read(uint32(stack[0]), uint32(stack[1]))
	s.emitted += len(p)
	if s.keep {
		s.output.Write(p)
	}
	stack[0] = abi.EmitOK
}

func (s *serializer) arg(mem api.Memory, stack []uint64) {
	arg := record.AppendMap(nil, 0)
	if int(uint32(stack[1])) >= len(arg) {
		mem.Write(uint32(stack[0]), arg)
	}
	stack[0] = uint64(len(arg))
}

func (s *serializer) fail(mem api.Memory, stack []uint64) {
	p, _ := mem.Read(uint32(stack[1]), uint32(stack[2]))
	s.failed = string(p)
}

// someRecords is size bytes or a little more of records like a cloud emulator's, in parts of whole
// records of at most 32 KiB.
func someRecords(size int) (parts [][]byte) {
	const most = 32 << 10
	var part []byte
	blob := bytes.Repeat([]byte{0xa5}, 80)
	for i := 0; size > 0; i++ {
		before := len(part)
		name := fmt.Sprintf("stream-%08d", i)
		part = record.AppendRecord(part)
		part = record.AppendText(part, "000000000000/eu-west-1")
		part = record.AppendText(part, name)
		part = record.AppendMap(part, 4)
		part = record.AppendText(part, "arn")
		part = record.AppendText(part, "arn:aws:kinesis:eu-west-1:000000000000:stream/"+name)
		part = record.AppendText(part, "created")
		part = record.AppendUint(part, 1_700_000_000+uint64(i))
		part = record.AppendText(part, "active")
		part = record.AppendBool(part, i%3 > 0)
		part = record.AppendText(part, "cursor")
		part = record.AppendBytes(part, blob)
		size -= len(part) - before
		if len(part) > most-300 {
			parts, part = append(parts, part), nil
		}
	}
	return append(parts, part)
}
