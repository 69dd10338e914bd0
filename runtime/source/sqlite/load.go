package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	lib "modernc.org/sqlite/lib"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// Bounds of what is held in memory for each database of a state.
const (
	maxObjects      = 1 << 20  // of its schema
	maxSequence     = 1 << 20  // rows of sqlite_sequence
	maxSequenceSize = 32 << 20 // bytes of them
)

// loader builds databases from items. What it is given is not trusted.
type loader struct {
	ctx     context.Context
	st      *staging
	now     *staged // the database entered
	table   *object // whose rows come
	insert  *stmt
	row     []value
	pending []int // of row, that are to come in pieces
	cast    castStmt
	rows    int64 // of the table so far, for errors
}

// value is a value of a row.
type value struct {
	kind  byte // 'i', 'f', 't', 'b', 'n', and 'r': text in the database's encoding
	i     int64
	f     float64
	s     []byte
	total int64 // bytes that are to come in pieces
}

// castStmt is an insert that makes text of some of its values, of which there are few.
type castStmt struct {
	which string
	stmt  *stmt
}

// load reads a state of rows to its end.
func (l *loader) load(r io.Reader) (err error) {
	defer func() { err = errors.Join(err, l.leave()) }()
	d := &items{r: r}
	first, err := d.next()
	if err == io.EOF { //nolint:errorlint // ours
		return fmt.Errorf("%w: the state is empty", abi.ErrCorrupt)
	}
	if err != nil {
		return err
	}
	if err := checkHead(first); err != nil {
		return err
	}
	p := record.NewPull(nil)
	for count := 0; ; count++ {
		at := d.offset
		item, err := d.next()
		if err == io.EOF { //nolint:errorlint // ours
			return fmt.Errorf("%w: the state ends at offset %d without its end", abi.ErrCorrupt, at)
		}
		if err != nil {
			return err
		}
		if count%256 == 0 {
			if err := l.ctx.Err(); err != nil {
				return err
			}
		}
		p.Reset(item)
		done, err := l.item(p)
		if err != nil {
			return l.blame(err, at)
		}
		if done {
			if err := l.whole(); err != nil {
				return l.blame(err, at)
			}
			if _, err := d.next(); err == nil {
				return fmt.Errorf("%w: offset %d: there is more behind the end of the state", abi.ErrCorrupt, d.offset)
			} else if err != io.EOF { //nolint:errorlint // ours
				return err
			}
			return nil
		}
	}
}

// blame says where an error came up, and makes one of the state what SQLite refused of it.
func (l *loader) blame(err error, at int64) error {
	if err := l.ctx.Err(); err != nil {
		return err
	}
	where := fmt.Sprintf("offset %d", at)
	if l.now != nil && l.now.name != "" {
		where += ", database " + l.now.name
	}
	if l.table != nil {
		where += fmt.Sprintf(", table %s, row %d", quoted(l.table.name), l.rows)
	}
	return fmt.Errorf("%s: %w", where, refused(err))
}

// refused makes abi.ErrCorrupt of what SQLite did not take.
func refused(err error) error {
	switch code(err) {
	case lib.SQLITE_ERROR, lib.SQLITE_CONSTRAINT, lib.SQLITE_MISMATCH, lib.SQLITE_RANGE, lib.SQLITE_AUTH, lib.SQLITE_READONLY:
		if !errors.Is(err, abi.ErrVersion) {
			return fmt.Errorf("%w: %w", abi.ErrCorrupt, explain(err))
		}
	}
	var f *record.FormatError
	if errors.As(err, &f) {
		return fmt.Errorf("%w: %s", f.Err, f.Reason)
	}
	return err
}

