package host_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"go.uber.org/goleak"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// guestName is what the tests call the modules they compile.
const guestName = "subject"

func newHost(t testing.TB, cfg host.Config) *host.Host {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	h, err := host.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return h
}

func compile(t testing.TB, h *host.Host, wasm []byte) *host.Module {
	t.Helper()
	m, err := h.Compile(t.Context(), guestName, wasm)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func cborOf(v any) []byte {
	b, err := cbor.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// collector is a sink that keeps what it is given.
type collector struct {
	data    []byte
	records int
	batches int
}

func (c *collector) WriteBatch(b *record.Batch) error {
	c.data = append(c.data, b.Data...)
	c.records += b.Len()
	c.batches++
	return nil
}

// sinkFunc is a sink made of a function.
type sinkFunc func(*record.Batch) error

func (f sinkFunc) WriteBatch(b *record.Batch) error { return f(b) }

// sourceFunc is a source made of a function.
type sourceFunc func() (*record.Batch, error)

func (f sourceFunc) ReadBatch() (*record.Batch, error) { return f() }

// perform runs one operation of m over input and returns what it gave out.
func perform(ctx context.Context, m *host.Module, op string, input []byte) ([]byte, error) {
	call := abi.Call{Service: "orders", Part: "store", Schema: 1, From: 1, To: 1, Time: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()}
	var sink collector
	var native bytes.Buffer
	records := record.NewReader(bytes.NewReader(input), 0)
	switch op {
	case abi.OpSave:
		err := m.Save(ctx, call, bytes.NewReader(input), &sink)
		return sink.data, err
	case abi.OpLoad:
		err := m.Load(ctx, call, records, &native)
		return native.Bytes(), err
	case abi.OpMigrate:
		err := m.Migrate(ctx, call, records, &sink)
		return sink.data, err
	case abi.OpInspect:
		err := m.Inspect(ctx, call, records, &native)
		return native.Bytes(), err
	}
	panic(op)
}

var sentinels = []error{abi.ErrCorrupt, abi.ErrVersion, abi.ErrNotFound, abi.ErrLocked, abi.ErrTooLarge}

// wantSentinel holds err against the one sentinel it must wrap, or none.
func wantSentinel(t *testing.T, err, sentinel error) {
	t.Helper()
	for _, s := range sentinels {
		if errors.Is(err, s) != (s == sentinel) {
			t.Errorf("error wraps %q: %v, want %v: %v", s, errors.Is(err, s), sentinel, err)
		}
	}
}

// wantModuleError holds err against what a *host.ModuleError must say.
func wantModuleError(t *testing.T, err error, op string, sentinel error, reason string) {
	t.Helper()
	var me *host.ModuleError
	if !errors.As(err, &me) {
		t.Fatalf("%v (%T), want a *host.ModuleError", err, err)
	}
	wantSentinel(t, err, sentinel)
	if me.Module != guestName || me.Op != op || !strings.Contains(me.Reason, reason) {
		t.Errorf("module %q, op %q, reason %q; want %q, %q and %q in the reason", me.Module, me.Op, me.Reason, guestName, op, reason)
	}
	if strings.Count(err.Error(), guestName) != 1 || strings.ContainsAny(err.Error(), "\n\t\x1b") {
		t.Errorf("the message is no one line that names the module once: %q", err)
	}
}

// journal is a log that a test can read.
type journal struct {
	mu    sync.Mutex
	lines bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lines.Write(p)
}

func (j *journal) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// containing is the lines with s in them.
func (j *journal) containing(s string) (lines []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for line := range strings.Lines(j.lines.String()) {
		if strings.Contains(line, s) {
			lines = append(lines, line)
		}
	}
	return lines
}

// endless is a stream of zeros.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

var _ io.Reader = endless{}
