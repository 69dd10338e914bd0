//! JSON into CBOR: one value at a time, from memory to memory.
//!
//! [`value`] does what is usual and is fast; whatever it did not expect it hands to [`skip`], which knows
//! the whole grammar, slowly: what `skip` accepts is kept as it is spelled, what it refuses is the error.

use crate::guess::{Names, Place as Expected};
use crate::number;
use crate::style::{Place, Style};
use crate::word::{below, chunk, room, sixteen, sound, special, under, unlike, word, HIGH};

/// How deep a text may nest.
pub const MAX_DEPTH: usize = 10_000;

/// How many objects and arrays may be open inside the value of a record. What lies deeper is kept as it
/// is spelled; with what a record puts around its value that stays below what a record may nest.
pub const MAX_INNER: usize = 60;

/// Room that is made sure of before each token: more than the longest number or head takes.
const ROOM: usize = 72;

/// How many bytes must follow a token's first, so that most tokens lie in a window of fixed size. Behind the
/// end of a text as many zeros are put, which are in no JSON.
pub const PAD: usize = 80;

/// First bytes of items.
pub const TEXT: u8 = 0x60;
pub const ARRAY: u8 = 0x80;
pub const MAP: u8 = 0xa0;
pub const FALSE: u8 = 0xf4;
pub const TRUE: u8 = 0xf5;
pub const NULL: u8 = 0xf6;
pub const FLOAT: u8 = 0xfb;

/// Tag 262, which stands for JSON in a byte string.
pub const SPELLED: [u8; 3] = [0xd9, 0x01, 0x06];

/// After how many bytes the host gets a chance to look at a call that has not come to it since.
pub const LOOK_BYTES: usize = 64 << 10;

/// Comes to the host, which may end a call that computes for long without doing so (ABI.md, "Fuel").
#[cold]
#[inline(never)]
pub fn look() {
    torpor::pause();
}

/// Why a scan stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// The text ends: with more of it the scan begins again.
    More,
    /// The output is full: with more room the scan begins again.
    Full,
    /// The text is no JSON at this offset, and what was expected there.
    Bad(usize, &'static str),
    /// It nests too deep at this offset.
    Deep(usize),
    /// A limit was passed at this offset.
    Large(usize, &'static str),
}

impl Stop {
    /// The same, of a text of which `p` bytes are left off.
    pub fn from(self, p: usize) -> Stop {
        match self {
            Stop::Bad(at, what) => Stop::Bad(at - p, what),
            Stop::Deep(at) => Stop::Deep(at - p),
            Stop::Large(at, what) => Stop::Large(at.saturating_sub(p), what),
            stop => stop,
        }
    }
}

/// What stands for no place.
pub const STOPPED: u64 = 0;

#[inline(always)]
fn packed(p: usize, n: usize) -> u64 {
    (p as u64) << 32 | n as u64
}

/// What a scan ends with.
pub type Scan<T> = core::result::Result<T, Stop>;

/// What the scanner keeps: memory, and what does not change from value to value.
pub struct Scanner {
    pub style: Style,
    /// Why a string was not read.
    pub stop: Stop,
    /// The names that are expected, to save or to load.
    pub names: Names,
    frames: [Frame; 64],
    open: [u64; MAX_DEPTH / 64 + 1], // for skip: whether the bracket that is open so deep is an object's
}

/// What a scan stands before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// A value.
    Value,
    /// The first entry of an object or array, or its end.
    Open,
    /// The next entry.
    Next,
    /// A comma, or the end of the object or array.
    Behind,
}

/// An object or array inside a value.
#[derive(Clone, Copy)]
struct Frame {
    head: u32,  // where its head is in the output
    start: u32, // and its bracket in the text
    count: u32, // entries of the one around it
}

impl Scanner {
    pub const fn new() -> Scanner {
        Scanner {
            style: Style::ZERO,
            stop: Stop::More,
            names: Names::new(),
            frames: [Frame { head: 0, start: 0, count: 0 }; 64],
            open: [0; MAX_DEPTH / 64 + 1],
        }
    }

    /// Scans the value at `p` of `t` and writes it as one item at `n` of `out`: where both end. `outer`
    /// brackets are open around it.
    pub fn value(&mut self, t: &[u8], p: usize, out: &mut [u8], n: usize, outer: usize) -> Scan<(usize, usize)> {
        if self.style.compact {
            self.run::<true>(t, p, out, n, outer)
        } else {
            self.run::<false>(t, p, out, n, outer)
        }
    }

