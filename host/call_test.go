package host_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

var allOps = []string{abi.OpSave, abi.OpLoad, abi.OpMigrate, abi.OpInspect}

func exportOf(op string) string { return "torpor_" + op }

// What a guest does wrong ends its call with an error that blames the module, is never taken for
// damaged state, and leaves the module ready for the next call.
func TestBreaches(t *testing.T) {
	good := oneRecord("k")
	wrongArity := []byte("\x82\x61p\x61k")
	long := append(record.AppendBytesHead(record.AppendText(record.AppendText(record.AppendRecord(nil), "p"), "k"), 5000), make([]byte, 5000)...)
	for _, c := range []struct {
		name     string
		ops      []string // all if nil
		text     []byte   // lies at textAt
		body     code
		sentinel error
		reason   string // %s is the export
	}{
		{"a trap", nil, nil, unreachable, nil, "%s trapped: wasm error: unreachable"},
		{"a division by zero", nil, nil, seq(constI32(1), constI32(0), divS32), nil, "%s trapped: wasm error: integer divide by zero"},
		{"a load outside memory", nil, nil, seq(constI32(-4), loadI32), nil, "%s trapped: wasm error: out of bounds memory access"},
		{"a trap after the output", nil, good, seq(drain, emitFrom(textAt, len(good)), unreachable), nil, "%s trapped: wasm error: unreachable"},
		{"a result of 7", nil, nil, seq(drain, constI32(7)), nil, "%s returned 7 without saying why"},
		{"a result of -1", nil, nil, seq(drain, constI32(-1)), nil, "%s returned -1 without saying why"},

		{"emit outside memory", nil, nil, seq(emitFrom(memoryBytes-3, 4), constI32(0)), nil,
			"what it emitted, 4 bytes at 0x1fffd, lies outside its memory"},
		{"emit far outside memory", nil, nil, seq(emitFrom(-1, 1), constI32(0)), nil, "what it emitted, 1 bytes at 0xffffffff, lies outside its memory"},
		{"emit of 4 GiB", nil, nil, seq(emitFrom(16, -1), constI32(0)), nil, "what it emitted, 4294967295 bytes at 0x10, lies outside its memory"},
		{"next outside memory", nil, nil, seq(constI32(memoryBytes-1), constI32(2), call(next), drop, constI32(0)), nil,
			"the buffer given to next, 2 bytes at 0x1ffff, lies outside its memory"},
		{"next of 4 GiB", nil, nil, seq(constI32(1), constI32(-1), call(next), drop, constI32(0)), nil, "the buffer given to next, 4294967295 bytes"},
		{"next with no room", nil, nil, seq(constI32(bufferAt), constI32(0), call(next), drop, constI32(0)), nil, "called next with room for no byte"},
		{"arg outside memory", nil, nil, seq(constI32(memoryBytes-8), constI32(1000), call(arg), drop, constI32(0)), nil, "the buffer given to arg, "},
		{"fail outside memory", nil, nil, seq(failWith(abi.CodeCorrupt, memoryBytes-1, 2), constI32(2)), nil, "what it gave to fail, 2 bytes at 0x1ffff, lies outside its memory"},
		{"log outside memory", nil, nil, seq(logFrom(abi.LogInfo, memoryBytes, 1), drain, constI32(0)), nil, "what it gave to log, 1 bytes at 0x20000, lies outside its memory"},
		{"an unknown flag", nil, nil, seq(constI32(textAt), constI32(0), constI32(2), call(emit), drop, constI32(0)), nil, "called emit with unknown flags 0x2"},
		{"all flags", nil, nil, seq(constI32(textAt), constI32(0), constI32(-1), call(emit), drop, constI32(0)), nil, "called emit with unknown flags 0xffffffff"},

		{"input not read", nil, nil, constI32(0), nil, "returned before its input had ended"},
		{"input read in part", nil, nil, seq(constI32(bufferAt), constI32(1), call(next), drop, constI32(0)), nil, "returned before its input had ended"},
		{"an output flood", []string{abi.OpSave, abi.OpMigrate}, good, forever(emitFrom(textAt, len(good))), abi.ErrTooLarge, "emitted more than 1048576 bytes"},
		{"a native flood", []string{abi.OpLoad, abi.OpInspect}, nil, forever(emitFrom(0, memoryBytes)), abi.ErrTooLarge, "emitted more than 1048576 bytes"},

		{"no CBOR", []string{abi.OpSave, abi.OpMigrate}, []byte("no CBOR"), seq(drain, emitFrom(textAt, 7), constI32(0)), nil,
			"what it emitted is no record, at offset 0 of 7 bytes: a record is an array of three"},
		{"a record of two", []string{abi.OpSave, abi.OpMigrate}, wrongArity, seq(drain, emitFrom(textAt, len(wrongArity)), constI32(0)), nil,
			"what it emitted is no record, at offset 0 of 5 bytes"},
		{"half a record", []string{abi.OpSave, abi.OpMigrate}, good, seq(drain, emitFrom(textAt, len(good)-1), constI32(0)), nil,
			"what it emitted is no record, at offset 5 of 5 bytes: the input ends inside the record"},
		{"a record and a half", []string{abi.OpSave, abi.OpMigrate}, append(bytes.Clone(good), 0x83), seq(drain, emitFrom(textAt, len(good)+1), constI32(0)), nil,
			"what it emitted is no record, at offset 7 of 7 bytes: the input ends inside the record"},
		{"an indefinite value", []string{abi.OpSave, abi.OpMigrate}, []byte("\x83\x60\x60\x9f\xff"), seq(drain, emitFrom(textAt, 5), constI32(0)), nil,
			"indefinite"},
		{"a value too deep", []string{abi.OpSave, abi.OpMigrate}, append([]byte("\x83\x60\x60"), bytes.Repeat([]byte{0x81}, 70)...), seq(drain, emitFrom(textAt, 73), constI32(0)),
			abi.ErrTooLarge, "a record that passes a limit, at offset 67 of 73 bytes: nested deeper than 64"},
		{"a record too long", []string{abi.OpSave, abi.OpMigrate}, long, seq(drain, emitFrom(textAt, len(long)), constI32(0)),
			abi.ErrTooLarge, "a record that passes a limit, at offset 0 of 5008 bytes: 5008 bytes; the limit is 4096"},
		{"a record too long, in fragments", []string{abi.OpSave, abi.OpMigrate}, long, seq(drain, emitMore(textAt, 3000), emitMore(textAt+3000, 1000), emitMore(textAt+4000, 97), constI32(0)),
			abi.ErrTooLarge, "emitted a record of more than 4096 bytes"},
		{"a record without end, in fragments", []string{abi.OpSave, abi.OpMigrate}, good, forever(emitMore(textAt, 1)),
			abi.ErrTooLarge, "emitted a record of more than 4096 bytes"},
		{"fragments that make two records", []string{abi.OpSave, abi.OpMigrate}, append(bytes.Clone(good), good...), seq(drain, emitMore(textAt, 3), emitFrom(textAt+3, 2*len(good)-3), constI32(0)), nil,
			"the fragments it emitted make more than one record"},
		{"fragments that make half a record", []string{abi.OpSave, abi.OpMigrate}, good, seq(drain, emitMore(textAt, 3), emitFrom(textAt+3, 2), constI32(0)), nil,
			"what it emitted is no record, at offset 5 of 5 bytes: the input ends inside"},
		{"a fragment open at the end", []string{abi.OpSave, abi.OpMigrate}, good, seq(drain, emitMore(textAt, 3), constI32(0)), nil,
			"returned with a record emitted in part"},
		{"a whole record said to go on", []string{abi.OpSave, abi.OpMigrate}, good, seq(drain, emitMore(textAt, len(good)), constI32(0)), nil,
			"returned with a record emitted in part"},
		{"fragments of native state", []string{abi.OpLoad, abi.OpInspect}, good, seq(drain, emitMore(textAt, 3), constI32(0)), nil,
			"emitted a fragment where output has no records"},
		{"a stack without end", []string{abi.OpSave}, nil, nil, nil, "%s trapped: stack overflow"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t, host.Config{Limits: host.Limits{OutputBytes: host.MinOutputBytes, RecordBytes: 4096}})
			ops := c.ops
			if ops == nil {
				ops = allOps
			}
			for _, op := range ops {
				g := newGuest().has(textAt, c.text)
				body := c.body
				if body == nil { // a function that calls itself
					body = call(firstOwn + len(g.funcs) - 1)
				}
				m := compile(t, h, g.does(exportOf(op), body).bytes())
				_, err := perform(t.Context(), m, op, oneRecord("in"))
				reason := c.reason
				if strings.Contains(reason, "%s") {
					reason = fmt.Sprintf(reason, exportOf(op))
				}
				wantModuleError(t, err, op, c.sentinel, reason)
				for _, other := range allOps {
					if other == op {
						continue
					}
					if _, err := perform(t.Context(), m, other, oneRecord("in")); err != nil {
						t.Errorf("%s after a breach of %s: %v", other, op, err)
					}
				}
			}
		})
	}
}

