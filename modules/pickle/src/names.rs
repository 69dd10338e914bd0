//! Names: the short texts of a document, of which equal ones are the same object.
//!
//! Python keeps attribute names and most keys of dicts as one object each, and pickles refer to them
//! thousands of times. Records say them by value, so that no record refers to another for a word.

use torpor::cbor::{encode_head, TEXT};

/// The longest text that can be a name, in bytes.
pub const MAX_NAME: usize = 128;

/// How many names a document has at most; further texts are objects of their own.
const MAX_NAMES: usize = 1 << 19;

/// How many bytes all names have at most.
const MAX_BYTES: usize = 16 << 20;

/// How many slots are looked at before a text is refused as a name, so that texts made to collide cost
/// no more than others.
const MAX_PROBES: usize = 48;

/// The table.
pub struct Names {
    text: Vec<u8>, // the encoded texts
    ends: Vec<u32>,
    hashes: Vec<u32>,
    slots: Vec<u32>, // index + 1; 0 is free
    /// What the user of the table knows of each name.
    pub known: Vec<u32>,
}

/// What a text is found to be.
pub enum Found {
    /// A name that was there.
    Old(u32),
    /// A name from now on.
    New(u32),
    /// None, and it can not be one.
    No,
}

#[inline(always)]
pub fn hash(s: &[u8]) -> u32 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut h = s.len() as u64;
    let mut at = 0;
    while at + 8 <= s.len() {
        let w =
            u64::from_le_bytes([s[at], s[at + 1], s[at + 2], s[at + 3], s[at + 4], s[at + 5], s[at + 6], s[at + 7]]);
        h = (h.rotate_left(5) ^ w).wrapping_mul(K);
        at += 8;
    }
    let mut w = 0u64;
    while at < s.len() {
        w = w << 8 | s[at] as u64;
        at += 1;
    }
    h = (h.rotate_left(5) ^ w).wrapping_mul(K);
    (h ^ h >> 29) as u32
}

/// A text of up to 128 bytes without its head.
#[inline(always)]
pub fn plain(e: &[u8]) -> &[u8] {
    &e[if e[0] & 0x1f < 24 { 1 } else { 2 }..]
}

impl Names {
    pub fn new() -> Names {
        Names { text: Vec::new(), ends: Vec::new(), hashes: Vec::new(), slots: vec![0; 1024], known: Vec::new() }
    }

    pub fn clear(&mut self) {
        *self = Names::new();
    }

    /// Its hash.
    #[inline(always)]
    pub fn hash(&self, id: u32) -> u32 {
        self.hashes[id as usize]
    }

    /// The name, encoded as CBOR text.
    #[inline(always)]
    pub fn encoded(&self, id: u32) -> &[u8] {
        let start = if id == 0 { 0 } else { self.ends[id as usize - 1] as usize };
        &self.text[start..self.ends[id as usize] as usize]
    }

    /// The name.
    pub fn text(&self, id: u32) -> &[u8] {
        plain(self.encoded(id))
    }

    /// Finds a text, and makes it a name if `add` is set and it can be one.
    #[inline]
    pub fn find(&mut self, s: &[u8], add: bool) -> Found {
        if s.len() > MAX_NAME {
            return Found::No;
        }
        let mask = self.slots.len() - 1;
        let h = hash(s);
        let mut slot = h as usize & mask;
        for _ in 0..MAX_PROBES {
            let id = self.slots[slot];
            if id == 0 {
                if !add || self.ends.len() >= MAX_NAMES || self.text.len() + MAX_NAME > MAX_BYTES {
                    return Found::No;
                }
                let mut head = [0; 9];
                let n = encode_head(&mut head, TEXT, s.len() as u64);
                self.text.extend_from_slice(&head[..n]);
                self.text.extend_from_slice(s);
                let id = self.ends.len() as u32;
                self.ends.push(self.text.len() as u32);
                self.hashes.push(h);
                self.known.push(0);
                self.slots[slot] = id + 1;
                if self.ends.len() * 2 > self.slots.len() {
                    self.grow();
                }
                return Found::New(id);
            }
            if self.hashes[id as usize - 1] == h && self.text(id - 1) == s {
                return Found::Old(id - 1);
            }
            slot = (slot + 1) & mask;
        }
        Found::No
    }

    #[cold]
    fn grow(&mut self) {
        let size = self.slots.len() * 4;
        self.slots = vec![0; size];
        for id in 0..self.ends.len() as u32 {
            let mut slot = self.hashes[id as usize] as usize & (size - 1);
            while self.slots[slot] != 0 {
                slot = (slot + 1) & (size - 1);
            }
            self.slots[slot] = id + 1;
        }
    }
}
