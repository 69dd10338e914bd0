//! CBOR heads and items as records use them (RFC 8949; ABI.md, "Records"): definite lengths and
//! shortest heads only, no allocation, no recursion.
//!
//! [`Reader`] reads items that lie whole in memory; [`Nesting`] passes over an item of any size piece
//! by piece; [`encode_head`] writes.

use crate::error::{Code, Error};
use crate::text::Text;

/// Major type 0: an unsigned integer.
pub const UINT: u8 = 0;
/// Major type 1: a negative integer; the argument is -1 - n.
pub const NEGATIVE: u8 = 1;
/// Major type 2: a byte string.
pub const BYTES: u8 = 2;
/// Major type 3: a text string.
pub const TEXT: u8 = 3;
/// Major type 4: an array.
pub const ARRAY: u8 = 4;
/// Major type 5: a map.
pub const MAP: u8 = 5;
/// Major type 6: a tag.
pub const TAG: u8 = 6;
/// Major type 7: simple values and floats.
pub const OTHER: u8 = 7;

/// How deep arrays, maps and tags may nest in one item, the item itself counted.
pub const MAX_DEPTH: usize = 64;

/// What no string may exceed in bytes and no collection in items: the largest record a host can be
/// set to accept.
pub const MAX_LENGTH: u64 = 1 << 30;

