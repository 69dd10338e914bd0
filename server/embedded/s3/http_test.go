package s3

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"hash/crc32"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
)

// TestGuard: a request for an operation that is not there must not be taken for another one.
func TestGuard(t *testing.T) {
	changes := 0
	s := newServer(t, Options{OnChange: func(string, string) { changes++ }})
	s.expect(200, "PUT", "/bucket", "")
	s.expect(200, "PUT", "/empty", "")
	s.expect(200, "PUT", "/bucket/k", "content")
	before, had := native(t, s.Service), changes
	unknown := []string{"acl", "attributes", "cors", "encryption", "legal-hold", "lifecycle", "notification", "object-lock", "ownershipControls",
		"policy", "publicAccessBlock", "replication", "restore", "retention", "select&select-type=2", "torrent", "website", "accelerate",
		"requestPayment", "logging", "metrics&id=x", "analytics", "inventory", "intelligent-tiering", "policyStatus", "renameObject", "session"}
	for _, sub := range unknown {
		for _, target := range []string{"/bucket/k?" + sub, "/bucket?" + sub, "/empty?" + sub, "/empty/?" + sub + "="} {
			for _, method := range []string{"GET", "PUT", "POST", "DELETE"} {
				if a := s.expect(501, method, target, "<x/>"); a.code() != "NotImplemented" {
					t.Errorf("%s %s: %s", method, target, a.body)
				}
			}
			s.expect(501, "HEAD", target, "")
		}
	}
	// What is not in that list is refused where it could do harm, and ignored elsewhere as S3 does.
	for _, method := range []string{"PUT", "DELETE"} {
		s.expect(501, method, "/bucket/k?somethingNew", "")
		s.expect(501, method, "/bucket?somethingNew", "")
		s.expect(501, method, "/empty?tagging", "")
	}
	s.expect(200, "GET", "/bucket/k?cachebust=1&x-id=GetObject", "")
	for target, want := range map[string]string{
		"PUT /bucket/k?uploadId=&partNumber=1":    "InvalidArgument",
		"PUT /bucket/k?uploadId=none&partNumber=": "InvalidPart",
		"PUT /bucket/k?partNumber=1":              "NotImplemented",
		"PUT /bucket/k?versionId=x":               "NotImplemented",
		"DELETE /bucket/k?versionId=":             "InvalidArgument",
		"DELETE /bucket/k?partNumber=1":           "NotImplemented",
		"DELETE /bucket/k?uploadId=none":          "NoSuchUpload",
		"DELETE /bucket?versionId=x":              "NotImplemented",
		"DELETE /bucket?versioning":               "MethodNotAllowed",
		"PUT /bucket/k?tagging&uploads":           "InvalidArgument",
		"PUT /bucket/k?a=%zz":                     "InvalidURI",
		"PUT /bucket/k?a=b;acl":                   "InvalidURI",
		"POST /bucket/k":                          "MethodNotAllowed",
		"PATCH /bucket/k":                         "MethodNotAllowed",
		"POST /":                                  "MethodNotAllowed",
		"PUT /none/k":                             "NoSuchBucket",
		"PUT /bucket?versioning":                  "MalformedXML",
		"POST /bucket?delete":                     "MalformedXML",
		"PUT /bucket/k?tagging":                   "MalformedXML",
		"POST /bucket":                            "MalformedPOSTRequest",
		"GET /bucket?encoding-type=x":             "InvalidArgument",
		"GET /bucket?max-keys=-1":                 "InvalidArgument",
		"GET /bucket/k?partNumber=0":              "InvalidArgument",
	} {
		method, path, _ := strings.Cut(target, " ")
		if a := s.do(method, path, "<x"); a.code() != want {
			t.Errorf("%s: %d %s, want %s", target, a.StatusCode, a.body, want)
		}
	}
	for header, value := range map[string]string{
		"X-Amz-Server-Side-Encryption-Customer-Algorithm": "AES256", "X-Amz-Object-Lock-Mode": "GOVERNANCE", "X-Amz-Write-Offset-Bytes": "7",
		"X-Amz-Checksum-Sha512": "x", "X-Amz-Trailer": "x-amz-checksum-xxhash64",
	} {
		if a := s.expect(501, "PUT", "/bucket/k", "other", header, value); !strings.Contains(a.body, header) {
			t.Errorf("%s: %s", header, a.body)
		}
	}
	s.expect(409, "DELETE", "/bucket", "", "X-Minio-Force-Delete", "true")
	if changes != had || !bytes.Equal(native(t, s.Service), before) {
		t.Errorf("%d changes by requests that were refused", changes-had)
	}
}

