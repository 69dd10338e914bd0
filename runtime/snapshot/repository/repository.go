package repository

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
)

// Config is what a repository is made of.
type Config struct {
	Remote Remote           // where it lies
	Torpor string           // version of this program, which versions show
	Logger *slog.Logger     // nil: nothing is logged
	Now    func() time.Time // nil: time.Now
}

// Repository is named, versioned snapshots at one place. Its methods are safe for concurrent use, beside other
// repositories at the same place, too, in this process or another; see [CollectOptions] for the one thing to know.
type Repository struct {
	cfg   Config
	codec codec
	enc   *zstd.Encoder
	dec   *zstd.Decoder

	// gate is held, shared, while something is saved, and by Collect.
	gate sync.RWMutex
	// refreshing is held by who asks the Remote what there is.
	refreshing sync.Mutex

	mu       sync.Mutex // guards what follows; it is not held while the Remote is asked
	catalog  *catalog
	versions map[Ref]*version
	opened   map[Ref]int  // snapshots given by Open and not closed
	certain  map[Ref]bool // versions whose removal records are known to be durable
}

// Open makes a repository of what lies at cfg.Remote; nothing there is an empty one. Nothing is written or read before
// it is needed.
func Open(_ context.Context, cfg Config) (*Repository, error) {
	if cfg.Remote == nil {
		return nil, errors.New("snapshots: there is no place for them")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	r := &Repository{cfg: cfg, catalog: newCatalog(), versions: map[Ref]*version{}, opened: map[Ref]int{}, certain: map[Ref]bool{}}
	var err error
	if r.codec, err = newCodec(); err != nil {
		return nil, err
	}
	if r.enc, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false)); err != nil {
		return nil, fmt.Errorf("zstd encoder: %w", err)
	}
	// What was compressed may be a delta, which is no longer than what it makes.
	if r.dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(MaxPieceBytes)); err != nil {
		return nil, fmt.Errorf("zstd decoder: %w", err)
	}
	return r, nil
}

// SaveOptions say how a version is saved.
type SaveOptions struct {
	Description string
	// Lock encrypts the version for those who have its key; the zero Lock leaves it open. A version saved with a
	// passphrase shares pieces with the newest of the name if that one has the same passphrase. One saved for recipients
	// stands alone: sharing needs the key of the one before, which who encrypts to a recipient does not have.
	Lock seal.Lock
	// Progress is told how many bytes of the states have been taken in, of how many there are; total may be less than
	// the last done where deltas have to be applied. nil: it is not told.
	Progress func(done, total int64)
}

// Version is one version of a named snapshot. Of one that is encrypted only Number, Created, Size and Stored are known.
type Version struct {
	Number      uint64    `json:"version"` // from 1, without gaps but for those removed
	Created     time.Time `json:"created"` // UTC
	Torpor      string    `json:"torpor,omitempty"`
	Description string    `json:"description,omitempty"`
	Services    []string  `json:"services,omitempty"`
	Size        int64     `json:"size"`   // bytes of its state files
	Stored      int64     `json:"stored"` // bytes this version added to the repository
	Encrypted   bool      `json:"encrypted"`
	Parts       []Part    `json:"parts,omitempty"`
}

// Part is what a version says of the state of one part.
type Part struct {
	Service    string `json:"service"`
	Name       string `json:"part"`
	Generation uint64 `json:"generation"`
	Records    uint64 `json:"records"`
	Size       int64  `json:"size"` // bytes of its state file
	Serializer string `json:"serializer"`
}

// Summary is a name and what there is of it.
type Summary struct {
	Name      string    `json:"name"`
	Newest    uint64    `json:"newest"`   // its highest version
	Versions  int       `json:"versions"` // how many there are
	Changed   time.Time `json:"changed"`  // when the newest was saved
	Size      int64     `json:"size"`     // bytes of the newest's state files
	Services  []string  `json:"services,omitempty"`
	Encrypted bool      `json:"encrypted"` // the newest is
}

// VersionError says that there is no such version, or no such snapshot. It wraps abi.ErrNotFound.
type VersionError struct {
	Name    string
	Version uint64 // 0: any
	Newest  uint64 // 0: there is no snapshot of that name
	Removed bool   // there was
}

// Error implements error.
func (e *VersionError) Error() string {
	switch {
	case e.Newest == 0:
		return fmt.Sprintf("snapshot %q: %v", e.Name, abi.ErrNotFound)
	case e.Removed:
		return fmt.Sprintf("version %d of snapshot %q: %v: it was removed; the newest is %d", e.Version, e.Name, abi.ErrNotFound, e.Newest)
	}
	return fmt.Sprintf("version %d of snapshot %q: %v; the newest is %d", e.Version, e.Name, abi.ErrNotFound, e.Newest)
}

// Unwrap is abi.ErrNotFound.
func (e *VersionError) Unwrap() error { return abi.ErrNotFound }

// DefaultGrace is how long what no version needs is kept.
const DefaultGrace = time.Hour

// CollectOptions say what Collect may do.
type CollectOptions struct {
	// DryRun changes nothing: the result is what would be.
	DryRun bool
	// Grace is how old a pack must be, and for how long no version must have needed it, before it is deleted: packs are
	// put before the commit that needs them, so that a younger one may be of a version someone else is saving right now.
	// 0 is DefaultGrace. Negative is none, which is safe where nobody else has the place open: this Repository does not
	// collect while it saves.
	Grace time.Duration
	// Progress is told how many bytes have been deleted or written anew, of how many. nil: it is not told.
	Progress func(done, total int64)
}

// Collected is what Collect has done.
type Collected struct {
	Packs   int   `json:"packs"`   // deleted, those included that were written anew
	Rewrote int   `json:"rewrote"` // of those: how many were written anew, for what is needed in them
	Freed   int64 `json:"freed"`   // bytes less than before
	Waiting int64 `json:"waiting"` // bytes that no version needs and that are within the grace time
	Kept    int64 `json:"kept"`    // bytes of packs there are now
	DryRun  bool  `json:"dry_run"`
}

// Finding is something wrong with a repository.
type Finding struct {
	Blob     string `json:"blob"`     // name of the blob: a pack, a commit or removal record
	Offset   int64  `json:"offset"`   // in it; -1: the whole
	Problem  string `json:"problem"`  // ProblemDamaged, ProblemMissing, ProblemUnknown
	Err      error  `json:"-"`        // a *[BlobError]
	Message  string `json:"message"`  // of Err
	Affected []Ref  `json:"affected"` // the versions that cannot be read, or not wholly, because of it
}

// Ref is a version of a name.
type Ref struct {
	Name    string `json:"name"`
	Version uint64 `json:"version"`
}

// What may be wrong.
const (
	ProblemDamaged = "damaged" // it is there, and not what it was
	ProblemMissing = "missing" // it is needed, and not there
	ProblemUnknown = "unknown" // of a later version of Torpor
)
