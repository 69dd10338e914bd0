package cli

import (
	"bufio"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
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

With --json it prints one JSON object; with --json --records that object on the first line and one
record on each line after it, whole. Byte strings are {"$bytes": base64}, other CBOR that JSON does
not have is {"$cbor": diagnostic notation}.

It reads the file alone: no data folder is opened and nothing is changed.`,
		Example: `  torpor inspect .torpor/state/api_states/s3/store.state
  torpor inspect --records --partition 000000000000/us-east-1 store.state
  torpor inspect --json --records store.state | jq -c 'select(.key)'`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			out := bufio.NewWriter(p.Out)
			return errors.Join(o.run(out, a[0]), out.Flush())
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.records, "records", false, "print the records too")
	f.BoolVar(&o.json, "json", false, "print JSON")
	f.StringSliceVar(&o.partitions, "partition", nil, "only these partitions' records")
	return cmd
}

type inspectOptions struct {
	records, json bool
	partitions    []string
}

func (o inspectOptions) run(out io.Writer, path string) error {
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
	if err != nil {
		return err
	}
	for _, want := range o.partitions {
		if !hasPartition(state, want) {
			return fmt.Errorf("state file %s: partition %q: %w", path, want, abi.ErrNotFound)
		}
	}
	if o.json {
		return o.printJSON(out, state)
	}
	return o.printText(out, state)
}

func hasPartition(f *statefile.File, name string) bool {
	for _, p := range f.Partitions() {
		if p.Name == name {
			return true
		}
	}
	return false
}

func (o inspectOptions) printText(out io.Writer, f *statefile.File) error {
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
	row("root", "%x", info.Root)
	if parts := f.Partitions(); len(parts) > 0 {
		fmt.Fprintf(tw, "\nPARTITION\tRECORDS\tBYTES\tCHUNKS\n")
		for _, p := range parts {
			fmt.Fprintf(tw, "%s\t%d\t%d\t%d\n", quoteEmpty(p.Name), p.Records, p.Raw, p.Chunks)
		}
	}
	if err := tw.Flush(); err != nil || !o.records {
		return err
	}
	fmt.Fprintln(out)
	return o.eachRecord(f, func(b *record.Batch, i int) error {
		value, err := cbor.Diagnose(b.Value(i))
		if err != nil {
			return fmt.Errorf("record %d: %w", i, err)
		}
		_, err = fmt.Fprintf(out, "%s\t%s\t%s\n", quoteEmpty(string(b.Partition(i))), keyText(b, i), shorten(value))
		return err
	})
}

func quoteEmpty(s string) string {
	if s == "" {
		return `""`
	}
	return s
}

// keyText is a key for people: text as it is, unless it would break the line, bytes as h'...'.
func keyText(b *record.Batch, i int) string {
	key, text := b.Key(i)
	if !text {
		return "h'" + hex.EncodeToString(key) + "'"
	}
	if strings.ContainsFunc(string(key), func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Sprintf("%q", key)
	}
	return string(key)
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

func (o inspectOptions) printJSON(out io.Writer, f *statefile.File) error {
	h, info := f.Header(), f.Info()
	type partition struct {
		Name    string `json:"name"`
		Records uint64 `json:"records"`
		Bytes   uint64 `json:"bytes"`
		Chunks  int    `json:"chunks"`
	}
	parts := []partition{}
	for _, p := range f.Partitions() {
		parts = append(parts, partition{p.Name, p.Records, p.Raw, p.Chunks})
	}
	head := map[string]any{
		"format": statefile.Version, "service": h.Service, "part": h.Part, "generation": h.Generation,
		"created": h.Created, "compression": h.Compression, "size": info.Size, "records": info.Records,
		"bytes": info.Raw, "chunks": info.Chunks, "root": hex.EncodeToString(info.Root[:]), "partitions": parts,
		"serializer": map[string]any{"name": h.Serializer.Name, "version": h.Serializer.Version,
			"schema": h.Serializer.Schema, "sha256": hex.EncodeToString(h.Serializer.Digest[:])},
	}
	if !o.records {
		return writeJSON(out, head)
	}
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(head); err != nil {
		return err
	}
	// Ordered pairs are lost in JSON objects anyway; what cannot be a JSON object stays CBOR, named so.
	dec, err := cbor.DecOptions{DefaultMapType: nil, MaxNestedLevels: record.MaxDepth + 2, MaxArrayElements: 1 << 26,
		MaxMapPairs: 1 << 26, UTF8: cbor.UTF8DecodeInvalid}.DecMode()
	if err != nil {
		return fmt.Errorf("cbor decoder: %w", err)
	}
	return o.eachRecord(f, func(b *record.Batch, i int) error {
		var value any
		if err := dec.Unmarshal(b.Value(i), &value); err != nil {
			value = diagnostic(b.Value(i))
		}
		key, text := b.Key(i)
		var jsonKey any = string(key)
		if !text {
			jsonKey = jsonBytes(key)
		}
		return enc.Encode(map[string]any{"partition": string(b.Partition(i)), "key": jsonKey, "value": jsonValue(value)})
	})
}

func jsonBytes(b []byte) any {
	return map[string]string{"$bytes": base64.StdEncoding.EncodeToString(b)}
}

func diagnostic(item []byte) any {
	s, err := cbor.Diagnose(item)
	if err != nil {
		s = "h'" + hex.EncodeToString(item) + "'"
	}
	return map[string]string{"$cbor": s}
}

// jsonValue turns a decoded CBOR value into what JSON can say.
func jsonValue(v any) any {
	switch v := v.(type) {
	case nil, bool, int64, uint64, big.Int, *big.Int, time.Time:
		return v
	case string:
		if utf8.ValidString(v) {
			return v
		}
		return jsonBytes([]byte(v))
	case []byte:
		return jsonBytes(v)
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = jsonValue(e)
		}
		return out
	case map[any]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			name, ok := k.(string)
			if !ok {
				return asCBOR(v)
			}
			out[name] = jsonValue(e)
		}
		return out
	case float64:
		if v-v != 0 { // NaN or an infinity
			return asCBOR(v)
		}
		return v
	default: // tags, simple values
		return asCBOR(v)
	}
}

func asCBOR(v any) any {
	item, err := cbor.Marshal(v)
	if err != nil {
		return map[string]string{"$cbor": fmt.Sprint(v)}
	}
	return diagnostic(item)
}
