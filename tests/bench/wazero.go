package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strings"

	"github.com/fxamacker/cbor/v2"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/fuel"
	"github.com/torpor-run/torpor/modules"
)

// alone is guests in wazero without package host: what there is to gain.
type alone struct {
	runtimes []wazero.Runtime
	mover    api.Module
	returns  api.Function
	moves    api.Function
	plain    *lone
	metered  *lone // the same with the fuel counter
}

// moverWasm exports a memory of one page, move(to, from, n), which is memory.copy, and a function that
// returns.
const moverWasm = "\x00asm\x01\x00\x00\x00" +
	"\x01\x0a\x02\x60\x00\x00\x60\x03\x7f\x7f\x7f\x00" + // types: nothing; three i32
	"\x03\x03\x02\x00\x01" + // functions of them
	"\x05\x03\x01\x00\x01" + // the memory
	"\x07\x1b\x03\x06memory\x02\x00\x07nothing\x00\x00\x04move\x00\x01" +
	"\x0a\x11\x02\x02\x00\x0b\x0c\x00\x20\x00\x20\x01\x20\x02\xfc\x0a\x00\x00\x0b"

// echoWasm is a serializer of no more than next and emit: both its operations emit what they are given, in
// pieces of smallBytes.
func echoWasm() ([]byte, error) {
	described, err := cbor.Marshal(abi.Descriptor{Name: "echo", Version: "1", Schema: 1, Reads: []uint64{1}, Media: "application/cbor-seq",
		Operations: []string{abi.OpSave, abi.OpLoad}})
	if err != nil {
		return nil, err
	}
	sized := func(parts ...string) string { // behind its length
		s := strings.Join(parts, "")
		return string(binary.AppendUvarint(nil, uint64(len(s)))) + s
	}
	constant := func(v int) string { return "\x41" + string([]byte{0x80 | byte(v), byte(v >> 7)}) } // v has 13 bits at most
	const getN, setN, callNext, callEmit, end = "\x20\x00", "\x21\x00", "\x10\x00", "\x10\x01", "\x0b"
	describe := "\x00" + constant(0) + constant(len(described)) + constant(0) + callEmit + end
	echo := "\x01\x01\x7e" + // n, an i64
		"\x03\x40" + constant(echoAt) + constant(smallBytes) + callNext + setN +
		getN + "\xa7\x04\x40" + constant(echoAt) + getN + "\xa7" + constant(0) + callEmit + "\x1a" + end + // if n has a length
		getN + "\x42" + string([]byte{byte(bits.TrailingZeros64(uint64(abi.NextEnd)))}) + "\x88\x42\x01\x83\x50\x0d\x00" + end + // again if it has no end
		constant(0) + end
	return []byte("\x00asm\x01\x00\x00\x00" +
		"\x01" + sized("\x03\x60\x02\x7f\x7f\x01\x7e\x60\x03\x7f\x7f\x7f\x01\x7f\x60\x00\x01\x7f") + // types: next, emit, an export
		"\x02" + sized("\x02", sized(abi.Namespace), sized(abi.ImportNext), "\x00\x00", sized(abi.Namespace), sized(abi.ImportEmit), "\x00\x01") +
		"\x03" + sized("\x02\x02\x02") + // functions
		"\x05" + sized("\x01\x00\x01") + // memory
		"\x07" + sized("\x04", sized(abi.ExportMemory), "\x02\x00", sized(abi.ExportDescribe), "\x00\x02", sized(abi.ExportSave), "\x00\x03", sized(abi.ExportLoad), "\x00\x03") +
		"\x0a" + sized("\x02", sized(describe), sized(echo)) +
		"\x0b" + sized("\x01\x00", constant(0), end, sized(string(described)))), nil
}

// echoAt is where echoWasm's memory has what it was given.
const echoAt = 4096

// newAlone must be closed even after an error.
func newAlone(ctx context.Context) (*alone, error) {
	a := &alone{}
	var err error
	if a.mover, err = a.runtime(ctx).Instantiate(ctx, []byte(moverWasm)); err != nil {
		return a, err
	}
	a.returns, a.moves = a.mover.ExportedFunction("nothing"), a.mover.ExportedFunction("move")
	metered, _, err := fuel.Instrument(modules.Records(), fuel.Options{})
	if err != nil {
		return a, err
	}
	if a.plain, err = newLone(ctx, a.runtime(ctx), modules.Records()); err != nil {
		return a, err
	}
	a.metered, err = newLone(ctx, a.runtime(ctx), metered)
	return a, err
}

