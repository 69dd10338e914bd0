//! What `inspect` tells: how many records there are, of what kinds, where, and which is the largest.

use crate::error::Result;
use crate::output::Output;
use crate::record::{Key, Record};
use crate::walk::Visitor;

/// How many partitions, and how many kinds, are counted by name.
const MAX_NAMES: usize = 256;

/// How many bytes the names of partitions, or of kinds, may have together.
const MAX_NAME_BYTES: usize = 64 << 10;

/// How many bytes of the largest record's partition and key are told.
const MAX_TOLD_BYTES: usize = 1 << 10;

/// Slots of the table that finds a name: a power of two, twice the names.
const SLOTS: usize = 2 * MAX_NAMES;

#[derive(Clone, Copy)]
struct Count {
    n: u64,
    bytes: u64,
}

impl Count {
    const ZERO: Count = Count { n: 0, bytes: 0 };

    fn add(&mut self, bytes: u64) {
        self.n += 1;
        self.bytes += bytes;
    }

    /// Two pairs of a map.
    fn write(&self, what: &str, out: &mut Output<'_>) -> Result<()> {
        out.text(what)?;
        out.uint(self.n)?;
        out.text("bytes")?;
        out.uint(self.bytes)
    }
}

/// A name that is counted; it lies in `text`.
#[derive(Clone, Copy)]
struct Name {
    start: usize,
    end: usize,
    count: Count,
}

/// Counts by name, of a bounded number of names; what more there are is counted together.
struct Counts {
    names: [Name; MAX_NAMES],
    len: usize,
    slots: [u16; SLOTS], // index + 1 in names; 0 is free
    text: [u8; MAX_NAME_BYTES],
    other: Count,
}

impl Counts {
    const NONE: Counts = Counts {
        names: [Name { start: 0, end: 0, count: Count::ZERO }; MAX_NAMES],
        len: 0,
        slots: [0; SLOTS],
        text: [0; MAX_NAME_BYTES],
        other: Count::ZERO,
    };

    fn clear(&mut self) {
        self.len = 0;
        self.slots = [0; SLOTS];
        self.other = Count::ZERO;
    }

    /// The place of a name, or `None` if they are too many.
    fn find(&mut self, name: &str) -> Option<usize> {
        let name = name.as_bytes();
        let hash = name.iter().fold(0x811c_9dc5_u32, |h, b| (h ^ *b as u32).wrapping_mul(0x0100_0193)); // FNV-1a
        let mut slot = hash as usize % SLOTS;
        while self.slots[slot] > 0 {
            let at = self.slots[slot] as usize - 1;
            let n = self.names[at];
            if &self.text[n.start..n.end] == name {
                return Some(at);
            }
            slot = (slot + 1) % SLOTS;
        }
        let start = if self.len == 0 { 0 } else { self.names[self.len - 1].end };
        let end = start + name.len();
        if self.len == MAX_NAMES || end > MAX_NAME_BYTES {
            return None;
        }
        self.text[start..end].copy_from_slice(name);
        self.names[self.len] = Name { start, end, count: Count::ZERO };
        self.len += 1;
        self.slots[slot] = self.len as u16;
        Some(self.len - 1)
    }

    fn add(&mut self, at: Option<usize>, bytes: u64) {
        match at {
            Some(at) => self.names[at].count.add(bytes),
            None => self.other.add(bytes),
        }
    }

    /// A pair of a map: a map of the names, and what is counted together under `other` in it.
    fn write(&self, what: &str, counted: &str, out: &mut Output<'_>) -> Result<()> {
        out.text(what)?;
        out.map(self.len)?;
        for n in &self.names[..self.len] {
            out.text(text(&self.text[n.start..n.end]))?;
            out.map(2)?;
            n.count.write(counted, out)?;
        }
        Ok(())
    }
}

