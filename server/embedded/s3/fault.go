package s3

import (
	"cmp"
	"encoding/xml"
	"errors"
	"net/http"

	"github.com/johannesboyne/gofakes3"
)

// s3Error is an error as S3 answers it, in XML. Embedding gofakes3's type makes gofakes3 pass it on
// as it is; only the HTTP status it would look up in its own, shorter list (see [response]).
type s3Error struct {
	gofakes3.ErrorResponse
	Resource string `xml:"Resource,omitempty"`
}

// fault makes an S3 error. resource names the bucket or key it is about, "" for none.
func fault(code gofakes3.ErrorCode, resource, message string) error {
	return &s3Error{gofakes3.ErrorResponse{Code: code, Message: message}, resource}
}

func noSuchBucket(bucket string) error {
	return fault(gofakes3.ErrNoSuchBucket, bucket, "The specified bucket does not exist")
}

func noSuchKey(key string) error {
	return fault(gofakes3.ErrNoSuchKey, key, "The specified key does not exist.")
}

func noSuchVersion(key string) error {
	return fault(gofakes3.ErrNoSuchVersion, key, "The specified version does not exist.")
}

func noSuchUpload(key string) error {
	return fault(gofakes3.ErrNoSuchUpload, key, "The specified multipart upload does not exist. "+
		"The upload ID might be invalid, or the upload might have been aborted or completed.")
}

func preconditionFailed(header string) error {
	return fault(gofakes3.ErrPreconditionFailed, "", "At least one of the preconditions you specified did not hold: "+header)
}

func invalidArgument(message string) error {
	return fault(gofakes3.ErrInvalidArgument, "", message)
}

func methodNotAllowed(method string) error {
	return fault(gofakes3.ErrMethodNotAllowed, "", "The specified method is not allowed against this resource: "+method)
}

func notImplemented(what string) error {
	return fault(gofakes3.ErrNotImplemented, "", what+" is not implemented by this S3 service; nothing was changed")
}

// statusOf is the HTTP status of an error code, where gofakes3 knows none or a wrong one.
func statusOf(code gofakes3.ErrorCode) int {
	switch code {
	case "AccessForbidden":
		return http.StatusForbidden
	case gofakes3.ErrMethodNotAllowed:
		return http.StatusMethodNotAllowed
	case "BucketAlreadyOwnedByYou":
		return http.StatusConflict
	case "InvalidPartNumber":
		return http.StatusRequestedRangeNotSatisfiable
	case "BadRequest", "EntityTooLarge", "EntityTooSmall", "InvalidLocationConstraint", "InvalidRequest", "InvalidStorageClass", "InvalidTag",
		"UserKeyMustBeSpecified":
		return http.StatusBadRequest
	}
	return code.Status()
}

// asS3Error turns any error into one S3 would answer.
func asS3Error(err error) *s3Error {
	var own *s3Error
	if errors.As(err, &own) {
		return own
	}
	var tooLong *http.MaxBytesError
	if errors.As(err, &tooLong) {
		return &s3Error{gofakes3.ErrorResponse{Code: "EntityTooLarge", Message: "the request's body is too long"}, ""}
	}
	var library *gofakes3.ErrorResponse
	if errors.As(err, &library) {
		return &s3Error{*library, ""}
	}
	var known gofakes3.Error
	if errors.As(err, &known) {
		code := known.ErrorCode()
		return &s3Error{gofakes3.ErrorResponse{Code: code, Message: cmp.Or(code.Message(), string(code))}, ""}
	}
	return &s3Error{gofakes3.ErrorResponse{Code: gofakes3.ErrInternal, Message: "We encountered an internal error: " + err.Error()}, ""}
}

// xmlns is the namespace of S3's XML.
const xmlns = "http://s3.amazonaws.com/doc/2006-03-01/"

// writeXML answers with a document.
func writeXML(w http.ResponseWriter, status int, document any) error {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	if _, err := w.Write([]byte(xml.Header)); err != nil {
		return err
	}
	return xml.NewEncoder(w).Encode(document)
}
