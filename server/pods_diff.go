package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"

	"github.com/torpor-run/torpor/runtime/notation"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// podOperation is what loading a snapshot would do to one record.
type podOperation struct {
	Operation string `json:"operation_type"` // ADDITION, MODIFICATION, DELETION
	Account   string `json:"account_id"`
	Region    string `json:"region_name"`
	Part      string `json:"part"`
	Key       string `json:"key,omitempty"`
	Message   string `json:"message,omitempty"`
}

// operationOf has LocalStack's words for kinds of changes.
func operationOf(c snapshot.Change) string {
	switch c.Kind() {
	case snapshot.Added:
		return "ADDITION"
	case snapshot.Removed:
		return "DELETION"
	default:
		return "MODIFICATION"
	}
}

// diffPod answers with what loading a snapshot would do to the live state, by service. There may be many changes: they
// are written to a file first, so that an error still has its own status.
func (s *server) diffPod(w http.ResponseWriter, r *http.Request, name string) {
	in, strategy, err := s.openPod(w, r, name)
	if missing := (*repository.VersionError)(nil); errors.As(err, &missing) {
		status, code := statusOf(err)
		writeError(w, status, code, textOfMissing(missing), "")
		return
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	defer s.closing(in)
	f, size, err := s.scratch(func(to io.Writer) error { return s.writeDiff(r.Context(), to, in, strategy) })
	if err != nil {
		s.fail(w, err)
		return
	}
	defer func() { s.closed("differences", f.Close()) }()
	w.Header().Set("Content-Type", "application/json")
	s.send(w, f, size)
}

func (s *server) writeDiff(ctx context.Context, to io.Writer, in *snapshot.Snapshot, strategy snapshot.Strategy) error {
	for _, name := range in.Services() {
		if _, err := s.Runtime.Service(name); err != nil {
			return marked{err, errIncompatible}
		}
	}
	live, err := s.Runtime.Capture(ctx, in.Services()...)
	if err != nil {
		return err
	}
	defer s.closing(live)
	out := &diffWriter{w: bufio.NewWriter(to)}
	for _, name := range in.Services() {
		if err := diffService(ctx, out, live, in, name, strategy); err != nil {
			return err
		}
	}
	return out.close()
}

// diffService writes what loading in would do to one service. Parts that in has nothing of stay as they are.
func diffService(ctx context.Context, out *diffWriter, live, in *snapshot.Snapshot, service string, strategy snapshot.Strategy) error {
	var before []snapshot.Part
	removed := map[string]func(partition string) bool{}
	for _, p := range in.Of(service) {
		if l, ok := live.Part(service, p.Name); ok {
			before = append(before, l)
			removed[p.Name] = removes(strategy, l.File, p.File)
		}
	}
	from, err := snapshot.New(snapshot.Info{}, before, nil, nil)
	if err != nil {
		return err
	}
	to, err := in.Only(service)
	if err != nil {
		return err
	}
	stats, err := snapshot.Diff(ctx, from, to, func(c snapshot.Change) error {
		if c.Kind() == snapshot.Removed && !removed[c.Part](c.Partition) {
			return nil
		}
		account, region := accountRegion(c.Partition)
		return out.add(service, podOperation{Operation: operationOf(c), Account: account, Region: region, Part: c.Part, Key: notation.Key(c.Key)})
	})
	for _, st := range stats {
		if err == nil && st.Incomparable != "" {
			err = out.add(service, podOperation{Operation: "MODIFICATION", Part: st.Part, Message: st.Incomparable})
		}
	}
	return err
}

// removes tells of which partitions a merge removes records that only the live state has.
func removes(strategy snapshot.Strategy, live, in *statefile.File) func(partition string) bool {
	named := func(p statefile.Partition) bool { return p.Name != "" }
	replaced := map[string]bool{}
	for _, p := range in.Partitions() {
		replaced[p.Name] = true
	}
	if slices.ContainsFunc(live.Partitions(), named) || slices.ContainsFunc(in.Partitions(), named) {
		replaced[""] = false // merged by record
	}
	return func(partition string) bool {
		return strategy == snapshot.Overwrite || strategy == snapshot.AccountRegionMerge && replaced[partition]
	}
}

// diffWriter writes operations by service as one JSON object. Those of a service come together; one without any is
// left out.
type diffWriter struct {
	w       *bufio.Writer
	service string // whose operations are being written; "": none
}

// add writes an operation. Errors of the writer show when it is closed.
func (d *diffWriter) add(service string, op podOperation) error {
	between := ","
	if d.service != service {
		name, err := json.Marshal(service)
		if err != nil {
			return err
		}
		if between = "{"; d.service != "" {
			between = "],"
		}
		between += string(name) + ":["
		d.service = service
	}
	b, err := json.Marshal(op)
	if err != nil {
		return err
	}
	_, _ = d.w.WriteString(between)
	_, _ = d.w.Write(b)
	return nil
}

func (d *diffWriter) close() error {
	end := "{}\n"
	if d.service != "" {
		end = "]}\n"
	}
	_, _ = d.w.WriteString(end)
	return d.w.Flush()
}
