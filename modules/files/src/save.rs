//! Native state into records.

use torpor::cbor::{encode_head, Reader, ARRAY, BYTES, UINT};
use torpor::cut::{hash64, piece_name, Cutter, Order, MAX_PIECE_NAME};
use torpor::{Code, Error, Input, Key, Output, Result};

use crate::entry::{attributes, name, told, Attributes, Kind, Wrong, MAX_HEAD, MAX_PATH};
use crate::{Memory, HEADER, INLINE, PIECES, PIECE_BITS};

/// An entry up to its content: places in the window.
struct Head {
    path: (usize, usize),
    attributes: Attributes,
    end: usize,
}

pub fn save(m: &mut Memory, partition: &str, native: &mut Input<'_>, records: &mut Output<'_>) -> Result<()> {
    m.before.clear();
    while native.bytes().len() < HEADER.len() && native.fill()? {}
    if native.bytes().get(..HEADER.len()) != Some(HEADER) {
        return Err(Error::corrupt(0, "no state of a folder: it does not begin with [\"torpor-files\", 1]"));
    }
    native.consume(HEADER.len());
    loop {
        let head = match next(m, native)? {
            Some(head) => head,
            None => return Ok(()),
        };
        let at = native.offset();
        let window = native.bytes();
        let path = window.get(head.path.0..head.path.1).unwrap_or(&[]);
        let a = head.attributes;
        if let Err(why) = m.before.next(path, a.kind) {
            return Err(Wrong::Entry(0, why).error(at, path));
        }
        records.record(partition, key(path))?;
        records.map(a.pairs + (a.kind == Kind::File) as usize)?;
        records.write(window.get(a.start..a.end).unwrap_or(&[]))?;
        let path_len = path.len();
        m.key[..path_len].copy_from_slice(path);
        native.consume(head.end);
        if a.kind != Kind::File {
            continue;
        }
        if a.content <= INLINE {
            records.text("content")?;
            records.head(BYTES, a.content)?;
            copy(a.content, native, records)?;
        } else {
            records.text("pieces")?;
            records.bool(true)?;
            pieces(m, path_len, a.content, partition, native, records)?;
        }
    }
}

/// A path as a key: text if it is UTF-8.
pub fn key(path: &[u8]) -> Key<'_> {
    match core::str::from_utf8(path) {
        Ok(text) => Key::Text(text),
        Err(_) => Key::Bytes(path),
    }
}

/// The next entry up to its content, whole in the window, or `None` at the end of the state.
fn next(m: &Memory, native: &mut Input<'_>) -> Result<Option<Head>> {
    loop {
        let window = native.bytes();
        let at = native.offset();
        if let Some(first) = window.first() {
            let ends = first >> 5 == UINT;
            let parsed = if ends { end(window, m.before.entries()).map(|()| None) } else { head(window).map(Some) };
            match parsed {
                Ok(None) => {
                    native.consume(uint_len(m.before.entries()));
                    if !native.bytes().is_empty() || native.fill()? {
                        return Err(Error::corrupt(native.offset(), "bytes behind the end of the state"));
                    }
                    return Ok(None);
                }
                Ok(head) => return Ok(head),
                Err(Wrong::Short) if window.len() <= MAX_HEAD => {}
                Err(Wrong::Short) => {
                    let e = Error::new(
                        Code::TooLarge,
                        "the entry has too many bytes before its content, or none of it is sound",
                    );
                    return Err(e.at(at));
                }
                Err(wrong) => {
                    let mut r = Reader::new(window.get(1..).unwrap_or(&[]));
                    return Err(wrong.error(at, name(&mut r).unwrap_or(&[])));
                }
            }
        }
        if !native.fill()? {
            return Err(Error::corrupt(
                at + native.bytes().len() as u64,
                "the state is cut: it ends without its number of entries",
            ));
        }
    }
}

fn uint_len(n: u64) -> usize {
    encode_head(&mut [0; 9], UINT, n)
}

/// The number of entries, which ends the state.
fn end(window: &[u8], entries: u64) -> core::result::Result<(), Wrong> {
    if Reader::new(window).uint()? != entries {
        return Err(Wrong::Entry(0, "the state says that it has another number of entries"));
    }
    if entries == 0 {
        return Err(Wrong::Entry(0, "the first entry is not the folder itself"));
    }
    Ok(())
}

