package s3

import (
	"net/http"
	"strconv"

	"github.com/johannesboyne/gofakes3"
)

// maxMultiDelete is how many objects one DeleteObjects may name: S3's own limit.
const maxMultiDelete = 1000

// deleteOne answers DeleteObject. It is not left to gofakes3, which takes the version "null" for none
// at all and would delete another one.
func (q *request) deleteOne() error {
	id := q.query.Get("versionId")
	var d deleted
	var err error
	if id != "" {
		d, err = q.deleteVersion(q.bucket, q.key, id)
	} else {
		d, err = q.deleteObject(q.bucket, q.key, q.conditions())
	}
	if err != nil {
		return err
	}
	if d.id == "" {
		d.id = id // nothing was there, and S3 names it nevertheless
	}
	q.setVersionID(d.id)
	if d.marker {
		q.w.Header().Set("X-Amz-Delete-Marker", "true")
	}
	q.w.WriteHeader(http.StatusNoContent)
	return nil
}

// deleteResult is the answer of DeleteObjects.
type deleteResult struct {
	XMLName struct{} `xml:"http://s3.amazonaws.com/doc/2006-03-01/ DeleteResult"`
	Deleted []deletedEntry
	Error   []deleteError
}

type deletedEntry struct {
	Key             string
	VersionID       string `xml:"VersionId,omitempty"`
	DeleteMarker    bool   `xml:",omitempty"`
	MarkerVersionID string `xml:"DeleteMarkerVersionId,omitempty"`
}

type deleteError struct {
	Key       string
	VersionID string `xml:"VersionId,omitempty"`
	Code      gofakes3.ErrorCode
	Message   string
}

// deleteMany answers DeleteObjects. It is not left to gofakes3, which tells nothing of delete markers
// and not which key an error is about.
func (q *request) deleteMany() error {
	var document gofakes3.DeleteRequest
	if err := q.decode(&document); err != nil {
		return err
	}
	if n := len(document.Objects); n == 0 || n > maxMultiDelete {
		return fault(gofakes3.ErrMalformedXML, q.bucket, "DeleteObjects names 1 to "+strconv.Itoa(maxMultiDelete)+" objects, this request "+strconv.Itoa(n))
	}
	if exists, _ := q.BucketExists(q.bucket); !exists {
		return noSuchBucket(q.bucket)
	}
	var result deleteResult
	for _, o := range document.Objects {
		entry, err := q.deleteNamed(q.bucket, o)
		switch {
		case err != nil:
			e := asS3Error(err)
			result.Error = append(result.Error, deleteError{o.Key, o.VersionID, e.Code, e.Message})
		case !document.Quiet:
			result.Deleted = append(result.Deleted, entry)
		}
	}
	return writeXML(q.w, http.StatusOK, result)
}

// deleteNamed deletes one of many.
func (q *request) deleteNamed(bucket string, o gofakes3.ObjectID) (deletedEntry, error) {
	entry := deletedEntry{Key: o.Key, VersionID: o.VersionID}
	var d deleted
	var err error
	if o.VersionID != "" {
		d, err = q.deleteVersion(bucket, o.Key, o.VersionID)
	} else {
		d, err = q.deleteObject(bucket, o.Key, conditions{})
	}
	if d.marker {
		entry.DeleteMarker, entry.MarkerVersionID = true, d.id
	}
	return entry, err
}
