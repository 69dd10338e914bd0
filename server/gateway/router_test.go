package gateway

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// request makes one as the server gives it; target is as it stands in the request line.
func request(t testing.TB, method, target, host string, fields ...string) *http.Request {
	t.Helper()
	r := httptest.NewRequest(method, "/", nil)
	u, err := r.URL.Parse("/")
	if err != nil {
		t.Fatal(err)
	}
	if path, query, found := strings.Cut(target, "?"); true {
		u.RawPath, u.RawQuery, u.ForceQuery = path, query, found && query == ""
		if u.Path, found = unescaped(path); !found {
			t.Fatal("bad path " + path)
		}
	}
	r.URL, r.RequestURI, r.Host = u, target, host
	for i := 0; i < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	return r
}

const scopeOf = "AWS4-HMAC-SHA256 Credential=123456789012/20260401/eu-west-1/%s/aws4_request, SignedHeaders=host, Signature=0"

func TestRouter(t *testing.T) {
	rules := []Rule{
		{Service: "orders", Hosts: []string{"orders.localhost", "[::1]"}},
		{Service: "below", Hosts: []string{"*.orders.localhost"}},
		{Service: "deep", Hosts: []string{"*.deep.orders.localhost"}},
		{Service: "hostandpath", Hosts: []string{"orders.localhost"}, Paths: []string{"/admin"}},
		{Service: "tenant", Headers: map[string]string{"X-Tenant": "*"}},
		{Service: "blue", Headers: map[string]string{"x-tenant": "blue"}},
		{Service: "either", Headers: map[string]string{"X-Either": "1", "X-Or": "2"}},
		{Service: "kinesis", AWS: []string{"kinesis"}},
		{Service: "streams", AWS: []string{"kinesis"}, Paths: []string{"/streams/"}},
		{Service: "api", Paths: []string{"/api", "/v1/api"}, Strip: true},
		{Service: "apiusers", Paths: []string{"/api/users"}},
		{Service: "spaced", Paths: []string{"/a%20b"}},
		{Service: "last", Paths: []string{"/last"}, Hosts: []string{"last.localhost"}, AWS: []string{"sqs"}, Headers: map[string]string{"X-Last": "1"}},
	}
	rt, err := NewRouter(rules, "s3")
	if err != nil {
		t.Fatal(err)
	}
	kinesis, sqs := fmt.Sprintf(scopeOf, "kinesis"), fmt.Sprintf(scopeOf, "sqs")
	for _, c := range []struct {
		target, host string
		fields       []string
		want, strip  string
	}{
		{"/", "localhost:4566", nil, "s3", ""},
		{"/", "orders.localhost", nil, "orders", ""},
		{"/", "ORDERS.localhost.:4566", nil, "orders", ""},
		{"/", "[::1]:4566", nil, "orders", ""},
		{"/api", "orders.localhost:1", nil, "orders", ""}, // a host goes before a path
		{"/admin/x", "orders.localhost:1", nil, "hostandpath", ""},
		{"/adminx", "orders.localhost:1", nil, "orders", ""},
		{"/", "a.orders.localhost", nil, "below", ""},
		{"/", "a.b.orders.localhost", nil, "below", ""},
		{"/", "a.deep.orders.localhost", nil, "deep", ""},
		{"/", "deep.orders.localhost", nil, "below", ""},
		{"/", ".orders.localhost", nil, "s3", ""},
		{"/", "xorders.localhost", nil, "s3", ""},
		{"/", "", nil, "s3", ""},
		{"/api", "x", []string{"X-Tenant", "red"}, "tenant", ""},
		{"/", "x", []string{"X-Tenant", "red", "X-Tenant", "blue"}, "blue", ""},
		{"/", "x", []string{"X-Tenant", "blue", "Authorization", kinesis}, "blue", ""},
		{"/", "x", []string{"X-Or", "2"}, "either", ""},
		{"/", "x", []string{"X-Or", "1"}, "s3", ""},
		{"/", "x", []string{"Authorization", kinesis}, "kinesis", ""},
		{"/api", "x", []string{"Authorization", kinesis}, "kinesis", ""},
		{"/streams", "x", []string{"Authorization", kinesis}, "streams", ""},
		{"/", "x", []string{"X-Amz-Target", "Kinesis_20131202.PutRecord"}, "kinesis", ""},
		{"/", "kinesis.us-east-1.amazonaws.com", nil, "kinesis", ""},
		{"/bucket", "x", []string{"Authorization", fmt.Sprintf(scopeOf, "s3")}, "s3", ""},
		{"/api", "x", nil, "api", "/api"},
		{"/api?x=/api/users", "x", nil, "api", "/api"},
		{"/api/", "x", nil, "api", "/api"},
		{"/apis", "x", nil, "s3", ""},
		{"/api/users", "x", nil, "apiusers", ""},
		{"/api/usersx", "x", nil, "api", "/api"},
		{"/%61pi/y", "x", nil, "api", "/%61pi"},
		{"/v1/api/y", "x", nil, "api", "/v1/api"},
		{"/v1%2Fapi/y", "x", nil, "s3", ""},
		{"//api", "x", nil, "s3", ""},
		{"/x/../api", "x", nil, "s3", ""},
		{"/a%20b/c", "x", nil, "spaced", ""},
		{"/a+b/c", "x", nil, "s3", ""},
		{"/last", "last.localhost", []string{"X-Last", "1"}, "s3", ""},
		{"/last", "last.localhost", []string{"X-Last", "1", "Authorization", sqs}, "last", ""},
		{"/las", "last.localhost", []string{"X-Last", "1", "Authorization", sqs}, "s3", ""},
		{"*", "x", nil, "s3", ""},
	} {
		r := request(t, http.MethodGet, c.target, c.host, c.fields...)
		if got := rt.Route(r); got.Service != c.want || got.Strip != c.strip {
			t.Errorf("%s of %s %v goes to %q without %q, want %q without %q", c.target, c.host, c.fields, got.Service, got.Strip, c.want, c.strip)
		}
	}
	if rt, err := NewRouter(nil, ""); err != nil || rt.Route(request(t, "GET", "/", "x")).Service != "" {
		t.Errorf("no rules and nobody behind them: %v", err)
	}
}

