package gateway

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/torpor-run/torpor/server/aws"
)

// Router finds the service that a request is for. It is safe for concurrent use.
//
// Of the rules that a request meets the one with a host goes first (a whole name before *., a longer one before
// a shorter), then the one with a header (a value before *), with an AWS service, with a path (the longest
// prefix); then the one that stands first.
type Router struct {
	rules    []*rule
	fallback string
}

// Route is where a request goes.
type Route struct {
	Service string // "": nobody takes it
	Strip   string // the beginning of the path, as it came, that the service is not to see

	asked, isAWS bool // whether the request was classified, and whether it is AWS's
	aws          aws.Request
}

// NewRouter makes a router of rules; what none of them claims goes to the service fallback ("": to nobody). The
// error names a rule that means nothing, or two that no request could tell apart.
func NewRouter(rules []Rule, fallback string) (*Router, error) {
	rt := &Router{fallback: fallback}
	for _, r := range rules {
		c, err := r.compile()
		if err != nil {
			return nil, err
		}
		for _, other := range rt.rules {
			if both := c.same(other); both != "" {
				return nil, fmt.Errorf("services %s and %s: no request can tell their rules apart, both have %s", other.Service, c.Service, both)
			}
		}
		rt.rules = append(rt.rules, c)
	}
	return rt, nil
}

// score says how well a rule is met, kind by kind in the order in which they count.
type score [4]int

// Route tells where r goes. If a rule asks for an AWS service it may have to read the beginning of a form, and
// then replaces r.Body by one that gives all of it: call it with a copy of the server's own request, which
// takes the state of the connection from the body it made.
func (rt *Router) Route(r *http.Request) Route {
	found := Route{Service: rt.fallback}
	best := score{-1}
	name := ""
	if len(rt.rules) > 0 {
		name = hostname(r.Host)
	}
	path, _ := target(r)
	for _, c := range rt.rules {
		s, front, ok := c.match(r, name, path, &found)
		if ok && slices.Compare(s[:], best[:]) > 0 {
			best, found.Service, found.Strip = s, c.Service, ""
			if c.Strip {
				found.Strip = front
			}
		}
	}
	return found
}

// match tells whether a request meets a rule, how well, and where its path's prefix ends.
func (r *rule) match(req *http.Request, name, path string, route *Route) (s score, front string, ok bool) {
	if len(r.hosts) > 0 {
		for _, h := range r.hosts {
			s[0] = max(s[0], h.match(name))
		}
		if s[0] == 0 {
			return s, "", false
		}
	}
	if len(r.headers) > 0 {
		for _, h := range r.headers {
			s[1] = max(s[1], h.match(req.Header))
		}
		if s[1] == 0 {
			return s, "", false
		}
	}
	if len(r.paths) > 0 {
		for _, p := range r.paths {
			if f, is := p.cut(path); is && len(p.segments) >= s[3] {
				front, s[3] = f, len(p.segments)+1
			}
		}
		if s[3] == 0 {
			return s, "", false
		}
	}
	if len(r.AWS) > 0 { // last, as it costs most
		q, is := route.classify(req)
		if !is || !slices.Contains(r.AWS, q.Service) {
			return s, "", false
		}
		s[2] = 1
	}
	return s, front, true
}

func (route *Route) classify(r *http.Request) (aws.Request, bool) {
	if !route.asked {
		route.asked = true
		route.aws, route.isAWS = aws.Classify(r)
	}
	return route.aws, route.isAWS
}

// match gives 0 for no, and more for the more particular of two that match.
func (h host) match(name string) int {
	if !h.below {
		if name == h.name {
			return 1 << 20
		}
		return 0
	}
	if front, is := strings.CutSuffix(name, h.name); is && len(front) > 1 && front[len(front)-1] == '.' {
		return len(h.name)
	}
	return 0
}

func (h header) match(fields http.Header) int {
	values := fields[h.name]
	if h.value == "*" {
		return min(len(values), 1)
	}
	if slices.Contains(values, h.value) {
		return 2
	}
	return 0
}

// hostname is the name in a Host field, without port, brackets and final dot, in small letters.
func hostname(hostport string) string {
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		hostport = h
	}
	hostport = strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
	return strings.ToLower(strings.TrimSuffix(hostport, "."))
}

// target is a request's path and query as they came; what cannot go on as it came is escaped. The query begins
// with its question mark, if there is one.
func target(r *http.Request) (path, query string) {
	if !strings.HasPrefix(r.RequestURI, "/") || strings.IndexFunc(r.RequestURI, unfit) >= 0 {
		query = strings.ReplaceAll(r.URL.RawQuery, " ", "%20")
		if query != "" || r.URL.ForceQuery {
			query = "?" + query
		}
		return cmp.Or(r.URL.EscapedPath(), "/"), query
	}
	if at := strings.IndexByte(r.RequestURI, '?'); at >= 0 {
		return r.RequestURI[:at], r.RequestURI[at:]
	}
	return r.RequestURI, ""
}

// unfit are the characters that would end the target of a request line.
func unfit(c rune) bool { return c <= ' ' || c == 0x7f }

// Apply gives the request as the service is to see it: a copy without the prefix, if there is one to strip.
func (route *Route) Apply(r *http.Request) *http.Request {
	path, query := target(r)
	rest, is := strings.CutPrefix(path, route.Strip)
	if route.Strip == "" || !is {
		return r
	}
	rest = cmp.Or(rest, "/")
	out := new(http.Request)
	*out = *r
	out.Header = r.Header.Clone()
	out.Header.Set("X-Forwarded-Prefix", strings.Join(append(out.Header["X-Forwarded-Prefix"], route.Strip), ", "))
	u := *r.URL
	out.URL, out.RequestURI = &u, rest+query
	u.RawPath = rest
	if u.Path, is = unescaped(rest); !is {
		u.Path, u.RawPath = rest, ""
	}
	return out
}

func unescaped(path string) (string, bool) {
	s, err := url.PathUnescape(path)
	return s, err == nil
}
