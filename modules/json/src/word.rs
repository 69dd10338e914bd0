//! Eight bytes at a time, in safe code: what the scanner and the printer spend their time on.

/// The lowest bit of each byte.
const LOW: u64 = 0x0101_0101_0101_0101;

/// The highest bit of each byte: set where a byte is not ASCII.
pub const HIGH: u64 = LOW << 7;

/// The `N` bytes at `p`, if they are there.
#[inline(always)]
pub fn chunk<const N: usize>(b: &[u8], p: usize) -> Option<&[u8; N]> {
    b.get(p..p.wrapping_add(N))?.try_into().ok()
}

/// Room for `N` bytes at `p`, if it is there.
#[inline(always)]
pub fn room<const N: usize>(b: &mut [u8], p: usize) -> Option<&mut [u8; N]> {
    b.get_mut(p..p.wrapping_add(N))?.try_into().ok()
}

/// The eight bytes at `p`, the first one lowest.
#[inline(always)]
pub fn word(b: &[u8], p: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*chunk(b, p)?))
}

/// The eight bytes at `k`, which is a constant within `N`.
#[inline(always)]
pub fn at<const N: usize>(s: &[u8; N], k: usize) -> u64 {
    let mut b = [0; 8];
    b.copy_from_slice(&s[k..k + 8]);
    u64::from_le_bytes(b)
}

/// Marks the highest bit of each byte that a JSON string may not hold as it is: a quote, a backslash, a
/// control character. Above the lowest mark others may be wrong.
#[inline(always)]
pub fn special(w: u64) -> u64 {
    let quote = w ^ (LOW * b'"' as u64);
    let back = w ^ (LOW * b'\\' as u64);
    (quote.wrapping_sub(LOW) & !quote | back.wrapping_sub(LOW) & !back | w.wrapping_sub(LOW * 0x20) & !w) & HIGH
}

/// Of sixteen bytes, a bit for each that a JSON string may not hold as it is, and a bit for each that is
/// not ASCII.
#[cfg(target_arch = "wasm32")]
#[inline(always)]
pub fn sixteen(s: &[u8; 16]) -> (u32, u32) {
    use core::arch::wasm32::{i8x16_bitmask, i8x16_eq, u64x2, u8x16_splat, v128_and, v128_or};
    let v = u64x2(at(s, 0), at(s, 8));
    let quote = i8x16_eq(v, u8x16_splat(b'"'));
    let back = i8x16_eq(v, u8x16_splat(b'\\'));
    let control = i8x16_eq(v128_and(v, u8x16_splat(0xe0)), u8x16_splat(0));
    (i8x16_bitmask(v128_or(v128_or(quote, back), control)) as u32, i8x16_bitmask(v) as u32)
}

/// Of sixteen bytes, a bit for each that a JSON string may not hold as it is, or that is not ASCII.
#[cfg(target_arch = "wasm32")]
#[inline(always)]
pub fn unlike(s: &[u8; 16]) -> u32 {
    use core::arch::wasm32::{i8x16_bitmask, i8x16_eq, u64x2, u8x16_splat, v128_and, v128_or};
    let v = u64x2(at(s, 0), at(s, 8));
    let quote = i8x16_eq(v, u8x16_splat(b'"'));
    let back = i8x16_eq(v, u8x16_splat(b'\\'));
    let control = i8x16_eq(v128_and(v, u8x16_splat(0xe0)), u8x16_splat(0));
    i8x16_bitmask(v128_or(v128_or(quote, back), v128_or(control, v))) as u32
}

#[cfg(not(target_arch = "wasm32"))]
#[inline(always)]
pub fn unlike(s: &[u8; 16]) -> u32 {
    let (marks, high) = sixteen(s);
    marks | high
}

/// Whether the first bytes of `a` are those of `b`, where the mask says so.
#[cfg(target_arch = "wasm32")]
#[inline(always)]
pub fn same(a: &[u8; 72], b: &[u8; 32], mask: &[u8; 32]) -> bool {
    use core::arch::wasm32::{u64x2, v128_and, v128_any_true, v128_or, v128_xor};
    let low = v128_and(v128_xor(u64x2(at(a, 0), at(a, 8)), u64x2(at(b, 0), at(b, 8))), u64x2(at(mask, 0), at(mask, 8)));
    let high =
        v128_and(v128_xor(u64x2(at(a, 16), at(a, 24)), u64x2(at(b, 16), at(b, 24))), u64x2(at(mask, 16), at(mask, 24)));
    !v128_any_true(v128_or(low, high))
}

#[cfg(not(target_arch = "wasm32"))]
pub fn same(a: &[u8; 72], b: &[u8; 32], mask: &[u8; 32]) -> bool {
    (0..32).all(|i| (a[i] ^ b[i]) & mask[i] == 0)
}