// What a module does before its call is bounded in the same ways.
func TestInitializeBreaches(t *testing.T) {
	good := oneRecord("k")
	f := cborOf(abi.Failure{Msg: "not today"})
	for _, c := range []struct {
		name     string
		body     code
		sentinel error
		reason   string
	}{
		{"a trap", unreachable, nil, "_initialize trapped: wasm error: unreachable"},
		{"reading", seq(drain), nil, "_initialize called next, which belongs to a call"},
		{"writing", seq(emitFrom(textAt, len(good))), nil, "_initialize called emit, which belongs to a call"},
		{"asking what it is called with", seq(constI32(textAt), constI32(64), call(arg), drop), nil, "_initialize called arg, which belongs to a call"},
		{"logging without end", seq(forever(logFrom(abi.LogInfo, textAt, 1))), abi.ErrTooLarge, "ran for longer than 100ms"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t, host.Config{Limits: host.Limits{CallTime: host.MinCallTime}})
			g := newGuest().has(textAt, good).initializes(c.body)
			_, err := h.Compile(t.Context(), guestName, g.bytes())
			wantModuleError(t, err, opCompile, c.sentinel, c.reason)
		})
	}
	t.Run("failing", func(t *testing.T) {
		h := newHost(t, host.Config{})
		g := newGuest().has(textAt, f).initializes(failWith(abi.CodeVersion, textAt, len(f)), unreachable)
		_, err := h.Compile(t.Context(), guestName, g.bytes())
		var ge *host.GuestError
		if !errors.As(err, &ge) || ge.Failure.Msg != "not today" || !errors.Is(err, abi.ErrVersion) {
			t.Error(err)
		}
	})
	t.Run("running, and once", func(t *testing.T) {
		j := &journal{}
		h := newHost(t, host.Config{Logger: j.logger()})
		m := compile(t, h, newGuest().has(textAt, []byte("up")).initializes(logFrom(abi.LogInfo, textAt, 2)).bytes())
		if _, err := perform(t.Context(), m, abi.OpSave, nil); err != nil {
			t.Fatal(err)
		}
		if got := j.containing("serializer: up"); len(got) != 1 {
			t.Errorf("%d lines: %q", len(got), got)
		}
	})
}

