package server

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
)

// maxLogged is how much of a word that a caller chose is written to the log.
const maxLogged = 200

// quietRoutes only list things, and may be asked every second: their use is logged at debug level. All other
// control calls change state or give it out, and so may a route that is not here.
func quietRoutes() map[string]bool {
	quiet := map[string]bool{}
	for _, path := range []string{
		"/_localstack/resources", "/_localstack/pods", "/_localstack/pods/:name/versions", "/_localstack/pods/remotes", "/_localstack/pods/environment",
		"/_localstack/pods/state/metamodel", "/_localstack/platform/v1/cloudpods", "/_localstack/platform/v1/cloudpods/:name",
		"/_torpor/services", "/_torpor/services/:service", "/_torpor/services/:service/parts", "/_torpor/services/:service/parts/:part",
		"/_torpor/snapshots", "/_torpor/snapshots/:name", "/_torpor/events",
	} {
		quiet[http.MethodGet+" "+path], quiet[http.MethodHead+" "+path] = true, true
	}
	return quiet
}

// log writes down a control call that was let in: what was asked of what, by whom, by what right, and how it ended.
// The query, the headers and the body may hold secrets and are left out.
func (g *guard) log(c echo.Context, by string, began time.Time, whole bool) {
	level := slog.LevelInfo
	if g.quiet[c.Request().Method+" "+c.Path()] {
		level = slog.LevelDebug
	}
	attrs := append(askedFor(c), slog.String("by", by), slog.Int("status", c.Response().Status), slog.Duration("duration", time.Since(began)))
	if !whole {
		attrs = append(attrs, slog.Bool("cut_off", true))
	}
	g.logger.LogAttrs(context.Background(), level, "control", attrs...)
}

// logRefused writes down a control call that was not let in.
func (g *guard) logRefused(c echo.Context, no *refused) {
	g.logger.LogAttrs(context.Background(), slog.LevelWarn, "control refused", append(askedFor(c), slog.Int("status", no.status), slog.String("code", no.code))...)
}

// askedFor is who asked for what: the route and what its path names, such as a service.
func askedFor(c echo.Context) []slog.Attr {
	attrs := []slog.Attr{slog.String("method", logged(c.Request().Method)), slog.String("route", logged(c.Path()))}
	values := c.ParamValues()
	for i, name := range c.ParamNames() {
		if i < len(values) {
			attrs = append(attrs, slog.String(name, logged(values[i])))
		}
	}
	return append(attrs, slog.String("remote", c.Request().RemoteAddr))
}

func logged(s string) string {
	if len(s) > maxLogged {
		return s[:maxLogged] + "…"
	}
	return s
}
