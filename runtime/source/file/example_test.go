package file_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/torpor-run/torpor/runtime/source/file"
)

// The db.json of json-server is captured, changed, and put back.
func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	db := filepath.Join(dir, "db.json")
	source, err := file.New(file.Config{Path: db, Check: file.JSON, Empty: []byte("{}")})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	for _, content := range []string{"", `{"posts":[{"id":1}]}`} { // not there yet, and with a post
		if content != "" {
			if err := os.WriteFile(db, []byte(content), 0o600); err != nil {
				fmt.Println(err)
				return
			}
		}
		capture, err := source.Capture(ctx)
		if err != nil {
			fmt.Println(err)
			return
		}
		if err := os.WriteFile(db, []byte(`{"posts":[]}`), 0o600); err != nil { // too late for the capture
			fmt.Println(err)
			return
		}
		var native bytes.Buffer
		if err := errors.Join(capture.WriteNative(ctx, &native), capture.Close(), source.Restore(ctx, &native)); err != nil {
			fmt.Println(err)
			return
		}
		restored, err := os.ReadFile(db)
		fmt.Println(string(restored), err)
	}
	// Output:
	// {} <nil>
	// {"posts":[{"id":1}]} <nil>
}
