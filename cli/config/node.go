package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Limits of a file.
const (
	MaxBytes = 1 << 20 // of a file
	maxNodes = 100_000 // values in it, those that aliases repeat included
	maxDepth = 64      // of maps and lists in one another
	maxTold  = 100     // mistakes that are told
)

// kind is what a node is.
type kind int

const (
	nothing kind = iota // null: a key without a value
	scalar
	list
	mapping
)

// String is for messages.
func (k kind) String() string {
	return [...]string{"has no value", "is one value", "is a list", "is a map"}[k]
}

// The tags of scalars.
const (
	tagText    = "!!str"
	tagInteger = "!!int"
	tagFloat   = "!!float"
	tagBool    = "!!bool"
)

// node is a value of a file, with aliases and merge keys resolved.
type node struct {
	kind  kind
	tag   string // of a scalar
	text  string // of a scalar
	plain bool   // of a scalar: without quotes
	items []*node
	pairs []pair // in the file's order
	file  string
	line  int // 0: not known
}

// pair is a key of a mapping.
type pair struct {
	key   string
	line  int // of the key
	value *node
}

func (n *node) get(key string) *node {
	if n != nil {
		for _, p := range n.pairs {
			if p.key == key {
				return p.value
			}
		}
	}
	return nil
}

// set gives key a value, in its place if it is there.
func (n *node) set(p pair) {
	for i := range n.pairs {
		if n.pairs[i].key == p.key {
			n.pairs[i] = p
			return
		}
	}
	n.pairs = append(n.pairs, p)
}

func (n *node) drop(keys ...string) {
	n.pairs = slices.DeleteFunc(n.pairs, func(p pair) bool { return slices.Contains(keys, p.key) })
}

// A Fault is one mistake in a file.
type Fault struct {
	File    string
	Line    int    // 0: not known
	Key     string // such as services.orders.parts.store.source; "": none
	Problem string // "is …; allowed are …"
}

// Error is such as "torpor.yaml:7: services.orders.idle is "soon"; allowed are …".
func (f *Fault) Error() string {
	at := f.File
	if f.Line > 0 {
		at += ":" + strconv.Itoa(f.Line)
	}
	if f.Key == "" {
		return at + ": " + f.Problem
	}
	return at + ": " + f.Key + " " + f.Problem
}

// faults are the mistakes of a file, as they are found.
type faults struct{ all []*Fault }

func (f *faults) add(n *node, key, format string, values ...any) {
	f.all = append(f.all, &Fault{File: n.file, Line: n.line, Key: key, Problem: fmt.Sprintf(format, values...)})
}

// err joins them in the order of files and lines; nil if there are none. [errors.As] finds the first as a [Fault].
func (f *faults) err() error {
	all := slices.Clone(f.all)
	slices.SortStableFunc(all, func(a, b *Fault) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		return a.Line - b.Line
	})
	all = slices.CompactFunc(all, func(a, b *Fault) bool { return *a == *b })
	var errs []error
	for i, one := range all {
		if i == maxTold {
			errs = append(errs, fmt.Errorf("and %d more", len(all)-i))
			break
		}
		errs = append(errs, one)
	}
	return errors.Join(errs...)
}

// parse reads a file's text. Without anything in it the result is an empty mapping.
func parse(file string, b []byte, f *faults) *node {
	root := &node{kind: mapping, file: file}
	if len(b) > MaxBytes {
		f.add(root, "", "the file has %d bytes; allowed are %d", len(b), MaxBytes)
		return root
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	var doc, more yaml.Node
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return root
	case err != nil:
		f.add(root, "", "%s", strings.TrimPrefix(err.Error(), "yaml: "))
		return root
	}
	switch err := d.Decode(&more); {
	case err == nil:
		f.add(&node{file: file, line: more.Line}, "", "a second document begins; allowed is one")
	case !errors.Is(err, io.EOF):
		f.add(root, "", "%s", strings.TrimPrefix(err.Error(), "yaml: "))
		return root
	}
	c := converter{file: file, faults: f}
	n := c.convert(&doc, "", 0)
	switch {
	case n.kind == nothing:
		return root
	case n.kind != mapping:
		f.add(n, "", "the file %s; it must hold keys and values, such as services:", n.kind)
		return root
	}
	return n
}

// converter makes nodes of YAML's.
type converter struct {
	file   string
	faults *faults
	nodes  int
	full   bool
}

// convert converts what stands at the key at. What is refused becomes nothing.
func (c *converter) convert(y *yaml.Node, at string, depth int) *node {
	n := &node{file: c.file, line: y.Line}
	c.nodes++
	if c.nodes > maxNodes || depth > maxDepth {
		if !c.full { // told once
			c.full = true
			c.faults.add(n, at, "is too much: allowed are %d values, aliases counted as what they stand for, and %d levels", maxNodes, maxDepth)
		}
		return n
	}
	switch y.Kind {
	case yaml.DocumentNode:
		if len(y.Content) > 0 {
			return c.convert(y.Content[0], at, depth)
		}
	case yaml.AliasNode:
		// What an alias repeats stands where the alias does. A cycle ends at maxDepth.
		if y.Alias != nil {
			n = c.convert(y.Alias, at, depth+1)
			n.line = y.Line
		}
	case yaml.SequenceNode:
		n.kind = list
		c.wantTag(y, n, at, "!!seq")
		for i, item := range y.Content {
			if c.full {
				break
			}
			n.items = append(n.items, c.convert(item, at+"["+strconv.Itoa(i)+"]", depth+1))
		}
	case yaml.MappingNode:
		n.kind = mapping
		c.wantTag(y, n, at, "!!map")
		c.mapping(y, n, at, depth)
	case yaml.ScalarNode:
		c.scalar(y, n, at)
	}
	return n
}

