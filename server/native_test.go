package server_test

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/remote/folder"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
	"github.com/torpor-run/torpor/runtime/vfs"
	"github.com/torpor-run/torpor/server"
)

// portable is records with a module that can be kept beside the states it wrote.
type portable struct{ records }

func (portable) Wasm() []byte { return []byte("records 1") } // what records.Digest is of

// beginNative starts a life with all that the native API needs, and where its snapshots are kept.
func beginNative(t *testing.T, fsys vfs.FS, change func(*server.Config)) (l *life, kept vfs.FS) {
	t.Helper()
	kept = vfs.NewMem()
	e := server.NewEvents(0)
	l = begin(t, fsys, func(l *life, cfg *runtime.Config) {
		cfg.Observer = e
		for i := range cfg.Services {
			cfg.Services[i].Parts[0].Serializer = portable{}
		}
		l.change = func(c *server.Config) {
			c.Events, c.Scratch, c.Saved = e, t.TempDir(), l.dir
			var err error
			if c.Snapshots, err = repository.Open(t.Context(), repository.Config{Remote: folder.Open(kept), Torpor: c.Version, Logger: slog.New(slog.DiscardHandler)}); err != nil {
				t.Fatal(err)
			}
			if change != nil {
				change(c)
			}
		}
	})
	t.Cleanup(func() {
		e.Close()
		l.end(t)
	})
	return l, kept
}

// put gives notes texts, by name.
func (l *life) put(t *testing.T, texts ...string) {
	t.Helper()
	for i := 0; i < len(texts); i += 2 {
		l.do(t, http.MethodPut, texts[i], texts[i+1]).wants(t, http.StatusOK, "")
	}
}

// decode reads the JSON of an answer with status.
func decode[T any](t *testing.T, a answer, status int) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), &v); err != nil || a.status != status {
		t.Errorf("%d %s %v, want %d", a.status, a.body, err, status)
	}
	return v
}

// lineOf reads the lines of an NDJSON answer.
func linesOf[T any](t *testing.T, a answer) (all []T) {
	t.Helper()
	if got := a.header.Get("Content-Type"); a.status != http.StatusOK || got != "application/x-ndjson" {
		t.Fatalf("%d %s %s", a.status, got, a.body)
	}
	for text := range strings.Lines(a.body) {
		var v T
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err, text)
		}
		all = append(all, v)
	}
	return all
}

func TestNativeServices(t *testing.T) {
	l, _ := beginNative(t, vfs.NewMem(), nil)
	all := decode[server.Services](t, l.do(t, http.MethodGet, "/_torpor/services", ""), 200)
	if len(all.Services) != 2 || all.Services[0].Name != "notes" || all.Services[1].Name != "more" {
		t.Errorf("services %+v", all)
	}
	if one := decode[server.ServiceHealth](t, l.do(t, http.MethodGet, "/_torpor/services/more", ""), 200); one.Name != "more" || len(one.Parts) != 1 {
		t.Errorf("service %+v", one)
	}
	if parts := decode[server.Parts](t, l.do(t, http.MethodGet, "/_torpor/services/notes/parts", ""), 200); len(parts.Parts) != 1 || parts.Parts[0].Name != "store" {
		t.Errorf("parts %+v", parts)
	}
	if p := decode[server.PartDetail](t, l.do(t, http.MethodGet, "/_torpor/services/notes/parts/store", ""), 200); p.Saved != nil || p.Status != "empty" {
		t.Errorf("before it was saved: %+v", p)
	}
	l.put(t, "/a", "1", "/b", "2")
	if h := decode[server.ServiceHealth](t, l.do(t, http.MethodPost, "/_torpor/services/notes/save", ""), 200); h.Parts[0].Generation != 1 || h.Parts[0].Status != "saved" {
		t.Errorf("saved: %+v", h)
	}
	p := decode[server.PartDetail](t, l.do(t, http.MethodGet, "/_torpor/services/notes/parts/store", ""), 200)
	if p.Saved == nil || p.Saved.Generation != 1 || p.Saved.Records != 2 || p.Saved.Serializer.Name != "records" || len(p.Saved.Partitions) != 1 ||
		p.Saved.Partitions[0].Records != 2 || p.Generation != 1 {
		t.Errorf("the part: %+v", p)
	}
	l.put(t, "/a", "3")
	if got := decode[server.Loaded](t, l.do(t, http.MethodPost, "/_torpor/services/notes/load", ""), 200); !got.Found || got.Name != "notes" {
		t.Errorf("loaded: %+v", got)
	}
	l.do(t, http.MethodGet, "/a", "").wants(t, 200, "1")
	if got := decode[server.Loaded](t, l.do(t, http.MethodPost, "/_torpor/services/more/load", ""), 200); got.Found {
		t.Errorf("loaded what was never saved: %+v", got)
	}
	decode[server.ServiceHealth](t, l.do(t, http.MethodPost, "/_torpor/services/notes/reset", ""), 200)
	l.do(t, http.MethodGet, "/a", "").wants(t, 404, "no note /a\n")

	for _, path := range []string{"/_torpor/services/none", "/_torpor/services/none/parts", "/_torpor/services/none/parts/store", "/_torpor/services/notes/parts/none",
		"/_torpor/services/none/parts/store/records", "/_torpor/services/notes/parts/none/records", "/_torpor/diff?service=none"} {
		if message, _ := l.do(t, http.MethodGet, path, "").fault(t, 404, "not_found"); !strings.Contains(message, "none") {
			t.Errorf("%s: %s", path, message)
		}
	}
	for _, action := range []string{"save", "load", "reset"} {
		l.do(t, http.MethodPost, "/_torpor/services/none/"+action, "").fault(t, 404, "not_found")
	}
	for _, path := range []string{"/_torpor/services", "/_torpor/services/notes", "/_torpor/services/notes/parts", "/_torpor/services/notes/parts/store",
		"/_torpor/services/notes/parts/store/records", "/_torpor/diff", "/_torpor/snapshots", "/_torpor/snapshots/seed", "/_torpor/snapshots/seed/export", "/_torpor/export"} {
		for _, query := range []string{"?no=1", "?%zz"} {
			l.do(t, http.MethodGet, path+query, "").fault(t, 400, "bad_request")
		}
	}
	l.notes.fail(errors.New("boom"), nil)
	l.put(t, "/a", "3")
	if message, _ := l.do(t, http.MethodPost, "/_torpor/services/notes/save", "").fault(t, 500, "internal"); !strings.Contains(message, "boom") {
		t.Errorf("a save that fails: %s", message)
	}
}

