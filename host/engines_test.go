package host_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/modules"
)

// answer is all that can be told of a call.
type answer struct {
	out  string
	err  string
	fuel int64
}

func (a answer) String() string { return fmt.Sprintf("%.200q, %s, %d units", a.out, a.err, a.fuel) }

// ask runs op and gives what came of it.
func ask(ctx context.Context, m *host.Module, w *watcher, op string, input []byte) answer {
	out, err := perform(ctx, m, op, input)
	a := answer{out: string(out), fuel: w.last().cost.Fuel}
	if err != nil {
		a.err = fmt.Sprintf("%T: %v", err, err)
	}
	return a
}

// engine is a host that runs modules in one of wazero's two engines.
type engine struct {
	host *host.Host
	*watcher
}

func bothEngines(t testing.TB, limits host.Limits) (compiler, interpreter engine) {
	for _, e := range []*engine{&compiler, &interpreter} {
		e.watcher = &watcher{}
		e.host = newHost(t, host.Config{Limits: limits, Observer: e.watcher, Interpreter: e == &interpreter})
	}
	return compiler, interpreter
}

// The same module and input give the same answer: again, and in the other engine.
func TestEnginesAgree(t *testing.T) {
	good := oneRecord("k")
	failure := cborOf(abi.Failure{Msg: "m", Path: "p", Offset: 3})
	guests := map[string]func() *guest{
		"plain": newGuest,
		"echo": func() *guest {
			return newGuest().does(abi.ExportSave, echo(64, true), constI32(0)).does(abi.ExportLoad, echo(100, false), constI32(0)).does(abi.ExportMigrate, echo(1, true), constI32(0))
		},
		"division": func() *guest { return newGuest().does(abi.ExportSave, constI32(1), constI32(0), divS32) },
		"outside":  func() *guest { return newGuest().does(abi.ExportLoad, constI32(-4), loadI32) },
		"failing": func() *guest {
			return newGuest().has(textAt, failure).does(abi.ExportSave, drain, failWith(2, textAt, len(failure)), constI32(2)).does(abi.ExportLoad, failWith(3, textAt, len(failure)), unreachable)
		},
		"refused": func() *guest {
			return newGuest().has(textAt, good).does(abi.ExportSave, drain, emitFrom(textAt, 3), constI32(0)).does(abi.ExportMigrate, emitMore(textAt, 2), drain, constI32(0))
		},
		"endless": func() *guest {
			return newGuest().does(abi.ExportInspect, forever()).does(abi.ExportLoad, forever(logFrom(0, 0, 0)))
		},
		"of growth": func() *guest {
			return newGuest().does(abi.ExportSave, loop(constI32(1), growMemory, constI32(-1), ne32), drain, constI32(0))
		},
		"of chance": func() *guest {
			g := newGuest()
			clock, random := g.wasi("clock_time_get", i32, i64, i32), g.wasi("random_get", i32, i32)
			return g.does(abi.ExportLoad, drain, constI32(1), constI64(1), constI32(textAt), call(clock), drop,
				constI32(textAt+8), constI32(1000), call(random), drop, emitFrom(textAt, 1008), constI32(0))
		},
	}
	limits := host.Limits{CallFuel: host.MinCallFuel, MemoryBytes: 4 << 20}
	wasm := map[string][]byte{"records": modules.Records()}
	for name, g := range guests {
		wasm[name] = g().bytes()
	}
	inputs := [][]byte{nil, good, mixedRecords(10, 40, 600), []byte("no records"), good[:3], append(bytes.Clone(good), 0x83)}
	for name, wasm := range wasm {
		t.Run(name, func(t *testing.T) {
			limits, inputs := limits, inputs
			if name == "records" {
				limits.CallFuel *= 10
			} else {
				inputs = inputs[:3]
			}
			compiler, interpreter := bothEngines(t, limits)
			one, two := compile(t, compiler.host, wasm), compile(t, interpreter.host, wasm)
			for _, op := range allOps {
				for i, input := range inputs {
					first := ask(t.Context(), one, compiler.watcher, op, input)
					if again := ask(t.Context(), one, compiler.watcher, op, input); again != first {
						t.Errorf("%s %d: %v, then %v", op, i, first, again)
					}
					if other := ask(t.Context(), two, interpreter.watcher, op, input); other != first {
						t.Errorf("%s %d: compiled %v, interpreted %v", op, i, first, other)
					}
				}
			}
		})
	}
}

