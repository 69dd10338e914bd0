package s3

import (
	"bytes"
	"encoding/xml"
	"hash"
	"io"
	"math"
	"net/http"
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
	if err == nil {
		return nil
	}
	q.w.failed = asS3Error(err)
	return q.w.failed
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
	var tags []pair
	if document := h.Get("Tagging"); q.r.MultipartForm != nil && document != "" {
		tags, err = tagsFromXML([]byte(document))
	} else {
		tags, err = tagsFromHeader(h.Get("X-Amz-Tagging"))
	}
	return &version{attrs: attrs, tags: tags}, err
}

// content reads a body and verifies the checksum it comes with, which it also tells the client.
func (q *request) content(input io.Reader, size int64) (v version, err error) {
	var checks []hash.Hash
	algorithm := checksumOf(q.r.Header)
	if algorithm != 0 {
		checks = append(checks, algorithm.hash())
	}
	v.size = size
	if v.body, v.md5, err = readBody(input, size, checks...); err != nil {
		return v, err
	}
	if algorithm != 0 {
		if v.checksum, err = verifyChecksum(algorithm, checks[0], q.r.Header, q.trailer); err != nil {
			return v, err
		}
		v.checksum.set(q.w.Header())
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
func (q *request) GetObjectVersion(name, key string, id gofakes3.VersionID, wanted *gofakes3.ObjectRangeRequest) (*gofakes3.Object, error) {
	v, publicID, err := q.read(name, key, string(id))
	if err != nil {
		return nil, q.told(err)
	}
	span, err := wanted.Range(v.size)
	if err != nil {
		return nil, q.told(err)
	}
	content := v.body
	if span != nil {
		content = content.section(span.Start, span.Length)
	}
	meta := map[string]string{"Last-Modified": v.modifiedTime().Format(http.TimeFormat)}
	for _, a := range v.attrs {
		meta[http.CanonicalHeaderKey(a.name)] = a.value
	}
	return &gofakes3.Object{Name: key, Metadata: meta, Size: v.size, Contents: io.NopCloser(content.reader()), Hash: v.md5[:], Range: span,
		VersionID: gofakes3.VersionID(publicID)}, nil
}

// DeleteObject deletes the current version. gofakes3 asks for no delete: see [request.deleteOne] and
// [request.deleteMany].
func (q *request) DeleteObject(bucket, key string) (gofakes3.ObjectDeleteResult, error) {
	d, err := q.deleteObject(bucket, key, q.conditions())
	return gofakes3.ObjectDeleteResult{IsDeleteMarker: d.marker, VersionID: gofakes3.VersionID(d.id)}, q.told(err)
}

// DeleteObjectVersion deletes a version for good.
func (q *request) DeleteObjectVersion(bucket, key string, id gofakes3.VersionID) (gofakes3.ObjectDeleteResult, error) {
	d, err := q.deleteVersion(bucket, key, string(id))
	return gofakes3.ObjectDeleteResult{IsDeleteMarker: d.marker, VersionID: gofakes3.VersionID(d.id)}, q.told(err)
}

// DeleteMulti deletes the current versions of many objects.
func (q *request) DeleteMulti(name string, keys ...string) (gofakes3.MultiDeleteResult, error) {
	objects := make([]gofakes3.ObjectID, len(keys))
	for i, key := range keys {
		objects[i].Key = key
	}
	return q.DeleteMultiVersions(name, objects...)
}

// DeleteMultiVersions deletes many objects, one after the other: what fails does not keep the others.
func (q *request) DeleteMultiVersions(name string, objects ...gofakes3.ObjectID) (gofakes3.MultiDeleteResult, error) {
	var result gofakes3.MultiDeleteResult
	if exists, _ := q.BucketExists(name); !exists {
		return result, q.told(noSuchBucket(name))
	}
	for _, o := range objects {
		if _, err := q.deleteNamed(name, o); err != nil {
			e := asS3Error(err)
			result.Error = append(result.Error, gofakes3.ErrorResult{Key: o.Key, Code: e.Code, Message: e.Message})
			continue
		}
		result.Deleted = append(result.Deleted, o)
	}
	return result, nil
}

// CopyObject copies the current version of an object. gofakes3 does not ask for it: see
// [request.copyObject].
func (q *request) CopyObject(srcBucket, srcKey, bucket, key string, _ map[string]string) (gofakes3.CopyObjectResult, error) {
	source, _, err := q.read(srcBucket, srcKey, "")
	if err != nil {
		return gofakes3.CopyObjectResult{}, q.told(err)
	}
	v := source.duplicate()
	if _, err = q.putObject(bucket, key, v, conditions{}); err != nil {
		return gofakes3.CopyObjectResult{}, q.told(err)
	}
	return gofakes3.CopyObjectResult{ETag: quoted(v.etag()), LastModified: gofakes3.NewContentTime(v.modifiedTime())}, nil
}

// VersioningConfiguration tells whether a bucket is versioned.
func (q *request) VersioningConfiguration(name string) (config gofakes3.VersioningConfiguration, err error) {
	err = q.view(name, func(b *bucket) error {
		config.Status = b.versioning
		return nil
	})
	return config, q.told(err)
}

// SetVersioningConfiguration turns versioning on or suspends it.
func (q *request) SetVersioningConfiguration(name string, config gofakes3.VersioningConfiguration) error {
	switch {
	case config.MFADelete.Enabled():
		return q.told(notImplemented("MfaDelete"))
	case config.Status == gofakes3.VersioningNone:
		return q.told(fault(gofakes3.ErrIllegalVersioningConfiguration, name, "The Versioning element must be specified"))
	}
	return q.told(q.setVersioning(name, config.Status))
}

// pageOf makes a page of what gofakes3 read from a request.
func pageOf(prefix *gofakes3.Prefix, limit int64) page {
	p := page{limit: int(limit)}
	if prefix != nil {
		p.prefix, p.delimiter = prefix.Prefix, prefix.Delimiter
	}
	return p
}

// ListBucket lists current versions. gofakes3 does not ask for it: see [request.listObjects].
func (q *request) ListBucket(name string, prefix *gofakes3.Prefix, wanted gofakes3.ListBucketPage) (*gofakes3.ObjectList, error) {
	p := pageOf(prefix, wanted.MaxKeys)
	p.after = wanted.Marker
	if p.limit == 0 {
		p.limit = math.MaxInt
	}
	list := gofakes3.NewObjectList()
	err := q.view(name, func(b *bucket) error {
		l := b.list(p)
		for _, o := range l.objects {
			list.Add(&gofakes3.Content{Key: o.key, LastModified: gofakes3.NewContentTime(o.modifiedTime()), ETag: quoted(o.etag()),
				Size: o.size, StorageClass: gofakes3.StorageClass(o.storageClass())})
		}
		for _, prefix := range l.prefixes {
			list.AddPrefix(prefix)
		}
		if list.IsTruncated = l.truncated; l.truncated {
			list.NextMarker = l.last
		}
		return nil
	})
	return list, q.told(err)
}

// ListBucketVersions lists all versions.
func (q *request) ListBucketVersions(name string, prefix *gofakes3.Prefix, wanted *gofakes3.ListBucketVersionsPage) (*gofakes3.ListBucketVersionsResult, error) {
	if wanted == nil {
		wanted = &gofakes3.ListBucketVersionsPage{MaxKeys: math.MaxInt}
	}
	result := gofakes3.NewListBucketVersionsResult(name, prefix, wanted)
	err := q.view(name, func(b *bucket) error {
		l := b.listVersions(pageOf(prefix, wanted.MaxKeys), versionMarker{wanted.KeyMarker, string(wanted.VersionIDMarker)})
		for _, v := range l.versions {
			id, modified := gofakes3.VersionID(v.name()), gofakes3.NewContentTime(v.modifiedTime())
			if v.marker {
				result.Versions = append(result.Versions, &gofakes3.DeleteMarker{Key: v.key, VersionID: id, IsLatest: v.latest, LastModified: modified})
			} else {
				result.Versions = append(result.Versions, &gofakes3.Version{Key: v.key, VersionID: id, IsLatest: v.latest, LastModified: modified,
					Size: v.size, StorageClass: gofakes3.StorageClass(v.storageClass()), ETag: quoted(v.etag())})
			}
		}
		for _, prefix := range l.prefixes {
			result.AddPrefix(prefix)
		}
		if result.IsTruncated = l.truncated; l.truncated {
			result.NextKeyMarker, result.NextVersionIDMarker = l.last.key, gofakes3.VersionID(l.last.id)
		}
		return nil
	})
	return result, q.told(err)
}

// CreateMultipartUpload begins an upload in parts.
func (q *request) CreateMultipartUpload(name, key string, _ map[string]string) (gofakes3.UploadID, error) {
	v, err := q.newVersion()
	if err != nil {
		return "", q.told(err)
	}
	id, err := q.createUpload(name, &upload{key: key, attrs: v.attrs, tags: v.tags})
	return gofakes3.UploadID(id), q.told(err)
}

// UploadPart stores a part.
func (q *request) UploadPart(name, key string, id gofakes3.UploadID, number int, size int64, input io.Reader) (etag string, err error) {
	v, err := q.content(input, size)
	if err != nil {
		return "", q.told(err)
	}
	p := &part{number: number, size: v.size, md5: v.md5, body: v.body}
	return quoted(p.etag()), q.told(q.putPart(name, key, string(id), p))
}

// ListMultipartUploads lists uploads in progress.
func (q *request) ListMultipartUploads(name string, marker *gofakes3.UploadListMarker, prefix gofakes3.Prefix, limit int64) (*gofakes3.ListMultipartUploadsResult, error) {
	result := &gofakes3.ListMultipartUploadsResult{Bucket: name, Delimiter: prefix.Delimiter, Prefix: prefix.Prefix, MaxUploads: limit}
	var after uploadMarker
	if marker != nil {
		after = uploadMarker{marker.Object, string(marker.UploadID)}
		result.KeyMarker, result.UploadIDMarker = marker.Object, marker.UploadID
	}
	err := q.view(name, func(b *bucket) error {
		l := b.listUploads(pageOf(&prefix, limit), after)
		for _, u := range l.uploads {
			result.Uploads = append(result.Uploads, gofakes3.ListMultipartUploadItem{Key: u.key, UploadID: gofakes3.UploadID(u.id),
				StorageClass: gofakes3.StorageClass((&version{attrs: u.attrs}).storageClass()), Initiated: gofakes3.NewContentTime(unixTime(u.initiated))})
		}
		for _, prefix := range l.prefixes {
			result.CommonPrefixes = append(result.CommonPrefixes, gofakes3.CommonPrefix{Prefix: prefix})
		}
		if result.IsTruncated = l.truncated; l.truncated {
			result.NextKeyMarker, result.NextUploadIDMarker = l.last.key, gofakes3.UploadID(l.last.id)
		}
		return nil
	})
	return result, q.told(err)
}

// ListParts lists the parts of an upload whose numbers are above marker.
func (q *request) ListParts(name, key string, id gofakes3.UploadID, marker int, limit int64) (*gofakes3.ListMultipartUploadPartsResult, error) {
	result := &gofakes3.ListMultipartUploadPartsResult{Bucket: name, Key: key, UploadID: id, PartNumberMarker: marker, MaxParts: limit}
	err := q.view(name, func(b *bucket) error {
		u, err := b.upload(key, string(id))
		if err != nil {
			return err
		}
		result.StorageClass = gofakes3.StorageClass((&version{attrs: u.attrs}).storageClass())
		for _, p := range u.parts {
			if p.number <= marker {
				continue
			}
			if int64(len(result.Parts)) >= limit {
				result.IsTruncated = true
				break
			}
			result.Parts = append(result.Parts, gofakes3.ListMultipartUploadPartItem{PartNumber: p.number, LastModified: gofakes3.NewContentTime(unixTime(p.modified)),
				ETag: quoted(p.etag()), Size: p.size})
			result.NextPartNumberMarker = p.number
		}
		return nil
	})
	return result, q.told(err)
}

// AbortMultipartUpload ends an upload without an object.
func (q *request) AbortMultipartUpload(name, key string, id gofakes3.UploadID) error {
	return q.told(q.abortUpload(name, key, string(id)))
}

// CompleteMultipartUpload makes an object of the parts of an upload.
func (q *request) CompleteMultipartUpload(name, key string, id gofakes3.UploadID, in *gofakes3.CompleteMultipartUploadRequest) (gofakes3.VersionID, string, error) {
	size := int64(-1)
	if header := q.r.Header.Get("X-Amz-Mp-Object-Size"); header != "" {
		var err error
		if size, err = strconv.ParseInt(header, 10, 64); err != nil || size < 0 {
			return "", "", q.told(fault("InvalidRequest", key, "The 'x-amz-mp-object-size' header is no size"))
		}
	}
	version, etag, err := q.completeUpload(name, key, string(id), in.Parts, size, q.conditions())
	return gofakes3.VersionID(version), quoted(etag), q.told(err)
}

// quoted is an entity tag as HTTP and S3's XML have it.
func quoted(etag string) string { return `"` + etag + `"` }