    fn run<const COMPACT: bool>(
        &mut self,
        t: &[u8],
        p: usize,
        out: &mut [u8],
        n: usize,
        outer: usize,
    ) -> Scan<(usize, usize)> {
        let (mut p, mut n) = (p, n);
        let mut depth = 0; // brackets open inside the value
        let mut objects = 0u64; // a bit for each: whether it is an object
        let mut count = 0u32; // entries of the innermost one
        let mut next = p + LOOK_BYTES;
        let mut name = self.names.begin();
        'value: loop {
            let s = match chunk::<72>(t, p) {
                Some(s) => s,
                None => return Err(Stop::More),
            };
            if n + ROOM > out.len() {
                return Err(Stop::Full);
            }
            if p > next {
                look();
                next = p + LOOK_BYTES;
            }
            let c = s[0];
            let mut odd = None; // where it is not spaced as the style says, or no JSON
            if c == b'"' {
                let r = if COMPACT { self.string(s, t, p, out, n) } else { self.any_string(s, t, p, out, n) };
                if r == STOPPED {
                    return Err(self.stop);
                }
                p = (r >> 32) as usize;
                n = r as u32 as usize;
            } else if c.wrapping_sub(b'0') < 10 || c == b'-' {
                let r = number::short(s);
                if r == 0 {
                    let (q, m) = number::scan(t, p, out, n)?;
                    p = q;
                    n = m;
                } else {
                    p += (r >> 32) as usize;
                    n = put_head(out, n, 0, r as u32 as u64)?;
                }
            } else if c == b'{' || c == b'[' {
                if depth == MAX_INNER {
                    let (q, m) = self.spelled(t, p, out, n, outer + depth)?;
                    p = q;
                    n = m;
                } else if s[1] == c + 2 {
                    out[n] = if c == b'{' { MAP } else { ARRAY };
                    p += 2;
                    n += 1;
                } else {
                    self.frames[depth % 64] = Frame { head: n as u32, start: p as u32, count };
                    depth += 1;
                    objects = objects << 1 | (c == b'{') as u64;
                    count = 1;
                    n += 1; // room for the shortest head
                    p += 1;
                    if !COMPACT {
                        match self.style.expect(Place::Open, outer + depth, t, p) {
                            Some(q) => p = q,
                            None => odd = Some(At::Open),
                        }
                    }
                    if odd.is_none() {
                        if c == b'[' {
                            continue 'value;
                        }
                        if COMPACT {
                            if let (Some(s), Some(d)) = (chunk::<72>(t, p), room::<72>(out, n)) {
                                if let Some((read, written)) = self.names.take(&mut name, s, d) {
                                    p += read;
                                    n += written;
                                    continue 'value;
                                }
                            }
                        }
                        let ends = if COMPACT {
                            self.other_name(t, p, out, n, &mut name)?
                        } else {
                            self.spaced_name(t, p, out, n)?
                        };
                        match ends {
                            Some((q, m)) => {
                                p = q;
                                n = m;
                                continue 'value;
                            }
                            None => odd = Some(At::Open),
                        }
                    }
                }
            } else {
                let mut word = [0; 4];
                word.copy_from_slice(&s[..4]);
                let word = u32::from_le_bytes(word);
                if word == u32::from_le_bytes(*b"true") {
                    out[n] = TRUE;
                    p += 4;
                    n += 1;
                } else if word == u32::from_le_bytes(*b"null") {
                    out[n] = NULL;
                    p += 4;
                    n += 1;
                } else if word == u32::from_le_bytes(*b"fals") && s[4] == b'e' {
                    out[n] = FALSE;
                    p += 5;
                    n += 1;
                } else if depth == 0 {
                    return Err(match self.skip(t, p, outer) {
                        Err(stop) => stop,
                        Ok(_) => Stop::Bad(p, "a value"),
                    });
                } else {
                    odd = Some(if count == 1 && objects & 1 == 0 { At::Open } else { At::Value });
                }
            }
            if let Some(at) = odd {
                let (q, m, d) = self.unwind(t, p, at, objects & 1 == 1, out, depth, outer)?;
                p = q;
                n = m;
                depth = d;
                objects >>= 1;
                count = self.frames[depth % 64].count;
            }
            // Behind a value: what comes next.
            loop {
                if depth == 0 {
                    return Ok((p, n));
                }
                let c = match t.get(p) {
                    Some(c) => *c,
                    None => return Err(Stop::More),
                };
                let object = objects & 1 == 1;
                let mut at = At::Behind;
                if c == b',' {
                    count += 1;
                    p += 1;
                    at = At::Next;
                    let mut odd = false;
                    if !COMPACT {
                        match self.style.expect(Place::Comma, outer + depth, t, p) {
                            Some(q) => p = q,
                            None => odd = true,
                        }
                    }
                    if !odd {
                        if !object {
                            continue 'value;
                        }
                        let (s, d) = match (chunk::<72>(t, p), room::<72>(out, n)) {
                            (Some(s), Some(d)) => (s, d),
                            (None, _) => return Err(Stop::More),
                            _ => return Err(Stop::Full),
                        };
                        if COMPACT {
                            if let Some((read, written)) = self.names.take(&mut name, s, d) {
                                p += read;
                                n += written;
                                continue 'value;
                            }
                        }
                        let ends = if COMPACT {
                            self.other_name(t, p, out, n, &mut name)?
                        } else {
                            self.spaced_name(t, p, out, n)?
                        };
                        if let Some((q, m)) = ends {
                            p = q;
                            n = m;
                            continue 'value;
                        }
                    }
                } else {
                    let close = if object { b'}' } else { b']' };
                    let end = if COMPACT || !self.style.indented {
                        Some(p)
                    } else {
                        self.style.expect(Place::Close, outer + depth, t, p)
                    };
                    match end {
                        Some(q) if t.get(q) == Some(&close) => {
                            depth -= 1;
                            objects >>= 1;
                            let f = self.frames[depth % 64];
                            let head = f.head as usize;
                            let major = if object { MAP } else { ARRAY };
                            if count < 24 {
                                out[head] = major | count as u8;
                            } else {
                                n = widen(out, head, n, major, count as u64)?;
                            }
                            count = f.count;
                            p = q + 1;
                            continue;
                        }
                        _ => {}
                    }
                }
                // It is not spaced as the style says, or no JSON.
                let (q, m, d) = self.unwind(t, p, at, object, out, depth, outer)?;
                p = q;
                n = m;
                depth = d;
                objects >>= 1;
                count = self.frames[depth % 64].count;
            }
        }
    }

    /// A name that was not expected.
    #[inline(never)]
    fn other_name(
        &mut self,
        t: &[u8],
        p: usize,
        out: &mut [u8],
        n: usize,
        place: &mut Expected,
    ) -> Scan<Option<(usize, usize)>> {
        if let (Some(s), Some(d)) = (chunk::<72>(t, p), room::<72>(out, n)) {
            if let Some((read, written)) = self.names.take_other(place, s, d) {
                return Ok(Some((p + read, n + written)));
            }
        }
        let ends = self.name::<true>(t, p, out, n)?;
        if let Some((q, m)) = ends {
            // A name without escapes, whose head and text are as long as its quotes, colon and text.
            if matches!(out[n], 0x60..=0x78) && m - n + 2 == q - p + (out[n] == 0x78) as usize {
                self.names.learn(place, &t[p..q], &out[n..m]);
            }
        }
        Ok(ends)
    }

    /// A name with white space around the colon, as the style says.
    #[inline(never)]
    fn spaced_name(&mut self, t: &[u8], p: usize, out: &mut [u8], n: usize) -> Scan<Option<(usize, usize)>> {
        self.name::<false>(t, p, out, n)
    }

    /// The name at `p` and the colon behind it; `None` if they are not as the style says.
    #[inline(always)]
    fn name<const COMPACT: bool>(
        &mut self,
        t: &[u8],
        p: usize,
        out: &mut [u8],
        n: usize,
    ) -> Scan<Option<(usize, usize)>> {
        let s = match chunk::<72>(t, p) {
            Some(s) => s,
            None => return Err(Stop::More),
        };
        if s[0] != b'"' {
            return Ok(None);
        }
        let r = self.string(s, t, p, out, n);
        if r == STOPPED {
            return Err(self.stop);
        }
        let (mut p, n) = ((r >> 32) as usize, r as u32 as usize);
        if !COMPACT {
            match gap(t, p, self.style.before_colon.get()) {
                Some(q) => p = q,
                None => return Ok(None),
            }
        }
        match t.get(p) {
            Some(b':') => p += 1,
            Some(_) => return Ok(None),
            None => return Err(Stop::More),
        }
        if !COMPACT {
            match gap(t, p, self.style.colon.get()) {
                Some(q) => p = q,
                None => return Ok(None),
            }
        }
        Ok(Some((p, n)))
    }

    /// Takes back the innermost object or array, which has been read up to `p`, and keeps it as it is spelled:
    /// where text and output go on behind it, and how deep. What was read of it is not read again, so that
    /// a text of which all levels are odd takes no longer than another.
    #[cold]
    #[inline(never)]
    #[allow(clippy::too_many_arguments)]
    fn unwind(
        &mut self,
        t: &[u8],
        p: usize,
        at: At,
        object: bool,
        out: &mut [u8],
        depth: usize,
        outer: usize,
    ) -> Scan<(usize, usize, usize)> {
        let f = self.frames[(depth - 1) % 64];
        let end = self.go_on(t, p, outer + depth - 1, Some((object, at)))?;
        Ok((end, put_spelled(out, f.head as usize, &t[f.start as usize..end])?, depth - 1))
    }

    /// Keeps the value at `p` as it is spelled.
    #[cold]
    #[inline(never)]
    pub fn spelled(&mut self, t: &[u8], p: usize, out: &mut [u8], n: usize, outer: usize) -> Scan<(usize, usize)> {
        let end = self.skip(t, p, outer)?;
        Ok((end, put_spelled(out, n, &t[p..end])?))
    }

    /// The string whose quote is at `p`, which is where `s` is, as one item: where text and output go on, in
    /// the halves of a word, so that they need no memory on the way; or STOPPED, and `stop` says why.
    #[inline(always)]
    pub fn string(&mut self, s: &[u8; 72], t: &[u8], p: usize, out: &mut [u8], n: usize) -> u64 {
        if let Some(d) = room::<72>(out, n) {
            macro_rules! copy {
                ($from:expr, $to:expr) => {
                    d[$to..$to + 16].copy_from_slice(&s[$from..$from + 16])
                };
            }
            macro_rules! unlike {
                ($from:expr) => {{
                    let mut b = [0; 16];
                    b.copy_from_slice(&s[$from..$from + 16]);
                    unlike(&b)
                }};
            }
            let marks = unlike!(1);
            copy!(1, 1);
            if marks != 0 {
                let len = marks.trailing_zeros() as usize;
                if s[1 + len % 16] == b'"' {
                    d[0] = TEXT | len as u8;
                    return packed(p + len + 2, n + len + 1);
                }
            } else {
                let marks = unlike!(17);
                if marks != 0 {
                    let len = 16 + marks.trailing_zeros() as usize % 16;
                    if s[1 + len] == b'"' {
                        if len < 24 {
                            copy!(17, 17);
                            d[0] = TEXT | len as u8;
                            return packed(p + len + 2, n + len + 1);
                        }
                        copy!(1, 2);
                        copy!(17, 18);
                        d[0] = TEXT | 24;
                        d[1] = len as u8;
                        return packed(p + len + 2, n + len + 2);
                    }
                } else {
                    let marks = unlike!(33);
                    if marks != 0 {
                        let len = 32 + marks.trailing_zeros() as usize % 16;
                        if s[1 + len] == b'"' {
                            copy!(1, 2);
                            copy!(17, 18);
                            copy!(33, 34);
                            d[0] = TEXT | 24;
                            d[1] = len as u8;
                            return packed(p + len + 2, n + len + 2);
                        }
                    } else {
                        let marks = unlike!(49);
                        if marks != 0 {
                            let len = 48 + marks.trailing_zeros() as usize % 16;
                            if s[1 + len] == b'"' {
                                copy!(1, 2);
                                copy!(17, 18);
                                copy!(33, 34);
                                copy!(49, 50);
                                d[0] = TEXT | 24;
                                d[1] = len as u8;
                                return packed(p + len + 2, n + len + 2);
                            }
                        }
                    }
                }
            }
        }
        self.long(t, p + 1, out, n)
    }

    /// As [`string`](Scanner::string), where it need not be as fast as it can be.
    #[inline(never)]
    pub fn any_string(&mut self, s: &[u8; 72], t: &[u8], p: usize, out: &mut [u8], n: usize) -> u64 {
        self.string(s, t, p, out, n)
    }

    /// A string that is longer, or not ASCII, or has an escape.
    #[inline(never)]
    fn long(&mut self, t: &[u8], from: usize, out: &mut [u8], n: usize) -> u64 {
        match self.any(t, from, out, n) {
            Ok((p, n)) => packed(p, n),
            Err(stop) => {
                self.stop = stop;
                STOPPED
            }
        }
    }

    #[inline(always)]
    fn any(&mut self, t: &[u8], from: usize, out: &mut [u8], n: usize) -> Scan<(usize, usize)> {
        // What is read is written at once, behind a head of two bytes as most have.
        let (text, to) = match (t.get(from..), out.get_mut(n + 2..)) {
            (Some(text), Some(to)) => (text, to),
            (None, _) => return Err(Stop::More),
            _ => return Err(Stop::Full),
        };
        let mut all = 0;
        let mut len = 0;
        let mut found = false;
        for (s, d) in text.chunks_exact(16).zip(to.chunks_exact_mut(16)) {
            let (marks, high) = match (chunk::<16>(s, 0), room::<16>(d, 0)) {
                (Some(s), Some(d)) => {
                    *d = *s;
                    sixteen(s)
                }
                _ => break,
            };
            if len & (LOOK_BYTES - 1) == LOOK_BYTES - 16 {
                look();
            }
            if marks != 0 {
                all |= high & (marks ^ (marks - 1));
                len += marks.trailing_zeros() as usize;
                found = true;
                break;
            }
            all |= high;
            len += 16;
        }
        if !found {
            if text.len() < len + 16 {
                return Err(Stop::More);
            }
            // Room is made only for a string that is all here.
            look();
            return Err(skip_string(t, from - 1).err().unwrap_or(Stop::Full));
        }
        let p = from + len;
        if len > LOOK_BYTES {
            look();
        }
        let c = match t.get(p) {
            Some(c) => *c,
            None => return Err(Stop::More),
        };
        if c == b'\\' {
            return self.escaped(t, from, p, all != 0, out, n);
        }
        if c != b'"' {
            return Err(Stop::Bad(p, CONTROL));
        }
        if all != 0 {
            if !sound(t, from, p) {
                utf8(&t[from..p], from)?;
            }
            if self.style.ascii {
                return Ok((p + 1, put_spelled(out, n, &t[from - 1..p + 1])?));
            }
        }
        Ok((p + 1, put_text_head(out, n, len)?))
    }

    /// A string with an escape, the first one at `first`.
    /// What is before it has been written behind `n + 2`; `high` is whether not all of that is ASCII.
    #[inline(never)]
    fn escaped(
        &self,
        t: &[u8],
        from: usize,
        first: usize,
        high: bool,
        out: &mut [u8],
        n: usize,
    ) -> Scan<(usize, usize)> {
        let content = n + 2;
        let mut p = first;
        let mut o = content + first - from;
        let mut usual = true;
        let mut all = if high { HIGH } else { 0 };
        let mut next = p + LOOK_BYTES;
        loop {
            if p > next {
                look();
                next = p + LOOK_BYTES;
            }
            // Up to the next byte that is special.
            while let (Some(w), Some(d)) = (word(t, p), room::<8>(out, o)) {
                *d = w.to_le_bytes();
                let marks = special(w);
                if marks != 0 {
                    all |= under(w, marks);
                    p += below(marks);
                    o += below(marks);
                    break;
                }
                all |= w;
                p += 8;
                o += 8;
            }
            if o + 16 > out.len() {
                return Err(Stop::Full);
            }
            match t.get(p) {
                None => return Err(Stop::More),
                Some(b'"') => break,
                Some(b'\\') => {
                    let short = match t.get(p + 1) {
                        Some(b'"') => b'"',
                        Some(b'\\') => b'\\',
                        Some(b'n') => b'\n',
                        Some(b't') => b'\t',
                        Some(b'r') => b'\r',
                        _ => 0,
                    };
                    if short != 0 {
                        out[o] = short;
                        o += 1;
                        p += 2;
                        continue;
                    }
                    let (q, c, as_written) = self.escape(t, p)?;
                    usual &= as_written;
                    p = q;
                    o += match c {
                        Some(c) => c.encode_utf8(&mut out[o..o + 4]).len(),
                        None => 0,
                    };
                }
                Some(c) if *c < 0x20 => return Err(Stop::Bad(p, CONTROL)),
                Some(c) => {
                    all |= (*c as u64) << 56;
                    out[o] = *c;
                    o += 1;
                    p += 1;
                }
            }
        }
        if p - from > LOOK_BYTES {
            look();
        }
        let ascii = all & HIGH == 0;
        if !ascii && !sound(t, from, p) {
            utf8(&t[from..p], from)?;
        }
        if !usual || (self.style.ascii && !ascii) {
            return Ok((p + 1, put_spelled(out, n, &t[from - 1..p + 1])?));
        }
        Ok((p + 1, put_text_head(out, n, o - content)?))
    }

    /// The escape whose backslash is at `p`: where it ends, what it stands for (half a surrogate pair
    /// stands for nothing), and whether it is spelled as this serializer would spell it.
    fn escape(&self, t: &[u8], p: usize) -> Scan<(usize, Option<char>, bool)> {
        let c = match t.get(p + 1) {
            Some(c) => *c,
            None => return Err(Stop::More),
        };
        let short = match c {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\x08',
            b'f' => '\x0c',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let (v, lower) = hex(t, p + 2)?;
                if v & 0xf800 != 0xd800 {
                    let usual = match v {
                        0x08 | 0x09 | 0x0a | 0x0c | 0x0d => false,
                        0..=0x1f => lower,
                        0x20..=0x7f => false,
                        _ => self.style.ascii && lower,
                    };
                    return Ok((p + 6, char::from_u32(v), usual));
                }
                // Half of a pair: with the other half it is one character.
                if v & 0xfc00 == 0xd800 {
                    match (t.get(p + 6), t.get(p + 7)) {
                        (Some(b'\\'), Some(b'u')) => {
                            let (second, lower2) = hex(t, p + 8)?;
                            if second & 0xfc00 == 0xdc00 {
                                let c = char::from_u32(0x1_0000 + ((v & 0x3ff) << 10) + (second & 0x3ff));
                                return Ok((p + 12, c, self.style.ascii && lower && lower2));
                            }
                        }
                        (Some(b'\\'), None) | (None, _) => return Err(Stop::More),
                        _ => {}
                    }
                }
                return Ok((p + 6, None, false));
            }
            _ => return Err(Stop::Bad(p + 1, "an escape that JSON knows")),
        };
        Ok((p + 2, Some(short), c != b'/'))
    }

    /// Where the value at `p` ends, however it is spaced and spelled; or what is wrong with it. `outer`
    /// brackets are open around it.
    pub fn skip(&mut self, t: &[u8], p: usize, outer: usize) -> Scan<usize> {
        self.go_on(t, p, outer, None)
    }

    /// As [`skip`](Scanner::skip), perhaps from inside an object or array on, which it tells apart.
    fn go_on(&mut self, t: &[u8], p: usize, outer: usize, inside: Option<(bool, At)>) -> Scan<usize> {
        let mut p = p;
        let mut depth = 0;
        let mut at = At::Value;
        if let Some((object, place)) = inside {
            self.open[0] = object as u64;
            depth = 1;
            at = place;
        }
        let mut next = p + LOOK_BYTES;
        loop {
            if p > next {
                look();
                next = p + LOOK_BYTES;
            }
            if at == At::Value {
                p = white(t, p);
                let c = self.at(t, p)?;
                at = At::Behind;
                match c {
                    b'{' | b'[' => {
                        if outer + depth >= MAX_DEPTH {
                            return Err(Stop::Deep(p));
                        }
                        let word = &mut self.open[depth / 64];
                        *word = *word & !(1 << (depth % 64)) | ((c == b'{') as u64) << (depth % 64);
                        depth += 1;
                        at = At::Open;
                        p += 1;
                    }
                    b'"' => p = skip_string(t, p)?,
                    b'-' | b'0'..=b'9' => p = number::skip(t, p, false)?,
                    b't' if literal(t, p, b"true")? => p += 4,
                    b'f' if literal(t, p, b"false")? => p += 5,
                    b'n' if literal(t, p, b"null")? => p += 4,
                    _ => return Err(Stop::Bad(p, "a value")),
                }
            }
            // Up to where the next value begins.
            loop {
                if depth == 0 {
                    return Ok(p);
                }
                let object = self.open[(depth - 1) / 64] >> ((depth - 1) % 64) & 1 == 1;
                p = white(t, p);
                let c = self.at(t, p)?;
                if at != At::Next {
                    if c == if object { b'}' } else { b']' } {
                        depth -= 1;
                        at = At::Behind;
                        p += 1;
                        continue;
                    }
                    if at == At::Behind {
                        if c != b',' {
                            return Err(Stop::Bad(p, if object { COMMA_OR_BRACE } else { COMMA_OR_BRACKET }));
                        }
                        p = white(t, p + 1);
                    }
                }
                if object {
                    if self.at(t, p)? != b'"' {
                        return Err(Stop::Bad(p, NAME));
                    }
                    p = white(t, skip_string(t, p)?);
                    if self.at(t, p)? != b':' {
                        return Err(Stop::Bad(p, COLON));
                    }
                    p += 1;
                }
                at = At::Value;
                break;
            }
        }
    }

    /// Whether it is one value, with nothing around it.
    pub fn is_value(&mut self, s: &[u8], outer: usize) -> bool {
        match s.first() {
            None | Some(b' ' | b'\n' | b'\r' | b'\t') => false,
            Some(b'-' | b'0'..=b'9') => number::skip(s, 0, true) == Ok(s.len()),
            Some(_) => self.skip(s, 0, outer) == Ok(s.len()),
        }
    }

    fn at(&self, t: &[u8], p: usize) -> Scan<u8> {
        t.get(p).copied().ok_or(Stop::More)
    }
}

