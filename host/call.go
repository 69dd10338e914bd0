package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// input is what next draws from.
type input interface {
	// next fills buf as far as the ABI's rules for this kind of input allow. ended may come with the
	// last bytes or alone; more says that the rest of one record follows.
	next(buf []byte) (n int, ended, more bool, err error)
}

// output is what emit adds to.
type output interface {
	// emit takes p, which is the guest's memory and not to be kept.
	emit(p []byte, more bool) error
	// open reports whether a fragment waits for its end.
	open() bool
}

// errBreach marks errors of an output that are the guest's doing.
type errBreach struct{ reason string }

func (e errBreach) Error() string { return e.reason }

// nativeInput fills buf whole while there is input, so that what a guest sees does not depend on how
// the source's bytes happened to arrive.
type nativeInput struct {
	r     io.Reader
	ended bool
}

func (in *nativeInput) next(buf []byte) (int, bool, bool, error) {
	if in.ended {
		return 0, true, false, nil
	}
	n, err := io.ReadFull(in.r, buf)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		in.ended = true
		err = nil
	}
	return n, in.ended, false, err
}

type recordInput struct {
	src   record.Source
	batch *record.Batch
	i     int // next record
	off   int // bytes of record i already given
	ended bool
}

func (in *recordInput) next(buf []byte) (int, bool, bool, error) {
	for in.batch == nil || in.i == in.batch.Len() {
		if in.ended {
			return 0, true, false, nil
		}
		b, err := in.src.ReadBatch()
		if errors.Is(err, io.EOF) {
			in.ended = true
			continue
		}
		if err != nil {
			return 0, false, false, err
		}
		in.batch, in.i, in.off = b, 0, 0
	}
	refs := in.batch.Refs
	first := refs[in.i]
	if in.off > 0 || first.End-first.Start > len(buf) {
		n := copy(buf, in.batch.Data[first.Start+in.off:first.End])
		if in.off += n; in.off < first.End-first.Start {
			return n, false, true, nil
		}
		in.i, in.off = in.i+1, 0
		return n, false, false, nil
	}
	end := first.End
	for in.i++; in.i < len(refs) && refs[in.i].End-first.Start <= len(buf); in.i++ {
		end = refs[in.i].End
	}
	return copy(buf, in.batch.Data[first.Start:end]), false, false, nil
}

type nativeOutput struct{ w io.Writer }

func (out *nativeOutput) emit(p []byte, more bool) error {
	if more {
		return errBreach{"it emitted a fragment where output has no records"}
	}
	_, err := out.w.Write(p)
	return err
}

func (out *nativeOutput) open() bool { return false }

type recordOutput struct {
	sink     record.Sink
	scan     record.Scanner
	limit    int
	batch    record.Batch
	fragment []byte // the beginning of a record whose end has not come
	partial  bool
}

func (out *recordOutput) emit(p []byte, more bool) error {
	if !more && !out.partial {
		return out.write(p, false)
	}
	if len(out.fragment)+len(p) > out.limit {
		return fmt.Errorf("%w: a record of more than %d bytes", abi.ErrTooLarge, out.limit)
	}
	out.fragment = append(out.fragment, p...)
	if out.partial = more; more {
		return nil
	}
	err := out.write(out.fragment, true)
	out.fragment = out.fragment[:0]
	return err
}

func (out *recordOutput) write(p []byte, single bool) error {
	if len(p) == 0 {
		return nil
	}
	refs, err := out.scan.Scan(p, out.batch.Refs[:0])
	if err != nil {
		if errors.Is(err, abi.ErrTooLarge) {
			return err
		}
		// Not as abi.ErrCorrupt: the state is not at fault, the module is.
		return errBreach{"what it emitted is no record: " + err.Error()}
	}
	if single && len(refs) != 1 {
		return errBreach{fmt.Sprintf("the fragments it emitted make %d records, not one", len(refs))}
	}
	out.batch = record.Batch{Data: p, Refs: refs}
	return out.sink.WriteBatch(&out.batch)
}

func (out *recordOutput) open() bool { return out.partial }

// running is one call under way: what the host functions work on.
type running struct {
	module  *Module
	op      string
	in      input
	out     output
	arg     []byte
	done    <-chan struct{}
	context context.Context
	logged  int64
	cost    CallCost
	ended   bool  // the guest has seen the end of its input
	err     error // why the host ended the call, or will
	failure *GuestError
}

type runningKey struct{}

