package runtime

import (
	"context"
	"io"
)

// Source is where a part's native state leaves and enters its live service. Calls for one source do
// not overlap, but requests to the service may be under way during any of them except Capture when
// [AtomicSource] is not implemented: then the runtime holds requests while Capture runs.
type Source interface {
	// Capture fixes the state as it is now and returns quickly: requests wait for it. The capture
	// stays what it was however the service changes afterwards.
	Capture(ctx context.Context) (Capture, error)
	// Restore replaces the service's state with the native state read from native, wholly once native
	// has ended with io.EOF, or not at all. It wraps abi.ErrCorrupt where native is not such a state.
	Restore(ctx context.Context, native io.Reader) error
	// Reset empties the service's state.
	Reset(ctx context.Context) error
}

// Capture is the state of a part at one moment.
type Capture interface {
	// WriteNative writes the native state. It may be called more than once, each time with the same
	// bytes.
	WriteNative(ctx context.Context, w io.Writer) error
	// Close gives back what the capture holds. It must be called once.
	Close() error
}

// AtomicSource is a [Source] whose Capture is consistent by itself, so that requests need not be held
// for it. The change must be visible to Capture before the service marks itself dirty.
type AtomicSource interface {
	Source
	// AtomicCapture reports whether that is so.
	AtomicCapture() bool
}
