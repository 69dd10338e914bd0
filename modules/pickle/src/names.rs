//! Names: the short texts of a document, of which equal ones are the same object.
//!
//! Python keeps attribute names and most keys of dicts as one object each, and pickles refer to them
//! thousands of times. Records say them by value, so that no record refers to another for a word.

use torpor::cbor::{encode_head, TEXT};

/// The longest text that can be a name, in bytes.
pub const MAX_NAME: usize = 128;

/// How many names a document has at most; further texts are objects of their own.
const MAX_NAMES: usize = 1 << 19;

/// How many bits a slot has for the index of a name.
const INDEX_BITS: u32 = 20;

/// How many bytes all names have at most.
const MAX_BYTES: usize = 16 << 20;

/// How many slots are looked at before a text is refused as a name, so that texts made to collide cost
/// no more than others.
const MAX_PROBES: usize = 48;

/// How many bytes stand behind the last text, so that a short one can be copied by whole vectors.
const PAD: usize = 32;

/// The table.
pub struct Names {
    text: Vec<u8>, // the encoded texts, and the padding
    entries: Vec<Entry>,
    slots: Vec<u32>, // index + 1 and above it bits of the hash; 0 is free
}

/// One name.
#[derive(Clone, Copy)]
struct Entry {
    hash: u32,
    start: u32, // in the texts
    known: u32,
    after: u32, // the name that came after it last, and 1
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

/// Eight bytes of a text as a number.
#[inline(always)]
fn word(s: &[u8], at: usize) -> u64 {
    s.get(at..at + 8).map_or(0, |w| u64::from_le_bytes(w.try_into().unwrap_or([0; 8])))
}

#[inline(always)]
pub fn hash(s: &[u8]) -> u32 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut h = s.len() as u64;
    let mut at = 0;
    while at + 8 <= s.len() {
        h = (h.rotate_left(5) ^ word(s, at)).wrapping_mul(K);
        at += 8;
    }
    let mut w = 0u64;
    if s.len() >= 8 {
        // What is left is the end of the last eight bytes.
        let left = s.len() - at;
        w = word(s, s.len() - 8).swap_bytes() & !(u64::MAX << (8 * left));
    } else {
        for b in s {
            w = w << 8 | *b as u64;
        }
    }
    h = (h.rotate_left(5) ^ w).wrapping_mul(K);
    (h ^ h >> 29) as u32
}

/// Whether texts are equal: eight bytes at a time.
#[inline(always)]
pub fn same(a: &[u8], b: &[u8]) -> bool {
    let n = a.len();
    if n != b.len() {
        return false;
    }
    if n < 8 {
        return a.iter().zip(b).all(|(a, b)| a == b);
    }
    let mut at = 0;
    while at + 8 < n {
        if word(a, at) != word(b, at) {
            return false;
        }
        at += 8;
    }
    word(a, n - 8) == word(b, n - 8)
}

/// A text of up to 128 bytes without its head.
#[inline(always)]
pub fn plain(e: &[u8]) -> &[u8] {
    &e[if e[0] & 0x1f < 24 { 1 } else { 2 }..]
}

/// How long an encoded text of up to 128 bytes is, with which these bytes begin.
#[inline(always)]
fn length(e: &[u8]) -> usize {
    match e[0] & 0x1f {
        n @ 0..=23 => 1 + n as usize,
        _ => 2 + e[1] as usize,
    }
}

/// What a slot holds for a name.
#[inline(always)]
fn tagged(hash: u32, id: u32) -> u32 {
    (hash & u32::MAX << INDEX_BITS) | (id + 1)
}

impl Names {
    pub fn new() -> Names {
        Names { text: vec![0; PAD], entries: Vec::new(), slots: vec![0; 1024] }
    }

    pub fn clear(&mut self) {
        *self = Names::new();
    }

    /// Its hash.
    #[inline(always)]
    pub fn hash(&self, id: u32) -> u32 {
        self.entries[id as usize].hash
    }

    /// What the user of the table knows of it: 0 at first.
    #[inline(always)]
    pub fn known(&self, id: u32) -> u32 {
        self.entries[id as usize].known
    }