/// As [`sixteen`], and a bit for each byte that is something else in a token of a key.
#[cfg(target_arch = "wasm32")]
#[inline(always)]
pub fn name16(s: &[u8; 16]) -> (u32, u32, u32) {
    use core::arch::wasm32::{i8x16_bitmask, i8x16_eq, u64x2, u8x16_splat, v128_or};
    let v = u64x2(at(s, 0), at(s, 8));
    let (marks, high) = sixteen(s);
    let tokens = v128_or(i8x16_eq(v, u8x16_splat(b'~')), i8x16_eq(v, u8x16_splat(b'/')));
    (marks, high, i8x16_bitmask(tokens) as u32)
}

#[cfg(not(target_arch = "wasm32"))]
#[inline(always)]
pub fn name16(s: &[u8; 16]) -> (u32, u32, u32) {
    let (marks, high) = sixteen(s);
    (marks, high, s.iter().enumerate().fold(0, |all, (i, b)| all | ((*b == b'~' || *b == b'/') as u32) << i))
}

#[cfg(not(target_arch = "wasm32"))]
#[inline(always)]
pub fn sixteen(s: &[u8; 16]) -> (u32, u32) {
    let mut bits = (0, 0);
    for (i, b) in s.iter().enumerate() {
        bits.0 |= ((*b < 0x20 || *b == b'"' || *b == b'\\') as u32) << i;
        bits.1 |= ((*b >= 0x80) as u32) << i;
    }
    bits
}

/// Whether the bytes from `from` up to `end` are UTF-8; false also where it cannot tell. They must be part
/// of a text, between ASCII: a quote before and a quote behind.
///
/// Each byte is looked up by the halves of the one before it and by its own upper half; the three tables
/// have a bit in common for each way to be wrong (J. Keiser, D. Lemire, Validating UTF-8 In Less Than One
/// Instruction Per Byte).
#[cfg(target_arch = "wasm32")]
#[inline(never)]
pub fn sound(t: &[u8], from: usize, end: usize) -> bool {
    use core::arch::wasm32::*;
    const SHORT: u8 = 1; // a leading byte without another behind it
    const LONG: u8 = 2; // another byte behind ASCII
    const OVER_3: u8 = 4;
    const LARGE: u8 = 8;
    const HALF: u8 = 16; // of a surrogate pair
    const OVER_2: u8 = 32;
    const LARGE_OR_OVER_4: u8 = 64;
    const TWO: u8 = 128; // another byte behind another one: right in three and four
    const ANY: u8 = SHORT | LONG | TWO;
    const TOP: u8 = ANY | LARGE | LARGE_OR_OVER_4;
    if from < 3 {
        return false;
    }
    let load = |at: usize| chunk::<16>(t, at).map(|s| u64x2(crate::word::at(s, 0), crate::word::at(s, 8)));
    let low = u8x16_splat(15);
    let first_high = u8x16(
        LONG,
        LONG,
        LONG,
        LONG,
        LONG,
        LONG,
        LONG,
        LONG,
        TWO,
        TWO,
        TWO,
        TWO,
        SHORT | OVER_2,
        SHORT,
        SHORT | OVER_3 | HALF,
        SHORT | LARGE | LARGE_OR_OVER_4,
    );
    let first_low = u8x16(
        ANY | OVER_3 | OVER_2 | LARGE_OR_OVER_4,
        ANY | OVER_2,
        ANY,
        ANY,
        ANY | LARGE,
        TOP,
        TOP,
        TOP,
        TOP,
        TOP,
        TOP,
        TOP,
        TOP,
        TOP | HALF,
        TOP,
        TOP,
    );
    let second_high = u8x16(
        SHORT,
        SHORT,
        SHORT,
        SHORT,
        SHORT,
        SHORT,
        SHORT,
        SHORT,
        LONG | OVER_2 | TWO | OVER_3 | LARGE_OR_OVER_4,
        LONG | OVER_2 | TWO | OVER_3 | LARGE,
        LONG | OVER_2 | TWO | HALF | LARGE,
        LONG | OVER_2 | TWO | HALF | LARGE,
        SHORT,
        SHORT,
        SHORT,
        SHORT,
    );
    let mut at = from;
    // The quote behind is looked at too: no character may go on there.
    while at <= end {
        let (v, one, two, three) = match (load(at), load(at - 1), load(at - 2), load(at - 3)) {
            (Some(v), Some(one), Some(two), Some(three)) => (v, one, two, three),
            _ => return false,
        };
        let high = |v| v128_and(u16x8_shr(v, 4), low);
        let wrong = v128_and(
            v128_and(i8x16_swizzle(first_high, high(one)), i8x16_swizzle(first_low, v128_and(one, low))),
            i8x16_swizzle(second_high, high(v)),
        );
        // The third byte of three, and the third and fourth of four, must be such as go on.
        let further =
            v128_or(u8x16_sub_sat(two, u8x16_splat(0xe0 - 0x80)), u8x16_sub_sat(three, u8x16_splat(0xf0 - 0x80)));
        let wrong = v128_xor(v128_and(further, u8x16_splat(0x80)), wrong);
        let bits = !i8x16_bitmask(i8x16_eq(wrong, u8x16_splat(0))) as u32 & 0xffff;
        let left = end - at;
        if bits & if left < 15 { (2 << left) - 1 } else { 0xffff } != 0 {
            return false;
        }
        at += 16;
    }
    true
}

