package host

import "github.com/tetratelabs/wazero/api"

// image is a memory's content, which memories of the same size are brought back to. Where the system can
// do it (backing), a memory shares the image's pages until it writes to them, and is brought back by
// giving up those it has written to: so that costs what the call touched, not what there is.
type image struct {
	backing *backing // nil if content is to be copied
	content []byte
	length  uint32
}

func newImage(content []byte) (image, error) {
	b, err := newBacking(content)
	if b != nil || err != nil {
		return image{backing: b, length: uint32(len(content))}, err
	}
	return image{content: append([]byte(nil), content...), length: uint32(len(content))}, nil
}

func (m image) size() uint32 { return m.length }

// bring makes memory, which has the image's size and is kept in linear if that is not nil, equal to the
// image. Where it reports false the memory may be anything.
func (m image) bring(memory api.Memory, linear *linearMemory) bool {
	if m.backing != nil {
		return linear != nil && linear.bring(m.backing, int(m.length))
	}
	return memory.Write(0, m.content)
}

func (m image) close() error {
	if m.backing == nil {
		return nil
	}
	return m.backing.close()
}
