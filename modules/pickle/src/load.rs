//! Writes pickles from records.

use std::collections::BTreeMap;

use torpor::cbor::{Reader, Step, ARRAY, BYTES, MAP, NEGATIVE, TAG, TEXT, UINT};
use torpor::{Checker, Code, Error, Input, Key, Output, Record, Result, Text};

use crate::form::*;
use crate::memo::Memo;
use crate::names::{same, Found, Names, MAX_NAME};
use crate::rules::Rules;
use crate::settings::Settings;
use crate::table::Table;
use crate::writer::Writer;

/// A container whose entries are records.
struct Level {
    how: u32,
    prefix: String,
    partition: String,
    batch: u32,
    single: bool, // the first entry is under way and has no mark
    first: bool,
    muted: bool, // it is part of what is dropped
    class: u32,
    seen: u64,
    ruled: bool, // the rules are about one of its entries
}

/// What is under way inside a record.
#[derive(Clone, Copy)]
struct Frame {
    what: What,
    left: usize,
    done: usize,
    n: usize,
    at: usize,  // of a part: where to go on
    class: u32, // of an object whose state comes: what the rules say of it, and 1
    seen: u64,  // which attributes with defaults there are
    context: Context,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Items(u32),
    Filtered, // the attributes of an object to which rules apply
    Tuple,
    Called(u8),   // the arguments of an opcode that takes a tuple
    Children(u8), // of an opcode
    Inst,
    State,
    With,
    Discard,
    Before,
    Part,
    Shared,
}

/// The names of a global, and which of them are objects of their own.
struct Named {
    names: (Vec<u8>, Vec<u8>),
    own: [bool; 2],
}

/// A major type that there is not: what records that lack an item seem to have in its place.
const ENDED: u8 = 8;

/// The record under way: its bytes and how far they are read. They have been checked to be well-formed.
pub struct Source<'a> {
    pub d: &'a [u8],
    pub at: usize,
}

impl<'a> Source<'a> {
    /// The head of the next item: its major type and argument. Behind the last there is [`ENDED`].
    #[inline(always)]
    pub fn head(&mut self) -> (u8, u64) {
        let b = match self.d.get(self.at) {
            Some(b) => *b,
            None => return (ENDED, 0),
        };
        self.at += 1;
        let info = b & 0x1f;
        let n = match info {
            0..=23 => return (b >> 5, info as u64),
            24 => 1,
            25 => 2,
            26 => 4,
            _ => 8,
        };
        let mut v = 0;
        for b in &self.d[self.at..self.at + n] {
            v = v << 8 | *b as u64;
        }
        self.at += n;
        (b >> 5, v)
    }

    #[inline(always)]
    pub fn take(&mut self, n: u64) -> &'a [u8] {
        let n = n.min((self.d.len() - self.at) as u64) as usize;
        let s = &self.d[self.at..self.at + n];
        self.at += n;
        s
    }
}

/// The loader.
pub struct Loader<'s> {
    settings: &'s Settings,
    w: Writer,
    names: Names,
    last: u32, // the name that was there already and came last
    globals: BTreeMap<Vec<u8>, u32>,
    table: Table,
    objects: Memo,   // memo index by number
    prints: Vec<u8>, // by number, too
    context: Context,
    numbers: u32,
    base: u32, // of the record under way
    levels: Vec<Level>,
    open: bool,
    root: String, // the key of the record that begins the pickle under way
    documents: u64,
    frames: Vec<Frame>,
    inst: Vec<(Vec<u8>, Vec<u8>)>,
    class: u32, // of the object made last
    parts: Vec<(usize, bool)>,
    at: u64, // of the record in the input
}

type Words = &'static str;

type Done<T> = core::result::Result<T, Stop>;

