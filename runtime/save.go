package runtime

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"syscall"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// portable is a [Serializer] whose module can be kept beside the states it wrote.
type portable interface{ Wasm() []byte }

// captured is a part fixed for saving.
type captured struct {
	part    *part
	capture Capture
	dirty   changes   // to put back if the save fails
	at      time.Time // when it began
	took    time.Duration
	early   bool   // the service may not have written yet what was acknowledged before
	marks   uint64 // how many there were
	stopped bool   // the process was not running
	deaths  uint64 // of the process, before
}

// saveParts captures the parts chosen at one moment and saves each.
func (s *Service) saveParts(ctx context.Context, choose func(*part) bool) error {
	var parts []*part
	for _, p := range s.parts {
		if choose(p) {
			parts = append(parts, p)
		}
	}
	if len(parts) == 0 {
		return nil
	}
	caught, err := s.capture(ctx, parts)
	if err != nil {
		s.note(err)
		for _, p := range parts {
			s.rt.observer.SaveFinished(SaveEvent{Service: s.name, Part: p.Name, Err: err})
		}
		return err
	}
	var errs []error
	for _, c := range caught {
		event, err := s.savePart(ctx, c)
		if err != nil {
			err = fmt.Errorf("service %s, part %s: not saved: %w", s.name, c.part.Name, err)
			errs = append(errs, err)
		}
		event.Err = err
		if err != nil || c.early { // saved once more, when it is certain that all was there
			s.giveUp(c.part, c.dirty, c.early, c.deaths)
		}
		s.mu.Lock()
		c.part.lastErr, c.part.captured = err, changes{}
		if err == nil {
			if c.stopped {
				c.part.stopped = c.marks
			}
			c.part.generation, c.part.savedAt = event.Generation, event.Created
			c.part.records, c.part.bytes, c.part.fileBytes, c.part.deltas = event.Records, event.Bytes, event.FileBytes, event.Deltas
		}
		s.mu.Unlock()
		s.rt.observer.SaveFinished(event)
		if err == nil && !c.early {
			s.lookForNothing(ctx, c)
		}
	}
	return errors.Join(errs...)
}

// lookForNothing tells of a part that has changed while there was never anything where its source looks: then what was
// saved is nothing, and will be given back as that.
func (s *Service) lookForNothing(ctx context.Context, c captured) {
	d, ok := c.part.Source.(DatedSource)
	if !ok || c.part.found || c.part.SelfMarking || c.dirty.since.IsZero() {
		return
	}
	at, err := d.Modified(ctx)
	if err != nil || !at.IsZero() {
		c.part.found = err == nil
		return
	}
	err = fmt.Errorf("service %s, part %s: the service has changed, and there is nothing where its state is looked for: is the path of the source right?", s.name, c.part.Name)
	s.rt.logger.Error("saved, but there is nothing to save", "service", s.name, "part", c.part.Name, "error", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	c.part.lastErr = err
}

// capture fixes the parts. Requests are held for it, unless there is one part whose source captures
// atomically; several parts belong together and are always captured under hold.
func (s *Service) capture(ctx context.Context, parts []*part) ([]captured, error) {
	var caught []captured
	take := func(ctx context.Context) error {
		for _, p := range parts {
			// Cleared before the capture: what changes after it marks the part again, and what
			// changes between the two is merely saved once more.
			marks, last := p.Dirty.count(), p.Dirty.lastMark()
			dirty := p.Dirty.take()
			s.setCaptured(p, dirty)
			start := time.Now()
			s.mu.Lock()
			stopped, deaths := s.process != nil && !s.up, s.deaths
			s.mu.Unlock()
			early := !stopped && p.Lag > 0 && start.Sub(last) < p.Lag
			c, err := p.Source.Capture(ctx)
			if err != nil {
				s.giveUp(p, dirty, early, deaths)
				return fmt.Errorf("service %s, part %s: capture: %w", s.name, p.Name, err)
			}
			caught = append(caught, captured{part: p, capture: c, dirty: dirty, at: start, took: time.Since(start), early: early, marks: marks, stopped: stopped, deaths: deaths})
		}
		return nil
	}
	err := s.still(ctx, parts, take)
	if err != nil {
		for _, c := range caught {
			s.giveUp(c.part, c.dirty, c.early, c.deaths)
			err = errors.Join(err, c.capture.Close())
		}
		return nil, err
	}
	return caught, nil
}

// still runs take, which captures parts, with requests held where that is necessary.
func (s *Service) still(ctx context.Context, parts []*part, take func(context.Context) error) error {
	if s.gate.closed() {
		return take(ctx) // the caller holds requests already
	}
	if a, ok := parts[0].Source.(AtomicSource); ok && len(s.parts) == 1 && a.AtomicCapture() {
		start := time.Now()
		err := take(ctx)
		s.rt.observer.RequestsHeld(s.name, time.Since(start), err)
		return err
	}
	return s.holding(ctx, take)
}

// setCaptured notes what is captured and not committed yet: until it is, it counts as unsaved.
func (s *Service) setCaptured(p *part, c changes) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.captured = c
}

