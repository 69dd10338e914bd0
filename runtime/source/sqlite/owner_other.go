//go:build !unix

package sqlite

import "io/fs"

func chown(string, fs.FileInfo) {}
