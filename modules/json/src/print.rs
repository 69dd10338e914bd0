//! CBOR into JSON: one value at a time, from memory to memory.

use crate::guess::Place as Expected;
use crate::number;
use crate::scan::{look, put_bytes, skip_string, Scan, Scanner, Stop, FALSE, LOOK_BYTES, NULL, TRUE};
use crate::style::{put, Place};
use crate::word::{below, chunk, name16, room, sixteen, sound, special, under, unlike, word, HIGH};

/// Room that is made sure of before each token that is no string.
const ROOM: usize = 64;

/// How deep an item may nest: as deep as in a record.
const MAX_ITEMS: usize = 64;

/// The head at `p`: its argument, and where what follows it begins.
#[inline(always)]
pub fn head(v: &[u8], p: usize) -> Scan<(u64, usize)> {
    let first = *v.get(p).ok_or(Stop::More)?;
    let info = first & 0x1f;
    if info < 24 {
        return Ok((info as u64, p + 1));
    }
    let (arg, size) = match info {
        24 => (chunk::<1>(v, p + 1).map(|a| a[0] as u64), 1),
        25 => (chunk(v, p + 1).map(|a| u16::from_be_bytes(*a) as u64), 2),
        26 => (chunk(v, p + 1).map(|a| u32::from_be_bytes(*a) as u64), 4),
        27 => (chunk(v, p + 1).map(|a| u64::from_be_bytes(*a)), 8),
        _ => return Err(Stop::Bad(p, "a definite length")),
    };
    Ok((arg.ok_or(Stop::More)?, p + 1 + size))
}

/// The string of `major` type at `p`: its content, and where it ends.
#[inline(always)]
pub fn string<'a>(v: &'a [u8], p: usize, major: u8, what: &'static str) -> Scan<(&'a [u8], usize)> {
    let (len, from) = head(v, p)?;
    if v[p] >> 5 != major {
        return Err(Stop::Bad(p, what));
    }
    if len > (v.len() - from) as u64 {
        return Err(Stop::More);
    }
    let end = from + len as usize;
    Ok((&v[from..end], end))
}

/// Where the item at `p` ends, which is as this serializer writes them.
pub fn pass(v: &[u8], p: usize) -> Scan<usize> {
    let mut p = p;
    let mut left = 1usize; // items still to come
    let mut next = p + LOOK_BYTES;
    while left > 0 {
        if p > next {
            look();
            next = p + LOOK_BYTES;
        }
        let (arg, from) = head(v, p)?;
        let arg = arg as usize;
        left -= 1;
        match v[p] >> 5 {
            2 | 3 => p = from.saturating_add(arg),
            4 => (p, left) = (from, left.saturating_add(arg)),
            5 => (p, left) = (from, left.saturating_add(arg).saturating_add(arg)),
            6 => (p, left) = (from, left + 1),
            _ => p = from,
        }
    }
    Ok(p)
}

/// Prints the item at `p` of `v` at `n` of `out`: where both end. `outer` brackets are open around it.
pub fn value(s: &mut Scanner, v: &[u8], p: usize, out: &mut [u8], n: usize, outer: usize) -> Scan<(usize, usize)> {
    if s.style.compact {
        run::<true>(s, v, p, out, n, outer)
    } else {
        run::<false>(s, v, p, out, n, outer)
    }
}

