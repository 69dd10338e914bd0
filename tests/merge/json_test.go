package merge_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/tests/serializers/files/through"
)

// tree is a JSON value as the serializer opens it: two levels of objects, accounts and regions not counted, and the array
// in the first of them. It says nothing of records but where they begin.
type tree struct {
	sort    byte // '{', '[', or 0: a value
	text    string
	entries []named
	parted  string // the partition
}

// named is an entry of an object, or of an array by its id or its place.
type named struct {
	name string
	tree
}

func (v tree) write(b *strings.Builder, indent string, depth int) {
	if v.sort == 0 {
		b.WriteString(v.text)
		return
	}
	b.WriteByte(v.sort)
	line := func(depth int) {
		if indent != "" {
			b.WriteString("\n" + strings.Repeat(indent, depth))
		}
	}
	for i, e := range v.entries {
		if i > 0 {
			b.WriteByte(',')
		}
		line(depth + 1)
		if v.sort == '{' {
			fmt.Fprintf(b, "%q:", e.name)
			if indent != "" {
				b.WriteByte(' ')
			}
		}
		e.write(b, indent, depth+1)
	}
	if len(v.entries) > 0 {
		line(depth)
	}
	b.WriteByte(v.sort + 2)
}

func (v tree) json(indent string) []byte {
	var b strings.Builder
	v.write(&b, indent, 0)
	return []byte(b.String())
}

// maker makes random states, of so few names that two of them have many in common.
type maker struct{ *rand.Rand }

func (m maker) pick(from ...string) string { return from[m.IntN(len(from))] }

// some is names in any order, each once.
func (m maker) some(from ...string) []string {
	m.Shuffle(len(from), func(i, j int) { from[i], from[j] = from[j], from[i] })
	return from[:m.IntN(len(from)+1)]
}

func (m maker) value() tree {
	return tree{text: m.pick("1", "2", `"text"`, "null", "true", "0.5", "1e5", `"\u00e9"`)}
}

// members is an object that is one record.
func (m maker) members() tree {
	v := tree{sort: '{'}
	for _, n := range m.some("depth", "rate", "tags") {
		v.entries = append(v.entries, named{n, m.value()})
	}
	return v
}

func (m maker) object(names []string, each func(name string) tree) tree {
	v := tree{sort: '{'}
	for _, n := range names {
		v.entries = append(v.entries, named{n, each(n)})
	}
	return v
}

func (m maker) posts() tree {
	v := tree{sort: '['}
	used := map[int]bool{}
	for place := range m.IntN(7) {
		e := m.members()
		name := fmt.Sprint(place)
		if id := m.IntN(8); m.IntN(3) > 0 && !used[id] {
			used[id] = true
			e.entries = append([]named{{"id", tree{text: fmt.Sprint(id)}}}, e.entries...)
			name = fmt.Sprintf("id=%d", id)
		}
		v.entries = append(v.entries, named{name, e})
	}
	return v
}

func (m maker) part(v tree, partition string) tree {
	v.parted = partition
	for i := range v.entries {
		v.entries[i].tree = m.part(v.entries[i].tree, partition)
	}
	return v
}

func (m maker) state() tree {
	return m.object(m.some("version", "accounts", "streams", "posts", "settings", "either"), func(name string) tree {
		switch name {
		case "accounts":
			return m.object(m.some("000000000000", "111122223333", "444455556666"), func(account string) tree {
				return m.object(m.some("us-east-1", "eu-west-1", "sa-east-1"), func(region string) tree {
					return m.part(m.object(m.some("orders", "mail", "log", "3", "12"), func(string) tree { return m.members() }), account+"/"+region)
				})
			})
		case "streams":
			return m.object(m.some("arn:aws:kinesis:us-east-1:000000000000:stream/a", "arn:aws:kinesis:us-east-1:000000000000:stream/b",
				"arn:aws:kinesis:eu-west-1:000000000000:stream/a", "plain"), func(arn string) tree {
				v := m.members()
				if words := strings.Split(arn, ":"); len(words) > 4 {
					v.parted = words[4] + "/" + words[3]
				}
				return v
			})
		case "posts":
			return m.posts()
		case "settings":
			return m.object(m.some("a", "b", "c~d/e", ""), func(string) tree { return m.value() })
		case "either":
			switch m.IntN(3) {
			case 0:
				return m.posts()
			case 1:
				return m.object(m.some("a", "b"), func(string) tree { return m.value() })
			}
		}
		return m.value()
	})
}

// model is the merge of two states as a person would do it.
type model struct {
	strategy snapshot.Strategy
	taken    map[string]bool
}

