package http

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	nethttp "net/http"
	"strconv"
	"sync"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// Headers of an exchange about what has changed.
const (
	headerCursor = "Torpor-Cursor"
	headerSince  = "Torpor-Since"
	headerGrowth = "Torpor-Growth"
)

const (
	// MaxCursor bounds a cursor, in bytes.
	MaxCursor = 1 << 10
	// maxChanges bounds the records and tombstones of one answer: no state file holds more.
	maxChanges = statefile.MaxChanges
	// scanBytes is how much of an answer is looked at at a time, unless one record is longer.
	scanBytes = 64 << 10
)

// distrusted is the error of an answer about changes that cannot be true. What comes after it from the
// same cursor need not be, either.
type distrusted struct{ error }

func (d distrusted) Unwrap() error { return d.error }

func distrust(format string, args ...any) error {
	return distrusted{fmt.Errorf("what has changed is not told as it must be: "+format, args...)}
}

// cursorIn is the cursor in an answer's header; "" where there is none.
func cursorIn(h nethttp.Header) (string, error) {
	values := h.Values(headerCursor)
	if len(values) == 0 {
		return "", nil
	}
	c := values[0]
	if len(values) > 1 || c == "" || len(c) > MaxCursor {
		return "", distrusted{fmt.Errorf("%s is there %d times, first with %d bytes; it may be there once, with 1 to %d", headerCursor, len(values), len(c), MaxCursor)}
	}
	for i := range len(c) {
		if c[i] <= ' ' || c[i] > '~' {
			return "", distrusted{fmt.Errorf("%s is %q; it may have printable ASCII characters without spaces only", headerCursor, c)}
		}
	}
	return c, nil
}

// told is what an answer's header says of the changes in its body.
type told struct {
	still  bool // the cursor is the one that was asked from
	growth int64
}

func toldIn(h nethttp.Header, since, cursor string) (told, error) {
	if cursor == "" {
		return told{}, distrust("there is no %s", headerCursor)
	}
	values := h.Values(headerGrowth)
	if len(values) != 1 {
		return told{}, distrust("%s is there %d times; it must be there once", headerGrowth, len(values))
	}
	growth, err := strconv.ParseInt(values[0], 10, 64)
	if err != nil {
		return told{}, distrust("%s is %q, which is no number", headerGrowth, values[0])
	}
	return told{still: cursor == since, growth: growth}, nil
}

// check reads changes to their end. The error is the reader's, a [distrusted], or wraps abi.ErrTooLarge
// where they pass a limit of changes.
func (t told) check(r io.Reader) error {
	var upserts, tombstones int64
	seen := map[[16]byte]struct{}{} // a part of the digest: keys can be long
	err := scan(r, func(b *record.Batch) error {
		for i, ref := range b.Refs {
			if upserts+tombstones == maxChanges {
				return fmt.Errorf("more than %d changes: %w", maxChanges, abi.ErrTooLarge)
			}
			sum := sha256.Sum256(b.Data[ref.Partition:ref.Value])
			id := [16]byte(sum[:])
			if _, twice := seen[id]; twice {
				key, _ := b.Key(i)
				return distrust("key %.100q of partition %.100q is there twice", key, b.Partition(i))
			}
			seen[id] = struct{}{}
			if b.Tombstone(i) {
				tombstones++
			} else {
				upserts++
			}
		}
		return nil
	})
	var format *record.FormatError
	switch {
	case errors.As(err, &format) && errors.Is(err, abi.ErrCorrupt):
		return distrust("%w", err)
	case err != nil:
		return err
	case t.growth > upserts || t.growth < -tombstones:
		return distrust("%s is %d, which %d records and %d tombstones cannot make", headerGrowth, t.growth, upserts, tombstones)
	case t.still && upserts+tombstones > 0:
		return distrust("there are %d records and %d tombstones, but %s is what it was", upserts, tombstones, headerCursor)
	}
	return nil
}

