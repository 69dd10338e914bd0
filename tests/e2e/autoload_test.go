//go:build unix

package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

// seeds makes a data folder with snapshot base, whose version 1 and 2 hold bucket with key a of that content, and gives
// version 2 as an exported file too, with key b besides.
func seeds(t *testing.T) (data string, exported []byte) {
	t.Helper()
	data = filepath.Join(t.TempDir(), "data")
	c := start(t, on(data).with("PERSISTENCE=0"))
	for _, content := range []string{"1", "2"} {
		c.put("/bucket/a", content)
		if a := c.do(http.MethodPost, "/_localstack/pods/base", "{}"); a.status != http.StatusOK {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	c.put("/bucket/b", "exported")
	a := c.do(http.MethodGet, "/_localstack/pods/state", "")
	if a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	c.stop()
	if _, err := os.Stat(filepath.Join(data, "state")); err == nil {
		t.Error("without persistence something was saved")
	}
	return data, []byte(a.body)
}

// TestAutoLoad: snapshots named in AUTO_LOAD_POD and in init-pods.d are there before the first answer.
func TestAutoLoad(t *testing.T) {
	data, exported := seeds(t)
	pods := filepath.Join(t.TempDir(), "init-pods.d")
	if err := os.Mkdir(pods, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		files map[string]string
		auto  string
		a, b  string // what then is there; "": nothing
	}{
		{"nothing", nil, "", "", ""},
		{"a name", nil, "base", "2", ""},
		{"a version", nil, "base@1", "1", ""},
		{"LocalStack's way to write one", nil, " base:1 ", "1", ""},
		{"one after the other", nil, "base@2,base@1", "1", ""},
		{"a file by its URL", map[string]string{".elsewhere": string(exported)}, "file://" + filepath.Join(pods, ".elsewhere"), "2", "exported"},
		{"a list", map[string]string{"list.txt": "# comment\n\nbase@1\n"}, "", "1", ""},
		{"an exported file of any name", map[string]string{"my-state.pod.zip": string(exported)}, "", "2", "exported"},
		{"lists before files", map[string]string{"a.snapshot": string(exported), "z.txt": "base@1"}, "", "2", "exported"},
		{"the folder before the variable", map[string]string{"a.snapshot": string(exported)}, "base@1", "1", ""},
		{"what cannot be loaded keeps nothing from being loaded", map[string]string{"a.zip": "no zip", "b.txt": "none\nbase@9\n../x\nbase,elsewhere\nbase@1"}, "", "1", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, content := range c.files {
				file := filepath.Join(pods, name)
				writeFile(t, file, []byte(content))
				defer os.Remove(file)
			}
			d := start(t, on(data, "--init-pods", pods).with("PERSISTENCE=0", "AUTO_LOAD_POD="+c.auto))
			for key, content := range map[string]string{"/bucket/a": c.a, "/bucket/b": c.b} {
				if content == "" {
					d.lacks(key)
				} else {
					d.has(key, content)
				}
			}
			d.stop()
		})
	}
}

// TestAutoLoadIsASeed: with persistence a service that has state keeps it.
func TestAutoLoadIsASeed(t *testing.T) {
	data, _ := seeds(t)
	auto := []string{"AUTO_LOAD_POD=base"}
	c := start(t, on(data).with(auto...))
	c.has("/bucket/a", "2")
	if p := c.part(); p.Generation != 1 {
		t.Errorf("loaded, and not saved: %+v", p)
	}
	c.put("/bucket/a", "changed")
	c.stop()
	c = start(t, on(data).with(auto...))
	c.has("/bucket/a", "changed")
	c.says("saved state of their own")
	c.stop()
}
