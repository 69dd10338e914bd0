package s3

import (
	"bytes"
	"context"
	"crypto/md5"
	"fmt"
	"io"
	"testing"
	"time"
)

// The state of the project's benchmark: many small objects.
const (
	benchObjects = 80_000
	benchBytes   = 100
)

// benchService makes a service with n objects, put as an SDK puts them.
func benchService(tb testing.TB, n int) *Service {
	tb.Helper()
	s := New(Options{})
	if err := s.createBucket("bench", DefaultPartition); err != nil {
		tb.Fatal(err)
	}
	for i := range n {
		data := bytes.Repeat([]byte{byte(i), byte(i >> 8), byte(i >> 16), 'x'}, benchBytes/4)
		v := &version{size: benchBytes, md5: md5.Sum(data), body: body{data}, checksum: checksum{algorithm: algorithmCRC32, sum: [32]byte{byte(i), 2, 3, 4}},
			attrs: []pair{{"content-type", "application/octet-stream"}, {"x-amz-meta-origin", "bench"}}}
		if _, err := s.putObject("bench", fmt.Sprintf("folder-%03d/object-%08d", i/1000, i), v, conditions{}); err != nil {
			tb.Fatal(err)
		}
	}
	return s
}

func benchNative(tb testing.TB, s *Service) []byte {
	tb.Helper()
	c, err := s.Capture(context.Background())
	if err != nil {
		tb.Fatal(err)
	}
	defer c.Close()
	var buf bytes.Buffer
	if err := c.WriteNative(context.Background(), &buf); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

// BenchmarkCapture is how long requests wait for a capture.
func BenchmarkCapture(b *testing.B) {
	s := benchService(b, benchObjects)
	for b.Loop() {
		c, err := s.Capture(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}

// BenchmarkWriteNative is how long a capture takes to be written.
func BenchmarkWriteNative(b *testing.B) {
	s := benchService(b, benchObjects)
	c, err := s.Capture(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	b.SetBytes(int64(len(benchNative(b, s))))
	b.ResetTimer()
	for b.Loop() {
		if err := c.WriteNative(b.Context(), io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRestore is how long a service takes to take a state in.
func BenchmarkRestore(b *testing.B) {
	native := benchNative(b, benchService(b, benchObjects))
	s := New(Options{})
	b.SetBytes(int64(len(native)))
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		if err := s.Restore(b.Context(), bytes.NewReader(native)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDelta is how long a capture takes that tells of one object changed among many, and how often
// that fits into writing all of them.
func BenchmarkDelta(b *testing.B) {
	s := benchService(b, benchObjects)
	commit(b, s)
	const rounds = 5
	began := time.Now()
	for range rounds {
		c := captured(b, s)
		if err := c.WriteNative(b.Context(), io.Discard); err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
	all := time.Since(began) / rounds
	for b.Loop() {
		if _, err := s.putObject("bench", "folder-000/object-00000007", newTestVersion(nil), conditions{}); err != nil {
			b.Fatal(err)
		}
		c := captured(b, s)
		d := c.Delta()
		if err := d.WriteUpserts(b.Context(), io.Discard); err != nil {
			b.Fatal(err)
		}
		if err := d.WriteTombstones(b.Context(), &failingSink{}); err != nil {
			b.Fatal(err)
		}
		c.Committed()
		c.Close()
	}
	b.ReportMetric(float64(all)*float64(b.N)/float64(b.Elapsed()), "times-less-than-all")
}

// BenchmarkPut is what a put costs the requests behind it: one that is the first since a capture, which
// must remember what was there, and any other.
func BenchmarkPut(b *testing.B) {
	for _, first := range []bool{true, false} {
		b.Run(map[bool]string{true: "first", false: "again"}[first], func(b *testing.B) {
			s := benchService(b, benchObjects)
			commit(b, s)
			v := newTestVersion(nil)
			for i := 0; b.Loop(); i++ {
				key := "folder-000/object-00000007"
				if first {
					n := i % benchObjects
					key = fmt.Sprintf("folder-%03d/object-%08d", n/1000, n)
					if n == 0 && i > 0 {
						b.StopTimer()
						commit(b, s)
						b.StartTimer()
					}
				}
				w := *v
				if _, err := s.putObject("bench", key, &w, conditions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