func TestFailures(t *testing.T) {
	said := abi.Failure{Msg: "shard 7 is missing", Path: "$.streams.orders", Offset: 1234}
	whole := cborOf(said)
	const all = "shard 7 is missing at $.streams.orders (offset 1234)"
	for _, c := range []struct {
		name     string
		code     abi.Code
		text     []byte
		then     code // after fail
		failure  abi.Failure
		sentinel error
		message  string
	}{
		{"internal", abi.CodeInternal, whole, constI32(1), said, nil, all},
		{"corrupt", abi.CodeCorrupt, whole, constI32(2), said, abi.ErrCorrupt, all},
		{"version", abi.CodeVersion, whole, constI32(3), said, abi.ErrVersion, all},
		{"unsupported", abi.CodeUnsupported, whole, constI32(4), said, nil, all},
		{"too large", abi.CodeTooLarge, whole, constI32(5), said, abi.ErrTooLarge, all},
		{"its own code", 77, whole, constI32(77), said, nil, all},
		{"a negative code", -2, whole, constI32(1), said, nil, all},
		{"then 0", abi.CodeCorrupt, whole, seq(drain, constI32(0)), said, abi.ErrCorrupt, all},
		{"then a trap, as a panic handler does", abi.CodeInternal, whole, unreachable, said, nil, all},
		{"then another, which does not count", abi.CodeCorrupt, whole, seq(failWith(abi.CodeVersion, textAt, 0), constI32(3)), said, abi.ErrCorrupt, all},
		{"corrupt at the first byte", abi.CodeCorrupt, cborOf(map[string]string{"msg": "bad"}), constI32(2),
			abi.Failure{Msg: "bad"}, abi.ErrCorrupt, "bad (offset 0)"},
		{"without an offset", abi.CodeInternal, cborOf(map[string]string{"msg": "bad"}), constI32(1), abi.Failure{Msg: "bad"}, nil, "bad"},
		{"no message", abi.CodeUnsupported, cborOf(map[string]string{"path": "$"}), constI32(4),
			abi.Failure{Msg: "it failed with code 4 and no message", Path: "$"}, nil, "it failed with code 4 and no message at $"},
		{"keys it does not know", abi.CodeInternal, cborOf(map[string]any{"msg": "m", "hint": []int{1}}), constI32(1), abi.Failure{Msg: "m"}, nil, "m"},
		{"a message that steers a terminal", abi.CodeInternal, cborOf(abi.Failure{Msg: "a\nb\x1b[31m", Path: "p\tq"}), constI32(1),
			abi.Failure{Msg: "a\nb\x1b[31m", Path: "p\tq"}, nil, "a b [31m at p q"},
		{"garbage", abi.CodeVersion, []byte{0xff, 0xff}, constI32(3), abi.Failure{}, abi.ErrVersion, "it failed with code 3 and a message that is no CBOR map: "},
		{"nothing", abi.CodeCorrupt, nil, constI32(2), abi.Failure{}, abi.ErrCorrupt, "it failed with code 2 and a message that is no CBOR map: "},
		{"not UTF-8", abi.CodeCorrupt, []byte("\xa1\x63msg\x61\xff"), constI32(2), abi.Failure{}, abi.ErrCorrupt, "it failed with code 2 and a message that is no CBOR map: "},
		{"too long", abi.CodeCorrupt, cborOf(map[string]string{"msg": strings.Repeat("x", 16384)}), constI32(2),
			abi.Failure{}, abi.ErrCorrupt, "it failed with code 2 and a message of 16392 bytes; the limit is 16384 (offset 0)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t, host.Config{})
			m := compile(t, h, newGuest().has(textAt, c.text).does(abi.ExportSave, failWith(c.code, textAt, len(c.text)), c.then).bytes())
			_, err := perform(t.Context(), m, abi.OpSave, nil)
			var ge *host.GuestError
			if !errors.As(err, &ge) {
				t.Fatalf("%v (%T), want a *host.GuestError", err, err)
			}
			if ge.Module != guestName || ge.Op != abi.OpSave || ge.Code != c.code {
				t.Errorf("module %q, op %q, code %d", ge.Module, ge.Op, ge.Code)
			}
			if c.failure.Msg != "" && ge.Failure != c.failure {
				t.Errorf("failure %+v, want %+v", ge.Failure, c.failure)
			}
			wantSentinel(t, err, c.sentinel)
			want := "serializer " + guestName + ": save: " + c.message
			if err.Error() != want && (c.failure.Msg != "" || !strings.HasPrefix(err.Error(), want)) {
				t.Errorf("message %q, want %q", err, want)
			}
		})
	}
}

// An error of what a call reads or writes comes out as it is, whatever the guest makes of it.
func TestErrorsOfInputAndOutput(t *testing.T) {
	h := newHost(t, host.Config{})
	reads := compile(t, h, newGuest().bytes())
	good := oneRecord("k")
	writes := compile(t, h, newGuest().has(textAt, good).does(abi.ExportSave, drain, emitFrom(textAt, len(good)), constI32(0)).
		does(abi.ExportMigrate, drain, emitFrom(textAt, len(good)), constI32(0)).
		does(abi.ExportLoad, drain, emitFrom(textAt, 1), constI32(0)).
		does(abi.ExportInspect, drain, emitFrom(textAt, 1), constI32(0)).bytes())
	call := abi.Call{Schema: 1, From: 1, To: 1}
	for _, broken := range []error{
		errors.New("the cable is out"),
		io.ErrUnexpectedEOF,
		fmt.Errorf("fetch state: %w", io.EOF),
		fmt.Errorf("chunk 3: %w", abi.ErrCorrupt),
		errBreaking("close to a breach"),
	} {
		reader := func() io.Reader {
			return io.MultiReader(bytes.NewReader(make([]byte, 100_000)), iotest.ErrReader(broken))
		}
		source := func() record.Source {
			first := true
			return sourceFunc(func() (*record.Batch, error) {
				if !first {
					return nil, broken
				}
				first = false
				return batchOf(t, good), nil
			})
		}
		sink := sinkFunc(func(*record.Batch) error { return broken })
		writer := writerFunc(func([]byte) (int, error) { return 0, broken })
		for name, err := range map[string]error{
			"save from a broken reader":    reads.Save(t.Context(), call, reader(), &collector{}),
			"load from a broken source":    reads.Load(t.Context(), call, source(), io.Discard),
			"migrate from a broken source": reads.Migrate(t.Context(), call, source(), &collector{}),
			"inspect from a broken source": reads.Inspect(t.Context(), call, source(), io.Discard),
			"save to a broken sink":        writes.Save(t.Context(), call, bytes.NewReader(nil), sink),
			"migrate to a broken sink":     writes.Migrate(t.Context(), call, record.NewReader(bytes.NewReader(nil), 0), sink),
			"load to a broken writer":      writes.Load(t.Context(), call, record.NewReader(bytes.NewReader(nil), 0), writer),
			"inspect to a broken writer":   writes.Inspect(t.Context(), call, record.NewReader(bytes.NewReader(nil), 0), writer),
		} {
			if err != broken {
				t.Errorf("%s: %v, want %v", name, err, broken)
			}
		}
	}
}

