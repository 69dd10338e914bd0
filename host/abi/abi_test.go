package abi_test

import (
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
)

// What next returned to a guest: how much there is, and what follows.
func ExampleNextEnd() {
	result := int64(4096) | abi.NextEnd
	fmt.Println("bytes:", uint32(result), "end:", result&abi.NextEnd != 0, "more of this record:", result&abi.NextMore != 0)
	// Output: bytes: 4096 end: true more of this record: false
}

// Errors of every floor wrap one of the sentinels.
func ExampleErrCorrupt() {
	err := fmt.Errorf("service %s, part %s, %s: chunk 3 at offset %d: %w", "s3", "store", "store.state", 65536, abi.ErrCorrupt)
	fmt.Println(errors.Is(err, abi.ErrCorrupt), errors.Is(err, abi.ErrVersion))
	fmt.Println(err)
	// Output:
	// true false
	// service s3, part store, store.state: chunk 3 at offset 65536: corrupt
}

func specification(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("ABI.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The numbers and names here are those of ABI.md.
func TestSpecification(t *testing.T) {
	spec := specification(t)
	for _, name := range []string{abi.Namespace, abi.ImportNext, abi.ImportEmit, abi.ImportArg, abi.ImportFail, abi.ImportLog,
		abi.ExportMemory, abi.ExportInitialize, abi.ExportDescribe, abi.ExportSave, abi.ExportLoad, abi.ExportMigrate, abi.ExportInspect,
		abi.OpDescribe, abi.OpSave, abi.OpLoad, abi.OpMigrate, abi.OpInspect} {
		if !strings.Contains(spec, "`"+name+"`") {
			t.Errorf("ABI.md does not know %s", name)
		}
	}
	codes := map[string]abi.Code{"internal": abi.CodeInternal, "corrupt": abi.CodeCorrupt, "version": abi.CodeVersion,
		"unsupported": abi.CodeUnsupported, "too large": abi.CodeTooLarge}
	for _, row := range regexp.MustCompile(`(?m)^\| (\d+) \| ([a-z ]+) \|`).FindAllStringSubmatch(spec, -1) {
		if code, ok := codes[row[2]]; !ok || fmt.Sprint(code) != row[1] {
			t.Errorf("ABI.md: %s is code %s; here %d", row[2], row[1], code)
		}
		delete(codes, row[2])
	}
	if len(codes) > 0 {
		t.Errorf("ABI.md lacks %v", codes)
	}
	for bit, want := range map[int]int64{32: abi.NextEnd, 33: abi.NextMore} {
		if !regexp.MustCompile(fmt.Sprintf(`(?m)^\| %d \| `, bit)).MatchString(spec) || want != 1<<bit {
			t.Errorf("bit %d of next is %#x", bit, want)
		}
	}
	if levels := fmt.Sprintf("%d debug, %d info, %d warn, %d error", abi.LogDebug, abi.LogInfo, abi.LogWarn, abi.LogError); !strings.Contains(spec, levels) {
		t.Errorf("ABI.md has other levels than %s", levels)
	}
	if !strings.Contains(spec, "cut to 1,024 bytes") || abi.MaxLogBytes != 1024 {
		t.Error("the length of a log line differs")
	}
}

// The maps of ABI.md have the keys of the types here, and no others.
func TestSpecificationMaps(t *testing.T) {
	spec := specification(t)
	for title, v := range map[string]any{"Call": abi.Call{}, "Descriptor": abi.Descriptor{}, "Failure": abi.Failure{}} {
		_, section, ok := strings.Cut(spec, "\n### "+title+"\n")
		if !ok {
			t.Errorf("ABI.md has no section %s", title)
			continue
		}
		section, _, _ = strings.Cut(section, "\n#")
		var want, got []string
		for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]+`) \\|").FindAllStringSubmatch(section, -1) {
			for key := range strings.SplitSeq(row[1], ", ") {
				want = append(want, strings.Trim(key, "`"))
			}
		}
		for f := range reflect.TypeOf(v).Fields() {
			key, _, _ := strings.Cut(f.Tag.Get("cbor"), ",")
			got = append(got, key)
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s has the keys %q, ABI.md %q", title, got, want)
		}
	}
}

// A guest written in Go may use this package and record: they import the standard library only.
func TestImportsStandardLibraryOnly(t *testing.T) {
	for _, dir := range []string{".", "record"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatal(dir, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, im := range f.Imports {
				path := strings.Trim(im.Path.Value, `"`)
				first, _, _ := strings.Cut(path, "/")
				if strings.Contains(first, ".") && path != "github.com/torpor-run/torpor/host/abi" {
					t.Errorf("%s imports %s", file, path)
				}
			}
		}
	}
}
