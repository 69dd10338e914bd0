package config

import (
	"errors"
	"maps"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

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

// Keys that more than one place speaks of.
const (
	keyServices = "services"
	keyModules  = "modules"
	keyPreset   = "preset"
	keyEnabled  = "enabled"
	keyRun      = "run"
	keyUpstream = "upstream"
	keyReady    = "ready"
	keyIdle     = "idle"
	keyParts    = "parts"
	keySource   = "source"
	keyPath     = "path"
	keyStrip    = "strip"
	keyHTTP     = "http"
	keyLine     = "line"
	keyNone     = "none"
	keyStatus   = "status"
	keyPattern  = "pattern"
	keyMigrate  = "migrate"
)

// both is the schema of objects that have two keys.
func both(a, b string) map[string]any {
	return map[string]any{"type": "object", "required": []string{a, b}}
}

// noneBeside is the schema of a match that takes no requests, and has a condition.
func noneBeside(key string) map[string]any {
	s := both(keyNone, key)
	s["properties"] = map[string]any{keyNone: map[string]any{"const": true}}
	return s
}

// never is a schema of what is none of all.
func never(all ...map[string]any) map[string]any {
	out := make([]any, len(all))
	for i, s := range all {
		out[i] = s
	}
	return map[string]any{"not": map[string]any{"anyOf": out}}
}

// needs is the schema of objects that have other keys wherever they have one.
func needs(key string, others ...string) map[string]any {
	return map[string]any{"dependentRequired": map[string]any{key: others}}
}

// statesFolder is what lies beside the folders of services in the data folder: package statedir's.
const statesFolder = "api_states"

// bounds of what the files source has in its own documentation only.
const (
	minSettle, maxSettle = time.Millisecond, 10 * time.Second
	maxTries             = 100
	maxFiles             = 100_000_000
	maxFileBytes         = 1 << 62
	maxPathBytes         = 16 << 10
	maxXattrBytes        = 64 << 10
	maxSQLiteWait        = time.Hour
	maxStatus            = 599
	maxPort              = 65535
)

// serviceForm is what a service that is not embedded may have. enabled is kept beside it.
func serviceForm(s *Service, enabled *bool) group {
	ready := readyForm(&s.Ready)
	keys := []key{
		{name: keyPreset, about: "the preset that the rest is merged into: see torpor config presets", value: text{to: &s.Preset, what: "the name of a preset", pattern: namePattern}},
		{name: keyEnabled, about: "false leaves the service out", def: "true", value: flag{to: enabled, def: true}},
		{name: keyRun, about: "the program that the runtime runs", value: newSection(&s.Run, runForm)},
		{name: keyUpstream, about: "where the service listens that somebody else runs", value: text{to: &s.Upstream, what: "a URL without TLS and without a path, such as http://127.0.0.1:8080", pattern: originPattern,
			check: checkURL, tidy: func(u string) string { return strings.TrimSuffix(u, "/") }}},
		{name: keyReady, about: "how it is known that the program can be used", def: "its port accepts connections", value: ready},
		{name: "match", about: "which requests are the service's: those that meet one value of each kind given", def: "the host NAME.localhost", value: matchForm(&s.Match)},
		{name: "reads", about: "which requests change nothing", value: readsForm(&s.Reads)},
		{name: "changed", about: "the command that tells whether anything has changed, where requests do not go through the gateway: exit code 0, it has, 1, it has not",
			value: wordList{to: &s.Changed, plain: new([]string), what: `[sh, -c, "test {data}/db -nt {data}/seen"]`, least: 1, numbers: true, expand: true, empty: true}},
		{name: keyIdle, about: "without requests for so long the service is saved and stopped; 0: never", def: "0", value: span{to: &s.Idle, least: MinIdle, most: MaxIdle, zero: true}},
		{name: "wake_timeout", about: "how long a request waits for a service that wakes", def: FormatDuration(DefaultWakeTimeout), value: span{to: &s.WakeTimeout, least: MinWakeTimeout, most: MaxWakeTimeout}},
		{name: "upgraded", about: "whether WebSockets and the like hold saves up", def: string(UpgradedRelease), value: oneOf[Upgraded]{&s.Upgraded, []Upgraded{UpgradedRelease, UpgradedHold}}},
	}
	keys = append(keys, strategyKeys(&s.Strategies)...)
	keys = append(keys, key{name: keyParts, about: "the parts of the state: store, backend, assets, or others", value: &named[Part]{to: &s.Parts, bind: partForm,
		what: "names of parts, such as store, backend and assets: a letter a to z, then letters, digits, _ and -"}})
	idles := never(map[string]any{"enum": []any{0, "0", "0s"}})
	noRequests := map[string]any{"type": "object", "required": []string{keyNone}, "properties": map[string]any{keyNone: map[string]any{"const": true}}}
	rules := never(both(keyRun, keyUpstream), both(keyReady, keyUpstream),
		map[string]any{"required": []string{keyIdle, keyUpstream}, "properties": map[string]any{keyIdle: idles}},
		map[string]any{"type": "object", "required": []string{keyIdle, "match"}, "properties": map[string]any{keyIdle: idles, "match": noRequests}})
	return group{keys: keys, rules: rules, needs: map[string]any{"anyOf": []any{map[string]any{"required": []string{keyRun}}, map[string]any{"required": []string{keyUpstream}}}}, must: true,
		after: func(r *reader, at string, n *node) { s.complete(r, at, n) }}
}

// complete checks what its keys alone cannot, and fills in what follows from others.
func (s *Service) complete(r *reader, at string, n *node) {
	if s.Name == statesFolder {
		r.add(n, at, "has the name of the folder in which states are kept, beside the services' own; choose another")
	}
	upstream, run := n.get(keyUpstream), n.get(keyRun)
	switch {
	case upstream != nil && run != nil:
		r.add(upstream, join(at, keyUpstream), "stands beside run; allowed is one of the two: run for a program that the runtime starts, upstream for one that somebody else does")
	case upstream == nil && run == nil:
		r.add(n, at, "has neither run nor upstream; it needs one of the two: run: {command: [...]}, or upstream: http://host:port (or a preset)")
	case upstream != nil:
		if ready := n.get(keyReady); ready != nil {
			r.add(ready, join(at, keyReady), "stands without run; it is for programs that the runtime starts")
		}
		if idle := n.get(keyIdle); idle != nil && s.Idle != 0 {
			r.add(idle, join(at, keyIdle), "stands without run; a service that somebody else runs cannot be put to sleep")
		}
	}
	if idle := n.get(keyIdle); idle != nil && s.Idle != 0 && s.Match.None {
		r.add(idle, join(at, keyIdle), "stands beside match: {none: true}; of a service that gets no requests nobody knows when it is idle")
	}
	if len(s.Match.Hosts)+len(s.Match.Paths)+len(s.Match.Headers)+len(s.Match.AWS) == 0 && !s.Match.None {
		s.Match.Hosts = []string{s.Name + ".localhost"}
	}
	if s.Match.None && n.get("load_strategy") == nil {
		s.Load = runtime.LoadOnStartup // no request would start it
	}
	s.completeParts()
	if u, err := url.Parse(s.Upstream); err == nil && u.Host != "" {
		address, port := u.Host, u.Port()
		if port == "" {
			port = "80"
			address += ":" + port
		}
		*s = s.expanded(map[string]string{"address": address, "port": port})
	}
}

func (s *Service) completeParts() {
	for i := range s.Parts {
		p := &s.Parts[i]
		if p.Proof == "" {
			p.Proof = s.Proof
		}
		if p.Compression == "" {
			p.Compression = s.Compression
		}
	}
}

// embeddedForm is what a service in this process may have.
func embeddedForm(s *Service, enabled *bool) group {
	keys := []key{
		{name: keyEnabled, about: "false leaves the service out", def: "true", value: flag{to: enabled, def: true}},
		{name: "match", about: "which requests are the service's", def: "what is no other's", value: matchForm(&s.Match)},
		{name: keyIdle, about: "without requests for so long the service is saved and its memory freed; 0: never", def: "0", value: span{to: &s.Idle, least: MinIdle, most: MaxIdle, zero: true}},
	}
	return group{keys: append(keys, strategyKeys(&s.Strategies)...)}
}

func runForm(run *Run) group {
	run.ReadyTimeout, run.StopTimeout = supervisor.DefaultReadyTimeout, supervisor.DefaultStopTimeout
	run.Restarts = supervisor.Restarts{Most: supervisor.DefaultRestarts, Within: supervisor.DefaultWithin}
	env, command := environment{to: &run.Env}, new([]string)
	keys := []key{{name: "command", about: "the program and its arguments; no shell reads them", required: true,
		value: wordList{to: &run.Command, plain: command, what: `[json-server, "--port={port}", "{data}/db.json"]`, least: 1, numbers: true, expand: true, empty: true}}}
	keys = append(keys, env.keys(&run.Inherit)...)
	keys = append(keys,
		key{name: "folder", about: "where it runs", def: "the folder of the file", value: text{to: &run.Folder, what: "a folder", folder: true}},
		key{name: "port", about: "where it listens; 0: a free port", def: "0", value: whole[int]{to: &run.Port, most: maxPort}},
		key{name: "ready_timeout", about: "how long it may take until it is ready", def: FormatDuration(supervisor.DefaultReadyTimeout), value: span{to: &run.ReadyTimeout, least: supervisor.MinReadyTimeout, most: supervisor.MaxReadyTimeout}},
		key{name: "stop_timeout", about: "between asking it to end (SIGTERM) and ending it (SIGKILL)", def: FormatDuration(supervisor.DefaultStopTimeout), value: span{to: &run.StopTimeout, least: supervisor.MinStopTimeout, most: supervisor.MaxStopTimeout}},
		key{name: "restarts", about: "how often it is started again when it dies", value: restartsForm(&run.Restarts)})
	return group{keys: keys, after: func(r *reader, _ string, _ *node) {
		env.complete(r, run.Inherit)
		if run.Folder == "" {
			run.Folder = r.folder
		}
	}}
}

func restartsForm(s *supervisor.Restarts) group {
	most := new(int)
	*most = s.Most
	return group{keys: []key{
		{name: "most", about: "so often; 0: never", def: "10", value: whole[int]{to: most, most: supervisor.MaxRestarts, zero: true}},
		{name: "within", about: "in such a time, then it is given up", def: FormatDuration(supervisor.DefaultWithin), value: span{to: &s.Within, least: supervisor.MinWithin, most: supervisor.MaxWithin}},
	}, after: func(*reader, string, *node) {
		if s.Most = *most; *most == 0 {
			s.Most = -1
		}
	}}
}

// environment is what a program gets, as NAME=VALUE.
type environment struct {
	to  *[]string
	own map[string]string
}

func (e *environment) keys(inherit *[]string) []key {
	return []key{
		{name: "env", about: "variables of its environment, which has nothing else but PATH and what inherit names",
			value: wordMap{to: &e.own, keyWhat: "names of variables", keys: envNamePattern, numbers: true, expand: true, secret: true}},
		{name: "inherit", about: "names of variables of the runtime's environment that are passed on, where it has them",
			value: wordList{to: inherit, what: "[HOME, LANG]", pattern: envNamePattern, unique: true}},
	}
}

// complete puts together what the program gets. PATH is passed on unless there is another one: without it few
// commands could be found, and it is no secret.
func (e *environment) complete(r *reader, inherit []string) {
	all := map[string]string{}
	for _, name := range append([]string{"PATH"}, inherit...) {
		if v, ok := r.lookup(name); ok {
			all[name] = v
		}
	}
	maps.Copy(all, e.own)
	*e.to = nil
	for _, name := range slices.Sorted(maps.Keys(all)) {
		*e.to = append(*e.to, name+"="+all[name])
	}
}

func readyForm(s *supervisor.Ready) group {
	return group{keys: []key{
		{name: keyHTTP, about: "a GET of this path is answered", value: text{to: &s.HTTP, what: "a path such as /health", pattern: `^/[^#\s]*$`}},
		{name: keyStatus, about: "with this status", def: "any of 2xx", value: whole[int]{to: &s.Status, least: 100, most: maxStatus}},
		{name: keyLine, about: "it has said a line that matches this regular expression", value: text{to: &s.Line, what: "a regular expression, such as 'listening on port \\d+'", check: checkRegexp}},
		{name: keyNone, about: "true: when it has been started", value: flag{to: &s.None}},
	},
		rules: map[string]any{"allOf": []any{never(both(keyHTTP, keyLine), both(keyHTTP, keyNone), both(keyLine, keyNone)), needs(keyStatus, keyHTTP)}},
		after: func(r *reader, at string, n *node) {
			var has []string
			for _, k := range []string{keyHTTP, keyLine, keyNone} {
				if n.get(k) != nil {
					has = append(has, k)
				}
			}
			if len(has) > 1 {
				r.add(n, at, "has %s; allowed is one of http, line, none", strings.Join(has, " and "))
			}
			if status := n.get(keyStatus); status != nil && n.get(keyHTTP) == nil {
				r.add(status, join(at, keyStatus), "stands without http, whose answer's status it is")
			}
		}}
}

func checkRegexp(s string) error {
	_, err := regexp.Compile(s)
	return err
}

func checkURL(s string) error {
	u, err := url.Parse(Expand(s, map[string]string{"address": "127.0.0.1:1", "port": "1"}))
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err // without the URL, which the message has already
	}
	if err != nil {
		return err
	}
	if u.Hostname() == "" {
		return errors.New("it names no host")
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.Atoi(p); err != nil || n < 1 || n > maxPort {
			return errors.New("its port is not from 1 to 65535")
		}
	}
	return nil
}

