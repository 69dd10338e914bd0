package sqlite

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	lib "modernc.org/sqlite/lib"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// staging is the databases of a Restore before they are swapped in.
type staging struct {
	s       *Source
	all     []*staged
	folders []string // made for them, outermost first
}

// staged is one of them.
type staged struct {
	name   string
	target string // where it will lie
	temp   string // where it lies
	c      *conn
	stop   func(error) error

	pragmas      pragmas
	objects      int
	tables       map[string]*object // by name in lower case
	later        []*object
	sequence     [][]value
	sequenceSize int
	swapped      bool
}

// Restore replaces the databases by those of the state. A failure leaves the old ones, but for one of the
// file system's between the swaps of several (see the package's comment).
func (s *Source) Restore(ctx context.Context, native io.Reader) (err error) {
	st := &staging{s: s}
	defer func() { err = errors.Join(err, st.discard(err != nil)) }()
	if err := s.restore(ctx, st, native); err != nil {
		return fmt.Errorf("%s: restore: %w", s.cfg.Path, explain(err))
	}
	return nil
}

func (s *Source) restore(ctx context.Context, st *staging, native io.Reader) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.sweep(); err != nil {
		return err
	}
	if s.cfg.Form == Pages {
		if err := st.loadPages(ctx, native); err != nil {
			return err
		}
	} else {
		l := &loader{ctx: ctx, st: st}
		if err := l.load(native); err != nil {
			return err
		}
	}
	for _, g := range st.all {
		if err := g.finish(ctx, &s.cfg); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if g.name != "" {
				return fmt.Errorf("database %s: %w", g.name, err)
			}
			return err
		}
	}
	return s.swap(ctx, st.all, st.folders)
}

// Reset removes the databases, or empties them with Config.InPlace.
func (s *Source) Reset(ctx context.Context) error {
	err := ctx.Err()
	if err == nil {
		err = s.sweep()
	}
	if err == nil {
		err = s.swap(ctx, nil, nil)
	}
	if err != nil {
		return fmt.Errorf("%s: reset: %w", s.cfg.Path, explain(err))
	}
	return nil
}

