package sqlite

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"

	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"

	"github.com/torpor-run/torpor/host/abi"
)

// This file is the border to SQLite: package lib is SQLite's C translated to Go, and its pointers are
// numbers into memory of package libc's, which libc.GoBytes makes slices of. The driver for database/sql
// that comes with it is not used: it turns values of columns declared DATE or BOOLEAN into others, and is
// four times slower.

// conn is one connection. It is for one goroutine at a time, but for interrupt.
type conn struct {
	tls  *libc.TLS
	db   uintptr
	out  uintptr // 16 bytes for what calls give back
	buf  uintptr // for values bound
	size int     // of buf
	path string

	mu     sync.Mutex // holds interrupt off close
	closed bool
}

// dbError is an error of SQLite's.
type dbError struct {
	code int32 // extended result code
	msg  string
}

func (e *dbError) Error() string { return fmt.Sprintf("%s (SQLite code %d)", e.msg, e.code) }

// Unwrap is the sentinel that the code stands for, if there is one.
func (e *dbError) Unwrap() error {
	switch e.code & 0xff {
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED:
		return abi.ErrLocked
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB, lib.SQLITE_FORMAT:
		return abi.ErrCorrupt
	case lib.SQLITE_TOOBIG:
		return abi.ErrTooLarge
	}
	if strings.Contains(e.msg, "unsupported file format") {
		return abi.ErrVersion
	}
	return nil
}

// code is the primary result code of an error of SQLite's, or 0.
func code(err error) int32 {
	var e *dbError
	if errors.As(err, &e) {
		return e.code & 0xff
	}
	return 0
}

const (
	openRead     = lib.SQLITE_OPEN_READONLY
	openWrite    = lib.SQLITE_OPEN_READWRITE
	openCreate   = lib.SQLITE_OPEN_READWRITE | lib.SQLITE_OPEN_CREATE
	openWithMode = lib.SQLITE_OPEN_URI // the path is a URI
)

// initialize makes SQLite ready, which the first open would do otherwise; sources are made before any of
// them works.
func initialize() error {
	tls := libc.NewTLS()
	defer tls.Close()
	if rc := lib.Xsqlite3_initialize(tls); rc != lib.SQLITE_OK {
		return &dbError{code: rc, msg: "SQLite does not start"}
	}
	return nil
}

// open opens a database. Its schema is distrusted: no function with side effects runs out of it, no
// other database can be attached, no trigger fires, no extension is loaded.
func open(path string, flags int32) (*conn, error) {
	if strings.IndexByte(path, 0) >= 0 {
		return nil, fmt.Errorf("the path %q has a NUL byte", path)
	}
	c := &conn{tls: libc.NewTLS(), path: path}
	c.out = libc.Xmalloc(c.tls, 16)
	name, err := libc.CString(path)
	if err != nil || c.out == 0 {
		return nil, errors.Join(err, c.close(), errors.New("out of memory"))
	}
	// Without locks of its own: interrupt needs none, and all else is for one goroutine.
	rc := lib.Xsqlite3_open_v2(c.tls, name, c.out, flags|lib.SQLITE_OPEN_NOMUTEX, 0)
	libc.Xfree(c.tls, name)
	c.db = uintptr(c.word(0))
	if rc != lib.SQLITE_OK {
		err := c.failed(rc)
		return nil, errors.Join(err, c.close())
	}
	lib.Xsqlite3_extended_result_codes(c.tls, c.db, 1)
	lib.Xsqlite3_limit(c.tls, c.db, lib.SQLITE_LIMIT_ATTACHED, 0)
	lib.Xsqlite3_limit(c.tls, c.db, lib.SQLITE_LIMIT_TRIGGER_DEPTH, 1)
	if err := c.exec("PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON; PRAGMA ignore_check_constraints=ON; PRAGMA foreign_keys=OFF; PRAGMA temp_store=MEMORY"); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

// word is the i-th machine word of out.
func (c *conn) word(i int) uint64 {
	b := libc.GoBytes(c.out+uintptr(8*i), 8)
	if math.MaxUint == math.MaxUint32 {
		return uint64(binary.NativeEndian.Uint32(b))
	}
	return binary.NativeEndian.Uint64(b)
}

// close closes the connection. What was not committed is undone.
func (c *conn) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	rc := lib.Xsqlite3_close_v2(c.tls, c.db)
	libc.Xfree(c.tls, c.out)
	libc.Xfree(c.tls, c.buf)
	c.tls.Close()
	if rc != lib.SQLITE_OK {
		return &dbError{code: rc, msg: "close"}
	}
	return nil
}

// interrupt ends what the connection does at the moment, from another goroutine.
func (c *conn) interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		lib.Xsqlite3_interrupt(c.tls, c.db)
	}
}

