package statefile

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// File is an opened state file. Its methods are safe for concurrent use as far as the underlying
// reader's ReadAt is; each reader that Records gives belongs to one goroutine.
type File struct {
	r         io.ReaderAt
	name      string
	header    Header
	headerSum [sha256.Size]byte // of the header item
	info      Info
	indexes   int64  // bytes of the index items read so far; never above MaxIndexBytes
	deltaRaw  uint64 // raw size of the deltas
	saves     []save // the full one and the deltas on it, oldest first
}

// save is one of the saves in a file.
type save struct {
	Save
	runs []runItem
}

// Open checks the header, the trailer and the index of the state file of size bytes that r holds, and
// those of the saves before the last; the chunks are checked as they are read. name stands in errors.
//
// Errors are r's own, or a *[FileError] that wraps abi.ErrCorrupt for damage, abi.ErrVersion for a
// sound file of another format version, or abi.ErrTooLarge for one beyond this reader's limits. Never
// is one reported as the other: a version counts only where header and trailer agree on it.
func Open(r io.ReaderAt, size int64, name string) (*File, error) {
	f := &File{r: r, name: name, info: Info{Size: size}}
	if _, err := f.open(); err != nil {
		return nil, err
	}
	return f, nil
}

// open is Open, of which it also tells where the saves end whose trailers it went to, newest first, to its
// end or to an error. f.saves are those then found to be sound.
func (f *File) open() (ends []int64, err error) {
	size := f.info.Size
	front := make([]byte, min(size, MaxHeaderBytes))
	if err := f.readAt(front, 0); err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(front, magic[:]) {
		return nil, f.corrupt(0, "this is no Torpor state file: it does not begin with the bytes d9 d9 f7")
	}
	if size < trailerBytes {
		return nil, f.corrupt(size, fmt.Sprintf("%d bytes: the file ends before its trailer", size))
	}
	version, versionAt, err := f.headerVersion(front)
	if err != nil {
		return nil, err
	}
	c, err := newCodec()
	if err != nil {
		return nil, err
	}
	var headerEnd int64
	decodeHeader := func() error {
		n, err := f.decodeHeader(c, front)
		headerEnd = int64(n)
		return err
	}
	var found []foundSave
	for end := size; ; {
		ends = append(ends, end)
		s, err := f.findSave(c, end, version, versionAt, decodeHeader)
		if err != nil {
			return ends, err
		}
		decodeHeader = nil // once
		found = append(found, s)
		if s.index.Previous == 0 {
			break
		}
		if s.index.Previous > uint64(s.at) || s.index.Previous < uint64(headerEnd)+trailerBytes {
			return ends, f.corrupt(s.at, fmt.Sprintf("the delta's index says that the file ended at %d before it", s.index.Previous))
		}
		if len(found) > MaxDeltas {
			return ends, &FileError{File: f.name, Offset: s.at, Err: abi.ErrTooLarge, Reason: fmt.Sprintf("more than %d deltas", MaxDeltas)}
		}
		end = int64(s.index.Previous)
		// The header and the last trailer agree, so from here on it is the trailer that is wrong.
		versionAt = end - trailerBytes + trailerVersion
	}
	from := headerEnd
	for _, s := range slices.Backward(found) {
		if err := f.addSave(s, from); err != nil {
			return ends, err
		}
		from = s.end
	}
	return ends, nil
}

// foundSave is a save whose index has been read and decoded and not been checked.
type foundSave struct {
	index   *indexItem
	created time.Time
	at, end int64 // of the index, of the trailer behind it
}

// findSave reads trailer and index of the save that ends at end. decodeHeader is called, if not nil,
// once they are known to be what was written, and before anything of them is interpreted.
func (f *File) findSave(c codec, end int64, version uint64, versionAt int64, decodeHeader func() error) (foundSave, error) {
	index, at, err := f.readIndex(end, version, versionAt)
	if err != nil {
		return foundSave{}, err
	}
	f.indexes += int64(len(index))
	if decodeHeader != nil {
		if err := decodeHeader(); err != nil {
			return foundSave{}, err
		}
	}
	x, created, err := f.decodeIndex(c, index, at)
	return foundSave{index: x, created: created, at: at, end: end}, err
}

