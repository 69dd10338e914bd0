//go:build !wasm

package jsonscan

import "encoding/binary"

// How the kernels (kernel.go) get at bytes: here with Go's checks of every index, as in any other code. All
// tests and fuzzing run it so, outside WebAssembly, and an index out of range is a panic there. In a guest
// the checks are what a kernel would mostly do, so bytes_wasm.go leaves them out.

func byteAt(b []byte, i int) byte       { return b[i] }
func pairAt(b []byte, i int) uint16     { return binary.LittleEndian.Uint16(b[i:]) }
func quadAt(b []byte, i int) uint32     { return binary.LittleEndian.Uint32(b[i:]) }
func wordAt(b []byte, i int) uint64     { return binary.LittleEndian.Uint64(b[i:]) }
func setByte(b []byte, i int, x byte)   { b[i] = x }
func setPair(b []byte, i int, x uint16) { binary.LittleEndian.PutUint16(b[i:], x) }
func setQuad(b []byte, i int, x uint32) { binary.LittleEndian.PutUint32(b[i:], x) }
func setWord(b []byte, i int, x uint64) { binary.LittleEndian.PutUint64(b[i:], x) }
