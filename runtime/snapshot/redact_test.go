package snapshot_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// rec is a record; key is a string or []byte, value a CBOR item in its diagnostic notation.
type rec struct {
	partition string
	key       any
	value     string
}

// itemOf reads diagnostic notation: the part of it that these tests use.
func itemOf(t testing.TB, text string) []byte {
	t.Helper()
	b, rest := diag(t, text)
	if rest != "" {
		t.Fatalf("%q is left of %q", rest, text)
	}
	return b
}

func diag(t testing.TB, s string) (b []byte, rest string) {
	t.Helper()
	list := func(s string, open, closing byte) (items [][]byte, rest string) {
		s = strings.TrimLeft(s[1:], " ")
		for s[0] != closing {
			var one []byte
			one, s = diag(t, s)
			items = append(items, one)
			s = strings.TrimLeft(s, ",: ")
		}
		return items, s[1:]
	}
	switch {
	case s[0] == '[':
		items, rest := list(s, '[', ']')
		return append(record.AppendArray(nil, len(items)), bytes.Join(items, nil)...), rest
	case s[0] == '{':
		items, rest := list(s, '{', '}')
		return append(record.AppendMap(nil, len(items)/2), bytes.Join(items, nil)...), rest
	case s[0] == '"':
		text, rest, _ := strings.Cut(s[1:], `"`)
		return record.AppendText(nil, text), rest
	case s[0] == '\'':
		text, rest, _ := strings.Cut(s[1:], `'`)
		return record.AppendBytes(nil, text), rest
	case strings.HasPrefix(s, "true"):
		return record.AppendBool(nil, true), s[4:]
	}
	end := strings.IndexFunc(s, func(c rune) bool { return !strings.ContainsRune("-.0123456789", c) })
	if end < 0 {
		end = len(s)
	}
	number, rest := s[:end], s[end:]
	if strings.HasPrefix(rest, "(") {
		content, rest := list(rest, '(', ')')
		var tag uint64
		if _, err := fmt.Sscan(number, &tag); err != nil {
			t.Fatal(err)
		}
		return append(record.AppendTag(nil, tag), content[0]...), rest
	}
	if strings.Contains(number, ".") {
		var f float64
		if _, err := fmt.Sscan(number, &f); err != nil {
			t.Fatal(err)
		}
		return record.AppendFloat(nil, f), rest
	}
	var n int64
	if _, err := fmt.Sscan(number, &n); err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return record.AppendInt(nil, n), rest
}

// stateOfRecords is a state file of records.
func stateOfRecords(t testing.TB, service, part, compression string, records ...rec) *statefile.File {
	t.Helper()
	var data []byte
	for _, r := range records {
		data = append(appendHead(data, r), itemOf(t, r.value)...)
	}
	return stateFile(t, service, part, compression, data)
}

// stateWith is one of a record with another value.
func stateWith(t testing.TB, r rec, value []byte) *statefile.File {
	t.Helper()
	return stateFile(t, "s", "store", "", append(appendHead(nil, r), value...))
}

// appendHead appends all of a record but its value.
func appendHead(data []byte, r rec) []byte {
	data = record.AppendText(record.AppendRecord(data), r.partition)
	if key, ok := r.key.(string); ok {
		return record.AppendText(data, key)
	}
	return record.AppendBytes(data, r.key.([]byte))
}