// readIndex checks version, trailer and index checksum, in this order, of the save that ends at end, and
// returns the index.
func (f *File) readIndex(end int64, version uint64, versionAt int64) ([]byte, int64, error) {
	trailer := make([]byte, trailerBytes)
	trailerAt := end - trailerBytes
	if err := f.readAt(trailer, trailerAt); err != nil {
		return nil, 0, err
	}
	if !bytes.Equal(trailer[trailerMagic:trailerVersion], trailerWords[:]) {
		return nil, 0, f.corrupt(trailerAt+trailerMagic, "no trailer: the file was cut short, or this place of it was overwritten")
	}
	if v := uint64(binary.BigEndian.Uint16(trailer[trailerVersion:])); v != version {
		return nil, 0, f.corrupt(versionAt, fmt.Sprintf("the header says format version %d, the trailer %d", version, v))
	}
	if version != Version {
		return nil, 0, versionError(f.name, version)
	}
	if !bytes.Equal(trailer[:2], trailerHead[:]) {
		return nil, 0, f.corrupt(trailerAt, "the trailer's head is damaged")
	}
	offset, length := binary.BigEndian.Uint64(trailer[2:]), binary.BigEndian.Uint64(trailer[10:])
	if offset > uint64(trailerAt) || length != uint64(trailerAt)-offset {
		return nil, 0, f.corrupt(trailerAt, fmt.Sprintf("the trailer places the index at %d with %d bytes, where it must end at %d", offset, length, trailerAt))
	}
	if length > uint64(MaxIndexBytes-f.indexes) {
		return nil, 0, &FileError{File: f.name, Offset: int64(offset), Err: abi.ErrTooLarge,
			Reason: fmt.Sprintf("an index of %d bytes and %d bytes of others; all of a file may take %d", length, f.indexes, MaxIndexBytes)}
	}
	index := make([]byte, length)
	if err := f.readAt(index, int64(offset)); err != nil {
		return nil, 0, err
	}
	if binary.BigEndian.Uint32(trailer[trailerCRC:]) != trailerSum(index, trailer) {
		return nil, 0, f.corrupt(int64(offset), "the CRC32C of index and trailer differs from the one recorded")
	}
	return index, int64(offset), nil
}

// headerVersion reads the format version, which stands at the same place in every version: tag 55799,
// a map whose first key is "torpor", the number.
func (f *File) headerVersion(front []byte) (version uint64, at int64, err error) {
	d := record.NewPull(front[len(magic):])
	if d.Map() == 0 && d.Err() == nil {
		return 0, 0, f.corrupt(int64(len(magic)), "the header is an empty map")
	}
	key := d.Text()
	at = int64(len(magic) + d.Offset())
	version = d.Uint()
	if err := d.Err(); err != nil {
		return 0, 0, f.corrupt(at, fmt.Sprintf("the header does not begin with the format version: %v", err))
	}
	if string(key) != "torpor" {
		return 0, 0, f.corrupt(int64(len(magic)), fmt.Sprintf("the header begins with %q where %q is expected", key, "torpor"))
	}
	return version, at, nil
}

func (f *File) decodeHeader(c codec, front []byte) (length int, err error) {
	var h headerItem
	rest, err := c.dec.UnmarshalFirst(front[len(magic):], &h)
	if err != nil {
		return 0, f.corrupt(0, fmt.Sprintf("the header does not decode: %v", err))
	}
	created, err := c.time(h.Created)
	if err != nil {
		return 0, f.corrupt(0, fmt.Sprintf("the header's created does not decode: %v", err))
	}
	if len(h.Serializer.SHA256) != sha256.Size {
		return 0, f.corrupt(0, fmt.Sprintf("the header's serializer digest has %d bytes, not %d", len(h.Serializer.SHA256), sha256.Size))
	}
	f.header = Header{Service: h.Service, Part: h.Part, Generation: h.Generation, Created: created,
		Serializer: Serializer{Name: h.Serializer.Name, Version: h.Serializer.Version,
			Digest: [sha256.Size]byte(h.Serializer.SHA256), Schema: h.Serializer.Schema},
		Compression: h.Compression}
	if err := checkNames(f.header); err != nil {
		return 0, f.corrupt(0, "the header: "+err.Error())
	}
	length = len(front) - len(rest)
	f.headerSum = sha256.Sum256(front[:length])
	return length, nil
}

