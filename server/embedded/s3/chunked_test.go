package s3

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
)

// FuzzChunked decodes anything: it must end in content or in an S3 error, the same however it arrives,
// and what it accepts it must have understood.
func FuzzChunked(f *testing.F) {
	f.Add([]byte("5\r\nhello\r\n0\r\n\r\n"))
	f.Add([]byte("5;chunk-signature=abc\r\nhello\r\n0;chunk-signature=def\r\nx-amz-checksum-crc32:AAAAAA==\r\nx-amz-trailer-signature:x\r\n\r\n"))
	f.Add([]byte("0\r\n"))
	f.Add([]byte("ffffffffffffffff\r\n"))
	f.Add([]byte("7fffffffffffffff\r\nx"))
	f.Add([]byte(strings.Repeat("1\r\nx\r\n", 100) + "0\n\n"))
	f.Add([]byte(strings.Repeat(";", 2*maxChunkLine)))
	f.Add([]byte("0\r\n" + strings.Repeat("a:b\r\n", maxChunkTrails+1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		trailer := http.Header{}
		got, err := io.ReadAll(newChunkedReader(bytes.NewReader(data), trailer))
		slow, slowErr := io.ReadAll(newChunkedReader(iotest.OneByteReader(bytes.NewReader(data)), http.Header{}))
		if !bytes.Equal(got, slow) || (err == nil) != (slowErr == nil) {
			t.Fatalf("at once %q, %v; byte for byte %q, %v", got, err, slow, slowErr)
		}
		if err != nil {
			var own *s3Error
			if !errors.As(err, &own) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatal(err)
			}
			return
		}
		if len(got) >= len(data) || len(trailer) > maxChunkTrails {
			t.Fatalf("%d bytes and %d trailers of %d", len(got), len(trailer), len(data))
		}
	})
}

// TestChunkedTruncated cuts a chunked body at every length: it must not pass for a whole one unless
// only the end of the trailer is gone that some clients leave out anyway.
func TestChunkedTruncated(t *testing.T) {
	whole := "5\r\nhello\r\n6;chunk-signature=abc\r\n world\r\n0;chunk-signature=def\r\nx-amz-checksum-crc32:DUoRhQ==\r\n\r\n"
	enough := strings.Index(whole, "0;") + len("0;chunk-signature=def\r\n")
	for n := range len(whole) + 1 {
		trailer := http.Header{}
		got, err := io.ReadAll(newChunkedReader(strings.NewReader(whole[:n]), trailer))
		value := trailer.Get("X-Amz-Checksum-Crc32")
		switch {
		case n < enough && err == nil:
			t.Errorf("cut at %d: accepted as %q", n, got)
		case err == nil && string(got) != "hello world":
			t.Errorf("cut at %d: %q", n, got)
		case value != "" && value != "DUoRhQ==":
			t.Errorf("cut at %d: trailer %q", n, value)
		case n == len(whole) && (err != nil || value == ""):
			t.Errorf("whole: %v, %v", err, trailer)
		}
	}
}

// TestChunkedMalformed names what is wrong.
func TestChunkedMalformed(t *testing.T) {
	for data, want := range map[string]string{
		"":                          "unexpected EOF",
		"5":                         "ends inside a line",
		"x\r\n":                     "begins with no length",
		"-1\r\n":                    "begins with no length",
		"ffffffffffffffff\r\n":      "begins with no length",
		"5\r\nhel":                  "unexpected EOF",
		"5\r\nhello":                "unexpected EOF",
		"5\r\nhello world\r\n0\r\n": "longer than its length says",
		"0\r\nno colon\r\n\r\n":     "a trailer has no colon",
		"0\r\n" + strings.Repeat("a:b\r\n", maxChunkTrails+1): "more than 32 trailers",
		strings.Repeat("1", 2*maxChunkLine):                   "longer than 4096 bytes",
	} {
		_, err := io.ReadAll(newChunkedReader(strings.NewReader(data), http.Header{}))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", data, err, want)
		}
	}
}
