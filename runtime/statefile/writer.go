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

// Writer streams one state file. It implements record.Sink. It is not safe for concurrent use. Until
// Close has returned without an error, what was written is no state file and is to be discarded.
type Writer struct {
	w     io.Writer
	codec codec
	cut   cutter
	zstd  *zstd.Encoder // nil: no compression

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
	item, err := c.enc.Marshal(cbor.Tag{Number: 55799, Content: headerItem{
		Format: Version, Service: h.Service, Part: h.Part, Generation: h.Generation, Created: h.Created.UTC(),
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
	if h.Compression == CompressionZstd {
		wr.zstd, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
		if err != nil {
			return nil, fmt.Errorf("zstd encoder: %w", err)
		}
	}
	return wr, wr.write(item)
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

// WriteBatch adds records, which must have been checked by a record.Scanner, in the order they come.
// Errors are the underlying writer's, or wrap abi.ErrTooLarge when the file would pass a limit of the
// format; after one the writer is spent.
func (w *Writer) WriteBatch(b *record.Batch) error {
	if w.err != nil {
		return w.err
	}
	from := 0 // where the bytes not yet taken over begin
	for i, ref := range b.Refs {
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
	w.runs = append(w.runs, runItem{Kind: kindFull, Partition: partition})
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
	raw := w.buf[headRoom:]
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
	root := rootDigest(w.runs)
	index, err := w.codec.enc.Marshal(indexItem{Header: w.header[:], Root: root[:], Records: w.total.Records,
		Raw: w.total.Raw, Runs: w.runs})
	if err != nil {
		return Info{}, fmt.Errorf("state file index: %w", err)
	}
	if len(index) > MaxIndexBytes {
		w.err = fmt.Errorf("%w: an index of %d bytes; the limit is %d", abi.ErrTooLarge, len(index), MaxIndexBytes)
		return Info{}, w.err
	}
	trailer := makeTrailer(w.off, index)
	if err := w.write(append(index, trailer...)); err != nil {
		return Info{}, err
	}
	w.err = errors.New("state file writer: closed")
	w.total.Root, w.total.Chunks, w.total.Size = root, w.chunks, int64(w.off)
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
