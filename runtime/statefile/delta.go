package statefile

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// maxTornBytes is how far LastGood looks back from the end of a file.
const maxTornBytes = 256 << 20

// Tail is what must be known of a state file to append a delta to it. It holds no reference to the file.
// File.Tail gives it, and Tail.Next the one after an append. It is a value and safe for concurrent use.
type Tail struct {
	header    Header            // generation and time of the newest save
	headerSum [sha256.Size]byte // of the header item
	info      Info
	indexes   int64 // bytes of the index items so far
	full      int64 // where the full save ends
	deltaRaw  uint64
}

// Header is what the file holds; its generation and time are those of the newest save.
func (t Tail) Header() Header { return t.header }

// Size is where the file ends, in bytes, and the next delta begins.
func (t Tail) Size() int64 { return t.info.Size }

// Full is how many bytes the full save takes that the file begins with.
func (t Tail) Full() int64 { return t.full }

// Deltas is the number of deltas in the file.
func (t Tail) Deltas() int { return t.info.Deltas }

// Changes is the number of records and tombstones in the deltas.
func (t Tail) Changes() uint64 { return t.info.Changes }

// Live is the number of records, deltas applied.
func (t Tail) Live() uint64 { return t.info.Records }

// delta is what a Writer knows of the delta it writes.
type delta struct {
	tail       Tail
	generation uint64
	created    []byte // encoded
	growth     int64
}

// NewDeltaWriter makes a writer of a delta that is appended behind t: w must put its bytes at offset
// t.Size() of the file. generation must be above the file's. Records of keys that exist replace them in
// their place, others are added at the end of their partition, tombstones remove; no key may be written
// twice. Say by [Writer.Grow] what that does to the number of records. Errors are as of NewWriter, or
// wrap abi.ErrTooLarge if the file has [MaxDeltas] already.
func NewDeltaWriter(w io.Writer, t Tail, generation uint64, created time.Time) (*Writer, error) {
	h := t.header
	if generation <= h.Generation {
		return nil, fmt.Errorf("delta of %s/%s: generation %d does not come after %d", h.Service, h.Part, generation, h.Generation)
	}
	if t.info.Deltas >= MaxDeltas {
		return nil, fmt.Errorf("delta of %s/%s: %w: %d deltas in the file; the limit is %d", h.Service, h.Part, abi.ErrTooLarge, t.info.Deltas, MaxDeltas)
	}
	c, err := newCodec()
	if err != nil {
		return nil, err
	}
	at, err := c.enc.Marshal(created.UTC())
	if err != nil {
		return nil, fmt.Errorf("delta of %s/%s: %w", h.Service, h.Part, err)
	}
	wr := &Writer{w: w, codec: c, cut: newCutter(), header: t.headerSum, off: uint64(t.info.Size), buf: make([]byte, headRoom),
		delta: &delta{tail: t, generation: generation, created: at}}
	return wr, wr.compress(h.Compression)
}

// Grow says that the delta adds n more records than it removes. It is for writers of a delta only and
// may be called at any time before Close.
func (w *Writer) Grow(n int64) { w.delta.growth += n }

// complete adds to a delta's index what a full save's has not, and to info, which so far is the delta's,
// what is before it.
func (d *delta) complete(x *indexItem, info *Info) error {
	live := d.tail.info.Records + uint64(d.growth)
	if d.growth < 0 && uint64(-d.growth) > d.tail.info.Records {
		h := d.tail.header
		return fmt.Errorf("delta of %s/%s: it removes %d records of %d", h.Service, h.Part, -d.growth, d.tail.info.Records)
	}
	x.Previous, x.Generation, x.Created, x.Live = uint64(d.tail.info.Size), d.generation, d.created, &live
	before := d.tail.info
	info.Root = rootDigest(&before.Root, x.Runs)
	info.Changes = before.Changes + info.Records
	info.Records = live
	info.Raw += before.Raw
	info.Chunks += before.Chunks
	info.Deltas = before.Deltas + 1
	return nil
}