// item takes one item and says whether it is the end.
func (l *loader) item(p *record.Pull) (bool, error) {
	n := p.Array()
	kind := p.Uint()
	if err := p.Err(); err != nil || n == 0 {
		return false, errors.Join(fmt.Errorf("%w: not an item", abi.ErrCorrupt), err)
	}
	if kind != itemPiece {
		if err := l.whole(); err != nil {
			return false, err
		}
	}
	lengths := [...]int{itemDatabase: 2, itemSchema: 2, itemRows: 2, itemPiece: 3, itemReturn: 2, itemEnd: 1}
	if kind == 0 || kind > itemEnd || (kind != itemRow && n != lengths[kind]) {
		return false, fmt.Errorf("%w: an item of kind %d with %d parts", abi.ErrCorrupt, kind, n)
	}
	if l.now == nil && kind != itemDatabase && kind != itemEnd {
		return false, fmt.Errorf("%w: an item of kind %d before a database", abi.ErrCorrupt, kind)
	}
	switch kind {
	case itemDatabase:
		v, err := readPragmas(p)
		if err = errors.Join(err, p.End()); err != nil {
			return false, err
		}
		if err := l.leave(); err != nil {
			return false, err
		}
		l.now, err = l.st.add(v.name)
		if err != nil {
			return false, err
		}
		l.now.pragmas = v
		return false, l.enter(true)
	case itemReturn:
		name := string(p.Text())
		if err := p.End(); err != nil {
			return false, err
		}
		if err := l.leave(); err != nil {
			return false, err
		}
		for _, g := range l.st.all {
			if g.name == name {
				l.now = g
				return false, l.enter(false)
			}
		}
		return false, fmt.Errorf("%w: back to database %q, which did not come", abi.ErrCorrupt, name)
	case itemSchema:
		o, err := readObject(p)
		if err = errors.Join(err, p.End()); err != nil {
			return false, err
		}
		l.close()
		if err := l.object(o); err != nil {
			return false, fmt.Errorf("%s %s: %w", o.kind, quoted(o.name), err)
		}
	case itemRows:
		name := string(p.Text())
		if err := p.End(); err != nil {
			return false, err
		}
		return false, l.begin(name)
	case itemRow:
		if l.table == nil {
			return false, fmt.Errorf("%w: a row of no table", abi.ErrCorrupt)
		}
		return false, l.values(p, n-1)
	case itemPiece:
		return false, l.piece(p)
	case itemEnd:
		return true, p.End()
	}
	return false, nil
}

// enter opens the database being built that l.now is.
func (l *loader) enter(first bool) (err error) {
	g := l.now
	if g.c, err = open(g.temp, openCreate); err != nil {
		return err
	}
	g.stop = g.c.interrupted(l.ctx)
	if first {
		err = g.c.exec(fmt.Sprintf("PRAGMA page_size=%d; PRAGMA encoding='%s'; PRAGMA auto_vacuum=%d",
			g.pragmas.pageSize, g.pragmas.encoding, g.pragmas.autoVacuum))
	}
	// Nothing of it counts before it is whole.
	err = errors.Join(err, g.c.exec("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA locking_mode=EXCLUSIVE; PRAGMA cache_size=-16384; BEGIN"))
	if err == nil && first && g.pragmas.encoding != "UTF-8" { // which is stored with the first table only
		err = g.c.exec("CREATE TABLE t(a); DROP TABLE t")
	}
	return err
}

// leave closes the database being built.
func (l *loader) leave() error {
	if l.now == nil || l.now.c == nil {
		return nil
	}
	l.close()
	var err error
	if l.ctx.Err() == nil {
		err = l.now.c.exec("COMMIT")
	}
	err = errors.Join(l.now.stop(err), l.now.c.close())
	l.now.c = nil
	return err
}

// close ends the rows of a table.
func (l *loader) close() {
	l.insert.finalize()
	l.cast.stmt.finalize()
	l.insert, l.cast, l.table, l.rows = nil, castStmt{}, nil, 0
}

// object takes an entry of the schema. Tables are made at once; what is made of them, when all rows are
// there.
func (l *loader) object(o *object) error {
	g := l.now
	if g.objects++; g.objects > maxObjects {
		return fmt.Errorf("%w: more than %d tables, indexes, views and triggers", abi.ErrTooLarge, maxObjects)
	}
	virtual, err := statement(o)
	if err != nil {
		return err
	}
	if o.kind != "table" {
		if o.stored {
			return fmt.Errorf("%w: rows of what is no table", abi.ErrCorrupt)
		}
		g.later = append(g.later, o)
		return nil
	}
	if o.stored == virtual {
		return fmt.Errorf("%w: a virtual table has no columns here, and any other has", abi.ErrCorrupt)
	}
	if virtual {
		return makeVirtual(g.c, o)
	}
	if err := makeTable(g.c, o); err != nil {
		return err
	}
	if g.tables[o.name] != nil {
		return fmt.Errorf("%w: it is there twice", abi.ErrCorrupt)
	}
	g.tables[o.name] = o
	return nil
}