func TestNativeWithoutPersistence(t *testing.T) {
	l := begin(t, nil, nil)
	defer l.end(t)
	for _, action := range []string{"save", "load"} {
		if _, hint := l.do(t, http.MethodPost, "/_torpor/services/notes/"+action, "").fault(t, 409, "persistence_disabled"); hint == "" {
			t.Errorf("%s: what to do is not said", action)
		}
	}
	l.put(t, "/a", "1")
	decode[server.ServiceHealth](t, l.do(t, http.MethodPost, "/_torpor/services/notes/reset", ""), 200)
	decode[server.PartDetail](t, l.do(t, http.MethodGet, "/_torpor/services/notes/parts/store", ""), 200)
	l.do(t, http.MethodGet, "/_torpor/services/notes/parts/store/records", "").fault(t, 409, "persistence_disabled")
	l.do(t, http.MethodGet, "/_torpor/diff?from=saved&to=saved", "").fault(t, 409, "persistence_disabled")
	for _, call := range []string{"GET snapshots", "GET snapshots/seed", "POST snapshots/seed", "DELETE snapshots/seed", "POST snapshots/seed/load", "POST snapshots/seed/import",
		"GET snapshots/seed/export", "POST snapshots/gc", "POST snapshots/verify"} {
		method, path, _ := strings.Cut(call, " ")
		l.do(t, method, "/_torpor/"+path, "").fault(t, 409, "snapshots_disabled")
	}
}

const recordsPath = "/_torpor/services/notes/parts/store/records"

func keysOf(page server.Records) (keys []string) {
	for _, r := range page.Records {
		keys = append(keys, fmt.Sprint(r.Key))
	}
	return keys
}

func TestNativeRecords(t *testing.T) {
	l, _ := beginNative(t, vfs.NewMem(), nil)
	get := func(query string) server.Records {
		t.Helper()
		return decode[server.Records](t, l.do(t, http.MethodGet, recordsPath+query, ""), 200)
	}
	if page := get(""); len(page.Records) != 0 || page.Next != nil || page.More || page.Generation != 0 {
		t.Errorf("before anything is saved: %+v", page)
	}
	var want []string
	for i := range 250 {
		name := fmt.Sprintf("/n/%03d", i)
		want = append(want, name)
		l.put(t, name, "text "+name)
	}
	l.put(t, "/other", "x")
	want = append(want, "/other")
	l.do(t, http.MethodPost, "/_torpor/services/notes/save", "")

	// Page by page, of one generation however often it is saved meanwhile.
	var got []string
	page := get("")
	for n := 0; ; n++ {
		got = append(got, keysOf(page)...)
		if page.Generation != 1 || page.More != (page.Next != nil) {
			t.Errorf("page %d: generation %d, more %v, next %v", n, page.Generation, page.More, page.Next)
		}
		if page.Next == nil {
			break
		}
		if n == 0 {
			l.put(t, "/new", "y")
			l.do(t, http.MethodPost, "/_torpor/services/notes/save", "")
		}
		page = get("?cursor=" + *page.Next)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d records %v, want %d", len(got), got, len(want))
	}
	if page := get("?limit=1000"); page.Generation != 2 || len(page.Records) != 252 || page.Next != nil {
		t.Errorf("the newest: generation %d, %d records, next %v", page.Generation, len(page.Records), page.Next)
	}

	// Filters.
	page = get("?limit=2&prefix=/n/01")
	if keys := keysOf(page); !slices.Equal(keys, []string{"/n/010", "/n/011"}) || page.Next == nil {
		t.Errorf("by prefix: %v", keys)
	}
	page = get("?limit=20&prefix=/n/01&cursor=" + *page.Next)
	if keys := keysOf(page); len(keys) != 8 || keys[0] != "/n/012" || page.Next != nil || page.More {
		t.Errorf("the rest by prefix: %v, next %v", keys, page.Next)
	}
	if page := get("?partition="); len(page.Records) != server.DefaultPage {
		t.Errorf("the partition without a name: %d records", len(page.Records))
	}
	if page := get("?partition=000000000000/us-east-1"); len(page.Records) != 0 || page.Next != nil || page.Generation != 2 {
		t.Errorf("a partition that is not there: %+v", page)
	}

	// Values.
	page = get("?prefix=/other")
	if len(page.Records) != 1 || page.Records[0].Value == nil || *page.Records[0].Value != "x" || page.Records[0].Bytes != 2 || page.Records[0].Partition != "" {
		t.Errorf("a record: %+v", page)
	}
	if a := l.do(t, http.MethodGet, recordsPath+"?prefix=/other&value=false", ""); strings.Contains(a.body, `"value"`) || !strings.Contains(a.body, `"bytes":2`) {
		t.Errorf("without values: %s", a.body)
	}

	// Live.
	l.put(t, "/other", "live")
	if page := get("?prefix=/other"); *page.Records[0].Value != "x" {
		t.Errorf("saved: %+v", page)
	}
	if page := get("?prefix=/other&from=live"); *page.Records[0].Value != "live" || page.Generation != 0 || page.More {
		t.Errorf("live: %+v", page)
	}
	if page := get("?from=live&limit=1"); len(page.Records) != 1 || page.Next != nil || !page.More {
		t.Errorf("one that is live: %+v", page)
	}

	// As lines there are no pages.
	for _, from := range []string{"saved", "live"} {
		all := linesOf[struct {
			Record *server.Record
			End    *server.Records
		}](t, l.do(t, http.MethodGet, recordsPath+"?from="+from, "", "Accept", "application/x-ndjson"))
		if n := len(all) - 1; n != 252 || all[0].Record == nil || all[0].Record.Key != "/n/000" || all[n].End == nil || all[n].End.More {
			t.Errorf("%s: %d lines, the last %+v", from, n, all[n].End)
		}
	}
	some := linesOf[struct{ End *server.Records }](t, l.do(t, http.MethodGet, recordsPath+"?limit=250", "", "Accept", "application/x-ndjson"))
	if len(some) != 251 || some[250].End.Next == nil {
		t.Fatalf("250 lines: %d", len(some))
	}
	if page := get("?cursor=" + *some[250].End.Next); len(page.Records) != 2 {
		t.Errorf("behind them: %+v", page)
	}
	if a := l.do(t, http.MethodGet, "/_torpor/services/more/parts/store/records", "", "Accept", "application/x-ndjson"); a.body != `{"end":{"generation":0,"more":false,"next":null}}`+"\n" {
		t.Errorf("lines of nothing: %s", a.body)
	}
}

