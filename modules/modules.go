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

//go:embed json.wasm
var json []byte

// JSON is the serializer of JSON text (json/README.md). The bytes are shared: do not change them.
func JSON() []byte { return json }

//go:embed files.wasm
var files []byte

// Files is the serializer of folders (files/README.md). The bytes are shared: do not change them.
func Files() []byte { return files }

//go:embed pickle.wasm
var pickle []byte

// Pickle is the serializer of Python pickles (pickle/README.md). The bytes are shared: do not change them.
func Pickle() []byte { return pickle }

//go:embed records.wasm
var records []byte

// Records is the serializer of services that speak records themselves (records/README.md). The bytes
// are shared: do not change them.
func Records() []byte { return records }

//go:embed raw.wasm
var raw []byte

// Raw is the serializer of any bytes (raw/README.md). The bytes are shared: do not change them.
func Raw() []byte { return raw }

//go:embed sqlite.wasm
var sqlite []byte

// SQLite is the serializer of SQLite databases as rows (sqlite/README.md). The bytes are shared: do not
// change them.
func SQLite() []byte { return sqlite }

// All lists the built-in serializers by name.
func All() []Module {
	return []Module{{Name: "files", Wasm: files}, {Name: "json", Wasm: json}, {Name: "pickle", Wasm: pickle}, {Name: "raw", Wasm: raw}, {Name: "records", Wasm: records}, {Name: "sqlite", Wasm: sqlite}}
}
