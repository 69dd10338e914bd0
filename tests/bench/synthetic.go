package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand"
	"slices"
	"strconv"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime"
)

const (
	partitions = 10
	pieceBytes = 64 << 10 // records are made in pieces of about this size
	proseBytes = 1 << 20
)

// synthetic is a state whose records are made when they are asked for: however large it is, it takes no
// memory. Equal values are equal states.
type synthetic struct {
	prose   []byte // that the records' texts are pieces of
	records int
	edits   map[int]uint64 // how often records were changed
}

// newSynthetic makes a state of about size bytes of records.
func newSynthetic(size int64) synthetic {
	r := rand.New(rand.NewSource(1))
	words := make([][]byte, 4096)
	for i := range words {
		words[i] = make([]byte, 3+r.Intn(8))
		for j := range words[i] {
			words[i][j] = byte('a' + r.Intn(26))
		}
	}
	var prose []byte
	for len(prose) < proseBytes {
		prose = append(append(prose, words[r.Intn(len(words))]...), ' ')
	}
	s := synthetic{prose: prose}
	const sample = 4096
	var piece []byte
	for i := range sample {
		piece = s.appendRecord(piece, i)
	}
	s.records = max(partitions, int(size*sample/int64(len(piece))))
	return s
}

func (s synthetic) clone() synthetic {
	s.edits = maps.Clone(s.edits)
	return s
}

func partition(p int) string { return fmt.Sprintf("00000000%04d/eu-west-1", p) }

// appendRecord adds record i: some 450 bytes like what an emulator of a cloud keeps of a resource.
func (s synthetic) appendRecord(dst []byte, i int) []byte {
	var b [32]byte
	key := strconv.AppendUint(append(b[:0], "resource-"...), 1e9+uint64(i), 10)
	h := spread(uint64(i)<<16 + s.edits[i])
	body := s.prose[h%(proseBytes-1024):]
	dst = record.AppendRecord(dst)
	if s.records == 0 {
		dst = record.AppendText(dst, partition(0))
	} else {
		dst = record.AppendText(dst, partition(i*partitions/s.records))
	}
	dst = record.AppendText(dst, key)
	dst = record.AppendMap(dst, 4)
	dst = record.AppendText(dst, "arn")
	dst = record.AppendText(dst, body[:40])
	dst = record.AppendText(dst, "modified")
	dst = record.AppendUint(dst, 1_790_000_000+h>>44)
	dst = record.AppendText(dst, "active")
	dst = record.AppendBool(dst, h>>32&3 > 0)
	dst = record.AppendText(dst, "body")
	return record.AppendText(dst, body[40:104+h>>24%512])
}

// spread is the finalizer of SplitMix64.
func spread(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// pieces calls f with the records, about pieceBytes at a time. What f gets is valid until it returns.
func (s synthetic) pieces(f func(piece []byte) error) error {
	piece := make([]byte, 0, pieceBytes+4096)
	for i := range s.records {
		piece = s.appendRecord(piece, i)
		if len(piece) >= pieceBytes || i == s.records-1 {
			if err := f(piece); err != nil {
				return err
			}
			piece = piece[:0]
		}
	}
	return nil
}

// digest is the SHA-256 of the records.
func (s synthetic) digest() ([]byte, error) {
	sum := sha256.New()
	err := s.pieces(func(piece []byte) error { _, err := sum.Write(piece); return err })
	return sum.Sum(nil), err
}

// source is a service with a synthetic state. It tells what has changed since it was saved or restored.
// It is used by one goroutine at a time.
type source struct {
	now   synthetic
	base  *synthetic // what was last saved or restored; nil: nothing yet
	want  []byte     // the SHA-256 of what Restore is to be given; nil: it does not look
	dirty runtime.Dirty
}

// edit changes record i.
func (s *source) edit(i int) {
	if s.now.edits == nil {
		s.now.edits = map[int]uint64{}
	}
	s.now.edits[i]++
	s.dirty.Mark(strconv.Itoa(i))
}

func (s *source) Capture(context.Context) (runtime.Capture, error) {
	return &capture{source: s, state: s.now.clone(), base: s.base}, nil
}

// Restore takes any state for its own and, with want, holds it against that.
func (s *source) Restore(ctx context.Context, native io.Reader) error {
	sum, check := sha256.New(), s.want != nil
	buf := make([]byte, pieceBytes)
	for {
		n, err := native.Read(buf)
		if check {
			sum.Write(buf[:n])
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if check && !bytes.Equal(sum.Sum(nil), s.want) {
		return fmt.Errorf("%w: SHA-256 %x of what was restored, %x of what was saved", abi.ErrCorrupt, sum.Sum(nil), s.want)
	}
	restored := s.now.clone()
	s.base = &restored
	return nil
}

func (s *source) Reset(context.Context) error {
	s.now.records, s.now.edits = 0, nil
	return nil
}

type capture struct {
	source *source
	state  synthetic
	base   *synthetic
}

func (c *capture) WriteNative(ctx context.Context, w io.Writer) error {
	return c.state.pieces(func(piece []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, err := w.Write(piece)
		return err
	})
}

func (c *capture) Close() error { return nil }

// Delta implements [runtime.DeltaCapture].
func (c *capture) Delta() runtime.Delta {
	if c.base == nil || c.base.records != c.state.records {
		return nil
	}
	var d delta
	d.state = c.state
	for i, n := range c.state.edits {
		if c.base.edits[i] != n {
			d.changed = append(d.changed, i)
		}
	}
	slices.Sort(d.changed)
	return d
}

func (c *capture) Committed() { c.source.base = &c.state }

// delta is some changed records.
type delta struct {
	state   synthetic
	changed []int
}

func (d delta) WriteUpserts(_ context.Context, w io.Writer) error {
	var b []byte
	for _, i := range d.changed {
		b = d.state.appendRecord(b[:0], i)
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

func (d delta) WriteTombstones(context.Context, record.Sink) error { return nil }

func (d delta) Growth() int64 { return 0 }
