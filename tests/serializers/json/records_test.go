package json_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/tests/sdktest"
	"github.com/torpor-run/torpor/tests/serializers/files/through"
)

const folder = "../../../modules/json/fixtures"

// TestUnit runs the module's own unit tests.
func TestUnit(t *testing.T) { through.Unit(t, "json") }

// TestConforms holds the module against the conformance kit.
func TestConforms(t *testing.T) { through.Conforms(t, "json", modules.JSON(), folder) }

func fixtures(t testing.TB) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob(folder + "/*.json")
	if err != nil || len(names) < 3 {
		t.Fatal(names, err)
	}
	all := map[string][]byte{}
	for _, name := range names {
		if all[filepath.Base(name)], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// TestFixtures: what services wrote comes back byte for byte, and its values are in its records.
func TestFixtures(t *testing.T) {
	m := through.New(t, "json", modules.JSON())
	for name, text := range fixtures(t) {
		t.Run(name, func(t *testing.T) {
			records := m.RoundTrip(t, text)
			if n := compare(t, text, records); n < 3 {
				t.Errorf("%d values compared, of %d records", n, len(records))
			}
		})
	}
}

// compare holds the values of records against what package encoding/json finds where their keys point. It
// says how many were compared.
func compare(t testing.TB, text []byte, records [][]byte) int {
	t.Helper()
	var root any
	d := json.NewDecoder(bytes.NewReader(bytes.TrimPrefix(text, []byte(bom))))
	d.UseNumber()
	if err := d.Decode(&root); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, r := range records {
		var item [3]any
		if err := items.Unmarshal(r, &item); err != nil {
			t.Fatal(err)
		}
		key := item[1].(string)
		value := item[2]
		if tag, ok := value.(cbor.Tag); ok && tag.Number == 27 {
			said := tag.Content.([]any)
			if said[0] != "value" {
				continue
			}
			value = said[2]
		}
		if strings.Contains(key, "~#") || strings.HasSuffix(key, "/~end") {
			continue
		}
		want, ok := find(root, key)
		if !ok {
			t.Fatalf("%q points at nothing", key)
		}
		if !equal(want, value) {
			t.Fatalf("%q is %#v, want %#v\nof %s", key, value, want, text)
		}
		n++
	}
	return n
}

// items decodes maps as lists of pairs would be too much: names are unique where values are compared.
var items = func() cbor.DecMode {
	m, err := cbor.DecOptions{MaxNestedLevels: 100, MaxArrayElements: 1 << 24, MaxMapPairs: 1 << 24}.DecMode()
	if err != nil {
		panic(err)
	}
	return m
}()

// find follows a key, which is a JSON Pointer, or has an id in it.
func find(v any, key string) (any, bool) {
	if key == "" {
		return v, true
	}
	for _, token := range strings.Split(key[1:], "/") {
		name := strings.NewReplacer("~1", "/", "~0", "~").Replace(token)
		if strings.HasPrefix(token, `~"`) && json.Unmarshal([]byte(strings.NewReplacer("~1", "/", "~0", "~").Replace(token[1:])), &name) != nil {
			return nil, false
		}
		switch x := v.(type) {
		case map[string]any:
			var ok bool
			if v, ok = x[name]; !ok {
				return nil, false
			}
		case []any:
			if member, id, ok := strings.Cut(name, "="); ok {
				v = nil
				for _, e := range x {
					if o, ok := e.(map[string]any); ok && fmt.Sprint(o[member]) == id {
						v = e
						break
					}
				}
				continue
			}
			i, err := strconv.Atoi(name)
			if err != nil || i >= len(x) {
				return nil, false
			}
			v = x[i]
		default:
			return nil, false
		}
	}
	return v, true
}

// equal compares a value of JSON with an item of CBOR.
func equal(want, got any) bool {
	if tag, ok := got.(cbor.Tag); ok && tag.Number == 262 {
		var v any
		d := json.NewDecoder(bytes.NewReader(tag.Content.([]byte)))
		d.UseNumber()
		return d.Decode(&v) == nil && equalJSON(want, v)
	}
	switch w := want.(type) {
	case json.Number:
		switch g := got.(type) {
		case uint64:
			return w.String() == strconv.FormatUint(g, 10)
		case int64:
			return w.String() == strconv.FormatInt(g, 10)
		case big.Int:
			return w.String() == g.String()
		case float64:
			f, err := w.Float64()
			return err == nil && f == g
		}
		return false
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return false
		}
		for i := range w {
			if !equal(w[i], g[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		g, ok := got.(map[any]any)
		if !ok || len(g) > len(w) {
			return false
		}
		for k, v := range g {
			name, ok := k.(string)
			if tag, tagged := k.(cbor.Tag); tagged && tag.Number == 262 {
				ok = json.Unmarshal([]byte(tag.Content.(cbor.ByteString)), &name) == nil
			}
			if !ok || !equal(w[name], v) {
				return false
			}
		}
		return true
	}
	return want == got
}

func equalJSON(a, b any) bool {
	x, err := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err == nil && err2 == nil && bytes.Equal(x, y)
}

// random is a random value, whose names are unique.
func random(r *rand.Rand, depth int) any {
	kind := r.IntN(10)
	if depth == 0 {
		kind = r.IntN(6)
	}
	switch kind {
	case 0:
		return spelled([]string{"null", "true", "false"}[r.IntN(3)])
	case 1:
		return spelled(strconv.FormatInt(int64(r.Uint64()>>r.IntN(64)), 10))
	case 2:
		return spelled(strconv.FormatFloat(float64(int64(r.Uint64()))/float64(uint64(1)<<r.IntN(64)), "efg"[r.IntN(3)], []int{-1, r.IntN(20)}[r.IntN(2)], 64))
	case 3:
		return spelled(fmt.Sprintf("%d.%0*d", r.IntN(1_000_000), 1+r.IntN(9), r.IntN(10)))
	case 4, 5:
		return randomText(r, r.IntN(40))
	case 6, 7:
		a := []any{}
		for range r.IntN(6) {
			a = append(a, random(r, depth-1))
		}
		return a
	default:
		m := members{}
		for i := range r.IntN(6) {
			m = append(m, member{fmt.Sprint(i, randomText(r, r.IntN(12))), random(r, depth-1)})
		}
		return m
	}
}

func randomText(r *rand.Rand, n int) string {
	var b strings.Builder
	for range n {
		b.WriteRune([]rune{'a', 'z', '0', ' ', '~', '/', 'é', '東', '😀', '"', '\\', '\n', 1, 'q', 'x', '-'}[min(r.IntN(40), 15)])
	}
	return b.String()
}

// TestRandom: random texts in all styles, and with white space and other spellings put anywhere, come back
// byte for byte, and their values are those of package encoding/json.
func TestRandom(t *testing.T) {
	m := through.New(t, "json", modules.JSON())
	r := rand.New(rand.NewPCG(1, 1))
	n := 0
	for i := range 1500 {
		s := styles()[r.IntN(len(styles()))]
		text := s.write(random(r, 5))
		if i%3 == 0 {
			text = disturb(r, text)
		}
		m.Settings = settings()[r.IntN(4)]
		n += compare(t, []byte(text), m.RoundTrip(t, []byte(text)))
	}
	if n < 3000 {
		t.Errorf("only %d values compared", n)
	}
}

// disturb puts white space around some tokens and spells some characters otherwise.
func disturb(r *rand.Rand, text string) string {
	var b strings.Builder
	quoted, rate := false, 1+r.IntN(30)
	for i, c := range text {
		odd := r.IntN(rate) == 0
		switch {
		case c == '"' && (i == 0 || !escapedAt(text, i)):
			quoted = !quoted
			b.WriteRune(c)
		case quoted && odd && c == 'a':
			b.WriteString([]string{`\u0061`, `a`}[r.IntN(2)])
		case quoted && odd && c == '/':
			b.WriteString(`\/`)
		case !quoted && odd && strings.ContainsRune("{}[],:", c):
			b.WriteString([]string{" ", "\n", "\t ", ""}[r.IntN(4)] + string(c) + []string{" ", "\r\n", ""}[r.IntN(3)])
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

func escapedAt(s string, i int) bool {
	n := 0
	for i > 0 && s[i-1] == '\\' {
		i--
		n++
	}
	return n%2 == 1
}

const damage = "{}[],:\"\\ \n0123.eE+-truefalsn\x00\x1f\x80\xc3\xff/*"

// TestMutations: what has been damaged is refused exactly if package encoding/json and UTF-8 refuse it.
func TestMutations(t *testing.T) {
	m := through.New(t, "json", modules.JSON())
	r := rand.New(rand.NewPCG(2, 2))
	var good [][]byte
	for range 50 {
		good = append(good, []byte(styles()[r.IntN(len(styles()))].write(random(r, 4))))
	}
	accepted := 0
	for range 4000 {
		text := bytes.Clone(good[r.IntN(len(good))])
		for range 1 + r.IntN(2) {
			if len(text) == 0 {
				break
			}
			i := r.IntN(len(text))
			switch r.IntN(3) {
			case 0:
				text[i] = damage[r.IntN(len(damage))]
			case 1:
				text = append(text[:i], text[i+1:]...)
			default:
				text = append(text[:i], append([]byte{text[r.IntN(len(text))]}, text[i:]...)...)
			}
		}
		sound := json.Valid(text) && utf8.Valid(text)
		m.Settings = settings()[r.IntN(4)]
		records, err := m.Records(t, text)
		if sound != (err == nil) || err != nil && !errors.Is(err, abi.ErrCorrupt) {
			t.Fatalf("%q, valid %v: %v", text, sound, err)
		}
		if sound {
			accepted++
			if got, err := m.Native(t, records); err != nil || !bytes.Equal(got, text) {
				t.Fatalf("%q comes back as %q (%v)", text, got, err)
			}
		}
	}
	if accepted < 200 {
		t.Errorf("only %d were still JSON", accepted)
	}
}

// FuzzSave: any bytes are refused or come back, whatever the settings.
func FuzzSave(f *testing.F) {
	for _, text := range accepted() {
		if len(text) < 2000 {
			f.Add([]byte(text), uint8(0))
		}
	}
	for _, c := range refused() {
		f.Add([]byte(c.text), uint8(3))
	}
	m := through.New(f, "json", modules.JSON())
	f.Fuzz(func(t *testing.T, text []byte, which uint8) {
		m := through.Module{Module: m.Module, Settings: settings()[int(which)%len(settings())]}
		m.Sane(t, text)
		_, err := m.Records(t, text)
		deep := errors.Is(err, abi.ErrTooLarge)
		if sound := json.Valid(bytes.TrimPrefix(text, []byte(bom))) && utf8.Valid(text); sound != (err == nil) && !deep {
			t.Fatalf("%q, valid %v: %v", text, sound, err)
		}
	})
}

// TestLoadDamaged: records that are damaged, missing or in another order are refused, or make JSON.
func TestLoadDamaged(t *testing.T) {
	m := through.New(t, "json", modules.JSON())
	r := rand.New(rand.NewPCG(3, 3))
	refusals := 0
	for range 2500 {
		text := styles()[r.IntN(len(styles()))].write(random(r, 5))
		if r.IntN(2) == 0 {
			text = disturb(r, text)
		}
		m.Settings = settings()[r.IntN(4)]
		records, err := m.Records(t, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		i, j := r.IntN(len(records)), r.IntN(len(records))
		switch r.IntN(4) {
		case 0:
			records[i], records[j] = records[j], records[i]
		case 1:
			records = append(records[:i], records[i+1:]...)
		case 2:
			records = append(records, records[j])
		default:
			rec := bytes.Clone(records[i])
			rec[r.IntN(len(rec))] = byte(r.Uint32())
			if !wellFormed(rec) {
				continue
			}
			records[i] = rec
		}
		got, err := m.Native(t, records)
		var e *host.GuestError
		switch {
		case err == nil && !json.Valid(bytes.TrimPrefix(got, []byte(bom))):
			t.Fatalf("%q: load wrote %q", text, got)
		case err != nil && (!errors.As(err, &e) || e.Code != abi.CodeCorrupt && e.Code != abi.CodeTooLarge):
			t.Fatalf("%q: %v", text, err)
		case err != nil:
			refusals++
		}
	}
	if refusals < 100 {
		t.Errorf("only %d refusals", refusals)
	}
}

func wellFormed(rec []byte) bool {
	b, err := through.Reader(rec).ReadBatch()
	return err == nil && b.Len() == 1 && len(b.Data) == len(rec)
}

// TestChanges: an entry that comes, goes or changes is a change of its record, and of no other.
func TestChanges(t *testing.T) {
	m := through.New(t, "json", modules.JSON())
	queue := func(i int) member {
		return member{fmt.Sprintf("queue-%04d", i), members{{"arn", "arn:aws:sqs:eu-west-1:000000000000:q"}, {"n", spelled(fmt.Sprint(i))}}}
	}
	post := func(i int) any { return members{{"id", spelled(fmt.Sprint(i))}, {"title", "a post"}} }
	var queues members
	var posts []any
	for i := range 2000 {
		queues, posts = append(queues, queue(2*i)), append(posts, post(2*i))
	}
	write := func(queues members, posts []any) [][]byte {
		return m.RoundTrip(t, []byte(styles()[7].write(members{{"accounts", members{{"000000000000", members{{"eu-west-1", queues}}}}}, {"posts", posts}})))
	}
	before := write(queues, posts)
	insert := write(append(append(append(members{}, queues[:1000]...), queue(1999)), queues[1000:]...), posts)
	gone := write(queues, append(append([]any{}, posts[:700]...), posts[701:]...))
	if n, back := through.Changed(before, insert), through.Changed(insert, before); n != 1 || back != 0 {
		t.Errorf("an added queue changes %d records, %d the other way", n, back)
	}
	if n, back := through.Changed(before, gone), through.Changed(gone, before); n != 0 || back != 1 {
		t.Errorf("a removed post changes %d records, %d the other way", n, back)
	}
	if got := partitionOf(t, before[500]); got != "000000000000/eu-west-1" {
		t.Errorf("a queue's partition is %q", got)
	}
	if got := through.Key(t, before[2100]); !strings.HasPrefix(got, "/posts/id=") {
		t.Errorf("a post's key is %q", got)
	}
}

// TestMemory: memory does not follow the state, and of a large record it takes a few times its size.
func TestMemory(t *testing.T) {
	module, costs := sdktest.Compile(t, "json", modules.JSON(), host.Config{Logger: slog.New(slog.DiscardHandler)})
	m := through.Module{Module: module}
	used := func(text []byte) (save, load int64) {
		m.RoundTrip(t, text)
		return costs.Of(abi.OpSave).Memory, costs.Of(abi.OpLoad).Memory
	}
	state := func(size int) []byte { return emulator(size) }
	smallSave, smallLoad := used(state(1_000_000))
	largeSave, largeLoad := used(state(20_000_000))
	if smallSave != largeSave || smallLoad != largeLoad || smallSave > 2<<20 {
		t.Errorf("1 MB takes %d and %d bytes of memory, 20 MB %d and %d", smallSave, smallLoad, largeSave, largeLoad)
	}
	record := `{"a":{"b":["` + strings.Repeat(`0123456789","é\n","`, 1_000_000) + `"]}}`
	save, load := used([]byte(record))
	if most := 8 * int64(len(record)); save > most || load > most {
		t.Errorf("a record of %d bytes takes %d and %d", len(record), save, load)
	}
}

// TestLarge: records up to the host's limit are kept, and what is longer is refused with the path.
func TestLarge(t *testing.T) {
	m := through.New(t, "json", modules.JSON())
	m.RoundTrip(t, []byte(`{"a":{"b":"`+strings.Repeat("x", 60<<20)+`","c":[`+strings.Repeat("1,", 5<<20)+`1]}}`))
	_, err := m.Records(t, []byte(`{"a":{"b":1,"big":"`+strings.Repeat("x", 66<<20)+`"}}`))
	if !errors.Is(err, abi.ErrTooLarge) || !strings.Contains(err.Error(), "/a/big") || !strings.Contains(err.Error(), "setting records") {
		t.Errorf("a record of 66 MiB: %v", err)
	}
	name := strings.Repeat("n", 70_000)
	if _, err := m.Records(t, []byte(`{"a":{"`+name+`":1}}`)); !errors.Is(err, abi.ErrTooLarge) || !strings.Contains(err.Error(), "setting records") {
		t.Errorf("a name of 70,000 bytes: %v", err)
	}
	m.Settings = map[string]any{"records": ""}
	m.RoundTrip(t, []byte(`{"a":{"`+name+`":1}}`))
}

// TestSettings: where records begin and what partitions they have.
func TestSettings(t *testing.T) {
	m := through.New(t, "json", modules.JSON())
	text := `{"streams":{"arn:aws:kinesis:eu-west-1:111122223333:stream/eu":{"n":{"x":1}},"plain":{}},"list":[{"name":"a","v":[1]},{"name":"b","v":[2]}],"v":3}`
	for _, c := range []struct {
		settings map[string]any
		want     string
	}{
		{nil, `|; |/streams; 111122223333/eu-west-1|/streams/arn:aws:kinesis:eu-west-1:111122223333:stream~1eu; |/streams/plain; |/list; |/list/0; |/list/1; |/v`},
		{map[string]any{"records": "/streams/*", "id": "name"}, `|; |/streams; 111122223333/eu-west-1|/streams/arn:aws:kinesis:eu-west-1:111122223333:stream~1eu; |/streams/plain; |/list; |/v`},
		{map[string]any{"id": "name", "partition": "p"}, `p|; p|/streams; p|/streams/arn:aws:kinesis:eu-west-1:111122223333:stream~1eu; p|/streams/plain; p|/list; p|/list/name=a; p|/list/name=b; p|/v`},
		{map[string]any{"records": []any{"/list/*/*"}, "partition": "{1}/{2}"}, `|; |/streams; |/list; list/0|/list/0; list/0|/list/0/name; list/0|/list/0/v; list/1|/list/1; list/1|/list/1/name; list/1|/list/1/v; |/v`},
		{map[string]any{"records": ""}, `|`},
	} {
		m.Settings = c.settings
		var got []string
		for _, r := range m.RoundTrip(t, []byte(text)) {
			got = append(got, partitionOf(t, r)+"|"+through.Key(t, r))
		}
		if s := strings.Join(got, "; "); s != c.want {
			t.Errorf("%v: %s\nwant %s", c.settings, s, c.want)
		}
	}
	for _, s := range []map[string]any{
		{"record": "/a"}, {"records": 3}, {"records": "a"}, {"records": "/a~2"}, {"records": []any{}}, {"records": []any{1}},
		{"partition": 1}, {"partition": "{0}"}, {"partition": "{"}, {"id": 7}, {"id": []any{nil}},
	} {
		m.Settings = s
		var e *host.GuestError
		if _, err := m.Records(t, []byte("{}")); !errors.As(err, &e) || e.Code != abi.CodeUnsupported || !strings.HasPrefix(e.Failure.Path, "settings.") {
			t.Errorf("%v: %v", s, err)
		}
	}
}

func TestInspect(t *testing.T) {
	m := through.New(t, "json", modules.JSON())
	records := m.RoundTrip(t, []byte("{\"accounts\":{\"000000000000\":{\"eu-west-1\":{\"a\":{},\"b\":[1]}}},\"posts\":[{\"id\":1},{\"id\":2}],\"v\":3}\n"))
	var s struct {
		Schema, Records int
		Partitions      map[string]struct{ Records int }
		Kinds           map[string]struct{ Count int }
	}
	if err := cbor.Unmarshal(m.Summary(t, records), &s); err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(s)
	want := "{1 11 map[:{8} 000000000000/eu-west-1:{3}] map[/*:{1} /accounts/*/*/*:{2} /posts/*:{2} opened:{5} spaces:{1}]}"
	if got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
