package files

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"testing"
)

// system is what only Linux knows of a file.
func system(t testing.TB, path string, info fs.FileInfo) string {
	t.Helper()
	st := info.Sys().(*syscall.Stat_t)
	line := fmt.Sprintf("%d:%d", st.Uid, st.Gid)
	if !info.IsDir() && !info.Mode().IsRegular() {
		return line
	}
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	xattrs, err := xattrsOf(f)
	must(t, err)
	return fmt.Sprintf("%s %q", line, xattrs)
}

func linked(info fs.FileInfo) string {
	st := info.Sys().(*syscall.Stat_t)
	if st.Nlink < 2 {
		return ""
	}
	return fmt.Sprint(st.Dev, st.Ino)
}

// used is how many bytes of the disk a file takes.
func used(t testing.TB, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}
