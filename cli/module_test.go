package cli

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/modules"
)

// renamed is the built-in serializer under another name and version, of the same lengths.
func renamed(t *testing.T, name, version string) []byte {
	t.Helper()
	wasm := bytes.Clone(modules.Records())
	for old, to := range map[string]string{"records": name, "1.0.0": version} {
		if len(old) != len(to) || bytes.Count(wasm, []byte(old)) == 0 {
			t.Fatalf("%q cannot become %q", old, to)
		}
		wasm = bytes.ReplaceAll(wasm, []byte(old), []byte(to))
	}
	return wasm
}

// moduleIn writes a module to a file.
func moduleIn(t *testing.T, dir, file string, wasm []byte) string {
	t.Helper()
	path := filepath.Join(dir, file)
	if err := os.WriteFile(path, wasm, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func digestText(wasm []byte) string { return fmt.Sprintf("%x", sha256.Sum256(wasm)) }

func TestModuleJourney(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	must := func(args ...string) string {
		t.Helper()
		out, errs, code := torpor(t, nil, append(append([]string{"module"}, args...), "--data", data)...)
		if code != 0 || errs != "" {
			t.Fatalf("%q: exit code %d: %s", args, code, errs)
		}
		return out
	}
	if out := must("list"); !strings.Contains(out, "records") || strings.Contains(out, "pinned") {
		t.Errorf("without a data folder, list gives\n%s", out)
	}
	if _, err := os.Stat(data); err == nil {
		t.Error("list has made the data folder")
	}
	one, two, other := renamed(t, "orders_", "1.0.0"), renamed(t, "orders_", "1.0.1"), renamed(t, "todo_x_", "9.0.0")
	file := moduleIn(t, dir, "orders.wasm", one)

	if out := must("add", file); !regexp.MustCompile(`^orders_ 1\.0\.0  ` + digestText(one) + `  pinned\n$`).MatchString(out) {
		t.Errorf("add: %q", out)
	}
	if out := must("add", file); !strings.Contains(out, "was pinned already") {
		t.Errorf("add again: %q", out)
	}
	if kept, err := os.ReadFile(filepath.Join(data, "modules", digestText(one)+".wasm")); err != nil || !bytes.Equal(kept, one) {
		t.Errorf("kept are %d bytes, %v", len(kept), err)
	}
	// A folder; of another version, what was there is said.
	many := filepath.Join(dir, "many")
	if err := os.Mkdir(many, 0o755); err != nil {
		t.Fatal(err)
	}
	moduleIn(t, many, "a.wasm", two)
	moduleIn(t, many, "b.wasm", other)
	moduleIn(t, many, ".hidden.wasm", []byte("x"))
	moduleIn(t, many, "notes.txt", []byte("x"))
	var added struct {
		Modules []struct {
			Path, Name, Version, SHA256 string
			Same                        bool
			Replaced                    *struct{ Version, SHA256 string }
		}
	}
	if err := json.Unmarshal([]byte(must("add", many, "--json")), &added); err != nil || len(added.Modules) != 2 {
		t.Fatalf("%+v, %v", added, err)
	}
	if m := added.Modules[0]; m.SHA256 != digestText(two) || m.Same || m.Replaced == nil || m.Replaced.SHA256 != digestText(one) || m.Replaced.Version != "1.0.0" {
		t.Errorf("added %+v", m)
	}
	if m := added.Modules[1]; m.Name != "todo_x_" || m.Replaced != nil || m.Same {
		t.Errorf("added %+v", m)
	}

	var listed struct {
		Modules []struct {
			Name, Version, SHA256, Added, Error string
			Size                                int
			BuiltIn                             bool `json:"built_in"`
		}
	}
	type listing struct {
		name, version string
		wasm          []byte
		builtIn       bool
	}
	var all []listing
	for _, m := range modules.All() {
		all = append(all, listing{m.Name, "1.0.0", m.Wasm, true})
	}
	all = append(all, listing{"orders_", "1.0.1", two, false}, listing{"todo_x_", "9.0.0", other, false})
	if err := json.Unmarshal([]byte(must("list", "--json")), &listed); err != nil || len(listed.Modules) != len(all) {
		t.Fatalf("%+v, %v", listed, err)
	}
	for i, want := range all {
		m := listed.Modules[i]
		if m.Name != want.name || m.Version != want.version || m.SHA256 != digestText(want.wasm) || m.Size != len(want.wasm) || m.BuiltIn != want.builtIn || (m.Added == "") != want.builtIn || m.Error != "" {
			t.Errorf("listed %+v, want %s %s", m, want.name, want.version)
		}
	}
	if out := must("list"); len(strings.Split(strings.TrimSpace(out), "\n")) != 1+len(all) || !strings.Contains(out, "built in") {
		t.Errorf("list:\n%s", out)
	}
	if out := must("warm"); !strings.Contains(out, digestText(two)) || !strings.Contains(out, digestText(modules.Records())) || strings.Contains(out, digestText(one)) {
		t.Errorf("warm:\n%s", out)
	}
	// By name, by digest, by file; what was replaced is still there, for nothing has collected it.
	for _, arg := range []string{"orders_", digestText(two), filepath.Join(many, "a.wasm")} {
		if out := must("inspect", arg); !strings.Contains(out, "orders_ 1.0.1") || !strings.Contains(out, digestText(two)) {
			t.Errorf("inspect %s:\n%s", arg, out)
		}
	}
	if out := must("inspect", digestText(modules.Records())); !strings.Contains(out, "records 1.0.0") {
		t.Errorf("inspect of what is built in:\n%s", out)
	}
	if out, errs, code := torpor(t, nil, "verify", data); code != 0 || !strings.Contains(out, "pins.json") {
		t.Errorf("verify: exit code %d, %s%s", code, out, errs)
	}
	// What was replaced goes now, and that is said.
	if out, errs, code := torpor(t, nil, "module", "remove", "orders_", "--data", data); code != 0 || out != "orders_  no longer pinned\n" ||
		strings.Count(errs, "\n") != 1 || !strings.Contains(errs, digestText(one)) {
		t.Errorf("remove: exit code %d, %q, %q", code, out, errs)
	}
	if out := must("list"); strings.Contains(out, "orders_") || !strings.Contains(out, "todo_x_") {
		t.Errorf("after remove:\n%s", out)
	}
}

// While a runtime has the data folder nothing can be pinned, but all be looked at.
func TestModulesOfAFolderInUse(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	file := moduleIn(t, dir, "orders.wasm", renamed(t, "orders_", "1.0.0"))
	if _, errs, code := torpor(t, nil, "module", "add", file, "--data", data); code != 0 {
		t.Fatal(errs)
	}
	_, stop := serving(t, nil, "--data", data)
	for _, args := range [][]string{{"add", file}, {"remove", "orders_"}} {
		_, errs, code := torpor(t, nil, append(append([]string{"module"}, args...), "--data", data)...)
		if code != exitLocked || !strings.Contains(errs, "stop it or use another data folder") {
			t.Errorf("%q: exit code %d: %s", args, code, errs)
		}
	}
	for _, args := range [][]string{{"list"}, {"inspect", "orders_"}, {"warm"}} {
		out, errs, code := torpor(t, nil, append(append([]string{"module"}, args...), "--data", data)...)
		if code != 0 || !strings.Contains(out, "orders_") {
			t.Errorf("%q: exit code %d: %s%s", args, code, out, errs)
		}
	}
	if errs, code := stop(); code != 0 {
		t.Errorf("serve: exit code %d: %s", code, errs)
	}
	// serve has not taken the pinned module for one that nobody needs.
	if out, errs, code := torpor(t, nil, "module", "list", "--data", data); code != 0 || !strings.Contains(out, "orders_") {
		t.Errorf("list: exit code %d: %s%s", code, out, errs)
	}
}

func TestModuleRefusals(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	good := renamed(t, "orders_", "1.0.0")
	empty, twice := filepath.Join(dir, "empty"), filepath.Join(dir, "twice")
	for _, d := range []string{empty, twice} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	moduleIn(t, twice, "a.wasm", good)
	moduleIn(t, twice, "b.wasm", good)
	garbage := moduleIn(t, dir, "garbage.wasm", []byte("no module at all"))
	otherABI := moduleIn(t, dir, "other.wasm", bytes.ReplaceAll(good, []byte("torpor_v1"), []byte("torpor_v7")))
	large := filepath.Join(dir, "large.wasm")
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, 65<<20); err != nil {
		t.Fatal(err)
	}
	builtInName := moduleIn(t, dir, "records.wasm", modules.Records())
	badName := moduleIn(t, dir, "name.wasm", renamed(t, "Orders!", "1.0.0"))
	for _, c := range []struct {
		args []string
		code int
		errs string
	}{
		{[]string{"add", filepath.Join(dir, "none.wasm")}, exitNotFound, "none.wasm"},
		{[]string{"add", empty}, exitNotFound, "*.wasm"},
		{[]string{"add", twice}, exitUsage, "both call themselves orders_"},
		{[]string{"add", garbage}, exitCorrupt, "garbage.wasm is refused"},
		{[]string{"add", otherABI}, exitVersion, "torpor_v7"},
		{[]string{"add", large}, exitTooLarge, "large.wasm"},
		{[]string{"add", filepath.Join(twice, "a.wasm"), "--limit-size", "1024"}, exitTooLarge, "limit"},
		{[]string{"add", builtInName}, exitUsage, "built in"},
		{[]string{"add", badName}, exitUsage, `"Orders!"`},
		{[]string{"add"}, exitUsage, "accepts 1 arg"},
		{[]string{"remove", "orders_"}, exitNotFound, "orders_"},
		{[]string{"inspect", "orders_"}, exitNotFound, "where there are files, json,"},
		{[]string{"inspect", strings.Repeat("ab", 32)}, exitNotFound, "abab"},
		{[]string{"inspect", garbage}, exitCorrupt, "refused"},
		{[]string{"inspect", otherABI}, exitVersion, "torpor_v7"},
		{[]string{"inspect", large}, exitTooLarge, "large.wasm"},
		{[]string{"inspect", dir + "/"}, exitUsage, "name a module"},
		{[]string{"build", filepath.Join(dir, "none")}, exitUsage, "no folder"},
		{[]string{"build", empty}, exitUsage, "torpor module new"},
	} {
		_, errs, code := torpor(t, nil, append(append([]string{"module"}, c.args...), "--data", data)...)
		if code != c.code || !strings.Contains(errs, c.errs) {
			t.Errorf("%q: exit code %d, want %d; %s", c.args, code, c.code, errs)
		}
	}
	if _, err := os.Stat(data); err == nil {
		t.Error("a refusal has made the data folder")
	}
	out, _, code := torpor(t, nil, "module", "inspect", garbage, "--json", "--data", data)
	var refused struct {
		Path, SHA256, Refused string
		Size                  int
	}
	if err := json.Unmarshal([]byte(out), &refused); err != nil || code != exitCorrupt || refused.Refused == "" || refused.Size != 16 || refused.Path != garbage {
		t.Errorf("exit code %d, %v: %s", code, err, out)
	}
}

// One module of several that is refused keeps all of them out.
func TestModuleAddAllOrNone(t *testing.T) {
	dir, data := t.TempDir(), t.TempDir()
	moduleIn(t, dir, "a.wasm", renamed(t, "orders_", "1.0.0"))
	moduleIn(t, dir, "b.wasm", []byte("no module"))
	if _, errs, code := torpor(t, nil, "module", "add", dir, "--data", data); code != exitCorrupt || !strings.Contains(errs, "b.wasm") {
		t.Errorf("exit code %d: %s", code, errs)
	}
	if out, _, _ := torpor(t, nil, "module", "list", "--data", data); strings.Contains(out, "orders_") {
		t.Errorf("list:\n%s", out)
	}
}

// Damage is told, by what can still be shown and the exit code, and what to do about it.
func TestModulesDamaged(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	wasm := renamed(t, "orders_", "1.0.0")
	file := moduleIn(t, dir, "orders.wasm", wasm)
	if _, errs, code := torpor(t, nil, "module", "add", file, "--data", data); code != 0 {
		t.Fatal(errs)
	}
	check := func(what string, want int, words string) {
		t.Helper()
		for _, cmd := range []string{"list", "warm"} {
			out, errs, code := torpor(t, nil, "module", cmd, "--data", data)
			if code != want || !strings.Contains(out, "records") || !strings.Contains(errs, words) {
				t.Errorf("%s: %s: exit code %d, want %d and %q\n%s%s", what, cmd, code, want, words, out, errs)
			}
		}
	}
	moduleIn(t, filepath.Join(data, "modules"), digestText(wasm)+".wasm", []byte("else"))
	check("damaged module", exitCorrupt, "add it again with torpor module add")
	if err := os.Remove(filepath.Join(data, "modules", digestText(wasm)+".wasm")); err != nil {
		t.Fatal(err)
	}
	check("missing module", exitNotFound, "add it again with torpor module add")
	out, _, code := torpor(t, nil, "verify", "--json", data)
	if code != exitNotFound || !strings.Contains(out, `"no-serializer"`) || !strings.Contains(out, "torpor module add") {
		t.Errorf("verify: exit code %d: %s", code, out)
	}
	if _, errs, code := torpor(t, nil, "module", "add", file, "--data", data); code != 0 {
		t.Errorf("adding it again: exit code %d: %s", code, errs)
	}
	check("added again", 0, "")
	moduleIn(t, filepath.Join(data, "modules"), "pins.json", []byte("{}"))
	check("damaged pins", exitCorrupt, "torpor verify --repair")
	if _, errs, code := torpor(t, nil, "module", "add", file, "--data", data); code != exitCorrupt {
		t.Errorf("adding to damaged pins: exit code %d: %s", code, errs)
	}
	if _, errs, code := torpor(t, nil, "verify", "--repair", data); code != 0 {
		t.Errorf("repair: exit code %d: %s", code, errs)
	}
	for _, args := range [][]string{{"add", file}, {"remove", "orders_"}} {
		_, errs, code := torpor(t, nil, append(append([]string{"module"}, args...), "--data", data)...)
		if code != 0 || !strings.Contains(errs, "pins.json.corrupt-") || !strings.Contains(errs, "when all are pinned again, delete it") {
			t.Errorf("%q after the repair: exit code %d: %s", args, code, errs)
		}
	}
	moduleIn(t, filepath.Join(data, "modules"), "pins.json", []byte(`{"version":2}`))
	check("newer pins", exitVersion, "newer torpor")
}

func TestModuleInspect(t *testing.T) {
	t.Chdir(t.TempDir())
	out, errs, code := torpor(t, nil, "module", "inspect", "records", "--json")
	var m struct {
		Path, Name, SHA256, Media string
		Reads                     []int
		Operations                []string
		Memory                    int64
		Shape                     struct {
			Size, Functions int
			Imports         []struct{ Module, Name, Signature string }
			Exports         []struct{ Name, Signature string }
			MemoryMax       int64 `json:"memory_max"`
		}
	}
	if err := json.Unmarshal([]byte(out), &m); err != nil || code != 0 {
		t.Fatalf("exit code %d, %v: %s%s", code, err, out, errs)
	}
	if m.Path != "" || m.Name != "records" || m.SHA256 != digestText(modules.Records()) || m.Media == "" || len(m.Reads) == 0 || len(m.Operations) < 2 {
		t.Errorf("descriptor: %+v", m)
	}
	if m.Memory < 64<<10 || m.Shape.Size != len(modules.Records()) || m.Shape.Functions == 0 || m.Shape.MemoryMax == 0 || len(m.Shape.Imports) == 0 || len(m.Shape.Exports) == 0 {
		t.Errorf("shape: %+v", m)
	}
	if entries, err := os.ReadDir("."); err != nil || len(entries) > 0 {
		t.Errorf("inspect has left %v, %v", entries, err)
	}
	text, _, _ := torpor(t, nil, "module", "inspect", "records")
	for _, want := range []string{"serializer  records 1.0.0", digestText(modules.Records()), "torpor_v1.next", "(i32, i32) -> (i64)", "torpor_describe", "memory", "operations"} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "nesting") {
		t.Errorf("records are inside of others in\n%s", text)
	}
	if text, _, _ := torpor(t, nil, "module", "inspect", "pickle"); !strings.Contains(text, "nesting     .[!\n") {
		t.Errorf("there is no nesting in\n%s", text)
	}
}

