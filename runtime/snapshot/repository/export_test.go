package repository

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
)

// OfLaterVersion makes of a blob one of the next format version, with right checksums.
func OfLaterVersion(b []byte) []byte {
	b = bytes.Clone(b)
	if bytes.HasPrefix(b, []byte(packHead)) {
		trailer := b[len(b)-packTrailerBytes:]
		b[7]++
		trailer[packTrailerVer+1]++
		at := binary.BigEndian.Uint64(trailer)
		binary.BigEndian.PutUint32(trailer[packTrailerCRC:], crc(b[at:len(b)-packTrailerBytes], trailer[:packTrailerCRC]))
		return b
	}
	at := len(b) - sumBytes
	i := bytes.IndexAny(b, "\x01") // the first 1 is the version's
	b[i]++
	sum := sha256.Sum256(b[:at])
	copy(b[at+2:], sum[:])
	return b
}
