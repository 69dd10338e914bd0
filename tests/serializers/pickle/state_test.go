package pickle_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// chunks saves a pickle into a state file, as the runtime does, and gives the digests of its chunks and how
// many bytes of records each holds.
func (m *module) chunks(t *testing.T, native []byte) map[string]uint64 {
	t.Helper()
	d := m.Descriptor()
	var file bytes.Buffer
	w, err := statefile.NewWriter(&file, statefile.Header{Service: m.call.Service, Part: m.call.Part, Generation: 1, Created: time.Unix(1_800_000_000, 0),
		Serializer: statefile.Serializer{Name: d.Name, Version: d.Version, Digest: m.Digest(), Schema: d.Schema}})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Save(context.Background(), m.call, bytes.NewReader(native), w); err != nil {
		t.Fatal(err)
	}
	info, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	var index struct {
		Runs []struct {
			Chunks [][]cbor.RawMessage `cbor:"chunks"`
		} `cbor:"runs"`
	}
	trailer := file.Bytes()[file.Len()-30:]
	at, size := binary.BigEndian.Uint64(trailer[2:]), binary.BigEndian.Uint64(trailer[10:])
	if err := cbor.Unmarshal(file.Bytes()[at:at+size], &index); err != nil {
		t.Fatal(err)
	}
	digests := map[string]uint64{}
	count := 0
	for _, run := range index.Runs {
		for _, c := range run.Chunks {
			var raw uint64
			if err := cbor.Unmarshal(c[3], &raw); err != nil {
				t.Fatal(err)
			}
			digests[string(c[4])] += raw
			count++
		}
	}
	if count != info.Chunks || count < 2 {
		t.Fatalf("%d chunks in the index, %d written", count, info.Chunks)
	}
	return digests
}

// TestStability: a small change of a large backend leaves at least 95 of 100 chunks as they were.
func TestStability(t *testing.T) {
	t.Parallel()
	count := 10_000
	if testing.Short() {
		count = 4_000
	}
	path := filepath.Join(t.TempDir(), "states")
	mustPython(t, "state.py", "stability", path, strconv.Itoa(count))
	for _, way := range settings()[:1] {
		m := compile(t, host.Limits{}, way)
		var before map[string]uint64
		entries(t, path, func(e entry) {
			now := m.chunks(t, e.data)
			if before == nil {
				before = now
				t.Logf("%d instances: %d bytes of pickle, %d chunks", count, len(e.data), len(now))
				return
			}
			changed, raw := 0, uint64(0)
			for digest, size := range now {
				if _, there := before[digest]; !there {
					changed++
					raw += size
				}
			}
			share := 100 * float64(changed) / float64(len(now))
			t.Logf("%-28s %3d of %d chunks are new (%.1f %%), %d bytes", e.name, changed, len(now), share, raw)
			if share > 5 || e.name == "the same again" && changed > 0 {
				t.Errorf("%s: %d of %d chunks are new; at most 5 in 100 may be", e.name, changed, len(now))
			}
		})
	}
}

// TestMemory: what a call needs is its buffers and the tables of what is referred to, not the state.
func TestMemory(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "states")
	mustPython(t, "state.py", "size", path, "500", "4000")
	m := compile(t, host.Limits{}, nil)
	entries(t, path, func(e entry) {
		records, err := m.save(e.data)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.load(records); err != nil {
			t.Fatal(err)
		}
		for _, op := range []string{abi.OpSave, abi.OpLoad} {
			memory := m.costs.Of(op).Memory
			t.Logf("%s of %s instances, %d bytes: %d bytes of memory, %.2f a byte", op, e.name, len(e.data), memory, float64(memory)/float64(len(e.data)))
			if most := int64(memoryAtLeast + memoryPerByte*len(e.data)); memory > most {
				t.Errorf("%s of %d bytes took %d bytes of memory; want at most %d", op, len(e.data), memory, most)
			}
		}
	})
}

// What modules/pickle/README.md says of memory: so much for buffers, and so many times the pickle.
const (
	memoryAtLeast = 16 << 20
	memoryPerByte = 3
)

// BenchmarkPickle saves and loads a backend of 10 MB through the host, beside the interpreter's own pickler
// in C and the one in Python, on which dill is built.
func BenchmarkPickle(b *testing.B) {
	path := filepath.Join(b.TempDir(), "state")
	var peer struct {
		Dumps       float64 `json:"dumps"`
		Loads       float64 `json:"loads"`
		PythonDumps float64 `json:"python_dumps"`
	}
	said := mustPython(b, "state.py", "speed", path, "10000000")
	if err := json.Unmarshal([]byte(said), &peer); err != nil {
		b.Fatalf("%v: %s", err, said)
	}
	native, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	m := compile(b, host.Limits{}, nil)
	records, err := m.save(native)
	if err != nil {
		b.Fatal(err)
	}
	speed := func(b *testing.B, peers map[string]float64) {
		b.Helper()
		b.SetBytes(int64(len(native)))
		taken := b.Elapsed().Seconds() / float64(b.N)
		for name, seconds := range peers {
			b.ReportMetric(float64(len(native))/1e6/seconds, "MB/s_"+name)
			b.ReportMetric(seconds/taken, "×_"+name)
		}
	}
	b.Run("save", func(b *testing.B) {
		for b.Loop() {
			if err := m.Save(b.Context(), m.call, bytes.NewReader(native), discard{}); err != nil {
				b.Fatal(err)
			}
		}
		speed(b, map[string]float64{"pickle.dumps": peer.Dumps, "_Pickler.dump": peer.PythonDumps})
		b.ReportMetric(float64(m.costs.Of(abi.OpSave).Memory)/1e6, "MB_of_memory")
		b.ReportMetric(float64(len(records))/float64(len(native)), "records/pickle")
	})
	b.Run("load", func(b *testing.B) {
		for b.Loop() {
			if _, err := m.load(records); err != nil {
				b.Fatal(err)
			}
		}
		speed(b, map[string]float64{"pickle.loads": peer.Loads})
		b.ReportMetric(float64(m.costs.Of(abi.OpLoad).Memory)/1e6, "MB_of_memory")
	})
}

// discard takes records and forgets them.
type discard struct{}

// WriteBatch implements [record.Sink].
func (discard) WriteBatch(*record.Batch) error { return nil }

// TestInspect: a summary counts what there is by class.
func TestInspect(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "states")
	mustPython(t, "state.py", "size", path, "300")
	m := compile(t, host.Limits{}, nil)
	entries(t, path, func(e entry) {
		records, err := m.save(e.data)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := m.inspect(records)
		if err != nil {
			t.Fatal(err)
		}
		said, err := cbor.Diagnose(raw)
		if err != nil {
			t.Fatal(err)
		}
		t.Log(said)
		for _, want := range []string{"state_classes.Instance", "state_classes.Volume", "000000000000/us-east-1"} {
			if !strings.Contains(said, want) {
				t.Errorf("%q is not in the summary", want)
			}
		}
	})
}