func TestModuleNewAndBuild(t *testing.T) {
	t.Setenv("GOPROXY", "off")
	t.Setenv("GOFLAGS", "-mod=mod")
	dir := filepath.Join(t.TempDir(), "a folder")
	out, errs, code := torpor(t, nil, "module", "new", "orders", "--lang", "go", "--dir", dir, "--module", "github.com/you/shop-serializer")
	if code != 0 || errs != "" || !strings.Contains(out, "cd '"+dir+"'\n") || !strings.Contains(out, "torpor module test orders.wasm") {
		t.Fatalf("exit code %d: %s%s", code, out, errs)
	}
	if _, errs, code := torpor(t, nil, "module", "new", "orders", "--lang", "go", "--dir", dir); code != exitUsage || !strings.Contains(errs, "not empty") {
		t.Errorf("again: exit code %d: %s", code, errs)
	}
	for _, args := range [][]string{{"Orders", "--lang", "go"}, {"orders"}, {"orders", "--lang", "cobol"}, {"--lang", "go"}, {"records", "--lang", "go"}} {
		if _, errs, code := torpor(t, nil, append([]string{"module", "new"}, args...)...); code != exitUsage {
			t.Errorf("%q: exit code %d: %s", args, code, errs)
		}
	}
	out, errs, code = torpor(t, nil, "module", "build", dir, "--json")
	var m struct{ Path, Name, SHA256 string }
	if err := json.Unmarshal([]byte(out), &m); err != nil || code != 0 || m.Name != "orders" || m.Path != filepath.Join(dir, "orders.wasm") {
		t.Fatalf("exit code %d, %v: %s%s", code, err, out, errs)
	}
	if wasm, err := os.ReadFile(m.Path); err != nil || digestText(wasm) != m.SHA256 {
		t.Errorf("%d bytes, %v, not of digest %s", len(wasm), err, m.SHA256)
	}
	// What is built and breaks the rules is refused by build, too.
	broken := filepath.Join(dir, "main.go")
	src, err := os.ReadFile(broken)
	if err != nil {
		t.Fatal(err)
	}
	src = regexp.MustCompile(`Media: +"text/plain"`).ReplaceAll(src, []byte(`Media: ""`))
	if err := os.WriteFile(broken, src, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := torpor(t, nil, "module", "build", dir); code != exitFailure || !strings.Contains(errs, "was built, and is refused") || !strings.Contains(errs, "media") {
		t.Errorf("a module without a media type: exit code %d: %s", code, errs)
	}
	if err := os.WriteFile(broken, []byte("package main\n\nno Go\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := torpor(t, nil, "module", "build", dir); code != exitFailure || !strings.Contains(errs, "main.go:3") {
		t.Errorf("a module that does not build: exit code %d: %s", code, errs)
	}
}
