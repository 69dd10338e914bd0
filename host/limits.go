package host

import (
	"fmt"
	"time"

	"github.com/torpor-run/torpor/host/abi/record"
)

// Bounds and defaults of [Limits].
const (
	MinMemoryBytes     = 1 << 20
	DefaultMemoryBytes = 256 << 20
	MaxMemoryBytes     = 4<<30 - wasmPage

	MinModuleBytes     = 1 << 10
	DefaultModuleBytes = 16 << 20
	MaxModuleBytes     = 64 << 20

	MinOutputBytes     = 1 << 20
	DefaultOutputBytes = 64 << 30
	MaxOutputBytes     = 1 << 42

	MinCallTime     = 100 * time.Millisecond
	DefaultCallTime = 10 * time.Minute
	MaxCallTime     = 24 * time.Hour

	MinLogLines     = 1
	DefaultLogLines = 100
	MaxLogLines     = 10_000
)

const (
	wasmPage           = 64 << 10
	maxDescriptorBytes = 64 << 10
	maxFailureBytes    = 16 << 10
	maxCallBytes       = 64 << 10
)

// Limits bounds what one module may use. A zero field means its default; a field outside its minimum
// and maximum is an error of [New].
type Limits struct {
	MemoryBytes int64         // guest memory of one call
	ModuleBytes int64         // size of the .wasm
	OutputBytes int64         // what one call may emit
	RecordBytes int64         // one record; see record.DefaultMaxBytes
	CallTime    time.Duration // one call, by the wall clock; looked at when the guest reads, writes, logs or asks for the time
	LogLines    int64         // log lines one call may write
}

func (l Limits) withDefaults() (Limits, error) {
	for _, f := range []struct {
		name          string
		value         *int64
		min, def, max int64
	}{
		{"MemoryBytes", &l.MemoryBytes, MinMemoryBytes, DefaultMemoryBytes, MaxMemoryBytes},
		{"ModuleBytes", &l.ModuleBytes, MinModuleBytes, DefaultModuleBytes, MaxModuleBytes},
		{"OutputBytes", &l.OutputBytes, MinOutputBytes, DefaultOutputBytes, MaxOutputBytes},
		{"RecordBytes", &l.RecordBytes, record.MinMaxBytes, record.DefaultMaxBytes, record.MaxMaxBytes},
		{"CallTime", (*int64)(&l.CallTime), int64(MinCallTime), int64(DefaultCallTime), int64(MaxCallTime)},
		{"LogLines", &l.LogLines, MinLogLines, DefaultLogLines, MaxLogLines},
	} {
		if *f.value == 0 {
			*f.value = f.def
		}
		if *f.value < f.min || *f.value > f.max {
			return l, fmt.Errorf("host: limit %s is %d; it may be %d to %d", f.name, *f.value, f.min, f.max)
		}
	}
	return l, nil
}
