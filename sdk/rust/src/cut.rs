//! Cutting by content: large states in pieces whose borders depend on the bytes near them alone, so that
//! bytes inserted or removed in one place leave the pieces everywhere else as they were.
//!
//! [`Cutter`] finds the borders, [`hash64`] names a piece, [`Occurrences`] makes the names of equal pieces
//! differ, and [`Order`] notes which pieces followed each other. `modules/raw` is the shortest serializer
//! that uses them.

/// Finds where pieces end: behind eight bytes whose hash is low, lower before the average than behind it, as
/// FastCDC does. Its gear hash takes a table and a chain of additions, which cost a guest twice as much; a
/// product of eight bytes needs neither.
///
/// A piece has between a quarter of the average and four times the average, but for the last.
pub struct Cutter {
    min: usize,
    average: usize,
    max: usize,
    before: u64, // a hash below this is a border, up to the average
    behind: u64, // and this, behind it
    at: usize,   // bytes of the piece under way that have been looked at
}

impl Cutter {
    /// Pieces of about `1 << bits` bytes; `bits` is 8 to 24.
    pub const fn new(bits: u32) -> Cutter {
        assert!(bits >= 8 && bits <= 24);
        Cutter {
            min: 1 << (bits - 2),
            average: 1 << bits,
            max: 1 << (bits + 2),
            before: 1 << (62 - bits),
            behind: 1 << (66 - bits),
            at: 0,
        }
    }

    /// The longest piece, in bytes: a window of that many always holds a border.
    pub const fn max(&self) -> usize {
        self.max
    }

    /// Forgets the piece under way.
    pub fn reset(&mut self) {
        self.at = 0;
    }

    /// The length of the piece with which `window` begins, or `None` if more bytes are needed to tell:
    /// then the next call is given the same bytes and more behind them. `last` says that there are none.
    /// Of an empty window it is `None`.
    pub fn cut(&mut self, window: &[u8], last: bool) -> Option<usize> {
        let end = window.len().min(self.max);
        if self.at < self.min {
            self.at = self.min.min(end);
        }
        let middle = end.min(self.average);
        if self.at < middle {
            if let Some(n) = self.scan(window, middle, self.before) {
                return Some(n);
            }
        }
        if self.at < end {
            if let Some(n) = self.scan(window, end, self.behind) {
                return Some(n);
            }
        }
        if end == self.max || (last && end > 0) {
            self.reset();
            return Some(end);
        }
        None
    }

    /// Looks at the bytes up to `to`. The border lies behind the byte that ends eight whose hash is below the
    /// bound.
    #[inline(always)]
    fn scan(&mut self, window: &[u8], to: usize, bound: u64) -> Option<usize> {
        let mut at = self.at;
        // Sixteen places at a time, with the seven bytes before them. One test tells of all.
        while at + 16 <= to {
            let near: &[u8; 23] = window.get(at - 7..at + 16)?.try_into().ok()?;
            let mut hit = false;
            let mut i = 0;
            while i < 16 {
                hit |= hash(near, i) < bound;
                i += 1;
            }
            if hit {
                let first = (0..16).find(|i| hash(near, *i) < bound).unwrap_or(15);
                self.reset();
                return Some(at + first + 1);
            }
            at += 16;
        }
        while at < to {
            if hash(window.get(at - 7..)?, 0) < bound {
                self.reset();
                return Some(at + 1);
            }
            at += 1;
        }
        self.at = at;
        None
    }
}

/// The hash of eight bytes: its high bits depend on all of them. Eight zeros have none that is low.
#[inline(always)]
fn hash(s: &[u8], at: usize) -> u64 {
    (word(s, at) ^ P3).wrapping_mul(P1)
}

const P1: u64 = 0x9e37_79b1_85eb_ca87;
const P2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const P3: u64 = 0x1656_67b1_9e37_79f9;
const P4: u64 = 0x85eb_ca77_c2b2_ae63;
const P5: u64 = 0x27d4_eb2f_1656_67c5;