impl<'s> Loader<'s> {
    pub fn new(settings: &'s Settings) -> Loader<'s> {
        Loader {
            settings,
            w: Writer::new(),
            names: Names::new(),
            last: 0,
            globals: BTreeMap::new(),
            table: Table::new(),
            objects: Memo::new(),
            prints: Vec::new(),
            context: Context::default(),
            numbers: 0,
            base: 0,
            levels: Vec::new(),
            open: false,
            root: String::new(),
            documents: 0,
            frames: Vec::new(),
            inst: Vec::new(),
            class: 0,
            parts: Vec::new(),
            at: 0,
        }
    }

    /// Loads all records.
    pub fn run(&mut self, input: &mut Input<'_>, out: &mut Output<'_>) -> Result<()> {
        let mut record = Vec::new();
        loop {
            self.at = input.offset();
            record.clear();
            if !next(input, &mut record)? {
                break;
            }
            self.record(&record, out)?;
        }
        if self.documents == 0 {
            return Err(Error::corrupt(0, "there are no records: not even of an empty pickle"));
        }
        self.end(out)
    }

    #[cold]
    #[inline(never)]
    fn wrong(&self, what: &str) -> Error {
        Error::corrupt(self.at, what)
    }

    #[inline(never)]
    fn record(&mut self, record: &[u8], out: &mut Output<'_>) -> Result<()> {
        let r = Record::parse(record).map_err(|f| f.error(self.at))?;
        let key = match r.key {
            Key::Text(k) => k,
            Key::Bytes(_) => return Err(self.wrong("the key of a record of a pickle is text")),
        };
        match self.value(r.partition, key, r.value, out) {
            Err(Stop::Wrong(what)) => Err(self.wrong(what).path(Text::new().str(r.partition).str(" ").str(key))),
            Err(Stop::Changed(other)) => {
                let msg = Text::new().str("a reference into the record ").str(&other);
                let msg = msg.str(", where another object is by now: the records are of different states");
                Err(Error::corrupt(self.at, msg).path(Text::new().str(r.partition).str(" ").str(key)))
            }
            Err(Stop::Error(e)) => Err(e),
            Ok(()) => Ok(()),
        }
    }

    /// Ends the pickle under way.
    #[inline(never)]
    fn end(&mut self, out: &mut Output<'_>) -> Result<()> {
        if self.open {
            self.close(0, out)?;
            self.w.end(out)?;
            self.open = false;
        }
        Ok(())
    }

    /// Writes the values that attributes of the innermost level default to.
    #[inline(never)]
    fn level_defaults(&mut self, out: &mut Output<'_>) -> Result<()> {
        let (class, seen) = match self.levels.last() {
            Some(l) if l.class > 0 => (l.class, l.seen),
            _ => return Ok(()),
        };
        let settings = self.settings;
        for (at, d) in settings.rules.classes[class as usize - 1].default.iter().enumerate() {
            if seen & 1 << at == 0 {
                self.enter();
                self.default(d, out)?;
            }
        }
        Ok(())
    }

    /// Writes an attribute and its default.
    #[inline(never)]
    fn default(&mut self, d: &(Vec<u8>, Vec<u8>), out: &mut Output<'_>) -> Result<()> {
        let mut value = Source { d: &d.1, at: 0 };
        let context = self.context;
        let done = self.text(&d.0, out).and_then(|()| self.item(&mut value, out));
        self.context = context;
        match done {
            Err(Stop::Error(e)) => Err(e),
            _ => Ok(()),
        }
    }

    /// Whether an entry of a level is an attribute to be dropped.
    #[inline(never)]
    fn entry_class(&mut self, level: usize, s: &Source<'_>) -> bool {
        let l = &mut self.levels[level];
        if l.class == 0 {
            return false;
        }
        let class = &self.settings.rules.classes[l.class as usize - 1];
        let key = key_text(&s.d[s.at..]);
        l.seen |= class.bit(key);
        l.ruled |= class.bit(key) != 0 || class.drops(key);
        class.drops(key)
    }

    /// Reads `n` expressions without writing them. What they define is gone, and its numbers with it.
    #[inline(never)]
    fn mute(&mut self, s: &mut Source<'_>, n: usize, out: &mut Output<'_>) -> Done<()> {
        let class = self.class;
        let to = self.w.mute();
        for _ in 0..n {
            self.expression(s, out)?;
        }
        self.w.unmute(to);
        self.class = class;
        Ok(())
    }

    /// Closes levels until `n` are left, each by its default.
    #[inline(never)]
    fn close(&mut self, n: usize, out: &mut Output<'_>) -> Result<()> {
        while self.levels.len() > n {
            let to = match self.levels.last() {
                Some(l) if l.muted => Some(self.w.mute()),
                _ => None,
            };
            self.level_defaults(out)?;
            self.flush();
            if let Some(l) = self.levels.pop() {
                if l.how & STATED != 0 {
                    self.w.op(b'b');
                }
            }
            if let Some(to) = to {
                self.w.unmute(to);
            }
        }
        Ok(())
    }

    /// Sets the entries of the innermost level that wait for it.
    #[inline(never)]
    fn flush(&mut self) {
        let protocol = self.w.protocol;
        if let Some(l) = self.levels.last_mut() {
            if l.single {
                self.w.op(single_op(l.how & 3));
            } else if l.batch > 0 && (protocol > 0 || l.how & 3 == ADD) {
                self.w.op(batch_op(l.how & 3));
            }
            l.single = false;
            l.batch = 0;
        }
    }

    /// Begins an entry of the innermost level.
    #[inline(never)]
    fn enter(&mut self) {
        let protocol = self.w.protocol;
        let flush = match self.levels.last() {
            Some(l) => l.single || l.batch == BATCH,
            None => return,
        };
        if flush {
            self.flush();
        }
        if let Some(l) = self.levels.last_mut() {
            let what = l.how & 3;
            if what != ADD && (protocol == 0 || (l.first && l.how & SINGLE != 0)) {
                l.single = true;
            } else {
                if l.batch == 0 {
                    self.w.op(b'(');
                }
                l.batch += 1;
            }
            l.first = false;
        }
    }

    #[inline(never)]
    fn value(&mut self, partition: &str, key: &str, value: &[u8], out: &mut Output<'_>) -> Done<()> {
        let mut s = Source { d: value, at: 0 };
        self.frames.clear();
        self.parts.clear();
        self.inst.clear();
        if value.starts_with(&[0xd9, (PARTS >> 8) as u8, PARTS as u8]) {
            let mut r = Reader::new(value);
            let fault = |_| Stop::Wrong("parts that are none");
            r.tag().map_err(fault)?;
            let n = r.array().map_err(fault)?;
            let main = r.offset();
            for i in 0..n {
                if i > 0 {
                    self.parts.push((r.offset(), false));
                }
                r.item().map_err(fault)?;
            }
            s.at = main;
        }
        self.base = self.numbers;
        self.context = Context::default();
        match s.head() {
            (TAG, DOC) => {
                self.end(out)?;
                self.documents += 1;
                let protocol = match (s.head(), s.head()) {
                    ((ARRAY, 2), (UINT, p)) if p <= 5 => p as u8,
                    _ => return Err(Stop::Wrong("no protocol of a pickle")),
                };
                self.names.clear();
                self.globals.clear();
                self.table.clear();
                self.objects = Memo::new();
                self.prints.clear();
                self.numbers = 0;
                self.base = 0;
                self.levels.clear();
                self.w.begin(protocol, out)?;
                self.open = true;
                self.table.add(partition, key, 0)?;
                let rest = key.strip_prefix('$').map(|k| k.bytes().all(|b| b.is_ascii_digit()));
                if rest != Some(true) || !partition.is_empty() {
                    return Err(Stop::Wrong("the record that begins a pickle has another key"));
                }
                self.root = key.into();
                let prefix = if key == "$" { "" } else { key };
                self.open_or_value(&mut s, partition, prefix, out)?;
            }
            (ARRAY, n @ 2..=3) => {
                let level = self.level(&mut s)?;
                let l = &self.levels[level];
                if (n == 3) != (l.how & 3 == ASSIGN) {
                    return Err(Stop::Wrong("the record is no entry of its container"));
                }
                let mut prefix = key;
                if !same(l.partition.as_bytes(), partition.as_bytes()) {
                    let root = partition.split_once('/').map(|(account, _)| account);
                    let account = l.prefix.strip_suffix("\"]").and_then(|p| p.get(p.len().saturating_sub(12)..));
                    // A second one of the same name is told apart by what follows.
                    let named = key.strip_prefix(&self.root[..]).map_or(false, |k| k.is_empty() || k.starts_with('~'));
                    if !named || root.is_none() || root != account {
                        return Err(Stop::Wrong(ASTRAY));
                    }
                    if key == "$" {
                        prefix = "";
                    }
                } else if !key.strip_prefix(&l.prefix[..]).map_or(false, |k| k.starts_with('.') || k.starts_with('[')) {
                    return Err(Stop::Wrong(ASTRAY));
                }
                self.close(level + 1, out)?;
                if !self.table.add(partition, key, self.numbers)? {
                    return Err(Stop::Wrong("there are two records of this key"));
                }
                let inside = self.levels[level].muted;
                let mute = (n == 3 && self.entry_class(level, &s)) || inside;
                let to = if mute { Some(self.w.mute()) } else { None };
                if inside || !mute {
                    self.enter();
                }
                if n == 3 {
                    self.expression(&mut s, out)?;
                }
                self.open_or_value(&mut s, partition, prefix, out)?;
                if let Some(to) = to {
                    self.w.unmute(to);
                    if let Some(l) = self.levels.get_mut(level + 1) {
                        l.muted = true;
                    }
                }
            }
            (TAG, PROG) => {
                let n = match s.head() {
                    (ARRAY, n) if n > 0 => n,
                    _ => return Err(Stop::Wrong("no steps")),
                };
                let level = self.level(&mut s)?;
                let l = &self.levels[level];
                let prefix = if l.prefix.is_empty() { "$" } else { &l.prefix[..] };
                if l.partition != partition || !key.strip_prefix(prefix).map_or(false, |k| k.starts_with('!')) {
                    return Err(Stop::Wrong(ASTRAY));
                }
                self.close(level + 1, out)?;
                if !self.table.add(partition, key, self.numbers)? {
                    return Err(Stop::Wrong("there are two records of this key"));
                }
                let to = if self.levels[level].muted { Some(self.w.mute()) } else { None };
                let stays = matches!(op_ahead(&s), Some(STAY | SET_AND_STAY));
                if stays && self.levels[level].ruled {
                    // What looked like an attribute may be no such.
                    let msg = "the settings drop and default can not be told apart from keys here; load without them";
                    return Err(Stop::Error(Error::new(Code::Unsupported, msg).at(self.at).path(key)));
                }
                for i in 1..n {
                    self.prog_step(&mut s, i == 1, out)?;
                }
                if let Some(to) = to {
                    self.w.unmute(to);
                }
                if !stays {
                    self.levels.pop();
                }
            }
            _ => return Err(Stop::Wrong("the value is none of a pickle's")),
        }
        if self.parts.iter().any(|p| !p.1) {
            return Err(Stop::Wrong("a part that is not used"));
        }
        Ok(())
    }

    /// The level that the record says.
    #[inline(never)]
    fn level(&mut self, s: &mut Source<'_>) -> Done<usize> {
        if !self.open {
            return Err(Stop::Wrong("the record that begins the pickle is not there"));
        }
        match s.head() {
            (UINT, n) if n < self.levels.len() as u64 => Ok(n as usize),
            (UINT, _) => Err(Stop::Wrong(ASTRAY)),
            _ => Err(Stop::Wrong("no level")),
        }
    }

    #[inline(never)]
    fn prog_step(&mut self, s: &mut Source<'_>, first: bool, out: &mut Output<'_>) -> Done<()> {
        let op = op_ahead(s);
        if op.is_some() {
            s.head();
            s.head();
        }
        if first {
            match op {
                Some(UNSET_ALL | STAY) => return Ok(()),
                Some(SET_AND_STAY) => {
                    self.flush();
                    return Ok(());
                }
                _ => {}
            }
            self.level_defaults(out)?;
            self.flush();
        }
        match op {
            None => self.expression(s, out)?,
            Some(op) => match op {
                b'(' | b'0' | b'1' | b'a' | b'b' | b'e' | b's' | b'u' | 0x90 => self.w.op(op),
                b'd' | b'l' | b'o' | b't' | b'Q' | b'R' | 0x81 | 0x85..=0x87 | 0x91..=0x93 => {
                    self.w.op(op);
                    self.numbered(ELSE)?;
                }
                _ => return Err(Stop::Wrong("an opcode that can not stand alone")),
            },
        }
        Ok(())
    }

    /// The value of an entry, or what opens it.
    #[inline(never)]
    fn open_or_value(&mut self, s: &mut Source<'_>, partition: &str, prefix: &str, out: &mut Output<'_>) -> Done<()> {
        if !s.d[s.at..].starts_with(&[0xd9, (OPEN >> 8) as u8, OPEN as u8]) {
            return self.expression(s, out);
        }
        s.head();
        let (n, how) = match (s.head(), s.head()) {
            ((ARRAY, n), (UINT, how)) if n >= 2 && how < 16 && how & 3 < 3 => (n, how as u32),
            _ => return Err(Stop::Wrong("a container opened in no known way")),
        };
        if self.levels.len() == MAX_LEVELS {
            return Err(Stop::Wrong("too many containers inside one another"));
        }
        let mut class = None;
        let ahead = self.class_ahead(s);
        for _ in 1..n {
            if s.d[s.at..].starts_with(&[0xd9, (OP >> 8) as u8, OP as u8, 0x18, b'(']) {
                s.at += 5;
                self.w.op(b'(');
                continue;
            }
            self.expression(s, out)?;
            class.get_or_insert(ahead);
        }
        self.levels.push(Level {
            how,
            prefix: prefix.into(),
            partition: partition.into(),
            batch: 0,
            single: false,
            first: true,
            muted: false,
            class: if how & STATED != 0 { class.unwrap_or(0) } else { 0 },
            seen: 0,
            ruled: false,
        });
        Ok(())
    }

    /// Memoizes what is on top of the stack as the next object.
    #[inline(always)]
    fn numbered(&mut self, sort: u32) -> Done<()> {
        self.numbered_at(sort, self.context)
    }

    /// The same of an object that began in another context.
    #[inline(never)]
    fn numbered_at(&mut self, sort: u32, context: Context) -> Done<()> {
        let at = if self.w.muted { crate::memo::UNSET } else { self.w.memoize() };
        if !self.objects.put(self.numbers, at) {
            return Err(Stop::Error(Error::new(Code::TooLarge, "the pickle has too many objects").at(self.at)));
        }
        self.prints.push(context.print(sort));
        self.numbers += 1;
        Ok(())
    }

    /// Writes one expression.
    #[inline(never)]
    fn expression(&mut self, s: &mut Source<'_>, out: &mut Output<'_>) -> Done<()> {
        let floor = self.frames.len();
        self.frame(What::With, 1);
        while self.frames.len() > floor {
            let last = self.frames.len() - 1;
            let f = self.frames[last];
            if let (What::Items(what), true) = (f.what, f.left > 0) {
                // Items, up to one that has items itself: what most records are made of.
                let mut f = f;
                while f.left > 0 && self.frames.len() == last + 1 {
                    self.before_item(what, f);
                    f.left -= 1;
                    f.done += 1;
                    let stored = &mut self.frames[last];
                    stored.left = f.left;
                    stored.done = f.done;
                    self.next_item(s, out)?;
                }
                continue;
            }
            if f.done > 0 {
                match f.what {
                    What::Discard => self.w.op(b'0'),
                    What::Before if f.left > 0 => self.w.op(b'0'),
                    _ => {}
                }
            }
            if f.what == What::Filtered && f.done % 2 == 0 {
                if !self.filter(s, out)? {
                    self.frames.pop();
                    self.finish(Frame { what: What::Items(ASSIGN), ..f }, s)?;
                    continue;
                }
            } else if f.left == 0 {
                self.frames.pop();
                self.finish(f, s)?;
                if last == floor {
                    self.class = f.class;
                }
                continue;
            }
            let f = &mut self.frames[last];
            f.left -= 1;
            f.done += 1;
            if f.what == What::With && f.done > 1 {
                let class = f.class;
                self.group(s)?;
                if class > 0 {
                    let f = self.frames.len() - 1;
                    if self.frames[f].what == What::State {
                        self.frames[f].class = class;
                    }
                }
            } else if f.what == What::State && f.class > 0 && f.left == 0 {
                let class = f.class;
                if !self.filtered(class, s)? {
                    self.item(s, out)?;
                }
            } else {
                self.item(s, out)?;
            }
        }
        Ok(())
    }

    /// What stands between the items of a container.
    #[inline(always)]
    fn before_item(&mut self, what: u32, f: Frame) {
        let two = (what == ASSIGN) as usize;
        if f.done & two != 0 {
            return;
        }
        let entry = f.done >> two;
        if what != ADD && (f.n == 1 + two || self.w.protocol == 0) {
            if entry > 0 {
                self.w.op(single_op(what));
            }
        } else if entry as u32 % BATCH == 0 {
            if entry > 0 {
                self.w.op(batch_op(what));
            }
            self.w.op(b'(');
        }
    }

    #[inline(never)]
    fn finish(&mut self, f: Frame, s: &mut Source<'_>) -> Done<()> {
        match f.what {
            What::Items(what) => {
                let each = if what == ASSIGN { 2 } else { 1 };
                if f.n == 0 {
                } else if what != ADD && (f.n == each || self.w.protocol == 0) {
                    self.w.op(single_op(what));
                } else {
                    self.w.op(batch_op(what));
                }
            }
            What::Tuple => self.tuple(f.n, f.context)?,
            What::Called(op) => {
                self.tuple(f.n, f.context)?;
                self.w.op(op);
                self.numbered_at(ELSE, f.context)?;
            }
            What::Children(op) => {
                self.w.op(op);
                self.numbered_at(ELSE, f.context)?;
            }
            What::Inst => {
                if let Some((m, n)) = self.inst.pop() {
                    self.w.lines(b'i', &[&m, &n]);
                }
                self.numbered_at(ELSE, f.context)?;
            }
            What::State => self.w.op(b'b'),
            What::Part => {
                s.at = f.at;
                self.context = Context::PART;
            }
            What::Shared => self.numbered_at(A_SHARED, f.context)?,
            What::With | What::Discard | What::Before | What::Filtered => {}
        }
        Ok(())
    }

    /// Ends a tuple whose items have been written.
    #[inline(never)]
    fn tuple(&mut self, n: usize, context: Context) -> Done<()> {
        if n == 0 {
            self.w.ops(if self.w.protocol == 0 { b"(t" } else { b")" });
            return Ok(());
        }
        if n <= 3 && self.w.protocol >= 2 {
            self.w.op(0x84 + n as u8);
        } else {
            self.w.op(b't');
        }
        self.numbered_at(A_TUPLE, context)
    }

    /// Begins a tuple of `n` items.
    #[inline(never)]
    fn begin_tuple(&mut self, n: usize) {
        if n > 3 || (n > 0 && self.w.protocol < 2) {
            self.w.op(b'(');
        }
    }

    fn frame(&mut self, what: What, n: usize) {
        self.frames.push(Frame { what, left: n, done: 0, n, at: 0, class: 0, seen: 0, context: self.context });
    }

    /// One group of effects.
    #[inline(never)]
    fn group(&mut self, s: &mut Source<'_>) -> Done<()> {
        let (n, what) = match (s.head(), s.head()) {
            ((ARRAY, n), (UINT, what)) if n > 1 => (n as usize - 1, what as u32),
            _ => return Err(Stop::Wrong("a group of effects that is none")),
        };
        match what {
            ASSIGN if n % 2 != 0 => return Err(Stop::Wrong("a key without a value")),
            APPEND | ASSIGN | ADD => self.frame(What::Items(what), n),
            BUILD if n == 1 => self.frame(What::State, 1),
            DISCARD => self.frame(What::Discard, n),
            _ => return Err(Stop::Wrong("an effect that is not known")),
        }
        Ok(())
    }

    /// Writes an atom, or what comes before the items of a collection, and begins that.
    #[inline(never)]
    fn item(&mut self, s: &mut Source<'_>, out: &mut Output<'_>) -> Done<()> {
        self.next_item(s, out)
    }

    /// The same, in line.
    #[inline(always)]
    fn next_item(&mut self, s: &mut Source<'_>, out: &mut Output<'_>) -> Done<()> {
        self.w.boundary(out)?;
        let start = s.at;
        let b = s.d[start];
        let (major, arg) = s.head();
        match major {
            TEXT => {
                let t = s.take(arg);
                self.text(t, out)
            }
            UINT | NEGATIVE => {
                if arg <= i64::MAX as u64 {
                    self.w.int(if major == UINT { arg as i64 } else { -1 - arg as i64 });
                } else {
                    self.w.big(&arg.to_be_bytes(), major == NEGATIVE, out)?;
                }
                Ok(())
            }
            BYTES => {
                let t = s.take(arg);
                self.w.bytes(t, out)?;
                self.numbered(AN_ATOM)
            }
            ARRAY => {
                self.w.ops(if self.w.protocol == 0 { b"(l" } else { b"]" });
                self.numbered(A_LIST)?;
                self.frame(What::Items(APPEND), arg as usize);
                Ok(())
            }
            MAP => {
                self.w.ops(if self.w.protocol == 0 { b"(d" } else { b"}" });
                self.numbered(A_DICT)?;
                self.frame(What::Items(ASSIGN), 2 * arg as usize);
                Ok(())
            }
            TAG => self.tagged(arg, s, out),
            _ => {
                match b {
                    0xf4 | 0xf5 => self.w.bool(b == 0xf5),
                    0xf6 => self.w.op(b'N'),
                    0xfb => self.w.float(arg),
                    _ => return Err(Stop::Wrong("a simple value that Python does not have")),
                }
                Ok(())
            }
        }
    }

    /// Finds a text of up to 128 bytes among the names, or makes it one.
    #[inline(always)]
    fn name(&mut self, t: &[u8]) -> Found {
        if let Some(id) = self.names.after(self.last, t) {
            self.last = id;
            self.context.say(self.names.hash(id));
            return Found::Old(id);
        }
        let hash = crate::names::hash(t);
        self.context.say(hash);
        let found = self.names.find_hashed(t, hash, true);
        if let Found::Old(id) = found {
            self.names.follow(self.last, id);
            self.last = id;
        }
        found
    }

    #[inline(never)]
    fn text(&mut self, t: &[u8], out: &mut Output<'_>) -> Done<()> {
        let found = if t.len() <= MAX_NAME { self.name(t) } else { Found::No };
        match found {
            Found::Old(id) if self.names.known(id) != crate::memo::UNSET => {
                self.w.get(self.names.known(id));
            }
            Found::Old(id) | Found::New(id) if self.w.muted => {
                self.names.know(id, crate::memo::UNSET);
            }
            Found::Old(id) | Found::New(id) => {
                self.w.text(utf8(t)?, out)?;
                let at = self.w.memoize();
                self.names.know(id, at);
            }
            Found::No => {
                self.w.text(utf8(t)?, out)?;
                if t.len() > MAX_NAME {
                    self.numbered(AN_ATOM)?;
                }
            }
        }
        Ok(())
    }

    /// The names of a global: a text, or two, each of which may be an object of its own.
    #[inline(never)]
    fn names_of(&self, s: &mut Source<'_>) -> Done<Named> {
        match s.head() {
            (TEXT, n) => {
                let t = utf8(s.take(n))?;
                let at = t.iter().position(|b| *b == b':').or_else(|| t.iter().rposition(|b| *b == b'.'));
                match at {
                    Some(at) => Ok(Named { names: (t[..at].to_vec(), t[at + 1..].to_vec()), own: [false; 2] }),
                    None => Err(Stop::Wrong("a global without a module")),
                }
            }
            (ARRAY, 2) => {
                let mut names = [Vec::new(), Vec::new()];
                let mut own = [false; 2];
                for (n, own) in names.iter_mut().zip(&mut own) {
                    let mut head = s.head();
                    if head == (TAG, OWN) {
                        *own = true;
                        head = s.head();
                    }
                    match head {
                        (TEXT, k) => *n = utf8(s.take(k))?.to_vec(),
                        _ => return Err(Stop::Wrong("the name of a global is text")),
                    }
                }
                let [m, n] = names;
                Ok(Named { names: (m, n), own })
            }
            _ => Err(Stop::Wrong("no global")),
        }
    }

    #[inline(never)]
    fn global(&mut self, s: &mut Source<'_>, out: &mut Output<'_>) -> Done<()> {
        let start = s.at;
        let Named { names, own } = self.names_of(s)?;
        self.context.say(crate::names::hash(&s.d[start..s.at]));
        let context = self.context;
        let done = self.named(names, own, &s.d[start..s.at], out);
        self.context = context;
        done
    }

    #[inline(never)]
    fn named(&mut self, names: (Vec<u8>, Vec<u8>), own: [bool; 2], key: &[u8], out: &mut Output<'_>) -> Done<()> {
        let context = self.context;
        let owned = own != [false; 2];
        let plain;
        let key = if owned {
            plain = crate::node::encode_global(&names.0, &names.1, [false; 2]);
            &plain[..]
        } else {
            key
        };
        let new = self.settings.rules.renamed(&names.0, &names.1);
        if owned && new.is_some() {
            // These texts stay what they are, apart from the class.
            for (t, own) in [(&names.0, own[0]), (&names.1, own[1])] {
                if own {
                    self.w.text(t, out)?;
                    self.numbered(AN_ATOM)?;
                    self.w.op(b'0');
                }
            }
            return self.named(names, [false; 2], key, out);
        }
        let (m, n) = new.unwrap_or(names);
        if !self.settings.rules.classes.is_empty() {
            self.class = if Rules::makes_first(&m, &n) { FIRST } else { self.settings.rules.of(&m, &n) };
        }
        if !owned {
            if let Some(at) = self.globals.get(key) {
                self.w.get(*at);
                return Ok(());
            }
        }
        if owned || self.w.protocol >= 4 {
            if self.w.muted && !owned {
                return Ok(());
            }
            for (t, own) in [(&m, own[0]), (&n, own[1])] {
                self.w.boundary(out)?;
                if own {
                    self.w.text(t, out)?;
                    self.numbered_at(AN_ATOM, context)?;
                } else {
                    self.text(t, out)?;
                }
            }
            self.w.op(0x93);
        } else {
            if m.contains(&b'\n') || n.contains(&b'\n') {
                return Err(Stop::Wrong("the name of a global has a line feed"));
            }
            self.w.lines(b'c', &[&m, &n]);
        }
        if !self.w.muted && !self.globals.contains_key(key) {
            let at = self.w.memoize();
            self.globals.insert(key.to_vec(), at);
        }
        Ok(())
    }

    /// The names of a global as they are now.
    #[inline(never)]
    fn renamed(&self, names: (Vec<u8>, Vec<u8>)) -> (Vec<u8>, Vec<u8>) {
        self.settings.rules.renamed(&names.0, &names.1).unwrap_or(names)
    }

    /// Says whose state comes: of the object that begins here, whose class was just read.
    #[inline(never)]
    fn of_object(&mut self, s: &Source<'_>) {
        if self.class == FIRST {
            self.class = 0;
            if s.d[s.at..].starts_with(&[0xd9, (GLOBAL >> 8) as u8, GLOBAL as u8]) {
                let mut ahead = Source { d: s.d, at: s.at + 3 };
                if let Ok(named) = self.names_of(&mut ahead) {
                    let (m, n) = self.renamed(named.names);
                    self.class = self.settings.rules.of(&m, &n);
                }
            }
        }
        if let Some(f) = self.frames.last_mut() {
            if matches!(f.what, What::State | What::With) && f.done == 1 {
                f.class = self.class;
            }
        }
    }

    /// What the rules say of the class of the object that begins here, and 1; 0 if nothing.
    #[inline(never)]
    fn class_ahead(&mut self, s: &Source<'_>) -> u32 {
        if self.settings.rules.classes.is_empty() {
            return 0;
        }
        let mut s = Source { d: s.d, at: s.at };
        let tag = match (s.head(), s.head()) {
            ((TAG, t), (ARRAY, n)) if n > 0 => t,
            _ => return 0,
        };
        let before = s.at;
        let global = match tag {
            OBJECT | REDUCE | INST => true,
            CALL | NEWOBJ | NEWOBJ_EX | OBJ => s.head() == (TAG, GLOBAL),
            _ => false,
        };
        if !global {
            if tag == CALL {
                return self.of_partial(&s.d[before..]).unwrap_or(0);
            }
            return 0;
        }
        let class = |s: &mut Source<'_>| {
            let named = self.names_of(s).ok()?;
            let (m, n) = self.renamed(named.names);
            Some((Rules::makes_first(&m, &n), self.settings.rules.of(&m, &n)))
        };
        match class(&mut s) {
            Some((false, class)) => return class,
            Some((true, _)) => {}
            None => return 0,
        }
        if matches!(tag, CALL | NEWOBJ | NEWOBJ_EX) && (s.head().0, s.head().0) != (TAG, ARRAY) {
            return 0;
        }
        match s.head() {
            (TAG, GLOBAL) => class(&mut s).map_or(0, |c| c.1),
            _ => 0,
        }
    }

