//! Readable keys: what an entry is called in its container.

use torpor::cbor::{Reader, TEXT};

use crate::form::MAX_SEGMENT;
use crate::names::Names;
use crate::node::{Arena, Kind};

/// The text that a node is, if it is one.
#[inline(never)]
pub fn text_of<'a>(a: &'a Arena, names: &'a Names, node: u32) -> Option<&'a [u8]> {
    let n = a.get(node);
    match n.kind {
        Kind::Name => Some(names.text(n.a)),
        Kind::Raw => {
            let mut r = Reader::new(a.raw(n.a, n.b));
            while r.major() == Some(torpor::cbor::TAG) {
                r.tag().ok()?;
            }
            if r.major() == Some(TEXT) {
                return r.text().ok().map(|t| t.as_bytes());
            }
            None
        }
        _ => None,
    }
}

/// Adds a text in quotes.
#[inline(never)]
fn quote(out: &mut String, s: &str) {
    out.push('"');
    if s.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\' && b != 0x7f) {
        out.push_str(s);
        out.push('"');
        return;
    }
    for c in s.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                out.push_str("\\u00");
                for d in [c as u32 >> 4, c as u32 & 15] {
                    out.push(char::from_digit(d, 16).unwrap_or('0'));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn is_name(s: &[u8]) -> bool {
    let start = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    !s.is_empty() && start(s[0]) && s.iter().all(|b| start(*b) || b.is_ascii_digit())
}

/// Adds an atom, and says whether it was one.
fn atom(out: &mut String, a: &Arena, names: &Names, node: u32) -> bool {
    if let Some(t) = text_of(a, names, node) {
        quote(out, &String::from_utf8_lossy(t));
        return true;
    }
    let n = a.get(node);
    let inline;
    let bytes = match n.kind {
        Kind::Inline => {
            inline = n.inline();
            &inline.0[..inline.1]
        }
        Kind::Raw => a.raw(n.a, n.b),
        Kind::EmptyTuple => {
            out.push_str("()");
            return true;
        }
        _ => return false,
    };
    match bytes {
        [0xf4] => out.push_str("False"),
        [0xf5] => out.push_str("True"),
        [0xf6] => out.push_str("None"),
        [0xfb, b @ ..] if b.len() == 8 => {
            let mut w = [0; 8];
            w.copy_from_slice(b);
            let mut f = Vec::new();
            crate::number::float(&mut f, f64::from_bits(u64::from_be_bytes(w)));
            out.push_str(&String::from_utf8_lossy(&f));
        }
        _ => match Reader::new(bytes).int() {
            Ok(v) => {
                if v < 0 {
                    out.push('-');
                }
                number(out, v.unsigned_abs());
            }
            Err(_) => {
                let mut r = Reader::new(bytes);
                while r.major() == Some(torpor::cbor::TAG) {
                    let _ = r.tag();
                }
                match r.bytes() {
                    Ok(b) => {
                        out.push_str("0x");
                        for b in b.iter().take(MAX_SEGMENT) {
                            for d in [b >> 4, b & 15] {
                                out.push(char::from_digit(d as u32, 16).unwrap_or('0'));
                            }
                        }
                    }
                    Err(_) => return false,
                }
            }
        },
    }
    true
}

/// Adds a number in decimal.
#[inline(never)]
pub fn number(out: &mut String, n: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = n;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.push_str(std::str::from_utf8(&digits[at..]).unwrap_or(""));
}

/// Adds what an entry with this key is called: `.name` of an attribute, else `["key"]`. `index` is its
/// place in the container.
#[inline(never)]
pub fn segment(out: &mut String, a: &Arena, names: &Names, key: u32, attribute: bool, index: u64) {
    if attribute {
        if let Some(t) = text_of(a, names, key) {
            if is_name(t) && t.len() <= MAX_SEGMENT {
                out.push('.');
                out.push_str(std::str::from_utf8(t).unwrap_or(""));
                return;
            }
        }
    }
    let mut s = String::new();
    if !atom(&mut s, a, names, key) {
        let n = a.get(key);
        s.clear();
        let mut simple = n.kind == Kind::Tuple && n.n <= 16;
        if simple {
            s.push('(');
            let mut at = n.a;
            while at != crate::node::NIL {
                simple &= atom(&mut s, a, names, at);
                at = a.get(at).next;
                s.push_str(if at == crate::node::NIL { ")" } else { ", " });
            }
        }
        if !simple {
            s.clear();
            s.push('#');
            number(&mut s, index);
        }
    }
    out.push('[');
    cut(out, &s);
    out.push(']');
}

/// Adds `s`, or if it is long its beginning and its hash.
#[inline(never)]
fn cut(out: &mut String, s: &str) {
    if s.len() <= MAX_SEGMENT {
        out.push_str(s);
        return;
    }
    let mut n = MAX_SEGMENT - 20;
    while !s.is_char_boundary(n) {
        n -= 1;
    }
    out.push_str(&s[..n]);
    out.push('~');
    let mut h = 0xcbf2_9ce4_8422_2325_u64;
    for b in s.as_bytes() {
        h = (h ^ *b as u64).wrapping_mul(0x0100_0000_01b3);
    }
    for i in (0..16).rev() {
        out.push(char::from_digit((h >> (4 * i)) as u32 & 15, 16).unwrap_or('0'));
    }
}

/// Whether a key looks like the number of an account.
pub fn is_account(s: &[u8]) -> bool {
    s.len() == 12 && s.iter().all(u8::is_ascii_digit)
}

/// Whether a key under an account looks like a region.
pub fn is_region(s: &[u8]) -> bool {
    (2..=32).contains(&s.len()) && s.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}