// giveUp marks dirty again what was captured and could not be saved, or was captured early; if the process has died
// since then, what it kept in memory, or may not have written yet, is lost. deaths is how many there were before the
// capture.
func (s *Service) giveUp(p *part, c changes, early bool, deaths uint64) {
	s.mu.Lock()
	died, resetting := s.deaths != deaths, s.resetting
	s.mu.Unlock()
	s.setCaptured(p, changes{})
	if died && resetting {
		return
	}
	gone := died && !p.SelfMarking
	if gone && (early || !p.offline()) && !c.since.IsZero() {
		s.lose(p, c.since)
	}
	if !gone || p.offline() {
		p.Dirty.putBack(c)
	}
}

// savePart makes one generation of what was captured, proves it and commits it: as a delta where that
// can be, otherwise in full.
func (s *Service) savePart(ctx context.Context, c captured) (event SaveEvent, err error) {
	start := time.Now()
	p := c.part
	event = SaveEvent{Service: s.name, Part: p.Name, Capture: c.took}
	defer func() {
		event.Total = time.Since(start) + c.took
		err = errors.Join(err, c.capture.Close())
	}()
	if err := s.keepModule(p); err != nil {
		return event, err
	}
	event.Created = c.at.UTC() // not later: what is newer than this may not be in it
	saved := false
	if d := p.delta(c.capture); d != nil {
		saved, err = s.saveDelta(ctx, c, d, &event)
		if cause := context.Cause(ctx); cause != nil && !saved {
			return event, cmp.Or(err, cause)
		}
		if err != nil && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)) {
			return event, err // everything needs more room still
		}
		if err != nil {
			// What failed may be the place or the way: a full save needs neither. Where it is the disk,
			// that fails, too, and says so.
			s.rt.logger.Warn("what has changed could not be saved by itself; everything is saved", "service", s.name, "part", p.Name, "error", err)
		}
	}
	if !saved {
		if err := s.saveFull(ctx, c, &event); err != nil {
			return event, err
		}
	}
	p.base = 0
	if d, ok := c.capture.(DeltaCapture); ok {
		d.Committed()
		p.base = event.Generation
	}
	s.rt.logger.Info("state saved", "service", s.name, "part", p.Name, "generation", event.Generation, "delta", event.Delta,
		"records", event.Records, "bytes", event.Bytes, "written", event.Written, "took", time.Since(start)+c.took)
	return event, nil
}

// saveFull makes a generation of all that was captured.
func (s *Service) saveFull(ctx context.Context, c captured, event *SaveEvent) error {
	p := c.part
	pending, err := s.rt.dir.Begin(s.name, p.Name)
	if err != nil {
		return err
	}
	defer pending.Abort()
	event.Generation, event.Delta = pending.Generation(), false
	file, err := statefile.NewWriter(pending, statefile.Header{Service: s.name, Part: p.Name,
		Generation: event.Generation, Created: event.Created, Serializer: p.writtenBy(), Compression: p.Compression})
	if err != nil {
		return err
	}
	info, err := s.serialize(ctx, c, file, c.capture.WriteNative, event)
	if err != nil {
		return err
	}
	return s.commit(pending, info, info.Size, event)
}

