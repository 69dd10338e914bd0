package runtime_test

import (
	"context"
	"fmt"
	"io"
	goruntime "runtime"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// largeRecords is a state of some large records that are made as they are written.
type largeRecords struct {
	records, size int
	restored      int
}

func (s *largeRecords) AtomicCapture() bool                              { return true }
func (s *largeRecords) Capture(context.Context) (runtime.Capture, error) { return s, nil }
func (s *largeRecords) Reset(context.Context) error                      { return nil }
func (s *largeRecords) Close() error                                     { return nil }

func (s *largeRecords) WriteNative(_ context.Context, w io.Writer) error {
	piece := make([]byte, 64<<10)
	for i := range s.records {
		head := record.AppendText(record.AppendText(record.AppendRecord(nil), ""), fmt.Sprint(i))
		if _, err := w.Write(record.AppendBytesHead(head, s.size)); err != nil {
			return err
		}
		for left := s.size; left > 0; left -= len(piece) {
			if _, err := w.Write(piece[:min(left, len(piece))]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *largeRecords) Restore(_ context.Context, native io.Reader) error {
	n, err := io.Copy(io.Discard, native)
	s.restored = int(n)
	return err
}

// peak is how much more heap than before f there was while it ran.
func peak(t *testing.T, f func()) int64 {
	t.Helper()
	defer debug.SetGCPercent(debug.SetGCPercent(10)) // what is garbage is not to count
	heap := func() int64 {
		var m goruntime.MemStats
		goruntime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	goruntime.GC()
	before := heap()
	var most atomic.Int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			most.Store(max(most.Load(), heap()))
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	f()
	close(stop)
	<-stopped
	return most.Load() - before
}

// TestMemoryFollowsTheLargestRecord: not the state, and not many of the largest.
func TestMemoryFollowsTheLargestRecord(t *testing.T) {
	if testing.Short() {
		t.Skip("saves and restores 160 MB")
	}
	folder, err := vfs.OS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	source := &largeRecords{records: 20, size: 8 << 20}
	large := func(_ *life, cfg *runtime.Config) { cfg.Services[0].Parts[0].Source = source }
	l := begin(t, folder, large)
	l.table.dirty.Mark()
	saving := peak(t, func() { l.save(t) })
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
	restoring := peak(t, func() { l = begin(t, folder, large) })
	if source.restored < source.records*source.size {
		t.Errorf("only %d bytes were restored", source.restored)
	}
	if err := l.end(t); err != nil {
		t.Fatal(err)
	}
	record := int64(source.size)
	t.Logf("records of %d MiB: saving takes %.1f of them, restoring %.1f", source.size>>20, float64(saving)/float64(record), float64(restoring)/float64(record))
	if saving > 11*record || restoring > 6*record {
		t.Errorf("saving took %d bytes, restoring %d, with records of %d", saving, restoring, record)
	}
}
