//! The records of a document by key: where the numbers of each begin.

use std::cell::Cell;
use std::collections::BTreeMap;

use torpor::{Code, Error, Result};

use crate::form::REF;
use crate::names::same;
use crate::node::{head, tag, text, Refers};

/// How many bytes the keys of one document may have together.
const MAX_KEYS: usize = 48 << 20;

/// How many records one document may have.
const MAX_RECORDS: usize = 2 << 20;

/// How many bits a slot has for the index of a record.
const INDEX_BITS: u32 = 22;

/// The index and 1 that a slot holds.
const INDEX: u32 = !(u32::MAX << INDEX_BITS);

/// How many slots are looked at before a record goes elsewhere, so that keys made to collide cost little
/// more than others.
const MAX_PROBES: usize = 64;

/// The table.
pub struct Table {
    bases: Vec<u32>, // the number of objects before each record
    parts: Vec<u32>, // the partition of each
    ends: Vec<u32>,  // in `keys`
    keys: Vec<u8>,
    slots: Vec<u32>, // index + 1 and above it bits of the hash; 0 is free
    partitions: Vec<String>,
    by_name: BTreeMap<Vec<u8>, u32>, // the partitions
    /// Numbers of objects that are dropped: where a range begins and ends, and how many there were before.
    dropped: Vec<(u32, u32, u32)>,
    /// Those that are new since the last record: where they begin and end.
    fresh: BTreeMap<u32, u32>,
    /// Records whose keys found no slot, by partition and key.
    crowded: BTreeMap<Vec<u8>, u32>,
    /// Whether one of them was referred to.
    pub missed: Cell<bool>,
}

fn hash(part: u32, key: &[u8]) -> u32 {
    crate::names::hash(key) ^ part.wrapping_mul(0x9e37_79b9)
}