// begin begins the rows of a table.
func (l *loader) begin(name string) error {
	l.close()
	o := l.now.tables[name]
	if o == nil {
		return fmt.Errorf("%w: rows of table %s, which did not come", abi.ErrCorrupt, quoted(name))
	}
	l.table = o
	if o.name == sequence {
		return nil
	}
	var err error
	l.insert, _, err = l.now.c.prepare(insertSQL(o, ""))
	return err
}

const sequence = "sqlite_sequence"

// insertSQL is the statement that inserts a row. Bytes of raw that are 'r' say which values are to be
// made text of the database's encoding.
func insertSQL(o *object, raw string) string {
	var names, values strings.Builder
	add := func(name string) {
		if names.Len() > 0 {
			names.WriteString(", ")
			values.WriteString(", ")
		}
		names.WriteString(name)
		if i := strings.Count(values.String(), "?"); i < len(raw) && raw[i] == 'r' {
			values.WriteString("CAST(? AS TEXT)")
			return
		}
		values.WriteString("?")
	}
	if o.rowid && o.rowidName != "" {
		add(o.rowidName)
	} else if o.rowid && raw != "" {
		raw = raw[1:]
	}
	for _, c := range o.columns {
		add(quoted(c))
	}
	// A conflict is an error, whatever the table says of it.
	return "INSERT OR ABORT INTO " + quoted(o.name) + "(" + names.String() + ") VALUES(" + values.String() + ")"
}

// values takes a row.
func (l *loader) values(p *record.Pull, n int) error {
	o := l.table
	want := len(o.columns)
	if o.rowid {
		want++
	}
	if n != want {
		return fmt.Errorf("%w: a row of %d values in a table of %d", abi.ErrCorrupt, n, want)
	}
	l.rows++
	l.row = l.row[:0]
	for i := range n {
		v, err := readValue(p)
		if err != nil {
			return err
		}
		if i == 0 && o.rowid && v.kind != 'i' {
			return fmt.Errorf("%w: a rowid that is no integer", abi.ErrCorrupt)
		}
		if v.total > 0 {
			l.pending = append(l.pending, i)
		}
		l.row = append(l.row, v)
	}
	if err := p.End(); err != nil {
		return err
	}
	if len(l.pending) == 0 {
		return l.store()
	}
	for i := range l.row { // the item is overwritten by those that follow
		l.row[i].s = slices.Clone(l.row[i].s)
	}
	return nil
}

func readValue(p *record.Pull) (v value, err error) {
	switch p.Peek() {
	case record.KindUint, record.KindNeg:
		v.kind, v.i = 'i', p.Int()
	case record.KindText:
		v.kind, v.s = 't', p.Text()
		if !utf8.Valid(v.s) {
			return v, fmt.Errorf("%w: text that is not UTF-8", abi.ErrCorrupt)
		}
	case record.KindBytes:
		v.kind, v.s = 'b', p.Bytes()
	case record.KindFloat:
		v.kind, v.f = 'f', p.Float()
		if math.IsNaN(v.f) {
			return v, fmt.Errorf("%w: a number that is none", abi.ErrCorrupt)
		}
	case record.KindNull:
		p.Null()
		v.kind = 'n'
	case record.KindArray:
		if n := p.Array(); n != 1 {
			return v, fmt.Errorf("%w: a list of %d as value", abi.ErrCorrupt, n)
		}
		v.kind, v.s = 'r', p.Bytes()
	case record.KindMap:
		if n := p.Map(); n != 1 {
			return v, fmt.Errorf("%w: a map of %d as value", abi.ErrCorrupt, n)
		}
		switch kind := string(p.Text()); kind {
		case "text":
			v.kind = 'r'
		case "blob":
			v.kind = 'b'
		default:
			return v, fmt.Errorf("%w: a value in pieces of kind %q", abi.ErrCorrupt, kind)
		}
		n := p.Uint()
		if n == 0 || n > maxValue {
			return v, fmt.Errorf("%w: a value of %d bytes in pieces", abi.ErrTooLarge, n)
		}
		v.total = int64(n)
	default:
		return v, fmt.Errorf("%w: a value of no kind that SQLite has", abi.ErrCorrupt)
	}
	return v, p.Err()
}

