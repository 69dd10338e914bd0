package metrics

import (
	"context"
	"errors"
	"io/fs"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime"
)

// Build says which program this is.
type Build struct {
	Version   string
	Revision  string // of the sources; "" when unknown
	GoVersion string
}

// Metrics turns events into figures. It is a runtime.Observer, a runtime.LifeObserver and a
// host.Observer, and is safe for concurrent use.
type Metrics struct {
	restore, save             *prometheus.HistogramVec
	wake, sleep               *prometheus.HistogramVec
	exits                     *prometheus.CounterVec
	pause                     *prometheus.HistogramVec
	savedBytes, restoredBytes *prometheus.CounterVec
	saves                     *prometheus.CounterVec
	failures                  *prometheus.CounterVec
	corrupt                   *prometheus.CounterVec
	compile, call             *prometheus.HistogramVec
	memory                    *prometheus.GaugeVec
	fuel                      *prometheus.CounterVec
	requests                  *prometheus.CounterVec
	requestDuration           *prometheus.HistogramVec
	served                    sync.Map // by service: *served
}

// served is what requests to a service count in, found once.
type served struct {
	duration prometheus.Observer
	codes    [10]atomic.Pointer[prometheus.Counter] // by class of status; nil: there was none yet
}

// durations is a histogram with classic buckets from 100 µs to 100 s and native ones beside them.
func durations(name, help string, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: name, Help: help,
		Buckets:                         []float64{1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100},
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  160,
		NativeHistogramMinResetDuration: time.Hour,
	}, labels)
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

// Kinds of saves, as a label.
const (
	saveFull  = "full"
	saveDelta = "delta"
)

// New makes the metrics and registers them with reg; its errors are reg's.
func New(reg prometheus.Registerer, build Build) (*Metrics, error) {
	m := &Metrics{
		restore: durations("torpor_restore_duration_seconds",
			"How long restoring a part's state took. Phases read, decode and deliver overlap in time and count their own work; total is by the clock.", "service", "part", "phase"),
		save: durations("torpor_save_duration_seconds",
			"How long saving a part's state took. Phase prove runs alongside serialize; total is by the clock.", "service", "part", "phase"),
		pause: durations("torpor_pause_duration_seconds",
			"How long requests to a service were held for a capture, a load or a reset.", "service"),
		wake: durations("torpor_wake_duration_seconds",
			"How long making a service ready for requests took. Phase restore is giving the state back, start is starting its program; total is by the clock.", "service", "phase"),
		sleep: durations("torpor_sleep_duration_seconds",
			"How long putting a service to sleep took, during which requests wait. Phase stop is stopping its program; total is by the clock, saving included.", "service", "phase"),
		exits:         counter("torpor_process_exits_total", "How often the service's program ended by itself.", "service"),
		saves:         counter("torpor_saves_total", "Saves that were committed: full ones, and deltas, which write only what has changed.", "service", "part", "kind"),
		savedBytes:    counter("torpor_saved_bytes_total", "Bytes of state files written by saves that were committed.", "service", "part"),
		restoredBytes: counter("torpor_restored_bytes_total", "Bytes of records delivered by restores that succeeded.", "service", "part"),
		failures:      counter("torpor_failures_total", "Saves, restores, wakes, sleeps, holds and module calls that failed.", "operation", "service", "part", "reason"),
		corrupt:       counter("torpor_corrupt_files_total", "Generations found damaged and moved aside.", "service", "part"),
		compile:       durations("torpor_module_compile_duration_seconds", "How long compiling a serializer module took, or loading it from the cache.", "module"),
		call:          durations("torpor_module_call_duration_seconds", "How long a call of a serializer module took, waiting for its input and output included.", "module", "operation"),
		fuel: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "torpor_module_fuel_total",
			Help: "Units of fuel that calls of the serializer module used: about one for each instruction."}, []string{"module", "operation"}),
		memory: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "torpor_module_memory_bytes",
			Help: "Memory of the serializer module at the end of its last call, which is that call's high-water mark."}, []string{"module"}),
		requests:        counter("torpor_gateway_requests_total", "Requests passed to a service, by status class of the answer.", "service", "code"),
		requestDuration: durations("torpor_gateway_request_duration_seconds", "How long a request to a service took, held or waking time included.", "service"),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "torpor_build_info", Help: "Always 1; the labels say which program this is.",
		ConstLabels: prometheus.Labels{"version": build.Version, "revision": build.Revision, "goversion": build.GoVersion}})
	info.Set(1)
	var errs []error
	for _, c := range []prometheus.Collector{m.restore, m.save, m.wake, m.sleep, m.exits, m.pause, m.saves, m.savedBytes, m.restoredBytes, m.failures, m.corrupt,
		m.compile, m.call, m.memory, m.fuel, m.requests, m.requestDuration, info} {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}

