//! Numbers: which of them are numbers in a record too, and which are kept as they are spelled.
//!
//! A number becomes an integer or a float if that, written by the rules of [`write_float`], is spelled as
//! it was; so that nothing is lost and most numbers can still be read, compared and merged as numbers.

use core::fmt::Write;

use crate::scan::{look, put_head, put_spelled, Scan, Stop, FLOAT, LOOK_BYTES};
use crate::word::{at, chunk, digits, room, word};

/// Powers of ten that a float holds exactly.
const TENS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// Powers of ten up to those of eight digits.
const POWERS: [u64; 16] = {
    let mut t = [1; 16];
    let mut i = 1;
    while i < 16 {
        t[i] = t[i - 1] * 10;
        i += 1;
    }
    t
};

/// A number as many are, of up to seven digits and nothing else: how long it is, and in the lower half what it
/// is; 0 for any other.
#[inline(always)]
pub fn short(s: &[u8; 72]) -> u64 {
    let (len, v) = digits(at(s, 0));
    if len == 0 || len == 8 || (s[0] == b'0' && len > 1) || matches!(s[len], b'.' | b'e' | b'E') {
        return 0;
    }
    (len as u64) << 32 | v
}

/// The number at `p` of `t` as one item at `n` of `out`, in which there is room: where both end.
#[inline(never)]
pub fn scan(t: &[u8], p: usize, out: &mut [u8], n: usize) -> Scan<(usize, usize)> {
    let negative = t[p] == b'-';
    let from = p + negative as usize;
    if let Some(s) = chunk::<24>(t, from) {
        // Two words are 16 digits: few numbers have more.
        let (mut len, mut v) = digits(at(s, 0));
        if len == 8 {
            let (more, low) = digits(at(s, 8));
            v = v * POWERS[more] + low;
            len += more;
        }
        if len > 0 && len < 16 && (len == 1 || s[0] != b'0') {
            let c = s[len];
            if c != b'.' && c | 0x20 != b'e' && !(negative && v == 0) {
                let (major, arg) = if negative { (0x20, v - 1) } else { (0, v) };
                return Ok((from + len, put_head(out, n, major, arg)?));
            }
            if c == b'.' {
                if let Some(s) = chunk::<24>(t, from + len + 1) {
                    let (mut more, mut low) = digits(at(s, 0));
                    if more == 8 {
                        let (rest, lowest) = digits(at(s, 8));
                        low = low * POWERS[rest] + lowest;
                        more += rest;
                    }
                    if more > 0
                        && len + more < 16
                        && (s[more - 1] != b'0' || (more == 1 && !negative))
                        && s[more] | 0x20 != b'e'
                    {
                        let f = (v * POWERS[more] + low) as f64 / TENS[more];
                        put_float(out, n, if negative { -f } else { f })?;
                        return Ok((from + len + 1 + more, n + 9));
                    }
                }
            }
        }
    }
    any(t, p, out, n)
}

#[inline(always)]
fn put_float(out: &mut [u8], n: usize, f: f64) -> Scan<()> {
    let d = room::<9>(out, n).ok_or(Stop::Full)?;
    d[0] = FLOAT;
    d[1..9].copy_from_slice(&f.to_bits().to_be_bytes());
    Ok(())
}

/// A number of any kind.
#[inline(never)]
fn any(t: &[u8], p: usize, out: &mut [u8], n: usize) -> Scan<(usize, usize)> {
    let end = skip(t, p, false)?;
    let s = &t[p..end];
    if s.len() > 32 {
        return Ok((end, put_spelled(out, n, s)?));
    }
    let text = core::str::from_utf8(s).unwrap_or("");
    let unsigned = text.strip_prefix('-');
    if let Ok(v) = unsigned.unwrap_or(text).parse::<u64>() {
        match unsigned {
            None => return Ok((end, put_head(out, n, 0, v)?)),
            Some(_) if v > 0 => return Ok((end, put_head(out, n, 0x20, v - 1)?)),
            Some(_) => {}
        }
    } else if s.contains(&b'.') && !s.contains(&b'e') && !s.contains(&b'E') {
        if let Ok(f) = text.parse::<f64>() {
            let mut again = Decimal::new();
            if again.write(f) == text {
                put_float(out, n, f)?;
                return Ok((end, n + 9));
            }
        }
    }
    Ok((end, put_spelled(out, n, s)?))
}

