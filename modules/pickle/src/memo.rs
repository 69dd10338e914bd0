//! The memo of a pickle that is read: four bytes an entry, in pages, whatever the order of the indexes.

use std::collections::BTreeMap;

const PAGE: usize = 1 << 14;

/// How many entries there may be.
pub const MAX_ENTRIES: usize = 32 << 20;

/// An entry that is not there.
pub const UNSET: u32 = u32::MAX;

/// Numbers by index.
pub struct Memo {
    pages: Vec<Vec<u32>>,
    len: u32, // how far the pages go
    far: BTreeMap<u32, u32>,
    /// How many entries there are: where MEMOIZE puts the next one.
    pub count: u32,
}

impl Memo {
    pub fn new() -> Memo {
        Memo { pages: Vec::new(), len: 0, far: BTreeMap::new(), count: 0 }
    }

    #[inline(always)]
    pub fn get(&self, at: u32) -> u32 {
        match self.pages.get(at as usize / PAGE) {
            Some(p) if at < self.len => p[at as usize % PAGE],
            _ if self.far.is_empty() => UNSET,
            _ => *self.far.get(&at).unwrap_or(&UNSET),
        }
    }

    /// False if there are too many.
    #[inline(always)]
    pub fn put(&mut self, at: u32, v: u32) -> bool {
        if at == self.len && self.far.is_empty() {
            if at as usize % PAGE == 0 {
                if at as usize >= MAX_ENTRIES {
                    return false;
                }
                self.pages.push(Vec::with_capacity(PAGE));
            }
            self.len += 1;
            self.count += 1;
            if let Some(p) = self.pages.last_mut() {
                p.push(v);
            }
            return true;
        }
        self.put_far(at, v)
    }

    #[cold]
    fn put_far(&mut self, at: u32, v: u32) -> bool {
        if at < self.len {
            let old = &mut self.pages[at as usize / PAGE][at as usize % PAGE];
            self.count += (*old == UNSET) as u32;
            *old = v;
            return true;
        }
        // A small gap, as where some entries of a pickle are not used, is filled.
        if self.far.is_empty() && at - self.len <= 64 {
            while self.len < at {
                if !self.put(self.len, UNSET) {
                    return false;
                }
                self.count -= 1;
            }
            return self.put(at, v);
        }
        if self.far.insert(at, v).is_none() {
            self.count += 1;
        }
        self.far.len() < MAX_ENTRIES / 16
    }
}
