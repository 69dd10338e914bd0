//! Reads pickles: a machine that runs the opcodes but builds expressions instead of objects, so that
//! nothing is imported and nothing is called.

use torpor::cbor::{encode_head, BYTES, NEGATIVE, TEXT, UINT};
use torpor::{Code, Error, Input, Output, Result, Text};

use crate::form::*;
use crate::memo::{Memo, MAX_ENTRIES, UNSET};
use crate::names::Found;
use crate::node::*;
use crate::number::{self, Int};
use crate::ops;
use crate::records::{Records, Step, Steps};
use crate::text;

/// How long a string may be, in bytes.
pub const MAX_STRING: u64 = 64 << 20;

/// How long a line of a text opcode may be.
const MAX_LINE: usize = 16 << 20;

/// How many values may be on the stack.
const MAX_STACK: usize = 4 << 20;

/// How many bytes of expressions are held until they can be written.
const MAX_HELD: usize = 64 << 20;

/// How many expressions are held.
const MAX_NODES: usize = 1_500_000;

/// How many nodes, and bytes, of expressions are held before as much as can be is written.
const PRESSURE: usize = 100_000;
const PRESSURE_BYTES: usize = 4 << 20;

/// How many nodes are held before a guess is made where two ways to go on are alike.
const GUESS: usize = 800_000;

/// How many globals a pickle may name.
const MAX_GLOBALS: usize = 1 << 20;

/// How long the module and the name of a global may be together, in bytes.
const MAX_GLOBAL: usize = 4 << 10;

/// How many bytes of long names of globals, which each use writes again, a pickle may have, and how many
/// more for each byte of it.
const MAX_REPEATED: u64 = 1 << 20;
const REPEATED_PER_BYTE: u64 = 16;

/// How many short texts that are objects of their own are known by content, for STACK_GLOBAL.
const MAX_OWN: usize = 4 << 20;

/// A slot of the stack that is a mark.
const MARK: u32 = NIL - 1;

// What a memo entry is.
const IS_NAME: u32 = 1 << 30;
const IS_KEPT: u32 = 2 << 30;
const MAX_NUMBER: u32 = IS_NAME - 1;

#[derive(Clone, Copy)]
struct Slot {
    node: u32,
    first: u32,  // the first node that was evaluated for it
    before: u32, // of a mark: what was evaluated and discarded before it
    before_last: u32,
}

/// Values discarded, to be said with the next one.
#[derive(Clone, Copy)]
struct Discarded {
    head: u32,
    tail: u32,
    first: u32,
}

/// A container on the stack whose entries are being written.
#[derive(Clone, Copy)]
struct OpenSlot {
    at: usize,
    how: u32,
    uncertain: u32, // entries written that the container has not been seen to take
}

/// The machine.
pub struct Machine<'s, 'i, 'b, 'o, 'p> {
    r: Records<'s>,
    input: &'i mut Input<'b>,
    out: &'o mut Output<'p>,
    stack: Vec<Slot>,
    marks: Vec<u32>,
    memo: Memo,
    kept: Vec<Node>, // memo entries that have no number
    kept_bytes: Vec<Vec<u8>>,
    kept_size: usize,
    own: Vec<(u32, u32)>, // numbers of texts that are objects of their own, and the names equal to them
    repeated: u64,        // bytes of long names of globals
    numbers: u32,
    discarded: Option<Discarded>,
    levels: Vec<OpenSlot>,
    guessed: Vec<usize>, // slots of entries written that may take what lies above them after all
    has_rules: bool,
    live: usize, // slots below are written
    pressure: usize,
    pressure_bytes: usize,
    guess: usize,
    protocol: Option<u8>,
    frame_end: u64,
    op_at: u64,
    op: u8,
    line: Vec<u8>,
}

/// The opcode of an effect.
fn effect_op(what: u32, marked: bool) -> u8 {
    match (what, marked) {
        (APPEND, true) => b'e',
        (APPEND, false) => b'a',
        (ASSIGN, true) => b'u',
        (ASSIGN, false) => b's',
        _ => 0x90,
    }
}

fn le(b: &[u8]) -> u64 {
    b.iter().rev().fold(0, |v, b| v << 8 | *b as u64)
}

impl<'s, 'i, 'b, 'o, 'p> Machine<'s, 'i, 'b, 'o, 'p> {
    pub fn new(r: Records<'s>, input: &'i mut Input<'b>, out: &'o mut Output<'p>) -> Self {
        Machine {
            has_rules: !r.settings.rules.classes.is_empty(),
            r,
            input,
            out,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Memo::new(),
            kept: Vec::new(),
            kept_bytes: Vec::new(),
            kept_size: 0,
            own: Vec::new(),
            repeated: 0,
            numbers: 0,
            discarded: None,
            levels: Vec::new(),
            guessed: Vec::new(),
            live: 0,
            pressure: PRESSURE,
            pressure_bytes: PRESSURE_BYTES,
            guess: GUESS,
            protocol: None,
            frame_end: 0,
            op_at: 0,
            op: 0,
            line: Vec::new(),
        }
    }

    /// Reads all pickles of the input.
    pub fn run(&mut self) -> Result<()> {
        let mut first = true;
        loop {
            if self.input.bytes().is_empty() && !self.input.fill()? {
                if first {
                    return Err(Error::corrupt(0, "an empty input is no pickle"));
                }
                return Ok(());
            }
            first = false;
            self.document()?;
        }
    }

