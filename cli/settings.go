package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"

	"github.com/torpor-run/torpor/cli/config"
	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/server"
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

	// What the file may hold; limits say it themselves.
	kind        config.Kind
	values      []string
	least, most int64
}

func (s setting) flag() string { return strings.ReplaceAll(s.key, "_", "-") }
func (s setting) env() string  { return envPrefix + strings.ToUpper(s.key) }

const (
	envPrefix = "TORPOR_"
	configKey = "config"
)

// Variables that are no settings of serve; keyVariable is another.
const (
	urlVariable        = envPrefix + "URL"        // where commands find a running torpor
	passphraseVariable = envPrefix + "PASSPHRASE" // of snapshots
)

// otherVariables lists them.
func otherVariables() []string { return []string{keyVariable, urlVariable, passphraseVariable} }

// maxGenerations is how many generations can be kept: each is a file of the size of the state.
const maxGenerations = 1000

// maxDrainTimeout is how long a stop may wait for requests.
const maxDrainTimeout = time.Hour

// settingsTable is every setting there is. README.md has the same table, and a test compares them.
func settingsTable() []setting {
	return append([]setting{
		{key: "listen", def: "127.0.0.1:4566", usage: "address and port to listen on; port 0 takes a free one"},
		{key: keyFileKey, def: "", usage: "file with the key that control calls must carry (stronger: $" + keyVariable + "; weaker: $" +
			strings.Join(localstackKeyVariables(), ", $") + ")"},
		{key: "control", def: string(server.ControlLoopback), kind: config.Choice, values: words(server.Controls()),
			usage: "from where control calls are taken without a key: loopback (this machine), any (whoever reaches the port)"},
		{key: "control_hosts", def: "", usage: "names by which control calls may come without a key, separated by commas, besides localhost, addresses and the hosts of services"},
		{key: "data", def: ".torpor", usage: "folder the state is kept in"},
		{key: "cache", def: "", usage: "folder for compiled modules, private to this user (default: cache in the data folder)"},
		{key: configKey, def: "", usage: "configuration file (YAML; default: " + config.DefaultFile + " if there is one)"},
		{key: "init", def: "/etc/localstack/init", usage: "folder of init scripts, with boot.d, start.d, ready.d and shutdown.d; it need not be there"},
		{key: "auto_load_pod", def: "", localstack: "AUTO_LOAD_POD", usage: "snapshots to load at the start, separated by commas: NAME, NAME@VERSION or file://PATH"},
		{key: "init_pods", def: "/etc/localstack/init-pods.d", usage: "folder of snapshots to load at the start: exported files, and lists of names (.txt); it need not be there"},
		{key: "persistence", def: "1", localstack: "PERSISTENCE", kind: config.Switch, usage: "1: state is saved and loaded; 0: nothing is read or written"},
		{key: "save_strategy", def: string(runtime.SaveScheduled), localstack: "SNAPSHOT_SAVE_STRATEGY", perService: true,
			kind: config.Choice, values: words(runtime.SaveStrategies()), usage: "when state is saved: " + names(runtime.SaveStrategies())},
		{key: "load_strategy", def: string(runtime.LoadOnRequest), localstack: "SNAPSHOT_LOAD_STRATEGY", perService: true,
			kind: config.Choice, values: words(runtime.LoadStrategies()), usage: "when state is loaded: " + names(runtime.LoadStrategies())},
		{key: "flush_interval", def: "15", localstack: "SNAPSHOT_FLUSH_INTERVAL", perService: true,
			kind: config.Duration, least: int64(runtime.MinFlushInterval), most: int64(runtime.MaxFlushInterval),
			usage: "how often changed services are saved with SCHEDULED: seconds, or a duration such as 500ms"},
		{key: "hold_timeout", def: "5", perService: true, kind: config.Duration, least: int64(config.MinHoldTimeout), most: int64(config.MaxHoldTimeout),
			usage: "how long a save may wait for requests under way: seconds, or a duration"},
		{key: "proof", def: string(runtime.ProofFull), perService: true, kind: config.Choice, values: words(runtime.Proofs()),
			usage: "which saves are proved by loading them again: " + names(runtime.Proofs())},
		{key: "compression", def: runtime.Compressions()[0], perService: true, kind: config.Choice, values: runtime.Compressions(),
			usage: "how state files are compressed, from the next full save on: " + names(runtime.Compressions())},
		{key: "drain_timeout", def: "3", kind: config.Duration, most: int64(maxDrainTimeout),
			usage: "how long requests under way may go on when stopping; the last save then takes what it needs: seconds, or a duration"},
		{key: "generations", def: strconv.Itoa(statedir.DefaultKeep), kind: config.Number, least: 1, most: maxGenerations,
			usage: "how many full saves of each part are kept, the newest included"},
		{key: "log_level", def: "info", kind: config.Choice, values: logLevels(), usage: "debug, info, warn or error"},
		{key: "log_format", def: "auto", kind: config.Choice, values: logFormats(), usage: "auto (colour on a terminal), text or json"},
	}, limitSettings()...)
}

