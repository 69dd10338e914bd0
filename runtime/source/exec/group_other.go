//go:build !unix

package exec

import osexec "os/exec"

// ownGroup does nothing: the command alone is ended with its context.
func ownGroup(*osexec.Cmd) {}

func endGroup(*osexec.Cmd) {}
