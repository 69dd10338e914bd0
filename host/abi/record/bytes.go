//go:build !wasm

package record

import "encoding/binary"

// How kernels get at bytes: here with Go's checks of every index, so that the tests see any that is out of
// range. In a guest, where the checks would take longer than the work, bytes_wasm.go leaves them out.

func byteAt(b []byte, i int) byte   { return b[i] }
func wordAt(b []byte, i int) uint64 { return binary.LittleEndian.Uint64(b[i:]) }
