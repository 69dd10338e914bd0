package s3

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// formKey is the key a browser's form names: "${filename}" in it stands for the file's name.
func (q *request) formKey(key string) string {
	if files := q.r.MultipartForm.File["file"]; len(files) > 0 {
		return strings.ReplaceAll(key, "${filename}", files[0].Filename)
	}
	return key
}

// postResponse is the answer to a form that asks for status 201.
type postResponse struct {
	XMLName  struct{} `xml:"PostResponse"`
	Location string
	Bucket   string
	Key      string
	ETag     string
}

// postForm answers an upload by a browser's form (POST Object). gofakes3 does it, but for the answer
// the form asks for.
func (q *request) postForm() error {
	q.r.Body = http.MaxBytesReader(q.w.ResponseWriter, q.r.Body, maxObjectBytes)
	defer func() {
		if q.r.MultipartForm == nil {
			return
		}
		// Files that did not fit in memory: the server cleans up its own request only, which is another.
		if err := q.r.MultipartForm.RemoveAll(); err != nil {
			q.log.Warn("S3: a temporary file of a form is left", "error", err)
		}
	}()
	q.callLibrary()
	if q.w.wrote {
		return nil
	}
	etag := q.w.Header().Get("ETag")
	if target, err := url.Parse(q.r.FormValue("success_action_redirect")); err == nil && target.IsAbs() {
		query := target.Query()
		query.Set("bucket", q.bucket)
		query.Set("key", q.key)
		query.Set("etag", etag)
		target.RawQuery = query.Encode()
		q.w.Header().Set("Location", target.String())
		q.w.WriteHeader(http.StatusSeeOther)
		return nil
	}
	location := (&url.URL{Path: "/" + q.bucket + "/" + q.key}).String()
	q.w.Header().Set("Location", location)
	switch status, _ := strconv.Atoi(q.r.FormValue("success_action_status")); status {
	case http.StatusCreated:
		return writeXML(q.w, status, postResponse{Location: location, Bucket: q.bucket, Key: q.key, ETag: etag})
	case http.StatusOK:
		q.w.WriteHeader(status)
	default:
		q.w.WriteHeader(http.StatusNoContent)
	}
	return nil
}
