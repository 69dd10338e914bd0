package s3

import (
	"bytes"
	"context"
	"crypto/md5"
	"fmt"
	"io"
	"testing"
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
