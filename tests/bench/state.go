package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand"
	"os"
	goruntime "runtime"
	"strings"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/runtime/vfs"
)

const smallState = 10_000_000 // bytes

// benchState measures states on disk, in files and through the runtime: time beside reading the same
// file and hashing it, and memory.
func benchState(ctx context.Context, out *strings.Builder, rounds, largeRounds int, large int64) error {
	if err := benchFiles(out, rounds, newSynthetic(smallState)); err != nil {
		return err
	}
	fmt.Fprintln(out)
	if err := benchFiles(out, largeRounds, newSynthetic(large)); err != nil {
		return err
	}
	if err := benchShare(ctx, out, rounds, newSynthetic(smallState)); err != nil {
		return err
	}
	if err := benchMemory(ctx, out, newSynthetic(large)); err != nil {
		return err
	}
	return benchDelta(ctx, out, rounds, newSynthetic(large))
}

// inFolder calls f with a folder that is removed afterwards.
func inFolder(f func(folder string) error) error {
	folder, err := os.MkdirTemp("", "torpor-bench-")
	if err != nil {
		return err
	}
	return errors.Join(f(folder), os.RemoveAll(folder))
}

// stopwatch adds up the time between start and stop.
type stopwatch struct {
	took  time.Duration
	since time.Time
}

func (s *stopwatch) start() { s.since = time.Now() }
func (s *stopwatch) stop()  { s.took += time.Since(s.since) }

// contenders of benchFiles.
const (
	readAndHash = iota
	encodeOnly
	encodeToDisk
	decodeAll
	verifyAll
	decodeOne
	contenders
)

func contenderNames() [contenders]string {
	return [contenders]string{"read the file and hash it (SHA-256)", "encode, kept nowhere", "encode, committed to disk",
		"decode all records", "verify", "decode one partition of ten"}
}

