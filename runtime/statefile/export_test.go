package statefile

import "io"

// Forge puts an index under a right checksum behind front.
func Forge(front, index []byte) []byte {
	return append(append([]byte(nil), front...), ForgeAt(len(front), index)...)
}

// ForgeAt is what Forge puts behind so many bytes.
func ForgeAt(at int, index []byte) []byte {
	return append(append([]byte(nil), index...), makeTrailer(uint64(at), index)...)
}

// SetMergeCache bounds what a merge keeps of the deltas' chunks.
func SetMergeCache(r *RecordReader, bytes int) {
	if r.merge != nil {
		r.merge.cacheBytes = bytes
	}
}

// OpenAfter is Open with so many bytes of the index limit used up.
func OpenAfter(indexes int64, r io.ReaderAt, size int64, name string) (*File, error) {
	f := &File{r: r, name: name, info: Info{Size: size}, indexes: indexes}
	_, err := f.open()
	return f, err
}

// TailAfter is t with so many more bytes of the index limit used up.
func TailAfter(indexes int64, t Tail) Tail {
	t.indexes += indexes
	return t
}

// MergeCache is what a merge keeps of the deltas' chunks: by its own count, and counted anew.
func MergeCache(r *RecordReader) (counted, held int) {
	for _, c := range r.merge.cache {
		held += len(c.batch.Data)
	}
	return r.merge.cacheSize, held
}
