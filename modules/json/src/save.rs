//! JSON into records.

use torpor::cbor::{encode_head, MAP as MAJOR_MAP, TEXT as MAJOR_TEXT};
use torpor::{Call, Code, Error, Input, Output, Result, Text, MAX_KEY_BYTES};

use crate::memory::{Buf, Memory, BATCH_BYTES, MEMORY};
use crate::names::hash;
use crate::path::{escape, is_plain, Place as Where, Settings, END, MAX_OPEN};
use crate::print::{head, pass};
use crate::scan::{
    look, put_any_head, put_bytes, white, Scan, Stop, COLON, COMMA_OR_BRACE, COMMA_OR_BRACKET, LOOK_BYTES, MAX_DEPTH,
    NAME, PAD, SPELLED, STOPPED, TEXT,
};
use crate::style::{Place, Style, DETECT_BYTES};
use crate::word::{chunk, has_either, room};

/// How long a record may be, as text and as record: what a host takes unless it is told otherwise.
pub const MAX_RECORD_BYTES: usize = 64 << 20;

/// The bytes a text may begin with to say that it is UTF-8.
pub const BOM: &[u8] = b"\xef\xbb\xbf";

/// The first bytes of a value that is not only a value: tag 27 and an array of so many.
pub const OBJECT_OF_2: [u8; 3] = [0xd8, 27, 0x82];
pub const OBJECT_OF_3: [u8; 3] = [0xd8, 27, 0x83];

/// Reads JSON and writes records.
pub fn save(call: &Call<'_>, native: &mut Input<'_>, records: &mut Output<'_>) -> Result<()> {
    let settings = Settings::of(call)?;
    MEMORY.with(|m| {
        m.clear();
        run(&mut Saver::new(settings, m), native, records)
    })
}

fn run(s: &mut Saver<'_, '_>, native: &mut Input<'_>, records: &mut Output<'_>) -> Result<()> {
    while native.bytes().len() < DETECT_BYTES && native.fill()? {}
    if native.bytes().is_empty() {
        return Err(Error::corrupt(0, "the input is empty; the least JSON text is a value, such as {}"));
    }
    s.m.scanner.style = Style::detect(native.bytes());
    // The text is scanned where it lies in the input's buffer; that of a record which is too long for it is
    // held.
    let (mut held, mut holds, mut at, mut base) = (Vec::new(), false, 0, 0);
    loop {
        let t = if holds { &held[at..] } else { native.bytes() };
        let (done, stop) = s.run(t);
        let left = t.len() - done - if s.padded { PAD } else { 0 };
        if holds {
            at += done;
        } else {
            native.consume(done);
            base = native.offset();
        }
        let here = base + at as u64;
        match stop {
            Stop::Full if s.n > 0 => {
                records.emit(&s.m.out.get()[..s.n], false)?;
                s.n = 0;
            }
            Stop::Full => {
                // Most records are shorter than their text.
                if s.m.out.grow(left + (64 << 10), MAX_RECORD_BYTES + BATCH_BYTES).is_err() {
                    return Err(s.too_large(here));
                }
            }
            Stop::More if s.padded => {
                if s.phase == Phase::End {
                    break;
                }
                let end = here + left as u64;
                return Err(Error::corrupt(end, "the text ends before its value does").path(s.place()));
            }
            Stop::More => {
                // So much more that the text is not scanned again and again.
                let want = left + (left / 2).max(left.min(8 << 20)) + PAD;
                if !holds {
                    while native.bytes().len() < want && !native.is_full() && native.fill()? {}
                    if native.bytes().len() >= want {
                        continue;
                    }
                    holds = true;
                } else {
                    held.drain(..at);
                    base += at as u64;
                    at = 0;
                }
                if left > MAX_RECORD_BYTES || grow(&mut held, want + (256 << 10)).is_err() {
                    return Err(s.too_large(here));
                }
                loop {
                    held.extend_from_slice(native.bytes());
                    native.consume(native.bytes().len());
                    if held.len() >= want {
                        break;
                    }
                    if !native.fill()? {
                        s.padded = true;
                        held.resize(held.len() + PAD, 0);
                        break;
                    }
                }
            }
            stop => return Err(s.error(stop, here)),
        }
    }
    if s.n > 0 {
        records.emit(&s.m.out.get()[..s.n], false)?;
    }
    Ok(())
}

