//! Records into native state.

use torpor::cbor::{Reader, BYTES, UINT};
use torpor::cut::{hash64, parse_piece_name, Order};
use torpor::{Error, Input, Key, Output, Record, Result, Text};

use crate::entry::{attributes, told, Attributes, Kind, Wrong, MAX_PATH};
use crate::{Memory, HEADER, INLINE, PIECES};

/// The file whose pieces come.
struct Open {
    content: u64,
    order: Order,
}

pub fn load(m: &mut Memory, records: &mut Input<'_>, native: &mut Output<'_>) -> Result<()> {
    m.before.clear();
    native.write(HEADER)?;
    let mut open: Option<Open> = None;
    loop {
        let at = records.offset();
        let r = match records.record()? {
            Some(r) => r,
            None if open.is_some() => return Err(Error::corrupt(at, "the pieces of the last file are not all there")),
            None if m.before.entries() == 0 => {
                return Err(Error::corrupt(at, "there is no record: not even an empty folder is none"))
            }
            None => return native.head(UINT, m.before.entries()),
        };
        let (key, text) = match r.key {
            Key::Text(k) => (k.as_bytes(), true),
            Key::Bytes(k) => (k, false),
        };
        if !text && core::str::from_utf8(key).is_ok() {
            return Err(wrong(at, key, "a key of bytes that are UTF-8 is written as text"));
        }
        open = match open {
            Some(open) => piece(m, open, at, key, r.value, native)?,
            None => entry(m, at, key, &r, native)?,
        };
    }
}

#[cold]
fn wrong(at: u64, key: &[u8], why: &str) -> Error {
    Error::corrupt(at, Text::new().str(why)).path(told(key))
}

/// Writes an entry. Gives the file if its pieces follow.
fn entry(m: &mut Memory, at: u64, key: &[u8], r: &Record<'_>, native: &mut Output<'_>) -> Result<Option<Open>> {
    if key.len() > MAX_PATH {
        return Err(Wrong::Large(0, "the path is longer than 16384 bytes").error(at, key));
    }
    if key.windows(2).any(|w| w == PIECES) {
        return Err(wrong(at, key, "a piece without its file before it: such states cannot be merged"));
    }
    let (a, content) = value(r.value).map_err(|w| w.error(at, key))?;
    m.before.next(key, a.kind).map_err(|why| wrong(at, key, why))?;
    native.head(4, 2 + (a.kind == Kind::File) as u64)?;
    match r.key {
        Key::Text(k) => native.text(k)?,
        Key::Bytes(k) => native.bytes(k)?,
    }
    native.map(a.pairs)?;
    native.write(r.value.get(a.start..a.end).unwrap_or(&[]))?;
    if a.kind == Kind::File {
        native.head(BYTES, a.content)?;
    }
    match content {
        Some(content) => native.write(content).map(|()| None),
        None => Ok(Some(Open { content: a.content, order: Order::new() })),
    }
}

/// The value of an entry's record: attributes, and the content, which is `None` where pieces follow.
fn value(value: &[u8]) -> core::result::Result<(Attributes, Option<&[u8]>), Wrong> {
    let mut r = Reader::new(value);
    let pairs = r.map()?;
    let a = attributes(&mut r, pairs)?;
    let at = r.offset();
    if a.pairs + (a.kind == Kind::File) as usize != pairs {
        return Err(Wrong::Entry(at, "an attribute that is unknown, or not in its order"));
    }
    if a.kind != Kind::File {
        r.end()?;
        return Ok((a, Some(&[])));
    }
    let content = match r.text()? {
        "content" => Some(r.bytes()?),
        "pieces" if r.bool()? => None,
        _ => return Err(Wrong::Entry(at, "neither content nor pieces of it")),
    };
    r.end()?;
    let fits = match content {
        Some(c) => c.len() as u64 == a.content && a.content <= INLINE,
        None => a.content > INLINE,
    };
    if !fits {
        return Err(Wrong::Entry(at, "the content is not of the length that the attributes say"));
    }
    Ok((a, content))
}

/// Writes a piece of the open file, or closes it.
fn piece(
    m: &Memory,
    mut open: Open,
    at: u64,
    key: &[u8],
    value: &[u8],
    native: &mut Output<'_>,
) -> Result<Option<Open>> {
    let mut r = Reader::new(value);
    let name = match key.windows(2).position(|w| w == PIECES) {
        Some(slash) if m.before.is(&key[..slash]) => &key[slash + PIECES.len()..],
        _ => return Err(wrong(at, key, "the pieces of the file before are not all there")),
    };
    if name.is_empty() {
        let mut read = || {
            let pairs = r.map()?;
            let end = (r.text()?, r.uint()?, r.text()?, r.bytes()?);
            r.end()?;
            Ok((pairs, end))
        };
        let found = read().map_err(|f: torpor::cbor::Fault| f.error(at).path(told(key)))?;
        let digest = open.order.digest().to_be_bytes();
        let want = (2, ("pieces", open.order.pieces(), "order", &digest[..]));
        if found != want || open.order.bytes() != open.content {
            let why = "the pieces are not those of the file, or not in their order: such states cannot be merged";
            return Err(wrong(at, key, why));
        }
        return Ok(None);
    }
    let bytes = r.bytes().map_err(|f| f.error(at).path(told(key)))?;
    match parse_piece_name(name) {
        Some((hash, count)) if hash == hash64(bytes) => open.order.add(hash, count, bytes.len()),
        Some(_) => return Err(wrong(at, key, "the piece has another hash than its key says")),
        None => return Err(wrong(at, key, "the key is none of a piece")),
    }
    if bytes.is_empty() || open.order.bytes() > open.content {
        return Err(wrong(at, key, "more pieces than the file has content"));
    }
    native.write(bytes)?;
    Ok(Some(open))
}
