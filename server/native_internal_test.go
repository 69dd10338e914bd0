package server

import (
	"context"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/torpor-run/torpor/runtime"
)

// TestEveryRouteIsDocumented, and every route that is documented is there.
func TestEveryRouteIsDocumented(t *testing.T) {
	rt, err := runtime.New(runtime.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close(context.Background())
	events := NewEvents(0)
	defer events.Close()
	s := &server{Config: Config{Runtime: rt, Events: events, Logger: slog.New(slog.DiscardHandler)}}
	if s.guard, err = s.Access.guard(nil, s.Logger); err != nil {
		t.Fatal(err)
	}
	s.handler()
	there := map[string]bool{}
	name := regexp.MustCompile(`:(\w+)`)
	for _, r := range s.routes {
		if strings.HasPrefix(r.Path, "/_torpor/") {
			there[r.Method+" "+name.ReplaceAllString(r.Path, "{$1}")] = true
		}
	}
	doc, err := openapi3.NewLoader().LoadFromData(openapi)
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			documented[method+" "+path] = true
		}
	}
	if len(there) == 0 || !maps.Equal(there, documented) {
		for _, r := range slices.Sorted(maps.Keys(there)) {
			if !documented[r] {
				t.Errorf("%s is not in openapi.yaml", r)
			}
		}
		for _, r := range slices.Sorted(maps.Keys(documented)) {
			if !there[r] {
				t.Errorf("%s is in openapi.yaml only", r)
			}
		}
	}
}