/// A record's key where keys crowd.
fn crowded(part: u32, key: &[u8]) -> Vec<u8> {
    [&part.to_be_bytes()[..], key].concat()
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
            by_name: BTreeMap::new(),
            dropped: Vec::new(),
            fresh: BTreeMap::new(),
            crowded: BTreeMap::new(),
            missed: Cell::new(false),
        }
    }

    pub fn clear(&mut self) {
        *self = Table::new();
    }

    #[inline(never)]
    fn partition(&mut self, name: &str) -> Result<u32> {
        if let Some(last) = self.parts.last() {
            if same(self.partitions[*last as usize].as_bytes(), name.as_bytes()) {
                return Ok(*last);
            }
        }
        if let Some(at) = self.by_name.get(name.as_bytes()) {
            return Ok(*at);
        }
        if self.partitions.len() == 65536 {
            return Err(Error::new(Code::TooLarge, "more than 65536 partitions"));
        }
        self.partitions.push(name.into());
        self.by_name.insert(name.into(), self.partitions.len() as u32 - 1);
        Ok(self.partitions.len() as u32 - 1)
    }

    fn key(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] as usize };
        &self.keys[start..self.ends[at] as usize]
    }

    /// The slot that a key has or could have; nothing where so many others are that it must be elsewhere.
    #[inline(never)]
    fn slot(&self, part: u32, key: &[u8], h: u32) -> Option<usize> {
        let mask = self.slots.len() - 1;
        for i in 0..MAX_PROBES {
            let slot = (h as usize).wrapping_add(i) & mask;
            let found = self.slots[slot];
            if found == 0 {
                return Some(slot);
            }
            if (found ^ h) >> INDEX_BITS == 0 {
                let at = (found & INDEX) as usize - 1;
                if self.parts[at] == part && same(self.key(at), key) {
                    return Some(slot);
                }
            }
        }
        None
    }

    fn get(&self, part: u32, key: &[u8]) -> Option<u32> {
        match self.slot(part, key, hash(part, key)).map(|slot| self.slots[slot] & INDEX) {
            Some(0) => None,
            Some(at) => Some(self.bases[at as usize - 1]),
            None => self.crowded.get(&crowded(part, key)).copied(),
        }
    }

    /// Where the numbers of a record begin.
    #[inline(never)]
    pub fn find(&self, partition: &str, key: &str) -> Option<u32> {
        let part = match self.parts.last() {
            Some(last) if same(self.partitions[*last as usize].as_bytes(), partition.as_bytes()) => *last,
            _ => *self.by_name.get(partition.as_bytes())?,
        };
        self.get(part, key.as_bytes())
    }

    /// Where the numbers of a record begin, which lies in the partition of the record under way.
    #[inline(never)]
    pub fn find_here(&self, key: &[u8]) -> Option<u32> {
        let part = *self.parts.last()?;
        self.get(part, key)
    }

    /// Drops the numbers from `start` to `end`, `n` of which are there still; false if that is not all.
    #[inline(never)]
    pub fn forget(&mut self, start: u32, end: u32, n: u32) -> bool {
        while let Some(d) = self.dropped.last().filter(|d| d.0 >= start) {
            self.fresh.insert(d.0, d.1);
            self.dropped.pop();
        }
        let mut inner = 0;
        while let Some((&from, &to)) = self.fresh.range(start..end).next() {
            inner += to - from;
            self.fresh.remove(&from);
        }
        self.fresh.insert(start, end);
        n + inner == end - start
    }

    /// Makes what is dropped known to references.
    fn settle(&mut self) {
        let first = match self.fresh.keys().next() {
            Some(first) => *first,
            None => return,
        };
        while let Some(d) = self.dropped.last().filter(|d| d.0 > first) {
            self.fresh.insert(d.0, d.1);
            self.dropped.pop();
        }
        for (start, end) in std::mem::take(&mut self.fresh) {
            let before = self.dropped.last().map_or(0, |d| d.2 + d.1 - d.0);
            self.dropped.push((start, end, before));
        }
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
        let h = hash(part, key.as_bytes());
        let slot = self.slot(part, key.as_bytes(), h);
        let there = match slot {
            Some(slot) => self.slots[slot] > 0,
            None => self.crowded.contains_key(&crowded(part, key.as_bytes())),
        };
        if there {
            return Ok(false);
        }
        self.settle();
        if self.bases.len() == MAX_RECORDS || self.keys.len() + key.len() > MAX_KEYS {
            return Err(Error::new(Code::TooLarge, "the pickle makes too many records; raise split or lower depth"));
        }
        self.bases.push(base);
        self.parts.push(part);
        self.keys.extend_from_slice(key.as_bytes());
        self.ends.push(self.keys.len() as u32);
        if self.bases.len() * 2 > self.slots.len() {
            self.slots = vec![0; self.slots.len() * 4];
            self.crowded.clear();
            for at in 0..self.bases.len() {
                self.place(at);
            }
        } else {
            match slot {
                Some(slot) => self.slots[slot] = (h & !INDEX) | self.bases.len() as u32,
                None => self.place(self.bases.len() - 1),
            }
        }
        Ok(true)
    }

    /// Makes a record known by its key.
    fn place(&mut self, at: usize) {
        let h = hash(self.parts[at], self.key(at));
        match self.slot(self.parts[at], self.key(at), h) {
            Some(slot) => self.slots[slot] = (h & !INDEX) | (at as u32 + 1),
            None => {
                let key = crowded(self.parts[at], self.key(at));
                self.crowded.insert(key, self.bases[at]);
            }
        }
    }
}

impl Refers for Table {
    /// The last record added is the one under way.
    fn refer(&self, out: &mut Vec<u8>, object: u32, prints: &[u8]) {
        tag(out, REF);
        let here = self.bases.len() - 1;
        let number = self.left(object);
        if self.missed.get() {
            return;
        }
        if number >= self.bases[here] {
            head(out, torpor::cbor::UINT, (number - self.bases[here]) as u64);
            return;
        }
        let at = self.bases.partition_point(|b| *b <= number) - 1;
        if self.parts[at] == self.parts[here] {
            out.push(0x83);
        } else {
            out.push(0x84);
            text(out, self.partitions[self.parts[at] as usize].as_bytes());
        }
        text(out, self.key(at));
        head(out, torpor::cbor::UINT, (number - self.bases[at]) as u64);
        head(out, torpor::cbor::UINT, prints[object as usize] as u64);
    }
}
