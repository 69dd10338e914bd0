//! Where records begin and what they are called: patterns, keys, partitions.
//!
//! A key is a JSON Pointer (RFC 6901). Three tokens are no pointer's, so that they can not be mistaken
//! for a name: `~#2` at the end of a token tells a name from an equal one before it, `~"…"` is a name as
//! it is spelled, and `~end` is what stands behind an object or array.

use torpor::cbor::{Reader, ARRAY, TEXT};
use torpor::{Call, Result};

use crate::memory::Buf;

/// How many patterns there may be.
pub const MAX_PATTERNS: usize = 32;

/// How many objects and arrays may be opened inside one another.
pub const MAX_OPEN: usize = 32;

/// The token of the record of what stands behind an object or array.
pub const END: &[u8] = b"~end";

/// The settings of a part.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    patterns: [&'a str; MAX_PATTERNS],
    count: usize,
    partition: Partition<'a>,
    ids: [&'a str; MAX_PATTERNS],
    id_count: usize,
}

#[derive(Clone, Copy)]
enum Partition<'a> {
    /// By account and region, where the path or an ARN names them.
    Found,
    /// By an ARN alone.
    Arn,
    /// By segments of the path, or fixed.
    Template(&'a str),
}

const NAMES: [&str; 3] = ["id", "partition", "records"];

