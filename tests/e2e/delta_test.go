//go:build unix

package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/runtime/statefile"
)

// verifies runs the verify command on a folder that nobody has open.
func verifies(t *testing.T, data string, code int) (stdout string) {
	t.Helper()
	stdout, stderr, got := torpor(t, nil, "verify", data)
	if got != code {
		t.Errorf("verify: exit code %d, want %d: %s%s", got, code, stdout, stderr)
	}
	return stdout
}

// changed makes a data folder with 500 objects saved in full and n deltas of one object each, key-1 to key-n.
func changed(t *testing.T, n int) (data string) {
	t.Helper()
	data = filepath.Join(t.TempDir(), "data")
	c := start(t, on(data, "--save-strategy", "MANUAL"))
	for i := range 500 {
		c.put(fmt.Sprintf("/bucket/object-%03d", i), string(noise(uint64(i), 1000)))
	}
	c.save()
	for i := 1; i <= n; i++ {
		c.put(fmt.Sprintf("/bucket/key-%d", i), fmt.Sprint(i))
		c.save()
	}
	if p := c.part(); p.Deltas != n || p.Generation != uint64(n+1) || p.Records != uint64(501+n) {
		t.Fatalf("after %d small changes %+v", n, p)
	}
	c.kill()
	return data
}

func saves(t *testing.T, data string) []statefile.Save {
	t.Helper()
	b := readFile(t, storeFile(data))
	f, err := statefile.Open(bytes.NewReader(b), int64(len(b)), "store.state")
	if err != nil {
		t.Fatal(err)
	}
	return f.Saves()
}

func TestASmallChangeIsASmallSave(t *testing.T) {
	data := changed(t, 0)
	c := start(t, on(data, "--save-strategy", "MANUAL"))
	c.has("/bucket/object-007", string(noise(7, 1000)))
	full := c.part().FileBytes
	c.put("/bucket/object-007", "changed")
	c.do("DELETE", "/bucket/object-008", "")
	c.put("/bucket/new", "new")
	c.save()
	p := c.part()
	if written := p.FileBytes - full; written <= 0 || written > 5000 || p.Deltas != 1 || p.Records != 501 {
		t.Errorf("saved %d bytes on %d: %+v", written, full, p)
	}
	if n := c.metric(`torpor_saves_total{kind="delta",part="store",service="s3"}`); n != 1 {
		t.Errorf("%v deltas are counted", n)
	}
	if n := c.metric(`torpor_saved_bytes_total{part="store",service="s3"}`); n != float64(p.FileBytes-full) {
		t.Errorf("%v bytes are counted, %d were written", n, p.FileBytes-full)
	}
	c.kill()
	verifies(t, data, 0)

	c = start(t, on(data, "--save-strategy", "MANUAL"))
	c.has("/bucket/object-007", "changed")
	c.lacks("/bucket/object-008")
	c.has("/bucket/new", "new")
	c.has("/bucket/object-009", string(noise(9, 1000)))
	c.healthy()

	// When much has changed, all is saved, and the file before is kept.
	for i := range 500 {
		c.put(fmt.Sprintf("/bucket/object-%03d", i), string(noise(uint64(i), 3000)))
	}
	c.save()
	if p := c.part(); p.Deltas != 0 || p.Generation != 3 {
		t.Errorf("after many changes %+v", p)
	}
	c.stop()
	if names := strings.Join(files(t, data), " "); !strings.Contains(names, "store.state.g000000000002") {
		t.Errorf("the folder has %s", names)
	}
	verifies(t, data, 0)
}

// TestTornEndIsDropped: what kill -9 in the middle of a save leaves is no damage.
func TestTornEndIsDropped(t *testing.T) {
	data := changed(t, 2)
	whole := readFile(t, storeFile(data))
	last := saves(t, data)[1].End
	for name, tail := range map[string][]byte{
		"half a delta":   whole[last : last+(int64(len(whole))-last)/2],
		"all but a byte": whole[last : len(whole)-1],
		"zeros":          make([]byte, 4096),
		"a single byte":  {0xd8},
		"something else": []byte("this is no delta"),
	} {
		t.Run(name, func(t *testing.T) {
			data := copied(t, data)
			writeFile(t, storeFile(data), append(bytes.Clone(whole), tail...))
			verifies(t, data, 0)
			c := start(t, on(data, "--save-strategy", "MANUAL"))
			c.has("/bucket/key-2", "2")
			c.healthy()
			c.put("/bucket/later", "later")
			c.save()
			if p := c.part(); p.Deltas != 3 {
				t.Errorf("the next save %+v", p)
			}
			c.kill()
			verifies(t, data, 0)
			if n := len(files(t, data)); n != 1 {
				t.Errorf("%d files are left: %v", n, files(t, data))
			}
			c = start(t, on(data))
			c.has("/bucket/later", "later")
			c.stop()
		})
	}
}

