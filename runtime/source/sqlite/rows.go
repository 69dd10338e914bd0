package sqlite

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	lib "modernc.org/sqlite/lib"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// writeRows writes one database, which nobody changes, as items.
func writeRows(ctx context.Context, c *conn, name string, wal bool, w io.Writer) error {
	d := dumper{ctx: ctx, c: c, w: w, buf: make([]byte, 0, 64<<10)}
	v, err := readDatabase(c, wal)
	if err != nil {
		return err
	}
	d.wide = v.encoding != "UTF-8"
	d.big = v.encoding == "UTF-16be"
	v.name = name
	d.buf = record.AppendArray(d.buf, 2)
	d.buf = record.AppendUint(d.buf, itemDatabase)
	d.buf = v.append(d.buf)
	objects, err := readSchema(c)
	if err != nil {
		return err
	}
	if err := rehearse(ctx, objects, v.encoding); err != nil {
		return err
	}
	for _, o := range objects {
		at := len(d.buf)
		d.buf = o.appendItem(d.buf)
		if n := len(d.buf) - at; n > maxSchema {
			return fmt.Errorf("%w: %s %s: its SQL and names take %d bytes, more than %d; save the database as pages (form %q)",
				abi.ErrTooLarge, o.kind, quoted(o.name), n, maxSchema, Pages)
		}
		if err := d.flush(false); err != nil {
			return err
		}
	}
	for _, o := range objects {
		if o.stored {
			if err := d.table(o); err != nil {
				return fmt.Errorf("table %s: %w", quoted(o.name), err)
			}
		}
	}
	return d.flush(true)
}

// readDatabase reads the pragmas.
func readDatabase(c *conn, wal bool) (v pragmas, err error) {
	for _, p := range []struct {
		name string
		to   *int64
	}{
		{"page_size", &v.pageSize},
		{"auto_vacuum", &v.autoVacuum},
		{"user_version", &v.userVersion},
		{"application_id", &v.applicationID},
	} {
		if *p.to, err = c.number("PRAGMA " + p.name); err != nil {
			return v, err
		}
	}
	v.journalMode = "delete"
	if wal {
		v.journalMode = "wal"
	}
	v.encoding, err = c.text("PRAGMA encoding")
	return v, err
}

