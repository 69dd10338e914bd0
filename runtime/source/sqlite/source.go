// Package sqlite is the source of services that keep their state in SQLite databases: one file, or all
// files of a folder that match a pattern. It works on live databases through SQLite itself, with its file
// locks and its write-ahead log, so that the service need not know of it.
//
// Capture copies a database's pages through SQLite's backup interface, in one read transaction, to a
// temporary file, and is done: the service's writers wait no longer than that in rollback-journal mode,
// and not at all in WAL mode. What is written is read from the copy: [Rows], the native form of the
// serializer modules/sqlite, whose README defines it, or [Pages], the file byte for byte.
//
// Restore builds each database beside its target, checks it, and swaps all of them in by rename. Reset is
// the Restore of a state without databases. The service must be stopped for either, or must not have the
// databases open: those who do keep the old file. A lock that somebody holds is abi.ErrLocked, and
// nothing has changed. With Config.InPlace the pages are written into the existing file instead, by
// a transaction of SQLite's own, which those who have it open see as one.
//
// A single database is old or new after a crash at any moment. Several are swapped one by one: a crash in
// between leaves some old and some new ones, each whole, and the Restore made again puts that right.
//
// Nothing that a state says is executed but statements that each make one table, index, view or trigger,
// and are what SQLite itself stores of them.
package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	lib "modernc.org/sqlite/lib"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime"
)

// Form is the form of the native state.
type Form string

const (
	// Rows is schema and rows, for the serializer sqlite.
	Rows Form = "rows"
	// Pages is the database file byte for byte as SQLite's backup copies it, for the serializer raw: of
	// one database its bytes, of a folder a sequence that says their names.
	Pages Form = "pages"
)

const (
	// DefaultWait is how long a lock is waited for.
	DefaultWait = 5 * time.Second
	// DefaultMaxDatabases bounds the databases of a folder.
	DefaultMaxDatabases = 1024
	// MaxMaxDatabases bounds that bound: a Restore holds a file open for each.
	MaxMaxDatabases = 16384
)

// Config says where the databases are.
type Config struct {
	// Path is the database file, or with Pattern the folder. It need not exist yet.
	Path string
	// Pattern, if not empty, makes every file below Path whose last name matches it, as path.Match does,
	// one of the databases: "*.db". Restore removes those that the state does not have. Symbolic links
	// are not followed.
	Pattern string
	// Form is the form of the native state; [Rows] if empty.
	Form Form
	// Spool is the folder for copies of databases while they are saved; the system's folder for
	// temporary files if empty. It needs room for all of them.
	Spool string
	// Wait is how long to wait for a lock before giving up with abi.ErrLocked; DefaultWait if 0.
	Wait time.Duration
	// Unchecked leaves out SQLite's quick_check of each copy, so that damage inside a database may be
	// saved unseen. It saves about half of the time of a save as rows.
	Unchecked bool
	// InPlace has Restore write into databases that exist, rather than swap new ones in, for services
	// that keep them open. Their page size must be that of the state if they are in WAL mode.
	InPlace bool
	// Migrate changes tables of every database restored, by SQLite's ALTER TABLE. Form [Pages] too.
	Migrate Migration
	// MaxDatabases bounds the databases of a folder, DefaultMaxDatabases if 0, at most MaxMaxDatabases.
	MaxDatabases int
}

// Migration changes tables of a restored database, so that an older service's state fits a newer one. What
// is already so is left: applying it again changes nothing. Indexes, triggers and views follow as SQLite
// has them follow, and what SQLite refuses fails the Restore.
type Migration struct {
	// Rename gives tables that exist new names. If the new one exists too, Restore fails.
	Rename map[string]string
	// Drop removes columns of tables, called by their new names.
	Drop map[string][]string
}

// Source is the source of one or more databases. It implements [runtime.Source] and
// [runtime.AtomicSource].
type Source struct {
	cfg  Config
	step func(string) error // for tests: before each step of a swap that could be the last
}

var (
	_ runtime.AtomicSource  = (*Source)(nil)
	_ runtime.OfflineSource = (*Source)(nil)
	_ runtime.DatedSource   = (*Source)(nil)
)

// New makes a source. It touches nothing yet.
func New(cfg Config) (*Source, error) {
	if cfg.Path == "" {
		return nil, errors.New("sqlite source: no path")
	}
	if err := initialize(); err != nil {
		return nil, fmt.Errorf("sqlite source: %w", err)
	}
	abs, err := filepath.Abs(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("sqlite source: %w", err)
	}
	cfg.Path = abs
	if _, err := path.Match(cfg.Pattern, "x"); err != nil || strings.ContainsRune(cfg.Pattern, '/') {
		return nil, fmt.Errorf("sqlite source: %q is no pattern for names of files", cfg.Pattern)
	}
	switch cfg.Form {
	case "":
		cfg.Form = Rows
	case Rows, Pages:
	default:
		return nil, fmt.Errorf("sqlite source: unknown form %q; there are %q and %q", cfg.Form, Rows, Pages)
	}
	if cfg.Wait < 0 || cfg.MaxDatabases < 0 || cfg.MaxDatabases > MaxMaxDatabases {
		return nil, fmt.Errorf("sqlite source: wait and the number of databases must not be negative, and the latter at most %d", MaxMaxDatabases)
	}
	if cfg.Wait == 0 {
		cfg.Wait = DefaultWait
	}
	if cfg.MaxDatabases == 0 {
		cfg.MaxDatabases = DefaultMaxDatabases
	}
	return &Source{cfg: cfg, step: func(string) error { return nil }}, nil
}

// folder reports whether the source is of many databases.
func (s *Source) folder() bool { return s.cfg.Pattern != "" }