func trimSlash(s string) string {
	if len(s) > 1 {
		return strings.TrimSuffix(s, "/")
	}
	return s
}

func matchForm(m *Match) group {
	return group{keys: []key{
		{name: "host", about: "hosts, without port; *.NAME is every one below NAME", value: wordList{to: &m.Hosts, what: `[orders.localhost, "*.orders.localhost"]`, pattern: hostPattern, least: 1, unique: true, tidy: strings.ToLower}},
		{name: keyPath, about: "prefixes of paths, on segment borders", value: wordList{to: &m.Paths, what: "[/orders]", pattern: pathPattern, least: 1, unique: true, tidy: trimSlash}},
		{name: keyStrip, about: "the prefix is taken away before the request goes on (X-Forwarded-Prefix says it)", def: "false", value: flag{to: &m.Strip}},
		{name: "header", about: `headers and their values, "*" for any`, value: wordMap{to: &m.Headers, keyWhat: "names of headers but Host, for which there is host", keys: headerPattern, pattern: printPattern, nonEmpty: true, tidyKey: http.CanonicalHeaderKey}},
		{name: keyNone, about: "true: none, clients speak to the service directly", value: flag{to: &m.None}},
		{name: "aws", about: "AWS services, as the AWS CLI calls them", value: wordList{to: &m.AWS, what: "[kinesis, dynamodb]", pattern: awsPattern, least: 1, unique: true}},
	},
		needs: needs(keyStrip, keyPath),
		rules: never(noneBeside("host"), noneBeside(keyPath), noneBeside("header"), noneBeside("aws")),
		after: func(r *reader, at string, n *node) {
			if strip := n.get(keyStrip); strip != nil && n.get(keyPath) == nil {
				r.add(strip, join(at, keyStrip), "stands without path, whose prefixes it takes away")
			}
			if m.None && len(m.Hosts)+len(m.Paths)+len(m.Headers)+len(m.AWS) > 0 {
				r.add(n, at, "has none beside conditions; allowed is one of the two")
			}
			for _, p := range m.Paths {
				if own := "/_torpor"; p == own || strings.HasPrefix(p, own+"/") || p == "/_localstack" || strings.HasPrefix(p, "/_localstack/") {
					r.add(n, join(at, keyPath), "has %s, which is Torpor's own", p)
				}
			}
			if _, has := m.Headers["Host"]; has {
				r.add(n, join(at, "header"), "has Host; use match.host")
			}
		}}
}

