//go:build !linux

package file

import (
	"io/fs"
	"os"
	"time"
)

const (
	noFollow  = 0
	openFlags = os.O_RDONLY
)

func superuser() bool { return false }

func inodeTime(info fs.FileInfo) time.Time { return info.ModTime() }

func protectPages(*os.File) {}

func setOwner(*os.File, fs.FileInfo) error { return nil }