// FuzzCompilerAgainstInterpreter: the built-in module gives the same answer in both of wazero's engines,
// whatever it reads and however that is cut.
func FuzzCompilerAgainstInterpreter(f *testing.F) {
	small := mixedRecords(11, 5, 60)
	for op := range allOps {
		f.Add(byte(op), uint16(0), []byte(nil))
		f.Add(byte(op), uint16(0), small)
		f.Add(byte(op), uint16(1), small)
		f.Add(byte(op), uint16(7), append(bytes.Clone(small), "\x83\x60\x60\x9f"...))
		f.Add(byte(op), uint16(0), small[:len(small)-1])
		f.Add(byte(op), uint16(0), []byte(`{"json":true}`))
	}
	f.Add(byte(0), uint16(0), []byte("\x83\x60\x60"+strings.Repeat("\x81", 70)))
	f.Add(byte(0), uint16(0), []byte("\x83\x60\x60\xbb\xff\xff\xff\xff\xff\xff\xff\xff"))
	type pair struct {
		one, two *host.Module
		w1, w2   *watcher
	}
	pairs := map[int]pair{}
	f.Cleanup(func() { clear(pairs) })
	for _, piece := range []int{0, 1, 13} {
		w1, w2 := &watcher{}, &watcher{}
		limits := host.Limits{CallFuel: 20_000_000, RecordBytes: record.MinMaxBytes}
		pairs[piece] = pair{compile(f, newHost(f, host.Config{Observer: w1, InputPiece: piece, Limits: limits}), modules.Records()),
			compile(f, newHost(f, host.Config{Observer: w2, InputPiece: piece, Limits: limits, Interpreter: true}), modules.Records()), w1, w2}
	}
	f.Fuzz(func(t *testing.T, op byte, piece uint16, input []byte) {
		if len(input) > 4096 {
			return // the interpreter is slow
		}
		p := pairs[[]int{0, 1, 13}[piece%3]]
		name := allOps[int(op)%len(allOps)]
		one, two := ask(t.Context(), p.one, p.w1, name, input), ask(t.Context(), p.two, p.w2, name, input)
		p.w1.forget()
		p.w2.forget()
		if one != two {
			t.Fatalf("%s: compiled %v, interpreted %v", name, one, two)
		}
		if one.err == "" && name != abi.OpInspect && one.out != string(input) {
			t.Fatalf("%s gave %q", name, one.out)
		}
	})
}

// forget keeps the list of calls short.
func (w *watcher) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.called = w.called[:0]
}

// program makes a guest of bytes: each instruction is a byte that says what it does and as many bytes as
// it needs, zeros where there are none left.
type program struct {
	b     []byte
	g     *guest
	wasi  map[string]int
	depth int
}

func (p *program) byte() byte {
	if len(p.b) == 0 {
		return 0
	}
	b := p.b[0]
	p.b = p.b[1:]
	return b
}

// number is an argument: mostly an address or a length that is in memory or near its ends.
func (p *program) number() code {
	switch b := p.byte(); b % 8 {
	case 0:
		return constI32(int32(p.byte()))
	case 1:
		return constI32(textAt + int32(p.byte()))
	case 2:
		return constI32(int32(p.byte())<<8 | int32(p.byte()))
	case 3:
		return constI32(memoryBytes - 16 + int32(p.byte()%32))
	case 4:
		return constI32(-1 - int32(p.byte()))
	case 5:
		return seq(get(0), wrap) // the last result of next
	case 6:
		return get(1)
	default:
		return constI32(int32(p.byte())<<24 | int32(p.byte())<<16 | int32(p.byte())<<8 | int32(p.byte()))
	}
}

var boundaryWASI = []struct {
	name   string
	params []byte
}{
	{"random_get", []byte{i32, i32}}, {"clock_time_get", []byte{i32, i64, i32}}, {"fd_write", []byte{i32, i32, i32, i32}},
	{"fd_read", []byte{i32, i32, i32, i32}}, {"poll_oneoff", []byte{i32, i32, i32, i32}}, {"sched_yield", nil},
	{"fd_fdstat_get", []byte{i32, i32}}, {"args_sizes_get", []byte{i32, i32}}, {"fd_seek", []byte{i32, i64, i32, i32}},
	{"environ_get", []byte{i32, i32}}, {"fd_prestat_dir_name", []byte{i32, i32, i32}}, {"fd_close", []byte{i32}},
}

