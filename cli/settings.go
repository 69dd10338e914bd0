package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/statedir"
)

// setting is one thing that can be configured: by flag, by environment, in the configuration file, in
// this order of strength.
type setting struct {
	key        string // in the configuration file; the flag has - for _, the variable is TORPOR_ and upper case
	def        string
	localstack string // LocalStack's own name for it, weaker than TORPOR_*
	perService bool   // may also stand under services.<name>
	perModule  bool   // may also stand under modules.<name>
	usage      string
}

func (s setting) flag() string { return strings.ReplaceAll(s.key, "_", "-") }
func (s setting) env() string  { return envPrefix + strings.ToUpper(s.key) }

const (
	envPrefix = "TORPOR_"
	configKey = "config"
)

// maxGenerations is how many generations can be kept: each is a file of the size of the state.
const maxGenerations = 1000

// settingsTable is every setting there is. README.md has the same table, and a test compares them.
func settingsTable() []setting {
	return append([]setting{
		{key: "listen", def: "127.0.0.1:4566", usage: "address and port to listen on; port 0 takes a free one"},
		{key: "data", def: ".torpor", usage: "folder the state is kept in"},
		{key: "cache", def: "", usage: "folder for compiled modules, private to this user (default: cache in the data folder)"},
		{key: configKey, def: "", usage: "configuration file (YAML)"},
		{key: "persistence", def: "1", localstack: "PERSISTENCE", usage: "1: state is saved and loaded; 0: nothing is read or written"},
		{key: "save_strategy", def: string(runtime.SaveScheduled), localstack: "SNAPSHOT_SAVE_STRATEGY", perService: true,
			usage: "when state is saved: " + names(runtime.SaveStrategies())},
		{key: "load_strategy", def: string(runtime.LoadOnRequest), localstack: "SNAPSHOT_LOAD_STRATEGY", perService: true,
			usage: "when state is loaded: " + names(runtime.LoadStrategies())},
		{key: "flush_interval", def: "15", localstack: "SNAPSHOT_FLUSH_INTERVAL", perService: true,
			usage: "how often changed services are saved with SCHEDULED: seconds, or a duration such as 500ms"},
		{key: "hold_timeout", def: "5", perService: true, usage: "how long a save may wait for requests under way: seconds, or a duration"},
		{key: "proof", def: string(runtime.ProofFull), perService: true, usage: "which saves are proved by loading them again: " + names(runtime.Proofs())},
		{key: "compression", def: runtime.Compressions()[0], perService: true, usage: "how state files are compressed, from the next full save on: " + names(runtime.Compressions())},
		{key: "drain_timeout", def: "3", usage: "how long requests under way may go on when stopping; the last save then takes what it needs: seconds, or a duration"},
		{key: "generations", def: strconv.Itoa(statedir.DefaultKeep), usage: "how many full saves of each part are kept, the newest included"},
		{key: "log_level", def: "info", usage: "debug, info, warn or error"},
		{key: "log_format", def: "auto", usage: "auto (colour on a terminal), text or json"},
	}, limitSettings()...)
}

func names[T ~string](all []T) string {
	s := make([]string, len(all))
	for i, v := range all {
		s[i] = string(v)
	}
	return strings.Join(s, ", ")
}

// settings is the configuration of one run, checked.
type settings struct {
	Listen, Data, Cache string
	Persistence         bool
	DrainTimeout        time.Duration
	Generations         int
	LogLevel, LogFormat string
	services            map[string]serviceSettings
	base                serviceSettings
	limits              host.Limits
	modules             map[string]host.Limits // of modules that have some of their own
}

type serviceSettings struct {
	Save          runtime.SaveStrategy
	Load          runtime.LoadStrategy
	FlushInterval time.Duration
	HoldTimeout   time.Duration
	Proof         runtime.Proof
	Compression   string
}

// service gives the settings of one service.
func (s *settings) service(name string) serviceSettings {
	if own, ok := s.services[name]; ok {
		return own
	}
	return s.base
}

// addFlags gives flags every setting.
func addFlags(flags *pflag.FlagSet) {
	for _, s := range settingsTable() {
		flags.String(s.flag(), s.def, s.usage+" ($"+s.env()+")")
	}
}

// addFlagsFor gives flags the settings named and the configuration file. The others are read, so that
// environment and file may hold them, but are not shown.
func addFlagsFor(flags *pflag.FlagSet, keys ...string) {
	addFlags(flags)
	for _, s := range settingsTable() {
		if s.key != configKey && !slices.Contains(keys, s.key) {
			_ = flags.MarkHidden(s.flag())
		}
	}
}

// readSettings merges defaults, configuration file, environment and flags, and checks everything. known
// are the services there are. Every error is a usageError and names the setting and what is allowed.
func readSettings(flags *pflag.FlagSet, environ []string, known []string) (*settings, error) {
	s, err := mergeSettings(flags, environ, known)
	if err != nil {
		return nil, usageError{err}
	}
	return s, nil
}

