// Package abi holds the names and numbers of the serializer ABI, version 1: what the Wasm host and
// the guest SDKs must agree on, and the words (descriptor, call, failure) they exchange.
//
// ABI.md beside this file is the specification; this package is its Go spelling. It imports the
// standard library only, so that a guest written in Go may use it. Its sub-package record holds the
// one currency of every layer, the record.
//
// Start with [Namespace] and the Export and Import names; a host author then reads [Descriptor] and
// [Call], a guest author the Code numbers.
package abi

// Namespace is the import module of every host function. The major version of the ABI is its
// suffix; a module that imports from another namespace is of another ABI and is refused before it
// is instantiated (ABI.md, "Versioning").
const Namespace = "torpor_v1"

// NamespacePrefix is what the namespaces of all ABI versions share; the host uses it to tell a
// module of another ABI version from one that is no serializer at all.
const NamespacePrefix = "torpor_v"

// Host functions a guest may import from [Namespace] (ABI.md, "Imports").
const (
	ImportNext = "next" // (buf i32, cap i32) -> i64
	ImportEmit = "emit" // (ptr i32, len i32, flags i32) -> i32
	ImportArg  = "arg"  // (buf i32, cap i32) -> i32
	ImportFail = "fail" // (code i32, ptr i32, len i32)
	ImportLog  = "log"  // (level i32, ptr i32, len i32)
)

// What a guest exports (ABI.md, "Exports").
const (
	ExportMemory     = "memory"
	ExportInitialize = "_initialize" // optional: a reactor's start-up
	ExportDescribe   = "torpor_describe"
	ExportSave       = "torpor_save"
	ExportLoad       = "torpor_load"
	ExportMigrate    = "torpor_migrate"
	ExportInspect    = "torpor_inspect"
)

// Bits of the result of next, above the byte count in the low 32 bits.
const (
	NextEnd  = int64(1) << 32 // the input ends with these bytes
	NextMore = int64(1) << 33 // more of this record follows in the next call
)

// EmitMore is the flag bit of emit that says: more of this record follows.
const EmitMore = 1

// Results of emit. A host that refuses output ends the call itself, so a guest may treat anything
// but EmitOK as "return at once".
const (
	EmitOK      = 0
	EmitRefused = -1
)

// NextFailed is the result of next when the input cannot be read; the guest returns at once.
const NextFailed = int64(-1)

// Code is the number a guest hands to fail: what kind of error it met.
type Code int32

// The kinds of failure. Codes from 64 up are free for a serializer's own use and are reported as
// [CodeInternal] is.
const (
	CodeInternal    Code = 1 // a fault of the serializer itself
	CodeCorrupt     Code = 2 // the input is not what it claims to be
	CodeVersion     Code = 3 // the input is of a schema or version the serializer does not read
	CodeUnsupported Code = 4 // the input is sound but holds what this serializer cannot keep
	CodeTooLarge    Code = 5 // the input passes a limit
)

// Levels of log.
const (
	LogDebug = 0
	LogInfo  = 1
	LogWarn  = 2
	LogError = 3
)

// MaxLogBytes is the length, in bytes, a log line is cut to.
const MaxLogBytes = 1024

// Operations a descriptor may list; save and load are required.
const (
	OpDescribe = "describe"
	OpSave     = "save"
	OpLoad     = "load"
	OpMigrate  = "migrate"
	OpInspect  = "inspect"
)

// MediaRecords is the media type of native state that is records already: a CBOR sequence of them, which
// save and load pass on as they are, each for itself. Such a state can be saved as a difference.
const MediaRecords = "application/cbor-seq"

// Descriptor is what torpor_describe emits: one CBOR map with these text keys. A host ignores keys
// it does not know.
type Descriptor struct {
	Name       string   `cbor:"name"`             // the serializer's name, as in a state file's header
	Version    string   `cbor:"version"`          // its own version, free text
	Schema     uint64   `cbor:"schema"`           // the schema of the records save emits
	Reads      []uint64 `cbor:"reads"`            // schemas load accepts, Schema among them
	Media      string   `cbor:"media"`            // media type of the native state
	Operations []string `cbor:"operations"`       // of save, load, migrate, inspect
	Ordered    bool     `cbor:"ordered"`          // records leave save in ascending key order within a partition
	Canonical  bool     `cbor:"canonical"`        // load gives back the very bytes save was given
	Memory     uint64   `cbor:"memory,omitempty"` // a hint: bytes of memory one call needs
	// Nesting is the bytes that may follow the key of a record in the keys of those inside of it (ABI.md, "Records
	// inside of others"); "": none is inside of another. At most MaxNestingBytes of printable ASCII, no space.
	Nesting string `cbor:"nesting,omitempty"`
}

// MaxNestingBytes bounds Descriptor.Nesting.
const MaxNestingBytes = 16

// Call is the parameters of one call, which arg hands to the guest as one CBOR map with these keys.
type Call struct {
	Op       string         `cbor:"op"`
	Service  string         `cbor:"service"`
	Part     string         `cbor:"part"`
	Schema   uint64         `cbor:"schema"`         // load, inspect: the schema of the records given
	From     uint64         `cbor:"from,omitempty"` // migrate: the schema of the records given
	To       uint64         `cbor:"to,omitempty"`   // migrate: the schema wanted
	Time     int64          `cbor:"time"`           // the guest's wall clock, Unix nanoseconds
	Settings map[string]any `cbor:"settings,omitempty"`
}

// Failure is the CBOR map a guest hands to fail along with a [Code].
type Failure struct {
	Msg    string `cbor:"msg"`
	Path   string `cbor:"path,omitempty"`   // where in the state, for people
	Offset uint64 `cbor:"offset,omitempty"` // byte offset in the input of this call
}

// GroupKey is the key of a context's value that names a group: calls of serializers that run at the same
// time and wait for one another, such as a save and its proof. A host that bounds how many calls run at
// once counts those whose contexts have the same value as one. The value must be comparable and unlike
// that of any other group.
type GroupKey struct{}
