//! Keys: what a record is, in SQL's words.

use core::fmt::Write;

use crate::sha256::Sha256;
use crate::value::Value;

/// A key of more bytes is cut, and ends with the hash of all of it.
pub const MAX_BYTES: usize = 4096;

/// How many bytes of a cut key stand before the hash, at most.
const CUT_BYTES: usize = 4000;

/// A key under way.
pub struct Builder {
    buf: [u8; MAX_BYTES],
    len: usize,
    over: bool,
    ended: bool,
    hash: Sha256,
}

impl Builder {
    pub const fn new() -> Builder {
        Builder { buf: [0; MAX_BYTES], len: 0, over: false, ended: false, hash: Sha256::zero() }
    }

    pub fn clear(&mut self) {
        self.len = 0;
        self.over = false;
        self.ended = false;
    }

    pub fn push(&mut self, s: &str) {
        let bytes = s.as_bytes();
        if !self.over {
            if bytes.len() <= MAX_BYTES - self.len {
                self.buf[self.len..self.len + bytes.len()].copy_from_slice(bytes);
                self.len += bytes.len();
                return;
            }
            self.over = true;
            self.hash.begin();
            self.hash.update(&self.buf[..self.len]);
            let n = floor(s, MAX_BYTES - self.len);
            self.buf[self.len..self.len + n].copy_from_slice(&bytes[..n]);
            self.len += n;
        }
        self.hash.update(bytes);
    }

    /// Ends the key. More may only be pushed after `clear`; ending it again gives the same.
    pub fn finish(&mut self) -> &str {
        if self.over && !self.ended {
            self.len = floor(core::str::from_utf8(&self.buf[..self.len]).unwrap_or(""), CUT_BYTES);
            let digest = self.hash.finish();
            self.over = false;
            self.push("…#");
            self.hex(&digest);
            self.ended = true;
        }
        core::str::from_utf8(&self.buf[..self.len]).unwrap_or("")
    }

    fn hex(&mut self, bytes: &[u8]) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for chunk in bytes.chunks(32) {
            let mut out = [0; 64];
            for (i, b) in chunk.iter().enumerate() {
                out[2 * i] = DIGITS[(b >> 4) as usize];
                out[2 * i + 1] = DIGITS[(b & 15) as usize];
            }
            self.push(core::str::from_utf8(&out[..2 * chunk.len()]).unwrap_or(""));
        }
    }

    pub fn int(&mut self, v: i64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        let mut rest = v.unsigned_abs();
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if v < 0 {
            self.push("-");
        }
        self.push(core::str::from_utf8(&digits[at..]).unwrap_or(""));
    }

    /// A text between `quote`s, doubled inside.
    pub fn quoted(&mut self, s: &str, quote: &str) {
        self.push(quote);
        let mut first = true;
        for part in s.split(quote) {
            if !first {
                self.push(quote);
                self.push(quote);
            }
            first = false;
            self.push(part);
        }
        self.push(quote);
    }

    /// A name, between quotation marks if SQL wants them.
    pub fn name(&mut self, s: &str) {
        if plain(s) {
            self.push(s);
        } else {
            self.quoted(s, "\"");
        }
    }

    /// A value as SQL writes it.
    pub fn value(&mut self, v: Value<'_>) {
        match v {
            Value::Null => self.push("NULL"),
            Value::Int(i) => self.int(i),
            Value::Float(bits) => {
                let f = f64::from_bits(bits);
                if f.is_infinite() {
                    self.push(if f > 0.0 { "9e999" } else { "-9e999" });
                } else {
                    let _ = write!(self, "{:?}", f); // never fails
                }
            }
            Value::Text(s) => self.quoted(s, "'"),
            Value::Blob(b) => {
                self.push("x'");
                self.hex(b);
                self.push("'");
            }
            Value::Raw(b) => {
                self.push("CAST(x'");
                self.hex(b);
                self.push("' AS TEXT)");
            }
            Value::Long(n, text) => {
                self.push(if text { "text of " } else { "blob of " });
                self.int(n as i64);
            }
        }
    }
}

impl Write for Builder {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        self.push(s);
        Ok(())
    }
}

/// The largest place of at most `at` bytes between characters.
fn floor(s: &str, at: usize) -> usize {
    let mut at = at.min(s.len());
    while !s.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Whether a name needs no quotation marks.
fn plain(s: &str) -> bool {
    let b = s.as_bytes();
    !b.is_empty()
        && !b[0].is_ascii_digit()
        && b.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'_' || *c >= 0x80)
        && !KEYWORDS.iter().any(|k| k.eq_ignore_ascii_case(s))
}

