package supervisor

import (
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// adopt has this process become the parent of all that its descendants leave behind, and gives it a name of
// its own.
func adopt(service []string) {
	// Since Linux 3.4. Without it, where a sandbox forbids it, the process group is what is caught.
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	if len(service) > 0 {
		_ = os.WriteFile("/proc/self/comm", []byte("guard:"+service[0]), 0) // cut to 15 bytes; for people
	}
}

// ownGroup: a process group of its own, and death with the guard.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// groupLives is asked when no child is left: then there is nothing, as orphans would be children.
func (g *guard) groupLives() bool { return false }

// signal signals all descendants.
func (g *guard) signal(sig syscall.Signal) {
	if !g.reaped {
		_ = syscall.Kill(-g.pid, sig) // at once, so that none of the group escapes by forking
	}
	for _, p := range descendants(os.Getpid()) {
		if g.reaped || p.group != g.pid {
			_ = syscall.Kill(p.pid, sig)
		}
	}
}

// left lists what is left.
func (g *guard) left() []int {
	var pids []int
	for _, p := range descendants(os.Getpid()) {
		if p.state != 'Z' {
			pids = append(pids, p.pid)
		}
	}
	slices.Sort(pids)
	return pids
}
