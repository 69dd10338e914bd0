package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/source/files"
	"github.com/torpor-run/torpor/runtime/source/sqlite"
)

//go:embed serializers_peer.py
var serializersPeer string

// The two ways of a serializer.
const (
	reading = iota // native state to records
	writing        // records to native state
	ways
)

// contest is one built-in serializer and what is measured beside it.
type contest struct {
	name    string // of the module
	native  []byte
	module  *host.Module
	records *batches
	size    int // bytes of the records

	goes   string // what does the same in plain Go; empty: nothing
	inGo   [ways]func() error
	python string // its name in the peer's answers; empty: nothing

	own, golang, cpython [ways]times
}

// benchSerializers measures the built-in serializers, all on the same state, beside plain Go and CPython.
func benchSerializers(ctx context.Context, out *strings.Builder, rounds int) error {
	return inFolder(func(folder string) error {
		h, err := host.New(ctx, host.Config{CacheDir: filepath.Join(folder, "cache"), Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		contests, peer, err := newContests(ctx, h, folder)
		if err == nil {
			err = measureContests(ctx, contests, peer, rounds)
		}
		if peer != nil {
			err = errors.Join(err, peer.close())
		}
		if err = errors.Join(err, h.Close(ctx)); err == nil {
			printContests(out, contests, rounds)
		}
		return err
	})
}

func newContests(ctx context.Context, h *host.Host, folder string) ([]*contest, *pythonPeer, error) {
	document := emulatorState(smallState)
	peer, pickled, err := startSerializersPeer(ctx, folder, document)
	if err != nil {
		return nil, nil, err
	}
	all := []*contest{
		{name: "json", native: document, python: "json", goes: "encoding/json and fxamacker/cbor, by way of any", inGo: jsonInGo(document)},
		{name: "pickle", native: pickled, python: "pickle"},
		{name: "raw", native: pickled, goes: "SHA-256 of it", inGo: [ways]func() error{hashOf(pickled), nil}},
	}
	for _, of := range []func(context.Context, string, []byte) (*contest, error){filesContest, sqliteContest} {
		c, err := of(ctx, folder, document)
		if err != nil {
			return nil, peer, err
		}
		all = append(all, c)
	}
	for _, c := range all {
		if err := c.prepare(ctx, h); err != nil {
			return nil, peer, fmt.Errorf("serializer %s: %w", c.name, err)
		}
	}
	return all, peer, nil
}

// prepare compiles the module and looks whether it gives back what it is given.
func (c *contest) prepare(ctx context.Context, h *host.Host) (err error) {
	for _, m := range modules.All() {
		if m.Name == c.name {
			c.module, err = h.Compile(ctx, c.name, m.Wasm)
		}
	}
	if err != nil || c.module == nil {
		return errors.Join(err, abi.ErrNotFound)
	}
	var kept clones
	if err := c.module.Save(ctx, abi.Call{Schema: c.module.Descriptor().Schema}, bytes.NewReader(c.native), &kept); err != nil {
		return err
	}
	c.records = &batches{all: kept}
	for _, b := range kept {
		c.size += len(b.Data)
	}
	var back bytes.Buffer
	if err := c.load(ctx, &back); err != nil {
		return err
	}
	if c.module.Descriptor().Canonical && !bytes.Equal(back.Bytes(), c.native) {
		return fmt.Errorf("%d bytes came back of %d, or others", back.Len(), len(c.native))
	}
	return nil
}

// clones keeps batches.
type clones []*record.Batch

func (k *clones) WriteBatch(b *record.Batch) error {
	*k = append(*k, b.Clone())
	return nil
}

func (c *contest) save(ctx context.Context) error {
	return c.module.Save(ctx, abi.Call{Schema: c.module.Descriptor().Schema}, bytes.NewReader(c.native), discardRecords{})
}

func (c *contest) load(ctx context.Context, w io.Writer) error {
	c.records.i = 0
	return c.module.Load(ctx, abi.Call{Schema: c.module.Descriptor().Schema}, c.records, w)
}

type discardRecords struct{}

func (discardRecords) WriteBatch(*record.Batch) error { return nil }

func measureContests(ctx context.Context, contests []*contest, peer *pythonPeer, rounds int) error {
	for range rounds {
		for _, c := range contests {
			for way, f := range [ways]func() error{func() error { return c.save(ctx) }, func() error { return c.load(ctx, io.Discard) }} {
				if err := timed(&c.own[way], f); err != nil {
					return err
				}
			}
			for way, f := range c.inGo {
				if f != nil {
					if err := timed(&c.golang[way], f); err != nil {
						return err
					}
				}
			}
		}
		round, err := peer.round()
		if err != nil {
			return err
		}
		for _, c := range contests {
			seconds, ok := round[c.python]
			for way := range c.cpython {
				if !ok {
					continue
				}
				c.cpython[way] = append(c.cpython[way], time.Duration(seconds[way]*float64(time.Second)))
			}
		}
	}
	return nil
}

// timed adds how long f takes to t.
func timed(t *times, f func() error) error {
	start := time.Now()
	err := f()
	*t = append(*t, time.Since(start))
	return err
}

// jsonInGo is what a host without serializers would do: both libraries, by way of any.
func jsonInGo(document []byte) [ways]func() error {
	var encoded []byte
	return [ways]func() error{
		reading: func() error {
			var v any
			err := json.Unmarshal(document, &v)
			if err == nil {
				encoded, err = cbor.Marshal(v)
			}
			return err
		},
		writing: func() error {
			mode, err := cbor.DecOptions{DefaultMapType: reflect.TypeFor[map[string]any](), MaxMapPairs: 1 << 30, MaxArrayElements: 1 << 30}.DecMode()
			if err != nil {
				return err
			}
			var v any
			if err := mode.Unmarshal(encoded, &v); err != nil {
				return err
			}
			_, err = json.Marshal(v)
			return err
		},
	}
}

// resources calls f with each resource of an emulator's document.
func resources(document []byte, f func(account, region, name string, attributes []byte) error) error {
	var all struct {
		Accounts map[string]map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(document, &all); err != nil {
		return err
	}
	for account, regions := range all.Accounts {
		for region, named := range regions {
			for name, attributes := range named {
				if err := f(account, region, name, attributes); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// filesContest is the document as a folder, a file for each resource, beside package archive/tar.
func filesContest(ctx context.Context, folder string, document []byte) (*contest, error) {
	root := filepath.Join(folder, "resources")
	var plain bytes.Buffer
	archive := func(w io.Writer) error {
		t := tar.NewWriter(w)
		return errors.Join(t.AddFS(os.DirFS(root)), t.Close())
	}
	err := resources(document, func(account, region, name string, attributes []byte) error {
		in := filepath.Join(root, account, region)
		if err := os.MkdirAll(in, 0o755); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(in, name+".json"), attributes, 0o600)
	})
	if err == nil {
		err = archive(&plain)
	}
	if err != nil {
		return nil, err
	}
	source, err := files.New(files.Config{Root: root})
	if err != nil {
		return nil, err
	}
	native, err := captured(ctx, source)
	return &contest{name: "files", native: native, goes: "archive/tar, the folder to an archive and the archive read", inGo: [ways]func() error{
		reading: func() error { return archive(io.Discard) },
		writing: func() error {
			for t := tar.NewReader(bytes.NewReader(plain.Bytes())); ; {
				if _, err := t.Next(); errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return err
				}
				if _, err := io.Copy(io.Discard, t); err != nil {
					return err
				}
			}
		},
	}}, err
}

// sqliteContest is the document as a database, a row for each resource, made by the program sqlite3.
func sqliteContest(ctx context.Context, folder string, document []byte) (*contest, error) {
	path := filepath.Join(folder, "resources.db")
	var script bytes.Buffer
	script.WriteString("CREATE TABLE resources(account TEXT, region TEXT, name TEXT, state TEXT, size INTEGER, last REAL, attributes TEXT, PRIMARY KEY (account, region, name));\nBEGIN;\n")
	err := resources(document, func(account, region, name string, attributes []byte) error {
		fmt.Fprintf(&script, "INSERT INTO resources VALUES('%s','%s','%s','ACTIVE',%d,%d.25,'%s');\n", account, region, name, len(attributes), len(attributes), attributes)
		return nil
	})
	if err != nil {
		return nil, err
	}
	script.WriteString("COMMIT;\n")
	program := exec.CommandContext(ctx, "sqlite3", path)
	program.Stdin = &script
	if said, err := program.CombinedOutput(); err != nil || len(said) > 0 {
		return nil, errors.Join(fmt.Errorf("sqlite3: %s", said), err)
	}
	source, err := sqlite.New(sqlite.Config{Path: path, Spool: folder})
	if err != nil {
		return nil, err
	}
	native, err := captured(ctx, source)
	return &contest{name: "sqlite", native: native, goes: "the source alone: the database checked and read, and written, checked and swapped in", inGo: [ways]func() error{
		reading: func() error { _, err := captured(ctx, source); return err },
		writing: func() error { return source.Restore(ctx, bytes.NewReader(native)) },
	}}, err
}

// captured is the native state that a source gives.
func captured(ctx context.Context, s runtime.Source) ([]byte, error) {
	c, err := s.Capture(ctx)
	if err != nil {
		return nil, err
	}
	var native bytes.Buffer
	err = errors.Join(c.WriteNative(ctx, &native), c.Close())
	return native.Bytes(), err
}

func hashOf(b []byte) func() error {
	return func() error {
		if sha256.Sum256(b) == [sha256.Size]byte{} {
			return errors.New("a digest of zeros")
		}
		return nil
	}
}

// emulatorState is a document of about size bytes as an emulator of a cloud keeps it: resources with a
// dozen attributes each, by account, region and name.
func emulatorState(size int) []byte {
	r := rand.New(rand.NewSource(1))
	words := []string{"orders", "payments", "backup", "hot", "cold", "user", "alpha", "beta", "archive", "événement", "daten", "dead-letter", "pipeline", "queue"}
	word := func() string { return words[r.Intn(len(words))] }
	regions := []string{"us-east-1", "us-west-2", "eu-west-1", "ap-southeast-2"}
	accounts := []string{"000000000000", "111122223333", "444455556666"}
	b := []byte(`{"accounts":{`)
	each := size / (len(accounts) * len(regions))
	for i, account := range accounts {
		b = fmt.Appendf(b, `%s%q:{`, comma(i), account)
		for j, region := range regions {
			b = fmt.Appendf(b, `%s%q:{`, comma(j), region)
			for start, n := len(b), 0; len(b)-start < each; n++ {
				name := fmt.Sprintf("%s-%s-%d", words[n%9], word(), n)
				b = fmt.Appendf(b, `%s%q:{"arn":"arn:aws:sqs:%s:%s:%s","name":%q,"resource_id":"%08x-%04x-%04x-%04x-%012x","state":"ACTIVE",`+
					`"created_at":"2026-%02d-%02dT%02d:%02d:%02dZ","updated_at_ms":%d,"last_activity":%d.%03d,"size_bytes":%d,"offset":%d,"enabled":%v,"encrypted":false,`+
					`"description":"%s %s for the %s %s service","tags":[`, comma(n), name, region, account, name, name, r.Uint32(), r.Intn(1<<16), r.Intn(1<<16), r.Intn(1<<16), r.Int63n(1<<48),
					1+r.Intn(12), 1+r.Intn(28), r.Intn(24), r.Intn(60), r.Intn(60), 1_790_000_000_000+r.Int63n(1e10), 1_790_000_000+r.Intn(1e6), 1+r.Intn(999)/10*10,
					r.Intn(1e5), -r.Intn(500), r.Intn(2) == 0, word(), word(), word(), word())
				for tag := range r.Intn(4) {
					b = fmt.Appendf(b, `%s{"Key":"team-%s","Value":"%s-%d"}`, comma(tag), word(), word(), r.Intn(1000))
				}
				b = append(b, `],"attributes":{"VisibilityTimeout":30,"MessageRetentionPeriod":345600,"KmsMasterKeyId":null}}`...)
			}
			b = append(b, '}')
		}
		b = append(b, '}')
	}
	return append(b, "}}"...)
}

// comma stands before all but the first.
func comma(i int) string {
	if i == 0 {
		return ""
	}
	return ","
}

// pythonPeer is the program serializers_peer.py.
type pythonPeer struct {
	cmd   *exec.Cmd
	ask   io.WriteCloser
	lines *bufio.Scanner
}

// startSerializersPeer also gives the document as CPython pickles it.
func startSerializersPeer(ctx context.Context, folder string, document []byte) (*pythonPeer, []byte, error) {
	text, pickled := filepath.Join(folder, "document.json"), filepath.Join(folder, "document.pickle")
	if err := os.WriteFile(text, document, 0o600); err != nil {
		return nil, nil, err
	}
	p := &pythonPeer{cmd: exec.CommandContext(ctx, "python3", "-c", serializersPeer, text, pickled)}
	p.cmd.Stderr = os.Stderr
	var err error
	if p.ask, err = p.cmd.StdinPipe(); err != nil {
		return nil, nil, err
	}
	answers, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	p.lines = bufio.NewScanner(answers)
	if err := p.cmd.Start(); err != nil {
		return nil, nil, err
	}
	if !p.lines.Scan() || p.lines.Text() != "ready" {
		return nil, nil, errors.Join(fmt.Errorf("python3 is not ready: %q", p.lines.Text()), p.lines.Err(), p.close())
	}
	b, err := os.ReadFile(pickled)
	return p, b, err
}

// round measures once: seconds for reading and writing, by format.
func (p *pythonPeer) round() (seconds map[string][ways]float64, err error) {
	if _, err := io.WriteString(p.ask, "\n"); err != nil {
		return nil, err
	}
	if !p.lines.Scan() {
		return nil, errors.Join(errors.New("python3 gave no answer"), p.lines.Err())
	}
	return seconds, json.Unmarshal(p.lines.Bytes(), &seconds)
}

func (p *pythonPeer) close() error { return errors.Join(p.ask.Close(), p.cmd.Wait()) }

func printContests(out *strings.Builder, contests []*contest, rounds int) {
	fmt.Fprintf(out, "## The built-in serializers, %d MB\n\n", smallState/1_000_000)
	fmt.Fprintf(out, "Through the host, all its checks on, MB/s of native state; the median of %d rounds, and the ratio to the peer's. CPython reads what the "+
		"serializer saves and writes what it loads.\n\n", rounds)
	fmt.Fprintf(out, "| | native state | records | save (best) | load (best) | goal | CPython reads / writes | ratio | plain Go reads / writes | ratio |\n|---|---|---|---|---|---|---|---|---|---|\n")
	goals := map[string]string{"json": "≥ 350 / 270"}
	for _, c := range contests {
		megabytes := float64(len(c.native)) / 1e6
		golang := pair(c.golang, megabytes)
		if c.goes != "" {
			golang += ": " + c.goes
		}
		fmt.Fprintf(out, "| `%s` | %.1f MB | %.1f MB | %s | %s | %s | %s | %s | %s | %s |\n", c.name, megabytes, float64(c.size)/1e6,
			rateBest(c.own[reading], megabytes), rateBest(c.own[writing], megabytes), goals[c.name], pair(c.cpython, megabytes), ratios(c.cpython, c.own),
			golang, ratios(c.golang, c.own))
	}
}

func rateBest(t times, megabytes float64) string {
	return fmt.Sprintf("%s (%.0f)", rate(t, megabytes), megabytes/t.best().Seconds())
}

func pair(t [ways]times, megabytes float64) string {
	return rate(t[reading], megabytes) + " / " + rate(t[writing], megabytes)
}

func ratios(peer, own [ways]times) string {
	return between(peer[reading], own[reading]) + " / " + between(peer[writing], own[writing])
}
