//! Records into JSON.

use torpor::{Call, Code, Error, Input, Output, Result, Text};

use crate::memory::{Memory, BATCH_BYTES, MEMORY};
use crate::names::hash;
use crate::path::{plain, unescape, Settings, END, MAX_OPEN};
use crate::print;
use crate::save::{grow, BOM, MAX_RECORD_BYTES};
use crate::scan::{put_bytes, Scan, Stop, TRUE};
use crate::style::{is_space, put, Gap, Place, Style};
use crate::word::equal;

/// How many bytes may stand behind opened objects and arrays, together, where that is not as the style says.
const MAX_AFTER_BYTES: usize = MAX_RECORD_BYTES;

/// Reads records and writes JSON.
pub fn load(call: &Call<'_>, records: &mut Input<'_>, native: &mut Output<'_>) -> Result<()> {
    Settings::of(call)?;
    MEMORY.with(|m| {
        m.clear();
        run(&mut Loader::new(m), records, native)
    })
}

fn run(l: &mut Loader<'_>, records: &mut Input<'_>, native: &mut Output<'_>) -> Result<()> {
    // As save does: records are read where they lie, a long one is held.
    let (mut held, mut holds, mut at, mut base) = (Vec::new(), false, 0, 0);
    loop {
        let t = if holds { &held[at..] } else { records.bytes() };
        let (done, stop) = l.run(t);
        let left = t.len() - done;
        if holds {
            at += done;
        } else {
            records.consume(done);
            base = records.offset();
        }
        let here = base + at as u64;
        match stop {
            Stop::Full if l.n > 0 => {
                native.emit(&l.m.out.get()[..l.n], false)?;
                l.n = 0;
            }
            Stop::Full => {
                // Most records are not much shorter than their text.
                if l.m.out.grow(left + left / 4, usize::MAX).is_err() {
                    let msg = "a record too long as JSON for this serializer's memory";
                    return Err(Error::new(Code::TooLarge, msg).at(here));
                }
            }
            Stop::More if records.ended() => {
                if left > 0 {
                    return Err(Error::corrupt(here + left as u64, "the input ends inside a record"));
                }
                break;
            }
            Stop::More => {
                let want = left + left / 2 + 64;
                if !holds {
                    while records.bytes().len() < want && !records.is_full() && records.fill()? {}
                    if records.bytes().len() >= want || records.ended() {
                        continue;
                    }
                    holds = true;
                } else {
                    held.drain(..at);
                    base += at as u64;
                    at = 0;
                }
                let mut want = want;
                loop {
                    if held.len() > 2 * MAX_RECORD_BYTES || grow(&mut held, want + (256 << 10)).is_err() {
                        let msg = "a record too long for this serializer's memory";
                        return Err(Error::new(Code::TooLarge, msg).at(here));
                    }
                    loop {
                        held.extend_from_slice(records.bytes());
                        records.consume(records.bytes().len());
                        if held.len() >= want || !records.fill()? {
                            break;
                        }
                    }
                    // A record that is not all here is not printed, which takes longer than to see that.
                    match any_parts(&held, 0).and_then(|(_, _, v)| print::pass(&held, v)) {
                        Err(Stop::More) if !records.ended() => want += want / 2,
                        Ok(end) if end > held.len() && !records.ended() => want = want.max(end),
                        _ => break,
                    }
                }
            }
            stop => return Err(l.error(stop, here)),
        }
    }
    let end = base + at as u64;
    if !l.root {
        return Err(Error::corrupt(end, "there is no record of the root, whose key is empty"));
    }
    // What stands behind the last object or array may be too long for the output's memory.
    native.emit(&l.m.out.get()[..l.n], false)?;
    let mut spaced = None;
    for at in (0..l.level).rev() {
        let f = l.frames[at];
        if f.empty {
            native.emit(&l.spaces[f.inside.0..f.inside.1], false)?;
            l.frames[at].inside = (0, 0);
        }
        let n = l.end(at, spaced, 0).map_err(|stop| l.error(stop, end))?;
        native.emit(&l.m.out.get()[..n], false)?;
        let (from, to) = f.after.unwrap_or((0, 0));
        native.emit(&l.spaces[from..to], false)?;
        spaced = Some(f.after.is_some());
    }
    Ok(())
}

