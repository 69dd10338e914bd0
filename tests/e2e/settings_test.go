//go:build unix

package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/modules"
)

// configFile writes a configuration file.
func configFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "torpor.yaml")
	writeFile(t, path, []byte(text))
	return path
}

// TestStrengthOfSettings: flags over environment over file, seen in where the state comes to lie.
func TestStrengthOfSettings(t *testing.T) {
	root := t.TempDir()
	flag, env, file := filepath.Join(root, "flag"), filepath.Join(root, "env"), filepath.Join(root, "file")
	config := configFile(t, "data: "+file+"\nlisten: 127.0.0.1:0\n")
	for _, c := range []struct {
		want string
		o    options
	}{
		{file, options{env: []string{"TORPOR_CONFIG=" + config}}},
		{env, options{env: []string{"TORPOR_CONFIG=" + config, "TORPOR_DATA=" + env}}},
		{flag, options{env: []string{"TORPOR_CONFIG=/nowhere", "TORPOR_DATA=" + env}, args: []string{"--config", config, "--data", flag}}},
	} {
		start(t, c.o).stop()
		for _, dir := range []string{flag, env, file} {
			if _, err := os.Stat(dir); (err == nil) != (dir == c.want) {
				t.Errorf("with %+v: %s is there: %v; the data folder should be %s", c.o, dir, err == nil, c.want)
			}
		}
		if err := os.RemoveAll(c.want); err != nil {
			t.Fatal(err)
		}
	}
}

// TestListenSaysWhere: port 0 is a free one, and the address is on standard output.
func TestListenSaysWhere(t *testing.T) {
	c := start(t, options{args: []string{"--listen=127.0.0.1:0"}, env: []string{"PERSISTENCE=0"}})
	_, port, err := net.SplitHostPort(strings.TrimPrefix(c.url, "http://"))
	if err != nil || port == "0" || port == "" {
		t.Fatalf("%s, %v", c.url, err)
	}
	if want := fmt.Sprintf("is listening on %s\n", c.url); !strings.HasSuffix(c.out.String(), want) || strings.Count(c.out.String(), "\n") != 1 {
		t.Errorf("standard output is %q", c.out)
	}
	c.put("/bucket/key", "content")

	// The port is taken now.
	stderr, code := refuses(t, options{env: []string{"PERSISTENCE=0", "TORPOR_LISTEN=127.0.0.1:" + port}})
	if code != 1 || !strings.Contains(stderr, "127.0.0.1:"+port) || !strings.Contains(stderr, "--listen") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	c.stop()
	// And again free.
	start(t, options{env: []string{"PERSISTENCE=0", "TORPOR_LISTEN=127.0.0.1:" + port}}).stop()
}

func TestWarnsWhenNotOnLoopback(t *testing.T) {
	c := start(t, options{args: []string{"--listen", "0.0.0.0:0"}, env: []string{"PERSISTENCE=0"}})
	c.says("level=WARN")
	c.says("control API has no key")
	c.stop()
}

