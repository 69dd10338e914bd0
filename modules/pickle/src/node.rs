//! Expressions: what a pickle's opcodes evaluate, kept in one arena until they are written as records.

use torpor::cbor::{encode_head, ARRAY, MAP, TAG, UINT};

use crate::form::*;
use crate::names::Names;

/// No node.
pub const NIL: u32 = u32::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Inline, // an encoded atom of n bytes in a and b
    Raw,    // encoded bytes: a offset, b length
    Name,   // a: number of the name
    Ref,    // a: what is referred to
    Global, // a: number of the global
    Dict,
    List,
    Set,
    EmptyTuple,
    Tuple, // with children from here on: a first, n how many
    Frozenset,
    MadeList,
    MadeDict,
    Reduce, // callable, arguments
    Newobj,
    NewobjEx,
    Obj,
    Inst,
    Persid,
    Computed,
    Group, // of effects: flags what, a first, b last, n how many
}

/// One node. Lists of nodes hang together by `next`.
#[derive(Clone, Copy)]
pub struct Node {
    pub kind: Kind,
    pub flags: u8,
    pub next: u32,
    pub a: u32,
    pub b: u32,
    pub n: u32,
    pub num: u32, // its number, if it has one
    pub eff: u32, // groups of effects
    pub eff_last: u32,
    pub before: u32, // evaluated and discarded before it
    pub before_last: u32,
}

/// Flag of a node: an atom that is numbered.
pub const IS_SHARED: u8 = 1;
/// Flag of a node: its first entry was set without a mark.
pub const IS_SINGLE: u8 = 2;
/// Flag of a node: what it is only the service knows, so that any effect may be had on it.
pub const IS_OPAQUE: u8 = 4;

/// Flag of a node: a text.
pub const IS_TEXT: u8 = 8;

impl Node {
    pub const fn new(kind: Kind) -> Node {
        Node {
            kind,
            flags: 0,
            next: NIL,
            a: NIL,
            b: NIL,
            n: 0,
            num: NIL,
            eff: NIL,
            eff_last: NIL,
            before: NIL,
            before_last: NIL,
        }
    }

    /// The bytes of an inline atom.
    pub fn inline(&self) -> ([u8; 8], usize) {
        let w = self.a as u64 | (self.b as u64) << 32;
        (w.to_le_bytes(), self.n as usize)
    }

    /// A group of effects that does `what`.
    pub const fn group(what: u32) -> Node {
        let mut n = Node::new(Kind::Group);
        n.flags = (what << 4) as u8;
        n
    }

    /// What a group of effects does.
    #[inline(always)]
    pub fn what(&self) -> u32 {
        self.flags as u32 >> 4
    }

    pub fn is_object(&self) -> bool {
        matches!(self.kind, Kind::Reduce | Kind::Newobj | Kind::NewobjEx | Kind::Obj | Kind::Inst)
    }

    pub fn is_plain(&self) -> bool {
        self.before == NIL && self.eff == NIL
    }
}

/// The arena. Indexes are absolute; what lies before `base` has been given up.
pub struct Arena {
    pub nodes: Vec<Node>,
    pub base: u32,
    pub bytes: Vec<u8>,
    pub bytes_base: u32,
}

impl Arena {
    pub fn new() -> Arena {
        Arena { nodes: Vec::new(), base: 0, bytes: Vec::new(), bytes_base: 0 }
    }

    #[inline(always)]
    pub fn get(&self, at: u32) -> &Node {
        &self.nodes[at.wrapping_sub(self.base) as usize]
    }

    #[inline(always)]
    pub fn get_mut(&mut self, at: u32) -> &mut Node {
        &mut self.nodes[at.wrapping_sub(self.base) as usize]
    }

    #[inline(always)]
    pub fn add(&mut self, n: Node) -> u32 {
        let at = self.base.wrapping_add(self.nodes.len() as u32);
        self.nodes.push(n);
        at
    }

    #[inline(always)]
    pub fn end(&self) -> u32 {
        self.base.wrapping_add(self.nodes.len() as u32)
    }

    #[inline(always)]
    pub fn bytes_end(&self) -> u32 {
        self.bytes_base.wrapping_add(self.bytes.len() as u32)
    }

    #[inline(always)]
    pub fn raw(&self, off: u32, len: u32) -> &[u8] {
        let at = off.wrapping_sub(self.bytes_base) as usize;
        &self.bytes[at..at + len as usize]
    }

