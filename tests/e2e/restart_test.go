//go:build unix

package e2e

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// TestRestartAndKill: LocalStack's POST /_localstack/health starts the runtime anew at the same address, with what was saved
// on the way, and ends it as a signal would.
func TestRestartAndKill(t *testing.T) {
	c := start(t, on(filepath.Join(t.TempDir(), "data")))
	c.put("/bucket/key", "content")
	session := c.do(http.MethodGet, "/_localstack/info", "").body
	if a := c.do(http.MethodPost, "/_localstack/health", `{"action":"restart"}`); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	eventually(t, "it is up again, in another session", func() bool {
		a, err := c.try(http.MethodGet, "/_localstack/info", "")
		return err == nil && a.status == http.StatusOK && a.body != session
	})
	c.has("/bucket/key", "content")
	if a := c.do(http.MethodPost, "/_localstack/health", `{"action":"sing"}`); a.status != http.StatusBadRequest || !strings.Contains(a.body, "restart") {
		t.Errorf("%d %s", a.status, a.body)
	}
	c.put("/bucket/key", "changed")
	if a := c.do(http.MethodPost, "/_localstack/health", `{"action":"kill"}`); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if code := c.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
