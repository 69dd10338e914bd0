package archive

import (
	"archive/zip"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// Info is what was written.
type Info struct {
	Size      int64    // bytes of the file
	States    int64    // bytes of the state files in it, uncompressed
	Records   uint64   // of all parts
	Services  []string // those that there is a part of, in order
	Modules   int      // serializer modules
	Encrypted bool
}

// WriteOptions say how a snapshot is written; zero fields mean the defaults.
type WriteOptions struct {
	Lock seal.Lock // who may read it; zero: anybody
	// Progress is told how many bytes of records of total have been written; may be nil.
	Progress func(done, total int64)
}

// Write writes the snapshot to w from the first byte to the last, and closes nothing. Of each part it writes one full
// save, its newest: nothing of older generations is in the file, or of records that have been deleted. The same
// snapshot gives the same bytes, unless they are encrypted.
//
// An error that wraps abi.ErrNotFound says that a part's serializer module does not come with the snapshot. Others are w's,
// ctx's, those of the snapshot's files, or of the lock (seal.ErrLock). What has been written before an error is no snapshot.
func Write(ctx context.Context, w io.Writer, s *snapshot.Snapshot, o WriteOptions) (Info, error) {
	info := Info{Services: s.Services(), Encrypted: !o.Lock.IsZero()}
	out := counted{until{ctx, w}, &info.Size}
	if !info.Encrypted {
		return info, writeZip(ctx, out, s, o, &info)
	}
	sealed, err := seal.Encrypt(out, o.Lock)
	if err != nil {
		return info, err
	}
	if err := writeZip(ctx, sealed, s, o, &info); err != nil {
		return info, err
	}
	return info, sealed.Close()
}

// until is a writer that ends with its context.
type until struct {
	ctx context.Context //nolint:containedctx // for as long as one call
	w   io.Writer
}

func (u until) Write(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.w.Write(p)
}

// writer writes one archive.
type writer struct {
	ctx         context.Context //nolint:containedctx // for as long as one call
	zip         *zip.Writer
	created     time.Time
	sums        []sum
	done, total int64
	progress    func(done, total int64)
}

func writeZip(ctx context.Context, out io.Writer, s *snapshot.Snapshot, o WriteOptions, info *Info) error {
	w := &writer{ctx: ctx, zip: zip.NewWriter(out), created: zipTime(s.Created), progress: o.Progress}
	w.zip.RegisterCompressor(zip.Deflate, newBudget().compressor)
	if w.progress == nil {
		w.progress = func(int64, int64) {}
	}
	for _, p := range s.Parts {
		w.total += int64(p.File.Info().Raw)
	}
	m := manifest{
		Format: format, Version: Version, Created: s.Created.UTC(), Torpor: s.Torpor,
		Name: s.Name, SnapshotVersion: s.Version, Description: s.Description,
		Parts: list[partEntry]{}, Modules: list[moduleEntry]{},
	}
	for _, p := range s.Parts {
		entry, err := w.part(p)
		if err != nil {
			return fmt.Errorf("export of %s: %w", p, err)
		}
		m.Parts = append(m.Parts, entry)
		info.States += entry.Size
		info.Records += entry.Records
	}
	for _, digest := range s.Modules() {
		entry, err := w.module(s, digest)
		if err != nil {
			return fmt.Errorf("export of serializer module %x: %w", digest, err)
		}
		m.Modules = append(m.Modules, entry)
		info.Modules++
	}
	text, err := m.encode()
	if err != nil {
		return err
	}
	if len(text) > DefaultManifestBytes {
		return fmt.Errorf("%s has %d bytes: %w; it may have %d: shorten the description", manifestName, len(text), abi.ErrTooLarge, DefaultManifestBytes)
	}
	if _, _, err := w.bytes(manifestName, text); err != nil {
		return err
	}
	if _, _, err := w.bytes(sumsName, encodeSums(w.sums)); err != nil {
		return err
	}
	w.progress(w.total, w.total)
	return w.zip.Close()
}

// zipTime is the time of the files in the archive, which has two seconds and the years from 1980; it ends where the
// seconds do not go into 32 bits any more.
func zipTime(t time.Time) time.Time {
	first, last := time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	if t = t.UTC().Truncate(2 * time.Second); t.Before(first) {
		return first
	} else if t.After(last) {
		return last
	}
	return t
}

// file adds a file; write gets what counts and hashes its content.
func (w *writer) file(path string, write func(io.Writer) error) (size int64, digest [sha256.Size]byte, err error) {
	h := &zip.FileHeader{Name: path, Method: zip.Deflate, Modified: w.created}
	h.SetMode(fs.FileMode(0o644))
	out, err := w.zip.CreateHeader(h)
	if err != nil {
		return 0, digest, err
	}
	hashing := sha256.New()
	buffered := bufio.NewWriterSize(counted{io.MultiWriter(hashing, out), &size}, 128<<10)
	if err := errors.Join(write(buffered), buffered.Flush()); err != nil {
		return 0, digest, err
	}
	hashing.Sum(digest[:0])
	w.sums = append(w.sums, sum{path, digest})
	return size, digest, nil
}

// bytes adds a file of that content.
func (w *writer) bytes(path string, content []byte) (int64, [sha256.Size]byte, error) {
	return w.file(path, func(out io.Writer) error {
		_, err := out.Write(content)
		return err
	})
}

// part adds the state of a part, written anew.
func (w *writer) part(p snapshot.Part) (partEntry, error) {
	h := p.File.Header()
	h.Compression = statefile.CompressionNone // the archive's own does for all
	var info statefile.Info
	size, digest, err := w.file(statePath(p.Service, p.Name), func(out io.Writer) error {
		state, err := statefile.NewWriter(out, h)
		if err != nil {
			return err
		}
		var batch record.Batch
		for records := p.File.Records(); ; {
			if err := records.ReadInto(&batch); err == io.EOF { //nolint:errorlint // a source's io.EOF is never wrapped
				break
			} else if err != nil {
				return err
			}
			if err := state.WriteBatch(&batch); err != nil {
				return err
			}
			// What deltas have replaced is in total and is not written, and the other way round is not known.
			w.done = min(w.done+int64(len(batch.Data)), w.total)
			w.progress(w.done, w.total)
			if err := w.ctx.Err(); err != nil {
				return err
			}
		}
		info, err = state.Close()
		return err
	})
	return describePart(h, info, size, digest), err
}

// module adds a serializer module.
func (w *writer) module(s *snapshot.Snapshot, digest [sha256.Size]byte) (moduleEntry, error) {
	wasm, err := s.Module(w.ctx, digest)
	if err != nil {
		return moduleEntry{}, err
	}
	if len(wasm) > DefaultModuleBytes {
		return moduleEntry{}, fmt.Errorf("it has %d bytes: %w; it may have %d", len(wasm), abi.ErrTooLarge, DefaultModuleBytes)
	}
	if got := sha256.Sum256(wasm); got != digest {
		return moduleEntry{}, fmt.Errorf("%w: the digest of what is there is %x", abi.ErrCorrupt, got)
	}
	name := hex.EncodeToString(digest[:])
	size, _, err := w.bytes(modulePath(name), wasm)
	return moduleEntry{Path: modulePath(name), Size: size, SHA256: name}, err
}
