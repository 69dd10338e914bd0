package fuel

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// writer writes a random function. All it writes is valid and ends: loops have counters, and functions
// call only those behind them, as long as a budget that a global holds allows.
type writer struct {
	*rand.Rand
	fns    []fn // params and results are there
	self   int
	types  int // index of the type of blocks of two values
	depth  int
	labels []byte // of open blocks that take no values to their label, outermost first: 1; of others: 0
	count  int    // counters of loops in use
}

// What every function has, behind its parameters.
var ownLocals = []byte{typeI32, typeI32, typeI64, typeI64, f64, f64, v128, v128, typeI32, typeI32, typeI32, typeI32, typeI32, typeI32}

const counters = 6 // of them, at the end

// randomModule is a module whose export f calls all of a few random functions.
func randomModule(seed uint64) []byte {
	w := &writer{Rand: rand.New(rand.NewPCG(seed, 1))}
	some := func(most int, of ...byte) (types []byte) {
		for range w.IntN(most + 1) {
			types = append(types, of[w.IntN(len(of))])
		}
		return types
	}
	w.fns = make([]fn, 3+w.IntN(5))
	w.types = len(w.fns)
	for i := range w.fns {
		w.fns[i] = fn{params: some(3, typeI32, typeI64), results: some(3, typeI32, typeI64, f64, v128), locals: ownLocals}
	}
	w.fns[0] = fn{name: "f", params: []byte{typeI32, typeI64}, results: []byte{typeI64}, locals: ownLocals}
	for i := range w.fns {
		w.self, w.labels, w.count = i, []byte{0}, 0
		body := seq(appendUint(code{opGlobalGet}, 0), code{0x45}, when(w.leave(false), nil), // spent?
			appendUint(code{opGlobalGet}, 0), con32(-1), code{0x6a}, appendUint(code{opGlobalSet}, 0))
		body = seq(body, w.statements(2+w.IntN(6)), w.values(w.fns[i].results))
		w.fns[i].body = body
	}
	return testModule(w.fns, [2][]byte{{typeI32, typeI64}, {typeI64, typeI32}})
}

// leave is what leaves the function from within one more block, by return or by a branch.
func (w *writer) leave(branch bool) code {
	w.labels = append(w.labels, 0)
	defer func() { w.labels = w.labels[:len(w.labels)-1] }()
	c := w.values(w.fns[w.self].results)
	if branch {
		return seq(c, br(len(w.labels)-1))
	}
	return seq(c, code{opReturn})
}

func (w *writer) values(types []byte) (c code) {
	for _, t := range types {
		c = seq(c, w.value(t))
	}
	return c
}

// local is one of a type, not a counter.
func (w *writer) local(t byte) int {
	all := slices.Concat(w.fns[w.self].params, ownLocals[:len(ownLocals)-counters])
	for i := w.IntN(len(all)); ; i = (i + 1) % len(all) {
		if all[i] == t {
			return i
		}
	}
}

func (w *writer) pick(ops ...byte) byte { return ops[w.IntN(len(ops))] }

// address is an i32 that mostly lies in memory.
func (w *writer) address() code {
	if w.IntN(300) == 0 {
		return w.value(typeI32)
	}
	return seq(w.value(typeI32), con32(0x3fff), code{0x71})
}