/// Why bytes are not what they should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// The bytes end inside an item.
    Short,
    /// This byte begins no item of CBOR.
    NoItem(u8),
    /// A head that is not of the shortest form.
    NotShortest,
    /// An indefinite length.
    Indefinite,
    /// A break code outside an indefinite length.
    Break,
    /// A simple value below 32 spelled in two bytes.
    LongSimple,
    /// Nested deeper than [`MAX_DEPTH`].
    Deep,
    /// A string of so many bytes.
    LongString(u64),
    /// A collection of so many items.
    LongCollection(u64),
    /// Something else was expected; the byte found.
    Expected(&'static str, u8),
    /// Bytes are left after the last item.
    Left,
    /// This byte begins no record.
    NoRecord(u8),
    /// The partition or key is not a string of an allowed kind; which, and the byte found.
    NoString(&'static str, u8),
    /// The partition or key is longer than its limit; which, length, limit.
    LongName(&'static str, u64, usize),
    /// The partition or key is text but not UTF-8; which.
    NotUtf8(&'static str),
}

/// A [`Reason`] and where: an offset in the bytes given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Offset in the bytes given.
    pub at: usize,
    /// What is wrong there.
    pub reason: Reason,
}

impl Fault {
    #[cold]
    #[inline(never)]
    pub(crate) fn new(at: usize, reason: Reason) -> Fault {
        Fault { at, reason }
    }

    /// The kind of error this is: [`Code::TooLarge`] where a limit was passed, else [`Code::Corrupt`].
    pub fn code(&self) -> Code {
        match self.reason {
            Reason::Deep | Reason::LongString(_) | Reason::LongCollection(_) | Reason::LongName(..) => Code::TooLarge,
            _ => Code::Corrupt,
        }
    }

    /// The fault in words.
    pub fn text(&self) -> Text {
        let t = Text::new();
        match self.reason {
            Reason::Short => t.str("the bytes end inside an item"),
            Reason::NoItem(b) => t.hex(b).str(" begins no CBOR item"),
            Reason::NotShortest => t.str("a head that is not of the shortest form"),
            Reason::Indefinite => t.str("an indefinite length; records use definite ones only"),
            Reason::Break => t.str("a break without an indefinite length"),
            Reason::LongSimple => t.str("a simple value below 32 in two bytes"),
            Reason::Deep => t.str("nested deeper than ").num(MAX_DEPTH as u64),
            Reason::LongString(n) => t.str("a string of ").num(n).str(" bytes; no record may pass ").num(MAX_LENGTH),
            Reason::LongCollection(n) => {
                t.str("a collection of ").num(n).str(" items; no record may pass ").num(MAX_LENGTH).str(" bytes")
            }
            Reason::Expected(what, b) => t.str(what).str(" expected, found ").hex(b),
            Reason::Left => t.str("bytes after the end"),
            Reason::NoRecord(b) => t.str("a record is an array of three (0x83), this byte is ").hex(b),
            Reason::NoString(what, b) => {
                let kind = if what == "key" { "a text or byte string" } else { "a text string" };
                t.str("the ").str(what).str(" must be ").str(kind).str(", this byte is ").hex(b)
            }
            Reason::LongName(what, n, limit) => {
                t.str("the ").str(what).str(" is ").num(n).str(" bytes; the limit is ").num(limit as u64)
            }
            Reason::NotUtf8(what) => t.str("the ").str(what).str(" is text but not UTF-8"),
        }
    }

    /// The fault as an error, where the bytes given began at `offset` of the input.
    pub fn error(&self, offset: u64) -> Error {
        Error::new(self.code(), self.text()).at(offset + self.at as u64)
    }
}

/// Reads the head at `p`: its argument, and where what follows it begins. `None` means the bytes end
/// inside the head. Not for major type 7, whose rules differ.
#[inline(always)]
pub(crate) fn head(data: &[u8], p: usize) -> Result<Option<(u64, usize)>, Fault> {
    let first = match data.get(p) {
        Some(b) => *b,
        None => return Ok(None),
    };
    let (arg, next, least) = match first & 0x1f {
        info @ 0..=23 => return Ok(Some((info as u64, p + 1))),
        24 => match data.get(p + 1) {
            Some(b) => (*b as u64, p + 2, 24),
            None => return Ok(None),
        },
        25 => match array(data, p + 1) {
            Some(a) => (u16::from_be_bytes(a) as u64, p + 3, 0x100),
            None => return Ok(None),
        },
        26 => match array(data, p + 1) {
            Some(a) => (u32::from_be_bytes(a) as u64, p + 5, 0x1_0000),
            None => return Ok(None),
        },
        27 => match array(data, p + 1) {
            Some(a) => (u64::from_be_bytes(a), p + 9, 0x1_0000_0000),
            None => return Ok(None),
        },
        31 => return Err(Fault::new(p, Reason::Indefinite)),
        _ => return Err(Fault::new(p, Reason::NoItem(first))),
    };
    if arg < least {
        return Err(Fault::new(p, Reason::NotShortest));
    }
    Ok(Some((arg, next)))
}

/// The `N` bytes at `p`, if they are there.
#[inline(always)]
fn array<const N: usize>(data: &[u8], p: usize) -> Option<[u8; N]> {
    data.get(p..p + N)?.try_into().ok()
}

/// Writes the shortest head of `major` and `arg` into `buf` and returns its length.
pub fn encode_head(buf: &mut [u8; 9], major: u8, arg: u64) -> usize {
    let be = arg.to_be_bytes();
    let (info, size) = match arg {
        0..=23 => (arg as u8, 0),
        24..=0xff => (24, 1),
        0x100..=0xffff => (25, 2),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 8),
    };
    buf[0] = major << 5 | info;
    buf[1..1 + size].copy_from_slice(&be[8 - size..]);
    1 + size
}

/// How far a check of bytes got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Whole, up to this offset.
    Whole(usize),
    /// All is well up to this offset, where more bytes are needed. What lies before it is not looked
    /// at again; checking goes on from it when more bytes lie behind it.
    Short(usize),
}

/// How many bytes an item takes whose first byte is the index, where that byte alone tells and the
/// item has no items inside; 0 elsewhere. Most items of most states are of these kinds, and one load
/// disposes of them.
const STEP: [u8; 256] = steps();