pub const COMMA_OR_BRACE: &str = "a comma or the end of the object";
pub const COMMA_OR_BRACKET: &str = "a comma or the end of the array";
pub const NAME: &str = "a name in quotes";
pub const COLON: &str = "a colon";
const CONTROL: &str = "an escape instead of a control character";

/// Where the white space at `p` ends.
pub fn white(t: &[u8], p: usize) -> usize {
    let mut p = p;
    let mut next = p + LOOK_BYTES;
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = t.get(p) {
        p += 1;
        if p > next {
            look();
            next = p + LOOK_BYTES;
        }
    }
    p
}

/// Where the string ends whose quote is at `p`.
pub fn skip_string(t: &[u8], p: usize) -> Scan<usize> {
    let from = p + 1;
    let mut p = from;
    let mut all = 0;
    let mut next = p + LOOK_BYTES;
    loop {
        if p > next {
            look();
            next = p + LOOK_BYTES;
        }
        while let Some(w) = word(t, p) {
            let marks = special(w);
            if marks != 0 {
                all |= under(w, marks);
                p += below(marks);
                break;
            }
            all |= w;
            p += 8;
        }
        match t.get(p) {
            None => return Err(Stop::More),
            Some(b'"') => break,
            Some(b'\\') => {
                let c = t.get(p + 1).ok_or(Stop::More)?;
                p += match c {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
                    b'u' => {
                        hex(t, p + 2)?;
                        6
                    }
                    _ => return Err(Stop::Bad(p + 1, "an escape that JSON knows")),
                };
            }
            Some(c) if *c < 0x20 => return Err(Stop::Bad(p, CONTROL)),
            Some(c) => {
                all |= (*c as u64) << 56;
                p += 1;
            }
        }
    }
    if all & HIGH != 0 {
        utf8(&t[from..p], from)?;
    }
    Ok(p + 1)
}

