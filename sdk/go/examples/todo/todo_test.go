package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
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
		ID       string   `json:"id"`
		List     string   `json:"list"`
		Title    string   `json:"title"`
		Assignee string   `json:"assignee"`
		Due      string   `json:"due"`
		Priority uint64   `json:"priority"`
		Done     bool     `json:"done"`
		Tags     []string `json:"tags"`
	}
	serviceHeader struct {
		Format string `json:"format"`
		Schema int    `json:"schema"`
	}
	serviceTrailer struct {
		Tasks int `json:"tasks"`
	}
)

func serviceFile(t testing.TB, tasks []serviceTask) []byte {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	rows := []any{serviceHeader{"todo", 1}}
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
	torportest.RoundTrip(t, todo{}, serviceFile(t, nil))
	var tasks []serviceTask
	for i, s := range texts() {
		tasks = append(tasks, serviceTask{ID: fmt.Sprintf("%04d%s", i, s), List: s, Title: "to " + s, Assignee: s, Due: s,
			Priority: []uint64{0, 9, 10, math.MaxUint64}[i%4], Done: i%2 == 0, Tags: append([]string{}, []string{s, "b", s + s}[:i%4%3]...)})
	}
	records := torportest.RoundTrip(t, todo{}, serviceFile(t, tasks))

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
			case "assignee":
				got.Assignee = string(p.Text())
			case "due":
				got.Due = string(p.Text())
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

func small(t testing.TB) []byte {
	return serviceFile(t, []serviceTask{
		{ID: "1", List: "home", Title: "Buy \"milk\"", Assignee: "Ada", Due: "2026-05-01T18:00", Priority: 2, Tags: []string{"shop", "fo<od"}},
		{ID: "2", Done: true, Tags: []string{}},
	})
}

// A file that was cut anywhere is known as such.
func TestEveryCut(t *testing.T) {
	native := small(t)
	for n := range native {
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
			if back, err := torportest.Load(todo{}, records); err != nil || !bytes.Equal(back, bad) {
				t.Fatalf("byte %d to %q: load gives %q, %v", i, c, back, err)
			}
		}
	}
}

