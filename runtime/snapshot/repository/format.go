package repository

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// FormatVersion is the version of packs and records that this package writes and the only one it reads.
const FormatVersion = 1

// Limits a reader holds blobs to before it allocates anything by what they say. FORMAT.md, "Limits", gives the reasons.
const (
	MaxPieceBytes     = 8 << 20   // of a piece, as it is in a state file
	MaxPackBytes      = 64 << 20  // of a pack
	MaxPackIndexBytes = 16 << 20  // of a pack's index
	MaxPackPieces     = 64 << 10  // pieces in a pack
	MaxDepth          = 16        // pieces one piece is the change of, one after another
	MaxCommitBytes    = 8 << 20   // of a commit record
	MaxRemovalBytes   = 4 << 10   // of a removal record
	MaxKeyBytes       = 512 << 10 // of the key in a commit record, which is an age file
	MaxLists          = 16 << 10  // lists of a version
	MaxPieces         = 16 << 20  // pieces of a version
	MaxModules        = 4 << 10   // serializer modules of a version
	MaxModuleBytes    = 256 << 20 // of one
)

// What this program writes, within those limits.
const (
	packTarget     = 16 << 20 // bytes of pieces after which a pack ends
	packPieces     = 32 << 10 // pieces after which it does
	listPieces     = 16 << 10 // pieces told of in a list: 640 KiB
	maxDepthToSave = 8
	tailCut        = 512 << 10 // a state file's index is cut at this length
)

// ID names a piece: the SHA-256 of its bytes, or, in a version that is encrypted, their HMAC.
type ID [sha256.Size]byte

// errMissing: something that a version needs is not there.
var errMissing = fmt.Errorf("%w: part of it is not there", abi.ErrCorrupt)

// BlobError says what is wrong with a blob and where. It wraps abi.ErrCorrupt, abi.ErrVersion or abi.ErrTooLarge.
type BlobError struct {
	Blob   string // its name in the Remote
	Offset int64  // in it; -1: the whole
	Reason string
	Err    error
}

// Error implements error.
func (e *BlobError) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("snapshots: %s: %v: %s", e.Blob, e.Err, e.Reason)
	}
	return fmt.Sprintf("snapshots: %s: %v at offset %d: %s", e.Blob, e.Err, e.Offset, e.Reason)
}

// Unwrap gives the kind of error.
func (e *BlobError) Unwrap() error { return e.Err }

func corrupt(blob string, at int64, format string, args ...any) error {
	return &BlobError{Blob: blob, Offset: at, Err: abi.ErrCorrupt, Reason: fmt.Sprintf(format, args...)}
}

func unknown(blob string, at int64, format string, args ...any) error {
	return &BlobError{Blob: blob, Offset: at, Err: abi.ErrVersion, Reason: fmt.Sprintf(format, args...) + ": use a newer Torpor"}
}

func tooLarge(blob string, at int64, format string, args ...any) error {
	return &BlobError{Blob: blob, Offset: at, Err: abi.ErrTooLarge, Reason: fmt.Sprintf(format, args...)}
}

// codec holds the CBOR modes.
type codec struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

func newCodec() (codec, error) {
	enc, err := cbor.EncOptions{
		IndefLength:   cbor.IndefLengthForbidden,
		NilContainers: cbor.NilContainerAsEmpty,
	}.EncMode()
	if err != nil {
		return codec{}, fmt.Errorf("cbor encoder: %w", err)
	}
	dec, err := cbor.DecOptions{
		MaxNestedLevels:   8,
		MaxArrayElements:  MaxPackPieces,
		MaxMapPairs:       1 << 10,
		IndefLength:       cbor.IndefLengthForbidden,
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		TextUnmarshaler:   cbor.TextUnmarshalerNone,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
	}.DecMode()
	if err != nil {
		return codec{}, fmt.Errorf("cbor decoder: %w", err)
	}
	return codec{enc: enc, dec: dec}, nil
}