// call runs one export in a fresh instance.
func (m *Module) call(ctx context.Context, export string, call abi.Call, in input, out output) error {
	start := time.Now()
	arg, err := m.host.encode.Marshal(call)
	if err != nil {
		return &ModuleError{Module: m.name, Op: call.Op, Reason: fmt.Sprintf("the call's settings cannot be encoded: %v", err)}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, m.host.limits.CallTime,
		&ModuleError{Module: m.name, Op: call.Op, Reason: fmt.Sprintf("it ran for longer than %v", m.host.limits.CallTime), Err: abi.ErrTooLarge})
	defer cancel()
	r := &running{module: m, op: call.Op, in: in, out: out, arg: arg, done: ctx.Done(), context: ctx}
	r.run(context.WithValue(ctx, runningKey{}, r), export, call)
	r.cost.Duration, r.cost.Err = time.Since(start), r.err
	if r.logged > m.host.limits.LogLines {
		m.host.logger.Warn("serializer log lines dropped", "module", m.name, "op", call.Op,
			"dropped", r.logged-m.host.limits.LogLines, "limit", m.host.limits.LogLines)
	}
	if m.host.observer != nil {
		m.host.observer.ModuleCalled(m.name, call.Op, r.cost)
	}
	return r.err
}

func (r *running) run(ctx context.Context, export string, call abi.Call) {
	h := r.module.host
	inst, err := h.runtime.InstantiateModule(ctx, r.module.compiled, r.config(call))
	if err != nil {
		r.fail(r.breach(fmt.Sprintf("it cannot be instantiated: %v", err), nil))
		return
	}
	defer inst.Close(ctx)
	if init := inst.ExportedFunction(abi.ExportInitialize); init != nil {
		if _, err := init.Call(ctx); err != nil {
			r.trapped(abi.ExportInitialize, err)
			return
		}
	}
	results, err := inst.ExportedFunction(export).Call(ctx)
	if mem := inst.Memory(); mem != nil {
		r.cost.Memory = int64(mem.Size())
	}
	switch {
	case r.err != nil: // the host ended it; what the guest made of that does not matter
	case err != nil:
		r.trapped(export, err)
	case r.failure != nil:
		r.err = r.failure
	case int32(results[0]) != 0:
		r.fail(r.breach(fmt.Sprintf("%s returned %d without saying why", export, int32(results[0])), nil))
	case r.out.open():
		r.fail(r.breach("it returned with a record emitted in part", nil))
	case !r.ended && r.op != abi.OpDescribe:
		r.fail(r.breach("it returned before its input had ended", nil))
	}
}

// config gives the instance a world of its own: no files, no arguments, no environment; clocks and
// random numbers that are the same for the same call.
func (r *running) config(call abi.Call) wazero.ModuleConfig {
	var mono int64
	wall := time.Unix(0, call.Time)
	return wazero.NewModuleConfig().WithName("").WithStartFunctions().
		WithRandSource(rand.New(rand.NewSource(1))).
		WithWalltime(func() (int64, int32) { return wall.Unix(), int32(wall.Nanosecond()) }, sys.ClockResolution(time.Microsecond)).
		WithNanotime(func() int64 { mono += int64(time.Microsecond); return mono }, sys.ClockResolution(time.Microsecond)).
		WithNanosleep(func(int64) {}).
		WithStdout(logWriter{r, abi.LogInfo}).WithStderr(logWriter{r, abi.LogWarn})
}

func (r *running) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *running) breach(reason string, sentinel error) error {
	return &ModuleError{Module: r.module.name, Op: r.op, Reason: reason, Err: sentinel}
}

// trapped reports what made a guest function end by itself.
func (r *running) trapped(export string, err error) {
	if r.failure != nil { // a panic handler's fail, then its trap
		r.fail(r.failure)
		return
	}
	var exit *sys.ExitError
	if errors.As(err, &exit) {
		r.fail(r.breach(fmt.Sprintf("%s ended the process with exit code %d", export, exit.ExitCode()), nil))
		return
	}
	reason, _, _ := strings.Cut(err.Error(), "\nwasm stack trace:")
	r.fail(r.breach(fmt.Sprintf("%s trapped: %s", export, reason), nil))
	r.module.host.logger.Debug("serializer trapped", "module", r.module.name, "op", r.op, "error", err)
}

// abort ends the guest from inside a host function.
func (r *running) abort(err error) {
	r.fail(err)
	panic(errAbort)
}

// alive ends the call when its context is done.
func (r *running) alive() {
	select {
	case <-r.done:
		r.abort(fmt.Errorf("serializer %s: %s: %w", r.module.name, r.op, context.Cause(r.context)))
	default:
	}
}

