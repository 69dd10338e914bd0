package statefile_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/statefile"
)

var update = flag.Bool("update", false, "write the golden files anew")

func header(compression string) statefile.Header {
	return statefile.Header{Service: "s3", Part: "store", Generation: 7,
		Created: time.Date(2026, 11, 22, 17, 42, 3, 123456789, time.UTC),
		Serializer: statefile.Serializer{Name: "records", Version: "1.0.0",
			Digest: sha256.Sum256([]byte("module")), Schema: 1},
		Compression: compression}
}

// records makes n records of about size bytes in two partitions, the same for the same arguments.
func records(t testing.TB, n, size int) *record.Batch {
	t.Helper()
	r := rand.New(rand.NewSource(1))
	var data []byte
	for i := range n {
		partition := "111122223333/eu-west-1"
		if i >= n/2 {
			partition = "111122223333/us-east-1"
		}
		data = appendRecord(data, partition, fmt.Sprintf("key-%08d", i), randomBytes(r, size))
	}
	return scan(t, data)
}

func appendRecord(data []byte, partition, key string, value []byte) []byte {
	data = record.AppendText(record.AppendText(record.AppendRecord(data), partition), key)
	return record.AppendBytes(data, value)
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	r.Read(b)
	return b
}

func scan(t testing.TB, data []byte) *record.Batch {
	t.Helper()
	var s record.Scanner
	refs, err := s.Scan(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &record.Batch{Data: data, Refs: refs}
}

func encode(t testing.TB, h statefile.Header, batches ...*record.Batch) ([]byte, statefile.Info) {
	t.Helper()
	var out bytes.Buffer
	w, err := statefile.NewWriter(&out, h)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range batches {
		if err := w.WriteBatch(b); err != nil {
			t.Fatal(err)
		}
	}
	info, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), info
}

func open(b []byte) (*statefile.File, error) {
	return statefile.Open(bytes.NewReader(b), int64(len(b)), "test.state")
}

func readAll(src record.Source) ([]byte, error) {
	var out []byte
	for {
		b, err := src.ReadBatch()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		out = append(out, b.Data...)
	}
}