// TestStatus: an error's status is S3's, also where gofakes3 answers.
func TestStatus(t *testing.T) {
	s := newServer(t, Options{Partition: "000000000000/eu-west-1"})
	s.expect(200, "PUT", "/bucket", "")
	if a := s.expect(409, "PUT", "/bucket", ""); a.code() != "BucketAlreadyOwnedByYou" {
		t.Error(a.body)
	}
	if a := s.expect(400, "PUT", "/other", "<CreateBucketConfiguration><LocationConstraint>not/a/region</LocationConstraint></CreateBucketConfiguration>"); a.code() != "InvalidLocationConstraint" {
		t.Error(a.body)
	}
	if a := s.expect(400, "PUT", "/bucket/"+strings.Repeat("k", maxKeyBytes+1), ""); a.code() != "KeyTooLongError" {
		t.Error(a.body)
	}
	if a := s.expect(400, "POST", "/bucket/"+strings.Repeat("k", maxKeyBytes+1)+"?uploads", ""); a.code() != "KeyTooLongError" {
		t.Error(a.body)
	}
	if a := s.expect(405, "PATCH", "/bucket", ""); a.code() != "MethodNotAllowed" {
		t.Error(a.body)
	}
	if a := s.expect(411, "PUT", "/bucket/k", "", "Content-Length", "x", "X-Amz-Content-Sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"); a.code() != "MissingContentLength" {
		t.Error(a.body)
	}
	if a := s.expect(400, "PUT", "/bucket/k", "x", "X-Amz-Storage-Class", "FAST"); a.code() != "InvalidStorageClass" {
		t.Error(a.body)
	}
	if a := s.expect(400, "PUT", "/bucket/k", "x", "X-Amz-Tagging", "a=1&a=2"); a.code() != "InvalidTag" {
		t.Error(a.body)
	}
	if a := s.expect(400, "PUT", "/bucket/k", "x", "X-Amz-Meta-A", strings.Repeat("x", maxUserMetadataBytes)); a.code() != "MetadataTooLarge" {
		t.Error(a.body)
	}
	if a := s.expect(400, "PUT", "/bucket/k", "x", "Content-Language", strings.Repeat("x", maxAttributeBytes)); a.code() != "MetadataTooLarge" {
		t.Error(a.body)
	}
	s.expect(200, "PUT", "/bucket/k", "x", "X-Amz-Security-Token", strings.Repeat("x", maxAttributeBytes), "X-Amz-Date", "20010101T000000Z")
	if a := s.expect(400, "POST", "/bucket?delete", "<Delete>"+strings.Repeat("<Object><Key>k</Key></Object>", maxMultiDelete+1)+"</Delete>"); a.code() != "MalformedXML" {
		t.Error(a.body)
	}
	if a := s.expect(400, "POST", "/bucket?delete", "<Delete>"+strings.Repeat(" ", maxDocumentBytes)+"</Delete>"); a.code() != "EntityTooLarge" {
		t.Error(a.body)
	}
	if a := s.expect(400, "PUT", "/bucket?versioning", "<VersioningConfiguration/>"); a.code() != "IllegalVersioningConfigurationException" {
		t.Error(a.body)
	}
}

// TestRequestID: every answer has an id of its own, and errors say it in the document, too.
func TestRequestID(t *testing.T) {
	s := newServer(t, Options{})
	s.expect(200, "PUT", "/bucket", "")
	seen := map[string]bool{}
	for _, target := range []string{"/", "/bucket", "/bucket/none", "/none", "/bucket?versioning", "/bucket?acl"} {
		a := s.do("GET", target, "")
		id := a.Header.Get("X-Amz-Request-Id")
		if len(id) != 16 || seen[id] || a.Header.Get("X-Amz-Id-2") == "" {
			t.Errorf("%s: id %q", target, id)
		}
		seen[id] = true
		if a.StatusCode >= 400 && target != "/none" && !strings.Contains(a.body, "<RequestId>"+id+"</RequestId>") {
			t.Errorf("%s: %s", target, a.body)
		}
	}
}

