package supervisor

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// process is what /proc tells of one.
type process struct {
	pid, parent, group int
	state              byte   // Z: a zombie
	start              uint64 // in clock ticks since the machine was started
}

// processes lists all that can be seen; none where there is no /proc.
func processes() []process {
	names, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	list := make([]process, 0, len(names))
	for _, name := range names {
		if p, ok := readProcess(name); ok {
			list = append(list, p)
		}
	}
	return list
}

// readProcess reads a stat file, proc_pid_stat(5); a process that has gone meanwhile is no process.
func readProcess(name string) (p process, ok bool) {
	b, err := os.ReadFile(name)
	if err != nil {
		return p, false
	}
	// pid (comm) state ppid pgrp …; comm may be anything.
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return p, false
	}
	const start = 22 - 3 // the fields are counted from 1, and those behind comm begin with the third
	fields := strings.Fields(string(b[end+1:]))
	if len(fields) <= start {
		return p, false
	}
	var errs [4]error
	p.pid, errs[0] = strconv.Atoi(strings.TrimSpace(string(b[:open])))
	p.parent, errs[1] = strconv.Atoi(fields[1])
	p.group, errs[2] = strconv.Atoi(fields[2])
	p.start, errs[3] = strconv.ParseUint(fields[start], 10, 64)
	p.state = fields[0][0]
	return p, errs == [4]error{}
}

// descendants lists the children of a process, theirs, and so on.
func descendants(of int) []process {
	all := processes()
	children := map[int][]process{}
	for _, p := range all {
		children[p.parent] = append(children[p.parent], p)
	}
	found := slices.Clone(children[of])
	for i := 0; i < len(found) && len(found) <= len(all); i++ { // bounded, should numbers have been used again between two reads
		found = append(found, children[found[i].pid]...)
	}
	return found
}

// socket is a listening one.
type socket struct {
	inode string
	local bool // reached by who connects to 127.0.0.1 or ::1
}

// sockets lists those that listen on a TCP port, whatever the address.
func sockets(port int) []socket {
	const (
		localAddress, state, inode = 1, 3, 9
		listening                  = "0A"
	)
	var found []socket
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		b, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) <= inode || f[state] != listening {
				continue
			}
			address, hexPort, _ := strings.Cut(f[localAddress], ":")
			if n, err := strconv.ParseUint(hexPort, 16, 16); err != nil || int(n) != port {
				continue
			}
			found = append(found, socket{f[inode], isLocal(address)})
		}
	}
	return found
}

// isLocal reads an address as the kernel prints it, in 32-bit words of the machine's byte order.
func isLocal(address string) bool {
	switch strings.ToUpper(strings.TrimLeft(address, "0")) {
	case "", // any
		"100007F", "7F000001", // 127.0.0.1
		"1000000", "1", // ::1
		"FFFF00000100007F", "FFFF7F000001": // ::ffff:127.0.0.1
		return true
	}
	return false
}

// holds reports whether a process has one of the sockets open, as far as this one may know.
func holds(pid int, of []socket) bool {
	folder := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(folder)
	if err != nil {
		return false
	}
	for _, e := range entries {
		link, err := os.Readlink(folder + "/" + e.Name())
		if err != nil || !strings.HasPrefix(link, "socket:[") {
			continue
		}
		if slices.ContainsFunc(of, func(s socket) bool { return link == "socket:["+s.inode+"]" }) {
			return true
		}
	}
	return false
}

// nameOf is what a process is called, for messages.
func nameOf(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if name := printable(bytes.TrimSpace(b)); err == nil && name != "" {
		return fmt.Sprintf("%s (process %d)", name, pid)
	}
	return fmt.Sprintf("process %d", pid)
}

// listener says who listens on a port, or "" if nobody does. A process that belongs to somebody else
// cannot be named.
func listener(port int) string {
	of := sockets(port)
	if len(of) == 0 {
		return ""
	}
	for _, p := range processes() {
		if holds(p.pid, of) {
			return nameOf(p.pid)
		}
	}
	return "another program"
}

// stranger says who listens on a service's port in its stead: somebody who is no descendant of the guard and
// was there before it. Who came later may well have been begun for the service, by
// a container engine for one. It is not ok when the guard is gone.
func stranger(port, guard int) (who string, ok bool) {
	of := slices.DeleteFunc(sockets(port), func(s socket) bool { return !s.local })
	if len(of) == 0 {
		return "", true
	}
	for _, p := range descendants(guard) {
		if holds(p.pid, of) {
			return "", true
		}
	}
	self, ok := readProcess(fmt.Sprintf("/proc/%d/stat", guard))
	if !ok {
		return "", false
	}
	for _, p := range processes() {
		if p.start < self.start && holds(p.pid, of) {
			return nameOf(p.pid), true
		}
	}
	return "", true
}
