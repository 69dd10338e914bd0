package fuel

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/torpor-run/torpor/host/abi"
)

// Every instruction that wazero takes is taken with every length of immediates that it takes, and none
// is that wazero refuses. Immediates are bytes that would open or close a block if they were read as
// instructions, so that one which is read too short or too long does not stay hidden.
func TestInstructions(t *testing.T) {
	ctx := context.Background()
	rt := wazero.NewRuntimeWithConfig(ctx, interpreter.config())
	defer rt.Close(ctx)
	compiles := func(wasm []byte) bool {
		c, err := rt.CompileModule(ctx, wasm)
		if err == nil {
			c.Close(ctx)
		}
		return err == nil
	}
	// Enough that an index of 11 is right for most things.
	fns := make([]fn, 12)
	for i := range fns {
		fns[i].locals = bytes.Repeat([]byte{typeI32}, 12)
	}
	accepted := map[string]int{}
	try := func(op code, imm []byte) bool {
		// What is behind unreachable takes any operands and, behind another one, leaves any.
		inner := seq(code{opUnreachable}, op, imm, code{opUnreachable})
		fns[0].body = seq(bytes.Repeat(code{opBlock, typeEmpty}, 12), inner, bytes.Repeat(code{opEnd}, 12))
		wasm := testModule(fns)
		out, _, err := Instrument(wasm, Options{})
		if !compiles(wasm) {
			if err == nil && compiles(out) {
				t.Errorf("% x % x: only with a counter", op, imm)
			}
			return false
		}
		if op[0] == opVector && op[1] >= 0x80 && (len(op) < 3) {
			if !errors.Is(err, abi.ErrVersion) {
				t.Errorf("% x: a vector instruction that only wazero reads so: %v", op, err)
			}
			return false
		}
		if err != nil || !compiles(out) {
			t.Errorf("% x % x: %v", op, imm, err)
		}
		return true
	}
	all := func(prefix string, op code) {
		ok := try(op, nil)
		for _, fill := range []byte{0, opBlock, opEnd} {
			for _, n := range []int{1, 2, 3, 4, 8, 16, 17} {
				ok = try(op, bytes.Repeat([]byte{fill}, n)) || ok
			}
		}
		for _, imm := range [][]byte{{1, 1, 11, 11}, {typeEmpty, opEnd}, {typeEmpty, opElse, opEnd}, {1, typeI32}, {0, 0x8b, 0x80, 0}, {0x8b, 0x80, 0x80, 0x80, 0}, {fref}, {xref}} {
			ok = try(op, imm) || ok
		}
		if ok {
			accepted[prefix]++
		}
	}
	for op := range 256 {
		if op != opMisc && op != opVector && op != opEnd && op != opElse {
			all("", code{byte(op)})
		}
		if op < 0x80 {
			all("misc", code{opMisc, byte(op)})
			all("vector", code{opVector, byte(op)})
		} else {
			try(code{opMisc, byte(op), 0}, nil) // a number that is too long
			all("vector", code{opVector, byte(op), 1})
			try(code{opVector, byte(op)}, nil)
		}
	}
	t.Log(accepted)
	// Of one byte: 11 of control, without else and end; 3 of drop and select; 7 of variables and tables;
	// 25 of memory; 4 const; 128 of numbers; 3 of references.
	if accepted[""] != 181 || accepted["misc"] != 18 || accepted["vector"] != 236 {
		t.Errorf("%v are not those that wazero has", accepted)
	}
}
