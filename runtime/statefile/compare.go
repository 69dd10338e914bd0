package statefile

import (
	"crypto/sha256"
	"slices"
)

// Differing gives readers of those records that a and b may not both have, in file order, and how many records they have
// both for certain: those of the chunks that both hold, which are not read. Where one of the files has deltas that is none.
func Differing(a, b *File) (inA, inB *RecordReader, both uint64) {
	inA, inB = a.Records(), b.Records()
	if inA.merge != nil || inB.merge != nil {
		return inA, inB, 0
	}
	type chunk struct {
		partition string
		digest    [sha256.Size]byte
	}
	name := func(c placed) chunk { return chunk{c.partition, [sha256.Size]byte(c.SHA256)} }
	of := map[chunk]int{}
	for _, c := range inA.chunks {
		of[name(c)]++
	}
	shared := map[chunk]int{}
	inB.chunks = slices.DeleteFunc(inB.chunks, func(c placed) bool {
		if of[name(c)] == 0 {
			return false
		}
		of[name(c)]--
		shared[name(c)]++
		both += c.Records
		return true
	})
	inA.chunks = slices.DeleteFunc(inA.chunks, func(c placed) bool {
		if shared[name(c)] == 0 {
			return false
		}
		shared[name(c)]--
		return true
	})
	return inA, inB, both
}
