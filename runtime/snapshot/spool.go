package snapshot

import (
	"bufio"
	"fmt"

	"github.com/torpor-run/torpor/runtime/vfs"
)

const (
	// spoolMemory is how much of what is spooled may stay in memory.
	spoolMemory = 4 << 20
	// Windows of what is read from a file at once: where reads follow one another, and where they do not.
	readAhead = 256 << 10
	readNear  = 4 << 10
)

// spool is bytes that are written once, and then read at any place: in memory, or in a temporary file where they are many.
// The zero value is ready. It is not safe for concurrent use.
type spool struct {
	folder string
	size   int64
	memory []byte
	file   *vfs.ScratchFile
	out    *bufio.Writer

	window []byte // of the file, from start on
	start  int64
	next   int64 // where the last read ended
}

func (s *spool) write(b []byte) error {
	s.size += int64(len(b))
	if s.file == nil {
		if len(s.memory)+len(b) <= spoolMemory {
			s.memory = append(s.memory, b...)
			return nil
		}
		file, err := vfs.Scratch(s.folder)
		if err != nil {
			return fmt.Errorf("temporary file of a merge: %w", err)
		}
		s.file, s.out = file, bufio.NewWriterSize(file, readAhead)
		memory := s.memory
		s.memory = nil
		if _, err := s.out.Write(memory); err != nil {
			return fmt.Errorf("temporary file of a merge: %w", err)
		}
	}
	if _, err := s.out.Write(b); err != nil {
		return fmt.Errorf("temporary file of a merge: %w", err)
	}
	return nil
}

// flush must be called between the last write and the first read.
func (s *spool) flush() error {
	if s.out == nil {
		return nil
	}
	err := s.out.Flush()
	s.out = nil
	if err != nil {
		return fmt.Errorf("temporary file of a merge: %w", err)
	}
	return nil
}

// read gives n bytes at an offset. They are valid until the next read.
func (s *spool) read(offset uint64, n int) ([]byte, error) {
	if s.file == nil {
		return s.memory[offset : offset+uint64(n)], nil
	}
	at := int64(offset)
	if at < s.start || at+int64(n) > s.start+int64(len(s.window)) {
		ahead := readNear
		if at == s.next {
			ahead = readAhead
		}
		want := int(min(int64(max(n, ahead)), s.size-at))
		if cap(s.window) < want {
			s.window = make([]byte, want)
		}
		s.window, s.start = s.window[:want], at
		if _, err := s.file.ReadAt(s.window, at); err != nil {
			s.window = s.window[:0]
			return nil, fmt.Errorf("temporary file of a merge: %w", err)
		}
	}
	s.next = at + int64(n)
	return s.window[at-s.start:][:n], nil
}

// close gives the file back.
func (s *spool) close() {
	if s.file != nil {
		_ = s.file.Close() // read only
		s.file = nil
	}
}