func TestNativeRecordsOfABadQuery(t *testing.T) {
	l, _ := beginNative(t, vfs.NewMem(), nil)
	l.put(t, "/a", "1", "/b", "2", "/c", "3")
	l.do(t, http.MethodPost, "/_torpor/services/notes/save", "")
	cursor := *decode[server.Records](t, l.do(t, http.MethodGet, recordsPath+"?limit=1", ""), 200).Next
	if page := decode[server.Records](t, l.do(t, http.MethodGet, recordsPath+"?cursor="+cursor, ""), 200); !slices.Equal(keysOf(page), []string{"/b", "/c"}) {
		t.Fatalf("the cursor leads to %v", keysOf(page))
	}
	for _, query := range []string{"limit=0", "limit=1001", "limit=-1", "limit=x", "limit=1&limit=2", "from=there", "value=maybe", "cursor=", "cursor=x", "cursor=AAAA",
		"cursor=" + cursor + "&prefix=/b", "cursor=" + cursor + "&partition=", "cursor=" + cursor + "&from=live", "prefix=a&prefix=b", "cursor=" + cursor + "%0A"} {
		l.do(t, http.MethodGet, recordsPath+"?"+query, "").fault(t, 400, "bad_request")
	}
	l.do(t, http.MethodGet, "/_torpor/services/more/parts/store/records?cursor="+cursor, "").fault(t, 400, "bad_request")
	for i := range cursor { // whatever character is another one
		for _, c := range "AB" {
			if wrong := cursor[:i] + string(c) + cursor[i+1:]; wrong != cursor {
				l.do(t, http.MethodGet, recordsPath+"?cursor="+wrong, "").fault(t, 400, "bad_request")
			}
		}
		l.do(t, http.MethodGet, recordsPath+"?cursor="+cursor[:i], "").fault(t, 400, "bad_request")
	}

	// Its generation goes away at last.
	for i := range 50 {
		l.put(t, "/d", fmt.Sprint(i, strings.Repeat("x", 5000)))
		l.do(t, http.MethodPost, "/_torpor/services/notes/save", "")
	}
	l.do(t, http.MethodGet, recordsPath+"?cursor="+cursor, "").fault(t, 410, "gone")
}

// TestNativeRecordsAreBounded: what is long is told as that, and a page is not much longer than a limit.
func TestNativeRecordsAreBounded(t *testing.T) {
	l, _ := beginNative(t, vfs.NewMem(), nil)
	third := strings.Repeat("x", server.MaxPageBytes/3)
	l.put(t, "/0", strings.Repeat("x", server.MaxValueBytes+1), "/1", third, "/2", third, "/3", third, "/4", "short")
	l.do(t, http.MethodPost, "/_torpor/services/notes/save", "")
	var pages []string
	query := ""
	for {
		page := decode[server.Records](t, l.do(t, http.MethodGet, recordsPath+query, ""), 200)
		pages = append(pages, strings.Join(keysOf(page), ""))
		for _, r := range page.Records {
			if (r.Value == nil) != (r.Key == "/0") {
				t.Errorf("%v has a value: %v", r.Key, r.Value != nil)
			}
		}
		if page.Next == nil {
			break
		}
		query = "?cursor=" + *page.Next
	}
	if want := []string{"/0", "/1/2", "/3/4"}; !slices.Equal(pages, want) {
		t.Errorf("pages %q, want %q", pages, want)
	}
}

