//! `raw`: the serializer of any bytes, for what has no better one.
//!
//! Native state is cut by content into pieces (package `torpor::cut`), each a record whose key is the hash
//! of its bytes, and one record more says how they follow each other. README.md has the records, and why
//! nothing is lost where two pieces have the same hash.

#![no_std]
#![deny(unsafe_code)]

use torpor::cbor::{Fault, Reader};
use torpor::cut::{hash64, parse_piece_name, piece_name, Cutter, Occurrences, Order, MAX_PIECE_NAME};
use torpor::{
    migrate_none, walk, Call, Code, Descriptor, Error, Input, Key, Output, Record, Result, Scratch, Serializer,
    Summary, Text, Visitor, MAX_PARTITION_BYTES,
};

/// Pieces are of 16 KiB on average, of 64 KiB at most.
const PIECE_BITS: u32 = 14;

/// The key of the record behind the pieces. No piece is called so.
const END: &str = "end";

const SCHEMA: u64 = 1;

struct Raw;

static COUNTS: Scratch<Occurrences> = Scratch::new(Occurrences::new());
static SUMMARY: Scratch<Summary> = Scratch::new(Summary::new());

impl Serializer for Raw {
    const DESCRIPTOR: Descriptor = Descriptor {
        name: "raw",
        version: "1.0.0",
        schema: SCHEMA,
        reads: &[SCHEMA],
        media: "application/octet-stream",
        operations: &["save", "load", "migrate", "inspect"],
        ordered: false,
        canonical: true,
    };

    fn save(call: &Call<'_>, native: &mut Input<'_>, records: &mut Output<'_>) -> Result<()> {
        let partition = partition(call)?;
        COUNTS.with(|counts| {
            counts.clear();
            save(partition, counts, native, records)
        })
    }

    fn load(call: &Call<'_>, records: &mut Input<'_>, native: &mut Output<'_>) -> Result<()> {
        partition(call)?;
        load(records, native)
    }

    fn migrate(call: &Call<'_>, records: &mut Input<'_>, out: &mut Output<'_>) -> Result<()> {
        partition(call)?;
        migrate_none(call, SCHEMA, records, out)
    }

    fn inspect(call: &Call<'_>, records: &mut Input<'_>, out: &mut Output<'_>) -> Result<()> {
        partition(call)?;
        SUMMARY.with(|summary| {
            summary.clear();
            let mut sizes = Sizes { summary, pieces: 0, bytes: 0, open: None };
            walk(records, &mut sizes)?;
            let (pieces, bytes) = (sizes.pieces, sizes.bytes);
            summary.write(&[("schema", SCHEMA), ("pieces", pieces), ("state_bytes", bytes)], out)
        })
    }
}

/// The partition of all records: the setting `partition`, or none.
fn partition<'a>(call: &Call<'a>) -> Result<&'a str> {
    let mut partition = "";
    call.settings(&["partition"], |name, mut value| {
        partition = match (value.text(), value.end()) {
            (Ok(p), Ok(())) if p.len() <= MAX_PARTITION_BYTES => p,
            _ => return Err(Call::wrong_setting(name, "a text of at most 4096 bytes")),
        };
        Ok(())
    })?;
    Ok(partition)
}

fn save(partition: &str, counts: &mut Occurrences, native: &mut Input<'_>, records: &mut Output<'_>) -> Result<()> {
    let mut cutter = Cutter::new(PIECE_BITS);
    let mut order = Order::new();
    let mut name = [0; MAX_PIECE_NAME];
    loop {
        let n = match cutter.cut(native.bytes(), native.ended()) {
            Some(n) => n,
            None if native.fill()? || !native.bytes().is_empty() => continue,
            None => break,
        };
        let piece = native.bytes().get(..n).unwrap_or(&[]);
        let hash = hash64(piece);
        let count = match counts.count(hash) {
            Some(count) => count,
            None => return Err(Error::new(Code::TooLarge, "more than 2^32 pieces").at(native.offset())),
        };
        order.add(hash, count, n);
        let len = piece_name(&mut name, hash, count);
        records.record(partition, core::str::from_utf8(&name[..len]).unwrap_or(""))?;
        records.bytes(piece)?;
        native.consume(n);
    }
    records.record(partition, END)?;
    records.map(3)?;
    records.text("bytes")?;
    records.uint(order.bytes())?;
    records.text("pieces")?;
    records.uint(order.pieces())?;
    records.text("order")?;
    records.bytes(&order.digest().to_be_bytes())
}

