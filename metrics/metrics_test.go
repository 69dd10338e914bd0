package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/metrics"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/vfs"
)

func newMetrics(t *testing.T) (*metrics.Metrics, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	m, err := metrics.New(reg, metrics.Build{Version: "1.2.3", Revision: "abc", GoVersion: "go1.26"})
	if err != nil {
		t.Fatal(err)
	}
	return m, reg
}

// series gives every series there is as `name{label="value"} number`: counters and gauges by their
// value, histograms by their count and their sum.
func series(t *testing.T, reg prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			labels := make([]string, len(m.Label))
			for i, l := range m.Label {
				labels[i] = fmt.Sprintf("%s=%q", l.GetName(), l.GetValue())
			}
			id := func(suffix string) string { return f.GetName() + suffix + "{" + strings.Join(labels, ",") + "}" }
			switch f.GetType() {
			case dto.MetricType_COUNTER:
				all[id("")] = m.Counter.GetValue()
			case dto.MetricType_GAUGE:
				all[id("")] = m.Gauge.GetValue()
			case dto.MetricType_HISTOGRAM:
				all[id("_count")] = float64(m.Histogram.GetSampleCount())
				all[id("_sum")] = m.Histogram.GetSampleSum()
			default:
				t.Fatalf("%s is a %v", f.GetName(), f.GetType())
			}
		}
	}
	return all
}

// moves checks that do changes exactly the series named, each by as much.
func moves(t *testing.T, reg prometheus.Gatherer, do func(), want map[string]float64) {
	t.Helper()
	before := series(t, reg)
	do()
	after := series(t, reg)
	for name, v := range after {
		moved := v - before[name]
		if by := want[name]; moved-by > 1e-9 || by-moved > 1e-9 {
			t.Errorf("%s moved by %v, want %v", name, moved, by)
		}
	}
	for name := range want {
		if _, ok := after[name]; !ok {
			t.Errorf("there is no %s", name)
		}
	}
}

func TestBuildInfo(t *testing.T) {
	_, reg := newMetrics(t)
	if got := series(t, reg)[`torpor_build_info{goversion="go1.26",revision="abc",version="1.2.3"}`]; got != 1 {
		t.Errorf("build info is %v in %v", got, series(t, reg))
	}
}

func TestNewTellsWhatRegistersTwice(t *testing.T) {
	_, reg := newMetrics(t)
	var twice prometheus.AlreadyRegisteredError
	if _, err := metrics.New(reg, metrics.Build{Version: "1.2.3", Revision: "abc", GoVersion: "go1.26"}); !errors.As(err, &twice) {
		t.Errorf("the second registration: %v", err)
	}
}

