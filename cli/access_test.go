package cli

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/server"
)

// keyFile writes a file that holds a key.
func keyFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// accessOf gives who may control with these flags and this environment.
func accessOf(t *testing.T, flags, environ []string, file string) (server.Access, string, error) {
	t.Helper()
	s, _, err := read(t, flags, environ, file)
	if err != nil {
		t.Fatal(err)
	}
	p := &program{environ: environ}
	return p.access(s)
}

func TestAPIKey(t *testing.T) {
	file := keyFile(t, "  of-a-file\n")
	variable, localstack, older := "TORPOR_API_KEY=own", "LOCALSTACK_AUTH_TOKEN=ls-token", "LOCALSTACK_API_KEY=ls-key"
	for _, c := range []struct {
		name           string
		flags, environ []string
		key, from      string
	}{
		{"none", nil, nil, "", ""},
		{"variable", []string{"--api-key-file", file}, []string{older, localstack, variable}, "own", "$TORPOR_API_KEY"},
		{"file", []string{"--api-key-file", file}, []string{older, localstack}, "of-a-file", file},
		{"file, by a variable", nil, []string{localstack, "TORPOR_API_KEY_FILE=" + file}, "of-a-file", file},
		{"LocalStack's", nil, []string{older, localstack}, "ls-token", "$LOCALSTACK_AUTH_TOKEN"},
		{"LocalStack's older one", nil, []string{older}, "ls-key", "$LOCALSTACK_API_KEY"},
		{"empty variables", nil, []string{"TORPOR_API_KEY=", "LOCALSTACK_AUTH_TOKEN=", older}, "ls-key", "$LOCALSTACK_API_KEY"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, from, err := accessOf(t, c.flags, c.environ, "")
			if err != nil || a.Key != c.key || from != c.from {
				t.Errorf("key %q from %q, %v; want %q from %q", a.Key, from, err, c.key, c.from)
			}
		})
	}
}