// TestMistakesOnTheCommandLine: exit code 2, a message that names the mistake and what is allowed, and
// nothing done.
func TestMistakesOnTheCommandLine(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		env  []string
		file string
		want []string
	}{
		{"option", []string{"--lisen", ":1"}, nil, "", []string{"--lisen", "--listen"}},
		{"value", []string{"--save-strategy", "HOURLY"}, nil, "", []string{"--save-strategy", "HOURLY", "SCHEDULED, ON_REQUEST, ON_SHUTDOWN, MANUAL"}},
		{"LocalStack's value", nil, []string{"SNAPSHOT_LOAD_STRATEGY=LATER"}, "", []string{"SNAPSHOT_LOAD_STRATEGY", "LATER", "ON_REQUEST, ON_STARTUP, MANUAL"}},
		{"interval", nil, []string{"SNAPSHOT_FLUSH_INTERVAL=0"}, "", []string{"SNAPSHOT_FLUSH_INTERVAL", "100ms"}},
		{"variable", nil, []string{"TORPOR_DATAA=x"}, "", []string{"TORPOR_DATAA", "TORPOR_DATA,"}},
		{"key", nil, nil, "dta: x\n", []string{"torpor.yaml", "dta", "data"}},
		{"service", nil, nil, "services: {sqs: {proof: full}}\n", []string{"torpor.yaml", "services.sqs", "run", "upstream"}},
		{"service's key", nil, nil, "services: {s3: {data: x}}\n", []string{"torpor.yaml", "services.s3.data", "save_strategy"}},
		{"file", []string{"--config", "/no/such/file.yaml"}, nil, "", []string{"/no/such/file.yaml", "does not exist"}},
		{"argument", []string{"s3"}, nil, "", []string{`"s3"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "data")
			o := options{args: append([]string{"--data", data}, c.args...), env: c.env}
			if c.file != "" {
				o.args = append(o.args, "--config", configFile(t, c.file))
			}
			stderr, code := refuses(t, o)
			if code != 2 {
				t.Errorf("exit code %d, want 2", code)
			}
			for _, want := range c.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("the error does not say %q: %s", want, stderr)
				}
			}
			if _, err := os.Stat(data); !os.IsNotExist(err) {
				t.Errorf("the data folder was made: %v", err)
			}
		})
	}
}

func TestInspect(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	c := start(t, on(data))
	c.put("/photos/a holiday.jpg", "jpeg")
	c.put("/photos/empty", "")
	c.put("/notes/α", "text")
	c.stop()
	file := storeFile(data)
	before := tree(t, data)

	out, errs, code := torpor(t, nil, "inspect", file)
	if code != 0 || errs != "" {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	for _, want := range []string{"service", "s3\n", "store\n", "generation", "1\n", "records", "000000000000/us-east-1"} {
		if !strings.Contains(out, want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
	out, _, code = torpor(t, nil, "inspect", "--records", file)
	if code != 0 || !strings.Contains(out, "a holiday.jpg") || !strings.Contains(out, "α") {
		t.Errorf("--records: exit code %d:\n%s", code, out)
	}
	out, _, code = torpor(t, nil, "inspect", "--json", "--records", file)
	if code != 0 {
		t.Fatalf("--json --records: exit code %d", code)
	}
	var head struct {
		Service, Part string
		Generation    uint64
		Records       int
		Partitions    []struct {
			Name    string
			Records int
		}
		Serializer struct{ Name, SHA256 string }
	}
	dec := json.NewDecoder(strings.NewReader(out))
	if err := dec.Decode(&head); err != nil {
		t.Fatal(err)
	}
	if head.Service != "s3" || head.Part != "store" || head.Generation != 1 || head.Serializer.Name != "records" || len(head.Partitions) != 1 || head.Partitions[0].Records != head.Records {
		t.Errorf("header %+v", head)
	}
	n := 0
	for dec.More() {
		var r struct {
			Partition  string
			Key, Value any
		}
		if err := dec.Decode(&r); err != nil {
			t.Fatal(err)
		}
		if r.Partition != "000000000000/us-east-1" || r.Key == nil || r.Value == nil {
			t.Errorf("record %+v", r)
		}
		n++
	}
	if n != head.Records || n < 5 { // two buckets and three objects, at the least
		t.Errorf("%d records, the header says %d", n, head.Records)
	}
	sameTree(t, before, tree(t, data))

	good := readFile(t, file)
	bad := func(name string, b []byte) string {
		path := filepath.Join(t.TempDir(), name)
		writeFile(t, path, b)
		return path
	}
	for _, c := range []struct {
		path string
		code int
		want string
	}{
		{bad("truncated", good[:len(good)/2]), 3, "truncated"},
		{bad("newer", newer(t, good)), 4, "format version 2"},
		{filepath.Join(t.TempDir(), "missing"), 5, "missing"},
		{t.TempDir(), 2, "is no file"},
	} {
		if _, errs, code := torpor(t, nil, "inspect", c.path); code != c.code || !strings.Contains(errs, c.want) || !strings.Contains(errs, c.path) {
			t.Errorf("%s: exit code %d, want %d: %s", c.path, code, c.code, errs)
		}
	}
}

func TestHealthCommand(t *testing.T) {
	c := start(t, on(filepath.Join(t.TempDir(), "data")))
	env := []string{"TORPOR_LISTEN=" + strings.TrimPrefix(c.url, "http://")}
	c.put("/bucket/key", "content")
	out, errs, code := torpor(t, env, "health")
	if code != 0 || errs != "" || !strings.Contains(out, ": ok, persistence initialized") || !strings.Contains(out, "s3") || !strings.Contains(out, "dirty") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
	out, _, code = torpor(t, env, "health", "--json")
	if code != 0 || !json.Valid([]byte(out)) {
		t.Errorf("--json: exit code %d: %s", code, out)
	}
	c.stop()
	if _, errs, code := torpor(t, env, "health"); code != 1 || !strings.Contains(errs, "no torpor answers") {
		t.Errorf("with nobody there: exit code %d: %s", code, errs)
	}
}

func TestVersionCommand(t *testing.T) {
	out, _, code := torpor(t, nil, "version", "--json")
	var v struct{ Version, Go string }
	if err := json.Unmarshal([]byte(out), &v); err != nil || code != 0 || v.Version == "" || !strings.HasPrefix(v.Go, "go") {
		t.Errorf("exit code %d, %v: %s", code, err, out)
	}
	c := start(t, options{env: []string{"PERSISTENCE=0"}})
	if a := c.do(http.MethodGet, "/_localstack/info", ""); !strings.Contains(a.body, `"version":"`+v.Version+`"`) {
		t.Errorf("the server says %s, the command %s", a.body, v.Version)
	}
	c.stop()
}

// TestWarmedCacheIsUsed: what module warm has compiled, serve only loads.
func TestWarmedCacheIsUsed(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "cache")
	out, errs, code := torpor(t, []string{"TORPOR_CACHE=" + cache}, "module", "warm")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	for _, m := range modules.All() {
		if !strings.Contains(out, m.Name+" ") {
			t.Errorf("%s was not compiled: %s", m.Name, out)
		}
	}
	times := func() map[string]string {
		found := map[string]string{}
		for name, kind := range tree(t, cache) {
			info, err := os.Stat(filepath.Join(cache, name))
			if err != nil {
				t.Fatal(err)
			}
			if kind != "folder" {
				found[name] = fmt.Sprint(info.ModTime(), kind)
			}
		}
		return found
	}
	before := times()
	if len(before) == 0 {
		t.Fatal("the cache is empty")
	}
	data := filepath.Join(t.TempDir(), "data")
	c := start(t, on(data, "--cache", cache))
	c.put("/bucket/key", "content")
	c.save()
	c.stop()
	if after := times(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("serve compiled again: %v, then %v", before, after)
	}
	if _, err := os.Stat(filepath.Join(data, "cache")); !os.IsNotExist(err) {
		t.Errorf("there is a cache in the data folder too: %v", err)
	}
}
