package cli

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/torpor-run/torpor/cli/config"
	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/server"
)

// read reads settings as serve does, from flags, environment and, if it is not "", a file's text.
func read(t *testing.T, flags, environ []string, text string) (*settings, string, error) {
	t.Helper()
	path := ""
	if text != "" {
		path = filepath.Join(t.TempDir(), "torpor.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		flags = append([]string{"--config", path}, flags...)
	}
	set := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	addFlags(set)
	if err := set.Parse(flags); err != nil {
		t.Fatal(err)
	}
	s, err := readSettings(set, environ, []string{"s3", "kinesis"})
	return s, path, err
}

func TestSettingsDefaults(t *testing.T) {
	s, _, err := read(t, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	each := serviceSettings{Save: runtime.SaveScheduled, Load: runtime.LoadOnRequest, FlushInterval: 15 * time.Second,
		HoldTimeout: 5 * time.Second, Proof: runtime.ProofFull, Compression: "none"}
	want := &settings{Listen: "127.0.0.1:4566", Data: ".torpor", keyFileFrom: "api_key_file", Control: server.ControlLoopback, Init: "/etc/localstack/init", InitPods: "/etc/localstack/init-pods.d", Persistence: true, DrainTimeout: 3 * time.Second, Generations: 2,
		LogLevel: "info", LogFormat: "auto", base: each, modules: map[string]host.Limits{}}
	for _, name := range []string{"kinesis", "s3"} {
		want.Services = append(want.Services, config.Service{Name: name, Embedded: true, WakeTimeout: time.Minute, Upgraded: config.UpgradedRelease,
			Reads: config.Reads{Methods: []string{"GET", "HEAD", "OPTIONS", "TRACE"}}, Strategies: each})
	}
	for _, b := range want.limits.Bounds() {
		*b.Value = b.Default
	}
	s.document, s.values = nil, nil
	if !reflect.DeepEqual(s, want) {
		t.Errorf("the defaults are\n%+v, want\n%+v", s, want)
	}
}

// TestSettingsStrength sets one thing at all places and takes the strongest away, one after the other.
func TestSettingsStrength(t *testing.T) {
	const file = "save_strategy: MANUAL\n"
	for _, c := range []struct {
		name           string
		flags, environ []string
		file           string
		want           runtime.SaveStrategy
	}{
		{"flag", []string{"--save-strategy", "on_shutdown"}, []string{"TORPOR_SAVE_STRATEGY=ON_REQUEST", "SNAPSHOT_SAVE_STRATEGY=SCHEDULED"}, file, runtime.SaveOnShutdown},
		{"own variable", nil, []string{"SNAPSHOT_SAVE_STRATEGY=SCHEDULED", "TORPOR_SAVE_STRATEGY=ON_REQUEST"}, file, runtime.SaveOnRequest},
		{"own variable, first", nil, []string{"TORPOR_SAVE_STRATEGY=ON_REQUEST", "SNAPSHOT_SAVE_STRATEGY=SCHEDULED"}, file, runtime.SaveOnRequest},
		{"own variable, empty, is not set", nil, []string{"TORPOR_SAVE_STRATEGY=", "SNAPSHOT_SAVE_STRATEGY=ON_SHUTDOWN"}, file, runtime.SaveOnShutdown},
		{"LocalStack's variable", nil, []string{"SNAPSHOT_SAVE_STRATEGY=ON_SHUTDOWN"}, file, runtime.SaveOnShutdown},
		{"LocalStack's variable, empty, is not set", nil, []string{"SNAPSHOT_SAVE_STRATEGY="}, file, runtime.SaveManual},
		{"file", nil, nil, file, runtime.SaveManual},
		{"default", nil, nil, "", runtime.SaveScheduled},
		{"a flag with the default's value is a flag", []string{"--save-strategy", "SCHEDULED"}, []string{"TORPOR_SAVE_STRATEGY=ON_REQUEST"}, "", runtime.SaveScheduled},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _, err := read(t, c.flags, c.environ, c.file)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.service("s3").Save; got != c.want {
				t.Errorf("save strategy %s, want %s", got, c.want)
			}
		})
	}
}

