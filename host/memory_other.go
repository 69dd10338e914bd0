//go:build !linux || !(amd64 || arm64)

package host

import "github.com/tetratelabs/wazero/experimental"

// allocator is none: wazero's own is used, which keeps memory in Go's heap.
func allocator(func(*linearMemory)) experimental.MemoryAllocator { return nil }

type linearMemory struct{}

func (*linearMemory) Free() {}

func (*linearMemory) bring(*backing, int) bool { return false }

type backing struct{}

// newBacking gives nil: images are copied.
func newBacking([]byte) (*backing, error) { return nil, nil }

func (*backing) close() error { return nil }
