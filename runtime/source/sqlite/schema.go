package sqlite

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/torpor-run/torpor/host/abi"
)

// The SQL of a schema comes out of a state and is not trusted. Only what SQLite itself would have stored
// is run: it begins as SQLite begins what it stores, names what it makes, is one statement, and what is
// stored after it has run is the very text.

// statement checks the text of an object's SQL, and tells virtual tables.
func statement(o *object) (virtual bool, err error) {
	wrong := func(what string) (bool, error) {
		return false, fmt.Errorf("%w: its SQL %s", abi.ErrCorrupt, what)
	}
	begins := map[string][]string{
		"table":   {"CREATE TABLE ", "CREATE VIRTUAL TABLE "},
		"index":   {"CREATE INDEX ", "CREATE UNIQUE INDEX "},
		"view":    {"CREATE VIEW "},
		"trigger": {"CREATE TRIGGER "},
	}[o.kind]
	if begins == nil {
		return false, fmt.Errorf("%w: there is nothing of kind %q in a schema", abi.ErrCorrupt, o.kind)
	}
	at := slices.IndexFunc(begins, func(b string) bool { return strings.HasPrefix(o.sql, b) })
	if at < 0 {
		return wrong(fmt.Sprintf("does not begin with %q", begins[0]))
	}
	virtual = o.kind == "table" && at == 1
	name, rest, ok := firstName(o.sql[len(begins[at]):])
	if !ok || name != o.name {
		return wrong(fmt.Sprintf("makes %q", name))
	}
	rest = afterSpace(rest)
	if strings.HasPrefix(rest, ".") {
		return wrong("names a database")
	}
	if o.kind == "table" && !virtual && !strings.HasPrefix(rest, "(") {
		return wrong("does not list columns")
	}
	if o.kind == "table" || o.kind == "view" {
		if o.table != o.name {
			return wrong(fmt.Sprintf("is said to be of table %q", o.table))
		}
	}
	if len(o.name) >= 7 && strings.EqualFold(o.name[:7], "sqlite_") {
		switch {
		case o.kind == "table" && slices.Contains([]string{sequence, "sqlite_stat1", "sqlite_stat2", "sqlite_stat3", "sqlite_stat4"}, o.name):
		default:
			return wrong("has a name that is SQLite's own")
		}
	}
	return virtual, nil
}

// firstName is the name that SQL begins with, and what follows it.
func firstName(sql string) (name, rest string, ok bool) {
	sql = afterSpace(sql)
	if sql == "" {
		return "", "", false
	}
	switch q := sql[0]; q {
	case '"', '\'', '`':
		for i := 1; i < len(sql); i++ {
			if sql[i] != q {
				continue
			}
			if i+1 < len(sql) && sql[i+1] == q {
				i++
				continue
			}
			return strings.ReplaceAll(sql[1:i], string([]byte{q, q}), string(q)), sql[i+1:], true
		}
		return "", "", false
	case '[':
		end := strings.IndexByte(sql, ']')
		if end < 0 {
			return "", "", false
		}
		return sql[1:end], sql[end+1:], true
	}
	n := 0
	for n < len(sql) && (sql[n] >= 0x80 || sql[n] == '_' || sql[n] == '$' || isAlphanumeric(sql[n])) {
		n++
	}
	return sql[:n], sql[n:], n > 0
}

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// afterSpace passes over blanks and comments.
func afterSpace(sql string) string {
	for {
		sql = strings.TrimLeft(sql, " \t\r\n\f")
		switch {
		case strings.HasPrefix(sql, "--"):
			_, sql, _ = strings.Cut(sql, "\n")
		case strings.HasPrefix(sql, "/*"):
			_, sql, _ = strings.Cut(sql[2:], "*/")
		default:
			return sql
		}
	}
}

// compile compiles the one statement that an object's SQL must be.
func compile(c *conn, o *object) (*stmt, error) {
	s, tail, err := c.prepare(o.sql)
	if err != nil {
		return nil, err
	}
	if s == nil || tail != "" {
		s.finalize()
		return nil, fmt.Errorf("%w: its SQL is not one statement: behind it stands %.100q", abi.ErrCorrupt, tail)
	}
	return s, nil
}

// create runs the SQL that makes an object, and holds what has come of it against what was to.
func create(c *conn, o *object) error {
	before, err := c.number("SELECT coalesce(max(rowid), 0) FROM sqlite_schema")
	if err != nil {
		return err
	}
	s, err := compile(c, o)
	if err != nil {
		return err
	}
	_, err = s.step()
	if s.finalize(); err != nil {
		return err
	}
	found := false
	err = c.each(fmt.Sprintf("SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE rowid > %d", before), func(s *stmt) error {
		row := [4]string{string(s.bytes(0)), string(s.bytes(1)), string(s.bytes(2)), string(s.bytes(3))}
		switch {
		case row == [4]string{o.kind, o.name, o.table, o.sql}:
			found = true
		case row[0] == "index" && s.null(3) && o.kind == "table": // of a key
		case row[1] == sequence && o.kind == "table":
		default:
			return fmt.Errorf("%w: its SQL makes %s %s: %.200q", abi.ErrCorrupt, row[0], quoted(row[1]), row[3])
		}
		return nil
	})
	if err == nil && !found {
		err = fmt.Errorf("%w: its SQL does not make it", abi.ErrCorrupt)
	}
	return err
}

// makeTable makes a table and completes o, which must tell its columns rightly.
func makeTable(c *conn, o *object) error {
	own := strings.HasPrefix(strings.ToLower(o.name), "sqlite_")
	there := int64(0)
	var err error
	if own {
		if there, err = c.number("SELECT count(*) FROM sqlite_schema WHERE name = ? AND sql = ?", o.name, o.sql); err != nil {
			return err
		}
	}
	if there == 0 {
		if own { // or SQLite keeps the name to itself
			err = c.exec("PRAGMA writable_schema=ON")
		}
		if err == nil {
			err = create(c, o)
		}
		if own {
			err = errors.Join(err, c.exec("PRAGMA writable_schema=OFF"))
		}
		if err != nil {
			return err
		}
	}
	is := &object{name: o.name}
	if err := readColumns(c, is); err != nil {
		return err
	}
	if !slices.Equal(is.columns, o.columns) || !slices.Equal(is.key, o.key) || is.rowid != o.rowid {
		return fmt.Errorf("%w: its columns and key are not those that its SQL makes", abi.ErrCorrupt)
	}
	o.rowidName = is.rowidName
	return nil
}

// makeVirtual enters a virtual table into the schema, as a dump does: its module does not run, and need
// not be there; its rows are in tables beside it.
func makeVirtual(c *conn, o *object) error {
	s, err := compile(c, o)
	if s.finalize(); err != nil {
		return err
	}
	n, err := c.number("SELECT count(*) FROM sqlite_schema WHERE name = ?", o.name)
	if err != nil {
		return err
	}
	if n > 0 {
		return fmt.Errorf("%w: it is there twice", abi.ErrCorrupt)
	}
	if err := c.exec("PRAGMA writable_schema=ON"); err != nil {
		return err
	}
	err = c.each("INSERT INTO sqlite_schema(type, name, tbl_name, rootpage, sql) VALUES('table', ?, ?, 0, ?)", func(*stmt) error { return nil }, o.name, o.name, o.sql)
	return errors.Join(err, c.exec("PRAGMA writable_schema=OFF"))
}