/// Makes room for so many bytes in all, or says that there is none.
pub fn grow(v: &mut Vec<u8>, size: usize) -> core::result::Result<(), ()> {
    v.try_reserve_exact(size.saturating_sub(v.len())).map_err(|_| ())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Before the root.
    Root,
    /// Before an entry of the innermost opened object or array.
    Entry,
    /// Behind one that has ended: `frames[level]`.
    Closed,
    /// Behind the root and all that follows it.
    End,
}

/// An object or array that is opened.
#[derive(Clone, Copy)]
struct Frame {
    object: bool,
    first: bool,
    same: bool, // all entries have its partition
    place: Where,
    path_end: usize,
    part: (usize, usize),
    plain: bool, // most of its entries need no other look than the quick one
    index: u64,  // of the next entry
    equal: u64,  // names that were told from one before them
    number: u64, // of this object in the text
}

const NO_FRAME: Frame = Frame {
    object: false,
    first: true,
    same: false,
    place: Where::NONE,
    path_end: 0,
    part: (0, 0),
    plain: false,
    index: 0,
    equal: 0,
    number: 0,
};

struct Saver<'a, 'm> {
    settings: Settings<'a>,
    m: &'m mut Memory,
    phase: Phase,
    frames: [Frame; MAX_OPEN + 1],
    level: usize, // frames that are open
    objects: u64,
    prefix: Prefix,
    extra: Vec<u8>, // what is said of a value that is not spaced as the style says
    n: usize,
    padded: bool,      // the text ends PAD bytes before the end
    found: Option<u8>, // where the text is no JSON
}

/// How long a record's beginning may be to be kept for the next one's.
const MAX_PREFIX: usize = 256;

/// What the records of an object's entries begin with: all but the name.
struct Prefix {
    of: u64, // the object's number
    len: usize,
    wide: bool, // the key's head takes two bytes
    bytes: [u8; MAX_PREFIX + 16],
}

/// Where white space was, and whether it is what the style says.
#[derive(Clone, Copy)]
struct Gap {
    from: usize,
    to: usize,
    usual: bool,
}

/// The white space before a name, before its colon, before a value and behind it.
struct Gaps {
    name: Gap,
    colon: Gap,
    before: Gap,
    after: Gap,
}

const USUAL: Gap = Gap { from: 0, to: 0, usual: true };

const MORE: &str = "nothing but white space behind the value";
const NAME_LIMIT: &str = "a path of more than 65,536 bytes: let records begin further out, by the setting records";
const PARTITION_LIMIT: &str =
    "a partition of more than 4,096 bytes, or too many long ones: choose another by the setting partition";

impl<'a, 'm> Saver<'a, 'm> {
    fn new(settings: Settings<'a>, m: &'m mut Memory) -> Saver<'a, 'm> {
        Saver {
            settings,
            m,
            phase: Phase::Root,
            frames: [NO_FRAME; MAX_OPEN + 1],
            level: 0,
            objects: 0,
            prefix: Prefix { of: 0, len: 0, wide: true, bytes: [0; MAX_PREFIX + 16] },
            extra: Vec::new(),
            n: 0,
            padded: false,
            found: None,
        }
    }

    /// Goes through `t` as far as it can: how much of it is done, and why it stopped.
    fn run(&mut self, t: &[u8]) -> (usize, Stop) {
        let mut p = 0;
        loop {
            if self.n >= BATCH_BYTES {
                return (p, Stop::Full);
            }
            let step = match self.phase {
                Phase::Entry => match self.quick(t, p) {
                    Some(step) => step,
                    None => self.entry(t, p),
                },
                Phase::Closed => self.closed(t, p),
                Phase::Root => self.root(t, p),
                Phase::End => return (t.len() - PAD, Stop::More),
            };
            match step {
                Ok(q) => p = q,
                Err(stop) => {
                    if let Stop::Bad(at, _) = stop {
                        if self.padded && at >= t.len() - PAD {
                            return (p, Stop::More);
                        }
                        self.found = t.get(at).copied();
                    }
                    return (p, stop.from(p));
                }
            }
        }
    }

