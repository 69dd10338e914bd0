//go:build unix

package supervisor

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// guardProgram is this program itself.
func guardProgram() (string, error) {
	if runtime.GOOS == "linux" {
		return "/proc/self/exe", nil // the same even if its file has been replaced or removed meanwhile
	}
	return os.Executable()
}

// ownSession: no terminal, whose keys and end are the runtime's affair.
func ownSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

func killGroup(pid int) { _ = syscall.Kill(-pid, syscall.SIGKILL) }

// signalName is empty for 0.
func signalName(n int) string {
	if n == 0 {
		return ""
	}
	if name := unix.SignalName(syscall.Signal(n)); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", n)
}
