package host

import (
	"bytes"
	"slices"
	"testing"

	"github.com/torpor-run/torpor/host/fuel"
)

// Data segments are taken out of a module only where the host writes what wazero would.
func TestPlainSegments(t *testing.T) {
	section := func(id byte, body ...byte) []byte { return append([]byte{id, byte(len(body))}, body...) }
	page := section(sectionMemory, 1, 0, 1)
	for name, c := range map[string]struct {
		sections [][]byte
		want     []segment // nil if they stay
	}{
		"two":                        {[][]byte{page, section(sectionData, 2, 0, 0x41, 8, 0x0b, 2, 'a', 'b', 0, 0x41, 9, 0x0b, 1, 'c')}, []segment{{8, []byte("ab")}, {9, []byte("c")}}},
		"up to the end":              {[][]byte{page, section(sectionData, 1, 0, 0x41, 0xff, 0xff, 3, 0x0b, 1, 'a')}, []segment{{0xffff, []byte("a")}}},
		"nothing at the end":         {[][]byte{page, section(sectionData, 1, 0, 0x41, 0x80, 0x80, 4, 0x0b, 0)}, []segment{{0x10000, []byte{}}}},
		"past the end":               {[][]byte{page, section(sectionData, 1, 0, 0x41, 0xff, 0xff, 3, 0x0b, 2, 'a', 'b')}, nil},
		"nothing past the end":       {[][]byte{page, section(sectionData, 1, 0, 0x41, 0x81, 0x80, 4, 0x0b, 0)}, nil},
		"below 0":                    {[][]byte{page, section(sectionData, 1, 0, 0x41, 0x7f, 0x0b, 1, 'a')}, nil},
		"below 0 in five bytes":      {[][]byte{page, section(sectionData, 1, 0, 0x41, 0xff, 0xff, 0xff, 0xff, 0x7f, 0x0b, 0)}, nil},
		"five bytes":                 {[][]byte{page, section(sectionData, 1, 0, 0x41, 0x88, 0x80, 0x80, 0x80, 0, 0x0b, 1, 'a')}, []segment{{8, []byte("a")}}},
		"five bytes of another sign": {[][]byte{page, section(sectionData, 1, 0, 0x41, 0x88, 0x80, 0x80, 0x80, 0x10, 0x0b, 1, 'a')}, nil},
		"six bytes":                  {[][]byte{page, section(sectionData, 1, 0, 0x41, 0x88, 0x80, 0x80, 0x80, 0x80, 0, 0x0b, 1, 'a')}, nil},
		"a length of six bytes":      {[][]byte{page, section(sectionData, 1, 0, 0x41, 8, 0x0b, 0x81, 0x80, 0x80, 0x80, 0x80, 0, 'a')}, nil},
		"a count":                    {[][]byte{page, section(sectionDataCount, 1), section(sectionData, 1, 0, 0x41, 8, 0x0b, 1, 'a')}, []segment{{8, []byte("a")}}},
		"another count":              {[][]byte{page, section(sectionDataCount, 2), section(sectionData, 1, 0, 0x41, 8, 0x0b, 1, 'a')}, nil},
		"a count of nothing":         {[][]byte{page, section(sectionDataCount, 1)}, nil},
		"passive":                    {[][]byte{page, section(sectionData, 2, 0, 0x41, 8, 0x0b, 1, 'a', 1, 1, 'b')}, nil},
		"with a memory":              {[][]byte{page, section(sectionData, 1, 2, 0, 0x41, 8, 0x0b, 1, 'a')}, nil},
		"where a global says":        {[][]byte{page, section(sectionData, 1, 0, 0x23, 0, 0x0b, 1, 'a')}, nil},
		"at a sum":                   {[][]byte{page, section(sectionData, 1, 0, 0x41, 4, 0x41, 4, 0x6a, 0x0b, 1, 'a')}, nil},
		"cut short":                  {[][]byte{page, section(sectionData, 1, 0, 0x41, 8, 0x0b, 2, 'a')}, nil},
		"fewer than counted":         {[][]byte{page, section(sectionData, 2, 0, 0x41, 8, 0x0b, 1, 'a')}, nil},
		"more than counted":          {[][]byte{page, section(sectionData, 1, 0, 0x41, 8, 0x0b, 1, 'a', 0)}, nil},
		"no memory":                  {[][]byte{section(sectionData, 1, 0, 0x41, 0, 0x0b, 0)}, nil},
		"two memories":               {[][]byte{section(sectionMemory, 2, 0, 1, 0, 1), section(sectionData, 1, 0, 0x41, 8, 0x0b, 1, 'a')}, nil},
		"none":                       {[][]byte{page, section(sectionData, 0)}, nil},
	} {
		wasm := append([]byte("\x00asm\x01\x00\x00\x00"), slices.Concat(c.sections...)...)
		got, ok := plainSegments(wasm)
		if ok != (c.want != nil) || ok && !slices.EqualFunc(got, c.want, func(a, b segment) bool { return a.at == b.at && bytes.Equal(a.bytes, b.bytes) }) {
			t.Errorf("%s: %v, %v", name, got, ok)
		}
		for _, named := range []bool{false, true} {
			m := &code{wasm: wasm, info: fuel.Info{NamesData: named}}
			left := m.takeData(wasm)
			if taken := c.want != nil && !named; taken != (m.data != nil) || taken != !bytes.Equal(left, wasm) {
				t.Errorf("%s, named by code %v: taken %v, % x is left", name, named, m.data, left)
			} else if taken && !bytes.Equal(left, wasm[:8+len(page)]) {
				t.Errorf("%s: % x is left", name, left)
			}
		}
	}
}
