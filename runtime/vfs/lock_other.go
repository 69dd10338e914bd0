//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd)

package vfs

import (
	"errors"
	"os"
)

// flock: this system has no flock(2). Going on without a lock could cost someone their state.
func flock(*os.File) (held bool, err error) { return false, errors.ErrUnsupported }
