//go:build unix && !linux

package supervisor

import "syscall"

// adopt does nothing: these systems have no subreaper.
func adopt([]string) {}

// ownGroup: a process group of its own.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// groupLives reports whether the program has left something in its group.
func (g *guard) groupLives() bool { return syscall.Kill(-g.pid, 0) == nil }

func (g *guard) signal(sig syscall.Signal) { _ = syscall.Kill(-g.pid, sig) }

func (g *guard) left() []int { return []int{-g.pid} }
