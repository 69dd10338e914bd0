package vfs

import (
	"errors"
	"fmt"
	"os"
	"runtime"
)

// ScratchFile is a file that lasts as long as it is open. It is safe for concurrent use as far as os.File is.
type ScratchFile struct {
	*os.File
	named string // to be removed at Close; "" where it has no name
}

// Scratch makes an empty one, to be written and read, in a folder of the operating system; "" is the system's for
// temporary files. Where an open file can lose its name it has none, so that a crash leaves nothing behind.
func Scratch(folder string) (*ScratchFile, error) {
	f, err := os.CreateTemp(folder, "torpor-")
	if err != nil {
		return nil, fmt.Errorf("temporary file: %w", err)
	}
	s := &ScratchFile{File: f, named: f.Name()}
	if runtime.GOOS != "windows" {
		if err := os.Remove(s.named); err != nil {
			return nil, errors.Join(fmt.Errorf("temporary file: %w", err), s.File.Close())
		}
		s.named = ""
	}
	return s, nil
}

// Close closes the file, and with it what was written is gone.
func (s *ScratchFile) Close() error {
	err := s.File.Close()
	if s.named != "" {
		err = errors.Join(err, os.Remove(s.named))
		s.named = ""
	}
	return err
}
