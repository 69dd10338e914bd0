package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	torpor "github.com/torpor-run/torpor/sdk/go"
	"github.com/torpor-run/torpor/sdk/go/torportest"
)

// The service itself: what it keeps and how it writes it.
type (
	serviceTask struct {
		ID       string       `json:"id"`
		List     string       `json:"list"`
		Title    string       `json:"title"`
		Owner    serviceOwner `json:"owner"`
		Date     string       `json:"date"`
		Time     string       `json:"time"`
		Priority uint64       `json:"priority"`
		Done     bool         `json:"done"`
		Tags     []string     `json:"tags"`
	}
	serviceOwner struct {
		Given  string `json:"given"`
		Family string `json:"family"`
	}
	serviceHeader struct {
		Format string `json:"format"`
		Schema int    `json:"schema"`
	}
	serviceTrailer struct {
		Tasks int `json:"tasks"`
	}
)

// earlierTask is a task as the service kept it in schema 1.
type earlierTask struct {
	ID       string   `json:"id"`
	List     string   `json:"list"`
	Title    string   `json:"title"`
	Assignee string   `json:"assignee"`
	Due      string   `json:"due"`
	Priority uint64   `json:"priority"`
	Done     bool     `json:"done"`
	Tags     []string `json:"tags"`
}

// records are the records of schema 1 that the serializer of that time made.
func (e earlierTask) record(dst []byte) []byte {
	dst = record.AppendText(record.AppendText(record.AppendRecord(dst), ""), e.ID)
	dst = record.AppendMap(dst, 7)
	for _, m := range [][2]string{{"list", e.List}, {"title", e.Title}, {"assignee", e.Assignee}, {"due", e.Due}} {
		dst = record.AppendText(record.AppendText(dst, m[0]), m[1])
	}
	dst = record.AppendUint(record.AppendText(dst, "priority"), e.Priority)
	dst = record.AppendBool(record.AppendText(dst, "done"), e.Done)
	dst = record.AppendArray(record.AppendText(dst, "tags"), len(e.Tags))
	for _, tag := range e.Tags {
		dst = record.AppendText(dst, tag)
	}
	return dst
}

// now is the task as the service keeps it today.
func (e earlierTask) now() serviceTask {
	t := serviceTask{ID: e.ID, List: e.List, Title: e.Title, Priority: e.Priority, Done: e.Done, Tags: e.Tags}
	t.Owner.Given = e.Assignee
	if i := strings.LastIndex(e.Assignee, " "); i >= 0 {
		t.Owner.Given, t.Owner.Family = e.Assignee[:i], e.Assignee[i+1:]
	}
	t.Date, t.Time, _ = strings.Cut(e.Due, "T")
	return t
}

