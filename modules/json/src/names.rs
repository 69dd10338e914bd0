//! Which names an object has had, in memory that is bounded however many there are.
//!
//! To save: a record's key must be unique, and JSON lets a name stand twice. To remember all names would take as
//! much memory as they do; a Bloom filter takes a few bits for each. It never forgets a name, so that no
//! two records have one key; of some hundred thousand names it may take one for another that was there,
//! and that one's key is told apart without need. To load, both are the same.
//!
//! To load: two records of one key are a mistake of whoever made them, and to write both would be another.
//! Hashes are kept whole, as many as there is room for. They are those of save, which tells names of one hash
//! apart, so that records as save wrote them are never refused.

/// The filters: bits, and how many names go into one before the next is begun.
const FIRST: (usize, usize) = (1 << 17, 1 << 11);
const SECOND: (usize, usize) = (1 << 22, 1 << 16);
const THIRD: usize = 1 << 25;

/// How many slots the first table of hashes has, and the last, for one and a half million names. Each is four times
/// the one before.
const SLOTS: usize = FIRST.0 / 64;
const MOST: usize = SLOTS << 10;

/// How many names of open objects are kept beside the table, in their order.
const LAST: usize = 3 << 10;

/// The names of all objects of a text.
pub struct Names {
    count: usize,
    slots: usize,      // to load: of the table
    open: usize,       // to load: how many names are those of open objects,
    last: [u64; LAST], // and their hashes
    first: [u64; FIRST.0 / 64],
    second: [u64; SECOND.0 / 64],
    third: Option<Vec<u64>>, // nothing is zeros, which take no room in the module
}

impl Names {
    pub const fn new() -> Names {
        Names {
            count: 0,
            slots: 0,
            open: 0,
            last: [0; LAST],
            first: [0; FIRST.0 / 64],
            second: [0; SECOND.0 / 64],
            third: None,
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        if self.count > 0 {
            self.first.fill(0);
        }
        if self.count > FIRST.1 || self.slots > SLOTS {
            self.second.fill(0);
        }
        self.third = None;
        (self.count, self.slots, self.open) = (0, SLOTS, 0);
    }

    /// Whether the name of this hash was added; it may say so of one that was not.
    #[inline(always)]
    pub fn contains(&self, hash: u64) -> bool {
        has(&self.first, hash)
            || (self.count > FIRST.1
                && (has(&self.second, hash) || self.third.as_ref().map_or(false, |third| has(third, hash))))
    }

    /// Adds a name by its hash.
    #[inline(always)]
    pub fn add(&mut self, hash: u64) {
        if self.count < FIRST.1 {
            set(&mut self.first, hash);
        } else if self.count < FIRST.1 + SECOND.1 {
            set(&mut self.second, hash);
        } else {
            if self.third.is_none() {
                self.third = zeros(THIRD / 64);
            }
            // Where there is no memory, more names are taken for equal.
            match &mut self.third {
                Some(third) => set(third, hash),
                None => set(&mut self.second, hash),
            }
        }
        self.count += 1;
    }
}

/// To load: the tables lie in the filters, as long as they do. Memory is not touched before it is needed: for most
/// states it would take longer than all else that is done for their names.
impl Names {
    /// Adds the name of a record by its hash; false if it was there.
    #[inline(always)]
    pub fn once(&mut self, hash: u64) -> bool {
        if self.slots > SLOTS {
            return self.once_of_many(hash);
        }
        let mut at = hash as usize % SLOTS;
        while self.first[at] != 0 {
            if self.first[at] == hash {
                return false;
            }
            at = (at + 1) % SLOTS;
        }
        if self.count == most(SLOTS) {
            self.make_room();
            return self.once_of_many(hash);
        }
        self.first[at] = hash;
        self.added(hash);
        true
    }

