package host_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi/record"
)

func TestLimits(t *testing.T) {
	for _, f := range []struct {
		name     string
		with     func(v int64) host.Limits
		min, max int64
	}{
		{"MemoryBytes", func(v int64) host.Limits { return host.Limits{MemoryBytes: v} }, host.MinMemoryBytes, host.MaxMemoryBytes},
		{"ModuleBytes", func(v int64) host.Limits { return host.Limits{ModuleBytes: v} }, host.MinModuleBytes, host.MaxModuleBytes},
		{"OutputBytes", func(v int64) host.Limits { return host.Limits{OutputBytes: v} }, host.MinOutputBytes, host.MaxOutputBytes},
		{"RecordBytes", func(v int64) host.Limits { return host.Limits{RecordBytes: v} }, record.MinMaxBytes, record.MaxMaxBytes},
		{"CallTime", func(v int64) host.Limits { return host.Limits{CallTime: time.Duration(v)} }, int64(host.MinCallTime), int64(host.MaxCallTime)},
		{"LogLines", func(v int64) host.Limits { return host.Limits{LogLines: v} }, host.MinLogLines, host.MaxLogLines},
	} {
		t.Run(f.name, func(t *testing.T) {
			for _, v := range []int64{0, f.min, f.max} {
				newHost(t, host.Config{Limits: f.with(v)})
			}
			for _, v := range []int64{-1, f.min - 1, f.max + 1} {
				if v == 0 {
					continue // means the default
				}
				_, err := host.New(t.Context(), host.Config{Limits: f.with(v)})
				want := fmt.Sprintf("limit %s is %d; it may be %d to %d", f.name, v, f.min, f.max)
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%d: %v, want %q", v, err, want)
				}
			}
		})
	}
}

// The defaults are what applies when nothing is said: the test's module begins with as much memory as
// the default allows, and with a page more.
func TestDefaultLimits(t *testing.T) {
	h := newHost(t, host.Config{})
	g := newGuest()
	g.memory = append([]byte{0}, uleb128(host.DefaultMemoryBytes>>16)...)
	compile(t, h, g.bytes())
	g.memory = append([]byte{0}, uleb128(host.DefaultMemoryBytes>>16+1)...)
	if _, err := h.Compile(t.Context(), guestName, g.bytes()); err == nil || !strings.Contains(err.Error(), "begins with 4097 pages") {
		t.Error(err)
	}
}

// TestLoggerIsRequired: it is missed when the host is made, not when the first module logs.
func TestLoggerIsRequired(t *testing.T) {
	if h, err := host.New(t.Context(), host.Config{}); err == nil || !strings.Contains(err.Error(), "Logger") {
		t.Errorf("%v, %v", h, err)
	}
}