    /// What the rules say of the first argument of `functools.partial(cls.__new__, cls, …)`, which is called.
    #[inline(never)]
    fn of_partial(&self, d: &[u8]) -> Option<u32> {
        let state = [0xd9, (STATE >> 8) as u8, STATE as u8, 0x82, 0xd9, (REDUCE >> 8) as u8, REDUCE as u8];
        let mut s = Source { d, at: state.len() };
        if !d.starts_with(&state) || s.head().0 != ARRAY {
            return None;
        }
        let (m, n) = self.names_of(&mut s).ok()?.names;
        if !crate::rules::makes_partial(&m, &n) {
            return None;
        }
        let mut r = Reader::new(&d[4..]);
        r.item().ok()?;
        s.at = 4 + r.offset();
        let mut open = || match (s.head(), s.head()) {
            ((TAG, TUPLE), (ARRAY, n)) if n > 0 => {
                let at = s.at;
                let mut r = Reader::new(&d[at..]);
                r.item().ok()?;
                s.at = at + r.offset();
                Some(at)
            }
            _ => None,
        };
        open()?;
        let at = open()?;
        let mut s = Source { d, at };
        if s.head() != (TAG, GLOBAL) {
            return None;
        }
        let (m, n) = self.renamed(self.names_of(&mut s).ok()?.names);
        Some(self.settings.rules.of(&m, &n))
    }