func logLevels() []string  { return []string{"debug", "info", "warn", "error"} }
func logFormats() []string { return []string{"auto", "text", "json"} }

func words[T ~string](all []T) []string {
	s := make([]string, len(all))
	for i, v := range all {
		s[i] = string(v)
	}
	return s
}

func names[T ~string](all []T) string { return strings.Join(words(all), ", ") }

// configForm is what a configuration file may hold; known are the services that run in this process.
func configForm(known []string) config.Form {
	form := config.Form{Embedded: known}
	for _, s := range settingsTable() {
		if s.key == configKey { // a file does not name files
			continue
		}
		c := config.Setting{Key: s.key, About: s.usage, Default: s.def, Kind: s.kind, Values: s.values, Least: s.least, Most: s.most, Module: s.perModule}
		for _, m := range limitTable() {
			if m.key == s.key {
				b := m.bound(&host.Limits{})
				c.Kind, c.Least, c.Most = m.unit.kind(), b.Min, b.Max
			}
		}
		form.Settings = append(form.Settings, c)
	}
	return form
}

// kind is how the configuration file has what a unit counts.
func (u unit) kind() config.Kind {
	switch u {
	case duration:
		return config.Duration
	case byteCount:
		return config.Size
	}
	return config.Number
}

// settings is the configuration of one run, checked.
type settings struct {
	ConfigFile          string // the file that was read; "" for none
	Listen, Data, Cache string
	APIKeyFile          string         // "" for none
	keyFileFrom         string         // where that is said
	Control             server.Control // who may control without a key
	ControlHosts        []string       // and under which names
	Init                string         // folder of init scripts
	AutoLoadPod         string         // snapshots to load at the start
	InitPods            string         // folder of such
	Persistence         bool
	DrainTimeout        time.Duration
	Generations         int
	LogLevel, LogFormat string
	Services            []config.Service // ordered by name, the embedded ones among them; none in commands that run none
	base                serviceSettings
	limits              host.Limits
	modules             map[string]host.Limits // of modules that have some of their own
	document            *config.Document       // that Services come from
	values              map[string]any         // all that is not a service's, as the file would have it
	access              server.Access          // who may control, once serve has read the key
	keyFrom             string                 // where the key comes from
}

// serviceSettings say when and how a service is saved and loaded.
type serviceSettings = config.Strategies

// service gives the strategies of one service.
func (s *settings) service(name string) serviceSettings {
	for _, own := range s.Services {
		if own.Name == name {
			return own.Strategies
		}
	}
	return s.base
}

// addFlags gives flags every setting.
func addFlags(flags *pflag.FlagSet) {
	for _, s := range settingsTable() {
		flags.String(s.flag(), s.def, s.usage+" ($"+s.env()+")")
	}
}

// withoutServices annotates --config in commands that run no services.
const withoutServices = "without services"

