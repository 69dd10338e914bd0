package modules_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// guest is one instance of a module, called again and again.
type guest struct {
	instance api.Module
	call     *call
}

// call is one call of an export: what the guest is given, and what it did with it.
type call struct {
	input  []byte
	native bool               // input may be cut anywhere; otherwise next gives whole records while they fit
	piece  func(room int) int // how much of room to use; nil: all of it
	late   bool               // the end of the input comes alone
	broken bool               // next fails once half of the input is read
	refuse int                // emit refuses after so many calls; 0: never
	arg    []byte

	records bool // output is records and must come in whole ones or in fragments of one
	discard bool // count output, do not keep it

	status   int32
	output   bytes.Buffer
	emitted  int64
	emits    int
	largest  int    // bytes of the largest emit
	open     []byte // fragments of a record whose end has not come
	partial  bool
	ended    bool // the guest has been told that the input ended
	failure  abi.Failure
	code     abi.Code
	failures int
	lines    []string
	trap     error
	read     int
	whole    []int // where the records of the input end
	trace    func(format string, args ...any)
}

func (c *call) String() string {
	if c.trap != nil {
		return fmt.Sprintf("%q, then trap: %v", c.failure.Msg, c.trap)
	}
	return fmt.Sprintf("status %d, code %d, %q at %q, offset %d", c.status, c.code, c.failure.Msg, c.failure.Path, c.failure.Offset)
}

// newGuest compiles a module and instantiates it once.
func newGuest(t testing.TB, wasm []byte) *guest {
	t.Helper()
	ctx := context.Background()
	r := wazero.NewRuntime(ctx)
	t.Cleanup(func() { _ = r.Close(ctx) })
	g := &guest{}
	i32, i64 := api.ValueTypeI32, api.ValueTypeI64
	b := r.NewHostModuleBuilder(abi.Namespace)
	for _, f := range []struct {
		name            string
		params, results []api.ValueType
		call            func(c *call, mem api.Memory, stack []uint64)
	}{
		{abi.ImportNext, []api.ValueType{i32, i32}, []api.ValueType{i64}, (*call).next},
		{abi.ImportEmit, []api.ValueType{i32, i32, i32}, []api.ValueType{i32}, (*call).emit},
		{abi.ImportArg, []api.ValueType{i32, i32}, []api.ValueType{i32}, (*call).args},
		{abi.ImportFail, []api.ValueType{i32, i32, i32}, nil, (*call).fail},
		{abi.ImportLog, []api.ValueType{i32, i32, i32}, nil, (*call).log},
	} {
		b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(func(_ context.Context, m api.Module, stack []uint64) {
			for i, t := range f.params { // the upper half of an i32's slot is undefined
				if t == i32 {
					stack[i] = uint64(uint32(stack[i]))
				}
			}
			f.call(g.call, m.Memory(), stack)
		}), f.params, f.results).Export(f.name)
	}
	if _, err := b.Instantiate(ctx); err != nil {
		t.Fatal(err)
	}
	var err error
	if g.instance, err = r.InstantiateWithConfig(ctx, wasm, wazero.NewModuleConfig().WithStartFunctions("_initialize")); err != nil {
		t.Fatal(err)
	}
	return g
}

// run calls export with c, which holds afterwards what became of it.
func (g *guest) run(export string, c *call) *call {
	if len(c.arg) == 0 {
		c.arg = record.AppendMap(nil, 0)
	}
	g.call = c
	results, err := g.instance.ExportedFunction(export).Call(context.Background())
	if err != nil {
		c.trap = err
		return c
	}
	c.status = int32(uint32(results[0]))
	return c
}

// accepted reports whether the call succeeded by all the rules of ABI.md.
func (c *call) accepted() bool {
	return c.trap == nil && c.status == 0 && c.failures == 0 && c.ended && !c.partial
}

func read(mem api.Memory, ptr, size uint64) []byte {
	b, ok := mem.Read(uint32(ptr), uint32(size))
	if !ok {
		panic(fmt.Sprintf("%d bytes at %#x lie outside the guest's memory", size, ptr))
	}
	return b
}