// TestAPIKeyThatIsNone: a key that was meant to be there and is not must not leave the control API without one.
func TestAPIKeyThatIsNone(t *testing.T) {
	for _, c := range []struct {
		name           string
		flags, environ []string
		want           string
	}{
		{"no file", []string{"--api-key-file", "/no/such/file"}, nil, "--api-key-file: open /no/such/file"},
		{"a folder", []string{"--api-key-file", t.TempDir()}, nil, "--api-key-file: "},
		{"an empty file", nil, []string{"TORPOR_API_KEY_FILE=" + keyFile(t, " \n")}, "is empty; it must hold the key"},
		{"a long file", nil, []string{"TORPOR_API_KEY_FILE=" + keyFile(t, strings.Repeat("hidden", 1000))}, "more than 4096 bytes"},
		{"two lines", nil, []string{"TORPOR_API_KEY_FILE=" + keyFile(t, "hidden\nhidden\n")}, "blanks or control characters"},
		{"blanks", nil, []string{"TORPOR_API_KEY= "}, "(key from $TORPOR_API_KEY)"},
		{"blanks in LocalStack's", nil, []string{"LOCALSTACK_AUTH_TOKEN=hidden token"}, "(key from $LOCALSTACK_AUTH_TOKEN)"},
		{"hosts", []string{"--control-hosts", "http://a"}, nil, `"http://a"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, errs, code := torpor(t, c.environ, append([]string{"serve", "--listen", "127.0.0.1:0", "--data", t.TempDir()}, c.flags...)...)
			if code != exitUsage || !strings.Contains(errs, c.want) || strings.Contains(errs, "hidden") {
				t.Errorf("exit code %d, want %d; %s, want %s", code, exitUsage, errs, c.want)
			}
		})
	}
}

func TestAccess(t *testing.T) {
	a, _, err := accessOf(t, []string{"--listen", "torpor.example.org:4566", "--control", "any", "--control-hosts", "a.example, *.b.example"}, nil, "")
	if err != nil || a.Control != server.ControlAny || fmt.Sprint(a.Hosts) != "[a.example *.b.example torpor.example.org]" {
		t.Errorf("%+v, %v", a, err)
	}
	for _, listen := range []string{"127.0.0.1:4566", ":4566", "[::]:4566"} {
		if a, _, err := accessOf(t, []string{"--listen", listen}, nil, ""); err != nil || len(a.Hosts) != 0 {
			t.Errorf("%s: %+v, %v", listen, a, err)
		}
	}
	// A file's folder is where its relative names begin.
	s, path, err := read(t, nil, nil, "api_key_file: key\n")
	if want := filepath.Join(filepath.Dir(path), "key"); err != nil || s.APIKeyFile != want {
		t.Errorf("%s, want %s, %v", s.APIKeyFile, want, err)
	}
}

// TestTheKeyIsNoSetting: it cannot be given where others see it.
func TestTheKeyIsNoSetting(t *testing.T) {
	if _, errs, code := torpor(t, nil, "serve", "--api-key", "hidden"); code != exitUsage || !strings.Contains(errs, "unknown flag: --api-key") {
		t.Errorf("exit code %d: %s", code, errs)
	}
	file := configFile(t, "api_key: hidden\n")
	if _, errs, code := torpor(t, nil, "config", "check", file); code != exitUsage || !strings.Contains(errs, "api_key is not known") {
		t.Errorf("exit code %d: %s", code, errs)
	}
	out, errs, code := torpor(t, []string{"TORPOR_API_KEY=hidden"}, "config", "check", "--json", configFile(t, "control: any\n"))
	if code != 0 || strings.Contains(out+errs, "hidden") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
}

func TestWarnsWhenOthersCanReachIt(t *testing.T) {
	for _, c := range []struct {
		ip, control, key string
		want             []string // "" nothing is said
	}{
		{"127.0.0.1", "loopback", "", nil},
		{"::1", "any", "", nil},
		{"0.0.0.0", "loopback", "", []string{"WARN", "control API has no key", "are refused", "TORPOR_API_KEY", "TORPOR_CONTROL=any"}},
		{"10.0.0.1", "any", "", []string{"WARN", "control API has no key", "can save, load and reset"}},
		{"0.0.0.0", "any", "hidden", []string{"INFO", "need the key", "$TORPOR_API_KEY"}},
		{"127.0.0.1", "loopback", "hidden", []string{"INFO", "need the key"}},
	} {
		var log strings.Builder
		warnOpen(slog.New(slog.NewTextHandler(&log, nil)), &net.TCPAddr{IP: net.ParseIP(c.ip), Port: 1}, server.Access{Control: server.Control(c.control), Key: c.key}, "$TORPOR_API_KEY")
		for _, want := range c.want {
			if !strings.Contains(log.String(), want) {
				t.Errorf("%+v: %s does not say %s", c, log.String(), want)
			}
		}
		if c.want == nil && log.Len() > 0 || strings.Contains(log.String(), "hidden") {
			t.Errorf("%+v: %s", c, log.String())
		}
	}
}

// TestCommandsSendTheKey: and say what to do where it is not the right one.
func TestCommandsSendTheKey(t *testing.T) {
	file := keyFile(t, "right\n")
	var got string
	answer := func(status int, code string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			got = r.Header.Get("Authorization")
			w.WriteHeader(status)
			if status == http.StatusOK {
				io.WriteString(w, `{"name":"s3","status":"running","service":"s3"}`)
				return
			}
			fmt.Fprintf(w, `{"error":{"code":%q,"message":"it is refused","hint":"the server's hint"}}`, code)
		}
	}
	for _, c := range []struct {
		name           string
		flags, environ []string
		status         int
		code           string // in the answer
		sent           string
		exit           int
		want           string
	}{
		{"none", nil, nil, 200, "", "", 0, ""},
		{"variable", nil, []string{"TORPOR_API_KEY=right"}, 200, "", "Bearer right", 0, ""},
		{"file", []string{"--api-key-file", file}, nil, 200, "", "Bearer right", 0, ""},
		{"LocalStack's", nil, []string{"LOCALSTACK_AUTH_TOKEN=right"}, 200, "", "Bearer right", 0, ""},
		{"none where one is needed", nil, nil, 401, "no_api_key", "", exitRefused, "it is refused; give the key that torpor serve was started with in TORPOR_API_KEY, or name its file with --api-key-file"},
		{"a wrong one", nil, []string{"TORPOR_API_KEY=wrong"}, 401, "wrong_api_key", "Bearer wrong", exitRefused, "it is refused; the key was taken from $TORPOR_API_KEY"},
		{"too many wrong ones", nil, []string{"TORPOR_API_KEY=wrong"}, 429, "too_many_wrong_keys", "Bearer wrong", exitRefused, "it is refused; the server's hint"},
		{"from elsewhere", nil, nil, 403, "not_local", "", exitRefused, "it is refused; the server's hint"},
		{"not for want of a right", nil, nil, 403, "no_key", "", exitKey, "it is refused; the server's hint"},
		{"no key file", []string{"--api-key-file", "/no/such/file"}, nil, 0, "", "", exitUsage, "/no/such/file"},
	} {
		for _, action := range []string{"sleep", "wake", "sync"} {
			t.Run(c.name+", "+action, func(t *testing.T) {
				got = ""
				srv := httptest.NewServer(answer(c.status, c.code))
				defer srv.Close()
				_, errs, code := torpor(t, c.environ, append([]string{action, "s3", "--listen", srv.Listener.Addr().String()}, c.flags...)...)
				if code != c.exit || !strings.Contains(errs, c.want) || got != c.sent {
					t.Errorf("exit code %d, want %d; sent %q, want %q; %s, want %s", code, c.exit, got, c.sent, errs, c.want)
				}
			})
		}
	}
}