// decodeIndex decodes an index and holds it against the header. From then on the header is known to be
// what was written: what this program does not know in it is of a later one, and no damage.
func (f *File) decodeIndex(c codec, index []byte, at int64) (x *indexItem, created time.Time, err error) {
	x = new(indexItem)
	if err := c.dec.Unmarshal(index, x); err != nil {
		return nil, created, f.corrupt(at, fmt.Sprintf("the index does not decode: %v", err))
	}
	if created, err = c.time(x.Created); err != nil {
		return nil, created, f.corrupt(at, fmt.Sprintf("the index's created does not decode: %v", err))
	}
	if !bytes.Equal(f.headerSum[:], x.Header) {
		return nil, created, f.corrupt(0, "the header's SHA-256 differs from the one in the index")
	}
	if !knownCompression(f.header.Compression) {
		return nil, created, f.unknown(0, fmt.Sprintf("the chunks' compression is %q", f.header.Compression))
	}
	return x, created, nil
}

// addSave checks what the index of a save says that begins at from, and adds it to the file's.
func (f *File) addSave(found foundSave, from int64) error {
	x, at, end := found.index, found.at, found.end
	delta := x.Previous != 0
	s := save{Save: Save{Generation: f.header.Generation, Created: f.header.Created, End: end, Delta: delta}, runs: x.Runs}
	kind := kindFull
	if delta {
		kind = kindDelta
		if x.Generation <= f.header.Generation || x.Live == nil {
			return f.corrupt(at, fmt.Sprintf("the delta's index does not say how many records there are, or its generation %d does not come after %d", x.Generation, f.header.Generation))
		}
		s.Generation, s.Created = x.Generation, found.created
	}
	var own Info
	next := uint64(from)
	for i, run := range x.Runs {
		if run.Kind != kind {
			if run.Kind == kindFull || run.Kind == kindDelta {
				return f.corrupt(at, fmt.Sprintf("run %d is of kind %q among those of kind %q", i, run.Kind, kind))
			}
			return f.unknown(at, fmt.Sprintf("run %d is of kind %q", i, run.Kind))
		}
		if len(run.Partition) > record.MaxPartitionBytes || len(run.Chunks) == 0 {
			return f.corrupt(at, fmt.Sprintf("run %d of the index has no chunks, or a partition longer than %d bytes", i, record.MaxPartitionBytes))
		}
		for j, ch := range run.Chunks {
			if ch.Offset != next || ch.Length > uint64(at) || len(ch.SHA256) != sha256.Size {
				return f.corrupt(at, fmt.Sprintf("chunk %d of run %d does not follow the one before it", j, i))
			}
			next += ch.Length
			own.Raw += ch.Raw
			own.Records += ch.Records
			own.Chunks++
		}
	}
	if next != uint64(at) {
		return f.corrupt(at, fmt.Sprintf("the chunks end at %d, the index begins at %d", next, at))
	}
	if len(x.Runs) > MaxRuns || own.Chunks > MaxChunks {
		return &FileError{File: f.name, Offset: at, Err: abi.ErrTooLarge,
			Reason: fmt.Sprintf("%d runs of %d chunks; the limits are %d and %d", len(x.Runs), own.Chunks, MaxRuns, MaxChunks)}
	}
	var before *[sha256.Size]byte
	if delta {
		before = &f.info.Root
	}
	own.Root = rootDigest(before, x.Runs)
	if !bytes.Equal(own.Root[:], x.Root) || own.Records != x.Records || own.Raw != x.Raw {
		return f.corrupt(at, "the index's root digest or counts differ from its chunks")
	}
	if delta {
		f.info.Deltas++
		if f.info.Changes += own.Records; f.info.Changes > MaxChanges || own.Records > MaxChanges {
			return &FileError{File: f.name, Offset: at, Err: abi.ErrTooLarge, Reason: fmt.Sprintf("more than %d changes in the deltas", MaxChanges)}
		}
		if f.deltaRaw += own.Raw; f.deltaRaw > MaxDeltaBytes || own.Raw > MaxDeltaBytes {
			return &FileError{File: f.name, Offset: at, Err: abi.ErrTooLarge, Reason: fmt.Sprintf("more than %d bytes in the deltas", MaxDeltaBytes)}
		}
		f.info.Records = *x.Live
	} else {
		f.info.Records = own.Records
	}
	f.info.Root = own.Root
	f.info.Raw += own.Raw
	f.info.Chunks += own.Chunks
	f.header.Generation, f.header.Created = s.Generation, s.Created
	f.saves = append(f.saves, s)
	return nil
}

