package torpor_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	torpor "github.com/torpor-run/torpor/sdk/go"
	"github.com/torpor-run/torpor/sdk/go/torportest"
)

// counters keeps a binary file of counters: for each a name of eight bytes and a number of eight.
type counters struct{}

func (counters) Describe() torpor.Descriptor {
	return torpor.Descriptor{Name: "counters", Version: "1.0.0", Schema: 1, Media: "application/octet-stream", Canonical: true}
}

func (counters) Save(_ *torpor.Call, native *torpor.Input, records *torpor.Output) error {
	var b [16]byte
	for {
		_, err := io.ReadFull(native, b[:])
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err // io.ErrUnexpectedEOF: the file is cut, which is CodeCorrupt
		}
		records.RecordBytes("", b[:8])
		records.Uint(binary.BigEndian.Uint64(b[8:]))
	}
}

func (counters) Load(_ *torpor.Call, records *torpor.Input, native *torpor.Output) error {
	for {
		r, err := records.Record()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(r.Key) != 8 {
			return r.Error(torpor.CodeCorrupt, "a name has eight bytes")
		}
		n := r.Items().Uint()
		if err := r.End(); err != nil {
			return err
		}
		native.Put(r.Key)
		native.Put(binary.BigEndian.AppendUint64(native.AvailableBuffer(), n))
	}
}

// A serializer, saved and loaded in plain Go. In a module's program an init function would hand it to
// Export.
func Example() {
	native := []byte("requests\x00\x00\x00\x00\x00\x00\x01\x2cfailures\x00\x00\x00\x00\x00\x00\x00\x07")
	records, err := torportest.Save(counters{}, native)
	fmt.Printf("%x %v\n", records, err)
	back, err := torportest.Load(counters{}, records)
	fmt.Println(bytes.Equal(back, native), err)

	_, err = torportest.Save(counters{}, native[:20])
	fmt.Println(errors.Is(err, abi.ErrCorrupt), err)
	// Output:
	// 836048726571756573747319012c8360486661696c7572657307 <nil>
	// true <nil>
	// true unexpected EOF
}

// Errors about a record say which, and where in it.
func ExampleRecord_End() {
	b := record.AppendText(record.AppendText(record.AppendRecord(nil), "000000000000/eu-west-1"), "requests")
	b = record.AppendText(b, "many")
	_, err := torportest.Load(counters{}, b)
	fmt.Println(err)
	// Output: an unsigned integer expected, found 0x64 at record 1, key "requests" in "000000000000/eu-west-1" (offset 33)
}

// A value of any length is written piece by piece: only its length must be known.
func ExampleOutput_BytesHead() {
	s := copies{}
	records, err := torportest.Save(s, bytes.Repeat([]byte("page"), 1<<18))
	fmt.Println(len(records), err)
	// Output: 1048589 <nil>
}

type copies struct{ counters }

func (copies) Save(_ *torpor.Call, native *torpor.Input, records *torpor.Output) error {
	records.Record("", "pages")
	records.BytesHead(1 << 20)
	_, err := io.Copy(records, native)
	return err
}