// TestSettingsEverywhere gives each setting by flag, by variable and in the file and looks at its field.
func TestSettingsEverywhere(t *testing.T) {
	for _, c := range []struct {
		key, value string
		got        func(*settings) any
		want       any
	}{
		{"listen", "127.0.0.1:0", func(s *settings) any { return s.Listen }, "127.0.0.1:0"},
		{"api_key_file", "/run/secrets/key", func(s *settings) any { return s.APIKeyFile }, "/run/secrets/key"},
		{"control", "Any", func(s *settings) any { return s.Control }, server.ControlAny},
		{"control_hosts", "torpor.example.org, *.corp.example,", func(s *settings) any { return strings.Join(s.ControlHosts, "|") }, "torpor.example.org|*.corp.example"},
		{"data", "/var/lib/torpor", func(s *settings) any { return s.Data }, "/var/lib/torpor"},
		{"cache", "/var/cache/torpor", func(s *settings) any { return cacheDir(s) }, "/var/cache/torpor"},
		{"auto_load_pod", "base,more@2", func(s *settings) any { return s.AutoLoadPod }, "base,more@2"},
		{"init_pods", "/srv/pods", func(s *settings) any { return s.InitPods }, "/srv/pods"},
		{"init", "/srv/init", func(s *settings) any { return s.Init }, "/srv/init"},
		{"persistence", "0", func(s *settings) any { return s.Persistence }, false},
		{"save_strategy", "manual", func(s *settings) any { return s.base.Save }, runtime.SaveManual},
		{"load_strategy", "on_startup", func(s *settings) any { return s.base.Load }, runtime.LoadOnStartup},
		{"flush_interval", "0.25", func(s *settings) any { return s.base.FlushInterval }, 250 * time.Millisecond},
		{"hold_timeout", "2m", func(s *settings) any { return s.base.HoldTimeout }, 2 * time.Minute},
		{"proof", "sampled", func(s *settings) any { return s.base.Proof }, runtime.ProofSampled},
		{"compression", "zstd", func(s *settings) any { return s.base.Compression }, "zstd"},
		{"generations", "5", func(s *settings) any { return s.Generations }, 5},
		{"drain_timeout", "7", func(s *settings) any { return s.DrainTimeout }, 7 * time.Second},
		{"limit_size", "2MiB", func(s *settings) any { return s.limits.ModuleBytes }, int64(2 << 20)},
		{"limit_memory", "1GiB", func(s *settings) any { return s.limits.MemoryBytes }, int64(1 << 30)},
		{"limit_table", "17", func(s *settings) any { return s.limits.TableElements }, int64(17)},
		{"limit_compile_time", "90s", func(s *settings) any { return s.limits.CompileTime }, 90 * time.Second},
		{"limit_time", "90", func(s *settings) any { return s.limits.CallTime }, 90 * time.Second},
		{"limit_fuel", "5e9", func(s *settings) any { return s.limits.CallFuel }, int64(5_000_000_000)},
		{"limit_slice", "4000000000000000000", func(s *settings) any { return s.limits.SliceFuel }, int64(host.MaxSliceFuel)},
		{"limit_output", "4TiB", func(s *settings) any { return s.limits.OutputBytes }, int64(host.MaxOutputBytes)},
		{"limit_records", "1", func(s *settings) any { return s.limits.Records }, int64(1)},
		{"limit_record", "1024", func(s *settings) any { return s.limits.RecordBytes }, int64(1024)},
		{"limit_log_lines", "10000", func(s *settings) any { return s.limits.LogLines }, int64(10_000)},
		{"log_level", "WARN", func(s *settings) any { return s.LogLevel }, "warn"},
		{"log_format", "json", func(s *settings) any { return s.LogFormat }, "json"},
	} {
		check := func(how string, flags, environ []string, file string) {
			t.Run(c.key+" by "+how, func(t *testing.T) {
				s, _, err := read(t, flags, environ, file)
				if err != nil {
					t.Fatal(err)
				}
				if got := c.got(s); got != c.want {
					t.Errorf("got %v, want %v", got, c.want)
				}
			})
		}
		row := setting{key: c.key}
		check("flag", []string{"--" + row.flag(), c.value}, nil, "")
		check("variable", nil, []string{row.env() + "=" + c.value}, "")
		check("file", nil, nil, c.key+": "+c.value+"\n")
		check("file, quoted", nil, nil, c.key+": '"+c.value+"'\n")
		for _, s := range settingsTable() {
			if s.key == c.key && s.localstack != "" {
				check("LocalStack's variable", nil, []string{s.localstack + "=" + c.value}, "")
			}
		}
	}
}

