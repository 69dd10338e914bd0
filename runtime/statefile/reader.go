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

	"github.com/klauspost/compress/zstd"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// File is an opened state file. Its methods are safe for concurrent use as far as the underlying
// reader's ReadAt is; each reader that Records gives belongs to one goroutine.
type File struct {
	r      io.ReaderAt
	name   string
	header Header
	info   Info
	runs   []runItem
}

// Open checks the header, the trailer and the index of the state file of size bytes that r holds; the
// chunks are checked as they are read. name stands in errors.
//
// Errors are r's own, or a *[FileError] that wraps abi.ErrCorrupt for damage, abi.ErrVersion for a
// sound file of another format version, or abi.ErrTooLarge for one beyond this reader's limits. Never
// is one reported as the other: a version counts only where header and trailer agree on it.
func Open(r io.ReaderAt, size int64, name string) (*File, error) {
	f := &File{r: r, name: name, info: Info{Size: size}}
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
	trailer := make([]byte, trailerBytes)
	if err := f.readAt(trailer, size-trailerBytes); err != nil {
		return nil, err
	}
	index, indexAt, err := f.readIndex(front, trailer, size)
	if err != nil {
		return nil, err
	}
	c, err := newCodec()
	if err != nil {
		return nil, err
	}
	headerLen, err := f.decodeHeader(c, front)
	if err != nil {
		return nil, err
	}
	return f, f.decodeIndex(c, index, indexAt, front[:headerLen])
}