// sweep removes what a Restore that was killed left.
func (s *Source) sweep() error {
	var left []string
	if !s.folder() {
		target, err := s.target("")
		if err != nil {
			return err
		}
		left = append(left, target+stagedEnding)
		for _, e := range siblings() {
			left = append(left, target+stagedEnding+e)
		}
	} else {
		err := s.walk(func(name string) error {
			base := name
			for _, e := range siblings() {
				base = strings.TrimSuffix(base, e)
			}
			if strings.HasSuffix(base, stagedEnding) {
				left = append(left, s.file(name))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	for _, f := range left {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// target is the file of a database, behind the links that lead to it.
func (s *Source) target(name string) (string, error) {
	file := s.file(name)
	if s.folder() {
		return file, nil
	}
	behind, err := filepath.EvalSymlinks(file)
	if errors.Is(err, fs.ErrNotExist) {
		return file, nil
	}
	return behind, err
}

// add makes room for a database of the state.
func (st *staging) add(name string) (*staged, error) {
	s := st.s
	if !s.folder() {
		if name != "" {
			return nil, fmt.Errorf("%w: database %q, but the source is of a single file, whose state has no names", abi.ErrCorrupt, name)
		}
	} else {
		ok, err := path.Match(s.cfg.Pattern, path.Base(name))
		if err != nil || !ok || !fs.ValidPath(name) || !filepath.IsLocal(filepath.FromSlash(name)) || !utf8.ValidString(name) ||
			strings.ContainsAny(name, "\\\x00") || helper(name) {
			return nil, fmt.Errorf("%w: %q is no name of a database in this folder (pattern %q)", abi.ErrCorrupt, name, s.cfg.Pattern)
		}
	}
	for _, g := range st.all {
		if g.name == name {
			return nil, fmt.Errorf("%w: database %q is there twice", abi.ErrCorrupt, name)
		}
	}
	if len(st.all) == s.cfg.MaxDatabases {
		return nil, fmt.Errorf("%w: more than %d databases", abi.ErrTooLarge, s.cfg.MaxDatabases)
	}
	target, err := s.target(name)
	if err != nil {
		return nil, err
	}
	if err := st.folder(name, target); err != nil {
		return nil, err
	}
	g := &staged{name: name, target: target, temp: target + stagedEnding, tables: map[string]*object{}}
	// Whatever has such a name, a link that leads elsewhere too, is not written through.
	for _, e := range append(siblings(), "") {
		if err := os.Remove(g.temp + e); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	st.all = append(st.all, g)
	return g, nil
}

// folder makes the folders that lead to a database, and refuses links on the way inside the source's.
func (st *staging) folder(name, target string) error {
	dir := filepath.Dir(target)
	if err := st.s.inside(name); err != nil {
		return err
	}
	var missing []string
	for d := dir; ; d = filepath.Dir(d) {
		_, err := os.Stat(d)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || d == filepath.Dir(d) {
			return err
		}
		missing = append(missing, d)
	}
	slices.Reverse(missing)
	for _, d := range missing {
		if err := os.Mkdir(d, 0o777); err != nil {
			return err
		}
		st.folders = append(st.folders, d)
	}
	return nil
}

// inside refuses a database behind a link inside the source's folder, before anything is made there.
func (s *Source) inside(name string) error {
	if !s.folder() || !strings.Contains(name, "/") {
		return nil
	}
	root, err := os.OpenRoot(s.cfg.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	parts := strings.Split(path.Dir(name), "/")
	for i := range parts {
		d := path.Join(parts[:i+1]...)
		info, err := root.Lstat(d)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if !info.IsDir() {
			return fmt.Errorf("%w: database %q would lie behind %s, which is no folder", abi.ErrCorrupt, name, d)
		}
	}
	return nil
}

// discard removes what was not swapped in; of a failure also the folders made.
func (st *staging) discard(failed bool) error {
	var err error
	for _, g := range st.all {
		if g.c != nil {
			err = errors.Join(err, g.c.close())
		}
		if !g.swapped {
			for _, e := range append(siblings(), "") {
				if rerr := os.Remove(g.temp + e); !errors.Is(rerr, fs.ErrNotExist) {
					err = errors.Join(err, rerr)
				}
			}
		}
	}
	if failed {
		for _, d := range slices.Backward(st.folders) {
			os.Remove(d) //nolint:errcheck // another may use it by now
		}
	}
	return err
}

// finish makes of rows a database that is complete, checked, and on the disk.
func (g *staged) finish(ctx context.Context, cfg *Config) error {
	c, err := open(g.temp, openWrite)
	if err != nil {
		return err
	}
	done := c.interrupted(ctx)
	if cfg.Form == Rows {
		if err = refused(g.complete(c)); err != nil {
			return errors.Join(done(err), c.close())
		}
		// Opened again, it reads its schema as others will.
		if err := errors.Join(done(nil), c.close()); err != nil {
			return err
		}
		if c, err = open(g.temp, openWrite); err != nil {
			return err
		}
		done = c.interrupted(ctx)
	}
	if cfg.Form == Pages {
		err = refused(wholePages(g.temp, c))
	}
	if err == nil {
		err = cfg.Migrate.apply(c)
	}
	if err == nil {
		if err = refused(sound(c, "integrity_check")); cfg.Form == Pages && ownParts(err) {
			err = nil // its pages are its own affair
		}
	}
	if err == nil && cfg.Form == Rows && g.pragmas.journalMode == "wal" {
		err = c.exec("PRAGMA journal_mode=WAL")
	}
	if err = errors.Join(done(err), c.close()); err != nil {
		return err
	}
	return syncFile(g.temp)
}

// wholePages holds a file against what its header says of it, some of which SQLite lets pass.
func wholePages(name string, c *conn) error {
	if _, err := c.number("SELECT count(*) FROM sqlite_schema"); err != nil {
		return err
	}
	size, err := c.number("PRAGMA page_size")
	if err != nil {
		return err
	}
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	// Others may read the file meanwhile, but nobody holds a lock on it that closing it could drop: it
	// is ours, and its own connection has read it by now and holds none.
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	var head [100]byte
	if _, err := f.ReadAt(head[:], 0); err != nil {
		return fmt.Errorf("%w: %d bytes are no database", abi.ErrCorrupt, info.Size())
	}
	if head[18] > 2 || head[19] > 2 {
		return fmt.Errorf("%w: the database is of format %d", abi.ErrVersion, max(head[18], head[19]))
	}
	if pages := int64(binary.BigEndian.Uint32(head[28:])); pages*size != info.Size() {
		return fmt.Errorf("%w: %d bytes, which its header says is %d pages of %d", abi.ErrCorrupt, info.Size(), pages, size)
	}
	return nil
}

// complete makes what the rows are without: counters, indexes, views and triggers.
func (g *staged) complete(c *conn) error {
	err := c.exec("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA locking_mode=EXCLUSIVE; PRAGMA cache_size=-16384; BEGIN")
	if err != nil {
		return err
	}
	if o := g.tables[sequence]; o != nil {
		if err := c.exec("DELETE FROM " + sequence); err != nil {
			return err
		}
		s, _, err := c.prepare(insertSQL(o, ""))
		if err != nil {
			return err
		}
		for _, row := range g.sequence {
			if err = run(s, row); err != nil {
				break
			}
		}
		if s.finalize(); err != nil {
			return err
		}
	}
	for _, o := range g.later {
		if err := create(c, o); err != nil {
			return fmt.Errorf("%s %s: %w", o.kind, quoted(o.name), err)
		}
	}
	return c.exec(fmt.Sprintf("PRAGMA user_version=%d; PRAGMA application_id=%d; COMMIT", g.pragmas.userVersion, g.pragmas.applicationID))
}

// apply changes tables as the migration says.
func (m Migration) apply(c *conn) error {
	if len(m.Rename) == 0 && len(m.Drop) == 0 {
		return nil
	}
	if err := c.exec("BEGIN"); err != nil {
		return err
	}
	there := func(table string) (bool, error) {
		n, err := c.number("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND lower(name) = lower(?)", table)
		return n > 0, err
	}
	for _, from := range slices.Sorted(maps.Keys(m.Rename)) {
		to := m.Rename[from]
		old, err := there(from)
		if err != nil || !old || from == to {
			if err != nil {
				return err
			}
			continue
		}
		if err := c.exec("ALTER TABLE " + quoted(from) + " RENAME TO " + quoted(to)); err != nil {
			return fmt.Errorf("migration: table %s cannot be renamed to %s: %w", quoted(from), quoted(to), err)
		}
	}
	for _, table := range slices.Sorted(maps.Keys(m.Drop)) {
		if ok, err := there(table); err != nil || !ok {
			if err != nil {
				return err
			}
			continue
		}
		for _, column := range m.Drop[table] {
			n, err := c.number("SELECT count(*) FROM pragma_table_xinfo(?) WHERE lower(name) = lower(?)", table, column)
			if err != nil {
				return err
			}
			if n == 0 {
				continue
			}
			if err := c.exec("ALTER TABLE " + quoted(table) + " DROP COLUMN " + quoted(column)); err != nil {
				return fmt.Errorf("migration: column %s of table %s cannot be dropped: %w", quoted(column), quoted(table), err)
			}
		}
	}
	return c.exec("COMMIT")
}

// loadPages reads a state of bytes.
func (st *staging) loadPages(ctx context.Context, native io.Reader) error {
	d := &items{r: native}
	if !st.s.folder() {
		g, err := st.add("")
		if err != nil {
			return err
		}
		n, err := d.copyTo(ctx, g.temp, -1)
		if err == nil && n == 0 {
			err = os.Remove(g.temp)
			st.all = nil
		}
		return err
	}
	item, err := d.next()
	if err == nil && string(item) != pagesHead {
		p := record.NewPull(item)
		if p.Array() == 3 && p.Uint() == itemHead && string(p.Text()) == pagesName && p.Uint() > formatVersion && p.End() == nil {
			return fmt.Errorf("%w: the state is of a version of its form that this program does not know", abi.ErrVersion)
		}
		err = fmt.Errorf("%w: the state does not begin as databases in pages do (of form %q is it to be restored?)", abi.ErrCorrupt, Pages)
	}
	for err == nil {
		at := d.offset
		if item, err = d.next(); err != nil {
			break
		}
		p := record.NewPull(item)
		n := p.Array()
		kind := p.Uint()
		if n == 1 && kind == itemEnd && p.End() == nil {
			if _, err = d.next(); err == io.EOF { //nolint:errorlint // ours
				return nil
			} else if err == nil {
				err = fmt.Errorf("%w: offset %d: there is more behind the end of the state", abi.ErrCorrupt, d.offset)
			}
			break
		}
		name := string(p.Text())
		size := p.Uint()
		if n != 3 || kind != itemDatabase || p.End() != nil || size > 1<<62 {
			return fmt.Errorf("%w: offset %d: not a database", abi.ErrCorrupt, at)
		}
		var g *staged
		if g, err = st.add(name); err == nil {
			_, err = d.copyTo(ctx, g.temp, int64(size))
		}
	}
	if err == io.EOF { //nolint:errorlint // ours
		err = fmt.Errorf("%w: the state ends without its end", abi.ErrCorrupt)
	}
	return err
}

// copyTo copies the next size bytes, or all if it is negative, to a new file.
func (d *items) copyTo(ctx context.Context, name string, size int64) (n int64, err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for size < 0 || n < size {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		if d.start == d.end {
			if err := d.fill(); err == io.EOF { //nolint:errorlint // ours
				break
			} else if err != nil {
				return n, err
			}
		}
		b := d.buf[d.start:d.end]
		if size >= 0 {
			b = b[:min(int64(len(b)), size-n)]
		}
		if _, err := f.Write(b); err != nil {
			return n, err
		}
		n += int64(len(b))
		d.start += len(b)
		d.offset += int64(len(b))
	}
	if n < size {
		return n, fmt.Errorf("%w: the state ends inside a database", abi.ErrCorrupt)
	}
	return n, nil
}

// swap puts databases in place of those that are there. Of folders that were made for them the entries are
// put on the disk too.
func (s *Source) swap(ctx context.Context, all []*staged, made []string) (err error) {
	names, err := s.names()
	if err != nil {
		return err
	}
	var held []*conn
	defer func() {
		for _, c := range held {
			err = errors.Join(err, c.close())
		}
	}()
	inPlace := map[string]*conn{}
	folders := map[string]bool{}
	for _, g := range all {
		folders[filepath.Dir(g.target)] = true
	}
	for _, d := range made {
		folders[filepath.Dir(d)] = true
	}
	targets := map[string]string{}
	for _, name := range names {
		file, err := s.target(name)
		if err != nil {
			return err
		}
		targets[name] = file
		folders[filepath.Dir(file)] = true
		c, err := s.take(ctx, file)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if c != nil {
			held = append(held, c)
			if s.cfg.InPlace {
				inPlace[name] = c
			}
		}
	}
	// What lies beside a database belongs to it, and SQLite would apply it to the one that takes its
	// place. What there was in it is in the old database by now, or that is beyond reading.
	for _, g := range all {
		targets[g.name] = g.target
	}
	for name, file := range targets {
		if inPlace[name] != nil {
			continue
		}
		for _, e := range siblings() {
			if err := s.step("remove " + e); err != nil {
				return err
			}
			if err := os.Remove(file + e); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	if err := s.syncAll(folders); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	left := maps.Clone(targets)
	for _, g := range all {
		delete(left, g.name)
		if c := inPlace[g.name]; c != nil {
			if err := s.overwrite(ctx, c, g.temp); err != nil {
				return fmt.Errorf("%s: in place: %w", g.target, err)
			}
			continue
		}
		likeOld(g.temp, g.target)
		if err := s.step("rename"); err != nil {
			return err
		}
		if err := os.Rename(g.temp, g.target); err != nil {
			return err
		}
		g.swapped = true
	}
	for _, name := range slices.Sorted(maps.Keys(left)) {
		if c := inPlace[name]; c != nil {
			if err := s.overwrite(ctx, c, ""); err != nil {
				return fmt.Errorf("%s: in place: %w", left[name], err)
			}
			continue
		}
		if err := s.step("remove"); err != nil {
			return err
		}
		if err := os.Remove(left[name]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return s.syncAll(folders)
}

// take makes sure that nobody uses a database, and that nothing of it lies in other files. The connection
// keeps others off until it is closed; it is nil if this is no database that can be read.
func (s *Source) take(ctx context.Context, file string) (*conn, error) {
	c, err := open(file, openWrite)
	if err != nil {
		return nil, err
	}
	if s.cfg.InPlace { // SQLite itself keeps it whole
		if _, err = c.number("SELECT count(*) FROM sqlite_schema"); err == nil || !beyondReading(err) {
			return c, ignoreLock(err)
		}
		return nil, c.close()
	}
	err = s.retry(ctx, func() error {
		// With a write-ahead log the first read succeeds only if nobody else has the database open, and
		// keeps others off. The database stays in that mode: it may yet be left as it is.
		if err := c.exec("PRAGMA locking_mode=EXCLUSIVE"); err != nil {
			return err
		}
		if _, err := c.number("SELECT count(*) FROM sqlite_schema"); err != nil {
			return err
		}
		mode, err := c.text("PRAGMA journal_mode")
		if err != nil {
			return err
		}
		if mode != "wal" {
			return c.exec("BEGIN EXCLUSIVE")
		}
		busy, err := c.number("PRAGMA wal_checkpoint(TRUNCATE)")
		if err == nil && busy != 0 {
			err = &dbError{code: lib.SQLITE_BUSY, msg: "database is locked"}
		}
		return err
	})
	if err == nil {
		return c, nil
	}
	if err = errors.Join(err, c.close()); beyondReading(err) || code(err) == lib.SQLITE_READONLY && newer(file) {
		return nil, nil
	}
	return nil, err
}

// newer reports whether a database is of a format that SQLite reads and does not write.
func newer(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	var version [1]byte
	_, err = f.ReadAt(version[:], 18)
	return err == nil && version[0] > 2
}

func ignoreLock(err error) error {
	if errors.Is(err, abi.ErrLocked) {
		return nil
	}
	return err
}

// beyondReading reports whether SQLite cannot make anything of a database.
func beyondReading(err error) bool {
	k := code(err)
	return k == lib.SQLITE_NOTADB || k == lib.SQLITE_CORRUPT || errors.Is(err, abi.ErrVersion)
}

// overwrite writes the pages of the database in the file from into c, in one transaction. An empty from
// is a database without anything.
func (s *Source) overwrite(ctx context.Context, c *conn, from string) error {
	if from == "" {
		size, err := c.number("PRAGMA page_size")
		if err != nil {
			return err
		}
		from = ":memory:"
		src, err := open(from, openWrite)
		if err != nil {
			return err
		}
		err = src.exec(fmt.Sprintf("PRAGMA page_size=%d; CREATE TABLE t(a); DROP TABLE t", size))
		if err == nil {
			err = copyPages(ctx, c, src, s.waiting(ctx))
		}
		return errors.Join(err, src.close())
	}
	src, err := open(from, openWrite)
	if err != nil {
		return err
	}
	err = copyPages(ctx, c, src, s.waiting(ctx))
	if code(err) == lib.SQLITE_READONLY {
		err = fmt.Errorf("its page size is not that of the state, or it cannot be written to: %w", err)
	}
	return errors.Join(err, src.close())
}

// likeOld gives a new file the mode and the owner of the one it replaces.
func likeOld(file, old string) {
	if info, err := os.Stat(old); err == nil {
		os.Chmod(file, info.Mode().Perm()) //nolint:errcheck // as far as the system allows
		chown(file, info)
	}
}

func (s *Source) syncAll(folders map[string]bool) error {
	for _, d := range slices.Sorted(maps.Keys(folders)) {
		if err := s.step("sync " + d); err != nil {
			return err
		}
		if err := syncFile(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// syncFile puts a file or folder on the disk.
func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
