package cli

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/snapshot/archive"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/server"
)

// exportOptions say what is exported, and how.
type exportOptions struct {
	unused            bool // rules may be about nothing
	live, force, json bool
	services, redact  []string
	secrets           secrets
}

// exportReport is what export prints as JSON.
type exportReport struct {
	File      string   `json:"file"`
	Size      int64    `json:"size"`
	Services  []string `json:"services"`
	Encrypted bool     `json:"encrypted"`
}

func (p *program) snapshotExport() *cobra.Command {
	var o exportOptions
	cmd := &cobra.Command{
		Use:   "export NAME[@VERSION] [FILE|-]",
		Short: "Write a snapshot, or the live state, into one file",
		Long: `Export writes a version of a snapshot, the newest unless one is named, into one file with all that is
needed to load it elsewhere: the states, the serializers that wrote them, checksums. It is a zip archive,
or, encrypted, an age file of one. With --live in place of NAME it is the state of the running services,
now.

FILE is NAME.snapshot unless it is given, and is made whole or not at all; one that is there is replaced
with --force only. - is standard output.

With --encrypt, by a passphrase, or --recipient the file is encrypted, whether the snapshot is or not;
without, it is not: then a passphrase only opens a snapshot that is encrypted, and what is written is told
to be in clear.

With --redact records are dropped, or what is in them is hashed, before the file is written. A rule is

  [SERVICE[/PART]:]KEY[#PATH]=drop|hash

KEY is matched against a record's key, and against its partition and key with a space between; PATH leads
to a member of its value, as a JSON Pointer does; * is anything but a slash, ** anything. A rule that nothing
in the snapshot is about is an error, for it may be a slip of the pen; --redact-unused lets it be. Of S3's
objects nothing can be hashed, for their sizes and ETags would be wrong: drop them.

  s3:**/secret.txt=drop                records whose key ends so, of s3
  *:/customers/*#/email=hash           the member email of these records, of any service
  ssm:000000000000/eu-west-1 **=drop   all of an account and region`,
		Example: `  torpor snapshot export before-upgrade
  torpor snapshot export before-upgrade@2 demo.snapshot --encrypt --passphrase-file secret.txt
  torpor snapshot export --live - | ssh ci torpor snapshot load -
  torpor snapshot export --live ci.snapshot --service orders --redact 'orders:/customers/*#/email=hash'`,
		Args: func(cmd *cobra.Command, a []string) error {
			least := 1
			if o.live {
				least = 0
			}
			return args(cobra.RangeArgs(least, least+1))(cmd, a)
		},
	}
	f := cmd.Flags()
	addPlaceFlags(f)
	f.BoolVar(&o.live, "live", false, "export what the running services have")
	f.BoolVar(&o.force, "force", false, "replace a file that is there")
	f.BoolVar(&o.json, "json", false, "print JSON")
	f.StringSliceVar(&o.services, "service", nil, "only this service; may be given more than once")
	f.StringArrayVar(&o.redact, "redact", nil, "rule of what is left out or hashed; may be given more than once")
	f.BoolVar(&o.unused, "redact-unused", false, "let there be rules that nothing in the snapshot is about")
	o.secrets.addKey(f)
	o.secrets.addLock(f)
	cmd.RunE = func(cmd *cobra.Command, a []string) error { return p.runExport(cmd, o, a) }
	return cmd
}

func (p *program) runExport(cmd *cobra.Command, o exportOptions, a []string) error {
	ref, file := snapshot.Reference{Kind: snapshot.ReferenceLive}, "torpor"+archive.Extension
	if !o.live {
		var err error
		if ref, err = named(a[0], true); err != nil {
			return err
		}
		file, a = ref.Name+archive.Extension, a[1:]
	}
	if len(a) > 0 {
		file = a[0]
	}
	rules, err := parseRules(o.redact)
	if err != nil {
		return err
	}
	lock, err := p.lock(&o.secrets, false)
	if err != nil {
		return err
	}
	// Interrupted, it leaves no file behind.
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd.SetContext(ctx)
	target, err := p.target(file, o.force)
	if err != nil {
		return err
	}
	report := exportReport{File: file, Encrypted: !lock.IsZero()}
	at, err := p.place(cmd)
	if err == nil {
		if at.running {
			report.Services, err = p.askExport(ctx, at, o, ref, lock, target)
		} else {
			report.Services, err = p.writeExport(ctx, at, o, ref, rules, lock, target)
		}
	}
	if err != nil {
		return errors.Join(err, target.drop())
	}
	if report.Size, err = target.finish(); err != nil || file == "-" {
		return err
	}
	if !report.Encrypted && (o.secrets.passphraseFile != "" || p.env(passphraseVariable) != "") {
		fmt.Fprintf(p.Err, "torpor: %s is in clear: a passphrase encrypts with --encrypt only\n", file)
	}
	if o.json {
		return writeJSON(p.Out, report)
	}
	_, err = fmt.Fprintf(p.Out, "%s: %s, %d bytes, %s\n", file, strings.Join(report.Services, ", "), report.Size, word(report.Encrypted, "encrypted", "not encrypted"))
	return err
}

