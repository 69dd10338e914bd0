package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	lib "modernc.org/sqlite/lib"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime"
)

// Capture copies the databases as they are. One that is encrypted or damaged wraps abi.ErrCorrupt, one of
// an unknown version abi.ErrVersion, and one whose lock cannot be had abi.ErrLocked. A journal that a
// crashed service left is rolled back by SQLite first, as it would be for the service.
func (s *Source) Capture(ctx context.Context) (_ runtime.Capture, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	names, err := s.names()
	if err != nil {
		return nil, fmt.Errorf("%s: capture: %w", s.cfg.Path, err)
	}
	c := &capture{source: s}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	for _, name := range names {
		p, err := s.copy(ctx, name)
		if err != nil && s.folder() && ctx.Err() == nil {
			if _, gone := os.Stat(s.file(name)); errors.Is(gone, fs.ErrNotExist) {
				continue // the service removed it meanwhile
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s: capture: %w", s.file(name), explain(err))
		}
		c.copies = append(c.copies, p)
	}
	return c, nil
}

// capture is copies of databases. Their files have no names any more where the system allows that, so
// that nothing is left of them whatever happens.
type capture struct {
	source *Source
	copies []*pageCopy
}

type pageCopy struct {
	name string
	path string   // where the copy lies; empty once it has no name
	file *os.File // its bytes
	size int64
	wal  bool
	db   *conn // as a database; nil if it is not wanted as rows
}

// copy copies one database's pages.
func (s *Source) copy(ctx context.Context, name string) (_ *pageCopy, err error) {
	f, err := os.CreateTemp(s.cfg.Spool, "torpor-sqlite-*")
	if err != nil {
		return nil, err
	}
	p := &pageCopy{name: name, path: f.Name(), file: f}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if err := s.copyTo(ctx, s.file(name), p.path); err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if p.size = info.Size(); p.size > 0 {
		var version [2]byte
		if _, err := f.ReadAt(version[:], 18); err != nil {
			return nil, err
		}
		p.wal = version[0] == 2
	}
	// Immutable, so that SQLite neither looks for a log beside it nor takes locks.
	if p.db, err = open("file:"+escaped(p.path)+"?immutable=1", openRead|openWithMode); err != nil {
		return nil, err
	}
	if os.Remove(p.path) == nil { // a system that cannot do so has it removed by close
		p.path = ""
	}
	return p, nil
}

// escaped is a path in a URI.
func escaped(path string) string {
	const hex = "0123456789ABCDEF"
	var b []byte
	for i := range len(path) {
		switch c := path[i]; {
		case c == '%' || c == '?' || c == '#' || c < 0x20 || c >= 0x7f:
			b = append(b, '%', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return string(b)
}

// copyTo copies the pages of the database in the file from to the empty file to.
func (s *Source) copyTo(ctx context.Context, from, to string) error {
	src, err := open(from, openWrite)
	if err != nil {
		return err
	}
	done := src.interrupted(ctx)
	err = func() error {
		// The transaction begins with the first read, and everything below is of its moment.
		err := s.retry(ctx, func() error {
			if err := src.exec("BEGIN"); err != nil {
				return err
			}
			if _, err := src.number("SELECT count(*) FROM sqlite_schema"); err != nil {
				return errors.Join(err, src.exec("ROLLBACK"))
			}
			return nil
		})
		if err != nil {
			return err
		}
		dst, err := open(to, openWrite)
		if err != nil {
			return err
		}
		err = dst.exec("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF")
		if err == nil {
			err = copyPages(ctx, dst, src, s.waiting(ctx))
		}
		return errors.Join(err, dst.close())
	}()
	return errors.Join(done(err), src.close())
}

func (p *pageCopy) close() error {
	var err error
	if p.db != nil {
		err = p.db.close()
	}
	err = errors.Join(err, p.file.Close())
	if p.path != "" {
		err = errors.Join(err, os.Remove(p.path))
	}
	return err
}

// Close implements [runtime.Capture].
func (c *capture) Close() error {
	var err error
	for _, p := range c.copies {
		err = errors.Join(err, p.close())
	}
	c.copies = nil
	return err
}

// WriteNative implements [runtime.Capture]. A database that SQLite's quick_check finds fault with wraps
// abi.ErrCorrupt.
func (c *capture) WriteNative(ctx context.Context, w io.Writer) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.source.cfg.Form == Pages {
		return c.writePages(ctx, w)
	}
	if _, err := io.WriteString(w, headItem); err != nil {
		return err
	}
	for _, p := range c.copies {
		done := p.db.interrupted(ctx)
		err := c.check(p)
		if err == nil {
			err = writeRows(ctx, p.db, p.name, p.wal, w)
		}
		if err = done(err); err != nil {
			return fmt.Errorf("%s: save: %w", c.source.file(p.name), explain(err))
		}
	}
	_, err := io.WriteString(w, endItem)
	return err
}

// check holds a copy to SQLite's own idea of a sound database.
func (c *capture) check(p *pageCopy) error {
	// Preparing it finds functions in the schema that are not there.
	q, _, err := p.db.prepare("PRAGMA integrity_check")
	if q.finalize(); err == nil && !c.source.cfg.Unchecked {
		err = sound(p.db, "quick_check")
	}
	if ownParts(err) && explain(err) == err { //nolint:errorlint // nothing is said of it yet
		return fmt.Errorf("SQLite's quick_check wants what only the service has; save the database as pages (form %q): %w", Pages, err)
	}
	return err
}

// ownParts reports whether a check of SQLite's cannot run, for want of a function, a collation or a part of
// a virtual table that is the service's own. Damage has other codes.
func ownParts(err error) bool {
	return code(err) == lib.SQLITE_ERROR && !errors.Is(err, abi.ErrVersion)
}

// sound runs a check of SQLite's.
func sound(c *conn, check string) error {
	first, err := c.text("PRAGMA " + check + "(1)")
	if err != nil {
		return err
	}
	if first != "ok" {
		return fmt.Errorf("%w: SQLite's %s finds: %s", abi.ErrCorrupt, check, first)
	}
	return nil
}

// writePages writes the form of bytes.
func (c *capture) writePages(ctx context.Context, w io.Writer) error {
	if c.source.folder() {
		if _, err := io.WriteString(w, pagesHead); err != nil {
			return err
		}
	}
	buf := make([]byte, 256<<10)
	for _, p := range c.copies {
		if !c.source.cfg.Unchecked {
			done := p.db.interrupted(ctx)
			if err := done(sound(p.db, "quick_check")); err != nil && !ownParts(err) { // its pages are its own affair
				return fmt.Errorf("%s: save: %w", c.source.file(p.name), explain(err))
			}
		}
		if c.source.folder() {
			item := record.AppendArray(nil, 3)
			item = record.AppendUint(item, itemDatabase)
			item = record.AppendText(item, p.name)
			item = record.AppendUint(item, uint64(p.size))
			if _, err := w.Write(item); err != nil {
				return err
			}
		}
		for at := int64(0); at < p.size; {
			if err := ctx.Err(); err != nil {
				return err
			}
			n, err := p.file.ReadAt(buf[:min(int64(len(buf)), p.size-at)], at)
			if n == 0 {
				return errors.Join(err, io.ErrUnexpectedEOF)
			}
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			at += int64(n)
		}
	}
	if c.source.folder() {
		_, err := io.WriteString(w, endItem)
		return err
	}
	return nil
}
