package server_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/vfs"
	"github.com/torpor-run/torpor/server"
	"github.com/torpor-run/torpor/server/gateway"
)

// gate is a server's handler, and what it has logged.
type gate struct {
	http.Handler
	life *life
	log  *lines
}

// lines is a log. It is safe for concurrent use.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

// take gives the lines since the last time.
func (l *lines) take(t *testing.T) (all []map[string]any) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for dec := json.NewDecoder(&l.b); dec.More(); {
		var line map[string]any
		if err := dec.Decode(&line); err != nil {
			t.Fatal(err)
		}
		all = append(all, line)
	}
	l.b.Reset()
	return all
}

// guarded starts a life whose server lets in who access says.
func guarded(t *testing.T, access server.Access) *gate {
	t.Helper()
	g := &gate{log: &lines{}}
	g.life = begin(t, vfs.NewMem(), func(l *life, cfg *runtime.Config) {
		outside(t, runtime.SaveManual, 0, nil)(l, cfg)
		change := l.change
		l.change = func(c *server.Config) {
			change(c)
			c.Access = access
			c.Logger = slog.New(slog.NewJSONHandler(g.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			c.Rules = append(c.Rules, gateway.Rule{Service: "more", Hosts: []string{"more.example.org"}})
			g.serve(t, *c)
		}
	})
	t.Cleanup(func() { g.life.end(t) })
	return g
}

// serve makes the handler. It is not held against openapi.yaml, where much of what is asked of it is not.
func (g *gate) serve(t *testing.T, cfg server.Config) {
	t.Helper()
	var err error
	if g.Handler, err = server.New(cfg); err != nil {
		t.Fatal(err)
	}
}

// ask sends a request that comes from remote and is for host.
func (g *gate) ask(method, path, remote, host string, header ...string) answer {
	r := httptest.NewRequest(method, "http://localhost"+path, nil)
	r.RemoteAddr, r.Host = remote, host
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	return answer{w.Code, w.Header(), w.Body.String()}
}

// refuses checks that an answer is the refusal with this code, or with "" none.
func (a answer) refuses(t *testing.T, what string, status int, code string) {
	t.Helper()
	var b struct {
		Error struct{ Code, Message, Hint string }
	}
	_ = json.Unmarshal([]byte(a.body), &b)
	switch {
	case code == "" && server.Refused(b.Error.Code):
		t.Errorf("%s: %d %s", what, a.status, a.body)
	case code != "" && (a.status != status || b.Error.Code != code || b.Error.Message == "" || b.Error.Hint == "" || !server.Refused(code)):
		t.Errorf("%s: %d %s, want %d with %s, a message and a hint", what, a.status, a.body, status, code)
	}
	for name := range a.header {
		if strings.HasPrefix(name, "Access-Control-") {
			t.Errorf("%s: the answer lets a page of another origin read it: %s", what, name)
		}
	}
}

const (
	here  = "127.0.0.1:50000"
	there = "192.0.2.7:50000"
	local = "localhost:4566"
)

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// routes are requests, and whether they are open to all.
func routes() map[string]bool {
	return map[string]bool{
		"GET /_localstack/health":                           true,
		"HEAD /_localstack/health":                          true,
		"GET /_localstack/info":                             true,
		"GET /_torpor/health":                               true,
		"GET /_localstack/init":                             true,
		"GET /_localstack/init/ready":                       true,
		"GET /metrics":                                      true,
		"GET /a":                                            true, // a service's
		"PUT /_torporx":                                     true,
		"POST /_localstack/health":                          false,
		"GET /_localstack/init/ready/state":                 true, // also to Echo it is a stage's name
		"POST /_localstack/init/ready":                      false,
		"POST /_localstack/state/save":                      false,
		"POST /_localstack/state/notes/load":                false,
		"POST /_torpor/services/notes/sync":                 false,
		"PUT /_torpor/services/notes/parts/store/state":     false,
		"GET /_torpor/services/notes/parts/store/state":     false,
		"HEAD /_torpor/services/notes/parts/store/state":    false,
		"DELETE /_torpor/services/notes/parts/store/state":  false,
		"OPTIONS /_torpor/health":                           false,
		"OPTIONS /_localstack/state/save":                   false,
		"DELETE /_torpor/health":                            false,
		"GET /_torpor":                                      false, // there is no such route, which not all need to know
		"GET /_localstack/no/such/route":                    false,
		"GET /_torpor/no/such/route":                        false,
		"POST /_localstack/%73tate/save":                    false,
		"POST /_localstack/health/../state/save":            false,
		"GET /_localstack/init/..%2Fstate%2Fsave":           true, // of no such stage
		"GET /_localstack//health":                          false,
		"GET /_localstack/health/":                          false,
		"GET /_torpor/services/notes/parts/store/%73tate":   false,
		"GET /_torpor/services/notes/parts/store/state?a=b": false,
	}
}

// TestWhatIsOpen: every request but the few that tell how Torpor is, and those to services, is one that controls.
func TestWhatIsOpen(t *testing.T) {
	for name, c := range map[string]struct {
		access       server.Access
		remote, host string
		status       int
		code         string
		header       []string
	}{
		"with a key":                {server.Access{Key: "k"}, here, local, http.StatusUnauthorized, "no_api_key", nil},
		"from elsewhere":            {server.Access{}, there, local, http.StatusForbidden, "not_local", nil},
		"under a foreign name":      {server.Access{}, here, "evil.example", http.StatusForbidden, "foreign_host", nil},
		"of a page":                 {server.Access{Key: "k"}, here, local, http.StatusForbidden, "foreign_origin", []string{"Origin", "https://evil.example", "Authorization", "Bearer k"}},
		"of a page, without Origin": {server.Access{Control: server.ControlAny}, there, local, http.StatusForbidden, "foreign_origin", []string{"Sec-Fetch-Site", "cross-site"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := guarded(t, c.access)
			for request, open := range routes() {
				method, path, _ := strings.Cut(request, " ")
				a := g.ask(method, path, c.remote, c.host, c.header...)
				if open {
					a.refuses(t, request, 0, "")
				} else {
					a.refuses(t, request, c.status, c.code)
				}
			}
		})
	}
}

func TestKey(t *testing.T) {
	g := guarded(t, server.Access{Key: "the-Key_1:x/+="})
	for _, c := range []struct {
		name, authorization string
		code                string
	}{
		{"Bearer", "Bearer the-Key_1:x/+=", ""},
		{"bearer", "bearer   the-Key_1:x/+= ", ""},
		{"as LocalStack's CLI sends it", basic("", "the-Key_1:x/+="), ""},
		{"Basic, with a user", basic("somebody", "the-Key_1:x/+="), ""},
		{"nothing", "", "no_api_key"},
		{"a user without a password", basic("the-Key_1", ""), "no_api_key"},
		{"Basic of nothing", "Basic", "no_api_key"},
		{"no base64", "Basic ?", "no_api_key"},
		{"Bearer of nothing", "Bearer  ", "no_api_key"},
		{"another scheme", "Digest the-Key_1:x/+=", "no_api_key"},
		{"AWS's", "AWS4-HMAC-SHA256 Credential=x", "no_api_key"},
		{"no scheme", "the-Key_1:x/+=", "no_api_key"},
		{"another case", "Bearer the-key_1:x/+=", "wrong_api_key"},
		{"its beginning", "Bearer the-Key_1", "wrong_api_key"},
		{"more than it", "Bearer the-Key_1:x/+=x", "wrong_api_key"},
		{"as the user", basic("the-Key_1:x/+=", "x"), "wrong_api_key"},
	} {
		var header []string
		if c.authorization != "" {
			header = []string{"Authorization", c.authorization}
		}
		for _, remote := range []string{here, there} {
			a := g.ask(http.MethodPost, "/_localstack/state/notes/save", remote, "any.example.net", header...)
			a.refuses(t, c.name, http.StatusUnauthorized, c.code)
			if c.code == "" {
				a.wants(t, http.StatusOK, `{"service":"notes","status":"ok"}`+"\n")
			} else if got := strings.Join(a.header.Values("WWW-Authenticate"), "|"); !strings.Contains(got, "Basic realm=") || !strings.Contains(got, "Bearer realm=") {
				t.Errorf("%s: WWW-Authenticate %q", c.name, got)
			}
		}
	}
}

func TestWithoutAKey(t *testing.T) {
	for _, c := range []struct {
		name         string
		access       server.Access
		remote, host string
		header       []string
		code         string
	}{
		{"loopback", server.Access{}, here, local, nil, ""},
		{"all of 127", server.Access{}, "127.9.8.7:1", local, nil, ""},
		{"IPv6", server.Access{}, "[::1]:1", "[::1]:4566", nil, ""},
		{"IPv4 at an IPv6 socket", server.Access{}, "[::ffff:127.0.0.1]:1", local, nil, ""},
		{"another machine at one", server.Access{}, "[::ffff:192.0.2.7]:1", local, nil, "not_local"},
		{"another machine", server.Access{}, there, local, nil, "not_local"},
		{"a container's network", server.Access{}, "172.17.0.1:1", local, nil, "not_local"},
		{"a link", server.Access{}, "[fe80::1%eth0]:1", local, nil, "not_local"},
		{"no address", server.Access{}, "@", local, nil, "not_local"},
		{"a name in place of one", server.Access{}, "localhost:1", local, nil, "not_local"},
		{"another machine that says it is this one", server.Access{}, there, local, []string{"X-Forwarded-For", "127.0.0.1", "X-Real-Ip", "127.0.0.1"}, "not_local"},
		{"a proxy on this machine that says it otherwise", server.Access{}, here, local, []string{"Via", "1.1 proxy"}, "not_local"},
		{"a proxy on this machine", server.Access{}, here, local, []string{"X-Forwarded-For", "192.0.2.7"}, "not_local"},
		{"another kind of proxy", server.Access{}, here, local, []string{"Forwarded", "for=192.0.2.7"}, "not_local"},
		{"any, another machine", server.Access{Control: server.ControlAny}, there, local, nil, ""},
		{"any, a proxy", server.Access{Control: server.ControlAny}, here, local, []string{"X-Forwarded-For", "192.0.2.7"}, ""},

		{"an address", server.Access{}, here, "192.0.2.1:4566", nil, ""},
		{"a name below localhost", server.Access{}, here, "S3.LOCALHOST.:4566", nil, ""},
		{"LocalStack's name", server.Access{}, here, "localhost.localstack.cloud:4566", nil, ""},
		{"a name below LocalStack's", server.Access{}, here, "s3.localhost.localstack.cloud", nil, ""},
		{"in a network of containers", server.Access{Control: server.ControlAny}, there, "torpor:4566", nil, ""},
		{"the container's host", server.Access{Control: server.ControlAny}, there, "host.docker.internal:4566", nil, ""},
		{"a service's host", server.Access{}, here, "more.example.org", nil, ""},
		{"a host that was named", server.Access{Hosts: []string{"torpor.corp.example"}}, here, "torpor.corp.example:1", nil, ""},
		{"one below", server.Access{Hosts: []string{"*.corp.example"}}, here, "torpor.corp.example", nil, ""},
		{"a name that leads here", server.Access{}, here, "evil.example:4566", nil, "foreign_host"},
		{"a name that leads here, from elsewhere", server.Access{Control: server.ControlAny}, there, "evil.example:4566", nil, "foreign_host"},
		{"a name like ours", server.Access{}, here, "localhost.evil.example", nil, "foreign_host"},
		{"a name that ends like ours", server.Access{}, here, "evillocalhost.localstack.cloud", nil, "foreign_host"},
		{"an address in a name", server.Access{}, here, "127.0.0.1.evil.example", nil, "foreign_host"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := guarded(t, c.access)
			a := g.ask(http.MethodPost, "/_localstack/state/notes/save", c.remote, c.host, c.header...)
			a.refuses(t, c.name, http.StatusForbidden, c.code)
			if c.code == "not_local" && !(strings.Contains(a.body, "TORPOR_API_KEY") && strings.Contains(a.body, "TORPOR_CONTROL=any")) {
				t.Errorf("the refusal does not say what to set: %s", a.body)
			}
		})
	}
}

func TestOrigins(t *testing.T) {
	for _, c := range []struct {
		name   string
		header []string
		ok     bool
	}{
		{"our own page", []string{"Origin", "http://" + local, "Sec-Fetch-Site", "same-origin"}, true},
		{"our own page behind TLS", []string{"Origin", "https://" + local}, true},
		{"what a person typed", []string{"Sec-Fetch-Site", "none"}, true},
		{"a page of the web", []string{"Origin", "https://evil.example"}, false},
		{"one that hides its origin", []string{"Origin", "null"}, false},
		{"our own and another", []string{"Origin", "http://" + local, "Origin", "https://evil.example"}, false},
		{"a picture on a page", []string{"Sec-Fetch-Site", "cross-site"}, false},
		{"a page on another port", []string{"Sec-Fetch-Site", "same-site"}, false},
		{"a page on another port, with Origin", []string{"Origin", "http://localhost:3000"}, false},
		{"our name with something before", []string{"Origin", "http://x@" + local}, true}, // no browser sends one
		{"what is no origin", []string{"Origin", "http://%zz"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, key := range []string{"", "k"} {
				g := guarded(t, server.Access{Key: key})
				for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodOptions} {
					code := "foreign_origin"
					if c.ok {
						code = ""
					}
					header := append([]string{"Authorization", "Bearer k", "Access-Control-Request-Method", "PUT"}, c.header...)
					g.ask(method, "/_torpor/services/notes/parts/store/state", here, local, header...).refuses(t, method, http.StatusForbidden, code)
				}
			}
		})
	}
}

