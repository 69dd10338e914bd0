package runtime

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// Stages of a save or a restore run in goroutines of their own, joined by belts. A belt carries a few
// buffers round and round, so that stages overlap and memory stays what it is however large the state.

const (
	beltBuffers = 4
	pipeBytes   = 128 << 10
	// largeBatch is how many bytes a batch may have to travel together with others.
	largeBatch = 1 << 20
)

// belt hands *T from one producer to one consumer and back again. Each side also counts how long it
// waited for the other: what a stage took in all, less its waits, is its own work.
type belt[T any] struct {
	full, free chan *T
	stop       <-chan struct{}
	cause      func() error

	produceWait, consumeWait time.Duration // read only after both sides have ended
}

func newBelt[T any](ctx context.Context) belt[T] {
	b := belt[T]{full: make(chan *T, beltBuffers), free: make(chan *T, beltBuffers), stop: ctx.Done(),
		cause: func() error { return context.Cause(ctx) }}
	for range beltBuffers {
		b.free <- new(T)
	}
	return b
}

func (b *belt[T]) take(from chan *T, wait *time.Duration) (*T, error) {
	select { // the common case, without a look at the clock
	case v, ok := <-from:
		if !ok {
			return nil, io.EOF
		}
		return v, nil
	default:
	}
	start := time.Now()
	defer func() { *wait += time.Since(start) }()
	select {
	case v, ok := <-from:
		if !ok {
			return nil, io.EOF
		}
		return v, nil
	case <-b.stop:
		return nil, b.cause()
	}
}

// empty waits for a buffer to fill; send passes it on; end says that there are no more, and is called
// after success only: a stage that fails leaves it, and the others learn of it from the context.
func (b *belt[T]) empty() (*T, error) { return b.take(b.free, &b.produceWait) }
func (b *belt[T]) send(v *T)          { b.full <- v }
func (b *belt[T]) end()               { close(b.full) }

// next waits for a filled buffer, io.EOF after the last; done gives it back.
func (b *belt[T]) next() (*T, error) { return b.take(b.full, &b.consumeWait) }
func (b *belt[T]) done(v *T)         { b.free <- v }

// bytePipe is an io.Writer joined to an io.Reader by a belt.
type bytePipe struct {
	belt[[]byte]
	filling *[]byte
	reading *[]byte
	rest    []byte
}

func newBytePipe(ctx context.Context) *bytePipe { return &bytePipe{belt: newBelt[[]byte](ctx)} }

// Write copies p.
func (p *bytePipe) Write(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		if p.filling == nil {
			v, err := p.empty()
			if err != nil {
				return n, err
			}
			if cap(*v) == 0 {
				*v = make([]byte, 0, pipeBytes)
			}
			*v = (*v)[:0]
			p.filling = v
		}
		f := *p.filling
		m := copy(f[len(f):cap(f)], b[n:])
		*p.filling = f[:len(f)+m]
		n += m
		if len(*p.filling) == cap(f) {
			p.send(p.filling)
			p.filling = nil
		}
	}
	return n, nil
}

// CloseWrite ends the stream: the reader gets io.EOF after what was written.
func (p *bytePipe) CloseWrite() {
	if p.filling != nil {
		p.send(p.filling)
		p.filling = nil
	}
	p.end()
}

// Read implements io.Reader. It returns the context's cause when the pipeline was stopped.
func (p *bytePipe) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		if p.reading != nil {
			p.done(p.reading)
			p.reading = nil
		}
		v, err := p.next()
		if err != nil {
			return 0, err
		}
		p.reading, p.rest = v, *v
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// batchPipe is a record.Sink joined to a record.Source by a belt.
type batchPipe struct {
	belt[record.Batch]
	reading *record.Batch
}

func newBatchPipe(ctx context.Context) *batchPipe {
	return &batchPipe{belt: newBelt[record.Batch](ctx)}
}

// WriteBatch copies b, as record.Sink has it.
func (p *batchPipe) WriteBatch(b *record.Batch) error {
	v, err := p.empty()
	if err != nil {
		return err
	}
	v.Data, v.Refs = append(v.Data[:0], b.Data...), append(v.Refs[:0], b.Refs...)
	return p.pass(v)
}

// pass sends a buffer that empty gave. A large one goes when all others have come back, so that memory
// follows the largest record and not four of them.
func (p *batchPipe) pass(v *record.Batch) error {
	if len(v.Data) <= largeBatch {
		p.send(v)
		return nil
	}
	var others [beltBuffers - 1]*record.Batch
	for i := range others {
		var err error
		if others[i], err = p.empty(); err != nil {
			return err
		}
	}
	p.send(v)
	for _, o := range others {
		p.free <- o
	}
	return nil
}

// ReadBatch implements record.Source.
func (p *batchPipe) ReadBatch() (*record.Batch, error) {
	if p.reading != nil {
		if cap(p.reading.Data) > largeBatch {
			*p.reading = record.Batch{} // a large record has passed: let its memory go
		}
		p.done(p.reading)
		p.reading = nil
	}
	v, err := p.next()
	if err != nil {
		return nil, err
	}
	p.reading = v
	return v, nil
}

// pipeline runs stages and keeps the first error, which is the cause: the others then fail because
// the pipeline was stopped.
type pipeline struct {
	ctx  context.Context
	stop context.CancelCauseFunc
	wg   sync.WaitGroup
}

func newPipeline(ctx context.Context) *pipeline {
	ctx, stop := context.WithCancelCause(ctx)
	p := &pipeline{stop: stop}
	p.ctx = context.WithValue(ctx, abi.GroupKey{}, p) // its serializers wait for one another
	return p
}

// stage starts f. elapsed, if not nil, receives how long it ran.
func (p *pipeline) stage(elapsed *time.Duration, f func(ctx context.Context) error) {
	p.wg.Go(func() {
		start := time.Now()
		err := f(p.ctx)
		if elapsed != nil {
			*elapsed = time.Since(start)
		}
		if err != nil {
			p.stop(err)
		}
	})
}

// errPipelineDone is the cause given when nothing went wrong.
var errPipelineDone = errors.New("pipeline done")

// wait waits for all stages and returns the first error.
func (p *pipeline) wait() error {
	p.wg.Wait()
	p.stop(errPipelineDone)
	if err := context.Cause(p.ctx); !errors.Is(err, errPipelineDone) {
		return err
	}
	return nil
}