/// The partition and key of a record, cut to what is told.
#[derive(Clone, Copy)]
struct Told {
    partition: [u8; MAX_TOLD_BYTES],
    partition_len: usize,
    key: [u8; MAX_TOLD_BYTES],
    key_len: usize,
    text: bool,
    cut: bool,
}

impl Told {
    const NONE: Told = Told {
        partition: [0; MAX_TOLD_BYTES],
        partition_len: 0,
        key: [0; MAX_TOLD_BYTES],
        key_len: 0,
        text: false,
        cut: false,
    };

    fn set(&mut self, r: &Record<'_>) {
        let (key, text) = match r.key {
            Key::Text(k) => (k.as_bytes(), true),
            Key::Bytes(k) => (k, false),
        };
        self.partition_len = copy(&mut self.partition, r.partition.as_bytes(), true);
        self.key_len = copy(&mut self.key, key, text);
        self.text = text;
        self.cut = self.partition_len < r.partition.len() || self.key_len < key.len();
    }
}

/// Copies as much as fits; of text, whole characters only.
fn copy(to: &mut [u8; MAX_TOLD_BYTES], from: &[u8], text: bool) -> usize {
    let mut n = from.len().min(MAX_TOLD_BYTES);
    while text && n < from.len() && from[n] & 0xc0 == 0x80 {
        n -= 1;
    }
    to[..n].copy_from_slice(&from[..n]);
    n
}

/// What `inspect` tells of records: how many there are and how large they are, by partition and by kind,
/// and which is the largest.
///
/// It is a [`Visitor`]: [`walk`](crate::walk) counts the records; the serializer, which alone knows what
/// they are, says their [`kind`](Summary::kind). Memory is fixed, some 170 KiB: put it into a
/// [`Scratch`](crate::Scratch). At most 256 partitions and 256 kinds are counted by name, with 64 KiB of
/// names each.
pub struct Summary {
    all: Count,
    partitions: Counts,
    kinds: Counts,
    largest: Told,
    largest_bytes: u64,
    // The record that comes in fragments.
    open: bool,
    open_at: Option<usize>,
    open_bytes: u64,
    open_told: Told,
}

impl Summary {
    /// Nothing counted yet; it takes no room in the module.
    pub const fn new() -> Summary {
        Summary {
            all: Count::ZERO,
            partitions: Counts::NONE,
            kinds: Counts::NONE,
            largest: Told::NONE,
            largest_bytes: 0,
            open: false,
            open_at: None,
            open_bytes: 0,
            open_told: Told::NONE,
        }
    }

    /// Forgets what the call before counted.
    pub fn clear(&mut self) {
        self.all = Count::ZERO;
        self.partitions.clear();
        self.kinds.clear();
        self.largest_bytes = 0;
        self.open = false;
        self.open_bytes = 0;
    }

    /// Counts one of a kind, such as `file`, `row of orders` or a class, beside the records.
    pub fn kind(&mut self, name: &str, bytes: u64) {
        let at = self.kinds.find(name);
        self.kinds.add(at, bytes);
    }

    fn count(&mut self, at: Option<usize>, bytes: u64) {
        self.all.add(bytes);
        self.partitions.add(at, bytes);
    }

