//! The values of a row, as README.md's "Native form" has them.

use torpor::cbor::{Fault, Reason, ARRAY, BYTES, MAP, NEGATIVE, TEXT, UINT};

/// What a value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value<'a> {
    Null,
    Int(i64),
    /// The bits, so that it can be compared.
    Float(u64),
    Text(&'a str),
    Blob(&'a [u8]),
    /// Text whose bytes, in the database's encoding, are not valid.
    Raw(&'a [u8]),
    /// So many bytes follow in pieces, of text or of a blob.
    Long(u64, bool),
}

/// Reads the value at `at` of bytes that are known to be items, and gives its end.
pub fn read(data: &[u8], at: usize) -> Result<(Value<'_>, usize), Fault> {
    let short = Fault { at, reason: Reason::Short };
    let first = *data.get(at).ok_or(short)?;
    let no = |what| Err(Fault { at, reason: Reason::Expected(what, first) });
    match first {
        0xf6 => return Ok((Value::Null, at + 1)),
        0xfb => {
            let bits = data.get(at + 1..at + 9).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes).ok_or(short)?;
            if f64::from_bits(bits).is_nan() {
                return no("a number");
            }
            return Ok((Value::Float(bits), at + 9));
        }
        _ => {}
    }
    let (arg, next) = head(data, at)?.ok_or(short)?;
    let string = |from: usize, n: u64| data.get(from..from + n as usize).ok_or(short);
    match first >> 5 {
        UINT | NEGATIVE if arg > i64::MAX as u64 => no("an integer of 64 bits"),
        UINT => Ok((Value::Int(arg as i64), next)),
        NEGATIVE => Ok((Value::Int(-1 - arg as i64), next)),
        BYTES => Ok((Value::Blob(string(next, arg)?), next + arg as usize)),
        TEXT => match core::str::from_utf8(string(next, arg)?) {
            Ok(text) => Ok((Value::Text(text), next + arg as usize)),
            Err(_) => Err(Fault { at, reason: Reason::NotUtf8("value") }),
        },
        ARRAY if arg == 1 && data.get(next).map_or(false, |b| b >> 5 == BYTES) => {
            let (n, from) = head(data, next)?.ok_or(short)?;
            Ok((Value::Raw(string(from, n)?), from + n as usize))
        }
        MAP if arg == 1 => {
            let text = match data.get(next..next + 5) {
                Some([0x64, b't', b'e', b'x', b't']) => true,
                Some([0x64, b'b', b'l', b'o', b'b']) => false,
                _ => return no("a value in pieces of text or blob"),
            };
            let (n, end) = head(data, next + 5)?.ok_or(short)?;
            if data[next + 5] >> 5 != UINT || n == 0 || n > MAX_VALUE {
                return no("a value in pieces of 1 to 1000000000 bytes");
            }
            Ok((Value::Long(n, text), end))
        }
        _ => no("a value that SQLite has"),
    }
}

/// The most bytes of a value: SQLite's own limit.
const MAX_VALUE: u64 = 1_000_000_000;

/// The argument and the end of the head at `at`, or `None` if it is not all there. Its form has been
/// checked with the item's.
#[inline(always)]
pub fn head(data: &[u8], at: usize) -> Result<Option<(u64, usize)>, Fault> {
    let info = match data.get(at) {
        Some(b) => b & 31,
        None => return Ok(None),
    };
    if info < 24 {
        return Ok(Some((info as u64, at + 1)));
    }
    if info > 27 {
        return Err(Fault { at, reason: Reason::Indefinite });
    }
    let n = 1 << (info - 24);
    let bytes = match data.get(at + 1..at + 1 + n) {
        Some(b) => b,
        None => return Ok(None),
    };
    Ok(Some((bytes.iter().fold(0, |v, b| v << 8 | *b as u64), at + 1 + n)))
}
