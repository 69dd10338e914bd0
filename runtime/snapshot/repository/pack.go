package repository

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"
)

// A pack: a head, pieces, an index, a trailer.
const (
	packHead  = "tprpack" + string(rune(FormatVersion))
	packWords = "tprpak"
)

const (
	packTrailerBytes = 28
	packTrailerVer   = 16
	packTrailerCRC   = 18 // where the CRC lies; it covers the index and the trailer up to here
	packTrailerWords = 22
)

// Encodings of a piece: what was done to its bytes, in this order.
const (
	encodedDelta  = 1 << iota // it is the change of another piece
	encodedZstd               // compressed
	encodedSealed             // encrypted
	encodedKnown  = encodedDelta | encodedZstd | encodedSealed
)

// pack is what a pack's index says.
type pack struct {
	name    string
	size    int64
	created time.Time
	pieces  []packed
}

// packed is a piece in a pack.
type packed struct {
	id       ID
	base     ID // of a delta
	offset   uint32
	length   uint32
	raw      uint32
	sum      uint32
	encoding uint8
}

func crc(b ...[]byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	var sum uint32
	for _, b := range b {
		sum = crc32.Update(sum, table, b)
	}
	return sum
}

// packWriter builds one pack after another in memory.
type packWriter struct {
	codec codec
	now   func() time.Time
	put   func(p *pack, content []byte) error

	buf    []byte
	pieces []packed
}

// add adds a piece as it is to be stored; its offset and sum are set here.
func (w *packWriter) add(p packed, stored []byte) error {
	if len(w.buf) == 0 {
		w.buf = append(w.buf, packHead...)
	}
	p.offset, p.length, p.sum = uint32(len(w.buf)), uint32(len(stored)), crc(stored)
	w.buf = append(w.buf, stored...)
	w.pieces = append(w.pieces, p)
	if len(w.buf) >= packTarget || len(w.pieces) >= packPieces {
		return w.flush()
	}
	return nil
}

// flush ends the open pack, if there is one.
func (w *packWriter) flush() error {
	if len(w.pieces) == 0 {
		return nil
	}
	created := fromTime(w.now())
	item := packItem{Created: created, Pieces: make([]pieceItem, len(w.pieces))}
	for i, p := range w.pieces {
		item.Pieces[i] = pieceItem{ID: bytes.Clone(p.id[:]), Length: uint64(p.length), Raw: uint64(p.raw), Encoding: uint64(p.encoding), Sum: p.sum, Base: []byte{}}
		if p.encoding&encodedDelta != 0 {
			item.Pieces[i].Base = bytes.Clone(p.base[:])
		}
	}
	index, err := w.codec.enc.Marshal(item)
	if err != nil {
		return fmt.Errorf("pack index: %w", err)
	}
	content := appendPackEnd(w.buf, index)
	t, err := toTime(created)
	if err != nil {
		return err
	}
	p := &pack{name: packName(sha256.Sum256(content)), size: int64(len(content)), created: t, pieces: w.pieces}
	w.pieces, w.buf = nil, content[:0]
	return w.put(p, content)
}

// appendPackEnd adds index and trailer to the head and pieces of a pack.
func appendPackEnd(b, index []byte) []byte {
	at := uint64(len(b))
	b = append(b, index...)
	b = binary.BigEndian.AppendUint64(b, at)
	b = binary.BigEndian.AppendUint64(b, uint64(len(index)))
	b = binary.BigEndian.AppendUint16(b, FormatVersion)
	b = binary.BigEndian.AppendUint32(b, crc(b[at:]))
	return append(b, packWords...)
}

