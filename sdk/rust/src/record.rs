//! Records: the CBOR array `[partition, key, value]` (ABI.md, "Records").

use crate::cbor::{head, Fault, Nesting, Reader, Reason, Step, BYTES, TEXT};

/// How many bytes a partition may have, without its head.
pub const MAX_PARTITION_BYTES: usize = 4 << 10;

/// How many bytes a key may have, without its head.
pub const MAX_KEY_BYTES: usize = 64 << 10;

/// A buffer of this many bytes holds any record up to its value, so that a [`Checker`] gets past it.
pub const MIN_BUFFER: usize = 72 << 10;

/// The first byte of every record: an array of three.
pub const RECORD_HEAD: u8 = 0x83;

/// A record's key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key<'a> {
    /// A text string.
    Text(&'a str),
    /// A byte string.
    Bytes(&'a [u8]),
}

impl<'a> From<&'a str> for Key<'a> {
    fn from(s: &'a str) -> Key<'a> {
        Key::Text(s)
    }
}

impl<'a> From<&'a [u8]> for Key<'a> {
    fn from(s: &'a [u8]) -> Key<'a> {
        Key::Bytes(s)
    }
}

/// One record that lies whole in memory.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// `<account>/<region>` for cloud services, empty where there is none.
    pub partition: &'a str,
    /// Unique in its partition.
    pub key: Key<'a>,
    /// The value, one encoded item: read it with a [`Reader`].
    pub value: &'a [u8],
    /// The whole record, encoded.
    pub encoded: &'a [u8],
}

