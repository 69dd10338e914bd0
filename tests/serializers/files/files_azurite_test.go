package files_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/tests/examples/azure"
	"github.com/torpor-run/torpor/tests/need"
	"github.com/torpor-run/torpor/tests/serializers/files/through"
)

// azurite runs Azurite's blobs on a folder; stop ends it in order, when it writes what it has not yet written.
func azurite(t *testing.T, program, folder string) (url string, stop func()) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	address := l.Addr().String()
	must(t, l.Close())
	_, port, err := net.SplitHostPort(address)
	must(t, err)
	cmd := exec.Command(program, "--location", folder, "--blobHost", "127.0.0.1", "--blobPort", port, "--disableTelemetry", "--disableProductStyleUrl", "--silent")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		if err := <-ended; err != nil {
			t.Errorf("azurite: %v: %s", err, said.String())
		}
		ended <- nil
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-ended
	})
	for {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err == nil {
			must(t, c.Close())
			return "http://" + address, stop
		}
		select {
		case err := <-ended:
			ended <- nil
			t.Fatalf("azurite has ended: %v: %s", err, said.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// TestAzurite: the folder of Azurite, saved, changed, and restored, while it does not run; it has all blobs again.
func TestAzurite(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Azurite three times")
	}
	need.Program(t, "node")
	program, err := filepath.Abs("../../../examples/azurite/node_modules/.bin/azurite-blob")
	must(t, err)
	if _, err := os.Stat(program); err != nil {
		need.Missing(t, "azurite-blob, which npm ci installs in examples/azurite")
	}
	root := filepath.Join(t.TempDir(), "data")
	s, m := source(t, root), through.New(t, "files", modules.Files())
	var url string
	do := func(method, path, body string) string {
		t.Helper()
		said, err := azure.Do(t.Context(), url, method, path, body)
		must(t, err)
		return said
	}
	large := strings.Repeat("0123456789abcdef", 20_000)

	url, stop := azurite(t, program, root)
	do(http.MethodPut, "/box", "")
	for n := range 10 {
		do(http.MethodPut, fmt.Sprint("/box/blob-", n), fmt.Sprint(large, n))
	}
	stop()
	records := m.RoundTrip(t, native(t, s))

	url, stop = azurite(t, program, root)
	do(http.MethodPut, "/box/blob-3", "changed")
	do(http.MethodDelete, "/box/blob-4", "")
	do(http.MethodPut, "/box/new", "new")
	stop()

	state, err := m.Native(t, records)
	must(t, err)
	must(t, s.Restore(t.Context(), bytes.NewReader(state)))
	url, stop = azurite(t, program, root)
	defer stop()
	for n := range 10 {
		if got := do(http.MethodGet, fmt.Sprint("/box/blob-", n), ""); got != fmt.Sprint(large, n) {
			t.Errorf("blob-%d has %d bytes: %.40q", n, len(got), got)
		}
	}
	if _, err := azure.Do(t.Context(), url, http.MethodGet, "/box/new", ""); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("what was not saved: %v", err)
	}
}
