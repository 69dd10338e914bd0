package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/notation"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// Limits of a page of records.
const (
	// DefaultPage and MaxPage are how many records a page has.
	DefaultPage = 100
	MaxPage     = 1000
	// MaxPageBytes is how many bytes of records, as they are saved, a page has, unless its first one is longer.
	MaxPageBytes = 4 << 20
	// MaxValueBytes is how long a value may be, as it is saved, to be told as JSON, which may take many times that. Of a
	// longer one only the length is told.
	MaxValueBytes = 4 << 20
)

// Records is a page of records: the answer of GET /_torpor/services/{service}/parts/{part}/records.
type Records struct {
	Records    []Record `json:"records"`
	Next       *string  `json:"next"`       // the cursor of the next page; null: there is none, or there are no cursors
	More       bool     `json:"more"`       // there are more records
	Generation uint64   `json:"generation"` // that the records are of; 0: nothing is saved, or they are live
}

// Record is one record in [Records].
type Record struct {
	Partition string `json:"partition"`
	Key       any    `json:"key"`
	Bytes     int    `json:"bytes"`           // of the value, as it is saved
	Value     *any   `json:"value,omitempty"` // left out: not asked for, or longer than MaxValueBytes
}

// state is that of one part. Close it.
type state struct {
	file *statefile.File
	io.Closer
}

// livePart captures a part. The error wraps abi.ErrNotFound where it never had any state.
func (s *server) livePart(ctx context.Context, service, part string) (*state, error) {
	in, err := s.Runtime.Capture(ctx, service)
	if err != nil {
		return nil, err
	}
	p, ok := in.Part(service, part)
	if !ok {
		return nil, errors.Join(fmt.Errorf("service %s, part %s: a state: %w", service, part, abi.ErrNotFound), in.Close())
	}
	return &state{p.File, in}, nil
}

// savedPart opens a generation of a part, or with 0 the newest that is not damaged. The error wraps abi.ErrNotFound where
// there is none.
func (s *server) savedPart(service, part string, generation uint64) (*state, error) {
	if s.Saved == nil || !s.Runtime.Persistent() {
		return nil, marked{errors.New("nothing is saved, since persistence is disabled (PERSISTENCE=0)"), errNothingSaved}
	}
	for again := 0; ; again++ {
		all, err := s.Saved.Generations(service, part)
		if err != nil {
			return nil, err
		}
		wanted := generation
		for _, g := range all {
			if g.Err != nil && !errors.Is(g.Err, abi.ErrCorrupt) {
				return nil, fmt.Errorf("service %s, part %s: %w", service, part, g.Err)
			}
			if g.Err == nil && wanted == 0 {
				wanted = g.Number
			}
		}
		if wanted == 0 {
			return nil, fmt.Errorf("service %s, part %s: a saved state: %w", service, part, abi.ErrNotFound)
		}
		opened, err := s.Saved.Open(service, part, wanted)
		if errors.Is(err, abi.ErrNotFound) && generation == 0 && again < 3 {
			continue // a save has removed it meanwhile
		}
		if err != nil {
			return nil, err
		}
		return &state{opened.File(), opened}, nil
	}
}

// place is what a cursor stands for: the records of a generation behind the first so many.
type place struct {
	generation, skip uint64
}

// cursorBytes is how much of a digest stands in a cursor.
const cursorBytes = 12

// cursor writes a place, of use for the very same query only. Its digest is against mistakes, and no secret: all that a
// forged one could do is to name another place.
func (p place) cursor(of string) string {
	b := binary.AppendUvarint(binary.AppendUvarint(nil, p.generation), p.skip)
	sum := sha256.Sum256(append([]byte("torpor cursor 1\x00"+of+"\x00"), b...))
	return base64.RawURLEncoding.EncodeToString(append(sum[:cursorBytes], b...))
}

func parsePlace(cursor, of string) (p place, err error) {
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	if err == nil && len(b) > cursorBytes {
		generation, n := binary.Uvarint(b[cursorBytes:])
		if n > 0 {
			p.generation = generation
			p.skip, _ = binary.Uvarint(b[cursorBytes+n:])
		}
	}
	if p.generation == 0 || p.cursor(of) != cursor {
		return place{}, badRequest("the cursor was not given with an answer to the same query; leave it out to begin anew")
	}
	return p, nil
}

// recordQuery is what is asked for.
type recordQuery struct {
	service, part string
	live, value   bool
	partitions    []string
	prefix        string
	limit         uint64
	place         place
	of            string // the query itself, in short, for cursors
}

