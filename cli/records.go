package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/notation"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/server"
)

// recordLine is a record as the native API tells it, and as records --json prints it.
type recordLine struct {
	Partition string          `json:"partition"`
	Key       json.RawMessage `json:"key"`
	Bytes     int             `json:"bytes"`
	Value     json.RawMessage `json:"value,omitempty"` // left out: not asked for, or too long
}

// values says how much of values is shown.
type values string

const (
	valuesCut  values = "cut"
	valuesFull values = "full"
	valuesNone values = "none"
)

func allValues() []values { return []values{valuesCut, valuesFull, valuesNone} }

type recordsOptions struct {
	from       string
	partitions []string
	prefix     string
	limit      uint64
	skip       uint64
	values     string
	json       bool
	secrets    secrets
}

func (p *program) records() *cobra.Command {
	var o recordsOptions
	cmd := &cobra.Command{
		Use:   "records SERVICE[/PART]|FILE",
		Short: "List the records that a state consists of",
		Long: `Records lists the records of a part of a service, one a line: partition, key and value as JSON, long
values cut short. PART can be left out where the service has only one. They are of what --from says:

  saved               the newest generation (default); saved~N is the N-th before it
  live                the state of the running service, now; this needs a running torpor
  snapshot:NAME[@V]   a named snapshot
  FILE                an exported file (.snapshot)

In place of SERVICE/PART a state file (.state) or an exported file can be named. Where no torpor answers,
records are read from the data folder, and it is said so.

At most --limit records are shown, from the first that --partition and --prefix let through, or with
--skip N from the N-th after it. With --json each line is one object {"partition", "key", "bytes",
"value"}; how CBOR is written as JSON is told by torpor inspect --help.`,
		Example: `  torpor records s3
  torpor records orders/store --partition 000000000000/us-east-1 --prefix customers/
  torpor records s3/store --from live --limit 0 --json | jq -r .key
  torpor records s3/store --from snapshot:before-upgrade@2
  torpor records .torpor/state/api_states/s3/store.state --skip 100`,
		Args: args(cobra.ExactArgs(1)),
	}
	f := cmd.Flags()
	addPlaceFlags(f)
	f.StringVar(&o.from, "from", "saved", "saved, saved~N, live, snapshot:NAME[@VERSION] or a file")
	f.StringArrayVar(&o.partitions, "partition", nil, "only this partition's records; may be given more than once")
	f.StringVar(&o.prefix, "prefix", "", "only records whose keys begin so")
	f.Uint64Var(&o.limit, "limit", server.DefaultPage, "how many records at most; 0: all")
	f.Uint64Var(&o.skip, "skip", 0, "how many records to leave out first")
	f.StringVar(&o.values, "values", string(valuesCut), "how much of values to show: "+names(allValues()))
	f.BoolVar(&o.json, "json", false, "print JSON, a line for each record")
	o.secrets.addKey(f)
	fixed(cmd, "values", words(allValues()))
	cmd.RunE = func(cmd *cobra.Command, a []string) (err error) {
		show, err := oneOf("--values", o.values, allValues())
		if err != nil {
			return err
		}
		out := bufio.NewWriter(p.Out)
		defer func() { err = errors.Join(err, out.Flush()) }()
		more, err := p.runRecords(cmd, o, a[0], func(r recordLine) error {
			if show == valuesNone {
				r.Value = nil
			}
			if o.json {
				return writeLine(out, r)
			}
			return printRecord(out, r, show)
		})
		if err == nil && more && !o.json {
			fmt.Fprintf(p.Err, "torpor: there are more records: --skip %d shows the next, --limit 0 all\n", o.skip+o.limit)
		}
		return err
	}
	return cmd
}

// oneOf reads a flag that is one of some words.
func oneOf[T ~string](flag, given string, allowed []T) (T, error) {
	for _, v := range allowed {
		if string(v) == given {
			return v, nil
		}
	}
	return "", usageError{fmt.Errorf("%s is %q; allowed are %s", flag, given, names(allowed))}
}

// fixed has shells complete a flag's values.
func fixed(cmd *cobra.Command, flag string, allowed []string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(allowed, cobra.ShellCompDirectiveNoFileComp))
}

// runRecords hands show the records asked for, and tells whether there are more.
func (p *program) runRecords(cmd *cobra.Command, o recordsOptions, what string, show func(recordLine) error) (more bool, err error) {
	ctx := cmd.Context()
	ref, service, part, err := o.source(what, cmd.Flags().Changed("from"))
	if err != nil {
		return false, err
	}
	w := window{skip: o.skip, limit: o.limit, show: show}
	at := &place{}
	if !isFile(ref) {
		if at, err = p.place(cmd); err != nil {
			return false, err
		}
		if !at.running && ref.Kind != snapshot.ReferenceLive {
			p.offline(at)
		}
	}
	if at.running && (ref.Kind == snapshot.ReferenceLive || ref.Kind == snapshot.ReferenceSaved && ref.Back == 0) {
		err = p.askRecords(ctx, at, o, ref, service, part, &w)
		return w.more, err
	}
	open := opener{program: p, place: at, secrets: &o.secrets}
	if service != "" {
		open.services = []string{service}
	}
	in, err := open.open(ctx, ref)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	chosen, err := partIn(in, ref, part)
	if err != nil {
		return false, err
	}
	err = readRecords(ctx, chosen.File, o, &w)
	return w.more, err
}

