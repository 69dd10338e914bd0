package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// Resource says which resource a record is, by its key, as LocalStack's clients show resources: kind as in
// AWS::S3::Bucket, and its id. ok is false where it is none. What it gives is kept.
type Resource func(key []byte) (kind, id string, ok bool)

// S3Resource is the Resource of the built-in S3: its buckets.
func S3Resource(key []byte) (kind, id string, ok bool) {
	name, ok := bytes.CutPrefix(key, []byte("bucket/"))
	return "AWS::S3::Bucket", string(name), ok
}

// resource is one resource in GET /_localstack/resources.
type resource struct {
	Region  string `json:"region_name"`
	Account string `json:"account_id"`
	ID      string `json:"id"`
}

// maxResourcesLine is how many resources a line has at most: some clients read no line of more than 1 MiB.
const maxResourcesLine = 1000

// resources answers with the resources of the services that it is known of which records are some, a line of NDJSON for
// each kind, or more. It looks at live state, of services that sleep at what is saved.
func (s *server) resources(w http.ResponseWriter, r *http.Request, _ string) {
	var services []string
	for _, svc := range s.Runtime.Services() {
		if s.Resources[svc.Name()] != nil {
			services = append(services, svc.Name())
		}
	}
	out := &lineWriter{w: w}
	if len(services) > 0 {
		live, err := s.Runtime.Capture(r.Context(), services...)
		if err != nil {
			s.fail(w, err)
			return
		}
		defer s.closing(live)
		for _, p := range live.Parts {
			err := resourcesOf(r.Context(), p.File, s.Resources[p.Service], out)
			if err == nil {
				continue
			}
			if err := out.fail(err); err != nil {
				s.fail(w, err)
			}
			return
		}
	}
	if !out.begun {
		begin(w, http.StatusOK) // there are none
	}
}

// begin begins an answer in NDJSON that may have no line.
func begin(w http.ResponseWriter, status int) *lineWriter {
	w.Header().Set("Content-Type", ndjson)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	return &lineWriter{w: w, begun: true}
}

// resourcesOf writes the resources of one part.
func resourcesOf(ctx context.Context, f *statefile.File, known Resource, out *lineWriter) error {
	found := map[string][]resource{}
	write := func(kind string) error {
		list := found[kind]
		delete(found, kind)
		return out.write(map[string][]resource{kind: list})
	}
	err := eachRecord(ctx, f, func(b *record.Batch, i int) error {
		key, _ := b.Key(i)
		kind, id, ok := known(key)
		if !ok {
			return nil
		}
		account, region := accountRegion(string(b.Partition(i)))
		if found[kind] = append(found[kind], resource{Region: region, Account: account, ID: id}); len(found[kind]) == maxResourcesLine {
			return write(kind)
		}
		return nil
	})
	for kind := range found {
		if err == nil {
			err = write(kind)
		}
	}
	return err
}

// accountRegion takes the name of a partition apart.
func accountRegion(partition string) (account, region string) {
	account, region, _ = strings.Cut(partition, "/")
	return account, region
}

// eachRecord reads all records of a state.
func eachRecord(ctx context.Context, f *statefile.File, do func(*record.Batch, int) error) error {
	records := f.Records()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := records.ReadBatch()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for i := range b.Len() {
			if err := do(b, i); err != nil {
				return err
			}
		}
	}
}

// partModel is what the metamodel says of one part of a service in one region.
type partModel struct {
	Records uint64 `json:"records"`
}

// metamodel answers with what there is, by account, service and region, as LocalStack's clients walk it. LocalStack has
// there what list operations answer; here it is how many records each part has, and for services whose resources are
// known their ids.
func (s *server) metamodel(w http.ResponseWriter, r *http.Request, _ string) {
	live, err := s.Runtime.Capture(r.Context())
	if err != nil {
		s.fail(w, err)
		return
	}
	defer s.closing(live)
	accounts := map[string]map[string]map[string]map[string]any{}
	at := func(service, partition string) map[string]any {
		account, region := accountRegion(partition)
		services := under(accounts, account)
		return under(under(services, service), region)
	}
	for _, p := range live.Parts {
		known := s.Resources[p.Service]
		counts, ids := map[string]uint64{}, map[string]map[string][]string{}
		err := eachRecord(r.Context(), p.File, func(b *record.Batch, i int) error {
			counts[string(b.Partition(i))]++
			if known == nil {
				return nil
			}
			key, _ := b.Key(i)
			if kind, id, ok := known(key); ok {
				of := under(ids, string(b.Partition(i)))
				of[kind] = append(of[kind], id)
			}
			return nil
		})
		if err != nil {
			s.fail(w, err)
			return
		}
		for partition, n := range counts {
			at(p.Service, partition)[p.Name] = partModel{Records: n}
		}
		for partition, kinds := range ids {
			for kind, list := range kinds {
				slices.Sort(list)
				at(p.Service, partition)[kind] = list
			}
		}
	}
	writeJSON(w, http.StatusOK, accounts)
}

// under gives the map that m has under a key, which it makes if need be.
func under[V any](m map[string]map[string]V, key string) map[string]V {
	if m[key] == nil {
		m[key] = map[string]V{}
	}
	return m[key]
}
