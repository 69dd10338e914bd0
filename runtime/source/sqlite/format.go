package sqlite

import (
	"fmt"
	"io"
	"math"
	"unicode/utf8"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// The native form of databases as rows is written down in modules/sqlite/README.md ("Native form").

// The kinds of items, each the first number of its array.
const (
	itemHead     = 0 // [0, "torpor-sqlite", 1]
	itemDatabase = 1 // [1, {name, pragmas}]
	itemSchema   = 2 // [2, {type, name, ...}]
	itemRows     = 3 // [3, table]
	itemRow      = 4 // [4, value...]
	itemPiece    = 5 // [5, column, bytes]
	itemReturn   = 6 // [6, name]
	itemEnd      = 7 // [7]
)

const (
	formatName    = "torpor-sqlite"
	pagesName     = "torpor-sqlite-pages"
	formatVersion = 1
)

// Bounds of the form. modules/sqlite is built for the same.
const (
	// maxItem bounds every item.
	maxItem = 2 << 20
	// maxSchema bounds the SQL, names and columns of one object of a schema.
	maxSchema = 768 << 10
	// inlineValue bounds the values in a row; longer ones follow it in pieces.
	inlineValue = 256 << 10
	// inlineRow is how long a row may become with values in it of more than shortValue bytes.
	inlineRow = 768 << 10
	// shortValue bounds the values that are always in the row.
	shortValue = 16
	// pieceBytes is the size of pieces but the last of a value.
	pieceBytes = 256 << 10
	// maxValue bounds a value, as SQLite does.
	maxValue = 1_000_000_000
	// maxName bounds the name of a database.
	maxName = 1 << 10
)

// items reads items from a stream, each whole in memory.
type items struct {
	r          io.Reader
	buf        []byte
	start, end int
	offset     int64 // of start
	ended      bool
}

// fill adds to the window. io.EOF means that nothing came.
func (d *items) fill() error {
	if d.ended {
		return io.EOF
	}
	if d.start > 0 {
		copy(d.buf, d.buf[d.start:d.end])
		d.end -= d.start
		d.start = 0
	}
	if d.end == len(d.buf) {
		if len(d.buf) >= maxItem {
			return fmt.Errorf("%w: the item at offset %d is longer than %d bytes", abi.ErrTooLarge, d.offset, maxItem)
		}
		d.buf = append(d.buf, make([]byte, max(64<<10, len(d.buf)))...)
	}
	for range 100 {
		n, err := d.r.Read(d.buf[d.end:])
		d.end += n
		if err == io.EOF {
			d.ended = true
			err = nil
			if n == 0 {
				return io.EOF
			}
		}
		if n > 0 || err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// next is the next item, valid until the call after. io.EOF means that there is none.
func (d *items) next() ([]byte, error) {
	for {
		window := d.buf[d.start:d.end]
		n, err := itemLength(window)
		if err != nil {
			return nil, fmt.Errorf("%w: offset %d: %v", abi.ErrCorrupt, d.offset, err) //nolint:errorlint // the reason only
		}
		if n > 0 && n <= len(window) {
			d.start += n
			d.offset += int64(n)
			return window[:n], nil
		}
		if err := d.fill(); err == io.EOF { //nolint:errorlint // ours
			if len(window) == 0 {
				return nil, io.EOF
			}
			return nil, fmt.Errorf("%w: the state ends inside an item, at offset %d", abi.ErrCorrupt, d.offset+int64(len(window)))
		} else if err != nil {
			return nil, err
		}
	}
}

// maxNesting is how deep the form nests: an array, a map, an array, and one for mistakes.
const maxNesting = 4

// itemLength is the length of the item that b begins with; 0 or more than b has if it is not all there.
func itemLength(b []byte) (int, error) {
	var left [maxNesting + 1]uint64
	depth, at := 0, 0
	left[0] = 1
	for {
		for left[depth] == 0 {
			if depth == 0 {
				return at, nil
			}
			depth--
		}
		left[depth]--
		if at >= len(b) {
			return 0, nil
		}
		first := b[at]
		major, info := first>>5, first&31
		arg, size := uint64(info), 1
		switch {
		case info < 24:
		case info < 28:
			size += 1 << (info - 24)
			if len(b)-at < size {
				return 0, nil
			}
			arg = 0
			for _, x := range b[at+1 : at+size] {
				arg = arg<<8 | uint64(x)
			}
		default:
			return 0, fmt.Errorf("the byte %#x begins no item of definite length", first)
		}
		at += size
		switch major {
		case 2, 3:
			if arg > maxItem {
				return 0, fmt.Errorf("a string of %d bytes; longer values come in pieces", arg)
			}
			at += int(arg)
		case 4, 5:
			if arg > maxItem {
				return 0, fmt.Errorf("a collection of %d items", arg)
			}
			if depth++; depth > maxNesting {
				return 0, fmt.Errorf("nested too deep")
			}
			left[depth] = arg << (major - 4)
		case 6:
			return 0, fmt.Errorf("a tag, which the form does not have")
		}
	}
}

// object is an entry of a database's schema.
type object struct {
	kind, name, table, sql string
	virtual                bool

	// Of tables that have rows:
	stored  bool     // it is one
	columns []string // in their order, without generated ones
	key     []int    // of the primary key, indexes into columns, in the key's order
	rowid   bool     // rows have a rowid that is no column: it comes first

	rowidName string // by which SQL reaches it; empty if columns have all its names
}

func (o *object) appendItem(dst []byte) []byte {
	dst = record.AppendArray(dst, 2)
	dst = record.AppendUint(dst, itemSchema)
	n := 4
	if o.stored {
		n += 3
	}
	dst = record.AppendMap(dst, n)
	dst = record.AppendText(dst, "type")
	dst = record.AppendText(dst, o.kind)
	dst = record.AppendText(dst, "name")
	dst = record.AppendText(dst, o.name)
	dst = record.AppendText(dst, "table")
	dst = record.AppendText(dst, o.table)
	dst = record.AppendText(dst, "sql")
	dst = record.AppendText(dst, o.sql)
	if o.stored {
		dst = record.AppendText(dst, "columns")
		dst = record.AppendArray(dst, len(o.columns))
		for _, c := range o.columns {
			dst = record.AppendText(dst, c)
		}
		dst = record.AppendText(dst, "key")
		dst = record.AppendArray(dst, len(o.key))
		for _, k := range o.key {
			dst = record.AppendUint(dst, uint64(k))
		}
		dst = record.AppendText(dst, "rowid")
		dst = record.AppendBool(dst, o.rowid)
	}
	return dst
}

// readObject reads what appendItem writes, from behind the kind of item.
func readObject(p *record.Pull) (*object, error) {
	o := &object{}
	n := p.Map()
	field := func(name string) {
		if string(p.Text()) != name && p.Err() == nil {
			n = -1
		}
	}
	field("type")
	o.kind = string(p.Text())
	field("name")
	o.name = string(p.Text())
	field("table")
	o.table = string(p.Text())
	field("sql")
	o.sql = string(p.Text())
	if n == 7 {
		o.stored = true
		field("columns")
		for range p.Array() {
			o.columns = append(o.columns, string(p.Text()))
		}
		field("key")
		for range p.Array() {
			k := p.Uint()
			if k >= uint64(len(o.columns)) {
				return nil, fmt.Errorf("%w: %s %q: a key of columns that are not there", abi.ErrCorrupt, o.kind, o.name)
			}
			o.key = append(o.key, int(k))
		}
		field("rowid")
		o.rowid = p.Bool()
	} else if n != 4 {
		n = -1
	}
	if p.Err() == nil && n < 0 {
		return nil, fmt.Errorf("%w: %s %q: not the map of an object of a schema", abi.ErrCorrupt, o.kind, o.name)
	}
	for _, s := range append([]string{o.kind, o.name, o.table, o.sql}, o.columns...) {
		if !utf8.ValidString(s) {
			return nil, fmt.Errorf("%w: %s %q: a name or SQL that is not UTF-8", abi.ErrCorrupt, o.kind, o.name)
		}
	}
	return o, p.Err()
}

// pragmas are what a database has beside its schema and rows.
type pragmas struct {
	name                                             string // of the database
	pageSize, autoVacuum, userVersion, applicationID int64
	encoding, journalMode                            string
}

func (v *pragmas) append(dst []byte) []byte {
	dst = record.AppendMap(dst, 7)
	dst = record.AppendText(dst, "name")
	dst = record.AppendText(dst, v.name)
	dst = record.AppendText(dst, "page_size")
	dst = record.AppendInt(dst, v.pageSize)
	dst = record.AppendText(dst, "encoding")
	dst = record.AppendText(dst, v.encoding)
	dst = record.AppendText(dst, "auto_vacuum")
	dst = record.AppendInt(dst, v.autoVacuum)
	dst = record.AppendText(dst, "journal_mode")
	dst = record.AppendText(dst, v.journalMode)
	dst = record.AppendText(dst, "user_version")
	dst = record.AppendInt(dst, v.userVersion)
	dst = record.AppendText(dst, "application_id")
	return record.AppendInt(dst, v.applicationID)
}

func readPragmas(p *record.Pull) (v pragmas, err error) {
	text := func(name string, to *string) {
		if string(p.Text()) != name && err == nil {
			err = fmt.Errorf("%w: the pragmas of a database without %s in its place", abi.ErrCorrupt, name)
		}
		*to = string(p.Text())
	}
	number := func(name string, to *int64, low, high int64) {
		if string(p.Text()) != name && err == nil {
			err = fmt.Errorf("%w: the pragmas of a database without %s in its place", abi.ErrCorrupt, name)
		}
		if *to = p.Int(); (*to < low || *to > high) && err == nil {
			err = fmt.Errorf("%w: %s of %d", abi.ErrCorrupt, name, *to)
		}
	}
	if n := p.Map(); n != 7 {
		err = fmt.Errorf("%w: a database of %d entries, want 7", abi.ErrCorrupt, n)
	}
	text("name", &v.name)
	number("page_size", &v.pageSize, 512, 65536)
	text("encoding", &v.encoding)
	number("auto_vacuum", &v.autoVacuum, 0, 2)
	text("journal_mode", &v.journalMode)
	number("user_version", &v.userVersion, math.MinInt32, math.MaxInt32)
	number("application_id", &v.applicationID, math.MinInt32, math.MaxInt32)
	if p.Err() != nil {
		return v, p.Err()
	}
	if err != nil {
		return v, err
	}
	if len(v.name) > maxName {
		return v, fmt.Errorf("%w: the name of a database has %d bytes", abi.ErrTooLarge, len(v.name))
	}
	if v.pageSize&(v.pageSize-1) != 0 {
		return v, fmt.Errorf("%w: page_size of %d", abi.ErrCorrupt, v.pageSize)
	}
	switch v.encoding {
	case "UTF-8", "UTF-16le", "UTF-16be":
	default:
		return v, fmt.Errorf("%w: encoding %q", abi.ErrCorrupt, v.encoding)
	}
	switch v.journalMode {
	case "wal", "delete":
	default:
		return v, fmt.Errorf("%w: journal_mode %q", abi.ErrCorrupt, v.journalMode)
	}
	return v, nil
}

// Items that are always the same, encoded.
const (
	headItem  = "\x83\x00\x6d" + formatName + "\x01"
	endItem   = "\x81\x07"
	pagesHead = "\x83\x00\x73" + pagesName + "\x01"
)

// checkHead tells whether an item begins a state of this form.
func checkHead(item []byte) error {
	if string(item) == headItem {
		return nil
	}
	p := record.NewPull(item)
	if p.Array() == 3 && p.Uint() == itemHead && string(p.Text()) == formatName {
		if v := p.Uint(); p.End() == nil {
			return fmt.Errorf("%w: the state is of version %d of %s; this program knows %d", abi.ErrVersion, v, formatName, formatVersion)
		}
	}
	return fmt.Errorf("%w: the state does not begin as one of databases in rows does (of form %q is it to be restored?)", abi.ErrCorrupt, Rows)
}