// benchFiles measures package statefile with a state, without compression and with.
func benchFiles(out *strings.Builder, rounds int, state synthetic) error {
	var took [2][contenders]times
	var info [2]statefile.Info
	var part statefile.Partition
	for i, compression := range []string{statefile.CompressionNone, statefile.CompressionZstd} {
		err := inFolder(func(folder string) error {
			for range rounds {
				r, err := roundOfFiles(folder, compression, state)
				if err != nil {
					return err
				}
				for c := range took[i] {
					took[i][c] = append(took[i][c], r.took[c])
				}
				info[i], part = r.info, r.part
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "## A state file of %.0f MB\n\n%d records in %d partitions; %.1f MB without compression, %.1f MB with zstd. MB/s are of records, uncompressed. "+
		"The ratios are to the time for reading the same file, which is in the page cache, and hashing it.\n\n",
		float64(info[0].Raw)/1e6, info[0].Records, partitions, float64(info[0].Size)/1e6, float64(info[1].Size)/1e6)
	fmt.Fprintf(out, "| | none | MB/s | ratio | zstd | MB/s | ratio |\n|---|---|---|---|---|---|---|\n")
	for c, name := range contenderNames() {
		fmt.Fprintf(out, "| %s |", name)
		bytes := info[0].Raw
		if c == decodeOne {
			bytes = part.Raw
		}
		for i := range took {
			d := took[i][c].median()
			fmt.Fprintf(out, " %s | %.0f | %s |", ms(d), float64(bytes)/1e6/d.Seconds(), share(d, took[i][readAndHash].median()))
		}
		fmt.Fprintln(out)
	}
	return nil
}

// share is how many times what it is a share of something takes.
func share(own, of time.Duration) string { return fmt.Sprintf("%.2f ×", float64(own)/float64(of)) }

type filesRound struct {
	took [contenders]time.Duration
	info statefile.Info
	part statefile.Partition // the one read alone
}

// roundOfFiles measures each contender once.
func roundOfFiles(folder, compression string, state synthetic) (filesRound, error) {
	var r filesRound
	var err error
	if r.took[encodeOnly], _, err = encodeTo(io.Discard, compression, 1, state); err != nil {
		return r, err
	}
	path, err := r.commit(folder, compression, state)
	if err != nil {
		return r, err
	}
	if r.took[readAndHash], err = readAndHashFile(path); err != nil {
		return r, err
	}
	for _, c := range []struct {
		which int
		read  func(f *statefile.File) error
	}{
		{decodeAll, func(f *statefile.File) error { return count(f.Records(), r.info.Records) }},
		{verifyAll, func(f *statefile.File) error { return f.Verify(context.Background()) }},
		{decodeOne, func(f *statefile.File) error {
			r.part = f.Partitions()[partitions/2]
			return count(f.Records(r.part.Name), r.part.Records)
		}},
	} {
		goruntime.GC()
		start := time.Now()
		if err := withStateFile(path, c.read); err != nil {
			return r, err
		}
		r.took[c.which] = time.Since(start)
	}
	return r, nil
}

// encodeTo writes a state file; making the records is not part of the time.
func encodeTo(w io.Writer, compression string, generation uint64, state synthetic) (time.Duration, statefile.Info, error) {
	goruntime.GC()
	var s stopwatch
	s.start()
	file, err := statefile.NewWriter(w, statefile.Header{Service: service, Part: "store", Generation: generation, Created: time.Now(),
		Serializer: statefile.Serializer{Name: "records", Version: "1.0.0", Schema: 1}, Compression: compression})
	s.stop()
	if err != nil {
		return 0, statefile.Info{}, err
	}
	var scan record.Scanner
	var batch record.Batch
	err = state.pieces(func(piece []byte) error {
		var err error
		batch.Data = piece
		if batch.Refs, err = scan.Scan(piece, batch.Refs[:0]); err != nil {
			return err
		}
		s.start()
		defer s.stop()
		return file.WriteBatch(&batch)
	})
	if err != nil {
		return 0, statefile.Info{}, err
	}
	s.start()
	info, err := file.Close()
	s.stop()
	return s.took, info, err
}

// commit measures encodeToDisk and gives the file's path.
func (r *filesRound) commit(folder, compression string, state synthetic) (path string, err error) {
	fsys, err := vfs.OS(folder)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, fsys.Close()) }()
	dir, err := statedir.Open(fsys, statedir.Options{Logger: slog.New(slog.DiscardHandler), Keep: 1})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	start := time.Now()
	pending, err := dir.Begin(service, "store")
	if err != nil {
		return "", err
	}
	defer pending.Abort()
	begun := time.Since(start)
	encoded, info, err := encodeTo(pending, compression, pending.Generation(), state)
	if err != nil {
		return "", err
	}
	start = time.Now()
	if err := pending.Commit(); err != nil {
		return "", err
	}
	r.took[encodeToDisk], r.info = begun+encoded+time.Since(start), info
	return stateFile(folder), nil
}

func readAndHashFile(path string) (time.Duration, error) {
	buf := make([]byte, 256<<10)
	goruntime.GC()
	start := time.Now()
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	sum := sha256.New()
	for {
		n, err := f.Read(buf)
		sum.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			sum.Sum(nil)
			return time.Since(start), nil
		}
		if err != nil {
			return 0, err
		}
	}
}

func withStateFile(path string, read func(*statefile.File) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	about, err := f.Stat()
	if err != nil {
		return err
	}
	file, err := statefile.Open(f, about.Size(), path)
	if err != nil {
		return err
	}
	return read(file)
}

// count reads all records of a source, which must be so many.
func count(records record.Source, want uint64) error {
	n := uint64(0)
	for {
		b, err := records.ReadBatch()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		n += uint64(b.Len())
	}
	if n != want {
		return fmt.Errorf("%d records read, %d written", n, want)
	}
	return nil
}

