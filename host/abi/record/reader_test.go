package record_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"testing"
	"testing/iotest"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// drain reads r to its end or first error. It holds every batch against the rules and returns their
// bytes and the number of records.
func drain(t *testing.T, r record.Source) (data []byte, records int, err error) {
	t.Helper()
	for {
		b, err := r.ReadBatch()
		if err != nil {
			if b != nil {
				t.Fatalf("a batch of %d records and an error: %v", b.Len(), err)
			}
			if _, again := r.ReadBatch(); again != err {
				t.Fatalf("first %v, then %v", err, again)
			}
			if err == io.EOF {
				err = nil
			}
			return data, records, err
		}
		if b.Len() == 0 || len(b.Data) != b.Refs[b.Len()-1].End || b.Refs[0].Start != 0 {
			t.Fatalf("a batch of %d records, %d bytes", b.Len(), len(b.Data))
		}
		data = append(data, b.Data...)
		records += b.Len()
	}
}

// random reads pieces of random size, some of them empty.
type random struct {
	r io.Reader
	*rand.Rand
}

func (r random) Read(p []byte) (int, error) {
	if r.IntN(4) == 0 {
		return 0, nil
	}
	return r.r.Read(p[:min(len(p), 1+r.IntN(5000))])
}

// readers are ways in which a stream's bytes may arrive.
func readers() map[string]func(io.Reader) io.Reader {
	return map[string]func(io.Reader) io.Reader{
		"whole":         func(r io.Reader) io.Reader { return r },
		"one byte":      iotest.OneByteReader,
		"halves":        iotest.HalfReader,
		"data with EOF": iotest.DataErrReader,
		"random":        func(r io.Reader) io.Reader { return random{r, rand.New(rand.NewPCG(1, 2))} },
	}
}

func TestReader(t *testing.T) {
	small, _ := sample(t)
	many := streamRecords(3000)
	large := append(withValue(zeros(1<<20)...), withValue(0x01)...)
	large = append(large, withValue(zeros(400<<10)...)...)
	for name, how := range readers() {
		t.Run(name, func(t *testing.T) {
			for _, data := range [][]byte{nil, small, many, large, withValue(zeros(128<<10 - 10)...), withValue(zeros(128<<10 - 11)...)} {
				var s record.Scanner
				want, err := s.Scan(data, nil)
				if err != nil {
					t.Fatal(err)
				}
				got, n, err := drain(t, record.NewReader(how(bytes.NewReader(data)), 0))
				if err != nil || n != len(want) || !bytes.Equal(got, data) {
					t.Errorf("%d records in %d bytes came back as %d in %d, %v", len(want), len(data), n, len(got), err)
				}
			}
		})
	}
}

func TestReaderTruncated(t *testing.T) {
	data, ends := sample(t)
	for n := range len(data) + 1 {
		whole, start := 0, 0
		for whole < len(ends) && ends[whole] <= n {
			start = ends[whole]
			whole++
		}
		got, records, err := drain(t, record.NewReader(iotest.HalfReader(bytes.NewReader(data[:n])), 0))
		if records != whole || len(got) != start {
			t.Fatalf("first %d bytes: %d records in %d bytes, want %d in %d", n, records, len(got), whole, start)
		}
		if n == start {
			if err != nil {
				t.Fatalf("first %d bytes: %v", n, err)
			}
			continue
		}
		wantFormatError(t, err, abi.ErrCorrupt, n, "ends inside a record")
	}
}

// However the stream's bytes arrive, all records before a fault come first, then the error with the
// place in the stream.
func TestReaderFaults(t *testing.T) {
	many := streamRecords(3000) // several buffers
	huge := withValue(zeros(600 << 10)...)
	for name, how := range readers() {
		t.Run(name, func(t *testing.T) {
			for _, c := range []struct {
				name   string
				before []byte
				bad    []byte
				max    int
				err    error
				at     int // after before
				reason string
			}{
				{"at once", nil, []byte{0x00}, 0, abi.ErrCorrupt, 0, "array of three"},
				{"after many records", many, unhex(t, "83 60 60 ff 83 60 60 00"), 0, abi.ErrCorrupt, 3, "break"},
				{"after a large record", huge, unhex(t, "83 60 61 ff 00"), 0, abi.ErrCorrupt, 3, "UTF-8"},
				{"at the end", many, unhex(t, "83 60 60"), 0, abi.ErrCorrupt, 3, "ends inside a record"},
				{"too deep", many, withValue(nested(65, 0)...), 0, abi.ErrTooLarge, valueAt + 64, "deeper"},
				{"too large", many, huge, 1 << 16, abi.ErrTooLarge, 0, "limit"},
				{"said to be larger than any", many, withValue(unhex(t, "5b 0000000100000000")...), 0, abi.ErrTooLarge, valueAt, "string of 4294967296 bytes"},
			} {
				data := append(bytes.Clone(c.before), c.bad...)
				got, _, err := drain(t, record.NewReader(how(bytes.NewReader(data)), c.max))
				if !bytes.Equal(got, c.before) {
					t.Errorf("%s: %d bytes of records before the fault, want %d", c.name, len(got), len(c.before))
				}
				wantFormatError(t, err, c.err, len(c.before)+c.at, c.reason)
			}
		})
	}
}

func TestReaderStreamFails(t *testing.T) {
	broken := errors.New("the cable is out")
	many := streamRecords(3000)
	for name, how := range readers() {
		for _, after := range []int{0, len(many), len(many) - 1} {
			for _, failure := range []error{broken, io.ErrUnexpectedEOF, fmt.Errorf("read state: %w", io.EOF)} {
				stream := io.MultiReader(how(bytes.NewReader(many[:after])), iotest.ErrReader(failure))
				_, n, err := drain(t, record.NewReader(stream, 0))
				if err != failure {
					t.Errorf("%s, after %d bytes: %v, want %v as it is", name, after, err, failure)
				}
				want := 3000
				if after < len(many) {
					want = max(0, after-1) * 3000 / len(many)
				}
				if n != want {
					t.Errorf("%s, after %d bytes: %d records, want %d", name, after, n, want)
				}
			}
		}
	}
}

// A record that says it is large must come in full before its memory is taken.
func TestReaderMemoryFollowsTheBytes(t *testing.T) {
	claim := withValue(record.AppendBytesHead(nil, 60<<20)...)
	data := append(claim, make([]byte, 10<<10)...)
	allocated := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := record.NewReader(bytes.NewReader(data), 0).ReadBatch(); !errors.Is(err, abi.ErrCorrupt) {
				b.Fatal(err)
			}
		}
	}).AllocedBytesPerOp()
	if allocated > 1<<20 {
		t.Errorf("%d bytes allocated for a stream of %d", allocated, len(data))
	}
}

// A large record of small items in small pieces is not scanned again at each of them. That would take
// hundreds of times as long as from one piece; the bound leaves room for a busy machine.
func TestReaderIsNotQuadratic(t *testing.T) {
	data := append(withValue(record.AppendArray(nil, 1<<20)...), make([]byte, 1<<20)...)
	took := func(r func() io.Reader) time.Duration {
		best := time.Duration(math.MaxInt64)
		for range 3 {
			start := time.Now()
			if _, n, err := drain(t, record.NewReader(r(), 0)); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			best = min(best, time.Since(start))
		}
		return best
	}
	whole := took(func() io.Reader { return bytes.NewReader(data) })
	inPieces := took(func() io.Reader { return pieces{bytes.NewReader(data), 256} })
	if inPieces > 50*whole {
		t.Errorf("%v in pieces, %v whole", inPieces, whole)
	}
}