/// An object or array that is open.
#[derive(Clone, Copy)]
struct Frame {
    object: bool,
    empty: bool,                   // nothing has been written into it
    spaced: bool,                  // what stands behind its last entry has been written
    inside: (usize, usize),        // what stands in it if it stays empty, in `spaces`
    after: Option<(usize, usize)>, // and behind it
    path_end: usize,
    number: u64,  // of this object in the text, as save counts
    names: usize, // of open objects, when it was opened
    place: u64,   // from which on an entry of an array may stand
}

const NO_FRAME: Frame = Frame {
    object: false,
    empty: true,
    spaced: false,
    inside: (0, 0),
    after: None,
    path_end: 0,
    number: 0,
    names: 0,
    place: 0,
};

/// What a record says beside its value: white space that is not as the style says.
#[derive(Clone, Copy, Default)]
struct Options<'a> {
    before_name: Option<&'a [u8]>,
    before_colon: Option<&'a [u8]>,
    before: Option<&'a [u8]>,
    after: Option<&'a [u8]>,
    empty: Option<&'a [u8]>,
    style: Option<Style>,
}

impl Options<'_> {
    /// Refuses what is no white space, and what cannot be said of a value of this kind, at `v`.
    fn check(&self, v: usize, kind: &str, named: bool) -> Scan<()> {
        for s in [self.before_name, self.before_colon, self.before, self.after, self.empty].into_iter().flatten() {
            if !is_space(s) {
                return Err(Stop::Bad(v, "white space"));
            }
        }
        let of_name = self.before_name.or(self.before_colon).is_some();
        if (of_name && !named) || if kind == "value" { self.empty } else { self.after }.is_some() {
            return Err(Stop::Bad(v, "what can be said of such a value there"));
        }
        Ok(())
    }
}

struct Loader<'m> {
    m: &'m mut Memory,
    root: bool, // it has been read
    frames: [Frame; MAX_OPEN + 1],
    level: usize,
    objects: u64,
    spaces: Vec<u8>, // of frames
    n: usize,
    key: Text, // of a record that is wrong
}

const ORDER: &str = "a record behind that of the object or array it is in, with no other one's between";
const POINTER: &str = "a key that is a JSON Pointer";
const ONCE: &str = "one record of this key";
const PLACE: &str = "a place in the array behind that of the record before";