func (f *File) readAt(b []byte, off int64) error {
	n, err := f.r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return f.corrupt(off+int64(n), "the file ends here, within what its size promised")
	}
	return fmt.Errorf("state file %s: read %d bytes at offset %d: %w", f.name, len(b), off, err)
}

func (f *File) corrupt(at int64, reason string) error {
	return &FileError{File: f.name, Offset: at, Reason: reason, Err: abi.ErrCorrupt}
}

// unknown is for what a later program may have written into a file of this version.
func (f *File) unknown(at int64, reason string) error {
	return &FileError{File: f.name, Offset: at, Err: abi.ErrVersion, Reason: reason + ", which this program does not know: use a newer Torpor"}
}

// Header is what the file holds and who wrote it.
func (f *File) Header() Header { return f.header }

// Info is the file's size, counts and root digest.
func (f *File) Info() Info { return f.info }

// Partitions lists the partitions in the order they first appear, those of the full save first.
func (f *File) Partitions() []Partition {
	var out []Partition
	at := map[string]int{}
	for _, s := range f.saves {
		for _, run := range s.runs {
			i, ok := at[run.Partition]
			if !ok {
				i = len(out)
				at[run.Partition] = i
				out = append(out, Partition{Name: run.Partition})
			}
			for _, c := range run.Chunks {
				if s.Delta {
					out[i].Changes += c.Records
					continue
				}
				out[i].Records += c.Records
				out[i].Raw += c.Raw
				out[i].Chunks++
			}
		}
	}
	return out
}

// Records reads the records, deltas applied: those of the partitions named, or all, in file order. Only
// the chunks of those partitions are read.
func (f *File) Records(partitions ...string) *RecordReader {
	wanted := func(run runItem) bool { return len(partitions) == 0 || slices.Contains(partitions, run.Partition) }
	rr := &RecordReader{f: f}
	var changes []placed
	for _, s := range f.saves {
		for _, run := range s.runs {
			switch {
			case !wanted(run):
			case s.Delta:
				changes = append(changes, place([]runItem{run})...)
			default:
				rr.chunks = append(rr.chunks, place([]runItem{run})...)
			}
		}
	}
	if len(changes) > 0 {
		rr.merge = newMerge(rr, changes)
	}
	return rr
}

// Verify reads and checks every chunk, and that there are as many records as the file says. Cancelling
// ctx ends it with the context's error.
func (f *File) Verify(ctx context.Context) error {
	var found uint64
	if err := f.Records().drain(ctx, func(b *record.Batch) { found += uint64(b.Len()) }); err != nil {
		return err
	}
	if found != f.info.Records {
		return f.corrupt(f.saves[len(f.saves)-1].End, fmt.Sprintf("with its deltas applied the file holds %d records, the last index says %d", found, f.info.Records))
	}
	return nil
}

// drain reads to the end.
func (r *RecordReader) drain(ctx context.Context, each func(*record.Batch)) error {
	defer r.close()
	var b record.Batch
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("state file %s: %w", r.f.name, err)
		}
		if err := r.ReadInto(&b); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if each != nil {
			each(&b)
		}
	}
}

type placed struct {
	chunkItem
	partition string
}

// place lists the chunks of runs.
func place(runs []runItem) []placed {
	var out []placed
	for _, run := range runs {
		for _, c := range run.Chunks {
			out = append(out, placed{chunkItem: c, partition: run.Partition})
		}
	}
	return out
}

// RecordReader gives a file's records chunk by chunk: it implements record.Source. It is not safe for
// concurrent use.
type RecordReader struct {
	f      *File
	chunks []placed // of the full save
	next   int
	merge  *merge // nil: no deltas
	batch  record.Batch
	item   []byte
	scan   record.Scanner
	zstd   *zstd.Decoder
	err    error
}

// ReadBatch returns the records of the next chunk; see record.Source. Errors are the underlying
// reader's or a *[FileError].
func (r *RecordReader) ReadBatch() (*record.Batch, error) {
	if err := r.ReadInto(&r.batch); err != nil {
		return nil, err
	}
	return &r.batch, nil
}

