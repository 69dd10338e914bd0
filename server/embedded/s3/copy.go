package s3

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/johannesboyne/gofakes3"
)

// copySourceHeader names the object to copy in CopyObject and UploadPartCopy.
const copySourceHeader = "X-Amz-Copy-Source"

func (q *request) copySource() string { return q.r.Header.Get(copySourceHeader) }

// readSource finds the version the request is to copy. gofakes3 takes none but the current one, and
// evaluates no condition.
func (q *request) readSource() (bucket, key string, v *version, err error) {
	source, query, _ := strings.Cut(q.copySource(), "?")
	params, err := url.ParseQuery(query)
	if err != nil {
		return "", "", nil, invalidArgument("Copy Source must mention the source bucket and key: sourcebucket/sourcekey")
	}
	// As S3 does: a plus is a space.
	source, err = url.QueryUnescape(source)
	bucket, key, _ = strings.Cut(strings.TrimPrefix(source, "/"), "/")
	if err != nil || bucket == "" || key == "" {
		return "", "", nil, invalidArgument("Copy Source must mention the source bucket and key: sourcebucket/sourcekey")
	}
	v, publicID, err := q.read(bucket, key, params.Get("versionId"))
	if err != nil {
		return "", "", nil, err
	}
	if publicID != "" {
		q.w.Header().Set("X-Amz-Copy-Source-Version-Id", publicID)
	}
	return bucket, key, v, v.readConditions(q.r.Header, copySourceHeader+"-")
}

// directive reads x-amz-metadata-directive or x-amz-tagging-directive: whether to replace what the
// source has.
func (q *request) directive(name string) (replace bool, err error) {
	switch value := q.r.Header.Get(name); value {
	case "", "COPY":
		return false, nil
	case "REPLACE":
		return true, nil
	default:
		return false, invalidArgument("Unknown " + strings.ToLower(name) + ": " + value)
	}
}

// copyObject answers CopyObject.
func (q *request) copyObject() error {
	bucket, key, source, err := q.readSource()
	if err != nil {
		return err
	}
	replaceMeta, err := q.directive("X-Amz-Metadata-Directive")
	if err != nil {
		return err
	}
	replaceTags, err := q.directive("X-Amz-Tagging-Directive")
	if err != nil {
		return err
	}
	given, err := q.newVersion()
	if err != nil {
		return err
	}
	v := source.duplicate()
	v.attrs = given.attrs
	if !replaceMeta {
		v.attrs = copiedAttributes(source.attrs, given.attrs)
	}
	current := !strings.Contains(q.copySource(), "?")
	if bucket == q.bucket && key == q.key && current && !replaceMeta && !replaceTags && slices.Equal(v.attrs, source.attrs) {
		return fault("InvalidRequest", key, "This copy request is illegal because it is trying to copy an object to itself without "+
			"changing the object's metadata, storage class, website redirect location or encryption attributes.")
	}
	if replaceTags {
		v.tags = given.tags
	}
	id, err := q.putObject(q.bucket, q.key, v, q.conditions())
	if err != nil {
		return err
	}
	q.setVersionID(id)
	return writeXML(q.w, http.StatusOK, gofakes3.CopyObjectResult{ETag: quoted(v.etag()), LastModified: gofakes3.NewContentTime(v.modifiedTime())})
}

// copiedAttributes is what a copy keeps: the source's content headers and user metadata, and of the
// request the rest: storage class, encryption and redirect are not copied.
func copiedAttributes(source, request []pair) []pair {
	copied := func(a pair) bool {
		return !strings.HasPrefix(a.name, "x-amz-") || strings.HasPrefix(a.name, userMetadata)
	}
	attrs := slices.DeleteFunc(slices.Clone(source), func(a pair) bool { return !copied(a) })
	for _, a := range request {
		if !copied(a) {
			attrs = append(attrs, a)
		}
	}
	sortPairs(attrs)
	return attrs
}

// copyPartResult is the answer of UploadPartCopy.
type copyPartResult struct {
	XMLName      struct{} `xml:"CopyPartResult"`
	ETag         string
	LastModified string
}

// copyPart answers UploadPartCopy, which gofakes3 lacks.
func (q *request) copyPart() error {
	_, _, source, err := q.readSource()
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(q.query.Get("partNumber"))
	if err != nil {
		return invalidArgument("Part number must be an integer")
	}
	p := &part{number: number, size: source.size, body: source.body}
	if wanted := q.r.Header.Get(copySourceHeader + "-Range"); wanted != "" {
		start, length, ok, satisfiable := parseRange(wanted, source.size)
		_, last, _ := strings.Cut(wanted, "-")
		if end, err := strconv.ParseInt(last, 10, 64); !ok || !satisfiable || err != nil || end >= source.size {
			return invalidArgument("The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are " +
				"the zero-based offsets of the first and last bytes to copy, inside the source's " + strconv.FormatInt(source.size, 10) + " bytes")
		}
		p.size, p.body = length, source.body.section(start, length)
	}
	p.md5 = p.body.sum()
	if err := q.putPart(q.bucket, q.key, q.query.Get("uploadId"), p); err != nil {
		return err
	}
	return writeXML(q.w, http.StatusOK, copyPartResult{ETag: quoted(p.etag()), LastModified: unixTime(p.modified).Format(xmlTime)})
}
