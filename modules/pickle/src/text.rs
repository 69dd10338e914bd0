//! Text as Python has it: UTF-8 in which lone surrogates may stand.

/// The code point at the beginning of text that is UTF-8, or has lone surrogates, and its length.
pub fn decode(s: &[u8]) -> (u32, usize) {
    let more = |i: usize| (*s.get(i).unwrap_or(&0) & 0x3f) as u32;
    match s[0] {
        b @ 0..=0x7f => (b as u32, 1),
        b @ 0..=0xdf => ((b as u32 & 0x1f) << 6 | more(1), 2.min(s.len())),
        b @ 0..=0xef => ((b as u32 & 0xf) << 12 | more(1) << 6 | more(2), 3.min(s.len())),
        b => ((b as u32 & 7) << 18 | more(1) << 12 | more(2) << 6 | more(3), 4.min(s.len())),
    }
}

/// Adds a code point, which may be a surrogate.
pub fn encode(out: &mut Vec<u8>, c: u32) {
    let low = |shift: u32| 0x80 | (c >> shift & 0x3f) as u8;
    match c {
        0..=0x7f => out.push(c as u8),
        0..=0x7ff => out.extend_from_slice(&[0xc0 | (c >> 6) as u8, low(0)]),
        0..=0xffff => out.extend_from_slice(&[0xe0 | (c >> 12) as u8, low(6), low(0)]),
        _ => out.extend_from_slice(&[0xf0 | (c >> 18) as u8, low(12), low(6), low(0)]),
    }
}

/// Whether bytes are what Python decodes as UTF-8 with surrogatepass.
pub fn with_surrogates(s: &[u8]) -> bool {
    let mut at = 0;
    while at < s.len() {
        match std::str::from_utf8(&s[at..]) {
            Ok(_) => return true,
            Err(e) => {
                at += e.valid_up_to();
                match s.get(at..at + 3) {
                    Some([0xed, 0xa0..=0xbf, 0x80..=0xbf]) => at += 3,
                    _ => return false,
                }
            }
        }
    }
    true
}

/// Decodes the line of the opcode UNICODE, or says what is wrong with it.
pub fn raw_unicode_escape(line: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::with_capacity(line.len());
    let mut at = 0;
    while at < line.len() {
        let b = line[at];
        at += 1;
        if b != b'\\' {
            encode(&mut out, b as u32);
            continue;
        }
        let width = match line.get(at) {
            Some(b'u') => 4,
            Some(b'U') => 8,
            _ => {
                // A backslash, and the next byte stands for itself whatever it is.
                out.push(b'\\');
                if let Some(next) = line.get(at) {
                    encode(&mut out, *next as u32);
                    at += 1;
                }
                continue;
            }
        };
        let mut c = 0u32;
        for i in 1..=width {
            let digit = line.get(at + i).and_then(|d| (*d as char).to_digit(16));
            c = match digit {
                Some(d) if c >> 28 == 0 => c << 4 | d,
                _ => return Err("an escape that ends early"),
            };
        }
        if c > 0x10_ffff {
            return Err("an escape beyond Unicode");
        }
        at += 1 + width;
        encode(&mut out, c);
    }
    Ok(out)
}

/// Decodes the line of the opcode STRING: a quoted string with the escapes of Python's bytes.
pub fn quoted(line: &[u8]) -> Result<Vec<u8>, &'static str> {
    let line = trim(line);
    let inner = match line {
        [q @ (b'\'' | b'"'), inner @ .., last] if q == last => inner,
        _ => return Err("a string without its quotes"),
    };
    let mut out = Vec::with_capacity(inner.len());
    let mut at = 0;
    while at < inner.len() {
        let b = inner[at];
        at += 1;
        if b != b'\\' {
            out.push(b);
            continue;
        }
        let e = match inner.get(at) {
            Some(e) => *e,
            None => return Err("a backslash at the end of a string"),
        };
        at += 1;
        match e {
            b'\n' => {}
            b'\\' | b'\'' | b'"' => out.push(e),
            b'a' => out.push(7),
            b'b' => out.push(8),
            b't' => out.push(9),
            b'n' => out.push(10),
            b'v' => out.push(11),
            b'f' => out.push(12),
            b'r' => out.push(13),
            b'0'..=b'7' => {
                let mut v = (e - b'0') as u32;
                for _ in 0..2 {
                    match inner.get(at) {
                        Some(d @ b'0'..=b'7') => {
                            v = v << 3 | (*d - b'0') as u32;
                            at += 1;
                        }
                        _ => break,
                    }
                }
                out.push(v as u8);
            }
            b'x' => {
                let d = |i: usize| inner.get(i).and_then(|d| (*d as char).to_digit(16));
                match (d(at), d(at + 1)) {
                    (Some(h), Some(l)) => out.push((h << 4 | l) as u8),
                    _ => return Err("an escape \\x without two digits"),
                }
                at += 2;
            }
            _ => out.extend_from_slice(&[b'\\', e]),
        }
    }
    Ok(out)
}

/// Without blanks at both ends.
pub fn trim(mut s: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c, rest @ ..] = s {
        s = rest;
    }
    while let [rest @ .., b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c] = s {
        s = rest;
    }
    s
}
