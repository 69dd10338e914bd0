package record_test

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// A serializer's side: write records, then read them back, without reflection.
func Example() {
	var b []byte
	for _, name := range []string{"orders", "refunds"} {
		b = record.AppendRecord(b)
		b = record.AppendText(b, "000000000000/eu-west-1")
		b = record.AppendText(b, name)
		b = record.AppendMap(b, 2)
		b = record.AppendText(b, "shards")
		b = record.AppendUint(b, 4)
		b = record.AppendText(b, "active")
		b = record.AppendBool(b, true)
	}

	d := record.NewPull(b)
	for d.Offset() < len(b) && d.Err() == nil {
		d.Array()
		partition, key := string(d.Text()), string(d.Text())
		for range d.Map() {
			switch string(d.Text()) {
			case "shards":
				fmt.Println(partition, key, d.Uint(), "shards")
			default:
				d.Skip()
			}
		}
	}
	if err := d.End(); err != nil {
		fmt.Println(err)
	}
	// Output:
	// 000000000000/eu-west-1 orders 4 shards
	// 000000000000/eu-west-1 refunds 4 shards
}

func ExampleScanner() {
	data := []byte("\x83\x61p\x61k\x01" + "\x83\x61p\x61l\x9f\xff")

	var s record.Scanner
	refs, err := s.Scan(data, nil)
	b := record.Batch{Data: data, Refs: refs}
	for i := range b.Len() {
		key, _ := b.Key(i)
		fmt.Printf("%s/%s = % x\n", b.Partition(i), key, b.Value(i))
	}
	var fe *record.FormatError
	if errors.As(err, &fe) {
		fmt.Println(fe.Offset, errors.Is(err, abi.ErrCorrupt), err)
	}
	// Output:
	// p/k = 01
	// 11 true corrupt record at offset 11: an indefinite length; records use definite ones only
}

func ExampleReader() {
	stream := strings.NewReader("\x83\x60\x61a\xf5" + "\x83\x60\x61b\xf4")

	r := record.NewReader(stream, 0)
	for {
		b, err := r.ReadBatch()
		if err == io.EOF {
			break
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		for i := range b.Len() {
			key, _ := b.Key(i)
			fmt.Printf("%s: %d bytes\n", key, len(b.Record(i)))
		}
	}
	// Output:
	// a: 5 bytes
	// b: 5 bytes
}
