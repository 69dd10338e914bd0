package s3

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// crossOrigin deals with what browsers ask and need when a page of another origin makes the request.
// gofakes3 lets the pages of all the web read and write: with a service on a developer's computer that
// would be every page they visit. It reports whether the request is answered.
func (q *request) crossOrigin() bool {
	origin := q.r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	preflight := q.r.Method == http.MethodOptions && q.r.Header.Get("Access-Control-Request-Method") != ""
	safe := q.r.Method == http.MethodGet || q.r.Method == http.MethodHead
	h := q.w.Header()
	h.Add("Vary", "Origin")
	if !q.allowed(origin) {
		// What is merely read is answered: the browser keeps it from the page.
		if safe {
			return false
		}
		q.writeError(fault("AccessForbidden", "", "CORSResponse: pages of "+origin+" are not allowed to use this S3 service"))
		return true
	}
	q.w.origin = origin
	h.Set("Access-Control-Expose-Headers", "*")
	if preflight {
		h.Set("Access-Control-Allow-Methods", "GET, HEAD, PUT, POST, DELETE")
		if asked := q.r.Header.Get("Access-Control-Request-Headers"); asked != "" {
			h.Set("Access-Control-Allow-Headers", asked)
		}
		q.w.WriteHeader(http.StatusOK)
	}
	return preflight
}

// allowed reports whether pages of that origin may use the service.
func (s *Service) allowed(origin string) bool {
	if slices.Contains(s.origins, origin) || slices.Contains(s.origins, "*") {
		return true
	}
	u, err := url.Parse(origin)
	if err != nil {
		return false
	}
	host := u.Hostname()
	ip := net.ParseIP(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
}
