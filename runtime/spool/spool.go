// Package spool keeps the bytes of a native state for as long as a capture needs them: in memory up to
// a bound, beyond it in a file that has no name, so that nothing is left behind whatever becomes of the
// process.
//
// Sources use it on both ways. A capture must stay what it was while the service goes on, so what the
// service gives is spooled; and a service must never be given half a state, so what is restored is
// spooled to its end before the service sees the first byte.
package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// Defaults and bounds of [Config].
const (
	MinMemory     = 1
	DefaultMemory = 8 << 20
	MaxMemory     = 1 << 30

	MinBytes     = 1
	DefaultBytes = 64 << 30
	MaxBytes     = 1 << 42
)

// Config says where bytes are kept, and how many. Zero fields mean the defaults.
type Config struct {
	Folder string // for what is too much for memory; "" is the system's folder for temporary files
	Memory int    // bytes kept in memory
	Bytes  int64  // bytes kept at all: more is abi.ErrTooLarge
}

// Check fills in the defaults; the error names the field that is out of bounds.
func (c Config) Check() (Config, error) {
	if c.Memory == 0 {
		c.Memory = DefaultMemory
	}
	if c.Bytes == 0 {
		c.Bytes = DefaultBytes
	}
	if c.Memory < MinMemory || c.Memory > MaxMemory {
		return c, fmt.Errorf("spool: Memory is %d bytes; it may be %d to %d", c.Memory, MinMemory, MaxMemory)
	}
	if c.Bytes < MinBytes || c.Bytes > MaxBytes {
		return c, fmt.Errorf("spool: Bytes is %d; it may be %d to %d", c.Bytes, MinBytes, MaxBytes)
	}
	return c, nil
}

// Fill keeps what write writes. The error is write's, abi.ErrTooLarge where it wrote more than
// Config.Bytes, ctx's once ctx is done, or the file system's; then nothing is kept.
func (c Config) Fill(ctx context.Context, write func(io.Writer) error) (*Spool, error) {
	c, err := c.Check()
	if err != nil {
		return nil, err
	}
	w := &writer{ctx: ctx, config: c, s: &Spool{holders: 1}}
	err = write(w)
	if err == nil {
		err = errors.Join(w.failed, ctx.Err())
	}
	if err != nil {
		return nil, errors.Join(err, w.s.Close())
	}
	return w.s, nil
}

// writer fills a spool.
type writer struct {
	ctx    context.Context //nolint:containedctx // for as long as Fill
	config Config
	s      *Spool
	failed error // stays, in case the caller makes nothing of it
}

func (w *writer) Write(p []byte) (int, error) {
	if w.failed == nil {
		w.failed = w.write(p)
	}
	if w.failed != nil {
		return 0, w.failed
	}
	return len(p), nil
}

func (w *writer) write(p []byte) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	s := w.s
	if int64(len(p)) > w.config.Bytes-s.size {
		return fmt.Errorf("a native state of more than %d bytes: %w", w.config.Bytes, abi.ErrTooLarge)
	}
	if s.file == nil && len(s.memory)+len(p) > w.config.Memory {
		if err := s.toFile(w.config.Folder); err != nil {
			return err
		}
	}
	if s.file == nil {
		s.memory = append(s.memory, p...)
	} else if _, err := s.file.Write(p); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	s.size += int64(len(p))
	return nil
}

// Spool is bytes that have been kept. It is a runtime.Capture. All methods are safe for concurrent use.
type Spool struct {
	size   int64
	memory []byte
	file   *vfs.ScratchFile // nil: all is in memory

	mu      sync.Mutex
	holders int
}

// toFile moves what is in memory to a file.
func (s *Spool) toFile(folder string) error {
	file, err := vfs.Scratch(folder)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	s.file = file
	if _, err := file.Write(s.memory); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	s.memory = nil
	return nil
}

// Size is how many bytes are kept.
func (s *Spool) Size() int64 { return s.size }

// Reader reads the bytes from the beginning; each reader reads for itself. It is good until Close.
func (s *Spool) Reader() *io.SectionReader {
	if s.file == nil {
		return io.NewSectionReader(bytes.NewReader(s.memory), 0, s.size)
	}
	return io.NewSectionReader(s.file, 0, s.size)
}

// WriteNative writes the bytes to w; see runtime.Capture.
func (s *Spool) WriteNative(ctx context.Context, w io.Writer) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n, err := io.Copy(w, &cancelled{ctx, s.Reader()})
	if err == nil && n != s.size {
		err = fmt.Errorf("spool: %d of %d bytes are there: %w", n, s.size, io.ErrUnexpectedEOF)
	}
	return err
}

// cancelled is a reader that ends with its context.
type cancelled struct {
	ctx context.Context //nolint:containedctx // for as long as one copy
	r   io.Reader
}

func (c *cancelled) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// Hold makes one more Close necessary, and gives the spool: for another that uses it.
func (s *Spool) Hold() *Spool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holders++
	return s
}

// Close gives the bytes back when all who hold the spool have closed it.
func (s *Spool) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holders--
	if s.holders > 0 || s.file == nil {
		return nil
	}
	file := s.file
	s.file = nil
	err := file.Close()
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}