func TestRulesThatAreRefused(t *testing.T) {
	a, b := Rule{Service: "a"}, Rule{Service: "b"}
	hosts := func(r Rule, names ...string) Rule { r.Hosts = names; return r }
	paths := func(r Rule, names ...string) Rule { r.Paths = names; return r }
	names := func(r Rule, names ...string) Rule { r.AWS = names; return r }
	fields := func(r Rule, name, value string) Rule { r.Headers = map[string]string{name: value}; return r }
	strip := func(r Rule) Rule { r.Strip = true; return r }
	for _, c := range []struct {
		rules []Rule
		want  string // "": they are taken
	}{
		{[]Rule{hosts(a, "x"), hosts(b, "y")}, ""},
		{[]Rule{hosts(a, "x"), hosts(b, "*.x")}, ""},
		{[]Rule{hosts(a, "x"), hosts(b, "y", "X:80")}, "services a and b: no request can tell their rules apart, both have host x"},
		{[]Rule{hosts(a, "*.x"), hosts(b, "*.X")}, "host *.x"},
		{[]Rule{hosts(a, "x"), paths(hosts(b, "x"), "/")}, ""},
		{[]Rule{paths(a, "/p"), paths(b, "/p/", "/q")}, "path /p"},
		{[]Rule{paths(a, "/p"), paths(b, "/%70")}, "path /p"},
		{[]Rule{paths(a, "/p"), paths(b, "/p/q")}, ""},
		{[]Rule{paths(hosts(a, "x"), "/p"), paths(hosts(b, "x"), "/q")}, ""},
		{[]Rule{paths(hosts(a, "x"), "/p"), paths(hosts(b, "x"), "/p")}, "host x, path /p"},
		{[]Rule{fields(a, "X-A", "1"), fields(b, "x-a", "1")}, "header X-A: 1"},
		{[]Rule{fields(a, "X-A", "1"), fields(b, "X-A", "*")}, ""},
		{[]Rule{names(a, "sqs", "sns"), names(b, "sns")}, "aws sns"},
		{[]Rule{hosts(a, "x"), hosts(a, "x")}, "host x"},
		{[]Rule{a}, "service a: it has no condition"},
		{[]Rule{hosts(Rule{}, "x")}, "names no service"},
		{[]Rule{hosts(a, "")}, "service a"},
		{[]Rule{hosts(a, "*")}, `host "*"`},
		{[]Rule{hosts(a, "*.")}, `host "*."`},
		{[]Rule{hosts(a, "a.*.b")}, `host "a.*.b"`},
		{[]Rule{hosts(a, "http://x/")}, "http://x/"},
		{[]Rule{paths(a, "p")}, `path "p"`},
		{[]Rule{paths(a, "/p?q")}, `path "/p?q"`},
		{[]Rule{paths(a, "/%zz")}, `path "/%zz"`},
		{[]Rule{paths(a, "/_torpor/x")}, "Torpor's own"},
		{[]Rule{paths(a, "/%5flocalstack")}, "Torpor's own"},
		{[]Rule{paths(a, "/_torporx")}, ""},
		{[]Rule{strip(hosts(a, "x"))}, "strip"},
		{[]Rule{fields(a, "X A", "1")}, `header "X A"`},
		{[]Rule{fields(a, "X-A", "")}, `header "X-A"`},
		{[]Rule{fields(a, "host", "x")}, "as a host"},
		{[]Rule{names(a, "Kinesis")}, `aws "Kinesis"`},
	} {
		_, err := NewRouter(c.rules, "")
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.rules, err, c.want)
		}
	}
}

