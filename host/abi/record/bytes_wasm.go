package record

import "unsafe"

// What bytes.go does, without a check: a kernel has made sure, once for each item, that what it reads of it
// lies in its slice. That it has is what the tests prove with the checks of bytes.go. Should it be wrong all
// the same, a guest reads its own memory and nothing else.

func byteAt(b []byte, i int) byte {
	return *(*byte)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(b)), i))
}

func wordAt(b []byte, i int) uint64 {
	return *(*uint64)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(b)), i))
}
