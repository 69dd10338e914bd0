//! The records of a document by key: where the numbers of each begin.

use std::cell::Cell;

use torpor::{Code, Error, Result};

use crate::form::REF;
use crate::node::{head, tag, text, Refers};

/// How many bytes the keys of one document may have together.
const MAX_KEYS: usize = 48 << 20;

/// How many records one document may have.
const MAX_RECORDS: usize = 2 << 20;

/// The table.
pub struct Table {
    bases: Vec<u32>, // the number of objects before each record
    parts: Vec<u32>, // the partition of each
    ends: Vec<u32>,  // in `keys`
    keys: Vec<u8>,
    slots: Vec<u32>, // index + 1; 0 is free
    partitions: Vec<String>,
    /// Numbers of objects that are dropped: where a range begins and ends, and how many there were before.
    dropped: Vec<(u32, u32, u32)>,
    /// Whether one of them was referred to.
    pub missed: Cell<bool>,
}

fn hash(part: u32, key: &[u8]) -> u32 {
    let mut h = 0xcbf2_9ce4_8422_2325_u64 ^ part as u64;
    for b in key {
        h = (h ^ *b as u64).wrapping_mul(0x0100_0000_01b3);
    }
    (h ^ h >> 31) as u32
}

impl Table {
    pub fn new() -> Table {
        Table {
            bases: Vec::new(),
            parts: Vec::new(),
            ends: Vec::new(),
            keys: Vec::new(),
            slots: vec![0; 64],
            partitions: Vec::new(),
            dropped: Vec::new(),
            missed: Cell::new(false),
        }
    }

    pub fn clear(&mut self) {
        *self = Table::new();
    }

    #[inline(never)]
    fn partition(&mut self, name: &str) -> Result<u32> {
        if let Some(last) = self.partitions.last() {
            if last == name {
                return Ok(self.partitions.len() as u32 - 1);
            }
        }
        if let Some(at) = self.partitions.iter().position(|p| p == name) {
            return Ok(at as u32);
        }
        if self.partitions.len() == 65536 {
            return Err(Error::new(Code::TooLarge, "more than 65536 partitions"));
        }
        self.partitions.push(name.into());
        Ok(self.partitions.len() as u32 - 1)
    }

    fn key(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] as usize };
        &self.keys[start..self.ends[at] as usize]
    }

    #[inline(never)]
    fn slot(&self, part: u32, key: &[u8]) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash(part, key) as usize & mask;
        loop {
            let at = self.slots[slot] as usize;
            if at == 0 || (self.parts[at - 1] == part && self.key(at - 1) == key) {
                return slot;
            }
            slot = (slot + 1) & mask;
        }
    }

    /// Where the numbers of a record begin.
    #[inline(never)]
    pub fn find(&self, partition: &str, key: &str) -> Option<u32> {
        let part = match self.partitions.last() {
            Some(p) if p == partition => self.partitions.len() - 1,
            _ => self.partitions.iter().position(|p| p == partition)?,
        };
        match self.slots[self.slot(part as u32, key.as_bytes())] {
            0 => None,
            at => Some(self.bases[at as usize - 1]),
        }
    }

    /// Where the numbers of a record begin, which lies in the partition of the record under way.
    #[inline(never)]
    pub fn find_here(&self, key: &str) -> Option<u32> {
        let part = *self.parts.last()?;
        match self.slots[self.slot(part, key.as_bytes())] {
            0 => None,
            at => Some(self.bases[at as usize - 1]),
        }
    }

    /// Drops the numbers from `start` to `end`, `n` of which are there still; false if that is not all.
    #[inline(never)]
    pub fn forget(&mut self, start: u32, end: u32, n: u32) -> bool {
        let at = self.dropped.partition_point(|d| d.0 < start);
        let to = self.dropped.partition_point(|d| d.0 < end);
        let inner: u32 = self.dropped[at..to].iter().map(|d| d.1 - d.0).sum();
        self.dropped.splice(at..to, [(start, end, 0)]);
        for i in at..self.dropped.len() {
            self.dropped[i].2 = match i {
                0 => 0,
                _ => self.dropped[i - 1].2 + self.dropped[i - 1].1 - self.dropped[i - 1].0,
            };
        }
        n + inner == end - start
    }

    /// The number of an object without those that are dropped.
    #[inline(always)]
    fn left(&self, number: u32) -> u32 {
        if self.dropped.is_empty() {
            return number;
        }
        match self.dropped.partition_point(|d| d.0 <= number) {
            0 => number,
            at => {
                let d = self.dropped[at - 1];
                if number < d.1 {
                    self.missed.set(true);
                }
                number.wrapping_sub(d.2 + d.1 - d.0)
            }
        }
    }

    /// Adds a record whose numbers begin at `base`; false if its key is there already.
    #[inline(never)]
    pub fn add(&mut self, partition: &str, key: &str, base: u32) -> Result<bool> {
        let part = self.partition(partition)?;
        let slot = self.slot(part, key.as_bytes());
        if self.slots[slot] != 0 {
            return Ok(false);
        }
        if self.bases.len() == MAX_RECORDS || self.keys.len() + key.len() > MAX_KEYS {
            return Err(Error::new(Code::TooLarge, "the pickle makes too many records; raise split or lower depth"));
        }
        self.bases.push(base);
        self.parts.push(part);
        self.keys.extend_from_slice(key.as_bytes());
        self.ends.push(self.keys.len() as u32);
        self.slots[slot] = self.bases.len() as u32;
        if self.bases.len() * 2 > self.slots.len() {
            self.slots = vec![0; self.slots.len() * 4];
            for at in 0..self.bases.len() {
                let mask = self.slots.len() - 1;
                let mut slot = hash(self.parts[at], self.key(at)) as usize & mask;
                while self.slots[slot] != 0 {
                    slot = (slot + 1) & mask;
                }
                self.slots[slot] = at as u32 + 1;
            }
        }
        Ok(true)
    }
}

impl Refers for Table {
    /// The last record added is the one under way.
    fn refer(&self, out: &mut Vec<u8>, number: u32) {
        tag(out, REF);
        let here = self.bases.len() - 1;
        let number = self.left(number);
        if self.missed.get() {
            return;
        }
        if number >= self.bases[here] {
            head(out, torpor::cbor::UINT, (number - self.bases[here]) as u64);
            return;
        }
        let at = self.bases.partition_point(|b| *b <= number) - 1;
        if self.parts[at] == self.parts[here] {
            out.push(0x82);
        } else {
            out.push(0x83);
            text(out, self.partitions[self.parts[at] as usize].as_bytes());
        }
        text(out, self.key(at));
        head(out, torpor::cbor::UINT, (number - self.bases[at]) as u64);
    }
}
