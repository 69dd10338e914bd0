//go:build !tinygo

package torpor

import (
	"runtime"
	"strconv"
	"strings"
)

// place says where the panic came from that is being recovered, in words to be put behind a message.
func place() string {
	// Skipped: runtime.Callers, this function, panicked, and the deferred function that recovered.
	var pcs [16]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(4, pcs[:])])
	for {
		f, more := frames.Next()
		if f.Function != "" && !strings.HasPrefix(f.Function, "runtime.") {
			file := f.File[strings.LastIndexByte(f.File, '/')+1:]
			return " in " + f.Function + " at " + file + ":" + strconv.Itoa(f.Line)
		}
		if !more {
			return ""
		}
	}
}