func (c *call) next(mem api.Memory, stack []uint64) {
	buf := read(mem, stack[0], stack[1])
	if len(buf) == 0 {
		panic("next with room for nothing")
	}
	room := len(buf)
	if c.piece != nil {
		room = min(room, max(1, c.piece(room)))
	}
	if c.broken && c.read >= len(c.input)/2 {
		stack[0] = uint64(1<<64 - 1) // abi.NextFailed
		return
	}
	n, more := min(room, len(c.input)-c.read), false
	if !c.native {
		n, more = c.nextRecords(room)
	}
	copy(buf, c.input[c.read:c.read+n])
	c.read += n
	result := int64(n)
	if c.read == len(c.input) && (!c.late || n == 0) {
		result |= abi.NextEnd
		c.ended = true
	}
	if more {
		result |= abi.NextMore
	}
	stack[0] = uint64(result)
	c.tracef("next(cap %d) = %d%s%s: %x", len(buf), n, flag(result&abi.NextEnd, " end"), flag(result&abi.NextMore, " more"), buf[:n])
}

// nextRecords is how many bytes of whole records fit, or how much of one that does not.
func (c *call) nextRecords(room int) (n int, more bool) {
	if c.whole == nil {
		var s record.Scanner
		refs, _, _ := s.ScanPrefix(c.input, nil)
		c.whole = make([]int, 0, len(refs)+1)
		for _, r := range refs {
			c.whole = append(c.whole, r.End)
		}
		if len(refs) == 0 || refs[len(refs)-1].End < len(c.input) {
			c.whole = append(c.whole, len(c.input)) // what is no record is given all the same
		}
	}
	for len(c.whole) > 0 && c.whole[0] <= c.read {
		c.whole = c.whole[1:]
	}
	for _, end := range c.whole {
		if end-c.read > room {
			if n == 0 {
				return room, true
			}
			break
		}
		n = end - c.read
	}
	return n, false
}

func flag(bit int64, name string) string {
	if bit == 0 {
		return ""
	}
	return name
}

func (c *call) emit(mem api.Memory, stack []uint64) {
	p := read(mem, stack[0], stack[1])
	more := stack[2] == abi.EmitMore
	if stack[2]&^abi.EmitMore != 0 {
		panic(fmt.Sprintf("emit with flags %#x", stack[2]))
	}
	c.tracef("emit(%d%s): %x", len(p), flag(int64(stack[2]), " more"), p)
	if c.emits++; c.refuse > 0 && c.emits > c.refuse {
		stack[0] = uint64(1<<32 - 1) // abi.EmitRefused
		return
	}
	c.largest = max(c.largest, len(p))
	c.emitted += int64(len(p))
	stack[0] = abi.EmitOK
	if c.discard {
		return
	}
	c.output.Write(p)
	switch {
	case !c.records:
		if more {
			panic("a fragment where there are no records")
		}
	case more:
		c.open, c.partial = append(c.open, p...), true
	default:
		var s record.Scanner
		refs, err := s.Scan(append(c.open, p...), nil)
		if err != nil {
			panic("emitted what is no record: " + err.Error())
		}
		if c.partial && len(refs) != 1 {
			panic(fmt.Sprintf("fragments of one record made %d", len(refs)))
		}
		c.open, c.partial = c.open[:0], false
	}
}

func (c *call) args(mem api.Memory, stack []uint64) {
	if room := stack[1]; room >= uint64(len(c.arg)) {
		copy(read(mem, stack[0], uint64(len(c.arg))), c.arg)
		c.tracef("arg(cap %d) = %d: %x", room, len(c.arg), c.arg)
	}
	stack[0] = uint64(len(c.arg))
}

func (c *call) fail(mem api.Memory, stack []uint64) {
	c.failures++
	c.code = abi.Code(int32(stack[0]))
	b := read(mem, stack[1], stack[2])
	c.tracef("fail(%d, %d): %x", c.code, len(b), b)
	f, err := parseFailure(b)
	if err != nil {
		panic("a failure that is no map of the ABI: " + err.Error())
	}
	c.failure = f
}

func (c *call) log(mem api.Memory, stack []uint64) {
	c.lines = append(c.lines, string(read(mem, stack[1], stack[2])))
}

func (c *call) tracef(format string, args ...any) {
	if c.trace != nil {
		c.trace(format, args...)
	}
}

func parseFailure(b []byte) (abi.Failure, error) {
	var f abi.Failure
	d := record.NewPull(b)
	for range d.Map() {
		switch key := string(d.Text()); key {
		case "msg":
			f.Msg = string(d.Text())
		case "path":
			f.Path = string(d.Text())
		case "offset":
			f.Offset = d.Uint()
		default:
			return f, errors.New("unknown key " + key)
		}
	}
	return f, d.End()
}
