package host_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// spinning is a guest that reads one byte, which tells the test where it is, and then computes without
// coming back. The more fuel a slice has, the longer that takes.
func spinning() []byte {
	g := newGuest()
	spin := g.function("spin", forever())
	one := seq(constI32(bufferAt), constI32(1), call(next), drop)
	return g.does(abi.ExportSave, one, call(spin), constI32(0)).bytes()
}

// within gives what f gives, or ends the test if that takes so long that it must be hanging.
func within(t *testing.T, what string, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(2 * time.Minute):
		t.Fatalf("%s hangs", what)
		return nil
	}
}

// started is an input of one byte and then no end; reached is closed when the guest has asked for it.
func started() (r io.Reader, reached chan struct{}) {
	reached = make(chan struct{})
	first := true
	return readerFunc(func(p []byte) (int, error) {
		if first {
			first = false
			close(reached)
		}
		p[0] = 1
		return 1, nil
	}), reached
}

// A guest that spins ends when its slice does, whatever wanted it to end: what it is blamed for is the
// slice.
func TestEndingASpinningGuest(t *testing.T) {
	limits := host.Limits{SliceFuel: 20_000_000}
	wasm := spinning()
	t.Run("cancelled", func(t *testing.T) {
		h := newHost(t, host.Config{Limits: limits})
		m := compile(t, h, wasm)
		ctx, cancel := context.WithCancel(t.Context())
		in, reached := started()
		go func() { <-reached; cancel() }()
		err := within(t, "the call", func() error { return m.Save(ctx, abi.Call{}, in, &collector{}) })
		wantModuleError(t, err, abi.OpSave, abi.ErrTooLarge, "it did not come back to the host, in function spin")
		if _, err := perform(t.Context(), m, abi.OpLoad, nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("late", func(t *testing.T) {
		h := newHost(t, host.Config{Limits: host.Limits{SliceFuel: limits.SliceFuel, CallTime: host.MinCallTime}})
		in, _ := started()
		m := compile(t, h, wasm)
		err := within(t, "the call", func() error { return m.Save(t.Context(), abi.Call{}, in, &collector{}) })
		wantModuleError(t, err, abi.OpSave, abi.ErrTooLarge, "")
	})
	t.Run("closed", func(t *testing.T) {
		h := newHost(t, host.Config{Limits: limits})
		m := compile(t, h, wasm)
		in, reached := started()
		saved := make(chan error, 1)
		go func() { saved <- m.Save(context.Background(), abi.Call{}, in, &collector{}) }()
		<-reached
		if err := within(t, "Close", func() error { return h.Close(context.Background()) }); err != nil {
			t.Error(err)
		}
		wantModuleError(t, <-saved, abi.OpSave, abi.ErrTooLarge, "")
	})
}

// Close ends what is being compiled, be that in code of the module.
func TestCloseWhileCompiling(t *testing.T) {
	j := &journal{}
	h := newHost(t, host.Config{Logger: j.logger(), Limits: host.Limits{LogLines: 1}})
	wasm := newGuest().initializes(forever(logFrom(abi.LogInfo, 0, 1))).bytes()
	compiled := make(chan error, 2)
	for range 2 { // one compiles, the other waits for it
		go func() {
			_, err := h.Compile(context.Background(), guestName, wasm)
			compiled <- err
		}()
	}
	for len(j.containing("serializer:")) == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := within(t, "Close", func() error { return h.Close(context.Background()) }); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-compiled; err == nil || !strings.Contains(err.Error(), "the module host is closed") {
			t.Errorf("%v", err)
		}
	}
}

// Who waits for another's compile can stop waiting; the other goes on.
func TestCompileWaitingCancelled(t *testing.T) {
	j := &journal{}
	h := newHost(t, host.Config{Logger: j.logger(), Limits: host.Limits{LogLines: 1}})
	wasm := newGuest().initializes(forever(logFrom(abi.LogInfo, 0, 1))).bytes()
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := h.Compile(ctx, "first", wasm)
		first <- err
	}()
	for len(j.containing("serializer:")) == 0 {
		time.Sleep(time.Millisecond)
	}
	impatient, stop := context.WithCancelCause(t.Context())
	stop(errors.New("no time"))
	if _, err := h.Compile(impatient, "second", wasm); err == nil || !strings.Contains(err.Error(), "second") || !strings.Contains(err.Error(), "no time") {
		t.Error(err)
	}
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A caller's code that ends its goroutine under a call, as t.Fatal does, leaves the host usable, and able
// to close.
func TestGoroutineEndsUnderACall(t *testing.T) {
	h := newHost(t, host.Config{Calls: 1})
	good := oneRecord("k")
	m := compile(t, h, newGuest().has(textAt, good).does(abi.ExportSave, drain, emitFrom(textAt, len(good)), constI32(0)).bytes())
	gone := make(chan struct{})
	t.Run("under", func(t *testing.T) {
		go func() {
			defer close(gone)
			_ = m.Save(context.Background(), abi.Call{}, bytes.NewReader(nil), sinkFunc(func(*record.Batch) error {
				runtime.Goexit()
				return nil
			}))
		}()
		<-gone
	})
	if err := within(t, "the next call", func() error { _, err := perform(t.Context(), m, abi.OpSave, nil); return err }); err != nil {
		t.Error(err)
	}
	if err := within(t, "Close", func() error { return h.Close(context.Background()) }); err != nil {
		t.Error(err)
	}
}

// A call that is cancelled before it has ended fails, however seldom its guest comes to the host; and one
// that comes again and again ends, though the host looks at the context now and then only.
func TestCancelledUnderACall(t *testing.T) {
	one := oneRecord("k")
	const seldom, often = 3, 1 << 30
	for name, c := range map[string]struct{ reads int }{"seldom": {seldom}, "often": {often}} {
		for _, engine := range []string{"compiled", "interpreted"} {
			t.Run(name+"/"+engine, func(t *testing.T) {
				m := compile(t, newHost(t, host.Config{Interpreter: engine == "interpreted"}),
					newGuest().does(abi.ExportLoad, echo(len(one), false), constI32(0)).bytes())
				ctx, cancel := context.WithCancelCause(t.Context())
				why := errors.New("no longer wanted")
				source := &cancelling{batch: batchOf(t, one), cancel: func() { cancel(why) }, left: c.reads}
				err := within(t, "the call", func() error { return m.Load(ctx, abi.Call{Schema: 1}, source, io.Discard) })
				if !errors.Is(err, context.Canceled) || !errors.Is(err, why) {
					t.Errorf("%v", err)
				}
				if after := c.reads - source.left; after > 32 {
					t.Errorf("the guest was given %d batches after the call was cancelled", after)
				}
			})
		}
	}
}

// cancelling gives a batch again and again, left times; the first time it cancels the call.
type cancelling struct {
	batch  *record.Batch
	cancel func()
	left   int
}

func (e *cancelling) ReadBatch() (*record.Batch, error) {
	e.cancel()
	if e.left == 0 {
		return nil, io.EOF
	}
	e.left--
	return e.batch, nil
}