func (m *model) take(v tree) (found bool) {
	if v.parted != "" {
		m.taken[v.parted] = true
	}
	for _, e := range v.entries {
		m.take(e.tree)
	}
	return len(m.taken) > 0
}

func mergeTrees(live, in tree, s snapshot.Strategy) tree {
	m := &model{s, map[string]bool{}}
	named := m.take(live)
	m.taken = map[string]bool{}
	named = m.take(in) || named
	if s == snapshot.Overwrite || s == snapshot.AccountRegionMerge && !named {
		return in
	}
	if s == snapshot.ServiceMerge {
		m.taken = nil
	}
	return m.merge(live, in, 0)
}

// opened reports whether what is in v are records, depth levels below the root.
func opened(v tree, depth int) bool { return v.sort != 0 && depth < 2 }

// below is how deep an entry is: accounts and regions do not count.
func below(e named, depth int) int {
	if len(e.name) == 12 && strings.Trim(e.name, "0123456789") == "" || strings.HasSuffix(e.name, "-1") {
		return depth
	}
	return depth + 1
}

func (m *model) merge(live, in tree, depth int) tree {
	out := tree{sort: in.sort}
	index := func(in []named, name string) int {
		return slices.IndexFunc(in, func(e named) bool { return e.name == name })
	}
	behind := map[string]string{} // what of in comes behind which one
	last := "first"
	rising := risingNumbers(live) && risingNumbers(in)
	var numbers []named
	for _, e := range in.entries {
		switch {
		case index(live.entries, e.name) >= 0:
			last = "after " + e.name
		case rising && number(e.name) >= 0:
			numbers = append(numbers, e)
		default:
			behind[e.name] = last
		}
	}
	follow := func(after string) {
		for _, e := range in.entries {
			if behind[e.name] == after {
				out.entries = append(out.entries, e)
			}
		}
	}
	follow("first")
	for _, e := range live.entries {
		at := index(in.entries, e.name)
		if at < 0 && m.taken[e.parted] {
			continue
		}
		for n := number(e.name); rising && n >= 0 && len(numbers) > 0 && number(numbers[0].name) < n; numbers = numbers[1:] {
			out.entries = append(out.entries, numbers[0])
		}
		if at < 0 {
			out.entries = append(out.entries, m.without(e, below(e, depth)))
			continue
		}
		ours, d := in.entries[at], below(e, depth)
		if !m.taken[e.parted] && e.sort == ours.sort && opened(e.tree, d) && opened(ours.tree, d) {
			ours.tree = m.merge(e.tree, ours.tree, d)
		}
		out.entries = append(out.entries, ours)
		follow("after " + e.name)
	}
	out.entries = append(out.entries, numbers...)
	return out
}

// without leaves out what is of partitions that are replaced.
func (m *model) without(e named, depth int) named {
	if !opened(e.tree, depth) {
		return e
	}
	kept := e
	kept.entries = nil
	for _, sub := range e.entries {
		if !m.taken[sub.parted] {
			kept.entries = append(kept.entries, m.without(sub, below(sub, depth)))
		}
	}
	return kept
}

// number is what an entry is called by, or -1.
func number(name string) int {
	var n int
	if _, err := fmt.Sscanf(name, "%d", &n); err != nil || fmt.Sprint(n) != name {
		return -1
	}
	return n
}

func risingNumbers(v tree) bool {
	last := -1
	for _, e := range v.entries {
		if n := number(e.name); n >= 0 {
			if n <= last {
				return false
			}
			last = n
		}
	}
	return true
}

func TestJSON(t *testing.T) {
	m := through.New(t, "json", modules.JSON())
	d := m.Descriptor()
	if d.Nesting != "/" {
		t.Fatalf("nesting %q", d.Nesting)
	}
	for seed := range uint64(400) {
		rng := maker{rand.New(rand.NewPCG(seed, 1))}
		a, b := rng.state(), rng.state()
		layout := func() string { return rng.pick("", "", "  ") }
		live, in := state(t, m, a.json(layout())), state(t, m, b.json(""))
		for _, s := range snapshot.Strategies() {
			merged, counts := merge(t, d, s, live, in)
			got, err := native(t, m, merged)
			if err != nil {
				t.Fatalf("seed %d, %s: %v\nlive %s\nin   %s", seed, s, err, a.json(""), b.json(""))
			}
			if want := mergeTrees(a, b, s).json(""); !bytes.Equal(got, want) {
				t.Fatalf("seed %d, %s, %+v\nlive %s\nin   %s\ngot  %s\nwant %s", seed, s, counts, a.json(""), b.json(""), got, want)
			}
		}
		if seed < 50 {
			properties(t, d, live, in)
		}
	}
}