// TestSettingsPerModule: a module's own limits, and the others from those for all.
func TestSettingsPerModule(t *testing.T) {
	s, _, err := read(t, []string{"--data", t.TempDir()}, []string{"TORPOR_LIMIT_TIME=30"}, `
limit_memory: 512MiB
modules:
  orders:
    limit_memory: 64 MiB
    limit_log_lines: 7
  empty:
`)
	if err != nil {
		t.Fatal(err)
	}
	want := s.limits
	want.MemoryBytes, want.LogLines = 64<<20, 7
	if s.limits.MemoryBytes != 512<<20 || s.limits.CallTime != 30*time.Second || s.modules["orders"] != want {
		t.Errorf("for all %+v, for orders %+v", s.limits, s.modules["orders"])
	}
	if _, err := host.New(t.Context(), hostConfig(s, slog.New(slog.DiscardHandler))); err != nil {
		t.Error(err)
	}
}

// TestLimitsOutOfBounds: every limit is refused below its minimum, above its maximum, and where it is no
// number, with what is allowed. Its default is told as it can be given.
func TestLimitsOutOfBounds(t *testing.T) {
	for _, m := range limitTable() {
		b := m.bound(&host.Limits{})
		for _, v := range []int64{b.Min, b.Default, b.Max} {
			if _, _, err := read(t, []string{"--" + (setting{key: m.key}).flag(), m.unit.format(v)}, nil, ""); err != nil {
				t.Error(err)
			}
		}
		for _, v := range []string{m.unit.format(b.Min - 1), m.unit.format(b.Max) + "0", "-1", "1.5x", "", "9e99", "NaN", "0x10", "99999999999TiB"} {
			_, _, err := read(t, nil, nil, "modules: {orders: {"+m.key+": '"+v+"'}}")
			if err == nil || !strings.Contains(err.Error(), "modules.orders."+m.key) || !strings.Contains(err.Error(), m.unit.format(b.Max)) {
				t.Errorf("%s %q: %v", m.key, v, err)
			}
		}
	}
	if len(limitTable()) != len((&host.Limits{}).Bounds()) {
		t.Error("not every limit can be configured")
	}
}

func TestSettingsPerService(t *testing.T) {
	s, _, err := read(t, nil, []string{"SNAPSHOT_SAVE_STRATEGY=ON_REQUEST"}, `
flush_interval: 5
services:
  s3:
    save_strategy: MANUAL
    flush_interval: 500ms
  kinesis:
`)
	if err != nil {
		t.Fatal(err)
	}
	if own := s.service("s3"); own.Save != runtime.SaveManual || own.FlushInterval != 500*time.Millisecond {
		t.Errorf("s3 has %+v", own)
	}
	for _, name := range []string{"kinesis", "one that is not configured"} {
		if own := s.service(name); own.Save != runtime.SaveOnRequest || own.FlushInterval != 5*time.Second {
			t.Errorf("%s has %+v; it should have what is set for all", name, own)
		}
	}
	if _, _, err := read(t, nil, nil, "services:\n"); err != nil {
		t.Errorf("services without any: %v", err)
	}
}

