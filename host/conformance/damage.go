package conformance

import (
	"context"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// How many damages are tried with one fixture.
const (
	// MaxEveryTruncation is the size, in bytes, up to which a fixture is cut at every length. A larger one
	// is cut at TruncationSamples lengths: a quarter of them at either end, the others spread.
	MaxEveryTruncation = 4 << 10
	TruncationSamples  = 512
	// MaxEveryByte is the size up to which every byte of a fixture is changed, one at a time.
	MaxEveryByte = 512
	// DamageSamples is how many damages are made up besides; EmptySamples is that for a fixture without a byte.
	DamageSamples = 256
	EmptySamples  = 64
	// DamagedRecords is how many records of a fixture are damaged, each in some thirty ways.
	DamagedRecords = 16
	// TrialBytes bounds the work with large fixtures: no check tries more than so many bytes of input with
	// one of them, but MinTrials in any case.
	TrialBytes = 256 << 20
	MinTrials  = 16
	// TrialFuel does so for modules that compute much: no check tries more than MinTrials with one fixture
	// if they take more fuel, each counted as saving and loading the fixture. Fixtures of up to
	// MaxEveryByte bytes are tried in full all the same.
	TrialFuel = 500_000_000
	// PieceTrials is how many of the damaged inputs are also given byte by byte, PieceBytes how many
	// bytes of one fixture in all.
	PieceTrials = 32
	PieceBytes  = 1 << 20
	// ThoroughFactor is by how much [Options.Thorough] multiplies the samples; it lifts TrialBytes and
	// TrialFuel.
	ThoroughFactor = 8
)

// samples is how many of n trials with inputs of size bytes are made. It counts those that are not.
func (t *trial) samples(n, size int) int {
	if t.Thorough {
		return n
	}
	most := TrialBytes / max(size, 1)
	if fuel := t.subject.fuel; fuel > 0 && size > MaxEveryByte {
		most = int(min(int64(most), TrialFuel/fuel))
	}
	made := min(n, max(MinTrials, most))
	t.Left += n - made
	return made
}

// damages is input that may be damaged, and what judges a module's answer.
type damages struct {
	op    string
	size  int                                          // about, of one input
	input func(i int) (what string, b []byte, ok bool) // the i-th; none if not ok
	call  func(m module, b []byte) ([]byte, error)     // is op
	sound func(what string, b []byte) (v verdict)      // with whole pieces
}

// damagedNative is damaged with native states for save.
func (t *trial) damagedNative(ctx context.Context, n int, input func(i int) (string, []byte, bool)) error {
	return t.damaged(ctx, n, damages{op: abi.OpSave, size: len(t.subject.native), input: input,
		call:  func(m module, b []byte) ([]byte, error) { return t.save(ctx, m, b) },
		sound: func(what string, b []byte) verdict { return t.soundNative(ctx, t.plain, what, b) },
	})
}

// damaged tries n inputs, and some of them again byte by byte, which must come to the same.
func (t *trial) damaged(ctx context.Context, n int, d damages) error {
	pieces := min(n, PieceTrials, PieceBytes/max(d.size, 1))
	if pieces == 0 && n > 0 {
		t.note("not tried byte by byte: it is larger than %d bytes", PieceBytes)
	}
	byteByByte, err := t.module(ctx, room{piece: 1})
	if err != nil {
		return err
	}
	t.each(ctx, n+pieces, func(i int) verdict {
		again := i >= n
		if again {
			i = (i - n) * n / pieces
		}
		what, b, ok := d.input(i)
		switch {
		case !ok:
			return verdict{none: true}
		case again:
			return t.alike(byteByByte, what+", and with its input byte by byte", d.op, func(m module) ([]byte, error) { return d.call(m, b) })
		}
		return d.sound(what, b)
	})
	return nil
}

// dice are the same for the same seed, check and fixture.
func (t *trial) dice(i int) *rand.Rand {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s\x00%s\x00%d", t.Check, t.Fixture, i)
	return rand.New(rand.NewPCG(t.Seed, h.Sum64()))
}

// truncations is the lengths that n bytes are cut to, in ascending order.
func (t *trial) truncations(n int) []int {
	var lengths []int
	if n <= MaxEveryTruncation || t.Thorough {
		for i := range n {
			lengths = append(lengths, i)
		}
		return lengths
	}
	count := t.samples(TruncationSamples, n)
	end := count / 4
	for i := range end {
		lengths = append(lengths, i, n-1-i)
	}
	// One in each of equal parts of what is between.
	dice, parts, width := t.dice(0), count-2*end, n-2*end
	for i := range parts {
		from, to := end+i*width/parts, end+(i+1)*width/parts
		lengths = append(lengths, from+dice.IntN(to-from))
	}
	slices.Sort(lengths)
	return lengths
}

// damage is one way to damage native state: what is done to it, and what comes out.
func damage(native []byte, dice *rand.Rand) (what string, b []byte) {
	n := len(native)
	random := func(k int) []byte {
		b := make([]byte, k)
		for i := range b {
			b[i] = byte(dice.Uint32())
		}
		return b
	}
	if n == 0 {
		b = random(1 + dice.IntN(16))
		return fmt.Sprintf("%d bytes %q instead of none", len(b), b), b
	}
	at := dice.IntN(n)
	switch dice.IntN(8) {
	case 0:
		return changed(native, at, native[at]^1<<dice.IntN(8))
	case 1:
		return changed(native, at, native[at]+byte(1+dice.IntN(255)))
	case 2:
		added := random(1 + dice.IntN(4))
		return fmt.Sprintf("%q inserted at offset %d of %d bytes", added, at, n), slices.Concat(native[:at], added, native[at:])
	case 3:
		end := min(n, at+1+dice.IntN(8))
		return fmt.Sprintf("%d bytes deleted at offset %d of %d", end-at, at, n), slices.Concat(native[:at], native[end:])
	case 4:
		end := min(n, at+1+dice.IntN(64))
		return fmt.Sprintf("%d bytes at offset %d of %d repeated", end-at, at, n), slices.Concat(native[:end], native[at:])
	case 5:
		end := min(n, at+1+dice.IntN(16))
		return fmt.Sprintf("%d bytes at offset %d of %d set to zero", end-at, at, n), slices.Concat(native[:at], make([]byte, end-at), native[end:])
	case 6:
		added := random(1 + dice.IntN(16))
		return fmt.Sprintf("%q behind the end of %d bytes", added, n), slices.Concat(native, added)
	default: // two neighbouring ranges in each other's place
		mid := min(n, at+1+dice.IntN(16))
		end := min(n, mid+1+dice.IntN(16))
		return fmt.Sprintf("bytes %d to %d and %d to %d of %d swapped", at, mid, mid, end, n),
			slices.Concat(native[:at], native[mid:end], native[at:mid], native[end:])
	}
}

func changed(native []byte, at int, to byte) (what string, b []byte) {
	b = slices.Clone(native)
	b[at] = to
	return fmt.Sprintf("byte %d of %d changed from %#02x to %#02x", at, len(native), native[at], to), b
}

// namedValue is a value that stands in for another one.
type namedValue struct {
	name string
	item []byte
}

// otherValues is an item of each kind, and some that are hard.
func otherValues() []namedValue {
	deep := make([]byte, 0, record.MaxDepth)
	for range record.MaxDepth - 1 {
		deep = record.AppendArray(deep, 1)
	}
	pair := record.AppendNull(record.AppendText(record.AppendMap(nil, 1), "torpor"))
	return []namedValue{
		{"null", record.AppendNull(nil)},
		{"false", record.AppendBool(nil, false)},
		{"0", record.AppendUint(nil, 0)},
		{"-1", record.AppendInt(nil, -1)},
		{"the largest integer", record.AppendUint(nil, math.MaxUint64)},
		{"the smallest integer", []byte{0x3b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}},
		{"an empty text", record.AppendText(nil, "")},
		{"another text", record.AppendText(nil, "torpor")},
		{"a text that is not UTF-8", record.AppendText(nil, "\xff\xfe")},
		{"bytes", record.AppendBytes(nil, "\x00\xff")},
		{"an empty array", record.AppendArray(nil, 0)},
		{"an array of null", record.AppendNull(record.AppendArray(nil, 1))},
		{"an empty map", record.AppendMap(nil, 0)},
		{"a map of something else", pair},
		{"a NaN", []byte{0xf9, 0x7e, 0x00}},
		{"a tagged text", record.AppendText(record.AppendTag(nil, 0), "torpor")},
		{"an unassigned simple value", []byte{0xf8, 0xff}},
		{strconv.Itoa(record.MaxDepth) + " arrays inside one another", record.AppendArray(deep, 0)},
	}
}

// Ways to damage a record besides giving it another value.
const (
	otherKey = iota
	byteKey
	emptyKey
	otherPartition
	dropped
	twice
	swapped
	cutAfter
	firstInside // from here on, a byte inside the value
)

const insides = 8 // how many bytes inside a value are changed, one at a time

// damagedRecords makes records that are sound and not what the module wrote. It gives how many ways
// there are, and the i-th; that has no bytes where the way does not apply.
func (t *trial) damagedRecords(records []byte) (n int, damaged func(i int) (what string, b []byte)) {
	var scan record.Scanner
	scan.MaxBytes = int(t.Limits.RecordBytes)
	refs, err := scan.Scan(records, nil)
	if err != nil || len(refs) == 0 { // the host has checked them
		return 0, nil
	}
	batch := &record.Batch{Data: records, Refs: refs}
	values := otherValues()
	ways := len(values) + firstInside + insides

	// The first, the last, and some between.
	chosen := []int{0}
	count := DamagedRecords
	if t.Thorough {
		count *= ThoroughFactor
	}
	if count = min(count, len(refs)); count > 1 {
		for i := 1; i < count-1; i++ {
			from, to := 1+(i-1)*(len(refs)-2)/(count-2), 1+i*(len(refs)-2)/(count-2)
			chosen = append(chosen, from+t.dice(-i).IntN(to-from))
		}
		chosen = append(chosen, len(refs)-1)
	}
	all := len(chosen) * ways
	n = t.samples(all, len(records))
	return n, func(i int) (string, []byte) {
		i = i * all / n
		at, way := chosen[i/ways], i%ways
		what, b := t.damagedRecord(batch, at, way, values)
		return fmt.Sprintf("record %d of %d: %s", at+1, len(refs), what), b
	}
}

func (t *trial) damagedRecord(batch *record.Batch, at, way int, values []namedValue) (what string, b []byte) {
	ref := batch.Refs[at]
	data := batch.Data
	replace := func(from, to int, by []byte) []byte {
		return slices.Concat(data[:from], by, data[to:])
	}
	if way < len(values) {
		v := values[way]
		if slices.Equal(v.item, batch.Value(at)) {
			return "", nil
		}
		return "its value replaced by " + v.name, replace(ref.Value, ref.End, v.item)
	}
	newKey := func(name string, item []byte) (string, []byte) {
		if slices.Equal(item, batch.KeyItem(at)) {
			return "", nil
		}
		return "its key replaced by " + name, replace(ref.Key, ref.Value, item)
	}
	switch way -= len(values); way {
	case otherKey:
		return newKey("another text", record.AppendText(nil, "torpor"))
	case byteKey:
		return newKey("bytes", record.AppendBytes(nil, "\x00\xff"))
	case emptyKey:
		return newKey("an empty text", record.AppendText(nil, ""))
	case otherPartition:
		return "its partition replaced by another", replace(ref.Partition, ref.Key, record.AppendText(nil, "torpor/other"))
	case dropped:
		return "left out", replace(ref.Start, ref.End, nil)
	case twice:
		return "twice", slices.Concat(data[:ref.End], data[ref.Start:])
	case swapped:
		if at+1 == batch.Len() {
			return "", nil
		}
		next := batch.Refs[at+1]
		return "in the place of the next one", slices.Concat(data[:ref.Start], data[next.Start:next.End], data[ref.Start:ref.End], data[next.End:])
	case cutAfter:
		if at+1 == batch.Len() {
			return "", nil
		}
		return "the last one, those after it left out", slices.Clone(data[:ref.End])
	default:
		dice := t.dice(at*insides + way - firstInside)
		scan := record.Scanner{MaxBytes: int(t.Limits.RecordBytes)}
		// Most changes make no sound record: the host would not let them through.
		for range 32 {
			p := ref.Value + dice.IntN(ref.End-ref.Value)
			old := data[p]
			one := slices.Clone(batch.Record(at))
			one[p-ref.Start] ^= 1 << dice.IntN(8)
			if refs, err := scan.Scan(one, nil); err == nil && len(refs) == 1 {
				what := fmt.Sprintf("byte %d of its value changed from %#02x to %#02x", p-ref.Value, old, one[p-ref.Start])
				return what, replace(ref.Start, ref.End, one)
			}
		}
		return "", nil
	}
}
