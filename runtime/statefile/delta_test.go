package statefile_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// entry is a record or, with a nil value, a tombstone.
type entry struct {
	partition string
	key       string
	bytesKey  bool   // the key is bytes, not text
	value     []byte // of a byte string; nil: a tombstone
}

func (e entry) encode(dst []byte) []byte {
	if e.value == nil {
		dst = record.AppendTombstone(dst)
	} else {
		dst = record.AppendRecord(dst)
	}
	dst = record.AppendText(dst, e.partition)
	if e.bytesKey {
		dst = record.AppendBytes(dst, e.key)
	} else {
		dst = record.AppendText(dst, e.key)
	}
	if e.value == nil {
		return dst
	}
	return record.AppendBytes(dst, e.value)
}

func (e entry) same(o entry) bool {
	return e.partition == o.partition && e.key == o.key && e.bytesKey == o.bytesKey
}

// batch encodes entries and scans what they give.
func batch(t testing.TB, entries []entry) *record.Batch {
	t.Helper()
	var data []byte
	for _, e := range entries {
		data = e.encode(data)
	}
	s := record.Scanner{Tombstones: true}
	refs, err := s.Scan(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &record.Batch{Data: data, Refs: refs}
}

// model is a state as FORMAT.md, "Applying deltas", describes it: runs of records in file order. Each
// partition's last run is where new records of it go, and stays when it is empty.
type model []modelRun

type modelRun struct {
	partition string
	entries   []entry
}

// fullModel is the state that the entries of a full save give.
func fullModel(entries []entry) model {
	var m model
	for _, e := range entries {
		if len(m) == 0 || m[len(m)-1].partition != e.partition {
			m = append(m, modelRun{partition: e.partition})
		}
		last := &m[len(m)-1]
		last.entries = append(last.entries, e)
	}
	return m
}

func (m model) clone() model {
	out := slices.Clone(m)
	for i := range out {
		out[i].entries = slices.Clone(out[i].entries)
	}
	return out
}

// apply changes the state by one entry of a delta; growth is by how many records.
func (m *model) apply(e entry) (growth int64) {
	last := -1
	for i, run := range *m {
		if run.partition != e.partition {
			continue
		}
		last = i
		for j, old := range run.entries {
			switch {
			case !old.same(e):
			case e.value == nil:
				(*m)[i].entries = slices.Delete(run.entries, j, j+1)
				return -1
			default:
				run.entries[j] = e
				return 0
			}
		}
	}
	if last < 0 {
		last = len(*m)
		*m = append(*m, modelRun{partition: e.partition})
	}
	if e.value == nil {
		return 0
	}
	(*m)[last].entries = append((*m)[last].entries, e)
	return 1
}

// encode gives the records of the partitions, or all, in order.
func (m model) encode(partitions ...string) []byte {
	var out []byte
	for _, run := range m {
		if len(partitions) == 0 || slices.Contains(partitions, run.partition) {
			for _, e := range run.entries {
				out = e.encode(out)
			}
		}
	}
	return out
}

func (m model) all() []entry {
	var out []entry
	for _, run := range m {
		out = append(out, run.entries...)
	}
	return out
}

// at gives the time of a generation's save in these tests.
func at(generation uint64) time.Time {
	return time.Date(2026, 11, 22, 18, 0, 0, 5, time.UTC).Add(time.Duration(generation) * time.Minute)
}

// appendDelta adds a delta of the entries, handed over in one batch, to a file.
func appendDelta(t testing.TB, file []byte, generation uint64, growth int64, entries []entry) ([]byte, statefile.Info) {
	t.Helper()
	f, err := open(file)
	if err != nil {
		t.Fatal(err)
	}
	return appendTo(t, file, f.Tail(), generation, growth, entries)
}

func appendTo(t testing.TB, file []byte, tail statefile.Tail, generation uint64, growth int64, entries []entry) ([]byte, statefile.Info) {
	t.Helper()
	out := bytes.NewBuffer(bytes.Clone(file))
	w, err := statefile.NewDeltaWriter(out, tail, generation, at(generation))
	if err != nil {
		t.Fatal(err)
	}
	w.Grow(growth)
	if err := w.WriteBatch(batch(t, entries)); err != nil {
		t.Fatal(err)
	}
	info, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), info
}

// history is a file and what it must hold after each of its saves.
type history struct {
	compression string
	file        []byte
	model       model
	tail        statefile.Tail
	then        []state
}

type state struct {
	model model
	info  statefile.Info
	end   int
}

func begin(t testing.TB, compression string, entries []entry) *history {
	t.Helper()
	file, info := encode(t, header(compression), batch(t, entries))
	f, err := open(file)
	if err != nil {
		t.Fatal(err)
	}
	h := &history{compression: compression, file: file, model: fullModel(entries), tail: f.Tail()}
	h.then = append(h.then, state{h.model.clone(), info, len(file)})
	return h
}

// add appends a delta by the tail that is known, as a running program does, and holds what the writer,
// Next and Open say of it against each other.
func (h *history) add(t testing.TB, entries ...entry) {
	t.Helper()
	var growth int64
	for _, e := range entries {
		growth += h.model.apply(e)
	}
	generation := header("").Generation + uint64(2*len(h.then))
	file, info := appendTo(t, h.file, h.tail, generation, growth, entries)
	tail, err := h.tail.Next(context.Background(), bytes.NewReader(file), int64(len(file)), "test.state")
	if err != nil {
		t.Fatalf("delta %d: %v", len(h.then), err)
	}
	f, err := open(file)
	if err != nil {
		t.Fatalf("delta %d: %v", len(h.then), err)
	}
	if f.Info() != info {
		t.Fatalf("delta %d: info read %+v, written %+v", len(h.then), f.Info(), info)
	}
	if tail != f.Tail() {
		t.Fatalf("delta %d: the tail after it is %+v, of the file opened %+v", len(h.then), tail, f.Tail())
	}
	h.file, h.tail = file, tail
	h.then = append(h.then, state{h.model.clone(), info, len(file)})
}

