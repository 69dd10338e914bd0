package statedir_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/torpor-run/torpor/runtime/statedir"
)

// BenchmarkSave commits states of several sizes to the disk the test's folder is on, beside the least
// that could be done for them: writing the same bytes to a new file and syncing it. A delta is a change of
// one record of such a state, of 1 KiB.
func BenchmarkSave(b *testing.B) {
	for _, size := range []int{1 << 10, 1 << 20, 10 << 20} {
		content := make([]byte, size/4) // in hex, and twice in the file
		if _, err := rand.Read(content); err != nil {
			b.Fatal(err)
		}
		text := fmt.Sprintf("%x", content)
		b.Run(fmt.Sprintf("commit/%dKiB", size>>10), func(b *testing.B) {
			d := open(b, osFS(b, b.TempDir()), statedir.Options{})
			b.SetBytes(int64(size))
			for b.Loop() {
				b.StopTimer()
				p, err := d.Begin(service, store)
				check(b, err)
				var w pieces
				check(b, encodeAnew(&w, defaultModule, service, store, p.Generation(), text))
				b.StartTimer()
				for _, piece := range w {
					_, err := p.Write(piece)
					check(b, err)
				}
				check(b, p.Commit())
			}
			check(b, d.Close())
		})
		b.Run(fmt.Sprintf("delta/%dKiB", size>>10), func(b *testing.B) {
			d := open(b, osFS(b, b.TempDir()), statedir.Options{})
			full := func() uint64 {
				p, err := d.Begin(service, store)
				check(b, err)
				check(b, encodeAnew(p, defaultModule, service, store, p.Generation(), text))
				check(b, p.Commit())
				return p.Generation()
			}
			const before, after = "", "+key=value#key=value" // of which only the keys are looked at
			content, base := before, full()
			for b.Loop() {
				g, err := saveDelta(d, base, content, "key", "value")
				if errors.Is(err, errFull) || errors.Is(err, statedir.ErrDeltaTooLarge) {
					b.StopTimer()
					content, base = before, full()
					b.StartTimer()
					continue
				}
				check(b, err)
				content, base = after, g
			}
			check(b, d.Close())
		})
		b.Run(fmt.Sprintf("write and sync/%dKiB", size>>10), func(b *testing.B) {
			dir := b.TempDir()
			b.SetBytes(int64(size))
			var w bytes.Buffer
			check(b, encodeAnew(&w, defaultModule, service, store, 1, text))
			n := 0
			for b.Loop() {
				n++
				f, err := os.Create(filepath.Join(dir, fmt.Sprint(n)))
				check(b, err)
				_, err = f.Write(w.Bytes())
				check(b, err)
				check(b, f.Sync())
				check(b, f.Close())
				b.StopTimer()
				check(b, os.Remove(f.Name()))
				b.StartTimer()
			}
		})
	}
}