/// The XXH64 of `bytes`, with seed 0: fast, and for telling pieces apart, not for trusting them. Someone
/// who wants two pieces with the same hash can make them, so nothing may be lost where they meet:
/// [`Occurrences`] sees to that.
pub fn hash64(bytes: &[u8]) -> u64 {
    let mut stripes = bytes.chunks_exact(32);
    let mut h = if bytes.len() < 32 {
        P5
    } else {
        let mut v = [P1.wrapping_add(P2), P2, 0, 0u64.wrapping_sub(P1)];
        for s in &mut stripes {
            v[0] = round(v[0], word(s, 0));
            v[1] = round(v[1], word(s, 8));
            v[2] = round(v[2], word(s, 16));
            v[3] = round(v[3], word(s, 24));
        }
        let mut h = v[0]
            .rotate_left(1)
            .wrapping_add(v[1].rotate_left(7))
            .wrapping_add(v[2].rotate_left(12))
            .wrapping_add(v[3].rotate_left(18));
        for lane in v {
            h = (h ^ round(0, lane)).wrapping_mul(P1).wrapping_add(P4);
        }
        h
    };
    h = h.wrapping_add(bytes.len() as u64);
    let mut rest = stripes.remainder();
    while rest.len() >= 8 {
        h = (h ^ round(0, word(rest, 0))).rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
        rest = &rest[8..];
    }
    if rest.len() >= 4 {
        let four = [rest[0], rest[1], rest[2], rest[3]];
        h = (h ^ (u32::from_le_bytes(four) as u64).wrapping_mul(P1)).rotate_left(23).wrapping_mul(P2).wrapping_add(P3);
        rest = &rest[4..];
    }
    for b in rest {
        h = (h ^ (*b as u64).wrapping_mul(P5)).rotate_left(11).wrapping_mul(P1);
    }
    h = (h ^ (h >> 33)).wrapping_mul(P2);
    h = (h ^ (h >> 29)).wrapping_mul(P3);
    h ^ (h >> 32)
}

#[inline(always)]
fn round(acc: u64, input: u64) -> u64 {
    acc.wrapping_add(input.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1)
}

#[inline(always)]
fn word(s: &[u8], at: usize) -> u64 {
    match s.get(at..at + 8).and_then(|w| w.try_into().ok()) {
        Some(w) => u64::from_le_bytes(w),
        None => 0,
    }
}

/// How many counters [`Occurrences`] has.
const COUNTERS: usize = 1 << 15;

/// How many of them are cleared one by one.
const TOUCHED: usize = 1 << 10;

/// Counts pieces by hash, so that a hash and its count together are unique whatever the pieces are.
///
/// There are 32,768 counters, and a hash has the one that its low bits name, shared with all hashes of the
/// same low bits. So the pair of hash and count never comes twice: equal hashes share a counter, and
/// it only rises. Memory stays at 132 KiB however many pieces there are, and sharing costs little: a piece that is
/// new in the middle changes the counts of those behind it that share its counter, one in 32,768.
pub struct Occurrences {
    counters: [u32; COUNTERS],
    touched: [u16; TOUCHED],
    len: usize,
}

impl Occurrences {
    /// Nothing counted.
    pub const fn new() -> Occurrences {
        Occurrences { counters: [0; COUNTERS], touched: [0; TOUCHED], len: 0 }
    }

    /// Forgets all counts.
    pub fn clear(&mut self) {
        match self.touched.get(..self.len) {
            Some(touched) => touched.iter().for_each(|i| self.counters[*i as usize % COUNTERS] = 0),
            None => self.counters = [0; COUNTERS],
        }
        self.len = 0;
    }

    /// Counts a piece: how many there were before it that count with it. `None` after 2³² − 1.
    pub fn count(&mut self, hash: u64) -> Option<u32> {
        let i = hash as usize % COUNTERS;
        let n = self.counters[i];
        if n == 0 {
            match self.touched.get_mut(self.len) {
                Some(t) => *t = i as u16,
                None => self.len = TOUCHED,
            }
            self.len += 1;
        }
        self.counters[i] = n.checked_add(1)?;
        Some(n)
    }
}

impl Default for Occurrences {
    fn default() -> Occurrences {
        Occurrences::new()
    }
}

/// Notes which pieces followed each other. A serializer keeps the digest beside the pieces, so that pieces
/// of two states, put together by something that does not know what they are, are found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    digest: u64,
    pieces: u64,
    bytes: u64,
}

impl Order {
    /// No pieces.
    pub const fn new() -> Order {
        Order { digest: P5, pieces: 0, bytes: 0 }
    }