// TestServicesOfTheFile: services stand in the order of names, the embedded one among them, and fall back to what
// is said for all, wherever that is said.
func TestServicesOfTheFile(t *testing.T) {
	s, path, err := read(t, []string{"--flush-interval", "3"}, []string{"TOKEN=secret", "PATH=/bin"}, `
save_strategy: MANUAL
data: state
services:
  zoo: {upstream: "http://127.0.0.1:9", proof: off}
  animals:
    run: {command: [animals], env: {TOKEN: "${TOKEN}"}}
`)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, svc := range s.Services {
		names = append(names, svc.Name)
		if svc.Save != runtime.SaveManual || svc.FlushInterval != 3*time.Second || s.service(svc.Name) != svc.Strategies {
			t.Errorf("%s has %+v", svc.Name, svc.Strategies)
		}
	}
	if got := strings.Join(names, " "); got != "animals kinesis s3 zoo" {
		t.Errorf("the services are %s", got)
	}
	if got := s.service("zoo").Proof; got != runtime.ProofOff {
		t.Errorf("zoo's proof is %s", got)
	}
	if got := s.Services[0].Run.Env; !slices.Equal(got, []string{"PATH=/bin", "TOKEN=secret"}) {
		t.Errorf("the environment is %q", got)
	}
	if s.ConfigFile != path || s.Data != filepath.Join(filepath.Dir(path), "state") {
		t.Errorf("file %s, data %s", s.ConfigFile, s.Data)
	}
}

