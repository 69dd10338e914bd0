package runtime

import (
	"context"
	"crypto/sha256"
	"io"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// Serializer turns a part's native state into records and records into native state. *host.Module is
// one, running a Wasm module; tests have others.
//
// All methods are safe for concurrent use; each call stands alone. Errors wrap abi.ErrCorrupt for
// input that is not what it claims to be, abi.ErrVersion for a schema the serializer does not read,
// abi.ErrTooLarge for a limit. After an error what was written to the sink or writer is to be
// discarded. Cancelling ctx ends a call with the context's error.
type Serializer interface {
	// Descriptor says what the serializer is and can do. The value is shared: do not change it.
	Descriptor() abi.Descriptor
	// Digest is the SHA-256 of the module as its author built it: its identity.
	Digest() [sha256.Size]byte
	// Save reads native state to its end and writes its records to sink, checked.
	Save(ctx context.Context, call abi.Call, native io.Reader, sink record.Sink) error
	// Load reads records of schema call.Schema to their end and writes native state.
	Load(ctx context.Context, call abi.Call, records record.Source, native io.Writer) error
	// Migrate reads records of schema call.From and writes those of call.To.
	Migrate(ctx context.Context, call abi.Call, records record.Source, sink record.Sink) error
}
