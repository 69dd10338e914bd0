package examples_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi"
)

// TestSoak pushes half a gigabyte through a Go guest, out as records and back as they are: the guest's
// memory and the host's stay as small as after the first megabytes, and what comes back is what went in.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("half a gigabyte takes its time")
	}
	const size, most = 500_000_000, 64 << 20 // the most: of guest memory
	m, c := compile(t, "settings", t.Output())
	through := func(size int) (heap uint64) {
		t.Helper()
		in := &settingsFile{size: size, sum: sha256.New()}
		records := make(batches, 4)
		saved := make(chan error, 1)
		start := time.Now()
		go func() {
			defer close(records)
			saved <- m.Save(t.Context(), call, in, records)
		}()
		out := &watchedHash{Hash: sha256.New()}
		if err := m.Load(t.Context(), call, records, out); err != nil {
			t.Error(err)
			for range records { // so that save comes to its end
			}
		}
		if err := <-saved; err != nil {
			t.Fatal(err)
		}
		if out.n != in.n || !bytes.Equal(out.Sum(nil), in.sum.Sum(nil)) {
			t.Errorf("load gave back %d bytes, other ones than the %d that save was given", out.n, in.n)
		}
		for _, op := range []string{abi.OpSave, abi.OpLoad} {
			memory := c.Of(op).Memory
			t.Logf("%s of %d MB: %.1f MB of guest memory", op, in.n/1_000_000, float64(memory)/1e6)
			if memory == 0 || memory > most {
				t.Errorf("%d bytes of guest memory; want at most %d", memory, most)
			}
		}
		t.Logf("there and back in %.1f s, the host's heap at most %.1f MB", time.Since(start).Seconds(), float64(out.heap)/1e6)
		return out.heap
	}
	through(5_000_000) // the control
	little := c.Of(abi.OpSave).Memory + c.Of(abi.OpLoad).Memory
	heap := through(size)
	if much := c.Of(abi.OpSave).Memory + c.Of(abi.OpLoad).Memory; much > 2*little {
		t.Errorf("%d bytes of guest memory for 500 MB, %d for 5", much, little)
	}
	if heap > most {
		t.Errorf("%d bytes of the host's heap", heap)
	}
	through(5_000_000) // in the instances that are left, whose memory is as it was
	if again := c.Of(abi.OpSave).Memory + c.Of(abi.OpLoad).Memory; again > 2*little {
		t.Errorf("%d bytes of guest memory after 500 MB, %d before", again, little)
	}
}

// watchedHash is a digest that looks at the heap at each 16 MB.
type watchedHash struct {
	hash.Hash
	n, looked int64
	heap      uint64 // the most in use
}

func (w *watchedHash) Write(p []byte) (int, error) {
	if w.n += int64(len(p)); w.n-w.looked > 16<<20 {
		w.looked = w.n
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		w.heap = max(w.heap, s.HeapAlloc)
	}
	return w.Hash.Write(p)
}

// settingsFile is a file of settings, made while it is read: names in ascending order, values of nothing
// to 60,000 bytes.
type settingsFile struct {
	size    int // it ends at the first line behind so many bytes
	n       int64
	lines   int
	line    []byte
	pending []byte
	sum     hash.Hash // of what was read
}

const settingText = "Grüße aus 京都, with = in it: the quick brown fox jumps over the lazy dog; "

func (s *settingsFile) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) && (len(s.pending) > 0 || s.n+int64(n) < int64(s.size)) {
		if len(s.pending) == 0 {
			s.lines++
			s.line = fmt.Appendf(s.line[:0], "service/%010d/name=", s.lines)
			repeat := s.lines * 7919 % 13
			if s.lines%4001 == 0 {
				repeat = 60_000 / len(settingText)
			}
			for range repeat {
				s.line = append(s.line, settingText...)
			}
			s.line = append(s.line, '\n')
			s.pending = s.line
		}
		k := copy(p[n:], s.pending)
		s.pending = s.pending[k:]
		n += k
	}
	s.sum.Write(p[:n])
	s.n += int64(n)
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}