func mergeSettings(flags *pflag.FlagSet, environ []string, known []string) (*settings, error) {
	table := settingsTable()
	from := origins{}
	environment, err := fromEnvironment(table, environ, from)
	if err != nil {
		return nil, err
	}
	strong := koanf.New(".") // flags over environment
	if err := strong.Load(environment, nil); err != nil {
		return nil, err
	}
	// posflag gives the default of a flag that was not set only where the koanf it is shown lacks the key.
	err = strong.Load(posflag.ProviderWithFlag(flags, ".", strong, func(f *pflag.Flag) (string, any) {
		key := strings.ReplaceAll(f.Name, "-", "_")
		if !f.Changed || !slices.ContainsFunc(table, func(s setting) bool { return s.key == key }) {
			return "", nil
		}
		from[key] = "--" + f.Name
		return key, f.Value.String()
	}), nil)
	if err != nil {
		return nil, err
	}
	k := koanf.New(".")
	defaults := map[string]any{}
	for _, s := range table {
		defaults[s.key] = s.def
	}
	if err := k.Load(confmap.Provider(defaults, "."), nil); err != nil {
		return nil, err
	}
	path := strong.String(configKey)
	if path != "" {
		f := koanf.New(".")
		if err := f.Load(file.Provider(path), yaml.Parser()); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("configuration file %s does not exist", path)
			}
			return nil, fmt.Errorf("configuration file %s: %w", path, err)
		}
		if err := checkFile(path, table, f, known); err != nil {
			return nil, err
		}
		if err := k.Merge(f); err != nil {
			return nil, err
		}
		for _, key := range f.Keys() {
			if from[key] == "" {
				from[key] = path + ": " + key
			}
		}
	}
	if err := k.Merge(strong); err != nil {
		return nil, err
	}
	return parseSettings(k, known, from)
}

// origins says, by key, where a value comes from, as its author would look for it.
type origins map[string]string

func (o origins) name(key string) string { return cmp.Or(o[key], key) }

// fromEnvironment takes TORPOR_* and LocalStack's names, the former winning. A TORPOR_* that is no
// setting is an error, save those that Kubernetes makes for a service named torpor.
func fromEnvironment(table []setting, environ []string, from origins) (koanf.Provider, error) {
	keys, weak := map[string]string{}, map[string]string{}
	for _, s := range table {
		keys[s.env()] = s.key
		if s.localstack != "" {
			weak[s.localstack] = s.key
		}
	}
	set := map[string]bool{}
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if _, ok := keys[name]; ok {
			set[name] = value != ""
		} else if strings.HasPrefix(name, envPrefix) && !strings.HasPrefix(name, envPrefix+"SERVICE_") && !strings.HasPrefix(name, envPrefix+"PORT") {
			return nil, fmt.Errorf("environment variable %s is not known; there are %s", name, strings.Join(slices.Sorted(maps.Keys(keys)), ", "))
		}
	}
	return env.Provider(".", env.Opt{
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, value string) (string, any) {
			if value == "" { // as if not set, which is how compose files unset one
				return "", nil
			}
			key, ok := keys[name]
			if !ok {
				key, ok = weak[name]
				ok = ok && !set[envPrefix+strings.ToUpper(key)]
			}
			if !ok {
				return "", nil
			}
			from[key] = "$" + name
			return key, value
		},
	}), nil
}

// checkFile refuses keys that are no settings.
func checkFile(path string, table []setting, f *koanf.Koanf, known []string) error {
	var global, per, limits []string
	for _, s := range table {
		if s.key != configKey {
			global = append(global, s.key)
		}
		if s.perService {
			per = append(per, s.key)
		}
		if s.perModule {
			limits = append(limits, s.key)
		}
	}
	for _, key := range f.Keys() {
		rest, inService := strings.CutPrefix(key, "services.")
		name, leaf, isLeaf := strings.Cut(rest, ".")
		empty := f.Get(key) == nil || f.Get(key) == "" || isEmptyMap(f.Get(key))
		if rest, inModule := strings.CutPrefix(key, "modules."); inModule {
			if _, leaf, _ := strings.Cut(rest, "."); !slices.Contains(limits, leaf) && !empty {
				return fmt.Errorf("configuration file %s: %s is not known; a module may have %s", path, key, strings.Join(limits, ", "))
			}
			continue
		}
		switch {
		case inService && !slices.Contains(known, name):
			return fmt.Errorf("configuration file %s: services.%s: no such service; there are %s", path, name, strings.Join(known, ", "))
		case (inService && !isLeaf || key == "services" || key == "modules") && empty: // all of it is commented out
			continue
		case inService && !isLeaf, key == "services":
			return fmt.Errorf("configuration file %s: %s is %v; it must hold settings, such as %s", path, key, f.Get(key), per[0])
		case inService && !slices.Contains(per, leaf):
			return fmt.Errorf("configuration file %s: %s is not known; a service may have %s", path, key, strings.Join(per, ", "))
		case !inService && !slices.Contains(global, key):
			return fmt.Errorf("configuration file %s: %s is not known; there are %s, services, modules", path, key, strings.Join(global, ", "))
		}
		switch v := f.Get(key).(type) {
		case []any, map[string]any:
			return fmt.Errorf("configuration file %s: %s is %v; it must be one value", path, key, v)
		}
	}
	return nil
}

