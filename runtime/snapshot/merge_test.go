package snapshot_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// row is a record as the tests write it: "partition|key=value". A value "{}" is an object's, "[]" an array's, of which what
// is inside are records; "empty{}" one that is not opened; "map…" is a map, anything else text.
type row struct{ partition, key, value string }

func (r row) String() string { return r.partition + "|" + r.key + "=" + r.value }

func rows(text string) []row {
	var all []row
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		partition, rest, _ := strings.Cut(line, "|")
		at := strings.LastIndexByte(rest, '=')
		all = append(all, row{partition, rest[:at], rest[at+1:]})
	}
	return all
}

func (r row) item() []byte {
	switch {
	case strings.HasPrefix(r.value, "{}"), strings.HasPrefix(r.value, "[]"):
		name := map[byte]string{'{': "object", '[': "array"}[r.value[0]]
		b := record.AppendArray(record.AppendTag(nil, 27), 3)
		b = record.AppendText(record.AppendText(b, name), r.value[2:])
		return record.AppendText(record.AppendArray(b, 1), "empty"+r.value[:2])
	case strings.HasPrefix(r.value, "empty"): // what an object's value would be around, were anything inside of it
		return record.AppendText(record.AppendArray(nil, 1), r.value)
	case strings.HasPrefix(r.value, "map"):
		return record.AppendText(record.AppendText(record.AppendMap(nil, 1), "is"), r.value)
	}
	return record.AppendText(nil, r.value)
}