// interrupted has the connection's work end with the context. The function it gives must be called when
// the work is done, with its error, and gives the context's instead where that was the reason.
func (c *conn) interrupted(ctx context.Context) func(error) error {
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { c.interrupt(); close(over) })
	return func(err error) error {
		if !stop() {
			<-over // or it would hit what the connection does next
		}
		if err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
}

// failed is the error of a call that gave rc.
func (c *conn) failed(rc int32) error {
	e := &dbError{code: rc, msg: "out of memory"}
	if c.db != 0 {
		if x := lib.Xsqlite3_extended_errcode(c.tls, c.db); x&0xff == rc&0xff {
			e.code = x
		}
		e.msg = libc.GoString(lib.Xsqlite3_errmsg(c.tls, c.db))
	}
	return e
}

// stmt is a prepared statement.
type stmt struct {
	c    *conn
	p    uintptr
	used int // bytes of the connection's buffer that hold values bound
}

// prepare compiles the first statement of sql and gives what follows it. A nil statement means that there
// is none.
func (c *conn) prepare(sql string) (*stmt, string, error) {
	if strings.IndexByte(sql, 0) >= 0 {
		return nil, "", fmt.Errorf("%w: SQL with a NUL byte", abi.ErrCorrupt)
	}
	text, err := libc.CString(sql)
	if err != nil {
		return nil, "", err
	}
	defer libc.Xfree(c.tls, text)
	word := uintptr(8)
	rc := lib.Xsqlite3_prepare_v2(c.tls, c.db, text, int32(len(sql)+1), c.out, c.out+word)
	if rc != lib.SQLITE_OK {
		return nil, "", c.failed(rc)
	}
	tail := sql[int(uintptr(c.word(1))-text):]
	p := uintptr(c.word(0))
	if p == 0 {
		return nil, tail, nil
	}
	return &stmt{c: c, p: p}, tail, nil
}

// exec runs statements of this package's own.
func (c *conn) exec(sql string) error {
	for {
		s, tail, err := c.prepare(sql)
		if err != nil || s == nil {
			return err
		}
		for more := true; more && err == nil; {
			more, err = s.step()
		}
		if s.finalize(); err != nil {
			return err
		}
		sql = tail
	}
}

// each runs a query and calls f for each row.
func (c *conn) each(query string, f func(*stmt) error, args ...string) error {
	s, _, err := c.prepare(query)
	if err != nil {
		return err
	}
	s.begin(total(args))
	for i, a := range args {
		if err = s.bindText(i+1, []byte(a)); err != nil {
			break
		}
	}
	for err == nil {
		var more bool
		if more, err = s.step(); !more {
			break
		}
		err = f(s)
	}
	s.finalize()
	return err
}

func total(args []string) int {
	n := 0
	for _, a := range args {
		n += len(a)
	}
	return n
}

// number is the integer that a query gives in its first row.
func (c *conn) number(query string, args ...string) (n int64, err error) {
	err = c.each(query, func(s *stmt) error { n = s.int(0); return nil }, args...)
	return n, err
}

// text is the text that a query gives in its first row.
func (c *conn) text(query string) (t string, err error) {
	err = c.each(query, func(s *stmt) error { t = string(s.bytes(0)); return nil })
	return t, err
}

// step gives the next row and whether there is one.
func (s *stmt) step() (bool, error) {
	switch rc := lib.Xsqlite3_step(s.c.tls, s.p); rc {
	case lib.SQLITE_ROW:
		return true, nil
	case lib.SQLITE_DONE:
		return false, nil
	default:
		return false, s.c.failed(rc)
	}
}

func (s *stmt) reset() { lib.Xsqlite3_reset(s.c.tls, s.p) }

// finalize ends a statement; nil is none. Whatever error the last step had has been told.
func (s *stmt) finalize() {
	if s != nil && s.p != 0 {
		lib.Xsqlite3_finalize(s.c.tls, s.p)
		s.p = 0
	}
}

func (s *stmt) kind(i int) int32    { return lib.Xsqlite3_column_type(s.c.tls, s.p, int32(i)) }
func (s *stmt) int(i int) int64     { return lib.Xsqlite3_column_int64(s.c.tls, s.p, int32(i)) }
func (s *stmt) float(i int) float64 { return lib.Xsqlite3_column_double(s.c.tls, s.p, int32(i)) }
func (s *stmt) null(i int) bool     { return s.kind(i) == lib.SQLITE_NULL }

