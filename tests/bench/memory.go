package main

import (
	"bytes"
	"os"
	goruntime "runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"time"
)

// samplePause is the time between two looks at the memory.
const samplePause = 2 * time.Millisecond

// memory is how much of it this process takes, in bytes.
type memory struct {
	heap   int64 // objects, dead ones that have not been swept included; guests' memory is among them
	mapped int64 // all that Go has from the system and has not given back
	rss    int64 // resident set size; 0 where /proc does not tell
}

// meter looks at the memory.
type meter struct{ samples [3]metrics.Sample }

func newMeter() *meter {
	m := &meter{}
	m.samples[0].Name = "/memory/classes/heap/objects:bytes"
	m.samples[1].Name = "/memory/classes/total:bytes"
	m.samples[2].Name = "/memory/classes/heap/released:bytes"
	return m
}

func (m *meter) read() memory {
	metrics.Read(m.samples[:])
	v := func(i int) int64 { return int64(m.samples[i].Value.Uint64()) }
	return memory{heap: v(0), mapped: v(1) - v(2), rss: residentBytes()}
}

// residentBytes is the process's resident set size, 0 where the system does not tell.
func residentBytes() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(b)
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// peakOf runs f and gives the highest of each figure seen meanwhile, above what it was before: idle,
// with everything collected and given back to the system.
func peakOf(f func() error) (memory, error) {
	goruntime.GC()
	debug.FreeOSMemory()
	m := newMeter()
	idle := m.read()
	peak := idle
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(samplePause)
		defer tick.Stop()
		for {
			now := m.read()
			peak = memory{max(peak.heap, now.heap), max(peak.mapped, now.mapped), max(peak.rss, now.rss)}
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	}()
	err := f()
	close(stop)
	<-stopped
	return memory{peak.heap - idle.heap, peak.mapped - idle.mapped, peak.rss - idle.rss}, err
}

// through is what passing a state through the runtime took.
type through struct {
	took  time.Duration
	bytes int64 // of records
	memory
	guest int64 // bytes of linear memory, all guests at work together
}
