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

// nvmePolynomial is that of CRC-64/NVME, reversed as package crc64 wants it.
const nvmePolynomial = 0x9a6c9329ac4bc9b5

// algorithm is how a checksum is computed. The zero value is not at all.
type algorithm uint8

const (
	algorithmCRC32 algorithm = iota + 1
	algorithmCRC32C
	algorithmCRC64NVME
	algorithmSHA1
	algorithmSHA256
	algorithmEnd // past the last
)

// String is the algorithm's name in headers and records.
func (a algorithm) String() string {
	switch a {
	case algorithmCRC32:
		return "crc32"
	case algorithmCRC32C:
		return "crc32c"
	case algorithmCRC64NVME:
		return "crc64nvme"
	case algorithmSHA1:
		return "sha1"
	case algorithmSHA256:
		return "sha256"
	}
	return ""
}

// algorithmOf finds an algorithm by its name.
func algorithmOf(name string) algorithm {
	for a := algorithmCRC32; a < algorithmEnd; a++ {
		if a.String() == name {
			return a
		}
	}
	return 0
}

// size is how many bytes a checksum has.
func (a algorithm) size() int {
	switch a {
	case algorithmCRC32, algorithmCRC32C:
		return crc32.Size
	case algorithmCRC64NVME:
		return crc64.Size
	case algorithmSHA1:
		return sha1.Size
	case algorithmSHA256:
		return sha256.Size
	}
	return 0
}

// hash makes what computes it.
func (a algorithm) hash() hash.Hash {
	switch a {
	case algorithmCRC32:
		return crc32.NewIEEE()
	case algorithmCRC32C:
		return crc32.New(crc32.MakeTable(crc32.Castagnoli))
	case algorithmCRC64NVME:
		return crc64.New(crc64.MakeTable(nvmePolynomial))
	case algorithmSHA1:
		return sha1.New()
	default:
		return sha256.New()
	}
}

// checksum is the checksum a client sent with an object, verified. The zero value is none. It has no
// pointers, since there is one in every version.
type checksum struct {
	algorithm algorithm
	sum       [sha256.Size]byte
}

// bytes are the bytes of the checksum. They share its memory.
func (c *checksum) bytes() []byte { return c.sum[:c.algorithm.size()] }

// checksumOf finds the algorithm of the checksum a body comes with, in its headers or announced for
// its trailer.
func checksumOf(header http.Header) algorithm {
	announced := strings.ToLower(header.Get("X-Amz-Trailer"))
	for a := algorithmCRC32; a < algorithmEnd; a++ {
		if header.Get(checksumHeader+a.String()) != "" || announced == strings.ToLower(checksumHeader)+a.String() {
			return a
		}
	}
	return 0
}

// verifyChecksum compares what was computed with what the header, or else the trailer, says.
func verifyChecksum(a algorithm, computed hash.Hash, header, trailer http.Header) (checksum, error) {
	want := header.Get(checksumHeader + a.String())
	if want == "" {
		want = trailer.Get(checksumHeader + a.String())
	}
	c := checksum{algorithm: a}
	computed.Sum(c.sum[:0])
	if base64.StdEncoding.EncodeToString(c.bytes()) != want {
		return checksum{}, fault(gofakes3.ErrBadDigest, "", "The "+strings.ToUpper(a.String())+" you specified did not match the calculated checksum.")
	}
	return c, nil
}

// set adds the headers that tell the checksum, if there is one.
func (c checksum) set(header http.Header) {
	if c.algorithm != 0 {
		header.Set(checksumHeader+c.algorithm.String(), base64.StdEncoding.EncodeToString(c.bytes()))
		header.Set(checksumHeader+"Type", "FULL_OBJECT")
	}
}