// stateOfRows makes a state file of records; deltas are appended to it.
func stateOfRows(t testing.TB, serializer string, all []row, deltas ...[]row) *statefile.File {
	t.Helper()
	var file bytes.Buffer
	w, err := statefile.NewWriter(&file, statefile.Header{Service: "s3", Part: "store", Generation: 1, Created: time.Unix(1, 0),
		Serializer: statefile.Serializer{Name: serializer, Version: "1.0.0", Schema: 1}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, w, all)
	for i, delta := range deltas {
		if w, err = statefile.NewDeltaWriter(&file, openState(t, file.Bytes()).Tail(), uint64(2+i), time.Unix(2, 0)); err != nil {
			t.Fatal(err)
		}
		w.Grow(int64(len(delta)))
		write(t, w, delta)
	}
	return openState(t, file.Bytes())
}

func write(t testing.TB, w *statefile.Writer, all []row) {
	t.Helper()
	var scan record.Scanner
	for _, r := range all {
		data := record.AppendText(record.AppendText(record.AppendRecord(nil), r.partition), r.key)
		data = append(data, r.item()...)
		refs, err := scan.Scan(data, nil)
		if err == nil {
			err = w.WriteBatch(&record.Batch{Data: data, Refs: refs})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func openState(t testing.TB, b []byte) *statefile.File {
	t.Helper()
	f, err := statefile.Open(bytes.NewReader(b), int64(len(b)), "store.state")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// collected is what a merge wrote.
type collected struct{ rows []row }

func (c *collected) WriteBatch(b *record.Batch) error {
	for i := range b.Refs {
		key, _ := b.Key(i)
		r := row{string(b.Partition(i)), string(key), ""}
		switch p := record.NewPull(b.Value(i)); p.Peek() {
		case record.KindTag:
			p.Tag()
			p.Array()
			sort := map[string]string{"object": "{}", "array": "[]"}[string(p.Text())]
			r.value = sort + string(p.Text())
		case record.KindArray:
			p.Array()
			r.value = string(p.Text())
		case record.KindMap:
			p.Map()
			p.Skip()
			r.value = string(p.Text())
		default:
			r.value = string(p.Text())
		}
		c.rows = append(c.rows, r)
	}
	return nil
}

func TestMerge(t *testing.T) {
	const (
		account = snapshot.AccountRegionMerge
		all     = snapshot.ServiceMerge
	)
	for _, c := range []struct {
		name     string
		strategy snapshot.Strategy
		nesting  string
		ordered  bool
		live, in string
		want     string
		counts   snapshot.Merged
	}{
		{"overwrite", snapshot.Overwrite, "", false, "a|1=x \n a|2=y \n a|3=z", "a|2=y \n b|1=n \n a|3=w", "a|2=y \n b|1=n \n a|3=w", snapshot.Merged{Added: 1, Changed: 1, Removed: 1, Kept: 1}},
		{"flat", all, "", false, "|a=1 \n |b=2 \n |c=3", "|b=9 \n |n=5 \n |c=3", "|a=1 \n |b=9 \n |n=5 \n |c=3", snapshot.Merged{Added: 1, Changed: 1, Kept: 2}},
		{"flat, first", all, "", false, "|a=1 \n |b=2", "|n=5 \n |m=6 \n |b=2", "|n=5 \n |m=6 \n |a=1 \n |b=2", snapshot.Merged{Added: 2, Kept: 2}},
		{"flat, another order", all, "", false, "|a=1 \n |b=2 \n |c=3", "|c=3 \n |n=5 \n |a=1 \n |m=6", "|a=1 \n |m=6 \n |b=2 \n |c=3 \n |n=5", snapshot.Merged{Added: 2, Kept: 3}},
		{"no partitions replace all", account, "", false, "|a=1 \n |b=2", "|c=3 \n |a=1", "|c=3 \n |a=1", snapshot.Merged{Added: 1, Removed: 1, Kept: 1}},
		{"partitions", account, "", false,
			"|top=1 \n a/1|x=1 \n a/1|y=2 \n b/1|x=1", "|new=1 \n a/1|y=2 \n a/1|w=3 \n c/1|x=7",
			"|new=1 \n |top=1 \n a/1|y=2 \n a/1|w=3 \n b/1|x=1 \n c/1|x=7", snapshot.Merged{Added: 3, Removed: 1, Kept: 3}},
		{"the partition's order is that of the snapshot", account, "", false, "a/1|x=1 \n b/1|o=1 \n a/1|y=2", "a/1|y=2 \n a/1|x=1", "a/1|y=2 \n a/1|x=1 \n b/1|o=1", snapshot.Merged{Kept: 3}},
		{"new ones stay in their partition", all, "", false, "a|1=x \n a|9=x \n b|1=x \n b|2=x", "a|1=x \n b|0=n \n c|1=n \n b|2=x \n a|2=n", "a|1=x \n a|2=n \n a|9=x \n b|0=n \n b|1=x \n b|2=x \n c|1=n", snapshot.Merged{Added: 3, Kept: 4}},
		{"ordered", all, "", true, "|b=1 \n |d=1 \n x|b=1", "|a=2 \n |c=2 \n |d=2 \n |e=2 \n x|a=1 \n x|c=2 \n y|a=1",
			"|a=2 \n |b=1 \n |c=2 \n |d=2 \n |e=2 \n x|a=1 \n x|b=1 \n x|c=2 \n y|a=1", snapshot.Merged{Added: 6, Changed: 1, Kept: 2}},
		{"behind all that is inside of the one before", all, "/", false,
			"|={} \n |/a={} \n |/a/x={} \n |/a/x/1=1 \n |/a/x/2=1 \n |/a/y=1 \n |/c=1",
			"|={} \n |/a={} \n |/a/x={} \n |/a/x/1=1 \n |/b={} \n |/b/q=1",
			"|={} \n |/a={} \n |/a/x={} \n |/a/x/1=1 \n |/a/x/2=1 \n |/a/y=1 \n |/b={} \n |/b/q=1 \n |/c=1", snapshot.Merged{Added: 2, Kept: 7}},
		{"first inside", all, "/", false, "|={} \n |/a={} \n |/a/z=1 \n |/b=1", "|={} \n |/a={} \n |/a/y=2 \n |/b=1", "|={} \n |/a={} \n |/a/y=2 \n |/a/z=1 \n |/b=1", snapshot.Merged{Added: 1, Kept: 4}},
		{"a name is no container of a longer one", all, "/", false, "|={} \n |/a={} \n |/ab=1", "|={} \n |/a={} \n |/a/x=1 \n |/abc=2", "|={} \n |/a={} \n |/a/x=1 \n |/abc=2 \n |/ab=1", snapshot.Merged{Added: 2, Kept: 3}},
		{"numbers rise", all, "/", false, "|=[] \n |/0=a \n |/2=c \n |/id=7=x \n |/12=m", "|=[] \n |/id=7=x \n |/1=b \n |/2=C \n |/id=8=y \n |/9=j \n |/13=n",
			"|=[] \n |/0=a \n |/1=b \n |/2=C \n |/id=8=y \n |/id=7=x \n |/9=j \n |/12=m \n |/13=n", snapshot.Merged{Added: 4, Changed: 1, Kept: 4}},
		{"numbers that do not rise are names", all, "/", false, "|={} \n |/7=a \n |/3=c", "|={} \n |/7=a \n |/5=n", "|={} \n |/7=a \n |/5=n \n |/3=c", snapshot.Merged{Added: 1, Kept: 3}},
		{"what closes is last", all, ".!", false, "|a={} \n |a.x=1 \n |a.y=1 \n |b=1", "|a={} \n |a.x=1 \n |a!=end", "|a={} \n |a.x=1 \n |a.y=1 \n |a!=end \n |b=1", snapshot.Merged{Added: 1, Kept: 4}},
		{"nothing comes behind what closes", all, ".!", false, "|a={} \n |a.x=1 \n |a!=end", "|a={} \n |a.x=1 \n |a.n=1 \n |a!=fin", "|a={} \n |a.x=1 \n |a.n=1 \n |a!=fin", snapshot.Merged{Added: 1, Changed: 1, Kept: 2}},
		{"another sort of thing", all, "/", false, "|={} \n |/a={} \n |/a/x=1 \n |/a/y={} \n |/a/y/z=1 \n |/b=1", "|={} \n |/a=[] \n |/a/0=1 \n |/a/x=2", "|={} \n |/a=[] \n |/a/0=1 \n |/a/x=2 \n |/b=1", snapshot.Merged{Added: 1, Changed: 2, Removed: 2, Kept: 2}},
		{"a container becomes a value", all, "/", false, "|={} \n |/a={} \n |/a/x=1 \n |/b=1", "|={} \n |/a=1", "|={} \n |/a=1 \n |/b=1", snapshot.Merged{Changed: 1, Removed: 1, Kept: 2}},
		{"a value becomes a container", all, "/", false, "|={} \n |/a=1 \n |/b=1", "|={} \n |/a={} \n |/a/x=1", "|={} \n |/a={} \n |/a/x=1 \n |/b=1", snapshot.Merged{Added: 1, Changed: 1, Kept: 2}},
		{"the same sort, laid out otherwise", all, "/", false, "|={} \n |/a=1", "|={}indent \n |/b=1", "|={}indent \n |/b=1 \n |/a=1", snapshot.Merged{Added: 1, Changed: 1, Kept: 1}},
		{"pieces go with their value", all, ".", false, "|r=map3 \n |r.0=x \n |r.1=y \n |r.2=z \n |s=map1", "|r=map2 \n |r.0=x \n |r.1=w", "|r=map2 \n |r.0=x \n |r.1=w \n |s=map1", snapshot.Merged{Changed: 2, Removed: 1, Kept: 2}},
		{"pieces of the same value", all, ".", false, "|r=map3 \n |r.0=x \n |r.1=y \n |s=map1", "|q=map0 \n |r=map3 \n |r.0=x \n |r.1=w", "|q=map0 \n |r=map3 \n |r.0=x \n |r.1=w \n |s=map1", snapshot.Merged{Added: 1, Changed: 1, Kept: 3}},
		{"accounts inside", account, "/", false,
			"|={} \n |/a={} \n |/a/1={} \n 1/eu|/a/1/eu={} \n 1/eu|/a/1/eu/q=1 \n 1/us|/a/1/us={} \n 1/us|/a/1/us/q=1 \n 1/us|/a/1/us/r=1 \n |/v=1",
			"|={} \n |/a={} \n |/a/1={} \n 1/us|/a/1/us={} \n 1/us|/a/1/us/r=1 \n 1/us|/a/1/us/p=1 \n |/a/2={} \n 2/us|/a/2/us={} \n |/w=1",
			"|={} \n |/a={} \n |/a/1={} \n 1/eu|/a/1/eu={} \n 1/eu|/a/1/eu/q=1 \n 1/us|/a/1/us={} \n 1/us|/a/1/us/r=1 \n 1/us|/a/1/us/p=1 \n |/a/2={} \n 2/us|/a/2/us={} \n |/w=1 \n |/v=1",
			snapshot.Merged{Added: 4, Removed: 1, Kept: 8}},
		{"what is inside of what goes, goes", account, "/", false, "|={} \n a|/x={} \n |/x/y=1 \n b|/z=1", "|={} \n a|/w=1", "|={} \n a|/w=1 \n b|/z=1", snapshot.Merged{Added: 1, Removed: 2, Kept: 2}},
		{"roots", account, ".[!", false,
			`|$={}
			 |["1"]={}
			 1/eu|$={}
			 1/eu|.q=1
			 1/us|$={}
			 1/us|.q={}
			 1/us|.q["a"]=1
			 |["3"]={}
			 3/us|$={}`,
			`|$={}
			 |["1"]={}
			 1/us|$={}
			 1/us|.q={}
			 1/us|.q["b"]=1
			 1/ap|$={}
			 |["2"]={}
			 2/us|$={}
			 |$!=end`,
			`|$={}
			 |["1"]={}
			 1/eu|$={}
			 1/eu|.q=1
			 1/us|$={}
			 1/us|.q={}
			 1/us|.q["b"]=1
			 1/ap|$={}
			 |["2"]={}
			 2/us|$={}
			 |["3"]={}
			 3/us|$={}
			 |$!=end`, snapshot.Merged{Added: 5, Removed: 1, Kept: 8}},
		{"an empty container takes nothing", all, ".", false, "|a={} \n |a.x=1 \n |b={} \n |b.y=1", "|a=empty{} \n |b=empty[] \n |c=1", "|a={} \n |a.x=1 \n |b=empty[] \n |c=1", snapshot.Merged{Added: 1, Changed: 1, Removed: 1, Kept: 2}},
		{"partitions that stay keep what they are in", account, "/", false,
			"|={} \n |/a={} \n 1/us|/a/us={} \n 1/us|/a/us/x=1 \n |/b=1", "|={} \n |/a=[] \n |/a/name=n \n 2/us|/c=1",
			"|={} \n |/a={} \n 1/us|/a/us={} \n 1/us|/a/us/x=1 \n 2/us|/c=1 \n |/b=1", snapshot.Merged{Added: 1, Kept: 5}},
		{"partitions of both in other containers", account, "/", false,
			"|={} \n |/a={} \n 1/us|/a/us=1 \n |/b=1", "|={} \n |/a=[] \n 2/us|/a/0=1",
			"|={} \n |/a=[] \n 2/us|/a/0=1 \n |/b=1", snapshot.Merged{Added: 1, Changed: 1, Removed: 1, Kept: 2}},
		{"two roots", all, ".[!", false, "|$={} \n |.a=1 \n |$2={} \n |$2.a=1", "|$={} \n |.b=1 \n |$2={} \n |$2.b={} \n |$2.b[1]=1 \n |$3=x", "|$={} \n |.b=1 \n |.a=1 \n |$2={} \n |$2.b={} \n |$2.b[1]=1 \n |$2.a=1 \n |$3=x", snapshot.Merged{Added: 4, Kept: 4}},
	} {
		t.Run(c.name, func(t *testing.T) {
			live, in := stateOfRows(t, "json", rows(c.live)), stateOfRows(t, "json", rows(c.in))
			o := snapshot.MergeOptions{Strategy: c.strategy, Nesting: c.nesting, Ordered: c.ordered, Folder: t.TempDir()}
			var got collected
			counts, err := snapshot.Merge(t.Context(), live, in, o, &got)
			if err != nil {
				t.Fatal(err)
			}
			if want := rows(c.want); !slices.Equal(got.rows, want) {
				t.Errorf("got\n%s\nwant\n%s", lines(got.rows), lines(want))
			}
			if counts != c.counts {
				t.Errorf("%+v, want %+v", counts, c.counts)
			}
			if dry, err := snapshot.Merge(t.Context(), live, in, o, nil); err != nil || dry != counts {
				t.Errorf("without a sink %+v (%v), with one %+v", dry, err, counts)
			}
		})
	}
}

func lines(all []row) string {
	var b strings.Builder
	for _, r := range all {
		fmt.Fprintln(&b, r)
	}
	return b.String()
}

func TestMergeIntoNothing(t *testing.T) {
	in := stateOfRows(t, "json", rows("|b=1 \n |a=2"))
	for _, s := range append(snapshot.Strategies(), "") {
		var got collected
		counts, err := snapshot.Merge(t.Context(), nil, in, snapshot.MergeOptions{Strategy: s}, &got)
		if err != nil || counts != (snapshot.Merged{Added: 2}) || !slices.Equal(got.rows, rows("|b=1 \n |a=2")) {
			t.Errorf("%s: %+v, %v, %v", s, counts, err, got.rows)
		}
	}
}

// TestMergeDeltas: what deltas add stands at the end of its partition, and is merged as it stands.
func TestMergeDeltas(t *testing.T) {
	live := stateOfRows(t, "json", rows("|a=1 \n |b=1"), rows("|c=1 \n |a=2"))
	in := stateOfRows(t, "json", rows("|b=1"), rows("|d=1"))
	var got collected
	counts, err := snapshot.Merge(t.Context(), live, in, snapshot.MergeOptions{Strategy: snapshot.ServiceMerge}, &got)
	if err != nil || counts != (snapshot.Merged{Added: 1, Kept: 3}) || !slices.Equal(got.rows, rows("|a=2 \n |b=1 \n |d=1 \n |c=1")) {
		t.Errorf("%+v, %v\n%s", counts, err, lines(got.rows))
	}
}

func TestMergeRefuses(t *testing.T) {
	in := stateOfRows(t, "json", rows("|b=1"))
	for _, c := range []struct {
		name     string
		live, in *statefile.File
		strategy snapshot.Strategy
		want     string
		is       error
	}{
		{"strategy", in, in, "merge", `"merge"`, nil},
		{"serializer", stateOfRows(t, "pickle", rows("|b=1")), in, snapshot.ServiceMerge, "pickle, those of the other by json; load the snapshot with the merge strategy overwrite", nil},
		{"a key twice", stateOfRows(t, "json", rows("|a=1")), stateOfRows(t, "json", rows("|b=1 \n |b=2")), snapshot.ServiceMerge, `key "b"`, abi.ErrCorrupt},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := snapshot.Merge(t.Context(), c.live, c.in, snapshot.MergeOptions{Strategy: c.strategy}, &collected{})
			if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	if _, err := snapshot.Merge(ctx, stateOfRows(t, "json", rows("|a=1")), in, snapshot.MergeOptions{Strategy: snapshot.ServiceMerge}, nil); !errors.Is(err, stop) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestOverwriteDamaged: a live state that cannot be read, or is another serializer's, is no reason not to replace it.
func TestOverwriteDamaged(t *testing.T) {
	in := stateOfRows(t, "json", rows("|b=1"))
	var file bytes.Buffer
	w, err := statefile.NewWriter(&file, statefile.Header{Service: "s3", Part: "store", Generation: 1, Serializer: statefile.Serializer{Name: "json", Version: "1", Schema: 1}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, w, rows("|b=1 \n |c=rotten"))
	data := file.Bytes()
	data[bytes.Index(data, []byte("rotten"))] ^= 1
	for name, live := range map[string]*statefile.File{"damaged": openState(t, data), "another serializer": stateOfRows(t, "pickle", rows("|b=1 \n |c=1"))} {
		var got collected
		counts, err := snapshot.Merge(t.Context(), live, in, snapshot.MergeOptions{Strategy: snapshot.Overwrite}, &got)
		if err != nil || counts != (snapshot.Merged{Added: 1, Removed: 2}) || !slices.Equal(got.rows, rows("|b=1")) {
			t.Errorf("%s: %+v, %v", name, counts, err)
		}
	}
	if _, err := snapshot.Merge(t.Context(), openState(t, data), in, snapshot.MergeOptions{Strategy: snapshot.ServiceMerge}, &collected{}); !errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("a merge into a damaged state: %v", err)
	}
}

// TestMergeSpools: more than stays in memory goes through a temporary file, which is gone afterwards, in whatever order it
// is wanted.
func TestMergeSpools(t *testing.T) {
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 2))
	var a, b []row
	for i := range 12_000 {
		r := row{"", fmt.Sprintf("k%05d", i), strings.Repeat("v", 300+i%1000)}
		if i%3 != 0 {
			a = append(a, r)
		}
		if i%2 == 0 {
			r.value += "!"
		}
		b = append(b, r)
	}
	rng.Shuffle(len(b), func(i, j int) { b[i], b[j] = b[j], b[i] })
	live, in := stateOfRows(t, "json", a), stateOfRows(t, "json", b)
	var got collected
	counts, err := snapshot.Merge(t.Context(), live, in, snapshot.MergeOptions{Strategy: snapshot.ServiceMerge, Folder: dir}, sinkFunc(got.WriteBatch))
	if err != nil || counts != (snapshot.Merged{Added: 4000, Changed: 4000, Kept: 4000}) {
		t.Fatalf("%+v, %v", counts, err)
	}
	// The file has no name, so what shows it is that there is one to be made.
	_, err = snapshot.Merge(t.Context(), live, in, snapshot.MergeOptions{Strategy: snapshot.ServiceMerge, Folder: filepath.Join(dir, "missing")}, nil)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing was spooled: %v", err)
	}
	byKey := func(x, y row) int { return strings.Compare(x.key, y.key) }
	slices.SortFunc(got.rows, byKey)
	slices.SortFunc(b, byKey)
	if !slices.Equal(got.rows, b) {
		t.Error("the merged records are not those of the snapshot")
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("left behind: %v, %v", files, err)
	}
}

type sinkFunc func(*record.Batch) error

func (f sinkFunc) WriteBatch(b *record.Batch) error { return f(b) }

// inside is which records are inside of others, said once more: by the longest key that is there and begins this one.
func inside(nesting string, all map[string]bool, key string) string {
	for at := len(key) - 1; at > 0; at-- {
		if strings.IndexByte(nesting, key[at]) >= 0 && all[key[:at]] {
			return key[:at]
		}
	}
	return ""
}

// checkOrder holds a state against what the serializers ask: what is inside of a record follows it, with nothing else
// between, and numbers rise inside of arrays.
func checkOrder(t *testing.T, nesting string, all []row) {
	t.Helper()
	keys := map[string]bool{}
	for _, r := range all {
		if keys[r.key] {
			t.Fatalf("%q comes twice", r.key)
		}
		keys[r.key] = true
	}
	var open []string
	last := map[string]int{}
	for _, r := range all {
		c := inside(nesting, keys, r.key)
		for len(open) > 0 && open[len(open)-1] != c {
			open = open[:len(open)-1]
		}
		if c != "" && len(open) == 0 {
			t.Fatalf("%q does not stand inside of %q:\n%s", r.key, c, lines(all))
		}
		var n int
		if _, err := fmt.Sscanf(r.key[len(c):], "/%d", &n); err == nil && strings.HasPrefix(c, "/arr") {
			if n <= last[c] {
				t.Fatalf("%q stands behind %d:\n%s", r.key, last[c], lines(all))
			}
			last[c] = n
		}
		open = append(open, r.key)
	}
}

// randomState makes records that are inside of one another, of few names, so that two of them have many in common.
func randomState(rng *rand.Rand, partitions []string) []row {
	var all []row
	var fill func(partition, prefix string, depth int)
	fill = func(partition, prefix string, depth int) {
		names := []string{"a", "b", "arr", "c", "d"}
		rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		if strings.HasSuffix(prefix, "/arr") {
			names = names[:0]
			for n := 1; n < 9; n++ {
				if rng.IntN(2) == 0 {
					names = append(names, fmt.Sprint(n))
				}
				if rng.IntN(4) == 0 {
					names = append(names, fmt.Sprintf("id=%d", rng.IntN(1000)))
				}
			}
		}
		seen := map[string]bool{}
		for _, name := range names[:rng.IntN(len(names)+1)] {
			if seen[name] {
				continue
			}
			seen[name] = true
			key := prefix + "/" + name
			if depth == 0 || rng.IntN(3) == 0 {
				all = append(all, row{partition, key, fmt.Sprint(rng.IntN(3))})
				continue
			}
			all = append(all, row{partition, key, "{}"})
			fill(partition, key, depth-1)
		}
	}
	for _, p := range partitions {
		if rng.IntN(4) > 0 {
			all = append(all, row{p, "/" + p, "{}"})
			fill(p, "/"+p, 3)
		}
	}
	return all
}

// FuzzMerge: whatever two states hold, no record is lost, none comes twice, live's order stays, and what is inside of one
// another does, too.
func FuzzMerge(f *testing.F) {
	for seed := range uint64(40) {
		f.Add(seed, uint8(seed), seed%5 == 4)
	}
	f.Fuzz(func(t *testing.T, seed uint64, how uint8, odd bool) {
		rng := rand.New(rand.NewPCG(seed, 7))
		partitions := []string{"p", "q", "r", "s"}
		live, in := randomState(rng, partitions), randomState(rng, partitions)
		if odd { // no state of any serializer
			for _, s := range [][]row{live, in} {
				rng.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
			}
			live, in = live[:len(live)-len(live)/4], in[:len(in)-len(in)/4]
		}
		o := snapshot.MergeOptions{Strategy: snapshot.Strategies()[int(how)%2*2], Nesting: []string{"/", "", "/!"}[int(how)/2%3], Ordered: how > 200}
		var got collected
		counts, err := snapshot.Merge(t.Context(), stateOfRows(t, "json", live), stateOfRows(t, "json", in), o, &got)
		if err != nil {
			t.Fatal(err)
		}
		if uint64(len(got.rows)) != counts.Added+counts.Changed+counts.Kept || uint64(len(live)) != counts.Changed+counts.Removed+counts.Kept ||
			uint64(len(in)) > counts.Added+counts.Changed+counts.Kept {
			t.Fatalf("%d live and %d in give %d: %+v", len(live), len(in), len(got.rows), counts)
		}
		at := map[string]int{}
		for i, r := range got.rows {
			if _, twice := at[r.partition+"|"+r.key]; twice {
				t.Fatalf("%v comes twice", r)
			}
			at[r.partition+"|"+r.key] = i
		}
		inKeys, taken := map[string]bool{}, map[string]bool{}
		for _, r := range in {
			if i, ok := at[r.partition+"|"+r.key]; !ok || got.rows[i] != r {
				t.Fatalf("%v is lost", r)
			}
			inKeys[r.partition+"|"+r.key] = true
			taken[r.partition] = o.Strategy == snapshot.AccountRegionMerge
		}
		last, sorts := -1, 0
		for i, r := range live {
			j, ok := at[r.partition+"|"+r.key]
			only := !inKeys[r.partition+"|"+r.key]
			switch {
			case taken[r.partition]:
				if only && ok {
					t.Fatalf("%v of a partition that is replaced is there", r)
				}
			case only && !ok:
				sorts++
			case only:
				if j < last {
					t.Fatalf("%v of live has another place:\n%s", live[i], lines(got.rows))
				}
				last = j
			}
		}
		if sorts > 0 && o.Nesting == "" {
			t.Fatalf("%d records of live are lost", sorts)
		}
		if !odd && o.Nesting != "" && !o.Ordered {
			checkOrder(t, o.Nesting, got.rows)
		}
		again, err := snapshot.Merge(t.Context(), stateOfRows(t, "json", got.rows), stateOfRows(t, "json", in), o, nil)
		if err != nil || again.Added+again.Changed+again.Removed > 0 {
			t.Errorf("the same again changes %+v (%v)", again, err)
		}
	})
}

// TestReplaced: which accounts and regions a merge replaces wholly.
func TestReplaced(t *testing.T) {
	const live, none = "1/eu|a=1\n1/us|a=1\n|x=1", ""
	for _, c := range []struct {
		live, in string
		strategy snapshot.Strategy
		want     []string
	}{
		{live, "1/eu|b=1\n2/eu|b=1\n|y=1", snapshot.AccountRegionMerge, []string{"1/eu"}},
		{live, "1/eu|b=1", snapshot.Overwrite, []string{"1/eu", "1/us", ""}},
		{live, "1/eu|b=1", snapshot.ServiceMerge, []string{}},
		{"|a=1", "|b=1", snapshot.AccountRegionMerge, []string{""}},
		{"|a=1", "1/eu|b=1", snapshot.AccountRegionMerge, []string{}},
		{none, "|b=1", snapshot.AccountRegionMerge, []string{}},
	} {
		var before *statefile.File
		if c.live != none {
			before = stateOfRows(t, "s", rows(c.live))
		}
		if got := snapshot.Replaced(before, stateOfRows(t, "s", rows(c.in)), c.strategy); !slices.Equal(got, c.want) {
			t.Errorf("%q into %q, %s: %q, want %q", c.in, c.live, c.strategy, got, c.want)
		}
	}
}