// chunk is a chunk as signing clients send it.
func chunk(data string, signed bool) string {
	signature := ""
	if signed {
		signature = ";chunk-signature=" + strings.Repeat("ab", 32)
	}
	return fmt.Sprintf("%x%s\r\n%s\r\n", len(data), signature, data)
}

// TestChunkedUploads puts objects and parts with the aws-chunked bodies the SDKs send.
func TestChunkedUploads(t *testing.T) {
	s := newServer(t, Options{})
	s.expect(200, "PUT", "/bucket", "")
	content := strings.Repeat("0123456789", 10_000)
	sum := crc32.ChecksumIEEE([]byte(content))
	checksum := base64.StdEncoding.EncodeToString([]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
	wrong := base64.StdEncoding.EncodeToString([]byte{1, 2, 3, 4})
	signed := chunk(content[:65536], true) + chunk(content[65536:], true) + "0;chunk-signature=" + strings.Repeat("ab", 32) + "\r\n"
	plain := chunk(content[:65536], false) + chunk(content[65536:], false) + "0\r\n"
	for name, c := range map[string]struct {
		body, sha256, trailer, want string
	}{
		"signed":                     {signed + "\r\n", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "", ""},
		"signed with trailer":        {signed + "x-amz-checksum-crc32:" + checksum + "\r\nx-amz-trailer-signature:abcd\r\n\r\n", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", "x-amz-checksum-crc32", ""},
		"trailer":                    {plain + "x-amz-checksum-crc32:" + checksum + "\r\n\r\n", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "x-amz-checksum-crc32", ""},
		"trailer without last line":  {plain + "x-amz-checksum-crc32: " + checksum + "\r\n", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "x-amz-checksum-crc32", ""},
		"line feeds only":            {strings.ReplaceAll(plain, "\r", "") + "x-amz-checksum-crc32:" + checksum + "\n\n", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "x-amz-checksum-crc32", ""},
		"nothing behind":             {plain, "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "", ""},
		"another checksum":           {plain + "x-amz-checksum-crc32:" + wrong + "\r\n\r\n", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "x-amz-checksum-crc32", "BadDigest"},
		"checksum announced, absent": {plain + "\r\n", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "x-amz-checksum-crc32", "BadDigest"},
		"ends in a chunk":            {plain[:70_000], "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "", "IncompleteBody"},
		"ends before the last chunk": {strings.TrimSuffix(plain, "0\r\n"), "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "", "IncompleteBody"},
		"ends in a trailer":          {plain + "x-amz-checksum-crc32:" + checksum, "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "x-amz-checksum-crc32", "IncompleteBody"},
		"a chunk longer than said":   {"5\r\n" + content + "\r\n0\r\n\r\n", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "", "IncompleteBody"},
		"more than announced":        {chunk("and more", false) + plain, "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "", "IncompleteBody"},
		"not chunked":                {content, "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "", "IncompleteBody"},
	} {
		t.Run(name, func(t *testing.T) {
			s.t = t
			headers := []string{"X-Amz-Content-Sha256", c.sha256, "X-Amz-Decoded-Content-Length", fmt.Sprint(len(content)), "Content-Encoding", "aws-chunked, gzip"}
			if c.trailer != "" {
				headers = append(headers, "X-Amz-Trailer", c.trailer)
			}
			s.expect(204, "DELETE", "/bucket/k", "")
			a := s.do("PUT", "/bucket/k", c.body, headers...)
			if c.want != "" {
				if a.StatusCode != 400 || a.code() != c.want {
					t.Fatalf("%d %s, want %s", a.StatusCode, a.body, c.want)
				}
				s.expect(404, "GET", "/bucket/k", "")
				return
			}
			if a.StatusCode != 200 || a.Header.Get("ETag") != quoted(plainETag(content)) {
				t.Fatalf("%d %v %s", a.StatusCode, a.Header, a.body)
			}
			got := s.expect(200, "GET", "/bucket/k", "", "Accept-Encoding", "gzip", "X-Amz-Checksum-Mode", "ENABLED")
			if got.body != content || got.Header.Get("Content-Encoding") != "gzip" {
				t.Errorf("%d bytes, headers %v", len(got.body), got.Header)
			}
			if has := got.Header.Get("X-Amz-Checksum-Crc32"); c.trailer != "" && has != checksum || c.trailer == "" && has != "" {
				t.Errorf("checksum %q", has)
			}

			var up struct{ UploadId string }
			if err := xml.Unmarshal([]byte(s.expect(200, "POST", "/bucket/p?uploads", "").body), &up); err != nil {
				t.Fatal(err)
			}
			a = s.expect(200, "PUT", "/bucket/p?partNumber=1&uploadId="+up.UploadId, c.body, headers...)
			s.expect(200, "POST", "/bucket/p?uploadId="+up.UploadId, "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>"+a.Header.Get("ETag")+"</ETag></Part></CompleteMultipartUpload>")
			if got := s.expect(200, "GET", "/bucket/p", ""); got.body != content {
				t.Errorf("a part of %d bytes", len(got.body))
			}
		})
	}
}

// TestDigests: content that is not what the client says is refused and changes nothing.
func TestDigests(t *testing.T) {
	s := newServer(t, Options{})
	s.expect(200, "PUT", "/bucket", "")
	s.expect(200, "PUT", "/bucket/k", "before")
	sum := md5.Sum([]byte("content"))
	right := base64.StdEncoding.EncodeToString(sum[:])
	for _, target := range []string{"/bucket/k", "/bucket/new"} {
		if a := s.expect(400, "PUT", target, "content", "Content-Md5", base64.StdEncoding.EncodeToString(make([]byte, 16))); a.code() != "BadDigest" {
			t.Error(a.body)
		}
		if a := s.expect(400, "PUT", target, "content", "Content-Md5", "x"); a.code() != "InvalidDigest" {
			t.Error(a.body)
		}
		for algorithm := algorithmCRC32; algorithm < algorithmEnd; algorithm++ {
			if a := s.expect(400, "PUT", target, "content", checksumHeader+algorithm.String(), "AAAA"); a.code() != "BadDigest" {
				t.Error(a.body)
			}
		}
	}
	if got := s.expect(200, "GET", "/bucket/k", ""); got.body != "before" {
		t.Errorf("%q", got.body)
	}
	s.expect(404, "GET", "/bucket/new", "")
	s.expect(200, "PUT", "/bucket/k", "content", "Content-Md5", right)
	// The check values of the algorithms, for the text "123456789".
	for algorithm, hex := range map[string]string{
		"crc32": "cbf43926", "crc32c": "e3069283", "crc64nvme": "ae8b14860a799888",
		"sha1": "f7c3bc1d808e04732adf679965ccc34ca7ae3441", "sha256": "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
	} {
		var raw []byte
		fmt.Sscanf(hex, "%x", &raw)
		value := base64.StdEncoding.EncodeToString(raw)
		a := s.expect(200, "PUT", "/bucket/k", "123456789", checksumHeader+algorithm, value)
		if got := a.Header.Get(checksumHeader + algorithm); got != value {
			t.Errorf("%s: answered %q", algorithm, got)
		}
		s.restart()
		for _, method := range []string{"GET", "HEAD"} {
			a = s.expect(200, method, "/bucket/k", "", "X-Amz-Checksum-Mode", "ENABLED")
			if got := a.Header.Get(checksumHeader + algorithm); got != value || a.Header.Get("X-Amz-Checksum-Type") != "FULL_OBJECT" {
				t.Errorf("%s %s: %v", method, algorithm, a.Header)
			}
		}
		if a = s.expect(206, "GET", "/bucket/k", "", "X-Amz-Checksum-Mode", "ENABLED", "Range", "bytes=0-1"); a.Header.Get(checksumHeader+algorithm) != "" {
			t.Errorf("%s: the checksum of the whole with a part", algorithm)
		}
	}
}

// TestRanges reads parts of an object that is in several pieces.
func TestRanges(t *testing.T) {
	s := newServer(t, Options{})
	s.expect(200, "PUT", "/bucket", "")
	content := strings.Repeat("0123456789abcde.", 3*pieceBytes/16) + "end"
	size := len(content)
	s.expect(200, "PUT", "/bucket/k", content)
	s.expect(200, "PUT", "/bucket/empty", "")
	for header, want := range map[string][2]int{ // first byte and the one behind the last; nil for the whole
		"bytes=0-0":        {0, 1},
		"bytes=0-":         {0, size},
		"bytes=5-9":        {5, 10},
		"bytes=-3":         {size - 3, size},
		"bytes=-99999999":  {0, size},
		"bytes=5-99999999": {5, size},
		fmt.Sprintf("bytes=%d-%d", pieceBytes-1, pieceBytes):   {pieceBytes - 1, pieceBytes + 1},
		fmt.Sprintf("bytes=%d-%d", pieceBytes, 2*pieceBytes+7): {pieceBytes, 2*pieceBytes + 8},
		fmt.Sprintf("bytes=%d-", size-1):                       {size - 1, size},
		"bytes=9-5":                                            {},
		"bytes=a-5":                                            {},
		"bytes=5":                                              {},
		"bytes=-":                                              {},
		"bytes=0-1,4-5":                                        {},
		"items=0-1":                                            {},
		"bytes=--5":                                            {},
		"bytes=+1-5":                                           {},
	} {
		status, body, contentRange := 200, content, ""
		if want != [2]int{} {
			status, body, contentRange = 206, content[want[0]:want[1]], fmt.Sprintf("bytes %d-%d/%d", want[0], want[1]-1, size)
		}
		a := s.expect(status, "GET", "/bucket/k", "", "Range", header)
		if a.body != body || a.Header.Get("Content-Range") != contentRange {
			t.Errorf("%s: %d bytes, %q, want %d and %q", header, len(a.body), a.Header.Get("Content-Range"), len(body), contentRange)
		}
		if h := s.expect(status, "HEAD", "/bucket/k", "", "Range", header); h.ContentLength != int64(len(body)) || h.Header.Get("Content-Range") != contentRange {
			t.Errorf("HEAD %s: %v", header, h.Header)
		}
	}
	for _, header := range []string{fmt.Sprintf("bytes=%d-", size), "bytes=-0", "bytes=99999999-", "bytes=99999999-99999999"} {
		if a := s.expect(416, "GET", "/bucket/k", "", "Range", header); a.code() != "InvalidRange" || a.Header.Get("Content-Range") != fmt.Sprintf("bytes */%d", size) {
			t.Errorf("%s: %s %v", header, a.body, a.Header)
		}
	}
	s.expect(416, "GET", "/bucket/empty", "", "Range", "bytes=0-")
	s.expect(416, "GET", "/bucket/empty", "", "Range", "bytes=-5")
	etag := s.expect(200, "HEAD", "/bucket/k", "").Header.Get("ETag")
	modified := s.expect(200, "HEAD", "/bucket/k", "").Header.Get("Last-Modified")
	s.expect(206, "GET", "/bucket/k", "", "Range", "bytes=0-1", "If-Range", etag)
	s.expect(206, "GET", "/bucket/k", "", "Range", "bytes=0-1", "If-Range", modified)
	s.expect(200, "GET", "/bucket/k", "", "Range", "bytes=0-1", "If-Range", `"another"`)
	s.expect(200, "GET", "/bucket/k", "", "Range", "bytes=0-1", "If-Range", "Mon, 01 Jan 2001 00:00:00 GMT")
}

// TestReadConditions evaluates the conditions of GET, alone and together.
func TestReadConditions(t *testing.T) {
	s := newServer(t, Options{})
	s.expect(200, "PUT", "/bucket", "")
	s.expect(200, "PUT", "/bucket/k", "content", "Cache-Control", "no-cache")
	h := s.expect(200, "HEAD", "/bucket/k", "")
	etag, modified := h.Header.Get("ETag"), h.Header.Get("Last-Modified")
	at, err := http.ParseTime(modified)
	if err != nil {
		t.Fatal(err)
	}
	earlier, later := at.Add(-time.Second).Format(http.TimeFormat), at.Add(time.Second).Format(http.TimeFormat)
	for _, c := range []struct {
		status  int
		headers []string
	}{
		{200, []string{"If-Match", etag}},
		{200, []string{"If-Match", "*"}},
		{200, []string{"If-Match", `"x", ` + etag}},
		{200, []string{"If-Match", strings.Trim(etag, `"`)}},
		{412, []string{"If-Match", `"x"`}},
		{304, []string{"If-None-Match", etag}},
		{304, []string{"If-None-Match", "W/" + etag}},
		{304, []string{"If-None-Match", "*"}},
		{200, []string{"If-None-Match", `"x"`}},
		{304, []string{"If-Modified-Since", modified}},
		{304, []string{"If-Modified-Since", later}},
		{200, []string{"If-Modified-Since", earlier}},
		{200, []string{"If-Modified-Since", "yesterday"}},
		{200, []string{"If-Unmodified-Since", modified}},
		{412, []string{"If-Unmodified-Since", earlier}},
		{200, []string{"If-Match", etag, "If-Unmodified-Since", earlier}},
		{304, []string{"If-None-Match", etag, "If-Modified-Since", earlier}},
		{200, []string{"If-None-Match", `"x"`, "If-Modified-Since", later}},
		{304, []string{"If-Match", etag, "If-None-Match", etag}},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			a := s.expect(c.status, method, "/bucket/k", "", c.headers...)
			if a.Header.Get("ETag") != etag || a.Header.Get("Last-Modified") != modified {
				t.Errorf("%v: headers %v", c.headers, a.Header)
			}
			if c.status != 200 && method == "HEAD" && a.body != "" {
				t.Errorf("%v: %q", c.headers, a.body)
			}
		}
	}
}

// TestResponseOverrides: a signed URL may say how its answer is to be presented.
func TestResponseOverrides(t *testing.T) {
	s := newServer(t, Options{})
	s.expect(200, "PUT", "/bucket", "")
	s.expect(200, "PUT", "/bucket/k", "content", "Content-Type", "a/b", "Expires", "never")
	a := s.expect(200, "GET", "/bucket/k?response-content-type=c%2Fd&response-content-disposition=attachment&X-Amz-Signature=x&X-Amz-Expires=900", "")
	if a.Header.Get("Content-Type") != "c/d" || a.Header.Get("Content-Disposition") != "attachment" || a.Header.Get("Expires") != "never" {
		t.Errorf("%v", a.Header)
	}
}

// TestSignedURL: parameters of a URL signed for later use that stand for headers are taken as such.
func TestSignedURL(t *testing.T) {
	s := newServer(t, Options{})
	s.expect(200, "PUT", "/bucket", "")
	s.expect(200, "PUT", "/bucket/k?X-Amz-Algorithm=x&X-Amz-Date=x&X-Amz-Signature=x&x-amz-meta-a=b%20c&x-amz-tagging=d%3De&x-amz-checksum-crc32=AAAAAA%3D%3D&x-amz-sdk-checksum-algorithm=CRC32",
		"content", "X-Amz-Meta-F", "g")
	a := s.expect(200, "GET", "/bucket/k", "")
	if a.Header.Get("X-Amz-Meta-A") != "b c" || a.Header.Get("X-Amz-Meta-F") != "g" || a.Header.Get("X-Amz-Tagging-Count") != "1" || a.Header.Get("X-Amz-Signature") != "" {
		t.Errorf("%v", a.Header)
	}
	s.expect(501, "PUT", "/bucket/k?x-amz-object-lock-mode=GOVERNANCE", "content")
}

// TestMetadataCase: user metadata comes back in lower case on the wire, as from S3.
func TestMetadataCase(t *testing.T) {
	s := newServer(t, Options{})
	s.expect(200, "PUT", "/bucket", "")
	s.expect(200, "PUT", "/bucket/k", "content", "X-Amz-Meta-MiXed", "Value")
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /bucket/k HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	raw, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(raw), "\r\nx-amz-meta-mixed: Value\r\n") {
		t.Errorf("%q, %v", raw, err)
	}
}

// TestLengthLies: a request that announces more than it sends, however much, takes no memory for it
// and leaves nothing.
func TestLengthLies(t *testing.T) {
	s := newServer(t, Options{})
	s.expect(200, "PUT", "/bucket", "")
	for length, want := range map[string]string{
		"1000":                "IncompleteBody",
		"5368709120":          "IncompleteBody",
		"5368709121":          "EntityTooLarge",
		"9223372036854775807": "EntityTooLarge",
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "PUT /bucket/k HTTP/1.1\r\nHost: x\r\nContent-Length: %s\r\n\r\nshort", length)
		conn.(*net.TCPConn).CloseWrite()
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", length, err)
		}
		body, _ := io.ReadAll(resp.Body)
		if a := (answer{resp, string(body)}); a.code() != want {
			t.Errorf("%s: %s, want %s", length, a.body, want)
		}
		conn.Close()
	}
	s.expect(404, "GET", "/bucket/k", "")
}

// TestCrossOrigin: pages from this computer may use the service, others may not.
func TestCrossOrigin(t *testing.T) {
	s := newServer(t, Options{AllowedOrigins: []string{"https://app.example.org"}})
	s.expect(200, "PUT", "/bucket", "")
	for origin, allowed := range map[string]bool{
		"http://localhost:3000": true, "http://127.0.0.1:8080": true, "http://[::1]:3000": true, "https://x.localhost": true, "https://app.example.org": true,
		"https://evil.example.org": false, "http://localhost.evil.example.org": false, "null": false, "http://10.0.0.1": false, "::": false,
	} {
		preflight := s.do("OPTIONS", "/bucket/k", "", "Origin", origin, "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "x-amz-date,content-type")
		put := s.do("PUT", "/bucket/k", "content", "Origin", origin)
		get := s.do("GET", "/bucket", "", "Origin", origin)
		if allowed {
			if preflight.StatusCode != 200 || preflight.Header.Get("Access-Control-Allow-Headers") != "x-amz-date,content-type" || !strings.Contains(preflight.Header.Get("Access-Control-Allow-Methods"), "PUT") || put.StatusCode != 200 || get.StatusCode != 200 {
				t.Errorf("%s: %d %d %d, %v", origin, preflight.StatusCode, put.StatusCode, get.StatusCode, preflight.Header)
			}
		} else if preflight.StatusCode != 403 || put.StatusCode != 403 || put.code() != "AccessForbidden" {
			t.Errorf("%s: %d %d", origin, preflight.StatusCode, put.StatusCode)
		}
		want := ""
		if allowed {
			want = origin
		}
		for _, a := range []answer{preflight, put, get, s.do("GET", "/", "", "Origin", origin)} {
			if got := a.Header.Get("Access-Control-Allow-Origin"); got != want || a.Header.Get("Vary") != "Origin" {
				t.Errorf("%s: %s %s: Access-Control-Allow-Origin %q", origin, a.Request.Method, a.Request.URL, got)
			}
		}
	}
	if got := s.expect(200, "GET", "/", "").Header.Get("Access-Control-Allow-Origin"); got != "" {
		t.Errorf("without an origin: %q", got)
	}
	if a := newServer(t, Options{AllowedOrigins: []string{"*"}}).expect(200, "PUT", "/bucket", "", "Origin", "https://any.example.org"); a.Header.Get("Access-Control-Allow-Origin") != "https://any.example.org" {
		t.Errorf("%v", a.Header)
	}
}

// TestForm uploads by a browser's form.
func TestForm(t *testing.T) {
	s := newServer(t, Options{})
	s.expect(200, "PUT", "/bucket", "")
	post := func(file string, fields ...string) answer {
		t.Helper()
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		for i := 0; i < len(fields); i += 2 {
			w.WriteField(fields[i], fields[i+1])
		}
		part, err := w.CreateFormFile("file", "report ü.txt")
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(part, file)
		w.Close()
		return s.do("POST", "/bucket", b.String(), "Content-Type", w.FormDataContentType())
	}
	a := post("content", "key", "in/${filename}", "x-amz-meta-a", "b", "Content-Type", "text/x", "tagging", "<Tagging><TagSet><Tag><Key>k</Key><Value>v</Value></Tag></TagSet></Tagging>")
	if a.StatusCode != 204 || a.Header.Get("ETag") != quoted(plainETag("content")) {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	got := s.expect(200, "GET", "/bucket/in/"+url.PathEscape("report ü.txt"), "")
	if got.body != "content" || got.Header.Get("X-Amz-Meta-A") != "b" || got.Header.Get("Content-Type") != "text/x" || got.Header.Get("X-Amz-Tagging-Count") != "1" {
		t.Errorf("%q %v", got.body, got.Header)
	}
	if a = post("x", "key", "k", "success_action_status", "201"); a.StatusCode != 201 || !strings.Contains(a.body, "<Key>k</Key>") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if a = post("x", "key", "k", "success_action_status", "200"); a.StatusCode != 200 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if a = post("x", "key", "k", "success_action_redirect", "https://example.org/done?a=b"); a.StatusCode != 303 || a.Header.Get("Location") != "https://example.org/done?a=b&bucket=bucket&etag=%22"+plainETag("x")+"%22&key=k" {
		t.Errorf("%d %v", a.StatusCode, a.Header)
	}
	if a = post("x", "key", ""); a.StatusCode != 400 || a.code() != "UserKeyMustBeSpecified" {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if a = post("x", "key", "k", "x-amz-meta-a", "two\r\nlines: x"); a.StatusCode != 400 || a.code() != "InvalidArgument" {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if a = post("x", "key", "k", "x-amz-meta- bad", "x"); a.StatusCode != 400 || a.code() != "InvalidArgument" {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	// A file too large for memory goes through a temporary file, which must not stay.
	t.Setenv("TMPDIR", t.TempDir())
	if a = post(strings.Repeat("x", 25<<20), "key", "large"); a.StatusCode != 204 {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	s.restart()
}

// TestListEncoding: with encoding-type url, keys arrive whole that XML cannot carry.
func TestListEncoding(t *testing.T) {
	s := newServer(t, Options{})
	s.expect(200, "PUT", "/bucket", "")
	s.expect(200, "PUT", "/bucket/a%01b/c%20d%2Be", "")
	a := s.expect(200, "GET", "/bucket?list-type=2&encoding-type=url&prefix=a%01b/&delimiter=%20", "")
	for _, want := range []string{"<EncodingType>url</EncodingType>", "<Prefix>a%01b/c%20</Prefix>", "<Prefix>a%01b/</Prefix>", "<Delimiter>%20</Delimiter>", "<KeyCount>1</KeyCount>"} {
		if !strings.Contains(a.body, want) {
			t.Errorf("no %s in %s", want, a.body)
		}
	}
	if a = s.expect(200, "GET", "/bucket?encoding-type=url", ""); !strings.Contains(a.body, "<Key>a%01b/c%20d%2Be</Key>") || !strings.Contains(a.body, `<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">`) {
		t.Error(a.body)
	}
}

// TestOnChange: every change is reported, with what changed, and nothing else is.
func TestOnChange(t *testing.T) {
	var log []string
	s := newServer(t, Options{OnChange: func(bucket, key string) { log = append(log, bucket+"/"+key) }})
	expect := func(want ...string) {
		t.Helper()
		if strings.Join(log, " ") != strings.Join(want, " ") {
			t.Errorf("reported %q, want %q", log, want)
		}
		log = nil
	}
	s.expect(200, "PUT", "/bucket", "")
	expect("bucket/")
	s.expect(200, "PUT", "/bucket", "")
	s.expect(200, "PUT", "/bucket/a", "x")
	s.expect(412, "PUT", "/bucket/a", "x", "If-None-Match", "*")
	s.expect(200, "GET", "/bucket/a", "")
	s.expect(200, "GET", "/bucket?versions", "")
	expect("bucket/a")
	s.expect(200, "PUT", "/bucket/b", "", "X-Amz-Copy-Source", "bucket/a")
	expect("bucket/b")
	s.expect(200, "PUT", "/bucket/b?tagging", "<Tagging><TagSet/></Tagging>")
	expect("bucket/b")
	s.expect(204, "DELETE", "/bucket/none", "")
	s.expect(204, "DELETE", "/bucket/a?versionId=none", "")
	expect()
	s.expect(200, "POST", "/bucket?delete", "<Delete><Object><Key>a</Key></Object><Object><Key>none</Key></Object></Delete>")
	expect("bucket/a")
	s.expect(200, "PUT", "/bucket?versioning", "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>")
	s.expect(200, "PUT", "/bucket?versioning", "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>")
	expect("bucket/")
	s.expect(204, "DELETE", "/bucket/none", "")
	expect("bucket/none")
	var up struct{ UploadId string }
	if err := xml.Unmarshal([]byte(s.expect(200, "POST", "/bucket/p?uploads", "").body), &up); err != nil {
		t.Fatal(err)
	}
	s.expect(200, "PUT", "/bucket/p?partNumber=1&uploadId="+up.UploadId, "x")
	s.expect(204, "DELETE", "/bucket/p?uploadId="+up.UploadId, "")
	expect("bucket/p", "bucket/p", "bucket/p")
	s.expect(409, "DELETE", "/bucket", "")
	s.restart()
	expect()
}