fn load(records: &mut Input<'_>, native: &mut Output<'_>) -> Result<()> {
    let mut order = Order::new();
    let mut ended = false;
    loop {
        let at = records.offset();
        let r = match records.record()? {
            Some(r) => r,
            None if ended => return Ok(()),
            None => {
                return Err(Error::corrupt(at, "the record \"end\" is missing: the state is cut, or not one of raw"))
            }
        };
        let key = match r.key {
            Key::Text(key) => key,
            Key::Bytes(_) => "",
        };
        if ended {
            return Err(wrong(at, key, "behind the record \"end\": this is more than one state"));
        }
        if key == END {
            ended = true;
            let found = match end(r.value).map_err(|f| f.error(at).path(END))? {
                Some(found) => found,
                None => return Err(wrong(at, END, "there is other than bytes, pieces and order")),
            };
            if found != (order.bytes(), order.pieces(), &order.digest().to_be_bytes()[..]) {
                let msg = "the pieces are not those of one state, or not in its order: states of raw cannot be merged";
                return Err(wrong(at, END, msg));
            }
            continue;
        }
        let mut value = Reader::new(r.value);
        let piece = value.bytes().map_err(|f| f.error(at).path(key))?;
        if piece.is_empty() {
            return Err(wrong(at, key, "an empty piece"));
        }
        match parse_piece_name(key.as_bytes()) {
            Some((hash, count)) if hash == hash64(piece) => order.add(hash, count, piece.len()),
            Some(_) => return Err(wrong(at, key, "the piece has another hash than its key says")),
            None => return Err(wrong(at, key, "the key is none of a piece")),
        }
        native.write(piece)?;
    }
}

/// The value of the last record: bytes, pieces, order. `None` if there is anything else.
fn end(value: &[u8]) -> core::result::Result<Option<(u64, u64, &[u8])>, Fault> {
    let mut r = Reader::new(value);
    if r.map()? != 3 {
        return Ok(None);
    }
    let names_and_values = (r.text()?, r.uint()?, r.text()?, r.uint()?, r.text()?, r.bytes()?);
    r.end()?;
    Ok(match names_and_values {
        ("bytes", bytes, "pieces", pieces, "order", order) => Some((bytes, pieces, order)),
        _ => None,
    })
}

#[cold]
fn wrong(at: u64, key: &str, msg: &str) -> Error {
    Error::corrupt(at, Text::new().str(msg)).path(Text::new().str(key))
}

/// Counts pieces by size.
struct Sizes<'s> {
    summary: &'s mut Summary,
    pieces: u64,
    bytes: u64,
    open: Option<u64>, // the size of the piece that comes in fragments
}

impl Sizes<'_> {
    /// The size of the piece that a record holds, told from its first bytes.
    fn size(encoded: &[u8]) -> Option<u64> {
        let r = Record::parse(encoded).ok()?;
        match r.key {
            Key::Text(END) | Key::Bytes(_) => None,
            Key::Text(_) => {
                // The head alone: the bytes may not be all here.
                let head = r.value.get(..r.value.len().min(9))?;
                match head {
                    [b @ 0x40..=0x57, ..] => Some((*b - 0x40) as u64),
                    [0x58, n, ..] => Some(*n as u64),
                    [0x59, a, b, ..] => Some(u16::from_be_bytes([*a, *b]) as u64),
                    [0x5a, a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d]) as u64),
                    _ => None,
                }
            }
        }
    }

    fn count(&mut self, size: u64) {
        self.pieces += 1;
        self.bytes += size;
        let kind = match size {
            0..=0xfff => "piece below 4 KiB",
            0x1000..=0x1fff => "piece of 4 to 8 KiB",
            0x2000..=0x3fff => "piece of 8 to 16 KiB",
            0x4000..=0x7fff => "piece of 16 to 32 KiB",
            _ => "piece of 32 to 64 KiB",
        };
        self.summary.kind(kind, size);
    }
}

