//go:build unix

package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// grown makes a data folder with three generations, of which the last two are kept: in generation n the
// object's content is n.
func grown(t *testing.T) (data string) {
	t.Helper()
	data = filepath.Join(t.TempDir(), "data")
	c := start(t, on(data, "--save-strategy", "MANUAL"))
	for n := 1; n <= 3; n++ {
		c.put("/bucket/key", fmt.Sprint(n))
		c.put("/bucket/large", string(noise(uint64(n), 200_000)))
		c.save()
		if p := c.part(); p.Generation != uint64(n) {
			t.Fatalf("save %d made generation %d", n, p.Generation)
		}
	}
	c.stop()
	return data
}

// copied gives a copy of a data folder that nobody has open.
func copied(t *testing.T, data string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.CopyFS(dir, os.DirFS(data)); err != nil {
		t.Fatal(err)
	}
	// CopyFS gives folders to all; the program would rightly not run what lies in such a cache.
	if err := os.Chmod(filepath.Join(dir, "cache"), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// damages are the ways a file is damaged that must each be noticed.
func damages() map[string]func([]byte) []byte {
	flip := func(at func(int) int) func([]byte) []byte {
		return func(b []byte) []byte {
			b = bytes.Clone(b)
			b[at(len(b))] ^= 0x20
			return b
		}
	}
	return map[string]func([]byte) []byte{
		"a bit in the middle":  flip(func(n int) int { return n / 2 }),
		"a bit in the header":  flip(func(int) int { return 30 }),
		"a bit in the index":   flip(func(n int) int { return n - 60 }),
		"a bit in the trailer": flip(func(n int) int { return n - 10 }),
		"cut in half":          func(b []byte) []byte { return b[:len(b)/2] },
		"the last byte cut":    func(b []byte) []byte { return b[:len(b)-1] },
		"empty":                func([]byte) []byte { return nil },
		"zeros":                func(b []byte) []byte { return make([]byte, len(b)) },
		"something else":       func([]byte) []byte { return []byte(strings.Repeat("this is no state file. ", 100)) },
	}
}

func TestDamagedStateFile(t *testing.T) {
	sound := grown(t)
	for name, damage := range damages() {
		for _, load := range []string{"ON_STARTUP", "ON_REQUEST"} {
			t.Run(name+", "+load, func(t *testing.T) {
				data := copied(t, sound)
				damaged := damage(readFile(t, storeFile(data)))
				writeFile(t, storeFile(data), damaged)
				o := on(data, "--load-strategy", load, "--save-strategy", "MANUAL")
				c := start(t, o)

				// The last good generation is there, and whoever asks is told why it is not the newest.
				c.has("/bucket/key", "2")
				c.has("/bucket/large", string(noise(2, 200_000)))
				status, h := c.health()
				p := h.Services[0].Parts[0]
				if status != http.StatusOK || h.Status != "degraded" || h.Services[0].Status != "running" || p.Status != "error" || p.Generation != 2 ||
					!strings.Contains(p.LastError, "corrupt") || !strings.Contains(p.LastError, "generation 2 was loaded instead") {
					t.Errorf("health %d %+v", status, h)
				}
				if n := c.metric(`torpor_corrupt_files_total{part="store",service="s3"}`); n != 1 {
					t.Errorf("%v damaged files are counted", n)
				}
				c.says(`level=ERROR msg="saved state was damaged and has been moved aside"`)
				// What was damaged is kept as it was, beside.
				kept := slices.DeleteFunc(files(t, data), func(name string) bool { return !strings.Contains(name, ".corrupt-") })
				if len(kept) != 1 {
					t.Fatalf("the damaged file is not kept: %v", files(t, data))
				}
				path := filepath.Join(filepath.Dir(storeFile(data)), kept[0])
				if !bytes.Equal(readFile(t, path), damaged) || !strings.Contains(p.LastError, path) {
					t.Errorf("%s is not what was damaged, or health does not name it: %s", path, p.LastError)
				}

				// The next save is a generation of its own, and then all is well.
				c.put("/bucket/key", "4")
				c.save()
				if p := c.part(); p.Generation < 4 {
					t.Errorf("generation %d was given again", p.Generation)
				}
				c.healthy()
				c.kill()
				c = start(t, o)
				c.has("/bucket/key", "4")
				c.healthy()
			})
		}
	}
}

// TestAllGenerationsDamaged: with nothing left to load the service starts empty, loudly, and what is
// there is kept.
func TestAllGenerationsDamaged(t *testing.T) {
	data := grown(t)
	var broken [][]byte
	for i, name := range files(t, data) {
		b := []byte(fmt.Sprint("broken ", i))
		writeFile(t, filepath.Join(filepath.Dir(storeFile(data)), name), b)
		broken = append(broken, b)
	}
	if len(broken) != 2 {
		t.Fatalf("%d generations were kept", len(broken))
	}
	c := start(t, on(data, "--save-strategy", "MANUAL"))
	c.lacks("/bucket/key")
	if status, h := c.health(); status != http.StatusOK || h.Status != "degraded" || !strings.Contains(h.Services[0].Parts[0].LastError, "starts empty") {
		t.Errorf("health %d %+v", status, h)
	}
	if n := c.metric(`torpor_corrupt_files_total{part="store",service="s3"}`); n != 2 {
		t.Errorf("%v damaged files are counted", n)
	}
	c.put("/bucket/key", "new")
	c.save()
	c.stop()
	for _, b := range broken {
		keeps(t, data, b)
	}
	start(t, on(data)).has("/bucket/key", "new")
}

// stateOf writes a sound state file of one record by a serializer of that name and digest.
func stateOf(t *testing.T, serializer string, digest [sha256.Size]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := statefile.NewWriter(&b, statefile.Header{Service: "s3", Part: "store", Generation: 9, Created: time.Now(),
		Serializer: statefile.Serializer{Name: serializer, Version: "3.1", Digest: digest, Schema: 1}})
	if err != nil {
		t.Fatal(err)
	}
	data := record.AppendText(record.AppendText(record.AppendText(record.AppendRecord(nil), "p"), "k"), "v")
	var scan record.Scanner
	refs, err := scan.Scan(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteBatch(&record.Batch{Data: data, Refs: refs}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// newer makes a state file of this format's version into one of the next, as far as this version knows
// where that stands: header and trailer.
func newer(t *testing.T, b []byte) []byte {
	t.Helper()
	b = bytes.Clone(b)
	key := []byte("\x66torpor")
	at := bytes.Index(b, key)
	if at < 0 || b[at+len(key)] != statefile.Version {
		t.Fatalf("the header does not say version %d where it should: % x", statefile.Version, b[:40])
	}
	b[at+len(key)] = statefile.Version + 1
	binary.BigEndian.PutUint16(b[len(b)-2:], statefile.Version+1)
	return b
}

// importing is a WebAssembly module with one import, of a function without parameters and results.
func importing(module, name string) []byte {
	section := func(id byte, body ...byte) []byte { return append([]byte{id, byte(len(body))}, body...) }
	text := func(s string) []byte { return append([]byte{byte(len(s))}, s...) }
	wasm := []byte("\x00asm\x01\x00\x00\x00")
	wasm = append(wasm, section(1, 1, 0x60, 0, 0)...) // one type: () -> ()
	return append(wasm, section(2, slices.Concat([]byte{1}, text(module), text(name), []byte{0, 0})...)...)
}

// TestStatesThisProgramCannotLoad: the service says what is wrong with its state and is not served; the
// state is not touched, whatever is asked for.
func TestStatesThisProgramCannotLoad(t *testing.T) {
	sound := grown(t)
	unknown := importing("env", "system")
	otherABI := importing("torpor_v2", "next")
	for _, c := range []struct {
		name  string
		state func(good []byte) []byte
		wasm  []byte // kept among the modules
		want  []string
	}{
		{"a newer format", func(good []byte) []byte { return newer(t, good) }, nil, []string{"unsupported version", "format version 2", "store.state", "newer Torpor"}},
		{"a missing serializer", func([]byte) []byte { return stateOf(t, "lost", sha256.Sum256([]byte("lost"))) }, nil,
			[]string{"lost 3.1", fmt.Sprintf("%x", sha256.Sum256([]byte("lost"))), "not found"}},
		{"a serializer of another ABI", func([]byte) []byte { return stateOf(t, "future", sha256.Sum256(otherABI)) }, otherABI,
			[]string{"future 3.1", "torpor_v2", "torpor_v1"}},
		{"a serializer with unknown imports", func([]byte) []byte { return stateOf(t, "curious", sha256.Sum256(unknown)) }, unknown,
			[]string{"curious 3.1", "env.system"}},
		{"a serializer that is no module", func([]byte) []byte { return stateOf(t, "text", sha256.Sum256([]byte("text"))) }, []byte("text"),
			[]string{"text 3.1", "no WebAssembly module"}},
	} {
		for _, load := range []string{"ON_STARTUP", "ON_REQUEST"} {
			t.Run(c.name+", "+load, func(t *testing.T) {
				data := copied(t, sound)
				writeFile(t, storeFile(data), c.state(readFile(t, storeFile(data))))
				if c.wasm != nil {
					writeFile(t, filepath.Join(data, "modules", fmt.Sprintf("%x.wasm", sha256.Sum256(c.wasm))), c.wasm)
				}
				before := tree(t, data)
				p := start(t, on(data, "--load-strategy", load, "--flush-interval", "100ms", "--cache", filepath.Join(t.TempDir(), "cache")))
				for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
					a := p.do(method, "/bucket/key", "x")
					if a.status != http.StatusServiceUnavailable || a.header.Get("Content-Type") != "application/json" || !strings.Contains(a.body, `"code":"service_unavailable"`) {
						t.Errorf("%s: %d %s", method, a.status, a.body)
					}
					for _, want := range append(c.want, "service s3") {
						if !strings.Contains(a.body, want) {
							t.Errorf("%s: the answer does not say %q: %s", method, want, a.body)
						}
					}
				}
				status, h := p.health()
				if status != http.StatusServiceUnavailable || h.Status != "error" || h.Services[0].Status != "error" || !strings.Contains(h.Services[0].Error, c.want[0]) {
					t.Errorf("health %d %+v", status, h)
				}
				if _, _, code := torpor(t, []string{"TORPOR_LISTEN=" + strings.TrimPrefix(p.url, "http://")}, "health"); code != 1 {
					t.Errorf("torpor health: exit code %d", code)
				}
				for _, action := range []string{"save", "load"} {
					if a := p.do(http.MethodPost, "/_localstack/state/s3/"+action, ""); a.status != http.StatusInternalServerError || !strings.Contains(a.body, c.want[0]) {
						t.Errorf("%s: %d %s", action, a.status, a.body)
					}
				}
				p.signal(syscall.SIGTERM)
				p.wait()
				sameTree(t, before, tree(t, data))
			})
		}
	}
}

// keeps checks that some file of S3's state has that content.
func keeps(t *testing.T, data string, content []byte) {
	t.Helper()
	if !slices.ContainsFunc(files(t, data), func(name string) bool {
		return bytes.Equal(readFile(t, filepath.Join(filepath.Dir(storeFile(data)), name)), content)
	}) {
		t.Errorf("a state is gone; there are %v", files(t, data))
	}
}

// TestResetEndsAnError: whoever gives a state up can go on, and what could not be loaded is kept.
func TestResetEndsAnError(t *testing.T) {
	data := grown(t)
	foreign := stateOf(t, "lost", sha256.Sum256([]byte("lost")))
	writeFile(t, storeFile(data), foreign)
	c := start(t, on(data))
	if a := c.do(http.MethodGet, "/bucket/key", ""); a.status != http.StatusServiceUnavailable {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := c.do(http.MethodPost, "/_localstack/state/s3/reset", ""); a.status != http.StatusOK {
		t.Fatalf("reset: %d %s", a.status, a.body)
	}
	keeps(t, data, foreign)
	c.lacks("/bucket/key")
	c.healthy()
	c.put("/bucket/key", "anew")
	c.stop()
	start(t, on(data)).has("/bucket/key", "anew")
}

// TestNewerFormatIsNeverReplaced: not by a save of what came after a reset either.
func TestNewerFormatIsNeverReplaced(t *testing.T) {
	data := grown(t)
	foreign := newer(t, readFile(t, storeFile(data)))
	writeFile(t, storeFile(data), foreign)
	c := start(t, on(data, "--flush-interval", "100ms"))
	c.do(http.MethodPost, "/_localstack/state/s3/reset", "")
	c.do(http.MethodPut, "/bucket", "")
	c.do(http.MethodPost, "/_localstack/state/s3/save", "")
	keeps(t, data, foreign)
	c.signal(syscall.SIGTERM)
	c.wait()
	keeps(t, data, foreign)
}

// TestForeignFilesAreLeftAlone: what lies in the data folder and is not Torpor's stays.
func TestForeignFilesAreLeftAlone(t *testing.T) {
	data := grown(t)
	for _, name := range []string{"README", "state/notes.txt", "state/api_states/s3/store.state.bak", "state/api_states/s3/.hidden", "modules/mine.wasm"} {
		writeFile(t, filepath.Join(data, name), []byte("mine"))
	}
	if err := os.MkdirAll(filepath.Join(data, "state/api_states/other service"), 0o700); err != nil {
		t.Fatal(err)
	}
	before := tree(t, data)
	c := start(t, on(data))
	c.has("/bucket/key", "3")
	c.put("/bucket/key", "4")
	c.stop()
	after := tree(t, data)
	for name, was := range before {
		if !strings.Contains(name, "store.state") || strings.HasSuffix(name, ".bak") {
			if after[name] != was {
				t.Errorf("%s has changed", name)
			}
		}
	}
}
