package record_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/torpor-run/torpor/host/abi/record"
)

// streamRecords is n records of some 230 bytes and 13 items each, like a cloud emulator's.
func streamRecords(n int) []byte {
	const partition = "000000000000/eu-west-1"
	blob := bytes.Repeat([]byte{0xa5}, 80)
	var b []byte
	for i := range n {
		name := fmt.Sprintf("stream-%08d", i)
		b = record.AppendRecord(b)
		b = record.AppendText(b, partition)
		b = record.AppendText(b, name)
		b = record.AppendMap(b, 5)
		b = record.AppendText(b, "arn")
		b = record.AppendText(b, "arn:aws:kinesis:eu-west-1:000000000000:stream/"+name)
		b = record.AppendText(b, "created")
		b = record.AppendUint(b, 1_700_000_000+uint64(i))
		b = record.AppendText(b, "active")
		b = record.AppendBool(b, i%3 > 0)
		b = record.AppendText(b, "shards")
		b = record.AppendUint(b, uint64(i)%200)
		b = record.AppendText(b, "cursor")
		b = record.AppendBytes(b, blob)
	}
	return b
}

const benchRecords = 80_000

func BenchmarkScanner(b *testing.B) {
	data := streamRecords(benchRecords)
	b.SetBytes(int64(len(data)))
	var s record.Scanner
	var refs []record.Ref
	for b.Loop() {
		var err error
		if refs, err = s.Scan(data, refs[:0]); err != nil || len(refs) != benchRecords {
			b.Fatal(len(refs), err)
		}
	}
}

func BenchmarkReader(b *testing.B) {
	data := streamRecords(benchRecords)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		r := record.NewReader(bytes.NewReader(data), 0)
		n := 0
		for {
			batch, err := r.ReadBatch()
			if err == io.EOF {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
			n += batch.Len()
		}
		if n != benchRecords {
			b.Fatal(n)
		}
	}
}

func BenchmarkPull(b *testing.B) {
	data := streamRecords(benchRecords)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		d := record.NewPull(data)
		for d.Offset() < len(data) && d.Err() == nil {
			d.Array()
			d.Text()
			d.Text()
			for range d.Map() {
				switch key := d.Text(); {
				case len(key) == 3:
					d.Text()
				case key[0] == 'a':
					d.Bool()
				case key[5] == 'r':
					d.Bytes()
				default:
					d.Uint()
				}
			}
		}
		if err := d.End(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	b.SetBytes(int64(len(streamRecords(1))))
	blob := bytes.Repeat([]byte{0xa5}, 80)
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = record.AppendRecord(dst[:0])
		dst = record.AppendText(dst, "000000000000/eu-west-1")
		dst = record.AppendText(dst, "stream-00000000")
		dst = record.AppendMap(dst, 5)
		dst = record.AppendText(dst, "arn")
		dst = record.AppendText(dst, "arn:aws:kinesis:eu-west-1:000000000000:stream/stream-00000000")
		dst = record.AppendText(dst, "created")
		dst = record.AppendUint(dst, 1_700_000_000)
		dst = record.AppendText(dst, "active")
		dst = record.AppendBool(dst, true)
		dst = record.AppendText(dst, "shards")
		dst = record.AppendUint(dst, 100)
		dst = record.AppendText(dst, "cursor")
		dst = record.AppendBytes(dst, blob)
	}
}