// packEnd reads from a pack's last 28 bytes where its index lies.
func packEnd(name string, trailer []byte, size int64) (at, length int64, err error) {
	trailerAt := size - packTrailerBytes
	if size < int64(len(packHead))+packTrailerBytes {
		return 0, 0, corrupt(name, size, "%d bytes: the pack ends before its trailer", size)
	}
	if string(trailer[packTrailerWords:]) != packWords {
		return 0, 0, corrupt(name, trailerAt+packTrailerWords, "no trailer: the pack was cut short, or this place of it was overwritten")
	}
	o, n := binary.BigEndian.Uint64(trailer), binary.BigEndian.Uint64(trailer[8:])
	if o < uint64(len(packHead)) || o > uint64(trailerAt) || n != uint64(trailerAt)-o {
		return 0, 0, corrupt(name, trailerAt, "the trailer places the index at %d with %d bytes, where it must end at %d", o, n, trailerAt)
	}
	if size > MaxPackBytes || n > MaxPackIndexBytes {
		return 0, 0, tooLarge(name, trailerAt, "a pack of %d bytes with an index of %d; the limits are %d and %d", size, n, MaxPackBytes, MaxPackIndexBytes)
	}
	return int64(o), int64(n), nil
}

// decodePack checks a pack's index, which lies at at, and says what is where.
func (c codec) decodePack(name string, index, trailer []byte, at, size int64) (*pack, error) {
	if binary.BigEndian.Uint32(trailer[packTrailerCRC:]) != crc(index, trailer[:packTrailerCRC]) {
		return nil, corrupt(name, at, "the CRC32C of index and trailer differs from the one recorded")
	}
	if v := binary.BigEndian.Uint16(trailer[packTrailerVer:]); v != FormatVersion {
		return nil, unknown(name, size-packTrailerBytes+packTrailerVer, "format version %d; this program reads version %d", v, FormatVersion)
	}
	var item packItem
	if err := c.dec.Unmarshal(index, &item); err != nil {
		return nil, corrupt(name, at, "the index does not decode: %v", err)
	}
	created, err := toTime(item.Created)
	if err != nil {
		return nil, corrupt(name, at, "the index: %v", err)
	}
	p := &pack{name: name, size: size, created: created, pieces: make([]packed, len(item.Pieces))}
	next := uint64(len(packHead))
	for i, x := range item.Pieces {
		if x.Encoding&^encodedKnown != 0 {
			return nil, unknown(name, at, "piece %d is of encoding %d, which this program does not know", i, x.Encoding)
		}
		if isDelta := x.Encoding&encodedDelta != 0; len(x.ID) != len(ID{}) || isDelta && len(x.Base) != len(ID{}) || !isDelta && len(x.Base) != 0 {
			return nil, corrupt(name, at, "piece %d of the index has no ID, or a base it should not have, or none", i)
		}
		if x.Raw > MaxPieceBytes {
			return nil, tooLarge(name, at, "piece %d has %d bytes; the limit is %d", i, x.Raw, MaxPieceBytes)
		}
		if x.Length > uint64(at)-next {
			return nil, corrupt(name, at, "piece %d of %d bytes at %d ends behind the pieces' end", i, x.Length, next)
		}
		p.pieces[i] = packed{id: ID(x.ID), offset: uint32(next), length: uint32(x.Length), raw: uint32(x.Raw), sum: x.Sum, encoding: uint8(x.Encoding)}
		if len(x.Base) > 0 {
			p.pieces[i].base = ID(x.Base)
		}
		next += x.Length
	}
	if next != uint64(at) {
		return nil, corrupt(name, at, "the pieces end at %d, the index begins at %d", next, at)
	}
	return p, nil
}

// parsePack is packEnd and decodePack of all of a pack's bytes; it also checks the head.
func (c codec) parsePack(name string, b []byte) (*pack, error) {
	size := int64(len(b))
	trailer := b[max(size-packTrailerBytes, 0):]
	at, n, err := packEnd(name, trailer, size)
	if err != nil {
		return nil, err
	}
	p, err := c.decodePack(name, b[at:at+n], trailer, at, size)
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(b, []byte(packHead)) {
		return nil, corrupt(name, 0, "the pack does not begin with %q", packHead)
	}
	return p, nil
}
