package statefile_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand"
	"slices"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// A change of a few records must leave the other chunks as they were, byte for byte, or nothing above
// this package can save, share or compare by chunk: 10 records inserted, edited or deleted among
// 100,000 may put at most 20 chunks into the file that were not in it, and take at most 20 away.
func TestFewRecordsChangeFewChunks(t *testing.T) {
	const n, changes, most = 100_000, 10, 20
	for _, c := range []struct {
		name        string
		key         func(i int) string
		size        func(r *rand.Rand) int
		compression string
		seeds       int
	}{
		{"small", shortKey, around100, statefile.CompressionNone, 5},
		{"small", shortKey, around100, statefile.CompressionZstd, 1},
		{"long shared prefixes", longKey, around100, statefile.CompressionNone, 3},
		// As many sizes between 10 and 20 bytes as between 4 and 8 KiB.
		{"10 B to 8 KiB", shortKey, from10to8Ki, statefile.CompressionNone, 1},
	} {
		t.Run(c.name+"/"+c.compression, func(t *testing.T) {
			if testing.Short() && c.seeds < 5 {
				t.Skip("-short: the small records without compression only")
			}
			t.Parallel()
			pool := randomBytes(rand.New(rand.NewSource(1)), 1<<20) // values are pieces of it
			fresh := func(r *rand.Rand, partition, key string) []byte {
				size := c.size(r)
				at := r.Intn(len(pool) - size)
				return appendRecord(nil, partition, key, pool[at:at+size])
			}
			r := rand.New(rand.NewSource(2))
			base := make([]keyed, n)
			for i := range base {
				// Seven partitions, the later ones larger.
				partition := fmt.Sprintf("1111%08d/eu-west-1", int(math.Sqrt(float64(i)/n*49)))
				base[i] = keyed{partition, c.key(i), nil}
				base[i].encoded = fresh(r, partition, base[i].key)
			}
			var memory room
			before := memory.chunkDigests(t, c.compression, base)
			for _, op := range []struct {
				name   string
				places int // more than there are records: one can be inserted behind the last, too
				change func(r *rand.Rand, s []keyed, i int) []keyed
			}{
				{"inserted", 1, func(r *rand.Rand, s []keyed, i int) []keyed {
					near := s[min(i, len(s)-1)]
					key := fmt.Sprintf("%s+%08x", near.key, r.Uint32())
					return slices.Insert(s, i, keyed{near.partition, key, fresh(r, near.partition, key)})
				}},
				{"edited", 0, func(r *rand.Rand, s []keyed, i int) []keyed {
					s[i].encoded = fresh(r, s[i].partition, s[i].key)
					return s
				}},
				{"deleted", 0, func(_ *rand.Rand, s []keyed, i int) []keyed { return slices.Delete(s, i, i+1) }},
			} {
				for _, where := range []struct {
					name string
					at   func(r *rand.Rand, places, around, j int) int
				}{
					{"anywhere", func(r *rand.Rand, places, _, _ int) int { return r.Intn(places) }},
					{"in one place", func(_ *rand.Rand, places, around, j int) int { return min(around+j, places-1-j) }},
					{"at the beginning", func(_ *rand.Rand, _, _, j int) int { return j }},
					{"at the end", func(_ *rand.Rand, places, _, j int) int { return places - 1 - j }},
				} {
					added, gone := tally{}, tally{}
					for seed := range c.seeds {
						r := rand.New(rand.NewSource(int64(seed)))
						changed := slices.Clone(base)
						around := r.Intn(n)
						for j := range changes {
							changed = op.change(r, changed, where.at(r, len(changed)+op.places, around, j))
						}
						after := memory.chunkDigests(t, c.compression, changed)
						added, gone = append(added, countWithout(after, before)), append(gone, countWithout(before, after))
					}
					t.Logf("%d records %-8s %-16s of %d chunks, new: max %2d, mean %4.1f; gone: max %2d, mean %4.1f",
						changes, op.name, where.name, len(before), slices.Max(added), added.mean(), slices.Max(gone), gone.mean())
					if slices.Max(added) > most || slices.Max(gone) > most {
						t.Errorf("%d records %s %s: %v chunks are new, %v gone; at most %d may be", changes, op.name, where.name, added, gone, most)
					}
					if slices.Min(added)+slices.Min(gone) == 0 {
						t.Errorf("%d records %s %s: nothing changed", changes, op.name, where.name)
					}
				}
			}
		})
	}
}

// keyed is a record and what it was made of.
type keyed struct {
	partition, key string
	encoded        []byte
}

func shortKey(i int) string { return fmt.Sprintf("object-%07d", i) }

func longKey(i int) string {
	return fmt.Sprintf("%stenant-%02d/%s/%07d", strings.Repeat("a-folder-like-all-others/", 8), i%100, "2026-11-22T17:42:03", i)
}

func around100(r *rand.Rand) int { return 60 + r.Intn(80) }

func from10to8Ki(r *rand.Rand) int { return int(10 * math.Pow(8192/10, r.Float64())) }

type tally []int