    /// Writes the map: the pairs of `first`, then
    ///
    /// ```text
    /// "records": 80000, "bytes": 20971520,
    /// "partitions": { "000000000000/eu-west-1": { "records": 80000, "bytes": 20971520 } },
    /// "other": { … },        // the records of more partitions than are counted by name, if there are any
    /// "kinds": { "file": { "count": 12, "bytes": 4096 } }, "other_kinds": { … },    // if there are any
    /// "largest": { "partition": "000000000000/eu-west-1", "key": "stream-00000007", "bytes": 262 }
    /// ```
    ///
    /// `largest` is absent if there are no records; its names are cut to 1 KiB each, and `cut: true` says so.
    pub fn write(&self, first: &[(&str, u64)], out: &mut Output<'_>) -> Result<()> {
        let largest = self.all.n > 0;
        let (other, kinds, other_kinds) = (self.partitions.other.n > 0, self.kinds.len > 0, self.kinds.other.n > 0);
        out.map(first.len() + 3 + largest as usize + other as usize + kinds as usize + other_kinds as usize)?;
        for (name, n) in first {
            out.text(name)?;
            out.uint(*n)?;
        }
        self.all.write("records", out)?;
        self.partitions.write("partitions", "records", out)?;
        if other {
            out.text("other")?;
            out.map(2)?;
            self.partitions.other.write("records", out)?;
        }
        if kinds {
            self.kinds.write("kinds", "count", out)?;
        }
        if other_kinds {
            out.text("other_kinds")?;
            out.map(2)?;
            self.kinds.other.write("count", out)?;
        }
        if largest {
            let l = &self.largest;
            out.text("largest")?;
            out.map(3 + l.cut as usize)?;
            out.text("partition")?;
            out.text(text(&l.partition[..l.partition_len]))?;
            out.text("key")?;
            let key = &l.key[..l.key_len];
            if l.text {
                out.text(text(key))?;
            } else {
                out.bytes(key)?;
            }
            out.text("bytes")?;
            out.uint(self.largest_bytes)?;
            if l.cut {
                out.text("cut")?;
                out.bool(true)?;
            }
        }
        Ok(())
    }
}

impl Default for Summary {
    fn default() -> Summary {
        Summary::new()
    }
}

/// Text that has been checked and was cut between characters.
fn text(bytes: &[u8]) -> &str {
    core::str::from_utf8(bytes).unwrap_or("")
}

impl Visitor for Summary {
    fn record(&mut self, encoded: &[u8]) -> Result<()> {
        let r = Record::parse(encoded).map_err(|f| f.error(0))?;
        let bytes = encoded.len() as u64;
        let at = self.partitions.find(r.partition);
        self.count(at, bytes);
        if bytes > self.largest_bytes {
            self.largest_bytes = bytes;
            self.largest.set(&r);
        }
        Ok(())
    }

