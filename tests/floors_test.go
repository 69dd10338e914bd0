// Package tests holds what crosses packages. The tests in this folder keep the house as DESIGN.md,
// section 3, draws it: what may import what, and what no package may have. The folders below hold
// end-to-end, compatibility and benchmark tests.
package tests

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// house is the module path.
const house = "github.com/torpor-run/torpor"

// floors lists the packages of the house from the top down, "." being the program and "x/..." the
// folder x and what of it is not listed by itself. A package may import what stands below it here, and nothing
// else of the house. Sources and remotes stand on runtime, whose interfaces they are. host/abi stands lowest:
// the SDK of guests, sdk/go, is built on it.
func floors() []string {
	return []string{
		".",
		"examples/...",
		"cli",
		"cli/config",
		"server",
		"server/gateway",
		"server/aws",
		"server/embedded/...",
		"metrics",
		"runtime/source/...",
		"runtime/remote/...",
		"runtime",
		"runtime/hooks",
		"runtime/supervisor",
		"runtime/snapshot/repository",
		"runtime/snapshot/archive",
		"runtime/snapshot/seal",
		"runtime/snapshot",
		"runtime/spool",
		"runtime/statedir",
		"runtime/notation",
		"runtime/statefile",
		"runtime/vfs/vfstest",
		"runtime/vfs",
		"host/conformance",
		"host",
		"host/fuel",
		"modules",
		"sdk/go/examples/...",
		"sdk/go/torportest",
		"sdk/go/jsonscan",
		"sdk/...",
		"host/abi/record",
		"host/abi",
	}
}

// anywhere are the packages that may import all of the house and that nothing outside tests imports.
func anywhere(pkg string) bool { return pkg == "tests" || strings.HasPrefix(pkg, "tests/") }

// floorOf is the place of a package in floors.
func floorOf(pkg string) (int, error) {
	if i := slices.Index(floors(), pkg); i >= 0 {
		return i, nil
	}
	for i, f := range floors() {
		if folder, all := strings.CutSuffix(f, "/..."); all && (pkg == folder || strings.HasPrefix(pkg, folder+"/")) {
			return i, nil
		}
	}
	return 0, fmt.Errorf("package %s is on no floor: give it one in floors, and in DESIGN.md", pkg)
}

// goPackage is what go list tells of a package.
type goPackage struct {
	ImportPath string
	Dir        string
	Standard   bool
	Imports    []string
	Deps       []string
	Error      *struct{ Err string }
}

// name is the package's path in the house, "." for its root.
func (p goPackage) name() string {
	name, ok := inHouse(p.ImportPath)
	if !ok {
		return p.ImportPath
	}
	return name
}

func inHouse(importPath string) (string, bool) {
	if importPath == house {
		return ".", true
	}
	return strings.CutPrefix(importPath, house+"/")
}

// list asks go list about packages, patterns being relative to the house's root.
func list(t *testing.T, args ...string) []goPackage {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-e", "-json=ImportPath,Dir,Standard,Imports,Deps,Error"}, args...)...)
	cmd.Dir = ".."
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %q: %v\n%s", args, err, complaint.String())
	}
	var pkgs []goPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatalf("go list %q: %v", args, err)
		}
		// A folder that has tests only, or only files of other systems, is no error.
		if p.Error != nil && !strings.Contains(p.Error.Err, "no non-test Go files") && !strings.Contains(p.Error.Err, "build constraints exclude all Go files") {
			t.Fatalf("go list: %s: %s", p.ImportPath, p.Error.Err)
		}
		pkgs = append(pkgs, p)
	}
}

func TestImportsGoDownOnly(t *testing.T) {
	pkgs := list(t, "./...")
	if len(pkgs) < 10 {
		t.Fatalf("go list found %d packages: is this the whole house?", len(pkgs))
	}
	for _, p := range pkgs {
		if anywhere(p.name()) {
			continue
		}
		from, err := floorOf(p.name())
		if err != nil {
			t.Error(err)
			continue
		}
		for _, imported := range p.Imports {
			name, ok := inHouse(imported)
			if !ok {
				continue
			}
			if anywhere(name) {
				t.Errorf("%s imports %s, which is for tests", p.name(), name)
				continue
			}
			if to, err := floorOf(name); err != nil {
				t.Error(err)
			} else if to <= from {
				t.Errorf("%s imports %s, which does not stand below it: %s", p.name(), name, strings.Join(floors(), " > "))
			}
		}
	}
}

