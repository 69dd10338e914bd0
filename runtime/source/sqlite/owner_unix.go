//go:build unix

package sqlite

import (
	"io/fs"
	"os"
	"syscall"
)

// chown gives a file an owner, where this process may.
func chown(file string, info fs.FileInfo) {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		os.Lchown(file, int(s.Uid), int(s.Gid)) //nolint:errcheck // as far as the system allows
	}
}