fn head(window: &[u8]) -> core::result::Result<Head, Wrong> {
    let items = match window.first() {
        Some(0x82) => 2,
        Some(0x83) => 3,
        Some(b) if *b >> 5 == ARRAY => return Err(Wrong::Entry(0, "an entry is an array of two or three")),
        _ => return Err(Wrong::Entry(0, "neither an entry nor a number of entries")),
    };
    let mut r = Reader::new(window.get(1..).unwrap_or(&[]));
    let p = name(&mut r).map_err(behind)?;
    if p.len() > MAX_PATH {
        return Err(Wrong::Large(1, "the path is longer than 16384 bytes"));
    }
    let path = (1 + r.offset() - p.len(), 1 + r.offset());
    let pairs = r.map().map_err(|f| behind(f.into()))?;
    let mut a = attributes(&mut r, pairs).map_err(behind)?;
    if a.pairs != pairs {
        return Err(Wrong::Entry(1 + a.end, "an attribute that is unknown, or not in its order"));
    }
    a.start += 1;
    a.end += 1;
    if (a.kind == Kind::File) != (items == 3) {
        return Err(Wrong::Entry(0, "a file has content, and nothing else has"));
    }
    let mut end = a.end;
    if a.kind == Kind::File {
        let mut want = [0; 9];
        let n = encode_head(&mut want, BYTES, a.content);
        match window.get(end..end + n) {
            Some(found) if found == &want[..n] => end += n,
            Some(_) => {
                return Err(Wrong::Entry(end, "the content is no byte string of the length that the attributes say"))
            }
            None => return Err(Wrong::Short),
        }
    }
    Ok(Head { path, attributes: a, end })
}

/// The same, counted from the byte before.
fn behind(w: Wrong) -> Wrong {
    match w {
        Wrong::Short => Wrong::Short,
        Wrong::Cbor(f) => Wrong::Cbor(torpor::cbor::Fault { at: f.at + 1, ..f }),
        Wrong::Entry(at, why) => Wrong::Entry(at + 1, why),
        Wrong::Large(at, why) => Wrong::Large(at + 1, why),
    }
}

/// Hands on `left` bytes.
fn copy(mut left: u64, native: &mut Input<'_>, records: &mut Output<'_>) -> Result<()> {
    while left > 0 {
        if native.bytes().is_empty() && !native.fill()? {
            return Err(cut(native));
        }
        let n = (native.bytes().len() as u64).min(left) as usize;
        records.write(native.bytes().get(..n).unwrap_or(&[]))?;
        native.consume(n);
        left -= n as u64;
    }
    Ok(())
}

#[cold]
fn cut(native: &Input<'_>) -> Error {
    Error::corrupt(native.offset() + native.bytes().len() as u64, "the state ends inside the content of a file")
}

/// Cuts `left` bytes into pieces, each a record, and ends them with a record of their own.
fn pieces(
    m: &mut Memory,
    path: usize,
    mut left: u64,
    partition: &str,
    native: &mut Input<'_>,
    records: &mut Output<'_>,
) -> Result<()> {
    m.counts.clear();
    m.key[path..path + PIECES.len()].copy_from_slice(PIECES);
    let base = path + PIECES.len();
    let mut cutter = Cutter::new(PIECE_BITS);
    let mut order = Order::new();
    let mut buf = [0; MAX_PIECE_NAME];
    while left > 0 {
        let here = native.bytes().len() as u64;
        let window = native.bytes().get(..here.min(left) as usize).unwrap_or(&[]);
        let n = match cutter.cut(window, here >= left) {
            Some(n) => n,
            None if native.fill()? => continue,
            None => return Err(cut(native).path(told(&m.key[..path]))),
        };
        let piece = window.get(..n).unwrap_or(&[]);
        let hash = hash64(piece);
        let count = match m.counts.count(hash) {
            Some(count) => count,
            None => return Err(Error::new(Code::TooLarge, "more than 2^32 pieces").path(told(&m.key[..path]))),
        };
        order.add(hash, count, n);
        let len = piece_name(&mut buf, hash, count);
        m.key[base..base + len].copy_from_slice(&buf[..len]);
        records.record(partition, key(&m.key[..base + len]))?;
        records.bytes(piece)?;
        native.consume(n);
        left -= n as u64;
    }
    records.record(partition, key(&m.key[..base]))?;
    records.map(2)?;
    records.text("pieces")?;
    records.uint(order.pieces())?;
    records.text("order")?;
    records.bytes(&order.digest().to_be_bytes())
}