// Watch registers the figures that are read off rt at each scrape, and makes the series of its services
// exist from the start, so that a dashboard shows a zero where nothing has happened yet.
func (m *Metrics) Watch(reg prometheus.Registerer, rt *runtime.Runtime) error {
	for _, s := range rt.Services() {
		m.pause.WithLabelValues(s.Name())
		m.requestDuration.WithLabelValues(s.Name())
		m.exits.WithLabelValues(s.Name())
		for _, phase := range []string{"restore", "start", "total"} {
			m.wake.WithLabelValues(s.Name(), phase)
		}
		for _, phase := range []string{"stop", "total"} {
			m.sleep.WithLabelValues(s.Name(), phase)
		}
		for _, p := range s.Status().Parts {
			for _, phase := range []string{"read", "decode", "deliver", "total"} {
				m.restore.WithLabelValues(s.Name(), p.Name, phase)
			}
			for _, phase := range []string{"capture", "serialize", "prove", "commit", "total"} {
				m.save.WithLabelValues(s.Name(), p.Name, phase)
			}
			for _, kind := range []string{saveFull, saveDelta} {
				m.saves.WithLabelValues(s.Name(), p.Name, kind)
			}
			m.savedBytes.WithLabelValues(s.Name(), p.Name)
			m.restoredBytes.WithLabelValues(s.Name(), p.Name)
			m.corrupt.WithLabelValues(s.Name(), p.Name)
		}
	}
	return reg.Register(newStatusCollector(rt))
}

var (
	_ runtime.Observer     = (*Metrics)(nil)
	_ runtime.LifeObserver = (*Metrics)(nil)
	_ host.Observer        = (*Metrics)(nil)
)

// phase is how long one phase of something took.
type phase struct {
	name string
	d    time.Duration
}

// observe puts phases into a histogram whose last label is the phase; labels are the others.
func observe(h *prometheus.HistogramVec, phases []phase, labels ...string) {
	for _, p := range phases {
		h.WithLabelValues(append(labels, p.name)...).Observe(p.d.Seconds())
	}
}

// RestoreFinished implements runtime.Observer.
func (m *Metrics) RestoreFinished(e runtime.RestoreEvent) {
	if e.Err != nil {
		m.fail("restore", e.Service, e.Part, e.Err)
		return
	}
	observe(m.restore, []phase{{"read", e.Read}, {"decode", e.Decode}, {"deliver", e.Deliver}, {"total", e.Total}}, e.Service, e.Part)
	m.restoredBytes.WithLabelValues(e.Service, e.Part).Add(float64(e.Bytes))
}

// SaveFinished implements runtime.Observer.
func (m *Metrics) SaveFinished(e runtime.SaveEvent) {
	if e.Err != nil {
		m.fail("save", e.Service, e.Part, e.Err)
		return
	}
	observe(m.save, []phase{{"capture", e.Capture}, {"serialize", e.Serialize}, {"prove", e.Prove}, {"commit", e.Commit}, {"total", e.Total}}, e.Service, e.Part)
	kind := saveFull
	if e.Delta {
		kind = saveDelta
	}
	m.saves.WithLabelValues(e.Service, e.Part, kind).Inc()
	m.savedBytes.WithLabelValues(e.Service, e.Part).Add(float64(e.Written))
}