// Tail is what must be known to append to the file.
func (f *File) Tail() Tail {
	return Tail{header: f.header, headerSum: f.headerSum, info: f.info, indexes: f.indexes, full: f.saves[0].End, deltaRaw: f.deltaRaw}
}

// Saves lists the generations the file holds, from the full one it begins with to the newest.
func (f *File) Saves() []Save {
	out := make([]Save, len(f.saves))
	for i, s := range f.saves {
		out[i] = s.Save
	}
	return out
}

// Next opens the one delta that lies between t.Size() and size in r, checks all of it, its chunks too,
// and returns the tail after it. Errors are as of [Open] and [File.Verify], but that the number of
// records after the delta is not counted: that would need all of them.
func (t Tail) Next(ctx context.Context, r io.ReaderAt, size int64, name string) (Tail, error) {
	f := &File{r: r, name: name, header: t.header, headerSum: t.headerSum, info: t.info, indexes: t.indexes, deltaRaw: t.deltaRaw}
	c, err := newCodec()
	if err != nil {
		return Tail{}, err
	}
	if size < t.info.Size+trailerBytes {
		return Tail{}, f.corrupt(size, "the delta ends before its trailer")
	}
	s, err := f.findSave(c, size, Version, size-trailerBytes+trailerVersion, nil)
	if err != nil {
		return Tail{}, err
	}
	if s.index.Previous != uint64(t.info.Size) {
		return Tail{}, f.corrupt(s.at, fmt.Sprintf("the delta follows what ends at %d, not at %d", s.index.Previous, t.info.Size))
	}
	if err := f.addSave(s, t.info.Size); err != nil {
		return Tail{}, err
	}
	f.info.Size = size
	if err := f.VerifyLast(ctx); err != nil {
		return Tail{}, err
	}
	return Tail{header: f.header, headerSum: f.headerSum, info: f.info, indexes: f.indexes, full: t.full, deltaRaw: f.deltaRaw}, nil
}

// VerifyLast reads and checks the chunks of the last delta; a file without deltas has nothing to check.
// After a power cut they may be missing although the trailer behind them is there. Errors are as of
// [File.Verify].
func (f *File) VerifyLast(ctx context.Context) error {
	last := f.saves[len(f.saves)-1]
	if !last.Delta {
		return nil
	}
	return f.verifyChunks(ctx, []save{last})
}

// LastGood finds the longest beginning of a file, shorter than its size bytes, that is a whole state
// file: what was there before an append that was cut off, or before a delta that is damaged. It is for a
// file that [Open], [File.VerifyLast] or [File.Verify] refuses as damaged. torn says that nothing behind
// end looks like a whole save, and that the file's end is not even that of a damaged one: so an append
// leaves a file that did not come to its end.
//
// The chunks of all deltas up to end have been checked; those of the full save have too where no other
// damage was found than what they have. The error wraps abi.ErrNotFound if there is no such beginning:
// the damage is in the full save. It looks back 256 MiB. Others are r's, or as of Open where what was
// written is not damaged but of a later version or too large: nothing before that may be taken for the
// newest.
func LastGood(ctx context.Context, r io.ReaderAt, size int64, name string) (end int64, torn bool, err error) {
	if torn, err = endsTorn(r, size); err != nil {
		return 0, false, fmt.Errorf("state file %s: %w", name, err)
	}
	check := (*File).verifyDeltas
	refused := map[int64]bool{} // ends of saves that are damaged, or come after one that is
	for limit := size; ; limit = end - 1 {
		if err := ctx.Err(); err != nil {
			return 0, false, fmt.Errorf("state file %s: %w", name, err)
		}
		end, err = lastTrailer(r, limit, size-maxTornBytes)
		if err != nil {
			return 0, false, fmt.Errorf("state file %s: %w", name, err)
		}
		if end == 0 {
			return 0, false, fmt.Errorf("state file %s: a whole save: %w", name, abi.ErrNotFound)
		}
		if refused[end] {
			continue
		}
		f := &File{r: r, name: name, info: Info{Size: end}}
		ends, err := f.open()
		if err == nil {
			err = check(f, ctx)
		}
		switch {
		case err == nil && end < size:
			return end, torn, nil
		case err == nil: // the whole file, which the caller knows to be damaged further inside
			check = (*File).Verify
			err = f.Verify(ctx)
		}
		torn = false
		var fe *FileError
		if err != nil && (!errors.As(err, &fe) || !errors.Is(err, abi.ErrCorrupt)) {
			return 0, false, err
		}
		f.refuse(refused, ends, fe)
	}
}

