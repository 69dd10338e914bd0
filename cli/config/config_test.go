package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/torpor-run/torpor/cli/config"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/source/exec"
	"github.com/torpor-run/torpor/runtime/source/file"
	"github.com/torpor-run/torpor/runtime/source/files"
	sourcehttp "github.com/torpor-run/torpor/runtime/source/http"
	"github.com/torpor-run/torpor/runtime/source/push"
	"github.com/torpor-run/torpor/runtime/source/sqlite"
	"github.com/torpor-run/torpor/runtime/spool"
	"github.com/torpor-run/torpor/runtime/supervisor"
)

// form is one with a setting of each kind.
func form() config.Form {
	return config.Form{Embedded: []string{"s3"}, Settings: []config.Setting{
		{Key: "listen", About: "where", Default: "here"},
		{Key: "proof", About: "how", Kind: config.Choice, Values: []string{"full", "off"}},
		{Key: "flush_interval", About: "when", Kind: config.Duration, Least: int64(time.Second), Most: int64(time.Hour)},
		{Key: "limit_size", About: "how much", Kind: config.Size, Least: 1 << 10, Most: 1 << 40, Module: true},
		{Key: "limit_fuel", About: "how many", Kind: config.Number, Least: 1, Most: 4e18, Module: true},
		{Key: "persistence", About: "whether", Kind: config.Switch},
	}}
}

// base is what is said for all.
func base() config.Strategies {
	return config.Strategies{Save: runtime.SaveScheduled, Load: runtime.LoadOnRequest, FlushInterval: 15 * time.Second,
		HoldTimeout: 5 * time.Second, Proof: runtime.ProofFull, Compression: "none"}
}

func environ() []string {
	return []string{"PATH=/usr/bin:/bin", "HOME=/home/me", "TOKEN=t0ken", "EMPTY=", "WITH={port}", "=odd", "odd"}
}