    /// Whether what was evaluated since a node is longer than a limit when encoded.
    pub fn exceeds(&self, since: u32, limit: usize) -> bool {
        let mut weight = 0;
        let mut raw = false;
        for n in &self.nodes[since.wrapping_sub(self.base) as usize..] {
            if n.kind == Kind::Raw && !raw {
                raw = true;
                weight += self.bytes_end().wrapping_sub(n.a) as usize;
            }
            weight += (n.kind != Kind::Group) as usize;
            if weight > limit {
                return true;
            }
        }
        false
    }

    /// Gives up everything.
    pub fn clear(&mut self) {
        self.base = self.end();
        self.nodes.clear();
        self.bytes_base = self.bytes_end();
        self.bytes.clear();
    }

    /// Gives up what lies before a node.
    pub fn give_up(&mut self, node: u32) {
        if node == self.base {
            return;
        }
        self.nodes.drain(..node.wrapping_sub(self.base) as usize);
        self.base = node;
        // Bytes lie in the order of the nodes they belong to.
        let byte = match self.nodes.iter().find(|n| n.kind == Kind::Raw) {
            Some(n) => n.a,
            None => self.bytes_end(),
        };
        self.bytes.drain(..byte.wrapping_sub(self.bytes_base) as usize);
        self.bytes_base = byte;
    }
}

/// A global, encoded as a text `module.name` or `module:Outer.Inner`, or as the two names.
pub struct Global {
    pub encoded: Vec<u8>,
    /// What the rules say of its instances, and 1; `FIRST` if it makes an instance of its first argument.
    pub class: u32,
    /// How many of its names are objects of their own.
    pub own: u32,
    /// The same one without these.
    pub plain: u32,
    /// Of how it is written.
    pub hash: u32,
}

/// How a global is written; `own` says which of its names are objects of their own.
pub fn encode_global(module: &[u8], name: &[u8], own: [bool; 2]) -> Vec<u8> {
    let mut out = Vec::new();
    if own != [false; 2] {
        out.push(0x82);
        for (s, own) in [(module, own[0]), (name, own[1])] {
            if own {
                tag(&mut out, OWN);
            }
            text(&mut out, s);
        }
        return out;
    }
    let odd = |s: &[u8]| s.is_empty() || s.contains(&b':');
    if odd(module) || odd(name) {
        out.push(0x82);
        text(&mut out, module);
        text(&mut out, name);
        return out;
    }
    let sep = if name.contains(&b'.') { b':' } else { b'.' };
    head(&mut out, torpor::cbor::TEXT, (module.len() + 1 + name.len()) as u64);
    out.extend_from_slice(module);
    out.push(sep);
    out.extend_from_slice(name);
    out
}

#[inline(always)]
pub fn head(out: &mut Vec<u8>, major: u8, arg: u64) {
    match arg {
        0..=23 => return out.push(major << 5 | arg as u8),
        24..=0xff => return out.extend_from_slice(&[major << 5 | 24, arg as u8]),
        0x100..=0xffff => return out.extend_from_slice(&[major << 5 | 25, (arg >> 8) as u8, arg as u8]),
        _ => {}
    }
    let mut buf = [0; 9];
    let n = encode_head(&mut buf, major, arg);
    out.extend_from_slice(&buf[..n]);
}

pub fn text(out: &mut Vec<u8>, s: &[u8]) {
    head(out, torpor::cbor::TEXT, s.len() as u64);
    out.extend_from_slice(s);
}

#[inline(always)]
pub fn tag(out: &mut Vec<u8>, t: u64) {
    if t >= 0x100 {
        out.extend_from_slice(&[0xd9, (t >> 8) as u8, t as u8]);
    } else {
        head(out, TAG, t);
    }
}

/// Whether a group of effects is how the container's own items are written.
pub fn own_items(kind: Kind, what: u32) -> bool {
    matches!((kind, what), (Kind::Dict, ASSIGN) | (Kind::List, APPEND) | (Kind::Set, ADD))
}

/// Says what a reference refers to.
pub trait Refers {
    /// Writes the reference to the object of this number; `prints` has that of each.
    fn refer(&self, out: &mut Vec<u8>, number: u32, prints: &[u8]);
}

/// How many nodes are written between two looks of the host.
const LOOK: u32 = 1 << 18;

const LIST: u8 = 1; // go on with the next node
const INSIDE: u8 = 2; // what comes before it is written
const BARE: u8 = 4; // without effects

/// Writes expressions as CBOR.
pub struct Encoder {
    pub out: Vec<u8>,
    work: Vec<(u32, u32, u8)>,
    parts: Vec<u32>,
    done: usize,
    steps: u32,
    /// How many numbered objects have been written.
    pub count: u32,
    /// The print of each object of the document.
    pub prints: Vec<u8>,
    context: Context,
    /// Stop once there is more than this: the value is opened instead.
    pub limit: usize,
}

