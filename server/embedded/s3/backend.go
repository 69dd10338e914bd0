package s3

import (
	"bytes"
	"encoding/xml"
	"hash"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/johannesboyne/gofakes3"
)

// This file is what gofakes3 calls. The metadata it hands over is left aside: it is every X-Amz header
// there is, signatures included, without some that S3 keeps.
var (
	_ gofakes3.Backend          = (*request)(nil)
	_ gofakes3.VersionedBackend = (*request)(nil)
	_ gofakes3.MultipartBackend = (*request)(nil)
)

// told notes the error gofakes3 is told, so that its answer can have S3's status.
func (q *request) told(err error) error {
	q.w.failed = err
	return err
}

// fields are the headers of what is put: of the request, or the fields of a browser's form.
func (q *request) fields() http.Header {
	if q.r.MultipartForm == nil {
		return q.r.Header
	}
	h := http.Header{}
	for name, values := range q.r.MultipartForm.Value {
		h[http.CanonicalHeaderKey(name)] = values
	}
	return h
}

// newVersion makes a version without content from the headers of a request.
func (q *request) newVersion() (*version, error) {
	h := q.fields()
	attrs, err := attributesOf(h)
	if err != nil {
		return nil, err
	}
	v := &version{attrs: attrs}
	if form := q.r.MultipartForm; form != nil {
		v.tags, err = tagsFromDocument(strings.NewReader(h.Get("Tagging")))
	} else {
		v.tags, err = tagsFromHeader(h.Get("X-Amz-Tagging"))
	}
	return v, err
}

// content reads a body and verifies the checksum it comes with, which it also tells the client.
func (q *request) content(input io.Reader, size int64) (v version, err error) {
	var checks []hash.Hash
	algorithm := checksumOf(q.r.Header)
	if algorithm != "" {
		checks = append(checks, newChecksum(algorithm))
	}
	v.size = size
	if v.body, v.md5, err = readBody(input, size, checks...); err != nil {
		return v, err
	}
	if algorithm != "" {
		if v.checksum, err = verifyChecksum(algorithm, checks[0], q.r.Header, q.trailer); err != nil {
			return v, err
		}
		setChecksum(q.w.Header(), v.checksum)
	}
	return v, nil
}

// conditions are those of a write.
func (q *request) conditions() conditions {
	return conditions{ifMatch: q.r.Header.Get("If-Match"), ifNoneMatch: q.r.Header.Get("If-None-Match")}
}

// PutObject stores an object.
func (q *request) PutObject(bucket, key string, _ map[string]string, input io.Reader, size int64, cond *gofakes3.PutConditions) (gofakes3.PutObjectResult, error) {
	v, err := q.newVersion()
	if err != nil {
		return gofakes3.PutObjectResult{}, q.told(err)
	}
	data, err := q.content(input, size)
	if err != nil {
		return gofakes3.PutObjectResult{}, q.told(err)
	}
	v.size, v.md5, v.body, v.checksum = data.size, data.md5, data.body, data.checksum
	var c conditions
	if cond != nil {
		c = q.conditions()
	}
	if q.r.MultipartForm != nil {
		key = q.formKey(key)
		q.key = key
	}
	id, err := q.putObject(bucket, key, v, c)
	return gofakes3.PutObjectResult{VersionID: gofakes3.VersionID(id)}, q.told(err)
}

// ListBuckets lists the buckets whose names begin with the request's prefix.
func (q *request) ListBuckets() ([]gofakes3.BucketInfo, error) {
	var infos []gofakes3.BucketInfo
	for _, b := range q.bucketList() {
		if strings.HasPrefix(b.name, q.query.Get("prefix")) {
			infos = append(infos, gofakes3.BucketInfo{Name: b.name, CreationDate: gofakes3.NewContentTime(unixTime(b.created))})
		}
	}
	return infos, nil
}