// defaultMethods are the methods that only read.
func defaultMethods() []string {
	return []string{http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace}
}

func readsForm(s *Reads) group {
	s.Methods = defaultMethods()
	return group{keys: []key{
		{name: "methods", about: "HTTP methods that change nothing", def: strings.Join(defaultMethods(), ", "), value: wordList{to: &s.Methods, what: "[GET, HEAD]", pattern: methodPattern, unique: true, tidy: strings.ToUpper}},
		{name: "paths", about: "prefixes of paths that change nothing, whatever the method", value: wordList{to: &s.Paths, what: "[/graphql]", pattern: pathPattern, unique: true, tidy: trimSlash}},
		{name: "operations", about: "AWS operations that change nothing, more than are known anyway", value: wordList{to: &s.Operations, what: "[PreviewChange]", pattern: actionPattern, unique: true}},
		{name: "writes", about: "AWS operations and prefixes of paths that change something though they look like reading", value: wordList{to: &s.Writes, what: "[GetNextNumber, /counter]", pattern: changePattern, unique: true, tidy: trimSlash}},
	}}
}

func partForm(name string, p *Part) group {
	p.Name = name
	return group{keys: []key{
		{name: "serializer", about: "the serializer: built in, or pinned with torpor module add", required: true, value: text{to: &p.Serializer, what: "the name of a serializer, such as json", pattern: modulePattern}},
		{name: "settings", about: "settings of the serializer: see its README", value: anything{&p.Settings}},
		{name: "lag", about: "how long the service may take until the source finds a change it has acknowledged", def: "0", value: span{to: &p.Lag, most: MaxLag}},
		{name: "proof", about: "which saves are proved by loading them again", def: "the service's", value: oneOf[runtime.Proof]{&p.Proof, runtime.Proofs()}},
		{name: "compression", about: "how its state file is compressed", def: "the service's", value: oneOf[string]{&p.Compression, runtime.Compressions()}},
		{name: keySource, about: "where its state comes from and goes to: one of " + strings.Join(sourceForm(&p.Source).names(), ", "), required: true, value: sourceForm(&p.Source)},
	}}
}