// readSchema reads the schema: tables first, then what is made of them, each in the order of
// sqlite_schema, which is the order in which a restore makes them again.
func readSchema(c *conn) ([]*object, error) {
	var all []*object
	err := c.each("SELECT type, name, tbl_name, sql, rootpage FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type <> 'table', rowid", func(s *stmt) error {
		o := &object{kind: string(s.bytes(0)), name: string(s.bytes(1)), table: string(s.bytes(2)), sql: string(s.bytes(3))}
		for _, t := range []string{o.name, o.table, o.sql} {
			if !utf8.ValidString(t) {
				return fmt.Errorf("%s %q: its name or SQL is not UTF-8; save the database as pages (form %q)", o.kind, o.name, Pages)
			}
		}
		o.virtual = o.kind == "table" && s.int(4) == 0
		o.stored = o.kind == "table" && !o.virtual
		all = append(all, o)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, o := range all {
		if o.stored {
			if err := readColumns(c, o); err != nil {
				return nil, fmt.Errorf("table %s: %w", quoted(o.name), err)
			}
		}
		if o.kind == "index" {
			if err := knownCollations(c, o.name); err != nil {
				return nil, fmt.Errorf("index %s: %w", quoted(o.name), err)
			}
		}
	}
	return all, nil
}

// rehearse makes a schema in memory as a restore would, so that what a restore would refuse is not saved:
// functions and collations of the service's own, and SQL that SQLite has not written.
func rehearse(ctx context.Context, objects []*object, encoding string) (err error) {
	if len(objects) > maxObjects {
		return fmt.Errorf("%w: more than %d tables, indexes, views and triggers; save the database as pages (form %q)", abi.ErrTooLarge, maxObjects, Pages)
	}
	c, err := open(":memory:", openCreate)
	if err != nil {
		return err
	}
	done := c.interrupted(ctx)
	defer func() { err = errors.Join(done(err), c.close()) }()
	if err := c.exec(fmt.Sprintf("PRAGMA encoding='%s'; BEGIN", encoding)); err != nil {
		return err
	}
	for _, o := range objects {
		if err := ctx.Err(); err != nil {
			return err
		}
		again := *o
		virtual, err := statement(&again)
		switch {
		case err != nil:
		case virtual:
			err = makeVirtual(c, &again)
		case o.kind == "table":
			err = makeTable(c, &again)
		default:
			err = create(c, &again)
		}
		if err != nil {
			// Its words only: the database is not corrupt.
			return fmt.Errorf("%s %s: no restore could make it again, only the service can; save the database as pages (form %q): %s",
				o.kind, quoted(o.name), Pages, err.Error())
		}
	}
	return nil
}

// readColumns reads a table's columns and what its rows are told apart by.
func readColumns(c *conn, o *object) error {
	type keyColumn struct{ place, column int }
	var keys []keyColumn
	names := map[string]bool{}
	err := c.each("SELECT name, pk, hidden FROM pragma_table_xinfo(?)", func(s *stmt) error {
		name := string(s.bytes(0))
		names[strings.ToLower(name)] = true
		if pk := int(s.int(1)); pk > 0 {
			keys = append(keys, keyColumn{pk, len(o.columns)})
		}
		if s.int(2) == 0 {
			o.columns = append(o.columns, name)
		}
		return nil
	}, o.name)
	if err != nil {
		return err
	}
	slices.SortFunc(keys, func(a, b keyColumn) int { return a.place - b.place })
	for _, k := range keys {
		o.key = append(o.key, k.column)
	}
	var indexes []string
	keyIndex := ""
	err = c.each("SELECT name, origin FROM pragma_index_list(?)", func(s *stmt) error {
		indexes = append(indexes, string(s.bytes(0)))
		if string(s.bytes(1)) == "pk" {
			keyIndex = string(s.bytes(0))
		}
		return nil
	}, o.name)
	if err != nil {
		return err
	}
	for _, i := range indexes {
		if err := knownCollations(c, i); err != nil {
			return err
		}
	}
	if len(keys) > 0 && keyIndex == "" {
		return nil // an INTEGER PRIMARY KEY, which is the rowid
	}
	if keyIndex != "" {
		n, err := c.number("SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND name = ?", keyIndex)
		if err != nil || n == 0 {
			return err // WITHOUT ROWID: the index of the key is the table
		}
	}
	o.rowid = true
	for _, n := range []string{"rowid", "_rowid_", "oid"} {
		if !names[n] {
			o.rowidName = n
			break
		}
	}
	return nil
}

// knownCollations refuses an index that only the service can keep sorted.
func knownCollations(c *conn, index string) error {
	return c.each("SELECT DISTINCT coll FROM pragma_index_xinfo(?) WHERE key AND upper(coll) NOT IN ('BINARY', 'NOCASE', 'RTRIM')", func(s *stmt) error {
		return fmt.Errorf("sorted by the collation %s, which is the service's own; save the database as pages (form %q)", quoted(string(s.bytes(0))), Pages)
	}, index)
}

type dumper struct {
	ctx       context.Context
	c         *conn
	w         io.Writer
	buf       []byte
	wide, big bool // text is UTF-16, and its first byte the high one
	utf8      []byte
}

// flush writes what has gathered, if it is worth it.
func (d *dumper) flush(all bool) error {
	if !all && len(d.buf) < 48<<10 {
		return nil
	}
	if err := d.ctx.Err(); err != nil {
		return err
	}
	_, err := d.w.Write(d.buf)
	d.buf = d.buf[:0]
	return err
}

func (d *dumper) table(o *object) error {
	var q strings.Builder
	q.WriteString("SELECT ")
	if o.rowid {
		if o.rowidName == "" {
			q.WriteString("NULL") // counted, below
		} else {
			q.WriteString(o.rowidName)
		}
	}
	for i, c := range o.columns {
		if i > 0 || o.rowid {
			q.WriteString(", ")
		}
		q.WriteString(quoted(c))
	}
	// Not out of an index that has all columns, whose order is another.
	q.WriteString(" FROM " + quoted(o.name) + " NOT INDEXED")
	var count int64
	return d.c.each(q.String(), func(s *stmt) error {
		if count++; count == 1 {
			d.buf = record.AppendArray(d.buf, 2)
			d.buf = record.AppendUint(d.buf, itemRows)
			d.buf = record.AppendText(d.buf, o.name)
		}
		if err := d.row(s, o, count); err != nil {
			return fmt.Errorf("row %d: %w", count, err)
		}
		return d.flush(false)
	})
}

func (d *dumper) row(s *stmt, o *object, count int64) error {
	first := 0
	if o.rowid {
		first = 1
	}
	begin := len(d.buf)
	d.buf = record.AppendArray(d.buf, 1+first+len(o.columns))
	d.buf = record.AppendUint(d.buf, itemRow)
	if o.rowid {
		id := count
		if o.rowidName != "" {
			id = s.int(0)
		}
		d.buf = record.AppendInt(d.buf, id)
	}
	keys := 0 // bytes of the primary key, which stays in the row if it can: the row is told by it
	for _, k := range o.key {
		if t := s.kind(first + k); t == lib.SQLITE_TEXT || t == lib.SQLITE_BLOB {
			keys += len(s.raw(first + k))
		}
	}
	in := func(i, n int) bool {
		return n <= shortValue || n <= inlineValue && len(d.buf)-begin+n <= inlineRow ||
			keys <= inlineValue && slices.Contains(o.key, i-first)
	}
	var long []int
	for i := first; i < first+len(o.columns); i++ {
		switch s.kind(i) {
		case lib.SQLITE_INTEGER:
			d.buf = record.AppendInt(d.buf, s.int(i))
		case lib.SQLITE_FLOAT:
			d.buf = record.AppendFloat(d.buf, s.float(i))
		case lib.SQLITE_TEXT:
			v := s.raw(i)
			if !in(i, len(v)) {
				long = append(long, i)
				d.buf = appendLong(d.buf, "text", len(v))
				continue
			}
			text, ok := d.text(v)
			if !ok {
				d.buf = record.AppendArray(d.buf, 1)
				d.buf = record.AppendBytes(d.buf, v)
				continue
			}
			d.buf = record.AppendText(d.buf, text)
		case lib.SQLITE_BLOB:
			v := s.raw(i)
			if !in(i, len(v)) {
				long = append(long, i)
				d.buf = appendLong(d.buf, "blob", len(v))
				continue
			}
			d.buf = record.AppendBytes(d.buf, v)
		default:
			d.buf = record.AppendNull(d.buf)
		}
	}
	if n := len(d.buf) - begin; n > maxItem {
		return fmt.Errorf("%w: a row of %d bytes beside its long values; save the database as pages (form %q)", abi.ErrTooLarge, n, Pages)
	}
	for _, i := range long {
		for v := s.raw(i); len(v) > 0; {
			if err := d.flush(true); err != nil {
				return err
			}
			n := min(len(v), pieceBytes)
			d.buf = record.AppendArray(d.buf, 3)
			d.buf = record.AppendUint(d.buf, itemPiece)
			d.buf = record.AppendUint(d.buf, uint64(i-first))
			d.buf = record.AppendBytes(d.buf, v[:n])
			v = v[n:]
		}
	}
	return nil
}

// appendLong says that a value of n bytes follows in pieces.
func appendLong(dst []byte, kind string, n int) []byte {
	dst = record.AppendMap(dst, 1)
	dst = record.AppendText(dst, kind)
	return record.AppendUint(dst, uint64(n))
}

// text is raw text in UTF-8, and whether it is text.
func (d *dumper) text(raw []byte) ([]byte, bool) {
	if !d.wide {
		return raw, utf8.Valid(raw)
	}
	if len(raw)%2 != 0 {
		return nil, false
	}
	var order binary.ByteOrder = binary.LittleEndian
	if d.big {
		order = binary.BigEndian
	}
	d.utf8 = d.utf8[:0]
	for i := 0; i < len(raw); i += 2 {
		r := rune(order.Uint16(raw[i:]))
		if utf16.IsSurrogate(r) {
			if i += 2; i >= len(raw) {
				return nil, false
			}
			if r = utf16.DecodeRune(r, rune(order.Uint16(raw[i:]))); r == utf8.RuneError {
				return nil, false
			}
		}
		if r == 0xfffe || r == 0xffff {
			return nil, false // which SQLite makes U+FFFD of on the way back
		}
		d.utf8 = utf8.AppendRune(d.utf8, r)
	}
	return d.utf8, true
}
