package archive_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/torpor-run/torpor/runtime/snapshot/archive"
)

// BenchmarkArchive writes and opens a snapshot of some 30 MB, in bytes of its states.
func BenchmarkArchive(b *testing.B) {
	entries := make([]entry, 100_000)
	for i := range entries {
		entries[i] = entry{"000000000000/us-east-1", fmt.Sprintf("/orders/%08d", i), fmt.Sprintf(
			`{"id":%d,"customer":"customer-%d","email":"c%d@example.com","total":%d.%02d,"state":"shipped","created":"2026-01-%02dT10:%02d:00Z","address":{"street":"Main Street %d","city":"Springfield","zip":"%05d"}}`,
			i, i*7919%5000, i*7919%5000, i*31%1000, i%100, i%28+1, i%60, i%200, i*7919%99999)}
	}
	s := made(b, []string{"json"}, state(b, "orders", "store", "json", "", entries...))
	b.Run("write", func(b *testing.B) {
		b.SetBytes(s.Size())
		for b.Loop() {
			info, err := archive.Write(b.Context(), io.Discard, s, archive.WriteOptions{})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(info.States)/float64(info.Size), "ratio")
		}
	})
	file := write(b, s, archive.WriteOptions{})
	b.Run("open", func(b *testing.B) {
		b.SetBytes(s.Size())
		for b.Loop() {
			s, err := archive.Open(b.Context(), bytes.NewReader(file), int64(len(file)), archive.OpenOptions{Folder: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