fn run<const COMPACT: bool>(
    s: &mut Scanner,
    v: &[u8],
    p: usize,
    out: &mut [u8],
    n: usize,
    outer: usize,
) -> Scan<(usize, usize)> {
    let (mut p, mut n) = (p, n);
    let mut depth = 0;
    let mut stack = [0u32; MAX_ITEMS]; // entries still to come, of those around
    let mut left = 0u32; // and of the innermost
    let mut objects = 0u64;
    let mut next = p + LOOK_BYTES;
    let mut expected = s.names.begin();
    'value: loop {
        if p > next {
            look();
            next = p + LOOK_BYTES;
        }
        let first = *v.get(p).ok_or(Stop::More)?;
        if n + ROOM > out.len() {
            return Err(Stop::Full);
        }
        match first >> 5 {
            3 => {
                let (q, m) = print_text(s, v, p, out, n)?;
                p = q;
                n = m;
            }
            0 => {
                let (arg, q) = head(v, p)?;
                n = number::write_int(out, n, arg)?;
                p = q;
            }
            4 | 5 => {
                let (count, q) = head(v, p)?;
                let object = first >> 5 == 5;
                let brackets = if object { *b"{}" } else { *b"[]" };
                p = q;
                out[n] = brackets[0];
                n += 1;
                if count == 0 {
                    out[n] = brackets[1];
                    n += 1;
                } else {
                    if depth == MAX_ITEMS || count > 1 << 30 {
                        return Err(Stop::Bad(p, "an item as in a record"));
                    }
                    stack[depth] = left;
                    depth += 1;
                    left = count as u32;
                    objects = objects << 1 | object as u64;
                    if !COMPACT {
                        n = s.style.put(Place::Open, outer + depth, out, n).ok_or(Stop::Full)?;
                    }
                    if object {
                        let (q, m) =
                            if COMPACT { name(s, v, p, out, n, &mut expected)? } else { spaced_name(s, v, p, out, n)? };
                        p = q;
                        n = m;
                    }
                    continue 'value;
                }
            }
            1 => {
                let (arg, q) = head(v, p)?;
                p = q;
                n = match arg.checked_add(1) {
                    Some(arg) => {
                        out[n] = b'-';
                        number::write_int(out, n + 1, arg)?
                    }
                    None => put_bytes(out, n, b"-18446744073709551616")?,
                };
            }
            7 => {
                let (word, len): (&[u8], usize) = match first {
                    TRUE => (b"true\0\0\0\0", 4),
                    FALSE => (b"false\0\0\0", 5),
                    NULL => (b"null\0\0\0\0", 4),
                    _ => (b"", 0),
                };
                if len > 0 {
                    if let (Some(d), Some(w)) = (room::<8>(out, n), chunk::<8>(word, 0)) {
                        *d = *w;
                    }
                    p += 1;
                    n += len;
                } else {
                    let (f, q) = float(v, p)?;
                    n = number::write_float(out, n, f)?;
                    p = q;
                }
            }
            _ => {
                let (spelling, q) = spelled(v, p)?;
                if n + spelling.len() + 16 > out.len() {
                    return Err(Stop::Full);
                }
                if !s.is_value(spelling, outer + depth) {
                    return Err(Stop::Bad(p, "JSON in tag 262"));
                }
                n = put_bytes(out, n, spelling)?;
                p = q;
            }
        }
        loop {
            if depth == 0 {
                return Ok((p, n));
            }
            if n + ROOM > out.len() {
                return Err(Stop::Full);
            }
            let object = objects & 1 == 1;
            left -= 1;
            if left > 0 {
                out[n] = b',';
                n += 1;
                if !COMPACT {
                    n = s.style.put(Place::Comma, outer + depth, out, n).ok_or(Stop::Full)?;
                }
                if object {
                    let (q, m) =
                        if COMPACT { name(s, v, p, out, n, &mut expected)? } else { spaced_name(s, v, p, out, n)? };
                    p = q;
                    n = m;
                }
                continue 'value;
            }
            if !COMPACT {
                n = s.style.put(Place::Close, outer + depth, out, n).ok_or(Stop::Full)?;
            }
            *out.get_mut(n).ok_or(Stop::Full)? = if object { b'}' } else { b']' };
            n += 1;
            depth -= 1;
            objects >>= 1;
            left = stack[depth % MAX_ITEMS];
        }
    }
}

/// The name at `p` and a colon.
#[inline(always)]
fn name(s: &mut Scanner, v: &[u8], p: usize, out: &mut [u8], n: usize, place: &mut Expected) -> Scan<(usize, usize)> {
    if let (Some(v), Some(d)) = (chunk::<72>(v, p), room::<72>(out, n)) {
        if let Some((read, written)) = s.names.take(place, v, d) {
            return Ok((p + read, n + written));
        }
    }
    other_name(s, v, p, out, n, place)
}