// TestDamagedDelta: the generations before the damage are there, and what was cut off is kept.
func TestDamagedDelta(t *testing.T) {
	sound := changed(t, 3)
	whole, all := readFile(t, storeFile(sound)), saves(t, sound)
	for name, c := range map[string]struct {
		at   int64 // of the byte that is changed
		last int   // the last change that is left
	}{
		"a chunk of the last delta":    {all[2].End + 10, 2},
		"the index of the last delta":  {all[3].End - 60, 2},
		"a chunk of the second delta":  {all[1].End + 10, 1},
		"the index of the second":      {all[2].End - 60, 1},
		"the trailer of the second":    {all[2].End - 20, 1},
		"a chunk of the first delta":   {all[0].End + 10, 0},
		"the trailer of the full save": {all[0].End - 20, -1},
		"a chunk of the full save":     {2000, -1},
	} {
		for _, load := range []string{"ON_STARTUP", "ON_REQUEST"} {
			t.Run(name+"/"+load, func(t *testing.T) {
				data := copied(t, sound)
				b := bytes.Clone(whole)
				b[c.at] ^= 1
				writeFile(t, storeFile(data), b)
				verifies(t, data, 3)
				s := start(t, on(data, "--save-strategy", "MANUAL", "--load-strategy", load))
				if c.last >= 0 {
					s.has("/bucket/object-499", string(noise(499, 1000)))
				} else {
					s.lacks("/bucket/object-499")
				}
				for i := 1; i <= 3; i++ {
					if path := fmt.Sprintf("/bucket/key-%d", i); i <= c.last {
						s.has(path, fmt.Sprint(i))
					} else {
						s.lacks(path)
					}
				}
				if _, h := s.health(); h.Status != "degraded" || s.part().LastError == "" {
					t.Errorf("health %+v", h)
				}
				if n := s.metric(`torpor_corrupt_files_total{part="store",service="s3"}`); n != 1 {
					t.Errorf("%v corrupt files are counted", n)
				}
				s.put("/bucket2/after", "after")
				s.save()
				if g := s.part().Generation; g <= 4 {
					t.Errorf("generation %d was given again", g)
				}
				s.healthy()
				s.kill()
				verifies(t, data, 0)
				kept := false
				for _, name := range files(t, data) {
					if strings.Contains(name, ".corrupt-") {
						kept = kept || bytes.HasSuffix(b, readFile(t, filepath.Join(filepath.Dir(storeFile(data)), filepath.Base(name))))
					}
				}
				if !kept {
					t.Errorf("what was damaged is not kept: %v", files(t, data))
				}
			})
		}
	}
}

func TestGenerationsKept(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	o := on(data, "--save-strategy", "MANUAL", "--generations", "4")
	for n := 1; n <= 6; n++ {
		c := start(t, o)
		c.put("/bucket/key", string(noise(uint64(n), 3_000_000))) // too much for a delta
		c.save()
		c.stop()
	}
	if names := files(t, data); len(names) != 4 {
		t.Errorf("kept are %v", names)
	}
	o = on(data, "--generations", "1")
	c := start(t, o)
	c.put("/bucket/key", string(noise(7, 3_000_000)))
	c.stop()
	if names := files(t, data); len(names) != 1 {
		t.Errorf("kept are %v", names)
	}
}

// TestModulesAreCollected: a serializer goes when no state needs it any more.
func TestModulesAreCollected(t *testing.T) {
	data := changed(t, 1)
	wasm := []byte("\x00asm of a serializer whose states are gone")
	sum := sha256.Sum256(wasm)
	stray := filepath.Join(data, "modules", hex.EncodeToString(sum[:])+".wasm")
	writeFile(t, stray, wasm)
	foreign := filepath.Join(data, "modules", "README")
	writeFile(t, foreign, []byte("not Torpor's"))
	c := start(t, on(data))
	c.has("/bucket/key-1", "1")
	c.stop()
	if _, err := os.Stat(stray); !os.IsNotExist(err) {
		t.Errorf("the module that nothing needs: %v", err)
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Error(err)
	}
	verifies(t, data, 0)
}