func parseRules(texts []string) (rules []snapshot.Rule, _ error) {
	for _, text := range texts {
		rule, err := snapshot.ParseRule(text)
		if err != nil {
			return nil, usageError{fmt.Errorf("--redact: %w", err)}
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

// askExport has the running torpor export something. What comes before an error in target is of no use.
func (p *program) askExport(ctx context.Context, at *place, o exportOptions, ref snapshot.Reference, lock seal.Lock, target *target) (services []string, err error) {
	query := url.Values{"services": o.services, "redact": o.redact}
	if o.unused {
		query.Set("redact_unused", "true")
	}
	path := "/_torpor/export"
	if !o.live {
		path = snapshotPath(ref.Name, "/export")
		if ref.Version > 0 {
			query.Set("version", strconv.FormatUint(ref.Version, 10))
		}
	}
	if lock.Passphrase != "" {
		query.Set("encrypt", "true")
	}
	err = p.opening(&o.secrets, func(k seal.Key) error {
		header := keyHeader(k)
		addLockHeader(header, lock)
		resp, err := at.do(ctx, request{what: "export", method: http.MethodGet, path: path, query: query, header: header})
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		bar := p.spinner("export")
		defer bar.close()
		if _, err := io.Copy(target, bar.of(resp.Body, -1)); err != nil {
			return fmt.Errorf("export: %w", err)
		}
		services = strings.FieldsFunc(resp.Header.Get("X-Torpor-Services"), func(r rune) bool { return r == ',' })
		return nil
	})
	return services, err
}

// writeExport exports something from the data folder.
func (p *program) writeExport(ctx context.Context, at *place, o exportOptions, ref snapshot.Reference, rules []snapshot.Rule, lock seal.Lock, target *target) (services []string, err error) {
	if o.live {
		return nil, at.needed("what is live")
	}
	p.offline(at)
	open := opener{program: p, place: at, secrets: &o.secrets, services: o.services}
	in, err := open.open(ctx, ref)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out := in
	if len(rules) > 0 {
		nesting, err := p.nesting(ctx, at.settings, in)
		if err != nil {
			return nil, err
		}
		var done []snapshot.Redacted
		if out, done, err = snapshot.Redact(ctx, in, rules, snapshot.RedactOptions{Nesting: nesting}); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, out.Close()) }()
		for _, d := range done {
			if d.Idle() && !o.unused {
				return nil, usageError{fmt.Errorf("nothing in the snapshot is what the rule %q is about: correct it, leave it out, or say --redact-unused", d.Rule)}
			}
		}
	}
	bar := p.progress("export")
	defer bar.close()
	info, err := archive.Write(ctx, target, out, archive.WriteOptions{Lock: lock, Progress: bar.set})
	return info.Services, err
}

// nesting asks the serializers of a snapshot how their records contain one another.
func (p *program) nesting(ctx context.Context, s *settings, in *snapshot.Snapshot) (_ func(statefile.Serializer) string, err error) {
	h, err := p.newModuleHost(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, h.Close(context.WithoutCancel(ctx))) }()
	known := map[[sha256.Size]byte]string{}
	for _, digest := range in.Modules() {
		wasm, err := in.Module(ctx, digest)
		if err != nil {
			return nil, fmt.Errorf("it cannot be told which records contain others: %w", err)
		}
		info, err := h.look(ctx, fmt.Sprintf("%x", digest[:6]), wasm)
		if err != nil {
			return nil, fmt.Errorf("it cannot be told which records contain others: %w", err)
		}
		known[digest] = info.Nesting
	}
	return func(by statefile.Serializer) string { return known[by.Digest] }, nil
}

// target is a file that is written, or standard output.
type target struct {
	io.Writer
	file *os.File // nil: standard output
	path string
	n    int64
	new  bool // it must not be there yet
}