type errBreaking string

func (e errBreaking) Error() string { return string(e) }

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// batchOf is data as one batch.
func batchOf(t testing.TB, data []byte) *record.Batch {
	t.Helper()
	var s record.Scanner
	refs, err := s.Scan(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &record.Batch{Data: data, Refs: refs}
}

// A panic in the caller's own code is not taken for the module's.
func TestPanicsOfInputAndOutput(t *testing.T) {
	j := &journal{}
	h := newHost(t, host.Config{Logger: j.logger()})
	good := oneRecord("k")
	m := compile(t, h, newGuest().has(textAt, good).does(abi.ExportSave, drain, emitFrom(textAt, len(good)), constI32(0)).bytes())
	for what, err := range map[string]error{
		"reading its input": m.Load(t.Context(), abi.Call{}, sourceFunc(func() (*record.Batch, error) {
			var b *record.Batch
			return b.Clone(), nil
		}), io.Discard),
		"writing its output": m.Save(t.Context(), abi.Call{}, bytes.NewReader(nil), sinkFunc(func(*record.Batch) error { panic("no room in the ark") })),
	} {
		var me *host.ModuleError
		if err == nil || errors.As(err, &me) || !strings.Contains(err.Error(), "panic while the host was "+what) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if lines := j.containing("panic under a serializer's call"); len(lines) != 2 || !strings.Contains(lines[0]+lines[1], "call_test.go") {
		t.Errorf("the log does not say where: %q", lines)
	}
}

// However input arrives, a guest sees full buffers, and the end once.
func TestNativeInputFillsBuffers(t *testing.T) {
	const size = 10_000
	h := newHost(t, host.Config{})
	// Emits, for each next with room for 4,096 bytes, a record whose key is the result as 8 bytes.
	at := textAt
	head := []byte("\x83\x60\x48________\xf6")
	m := compile(t, h, newGuest().has(at, head).does(abi.ExportSave,
		loop(
			constI32(bufferAt), constI32(4096), call(next), set(0),
			constI32(int32(at+3)), get(0), storeI64,
			emitFrom(at, len(head)),
			get(0), constI64(abi.NextEnd), and64, eqz64,
		), constI32(0)).bytes())
	data := bytes.Repeat([]byte("0123456789"), size/10)
	want := []int64{4096, 4096, (size - 2*4096) | abi.NextEnd}
	for name, how := range map[string]func(io.Reader) io.Reader{
		"whole":         func(r io.Reader) io.Reader { return r },
		"one byte":      iotest.OneByteReader,
		"halves":        iotest.HalfReader,
		"data with EOF": iotest.DataErrReader,
	} {
		var sink collector
		if err := m.Save(t.Context(), abi.Call{}, how(bytes.NewReader(data)), &sink); err != nil {
			t.Fatal(err)
		}
		var got []int64
		for d := record.NewPull(sink.data); d.Offset() < len(sink.data); d.Skip() {
			d.Array()
			d.Text()
			var v int64
			for i, b := range d.Bytes() {
				v |= int64(b) << (8 * i)
			}
			got = append(got, v)
		}
		if fmt.Sprintf("%x", got) != fmt.Sprintf("%x", want) {
			t.Errorf("%s: next gave %x, want %x", name, got, want)
		}
	}
}

// Fragments of one record make one record, however many there are, the last one empty or not; zero
// bytes without a fragment mean nothing.
func TestFragments(t *testing.T) {
	h := newHost(t, host.Config{})
	good := oneRecord("key")
	g := newGuest().has(textAt, good).does(abi.ExportSave, drain,
		emitFrom(textAt, 0),
		emitMore(textAt, 1), emitMore(textAt+1, 3), emitMore(textAt+4, 0), emitFrom(textAt+4, len(good)-4),
		emitFrom(textAt, len(good)),
		emitMore(textAt, len(good)), emitFrom(textAt, 0),
		emitFrom(textAt, 0),
		constI32(0))
	var sink collector
	if err := compile(t, h, g.bytes()).Save(t.Context(), abi.Call{}, bytes.NewReader(nil), &sink); err != nil {
		t.Fatal(err)
	}
	if sink.records != 3 || sink.batches != 3 || !bytes.Equal(sink.data, bytes.Repeat(good, 3)) {
		t.Errorf("%d records in %d batches: %q", sink.records, sink.batches, sink.data)
	}
}

// Records larger than a guest's buffer come to it in fragments and leave it in fragments; smaller ones
// come whole, as many as there is room for.
func TestRecordsThroughSmallBuffers(t *testing.T) {
	var input []byte
	for i, n := range []int{0, 10, 5000, 63, 64, 65, 128, 40_000, 1, 700} {
		input = record.AppendText(record.AppendRecord(input), "p")
		input = record.AppendText(input, fmt.Sprint("k", i))
		input = record.AppendBytes(input, bytes.Repeat([]byte{byte(i)}, n))
	}
	h := newHost(t, host.Config{})
	for _, room := range []int{1, 2, 7, 64, 100, 4096, bufferCap} {
		m := compile(t, h, newGuest().does(abi.ExportMigrate, echo(room, true), constI32(0)).does(abi.ExportLoad, echo(room, false), constI32(0)).bytes())
		out, err := perform(t.Context(), m, abi.OpMigrate, input)
		if err != nil || !bytes.Equal(out, input) {
			t.Errorf("migrate through %d bytes: %d of %d bytes, %v", room, len(out), len(input), err)
		}
		out, err = perform(t.Context(), m, abi.OpLoad, input)
		if err != nil || !bytes.Equal(out, input) {
			t.Errorf("load through %d bytes: %d of %d bytes, %v", room, len(out), len(input), err)
		}
	}
}

func TestArg(t *testing.T) {
	// Emits what arg wrote, and before it one byte more than arg said it needs.
	h := newHost(t, host.Config{})
	m := compile(t, h, newGuest().does(abi.ExportLoad, drain,
		constI32(bufferAt), constI32(5), call(arg), set(1), // too little room: nothing is written
		constI32(bufferAt), constI32(5), constI32(0), call(emit), drop,
		constI32(bufferAt), get(1), call(arg), drop,
		constI32(bufferAt), get(1), constI32(0), call(emit), drop,
		constI32(0)).bytes())
	call := abi.Call{Service: "orders", Part: "store", Schema: 3, Time: -1, Settings: map[string]any{"b": 1, "a": "x"}}
	var first []byte
	for range 5 {
		var out bytes.Buffer
		if err := m.Load(t.Context(), call, record.NewReader(bytes.NewReader(nil), 0), &out); err != nil {
			t.Fatal(err)
		}
		// In canonical order: shorter keys first, then bytewise.
		want := "\x00\x00\x00\x00\x00" + "\xa6\x62op\x64load\x64part\x65store\x64time\x20\x66schema\x03\x67service\x66orders\x68settings\xa2\x61a\x61x\x61b\x01"
		if out.String() != want {
			t.Fatalf("%q, want %q", out.String(), want)
		}
		if first == nil {
			first = out.Bytes()
		}
	}
	for name, c := range map[string]struct {
		settings map[string]any
		sentinel error
		reason   string
	}{
		"too large":         {map[string]any{"a": strings.Repeat("x", 65536)}, abi.ErrTooLarge, "the limit is 65536"},
		"not to be encoded": {map[string]any{"a": make(chan int)}, nil, "settings cannot be encoded"},
	} {
		err := m.Load(t.Context(), abi.Call{Settings: c.settings}, record.NewReader(bytes.NewReader(nil), 0), io.Discard)
		t.Run(name, func(t *testing.T) { wantModuleError(t, err, abi.OpLoad, c.sentinel, c.reason) })
	}
}

// wazero leaves in the upper half of an i32 argument's slot what was there, such as the bits of next's
// last result: none of it may reach the host's arithmetic.
func TestArgumentsAfterNext(t *testing.T) {
	j := &journal{}
	h := newHost(t, host.Config{Logger: j.logger()})
	f := cborOf(abi.Failure{Msg: "m"})
	good := oneRecord("k")
	n := constI32
	before := seq(n(bufferAt), n(16), call(next), drop) // leaves the bit that says end
	m := compile(t, h, newGuest().has(textAt, f).has(textAt+100, good).
		does(abi.ExportSave, drain,
			before, n(abi.LogWarn), n(textAt+1), n(4), call(logLine),
			before, n(bufferAt), n(0x1000), call(arg), drop,
			before, n(textAt+100), n(3), n(1), call(emit), drop,
			before, n(textAt+103), n(int32(len(good)-3)), n(0), call(emit), drop,
			n(0)).
		does(abi.ExportLoad, drain, before, n(2), n(textAt), n(int32(len(f))), call(fail), n(2)).bytes())
	out, err := perform(t.Context(), m, abi.OpSave, []byte("input"))
	if err != nil || !bytes.Equal(out, good) {
		t.Errorf("%q, %v", out, err)
	}
	if lines := j.containing("serializer: cmsg\""); len(lines) != 1 || !strings.Contains(lines[0], "level=WARN") {
		t.Errorf("%q", j.containing("serializer"))
	}
	_, err = perform(t.Context(), m, abi.OpLoad, nil)
	var ge *host.GuestError
	if !errors.As(err, &ge) || ge.Code != abi.CodeCorrupt || ge.Failure.Msg != "m" {
		t.Error(err)
	}
}

func TestLog(t *testing.T) {
	long := strings.Repeat("long ", 300)
	j := &journal{}
	h := newHost(t, host.Config{Logger: j.logger(), Limits: host.Limits{LogLines: 6}})
	text := "tidy\nx\x1b[31m\xff\xc3\xa9"
	m := compile(t, h, newGuest().has(textAt, []byte(text)).has(textAt+100, []byte(long)).does(abi.ExportSave,
		logFrom(abi.LogDebug, textAt, 4), logFrom(abi.LogInfo, textAt, 5), logFrom(abi.LogWarn, textAt, len(text)),
		logFrom(abi.LogError, textAt+100, len(long)), logFrom(99, textAt, 1), logFrom(abi.LogInfo, textAt, 0),
		logFrom(abi.LogError, textAt, 4), logFrom(abi.LogError, textAt, 4),
		drain, constI32(0)).bytes())
	if _, err := perform(t.Context(), m, abi.OpSave, nil); err != nil {
		t.Fatal(err)
	}
	got := j.containing("serializer:")
	want := []string{
		`level=DEBUG msg="serializer: tidy"`,
		`level=INFO msg="serializer: tidy"`,
		`level=WARN msg="serializer: tidy x [31m�é"`,
		`level=ERROR msg="serializer: ` + long[:abi.MaxLogBytes] + `"`,
		`level=DEBUG msg="serializer: t"`,
		`level=INFO msg="serializer: "`,
	}
	if len(got) != len(want) {
		t.Fatalf("%d lines, want %d: %q", len(got), len(want), got)
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]+" module="+guestName+" op=save") {
			t.Errorf("line %d is %q, want %q in it", i, got[i], want[i])
		}
	}
	if dropped := j.containing("serializer log lines dropped"); len(dropped) != 1 || !strings.Contains(dropped[0], "dropped=2") {
		t.Errorf("%q", dropped)
	}
}

