package host_test

import (
	"bytes"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"testing"
)

// footprint is what the process has of the machine.
type footprint struct {
	heap     int64 // bytes in use
	resident int64 // bytes; 0 where the system does not tell, as the two that follow
	mappings int
	images   int // mappings of a module's first memory
	files    int
}

func takeFootprint() (f footprint) {
	runtime.GC()         // finds what is to be finalized
	debug.FreeOSMemory() // and frees that too
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	f.heap = int64(s.HeapAlloc)
	if maps, err := os.ReadFile("/proc/self/maps"); err == nil {
		f.mappings, f.images = bytes.Count(maps, []byte("\n")), bytes.Count(maps, []byte("torpor-module"))
	}
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		f.files = len(fds)
	}
	if status, err := os.ReadFile("/proc/self/status"); err == nil {
		_, rest, _ := bytes.Cut(status, []byte("VmRSS:"))
		if words := bytes.Fields(rest); len(words) > 0 {
			kilobytes, _ := strconv.ParseInt(string(words[0]), 10, 64)
			f.resident = kilobytes << 10
		}
	}
	return f
}

// leavesNothing runs f some times and holds what the process has afterwards against what it had before,
// with wide room: what is left behind by each run shows all the same.
func leavesNothing(t *testing.T, f func()) {
	t.Helper()
	f() // what is made once for all
	before := takeFootprint()
	times := 5
	if testing.Short() {
		times = 2
	}
	for range times {
		f()
	}
	after := takeFootprint()
	if after.heap-before.heap > 4<<20 || !racing && after.resident-before.resident > 64<<20 || after.mappings-before.mappings > 20 || after.images > before.images || after.files > before.files {
		t.Errorf("it leaves something behind: before %+v, after %+v", before, after)
	}
}

// allocated is how many bytes of heap f asks for, given back or not.
func allocated(f func()) int64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}