// TestFloorsAreTold checks the rule's own ground: that every package the design names is a floor, and
// that the order is the design's.
func TestFloorsAreTold(t *testing.T) {
	last := -1
	for _, pkg := range []string{".", "cli", "server", "server/embedded/s3", "metrics", "runtime/source/http",
		"runtime/remote/folder", "runtime", "runtime/snapshot/repository", "runtime/snapshot", "runtime/spool", "runtime/statedir", "runtime/statefile", "runtime/vfs", "host", "modules", "sdk/go"} {
		at, err := floorOf(pkg)
		if err != nil {
			t.Error(err)
		}
		if at <= last {
			t.Errorf("%s does not stand below the one before it", pkg)
		}
		last = at
	}
	if _, err := floorOf("helpers"); err == nil {
		t.Error("a package of no floor was given one")
	}
	if _, err := floorOf("clients"); err == nil {
		t.Error("clients was taken for cli")
	}
}

// TestWhatPackagesNeverReach looks at all that a package imports, directly or not.
func TestWhatPackagesNeverReach(t *testing.T) {
	all := list(t, "-deps", "./...")
	standard := map[string]bool{}
	for _, p := range all {
		standard[p.ImportPath] = p.Standard
	}
	seen := map[string]bool{}
	for _, p := range all {
		name, ok := inHouse(p.ImportPath)
		if !ok {
			continue
		}
		for _, rule := range []struct {
			of     func(pkg string) bool
			reason string
			never  func(dep string) bool
		}{
			{below("runtime"), "the runtime knows no Wasm, no HTTP framework and no metrics, but its own interfaces", func(dep string) bool {
				return slices.ContainsFunc([]string{"github.com/tetratelabs/wazero", "github.com/labstack/echo", "github.com/prometheus", house + "/host"},
					func(no string) bool {
						return (dep == no || strings.HasPrefix(dep, no+"/")) && !strings.HasPrefix(dep, house+"/host/abi")
					})
			}},
			{below("host"), "the host and the runtime meet in cli only", func(dep string) bool {
				return dep == house+"/runtime" || strings.HasPrefix(dep, house+"/runtime/")
			}},
			{below("host/abi"), "guests import it", func(dep string) bool {
				return !standard[dep] && dep != house+"/host/abi" && !strings.HasPrefix(dep, house+"/host/abi/")
			}},
			{below("sdk/go"), "guests are built from it", func(dep string) bool {
				return !standard[dep] && !strings.HasPrefix(dep, house+"/host/abi") && !strings.HasPrefix(dep, house+"/sdk/go")
			}},
		} {
			if !rule.of(name) {
				continue
			}
			seen[rule.reason] = true
			for _, dep := range p.Deps {
				if rule.never(dep) {
					t.Errorf("%s reaches %s: %s", name, dep, rule.reason)
				}
			}
		}
	}
	if len(seen) < 3 {
		t.Errorf("only these rules met a package: %v", seen)
	}
}

func below(folder string) func(string) bool {
	return func(pkg string) bool { return pkg == folder || strings.HasPrefix(pkg, folder+"/") }
}

// source is one Go file.
type source struct {
	*ast.File
	test bool // its name ends in _test.go
}

// pkg is the name of the package that a file is part of or tests.
func (s source) pkg() string { return strings.TrimSuffix(s.Name.Name, "_test") }