// instruction makes the next one.
func (p *program) instruction() code {
	n := p.number
	switch b := p.byte(); b % 20 {
	case 0, 1:
		return seq(n(), n(), call(next), set(0))
	case 2:
		return seq(constI32(bufferAt), constI32(bufferCap), call(next), set(0))
	case 3, 4:
		return seq(n(), n(), constI32(int32(p.byte()%3)), call(emit), drop)
	case 5: // what was read
		return seq(constI32(bufferAt), get(0), wrap, constI32(int32(p.byte()%2)), call(emit), drop)
	case 6: // a sound record
		return emitFrom(textAt, len(oneRecord("k")))
	case 7:
		at := int(p.byte() % 7)
		return emitMore(textAt, at)
	case 8:
		return seq(n(), n(), call(arg), set(1))
	case 9:
		return seq(n(), n(), n(), call(fail))
	case 10:
		return seq(n(), n(), n(), call(logLine))
	case 11:
		return seq(n(), n(), storeI32)
	case 12:
		return seq(n(), loadI32, set(1))
	case 13:
		return seq(n(), n(), n(), fillMemory)
	case 14:
		return seq(n(), growMemory, set(1))
	case 15: // some rounds
		if p.depth == 3 {
			return nil
		}
		p.depth++
		defer func() { p.depth-- }()
		return loop(p.some(int(p.byte()%8)), get(2), constI32(1), add32, code{0x22, 2}, constI32(int32(p.byte())), less32)
	case 16: // for as long as something is not 0
		if p.depth == 3 {
			return nil
		}
		p.depth++
		defer func() { p.depth-- }()
		return loop(p.some(int(p.byte()%8)), n())
	case 17:
		if b > 240 {
			return unreachable
		}
		return seq(n(), code{0x0f}) // return
	case 18:
		return drain
	default:
		w := boundaryWASI[int(p.byte())%len(boundaryWASI)]
		f, ok := p.wasi[w.name]
		if !ok {
			panic(w.name)
		}
		var c code
		for _, t := range w.params {
			if t == i64 {
				c = append(c, constI64(int64(int8(p.byte())))...)
			} else {
				c = append(c, n()...)
			}
		}
		return seq(c, call(f), set(1))
	}
}

func (p *program) some(n int) (c code) {
	for range n {
		if len(p.b) > 0 {
			c = append(c, p.instruction()...)
		}
	}
	return c
}

// boundaryGuest is a guest whose every operation runs a program.
func boundaryGuest(b []byte) *guest {
	p := &program{b: b, g: newGuest(), wasi: map[string]int{}}
	for _, w := range boundaryWASI {
		p.wasi[w.name] = p.g.wasi(w.name, w.params...)
	}
	p.g.has(textAt, oneRecord("k"))
	f := p.g.function("program", nil)
	p.g.inner[0].results = []byte{i32}
	var body code
	for len(p.b) > 0 {
		body = append(body, p.instruction()...)
	}
	p.g.inner[0].body = seq(body, constI32(0))
	for _, op := range allOps {
		p.g.does(exportOf(op), call(f))
	}
	p.g.describe(cborOf(descriptor())) // after the imports, whose indices it needs not
	return p.g
}

