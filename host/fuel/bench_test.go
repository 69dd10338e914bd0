package fuel

import (
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/modules"
)

// BenchmarkSerializers runs modules as they are and instrumented, in turns and in wazero alone: package
// host's own work would hide a part of the cost. The ratio is of the fastest run of each.
func BenchmarkSerializers(b *testing.B) {
	records := someRecords(8 << 20)
	for _, c := range []struct {
		name, export string
		wasm         []byte
		parts        [][]byte
	}{
		{"records/save", abi.ExportSave, modules.Records(), records},
		{"records/load", abi.ExportLoad, modules.Records(), records},
		{"todo/save", abi.ExportSave, goGuest(b), todoState(10_000)},
	} {
		b.Run(c.name, func(b *testing.B) {
			size := 0
			for _, p := range c.parts {
				size += len(p)
			}
			plain := newSerializer(b, compiler, c.wasm, 0)
			metered := newSerializer(b, compiler, mustInstrument(b, c.wasm, Options{}), plenty)
			fastest := [2]time.Duration{1 << 62, 1 << 62}
			var used int64
			for b.Loop() {
				for i, s := range []*serializer{plain, metered} {
					start := time.Now()
					used = s.call(b, c.export, c.parts)
					fastest[i] = min(fastest[i], time.Since(start))
				}
			}
			mb := func(d time.Duration) float64 { return float64(size) / 1e6 / d.Seconds() }
			b.ReportMetric(mb(fastest[0]), "plain-MB/s")
			b.ReportMetric(mb(fastest[1]), "fuel-MB/s")
			b.ReportMetric(float64(fastest[1])/float64(fastest[0]), "times-as-long")
			b.ReportMetric(float64(used)/float64(size), "fuel/byte")
		})
	}
}

// BenchmarkInstrument instruments a module of megabytes, as Go builds them.
func BenchmarkInstrument(b *testing.B) {
	wasm := goGuest(b)
	b.SetBytes(int64(len(wasm)))
	b.ReportAllocs()
	var info Info
	for b.Loop() {
		var err error
		if _, info, err = Instrument(wasm, Options{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(info.BytesOut)/float64(info.BytesIn), "growth")
}