    /// Says what the user of the table knows of it.
    #[inline(always)]
    pub fn know(&mut self, id: u32, known: u32) {
        self.entries[id as usize].known = known;
    }

    /// The name, encoded as CBOR text.
    #[inline(always)]
    pub fn encoded(&self, id: u32) -> &[u8] {
        let text = &self.text[self.entries[id as usize].start as usize..];
        &text[..length(text)]
    }

    /// Adds the name, encoded as CBOR text, and gives its hash.
    #[inline(always)]
    pub fn write(&self, id: u32, out: &mut Vec<u8>) -> u32 {
        let e = &self.entries[id as usize];
        let start = e.start as usize;
        match self.text.get(start..start + PAD).and_then(|w| <&[u8; PAD]>::try_from(w).ok()) {
            // To copy a few bytes more is faster than to copy as many as there are.
            Some(w) if length(w) <= PAD => {
                let at = out.len();
                out.extend_from_slice(w);
                out.truncate(at + length(w));
            }
            _ => out.extend_from_slice(self.encoded(id)),
        }
        e.hash
    }

    /// Whether a name is this text.
    #[inline(always)]
    fn is(&self, e: &Entry, s: &[u8]) -> bool {
        let text = &self.text[e.start as usize..];
        length(text) == s.len() + 1 + (s.len() > 23) as usize && same(plain(&text[..length(text)]), s)
    }

    /// The name that came after another one last, if it is this text: names mostly come in the same order.
    #[inline(always)]
    pub fn after(&self, last: u32, s: &[u8]) -> Option<u32> {
        let id = self.entries.get(last as usize)?.after.wrapping_sub(1);
        let e = self.entries.get(id as usize)?;
        if self.is(e, s) {
            return Some(id);
        }
        None
    }

    /// Says that a name came after another one.
    #[inline(always)]
    pub fn follow(&mut self, last: u32, id: u32) {
        if let Some(e) = self.entries.get_mut(last as usize) {
            e.after = id + 1;
        }
    }

    /// The name.
    pub fn text(&self, id: u32) -> &[u8] {
        plain(self.encoded(id))
    }

    /// Finds a text, and makes it a name if `add` is set and it can be one.
    #[inline(always)]
    pub fn find(&mut self, s: &[u8], add: bool) -> Found {
        if s.len() > MAX_NAME {
            return Found::No;
        }
        self.find_hashed(s, hash(s), add)
    }

    /// The same of a text of up to 128 bytes whose hash is known.
    #[inline(never)]
    pub fn find_hashed(&mut self, s: &[u8], h: u32, add: bool) -> Found {
        let mask = self.slots.len() - 1;
        let mut slot = h as usize & mask;
        for _ in 0..MAX_PROBES {
            let found = self.slots[slot];
            if found == 0 {
                let used = self.text.len() - PAD;
                if !add || self.entries.len() >= MAX_NAMES || used + MAX_NAME > MAX_BYTES {
                    return Found::No;
                }
                let mut head = [0; 9];
                let n = encode_head(&mut head, TEXT, s.len() as u64);
                self.text.truncate(used);
                self.text.extend_from_slice(&head[..n]);
                self.text.extend_from_slice(s);
                self.text.extend_from_slice(&[0; PAD]);
                let id = self.entries.len() as u32;
                self.entries.push(Entry { hash: h, start: used as u32, known: 0, after: 0 });
                self.slots[slot] = tagged(h, id);
                if self.entries.len() * 2 > self.slots.len() {
                    self.grow();
                }
                return Found::New(id);
            }
            if (found ^ h) >> INDEX_BITS == 0 {
                let id = (found & !(u32::MAX << INDEX_BITS)) - 1;
                let e = &self.entries[id as usize];
                if e.hash == h && self.is(e, s) {
                    return Found::Old(id);
                }
            }
            slot = (slot + 1) & mask;
        }
        Found::No
    }

    #[cold]
    fn grow(&mut self) {
        let size = self.slots.len() * 4;
        self.slots = vec![0; size];
        for (id, e) in self.entries.iter().enumerate() {
            let mut slot = e.hash as usize & (size - 1);
            while self.slots[slot] != 0 {
                slot = (slot + 1) & (size - 1);
            }
            self.slots[slot] = tagged(e.hash, id as u32);
        }
    }
}
