package statefile

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// Version is the format version this package writes and the only one it reads.
const Version = 1

// Limits a reader holds a file to before it allocates anything by what the file says. FORMAT.md,
// "Limits", gives the reasons.
const (
	MaxHeaderBytes = 64 << 10  // the header item
	MaxIndexBytes  = 256 << 20 // the index items of a file together
	MaxChunks      = 4 << 20   // chunks in an index
	MaxRuns        = 1 << 20   // runs in an index
	MaxDeltas      = 64 << 10  // deltas in a file
	MaxChanges     = 1 << 20   // records and tombstones in all deltas of a file
	MaxDeltaBytes  = 1 << 30   // raw size of all deltas of a file
)

// Bounds of a chunk, in bytes of records before compression (FORMAT.md, "Cutting chunks").
const (
	minChunk    = 16 << 10
	targetChunk = 48 << 10 // what a cut's odds aim at beyond minChunk: 64 KiB in the mean
	maxChunk    = 256 << 10
)

// Compression of a file's chunks.
const (
	CompressionNone = "none"
	CompressionZstd = "zstd"
)

// magic begins the header: tag 55799, "self-described CBOR" (RFC 8949, section 3.4.6).
var magic = [3]byte{0xd9, 0xd9, 0xf7}

// chunkTag is "encoded CBOR sequence" (RFC 8742, IANA tag 63) as it stands before an uncompressed
// chunk's byte string.
var chunkTag = [2]byte{0xd8, 63}

// The trailer: a byte string of trailerBytes-2, FORMAT.md, "Trailer".
const (
	trailerBytes   = 30
	trailerCRC     = 18 // where the CRC lies; it covers the index and the trailer up to here
	trailerMagic   = 22
	trailerVersion = 28
)

var (
	trailerHead  = [2]byte{0x58, trailerBytes - 2}
	trailerWords = [6]byte{'t', 'o', 'r', 'p', 'o', 'r'}
)

const cborNull = 0xf6

// Kinds of runs.
const (
	kindFull  = "full"  // its records stand for themselves
	kindDelta = "delta" // its records change those before it
)

// Header says what a state file holds and who wrote it. In a file with deltas, Generation and Created
// are those of the last.
type Header struct {
	Service     string     // the service's name
	Part        string     // store, backend, assets
	Generation  uint64     // numbered from 1
	Created     time.Time  // kept to the nanosecond, in UTC
	Serializer  Serializer // what wrote the records
	Compression string     // CompressionNone, or CompressionZstd; "" means none when writing
}

// Serializer identifies the module that wrote a state.
type Serializer struct {
	Name    string
	Version string
	Digest  [sha256.Size]byte // SHA-256 of the module as its author built it
	Schema  uint64            // of the records
}

// Info is what the indexes say about the file as a whole.
type Info struct {
	Size    int64             // bytes of the file
	Raw     uint64            // bytes of all records in it, uncompressed, those that deltas have replaced included
	Records uint64            // number of records, deltas applied
	Chunks  int               // number of chunks
	Deltas  int               // number of deltas
	Changes uint64            // number of records and tombstones in the deltas
	Root    [sha256.Size]byte // the root digest: equal roots mean equal chunks in equal order
}

// Save is one generation that a file holds: the full one it begins with, or one of the deltas behind
// it. The file's first End bytes are the state file as it was when that generation was the newest.
type Save struct {
	Generation uint64
	Created    time.Time // zero: not known
	End        int64     // offset in the file where it ends
	Delta      bool
}

// Partition sums up one partition.
type Partition struct {
	Name    string
	Records uint64 // in the full save the file begins with
	Raw     uint64 // bytes of those, uncompressed
	Chunks  int    // of those
	Changes uint64 // records and tombstones of the partition in the deltas
}

// The items as they are encoded.
type (
	headerItem struct {
		Format      uint64          `cbor:"torpor"` // first, so that a reader of any version finds it
		Service     string          `cbor:"service"`
		Part        string          `cbor:"part"`
		Generation  uint64          `cbor:"generation"`
		Created     cbor.RawMessage `cbor:"created"` // codec.time
		Serializer  serializerItem  `cbor:"serializer"`
		Compression string          `cbor:"compression"`
	}
	serializerItem struct {
		Name    string `cbor:"name"`
		Version string `cbor:"version"`
		SHA256  []byte `cbor:"sha256"`
		Schema  uint64 `cbor:"schema"`
	}
	indexItem struct {
		Previous   uint64          `cbor:"previous"`             // where the file ended before this delta; 0: no delta
		Generation uint64          `cbor:"generation,omitempty"` // of a delta, as are
		Created    cbor.RawMessage `cbor:"created,omitempty"`
		Header     []byte          `cbor:"header"` // SHA-256 of the header item
		Root       []byte          `cbor:"root"`
		Records    uint64          `cbor:"records"`
		Raw        uint64          `cbor:"raw"`
		Live       *uint64         `cbor:"live,omitempty"` // records after this delta
		Runs       []runItem       `cbor:"runs"`
	}
	runItem struct {
		Kind      string      `cbor:"kind"`
		Partition string      `cbor:"partition"`
		Chunks    []chunkItem `cbor:"chunks"`
	}
	chunkItem struct {
		_       struct{} `cbor:",toarray"`
		Offset  uint64
		Length  uint64 // of the whole item, its head included
		Records uint64
		Raw     uint64 // of the records, uncompressed
		SHA256  []byte // of the records, uncompressed
	}
)

