package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero/api"

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

// errBreach marks errors of an output that are the guest's doing. sentinel is abi.ErrTooLarge or nil.
type errBreach struct {
	reason   string
	sentinel error
}

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
	n := 0
	for n < len(buf) && !in.ended {
		k, err := in.r.Read(buf[n:])
		n += k
		// Not io.ReadFull, which cannot tell the end from a stream that breaks off with
		// io.ErrUnexpectedEOF; and io.EOF itself is the end, wrapped it is a failure.
		if err == io.EOF {
			in.ended = true
		} else if err != nil {
			return n, false, false, err
		}
	}
	return n, in.ended, false, nil
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
		in.batch = nil // not ours any more
		b, err := in.src.ReadBatch()
		if err == io.EOF { // wrapped, it is a failure like any other
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

type nativeOutput struct {
	w     io.Writer
	limit int // of descriptors; 0 for none but OutputBytes
	n     int
}

func (out *nativeOutput) emit(p []byte, more bool) error {
	if more {
		return errBreach{"it emitted a fragment where output has no records", nil}
	}
	if out.n += len(p); out.limit > 0 && out.n > out.limit {
		return errBreach{fmt.Sprintf("it emitted more than %d bytes, the limit of what it says about itself", out.limit), abi.ErrTooLarge}
	}
	_, err := out.w.Write(p)
	return err
}

func (out *nativeOutput) open() bool { return false }

// scanBytes is how much of what a guest emits is taken in one go, if no record is longer: where its records
// lie takes memory too, ten times that of the shortest records.
const scanBytes = 256 << 10

type recordOutput struct {
	sink     record.Sink
	scan     record.Scanner
	limit    int
	most     int64 // records
	n        int64
	batch    record.Batch
	fragment []byte // the beginning of a record whose end has not come
	partial  bool
}

func (out *recordOutput) emit(p []byte, more bool) error {
	if !more && !out.partial {
		return out.write(p, false)
	}
	if len(out.fragment)+len(p) > out.limit {
		return errBreach{fmt.Sprintf("it emitted a record of more than %d bytes", out.limit), abi.ErrTooLarge}
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
	room := scanBytes
	for at := 0; at < len(p); {
		piece := p[at:min(at+room, len(p))]
		refs, n, err := out.scan.ScanPrefix(piece, out.batch.Refs[:0])
		if err != nil {
			// Never as abi.ErrCorrupt: the state is not at fault, the module is.
			var fe *record.FormatError
			errors.As(err, &fe)
			if fe.Err == abi.ErrTooLarge {
				return errBreach{fmt.Sprintf("it emitted a record that passes a limit, at offset %d of %d bytes: %s", at+fe.Offset, len(p), fe.Reason), abi.ErrTooLarge}
			}
			return errBreach{fmt.Sprintf("what it emitted is no record, at offset %d of %d bytes: %s", at+fe.Offset, len(p), fe.Reason), nil}
		}
		if n < len(piece) && at+len(piece) == len(p) {
			return errBreach{fmt.Sprintf("what it emitted is no record, at offset %d of %d bytes: the input ends inside the record that begins at offset %d",
				len(p), len(p), at+n), nil}
		}
		if n == 0 {
			room *= 2
			continue
		}
		if single && (len(refs) > 1 || n < len(p)) {
			return errBreach{"the fragments it emitted make more than one record", nil}
		}
		if out.n += int64(len(refs)); out.n > out.most {
			return errBreach{fmt.Sprintf("it emitted more than %d records", out.most), abi.ErrTooLarge}
		}
		out.batch = record.Batch{Data: piece[:n], Refs: refs}
		if err := out.sink.WriteBatch(&out.batch); err != nil {
			return err
		}
		at, room = at+n, scanBytes
	}
	return nil
}

func (out *recordOutput) open() bool { return out.partial }

// running is one call under way: what the host functions work on.
type running struct {
	module  *Module
	inst    *instance
	op      string
	in      input
	out     output
	arg     []byte
	time    int64 // the wall clock
	context context.Context
	late    error       // the context's cause when the call has taken too long
	piece   int         // the most that next may give
	most    int64       // bytes that may be emitted
	granted int64       // what the fuel counter was set to
	unseen  int         // how often the guest has come to the host since
	over    atomic.Bool // the context is done; set soon after it is
	logged  int64
	cost    CallCost
	export  string // that was called last
	early   bool   // it is _initialize
	inside  inside
	ended   bool  // the guest has seen the end of its input
	err     error // why the host ended the call, or will
	failure *GuestError
}

// inside is what the host does for the guest while the caller's code runs.
type inside uint8

const (
	nothing inside = iota
	reading
	writing
)

func (i inside) String() string { return [...]string{"", "reading its input", "writing its output"}[i] }

// callContext is the context of a call's guest, from which host functions take the call.
type callContext struct {
	context.Context
	running *running
}

// A guest's fuel and the call's context are looked at when the guest comes to the host for the maxUnseen-th
// time since the last look, and at the next time after it has moved seenBytes: a look costs as much as a small
// record.
const (
	maxUnseen = 16
	seenBytes = 4 << 10
)

// call runs one export in an instance that is like a fresh one.
func (m *Module) call(ctx context.Context, export string, call abi.Call, in input, out output) error {
	start := time.Now()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(m.host.closing, func() { cancel(errClosed) })()

	r := &running{module: m, op: call.Op, in: in, out: out, time: call.Time, piece: cmp.Or(m.host.piece, math.MaxInt), most: m.limits.OutputBytes}
	r.context = ctx
	if err := m.host.begin(); err != nil {
		r.fail(r.breach(err.Error(), err))
	} else {
		defer m.host.done()
		if giveBack, err := m.host.turns.take(ctx); err != nil {
			r.fail(r.stopped())
		} else {
			start = time.Now()
			func() { // the caller's code may end its goroutine under the call, as t.Fatal does
				defer giveBack()
				r.run(ctx, export, call)
			}()
		}
	}
	r.cost.Duration, r.cost.Err = time.Since(start), r.err
	if r.logged > m.limits.LogLines {
		m.host.logger.Warn("serializer log lines dropped", "module", m.name, "op", call.Op,
			"dropped", r.logged-m.limits.LogLines, "limit", m.limits.LogLines)
	}
	if m.host.observer != nil {
		m.host.observer.ModuleCalled(m.name, call.Op, r.cost)
	}
	return r.err
}

func (r *running) run(ctx context.Context, export string, call abi.Call) {
	limits := r.module.limits
	r.late = r.breach(fmt.Sprintf("it ran for longer than %v (CallTime)", limits.CallTime), abi.ErrTooLarge)
	ctx, stop := context.WithTimeoutCause(ctx, limits.CallTime, r.late)
	defer stop()
	defer r.watch(ctx)()
	if ctx.Err() != nil {
		r.fail(r.stopped())
		return
	}
	var err error
	if r.arg, err = r.module.host.encode.Marshal(call); err != nil {
		r.fail(r.breach(fmt.Sprintf("the call's settings cannot be encoded: %v", err), nil))
		return
	}
	if len(r.arg) > maxCallBytes {
		r.fail(r.breach(fmt.Sprintf("the call's settings make it %d bytes; the limit is %d", len(r.arg), maxCallBytes), abi.ErrTooLarge))
		return
	}
	ctx = &callContext{ctx, r}
	if r.inst = r.module.acquire(ctx, r); r.inst == nil {
		return
	}
	sound := false
	defer func() { r.module.release(ctx, r.inst, sound) }()
	results, err := r.enter(ctx, export)
	r.cost.Memory = int64(r.inst.memory.Size())
	sound = err == nil && r.err == nil
	switch {
	case r.err != nil: // the host ended it; what the guest made of that does not matter
	case err != nil:
		r.trapped(export, err)
	case r.failure != nil:
		r.err = r.failure
	case results != 0:
		r.fail(r.breach(fmt.Sprintf("%s returned %d without saying why", export, results), nil))
	case r.out.open():
		r.fail(r.breach("it returned with a record emitted in part", nil))
	case !r.ended && r.op != abi.OpDescribe:
		r.fail(r.breach("it returned before its input had ended", nil))
	}
}

// watch makes ctx the call's, until stop is called.
func (r *running) watch(ctx context.Context) (stop func() bool) {
	r.context = ctx
	return context.AfterFunc(ctx, func() { r.over.Store(true) })
}

// enter calls an export of the instance and gives its result, 0 where it has none. What it used is in
// cost.Fuel. When that was too much, or the context is done, r.err says so.
func (r *running) enter(ctx context.Context, export string) (int32, error) {
	r.export, r.early, r.cost.Fuel = export, export == abi.ExportInitialize, 0
	r.grant()
	results, err := r.inst.module.ExportedFunction(export).Call(ctx)
	left := int64(r.inst.counter.Get())
	r.cost.Fuel += r.granted - max(left, 0)
	if left < 0 && r.err == nil {
		r.err = r.spent(place(err))
	}
	if err == nil && r.context.Err() != nil { // it may have ended before it was looked at
		r.fail(r.stopped())
	}
	if err != nil || len(results) == 0 {
		return 0, err
	}
	return int32(results[0]), nil
}

// grant lets the guest go on for a slice.
func (r *running) grant() {
	limits := &r.module.limits
	r.unseen, r.granted = 0, min(limits.SliceFuel, limits.CallFuel-r.cost.Fuel)
	r.inst.counter.Set(uint64(r.granted))
}

// spent is the error of a guest that has used up its fuel.
func (r *running) spent(where string) error {
	limits := &r.module.limits
	if r.cost.Fuel >= limits.CallFuel {
		return r.breach(fmt.Sprintf("it used up its fuel%s: more than %d units, the limit of a call (CallFuel)", where, limits.CallFuel), abi.ErrTooLarge)
	}
	return r.breach(fmt.Sprintf("it did not come back to the host%s: it computed for more than %d units of fuel without a look of the host, which it takes at each %dth call at the latest (SliceFuel)",
		where, limits.SliceFuel, maxUnseen), abi.ErrTooLarge)
}

// place is where a guest was when it trapped: the innermost function of wazero's stack trace.
func place(err error) string {
	if err == nil {
		return ""
	}
	_, trace, _ := strings.Cut(err.Error(), "\nwasm stack trace:\n\t")
	name, _, _ := strings.Cut(trace, "(")
	if name == "" || strings.Contains(name, "\n") {
		return ""
	}
	return ", in function " + printable(clip(strings.TrimPrefix(name, "."), maxNameBytes))
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
	logger := r.module.host.logger.With("module", r.module.name, "op", r.op, "error", clip(err.Error(), maxReasonBytes))
	reason, _, _ := strings.Cut(err.Error(), "\nwasm stack trace:")
	if r.inside != nothing { // wazero catches what the caller's reader, writer, source or sink panics with
		r.fail(fmt.Errorf("serializer %s: %s: panic while the host was %s: %s", r.module.name, r.op, r.inside, reason))
		logger.Error("panic under a serializer's call")
		return
	}
	if r.failure != nil { // a panic handler's fail, then its trap
		r.fail(r.failure)
		return
	}
	r.fail(r.breach(fmt.Sprintf("%s trapped: %s%s", export, reason, place(err)), nil))
	logger.Debug("serializer trapped")
}

// abort ends the guest from inside a host function.
func (r *running) abort(err error) {
	r.fail(err)
	panic(errAbort)
}

// come is the guest coming to the host: the call ends if its context is done, or its fuel spent. A pair of
// next and emit takes little longer than wazero needs for it; so this is little, and is compiled into them.
func (r *running) come(to string) {
	if r.unseen++; r.unseen >= maxUnseen || r.over.Load() {
		r.look(to)
	}
}

// visit is come for imports that move nothing, or little and seldom: a guest that computes for long can
// call one of them to be granted another slice.
func (r *running) visit(what string) {
	r.unseen = maxUnseen
	r.come(what)
}

// look ends the call if its context is done; else it takes account of the guest's fuel and lets it go on for
// another slice.
func (r *running) look(to string) {
	if r.context.Err() != nil {
		r.abort(r.stopped())
	}
	left := int64(r.inst.counter.Get())
	r.cost.Fuel += r.granted - max(left, 0)
	r.granted = max(left, 0)
	if left < 0 || r.cost.Fuel >= r.module.limits.CallFuel {
		r.abort(r.spent(", before it called " + to))
	}
	r.grant()
}

// moved notes that n bytes went in or out.
func (r *running) moved(n int) {
	if n >= seenBytes {
		r.unseen = maxUnseen
	}
}

// stopped is the error of a call whose context is done.
func (r *running) stopped() error {
	cause := context.Cause(r.context)
	if r.late != nil && cause == r.late { // this very one: the cause may be the error of another call
		return r.late
	}
	if err := r.context.Err(); !errors.Is(cause, err) {
		cause = fmt.Errorf("%w: %w", err, cause)
	}
	return fmt.Errorf("serializer %s: %s: %w", r.module.name, r.op, cause)
}

// memory is the guest's bytes from ptr on; a range outside ends the call.
func (r *running) memory(what string, ptr, length uint32) []byte {
	if end := uint64(ptr) + uint64(length); end <= uint64(len(r.inst.seen)) {
		return r.inst.seen[ptr:end:end]
	}
	return r.unseenMemory(what, ptr, length)
}

// unseenMemory is memory for a guest that has made its memory larger since the host looked at it.
func (r *running) unseenMemory(what string, ptr, length uint32) []byte {
	b, ok := r.inst.look(ptr, length)
	if !ok {
		r.abort(r.breach(fmt.Sprintf("%s, %d bytes at %#x, lies outside its memory", what, length, ptr), nil))
	}
	return b
}

// inCall ends the call if its export has not been called yet.
func (r *running) inCall(what string) {
	if r.come(what); r.early {
		r.tooEarly(what)
	}
}

func (r *running) tooEarly(what string) {
	r.abort(r.breach(fmt.Sprintf("%s called %s, which belongs to a call", abi.ExportInitialize, what), nil))
}

// hostFunc is one import of the ABI.
type hostFunc struct {
	name            string
	params, results []api.ValueType
	call            api.GoModuleFunction
}

// on makes a host function of a method of the call under way.
func on(f func(*running, []uint64)) api.GoModuleFunction {
	return api.GoModuleFunc(func(ctx context.Context, _ api.Module, stack []uint64) { f(ctx.(*callContext).running, stack) })
}

// importNext and importEmit are what on makes of next and emit, without two calls through a pointer: most of
// what a pair costs the host is such calls.
type (
	importNext struct{}
	importEmit struct{}
)

// Call is api.GoModuleFunction's.
func (importNext) Call(ctx context.Context, _ api.Module, stack []uint64) {
	ctx.(*callContext).running.next(stack)
}

// Call is api.GoModuleFunction's.
func (importEmit) Call(ctx context.Context, _ api.Module, stack []uint64) {
	ctx.(*callContext).running.emit(stack)
}

// imports are the functions of a namespace that a module may import.
func imports(namespace string) []hostFunc {
	if namespace == wasiNamespace {
		return wasiImports()
	}
	i32, i64 := api.ValueTypeI32, api.ValueTypeI64
	return []hostFunc{
		{abi.ImportNext, []api.ValueType{i32, i32}, []api.ValueType{i64}, importNext{}},
		{abi.ImportEmit, []api.ValueType{i32, i32, i32}, []api.ValueType{i32}, importEmit{}},
		{abi.ImportArg, []api.ValueType{i32, i32}, []api.ValueType{i32}, on((*running).args)},
		{abi.ImportFail, []api.ValueType{i32, i32, i32}, nil, on((*running).failed)},
		{abi.ImportLog, []api.ValueType{i32, i32, i32}, nil, on((*running).log)},
	}
}

// The arguments below are i32; wazero leaves the upper half of their slots undefined.

func (r *running) next(stack []uint64) {
	if r.come(abi.ImportNext); r.early {
		r.tooEarly(abi.ImportNext)
	}
	buf := r.memory("the buffer given to next", uint32(stack[0]), uint32(stack[1]))
	if len(buf) == 0 {
		r.abort(r.breach("it called next with room for no byte", nil))
	}
	r.inside = reading
	n, ended, more, err := r.in.next(buf[:min(len(buf), r.piece)])
	r.inside = nothing
	if err != nil {
		r.abort(err)
	}
	r.cost.Input += int64(n)
	r.moved(n)
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

func (r *running) emit(stack []uint64) {
	if r.come(abi.ImportEmit); r.early {
		r.tooEarly(abi.ImportEmit)
	}
	p := r.memory("what it emitted", uint32(stack[0]), uint32(stack[1]))
	r.cost.Output += int64(len(p))
	r.moved(len(p))
	if r.cost.Output > r.most {
		r.abort(r.breach(fmt.Sprintf("it emitted more than %d bytes", r.most), abi.ErrTooLarge))
	}
	flags := uint32(stack[2])
	if flags&^abi.EmitMore != 0 {
		r.abort(r.breach(fmt.Sprintf("it called emit with unknown flags %#x", flags), nil))
	}
	r.inside = writing
	err := r.out.emit(p, flags&abi.EmitMore != 0)
	r.inside = nothing
	if err != nil {
		if breach, ok := err.(errBreach); ok {
			err = r.breach(breach.reason, breach.sentinel)
		}
		r.abort(err)
	}
	stack[0] = abi.EmitOK
}

func (r *running) args(stack []uint64) {
	r.unseen = maxUnseen // as a visit
	r.inCall(abi.ImportArg)
	if room := uint32(stack[1]); int64(room) >= int64(len(r.arg)) {
		copy(r.memory("the buffer given to arg", uint32(stack[0]), uint32(len(r.arg))), r.arg)
	}
	stack[0] = uint64(len(r.arg))
}

func (r *running) failed(stack []uint64) {
	r.visit(abi.ImportFail)
	code, length := abi.Code(int32(uint32(stack[0]))), uint32(stack[2])
	p := r.memory("what it gave to fail", uint32(stack[1]), min(length, maxFailureBytes))
	if r.failure != nil { // the first is the cause
		return
	}
	f := &GuestError{Module: r.module.name, Op: r.op, Code: code}
	if length > maxFailureBytes {
		f.Failure = abi.Failure{Msg: fmt.Sprintf("it failed with code %d and a message of %d bytes; the limit is %d", code, length, maxFailureBytes)}
	} else if err := r.module.host.decode.Unmarshal(p, &f.Failure); err != nil {
		f.Failure = abi.Failure{Msg: fmt.Sprintf("it failed with code %d and a message that is no CBOR map: %v", code, err)}
	} else if f.Failure.Msg == "" {
		f.Failure.Msg = fmt.Sprintf("it failed with code %d and no message", code)
	}
	r.failure = f
}

func (r *running) log(stack []uint64) {
	r.visit(abi.ImportLog)
	p := r.memory("what it gave to log", uint32(stack[1]), min(uint32(stack[2]), abi.MaxLogBytes))
	r.write(int32(uint32(stack[0])), p)
}