    /// The root, from the very beginning of the text.
    fn root(&mut self, t: &[u8], p: usize) -> Scan<usize> {
        if t.len() < BOM.len() {
            return Err(Stop::More);
        }
        let bom = if t.starts_with(BOM) { BOM.len() } else { 0 };
        let v = white(t, p + bom);
        let before = Gap { from: p, to: v, usual: v == p };
        let c = *t.get(v).ok_or(Stop::More)?;
        let place = self.settings.root();
        if !self.settings.partition(&place, &[], 0, &mut self.m.part) {
            return Err(Stop::Large(v, PARTITION_LIMIT));
        }
        if matches!(c, b'{' | b'[') && self.settings.opens(&place, false) {
            return self.open(t, v, place, &Gaps { name: USUAL, colon: USUAL, before, after: USUAL });
        }
        let n = self.head()?;
        let (q, end) = self.m.scanner.value(t, v, self.m.out.get(), n, 0)?;
        let r = white(t, q);
        self.is_end(t, r)?;
        let after = Gap { from: q, to: r, usual: q == r };
        self.n = self.wrap(t, n, end, true, &Gaps { name: USUAL, colon: USUAL, before, after })?;
        self.phase = Phase::End;
        Ok(r)
    }

    /// One entry as most are: of an object, under a name that says nothing but itself, with nothing around it.
    /// `None` if it is another one, with nothing done.
    #[inline(always)]
    fn quick(&mut self, t: &[u8], p: usize) -> Option<Scan<usize>> {
        let around = self.level - 1;
        let f = self.frames.get(around).filter(|f| f.plain)?;
        let (number, parent) = (f.number, f.path_end);
        if self.prefix.of != number {
            if self.begin(around, true).is_none() {
                self.frames[around].plain = false;
                return None;
            }
        }
        let mut s = chunk::<72>(t, p)?;
        let (mut v, mut from, mut end);
        loop {
            // Up to the name, which is written as an item whose head the end of the prefix then replaces.
            let out = self.m.out.get();
            let len = self.prefix.len;
            from = self.n + len;
            let mut at = 0;
            while at < len {
                *room::<16>(out, self.n + at)? = *chunk::<16>(&self.prefix.bytes, at)?;
                at += 16;
            }
            if s[0] != b'"' {
                return None;
            }
            let r = self.m.scanner.string(s, t, p, out, from - 1);
            (v, end) = ((r >> 32) as usize, r as u32 as usize);
            match out.get(from - 1) {
                Some(0x60..=0x77) if r != STOPPED => {}
                Some(0x78) if r != STOPPED => {
                    out.copy_within(from + 1..end, from);
                    end -= 1;
                }
                _ => return None,
            }
            out[from - 1] = b'/';
            let key = parent + 1 + end - from;
            if self.prefix.wide == (key >= 24) && key < 256 {
                let head = from - parent - 2;
                *out.get_mut(head)? = if key < 24 { TEXT | key as u8 } else { key as u8 };
                break;
            }
            if key >= 256 {
                return None;
            }
            self.begin(around, key >= 24)?;
        }
        let out = self.m.out.get();
        let name = out.get(from..end)?;
        let h = hash(number, name);
        if t.get(v) != Some(&b':') || !is_plain(name) || self.m.names.contains(h) || has_either(name, b'~', b'/') {
            return None;
        }
        s = chunk::<72>(t, v + 1)?;
        if matches!(s[0], b' ' | b'\n' | b'\r' | b'\t') {
            return None;
        }
        let (q, n) = match self.m.scanner.value(t, v + 1, out, end, around + 1) {
            Ok(ends) => ends,
            Err(stop) => {
                let path = &mut self.m.path;
                path.truncate(parent);
                path.push(b'/');
                path.extend(&self.m.out.get()[from..end]);
                return Some(Err(stop));
            }
        };
        match t.get(q) {
            Some(b',') => {}
            Some(b'}') => {
                self.level = around;
                self.phase = Phase::Closed;
            }
            _ => return None,
        }
        self.n = n;
        self.told(around, h, 0);
        Some(Ok(q + 1))
    }

