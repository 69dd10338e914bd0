package s3

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"net/http"
	"strings"

	"github.com/johannesboyne/gofakes3"
)

// checksumHeader begins the headers and trailers that carry a checksum; the algorithm follows.
const checksumHeader = "X-Amz-Checksum-"

// crc64NVME is the polynomial of CRC-64/NVME, reversed as package crc64 wants it.
const crc64NVME = 0x9a6c9329ac4bc9b5

// checksum is the checksum a client sent with an object, verified. The zero value is none.
type checksum struct {
	algorithm string // of checksumAlgorithms
	sum       [sha256.Size]byte
}

// checksumAlgorithms are those this service knows, as headers name them.
func checksumAlgorithms() [5]string {
	return [5]string{"crc32", "crc32c", "crc64nvme", "sha1", "sha256"}
}

// checksumSize is how many bytes a checksum of an algorithm has.
func checksumSize(algorithm string) int {
	switch algorithm {
	case "crc32", "crc32c":
		return crc32.Size
	case "crc64nvme":
		return crc64.Size
	case "sha1":
		return sha1.Size
	case "sha256":
		return sha256.Size
	}
	return 0
}

// newChecksum makes the hash of an algorithm of checksumAlgorithms.
func newChecksum(algorithm string) hash.Hash {
	switch algorithm {
	case "crc32":
		return crc32.NewIEEE()
	case "crc32c":
		return crc32.New(crc32.MakeTable(crc32.Castagnoli))
	case "crc64nvme":
		return crc64.New(crc64.MakeTable(crc64NVME))
	case "sha1":
		return sha1.New()
	default:
		return sha256.New()
	}
}

// bytes are the bytes of the checksum. They share its memory.
func (c *checksum) bytes() []byte { return c.sum[:checksumSize(c.algorithm)] }

// checksumOf finds the algorithm of the checksum a body comes with, in its headers or announced for
// its trailer; "" if there is none this service knows.
func checksumOf(header http.Header) string {
	announced := strings.ToLower(header.Get("X-Amz-Trailer"))
	for _, algorithm := range checksumAlgorithms() {
		if header.Get(checksumHeader+algorithm) != "" || announced == strings.ToLower(checksumHeader)+algorithm {
			return algorithm
		}
	}
	return ""
}

// verifyChecksum compares what was computed with what the header, or else the trailer, says.
func verifyChecksum(algorithm string, computed hash.Hash, header, trailer http.Header) (checksum, error) {
	want := header.Get(checksumHeader + algorithm)
	if want == "" {
		want = trailer.Get(checksumHeader + algorithm)
	}
	c := checksum{algorithm: algorithm}
	computed.Sum(c.sum[:0])
	if base64.StdEncoding.EncodeToString(c.bytes()) != want {
		return checksum{}, fault(gofakes3.ErrBadDigest, "", "The "+strings.ToUpper(algorithm)+" you specified did not match the calculated checksum.")
	}
	return c, nil
}

// set adds the headers that tell the checksum, if there is one.
func (c checksum) set(header http.Header) {
	if c.algorithm != "" {
		header.Set(checksumHeader+c.algorithm, base64.StdEncoding.EncodeToString(c.bytes()))
		header.Set(checksumHeader+"Type", "FULL_OBJECT")
	}
}