// check holds the whole file, and it cut at the end of each save, against the model.
func (h *history) check(t testing.TB) {
	t.Helper()
	f, err := open(h.file)
	if err != nil {
		t.Fatal(err)
	}
	saves := f.Saves()
	if len(saves) != len(h.then) {
		t.Fatalf("%d saves, want %d", len(saves), len(h.then))
	}
	var changes uint64
	raw, chunks := h.then[0].info.Raw, h.then[0].info.Chunks
	for i, s := range saves {
		want := h.then[i]
		if s.Delta != (i > 0) || s.End != int64(want.end) {
			t.Fatalf("save %d: %+v, want one that ends at %d", i, s, want.end)
		}
		generation, created := header("").Generation, header("").Created
		if i > 0 {
			generation += uint64(2 * i)
			created = at(generation)
		}
		if s.Generation != generation || !s.Created.Equal(created) {
			t.Fatalf("save %d: generation %d of %v, want %d of %v", i, s.Generation, s.Created, generation, created)
		}
		cut, err := open(h.file[:s.End])
		if err != nil {
			t.Fatalf("cut after save %d: %v", i, err)
		}
		if g := cut.Header(); g.Generation != generation || !g.Created.Equal(created) || g.Compression != h.compression {
			t.Fatalf("cut after save %d: header %+v", i, g)
		}
		info := cut.Info()
		if info != want.info {
			t.Fatalf("cut after save %d: info %+v, when written %+v", i, info, want.info)
		}
		if i > 0 && (info.Raw < raw || info.Chunks < chunks || info.Changes < changes) || info.Deltas != i || info.Size != s.End || info.Records != uint64(len(want.model.all())) {
			t.Fatalf("cut after save %d: info %+v for %d records", i, info, len(want.model.all()))
		}
		raw, chunks, changes = info.Raw, info.Chunks, info.Changes
		checkRecords(t, fmt.Sprintf("cut after save %d", i), cut, want.model)
	}
	tail := f.Tail()
	if tail.Full() != saves[0].End || tail.Size() != int64(len(h.file)) || tail.Deltas() != len(saves)-1 || tail.Changes() != f.Info().Changes ||
		tail.Live() != f.Info().Records || tail.Header() != f.Header() {
		t.Fatalf("tail %+v of a file of %+v", tail, f.Info())
	}
}

func checkRecords(t testing.TB, what string, f *statefile.File, want model) {
	t.Helper()
	if err := f.Verify(context.Background()); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if err := f.VerifyLast(context.Background()); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if got, err := readAll(f.Records()); err != nil || !bytes.Equal(got, want.encode()) {
		t.Fatalf("%s: %d bytes of records, %v; want others, %d bytes\n got %x\nwant %x", what, len(got), err, len(want.encode()), clip(got), clip(want.encode()))
	}
	seen := map[string]bool{}
	for _, p := range f.Partitions() {
		seen[p.Name] = true
		if got, err := readAll(f.Records(p.Name)); err != nil || !bytes.Equal(got, want.encode(p.Name)) {
			t.Fatalf("%s: partition %.20q has other records, %v", what, p.Name, err)
		}
	}
	for _, run := range want {
		if !seen[run.partition] {
			t.Fatalf("%s: partition %.20q is not listed", what, run.partition)
		}
	}
	// Two of them, in the order of the file, not of the call.
	if ps := f.Partitions(); len(ps) > 1 {
		a, b := ps[len(ps)-1].Name, ps[0].Name
		if got, err := readAll(f.Records(a, b)); err != nil || !bytes.Equal(got, want.encode(a, b)) {
			t.Fatalf("%s: partitions %.20q and %.20q together have other records, %v", what, a, b, err)
		}
	}
	if got, err := readAll(f.Records("no such partition")); err != nil || len(got) > 0 {
		t.Fatalf("%s: a partition that is not there gives %d bytes, %v", what, len(got), err)
	}
}

func clip(b []byte) []byte { return b[:min(len(b), 400)] }

// random makes operations on few keys, so that they meet each other.
type random struct {
	*rand.Rand
	partitions, keys int
	large            bool
}

func (r *random) entry() entry {
	e := entry{partition: fmt.Sprintf("p%d", r.Intn(r.partitions)), key: fmt.Sprintf("k%02d", r.Intn(r.keys)), bytesKey: r.Intn(3) == 0}
	if r.partitions > 2 && e.partition == "p2" {
		e.partition = ""
	}
	n := r.Intn(60)
	if r.large {
		switch r.Intn(60) {
		case 0:
			n = 300 << 10
		case 1, 2, 3:
			n = 20 << 10
		}
	}
	e.value = randomBytes(r.Rand, n)
	return e
}

// entries are up to n of different keys, some of them tombstones if wanted, runs of partitions mixed.
func (r *random) entries(n int, tombstones bool) []entry {
	var out []entry
	for range n {
		e := r.entry()
		if slices.ContainsFunc(out, e.same) {
			continue
		}
		if tombstones && r.Intn(5) < 2 {
			e.value = nil
		}
		out = append(out, e)
	}
	if r.Intn(2) == 0 {
		slices.SortStableFunc(out, func(a, b entry) int { return strings.Compare(a.partition, b.partition) })
	}
	return out
}

// Any operations, spread over any deltas, give the records that applying them one by one gives.
func TestDeltaModel(t *testing.T) {
	seeds := int64(60)
	if testing.Short() {
		seeds = 12
	}
	for seed := range seeds {
		for _, compression := range []string{statefile.CompressionNone, statefile.CompressionZstd} {
			r := &random{Rand: rand.New(rand.NewSource(seed)), partitions: 1 + int(seed%5), keys: 1 + int(seed*7%30), large: seed%6 == 5}
			h := begin(t, compression, r.entries(r.Intn(80), false))
			for range r.Intn(8) {
				switch r.Intn(6) {
				case 0:
					h.add(t)
				case 1: // a partition vanishes
					gone := r.entry().partition
					var all []entry
					for _, e := range h.model.all() {
						if e.partition == gone {
							e.value = nil
							all = append(all, e)
						}
					}
					h.add(t, all...)
				default:
					h.add(t, r.entries(r.Intn(60), true)...)
				}
			}
			h.check(t)
		}
	}
}

