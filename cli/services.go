package cli

import (
	"log/slog"
	"net/http"

	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/server/embedded/s3"
)

// partStore is the part of a service's own objects, as LocalStack names it.
const partStore = "store"

// serviceS3 is the embedded service, and the one that gets what nothing else claims.
const serviceS3 = "s3"

// knownServices are the services the configuration may speak of.
func knownServices() []string { return []string{serviceS3} }

// embedded is a service that runs in this process: what answers its requests, and its one part, whose
// serializer serve adds.
type embedded struct {
	name    string
	handler http.Handler
	part    runtime.PartConfig
}

// embeddedServices starts them, empty.
func embeddedServices(logger *slog.Logger) []embedded {
	dirty := new(runtime.Dirty)
	store := s3.New(s3.Options{Logger: logger, OnChange: func(bucket, key string) { dirty.Mark(bucket + "/" + key) }})
	return []embedded{{name: serviceS3, handler: store.Handler(), part: runtime.PartConfig{
		Name: partStore, Source: store, Dirty: dirty, Schema: s3.Schema, Settings: map[string]any{"schema": s3.Schema},
	}}}
}