// addFlagsFor gives flags the settings named and the configuration file. The others are read, so that
// environment and file may hold them, but are not shown. Services are left out: a command that runs none must
// not fail where a variable that only they need is not set.
func addFlagsFor(flags *pflag.FlagSet, keys ...string) {
	addFlags(flags)
	for _, s := range settingsTable() {
		if s.key != configKey && !slices.Contains(keys, s.key) {
			_ = flags.MarkHidden(s.flag())
		}
	}
	_ = flags.SetAnnotation(configKey, withoutServices, []string{"true"})
}

// readSettings merges defaults, configuration file, environment and flags, and checks everything. known
// are the services that run in this process. The error is a usageError with every mistake there is; each names
// the setting, where it comes from and what is allowed.
func readSettings(flags *pflag.FlagSet, environ []string, known []string) (*settings, error) {
	s, err := mergeSettings(flags, environ, known)
	if err != nil {
		return nil, usageError{err}
	}
	return s, nil
}

// mergeSettings reads settings as [readSettings] does.
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
	doc, path, fileErr := readDocument(configForm(known), strong)
	inFile := map[string]any{}
	for key, v := range doc.Values() {
		inFile[key] = v
		if from[key] == "" {
			from[key] = doc.Where(key)
		}
	}
	for _, key := range []string{"data", "cache", "init", "init_pods", keyFileKey} { // as all relative folders in a file
		if v, ok := inFile[key].(string); ok && !filepath.IsAbs(v) {
			inFile[key] = filepath.Join(filepath.Dir(path), v)
		}
	}
	defaults := map[string]any{}
	for _, s := range table {
		defaults[s.key] = s.def
	}
	k := koanf.New(".")
	for _, values := range []map[string]any{defaults, inFile} {
		if err := k.Load(confmap.Provider(values, "."), nil); err != nil {
			return nil, err
		}
	}
	if err := k.Merge(strong); err != nil {
		return nil, err
	}
	s, err := parseSettings(k, from)
	s.ConfigFile, s.document, s.values = path, doc, k.Raw()
	if f := flags.Lookup(configKey); f != nil && len(f.Annotations[withoutServices]) > 0 {
		return s, errors.Join(fileErr, err)
	}
	var servicesErr error
	s.Services, servicesErr = doc.Services(s.base, environ)
	return s, errors.Join(fileErr, err, servicesErr)
}