    /// Whether a state begins here that has attributes which the rules are about; then it is begun.
    #[inline(never)]
    fn filtered(&mut self, class: u32, s: &mut Source<'_>) -> Done<bool> {
        if self.w.muted {
            return Ok(false);
        }
        // A state of slots is a tuple of null and a dict.
        let slots = s.d[s.at..].starts_with(&[0xd9, (TUPLE >> 8) as u8, TUPLE as u8, 0x82, 0xf6]);
        let at = if slots { s.at + 5 } else { s.at };
        if s.d.get(at).map_or(true, |b| b >> 5 != MAP) {
            return Ok(false);
        }
        if slots {
            self.begin_tuple(2);
            self.w.op(b'N');
            self.frame(What::Tuple, 2);
            if let Some(f) = self.frames.last_mut() {
                f.left = 0;
                f.done = 2;
            }
        }
        let class = class as usize - 1;
        let rules = &self.settings.rules.classes[class];
        let mut r = Reader::new(&s.d[at..]);
        let fault = |_| Stop::Wrong("a dict that ends early");
        let pairs = r.map().map_err(fault)?;
        let (mut kept, mut seen) = (0, 0);
        s.at = at + r.offset();
        for _ in 0..pairs {
            let key = key_text(r.item().map_err(fault)?);
            r.item().map_err(fault)?;
            seen |= rules.bit(key);
            kept += !rules.drops(key) as usize;
        }
        kept += (rules.bits() & !seen).count_ones() as usize;
        self.w.ops(if self.w.protocol == 0 { b"(d" } else { b"}" });
        self.numbered(A_DICT)?;
        self.frame(What::Filtered, 2 * pairs);
        if let Some(f) = self.frames.last_mut() {
            f.n = 2 * kept;
            f.class = class as u32 + 1;
            f.seen = seen;
        }
        Ok(true)
    }