    /// Adds a piece of `len` bytes, of this hash and count.
    pub fn add(&mut self, hash: u64, count: u32, len: usize) {
        self.pieces += 1;
        self.bytes += len as u64;
        self.digest = round(self.digest.wrapping_add(count as u64), hash).wrapping_add((len as u64).wrapping_mul(P3));
    }

    /// How many pieces there were.
    pub fn pieces(&self) -> u64 {
        self.pieces
    }

    /// How many bytes they have together.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Their order in one number.
    pub fn digest(&self) -> u64 {
        let h = (self.digest ^ (self.digest >> 33)).wrapping_mul(P2);
        (h ^ (h >> 29)) ^ self.pieces
    }
}

impl Default for Order {
    fn default() -> Order {
        Order::new()
    }
}

/// The most bytes that [`piece_name`] writes.
pub const MAX_PIECE_NAME: usize = 27;

/// The name of a piece in a key: 16 hexadecimal digits, and if it is not the first that counts so, a dot
/// and its count in decimal. Gives how many bytes of `buf` it takes.
pub fn piece_name(buf: &mut [u8; MAX_PIECE_NAME], hash: u64, count: u32) -> usize {
    for (i, b) in buf.iter_mut().take(16).enumerate() {
        *b = b"0123456789abcdef"[(hash >> (60 - 4 * i)) as usize & 15];
    }
    if count == 0 {
        return 16;
    }
    let mut digits = 1;
    while digits < 10 && count as u64 >= 10u64.pow(digits) {
        digits += 1;
    }
    buf[16] = b'.';
    let mut rest = count;
    for i in (0..digits as usize).rev() {
        buf[17 + i] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    17 + digits as usize
}

/// Reads a name that [`piece_name`] wrote: hash and count. `None` if it is none.
pub fn parse_piece_name(name: &[u8]) -> Option<(u64, u32)> {
    let mut hash = 0;
    for b in name.get(..16)? {
        let digit = match b {
            b'0'..=b'9' => b - b'0',
            b'a'..=b'f' => b - b'a' + 10,
            _ => return None,
        };
        hash = hash << 4 | digit as u64;
    }
    let mut count = 0u32;
    match name.get(16..)? {
        [] => {}
        [b'.', b'1'..=b'9', ..] => {
            for b in &name[17..] {
                if !b.is_ascii_digit() {
                    return None;
                }
                count = count.checked_mul(10)?.checked_add((b - b'0') as u32)?;
            }
        }
        _ => return None,
    }
    Some((hash, count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::boxed::Box;
    use std::collections::HashSet;
    use std::vec::Vec;

    fn noise(n: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 56) as u8
            })
            .collect()
    }

    /// The pieces of `data`, which comes `step` bytes at a time.
    fn pieces(data: &[u8], bits: u32, step: usize) -> Vec<Vec<u8>> {
        let mut c = Cutter::new(bits);
        let mut all = Vec::new();
        let (mut start, mut end) = (0, 0);
        while start < data.len() || end < data.len() {
            match c.cut(&data[start..end], end == data.len()) {
                Some(n) => {
                    all.push(data[start..start + n].to_vec());
                    start += n;
                }
                None => end = data.len().min(end + step),
            }
        }
        all
    }

    #[test]
    fn pieces_are_the_bytes_however_they_come() {
        for n in [0, 1, 63, 64, 65, 255, 256, 257, 1024, 1025, 100_000] {
            let data = noise(n, 7);
            let want = pieces(&data, 8, usize::MAX / 2);
            assert_eq!(want.concat(), data);
            for p in want.iter().rev().skip(1) {
                assert!(p.len() >= 64 && p.len() <= 1024, "{}", p.len());
            }
            for step in [1, 7, 8, 64, 1000] {
                assert_eq!(pieces(&data, 8, step), want, "{n} bytes, {step} at a time");
            }
        }
        assert_eq!(Cutter::new(8).cut(b"", true), None);
        assert_eq!(Cutter::new(8).max(), 1024);
    }

    #[test]
    fn the_average_is_about_what_is_asked() {
        let data = noise(8 << 20, 3);
        for bits in [10, 12, 14] {
            let n = pieces(&data, bits, usize::MAX / 2).len();
            let average = data.len() / n;
            assert!(average > (1 << bits) * 3 / 4 && average < (1 << bits) * 3 / 2, "{average} for 1 << {bits}");
        }
    }

    #[test]
    fn an_insertion_changes_few_pieces() {
        let data = noise(1 << 20, 9);
        let before: HashSet<Vec<u8>> = pieces(&data, 10, usize::MAX / 2).into_iter().collect();
        for at in [0, 1000, 500_000, data.len()] {
            let mut changed = data.clone();
            changed.splice(at..at, *b"ten bytes!");
            let new = pieces(&changed, 10, usize::MAX / 2).into_iter().filter(|p| !before.contains(p)).count();
            assert!(new <= 3, "{new} new pieces of {}", before.len());
        }
    }

    #[test]
    fn the_hash_is_xxh64() {
        // Published values of XXH64 with seed 0.
        assert_eq!(hash64(b""), 0xef46_db37_51d8_e999);
        assert_eq!(hash64(b"a"), 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(hash64(b"abc"), 0x44bc_2cf5_ad77_0999);
        assert_eq!(hash64(b"Nobody inspects the spammish repetition"), 0xfbce_a83c_8a37_8bf1);
        let data = noise(200, 1);
        let all: HashSet<u64> = (0..=data.len()).map(|n| hash64(&data[..n])).collect();
        assert_eq!(all.len(), data.len() + 1);
    }

    #[test]
    fn hash_and_count_never_come_twice() {
        let mut o = Box::new(Occurrences::new());
        for _ in 0..2 {
            let mut seen = HashSet::new();
            let mut hash = 1u64;
            for i in 0..100_000u64 {
                hash = hash.wrapping_mul(P1).wrapping_add(P2);
                // Hashes someone has chosen: equal, or with the same counter.
                for h in [hash, 42, 42 + ((i % 3) << 40)] {
                    assert!(seen.insert((h, o.count(h).unwrap())));
                }
            }
            o.clear();
            assert!(o.counters.iter().all(|n| *n == 0));
            for h in 0..10 {
                assert_eq!((o.count(h), o.count(h)), (Some(0), Some(1)));
            }
            o.clear();
            assert!(o.counters.iter().all(|n| *n == 0));
        }
        o.counters[5] = u32::MAX;
        assert_eq!(o.count(5), None);
    }

    #[test]
    fn the_order_tells() {
        let of = |pieces: &[(u64, u32, usize)]| {
            let mut o = Order::new();
            pieces.iter().for_each(|(h, c, n)| o.add(*h, *c, *n));
            (o.digest(), o.pieces(), o.bytes())
        };
        let all = [
            of(&[]),
            of(&[(1, 0, 5)]),
            of(&[(1, 1, 5)]),
            of(&[(1, 0, 6)]),
            of(&[(1, 0, 5), (2, 0, 5)]),
            of(&[(2, 0, 5), (1, 0, 5)]),
            of(&[(0, 0, 0)]),
            of(&[(0, 0, 0), (0, 1, 0)]),
        ];
        let digests: HashSet<u64> = all.iter().map(|(d, _, _)| *d).collect();
        assert_eq!(digests.len(), all.len());
        assert_eq!((all[4].1, all[4].2), (2, 10));
    }

    #[test]
    fn names_are_read_back() {
        let mut buf = [0; MAX_PIECE_NAME];
        let cases = [
            (0, 0, "0000000000000000"),
            (0x0123_4567_89ab_cdef, 1, "0123456789abcdef.1"),
            (u64::MAX, 10, "ffffffffffffffff.10"),
        ];
        for (hash, count, want) in cases {
            let n = piece_name(&mut buf, hash, count);
            assert_eq!(core::str::from_utf8(&buf[..n]), Ok(want));
        }
        for count in [0, 1, 9, 10, 99, 100, 999_999_999, 1_000_000_000, u32::MAX] {
            let n = piece_name(&mut buf, P1, count);
            assert_eq!(parse_piece_name(&buf[..n]), Some((P1, count)));
        }
        for wrong in [
            "",
            "0",
            "000000000000000",
            "000000000000000G",
            "000000000000000A",
            "0000000000000000.",
            "0000000000000000.0",
            "0000000000000000.01",
            "0000000000000000x1",
            "0000000000000000.4294967296",
            "0000000000000000.1x",
        ] {
            assert_eq!(parse_piece_name(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
