package archive

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/flate"
)

// TestBudget: whatever is compressed, it stays inside the ratio, and is the same when it is decompressed.
func TestBudget(t *testing.T) {
	noise := make([]byte, 2<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
	for name, contents := range map[string][][]byte{
		"zeros":            {make([]byte, 10<<20)},
		"zeros in between": {noise[:128<<10], make([]byte, 10<<20), noise},
		"zeros in files":   {make([]byte, 4<<20), make([]byte, 1<<20), {}, make([]byte, 6<<20), noise, make([]byte, 1<<20)},
		"noise":            {noise},
	} {
		t.Run(name, func(t *testing.T) {
			b := &budget{free: 1 << 19, ratio: 20}
			var size, packed int64
			weak := false
			for _, content := range contents {
				var out bytes.Buffer
				w, err := b.compressor(&out)
				if err != nil {
					t.Fatal(err)
				}
				for rest := content; len(rest) > 0; {
					n, err := w.Write(rest[:min(len(rest), 128<<10)])
					if err != nil {
						t.Fatal(err)
					}
					rest = rest[n:]
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				weak = weak || w.(*squeezer).weak
				size, packed = size+int64(len(content)), packed+int64(out.Len())
				if back, err := io.ReadAll(flate.NewReader(&out)); err != nil || !bytes.Equal(back, content) {
					t.Errorf("%d of %d bytes came back: %v", len(back), len(content), err)
				}
			}
			if b.in != size || b.out != packed || size > 2*b.free+b.ratio*packed {
				t.Errorf("%d bytes became %d; %+v", size, packed, b)
			}
			if want := name != "noise"; weak != want {
				t.Errorf("it held back: %v", weak)
			}
		})
	}
}
