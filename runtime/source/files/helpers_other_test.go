//go:build !linux

package files

import (
	"io/fs"
	"testing"
)

func system(testing.TB, string, fs.FileInfo) string { return "" }

func linked(fs.FileInfo) string { return "" }

func used(testing.TB, string) int64 { return 0 }