// The cases that the words of FORMAT.md name, by hand.
func TestDeltaOrder(t *testing.T) {
	put := func(partition, key, value string) entry {
		return entry{partition: partition, key: key, value: []byte(value)}
	}
	del := func(partition, key string) entry { return entry{partition: partition, key: key} }
	for _, c := range []struct {
		name   string
		full   []entry
		deltas [][]entry
		want   string // partition/key=value of each record
	}{
		{"nothing changes", []entry{put("p", "a", "1")}, [][]entry{{}, {}}, "p/a=1"},
		{"of nothing", nil, [][]entry{{put("p", "a", "1")}}, "p/a=1"},
		{"in its place", []entry{put("p", "a", "1"), put("p", "b", "1")}, [][]entry{{put("p", "a", "2")}}, "p/a=2 p/b=1"},
		{"the newest wins", []entry{put("p", "a", "1"), put("p", "b", "1")}, [][]entry{{put("p", "a", "2")}, {put("p", "a", "3")}}, "p/a=3 p/b=1"},
		{"added at the end of its partition", []entry{put("p", "b", "1"), put("q", "b", "1")}, [][]entry{{put("p", "a", "2")}}, "p/b=1 p/a=2 q/b=1"},
		{"added and replaced", []entry{put("p", "b", "1")}, [][]entry{{put("p", "a", "2"), put("p", "c", "2")}, {put("p", "a", "3")}}, "p/b=1 p/a=3 p/c=2"},
		{"removed", []entry{put("p", "a", "1"), put("p", "b", "1")}, [][]entry{{del("p", "a")}}, "p/b=1"},
		{"removed and back", []entry{put("p", "a", "1"), put("p", "b", "1")}, [][]entry{{del("p", "a")}, {put("p", "a", "3")}}, "p/b=1 p/a=3"},
		{"added, removed, back", nil, [][]entry{{put("p", "a", "1"), put("p", "b", "1")}, {del("p", "a")}, {put("p", "a", "3")}}, "p/b=1 p/a=3"},
		{"removed, back, replaced, removed", []entry{put("p", "a", "1")}, [][]entry{{del("p", "a")}, {put("p", "a", "2")}, {put("p", "a", "3")}, {del("p", "a")}}, ""},
		{"removed where it is not, then added", []entry{put("p", "z", "1")}, [][]entry{{del("p", "a"), put("p", "b", "1")}, {put("p", "a", "2")}}, "p/z=1 p/b=1 p/a=2"},
		{"another partition's key", []entry{put("p", "a", "1"), put("q", "a", "1")}, [][]entry{{del("q", "a")}}, "p/a=1"},
		{"new partitions", []entry{put("q", "a", "1")}, [][]entry{{put("r", "a", "2")}, {put("p", "a", "3"), put("q", "b", "3")}}, "q/a=1 q/b=3 r/a=2 p/a=3"},
		{"emptied and back", []entry{put("p", "a", "1"), put("q", "a", "1")}, [][]entry{{del("p", "a")}, {put("p", "b", "3")}}, "p/b=3 q/a=1"},
		{"new, emptied and back", nil, [][]entry{{put("p", "a", "1")}, {put("q", "a", "2"), del("p", "a")}, {put("p", "b", "3")}}, "p/b=3 q/a=2"},
		{"first seen by a tombstone", nil, [][]entry{{del("p", "a"), put("q", "a", "1")}, {put("p", "a", "2")}}, "p/a=2 q/a=1"},
		{"runs apart", []entry{put("p", "a", "1"), put("q", "a", "1"), put("p", "b", "1"), put("q", "b", "1")},
			[][]entry{{put("p", "c", "2"), put("q", "c", "2"), del("q", "b"), put("p", "a", "2")}}, "p/a=2 q/a=1 p/b=1 p/c=2 q/c=2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := begin(t, statefile.CompressionNone, c.full)
			for _, d := range c.deltas {
				h.add(t, d...)
			}
			h.check(t)
			f, err := open(h.file)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for r := f.Records(); ; {
				b, err := r.ReadBatch()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if b.Len() == 0 {
					t.Error("an empty batch")
				}
				for i := range b.Len() {
					key, _ := b.Key(i)
					got = append(got, fmt.Sprintf("%s/%s=%s", b.Partition(i), key, record.NewPull(b.Value(i)).Bytes()))
				}
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("records %v, want %s", got, c.want)
			}
		})
	}
}

// Text and bytes of the same content are two keys.
func TestDeltaTellsTextFromBytes(t *testing.T) {
	text, raw := entry{"p", "k", false, []byte("text")}, entry{"p", "k", true, []byte("bytes")}
	h := begin(t, statefile.CompressionNone, []entry{text, raw})
	text.value = nil
	h.add(t, text)
	h.check(t)
	if got := h.model.all(); len(got) != 1 || !got[0].bytesKey {
		t.Fatal(got)
	}
}

// A merge whose deltas do not fit into its cache gives the same.
func TestDeltaCacheEvicts(t *testing.T) {
	for _, bound := range []int{0, 1, 40 << 10} {
		r := &random{Rand: rand.New(rand.NewSource(3)), partitions: 2, keys: 30, large: true}
		h := begin(t, statefile.CompressionZstd, r.entries(60, false))
		for range 6 {
			h.add(t, r.entries(60, true)...)
		}
		counted := &countingReader{ReaderAt: bytes.NewReader(h.file)}
		f, err := statefile.Open(counted, int64(len(h.file)), "test.state")
		if err != nil {
			t.Fatal(err)
		}
		counted.reads = nil
		records := f.Records()
		statefile.SetMergeCache(records, bound)
		got, err := readAll(records)
		if err != nil || !bytes.Equal(got, h.model.encode()) {
			t.Errorf("with a cache of %d bytes: other records, %v", bound, err)
		}
		if counted, held := statefile.MergeCache(records); counted != held || held > max(bound, 300<<10+100) {
			t.Errorf("a cache of %d bytes holds %d and counts %d", bound, held, counted)
		}
		if len(counted.reads) <= f.Info().Chunks {
			t.Errorf("with a cache of %d bytes: %d reads of %d chunks: nothing was evicted", bound, len(counted.reads), f.Info().Chunks)
		}
	}
	// With the bound as it is, all is read once.
	r := &random{Rand: rand.New(rand.NewSource(3)), partitions: 2, keys: 30}
	h := begin(t, statefile.CompressionNone, r.entries(60, false))
	h.add(t, r.entries(60, true)...)
	counted := &countingReader{ReaderAt: bytes.NewReader(h.file)}
	f, err := statefile.Open(counted, int64(len(h.file)), "test.state")
	if err != nil {
		t.Fatal(err)
	}
	counted.reads = nil
	if _, err := readAll(f.Records()); err != nil || len(counted.reads) != f.Info().Chunks {
		t.Errorf("%d reads of %d chunks, %v", len(counted.reads), f.Info().Chunks, err)
	}
}

func TestPartitionReadsOnlyItsChunksOfDeltas(t *testing.T) {
	r := &random{Rand: rand.New(rand.NewSource(4)), partitions: 4, keys: 40, large: true}
	h := begin(t, statefile.CompressionNone, r.entries(300, false))
	for range 5 {
		h.add(t, r.entries(100, true)...)
	}
	counted := &countingReader{ReaderAt: bytes.NewReader(h.file)}
	f, err := statefile.Open(counted, int64(len(h.file)), "test.state")
	if err != nil {
		t.Fatal(err)
	}
	chunks := partitionsOfChunks(t, h.file)
	read := 0
	for _, p := range f.Partitions() {
		counted.reads = nil
		if _, err := readAll(f.Records(p.Name)); err != nil {
			t.Fatal(err)
		}
		for _, at := range counted.reads {
			if partition, ok := chunks[at[0]]; !ok || partition != p.Name {
				t.Errorf("for partition %q, %d bytes at %d were read, which are a chunk of %q", p.Name, at[1], at[0], partition)
			}
		}
		read += len(counted.reads)
	}
	if read != len(chunks) || len(chunks) != f.Info().Chunks {
		t.Errorf("%d reads for %d chunks of %d", read, len(chunks), f.Info().Chunks)
	}
}

