package torpor

import (
	"runtime"
	"unsafe"

	"github.com/torpor-run/torpor/host/abi"
)

// The imports of ABI.md. The directive takes a literal: it is abi.Namespace.

//go:wasmimport torpor_v1 next
//go:noescape
func hostNext(buf unsafe.Pointer, size uint32) int64

//go:wasmimport torpor_v1 emit
//go:noescape
func hostEmit(p unsafe.Pointer, size uint32, flags uint32) int32

//go:wasmimport torpor_v1 arg
//go:noescape
func hostArg(buf unsafe.Pointer, size uint32) int32

//go:wasmimport torpor_v1 fail
//go:noescape
func hostFail(code int32, p unsafe.Pointer, size uint32)

//go:wasmimport torpor_v1 log
//go:noescape
func hostLog(level int32, p unsafe.Pointer, size uint32)

// imports is the [Host] of a module. Each method derives address and length from one slice, and the
// host touches it only inside the call (ABI.md, "Ownership").
type imports struct{}

func (imports) Next(buf []byte) int64 {
	return hostNext(unsafe.Pointer(unsafe.SliceData(buf)), uint32(len(buf)))
}

func (imports) Emit(p []byte, more bool) int32 {
	var flags uint32
	if more {
		flags = abi.EmitMore
	}
	return hostEmit(unsafe.Pointer(unsafe.SliceData(p)), uint32(len(p)), flags)
}

func (imports) Arg(buf []byte) int {
	return int(uint32(hostArg(unsafe.Pointer(unsafe.SliceData(buf)), uint32(len(buf)))))
}

func (imports) Fail(code Code, failure []byte) {
	hostFail(int32(code), unsafe.Pointer(unsafe.SliceData(failure)), uint32(len(failure)))
}

func (imports) Log(level Level, line string) {
	hostLog(int32(level), unsafe.Pointer(unsafe.StringData(line)), uint32(len(line)))
}

// called tells that a call has run in this instance.
var called bool

// call is what every export does.
//
// From the second call in an instance on it collects garbage first, because Go paces its collector by the
// clock: under a host whose clock leaps at every reading (wazero's own steps a millisecond) the collector
// falls behind and memory grows from call to call, by what each has left. A first call has nothing to
// collect, and looking for it takes a million instructions. Package host begins each call in an instance
// that is as if none had run.
func call(op string) int32 {
	if called {
		runtime.GC()
	}
	called = true
	return Run(imports{}, op, exported)
}

//go:wasmexport torpor_describe
func exportDescribe() int32 { return call(abi.OpDescribe) }

//go:wasmexport torpor_save
func exportSave() int32 { return call(abi.OpSave) }

//go:wasmexport torpor_load
func exportLoad() int32 { return call(abi.OpLoad) }

//go:wasmexport torpor_migrate
func exportMigrate() int32 { return call(abi.OpMigrate) }

//go:wasmexport torpor_inspect
func exportInspect() int32 { return call(abi.OpInspect) }