func (s *server) recordQuery(r *http.Request, c echo.Context) (q recordQuery, err error) {
	h, err := s.serviceNamed(c)
	if err != nil {
		return q, err
	}
	part, err := partNamed(h, c.Param("part"))
	if err != nil {
		return q, err
	}
	q.service, q.part = h.Name, part.Name
	p := parametersOf(r)
	q.live = choice(p, "from", []string{"saved", "live"}) == "live"
	q.partitions = p.all("partition")
	q.prefix, _ = p.text("prefix")
	q.value = p.truth("value", true)
	most, usual := uint64(MaxPage), uint64(DefaultPage)
	if accepts(r, ndjson) {
		most, usual = 1<<63, 1<<63
	}
	q.limit = p.number("limit", 1, usual, most)
	cursor, there := p.text("cursor")
	if err := p.done(); err != nil {
		return q, err
	}
	q.of = fmt.Sprintf("%q %q %q %q", q.service, q.part, q.partitions, q.prefix)
	if there && q.live {
		return q, badRequest("live records have no cursors: each call sees the state anew; take from=saved, or all at once with Accept: %s", ndjson)
	}
	if there {
		q.place, err = parsePlace(cursor, q.of)
	}
	return q, err
}

// records answers with a page of records, or as NDJSON with as many as there are.
func (s *server) records(w http.ResponseWriter, r *http.Request, c echo.Context) (err error) {
	q, err := s.recordQuery(r, c)
	if err != nil {
		return err
	}
	n, err := notation.New()
	if err != nil {
		return err
	}
	from, err := s.stateOf(r.Context(), q)
	if err != nil {
		return err
	}
	if from != nil {
		defer func() { s.closed("state that was read", from.Close()) }()
		if !q.live {
			q.place.generation = from.file.Header().Generation
		}
	}
	if accepts(r, ndjson) {
		return s.recordLines(w, r, q, from, n)
	}
	page := Records{Records: []Record{}, Generation: q.place.generation}
	size := 0
	q.place.skip, page.More, err = q.read(r.Context(), from, func(b *record.Batch, i int) (bool, error) {
		if size += len(b.Record(i)); size > MaxPageBytes && len(page.Records) > 0 {
			return false, nil
		}
		page.Records = append(page.Records, q.tell(b, i, n))
		return true, nil
	})
	if err != nil {
		return err
	}
	if page.More && !q.live {
		page.Next = new(q.place.cursor(q.of))
	}
	writeJSON(w, http.StatusOK, page)
	return nil
}

// recordLines answers with a line for each record and one at the end, which is an error if not all could be read.
func (s *server) recordLines(w http.ResponseWriter, r *http.Request, q recordQuery, from *state, n notation.Notation) error {
	lines := lineWriter{w: w}
	end := Records{Generation: q.place.generation}
	var err error
	q.place.skip, end.More, err = q.read(r.Context(), from, func(b *record.Batch, i int) (bool, error) {
		return true, lines.write(map[string]Record{"record": q.tell(b, i, n)})
	})
	if err != nil {
		return lines.fail(err)
	}
	if end.More && !q.live {
		end.Next = new(q.place.cursor(q.of))
	}
	_ = lines.write(map[string]any{"end": map[string]any{"next": end.Next, "more": end.More, "generation": end.Generation}})
	return nil
}

// stateOf opens what is asked for; nil: nothing is saved, or there is nothing.
func (s *server) stateOf(ctx context.Context, q recordQuery) (*state, error) {
	var found *state
	var err error
	if q.live {
		found, err = s.livePart(ctx, q.service, q.part)
	} else {
		found, err = s.savedPart(q.service, q.part, q.place.generation)
	}
	if errors.Is(err, abi.ErrNotFound) {
		if q.place.generation != 0 {
			return nil, marked{fmt.Errorf("%w; begin anew, without a cursor", err), errGone}
		}
		return nil, nil
	}
	return found, err
}

// read hands do the records from q.place on that are asked for, as many as the limit, until it does not want one. It
// returns how many records of the partitions come before the next one, and whether there is a next one.
func (q recordQuery) read(ctx context.Context, from *state, do func(*record.Batch, int) (bool, error)) (skip uint64, more bool, err error) {
	if from == nil {
		return 0, false, nil
	}
	in := from.file.Records(q.partitions...)
	var at, told uint64
	for {
		if err := context.Cause(ctx); err != nil {
			return 0, false, err
		}
		b, err := in.ReadBatch()
		if errors.Is(err, io.EOF) {
			return at, false, nil
		}
		if err != nil {
			return 0, false, err
		}
		if at+uint64(b.Len()) <= q.place.skip {
			at += uint64(b.Len())
			continue
		}
		for i := range b.Len() {
			key, _ := b.Key(i)
			if at >= q.place.skip && bytes.HasPrefix(key, []byte(q.prefix)) {
				if told == q.limit {
					return at, true, nil
				}
				if wanted, err := do(b, i); err != nil || !wanted {
					return at, true, err
				}
				told++
			}
			at++
		}
	}
}

func (q recordQuery) tell(b *record.Batch, i int, n notation.Notation) Record {
	value := b.Value(i)
	told := Record{Partition: string(b.Partition(i)), Key: n.JSON(b.KeyItem(i)), Bytes: len(value)}
	if q.value {
		told.Value = valueOf(n, value)
	}
	return told
}

// valueOf is a value for JSON; nil: it is too long, or there is none.
func valueOf(n notation.Notation, item []byte) *any {
	if item == nil || len(item) > MaxValueBytes {
		return nil
	}
	return new(n.JSON(item))
}