impl Visitor for Sizes<'_> {
    fn record(&mut self, encoded: &[u8]) -> Result<()> {
        if let Some(size) = Sizes::size(encoded) {
            self.count(size);
        }
        self.summary.record(encoded)
    }

    fn batch(&mut self, encoded: &[u8]) -> Result<()> {
        self.summary.batch(encoded)
    }

    fn fragment(&mut self, piece: &[u8], more: bool) -> Result<()> {
        if self.open.is_none() {
            self.open = Some(Sizes::size(piece).unwrap_or(0));
        }
        if !more {
            if let Some(size) = self.open.take() {
                self.count(size);
            }
        }
        self.summary.fragment(piece, more)
    }
}

// The input holds the longest piece and what comes behind it, so that few bytes are moved.
torpor::serializer!(Raw, input = 131_072, output = 131_072);
torpor::panic_handler!();

#[cfg(test)]
extern crate std;

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::{String, ToString};
    use std::sync::{Mutex, MutexGuard};
    use std::vec;
    use std::vec::Vec;
    use torpor::testing::{load, round_trip, save, Run};

    /// A guest runs one call at a time, and tests run in threads.
    fn alone() -> MutexGuard<'static, ()> {
        static ONE: Mutex<()> = Mutex::new(());
        ONE.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn noise(n: usize) -> Vec<u8> {
        let mut state = 1u64;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 56) as u8
            })
            .collect()
    }

    /// Key and length of each record.
    fn keys(records: &[u8]) -> Vec<(String, usize)> {
        split(records).iter().map(|r| (key(r), r.len())).collect()
    }

    fn key(record: &[u8]) -> String {
        match Record::parse(record).unwrap().key {
            Key::Text(k) => k.to_string(),
            Key::Bytes(_) => panic!(),
        }
    }

    fn split(records: &[u8]) -> Vec<Vec<u8>> {
        let mut rest = records;
        let mut all = Vec::new();
        while !rest.is_empty() {
            let n = Reader::new(rest).item().unwrap().len();
            all.push(rest[..n].to_vec());
            rest = &rest[n..];
        }
        all
    }

    #[test]
    fn any_bytes_round_trip() {
        let _alone = alone();
        let data = noise(700_000);
        for n in [0, 1, 23, 24, 4_095, 4_096, 65_536, 65_537, 700_000] {
            let records = round_trip::<Raw>(&data[..n]);
            assert_eq!(keys(&records).last().unwrap().0, "end");
        }
        assert_eq!(keys(&save::<Raw>(b"").unwrap()).len(), 1);
        let equal = round_trip::<Raw>(&vec![0; 1_000_000]);
        let found: Vec<String> = keys(&equal).into_iter().map(|(k, _)| k).collect();
        assert!(found.len() == 17 && found[1] == found[0].clone() + ".1", "{found:?}");
    }

    #[test]
    fn an_insertion_changes_few_records() {
        let _alone = alone();
        let data = noise(4 << 20);
        let before = split(&save::<Raw>(&data).unwrap());
        let mut changed = data;
        changed.splice(1_000_000..1_000_000, *b"ten bytes!");
        let after = split(&save::<Raw>(&changed).unwrap());
        let new = after.iter().filter(|r| !before.contains(r)).count();
        assert!(before.len() > 100 && new <= 4, "{new} of {} records", after.len());
    }

    #[test]
    fn records_that_are_no_state_are_refused() {
        let _alone = alone();
        let data = noise(300_000);
        let all = split(&save::<Raw>(&data).unwrap());
        let fails = |records: Vec<Vec<u8>>, msg: &str| {
            let f = load::<Raw>(&records.concat()).unwrap_err();
            assert!(f.code == 2 && f.msg.contains(msg), "{f:?}, want {msg}");
        };
        let n = all.len() - 1;
        assert!(n > 3);
        fails(all[..n].to_vec(), "\"end\" is missing");
        fails(vec![], "\"end\" is missing");
        fails([&all[..], &all[..1]].concat(), "behind the record");
        fails(all[1..].to_vec(), "not those of one state");
        fails([&all[1..2], &all[..1], &all[2..]].concat(), "not those of one state");
        let mut other = all.clone();
        *other[0].last_mut().unwrap() ^= 1;
        fails(other, "another hash");
        fails(vec![vec![0x83, 0x60, 0x61, b'x', 0x41, 0]], "the key is none");
        fails(vec![vec![0x83, 0x60, 0x41, b'x', 0x41, 0]], "the key is none");
        fails(vec![vec![0x83, 0x60, 0x61, b'x', 0xf6]], "a byte string expected");
        fails(vec![vec![0x83, 0x60, 0x63, b'e', b'n', b'd', 0xf6]], "a map expected");
        // What save does not write, load does not take: it would be gone from the next save.
        let nothing = [&[0x83, 0x60, 0x70][..], b"ef46db3751d8e999", &[0x40]].concat();
        let empty = split(&save::<Raw>(b"").unwrap()).remove(0);
        let mut order = Order::new();
        order.add(hash64(b""), 0, 0);
        let mut end = empty.clone();
        let n = end.len();
        end[n - 8..].copy_from_slice(&order.digest().to_be_bytes());
        end[n - 16] = 1; // pieces
        fails(vec![nothing, end], "an empty piece");
        let mut more = empty.clone();
        assert_eq!(more[6], 0xa3);
        more[6] = 0xa4;
        more.extend([0x61, b'x', 0xf6]);
        fails(vec![more], "other than bytes, pieces and order");
        let mut again = empty;
        again[6] = 0xa4;
        again.extend([0x65, b'b', b'y', b't', b'e', b's', 0x00]);
        fails(vec![again], "other than bytes, pieces and order");
    }

    #[test]
    fn settings() {
        let _alone = alone();
        let run = |settings: &[u8]| Run { settings: settings.to_vec(), ..Run::default() };
        let p = [&[0xa1, 0x69][..], b"partition", &[0x61, b'p']].concat();
        let records = run(&p).save::<Raw>(b"x").unwrap();
        assert_eq!(Record::parse(&split(&records)[0]).unwrap().partition, "p");
        assert_eq!(run(&p).load::<Raw>(&records).unwrap(), b"x");
        let n = p.len();
        assert_eq!(run(&[&p[..n - 2], &[0x01]].concat()).save::<Raw>(b"x").unwrap_err().path, "settings.partition");
        assert_eq!(run(&[0xa1, 0x61, b'q', 0x01]).save::<Raw>(b"x").unwrap_err().path, "settings.q");
    }

    #[test]
    fn inspect_counts_pieces() {
        let _alone = alone();
        let records = save::<Raw>(&noise(500_000)).unwrap();
        for piece in [0, 100, 70_000] {
            let map = Run { piece, ..Run::default() }.inspect::<Raw>(&records).unwrap();
            let mut r = Reader::new(&map);
            r.map().unwrap();
            let mut first = Vec::new();
            for _ in 0..3 {
                first.push((r.text().unwrap(), r.uint().unwrap()));
            }
            assert_eq!(first, [("schema", 1), ("pieces", split(&records).len() as u64 - 1), ("state_bytes", 500_000)]);
        }
    }

    #[test]
    fn one_schema() {
        let _alone = alone();
        let records = save::<Raw>(b"abc").unwrap();
        let run = |from, to| Run { from, to, ..Run::default() };
        assert_eq!(run(1, 1).migrate::<Raw>(&records).unwrap(), records);
        assert_eq!(run(1, 2).migrate::<Raw>(&records).unwrap_err().code, 3);
    }
}
