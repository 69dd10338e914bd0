package archive

import (
	"archive/zip"
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/klauspost/compress/flate"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
	"github.com/torpor-run/torpor/runtime/spool"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// OpenOptions say how a snapshot is opened; zero fields mean the defaults.
type OpenOptions struct {
	Key    seal.Key // for a file that is encrypted; not used for one that is not
	Limits Limits
	Folder string // for temporary files, which have no names; "": the system's folder for them
	// Progress is told how many bytes of total, those of states and modules, have been checked; may be nil.
	Progress func(done, total int64)
}

// Open opens the snapshot that r holds in size bytes, once all of it has been checked: nothing of what it gives is
// damaged. It keeps nothing of r: states and modules are copied to a temporary file that has no name, so that it is gone
// after Close, or a crash. FORMAT.md, "What a reader checks", lists the checks.
//
// Errors wrap abi.ErrCorrupt (damaged, or no snapshot at all), abi.ErrVersion (of a newer Torpor, or a pod of
// LocalStack), abi.ErrTooLarge (a limit was passed), seal.ErrKey (encrypted, and the key is missing or wrong), or are
// r's, the file system's or ctx's. Those of a file that is no zip archive contain "not a valid zip archive", which
// LocalStack's clients look for.
func Open(ctx context.Context, r io.ReaderAt, size int64, o OpenOptions) (*snapshot.Snapshot, error) {
	limits, err := o.Limits.Check()
	if err != nil {
		return nil, err
	}
	if size > limits.FileBytes {
		return nil, fmt.Errorf("a snapshot file of %d bytes: %w; it may have %d", size, abi.ErrTooLarge, limits.FileBytes)
	}
	head := make([]byte, min(size, int64(seal.HeadBytes)))
	if n, err := r.ReadAt(head, 0); n < len(head) {
		return nil, fmt.Errorf("snapshot file: %w", err)
	}
	if seal.Sealed(head) {
		plain, n, done, err := unseal(ctx, r, size, seal.Armored(head), limits, o)
		if err != nil {
			return nil, fmt.Errorf("snapshot file: %w", err)
		}
		defer done()
		r, size = plain, n
	}
	in := &opener{ctx: ctx, limits: limits, folder: o.Folder, progress: o.Progress}
	if in.progress == nil {
		in.progress = func(int64, int64) {}
	}
	s, err := in.open(r, size)
	if err != nil {
		return nil, fmt.Errorf("snapshot file: %w", err)
	}
	return s, nil
}

// unseal gives the archive in an age file.
func unseal(ctx context.Context, r io.ReaderAt, size int64, armored bool, limits Limits, o OpenOptions) (_ io.ReaderAt, n int64, done func(), err error) {
	if !armored {
		r, n, err := seal.DecryptAt(r, size, o.Key)
		return r, n, func() {}, err
	}
	plain, err := spool.Config{Folder: o.Folder, Memory: spoolMemory, Bytes: limits.FileBytes}.Fill(ctx, func(w io.Writer) error {
		in, err := seal.Decrypt(io.NewSectionReader(r, 0, size), o.Key)
		if err != nil {
			return err
		}
		_, err = io.Copy(w, in)
		return err
	})
	if err != nil {
		return nil, 0, nil, err
	}
	return plain.Reader(), plain.Size(), func() { _ = plain.Close() }, nil
}

// spoolMemory is how much of a spool is kept in memory.
const spoolMemory = 1 << 20

// opener opens one archive.
type opener struct {
	ctx      context.Context //nolint:containedctx // for as long as one call
	limits   Limits
	folder   string
	progress func(done, total int64)

	files       map[string]*zip.File
	sums        map[string][sha256.Size]byte
	done, total int64
}

func (o *opener) open(r io.ReaderAt, size int64) (*snapshot.Snapshot, error) {
	if err := o.directory(r, size); err != nil {
		return nil, err
	}
	m, err := o.manifest()
	if err != nil {
		return nil, err
	}
	if err := o.match(m); err != nil {
		return nil, err
	}

	// All into one file: a snapshot may have more parts than a process may have files open.
	places := make([]int64, 0, len(m.Parts)+len(m.Modules)+1)
	all, err := spool.Config{Folder: o.folder, Memory: spoolMemory, Bytes: o.limits.TotalBytes}.Fill(o.ctx, func(w io.Writer) error {
		var n int64
		w = counted{w, &n}
		for _, p := range m.Parts {
			places = append(places, n)
			if err := o.copy(w, p.Path, p.Size, p.SHA256, 2); err != nil {
				return err
			}
		}
		for _, c := range m.Modules {
			places = append(places, n)
			if err := o.copy(w, c.Path, c.Size, c.SHA256, 1); err != nil {
				return err
			}
		}
		places = append(places, n)
		return nil
	})
	if err != nil {
		return nil, err
	}
	s, err := o.snapshot(m, all.Reader(), places, all.Close)
	if err != nil {
		return nil, errors.Join(err, all.Close())
	}
	o.progress(o.total, o.total)
	return s, nil
}

// directory reads which files there are, and checks what can be told by that.
func (o *opener) directory(r io.ReaderAt, size int64) error {
	if err := o.checkEnd(r, size); err != nil {
		return err
	}
	z, err := zip.NewReader(r, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // which checkName tells more of
		return damage(notZip, err)
	}
	z.RegisterDecompressor(zip.Deflate, func(r io.Reader) io.ReadCloser {
		return flate.NewReader(bufio.NewReaderSize(r, 128<<10))
	})
	if int64(len(z.File)) > o.limits.Entries {
		return fmt.Errorf("there are %d files in it: %w; there may be %d", len(z.File), abi.ErrTooLarge, o.limits.Entries)
	}
	o.files = make(map[string]*zip.File, len(z.File))
	folded := make(map[string]string, len(z.File))
	var packed, unpacked uint64
	for _, f := range z.File {
		if err := checkName(f.Name); err != nil {
			return err
		}
		if same, ok := folded[strings.ToLower(f.Name)]; ok {
			return fmt.Errorf("%w: %q and %q are in it, which are one file where cases are not told apart", abi.ErrCorrupt, same, f.Name)
		}
		folded[strings.ToLower(f.Name)], o.files[f.Name] = f.Name, f
		switch {
		case !f.Mode().IsRegular():
			return fmt.Errorf("%w: %q is a link, a folder, or another thing than a file", abi.ErrCorrupt, f.Name)
		case f.Flags&1 != 0:
			return fmt.Errorf("%w: %q is encrypted as a zip archive has it; a snapshot is encrypted with age", abi.ErrCorrupt, f.Name)
		case f.Method != zip.Store && f.Method != zip.Deflate:
			return fmt.Errorf("%w: %q is compressed in a way (%d) that a snapshot has not", abi.ErrCorrupt, f.Name, f.Method)
		}
		// They may say what they want: the sums of what is no more than the file, or the limit, cannot overflow.
		if f.CompressedSize64 > uint64(size)-packed {
			return fmt.Errorf("%w: the files in it have more bytes than it has itself", abi.ErrCorrupt)
		}
		if f.UncompressedSize64 > uint64(o.limits.TotalBytes)-unpacked {
			return fmt.Errorf("the files in it have more than %d bytes, uncompressed: %w", o.limits.TotalBytes, abi.ErrTooLarge)
		}
		packed += f.CompressedSize64
		unpacked += f.UncompressedSize64
	}
	if most := FreeBytes + o.limits.Ratio*size; unpacked > uint64(most) {
		return fmt.Errorf("the files in it have %d bytes, uncompressed, and it has %d: %w; they may have %d, which is %d to 1 beyond %d",
			unpacked, size, abi.ErrTooLarge, most, o.limits.Ratio, FreeBytes)
	}
	return o.recognise()
}

const notZip = "not a valid zip archive"

// The end of a zip archive, APPNOTE.TXT 4.3.14 to 4.3.16.
const (
	endBytes       = 22
	end64Bytes     = 56
	locator64Bytes = 20
	// directoryBytes is what a file's entry in the directory may have: 46, its name, and what others than this package add.
	directoryBytes = 512
)

// checkEnd checks how many files the end of the archive says that there are, which package zip allocates by. It wants
// the end where this package writes it, with nothing behind it, and finds it where package zip does.
func (o *opener) checkEnd(r io.ReaderAt, size int64) error {
	tail := make([]byte, min(size, endBytes+locator64Bytes))
	if n, err := r.ReadAt(tail, size-int64(len(tail))); n < len(tail) {
		return damage(notZip, err)
	}
	before := len(tail) - endBytes
	if before < 0 || string(tail[before:before+4]) != "PK\x05\x06" || string(tail[before+20:]) != "\x00\x00" {
		return fmt.Errorf("%s: %w: it does not end as one: it is cut off, or something else", notZip, abi.ErrCorrupt)
	}
	end := tail[before:]
	records := uint64(binary.LittleEndian.Uint16(end[10:]))
	length := uint64(binary.LittleEndian.Uint32(end[12:]))
	offset := uint64(binary.LittleEndian.Uint32(end[16:]))
	ends := uint64(size) - endBytes
	if before == locator64Bytes && string(tail[:4]) == "PK\x06\x07" {
		place := binary.LittleEndian.Uint64(tail[8:])
		ends -= locator64Bytes
		// As package zip writes it, so that there is one way to understand it.
		if ends < end64Bytes || place != ends-end64Bytes || string(end[10:20]) != "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" {
			return fmt.Errorf("%s: %w: its end is not where it says", notZip, abi.ErrCorrupt)
		}
		ends = place
		end64 := make([]byte, end64Bytes)
		if n, err := r.ReadAt(end64, int64(place)); n < len(end64) {
			return damage(notZip, err)
		}
		if string(end64[:4]) != "PK\x06\x06" {
			return fmt.Errorf("%s: %w: its end is not where it says", notZip, abi.ErrCorrupt)
		}
		records = binary.LittleEndian.Uint64(end64[32:])
		length = binary.LittleEndian.Uint64(end64[40:])
		offset = binary.LittleEndian.Uint64(end64[48:])
	}
	switch limit := uint64(o.limits.Entries); {
	case records > limit:
		return fmt.Errorf("there are %d files in it: %w; there may be %d", records, abi.ErrTooLarge, limit)
	case length > limit*directoryBytes:
		return fmt.Errorf("its directory has %d bytes: %w; it may have %d", length, abi.ErrTooLarge, limit*directoryBytes)
	case offset > ends || length != ends-offset:
		return fmt.Errorf("%s: %w: its directory is not where it says", notZip, abi.ErrCorrupt)
	}
	return nil
}

// checkName refuses names of files that no snapshot has, and that could lead out of the folder it is unpacked into.
func checkName(name string) error {
	allowed := func(c rune) bool {
		return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("._-/", c)
	}
	var why string
	switch {
	case len(name) > MaxNameBytes:
		return fmt.Errorf("%w: the name of a file in it has %d bytes; it may have %d", abi.ErrCorrupt, len(name), MaxNameBytes)
	case strings.HasPrefix(name, "/"):
		why = "is absolute"
	case slices.Contains(strings.Split(name, "/"), ".."):
		why = "leads out of the folder"
	case strings.Contains(name, `\`):
		why = "has a backslash"
	case strings.ContainsFunc(name, func(c rune) bool { return !allowed(c) }):
		why = "has a character that no name has"
	case strings.HasSuffix(name, "/"):
		why = "is a folder's"
	case slices.ContainsFunc(strings.Split(name, "/"), func(s string) bool { return s == "" || s == "." }):
		why = "has an empty step"
	default:
		return nil
	}
	return fmt.Errorf("%w: a file in it has the name %q, which %s; nothing was written", abi.ErrCorrupt, name, why)
}

// recognise tells archives that are none of ours from those that are damaged.
func (o *opener) recognise() error {
	if o.files[manifestName] != nil {
		return nil
	}
	for name := range o.files {
		if strings.HasPrefix(name, "api_states/") {
			return fmt.Errorf("%w: it is a pod of LocalStack: its states are pickles of LocalStack's own objects, which only the LocalStack that wrote them can read; export it with Torpor to have a snapshot", abi.ErrVersion)
		}
	}
	return fmt.Errorf("%w: it is no snapshot: there is no %s in it", abi.ErrCorrupt, manifestName)
}

// manifest reads manifest.json and SHA256SUMS.
func (o *opener) manifest() (manifest, error) {
	text, err := o.read(manifestName)
	if err != nil {
		return manifest{}, err
	}
	m, err := parseManifest(text)
	if err != nil {
		return manifest{}, err
	}
	if o.files[sumsName] == nil {
		return manifest{}, fmt.Errorf("%w: there is no %s in it", abi.ErrCorrupt, sumsName)
	}
	sums, err := o.read(sumsName)
	if err != nil {
		return manifest{}, err
	}
	if o.sums, err = parseSums(sums); err != nil {
		return manifest{}, err
	}
	if sha256.Sum256(text) != o.sums[manifestName] {
		return manifest{}, fmt.Errorf("%s: %w: its SHA-256 is not the one in %s", manifestName, abi.ErrCorrupt, sumsName)
	}
	return m, nil
}

// read reads one of the two small files, whose bytes package zip checks.
func (o *opener) read(name string) ([]byte, error) {
	f := o.files[name]
	if f.UncompressedSize64 > uint64(o.limits.ManifestBytes) {
		return nil, fmt.Errorf("%s has %d bytes: %w; it may have %d", name, f.UncompressedSize64, abi.ErrTooLarge, o.limits.ManifestBytes)
	}
	in, err := f.Open()
	if err != nil {
		return nil, damage(name, err)
	}
	defer in.Close()
	// Package zip tells at the end if there is less or more than the directory says.
	text, err := io.ReadAll(io.LimitReader(in, o.limits.ManifestBytes+1))
	if err != nil {
		return nil, damage(name, err)
	}
	if uint64(len(text)) != f.UncompressedSize64 {
		return nil, fmt.Errorf("%s: %w: it has another size than the archive says", name, abi.ErrCorrupt)
	}
	return text, nil
}

// match holds manifest, checksums and files against each other: what one names the others must have, and no more.
func (o *opener) match(m manifest) error {
	named := map[string]bool{manifestName: true, sumsName: true}
	add := func(path, want, digest string, size, most int64) error {
		f := o.files[path]
		sum, summed := o.sums[path]
		switch {
		case path != want:
			return fmt.Errorf("%s: %w: the path %.160q is not what it must be, %q", manifestName, abi.ErrCorrupt, path, want)
		case named[path]:
			return fmt.Errorf("%s: %w: it names %s twice", manifestName, abi.ErrCorrupt, path)
		case f == nil:
			return fmt.Errorf("%w: %s names %s, which is not there", abi.ErrCorrupt, manifestName, path)
		case size < 0 || uint64(size) != f.UncompressedSize64:
			return fmt.Errorf("%w: %s has %d bytes, and %d by %s", abi.ErrCorrupt, path, f.UncompressedSize64, size, manifestName)
		case size > most:
			return fmt.Errorf("%s has %d bytes: %w; it may have %d", path, size, abi.ErrTooLarge, most)
		case !summed || hex.EncodeToString(sum[:]) != digest:
			return fmt.Errorf("%w: the SHA-256 of %s is another one in %s than in %s, or in one of them there is none", abi.ErrCorrupt, path, sumsName, manifestName)
		}
		named[path] = true
		o.total += size
		return nil
	}
	needed, there := map[string]string{}, map[string]bool{}
	for _, p := range m.Parts {
		if err := add(p.Path, statePath(p.Service, p.Part), p.SHA256, p.Size, o.limits.TotalBytes); err != nil {
			return err
		}
		needed[p.Serializer.SHA256] = p.Path
	}
	for _, c := range m.Modules {
		if err := add(c.Path, modulePath(c.SHA256), c.SHA256, c.Size, o.limits.ModuleBytes); err != nil {
			return err
		}
		if needed[c.SHA256] == "" {
			return fmt.Errorf("%w: no state in it was written by %s", abi.ErrCorrupt, c.Path)
		}
		there[c.SHA256] = true
	}
	for digest, path := range needed {
		if !there[digest] {
			return fmt.Errorf("%w: %s was written by the serializer module %.64q, which is not in it", abi.ErrCorrupt, path, digest)
		}
	}
	for name := range o.files {
		if !named[name] && name != foreignName {
			return fmt.Errorf("%w: there is a file in it that %s does not name, %s", abi.ErrCorrupt, manifestName, name)
		}
	}
	if len(o.sums) != len(named)-1 { // itself it does not name
		return fmt.Errorf("%s: %w: it names files that are not there", sumsName, abi.ErrCorrupt)
	}
	return nil
}

// copy unpacks a file, and checks its size and digest. In how many steps its bytes are checked is for progress.
func (o *opener) copy(w io.Writer, path string, size int64, digest string, steps int64) error {
	in, err := o.files[path].Open()
	if err != nil {
		return damage(path, err)
	}
	defer in.Close()
	hashing, buf := sha256.New(), make([]byte, 256<<10)
	begun := o.done
	for n := int64(0); ; {
		some, err := in.Read(buf)
		if n += int64(some); n > size {
			return fmt.Errorf("%w: %s has more than the %d bytes that the archive says", abi.ErrCorrupt, path, size)
		}
		hashing.Write(buf[:some])
		if _, err := w.Write(buf[:some]); err != nil {
			return err
		}
		o.done = begun + n/steps
		o.progress(o.done, o.total)
		if err == io.EOF {
			if n != size || hex.EncodeToString(hashing.Sum(nil)) != digest {
				return fmt.Errorf("%w: %s has another SHA-256 or size than %s says", abi.ErrCorrupt, path, manifestName)
			}
			return nil
		} else if err != nil {
			return damage(path, err)
		}
	}
}

// snapshot checks the states and makes the snapshot. places are where in r the parts and modules begin, and the end.
func (o *opener) snapshot(m manifest, r io.ReaderAt, places []int64, done func() error) (*snapshot.Snapshot, error) {
	parts := make([]snapshot.Part, 0, len(m.Parts))
	chunks := 0
	for i, p := range m.Parts {
		in := io.NewSectionReader(r, places[i], places[i+1]-places[i])
		f, err := statefile.Open(in, in.Size(), p.Path)
		if err != nil {
			return nil, err
		}
		if chunks += f.Info().Chunks; chunks > MaxChunks {
			return nil, fmt.Errorf("its states have more than %d chunks: %w", MaxChunks, abi.ErrTooLarge)
		}
		if err := f.Verify(o.ctx); err != nil {
			return nil, err
		}
		digest, _ := hex.DecodeString(p.SHA256)
		if is := describePart(f.Header(), f.Info(), p.Size, [sha256.Size]byte(digest)); is != p {
			return nil, fmt.Errorf("%w: %s says of %s what is not true of it: %s", abi.ErrCorrupt, manifestName, p.Path, difference(p, is))
		}
		parts = append(parts, snapshot.Part{Service: p.Service, Name: p.Part, File: f})
		o.done += p.Size - p.Size/2
		o.progress(o.done, o.total)
	}
	modules := map[[sha256.Size]byte]*io.SectionReader{}
	for i, c := range m.Modules {
		begin, end := places[len(m.Parts)+i], places[len(m.Parts)+i+1]
		digest, _ := hex.DecodeString(c.SHA256)
		modules[[sha256.Size]byte(digest)] = io.NewSectionReader(r, begin, end-begin)
	}
	module := func(ctx context.Context, digest [sha256.Size]byte) ([]byte, error) {
		in, ok := modules[digest]
		if !ok {
			return nil, fmt.Errorf("serializer module %x: %w in the snapshot", digest, abi.ErrNotFound)
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		wasm := make([]byte, in.Size())
		if n, err := in.ReadAt(wasm, 0); n < len(wasm) {
			return nil, fmt.Errorf("serializer module %x: %w", digest, err)
		}
		return wasm, nil
	}
	return snapshot.New(snapshot.Info{
		Name: m.Name, Version: m.SnapshotVersion, Created: m.Created.UTC(), Torpor: m.Torpor, Description: m.Description,
	}, parts, module, done)
}

// difference names what differs.
func difference(says, is partEntry) string {
	switch {
	case says.Service != is.Service || says.Part != is.Part:
		return fmt.Sprintf("it is the state of %s/%s", is.Service, is.Part)
	case says.Records != is.Records:
		return fmt.Sprintf("there are %d records in it and not %d", is.Records, says.Records)
	case says.Serializer != is.Serializer:
		return fmt.Sprintf("it was written by the serializer %q, %s", is.Serializer.Name, is.Serializer.SHA256)
	}
	return fmt.Sprintf("it is generation %d of %s", is.Generation, cmp.Or(is.Created, "no time"))
}

// damage says what an error of reading an archive is: r's is not damage.
func damage(what string, err error) error {
	var bad flate.CorruptInputError
	var other flate.InternalError
	if errors.As(err, &bad) || errors.As(err, &other) {
		return fmt.Errorf("%s: %w: %w", what, abi.ErrCorrupt, err)
	}
	for _, known := range []error{zip.ErrFormat, zip.ErrAlgorithm, zip.ErrChecksum, io.EOF, io.ErrUnexpectedEOF} {
		if errors.Is(err, known) {
			return fmt.Errorf("%s: %w: %w", what, abi.ErrCorrupt, err)
		}
	}
	return fmt.Errorf("%s: %w", what, err)
}