func sourceForm(s *Source) group {
	g := group{keys: []key{
		{name: sourceFile, about: "one file whose bytes are the state", value: newSection(&s.File, fileForm)},
		{name: sourceFiles, about: "a folder", value: newSection(&s.Files, filesForm)},
		{name: sourceSQLite, about: "one SQLite database, or those of a folder", value: newSection(&s.SQLite, sqliteForm)},
		{name: sourceHTTP, about: "a URL of the service that gives, takes and deletes its state", value: newSection(&s.HTTP, httpForm)},
		{name: sourceExec, about: "commands that dump and restore", value: newSection(&s.Exec, execForm)},
		{name: sourcePush, about: "the service hands its state over itself", value: newSection(&s.Push, pushForm)},
	}, rules: map[string]any{"maxProperties": 1}, needs: map[string]any{"minProperties": 1}, must: true}
	g.after = func(r *reader, at string, n *node) {
		if len(n.pairs) != 1 && n.kind != scalar && n.kind != list {
			has := "none"
			if len(n.pairs) > 0 {
				has = strings.Join(n.keys(), " and ")
			}
			r.add(n, at, "has %s; it must have one of %s", has, strings.Join(g.names(), ", "))
		}
	}
	return g
}

func (n *node) keys() []string {
	keys := make([]string, len(n.pairs))
	for i, p := range n.pairs {
		keys[i] = p.key
	}
	return keys
}