// save is an index as it stands in a file, to look at and to forge.
type save struct {
	at, end int
	index   map[string]any
}

// savesOf decodes a file's indexes, oldest first.
func savesOf(t testing.TB, file []byte) []save {
	t.Helper()
	var out []save
	for end := len(file); end > 0; {
		s := save{at: int(binary.BigEndian.Uint64(file[end-28:])), end: end}
		if err := cbor.Unmarshal(file[s.at:end-30], &s.index); err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
		end = int(number(s.index["previous"]))
	}
	slices.Reverse(out)
	return out
}

func number(v any) uint64 { n, _ := v.(uint64); return n }

// partitionsOfChunks gives the partition of each chunk by its offset.
func partitionsOfChunks(t testing.TB, file []byte) map[int64]string {
	t.Helper()
	out := map[int64]string{}
	for _, s := range savesOf(t, file) {
		for _, run := range s.index["runs"].([]any) {
			run := run.(map[any]any)
			for _, c := range run["chunks"].([]any) {
				out[int64(number(c.([]any)[0]))] = run["partition"].(string)
			}
		}
	}
	return out
}

// indexBytes is how much the indexes of a file take.
func indexBytes(t testing.TB, file []byte) (n int64) {
	t.Helper()
	for _, s := range savesOf(t, file) {
		n += int64(s.end - 30 - s.at)
	}
	return n
}

// forge writes the last save's index anew, changed, under right checksums.
func forge(t testing.TB, file []byte, change func(index map[string]any)) []byte {
	t.Helper()
	saves := savesOf(t, file)
	s := saves[len(saves)-1]
	index := maps.Clone(s.index)
	change(index)
	return statefile.Forge(file[:s.at], encodeIndex(t, index))
}