impl<'a> Settings<'a> {
    /// Reads the settings.
    pub fn of(call: &Call<'a>) -> Result<Settings<'a>> {
        let mut s = Settings {
            patterns: [""; MAX_PATTERNS],
            count: 0,
            partition: Partition::Found,
            ids: [""; MAX_PATTERNS],
            id_count: 1,
        };
        s.ids[0] = "id";
        call.settings(&NAMES, |name, value| match name {
            "records" => {
                let want = "a path such as /streams/*, or 1 to 32 of them,";
                s.count = texts(value, &mut s.patterns).ok_or_else(|| Call::wrong_setting(name, want))?;
                let sound = |p: &&str| (p.is_empty() || p.starts_with('/')) && p.split('/').count() <= MAX_OPEN;
                if s.count == 0 || !s.patterns[..s.count].iter().all(|p| sound(&p) && pointer(p)) {
                    return Err(Call::wrong_setting(name, want));
                }
                Ok(())
            }
            "partition" => {
                let mut value = value;
                let text = value.text().ok().filter(|t| t.len() <= 1024 && value.end().is_ok() && template(t));
                let want = "\"arn\", a template such as {2}/{3}, or a text of up to 1024 bytes";
                s.partition = match text {
                    Some("arn") => Partition::Arn,
                    Some(t) => Partition::Template(t),
                    None => return Err(Call::wrong_setting(name, want)),
                };
                Ok(())
            }
            _ => {
                s.id_count = texts(value, &mut s.ids)
                    .ok_or_else(|| Call::wrong_setting(name, "a name, or up to 32 of them,"))?;
                if s.id_count == 1 && s.ids[0].is_empty() {
                    s.id_count = 0;
                }
                Ok(())
            }
        })?;
        Ok(s)
    }

    /// The members that name an entry of an array.
    pub fn ids(&self) -> &[&'a str] {
        &self.ids[..self.id_count]
    }

    /// The place of the root.
    pub fn root(&self) -> Place {
        Place {
            patterns: (1u64 << self.count).wrapping_sub(1) as u32,
            depth: 0,
            levels: 0,
            account: (0, 0),
            region: (0, 0),
        }
    }

    /// Whether an object or array at this place is opened, so that its entries are records.
    pub fn opens(&self, place: &Place, in_array: bool) -> bool {
        if place.depth as usize >= MAX_OPEN {
            return false;
        }
        if self.count == 0 {
            return place.levels < 2 && !in_array;
        }
        self.patterns[..self.count]
            .iter()
            .enumerate()
            .any(|(i, p)| place.patterns >> i & 1 == 1 && p.matches('/').count() > place.depth as usize)
    }

    /// The place of an entry whose path is `path`; its last token begins behind `parent`.
    pub fn enter(&self, place: &Place, path: &[u8], parent: usize) -> Place {
        let token = &path[parent + 1..];
        let mut next = *place;
        next.depth += 1;
        let mut i = 0;
        while i < self.count {
            let segment = self.patterns[i].split('/').nth(next.depth as usize);
            if !segment.map_or(false, |s| s == "*" || s.as_bytes() == token) {
                next.patterns &= !(1 << i);
            }
            i += 1;
        }
        let range = (parent as u32 + 1, path.len() as u32);
        if is_account(token) {
            next.account = range;
        } else if is_region(token) {
            next.region = range;
        } else {
            next.levels = next.levels.saturating_add(1);
        }
        next
    }

    /// Adds the partition of a record at `place`, whose path is `path` and whose own token begins behind
    /// `parent`. False if it is too long.
    pub fn partition<const P: usize>(&self, place: &Place, path: &[u8], parent: usize, out: &mut Buf<P>) -> bool {
        out.clear();
        let token = path.get(parent + 1..).unwrap_or(&[]);
        match self.partition {
            Partition::Template(t) => {
                let mut rest = t;
                while let Some(at) = rest.find('{') {
                    let end = rest[at..].find('}').unwrap_or(0) + at;
                    let which = rest[at + 1..end].parse::<usize>().unwrap_or(0);
                    let mut segments = path.split(|b| *b == b'/');
                    match segments.nth(which) {
                        Some(s) => {
                            out.extend(rest[..at].as_bytes());
                            unescape(s, out);
                        }
                        None => {
                            out.clear();
                            return true;
                        }
                    }
                    rest = &rest[end + 1..];
                }
                out.extend(rest.as_bytes());
            }
            Partition::Found if place.account.1 > 0 && place.region.1 > 0 => {
                out.extend(&path[place.account.0 as usize..place.account.1 as usize]);
                out.push(b'/');
                out.extend(&path[place.region.0 as usize..place.region.1 as usize]);
            }
            _ => {
                if let Some((account, region)) = arn(token) {
                    out.extend(account);
                    out.push(b'/');
                    out.extend(region);
                }
            }
        }
        !out.is_full() && out.len() <= torpor::MAX_PARTITION_BYTES
    }

    /// Whether the entries of an object at this place are never opened and have all one partition, as long
    /// as their names are no account's, region's or ARN's.
    pub fn plain(&self, place: &Place) -> bool {
        let fixed = match self.partition {
            Partition::Template(t) => !t.contains('{'),
            _ => true,
        };
        let depth = place.depth as usize + 1;
        let deeper = |i: usize| place.patterns >> i & 1 == 1 && self.patterns[i].matches('/').count() > depth;
        let opens = if self.count == 0 { place.levels == 0 } else { (0..self.count).any(deeper) };
        fixed && (!opens || depth >= MAX_OPEN)
    }

    /// Whether all records of an object at this place have its partition, whatever their names.
    pub fn same_partition(&self, place: &Place) -> bool {
        matches!(self.partition, Partition::Found) && place.account.1 > 0 && place.region.1 > 0
    }
}

/// Where an object or array stands, as far as settings ask.
#[derive(Clone, Copy)]
pub struct Place {
    patterns: u32, // a bit for each that matches so far
    depth: u16,
    levels: u16,         // of depth, without those of accounts and regions
    account: (u32, u32), // where it is in the path
    region: (u32, u32),
}

impl Place {
    pub const NONE: Place = Place { patterns: 0, depth: 0, levels: 0, account: (0, 0), region: (0, 0) };
}

/// A text, or an array of texts: how many there are.
fn texts<'a>(mut value: Reader<'a>, into: &mut [&'a str]) -> Option<usize> {
    let n = match value.major() {
        Some(ARRAY) => value.array().ok()?,
        Some(TEXT) => 1,
        _ => return None,
    };
    for i in 0..n {
        *into.get_mut(i)? = value.text().ok()?;
    }
    value.end().ok()?;
    Some(n)
}

/// Whether a path has no `~` but in `~0` and `~1`.
fn pointer(p: &str) -> bool {
    p.split('~').skip(1).all(|after| after.starts_with('0') || after.starts_with('1'))
}

/// Whether braces stand around numbers from 1, and nowhere else.
fn template(t: &str) -> bool {
    let mut rest = t;
    while let Some(at) = rest.find(|c| c == '{' || c == '}') {
        match rest[at + 1..].find('}') {
            Some(n) if rest.as_bytes()[at] == b'{' => {
                if !matches!(rest[at + 1..at + 1 + n].parse::<u8>(), Ok(1..=32)) {
                    return false;
                }
                rest = &rest[at + n + 2..];
            }
            _ => return false,
        }
    }
    true
}

/// Twelve digits: an account.
pub fn is_account(s: &[u8]) -> bool {
    s.len() == 12 && s.iter().all(|b| b.is_ascii_digit())
}

/// A region, such as `eu-west-1` or `us-gov-east-1`: small letters and hyphens, and a digit behind the last.
pub fn is_region(s: &[u8]) -> bool {
    if s.len() < 9 || s.len() > 20 || !s[s.len() - 1].is_ascii_digit() || s[s.len() - 2] != b'-' || s[2] != b'-' {
        return false;
    }
    let name = &s[..s.len() - 2];
    let hyphens = name.iter().filter(|b| **b == b'-').count();
    (1..=2).contains(&hyphens) && name.iter().all(|b| b.is_ascii_lowercase() || *b == b'-')
}

/// Whether a name can be none of those that partitions come from: an account, a region, an ARN.
#[inline(always)]
pub fn is_plain(s: &[u8]) -> bool {
    match s {
        [b'0'..=b'9', ..] => s.len() != 12,
        [b'a', b'r', b'n', ..] => false,
        [_, _, b'-', .., b'-', b'0'..=b'9'] => false,
        _ => true,
    }
}

/// Account and region of an ARN, such as `arn:aws:kinesis:eu-west-1:111122223333:stream~1eu`.
fn arn(s: &[u8]) -> Option<(&[u8], &[u8])> {
    if !s.starts_with(b"arn:") {
        return None;
    }
    let mut parts = s.split(|b| *b == b':').skip(3);
    let region = parts.next()?;
    let account = parts.next()?;
    parts.next()?;
    if is_account(account) && is_region(region) {
        return Some((account, region));
    }
    None
}

/// Adds a name as a token.
pub fn escape<const N: usize>(name: &[u8], path: &mut Buf<N>) {
    if !crate::word::has(name, b'~') && !crate::word::has(name, b'/') {
        return path.extend(name);
    }
    for b in name {
        match b {
            b'~' => path.extend(b"~0"),
            b'/' => path.extend(b"~1"),
            b => path.push(*b),
        }
    }
}

/// Adds the name that a token stands for.
pub fn unescape<const N: usize>(token: &[u8], name: &mut Buf<N>) {
    let mut rest = token;
    while let Some(at) = rest.iter().position(|b| *b == b'~') {
        name.extend(&rest[..at]);
        match rest.get(at + 1) {
            Some(b'0') => name.push(b'~'),
            Some(b'1') => name.push(b'/'),
            _ => return,
        }
        rest = &rest[at + 2..];
    }
    name.extend(rest);
}

/// A token without what tells it from an equal one: `~#` and a number.
pub fn plain(token: &[u8]) -> &[u8] {
    let digits = token.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    match token[..token.len() - digits].strip_suffix(b"~#") {
        Some(plain) if digits > 0 => plain,
        _ => token,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_regions_arns() {
        assert!(is_account(b"000000000000") && !is_account(b"00000000000") && !is_account(b"00000000000a"));
        for r in ["us-east-1", "ap-southeast-2", "us-gov-east-1", "me-south-1", "us-iso-west-1"] {
            assert!(is_region(r.as_bytes()), "{r}");
        }
        for r in ["", "us-east", "orders-2020-1", "a-1", "US-EAST-1", "eu-west-11", "dead-letter-1"] {
            assert!(!is_region(r.as_bytes()), "{r}");
        }
        let (account, region) = arn(b"arn:aws:kinesis:eu-west-1:111122223333:stream~1eu").unwrap();
        assert_eq!((account, region), (&b"111122223333"[..], &b"eu-west-1"[..]));
        for no in [
            &b"arn:aws:s3:::bucket"[..],
            b"arn:aws:iam::111122223333:user",
            b"arn:",
            b"arn:aws:sqs:eu-west-1:111122223333",
        ] {
            assert!(arn(no).is_none());
        }
    }

    #[test]
    fn tokens() {
        for name in ["", "a", "a/b~c", "~", "/", "~1"] {
            let (mut token, mut back) = (Buf::<32>::new(), Buf::<32>::new());
            escape(name.as_bytes(), &mut token);
            unescape(token.get(), &mut back);
            assert_eq!(back.get(), name.as_bytes());
        }
        assert_eq!(plain(b"a~#12"), b"a");
        assert_eq!([plain(b"a~#"), plain(b"a12"), plain(b"~0#1"), plain(b"")], [&b"a~#"[..], b"a12", b"~0#1", b""]);
    }

    #[test]
    fn templates() {
        for t in ["", "fixed", "{1}", "{2}/{3}", "a{1}b"] {
            assert!(template(t), "{t}");
        }
        for t in ["{", "}", "{}", "{0}", "{a}", "{1", "1}", "{33}", "{{1}}"] {
            assert!(!template(t), "{t}");
        }
    }
}
