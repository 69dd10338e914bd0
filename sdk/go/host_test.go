package torpor_test

import (
	"bytes"
	"fmt"

	"github.com/torpor-run/torpor/host/abi"
	torpor "github.com/torpor-run/torpor/sdk/go"
)

// script is a host that gives the pieces of input it is told to and keeps what it is given.
type script struct {
	pieces   []piece
	late     bool // the end comes alone
	arg      []byte
	refuse   int // Emit refuses after so many calls; 0: never
	nexts    int
	emitted  []emitted
	failures []failure
}

type piece struct {
	data []byte
	more bool
}

type emitted struct {
	data []byte
	more bool
}

type failure struct {
	code torpor.Code
	data []byte
}

// cut makes pieces of so many bytes.
func cut(data []byte, size int) []piece {
	var all []piece
	for len(data) > 0 {
		n := min(size, len(data))
		all = append(all, piece{data: data[:n]})
		data = data[n:]
	}
	return all
}

func (s *script) Next(buf []byte) int64 {
	s.nexts++
	if len(buf) == 0 {
		panic("room for nothing")
	}
	result := int64(0)
	if len(s.pieces) > 0 {
		p := &s.pieces[0]
		n := copy(buf, p.data)
		p.data = p.data[n:]
		result = int64(n)
		if p.more {
			result |= abi.NextMore
		}
		if len(p.data) == 0 {
			s.pieces = s.pieces[1:]
		}
	}
	if len(s.pieces) == 0 && !(s.late && result != 0) {
		result |= abi.NextEnd
	}
	return result
}

func (s *script) Emit(p []byte, more bool) int32 {
	s.emitted = append(s.emitted, emitted{bytes.Clone(p), more})
	if s.refuse > 0 && len(s.emitted) > s.refuse {
		return abi.EmitRefused
	}
	return abi.EmitOK
}

func (s *script) Arg(buf []byte) int {
	if len(s.arg) <= len(buf) {
		copy(buf, s.arg)
	}
	return len(s.arg)
}

func (s *script) Fail(code torpor.Code, data []byte) {
	s.failures = append(s.failures, failure{code, bytes.Clone(data)})
}

func (s *script) Log(level torpor.Level, line string) {
	s.emitted = append(s.emitted, emitted{data: fmt.Appendf(nil, "log %d %s", level, line)})
}

// funcs is a serializer of functions.
type funcs struct {
	save func(call *torpor.Call, native *torpor.Input, records *torpor.Output) error
	load func(call *torpor.Call, records *torpor.Input, native *torpor.Output) error
}

func (funcs) Describe() torpor.Descriptor {
	return torpor.Descriptor{Name: "funcs", Version: "1", Schema: 3, Media: "text/plain"}
}

func (f funcs) Save(call *torpor.Call, native *torpor.Input, records *torpor.Output) error {
	return f.save(call, native, records)
}

func (f funcs) Load(call *torpor.Call, records *torpor.Input, native *torpor.Output) error {
	return f.load(call, records, native)
}