// benchShare measures what the runtime takes of a restore: the service only throws away what it is
// given.
func benchShare(ctx context.Context, out *strings.Builder, rounds int, state synthetic) error {
	return inFolder(func(folder string) (err error) {
		src := &source{now: state}
		l, err := startLife(ctx, folder, service, src, &src.dirty)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, l.close()) }()
		if err := l.Save(ctx); err != nil {
			return err
		}
		if src.want, err = state.digest(); err != nil {
			return err
		}
		if err := l.load(ctx); err != nil { // warm, and right
			return err
		}
		src.want = nil
		var hashed, restored, read, decode, deliver times
		for range rounds {
			d, err := readAndHashFile(stateFile(folder))
			if err != nil {
				return err
			}
			goruntime.GC()
			if err := l.load(ctx); err != nil {
				return err
			}
			e := l.seen.restore
			hashed, restored = append(hashed, d), append(restored, e.Total)
			read, decode, deliver = append(read, e.Read), append(decode, e.Decode), append(deliver, e.Deliver)
		}
		fmt.Fprintf(out, "\n## The runtime's share of a restore, %.0f MB, warm\n\n", float64(l.seen.restore.Bytes)/1e6)
		fmt.Fprintf(out, "| | median (best) | ratio of medians | goal |\n|---|---|---|---|\n")
		fmt.Fprintf(out, "| read the file and hash it (SHA-256) | %s (%s) | | |\n", ms(hashed.median()), ms(hashed.best()))
		fmt.Fprintf(out, "| restore through the runtime, serializer `records`, into nothing | %s (%s) | %s | ≤ 3 × |\n\n",
			ms(restored.median()), ms(restored.best()), share(restored.median(), hashed.median()))
		fmt.Fprintf(out, "By phase, overlapping: read %s, decode %s, deliver %s.\n", ms(read.median()), ms(decode.median()), ms(deliver.median()))
		return nil
	})
}

// load restores what must be there.
func (l *life) load(ctx context.Context) error {
	found, err := l.Load(ctx)
	if err == nil && !found {
		err = fmt.Errorf("restore: %w", abi.ErrNotFound)
	}
	return err
}

// benchMemory measures the memory for a save and a restore of a state.
func benchMemory(ctx context.Context, out *strings.Builder, state synthetic) error {
	saved, restored, err := measureMemory(ctx, state)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\n## Memory for a state of %.0f MB\n\n", float64(saved.bytes)/1e6)
	fmt.Fprintf(out, "Through the runtime with the serializer `records`, saved with the full proof, compared by digest when restored. "+
		"The highest of looks taken every %v, above idle; the heap has the guests' linear memory in it.\n\n", samplePause)
	fmt.Fprintf(out, "| | time | Go heap | Go heap and all else that Go has mapped | resident | of it guests' linear memory | goal |\n|---|---|---|---|---|---|---|\n")
	for _, m := range []struct {
		name string
		through
	}{{"save", saved}, {"restore", restored}} {
		fmt.Fprintf(out, "| %s | %.1f s (%.0f MB/s) | %s | %s | %s | %s | ≤ 64 MiB |\n", m.name, m.took.Seconds(), float64(m.bytes)/1e6/m.took.Seconds(),
			mib(m.heap), mib(m.mapped), mib(m.rss), mib(m.guest))
	}
	return nil
}

func mib(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }

// measureMemory saves a state with the full proof and restores it in another life of the runtime, where
// it must be what was saved.
func measureMemory(ctx context.Context, state synthetic) (saved, restored through, err error) {
	err = inFolder(func(folder string) error {
		live := func(src *source, f func(*life) error) (t through, err error) {
			l, err := startLife(ctx, folder, service, src, &src.dirty)
			if err != nil {
				return t, err
			}
			defer func() { err = errors.Join(err, l.close()) }()
			clear(l.seen.guest) // compiling has called it
			t.memory, err = peakOf(func() error {
				start := time.Now()
				defer func() { t.took = time.Since(start) }()
				return f(l)
			})
			for _, bytes := range l.seen.guest {
				t.guest += bytes
			}
			return t, err
		}
		if saved, err = live(&source{now: state}, func(l *life) error { return l.Save(ctx) }); err != nil {
			return err
		}
		want, err := state.digest()
		if err != nil {
			return err
		}
		restored, err = live(&source{now: state, want: want}, func(l *life) error { return l.load(ctx) })
		if err != nil {
			return err
		}
		return withStateFile(stateFile(folder), func(f *statefile.File) error {
			saved.bytes, restored.bytes = int64(f.Info().Raw), int64(f.Info().Raw)
			return nil
		})
	})
	return saved, restored, err
}