    /// Between the attributes of a state that rules apply to; false once all are written.
    #[inline(never)]
    fn filter(&mut self, s: &mut Source<'_>, out: &mut Output<'_>) -> Done<bool> {
        let last = self.frames.len() - 1;
        let class = &self.settings.rules.classes[self.frames[last].class as usize - 1];
        while self.frames[last].left > 0 && class.drops(key_text(&s.d[s.at..])) {
            self.mute(s, 2, out)?;
            self.frames[last].left -= 2;
        }
        let mut f = self.frames[last];
        if f.left > 0 {
            self.before_item(ASSIGN, f);
            return Ok(true);
        }
        for (at, d) in class.default.iter().enumerate() {
            if f.seen & 1 << at == 0 {
                self.before_item(ASSIGN, f);
                self.default(d, out)?;
                f.done += 2;
            }
        }
        Ok(false)
    }

    #[inline(never)]
    fn array(&mut self, s: &mut Source<'_>, least: u64, most: u64) -> Done<usize> {
        match s.head() {
            (ARRAY, n) if n >= least && n <= most => Ok(n as usize),
            _ => Err(Stop::Wrong("an array of another length expected")),
        }
    }

    #[inline(never)]
    fn tagged(&mut self, t: u64, s: &mut Source<'_>, out: &mut Output<'_>) -> Done<()> {
        const ANY: u64 = u64::MAX;
        match t {
            REF => {
                let at = self.reference(s)?;
                self.w.get(at);
            }
            STATE => {
                self.array(s, 2, 2)?;
                let class = self.class_ahead(s);
                self.frame(What::State, 2);
                if let Some(f) = self.frames.last_mut() {
                    f.class = class;
                }
            }
            OBJECT | REDUCE => {
                let n = self.array(s, 1, ANY)?;
                self.w.boundary(out)?;
                self.global(s, out)?;
                if self.class > 0 {
                    self.of_object(s);
                }
                self.w.boundary(out)?;
                self.begin_tuple(n - 1);
                self.frame(What::Called(if t == OBJECT { 0x81 } else { b'R' }), n - 1);
            }
            TUPLE => {
                let n = self.array(s, 0, ANY)?;
                self.begin_tuple(n);
                self.frame(What::Tuple, n);
            }
            _ => return self.rare(t, s, out),
        }
        Ok(())
    }

