package supervisor

import (
	"net"
	"os"
	osexec "os/exec"
	"strings"
	"testing"
)

func TestProcesses(t *testing.T) {
	cmd := osexec.Command("/bin/sh", "-c", "sleep 100 & wait")
	cmd.SysProcAttr = ownGroup()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		killGroup(cmd.Process.Pid)
		_ = cmd.Wait()
	}()
	for {
		found := map[int]process{}
		for _, p := range descendants(os.Getpid()) {
			found[p.pid] = p
		}
		sh, ok := found[cmd.Process.Pid]
		if !ok || sh.parent != os.Getpid() || sh.group != sh.pid || sh.start == 0 {
			t.Fatalf("%+v is not among %v", sh, found)
		}
		for _, p := range found {
			if p.parent == sh.pid && p.group == sh.pid && p.start >= sh.start {
				return
			}
		}
	}
}

func TestReadProcess(t *testing.T) {
	file := t.TempDir() + "/stat"
	for text, want := range map[string]process{
		"12 (a) b (c) S 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 77 23\n": {pid: 12, parent: 3, group: 4, state: 'S', start: 77},
		"":             {},
		"12 (a":        {},
		"12 (a) S 3 4": {},
		")(":           {},
		"x (a) S 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 77": {},
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if p, ok := readProcess(file); ok != (want.pid != 0) || ok && p != want {
			t.Errorf("%q is %+v, %v", text, p, ok)
		}
	}
	if _, ok := readProcess(file + "x"); ok {
		t.Error("a process that is not there was found")
	}
}

func TestListener(t *testing.T) {
	for address, local := range map[string]bool{"127.0.0.1:0": true, ":0": true, "[::1]:0": true, "0.0.0.0:0": true, "127.0.0.53:0": false} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Logf("%s: %v", address, err)
			continue
		}
		port := l.Addr().(*net.TCPAddr).Port
		if of := sockets(port); len(of) != 1 || of[0].local != local || !holds(os.Getpid(), of) {
			t.Errorf("%s: %+v", address, of)
		}
		if who := listener(port); !strings.Contains(who, "(process ") {
			t.Errorf("%s: %q listens", address, who)
		}
		l.Close()
		if who := listener(port); who != "" {
			t.Errorf("%s: %q still listens", address, who)
		}
	}
}
