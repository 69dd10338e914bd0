//! Records in, native state out.

use torpor::cbor::{Fault, Reader, ARRAY, BYTES, MAP};
use torpor::{Error, Input, Key, Output, Record, Result, Text};

use crate::key;
use crate::native::{self, DATABASE, END, PIECE, RETURN, ROW, ROWS, SCHEMA};
use crate::tables::Tables;

pub fn load(t: &mut Tables, records: &mut Input<'_>, out: &mut Output<'_>) -> Result<()> {
    out.write(native::HEAD)?;
    loop {
        let at = records.offset();
        match records.record()? {
            Some(r) => one(t, &r, at, out)?,
            None => break,
        }
    }
    if t.waits() {
        return Err(Error::corrupt(records.offset(), "the state ends without pieces of a long value").path(t.path()));
    }
    out.array(1)?;
    out.uint(END)
}

fn one(t: &mut Tables, r: &Record<'_>, at: u64, out: &mut Output<'_>) -> Result<()> {
    let key = match r.key {
        Key::Text(k) => k,
        Key::Bytes(_) => return Err(Error::corrupt(at, "a key of bytes, of which this serializer makes none")),
    };
    let path = || Text::new().str("record ").str(key);
    let wrong = |what: &str| Error::corrupt(at, what).path(path());
    let base = at + (r.encoded.len() - r.value.len()) as u64;
    let fault = |f: Fault| f.error(base).path(path());
    let (quoted, rest) = key::split(key);
    let prefix = match quoted {
        Some(_) => &key[..key.len() - rest.len()],
        None => "",
    };
    let major = r.value[0] >> 5;
    if t.waits() && major != BYTES {
        return Err(wrong("pieces of the row before are missing; was it replaced without them?"));
    }
    if rest == "pragma" {
        let name = native::database(r.value).map_err(fault)?;
        t.declare(name, Some(r.partition), at)?;
        if t.pragma_key() != (r.partition, key) {
            return Err(wrong("a database whose name is not that of its key"));
        }
        out.array(2)?;
        out.uint(DATABASE)?;
        return out.write(r.value);
    }
    let before = t.number();
    if !t.of_key(r.partition, prefix) {
        return Err(wrong("a record of a database that did not come before it"));
    }
    if t.number() != before {
        if t.waits() {
            return Err(wrong("a record of another database between pieces of a long value"));
        }
        out.array(2)?;
        out.uint(RETURN)?;
        out.text(t.name())?;
    }
    if rest.starts_with("schema ") {
        let s = native::schema(r.value).map_err(fault)?;
        t.schema(&s, at)?;
        if t.schema_key(&s) != (r.partition, key) {
            return Err(wrong("an object whose type and name are not those of its key"));
        }
        out.array(2)?;
        out.uint(SCHEMA)?;
        return out.write(r.value);
    }
    if major == BYTES {
        if !t.waits() {
            return Err(wrong("a piece of a value that no row before it has; was the row replaced without them?"));
        }
        if t.piece_key() != (r.partition, key) {
            return Err(wrong("a piece of another value than the row before it waits for"));
        }
        let n = Reader::new(r.value).bytes().map_err(fault)?.len();
        out.array(3)?;
        out.uint(PIECE)?;
        out.uint(t.waits_for())?;
        if !t.take(n) {
            return Err(wrong("pieces of more bytes than their value has"));
        }
        return out.write(r.value);
    }
    if major != MAP {
        return Err(wrong("a value that is none of a row"));
    }
    let mut v = Reader::new(r.value);
    let count = v.map().map_err(fault)?;
    // Keys that are cut may leave several tables to choose from.
    let mut candidate = t.candidate(key, None);
    if candidate.is_none() {
        return Err(wrong("a row of a table that did not come before it"));
    }
    while let Some(c) = candidate {
        let new = t.choose(c);
        candidate = t.candidate(key, Some(c));
        t.entries(r.value, count, v.offset(), base)?;
        t.make_key(r.value, base)?;
        if t.row_key() != (r.partition, key) {
            continue;
        }
        if new {
            out.array(2)?;
            out.uint(ROWS)?;
            out.text(t.table().unwrap_or(""))?;
        }
        out.head(ARRAY, count as u64 + 1)?;
        out.uint(ROW)?;
        return t.each(r.value, |_, value| out.write(value));
    }
    Err(wrong("a row whose values are not those of its key"))
}
