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

	MinTableElements     = 1
	DefaultTableElements = 100_000
	MaxTableElements     = 10_000_000

	MinOutputBytes     = 1 << 20
	DefaultOutputBytes = 64 << 30
	MaxOutputBytes     = 1 << 42

	MinRecords     = 1
	DefaultRecords = 4_000_000_000
	MaxRecords     = 4_000_000_000_000

	MinCompileTime     = time.Second
	DefaultCompileTime = 2 * time.Minute
	MaxCompileTime     = time.Hour

	MinCallTime     = 100 * time.Millisecond
	DefaultCallTime = 10 * time.Minute
	MaxCallTime     = 24 * time.Hour

	MinCallFuel     = 1_000_000
	DefaultCallFuel = 2_000_000_000_000
	MaxCallFuel     = 4_000_000_000_000_000_000

	MinSliceFuel     = 1_000_000
	DefaultSliceFuel = 1_000_000_000
	MaxSliceFuel     = 4_000_000_000_000_000_000

	MinLogLines     = 1
	DefaultLogLines = 100
	MaxLogLines     = 10_000
)

const (
	wasmPage           = 64 << 10
	maxDescriptorBytes = 64 << 10
	maxFailureBytes    = 16 << 10
	maxCallBytes       = 64 << 10
	maxReasonBytes     = 16 << 10  // of a ModuleError, in which there are names out of the module
	maxNameBytes       = 256       // of a function, where it trapped
	maxSectionEntries  = 100_000   // of one section other than those of functions, which package fuel bounds
	maxNames           = 1_000_000 // in the name section
)

// Limits bounds what one module may use. A zero field means its default; a field outside its minimum
// and maximum is an error of [New].
//
// Fuel is what a guest computes, an instruction costing about one unit (package fuel). The count depends
// on the module and its input alone. A machine does a billion units a second, or a third of that where code is made to be slow. The
// host takes a look at each 16th call of an import at the latest, and at the first after 4 KiB were moved.
type Limits struct {
	MemoryBytes   int64         // guest memory of one call
	ModuleBytes   int64         // size of the .wasm
	TableElements int64         // elements of all the module's tables together
	CompileTime   time.Duration // compiling the module; looked at after each function
	OutputBytes   int64         // what one call may emit
	RecordBytes   int64         // one record; see record.DefaultMaxBytes
	Records       int64         // records that one call may emit
	CallTime      time.Duration // one call, by the wall clock; looked at whenever the guest calls the host
	CallFuel      int64         // what one call may compute
	SliceFuel     int64         // what it may compute without a look at it, during which nothing can end it
	LogLines      int64         // log lines one call may write
}

// Bound is one field of [Limits] and what it may be. Durations are in nanoseconds.
type Bound struct {
	Name              string
	Value             *int64
	Min, Default, Max int64
}

// Bounds gives all fields, which can be read and set by it.
func (l *Limits) Bounds() []Bound {
	return []Bound{
		{"MemoryBytes", &l.MemoryBytes, MinMemoryBytes, DefaultMemoryBytes, MaxMemoryBytes},
		{"ModuleBytes", &l.ModuleBytes, MinModuleBytes, DefaultModuleBytes, MaxModuleBytes},
		{"TableElements", &l.TableElements, MinTableElements, DefaultTableElements, MaxTableElements},
		{"CompileTime", (*int64)(&l.CompileTime), int64(MinCompileTime), int64(DefaultCompileTime), int64(MaxCompileTime)},
		{"OutputBytes", &l.OutputBytes, MinOutputBytes, DefaultOutputBytes, MaxOutputBytes},
		{"RecordBytes", &l.RecordBytes, record.MinMaxBytes, record.DefaultMaxBytes, record.MaxMaxBytes},
		{"Records", &l.Records, MinRecords, DefaultRecords, MaxRecords},
		{"CallTime", (*int64)(&l.CallTime), int64(MinCallTime), int64(DefaultCallTime), int64(MaxCallTime)},
		{"CallFuel", &l.CallFuel, MinCallFuel, DefaultCallFuel, MaxCallFuel},
		{"SliceFuel", &l.SliceFuel, MinSliceFuel, DefaultSliceFuel, MaxSliceFuel},
		{"LogLines", &l.LogLines, MinLogLines, DefaultLogLines, MaxLogLines},
	}
}

// withDefaults fills fields that are 0 from base, then from the defaults, and checks all.
func (l Limits) withDefaults(base Limits) (Limits, error) {
	from := base.Bounds()
	for i, f := range l.Bounds() {
		if *f.Value == 0 {
			*f.Value = *from[i].Value
		}
		if *f.Value == 0 {
			*f.Value = f.Default
		}
		if *f.Value < f.Min || *f.Value > f.Max {
			return l, fmt.Errorf("host: limit %s is %d; it may be %d to %d", f.Name, *f.Value, f.Min, f.Max)
		}
	}
	return l, nil
}