func TestStandardOutputIsLogged(t *testing.T) {
	j := &journal{}
	h := newHost(t, host.Config{Logger: j.logger(), Limits: host.Limits{LogLines: 3}})
	g := newGuest()
	g, write := g.importing("wasi_snapshot_preview1", "fd_write", []byte{i32, i32, i32, i32}, []byte{i32})
	// One vector: its address and length; the count of bytes written goes to 0.
	long := strings.Repeat("y", 5000)
	vec := func(at, n int) []byte {
		return []byte{byte(at), byte(at >> 8), 0, 0, byte(n), byte(n >> 8), 0, 0}
	}
	print := func(fd, vec int) code {
		return seq(constI32(int32(fd)), constI32(int32(vec)), constI32(1), constI32(0), call(write), drop)
	}
	g.has(textAt, []byte("hello\r\n")).has(textAt+100, []byte(long)).has(16, vec(textAt, 7)).has(32, vec(textAt+100, len(long)))
	g.does(abi.ExportSave, drain, print(1, 16), print(2, 32), print(7, 16), print(2, 16), print(2, 16), constI32(0))
	if _, err := perform(t.Context(), compile(t, h, g.bytes()), abi.OpSave, nil); err != nil {
		t.Fatal(err)
	}
	got := j.containing("serializer: ")
	want := []string{`level=INFO msg="serializer: hello" `, `level=WARN msg="serializer: ` + long[:abi.MaxLogBytes] + `" `, `level=WARN msg="serializer: hello" `}
	if len(got) != len(want) {
		t.Fatalf("%d lines: %q", len(got), got)
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("line %d is %q, want %q in it", i, got[i], want[i])
		}
	}
	if dropped := j.containing("dropped=1"); len(dropped) != 1 {
		t.Errorf("%q", dropped)
	}
}