/// Where the number at `p` ends; it may be the last of the text only if that is `whole`.
pub fn skip(t: &[u8], p: usize, whole: bool) -> Scan<usize> {
    let mut p = p + (t[p] == b'-') as usize;
    p = match t.get(p) {
        Some(b'0') => p + 1,
        _ => some_digits(t, p)?,
    };
    if let Some(b'.') = t.get(p) {
        p = some_digits(t, p + 1)?;
    }
    if let Some(b'e' | b'E') = t.get(p) {
        p += 1;
        if let Some(b'+' | b'-') = t.get(p) {
            p += 1;
        }
        p = some_digits(t, p)?;
    }
    match t.get(p) {
        Some(b'0'..=b'9') => Err(Stop::Bad(p, "no digit behind a zero that begins a number")),
        None if !whole => Err(Stop::More),
        _ => Ok(p),
    }
}

fn some_digits(t: &[u8], p: usize) -> Scan<usize> {
    let mut q = p;
    let mut next = p + LOOK_BYTES;
    while let Some(b'0'..=b'9') = t.get(q) {
        q += 1;
        if q > next {
            look();
            next = q + LOOK_BYTES;
        }
    }
    if q > p {
        return Ok(q);
    }
    Err(if q < t.len() { Stop::Bad(q, "a digit") } else { Stop::More })
}

/// Writes an integer; there is room for it.
#[inline(always)]
pub fn write_int(out: &mut [u8], n: usize, v: u64) -> Scan<usize> {
    if v < 10 {
        out[n] = b'0' + v as u8;
        return Ok(n + 1);
    }
    let d = room::<24>(out, n).ok_or(Stop::Full)?;
    if v < 100_000_000 {
        return Ok(n + no_zeros(d, v));
    }
    if v < 10_000_000_000_000_000 {
        let (high, low) = (v / 100_000_000, v % 100_000_000);
        let at = no_zeros(d, high);
        d[at..at + 8].copy_from_slice(&eight(low).to_le_bytes());
        return Ok(n + at + 8);
    }
    let (high, low) = (v / 10_000_000_000_000_000, v % 10_000_000_000_000_000);
    let at = no_zeros(d, high);
    d[at..at + 8].copy_from_slice(&eight(low / 100_000_000).to_le_bytes());
    d[at + 8..at + 16].copy_from_slice(&eight(low % 100_000_000).to_le_bytes());
    Ok(n + at + 16)
}

/// Up to eight digits, without zeros before them.
#[inline(always)]
fn no_zeros(d: &mut [u8; 24], v: u64) -> usize {
    let all = eight(v);
    let zeros = ((all & 0x0f0f_0f0f_0f0f_0f0f) | 1 << 63).trailing_zeros() as usize / 8;
    d[..8].copy_from_slice(&(all >> (8 * zeros)).to_le_bytes());
    8 - zeros
}

/// Eight digits as text, zeros before them: halves, pairs and digits are taken apart all at once.
#[inline(always)]
fn eight(v: u64) -> u64 {
    let v = v / 10_000 | (v % 10_000) << 32;
    let hundreds = (v * 5243 >> 19) & 0x7f_0000_007f; // by 100, up to 9,999
    let v = hundreds | (v - hundreds * 100) << 16;
    let tens = (v * 103 >> 10) & 0x000f_000f_000f_000f; // by 10, up to 99
    (tens | (v - tens * 10) << 8) | 0x3030_3030_3030_3030
}

/// Writes a float: the shortest decimal that is read as it, never with an exponent, with a point always.
#[inline(never)]
pub fn write_float(out: &mut [u8], n: usize, f: f64) -> Scan<usize> {
    let v = f.abs();
    if v < 1e15 {
        // As most floats in states are: a decimal of 15 digits at most. Such a decimal is the only one
        // that is read as its float, so the first that is found is the shortest.
        let mut k = 1;
        while k < 16 {
            let scaled = v * TENS[k];
            if scaled >= 1e15 {
                break;
            }
            let m = (scaled + 0.5) as u64;
            if m as f64 / TENS[k] == v {
                return decimal(out, n, f.is_sign_negative(), m, k);
            }
            k += 1;
        }
    }
    let mut d = Decimal::new();
    crate::scan::put_bytes(out, n, d.write(f).as_bytes())
}

/// Writes `m` with a point before its last `k` digits.
#[inline(always)]
fn decimal(out: &mut [u8], n: usize, negative: bool, m: u64, k: usize) -> Scan<usize> {
    let mut n = n;
    if n + 48 > out.len() {
        return Err(Stop::Full);
    }
    out[n] = b'-';
    n += negative as usize;
    n = write_int(out, n, m / POWERS[k])?;
    out[n] = b'.';
    // With a one before them, the digits keep the zeros that they begin with.
    let end = write_int(out, n, POWERS[k % 16] + m % POWERS[k])?;
    out[n] = b'.';
    Ok(end)
}

