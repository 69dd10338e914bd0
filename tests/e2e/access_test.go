//go:build unix

package e2e

import (
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// outsideAddress is an address of this machine that is not a loopback one: who calls there comes from there.
func outsideAddress(t *testing.T) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	t.Skip("this machine has no address but the loopback ones")
	return ""
}

// TestControlFromElsewhere: without a key control calls are this machine's, unless Torpor is told otherwise; services are
// everybody's.
func TestControlFromElsewhere(t *testing.T) {
	outside := outsideAddress(t)
	const save = "/_localstack/state/s3/save"
	for _, c := range []struct {
		name   string
		env    []string
		status int
		says   string
	}{
		{"by default", nil, http.StatusForbidden, "are refused"},
		{"told otherwise", []string{"TORPOR_CONTROL=any"}, http.StatusOK, "can save, load and reset"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := start(t, options{args: []string{"--listen", "0.0.0.0:0", "--data", filepath.Join(t.TempDir(), "data")}, env: c.env})
			d.says(c.says)
			port := d.url[strings.LastIndex(d.url, ":"):]
			d.url = "http://" + outside + port
			d.put("/bucket/key", "content")
			if a := d.do(http.MethodPost, save, ""); a.status != c.status || a.status == http.StatusForbidden && !strings.Contains(a.body, "not_local") {
				t.Errorf("from %s: %d %s", outside, a.status, a.body)
			}
			if a := d.do(http.MethodGet, "/_localstack/health", ""); a.status != http.StatusOK {
				t.Errorf("health from %s: %d %s", outside, a.status, a.body)
			}
			if _, errs, code := torpor(t, nil, "sync", "s3", "--listen", outside+port); (code == 8) != (c.status == http.StatusForbidden) {
				t.Errorf("sync: exit code %d: %s", code, errs)
			}
			d.url = "http://127.0.0.1" + port
			if a := d.do(http.MethodPost, save, ""); a.status != http.StatusOK {
				t.Errorf("from this machine: %d %s", a.status, a.body)
			}
			d.stop()
		})
	}
}

// TestKeyOfTheControlAPI: who has it may control, and its commands take it from where serve takes it.
func TestKeyOfTheControlAPI(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	writeFile(t, file, []byte("the-key\n"))
	keyFile := "TORPOR_API_KEY_FILE=" + file
	c := start(t, options{args: []string{"--data", filepath.Join(t.TempDir(), "data")}, env: []string{keyFile, "LOCALSTACK_AUTH_TOKEN=another"}})
	c.put("/bucket/key", "content")
	if a := c.do(http.MethodPost, "/_localstack/state/reset", ""); a.status != http.StatusUnauthorized || a.header.Get("WWW-Authenticate") == "" {
		t.Errorf("without the key: %d %s", a.status, a.body)
	}
	c.has("/bucket/key", "content")
	if a := c.do(http.MethodPost, "/_localstack/state/s3/save", "", "Authorization", "Basic OnRoZS1rZXk="); a.status != http.StatusOK {
		t.Errorf("with the key, as LocalStack's CLI sends it: %d %s", a.status, a.body)
	}
	c.says(`msg=control method=POST route=/_localstack/state/:service/save service=s3`)
	listen := "TORPOR_LISTEN=" + strings.TrimPrefix(c.url, "http://")
	for _, w := range []struct {
		env  string
		code int
	}{{keyFile, 0}, {"TORPOR_API_KEY=the-key", 0}, {"LOCALSTACK_AUTH_TOKEN=the-key", 0}, {"TORPOR_API_KEY=wrong", 8}, {"X=", 8}} {
		if _, errs, code := torpor(t, []string{listen, w.env}, "sync", "s3"); code != w.code || strings.Contains(errs, "the-key") {
			t.Errorf("sync with %s: exit code %d, want %d: %s", w.env, code, w.code, errs)
		}
	}
	if out, errs, code := torpor(t, []string{listen}, "health"); code != 0 {
		t.Errorf("health needs no key: exit code %d: %s%s", code, out, errs)
	}
	if strings.Contains(c.log.String(), "the-key") {
		t.Errorf("the log tells the key: %s", c.log)
	}
	c.stop()
}
