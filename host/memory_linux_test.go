//go:build linux && (amd64 || arm64)

package host

import (
	"bytes"
	"testing"
)

// Memories are brought to an image by sharing its pages or by copying them; either way what one writes
// shows in no other, nor in the image.
func TestImages(t *testing.T) {
	content := make([]byte, 3*wasmPage)
	copy(content, "first page")
	copy(content[2*wasmPage:], "third page")
	b, err := newBacking(content)
	if err != nil {
		t.Fatal(err)
	}
	if b == nil {
		t.Skip("this kernel, or a filter on its calls, has no memfd_create: images are copied from Go's heap")
	}
	defer b.close()
	for how, bring := range map[string]func(*linearMemory) bool{
		"shared": func(m *linearMemory) bool { return m.bring(b, len(content)) },
		"copied": func(m *linearMemory) bool { return m.copyOf(b, len(content)) },
	} {
		var m *linearMemory
		allocator(func(made *linearMemory) { m = made }).Allocate(0, 10*wasmPage)
		memory := m.Reallocate(uint64(len(content)))
		if memory == nil {
			t.Fatal("no memory")
		}
		for range 3 {
			copy(memory[wasmPage:], "written by a call")
			clear(memory[2*wasmPage:])
			if !bring(m) || !bytes.Equal(memory, content) {
				t.Errorf("%s: not as the image", how)
			}
		}
		m.Free()
	}
	if _, err := b.file.WriteAt([]byte("x"), 0); err == nil {
		t.Error("an image can be written to")
	}
}