func serviceFile(t testing.TB, tasks []serviceTask) []byte {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	rows := []any{serviceHeader{"todo", 2}}
	for _, task := range tasks {
		rows = append(rows, task)
	}
	for _, row := range append(rows, serviceTrailer{len(tasks)}) {
		if err := e.Encode(row); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// texts are strings that JSON spells in every way there is.
func texts() []string {
	all := []string{"", "x", "Größe", "漢字かな交じり文", "😀 and 👩‍👩‍👧", "a\u2028b\u2029c", "<b>&amp;</b>", `"\/`, "\uFFFD", "\u007f", strings.Repeat("long ", 5000)}
	for c := range 0x80 {
		all = append(all, fmt.Sprintf("%c", c), fmt.Sprintf("12345%c7890", c), fmt.Sprintf("1234567890123%c", c))
	}
	return all
}

func TestRoundTripOfWhatTheServiceWrites(t *testing.T) {
	exact := func(native []byte) []byte {
		records := torportest.RoundTrip(t, todo{}, native)
		if back, err := torportest.Load(todo{}, records); err != nil || !bytes.Equal(back, native) {
			t.Errorf("load gives %q, %v; want %q", back, err, native)
		}
		return records
	}
	exact(serviceFile(t, nil))
	var tasks []serviceTask
	for i, s := range texts() {
		tasks = append(tasks, serviceTask{ID: fmt.Sprintf("%04d%s", i, s), List: s, Title: "to " + s, Owner: serviceOwner{s, "of " + s}, Date: s, Time: s + s,
			Priority: []uint64{0, 9, 10, math.MaxUint64}[i%4], Done: i%2 == 0, Tags: append([]string{}, []string{s, "b", s + s}[:i%4%3]...)})
	}
	records := exact(serviceFile(t, tasks))

	// The records say what the service meant.
	for _, want := range tasks {
		p := record.NewPull(records)
		p.Array()
		p.Text()
		got := serviceTask{ID: string(p.Text()), Tags: []string{}}
		for range p.Map() {
			switch string(p.Text()) {
			case "list":
				got.List = string(p.Text())
			case "title":
				got.Title = string(p.Text())
			case "owner":
				p.Map()
				p.Text()
				got.Owner.Given = string(p.Text())
				p.Text()
				got.Owner.Family = string(p.Text())
			case "date":
				got.Date = string(p.Text())
			case "time":
				got.Time = string(p.Text())
			case "priority":
				got.Priority = p.Uint()
			case "done":
				got.Done = p.Bool()
			case "tags":
				for range p.Array() {
					got.Tags = append(got.Tags, string(p.Text()))
				}
			}
		}
		if p.Err() != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v, %v; want %+v", got, p.Err(), want)
		}
		records = records[p.Offset():]
	}
}

// A file that says the same in another spelling, in another order, is saved, too.
func TestAnotherSpelling(t *testing.T) {
	other := " {\"schema\" : 2, \"format\": \"todo\"}\r\n" +
		`{"tags":["shop","fo<od"],"done":false,"priority":2,"time":"18:00","date":"2026-05-01","owner":{"family":"Lovelace","given":"Ada"},"title":"\u0042uy \"milk\"","list":"home","id":"1"}` +
		"\n\n" + `{"id":"2","list":"","title":"","owner":{"given":"","family":""},"date":"","time":"","priority":0,"done":true,"tags":[]}{"tasks":2}`
	records := torportest.RoundTrip(t, todo{}, []byte(other))
	if back, err := torportest.Load(todo{}, records); err != nil || !bytes.Equal(back, small(t)) {
		t.Errorf("%s, %v; want\n%s", back, err, small(t))
	}
}

// What was kept in schema 1 is there in schema 2, whether load reads the old records or migrate has made new
// ones of them.
func TestMigration(t *testing.T) {
	var old []byte
	var want []serviceTask
	add := func(e earlierTask) {
		e.ID, e.List, e.Title, e.Tags = fmt.Sprintf("%04d", len(want)), "home", "to do", append([]string{}, e.Tags...)
		old = e.record(old)
		want = append(want, e.now())
	}
	for _, assignee := range append(texts(), "Ada Lovelace", "Ada", " ", "Augusta Ada King", "Ada ", " Lovelace") {
		add(earlierTask{Assignee: assignee, Due: "2026-05-01T18:00", Priority: 2})
	}
	for _, due := range append(texts(), "2026-05-01T18:00", "2026-05-01", "T18:00", "TTT") {
		add(earlierTask{Due: due, Done: true, Tags: []string{"a", due}})
	}
	native := serviceFile(t, want)
	for _, piece := range []int{0, 1, 1000} {
		h := torportest.Host{Call: abi.Call{Op: abi.OpLoad, Schema: 1}, Input: old, Piece: piece}
		if got, err := h.Run(todo{}); err != nil || !bytes.Equal(got, native) {
			t.Errorf("load of schema 1: %v\n%s, want\n%s", err, got, native)
		}
	}
	migrated, err := torportest.Migrate(todo{}, 1, 2, old)
	if err != nil {
		t.Fatal(err)
	}
	saved, err := torportest.Save(todo{}, native)
	if err != nil || !bytes.Equal(migrated, saved) {
		t.Errorf("migrate does not give the records that save gives: %v", err)
	}
	if same, err := torportest.Migrate(todo{}, 2, 2, saved); err != nil || !bytes.Equal(same, saved) {
		t.Errorf("migrate from 2 to 2: %v", err)
	}
	if w := want[len(texts())]; w.Owner != (serviceOwner{"Ada", "Lovelace"}) || w.Date != "2026-05-01" || w.Time != "18:00" {
		t.Errorf("%+v", w)
	}
	for _, c := range [][2]uint64{{1, 1}, {2, 1}, {1, 3}, {3, 2}, {0, 2}} {
		if _, err := torportest.Migrate(todo{}, c[0], c[1], old); !errors.Is(err, abi.ErrVersion) {
			t.Errorf("migrate from %d to %d: %v", c[0], c[1], err)
		}
	}
	// A record of one schema is none of the other.
	if _, err := torportest.Load(todo{}, old); err == nil || !strings.Contains(err.Error(), `a task has no "assignee"`) {
		t.Errorf("records of schema 1 as such of schema 2: %v", err)
	}
	h := torportest.Host{Call: abi.Call{Op: abi.OpLoad, Schema: 1}, Input: saved}
	if _, err := h.Run(todo{}); err == nil || !strings.Contains(err.Error(), `a task has no "owner"`) {
		t.Errorf("records of schema 2 as such of schema 1: %v", err)
	}
}

func small(t testing.TB) []byte {
	return serviceFile(t, []serviceTask{
		{ID: "1", List: "home", Title: "Buy \"milk\"", Owner: serviceOwner{"Ada", "Lovelace"}, Date: "2026-05-01", Time: "18:00", Priority: 2, Tags: []string{"shop", "fo<od"}},
		{ID: "2", Done: true, Tags: []string{}},
	})
}

// A file that was cut anywhere is known as such.
func TestEveryCut(t *testing.T) {
	native := small(t)
	for n := range len(native) - 1 { // without its last newline it is whole
		_, err := torportest.Save(todo{}, native[:n])
		var e *torpor.Error
		if !errors.As(err, &e) || e.Code != torpor.CodeCorrupt || e.Offset > uint64(n) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
}

// A file with a byte changed is refused, or is another sound state; it is never taken for what it is
// not.
func TestEveryByteChanged(t *testing.T) {
	native := small(t)
	for i := range native {
		for _, c := range []byte{0, '"', '\\', '0', '1', 'x', '\n', ' ', '<', 0x80, native[i] ^ 1} {
			bad := bytes.Clone(native)
			bad[i] = c
			records, err := torportest.Save(todo{}, bad)
			if err != nil {
				var e *torpor.Error
				if !errors.As(err, &e) || e.Code == torpor.CodeInternal {
					t.Fatalf("byte %d to %q: %v", i, c, err)
				}
				continue
			}
			var back, want []map[string]any
			loaded, err := torportest.Load(todo{}, records)
			for _, d := range []struct {
				native []byte
				rows   *[]map[string]any
			}{{loaded, &back}, {bad, &want}} {
				for e := json.NewDecoder(bytes.NewReader(d.native)); e.More() && err == nil; {
					row := map[string]any{}
					err = e.Decode(&row)
					*d.rows = append(*d.rows, row)
				}
			}
			if err != nil || !reflect.DeepEqual(back, want) {
				t.Fatalf("byte %d to %q: load gives %q, %v", i, c, back, err)
			}
		}
	}
}

func TestBadFiles(t *testing.T) {
	good := string(small(t))
	for _, c := range []struct {
		change func(string) string
		code   torpor.Code
		at     string // what stands where the error is; "" is the end of the file
		want   string
	}{
		{func(string) string { return "" }, torpor.CodeCorrupt, "", "the file is empty"},
		{func(string) string { return "hello\n" }, torpor.CodeCorrupt, "hello", `an object expected, found "h" at $`},
		{replace(`"format":"todo"`, `"format":"shop"`), torpor.CodeCorrupt, "\n{\"id\":\"1\"", "no file of the to-do service"},
		{replace(`"schema":2`, `"scheme":2`), torpor.CodeCorrupt, "2}\n{\"id", "no file of the to-do service"},
		{replace(`,"schema":2`, ``), torpor.CodeCorrupt, "\n{\"id\":\"1\"", "no file of the to-do service"},
		{replace(`"schema":2`, `"schema":1`), torpor.CodeVersion, "\n{\"id\":\"1\"", "a file of schema 1; this serializer reads files of schema 2"},
		{replace(`"schema":2`, `"schema":x`), torpor.CodeCorrupt, "x", `an unsigned integer expected, found "x" at $.schema`},
		{replace(`"priority":2`, `"priority":02`), torpor.CodeCorrupt, "2,\"done\"", `not a number as JSON has them: "02" at $.priority`},
		{replace(`"priority":2`, `"priority":18446744073709551616`), torpor.CodeCorrupt, "18446744073709551616", "an unsigned integer of 64 bits expected at $.priority"},
		{replace(`"priority":2`, `"priority":"2"`), torpor.CodeCorrupt, `"2","done"`, "an unsigned integer expected"},
		{replace(`"priority":2,`, ``), torpor.CodeCorrupt, "\n{\"id\":\"2\"", "a task has id, list, title, owner, date, time, priority, done and tags, each once"},
		{replace(`"priority":2,`, `"priority":2,"priority":2,`), torpor.CodeCorrupt, `,"done":false`, "each once at $.priority"},
		{replace(`"priority":2,`, `"priority":2,"colour":3,`), torpor.CodeUnsupported, `3,"done`, `a task has no "colour"`},
		{replace(`"priority":2,`, `"priority":2,"tasks":3,`), torpor.CodeCorrupt, "\n{\"id\":\"2\"", "each once"},
		{replace(`,"family":"Lovelace"`, ``), torpor.CodeCorrupt, `,"date":"2026`, "an owner has given and family, each once at $.owner"},
		{replace(`"family":"Lovelace"`, `"family":"Lovelace","family":"King"`), torpor.CodeCorrupt, `,"date":"2026`, "an owner has given and family, each once"},
		{replace(`"family":"Lovelace"`, `"middle":"Lovelace"`), torpor.CodeUnsupported, `"Lovelace`, `an owner has no "middle" at $.owner.middle`},
		{replace(`{"given":"Ada","family":"Lovelace"}`, `"Ada Lovelace"`), torpor.CodeCorrupt, `"Ada Lovelace"`, "an object expected, found \"\\\"\" at $.owner"},
		{replace(`"id":"2"`, `"id":"0"`), torpor.CodeCorrupt, `{"id":"0"`, `task "0" comes after "1"; ids ascend`},
		{replace(`"id":"2"`, `"id":"1"`), torpor.CodeCorrupt, `{"id":"1","list":""`, `task "1" comes after "1"; ids ascend`},
		{replace(`{"tasks":2}`, `{"tasks":3}`), torpor.CodeCorrupt, "\n", "says that it has 3 tasks but has 2"},
		{replace(`{"tasks":2}`+"\n", ""), torpor.CodeCorrupt, "", "ends without the line that counts the tasks"},
		{func(s string) string { return s + "x" }, torpor.CodeCorrupt, "x", "more after the end of the document"},
		{replace(`"fo\u`, strings.Repeat(`"",`, maxTags-1)+`"fo\u`), torpor.CodeTooLarge, `"fo`, "more than 1000 tags at $.tags[1000]"},
	} {
		bad := c.change(good)
		offset := len(bad)
		if c.at != "" {
			offset = strings.LastIndex(bad, c.at)
		}
		_, err := torportest.Save(todo{}, []byte(bad))
		var e *torpor.Error
		if !errors.As(err, &e) || e.Code != c.code || !strings.Contains(err.Error(), c.want) || e.Offset != uint64(offset) {
			t.Errorf("%.200q:\n%v\nwant code %d, %s (offset %d)", bad, err, c.code, c.want, offset)
		}
	}
}

func replace(old, new string) func(string) string {
	return func(s string) string {
		if strings.Count(s, old) != 1 {
			panic(old)
		}
		return strings.Replace(s, old, new, 1)
	}
}

// Records that this serializer did not write are refused, not guessed at, in both schemas.
func TestBadRecords(t *testing.T) {
	text := func(s string) []byte { return record.AppendText(nil, s) }
	owner := func(names ...string) []byte {
		b := record.AppendMap(nil, len(names))
		for _, n := range names {
			b = record.AppendText(record.AppendText(b, n), n)
		}
		return b
	}
	members := map[string][]byte{"priority": record.AppendUint(nil, 1), "done": record.AppendBool(nil, true), "tags": record.AppendArray(nil, 0),
		"list": text("list"), "title": text("title"), "date": text("date"), "time": text("time"), "owner": owner("family", "given"),
		"assignee": text("given family"), "due": text("dateTtime"), "colour": record.AppendNull(nil)}
	build := func(partition string, names ...string) []byte {
		b := record.AppendText(record.AppendText(record.AppendRecord(nil), partition), "1")
		b = record.AppendMap(b, len(names))
		for _, n := range names {
			b = append(record.AppendText(b, n), members[n]...)
		}
		return b
	}
	// with runs f with another value for a member.
	with := func(name string, value []byte, f func() []byte) []byte {
		sound := members[name]
		defer func() { members[name] = sound }()
		members[name] = value
		return f()
	}
	orders := map[uint64][]string{
		1: {"tags", "list", "title", "due", "assignee", "priority", "done"},
		2: {"tags", "list", "title", "date", "owner", "time", "priority", "done"},
	}
	run := func(op string, schema uint64, records []byte) ([]byte, error) {
		h := torportest.Host{Call: abi.Call{Op: op, Schema: schema, From: schema, To: 2}, Input: records}
		return h.Run(todo{})
	}
	type bad struct {
		schema  uint64
		records []byte
		code    torpor.Code
		want    string
	}
	var all []bad
	for schema, order := range orders {
		got, err := run(abi.OpLoad, schema, build("", order...))
		if want := `{"id":"1","list":"list","title":"title","owner":{"given":"given","family":"family"},"date":"date","time":"time","priority":1,"done":true,"tags":[]}`; err != nil || !strings.Contains(string(got), want) {
			t.Fatalf("schema %d, members in another order: %s, %v", schema, got, err)
		}
		all = append(all,
			bad{schema, build("eu", order...), torpor.CodeUnsupported, "partition"},
			bad{schema, record.AppendNull(record.AppendBytes(record.AppendText(record.AppendRecord(nil), ""), "1")), torpor.CodeUnsupported, "text as its key"},
			bad{schema, build("", order[1:]...), torpor.CodeCorrupt, "each once"},
			bad{schema, build("", append(order[1:], "list")...), torpor.CodeCorrupt, "each once"},
			bad{schema, build("", append(order, "list")...), torpor.CodeCorrupt, "each once"},
			bad{schema, build("", append(order, "colour")...), torpor.CodeUnsupported, `no "colour"`},
			bad{schema, record.AppendNull(record.AppendText(record.AppendText(record.AppendRecord(nil), ""), "1")), torpor.CodeCorrupt, "a map expected"},
			bad{schema, with("done", []byte{1}, func() []byte { return build("", order...) }), torpor.CodeCorrupt, "true or false expected"},
			bad{schema, with("tags", record.AppendText(record.AppendArray(nil, 1), "\xff"), func() []byte { return build("", order...) }), torpor.CodeCorrupt, "not UTF-8"},
		)
		for _, name := range order {
			if name == "tags" || name == "owner" || name == "priority" || name == "done" {
				continue
			}
			all = append(all,
				bad{schema, with(name, text("12345678\xff"), func() []byte { return build("", order...) }), torpor.CodeCorrupt, "not UTF-8"},
				bad{schema, with(name, []byte{1}, func() []byte { return build("", order...) }), torpor.CodeCorrupt, "a text string expected"})
		}
	}
	for _, o := range []struct {
		owner []byte
		code  torpor.Code
		want  string
	}{
		{owner("given"), torpor.CodeCorrupt, "an owner has given and family, each once"},
		{owner("given", "given"), torpor.CodeCorrupt, "an owner has given and family, each once"},
		{owner("given", "family", "family"), torpor.CodeCorrupt, "an owner has given and family, each once"},
		{owner("given", "middle"), torpor.CodeUnsupported, `no "middle"`},
		{text("Ada"), torpor.CodeCorrupt, "a map expected"},
	} {
		all = append(all, bad{2, with("owner", o.owner, func() []byte { return build("", orders[2]...) }), o.code, o.want})
	}
	for _, c := range all {
		for _, op := range []string{abi.OpLoad, abi.OpInspect, abi.OpMigrate} {
			_, err := run(op, c.schema, c.records)
			var e *torpor.Error
			if !errors.As(err, &e) || e.Code != c.code || !strings.Contains(e.Msg, c.want) || !strings.HasPrefix(e.Path, `record 1, key "1"`) {
				t.Errorf("%s of %x: %v, want %s", op, c.records, err, c.want)
			}
		}
	}
	for _, op := range []string{abi.OpLoad, abi.OpInspect, abi.OpMigrate} {
		if _, err := run(op, 3, nil); !errors.Is(err, abi.ErrVersion) {
			t.Errorf("%s of schema 3: %v", op, err)
		}
	}
}

func TestUnknownSetting(t *testing.T) {
	for _, op := range []string{abi.OpSave, abi.OpLoad, abi.OpInspect, abi.OpMigrate} {
		h := torportest.Host{Call: abi.Call{Op: op, Schema: 2, From: 1, To: 2, Settings: map[string]any{"indent": 2}}}
		_, err := h.Run(todo{})
		var e *torpor.Error
		if !errors.As(err, &e) || e.Code != torpor.CodeUnsupported || e.Path != "settings.indent" {
			t.Errorf("%s: %v", op, err)
		}
	}
}

// Whatever is saved comes back with the same records, and whatever is loaded can be saved.
func FuzzSave(f *testing.F) {
	f.Add(small(f))
	f.Add(serviceFile(f, nil))
	f.Add([]byte(`{"format":"todo","schema":2}` + "\n" + `{"id":"\ud800\u00zz` + "\n"))
	f.Fuzz(func(t *testing.T, native []byte) {
		records, err := torportest.Save(todo{}, native)
		if err != nil {
			var e *torpor.Error
			if !errors.As(err, &e) || e.Code == torpor.CodeInternal {
				t.Fatal(err)
			}
			return
		}
		back, err := torportest.Load(todo{}, records)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := torportest.Save(todo{}, back); err != nil || !bytes.Equal(again, records) {
			t.Fatalf("%q became %q, %v", native, back, err)
		}
	})
}

func FuzzLoad(f *testing.F) {
	records, err := torportest.Save(todo{}, small(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(records)
	f.Fuzz(func(t *testing.T, records []byte) {
		native, err := torportest.Load(todo{}, records)
		if err != nil {
			if strings.Contains(err.Error(), "panicked") {
				t.Fatal(err)
			}
			return
		}
		// Keys need not ascend in records that came from elsewhere; all else must be as save makes it.
		if _, err := torportest.Save(todo{}, native); err != nil && !strings.Contains(err.Error(), "ids ascend") {
			t.Fatalf("%q: %v", native, err)
		}
	})
}
