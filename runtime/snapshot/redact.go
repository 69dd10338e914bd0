package snapshot

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"github.com/torpor-run/torpor/host/abi/record"
	unnamed "github.com/torpor-run/torpor/runtime/spool"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// RedactOptions say how a snapshot is redacted; zero fields mean the defaults.
type RedactOptions struct {
	// Nesting gives abi.Descriptor.Nesting of a serializer: by it, what drops a record drops what is inside of it. nil,
	// or "": keys are flat.
	Nesting func(statefile.Serializer) string
	Folder  string // for temporary files, which have no names; "": the system's folder for them
	// Progress is told how many of total records have been looked at; may be nil.
	Progress func(done, total uint64)
}

// Redacted is what one rule did.
type Redacted struct {
	Rule    Rule
	Records uint64 // that it is about, those inside of dropped ones not counted
	Dropped uint64 // records, those inside of others counted; with a path, values
	Hashed  uint64 // texts and byte strings
}

// Idle tells that the rule did nothing. What it was to hide is then called otherwise, and is still there: whoever hands
// the snapshot out should look, or should not be let.
func (r Redacted) Idle() bool { return r.Dropped == 0 && r.Hashed == 0 }

// Redact gives the snapshot as the rules leave it, and what each of them did, in their order. The records of the parts
// that rules are about are written anew, generation and time kept, and nothing of older generations is left in them;
// all else is shared: s must stay open as long as what is given, and both are to be closed.
//
// A text becomes "hash:" and 16 hexadecimal digits, a byte string the same as bytes: HMAC-SHA-256 by a key that is made
// for this one call and forgotten. So equal values stay equal within one snapshot, and no value can be guessed and compared. What is longer
// than 128 bytes stays so, filled with dots. Numbers, bools, dates and the keys of maps stay, and so do the names of types
// (CBOR tag 27) and what else names classes and records in pickles. Whether what is left can be loaded is up to
// serializer and service: either may miss what was dropped. In records of pickles the value proper is element 2, so that
// rules for them need a path that begins there: **#/2/**=hash.
//
// The error is that of s's files, of the file system or ctx's, or wraps abi.ErrTooLarge where a record becomes too large.
func Redact(ctx context.Context, s *Snapshot, rules []Rule, o RedactOptions) (*Snapshot, []Redacted, error) {
	if len(rules) > MaxRules {
		return nil, nil, fmt.Errorf("%d rules to redact by; there may be %d", len(rules), MaxRules)
	}
	secret := make([]byte, sha256.Size)
	_, _ = rand.Read(secret) // which never fails
	w := &redactor{ctx: ctx, options: o, mac: hmac.New(sha256.New, secret), done: make([]Redacted, len(rules))}
	for i, r := range rules {
		w.done[i].Rule = r
	}
	for _, p := range s.Parts {
		w.total += p.File.Info().Records
	}
	parts := slices.Clone(s.Parts)
	var anew []int // the parts that are written anew
	places := []int64{0}
	all, err := unnamed.Config{Folder: o.Folder, Memory: 1 << 20}.Fill(ctx, func(out io.Writer) error {
		for i, p := range parts {
			if w.about(p); len(w.rules) == 0 {
				w.seen(p.File.Info().Records)
				continue
			}
			info, err := w.part(p, out)
			if err != nil {
				return fmt.Errorf("redact %s: %w", p, err)
			}
			anew, places = append(anew, i), append(places, places[len(places)-1]+info.Size)
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	for n, i := range anew {
		in := io.NewSectionReader(all.Reader(), places[n], places[n+1]-places[n])
		f, err := statefile.Open(in, in.Size(), parts[i].String()+", redacted")
		if err != nil {
			return nil, nil, errors.Join(err, all.Close())
		}
		parts[i].File = f
	}
	out, err := New(s.Info, parts, s.Module, all.Close)
	if err != nil {
		return nil, nil, errors.Join(err, all.Close())
	}
	return out, w.done, nil
}

// redactor redacts one snapshot.
type redactor struct {
	ctx     context.Context //nolint:containedctx // for as long as one call
	options RedactOptions
	mac     hash.Hash
	done    []Redacted

	looked, total uint64
	rules         []int // those about the part at hand, by their place
	pickle        bool  // the part at hand is of the serializer of that name
	names         names
	scratch       [2][]byte
	digest, text  []byte
	depth         int // of arrays, maps and tags around the item at hand
}

// seen tells of progress.
func (w *redactor) seen(n uint64) {
	w.looked += n
	if w.options.Progress != nil {
		w.options.Progress(w.looked, w.total)
	}
}

// about finds the rules about a part.
func (w *redactor) about(p Part) {
	w.rules = w.rules[:0]
	for i := range w.done {
		if w.done[i].Rule.aboutPart(p.Service, p.Name) {
			w.rules = append(w.rules, i)
		}
	}
}

// part writes the state of a part anew.
func (w *redactor) part(p Part, out io.Writer) (statefile.Info, error) {
	h := p.File.Header()
	state, err := statefile.NewWriter(out, h)
	if err != nil {
		return statefile.Info{}, err
	}
	w.pickle = h.Serializer.Name == "pickle"
	var nested nesting
	if w.options.Nesting != nil {
		nested = nesting(w.options.Nesting(h.Serializer))
	}
	var (
		in, anew record.Batch
		scan     record.Scanner
		open     stack[int] // of each record the rule that drops it, or -1
	)
	for records := p.File.Records(); ; {
		if err := records.ReadInto(&in); err == io.EOF { //nolint:errorlint // a source's io.EOF is never wrapped
			return state.Close()
		} else if err != nil {
			return statefile.Info{}, err
		}
		if err := w.ctx.Err(); err != nil {
			return statefile.Info{}, err
		}
		anew.Data = anew.Data[:0]
		for i := range in.Len() {
			by := -1
			if nested != "" {
				key, _ := in.Key(i)
				if open.depth = open.inside(nested, in.Partition(i), key); open.depth > 0 {
					by = open.top().data
				}
			}
			if by < 0 {
				anew.Data, by = w.record(anew.Data, &in, i)
			}
			if by >= 0 {
				w.done[by].Dropped++
			}
			if nested != "" {
				key, _ := in.Key(i)
				open.push(in.Partition(i), key, by)
			}
		}
		if anew.Refs, err = scan.Scan(anew.Data, anew.Refs[:0]); err != nil {
			return statefile.Info{}, err
		}
		if anew.Len() > 0 {
			if err := state.WriteBatch(&anew); err != nil {
				return statefile.Info{}, err
			}
		}
		w.seen(uint64(in.Len()))
	}
}

// record appends what the rules leave of a record; where by is not negative, that rule drops it.
func (w *redactor) record(dst []byte, b *record.Batch, i int) (_ []byte, by int) {
	w.names.set(b, i)
	value := b.Value(i)
	buffer := 0
	for _, at := range w.rules {
		done := &w.done[at]
		if !done.Rule.aboutRecord(&w.names) {
			continue
		}
		done.Records++
		if done.Rule.drop && len(done.Rule.path) == 0 {
			return dst, at
		}
		// Each rule sees what those before it have left; two buffers will do.
		into := &w.scratch[buffer]
		*into = w.item((*into)[:0], record.NewPull(value), done, done.Rule.begin())
		value, buffer = *into, 1-buffer
	}
	head := b.Record(i)[:len(b.Record(i))-len(b.Value(i))]
	return append(append(dst, head...), value...), -1
}

// hashed is the text that stands for a text or byte string.
func (w *redactor) hashed(content []byte) []byte {
	w.mac.Reset()
	w.mac.Write(content)
	w.digest = w.mac.Sum(w.digest[:0])
	w.text = hex.AppendEncode(append(w.text[:0], "hash:"...), w.digest[:8])
	for len(content) > longText && len(w.text) <= longText {
		w.text = append(w.text, '.')
	}
	return w.text
}

// longText is how long a text may be for which pickles have another form than for longer ones: one must not become the
// other.
const longText = 128
