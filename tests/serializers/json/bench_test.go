package json_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/tests/serializers/files/through"
)

// BenchmarkJSON takes 10 MB of state through the host, with all checks, and through its peers: package
// encoding/json with fxamacker's CBOR, and CPython's json. Each gives the mean and, since the machine has
// other work, the best; ratios are of the best to the host's own.
func BenchmarkJSON(b *testing.B) {
	text := emulator(10_000_000)
	m := through.New(b, "json", modules.JSON())
	records := bytes.Join(m.RoundTrip(b, text), nil)
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		b.Fatal(err)
	}
	item, err := cbor.Marshal(value)
	if err != nil {
		b.Fatal(err)
	}
	decode, err := cbor.DecOptions{DefaultMapType: reflect.TypeFor[map[string]any](), MaxArrayElements: 1 << 24, MaxMapPairs: 1 << 24}.DecMode()
	if err != nil {
		b.Fatal(err)
	}
	own := map[string]float64{}
	for _, c := range []struct {
		name, way string
		f         func() error
	}{
		{"save", "save", func() error { return m.Save(b.Context(), m.Call(), bytes.NewReader(text), &through.Discard{}) }},
		{"load", "load", func() error { return m.Load(b.Context(), m.Call(), through.Reader(records), io.Discard) }},
		{"native-go-to-cbor", "save", func() error {
			var v any
			if err := json.Unmarshal(text, &v); err != nil {
				return err
			}
			_, err := cbor.Marshal(v)
			return err
		}},
		{"native-go-from-cbor", "load", func() error {
			var v any
			if err := decode.Unmarshal(item, &v); err != nil {
				return err
			}
			_, err := json.Marshal(v)
			return err
		}},
		{"native-go-unmarshal", "save", func() error {
			var v any
			return json.Unmarshal(text, &v)
		}},
		{"native-go-marshal", "load", func() error {
			_, err := json.Marshal(value)
			return err
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			best := time.Hour
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				begin := time.Now()
				if err := c.f(); err != nil {
					b.Fatal(err)
				}
				best = min(best, time.Since(begin))
			}
			report(b, c.name, c.way, float64(len(text))/1e6/best.Seconds(), own)
		})
	}
	python(b, text, own)
}

func report(b *testing.B, name, way string, speed float64, own map[string]float64) {
	b.ReportMetric(speed, "best-MB/s")
	if name == way {
		own[way] = speed
	} else if own[way] > 0 {
		b.ReportMetric(own[way]/speed, "times-faster")
	}
}

// python measures CPython's json with the same text.
func python(b *testing.B, text []byte, own map[string]float64) {
	path, err := exec.LookPath("python3")
	if err != nil {
		b.Log("no python3 to measure")
		return
	}
	file := filepath.Join(b.TempDir(), "state.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		b.Fatal(err)
	}
	const script = `
import json, sys, time
text = open(sys.argv[1], encoding="utf-8").read()
value = json.loads(text)
for f in (lambda: json.loads(text), lambda: json.dumps(value, ensure_ascii=False, separators=(",", ":"))):
    best = 1e9
    for _ in range(5):
        begin = time.perf_counter()
        f()
        best = min(best, time.perf_counter() - begin)
    print(best)
`
	out, err := exec.CommandContext(b.Context(), path, "-c", script, file).Output()
	if err != nil {
		b.Fatal(err)
	}
	lines := strings.Fields(string(out))
	for i, c := range []struct{ name, way string }{{"cpython-loads", "save"}, {"cpython-dumps", "load"}} {
		b.Run(c.name, func(b *testing.B) {
			seconds, err := strconv.ParseFloat(lines[i], 64)
			if err != nil {
				b.Fatal(fmt.Errorf("%q: %w", out, err))
			}
			for b.Loop() {
				time.Sleep(time.Microsecond) // it has been measured
			}
			report(b, c.name, c.way, float64(len(text))/1e6/seconds, own)
		})
	}
}
