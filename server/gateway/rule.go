package gateway

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/torpor-run/torpor/server/aws"
)

// Rule says which requests are a service's. A request must meet every kind of condition that is given: of
// each kind, any one value.
type Rule struct {
	Service string
	Hosts   []string          // "orders.localhost", or "*.orders.localhost" for all names below; port and case do not count
	Headers map[string]string // name: value; "*" is any value
	AWS     []string          // names of AWS services, as package aws tells them
	Paths   []string          // beginnings, on segment borders: "/orders"; decoded, so that /%6Frders is meant too
	Strip   bool              // the beginning is taken away before the request goes on; X-Forwarded-Prefix says it
}

// rule is a Rule that was looked through.
type rule struct {
	Rule
	hosts   []host
	headers []header
	paths   []prefix
}

type host struct {
	name  string // in small letters
	below bool   // names below it, not it itself
}

type header struct{ name, value string } // value "*" is any

// prefix is a beginning of paths, as it is written and by its segments, decoded.
type prefix struct {
	raw      string
	segments []string
}

// compile looks a rule through; the error names the service and what is wrong.
func (r Rule) compile() (*rule, error) {
	c := &rule{Rule: r}
	fail := func(format string, a ...any) (*rule, error) {
		return nil, fmt.Errorf("rule of service %s: %w", r.Service, fmt.Errorf(format, a...))
	}
	if r.Service == "" {
		return nil, fmt.Errorf("a rule names no service: %+v", r)
	}
	if len(r.Hosts)+len(r.Headers)+len(r.AWS)+len(r.Paths) == 0 {
		return fail("it has no condition; give a host, header, aws or path")
	}
	if r.Strip && len(r.Paths) == 0 {
		return fail("strip takes the path's beginning away, and no path is given")
	}
	for _, name := range r.Hosts {
		h := host{name: hostname(name)}
		h.name, h.below = strings.CutPrefix(h.name, "*.")
		if h.name == "" || strings.Contains(h.name, "*") || strings.ContainsAny(name, "/@?# ") {
			return fail("host %q is neither a name nor *. and a name", name)
		}
		c.hosts = append(c.hosts, h)
	}
	for name, value := range r.Headers {
		if !token(name) || value == "" || strings.TrimSpace(value) != value {
			return fail("header %q: %q is not the name of a header field and its value, or * for any", name, value)
		}
		if strings.EqualFold(name, "Host") {
			return fail("header %q: give it as a host", name)
		}
		c.headers = append(c.headers, header{http.CanonicalHeaderKey(name), value})
	}
	slices.SortFunc(c.headers, func(a, b header) int { return strings.Compare(a.name+"\x00"+a.value, b.name+"\x00"+b.value) })
	for _, name := range r.AWS {
		if name == "" || name != strings.ToLower(name) {
			return fail("aws %q is not the name of an AWS service in small letters, such as kinesis", name)
		}
	}
	for _, path := range r.Paths {
		p, err := compilePrefix(path)
		if err != nil {
			return fail("%w", err)
		}
		if len(p.segments) > 0 && (p.segments[0] == "_localstack" || p.segments[0] == "_torpor") {
			return fail("path %q is of Torpor's own", path)
		}
		c.paths = append(c.paths, p)
	}
	return c, nil
}

// compilePrefix reads the beginning of paths, as it stands in a URL.
func compilePrefix(path string) (prefix, error) {
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "?#") {
		return prefix{}, fmt.Errorf("path %q does not begin with /, or holds ? or #", path)
	}
	p := prefix{raw: strings.TrimSuffix(path, "/")}
	if p.raw == "" {
		return p, nil
	}
	for segment := range strings.SplitSeq(p.raw[1:], "/") {
		decoded, err := url.PathUnescape(segment)
		if err != nil {
			return prefix{}, fmt.Errorf("path %q: %w", path, err)
		}
		p.segments = append(p.segments, decoded)
	}
	return p, nil
}

// cut gives the beginning of a path, as it came, that is the prefix. In it a letter may be written as %6F; a
// slash written as %2F is no border.
func (p prefix) cut(path string) (front string, ok bool) {
	if front, ok = until(path, len(p.raw)); ok && front == p.raw {
		return front, true
	}
	if !strings.Contains(path, "%") && !strings.Contains(p.raw, "%") {
		return "", false
	}
	at := 0
	for _, want := range p.segments {
		if at >= len(path) || path[at] != '/' {
			return "", false
		}
		end := at + 1
		for end < len(path) && path[end] != '/' {
			end++
		}
		if got, err := url.PathUnescape(path[at+1 : end]); err != nil || got != want {
			return "", false
		}
		at = end
	}
	return until(path, at)
}