// readDocument reads the configuration file that flags or environment name, or the one in the current folder
// if there is one. An empty --config is for none. After an error it gives what could be read.
func readDocument(form config.Form, strong *koanf.Koanf) (_ *config.Document, path string, _ error) {
	path, named := strong.String(configKey), strong.Exists(configKey)
	if !named {
		path = config.DefaultFile
	}
	if path == "" {
		return config.Empty(form), "", nil
	}
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !named:
		return config.Empty(form), "", nil
	case errors.Is(err, fs.ErrNotExist):
		return config.Empty(form), path, fmt.Errorf("configuration file %s does not exist", path)
	case err != nil:
		return config.Empty(form), path, fmt.Errorf("configuration file: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, config.MaxBytes+1))
	if err != nil {
		return config.Empty(form), path, fmt.Errorf("configuration file: %w", err)
	}
	doc, err := config.Read(form, path, b)
	return doc, path, err
}

// origins says, by key, where a value comes from, as its author would look for it.
type origins map[string]string

func (o origins) name(key string) string { return cmp.Or(o[key], key) }

// fromEnvironment takes TORPOR_* and LocalStack's names, the former winning. A TORPOR_* that is no
// setting is an error, save those that Kubernetes makes for a service named torpor.
func fromEnvironment(table []setting, environ []string, from origins) (koanf.Provider, error) {
	keys, weak := map[string]string{}, map[string]string{}
	known := otherVariables()
	for _, s := range table {
		keys[s.env()] = s.key
		known = append(known, s.env())
		if s.localstack != "" {
			weak[s.localstack] = s.key
		}
	}
	set := map[string]bool{}
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if _, ok := keys[name]; ok {
			set[name] = value != ""
		} else if strings.HasPrefix(name, envPrefix) && !slices.Contains(otherVariables(), name) && !strings.HasPrefix(name, envPrefix+"SERVICE_") && !strings.HasPrefix(name, envPrefix+"PORT") {
			return nil, fmt.Errorf("environment variable %s is not known; there are %s", name, strings.Join(slices.Sorted(slices.Values(known)), ", "))
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

// parseSettings reads what was merged. After an error the settings have what could be read.
func parseSettings(k *koanf.Koanf, from origins) (*settings, error) {
	s := &settings{Listen: k.String("listen"), Data: k.String("data"), Cache: k.String("cache"), Init: k.String("init"),
		LogLevel: strings.ToLower(k.String("log_level")), LogFormat: strings.ToLower(k.String("log_format"))}
	s.AutoLoadPod, s.InitPods = k.String("auto_load_pod"), k.String("init_pods")
	s.APIKeyFile, s.keyFileFrom, s.ControlHosts = k.String(keyFileKey), from.name(keyFileKey), parseHosts(k.String("control_hosts"))
	var err error
	errs := []error{checkAddress(from.name("listen"), s.Listen)}
	if s.Data == "" {
		errs = append(errs, fmt.Errorf("%s is empty; it must name a folder", from.name("data")))
	}
	s.Persistence, err = parseSwitch(from.name("persistence"), k.String("persistence"))
	errs = append(errs, err)
	s.Control, err = runtime.Parse(from.name("control"), k.String("control"), server.Controls())
	errs = append(errs, err)
	s.DrainTimeout, err = parseDuration(from.name("drain_timeout"), k.String("drain_timeout"), 0, maxDrainTimeout)
	errs = append(errs, err)
	if s.Generations, err = strconv.Atoi(k.String("generations")); err != nil || s.Generations < 1 || s.Generations > maxGenerations {
		errs = append(errs, fmt.Errorf("%s is %q; allowed are 1 to %d", from.name("generations"), k.String("generations"), maxGenerations))
	}
	for _, c := range []struct {
		key, value string
		allowed    []string
	}{
		{"log_level", s.LogLevel, logLevels()},
		{"log_format", s.LogFormat, logFormats()},
	} {
		if !slices.Contains(c.allowed, c.value) {
			errs = append(errs, fmt.Errorf("%s is %q; allowed are %s", from.name(c.key), k.String(c.key), strings.Join(c.allowed, ", ")))
		}
	}
	s.base, err = parseStrategies(k, from)
	errs = append(errs, err, s.parseLimits(k, from))
	return s, errors.Join(errs...)
}

// parseStrategies reads what is said for all services.
func parseStrategies(k *koanf.Koanf, from origins) (out serviceSettings, _ error) {
	errs := make([]error, 6)
	out.Save, errs[0] = runtime.Parse(from.name("save_strategy"), k.String("save_strategy"), runtime.SaveStrategies())
	out.Load, errs[1] = runtime.Parse(from.name("load_strategy"), k.String("load_strategy"), runtime.LoadStrategies())
	out.FlushInterval, errs[2] = parseDuration(from.name("flush_interval"), k.String("flush_interval"), runtime.MinFlushInterval, runtime.MaxFlushInterval)
	out.HoldTimeout, errs[3] = parseDuration(from.name("hold_timeout"), k.String("hold_timeout"), config.MinHoldTimeout, config.MaxHoldTimeout)
	out.Proof, errs[4] = runtime.Parse(from.name("proof"), k.String("proof"), runtime.Proofs())
	out.Compression, errs[5] = runtime.Parse(from.name("compression"), k.String("compression"), runtime.Compressions())
	return out, errors.Join(errs...)
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
	d, err := config.ParseDuration(v)
	if err != nil || d < least || d > most {
		return 0, fmt.Errorf("%s is %q; allowed are seconds or a duration such as 500ms, from %v to %v", name, v, least, most)
	}
	return d, nil
}