// sources gives every Go file of the house by folder, whatever system it is for.
func sources(t *testing.T) map[string][]source {
	t.Helper()
	files := map[string][]source{}
	err := filepath.WalkDir("..", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (name != ".." && strings.HasPrefix(d.Name(), ".") || strings.HasPrefix(d.Name(), "_") || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(name) != ".go" {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		folder, err := filepath.Rel("..", filepath.Dir(name))
		if err != nil {
			return err
		}
		folder = filepath.ToSlash(folder)
		files[folder] = append(files[folder], source{f, strings.HasSuffix(name, "_test.go")})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestPackageComments(t *testing.T) {
	for folder, files := range sources(t) {
		found := false
		for _, f := range files {
			text := f.Doc.Text()
			switch {
			case text == "":
				continue
			case f.pkg() == "main" && strings.HasPrefix(text, "Command "), strings.HasPrefix(text, "Package "+f.pkg()+" "),
				strings.HasPrefix(text, "Package "+f.Name.Name+" "):
				found = true
			default:
				t.Errorf("%s: the package comment begins with %.40q; it should say Package or Command and the name", folder, text)
			}
		}
		if !found {
			t.Errorf("%s has no package comment a newcomer could start from", folder)
		}
	}
}

// nameOf is the name of the package in a folder.
func nameOf(folder string) string {
	if folder == "sdk/go" {
		return "torpor" // what an author of a guest imports; the folder says for which language
	}
	return path.Base(folder)
}

func TestPackageNames(t *testing.T) {
	for folder, files := range sources(t) {
		for _, f := range files {
			name := f.pkg()
			if slices.Contains([]string{"util", "utils", "common", "types", "manager", "helper", "helpers", "misc", "base", "shared"}, name) {
				t.Errorf("package %s in %s: the name says nothing of what it is for", name, folder)
			}
			if name != "main" && name != nameOf(folder) {
				t.Errorf("package %s in folder %s: a reader looks for package %s there", name, folder, nameOf(folder))
				break
			}
		}
	}
}

// constants are package-level variables that are never written: Go has no constants of their kinds.
// Whoever adds one here has looked for writes to it.
func constants() []string {
	return []string{
		"host.randomSeed",                // bytes
		"tests/bench.zeroes",             // bytes
		"host/abi/record.leaf",           // what one byte says of a CBOR item, a table
		"runtime/statefile.magic",        // bytes of the format
		"runtime/statefile.chunkTag",     // likewise
		"runtime/statefile.trailerHead",  // likewise
		"runtime/statefile.trailerWords", // likewise
	}
}

// A guest is one module with one serializer, which its exports, functions without arguments, must find:
// it registers itself. Nothing of this runs in the program.
func inGuests() []string {
	return []string{"sdk/go.called", "sdk/go.exported", "sdk/go/examples/document.init", "sdk/go/examples/settings.init", "sdk/go/examples/todo.init"}
}

func TestNoGlobalState(t *testing.T) {
	allowed := slices.Concat(constants(), inGuests())
	seen := map[string]bool{}
	for folder, files := range sources(t) {
		for _, f := range files {
			if f.test {
				continue
			}
			for _, d := range f.Decls {
				var names []string
				switch d := d.(type) {
				case *ast.FuncDecl:
					if d.Recv == nil && d.Name.Name == "init" {
						names = []string{"init"}
					}
				case *ast.GenDecl:
					names = globals(d)
				}
				for _, name := range names {
					full := folder + "." + name
					seen[full] = true
					if !slices.Contains(allowed, full) {
						t.Errorf("%s is state or work of a package's own: pass it in, make it a constant, or call it where it is needed", full)
					}
				}
			}
		}
	}
	for _, name := range allowed {
		if !seen[name] {
			t.Errorf("%s is allowed, and is no more", name)
		}
	}
}

// globals gives the variables a declaration makes, those left out that nobody can or would write:
// compile-time assertions, errors, and embedded files.
func globals(d *ast.GenDecl) []string {
	if d.Tok != token.VAR {
		return nil
	}
	var names []string
	for _, spec := range d.Specs {
		v := spec.(*ast.ValueSpec)
		if embedded(d.Doc) || embedded(v.Doc) {
			continue
		}
		for i, name := range v.Names {
			if name.Name != "_" && !(i < len(v.Values) && isError(v.Values[i])) {
				names = append(names, name.Name)
			}
		}
	}
	return names
}

func embedded(doc *ast.CommentGroup) bool {
	return doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed ") })
}

// isError reports whether an expression makes an error value.
func isError(e ast.Expr) bool {
	call, ok := e.(*ast.CallExpr)
	if !ok {
		return false
	}
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	pkg, ok := f.X.(*ast.Ident)
	return ok && (pkg.Name == "errors" && f.Sel.Name == "New" || pkg.Name == "fmt" && f.Sel.Name == "Errorf")
}

// TestGlobalsAreSeen feeds the check what it must and must not find.
func TestGlobalsAreSeen(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "x.go", `package x
var a int
var b, errC = 1, errors.New("c")
var _ io.Reader = (*R)(nil)
//go:embed d
var d string
var (
	e = map[string]int{}
	ErrF = fmt.Errorf("f")
)
const g = 1
`, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range f.Decls {
		got = append(got, globals(d.(*ast.GenDecl))...)
	}
	if want := []string{"a", "b", "e"}; !slices.Equal(got, want) {
		t.Errorf("found %v, want %v", got, want)
	}
}