// saveDelta makes a generation of what has changed since the base. ok is false, without an error, where
// the state directory wants it all.
func (s *Service) saveDelta(ctx context.Context, c captured, d Delta, event *SaveEvent) (ok bool, err error) {
	p := c.part
	pending, ok, err := s.rt.dir.BeginDelta(s.name, p.Name, p.base, p.writtenBy())
	if !ok || err != nil {
		return false, err
	}
	defer pending.Abort()
	event.Generation, event.Delta = pending.Generation(), true
	tail := pending.Tail()
	file, err := statefile.NewDeltaWriter(pending, tail, event.Generation, event.Created)
	if err != nil {
		return false, err
	}
	info, err := s.serialize(ctx, c, deltaFile{ctx: ctx, Writer: file, delta: d}, d.WriteUpserts, event)
	if errors.Is(err, statedir.ErrDeltaTooLarge) || errors.Is(err, abi.ErrTooLarge) {
		s.rt.logger.Debug("so much has changed that everything is saved", "service", s.name, "part", p.Name)
		return false, nil
	}
	if err == nil {
		err = s.commit(pending, info, info.Size-tail.Size(), event)
	}
	return err == nil, err
}

// deltaFile adds, when the upserts are written, what else is in a delta.
type deltaFile struct {
	*statefile.Writer
	ctx   context.Context
	delta Delta
}

func (f deltaFile) Close() (statefile.Info, error) {
	if err := f.delta.WriteTombstones(f.ctx, f.Writer); err != nil {
		return statefile.Info{}, err
	}
	f.Grow(f.delta.Growth())
	return f.Writer.Close()
}

// commit makes what was written the newest generation and takes down what it is.
func (s *Service) commit(pending *statedir.Pending, info statefile.Info, written int64, event *SaveEvent) error {
	committing := time.Now()
	if err := pending.Commit(); err != nil {
		return err
	}
	event.Commit = time.Since(committing)
	event.Records, event.Bytes, event.FileBytes, event.Deltas, event.Written = info.Records, info.Raw, info.Size, info.Deltas, written
	return nil
}

// delta is what has changed since the generation the part's base is, nil where that cannot be told.
func (p *part) delta(c Capture) Delta {
	d, ok := c.(DeltaCapture)
	if !ok || p.base == 0 || p.Serializer.Descriptor().Media != abi.MediaRecords {
		return nil
	}
	return d.Delta()
}

// writtenBy is the serializer as state files name it.
func (p *part) writtenBy() statefile.Serializer {
	d := p.Serializer.Descriptor()
	return statefile.Serializer{Name: d.Name, Version: d.Version, Digest: p.Serializer.Digest(), Schema: p.Schema}
}

// keepModule puts the serializer's module into the state directory, before the first state that needs
// it is committed.
func (s *Service) keepModule(p *part) error {
	if m, ok := p.Serializer.(portable); ok && !p.kept {
		if err := s.rt.dir.KeepModule(p.Serializer.Digest(), m.Wasm()); err != nil {
			return err
		}
		p.kept = true
	}
	return nil
}

// recordFile is what records are written to: a statefile.Writer.
type recordFile interface {
	record.Sink
	Close() (statefile.Info, error)
}

