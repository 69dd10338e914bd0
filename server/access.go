package server

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/server/gateway"
)

// Access says who may control: use the routes under /_localstack/ and /_torpor/, all but those that only tell
// how Torpor is. Pages of foreign web origins never may. The zero value lets this machine control and nobody
// else.
type Access struct {
	// Key is what control calls must carry, as a Bearer token or as the password of Basic, from wherever they
	// come; it has no blanks. "": they need none, and what follows says whose are taken.
	Key string
	// Control says from where; "" is [ControlLoopback].
	Control Control
	// Hosts are the names, besides those that are this machine's anyway, by which the server is called:
	// "torpor.example.org", or "*.example.org" for all names below. A call for another name may be of a page
	// whose own name was made to lead here.
	Hosts []string
}

// Control says from where control calls are taken where no key is set.
type Control string

// What it can say.
const (
	// ControlLoopback is from this machine, over its loopback addresses. What a proxy on this machine passes on
	// does not count, where the proxy says that it does.
	ControlLoopback Control = "loopback"
	// ControlAny is from whoever reaches the port.
	ControlAny Control = "any"
)

// Controls are the values of [Control], the default first.
func Controls() []Control { return []Control{ControlLoopback, ControlAny} }

// The words in the JSON of the answer by which control calls are refused.
const (
	refusedNoKey         = "no_api_key"
	refusedWrongKey      = "wrong_api_key"
	refusedTooMany       = "too_many_wrong_keys"
	refusedNotLocal      = "not_local"
	refusedForeignHost   = "foreign_host"
	refusedForeignOrigin = "foreign_origin"
)

// Refused tells whether code, of the JSON that an error is answered with, says that the caller may not control.
func Refused(code string) bool {
	switch code {
	case refusedNoKey, refusedWrongKey, refusedTooMany, refusedNotLocal, refusedForeignHost, refusedForeignOrigin:
		return true
	}
	return false
}

// MaxKeyBytes bounds [Access.Key].
const MaxKeyBytes = 4096

// guard lets control calls in or refuses them. It is safe for concurrent use.
type guard struct {
	key      *[sha256.Size]byte // the key's digest; nil: there is none
	control  Control
	hosts    *gateway.Router // gives a service for hosts by which the server may be called
	open     map[string]bool // routes that anybody may use
	quiet    map[string]bool // routes whose use is no line in the log
	failures *failures
	logger   *slog.Logger
}

// Check tells what is wrong with access, without naming the key.
func (a Access) Check() error {
	_, err := a.guard(nil, nil)
	return err
}

