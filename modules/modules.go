// Package modules holds the built-in serializers: WebAssembly modules, embedded so that the program
// needs nothing but itself. Their source is Rust, beside this file, on the SDK in sdk/rust; build.sh
// builds them, always to the same bytes, and README.md lists them.
//
// Hand a module's bytes to host.Compile to use it.
package modules

import _ "embed"

// Module is one built-in serializer.
type Module struct {
	// Name is the name its descriptor carries and a configuration uses.
	Name string
	// Wasm is the module. It is shared: do not change it.
	Wasm []byte
}

//go:embed records.wasm
var records []byte

// Records is the serializer of services that speak records themselves (records/README.md). The bytes
// are shared: do not change them.
func Records() []byte { return records }

// All lists the built-in serializers by name.
func All() []Module {
	return []Module{{Name: "records", Wasm: records}}
}