func TestWrongKeysAreFew(t *testing.T) {
	g := guarded(t, server.Access{Key: "right"})
	save := func(remote, key string) answer {
		return g.ask(http.MethodPost, "/_localstack/state/notes/save", remote, local, "Authorization", "Bearer "+key)
	}
	for range 3 * server.MaxWrongKeys { // no key is no guess
		g.ask(http.MethodPost, "/_localstack/state/notes/save", there, local).refuses(t, "without a key", http.StatusUnauthorized, "no_api_key")
	}
	for range server.MaxWrongKeys {
		save(there, "wrong").refuses(t, "wrong", http.StatusUnauthorized, "wrong_api_key")
	}
	for _, key := range []string{"wrong", "right"} { // whether it is the right one must not be seen
		a := save("192.0.2.7:9", key)
		a.refuses(t, key, http.StatusTooManyRequests, "too_many_wrong_keys")
		if wait, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || wait < 1 || wait > int(server.WrongKeyInterval.Seconds()) {
			t.Errorf("Retry-After: %q", a.header.Get("Retry-After"))
		}
	}
	for _, remote := range []string{here, "192.0.2.8:1", "[2001:db8::1]:1"} {
		if a := save(remote, "right"); a.status != http.StatusOK {
			t.Errorf("%s has done nothing: %d %s", remote, a.status, a.body)
		}
	}
}