func (c *converter) wantTag(y *yaml.Node, n *node, at, tag string) {
	if got := y.ShortTag(); got != tag {
		c.faults.add(n, at, "has the tag %q, which is not known", got)
	}
}

func (c *converter) scalar(y *yaml.Node, n *node, at string) {
	n.kind, n.text, n.plain = scalar, y.Value, y.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0
	switch tag := y.ShortTag(); tag {
	case "!!null":
		n.kind = nothing
	case tagText, "!!timestamp":
		n.tag = tagText
	case tagInteger, tagFloat, tagBool:
		n.tag = tag
	default:
		c.faults.add(n, at, "has the tag %q, which is not known", tag)
		n.kind = nothing
		return
	}
	if strings.ContainsRune(n.text, 0) {
		c.faults.add(n, at, "has a zero byte")
		n.text = strings.ReplaceAll(n.text, "\x00", "")
	}
}

func (c *converter) mapping(y *yaml.Node, n *node, at string, depth int) {
	var merged []*node
	for i := 0; i+1 < len(y.Content) && !c.full; i += 2 {
		k, v := y.Content[i], y.Content[i+1]
		if k.Kind == yaml.ScalarNode && k.ShortTag() == "!!merge" {
			merged = append(merged, c.merge(v, at, depth)...)
			continue
		}
		here := &node{file: c.file, line: k.Line}
		if k.Kind != yaml.ScalarNode {
			c.faults.add(here, at, "has a key that is no text")
			continue
		}
		key := join(at, k.Value)
		if first := slices.IndexFunc(n.pairs, func(p pair) bool { return p.key == k.Value }); first >= 0 {
			c.faults.add(here, key, "stands twice, first in line %d", n.pairs[first].line)
			continue
		}
		n.pairs = append(n.pairs, pair{key: k.Value, line: k.Line, value: c.convert(v, key, depth+1)})
	}
	// What stands in the mapping itself wins over what is merged into it, and the first of several over the next.
	for _, m := range merged {
		for _, p := range m.pairs {
			if n.get(p.key) == nil {
				n.pairs = append(n.pairs, p)
			}
		}
	}
}

// merge gives the mappings that << names.
func (c *converter) merge(y *yaml.Node, at string, depth int) []*node {
	v := c.convert(y, join(at, "<<"), depth+1)
	all := []*node{v}
	if v.kind == list {
		all = v.items
	}
	for _, m := range all {
		if m.kind != mapping {
			c.faults.add(m, join(at, "<<"), "%s; it must be a map, or a list of maps", m.kind)
			return nil
		}
	}
	return all
}

func join(at, key string) string {
	if at == "" {
		return key
	}
	return at + "." + key
}

// number gives the text of a number in decimal, as flags and variables have it; whole ones without a point. It is
// the text itself where that is none.
func (n *node) number() string {
	if n.tag != tagInteger && n.tag != tagFloat {
		return n.text
	}
	y := yaml.Node{Kind: yaml.ScalarNode, Tag: n.tag, Value: n.text}
	var i int64
	if n.tag == tagInteger && y.Decode(&i) == nil {
		return strconv.FormatInt(i, 10)
	}
	var f float64
	if y.Decode(&f) != nil {
		return n.text
	}
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return strconv.FormatInt(int64(f), 10)
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}

// any gives the value as Go has it: nil, string, bool, int64, float64, []any, map[string]any.
func (n *node) any() any {
	switch n.kind {
	case nothing:
		return nil
	case list:
		all := make([]any, len(n.items))
		for i, item := range n.items {
			all[i] = item.any()
		}
		return all
	case mapping:
		all := make(map[string]any, len(n.pairs))
		for _, p := range n.pairs {
			all[p.key] = p.value.any()
		}
		return all
	}
	y := yaml.Node{Kind: yaml.ScalarNode, Tag: n.tag, Value: n.text}
	switch n.tag {
	case tagBool:
		var b bool
		if y.Decode(&b) == nil {
			return b
		}
	case tagInteger, tagFloat:
		var i int64
		if n.tag == tagInteger && y.Decode(&i) == nil {
			return i
		}
		var f float64
		if y.Decode(&f) == nil {
			return f
		}
	}
	return n.text
}

// over puts n above base: maps key by key, anything else instead. Neither is changed.
func (n *node) over(base *node) *node {
	if base == nil || n.kind == nothing && base.kind == mapping {
		if base != nil {
			return base
		}
		return n
	}
	if n.kind != mapping || base.kind != mapping {
		return n
	}
	out := *n
	out.pairs = slices.Clone(base.pairs)
	for _, p := range n.pairs {
		p.value = p.value.over(out.get(p.key))
		out.set(p)
	}
	return &out
}