    /// Prepares what the records of a frame's entries begin with. `None` if it is too long to be kept.
    #[inline(never)]
    fn begin(&mut self, frame: usize, wide: bool) -> Option<()> {
        let f = self.frames[frame];
        self.m.path.truncate(f.path_end);
        if !self.settings.partition(&f.place, self.m.path.get(), f.path_end, &mut self.m.part) {
            return None;
        }
        let b = &mut self.prefix.bytes;
        let n = put_bytes(b, 0, &[torpor::RECORD_HEAD]).ok()?;
        let n = put_any_head(b, n, TEXT, self.m.part.len() as u64).ok()?;
        let n = put_bytes(b, n, self.m.part.get()).ok()?;
        let n = put_bytes(b, n, if wide { &[TEXT | 24, 0] } else { &[TEXT] }).ok()?;
        let n = put_bytes(b, n, self.m.path.get()).ok()?;
        let n = put_bytes(b, n, b"/").ok()?;
        self.prefix.of = f.number;
        self.prefix.len = n;
        self.prefix.wide = wide;
        Some(())
    }

    /// One entry of the innermost opened object or array, and what ends it.
    #[inline(always)]
    fn entry(&mut self, t: &[u8], p: usize) -> Scan<usize> {
        let around = self.level - 1;
        let f = &self.frames[around];
        let (object, same, parent, number) = (f.object, f.same, f.path_end, f.number);
        let name = self.gap(if f.first { Place::Open } else { Place::Comma }, t, p);
        let mut gaps = Gaps { name, colon: USUAL, before: USUAL, after: USUAL };
        let mut v = name.to;
        let mut h = 0;
        let mut equal = 0;
        self.m.path.truncate(parent);
        self.m.path.push(b'/');
        if object {
            let c = *t.get(v).ok_or(Stop::More)?;
            if c != b'"' {
                return Err(Stop::Bad(v, NAME));
            }
            v = self.token(t, v)?;
            h = hash(number, &self.m.path.get()[parent + 1..]);
            equal = self.tell_apart(around, h);
            gaps.colon = self.fixed(false, t, v);
            v = gaps.colon.to;
            let c = *t.get(v).ok_or(Stop::More)?;
            if c != b':' {
                return Err(Stop::Bad(v, COLON));
            }
            gaps.before = self.fixed(true, t, v + 1);
            v = gaps.before.to;
        } else {
            gaps.before = name;
            gaps.name = USUAL;
            decimal(&mut self.m.path, self.frames[around].index);
        }
        let c = *t.get(v).ok_or(Stop::More)?;
        let mut place = self.frames[around].place;
        if matches!(c, b'{' | b'[') {
            let inner = self.settings.enter(&place, self.m.path.get(), parent);
            if self.settings.opens(&inner, !object) {
                if !self.settings.partition(&inner, self.m.path.get(), parent, &mut self.m.part) {
                    return Err(Stop::Large(p, PARTITION_LIMIT));
                }
                let q = self.open(t, v, inner, &gaps)?;
                self.told(around, h, equal);
                return Ok(q);
            }
            place = inner;
        }
        if same {
            let (from, to) = self.frames[around].part;
            self.m.part.clear();
            self.m.part.extend(&self.m.parts.get()[from..to]);
        } else if !self.settings.partition(&place, self.m.path.get(), parent, &mut self.m.part) {
            return Err(Stop::Large(p, PARTITION_LIMIT));
        }
        let mut n = self.head()?;
        let (q, mut end) = self.m.scanner.value(t, v, self.m.out.get(), n, self.level)?;
        if !object && self.m.out.get()[n] >> 5 == MAJOR_MAP {
            if let Some((moved, id, count)) = self.identify(n, end, parent, around)? {
                end = end + moved - n;
                n = moved;
                h = id;
                equal = count;
            }
        }
        let close = if object { b'}' } else { b']' };
        let r = white(t, q);
        let c = *t.get(r).ok_or(Stop::More)?;
        if c == b',' {
            gaps.after = Gap { from: q, to: r, usual: q == r };
        } else if c == close {
            gaps.after = self.gap(Place::Close, t, q);
        } else {
            return Err(Stop::Bad(r, if object { COMMA_OR_BRACE } else { COMMA_OR_BRACKET }));
        }
        if !(gaps.name.usual && gaps.colon.usual && gaps.before.usual && gaps.after.usual) {
            end = self.wrap(t, n, end, false, &gaps)?;
        }
        self.n = end;
        self.told(around, h, equal);
        if c == close {
            self.level -= 1;
            self.phase = Phase::Closed;
        }
        Ok(r + 1)
    }