func TestRoundTrip(t *testing.T) {
	cases := map[string]*record.Batch{
		"empty":          {},
		"one":            records(t, 1, 10),
		"many small":     records(t, 20_000, 100),
		"large":          records(t, 4, 700<<10),
		"empty values":   records(t, 1_000, 0),
		"chunk boundary": records(t, 64, 64<<10),
	}
	for name, batch := range cases {
		for _, compression := range []string{"", statefile.CompressionNone, statefile.CompressionZstd} {
			t.Run(name+"/"+compression, func(t *testing.T) {
				h := header(compression)
				file, info := encode(t, h, batch)
				f, err := open(file)
				if err != nil {
					t.Fatal(err)
				}
				if h.Compression == "" {
					h.Compression = statefile.CompressionNone
				}
				if got := f.Header(); got != h {
					t.Errorf("header\n got %+v\nwant %+v", got, h)
				}
				if f.Info() != info {
					t.Errorf("info read %+v, written %+v", f.Info(), info)
				}
				if info.Records != uint64(batch.Len()) || info.Raw != uint64(len(batch.Data)) || info.Size != int64(len(file)) {
					t.Errorf("info %+v for %d records of %d bytes in a file of %d", info, batch.Len(), len(batch.Data), len(file))
				}
				got, err := readAll(f.Records())
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, batch.Data) {
					t.Error("records differ")
				}
				if err := f.Verify(context.Background()); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// The pieces in which records arrive must not show in the file.
func TestBatchesDoNotShow(t *testing.T) {
	all := records(t, 5_000, 60)
	whole, _ := encode(t, header(""), all)
	var pieces []*record.Batch
	for i := 0; i < all.Len(); i += 7 {
		end := min(i+7, all.Len())
		pieces = append(pieces, scan(t, all.Data[all.Refs[i].Start:all.Refs[end-1].End]))
	}
	if cut, _ := encode(t, header(""), pieces...); !bytes.Equal(cut, whole) {
		t.Error("the file depends on how records were handed over")
	}
}

func TestIsCBORSequence(t *testing.T) {
	file, info := encode(t, header(""), records(t, 3_000, 100))
	dec := cbor.NewDecoder(bytes.NewReader(file))
	items := 0
	for {
		var item any
		if err := dec.Decode(&item); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("item %d: %v", items, err)
		}
		items++
	}
	if want := 1 + info.Chunks + 2; items != want {
		t.Errorf("%d items, want header, %d chunks, index, trailer", items, info.Chunks)
	}
}

type countingReader struct {
	io.ReaderAt
	reads [][2]int64
}

func (c *countingReader) ReadAt(b []byte, off int64) (int, error) {
	c.reads = append(c.reads, [2]int64{off, int64(len(b))})
	return c.ReaderAt.ReadAt(b, off)
}

func TestPartitionReadsOnlyItsChunks(t *testing.T) {
	all := records(t, 20_000, 100)
	file, info := encode(t, header(""), all)
	r := &countingReader{ReaderAt: bytes.NewReader(file)}
	f, err := statefile.Open(r, int64(len(file)), "test.state")
	if err != nil {
		t.Fatal(err)
	}
	parts := f.Partitions()
	if len(parts) != 2 || parts[0].Records != 10_000 || parts[1].Name != "111122223333/us-east-1" {
		t.Fatalf("partitions %+v", parts)
	}
	r.reads = nil
	got, err := readAll(f.Records(parts[1].Name))
	if err != nil {
		t.Fatal(err)
	}
	if want := all.Data[all.Refs[10_000].Start:]; !bytes.Equal(got, want) {
		t.Error("the partition's records differ")
	}
	if len(r.reads) != parts[1].Chunks || parts[1].Chunks >= info.Chunks {
		t.Errorf("%d reads for %d chunks of %d", len(r.reads), parts[1].Chunks, info.Chunks)
	}
}

func TestTruncatedAnywhere(t *testing.T) {
	for _, compression := range []string{statefile.CompressionNone, statefile.CompressionZstd} {
		file, _ := encode(t, header(compression), records(t, 40, 30))
		for n := range len(file) {
			if err := openAndVerify(file[:n]); !errors.Is(err, abi.ErrCorrupt) || errors.Is(err, abi.ErrVersion) {
				t.Fatalf("%s cut to %d of %d bytes: %v", compression, n, len(file), err)
			}
		}
	}
}

func TestEveryByteFlipped(t *testing.T) {
	for _, compression := range []string{statefile.CompressionNone, statefile.CompressionZstd} {
		batch := records(t, 40, 30)
		file, _ := encode(t, header(compression), batch)
		for i := range file {
			for _, mask := range []byte{0x01, 0x80, 0xff} {
				bad := bytes.Clone(file)
				bad[i] ^= mask
				err := openAndVerify(bad)
				if compression == statefile.CompressionZstd && err == nil {
					// A compressed stream has bits that do not matter; the records are what is vouched for.
					f, _ := open(bad)
					if got, _ := readAll(f.Records()); !bytes.Equal(got, batch.Data) {
						t.Fatalf("byte %d ^ %#x: other records, and no error", i, mask)
					}
					continue
				}
				var fe *statefile.FileError
				if !errors.Is(err, abi.ErrCorrupt) || !errors.As(err, &fe) || fe.Offset < 0 || fe.Offset > int64(len(bad)) {
					t.Fatalf("%s: byte %d ^ %#x: %v", compression, i, mask, err)
				}
			}
		}
	}
}

func openAndVerify(b []byte) error {
	f, err := open(b)
	if err != nil {
		return err
	}
	return f.Verify(context.Background())
}

func TestOtherVersion(t *testing.T) {
	file, _ := encode(t, header(""), records(t, 3, 10))
	at := bytes.Index(file, []byte("torpor")) + len("torpor")
	newer := bytes.Clone(file)
	newer[at] = 2
	if err := openAndVerify(newer); !errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("version in the header only: %v, want corrupt", err)
	}
	binary.BigEndian.PutUint16(newer[len(newer)-2:], 2)
	if err := openAndVerify(newer); !errors.Is(err, abi.ErrVersion) || errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("version 2 throughout: %v, want a version error", err)
	}
	newer[at] = 1
	if err := openAndVerify(newer); !errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("version in the trailer only: %v, want corrupt", err)
	}
}

