//go:build linux && (amd64 || arm64)

package host

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"unsafe"

	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sys/unix"
)

// allocator gives instances memory that is mapped for them alone, outside Go's heap: it grows without
// being copied, and is gone from the process when the instance is. made is told of it.
func allocator(made func(*linearMemory)) experimental.MemoryAllocator {
	return experimental.MemoryAllocatorFunc(func(_, most uint64) experimental.LinearMemory {
		m := &linearMemory{}
		if most > 0 && most <= math.MaxInt {
			// Addresses only; what is used of them comes with Reallocate. Where that fails, it gives nil.
			m.reserved, _ = unix.Mmap(-1, 0, int(most), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
		}
		made(m)
		return m
	})
}

// linearMemory is the memory of one instance. It never moves.
type linearMemory struct {
	reserved []byte
	usable   int
	shares   *backing // whose pages it begins with; nil for none
}

// Reallocate is experimental.LinearMemory's.
func (m *linearMemory) Reallocate(size uint64) []byte {
	if size > uint64(len(m.reserved)) {
		return nil
	}
	if int(size) > m.usable {
		if err := unix.Mprotect(m.reserved[m.usable:size], unix.PROT_READ|unix.PROT_WRITE); err != nil {
			return nil
		}
		m.usable = int(size)
	}
	return m.reserved[:size:size]
}

// Free is experimental.LinearMemory's.
func (m *linearMemory) Free() {
	if m != nil && m.reserved != nil {
		_ = unix.Munmap(m.reserved)
		m.reserved, m.usable = nil, 0
	}
}

// bring makes the first length bytes, which must be all that is usable, those of b.
func (m *linearMemory) bring(b *backing, length int) bool {
	if length == 0 {
		return true
	}
	if m.usable != length {
		return false
	}
	if m.shares == b {
		return unix.Madvise(m.reserved[:length], unix.MADV_DONTNEED) == nil
	}
	at := unsafe.Pointer(unsafe.SliceData(m.reserved)) //nolint:gosec // the address of memory that is this mapping's own
	if _, err := unix.MmapPtr(int(b.file.Fd()), 0, at, uintptr(length), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED|unix.MAP_NORESERVE); err != nil {
		return m.copyOf(b, length)
	}
	m.shares = b
	return true
}

// copyOf fills the first length bytes with those of b, where pages cannot be shared.
func (m *linearMemory) copyOf(b *backing, length int) bool {
	at := unsafe.Pointer(unsafe.SliceData(m.reserved)) //nolint:gosec // as above
	// A mapping that failed may have taken away what was there.
	_, err := unix.MmapPtr(-1, 0, at, uintptr(length), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return false
	}
	n, err := b.file.ReadAt(m.reserved[:length], 0)
	return n == length && err == nil
}

// backing is an image that memories can share.
type backing struct{ file *os.File }

// newBacking keeps content in a file that has no name. It gives nil where the system has none.
func newBacking(content []byte) (*backing, error) {
	fd, err := unix.MemfdCreate("torpor-module", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, nil //nolint:nilerr // images are copied then
	}
	f := os.NewFile(uintptr(fd), "torpor-module")
	if err = f.Truncate(int64(len(content))); err == nil {
		for at := 0; at < len(content) && err == nil; at += wasmPage {
			// Zeros take no room if they are not written.
			if page := content[at : at+wasmPage]; page[0] != 0 || !bytes.Equal(page[1:], page[:wasmPage-1]) {
				_, err = f.WriteAt(page, int64(at))
			}
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("an image of its memory, %d bytes: %w", len(content), err)
	}
	// Never to be written again: every memory shares it. Where that can't be promised, it is kept anyway.
	_, _ = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE|unix.F_SEAL_SEAL)
	return &backing{f}, nil
}

func (b *backing) close() error { return b.file.Close() }
