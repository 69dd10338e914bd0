package cli

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"text/tabwriter"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/runtime/notation"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// maxKindsShown is how many kinds of records the text output shows, the largest first.
const maxKindsShown = 30

// maxSummaryBytes bounds what a module may say of a state.
const maxSummaryBytes = 4 << 20

// summarize has the serializer of a state file tell what the records are: the very module that wrote
// them, if it is built in or kept beside the file, and otherwise the built-in one of its name. It gives
// one CBOR map.
func (o inspectOptions) summarize(ctx context.Context, f *statefile.File, path string) (summary []byte, err error) {
	by := f.Header().Serializer
	wasm, err := writerOf(by, path)
	if err != nil {
		return nil, err
	}
	h, err := host.New(ctx, host.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, h.Close(context.WithoutCancel(ctx))) }()
	m, err := h.Compile(ctx, by.Name, wasm)
	if err != nil {
		return nil, err
	}
	out := boundedBuffer{most: maxSummaryBytes}
	call := abi.Call{Service: f.Header().Service, Part: f.Header().Part, Schema: by.Schema, Time: f.Header().Created.UnixNano()}
	if err := m.Inspect(ctx, call, f.Records(o.partitions...), &out); err != nil {
		return nil, err
	}
	return out.Bytes(), wellFormedMap(out.Bytes())
}

// writerOf finds the module that wrote a state file, or the built-in one that succeeds it.
func writerOf(by statefile.Serializer, path string) ([]byte, error) {
	if wasm, ok := builtIn(by.Digest); ok {
		return wasm, nil
	}
	// <data>/state/api_states/<service>/<part>.state
	if fsys, err := vfs.OS(filepath.Join(filepath.Dir(path), "..", "..", "..")); err == nil {
		wasm, err := statedir.ReadModule(fsys, by.Digest)
		if err := errors.Join(err, fsys.Close()); err == nil {
			return wasm, nil
		}
	}
	for _, m := range modules.All() {
		if m.Name == by.Name {
			return m.Wasm, nil
		}
	}
	return nil, fmt.Errorf("module %s (%x): %w: neither built in nor kept in the data folder", by.Name, by.Digest[:sha256.Size/4], abi.ErrNotFound)
}

// wellFormedMap checks what a module said: as a record's value, since it is shown as one.
func wellFormedMap(item []byte) error {
	if len(item) == 0 || item[0]>>5 != 5 {
		return fmt.Errorf("the summary is no map: %w", abi.ErrCorrupt)
	}
	whole := append(record.AppendText(record.AppendText(record.AppendRecord(nil), ""), ""), item...)
	scan := record.Scanner{}
	if _, err := scan.Scan(whole, nil); err != nil {
		return fmt.Errorf("the summary is no sound CBOR: %w", err)
	}
	return nil
}

// boundedBuffer is a buffer that refuses to grow beyond most bytes.
type boundedBuffer struct {
	bytes.Buffer
	most int
}

func (b *boundedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.most {
		return 0, fmt.Errorf("a summary of more than %d bytes: %w", b.most, abi.ErrTooLarge)
	}
	return b.Buffer.Write(p)
}

// kind is a line of the summary's table.
type kind struct {
	name         string
	count, bytes uint64
}

// printSummary writes a summary for people. The counts by partition are left out: the file's own index
// has them.
func printSummary(out io.Writer, n notation.Notation, summary []byte) error {
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, text string) { fmt.Fprintf(tw, "%s\t%s\n", name, text) }
	fmt.Fprintln(tw)
	var kinds []kind
	d := record.NewPull(summary)
	for range d.Map() {
		key, value := n.Text(d.Skip()), d.Skip()
		switch key {
		case "records", "bytes", "partitions", "other", "schema":
		case "kinds":
			kinds = readKinds(n, value)
		case "largest":
			row(key, largest(n, value))
		default:
			row(notation.OneWord(key), notation.Shorten(n.Text(value), valueWidth))
		}
	}
	if len(kinds) > 0 {
		slices.SortStableFunc(kinds, func(a, b kind) int { return cmp.Compare(b.bytes, a.bytes) })
		fmt.Fprintf(tw, "\nKIND\tCOUNT\tBYTES\n")
		for _, k := range kinds[:min(len(kinds), maxKindsShown)] {
			fmt.Fprintf(tw, "%s\t%d\t%d\n", notation.OneWord(k.name), k.count, k.bytes)
		}
		if more := len(kinds) - maxKindsShown; more > 0 {
			fmt.Fprintf(tw, "%d more kinds: see --json\n", more)
		}
	}
	return tw.Flush()
}

// fields shows the pairs of a map; another item has none.
func fields(n notation.Notation, item []byte, show func(key string, value []byte)) {
	if item[0]>>5 != 5 {
		return
	}
	d := record.NewPull(item)
	for range d.Map() {
		key, value := n.Text(d.Skip()), d.Skip()
		show(key, value)
	}
}

func readKinds(n notation.Notation, item []byte) (all []kind) {
	fields(n, item, func(name string, counts []byte) {
		k := kind{name: name}
		fields(n, counts, func(what string, value []byte) {
			switch {
			case value[0]>>5 != 0:
			case what == "count":
				k.count = record.NewPull(value).Uint()
			case what == "bytes":
				k.bytes = record.NewPull(value).Uint()
			}
		})
		all = append(all, k)
	})
	return all
}

// largest tells of the largest record in one line.
func largest(n notation.Notation, item []byte) string {
	var partition, key, size string
	fields(n, item, func(what string, value []byte) {
		switch what {
		case "partition":
			partition = n.Text(value)
		case "key":
			key = n.Text(value)
		case "bytes":
			size = n.Text(value)
		}
	})
	return fmt.Sprintf("%s bytes: %s in %s", size, notation.OneWord(key), notation.OneWord(partition))
}
