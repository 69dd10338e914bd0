package torpor

import (
	"bytes"
	"errors"
	"io"
	"strconv"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// inputBytes is how long an Input's buffer is to begin with.
const inputBytes = 64 << 10

// DefaultWindowBytes is how long the window of an [Input] may become unless [Input.Limit] says
// otherwise: as long as a record may be unless a host is configured otherwise.
const DefaultWindowBytes = record.DefaultMaxBytes

// Input is the input of one call: native state, or records.
//
// It holds a window of the input: the bytes read and not consumed. [Input.Record], [Input.Until] and
// [Input.Read] take one piece after another; who wants to look first uses [Input.Bytes],
// [Input.Consume] and [Input.Fill]. They may be mixed. What a method gives out is valid until the next
// method that is called. After an error other than io.EOF the input is spent and gives that error
// again. Not safe for concurrent use.
type Input struct {
	host   Host
	buf    []byte
	start  int // the window is buf[start:end]
	end    int
	limit  int
	offset uint64 // of start, in the input
	ended  bool
	more   bool // the record at the window's end goes on
	err    error

	scan  record.Scanner
	batch record.Batch // records found in the window, Data beginning at buf[base]
	base  int
	next  int // of batch
	count uint64
	rec   Record
}

func newInput(h Host) *Input {
	return &Input{host: h, buf: make([]byte, inputBytes), limit: DefaultWindowBytes, scan: record.Scanner{MaxBytes: record.MaxMaxBytes}}
}

// Limit sets how long the window may become, and with it what Record and Until give out, in bytes.
// Less than 64 KiB has no effect. It bounds the guest's memory against input that never ends a line.
func (in *Input) Limit(n int) { in.limit = n }

// Offset is the offset in the input of the window's first byte: how much has been consumed.
func (in *Input) Offset() uint64 { return in.offset }

// Bytes is the window.
func (in *Input) Bytes() []byte { return in.buf[in.start:in.end:in.end] }

// Consume gives up the first n bytes of the window, which must be there.
func (in *Input) Consume(n int) {
	if n < 0 || n > in.end-in.start {
		panic("torpor.Input.Consume: more than the window")
	}
	in.start += n
	in.offset += uint64(n)
}

// Fill adds at least one byte to the window, or returns io.EOF if the input has ended. A window that
// has reached its limit is an Error of [CodeTooLarge].
func (in *Input) Fill() error {
	if in.err != nil {
		return in.err
	}
	if in.ended {
		return io.EOF
	}
	in.batch.Refs, in.next = in.batch.Refs[:0], 0 // they say where bytes are that now move
	if in.start > 0 {
		in.end = copy(in.buf, in.buf[in.start:in.end])
		in.start = 0
	}
	if in.end == len(in.buf) {
		if in.end >= in.limit {
			in.err = &Error{Code: CodeTooLarge, Offset: in.offset,
				Msg: "longer than the limit of " + strconv.Itoa(in.limit) + " bytes on what this serializer reads in one piece"}
			return in.err
		}
		grown := make([]byte, min(2*len(in.buf), in.limit))
		copy(grown, in.buf)
		in.buf = grown
	}
	got := in.host.Next(in.buf[in.end:])
	n := int(uint32(got))
	in.ended, in.more = got&abi.NextEnd != 0, got&abi.NextMore != 0
	if got < 0 || n > len(in.buf)-in.end || n == 0 && !in.ended {
		in.err = &Error{Code: CodeInternal, Msg: "the input cannot be read", Offset: in.offset + uint64(in.end)}
		return in.err
	}
	in.end += n
	if n == 0 {
		return io.EOF
	}
	return nil
}

// Read is io.Reader's.
func (in *Input) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if in.start == in.end {
		if err := in.Fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, in.Bytes())
	in.Consume(n)
	return n, nil
}

// Until gives the next bytes up to and including stop; the last ones of the input may lack it. At the
// end of the input the error is io.EOF.
func (in *Input) Until(stop byte) ([]byte, error) {
	searched := 0
	for {
		w := in.Bytes()
		n := bytes.IndexByte(w[searched:], stop) + 1
		if n > 0 {
			n += searched
		} else {
			searched = len(w)
			err := in.Fill()
			if err == nil {
				continue
			}
			if w = in.Bytes(); !errors.Is(err, io.EOF) || len(w) == 0 {
				return nil, err
			}
			n = len(w)
		}
		in.Consume(n)
		return w[:n:n], nil
	}
}