func TestWriterRefusesBadHeaders(t *testing.T) {
	for name, change := range map[string]func(*statefile.Header){
		"no service":    func(h *statefile.Header) { h.Service = "" },
		"no part":       func(h *statefile.Header) { h.Part = "" },
		"no serializer": func(h *statefile.Header) { h.Serializer.Name = "" },
		"generation 0":  func(h *statefile.Header) { h.Generation = 0 },
		"compression":   func(h *statefile.Header) { h.Compression = "lzma" },
		"too long":      func(h *statefile.Header) { h.Service = string(make([]byte, statefile.MaxHeaderBytes)) },
	} {
		h := header("")
		change(&h)
		var out bytes.Buffer
		if _, err := statefile.NewWriter(&out, h); err == nil || out.Len() > 0 {
			t.Errorf("%s: error %v, %d bytes written", name, err, out.Len())
		}
	}
}

type failingWriter struct{ left int }

func (w *failingWriter) Write(b []byte) (int, error) {
	if w.left -= len(b); w.left < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(b), nil
}

func TestWriterReportsEveryFailedWrite(t *testing.T) {
	batch := records(t, 2_000, 100)
	file, _ := encode(t, header(""), batch)
	for n := 0; n < len(file); n += 997 {
		w, err := statefile.NewWriter(&failingWriter{left: n}, header(""))
		if err == nil {
			if err = w.WriteBatch(batch); err == nil {
				_, err = w.Close()
			}
		}
		if !errors.Is(err, io.ErrClosedPipe) {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
}

// goldenDelta is a full save and two deltas: a record is replaced, one is removed, one is added, a
// partition is emptied, one is new.
func goldenDelta(t testing.TB, compression string) *history {
	t.Helper()
	west, east, south := "111122223333/eu-west-1", "111122223333/us-east-1", "111122223333/eu-south-1"
	h := begin(t, compression, []entry{
		{west, "queue/orders", false, []byte("one")}, {west, "queue/payments", false, []byte("two")}, {east, "queue/orders", false, []byte("three")}})
	h.add(t, entry{west, "queue/orders", false, []byte("four")}, entry{west, "queue/payments", false, nil}, entry{west, "\x01\x02", true, []byte("five")})
	h.add(t, entry{east, "queue/orders", false, nil}, entry{south, "queue/orders", false, []byte("six")}, entry{west, "queue/payments", false, []byte("seven")})
	return h
}

// The golden files of every released version stay readable for ever.
func TestGolden(t *testing.T) {
	batch := records(t, 12, 40)
	for _, compression := range []string{statefile.CompressionNone, statefile.CompressionZstd} {
		full, info := encode(t, header(compression), batch)
		h := header(compression)
		checkGolden(t, "v1-"+compression, compression, full, h, info, batch.Data)
		delta := goldenDelta(t, compression)
		h.Generation += 4
		h.Created = at(h.Generation)
		checkGolden(t, "v1-delta-"+compression, compression, delta.file, h, delta.then[2].info, delta.model.encode())
	}
}

// checkGolden holds a golden file against what is written today.
func checkGolden(t *testing.T, name, compression string, file []byte, h statefile.Header, info statefile.Info, data []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".state")
	if *update {
		if err := os.WriteFile(path, file, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// A compressor may come to choose other bytes; what is not compressed may not change.
	if compression == statefile.CompressionNone && !bytes.Equal(golden, file) {
		t.Errorf("%s: the bytes of format version 1 have changed", path)
	}
	f, err := open(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(f.Records()); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%s: records differ, error %v", path, err)
	}
	if f.Header() != h || f.Info().Root != info.Root {
		t.Errorf("%s: header or root differ", path)
	}
	if err := f.Verify(context.Background()); err != nil {
		t.Errorf("%s: %v", path, err)
	}
}

func BenchmarkEncode(b *testing.B) {
	batch := records(b, 80_000, 200)
	b.SetBytes(int64(len(batch.Data)))
	for b.Loop() {
		w, err := statefile.NewWriter(io.Discard, header(""))
		if err != nil {
			b.Fatal(err)
		}
		if err := w.WriteBatch(batch); err != nil {
			b.Fatal(err)
		}
		if _, err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	batch := records(b, 80_000, 200)
	file, _ := encode(b, header(""), batch)
	b.SetBytes(int64(len(batch.Data)))
	for b.Loop() {
		f, err := open(file)
		if err != nil {
			b.Fatal(err)
		}
		if err := f.Verify(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}