/// A name that was not expected.
#[inline(never)]
fn other_name(
    s: &mut Scanner,
    v: &[u8],
    p: usize,
    out: &mut [u8],
    n: usize,
    place: &mut Expected,
) -> Scan<(usize, usize)> {
    if let (Some(v), Some(d)) = (chunk::<72>(v, p), room::<72>(out, n)) {
        if let Some((read, written)) = s.names.take_other(place, v, d) {
            return Ok((p + read, n + written));
        }
    }
    let first = *v.get(p).ok_or(Stop::More)?;
    let (q, mut m) = if first >> 5 == 3 { print_text(s, v, p, out, n)? } else { spelled_name(v, p, out, n)? };
    *out.get_mut(m).ok_or(Stop::Full)? = b':';
    m += 1;
    if matches!(first, 0x60..=0x78) && m - n == q - p + 2 - (first == 0x78) as usize {
        // Its text without escapes, between quotes.
        s.names.learn(place, &v[p..q], &out[n..m]);
    }
    Ok((q, m))
}

/// The name at `p` and a colon, with what stands around it.
#[inline(never)]
fn spaced_name(s: &Scanner, v: &[u8], p: usize, out: &mut [u8], n: usize) -> Scan<(usize, usize)> {
    let first = *v.get(p).ok_or(Stop::More)?;
    let (p, mut n) = if first >> 5 == 3 { print_text(s, v, p, out, n)? } else { spelled_name(v, p, out, n)? };
    n = put(out, n, s.style.before_colon.get()).ok_or(Stop::Full)?;
    *out.get_mut(n).ok_or(Stop::Full)? = b':';
    put(out, n + 1, s.style.colon.get()).map(|n| (p, n)).ok_or(Stop::Full)
}

#[cold]
#[inline(never)]
fn spelled_name(v: &[u8], p: usize, out: &mut [u8], n: usize) -> Scan<(usize, usize)> {
    let (spelling, q) = spelled(v, p)?;
    if !is_string(spelling) {
        return Err(Stop::Bad(p, "a name"));
    }
    Ok((q, put_bytes(out, n, spelling)?))
}

/// Whether it is a string of JSON and nothing else.
pub fn is_string(s: &[u8]) -> bool {
    s.starts_with(b"\"") && skip_string(s, 0) == Ok(s.len())
}

/// What is kept as it was spelled, at `p`, and where that ends.
#[cold]
#[inline(never)]
fn spelled(v: &[u8], p: usize) -> Scan<(&[u8], usize)> {
    let (tag, q) = head(v, p)?;
    if v[p] >> 5 != 6 || tag != 262 {
        return Err(Stop::Bad(p, "an item that stands for JSON"));
    }
    let (s, q) = string(v, q, 2, "a byte string")?;
    if s.is_empty() {
        return Err(Stop::Bad(p, "JSON in tag 262"));
    }
    Ok((s, q))
}

/// The float at `p`, of any width.
#[inline(always)]
fn float(v: &[u8], p: usize) -> Scan<(f64, usize)> {
    let (f, q) = match v[p] {
        0xfb => (number::float(v, p + 1).ok_or(Stop::More)?, p + 9),
        0xfa => (f32::from_bits(head(v, p)?.0 as u32) as f64, p + 5),
        0xf9 => {
            let bits = head(v, p)?.0 as u32;
            let (exponent, fraction) = (bits >> 10 & 31, bits & 1023);
            // Moved to where they are in a float of 32 bits, and scaled to its exponents.
            let f = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
            let f = if exponent == 31 { f32::NAN } else { f };
            debug_assert!(exponent > 0 || fraction == 0 || f > 0.0);
            (if bits >> 15 == 1 { -f } else { f } as f64, p + 3)
        }
        _ => return Err(Stop::Bad(p, "an item that stands for JSON")),
    };
    if !f.is_finite() {
        return Err(Stop::Bad(p, "a number that JSON has"));
    }
    Ok((f, q))
}

