package sdktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// border is one call as a host of the ABI sees it. It shares no code with package host.
type border struct {
	records bool // the output is records
	input   []byte
	ended   bool // the guest knows that its input has ended
	out     []byte
	begin   int  // where the record that is emitted in fragments begins in out
	more    bool // such a record is open
	code    abi.Code
	failure []byte
	breach  error // the first rule that the guest broke
}

func (b *border) broke(format string, args ...any) {
	if b.breach == nil {
		b.breach = fmt.Errorf(format, args...)
	}
}

func (b *border) next(buf []byte) int64 {
	if len(buf) == 0 {
		b.broke("it called next with room for no byte")
	}
	n := copy(buf, b.input)
	if b.input = b.input[n:]; len(b.input) > 0 {
		return int64(n)
	}
	b.ended = true
	return int64(n) | abi.NextEnd
}

func (b *border) emit(p []byte, flags uint32) {
	if flags&^abi.EmitMore != 0 {
		b.broke("it emitted with flags %#x", flags)
	}
	more := flags&abi.EmitMore != 0
	if !b.records {
		if more {
			b.broke("it emitted a fragment of native state")
		}
		b.out = append(b.out, p...)
		return
	}
	if !b.more {
		b.begin = len(b.out)
	}
	b.out = append(b.out, p...)
	if !more {
		var scan record.Scanner
		refs, err := scan.Scan(b.out[b.begin:], nil)
		if err != nil {
			b.broke("it emitted what is no record: %w", err)
		} else if b.more && len(refs) != 1 {
			b.broke("it emitted fragments of %d records as one", len(refs))
		}
	}
	b.more = more
}

func (b *border) fail(code abi.Code, failure []byte) {
	if code == 0 {
		b.broke("it failed with code 0")
	}
	if b.code == 0 {
		b.code, b.failure = code, bytes.Clone(failure)
	}
}

// returned gives what the call has come to, once its export returned a result.
func (b *border) returned(result int32) ([]byte, error) {
	switch {
	case b.breach != nil:
		return nil, b.breach
	case result != int32(b.code):
		return nil, fmt.Errorf("it returned %d and failed with %d", result, b.code)
	case b.code != 0:
		return nil, fmt.Errorf("code %d: %x", b.code, b.failure)
	case !b.ended:
		return nil, errors.New("it returned before its input had ended")
	case b.more:
		return nil, errors.New("it returned with a record emitted in part")
	}
	return b.out, nil
}

// interpreter makes a function that runs an export in wazero's interpreter, which shares no code with
// its compiler, behind imports which share none with package host.
func interpreter(t *testing.T, wasm []byte) func(export string, input []byte) ([]byte, error) {
	t.Helper()
	ctx := t.Context()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	t.Cleanup(func() { _ = r.Close(context.Background()) })
	var call *border
	memory := func(m api.Module, at, size uint32) []byte {
		p, ok := m.Memory().Read(at, size)
		if !ok {
			panic("outside the guest's memory")
		}
		return p
	}
	b := r.NewHostModuleBuilder(abi.Namespace)
	b.NewFunctionBuilder().WithFunc(func(_ context.Context, m api.Module, buf, size uint32) int64 {
		return call.next(memory(m, buf, size))
	}).Export(abi.ImportNext)
	b.NewFunctionBuilder().WithFunc(func(_ context.Context, m api.Module, p, size, flags uint32) int32 {
		call.emit(memory(m, p, size), flags)
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
		call.fail(abi.Code(code), memory(m, p, size))
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
		call = &border{records: export == abi.ExportSave, input: in}
		m, err := r.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions(abi.ExportInitialize))
		if err != nil {
			return nil, err
		}
		defer m.Close(ctx)
		results, err := m.ExportedFunction(export).Call(ctx)
		if err != nil {
			return nil, err
		}
		return call.returned(api.DecodeI32(results[0]))
	}
}