// spoolFolder is where a source keeps what is on its way.
func spoolFolder(to *string, def string) key {
	return key{name: "spool", about: "folder for what is on its way", def: def, value: text{to: to, what: "a folder", folder: true}}
}

const systemTemp = "the system's folder for temporary files"

func spoolMemory(to *int) key {
	return key{name: "spool_memory", about: "how much of it is kept in memory", def: FormatSize(spool.DefaultMemory), value: whole[int]{to: to, least: spool.MinMemory, most: spool.MaxMemory, bytes: true}}
}

func spoolKeys(s *spool.Config) []key {
	return []key{
		spoolFolder(&s.Folder, systemTemp),
		spoolMemory(&s.Memory),
		{name: "max_bytes", about: "the largest state", def: FormatSize(spool.DefaultBytes), value: whole[int64]{to: &s.Bytes, least: spool.MinBytes, most: spool.MaxBytes, bytes: true}},
	}
}

func checkPattern(s string) error {
	_, err := path.Match(s, "")
	return err
}

func fileForm(s *file.Config) group {
	return group{keys: []key{
		{name: keyPath, about: "the file", required: true, value: text{to: &s.Path, what: "a file, such as '{data}/db.json'", folder: true}},
		{name: "check", about: "json: the file is taken only if it is one whole JSON text", def: "none", value: oneOf[file.Check]{&s.Check, []file.Check{file.JSON}}},
		{name: "empty", about: "the state that a missing file stands for", def: "no bytes", value: textBytes{to: &s.Empty}},
		{name: "settle", about: "how long the file must have been left alone before it is read", def: FormatDuration(file.DefaultSettle), value: span{to: &s.Settle, least: file.MinSettle, most: file.MaxSettle}},
		{name: "tries", about: "how often a file that changes is read before a save gives up", def: strconv.Itoa(file.DefaultTries), value: whole[int]{to: &s.Tries, least: 1, most: file.MaxTries}},
		{name: "atomic", about: "requests need not be held", def: "false", value: flag{to: &s.Atomic}},
		spoolFolder(&s.Spool.Folder, systemTemp),
		spoolMemory(&s.Spool.Memory),
		{name: "max_bytes", about: "the largest file", def: FormatSize(spool.DefaultBytes), value: whole[int64]{to: &s.MaxBytes, least: spool.MinBytes, most: spool.MaxBytes, bytes: true}},
	}}
}