/// Prints the text at `p`.
#[inline(always)]
fn print_text(s: &Scanner, v: &[u8], p: usize, out: &mut [u8], n: usize) -> Scan<(usize, usize)> {
    if let (Some(t), Some(d)) = (chunk::<72>(v, p), room::<72>(out, n)) {
        let short = t[0] < 0x78;
        let len = if short { t[0] & 31 } else { t[1] } as usize;
        if short || (t[0] == 0x78 && len <= 64) {
            // A bit for each byte that is not as simple as most, and those of the text alone.
            let wanted = (1u64 << (len % 64)).wrapping_sub(1) | 0u64.wrapping_sub((len == 64) as u64);
            let from = 2 - short as usize;
            let mut odd;
            macro_rules! print {
                ($from:expr) => {
                    odd = text16(t, d, $from, 1) as u64;
                    if len > 16 {
                        odd |= (text16(t, d, $from + 16, 17) as u64) << 16;
                        if len > 32 {
                            odd |= (text16(t, d, $from + 32, 33) as u64) << 32;
                            if len > 48 {
                                odd |= (text16(t, d, $from + 48, 49) as u64) << 48;
                            }
                        }
                    }
                };
            }
            if short {
                print!(1);
            } else {
                print!(2);
            }
            if odd & wanted == 0 {
                d[0] = b'"';
                d[1 + len % 65] = b'"';
                return Ok((p + from + len, n + len + 2));
            }
        }
    }
    long(s, v, p, out, n)
}

/// Copies sixteen bytes of text and gives a bit for each that is not as simple as most.
#[inline(always)]
fn text16(t: &[u8; 72], d: &mut [u8; 72], from: usize, to: usize) -> u32 {
    let mut b = [0; 16];
    b.copy_from_slice(&t[from..from + 16]);
    d[to..to + 16].copy_from_slice(&b);
    unlike(&b)
}

/// Prints text of any kind.
#[inline(never)]
fn long(s: &Scanner, v: &[u8], p: usize, out: &mut [u8], n: usize) -> Scan<(usize, usize)> {
    let (len, from) = head(v, p)?;
    if len > (v.len() - from) as u64 {
        return Err(Stop::More);
    }
    let len = len as usize;
    let end = from + len;
    if n + len + 32 > out.len() {
        return Err(Stop::Full);
    }
    out[n] = b'"';
    let to = n + 1;
    let mut at = 0;
    let mut all = 0;
    while at < len {
        if at & (LOOK_BYTES - 1) == LOOK_BYTES - 16 {
            look();
        }
        let (t, d) = match (chunk::<16>(v, from + at), room::<16>(out, to + at)) {
            (Some(t), Some(d)) => (t, d),
            _ => return escaped(s, &v[from..end], 0, end, out, to),
        };
        *d = *t;
        let (marks, high) = sixteen(t);
        let left = len - at;
        let wanted = if left < 16 { (1 << left) - 1 } else { 0xffff };
        if marks & wanted != 0 {
            let at = if all == 0 { at } else { 0 };
            return escaped(s, &v[from..end], at, end, out, to);
        }
        all |= high & wanted;
        at += 16;
    }
    if all != 0 && s.style.ascii {
        return escaped(s, &v[from..end], 0, end, out, to);
    }
    out[to + len] = b'"';
    if all != 0 && !sound(out, to, to + len) {
        crate::scan::utf8(&v[from..end], from)?;
    }
    Ok((end, to + len + 1))
}

/// Prints text that needs escapes, or that is not ASCII, or that has no eight bytes behind it; `done` bytes
/// of it have been printed from `to` on. `end` is where its item ends.
#[inline(never)]
fn escaped(s: &Scanner, t: &[u8], done: usize, end: usize, out: &mut [u8], to: usize) -> Scan<(usize, usize)> {
    let mut at = done;
    let mut n = to + done;
    let mut all = 0;
    if s.style.ascii && !crate::word::is_ascii(t) {
        return ascii(t, end, out, to);
    }
    let mut next = LOOK_BYTES;
    loop {
        if at > next {
            look();
            next = at + LOOK_BYTES;
        }
        while let (Some(w), Some(d)) = (word(t, at), room::<8>(out, n)) {
            *d = w.to_le_bytes();
            let marks = special(w);
            if marks != 0 {
                all |= under(w, marks);
                at += below(marks);
                n += below(marks);
                break;
            }
            all |= w;
            at += 8;
            n += 8;
        }
        if n + 16 > out.len() {
            return Err(Stop::Full);
        }
        match t.get(at) {
            None => break,
            Some(c) if *c >= 0x20 && *c != b'"' && *c != b'\\' => {
                all |= (*c as u64) << 56;
                out[n] = *c;
                n += 1;
            }
            Some(c) => n = escape(*c, out, n),
        }
        at += 1;
    }
    if all & HIGH != 0 {
        crate::scan::utf8(t, end - t.len())?;
    }
    out[n] = b'"';
    Ok((end, n + 1))
}

