package examples_test

import (
	"testing"

	"github.com/torpor-run/torpor/tests/sdktest"
)

// The common example does in Go what it does in every language.
func TestSettings(t *testing.T) {
	wasm := build(t, "settings")
	sdktest.Settings(t, wasm)
	sdktest.LoadOrder(t, wasm)
	sdktest.LongLines(t, wasm, 2<<20)
	sdktest.Fixtures(t, "settings/fixtures")
}
