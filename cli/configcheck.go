package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/torpor-run/torpor/cli/config"
)

func (p *program) config() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check the configuration file, and help to write it",
		Long: `The configuration file, torpor.yaml, says which services there are, how they are run and which
requests are theirs, and where their state is. Editors that know the YAML language server check and complete
it with

  # yaml-language-server: $schema=torpor.schema.json

in its first line, and "torpor config schema > torpor.schema.json".`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(p.configCheck(), p.configSchema(), p.configPresets(), p.configPreset())
	return cmd
}

func (p *program) configCheck() *cobra.Command {
	var asJSON, showEnv bool
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Read a configuration file, and tell all that is wrong with it or what it means",
		Long: `Check reads FILE, or the file that serve would read ($TORPOR_CONFIG, or torpor.yaml in the current folder),
together with the environment, as serve does. Every mistake is told with its line, and the exit code is 2; or
else what the file means. Nothing is started and nothing is written.

Values of the services' environments and of headers are shown as ***, unless --show-env.`,
		Example: `  torpor config check
  torpor config check --json torpor.yaml`,
		Args: args(cobra.MaximumNArgs(1)),
	}
	addFlagsFor(cmd.Flags(), "data")
	_ = cmd.Flags().SetAnnotation(configKey, withoutServices, nil)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the whole configuration, presets and defaults filled in, as JSON")
	cmd.Flags().BoolVar(&showEnv, "show-env", false, "with --json, show values of environments and headers too")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		if len(a) > 0 {
			if cmd.Flags().Changed(configKey) {
				return usageError{errors.New("FILE and --config both name a file; give one of them")}
			}
			if err := cmd.Flags().Set(configKey, a[0]); err != nil {
				return usageError{err}
			}
		}
		s, err := readSettings(cmd.Flags(), p.environ, knownServices())
		if err != nil {
			return err
		}
		if s.ConfigFile == "" {
			return usageError{fmt.Errorf("there is no configuration file: name one, or put %s into the current folder", config.DefaultFile)}
		}
		if err := checkSerializers(s); err != nil {
			return err
		}
		if asJSON {
			return writeJSON(p.Out, effective(s, showEnv))
		}
		return summarize(p.Out, s)
	}
	return cmd
}