// bytes is the text in UTF-8, or the blob, of a column. It is valid until the next step.
func (s *stmt) bytes(i int) []byte {
	if s.kind(i) == lib.SQLITE_TEXT {
		p := lib.Xsqlite3_column_text(s.c.tls, s.p, int32(i))
		return s.memory(p, i)
	}
	return s.raw(i)
}

// raw is the blob of a column, or its text in the encoding of the database. It is valid until the next
// step.
func (s *stmt) raw(i int) []byte {
	return s.memory(lib.Xsqlite3_column_blob(s.c.tls, s.p, int32(i)), i)
}

func (s *stmt) memory(p uintptr, i int) []byte {
	n := lib.Xsqlite3_column_bytes(s.c.tls, s.p, int32(i))
	if p == 0 || n <= 0 {
		return nil
	}
	return libc.GoBytes(p, int(n))
}

// begin makes room for values of so many bytes in all, which are bound next; those before are forgotten.
func (s *stmt) begin(n int) {
	s.used = 0
	if n > s.c.size || s.c.size > 4<<20 && n < s.c.size/4 {
		libc.Xfree(s.c.tls, s.c.buf)
		s.c.size = max(n, min(2*n, 1<<20), 4096)
		s.c.buf = libc.Xmalloc(s.c.tls, libc.Tsize_t(s.c.size))
		if s.c.buf == 0 {
			s.c.size = 0
		}
	}
}

// hold keeps a value where SQLite can read it until the next begin.
func (s *stmt) hold(v []byte) (uintptr, error) {
	if len(v) > s.c.size-s.used {
		return 0, errors.New("out of memory")
	}
	p := s.c.buf + uintptr(s.used)
	if len(v) > 0 {
		copy(libc.GoBytes(p, len(v)), v)
		s.used += len(v)
	}
	return p, nil
}

func (s *stmt) bound(rc int32) error {
	if rc != lib.SQLITE_OK {
		return s.c.failed(rc)
	}
	return nil
}

func (s *stmt) bindNull(i int) error {
	return s.bound(lib.Xsqlite3_bind_null(s.c.tls, s.p, int32(i)))
}

func (s *stmt) bindInt(i int, v int64) error {
	return s.bound(lib.Xsqlite3_bind_int64(s.c.tls, s.p, int32(i), v))
}

func (s *stmt) bindFloat(i int, v float64) error {
	return s.bound(lib.Xsqlite3_bind_double(s.c.tls, s.p, int32(i), v))
}

// bindText binds text in UTF-8, which may have NUL bytes and bytes that are no UTF-8.
func (s *stmt) bindText(i int, v []byte) error {
	if len(v) == 0 { // any pointer but nil, which would be NULL
		return s.bound(lib.Xsqlite3_bind_text64(s.c.tls, s.p, int32(i), s.c.out, 0, 0, lib.SQLITE_UTF8))
	}
	p, err := s.hold(v)
	if err != nil {
		return err
	}
	return s.bound(lib.Xsqlite3_bind_text64(s.c.tls, s.p, int32(i), p, uint64(len(v)), 0, lib.SQLITE_UTF8))
}

func (s *stmt) bindBlob(i int, v []byte) error {
	if len(v) == 0 {
		return s.bound(lib.Xsqlite3_bind_zeroblob64(s.c.tls, s.p, int32(i), 0))
	}
	p, err := s.hold(v)
	if err != nil {
		return err
	}
	return s.bound(lib.Xsqlite3_bind_blob64(s.c.tls, s.p, int32(i), p, uint64(len(v)), 0))
}

// copyPages copies the pages of from, as its read transaction sees them, into to.
func copyPages(ctx context.Context, to, from *conn, wait func(error) error) error {
	const pages = 4096 // a step
	name, err := libc.CString("main")
	if err != nil {
		return err
	}
	defer libc.Xfree(to.tls, name)
	b := lib.Xsqlite3_backup_init(to.tls, to.db, name, from.db, name)
	if b == 0 {
		return to.failed(lib.Xsqlite3_errcode(to.tls, to.db))
	}
	for err == nil {
		rc := lib.Xsqlite3_backup_step(to.tls, b, pages)
		if rc == lib.SQLITE_DONE {
			break
		}
		switch rc & 0xff {
		case lib.SQLITE_OK:
			err = ctx.Err()
		case lib.SQLITE_BUSY, lib.SQLITE_LOCKED:
			err = wait(&dbError{code: rc, msg: "database is locked"})
		default:
			err = &dbError{code: rc, msg: libc.GoString(lib.Xsqlite3_errstr(to.tls, rc))}
		}
	}
	if rc := lib.Xsqlite3_backup_finish(to.tls, b); rc != lib.SQLITE_OK && err == nil {
		err = to.failed(rc)
	}
	return err
}

// quoted is a name as SQL writes it.
func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