// TestFileOfTheFolder: torpor.yaml in the current folder is read, unless another is named, or none.
func TestFileOfTheFolder(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, c := range []struct{ name, text string }{{"torpor.yaml", "generations: 7\n"}, {"other.yaml", "generations: 8\n"}} {
		if err := os.WriteFile(c.name, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name           string
		flags, environ []string
		file           string
		want           int
	}{
		{"by itself", nil, nil, "torpor.yaml", 7},
		{"another by flag", []string{"--config", "other.yaml"}, nil, "other.yaml", 8},
		{"another by variable", nil, []string{"TORPOR_CONFIG=other.yaml"}, "other.yaml", 8},
		{"none by flag", []string{"--config="}, []string{"TORPOR_CONFIG=other.yaml"}, "", 2},
		{"an empty variable is not set", nil, []string{"TORPOR_CONFIG="}, "torpor.yaml", 7},
	} {
		s, _, err := read(t, c.flags, c.environ, "")
		if err != nil {
			t.Fatal(err)
		}
		if s.ConfigFile != c.file || s.Generations != c.want {
			t.Errorf("%s: read %q, generations %d", c.name, s.ConfigFile, s.Generations)
		}
	}
}

func TestCacheLiesInTheDataFolder(t *testing.T) {
	s, _, err := read(t, []string{"--data", "here"}, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	if got := cacheDir(s); got != filepath.Join("here", "cache") {
		t.Errorf("cache in %s", got)
	}
}

// TestMistakenSettings: every mistake is a usage error, names what is wrong as its author wrote it, and
// says what is allowed.
func TestMistakenSettings(t *testing.T) {
	for _, c := range []struct {
		name           string
		flags, environ []string
		file           string
		want           []string // FILE is the file's path
	}{
		{"value by flag", []string{"--save-strategy", "NEVER"}, nil, "", []string{`--save-strategy is "NEVER"`, "SCHEDULED, ON_REQUEST, ON_SHUTDOWN, MANUAL"}},
		{"value by variable", nil, []string{"TORPOR_LOAD_STRATEGY=later"}, "", []string{`$TORPOR_LOAD_STRATEGY is "later"`, "ON_REQUEST, ON_STARTUP, MANUAL"}},
		{"value by LocalStack's variable", nil, []string{"SNAPSHOT_SAVE_STRATEGY=x"}, "", []string{`$SNAPSHOT_SAVE_STRATEGY is "x"`, "SCHEDULED"}},
		{"value in the file", nil, nil, "proof: some\n", []string{`FILE:1: proof is "some"`, "full, sampled, off"}},
		{"value of a service", nil, nil, "services: {s3: {proof: some}}\n", []string{`FILE:1: services.s3.proof is "some"`, "full, sampled, off"}},
		{"persistence", nil, []string{"PERSISTENCE=yes"}, "", []string{`$PERSISTENCE is "yes"`, "1, true, 0, false"}},
		{"interval, no number", nil, []string{"SNAPSHOT_FLUSH_INTERVAL=often"}, "", []string{`$SNAPSHOT_FLUSH_INTERVAL is "often"`, "seconds", "500ms", "100ms to 24h"}},
		{"interval too short", []string{"--flush-interval", "0.01"}, nil, "", []string{`--flush-interval is "0.01"`, "100ms"}},
		{"interval too long", []string{"--flush-interval", "25h"}, nil, "", []string{`--flush-interval is "25h"`, "24h"}},
		{"interval beyond numbers", []string{"--flush-interval", "1e300"}, nil, "", []string{`--flush-interval is "1e300"`}},
		{"interval that is no number", []string{"--flush-interval", "NaN"}, nil, "", []string{`--flush-interval is "NaN"`}},
		{"hold time", []string{"--hold-timeout", "-1"}, nil, "", []string{`--hold-timeout is "-1"`, "1ms to 1h"}},
		{"drain time", []string{"--drain-timeout", "2h"}, nil, "", []string{`--drain-timeout is "2h"`, "1h"}},
		{"compression", nil, nil, "compression: gzip\n", []string{`FILE:1: compression is "gzip"`, "none, zstd"}},
		{"no generations", []string{"--generations", "0"}, nil, "", []string{`--generations is "0"`, "1 to 1000"}},
		{"generations, no number", nil, []string{"TORPOR_GENERATIONS=all"}, "", []string{`$TORPOR_GENERATIONS is "all"`, "1 to 1000"}},
		{"log level", []string{"--log-level", "loud"}, nil, "", []string{`--log-level is "loud"`, "debug, info, warn, error"}},
		{"log format", nil, nil, "log_format: xml\n", []string{`FILE:1: log_format is "xml"`, "auto, text, json"}},
		{"address without a port", []string{"--listen", "localhost"}, nil, "", []string{`--listen is "localhost"`, "127.0.0.1:4566"}},
		{"no address", []string{"--listen", ""}, nil, "", []string{`--listen is ""`, "127.0.0.1:4566"}},
		{"port out of range", nil, []string{"TORPOR_LISTEN=:70000"}, "", []string{`$TORPOR_LISTEN is ":70000"`}},
		{"no data folder", []string{"--data="}, nil, "", []string{"--data is empty", "folder"}},
		{"unknown variable", nil, []string{"TORPOR_LISTN=:1"}, "", []string{"TORPOR_LISTN", "TORPOR_LISTEN"}},
		{"unknown key", nil, nil, "lissten: x\n", []string{"FILE", "lissten", "listen", "services"}},
		{"config within config", nil, nil, "config: other.yaml\n", []string{"FILE:1: config is not known"}},
		{"unknown key below one", nil, nil, "listen: {port: 1}\n", []string{"FILE:1: listen is a map", "text"}},
		{"unknown service", nil, nil, "services: {s4: {proof: full}}\n", []string{"FILE:1: services.s4 has neither run nor upstream"}},
		{"unknown service, empty", nil, nil, "services: {s4: }\n", []string{"FILE:1: services.s4 has neither run nor upstream"}},
		{"unknown key of a service", nil, nil, "services: {s3: {listen: x}}\n", []string{"FILE:1: services.s3.listen is not known", "enabled, match, idle, save_strategy, load_strategy, flush_interval, hold_timeout, proof"}},
		{"a service that is a word", nil, nil, "services: {s3: fast}\n", []string{`FILE:1: services.s3 is "fast"`, "save_strategy"}},
		{"services that are a list", nil, nil, "services: [s3]\n", []string{"FILE:1: services is a list", "a map"}},
		{"a list where a word belongs", nil, nil, "data: [a, b]\n", []string{"FILE:1: data is a list", "a text"}},
		{"not YAML", nil, nil, "a: [\n", []string{"FILE"}},
		{"no map", nil, nil, "- a\n", []string{"FILE"}},
		{"a module's limit", nil, nil, "modules: {orders: {limit_time: 1ms, limit_speed: 2}}\n", []string{"FILE:1: modules.orders.limit_time is \"1ms\"", "100ms to 24h", "modules.orders.limit_speed is not known", "limit_time"}},
		{"a module's setting", nil, nil, "modules: {orders: {proof: full}}\n", []string{"FILE:1: modules.orders.proof is not known"}},
		{"a value that a variable hides", nil, []string{"TORPOR_PROOF=off"}, "proof: some\n", []string{`FILE:1: proof is "some"`}},
		{"all at once", []string{"--listen", "x", "--proof", "no"}, []string{"TORPOR_GENERATIONS=0"}, "log_level: loud\nservices:\n  s3: {idle: soon}\n  a: {upstream: x}\n",
			[]string{"--listen is", "--proof is", "$TORPOR_GENERATIONS is", "FILE:1: log_level is", "FILE:3: services.s3.idle is", "FILE:4: services.a.upstream is"}},
		{"a large file", nil, nil, "# " + strings.Repeat("x", config.MaxBytes), []string{"FILE: the file has", "1048576"}},
		{"no such file", []string{"--config", "no-such.yaml"}, nil, "", []string{"no-such.yaml", "does not exist"}},
		{"a folder for a file", nil, []string{"TORPOR_CONFIG=" + os.TempDir()}, "", []string{os.TempDir()}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, path, err := read(t, c.flags, c.environ, c.file)
			if err == nil {
				t.Fatalf("no error, but %+v", s)
			}
			if got := exitCode(err); got != exitUsage {
				t.Errorf("exit code %d", got)
			}
			for _, want := range c.want {
				if want = strings.ReplaceAll(want, "FILE", path); !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q: %v", want, err)
				}
			}
		})
	}
}