func TestEventsMoveTheirSeries(t *testing.T) {
	const ms = time.Millisecond
	boom := fmt.Errorf("boom: %w", abi.ErrCorrupt)
	for _, c := range []struct {
		name string
		do   func(*metrics.Metrics)
		want map[string]float64
	}{
		{"restore", func(m *metrics.Metrics) {
			m.RestoreFinished(runtime.RestoreEvent{Service: "s3", Part: "store", Generation: 7, Records: 3, Bytes: 1000,
				Read: 1 * ms, Decode: 2 * ms, Deliver: 4 * ms, Total: 5 * ms})
		}, map[string]float64{
			`torpor_restore_duration_seconds_count{part="store",phase="read",service="s3"}`:    1,
			`torpor_restore_duration_seconds_sum{part="store",phase="read",service="s3"}`:      0.001,
			`torpor_restore_duration_seconds_count{part="store",phase="decode",service="s3"}`:  1,
			`torpor_restore_duration_seconds_sum{part="store",phase="decode",service="s3"}`:    0.002,
			`torpor_restore_duration_seconds_count{part="store",phase="deliver",service="s3"}`: 1,
			`torpor_restore_duration_seconds_sum{part="store",phase="deliver",service="s3"}`:   0.004,
			`torpor_restore_duration_seconds_count{part="store",phase="total",service="s3"}`:   1,
			`torpor_restore_duration_seconds_sum{part="store",phase="total",service="s3"}`:     0.005,
			`torpor_restored_bytes_total{part="store",service="s3"}`:                           1000,
		}},
		{"restore that failed", func(m *metrics.Metrics) {
			m.RestoreFinished(runtime.RestoreEvent{Service: "s3", Part: "store", Bytes: 1000, Total: 5 * ms, Err: boom})
		}, map[string]float64{`torpor_failures_total{operation="restore",part="store",reason="corrupt",service="s3"}`: 1}},
		{"save", func(m *metrics.Metrics) {
			m.SaveFinished(runtime.SaveEvent{Service: "s3", Part: "store", Records: 3, Bytes: 1000, FileBytes: 5000, Written: 1200,
				Capture: 1 * ms, Serialize: 2 * ms, Prove: 3 * ms, Commit: 4 * ms, Total: 8 * ms})
		}, map[string]float64{
			`torpor_save_duration_seconds_count{part="store",phase="capture",service="s3"}`:   1,
			`torpor_save_duration_seconds_sum{part="store",phase="capture",service="s3"}`:     0.001,
			`torpor_save_duration_seconds_count{part="store",phase="serialize",service="s3"}`: 1,
			`torpor_save_duration_seconds_sum{part="store",phase="serialize",service="s3"}`:   0.002,
			`torpor_save_duration_seconds_count{part="store",phase="prove",service="s3"}`:     1,
			`torpor_save_duration_seconds_sum{part="store",phase="prove",service="s3"}`:       0.003,
			`torpor_save_duration_seconds_count{part="store",phase="commit",service="s3"}`:    1,
			`torpor_save_duration_seconds_sum{part="store",phase="commit",service="s3"}`:      0.004,
			`torpor_save_duration_seconds_count{part="store",phase="total",service="s3"}`:     1,
			`torpor_save_duration_seconds_sum{part="store",phase="total",service="s3"}`:       0.008,
			`torpor_saves_total{kind="full",part="store",service="s3"}`:                       1,
			`torpor_saved_bytes_total{part="store",service="s3"}`:                             1200,
		}},
		{"save of what has changed", func(m *metrics.Metrics) {
			m.SaveFinished(runtime.SaveEvent{Service: "s3", Part: "store", Delta: true, Deltas: 1, FileBytes: 5000, Written: 300})
		}, map[string]float64{
			`torpor_save_duration_seconds_count{part="store",phase="capture",service="s3"}`:   1,
			`torpor_save_duration_seconds_count{part="store",phase="serialize",service="s3"}`: 1,
			`torpor_save_duration_seconds_count{part="store",phase="prove",service="s3"}`:     1,
			`torpor_save_duration_seconds_count{part="store",phase="commit",service="s3"}`:    1,
			`torpor_save_duration_seconds_count{part="store",phase="total",service="s3"}`:     1,
			`torpor_saves_total{kind="delta",part="store",service="s3"}`:                      1,
			`torpor_saved_bytes_total{part="store",service="s3"}`:                             300,
		}},
		{"save that failed", func(m *metrics.Metrics) {
			m.SaveFinished(runtime.SaveEvent{Service: "s3", Part: "store", FileBytes: 1200, Total: 8 * ms, Err: syscall.ENOSPC})
		}, map[string]float64{`torpor_failures_total{operation="save",part="store",reason="no_space",service="s3"}`: 1}},
		{"hold", func(m *metrics.Metrics) { m.RequestsHeld("s3", 2*ms, nil) }, map[string]float64{
			`torpor_pause_duration_seconds_count{service="s3"}`: 1,
			`torpor_pause_duration_seconds_sum{service="s3"}`:   0.002,
		}},
		{"hold that failed", func(m *metrics.Metrics) { m.RequestsHeld("s3", 2*ms, runtime.ErrBusy) }, map[string]float64{
			`torpor_pause_duration_seconds_count{service="s3"}`:                          1,
			`torpor_pause_duration_seconds_sum{service="s3"}`:                            0.002,
			`torpor_failures_total{operation="hold",part="",reason="busy",service="s3"}`: 1,
		}},
		{"quarantine", func(m *metrics.Metrics) { m.GenerationQuarantined("s3", "store") },
			map[string]float64{`torpor_corrupt_files_total{part="store",service="s3"}`: 1}},
		{"wake", func(m *metrics.Metrics) {
			m.ServiceWoken(runtime.WakeEvent{Service: "s3", Restore: 1 * ms, Start: 2 * ms, Total: 4 * ms})
		}, map[string]float64{
			`torpor_wake_duration_seconds_count{phase="restore",service="s3"}`: 1,
			`torpor_wake_duration_seconds_sum{phase="restore",service="s3"}`:   0.001,
			`torpor_wake_duration_seconds_count{phase="start",service="s3"}`:   1,
			`torpor_wake_duration_seconds_sum{phase="start",service="s3"}`:     0.002,
			`torpor_wake_duration_seconds_count{phase="total",service="s3"}`:   1,
			`torpor_wake_duration_seconds_sum{phase="total",service="s3"}`:     0.004,
		}},
		{"wake that failed", func(m *metrics.Metrics) {
			m.ServiceWoken(runtime.WakeEvent{Service: "s3", Start: 2 * ms, Total: 4 * ms, Err: runtime.ErrProcess})
		}, map[string]float64{`torpor_failures_total{operation="wake",part="",reason="process",service="s3"}`: 1}},
		{"sleep", func(m *metrics.Metrics) {
			m.ServiceSlept(runtime.SleepEvent{Service: "s3", Stop: 1 * ms, Total: 4 * ms})
		}, map[string]float64{
			`torpor_sleep_duration_seconds_count{phase="stop",service="s3"}`:  1,
			`torpor_sleep_duration_seconds_sum{phase="stop",service="s3"}`:    0.001,
			`torpor_sleep_duration_seconds_count{phase="total",service="s3"}`: 1,
			`torpor_sleep_duration_seconds_sum{phase="total",service="s3"}`:   0.004,
		}},
		{"sleep that failed", func(m *metrics.Metrics) {
			m.ServiceSlept(runtime.SleepEvent{Service: "s3", Stop: 1 * ms, Total: 4 * ms, Err: runtime.ErrBusy})
		}, map[string]float64{`torpor_failures_total{operation="sleep",part="",reason="busy",service="s3"}`: 1}},
		{"exit", func(m *metrics.Metrics) { m.ProcessExited("s3") },
			map[string]float64{`torpor_process_exits_total{service="s3"}`: 1}},
		{"compile", func(m *metrics.Metrics) { m.ModuleCompiled("records", 30*ms, nil) }, map[string]float64{
			`torpor_module_compile_duration_seconds_count{module="records"}`: 1,
			`torpor_module_compile_duration_seconds_sum{module="records"}`:   0.03,
		}},
		{"compile that failed", func(m *metrics.Metrics) { m.ModuleCompiled("records", 30*ms, abi.ErrVersion) },
			map[string]float64{`torpor_failures_total{operation="compile",part="",reason="version",service=""}`: 1}},
		{"call", func(m *metrics.Metrics) {
			m.ModuleCalled("records", abi.OpSave, host.CallCost{Duration: 9 * ms, Memory: 65536, Input: 10, Output: 20, Fuel: 30})
		}, map[string]float64{
			`torpor_module_fuel_total{module="records",operation="save"}`:                  30,
			`torpor_module_call_duration_seconds_count{module="records",operation="save"}`: 1,
			`torpor_module_call_duration_seconds_sum{module="records",operation="save"}`:   0.009,
			`torpor_module_memory_bytes{module="records"}`:                                 65536,
		}},
		{"call that failed", func(m *metrics.Metrics) {
			m.ModuleCalled("records", abi.OpSave, host.CallCost{Duration: 9 * ms, Memory: 65536, Err: abi.ErrTooLarge})
		}, map[string]float64{`torpor_failures_total{operation="call",part="",reason="too_large",service=""}`: 1}},
		{"request", func(m *metrics.Metrics) { m.RequestServed("s3", 204, 3*ms) }, map[string]float64{
			`torpor_gateway_requests_total{code="2xx",service="s3"}`:      1,
			`torpor_gateway_request_duration_seconds_count{service="s3"}`: 1,
			`torpor_gateway_request_duration_seconds_sum{service="s3"}`:   0.003,
		}},
		{"request that failed", func(m *metrics.Metrics) { m.RequestServed("s3", 503, 3*ms) }, map[string]float64{
			`torpor_gateway_requests_total{code="5xx",service="s3"}`:      1,
			`torpor_gateway_request_duration_seconds_count{service="s3"}`: 1,
			`torpor_gateway_request_duration_seconds_sum{service="s3"}`:   0.003,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, reg := newMetrics(t)
			moves(t, reg, func() { c.do(m) }, c.want)
		})
	}
}

