package cli

import (
	"context"

	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/server/embedded/s3"
)

// partStore is the part of a service's own objects, as LocalStack names it.
const partStore = "store"

// serviceS3 is the embedded service, and the one that gets what nothing else claims.
const serviceS3 = "s3"

// knownServices are the services the configuration may speak of.
func knownServices() []string { return []string{serviceS3} }

// embed makes the service that is in this process, empty.
func (b *builder) embed(ctx context.Context, s *built) (err error) {
	dirty := new(runtime.Dirty)
	store := s3.New(s3.Options{Logger: b.logger, OnChange: func(bucket, key string) { dirty.Mark(bucket + "/" + key) }})
	part := runtime.PartConfig{Name: partStore, Source: store, Dirty: dirty, SelfMarking: true, Schema: s3.Schema,
		Settings: map[string]any{"schema": s3.Schema}, Proof: s.config.Proof, Compression: s.config.Compression}
	if b.serializers != nil {
		if part.Serializer, err = b.serializers(ctx, "records"); err != nil {
			return err
		}
	}
	s.runtime.Parts, s.handler = []runtime.PartConfig{part}, store.Handler()
	return nil
}