// serialize takes the native state that write gives through the serializer to file and proves it on the
// way: the records go to the file and, at the same time, back through the serializer.
func (s *Service) serialize(ctx context.Context, c captured, file recordFile, write func(context.Context, io.Writer) error, event *SaveEvent) (statefile.Info, error) {
	start := time.Now()
	p, d := c.part, c.part.Serializer.Descriptor()
	call := abi.Call{Service: s.name, Part: p.Name, Schema: p.Schema, Time: event.Created.UnixNano(), Settings: p.Settings}

	line := newPipeline(ctx)
	native, toFile := newBytePipe(line.ctx), newBatchPipe(line.ctx)
	captureSum := sha256.New()
	line.stage(nil, func(ctx context.Context) error {
		if err := write(ctx, io.MultiWriter(captureSum, native)); err != nil {
			return err
		}
		native.CloseWrite()
		return nil
	})
	sink := teeSink{toFile}
	var proof *proof
	if p.Proof == ProofFull || p.Proof == ProofSampled && event.Generation%10 == 1 {
		proof = newProof(line, p.Serializer, call)
		sink = append(sink, proof.records)
	}
	line.stage(nil, func(ctx context.Context) error {
		if err := p.Serializer.Save(ctx, call, native, sink); err != nil {
			return err
		}
		toFile.end()
		if proof != nil {
			proof.records.end()
		}
		return nil
	})
	var info statefile.Info
	recordSum := sha256.New()
	line.stage(nil, func(context.Context) error {
		out := record.Sink(file)
		if event.Delta || proof != nil && !d.Canonical {
			out = teeSink{file, digestSink{recordSum}}
		}
		if err := drain(toFile, out); err != nil {
			return err
		}
		var err error
		info, err = file.Close()
		return err
	})
	if err := line.wait(); err != nil {
		return info, err
	}
	if event.Delta && !bytes.Equal(captureSum.Sum(nil), recordSum.Sum(nil)) {
		return info, fmt.Errorf("serializer %s %s does not pass records on as they are, though its native state is of type %s", d.Name, d.Version, d.Media)
	}
	if proof != nil {
		event.Prove = proof.took()
		if err := proof.compare(captureSum, recordSum); err != nil {
			return info, err
		}
	}
	event.Serialize = time.Since(start)
	return info, nil
}

// proof loads what is being saved. For a canonical serializer that must give the native state back,
// byte for byte; for another, saving what it gave must give the same records.
type proof struct {
	records    *batchPipe
	again      *bytePipe // not canonical only
	canonical  bool
	native     hash.Hash // of what Load gave
	resaved    hash.Hash // of the records made from that
	loadTook   time.Duration
	resaveTook time.Duration
}

func newProof(line *pipeline, ser Serializer, call abi.Call) *proof {
	p := &proof{records: newBatchPipe(line.ctx), canonical: ser.Descriptor().Canonical, native: sha256.New(), resaved: sha256.New()}
	out := io.Writer(p.native)
	if !p.canonical {
		p.again = newBytePipe(line.ctx)
		out = p.again
		line.stage(&p.resaveTook, func(ctx context.Context) error {
			return proofError(ser.Save(ctx, call, p.again, digestSink{p.resaved}))
		})
	}
	line.stage(&p.loadTook, func(ctx context.Context) error {
		if err := ser.Load(ctx, call, p.records, out); err != nil {
			return proofError(err)
		}
		if !p.canonical {
			p.again.CloseWrite()
		}
		return nil
	})
	return p
}

func proofError(err error) error {
	if err != nil {
		return fmt.Errorf("proof: what was just saved cannot be loaded again: %w", err)
	}
	return nil
}

// took is how long the proof was at work itself.
func (p *proof) took() time.Duration {
	d := p.loadTook - p.records.consumeWait
	if p.again != nil {
		d += p.resaveTook - p.again.produceWait - p.again.consumeWait
	}
	return d
}

func (p *proof) compare(native, records hash.Hash) error {
	want, got, what := native.Sum(nil), p.native.Sum(nil), "loading what was just saved gives other bytes than were captured"
	if !p.canonical {
		want, got, what = records.Sum(nil), p.resaved.Sum(nil), "loading what was just saved, and saving that, gives other records"
	}
	if !bytes.Equal(want, got) {
		return fmt.Errorf("proof: %s (SHA-256 %x, %x): the serializer loses state", what, want, got)
	}
	return nil
}

// drain moves batches from a belt to a sink until there are no more.
func drain(from *batchPipe, to record.Sink) error {
	for {
		b, err := from.ReadBatch()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = to.WriteBatch(b)
		}
		if err != nil {
			return err
		}
	}
}

// teeSink gives every batch to each sink.
type teeSink []record.Sink

func (t teeSink) WriteBatch(b *record.Batch) error {
	for _, s := range t {
		if err := s.WriteBatch(b); err != nil {
			return err
		}
	}
	return nil
}

// digestSink sums up records.
type digestSink struct{ h hash.Hash }

func (d digestSink) WriteBatch(b *record.Batch) error {
	_, err := d.h.Write(b.Data)
	return err
}