impl<'m> Loader<'m> {
    fn new(m: &'m mut Memory) -> Loader<'m> {
        m.scanner.style = Style::COMPACT;
        Loader {
            m,
            root: false,
            frames: [NO_FRAME; MAX_OPEN + 1],
            level: 0,
            objects: 0,
            spaces: Vec::new(),
            n: 0,
            key: Text::new(),
        }
    }

    /// Goes through `t` as far as it can: how much of it is done, and why it stopped.
    fn run(&mut self, t: &[u8]) -> (usize, Stop) {
        let mut p = 0;
        loop {
            if self.n >= BATCH_BYTES {
                return (p, Stop::Full);
            }
            let step = match self.quick(t, p) {
                Some(step) => step,
                None => self.record(t, p),
            };
            match step {
                Ok(q) => p = q,
                Err(stop) => {
                    if let (false, Ok((_, key, _))) = (matches!(stop, Stop::More | Stop::Full), any_parts(t, p)) {
                        self.key = Text::new().str(core::str::from_utf8(key).unwrap_or(""));
                    }
                    return (p, stop.from(p));
                }
            }
        }
    }

    /// A record as most are: of an entry of the innermost object or array, under a name without escapes or in its
    /// place, with nothing around it but what the style says. `None` if it is another one, with nothing done.
    #[inline(always)]
    fn quick(&mut self, t: &[u8], p: usize) -> Option<Scan<usize>> {
        if self.m.scanner.style.compact {
            self.quick_as::<true>(t, p)
        } else {
            self.quick_as::<false>(t, p)
        }
    }

    #[inline(always)]
    fn quick_as<const COMPACT: bool>(&mut self, t: &[u8], p: usize) -> Option<Scan<usize>> {
        let level = self.level;
        let f = self.frames.get(level.wrapping_sub(1))?;
        let (_, key, v) = parts(t, p).ok()?;
        let (end, empty, object, number) = (f.path_end, f.empty, f.object, f.number);
        if key.get(end) != Some(&b'/') || !equal(key.get(..end)?, self.m.path.get().get(..end)?) {
            return None;
        }
        if matches!(t.get(v), None | Some(0xd8)) {
            return None;
        }
        let token = &key[end + 1..];
        let place = if object { None } else { digits(token) };
        if place.map_or(false, |place| place < f.place) {
            return None;
        }
        let out = self.m.out.get();
        let style = &self.m.scanner.style;
        let mut n = self.n;
        out[n] = b',';
        n += !empty as usize;
        if !COMPACT {
            n = style.put(if empty { Place::Open } else { Place::Comma }, level, out, n)?;
        }
        if place.is_none() {
            let named = print::plain_name(t, v - token.len(), v, style.ascii, out, n)?;
            if object {
                n = named;
            } else if !token.contains(&b'=') {
                return None; // what has been printed is not kept
            }
            if object && !COMPACT {
                n = put(out, n - 1, style.before_colon.get())?;
                *out.get_mut(n)? = b':';
                n = put(out, n + 1, style.colon.get())?;
            }
        }
        let (q, n) = match print::value(&mut self.m.scanner, t, v, out, n, level) {
            Ok(ends) => ends,
            Err(stop) => return Some(Err(stop)),
        };
        if place.is_none() && !self.m.names.once(hash(number, token)) {
            return Some(Err(Stop::Bad(p, ONCE)));
        }
        self.n = n;
        let f = &mut self.frames[level - 1];
        f.empty = false;
        f.spaced = false;
        f.place = place.map_or(f.place, |place| place + 1);
        Some(Ok(q))
    }

    /// One record.
    #[inline(never)]
    fn record(&mut self, t: &[u8], p: usize) -> Scan<usize> {
        let (at, key, v) = any_parts(t, p)?;
        let slash = match key.iter().rposition(|b| *b == b'/') {
            Some(slash) => slash,
            None if key.is_empty() => return self.read_root(t, p, v),
            None => return Err(Stop::Bad(at, POINTER)),
        };
        let token = &key[slash + 1..];
        let mut level = self.level;
        while level > 0 {
            let end = self.frames[level - 1].path_end;
            if end == slash && self.m.path.get()[..end] == key[..end] {
                break;
            }
            level -= 1;
        }
        if level == 0 {
            return Err(Stop::Bad(p, ORDER));
        }
        let (n, spaced) = if level < self.level { self.close(level, self.n)? } else { (self.n, false) };
        let f = self.frames[level - 1];
        if token == END {
            return self.read_end(t, p, v, level, n, spaced);
        }
        if *t.get(v).ok_or(Stop::More)? != 0xd8 {
            // As most are: a value, spaced as the style says.
            let mut n = self.separator(f, level, None, n)?;
            if f.object {
                n = self.put_name(token, at, n)?;
                n = put_bytes(self.m.out.get(), n, self.m.scanner.style.before_colon.get())?;
                n = put_bytes(self.m.out.get(), n, b":")?;
                n = put_bytes(self.m.out.get(), n, self.m.scanner.style.colon.get())?;
            }
            let (end, n) = print::value(&mut self.m.scanner, t, v, self.m.out.get(), n, level)?;
            self.told(p, level, token, false)?;
            self.n = n;
            return Ok(end);
        }
        self.read_special(t, p, v, at, key, slash, level, n)
    }

    /// Keeps that an entry has been written, which is then the last one, if it may stand there.
    fn told(&mut self, p: usize, level: usize, token: &[u8], spaced: bool) -> Scan<()> {
        self.closed(level);
        let f = &mut self.frames[level - 1];
        let name = plain(token);
        if !f.object && name.iter().all(u8::is_ascii_digit) {
            let place = core::str::from_utf8(name).unwrap_or("").parse::<u64>().ok();
            match place.filter(|place| *place >= f.place) {
                Some(place) => f.place = place.saturating_add(1),
                None => return Err(Stop::Bad(p, PLACE)),
            }
        } else if !f.object && !name.contains(&b'=') {
            return Err(Stop::Bad(p, PLACE));
        } else if name.len() == token.len() && !self.m.names.once(hash(f.number, token)) {
            return Err(Stop::Bad(p, ONCE));
        }
        f.empty = false;
        f.spaced = spaced;
        Ok(())
    }

    /// Keeps that what is more than `level` deep has been closed.
    #[inline(always)]
    fn closed(&mut self, level: usize) {
        if level < self.level {
            self.m.names.close(self.frames[level].names);
            self.level = level;
        }
    }

    /// A record whose value is more than a value: an object or array that is opened, or one that is spaced
    /// otherwise.
    #[cold]
    #[inline(never)]
    #[allow(clippy::too_many_arguments)]
    fn read_special(
        &mut self,
        t: &[u8],
        p: usize,
        v: usize,
        at: usize,
        key: &[u8],
        slash: usize,
        level: usize,
        n: usize,
    ) -> Scan<usize> {
        let f = self.frames[level - 1];
        let (kind, o, q) = options(t, v)?;
        if o.style.is_some() {
            return Err(Stop::Bad(v, "no style but in the root"));
        }
        o.check(v, kind, f.object)?;
        let token = &key[slash + 1..];
        let first = if f.object { o.before_name } else { o.before };
        let mut n = self.separator(f, level, first, n)?;
        if f.object {
            let style = self.m.scanner.style;
            n = self.put_name(token, at, n)?;
            n = put_bytes(self.m.out.get(), n, o.before_colon.unwrap_or_else(|| style.before_colon.get()))?;
            n = put_bytes(self.m.out.get(), n, b":")?;
            n = put_bytes(self.m.out.get(), n, o.before.unwrap_or_else(|| style.colon.get()))?;
        }
        if kind == "value" {
            let (end, n) = print::value(&mut self.m.scanner, t, q, self.m.out.get(), n, level)?;
            let n = put_bytes(self.m.out.get(), n, o.after.unwrap_or(b""))?;
            self.told(p, level, token, o.after.is_some())?;
            self.n = n;
            return Ok(end);
        }
        if level > MAX_OPEN {
            return Err(Stop::Bad(v, "no more than 32 objects and arrays opened in one another"));
        }
        let n = put_bytes(self.m.out.get(), n, if kind == "object" { b"{" } else { b"[" })?;
        self.told(p, level, token, false)?;
        self.n = n;
        let path_end = f.path_end;
        self.m.path.truncate(path_end);
        self.m.path.extend(&key[path_end..]);
        self.push(v, kind == "object", o.empty)?;
        Ok(q)
    }

    /// Opens an object or array, of which a record at `p` speaks.
    fn push(&mut self, p: usize, object: bool, inside: Option<&[u8]>) -> Scan<()> {
        let inside = self.keep(p, inside.unwrap_or(b""))?;
        self.objects += 1;
        self.frames[self.level] = Frame {
            object,
            inside,
            path_end: self.m.path.len(),
            number: self.objects,
            names: self.m.names.open(),
            ..NO_FRAME
        };
        self.level += 1;
        Ok(())
    }

    /// Keeps white space until the frames that are open are closed: where in `spaces` it is.
    fn keep(&mut self, p: usize, space: &[u8]) -> Scan<(usize, usize)> {
        let from = self.kept();
        self.spaces.truncate(from);
        let to = from + space.len();
        if to > MAX_AFTER_BYTES || grow(&mut self.spaces, to).is_err() {
            return Err(Stop::Large(
                p,
                "more white space than 64 MiB, or than there is memory for, behind objects and arrays",
            ));
        }
        self.spaces.extend_from_slice(space);
        Ok((from, to))
    }

    /// How much of `spaces` is of frames that are open.
    fn kept(&self) -> usize {
        self.frames[..self.level].iter().map(|f| f.inside.1.max(f.after.map_or(0, |a| a.1))).max().unwrap_or(0)
    }

    /// The root, which comes first.
    #[cold]
    #[inline(never)]
    fn read_root(&mut self, t: &[u8], p: usize, v: usize) -> Scan<usize> {
        if self.root {
            return Err(Stop::Bad(p, "one record of the root"));
        }
        if *t.get(v).ok_or(Stop::More)? != 0xd8 {
            let (end, n) = print::value(&mut self.m.scanner, t, v, self.m.out.get(), self.n, 0)?;
            self.n = n;
            self.root = true;
            return Ok(end);
        }
        let (kind, o, q) = options(t, v)?;
        let before = o.before.unwrap_or(b"");
        Options { before: before.strip_prefix(BOM).or(o.before), ..o }.check(v, kind, false)?;
        self.m.scanner.style = o.style.unwrap_or(Style::COMPACT);
        let n = put_bytes(self.m.out.get(), self.n, before)?;
        if kind == "value" {
            let (end, n) = print::value(&mut self.m.scanner, t, q, self.m.out.get(), n, 0)?;
            self.n = put_bytes(self.m.out.get(), n, o.after.unwrap_or(b""))?;
            self.root = true;
            return Ok(end);
        }
        self.n = put_bytes(self.m.out.get(), n, if kind == "object" { b"{" } else { b"[" })?;
        self.root = true;
        self.push(v, kind == "object", o.empty)?;
        Ok(q)
    }

    /// What stands behind an object or array that is still open, when it will have been closed.
    #[cold]
    #[inline(never)]
    fn read_end(&mut self, t: &[u8], p: usize, v: usize, level: usize, n: usize, spaced: bool) -> Scan<usize> {
        let (s, end) = print::string(t, v, 3, "white space")?;
        if !is_space(s) {
            return Err(Stop::Bad(v, "white space"));
        }
        let closed = level < self.level;
        self.closed(level);
        self.n = n;
        if self.frames[level - 1].after.is_some() {
            return Err(Stop::Bad(p, ONCE));
        }
        let after = self.keep(v, s)?;
        let f = &mut self.frames[level - 1];
        f.spaced = if closed { spaced } else { f.spaced };
        f.after = Some(after);
        Ok(end)
    }

    /// Ends all objects and arrays that are more than `level` deep: where the output ends, and whether what
    /// stands behind the last of them was written.
    #[inline(never)]
    fn close(&mut self, level: usize, n: usize) -> Scan<(usize, bool)> {
        let mut n = n;
        let mut spaced = None; // of the innermost one as it was
        for at in (level..self.level).rev() {
            n = self.end(at, spaced, n)?;
            let f = self.frames[at];
            if let Some((from, to)) = f.after {
                n = put_bytes(self.m.out.get(), n, &self.spaces[from..to])?;
            }
            spaced = Some(f.after.is_some());
        }
        Ok((n, spaced.unwrap_or(false)))
    }

    /// Ends an object or array; `spaced` is whether what stands behind the one in it was written, if there was
    /// one just before.
    fn end(&mut self, at: usize, spaced: Option<bool>, n: usize) -> Scan<usize> {
        let f = self.frames[at];
        let mut n = n;
        if f.empty {
            n = put_bytes(self.m.out.get(), n, &self.spaces[f.inside.0..f.inside.1])?;
        } else if !spaced.unwrap_or(f.spaced) {
            n = self.m.scanner.style.put(Place::Close, at + 1, self.m.out.get(), n).ok_or(Stop::Full)?;
        }
        put_bytes(self.m.out.get(), n, if f.object { b"}" } else { b"]" })
    }

    /// A comma if one is due, and the white space before an entry.
    #[inline(never)]
    fn separator(&mut self, f: Frame, level: usize, space: Option<&[u8]>, n: usize) -> Scan<usize> {
        let mut n = n;
        if !f.empty {
            n = put_bytes(self.m.out.get(), n, b",")?;
        }
        match space {
            Some(s) => put_bytes(self.m.out.get(), n, s),
            None if self.m.scanner.style.compact => Ok(n),
            None => {
                let place = if f.empty { Place::Open } else { Place::Comma };
                self.m.scanner.style.put(place, level, self.m.out.get(), n).ok_or(Stop::Full)
            }
        }
    }

    /// The name that a token stands for, in quotes.
    #[inline(never)]
    fn put_name(&mut self, token: &[u8], at: usize, n: usize) -> Scan<usize> {
        if !token.contains(&b'~') {
            return print::quoted(&self.m.scanner, token, self.m.out.get(), n);
        }
        let token = plain(token);
        let (name, is_spelled) = match token.strip_prefix(b"~\"") {
            Some(_) => (&token[1..], true),
            None => (token, false),
        };
        for (i, b) in name.iter().enumerate() {
            if *b == b'~' && !matches!(name.get(i + 1), Some(b'0' | b'1')) {
                return Err(Stop::Bad(at, POINTER));
            }
        }
        self.m.name.clear();
        unescape(name, &mut self.m.name);
        if !is_spelled {
            return print::quoted(&self.m.scanner, self.m.name.get(), self.m.out.get(), n);
        }
        if !print::is_string(self.m.name.get()) {
            return Err(Stop::Bad(at, "a name in quotes"));
        }
        put_bytes(self.m.out.get(), n, self.m.name.get())
    }

    #[cold]
    fn error(&self, stop: Stop, base: u64) -> Error {
        let (code, at, msg) = match stop {
            Stop::Bad(at, what) => (
                Code::Corrupt,
                at,
                Text::new().str("not as this serializer writes records: ").str(what).str(" expected"),
            ),
            Stop::Deep(at) => (Code::TooLarge, at, Text::new().str("nested too deep")),
            Stop::Large(at, what) => (Code::TooLarge, at, Text::new().str(what)),
            Stop::More | Stop::Full => (Code::Internal, 0, Text::new().str("the scan stopped")),
        };
        Error::new(code, msg).at(base + at as u64).path(self.key)
    }
}

/// As [`parts`], where it need not be as fast as it can be.
#[inline(never)]
fn any_parts(t: &[u8], p: usize) -> Scan<(usize, &[u8], usize)> {
    parts(t, p)
}

/// Where the key of the record at `p` is, the key, and where the value begins.
#[inline(always)]
fn parts(t: &[u8], p: usize) -> Scan<(usize, &[u8], usize)> {
    if *t.get(p).ok_or(Stop::More)? != torpor::RECORD_HEAD {
        return Err(Stop::Bad(p, "a record"));
    }
    let (_, at) = print::string(t, p + 1, 3, "a partition in text")?;
    let (key, v) = print::string(t, at, 3, "a key in text")?;
    Ok((at, key, v))
}

/// The number that a token is, if it is one of at most 18 digits.
#[inline(always)]
fn digits(token: &[u8]) -> Option<u64> {
    let mut number = 0;
    for b in token {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number * 10 + digit as u64;
    }
    Some(number).filter(|_| matches!(token.len(), 1..=18))
}

/// Reads tag 27 at `v`: what it is, what it says, and where the value or the end is.
#[cold]
#[inline(never)]
fn options(t: &[u8], v: usize) -> Scan<(&str, Options<'_>, usize)> {
    let (tag, q) = print::head(t, v)?;
    if tag != 27 {
        return Err(Stop::Bad(v, "tag 27"));
    }
    let (items, q) = print::head(t, q).and_then(|(n, q)| match t[q - 1] >> 5 {
        4 => Ok((n, q)),
        _ => Err(Stop::Bad(q, "an array")),
    })?;
    let (kind, mut q) = print::string(t, q, 3, "text")?;
    let kind = core::str::from_utf8(kind).unwrap_or("");
    let mut o = Options::default();
    let sound = match kind {
        "object" | "array" => items == 1 || items == 2,
        "value" => items == 3,
        _ => false,
    };
    if !sound {
        return Err(Stop::Bad(v, "an object, an array or a value"));
    }
    if items == 1 {
        return Ok((kind, o, q));
    }
    let first = *t.get(q).ok_or(Stop::More)?;
    let (pairs, from) = print::head(t, q)?;
    if first >> 5 != 5 {
        return Err(Stop::Bad(q, "a map"));
    }
    q = from;
    let mut style = Style::COMPACT;
    let mut styled = false;
    for _ in 0..pairs {
        let (name, value) = print::string(t, q, 3, "text")?;
        let name = core::str::from_utf8(name).unwrap_or("");
        if name == "ascii" {
            if *t.get(value).ok_or(Stop::More)? != TRUE {
                return Err(Stop::Bad(value, "true"));
            }
            (style.ascii, styled) = (true, true);
            q = value + 1;
            continue;
        }
        let (s, end) = print::string(t, value, 3, "text")?;
        let gap = || Gap::new(s).ok_or(Stop::Bad(value, "up to 16 bytes of white space"));
        match name {
            "before_name" => o.before_name = Some(s),
            "before_colon" => o.before_colon = Some(s),
            "before" => o.before = Some(s),
            "after" => o.after = Some(s),
            "empty" => o.empty = Some(s),
            _ => {
                styled = true;
                match name {
                    "indent" => {
                        style.indented = true;
                        style.unit = gap()?;
                        if style.newline == Gap::NONE {
                            style.newline = Gap::new(b"\n").unwrap_or(Gap::NONE);
                        }
                    }
                    "newline" => style.newline = gap()?,
                    "comma" => style.comma = gap()?,
                    "space_colon" => style.before_colon = gap()?,
                    "colon" => style.colon = gap()?,
                    _ => return Err(Stop::Bad(q, "a style")),
                }
            }
        }
        q = end;
    }
    if styled {
        o.style = Some(style.settle());
    }
    Ok((kind, o, q))
}
