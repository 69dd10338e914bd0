package archive

import (
	"io"

	"github.com/klauspost/compress/flate"
)

// level is flate's: on states of JSON, 3 is a tenth slower for 2 % less, and 1 no faster (BenchmarkArchive).
const level = 2

// budget keeps an archive inside the ratio that Open allows. Zeros compress a thousandfold, and objects of zeros are
// common in tests: without it there would be exports that cannot be imported.
type budget struct {
	free, ratio int64 // more than free + ratio times what has been written may not have been compressed
	in, out     int64

	// For one stream after the other: they are a megabyte each.
	strong, weak *flate.Writer
}

// newBudget leaves room for what a compressor holds back.
func newBudget() *budget { return &budget{free: FreeBytes / 2, ratio: DefaultRatio} }

// within tells whether what is compressed may be compressed further.
func (b *budget) within() bool { return b.in <= b.free+b.ratio*b.out }

// squeezer is a deflate stream.
type squeezer struct {
	budget *budget
	w      io.Writer
	flate  *flate.Writer
	weak   bool // it replaces bytes by codes only, at most eight to one
}

// compressor is for zip.Writer.
func (b *budget) compressor(w io.Writer) (io.WriteCloser, error) {
	s := &squeezer{budget: b, w: w}
	err := s.begin()
	return s, err
}

// begin begins what is written from now on: what was before must have been flushed.
func (s *squeezer) begin() (err error) {
	b := s.budget
	use, at := &b.strong, level
	if s.weak = !b.within(); s.weak {
		use, at = &b.weak, flate.HuffmanOnly
	}
	if *use == nil {
		*use, err = flate.NewWriter(nil, at)
	}
	if s.flate = *use; err == nil {
		s.flate.Reset(counted{s.w, &b.out})
	}
	return err
}

func (s *squeezer) Write(p []byte) (int, error) {
	n, err := s.flate.Write(p)
	s.budget.in += int64(n)
	if err != nil || s.weak || s.budget.within() {
		return n, err
	}
	// A flushed stream ends at a byte, so that one of another kind may go on from there.
	if err := s.flate.Flush(); err != nil {
		return n, err
	}
	return n, s.begin()
}

func (s *squeezer) Close() error { return s.flate.Close() }

// counted adds up what is written.
type counted struct {
	w io.Writer
	n *int64
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	*c.n += int64(n)
	return n, err
}