func TestStrip(t *testing.T) {
	for _, c := range []struct{ target, strip, want, prefix string }{
		{"/api/x?y", "/api", "/x?y", "/api"},
		{"/api", "/api", "/", "/api"},
		{"/api?", "/api", "/?", "/api"},
		{"/api/", "/api", "/", "/api"},
		{"/api//x", "/api", "//x", "/api"},
		{"/%61pi/a%2Fb", "/%61pi", "/a%2Fb", "/%61pi"},
		{"/api/x", "", "/api/x", ""},
	} {
		r := request(t, "GET", c.target, "x")
		route := Route{Strip: c.strip}
		out := route.Apply(r)
		path, _, _ := strings.Cut(c.want, "?")
		if out.RequestURI != c.want || out.URL.EscapedPath() != path || out.Header.Get("X-Forwarded-Prefix") != c.prefix {
			t.Errorf("%s without %s: %s, %s, prefix %q", c.target, c.strip, out.RequestURI, out.URL.EscapedPath(), out.Header.Get("X-Forwarded-Prefix"))
		}
		if r.RequestURI != c.target || r.Header.Get("X-Forwarded-Prefix") != "" {
			t.Error("the request itself was changed")
		}
	}
	r := request(t, "GET", "/b/x", "x", "X-Forwarded-Prefix", "/a")
	if got := (&Route{Strip: "/b"}).Apply(r).Header.Get("X-Forwarded-Prefix"); got != "/a, /b" {
		t.Errorf("behind another proxy: %q", got)
	}
}

