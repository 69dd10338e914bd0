package cli

import (
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/runtime/notation"
)

// moduleInfo is what build and inspect print of a module.
type moduleInfo struct {
	Path       string     `json:"path,omitempty"` // of a file
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	SHA256     string     `json:"sha256"`
	Schema     uint64     `json:"schema"`
	Reads      []uint64   `json:"reads"`
	Media      string     `json:"media"`
	Operations []string   `json:"operations"`
	Ordered    bool       `json:"ordered"`
	Canonical  bool       `json:"canonical"`
	Nesting    string     `json:"nesting,omitempty"`
	MemoryHint uint64     `json:"memory_hint"` // bytes; 0: none
	Memory     int64      `json:"memory"`      // bytes an instance has when it has described itself
	Shape      host.Shape `json:"shape"`
}

func newModuleInfo(m *host.Module, memory int64) moduleInfo {
	d, digest := m.Descriptor(), m.Digest()
	return moduleInfo{Name: d.Name, Version: d.Version, SHA256: hex.EncodeToString(digest[:]), Schema: d.Schema, Reads: d.Reads, Media: d.Media,
		Operations: d.Operations, Ordered: d.Ordered, Canonical: d.Canonical, Nesting: d.Nesting, MemoryHint: d.Memory, Memory: memory, Shape: m.Shape()}
}

// print writes the module for people; all says: what it imports and exports, too.
func (m moduleInfo) print(out io.Writer, all bool) error {
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name string, format string, args ...any) {
		fmt.Fprintf(tw, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	if m.Path != "" {
		row("file", "%s", m.Path)
	}
	row("serializer", "%s %s", notation.OneWord(m.Name), notation.OneWord(m.Version))
	row("sha256", "%s", m.SHA256)
	row("size", "%d bytes", m.Shape.Size)
	row("schema", "writes %d, reads %s", m.Schema, joined(m.Reads))
	row("media", "%s", notation.OneWord(m.Media))
	row("operations", "%s", strings.Join(m.Operations, ", "))
	row("records", "%s", word(m.Ordered, "in the order of their keys", "in any order"))
	if m.Nesting != "" {
		row("nesting", "%s", m.Nesting)
	}
	row("load", "%s", word(m.Canonical, "gives back the very bytes that were saved", "gives back an equal state, not the same bytes"))
	if all {
		asks := size(m.Shape.MemoryMin)
		if m.Shape.MemoryMax > 0 {
			asks += ", at most " + size(m.Shape.MemoryMax)
		}
		if m.MemoryHint > 0 {
			asks += ", and says it needs " + size(int64(min(m.MemoryHint, math.MaxInt64)))
		}
		row("memory", "asks for %s; has %s when it has described itself", asks, size(m.Memory))
		row("tables", "%d elements%s", m.Shape.TableMin, word(m.Shape.TableMax > m.Shape.TableMin, fmt.Sprintf(", at most %d", m.Shape.TableMax), ""))
		row("functions", "%d", m.Shape.Functions)
		row("instances", "%s", word(m.Shape.Reusable, "used for further calls", "one for each call"))
		symbols(row, "import", m.Shape.Imports)
		symbols(row, "export", m.Shape.Exports)
	}
	return tw.Flush()
}

func symbols(row func(string, string, ...any), title string, all []host.Symbol) {
	width := 0
	for _, s := range all {
		width = max(width, len(full(s)))
	}
	for _, s := range all {
		row(title, "%-*s  %s", width, full(s), s.Signature)
	}
}

// full is a symbol's name with its module's.
func full(s host.Symbol) string {
	if s.Module == "" {
		return notation.OneWord(s.Name)
	}
	return notation.OneWord(s.Module) + "." + notation.OneWord(s.Name)
}

func word(yes bool, a, b string) string {
	if yes {
		return a
	}
	return b
}

func joined[T any](all []T) string {
	s := make([]string, len(all))
	for i, v := range all {
		s[i] = fmt.Sprint(v)
	}
	return strings.Join(s, ", ")
}

// size is bytes for people.
func size[T int64 | uint64](n T) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	default:
		return fmt.Sprintf("%d bytes", n)
	}
}
