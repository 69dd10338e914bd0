//! Which names an object has had, in memory that is bounded however many there are.
//!
//! A record's key must be unique, and JSON lets a name stand twice. To remember all names would take as
//! much memory as they do; a Bloom filter takes a few bits for each. It never forgets a name, so that no
//! two records have one key; of some hundred thousand names it may take one for another that was there,
//! and that one's key is told apart without need. To load, both are the same.

/// The filters: bits, and how many names go into one before the next is begun.
const FIRST: (usize, usize) = (1 << 17, 1 << 11);
const SECOND: (usize, usize) = (1 << 22, 1 << 16);
const THIRD: usize = 1 << 25;

/// The names of all objects of a text.
pub struct Names {
    count: usize,
    first: [u64; FIRST.0 / 64],
    second: [u64; SECOND.0 / 64],
    third: Option<Vec<u64>>, // nothing is zeros, which take no room in the module
}

impl Names {
    pub const fn new() -> Names {
        Names { count: 0, first: [0; FIRST.0 / 64], second: [0; SECOND.0 / 64], third: None }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        if self.count > 0 {
            self.first.fill(0);
        }
        if self.count > FIRST.1 {
            self.second.fill(0);
        }
        self.third = None;
        self.count = 0;
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
            set(self.third.get_or_insert_with(|| vec![0; THIRD / 64]), hash);
        }
        self.count += 1;
    }
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

/// The hash of a name in the object of this number.
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
    let mut tail = 0;
    for b in &name[at..] {
        tail = tail << 8 | *b as u64;
    }
    h = (h ^ tail).wrapping_mul(K);
    h ^= h >> 32;
    h = h.wrapping_mul(0xd6e8_feb8_6659_fd93);
    h ^ h >> 32
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
}