// encodeIndex encodes an index, always in the same order.
func encodeIndex(t testing.TB, index map[string]any) []byte {
	t.Helper()
	enc, err := cbor.EncOptions{Sort: cbor.SortBytewiseLexical, TimeTag: cbor.EncTagRequired, Time: cbor.TimeRFC3339NanoUTC}.EncMode()
	if err != nil {
		t.Fatal(err)
	}
	b, err := enc.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestVerifyCountsLiveRecords(t *testing.T) {
	for _, wrong := range []int64{-1, 1} {
		h := small(t, statefile.CompressionNone)
		f, err := open(h.file)
		if err != nil {
			t.Fatal(err)
		}
		live := int64(f.Info().Records) + wrong
		bad := forge(t, h.file, func(index map[string]any) { index["live"] = live })
		if f, err = open(bad); err != nil {
			t.Fatal(err)
		}
		if err := f.VerifyLast(context.Background()); err != nil {
			t.Error(err)
		}
		wantFileError(t, "live", f.Verify(context.Background()), abi.ErrCorrupt, len(bad), len(bad))
		// The save before it has another count, and a right one.
		end, torn, err := statefile.LastGood(context.Background(), bytes.NewReader(bad), int64(len(bad)), "test.state")
		if err != nil || torn || end != int64(h.then[2].end) {
			t.Errorf("LastGood: %d, torn %v, %v; want %d", end, torn, err, h.then[2].end)
		}
		// Two in a row.
		worse, _ := appendDelta(t, bad, 100, 0, []entry{{"p", "a", false, []byte("1")}})
		if end, torn, err := lastGood(worse); err != nil || torn || end != h.then[2].end {
			t.Errorf("LastGood of two: %d, torn %v, %v; want %d", end, torn, err, h.then[2].end)
		}
	}
}

// wantFileError holds err against a sentinel and the offsets it must lie between.
func wantFileError(t testing.TB, what string, err, sentinel error, from, to int) {
	t.Helper()
	var fe *statefile.FileError
	if !errors.As(err, &fe) || !errors.Is(err, sentinel) || fe.File != "test.state" {
		t.Fatalf("%s: error %v, want a *FileError that wraps %v", what, err, sentinel)
	}
	for _, other := range []error{abi.ErrCorrupt, abi.ErrVersion, abi.ErrTooLarge} {
		if other != sentinel && errors.Is(err, other) {
			t.Fatalf("%s: %v wraps %v, too", what, err, other)
		}
	}
	if fe.Offset < int64(from) || fe.Offset > int64(to) {
		t.Fatalf("%s: %v: offset %d, want one from %d to %d", what, err, fe.Offset, from, to)
	}
}

// small is a full save and three deltas, of some hundred bytes each.
func small(t testing.TB, compression string) *history {
	t.Helper()
	v := func(n byte) []byte { return bytes.Repeat([]byte{n}, int(n)) }
	h := begin(t, compression, []entry{{"p", "a", false, v(1)}, {"p", "b", true, v(2)}, {"q", "a", false, v(3)}})
	h.add(t, entry{"p", "a", false, v(4)}, entry{"p", "b", true, nil})
	h.add(t, entry{"r", "x", false, v(5)}, entry{"q", "a", false, nil}, entry{"p", "b", true, v(6)})
	h.add(t, entry{"p", "c", false, v(7)}, entry{"r", "x", false, v(8)})
	return h
}

func lastGood(file []byte) (int, bool, error) {
	end, torn, err := statefile.LastGood(context.Background(), bytes.NewReader(file), int64(len(file)), "test.state")
	return int(end), torn, err
}

func TestDeltasTruncatedAnywhere(t *testing.T) {
	for _, compression := range []string{statefile.CompressionNone, statefile.CompressionZstd} {
		h := small(t, compression)
		for n := range len(h.file) {
			whole := 0 // the end of the last save that fits
			same := slices.IndexFunc(h.then, func(s state) bool { return s.end == n })
			for _, s := range h.then {
				if s.end < n {
					whole = s.end
				}
			}
			f, err := open(h.file[:n])
			if same >= 0 {
				if err != nil {
					t.Fatalf("cut at the end of save %d: %v", same, err)
				}
				checkRecords(t, fmt.Sprintf("cut at the end of save %d", same), f, h.then[same].model)
				continue
			}
			wantFileError(t, fmt.Sprintf("%s cut to %d of %d bytes", compression, n, len(h.file)), err, abi.ErrCorrupt, 0, n)
			end, torn, err := lastGood(h.file[:n])
			switch {
			case whole == 0:
				if !errors.Is(err, abi.ErrNotFound) || end != 0 {
					t.Fatalf("cut to %d bytes: LastGood gives %d, torn %v, %v; want ErrNotFound", n, end, torn, err)
				}
			case err != nil || end != whole || !torn:
				t.Fatalf("cut to %d bytes: LastGood gives %d, torn %v, %v; want %d, torn", n, end, torn, err, whole)
			}
		}
	}
}

func TestEveryByteOfDeltasFlipped(t *testing.T) {
	for _, compression := range []string{statefile.CompressionNone, statefile.CompressionZstd} {
		h := small(t, compression)
		for i := range h.file {
			hit := slices.IndexFunc(h.then, func(s state) bool { return i < s.end }) // the save it is in
			from := 0                                                                // where that begins
			if hit > 0 {
				from = h.then[hit-1].end
			}
			if testing.Short() && i%7 > 0 {
				continue
			}
			for _, mask := range []byte{0x01, 0x80, 0xff} {
				what := fmt.Sprintf("%s: byte %d ^ %#x, of save %d", compression, i, mask, hit)
				bad := bytes.Clone(h.file)
				bad[i] ^= mask
				err := openAndVerify(bad)
				if compression == statefile.CompressionZstd && err == nil {
					f, _ := open(bad)
					checkRecords(t, what, f, h.model)
					continue
				}
				first := from
				if i >= len(h.file)-2 {
					first = 0 // the last trailer's version: it may as well be the header's that is wrong
				}
				wantFileError(t, what, err, abi.ErrCorrupt, first, h.then[hit].end)
				end, torn, err := lastGood(bad)
				if hit == 0 {
					if !errors.Is(err, abi.ErrNotFound) {
						t.Fatalf("%s: LastGood gives %d, torn %v, %v; want ErrNotFound", what, end, torn, err)
					}
					continue
				}
				// The last trailer damaged is what a cut-off append looks like.
				mayBeTorn := hit == len(h.then)-1 && i >= h.then[hit].end-30
				if err != nil || end != from || torn && !mayBeTorn {
					t.Fatalf("%s: LastGood gives %d, torn %v, %v; want %d, not torn", what, end, torn, err, from)
				}
				if mask != 0x80 {
					continue // once is enough
				}
				good, err := open(bad[:end])
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				checkRecords(t, what, good, h.then[hit-1].model)
			}
		}
	}
}

// Whatever is damaged of the last trailer, it is not taken for an append that was cut off.
func TestDamagedTrailerIsNotTorn(t *testing.T) {
	h := small(t, statefile.CompressionNone)
	for at := len(h.file) - 30; at < len(h.file); at++ {
		for _, change := range []byte{0x01, 0x40, 0xff} {
			bad := bytes.Clone(h.file)
			bad[at] ^= change
			end, torn, err := lastGood(bad)
			if err != nil || torn || end != h.then[len(h.then)-2].end {
				t.Fatalf("byte %d of the trailer: LastGood %d, torn %v, %v", at-len(h.file)+30, end, torn, err)
			}
		}
	}
}

// Behind a whole file, anything but a whole delta is cut off again.
func TestGarbageBehindDeltas(t *testing.T) {
	h := small(t, statefile.CompressionNone)
	whole := len(h.file)
	r := rand.New(rand.NewSource(5))
	next, _ := appendDelta(t, h.file, 100, 1, []entry{{"p", "new", false, []byte("value")}})
	next = next[whole:]
	other := small(t, statefile.CompressionZstd).file
	trailer := func(offset, length uint64) []byte {
		b := binary.BigEndian.AppendUint64([]byte{0x58, 0x1c}, offset)
		b = append(binary.BigEndian.AppendUint64(b, length), 1, 2, 3, 4)
		return append(b, "torpor\x00\x01"...)
	}
	fake := func(at uint64) []byte { return trailer(at, uint64(whole)+100-at) }
	for _, c := range []struct {
		name    string
		garbage []byte
		torn    bool
	}{
		{"a zero", []byte{0}, true},
		{"zeros", make([]byte, 200_000), true},
		{"random", randomBytes(r, 100_000), true},
		{"half a delta", next[:len(next)/2], true},
		{"a delta but for a byte", next[:len(next)-1], true},
		{"a delta of zeros and its end", append(make([]byte, len(next)-8), next[len(next)-8:]...), false},
		{"a delta without its first half, as a power cut leaves it", append(make([]byte, 40), next[40:]...), false},
		{"a delta and a byte", append(bytes.Clone(next), 0), true},
		{"another state file", other, false},
		{"the file once more", h.file, false},
		{"the last delta once more", h.file[h.then[2].end:], false},
		{"the word", []byte("torpor\x00\x01"), false},
		{"the word, and a byte", []byte("torpor\x00\x01 "), true},
		{"a trailer that points behind itself", trailer(1<<40, 5), false},
		{"a trailer whose sum overflows", trailer(math.MaxUint64, uint64(whole)+1), false},
		{"a trailer in the right place", append(make([]byte, 100), fake(uint64(whole))...), false},
		{"a trailer over the last delta", append(make([]byte, 100), fake(uint64(h.then[2].end))...), false},
		{"a trailer over the header", append(make([]byte, 100), fake(0)...), false},
		{"many trailers", bytes.Repeat(append(make([]byte, 100), fake(3)...), 700), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad := append(bytes.Clone(h.file), c.garbage...)
			f, err := open(bad)
			if err == nil {
				err = f.VerifyLast(context.Background())
			}
			want := whole
			wantFileError(t, c.name, err, abi.ErrCorrupt, 0, len(bad))
			if c.name == "a delta and a byte" {
				want += len(next)
			}
			end, torn, err := lastGood(bad)
			if err != nil || end != want || torn != c.torn {
				t.Fatalf("LastGood: %d, torn %v, %v; want %d, torn %v", end, torn, err, want, c.torn)
			}
		})
	}
}

// forgery is an index, to be put at an offset, of a save whose one chunk is what lies from from to there.
func forgery(t testing.TB, file []byte, at, from int, index map[string]any, before []byte, partition string, sum [32]byte) []byte {
	t.Helper()
	last := savesOf(t, file)[0].index
	x := map[string]any{"header": last["header"], "records": 0, "raw": 0, "runs": []any{}}
	root := sha256.New()
	root.Write(before)
	if at > from {
		kind := "full"
		if before != nil {
			kind = "delta"
		}
		x["records"], x["raw"] = 1, at-from-7
		x["runs"] = []any{map[string]any{"kind": kind, "partition": partition, "chunks": []any{[]any{from, at - from, 1, at - from - 7, sum[:]}}}}
		root.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(partition))), partition...))
		root.Write(sum[:])
	}
	x["root"] = root.Sum(nil)
	maps.Copy(x, index)
	return statefile.ForgeAt(at, encodeIndex(t, x))
}

