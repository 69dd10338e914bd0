//! Names that are expected: the members of one record are mostly those of the record before, in their order.
//!
//! A name is compared with the one that stood behind the same name the last time, as a whole, and what it
//! becomes is copied. That is faster than to look what it is made of, and changes nothing else.

use crate::word::{at as at_word, same};

/// The longest name that is kept, with its quotes and colon.
const LONG: usize = 32;

/// How many names are kept; the first place stands for the beginning of a value.
const NAMES: usize = 128;

/// In how many places a name may be.
const TRIES: usize = 8;

/// After how many names that were others than expected only some are kept: then they are no members of
/// records that are alike.
const PATIENCE: u32 = 1 << 10;

/// A name as it is read and as it is written, and where the one that stood behind it is.
#[derive(Clone, Copy)]
struct Name {
    read: [u8; LONG],
    mask: [u8; LONG],
    write: [u8; LONG],
    read_len: u32, // 0: there is none
    write_len: u32,
    next: u32,
    other: u32, // what stood behind it before that
}

const NONE: Name =
    Name { read: [0; LONG], mask: [0; LONG], write: [0; LONG], read_len: 0, write_len: 0, next: 0, other: 0 };

/// The names of a call.
pub struct Names {
    names: [Name; NAMES],
    wrong: u32, // how many were others than expected
}

/// A place among names: the last one, and the one that is expected.
#[derive(Clone, Copy)]
pub struct Place {
    last: u32,
    next: u32,
}

impl Names {
    pub const fn new() -> Names {
        Names { names: [NONE; NAMES], wrong: 0 }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.names.fill(NONE);
        self.wrong = 0;
    }

    /// The place before a value.
    #[inline(always)]
    pub fn begin(&self) -> Place {
        Place { last: 0, next: self.names[0].next }
    }

    /// If the name that is expected is what `s` begins with, writes what it becomes to `out`, which has more room
    /// than that, and gives the lengths of both.
    #[inline(always)]
    pub fn take(&self, place: &mut Place, s: &[u8; 72], out: &mut [u8; 72]) -> Option<(usize, usize)> {
        let name = &self.names[place.next as usize % NAMES];
        if !same(s, &name.read, &name.mask) || name.read_len == 0 {
            return None;
        }
        out[..LONG].copy_from_slice(&name.write);
        *place = Place { last: place.next, next: name.next };
        Some((name.read_len as usize, name.write_len as usize))
    }

    /// As [`take`](Names::take), where another one was expected: the one before that may be it.
    #[inline(always)]
    pub fn take_other(&mut self, place: &mut Place, s: &[u8; 72], out: &mut [u8; 72]) -> Option<(usize, usize)> {
        let last = &mut self.names[place.last as usize % NAMES];
        let mut at = Place { last: place.last, next: last.other };
        (last.next, last.other) = (last.other, last.next);
        let lengths = self.take(&mut at, s, out)?;
        *place = at;
        Some(lengths)
    }

    /// Keeps a name that was another than expected: for the next time it is.
    #[inline(never)]
    pub fn learn(&mut self, place: &mut Place, read: &[u8], write: &[u8]) {
        self.wrong = self.wrong.wrapping_add(1);
        if read.len() > LONG || write.len() > LONG || (self.wrong > PATIENCE && self.wrong % 32 != 0) {
            return;
        }
        let mut text = [0; LONG];
        text[..read.len()].copy_from_slice(read);
        let mut hash = 0u64;
        for at in (0..LONG).step_by(8) {
            hash = (hash ^ at_word(&text, at)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 32;
        }
        // Where it is, or where there is room, or else where another one was.
        let first = hash as usize;
        let known = |name: &Name| (0..LONG).step_by(8).all(|i| at_word(&name.read, i) == at_word(&text, i));
        let at = (first..first + TRIES)
            .map(|at| (at % NAMES).max(1))
            .find(|at| self.names[*at].read_len == 0 || known(&self.names[*at]))
            .unwrap_or((first % NAMES).max(1));
        let name = &mut self.names[at];
        if !known(name) {
            *name = Name { read: text, read_len: read.len() as u32, write_len: write.len() as u32, ..NONE };
            name.mask[..read.len()].fill(0xff);
            name.write[..write.len()].copy_from_slice(write);
        }
        let next = name.next;
        self.names[place.last as usize % NAMES].next = at as u32;
        *place = Place { last: at as u32, next };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_it_expects_and_nothing_else() {
        let mut names = Box::new(Names::new());
        names.clear();
        let text = |name: &str| {
            let mut s = [b'~'; 72];
            s[..name.len()].copy_from_slice(name.as_bytes());
            s
        };
        let mut out = [0; 72];
        // Two rounds to learn, and one of names that are longer by a byte, or other ones.
        for round in 0..2 {
            let mut place = names.begin();
            for name in ["\"a\":", "\"bc\":", "\"a name of almost thirty bytes\":"] {
                let write = name.replace('"', "'");
                match names.take(&mut place, &text(name), &mut out) {
                    Some((read, written)) => {
                        assert_eq!((round, read, &out[..written]), (1, name.len(), write.as_bytes()));
                    }
                    None => {
                        assert_eq!(round, 0);
                        assert!(names.take_other(&mut place, &text(name), &mut out).is_none());
                        names.learn(&mut place, name.as_bytes(), write.as_bytes());
                    }
                }
            }
        }
        for other in ["\"a:", "\"ab\":", "\"b\":", ""] {
            assert!(names.take(&mut names.begin(), &text(other), &mut out).is_none(), "{other}");
        }
    }
}
