package project

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// repository is where the templates are.
func repository() fs.FS { return os.DirFS("../..") }

// tree gives every file below a folder by its slash path.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if e.IsDir() {
			files[name+"/"] = ""
			return nil
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		files[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestCheckName(t *testing.T) {
	for _, ok := range []string{"a", "orders", "shop-orders", "a1-2-b", "settings", strings.Repeat("a", MaxNameBytes)} {
		if err := CheckName(ok); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range []string{"", "-", "-a", "a-", "a--b", "1a", "A", "aB", "a_b", "a b", "a.b", "a/b", "..", "ä", "a\x00", "a\n",
		strings.Repeat("a", MaxNameBytes+1), strings.Repeat("a", 1<<20)} {
		err := CheckName(bad)
		if refused := (*RefusedError)(nil); !errors.As(err, &refused) || len(err.Error()) > 400 {
			t.Errorf("%.100q: %v", bad, err)
		}
	}
}

func TestRename(t *testing.T) {
	for text, want := range map[string]string{
		`Name: "settings",`:                       `Name: "a-b",`,
		"`settings` and 'settings', **settings**": "`a-b` and 'a-b', **a-b**",
		"-o settings.wasm .":                      "-o a-b.wasm .",
		`#include "settings.c"`:                   `#include "a-b.c"`,
		"../settings.wasm ./settings.go":          "../a-b.wasm ./a-b.go",
		"sdk/go/examples/settings\n":              "sdk/go/examples/a-b\n",
		"// Command settings is":                  "// Command a-b is",
		"# settings\n":                            "# a-b\n",
		"-o settings_test settings_test.c\n":      "-o a-b_test a-b_test.c\n",
		"settings_tests":                          "settings_tests",
		"cp target/x/release/settings.wasm .":     "cp target/x/release/a_b.wasm .",
		"use settings::Lines;":                    "use a_b::Lines;",
		// A call has settings, too.
		`Path: "settings." + name`:         `Path: "settings." + name`,
		`path: "settings.depth"`:           `path: "settings.depth"`,
		"call.settings, call->settings":    "call.settings, call->settings",
		"{ settings: { depth: 2 } }":       "{ settings: { depth: 2 } }",
		"this one knows no settings.":      "this one knows no settings.",
		"settings.describe()":              "settings.describe()",
		"mysettings.c settings_x settings": "mysettings.c settings_x settings",
		"settingssettings.c Settings":      "settingssettings.c Settings",
		"settings":                         "settings",
		"":                                 "",
	} {
		if got := rename(text, "a-b"); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
	for file, want := range map[string]string{
		"settings.c": "a-b.c", "settings_test.c": "a-b_test.c", "src/lib.rs": "src/lib.rs", "settings/x.ts": "a-b/x.ts",
		"mysettings.c": "mysettings.c", "settingsx.c": "settingsx.c",
	} {
		if got := renameFile(file, "a-b"); got != want {
			t.Errorf("file %s became %s, want %s", file, got, want)
		}
	}
}

// TestNew checks what every template must have and become, in every language.
func TestNew(t *testing.T) {
	for _, lang := range Languages() {
		t.Run(lang, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "made")
			got, err := New(repository(), Options{Name: "shop-orders", Language: lang, Dir: dir})
			if err != nil || got != dir {
				t.Fatalf("New = %q, %v", got, err)
			}
			files := tree(t, dir)
			for _, name := range []string{"README.md", ".gitignore", "fixtures/empty.txt", "fixtures/small.txt", "torpor-sdk/LICENSE"} {
				if _, ok := files[name]; !ok {
					t.Errorf("there is no %s", name)
				}
			}
			named := false
			for name, content := range files {
				base := filepath.Base(name)
				if slices.Contains([]string{"node_modules/", "target/"}, base+"/") || filepath.Ext(name) == ".wasm" {
					t.Errorf("%s was left by a build", name)
				}
				if strings.HasPrefix(name, "torpor-sdk/") {
					if strings.HasSuffix(name, "_test.go") || strings.Contains(name, "/examples/") {
						t.Errorf("%s is of no use in a project", name)
					}
					continue
				}
				named = named || strings.Contains(content, `"shop-orders"`)
				if strings.Contains(content, `"settings"`) || strings.Contains(content, "settings.wasm") || strings.Contains(content, "settings_test") || strings.Contains(name, "settings") {
					t.Errorf("%s still speaks of the template:\n%s", name, content)
				}
				if strings.Contains(content, "../..") && base != "README.md" {
					t.Errorf("%s still speaks of the repository's folders", name)
				}
			}
			if !named {
				t.Error("the serializer has not got its name")
			}
			if left, err := filepath.Glob(filepath.Join(filepath.Dir(dir), ".*")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			if found, err := Detect(dir); err != nil || found != lang {
				t.Errorf("Detect = %q, %v", found, err)
			}
		})
	}
}

func TestNewGo(t *testing.T) {
	t.Chdir(t.TempDir())
	if _, err := New(repositoryAbs(), Options{Name: "orders", Language: "go"}); err != nil {
		t.Fatal(err)
	}
	files := tree(t, "orders")
	if mod := files["go.mod"]; !strings.HasPrefix(mod, "module example.org/orders\n") || !strings.Contains(mod, "replace github.com/torpor-run/torpor => ./torpor-sdk\n") {
		t.Errorf("go.mod:\n%s", mod)
	}
	house, err := os.ReadFile(filepath.Join(sourceDir, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	for _, mod := range []string{string(house), files["go.mod"], files["torpor-sdk/go.mod"]} {
		if !strings.Contains(mod, "\ngo "+goVersion+"\n") {
			t.Errorf("want go %s in\n%s", goVersion, mod)
		}
	}
	if _, err := New(repositoryAbs(), Options{Name: "orders", Language: "go", Dir: "two", Module: "github.com/you/orders/v2"}); err != nil {
		t.Fatal(err)
	}
	if mod := tree(t, "two")["go.mod"]; !strings.HasPrefix(mod, "module github.com/you/orders/v2\n") {
		t.Errorf("go.mod:\n%s", mod)
	}
}

func TestNewInEmptyFolder(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if got, err := New(repositoryAbs(), Options{Name: "orders", Language: "go", Dir: "."}); err != nil || got != "." {
		t.Fatalf("New = %q, %v", got, err)
	}
	files := tree(t, dir)
	if files["go.mod"] == "" || files["torpor-sdk/go.mod"] == "" {
		t.Errorf("there are only %d files", len(files))
	}
	for name := range files {
		if strings.HasPrefix(name, ".torpor-new-") {
			t.Errorf("%s was left behind", name)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for name, content := range map[string]string{"taken/mine.txt": "mine", "file": "a file"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	before := tree(t, dir)
	elsewhere := t.TempDir()
	dangling := filepath.Join(elsewhere, "link")
	if err := os.Symlink("nowhere", dangling); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what string
		o    Options
		say  string
	}{
		{"a bad name", Options{Name: "../x", Language: "go"}, `"../x"`},
		{"no language", Options{Name: "a"}, "go, rust, c, assemblyscript"},
		{"an unknown language", Options{Name: "a", Language: "cobol"}, "go, rust, c, assemblyscript"},
		{"a folder that is not empty", Options{Name: "taken", Language: "go"}, "--dir"},
		{"a file", Options{Name: "file", Language: "go"}, "--dir"},
		{"a link to nothing", Options{Name: "a", Language: "go", Dir: dangling}, "link is a symbolic link to nowhere, which is not there"},
		{"the SDK's name", Options{Name: "torpor", Language: "c"}, `"torpor" is not allowed: the SDK has it`},
		{"the name of the SDK's copy", Options{Name: "torpor-sdk", Language: "go"}, "the SDK has it"},
		{"the name of the SDK's tests", Options{Name: "torpor-test", Language: "rust"}, "the SDK has it"},
		{"a keyword of Rust", Options{Name: "fn", Language: "rust"}, "in rust it is reserved"},
		{"a crate of Rust's own", Options{Name: "core", Language: "rust"}, "in rust it is reserved"},
		{"Rust's own tests", Options{Name: "test", Language: "rust"}, "in rust it is reserved"},
		{"a word of Go's import paths", Options{Name: "internal", Language: "go"}, "in go it is reserved"},
		{"the compiler's name", Options{Name: "assemblyscript", Language: "assemblyscript"}, "in assemblyscript it is reserved"},
		{"no folder around", Options{Name: "a", Language: "go", Dir: "no/such/a"}, "no/such"},
		{"a module path in Rust", Options{Name: "a", Language: "rust", Module: "example.org/a"}, "go only"},
		{"a module path with spaces", Options{Name: "a", Language: "go", Module: "example.org/a b"}, "github.com/you"},
		{"a module path that breaks out", Options{Name: "a", Language: "go", Module: "x\n\nreplace x"}, "github.com/you"},
		{"a relative module path", Options{Name: "a", Language: "go", Module: "../a"}, "github.com/you"},
		{"the SDK's module path", Options{Name: "a", Language: "go", Module: house}, "github.com/you"},
	} {
		_, err := New(repositoryAbs(), c.o)
		if refused := (*RefusedError)(nil); !errors.As(err, &refused) || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v, want it refused with %q", c.what, err, c.say)
		}
	}
	if left, err := os.ReadDir(elsewhere); err != nil || len(left) != 1 {
		t.Errorf("beside the link there is now %v, %v", left, err)
	}
	if _, err := New(repositoryAbs(), Options{Name: "core", Language: "go", Dir: filepath.Join(t.TempDir(), "core")}); err != nil {
		t.Errorf("what is reserved in Rust is not in Go: %v", err)
	}
	if after := tree(t, dir); len(after) != len(before) || after["taken/mine.txt"] != "mine" {
		t.Errorf("there is now %v", after)
	}
}

// TestNewAllOrNothing takes away each file that is read, one after the other.
func TestNewAllOrNothing(t *testing.T) {
	for _, l := range languages() {
		read := []string{"LICENSE"}
		for _, root := range append([]string{l.template}, l.sdk...) {
			list, err := sourcesBelow(repositoryAbs(), root, root == l.template)
			if err != nil {
				t.Fatal(err)
			}
			read = append(read, list...)
		}
		dir := t.TempDir()
		for _, name := range read {
			for _, to := range []string{"new", "."} {
				_, err := New(unreadable{repositoryAbs(), name}, Options{Name: "orders", Language: l.name, Dir: filepath.Join(dir, to)})
				if !errors.Is(err, errUnreadable) {
					t.Fatalf("%s without %s: %v", l.name, name, err)
				}
				if left := tree(t, dir); len(left) > 0 {
					t.Fatalf("%s without %s: %d files are left", l.name, name, len(left))
				}
			}
		}
	}
}

// TestMoveIntoTakesBack: what was moved before a failure is removed again.
func TestMoveIntoTakesBack(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	for _, name := range []string{"a", "b", "c"} {
		if err := os.Mkdir(filepath.Join(from, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(to, "c"), nil, 0o600); err != nil { // somebody was quicker
		t.Fatal(err)
	}
	if err := moveInto(to, from); err == nil {
		t.Fatal("a folder took the place of a file")
	}
	if left := tree(t, to); len(left) != 1 {
		t.Errorf("left are %v", left)
	}
}

var errUnreadable = errors.New("this file cannot be read")

// unreadable is a file system one file of which cannot be read.
type unreadable struct {
	fs.FS
	name string
}

func (u unreadable) ReadFile(name string) ([]byte, error) {
	if name == u.name {
		return nil, errUnreadable
	}
	return fs.ReadFile(u.FS, name)
}

// TestNewDiskFails: a folder that cannot be written.
func TestNewDiskFails(t *testing.T) {
	if os.Geteuid() == 0 {
		// The superuser may write anywhere but below a file.
		_, err := New(repository(), Options{Name: "orders", Language: "go", Dir: "/dev/null/orders"})
		if err == nil {
			t.Fatal("a project was made below /dev/null")
		}
		return
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	if _, err := New(repository(), Options{Name: "orders", Language: "go", Dir: filepath.Join(dir, "orders")}); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("New = %v", err)
	}
}