    #[inline(never)]
    fn once_of_many(&mut self, hash: u64) -> bool {
        loop {
            let slots = self.slots;
            let table = self.table();
            let mut at = hash as usize % slots;
            while table[at] != 0 {
                if table[at] == hash {
                    return false;
                }
                at = (at + 1) % slots;
            }
            if self.count < most(slots) {
                self.table()[at] = hash;
                self.added(hash);
                return true;
            }
            if !self.make_room() {
                return true;
            }
        }
    }

    #[inline(always)]
    fn added(&mut self, hash: u64) {
        self.count += 1;
        if let Some(last) = self.last.get_mut(self.open) {
            *last = hash;
        }
        self.open += 1;
    }

    /// How many names the objects that are open have.
    #[inline(always)]
    pub fn open(&self) -> usize {
        self.open
    }

    /// Forgets all names but those that there were: the others' objects are closed and no record can be in them.
    #[inline(always)]
    pub fn close(&mut self, open: usize) {
        self.open = self.open.min(open);
    }

    /// Makes room for more names: puts only those of open objects back, if they are few, or else goes on to a larger
    /// table, if there may be one and is memory for it. If not, the names in this one are those that are known.
    #[cold]
    #[inline(never)]
    fn make_room(&mut self) -> bool {
        let slots = self.slots;
        if self.open <= LAST.min(most(slots) / 2) {
            self.table().fill(0);
            for i in 0..self.open {
                let hash = self.last[i];
                put(self.table(), hash);
            }
            self.count = self.open;
            return true;
        }
        if slots == MOST {
            return false;
        }
        let size = slots * 4;
        let (low, high) = self.second.split_at_mut(size.min(SECOND.0 / 64));
        let mut third = None;
        let larger = if size < SECOND.0 / 64 {
            &mut high[..size]
        } else {
            third = zeros(size);
            match &mut third {
                Some(third) => &mut third[..],
                None => return false,
            }
        };
        let had = match &self.third {
            Some(had) => &had[..],
            None if slots == SLOTS => &self.first[..],
            None => &low[slots..2 * slots],
        };
        for hash in had.iter().filter(|h| **h != 0) {
            put(larger, *hash);
        }
        self.slots = size;
        self.third = third;
        true
    }

