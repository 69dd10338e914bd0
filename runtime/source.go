package runtime

import (
	"context"
	"io"
	"time"

	"github.com/torpor-run/torpor/host/abi/record"
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

// OfflineSource is a [Source] whose Restore and Reset must not be called while the service's program runs:
// it has the state open, such as files. Where the runtime has the service's [Process] it stops it for them,
// and captures once more when it has stopped it for good, since programs write when they end.
type OfflineSource interface {
	Source
	// Offline reports whether that is so.
	Offline() bool
}

// DatedSource is an [OfflineSource] that knows when what it finds was changed last. It is safe to call while the
// service's program runs.
type DatedSource interface {
	Source
	// Modified is that time, as the file system has it; zero where there is nothing.
	Modified(ctx context.Context) (time.Time, error)
}

// DeltaCapture is a [Capture] that can also tell what has changed, so that a save can cost what the
// change costs. Only records are ever saved so: the part's serializer must take records as they are
// ([abi.MediaRecords]).
type DeltaCapture interface {
	Capture
	// Delta is what has changed since the base: the state of the last capture whose Committed was
	// called or of the last Restore that succeeded, whichever was later. It is nil where that is not
	// known, or no cheaper than everything. It is valid until Close.
	Delta() Delta
	// Committed makes the capture the base that later captures tell the change from. It is called at
	// most once, before Close, when what was captured has been saved, be it by Delta or in full.
	Committed()
}

// Delta is the difference between a capture and its base, in records.
type Delta interface {
	// WriteUpserts writes the records that are new or changed, as [Capture].WriteNative does. It may be
	// called more than once, each time with the same bytes.
	WriteUpserts(ctx context.Context, w io.Writer) error
	// WriteTombstones writes tombstones of the records that are gone. A key is not both upserted and
	// gone, and none is there twice.
	WriteTombstones(ctx context.Context, sink record.Sink) error
	// Growth is how many more records there are than in the base; negative where there are fewer.
	Growth() int64
}
