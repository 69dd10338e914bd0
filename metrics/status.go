package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/torpor-run/torpor/runtime"
)

// statusCollector reads the runtime's status when Prometheus asks.
type statusCollector struct {
	rt *runtime.Runtime

	status, asleep, generation, records, bytes, fileBytes, deltas, dirty, savedAt *prometheus.Desc
}

func newStatusCollector(rt *runtime.Runtime) *statusCollector {
	part := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{"service", "part"}, nil)
	}
	return &statusCollector{rt: rt,
		status:     prometheus.NewDesc("torpor_service_status", "1 for the status the service is in, 0 for the others.", []string{"service", "status"}, nil),
		asleep:     prometheus.NewDesc("torpor_service_asleep", "1 while the service has been put to sleep, 0 otherwise.", []string{"service"}, nil),
		generation: part("torpor_state_generation", "Number of the newest committed generation; 0 when there is none."),
		records:    part("torpor_state_records", "Records in the generation last loaded or saved."),
		bytes:      part("torpor_state_bytes", "Bytes of records, uncompressed, in the state file last loaded or saved; those that deltas replace are included."),
		fileBytes:  part("torpor_state_file_bytes", "Bytes of the newest state file."),
		deltas:     part("torpor_state_deltas", "Saves in the newest state file, behind the full one, of only what had changed."),
		dirty:      part("torpor_state_dirty_seconds", "How long the oldest unsaved change has been waiting; 0 when all is saved."),
		savedAt:    part("torpor_state_last_save_timestamp_seconds", "When the newest generation was saved; 0 when there is none."),
	}
}

// Describe implements prometheus.Collector.
func (c *statusCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.status, c.asleep, c.generation, c.records, c.bytes, c.fileBytes, c.deltas, c.dirty, c.savedAt} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *statusCollector) Collect(ch chan<- prometheus.Metric) {
	now := time.Now()
	for _, s := range c.rt.Services() {
		st := s.Status()
		for _, status := range []runtime.Status{runtime.StatusAvailable, runtime.StatusStarting, runtime.StatusRunning, runtime.StatusStopping, runtime.StatusError} {
			ch <- prometheus.MustNewConstMetric(c.status, prometheus.GaugeValue, oneIf(st.Status == status), st.Name, string(status))
		}
		ch <- prometheus.MustNewConstMetric(c.asleep, prometheus.GaugeValue, oneIf(st.Asleep), st.Name)
		for _, p := range st.Parts {
			dirty, saved := 0.0, 0.0
			if !p.DirtySince.IsZero() {
				dirty = now.Sub(p.DirtySince).Seconds()
			}
			if !p.SavedAt.IsZero() {
				saved = float64(p.SavedAt.UnixNano()) / 1e9
			}
			for _, f := range []struct {
				desc  *prometheus.Desc
				value float64
			}{{c.generation, float64(p.Generation)}, {c.records, float64(p.Records)}, {c.bytes, float64(p.Bytes)},
				{c.fileBytes, float64(p.FileBytes)}, {c.deltas, float64(p.Deltas)}, {c.dirty, dirty}, {c.savedAt, saved}} {
				ch <- prometheus.MustNewConstMetric(f.desc, prometheus.GaugeValue, f.value, st.Name, p.Name)
			}
		}
	}
}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