    /// The table, each in memory of its own.
    #[inline(always)]
    fn table(&mut self) -> &mut [u64] {
        match &mut self.third {
            Some(third) => third,
            None if self.slots == SLOTS => &mut self.first,
            None => &mut self.second[self.slots..2 * self.slots],
        }
    }
}

/// How many names go into a table: a quarter is left free, so that there is an end to every search.
const fn most(slots: usize) -> usize {
    slots / 4 * 3
}

/// Puts a hash into a table that has room.
fn put(table: &mut [u64], hash: u64) {
    let mask = table.len() - 1;
    let mut at = hash as usize & mask;
    while table[at] != 0 {
        at = (at + 1) & mask;
    }
    table[at] = hash;
}

/// So many zeros, if there is memory for them.
fn zeros(n: usize) -> Option<Vec<u64>> {
    let mut v = Vec::new();
    v.try_reserve_exact(n).ok()?;
    v.resize(n, 0);
    Some(v)
}

/// Which two words of a filter a name has bits in, side by side so that they are fetched at once, and the bits:
/// three in each.
#[inline(always)]
fn place(words: usize, hash: u64) -> (usize, u64, u64) {
    let bit = |shift: u32| 1u64 << (hash >> shift & 63);
    ((hash as usize & (words / 2 - 1)) * 2, bit(28) | bit(34) | bit(40), bit(46) | bit(52) | bit(58))
}

#[inline(always)]
fn has(bits: &[u64], hash: u64) -> bool {
    let (at, a, b) = place(bits.len(), hash);
    bits[at] & a == a && bits[at + 1] & b == b
}

#[inline(always)]
fn set(bits: &mut [u64], hash: u64) {
    let (at, a, b) = place(bits.len(), hash);
    bits[at] |= a;
    bits[at + 1] |= b;
}

/// The hash of a name in the object of this number: never 0, which stands for none.
#[inline(always)]
pub fn hash(object: u64, name: &[u8]) -> u64 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut h = (object + 1).wrapping_mul(K) ^ name.len() as u64;
    let mut at = 0;
    while let Some(w) = crate::word::word(name, at) {
        h = (h ^ w).wrapping_mul(K);
        h ^= h >> 29;
        at += 8;
    }
    // What is left, the last byte lowest.
    let mut tail = 0;
    let left = name.len() - at;
    match name.len().checked_sub(8).and_then(|last| crate::word::word(name, last)) {
        Some(last) => tail = last.swap_bytes() & ((1 << (8 * left)) - 1),
        None => name[at..].iter().for_each(|b| tail = tail << 8 | *b as u64),
    }
    h = (h ^ tail).wrapping_mul(K);
    h ^= h >> 32;
    h = h.wrapping_mul(0xd6e8_feb8_6659_fd93);
    (h ^ h >> 32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_none_and_makes_up_few() {
        let mut names = Box::new(Names::new());
        let mut made_up = 0;
        for i in 0..100_000u32 {
            let name = format!("order-{i:07}");
            let h = hash(3, name.as_bytes());
            made_up += names.contains(h) as u32;
            names.add(h);
        }
        assert!(made_up < 5, "{made_up}");
        for i in 0..100_000u32 {
            assert!(names.contains(hash(3, format!("order-{i:07}").as_bytes())));
        }
        let other = (0..100_000u32).filter(|i| names.contains(hash(4, format!("order-{i:07}").as_bytes()))).count();
        assert!(other < 20, "{other}");
    }

    #[test]
    fn tells_what_was_there() {
        let mut names = Box::new(Names::new());
        for n in [10, 1_000, 40_000, 600_000u64] {
            let of = |i: u64| hash(i % 7, &i.to_le_bytes());
            assert!((0..n).all(|i| names.once(of(i))));
            assert!((0..n).all(|i| !names.once(of(i))));
            names.clear();
        }
        // More than there is room for are not told, and are no trouble.
        let n = 2_000_000;
        assert!((0..n).all(|i| names.once(hash(9, &u64::to_le_bytes(i)))));
        let known = (0..n).filter(|i| !names.once(hash(9, &i.to_le_bytes()))).count();
        assert!(known > 1_500_000, "{known}");
    }

    /// Names of closed objects are forgotten, those of open ones never, however many there were between.
    #[test]
    fn keeps_what_is_open() {
        let mut names = Box::new(Names::new());
        for inner in [10, 2_000, 5_000, 30_000u64] {
            names.clear();
            for outer in 0..700 {
                assert!(names.once(hash(1, &u64::to_le_bytes(outer))));
                let open = names.open();
                assert!((0..inner).all(|i| names.once(hash(2 + outer, &i.to_le_bytes()))));
                assert!(!names.once(hash(2 + outer, &u64::to_le_bytes(inner / 2))));
                names.close(open);
                if outer > 100_000 / inner {
                    break;
                }
            }
            assert!(inner > 2_000 || names.slots <= 4 * SLOTS, "{inner}: {}", names.slots);
            assert!(!names.once(hash(1, &u64::to_le_bytes(0))) && !names.once(hash(1, &u64::to_le_bytes(3))));
        }
    }

    /// A name can be made whose hash would be 0, so that it would not be remembered.
    #[test]
    fn no_hash_is_zero() {
        let before = |name: &[u8]| {
            // What the last word has to be for the hash to be 0: what stands before it.
            let mut h = 4u64.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 16;
            h = (h ^ crate::word::word(name, 0).unwrap()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            h ^ h >> 29
        };
        let name = (0..10_000_000u64).find_map(|i| {
            let first = format!("{i:08}");
            let last = before(first.as_bytes()).to_le_bytes();
            core::str::from_utf8(&last).ok().filter(|s| s.bytes().all(|b| b >= 0x20)).map(|last| first + last)
        });
        assert_eq!(hash(3, name.unwrap().as_bytes()), 1);
    }
}
