package fuel_test

import (
	"context"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/torpor-run/torpor/host/fuel"
)

// A module that never ends on its own is run until its fuel is used up.
func Example() {
	// (module (func (export "run") (loop (br 0))))
	wasm := []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00\x07\x07\x01\x03run\x00\x00\x0a\x09\x01\x07\x00\x03\x40\x0c\x00\x0b\x0b")
	metered, _, err := fuel.Instrument(wasm, fuel.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	rt := wazero.NewRuntime(ctx)
	defer rt.Close(ctx)
	guest, err := rt.Instantiate(ctx, metered)
	if err != nil {
		fmt.Println(err)
		return
	}
	left := guest.ExportedGlobal(fuel.DefaultExport).(api.MutableGlobal)
	left.Set(1_000_000)
	if _, err := guest.ExportedFunction("run").Call(ctx); err != nil && int64(left.Get()) < 0 {
		fmt.Println("out of fuel")
	}
	// Output: out of fuel
}