func TestReasons(t *testing.T) {
	path := func(err error) error { return &fs.PathError{Op: "write", Path: "x", Err: err} }
	for _, c := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("x: %w", abi.ErrCorrupt), "corrupt"},
		{fmt.Errorf("x: %w", abi.ErrVersion), "version"},
		{fmt.Errorf("x: %w", abi.ErrNotFound), "not_found"},
		{fmt.Errorf("x: %w", abi.ErrTooLarge), "too_large"},
		{fmt.Errorf("x: %w", abi.ErrLocked), "locked"},
		{path(syscall.ENOSPC), "no_space"},
		{path(syscall.EACCES), "permission"},
		{path(syscall.EROFS), "permission"},
		{path(syscall.EIO), "io"},
		{fmt.Errorf("x: %w", runtime.ErrBusy), "busy"},
		{context.Canceled, "canceled"},
		{context.DeadlineExceeded, "timeout"},
		{os.ErrDeadlineExceeded, "other"},
		{errors.New("whatever an emulator says"), "other"},
		{errors.Join(errors.New("x"), abi.ErrVersion), "version"},
		{fmt.Errorf("x: %w", runtime.ErrExternal), "external"},
		{fmt.Errorf("x: %w: %w", runtime.ErrProcess, errors.New("it exited with 1")), "process"},
		{fmt.Errorf("x: %w: %w", runtime.ErrProcess, abi.ErrNotFound), "not_found"},
		{fmt.Errorf("x: %w: %w", runtime.ErrProcess, fs.ErrPermission), "permission"},
		{fmt.Errorf("x: %w: %w", runtime.ErrProcess, abi.ErrLocked), "locked"},
		{fmt.Errorf("x: %w: %w", runtime.ErrProcess, context.DeadlineExceeded), "timeout"},
		{fmt.Errorf("x: %w: %w", runtime.ErrProcess, context.Canceled), "canceled"},
	} {
		m, reg := newMetrics(t)
		moves(t, reg, func() { m.SaveFinished(runtime.SaveEvent{Service: "s3", Part: "store", Err: c.err}) },
			map[string]float64{fmt.Sprintf(`torpor_failures_total{operation="save",part="store",reason=%q,service="s3"}`, c.want): 1})
	}
}

