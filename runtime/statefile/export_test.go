package statefile

// Forge puts an index under a right checksum behind front.
func Forge(front, index []byte) []byte {
	out := append(append([]byte(nil), front...), index...)
	return append(out, makeTrailer(uint64(len(front)), index)...)
}