// path is where the tests' files would lie.
func path(t testing.TB) string {
	t.Helper()
	p, err := filepath.Abs(filepath.Join("somewhere", "torpor.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// parse reads a file as the program does, all mistakes together.
func parse(t testing.TB, text string) ([]config.Service, *config.Document, error) {
	t.Helper()
	d, err := config.Read(form(), path(t), []byte(text))
	services, servicesErr := d.Services(base(), environ())
	return services, d, errors.Join(err, servicesErr)
}

func service(t *testing.T, name, text string) config.Service {
	t.Helper()
	services, _, err := parse(t, text)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range services {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("there is no service %s", name)
	return config.Service{}
}

// everything is a service with every key that there is.
const everything = `
services:
  orders:
    enabled: true
    run:
      command: [bin/orders, "--port={port}", 8080, "--token=${TOKEN}", ""]
      env: {MODE: test, LEVEL: 3, DEBUG: true, PRICE: "$$5", KEY: "${TOKEN}-${NONE:-none}-${EMPTY:-empty}", OWN: ""}
      inherit: [HOME, NOT_THERE]
      folder: work
      port: 8080
      ready_timeout: 30
      stop_timeout: 2.5
      restarts: {most: 0, within: 1h}
    ready: {http: "/health?full=1", status: 204}
    match:
      host: [Orders.localhost, "*.orders.localhost"]
      path: [/orders/, /]
      strip: true
      header: {x-team: "*"}
      aws: [kinesis, cognito-idp]
      none: false
    changed: [bin/changed, "${TOKEN}"]
    reads: {methods: [get], paths: [/graphql], operations: [Peek], writes: [GetNext, /counter/]}
    idle: 10m
    wake_timeout: 90
    upgraded: HOLD
    save_strategy: on_request
    load_strategy: ON_STARTUP
    flush_interval: 500ms
    hold_timeout: 1m
    proof: sampled
    compression: zstd
    parts:
      store:
        serializer: files
        settings: {records: /streams/*, deep: {list: [1, 2.5, text, true, null, 2001-01-01]}}
        lag: 5s
        proof: off
        compression: none
        source:
          files: {root: "{data}", include: ["*.ldb"], exclude: [LOG], spool: spool, skip_special: true, outside_links: true, set_id: true,
            ignore_owner: true, settle: 2s, tries: 7, max_files: 1e3, max_bytes: 2GiB, max_path: 100, max_xattr_bytes: 1 KiB}
      backend:
        serializer: sqlite
        source:
          sqlite: {path: "{data}/dbs", pattern: "*.db", form: pages, spool: "{data}/tmp", wait: 1, unchecked: true, in_place: true,
            migrate: {rename: {old: new}, drop: {new: [column]}}, max_databases: 5}
      assets:
        serializer: records
        source:
          http: {url: "http://{address}/state", header: {Authorization: "Bearer ${TOKEN}"}, media: application/cbor-seq, timeout: 3s, atomic: true,
            cursor: true, spool: /spool, spool_memory: 1MiB, max_bytes: 1TiB}
      more:
        serializer: raw
        source:
          exec: {dump: [dump, "${TOKEN}"], restore: [restore], reset: [reset], env: {A: b}, inherit: [HOME], folder: /tmp, timeout: 1m, grace: 1s, atomic: true,
            spool: s, spool_memory: 1, max_bytes: 10}
      one:
        serializer: json
        source:
          file: {path: "{data}/db.json", check: JSON, empty: "{}", settle: 30ms, tries: 3, atomic: true, spool: s, spool_memory: 3, max_bytes: 4KiB}
      pushed:
        serializer: raw
        source:
          push: {media: text/plain, spool: s, spool_memory: 2, max_bytes: 3}
`

func TestEverything(t *testing.T) {
	got := service(t, "orders", everything)
	here := filepath.Dir(path(t))
	in := func(name string) string { return filepath.Join(here, name) }
	want := config.Service{
		Name: "orders",
		Run: &config.Run{
			Command: []string{"bin/orders", "--port={port}", "8080", "--token=t0ken", ""},
			Env:     []string{"DEBUG=true", "HOME=/home/me", "KEY=t0ken-none-empty", "LEVEL=3", "MODE=test", "OWN=", "PATH=/usr/bin:/bin", "PRICE=$5"},
			Inherit: []string{"HOME", "NOT_THERE"}, Folder: in("work"), Port: 8080, ReadyTimeout: 30 * time.Second, StopTimeout: 2500 * time.Millisecond,
			Restarts: supervisor.Restarts{Most: -1, Within: time.Hour},
		},
		Ready: supervisor.Ready{HTTP: "/health?full=1", Status: 204},
		Match: config.Match{Hosts: []string{"orders.localhost", "*.orders.localhost"}, Paths: []string{"/orders", "/"}, Strip: true,
			Headers: map[string]string{"X-Team": "*"}, AWS: []string{"kinesis", "cognito-idp"}},
		Reads:   config.Reads{Methods: []string{"GET"}, Paths: []string{"/graphql"}, Operations: []string{"Peek"}, Writes: []string{"GetNext", "/counter"}},
		Changed: []string{"bin/changed", "t0ken"},
		Idle:    10 * time.Minute, WakeTimeout: 90 * time.Second, Upgraded: config.UpgradedHold,
		Strategies: config.Strategies{Save: runtime.SaveOnRequest, Load: runtime.LoadOnStartup, FlushInterval: 500 * time.Millisecond,
			HoldTimeout: time.Minute, Proof: runtime.ProofSampled, Compression: "zstd"},
		Parts: []config.Part{
			{Name: "assets", Serializer: "records", Proof: runtime.ProofSampled, Compression: "zstd", Source: config.Source{HTTP: &sourcehttp.Config{
				URL: "http://{address}/state", Header: map[string][]string{"Authorization": {"Bearer t0ken"}}, Media: "application/cbor-seq", Timeout: 3 * time.Second,
				Atomic: true, Cursor: true, Spool: spool.Config{Folder: "/spool", Memory: 1 << 20, Bytes: 1 << 40}}}},
			{Name: "backend", Serializer: "sqlite", Proof: runtime.ProofSampled, Compression: "zstd", Source: config.Source{SQLite: &sqlite.Config{
				Path: "{data}/dbs", Pattern: "*.db", Form: sqlite.Pages, Spool: "{data}/tmp", Wait: time.Second, Unchecked: true, InPlace: true,
				Migrate: sqlite.Migration{Rename: map[string]string{"old": "new"}, Drop: map[string][]string{"new": {"column"}}}, MaxDatabases: 5}}},
			{Name: "more", Serializer: "raw", Proof: runtime.ProofSampled, Compression: "zstd", Source: config.Source{Exec: &exec.Config{
				Dump: []string{"dump", "t0ken"}, Restore: []string{"restore"}, Reset: []string{"reset"}, Env: []string{"A=b", "HOME=/home/me", "PATH=/usr/bin:/bin"},
				Folder: "/tmp", Timeout: time.Minute, Grace: time.Second, Atomic: true, Spool: spool.Config{Folder: in("s"), Memory: 1, Bytes: 10}}}},
			{Name: "one", Serializer: "json", Proof: runtime.ProofSampled, Compression: "zstd", Source: config.Source{File: &file.Config{
				Path: "{data}/db.json", Check: file.JSON, Empty: []byte("{}"), Settle: 30 * time.Millisecond, Tries: 3, Atomic: true,
				MaxBytes: 4 << 10, Spool: spool.Config{Folder: in("s"), Memory: 3}}}},
			{Name: "pushed", Serializer: "raw", Proof: runtime.ProofSampled, Compression: "zstd", Source: config.Source{Push: &push.Config{
				Media: "text/plain", Spool: spool.Config{Folder: in("s"), Memory: 2, Bytes: 3}}}},
			{Name: "store", Serializer: "files", Lag: 5 * time.Second, Proof: runtime.ProofOff, Compression: "none",
				Settings: map[string]any{"records": "/streams/*", "deep": map[string]any{"list": []any{int64(1), 2.5, "text", true, nil, "2001-01-01"}}},
				Source: config.Source{Files: &files.Config{Root: "{data}", Include: []string{"*.ldb"}, Exclude: []string{"LOG"}, Spool: in("spool"), SkipSpecial: true,
					OutsideLinks: true, SetID: true, IgnoreOwner: true, Settle: 2 * time.Second, Tries: 7, MaxFiles: 1000, MaxBytes: 2 << 30, MaxPath: 100, MaxXattrBytes: 1 << 10}}},
		},
	}
	if !reflect.DeepEqual(got, want) {
		a, _ := json.MarshalIndent(got, "", " ")
		b, _ := json.MarshalIndent(want, "", " ")
		t.Errorf("got\n%s\nwant\n%s", a, b)
	}
}

// TestEverythingIsEverything: the file above has every key of the schema, so that the test above knows what each does.
func TestEverythingIsEverything(t *testing.T) {
	var file map[string]any
	if err := yaml.Unmarshal([]byte(everything), &file); err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	var walk func(at string, v any)
	walk = func(at string, v any) {
		m, ok := v.(map[string]any)
		if !ok {
			return
		}
		for k, v := range m {
			if at == ".parts" {
				k = "*"
			}
			used[at+"."+k] = true
			walk(at+"."+k, v)
		}
	}
	walk("", file["services"].(map[string]any)["orders"])
	exempt := map[string]string{".preset": "tested with presets", ".upstream": "instead of run", ".ready.line": "instead of http", ".ready.none": "instead of http"}
	var known []string
	var schema func(at string, s map[string]any)
	schema = func(at string, s map[string]any) {
		properties, _ := s["properties"].(map[string]any)
		for k, v := range properties {
			known = append(known, at+"."+k)
			schema(at+"."+k, v.(map[string]any))
		}
		if every, ok := s["additionalProperties"].(map[string]any); ok && at == ".parts" {
			known = append(known, at+".*")
			schema(at+".*", every)
		}
	}
	schema("", makeSchema(t)["$defs"].(map[string]any)["service"].(map[string]any))
	for _, k := range known {
		if !used[k] && exempt[k] == "" {
			t.Errorf("%s is never tried", k)
		}
	}
	if len(known) < 90 {
		t.Errorf("only %d keys were found", len(known))
	}
}

func TestDefaults(t *testing.T) {
	got := service(t, "a", "services: {a: {run: {command: [a]}, parts: {store: {serializer: raw, source: {push: }}}}}")
	want := config.Service{
		Name: "a",
		Run: &config.Run{Command: []string{"a"}, Env: []string{"PATH=/usr/bin:/bin"}, Folder: filepath.Dir(path(t)), ReadyTimeout: time.Minute, StopTimeout: 10 * time.Second,
			Restarts: supervisor.Restarts{Most: 10, Within: 10 * time.Minute}},
		Match:       config.Match{Hosts: []string{"a.localhost"}},
		Reads:       config.Reads{Methods: []string{"GET", "HEAD", "OPTIONS", "TRACE"}},
		WakeTimeout: time.Minute, Upgraded: config.UpgradedRelease, Strategies: base(),
		Parts: []config.Part{{Name: "store", Serializer: "raw", Proof: runtime.ProofFull, Compression: "none", Source: config.Source{Push: &push.Config{}}}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if services, err := config.Empty(form()).Services(base(), nil); err != nil || len(services) != 1 || !services[0].Embedded || services[0].Name != "s3" {
		t.Errorf("without a file there are %+v, %v", services, err)
	}
}

func TestSmallForms(t *testing.T) {
	if got := service(t, "a", "services: {a: {upstream: 'http://h/', parts: {p: {serializer: raw, source: {http: {url: 'http://{address}/x'}}}, q: {serializer: raw, source: {exec: {dump: [d, '{port}'], restore: [r]}}}}}}"); got.Upstream != "http://h" ||
		got.Parts[0].Source.HTTP.URL != "http://h:80/x" || got.Parts[1].Source.Exec.Dump[1] != "80" {
		t.Errorf("upstream: %+v", got)
	}
	if got := service(t, "a", "services: {a: {run: {command: [a]}, ready: {line: 'port \\d+'}}}"); got.Ready.Line != `port \d+` {
		t.Errorf("line: %+v", got.Ready)
	}
	if got := service(t, "a", "services: {a: {run: {command: [a]}, ready: {none: true}, idle: 0}}"); !got.Ready.None {
		t.Errorf("none: %+v", got.Ready)
	}
	if got := service(t, "a", "services: {a: {run: {command: [a], env: {PATH: /opt, HOME: /x}, inherit: [HOME]}}}"); !slices.Equal(got.Run.Env, []string{"HOME=/x", "PATH=/opt"}) {
		t.Errorf("what env says wins: %q", got.Run.Env)
	}
	if services, _, err := parse(t, "services: {s3: {enabled: false}, a: {enabled: false, upstream: 'http://h'}, b: {upstream: 'http://h'}}"); err != nil || len(services) != 1 || services[0].Name != "b" {
		t.Errorf("switched off: %+v, %v", services, err)
	}
	if got := service(t, "b", "x-not: {}\nservices: {a: &a {upstream: 'http://h', idle: 0, match: {path: [/a]}}, b: {<<: *a, match: {path: [/b]}}}\n"[len("x-not: {}\n"):]); got.Upstream != "http://h" || got.Match.Paths[0] != "/b" {
		t.Errorf("merge key: %+v", got)
	}
}

func TestInData(t *testing.T) {
	s := service(t, "orders", everything)
	before := fmt.Sprintf("%+v %+v", s.Run, *s.Parts[5].Source.Files)
	in := s.InData("/d")
	if in.Parts[5].Source.Files.Root != "/d" || in.Parts[1].Source.SQLite.Path != "/d/dbs" || in.Parts[1].Source.SQLite.Spool != "/d/tmp" {
		t.Errorf("got %+v", in.Parts)
	}
	if after := fmt.Sprintf("%+v %+v", s.Run, *s.Parts[5].Source.Files); after != before {
		t.Error("the service itself was changed")
	}
	run := config.Service{Run: &config.Run{Command: []string{"{data}{data}", "{port}"}, Env: []string{"A={data}"}, Folder: "{data}"}}.InData("/{port}").Run
	if !reflect.DeepEqual(run, &config.Run{Command: []string{"/{port}/{port}", "{port}"}, Env: []string{"A=/{port}"}, Folder: "/{port}"}) {
		t.Errorf("got %+v", run)
	}
	if got := config.Expand("{port} {address} {other} {folder}", map[string]string{"port": "{address}", "address": "1", "other": "2"}); got != "{address} 1 {other} {folder}" {
		t.Errorf("got %q", got)
	}
	for _, kind := range []string{"http", "sqlite", "exec", "file", "push", "files"} {
		if got := s.Parts[0].Source.Kind(); got != kind {
			t.Errorf("kind %s, want %s", got, kind)
		}
		s.Parts = s.Parts[1:]
	}
	if (config.Source{}).Kind() != "" {
		t.Error("no source has a kind")
	}
}

func TestValues(t *testing.T) {
	_, d, err := parse(t, `
listen: ":1"
proof: OFF
flush_interval: 0x10
limit_size: 64 MiB
limit_fuel: 5e9
persistence: true
modules:
  orders: {limit_size: 2048, limit_fuel: 4000000000000000000}
  empty:
`)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"listen": ":1", "proof": "OFF", "flush_interval": "16", "limit_size": "64 MiB", "limit_fuel": "5000000000", "persistence": "true",
		"modules.orders.limit_size": "2048", "modules.orders.limit_fuel": "4000000000000000000"}
	if got := d.Values(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := d.Where("modules.orders.limit_size"), path(t)+":9: modules.orders.limit_size"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := d.Where("nowhere.at.all"), path(t)+": nowhere.at.all"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// part is a file with one part whose source is as given.
func part(source string) string {
	return "services: {a: {upstream: 'http://h', parts: {store: {serializer: raw, source: " + source + "}}}}"
}

// a is a file with one service.
func a(service string) string { return "services: {a: {" + service + "}}" }

// mistake is a file that is refused. Most are refused by the schema too.
type mistake struct {
	name, text string
	want       string // in the error, after the file's name
	// schemaCannot says why the schema lets it pass, if it does.
	schemaCannot string
}

func mistakes() []mistake {
	run := func(rest string) string { return a("run: {command: [x]}, " + rest) }
	up := func(rest string) string { return a("upstream: 'http://h', " + rest) }
	return []mistake{
		{"unknown key", "lisen: x", ":1: lisen is not known; allowed are listen, proof, ", ""},
		{"wrong kind", "\nlisten: [x]", ":2: listen is a list; it must be a text", ""},
		{"a number for a text", "listen: 5", ":1: listen is 5; it must be a text", ""},
		{"empty text", "listen: ''", `:1: listen is ""`, ""},
		{"no value", "listen:", ":1: listen has no value", ""},
		{"choice", "proof: some", `:1: proof is "some"; allowed are full, off`, ""},
		{"choice of a wrong kind", "proof: {}", ":1: proof is a map; allowed are full, off", ""},
		{"duration", "flush_interval: soon", `:1: flush_interval is "soon"; it must be seconds or a duration such as 500ms, from 1s to 1h`, ""},
		{"negative duration", "flush_interval: -5", ":1: flush_interval is -5", ""},
		{"duration out of range", "flush_interval: 2h", `:1: flush_interval is "2h"`, "ranges of text"},
		{"seconds out of range", "flush_interval: 0.5", ":1: flush_interval is 0.5", ""},
		{"size", "limit_size: 1KB", `:1: limit_size is "1KB"; it must be bytes, or a number of KiB, MiB, GiB or TiB, from 1KiB to 1TiB`, ""},
		{"size out of range", "limit_size: 2TiB", `:1: limit_size is "2TiB"`, "ranges of text"},
		{"size beyond numbers", "limit_size: 99999999999999999999TiB", `:1: limit_size is`, "ranges of text"},
		{"number", "limit_fuel: 1.5", ":1: limit_fuel is 1.5; it must be a whole number from 1 to 4000000000000000000", ""},
		{"number out of range", "limit_fuel: 0", ":1: limit_fuel is 0", ""},
		{"not a number", "limit_fuel: .nan", ":1: limit_fuel is .nan", "not a number has no form in JSON"},
		{"switch", "persistence: yes", `:1: persistence is "yes"; allowed are 1, true, 0, false`, ""},
		{"switch with a number", "persistence: 2", ":1: persistence is 2", ""},
		{"modules", "modules: [a]", ":1: modules is a list; it must be a map, of names of modules", ""},
		{"a module's name", "modules: {A: {}}", `:1: modules has the key "A"`, ""},
		{"a module's key", "modules: {a: {proof: full}}", ":1: modules.a.proof is not known; allowed are limit_size, limit_fuel", ""},
		{"a module's limit", "modules:\n  a:\n    limit_size: 1", ":3: modules.a.limit_size is 1", ""},
		{"services", "services: 5", ":1: services is 5; it must be a map", ""},
		{"a service's name", "services: {A: {upstream: 'http://h'}}", `:1: services has the key "A"; allowed are names of services: a letter`, ""},
		{"a dot in a name", "services: {a.b: {upstream: 'http://h'}}", `:1: services has the key "a.b"`, ""},
		{"a service that is text", "services:\n  a: x\n", `:2: services.a is "x"; it must be a map, of preset, enabled, run, upstream`, ""},
		{"neither run nor upstream", "services:\n  a: {}\n", ":2: services.a has neither run nor upstream; it needs one of the two", ""},
		{"an empty service", "services:\n  a:\n", ":2: services.a has neither run nor upstream", ""},
		{"run and upstream", up("run: {command: [x]}"), ":1: services.a.upstream stands beside run; allowed is one of the two", ""},
		{"ready without run", up("ready: {none: true}"), ":1: services.a.ready stands without run", ""},
		{"idle without run", up("idle: 5m"), ":1: services.a.idle stands without run; a service that somebody else runs cannot be put to sleep", ""},
		{"unknown key of a service", up("reed: x"), ":1: services.a.reed is not known; allowed are preset, enabled, run", ""},
		{"unknown key of run", a("run: {command: [x], comand: y}"), ":1: services.a.run.comand is not known; allowed are command, env, inherit, folder, port", ""},
		{"enabled", up("enabled: maybe"), `:1: services.a.enabled is "maybe"; it must be true or false`, ""},
		{"enabled with a number", up("enabled: 1"), `:1: services.a.enabled is 1; it must be true or false`, ""},
		{"no command", a("run: {}"), ":1: services.a.run.command is missing: the program and its arguments", ""},
		{"run without anything", a("run: "), ":1: services.a.run.command is missing", ""},
		{"a command that is text", a("run: {command: npx kinesis}"), `:1: services.a.run.command is "npx kinesis"; it must be a list, such as [json-server, `, ""},
		{"an empty command", a("run: {command: []}"), ":1: services.a.run.command is a list; it must be a list, such as", ""},
		{"an empty program", a("run: {command: ['', x]}"), `:1: services.a.run.command[0] is ""`, ""},
		{"a command with a list", a("run: {command: [x, [y]]}"), ":1: services.a.run.command[1] is a list; it must be one value", ""},
		{"a key with nothing", "services:\n  a:\n    run: {command: [x]}\n    idle:\n", ":4: services.a.idle has no value", ""},
		{"a command with null", a("run: {command: [x, null]}"), `:1: services.a.run.command[1] has no value; write ""`, ""},
		{"a missing variable", a("run: {command: [x, '${NOPE}']}"), `:1: services.a.run.command[1] needs ${NOPE}, which the runtime's environment does not have; set it, or give a default: ${NOPE:-…}`, "what variables there are"},
		{"a single dollar sign", a("run: {command: [x, $HOME]}"), ":1: services.a.run.command[1] has a single $; write $$ for a dollar sign", ""},
		{"a dollar sign at the end", a("run: {command: [x, 5$]}"), ":1: services.a.run.command[1] has a single $", ""},
		{"a variable without an end", a("run: {command: [x, '${HOME']}"), ":1: services.a.run.command[1] has a single $", ""},
		{"a variable without a name", a("run: {command: [x, '${-}']}"), ":1: services.a.run.command[1] has ${-}, which names no variable", ""},
		{"a zero byte", a(`run: {command: [x, "a\0"]}`), ":1: services.a.run.command[1] has a zero byte", "zero bytes"},
		{"env as a list", a("run: {command: [x], env: [A=b]}"), ":1: services.a.run.env is a list; it must be a map, of names of variables", ""},
		{"env without a value", a("run: {command: [x], env: {A: }}"), `:1: services.a.run.env.A has no value; write "" for an empty one`, ""},
		{"env with a map", a("run: {command: [x], env: {A: {}}}"), ":1: services.a.run.env.A is a map; it must be one value", ""},
		{"env with a bad name", a("run: {command: [x], env: {A=B: c}}"), `:1: services.a.run.env has the key "A=B"; allowed are names of variables`, ""},
		{"inherit", a("run: {command: [x], inherit: HOME}"), `:1: services.a.run.inherit is "HOME"; it must be a list, such as [HOME, LANG]`, ""},
		{"inherit twice", a("run: {command: [x], inherit: [HOME, HOME]}"), `:1: services.a.run.inherit[1] is "HOME", which stands there twice`, ""},
		{"port", a("run: {command: [x], port: 70000}"), ":1: services.a.run.port is 70000; it must be a whole number from 0 to 65535", ""},
		{"a port as text", a("run: {command: [x], port: '80'}"), `:1: services.a.run.port is "80"`, ""},
		{"ready timeout", a("run: {command: [x], ready_timeout: 2h}"), `:1: services.a.run.ready_timeout is "2h"; it must be seconds or a duration such as 500ms, from 100ms to 1h`, "ranges of text"},
		{"restarts", a("run: {command: [x], restarts: {most: -1}}"), ":1: services.a.run.restarts.most is -1", ""},
		{"two ways to be ready", run("ready: {http: /, line: x}"), ":1: services.a.ready has http and line; allowed is one of http, line, none", ""},
		{"a status of nothing", run("ready: {status: 200}"), ":1: services.a.ready.status stands without http", ""},
		{"status", run("ready: {http: /, status: 99}"), ":1: services.a.ready.status is 99; it must be a whole number from 100 to 599", ""},
		{"ready by no path", run("ready: {http: health}"), `:1: services.a.ready.http is "health"; it must be a path such as /health`, ""},
		{"ready by no expression", run("ready: {line: '('}"), `:1: services.a.ready.line is "(": error parsing regexp: missing closing )`, "regular expressions"},
		{"upstream that is no URL", a("upstream: localhost:80"), `:1: services.a.upstream is "localhost:80"; it must be a URL without TLS and without a path, such as http://127.0.0.1:8080`, ""},
		{"upstream with a path", a("upstream: http://h/x"), `:1: services.a.upstream is "http://h/x"`, ""},
		{"upstream with a bad port", a("upstream: 'http://h:99999'"), `its port is not from 1 to 65535`, "what is a URL"},
		{"upstream without a host", a("upstream: 'http://:80'"), "it names no host", "what is a URL"},
		{"upstream that is broken", a("upstream: 'http://[::1'"), `:1: services.a.upstream is "http://[::1": missing ']' in host`, "what is a URL"},
		{"host with a port", up("match: {host: ['a:80']}"), `:1: services.a.match.host[0] is "a:80"; it must be such as in [orders.localhost`, ""},
		{"host with a star inside", up("match: {host: ['a.*.b']}"), `:1: services.a.match.host[0] is "a.*.b"`, ""},
		{"host as text", up("match: {host: a}"), `:1: services.a.match.host is "a"; it must be a list`, ""},
		{"no hosts", up("match: {host: []}"), ":1: services.a.match.host is a list; it must be a list, such as", ""},
		{"a path without a slash", up("match: {path: [orders]}"), `:1: services.a.match.path[0] is "orders"`, ""},
		{"a path with a query", up("match: {path: ['/a?b']}"), `:1: services.a.match.path[0] is "/a?b"`, ""},
		{"a path twice", up("match: {path: [/a, /a/]}"), `:1: services.a.match.path[1] is "/a/", which stands there twice`, "that / at the end is nothing"},
		{"strip without a path", up("match: {strip: true}"), ":1: services.a.match.strip stands without path, whose prefixes it takes away", ""},
		{"header's name", up("match: {header: {'a b': c}}"), `:1: services.a.match.header has the key "a b"`, ""},
		{"header without a value", up("match: {header: {a: ''}}"), `:1: services.a.match.header.a is empty`, ""},
		{"header twice", up("match: {header: {x-a: b, X-A: c}}"), `:1: services.a.match.header.X-A stands there twice`, "names in another case"},
		{"the header Host", up("match: {header: {host: b}}"), `:1: services.a.match.header has Host; use match.host`, "names in another case"},
		{"aws", up("match: {aws: [Kinesis]}"), `:1: services.a.match.aws[0] is "Kinesis"`, ""},
		{"methods", up("reads: {methods: [GET, get]}"), `:1: services.a.reads.methods[1] is "get", which stands there twice`, "words in another case"},
		{"operations", up("reads: {operations: [a-b]}"), `:1: services.a.reads.operations[0] is "a-b"`, ""},
		{"idle", run("idle: soon"), `:1: services.a.idle is "soon"; it must be seconds or a duration such as 500ms, from 100ms to 720h, or 0`, ""},
		{"upgraded", run("upgraded: keep"), `:1: services.a.upgraded is "keep"; allowed are release, hold`, ""},
		{"strategy", run("save_strategy: HOURLY"), `:1: services.a.save_strategy is "HOURLY"; allowed are SCHEDULED, ON_REQUEST, ON_SHUTDOWN, MANUAL`, ""},
		{"a part's name", up("parts: {Store: {serializer: raw, source: {push: {}}}}"), `:1: services.a.parts has the key "Store"; allowed are names of parts, such as store, backend and assets`, ""},
		{"an empty part", up("parts: {store: }"), ":1: services.a.parts.store.serializer is missing: the serializer: built in, or pinned", ""},
		{"a part without a source", up("parts: {store: {serializer: raw}}"), ":1: services.a.parts.store.source is missing: where its state comes from and goes to: one of file, files, sqlite, http, exec, push", ""},
		{"a serializer's name", up("parts: {store: {serializer: ../x, source: {push: {}}}}"), `:1: services.a.parts.store.serializer is "../x"`, ""},
		{"settings that are a list", up("parts: {store: {serializer: raw, settings: [x], source: {push: {}}}}"), ":1: services.a.parts.store.settings is a list", ""},
		{"lag", up("parts: {store: {serializer: raw, lag: 2h, source: {push: {}}}}"), `:1: services.a.parts.store.lag is "2h"`, "ranges of text"},
		{"no source", part("{}"), ":1: services.a.parts.store.source has none; it must have one of file, files, sqlite, http, exec, push", ""},
		{"a source without a value", part(""), ":1: services.a.parts.store.source has none", ""},
		{"two sources", part("{push: {}, files: {root: x}}"), ":1: services.a.parts.store.source has push and files; it must have one of file, files, sqlite, http, exec, push", ""},
		{"an unknown source", part("{redis: {}}"), ":1: services.a.parts.store.source.redis is not known; allowed are file, files, sqlite, http, exec, push", ""},
		{"an upstream with TLS", "services: {a: {upstream: 'https://h:1'}}", `:1: services.a.upstream is "https://h:1"; it must be a URL without TLS and without a path`, ""},
		{"the name of another folder", "services: {api_states: {run: {command: [a]}}}", ":1: services.api_states has the name of the folder in which states are kept", "names of folders"},
		{"a misspelt placeholder", "services: {a: {run: {command: [a, '--port={prot}']}}}", ":1: services.a.run.command[1] has {prot}; is {port} meant?", "words"},
		{"a misspelt folder", part("{file: {path: '{daat}/x'}}"), ":1: services.a.parts.store.source.file.path has {daat}; is {data} meant?", "words"},
		{"Torpor's own path", up("match: {path: [/_torpor/x]}"), ":1: services.a.match.path has /_torpor/x, which is Torpor's own", "words"},
		{"none and a host", up("match: {none: true, host: [a]}"), ":1: services.a.match has none beside conditions", ""},
		{"none and idle", "services: {a: {run: {command: [a]}, match: {none: true}, idle: 1m}}", ":1: services.a.idle stands beside match", ""},
		{"a check that there is not", part("{file: {path: x, check: yaml}}"), `:1: services.a.parts.store.source.file.check is "yaml"; allowed are json`, ""},
		{"empty that is a number", part("{file: {path: x, empty: 1}}"), ":1: services.a.parts.store.source.file.empty is 1; it must be a text", ""},
		{"a source that is text", part("push"), `:1: services.a.parts.store.source is "push"; it must be a map, of file, files, sqlite`, ""},
		{"files without a root", part("{files: {}}"), ":1: services.a.parts.store.source.files.root is missing: the folder", ""},
		{"a bad pattern", part("{files: {root: x, include: ['[']}}"), `:1: services.a.parts.store.source.files.include[0] is "[": syntax error in pattern`, "patterns"},
		{"too many tries", part("{files: {root: x, tries: 101}}"), ":1: services.a.parts.store.source.files.tries is 101; it must be a whole number from 1 to 100", ""},
		{"sqlite without a path", part("{sqlite: {pattern: '*.db'}}"), ":1: services.a.parts.store.source.sqlite.path is missing", ""},
		{"a pattern with a slash", part("{sqlite: {path: x, pattern: 'a/*'}}"), `:1: services.a.parts.store.source.sqlite.pattern is "a/*"`, ""},
		{"form", part("{sqlite: {path: x, form: text}}"), `:1: services.a.parts.store.source.sqlite.form is "text"; allowed are rows, pages`, ""},
		{"migrate", part("{sqlite: {path: x, migrate: {drop: {t: c}}}}"), `:1: services.a.parts.store.source.sqlite.migrate.drop.t is "c"; it must be a list`, ""},
		{"http without a URL", part("{http: {}}"), ":1: services.a.parts.store.source.http.url is missing: the state URL", ""},
		{"a bad URL", part("{http: {url: '/state'}}"), `:1: services.a.parts.store.source.http.url is "/state"; it must be a URL such as http://{address}/_torpor/state/store`, ""},
		{"a header with a line", part(`{http: {url: 'http://h', header: {a: "b\nc"}}}`), `:1: services.a.parts.store.source.http.header.A has characters that are not allowed in a header`, "what variables hold, so not what a value may be"},
		{"cursors without atomic", part("{http: {url: 'http://h', cursor: true}}"), ":1: services.a.parts.store.source.http.cursor stands without atomic: true", ""},
		{"cursors of what is no records", part("{http: {url: 'http://h', atomic: true, cursor: true, media: text/plain}}"), `:1: services.a.parts.store.source.http.media is "text/plain" beside cursor`, ""},
		{"exec without restore", part("{exec: {dump: [x]}}"), ":1: services.a.parts.store.source.exec.restore is missing: the command that reads it", ""},
		{"spool", part("{push: {spool_memory: 0}}"), ":1: services.a.parts.store.source.push.spool_memory is 0; it must be bytes, or a number of KiB, MiB, GiB or TiB, from 1 to 1GiB", ""},
		{"the embedded service with run", "services: {s3: {run: {command: [x]}}}", ":1: services.s3.run is not known; allowed are enabled, match, idle, save_strategy", ""},
		{"unknown preset", a("preset: nope"), `:1: services.a.preset is "nope"; there are`, "which presets there are"},
		{"a preset of the wrong kind", a("preset: [json-server]"), ":1: services.a.preset is a list", ""},
		{"run and upstream above a preset", a("preset: json-server, run: {command: [x]}, upstream: 'http://h'"), ":1: services.a.upstream stands beside run", ""},
		{"a new part above a preset", a("preset: json-server, parts: {more: {}}"), ":1: services.a.parts.more.serializer is missing", "what the preset has"},
		{"two with the same host", "services:\n  a: {upstream: 'http://h', match: {host: [x]}}\n  b: {upstream: 'http://h', match: {host: [y, X]}}\n", ":3: services.b.match takes the same requests as services.a (host x); each must have a condition of its own", "other services"},
		{"two with the same path and header", "services:\n  a: {upstream: 'http://h', match: {path: [/x], header: {a: b}}}\n  b: {upstream: 'http://h', match: {path: [/x/], header: {A: b}}}\n", "(path /x, header A)", "other services"},
		{"the host that is meant without a match", "services:\n  a: {upstream: 'http://h', match: {host: [b.localhost]}}\n  b: {upstream: 'http://h'}\n", ":3: services.b.match takes the same requests as services.a (host b.localhost)", "other services"},
		{"two with the same aws", "services:\n  s3: {match: {aws: [s3]}}\n  b: {upstream: 'http://h', match: {aws: [s3]}}\n", ":2: services.s3.match takes the same requests as services.b (aws s3)", "other services"},
	}
}

// TestMistakes: each mistake is told with file, line and key, and the schema refuses the same files, but for what a
// schema cannot say.
func TestMistakes(t *testing.T) {
	schema := compile(t)
	for _, c := range mistakes() {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := parse(t, c.text)
			if err == nil {
				t.Fatalf("no error for %s", c.text)
			}
			if !strings.Contains(err.Error(), c.want) || strings.HasPrefix(c.want, ":") && !strings.Contains(err.Error(), path(t)+c.want) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
			var fault *config.Fault
			if !errors.As(err, &fault) || fault.File == "" || fault.Problem == "" {
				t.Errorf("the error is none of the file's: %v", err)
			}
			schemaErr := schema.Validate(instance(t, c.text))
			if c.schemaCannot == "" && schemaErr == nil {
				t.Errorf("the schema takes %s", c.text)
			}
			if c.schemaCannot != "" && schemaErr != nil {
				t.Errorf("the schema can tell, so the test should not say %q: %v", c.schemaCannot, schemaErr)
			}
		})
	}
}

// TestNotYAML are files that are refused before there are any keys.
func TestNotYAML(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for i := 'b'; i < 'k'; i++ {
		bomb += fmt.Sprintf("%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n", i, i, i-1, i-1, i-1, i-1, i-1, i-1, i-1, i-1, i-1)
	}
	for _, c := range []mistake{
		{"a list", "- a", ":1: the file is a list; it must hold keys and values", ""},
		{"a word", "hello", ":1: the file is one value", ""},
		{"broken", "services: [", ": line 1: did not find expected node content", ""},
		{"a tab", "services:\n\ta: b", ": line 2: found character that cannot start any token", ""},
		{"two documents", "listen: a\n---\nlisten: b\n", ":2: a second document begins; allowed is one", ""},
		{"a key twice", "listen: a\nproof: full\nlisten: b\n", ":3: listen stands twice, first in line 1", ""},
		{"a service twice", "services:\n  a: {upstream: 'http://h'}\n  a: {upstream: 'http://i'}\n", ":3: services.a stands twice, first in line 2", ""},
		{"a tag", "listen: !env HOME\n", `:1: listen has the tag "!env", which is not known`, ""},
		{"a tag of a map", "services: !x {}\n", `:1: services has the tag "!x"`, ""},
		{"a key that is no text", "? [a]\n: b\n", ":1: has a key that is no text", ""},
		{"merging what is no map", "services: {a: {<<: x}}", ":1: services.a.<< is one value; it must be a map, or a list of maps", ""},
		{"aliases of aliases", bomb, "is too much: allowed are 100000 values", ""},
		{"an alias in itself", "services: &a {b: *a}", "", ""},
		{"deep", "services: " + strings.Repeat("{a: ", 100) + strings.Repeat("}", 100), "is too much: allowed are 100000 values, aliases counted as what they stand for, and 64 levels", ""},
		{"large", strings.Repeat("#", config.MaxBytes+1), ": the file has 1048577 bytes; allowed are 1048576", ""},
	} {
		_, _, err := parse(t, c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 1<<16 {
			t.Errorf("%s: %.2000v", c.name, err)
		}
	}
}

// TestAllAtOnce: the mistakes of a file are all told, in the order of its lines, but not without end.
func TestAllAtOnce(t *testing.T) {
	_, _, err := parse(t, "services:\n  b: {idle: x, run: {}}\n  a:\n    upstream: y\n    parts:\n      p: {source: {}}\nlisten: []\n")
	var lines []string
	for line := range strings.Lines(err.Error()) {
		lines = append(lines, strings.TrimPrefix(strings.SplitN(strings.TrimPrefix(line, path(t)+":"), " is ", 2)[0], ""))
	}
	want := []string{"7: listen", "2: services.b.idle", "2: services.b.run.command", "4: services.a.upstream", "6: services.a.parts.p.source has none; it must have one of file, files, sqlite, http, exec, push\n", "6: services.a.parts.p.serializer"}
	if !slices.Equal(lines, want) {
		t.Errorf("got  %q\nwant %q", lines, want)
	}
	var many strings.Builder
	for i := range 200 {
		fmt.Fprintf(&many, "key%d: x\n", i)
	}
	_, _, err = parse(t, many.String())
	if got := strings.Count(err.Error(), "\n"); got != 100 || !strings.HasSuffix(err.Error(), "and 100 more") {
		t.Errorf("%d lines: %v", got, err)
	}
}

// good are files that are accepted, by the schema too.
func good() []string {
	return []string{
		"", "# nothing\n", "{}", "services:", "services: {}", "modules:\n  a:\n", everything,
		"services: {s3: }", "services: {s3: {enabled: false, idle: 1s, match: {host: [s3.localhost]}, proof: Full}}",
		"persistence: 1", "persistence: '0'", "persistence: TRUE", "limit_size: 4e4", "limit_size: '2048'", "limit_size: 2MiB", "limit_fuel: '7'", "limit_fuel: 5.0",
		"flush_interval: 1.5", "flush_interval: '2'", "flush_interval: 1m30s", "proof: OFF",
		part("{push: }"), part("{push: {}}"), part("{files: {root: x}}"), part("{sqlite: {path: x}}"), part("{http: {url: 'https://h:1/x?y=z'}}"), part("{http: {url: 'http://h', cursor: false}}"), part("{http: {url: 'http://h', cursor: true, atomic: true}}"),
		part("{exec: {dump: [a], restore: [b, '']}}"),
		a("upstream: 'http://127.0.0.1:80'"), a("upstream: 'http://[::1]:80/'"), a("upstream: http://h, idle: 0"), a("upstream: http://h, match: , reads: , parts: "),
		a("run: {command: [x, '${TOKEN}', '$$', '${X:-}', '${X:-a:b}', {}]}"[:len("run: {command: [x, '${TOKEN}', '$$', '${X:-}', '${X:-a:b}'")] + "]}"),
		a("run: {command: [x], env: , restarts: }, ready: "), a("run: {command: [x]}, ready: {http: /, status: 200}"), a("run: {command: [x]}, ready: {none: false}, idle: 0"),
		a("preset: json-server"), a("preset: json-server, match: {path: [/x], strip: true}, idle: 5m"), a("preset: json-server, run: {port: 80}"),
		a("preset: json-server, upstream: 'http://h'"), a("preset: json-server, ready: {line: x}"), a("preset: json-server, parts: {store: {source: {sqlite: {path: x}}}}"),
		"services:\n  a: {upstream: 'http://h', match: {host: [x], path: [/a]}}\n  b: {upstream: 'http://h', match: {host: [x], path: [/b]}}\n  c: {upstream: 'http://h', match: {host: [x]}}\n",
		"services:\n  a: {upstream: 'http://h', match: {aws: [s3], header: {x: a}}}\n  b: {upstream: 'http://h', match: {aws: [s3], header: {x: b}}}\n",
	}
}

func TestGoodFiles(t *testing.T) {
	schema := compile(t)
	for _, text := range good() {
		if _, _, err := parse(t, text); err != nil {
			t.Errorf("%s\n%v", text, err)
		}
		if err := schema.Validate(instance(t, text)); err != nil {
			t.Errorf("the schema refuses %s\n%v", text, err)
		}
	}
}

// TestPresetsUnderTheFile: what the file says wins, key by key, and where it chooses otherwise than the preset, what
// belongs to the preset's choice is gone.
func TestPresetsUnderTheFile(t *testing.T) {
	plain := service(t, "a", a("preset: json-server"))
	if plain.Preset != "json-server" || plain.Run.Command[0] != "json-server" || plain.Ready.HTTP == "" || plain.Parts[0].Source.File.Path != "{data}/db.json" || plain.Match.Hosts[0] != "a.localhost" {
		t.Errorf("got %+v", plain)
	}
	own := service(t, "a", a("preset: json-server, run: {port: 7000, env: {A: b}}, ready: {line: x}, parts: {store: {lag: 9s, source: {file: {tries: 3}}}, more: {serializer: raw, source: {push: {}}}}"))
	if own.Run.Port != 7000 || own.Run.Command[0] != "json-server" || own.Ready.HTTP != "" || own.Ready.Line != "x" {
		t.Errorf("run %+v, ready %+v", own.Run, own.Ready)
	}
	if len(own.Parts) != 2 || own.Parts[1].Lag != 9*time.Second || own.Parts[1].Serializer != "json" || own.Parts[1].Source.File.Tries != 3 || own.Parts[1].Source.File.Path != "{data}/db.json" {
		t.Errorf("parts %+v", own.Parts)
	}
	command := service(t, "a", a("preset: json-server, run: {command: [x]}"))
	if !slices.Equal(command.Run.Command, []string{"x"}) {
		t.Errorf("a list replaces: %q", command.Run.Command)
	}
	up := service(t, "a", a("preset: json-server, upstream: 'http://h'"))
	if up.Run != nil || up.Ready != (supervisor.Ready{}) || len(up.Parts) != 1 {
		t.Errorf("upstream: %+v", up)
	}
	other := service(t, "a", a("preset: json-server, parts: {store: {source: {push: {}}}}"))
	if other.Parts[0].Source.Kind() != "push" || other.Parts[0].Serializer != "json" {
		t.Errorf("source: %+v", other.Parts[0])
	}
	_, _, err := parse(t, a("preset: json-server, parts: {store: {source: {files: {root: 5}}}}"))
	if err == nil || !strings.Contains(err.Error(), path(t)+":1: services.a.parts.store.source.files.root is 5") {
		t.Errorf("the file's mistake: %v", err)
	}
}

// TestPresets holds every preset that lies in the folder against the parser and the schema.
func TestPresets(t *testing.T) {
	schema := compile(t)
	lie, err := filepath.Glob("presets/*")
	if err != nil {
		t.Fatal(err)
	}
	names := config.Presets()
	if len(lie) != len(names) || !slices.Contains(names, "json-server") || !slices.IsSorted(names) {
		t.Errorf("there are %q, in the folder %q", names, lie)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			b, err := config.Preset(name)
			if err != nil {
				t.Fatal(err)
			}
			about := config.PresetAbout(name)
			if !strings.HasPrefix(string(b), "# ") || !strings.ContainsAny(about, "0123456789") {
				t.Errorf("the first line does not say which program and version it was made for: %q", about)
			}
			var written map[string]any
			if err := yaml.Unmarshal(b, &written); err != nil {
				t.Fatal(err)
			}
			if written["preset"] != nil {
				t.Error("a preset cannot be made from another")
			}
			s := service(t, "a", a("preset: "+name))
			if s.Preset != name || len(s.Parts) == 0 {
				t.Errorf("got %+v", s)
			}
			indented := "services:\n  x:\n    " + strings.ReplaceAll(string(b), "\n", "\n    ")
			if _, _, err := parse(t, indented); err != nil {
				t.Errorf("as a service: %v", err)
			}
			if err := schema.Validate(instance(t, indented)); err != nil {
				t.Errorf("the schema refuses it: %v", err)
			}
		})
	}
	for _, name := range []string{"", "nope", "../doc", "../presets/json-server", "json-server.yaml"} {
		if _, err := config.Preset(name); !errors.Is(err, abi.ErrNotFound) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestEffective: what is shown reads as a file with the same meaning, and secrets are in it only if asked for.
func TestEffective(t *testing.T) {
	for _, text := range good() {
		want, d, err := parse(t, text)
		if err != nil {
			t.Fatal(err)
		}
		shown := d.Effective(true)
		for _, s := range shown {
			delete(s.(map[string]any), "preset") // it is merged in
		}
		b, err := yaml.Marshal(map[string]any{"services": shown})
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := parse(t, string(b))
		if err != nil {
			t.Errorf("%s\nis shown as\n%s\n%v", text, b, err)
			continue
		}
		for i := range want {
			want[i].Preset = ""
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s\nis shown as\n%s\ngot  %+v\nwant %+v", text, b, got, want)
		}
	}
	_, d, err := parse(t, everything)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(d.Effective(false))
	if err != nil || strings.Contains(string(b), "t0ken") || !strings.Contains(string(b), `"KEY":"***"`) || !strings.Contains(string(b), "--token=${TOKEN}") {
		t.Errorf("%v: %s", err, b)
	}
	if got := d.Command("orders"); !slices.Contains(got, "--token=${TOKEN}") || d.Command("nope") != nil || d.Command("s3") != nil {
		t.Errorf("got %q", got)
	}
}

// TestErrorsTellNoSecrets: what a variable holds is in no message.
func TestErrorsTellNoSecrets(t *testing.T) {
	_, _, err := parse(t, a(`run: {command: [x], env: {A: "${TOKEN} ${NOPE}", "B C": "${TOKEN}"}}, parts: {p: {serializer: raw, source: {http: {url: x, header: {A: "${TOKEN}`+"\\n"+`"}}}}}`))
	if err == nil || strings.Contains(err.Error(), "t0ken") {
		t.Errorf("got %v", err)
	}
}

func TestNumbers(t *testing.T) {
	for s, want := range map[string]time.Duration{"1": time.Second, "0.5": 500 * time.Millisecond, "1e1": 10 * time.Second, "1h2m": 62 * time.Minute, "2µs": 2 * time.Microsecond, "0": 0, ".5s": 500 * time.Millisecond} {
		if got, err := config.ParseDuration(s); err != nil || got != want {
			t.Errorf("%q is %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "-1", "-1s", "NaN", "inf", "0x1p3", "1 s", "1d", "9999999999999h", "+1", "1e300"} {
		if got, err := config.ParseDuration(s); err == nil {
			t.Errorf("%q is %v", s, got)
		}
	}
	for s, want := range map[string]int64{"1": 1, "4e9": 4e9, "64 MiB": 64 << 20, "1KiB": 1 << 10, "4194304TiB": 1 << 62, "9223372036854775807": 1<<63 - 1} {
		if got, err := config.ParseSize(s, 0, 1<<63-1); err != nil || got != want {
			t.Errorf("%q is %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "-1", "1.5KiB", "1KB", "8388608TiB", "1e30", "0x10", "KiB", "NaN"} {
		if got, err := config.ParseSize(s, 0, 1<<63-1); err == nil {
			t.Errorf("%q is %d", s, got)
		}
	}
	for s, want := range map[string]int64{"17": 17, "4e9": 4e9, "16": 0, "1KiB": 0, "17.5": 0, "1e10": 0} { // 0: refused
		if got, err := config.ParseNumber(s, 17, 4e9); got != want || (err == nil) != (want > 0) {
			t.Errorf("%q is %d, %v", s, got, err)
		}
	}
	for n, want := range map[int64]string{0: "0", 1: "1", 1 << 10: "1KiB", 3 << 20: "3MiB", 1<<30 + 1: "1073741825"} {
		if got := config.FormatSize(n); got != want {
			t.Errorf("%d is %s", n, got)
		}
	}
	for d, want := range map[time.Duration]string{0: "0s", time.Hour: "1h", 90 * time.Second: "1m30s", 10 * time.Minute: "10m", 720 * time.Hour: "720h"} {
		if got := config.FormatDuration(d); got != want {
			t.Errorf("%v is %s", d, got)
		}
	}
}

func makeSchema(t testing.TB) map[string]any {
	t.Helper()
	b, err := config.MakeSchema(form())
	if err != nil {
		t.Fatal(err)
	}
	var s map[string]any
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// compile compiles the schema of the tests' form, which checks that it is one.
func compile(t testing.TB) *jsonschema.Schema {
	t.Helper()
	return compiled(t, makeSchema(t))
}

func compiled(t testing.TB, s any) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource(config.SchemaURL, s); err != nil {
		t.Fatal(err)
	}
	out, err := c.Compile(config.SchemaURL)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// instance is a file as a validator has it.
func instance(t testing.TB, text string) any {
	t.Helper()
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	if v == nil {
		return map[string]any{}
	}
	return plain(v)
}

// plain makes of YAML's values JSON's.
func plain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = plain(v[k])
		}
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	case time.Time:
		return v.Format(time.DateOnly)
	case float64:
		if v != v {
			return json.Number("1")
		}
	}
	return v
}

// TestSchemaInTheRepository: the one that editors get is a schema, and takes the file that the program takes.
func TestSchemaInTheRepository(t *testing.T) {
	s, err := jsonschema.UnmarshalJSON(bytes.NewReader(config.Schema()))
	if err != nil {
		t.Fatal(err)
	}
	if err := compiled(t, s).Validate(instance(t, everything)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat("torpor.schema.json"); err != nil {
		t.Error(err)
	}
}

// FuzzRead: any file is an error or a configuration, which can be shown, and what is shown is one too.
func FuzzRead(f *testing.F) {
	for _, text := range good() {
		f.Add([]byte(text))
	}
	for _, c := range mistakes() {
		f.Add([]byte(c.text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, d, err := parse(t, string(b))
		shown, jsonErr := json.Marshal(d.Effective(false))
		if err != nil {
			if len(err.Error()) > 1<<20 {
				t.Errorf("%d bytes of error for %d bytes", len(err.Error()), len(b))
			}
			return
		}
		if jsonErr != nil {
			t.Fatalf("%v: %s", jsonErr, shown)
		}
		for key := range d.Values() {
			if !strings.HasPrefix(d.Where(key), path(t)+":") {
				t.Errorf("%s stands nowhere", key)
			}
		}
	})
}
