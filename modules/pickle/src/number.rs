//! Numbers in text, as protocols 0 and 1 write them.

/// How many digits an int may have in text: reading and writing decimals takes time that grows with the
/// square of them.
pub const MAX_DIGITS: usize = 40_000;

/// The most bytes of an int that are written as text.
pub const MAX_DECIMAL_BYTES: usize = 16_640;

/// An int: 64 bits, or a magnitude, big-endian, and whether the value is -1 - magnitude.
pub enum Int {
    Small(i64),
    Big(Vec<u8>, bool),
}

/// From two's complement, little-endian.
#[inline(never)]
pub fn from_le(b: &[u8]) -> Int {
    let negative = b.last().map_or(false, |b| *b >= 0x80);
    if b.len() <= 8 {
        let mut w = [if negative { 0xff } else { 0 }; 8];
        w[..b.len()].copy_from_slice(b);
        return Int::Small(i64::from_le_bytes(w));
    }
    let mut mag: Vec<u8> = b.iter().rev().map(|b| if negative { !*b } else { *b }).collect();
    let zeros = mag.iter().take_while(|b| **b == 0).count();
    mag.drain(..zeros);
    normal(mag, negative)
}

/// From a magnitude without leading zeros.
fn normal(mag: Vec<u8>, negative: bool) -> Int {
    if mag.len() < 8 || (mag.len() == 8 && mag[0] < 0x80) {
        let v = mag.iter().fold(0i64, |v, b| v << 8 | *b as i64);
        return Int::Small(if negative { -1 - v } else { v });
    }
    Int::Big(mag, negative)
}

/// From decimal digits with a sign, blanks around and underscores between them, as Python's int() reads.
#[inline(never)]
pub fn parse(s: &[u8]) -> Option<Int> {
    let s = crate::text::trim(s);
    let (minus, digits) = match s {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, s),
    };
    if digits.is_empty() || digits[0] == b'_' || digits[digits.len() - 1] == b'_' {
        return None;
    }
    let mut limbs: Vec<u32> = Vec::new();
    let mut last = 0;
    let mut small: i64 = 0;
    let mut fits = true;
    for d in digits {
        let v = match *d {
            b'0'..=b'9' => *d - b'0',
            b'_' if last != b'_' => {
                last = b'_';
                continue;
            }
            _ => return None,
        };
        last = *d;
        if fits {
            match small.checked_mul(10).and_then(|x| x.checked_add(v as i64)) {
                Some(x) => {
                    small = x;
                    continue;
                }
                None => {
                    fits = false;
                    limbs.extend_from_slice(&[small as u32, (small as u64 >> 32) as u32]);
                }
            }
        }
        mul_add(&mut limbs, 10, v as u32);
    }
    if fits {
        return Some(Int::Small(if minus { -small } else { small }));
    }
    if minus {
        // -n is -1 - (n - 1)
        for l in limbs.iter_mut() {
            let (v, borrow) = l.overflowing_sub(1);
            *l = v;
            if !borrow {
                break;
            }
        }
    }
    let mut mag: Vec<u8> = limbs.iter().rev().flat_map(|l| l.to_be_bytes()).collect();
    let zeros = mag.iter().take_while(|b| **b == 0).count();
    mag.drain(..zeros);
    Some(normal(mag, minus))
}

fn mul_add(limbs: &mut Vec<u32>, by: u32, add: u32) {
    let mut carry = add as u64;
    for l in limbs.iter_mut() {
        let v = *l as u64 * by as u64 + carry;
        *l = v as u32;
        carry = v >> 32;
    }
    if carry > 0 {
        limbs.push(carry as u32);
    }
}

/// Writes an int in decimal.
#[inline(never)]
pub fn decimal(out: &mut Vec<u8>, magnitude: &[u8], negative: bool) {
    let mut limbs: Vec<u32> = magnitude.rchunks(4).map(|c| c.iter().fold(0u32, |v, b| v << 8 | *b as u32)).collect();
    if negative {
        out.push(b'-');
        let mut carry = true;
        for l in limbs.iter_mut() {
            if !carry {
                break;
            }
            let (v, c) = l.overflowing_add(1);
            *l = v;
            carry = c;
        }
        if carry {
            limbs.push(1);
        }
    }
    let mut groups: Vec<u32> = Vec::new();
    while let Some(top) = limbs.last() {
        if *top == 0 {
            limbs.pop();
            continue;
        }
        let mut rest = 0u64;
        for l in limbs.iter_mut().rev() {
            let v = rest << 32 | *l as u64;
            *l = (v / 1_000_000_000) as u32;
            rest = v % 1_000_000_000;
        }
        groups.push(rest as u32);
    }
    if groups.is_empty() {
        out.push(b'0');
    }
    for (i, g) in groups.iter().rev().enumerate() {
        let mut digits = [b'0'; 9];
        let mut v = *g;
        for d in digits.iter_mut().rev() {
            *d = b'0' + (v % 10) as u8;
            v /= 10;
        }
        let skip = if i == 0 { digits.iter().take_while(|d| **d == b'0').count().min(8) } else { 0 };
        out.extend_from_slice(&digits[skip..]);
    }
}

/// Reads a float as Python's float() does.
#[inline(never)]
pub fn parse_float(s: &[u8]) -> Option<f64> {
    let s = crate::text::trim(s);
    let t = std::str::from_utf8(s).ok()?;
    if t.is_empty() || !t.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-._".contains(&b)) || t.contains('_') {
        return None;
    }
    t.parse().ok()
}

/// Writes a float as Python's repr() does.
#[inline(never)]
pub fn float(out: &mut Vec<u8>, v: f64) {
    if v.is_nan() {
        return out.extend_from_slice(b"nan");
    }
    if v.is_infinite() {
        return out.extend_from_slice(if v < 0.0 { b"-inf" } else { b"inf" });
    }
    let s = format!("{:e}", v);
    let (mantissa, exp) = match s.split_once('e') {
        Some((m, e)) => (m, e.parse::<i32>().unwrap_or(0)),
        None => (&s[..], 0),
    };
    let (minus, mantissa) = match mantissa.strip_prefix('-') {
        Some(m) => (true, m),
        None => (false, mantissa),
    };
    let digits: Vec<u8> = mantissa.bytes().filter(|b| *b != b'.').collect();
    if minus {
        out.push(b'-');
    }
    if (-4..16).contains(&exp) {
        if exp < 0 {
            out.extend_from_slice(b"0.");
            out.resize(out.len() + (-exp - 1) as usize, b'0');
            out.extend_from_slice(&digits);
        } else {
            let whole = exp as usize + 1;
            for i in 0..whole.max(digits.len()) {
                if i == whole {
                    out.push(b'.');
                }
                out.push(*digits.get(i).unwrap_or(&b'0'));
            }
            if digits.len() <= whole {
                out.extend_from_slice(b".0");
            }
        }
        return;
    }
    out.push(digits[0]);
    if digits.len() > 1 {
        out.push(b'.');
        out.extend_from_slice(&digits[1..]);
    }
    out.push(b'e');
    out.push(if exp < 0 { b'-' } else { b'+' });
    let e = exp.unsigned_abs();
    if e < 10 {
        out.push(b'0');
    }
    out.extend_from_slice(e.to_string().as_bytes());
}