// CreateBucket creates a bucket in the region the request names.
func (q *request) CreateBucket(name string) error {
	var config struct {
		XMLName  xml.Name `xml:"CreateBucketConfiguration"`
		Location string   `xml:"LocationConstraint"`
	}
	document, err := io.ReadAll(q.r.Body)
	if err != nil {
		return q.told(err)
	}
	if len(bytes.TrimSpace(document)) > 0 {
		if err := xml.Unmarshal(document, &config); err != nil {
			return q.told(fault(gofakes3.ErrMalformedXML, name, "The XML you provided was not well-formed: "+err.Error()))
		}
	}
	if !validRegion(config.Location) {
		return q.told(fault("InvalidLocationConstraint", name, "The specified location-constraint is not valid"))
	}
	return q.told(q.createBucket(name, q.partitionOf(config.Location)))
}

// validRegion reports whether s looks like a region's name, or is empty.
func validRegion(s string) bool {
	return len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") == ""
}

// BucketExists reports whether there is such a bucket.
func (q *request) BucketExists(name string) (bool, error) {
	return q.view(name, func(*bucket) error { return nil }) == nil, nil
}

// DeleteBucket deletes an empty bucket.
func (q *request) DeleteBucket(name string) error { return q.told(q.deleteBucket(name, false)) }

// ForceDeleteBucket deletes a bucket with all in it.
func (q *request) ForceDeleteBucket(name string) error { return q.told(q.deleteBucket(name, true)) }

// GetObject reads the current version. gofakes3 does not ask for it: see [request.getObject].
func (q *request) GetObject(bucket, key string, rng *gofakes3.ObjectRangeRequest) (*gofakes3.Object, error) {
	return q.GetObjectVersion(bucket, key, "", rng)
}

// HeadObject is GetObject without the content.
func (q *request) HeadObject(bucket, key string) (*gofakes3.Object, error) {
	return q.HeadObjectVersion(bucket, key, "")
}

// HeadObjectVersion is GetObjectVersion without the content.
func (q *request) HeadObjectVersion(bucket, key string, id gofakes3.VersionID) (*gofakes3.Object, error) {
	o, err := q.GetObjectVersion(bucket, key, id, nil)
	if err == nil {
		o.Contents = http.NoBody
	}
	return o, err
}

// GetObjectVersion reads a version, or the current one if id is "".
func (q *request) GetObjectVersion(bucket, key string, id gofakes3.VersionID, rng *gofakes3.ObjectRangeRequest) (*gofakes3.Object, error) {
	var v *version
	var publicID string
	err := q.view(bucket, func(b *bucketState) (err error) {
		if v, err = b.version(key, string(id)); err != nil {
			return err
		}
		if v.marker && id == "" {
			return noSuchKey(key)
		}
		publicID = b.publicID(v)
		return nil
	})
	if err != nil {
		return nil, q.told(err)
	}
	part, err := rng.Range(v.size)
	if err != nil {
		return nil, q.told(err)
	}
	content := v.body
	if part != nil {
		content = content.section(part.Start, part.Length)
	}
	meta := map[string]string{"Last-Modified": v.modifiedTime().Format(http.TimeFormat)}
	for _, a := range v.attrs {
		meta[http.CanonicalHeaderKey(a.name)] = a.value
	}
	return &gofakes3.Object{Name: key, Metadata: meta, Size: v.size, Contents: content.reader(), Hash: v.md5[:], Range: part,
		VersionID: gofakes3.VersionID(publicID), IsDeleteMarker: v.marker}, nil
}

// DeleteObject deletes the current version.
func (q *request) DeleteObject(bucket, key string) (gofakes3.ObjectDeleteResult, error) {
	d, err := q.deleteObject(bucket, key, q.conditions())
	return gofakes3.ObjectDeleteResult{IsDeleteMarker: d.marker, VersionID: gofakes3.VersionID(d.id)}, q.told(err)
}

// DeleteObjectVersion deletes a version for good.
func (q *request) DeleteObjectVersion(bucket, key string, id gofakes3.VersionID) (gofakes3.ObjectDeleteResult, error) {
	if id == nullVersionForLibrary {
		id = nullVersion
	}
	d, err := q.deleteVersion(bucket, key, string(id))
	return gofakes3.ObjectDeleteResult{IsDeleteMarker: d.marker, VersionID: gofakes3.VersionID(d.id)}, q.told(err)
}