type diffLine struct {
	Change  *server.Change
	Summary []snapshot.Stat
}

func TestNativeDiff(t *testing.T) {
	l, _ := beginNative(t, vfs.NewMem(), nil)
	diff := func(query string, header ...string) []diffLine {
		t.Helper()
		return linesOf[diffLine](t, l.do(t, http.MethodGet, "/_torpor/diff"+query, "", header...))
	}
	l.put(t, "/kept", "1", "/changed", "1", "/removed", "1")
	l.do(t, http.MethodPost, "/_torpor/services/notes/save", "")
	decode[server.SavedSnapshot](t, l.do(t, http.MethodPost, "/_torpor/snapshots/seed", ""), 201)
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	decode[server.SavedSnapshot](t, l.do(t, http.MethodPost, "/_torpor/snapshots/secret", `{"recipients":["`+identity.Recipient().String()+`"]}`), 201)
	l.notes.Reset(t.Context())
	l.put(t, "/kept", "1", "/changed", "2", "/added", "1")

	want := map[string]string{"/changed": "changed 1 2", "/removed": "removed 1 -", "/added": "added - 1"}
	value := func(v *any) any {
		if v == nil {
			return "-"
		}
		return *v
	}
	check := func(name string, lines []diffLine, want map[string]string) {
		t.Helper()
		got := map[string]string{}
		for _, d := range lines[:len(lines)-1] {
			got[fmt.Sprint(d.Change.Key)] = fmt.Sprint(d.Change.Kind, " ", value(d.Change.Before), " ", value(d.Change.After))
			if d.Change.Service != "notes" || d.Change.Part != "store" {
				t.Errorf("%s: %+v", name, d.Change)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	for name, query := range map[string]string{"as it is": "", "in words": "?from=saved&to=live", "from a snapshot": "?from=snapshot:seed@1&service=notes", "its newest": "?from=pod:seed&to=live"} {
		check(name, diff(query), want)
	}
	check("of a secret", diff("?from=snapshot:secret", "X-Torpor-Identity", identity.String()), want)
	check("without values", diff("?values=false"), map[string]string{"/changed": "changed - -", "/removed": "removed - -", "/added": "added - -"})
	if lines := diff("?stat=true&service=notes"); len(lines) != 1 || len(lines[0].Summary) != 1 ||
		lines[0].Summary[0] != (snapshot.Stat{Service: "notes", Part: "store", Added: 1, Changed: 1, Removed: 1, Same: 1, BytesAdded: lines[0].Summary[0].BytesAdded, BytesRemoved: lines[0].Summary[0].BytesRemoved}) {
		t.Errorf("summed up: %+v", lines)
	}
	if lines := diff("?from=saved&to=saved"); len(lines) != 1 || lines[0].Summary == nil {
		t.Errorf("nothing: %+v", lines)
	}
	l.do(t, http.MethodPost, "/_torpor/services/notes/save", "")
	check("between generations", diff("?from=saved~1&to=saved&service=notes"), want)

	for query, code := range map[string]int{"from=nonsense": 400, "from=/etc/passwd": 400, "to=x.snapshot": 400, "to=x.state": 400, "from=./live": 400, "from=": 400, "from=live&from=saved": 400,
		"from=snapshot:none": 404, "from=snapshot:seed@7": 404, "from=saved~900": 404, "from=snapshot:../seed": 400, "from=snapshot:secret": 403, "stat=perhaps": 400} {
		name := map[int]string{400: "bad_request", 404: "not_found", 403: "no_key"}[code]
		l.do(t, http.MethodGet, "/_torpor/diff?"+query, "").fault(t, code, name)
	}
	l.do(t, http.MethodGet, "/_torpor/diff?from=snapshot:secret", "", "X-Torpor-Identity", "base64:?").fault(t, 400, "bad_request")
}

func TestNativeSnapshots(t *testing.T) {
	l, _ := beginNative(t, vfs.NewMem(), nil)
	if all := decode[server.Snapshots](t, l.do(t, http.MethodGet, "/_torpor/snapshots", ""), 200); len(all.Snapshots) != 0 {
		t.Errorf("at first: %+v", all)
	}
	events := listen(t, l.URL, "")
	told := func(action, name string, version uint64, failed bool) {
		t.Helper()
		for {
			if _, ev := events.next(); ev.Kind == server.EventSnapshot {
				if ev.Action != action || ev.Name != name || ev.Version != version || (ev.Error != "") != failed {
					t.Errorf("told %+v, want %s of %s version %d", ev, action, name, version)
				}
				return
			}
		}
	}
	l.put(t, "/a", "1")
	v := decode[server.SavedSnapshot](t, l.do(t, http.MethodPost, "/_torpor/snapshots/seed", `{"description":"the first","services":["notes"]}`), 201)
	if v.Name != "seed" || v.Number != 1 || v.Description != "the first" || !slices.Equal(v.Services, []string{"notes"}) || v.Encrypted || v.Torpor != "1.2.3" {
		t.Errorf("saved %+v", v)
	}
	told("save", "seed", 1, false)
	l.put(t, "/a", "2", "/b", "2")
	if v := decode[server.SavedSnapshot](t, l.do(t, http.MethodPost, "/_torpor/snapshots/seed", ""), 201); v.Number != 2 {
		t.Errorf("saved %+v", v)
	}
	told("save", "seed", 2, false)
	if all := decode[server.Snapshots](t, l.do(t, http.MethodGet, "/_torpor/snapshots", ""), 200); len(all.Snapshots) != 1 || all.Snapshots[0].Newest != 2 {
		t.Errorf("all: %+v", all)
	}
	if one := decode[server.SnapshotVersions](t, l.do(t, http.MethodGet, "/_torpor/snapshots/seed", ""), 200); one.Name != "seed" || len(one.Versions) != 2 || one.Versions[0].Number != 1 {
		t.Errorf("one: %+v", one)
	}

	// A dry run changes nothing, and says what loading then does.
	load := func(body string) server.LoadedSnapshot {
		t.Helper()
		return decode[server.LoadedSnapshot](t, l.do(t, http.MethodPost, "/_torpor/snapshots/seed/load", body), 200)
	}
	for _, dry := range []bool{true, false} {
		got := load(fmt.Sprintf(`{"version":1,"merge":"overwrite","dry_run":%v,"services":["notes"]}`, dry))
		if got.Name != "seed" || got.Version != 1 || got.Merge != snapshot.Overwrite || got.DryRun != dry || len(got.Services) != 1 || len(got.Services[0].Parts) != 1 ||
			!reflect.DeepEqual(got.Services[0].Parts[0], server.AppliedPart{Part: "store", Merged: snapshot.Merged{Changed: 1, Removed: 1}, Replaced: []string{""}}) {
			t.Errorf("loaded %+v", got)
		}
		l.do(t, http.MethodGet, "/a", "").wants(t, 200, map[bool]string{true: "2", false: "1"}[dry])
	}
	told("load", "seed", 1, false) // not of the dry run
	if got := load(""); got.Version != 2 || got.Merge != snapshot.AccountRegionMerge {
		t.Errorf("loaded the newest: %+v", got)
	}
	told("load", "seed", 2, false)
	l.notes.fail(nil, errors.New("boom"))
	if message, _ := l.do(t, http.MethodPost, "/_torpor/snapshots/seed/load", "").fault(t, 500, "internal"); !strings.Contains(message, "boom") {
		t.Errorf("a load that fails: %s", message)
	}
	l.notes.fail(nil, nil)
	told("load", "seed", 2, true)

	// What is not there, or not right.
	for call, code := range map[string]int{
		"GET snapshots/none": 404, "POST snapshots/none/load": 404, "DELETE snapshots/none": 404, "GET snapshots/none/export": 404,
		"DELETE snapshots/seed?version=9": 404, "GET snapshots/seed/export?version=9": 404, "GET snapshots/seed/export?services=none": 404,
		"DELETE snapshots/seed?version=": 400, "DELETE snapshots/seed?version=x": 400, "DELETE snapshots/seed?version=0": 400, "DELETE snapshots/seed?versions=1": 400,
		"GET snapshots/seed/export?version=0": 400, "POST snapshots/-x": 400, "POST snapshots/seed?x=1": 400, "POST snapshots/seed/load?dry_run=true": 400,
		"GET snapshots/seed/export?encrypt=true": 400, "GET snapshots/seed/export?redact=nonsense": 400, "GET snapshots/seed/export?redact=nothing%3Ddrop": 400,
		"POST snapshots/gc?dry_run=true": 400, "POST snapshots/verify?x=1": 400, "POST import?dryrun=true": 400, "POST import?merge=some": 400, "POST snapshots/seed/import?x=1": 400,
		"POST snapshots/seed/import?encrypt=true": 400, "GET export?services=none": 404, "POST snapshots/verify/load": 400, "GET snapshots/gc/export": 400,
	} {
		method, path, _ := strings.Cut(call, " ")
		l.do(t, method, "/_torpor/"+path, "").fault(t, code, map[int]string{400: "bad_request", 404: "not_found"}[code])
	}
	for path, bodies := range map[string][]string{
		"snapshots/seed":      {"[]", "{", `{"name":"x"}`, `{"services":"notes"}`, `{"passphrase":"x","recipients":["y"]}`, `{"recipients":["y"]}`, `{} {}`},
		"snapshots/seed/load": {"[]", `{"version":-1}`, `{"merge":"some"}`, `{"dryrun":true}`},
		"snapshots/gc":        {`{"grace":"soon"}`, `{"grace":"-1h"}`, `{"dry":true}`},
	} {
		for _, body := range bodies {
			l.do(t, http.MethodPost, "/_torpor/"+path, body).fault(t, 400, "bad_request")
		}
	}
	l.do(t, http.MethodPost, "/_torpor/snapshots/seed", `{"description":"`+strings.Repeat("x", 2<<20)+`"}`).fault(t, 413, "too_large")
	l.do(t, http.MethodPost, "/_torpor/snapshots/seed", `{"services":["none"]}`).fault(t, 404, "not_found")
	l.do(t, http.MethodPost, "/_torpor/snapshots/seed/load", `{"services":["none"]}`).fault(t, 404, "not_found")

	// One by one, then all.
	l.do(t, http.MethodPost, "/_torpor/snapshots/seed", "")
	l.do(t, http.MethodDelete, "/_torpor/snapshots/seed?version=1", "").wants(t, 204, "")
	if one := decode[server.SnapshotVersions](t, l.do(t, http.MethodGet, "/_torpor/snapshots/seed", ""), 200); len(one.Versions) != 2 || one.Versions[0].Number != 2 {
		t.Errorf("after removing the first: %+v", one)
	}
	l.do(t, http.MethodDelete, "/_torpor/snapshots/seed", "").wants(t, 204, "")
	l.do(t, http.MethodGet, "/_torpor/snapshots/seed", "").fault(t, 404, "not_found")
}

func TestNativeCollectAndVerify(t *testing.T) {
	l, kept := beginNative(t, vfs.NewMem(), nil)
	l.put(t, "/a", strings.Repeat("x", 100_000))
	l.do(t, http.MethodPost, "/_torpor/snapshots/one", "")
	l.put(t, "/a", strings.Repeat("y", 100_000))
	l.do(t, http.MethodPost, "/_torpor/snapshots/two", "")
	l.do(t, http.MethodDelete, "/_torpor/snapshots/one", "")
	collect := func(body string) repository.Collected {
		t.Helper()
		return decode[repository.Collected](t, l.do(t, http.MethodPost, "/_torpor/snapshots/gc", body), 200)
	}
	if got := collect(""); got.Freed != 0 || got.Waiting == 0 {
		t.Errorf("within the grace time: %+v", got)
	}
	would := collect(`{"dry_run":true,"grace":"0s"}`)
	if did := collect(`{"grace":"0s"}`); !would.DryRun || did.DryRun || did.Freed <= 0 || would.Freed <= 0 || would.Packs != did.Packs {
		t.Errorf("would %+v, did %+v", would, did)
	}
	verify := func() server.VerifiedSnapshots {
		t.Helper()
		return decode[server.VerifiedSnapshots](t, l.do(t, http.MethodPost, "/_torpor/snapshots/verify", ""), 200)
	}
	if got := verify(); !got.OK || len(got.Findings) != 0 {
		t.Errorf("all is well: %+v", got)
	}
	damage(t, kept, "packs")
	got := verify()
	if got.OK || !slices.ContainsFunc(got.Findings, func(f repository.Finding) bool {
		return f.Message != "" && slices.Equal(f.Affected, []repository.Ref{{Name: "two", Version: 1}})
	}) {
		t.Errorf("damaged: %+v", got)
	}
}

func TestNativeExportAndImport(t *testing.T) {
	l, _ := beginNative(t, vfs.NewMem(), nil)
	l.put(t, "/a", "1", "/secret", "hidden words")
	decode[server.SavedSnapshot](t, l.do(t, http.MethodPost, "/_torpor/snapshots/seed", `{"description":"first"}`), 201)
	export := func(path string, header ...string) answer {
		t.Helper()
		a := l.do(t, http.MethodGet, "/_torpor/"+path, "", header...)
		if a.status != 200 || len(a.body) == 0 {
			t.Fatalf("%s: %d %s", path, a.status, a.body)
		}
		return a
	}
	a := export("snapshots/seed/export?version=1")
	if _, err := zip.NewReader(strings.NewReader(a.body), int64(len(a.body))); err != nil || a.header.Get("Content-Type") != "application/zip" ||
		a.header.Get("Content-Disposition") != "attachment; filename=seed-1.snapshot" || a.header.Get("X-Torpor-Services") != "more,notes" {
		t.Errorf("%v, header %v", err, a.header)
	}
	if a := export("export?services=notes"); a.header.Get("X-Torpor-Services") != "notes" || a.header.Get("Content-Disposition") != "attachment; filename=torpor.snapshot" {
		t.Errorf("live: %v", a.header)
	}

	// It becomes a version, or is loaded.
	l.put(t, "/a", "2", "/b", "2")
	v := decode[server.SavedSnapshot](t, l.do(t, http.MethodPost, "/_torpor/snapshots/copy/import?services=notes", a.body, "Content-Type", "application/zip"), 201)
	if v.Name != "copy" || v.Number != 1 || v.Description != "first" || !slices.Equal(v.Services, []string{"notes"}) {
		t.Errorf("imported %+v", v)
	}
	if v := decode[server.SavedSnapshot](t, l.do(t, http.MethodPost, "/_torpor/snapshots/copy/import?description=mine", a.body), 201); v.Number != 2 || v.Description != "mine" {
		t.Errorf("imported again %+v", v)
	}
	l.do(t, http.MethodGet, "/a", "").wants(t, 200, "2")
	for _, dry := range []bool{true, false} {
		got := decode[server.LoadedSnapshot](t, l.do(t, http.MethodPost, fmt.Sprintf("/_torpor/import?merge=service-merge&services=notes&dry_run=%v", dry), a.body), 200)
		if got.DryRun != dry || got.Services[0].Parts[0].Merged != (snapshot.Merged{Changed: 1, Kept: 2}) {
			t.Errorf("loaded %+v", got)
		}
		l.do(t, http.MethodGet, "/a", "").wants(t, 200, map[bool]string{true: "2", false: "1"}[dry])
	}
	l.do(t, http.MethodGet, "/b", "").wants(t, 200, "2")

	// Redacted.
	redacted := export("snapshots/seed/export?redact=" + url.QueryEscape("notes:/secret=drop"))
	l.do(t, http.MethodPost, "/_torpor/import?merge=overwrite", redacted.body).isFine(t)
	l.do(t, http.MethodGet, "/secret", "").wants(t, 404, "no note /secret\n")
	if message, _ := l.do(t, http.MethodGet, "/_torpor/export?redact="+url.QueryEscape("notes:/secret=drop"), "").fault(t, 400, "bad_request"); !strings.Contains(message, "notes:/secret=drop") {
		t.Errorf("a rule that is about nothing: %s", message)
	}
	export("export?redact_unused=true&redact=" + url.QueryEscape("notes:/secret=drop"))

	// Damaged, or nothing at all: nothing is changed.
	l.put(t, "/a", "3")
	for name, body := range map[string]string{"nothing": "", "no archive": "hello", "cut off": a.body[:len(a.body)-30], "changed": strings.Replace(a.body, "hidden words", "hidden wordz", 1)} {
		if name == "changed" && body == a.body {
			body = a.body[:200] + "x" + a.body[201:]
		}
		l.do(t, http.MethodPost, "/_torpor/import", body).fault(t, 422, "incompatible")
		l.do(t, http.MethodPost, "/_torpor/snapshots/bad/import", body).fault(t, 422, "incompatible")
	}
	l.do(t, http.MethodGet, "/a", "").wants(t, 200, "3")
	l.do(t, http.MethodGet, "/_torpor/snapshots/bad", "").fault(t, 404, "not_found")
	l.do(t, http.MethodPost, "/_torpor/import", a.body, "Content-Type", "multipart/form-data; boundary=x").fault(t, 400, "bad_request")
	l.do(t, http.MethodPost, "/_torpor/import?services=none", a.body).fault(t, 404, "not_found")
}

func (a answer) isFine(t *testing.T) {
	t.Helper()
	if a.status >= 300 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestNativeEncryption(t *testing.T) {
	l, _ := beginNative(t, vfs.NewMem(), nil)
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	l.put(t, "/a", "1")
	phrase := []string{"X-Torpor-Passphrase", "open sesame"}
	coded := []string{"X-Torpor-Identity", "base64:" + base64.StdEncoding.EncodeToString([]byte("# my key\n"+identity.String()+"\n"))}

	// A version for a recipient, exported for who knows a passphrase, and loaded by that.
	recipient := identity.Recipient().String()
	if v := decode[server.SavedSnapshot](t, l.do(t, http.MethodPost, "/_torpor/snapshots/seed", `{"recipients":["`+recipient+`"]}`), 201); !v.Encrypted {
		t.Errorf("saved %+v", v)
	}
	l.do(t, http.MethodGet, "/_torpor/snapshots/seed/export", "").fault(t, 403, "no_key")
	l.do(t, http.MethodPost, "/_torpor/snapshots/seed/load", "").fault(t, 403, "no_key")
	l.put(t, "/a", "2")
	l.do(t, http.MethodPost, "/_torpor/snapshots/seed/load", `{"identities":["`+identity.String()+`"]}`).isFine(t)
	l.do(t, http.MethodGet, "/a", "").wants(t, 200, "1")
	a := l.do(t, http.MethodGet, "/_torpor/snapshots/seed/export?encrypt=true", "", append(coded, phrase...)...)
	if a.status != 200 || !strings.HasPrefix(a.body, "age-encryption.org/") || a.header.Get("Content-Type") != "application/vnd.age" {
		t.Fatalf("%d %.100s", a.status, a.body)
	}
	l.put(t, "/a", "2")
	l.do(t, http.MethodPost, "/_torpor/import", a.body).fault(t, 403, "no_key")
	l.do(t, http.MethodPost, "/_torpor/import", a.body, "X-Torpor-Passphrase", "wrong").fault(t, 403, "no_key")
	l.do(t, http.MethodGet, "/a", "").wants(t, 200, "2")
	l.do(t, http.MethodPost, "/_torpor/import", a.body, phrase...).isFine(t)
	l.do(t, http.MethodGet, "/a", "").wants(t, 200, "1")

	// What was encrypted as a file is kept as is said.
	a = l.do(t, http.MethodGet, "/_torpor/export", "", "X-Torpor-Recipient", recipient)
	if a.status != 200 || !strings.HasPrefix(a.body, "age-encryption.org/") {
		t.Errorf("for a recipient: %d %.100s", a.status, a.body)
	}
	for _, header := range [][]string{coded, append(slices.Clone(coded), "X-Torpor-Recipient", recipient)} {
		v := decode[server.SavedSnapshot](t, l.do(t, http.MethodPost, "/_torpor/snapshots/copy/import", a.body, header...), 201)
		if v.Encrypted != (len(header) > 2) {
			t.Errorf("imported with %q: %+v", header, v)
		}
	}
	l.do(t, http.MethodGet, "/_torpor/export", "", "X-Torpor-Recipient", "nobody").fault(t, 400, "bad_request")
}

// TestNativeProgress: who understands lines is told how far a long call is.
func TestNativeProgress(t *testing.T) {
	l, _ := beginNative(t, vfs.NewMem(), nil)
	l.put(t, "/a", strings.Repeat("1", 1000))
	accept := []string{"Accept", "text/html, application/x-ndjson;q=0.5"}
	file := l.do(t, http.MethodGet, "/_torpor/export", "").body
	for _, call := range []struct{ path, body, steps string }{
		{"snapshots/seed", "", "save"}, {"snapshots/seed/load", "", ""}, {"snapshots/seed/import", file, "check save"}, {"import", file, "check"},
		{"snapshots/verify", "", "verify"}, {"snapshots/gc", "", ""},
	} {
		lines := linesOf[struct {
			Event, Step, Status string
			Done, Total         int64
			Result              map[string]any
		}](t, l.do(t, http.MethodPost, "/_torpor/"+call.path, call.body, accept...))
		last := lines[len(lines)-1]
		if last.Event != "completion" || last.Status != "ok" || len(last.Result) == 0 {
			t.Errorf("%s: it ends with %+v", call.path, last)
		}
		var steps []string
		for _, p := range lines[:len(lines)-1] {
			if p.Event != "progress" || p.Done < 0 {
				t.Errorf("%s: %+v", call.path, p)
			}
			steps = append(steps, p.Step)
		}
		if got := strings.Join(slices.Compact(steps), " "); got != call.steps && call.steps != "" {
			t.Errorf("%s: steps %q, want %q", call.path, got, call.steps)
		}
	}
	// What goes wrong at once has its status, and what goes wrong later its line.
	l.do(t, http.MethodPost, "/_torpor/snapshots/none/load", "", accept...).fault(t, 404, "not_found")
	l.notes.fail(nil, errors.New("boom"))
	failed := l.do(t, http.MethodPost, "/_torpor/import", file, accept...)
	if lines := strings.Split(strings.TrimSpace(failed.body), "\n"); failed.status != 200 || !strings.Contains(lines[len(lines)-1], `"event":"completion","status":"error","error":{"code":"internal"`) {
		t.Errorf("a load that fails: %d %s", failed.status, failed.body)
	}
	for _, no := range []string{"*/*", "application/json", "application/x-ndjson;q=0", "application/x-ndjson;q=0.00"} {
		if a := l.do(t, http.MethodPost, "/_torpor/snapshots/verify", "", "Accept", no); a.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %v", no, a.header)
		}
	}
}

// TestNativeUploadsAreBounded, and leave nothing behind.
func TestNativeUploadsAreBounded(t *testing.T) {
	scratch := t.TempDir()
	const most = 1000
	l, _ := beginNative(t, vfs.NewMem(), func(c *server.Config) { c.Scratch, c.MaxUpload = scratch, most })
	for _, path := range []string{"/_torpor/import", "/_torpor/snapshots/seed/import"} {
		l.do(t, http.MethodPost, path, strings.Repeat("x", most)).fault(t, 422, "incompatible")
		l.do(t, http.MethodPost, path, strings.Repeat("x", most+1)).fault(t, 413, "too_large")
		// Without its length being said.
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, l.URL+path, struct{ *bytes.Reader }{bytes.NewReader(make([]byte, most+1))})
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = -1
		resp, err := l.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
	// One that is cut off.
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, "/_torpor/import", http.MaxBytesReader(nil, http.NoBody, 0))
	r.Body = brokenBody{}
	l.Config.Handler.ServeHTTP(w, r)
	if w.Code < 400 {
		t.Errorf("a body that breaks off: %d", w.Code)
	}
	if left, err := filepath.Glob(filepath.Join(scratch, "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
	if _, err := os.Stat(scratch); err != nil {
		t.Error(err)
	}
}

// brokenBody ends before it is whole.
type brokenBody struct{}

func (brokenBody) Read([]byte) (int, error) { return 0, errors.New("connection reset") }
func (brokenBody) Close() error             { return nil }

// damage changes a byte in the middle of each file in a folder.
func damage(t *testing.T, fsys vfs.FS, dir string) {
	t.Helper()
	entries, err := fsys.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		t.Fatal(entries, err)
	}
	for _, e := range entries {
		name := dir + "/" + e.Name
		if e.Type.IsDir() {
			damage(t, fsys, name)
			continue
		}
		b := contentOf(t, fsys, name)
		b[len(b)/2] ^= 1
		f, err := fsys.OpenFile(name, vfs.Create)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// contentOf takes a file away and gives what was in it.
func contentOf(t *testing.T, fsys vfs.FS, name string) []byte {
	t.Helper()
	f, err := fsys.OpenFile(name, vfs.Read)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if err := fsys.Remove(name); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestEveryOperationAnswers: each operation in openapi.yaml is held against an answer that is no error.
func TestEveryOperationAnswers(t *testing.T) {
	l, _ := beginNative(t, vfs.NewMem(), func(c *server.Config) {
		c.Push = map[string]http.Handler{"notes/store": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })}
	})
	l.put(t, "/a", "1")
	c, err := theContract()
	if err != nil {
		t.Fatal(err)
	}
	c.forget()
	file := l.do(t, http.MethodGet, "/_torpor/export", "").body
	for _, call := range []string{"GET openapi.yaml", "GET health", "HEAD health", "GET services", "GET services/notes", "POST services/notes/save", "POST services/notes/load",
		"POST services/notes/sync", "POST services/notes/sleep", "POST services/notes/wake", "GET services/notes/parts", "GET services/notes/parts/store",
		"GET services/notes/parts/store/records", "GET services/notes/parts/store/state", "HEAD services/notes/parts/store/state", "PUT services/notes/parts/store/state",
		"DELETE services/notes/parts/store/state", "GET diff", "POST services/notes/reset", "POST snapshots/seed", "GET snapshots", "GET snapshots/seed", "POST snapshots/seed/load",
		"GET snapshots/seed/export", "POST snapshots/seed/import", "POST import", "POST snapshots/verify", "POST snapshots/gc", "DELETE snapshots/seed"} {
		method, path, _ := strings.Cut(call, " ")
		body := ""
		if strings.HasSuffix(path, "import") {
			body = file
		}
		l.do(t, method, "/_torpor/"+path, body).isFine(t)
	}
	for _, missing := range c.unanswered() {
		if missing != "events" { // whose answer has no end here: see TestEventsOfAServer
			t.Errorf("%s was not asked for", missing)
		}
	}
}
