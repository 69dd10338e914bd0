//! What is known of the databases and tables that have come.

use torpor::cbor::Reader;
use torpor::{Code, Error, Result, Text, MAX_PARTITION_BYTES};

use crate::key::Builder;
use crate::native::Schema;
use crate::value::{head, read, Value};

/// How many bytes the names of databases, tables and columns may have together.
const ARENA: usize = 2 << 20;

/// How many databases and tables are known at once; with more, those that came first are forgotten.
const DATABASES: usize = 1024;
const TABLES: usize = 8192;

/// How many values a row may have: SQLite's limit on columns, and a rowid.
const VALUES: usize = 32_767 + 1;

/// How many of them may come in pieces.
const PENDING: usize = 4096;

/// The longest name of a database.
const MAX_NAME: usize = 1024;

/// A place in the arena.
#[derive(Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    const NONE: Span = Span { start: 0, end: 0 };
}

/// A database.
#[derive(Clone, Copy)]
struct Database {
    name: Span,
    partition: Span,
    prefix: Span, // of its keys
}

/// A table.
#[derive(Clone, Copy)]
struct Table {
    database: u32,
    name: Span,
    prefix: Span,  // of its rows' keys, up to the parenthesis
    columns: Span, // encoded texts
    count: u32,
    key: Span, // two bytes a column
    rowid: bool,
}

/// All that a call knows. It is all zeros at first, so that it takes no room in the module.
pub struct Tables {
    arena: [u8; ARENA],
    used: usize,
    databases: [Database; DATABASES],
    database_count: usize,
    tables: [Table; TABLES],
    table_count: usize,
    fixed: [u8; MAX_PARTITION_BYTES],
    fixed_len: usize,
    has_fixed: bool,
    database: Option<usize>,
    table: Option<usize>,
    spans: [(u32, u32); VALUES],
    pending: [(u32, u64); PENDING],
    pending_from: usize,
    pending_to: usize,
    piece: u64, // of the first pending value
    row: Builder,
    other: Builder,
}

impl Tables {
    pub const fn new() -> Tables {
        Tables {
            arena: [0; ARENA],
            used: 0,
            databases: [Database { name: Span::NONE, partition: Span::NONE, prefix: Span::NONE }; DATABASES],
            database_count: 0,
            tables: [Table {
                database: 0,
                name: Span::NONE,
                prefix: Span::NONE,
                columns: Span::NONE,
                count: 0,
                key: Span::NONE,
                rowid: false,
            }; TABLES],
            table_count: 0,
            fixed: [0; MAX_PARTITION_BYTES],
            fixed_len: 0,
            has_fixed: false,
            database: None,
            table: None,
            spans: [(0, 0); VALUES],
            pending: [(0, 0); PENDING],
            pending_from: 0,
            pending_to: 0,
            piece: 0,
            row: Builder::new(),
            other: Builder::new(),
        }
    }

    /// Forgets the call before.
    pub fn clear(&mut self, partition: Option<&str>) {
        self.forget();
        let p = partition.unwrap_or("").as_bytes();
        self.fixed[..p.len()].copy_from_slice(p);
        self.fixed_len = p.len();
        self.has_fixed = partition.is_some();
        self.pending_from = 0;
        self.pending_to = 0;
    }

    fn forget(&mut self) {
        self.used = 0;
        self.database_count = 0;
        self.table_count = 0;
        self.database = None;
        self.table = None;
    }

    fn text(&self, s: Span) -> &str {
        core::str::from_utf8(self.bytes(s)).unwrap_or("")
    }

    fn bytes(&self, s: Span) -> &[u8] {
        &self.arena[s.start as usize..s.end as usize]
    }

    fn keep(&mut self, bytes: &[u8]) -> Option<Span> {
        let end = self.used.checked_add(bytes.len()).filter(|end| *end <= ARENA)?;
        self.arena[self.used..end].copy_from_slice(bytes);
        let span = Span { start: self.used as u32, end: end as u32 };
        self.used = end;
        Some(span)
    }

    fn keep_other(&mut self) -> Option<Span> {
        let n = self.other.finish().len();
        let end = self.used.checked_add(n).filter(|end| *end <= ARENA)?;
        self.arena[self.used..end].copy_from_slice(self.other.finish().as_bytes());
        let span = Span { start: self.used as u32, end: end as u32 };
        self.used = end;
        Some(span)
    }