// There is nothing of the outside world: no arguments, no variables, no input, no files.
func TestNothingOutside(t *testing.T) {
	t.Setenv("TORPOR_SECRET", "x")
	h := newHost(t, host.Config{})
	g := newGuest()
	var body code
	// Each result goes to a word of its own.
	words := 0
	ask := func(name string, params []byte, args ...code) {
		var f int
		g, f = g.importing("wasi_snapshot_preview1", name, params, []byte{i32})
		body = seq(body, constI32(int32(textAt+4*words)), seq(args...), call(f), storeI32)
		words++
	}
	n, counts := constI32, textAt+1000
	ask("args_sizes_get", []byte{i32, i32}, n(int32(counts)), n(int32(counts+4)))
	ask("environ_sizes_get", []byte{i32, i32}, n(int32(counts+8)), n(int32(counts+12)))
	ask("fd_read", []byte{i32, i32, i32, i32}, n(0), n(16), n(1), n(int32(counts+16)))
	ask("fd_read", []byte{i32, i32, i32, i32}, n(3), n(16), n(1), n(int32(counts+20)))
	ask("fd_prestat_get", []byte{i32, i32}, n(3), n(int32(counts+24)))
	ask("fd_write", []byte{i32, i32, i32, i32}, n(3), n(16), n(1), n(int32(counts+28)))
	ask("fd_close", []byte{i32}, n(3))
	g.has(16, []byte{0, 0x20, 0, 0, 64, 0, 0, 0}) // a vector of 64 bytes at 0x2000
	g.has(counts, bytes.Repeat([]byte{0xff}, 8)).has(counts+8, bytes.Repeat([]byte{0xff}, 12))
	m := compile(t, h, g.does(abi.ExportLoad, drain, body, emitFrom(textAt, 4*words), emitFrom(counts, 20), constI32(0)).bytes())
	out, err := perform(t.Context(), m, abi.OpLoad, nil)
	if err != nil {
		t.Fatal(err)
	}
	const badf = 8 // of WASI's error numbers
	want := []byte{
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, badf, 0, 0, 0, badf, 0, 0, 0, badf, 0, 0, 0, badf, 0, 0, 0, // results
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // counts, and bytes read
	}
	if !bytes.Equal(out, want) {
		t.Errorf("% x, want % x", out, want)
	}
}

func TestProcessExit(t *testing.T) {
	h := newHost(t, host.Config{})
	for _, status := range []int{0, 3} {
		g, exit := newGuest().importing("wasi_snapshot_preview1", "proc_exit", []byte{i32}, nil)
		m := compile(t, h, g.does(abi.ExportSave, drain, constI32(int32(status)), call(exit), constI32(0)).bytes())
		_, err := perform(t.Context(), m, abi.OpSave, nil)
		wantModuleError(t, err, abi.OpSave, nil, fmt.Sprintf("torpor_save ended the process with exit code %d", status))
	}
	g, exit := newGuest().importing("wasi_snapshot_preview1", "proc_exit", []byte{i32}, nil)
	_, err := h.Compile(t.Context(), guestName, g.initializes(constI32(1), call(exit)).bytes())
	wantModuleError(t, err, opCompile, nil, "_initialize ended the process with exit code 1")
}

