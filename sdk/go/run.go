package torpor

import (
	"errors"
	"io"
	"strconv"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// Host is the border as a guest sees it: the imports of ABI.md. In a module it is the real one;
// package torportest has another, for tests. Methods keep nothing of what they are given.
type Host interface {
	// Next fills buf, which is not empty, and returns the number of bytes and the bits
	// [abi.NextEnd] and [abi.NextMore], or a negative number if the input cannot be read.
	Next(buf []byte) int64
	// Emit appends p to the output. A result other than [abi.EmitOK] ends the call.
	Emit(p []byte, more bool) int32
	// Arg copies the call's parameters to buf if they fit, and returns how long they are.
	Arg(buf []byte) int
	// Fail says why the call fails: a CBOR map of [abi.Failure].
	Fail(code Code, failure []byte)
	// Log writes a line to the log.
	Log(level Level, line string)
}

// maxArgBytes is the longest map of parameters a host hands over (ABI.md, "Call").
const maxArgBytes = 64 << 10

// Run runs one operation of s against h and returns what the export returns: 0, or the code of the
// error that h has been told. A panic of s is such an error. It is what the exports of a module and
// package torportest do; serializers have no need of it.
func Run(h Host, op string, s Serializer) (status int32) {
	defer func() {
		if v := recover(); v != nil {
			status = report(h, panicked(v))
		}
	}()
	if err := run(h, op, s); err != nil {
		return report(h, err)
	}
	return 0
}

func run(h Host, op string, s Serializer) error {
	if s == nil {
		return &Error{Msg: "this module exports no serializer: its program must call torpor.Export in an init function"}
	}
	arg := make([]byte, 1<<10)
	n := h.Arg(arg)
	if n > maxArgBytes {
		return &Error{Code: CodeTooLarge, Msg: "the parameters of the call take " + strconv.Itoa(n) + " bytes"}
	}
	if n > len(arg) {
		arg = make([]byte, n)
		h.Arg(arg)
	}
	call, err := readCall(h, arg[:n])
	if err != nil {
		return err
	}
	in, out := newInput(h), newOutput(h)
	offered := true
	switch op {
	case abi.OpDescribe:
		describe(s, out)
		return out.finish()
	case abi.OpSave:
		err = s.Save(call, in, out)
	case abi.OpLoad:
		err = s.Load(call, in, out)
	case abi.OpMigrate:
		var m Migrator
		if m, offered = s.(Migrator); offered {
			err = m.Migrate(call, in, out)
		}
	case abi.OpInspect:
		var i Inspector
		if i, offered = s.(Inspector); offered {
			err = i.Inspect(call, in, out)
		}
	default:
		offered = false
	}
	if !offered {
		return &Error{Code: CodeUnsupported, Msg: "this serializer does not offer " + op}
	}
	if err != nil {
		return err
	}
	if err := in.finish(); err != nil {
		return err
	}
	return out.finish()
}

// describe writes the descriptor of s (ABI.md, "Descriptor").
func describe(s Serializer, out *Output) {
	d := s.Describe()
	if len(d.Reads) == 0 {
		d.Reads = []uint64{d.Schema}
	}
	if len(d.Operations) == 0 {
		d.Operations = []string{abi.OpSave, abi.OpLoad}
		if _, ok := s.(Migrator); ok {
			d.Operations = append(d.Operations, abi.OpMigrate)
		}
		if _, ok := s.(Inspector); ok {
			d.Operations = append(d.Operations, abi.OpInspect)
		}
	}
	pairs := 8
	if d.Nesting != "" {
		pairs++
	}
	if d.Memory != 0 {
		pairs++
	}
	b := record.AppendMap(nil, pairs)
	b = record.AppendText(b, "name")
	b = record.AppendText(b, d.Name)
	b = record.AppendText(b, "version")
	b = record.AppendText(b, d.Version)
	b = record.AppendText(b, "schema")
	b = record.AppendUint(b, d.Schema)
	b = record.AppendText(b, "reads")
	b = record.AppendArray(b, len(d.Reads))
	for _, n := range d.Reads {
		b = record.AppendUint(b, n)
	}
	b = record.AppendText(b, "media")
	b = record.AppendText(b, d.Media)
	b = record.AppendText(b, "operations")
	b = record.AppendArray(b, len(d.Operations))
	for _, o := range d.Operations {
		b = record.AppendText(b, o)
	}
	b = record.AppendText(b, "ordered")
	b = record.AppendBool(b, d.Ordered)
	b = record.AppendText(b, "canonical")
	b = record.AppendBool(b, d.Canonical)
	if d.Nesting != "" {
		b = record.AppendText(b, "nesting")
		b = record.AppendText(b, d.Nesting)
	}
	if d.Memory != 0 {
		b = record.AppendText(b, "memory")
		b = record.AppendUint(b, d.Memory)
	}
	out.Put(b)
}

// finish checks that all of the input was read, so that the serializer hears what it left over and
// where, and makes sure that the host has said that it ended.
func (in *Input) finish() error {
	if len(in.Bytes()) == 0 {
		if err := in.Fill(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return &Error{Code: CodeInternal, Msg: "the serializer returned before its input had ended", Offset: in.Offset()}
}
