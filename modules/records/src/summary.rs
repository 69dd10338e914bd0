//! What `inspect` tells: how many records there are, where, and which is the largest.

use torpor::{Input, Key, Output, Record, Result, Scratch};

use crate::walk::{walk, Visitor};

/// How many partitions are counted by name; the records of any more are counted together.
const MAX_PARTITIONS: usize = 256;

/// How many bytes the names of those partitions may have together.
const MAX_NAME_BYTES: usize = 64 << 10;

/// How many bytes of the largest record's partition and key are told.
const MAX_TOLD_BYTES: usize = 1 << 10;

/// Slots of the table that finds a partition: a power of two, twice the partitions.
const SLOTS: usize = 2 * MAX_PARTITIONS;

/// Reads records and writes their summary.
pub fn inspect(schema: u64, records: &mut Input<'_>, out: &mut Output<'_>) -> Result<()> {
    SUMMARY.with(|summary| {
        summary.clear();
        walk(records, summary)?;
        summary.write(schema, out)
    })
}

#[derive(Clone, Copy)]
struct Count {
    records: u64,
    bytes: u64,
}

impl Count {
    const ZERO: Count = Count { records: 0, bytes: 0 };

    fn add(&mut self, bytes: u64) {
        self.records += 1;
        self.bytes += bytes;
    }

    /// Two pairs of a map.
    fn write(&self, out: &mut Output<'_>) -> Result<()> {
        out.text("records")?;
        out.uint(self.records)?;
        out.text("bytes")?;
        out.uint(self.bytes)
    }
}

/// A partition counted by name, which lies in `names`.
#[derive(Clone, Copy)]
struct Partition {
    start: usize,
    end: usize,
    count: Count,
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

struct Summary {
    all: Count,
    other: Count,
    partitions: [Partition; MAX_PARTITIONS],
    len: usize,
    slots: [u16; SLOTS], // index + 1 in partitions; 0 is free
    names: [u8; MAX_NAME_BYTES],
    largest: Told,
    largest_bytes: u64,
    // The record that comes in fragments.
    open: bool,
    open_at: Option<usize>,
    open_bytes: u64,
    open_told: Told,
}

static SUMMARY: Scratch<Summary> = Scratch::new(Summary {
    all: Count::ZERO,
    other: Count::ZERO,
    partitions: [Partition { start: 0, end: 0, count: Count::ZERO }; MAX_PARTITIONS],
    len: 0,
    slots: [0; SLOTS],
    names: [0; MAX_NAME_BYTES],
    largest: Told::NONE,
    largest_bytes: 0,
    open: false,
    open_at: None,
    open_bytes: 0,
    open_told: Told::NONE,
});

impl Summary {
    /// Forgets what the call before counted.
    fn clear(&mut self) {
        self.all = Count::ZERO;
        self.other = Count::ZERO;
        self.len = 0;
        self.slots = [0; SLOTS];
        self.largest_bytes = 0;
        self.open = false;
        self.open_bytes = 0;
    }

    /// The place of a partition among those counted by name, or `None` if they are too many.
    fn partition(&mut self, name: &[u8]) -> Option<usize> {
        let hash = name.iter().fold(0x811c_9dc5_u32, |h, b| (h ^ *b as u32).wrapping_mul(0x0100_0193)); // FNV-1a
        let mut slot = hash as usize % SLOTS;
        while self.slots[slot] > 0 {
            let at = self.slots[slot] as usize - 1;
            let p = self.partitions[at];
            if &self.names[p.start..p.end] == name {
                return Some(at);
            }
            slot = (slot + 1) % SLOTS;
        }
        let start = if self.len == 0 { 0 } else { self.partitions[self.len - 1].end };
        let end = start + name.len();
        if self.len == MAX_PARTITIONS || end > MAX_NAME_BYTES {
            return None;
        }
        self.names[start..end].copy_from_slice(name);
        self.partitions[self.len] = Partition { start, end, count: Count::ZERO };
        self.len += 1;
        self.slots[slot] = self.len as u16;
        Some(self.len - 1)
    }

    fn count(&mut self, at: Option<usize>, bytes: u64) {
        self.all.add(bytes);
        match at {
            Some(at) => self.partitions[at].count.add(bytes),
            None => self.other.add(bytes),
        }
    }

    /// Writes the map that README.md shows.
    fn write(&self, schema: u64, out: &mut Output<'_>) -> Result<()> {
        let largest = self.all.records > 0;
        let other = self.other.records > 0;
        out.map(4 + largest as usize + other as usize)?;
        out.text("schema")?;
        out.uint(schema)?;
        self.all.write(out)?;
        out.text("partitions")?;
        out.map(self.len)?;
        for p in &self.partitions[..self.len] {
            out.text(text(&self.names[p.start..p.end]))?;
            out.map(2)?;
            p.count.write(out)?;
        }
        if other {
            out.text("other")?;
            out.map(2)?;
            self.other.write(out)?;
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

/// Text that has been checked and was cut between characters.
fn text(bytes: &[u8]) -> &str {
    core::str::from_utf8(bytes).unwrap_or("")
}

impl Visitor for Summary {
    fn record(&mut self, encoded: &[u8]) -> Result<()> {
        let r = Record::parse(encoded).map_err(|f| f.error(0))?;
        let bytes = encoded.len() as u64;
        let at = self.partition(r.partition.as_bytes());
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
            self.open_at = self.partition(r.partition.as_bytes());
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