impl<'a> Record<'a> {
    /// Takes a checked record apart.
    pub fn parse(encoded: &'a [u8]) -> Result<Record<'a>, Fault> {
        let mut r = Reader::new(encoded);
        r.array()?;
        let partition = r.text()?;
        let key = if r.major() == Some(BYTES) { Key::Bytes(r.bytes()?) } else { Key::Text(r.text()?) };
        Ok(Record { partition, key, value: &encoded[r.offset()..], encoded })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Head,
    Partition,
    Key,
    Value,
}

/// Checks records that come in pieces of any size.
///
/// It accepts and refuses exactly what the host's own check does, and names the same offsets; only
/// the limit on the length of a whole record, which is the host's configuration, is left to the host.
/// Its own memory is fixed: a string inside a value is counted, not kept.
pub struct Checker {
    part: Part,
    value: Nesting,
}

impl Checker {
    /// Ready for the first record.
    pub const fn new() -> Checker {
        Checker { part: Part::Head, value: Nesting::new() }
    }

    /// Whether no record is under way, so that the input may end here.
    pub fn between(&self) -> bool {
        self.part == Part::Head
    }

    /// Checks `data` from `from` on, up to the end of the record there.
    ///
    /// [`Step::Whole`] says where that record ends. [`Step::Short`] says how far all is well: bytes
    /// before that offset need not be kept, and the next call must be given the bytes from it on,
    /// followed by more. After a fault the checker is spent.
    #[inline(always)]
    pub fn check(&mut self, data: &[u8], from: usize) -> Result<Step, Fault> {
        let mut p = from;
        if self.part == Part::Head {
            match data.get(p) {
                None => return Ok(Step::Short(p)),
                Some(&RECORD_HEAD) => p += 1,
                Some(b) => return Err(Fault::new(p, Reason::NoRecord(*b))),
            }
            self.part = Part::Partition;
        }
        if self.part == Part::Partition {
            match name(data, p, "partition", MAX_PARTITION_BYTES)? {
                Some(end) => p = end,
                None => return Ok(Step::Short(p)),
            }
            self.part = Part::Key;
        }
        if self.part == Part::Key {
            match name(data, p, "key", MAX_KEY_BYTES)? {
                Some(end) => p = end,
                None => return Ok(Step::Short(p)),
            }
            self.part = Part::Value;
            self.value.reset();
        }
        let step = self.value.pass(data, p)?;
        if let Step::Whole(_) = step {
            self.part = Part::Head;
        }
        Ok(step)
    }
}

impl Default for Checker {
    fn default() -> Checker {
        Checker::new()
    }
}

/// Checks the partition or key at `p` and returns its end, or `None` if it is not all here.
#[inline(always)]
fn name(data: &[u8], p: usize, what: &'static str, limit: usize) -> Result<Option<usize>, Fault> {
    let first = match data.get(p) {
        Some(b) => *b,
        None => return Ok(None),
    };
    let major = first >> 5;
    if major != TEXT && (major != BYTES || limit != MAX_KEY_BYTES) {
        return Err(Fault::new(p, Reason::NoString(what, first)));
    }
    let (n, from) = match head(data, p)? {
        Some(h) => h,
        None => return Ok(None),
    };
    if n > limit as u64 {
        return Err(Fault::new(p, Reason::LongName(what, n, limit)));
    }
    let content = match data.get(from..from + n as usize) {
        Some(c) => c,
        None => return Ok(None),
    };
    if major == TEXT && !is_ascii(content) && core::str::from_utf8(content).is_err() {
        return Err(Fault::new(from, Reason::NotUtf8(what)));
    }
    Ok(Some(from + n as usize))
}

/// Whether all bytes are ASCII: eight at a time, since nearly all keys are.
#[inline(always)]
fn is_ascii(s: &[u8]) -> bool {
    let word =
        |at: usize| s.get(at..at + 8).map_or(u64::MAX, |w| u64::from_ne_bytes(w.try_into().unwrap_or([0xff; 8])));
    if s.len() < 8 {
        return s.iter().fold(0, |all, b| all | *b) < 0x80;
    }
    let mut all = word(s.len() - 8);
    let mut at = 0;
    while at < s.len() - 8 {
        all |= word(at);
        at += 8;
    }
    all & 0x8080_8080_8080_8080 == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cbor::{encode_head, ARRAY, MAX_DEPTH};
    use std::vec::Vec;

    fn put(out: &mut Vec<u8>, major: u8, arg: usize) {
        let mut buf = [0; 9];
        let n = encode_head(&mut buf, major, arg as u64);
        out.extend_from_slice(&buf[..n]);
    }

    fn record(partition: &[u8], key_major: u8, key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut r = vec![RECORD_HEAD];
        put(&mut r, TEXT, partition.len());
        r.extend_from_slice(partition);
        put(&mut r, key_major, key.len());
        r.extend_from_slice(key);
        r.extend_from_slice(value);
        r
    }

    /// The ends of the records of `data`, which arrives `step` bytes at a time and of which only what
    /// the checker asks for is kept.
    fn ends(data: &[u8], step: usize) -> Result<(Vec<usize>, bool), (usize, Reason)> {
        let mut c = Checker::new();
        let mut ends = Vec::new();
        let (mut base, mut end) = (0, 0);
        let mut from = 0;
        while end < data.len() {
            end = data.len().min(end + step);
            loop {
                match c.check(&data[base..end], from) {
                    Err(f) => return Err((base + f.at, f.reason)),
                    Ok(Step::Whole(at)) => {
                        ends.push(base + at);
                        from = at;
                    }
                    Ok(Step::Short(at)) => {
                        base += at;
                        from = 0;
                        break;
                    }
                }
            }
            assert!(end - base <= MIN_BUFFER, "{} bytes kept", end - base);
        }
        Ok((ends, c.between()))
    }

    #[test]
    fn finds_records_however_they_are_cut() {
        let long = vec![b'v'; 300_000];
        let mut big = Vec::new();
        put(&mut big, ARRAY, 2);
        put(&mut big, BYTES, long.len());
        big.extend_from_slice(&long);
        big.push(0xf6);
        let all = [
            record(b"", TEXT, b"", &[0xf6]),
            record("000000000000/eu-west-1".as_bytes(), TEXT, "städte/köln".as_bytes(), &[0xa1, 0x61, b'a', 0x18, 99]),
            record(b"p", BYTES, &[0xff, 0xfe], &[0x83, 0x01, 0x20, 0xfb, 1, 2, 3, 4, 5, 6, 7, 8]),
            record(&[b'p'; MAX_PARTITION_BYTES], TEXT, &[b'k'; MAX_KEY_BYTES], &big),
            record(b"p", TEXT, b"last", &[0x60]),
        ];
        let data: Vec<u8> = all.concat();
        let mut want = Vec::new();
        for r in &all {
            want.push(want.last().unwrap_or(&0) + r.len());
        }
        for step in [1, 2, 3, 7, 64, 1000, 65536, data.len()] {
            assert_eq!(ends(&data, step), Ok((want.clone(), true)), "pieces of {step}");
        }
        let small = &data[..want[2]];
        for cut in 0..small.len() {
            let whole = cut == 0 || want.contains(&cut);
            assert_eq!(ends(&small[..cut], 5).map(|(_, between)| between), Ok(whole), "cut at {cut}");
        }
    }

    #[test]
    fn refuses_with_reason_and_offset() {
        let null = &[0xf6][..];
        let long = |n: usize| vec![b'k'; n];
        let cases: Vec<(Vec<u8>, usize, Reason)> = vec![
            (vec![0x82], 0, Reason::NoRecord(0x82)),
            ([record(b"", TEXT, b"a", null), vec![0x00]].concat(), 4 + 1, Reason::NoRecord(0)),
            (vec![0x83, 0x40], 1, Reason::NoString("partition", 0x40)),
            (vec![0x83, 0x60, 0x01], 2, Reason::NoString("key", 0x01)),
            (record(&[0xff], TEXT, b"k", null), 2, Reason::NotUtf8("partition")),
            (record(b"p", TEXT, &[0xed, 0xa0, 0x80], null), 4, Reason::NotUtf8("key")),
            (record(&long(4097), TEXT, b"", null), 1, Reason::LongName("partition", 4097, 4096)),
            (record(b"", BYTES, &long(65537), null), 2, Reason::LongName("key", 65537, 65536)),
            (vec![0x83, 0x78, 3], 1, Reason::NotShortest),
            (record(b"", TEXT, b"", &[0x81; MAX_DEPTH + 1]), 3 + MAX_DEPTH, Reason::Deep),
            (record(b"", TEXT, b"", &[0x5f]), 3, Reason::Indefinite),
        ];
        for (data, at, reason) in cases {
            for step in [1, 3, data.len()] {
                assert_eq!(ends(&data, step), Err((at, reason)), "pieces of {step}");
            }
        }
    }

    #[test]
    fn takes_apart() {
        let e = record(b"p", BYTES, &[1, 2], &[0x81, 0x07]);
        let r = Record::parse(&e).unwrap();
        assert_eq!((r.partition, r.key, r.value), ("p", Key::Bytes(&[1, 2]), &[0x81, 0x07][..]));
        let e = record(b"", TEXT, b"k", &[0xf6]);
        assert_eq!(Record::parse(&e).unwrap().key, Key::Text("k"));
    }
}