/// Refuses what is not UTF-8. Most of it is ASCII, and all of it short: what core does for long texts takes
/// longer.
#[inline(never)]
pub fn utf8(s: &[u8], from: usize) -> Scan<()> {
    let mut at = 0;
    let mut next = LOOK_BYTES;
    loop {
        if at > next {
            look();
            next = at + LOOK_BYTES;
        }
        while let Some(w) = word(s, at) {
            let high = w & HIGH;
            if high != 0 {
                at += below(high);
                break;
            }
            at += 8;
        }
        let c = match s.get(at) {
            None => return Ok(()),
            Some(c) => *c,
        };
        if c < 0x80 {
            at += 1;
            continue;
        }
        let next = |i: usize| s.get(at + i).map_or(255, |b| (*b ^ 0x80) as u32); // below 64 if it goes on
        let (one, two, three) = (next(1), next(2), next(3));
        let sound = match c {
            0xc2..=0xdf => (one < 64) as usize * 2,
            0xe0..=0xef => {
                let v = (c as u32 & 15) << 12 | one << 6 | two;
                (one < 64 && two < 64 && v >= 0x800 && v & 0xf800 != 0xd800) as usize * 3
            }
            0xf0..=0xf4 => {
                let v = (c as u32 & 7) << 18 | one << 12 | two << 6 | three;
                (one < 64 && two < 64 && three < 64 && v >= 0x1_0000 && v < 0x11_0000) as usize * 4
            }
            _ => 0,
        };
        if sound == 0 {
            return Err(Stop::Bad(from + at, "UTF-8"));
        }
        at += sound;
    }
}

