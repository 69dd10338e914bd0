package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/conformance"
	"github.com/torpor-run/torpor/runtime/notation"
)

func (p *program) moduleTest() *cobra.Command {
	var o moduleTestOptions
	var checks strings.Builder
	for _, c := range conformance.Checks() {
		fmt.Fprintf(&checks, "  %-16s %s\n", c.Name, c.About)
	}
	cmd := &cobra.Command{
		Use:   "test FILE|NAME",
		Short: "Hold a module against what every serializer must do",
		Long: fmt.Sprintf(`Test runs a serializer, a file or the name of one that is built in or pinned, in the sandbox that serve runs it
in, with the native states in a folder, and checks:

%s
A failed check is something the ABI forbids, or a way to lose state; a note is worth knowing, no more. What
looks random follows from --seed: the same module, fixtures and seed have the same verdicts.

The folder of --fixtures (default: fixtures beside the file) holds

  NAME                   a native state, as the service writes it, of at most %d MiB; some small ones show
                         more than one large one
  schema-N/NAME.records  records of schema N, as an older version of the module wrote them
  schema-N/NAME.native   the native state that they must become today; may be missing

Names that begin with a dot, README.md and other folders are passed over. With --write-records DIR the
records of each fixture are kept in DIR as the last two above: do so before you change the schema, and
the records become what the next version is tested with. A file that is there with other content is an error.

A fixture of up to %d bytes is truncated at every length, a larger one at up to %d; with --thorough every
fixture is, and more damage is tried. Where a module computes much, less is tried with fixtures of more than
%d bytes, and it is said how much is left out. The limits are those that the module would be served with,
but no more than a minute and 1 GiB of output for a call.

The exit code is 0 if every check passed and 1 if one failed. A module that the sandbox refuses at once has 3
(no sound WebAssembly), 4 (another ABI), 7 (too large) or 1; 2 is a mistaken option or a folder without
a fixture, 5 a module or folder that is not there.`, checks.String(), conformance.MaxFixtureBytes>>20, conformance.MaxEveryTruncation, conformance.TruncationSamples, conformance.MaxEveryByte),
		Example: `  torpor module test orders.wasm
  torpor module test orders.wasm --fixtures testdata --only round-trip --only truncation
  torpor module test orders.wasm --write-records fixtures
  torpor module test pickle --fixtures backends --setting depth=3
  torpor module test orders.wasm --json | jq '.results[] | select(.status == "failed")'`,
		Args: func(cmd *cobra.Command, a []string) error {
			if len(a) != 1 {
				return usageError{fmt.Errorf("name one module, such as orders.wasm; torpor module build makes it; see %s --help", cmd.CommandPath())}
			}
			return nil
		},
	}
	f := cmd.Flags()
	addFlagsFor(f, "cache", "data")
	f.StringVar(&o.fixtures, "fixtures", "", "folder of native states to test with (default: fixtures beside the file)")
	f.BoolVar(&o.json, "json", false, "print JSON")
	f.StringArrayVar(&o.only, "only", nil, "only this check; may be given more than once")
	f.Uint64Var(&o.seed, "seed", 1, "what the damages are chosen by")
	f.BoolVar(&o.thorough, "thorough", false, "every truncation of large fixtures too, and more damage: takes long")
	f.StringArrayVar(&o.settings, "setting", nil, "a setting of the part, NAME=VALUE, the value as JSON or text; may be given more than once")
	f.StringVar(&o.writeRecords, "write-records", "", "folder to keep the records of the fixtures in")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		s, err := readSettings(f, p.environ, knownServices())
		if err != nil {
			return err
		}
		return p.runModuleTest(cmd.Context(), s, o, a[0])
	}
	return cmd
}

type moduleTestOptions struct {
	fixtures       string
	json, thorough bool
	only, settings []string
	seed           uint64
	writeRecords   string
}

// moduleTestError sums up the checks that failed.
type moduleTestError struct{ failed, checks int }

func (e *moduleTestError) Error() string {
	return fmt.Sprintf("%d of %d checks failed: see above", e.failed, e.checks)
}