// until gives a path up to a segment's border.
func until(path string, at int) (front string, ok bool) {
	if at > len(path) || at < len(path) && path[at] != '/' || at == len(path) && at == 0 {
		return "", false
	}
	return path[:at], true
}

// same finds why no request could tell two rules apart: they have the same kinds of conditions, and of each
// kind one in common. "" if they can be told apart.
func (r *rule) same(other *rule) string {
	if (len(r.hosts) == 0) != (len(other.hosts) == 0) || (len(r.headers) == 0) != (len(other.headers) == 0) ||
		(len(r.AWS) == 0) != (len(other.AWS) == 0) || (len(r.paths) == 0) != (len(other.paths) == 0) {
		return ""
	}
	var both []string
	for _, h := range r.hosts {
		if slices.Contains(other.hosts, h) {
			both = append(both, "host "+map[bool]string{true: "*."}[h.below]+h.name)
			break
		}
	}
	for _, h := range r.headers {
		if slices.Contains(other.headers, h) {
			both = append(both, "header "+h.name+": "+h.value)
			break
		}
	}
	for _, name := range r.AWS {
		if slices.Contains(other.AWS, name) {
			both = append(both, "aws "+name)
			break
		}
	}
	for _, p := range r.paths {
		if slices.ContainsFunc(other.paths, func(o prefix) bool { return slices.Equal(o.segments, p.segments) }) {
			both = append(both, "path /"+strings.Join(p.segments, "/"))
			break
		}
	}
	kinds := 0
	for _, n := range []int{len(r.hosts), len(r.headers), len(r.AWS), len(r.paths)} {
		if n > 0 {
			kinds++
		}
	}
	if len(both) < kinds {
		return ""
	}
	return strings.Join(both, ", ")
}

// Reads says which requests of a service only read, so that they do not make it be saved.
type Reads struct {
	Methods    []string // nil: GET, HEAD, OPTIONS, TRACE; of AWS requests the operation decides
	Paths      []string // beginnings of paths that only read whatever the method, such as /graphql
	Operations []string // of AWS, more than package aws knows
	Writes     []string // operations, or beginnings of paths (with a slash in front), that change though they look like reading
}

// Reading tells reading from changing requests. It is safe for concurrent use.
type Reading struct {
	methods, operations, writes []string
	paths, writePaths           []prefix
}

// Compile looks r through; the error names what is wrong.
func (r Reads) Compile() (*Reading, error) {
	c := &Reading{methods: r.Methods, operations: r.Operations}
	if r.Methods == nil {
		c.methods = []string{http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace}
	}
	for _, m := range c.methods {
		if !token(m) || m != strings.ToUpper(m) {
			return nil, fmt.Errorf("reads: %q is not a method in capital letters", m)
		}
	}
	for _, path := range r.Paths {
		p, err := compilePrefix(path)
		if err != nil {
			return nil, fmt.Errorf("reads: %w", err)
		}
		c.paths = append(c.paths, p)
	}
	for _, w := range r.Writes {
		if !strings.HasPrefix(w, "/") {
			c.writes = append(c.writes, w)
			continue
		}
		p, err := compilePrefix(w)
		if err != nil {
			return nil, fmt.Errorf("writes: %w", err)
		}
		c.writePaths = append(c.writePaths, p)
	}
	return c, nil
}

// Only reports whether a request only reads. Where two settings disagree it does not: to save once too often
// loses nothing. Like [Router.Route] it may replace r.Body.
func (c *Reading) Only(r *http.Request, route *Route) bool {
	path, _ := target(r)
	under := func(p prefix) bool { _, ok := p.cut(path); return ok }
	if slices.ContainsFunc(c.writePaths, under) {
		return false
	}
	q, isAWS := aws.Request{}, false
	if route.asked || signed(r) {
		q, isAWS = route.classify(r)
	}
	if slices.Contains(c.writes, q.Operation) && q.Operation != "" {
		return false
	}
	if slices.ContainsFunc(c.paths, under) {
		return true
	}
	if isAWS && q.Operation != "" {
		return q.Reads || slices.Contains(c.operations, q.Operation)
	}
	return slices.Contains(c.methods, r.Method)
}

// signed reports whether a request has what AWS clients send, at no cost.
func signed(r *http.Request) bool {
	return r.Header.Get("X-Amz-Target") != "" || r.Header.Get("Smithy-Protocol") != "" ||
		strings.HasPrefix(r.Header.Get("Authorization"), "AWS") || strings.Contains(r.URL.RawQuery, "X-Amz-")
}

// token reports whether s can be a method or the name of a header field.
func token(s string) bool {
	return s != "" && strings.IndexFunc(s, func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && !strings.ContainsRune("!#$%&'*+-.^_`|~", c)
	}) < 0
}