    /// Keeps in the frame what an entry was.
    #[inline(always)]
    fn told(&mut self, frame: usize, hash: u64, equal: u64) {
        let f = &mut self.frames[frame];
        f.first = false;
        f.index += 1;
        f.equal = f.equal.max(equal);
        if hash != 0 {
            self.m.names.add(hash);
        }
    }

    /// Adds to the path what tells it from an equal one, if there may be one: the number of those so far.
    #[inline(always)]
    fn tell_apart(&mut self, frame: usize, hash: u64) -> u64 {
        if !self.m.names.contains(hash) {
            return 0;
        }
        let equal = self.frames[frame].equal.max(1) + 1;
        self.m.path.extend(b"~#");
        decimal(&mut self.m.path, equal);
        equal
    }

    /// Reads the name whose quote is at `p` and adds it to the path: where it ends.
    #[inline(always)]
    fn token(&mut self, t: &[u8], p: usize) -> Scan<usize> {
        let name = self.m.name.room();
        let r = self.m.scanner.any_string(chunk::<72>(t, p).ok_or(Stop::More)?, t, p, name, 0);
        if r == STOPPED {
            return Err(match self.m.scanner.stop {
                Stop::Full => Stop::Large(p, NAME_LIMIT),
                stop => stop,
            });
        }
        let (end, n) = ((r >> 32) as usize, r as u32 as usize);
        if name[0] < TEXT + 24 {
            escape(&name[1..n], &mut self.m.path);
        } else if name.starts_with(&SPELLED) {
            self.m.path.push(b'~');
            escape(&t[p..end], &mut self.m.path);
        } else {
            let head = match name[0] - TEXT {
                24 => 2,
                25 => 3,
                _ => 5,
            };
            escape(&name[head..n], &mut self.m.path);
        }
        if self.m.path.len() + 32 > MAX_KEY_BYTES || self.m.path.is_full() {
            return Err(Stop::Large(p, NAME_LIMIT));
        }
        Ok(end)
    }