/// The four hexadecimal digits at `p`, and whether none of them is a capital.
fn hex(t: &[u8], p: usize) -> Scan<(u32, bool)> {
    let (mut v, mut lower) = (0, true);
    for i in p..p + 4 {
        let c = *t.get(i).ok_or(Stop::More)?;
        lower &= !c.is_ascii_uppercase();
        v = v << 4 | (c as char).to_digit(16).ok_or(Stop::Bad(i, "a hexadecimal digit"))?;
    }
    Ok((v, lower))
}

/// Whether `want` stands at `p`; an error unless it does, since nothing else may begin as it does.
#[inline(always)]
fn literal(t: &[u8], p: usize, want: &'static [u8]) -> Scan<bool> {
    if t.get(p..p + want.len()) == Some(want) {
        return Ok(true);
    }
    Err(wrong_literal(t, p, want))
}

#[cold]
fn wrong_literal(t: &[u8], p: usize, want: &'static [u8]) -> Stop {
    for (i, w) in want.iter().enumerate() {
        match t.get(p + i) {
            None => return Stop::More,
            Some(c) if c == w => {}
            Some(_) => return Stop::Bad(p + i, core::str::from_utf8(want).unwrap_or("")),
        }
    }
    Stop::More
}

/// Where `want` ends, if it stands at `p`.
#[inline(always)]
fn gap(t: &[u8], p: usize, want: &[u8]) -> Option<usize> {
    let end = p + want.len();
    let have = t.get(p..end)?;
    for (a, b) in have.iter().zip(want) {
        if a != b {
            return None;
        }
    }
    Some(end)
}