// value pushes a value of a type.
func (w *writer) value(t byte) code {
	if w.depth++; w.depth > 5 {
		w.depth--
		return get(w.local(t))
	}
	defer func() { w.depth-- }()
	switch n := w.IntN(16); {
	case n < 4:
		return get(w.local(t))
	case n == 4:
		return seq(w.value(t), w.value(t), w.value(typeI32), code{opSelect})
	case n == 5:
		return seq(w.value(t), code{opLocalTee, byte(w.local(t))})
	case n == 6: // a block of a value
		w.labels = append(w.labels, 0)
		defer func() { w.labels = w.labels[:len(w.labels)-1] }()
		return seq(code{opBlock, t}, w.statements(1), w.value(t), w.value(typeI32), brIf(0), code{opDrop}, w.value(t), code{opEnd})
	case n == 7:
		cond := w.value(typeI32)
		w.labels = append(w.labels, 0)
		defer func() { w.labels = w.labels[:len(w.labels)-1] }()
		return seq(cond, code{opIf, t}, w.statements(1), w.value(t), code{opElse}, w.value(t), code{opEnd})
	case n == 8 && (t == typeI64 || t == typeI32): // a block of two values in and out
		drop := seq(code{opDrop})
		if t == typeI32 {
			drop = seq(set(w.local(typeI32)), code{opDrop}, get(w.local(typeI32)))
		}
		in := seq(w.value(typeI32), w.value(typeI64))
		w.labels = append(w.labels, 0)
		defer func() { w.labels = w.labels[:len(w.labels)-1] }()
		return seq(in, code{opBlock}, appendInt(nil, int64(w.types)), set(w.local(typeI64)), set(w.local(typeI32)), w.statements(1),
			w.value(typeI64), w.value(typeI32), code{opEnd}, drop)
	}
	binary := func(ops ...byte) code { return seq(w.value(t), w.value(t), code{w.pick(ops...)}) }
	switch t {
	case typeI32:
		switch w.IntN(8) {
		case 0:
			return con32(int64(int32(w.Uint64())))
		case 1:
			return seq(w.address(), code{0x28, 2}, appendUint(nil, uint64(w.IntN(1000))))
		case 2:
			return seq(w.value(typeI64), code{w.pick(0xa7, 0x50)})
		case 3:
			return seq(w.value(f64), misc(w.pick(2, 3)))
		case 4:
			return seq(w.value(v128), code{opVector, 0x1b, byte(w.IntN(4))})
		case 5:
			if w.IntN(20) == 0 {
				return binary(0x6d, 0x6e, 0x6f, 0x70) // division
			}
			return seq(con32(int64(w.IntN(3))), code{opMemoryGrow, 0})
		}
		return binary(0x6a, 0x6b, 0x6c, 0x71, 0x72, 0x73, 0x74, 0x76, 0x77, 0x48, 0x4d)
	case typeI64:
		switch w.IntN(5) {
		case 0:
			return con64(int64(w.Uint64()))
		case 1:
			return seq(w.address(), code{0x29, 3}, appendUint(nil, uint64(w.IntN(1000))))
		case 2:
			return seq(w.value(typeI32), code{w.pick(0xac, 0xad)})
		}
		return binary(0x7c, 0x7d, 0x7e, 0x83, 0x84, 0x85, 0x86, 0x88, 0x89)
	case f64:
		if w.IntN(2) == 0 {
			return seq(w.value(typeI32), code{0xb7})
		}
		return binary(0xa0, 0xa1)
	}
	switch w.IntN(4) {
	case 0:
		return seq(code{opVector, 0x0c}, con64(int64(w.Uint64()))[:1], bytes.Repeat([]byte{byte(w.Uint64())}, 15))
	case 1:
		return seq(w.value(typeI64), code{opVector, 0x12})
	case 2:
		return seq(w.address(), code{opVector, 0x00, 4, 16})
	}
	return seq(w.value(v128), w.value(v128), code{opVector, w.pick(0x8e, 0xae, 0xce, 0x95, 0xb5), 1})
}

func (w *writer) statements(n int) (c code) {
	if w.depth++; w.depth <= 5 {
		for range n {
			c = seq(c, w.statement())
		}
	}
	w.depth--
	return c
}

// inside is statements in a new block.
func (w *writer) inside(label byte) code {
	w.labels = append(w.labels, label)
	defer func() { w.labels = w.labels[:len(w.labels)-1] }()
	return w.statements(1 + w.IntN(3))
}

// outward is a label that takes no values.
func (w *writer) outward() (label int, ok bool) {
	var open []int
	for i, l := range w.labels {
		if l == 1 {
			open = append(open, len(w.labels)-1-i)
		}
	}
	if len(open) == 0 {
		return 0, false
	}
	return open[w.IntN(len(open))], true
}