func filesForm(s *files.Config) group {
	return group{keys: []key{
		{name: "root", about: "the folder", required: true, value: text{to: &s.Root, what: "a folder, such as '{data}'", folder: true}},
		{name: "include", about: "patterns of what belongs to the state", def: "all", value: wordList{to: &s.Include, what: `["*.db"]`, check: checkPattern}},
		{name: "exclude", about: "patterns of what does not", value: wordList{to: &s.Exclude, what: `["*.log"]`, check: checkPattern}},
		spoolFolder(&s.Spool, "beside the folder"),
		{name: "skip_special", about: "leave out pipes, sockets and devices", def: "false", value: flag{to: &s.SkipSpecial}},
		{name: "outside_links", about: "keep symbolic links that point out of the folder", def: "false", value: flag{to: &s.OutsideLinks}},
		{name: "set_id", about: "keep setuid and setgid files", def: "false", value: flag{to: &s.SetID}},
		{name: "ignore_owner", about: "leave owners and groups out", def: "false", value: flag{to: &s.IgnoreOwner}},
		{name: "settle", about: "how long a file must have been left alone before it is read", def: "20ms", value: span{to: &s.Settle, least: minSettle, most: maxSettle}},
		{name: "tries", about: "how often a folder that changes is read before a save gives up", def: "5", value: whole[int]{to: &s.Tries, least: 1, most: maxTries}},
		{name: "max_files", about: "the most entries", def: "1000000", value: whole[int64]{to: &s.MaxFiles, least: 1, most: maxFiles}},
		{name: "max_bytes", about: "the most bytes of all files together", def: "64GiB", value: whole[int64]{to: &s.MaxBytes, least: 1, most: maxFileBytes, bytes: true}},
		{name: "max_path", about: "the longest path, in bytes", def: "4096", value: whole[int64]{to: &s.MaxPath, least: 1, most: maxPathBytes}},
		{name: "max_xattr_bytes", about: "the most bytes of an entry's extended attributes", def: "64KiB", value: whole[int64]{to: &s.MaxXattrBytes, least: 1, most: maxXattrBytes, bytes: true}},
	}}
}

func sqliteForm(s *sqlite.Config) group {
	return group{keys: []key{
		{name: keyPath, about: "the database file, or with pattern the folder", required: true, value: text{to: &s.Path, what: "a file, such as '{data}/shop.db'", folder: true}},
		{name: keyPattern, about: "pattern of the names of files in the folder that are databases", value: text{to: &s.Pattern, what: `a pattern without /, such as "*.db"`, pattern: `^[^/]+$`, check: checkPattern}},
		{name: "form", about: "rows, for the serializer sqlite, or pages, for raw", def: string(sqlite.Rows), value: oneOf[sqlite.Form]{&s.Form, []sqlite.Form{sqlite.Rows, sqlite.Pages}}},
		spoolFolder(&s.Spool, systemTemp),
		{name: "wait", about: "how long a lock is waited for", def: FormatDuration(sqlite.DefaultWait), value: span{to: &s.Wait, least: time.Millisecond, most: maxSQLiteWait}},
		{name: "unchecked", about: "leave out SQLite's check of each copy", def: "false", value: flag{to: &s.Unchecked}},
		{name: "in_place", about: "write into databases that exist, for services that keep them open", def: "false", value: flag{to: &s.InPlace}},
		{name: keyMigrate, about: "changes of tables of every database restored", value: group{keys: []key{
			{name: "rename", about: "old names of tables and new ones", value: wordMap{to: &s.Migrate.Rename, keyWhat: "names of tables", keys: patternPattern, nonEmpty: true}},
			{name: "drop", about: "tables, by their new names, and the columns to remove", value: listMap{to: &s.Migrate.Drop, keyWhat: "names of tables"}},
		}}},
		{name: "max_databases", about: "the most databases of a folder", def: "1024", value: whole[int]{to: &s.MaxDatabases, least: 1, most: sqlite.MaxMaxDatabases}},
	}}
}