/// Writes the shortest head.
#[inline(always)]
pub fn put_head(out: &mut [u8], n: usize, major: u8, arg: u64) -> Scan<usize> {
    let d = room::<9>(out, n).ok_or(Stop::Full)?;
    if arg < 24 {
        d[0] = major | arg as u8;
        return Ok(n + 1);
    }
    if arg < 0x100 {
        d[0] = major | 24;
        d[1] = arg as u8;
        return Ok(n + 2);
    }
    if arg < 0x1_0000 {
        d[0] = major | 25;
        d[1..3].copy_from_slice(&(arg as u16).to_be_bytes());
        return Ok(n + 3);
    }
    if arg < 0x1_0000_0000 {
        d[0] = major | 26;
        d[1..5].copy_from_slice(&(arg as u32).to_be_bytes());
        return Ok(n + 5);
    }
    d[0] = major | 27;
    d[1..9].copy_from_slice(&arg.to_be_bytes());
    Ok(n + 9)
}

/// As [`put_head`], where it need not be as fast as it can be.
#[inline(never)]
pub fn put_any_head(out: &mut [u8], n: usize, major: u8, arg: u64) -> Scan<usize> {
    put_head(out, n, major, arg)
}

/// Writes bytes as they are.
#[inline(never)]
pub fn put_bytes(out: &mut [u8], n: usize, s: &[u8]) -> Scan<usize> {
    let end = n + s.len();
    if end + 16 > out.len() {
        return Err(Stop::Full);
    }
    if s.len() > 256 {
        out[n..end].copy_from_slice(s);
        return Ok(end);
    }
    // The last eight bytes are written first, and perhaps again.
    let last = s.len().saturating_sub(8);
    if let (Some(w), Some(d)) = (chunk::<8>(s, last), room::<8>(out, n + last)) {
        *d = *w;
        let mut at = 0;
        while at < last {
            if let (Some(w), Some(d)) = (chunk::<8>(s, at), room::<8>(out, n + at)) {
                *d = *w;
            }
            at += 8;
        }
        return Ok(end);
    }
    for (d, b) in out[n..end].iter_mut().zip(s) {
        *d = *b;
    }
    Ok(end)
}

