package sdktest

import (
	"context"
	"fmt"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// interpreter makes a function that runs an export in wazero's interpreter, which shares no code with
// its compiler, behind imports which share none with package host.
func interpreter(t *testing.T, wasm []byte) func(export string, input []byte) ([]byte, error) {
	t.Helper()
	ctx := t.Context()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	t.Cleanup(func() { _ = r.Close(context.Background()) })
	var input, out []byte
	var failed error
	memory := func(m api.Module, at, size uint32) []byte {
		p, ok := m.Memory().Read(at, size)
		if !ok {
			panic("outside the guest's memory")
		}
		return p
	}
	b := r.NewHostModuleBuilder(abi.Namespace)
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
		arg := record.AppendUint(record.AppendText(record.AppendMap(nil, 1), "schema"), 1)
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