// piece takes a piece of a long value. They come column by column.
func (l *loader) piece(p *record.Pull) error {
	column := p.Uint()
	b := p.Bytes()
	if err := p.End(); err != nil {
		return err
	}
	if l.table != nil && l.table.rowid {
		column++
	}
	if len(l.pending) == 0 || column != uint64(l.pending[0]) {
		return fmt.Errorf("%w: a piece of column %d that no row waits for", abi.ErrCorrupt, column)
	}
	v := &l.row[l.pending[0]]
	if len(b) == 0 || int64(len(v.s)+len(b)) > v.total {
		return fmt.Errorf("%w: pieces of more than the %d bytes of the value", abi.ErrCorrupt, v.total)
	}
	if need := len(v.s) + len(b); need > cap(v.s) { // with what has come, not with what is said to come
		v.s = append(make([]byte, 0, min(int(v.total), 2*need)), v.s...)
	}
	v.s = append(v.s, b...)
	if int64(len(v.s)) < v.total {
		return nil
	}
	if l.pending = l.pending[1:]; len(l.pending) > 0 {
		return nil
	}
	l.pending = nil
	return l.store()
}

// whole refuses to go on while pieces are missing.
func (l *loader) whole() error {
	if len(l.pending) > 0 {
		v := l.row[l.pending[0]]
		return fmt.Errorf("%w: of a value of %d bytes only %d came", abi.ErrCorrupt, v.total, len(v.s))
	}
	return nil
}

// store writes the row.
func (l *loader) store() error {
	if l.table.name == sequence {
		return l.keepSequence()
	}
	raw := ""
	for i, v := range l.row {
		if v.kind == 'r' {
			if raw == "" {
				raw = strings.Repeat(".", len(l.row))
			}
			raw = raw[:i] + "r" + raw[i+1:]
		}
	}
	s := l.insert
	if raw != "" {
		if l.cast.which != raw || l.cast.stmt == nil {
			fresh, _, err := l.now.c.prepare(insertSQL(l.table, raw))
			if err != nil {
				return err
			}
			l.cast.stmt.finalize()
			l.cast = castStmt{which: raw, stmt: fresh}
		}
		s = l.cast.stmt
	}
	row := l.row
	if l.table.rowid && l.table.rowidName == "" {
		row = row[1:]
	}
	return run(s, row)
}

// run binds values and runs a statement once.
func run(s *stmt, row []value) error {
	size := 0
	for _, v := range row {
		size += len(v.s)
	}
	s.begin(size)
	for i, v := range row {
		var err error
		switch v.kind {
		case 'i':
			err = s.bindInt(i+1, v.i)
		case 'f':
			err = s.bindFloat(i+1, v.f)
		case 't':
			err = s.bindText(i+1, v.s)
		case 'b', 'r':
			err = s.bindBlob(i+1, v.s)
		default:
			err = s.bindNull(i + 1)
		}
		if err != nil {
			return err
		}
	}
	_, err := s.step()
	s.reset()
	return err
}

// keepSequence keeps a row of sqlite_sequence until all others are there, which change it.
func (l *loader) keepSequence() error {
	g := l.now
	row := slices.Clone(l.row)
	for i := range row {
		row[i].s = slices.Clone(row[i].s)
		g.sequenceSize += len(row[i].s)
	}
	if g.sequence = append(g.sequence, row); len(g.sequence) > maxSequence || g.sequenceSize > maxSequenceSize {
		return fmt.Errorf("%w: more than %d rows of %s", abi.ErrTooLarge, maxSequence, sequence)
	}
	return nil
}