// What a record's value holds is never taken for a save, though every checksum in it be right.
func TestLastGoodIsNotFooled(t *testing.T) {
	h := small(t, statefile.CompressionNone)
	header := len(h.file) // where the header ends
	for at := range partitionsOfChunks(t, h.file) {
		header = min(header, int(at))
	}
	lastRoot, ok := savesOf(t, h.file)[3].index["root"].([]byte)
	if !ok {
		t.Fatal("no root")
	}
	firstRoot, ok := savesOf(t, h.file)[0].index["root"].([]byte)
	if !ok {
		t.Fatal("no root")
	}
	sum := sha256.Sum256(nil)
	// Each makes what a value holds that begins at an offset of the file.
	values := map[string]func(at int) []byte{
		"the whole file":       func(int) []byte { return h.file },
		"a delta":              func(int) []byte { return h.file[h.then[2].end:] },
		"a full save":          func(at int) []byte { return forgery(t, h.file, at, header, nil, nil, "p", sum) },
		"a full save, empty":   func(at int) []byte { return forgery(t, h.file, at, at, nil, nil, "p", sum) },
		"a full save, unsound": func(at int) []byte { b := forgery(t, h.file, at, header, nil, nil, "p", sum); b[9] ^= 1; return b },
		"one of a later reader": func(at int) []byte {
			return forgery(t, h.file, at, header, map[string]any{"previous": 1}, nil, "p", sum)
		},
		"a delta on the newest": func(at int) []byte {
			return forgery(t, h.file, at, len(h.file), map[string]any{"previous": len(h.file), "generation": 1000, "live": 4}, lastRoot, "p", sum)
		},
		"a delta on the oldest": func(at int) []byte {
			return forgery(t, h.file, at, h.then[0].end, map[string]any{"previous": h.then[0].end, "generation": 1000, "live": 4}, firstRoot, "p", sum)
		},
		"a delta on nothing": func(at int) []byte {
			rec := entry{"p", "k", false, []byte("v")}.encode(nil)
			chunk := append([]byte{0xd8, 0x3f}, record.AppendBytes(nil, rec)...)
			return append(chunk, forgery(t, h.file, at+len(chunk), at, map[string]any{"previous": at, "generation": 1000, "live": 4}, lastRoot, "p", sha256.Sum256(rec))...)
		},
		"a full save and a delta": func(at int) []byte {
			full := forgery(t, h.file, at, header, nil, nil, "p", sum)
			root := sha256.Sum256(append([]byte("\x00\x00\x00\x01p"), sum[:]...))
			return append(full, forgery(t, h.file, at+len(full), at+len(full), map[string]any{"previous": at + len(full), "generation": 1000, "live": 4}, root[:], "p", sum)...)
		},
	}
	for name, value := range values {
		t.Run(name, func(t *testing.T) {
			// The value stands where its own length puts it, so it is made twice.
			place := func(write func([]entry) []byte) (out []byte, end int) {
				content := value(1000)
				for range 10 {
					out = write([]entry{{"p", "a", false, append([]byte("<value>"), content...)}})
					at := bytes.LastIndex(out, []byte("<value>")) + len("<value>")
					made := value(at)
					if bytes.Equal(made, content) {
						return out, at + len(content)
					}
					content = made
				}
				t.Fatal("the value is not where it was made for")
				return nil, 0
			}
			out, end := place(func(e []entry) []byte { out, _ := appendDelta(t, h.file, 500, 0, e); return out })
			if f, err := open(out); err != nil || f.Verify(context.Background()) != nil {
				t.Fatalf("not a sound file: %v", err)
			}
			for n := end; n < len(out); n++ { // cut off behind the value
				if got, _, err := lastGood(out[:n]); err != nil || got != len(h.file) {
					t.Fatalf("cut to %d of %d bytes: LastGood: %d, %v; want %d", n, len(out), got, err, len(h.file))
				}
			}
			for n := range 3 {
				if got, torn, err := lastGood(append(bytes.Clone(out), make([]byte, n*40_000+1)...)); err != nil || got != len(out) || !torn {
					t.Fatalf("with zeros behind it: LastGood: %d, torn %v, %v; want %d, torn", got, torn, err, len(out))
				}
			}
			// The same in the full save, and a delta damaged.
			full, _ := place(func(e []entry) []byte { return begin(t, statefile.CompressionNone, e).file })
			next, _ := appendDelta(t, full, 500, 0, []entry{{"p", "a", false, []byte("1")}})
			next[len(next)-40] ^= 1
			if got, torn, err := lastGood(next); err != nil || got != len(full) || torn {
				t.Fatalf("in the full save: LastGood: %d, torn %v, %v; want %d, not torn", got, torn, err, len(full))
			}
		})
	}
}

func TestLastGoodOfDamageFurtherInside(t *testing.T) {
	h := small(t, statefile.CompressionNone)
	chunks := slices.Sorted(maps.Keys(partitionsOfChunks(t, h.file)))
	for _, torn := range []bool{false, true} {
		for _, at := range chunks {
			bad := bytes.Clone(h.file)
			bad[at+5] ^= 0x20 // inside of its records
			hit := slices.IndexFunc(h.then, func(s state) bool { return int(at) < s.end })
			if torn {
				if hit == 0 {
					continue // nobody looks there while there is a reason to cut the end off
				}
				bad = append(bad, 1, 2, 3)
			} else if err := openAndVerify(bad); !errors.Is(err, abi.ErrCorrupt) {
				t.Fatal(err)
			}
			end, cut, err := lastGood(bad)
			switch {
			case hit == 0:
				if !errors.Is(err, abi.ErrNotFound) {
					t.Errorf("damage at %d, in the full save: LastGood: %d, %v", at, end, err)
				}
			case err != nil || cut || end != h.then[hit-1].end:
				t.Errorf("damage at %d, in save %d: LastGood: %d, torn %v, %v; want %d", at, hit, end, cut, err, h.then[hit-1].end)
			}
		}
	}
}

// Where something newer than this program has been at work, nothing is to be thrown away.
func TestLastGoodStopsAtANewerSave(t *testing.T) {
	h := small(t, statefile.CompressionNone)
	newer := forge(t, h.file, func(index map[string]any) { index["runs"].([]any)[0].(map[any]any)["kind"] = "merge" })
	_, err := open(newer)
	wantFileError(t, "a run of a kind to come", err, abi.ErrVersion, h.then[2].end, len(newer))
	for _, tail := range []int{0, 1, 100} {
		if end, _, err := lastGood(append(bytes.Clone(newer), make([]byte, tail)...)); !errors.Is(err, abi.ErrVersion) {
			t.Errorf("LastGood: %d, %v; want ErrVersion", end, err)
		}
	}
}

type failingReader struct{ io.ReaderAt }

func (failingReader) ReadAt([]byte, int64) (int, error) { return 0, io.ErrClosedPipe }

