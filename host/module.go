package host

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/tetratelabs/wazero"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/host/fuel"
)

// Module is a serializer ready to run. It is safe for concurrent use: every call has an instance to
// itself, which is as it was after _initialize, whatever ran before.
//
// A call's errors: ctx's, and its cause, when it was cancelled; the input's or the output's own,
// unchanged in the chain; a *[GuestError] when the serializer itself refused; a *[ModuleError] for a
// trap, a breach of the ABI or a limit. After any of them what was given to the sink or writer is to
// be discarded; the module can be called again.
type Module struct {
	*code
	name string
}

// code is a compiled module: what Modules of the same bytes and limits have in common.
type code struct {
	host       *Host
	name       string // of the first that was compiled
	digest     [sha256.Size]byte
	wasm       []byte
	limits     Limits
	tables     tables
	data       []segment // that the host writes into a new instance, not wazero
	info       fuel.Info
	runtime    wazero.Runtime
	cache      wazero.CompilationCache // nil without a cache folder
	compiled   wazero.CompiledModule
	descriptor abi.Descriptor
	shape      Shape
	first      *beginning // what an instance is put back to; nil if it can't be

	mu   sync.Mutex
	free []*instance // put back, for the next calls
}

// A GuestError is what a serializer said by fail. It wraps the sentinel that fits its code.
type GuestError struct {
	Module  string
	Op      string
	Code    abi.Code
	Failure abi.Failure
}

func (e *GuestError) Error() string {
	s := fmt.Sprintf("serializer %s: %s: %s", e.Module, e.Op, printable(e.Failure.Msg))
	if e.Failure.Path != "" {
		s += " at " + printable(e.Failure.Path)
	}
	if e.Failure.Offset != 0 || e.Code == abi.CodeCorrupt {
		s += fmt.Sprintf(" (offset %d)", e.Failure.Offset)
	}
	return s
}

// Unwrap gives abi.ErrCorrupt, abi.ErrVersion, abi.ErrTooLarge, or nil for other codes.
func (e *GuestError) Unwrap() error {
	switch e.Code {
	case abi.CodeCorrupt:
		return abi.ErrCorrupt
	case abi.CodeVersion:
		return abi.ErrVersion
	case abi.CodeTooLarge:
		return abi.ErrTooLarge
	default:
		return nil
	}
}

// Descriptor says what the module is and can do. Do not change its slices.
func (m *Module) Descriptor() abi.Descriptor { return m.descriptor }

// Digest is the SHA-256 of the .wasm given to Compile.
func (m *Module) Digest() [sha256.Size]byte { return m.digest }

// Wasm is the module as its author built it. Do not change it.
func (m *Module) Wasm() []byte { return m.wasm }

// Save reads native state to its end and writes its records, checked, to sink.
func (m *Module) Save(ctx context.Context, call abi.Call, native io.Reader, sink record.Sink) error {
	call.Op = abi.OpSave
	return m.call(ctx, abi.ExportSave, call, &nativeInput{r: native}, m.recordOutput(sink))
}

// Load reads records of schema call.Schema to their end and writes native state.
func (m *Module) Load(ctx context.Context, call abi.Call, records record.Source, native io.Writer) error {
	call.Op = abi.OpLoad
	return m.call(ctx, abi.ExportLoad, call, &recordInput{src: records}, &nativeOutput{w: native})
}

// Migrate reads records of schema call.From and writes those of call.To, checked, to sink.
func (m *Module) Migrate(ctx context.Context, call abi.Call, records record.Source, sink record.Sink) error {
	call.Op = abi.OpMigrate
	if err := m.offers(abi.OpMigrate); err != nil {
		return err
	}
	return m.call(ctx, abi.ExportMigrate, call, &recordInput{src: records}, m.recordOutput(sink))
}

// Inspect reads records of schema call.Schema and writes a summary for people: one CBOR item.
func (m *Module) Inspect(ctx context.Context, call abi.Call, records record.Source, w io.Writer) error {
	call.Op = abi.OpInspect
	if err := m.offers(abi.OpInspect); err != nil {
		return err
	}
	return m.call(ctx, abi.ExportInspect, call, &recordInput{src: records}, &nativeOutput{w: w})
}

func (m *Module) recordOutput(sink record.Sink) *recordOutput {
	return &recordOutput{sink: sink, scan: record.Scanner{MaxBytes: int(m.limits.RecordBytes)}, limit: int(m.limits.RecordBytes), most: m.limits.Records}
}

func (m *Module) offers(op string) error {
	if slices.Contains(m.descriptor.Operations, op) {
		return nil
	}
	return &ModuleError{Module: m.name, Op: op, Reason: "the serializer does not offer this operation", Err: abi.ErrVersion}
}

// describe runs torpor_describe and holds the answer against what the module exports.
func (c *code) describe(ctx context.Context) error {
	m := &Module{c, c.name}
	refuse := func(format string, args ...any) error {
		return &ModuleError{Module: m.name, Op: abi.OpDescribe, Reason: fmt.Sprintf(format, args...)}
	}
	var out bytes.Buffer
	err := m.call(ctx, abi.ExportDescribe, abi.Call{Op: abi.OpDescribe}, &nativeInput{r: bytes.NewReader(nil)},
		&nativeOutput{w: &out, limit: maxDescriptorBytes})
	if err != nil {
		return err
	}
	d := &m.descriptor
	if err := m.host.decode.Unmarshal(out.Bytes(), d); err != nil {
		return refuse("its descriptor is no CBOR map of the expected form: %v", err)
	}
	if d.Name == "" || d.Version == "" || d.Media == "" {
		return refuse("its descriptor lacks name, version or media")
	}
	if len(d.Nesting) > abi.MaxNestingBytes || strings.ContainsFunc(d.Nesting, func(r rune) bool { return r < '!' || r > '~' }) {
		return refuse("its nesting %.40q is not what it can be: at most %d characters of printable ASCII", d.Nesting, abi.MaxNestingBytes)
	}
	if !slices.Contains(d.Reads, d.Schema) {
		return refuse("it writes schema %d but reads only %v", d.Schema, d.Reads)
	}
	exports := m.compiled.ExportedFunctions()
	for op, export := range map[string]string{abi.OpSave: abi.ExportSave, abi.OpLoad: abi.ExportLoad,
		abi.OpMigrate: abi.ExportMigrate, abi.OpInspect: abi.ExportInspect} {
		if slices.Contains(d.Operations, op) && exports[export] == nil {
			return refuse("it offers %s but exports no %s", op, export)
		}
	}
	for _, op := range []string{abi.OpSave, abi.OpLoad} {
		if !slices.Contains(d.Operations, op) {
			return refuse("its operations %v lack %s", d.Operations, op)
		}
	}
	return nil
}

// errAbort unwinds the guest after the host has noted why in the call; wazero turns it into the error
// of the guest function.
var errAbort = errors.New("call ended by the host")
