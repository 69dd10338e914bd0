package s3

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"github.com/johannesboyne/gofakes3"
)

// Limits of the aws-chunked encoding.
const (
	maxChunkLine   = 4 << 10 // bytes of a chunk's or trailer's line
	maxChunkTrails = 32      // trailer lines
)

// chunkedReader decodes aws-chunked content: chunks, each after a line with its length in hexadecimal
// and perhaps a signature, which is not checked, and in the end perhaps trailers.
//
// Source: Amazon S3 API reference, "Signature Calculations for the Authorization Header: Transferring
// Payload in Multiple Chunks" and "Checking object integrity", trailing checksums. gofakes3 decodes
// only the oldest form of it, and only in PutObject.
type chunkedReader struct {
	r       *bufio.Reader
	trailer http.Header // filled when the end is read
	left    int64       // of the chunk begun
	begun   bool        // a chunk, whose line end is still to come
	err     error
}

func newChunkedReader(r io.Reader, trailer http.Header) *chunkedReader {
	return &chunkedReader{r: bufio.NewReaderSize(r, maxChunkLine), trailer: trailer}
}

// Read returns decoded bytes; io.EOF comes after the trailer has been read.
func (c *chunkedReader) Read(p []byte) (int, error) {
	for c.left == 0 && c.err == nil {
		c.err = c.next()
	}
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	c.err = err
	return n, err
}

// next reads up to the next chunk's content, or to the end.
func (c *chunkedReader) next() error {
	if c.begun {
		if line, err := c.line(); err != nil {
			return err
		} else if len(line) > 0 {
			return malformedChunk("a chunk is longer than its length says")
		}
	}
	line, err := c.line()
	if err != nil {
		return err
	}
	digits, _, _ := bytes.Cut(line, []byte(";"))
	size, err := strconv.ParseUint(string(bytes.TrimSpace(digits)), 16, 63)
	if err != nil {
		return malformedChunk("a chunk begins with no length")
	}
	c.begun = true
	c.left = int64(size)
	if size > 0 {
		return nil
	}
	return c.trailers()
}

// trailers reads what follows the last chunk: lines like headers up to an empty one. Clients differ
// in whether that one comes at all.
func (c *chunkedReader) trailers() error {
	for range maxChunkTrails {
		line, err := c.line()
		if errors.Is(err, io.ErrUnexpectedEOF) || err == nil && len(line) == 0 {
			return io.EOF
		}
		if err != nil {
			return err
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			return malformedChunk("a trailer has no colon")
		}
		c.trailer.Set(textproto.CanonicalMIMEHeaderKey(string(bytes.TrimSpace(name))), string(bytes.TrimSpace(value)))
	}
	return malformedChunk("more than " + strconv.Itoa(maxChunkTrails) + " trailers")
}

// line reads a line without its end. The end of the input is io.ErrUnexpectedEOF.
func (c *chunkedReader) line() ([]byte, error) {
	line, err := c.r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, malformedChunk("a line is longer than " + strconv.Itoa(maxChunkLine) + " bytes")
	case errors.Is(err, io.EOF) && len(bytes.TrimSpace(line)) > 0:
		// A trailer that is cut off would be no trailer: say so rather than skip a checksum.
		return nil, malformedChunk("the body ends inside a line")
	case errors.Is(err, io.EOF):
		return nil, io.ErrUnexpectedEOF
	case err != nil:
		return nil, err
	}
	return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r")), nil
}

func malformedChunk(reason string) error {
	return fault(gofakes3.ErrIncompleteBody, "", "The aws-chunked body is malformed: "+reason)
}

// decodeChunked makes a request with an aws-chunked body one with the plain body, for everything that
// comes after. It returns where the trailers will be once the body has been read to its end.
func decodeChunked(r *http.Request) (trailer http.Header, err error) {
	trailer = http.Header{}
	length := r.Header.Get("X-Amz-Decoded-Content-Length")
	encoding, chunked := contentEncoding(r.Header)
	if chunked {
		r.Header.Set("Content-Encoding", encoding)
	}
	if !strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING-") && (!chunked || length == "") {
		return trailer, nil
	}
	size, err := strconv.ParseInt(length, 10, 64)
	if err != nil || size < 0 {
		return nil, fault(gofakes3.ErrMissingContentLength, "", "You must provide the x-amz-decoded-content-length header with an aws-chunked body.")
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{newChunkedReader(r.Body, trailer), r.Body}
	r.ContentLength = size
	r.TransferEncoding = nil
	r.Header.Set("Content-Length", strconv.FormatInt(size, 10))
	r.Header.Del("X-Amz-Content-Sha256") // gofakes3 would decode once more
	return trailer, nil
}

// contentEncoding is what Content-Encoding says beside aws-chunked, which is an encoding of the
// request and not of the object.
func contentEncoding(header http.Header) (rest string, chunked bool) {
	var kept []string
	for _, value := range header.Values("Content-Encoding") {
		for token := range strings.SplitSeq(value, ",") {
			if token = strings.TrimSpace(token); strings.EqualFold(token, "aws-chunked") {
				chunked = true
			} else if token != "" {
				kept = append(kept, token)
			}
		}
	}
	return strings.Join(kept, ","), chunked
}