    #[inline(never)]
    fn rare(&mut self, t: u64, s: &mut Source<'_>, out: &mut Output<'_>) -> Done<()> {
        const ANY: u64 = u64::MAX;
        match t {
            2 | 3 => match s.head() {
                (BYTES, n) => {
                    let mag = s.take(n);
                    if self.w.protocol < 2 && mag.len() > crate::number::MAX_DECIMAL_BYTES {
                        return Err(Stop::Wrong("an int that is too long to be written in decimal"));
                    }
                    self.w.big(mag, t == 3, out)?;
                }
                _ => return Err(Stop::Wrong("a big int is bytes")),
            },
            WITH => {
                let n = self.array(s, 2, ANY)?;
                let class = self.class_ahead(s);
                self.frame(What::With, n);
                if let Some(f) = self.frames.last_mut() {
                    f.class = class;
                }
            }
            SET => {
                let n = self.array(s, 0, ANY)?;
                self.w.op(0x8f);
                self.numbered(A_SET)?;
                self.frame(What::Items(ADD), n);
            }
            FROZENSET => {
                let n = self.array(s, 0, ANY)?;
                self.w.op(b'(');
                self.frame(What::Children(0x91), n);
            }
            GLOBAL => self.global(s, out)?,
            CALL | NEWOBJ => {
                self.array(s, 2, 2)?;
                self.frame(What::Children(if t == CALL { b'R' } else { 0x81 }), 2);
            }
            NEWOBJ_EX => {
                self.array(s, 3, 3)?;
                self.frame(What::Children(0x92), 3);
            }
            OBJ => {
                let n = self.array(s, 1, ANY)?;
                self.w.op(b'(');
                self.frame(What::Children(b'o'), n);
            }
            INST => {
                let n = self.array(s, 1, ANY)?;
                let Named { names, own } = self.names_of(s)?;
                if own != [false; 2] {
                    return Err(Stop::Wrong("the names of this global are no objects"));
                }
                if names.0.contains(&b'\n') || names.1.contains(&b'\n') {
                    return Err(Stop::Wrong("the name of a global has a line feed"));
                }
                let names = self.renamed(names);
                self.class = self.settings.rules.of(&names.0, &names.1);
                self.of_object(s);
                self.inst.push(names);
                self.w.op(b'(');
                self.frame(What::Inst, n - 1);
            }
            OWN => match s.head() {
                (TEXT, n) => {
                    self.w.text(utf8(s.take(n))?, out)?;
                    self.numbered(AN_ATOM)?;
                }
                _ => return Err(Stop::Wrong("text expected")),
            },
            WTF8 | STR | BYTEARRAY => match s.head() {
                (BYTES, n) => {
                    let b = s.take(n);
                    match t {
                        STR => self.w.str2(b, out)?,
                        BYTEARRAY => self.w.bytearray(b, out)?,
                        _ if !crate::text::with_surrogates(b) => return Err(Stop::Wrong(NOT_UTF8)),
                        _ => self.w.text(b, out)?,
                    }
                    self.numbered(AN_ATOM)?;
                }
                _ => return Err(Stop::Wrong("bytes expected")),
            },
            PERSID => {
                let b = match s.head() {
                    (TEXT | BYTES, n) => s.take(n),
                    _ => return Err(Stop::Wrong("a persistent id is text or bytes")),
                };
                if b.contains(&b'\n') {
                    return Err(Stop::Wrong("a persistent id has a line feed"));
                }
                self.w.lines(b'P', &[b]);
                self.numbered(AN_ATOM)?;
            }
            BINPERSID => self.frame(What::Children(b'Q'), 1),
            EXT => match s.head() {
                (UINT, n @ 1..=0x7fff_ffff) => {
                    let b = (n as u32).to_le_bytes();
                    match n {
                        0..=0xff => self.w.ops(&[0x82, b[0]]),
                        0..=0xffff => self.w.ops(&[0x83, b[0], b[1]]),
                        _ => self.w.ops(&[0x84, b[0], b[1], b[2], b[3]]),
                    }
                    self.numbered(AN_ATOM)?;
                }
                _ => return Err(Stop::Wrong("no extension code")),
            },
            MADE => {
                self.w.op(b'(');
                match s.head() {
                    (ARRAY, n) if n > 0 => self.frame(What::Children(b'l'), n as usize),
                    (MAP, n) if n > 0 => self.frame(What::Children(b'd'), 2 * n as usize),
                    _ => return Err(Stop::Wrong("a list or dict expected")),
                }
            }
            BEFORE => {
                let n = self.array(s, 2, ANY)?;
                self.frame(What::Before, n);
            }
            COMPUTED => {
                self.array(s, 2, 2)?;
                self.frame(What::Children(0x93), 2);
            }
            SHARED => self.frame(What::Shared, 1),
            PART => {
                let at = match s.head() {
                    (UINT, n) if n > 0 && n <= self.parts.len() as u64 => n as usize - 1,
                    _ => return Err(Stop::Wrong("there is no such part")),
                };
                if self.parts[at].1 {
                    return Err(Stop::Wrong("a part is used twice"));
                }
                self.parts[at].1 = true;
                self.frame(What::Part, 1);
                if let Some(f) = self.frames.last_mut() {
                    f.at = s.at;
                }
                s.at = self.parts[at].0;
                self.context = Context::default();
            }
            _ => return Err(Stop::Wrong("a tag that this serializer does not know")),
        }
        Ok(())
    }

