//! The items of the native form that are not rows.

use torpor::cbor::{Fault, Reader, Reason};

/// The kinds of items: the first number of each.
pub const DATABASE: u64 = 1;
pub const SCHEMA: u64 = 2;
pub const ROWS: u64 = 3;
pub const ROW: u64 = 4;
pub const PIECE: u64 = 5;
pub const RETURN: u64 = 6;
pub const END: u64 = 7;

/// The first item: `[0, "torpor-sqlite", 1]`.
pub const HEAD: &[u8] = b"\x83\x00\x6dtorpor-sqlite\x01";

/// What all heads begin with, whatever their version.
pub const ANY_HEAD: &[u8] = b"\x83\x00\x6dtorpor-sqlite";

/// The indexes of a key's columns.
#[derive(Clone, Copy)]
pub struct KeyColumns<'a> {
    pub count: usize,
    pub encoded: &'a [u8],
}

impl KeyColumns<'_> {
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// An entry of a schema.
#[derive(Clone, Copy)]
pub struct Schema<'a> {
    pub kind: &'a str,
    pub name: &'a str,
    /// Of a table with rows: its columns (how many, and their names encoded), its key, and whether rows
    /// have a rowid.
    #[allow(clippy::type_complexity)]
    pub rows: Option<((usize, &'a [u8]), KeyColumns<'a>, bool)>,
}

/// Reads the map of an entry of a schema.
pub fn schema(data: &[u8]) -> Result<Schema<'_>, Fault> {
    let mut r = Reader::new(data);
    let n = r.map()?;
    named(&mut r, "type")?;
    let at = r.offset();
    let kind = r.text()?;
    if !["table", "index", "view", "trigger"].contains(&kind) {
        return Err(Fault { at, reason: Reason::Expected("table, index, view or trigger", data[at]) });
    }
    named(&mut r, "name")?;
    let name = r.text()?;
    named(&mut r, "table")?;
    r.text()?;
    named(&mut r, "sql")?;
    r.text()?;
    let mut rows = None;
    if n == 7 {
        named(&mut r, "columns")?;
        let count = r.array()?;
        let from = r.offset();
        for _ in 0..count {
            r.text()?;
        }
        let columns = (count, &data[from..r.offset()]);
        named(&mut r, "key")?;
        let count = r.array()?;
        let from = r.offset();
        for _ in 0..count {
            r.uint()?;
        }
        let key = KeyColumns { count, encoded: &data[from..r.offset()] };
        named(&mut r, "rowid")?;
        rows = Some((columns, key, r.bool()?));
    } else if n != 4 {
        return Err(Fault { at: 0, reason: Reason::Expected("a map of 4 or 7 pairs", data[0]) });
    }
    r.end()?;
    Ok(Schema { kind, name, rows })
}

/// Reads the map of a database and gives its name.
pub fn database(data: &[u8]) -> Result<&str, Fault> {
    let mut r = Reader::new(data);
    if r.map()? != 7 {
        return Err(Fault { at: 0, reason: Reason::Expected("a map of 7 pairs", data[0]) });
    }
    named(&mut r, "name")?;
    let name = r.text()?;
    for (key, text) in [
        ("page_size", false),
        ("encoding", true),
        ("auto_vacuum", false),
        ("journal_mode", true),
        ("user_version", false),
        ("application_id", false),
    ] {
        named(&mut r, key)?;
        if text {
            r.text()?;
        } else {
            r.int()?;
        }
    }
    r.end()?;
    Ok(name)
}

/// Reads the key of a pair, which must be `want`.
fn named(r: &mut Reader<'_>, want: &'static str) -> Result<(), Fault> {
    let at = r.offset();
    if r.text()? == want {
        return Ok(());
    }
    Err(Fault { at, reason: Reason::Expected(want, 0x60 + want.len() as u8) })
}