// Record gives the next record, checked by the rules of ABI.md. At the end of the input the error is
// io.EOF; bytes that are no record are an Error of [CodeCorrupt] that says where.
func (in *Input) Record() (*Record, error) {
	if in.next == len(in.batch.Refs) || in.base+in.batch.Refs[in.next].Start != in.start {
		if err := in.find(); err != nil {
			return nil, err
		}
	}
	i := in.next
	in.next++
	in.count++
	r := &in.rec
	r.number, r.Offset = in.count, in.offset
	ref, b := &in.batch.Refs[i], in.batch.Data
	r.Encoded, r.Value = b[ref.Start:ref.End], b[ref.Value:ref.End]
	if key := b[ref.Key:ref.Value]; b[ref.Partition]&0x1f < 24 && key[0]&0x1f < 24 { // the usual case by hand
		r.Partition = b[ref.Partition+1 : ref.Key]
		r.Key, r.TextKey = key[1:], key[0] >= textHead
	} else {
		r.Partition = in.batch.Partition(i)
		r.Key, r.TextKey = in.batch.Key(i)
	}
	in.start += len(r.Encoded)
	in.offset += uint64(len(r.Encoded))
	return r, nil
}

// find fills in.batch with the records at the beginning of the window, of which there is then at least
// one.
func (in *Input) find() error {
	// A record that is not whole yet is looked at again only when twice as much is there, so that
	// neither small pieces nor a long record make this quadratic.
	looked, look := 0, 1
	for {
		if w := in.Bytes(); len(w) > looked && (in.ended || len(w) >= look && !in.more) {
			refs, _, err := in.scan.ScanPrefix(w, in.batch.Refs[:0])
			in.batch, in.base, in.next = record.Batch{Data: w, Refs: refs}, in.start, 0
			if len(refs) > 0 { // what is wrong behind them is found when they have been read
				return nil
			}
			var fe *record.FormatError
			if errors.As(err, &fe) {
				in.err = &Error{Code: asError(err).Code, Msg: fe.Reason, Path: in.path(), Offset: in.offset + uint64(fe.Offset)}
				return in.err
			}
			looked, look = len(w), min(2*len(w), max(in.limit, len(in.buf)))
		}
		err := in.Fill()
		switch left := in.end - in.start; {
		case err == nil:
		case errors.Is(err, io.EOF) && left > looked:
		case errors.Is(err, io.EOF) && left > 0:
			in.err = &Error{Code: CodeCorrupt, Msg: "the input ends inside a record", Path: in.path(), Offset: in.offset + uint64(left)}
			return in.err
		default:
			return err
		}
	}
}

func (in *Input) path() string { return "record " + strconv.FormatUint(in.count+1, 10) }

// Record is one record of an [Input]. All of it shares the input's memory.
type Record struct {
	Partition []byte // UTF-8
	Key       []byte
	TextKey   bool   // Key is a text string, not a byte string
	Value     []byte // one encoded item
	Encoded   []byte // the whole record
	Offset    uint64 // of the record in the call's input

	number uint64
	pull   record.Pull
}

// Items begins to read the value from its start. Read all of it, then ask [Record.End] once whether
// all went well.
func (r *Record) Items() *record.Pull {
	r.pull.Reset(r.Value)
	return &r.pull
}

// End says what was wrong with the value that was read by [Record.Items], or that some of it was not
// read: an [Error] that names the record and the byte, or nil.
func (r *Record) End() error {
	err := r.pull.End()
	if err == nil {
		return nil
	}
	return r.ValueError(err)
}

// ValueError makes an error about this record of one about its value: a *record.FormatError or an [Error],
// with an offset in the value.
func (r *Record) ValueError(err error) *Error {
	own := asError(err)
	e := r.Error(own.Code, own.Msg)
	e.Offset += uint64(len(r.Encoded) - len(r.Value))
	var fe *record.FormatError
	if errors.As(err, &fe) {
		e.Msg = fe.Reason
		e.Offset += uint64(fe.Offset)
	} else {
		e.Offset += own.Offset
	}
	return e
}

// maxPathKeyBytes is how much of a key or partition is told in a path.
const maxPathKeyBytes = 100

// Error makes an error about this record.
func (r *Record) Error(code Code, msg string) *Error {
	path := "record " + strconv.FormatUint(r.number, 10) + ", key " + quote(r.Key)
	if len(r.Partition) > 0 {
		path += " in " + quote(r.Partition)
	}
	return &Error{Code: code, Msg: msg, Path: path, Offset: r.Offset}
}

func quote(b []byte) string {
	if len(b) > maxPathKeyBytes {
		return strconv.Quote(string(b[:maxPathKeyBytes])) + "..."
	}
	return strconv.Quote(string(b))
}
