package sqlite_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/torpor-run/torpor/runtime/source/sqlite"
)

// A folder of databases without one is a state too: Restore gives an empty folder.
func Example() {
	dir, err := os.MkdirTemp("", "orders")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	s, err := sqlite.New(sqlite.Config{Path: filepath.Join(dir, "data"), Pattern: "*.db"})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	capture, err := s.Capture(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	var native bytes.Buffer
	if err := errors.Join(capture.WriteNative(ctx, &native), capture.Close()); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%x\n", native.Bytes())
	fmt.Println(s.Restore(ctx, &native))
	// Output:
	// 83006d746f72706f722d73716c697465018107
	// <nil>
}