func TestBadFiles(t *testing.T) {
	good := string(small(t))
	const start = `{"format"`
	for _, c := range []struct {
		change func(string) string
		code   torpor.Code
		at     string // what stands where the error is; "" is the end of the file
		want   string
	}{
		{func(string) string { return "" }, torpor.CodeCorrupt, "", "the file is empty"},
		{func(string) string { return "hello\n" }, torpor.CodeCorrupt, "hello", "no file of the to-do service"},
		{replace(`"schema":1`, `"schema":2`), torpor.CodeVersion, start, "a file of schema 2; this serializer reads schema 1"},
		{replace(`"list":"home"`, `"list": "home"`), torpor.CodeCorrupt, `,"list": "home"`, `not as the to-do service writes it: ",\"list\": \"home\"`},
		{replace(`fo\u003cod`, `fo<od`), torpor.CodeCorrupt, "fo<od", `not as the to-do service writes it: "fo<od`},
		{replace(`"priority":2`, `"priority":02`), torpor.CodeCorrupt, "02,", `"02,`},
		{replace(`"priority":2`, `"priority":18446744073709551616`), torpor.CodeCorrupt, "18446744073709551616", "not as the to-do service writes it"},
		{replace(`"id":"2"`, `"id":"0"`), torpor.CodeCorrupt, `{"id":"0"`, `task "0" comes after "1"; ids ascend`},
		{replace(`{"id":"2"`, ` {"id":"2"`), torpor.CodeCorrupt, ` {"id":"2"`, `not as the to-do service writes it: " {\"id\"`},
		{replace(`"id":"2"`, `"id":"1"`), torpor.CodeCorrupt, `{"id":"1","list":""`, `task "1" comes after "1"; ids ascend`},
		{replace(`{"tasks":2}`, `{"tasks":3}`), torpor.CodeCorrupt, "", "says that it has 3 tasks but has 2"},
		{replace(`{"tasks":2}`+"\n", ""), torpor.CodeCorrupt, "", "ends without the line that counts the tasks"},
		{func(s string) string { return s + "x" }, torpor.CodeCorrupt, "x", "more after the line that counts"},
		{replace(`"fo\u`, strings.Repeat(`"",`, maxTags-1)+`"fo\u`), torpor.CodeTooLarge, `,"fo`, "more than 1000 tags"},
	} {
		bad := c.change(good)
		offset := len(bad)
		if c.at != "" {
			offset = strings.LastIndex(bad, c.at)
		}
		_, err := torportest.Save(todo{}, []byte(bad))
		var e *torpor.Error
		if !errors.As(err, &e) || e.Code != c.code || !strings.Contains(e.Msg, c.want) || e.Offset != uint64(offset) {
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

// Records that this serializer did not write are refused, not guessed at.
func TestBadRecords(t *testing.T) {
	members := map[string][]byte{"priority": record.AppendUint(nil, 1), "done": record.AppendBool(nil, true), "tags": record.AppendArray(nil, 0)}
	for _, name := range []string{"list", "title", "assignee", "due"} {
		members[name] = record.AppendText(nil, name)
	}
	order := []string{"tags", "list", "title", "due", "assignee", "priority", "done"}
	build := func(partition string, names ...string) []byte {
		b := record.AppendText(record.AppendText(record.AppendRecord(nil), partition), "1")
		b = record.AppendMap(b, len(names))
		for _, n := range names {
			b = append(record.AppendText(b, n), members[n]...)
		}
		return b
	}
	got, err := torportest.Load(todo{}, build("", order...))
	if want := `{"id":"1","list":"list","title":"title","assignee":"assignee","due":"due","priority":1,"done":true,"tags":[]}`; err != nil || !strings.Contains(string(got), want) {
		t.Fatalf("members in another order: %s, %v", got, err)
	}
	members["colour"] = record.AppendNull(nil)
	bytesKey := record.AppendNull(record.AppendBytes(record.AppendText(record.AppendRecord(nil), ""), "1"))
	for _, c := range []struct {
		records []byte
		code    torpor.Code
		want    string
	}{
		{build("eu", order...), torpor.CodeUnsupported, "partition"},
		{bytesKey, torpor.CodeUnsupported, "text as its key"},
		{build("", order[1:]...), torpor.CodeCorrupt, "each once"},
		{build("", append(order[1:], "list")...), torpor.CodeCorrupt, "each once"},
		{build("", append(order, "list")...), torpor.CodeCorrupt, "each once"},
		{build("", append(order, "colour")...), torpor.CodeUnsupported, `no "colour"`},
		{record.AppendNull(record.AppendText(record.AppendText(record.AppendRecord(nil), ""), "1")), torpor.CodeCorrupt, "a map expected"},
	} {
		for name, f := range map[string]func(torpor.Serializer, []byte) ([]byte, error){"load": torportest.Load, "inspect": torportest.Inspect} {
			_, err := f(todo{}, c.records)
			var e *torpor.Error
			if !errors.As(err, &e) || e.Code != c.code || !strings.Contains(e.Msg, c.want) || !strings.HasPrefix(e.Path, `record 1, key "1"`) {
				t.Errorf("%s of %x: %v, want %s", name, c.records, err, c.want)
			}
		}
	}
	wrong := bytes.Clone(build("", order...))
	wrong[len(wrong)-1] = 0x01 // done: 1
	if _, err := torportest.Load(todo{}, wrong); !errors.Is(err, abi.ErrCorrupt) || !strings.Contains(err.Error(), "true or false expected") {
		t.Errorf("%v", err)
	}
	for _, name := range []string{"list", "title", "assignee", "due", "tags"} {
		sound := members[name]
		if members[name] = record.AppendText(nil, "12345678\xff"); name == "tags" {
			members[name] = record.AppendText(record.AppendArray(nil, 1), "\xff")
		}
		if _, err := torportest.Load(todo{}, build("", order...)); !errors.Is(err, abi.ErrCorrupt) || !strings.Contains(err.Error(), "not UTF-8") {
			t.Errorf("%s: %v", name, err)
		}
		members[name] = sound
	}
	for _, op := range []string{abi.OpLoad, abi.OpInspect} {
		h := torportest.Host{Call: abi.Call{Op: op, Schema: 2}}
		if _, err := h.Run(todo{}); !errors.Is(err, abi.ErrVersion) {
			t.Errorf("%s of schema 2: %v", op, err)
		}
	}
}

// plain agrees with encoding/json about every byte at every place.
func TestPlain(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		s := make([]byte, random.IntN(30))
		for i := range s {
			if s[i] = byte('a' + random.IntN(26)); random.IntN(8) == 0 {
				s[i] = byte(random.IntN(256))
			}
		}
		want := 0
		for want < len(s) && s[want] < 0x80 {
			spelled, err := json.Marshal(string(s[want]))
			if err != nil {
				t.Fatal(err)
			}
			if len(spelled) != 3 {
				break
			}
			want++
		}
		if got := plain(s); got != want {
			t.Fatalf("plain(%q) is %d, want %d", s, got, want)
		}
	}
}

// Whatever is saved comes back as it was, and whatever is loaded can be saved.
func FuzzSave(f *testing.F) {
	f.Add(small(f))
	f.Add(serviceFile(f, nil))
	f.Add([]byte(firstRow + `{"id":"\ud800\u00zz` + "\n"))
	f.Fuzz(func(t *testing.T, native []byte) {
		records, err := torportest.Save(todo{}, native)
		if err != nil {
			var e *torpor.Error
			if !errors.As(err, &e) || e.Code == torpor.CodeInternal {
				t.Fatal(err)
			}
			return
		}
		if back, err := torportest.Load(todo{}, records); err != nil || !bytes.Equal(back, native) {
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