    #[inline(never)]
    fn document(&mut self) -> Result<()> {
        self.r.begin();
        self.stack.clear();
        self.marks.clear();
        self.memo = Memo::new();
        self.kept.clear();
        self.kept_bytes.clear();
        self.kept_size = 0;
        self.own.clear();
        self.repeated = 0;
        self.numbers = 0;
        self.discarded = None;
        self.levels.clear();
        self.guessed.clear();
        self.live = 0;
        self.pressure = PRESSURE;
        self.pressure_bytes = PRESSURE_BYTES;
        self.protocol = None;
        self.frame_end = 0;
        if self.input.bytes().first() == Some(&0x80) {
            self.op_at = self.input.offset();
            self.op = 0x80;
            let p = self.need(2)?[1];
            if p > 5 {
                let msg = Text::new().str("a pickle of protocol ").num(p as u64).str("; this serializer reads 0 to 5");
                return Err(Error::new(Code::Version, msg).at(self.op_at));
            }
            self.input.consume(2);
            if p >= 2 {
                self.protocol = Some(p);
            }
        }
        while !self.step()? {}
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn wrong(&self, what: &str) -> Error {
        let name = ops::name(self.op);
        Error::corrupt(self.op_at, Text::new().str(name).str(": ").str(what))
    }

    #[cold]
    #[inline(never)]
    fn large(&self, what: &str, limit: u64) -> Error {
        let msg = Text::new().str(ops::name(self.op)).str(": ").str(what).str("; the limit is ").num(limit);
        Error::new(Code::TooLarge, msg).at(self.op_at)
    }

    #[cold]
    #[inline(never)]
    fn ends(&self) -> Error {
        let at = self.input.offset() + self.input.bytes().len() as u64;
        let msg = Text::new().str("the input ends inside a pickle, in ").str(ops::name(self.op));
        Error::corrupt(at, msg)
    }

    /// The next `n` bytes, which are few.
    #[inline(always)]
    fn need(&mut self, n: usize) -> Result<&[u8]> {
        if self.input.bytes().len() < n {
            self.more(n)?;
        }
        Ok(&self.input.bytes()[..n])
    }

    #[cold]
    #[inline(never)]
    fn more(&mut self, n: usize) -> Result<()> {
        while self.input.bytes().len() < n {
            if !self.input.fill()? {
                return Err(self.ends());
            }
        }
        Ok(())
    }

    /// Reads up to the next line feed, which is left out, into `line`.
    #[inline(never)]
    fn line(&mut self) -> Result<()> {
        self.line.clear();
        loop {
            let w = self.input.bytes();
            if let Some(n) = w.iter().position(|b| *b == b'\n') {
                self.line.extend_from_slice(&w[..n]);
                self.input.consume(n + 1);
                break;
            }
            let n = w.len();
            self.line.extend_from_slice(w);
            self.input.consume(n);
            if self.line.len() > MAX_LINE {
                break;
            }
            if !self.input.fill()? {
                return Err(self.ends());
            }
        }
        if self.line.len() > MAX_LINE {
            return Err(self.large("a line that is too long", MAX_LINE as u64));
        }
        Ok(())
    }

    /// Copies `n` bytes of the input to the end of the arena.
    fn copy(&mut self, n: u64) -> Result<()> {
        if n > MAX_STRING {
            return Err(self.large("a string that is too long", MAX_STRING));
        }
        self.room(n as usize)?;
        let mut left = n as usize;
        loop {
            let w = self.input.bytes();
            let k = left.min(w.len());
            self.r.arena.bytes.extend_from_slice(&w[..k]);
            self.input.consume(k);
            left -= k;
            if left == 0 {
                return Ok(());
            }
            if !self.input.fill()? {
                return Err(self.ends());
            }
        }
    }

    /// An error if so many bytes more can not be held.
    #[inline(never)]
    fn room(&self, n: usize) -> Result<()> {
        let a = &self.r.arena;
        if a.bytes.len() + self.kept_size + n + a.nodes.len() * 40 > MAX_HELD + MAX_HELD / 4 {
            return Err(self.large("more than can be held at once, in bytes", MAX_HELD as u64));
        }
        Ok(())
    }

    /// Binary or text, where no protocol is told.
    #[inline(always)]
    fn shows(&mut self, protocol: u8) {
        if self.protocol.is_none() {
            self.protocol = Some(protocol);
        }
    }

    // Pushing.

    #[inline(never)]
    fn push(&mut self, n: Node) -> Result<()> {
        self.push_new(n)
    }

    /// The same, in line: so that the node is made where it will lie.
    #[inline(always)]
    fn push_new(&mut self, n: Node) -> Result<()> {
        let first = self.r.arena.end();
        let node = self.r.arena.add(n);
        self.stack.push(Slot { node, first, before: NIL, before_last: NIL });
        if self.discarded.is_some() {
            self.push_discarded();
        }
        if self.r.arena.nodes.len() > MAX_NODES {
            return Err(self.large("more than can be held at once, in expressions", MAX_NODES as u64));
        }
        if self.stack.len() > MAX_STACK {
            return Err(self.large("a stack that is too deep", MAX_STACK as u64));
        }
        Ok(())
    }

    /// Says what was discarded with the value that was just pushed.
    #[cold]
    #[inline(never)]
    fn push_discarded(&mut self) {
        if let (Some(d), Some(slot)) = (self.discarded.take(), self.stack.last_mut()) {
            slot.first = d.first;
            let n = self.r.arena.get_mut(slot.node);
            n.before = d.head;
            n.before_last = d.tail;
        }
    }

    /// Pushes a node of which only its kind, `a` and its number are told.
    #[inline(never)]
    fn push_small(&mut self, kind: Kind, a: u32, num: u32) -> Result<()> {
        self.push_new(Node { a, num, ..Node::new(kind) })
    }

    #[inline(always)]
    fn number(&mut self) -> Result<u32> {
        let n = self.numbers;
        if n == MAX_NUMBER {
            return Err(self.large("too many objects", MAX_NUMBER as u64));
        }
        self.numbers += 1;
        Ok(n)
    }

    #[inline(never)]
    fn push_inline(&mut self, b: [u8; 8], len: usize) -> Result<()> {
        let w = u64::from_le_bytes(b);
        self.push_new(Node { a: w as u32, b: (w >> 32) as u32, n: len as u32, ..Node::new(Kind::Inline) })
    }

    #[inline(never)]
    fn push_int(&mut self, v: i64) -> Result<()> {
        let (major, arg) = if v < 0 { (NEGATIVE, -1 - v) } else { (UINT, v) };
        if arg < 24 {
            return self.push_inline([major << 5 | arg as u8, 0, 0, 0, 0, 0, 0, 0], 1);
        }
        let mut head = [0; 9];
        let n = encode_head(&mut head, major, arg as u64);
        if n <= 8 {
            let mut b = [0; 8];
            b[..n].copy_from_slice(&head[..n]);
            return self.push_inline(b, n);
        }
        let at = self.r.arena.bytes_end();
        self.r.arena.bytes.extend_from_slice(&head);
        self.push_raw(at, false, 0)
    }

    /// Pushes what lies in the arena from `at` on.
    #[inline(never)]
    fn push_raw(&mut self, at: u32, numbered: bool, flags: u8) -> Result<()> {
        let mut n = Node::new(Kind::Raw);
        n.a = at;
        n.b = self.r.arena.bytes_end().wrapping_sub(at);
        n.flags = flags;
        if numbered {
            n.num = self.number()?;
        }
        self.room(0)?;
        self.push_new(n)
    }

    #[inline(never)]
    fn push_number(&mut self, v: Int) -> Result<()> {
        match v {
            Int::Small(v) => self.push_int(v),
            Int::Big(mag, negative) => {
                self.room(mag.len())?;
                let at = self.r.arena.bytes_end();
                let out = &mut self.r.arena.bytes;
                if mag.len() <= 8 {
                    let arg = mag.iter().fold(0u64, |v, b| v << 8 | *b as u64);
                    head(out, if negative { NEGATIVE } else { UINT }, arg);
                } else {
                    out.push(0xc2 + negative as u8);
                    head(out, BYTES, mag.len() as u64);
                    out.extend_from_slice(&mag);
                }
                self.push_raw(at, false, 0)
            }
        }
    }

    /// Pushes a payload of `n` bytes of the input as a string of `major` type under a tag.
    #[inline(never)]
    fn push_payload(&mut self, t: u64, major: u8, n: u64) -> Result<()> {
        if n > MAX_STRING {
            return Err(self.large("a string that is too long", MAX_STRING));
        }
        let at = self.r.arena.bytes_end();
        let out = &mut self.r.arena.bytes;
        if t != 0 {
            tag(out, t);
        }
        head(out, major, n);
        self.copy(n)?;
        self.push_raw(at, true, 0)
    }

    /// Pushes bytes under a tag.
    #[inline(never)]
    fn push_bytes(&mut self, t: u64, major: u8, b: &[u8], flags: u8) -> Result<()> {
        self.room(b.len())?;
        let at = self.r.arena.bytes_end();
        let out = &mut self.r.arena.bytes;
        if t != 0 {
            tag(out, t);
        }
        head(out, major, b.len() as u64);
        out.extend_from_slice(b);
        self.push_raw(at, true, flags)
    }

    /// Pushes a text of `n` bytes of the input.
    #[inline(never)]
    fn push_text(&mut self, n: u64) -> Result<()> {
        if n <= crate::names::MAX_NAME as u64 {
            if self.input.bytes().len() < n as usize {
                self.more(n as usize)?;
            }
            let s = &self.input.bytes()[..n as usize];
            let utf8 = s.is_ascii() || std::str::from_utf8(s).is_ok();
            match self.r.names.find(s, utf8) {
                Found::New(id) => {
                    self.input.consume(n as usize);
                    return self.push_small(Kind::Name, id, NIL);
                }
                Found::Old(id) if self.own.len() < MAX_OWN => self.own.push((self.numbers, id)),
                _ => {}
            }
            if utf8 {
                let n = n as usize;
                self.room(n)?;
                let at = self.r.arena.bytes_end();
                let out = &mut self.r.arena.bytes;
                tag(out, OWN);
                head(out, TEXT, n as u64);
                out.extend_from_slice(&self.input.bytes()[..n]);
                self.input.consume(n);
                return self.push_raw(at, true, IS_TEXT);
            }
            return self.push_own(n as usize);
        }
        let at = self.r.arena.bytes_end();
        self.copy(n)?;
        self.text_at(at)
    }

    /// Pushes a short text that is no name, or no UTF-8.
    #[inline(never)]
    fn push_own(&mut self, n: usize) -> Result<()> {
        let at = self.r.arena.bytes_end();
        self.copy(n as u64)?;
        self.text_at(at)
    }

    /// Makes the bytes at the end of the arena a text object and pushes it.
    fn text_at(&mut self, at: u32) -> Result<()> {
        let from = at.wrapping_sub(self.r.arena.bytes_base) as usize;
        let bytes = &mut self.r.arena.bytes;
        let s = &bytes[from..];
        let n = s.len();
        let utf8 = std::str::from_utf8(s).is_ok();
        if !utf8 && !text::with_surrogates(s) {
            return Err(self.wrong("text that is no UTF-8"));
        }
        let mut buf = [0; 12];
        let mut k = 0;
        if !utf8 || n <= crate::names::MAX_NAME {
            let t = if utf8 { OWN } else { WTF8 };
            buf[..3].copy_from_slice(&[0xd9, (t >> 8) as u8, t as u8]);
            k = 3;
        }
        let mut h = [0; 9];
        let m = encode_head(&mut h, if utf8 { TEXT } else { BYTES }, n as u64);
        buf[k..k + m].copy_from_slice(&h[..m]);
        k += m;
        bytes.resize(from + n + k, 0);
        bytes.copy_within(from..from + n, from + k);
        bytes[from..from + k].copy_from_slice(&buf[..k]);
        self.push_raw(at, true, IS_TEXT)
    }

    /// Pushes a text that is not in the input as it is.
    #[inline(never)]
    fn push_made_text(&mut self, s: &[u8]) -> Result<()> {
        if s.len() <= crate::names::MAX_NAME && std::str::from_utf8(s).is_ok() {
            if let Found::Old(id) = self.r.names.find(s, false) {
                if self.own.len() < MAX_OWN {
                    self.own.push((self.numbers, id));
                }
            } else {
                if let Found::New(id) = self.r.names.find(s, true) {
                    let mut node = Node::new(Kind::Name);
                    node.a = id;
                    return self.push(node);
                }
            }
        }
        self.room(s.len())?;
        let at = self.r.arena.bytes_end();
        self.r.arena.bytes.extend_from_slice(s);
        self.text_at(at)
    }

    fn push_numbered(&mut self, kind: Kind) -> Result<()> {
        let num = self.number()?;
        self.push_small(kind, NIL, num)
    }

    #[inline(never)]
    fn push_global(&mut self, module: &[u8], name: &[u8]) -> Result<()> {
        let at = self.global(module, name, [false; 2])?;
        let mut n = Node::new(Kind::Global);
        n.a = at;
        self.push(n)
    }

    /// The number of a global; `own` says which of its names are objects of their own.
    #[inline(never)]
    fn global(&mut self, module: &[u8], name: &[u8], own: [bool; 2]) -> Result<u32> {
        if self.r.globals.len() >= MAX_GLOBALS - 1 {
            return Err(self.large("too many globals", MAX_GLOBALS as u64));
        }
        if module.len() + name.len() > MAX_GLOBAL {
            return Err(self.large("the name of a global is too long", MAX_GLOBAL as u64));
        }
        let at = self.r.global(module, name, own);
        self.repeat(at)?;
        Ok(at)
    }

    /// Counts what another use of a global writes.
    fn repeat(&mut self, at: u32) -> Result<()> {
        let n = self.r.globals[at as usize].encoded.len().saturating_sub(crate::names::MAX_NAME);
        self.repeated += n as u64;
        if self.repeated > MAX_REPEATED + REPEATED_PER_BYTE * self.op_at {
            return Err(self.large("long names of globals used too often, in bytes", MAX_REPEATED));
        }
        Ok(())
    }

    /// The text that a node is for STACK_GLOBAL, and whether it is an object of its own.
    #[inline(never)]
    fn global_text(&self, n: &Node) -> Option<(Vec<u8>, bool)> {
        if n.eff != NIL {
            return None;
        }
        match n.kind {
            Kind::Name => Some((self.r.names.text(n.a).to_vec(), false)),
            Kind::Raw if n.flags & IS_TEXT != 0 && n.num != NIL => {
                let mut r = torpor::cbor::Reader::new(self.r.arena.raw(n.a, n.b));
                if r.major() == Some(torpor::cbor::TAG) {
                    r.tag().ok()?;
                }
                r.text().ok().map(|t| (t.as_bytes().to_vec(), true))
            }
            Kind::Ref => {
                let at = self.own.binary_search_by_key(&n.a, |o| o.0).ok()?;
                Some((self.r.names.text(self.own[at].1).to_vec(), false))
            }
            _ => None,
        }
    }

    // Taking from the stack.

    #[cold]
    #[inline(never)]
    fn underflow(&self) -> Error {
        self.wrong("the stack holds too little")
    }

    /// The index of the lowest of the `n` topmost values, none of which may be a mark.
    #[inline(always)]
    fn top(&mut self, n: usize) -> Result<usize> {
        if self.discarded.is_some() {
            self.settle();
        }
        let floor = self.marks.last().map_or(0, |m| *m as usize + 1);
        match self.stack.len().checked_sub(n) {
            Some(at) if at >= floor && at >= self.live => Ok(at),
            Some(at) if at >= floor => Err(self.unusual()),
            _ => Err(self.underflow()),
        }
    }

    /// Takes the topmost mark and gives its index.
    #[inline(always)]
    fn mark(&mut self) -> Result<usize> {
        if self.discarded.is_some() {
            self.settle();
        }
        match self.marks.pop() {
            Some(m) if m as usize >= self.live => Ok(m as usize),
            Some(_) => Err(self.unusual()),
            None => Err(self.wrong("there is no mark")),
        }
    }

    #[cold]
    fn unusual(&self) -> Error {
        let msg = Text::new().str(ops::name(self.op)).str(": a value of more than ").num(PRESSURE as u64);
        let msg =
            msg.str(" expressions turns out to be part of another than it seemed to be (a tuple, a call, a state)");
        Error::new(Code::TooLarge, msg).at(self.op_at)
    }

    /// Closes the innermost level, whose container must have been seen to take all its entries.
    #[inline(never)]
    fn pop_level(&mut self) -> Result<()> {
        let above = self.levels.len().checked_sub(2).map(|at| self.levels[at]);
        match (self.levels.last(), above) {
            // What looked like its only entry is the next one of the container around it.
            (Some(l), Some(o)) if l.uncertain == 1 && l.how == ASSIGN | SINGLE && o.how & 3 == ASSIGN => {
                self.r.put_steps(&Steps(vec![Step::Op(UNSET_ALL)]), self.out)?;
                let last = self.levels.len() - 1;
                self.levels[last].uncertain = 0;
                self.levels[last - 1].uncertain += 1;
            }
            (Some(l), _) if l.uncertain > 0 => return Err(self.unusual()),
            _ => {}
        }
        self.r.level_defaults(self.out)?;
        self.r.levels.pop();
        self.levels.pop();
        Ok(())
    }

    /// An effect on a value that is written: on a container after another kind of effect, or on the value
    /// of an entry that looked whole. What it needs lies above the value, from `from` on.
    #[inline(never)]
    fn late(&mut self, at: usize, op: u8, from: usize, marked: bool) -> Result<()> {
        let guessed = self.guessed.binary_search(&at).is_ok();
        let last = self.levels.len().wrapping_sub(1);
        let l = match self.levels.last() {
            Some(l) => *l,
            None => return Err(self.unusual()),
        };
        let mut steps = Steps(Vec::new());
        let held = self.live <= from && (!marked || self.stack[from - 1].before == NIL);
        if held && l.at == at && l.uncertain == 0 {
            steps.0.push(Step::Op(SET_AND_STAY));
        } else if l.at < at && guessed && (held || (op == b's' && self.live == self.stack.len())) {
            steps.0.push(Step::Op(STAY));
        } else {
            return Err(self.unusual());
        }
        if held {
            if marked {
                steps.0.push(Step::Op(b'('));
            }
            steps.0.extend(self.stack[from..].iter().map(|s| Step::Push(s.node)));
        } else {
            self.levels[last].uncertain -= 1;
        }
        steps.0.push(Step::Op(op));
        self.r.put_steps(&steps, self.out)?;
        if marked {
            self.marks.pop();
        }
        self.cut(at);
        Ok(())
    }

    fn forget_guesses(&mut self, at: usize) {
        while self.guessed.last().map_or(false, |g| *g > at) {
            self.guessed.pop();
        }
    }

    /// Takes what is written off the stack, down to a slot.
    fn cut(&mut self, at: usize) {
        self.stack.truncate(at + 1);
        self.live = at + 1;
        self.forget_guesses(at);
        self.r.arena.clear();
    }

    /// Items for a container of which a part is written; false if this is not about such.
    #[inline(never)]
    fn open_items(&mut self, what: u32, marked: bool, n: usize) -> Result<bool> {
        if self.live == 0 {
            return Ok(false);
        }
        let from = if marked {
            match self.marks.last() {
                Some(m) => *m as usize + 1,
                None => return Ok(false),
            }
        } else {
            let floor = self.marks.last().map_or(0, |m| *m as usize + 1);
            match self.stack.len().checked_sub(n) {
                Some(at) if at > floor => at,
                _ => return Ok(false),
            }
        };
        let at = from - 1 - marked as usize;
        if at >= self.live {
            return Ok(false);
        }
        if self.discarded.is_some() {
            self.settle();
        }
        // What lies in levels above is closed by default.
        while self.levels.last().map_or(false, |l| l.at > at) {
            self.pop_level()?;
        }
        let each = if what == ASSIGN { 2 } else { 1 };
        let first = self.live.max(from);
        match self.levels.last_mut() {
            Some(l) if l.at == at && l.how & 3 == what && first - from == each * l.uncertain as usize => {
                l.uncertain = 0;
            }
            _ => {
                self.late(at, effect_op(what, marked), from, marked)?;
                return Ok(true);
            }
        }
        if marked && self.stack[from - 1].before != NIL {
            return Err(self.unusual());
        }
        if (first - from) % each != 0 || (self.stack.len() - first) % each != 0 {
            return Err(self.unusual());
        }
        let mut i = first;
        while i < self.stack.len() {
            let k = if each == 2 { Some(self.stack[i].node) } else { None };
            self.r.put_entry(k, self.stack[i + each - 1].node, self.out)?;
            i += each;
        }
        if marked {
            self.marks.pop();
        }
        self.cut(at);
        Ok(true)
    }

    /// A state for a value of which a part is written; false if this is not about such.
    #[inline(never)]
    fn open_build(&mut self) -> Result<bool> {
        let n = self.stack.len();
        if self.live == 0 || n < 2 || n - 2 >= self.live || self.marks.last().map_or(false, |m| *m as usize >= n - 2) {
            return Ok(false);
        }
        if self.discarded.is_some() {
            return Err(self.unusual());
        }
        match self.levels.last() {
            Some(l) if l.at == n - 1 && l.how & STATED != 0 => {}
            Some(l) if l.at == n - 2 && self.live == n - 1 && l.uncertain == 0 => {
                let mut steps = Steps::new();
                steps.0.push(Step::Push(self.stack[n - 1].node));
                steps.0.push(Step::Op(b'b'));
                self.r.put_steps(&steps, self.out)?;
                self.r.arena.clear();
            }
            Some(l) if l.at < n - 2 => {
                self.late(n - 2, b'b', n - 1, false)?;
                return Ok(true);
            }
            _ => return Err(self.unusual()),
        }
        self.pop_level()?;
        self.stack.truncate(n - 1);
        self.live = n - 1;
        self.forget_guesses(n - 2);
        Ok(true)
    }

    /// Whether nothing more is to come for the value of a slot, by the looks of it.
    #[inline(never)]
    fn done(&self, at: usize) -> bool {
        let n = match self.stack.get(at) {
            Some(s) if s.node != MARK => self.r.arena.get(s.node),
            _ => return false,
        };
        match n.kind {
            Kind::Inline | Kind::Raw | Kind::Name | Kind::Ref | Kind::Tuple | Kind::Frozenset => true,
            Kind::Dict | Kind::List | Kind::Set if n.eff != NIL => {
                self.stack.get(at + 1).map_or(false, |s| s.node != MARK)
            }
            _ => n.eff != NIL && self.r.arena.get(n.eff_last).what() == BUILD,
        }
    }

    /// Writes as much as is certain enough, since much is held: the entries of containers whose items are
    /// on the stack.
    #[cold]
    #[inline(never)]
    fn relieve(&mut self) -> Result<()> {
        loop {
            let (how, bottom) = match self.levels.last() {
                Some(l) => (l.how, l.at + 1),
                None => (NIL, 0),
            };
            if self.live == bottom && how != NIL && self.live < self.stack.len() && self.stack[self.live].node == MARK {
                if self.stack[self.live].before != NIL {
                    break;
                }
                self.live += 1;
            } else if let (Some(l), Some(level)) = (self.levels.last(), self.r.levels.last()) {
                // Nothing more comes for a container without a mark, but for its only entry.
                let only = l.how & SINGLE != 0 && level.count == 0;
                if self.live == bottom && !only && l.uncertain == 0 {
                    if l.how & STATED != 0 || self.protocol.unwrap_or(0) == 0 || self.live == self.stack.len() {
                        break;
                    }
                    self.pop_level()?;
                    continue;
                }
            }
            let each = if how != NIL && how & 3 == ASSIGN { 2 } else { 1 };
            let v = self.live + each - 1;
            let is_mark = |s: Option<&Slot>| s.map_or(true, |s| s.node == MARK);
            if is_mark(self.stack.get(v)) || is_mark(self.stack.get(self.live)) || self.discarded.is_some() {
                break;
            }
            if let (Some(l), Some(level)) = (self.levels.last(), self.r.levels.last()) {
                // Load may set what it has at these places.
                if l.uncertain > 0 && (level.count - (l.how & SINGLE != 0) as u64) % BATCH as u64 == 0 {
                    break;
                }
            }
            let key = if each == 2 { Some(self.stack[v - 1].node) } else { None };
            let node = self.stack[v].node;
            let n = *self.r.arena.get(node);
            let above = self.stack.get(v + 1).copied();
            let forced = self.r.arena.nodes.len() > self.guess;
            // Which container goes on above the value, if any.
            let mut state = NIL;
            let mut container = v;
            let mut what = match n.kind {
                Kind::Dict => ASSIGN,
                Kind::List => APPEND,
                Kind::Set => ADD,
                _ if n.is_object() => ASSIGN,
                _ => NIL,
            };
            let plain = n.before == NIL && (n.eff == NIL || n.eff == n.eff_last);
            let of = if n.eff == NIL { NIL } else { self.r.arena.get(n.eff).what() };
            match above {
                None if n.eff != NIL && of <= ADD => what = of,
                None => break,
                Some(_) if !plain || what == NIL || of == BUILD || of == DISCARD => what = NIL,
                Some(s) if s.node == MARK => {
                    if n.is_object() && of == NIL {
                        // A dict's or a list's kind: what stands above the mark tells.
                        let atom = |s: Option<&Slot>| {
                            s.map_or(true, |s| {
                                s.node == MARK
                                    || matches!(self.r.arena.get(s.node).kind, Kind::Name | Kind::Inline | Kind::Raw)
                            })
                        };
                        let (k, v) = (self.stack.get(v + 2), self.stack.get(v + 3));
                        if k.map_or(true, |k| k.node == MARK) || !atom(k) || atom(v) {
                            break;
                        }
                    }
                    if of <= ADD {
                        what = of;
                        let g = self.r.arena.get(n.eff);
                        if g.n / if of == ASSIGN { 2 } else { 1 } % BATCH != 0 {
                            what = NIL;
                        }
                    }
                }
                Some(s) => {
                    let m = *self.r.arena.get(s.node);
                    if n.is_object() && m.kind == Kind::Dict && m.before == NIL && m.eff == m.eff_last && of == NIL {
                        state = s.node;
                        container = v + 1;
                        what = ASSIGN | STATED;
                        if self.stack.len() == v + 2 && m.eff == NIL {
                            break;
                        }
                    } else if (n.kind == Kind::Dict || n.is_object()) && of == NIL {
                        // Its only entry, or the next key of the container that it is in.
                        let only = how == NIL || how & SINGLE != 0;
                        let stage = self.r.levels.last().map(|l| l.stage);
                        // What stands above an object may be its state, too, unless it is an account.
                        let account = n.kind == Kind::Dict || self.r.is_account(s.node);
                        // What can not be an attribute's name is a key in the value.
                        let key_of = forced
                            && n.kind == Kind::Dict
                            && how != NIL
                            && how & STATED != 0
                            && self.r.is_text(s.node)
                            && !self.r.is_identifier(s.node);
                        if !(only && account) && !key_of && !self.r.is_leading(stage, key, s.node) {
                            what = NIL;
                        }
                    } else if n.kind == Kind::List && of == NIL {
                        // Its only item, unless it can be the next key of the container that it is in.
                        let hashable = !matches!(m.kind, Kind::Dict | Kind::List | Kind::Set);
                        let named = how != NIL && how & STATED != 0 && m.is_object();
                        if how != NIL && how & 3 != APPEND && how & SINGLE == 0 && hashable && !named {
                            what = NIL;
                        }
                    } else {
                        what = NIL;
                    }
                }
            }
            if what == NIL {
                // A whole entry, if it can be nothing else.
                let beyond = if n.kind == Kind::Global { 4 } else { 3 };
                let whole = (1..beyond).all(|i| self.done(v + i)) && self.stack.len() > v + beyond;
                // An attribute, and the next one's name.
                let atom = matches!(n.kind, Kind::Inline | Kind::Raw | Kind::Name | Kind::Ref) || self.done(v);
                let named = how != NIL
                    && how & STATED != 0
                    && atom
                    && above.map_or(false, |s| s.node != MARK && self.r.is_identifier(s.node))
                    && self.stack.get(v + 2).map_or(false, |s| s.node != MARK)
                    && self.stack.len() > v + 3;
                // What is above it is not its next one's key: it is part of something else.
                let part = match above {
                    Some(s) if s.node == MARK => true,
                    Some(s) if each == 2 => {
                        how & STATED != 0 && !self.r.is_text(s.node)
                            || matches!(self.r.arena.get(s.node).kind, Kind::Dict | Kind::List | Kind::Set)
                    }
                    _ => false,
                };
                if how == NIL || !(whole || named || (forced && !part)) {
                    break;
                }
                if !whole && !named && (n.is_object() || matches!(n.kind, Kind::Dict | Kind::List | Kind::Set)) {
                    if above.map_or(false, |s| self.r.has_rule(s.node)) || key.map_or(false, |k| self.r.has_rule(k)) {
                        break; // it must not be taken for an attribute of this name
                    }
                    self.guessed.push(v);
                }
                self.r.put_entry(key, node, self.out)?;
                self.live = v + 1;
                if let Some(l) = self.levels.last_mut() {
                    l.uncertain += 1;
                }
                continue;
            }
            let c = *self.r.arena.get(self.stack[container].node);
            let marked = self.stack.get(container + 1).map_or(false, |s| s.node == MARK);
            if c.flags & IS_SINGLE != 0 || (c.eff == NIL && !marked) {
                what |= SINGLE;
            }
            let large = self.r.arena.exceeds(self.stack[v].first, self.r.settings.split);
            let doc = if how == NIL { Some(self.protocol.unwrap_or(0)) } else { None };
            if !self.r.begin_open(key, node, state, what, doc, large, self.out)? {
                break;
            }
            if let Some(l) = self.levels.last_mut() {
                l.uncertain += 1;
            }
            self.live = container + 1;
            self.levels.push(OpenSlot { at: container, how: what, uncertain: 0 });
        }
        let a = &mut self.r.arena;
        match self.stack.get(self.live) {
            None if self.discarded.is_none() => a.clear(),
            Some(s) => a.give_up(s.first),
            _ => {}
        }
        self.pressure = PRESSURE + a.nodes.len();
        self.pressure_bytes = PRESSURE_BYTES + a.bytes.len();
        Ok(())
    }

    /// Says what was discarded with what is on top of the stack, since no value follows it.
    #[cold]
    #[inline(never)]
    fn settle(&mut self) {
        if self.live > 0 && self.stack.len() <= self.live {
            return; // it stays, and STOP refuses it
        }
        let d = match self.discarded.take() {
            Some(d) => d,
            None => return,
        };
        let slot = match self.stack.last_mut() {
            Some(s) => s,
            None => {
                self.discarded = Some(d);
                return;
            }
        };
        if slot.node != MARK {
            let node = slot.node;
            let n = count(&self.r.arena, d.head) as u32;
            self.effect(node, DISCARD, d.head, d.tail, n);
            return;
        }
        if slot.before == NIL {
            slot.before = d.head;
        } else {
            self.r.arena.get_mut(slot.before_last).next = d.head;
        }
        slot.before_last = d.tail;
    }

    /// Links the nodes of the stack from `from` on into a list and takes them off.
    #[inline(never)]
    fn take(&mut self, from: usize) -> (u32, u32, u32) {
        let n = self.stack.len() - from;
        if n == 0 {
            return (NIL, NIL, 0);
        }
        let mut at = self.stack[from].node;
        let head = at;
        for s in &self.stack[from + 1..] {
            self.r.arena.get_mut(at).next = s.node;
            at = s.node;
        }
        self.stack.truncate(from);
        (head, at, n as u32)
    }

    /// Makes the values from `from` on the children of a new one; a mark under them goes with them.
    #[inline(never)]
    fn make(&mut self, kind: Kind, from: usize, marked: bool) -> Result<()> {
        let bottom = from - marked as usize;
        let (first, before, before_last) = match self.stack.get(bottom) {
            Some(s) => (s.first, s.before, s.before_last),
            None => (self.r.arena.end(), NIL, NIL),
        };
        let (head, _, count) = self.take(from);
        let num = if kind == Kind::EmptyTuple { NIL } else { self.number()? };
        let mut n = Node { a: head, n: count, num, before, before_last, ..Node::new(kind) };
        if head != NIL && kind != Kind::Inst {
            // What was discarded before its first child was discarded before it.
            let c = self.r.arena.get_mut(head);
            let (inner, inner_last) = (c.before, c.before_last);
            if inner != NIL {
                c.before = NIL;
                c.before_last = NIL;
                if before == NIL {
                    n.before = inner;
                } else {
                    self.r.arena.get_mut(before_last).next = inner;
                }
                n.before_last = inner_last;
            }
        }
        self.stack.truncate(bottom);
        let node = self.r.arena.add(n);
        self.stack.push(Slot { node, first, before: NIL, before_last: NIL });
        Ok(())
    }

    /// Adds an effect on a node.
    #[inline(never)]
    fn effect(&mut self, node: u32, what: u32, head: u32, tail: u32, n: u32) {
        let a = &mut self.r.arena;
        let last = a.get(node).eff_last;
        if last != NIL && what != BUILD && a.get(last).what() == what {
            let old = a.get(last).b;
            a.get_mut(old).next = head;
            let g = a.get_mut(last);
            g.b = tail;
            g.n += n;
            return;
        }
        let mut g = Node::group(what);
        g.a = head;
        g.b = tail;
        g.n = n;
        let g = a.add(g);
        if last == NIL {
            a.get_mut(node).eff = g;
        } else {
            a.get_mut(last).next = g;
        }
        a.get_mut(node).eff_last = g;
    }

    /// Whether a value of this kind can take the effect; where that depends on what it is when loaded, it
    /// can.
    fn takes(&self, node: u32, what: u32) -> bool {
        let n = self.r.arena.get(node);
        match n.kind {
            Kind::Dict | Kind::MadeDict => what == ASSIGN,
            Kind::List | Kind::MadeList => what == APPEND,
            Kind::Set => what == ADD,
            Kind::Raw => n.flags & IS_OPAQUE != 0,
            Kind::Inline | Kind::Name | Kind::EmptyTuple | Kind::Tuple | Kind::Frozenset => false,
            _ => true,
        }
    }

    /// Items on top of the stack, from `from` on, go into the container under them.
    #[inline(never)]
    fn items(&mut self, what: u32, from: usize, marked: bool) -> Result<()> {
        let at = match from.checked_sub(1 + marked as usize) {
            Some(at) if self.stack[at].node != MARK => at,
            _ => return Err(self.underflow()),
        };
        let mark = if marked { Some(self.stack[from - 1]) } else { None };
        let container = self.stack[at].node;
        if !self.takes(container, what) {
            return Err(self.wrong("what lies under the items can not take them"));
        }
        let (head, tail, n) = self.take(from);
        self.stack.truncate(at + 1);
        if what == ASSIGN && n % 2 != 0 {
            return Err(self.wrong("a key without a value"));
        }
        if n == 0 {
            if let Some(m) = mark {
                self.merge(m);
                self.settle();
            }
            return Ok(());
        }
        if let Some(m) = mark {
            if m.before != NIL {
                self.precede(head, m.before, m.before_last);
            }
        }
        if !marked && self.r.arena.get(container).eff == NIL {
            self.r.arena.get_mut(container).flags |= IS_SINGLE;
        }
        self.effect(container, what, head, tail, n);
        if self.r.arena.nodes.len() > self.pressure || self.r.arena.bytes.len() > self.pressure_bytes {
            self.relieve()?;
        }
        self.room(0)
    }

    /// Adds to what is evaluated and discarded before a node.
    #[inline(never)]
    fn precede(&mut self, node: u32, head: u32, tail: u32) {
        let a = &mut self.r.arena;
        let n = a.get_mut(node);
        let old = n.before;
        n.before = head;
        if old == NIL {
            n.before_last = tail;
        }
        a.get_mut(tail).next = old;
    }

    /// Throws the values from `from` on away, which have been evaluated; what was discarded already came
    /// after them.
    #[inline(never)]
    fn discard(&mut self, from: usize, mark: Option<Slot>) {
        let first = mark.unwrap_or(self.stack[from]).first;
        let (mut head, mut tail) = match mark {
            Some(m) => (m.before, m.before_last),
            None => (NIL, NIL),
        };
        let a = &mut self.r.arena;
        let mut add = |a: &mut crate::node::Arena, first: u32, last: u32| {
            if tail == NIL {
                head = first;
            } else {
                a.get_mut(tail).next = first;
            }
            tail = last;
        };
        for s in &self.stack[from..] {
            let n = a.get_mut(s.node);
            let (before, last) = (n.before, n.before_last);
            n.before = NIL;
            n.before_last = NIL;
            if before != NIL {
                add(a, before, last);
            }
            add(a, s.node, s.node);
        }
        if let Some(d) = self.discarded.take() {
            add(a, d.head, d.tail);
        }
        self.stack.truncate(from);
        self.discarded = Some(Discarded { head, tail, first });
    }

    /// Keeps what was discarded before a mark that is gone.
    #[inline(never)]
    fn merge(&mut self, mark: Slot) {
        if mark.before == NIL {
            return;
        }
        let (mut tail, first) = (mark.before_last, mark.first);
        if let Some(d) = self.discarded.take() {
            self.r.arena.get_mut(tail).next = d.head;
            tail = d.tail;
        }
        self.discarded = Some(Discarded { head: mark.before, tail, first });
    }

    // The memo.

    fn put(&mut self, at: u32) -> Result<()> {
        let slot = match self.stack.last() {
            Some(_) if self.stack.len() <= self.live => return Err(self.unusual()),
            Some(s) if s.node != MARK => s,
            _ => return Err(self.underflow()),
        };
        let n = self.r.arena.get(slot.node);
        let value = if n.num != NIL {
            n.num
        } else {
            match n.kind {
                Kind::Name => IS_NAME | n.a,
                Kind::Ref => n.a,
                Kind::Raw | Kind::Inline if slot.node.wrapping_add(1) == self.r.arena.end() => {
                    // An atom that is memoized: its identity is kept.
                    let at = slot.node;
                    let num = self.number()?;
                    let n = self.r.arena.get_mut(at);
                    n.num = num;
                    n.flags |= IS_SHARED;
                    num
                }
                _ => {
                    let n = *n;
                    self.keep(n)?
                }
            }
        };
        if !self.memo.put(at, value) {
            return Err(self.large("too many memo entries", MAX_ENTRIES as u64));
        }
        Ok(())
    }

    /// A memo entry that is said again wherever it is used.
    #[inline(never)]
    fn keep(&mut self, n: Node) -> Result<u32> {
        let mut copy = Node { next: NIL, eff: NIL, eff_last: NIL, before: NIL, before_last: NIL, ..n };
        if n.kind == Kind::Raw {
            self.room(n.b as usize)?;
            self.kept_size += n.b as usize;
            self.kept_bytes.push(self.r.arena.raw(n.a, n.b).to_vec());
            copy.a = self.kept_bytes.len() as u32 - 1;
        }
        if n.kind == Kind::Global {
            copy.a = self.r.globals[n.a as usize].plain;
        }
        match self.kept.last() {
            Some(last) if n.kind == Kind::Global && last.kind == n.kind && last.a == copy.a => {}
            _ => self.kept.push(copy),
        }
        if self.kept.len() > MAX_GLOBALS {
            return Err(self.large("too many memo entries without a number", MAX_GLOBALS as u64));
        }
        Ok(IS_KEPT | (self.kept.len() as u32 - 1))
    }

    #[inline(never)]
    fn get(&mut self, at: u32) -> Result<()> {
        let v = self.memo.get(at);
        if v < IS_KEPT {
            let kind = if v < IS_NAME { Kind::Ref } else { Kind::Name };
            return self.push_new(Node { a: v & !IS_NAME, ..Node::new(kind) });
        }
        if v == UNSET {
            return Err(self.wrong("there is no such memo entry"));
        }
        self.push_value(v)
    }

    #[inline(never)]
    fn push_value(&mut self, v: u32) -> Result<()> {
        if v < IS_KEPT {
            let kind = if v < IS_NAME { Kind::Ref } else { Kind::Name };
            return self.push_small(kind, v & !IS_NAME, NIL);
        }
        let mut n = self.kept[(v & !IS_KEPT) as usize];
        if n.kind == Kind::Raw {
            let at = self.r.arena.bytes_end();
            self.r.arena.bytes.extend_from_slice(&self.kept_bytes[n.a as usize]);
            n.a = at;
            self.room(0)?;
        }
        if n.kind == Kind::Global {
            self.repeat(n.a)?;
        }
        self.push(n)
    }

    /// The next opcode and its argument, little-endian, where fewer than eight bytes are at hand.
    #[cold]
    #[inline(never)]
    fn near_end(&mut self) -> Result<u64> {
        if self.input.bytes().is_empty() {
            self.op = 0;
            if !self.input.fill()? {
                return Err(Error::corrupt(self.input.offset(), "the input ends inside a pickle, before STOP"));
            }
        }
        self.op = self.input.bytes()[0];
        self.op_at = self.input.offset();
        let n = match self.op {
            b'h' | 0x8c | b'K' => 2,
            b'M' => 3,
            b'j' | b'J' => 5,
            _ => 1,
        };
        Ok(le(self.need(n)?))
    }

    /// Runs one opcode; true at the end of the pickle.
    #[inline(always)]
    fn step(&mut self) -> Result<bool> {
        let word = match self.input.bytes().get(..8).and_then(|w| <[u8; 8]>::try_from(w).ok()) {
            Some(w) => u64::from_le_bytes(w),
            None => self.near_end()?,
        };
        let op = word as u8;
        let arg = word >> 8;
        self.op = op;
        self.op_at = self.input.offset();
        match op {
            // Most of what pickles are made of.
            b'h' => {
                self.input.consume(2);
                self.get(arg as u8 as u32)?;
            }
            b'j' => {
                self.input.consume(5);
                self.get(arg as u32)?;
            }
            0x94 => {
                self.input.consume(1);
                self.put(self.memo.count)?;
            }
            0x8c => {
                self.input.consume(2);
                self.push_text(arg & 0xff)?;
            }
            b'N' => {
                self.input.consume(1);
                self.push_inline([0xf6, 0, 0, 0, 0, 0, 0, 0], 1)?;
            }
            0x88 | 0x89 => {
                self.input.consume(1);
                self.push_inline([0xf5 - (op & 1), 0, 0, 0, 0, 0, 0, 0], 1)?;
            }
            b'(' => {
                self.input.consume(1);
                let mut mark = Slot { node: MARK, first: self.r.arena.end(), before: NIL, before_last: NIL };
                if let Some(d) = self.discarded.take() {
                    mark = Slot { first: d.first, before: d.head, before_last: d.tail, ..mark };
                }
                self.marks.push(self.stack.len() as u32);
                self.stack.push(mark);
                if self.stack.len() > MAX_STACK {
                    return Err(self.large("a stack that is too deep", MAX_STACK as u64));
                }
            }
            b'}' => {
                self.input.consume(1);
                self.shows(1);
                self.push_numbered(Kind::Dict)?;
            }
            b']' => {
                self.input.consume(1);
                self.shows(1);
                self.push_numbered(Kind::List)?;
            }
            b')' => {
                self.input.consume(1);
                self.shows(1);
                self.push(Node::new(Kind::EmptyTuple))?;
            }
            b'u' => {
                self.input.consume(1);
                if self.live > 0 && self.open_items(ASSIGN, true, 0)? {
                    return Ok(false);
                }
                let m = self.mark()?;
                self.items(ASSIGN, m + 1, true)?;
            }
            b's' => {
                self.input.consume(1);
                if self.live > 0 && self.open_items(ASSIGN, false, 2)? {
                    return Ok(false);
                }
                let at = self.top(3)?;
                self.items(ASSIGN, at + 1, false)?;
            }
            b'a' => {
                self.input.consume(1);
                if self.live > 0 && self.open_items(APPEND, false, 1)? {
                    return Ok(false);
                }
                let at = self.top(2)?;
                self.items(APPEND, at + 1, false)?;
            }
            b'e' => {
                self.input.consume(1);
                if self.live > 0 && self.open_items(APPEND, true, 0)? {
                    return Ok(false);
                }
                let m = self.mark()?;
                self.items(APPEND, m + 1, true)?;
            }
            0x90 => {
                self.input.consume(1);
                if self.live > 0 && self.open_items(ADD, true, 0)? {
                    return Ok(false);
                }
                let m = self.mark()?;
                self.items(ADD, m + 1, true)?;
            }
            b'b' => {
                self.input.consume(1);
                if self.live > 0 && self.open_build()? {
                    return Ok(false);
                }
                let at = self.top(2)?;
                let node = self.stack[at].node;
                if !self.takes(node, BUILD) {
                    return Err(self.wrong("what lies under the state can not take it"));
                }
                let (head, tail, n) = self.take(at + 1);
                if self.has_rules {
                    self.r.filter(node, head, self.protocol.unwrap_or(0))?;
                }
                self.effect(node, BUILD, head, tail, n);
            }
            0x81 => {
                self.input.consume(1);
                let at = self.top(2)?;
                self.make(Kind::Newobj, at, false)?;
            }
            b'R' => {
                self.input.consume(1);
                let at = self.top(2)?;
                self.make(Kind::Reduce, at, false)?;
            }
            0x85..=0x87 => {
                self.input.consume(1);
                let at = self.top((op - 0x84) as usize)?;
                self.make(Kind::Tuple, at, false)?;
            }
            b'K' => {
                self.input.consume(2);
                self.shows(1);
                self.push_int(arg as u8 as i64)?;
            }
            b'M' => {
                self.input.consume(3);
                self.shows(1);
                self.push_int(arg as u16 as i64)?;
            }
            b'J' => {
                self.input.consume(5);
                self.shows(1);
                self.push_int(arg as i32 as i64)?;
            }
            b'.' => {
                self.input.consume(1);
                self.stop()?;
                return Ok(true);
            }
            _ => self.rare(op)?,
        }
        Ok(false)
    }

    #[inline(never)]
    fn stop(&mut self) -> Result<()> {
        if self.frame_end > self.input.offset() {
            return Err(self.wrong("the pickle ends inside a frame"));
        }
        if !self.marks.is_empty() {
            return Err(self.wrong("a mark is left on the stack"));
        }
        if self.stack.is_empty() {
            return Err(self.underflow());
        }
        if self.live > 0 {
            if self.stack.len() > 1 || self.discarded.is_some() {
                return Err(self.unusual());
            }
            while !self.levels.is_empty() {
                self.pop_level()?;
            }
            return Ok(());
        }
        if self.discarded.is_some() {
            self.settle();
        }
        if self.stack.len() > 1 {
            // What lies under the value was evaluated before it.
            let last = self.stack.len() - 1;
            let v = self.stack[last];
            self.stack.truncate(last);
            self.discard(0, None);
            if let Some(d) = self.discarded.take() {
                self.precede(v.node, d.head, d.tail);
            }
            self.stack.push(v);
        }
        let v = self.stack[0].node;
        let protocol = self.protocol.unwrap_or(0);
        self.r.put_root(v, protocol, self.out)
    }

    /// The other opcodes.
    #[inline(never)]
    fn rare(&mut self, op: u8) -> Result<()> {
        let fixed = match op {
            b'C' | b'U' | b'q' | 0x8a | 0x82 => 2,
            0x83 => 3,
            b'B' | b'X' | b'T' | b'r' | 0x8b | 0x84 => 5,
            b'G' | 0x8d | 0x8e | 0x95 | 0x96 => 9,
            0x80 => 2,
            _ => 1,
        };
        let mut w = [0u8; 9];
        w[..fixed].copy_from_slice(self.need(fixed)?);
        let arg = le(&w[1..fixed]);
        self.input.consume(fixed);
        match op {
            0x80 => {
                if arg > 5 {
                    return Err(Error::new(Code::Version, "a protocol above 5").at(self.op_at));
                }
            }
            0x95 => {
                let at = self.input.offset();
                if self.frame_end > at {
                    return Err(self.wrong("a frame inside a frame"));
                }
                self.frame_end = match at.checked_add(arg) {
                    Some(end) if end < 1 << 62 => end,
                    _ => return Err(self.large("a frame that is too long", 1 << 62)),
                };
            }
            b'C' | b'B' | 0x8e => {
                self.shows(3);
                self.push_payload(0, BYTES, arg)?;
            }
            0x96 => self.push_payload(BYTEARRAY, BYTES, arg)?,
            b'U' | b'T' => {
                self.shows(1);
                if arg > i32::MAX as u64 {
                    return Err(self.wrong("a negative length"));
                }
                self.push_payload(STR, BYTES, arg)?;
            }
            b'X' | 0x8d => {
                self.shows(1);
                self.push_text(arg)?;
            }
            0x8a | 0x8b => {
                if arg > i32::MAX as u64 {
                    return Err(self.wrong("a negative length"));
                }
                let at = self.r.arena.bytes.len();
                self.copy(arg)?;
                let v = number::from_le(&self.r.arena.bytes[at..]);
                self.r.arena.bytes.truncate(at);
                self.push_number(v)?;
            }
            b'G' => {
                self.shows(1);
                let at = self.r.arena.bytes_end();
                self.r.arena.bytes.push(0xfb);
                self.r.arena.bytes.extend_from_slice(&w[1..9]);
                self.push_raw(at, false, 0)?;
            }
            0x8f => self.push_numbered(Kind::Set)?,
            0x91 => {
                let m = self.mark()?;
                self.make(Kind::Frozenset, m + 1, true)?;
            }
            b't' => {
                let m = self.mark()?;
                let kind = if self.stack.len() == m + 1 { Kind::EmptyTuple } else { Kind::Tuple };
                if kind == Kind::EmptyTuple {
                    self.shows(0);
                }
                self.make(kind, m + 1, true)?;
            }
            b'l' => {
                self.shows(0);
                let m = self.mark()?;
                let kind = if self.stack.len() == m + 1 { Kind::List } else { Kind::MadeList };
                self.make(kind, m + 1, true)?;
            }
            b'd' => {
                self.shows(0);
                let m = self.mark()?;
                if (self.stack.len() - m) % 2 == 0 {
                    return Err(self.wrong("a key without a value"));
                }
                let kind = if self.stack.len() == m + 1 { Kind::Dict } else { Kind::MadeDict };
                self.make(kind, m + 1, true)?;
            }
            b'q' | b'r' => {
                self.shows(1);
                self.put(arg as u32)?;
            }
            b'p' | b'g' => {
                self.shows(0);
                self.line()?;
                if self.line.len() > 32 {
                    return Err(self.wrong("no index of the memo"));
                }
                match number::parse(&self.line) {
                    Some(Int::Small(v)) if (0..1 << 32).contains(&v) => {
                        if op == b'p' {
                            self.put(v as u32)?;
                        } else {
                            self.get(v as u32)?;
                        }
                    }
                    _ => return Err(self.wrong("no index of the memo")),
                }
            }
            b'0' => {
                // Python takes a mark off, too.
                if self.stack.len() <= self.live && self.live > 0 {
                    return Err(self.unusual());
                }
                match self.stack.last() {
                    None => return Err(self.underflow()),
                    Some(s) if s.node == MARK => {
                        let s = *s;
                        self.marks.pop();
                        self.stack.pop();
                        self.merge(s);
                    }
                    Some(_) => self.discard(self.stack.len() - 1, None),
                }
            }
            b'1' => {
                let m = match self.marks.pop() {
                    Some(m) if (m as usize) < self.live => return Err(self.unusual()),
                    Some(m) => m as usize,
                    None => return Err(self.wrong("there is no mark")),
                };
                let mark = self.stack.remove(m);
                if self.stack.len() > m {
                    self.discard(m, Some(mark));
                } else {
                    self.merge(mark);
                }
            }
            b'2' => {
                let at = self.top(1)?;
                let n = *self.r.arena.get(self.stack[at].node);
                if n.num != NIL {
                    self.push_value(n.num)?;
                } else {
                    match n.kind {
                        Kind::Name => self.push_value(IS_NAME | n.a)?,
                        Kind::Ref => self.push_value(n.a)?,
                        _ => {
                            let mut n = Node { next: NIL, eff: NIL, eff_last: NIL, before: NIL, before_last: NIL, ..n };
                            match n.kind {
                                Kind::Global => {
                                    n.a = self.r.globals[n.a as usize].plain;
                                    self.repeat(n.a)?;
                                }
                                // Its bytes are written again, so they count again.
                                Kind::Raw => {
                                    self.room(n.b as usize)?;
                                    let at = self.r.arena.bytes_end();
                                    let from = n.a.wrapping_sub(self.r.arena.bytes_base) as usize;
                                    self.r.arena.bytes.extend_from_within(from..from + n.b as usize);
                                    n.a = at;
                                }
                                _ => {}
                            }
                            self.push(n)?;
                        }
                    }
                }
            }
            b'I' => {
                self.line()?;
                match &self.line[..] {
                    b"00" => self.push_inline([0xf4, 0, 0, 0, 0, 0, 0, 0], 1)?,
                    b"01" => self.push_inline([0xf5, 0, 0, 0, 0, 0, 0, 0], 1)?,
                    _ => {
                        self.shows(0);
                        let digits = self.line.strip_prefix(b"-").unwrap_or(&self.line);
                        if digits.len() > 1 && digits[0] == b'0' && digits[1].is_ascii_digit() {
                            return Err(self.wrong("an int that begins with 0"));
                        }
                        self.push_decimal()?;
                    }
                }
            }
            b'L' => {
                self.line()?;
                if self.line.last() == Some(&b'L') {
                    self.line.pop();
                }
                self.push_decimal()?;
            }
            b'F' => {
                self.shows(0);
                self.line()?;
                let v = match number::parse_float(&self.line) {
                    Some(v) => v,
                    None => return Err(self.wrong("a line that is no float")),
                };
                let at = self.r.arena.bytes_end();
                self.r.arena.bytes.push(0xfb);
                self.r.arena.bytes.extend_from_slice(&v.to_bits().to_be_bytes());
                self.push_raw(at, false, 0)?;
            }
            b'V' => {
                self.shows(0);
                self.line()?;
                match text::raw_unicode_escape(&self.line) {
                    Ok(s) => self.push_made_text(&s)?,
                    Err(e) => return Err(self.wrong(e)),
                }
            }
            b'S' => {
                self.shows(0);
                self.line()?;
                match text::quoted(&self.line) {
                    Ok(s) => self.push_bytes(STR, BYTES, &s, 0)?,
                    Err(e) => return Err(self.wrong(e)),
                }
            }
            b'P' => {
                self.shows(0);
                self.line()?;
                let line = std::mem::take(&mut self.line);
                let major = if std::str::from_utf8(&line).is_ok() { TEXT } else { BYTES };
                self.push_bytes(PERSID, major, &line, IS_OPAQUE)?;
            }
            b'Q' => {
                self.shows(1);
                let at = self.top(1)?;
                self.make(Kind::Persid, at, false)?;
            }
            0x82..=0x84 => {
                if arg == 0 || arg > i32::MAX as u64 {
                    return Err(self.wrong("no extension code"));
                }
                let at = self.r.arena.bytes_end();
                tag(&mut self.r.arena.bytes, EXT);
                head(&mut self.r.arena.bytes, UINT, arg);
                self.push_raw(at, true, IS_OPAQUE)?;
            }
            b'c' | b'i' => {
                self.line()?;
                let module = std::mem::take(&mut self.line);
                self.line()?;
                let name = std::mem::take(&mut self.line);
                if std::str::from_utf8(&module).is_err() || std::str::from_utf8(&name).is_err() {
                    return Err(self.wrong("a name that is no UTF-8"));
                }
                if op == b'c' {
                    self.push_global(&module, &name)?;
                } else {
                    let m = self.mark()?;
                    let at = self.global(&module, &name, [false; 2])?;
                    let mut n = Node::new(Kind::Global);
                    n.a = at;
                    let first = self.stack[m].first;
                    let node = self.r.arena.add(n);
                    self.stack.insert(m + 1, Slot { node, first, before: NIL, before_last: NIL });
                    self.make(Kind::Inst, m + 1, true)?;
                }
            }
            b'o' => {
                let m = self.mark()?;
                if self.stack.len() == m + 1 {
                    return Err(self.underflow());
                }
                self.make(Kind::Obj, m + 1, true)?;
            }
            0x92 => {
                let at = self.top(3)?;
                self.make(Kind::NewobjEx, at, false)?;
            }
            0x93 => {
                let at = self.top(2)?;
                let (m, n) = (*self.r.arena.get(self.stack[at].node), *self.r.arena.get(self.stack[at + 1].node));
                let texts = if n.before == NIL { (self.global_text(&m), self.global_text(&n)) } else { (None, None) };
                let short = match &texts {
                    (Some(m), Some(n)) => m.0.len() + n.0.len() <= MAX_GLOBAL,
                    _ => false,
                };
                if let (true, (Some((module, own)), Some((name, own_name)))) = (short, texts) {
                    let slots = [self.stack[at], self.stack[at + 1]];
                    let mut before = (m.before, m.before_last);
                    self.stack.truncate(at);
                    if (own || own_name) && self.r.settings.rules.renamed(&module, &name).is_some() {
                        // These texts stay what they are, apart from the class.
                        self.stack.extend(slots.iter().zip([own, own_name]).filter(|s| s.1).map(|s| *s.0));
                        self.discard(at, None);
                        if own {
                            before = (NIL, NIL);
                        }
                        self.push_global(&module, &name)?;
                    } else {
                        let mut g = Node::new(Kind::Global);
                        g.a = self.global(&module, &name, [own, own_name])?;
                        g.b = if own { m.num } else { n.num };
                        self.push(g)?;
                    }
                    if let Some(s) = self.stack.last_mut() {
                        s.first = slots[0].first;
                        let node = s.node;
                        if before.0 != NIL {
                            self.precede(node, before.0, before.1);
                        }
                    }
                } else {
                    for n in [&m, &n] {
                        let known = match n.kind {
                            Kind::Raw => n.flags & (IS_OPAQUE | IS_TEXT) == 0,
                            Kind::Inline | Kind::EmptyTuple | Kind::Global => true,
                            Kind::Dict | Kind::List | Kind::Set | Kind::Tuple => true,
                            Kind::Frozenset | Kind::MadeList | Kind::MadeDict => true,
                            _ => false,
                        };
                        if known {
                            return Err(self.wrong("a name that is no text"));
                        }
                    }
                    self.make(Kind::Computed, at, false)?;
                }
            }
            0x97 | 0x98 => {
                let msg = "out-of-band buffers are not in the pickle; pickle without a buffer_callback";
                let msg = Text::new().str(ops::name(op)).str(": ").str(msg);
                return Err(Error::new(Code::Unsupported, msg).at(self.op_at));
            }
            _ => return Err(Error::corrupt(self.op_at, Text::new().hex(op).str(" is no opcode of pickles"))),
        }
        Ok(())
    }

    #[inline(never)]
    fn push_decimal(&mut self) -> Result<()> {
        if self.line.len() > number::MAX_DIGITS {
            return Err(self.large("an int of too many digits", number::MAX_DIGITS as u64));
        }
        match number::parse(&self.line) {
            Some(v) => self.push_number(v),
            None => Err(self.wrong("a line that is no int")),
        }
    }
}