// checkSerializers tells of parts whose serializer is neither built in nor pinned. What is pinned lies in the
// data folder.
func checkSerializers(s *settings) (err error) {
	if !s.Persistence {
		return nil
	}
	fsys, err := dataFolder(s)
	if err != nil {
		return err
	}
	if fsys != nil {
		defer func() { err = errors.Join(err, fsys.Close()) }()
	}
	all, err := keptModules(fsys)
	if err != nil {
		return err
	}
	var names []string
	for _, k := range all {
		names = append(names, k.name)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	var errs []error
	for _, svc := range s.Services {
		for _, part := range svc.Parts {
			if !slices.Contains(names, part.Serializer) {
				key := "services." + svc.Name + ".parts." + part.Name + ".serializer"
				errs = append(errs, fmt.Errorf("%s is %q, which is neither built in nor pinned in %s; there are %s; add yours with torpor module add",
					s.document.Where(key), part.Serializer, s.Data, strings.Join(names, ", ")))
			}
		}
	}
	if len(errs) > 0 {
		return usageError{errors.Join(errs...)}
	}
	return nil
}

// effective is the whole configuration, in the form of the file.
func effective(s *settings, showEnv bool) map[string]any {
	out := map[string]any{"services": s.document.Effective(showEnv)}
	maps.Copy(out, s.values)
	delete(out, configKey)
	return out
}

// summarize tells people what the services are.
func summarize(w io.Writer, s *settings) error {
	fmt.Fprintf(w, "%s: %s\n", s.ConfigFile, count(len(s.Services), "service"))
	for _, svc := range s.Services {
		fmt.Fprintf(w, "\n%s\n", svc.Name)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		row := func(name, format string, values ...any) {
			fmt.Fprintf(t, "  %s\t%s\n", name, fmt.Sprintf(format, values...))
		}
		if svc.Preset != "" {
			row("preset", "%s: %s", svc.Preset, config.PresetAbout(svc.Preset))
		}
		switch {
		case svc.Embedded:
			row("runs", "in this process")
		case svc.Run != nil:
			row("runs", "%s", commandLine(s.document.Command(svc.Name)))
		default:
			row("upstream", "%s", svc.Upstream)
		}
		row("matches", "%s", describeMatch(svc.Match))
		row("saved", "%s, proof %s, compression %s", saves(svc.Strategies), svc.Proof, svc.Compression)
		row("loaded", "%s", svc.Load)
		if svc.Idle > 0 {
			row("sleeps", "after %s without requests", config.FormatDuration(svc.Idle))
		}
		for _, part := range svc.Parts {
			row("part "+part.Name, "serializer %s, source %s", part.Serializer, describeSource(part.Source))
		}
		if !svc.Embedded && len(svc.Parts) == 0 {
			row("parts", "none: its state is not kept")
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// commandLine writes a command so that a shell would read it as it is.
func commandLine(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		if w == "" || strings.ContainsAny(w, " \t\n\"'\\$&|;<>()*?`#~!") {
			w = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		out[i] = w
	}
	return strings.Join(out, " ")
}

func saves(s config.Strategies) string {
	if s.Save == "SCHEDULED" {
		return fmt.Sprintf("%s every %s", s.Save, config.FormatDuration(s.FlushInterval))
	}
	return string(s.Save)
}

// describeMatch says which requests are a service's.
func describeMatch(m config.Match) string {
	if m.None {
		return "nothing: clients speak to it directly"
	}
	var all []string
	add := func(what string, values []string) {
		if len(values) > 0 {
			all = append(all, what+" "+strings.Join(values, " or "))
		}
	}
	add("host", m.Hosts)
	for _, name := range slices.Sorted(maps.Keys(m.Headers)) {
		add("header", []string{name + ": " + m.Headers[name]})
	}
	add("AWS", m.AWS)
	add("path", m.Paths)
	if m.Strip {
		all[len(all)-1] += ", taken away"
	}
	return cmp.Or(strings.Join(all, " and "), "what is no other service's")
}

// describeSource says where a part's state is.
func describeSource(s config.Source) string {
	switch {
	case s.File != nil:
		return "file " + s.File.Path
	case s.Files != nil:
		return "files " + s.Files.Root
	case s.SQLite != nil && s.SQLite.Pattern != "":
		return "sqlite " + s.SQLite.Path + "/" + s.SQLite.Pattern
	case s.SQLite != nil:
		return "sqlite " + s.SQLite.Path
	case s.HTTP != nil:
		return "http " + s.HTTP.URL
	case s.Exec != nil:
		return "exec " + s.Exec.Dump[0] + ", " + s.Exec.Restore[0]
	}
	return s.Kind()
}

func (p *program) configSchema() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of the configuration file, for editors", Args: args(cobra.NoArgs),
		Long: `Schema prints the JSON Schema of the configuration file. Editors check and complete the file by it: see
torpor config --help.`,
		Example: "  torpor config schema > torpor.schema.json",
		RunE: func(*cobra.Command, []string) error {
			_, err := p.Out.Write(config.Schema())
			return err
		},
	}
}

func (p *program) configPresets() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "presets", Short: "List the presets", Args: args(cobra.NoArgs),
		Long: `Presets lists what a service in the configuration file can be made of with "preset: NAME": each says how
some well-known program is run and where its state is.`,
		Example: `  torpor config presets
  torpor config presets --json | jq -r '.[].name'`,
		RunE: func(*cobra.Command, []string) error {
			type preset struct {
				Name  string `json:"name"`
				About string `json:"about"`
			}
			all := []preset{}
			for _, name := range config.Presets() {
				all = append(all, preset{name, config.PresetAbout(name)})
			}
			if asJSON {
				return writeJSON(p.Out, all)
			}
			t := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
			for _, one := range all {
				fmt.Fprintf(t, "%s\t%s\n", one.Name, one.About)
			}
			return t.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (p *program) configPreset() *cobra.Command {
	return &cobra.Command{
		Use: "preset NAME", Short: "Print a preset: YAML of the same form as a service", Args: args(cobra.ExactArgs(1)),
		Long:    `Preset prints what a preset says. It can be copied into the configuration file and changed there.`,
		Example: "  torpor config preset json-server",
		RunE: func(_ *cobra.Command, a []string) error {
			b, err := config.Preset(a[0])
			if err != nil {
				return err
			}
			_, err = p.Out.Write(b)
			return err
		},
	}
}
