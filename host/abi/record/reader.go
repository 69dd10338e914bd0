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

// ReadBatch returns the next records. Those before a fault are given out before its error, whatever
// pieces the stream comes in. Errors that wrap abi.ErrCorrupt or abi.ErrTooLarge are a *[FormatError]
// with the offset in the stream; those of the stream come as they are.
func (r *Reader) ReadBatch() (*Batch, error) {
	if r.given > 0 {
		r.kept = copy(r.buf, r.buf[r.given:r.kept])
		r.given = 0
	}
	for r.err == nil {
		if r.kept == len(r.buf) {
			// The beginning of one record fills the buffer. The scan holds it against the limit each
			// time it has doubled.
			r.buf = append(r.buf, make([]byte, len(r.buf))...)
		}
		n, err := r.r.Read(r.buf[r.kept:])
		r.kept += n
		if err == nil && r.kept < r.need {
			continue
		}
		refs, end, serr := r.scan.ScanPrefix(r.buf[:r.kept], r.batch.Refs[:0])
		var fe *FormatError
		switch {
		case errors.As(serr, &fe):
			fe.Offset += int(r.off)
			r.err = fe
		case err == io.EOF && end < r.kept:
			r.err = corrupt(int(r.off)+r.kept, "the input ends inside a record")
		default:
			r.err = err // io.EOF itself is the end; wrapped, it is a failure like any other
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
