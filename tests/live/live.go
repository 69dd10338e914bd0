// Package live has a live service's part for tests: one that keeps its native state in memory, as bytes.
package live

import (
	"context"
	"io"

	"github.com/torpor-run/torpor/runtime"
)

// Part is a part of a service, which is a [runtime.Source]. It is for one goroutine at a time, the runtime's
// included: a test changes Native between saves.
type Part struct {
	Native []byte
	Dirty  runtime.Dirty
}

// Capture implements [runtime.Source].
func (p *Part) Capture(context.Context) (runtime.Capture, error) { return captured(p.Native), nil }

// Restore implements [runtime.Source].
func (p *Part) Restore(_ context.Context, native io.Reader) error {
	b, err := io.ReadAll(native)
	if err == nil {
		p.Native = b
	}
	return err
}

// Reset implements [runtime.Source].
func (p *Part) Reset(context.Context) error {
	p.Native = nil
	return nil
}

type captured []byte

func (c captured) WriteNative(_ context.Context, w io.Writer) error {
	_, err := w.Write(c)
	return err
}

func (captured) Close() error { return nil }