// scan reads records and tombstones to their end and gives each batch to take, which must not keep it.
func scan(r io.Reader, take func(*record.Batch) error) error {
	s := record.Scanner{Tombstones: true}
	buf := make([]byte, 0, scanBytes)
	var batch record.Batch
	need, before := 0, 0
	for {
		if len(buf) == cap(buf) {
			buf = append(make([]byte, 0, 2*cap(buf)), buf...)
		}
		n, readErr := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if readErr == nil && len(buf) < need {
			continue
		}
		refs, end, err := s.ScanPrefix(buf, batch.Refs[:0])
		batch.Data, batch.Refs = buf[:end], refs
		if len(refs) > 0 {
			if err := take(&batch); err != nil {
				return err
			}
		}
		var format *record.FormatError
		if errors.As(err, &format) {
			format.Offset += before
		}
		if err != nil {
			return err
		}
		before += end
		buf = buf[:copy(buf, buf[end:])]
		// What is not whole yet is looked at again when there is twice as much of it.
		need = 2 * len(buf)
		switch {
		case readErr == io.EOF && len(buf) > 0:
			return &record.FormatError{Offset: before, Reason: "the answer ends inside this record", Err: abi.ErrCorrupt}
		case readErr == io.EOF:
			return nil
		case readErr != nil:
			return readErr
		}
	}
}

// setBase makes cursor the one that changes are asked for since; "" for none.
func (s *Source) setBase(cursor string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.base = cursor
}

// captureSince captures what has changed since the base where the service tells it, otherwise everything.
func (s *Source) captureSince(ctx context.Context) (runtime.Capture, error) {
	s.mu.Lock()
	since := s.base
	s.mu.Unlock()
	a, err := s.get(ctx, since)
	if errors.As(err, new(distrusted)) {
		s.setBase("")
	}
	if a.changes && errors.Is(err, abi.ErrTooLarge) {
		a, err = s.get(ctx, "")
	}
	if err != nil {
		return nil, err
	}
	return &capture{s: s, was: a, is: a}, nil
}

// capture is a [runtime.DeltaCapture].
type capture struct {
	s   *Source
	was answer // to Capture

	mu     sync.Mutex
	is     answer // what is to be saved: all of the state, once that was asked for
	closed bool
}

// all is all of the state.
func (c *capture) all(ctx context.Context) (answer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return answer{}, c.s.about(fs.ErrClosed)
	}
	if c.is.changes {
		a, err := c.s.get(ctx, "")
		if err != nil {
			return answer{}, err
		}
		c.is = a
	}
	return c.is, nil
}

// WriteNative implements [runtime.Capture].
func (c *capture) WriteNative(ctx context.Context, w io.Writer) error {
	a, err := c.all(ctx)
	if err != nil {
		return err
	}
	return a.body.WriteNative(ctx, w)
}

// changed reports whether what is to be saved is what has changed.
func (c *capture) changed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.is.changes && !c.closed
}

// Delta implements [runtime.DeltaCapture].
func (c *capture) Delta() runtime.Delta {
	if !c.changed() {
		return nil
	}
	return delta{c}
}

// Committed implements [runtime.DeltaCapture].
func (c *capture) Committed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s.setBase(c.is.cursor)
}

// Close implements [runtime.Capture].
func (c *capture) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	err := c.was.body.Close()
	if c.is.body != c.was.body {
		err = errors.Join(err, c.is.body.Close())
	}
	return err
}

// delta is what has changed between the base and a capture.
type delta struct{ c *capture }

// Growth implements [runtime.Delta].
func (d delta) Growth() int64 { return d.c.was.growth }

// WriteUpserts implements [runtime.Delta].
func (d delta) WriteUpserts(ctx context.Context, w io.Writer) error {
	return d.each(ctx, false, func(b *record.Batch) error {
		_, err := w.Write(b.Data)
		return err
	})
}

// WriteTombstones implements [runtime.Delta].
func (d delta) WriteTombstones(ctx context.Context, sink record.Sink) error {
	return d.each(ctx, true, sink.WriteBatch)
}

// each gives the tombstones to take, or else the records.
func (d delta) each(ctx context.Context, tombstones bool, take func(*record.Batch) error) error {
	var out record.Batch
	return scan(d.c.was.body.Reader(), func(b *record.Batch) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !d.c.changed() {
			// The base moves to the moment of all, so what is saved must not be of another.
			return d.c.s.about(errors.New("what has changed is asked of a capture of which everything was, or which was closed"))
		}
		out.Data, out.Refs = out.Data[:0], out.Refs[:0]
		for i, ref := range b.Refs {
			if b.Tombstone(i) != tombstones {
				continue
			}
			shift := len(out.Data) - ref.Start
			out.Data = append(out.Data, b.Record(i)...)
			out.Refs = append(out.Refs, record.Ref{Start: ref.Start + shift, Partition: ref.Partition + shift, Key: ref.Key + shift, Value: ref.Value + shift, End: ref.End + shift})
		}
		if len(out.Refs) == 0 {
			return nil
		}
		return take(&out)
	})
}