func stateFile(t testing.TB, service, part, compression string, data []byte) *statefile.File {
	t.Helper()
	name := "json"
	if service == "moto" {
		name = "pickle"
	}
	var file bytes.Buffer
	w, err := statefile.NewWriter(&file, statefile.Header{
		Service: service, Part: part, Generation: 7, Created: time.Unix(1_700_000_000, 123).UTC(), Compression: compression,
		Serializer: statefile.Serializer{Name: name, Version: "1.2.3", Digest: sha256.Sum256([]byte("module")), Schema: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	b := record.Batch{Data: data}
	if b.Refs, err = new(record.Scanner).Scan(b.Data, nil); err != nil {
		t.Fatal(err)
	}
	if b.Len() > 0 {
		if err := w.WriteBatch(&b); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := statefile.Open(bytes.NewReader(file.Bytes()), int64(file.Len()), service+"/"+part)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func snapshotOfFiles(t testing.TB, files ...*statefile.File) *snapshot.Snapshot {
	t.Helper()
	var parts []snapshot.Part
	for _, f := range files {
		parts = append(parts, snapshot.Part{Service: f.Header().Service, Name: f.Header().Part, File: f})
	}
	s, err := snapshot.New(snapshot.Info{Name: "base", Version: 3, Created: time.Unix(1_700_000_001, 0).UTC(), Torpor: "0.1"}, parts, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// recordsIn are the records of a part, in words.
func recordsIn(t testing.TB, s *snapshot.Snapshot, service, part string) []string {
	t.Helper()
	p, ok := s.Part(service, part)
	if !ok {
		t.Fatalf("there is no part %s/%s", service, part)
	}
	if err := p.File.Verify(t.Context()); err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for r := p.File.Records(); ; {
		b, err := r.ReadBatch()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		for i := range b.Len() {
			text, err := cbor.Diagnose(b.Record(i))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, text)
		}
	}
}

func rulesOf(t testing.TB, texts ...string) (rules []snapshot.Rule) {
	t.Helper()
	for _, text := range texts {
		r, err := snapshot.ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		if r.String() != text {
			t.Errorf("%q is %q", text, r)
		}
		rules = append(rules, r)
	}
	return rules
}

func redact(t testing.TB, s *snapshot.Snapshot, o snapshot.RedactOptions, rules ...string) (*snapshot.Snapshot, []snapshot.Redacted) {
	t.Helper()
	if o.Folder == "" {
		o.Folder = t.TempDir()
	}
	out, done, err := snapshot.Redact(t.Context(), s, rulesOf(t, rules...), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := out.Close(); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(o.Folder); err != nil || len(left) > 0 {
			t.Errorf("%v are left: %v", left, err)
		}
	})
	if len(done) != len(rules) {
		t.Fatalf("%d rules did something of %d", len(done), len(rules))
	}
	return out, done
}

func jsonNesting(statefile.Serializer) string { return "/" }

// usersState is a state as the serializer json writes it.
func usersState(t testing.TB) *statefile.File {
	return stateOfRecords(t, "users", "store", "",
		rec{"", "", `27(["object"])`},
		rec{"", "/version", `3`},
		rec{"", "/users", `27(["object"])`},
		rec{"", "/users/ann", `{"name": "Ann", "password": "secret", "age": 40, "keys": [{"password": "other"}, "secret"]}`},
		rec{"", "/users/bob", `{"name": "Bob", "password": 'secret', "since": 0("2026-01-01T00:00:00Z"), "big": 2('abc')}`},
		rec{"000000000000/eu-west-1", "/users/bob/files", `27(["array"])`},
		rec{"000000000000/eu-west-1", "/users/bob/files/id=7", `{"id": 7, "body": 262('{"password" : "secret", "n": 1e5}')}`},
		rec{"", "/users2", `"kept"`},
	)
}

func TestRedactDrops(t *testing.T) {
	all := recordsIn(t, snapshotOfFiles(t, usersState(t)), "users", "store")
	without := func(at ...int) (left []string) {
		for i, r := range all {
			if !slices.Contains(at, i) {
				left = append(left, r)
			}
		}
		return left
	}
	for _, c := range []struct {
		rule    string
		want    []string
		records uint64
		dropped uint64
	}{
		{"/users/ann=drop", without(3), 1, 1},
		{"users:/users/ann=drop", without(3), 1, 1},
		{"users/store:/users/ann=drop", without(3), 1, 1},
		{"u*/s*:/users/ann=drop", without(3), 1, 1},
		{"*:/users/ann=drop", without(3), 1, 1},
		{"other:/users/ann=drop", all, 0, 0},
		{"users/backend:/users/ann=drop", all, 0, 0},
		// What is inside of a record goes with it, and what only begins as it does not.
		{"/users=drop", without(2, 3, 4, 5, 6), 1, 5},
		{"/users/*=drop", without(3, 4, 5, 6), 2, 4},
		{"/users/**=drop", without(3, 4, 5, 6), 2, 4},
		{"/users*=drop", without(2, 3, 4, 5, 6, 7), 2, 6},
		{"/users/???=drop", without(3, 4, 5, 6), 2, 4},
		{"**/id=7=drop", without(6), 1, 1},
		{"000000000000/** **=drop", without(5, 6), 1, 2},
		{" /users/ann=drop", without(3), 1, 1},
		{"*=drop", without(0, 1, 2, 3, 4, 5, 6, 7), 1, 8},
		{"/USERS=drop", all, 0, 0},
		{`\/users/ann=drop`, without(3), 1, 1},
		{`/users/\*=drop`, all, 0, 0},
	} {
		t.Run(c.rule, func(t *testing.T) {
			out, done := redact(t, snapshotOfFiles(t, usersState(t)), snapshot.RedactOptions{Nesting: jsonNesting}, c.rule)
			if got := recordsIn(t, out, "users", "store"); !slices.Equal(got, c.want) {
				t.Errorf("left are\n%s\nand not\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
			if d := done[0]; d.Records != c.records || d.Dropped != c.dropped || d.Hashed != 0 || d.Idle() != (c.dropped == 0) || d.Rule.String() != c.rule {
				t.Errorf("%+v", d)
			}
		})
	}
	// Keys that are flat have nothing inside of them.
	out, _ := redact(t, snapshotOfFiles(t, usersState(t)), snapshot.RedactOptions{}, "/users=drop")
	if got := recordsIn(t, out, "users", "store"); !slices.Equal(got, without(2)) {
		t.Errorf("%q", got)
	}
}

// TestRedactPickles: what names classes, functions and records stays.
func TestRedactPickles(t *testing.T) {
	const value = `[3, "t0", 59905([27(["moto.Topic", "x"]), {"a": 59910(["os.getenv", "x"]), "b": 59914(["C", "x"]), "c": 59904(["$", 0, 236]), "d": 59909("m.f"), "e": 59927(["m", "x"]), "f": 59917('x'), "g": 59911([59909("m.f"), ["x"]])}])]`
	const want = `["", "k", [3, "t0", 59905([27(["moto.Topic", <>]), {"a": 59910(["os.getenv", <>]), "b": 59914(["C", <>]), "c": 59904(["$", 0, 236]), "d": 59909("m.f"), "e": 59927(["m", "x"]), "f": 59917(<>), "g": 59911([59909("m.f"), [<>]])}])]]`
	out, _ := redact(t, snapshotOfFiles(t, stateOfRecords(t, "moto", "backend", "", rec{"", "k", value})), snapshot.RedactOptions{}, "**#/2/**=hash")
	if got := hashes.ReplaceAllString(recordsIn(t, out, "moto", "backend")[0], "<>"); got != want {
		t.Errorf("%s\nand not\n%s", got, want)
	}
	// Of another serializer such tags are nothing in particular.
	out, _ = redact(t, snapshotOfFiles(t, stateOfRecords(t, "s", "store", "", rec{"", "k", `[59909("secret"), 59910(["secret"])]`})), snapshot.RedactOptions{}, "**=hash")
	if got := recordsIn(t, out, "s", "store")[0]; strings.Contains(got, "secret") {
		t.Errorf("%s", got)
	}
}

// hashes is what texts and byte strings become, in the notation of CBOR, and what stands for it in these tests.
var hashes = regexp.MustCompile(`"(hash:[0-9a-f]{16}\.*|<[^"]*>)"|h'(686173683a([36][0-9a-f]){16}(2e)*|3c([0-9a-f]{2})*3e)'`)

func TestRedactValues(t *testing.T) {
	// In want <x> stands for what a text or byte string x becomes.
	for _, c := range []struct {
		name, rule, value, want string
		dropped, hashed         uint64
	}{
		{"all", "**=hash", `{"a": "x", "b": [1, 'y', true, 1.5, -7], "c": {"x": "x"}}`, `{"a": "<x>", "b": [1, '<y>', true, 1.5, -7], "c": {"x": "<x>"}}`, 0, 3},
		{"a text", "**=hash", `"x"`, `"<x>"`, 0, 1},
		{"a number", "**=hash", `1`, `1`, 0, 0},
		{"a member", "**#/a=hash", `{"a": "x", "b": "x", "c": {"a": "x"}}`, `{"a": "<x>", "b": "x", "c": {"a": "x"}}`, 0, 1},
		{"below a member", "**#/a=hash", `{"a": {"b": ["x", {"a": 'x'}]}}`, `{"a": {"b": ["<x>", {"a": '<x>'}]}}`, 0, 2},
		{"members by pattern", "**#/*_key=hash", `{"a_key": "x", "b_key": "y", "key": "x"}`, `{"a_key": "<x>", "b_key": "<y>", "key": "x"}`, 0, 2},
		{"at any depth", "**#/**/a=hash", `{"a": "x", "b": [{"a": "x"}, {"b": "x"}]}`, `{"a": "<x>", "b": [{"a": "<x>"}, {"b": "x"}]}`, 0, 2},
		{"an element", "**#/b/1=hash", `{"b": ["x", "y", "z"]}`, `{"b": ["x", "<y>", "z"]}`, 0, 1},
		{"all elements", "**#/b/*/k=hash", `{"b": [{"k": "x"}, {"k": "y"}]}`, `{"b": [{"k": "<x>"}, {"k": "<y>"}]}`, 0, 2},
		{"escaped", "**#/a~1b/c~0d=hash", `{"a/b": {"c~d": "x"}}`, `{"a/b": {"c~d": "<x>"}}`, 0, 1},
		{"keys that are no text", "**#/7/6162=hash", `{7: {'ab': "x", -1: "x"}, 1.5: "x"}`, `{7: {'ab': "<x>", -1: "x"}, 1.5: "x"}`, 0, 1},
		{"a byte key by its text", "**#/-1/ab=hash", `{-1: {'ab': "x"}}`, `{-1: {'ab': "<x>"}}`, 0, 1},
		{"through a tag", "**#/1/a=hash", `59905([27(["T"]), {"a": "x"}])`, `59905([27(["T"]), {"a": "<x>"}])`, 0, 1},
		{"names of types stay", "**=hash", `27(["T", "x"])`, `27(["T", "<x>"])`, 0, 1},
		{"dates and numbers stay", "**=hash", `[0("2026"), 2('abc'), 3('abc'), 32("x")]`, `[0("2026"), 2('abc'), 3('abc'), 32("<x>")]`, 0, 1},
		{"a member goes", "**#/a=drop", `{"a": "x", "b": "y"}`, `{"b": "y"}`, 1, 0},
		{"the only one", "**#/a=drop", `{"a": "x"}`, `{}`, 1, 0},
		{"elements go", "**#/*=drop", `["x", 1]`, `[]`, 2, 0},
		{"at any depth they go", "**#/**/a=drop", `{"a": {"a": 1}, "b": [{"a": 1, "c": 2}]}`, `{"b": [{"c": 2}]}`, 2, 0},
		{"nothing there", "**#/z=drop", `{"a": "x"}`, `{"a": "x"}`, 0, 0},
		{"JSON as it was spelled", "**#/b/*=hash", `{"b": 262('{ "a": "x", "n": 1e5, "f": 1.0, "o": [] }')}`, `{"b": {"a": "<x>", "n": 262('1e5'), "f": 1.0, "o": []}}`, 0, 1},
		{"JSON that has it not", "**#/b/z=hash", `{"b": 262('{ "a": "x" }')}`, `{"b": 262('{ "a": "x" }')}`, 0, 0},
		{"JSON, all of it", "**=hash", `[262('"\u0061"'), 262('1e5'), 262('["x"]')]`, `["<a>", 262('1e5'), ["<x>"]]`, 0, 2},
		{"JSON, dropped from", "**#/b/a=drop", `{"b": 262('{ "a": "x", "n": 2 }')}`, `{"b": {"n": 2}}`, 1, 0},
		{"JSON that is none", "**#/b/a=drop", `{"b": 262('{ "a": ')}`, `{"b": "<x>"}`, 0, 1},
		{"JSON beside it", "**#/b/a=drop", `{"c": 262('{ "a": ')}`, `{"c": 262('{ "a": ')}`, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, done := redact(t, snapshotOfFiles(t, stateOfRecords(t, "s", "store", "", rec{"", "k", c.value})), snapshot.RedactOptions{}, c.rule)
			got := recordsIn(t, out, "s", "store")[0]
			want, err := cbor.Diagnose(append([]byte{0x83, 0x60, 0x61, 'k'}, itemOf(t, c.want)...))
			if err != nil {
				t.Fatal(err)
			}
			if got, want := hashes.ReplaceAllString(got, "<>"), hashes.ReplaceAllString(want, "<>"); got != want {
				t.Errorf("%s\nand not\n%s", got, want)
			}
			if d := done[0]; d.Records != 1 || d.Dropped != c.dropped || d.Hashed != c.hashed {
				t.Errorf("%+v; want %d dropped and %d hashed", d, c.dropped, c.hashed)
			}
		})
	}
}

// TestRedactHashes: equal values of one export become equal, those of two exports do not, and nothing of them is left.
func TestRedactHashes(t *testing.T) {
	long := strings.Repeat("secret", 30)
	files := func() *snapshot.Snapshot {
		return snapshotOfFiles(t,
			stateOfRecords(t, "a", "store", statefile.CompressionZstd, rec{"", "1", `"secret"`}, rec{"", "2", `"other"`}, rec{"", "3", `'secret'`}, rec{"", "4", `"` + long + `"`}),
			stateOfRecords(t, "b", "store", "", rec{"p", "1", `["secret"]`}),
		)
	}
	texts := func() (all []string) {
		s := files()
		out, _ := redact(t, s, snapshot.RedactOptions{}, "**=hash")
		for _, service := range []string{"a", "b"} {
			all = append(all, recordsIn(t, out, service, "store")...)
		}
		h, before := out.Parts[0].File.Header(), s.Parts[0].File.Header()
		if h != before || out.Info != s.Info {
			t.Errorf("%+v became %+v", before, h)
		}
		return all
	}
	one, two := texts(), texts()
	hash := regexp.MustCompile(`hash:[0-9a-f]{16}`)
	secret := hash.FindString(one[0])
	if secret == "" || hash.FindString(one[1]) == secret || !strings.Contains(one[2], fmt.Sprintf("%x", secret)) || !strings.Contains(one[4], secret) {
		t.Errorf("%q", one)
	}
	if secret == hash.FindString(two[0]) {
		t.Error("another export has the same hashes")
	}
	if !strings.Contains(one[3], strings.Repeat(".", 129-len(secret))+`"`) {
		t.Errorf("a long text became short: %s", one[3])
	}
	for _, text := range one {
		if strings.Contains(text, "ecre") || strings.Contains(text, fmt.Sprintf("%x", "secret")) {
			t.Errorf("%s", text)
		}
	}
}

// TestRedactObjects: objects as the service S3 has them.
func TestRedactObjects(t *testing.T) {
	s3 := stateOfRecords(t, "s3", "store", "",
		rec{"000000000000/us-east-1", "private", `{"created": 1}`},
		rec{"000000000000/us-east-1", "private/a.pem", `{"size": 3, "md5": 'abc', "meta": {"owner": "ann"}, "body": 'key'}`},
		rec{"000000000000/us-east-1", []byte("private/\xff.pem"), `{"size": 3, "body": 'key'}`},
		rec{"000000000000/eu-west-1", "public/a.txt", `{"size": 3, "meta": {"owner": "ann"}, "tags": {"k": "v"}, "body": 'txt'}`},
	)
	moto := stateOfRecords(t, "sns", "backend", "", rec{"", "arn:aws:sns:x", `"x"`})
	s := snapshotOfFiles(t, s3, moto)
	var seen []uint64
	out, done := redact(t, s, snapshot.RedactOptions{Progress: func(done, total uint64) {
		if total != 5 {
			t.Errorf("of %d", total)
		}
		seen = append(seen, done)
	}}, "s3:**.pem=drop", "s3:public/**#/meta/*=hash", "s3:**#/tags=drop", "s3:private/b.pem=drop", "arn:aws:sns:*=drop", "s3/store:7075626c6963=drop")
	got := recordsIn(t, out, "s3", "store")
	if len(got) != 2 || !strings.Contains(got[0], `"private"`) || !strings.Contains(got[1], "public/a.txt") || strings.Contains(got[1], "ann") || strings.Contains(got[1], "tags") || !strings.Contains(got[1], "h'747874'") {
		t.Errorf("%q", got)
	}
	for i, want := range []snapshot.Redacted{{Records: 2, Dropped: 2}, {Records: 1, Hashed: 1}, {Records: 2, Dropped: 1}, {}, {}, {}} {
		want.Rule = done[i].Rule
		if d := done[i]; d.Records != want.Records || d.Dropped != want.Dropped || d.Hashed != want.Hashed || d.Idle() != (i > 2) {
			t.Errorf("%q: %+v", d.Rule, d)
		}
	}
	if !slices.IsSorted(seen) || len(seen) < 2 || seen[len(seen)-1] != 5 {
		t.Errorf("progress: %d", seen)
	}
	// What no rule is about is not written anew.
	if p, _ := out.Part("sns", "backend"); p.File != moto {
		t.Error("a part that no rule is about is another file")
	}
	// A byte key is called by its bytes in hexadecimal, too.
	hex, _ := redact(t, s, snapshot.RedactOptions{}, "s3:707269766174652fff*=drop", "*:arn:aws:sns:*=drop", `s3:000000000000/eu-west-1 **=drop`)
	if got := recordsIn(t, hex, "s3", "store"); len(got) != 2 {
		t.Errorf("%q", got)
	}
	if got := recordsIn(t, hex, "sns", "backend"); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

// TestRedactInOrder: each rule sees what those before it have left.
func TestRedactInOrder(t *testing.T) {
	s := snapshotOfFiles(t, stateOfRecords(t, "s", "store", "", rec{"", "k", `{"a": "x", "b": "y", "c": "z", "d": "w"}`}))
	out, done := redact(t, s, snapshot.RedactOptions{}, "k#/a=drop", "other#/b=drop", "k#/b=hash", "k#/a=hash", "k#/c=drop")
	if got := hashes.ReplaceAllString(recordsIn(t, out, "s", "store")[0], "<>"); got != `["", "k", {"b": <>, "d": "w"}]` {
		t.Errorf("%s", got)
	}
	if !done[3].Idle() || !done[1].Idle() || done[0].Idle() || done[2].Idle() || done[4].Idle() {
		t.Errorf("%+v", done)
	}
}

func TestRulesThatAreNone(t *testing.T) {
	for _, c := range []struct{ text, says string }{
		{"", "what is done"}, {"secret", "what is done"}, {"a=", `""`}, {"a=DROP", `"DROP"`}, {"a=hash ", `"hash "`},
		{":a=drop", "empty"}, {"/b:a=drop", "empty"}, {"s/:a=drop", "empty"},
		{`a\=drop`, `behind its last`}, {`a#/b\=drop`, `behind its last`},
		{"a#/**=drop", "cannot end in **"}, {"a#/b/**=drop", "cannot end in **"},
		{"a#" + strings.Repeat("/b", snapshot.MaxRuleSteps+1) + "=drop", "60 steps"},
		{strings.Repeat("a", snapshot.MaxRuleBytes) + "=drop", "4096"}, {"\xff=drop", "UTF-8"},
	} {
		_, err := snapshot.ParseRule(c.text)
		if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "a rule is") || len(err.Error()) > 500 {
			t.Errorf("%.50q: %v; want an error that says %q", c.text, err, c.says)
		}
	}
	rulesOf(t, "a#"+strings.Repeat("/b", snapshot.MaxRuleSteps)+"=hash", "=drop", "a#/**=hash", "a=b=drop", `.topics["t0"][#17]=drop`)
}

func TestRedactFailures(t *testing.T) {
	s := snapshotOfFiles(t, usersState(t))
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	folder := t.TempDir()
	if _, _, err := snapshot.Redact(cancelled, s, rulesOf(t, "**=hash"), snapshot.RedactOptions{Folder: folder}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, _, err := snapshot.Redact(t.Context(), s, make([]snapshot.Rule, snapshot.MaxRules+1), snapshot.RedactOptions{}); err == nil || !strings.Contains(err.Error(), "1000") {
		t.Errorf("many rules: %v", err)
	}
	// Short texts grow: a record may grow beyond what a record may have.
	large := record.AppendText(record.AppendBytes(record.AppendArray(nil, 2), make([]byte, record.DefaultMaxBytes-24)), "x")
	text := rec{"", "k", `1`}
	f := stateWith(t, text, large)
	if _, _, err := snapshot.Redact(t.Context(), snapshotOfFiles(t, f), rulesOf(t, "**#/1=hash"), snapshot.RedactOptions{Folder: folder}); !errors.Is(err, abi.ErrTooLarge) {
		t.Errorf("a record that grows too large: %v", err)
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
		t.Errorf("%v are left: %v", left, err)
	}
	out, done, err := snapshot.Redact(t.Context(), s, make([]snapshot.Rule, 1), snapshot.RedactOptions{})
	if err != nil || !done[0].Idle() || len(recordsIn(t, out, "users", "store")) != 8 {
		t.Errorf("the zero rule: %+v, %v", done, err)
	}
}

func FuzzRule(f *testing.F) {
	for _, text := range []string{"s3/store:**/a?=drop", `k\:#/a~1/**/b=hash`, "=drop"} {
		f.Add(text, []byte("\xa2\x61a\x61b\xd9\x01\x06\x47{\"a\":1}"))
	}
	f.Fuzz(func(t *testing.T, text string, value []byte) {
		rule, err := snapshot.ParseRule(text)
		if err != nil {
			return
		}
		data := append(record.AppendText(record.AppendText(record.AppendRecord(nil), ""), "k"), value...)
		if _, err := new(record.Scanner).Scan(data, nil); err != nil {
			return
		}
		file := stateWith(t, rec{"", "k", "1"}, value)
		out, _, err := snapshot.Redact(t.Context(), snapshotOfFiles(t, file), []snapshot.Rule{rule}, snapshot.RedactOptions{Nesting: jsonNesting})
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		if err := out.Parts[0].File.Verify(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