func isEmptyMap(v any) bool {
	m, ok := v.(map[string]any)
	return ok && len(m) == 0
}

func parseSettings(k *koanf.Koanf, known []string, from origins) (*settings, error) {
	s := &settings{Listen: k.String("listen"), Data: k.String("data"), Cache: k.String("cache"),
		LogLevel: strings.ToLower(k.String("log_level")), LogFormat: strings.ToLower(k.String("log_format")), services: map[string]serviceSettings{}}
	var err error
	if err := checkAddress(from.name("listen"), s.Listen); err != nil {
		return nil, err
	}
	if s.Data == "" {
		return nil, fmt.Errorf("%s is empty; it must name a folder", from.name("data"))
	}
	if s.Persistence, err = parseSwitch(from.name("persistence"), k.String("persistence")); err != nil {
		return nil, err
	}
	if s.DrainTimeout, err = parseDuration(from.name("drain_timeout"), k.String("drain_timeout"), 0, time.Hour); err != nil {
		return nil, err
	}
	if s.Generations, err = strconv.Atoi(k.String("generations")); err != nil || s.Generations < 1 || s.Generations > maxGenerations {
		return nil, fmt.Errorf("%s is %q; allowed are 1 to %d", from.name("generations"), k.String("generations"), maxGenerations)
	}
	for _, c := range []struct {
		key, value string
		allowed    []string
	}{
		{"log_level", s.LogLevel, []string{"debug", "info", "warn", "error"}},
		{"log_format", s.LogFormat, []string{"auto", "text", "json"}},
	} {
		if !slices.Contains(c.allowed, c.value) {
			return nil, fmt.Errorf("%s is %q; allowed are %s", from.name(c.key), k.String(c.key), strings.Join(c.allowed, ", "))
		}
	}
	if s.base, err = parseService(k, "", from); err != nil {
		return nil, err
	}
	for _, name := range known {
		if s.services[name], err = parseService(k, "services."+name+".", from); err != nil {
			return nil, err
		}
	}
	return s, s.parseLimits(k, from)
}

// parseService reads a service's settings, each falling back to the one for all services.
func parseService(k *koanf.Koanf, prefix string, from origins) (out serviceSettings, err error) {
	get := func(key string) (name, value string) {
		if prefix != "" && k.Exists(prefix+key) {
			key = prefix + key
		}
		return from.name(key), k.String(key)
	}
	name, v := get("save_strategy")
	if out.Save, err = runtime.Parse(name, v, runtime.SaveStrategies()); err != nil {
		return out, err
	}
	name, v = get("load_strategy")
	if out.Load, err = runtime.Parse(name, v, runtime.LoadStrategies()); err != nil {
		return out, err
	}
	name, v = get("proof")
	if out.Proof, err = runtime.Parse(name, v, runtime.Proofs()); err != nil {
		return out, err
	}
	name, v = get("compression")
	if out.Compression, err = runtime.Parse(name, v, runtime.Compressions()); err != nil {
		return out, err
	}
	name, v = get("flush_interval")
	if out.FlushInterval, err = parseDuration(name, v, runtime.MinFlushInterval, runtime.MaxFlushInterval); err != nil {
		return out, err
	}
	name, v = get("hold_timeout")
	out.HoldTimeout, err = parseDuration(name, v, time.Millisecond, time.Hour)
	return out, err
}

// checkAddress checks an address to listen on. An empty one would be any port of all addresses.
func checkAddress(name, v string) error {
	_, port, err := net.SplitHostPort(v)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("%s is %q; it must be an address and a port, such as 127.0.0.1:4566, or :4566 for all addresses", name, v)
	}
	return nil
}

// parseSwitch takes what LocalStack takes for true and false.
func parseSwitch(name, v string) (bool, error) {
	switch strings.ToLower(v) {
	case "1", "true":
		return true, nil
	case "0", "false":
		return false, nil
	}
	return false, fmt.Errorf("%s is %q; allowed are 1, true, 0, false", name, v)
}

// parseDuration takes seconds, as LocalStack does, or a Go duration.
func parseDuration(name, v string, least, most time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(v)
	if seconds, numErr := strconv.ParseFloat(v, 64); numErr == nil && seconds < 1e9 {
		d, err = time.Duration(seconds*float64(time.Second)), nil
	}
	if err != nil || d < least || d > most {
		return 0, fmt.Errorf("%s is %q; allowed are seconds or a duration such as 500ms, from %v to %v", name, v, least, most)
	}
	return d, nil
}
