package project

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const langGo = "go"

// goVersion is what the SDK needs, as this repository's go.mod says.
const goVersion = "1.26.0"

// house is the path the SDK is imported by.
const house = "github.com/torpor-run/torpor"

func goLanguage() language {
	return language{
		name:     langGo,
		reserved: []string{"main", "internal", "vendor"}, // as the end of an import path
		template: "sdk/go/examples/settings",
		sdk:      []string{"sdk/go", "host/abi"},
		also: func(o Options) map[string]string {
			return map[string]string{
				"go.mod": "module " + o.Module + "\n\ngo " + goVersion + "\n\nrequire " + house + " v0.0.0\n\n" +
					"// The SDK, as torpor module new has copied it.\nreplace " + house + " => ./" + sdkFolder + "\n",
				sdkFolder + "/go.mod": "module " + house + "\n\ngo " + goVersion + "\n",
				".gitignore":          "/*.wasm\n",
			}
		},
		detect: func(dir string, files []string) bool {
			return hasSuffix(files, ".go") && inGoModule(dir)
		},
		build: buildGo,
	}
}

// inGoModule reports whether a folder or one around it has a go.mod.
func inGoModule(dir string) bool {
	abs, err := filepath.Abs(dir)
	for ; err == nil; abs = filepath.Dir(abs) {
		if exists(abs, "go.mod") {
			return true
		}
		if abs == filepath.Dir(abs) {
			break
		}
	}
	return false
}

// checkModulePath refuses what the go command would, in words of our own, and a bit more.
func checkModulePath(p string) error {
	element := regexp.MustCompile(`^[A-Za-z0-9_~-]([A-Za-z0-9._~-]*[A-Za-z0-9_~-])?$`)
	elements := strings.Split(p, "/")
	if len(p) > 200 || slices.ContainsFunc(elements, func(e string) bool { return !element.MatchString(e) }) || p == house {
		return refuse("module path %.200q is not allowed: it must be like github.com/you/orders", p)
	}
	return nil
}

func buildGo(b *builder) error {
	program, err := b.need("the program go", "install Go "+goVersion+" or newer from https://go.dev/dl/", "go")
	if err != nil {
		return err
	}
	env := []string{"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0",
		"GOWORK=off", // a workspace around the project does not know it
		"GOFLAGS=" + goFlags(os.Getenv("GOFLAGS"))}
	if b.name == "" {
		importPath, err := b.ask(env, program, "list", ".")
		if err != nil {
			return err
		}
		b.name = lastElement(importPath)
	}
	return b.run(env, program, "build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", b.result, ".")
}

// goFlags keeps of $GOFLAGS what says where modules come from: the rest changes what is built. It is never
// empty, for then go would take the flags that go env -w has set.
func goFlags(flags string) string {
	kept := []string{"-buildvcs=false"}
	for _, flag := range strings.Fields(flags) {
		if name, _, _ := strings.Cut(strings.TrimLeft(flag, "-"), "="); strings.HasPrefix(flag, "-") && (name == "mod" || name == "modcacherw") {
			kept = append(kept, flag)
		}
	}
	return strings.Join(kept, " ")
}

// lastElement is the part of an import path that names the program, as for go build: a major version does
// not.
func lastElement(importPath string) string {
	last := path.Base(importPath)
	if regexp.MustCompile(`^v([2-9]|[1-9][0-9]+)$`).MatchString(last) && path.Dir(importPath) != "." {
		return path.Base(path.Dir(importPath))
	}
	return last
}