const fn steps() -> [u8; 256] {
    let mut t = [0u8; 256];
    let mut b = 0;
    while b < 256 {
        let (major, info) = ((b >> 5) as u8, (b & 0x1f) as u8);
        t[b] = match (major, info) {
            (UINT, 0..=23) | (NEGATIVE, 0..=23) | (OTHER, 0..=23) => 1,
            (BYTES, 0..=23) | (TEXT, 0..=23) => 1 + info,
            (ARRAY, 0) | (MAP, 0) => 0, // one byte, but an empty collection has a depth
            (OTHER, 25) => 3,
            (OTHER, 26) => 5,
            (OTHER, 27) => 9,
            _ => 0,
        };
        b += 1;
    }
    t
}

/// Passes over one item, whole or in pieces, checking that it is well-formed.
///
/// It holds the count of items still to come at each open level, so that no input can make it recurse
/// or allocate, and how much of a string is still to come, so that a string need not be in memory.
pub struct Nesting {
    left: u32, // items still to come at this level
    skip: u32, // bytes of the last string still to come
    depth: u32,
    stack: [u32; MAX_DEPTH],
}

impl Nesting {
    /// Ready for one item.
    pub const fn new() -> Nesting {
        Nesting { left: 1, skip: 0, depth: 0, stack: [0; MAX_DEPTH] }
    }

    /// Ready for one item again.
    #[inline(always)]
    pub fn reset(&mut self) {
        self.left = 1;
        self.skip = 0;
        self.depth = 0;
    }

    /// Goes on at `from` in `data`. After [`Step::Whole`] the next call needs a [`reset`](Self::reset)
    /// first; after a fault the item is not to be gone on with.
    #[inline(always)]
    pub fn pass(&mut self, data: &[u8], from: usize) -> Result<Step, Fault> {
        let mut p = from;
        if self.skip > 0 {
            let here = data.len() - p;
            if self.skip as usize > here {
                self.skip -= here as u32;
                return Ok(Step::Short(data.len()));
            }
            p += self.skip as usize;
            self.skip = 0;
            if self.left == 0 {
                return Ok(Step::Whole(p));
            }
        }
        let mut left = self.left;
        let mut depth = self.depth as usize;
        loop {
            let first = match data.get(p) {
                Some(b) => *b,
                None => return Ok(self.stop(data, p, left, depth)),
            };
            let step = STEP[first as usize];
            let major = first >> 5;
            if step != 0 {
                p += step as usize;
            } else if major == OTHER {
                match data.get(p + 1) {
                    _ if first == 0xff => return Err(Fault::new(p, Reason::Break)),
                    _ if first != 0xf8 => return Err(Fault::new(p, Reason::NoItem(first))),
                    Some(b) if *b < 32 => return Err(Fault::new(p, Reason::LongSimple)),
                    Some(_) => p += 2,
                    None => return Ok(self.stop(data, p, left, depth)),
                }
            } else {
                let (arg, next) = match head(data, p)? {
                    Some(h) => h,
                    None => return Ok(self.stop(data, p, left, depth)),
                };
                if major <= NEGATIVE {
                    p = next;
                } else if major <= TEXT {
                    if arg > MAX_LENGTH {
                        return Err(Fault::new(p, Reason::LongString(arg)));
                    }
                    p = next + arg as usize;
                } else {
                    let inside = if major == TAG {
                        1
                    } else if arg > MAX_LENGTH {
                        return Err(Fault::new(p, Reason::LongCollection(arg)));
                    } else {
                        (arg as u32) << (major - ARRAY) // a map has two items a pair
                    };
                    if depth == MAX_DEPTH {
                        return Err(Fault::new(p, Reason::Deep));
                    }
                    p = next;
                    if inside > 0 {
                        self.stack[depth] = left - 1;
                        depth += 1;
                        left = inside;
                        continue;
                    }
                }
            }
            left -= 1;
            while left == 0 {
                if depth == 0 {
                    if p > data.len() {
                        return Ok(self.stop(data, p, 0, 0));
                    }
                    return Ok(Step::Whole(p));
                }
                depth -= 1;
                left = self.stack[depth % MAX_DEPTH];
            }
        }
    }