func (c tally) mean() float64 {
	sum := 0
	for _, n := range c {
		sum += n
	}
	return float64(sum) / float64(len(c))
}

// room is memory used again: the states are large and many.
type room struct {
	data []byte
	refs []record.Ref
	file bytes.Buffer
}

// chunkDigests writes a state file and gives the SHA-256 of each chunk as it stands in the file, found by
// the index.
func (m *room) chunkDigests(t *testing.T, compression string, records []keyed) [][sha256.Size]byte {
	t.Helper()
	m.data = m.data[:0]
	for _, r := range records {
		m.data = append(m.data, r.encoded...)
	}
	var s record.Scanner
	var err error
	if m.refs, err = s.Scan(m.data, m.refs[:0]); err != nil {
		t.Fatal(err)
	}
	m.file.Reset()
	w, err := statefile.NewWriter(&m.file, header(compression))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteBatch(&record.Batch{Data: m.data, Refs: m.refs}); err != nil {
		t.Fatal(err)
	}
	info, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	var sums [][sha256.Size]byte
	for _, c := range chunksInIndex(t, m.file.Bytes()) {
		sums = append(sums, sha256.Sum256(m.file.Bytes()[c.offset:c.offset+c.length]))
	}
	if len(sums) != info.Chunks || info.Records != uint64(len(records)) {
		t.Fatalf("%d chunks found, %+v written, of %d records", len(sums), info, len(records))
	}
	return sums
}

// listedChunk is a chunk as the index of a file lists it.
type listedChunk struct {
	partition      string
	offset, length int64
}

// chunksInIndex reads the index of a file, which the trailer points to, without the package under test.
func chunksInIndex(t *testing.T, file []byte) []listedChunk {
	t.Helper()
	at := binary.BigEndian.Uint64(file[len(file)-28:])
	var index struct {
		Runs []struct {
			Partition string `cbor:"partition"`
			Chunks    []struct {
				_              struct{} `cbor:",toarray"`
				Offset, Length int64
				Records, Raw   uint64
				SHA256         []byte
			} `cbor:"chunks"`
		} `cbor:"runs"`
	}
	if err := cbor.Unmarshal(file[at:len(file)-30], &index); err != nil {
		t.Fatal(err)
	}
	var chunks []listedChunk
	for _, run := range index.Runs {
		for _, c := range run.Chunks {
			chunks = append(chunks, listedChunk{run.Partition, c.Offset, c.Length})
		}
	}
	return chunks
}

// without tally the chunks of a that b has not, or not as often.
func countWithout(a, b [][sha256.Size]byte) int {
	left := map[[sha256.Size]byte]int{}
	for _, sum := range b {
		left[sum]++
	}
	n := 0
	for _, sum := range a {
		if left[sum]--; left[sum] < 0 {
			n++
		}
	}
	return n
}

// Reading some partitions reads the bytes of their chunks, each once, and no others; what Open reads
// follows the index, never the records.
func TestPartitionsCostTheirBytes(t *testing.T) {
	var data []byte
	r := rand.New(rand.NewSource(3))
	for i := range 60_000 {
		data = appendRecord(data, fmt.Sprintf("partition-%d", i/6_000), shortKey(i), randomBytes(r, around100(r)))
	}
	for _, compression := range []string{statefile.CompressionNone, statefile.CompressionZstd} {
		file, _ := encode(t, header(compression), scan(t, data))
		chunks := chunksInIndex(t, file)
		disk := &countingReader{ReaderAt: bytes.NewReader(file)}
		f, err := statefile.Open(disk, int64(len(file)), "test.state")
		if err != nil {
			t.Fatal(err)
		}
		index := int64(len(file)) - chunks[len(chunks)-1].offset - chunks[len(chunks)-1].length
		if n := disk.bytes(); n > index+statefile.MaxHeaderBytes+30 { // the trailer alone, then with the index
			t.Errorf("%s: opening read %d bytes; index and trailer are %d", compression, n, index)
		}
		for _, partitions := range [][]string{{"partition-0"}, {"partition-9"}, {"partition-3", "partition-7"}, {"partition-77"}} {
			want := int64(0)
			for _, c := range chunks {
				if slices.Contains(partitions, c.partition) {
					want += c.length
				}
			}
			disk.reads = nil
			got, err := readAll(f.Records(partitions...))
			if err != nil {
				t.Fatal(err)
			}
			if n := disk.bytes(); n != want || n > 0 && len(got) == 0 {
				t.Errorf("%s: %q: %d of %d bytes read; the chunks are %d", compression, partitions, n, len(file), want)
			}
			for _, read := range disk.reads {
				if !slices.ContainsFunc(chunks, func(c listedChunk) bool {
					return slices.Contains(partitions, c.partition) && read[0] >= c.offset && read[0]+read[1] <= c.offset+c.length
				}) {
					t.Errorf("%s: %q: %d bytes read at %d, which is in none of their chunks", compression, partitions, read[1], read[0])
				}
			}
		}
	}
}

func (c *countingReader) bytes() int64 {
	n := int64(0)
	for _, read := range c.reads {
		n += read[1]
	}
	return n
}