    /// The memo index of what is referred to.
    #[inline(always)]
    fn reference(&mut self, s: &mut Source<'_>) -> Done<u32> {
        let number = match s.head() {
            (UINT, n) => (self.base as u64).checked_add(n),
            (ARRAY, n @ 3..=4) => {
                return self.far(s, n);
            }
            _ => return Err(Stop::Wrong("no reference")),
        };
        self.object(number)
    }

    fn object(&mut self, number: Option<u64>) -> Done<u32> {
        match number {
            Some(n) if n < self.numbers as u64 => {
                let at = self.objects.get(n as u32);
                if at == crate::memo::UNSET && !self.w.muted {
                    let msg = "a reference to an object that the setting drop drops; do not drop it";
                    return Err(Stop::Error(Error::new(Code::Unsupported, msg).at(self.at)));
                }
                Ok(at)
            }
            _ => Err(Stop::Wrong("a reference to an object that does not come before it")),
        }
    }

    #[inline(never)]
    fn far(&mut self, s: &mut Source<'_>, n: u64) -> Done<u32> {
        let mut names = [""; 2];
        for name in &mut names[4 - n as usize..] {
            *name = match s.head() {
                (TEXT, n) => std::str::from_utf8(s.take(n)).unwrap_or(""),
                _ => return Err(Stop::Wrong("the key in a reference is text")),
            };
        }
        let base = if n == 4 { self.table.find(names[0], names[1]) } else { self.table.find_here(names[1].as_bytes()) };
        let number = match (base, s.head()) {
            (Some(base), (UINT, n)) => (base as u64).checked_add(n),
            (None, _) => return Err(Stop::Wrong("a reference to a record that does not come before it")),
            _ => return Err(Stop::Wrong("no reference")),
        };
        let at = self.object(number)?;
        match (s.head(), number) {
            ((UINT, print), Some(n)) if print == self.prints[n as usize] as u64 => Ok(at),
            _ => Err(Stop::Changed(names[1].into())),
        }
    }
}

