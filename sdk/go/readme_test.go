package torpor_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// What the README shows is what is built and tested.
func TestReadmeShowsTheExample(t *testing.T) {
	read := func(name string) string {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	readme := read("README.md")
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(readme, -1)
	if len(blocks) != 2 {
		t.Fatalf("%d blocks of Go in README.md, want 2", len(blocks))
	}
	program := read("examples/settings/main.go")
	program = program[strings.Index(program, "package main"):]
	program = regexp.MustCompile(` //nolint:.*`).ReplaceAllString(program, "")
	if blocks[0][1] != program {
		t.Errorf("README.md shows\n%s\nexamples/settings/main.go is\n%s", blocks[0][1], program)
	}
	if test := read("examples/settings/main_test.go"); !strings.Contains(test, blocks[1][1]) {
		t.Errorf("README.md shows\n%s\nwhich examples/settings/main_test.go lacks", blocks[1][1])
	}
	// The build command is the one the tests build with.
	build := "GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -trimpath -ldflags=\"-s -w\" -o"
	for name, text := range map[string]string{"README.md": readme, "serializer.go": read("serializer.go")} {
		if !strings.Contains(text, build) {
			t.Errorf("%s does not say how to build: %s", name, build)
		}
	}
}