// watched gives a runtime of two services without persistence: enough for what is read off it.
func watched(t *testing.T) *runtime.Runtime {
	t.Helper()
	var parts []runtime.PartConfig
	for _, name := range []string{"store", "backend"} {
		parts = append(parts, runtime.PartConfig{Name: name, Dirty: new(runtime.Dirty)})
	}
	rt, err := runtime.New(runtime.Config{Logger: slog.New(slog.DiscardHandler), Services: []runtime.ServiceConfig{
		{Name: "kinesis", Parts: parts}, {Name: "s3", Parts: []runtime.PartConfig{{Name: "store", Dirty: new(runtime.Dirty)}}}}})
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

func TestWatchMakesSeriesFromTheStart(t *testing.T) {
	m, reg := newMetrics(t)
	if err := m.Watch(reg, watched(t)); err != nil {
		t.Fatal(err)
	}
	got := series(t, reg)
	var want []string
	for _, of := range []struct{ service, part string }{{"kinesis", "store"}, {"kinesis", "backend"}, {"s3", "store"}} {
		for _, phase := range []string{"read", "decode", "deliver", "total"} {
			want = append(want, fmt.Sprintf(`torpor_restore_duration_seconds_count{part=%q,phase=%q,service=%q}`, of.part, phase, of.service))
		}
		for _, phase := range []string{"capture", "serialize", "prove", "commit", "total"} {
			want = append(want, fmt.Sprintf(`torpor_save_duration_seconds_count{part=%q,phase=%q,service=%q}`, of.part, phase, of.service))
		}
		for _, name := range []string{"torpor_saved_bytes_total", "torpor_restored_bytes_total", "torpor_corrupt_files_total", "torpor_state_generation",
			"torpor_state_records", "torpor_state_bytes", "torpor_state_file_bytes", "torpor_state_dirty_seconds", "torpor_state_last_save_timestamp_seconds"} {
			want = append(want, fmt.Sprintf(`%s{part=%q,service=%q}`, name, of.part, of.service))
		}
	}
	for _, service := range []string{"kinesis", "s3"} {
		for _, name := range []string{"torpor_pause_duration_seconds_count", "torpor_gateway_request_duration_seconds_count",
			"torpor_process_exits_total", "torpor_service_asleep"} {
			want = append(want, fmt.Sprintf(`%s{service=%q}`, name, service))
		}
		for _, phase := range []string{"restore", "start", "total"} {
			want = append(want, fmt.Sprintf(`torpor_wake_duration_seconds_count{phase=%q,service=%q}`, phase, service))
		}
		for _, phase := range []string{"stop", "total"} {
			want = append(want, fmt.Sprintf(`torpor_sleep_duration_seconds_count{phase=%q,service=%q}`, phase, service))
		}
		for status, on := range map[string]float64{"available": 0, "starting": 0, "running": 1, "stopping": 0, "error": 0} {
			name := fmt.Sprintf(`torpor_service_status{service=%q,status=%q}`, service, status)
			want = append(want, name)
			if got[name] != on {
				t.Errorf("%s is %v, want %v", name, got[name], on)
			}
		}
	}
	for _, name := range want {
		if v, ok := got[name]; !ok {
			t.Errorf("there is no %s", name)
		} else if v != 0 && !strings.Contains(name, "running") {
			t.Errorf("%s is %v before anything happened", name, v)
		}
	}
	if err := m.Watch(reg, watched(t)); err == nil {
		t.Error("a second runtime's figures would be told as the first one's")
	}
}

// described is a serializer that is asked for its descriptor only.
type described struct{ runtime.Serializer }

func (described) Descriptor() abi.Descriptor { return abi.Descriptor{Name: "records", Version: "1"} }

// persistent gives a runtime with the service s3, whose part store has never been saved, and watches it.
func persistent(t *testing.T, m *metrics.Metrics, reg prometheus.Registerer, process runtime.Process) (*runtime.Runtime, *runtime.Dirty) {
	t.Helper()
	dir, err := statedir.Open(vfs.NewMem(), statedir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	dirty := new(runtime.Dirty)
	rt, err := runtime.New(runtime.Config{Dir: dir, Observer: m, Logger: slog.New(slog.DiscardHandler), Services: []runtime.ServiceConfig{
		{Name: "s3", Process: process, Parts: []runtime.PartConfig{
			{Name: "store", Dirty: dirty, Serializer: described{}, Source: struct{ runtime.Source }{}}}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Watch(reg, rt); err != nil {
		t.Fatal(err)
	}
	return rt, dirty
}

func TestStatusIsReadAtEachScrape(t *testing.T) {
	m, reg := newMetrics(t)
	_, dirty := persistent(t, m, reg, nil)
	const name = `torpor_state_dirty_seconds{part="store",service="s3"}`
	if got := series(t, reg)[name]; got != 0 {
		t.Errorf("%s is %v while nothing has changed", name, got)
	}
	dirty.Mark()
	first := series(t, reg)[name]
	if second := series(t, reg)[name]; first <= 0 || second <= first {
		t.Errorf("%s is %v, then %v: it should grow", name, first, second)
	}
}

// program is a service's process that calls what it is given.
type program struct{ start, stop func() }

func (p program) Start(context.Context) error { p.start(); return nil }
func (p program) Stop(context.Context) error  { p.stop(); return nil }

// A runtime tells of sleep and wake by itself, and its status goes along.
func TestSleepAndWakeShow(t *testing.T) {
	m, reg := newMetrics(t)
	wants := func(status string, asleep float64) {
		t.Helper()
		got := series(t, reg)
		for _, s := range []string{"available", "starting", "running", "stopping", "error"} {
			if on := got[fmt.Sprintf(`torpor_service_status{service="s3",status=%q}`, s)] == 1; on != (s == status) {
				t.Errorf("status %s is %v, want %s", s, on, status)
			}
		}
		if v := got[`torpor_service_asleep{service="s3"}`]; v != asleep {
			t.Errorf("%s: asleep is %v, want %v", status, v, asleep)
		}
	}
	rt, _ := persistent(t, m, reg, program{start: func() { wants("starting", 0) }, stop: func() { wants("stopping", 0) }})
	svc := rt.Services()[0]
	wants("available", 0) // but was never put to sleep
	for wakes := 1.0; wakes <= 2; wakes++ {
		if err := svc.Wake(t.Context()); err != nil {
			t.Fatal(err)
		}
		wants("running", 0)
		if err := svc.Sleep(t.Context()); err != nil {
			t.Fatal(err)
		}
		wants("available", 1)
		got := series(t, reg)
		for _, name := range []string{`torpor_wake_duration_seconds_count{phase="total",service="s3"}`, `torpor_sleep_duration_seconds_count{phase="total",service="s3"}`} {
			if got[name] != wakes {
				t.Errorf("%s is %v, want %v", name, got[name], wakes)
			}
		}
	}
}

// everything makes each event once, so that every family has a series.
func everything(m *metrics.Metrics) {
	m.RestoreFinished(runtime.RestoreEvent{Service: "s3", Part: "store", Total: time.Second})
	m.SaveFinished(runtime.SaveEvent{Service: "s3", Part: "store", Total: time.Second, Err: errors.New("x")})
	m.SaveFinished(runtime.SaveEvent{Service: "s3", Part: "store", Total: time.Second})
	m.RequestsHeld("s3", time.Second, nil)
	m.GenerationQuarantined("s3", "store")
	m.ServiceWoken(runtime.WakeEvent{Service: "s3", Total: time.Second})
	m.ServiceSlept(runtime.SleepEvent{Service: "s3", Total: time.Second})
	m.ProcessExited("s3")
	m.ModuleCompiled("records", time.Second, nil)
	m.ModuleCalled("records", abi.OpSave, host.CallCost{Duration: time.Second, Memory: 1})
	m.RequestServed("s3", 200, time.Second)
}

func TestNamesAndHelpFollowThePractice(t *testing.T) {
	m, reg := newMetrics(t)
	if err := m.Watch(reg, watched(t)); err != nil {
		t.Fatal(err)
	}
	everything(m)
	problems, err := testutil.GatherAndLint(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestHistogramsAreClassicAndNative: what knows native histograms gets them, everything else buckets.
func TestHistogramsAreClassicAndNative(t *testing.T) {
	m, reg := newMetrics(t)
	everything(m)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, f := range families {
		if f.GetType() != dto.MetricType_HISTOGRAM {
			continue
		}
		found++
		for _, series := range f.Metric {
			h := series.Histogram
			if h.GetSampleCount() == 0 {
				continue
			}
			if len(h.Bucket) < 10 {
				t.Errorf("%s has %d classic buckets", f.GetName(), len(h.Bucket))
			}
			if h.Schema == nil || len(h.PositiveSpan)+len(h.NegativeSpan) == 0 && h.GetZeroCount() == 0 {
				t.Errorf("%s is no native histogram", f.GetName())
			}
		}
	}
	if found != 8 {
		t.Errorf("%d histograms", found)
	}
}

func TestConcurrentUse(t *testing.T) {
	m, reg := newMetrics(t)
	if err := m.Watch(reg, watched(t)); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				everything(m)
			}
		})
		wg.Go(func() {
			for range 5 {
				if _, err := reg.Gather(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := series(t, reg)[`torpor_gateway_requests_total{code="2xx",service="s3"}`]; got != 400 {
		t.Errorf("%v requests were counted, want 400", got)
	}
}