/// Takes a key apart: the database's name, with its quotation marks doubled as they stand there, and
/// what follows it.
pub fn split(key: &str) -> (Option<&str>, &str) {
    if let Some(end) = end_of_quoted(key) {
        if key[end..].starts_with('.') {
            return (Some(&key[1..end - 1]), &key[end + 1..]);
        }
    }
    (None, key)
}

/// Where a quoted name at the beginning ends.
fn end_of_quoted(s: &str) -> Option<usize> {
    let b = s.as_bytes();
    if b.first() != Some(&b'"') {
        return None;
    }
    let mut at = 1;
    while at < b.len() {
        if b[at] == b'"' {
            if b.get(at + 1) != Some(&b'"') {
                return Some(at + 1);
            }
            at += 1;
        }
        at += 1;
    }
    None
}

/// What a record is counted as: its table, or `schema`, or `pragma`.
pub fn kind(key: &str) -> &str {
    let (_, rest) = split(key);
    if rest.starts_with("schema ") {
        return "schema";
    }
    let name = match end_of_quoted(rest) {
        Some(end) => &rest[..end],
        None => rest.split('(').next().unwrap_or(""),
    };
    &name[..floor(name, 1024)]
}

/// The words that SQLite does not take as names, or not everywhere.
const KEYWORDS: [&str; 147] = [
    "ABORT",
    "ACTION",
    "ADD",
    "AFTER",
    "ALL",
    "ALTER",
    "ALWAYS",
    "ANALYZE",
    "AND",
    "AS",
    "ASC",
    "ATTACH",
    "AUTOINCREMENT",
    "BEFORE",
    "BEGIN",
    "BETWEEN",
    "BY",
    "CASCADE",
    "CASE",
    "CAST",
    "CHECK",
    "COLLATE",
    "COLUMN",
    "COMMIT",
    "CONFLICT",
    "CONSTRAINT",
    "CREATE",
    "CROSS",
    "CURRENT",
    "CURRENT_DATE",
    "CURRENT_TIME",
    "CURRENT_TIMESTAMP",
    "DATABASE",
    "DEFAULT",
    "DEFERRABLE",
    "DEFERRED",
    "DELETE",
    "DESC",
    "DETACH",
    "DISTINCT",
    "DO",
    "DROP",
    "EACH",
    "ELSE",
    "END",
    "ESCAPE",
    "EXCEPT",
    "EXCLUDE",
    "EXCLUSIVE",
    "EXISTS",
    "EXPLAIN",
    "FAIL",
    "FILTER",
    "FIRST",
    "FOLLOWING",
    "FOR",
    "FOREIGN",
    "FROM",
    "FULL",
    "GENERATED",
    "GLOB",
    "GROUP",
    "GROUPS",
    "HAVING",
    "IF",
    "IGNORE",
    "IMMEDIATE",
    "IN",
    "INDEX",
    "INDEXED",
    "INITIALLY",
    "INNER",
    "INSERT",
    "INSTEAD",
    "INTERSECT",
    "INTO",
    "IS",
    "ISNULL",
    "JOIN",
    "KEY",
    "LAST",
    "LEFT",
    "LIKE",
    "LIMIT",
    "MATCH",
    "MATERIALIZED",
    "NATURAL",
    "NO",
    "NOT",
    "NOTHING",
    "NOTNULL",
    "NULL",
    "NULLS",
    "OF",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OTHERS",
    "OUTER",
    "OVER",
    "PARTITION",
    "PLAN",
    "PRAGMA",
    "PRECEDING",
    "PRIMARY",
    "QUERY",
    "RAISE",
    "RANGE",
    "RECURSIVE",
    "REFERENCES",
    "REGEXP",
    "REINDEX",
    "RELEASE",
    "RENAME",
    "REPLACE",
    "RESTRICT",
    "RETURNING",
    "RIGHT",
    "ROLLBACK",
    "ROW",
    "ROWS",
    "SAVEPOINT",
    "SELECT",
    "SET",
    "TABLE",
    "TEMP",
    "TEMPORARY",
    "THEN",
    "TIES",
    "TO",
    "TRANSACTION",
    "TRIGGER",
    "UNBOUNDED",
    "UNION",
    "UNIQUE",
    "UPDATE",
    "USING",
    "VACUUM",
    "VALUES",
    "VIEW",
    "VIRTUAL",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
    "WITHOUT",
];