impl Encoder {
    pub fn new() -> Encoder {
        Encoder {
            out: Vec::new(),
            work: Vec::new(),
            parts: Vec::new(),
            done: 0,
            steps: 0,
            count: 0,
            prints: Vec::new(),
            context: Context::default(),
            limit: usize::MAX,
        }
    }

    pub fn clear(&mut self) {
        self.out.clear();
        self.parts.clear();
        self.done = 0;
        self.count = 0;
        self.context = Context::default();
        self.limit = usize::MAX;
    }

    /// Writes the parts that were set apart, and returns how many there are.
    pub fn finish(&mut self, a: &Arena, names: &Names, globals: &[Global], refers: &impl Refers) -> usize {
        while self.done < self.parts.len() {
            let at = self.parts[self.done];
            self.done += 1;
            self.context = Context::default();
            self.encode(at, 2, false, a, names, globals, refers);
        }
        self.parts.len()
    }

    /// Counts an object that begins here.
    #[inline(always)]
    fn object(&mut self, num: u32, sort: u32) {
        if num == NIL {
            return;
        }
        self.count += 1;
        let at = num as usize;
        let print = self.context.print(sort);
        if at == self.prints.len() {
            self.prints.push(print);
            return;
        }
        if at > self.prints.len() {
            self.prints.resize(at + 1, 0);
        }
        self.prints[at] = print;
    }

    /// Writes a global, whose names may be objects.
    fn global(&mut self, g: &Global, num: u32) {
        self.context.say(g.hash);
        for i in 0..g.own {
            self.object(num + i, AN_ATOM);
        }
        self.out.extend_from_slice(&g.encoded);
    }