func TestControlIsLogged(t *testing.T) {
	g := guarded(t, server.Access{Key: "the-key"})
	g.ask(http.MethodGet, "/_torpor/health", there, local)
	g.ask(http.MethodPut, "/a", there, local, "Authorization", "Bearer the-key")
	if got := g.log.take(t); len(got) != 0 {
		t.Errorf("open routes are logged: %v", got)
	}
	secrets := []string{"Authorization", "Bearer the-key", "x-localstack-state-secret", "hidden-1", "X-Torpor-Passphrase", "hidden-2"}
	state := "/_torpor/services/:service/parts/:part/state"
	for _, c := range []struct {
		method, path string
		header       []string
		want         map[string]any
	}{
		{http.MethodPost, "/_localstack/state/notes/save?passphrase=hidden-3", secrets,
			map[string]any{"level": "INFO", "msg": "control", "route": "/_localstack/state/:service/save", "service": "notes", "by": "key", "status": 200.0}},
		{http.MethodPost, "/_localstack/state/none/save", secrets, map[string]any{"level": "INFO", "service": "none", "status": 404.0}},
		{http.MethodGet, "/_torpor/services/notes/parts/store/state", secrets,
			map[string]any{"level": "INFO", "msg": "control", "route": state, "service": "notes", "part": "store", "status": 200.0}},
		{http.MethodDelete, "/_torpor/health", secrets, map[string]any{"level": "INFO", "msg": "control", "status": 405.0}},
		{http.MethodGet, "/_torpor/no/such/route", secrets, map[string]any{"level": "INFO", "msg": "control", "status": 404.0}},
		{http.MethodGet, "/_torpor/services/notes/parts/store/state", nil,
			map[string]any{"level": "WARN", "msg": "control refused", "route": state, "service": "notes", "status": 401.0, "code": "no_api_key"}},
		{http.MethodPut, "/_torpor/services/notes/parts/store/state", []string{"Authorization", "Bearer hidden-4"},
			map[string]any{"level": "WARN", "msg": "control refused", "status": 401.0, "code": "wrong_api_key"}},
		{http.MethodPost, "/_localstack/state/save", []string{"Origin", "https://evil.example"}, map[string]any{"level": "WARN", "status": 403.0, "code": "foreign_origin"}},
		{http.MethodGet, "/_torpor/" + strings.Repeat("x", 10_000), secrets, map[string]any{"level": "INFO", "status": 404.0}},
	} {
		g.ask(c.method, c.path, there, local, c.header...)
		got := g.log.take(t)
		if len(got) != 1 {
			t.Errorf("%s %s: logged %v, want one line", c.method, c.path, got)
			continue
		}
		c.want["method"], c.want["remote"] = c.method, there
		for name, value := range c.want {
			if got[0][name] != value {
				t.Errorf("%s %s: %s is %v, want %v", c.method, c.path, name, got[0][name], value)
			}
		}
		if d, ok := got[0]["duration"].(float64); c.want["level"] == "INFO" && (!ok || d < 0) {
			t.Errorf("%s %s: duration %v", c.method, c.path, got[0]["duration"])
		}
		text, _ := json.Marshal(got)
		for _, secret := range []string{"hidden", "the-key"} {
			if strings.Contains(string(text), secret) {
				t.Errorf("%s %s: the log tells a secret: %s", c.method, c.path, text)
			}
		}
		if len(text) > 1000 {
			t.Errorf("%s: a line of %d bytes", c.method, len(text))
		}
	}
}

