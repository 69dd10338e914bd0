package fuel

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/torpor-run/torpor/host/abi"
)

// FuzzInstrument: no bytes make Instrument panic; what it accepts wazero accepts if, and only if, it
// accepts the original; and the functions that take nothing do the same with a counter as without.
func FuzzInstrument(f *testing.F) {
	f.Add([]byte("\x00asm\x01\x00\x00\x00"))
	for seed := range uint64(8) {
		f.Add(randomModule(seed))
	}
	f.Add(testModule([]fn{{name: "f", body: loop(br(0))}}))
	f.Add(testModule([]fn{{name: "f", results: []byte{typeI32, typeI64}, body: seq(con32(1), con64(2))}}))
	f.Fuzz(func(t *testing.T, wasm []byte) {
		const fuel = 20_000
		out, info, err := Instrument(wasm, Options{Initial: fuel})
		if err != nil {
			if !errors.Is(err, abi.ErrCorrupt) && !errors.Is(err, abi.ErrVersion) && !errors.Is(err, abi.ErrTooLarge) {
				t.Fatal("a bare error:", err)
			}
			return
		}
		if info.BytesOut != len(out) {
			t.Fatalf("%+v of %d bytes", info, len(out))
		}
		if !harmless(wasm) {
			return
		}
		ctx := context.Background()
		rt := wazero.NewRuntimeWithConfig(ctx, interpreter.config().WithMemoryLimitPages(16))
		defer rt.Close(ctx)
		plain, err := rt.CompileModule(ctx, wasm)
		metered, errMetered := rt.CompileModule(ctx, out)
		if (err == nil) != (errMetered == nil) {
			t.Fatalf("wazero says %v; with a counter %v", err, errMetered)
		}
		if err != nil || len(plain.ImportedFunctions()) > 0 {
			return
		}
		instantiate := func(c wazero.CompiledModule) api.Module {
			m, err := rt.InstantiateModule(ctx, c, wazero.NewModuleConfig().WithName("").WithStartFunctions())
			if err != nil {
				return nil
			}
			return m
		}
		// With a counter first: what does not end by itself is not run without.
		with := instantiate(metered)
		if with == nil {
			return
		}
		counter := with.ExportedGlobal(DefaultExport).(api.MutableGlobal)
		without := instantiate(plain)
		if without == nil {
			t.Fatal("only with a counter")
		}
		for name, def := range plain.ExportedFunctions() {
			if len(def.ParamTypes()) > 0 {
				continue
			}
			counter.Set(fuel)
			fn := with.ExportedFunction(name)
			results, err := fn.Call(ctx)
			got := outcome(fn, results, err)
			if int64(counter.Get()) < 0 || strings.Contains(got, "stack overflow") {
				return // and what it has done until then is not known
			}
			fn = without.ExportedFunction(name)
			results, err = fn.Call(ctx)
			if want := outcome(fn, results, err); got != want && !strings.Contains(want, "stack overflow") {
				t.Fatalf("%s: %s; with a counter %s", name, want, got)
			}
		}
	})
}

// harmless tells that wazero can be given a module: there are limits that it does not have.
func harmless(wasm []byte) bool {
	m, err := parse(wasm, DefaultExport)
	if err != nil {
		return false
	}
	for _, s := range m.sections {
		r := reader{b: wasm, at: s.body, end: s.end}
		switch s.id {
		case sectionTable: // of up to 2^27 references
			for n := r.count(); n > 0; n-- {
				r.valueType()
				flags := r.byte()
				if r.u32() > 1000 {
					return false
				}
				if flags&1 != 0 {
					r.u32()
				}
			}
			if r.bad() || r.left() > 0 {
				return false
			}
		case sectionGlobal, sectionElement, sectionData, sectionDataCount:
			// It makes room for what is announced.
			if r.u32() > math.MaxUint16 {
				return false
			}
		}
		if s.id == sectionElement && s.end-s.body > 1<<12 {
			return false
		}
	}
	return true
}
