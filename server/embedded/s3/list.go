package s3

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/johannesboyne/gofakes3"
)

// maxListKeys is how many entries one answer lists at most: S3's own limit.
const maxListKeys = gofakes3.MaxBucketKeys

// xmlTime is the form of times in listings: S3's, with its three decimals.
const xmlTime = "2006-01-02T15:04:05.000Z"

// listResult is the answer of ListObjects and ListObjectsV2.
type listResult struct {
	XMLName               struct{} `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListBucketResult"`
	Name                  string
	Prefix                string
	Marker                *string
	StartAfter            string `xml:",omitempty"`
	ContinuationToken     string `xml:",omitempty"`
	NextMarker            string `xml:",omitempty"`
	NextContinuationToken string `xml:",omitempty"`
	KeyCount              *int
	MaxKeys               int
	Delimiter             string `xml:",omitempty"`
	EncodingType          string `xml:",omitempty"`
	IsTruncated           bool
	Contents              []listEntry
	CommonPrefixes        []gofakes3.CommonPrefix
}

type listEntry struct {
	Key          string
	LastModified string
	ETag         string
	Size         int64
	StorageClass string
	Owner        *gofakes3.UserInfo `xml:",omitempty"`
}

// listObjects answers ListObjects and ListObjectsV2. It is not left to gofakes3, whose delimiters lose
// leading slashes, which has no encoding-type, so that keys with characters XML cannot have would be
// wrong, and which leaves KeyCount out when it is 0.
func (q *request) listObjects() error {
	p := page{prefix: q.query.Get("prefix"), delimiter: q.query.Get("delimiter"), limit: maxListKeys}
	if given := q.query.Get("max-keys"); given != "" {
		n, err := strconv.Atoi(given)
		if err != nil || n < 0 {
			return invalidArgument("Argument max-keys must be an integer between 0 and 2147483647")
		}
		p.limit = min(n, maxListKeys)
	}
	encode := func(s string) string { return s }
	encoding := q.query.Get("encoding-type")
	switch encoding {
	case "":
	case "url":
		encode = encodeKey
	default:
		return invalidArgument("Invalid Encoding Method specified in Request: " + encoding)
	}
	version2 := q.query.Get("list-type") == "2"
	result := listResult{Name: q.bucket, Prefix: encode(p.prefix), MaxKeys: p.limit, Delimiter: encode(p.delimiter), EncodingType: encoding}
	token := q.query.Get("continuation-token")
	switch {
	case version2 && token != "":
		// The token is the last entry before: opaque to clients, and good after a restart.
		after, err := base64.URLEncoding.DecodeString(token)
		if err != nil {
			return invalidArgument("The continuation token provided is incorrect")
		}
		p.after = string(after)
	case version2:
		p.after = q.query.Get("start-after")
	default:
		p.after = q.query.Get("marker")
	}
	var l listing
	account := ""
	err := q.view(q.bucket, func(b *bucket) error {
		l = b.list(p)
		account, _, _ = strings.Cut(b.partition, "/")
		return nil
	})
	if err != nil {
		return err
	}
	result.IsTruncated = l.truncated
	if version2 {
		count := len(l.objects) + len(l.prefixes)
		result.KeyCount, result.StartAfter, result.ContinuationToken = &count, encode(q.query.Get("start-after")), token
		if l.truncated {
			result.NextContinuationToken = base64.URLEncoding.EncodeToString([]byte(l.last))
		}
	} else {
		marker := encode(p.after)
		result.Marker = &marker
		if l.truncated && p.delimiter != "" { // only then, says S3
			result.NextMarker = encode(l.last)
		}
	}
	var owner *gofakes3.UserInfo
	if !version2 || q.query.Get("fetch-owner") == "true" {
		owner = &gofakes3.UserInfo{ID: account, DisplayName: account}
	}
	for _, o := range l.objects {
		result.Contents = append(result.Contents, listEntry{Key: encode(o.key), LastModified: o.modifiedTime().Format(xmlTime),
			ETag: quoted(o.etag()), Size: o.size, StorageClass: o.storageClass(), Owner: owner})
	}
	for _, prefix := range l.prefixes {
		result.CommonPrefixes = append(result.CommonPrefixes, gofakes3.CommonPrefix{Prefix: encode(prefix)})
	}
	return writeXML(q.w, http.StatusOK, result)
}

// encodeKey is S3's encoding-type "url".
func encodeKey(s string) string {
	return strings.NewReplacer("+", "%20", "%2F", "/").Replace(url.QueryEscape(s))
}