    /// Gives the record of an array's entry, whose value is from `n` to `end`, a key by a member that
    /// identifies it: where the value begins then, and what told() wants to know.
    #[inline(never)]
    fn identify(&mut self, n: usize, end: usize, parent: usize, frame: usize) -> Scan<Option<(usize, u64, u64)>> {
        let out = &self.m.out.get()[..end];
        let (pairs, mut p) = head(out, n)?;
        let mut next = p + LOOK_BYTES;
        for _ in 0..pairs {
            if p > next {
                look();
                next = p + LOOK_BYTES;
            }
            let out = &self.m.out.get()[..end];
            let v = pass(out, p)?;
            let is_id = |id: &&&str| {
                out[p] >> 5 == 3 && out[p..v].ends_with(id.as_bytes()) && {
                    let len = id.len();
                    v - p == len + 1 + (len > 23) as usize + (len > 255) as usize
                }
            };
            let id = self.settings.ids().iter().find(is_id);
            p = pass(out, v)?;
            let id = match id {
                Some(id) => id,
                None => continue,
            };
            let value = &out[v..p];
            let (arg, from) = head(value, 0)?;
            let path = &mut self.m.path;
            path.truncate(parent + 1);
            escape(id.as_bytes(), path);
            path.push(b'=');
            let mut names = true;
            match value[0] >> 5 {
                3 if value.len() <= 512 => escape(&value[from..], path),
                0 => decimal(path, arg),
                1 if arg < 1 << 63 => {
                    path.push(b'-');
                    decimal(path, arg + 1);
                }
                _ => names = false,
            }
            if !names || path.len() + 32 > MAX_KEY_BYTES {
                path.truncate(parent + 1);
                decimal(path, self.frames[frame].index);
                continue;
            }
            let h = hash(self.frames[frame].number, &self.m.path.get()[parent + 1..]);
            let equal = self.tell_apart(frame, h);
            // The value makes room for the longer key, or follows the shorter one.
            let moved = self.n + self.head_len();
            if end + moved.max(n) - n + 16 > self.m.out.get().len() {
                return Err(Stop::Full);
            }
            self.m.out.get().copy_within(n..end, moved);
            self.put_head_of_record()?;
            return Ok(Some((moved, h, equal)));
        }
        Ok(None)
    }

    /// Opens the object or array whose bracket is at `v`; path and partition are those of the entry.
    #[inline(never)]
    fn open(&mut self, t: &[u8], v: usize, place: Where, gaps: &Gaps) -> Scan<usize> {
        let object = t[v] == b'{';
        let inside = white(t, v + 1);
        let empty = *t.get(inside).ok_or(Stop::More)? == t[v] + 2;
        let n = self.head()?;
        self.extra.clear();
        let mut pairs = if self.level == 0 { self.style()? } else { 0 };
        pairs += self.spaces(t, gaps)?;
        if empty && inside > v + 1 {
            pairs += self.pair("empty", &t[v + 1..inside])?;
        }
        let n = put_bytes(self.m.out.get(), n, if pairs > 0 { &OBJECT_OF_3[..2] } else { &OBJECT_OF_2[..2] })?;
        let n = put_any_head(self.m.out.get(), n, 0x80, 1 + (pairs > 0) as u64)?;
        let kind = if object { "object" } else { "array" };
        let n = put_any_head(self.m.out.get(), n, TEXT, kind.len() as u64)?;
        let n = put_bytes(self.m.out.get(), n, kind.as_bytes())?;
        let n = if pairs > 0 { put_any_head(self.m.out.get(), n, 0xa0, pairs)? } else { n };
        self.n = put_bytes(self.m.out.get(), n, &self.extra)?;

        let from = if self.level == 0 { 0 } else { self.frames[self.level - 1].part.1 };
        self.m.parts.truncate(from);
        self.m.parts.extend(self.m.part.get());
        if self.m.parts.is_full() {
            return Err(Stop::Large(v, PARTITION_LIMIT));
        }
        self.objects += 1;
        self.frames[self.level] = Frame {
            object,
            same: self.settings.same_partition(&place),
            plain: object && self.m.scanner.style.compact && self.settings.plain(&place),
            place,
            path_end: self.m.path.len(),
            part: (from, self.m.parts.len()),
            number: self.objects,
            ..NO_FRAME
        };
        if empty {
            self.phase = Phase::Closed;
            return Ok(inside + 1);
        }
        self.level += 1;
        self.phase = Phase::Entry;
        Ok(v + 1)
    }

