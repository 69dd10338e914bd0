package repository

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/torpor-run/torpor/host/abi"
)

// Remote is where blobs lie: a folder, a bucket. It asks for no more than S3 offers: put if there is none, ranged get,
// list, and read-your-writes for all of them. All methods are safe for concurrent use, also by several processes on one
// place. Package remotetest is what every Remote must do.
//
// A name is that of a blob if [CheckBlobName] has nothing against it: "packs/3f…", "commits/mine/000000000001". A blob
// is never changed.
type Remote interface {
	// Put makes the blob of size bytes that r gives; r of another length is an error. After nil it is there, whole and
	// durable. After an error that wraps fs.ErrExist there was one of that name already, which is durable and is as it
	// was. After any other error it is there whole, or not there at all.
	Put(ctx context.Context, name string, r io.Reader, size int64) error
	// Get reads length bytes from offset, or to the end if length is negative. What lies behind the end is not read:
	// fewer bytes come, or none. The error wraps abi.ErrNotFound if there is no such blob.
	Get(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error)
	// Stat tells of one blob. The error wraps abi.ErrNotFound if there is none.
	Stat(ctx context.Context, name string) (Blob, error)
	// List tells of all blobs whose names begin with prefix, ascending by name (by bytes). An error of each ends it and
	// is returned. A prefix that no name begins with gives none.
	List(ctx context.Context, prefix string, each func(Blob) error) error
	// Delete removes a pack: a blob whose name begins with "packs/". Others are refused with an error and stay. What is
	// not there is deleted already.
	Delete(ctx context.Context, name string) error
}

// Blob is what a Remote tells of one.
type Blob struct {
	Name     string
	Size     int64     // bytes
	Modified time.Time // when it was put, by the clock of the place; zero: not known
}

// Limits of names.
const (
	MaxBlobNameBytes = 512
	maxElementBytes  = 200 // of a blob's name, between slashes: file systems end at 255
)

// PacksPrefix begins the names of the blobs that may be deleted.
const PacksPrefix = packsFolder + "/"

// CheckBlobName says why name can be no blob's. It has two or three elements with slashes between, each of 1 to 200
// lower-case ASCII letters, digits, '.', '_', '-' and '=', and beginning with a letter or digit: such a name is a path in
// every file system, also in one that does not tell cases apart, and hides nowhere.
func CheckBlobName(name string) error {
	length, elements := 0, 1
	for i := 0; i < len(name); i++ {
		c := name[i]
		alnum := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		switch {
		case c == '/' && length > 0:
			elements++
			length = 0
			continue
		case alnum:
		case length > 0 && (c == '.' || c == '_' || c == '-' || c == '='):
		default:
			return fmt.Errorf("blob name %.64q: %w: character %q at %d", name, abi.ErrCorrupt, c, i)
		}
		if length++; length > maxElementBytes {
			return fmt.Errorf("blob name %.64q…: %w: an element of more than %d bytes", name, abi.ErrTooLarge, maxElementBytes)
		}
	}
	if length == 0 || elements < 2 || elements > 3 || len(name) > MaxBlobNameBytes {
		return fmt.Errorf("blob name %.64q: %w: it must have two or three elements, none empty", name, abi.ErrCorrupt)
	}
	return nil
}