func (p *program) runModuleTest(ctx context.Context, s *settings, o moduleTestOptions, path string) (failed error) {
	wasm, file, err := findModule(s, path)
	if err != nil {
		return err
	}
	fixtures, err := o.readFixtures(file)
	if err != nil {
		return err
	}
	cache := cacheDir(s)
	if _, err := os.Stat(s.Data); s.Cache == "" && err != nil {
		// A command that only looks makes no data folder. The module is compiled once, not for each of the hosts.
		if cache, err = os.MkdirTemp("", "torpor-module-test-"); err != nil {
			return fmt.Errorf("compiled modules: %w", err)
		}
		defer func() { failed = errors.Join(failed, os.RemoveAll(cache)) }()
	}
	options := conformance.Options{Name: filepath.Base(path), Wasm: wasm, Fixtures: fixtures, Only: o.only, Seed: o.seed, Thorough: o.thorough,
		Limits: s.limits, Modules: s.modules, CacheDir: cache, Logger: slog.New(slog.DiscardHandler)}
	// Until it says itself what it is called, it is called as its file is.
	if own, ok := s.modules[strings.TrimSuffix(options.Name, ".wasm")]; ok {
		options.Limits = own
	}
	if options.Settings, err = partSettings(o.settings); err != nil {
		return err
	}
	var kept keeper
	if o.writeRecords != "" {
		if kept.dir = o.writeRecords; len(o.only) > 0 && !slices.Contains(o.only, conformance.RoundTrip) {
			return usageError{fmt.Errorf("--write-records keeps records that come back: add --only %s", conformance.RoundTrip)}
		}
		options.Keep = kept.keep
	}
	bar := p.progress("module test")
	if bar.bar != nil {
		progressbar.OptionShowBytes(false)(bar.bar)
		options.Progress = func(at conformance.Progress) {
			bar.bar.Describe(strings.TrimSpace(at.Check + " " + notation.OneWord(at.Fixture)))
			bar.set(at.Done, at.Total)
		}
	}
	start := time.Now()
	report, err := conformance.Run(ctx, options)
	bar.close()
	switch {
	case errors.Is(err, conformance.ErrUnknownCheck):
		var names []string
		for _, c := range conformance.Checks() {
			names = append(names, c.Name)
		}
		return usageError{fmt.Errorf("--only: %w; the checks are %s", err, strings.Join(names, ", "))}
	case err != nil:
		return err
	}
	if o.json {
		err = writeJSON(p.Out, report)
	} else {
		err = printTestReport(p.Out, report, kept, time.Since(start))
	}
	if err == nil && !report.Passed {
		total := &moduleTestError{}
		for _, c := range byCheck(report) {
			if total.checks++; c.count(conformance.Failed) > 0 {
				total.failed++
			}
		}
		err = total
	}
	return errors.Join(err, kept.failed)
}

// readFixtures reads the folder of --fixtures, or the one beside the module's file, if it is one.
func (o moduleTestOptions) readFixtures(module string) (*conformance.Fixtures, error) {
	dir := o.fixtures
	if dir == "" {
		if module == "" {
			return nil, usageError{errors.New("name the folder of native states with --fixtures: beside a module that is no file there is none")}
		}
		dir = filepath.Join(filepath.Dir(module), "fixtures")
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && o.fixtures == "":
		return nil, usageError{fmt.Errorf("there is no folder %s: name one with --fixtures that holds native states, as the service writes them, one in each file", dir)}
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("fixtures %s: %w", dir, abi.ErrNotFound)
	case err != nil:
		return nil, fmt.Errorf("fixtures: %w", err)
	case !info.IsDir():
		return nil, usageError{fmt.Errorf("%s is no folder: --fixtures names the folder of the native states", dir)}
	}
	fixtures, err := conformance.ReadFixtures(os.DirFS(dir))
	if errors.Is(err, conformance.ErrNoFixtures) {
		return nil, usageError{fmt.Errorf("%s: %w", dir, err)}
	}
	return fixtures, err
}