// target makes one. A file gets its name when it is whole.
func (p *program) target(path string, force bool) (*target, error) {
	if path == "-" {
		if isTerminal(p.Out) {
			return nil, usageError{errors.New("a snapshot is nothing for a terminal: name a file, or pass it on")}
		}
		return &target{Writer: p.Out}, nil
	}
	if _, err := os.Lstat(path); err == nil && !force {
		return nil, usageError{fmt.Errorf("%s is there already; --force replaces it", path)}
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-") // private: a state may hold secrets
	if err != nil {
		return nil, err
	}
	return &target{Writer: f, file: f, path: path, new: !force}, nil
}

func (t *target) Write(b []byte) (int, error) {
	n, err := t.Writer.Write(b)
	t.n += int64(n)
	return n, err
}

// drop leaves nothing of it.
func (t *target) drop() error {
	if t.file == nil {
		return nil
	}
	return errors.Join(t.file.Close(), os.Remove(t.file.Name()))
}

// finish makes it durable and gives it its name, and says how many bytes it has.
func (t *target) finish() (int64, error) {
	if t.file == nil {
		return t.n, nil
	}
	if err := t.file.Sync(); err != nil {
		return 0, errors.Join(err, t.drop())
	}
	if err := t.file.Close(); err != nil {
		return 0, errors.Join(err, os.Remove(t.file.Name()))
	}
	if t.new { // somebody may have made it meanwhile
		if _, err := os.Lstat(t.path); !errors.Is(err, fs.ErrNotExist) {
			return 0, errors.Join(fmt.Errorf("%s has been made by somebody else meanwhile: it stays as it is", t.path), os.Remove(t.file.Name()))
		}
	}
	if err := os.Rename(t.file.Name(), t.path); err != nil {
		return 0, errors.Join(err, os.Remove(t.file.Name()))
	}
	return t.n, nil
}

func (p *program) snapshotImport() *cobra.Command {
	var asJSON bool
	var name, description string
	var only []string
	var secrets secrets
	cmd := &cobra.Command{
		Use:   "import FILE|-",
		Short: "Keep an exported file as the next version of a snapshot",
		Long: `Import checks an exported file, all of it, and keeps it as the next version of the snapshot --name, or
else of the one that the file is called after. - is standard input. No service is changed: torpor
snapshot load does that, also from a file.

A file that is damaged, too large or from a later torpor is refused, and nothing is kept of it. With
--encrypt, by a passphrase, or --recipient the version is encrypted; the passphrase is also the one that
opens a file that is.`,
		Example: `  torpor snapshot import demo.snapshot
  torpor snapshot import - --name demo < demo.snapshot
  torpor snapshot import theirs.snapshot --identity-file ~/.ssh/id_ed25519`,
		Args: args(cobra.ExactArgs(1)),
	}
	f := cmd.Flags()
	addPlaceFlags(f)
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.StringVar(&name, "name", "", "name of the snapshot (default: the file's, without "+archive.Extension+")")
	f.StringVar(&description, "description", "", "what is to be said of it (default: what the file says)")
	f.StringSliceVar(&only, "service", nil, "only this service; may be given more than once")
	secrets.addKey(f)
	secrets.addLock(f)
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		if name == "" && a[0] == "-" {
			return usageError{errors.New("say with --name what standard input is to be called")}
		}
		if name == "" {
			name = strings.TrimSuffix(filepath.Base(a[0]), archive.Extension)
		}
		ref, err := named(name, false)
		if err != nil {
			return err
		}
		lock, err := p.lock(&secrets, false)
		if err != nil {
			return err
		}
		ctx := cmd.Context()
		bar := p.progress("import")
		saved, err := either(p, cmd, func(at *place) (saved server.SavedSnapshot, err error) {
			query := url.Values{"services": only}
			if description != "" {
				query.Set("description", description)
			}
			if lock.Passphrase != "" {
				query.Set("encrypt", "true")
			}
			body, err := p.send(ctx, at, a[0], snapshotPath(ref.Name, "/import"), query, &secrets, lock, bar)
			if err == nil {
				err = understand("import", body, &saved)
			}
			return saved, err
		}, func(at *place, shelf *openedShelf) (server.SavedSnapshot, error) {
			in, err := p.imported(ctx, a[0], only, &secrets, bar)
			if err != nil {
				return server.SavedSnapshot{}, err
			}
			if description == "" {
				description = in.Description
			}
			return shelf.keep(ctx, ref.Name, in, repository.SaveOptions{Description: description, Lock: lock, Progress: bar.set})
		})
		bar.close()
		if err != nil {
			return err
		}
		return p.printSaved(saved, asJSON)
	}
	return cmd
}

// imported opens an exported file, or standard input where it is -.
func (p *program) imported(ctx context.Context, file string, services []string, s *secrets, bar *progress) (in *snapshot.Snapshot, err error) {
	from, size, closeFrom, err := p.input(file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeFrom()) }()
	err = p.opening(s, func(k seal.Key) error {
		in, err = archive.Open(ctx, from, size, archive.OpenOptions{Key: k, Progress: bar.set})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	some, err := in.Only(services...)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", file, err), in.Close())
	}
	return some, nil
}
