package statefile

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/fxamacker/cbor/v2"
	"github.com/klauspost/compress/zstd"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// headRoom is what a chunk's tag and byte string head may take before its records.
const headRoom = 2 + 9

// Writer streams one state file, or one delta. It implements record.Sink. It is not safe for concurrent
// use. Until Close has returned without an error, what was written is no state file, or no delta, and is
// to be discarded.
type Writer struct {
	w     io.Writer
	codec codec
	cut   cutter
	zstd  *zstd.Encoder // nil: no compression
	delta *delta        // nil: a full save

	off       uint64
	header    [sha256.Size]byte
	runs      []runItem
	open      bool   // a run has begun
	partition string // of the open run
	buf       []byte // headRoom, then the records of the open chunk
	packed    []byte // room for a compressed chunk
	records   uint64 // in the open chunk
	chunks    int
	total     Info
	err       error
}

// NewWriter writes the header of h to w. h.Compression "" means none. Errors are w's, or say what h
// lacks.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	if h.Compression == "" {
		h.Compression = CompressionNone
	}
	if err := checkNames(h); err != nil {
		return nil, fmt.Errorf("state file header of %s/%s: %w", h.Service, h.Part, err)
	}
	if !knownCompression(h.Compression) {
		return nil, fmt.Errorf("state file header of %s/%s: compression %q; this version knows %q and %q", h.Service, h.Part, h.Compression, CompressionNone, CompressionZstd)
	}
	c, err := newCodec()
	if err != nil {
		return nil, err
	}
	created, err := c.enc.Marshal(h.Created.UTC())
	if err != nil {
		return nil, fmt.Errorf("state file header of %s/%s: %w", h.Service, h.Part, err)
	}
	item, err := c.enc.Marshal(cbor.Tag{Number: 55799, Content: headerItem{
		Format: Version, Service: h.Service, Part: h.Part, Generation: h.Generation, Created: created,
		Serializer: serializerItem{Name: h.Serializer.Name, Version: h.Serializer.Version,
			SHA256: h.Serializer.Digest[:], Schema: h.Serializer.Schema},
		Compression: h.Compression,
	}})
	if err != nil {
		return nil, fmt.Errorf("state file header of %s/%s: %w", h.Service, h.Part, err)
	}
	if len(item) > MaxHeaderBytes {
		return nil, fmt.Errorf("state file header of %s/%s: %w: %d bytes; the limit is %d", h.Service, h.Part, abi.ErrTooLarge, len(item), MaxHeaderBytes)
	}
	wr := &Writer{w: w, codec: c, cut: newCutter(), header: sha256.Sum256(item),
		buf: make([]byte, headRoom, headRoom+2*maxChunk)}
	if err := wr.compress(h.Compression); err != nil {
		return nil, err
	}
	return wr, wr.write(item)
}

func (w *Writer) compress(compression string) (err error) {
	if compression != CompressionZstd {
		return nil
	}
	if w.zstd, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false)); err != nil {
		return fmt.Errorf("zstd encoder: %w", err)
	}
	return nil
}

func (w *Writer) write(b []byte) error {
	n, err := w.w.Write(b)
	w.off += uint64(n)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		w.err = err
	}
	return err
}