/// Text of a float, without an exponent: 330 bytes at most.
struct Decimal {
    bytes: [u8; 360],
    len: usize,
}

impl Decimal {
    fn new() -> Decimal {
        Decimal { bytes: [0; 360], len: 0 }
    }

    fn write(&mut self, f: f64) -> &str {
        let _ = write!(self, "{}", f);
        if !self.bytes[..self.len].contains(&b'.') {
            let _ = self.write_str(".0");
        }
        core::str::from_utf8(&self.bytes[..self.len]).unwrap_or("")
    }
}

impl Write for Decimal {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        let to = self.bytes.get_mut(self.len..self.len + s.len()).ok_or(core::fmt::Error)?;
        to.copy_from_slice(s.as_bytes());
        self.len += s.len();
        Ok(())
    }
}

/// The eight bytes of a float's bits.
pub fn float(v: &[u8], p: usize) -> Option<f64> {
    word(v, p).map(|w| f64::from_bits(w.swap_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(s: &str) -> Vec<u8> {
        let mut out = [0; 512];
        let padded = format!("{s}{}", "\0".repeat(80));
        let (end, n) = scan(padded.as_bytes(), 0, &mut out, 0).unwrap();
        assert_eq!(end, s.len());
        out[..n].to_vec()
    }

    fn text(f: f64) -> String {
        let mut out = [0; 512];
        let n = write_float(&mut out, 0, f).unwrap();
        String::from_utf8(out[..n].to_vec()).unwrap()
    }

    #[test]
    fn integers() {
        let mut v = 1u64;
        for _ in 0..20 {
            for v in [v - 1, v, v + 1, v * 9 % 1_000_003] {
                let mut out = [0; 64];
                let n = write_int(&mut out, 0, v).unwrap();
                assert_eq!(core::str::from_utf8(&out[..n]).unwrap(), v.to_string());
                let s = format!("{v},                        ");
                let mut cbor = [0; 64];
                let (end, _) = scan(s.as_bytes(), 0, &mut cbor, 0).unwrap();
                assert_eq!(end, v.to_string().len());
                assert!(cbor[0] < 0x1c, "{v}");
            }
            v = v.saturating_mul(10);
        }
        assert_eq!(item("18446744073709551615")[0], 0x1b);
        assert_eq!(item("-18446744073709551615")[0], 0x3b);
        assert_eq!(item("18446744073709551616")[0], 0xd9);
        assert_eq!(item("-0")[0], 0xd9);
        assert_eq!(item("-1"), [0x20]);
    }

    #[test]
    fn floats_come_back_as_spelled() {
        for s in [
            "0.5",
            "-0.5",
            "1.25",
            "1717727547.509",
            "0.001",
            "123456789012.345",
            "0.00000000000001",
            "12345678901234.5",
            "1795364424.956",
            "1700000000.1234567",
            "0.1",
            "0.30000000000000004",
            "0.000000000000001234",
            "99999999999999.9",
        ] {
            let cbor = item(s);
            assert_eq!(cbor[0], FLOAT, "{s}");
            assert_eq!(text(float(&cbor, 1).unwrap()), s);
            let padded = format!("{s},                              ");
            let mut out = [0; 64];
            let (end, n) = scan(padded.as_bytes(), 0, &mut out, 0).unwrap();
            assert_eq!((end, &out[..n]), (s.len(), &cbor[..]));
        }
        for s in ["1.0", "0.0", "-0.0", "-3.0", "123456.0"] {
            assert_eq!(text(float(&item(s), 1).unwrap()), s);
        }
        for s in [
            "1e5",
            "1.5e3",
            "1.50",
            "0.1000000000000000055511151231257827",
            "1E400",
            "1.5E1",
            "123456789012345678901234567890.5",
            "0.00000000000000000000000000000000000000001",
        ] {
            assert_eq!(item(s)[0], 0xd9, "{s}");
        }
        assert_eq!([text(3.0), text(-0.0), text(1e21)], ["3.0", "-0.0", "1000000000000000000000.0"]);
        assert_eq!(text(f64::MAX).len(), 311);
        let mut x = 1u64;
        for _ in 0..20_000 {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let f = (x >> 20) as f64 / TENS[(x % 16) as usize];
            let s = text(f);
            assert_eq!(s.parse::<f64>().unwrap(), f, "{s}");
            assert_eq!(s.trim_end_matches(".0"), f.to_string());
        }
    }
}