// RequestsHeld implements runtime.Observer.
func (m *Metrics) RequestsHeld(service string, d time.Duration, err error) {
	if err != nil {
		m.fail("hold", service, "", err)
	}
	m.pause.WithLabelValues(service).Observe(d.Seconds())
}

// GenerationQuarantined implements runtime.Observer.
func (m *Metrics) GenerationQuarantined(service, part string) {
	m.corrupt.WithLabelValues(service, part).Inc()
}

// ServiceWoken implements runtime.LifeObserver.
func (m *Metrics) ServiceWoken(e runtime.WakeEvent) {
	if e.Err != nil {
		m.fail("wake", e.Service, "", e.Err)
		return
	}
	observe(m.wake, []phase{{"restore", e.Restore}, {"start", e.Start}, {"total", e.Total}}, e.Service)
}

// ServiceSlept implements runtime.LifeObserver.
func (m *Metrics) ServiceSlept(e runtime.SleepEvent) {
	if e.Err != nil {
		m.fail("sleep", e.Service, "", e.Err)
		return
	}
	observe(m.sleep, []phase{{"stop", e.Stop}, {"total", e.Total}}, e.Service)
}

// ProcessExited implements runtime.LifeObserver.
func (m *Metrics) ProcessExited(service string) { m.exits.WithLabelValues(service).Inc() }

// ModuleCompiled implements host.Observer.
func (m *Metrics) ModuleCompiled(module string, d time.Duration, err error) {
	if err != nil {
		m.fail("compile", "", "", err)
		return
	}
	m.compile.WithLabelValues(module).Observe(d.Seconds())
}

// ModuleCalled implements host.Observer.
func (m *Metrics) ModuleCalled(module, op string, c host.CallCost) {
	if c.Err != nil {
		m.fail("call", "", "", c.Err)
		return
	}
	m.call.WithLabelValues(module, op).Observe(c.Duration.Seconds())
	m.memory.WithLabelValues(module).Set(float64(c.Memory))
	m.fuel.WithLabelValues(module, op).Add(float64(c.Fuel))
}

// RequestServed counts one request to a service by its answer's status.
func (m *Metrics) RequestServed(service string, status int, d time.Duration) {
	found, ok := m.served.Load(service)
	if !ok {
		found, _ = m.served.LoadOrStore(service, &served{duration: m.requestDuration.WithLabelValues(service)})
	}
	s := found.(*served) //nolint:forcetypeassert // nothing else is stored
	s.duration.Observe(d.Seconds())
	class := status / 100
	if class < 0 || class >= len(s.codes) {
		m.requests.WithLabelValues(service, strconv.Itoa(class)+"xx").Inc()
		return
	}
	code := s.codes[class].Load()
	if code == nil {
		c := m.requests.WithLabelValues(service, strconv.Itoa(class)+"xx")
		code = &c
		s.codes[class].Store(code)
	}
	(*code).Inc()
}

func (m *Metrics) fail(operation, service, part string, err error) {
	m.failures.WithLabelValues(operation, service, part, reason(err)).Inc()
}

// reason puts an error into one of a few words, the first that fits: what kept a program from running
// (not there, not executable, its port taken, not ready in time) says more than that it does not run.
func reason(err error) string {
	for _, r := range []struct {
		is   error
		word string
	}{
		{abi.ErrCorrupt, "corrupt"}, {abi.ErrVersion, "version"}, {abi.ErrNotFound, "not_found"},
		{abi.ErrTooLarge, "too_large"}, {abi.ErrLocked, "locked"}, {syscall.ENOSPC, "no_space"},
		{fs.ErrPermission, "permission"}, {syscall.EROFS, "permission"}, {syscall.EIO, "io"},
		{runtime.ErrBusy, "busy"}, {context.Canceled, "canceled"}, {context.DeadlineExceeded, "timeout"},
		{runtime.ErrExternal, "external"}, {runtime.ErrProcess, "process"},
	} {
		if errors.Is(err, r.is) {
			return r.word
		}
	}
	return "other"
}