// guard looks access through. rules are those of the services: what they are called, the server is.
func (a Access) guard(rules []gateway.Rule, logger *slog.Logger) (*guard, error) {
	g := &guard{open: openRoutes(), quiet: quietRoutes(), failures: newFailures(time.Now), logger: logger}
	var err error
	if g.control, err = runtime.Parse("access control", string(a.Control), Controls()); err != nil {
		return nil, err
	}
	switch {
	case a.Key == "":
	case len(a.Key) > MaxKeyBytes:
		return nil, fmt.Errorf("the key of the control API has %d bytes; allowed are %d", len(a.Key), MaxKeyBytes)
	case strings.ContainsFunc(a.Key, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return nil, errors.New("the key of the control API has blanks or control characters, which not every client can send")
	default:
		digest := sha256.Sum256([]byte(a.Key))
		g.key = &digest
	}
	// Names that lead to this machine, or nowhere outside of a private network, whoever asks.
	hosts := []string{"localhost", "*.localhost", "localhost.localstack.cloud", "*.localhost.localstack.cloud", "*.internal"}
	hosts = append(hosts, a.Hosts...)
	for _, r := range rules {
		hosts = append(hosts, r.Hosts...)
	}
	if g.hosts, err = gateway.NewRouter([]gateway.Rule{{Service: "control", Hosts: hosts}}, ""); err != nil {
		return nil, fmt.Errorf("hosts of the control API: %w", err)
	}
	return g, nil
}

// openRoutes are those that anybody may use. A route that is not here needs what control calls need.
func openRoutes() map[string]bool {
	open := map[string]bool{}
	for _, path := range []string{"/_localstack/health", "/_localstack/info", "/_torpor/health", "/_torpor/openapi.yaml", initPath, initPath + "/:stage", "/metrics"} {
		open[http.MethodGet+" "+path], open[http.MethodHead+" "+path] = true, true
	}
	return open
}

// refused is why a control call is not let in.
type refused struct {
	status              int
	code, message, hint string
	wait                time.Duration // before it can be tried again; 0: nothing is known of it
}

// admit tells by what right a control call is let in, or why it is not.
func (g *guard) admit(r *http.Request) (by string, no *refused) {
	if no := foreign(r); no != nil {
		return "", no
	}
	remote := remoteAddress(r)
	if g.key != nil {
		return "key", g.checkKey(r, remote)
	}
	by = string(ControlLoopback)
	forwarded := slices.ContainsFunc([]string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via"},
		func(field string) bool { return r.Header.Get(field) != "" })
	if !remote.IsLoopback() || forwarded {
		by = string(ControlAny)
		if g.control != ControlAny {
			from := r.RemoteAddr
			if forwarded {
				from += ", passed on by a proxy,"
			}
			return "", &refused{status: http.StatusForbidden, code: refusedNotLocal, message: "control calls from " + from + " are refused: no key is set, so only this machine may control",
				hint: "start Torpor with a key in TORPOR_API_KEY and send it; or with TORPOR_CONTROL=any, if all who reach its port may save, load and reset state. " +
					"Through a container's published port nobody is this machine"}
		}
	}
	if !g.knows(r) {
		return "", &refused{status: http.StatusForbidden, code: refusedForeignHost, message: "control calls for the host " + strconv.Quote(r.Host) + " are refused: it is not known as a name of this server",
			hint: "call it by its address or as localhost, name the host in TORPOR_CONTROL_HOSTS, or set a key in TORPOR_API_KEY"}
	}
	return by, nil
}

// foreign refuses what a browser sends for a page of another origin, unasked and with what it knows of
// passwords. A page on another port of this machine is foreign too.
func foreign(r *http.Request) *refused {
	for _, origin := range r.Header["Origin"] {
		if u, err := url.Parse(origin); err != nil || !strings.EqualFold(u.Host, r.Host) {
			return foreignOrigin("from the web origin " + origin)
		}
	}
	// Sent with requests that have no Origin, such as those for an image. "none" is an address that was typed.
	for _, site := range r.Header["Sec-Fetch-Site"] {
		if site != "same-origin" && site != "none" {
			return foreignOrigin("from pages of another web origin (" + site + ")")
		}
	}
	return nil
}

func foreignOrigin(from string) *refused {
	return &refused{status: http.StatusForbidden, code: refusedForeignOrigin, message: "control calls " + from + " are refused",
		hint: "call without an Origin header, or from a page Torpor itself serves"}
}

// knows tells whether a call is for a name of this server. A page whose name somebody else made lead here is
// not stopped by anything else, as to the browser it is of the same origin. Such a name has a dot in it.
func (g *guard) knows(r *http.Request) bool {
	name := (&url.URL{Host: r.Host}).Hostname()
	if _, err := netip.ParseAddr(name); err == nil || !strings.Contains(name, ".") {
		return true
	}
	return g.hosts.Route(r).Service != ""
}

// remoteAddress is who is at the other end of the connection, whatever the request says of it. It is not valid
// if that is no address.
func remoteAddress(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	addr, _ := netip.ParseAddr(host)
	return addr.Unmap().WithZone("") // ::ffff:127.0.0.1 is 127.0.0.1 at a socket for both families
}

// admission is the Echo middleware that lets control calls in, or answers why not, and writes them down. It
// goes by the route that was found, so it judges what will be run and not how its path is written.
func (g *guard) admission(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if g.open[c.Request().Method+" "+c.Path()] {
			return next(c)
		}
		began := time.Now()
		by, no := g.admit(c.Request())
		if no != nil {
			no.answer(c.Response())
			g.logRefused(c, no)
			return nil
		}
		whole := false
		defer func() { g.log(c, by, began, whole) }() // also where the handler panics, which ends the connection
		if err := next(c); err != nil {
			c.Error(err) // now, so that the status is known
		}
		whole = true
		return nil
	}
}

func (no *refused) answer(w http.ResponseWriter) {
	if no.status == http.StatusUnauthorized {
		w.Header()["Www-Authenticate"] = []string{`Bearer realm="torpor"`, `Basic realm="torpor", charset="UTF-8"`}
	}
	if no.wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(no.wait.Seconds()))))
	}
	writeError(w, no.status, no.code, no.message, no.hint)
}