    /// What stands behind an object or array that was opened, and what ends it.
    #[inline(never)]
    fn closed(&mut self, t: &[u8], p: usize) -> Scan<usize> {
        let r = white(t, p);
        let mut gap = Gap { from: p, to: r, usual: p == r };
        let mut end = r + 1;
        let (mut level, mut phase) = (self.level, Phase::Entry);
        if self.level == 0 {
            self.is_end(t, r)?;
            end = r;
            phase = Phase::End;
        } else {
            let object = self.frames[self.level - 1].object;
            let c = *t.get(r).ok_or(Stop::More)?;
            if c == if object { b'}' } else { b']' } {
                gap = self.gap(Place::Close, t, p);
                level -= 1;
                phase = Phase::Closed;
            } else if c != b',' {
                return Err(Stop::Bad(r, if object { COMMA_OR_BRACE } else { COMMA_OR_BRACKET }));
            }
        }
        if !gap.usual {
            let f = self.frames[self.level];
            self.m.path.truncate(f.path_end);
            self.m.path.push(b'/');
            self.m.path.extend(END);
            self.m.part.clear();
            self.m.part.extend(&self.m.parts.get()[f.part.0..f.part.1]);
            let n = self.head()?;
            let n = put_any_head(self.m.out.get(), n, TEXT, (r - p) as u64)?;
            self.n = put_bytes(self.m.out.get(), n, &t[p..r])?;
        }
        (self.level, self.phase) = (level, phase);
        Ok(end)
    }

    /// Makes sure that the whole text ends at `p`.
    fn is_end(&self, t: &[u8], p: usize) -> Scan<()> {
        if p < t.len() - if self.padded { PAD } else { 0 } {
            return Err(Stop::Bad(p, MORE));
        }
        if self.padded {
            return Ok(());
        }
        Err(Stop::More)
    }

    /// The white space at `p`, before an entry or behind the last one of the innermost frame.
    #[inline(always)]
    fn gap(&self, place: Place, t: &[u8], p: usize) -> Gap {
        if self.m.scanner.style.compact {
            if let Some(b'!'..=0xff) = t.get(p) {
                return Gap { from: p, to: p, usual: true };
            }
        }
        let to = white(t, p);
        Gap { from: p, to, usual: self.m.scanner.style.expect(place, self.level, t, p) == Some(to) }
    }

    /// The white space at `p`, before a colon or after one.
    #[inline(always)]
    fn fixed(&self, after: bool, t: &[u8], p: usize) -> Gap {
        let to = white(t, p);
        let style = &self.m.scanner.style;
        let want = if after { &style.colon } else { &style.before_colon };
        Gap { from: p, to, usual: &t[p..to] == want.get() }
    }

    /// How long a record is up to its value.
    fn head_len(&self) -> usize {
        let mut head = [0; 9];
        let part = encode_head(&mut head, MAJOR_TEXT, self.m.part.len() as u64) + self.m.part.len();
        1 + part + encode_head(&mut head, MAJOR_TEXT, self.m.path.len() as u64) + self.m.path.len()
    }

    /// Begins a record: where its value begins.
    #[inline(always)]
    fn head(&mut self) -> Scan<usize> {
        self.put_head_of_record()
    }

    fn put_head_of_record(&mut self) -> Scan<usize> {
        if self.m.path.len() > MAX_KEY_BYTES {
            return Err(Stop::Large(0, NAME_LIMIT));
        }
        let n = put_bytes(self.m.out.get(), self.n, &[torpor::RECORD_HEAD])?;
        let n = put_any_head(self.m.out.get(), n, TEXT, self.m.part.len() as u64)?;
        let n = put_bytes(self.m.out.get(), n, self.m.part.get())?;
        let n = put_any_head(self.m.out.get(), n, TEXT, self.m.path.len() as u64)?;
        put_bytes(self.m.out.get(), n, self.m.path.get())
    }

    /// Says of the value from `n` to `end` how it is spaced, and of the root's the style: where it ends.
    #[cold]
    #[inline(never)]
    fn wrap(&mut self, t: &[u8], n: usize, end: usize, root: bool, gaps: &Gaps) -> Scan<usize> {
        self.extra.clear();
        let mut pairs = if root { self.style()? } else { 0 };
        pairs += self.spaces(t, gaps)?;
        if pairs == 0 {
            return Ok(end);
        }
        let mut head = [0; 32];
        let h = put_bytes(&mut head, 0, &OBJECT_OF_3)?;
        let h = put_bytes(&mut head, h, b"\x65value")?;
        let h = put_any_head(&mut head, h, 0xa0, pairs)?;
        let more = h + self.extra.len();
        if end + more + 16 > self.m.out.get().len() {
            return Err(Stop::Full);
        }
        self.m.out.get().copy_within(n..end, n + more);
        self.m.out.get()[n..n + h].copy_from_slice(&head[..h]);
        self.m.out.get()[n + h..n + more].copy_from_slice(&self.extra);
        Ok(end + more)
    }