    fn batch(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn fragment(&mut self, piece: &[u8], more: bool) -> Result<()> {
        if !self.open {
            let r = Record::parse(piece).map_err(|f| f.error(0))?;
            self.open = true;
            self.open_at = self.partitions.find(r.partition);
            self.open_bytes = 0;
            self.open_told.set(&r);
        }
        self.open_bytes += piece.len() as u64;
        if !more {
            self.open = false;
            self.count(self.open_at, self.open_bytes);
            if self.open_bytes > self.largest_bytes {
                self.largest_bytes = self.open_bytes;
                self.largest = self.open_told;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cbor::Reader;
    use crate::testing::Run;
    use crate::{migrate_none, walk, Call, Descriptor, Input, Scratch, Serializer};
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    static SUMMARY: Scratch<Summary> = Scratch::new(Summary::new());

    /// Its native state is text, of which each line becomes a record of the line's first letter.
    struct Lines;

    impl Serializer for Lines {
        const DESCRIPTOR: Descriptor = Descriptor {
            name: "lines",
            version: "1",
            schema: 4,
            reads: &[4],
            media: "text/plain",
            operations: &["save", "load", "migrate", "inspect"],
            ordered: false,
            canonical: true,
        };

        fn save(_: &Call<'_>, native: &mut Input<'_>, records: &mut Output<'_>) -> Result<()> {
            let mut n = 0;
            while let Some(line) = native.until(b'\n')? {
                let line = core::str::from_utf8(line).unwrap_or("");
                records.record(line.trim_end(), &format!("{}", n)[..])?;
                records.text(line)?;
                n += 1;
            }
            Ok(())
        }

        fn load(_: &Call<'_>, _: &mut Input<'_>, _: &mut Output<'_>) -> Result<()> {
            Ok(())
        }

        fn migrate(call: &Call<'_>, records: &mut Input<'_>, out: &mut Output<'_>) -> Result<()> {
            migrate_none(call, 4, records, out)
        }

        fn inspect(_: &Call<'_>, records: &mut Input<'_>, out: &mut Output<'_>) -> Result<()> {
            SUMMARY.with(|s| {
                s.clear();
                walk(records, s)?;
                s.kind("line", 3);
                s.kind("line", 4);
                s.write(&[("answer", 42)], out)
            })
        }
    }

    /// The summary of lines, its maps written as one line of text.
    fn told(lines: &str, piece: usize) -> String {
        let run = Run { piece, ..Run::default() };
        let records = run.save::<Lines>(lines.as_bytes()).unwrap();
        let map = run.inspect::<Lines>(&records).unwrap();
        let mut text = String::new();
        show(&mut Reader::new(&map), &mut text);
        text
    }

    fn show(r: &mut Reader<'_>, to: &mut String) {
        match r.major() {
            Some(crate::cbor::MAP) => {
                to.push('{');
                for i in 0..r.map().unwrap() {
                    to.push_str(if i > 0 { " " } else { "" });
                    show(r, to);
                    to.push(':');
                    show(r, to);
                }
                to.push('}');
            }
            Some(crate::cbor::TEXT) => to.push_str(r.text().unwrap()),
            Some(crate::cbor::UINT) => to.push_str(&format!("{}", r.uint().unwrap())),
            _ => {
                r.bool().unwrap();
                to.push_str("yes");
            }
        }
    }

    #[test]
    fn counts() {
        assert_eq!(
            told("a\nb\na\n", 0),
            "{answer:42 records:3 bytes:24 partitions:{a:{records:2 bytes:16} b:{records:1 bytes:8}} \
             kinds:{line:{count:2 bytes:7}} largest:{partition:a key:0 bytes:8}}"
        );
        assert_eq!(told("", 0), "{answer:42 records:0 bytes:0 partitions:{} kinds:{line:{count:2 bytes:7}}}");
    }

    #[test]
    fn what_is_too_much_is_counted_together_and_cut() {
        let many: Vec<String> = (0..300).map(|i| format!("{:03}", i)).collect();
        let text = told(&(many.join("\n") + "\n"), 0);
        assert!(text.contains(" 255:{records:1 bytes:14}} other:{records:44 bytes:616} kinds:"), "{}", text);
        let long = "\u{e9}".repeat(1000);
        assert!(
            told(&long, 500).ends_with(&format!("largest:{{partition:{} key:0 bytes:4009 cut:yes}}}}", &long[..1024]))
        );
    }

    #[test]
    fn a_record_in_fragments_counts_once() {
        let mut record = vec![0x83, 0x61, b'p', 0x61, b'k', 0x5a, 0, 4, 0, 0];
        record.resize(record.len() + (4 << 16), 7);
        let map = Run::default().inspect::<Lines>(&record).unwrap();
        let mut text = String::new();
        show(&mut Reader::new(&map), &mut text);
        assert!(text.contains("records:1 bytes:262154 partitions:{p:{records:1 bytes:262154}}"), "{}", text);
        assert!(text.ends_with("largest:{partition:p key:k bytes:262154}}"), "{}", text);
    }

    #[test]
    fn one_schema_is_no_migration() {
        let records = Run::default().save::<Lines>(b"a\nb\n").unwrap();
        let way = |from, to| Run { from, to, ..Run::default() }.migrate::<Lines>(&records);
        assert_eq!(way(4, 4).unwrap(), records);
        for (from, to) in [(3, 4), (4, 5), (3, 3)] {
            let failure = way(from, to).unwrap_err();
            assert_eq!(failure.code, 3);
            assert_eq!(
                failure.msg,
                format!("this serializer knows schema 4 only: there is no way from {} to {}", from, to)
            );
        }
    }
}