    /// Enters a database that is new. With the partition its records have, or none to have it chosen.
    pub fn declare(&mut self, name: &str, partition: Option<&str>, at: u64) -> Result<()> {
        if name.len() > MAX_NAME {
            return Err(Error::new(Code::TooLarge, "the name of a database has more than 1024 bytes").at(at));
        }
        for d in &self.databases[..self.database_count] {
            if self.text(d.name) == name {
                let path = Text::new().str("database ").str(name);
                return Err(Error::corrupt(at, "the database is there twice").path(path));
            }
        }
        if self.database_count == DATABASES || self.used > ARENA / 2 || self.table_count > TABLES / 2 {
            self.forget();
        }
        let full = || Error::new(Code::TooLarge, "names of databases and tables take too much memory").at(at);
        let mut own = [0; MAX_NAME + 1];
        let own = derived(name, &mut own);
        let name_at = self.keep(name.as_bytes()).ok_or_else(full)?;
        let partition_at = match partition {
            Some(p) => self.keep(p.as_bytes()),
            None if self.has_fixed => {
                let fixed = self.fixed;
                self.keep(&fixed[..self.fixed_len])
            }
            None => self.keep(own.unwrap_or("").as_bytes()),
        }
        .ok_or_else(full)?;
        self.other.clear();
        if !name.is_empty() && own != Some(self.text(partition_at)) {
            self.other.quoted(name, "\"");
            self.other.push(".");
        }
        let prefix = self.keep_other().ok_or_else(full)?;
        self.databases[self.database_count] = Database { name: name_at, partition: partition_at, prefix };
        self.database = Some(self.database_count);
        self.database_count += 1;
        self.table = None;
        Ok(())
    }

    /// Whether a database has been entered.
    pub fn inside(&self) -> bool {
        self.database.is_some()
    }

    /// Enters a database that has come before. False: it has not.
    pub fn again(&mut self, name: &str) -> bool {
        let found = (0..self.database_count).find(|d| self.text(self.databases[*d].name) == name);
        self.switch(found)
    }

    /// Enters the database whose records have such a partition and prefix. False: there is none.
    pub fn of_key(&mut self, partition: &str, prefix: &str) -> bool {
        let found = (0..self.database_count).find(|d| {
            let d = self.databases[*d];
            self.text(d.partition) == partition && self.text(d.prefix) == prefix
        });
        self.switch(found)
    }

    fn switch(&mut self, to: Option<usize>) -> bool {
        if to.is_some() && to != self.database {
            self.database = to;
            self.table = None;
        }
        to.is_some()
    }

    fn current(&self) -> Database {
        self.databases[self.database.unwrap_or(0)]
    }

    pub fn number(&self) -> Option<usize> {
        self.database
    }

    /// The name of the database entered.
    pub fn name(&self) -> &str {
        self.text(self.current().name)
    }

    /// The key of the database's own record.
    pub fn pragma_key(&mut self) -> (&str, &str) {
        self.start();
        self.other.push("pragma");
        self.partition_and_other()
    }

    /// The key of an entry of the schema.
    pub fn schema_key(&mut self, s: &Schema<'_>) -> (&str, &str) {
        self.start();
        self.other.push("schema ");
        self.other.push(s.kind);
        self.other.push(" ");
        self.other.name(s.name);
        self.partition_and_other()
    }

    fn start(&mut self) {
        let d = self.current();
        self.other.clear();
        self.other
            .push(core::str::from_utf8(&self.arena[d.prefix.start as usize..d.prefix.end as usize]).unwrap_or(""));
    }

    fn partition_and_other(&mut self) -> (&str, &str) {
        let p = self.current().partition;
        let partition = core::str::from_utf8(&self.arena[p.start as usize..p.end as usize]).unwrap_or("");
        (partition, self.other.finish())
    }

    /// Takes in an entry of the schema.
    pub fn schema(&mut self, s: &Schema<'_>, at: u64) -> Result<()> {
        self.table = None;
        let (columns, key, rowid) = match s.rows {
            Some(r) => r,
            None => return Ok(()),
        };
        let path = || Text::new().str("table ").str(s.name);
        if self.find(s.name).is_some() {
            return Err(Error::corrupt(at, "the table is there twice").path(path()));
        }
        let full =
            || Error::new(Code::TooLarge, "names of tables and columns take too much memory").at(at).path(path());
        if self.table_count == TABLES || columns.0 + 1 > VALUES {
            return Err(full());
        }
        if key.is_empty() && !rowid {
            return Err(Error::corrupt(at, "a table without a key and without a rowid").path(path()));
        }
        let name = self.keep(s.name.as_bytes()).ok_or_else(full)?;
        let columns_at = self.keep(columns.1).ok_or_else(full)?;
        let from = self.used;
        let mut r = Reader::new(key.encoded);
        for _ in 0..key.count {
            match r.uint() {
                Ok(k) if k < columns.0 as u64 => self.keep(&(k as u16).to_be_bytes()).ok_or_else(full)?,
                _ => return Err(Error::corrupt(at, "a key of columns that the table does not have").path(path())),
            };
        }
        let key_at = Span { start: from as u32, end: self.used as u32 };
        self.start();
        self.other.name(s.name);
        self.other.push("(");
        let prefix = self.keep_other().ok_or_else(full)?;
        self.tables[self.table_count] = Table {
            database: self.database.unwrap_or(0) as u32,
            name,
            prefix,
            columns: columns_at,
            count: columns.0 as u32,
            key: key_at,
            rowid,
        };
        self.table_count += 1;
        Ok(())
    }