// partSettings reads settings given as NAME=VALUE.
func partSettings(given []string) (map[string]any, error) {
	if len(given) == 0 {
		return nil, nil //nolint:nilnil // none
	}
	settings := map[string]any{}
	for _, s := range given {
		name, text, ok := strings.Cut(s, "=")
		if !ok || name == "" {
			return nil, usageError{fmt.Errorf("--setting %q is not NAME=VALUE", s)}
		}
		if _, again := settings[name]; again {
			return nil, usageError{fmt.Errorf("--setting %s is given twice", name)}
		}
		var value any
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		if err := d.Decode(&value); err != nil || !errors.Is(d.Decode(new(any)), io.EOF) {
			value = text
		}
		settings[name] = wholeNumbers(value)
	}
	return settings, nil
}

// wholeNumbers makes integers of the numbers that are some: JSON does not tell them from others, and a
// serializer does.
func wholeNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		if n, err := strconv.ParseUint(v.String(), 10, 64); err == nil {
			return n
		}
		if f, err := v.Float64(); err == nil {
			return f
		}
		return v.String()
	case []any:
		for i := range v {
			v[i] = wholeNumbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = wholeNumbers(v[k])
		}
	}
	return v
}

// keeper writes records as fixtures for later versions of a module.
type keeper struct {
	dir     string
	written int
	failed  error // why it wrote no more
}

// keep is conformance.Options.Keep. That files cannot be written is no reason to tell nothing of the module.
func (k *keeper) keep(fixture string, schema uint64, records, native []byte) error {
	if k.failed == nil {
		k.failed = k.write(fixture, schema, records, native)
	}
	return nil
}

func (k *keeper) write(fixture string, schema uint64, records, native []byte) error {
	base := filepath.Join(k.dir, filepath.FromSlash(conformance.SchemaPath(schema, fixture)))
	if err := os.MkdirAll(filepath.Dir(base), 0o755); err != nil {
		return fmt.Errorf("--write-records: %w", err)
	}
	for _, f := range []struct {
		ending  string
		content []byte
	}{{conformance.RecordsEnding, records}, {conformance.NativeEnding, native}} {
		path := base + f.ending
		there, err := os.ReadFile(path)
		if err == nil && bytes.Equal(there, f.content) {
			continue
		}
		if err == nil {
			return fmt.Errorf("--write-records: %s is there and has other content: if what the module writes for schema %d has changed, it needs another schema; otherwise remove the file", path, schema)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("--write-records: %w", err)
		}
		if err := writeWhole(path, f.content); err != nil {
			return fmt.Errorf("--write-records: %w", err)
		}
		k.written++
	}
	return nil
}

