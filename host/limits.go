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
	DefaultRecords = 1 << 32
	MaxRecords     = 1 << 42

	MinCallTime     = 100 * time.Millisecond
	DefaultCallTime = 10 * time.Minute
	MaxCallTime     = 24 * time.Hour

	MinCallFuel     = 1_000_000
	DefaultCallFuel = 2_000_000_000_000
	MaxCallFuel     = 1 << 62

	MinSliceFuel     = 1_000_000
	DefaultSliceFuel = 4_000_000_000
	MaxSliceFuel     = 1 << 62

	MinLogLines     = 1
	DefaultLogLines = 100
	MaxLogLines     = 10_000
)

const (
	wasmPage           = 64 << 10
	maxDescriptorBytes = 64 << 10
	maxFailureBytes    = 16 << 10
	maxCallBytes       = 64 << 10
	maxSectionEntries  = 100_000 // of one section other than those of functions, which package fuel bounds
)

// Limits bounds what one module may use. A zero field means its default; a field outside its minimum
// and maximum is an error of [New].
//
// Fuel is what a guest computes, an instruction costing about one unit (package fuel). The count depends
// on the module and its input alone. A machine does some billion units a second.
type Limits struct {
	MemoryBytes   int64         // guest memory of one call
	ModuleBytes   int64         // size of the .wasm
	TableElements int64         // elements of all the module's tables together
	OutputBytes   int64         // what one call may emit
	RecordBytes   int64         // one record; see record.DefaultMaxBytes
	Records       int64         // records that one call may emit
	CallTime      time.Duration // one call, by the wall clock; looked at whenever the guest calls the host
	CallFuel      int64         // what one call may compute
	SliceFuel     int64         // what it may compute between two calls of the host, during which nothing can end it
	LogLines      int64         // log lines one call may write
}

// bound is one field of Limits.
type bound struct {
	name          string
	value         *int64
	min, def, max int64
}

func (l *Limits) bounds() []bound {
	return []bound{
		{"MemoryBytes", &l.MemoryBytes, MinMemoryBytes, DefaultMemoryBytes, MaxMemoryBytes},
		{"ModuleBytes", &l.ModuleBytes, MinModuleBytes, DefaultModuleBytes, MaxModuleBytes},
		{"TableElements", &l.TableElements, MinTableElements, DefaultTableElements, MaxTableElements},
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
	from := base.bounds()
	for i, f := range l.bounds() {
		if *f.value == 0 {
			*f.value = *from[i].value
		}
		if *f.value == 0 {
			*f.value = f.def
		}
		if *f.value < f.min || *f.value > f.max {
			return l, fmt.Errorf("host: limit %s is %d; it may be %d to %d", f.name, *f.value, f.min, f.max)
		}
	}
	return l, nil
}