// FuzzImportBoundary: whatever a guest does with what it imports, its call ends, within its limits, in an
// error or in what the ABI allows; the same in both engines; and it leaves the module as it was.
func FuzzImportBoundary(f *testing.F) {
	f.Add([]byte(nil), []byte(nil))
	f.Add([]byte{18, 6, 6}, oneRecord("in"))                             // reads all, emits two records
	f.Add([]byte{18, 7, 3, 3, 1, 3, 0, 3, 0}, oneRecord("in"))           // a fragment and its end
	f.Add([]byte{16, 2, 2, 5, 1, 5}, mixedRecords(12, 5, 40))            // passes on what it reads
	f.Add([]byte{16, 1, 6, 7, 1, 1, 1, 1}, []byte(nil))                  // emits for ever
	f.Add([]byte{16, 1, 19, 0, 0, 0, 2, 255, 255, 0, 1}, []byte(nil))    // random numbers for ever
	f.Add([]byte{19, 2, 0, 1, 0, 16, 0, 3, 3, 4}, []byte(nil))           // fd_write near the end of memory
	f.Add([]byte{9, 0, 2, 1, 0, 0, 10, 18, 17, 0, 2}, oneRecord("in"))   // fails
	f.Add([]byte{14, 0, 40, 13, 0, 0, 4, 9, 7, 0, 2, 0, 0}, []byte(nil)) // grows and fills
	f.Add([]byte{8, 3, 10, 3, 10, 1, 3, 20, 0, 2}, []byte("native"))     // arg and next over the end of memory
	limits := host.Limits{CallFuel: host.MinCallFuel, SliceFuel: host.MinSliceFuel, MemoryBytes: host.MinMemoryBytes, OutputBytes: host.MinOutputBytes,
		RecordBytes: record.MinMaxBytes, Records: 100, LogLines: 3}
	f.Fuzz(func(t *testing.T, wasm, input []byte) {
		if len(wasm) > 300 || len(input) > 2000 {
			return
		}
		wasm = boundaryGuest(wasm).bytes()
		var answers [2][]answer
		for i := range answers {
			w := &watcher{}
			h, err := host.New(t.Context(), host.Config{Limits: limits, Observer: w, Interpreter: i == 1, Logger: slog.New(slog.DiscardHandler), Idle: 1})
			if err != nil {
				t.Fatal(err)
			}
			m, err := h.Compile(t.Context(), guestName, wasm)
			if err != nil {
				t.Fatal("no sound module:", err)
			}
			for range 2 {
				for _, op := range allOps {
					answers[i] = append(answers[i], crossing(t, m, w, op, input))
				}
			}
			if err := h.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			n := len(allOps)
			for k := range n {
				if answers[i][k] != answers[i][n+k] {
					t.Fatalf("%s: %v, then %v", allOps[k], answers[i][k], answers[i][n+k])
				}
			}
		}
		for k, a := range answers[0] {
			if a != answers[1][k] {
				t.Fatalf("%s: compiled %v, interpreted %v", allOps[k%len(allOps)], a, answers[1][k])
			}
		}
	})
}

// crossing runs an operation and holds what came of it against the rules of the ABI.
func crossing(t *testing.T, m *host.Module, w *watcher, op string, input []byte) answer {
	call := abi.Call{Schema: 1, From: 1, To: 1}
	var sink checkingSink
	var native bytes.Buffer
	in := &notedReader{r: bytes.NewReader(input)}
	records := record.NewReader(in, 0)
	var err error
	switch op {
	case abi.OpSave:
		err = m.Save(t.Context(), call, in, &sink)
	case abi.OpLoad:
		err = m.Load(t.Context(), call, records, &native)
	case abi.OpMigrate:
		err = m.Migrate(t.Context(), call, records, &sink)
	case abi.OpInspect:
		err = m.Inspect(t.Context(), call, records, &native)
	}
	a := answer{out: string(sink.data) + native.String(), fuel: w.last().cost.Fuel}
	if sink.bad != nil {
		t.Fatalf("%s: the sink was given what is no record: %v", op, sink.bad)
	}
	if sink.records > 100 || len(sink.data)+native.Len() > host.MinOutputBytes || a.fuel > host.MinCallFuel+memoryBytes {
		t.Fatalf("%s passes a limit: %d records, %d bytes, %d units", op, sink.records, len(sink.data)+native.Len(), a.fuel)
	}
	if err == nil {
		if !in.ended {
			t.Fatalf("%s succeeded without reading its input to the end", op)
		}
		return a
	}
	a.err = err.Error()
	var me *host.ModuleError
	var ge *host.GuestError
	var fe *record.FormatError
	switch {
	case errors.As(err, &me):
		if errors.Is(err, abi.ErrCorrupt) || strings.Contains(me.Reason, "panic") {
			t.Fatalf("%s: %v", op, err)
		}
	case errors.As(err, &ge):
	case errors.As(err, &fe) && op != abi.OpSave: // the input is no records
	default:
		t.Fatalf("%s: %T: %v", op, err, err)
	}
	return a
}

// checkingSink keeps what it is given and looks whether it is what a sink is promised.
type checkingSink struct {
	collector
	bad error
}

func (s *checkingSink) WriteBatch(b *record.Batch) error {
	var scan record.Scanner
	refs, err := scan.Scan(b.Data, nil)
	if err == nil && fmt.Sprint(refs) != fmt.Sprint(b.Refs) {
		err = errors.New("the refs lie")
	}
	if err != nil || len(refs) == 0 {
		s.bad = fmt.Errorf("%d records: %w", len(refs), err)
	}
	return s.collector.WriteBatch(b)
}

// notedReader knows whether it was read to its end.
type notedReader struct {
	r     *bytes.Reader
	ended bool
}

func (n *notedReader) Read(p []byte) (int, error) {
	k, err := n.r.Read(p)
	n.ended = n.ended || err != nil
	return k, err
}
