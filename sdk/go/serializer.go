// Package torpor is the Go SDK for serializers: WebAssembly modules that turn a service's native state
// into records and back (host/abi/ABI.md).
//
// Implement [Serializer], hand it to [Export] from an init function, and build with
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -trimpath -ldflags="-s -w" -o my.wasm
//
// [Input] streams a call's input in: as records ([Input.Record]), as lines ([Input.Until]), as an
// io.Reader, or as a window of bytes. [Output] streams records or native state out. Memory is bounded
// by two buffers and the longest record or line, whatever the size of the state. [Error] says what
// went wrong, and where.
//
// Package torportest runs a serializer in plain Go, by the rules of the border, so that most tests
// need no WebAssembly. Package jsonscan reads and writes JSON. README.md has the shortest complete
// serializer, examples/todo a longer one.
//
// What a serializer imports it carries: package fmt adds 0.7 MB to a module. Reflection (encoding/json,
// most CBOR libraries) is some twenty times slower in a guest than reading item by item with
// [record.Pull].
package torpor

import (
	"bytes"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// Descriptor is what a serializer says about itself. Name, Version and Media must not be empty.
// [Run] fills in what is left out: Reads is [Schema], Operations are those the type has methods for.
type Descriptor = abi.Descriptor

// Serializer turns native state into records and back.
//
// Each method reads its input until io.EOF and returns; after an error nothing that was written
// counts. Methods are pure: the same input gives the same output, however it is cut into pieces, and
// no call leaves a trace that another one could show. So a Serializer holds no state of its own, and
// what a method ranges over in a map it must sort.
//
// One call runs at a time. Memory that an Input gave out is valid until that Input's next method.
type Serializer interface {
	// Describe says what the serializer is and can do: the same at every call.
	Describe() Descriptor
	// Save reads native state and writes records.
	Save(call *Call, native *Input, records *Output) error
	// Load reads records of schema call.Schema and writes native state.
	Load(call *Call, records *Input, native *Output) error
}

// Migrator is a [Serializer] that brings records from one schema to another.
type Migrator interface {
	// Migrate reads records of schema call.From and writes those of call.To. It refuses a pair that
	// it does not know with [CodeVersion].
	Migrate(call *Call, records *Input, migrated *Output) error
}

// Inspector is a [Serializer] that can tell people what records hold.
type Inspector interface {
	// Inspect reads records of schema call.Schema and writes a summary: one CBOR map.
	Inspect(call *Call, records *Input, summary *Output) error
}

// Call is the parameters of one call (ABI.md, "Call"). It is valid until the call returns.
type Call struct {
	Op      string // one of package abi's Op constants
	Service string
	Part    string
	Schema  uint64 // save: the schema wanted; load, inspect: that of the records given
	From    uint64 // migrate: the schema of the records given
	To      uint64 // migrate: the schema wanted
	Time    int64  // the wall clock of this call, in nanoseconds since 1970

	settings []byte // a CBOR map, or empty
	host     Host
}

// Log writes a line to the host's log, which cuts it to [abi.MaxLogBytes] and drops lines that come
// too fast. Logging is no output.
func (c *Call) Log(level Level, line string) { c.host.Log(level, line) }

// Level is how much a log line matters.
type Level int32

// The levels of [Call.Log].
const (
	LevelDebug Level = abi.LogDebug
	LevelInfo  Level = abi.LogInfo
	LevelWarn  Level = abi.LogWarn
	LevelError Level = abi.LogError
)

// Settings walks the part's settings: each is called with a name and a reader of its value, and may
// read less than all of it. A name that is not among allowed is [CodeUnsupported], since a misspelled
// setting is worth telling; so is what the reader found wrong.
func (c *Call) Settings(allowed []string, each func(name string, value *record.Pull) error) error {
	if len(c.settings) == 0 {
		return nil
	}
	settings := record.NewPull(c.settings)
	for range settings.Map() {
		name := string(settings.Text())
		item := settings.Skip()
		if settings.Err() != nil {
			break
		}
		known := false
		for _, a := range allowed {
			known = known || a == name
		}
		if !known {
			msg := "unknown setting; known are:"
			for _, a := range allowed {
				msg += " " + a
			}
			return &Error{Code: CodeUnsupported, Msg: msg, Path: "settings." + name}
		}
		value := record.NewPull(item)
		if err := each(name, value); err != nil {
			return err
		}
		if err := value.Err(); err != nil {
			return &Error{Code: CodeUnsupported, Msg: reason(err), Path: "settings." + name}
		}
	}
	if err := settings.End(); err != nil {
		return &Error{Code: CodeUnsupported, Msg: reason(err), Path: "settings"}
	}
	return nil
}

// readCall reads the map that arg gave. Keys it does not know are passed over.
func readCall(h Host, arg []byte) (*Call, error) {
	c := &Call{host: h}
	p := record.NewPull(arg)
	for range p.Map() {
		switch string(p.Text()) {
		case "op":
			c.Op = string(p.Text())
		case "service":
			c.Service = string(p.Text())
		case "part":
			c.Part = string(p.Text())
		case "schema":
			c.Schema = p.Uint()
		case "from":
			c.From = p.Uint()
		case "to":
			c.To = p.Uint()
		case "time":
			c.Time = p.Int()
		case "settings":
			if item := p.Skip(); !bytes.Equal(item, record.AppendNull(nil)) {
				c.settings = item
			}
		default:
			p.Skip()
		}
	}
	if err := p.End(); err != nil {
		return nil, &Error{Code: CodeInternal, Msg: "the parameters of the call: " + reason(err)}
	}
	return c, nil
}
