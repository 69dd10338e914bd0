package cli

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/notation"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// valueWidth is how much of a record's value the text output shows, in characters.
const valueWidth = 200

func (p *program) inspect() *cobra.Command {
	var o inspectOptions
	cmd := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Show what a state file holds",
		Long: `Inspect prints a state file's header, counts and partitions, and with --records its records, one a
line: partition, key and value in CBOR's diagnostic notation, long values cut short.

Deltas, which are saves of only what had changed, are applied: the records are those of the newest
generation in the file. The counts by partition are of the full save before them; CHANGES are records and
tombstones in the deltas. A file whose end is a save that did not come to its end is shown without it.

With --json it prints one JSON object; with --json --records that object on the first line and one
record on each line after it, whole. Byte strings are {"$bytes": base64}, other CBOR that JSON does
not have (tags, NaN, maps whose keys are not text) is {"$cbor": diagnostic notation}, and what has no
such notation, as text that is not UTF-8, is {"$item": base64 of the CBOR}. JSON that is kept as it was
spelled is {"$json": that}.

Then the serializer that wrote the state tells what it is: counts by kind, the largest record, and what
else it knows. It is the very module if that is built in or kept in the data folder around the file, and
the built-in one of its name otherwise. For that all records are read; --summary=false leaves it out.

Nothing is changed, and the data folder may be in use.`,
		Example: `  torpor inspect .torpor/state/api_states/s3/store.state
  torpor inspect --records --partition 000000000000/us-east-1 store.state
  torpor inspect --json --records store.state | jq -c 'select(.key)'`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			out := bufio.NewWriter(p.Out)
			return errors.Join(o.run(cmd.Context(), out, p.Err, a[0]), out.Flush())
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.records, "records", false, "print the records too")
	f.BoolVar(&o.json, "json", false, "print JSON")
	f.BoolVar(&o.summary, "summary", true, "have the serializer tell what the state is")
	f.StringArrayVar(&o.partitions, "partition", nil, "only this partition's records; may be given more than once")
	return cmd
}

type inspectOptions struct {
	records, json, summary bool
	partitions             []string
}

func (o inspectOptions) run(ctx context.Context, out, notes io.Writer, path string) (err error) {
	opened, err := openStateFile(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	if opened.torn > 0 {
		fmt.Fprintf(notes, "torpor: state file %s: the last %d bytes are a save that did not come to its end; shown is what is before it\n", path, opened.torn)
	}
	state := opened.File
	for _, want := range o.partitions {
		if !hasPartition(state, want) {
			return fmt.Errorf("state file %s: partition %q: %w", path, want, abi.ErrNotFound)
		}
	}
	n, err := notation.New()
	if err != nil {
		return err
	}
	var summary []byte
	if o.summary {
		// What the file says of itself is shown whatever becomes of this.
		if summary, err = o.summarize(ctx, state, path); err != nil {
			if ctx.Err() != nil {
				return err
			}
			fmt.Fprintf(notes, "torpor: state file %s: no summary: %v\n", path, err)
			summary = nil
		}
	}
	if o.json {
		return o.printJSON(out, state, n, summary)
	}
	return o.printText(out, state, n, summary)
}

func hasPartition(f *statefile.File, name string) bool {
	for _, p := range f.Partitions() {
		if p.Name == name {
			return true
		}
	}
	return false
}

func (o inspectOptions) printText(out io.Writer, f *statefile.File, n notation.Notation, summary []byte) error {
	h, info := f.Header(), f.Info()
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name string, format string, args ...any) {
		fmt.Fprintf(tw, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("format", "torpor state file, version %d", statefile.Version)
	row("service", "%s", h.Service)
	row("part", "%s", h.Part)
	row("generation", "%d", h.Generation)
	row("created", "%s", h.Created.Format(time.RFC3339Nano))
	row("serializer", "%s %s, schema %d", h.Serializer.Name, h.Serializer.Version, h.Serializer.Schema)
	row("module", "%x", h.Serializer.Digest)
	row("compression", "%s", h.Compression)
	row("size", "%d bytes", info.Size)
	row("records", "%d (%d bytes in %d chunks)", info.Records, info.Raw, info.Chunks)
	if info.Deltas > 0 {
		full := f.Saves()[0]
		row("deltas", "%d (%d changes in %d bytes) since generation %d", info.Deltas, info.Changes, info.Size-full.End, full.Generation)
	}
	row("root", "%x", info.Root)
	if parts := f.Partitions(); len(parts) > 0 {
		fmt.Fprintf(tw, "\nPARTITION\tRECORDS\tBYTES\tCHUNKS")
		if info.Deltas > 0 {
			fmt.Fprintf(tw, "\tCHANGES")
		}
		fmt.Fprintln(tw)
		for _, p := range parts {
			fmt.Fprintf(tw, "%s\t%d\t%d\t%d", notation.OneWord(p.Name), p.Records, p.Raw, p.Chunks)
			if info.Deltas > 0 {
				fmt.Fprintf(tw, "\t%d", p.Changes)
			}
			fmt.Fprintln(tw)
		}
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if summary != nil {
		if err := printSummary(out, n, summary); err != nil {
			return err
		}
	}
	if !o.records {
		return nil
	}
	fmt.Fprintln(out)
	return o.eachRecord(f, func(b *record.Batch, i int) error {
		_, err := fmt.Fprintf(out, "%s\t%s\t%s\n", notation.OneWord(string(b.Partition(i))), notation.Key(b.KeyItem(i)),
			notation.Shorten(n.Show(b.Value(i)), valueWidth))
		return err
	})
}

func (o inspectOptions) eachRecord(f *statefile.File, do func(*record.Batch, int) error) error {
	r := f.Records(o.partitions...)
	for {
		b, err := r.ReadBatch()
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

func (o inspectOptions) printJSON(out io.Writer, f *statefile.File, n notation.Notation, summary []byte) error {
	h, info := f.Header(), f.Info()
	type partition struct {
		Name    string `json:"name"`
		Records uint64 `json:"records"`
		Bytes   uint64 `json:"bytes"`
		Chunks  int    `json:"chunks"`
		Changes uint64 `json:"changes"`
	}
	type save struct {
		Generation uint64    `json:"generation"`
		Created    time.Time `json:"created"`
		End        int64     `json:"end"`
		Delta      bool      `json:"delta"`
	}
	parts, saves := []partition{}, []save{}
	for _, p := range f.Partitions() {
		parts = append(parts, partition{p.Name, p.Records, p.Raw, p.Chunks, p.Changes})
	}
	for _, s := range f.Saves() {
		saves = append(saves, save(s))
	}
	head := map[string]any{
		"format": statefile.Version, "service": h.Service, "part": h.Part, "generation": h.Generation,
		"created": h.Created, "compression": h.Compression, "size": info.Size, "records": info.Records,
		"bytes": info.Raw, "chunks": info.Chunks, "root": hex.EncodeToString(info.Root[:]), "partitions": parts,
		"changes": info.Changes, "saves": saves,
		"serializer": map[string]any{"name": h.Serializer.Name, "version": h.Serializer.Version,
			"schema": h.Serializer.Schema, "sha256": hex.EncodeToString(h.Serializer.Digest[:])},
	}
	if summary != nil {
		head["summary"] = n.JSON(summary)
	}
	if !o.records {
		return writeJSON(out, head)
	}
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(head); err != nil {
		return err
	}
	return o.eachRecord(f, func(b *record.Batch, i int) error {
		return enc.Encode(map[string]any{"partition": string(b.Partition(i)), "key": n.JSON(b.KeyItem(i)), "value": n.JSON(b.Value(i))})
	})
}