// WriteBatch adds records, which must have been checked by a record.Scanner, in the order they come; to a
// delta also tombstones. Errors are the underlying writer's, or wrap abi.ErrTooLarge when the file would
// pass a limit of the format; after one the writer is spent.
func (w *Writer) WriteBatch(b *record.Batch) error {
	if w.err != nil {
		return w.err
	}
	from := 0 // where the bytes not yet taken over begin
	for i, ref := range b.Refs {
		if w.delta == nil && b.Tombstone(i) {
			w.err = errors.New("a tombstone in a full save: there is nothing it could remove")
			return w.err
		}
		if p := b.Partition(i); !w.open || string(p) != w.partition {
			w.buf = append(w.buf, b.Data[from:ref.Start]...)
			from = ref.Start
			if err := w.begin(string(p)); err != nil {
				return err
			}
		}
		w.records++
		size := len(w.buf) - headRoom + ref.End - from
		if w.cut.after(size, ref.End-ref.Start, b.KeyItem(i)) {
			w.buf = append(w.buf, b.Data[from:ref.End]...)
			from = ref.End
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	w.buf = append(w.buf, b.Data[from:]...)
	return nil
}

// begin ends the open run and starts one of partition.
func (w *Writer) begin(partition string) error {
	if err := w.flush(); err != nil {
		return err
	}
	if len(w.runs) == MaxRuns {
		w.err = fmt.Errorf("%w: more than %d runs; records of one partition should stand together", abi.ErrTooLarge, MaxRuns)
		return w.err
	}
	kind := kindFull
	if w.delta != nil {
		kind = kindDelta
	}
	w.runs = append(w.runs, runItem{Kind: kind, Partition: partition})
	w.open, w.partition = true, partition
	return nil
}

// flush writes the open chunk, if it has records.
func (w *Writer) flush() error {
	if w.records == 0 {
		return nil
	}
	if w.chunks == MaxChunks {
		w.err = fmt.Errorf("%w: more than %d chunks in a state file", abi.ErrTooLarge, MaxChunks)
		return w.err
	}
	if w.delta != nil && w.delta.tail.info.Changes+w.total.Records+w.records > MaxChanges {
		w.err = fmt.Errorf("%w: more than %d changes in the deltas of a state file; save it in full", abi.ErrTooLarge, MaxChanges)
		return w.err
	}
	raw := w.buf[headRoom:]
	if w.delta != nil && w.delta.tail.deltaRaw+w.total.Raw+uint64(len(raw)) > MaxDeltaBytes {
		w.err = fmt.Errorf("%w: more than %d bytes in the deltas of a state file; save it in full", abi.ErrTooLarge, MaxDeltaBytes)
		return w.err
	}
	sum := sha256.Sum256(raw)
	item := w.item(raw)
	run := &w.runs[len(w.runs)-1]
	run.Chunks = append(run.Chunks, chunkItem{Offset: w.off, Length: uint64(len(item)), Records: w.records,
		Raw: uint64(len(raw)), SHA256: sum[:]})
	w.total.Raw += uint64(len(raw))
	w.total.Records += w.records
	w.chunks++
	err := w.write(item)
	if cap(w.buf) > headRoom+4*maxChunk {
		w.buf = make([]byte, headRoom, headRoom+2*maxChunk) // a large record has passed: let its memory go
	}
	w.buf = w.buf[:headRoom]
	w.records = 0
	return err
}

// item frames raw as it stands in the file, in w.buf itself where nothing is compressed.
func (w *Writer) item(raw []byte) []byte {
	if w.zstd == nil {
		head := chunkHead(len(raw), true)
		start := headRoom - len(head)
		copy(w.buf[start:], head)
		return w.buf[start:]
	}
	w.packed = w.zstd.EncodeAll(raw, append(w.packed[:0], make([]byte, headRoom)...))
	head := chunkHead(len(w.packed)-headRoom, false)
	start := headRoom - len(head)
	copy(w.packed[start:], head)
	return w.packed[start:]
}

// chunkHead is what stands before a chunk's bytes: tag 63 when they are records as they are, and the
// head of a byte string.
func chunkHead(length int, plain bool) []byte {
	var head []byte
	if plain {
		head = append(head, chunkTag[:]...)
	}
	return record.AppendBytesHead(head, length)
}

// Close writes the index and the trailer. It does not close the underlying writer, and it makes
// nothing durable: that is the publisher's part.
func (w *Writer) Close() (Info, error) {
	if w.err != nil {
		return Info{}, w.err
	}
	if err := w.flush(); err != nil {
		return Info{}, err
	}
	if w.zstd != nil {
		if err := w.zstd.Close(); err != nil {
			return Info{}, fmt.Errorf("zstd encoder: %w", err)
		}
	}
	x := indexItem{Header: w.header[:], Records: w.total.Records, Raw: w.total.Raw, Runs: w.runs}
	w.total.Chunks = w.chunks
	if w.delta != nil {
		if err := w.delta.complete(&x, &w.total); err != nil {
			w.err = err
			return Info{}, err
		}
	} else {
		w.total.Root = rootDigest(nil, w.runs)
	}
	x.Root = w.total.Root[:]
	index, err := w.codec.enc.Marshal(x)
	if err != nil {
		return Info{}, fmt.Errorf("state file index: %w", err)
	}
	limit := int64(MaxIndexBytes)
	if w.delta != nil {
		limit -= w.delta.tail.indexes
	}
	if int64(len(index)) > limit {
		w.err = fmt.Errorf("%w: an index of %d bytes; %d are left of the %d a file may have", abi.ErrTooLarge, len(index), limit, MaxIndexBytes)
		return Info{}, w.err
	}
	trailer := makeTrailer(w.off, index)
	if err := w.write(append(index, trailer...)); err != nil {
		return Info{}, err
	}
	w.err = errors.New("state file writer: closed")
	w.total.Size = int64(w.off)
	return w.total, nil
}

func makeTrailer(indexOffset uint64, index []byte) []byte {
	t := append(make([]byte, 0, trailerBytes), trailerHead[:]...)
	t = binary.BigEndian.AppendUint64(t, indexOffset)
	t = binary.BigEndian.AppendUint64(t, uint64(len(index)))
	t = binary.BigEndian.AppendUint32(t, trailerSum(index, t))
	t = append(t, trailerWords[:]...)
	return binary.BigEndian.AppendUint16(t, Version)
}

// trailerSum is CRC32C over the index and the trailer before its own CRC.
func trailerSum(index, trailer []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(index, table), table, trailer[:trailerCRC])
}
