// Package authors does what an author of a serializer does, in every language there is an SDK for, with the
// built program and outside this repository: new, build, the project's own tests, test, add, list, inspect.
package authors

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/sdk/project"
	"github.com/torpor-run/torpor/tests/need"
	"github.com/torpor-run/torpor/tests/program"
)

// torporFile is the built binary, built once by TestMain.
var torporFile string

func TestMain(m *testing.M) { os.Exit(program.Run(m, &torporFile)) }

// author is somebody with a folder, who has the built program and to whom go gives nothing from a network. npm may
// fetch what a project's lock file names, unless it has it already.
type author struct {
	t   *testing.T
	dir string // where commands run
}

// run runs a program to its end.
func (a author) run(name string, args ...string) (stdout, stderr string, code int) {
	a.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = a.dir
	cmd.Env = append(os.Environ(), "GOPROXY=off", "GOFLAGS=-mod=mod")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		a.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// must runs a program that has to succeed.
func (a author) must(name string, args ...string) (stdout string) {
	a.t.Helper()
	stdout, stderr, code := a.run(name, args...)
	if code != 0 {
		a.t.Fatalf("%s %q: exit code %d\n%s%s", filepath.Base(name), args, code, stdout, stderr)
	}
	return stdout
}

// ownTests runs the tests of a project as its README says, in the language's own way.
func (a author) ownTests(lang string) {
	a.t.Helper()
	switch lang {
	case "go":
		a.must("go", "vet", "./...")
		a.must("go", "test", "./...")
	case "rust":
		a.must(need.Program(a.t, "cargo"), "test", "--quiet", "--offline")
	case "c":
		tests, err := filepath.Glob(filepath.Join(a.dir, "*_test.c"))
		if err != nil || len(tests) != 1 {
			a.t.Fatalf("tests in C: %v, %v", tests, err)
		}
		out := filepath.Join(a.t.TempDir(), "tests")
		a.must(compiler(a.t), "-std=c11", "-Wall", "-Wextra", "-Itorpor-sdk", "-o", out, filepath.Base(tests[0]))
		a.must(out)
	case "assemblyscript":
		a.must(need.Program(a.t, "npm"), "test")
	default:
		a.t.Fatalf("how are the tests of %s run?", lang)
	}
}

// compiler is one for C on this machine itself.
func compiler(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"cc", "clang", "clang-14"} {
		if file, err := exec.LookPath(name); err == nil {
			return file
		}
	}
	need.Missing(t, "a C compiler")
	return ""
}

// built builds the project, or skips the test where the programs for it are missing.
func (a author) built(name string) (digest string) {
	a.t.Helper()
	out, errs, code := a.run(torporFile, "module", "build", "--json")
	switch {
	case strings.Contains(errs, "which is not here"):
		need.Missing(a.t, strings.TrimSpace(errs))
	case strings.Contains(errs, "npm error network"), strings.Contains(errs, "npm ERR! network"):
		need.Missing(a.t, "npm's packages, or a network")
	case code != 0:
		a.t.Fatalf("module build: exit code %d\n%s%s", code, out, errs)
	}
	var info struct{ Path, Name, Version, SHA256 string }
	if err := json.Unmarshal([]byte(out), &info); err != nil || info.Name != name || info.Path != name+".wasm" || info.Version != "1.0.0" {
		a.t.Fatalf("module build says %+v, %v\n%s", info, err, out)
	}
	return info.SHA256
}

func TestAuthors(t *testing.T) {
	for _, lang := range project.Languages() {
		t.Run(lang, func(t *testing.T) {
			t.Parallel()
			const name = "shop-orders"
			a := author{t, t.TempDir()}
			a.must(torporFile, "module", "new", name, "--lang", lang)
			a.dir = filepath.Join(a.dir, name)
			digest := a.built(name)
			a.ownTests(lang)
			if out := a.must(torporFile, "module", "test", name+".wasm", "--fixtures", "fixtures"); !strings.Contains(out, "all passed") {
				t.Errorf("module test:\n%s", out)
			}
			if out := a.must(torporFile, "module", "inspect", name+".wasm"); !strings.Contains(out, name+" 1.0.0") || !strings.Contains(out, "torpor_v1.next") || !strings.Contains(out, digest) {
				t.Errorf("module inspect:\n%s", out)
			}
			a.must(torporFile, "module", "add", ".", "--data", "data")
			if out := a.must(torporFile, "module", "list", "--data", "data"); !strings.Contains(out, name) || !strings.Contains(out, digest) {
				t.Errorf("module list:\n%s", out)
			}
			if out := a.must(torporFile, "module", "warm", "--data", "data"); !strings.Contains(out, digest) {
				t.Errorf("module warm:\n%s", out)
			}
			if out := a.must(torporFile, "verify", "data"); !strings.Contains(out, digest) {
				t.Errorf("verify:\n%s", out)
			}
			// The same in another folder gives the same bytes.
			other := author{t, t.TempDir()}
			other.must(torporFile, "module", "new", name, "--lang", lang, "--dir", "elsewhere")
			other.dir = filepath.Join(other.dir, "elsewhere")
			if again := other.built(name); again != digest {
				t.Errorf("built elsewhere, the digest is %s, not %s", again, digest)
			}
		})
	}
}
