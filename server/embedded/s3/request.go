package s3

import (
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/johannesboyne/gofakes3"
)

// request is one request on its way. It is also the backend of a gofakes3 that lives as long as it:
// the library's interface hands over too little of the request to serve it well.
type request struct {
	*Service
	w       *response
	r       *http.Request
	id      uint64
	bucket  string
	key     string
	query   url.Values
	trailer http.Header // of an aws-chunked body, once it has been read
}

// maxDocumentBytes bounds an XML document in a request. The longest S3 allows lists 10,000 parts, or
// 1,000 keys to delete.
const maxDocumentBytes = 4 << 20

func (s *Service) serve(w http.ResponseWriter, r *http.Request) {
	q := &request{Service: s, id: s.requests.Add(1), w: &response{ResponseWriter: w}, r: r.Clone(r.Context())}
	h := q.w.Header()
	id := fmt.Sprintf("%016X", q.id)
	h.Set("X-Amz-Request-Id", id)
	h.Set("X-Amz-Id-2", base64.StdEncoding.EncodeToString([]byte(id+id+id)))
	h.Set("Server", "AmazonS3")
	if done := q.crossOrigin(); done {
		return
	}
	if err := q.answer(); err != nil {
		q.writeError(err)
	}
}

// answer answers the request, or returns an error before anything was written.
func (q *request) answer() error {
	var err error
	// As gofakes3 does it: what follows the first slash is the key as it is, slashes at its beginning
	// and dots included.
	q.bucket, q.key, _ = strings.Cut(strings.TrimPrefix(q.r.URL.Path, "/"), "/")
	if q.query, err = url.ParseQuery(q.r.URL.RawQuery); err != nil {
		return fault(gofakes3.ErrInvalidURI, "", "Couldn't parse the specified URI.")
	}
	for name, values := range q.query {
		if hoisted(name) && q.r.Header.Get(name) == "" {
			q.r.Header.Set(name, values[0])
		}
	}
	if name := refusedHeader(q.r.Header); name != "" {
		return notImplemented("The header " + name)
	}
	if q.trailer, err = decodeChunked(q.r); err != nil {
		return err
	}
	operation, err := q.operation()
	if err != nil {
		return err
	}
	return operation()
}

// writeError answers with an error.
func (q *request) writeError(err error) {
	e := asS3Error(err)
	if e.Code == gofakes3.ErrInternal {
		q.log.Error("S3 request failed", "method", q.r.Method, "bucket", q.bucket, "key", q.key, "error", err)
	}
	e.RequestID = q.w.Header().Get("X-Amz-Request-Id")
	status := statusOf(e.Code)
	if q.r.Method == http.MethodHead || status == http.StatusNotModified {
		q.w.WriteHeader(status)
		return
	}
	if err := writeXML(q.w, status, e); err != nil {
		q.log.Debug("S3 error not delivered", "error", err)
	}
}

// library lets gofakes3 answer.
func (q *request) library() error {
	q.callLibrary()
	if !q.w.wrote {
		q.w.WriteHeader(http.StatusOK)
	}
	return nil
}

// callLibrary lets gofakes3 work. Where there is nothing to say but success it leaves the answer to
// the caller.
func (q *request) callLibrary() {
	gofakes3.New(q,
		gofakes3.WithRequestID(q.id-1),    // it counts up before it uses it
		gofakes3.WithTimeSkewLimit(0),     // nobody is authenticated, and test clients have clocks of their own
		gofakes3.WithMetadataSizeLimit(0), // it would count signatures and session tokens; attributesOf looks
		gofakes3.WithLogger(libraryLog{q}),
	).Server().ServeHTTP(q.w, q.r)
}

// document is library for requests with an XML document as body.
func (q *request) document() error {
	q.r.Body = http.MaxBytesReader(q.w.ResponseWriter, q.r.Body, maxDocumentBytes)
	return q.library()
}

// decode reads the XML document in the body.
func (q *request) decode(into any) error {
	q.r.Body = http.MaxBytesReader(q.w.ResponseWriter, q.r.Body, maxDocumentBytes)
	if err := xml.NewDecoder(q.r.Body).Decode(into); err != nil {
		if tooLong := (*http.MaxBytesError)(nil); errors.As(err, &tooLong) {
			return err
		}
		return fault(gofakes3.ErrMalformedXML, "", "The XML you provided was not well-formed or did not validate against our published schema: "+err.Error())
	}
	return nil
}

// libraryLog takes gofakes3's log. What it says of every request is left out: the server in front
// logs requests.
type libraryLog struct{ q *request }

func (l libraryLog) Print(level gofakes3.LogLevel, v ...any) {
	if level == gofakes3.LogErr || level == gofakes3.LogWarn {
		l.q.log.Warn("S3: "+strings.TrimSpace(fmt.Sprintln(v...)), "method", l.q.r.Method, "bucket", l.q.bucket, "key", l.q.key)
	}
}

// response corrects what gofakes3 answers.
type response struct {
	http.ResponseWriter
	wrote  bool
	origin string   // the Access-Control-Allow-Origin to send, "" for none
	failed *s3Error // what the backend last told gofakes3
}

