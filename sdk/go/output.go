package torpor

import (
	"encoding/binary"
	"unsafe"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// outputBytes is how much an Output gathers before it hands it to the host.
const outputBytes = 64 << 10

// maxHeadBytes is the length of the longest head of a CBOR item.
const maxHeadBytes = 9

// Output is the output of one call: records, native state, or one CBOR map.
//
// Small writes gather in a buffer. Records leave it whole, many at a time; one that is longer than the
// buffer leaves in fragments, so that a value of any length can be written piece by piece. Methods
// return no errors: once the host has refused the output, further writes do nothing and the call
// fails; [Output.Write] tells it to who must know. Not safe for concurrent use.
type Output struct {
	host     Host
	buf      []byte // never moved, and n is no slice's length: so a write stores no pointer
	n        int    // bytes gathered in buf
	whole    int    // where in buf the record under way begins
	records  bool   // a record is under way, so that what is emitted needs framing
	fragment bool   // part of the record under way has been emitted
	err      error
}

func newOutput(h Host) *Output {
	return &Output{host: h, buf: make([]byte, outputBytes)}
}

// Record begins a record with a text key; the items written next are its value, which is one item. The
// record ends where the next one begins, or with the call.
func (out *Output) Record(partition, key string) {
	out.begin()
	out.Text(partition)
	out.Text(key)
}

// RecordBytes begins a record with a byte-string key.
func (out *Output) RecordBytes(partition string, key []byte) {
	out.begin()
	out.Text(partition)
	out.Bytes(key)
}

// RecordText is Record for texts that are bytes; they should be UTF-8.
func (out *Output) RecordText(partition, key []byte) {
	out.begin()
	out.TextBytes(partition)
	out.TextBytes(key)
}

// RecordLike begins a record with the partition and key of r.
func (out *Output) RecordLike(r *Record) {
	out.begin()
	out.Put(r.Encoded[1 : len(r.Encoded)-len(r.Value)])
}

func (out *Output) begin() {
	out.close()
	out.records = true
	out.n = len(record.AppendRecord(out.room()))
}

// Uint writes an unsigned integer.
func (out *Output) Uint(v uint64) { out.n = len(record.AppendUint(out.room(), v)) }

// Int writes a signed integer.
func (out *Output) Int(v int64) { out.n = len(record.AppendInt(out.room(), v)) }

// Text writes a text string; s should be UTF-8.
func (out *Output) Text(s string) {
	out.TextBytes(unsafe.Slice(unsafe.StringData(s), len(s))) //nolint:gosec // which reads it
}

// TextBytes writes a text string; s should be UTF-8.
func (out *Output) TextBytes(s []byte) {
	// The usual case by hand: copying by a call costs a guest some 30 ns, however few the bytes are.
	n := len(s)
	if n >= 24 || len(out.buf)-out.n < 24 {
		out.TextHead(n)
		put(out, s)
		return
	}
	b := out.buf[out.n : out.n+24]
	out.n += 1 + n
	b[0] = textHead | byte(n)
	b = b[1:]
	switch le := binary.LittleEndian; {
	case n >= 8:
		le.PutUint64(b, le.Uint64(s))
		if n > 16 {
			le.PutUint64(b[8:], le.Uint64(s[8:]))
		}
		le.PutUint64(b[n-8:], le.Uint64(s[n-8:]))
	case n >= 4:
		le.PutUint32(b, le.Uint32(s))
		le.PutUint32(b[n-4:], le.Uint32(s[n-4:]))
	default:
		for i := 0; i < n; i++ { // copy would be a call
			b[i] = s[i]
		}
	}
}

// textHead is major type 3 as the top three bits of a head (RFC 8949, section 3.1).
const textHead = 3 << 5

// Bytes writes a byte string.
func (out *Output) Bytes(b []byte) {
	out.BytesHead(len(b))
	put(out, b)
}

// TextHead writes the head of a text string of n bytes, which are to be written next, in as many
// pieces as there are.
func (out *Output) TextHead(n int) { out.n = len(record.AppendTextHead(out.room(), n)) }

// BytesHead writes the head of a byte string of n bytes, which are to be written next, in as many
// pieces as there are.
func (out *Output) BytesHead(n int) { out.n = len(record.AppendBytesHead(out.room(), n)) }

// Array writes the head of an array of n items, which are to be written next.
func (out *Output) Array(n int) { out.n = len(record.AppendArray(out.room(), n)) }

// Map writes the head of a map of n pairs, which are to be written next.
func (out *Output) Map(n int) { out.n = len(record.AppendMap(out.room(), n)) }

// Tag writes a tag; its content is to be written next.
func (out *Output) Tag(tag uint64) { out.n = len(record.AppendTag(out.room(), tag)) }

// Bool writes true or false.
func (out *Output) Bool(v bool) { out.n = len(record.AppendBool(out.room(), v)) }

// Null writes null.
func (out *Output) Null() { out.n = len(record.AppendNull(out.room())) }

// Float writes a float, in eight bytes.
func (out *Output) Float(v float64) { out.n = len(record.AppendFloat(out.room(), v)) }

// Put writes bytes as they are: native state, encoded items, or the bytes a head has announced.
func (out *Output) Put(p []byte) {
	if len(p) <= len(out.buf)-out.n {
		if len(p) > 0 && &p[0] != &out.buf[out.n] { // else it is there: AvailableBuffer
			copy(out.buf[out.n:], p)
		}
		out.n += len(p)
		return
	}
	put(out, p)
}

// PutString is Put for a string.
func (out *Output) PutString(s string) {
	if len(s) <= len(out.buf)-out.n {
		out.n += copy(out.buf[out.n:], s)
		return
	}
	put(out, s)
}

// PutByte is Put for one byte.
func (out *Output) PutByte(c byte) {
	if out.n == len(out.buf) {
		out.makeRoom()
	}
	out.buf[out.n] = c
	out.n++
}

// Write is Put as io.Writer has it.
func (out *Output) Write(p []byte) (int, error) {
	put(out, p)
	if out.err != nil {
		return 0, out.err
	}
	return len(p), nil
}

// AvailableBuffer is an empty slice with room for [AvailableBytes] or more, to be appended to (by package
// strconv, or the Append functions of package record) and handed to Put at once. What fits is not copied
// again.
func (out *Output) AvailableBuffer() []byte {
	for len(out.buf)-out.n < min(AvailableBytes, len(out.buf)) {
		out.makeRoom()
	}
	return out.buf[out.n:out.n]
}

// AvailableBytes is how much room there is at least in what [Output.AvailableBuffer] gives out.
const AvailableBytes = 1 << 10

func put[T string | []byte](out *Output, s T) {
	for {
		n := copy(out.buf[out.n:], s)
		out.n += n
		if s = s[n:]; len(s) == 0 {
			return
		}
		out.makeRoom()
	}
}

// room is what has been gathered, with room for the head of an item, or an item that is no longer.
func (out *Output) room() []byte {
	for len(out.buf)-out.n < maxHeadBytes {
		out.makeRoom()
	}
	return out.buf[:out.n]
}

// makeRoom makes room in the buffer for bytes that are about to be written.
func (out *Output) makeRoom() {
	switch {
	case !out.records:
		out.emit(out.buf[:out.n], false)
		out.n = 0
	case out.whole > 0:
		out.emit(out.buf[:out.whole], false)
		out.n = copy(out.buf, out.buf[out.whole:out.n])
		out.whole = 0
	default:
		out.fragment = true
		out.emit(out.buf[:out.n], true)
		out.n = 0
	}
}

// close ends the record under way, if there is one.
func (out *Output) close() {
	if out.fragment { // its last fragment must go alone
		out.fragment = false
		out.emit(out.buf[:out.n], false)
		out.n = 0
	}
	out.whole = out.n
}

// finish ends the record under way and hands over all that is gathered.
func (out *Output) finish() error {
	out.close()
	if out.n > 0 {
		out.emit(out.buf[:out.n], false)
		out.n, out.whole = 0, 0
	}
	return out.err
}

func (out *Output) emit(p []byte, more bool) {
	if out.err == nil && out.host.Emit(p, more) != abi.EmitOK {
		out.err = &Error{Code: CodeInternal, Msg: "the host refused the output"}
	}
}