// benchDelta measures saves after one record of a state has changed.
func benchDelta(ctx context.Context, out *strings.Builder, rounds int, state synthetic) error {
	d, err := measureDelta(ctx, rounds, state)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\n## One record changed in a state of %.0f MB\n\n", float64(d.bytes)/1e6)
	fmt.Fprintf(out, "Through the runtime with the serializer `records` and the full proof, committed to disk; %d saves, before each of which one other record is changed. "+
		"At the end, and after a restart, what is restored is compared by digest.\n\n", rounds)
	fmt.Fprintf(out, "| | median | worst | goal |\n|---|---|---|---|\n")
	fmt.Fprintf(out, "| save | %s | %s | ≤ 50 ms |\n", ms(d.saves.median()), ms(d.saves.worst()))
	fmt.Fprintf(out, "| bytes written | | %.1f kB | ≤ 1000 kB |\n", float64(d.written)/1e3)
	fmt.Fprintf(out, "| the first such save after a restart | | %s, %.1f kB | |\n", ms(d.restarted), float64(d.restartedWritten)/1e3)
	fmt.Fprintf(out, "| the full save before | | %s, %.1f MB | |\n", ms(d.full), float64(d.fullWritten)/1e6)
	return nil
}

// deltas is what measureDelta has found; bytes written are what the state file has grown by, or its
// size where it is another file.
type deltas struct {
	bytes            int64 // of records in the file, changed ones counted each time
	full             time.Duration
	fullWritten      int64
	saves            times
	written          int64 // the most that one save has
	restarted        time.Duration
	restartedWritten int64
}

// measureDelta saves a state in full, then one changed record at a time, restores it in another life of
// the runtime, and saves one more there.
func measureDelta(ctx context.Context, rounds int, state synthetic) (d deltas, err error) {
	r := rand.New(rand.NewSource(1))
	err = inFolder(func(folder string) error {
		live := func(src *source, f func(*life) error) (err error) {
			l, err := startLife(ctx, folder, service, src, &src.dirty)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, l.close()) }()
			return f(l)
		}
		save := func(src *source, l *life) (took time.Duration, written int64, err error) {
			src.edit(r.Intn(state.records))
			before, err := os.Stat(stateFile(folder))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return 0, 0, err
			}
			goruntime.GC()
			start := time.Now()
			if err := l.Save(ctx); err != nil {
				return 0, 0, err
			}
			took = time.Since(start)
			after, err := os.Stat(stateFile(folder))
			if err != nil {
				return 0, 0, err
			}
			written = after.Size()
			if before != nil && os.SameFile(before, after) {
				written -= before.Size()
			}
			return took, written, nil
		}
		// load holds what lies there now, deltas and all, against the state as it is.
		load := func(src *source, l *life) (err error) {
			if src.want, err = src.now.digest(); err != nil {
				return err
			}
			return l.load(ctx)
		}
		first := &source{now: state}
		err := live(first, func(l *life) (err error) {
			if d.full, d.fullWritten, err = save(first, l); err != nil {
				return err
			}
			for range rounds {
				took, written, err := save(first, l)
				if err != nil {
					return err
				}
				d.saves, d.written = append(d.saves, took), max(d.written, written)
			}
			return load(first, l)
		})
		if err != nil {
			return err
		}
		second := &source{now: first.now.clone()}
		return live(second, func(l *life) (err error) {
			if err := load(second, l); err != nil {
				return err
			}
			if d.restarted, d.restartedWritten, err = save(second, l); err != nil {
				return err
			}
			d.bytes = int64(l.seen.save.Bytes)
			return load(second, l)
		})
	})
	return d, err
}