    /// Keeps where the check stands. `p` beyond the data is the end of a string that is not all here.
    #[cold]
    #[inline(never)]
    fn stop(&mut self, data: &[u8], p: usize, left: u32, depth: usize) -> Step {
        self.left = left;
        self.depth = depth as u32;
        self.skip = p.saturating_sub(data.len()) as u32;
        Step::Short(p.min(data.len()))
    }
}

impl Default for Nesting {
    fn default() -> Nesting {
        Nesting::new()
    }
}

/// Reads items one after another from bytes that are all in memory.
///
/// Strings share memory with the input. After a fault the reader stays where the fault is.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads `data` from its beginning.
    pub fn new(data: &'a [u8]) -> Reader<'a> {
        Reader { data, at: 0 }
    }

    /// How many bytes have been read.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// The major type of the next item, or `None` at the end.
    pub fn major(&self) -> Option<u8> {
        self.data.get(self.at).map(|b| b >> 5)
    }

    /// An error unless all bytes have been read.
    pub fn end(&self) -> Result<(), Fault> {
        if self.at < self.data.len() {
            return Err(Fault::new(self.at, Reason::Left));
        }
        Ok(())
    }

    #[inline(never)]
    fn expect(&self, major: u8, what: &'static str) -> Result<(u64, usize), Fault> {
        match self.data.get(self.at) {
            None => Err(Fault::new(self.at, Reason::Short)),
            Some(b) if b >> 5 != major => Err(Fault::new(self.at, Reason::Expected(what, *b))),
            Some(_) => head(self.data, self.at)?.ok_or_else(|| Fault::new(self.at, Reason::Short)),
        }
    }

    /// An unsigned integer.
    pub fn uint(&mut self) -> Result<u64, Fault> {
        let (v, next) = self.expect(UINT, "an unsigned integer")?;
        self.at = next;
        Ok(v)
    }

    /// An integer that fits in 64 bits with its sign.
    pub fn int(&mut self) -> Result<i64, Fault> {
        let negative = self.major() == Some(NEGATIVE);
        let (v, next) = self.expect(if negative { NEGATIVE } else { UINT }, "an integer")?;
        if v > i64::MAX as u64 {
            return Err(Fault::new(self.at, Reason::Expected("an integer of 64 bits", self.data[self.at])));
        }
        self.at = next;
        Ok(if negative { -1 - v as i64 } else { v as i64 })
    }

    fn string(&mut self, major: u8, what: &'static str) -> Result<&'a [u8], Fault> {
        let (n, next) = self.expect(major, what)?;
        if n > (self.data.len() - next) as u64 {
            return Err(Fault::new(self.at, Reason::Short));
        }
        self.at = next + n as usize;
        Ok(&self.data[next..self.at])
    }

    /// A byte string.
    pub fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        self.string(BYTES, "a byte string")
    }

    /// A text string.
    pub fn text(&mut self) -> Result<&'a str, Fault> {
        let at = self.at;
        let s = self.string(TEXT, "a text string")?;
        core::str::from_utf8(s).map_err(|_| {
            self.at = at;
            Fault::new(at, Reason::NotUtf8("string"))
        })
    }

    /// The head of an array: how many items follow. No more than the bytes left can hold.
    pub fn array(&mut self) -> Result<usize, Fault> {
        self.count(ARRAY, 1, "an array")
    }

    /// The head of a map: how many pairs follow. No more than the bytes left can hold.
    pub fn map(&mut self) -> Result<usize, Fault> {
        self.count(MAP, 2, "a map")
    }

    fn count(&mut self, major: u8, each: u64, what: &'static str) -> Result<usize, Fault> {
        let (n, next) = self.expect(major, what)?;
        if n > (self.data.len() - next) as u64 / each {
            return Err(Fault::new(self.at, Reason::Short));
        }
        self.at = next;
        Ok(n as usize)
    }

    /// The number of a tag; its content follows.
    pub fn tag(&mut self) -> Result<u64, Fault> {
        let (v, next) = self.expect(TAG, "a tag")?;
        self.at = next;
        Ok(v)
    }

    /// True or false.
    pub fn bool(&mut self) -> Result<bool, Fault> {
        match self.data.get(self.at) {
            None => Err(Fault::new(self.at, Reason::Short)),
            Some(b @ 0xf4..=0xf5) => {
                self.at += 1;
                Ok(*b == 0xf5)
            }
            Some(b) => Err(Fault::new(self.at, Reason::Expected("true or false", *b))),
        }
    }

    /// Passes over null if that is what comes next.
    pub fn null(&mut self) -> bool {
        let found = self.data.get(self.at) == Some(&0xf6);
        self.at += found as usize;
        found
    }

    /// Passes over one item of any kind and returns its bytes.
    pub fn item(&mut self) -> Result<&'a [u8], Fault> {
        match Nesting::new().pass(self.data, self.at)? {
            Step::Whole(end) => {
                let item = &self.data[self.at..end];
                self.at = end;
                Ok(item)
            }
            Step::Short(at) => Err(Fault::new(at, Reason::Short)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_shortest() {
        let cases: [(u64, &[u8]); 9] = [
            (0, &[0x60]),
            (23, &[0x77]),
            (24, &[0x78, 24]),
            (255, &[0x78, 255]),
            (256, &[0x79, 1, 0]),
            (65535, &[0x79, 255, 255]),
            (65536, &[0x7a, 0, 1, 0, 0]),
            (0xffff_ffff, &[0x7a, 255, 255, 255, 255]),
            (0x1_0000_0000, &[0x7b, 0, 0, 0, 1, 0, 0, 0, 0]),
        ];
        for (arg, want) in cases {
            let mut buf = [0; 9];
            let n = encode_head(&mut buf, TEXT, arg);
            assert_eq!(&buf[..n], want);
            assert_eq!(head(want, 0), Ok(Some((arg, want.len()))));
            for cut in 0..want.len() {
                assert_eq!(head(&want[..cut], 0), Ok(None), "{arg} cut at {cut}");
            }
        }
    }

    #[test]
    fn longer_heads_are_refused() {
        let cases: [&[u8]; 4] =
            [&[0x18, 23], &[0x19, 0, 255], &[0x1a, 0, 0, 255, 255], &[0x1b, 0, 0, 0, 0, 255, 255, 255, 255]];
        for c in cases {
            assert_eq!(head(c, 0), Err(Fault { at: 0, reason: Reason::NotShortest }));
        }
        for b in [0x1c, 0x5d, 0x9e, 0xbc] {
            assert_eq!(head(&[b; 9], 0), Err(Fault { at: 0, reason: Reason::NoItem(b) }));
        }
        assert_eq!(head(&[0x9f], 0), Err(Fault { at: 0, reason: Reason::Indefinite }));
    }

    /// Passes over `data` cut at `cut` and at every byte after it.
    fn pieces(data: &[u8], cut: usize) -> Result<Step, Fault> {
        let mut n = Nesting::new();
        let mut from = 0;
        for end in cut..=data.len() {
            match n.pass(&data[..end], from)? {
                Step::Whole(at) => return Ok(Step::Whole(at)),
                Step::Short(at) => from = at,
            }
        }
        Ok(Step::Short(from))
    }

    #[test]
    fn passes_over_items_in_pieces() {
        let items: [&[u8]; 12] = [
            &[0x00],
            &[0x1b, 1, 2, 3, 4, 5, 6, 7, 8],
            &[0x38, 200],
            &[0x65, b'h', b'e', b'l', b'l', b'o'],
            &[0x80],
            &[0xa0],
            &[0x83, 0x80, 0xa1, 0x61, b'a', 0xf6, 0xfb, 1, 2, 3, 4, 5, 6, 7, 8],
            &[0xc1, 0x1a, 0x51, 0x4b, 0x67, 0xb0],
            &[0xf8, 32],
            &[0xf9, 0x3c, 0x00],
            &[0x58, 24, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23],
            &[0x9a, 0, 1, 0, 0],
        ];
        for item in items {
            let whole = item[0] != 0x9a;
            for cut in 0..=item.len() {
                let want = if whole { Step::Whole(item.len()) } else { Step::Short(item.len()) };
                assert_eq!(pieces(item, cut), Ok(want), "{item:02x?} cut at {cut}");
            }
            let mut r = Reader::new(item);
            assert_eq!(r.item().is_ok(), whole);
        }
    }

    #[test]
    fn refuses_what_is_no_item() {
        let cases: [(&[u8], Reason); 7] = [
            (&[0xff], Reason::Break),
            (&[0xfc], Reason::NoItem(0xfc)),
            (&[0xf8, 31], Reason::LongSimple),
            (&[0x5b, 0, 0, 0, 1, 0, 0, 0, 0], Reason::LongString(1 << 32)),
            (&[0x9b, 0, 0, 0, 1, 0, 0, 0, 0], Reason::LongCollection(1 << 32)),
            (&[0xbf], Reason::Indefinite),
            (&[0xde], Reason::NoItem(0xde)),
        ];
        for (item, reason) in cases {
            for cut in 0..=item.len() {
                assert_eq!(pieces(item, cut), Err(Fault { at: 0, reason }), "{item:02x?} cut at {cut}");
            }
        }
    }

    #[test]
    fn depth_is_bounded() {
        for open in [0x81u8, 0xc1] {
            let mut deep = [open; MAX_DEPTH + 1];
            deep[MAX_DEPTH] = 0;
            assert_eq!(pieces(&deep, 0), Ok(Step::Whole(MAX_DEPTH + 1)));
            for last in [open, 0x80, 0xa0] {
                deep[MAX_DEPTH] = last;
                assert_eq!(pieces(&deep, 0), Err(Fault { at: MAX_DEPTH, reason: Reason::Deep }));
            }
        }
    }

    #[test]
    fn reads_each_kind() {
        let mut r = Reader::new(&[0x18, 100, 0x38, 99, 0x41, 7, 0x61, b'x', 0x81, 0xf5, 0xa1, 0xf6, 0xf4, 0xc2, 0x40]);
        assert_eq!(r.uint(), Ok(100));
        assert_eq!(r.int(), Ok(-100));
        assert_eq!(r.bytes(), Ok(&[7u8][..]));
        assert_eq!(r.text(), Ok("x"));
        assert_eq!(r.array(), Ok(1));
        assert_eq!(r.bool(), Ok(true));
        assert_eq!(r.map(), Ok(1));
        assert!(r.null());
        assert!(!r.null());
        assert_eq!(r.bool(), Ok(false));
        assert_eq!(r.tag(), Ok(2));
        assert!(r.end().is_err());
        assert_eq!(r.bytes(), Ok(&[][..]));
        assert_eq!(r.end(), Ok(()));
        assert_eq!(r.uint(), Err(Fault { at: 15, reason: Reason::Short }));
    }

    #[test]
    fn a_fault_leaves_the_reader_where_it_is() {
        let mut r = Reader::new(&[0x62, 0xff, 0xff]);
        assert_eq!(r.text(), Err(Fault { at: 0, reason: Reason::NotUtf8("string") }));
        assert_eq!(r.uint(), Err(Fault { at: 0, reason: Reason::Expected("an unsigned integer", 0x62) }));
        assert_eq!(r.bytes(), Err(Fault { at: 0, reason: Reason::Expected("a byte string", 0x62) }));
        assert_eq!(r.offset(), 0);
        assert!(Reader::new(&[0x3b, 255, 255, 255, 255, 255, 255, 255, 255]).int().is_err());
        assert_eq!(Reader::new(&[0x3b, 127, 255, 255, 255, 255, 255, 255, 255]).int(), Ok(i64::MIN));
        assert_eq!(Reader::new(&[0x9a, 0, 1, 0, 0]).array(), Err(Fault { at: 0, reason: Reason::Short }));
        assert_eq!(Reader::new(&[0xa1, 0]).map(), Err(Fault { at: 0, reason: Reason::Short }));
    }
}