/// Writes a spelling as JSON in CBOR.
pub fn put_spelled(out: &mut [u8], n: usize, s: &[u8]) -> Scan<usize> {
    let n = put_bytes(out, n, &SPELLED)?;
    let n = put_any_head(out, n, 0x40, s.len() as u64)?;
    put_bytes(out, n, s)
}

/// Puts the head of a text of which `len` bytes lie behind `n + 2`: where it ends.
#[inline(always)]
fn put_text_head(out: &mut [u8], n: usize, len: usize) -> Scan<usize> {
    if n + len + 32 > out.len() {
        return Err(Stop::Full);
    }
    if len > 23 && len < 0x100 {
        out[n] = TEXT | 24;
        out[n + 1] = len as u8;
        return Ok(n + 2 + len);
    }
    let head = match len {
        0..=23 => 1,
        24..=0xffff => 3,
        _ => 5,
    };
    out.copy_within(n + 2..n + 2 + len, n + head);
    put_any_head(out, n, TEXT, len as u64)?;
    Ok(n + head + len)
}

/// Puts a head of more than one byte where one byte was left for it: where the output ends then.
#[cold]
#[inline(never)]
fn widen(out: &mut [u8], head: usize, n: usize, major: u8, count: u64) -> Scan<usize> {
    let wider = match count {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        _ => 4,
    };
    if n + 16 > out.len() {
        return Err(Stop::Full);
    }
    out.copy_within(head + 1..n, head + 1 + wider);
    put_any_head(out, head, major, count)?;
    Ok(n + wider)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is UTF-8 to core is so here, and refused at the same place.
    #[test]
    fn utf8_is_what_core_says() {
        let bytes = [
            0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee,
            0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff,
        ];
        let check = |s: &[u8]| {
            let want = core::str::from_utf8(s).map_err(|e| Stop::Bad(7 + e.valid_up_to(), "UTF-8"));
            assert_eq!(utf8(s, 7), want.map(|_| ()), "{s:x?}");
        };
        for a in bytes {
            for b in bytes {
                for c in bytes {
                    for d in bytes {
                        check(&[a, b, c, d]);
                        check(&[b'x', b'y', b'z', b'x', b'y', b'z', a, b, c, d, b'x']);
                    }
                }
            }
        }
        let mut all = String::new();
        for c in (0..0x11_0000).step_by(7).filter_map(char::from_u32) {
            all.push(c);
        }
        check(all.as_bytes());
    }
}