const ASTRAY: Words = "the record is not behind the others of its container";
/// The class is the first argument's.
const FIRST: u32 = u32::MAX;

const NOT_UTF8: Words = "text that is no UTF-8";

/// Text that is UTF-8: inside a value nobody has looked before.
fn utf8(t: &[u8]) -> Done<&[u8]> {
    if t.is_ascii() {
        return Ok(t);
    }
    match std::str::from_utf8(t) {
        Ok(_) => Ok(t),
        Err(_) => Err(Stop::Wrong(NOT_UTF8)),
    }
}

/// Why a record can not be loaded.
enum Stop {
    Wrong(Words),
    /// A reference into the record of this key does not fit what is there.
    Changed(String),
    Error(Error),
}

impl From<Error> for Stop {
    fn from(e: Error) -> Stop {
        Stop::Error(e)
    }
}

/// The opcode that the next step is, if it is one.
fn op_ahead(s: &Source<'_>) -> Option<u8> {
    let mut s = Source { d: s.d, at: s.at };
    match (s.head(), s.head()) {
        ((TAG, OP), (UINT, n)) if n < 256 => Some(n as u8),
        _ => None,
    }
}

/// The text that an encoded key is, or nothing.
#[inline(never)]
fn key_text(d: &[u8]) -> &[u8] {
    let mut s = Source { d, at: 0 };
    if d.starts_with(&[0xd9, (OWN >> 8) as u8, OWN as u8]) {
        s.at = 3;
    }
    match s.head() {
        (TEXT, n) => s.take(n),
        _ => &[],
    }
}

fn single_op(what: u32) -> u8 {
    if what == APPEND {
        b'a'
    } else {
        b's'
    }
}

fn batch_op(what: u32) -> u8 {
    match what {
        APPEND => b'e',
        ASSIGN => b'u',
        _ => 0x90,
    }
}

/// Reads the next record, of any size, into `record`; false at the end.
#[inline(never)]
pub fn next(input: &mut Input<'_>, record: &mut Vec<u8>) -> Result<bool> {
    let mut checker = Checker::new();
    let mut from = 0;
    loop {
        match checker.check(input.bytes(), from) {
            Ok(Step::Whole(end)) => {
                record.extend_from_slice(&input.bytes()[..end]);
                input.consume(end);
                return Ok(true);
            }
            Ok(Step::Short(at)) if input.is_full() => {
                record.extend_from_slice(&input.bytes()[..at]);
                input.consume(at);
                from = 0;
            }
            Ok(Step::Short(at)) => from = at,
            Err(f) => return Err(f.error(input.offset())),
        }
        if !input.fill()? {
            if record.is_empty() && input.bytes().is_empty() {
                return Ok(false);
            }
            let at = input.offset() + input.bytes().len() as u64;
            return Err(Error::corrupt(at, "the input ends inside a record"));
        }
    }
}