// memory is the guest's bytes from ptr on; a range outside ends the call.
func (r *running) memory(mod api.Module, what string, ptr, length uint64) []byte {
	b, ok := mod.Memory().Read(uint32(ptr), uint32(length))
	if !ok {
		r.abort(r.breach(fmt.Sprintf("%s of %d bytes at %#x lies outside its memory", what, uint32(length), uint32(ptr)), nil))
	}
	return b
}

// hostFunc is one import of the ABI.
type hostFunc struct {
	name            string
	params, results []api.ValueType
	call            api.GoModuleFunc
}

func imports() []hostFunc {
	i32, i64 := api.ValueTypeI32, api.ValueTypeI64
	on := func(f func(*running, api.Module, []uint64)) api.GoModuleFunc {
		return func(ctx context.Context, mod api.Module, stack []uint64) {
			f(ctx.Value(runningKey{}).(*running), mod, stack)
		}
	}
	return []hostFunc{
		{abi.ImportNext, []api.ValueType{i32, i32}, []api.ValueType{i64}, on((*running).next)},
		{abi.ImportEmit, []api.ValueType{i32, i32, i32}, []api.ValueType{i32}, on((*running).emit)},
		{abi.ImportArg, []api.ValueType{i32, i32}, []api.ValueType{i32}, on((*running).args)},
		{abi.ImportFail, []api.ValueType{i32, i32, i32}, nil, on((*running).failed)},
		{abi.ImportLog, []api.ValueType{i32, i32, i32}, nil, on((*running).log)},
	}
}

func (r *running) next(mod api.Module, stack []uint64) {
	r.alive()
	buf := r.memory(mod, "the buffer given to next", stack[0], stack[1])
	if len(buf) == 0 {
		r.abort(r.breach("it called next with room for no byte", nil))
	}
	n, ended, more, err := r.in.next(buf)
	if err != nil {
		r.abort(err)
	}
	r.cost.Input += int64(n)
	result := int64(n)
	if ended {
		r.ended = true
		result |= abi.NextEnd
	}
	if more {
		result |= abi.NextMore
	}
	stack[0] = uint64(result)
}

func (r *running) emit(mod api.Module, stack []uint64) {
	r.alive()
	p := r.memory(mod, "what it emitted", stack[0], stack[1])
	r.cost.Output += int64(len(p))
	if limit := r.module.host.limits.OutputBytes; r.cost.Output > limit {
		r.abort(r.breach(fmt.Sprintf("it emitted more than %d bytes", limit), abi.ErrTooLarge))
	}
	if flags := uint32(stack[2]); flags&^abi.EmitMore != 0 {
		r.abort(r.breach(fmt.Sprintf("it called emit with unknown flags %#x", flags), nil))
	}
	if err := r.out.emit(p, stack[2]&abi.EmitMore != 0); err != nil {
		var breach errBreach
		if errors.As(err, &breach) {
			err = r.breach(breach.reason, nil)
		}
		r.abort(err)
	}
	stack[0] = abi.EmitOK
}

func (r *running) args(mod api.Module, stack []uint64) {
	r.alive()
	if room := uint32(stack[1]); int64(room) >= int64(len(r.arg)) {
		copy(r.memory(mod, "the buffer given to arg", stack[0], uint64(len(r.arg))), r.arg)
	}
	stack[0] = uint64(uint32(len(r.arg)))
}

func (r *running) failed(mod api.Module, stack []uint64) {
	r.alive()
	p := r.memory(mod, "what it gave to fail", stack[1], min(stack[2], maxFailureBytes))
	f := &GuestError{Module: r.module.name, Op: r.op, Code: abi.Code(int32(uint32(stack[0])))}
	if err := r.module.host.decode.Unmarshal(p, &f.Failure); err != nil {
		f.Failure = abi.Failure{Msg: fmt.Sprintf("it failed with code %d and a message that is no CBOR map: %v", f.Code, err)}
	}
	if f.Failure.Msg == "" {
		f.Failure.Msg = fmt.Sprintf("it failed with code %d and no message", f.Code)
	}
	if r.failure == nil { // the first is the cause
		r.failure = f
	}
}

func (r *running) log(mod api.Module, stack []uint64) {
	r.alive()
	p := r.memory(mod, "what it gave to log", stack[1], min(stack[2], abi.MaxLogBytes))
	r.write(int32(uint32(stack[0])), p)
}