// TestControlThatBreaksOffIsLogged: a handler that gives its connection up has its line too.
func TestControlThatBreaksOffIsLogged(t *testing.T) {
	g := gate{log: &lines{}}
	l := begin(t, vfs.NewMem(), func(l *life, _ *runtime.Config) {
		l.change = func(c *server.Config) {
			c.Logger = slog.New(slog.NewJSONHandler(g.log, nil))
			c.Push = map[string]http.Handler{"notes/store": http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })}
			g.serve(t, *c)
		}
	})
	defer l.end(t)
	func() {
		defer func() { _ = recover() }()
		g.ask(http.MethodGet, "/_torpor/services/notes/parts/store/state", here, local)
		t.Error("the handler did not panic")
	}()
	if got := g.log.take(t); len(got) != 1 || got[0]["cut_off"] != true || got[0]["by"] != "loopback" {
		t.Errorf("logged %v", got)
	}
}

func TestMistakenAccess(t *testing.T) {
	for want, a := range map[string]server.Access{
		"allowed are loopback, any": {Control: "all"},
		"blanks":                    {Key: "secret key"},
		"control characters":        {Key: "secret\n"},
		"allowed are 4096":          {Key: strings.Repeat("secret", 1000)},
		"neither a name":            {Hosts: []string{"a/secret"}},
	} {
		_, err := server.New(server.Config{Access: a})
		if err == nil || !strings.Contains(err.Error(), want) || a.Key != "" && strings.Contains(err.Error(), "secret") {
			t.Errorf("%v, want %q and no key", err, want)
		}
		if check := a.Check(); check == nil || check.Error() != err.Error() {
			t.Errorf("Check says %v", check)
		}
	}
	if err := (server.Access{Key: "ls-1/+=é", Control: "ANY", Hosts: []string{"torpor.example.org", "*.corp.example"}}).Check(); err != nil {
		t.Error(err)
	}
}