#[cfg(not(target_arch = "wasm32"))]
pub fn sound(_: &[u8], _: usize, _: usize) -> bool {
    false
}

/// How many bytes lie below the lowest mark.
#[inline(always)]
pub fn below(marks: u64) -> usize {
    marks.trailing_zeros() as usize >> 3
}

/// The bits of `w` below the lowest mark.
#[inline(always)]
pub fn under(w: u64, marks: u64) -> u64 {
    w & ((marks & marks.wrapping_neg()).wrapping_sub(1))
}

/// How many of eight bytes are decimal digits before the first that is none, and their value.
#[inline(always)]
pub fn digits(w: u64) -> (usize, u64) {
    let d = w ^ (LOW * b'0' as u64);
    let none = (d.wrapping_add(LOW * 0x76) | d) & HIGH;
    let n = if none == 0 { 8 } else { below(none) };
    if n == 0 {
        return (0, 0);
    }
    // The digits move up, so that zeros come before them; then pairs are joined, and pairs of pairs.
    let d = d << (64 - 8 * n);
    let d = d.wrapping_mul(10).wrapping_add(d >> 8) & 0x00ff_00ff_00ff_00ff;
    let d = d.wrapping_mul(100).wrapping_add(d >> 16) & 0x0000_ffff_0000_ffff;
    (n, d.wrapping_mul(10_000).wrapping_add(d >> 32) & 0xffff_ffff)
}

/// Whether a byte is among others.
#[inline(always)]
pub fn has(s: &[u8], byte: u8) -> bool {
    let want = LOW * byte as u64;
    let mut at = 0;
    while let Some(w) = word(s, at) {
        let x = w ^ want;
        if x.wrapping_sub(LOW) & !x & HIGH != 0 {
            return true;
        }
        at += 8;
    }
    s[at..].contains(&byte)
}

/// Whether a byte is one of two others.
#[inline(always)]
pub fn has_either(s: &[u8], a: u8, b: u8) -> bool {
    let marks = |w: u64| {
        let (x, y) = (w ^ (LOW * a as u64), w ^ (LOW * b as u64));
        (x.wrapping_sub(LOW) & !x | y.wrapping_sub(LOW) & !y) & HIGH
    };
    let mut at = 0;
    while let Some(w) = word(s, at) {
        if marks(w) != 0 {
            return true;
        }
        at += 8;
    }
    s[at..].iter().any(|c| *c == a || *c == b)
}

/// Whether both are the same bytes: mostly too few to be worth a call.
#[inline(always)]
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while let (Some(x), Some(y)) = (word(a, at), word(b, at)) {
        if x != y {
            return false;
        }
        at += 8;
    }
    a[at..].iter().zip(&b[at..]).all(|(x, y)| x == y)
}

/// Whether all bytes are ASCII.
pub fn is_ascii(s: &[u8]) -> bool {
    let mut at = 0;
    while let Some(w) = word(s, at) {
        if w & HIGH != 0 {
            return false;
        }
        at += 8;
    }
    s[at..].iter().fold(0, |all, b| all | *b) < 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_bytes() {
        for b in 0..=255u8 {
            for at in 0..8 {
                let mut s = *b"a\x80z\xffA\xc3 \x7f";
                s[at] = b;
                let marks = special(u64::from_le_bytes(s));
                let want = b == b'"' || b == b'\\' || b < 0x20;
                assert_eq!(marks != 0, want, "{b} at {at}");
                if want {
                    assert_eq!(below(marks), at);
                }
            }
        }
    }

    #[test]
    fn decimal_digits() {
        for (s, n, v) in [
            (b"12345678", 8, 12_345_678),
            (b"00000000", 8, 0),
            (b"99999999", 8, 99_999_999),
            (b"7,999999", 1, 7),
            (b"1234567/", 7, 1_234_567),
            (b"123:5678", 3, 123),
            (b"12\xb35678x", 2, 12),
            (b",2345678", 0, 0),
        ] {
            assert_eq!(digits(u64::from_le_bytes(*s)), (n, v));
        }
    }
}
