package statedir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// DefaultKeep is how many full saves are kept unless Options says otherwise: the newest and the one
// before.
const DefaultKeep = 2

// Options of Open. The zero value is ready.
type Options struct {
	// Logger hears of what went wrong and was survived; nil: nobody does.
	Logger *slog.Logger
	// Keep is how many full saves of a part are kept, each in a file with the deltas on it, the newest
	// included; 0: DefaultKeep.
	Keep int
	// Compaction bounds what is appended to a full save before the next one must be full.
	Compaction Compaction
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Dir is an open state directory. While it is open no other runtime can open it, and nothing else may
// change its files. All methods are safe for concurrent use; those that change one part's files wait
// for each other.
type Dir struct {
	fs   vfs.FS
	log  *slog.Logger
	now  func() time.Time
	keep int
	most Compaction // bounds of deltas
	lock io.Closer

	life   sync.RWMutex // held for reading by every method, for writing by Close
	closed bool

	serial atomic.Uint64 // of the last temporary file

	foldersMu sync.Mutex
	folders   map[string]bool // known to be durable in their parents

	partsMu sync.Mutex
	parts   map[PartID]*part

	modulesMu  sync.Mutex
	modules    map[moduleDigest]bool // known to be sound and durable
	pinsSynced bool                  // pins.json has its name durably
}

// part is what is known of a part's files. The lock is held by whoever changes them.
type part struct {
	mu     sync.Mutex
	synced bool // the folder's entries are durable as far as this process found them
	saving bool // a Pending is open

	// current is the newest generation in <part>.state, a file that this process has found whole and
	// made durable, or written; 0: there is none, or that is not known. tail is the file's.
	current uint64
	tail    statefile.Tail
	was     uint64 // while current is not known: what it was, for a file that is too damaged to say; 0: not known
	// high is the highest number seen.
	high uint64
	// bad are generations that were found damaged and could not be moved aside or cut off.
	bad map[uint64]error

	// limit is how far <part>.state is read: what is behind is being appended or, if appending is false,
	// was, in vain, and could not be cut off. 0: to its end.
	limit     int64
	appending bool
	// full: the next save must be full, for an append has failed or the file has lost a damaged end.
	full bool
	// doubt: a sync of <part>.state has failed, so that it is to be written anew before it is built upon.
	doubt bool
}

// forget takes note that what <part>.state is has to be read from the disk.
func (p *part) forget() {
	if p.current != 0 {
		p.was = p.current
	}
	p.current, p.tail = 0, statefile.Tail{}
}

// know takes note of what <part>.state is.
func (p *part) know(t statefile.Tail) { p.current, p.tail, p.was = t.Header().Generation, t, 0 }

// forgetFile is forget where <part>.state is another file now, or none.
func (p *part) forgetFile() {
	p.forget()
	p.was, p.doubt = 0, false
	if !p.appending {
		p.limit = 0
	}
}

// Holder is who holds a state directory.
type Holder struct {
	PID   int       `json:"pid"`
	Host  string    `json:"host"`
	Since time.Time `json:"since"`
}

// LockedError says that another runtime holds the state directory. It wraps abi.ErrLocked.
type LockedError struct {
	Path   string // of the lock file
	Holder Holder // the zero value if the file does not say
}

func (e *LockedError) Error() string {
	who := "another process"
	if e.Holder.PID != 0 {
		who = fmt.Sprintf("process %d on host %q since %s", e.Holder.PID, e.Holder.Host, e.Holder.Since.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("data folder %v: %s holds %s; stop it or use another data folder", abi.ErrLocked, who, e.Path)
}

func (e *LockedError) Unwrap() error { return abi.ErrLocked }

// Open takes the state directory that fsys is the root of, making its folders if need be and removing
// what a crash has left half written. It fails with a *[LockedError] if another runtime holds it, and
// with an error that says what to do if it can not be written. After an error nothing is held.
func Open(fsys vfs.FS, opt Options) (*Dir, error) {
	d := newDir(fsys, opt)
	if d.keep < 1 {
		return nil, fmt.Errorf("%d generations are to be kept: it must be at least 1, the newest", d.keep)
	}
	if m := d.most; m.Bytes < 0 || m.Deltas < 0 {
		return nil, fmt.Errorf("compaction: bounds of %d bytes and %d deltas: they must not be negative", m.Bytes, m.Deltas)
	}
	if err := d.takeLock(); err != nil {
		return nil, err
	}
	for _, folder := range []string{statesFolder, modulesPlace} {
		if err := d.makeFolder(folder); err != nil {
			return nil, errors.Join(d.unwritable(err), d.lock.Close())
		}
	}
	d.sweep()
	d.collect()
	return d, nil
}

// newDir is a directory that is not open yet.
func newDir(fsys vfs.FS, opt Options) *Dir {
	d := &Dir{fs: fsys, log: opt.Logger, now: opt.Now, keep: opt.Keep,
		most: opt.Compaction.orDefault(), folders: map[string]bool{}, parts: map[PartID]*part{}, modules: map[moduleDigest]bool{}}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if d.now == nil {
		d.now = time.Now
	}
	if d.keep == 0 {
		d.keep = DefaultKeep
	}
	return d
}

func (d *Dir) takeLock() error {
	host, err := os.Hostname()
	if err != nil {
		host = "" // the name is for people; the lock holds without
	}
	content, err := json.Marshal(Holder{PID: os.Getpid(), Host: host, Since: d.now().UTC()})
	if err != nil {
		return fmt.Errorf("lock of the data folder: %w", err)
	}
	d.lock, err = vfs.Lock(d.fs, lockName, append(content, '\n'))
	if held := (*vfs.HeldError)(nil); errors.As(err, &held) {
		return &LockedError{Path: held.Path, Holder: parseHolder(held.Content)}
	}
	if err != nil {
		return d.unwritable(err)
	}
	return nil
}

// parseHolder reads what a lock file says. The holder may be writing it at this moment, over what a
// holder before has left: whatever is no holder is nobody.
func parseHolder(content []byte) Holder {
	var h Holder
	if err := json.NewDecoder(strings.NewReader(string(content))).Decode(&h); err != nil {
		return Holder{}
	}
	return h
}

// unwritable says what to do about a data folder that can not be written.
func (d *Dir) unwritable(err error) error {
	folder := vfs.Path(d.fs, ".")
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("data folder %s can not be written: %w; give user %d write access to it, mount it writable, or use another data folder",
			folder, err, os.Getuid())
	}
	return fmt.Errorf("data folder %s: %w", folder, err)
}

// sweep removes temporary files: nobody is writing them, for the lock is ours.
func (d *Dir) sweep() {
	remove := func(folder, name string) {
		file := path.Join(folder, name)
		if err := d.fs.Remove(file); err != nil {
			d.log.Warn("a temporary file of an interrupted save could not be removed", "path", vfs.Path(d.fs, file), "error", err)
			return
		}
		d.log.Info("removed a temporary file of an interrupted save", "path", vfs.Path(d.fs, file))
	}
	list := func(folder string) []vfs.Entry {
		entries, err := d.fs.ReadDir(folder)
		if err != nil {
			d.log.Warn("a folder could not be searched for temporary files", "path", vfs.Path(d.fs, folder), "error", err)
		}
		return entries
	}
	for _, e := range list(modulesPlace) {
		if e.Type.IsRegular() && (isModuleTemp(e.Name) || isPinsTemp(e.Name)) {
			remove(modulesPlace, e.Name)
		}
	}
	for _, service := range list(statesFolder) {
		if !service.Type.IsDir() || CheckName(service.Name) != nil {
			continue
		}
		folder := path.Join(statesFolder, service.Name)
		for _, e := range list(folder) {
			if f, ok := parseName(e.Name); ok && f.kind == temp && e.Type.IsRegular() {
				remove(folder, e.Name)
			}
		}
	}
}

// Close gives the directory back. It waits for methods that are under way. A [Pending] that is still
// open can not be committed any more; its temporary file is removed by the next Open.
func (d *Dir) Close() error {
	d.life.Lock()
	defer d.life.Unlock()
	if d.closed {
		return d.closedError()
	}
	d.closed = true
	return d.lock.Close()
}

func (d *Dir) closedError() error {
	return fmt.Errorf("data folder %s: %w", vfs.Path(d.fs, "."), fs.ErrClosed)
}

// enter begins a method, which ends with d.life.RUnlock.
func (d *Dir) enter() error {
	d.life.RLock()
	if d.closed {
		d.life.RUnlock()
		return d.closedError()
	}
	return nil
}

// part begins a method that is about one part: it checks the name and waits for others to be done with
// the part's files. leave ends it.
func (d *Dir) part(id PartID) (p *part, leave func(), err error) {
	if err := id.check(); err != nil {
		return nil, nil, err
	}
	if err := d.enter(); err != nil {
		return nil, nil, err
	}
	p = d.lockPart(id)
	return p, func() { p.mu.Unlock(); d.life.RUnlock() }, nil
}

// lockPart waits for a part; its mu is to be unlocked.
func (d *Dir) lockPart(id PartID) *part {
	d.partsMu.Lock()
	p := d.parts[id]
	if p == nil {
		p = &part{bad: map[uint64]error{}}
		d.parts[id] = p
	}
	d.partsMu.Unlock()
	p.mu.Lock()
	return p
}

// Parts lists the parts that have a generation, damaged ones set aside not counted, by service and
// part.
func (d *Dir) Parts() ([]PartID, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	defer d.life.RUnlock()
	services, err := d.fs.ReadDir(statesFolder)
	if err != nil {
		return nil, err
	}
	var parts []PartID
	for _, s := range services {
		if !s.Type.IsDir() || CheckName(s.Name) != nil {
			continue
		}
		entries, err := d.fs.ReadDir(path.Join(statesFolder, s.Name))
		if err != nil {
			return nil, err
		}
		seen := map[string]bool{}
		for _, e := range entries {
			f, ok := parseName(e.Name)
			if !ok || !e.Type.IsRegular() || f.kind != newest && f.kind != older || seen[f.part] {
				continue
			}
			seen[f.part] = true
			parts = append(parts, PartID{Service: s.Name, Part: f.part})
		}
	}
	return parts, nil
}