    /// Adds pairs for the white space that is not as the style says: how many.
    fn spaces(&mut self, t: &[u8], gaps: &Gaps) -> Scan<u64> {
        let mut pairs = 0;
        for (name, gap) in
            [("before_name", gaps.name), ("before_colon", gaps.colon), ("before", gaps.before), ("after", gaps.after)]
        {
            if !gap.usual {
                pairs += self.pair(name, &t[gap.from..gap.to])?;
            }
        }
        Ok(pairs)
    }

    /// Adds pairs for the style, as far as it is not the compact one: how many.
    fn style(&mut self) -> Scan<u64> {
        let style = self.m.scanner.style;
        let mut pairs = 0;
        if style.indented {
            pairs += self.pair("indent", style.unit.get())?;
            if style.newline.get() != b"\n" {
                pairs += self.pair("newline", style.newline.get())?;
            }
        }
        for (name, gap) in [("comma", style.comma), ("space_colon", style.before_colon), ("colon", style.colon)] {
            if !gap.get().is_empty() {
                pairs += self.pair(name, gap.get())?;
            }
        }
        if style.ascii {
            self.extra_text(b"ascii")?;
            self.extra.push(crate::scan::TRUE);
            pairs += 1;
        }
        Ok(pairs)
    }

    fn pair(&mut self, name: &str, space: &[u8]) -> Scan<u64> {
        self.extra_text(name.as_bytes())?;
        self.extra_text(space)?;
        Ok(1)
    }

    fn extra_text(&mut self, s: &[u8]) -> Scan<()> {
        let mut head = [0; 9];
        let n = encode_head(&mut head, MAJOR_TEXT, s.len() as u64);
        let size = self.extra.len() + 64 + s.len();
        if size > MAX_RECORD_BYTES || grow(&mut self.extra, size).is_err() {
            return Err(Stop::Large(0, "more white space around a value than 64 MiB, or than there is memory for"));
        }
        self.extra.extend_from_slice(&head[..n]);
        self.extra.extend_from_slice(s);
        Ok(())
    }

    /// The entry under way, for people.
    fn place(&self) -> Text {
        Text::new().str(core::str::from_utf8(self.m.path.get()).unwrap_or(""))
    }

    #[cold]
    fn too_large(&self, offset: u64) -> Error {
        let msg = "longer than a record may be, 64 MiB; let records begin further in, by the setting records";
        Error::new(Code::TooLarge, msg).at(offset).path(self.place())
    }

    /// What a scan stopped for, as an error; `base` is where in the input it began.
    #[cold]
    fn error(&self, stop: Stop, base: u64) -> Error {
        let (code, at, msg) = match stop {
            Stop::Bad(at, "UTF-8") => (Code::Corrupt, at, Text::new().str("the text is not UTF-8")),
            Stop::Bad(at, what) => {
                let msg = Text::new().str("no JSON: ").str(what).str(" expected");
                (Code::Corrupt, at, self.found.map_or(msg, |b| msg.str(", found ").hex(b)))
            }
            Stop::Deep(at) => (Code::TooLarge, at, Text::new().str("nested deeper than ").num(MAX_DEPTH as u64)),
            Stop::Large(at, what) => (Code::TooLarge, at, Text::new().str(what)),
            Stop::More | Stop::Full => (Code::Internal, 0, Text::new().str("the scan stopped")),
        };
        Error::new(code, msg).at(base + at as u64).path(self.place())
    }
}

/// Adds a number in decimal.
#[inline(never)]
fn decimal<const N: usize>(to: &mut Buf<N>, v: u64) {
    let mut digits = [0; 32];
    if let Ok(n) = crate::number::write_int(&mut digits, 0, v) {
        to.extend(&digits[..n]);
    }
}