// codec holds the CBOR modes: made once for each reader or writer, since the project keeps no globals.
type codec struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

func newCodec() (codec, error) {
	enc, err := cbor.EncOptions{
		Time:          cbor.TimeRFC3339NanoUTC,
		TimeTag:       cbor.EncTagRequired,
		ShortestFloat: cbor.ShortestFloat16,
		IndefLength:   cbor.IndefLengthForbidden,
		NilContainers: cbor.NilContainerAsEmpty, // a state without records has no runs, not null
	}.EncMode()
	if err != nil {
		return codec{}, fmt.Errorf("statefile: cbor encoder: %w", err)
	}
	// fxamacker's default of 131,072 array elements would refuse a state of 8 GiB.
	dec, err := cbor.DecOptions{
		MaxNestedLevels:  8,
		MaxArrayElements: MaxChunks,
		MaxMapPairs:      1 << 10,
		IndefLength:      cbor.IndefLengthForbidden,
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		TimeTag:          cbor.DecTagRequired,
		TextUnmarshaler:  cbor.TextUnmarshalerNone,
		// "Service" is a key this version does not know, not another spelling of "service".
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
	}.DecMode()
	if err != nil {
		return codec{}, fmt.Errorf("statefile: cbor decoder: %w", err)
	}
	return codec{enc: enc, dec: dec}, nil
}

// time decodes what "created" says: nothing and null are a time that is not known. The decoder by itself
// would take seconds since 1970, too.
func (c codec) time(created cbor.RawMessage) (t time.Time, err error) {
	if len(created) == 0 || created[0] == cborNull {
		return t, nil
	}
	var tag cbor.RawTag
	if err := c.dec.Unmarshal(created, &tag); err != nil || tag.Number != 0 {
		return t, errors.New("the time is not of tag 0")
	}
	return t, c.dec.Unmarshal(created, &t)
}

// A FileError says what is wrong with a state file and where. It wraps abi.ErrCorrupt,
// abi.ErrVersion or abi.ErrTooLarge.
type FileError struct {
	File   string // as given to Open
	Offset int64  // in the file
	Reason string
	Err    error
}

func (e *FileError) Error() string {
	return fmt.Sprintf("state file %s: %v at offset %d: %s", e.File, e.Err, e.Offset, e.Reason)
}

func (e *FileError) Unwrap() error { return e.Err }

// rootDigest is SHA-256 over every chunk in order: the partition's length as a big-endian uint32, the
// partition, the chunk's SHA-256; of a delta, the root before it comes first. It depends on the records
// and the cuts only, so that it is the same whatever the generation, the time or the compression.
func rootDigest(before *[sha256.Size]byte, runs []runItem) [sha256.Size]byte {
	h := sha256.New()
	if before != nil {
		h.Write(before[:])
	}
	var n [4]byte
	for _, r := range runs {
		binary.BigEndian.PutUint32(n[:], uint32(len(r.Partition)))
		for _, c := range r.Chunks {
			h.Write(n[:])
			h.Write([]byte(r.Partition))
			h.Write(c.SHA256)
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// cutter decides where chunks end. Only a record's own key and length, and the size of the chunk so
// far, take part, so that a change of some records leaves the cuts elsewhere as they were.
type cutter struct{ table *crc32.Table }

func newCutter() cutter { return cutter{table: crc32.MakeTable(crc32.Castagnoli)} }

// after reports whether a chunk of size bytes ends behind the record of length bytes whose encoded key
// is key. The odds follow the record's length, so that chunks come out equally large whether records
// are small or large.
func (c cutter) after(size, length int, key []byte) bool {
	if size < minChunk {
		return false
	}
	if size >= maxChunk {
		return true
	}
	// CRC32C spreads keys that differ in a digit; the multiplication (Knuth's golden ratio) brings
	// its low bits up to where the comparison looks.
	h := crc32.Checksum(key, c.table) * 0x9e3779b1
	return uint64(h)*targetChunk < uint64(length)<<32
}

func checkNames(h Header) error {
	for _, f := range []struct{ what, value string }{
		{"service", h.Service}, {"part", h.Part}, {"serializer name", h.Serializer.Name},
	} {
		if f.value == "" {
			return fmt.Errorf("no %s", f.what)
		}
	}
	if h.Generation == 0 {
		return errors.New("generation 0: generations are numbered from 1")
	}
	if h.Compression == "" {
		return errors.New("no compression")
	}
	return nil
}

// knownCompression reports whether this program can read and write chunks compressed so.
func knownCompression(c string) bool { return c == CompressionNone || c == CompressionZstd }

// maxChunkBytes is the most a chunk's records may take: cuts come at maxChunk, behind a record.
func maxChunkBytes(maxRecord int) int {
	if maxRecord == 0 {
		maxRecord = record.DefaultMaxBytes
	}
	return maxChunk + min(maxRecord, record.MaxMaxBytes)
}

func versionError(file string, v uint64) error {
	return &FileError{File: file, Offset: 11, Err: abi.ErrVersion,
		Reason: fmt.Sprintf("format version %d; this program reads version %d: use a newer Torpor", v, Version)}
}