// The items as they are encoded. Times are nanoseconds since 1970, UTC.
type (
	packItem struct {
		Created uint64      `cbor:"created"`
		Pieces  []pieceItem `cbor:"pieces"`
	}
	pieceItem struct {
		_        struct{} `cbor:",toarray"`
		ID       []byte
		Length   uint64 // in the pack
		Raw      uint64 // of the piece
		Encoding uint64
		Sum      uint32 // CRC32C of what is in the pack
		Base     []byte // ID of the piece it is the change of; empty: none
	}
	commitItem struct {
		Format  uint64   `cbor:"commit"` // first, so that a reader of any version finds it
		Name    string   `cbor:"name"`
		Version uint64   `cbor:"version"`
		Created uint64   `cbor:"created"`
		Size    uint64   `cbor:"size"`
		Stored  uint64   `cbor:"stored"`
		Pieces  uint64   `cbor:"pieces"`
		Lists   [][]byte `cbor:"lists"`         // IDs of the lists of all its pieces
		Key     []byte   `cbor:"key,omitempty"` // the data key, an age file; none: it is not encrypted
		Body    []byte   `cbor:"body"`          // a bodyItem, encrypted if there is a key
	}
	bodyItem struct {
		Torpor      string       `cbor:"torpor"`
		Description string       `cbor:"description"`
		Parts       []partItem   `cbor:"parts"`
		Modules     []moduleItem `cbor:"modules"`
	}
	partItem struct {
		Service    string `cbor:"service"`
		Part       string `cbor:"part"`
		Generation uint64 `cbor:"generation"`
		Records    uint64 `cbor:"records"`
		Serializer string `cbor:"serializer"`
		Size       uint64 `cbor:"size"`
		Pieces     uint64 `cbor:"pieces"`
	}
	moduleItem struct {
		SHA256 []byte `cbor:"sha256"`
		Size   uint64 `cbor:"size"`
		Pieces uint64 `cbor:"pieces"`
	}
	removalItem struct {
		Format  uint64 `cbor:"removal"`
		Name    string `cbor:"name"`
		Version uint64 `cbor:"version"`
		Removed uint64 `cbor:"removed"`
	}
)

func toTime(ns uint64) (time.Time, error) {
	if ns > 1<<63-1 {
		return time.Time{}, errors.New("the time is beyond the year 2262")
	}
	return time.Unix(0, int64(ns)).UTC(), nil
}

func fromTime(t time.Time) uint64 { return uint64(max(t.UnixNano(), 0)) }

// sumBytes is the length of a record's checksum: the head of a byte string of 32, and a SHA-256.
const sumBytes = 2 + sha256.Size

const sumHead = "\x58" + string(rune(sha256.Size))

// encodeRecord makes a record: the item and, as a byte string, the SHA-256 of that.
func (c codec) encodeRecord(item any) ([]byte, error) {
	b, err := c.enc.Marshal(item)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	return append(append(b, sumHead...), sum[:]...), nil
}

// decodeRecord checks the record of a blob, whose first key is kind, and decodes it into item. A version counts only if
// the checksum, which is where it is in every version, says that it is what was written.
func (c codec) decodeRecord(blob, kind string, b []byte, item any) error {
	if len(b) < sumBytes+1 {
		return corrupt(blob, int64(len(b)), "%d bytes: the record ends before its checksum", len(b))
	}
	at := len(b) - sumBytes
	sum := sha256.Sum256(b[:at])
	if string(b[at:at+2]) != sumHead || [sha256.Size]byte(b[at+2:]) != sum {
		return corrupt(blob, int64(at), "the record's SHA-256 is not the one at its end: it was changed or cut short")
	}
	d := record.NewPull(b[:at])
	if d.Map() == 0 || string(d.Text()) != kind {
		return corrupt(blob, 0, "no %s record: it does not begin with a map whose first key is %q", kind, kind)
	}
	version := d.Uint()
	if d.Err() != nil {
		return corrupt(blob, int64(d.Offset()), "the record does not begin with the format version")
	}
	if version != FormatVersion {
		return unknown(blob, 0, "format version %d; this program reads version %d", version, FormatVersion)
	}
	if err := c.dec.Unmarshal(b[:at], item); err != nil {
		return corrupt(blob, 0, "the record does not decode: %v", err)
	}
	return nil
}
