package s3

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/johannesboyne/gofakes3"
)

// defaultContentType is what S3 says of an object put without a type.
const defaultContentType = "binary/octet-stream"

// getObject answers GetObject and HeadObject. It is not left to gofakes3, which knows no entity tag
// but the MD5 of the content, answers HEAD with the current version whatever the request says, refuses
// a suffix range longer than the object, and evaluates two of four conditions.
func (q *request) getObject() error {
	h := q.w.Header()
	v, publicID, err := q.read(q.bucket, q.key, q.query.Get("versionId"))
	if publicID != "" {
		h.Set("X-Amz-Version-Id", publicID)
	}
	if err != nil {
		if v != nil && v.marker {
			h.Set("X-Amz-Delete-Marker", "true")
			h.Set("Last-Modified", v.modifiedTime().Format(http.TimeFormat))
		}
		return err
	}
	h.Set("ETag", quoted(v.etag()))
	h.Set("Last-Modified", v.modifiedTime().Format(http.TimeFormat))
	h.Set("Accept-Ranges", "bytes")
	if err := v.readConditions(q.r.Header, ""); err != nil {
		return err
	}
	start, length, status, err := q.span(v)
	if err != nil {
		return err
	}
	h.Set("Content-Type", defaultContentType)
	setAttributes(h, v.attrs)
	if len(v.tags) > 0 {
		h.Set("X-Amz-Tagging-Count", strconv.Itoa(len(v.tags)))
	}
	if status == http.StatusPartialContent {
		if length > 0 {
			h.Set("Content-Range", "bytes "+strconv.FormatInt(start, 10)+"-"+strconv.FormatInt(start+length-1, 10)+"/"+strconv.FormatInt(v.size, 10))
		}
	} else if strings.EqualFold(q.r.Header.Get("X-Amz-Checksum-Mode"), "ENABLED") {
		v.checksum.set(h)
	}
	for _, header := range []string{"Content-Type", "Content-Language", "Expires", "Cache-Control", "Content-Disposition", "Content-Encoding"} {
		if value := q.query.Get("response-" + strings.ToLower(header)); value != "" {
			h.Set(header, value)
		}
	}
	h.Set("Content-Length", strconv.FormatInt(length, 10))
	q.w.WriteHeader(status)
	if q.r.Method == http.MethodHead {
		return nil
	}
	if _, err := v.body.section(start, length).WriteTo(q.w); err != nil {
		q.log.Debug("S3 object not delivered", "bucket", q.bucket, "key", q.key, "error", err)
	}
	return nil
}

// span says which part of v the request wants: by Range or by partNumber.
func (q *request) span(v *version) (start, length int64, status int, err error) {
	if number := q.query.Get("partNumber"); number != "" {
		n, err := strconv.Atoi(number)
		if err != nil || n < 1 || n > maxPartNumber {
			return 0, 0, 0, invalidArgument("Part number must be an integer between 1 and " + strconv.Itoa(maxPartNumber) + ", inclusive")
		}
		sizes := v.parts
		if sizes == nil {
			sizes = []int64{v.size}
		} else {
			q.w.Header().Set("X-Amz-Mp-Parts-Count", strconv.Itoa(len(sizes)))
		}
		if n > len(sizes) {
			return 0, 0, 0, fault("InvalidPartNumber", q.key, "The requested partnumber is not satisfiable")
		}
		for _, size := range sizes[:n-1] {
			start += size
		}
		return start, sizes[n-1], http.StatusPartialContent, nil
	}
	wanted := q.r.Header.Get("Range")
	if unless := q.r.Header.Get("If-Range"); unless != "" && !v.same(unless) {
		wanted = ""
	}
	start, length, ok, satisfiable := parseRange(wanted, v.size)
	switch {
	case !ok:
		return 0, v.size, http.StatusOK, nil
	case !satisfiable:
		q.w.Header().Set("Content-Range", "bytes */"+strconv.FormatInt(v.size, 10))
		return 0, 0, 0, fault(gofakes3.ErrInvalidRange, q.key, "The requested range is not satisfiable")
	}
	return start, length, http.StatusPartialContent, nil
}

// parseRange reads a Range header (RFC 9110, 14.2) against content of that size. ok is false for
// none, and for one to be ignored as S3 does: malformed, or of several ranges.
func parseRange(header string, size int64) (start, length int64, ok, satisfiable bool) {
	spec, isBytes := strings.CutPrefix(strings.TrimSpace(header), "bytes=")
	first, last, isRange := strings.Cut(strings.TrimSpace(spec), "-")
	if !isBytes || !isRange {
		return 0, 0, false, false
	}
	number := func(s string) (int64, bool) {
		n, err := strconv.ParseUint(s, 10, 63)
		return int64(n), err == nil
	}
	if first == "" {
		n, isNumber := number(last)
		n = min(n, size)
		return size - n, n, isNumber, n > 0
	}
	start, isNumber := number(first)
	end := size - 1
	if last != "" {
		n, isNumber := number(last)
		if !isNumber || n < start {
			return 0, 0, false, false
		}
		end = min(n, end)
	}
	return start, end - start + 1, isNumber, start < size
}

// same reports whether If-Range names v, by entity tag or by date.
func (v *version) same(condition string) bool {
	if t, err := http.ParseTime(condition); err == nil {
		return v.modifiedTime().Truncate(time.Second).Equal(t)
	}
	return strings.Trim(condition, `"`) == v.etag()
}

// readConditions evaluates the conditions of a read (RFC 9110, 13.2.2). Those of a copy's source have
// a prefix, and where a read would be told that nothing changed a copy is refused.
func (v *version) readConditions(header http.Header, prefix string) error {
	unchanged := fault(gofakes3.ErrNotModified, "", "Not Modified")
	if prefix != "" {
		unchanged = preconditionFailed(strings.ToLower(prefix) + "if-none-match or -modified-since")
	}
	modified := v.modifiedTime().Truncate(time.Second)
	if list := header.Get(prefix + "If-Match"); list != "" {
		if !matches(list, v.etag()) {
			return preconditionFailed(strings.ToLower(prefix) + "if-match")
		}
	} else if t, err := http.ParseTime(header.Get(prefix + "If-Unmodified-Since")); err == nil && modified.After(t) {
		return preconditionFailed(strings.ToLower(prefix) + "if-unmodified-since")
	}
	if list := header.Get(prefix + "If-None-Match"); list != "" {
		if matches(list, v.etag()) {
			return unchanged
		}
	} else if t, err := http.ParseTime(header.Get(prefix + "If-Modified-Since")); err == nil && !modified.After(t) {
		return unchanged
	}
	return nil
}