// The deadline, the caller and Close each end a guest that keeps calling the host, and so does each of
// them before it begins.
func TestEndingACall(t *testing.T) {
	clock := func(g *guest) (*guest, code) {
		g, f := g.importing("wasi_snapshot_preview1", "clock_time_get", []byte{i32, i64, i32}, []byte{i32})
		return g, forever(constI32(1), constI64(1), constI32(0), call(f), drop)
	}
	yield := func(g *guest) (*guest, code) {
		g, f := g.importing("wasi_snapshot_preview1", "sched_yield", nil, []byte{i32})
		return g, forever(call(f), drop)
	}
	with := func(c code) func(g *guest) (*guest, code) { return func(g *guest) (*guest, code) { return g, c } }
	busy := map[string]func(g *guest) (*guest, code){
		"next":  with(forever(constI32(bufferAt), constI32(1), call(next), drop)),
		"emit":  with(forever(emitFrom(0, 0))),
		"arg":   with(forever(constI32(0), constI32(0), call(arg), drop)),
		"log":   with(forever(logFrom(0, 0, 0))),
		"fail":  with(forever(failWith(1, 0, 0))),
		"clock": clock,
		"yield": yield,
	}
	for name, body := range busy {
		t.Run(name, func(t *testing.T) {
			limited := newHost(t, host.Config{Limits: host.Limits{CallTime: host.MinCallTime}})
			h := newHost(t, host.Config{})
			g, c := body(newGuest())
			wasm := g.does(abi.ExportSave, c).bytes()
			m := compile(t, h, wasm)
			save := func(ctx context.Context) error {
				return m.Save(ctx, abi.Call{}, endless{}, &collector{})
			}

			_, err := perform(t.Context(), compile(t, limited, wasm), abi.OpSave, nil)
			wantModuleError(t, err, abi.OpSave, abi.ErrTooLarge, "ran for longer than 100ms")

			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(20*time.Millisecond, cancel)
			if err := save(ctx); !errors.Is(err, context.Canceled) || err.Error() != "serializer subject: save: context canceled" {
				t.Errorf("cancelled: %v", err)
			}
			if err := save(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled before: %v", err)
			}

			ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			if err := save(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("past the caller's deadline: %v", err)
			}

			why := errors.New("the operator said stop")
			ctx, stop := context.WithCancelCause(t.Context())
			time.AfterFunc(20*time.Millisecond, func() { stop(why) })
			if err := save(ctx); !errors.Is(err, context.Canceled) || !errors.Is(err, why) {
				t.Errorf("cancelled with a cause: %v", err)
			}

			time.AfterFunc(20*time.Millisecond, func() {
				if err := h.Close(context.Background()); err != nil {
					t.Error(err)
				}
			})
			if err := save(t.Context()); err == nil || !strings.Contains(err.Error(), "the module host is closed") {
				t.Errorf("closed: %v", err)
			}
		})
	}
}

func TestClose(t *testing.T) {
	h := newHost(t, host.Config{})
	m := compile(t, h, newGuest().bytes())
	inside, release := make(chan struct{}), make(chan struct{})
	saved := make(chan error)
	go func() { // a call that is in its source's hands
		saved <- m.Load(context.Background(), abi.Call{}, sourceFunc(func() (*record.Batch, error) {
			close(inside)
			<-release
			return nil, io.EOF
		}), io.Discard)
	}()
	<-inside
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Close(ctx); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "still runs") {
		t.Errorf("while a call runs: %v", err)
	}
	if _, err := h.Compile(t.Context(), guestName, newGuest().bytes()); err == nil || !strings.Contains(err.Error(), "is closed") {
		t.Errorf("compile after Close: %v", err)
	}
	if err := m.Save(t.Context(), abi.Call{}, bytes.NewReader(nil), &collector{}); err == nil || !strings.Contains(err.Error(), "is closed") {
		t.Errorf("save after Close: %v", err)
	}
	close(release)
	<-saved
	for range 2 {
		if err := h.Close(ctx); err != nil {
			t.Errorf("with no call left: %v", err)
		}
	}
}

