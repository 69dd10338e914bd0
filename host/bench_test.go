package host_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"testing"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/modules"
)

// A process start: a host, the built-in module, compiled or from the cache, and the end.
func BenchmarkStart(b *testing.B) {
	start := func(b *testing.B, dir string) {
		h, err := host.New(b.Context(), host.Config{CacheDir: dir, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := h.Compile(b.Context(), "records", modules.Records()); err != nil {
			b.Fatal(err)
		}
		if err := h.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("compiling", func(b *testing.B) {
		for b.Loop() {
			start(b, "")
		}
	})
	b.Run("cached", func(b *testing.B) {
		dir := b.TempDir()
		start(b, dir)
		for b.Loop() {
			start(b, dir)
		}
	})
}

// A call with nothing to do: an instance and its end.
func BenchmarkEmptyCall(b *testing.B) {
	h := newHost(b, host.Config{})
	for name, wasm := range map[string][]byte{"smallest": newGuest().bytes(), "records": modules.Records()} {
		m := compile(b, h, wasm)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := m.Save(context.Background(), abi.Call{}, bytes.NewReader(nil), &collector{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// chunks is a source of batches, and a sink that counts.
type chunks struct {
	batches []*record.Batch
	i       int
	records int
}

func (c *chunks) ReadBatch() (*record.Batch, error) {
	if c.i == len(c.batches) {
		return nil, io.EOF
	}
	c.i++
	return c.batches[c.i-1], nil
}

func (c *chunks) WriteBatch(b *record.Batch) error {
	c.records += b.Len()
	return nil
}

// chunksOf cuts data into batches as a state file's chunks are.
func chunksOf(b *testing.B, data []byte) *chunks {
	c := &chunks{}
	r := record.NewReader(bytes.NewReader(data), 0)
	for {
		batch, err := r.ReadBatch()
		if err == io.EOF {
			return c
		}
		if err != nil {
			b.Fatal(err)
		}
		c.batches = append(c.batches, batch.Clone())
	}
}

// One next and one emit. The assembled guest's own work is a few instructions; `records`, which is Rust,
// checks the record, and when it saves the host does so too.
func BenchmarkNextEmitPair(b *testing.B) {
	const pairs = 10_000
	one := oneRecord("k")
	data := bytes.Repeat(one, pairs)
	batch := batchOf(b, data)
	perPair := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/pairs, "ns/pair")
	}
	load := func(m *host.Module) func(b *testing.B) {
		return func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w := &writes{}
				err := m.Load(context.Background(), abi.Call{Schema: 1}, &chunks{batches: []*record.Batch{batch}}, w)
				if err != nil || w.n < pairs {
					b.Fatal(w.n, err)
				}
			}
			perPair(b)
		}
	}
	b.Run("assembled", load(compile(b, newHost(b, host.Config{}), newGuest().does(abi.ExportLoad, echo(len(one), false), constI32(0)).bytes())))
	records := compile(b, newHost(b, host.Config{InputPiece: len(one)}), modules.Records())
	b.Run("records/load", load(records))
	b.Run("records/save", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			sink := &collector{data: data[:0:0]}
			if err := records.Save(context.Background(), abi.Call{Schema: 1}, bytes.NewReader(data), sink); err != nil || sink.batches != pairs {
				b.Fatal(sink.batches, err)
			}
		}
		perPair(b)
	})
}

// writes counts them.
type writes struct{ n int }

func (w *writes) Write(p []byte) (int, error) {
	w.n++
	return len(p), nil
}

// The built-in module over 20 MB of records of some 230 bytes, record checks on.
func BenchmarkRecords(b *testing.B) {
	data, records := streamRecords(20_000_000)
	m := compile(b, newHost(b, host.Config{}), modules.Records())
	cut := chunksOf(b, data)
	b.Run("save", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			sink := &chunks{}
			if err := m.Save(context.Background(), abi.Call{Schema: 1}, bytes.NewReader(data), sink); err != nil || sink.records != records {
				b.Fatal(sink.records, err)
			}
		}
	})
	b.Run("load", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			if err := m.Load(context.Background(), abi.Call{Schema: 1}, &chunks{batches: cut.batches}, io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
}