    fn find(&self, name: &str) -> Option<usize> {
        let d = self.database.unwrap_or(0) as u32;
        (0..self.table_count).find(|t| {
            let t = &self.tables[*t];
            t.database == d && self.text(t.name) == name
        })
    }

    /// Begins the rows of a table. False if there is no such table, or its rows come already.
    pub fn rows(&mut self, name: &str) -> bool {
        let found = self.find(name);
        let good = found.is_some() && found != self.table;
        self.table = found;
        good
    }

    /// The table whose rows come.
    pub fn table(&self) -> Option<&str> {
        self.table.map(|t| self.text(self.tables[t].name))
    }

    /// The next table after `from` whose rows may have such a key: first the one whose rows come.
    pub fn candidate(&self, key: &str, from: Option<usize>) -> Option<usize> {
        let fits = |t: &usize| {
            let t = &self.tables[*t];
            t.database as usize == self.database.unwrap_or(usize::MAX) && key.starts_with(self.text(t.prefix))
        };
        match from {
            None => self.table.filter(fits).or_else(|| (0..self.table_count).find(fits)),
            Some(from) => (from + 1..self.table_count).find(fits),
        }
    }

    /// Makes a table the one whose rows come; true if it was not.
    pub fn choose(&mut self, t: usize) -> bool {
        let new = self.table != Some(t);
        self.table = Some(t);
        new
    }

    /// Reads the values of a row, which stand one behind the other from `at` on in `data`. Gives where
    /// they end and how they are told apart is then `row_key`.
    pub fn values(&mut self, data: &[u8], count: usize, mut at: usize, base: u64) -> Result<usize> {
        let t = self.tables[self.table.unwrap_or(0)];
        if count != t.count as usize + t.rowid as usize {
            return Err(Error::corrupt(base, "a row with more or fewer values than its table has").path(self.path()));
        }
        self.pending_from = 0;
        self.pending_to = 0;
        for i in 0..count {
            at = self.one(data, i, at, base, &t)?;
        }
        Ok(at)
    }

    /// Reads the entries of a row's map, in the table's order.
    pub fn entries(&mut self, data: &[u8], count: usize, mut at: usize, base: u64) -> Result<()> {
        let t = self.tables[self.table.unwrap_or(0)];
        let wrong = |what: &str| Error::corrupt(base, what);
        if count != t.count as usize + t.rowid as usize {
            return Err(wrong("a row with more or fewer columns than its table has").path(self.path()));
        }
        self.pending_from = 0;
        self.pending_to = 0;
        let mut name = t.columns.start as usize;
        for i in 0..count {
            if t.rowid && i == 0 {
                if data.get(at) != Some(&0) {
                    return Err(wrong("a row without its rowid").path(self.path()));
                }
                at += 1;
            } else {
                let end = after_name(&self.arena, name);
                if !data[at..].starts_with(&self.arena[name..end]) {
                    return Err(
                        wrong("a row whose columns are not those of its table, in their order").path(self.path())
                    );
                }
                at += end - name;
                name = end;
            }
            at = self.one(data, i, at, base, &t)?;
        }
        if at != data.len() {
            return Err(wrong("more behind a row").path(self.path()));
        }
        Ok(())
    }

    #[inline(always)]
    fn one(&mut self, data: &[u8], i: usize, at: usize, base: u64, t: &Table) -> Result<usize> {
        let (v, end) = read(data, at).map_err(|f| f.error(base).path(self.path()))?;
        self.spans[i] = (at as u32, end as u32);
        match v {
            Value::Int(_) => {}
            _ if t.rowid && i == 0 => {
                return Err(Error::corrupt(base + at as u64, "a rowid that is no integer").path(self.path()));
            }
            Value::Long(n, _) => {
                if self.pending_to == PENDING {
                    return Err(Error::new(Code::TooLarge, "too many long values in a row").at(base).path(self.path()));
                }
                self.pending[self.pending_to] = ((i - t.rowid as usize) as u32, n);
                self.pending_to += 1;
                self.piece = 0;
            }
            _ => {}
        }
        Ok(end)
    }