func httpForm(s *sourcehttp.Config) group {
	headers := map[string]string{}
	keys := []key{
		{name: "url", about: "the state URL", required: true, value: text{to: &s.URL, what: "a URL such as http://{address}/_torpor/state/store", pattern: urlPattern, check: checkURL}},
		{name: "header", about: "headers of each request, such as Authorization", value: wordMap{to: &headers, keyWhat: "names of headers", keys: headerPattern, expand: true, secret: true, nonEmpty: true, tidyKey: http.CanonicalHeaderKey}},
		{name: "media", about: "media type of the state", def: "application/octet-stream", value: text{to: &s.Media, what: "a media type such as application/json", pattern: mediaPattern}},
		{name: "timeout", about: "how long one exchange may take", def: FormatDuration(sourcehttp.DefaultTimeout), value: span{to: &s.Timeout, least: sourcehttp.MinTimeout, most: sourcehttp.MaxTimeout}},
		{name: "atomic", about: "the service gives a consistent state by itself: requests need not be held", def: "false", value: flag{to: &s.Atomic}},
		{name: "cursor", about: "the service tells what has changed since a cursor, in records; needs atomic: true", def: "false", value: flag{to: &s.Cursor}},
	}
	yes := func(key string) map[string]any {
		return map[string]any{"required": []string{key}, "properties": map[string]any{key: map[string]any{"const": true}}}
	}
	other := map[string]any{"required": []string{"media"}, "properties": map[string]any{"media": map[string]any{"not": map[string]any{"const": abi.MediaRecords}}}}
	needs := map[string]any{"if": yes("cursor"), "then": map[string]any{"allOf": []any{yes("atomic"), never(other)}}}
	return group{keys: append(keys, spoolKeys(&s.Spool)...), needs: needs, after: func(r *reader, at string, n *node) {
		if s.Cursor && !s.Atomic {
			r.add(n, join(at, "cursor"), "stands without atomic: true; a service that tells what has changed since a moment knows its state at one")
		}
		if s.Cursor && s.Media != "" && s.Media != abi.MediaRecords {
			r.add(n, join(at, "media"), "is %q beside cursor; what has changed can be told of records only, %s", s.Media, abi.MediaRecords)
		}
		for _, name := range slices.Sorted(maps.Keys(headers)) {
			v := headers[name]
			if !matches(printPattern, v) {
				r.add(n, join(join(at, "header"), name), "has characters that are not allowed in a header")
				continue
			}
			if s.Header == nil {
				s.Header = http.Header{}
			}
			s.Header.Set(name, v)
		}
	}}
}

func execForm(s *exec.Config) group {
	env, inherit := environment{to: &s.Env}, new([]string)
	words := func(name, about string, to *[]string, required bool, what string) key {
		return key{name: name, about: about, required: required, value: wordList{to: to, plain: new([]string), what: what, least: 1, numbers: true, expand: true, empty: true}}
	}
	keys := []key{
		words("dump", "the command that writes the state to its standard output; no shell reads it", &s.Dump, true, "[pg_dump, --format=custom, orders]"),
		words("restore", "the command that reads it from its standard input", &s.Restore, true, "[pg_restore, --clean, --dbname=orders]"),
		words("reset", "the command that empties the service", &s.Reset, false, "[dropdb, orders]"),
	}
	keys = append(keys, env.keys(inherit)...)
	keys = append(keys,
		key{name: "folder", about: "where they run", def: "the folder of the file", value: text{to: &s.Folder, what: "a folder", folder: true}},
		key{name: "timeout", about: "how long one command may take", def: FormatDuration(exec.DefaultTimeout), value: span{to: &s.Timeout, least: exec.MinTimeout, most: exec.MaxTimeout}},
		key{name: "grace", about: "between asking a command to end (SIGTERM) and ending it (SIGKILL)", def: FormatDuration(exec.DefaultGrace), value: span{to: &s.Grace, least: exec.MinGrace, most: exec.MaxGrace}},
		key{name: "atomic", about: "a dump is consistent by itself: requests need not be held", def: "false", value: flag{to: &s.Atomic}})
	return group{keys: append(keys, spoolKeys(&s.Spool)...), after: func(r *reader, _ string, _ *node) {
		env.complete(r, *inherit)
		if s.Folder == "" {
			s.Folder = r.folder
		}
	}}
}

func pushForm(s *push.Config) group {
	return group{keys: append([]key{
		{name: "media", about: "media type of the state", def: "application/octet-stream", value: text{to: &s.Media, what: "a media type such as application/json", pattern: mediaPattern}},
	}, spoolKeys(&s.Spool)...)}
}
