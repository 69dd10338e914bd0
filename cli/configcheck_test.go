package cli

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/cli/config"
)

var updateSchema = flag.Bool("update-schema", false, "write config/torpor.schema.json anew")

// TestSchemaIsCurrent: the schema in the repository is that of the tables.
func TestSchemaIsCurrent(t *testing.T) {
	want, err := config.MakeSchema(configForm(knownServices()))
	if err != nil {
		t.Fatal(err)
	}
	if *updateSchema {
		if err := os.WriteFile("config/torpor.schema.json", want, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(config.Schema(), want) {
		t.Error("config/torpor.schema.json is not that of the tables: go test ./cli -run TestSchemaIsCurrent -update-schema writes it anew")
	}
	out, errs, code := torpor(t, nil, "config", "schema")
	if code != 0 || errs != "" || out != string(want) {
		t.Errorf("config schema: exit code %d, errors %q, %d bytes", code, errs, len(out))
	}
}

// configFile writes a configuration file into a folder of its own.
func configFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "torpor.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const checkedConfig = `
flush_interval: 5
services:
  s3: {idle: 10m}
  orders:
    run: {command: [orders, "--port={port}", "--token=${TOKEN}"], env: {TOKEN: "${TOKEN}", MODE: test}}
    match: {host: [orders.localhost], path: [/orders], strip: true, header: {X-Team: "*"}}
    idle: 90s
    parts:
      store: {serializer: sqlite, source: {sqlite: {path: "{data}/orders.db"}}}
      backend: {serializer: json, source: {http: {url: "http://{address}/state", header: {Authorization: "Bearer ${TOKEN}"}}}}
  blog: {preset: json-server, match: {path: [/blog]}}
  plain: {upstream: "http://127.0.0.1:9/"}
`

func TestConfigCheck(t *testing.T) {
	path := configFile(t, checkedConfig)
	out, errs, code := torpor(t, []string{"TOKEN=hush"}, "config", "check", path)
	if code != 0 || errs != "" {
		t.Fatalf("exit code %d, errors %s", code, errs)
	}
	spaces := regexp.MustCompile(` +`) // of columns
	for _, want := range []string{
		path + ": 4 services\n",
		"preset json-server: json-server 0.17.4",
		"runs orders --port={port} '--token=${TOKEN}'\n",
		"matches host orders.localhost and header X-Team: * and path /orders, taken away\n",
		"saved SCHEDULED every 5s, proof full, compression none\n",
		"sleeps after 1m30s without requests\n",
		"part store serializer sqlite, source sqlite {data}/orders.db\n",
		"source http http://{address}/state\n",
		"upstream http://127.0.0.1:9\n",
		"matches host plain.localhost\n",
		"parts none",
		"runs in this process\n",
		"matches what is no other service's\n",
	} {
		if !strings.Contains(spaces.ReplaceAllString(out, " "), want) {
			t.Errorf("not told: %q", want)
		}
	}
	if strings.Contains(out, "hush") {
		t.Error("a secret is shown")
	}
	if t.Failed() {
		t.Log(out)
	}
	if again, _, code := torpor(t, []string{"TOKEN=hush", "TORPOR_CONFIG=" + path}, "config", "check"); code != 0 || again != out {
		t.Errorf("by $TORPOR_CONFIG: exit code %d, %s", code, again)
	}
}

func TestConfigCheckJSON(t *testing.T) {
	path := configFile(t, checkedConfig)
	for _, c := range []struct {
		args   []string
		secret bool
	}{{nil, false}, {[]string{"--show-env"}, true}} {
		out, errs, code := torpor(t, []string{"TOKEN=hush"}, append([]string{"config", "check", "--json", path}, c.args...)...)
		if code != 0 || errs != "" {
			t.Fatalf("exit code %d, errors %s", code, errs)
		}
		var got struct {
			FlushInterval string `json:"flush_interval"`
			Services      map[string]struct {
				FlushInterval string `json:"flush_interval"`
				Run           struct {
					Command []string
					Env     map[string]string
				}
				Parts map[string]struct {
					Proof  string
					Source struct {
						HTTP struct{ Header map[string]string }
					}
				}
			}
		}
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatal(err)
		}
		orders := got.Services["orders"]
		if got.FlushInterval != "5" || orders.FlushInterval != "5s" || orders.Parts["store"].Proof != "full" || got.Services["blog"].Run.Command[0] != "json-server" {
			t.Errorf("got %s", out)
		}
		if strings.Contains(out, "hush") != c.secret {
			t.Errorf("%q: the secret is shown: %v", c.args, !c.secret)
		}
		if want := map[bool]string{true: "hush", false: "***"}[c.secret]; orders.Run.Env["TOKEN"] != want {
			t.Errorf("%q: TOKEN is %q", c.args, orders.Run.Env["TOKEN"])
		}
	}
}

// TestConfigCheckRefuses: all mistakes with their lines, and the exit code of mistakes.
func TestConfigCheckRefuses(t *testing.T) {
	path := configFile(t, "listen: here\nservices:\n  a: {run: {command: x}}\n  b: {upstream: 'http://h', parts: {store: {serializer: jsn, source: {push: {}}}}}\n")
	for _, c := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"mistakes", []string{"config", "check", path}, 2, []string{path + ":1: listen is \"here\"", path + `:3: services.a.run.command is "x"; it must be a list`}},
		{"an unknown serializer", []string{"config", "check", configFile(t, "services: {b: {upstream: 'http://h', parts: {store: {serializer: jsn, source: {push: {}}}}}}")}, 2,
			[]string{`:1: services.b.parts.store.serializer is "jsn"`, "json, pickle", "torpor module add"}},
		{"no such file", []string{"config", "check", "no-such.yaml"}, 2, []string{"no-such.yaml does not exist"}},
		{"no file", []string{"config", "check"}, 2, []string{"no configuration file", "torpor.yaml"}},
		{"two files", []string{"config", "check", path, "--config", path}, 2, []string{"--config"}},
		{"unknown preset", []string{"config", "preset", "nope"}, 5, []string{`preset "nope"`, "json-server"}},
		{"a preset elsewhere", []string{"config", "preset", "../presets/json-server"}, 5, []string{"json-server"}},
	} {
		out, errs, code := torpor(t, nil, c.args...)
		if code != c.code || out != "" {
			t.Errorf("%s: exit code %d, want %d; output %q", c.name, code, c.code, out)
		}
		for _, want := range c.want {
			if !strings.Contains(errs, want) {
				t.Errorf("%s: the error does not say %q: %s", c.name, want, errs)
			}
		}
	}
}

// TestConfigCheckKnowsPinnedSerializers: what is pinned in the data folder is a serializer too; without persistence
// none is needed.
func TestConfigCheckKnowsPinnedSerializers(t *testing.T) {
	path := configFile(t, "data: d\nservices: {b: {upstream: 'http://h', parts: {store: {serializer: orders_, source: {push: {}}}}}}")
	if _, _, code := torpor(t, nil, "config", "check", path); code != 2 {
		t.Errorf("before: exit code %d", code)
	}
	if _, errs, code := torpor(t, []string{"PERSISTENCE=0"}, "config", "check", path); code != 0 {
		t.Errorf("without persistence: exit code %d: %s", code, errs)
	}
	file := moduleIn(t, t.TempDir(), "orders.wasm", renamed(t, "orders_", "1.0.0"))
	if _, errs, code := torpor(t, nil, "module", "add", "--data", filepath.Join(filepath.Dir(path), "d"), file); code != 0 {
		t.Fatalf("module add: exit code %d: %s", code, errs)
	}
	if _, errs, code := torpor(t, nil, "config", "check", path); code != 0 {
		t.Errorf("after: exit code %d: %s", code, errs)
	}
}

// TestOtherCommandsNeedNoServices: a variable that only a service needs may be missing where services are not run; what
// is wrong with the settings that the command has is told.
func TestOtherCommandsNeedNoServices(t *testing.T) {
	path := configFile(t, "data: d\nservices: {a: {run: {command: [x, '${NOPE}']}}}")
	if _, errs, code := torpor(t, nil, "module", "list", "--config", path); code != 0 {
		t.Errorf("module list: exit code %d: %s", code, errs)
	}
	for _, args := range [][]string{{"config", "check", path}, {"serve", "--config", path}} {
		if _, errs, code := torpor(t, nil, args...); code != 2 || !strings.Contains(errs, "${NOPE}") {
			t.Errorf("%q: exit code %d: %s", args, code, errs)
		}
	}
	if _, _, code := torpor(t, nil, "module", "list", "--config", configFile(t, "listen: x")); code != 2 {
		t.Errorf("a mistaken setting: exit code %d", code)
	}
}

func TestConfigPresets(t *testing.T) {
	out, _, code := torpor(t, nil, "config", "presets")
	if code != 0 || !strings.Contains(out, "json-server") || !strings.Contains(out, "0.17.4") {
		t.Errorf("exit code %d: %s", code, out)
	}
	out, _, code = torpor(t, nil, "config", "presets", "--json")
	var all []struct{ Name, About string }
	if err := json.Unmarshal([]byte(out), &all); err != nil || code != 0 || !slices.ContainsFunc(all, func(p struct{ Name, About string }) bool { return p.Name == "json-server" && p.About != "" }) {
		t.Errorf("exit code %d, %v: %s", code, err, out)
	}
	out, _, code = torpor(t, nil, "config", "preset", "json-server")
	if code != 0 || !strings.HasPrefix(out, "# json-server 0.17.4") {
		t.Errorf("exit code %d: %s", code, out)
	}
}

// TestREADMEServiceKeys: the README tells of every key that a service may have, and of no other.
func TestREADMEServiceKeys(t *testing.T) {
	var schema struct {
		Defs map[string]*keySchema `json:"$defs"`
	}
	if err := json.Unmarshal(config.Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	told := map[string]string{}
	for _, row := range rows(t, readme(t), "service key") {
		told[row["service key"]] = row["meaning"]
	}
	const source = "parts.NAME.source."
	for _, path := range schema.Defs["service"].paths("") {
		kind, key, below := strings.Cut(strings.TrimPrefix(path, source), ".")
		switch {
		case strings.HasPrefix(path, source) && below: // a source has one row
			if !strings.Contains(told[source+kind]+"`", "`"+key+"`") { // rows takes ticks away at the end
				t.Errorf("README.md does not tell of %s", path)
			}
		case told[path] == "":
			t.Errorf("README.md does not tell of %s, or not what it means", path)
		default:
			defer delete(told, path)
		}
	}
	t.Cleanup(func() {
		for path := range told {
			t.Errorf("README.md tells of %s, which is no key", path)
		}
	})
}

// keySchema is what of a JSON Schema says which keys there are.
type keySchema struct {
	Properties map[string]*keySchema
	Every      json.RawMessage `json:"additionalProperties"`
}

// paths are the keys, those below others with them.
func (s *keySchema) paths(at string) []string {
	var all []string
	for name, p := range s.Properties {
		all = append(append(all, at+name), p.paths(at+name+".")...)
	}
	var every keySchema
	if json.Unmarshal(s.Every, &every) == nil {
		all = append(all, every.paths(at+"NAME.")...)
	}
	return all
}

// TestREADMEConfigurations: the configuration files in the README are such.
func TestREADMEConfigurations(t *testing.T) {
	blocks := regexp.MustCompile("(?s)```yaml\n(# torpor.yaml\n.*?)```").FindAllStringSubmatch(readme(t), -1)
	if len(blocks) == 0 {
		t.Error("README.md shows no torpor.yaml")
	}
	for _, b := range blocks {
		if _, errs, code := torpor(t, nil, "config", "check", configFile(t, b[1])); code != 0 {
			t.Errorf("%s\nexit code %d: %s", b[1], code, errs)
		}
	}
}