// file is where a database lies.
func (s *Source) file(name string) string {
	if !s.folder() {
		return s.cfg.Path
	}
	return filepath.Join(s.cfg.Path, filepath.FromSlash(name))
}

// stagedEnding ends the names of databases being built beside their targets.
const stagedEnding = ".torpor-new"

// names lists the databases that exist, sorted. The one of a single file is called "".
func (s *Source) names() ([]string, error) {
	if !s.folder() {
		info, err := os.Stat(s.cfg.Path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, nil
		case err != nil:
			return nil, err
		case !info.Mode().IsRegular():
			return nil, fmt.Errorf("%s is no file; give a pattern for a folder of databases", s.cfg.Path)
		}
		return []string{""}, nil
	}
	var names []string
	err := s.walk(func(name string) error {
		if ok, err := path.Match(s.cfg.Pattern, path.Base(name)); !ok || err != nil || helper(name) {
			return err
		}
		if !utf8.ValidString(name) || strings.Contains(name, "\\") { // which Restore refuses
			return fmt.Errorf("%q: the name is not UTF-8, or has a backslash", name)
		}
		if len(name) > maxName {
			return fmt.Errorf("%w: the name of a database has %d bytes: %.100q…", abi.ErrTooLarge, len(name), name)
		}
		if names = append(names, name); len(names) > s.cfg.MaxDatabases {
			return fmt.Errorf("%w: more than %d databases in %s", abi.ErrTooLarge, s.cfg.MaxDatabases, s.cfg.Path)
		}
		return nil
	})
	slices.Sort(names)
	return names, err
}

// helper reports whether a file is none but belongs to one: a pattern may be wide.
func helper(name string) bool {
	for _, e := range append(siblings(), stagedEnding) {
		if strings.HasSuffix(name, e) {
			return true
		}
	}
	return false
}

// siblings are the endings of files that SQLite puts beside a database.
func siblings() []string { return []string{"-journal", "-wal", "-shm"} }

// walk calls f with the name of every regular file below the folder.
func (s *Source) walk(f func(name string) error) error {
	root, err := os.OpenRoot(s.cfg.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // the service removed it meanwhile
			return nil
		}
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		return f(name)
	})
}

// Modified implements runtime.DatedSource.
func (s *Source) Modified(context.Context) (time.Time, error) {
	names, err := s.names()
	var newest time.Time
	for _, name := range names {
		for _, ending := range []string{"", "-wal", "-journal"} { // what was written last may not be in the file yet
			info, serr := os.Stat(s.file(name) + ending)
			if errors.Is(serr, fs.ErrNotExist) {
				continue
			}
			if serr != nil {
				return time.Time{}, serr
			}
			// Who opens a database to read it may make an empty log.
			if at := info.ModTime(); at.After(newest) && (ending == "" || info.Size() > 0) {
				newest = at
			}
		}
	}
	return newest, err
}

// Offline implements runtime.OfflineSource: databases that are swapped must not be open.
func (s *Source) Offline() bool { return !s.cfg.InPlace }

// AtomicCapture reports whether requests need not be held for Capture: if there is one database, and it is
// in WAL mode, whose writers a capture does not delay. In rollback-journal mode they might be told that
// the database is locked, and many databases are captured one after another.
func (s *Source) AtomicCapture() bool {
	if s.folder() {
		return false
	}
	if info, err := os.Stat(s.cfg.Path); err != nil || info.Size() == 0 {
		return false
	}
	c, err := open(s.cfg.Path, openWrite)
	if err != nil {
		return false
	}
	defer c.close() //nolint:errcheck // nothing was done
	mode, err := c.text("PRAGMA journal_mode")
	return err == nil && mode == "wal"
}

// waiting gives a function that waits a little after an error that says that somebody holds a lock, and
// gives any other back; and that one too, once it has been waited for long enough.
func (s *Source) waiting(ctx context.Context) func(error) error {
	until := time.Now().Add(s.cfg.Wait)
	pause := time.Millisecond
	return func(err error) error {
		if k := code(err); k != lib.SQLITE_BUSY && k != lib.SQLITE_LOCKED {
			return err
		}
		if time.Now().After(until) {
			return fmt.Errorf("%w (after waiting %v; is the service stopped, or in a long transaction?)", err, s.cfg.Wait)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, 50*time.Millisecond)
		return nil
	}
}

// retry calls f until it succeeds or fails for another reason than a lock.
func (s *Source) retry(ctx context.Context, f func() error) error {
	wait := s.waiting(ctx)
	for {
		err := f()
		if err == nil {
			return nil
		}
		if err = wait(err); err != nil {
			return err
		}
	}
}

// explain says more of SQLite's errors than its words do.
func explain(err error) error {
	var e *dbError
	if !errors.As(err, &e) {
		return err
	}
	switch e.code & 0xff {
	case lib.SQLITE_NOTADB:
		return fmt.Errorf("this is no database that SQLite can read: it is encrypted, or something else: %w", err)
	case lib.SQLITE_CORRUPT:
		return fmt.Errorf("the database is damaged, or its schema is of a newer SQLite than %s: %w", lib.SQLITE_VERSION, err)
	}
	if strings.Contains(e.msg, "unsupported file format") {
		return fmt.Errorf("the database is of a newer SQLite than %s: %w", lib.SQLITE_VERSION, err)
	}
	if strings.Contains(e.msg, "too many columns") {
		return fmt.Errorf("a table with more columns than can be read with its rowid; save the database as pages (form %q): %w", Pages, err)
	}
	if strings.Contains(e.msg, "no such function") || strings.Contains(e.msg, "unknown function") || strings.Contains(e.msg, "no such collation") {
		return fmt.Errorf("the schema uses what only the service has; save the database as pages (form %q): %w", Pages, err)
	}
	return err
}
