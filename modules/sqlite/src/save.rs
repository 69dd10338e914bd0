//! Native state in, records out.

use torpor::cbor::{Fault, Nesting, Reader, Step};
use torpor::{Code, Error, Input, Output, Result, Text};

use crate::native::{self, DATABASE, END, PIECE, RETURN, ROW, ROWS, SCHEMA};
use crate::tables::Tables;

/// The length of the item that the window begins with, all of which it has then; `None` at the end.
fn item(input: &mut Input<'_>, done: u64) -> Result<Option<usize>> {
    let mut nesting = Nesting::new();
    let mut from = 0;
    loop {
        match nesting.pass(input.bytes(), from) {
            Ok(Step::Whole(end)) => return Ok(Some(end)),
            Ok(Step::Short(at)) => from = at,
            Err(f) => return Err(f.error(input.offset()).path(place(done))),
        }
        if !input.fill()? {
            if input.bytes().is_empty() {
                return Ok(None);
            }
            let end = input.offset() + input.bytes().len() as u64;
            return Err(Error::corrupt(end, "the input ends inside an item").path(place(done)));
        }
    }
}

fn place(done: u64) -> Text {
    Text::new().str("item ").num(done + 1)
}

/// What must come next for the state to be the one way to say it.
#[derive(Clone, Copy, PartialEq)]
enum After {
    Anything,
    Rows,   // announced, so a row
    Return, // to a database, so something of it
}

pub fn save(t: &mut Tables, native: &mut Input<'_>, out: &mut Output<'_>) -> Result<()> {
    let n = match item(native, 0)? {
        Some(n) => n,
        None => return Err(Error::corrupt(0, "the input is empty; a state without databases is not")),
    };
    let first = &native.bytes()[..n];
    if first != native::HEAD {
        if first.starts_with(native::ANY_HEAD) {
            return Err(Error::new(Code::Version, "a version of the form that this serializer does not know").at(0));
        }
        return Err(Error::corrupt(0, "the input does not begin as a state of databases in rows does"));
    }
    native.consume(n);
    let mut after = After::Anything;
    let mut done = 1;
    loop {
        let at = native.offset();
        let n = match item(native, done)? {
            Some(n) => n,
            None => return Err(Error::corrupt(at, "the input ends without its end")),
        };
        let data = &native.bytes()[..n];
        let end = one(t, data, at, &mut after, done, out)?;
        native.consume(n);
        done += 1;
        if end {
            if item(native, done)?.is_some() {
                return Err(Error::corrupt(native.offset(), "more behind the end of the state"));
            }
            return Ok(());
        }
    }
}

fn one(t: &mut Tables, data: &[u8], at: u64, after: &mut After, done: u64, out: &mut Output<'_>) -> Result<bool> {
    let wrong = |what: &str| Error::corrupt(at, what).path(place(done));
    let fault = |f: Fault| f.error(at).path(place(done));
    let mut r = Reader::new(data);
    let count = r.array().map_err(fault)?;
    let kind = r.uint().map_err(fault)?;
    if t.waits() && kind != PIECE {
        return Err(wrong("pieces of a long value are missing"));
    }
    let fits = match *after {
        After::Anything => true,
        After::Rows => kind == ROW,
        After::Return => kind == SCHEMA || kind == ROWS,
    };
    if !fits {
        return Err(wrong("an item that announces others, and they do not come"));
    }
    if !t.inside() && kind != DATABASE && kind != END {
        return Err(wrong("an item before the first database"));
    }
    *after = After::Anything;
    match (kind, count) {
        (ROW, _) => {
            if t.table().is_none() {
                return Err(wrong("a row of no table"));
            }
            t.values(data, count - 1, r.offset(), at)?;
            t.make_key(data, at)?;
            let (partition, key) = t.row_key();
            out.record(partition, key)?;
            out.map(count - 1)?;
            t.each(data, |name, value| {
                match name {
                    Some(name) => out.write(name)?,
                    None => out.write(&[0])?,
                }
                out.write(value)
            })?;
        }
        (PIECE, 3) => {
            let column = r.uint().map_err(fault)?;
            let bytes = r.bytes().map_err(fault)?;
            r.end().map_err(fault)?;
            if !t.waits() || t.waits_for() != column {
                return Err(wrong("a piece that no row waits for"));
            }
            let (partition, key) = t.piece_key();
            out.record(partition, key)?;
            out.bytes(bytes)?;
            if !t.take(bytes.len()) {
                return Err(wrong("pieces of more bytes than their value has"));
            }
        }
        (DATABASE, 2) => {
            let map = &data[r.offset()..];
            let name = native::database(map).map_err(|f| f.error(at + 2).path(place(done)))?;
            t.declare(name, None, at)?;
            let (partition, key) = t.pragma_key();
            out.record(partition, key)?;
            out.write(map)?;
        }
        (SCHEMA, 2) => {
            let map = &data[r.offset()..];
            let s = native::schema(map).map_err(|f| f.error(at + 2).path(place(done)))?;
            t.schema(&s, at)?;
            let (partition, key) = t.schema_key(&s);
            out.record(partition, key)?;
            out.write(map)?;
        }
        (ROWS, 2) => {
            let name = r.text().map_err(fault)?;
            r.end().map_err(fault)?;
            if !t.rows(name) {
                return Err(wrong("rows of a table that did not come, or whose rows come already"));
            }
            *after = After::Rows;
        }
        (RETURN, 2) => {
            let name = r.text().map_err(fault)?;
            r.end().map_err(fault)?;
            if name == t.name() || !t.again(name) {
                return Err(wrong("back to a database that did not come, or is the one already"));
            }
            *after = After::Return;
        }
        (END, 1) => return Ok(true),
        _ => return Err(wrong("an item of a kind that the form does not have")),
    }
    Ok(false)
}