func (w *writer) statement() code {
	switch w.IntN(20) {
	case 0, 1:
		return scope(w.inside(1))
	case 2, 3:
		return seq(w.value(typeI32), when(w.inside(1), w.inside(1)))
	case 4:
		return seq(w.value(typeI32), code{opIf, typeEmpty}, w.inside(1), code{opEnd})
	case 5, 6: // a loop with a counter, which ends at its bottom or in its midst
		if w.count == counters {
			return nil
		}
		counter := len(w.fns[w.self].params) + len(ownLocals) - counters + w.count
		w.count++
		defer func() { w.count-- }()
		// The loop's label is not for others: it would not count.
		body := w.inside(0)
		next := seq(get(counter), con32(1), code{0x6b, opLocalTee}, appendUint(nil, uint64(counter)), brIf(0))
		if w.IntN(2) == 0 {
			w.labels = append(w.labels, 1)
			first := w.inside(0)
			w.labels = w.labels[:len(w.labels)-1]
			return seq(con32(int64(1+w.IntN(6))), set(counter),
				scope(loop(first, get(counter), con32(1), code{0x6b, opLocalTee}, appendUint(nil, uint64(counter)), code{0x45}, brIf(1), br(0))))
		}
		return seq(con32(int64(1+w.IntN(6))), set(counter), loop(body, next))
	case 7:
		if l, ok := w.outward(); ok {
			return seq(w.value(typeI32), brIf(l))
		}
	case 8:
		if l, ok := w.outward(); ok {
			more, _ := w.outward()
			last, _ := w.outward()
			return seq(w.value(typeI32), con32(3), code{0x71}, code{opBrTable}, appendUint(nil, 2), appendUint(nil, uint64(l)), appendUint(nil, uint64(more)), appendUint(nil, uint64(last)))
		}
	case 9:
		return seq(w.value(typeI32), when(w.leave(w.IntN(4) > 0), nil))
	case 10:
		if w.IntN(30) == 0 {
			return seq(w.value(typeI32), code{opIf, typeEmpty, opUnreachable, opEnd})
		}
	case 11, 12, 13:
		if f := w.self + 1 + w.IntN(3); f < len(w.fns) {
			how := call(f)
			if w.IntN(2) == 0 {
				how = seq(con32(int64(f)), callTable(f))
				if w.IntN(30) == 0 {
					how = seq(con32(int64(f)), w.value(typeI32), con32(1), code{0x71, 0x6a}, callTable(f))
				}
			}
			c := seq(w.values(w.fns[f].params), how)
			for _, t := range slices.Backward(w.fns[f].results) {
				c = seq(c, set(w.local(t)))
			}
			return c
		}
	case 14:
		size := seq(w.value(typeI32), con32(0x1ff), code{0x71})
		return w.pickCode(
			seq(w.address(), w.address(), size, misc(miscMemoryCopy, 0, 0)),
			seq(w.address(), w.value(typeI32), size, misc(miscMemoryFill, 0)),
			seq(w.address(), con32(int64(w.IntN(10))), con32(int64(w.IntN(20))), misc(miscMemoryInit, 0, 0)),
			seq(code{opRefNull, xref}, con32(1), misc(miscTableGrow, 1), code{opDrop}),
			seq(con32(0), code{opRefNull, xref}, con32(8), misc(miscTableFill, 1)))
	case 15:
		return seq(w.address(), w.value(typeI32), code{0x36, 2}, appendUint(nil, uint64(w.IntN(1000))))
	case 16:
		return seq(w.address(), w.value(typeI64), code{0x37, 3}, appendUint(nil, uint64(w.IntN(1000))))
	}
	t := w.pick(typeI32, typeI64, f64, v128)
	return seq(w.value(t), set(w.local(t)))
}

func (w *writer) pickCode(c ...code) code { return c[w.IntN(len(c))] }

// Random programs do the same with and without a counter and on both engines; the counter counts the
// same everywhere, never less than the instructions and not much more; and a program whose fuel ends
// has done the same until then.
func TestRandomPrograms(t *testing.T) {
	n := 150
	if testing.Short() {
		n = 40
	}
	traps, ended, total, exactTotal := 0, 0, int64(0), int64(0)
	for seed := range uint64(n) {
		wasm := randomModule(seed)
		metered := mustInstrument(t, wasm, Options{})
		exact := mustInstrument(t, wasm, Options{slack: -1})
		var results, states []string
		var used, short []int64
		try := func(e engine, wasm []byte, fuel int64) (string, int64) {
			r := start(t, e, wasm)
			defer r.Close(t.Context())
			result, used := r.run("f", fuel, seed, seed<<40+77)
			states = append(states, r.state())
			return result, used
		}
		for _, e := range engines {
			for i, wasm := range [][]byte{wasm, metered, exact} {
				result, u := try(e, wasm, plenty)
				results = append(results, result)
				if i > 0 {
					used = append(used, u)
				}
			}
		}
		for i := range results {
			if results[i] != results[0] || states[i] != states[0] {
				t.Fatalf("seed %d, run %d: %s; the first: %s; memory the same: %v", seed, i, results[i], results[0], states[i] == states[0])
			}
		}
		if strings.HasPrefix(results[0], "error") {
			traps++
		}
		if used[0] != used[2] || used[1] != used[3] || used[0] < used[1] || used[0] > (1+defaultSlack)*used[1] {
			t.Fatalf("seed %d: used %d", seed, used)
		}
		total, exactTotal = total+used[0], exactTotal+used[1]
		if strings.HasPrefix(results[0], "error") || used[0] < 20 {
			continue
		}
		states = nil
		for _, e := range engines {
			result, u := try(e, metered, used[0]/2)
			// What is left may be too little to reach a check: then the rest runs on credit.
			if stopped := strings.Contains(result, "unreachable"); !stopped && (result != results[0] || u != used[0]) {
				t.Fatalf("seed %d: with half of the fuel: %s", seed, result)
			} else if stopped {
				ended++
			}
			short = append(short, u)
		}
		if short[0] != short[1] || states[0] != states[1] {
			t.Fatalf("seed %d: without fuel the engines differ: %d", seed, short)
		}
	}
	t.Logf("%d programs, %d end in traps, stopped %d times; charged %.3f units an instruction", n, traps, ended, float64(total)/float64(exactTotal))
	if traps > n/2 || ended < n/3 {
		t.Error("too few do something")
	}
}