// WriteHeader sends the headers: with the status S3 has for the backend's error, and without the
// permission for every web page that gofakes3 puts on everything.
func (w *response) WriteHeader(status int) {
	w.wrote = true
	if status >= http.StatusBadRequest && w.failed != nil {
		status = statusOf(w.failed.Code)
	}
	h := w.Header()
	if w.origin == "" {
		h.Del("Access-Control-Allow-Origin")
	} else {
		h.Set("Access-Control-Allow-Origin", w.origin)
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write sends content, after the headers.
func (w *response) Write(p []byte) (int, error) {
	if !w.wrote {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// operation finds what the request asks for. S3 tells operations on the same path apart by query
// parameters; gofakes3 ignores those it does not know, and would for example replace an object by the
// access control list that was to be set on it. So in requests that change something, every parameter
// must be known; in others, those that name an operation must.
func (q *request) operation() (func() error, error) {
	sub, err := q.subresource()
	if err != nil {
		return nil, err
	}
	level := "service"
	switch {
	case q.key != "":
		level = "object"
	case q.bucket != "":
		level = "bucket"
	}
	var run func() error
	var params []string // known in this operation
	switch level + " " + q.r.Method + " " + sub {
	case "service GET ":
		run = q.library

	case "bucket PUT ":
		run = q.document
	case "bucket HEAD ":
		run = q.headBucket
	case "bucket DELETE ":
		q.r.Header.Del("X-Minio-Force-Delete") // not S3's, and it ends in an error in gofakes3
		run = q.library
	case "bucket GET ":
		run = q.listObjects
	case "bucket GET location":
		run = q.location
	case "bucket GET versions", "bucket GET versioning", "bucket GET uploads":
		run = q.library
	case "bucket PUT versioning":
		run = q.document
	case "bucket POST delete":
		run = q.deleteMany
	case "bucket POST ":
		run = q.postForm
	case "bucket GET tagging", "bucket PUT tagging", "bucket DELETE tagging":
		return nil, notImplemented("The operation tagging of a bucket")

	case "object GET ", "object HEAD ":
		run = q.getObject
	case "object PUT ":
		run = q.library
		if q.copySource() != "" {
			run = q.copyObject
		}
	case "object DELETE ":
		run, params = q.deleteOne, []string{"versionId"}
	case "object GET tagging":
		run = q.getTagging
	case "object PUT tagging":
		run, params = q.putTagging, []string{"versionId"}
	case "object DELETE tagging":
		run, params = q.deleteTagging, []string{"versionId"}
	case "object POST uploads":
		run = q.library
	case "object PUT uploadId":
		run, params = q.library, []string{"partNumber"}
		if q.copySource() != "" {
			run = q.copyPart
		}
	case "object GET uploadId", "object DELETE uploadId":
		run = q.library
	case "object POST uploadId":
		run = q.document
	default:
		return nil, methodNotAllowed(strings.TrimSpace(q.r.Method + " of this " + level + " " + sub))
	}
	if q.r.Method != http.MethodGet && q.r.Method != http.MethodHead {
		for name := range q.query {
			if name != sub && !harmless(name) && !slices.Contains(params, name) {
				return nil, notImplemented("The query parameter " + name + " in this request")
			}
		}
	}
	for _, name := range []string{"uploadId", "versionId"} {
		if values, ok := q.query[name]; ok && values[0] == "" {
			return nil, invalidArgument(name + " cannot be empty")
		}
	}
	return run, nil
}

// subresource finds the query parameter that names an operation, "" if there is none.
func (q *request) subresource() (string, error) {
	sub := ""
	for name := range q.query {
		switch name {
		case "accelerate", "acl", "analytics", "attributes", "cors", "encryption", "intelligent-tiering", "inventory",
			"legal-hold", "lifecycle", "logging", "metadataConfiguration", "metadataTable", "metrics", "notification",
			"object-lock", "ownershipControls", "policy", "policyStatus", "publicAccessBlock", "renameObject", "replication",
			"requestPayment", "restore", "retention", "select", "session", "torrent", "website", "abac", "append":
			return "", notImplemented("The operation " + name)
		case "delete", "location", "tagging", "uploadId", "uploads", "versioning", "versions":
			if sub != "" {
				return "", invalidArgument("The query parameters " + min(sub, name) + " and " + max(sub, name) + " exclude each other")
			}
			sub = name
		}
	}
	return sub, nil
}

// harmless reports whether a query parameter changes nothing about what a request does: those of
// signatures, and what the SDKs add for logs.
func harmless(name string) bool {
	lower := strings.ToLower(name)
	return strings.HasPrefix(lower, "x-amz-") || lower == "x-id" || name == "AWSAccessKeyId" || name == "Signature" || name == "Expires"
}

// hoisted reports whether a query parameter stands for the header of its name, as in URLs that are
// signed for later use. Parameters of the signature itself do not. Nor does a checksum: who signs the
// URL has not seen what will be put.
func hoisted(name string) bool {
	lower := strings.ToLower(name)
	switch lower {
	case "x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-expires", "x-amz-signedheaders", "x-amz-signature",
		"x-amz-security-token", "x-amz-content-sha256", "x-amz-user-agent":
		return false
	}
	return strings.HasPrefix(lower, "x-amz-") && !strings.HasPrefix(lower, strings.ToLower(checksumHeader))
}

// headBucket answers HEAD of a bucket.
func (q *request) headBucket() error {
	region := ""
	if err := q.view(q.bucket, func(b *bucket) error { region = b.region(); return nil }); err != nil {
		return err
	}
	q.w.Header().Set("X-Amz-Bucket-Region", region)
	q.w.WriteHeader(http.StatusOK)
	return nil
}

// location answers GetBucketLocation.
func (q *request) location() error {
	result := gofakes3.GetBucketLocation{Xmlns: xmlns}
	err := q.view(q.bucket, func(b *bucket) error {
		if region := b.region(); region != legacyRegion {
			result.LocationConstraint = region
		}
		return nil
	})
	if err != nil {
		return err
	}
	return writeXML(q.w, http.StatusOK, result)
}
