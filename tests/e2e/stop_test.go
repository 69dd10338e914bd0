//go:build unix

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestStopSaves(t *testing.T) {
	for name, sig := range map[string]os.Signal{"SIGTERM": syscall.SIGTERM, "Ctrl-C": os.Interrupt} {
		t.Run(name, func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "data")
			o := on(data, "--flush-interval", "1h")
			c := start(t, o)
			c.put("/bucket/key", "unsaved")
			if g := c.part().Generation; g != 0 {
				t.Fatalf("generation %d before the stop: the test shows nothing", g)
			}
			c.signal(sig)
			if code := c.wait(); code != 0 {
				t.Fatalf("exit code %d", code)
			}
			c = start(t, o)
			if p := c.part(); p.Generation != 1 || p.LastGoodSave == nil || p.FileBytes == 0 {
				t.Errorf("before anything is asked for: %+v", p)
			}
			c.has("/bucket/key", "unsaved")
			// Nothing has changed: nothing is saved.
			c.signal(sig)
			if code := c.wait(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			if got := files(t, data); len(got) != 1 {
				t.Errorf("a stop without changes has saved: %v", got)
			}
		})
	}
}

// TestStopByStrategy: what a stop saves is the save strategy's to say.
func TestStopByStrategy(t *testing.T) {
	for strategy, saved := range map[string]bool{"SCHEDULED": true, "ON_SHUTDOWN": true, "ON_REQUEST": true, "MANUAL": false} {
		t.Run(strategy, func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "data")
			o := on(data).with("SNAPSHOT_SAVE_STRATEGY="+strategy, "SNAPSHOT_FLUSH_INTERVAL=3600")
			c := start(t, o)
			c.put("/bucket/key", "content")
			if g := c.part().Generation; (g > 0) != (strategy == "ON_REQUEST") {
				t.Errorf("generation %d before the stop", g)
			}
			c.stop()
			c = start(t, o)
			if saved {
				c.has("/bucket/key", "content")
			} else {
				c.lacks("/bucket/key")
			}
		})
	}
}

// slowUpload is a PUT whose body comes in two halves.
type slowUpload struct {
	net.Conn
	rest string
}

// upload sends the first half and returns when the program has begun to read it.
func (c *child) upload(path string) *slowUpload {
	c.t.Helper()
	addr := strings.TrimPrefix(c.url, "http://")
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { conn.Close() })
	// The program says "100 Continue" when the service reads the body: then the request is under way.
	if _, err := fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n", path, addr); err != nil {
		c.t.Fatal(err)
	}
	if line, err := bufio.NewReader(io.LimitReader(conn, int64(len("HTTP/1.1 100 Continue\r\n\r\n")))).ReadString('\n'); err != nil || !strings.Contains(line, "100") {
		c.t.Fatalf("%q, %v", line, err)
	}
	if _, err := io.WriteString(conn, "first"); err != nil {
		c.t.Fatal(err)
	}
	return &slowUpload{conn, "other"}
}

// finish sends the second half and gives the status of the answer.
func (u *slowUpload) finish(t *testing.T) int {
	t.Helper()
	if _, err := io.WriteString(u, u.rest); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(u), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// terminate sends SIGTERM and returns when the program has begun to stop.
func (c *child) terminate() {
	c.t.Helper()
	c.signal(syscall.SIGTERM)
	c.says("stopping")
}

func TestStopLetsAnUploadEnd(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	o := on(data, "--flush-interval", "1h")
	c := start(t, on(data, "--flush-interval", "1h", "--drain-timeout", "1h"))
	c.put("/bucket/before", "before")
	u := c.upload("/bucket/slow")
	c.terminate()
	eventually(t, "no new requests are taken", func() bool {
		_, err := c.try(http.MethodGet, "/bucket/before", "")
		return err != nil
	})
	if status := u.finish(t); status != http.StatusOK {
		t.Errorf("the upload was answered with %d", status)
	}
	if code := c.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	c = start(t, o)
	c.has("/bucket/before", "before")
	c.has("/bucket/slow", "firstother")
}

func TestStopCutsOffWhatDoesNotEnd(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	c := start(t, on(data, "--flush-interval", "1h", "--drain-timeout", "50ms"))
	c.put("/bucket/before", "before")
	u := c.upload("/bucket/slow")
	c.terminate()
	if code := c.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if !c.log.Contains("cut off") {
		t.Errorf("the log does not say that a request was cut off:\n%s", c.log)
	}
	if b, err := io.ReadAll(u); strings.Contains(string(b), " 200 ") {
		t.Errorf("the upload was answered as if it was there: %q, %v", b, err)
	}
	c = start(t, on(data))
	c.has("/bucket/before", "before")
	c.lacks("/bucket/slow")
	c.healthy()
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	for name, second := range map[string]syscall.Signal{"SIGTERM": syscall.SIGTERM, "Ctrl-C": syscall.SIGINT} {
		t.Run(name, func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "data")
			o := on(data, "--flush-interval", "1h", "--drain-timeout", "1h")
			c := start(t, o)
			c.put("/bucket/saved", "saved")
			c.save()
			c.put("/bucket/unsaved", "unsaved")
			c.upload("/bucket/slow")
			c.terminate()
			c.signal(second)
			c.wait()
			if status := c.cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != second {
				t.Errorf("it ended by %v, want the second signal, %v", c.cmd.ProcessState, second)
			}
			// What was saved is there, the rest is lost, and the next start is clean.
			c = start(t, o)
			c.has("/bucket/saved", "saved")
			c.lacks("/bucket/unsaved")
			c.healthy()
			noLeftovers(t, data)
		})
	}
}

// TestStopWhileStarting: a signal at any moment of the start ends it in order, and nothing is lost.
func TestStopWhileStarting(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	o := on(data, "--load-strategy", "ON_STARTUP")
	c := start(t, o)
	c.put("/bucket/key", "content")
	c.put("/bucket/large", string(noise(5, 8<<20)))
	c.stop()
	before := tree(t, data)
	for range rounds(10) {
		c, serving := spawn(t, o)
		eventually(t, "the data folder is taken", func() bool {
			b, _ := os.ReadFile(filepath.Join(data, "LOCK"))
			return strings.Contains(string(b), fmt.Sprint(`"pid":`, c.cmd.Process.Pid))
		})
		c.signal(syscall.SIGTERM)
		if code := c.wait(); code != 0 {
			t.Errorf("exit code %d: %s", code, c.log)
		}
		serving.First() // it may have come as far as that
	}
	sameTree(t, before, tree(t, data))
	c = start(t, o)
	c.has("/bucket/key", "content")
}

// sameTree tells what has changed on disk.
func sameTree(t *testing.T, before, after map[string]string) {
	t.Helper()
	for name, was := range before {
		if is, ok := after[name]; !ok {
			t.Errorf("%s is gone", name)
		} else if is != was {
			t.Errorf("%s has changed", name)
		}
	}
	for name := range after {
		if _, ok := before[name]; !ok {
			t.Errorf("%s has appeared", name)
		}
	}
}