func TestLastGoodErrors(t *testing.T) {
	h := small(t, statefile.CompressionNone)
	bad := append(bytes.Clone(h.file), 0)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := statefile.LastGood(ctx, bytes.NewReader(bad), int64(len(bad)), "test.state"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, _, err := statefile.LastGood(context.Background(), failingReader{}, int64(len(bad)), "test.state"); !errors.Is(err, io.ErrClosedPipe) || errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("a reader that fails: %v", err)
	}
	for n := range 40 {
		if _, _, err := lastGood(make([]byte, n)); !errors.Is(err, abi.ErrNotFound) {
			t.Errorf("%d zeros: %v", n, err)
		}
	}
	// A sound file has nothing that would have to be cut off; asked all the same, it is the save before.
	if end, torn, err := lastGood(h.file); err != nil || torn || end != h.then[2].end {
		t.Errorf("a sound file: %d, torn %v, %v", end, torn, err)
	}
}

// Looking for the last good one among many deltas takes one look at each.
func TestLastGoodAmongManyDeltas(t *testing.T) {
	const deltas = 600
	h := begin(t, statefile.CompressionNone, []entry{{"p", "a", false, []byte("1")}})
	file, tail := h.file, h.tail
	for i := range deltas {
		file, _ = appendTo(t, file, tail, uint64(100+i), 0, nil)
		var err error
		if tail, err = tail.Next(context.Background(), bytes.NewReader(file), int64(len(file)), "test.state"); err != nil {
			t.Fatal(err)
		}
	}
	file[h.then[0].end+60] ^= 1 // in the first delta's index
	r := &countingReader{ReaderAt: bytes.NewReader(file)}
	end, torn, err := statefile.LastGood(context.Background(), r, int64(len(file)), "test.state")
	if err != nil || torn || end != int64(h.then[0].end) {
		t.Errorf("LastGood: %d, torn %v, %v", end, torn, err)
	}
	if len(r.reads) > 4*deltas {
		t.Errorf("%d reads for %d deltas", len(r.reads), deltas)
	}
}