    /// Writes one expression that is to lie `depth` deep; `bare` leaves out its effects.
    #[allow(clippy::too_many_arguments)]
    pub fn encode(
        &mut self,
        node: u32,
        depth: u32,
        bare: bool,
        a: &Arena,
        names: &Names,
        globals: &[Global],
        refers: &impl Refers,
    ) {
        self.work.clear();
        let mut next = Some((node, depth, if bare { BARE | INSIDE } else { 0 }));
        while let Some((at, mut d, mode)) = next.take().or_else(|| self.work.pop()) {
            self.steps = self.steps.wrapping_add(1);
            if self.steps % LOOK == 0 {
                // The host takes a look at a guest that computes for long.
                torpor::pause();
            }
            let n = a.get(at);
            let numbered = (n.num != NIL) as u32;
            let out = &mut self.out;
            if out.len() > self.limit {
                return;
            }
            let after = mode & LIST != 0 && n.next != NIL;
            if n.is_plain() {
                // What most nodes are.
                let leaf = match n.kind {
                    Kind::Name => {
                        self.context.say(names.write(n.a, out));
                        true
                    }
                    Kind::Inline if numbered == 0 => {
                        let (b, len) = n.inline();
                        let end = out.len() + len;
                        out.extend_from_slice(&b);
                        out.truncate(end);
                        true
                    }
                    Kind::Raw if n.flags & IS_SHARED == 0 => {
                        let raw = a.raw(n.a, n.b);
                        out.extend_from_slice(raw);
                        if numbered > 0 {
                            self.object(n.num, AN_ATOM);
                        } else if raw[0] >> 5 == torpor::cbor::TEXT {
                            // A text of the settings that could not be a name any more.
                            self.context.say(crate::names::hash(crate::names::plain(raw)));
                        }
                        true
                    }
                    Kind::Ref => {
                        refers.refer(out, n.a, &self.prints);
                        true
                    }
                    _ => false,
                };
                if leaf {
                    if after {
                        next = Some((n.next, d, LIST));
                    }
                    continue;
                }
            }
            if after {
                self.work.push((n.next, d, LIST));
            }
            let mode = mode & !LIST;
            let out = &mut self.out;
            if d >= PART_DEPTH && mode & INSIDE == 0 && n.kind != Kind::Group {
                tag(out, PART);
                self.parts.push(at);
                head(out, UINT, self.parts.len() as u64);
                self.context = Context::PART;
                continue;
            }
            if n.before != NIL && mode & INSIDE == 0 {
                tag(out, BEFORE);
                head(out, ARRAY, 1 + count(a, n.before));
                self.work.push((at, d + 2, mode | INSIDE));
                self.work.push((n.before, d + 2, LIST));
                continue;
            }
            self.object(
                n.num,
                match n.kind {
                    _ if n.flags & IS_SHARED != 0 => A_SHARED,
                    Kind::Dict => A_DICT,
                    Kind::List => A_LIST,
                    Kind::Set => A_SET,
                    Kind::Tuple => A_TUPLE,
                    Kind::Raw => AN_ATOM,
                    _ => ELSE,
                },
            );
            let out = &mut self.out;
            let mut items = None;
            if n.eff != NIL && mode & BARE == 0 {
                let g = a.get(n.eff);
                if g.next == NIL && own_items(n.kind, g.what()) {
                    items = Some(g);
                } else if g.next == NIL && g.what() == BUILD {
                    tag(out, STATE);
                    out.push(0x82);
                    d += 2;
                    self.work.push((g.a, d, 0));
                } else {
                    tag(out, WITH);
                    head(out, ARRAY, 1 + count(a, n.eff));
                    d += 2;
                    self.work.push((n.eff, d, LIST));
                }
            }
            if n.flags & IS_SHARED != 0 {
                tag(out, SHARED);
            }
            match n.kind {
                Kind::Name => self.context.say(names.write(n.a, out)),
                Kind::Inline => {
                    let (b, len) = n.inline();
                    out.extend_from_slice(&b[..len]);
                }
                Kind::Raw => out.extend_from_slice(a.raw(n.a, n.b)),
                Kind::Ref => refers.refer(out, n.a, &self.prints),
                Kind::Global => {
                    tag(out, GLOBAL);
                    self.global(&globals[n.a as usize], n.b);
                }
                Kind::Dict => match items {
                    Some(g) => {
                        head(out, MAP, g.n as u64 / 2);
                        self.work.push((g.a, d + 1, LIST));
                    }
                    None => out.push(0xa0),
                },
                Kind::List | Kind::Set => {
                    if n.kind == Kind::Set {
                        tag(out, SET);
                        d += 1;
                    }
                    match items {
                        Some(g) => {
                            head(out, ARRAY, g.n as u64);
                            self.work.push((g.a, d + 1, LIST));
                        }
                        None => out.push(0x80),
                    }
                }
                Kind::EmptyTuple => {
                    tag(out, TUPLE);
                    out.push(0x80);
                }
                Kind::Reduce | Kind::Newobj => {
                    let callable = a.get(n.a);
                    let args = a.get(callable.next);
                    let short = callable.kind == Kind::Global
                        && callable.is_plain()
                        && args.is_plain()
                        && matches!(args.kind, Kind::Tuple | Kind::EmptyTuple);
                    tag(
                        out,
                        match (n.kind, short) {
                            (Kind::Newobj, true) => OBJECT,
                            (Kind::Newobj, false) => NEWOBJ,
                            (_, true) => REDUCE,
                            _ => CALL,
                        },
                    );
                    if short {
                        head(out, ARRAY, 1 + args.n as u64);
                        self.global(&globals[callable.a as usize], callable.b);
                        self.object(args.num, A_TUPLE);
                        if n.num != NIL {
                            // The class is said before the object begins.
                            self.prints[n.num as usize] = self.context.print(ELSE);
                        }
                        if args.n > 0 {
                            self.work.push((args.a, d + 2, LIST));
                        }
                    } else {
                        out.push(0x82);
                        self.work.push((n.a, d + 2, LIST));
                    }
                }
                Kind::Inst => {
                    tag(out, INST);
                    head(out, ARRAY, n.n as u64);
                    let class = a.get(n.a);
                    out.extend_from_slice(&globals[class.a as usize].encoded);
                    if class.next != NIL {
                        self.work.push((class.next, d + 2, LIST));
                    }
                }
                Kind::Persid => {
                    tag(out, BINPERSID);
                    self.work.push((n.a, d + 1, 0));
                }
                Kind::Group => {
                    head(out, ARRAY, 1 + n.n as u64);
                    out.push(n.what() as u8);
                    self.work.push((n.a, d + 1, LIST));
                }
                Kind::MadeDict => {
                    tag(out, MADE);
                    head(out, MAP, n.n as u64 / 2);
                    self.work.push((n.a, d + 2, LIST));
                }
                kind => {
                    tag(
                        out,
                        match kind {
                            Kind::Tuple => TUPLE,
                            Kind::Frozenset => FROZENSET,
                            Kind::MadeList => MADE,
                            Kind::NewobjEx => NEWOBJ_EX,
                            Kind::Obj => OBJ,
                            _ => COMPUTED,
                        },
                    );
                    head(out, ARRAY, n.n as u64);
                    if n.n > 0 {
                        self.work.push((n.a, d + 2, LIST));
                    }
                }
            }
        }
    }
}

/// How many nodes a list has.
pub fn count(a: &Arena, first: u32) -> u64 {
    let mut n = 0;
    let mut at = first;
    while at != NIL {
        n += 1;
        at = a.get(at).next;
    }
    n
}
