package modules_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/modules"
)

// streamRecord is a record of some 250 bytes and 13 items, like a cloud emulator's.
func streamRecord(dst []byte, r *rand.Rand, i int) []byte {
	dst = record.AppendRecord(dst)
	dst = record.AppendText(dst, "000000000000/eu-west-1")
	dst = record.AppendText(dst, fmt.Sprintf("stream-%08d", i))
	dst = record.AppendMap(dst, 5)
	dst = record.AppendText(dst, "arn")
	dst = record.AppendText(dst, fmt.Sprintf("arn:aws:kinesis:eu-west-1:000000000000:stream/stream-%08d", i))
	dst = record.AppendText(dst, "created")
	dst = record.AppendUint(dst, uint64(1_700_000_000+r.IntN(1_000_000)))
	dst = record.AppendText(dst, "active")
	dst = record.AppendBool(dst, r.IntN(2) == 0)
	dst = record.AppendText(dst, "shards")
	dst = record.AppendUint(dst, uint64(r.IntN(100)))
	dst = record.AppendText(dst, "blob")
	blob := make([]byte, 80)
	for j := range blob {
		blob[j] = byte(r.Uint32())
	}
	return record.AppendBytes(dst, blob)
}

func streamRecords(size int) (data []byte, count int) {
	r := rand.New(rand.NewPCG(1, 2))
	for len(data) < size {
		data = streamRecord(data, r, count)
		count++
	}
	return data, count
}

func BenchmarkRecords(b *testing.B) {
	data, count := streamRecords(20 << 20)
	b.Logf("%d records of %d bytes", count, len(data)/count)
	for _, op := range []struct {
		export  string
		native  bool
	}{{abi.ExportSave, true}, {abi.ExportLoad, false}, {abi.ExportInspect, false}} {
		b.Run(op.export, func(b *testing.B) {
			g := newGuest(b, modules.Records())
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				c := g.run(op.export, &call{input: data, native: true, discard: true})
				if !c.accepted() {
					b.Fatal(c)
				}
			}
		})
	}
}
