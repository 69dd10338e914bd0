package cli

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
	"github.com/spf13/cobra"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
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
such notation, as text that is not UTF-8, is {"$item": base64 of the CBOR}.

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

func (o inspectOptions) run(ctx context.Context, out, notes io.Writer, path string) error {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("state file %s: %w", path, abi.ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return usageError{fmt.Errorf("%s is no file: name a state file, such as .torpor/state/api_states/s3/store.state", path)}
	}
	state, err := statefile.Open(file, info.Size(), path)
	if errors.Is(err, abi.ErrCorrupt) {
		if end, torn, _ := statefile.LastGood(ctx, file, info.Size(), path); torn && end > 0 {
			fmt.Fprintf(notes, "torpor: state file %s: the last %d bytes are a save that did not come to its end; shown is what is before it\n", path, info.Size()-end)
			state, err = statefile.Open(file, end, path)
		}
	}
	if err != nil {
		return err
	}
	for _, want := range o.partitions {
		if !hasPartition(state, want) {
			return fmt.Errorf("state file %s: partition %q: %w", path, want, abi.ErrNotFound)
		}
	}
	n, err := newNotation()
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

func (o inspectOptions) printText(out io.Writer, f *statefile.File, n notation, summary []byte) error {
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
			fmt.Fprintf(tw, "%s\t%d\t%d\t%d", oneWord(p.Name), p.Records, p.Raw, p.Chunks)
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
		value, ok := n.diagnose(b.Value(i))
		if !ok {
			value = fmt.Sprintf("%x (CBOR without a notation)", b.Value(i))
		}
		_, err := fmt.Fprintf(out, "%s\t%s\t%s\n", oneWord(string(b.Partition(i))), keyText(b, i), shorten(value))
		return err
	})
}

// oneWord is s for people: as it is, unless it is empty or would break the line.
func oneWord(s string) string {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return strconv.Quote(s)
	}
	return s
}

// keyText is a key for people: text as oneWord has it, bytes as h'...'.
func keyText(b *record.Batch, i int) string {
	key, text := b.Key(i)
	if !text {
		return "h'" + hex.EncodeToString(key) + "'"
	}
	return oneWord(string(key))
}

func shorten(s string) string {
	if utf8.RuneCountInString(s) <= valueWidth {
		return s
	}
	return string([]rune(s)[:valueWidth]) + fmt.Sprintf("… (%d characters)", utf8.RuneCountInString(s))
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

func (o inspectOptions) printJSON(out io.Writer, f *statefile.File, n notation, summary []byte) error {
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
		head["summary"] = n.json(summary)
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
		key, text := b.Key(i)
		var jsonKey any = string(key)
		if !text {
			jsonKey = jsonBytes(key)
		}
		return enc.Encode(map[string]any{"partition": string(b.Partition(i)), "key": jsonKey, "value": n.json(b.Value(i))})
	})
}

// notation writes CBOR for people and for JSON.
type notation struct{ diag cbor.DiagMode }

func newNotation() (notation, error) {
	// As much as a record may hold: the library's own limits are lower.
	diag, err := cbor.DiagOptions{MaxNestedLevels: record.MaxDepth + 1, MaxArrayElements: record.MaxMaxBytes, MaxMapPairs: record.MaxMaxBytes}.DiagMode()
	if err != nil {
		return notation{}, fmt.Errorf("cbor diagnostic notation: %w", err)
	}
	return notation{diag}, nil
}

// diagnose is an item in diagnostic notation (RFC 8949, section 8); ok is false where it has none.
func (n notation) diagnose(item []byte) (s string, ok bool) {
	s, err := n.diag.Diagnose(item)
	return s, err == nil
}

// json turns an item, which a record.Scanner has checked, into what encoding/json writes. Nothing is
// lost or guessed: what JSON cannot say is left in CBOR's notation.
func (n notation) json(item []byte) any {
	d := record.NewPull(item)
	switch item[0] >> 5 { // the major type, RFC 8949, section 3.1
	case 0, 1:
		if digits, ok := n.diagnose(item); ok {
			return json.Number(digits)
		}
	case 2:
		return jsonBytes(d.Bytes())
	case 3:
		if text := d.Text(); utf8.Valid(text) {
			return string(text)
		}
	case 4:
		all := make([]any, d.Array())
		for i := range all {
			all[i] = n.json(d.Skip())
		}
		return all
	case 5:
		if object, ok := n.object(d); ok {
			return object
		}
	case 7:
		switch item[0] & 0x1f {
		case 20, 21:
			return d.Bool()
		case 22:
			return nil
		case 25, 26, 27:
			var f float64
			if err := cbor.Unmarshal(item, &f); err == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
				return f
			}
		}
	}
	return n.outsideJSON(item)
}

// object reads a map whose keys are text, each only once.
func (n notation) object(d *record.Pull) (object map[string]any, ok bool) {
	object = map[string]any{}
	for range d.Map() {
		key, value := d.Skip(), d.Skip()
		if key[0]>>5 != 3 {
			return nil, false
		}
		name := record.NewPull(key).Text()
		if _, again := object[string(name)]; again || !utf8.Valid(name) {
			return nil, false
		}
		object[string(name)] = n.json(value)
	}
	return object, true
}

func (n notation) outsideJSON(item []byte) any {
	if s, ok := n.diagnose(item); ok {
		return map[string]string{"$cbor": s}
	}
	return map[string]string{"$item": base64.StdEncoding.EncodeToString(item)}
}

func jsonBytes(b []byte) any {
	return map[string]string{"$bytes": base64.StdEncoding.EncodeToString(b)}
}