    /// Makes the key of the row just read.
    pub fn make_key(&mut self, data: &[u8], base: u64) -> Result<()> {
        let t = self.tables[self.table.unwrap_or(0)];
        let value = |i: usize| {
            let (start, end) = self.spans[i];
            read(&data[..end as usize], start as usize).map_or(Value::Null, |v| v.0)
        };
        let key = self.arena[t.key.start as usize..t.key.end as usize].chunks_exact(2);
        let key = key.map(|k| value(u16::from_be_bytes([k[0], k[1]]) as usize + t.rowid as usize));
        let usable = !key.clone().any(|v| matches!(v, Value::Null | Value::Long(..))) && key.len() > 0;
        let prefix = core::str::from_utf8(&self.arena[t.prefix.start as usize..t.prefix.end as usize]).unwrap_or("");
        self.row.clear();
        self.row.push(prefix);
        if usable {
            for (i, v) in key.enumerate() {
                if i > 0 {
                    self.row.push(",");
                }
                self.row.value(v);
            }
        } else if t.rowid {
            self.row.push("rowid ");
            self.row.value(value(0));
        } else {
            let msg = "a primary key that is NULL or too long to be a record's; save the database as pages";
            return Err(Error::new(Code::Unsupported, msg).at(base).path(self.path()));
        }
        self.row.push(")");
        Ok(())
    }

    pub fn row_key(&mut self) -> (&str, &str) {
        let p = self.current().partition;
        let partition = core::str::from_utf8(&self.arena[p.start as usize..p.end as usize]).unwrap_or("");
        (partition, self.row.finish())
    }

    /// Calls `each` with every value of the row just read and the encoded name of its column, which the
    /// rowid does not have.
    pub fn each(&self, data: &[u8], mut each: impl FnMut(Option<&[u8]>, &[u8]) -> Result<()>) -> Result<()> {
        let t = &self.tables[self.table.unwrap_or(0)];
        let mut name = t.columns.start as usize;
        for (i, (start, end)) in self.spans[..t.count as usize + t.rowid as usize].iter().enumerate() {
            let v = &data[*start as usize..*end as usize];
            if t.rowid && i == 0 {
                each(None, v)?;
                continue;
            }
            let next = after_name(&self.arena, name);
            each(Some(&self.arena[name..next]), v)?;
            name = next;
        }
        Ok(())
    }

    /// Whether the row waits for pieces.
    pub fn waits(&self) -> bool {
        self.pending_from < self.pending_to
    }

    /// The column that the next piece is of.
    pub fn waits_for(&self) -> u64 {
        self.pending[self.pending_from].0 as u64
    }

    /// The key of the next piece.
    pub fn piece_key(&mut self) -> (&str, &str) {
        let t = self.tables[self.table.unwrap_or(0)];
        let mut name = t.columns.start as usize;
        for _ in 0..self.pending[self.pending_from].0 {
            name = after_name(&self.arena, name);
        }
        let end = after_name(&self.arena, name);
        let column = Reader::new(&self.arena[name..end]).text().unwrap_or("");
        self.other.clear();
        self.other.push(self.row.finish());
        self.other.push(".");
        self.other.name(column);
        self.other.push("[");
        self.other.int(self.piece as i64);
        self.other.push("]");
        self.partition_and_other()
    }

    /// Takes a piece of so many bytes. False if there are none, or more than are waited for.
    pub fn take(&mut self, n: usize) -> bool {
        let left = &mut self.pending[self.pending_from].1;
        if n == 0 || n as u64 > *left {
            return false;
        }
        *left -= n as u64;
        self.piece += 1;
        if *left == 0 {
            self.pending_from += 1;
            self.piece = 0;
        }
        true
    }

    /// Where the work is, for people.
    pub fn path(&self) -> Text {
        let mut path = Text::new();
        if self.database.is_some() && !self.name().is_empty() {
            path = path.str("database ").str(self.name());
        }
        match self.table() {
            Some(t) if path.is_empty() => Text::new().str("table ").str(t),
            Some(t) => path.str(", table ").str(t),
            None => path,
        }
    }
}

/// Where the encoded text at `at` ends.
#[inline(always)]
fn after_name(arena: &[u8], at: usize) -> usize {
    match head(arena, at) {
        Ok(Some((n, next))) => next + n as usize,
        _ => at,
    }
}

/// The partition that a database's name is: `account/region` of `account_region.db`.
fn derived<'a>(name: &str, buf: &'a mut [u8; MAX_NAME + 1]) -> Option<&'a str> {
    let stem = name.strip_suffix(".db")?;
    let b = stem.as_bytes();
    if b.len() < 14 || b[12] != b'_' || !b[..12].iter().all(u8::is_ascii_digit) || stem.contains('/') {
        return None;
    }
    buf[..b.len()].copy_from_slice(b);
    buf[12] = b'/';
    core::str::from_utf8(&buf[..b.len()]).ok()
}