// refuse notes which of the saves that end at ends are damaged by what fe says, nil for nothing: the one
// with the damage and those after it. What looked like a trailer and is none speaks against itself only.
func (f *File) refuse(refused map[int64]bool, ends []int64, fe *FileError) {
	if fe == nil {
		return
	}
	sound := int64(0) // the end of the last save before the damage
	for _, s := range f.saves {
		if s.End > fe.Offset && len(f.saves) == len(ends) { // it is in a chunk
			break
		}
		sound = s.End
	}
	for _, end := range ends {
		if end > sound {
			refused[end] = true
		}
	}
}

// verifyDeltas checks all chunks of deltas, and of the full save's that their heads are where they must
// be: so bytes inside of a record, however much they look like a trailer, are known to be none.
func (f *File) verifyDeltas(ctx context.Context) error {
	plain := f.header.Compression == CompressionNone
	var front [headRoom]byte
	for _, c := range place(f.saves[0].runs) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("state file %s: %w", f.name, err)
		}
		b := front[:min(headRoom, c.Length)]
		if err := f.readAt(b, int64(c.Offset)); err != nil {
			return err
		}
		if _, err := f.unframe(b, c, plain); err != nil {
			return err
		}
	}
	return f.verifyChunks(ctx, f.saves[1:])
}

// verifyChunks reads and checks the chunks of deltas.
func (f *File) verifyChunks(ctx context.Context, deltas []save) error {
	rr := &RecordReader{f: f, scan: record.Scanner{Tombstones: true}}
	for _, s := range deltas {
		rr.chunks = append(rr.chunks, place(s.runs)...)
	}
	return rr.drain(ctx, nil)
}

// endsTorn reports whether a file does not end with a trailer, be it a damaged one: the trailer's last part
// is not there, and its first part is not either. What is cut off has neither; no single damage takes both.
func endsTorn(r io.ReaderAt, size int64) (bool, error) {
	if size < trailerBytes {
		return true, nil
	}
	b := make([]byte, trailerBytes)
	if n, err := r.ReadAt(b, size-trailerBytes); n < len(b) {
		return false, err
	}
	signed := bytes.Equal(b[trailerMagic:trailerVersion], trailerWords[:]) && binary.BigEndian.Uint16(b[trailerVersion:]) == Version
	return !signed && !isTrailer(b, size-trailerBytes), nil
}

// lastTrailer finds the last end of a trailer at or before limit, no further back than from; 0: none.
func lastTrailer(r io.ReaderAt, limit, from int64) (end int64, err error) {
	const window = 64 << 10
	var sign [8]byte
	copy(sign[:], trailerWords[:])
	binary.BigEndian.PutUint16(sign[6:], Version)
	buf := make([]byte, window+trailerBytes-1)
	for end := limit; end >= max(from, trailerBytes); end -= window {
		// Trailers that end in (start+trailerBytes-1, end].
		start := max(0, end-window-trailerBytes+1)
		b := buf[:end-start]
		if n, err := r.ReadAt(b, start); n < len(b) {
			return 0, err
		}
		for {
			i := bytes.LastIndex(b, sign[:])
			if i < 0 {
				break
			}
			if at := i - trailerMagic; at >= 0 && isTrailer(b[at:at+trailerBytes], start+int64(at)) {
				return start + int64(i) + int64(len(sign)), nil
			}
			b = b[:i+len(sign)-1]
		}
	}
	return 0, nil
}

// isTrailer reports whether b, at an offset of the file, has what a trailer there must have.
func isTrailer(b []byte, at int64) bool {
	offset, length := binary.BigEndian.Uint64(b[2:]), binary.BigEndian.Uint64(b[10:])
	return bytes.Equal(b[:2], trailerHead[:]) && offset <= uint64(at) && length == uint64(at)-offset
}