// ReadInto is ReadBatch into b, whose memory it uses again. What it gives stays valid until b is used
// for another call, so that a reader ahead of its consumer needs no copies.
func (r *RecordReader) ReadInto(b *record.Batch) error {
	if r.err != nil {
		return r.err
	}
	err := r.readNext(b)
	if err != nil {
		r.close()
		r.err = err
	}
	return err
}

func (r *RecordReader) readNext(b *record.Batch) error {
	if r.merge != nil {
		return r.merge.readNext(b)
	}
	if r.next == len(r.chunks) {
		return io.EOF
	}
	r.next++
	return r.read(r.chunks[r.next-1], b)
}

func (r *RecordReader) close() {
	if r.zstd != nil {
		r.zstd.Close()
		r.zstd = nil
	}
}

// read checks c from the outside in: its head, its size, its digest, its records.
func (r *RecordReader) read(c placed, b *record.Batch) error {
	f, at := r.f, int64(c.Offset)
	limit := uint64(maxChunkBytes(r.scan.MaxBytes))
	if c.Raw > limit || c.Length > limit+limit/128+1<<10 {
		return &FileError{File: f.name, Offset: at, Err: abi.ErrTooLarge,
			Reason: fmt.Sprintf("a chunk of %d bytes holding %d; the limit is %d", c.Length, c.Raw, limit)}
	}
	plain := f.header.Compression == CompressionNone
	into := &r.item
	if plain {
		into = &b.Data // records are handed out where they were read
	}
	if uint64(cap(*into)) < c.Length {
		*into = make([]byte, c.Length)
	}
	item := (*into)[:c.Length]
	if err := f.readAt(item, at); err != nil {
		return err
	}
	body, err := f.unframe(item, c, plain)
	if err != nil {
		return err
	}
	raw := body
	if !plain {
		if raw, err = r.unpack(body, c, b.Data[:0]); err != nil {
			return err
		}
	}
	if uint64(len(raw)) != c.Raw {
		return f.corrupt(at, fmt.Sprintf("the chunk holds %d bytes of records, the index says %d", len(raw), c.Raw))
	}
	if sum := sha256.Sum256(raw); !bytes.Equal(sum[:], c.SHA256) {
		return f.corrupt(at, "the chunk's SHA-256 differs from the one in the index")
	}
	refs, err := r.scan.Scan(raw, b.Refs[:0])
	if errors.Is(err, abi.ErrTooLarge) { // sound, from a writer with wider limits
		return &FileError{File: f.name, Offset: at, Err: abi.ErrTooLarge, Reason: err.Error()}
	}
	if err != nil {
		return f.corrupt(at, fmt.Sprintf("the chunk is what was written, but not records: %v", err))
	}
	b.Data, b.Refs = raw, refs
	if uint64(len(refs)) != c.Records {
		return f.corrupt(at, fmt.Sprintf("the chunk holds %d records, the index says %d", len(refs), c.Records))
	}
	for i := range refs {
		if p := b.Partition(i); string(p) != c.partition {
			return f.corrupt(at, fmt.Sprintf("record %d of the chunk is of partition %q, the run of %q", i, p, c.partition))
		}
	}
	return nil
}

// unframe checks a chunk's head and returns the bytes behind it.
func (f *File) unframe(item []byte, c placed, plain bool) ([]byte, error) {
	for n := 1; n <= headRoom && uint64(n) <= c.Length; n++ {
		head := chunkHead(int(c.Length)-n, plain)
		if len(head) == n {
			if !bytes.Equal(item[:n], head) {
				return nil, f.corrupt(int64(c.Offset), fmt.Sprintf("the chunk begins with % x where % x is expected", item[:n], head))
			}
			return item[n:], nil
		}
	}
	return nil, f.corrupt(int64(c.Offset), fmt.Sprintf("a chunk of %d bytes, too short for its head", c.Length))
}

func (r *RecordReader) unpack(body []byte, c placed, dst []byte) ([]byte, error) {
	if r.zstd == nil {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderMaxMemory(uint64(maxChunkBytes(r.scan.MaxBytes))))
		if err != nil {
			return nil, fmt.Errorf("zstd decoder: %w", err)
		}
		r.zstd = d
	}
	raw, err := r.zstd.DecodeAll(body, dst)
	if err != nil {
		return nil, r.f.corrupt(int64(c.Offset), fmt.Sprintf("the chunk does not decompress: %v", err))
	}
	return raw, nil
}
