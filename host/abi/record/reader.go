package record

import (
	"errors"
	"io"
)

// readBytes is how much a [Reader] asks for at a time: the size of a chunk.
const readBytes = 64 << 10

// Reader cuts a byte stream into batches of whole, checked records. It implements [Source]; it is
// not safe for concurrent use. Memory follows the largest record.
type Reader struct {
	r     io.Reader
	scan  Scanner
	buf   []byte
	kept  int // bytes at the front of buf not yet given out
	given int // bytes of buf in the batch last returned
	need  int // scan again once kept reaches it
	off   int64
	batch Batch
	err   error
}

// NewReader reads r to its end. maxBytes bounds one record; 0 means [DefaultMaxBytes].
func NewReader(r io.Reader, maxBytes int) *Reader {
	return &Reader{r: r, scan: Scanner{MaxBytes: maxBytes}, buf: make([]byte, 2*readBytes), need: readBytes}
}

// ReadBatch returns the next records. Errors that wrap abi.ErrCorrupt carry the offset in the stream.
func (r *Reader) ReadBatch() (*Batch, error) {
	if r.given > 0 {
		r.kept = copy(r.buf, r.buf[r.given:r.kept])
		r.given = 0
	}
	for r.err == nil {
		if r.kept == len(r.buf) {
			// One record fills the buffer; ScanPrefix has already held it against the limit.
			r.buf = append(r.buf, make([]byte, len(r.buf))...)
		}
		n, err := r.r.Read(r.buf[r.kept:])
		r.kept += n
		if n == 0 && err == nil {
			continue
		}
		if err == nil && r.kept < r.need {
			continue
		}
		if err != nil && !errors.Is(err, io.EOF) {
			r.err = err
			break
		}
		refs, end, serr := r.scan.ScanPrefix(r.buf[:r.kept], r.batch.Refs[:0])
		if serr == nil && err != nil && end < r.kept {
			serr = corrupt(r.kept, "the input ends inside a record")
		}
		if serr != nil {
			var fe *FormatError
			if errors.As(serr, &fe) {
				fe.Offset += int(r.off)
			}
			r.err = serr
			break
		}
		if err != nil {
			r.err = io.EOF
		}
		// A record that is not whole yet is scanned again only when twice as much is there, so that
		// neither single-byte reads nor a record of many megabytes makes this quadratic.
		r.need = max(readBytes, 2*(r.kept-end))
		if len(refs) > 0 {
			r.need = readBytes
			r.batch = Batch{Data: r.buf[:end], Refs: refs}
			r.given = end
			r.off += int64(end)
			return &r.batch, nil
		}
	}
	return nil, r.err
}