func TestNextRefuses(t *testing.T) {
	h := small(t, statefile.CompressionNone)
	next := func(file []byte, tail statefile.Tail) error {
		_, err := tail.Next(context.Background(), bytes.NewReader(file), int64(len(file)), "test.state")
		return err
	}
	add := []entry{{"p", "new", false, []byte("value")}}
	good, _ := appendTo(t, h.file, h.tail, 100, 1, add)
	if err := next(good, h.tail); err != nil {
		t.Fatal(err)
	}
	more, _ := appendDelta(t, good, 101, 0, nil)

	// As long as h's, and another.
	other := begin(t, statefile.CompressionNone, []entry{{"p", "a", false, bytes.Repeat([]byte{9}, 1)}, {"p", "b", true, bytes.Repeat([]byte{9}, 2)}, {"q", "a", false, bytes.Repeat([]byte{9}, 3)}})
	first := h.then[0]
	one, err := open(h.file[:first.end])
	if err != nil {
		t.Fatal(err)
	}
	if len(other.file) != first.end {
		t.Fatalf("%d and %d bytes", len(other.file), first.end)
	}
	foreign, _ := appendTo(t, other.file, other.tail, 100, 1, add)

	cases := map[string]struct {
		file []byte
		tail statefile.Tail
		at   int // the least offset
		err  error
	}{
		"nothing":            {h.file, h.tail, len(h.file), abi.ErrCorrupt},
		"less than it":       {h.file[:len(h.file)-1], h.tail, len(h.file) - 1, abi.ErrCorrupt},
		"a few bytes":        {append(bytes.Clone(h.file), 1, 2, 3), h.tail, len(h.file), abi.ErrCorrupt},
		"two deltas":         {more, h.tail, len(good), abi.ErrCorrupt},
		"a delta on another": {foreign, one.Tail(), first.end, abi.ErrCorrupt},
		"a gap":              {append(append(bytes.Clone(h.file), 0), good[len(h.file):]...), h.tail, len(h.file), abi.ErrCorrupt},
		"the same generation": {forge(t, good, func(x map[string]any) { x["generation"] = h.tail.Header().Generation }), h.tail,
			len(h.file), abi.ErrCorrupt},
		"no generation":   {forge(t, good, func(x map[string]any) { delete(x, "generation") }), h.tail, len(h.file), abi.ErrCorrupt},
		"no live":         {forge(t, good, func(x map[string]any) { delete(x, "live") }), h.tail, len(h.file), abi.ErrCorrupt},
		"a gap before it": {forge(t, good, func(x map[string]any) { x["previous"] = len(h.file) - 1 }), h.tail, len(h.file), abi.ErrCorrupt},
		"a full save":     {forge(t, good, func(x map[string]any) { x["previous"] = 0 }), h.tail, len(h.file), abi.ErrCorrupt},
		"a later kind": {forge(t, good, func(x map[string]any) { x["runs"].([]any)[0].(map[any]any)["kind"] = "merge" }), h.tail,
			len(h.file), abi.ErrVersion},
		"another header": {forge(t, good, func(x map[string]any) { x["header"] = make([]byte, 32) }), h.tail, 0, abi.ErrCorrupt},
		"too much index": {good, statefile.TailAfter(statefile.MaxIndexBytes-indexBytes(t, h.file)-10, h.tail), len(h.file), abi.ErrTooLarge},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			wantFileError(t, name, next(c.file, c.tail), c.err, c.at, len(c.file))
		})
	}
	for i := len(h.file); i < len(good); i++ {
		bad := bytes.Clone(good)
		bad[i] ^= 0x11
		wantFileError(t, fmt.Sprintf("byte %d flipped", i), next(bad, h.tail), abi.ErrCorrupt, len(h.file), len(good))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := h.tail.Next(ctx, bytes.NewReader(good), int64(len(good)), "test.state"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestDeltaWriterRefuses(t *testing.T) {
	h := small(t, statefile.CompressionNone)
	var out bytes.Buffer
	w, err := statefile.NewWriter(&out, header(""))
	if err != nil {
		t.Fatal(err)
	}
	gone := batch(t, []entry{{"p", "a", false, []byte("1")}, {"p", "b", false, nil}})
	if err := w.WriteBatch(gone); err == nil {
		t.Error("a tombstone in a full save is accepted")
	}
	if _, err := w.Close(); err == nil {
		t.Error("and the file is closed after it")
	}
	for _, generation := range []uint64{0, 1, h.tail.Header().Generation} {
		if _, err := statefile.NewDeltaWriter(io.Discard, h.tail, generation, at(1)); err == nil {
			t.Errorf("generation %d after %d is accepted", generation, h.tail.Header().Generation)
		}
	}
	for growth, ok := range map[int64]bool{-int64(h.tail.Live()): true, -int64(h.tail.Live()) - 1: false, math.MinInt64: false} {
		w, err := statefile.NewDeltaWriter(io.Discard, h.tail, 100, at(1))
		if err != nil {
			t.Fatal(err)
		}
		w.Grow(growth)
		if _, err := w.Close(); (err == nil) != ok {
			t.Errorf("%d records less, of %d: %v", -growth, h.tail.Live(), err)
		}
	}
	file, _ := appendTo(t, nil, h.tail, 100, 0, []entry{{"p", "a", false, make([]byte, 40_000)}})
	for n := 0; n < len(file); n += 97 {
		w, err := statefile.NewDeltaWriter(&failingWriter{left: n}, h.tail, 100, at(1))
		if err != nil {
			t.Fatal(err)
		}
		if err = w.WriteBatch(batch(t, []entry{{"p", "a", false, make([]byte, 40_000)}})); err == nil {
			_, err = w.Close()
		}
		if !errors.Is(err, io.ErrClosedPipe) {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
}

// The pieces in which changes arrive must not show in the file.
func TestBatchesDoNotShowInDeltas(t *testing.T) {
	r := &random{Rand: rand.New(rand.NewSource(6)), partitions: 3, keys: 200, large: true}
	entries := r.entries(400, true)
	h := begin(t, statefile.CompressionNone, nil)
	whole, _ := appendTo(t, nil, h.tail, 100, 0, entries)
	var cut bytes.Buffer
	w, err := statefile.NewDeltaWriter(&cut, h.tail, 100, at(100))
	if err != nil {
		t.Fatal(err)
	}
	for piece := range slices.Chunk(entries, 7) {
		if err := w.WriteBatch(batch(t, piece)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Close(); err != nil || !bytes.Equal(cut.Bytes(), whole) {
		t.Errorf("the delta depends on how records were handed over, %v", err)
	}
}

func TestMaxDeltas(t *testing.T) {
	h := begin(t, statefile.CompressionNone, nil)
	file := bytes.Clone(h.file)
	saves := savesOf(t, file)
	root := saves[0].index["root"].([]byte)
	type index struct {
		Previous   int    `cbor:"previous"`
		Generation int    `cbor:"generation"`
		Header     []byte `cbor:"header"`
		Root       []byte `cbor:"root"`
		Live       int    `cbor:"live"`
	}
	add := func(i int) {
		sum := sha256.Sum256(root)
		root = sum[:]
		b, err := cbor.Marshal(index{len(file), 1000 + i, saves[0].index["header"].([]byte), root, 0})
		if err != nil {
			t.Fatal(err)
		}
		file = append(file, statefile.ForgeAt(len(file), b)...)
	}
	for i := range statefile.MaxDeltas {
		add(i)
	}
	f, err := open(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := f.Info().Deltas; n != statefile.MaxDeltas {
		t.Fatalf("%d deltas", n)
	}
	if _, err := statefile.NewDeltaWriter(io.Discard, f.Tail(), 1<<40, at(1)); !errors.Is(err, abi.ErrTooLarge) {
		t.Errorf("one more: %v", err)
	}
	end := len(file)
	add(statefile.MaxDeltas)
	_, err = open(file)
	wantFileError(t, "one more delta", err, abi.ErrTooLarge, h.then[0].end, end)
}

// wantNoMore checks that a file takes no further delta of a record.
func wantNoMore(t *testing.T, tail statefile.Tail) {
	t.Helper()
	w, err := statefile.NewDeltaWriter(io.Discard, tail, 100, at(1))
	if err != nil {
		t.Fatal(err)
	}
	if err = w.WriteBatch(batch(t, []entry{{"p", "b", false, []byte("1")}})); err == nil {
		_, err = w.Close()
	}
	if !errors.Is(err, abi.ErrTooLarge) {
		t.Errorf("a writer of a change too many: %v", err)
	}
}

func TestMaxDeltaBytes(t *testing.T) {
	weigh := func(raw int) func(x map[string]any) {
		return func(x map[string]any) {
			chunk := x["runs"].([]any)[0].(map[any]any)["chunks"].([]any)[0].([]any)
			chunk[3], x["raw"] = raw, raw
		}
	}
	h := begin(t, statefile.CompressionNone, nil)
	h.add(t, entry{"p", "a", false, []byte("1")})
	_, err := open(forge(t, h.file, weigh(statefile.MaxDeltaBytes+1)))
	wantFileError(t, "one delta", err, abi.ErrTooLarge, h.then[0].end, len(h.file))
	f, err := open(forge(t, h.file, weigh(statefile.MaxDeltaBytes)))
	if err != nil {
		t.Fatal(err)
	}
	wantNoMore(t, f.Tail())
}

func TestMaxChanges(t *testing.T) {
	claim := func(changes int) func(x map[string]any) {
		return func(x map[string]any) {
			chunk := x["runs"].([]any)[0].(map[any]any)["chunks"].([]any)[0].([]any)
			chunk[2], x["records"] = changes, changes
		}
	}
	h := begin(t, statefile.CompressionNone, nil)
	h.add(t, entry{"p", "a", false, []byte("1")})
	if _, err := open(forge(t, h.file, claim(statefile.MaxChanges+1))); err == nil {
		t.Error("one delta with too many changes is accepted")
	} else {
		wantFileError(t, "one delta", err, abi.ErrTooLarge, h.then[0].end, len(h.file))
	}
	full := forge(t, h.file, claim(statefile.MaxChanges))
	f, err := open(full)
	if err != nil {
		t.Fatal(err)
	}
	wantNoMore(t, f.Tail())
	// Two deltas that are one too many together.
	second, _ := appendDelta(t, forge(t, h.file, claim(statefile.MaxChanges-1)), 100, 1, []entry{{"p", "b", false, []byte("1")}})
	if _, err := open(second); err != nil {
		t.Fatal(err)
	}
	_, err = open(forge(t, second, claim(2)))
	wantFileError(t, "two deltas", err, abi.ErrTooLarge, h.then[0].end, len(second))
}

// The limit of the index is for all indexes of a file.
func TestMaxIndexBytes(t *testing.T) {
	h := small(t, statefile.CompressionNone)
	used := indexBytes(t, h.file)
	if _, err := statefile.OpenAfter(statefile.MaxIndexBytes-used, bytes.NewReader(h.file), int64(len(h.file)), "test.state"); err != nil {
		t.Error(err)
	}
	_, err := statefile.OpenAfter(statefile.MaxIndexBytes-used+1, bytes.NewReader(h.file), int64(len(h.file)), "test.state")
	wantFileError(t, "a byte too much", err, abi.ErrTooLarge, 0, h.then[0].end)
	for _, left := range []int64{0, 1, 10} {
		w, err := statefile.NewDeltaWriter(io.Discard, statefile.TailAfter(statefile.MaxIndexBytes-used-left, h.tail), 100, at(1))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Close(); !errors.Is(err, abi.ErrTooLarge) {
			t.Errorf("a writer with %d bytes left for its index: %v", left, err)
		}
	}
}