func TestReads(t *testing.T) {
	for _, c := range []struct {
		name           string
		reads          Reads
		method, target string
		fields         []string
		want           bool
	}{
		{"GET", Reads{}, "GET", "/", nil, true},
		{"HEAD", Reads{}, "HEAD", "/", nil, true},
		{"POST", Reads{}, "POST", "/", nil, false},
		{"a method of its own", Reads{}, "PURGE", "/", nil, false},
		{"methods configured", Reads{Methods: []string{"POST"}}, "POST", "/", nil, true},
		{"and then only these", Reads{Methods: []string{"POST"}}, "GET", "/", nil, false},
		{"none reads", Reads{Methods: []string{}}, "GET", "/", nil, false},
		{"a path that reads", Reads{Paths: []string{"/graphql"}}, "POST", "/graphql/x?y", nil, true},
		{"its neighbour", Reads{Paths: []string{"/graphql"}}, "POST", "/graphqlx", nil, false},
		{"a path that writes", Reads{Writes: []string{"/next"}}, "GET", "/next", nil, false},
		{"both", Reads{Paths: []string{"/a"}, Writes: []string{"/a/b"}}, "POST", "/a/b/c", nil, false},
		{"an operation that reads", Reads{}, "POST", "/", []string{"X-Amz-Target", "Kinesis_20131202.GetRecords"}, true},
		{"one that changes", Reads{}, "POST", "/", []string{"X-Amz-Target", "Kinesis_20131202.PutRecord"}, false},
		{"one that is said to read", Reads{Operations: []string{"PutRecord"}}, "POST", "/", []string{"X-Amz-Target", "Kinesis_20131202.PutRecord"}, true},
		{"one that is said to write", Reads{Writes: []string{"GetRecords"}}, "POST", "/", []string{"X-Amz-Target", "Kinesis_20131202.GetRecords"}, false},
		{"REST", Reads{}, "GET", "/bucket", []string{"Authorization", fmt.Sprintf(scopeOf, "s3")}, true},
		{"REST that writes", Reads{}, "PUT", "/bucket", []string{"Authorization", fmt.Sprintf(scopeOf, "s3")}, false},
	} {
		reading, err := c.reads.Compile()
		if err != nil {
			t.Fatal(err)
		}
		if got := reading.Only(request(t, c.method, c.target, "x", c.fields...), &Route{}); got != c.want {
			t.Errorf("%s: only reads %v, want %v", c.name, got, c.want)
		}
	}
	for _, bad := range []Reads{{Methods: []string{"get"}}, {Methods: []string{""}}, {Paths: []string{"graphql"}}, {Writes: []string{"/%zz"}}} {
		if _, err := bad.Compile(); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

// TestFormsAreReadOnce: who routes by AWS service, and then asks whether the request reads, leaves the body whole.
func TestFormsAreReadOnce(t *testing.T) {
	rt, err := NewRouter([]Rule{{Service: "queue", AWS: []string{"sqs"}}}, "s3")
	if err != nil {
		t.Fatal(err)
	}
	reading, _ := Reads{}.Compile()
	body := strings.NewReader("Action=ReceiveMessage&Version=2012-11-05")
	r := httptest.NewRequest("POST", "/", body)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Authorization", fmt.Sprintf(scopeOf, "sqs"))
	route := rt.Route(r)
	first := r.Body
	reading.Only(r, &route)
	if b := readAll(t, r.Body); route.Service != "queue" || r.Body != first || b != "Action=ReceiveMessage&Version=2012-11-05" {
		t.Errorf("route %q, body %q", route.Service, b)
	}
	// No rule asks for AWS, and no form is read.
	rt, _ = NewRouter([]Rule{{Service: "x", Paths: []string{"/x"}}}, "s3")
	r = httptest.NewRequest("POST", "/", unread{t})
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	route = rt.Route(r)
	reading.Only(r, &route)
}

// unread is a body that nobody may read.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, http.ErrBodyReadAfterClose
}

// FuzzRouter: whatever rules and requests there are, the same request goes the same way, and only to a service
// whose rule it meets.
func FuzzRouter(f *testing.F) {
	f.Add(uint64(1), "/api/x", "orders.localhost", "blue", "Kinesis_20131202.PutRecord")
	f.Add(uint64(7), "/%61pi//..", "a.b:80", "", "")
	f.Add(uint64(9), "*", "[::1]", "*", ".")
	f.Fuzz(func(t *testing.T, seed uint64, target, host, tenant, operation string) {
		if _, ok := unescaped(target); !ok || strings.IndexFunc(target, unfit) >= 0 {
			return
		}
		random := rand.New(rand.NewPCG(seed, 0))
		some := func(values ...string) (taken []string) {
			for _, v := range values {
				if random.IntN(4) == 0 {
					taken = append(taken, v)
				}
			}
			return taken
		}
		var rules []Rule
		for i := range 8 {
			r := Rule{Service: fmt.Sprint("s", i), Hosts: some("orders.localhost", "*.localhost", "*.orders.localhost", host),
				Paths: some("/", "/api", "/api/x", "/a%20b", target), AWS: some("kinesis", "sqs", "s3")}
			r.Strip = len(r.Paths) > 0 && random.IntN(2) == 0
			if values := some("blue", "*", tenant); len(values) > 0 {
				r.Headers = map[string]string{"X-Tenant": values[0]}
			}
			// What is refused is refused by itself or beside those before; the others make the router.
			if _, err := NewRouter(append(rules, r), "rest"); err == nil {
				rules = append(rules, r)
			}
		}
		rt, err := NewRouter(rules, "rest")
		if err != nil {
			t.Fatal(err)
		}
		ask := func(rt *Router) Route {
			r := request(t, "POST", target, host)
			r.Header["X-Tenant"], r.Header["X-Amz-Target"] = []string{tenant}, []string{operation}
			route := rt.Route(r)
			path, _ := targetOf(r)
			if !strings.HasPrefix(path, route.Strip) {
				t.Errorf("%q is not the beginning of %q", route.Strip, path)
			}
			out := route.Apply(r)
			if rest, _ := targetOf(out); route.Strip != "" && !strings.HasPrefix(rest, "/") {
				t.Errorf("without %q of %q it is %q", route.Strip, path, rest)
			}
			for _, c := range rt.rules {
				own := Route{}
				if _, _, met := c.match(r, hostname(host), path, &own); c.Service == route.Service && !met {
					t.Errorf("%s gets what its rule does not say", c.Service)
				} else if met && route.Service == "rest" {
					t.Errorf("%s does not get what its rule says", c.Service)
				}
			}
			return Route{Service: route.Service, Strip: route.Strip}
		}
		again, _ := NewRouter(rules, "rest")
		if first := ask(rt); ask(rt) != first || ask(again) != first {
			t.Errorf("%q of %q goes another way the second time", target, host)
		}
	})
}

func targetOf(r *http.Request) (path, query string) { return target(r) }

func readAll(t *testing.T, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}
