package s3

import (
	"bytes"
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

// newChecksum makes the hash of an algorithm S3 knows, or nil.
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
	case "sha256":
		return sha256.New()
	}
	return nil
}

// checksums lists the algorithms of newChecksum.
func checksums() []string { return []string{"crc32", "crc32c", "crc64nvme", "sha1", "sha256"} }

// checksumOf finds the algorithm of the checksum a body comes with, in its headers or announced for
// its trailer; "" if there is none this service knows.
func checksumOf(header http.Header) string {
	announced := strings.ToLower(header.Get("X-Amz-Trailer"))
	for _, algorithm := range checksums() {
		if header.Get(checksumHeader+algorithm) != "" || announced == strings.ToLower(checksumHeader)+algorithm {
			return algorithm
		}
	}
	return ""
}

// verifyChecksum compares what was computed with what the header, or else the trailer, says. It
// returns the checksum as a version keeps it.
func verifyChecksum(algorithm string, computed hash.Hash, header, trailer http.Header) (string, error) {
	want := header.Get(checksumHeader + algorithm)
	if want == "" {
		want = trailer.Get(checksumHeader + algorithm)
	}
	got := base64.StdEncoding.EncodeToString(computed.Sum(nil))
	if got != want {
		return "", fault(gofakes3.ErrBadDigest, "", "The "+strings.ToUpper(algorithm)+" you specified did not match the calculated checksum.")
	}
	return algorithm + ":" + got, nil
}

// setChecksum adds the header that tells a checksum a version keeps.
func setChecksum(header http.Header, checksum string) {
	if algorithm, value, ok := strings.Cut(checksum, ":"); ok {
		header.Set(checksumHeader+algorithm, value)
		header.Set(checksumHeader+"Type", "FULL_OBJECT")
	}
}

// validChecksum reports whether s is a checksum as a version keeps it.
func validChecksum(s []byte) bool {
	algorithm, value, _ := bytes.Cut(s, []byte(":"))
	size := 0
	switch string(algorithm) {
	case "crc32", "crc32c":
		size = crc32.Size
	case "crc64nvme":
		size = crc64.Size
	case "sha1":
		size = sha1.Size
	case "sha256":
		size = sha256.Size
	}
	var raw [sha256.Size + 2]byte
	if size == 0 || len(value) != base64.StdEncoding.EncodedLen(size) {
		return false
	}
	n, err := base64.StdEncoding.Strict().Decode(raw[:], value)
	return err == nil && n == size
}