func (a *alone) runtime(ctx context.Context) wazero.Runtime {
	r := wazero.NewRuntime(ctx)
	a.runtimes = append(a.runtimes, r)
	return r
}

func (a *alone) close(ctx context.Context) (err error) {
	for _, r := range a.runtimes {
		err = errors.Join(err, r.Close(ctx))
	}
	return err
}

func (a *alone) nothing(ctx context.Context) error {
	_, err := a.returns.Call(ctx)
	return err
}

// copy brings data into the guest's memory, has it copied there, and takes the copy out.
func (a *alone) copy(ctx context.Context, data []byte, out *kept) error {
	out.reset()
	memory, n := a.mover.Memory(), uint64(len(data))
	if more := 2*n - min(2*n, uint64(memory.Size())); more > 0 {
		if _, ok := memory.Grow(uint32((more + 1<<16 - 1) >> 16)); !ok {
			return fmt.Errorf("no %d bytes of memory", 2*n)
		}
	}
	memory.Write(0, data)
	if _, err := a.moves.Call(ctx, n, 0, n); err != nil {
		return err
	}
	moved, _ := memory.Read(uint32(n), uint32(n))
	_, err := out.Write(moved)
	return err
}

// lone is a serializer with the least of a host: it hands bytes over, whole records or not.
type lone struct {
	instance api.Module
	counter  api.MutableGlobal // nil if it has none
	arg      []byte
	input    []byte
	piece    int // the most that next gives
	out      *kept
}

func newLone(ctx context.Context, r wazero.Runtime, wasm []byte) (*lone, error) {
	l := &lone{}
	var err error
	if l.arg, err = cbor.Marshal(abi.Call{Schema: 1}); err != nil {
		return nil, err
	}
	i32, i64 := api.ValueTypeI32, api.ValueTypeI64
	b := r.NewHostModuleBuilder(abi.Namespace)
	for _, f := range []struct {
		name            string
		params, results []api.ValueType
		call            func(memory api.Memory, stack []uint64)
	}{
		{abi.ImportNext, []api.ValueType{i32, i32}, []api.ValueType{i64}, l.next},
		{abi.ImportEmit, []api.ValueType{i32, i32, i32}, []api.ValueType{i32}, l.emit},
		{abi.ImportArg, []api.ValueType{i32, i32}, []api.ValueType{i32}, l.args},
		{abi.ImportFail, []api.ValueType{i32, i32, i32}, nil, func(api.Memory, []uint64) {}},
		{abi.ImportLog, []api.ValueType{i32, i32, i32}, nil, func(api.Memory, []uint64) {}},
	} {
		b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(_ context.Context, m api.Module, stack []uint64) {
			f.call(m.Memory(), stack)
		}), f.params, f.results).Export(f.name)
	}
	if _, err := b.Instantiate(ctx); err != nil {
		return nil, err
	}
	if l.instance, err = r.InstantiateWithConfig(ctx, wasm, wazero.NewModuleConfig().WithStartFunctions()); err != nil {
		return nil, err
	}
	l.counter, _ = l.instance.ExportedGlobal(fuel.DefaultExport).(api.MutableGlobal)
	return l, nil
}

// run gives the guest input in pieces of so many bytes at most.
func (l *lone) run(ctx context.Context, export string, input []byte, piece int, out *kept) error {
	out.reset()
	l.input, l.piece, l.out = input, piece, out
	if l.counter != nil {
		l.counter.Set(math.MaxInt64)
	}
	results, err := l.instance.ExportedFunction(export).Call(ctx)
	if err == nil && results[0] != 0 {
		err = fmt.Errorf("%s returned %d", export, results[0])
	}
	return err
}

func (l *lone) next(memory api.Memory, stack []uint64) {
	buf, _ := memory.Read(uint32(stack[0]), uint32(stack[1]))
	n := copy(buf[:min(len(buf), l.piece)], l.input)
	l.input = l.input[n:]
	stack[0] = uint64(n)
	if len(l.input) == 0 {
		stack[0] |= uint64(abi.NextEnd)
	}
}

func (l *lone) emit(memory api.Memory, stack []uint64) {
	p, _ := memory.Read(uint32(stack[0]), uint32(stack[1]))
	_, _ = l.out.Write(p)
	stack[0] = abi.EmitOK
}

func (l *lone) args(memory api.Memory, stack []uint64) {
	if int(uint32(stack[1])) >= len(l.arg) {
		memory.Write(uint32(stack[0]), l.arg)
	}
	stack[0] = uint64(len(l.arg))
}