// writeWhole makes a file that is there with all of its content or not at all. What it leaves behind when
// the program is ended begins with a dot, as what fixtures are not.
func writeWhole(path string, content []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".torpor-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// checked is the results of one check.
type checked struct {
	name    string
	results []conformance.Result
}

func byCheck(r *conformance.Report) []checked {
	var all []checked
	for _, result := range r.Results {
		if n := len(all); n == 0 || all[n-1].name != result.Check {
			all = append(all, checked{name: result.Check})
		}
		last := &all[len(all)-1]
		last.results = append(last.results, result)
	}
	return all
}

func (c checked) count(status conformance.Status) (n int) {
	for _, r := range c.results {
		if r.Status == status {
			n++
		}
	}
	return n
}

// line is a check's verdict for people, and what it is about.
func (c checked) line() (verdict, what string) {
	trials, fixtures, left := 0, 0, 0
	for _, r := range c.results {
		trials += r.Trials
		left += r.Left
		if r.Status != conformance.Skipped && r.Fixture != "" {
			fixtures++
		}
	}
	failed, skipped := c.count(conformance.Failed), c.count(conformance.Skipped)
	if skipped == len(c.results) {
		return "skipped", c.results[0].Reason
	}
	if what = plural(trials, "trial"); fixtures > 0 {
		what = plural(fixtures, "fixture") + ", " + what
	}
	if left > 0 {
		what += fmt.Sprintf(", %d left out (see --thorough)", left)
	}
	if failed == 0 {
		return "passed", what
	}
	if fixtures > 0 {
		what = fmt.Sprintf("%d of %s", failed, what)
	}
	return "FAILED", what
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func printTestReport(out io.Writer, r *conformance.Report, kept keeper, took time.Duration) error {
	d := r.Module.Descriptor
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "serializer\t%s %s\n", notation.OneWord(d.Name), notation.OneWord(d.Version))
	fmt.Fprintf(tw, "schema\twrites %d, reads %s\n", d.Schema, joined(d.Reads))
	fmt.Fprintf(tw, "says\t%s, %s\n", word(d.Canonical, "canonical", "not canonical"), word(d.Ordered, "ordered", "not ordered"))
	fmt.Fprintf(tw, "sha256\t%s\n\n", r.Module.SHA256)
	all := byCheck(r)
	for _, c := range all {
		verdict, what := c.line()
		fmt.Fprintf(tw, "%s\t%s\t%s\n", c.name, verdict, what)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, res := range r.Results {
		if res.Status != conformance.Failed {
			continue
		}
		fmt.Fprintf(out, "\n%s FAILED: %s\n", about(res), word(res.Failed < res.Trials, fmt.Sprintf("%d of %s", res.Failed, plural(res.Trials, "trial")), plural(res.Failed, "time")))
		tell(out, "  ", res.Failures, res.Failed)
		if res.Trials < res.Planned {
			fmt.Fprintf(out, "  (given up: %d of %d tried)\n", res.Trials, res.Planned)
		}
	}
	printTestNotes(out, r)
	if err := printFigures(out, r.Figures); err != nil {
		return err
	}
	if kept.dir != "" {
		fmt.Fprintf(out, "\n%s written to %s\n", plural(kept.written, "file"), kept.dir)
	}
	if r.Passed && len(all) > 0 {
		fmt.Fprintf(out, "\nall passed: %s in %v\n", plural(len(all), "check"), took.Round(time.Millisecond))
	}
	return nil
}

// about is a check and what it was made with.
func about(r conformance.Result) string {
	if r.Fixture == "" {
		return r.Check
	}
	return r.Check + ", " + notation.OneWord(r.Fixture)
}

func tell(out io.Writer, indent string, told []string, all int) {
	for _, s := range told {
		fmt.Fprintf(out, "%s%s\n", indent, s)
	}
	if more := all - len(told); more > 0 {
		fmt.Fprintf(out, "%sand %d more\n", indent, more)
	}
}

// printTestNotes tells of each check no more than one fixture's notes: most go for all of them.
func printTestNotes(out io.Writer, r *conformance.Report) {
	for _, n := range r.Notes {
		fmt.Fprintf(out, "\nnote: %s\n", n)
	}
	for _, c := range byCheck(r) {
		var told *conformance.Result
		all, fixtures := 0, 0
		for i, res := range c.results {
			if res.Noted == 0 {
				continue
			}
			if told == nil {
				told = &c.results[i]
			}
			all, fixtures = all+res.Noted, fixtures+1
		}
		if told == nil {
			continue
		}
		fmt.Fprintf(out, "\nnote: %s\n", about(*told))
		if fixtures == 1 {
			tell(out, "  ", told.Notes, told.Noted)
		} else {
			tell(out, "  ", told.Notes[:1], all)
		}
	}
}

func printFigures(out io.Writer, figures []conformance.Figure) error {
	if len(figures) == 0 {
		return nil
	}
	fmt.Fprintln(out)
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(tw, "FIXTURE\tOPERATION\tINPUT\tOUTPUT\tTIME\tMB/S\tFUEL\tMEMORY\t\n")
	for _, f := range figures {
		fmt.Fprintf(tw, "%s\t%s\t%d\t%d\t%v\t%.1f\t%d\t%s\t\n", notation.OneWord(f.Fixture), f.Op, f.Input, f.Output,
			f.Duration.Round(time.Microsecond), f.MBPerSecond, f.Fuel, size(f.Memory))
	}
	return tw.Flush()
}
