package modules_test

import (
	"os"
	"testing"
	"time"
)

func TestMinTime(t *testing.T) {
	data, _ := streamRecords(20 << 20)
	for _, f := range []string{"/tmp/bm/a.wasm", "/tmp/bm/b.wasm", "/tmp/bm/c.wasm"} {
		w, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		g := newGuest(t, w)
		for _, op := range []string{"torpor_save", "torpor_inspect"} {
			best := time.Hour
			for range 60 {
				s := time.Now()
				c := g.run(op, &call{input: data, native: true, discard: true})
				if !c.accepted() {
					t.Fatal(c)
				}
				best = min(best, time.Since(s))
			}
			t.Logf("%s %s %v %.0f MB/s", f, op, best, float64(len(data))/1e6/best.Seconds())
		}
	}
	dst := make([]byte, 128<<10)
	best := time.Hour
	for range 60 {
		s := time.Now()
		for p := 0; p < len(data); p += copy(dst, data[p:]) {
		}
		best = min(best, time.Since(s))
	}
	t.Logf("copy alone %v", best)
}