func TestForeignVariablesAreLeftAlone(t *testing.T) {
	// Kubernetes puts such into every container beside a service named torpor.
	_, _, err := read(t, nil, []string{"TORPOR_SERVICE_HOST=10.0.0.1", "TORPOR_SERVICE_PORT=4566", "TORPOR_PORT=tcp://10.0.0.1:4566",
		"TORPOR_PORT_4566_TCP_ADDR=10.0.0.1", "TORPORX=1", "NO_EQUALS_SIGN", "SNAPSHOT_SOMETHING=1"}, "")
	if err != nil {
		t.Error(err)
	}
}

func TestSettingsTableIsConsistent(t *testing.T) {
	seen := map[string]string{}
	for _, s := range settingsTable() {
		for kind, name := range map[string]string{"key": s.key, "flag": s.flag(), "variable": s.env(), "LocalStack's variable": s.localstack} {
			if other, taken := seen[kind+name]; taken && name != "" {
				t.Errorf("%s %s stands for %s and for %s", kind, name, other, s.key)
			}
			seen[kind+name] = s.key
		}
		if s.usage == "" {
			t.Errorf("%s is not explained", s.key)
		}
	}
}

func TestUsageErrorKeepsItsCause(t *testing.T) {
	cause := errors.New("cause")
	if err := error(usageError{cause}); !errors.Is(err, cause) || err.Error() != "cause" {
		t.Errorf("%v hides its cause", err)
	}
}
