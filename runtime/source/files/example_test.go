package files_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/torpor-run/torpor/runtime/source/files"
)

// A folder is captured, changed, and put back.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	data := filepath.Join(dir, "data")

	source, err := files.New(files.Config{Root: data, Exclude: []string{"LOCK"}})
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "CURRENT"), []byte("MANIFEST-000004"), 0o600); err != nil {
		log.Fatal(err)
	}
	capture, err := source.Capture(ctx)
	if err != nil {
		log.Fatal(err)
	}
	if err := os.Remove(filepath.Join(data, "CURRENT")); err != nil { // too late for the capture
		log.Fatal(err)
	}
	var native bytes.Buffer
	if err := capture.WriteNative(ctx, &native); err != nil {
		log.Fatal(err)
	}
	if err := capture.Close(); err != nil {
		log.Fatal(err)
	}
	if err := source.Restore(ctx, &native); err != nil {
		log.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(data, "CURRENT"))
	fmt.Println(string(content), err)
	if err := source.Close(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// MANIFEST-000004 <nil>
}