// source reads what records are asked for: where they are, and of which part; "" is the only one.
func (o recordsOptions) source(what string, from bool) (ref snapshot.Reference, service, part string, err error) {
	file := filepath.IsAbs(what) || strings.HasPrefix(what, ".")
	if r, err := snapshot.ParseReference(what); err == nil && (file || r.Kind == snapshot.ReferenceState || strings.HasSuffix(what, ".snapshot")) {
		if from {
			return r, "", "", usageError{fmt.Errorf("%s is a file, and --from names a place, too: name a service and a part with --from %s", what, what)}
		}
		return r, "", "", nil
	}
	service, part, both := strings.Cut(what, "/")
	if file || service == "" || both && (part == "" || strings.Contains(part, "/")) {
		return ref, "", "", usageError{fmt.Errorf("%q is neither SERVICE, SERVICE/PART nor the path of a .state or .snapshot file", what)}
	}
	ref, err = reference(o.from)
	return ref, service, part, err
}

// partIn finds a part in a snapshot; "" is the only one there is.
func partIn(in *snapshot.Snapshot, ref snapshot.Reference, part string) (snapshot.Part, error) {
	var all []string
	for _, p := range in.Parts {
		if p.Name == part || part == "" && len(in.Parts) == 1 {
			return p, nil
		}
		all = append(all, p.String())
	}
	if len(all) == 0 {
		return snapshot.Part{}, fmt.Errorf("%s: a state: %w", ref, abi.ErrNotFound)
	}
	if part == "" {
		return snapshot.Part{}, usageError{fmt.Errorf("%s has several parts: name one of %s, with --from %s", ref, strings.Join(all, ", "), ref)}
	}
	return snapshot.Part{}, fmt.Errorf("%s: part %q: %w; there are %s", ref, part, abi.ErrNotFound, strings.Join(all, ", "))
}

// window shows some of a sequence of records.
type window struct {
	skip, limit uint64
	seen        uint64
	more        bool
	show        func(recordLine) error
}

// full tells that no record is wanted any more.
func (w *window) full() bool { return w.limit > 0 && w.seen >= w.skip && w.seen-w.skip >= w.limit }

// hidden takes note of a record that comes before those wanted.
func (w *window) hidden() bool {
	if w.seen >= w.skip {
		return false
	}
	w.seen++
	return true
}

// askRecords asks the running torpor.
func (p *program) askRecords(ctx context.Context, at *place, o recordsOptions, ref snapshot.Reference, service, part string, w *window) error {
	if part == "" {
		s, err := serviceIn(at.how, service)
		if err != nil {
			return err
		}
		if len(s.Parts) != 1 {
			var all []string
			for _, p := range s.Parts {
				all = append(all, service+"/"+p.Name)
			}
			return usageError{fmt.Errorf("service %s has %d parts: name one of %s", service, len(all), strings.Join(all, ", "))}
		}
		part = s.Parts[0].Name
	}
	query := url.Values{"from": {string(ref.Kind)}, "partition": o.partitions}
	if o.prefix != "" {
		query.Set("prefix", o.prefix)
	}
	if o.limit > 0 && o.skip <= math.MaxInt64-o.limit {
		query.Set("limit", strconv.FormatUint(o.skip+o.limit, 10))
	}
	if o.values == string(valuesNone) {
		query.Set("value", "false")
	}
	ended := false
	r := request{what: "records of " + service + "/" + part, method: http.MethodGet, query: query,
		path: "/_torpor/services/" + url.PathEscape(service) + "/parts/" + url.PathEscape(part) + "/records"}
	err := at.lines(ctx, r, func(line []byte) error {
		var told struct {
			Record *recordLine
			End    *struct{ More bool }
		}
		if err := understand(r.what, line, &told); err != nil {
			return err
		}
		switch {
		case told.End != nil:
			ended, w.more = true, told.End.More
		case told.Record != nil && !w.hidden():
			w.seen++
			return w.show(*told.Record)
		}
		return nil
	})
	if err == nil && !ended {
		err = fmt.Errorf("%s: the answer broke off", r.what)
	}
	return err
}

// readRecords reads a state file.
func readRecords(ctx context.Context, f *statefile.File, o recordsOptions, w *window) error {
	n, err := notation.New()
	if err != nil {
		return err
	}
	for _, want := range o.partitions {
		if !hasPartition(f, want) {
			return fmt.Errorf("partition %q: %w", want, abi.ErrNotFound)
		}
	}
	in := f.Records(o.partitions...)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := in.ReadBatch()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for i := range b.Len() {
			if key, _ := b.Key(i); !bytes.HasPrefix(key, []byte(o.prefix)) || w.hidden() {
				continue
			}
			if w.full() {
				w.more = true
				return nil
			}
			r := recordLine{Partition: string(b.Partition(i)), Bytes: len(b.Value(i))}
			if r.Key, err = jsonOf(n.JSON(b.KeyItem(i))); err == nil && o.values != string(valuesNone) {
				r.Value, err = jsonOf(n.JSON(b.Value(i)))
			}
			w.seen++
			if err = errors.Join(err, w.show(r)); err != nil {
				return err
			}
		}
	}
}

// jsonOf is v as JSON in one line.
func jsonOf(v any) (json.RawMessage, error) {
	var b bytes.Buffer
	if err := writeLine(&b, v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// writeLine writes v as JSON in one line.
func writeLine(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func printRecord(w io.Writer, r recordLine, show values) error {
	var value string
	switch {
	case show == valuesNone || r.Value == nil:
		value = fmt.Sprintf("(%d bytes)", r.Bytes)
	case show == valuesFull:
		value = string(r.Value)
	default:
		value = notation.Shorten(string(r.Value), valueWidth)
	}
	_, err := fmt.Fprintf(w, "%s\t%s\t%s\n", notation.OneWord(r.Partition), keyWord(r.Key), value)
	return err
}

// keyWord is a key, text or {"$bytes": …}, for people.
func keyWord(key json.RawMessage) string {
	var text string
	if json.Unmarshal(key, &text) == nil {
		return notation.OneWord(text)
	}
	return string(key)
}