// readIndex checks version, trailer and index checksum, in this order, and returns the index.
func (f *File) readIndex(front, trailer []byte, size int64) ([]byte, int64, error) {
	version, at, err := f.headerVersion(front)
	if err != nil {
		return nil, 0, err
	}
	if !bytes.Equal(trailer[trailerMagic:trailerVersion], trailerWords[:]) {
		return nil, 0, f.corrupt(size-trailerBytes+trailerMagic, "no trailer: the file was cut short or its end was overwritten")
	}
	if v := uint64(binary.BigEndian.Uint16(trailer[trailerVersion:])); v != version {
		return nil, 0, f.corrupt(at, fmt.Sprintf("the header says format version %d, the trailer %d", version, v))
	}
	if version != Version {
		return nil, 0, versionError(f.name, version)
	}
	if !bytes.Equal(trailer[:2], trailerHead[:]) {
		return nil, 0, f.corrupt(size-trailerBytes, "the trailer's head is damaged")
	}
	offset, length := binary.BigEndian.Uint64(trailer[2:]), binary.BigEndian.Uint64(trailer[10:])
	end := uint64(size - trailerBytes)
	if offset > end || length != end-offset {
		return nil, 0, f.corrupt(size-trailerBytes, fmt.Sprintf("the trailer places the index at %d with %d bytes, where it must end at %d", offset, length, end))
	}
	if length > MaxIndexBytes {
		return nil, 0, &FileError{File: f.name, Offset: int64(offset), Err: abi.ErrTooLarge,
			Reason: fmt.Sprintf("an index of %d bytes; the limit is %d", length, MaxIndexBytes)}
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
	if len(h.Serializer.SHA256) != sha256.Size {
		return 0, f.corrupt(0, fmt.Sprintf("the header's serializer digest has %d bytes, not %d", len(h.Serializer.SHA256), sha256.Size))
	}
	f.header = Header{Service: h.Service, Part: h.Part, Generation: h.Generation, Created: h.Created,
		Serializer: Serializer{Name: h.Serializer.Name, Version: h.Serializer.Version,
			Digest: [sha256.Size]byte(h.Serializer.SHA256), Schema: h.Serializer.Schema},
		Compression: h.Compression}
	if err := checkNames(f.header); err != nil {
		return 0, f.corrupt(0, "the header: "+err.Error())
	}
	return len(front) - len(rest), nil
}

func (f *File) decodeIndex(c codec, index []byte, at int64, header []byte) error {
	var x indexItem
	if err := c.dec.Unmarshal(index, &x); err != nil {
		return f.corrupt(at, fmt.Sprintf("the index does not decode: %v", err))
	}
	if sum := sha256.Sum256(header); !bytes.Equal(sum[:], x.Header) {
		return f.corrupt(0, "the header's SHA-256 differs from the one in the index")
	}
	// From here on the header is known to be what was written: what this program does not know in it is
	// of a later one, and no damage.
	if !knownCompression(f.header.Compression) {
		return f.unknown(0, fmt.Sprintf("the chunks' compression is %q", f.header.Compression))
	}
	if x.Previous != 0 {
		return f.unknown(at, "the index refers to a part of the file before it")
	}
	next := uint64(len(header))
	for i, run := range x.Runs {
		if run.Kind != kindFull {
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
			f.info.Raw += ch.Raw
			f.info.Records += ch.Records
			f.info.Chunks++
		}
	}
	if next != uint64(at) {
		return f.corrupt(at, fmt.Sprintf("the chunks end at %d, the index begins at %d", next, at))
	}
	if len(x.Runs) > MaxRuns || f.info.Chunks > MaxChunks {
		return &FileError{File: f.name, Offset: at, Err: abi.ErrTooLarge,
			Reason: fmt.Sprintf("%d runs of %d chunks; the limits are %d and %d", len(x.Runs), f.info.Chunks, MaxRuns, MaxChunks)}
	}
	f.info.Root = rootDigest(x.Runs)
	if !bytes.Equal(f.info.Root[:], x.Root) || f.info.Records != x.Records || f.info.Raw != x.Raw {
		return f.corrupt(at, "the index's root digest or counts differ from its chunks")
	}
	f.runs = x.Runs
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

// Partitions lists the partitions in the order they first appear.
func (f *File) Partitions() []Partition {
	var out []Partition
	at := map[string]int{}
	for _, run := range f.runs {
		i, ok := at[run.Partition]
		if !ok {
			i = len(out)
			at[run.Partition] = i
			out = append(out, Partition{Name: run.Partition})
		}
		out[i].Chunks += len(run.Chunks)
		for _, c := range run.Chunks {
			out[i].Records += c.Records
			out[i].Raw += c.Raw
		}
	}
	return out
}

// Records reads the records in file order: those of the partitions named, or all. Only the chunks of
// those partitions are read.
func (f *File) Records(partitions ...string) *RecordReader {
	rr := &RecordReader{f: f}
	for _, run := range f.runs {
		if len(partitions) > 0 && !slices.Contains(partitions, run.Partition) {
			continue
		}
		for _, c := range run.Chunks {
			rr.chunks = append(rr.chunks, placed{chunkItem: c, partition: run.Partition})
		}
	}
	return rr
}

// Verify reads and checks every chunk. Cancelling ctx ends it with the context's error.
func (f *File) Verify(ctx context.Context) error {
	rr := f.Records()
	var b record.Batch
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("state file %s: %w", f.name, err)
		}
		if err := rr.ReadInto(&b); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

type placed struct {
	chunkItem
	partition string
}

// RecordReader gives a file's records chunk by chunk: it implements record.Source. It is not safe for
// concurrent use.
type RecordReader struct {
	f      *File
	chunks []placed
	next   int
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
	if r.next == len(r.chunks) {
		r.close()
		r.err = io.EOF
		return r.err
	}
	c := r.chunks[r.next]
	r.next++
	if err := r.read(c, b); err != nil {
		r.close()
		r.err = err
		return err
	}
	return nil
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
	for n := 1; n <= headRoom && n <= len(item); n++ {
		head := chunkHead(len(item)-n, plain)
		if len(head) == n {
			if !bytes.Equal(item[:n], head) {
				return nil, f.corrupt(int64(c.Offset), fmt.Sprintf("the chunk begins with % x where % x is expected", item[:n], head))
			}
			return item[n:], nil
		}
	}
	return nil, f.corrupt(int64(c.Offset), fmt.Sprintf("a chunk of %d bytes, too short for its head", len(item)))
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
