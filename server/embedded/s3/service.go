package s3

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidwall/btree"

	"github.com/torpor-run/torpor/runtime"
)

// DefaultPartition is the account and region of buckets where nothing else is said.
const DefaultPartition = "000000000000/us-east-1"

// legacyRegion is the region in which S3 keeps some of its oldest behaviour.
const legacyRegion = "us-east-1"

// Options says what a [Service] uses. The zero value is ready.
type Options struct {
	// Clock tells the time of changes. nil is time.Now.
	Clock func() time.Time
	// Logger gets what gofakes3 and this package have to report. nil discards it.
	Logger *slog.Logger
	// Partition is "<account>/<region>" of new buckets; one created with a location constraint is of
	// that region instead. "" is [DefaultPartition].
	Partition string
	// OnChange is called after each change a request made, with the bucket and the object's key; the
	// key is "" where the bucket itself was created, deleted or configured. Requests wait for it: it
	// must be quick and must not call the Service. It is not called by Restore and Reset.
	OnChange func(bucket, key string)
	// AllowedOrigins are web origins, such as "https://app.example.org", whose pages may use the service
	// from a browser; "*" is any. Pages from this computer (localhost, loopback addresses) always may.
	AllowedOrigins []string
}

// Service is an S3 service with its state in memory. All methods are safe for concurrent use.
// It implements the runtime's Source and AtomicSource, and its captures DeltaCapture.
type Service struct {
	clock     func() time.Time
	log       *slog.Logger
	partition string
	onChange  func(bucket, key string)
	origins   []string
	requests  atomic.Uint64

	mu      sync.RWMutex
	buckets *btree.Map[string, *bucket]
	changes changes
}

var _ runtime.AtomicSource = (*Service)(nil)

// New makes an empty service.
func New(o Options) *Service {
	s := &Service{clock: o.Clock, log: o.Logger, partition: o.Partition, onChange: o.OnChange, origins: o.AllowedOrigins,
		buckets: new(btree.Map[string, *bucket]), changes: newChanges(runtime.MaxDirtyKeys, false)}
	if s.clock == nil {
		s.clock = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.partition == "" {
		s.partition = DefaultPartition
	}
	if s.onChange == nil {
		s.onChange = func(string, string) {}
	}
	return s
}

// Handler is the service's S3 API, path style ("/bucket/key"). It must be given the path as the client
// sent it: a mux or router in front must not clean it, since "a//b" and "../c" are keys.
func (s *Service) Handler() http.Handler { return http.HandlerFunc(s.serve) }

// AtomicCapture reports that requests need not be held for Capture.
func (s *Service) AtomicCapture() bool { return true }

// Capture fixes the state as it is now. It takes microseconds for each bucket, however many objects
// there are; the capture shares what does not change afterwards. It is a [runtime.DeltaCapture]. It fails
// only if ctx has ended.
func (s *Service) Capture(ctx context.Context) (runtime.Capture, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &capture{s: s, end: s.changes.capture()}
	s.buckets.Scan(func(_ string, b *bucket) bool {
		c.buckets = append(c.buckets, b.frozen())
		return true
	})
	return c, nil
}

// Restore replaces the state by the one native describes (README.md, "Native state"), wholly once
// native has ended, or not at all. Requests go on meanwhile, on the state before. Errors wrap
// abi.ErrCorrupt and name the record, abi.ErrTooLarge where a record passes a limit, or are those of
// native and ctx. What is restored is the base that captures tell the difference from.
func (s *Service) Restore(ctx context.Context, native io.Reader) error {
	buckets, err := readState(ctx, native)
	if err != nil {
		return err
	}
	s.swap(buckets, true)
	return nil
}

// Reset empties the state. Captures can tell no difference then until one of them is committed. It fails
// only if ctx has ended.
func (s *Service) Reset(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.swap(new(btree.Map[string, *bucket]), false)
	return nil
}

// swap puts another state in place; base says that it is the base from then on.
func (s *Service) swap(buckets *btree.Map[string, *bucket], base bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buckets = buckets
	if base {
		s.changes = newChanges(s.changes.limit, true)
	} else {
		s.changes.now.everything()
	}
}

// capture is the state at one moment.
type capture struct {
	s   *Service
	end *span // what was touched up to this moment ends with it

	mu      sync.Mutex
	buckets []*bucket // by name
	closed  bool
}

var _ runtime.DeltaCapture = (*capture)(nil)

var errClosed = errors.New("s3: the capture is closed")

// state is the buckets, until Close.
func (c *capture) state() ([]*bucket, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errClosed
	}
	return c.buckets, nil
}

// WriteNative writes the state as records.
func (c *capture) WriteNative(ctx context.Context, w io.Writer) error {
	buckets, err := c.state()
	if err != nil {
		return err
	}
	return writeState(ctx, w, buckets)
}

// Close lets go of the state.
func (c *capture) Close() error {
	c.mu.Lock()
	again := c.closed
	c.buckets, c.closed = nil, true
	c.mu.Unlock()
	if !again {
		c.s.closed(c.end)
	}
	return nil
}

// partitionOf is where a bucket created in a region belongs.
func (s *Service) partitionOf(region string) string {
	if region == "" {
		return s.partition
	}
	account, _, _ := strings.Cut(s.partition, "/")
	return account + "/" + region
}