/// Prints the escape of a byte; there is room for it.
fn escape(c: u8, out: &mut [u8], n: usize) -> usize {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let short = match c {
        b'"' | b'\\' => c,
        0x08 => b'b',
        0x09 => b't',
        0x0a => b'n',
        0x0c => b'f',
        0x0d => b'r',
        _ => {
            let long = [b'\\', b'u', b'0', b'0', DIGITS[(c >> 4) as usize], DIGITS[(c & 15) as usize]];
            out[n..n + 6].copy_from_slice(&long);
            return n + 6;
        }
    };
    out[n..n + 2].copy_from_slice(&[b'\\', short]);
    n + 2
}

/// Prints text with escapes for what is not ASCII.
#[inline(never)]
fn ascii(t: &[u8], end: usize, out: &mut [u8], to: usize) -> Scan<(usize, usize)> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut n = to;
    let mut at = 0;
    while at < t.len() {
        // Piece by piece, so that none takes long.
        look();
        let piece = &t[at..t.len().min(at + LOOK_BYTES)];
        let piece = match core::str::from_utf8(piece) {
            Ok(s) => s,
            // It may end inside a character.
            Err(e) if e.error_len().is_none() && at + piece.len() < t.len() => {
                core::str::from_utf8(&piece[..e.valid_up_to()]).unwrap_or("")
            }
            Err(e) => return Err(Stop::Bad(end - t.len() + at + e.valid_up_to(), "UTF-8")),
        };
        at += piece.len();
        for c in piece.chars() {
            if n + 16 > out.len() {
                return Err(Stop::Full);
            }
            if c >= '\u{80}' {
                let mut units = [0; 2];
                for u in c.encode_utf16(&mut units) {
                    let digit = |shift: u16| DIGITS[(*u >> shift & 15) as usize];
                    out[n..n + 6].copy_from_slice(&[b'\\', b'u', digit(12), digit(8), digit(4), digit(0)]);
                    n += 6;
                }
            } else if c < ' ' || c == '"' || c == '\\' {
                n = escape(c as u8, out, n);
            } else {
                out[n] = c as u8;
                n += 1;
            }
        }
    }
    if n + 16 > out.len() {
        return Err(Stop::Full);
    }
    out[n] = b'"';
    Ok((end, n + 1))
}

/// Prints the name from `from` to `end` and a colon; `None` if it is not as simple as most, or the token of
/// a key for something else.
#[inline(always)]
pub fn plain_name(v: &[u8], from: usize, end: usize, ascii: bool, out: &mut [u8], n: usize) -> Option<usize> {
    let len = end - from;
    *out.get_mut(n)? = b'"';
    let mut at = 0;
    let mut odd = false;
    while at < len {
        let s = chunk::<16>(v, from + at)?;
        *room::<16>(out, n + 1 + at)? = *s;
        let (marks, high, tokens) = name16(s);
        let left = len - at;
        let wanted = if left < 16 { (1 << left) - 1 } else { 0xffff };
        if (marks | tokens) & wanted != 0 {
            return None;
        }
        odd |= high & wanted != 0;
        at += 16;
    }
    let to = n + 1 + len;
    *room::<2>(out, to)? = *b"\":";
    if odd && (ascii || !sound(out, n + 1, to)) {
        return None;
    }
    Some(to + 2)
}

/// Prints a name or text that is no item: between quotes, in UTF-8.
pub fn quoted(s: &Scanner, t: &[u8], out: &mut [u8], n: usize) -> Scan<usize> {
    if n + t.len() + 24 > out.len() {
        return Err(Stop::Full);
    }
    out[n] = b'"';
    escaped(s, t, 0, t.len(), out, n + 1).map(|(_, n)| n)
}