// One clock and one sequence of random numbers for every call.
func TestDeterminism(t *testing.T) {
	h := newHost(t, host.Config{})
	g := newGuest()
	g, clock := g.importing("wasi_snapshot_preview1", "clock_time_get", []byte{i32, i64, i32}, []byte{i32})
	g, random := g.importing("wasi_snapshot_preview1", "random_get", []byte{i32, i32}, []byte{i32})
	read := func(id, at int) code {
		return seq(constI32(int32(id)), constI64(1), constI32(int32(at)), call(clock), drop)
	}
	g.does(abi.ExportLoad, drain,
		read(0, textAt), read(0, textAt+8), // the wall clock, twice
		read(1, textAt+16), read(1, textAt+24), read(1, textAt+32), // the monotonic one, three times
		constI32(textAt+40), constI32(32), call(random), drop,
		emitFrom(textAt, 72), constI32(0))
	m := compile(t, h, g.bytes())
	at := time.Date(2026, 2, 3, 4, 5, 6, 789, time.UTC)
	load := func(at time.Time) []byte {
		var out bytes.Buffer
		if err := m.Load(t.Context(), abi.Call{Time: at.UnixNano()}, record.NewReader(bytes.NewReader(nil), 0), &out); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	first := load(at)
	u64 := func(b []byte, at int) (v uint64) {
		for i := range 8 {
			v |= uint64(b[at+i]) << (8 * i)
		}
		return v
	}
	if u64(first, 0) != uint64(at.UnixNano()) || u64(first, 8) != uint64(at.UnixNano()) {
		t.Errorf("wall clock %d, then %d, want %d", u64(first, 0), u64(first, 8), at.UnixNano())
	}
	for i := range 2 {
		if step := u64(first, 24+8*i) - u64(first, 16+8*i); step != 1000 {
			t.Errorf("monotonic clock steps %d ns", step)
		}
	}
	if random := first[40:]; bytes.Equal(random, make([]byte, 32)) || bytes.Equal(random[:16], random[16:]) {
		t.Errorf("random numbers % x", random)
	}
	if again := load(at); !bytes.Equal(again, first) {
		t.Errorf("% x, then % x", first, again)
	}
	if later := load(at.Add(time.Hour)); bytes.Equal(later[:8], first[:8]) || !bytes.Equal(later[16:], first[16:]) {
		t.Errorf("% x, an hour later % x", first, later)
	}
}

func TestMemoryLimit(t *testing.T) {
	const limit = 4 << 20
	watch := &watcher{}
	h := newHost(t, host.Config{Limits: host.Limits{MemoryBytes: limit}, Observer: watch})
	// Grows by a page at a time until it cannot, and emits the pages it has as a byte.
	m := compile(t, h, newGuest().does(abi.ExportLoad, drain,
		loop(constI32(1), growMemory, constI32(-1), ne32),
		constI32(textAt), sizeMemory, storeI32,
		emitFrom(textAt, 4), constI32(0)).bytes())
	out, err := perform(t.Context(), m, abi.OpLoad, nil)
	if err != nil || len(out) != 4 || int(out[0]) != limit>>16 {
		t.Errorf("% x, %v", out, err)
	}
	if c := watch.last(); c.cost.Memory != limit {
		t.Errorf("cost %+v", c)
	}
	// One that asks for 4 GiB gets nothing, and may go on.
	m = compile(t, h, newGuest().does(abi.ExportLoad, drain, constI32(math.MaxInt32), growMemory, constI32(1), add32).bytes())
	if _, err := perform(t.Context(), m, abi.OpLoad, nil); err != nil {
		t.Error(err)
	}
	if c := watch.last(); c.cost.Memory != memoryBytes {
		t.Errorf("cost %+v", c)
	}
	// What a call made larger after the host had looked at it, the host sees; and no more than that.
	const newByte = memoryBytes + 7
	grown := seq(drain, emitFrom(textAt, 1), constI32(1), growMemory, drop, constI32(newByte), constI32(77), storeI32, emitFrom(newByte, 1))
	m = compile(t, h, newGuest().does(abi.ExportLoad, grown, constI32(0)).does(abi.ExportSave, grown, emitFrom(memoryBytes+1<<16-1, 2), constI32(0)).bytes())
	if out, err := perform(t.Context(), m, abi.OpLoad, nil); err != nil || len(out) != 2 || out[1] != 77 {
		t.Errorf("% x, %v", out, err)
	}
	_, err = perform(t.Context(), m, abi.OpSave, nil)
	wantModuleError(t, err, abi.OpSave, nil, "")
	// What one call wrote, the next does not see.
	m = compile(t, h, newGuest().does(abi.ExportLoad, drain, emitFrom(textAt, 1), constI32(textAt), constI32(-1), storeI32, constI32(0)).bytes())
	for range 2 {
		if out, err := perform(t.Context(), m, abi.OpLoad, nil); err != nil || out[0] != 0 {
			t.Errorf("% x, %v", out, err)
		}
	}
}

// A call's memory is gone with it.
func TestCallsLeaveNoMemory(t *testing.T) {
	h := newHost(t, host.Config{})
	m := compile(t, h, newGuest().bytes())
	heap := func() int64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	before := heap()
	const calls = 1000
	for range calls {
		if _, err := perform(t.Context(), m, abi.OpInspect, nil); err != nil {
			t.Fatal(err)
		}
	}
	if grown := heap() - before; grown > calls*memoryBytes/10 {
		t.Errorf("%d calls with %d bytes of memory each leave %d bytes", calls, memoryBytes, grown)
	}
}

// watcher is an observer that keeps what it is told.
type watcher struct {
	mu       sync.Mutex
	compiled []compiled
	called   []called
}

type compiled struct {
	module string
	took   time.Duration
	err    error
}

type called struct {
	module, op string
	cost       host.CallCost
}

func (w *watcher) ModuleCompiled(module string, d time.Duration, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.compiled = append(w.compiled, compiled{module, d, err})
}

func (w *watcher) ModuleCalled(module, op string, c host.CallCost) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.called = append(w.called, called{module, op, c})
}

func (w *watcher) last() called {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.called[len(w.called)-1]
}

func TestObserver(t *testing.T) {
	w := &watcher{}
	h := newHost(t, host.Config{Observer: w})
	input := bytes.Repeat(oneRecord("k"), 1000)
	start := time.Now()
	m := compile(t, h, newGuest().does(abi.ExportMigrate, echo(100, true), constI32(0)).does(abi.ExportSave, unreachable).bytes())
	took := time.Since(start)
	if len(w.compiled) != 1 || w.compiled[0].module != guestName || w.compiled[0].err != nil || w.compiled[0].took <= 0 || w.compiled[0].took > took {
		t.Errorf("compiled in %v: %+v", took, w.compiled)
	}
	if c := w.last(); c.module != guestName || c.op != abi.OpDescribe || c.cost.Output != int64(len(cborOf(descriptor()))) {
		t.Errorf("described: %+v", c)
	}

	start = time.Now()
	_, err := perform(t.Context(), m, abi.OpMigrate, input)
	took = time.Since(start)
	c := w.last()
	if err != nil || c.op != abi.OpMigrate || c.cost.Err != nil || c.cost.Input != int64(len(input)) || c.cost.Output != int64(len(input)) ||
		c.cost.Memory != memoryBytes || c.cost.Duration <= 0 || c.cost.Duration > took {
		t.Errorf("migrated in %v: %+v, %v", took, c, err)
	}
	_, err = perform(t.Context(), m, abi.OpSave, input)
	if c := w.last(); c.op != abi.OpSave || err == nil || c.cost.Err != err || c.cost.Output != 0 {
		t.Errorf("trapped: %+v, %v", c, err)
	}
	if _, err := h.Compile(t.Context(), "bad", nil); err == nil || len(w.compiled) != 2 || w.compiled[1].module != "bad" || w.compiled[1].err != err {
		t.Errorf("refused: %+v", w.compiled)
	}
}
