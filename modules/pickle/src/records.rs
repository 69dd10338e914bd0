//! Cuts expressions into records: the outermost mappings entry by entry, and whatever is large.

use std::collections::BTreeMap;

use torpor::{cbor, Code, Error, Output, Result};

use crate::form::*;
use crate::keys;
use crate::names::{Found, Names};
use crate::node::{encode_global, head, own_items, tag, Arena, Encoder, Global, Kind, Node, IS_SINGLE, NIL};
use crate::rules::{makes_partial, Rules};
use crate::settings::Settings;
use crate::table::Table;

/// A container whose entries are records.
pub struct Level {
    pub how: u32,
    pub prefix: String,
    pub partition: String,
    /// How many levels it lies below the leading ones of accounts and regions.
    pub index: u32,
    pub stage: Stage,
    pub count: u64,
    /// What the rules say of the object whose state it is, and 1.
    class: u32,
    /// Which attributes with defaults there are.
    seen: u64,
    /// How many records of steps there are.
    steps: u64,
}

/// A class that makes an instance of its first argument.
const FIRST: u32 = u32::MAX;

/// A class that calls what its state says.
const PARTIAL: u32 = u32::MAX - 1;

/// Where the leading levels of accounts and regions are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    Accounts,
    Regions,
    Below,
}

/// What is written where.
struct Place {
    partition: String,
    key: String,
    prefix: String,
    index: u32,
    stage: Stage,
}

/// Everything that records are made of.
pub struct Records<'s> {
    pub settings: &'s Settings,
    pub arena: Arena,
    pub names: Names,
    pub globals: Vec<Global>,
    pub table: Table,
    pub levels: Vec<Level>,
    enc: Encoder,
    by_name: BTreeMap<Vec<u8>, u32>,
    base: u32, // numbers given to objects of records written
    document: u64,
    protocol: u8,
}

/// How a value is opened: its container, the group of entries, and whether the container is the state of
/// the object.
struct Plan {
    group: u32,
    state: u32,
    how: u32,
}

impl<'s> Records<'s> {
    pub fn new(settings: &'s Settings) -> Records<'s> {
        Records {
            settings,
            arena: Arena::new(),
            names: Names::new(),
            globals: Vec::new(),
            table: Table::new(),
            levels: Vec::new(),
            enc: Encoder::new(),
            by_name: BTreeMap::new(),
            base: 0,
            document: 0,
            protocol: 0,
        }
    }

    /// Begins the next pickle.
    pub fn begin(&mut self) {
        self.arena.clear();
        self.names.clear();
        self.globals.clear();
        self.by_name.clear();
        self.table.clear();
        self.levels.clear();
        self.enc.prints.clear();
        self.base = 0;
        self.document += 1;
    }

    /// The number of a global, which is added if it is new.
    #[inline(never)]
    pub fn global(&mut self, module: &[u8], name: &[u8], own: [bool; 2]) -> u32 {
        let new = self.settings.rules.renamed(module, name);
        let (module, name) = new.as_ref().map_or((module, name), |n| (&n.0[..], &n.1[..]));
        let plain = self.add_global(module, name, [false; 2], NIL);
        if own == [false; 2] {
            return plain;
        }
        self.add_global(module, name, own, plain)
    }

    fn add_global(&mut self, module: &[u8], name: &[u8], own: [bool; 2], plain: u32) -> u32 {
        let encoded = encode_global(module, name, own);
        if let Some(at) = self.by_name.get(&encoded) {
            return *at;
        }
        let at = self.globals.len() as u32;
        self.by_name.insert(encoded.clone(), at);
        let class = match (module, name) {
            (m, n) if Rules::makes_first(m, n) => FIRST,
            (m, n) if makes_partial(m, n) => PARTIAL,
            (m, n) => self.settings.rules.of(m, n),
        };
        let own = own.iter().filter(|o| **o).count() as u32;
        let hash = crate::names::hash(&encoded);
        self.globals.push(Global { encoded, class, own, plain: if plain == NIL { at } else { plain }, hash });
        at
    }

    /// What keys of this document begin with, and the key of its root.
    fn root(&self) -> (String, String) {
        let mut root = String::from("$");
        if self.document == 1 {
            return (String::new(), root);
        }
        keys::number(&mut root, self.document);
        (root.clone(), root)
    }

    /// Writes the value of a whole pickle.
    #[inline(never)]
    pub fn put_root(&mut self, v: u32, protocol: u8, out: &mut Output<'_>) -> Result<()> {
        let place = self.root_place();
        self.put(place, None, v, Some(protocol), out)
    }

    fn root_place(&self) -> Place {
        let (prefix, key) = self.root();
        Place { partition: String::new(), key, prefix, index: 0, stage: Stage::Accounts }
    }

    /// Whether a key above an empty mapping is a region in an account, or an account in a root.
    pub fn is_leading(&self, stage: Option<Stage>, key: Option<u32>, above: u32) -> bool {
        let text = |n| keys::text_of(&self.arena, &self.names, n);
        match (stage, key.and_then(text), text(above)) {
            (Some(Stage::Accounts), Some(account), Some(region)) => {
                keys::is_account(account) && keys::is_region(region)
            }
            _ => false,
        }
    }

    /// Whether a value is the number of an account.
    pub fn is_account(&self, n: u32) -> bool {
        keys::text_of(&self.arena, &self.names, n).map_or(false, keys::is_account)
    }

    /// Whether a value is text.
    pub fn is_text(&self, n: u32) -> bool {
        keys::text_of(&self.arena, &self.names, n).is_some()
    }

    /// Whether the rules of the innermost level are about an attribute of this name.
    pub fn has_rule(&self, n: u32) -> bool {
        match (self.levels.last(), keys::text_of(&self.arena, &self.names, n)) {
            (Some(l), Some(t)) if l.class > 0 => {
                let rules = &self.settings.rules.classes[l.class as usize - 1];
                rules.drops(t) || rules.bit(t) != 0
            }
            _ => false,
        }
    }

    /// Whether a value can be the name of an attribute.
    pub fn is_identifier(&self, n: u32) -> bool {
        let begins = |b: &u8| b.is_ascii_alphabetic() || *b == b'_';
        match keys::text_of(&self.arena, &self.names, n) {
            Some(s) => s.first().map_or(false, begins) && s.iter().all(|b| begins(b) || b.is_ascii_digit()),
            None => false,
        }
    }

    /// Opens a value that is not whole yet: `v`, or `state` if that is the state of `v`. It is an entry of
    /// the innermost level, or the root if the protocol is given. False if it should not be opened, being
    /// small so far.
    #[inline(never)]
    pub fn begin_open(
        &mut self,
        k: Option<u32>,
        v: u32,
        state: u32,
        how: u32,
        doc: Option<u8>,
        large: bool,
        out: &mut Output<'_>,
    ) -> Result<bool> {
        let index = match (doc, self.levels.last()) {
            (Some(_), _) => 0,
            (None, Some(l)) => l.index + 1,
            (None, None) => return Ok(false),
        };
        if self.levels.len() == MAX_LEVELS || k.map_or(false, |k| self.drops(k)) {
            return Ok(false);
        }
        let leading = match (k.and_then(|k| keys::text_of(&self.arena, &self.names, k)), self.levels.last()) {
            (Some(t), Some(l)) => match l.stage {
                Stage::Accounts => keys::is_account(t) && l.how & (3 | STATED) == ASSIGN,
                Stage::Regions => keys::is_region(t) && l.how & 3 == ASSIGN,
                Stage::Below => false,
            },
            _ => false,
        };
        let index = index - leading as u32;
        if !large && (how & 3 != ASSIGN || index >= self.settings.depth) {
            return Ok(false);
        }
        let place = match doc {
            Some(_) => self.root_place(),
            None => match self.place(k) {
                Some(p) => p,
                None => return Ok(false),
            },
        };
        self.table.add(&place.partition, &place.key, self.base)?;
        self.open_head(place, k, v, state, how, doc, out)?;
        let container = if state == NIL { v } else { state };
        let group = self.arena.get(container).eff;
        if group != NIL {
            self.put_group(group, how, out)?;
        }
        Ok(true)
    }

    /// Writes an entry of the innermost level.
    #[inline(never)]
    pub fn put_entry(&mut self, k: Option<u32>, v: u32, out: &mut Output<'_>) -> Result<()> {
        if let Some(k) = k {
            if self.drops(k) {
                return self.forget(k, v);
            }
        }
        match self.place(k) {
            Some(place) => self.put(place, k, v, None, out),
            None => Ok(()),
        }
    }

    /// Where the next entry of the innermost level goes.
    #[inline(never)]
    fn place(&mut self, k: Option<u32>) -> Option<Place> {
        let root = self.root();
        let l = self.levels.last_mut()?;
        let mut place = Place {
            partition: l.partition.clone(),
            key: l.prefix.clone(),
            prefix: String::new(),
            index: l.index + 1,
            stage: Stage::Below,
        };
        let text = k.and_then(|k| keys::text_of(&self.arena, &self.names, k));
        if let (true, Some(t)) = (l.class > 0, text) {
            l.seen |= self.settings.rules.classes[l.class as usize - 1].bit(t);
        }
        match (l.stage, text) {
            (Stage::Regions, Some(t)) if keys::is_region(t) && l.how & 3 == ASSIGN => {
                // The level's prefix is `["account"]`.
                let account = l.prefix.len() - 14;
                place.partition = String::from(&l.prefix[account..account + 12]);
                place.partition.push('/');
                place.partition.push_str(std::str::from_utf8(t).unwrap_or(""));
                place.index = l.index;
                place.prefix = root.0;
                place.key = root.1;
            }
            (stage, _) => {
                if let (Stage::Accounts, Some(t)) = (stage, text) {
                    if keys::is_account(t) && l.how & (3 | STATED) == ASSIGN {
                        place.stage = Stage::Regions;
                        place.index = l.index;
                    }
                }
                match k {
                    Some(k) => keys::segment(&mut place.key, &self.arena, &self.names, k, l.how & STATED != 0, l.count),
                    None => {
                        place.key.push('[');
                        keys::number(&mut place.key, l.count);
                        place.key.push(']');
                    }
                }
                place.prefix = place.key.clone();
            }
        }
        l.count += 1;
        let count = l.count;
        if self.table.find(&place.partition, &place.key).is_some() {
            place.key.push('~');
            keys::number(&mut place.key, count);
            place.prefix = place.key.clone();
            if place.stage == Stage::Regions {
                // A second account of the same number is no part of the partitions of the first.
                place.stage = Stage::Below;
                place.index += 1;
            }
            while self.table.find(&place.partition, &place.key).is_some() {
                place.key.push('~');
                place.prefix.push('~');
            }
        }
        Some(place)
    }

    #[inline(never)]
    fn put(&mut self, at: Place, k: Option<u32>, v: u32, doc: Option<u8>, out: &mut Output<'_>) -> Result<()> {
        self.table.add(&at.partition, &at.key, self.base)?;
        let room = self.levels.len() < MAX_LEVELS;
        let plan = if room { self.plan(v) } else { None };
        if let Some(p) = &plan {
            if p.how & 3 == ASSIGN && at.index < self.settings.depth {
                return self.open(at, k, v, doc, plan, out);
            }
        }
        self.head(k, doc);
        if plan.is_some() {
            self.enc.limit = self.settings.split;
        }
        let depth = 3;
        if let Some(k) = k {
            self.enc.encode(k, depth, false, &self.arena, &self.names, &self.globals, &self.table);
        }
        self.enc.encode(v, depth, false, &self.arena, &self.names, &self.globals, &self.table);
        if plan.is_some() {
            self.enc.finish(&self.arena, &self.names, &self.globals, &self.table);
        }
        if plan.is_some() && self.enc.out.len() > self.settings.split {
            return self.open(at, k, v, doc, plan, out);
        }
        self.write(&at.partition, &at.key, out)
    }

    /// Begins the value of a record that is an entry or a document.
    fn head(&mut self, k: Option<u32>, doc: Option<u8>) {
        self.enc.clear();
        let e = &mut self.enc.out;
        match doc {
            Some(protocol) => {
                self.protocol = protocol;
                tag(e, DOC);
                e.extend_from_slice(&[0x82, protocol]);
            }
            None => {
                head(e, cbor::ARRAY, 2 + k.is_some() as u64);
                head(e, cbor::UINT, self.levels.len() as u64 - 1);
            }
        }
    }

    /// Writes what is encoded as a record.
    #[inline(never)]
    fn write(&mut self, partition: &str, key: &str, out: &mut Output<'_>) -> Result<()> {
        self.enc.limit = usize::MAX;
        let parts = self.enc.finish(&self.arena, &self.names, &self.globals, &self.table);
        if self.table.missed.get() {
            let msg = "a reference to an object that the setting drop drops; do not drop it";
            return Err(Error::new(Code::Unsupported, msg).path(key));
        }
        self.base += self.enc.count;
        out.record(partition, key)?;
        if parts > 0 {
            out.tag(PARTS)?;
            out.array(1 + parts)?;
        }
        out.write(&self.enc.out)
    }

    /// How a value would be opened, if it can be.
    #[inline(never)]
    fn plan(&self, v: u32) -> Option<Plan> {
        let n = self.arena.get(v);
        if n.before != NIL || n.eff == NIL {
            return None;
        }
        let g = self.arena.get(n.eff);
        if own_items(n.kind, g.what()) || (n.is_object() && g.what() <= ADD) {
            return Some(Plan { group: n.eff, state: NIL, how: g.what() | self.single(n.flags) });
        }
        if n.is_object() && g.what() == BUILD {
            let s = self.arena.get(g.a);
            if s.kind == Kind::Dict && s.before == NIL && s.eff != NIL {
                let items = self.arena.get(s.eff);
                if items.what() == ASSIGN {
                    return Some(Plan { group: s.eff, state: g.a, how: ASSIGN | STATED | self.single(s.flags) });
                }
            }
        }
        None
    }

    /// What the rules say of an object's class, and 1; 0 if nothing.
    #[inline(never)]
    fn class_of(&self, object: u32) -> u32 {
        let n = self.arena.get(object);
        if self.settings.rules.classes.is_empty() || !n.is_object() {
            return 0;
        }
        let global = |at: u32| match at {
            NIL => 0,
            _ => match self.arena.get(at) {
                g if g.kind == Kind::Global => self.globals[g.a as usize].class,
                _ => 0,
            },
        };
        if let Some(first) = self.of_partial(n) {
            return global(first) % FIRST % PARTIAL;
        }
        match global(n.a) {
            FIRST => {
                let args = self.arena.get(n.a).next;
                let first = match n.kind {
                    Kind::Reduce | Kind::Newobj | Kind::NewobjEx if self.arena.get(args).n > 0 => {
                        self.arena.get(args).a
                    }
                    Kind::Obj | Kind::Inst if n.n > 1 => args,
                    _ => return 0,
                };
                match self.arena.get(first).kind {
                    Kind::Global => global(first) % FIRST % PARTIAL,
                    _ => 0,
                }
            }
            class => class % PARTIAL,
        }
    }

    /// The first argument of what is called, if that is `functools.partial(cls.__new__, cls, …)`, as protocols
    /// 2 and 3 say what takes keywords.
    fn of_partial(&self, n: &Node) -> Option<u32> {
        let get = |at: u32| if at == NIL { None } else { Some(self.arena.get(at)) };
        let partial = get(n.a).filter(|p| n.kind == Kind::Reduce && p.kind == Kind::Reduce)?;
        let callable = get(partial.a).filter(|c| c.kind == Kind::Global)?;
        if self.globals[callable.a as usize].class != PARTIAL {
            return None;
        }
        let state = get(partial.eff).filter(|g| g.what() == BUILD && g.next == NIL)?;
        let state = get(state.a).filter(|s| s.kind == Kind::Tuple && s.is_plain())?;
        let args = get(get(state.a)?.next).filter(|a| a.kind == Kind::Tuple && a.is_plain())?;
        Some(args.a)
    }

    /// Whether an entry of the innermost level is an attribute to be dropped.
    fn drops(&self, k: u32) -> bool {
        match self.levels.last() {
            Some(l) if l.class > 0 && self.arena.get(k).is_plain() => {
                let rules = &self.settings.rules.classes[l.class as usize - 1];
                keys::text_of(&self.arena, &self.names, k).map_or(false, |t| rules.drops(t))
            }
            _ => false,
        }
    }

    /// Applies the rules to the state that an object gets.
    #[inline(never)]
    pub fn filter(&mut self, object: u32, state: u32, protocol: u8) -> Result<()> {
        let class = self.class_of(object);
        if class == 0 {
            return Ok(());
        }
        let settings = self.settings;
        let rules = &settings.rules.classes[class as usize - 1];
        let mut dict = state;
        let n = self.arena.get(state);
        if n.kind == Kind::Tuple && n.n == 2 && n.is_plain() {
            // A state of slots is a tuple of null and a dict.
            let first = self.arena.get(n.a);
            if first.kind == Kind::Inline && first.n == 1 && first.a == 0xf6 && first.is_plain() && first.num == NIL {
                dict = first.next;
            }
        }
        let d = *self.arena.get(dict);
        let own = d.eff == NIL || (d.eff == d.eff_last && self.arena.get(d.eff).what() == ASSIGN);
        if d.kind != Kind::Dict || d.before != NIL || !own {
            return Ok(());
        }
        let (mut seen, mut first, mut last, mut n, mut changed) = (0, NIL, NIL, 0, false);
        let mut item = if d.eff == NIL { NIL } else { self.arena.get(d.eff).a };
        while item != NIL {
            let value = self.arena.get(item).next;
            let next = self.arena.get(value).next;
            let mut drops = false;
            if self.arena.get(item).is_plain() {
                if let Some(key) = keys::text_of(&self.arena, &self.names, item) {
                    seen |= rules.bit(key);
                    drops = rules.drops(key);
                }
            }
            if drops {
                self.arena.get_mut(value).next = NIL;
                self.forget(item, value)?;
                changed = true;
            } else {
                self.link(&mut first, &mut last, item);
                last = value;
                n += 2;
            }
            item = next;
        }
        for (at, (name, value)) in rules.default.iter().enumerate() {
            if seen & 1 << at == 0 {
                let k = self.name(name);
                let v = self.atom(value);
                self.link(&mut first, &mut last, k);
                self.link(&mut first, &mut last, v);
                n += 2;
                changed = true;
            }
        }
        if !changed {
            return Ok(());
        }
        let mut group = d.eff;
        if n == 0 {
            group = NIL;
        } else {
            self.arena.get_mut(last).next = NIL;
            if group == NIL {
                group = self.arena.add(Node::group(ASSIGN));
            }
            let g = self.arena.get_mut(group);
            g.a = first;
            g.b = last;
            g.n = n;
        }
        let d = self.arena.get_mut(dict);
        d.eff = group;
        d.eff_last = group;
        d.flags &= !IS_SINGLE;
        if n == 2 || (n > 0 && protocol == 0) {
            d.flags |= IS_SINGLE;
        }
        Ok(())
    }

    /// Adds a node to a list.
    fn link(&mut self, first: &mut u32, last: &mut u32, node: u32) {
        if *last == NIL {
            *first = node;
        } else {
            self.arena.get_mut(*last).next = node;
        }
        *last = node;
    }

    /// A node for a short text of the settings.
    fn name(&mut self, s: &[u8]) -> u32 {
        let found = match self.names.find(s, false) {
            Found::No => self.names.find(s, true),
            found => found,
        };
        if let Found::Old(id) | Found::New(id) = found {
            let mut n = Node::new(Kind::Name);
            n.a = id;
            return self.arena.add(n);
        }
        let mut encoded = Vec::new();
        crate::node::text(&mut encoded, s);
        self.raw(&encoded)
    }

    fn raw(&mut self, encoded: &[u8]) -> u32 {
        let mut n = Node::new(Kind::Raw);
        n.a = self.arena.bytes_end();
        n.b = encoded.len() as u32;
        self.arena.bytes.extend_from_slice(encoded);
        self.arena.add(n)
    }

    /// A node for an atom of the settings.
    fn atom(&mut self, encoded: &[u8]) -> u32 {
        if let Ok(t) = cbor::Reader::new(encoded).text() {
            return self.name(t.as_bytes());
        }
        if encoded.len() > 8 {
            return self.raw(encoded);
        }
        let mut b = [0; 8];
        b[..encoded.len()].copy_from_slice(encoded);
        let w = u64::from_le_bytes(b);
        let mut n = Node::new(Kind::Inline);
        n.a = w as u32;
        n.b = (w >> 32) as u32;
        n.n = encoded.len() as u32;
        self.arena.add(n)
    }

    /// Adds the attributes that the innermost level lacks.
    #[inline(never)]
    pub fn level_defaults(&mut self, out: &mut Output<'_>) -> Result<()> {
        let (class, seen) = match self.levels.last_mut() {
            Some(l) if l.class > 0 => (std::mem::take(&mut l.class), l.seen),
            _ => return Ok(()),
        };
        let settings = self.settings;
        for (at, (name, value)) in settings.rules.classes[class as usize - 1].default.iter().enumerate() {
            if seen & 1 << at == 0 {
                let k = self.name(name);
                let v = self.atom(value);
                self.put_entry(Some(k), v, out)?;
            }
        }
        Ok(())
    }

    /// Gives up an attribute that is dropped, and the numbers of the objects in it.
    #[inline(never)]
    fn forget(&mut self, k: u32, v: u32) -> Result<()> {
        let (mut low, mut high, mut n) = (NIL, 0, 0);
        let mut work = vec![(k, false), (v, false)];
        while let Some((at, list)) = work.pop() {
            let node = *self.arena.get(at);
            if list && node.next != NIL {
                work.push((node.next, true));
            }
            if node.num != NIL {
                low = low.min(node.num);
                high = high.max(node.num);
                n += 1;
            }
            if node.kind == Kind::Global {
                let own = self.globals[node.a as usize].own;
                if own > 0 {
                    low = low.min(node.b);
                    high = high.max(node.b + own - 1);
                    n += own;
                }
            }
            for more in [node.eff, node.before] {
                if more != NIL {
                    work.push((more, true));
                }
            }
            let atom = matches!(node.kind, Kind::Inline | Kind::Raw | Kind::Name | Kind::Ref | Kind::Global);
            if !atom && node.a != NIL {
                work.push((node.a, true));
            }
        }
        if n > 0 && !self.table.forget(low, high + 1, n) {
            let msg = "what the setting drop drops is made in a way no pickler makes it; do not drop it";
            return Err(Error::new(Code::Unsupported, msg).path("settings.drop"));
        }
        Ok(())
    }

    fn single(&self, flags: u8) -> u32 {
        if flags & crate::node::IS_SINGLE != 0 {
            SINGLE
        } else {
            0
        }
    }

    #[allow(clippy::too_many_arguments)]
    #[inline(never)]
    fn open(
        &mut self,
        at: Place,
        k: Option<u32>,
        v: u32,
        doc: Option<u8>,
        plan: Option<Plan>,
        out: &mut Output<'_>,
    ) -> Result<()> {
        let plan = match plan {
            Some(p) => p,
            None => return Ok(()),
        };
        self.open_head(at, k, v, plan.state, plan.how, doc, out)?;
        self.put_group(plan.group, plan.how, out)?;
        self.tail(v, &plan, out)?;
        self.levels.pop();
        Ok(())
    }

    /// Writes the record that opens a container, and makes it the innermost level.
    #[allow(clippy::too_many_arguments)]
    #[inline(never)]
    fn open_head(
        &mut self,
        at: Place,
        k: Option<u32>,
        v: u32,
        state: u32,
        how: u32,
        doc: Option<u8>,
        out: &mut Output<'_>,
    ) -> Result<()> {
        self.head(k, doc);
        if let Some(k) = k {
            self.enc.encode(k, 3, false, &self.arena, &self.names, &self.globals, &self.table);
        }
        tag(&mut self.enc.out, OPEN);
        head(&mut self.enc.out, cbor::ARRAY, 2 + (state != NIL) as u64);
        head(&mut self.enc.out, cbor::UINT, how as u64);
        self.enc.encode(v, 5, true, &self.arena, &self.names, &self.globals, &self.table);
        if state != NIL {
            self.enc.encode(state, 5, true, &self.arena, &self.names, &self.globals, &self.table);
        }
        self.write(&at.partition, &at.key, out)?;
        let class = if how & STATED != 0 { self.class_of(v) } else { 0 };
        self.levels.push(Level {
            class,
            seen: 0,
            how,
            prefix: at.prefix,
            partition: at.partition,
            index: at.index,
            stage: at.stage,
            count: 0,
            steps: 0,
        });
        Ok(())
    }

    /// Writes the items of a group as entries of the innermost level.
    #[inline(never)]
    fn put_group(&mut self, group: u32, how: u32, out: &mut Output<'_>) -> Result<()> {
        let mut item = self.arena.get(group).a;
        while item != NIL {
            let next = self.arena.get(item).next;
            if how & 3 == ASSIGN {
                let after = self.arena.get(next).next;
                self.put_entry(Some(item), next, out)?;
                item = after;
            } else {
                self.put_entry(None, item, out)?;
                item = next;
            }
        }
        Ok(())
    }

    /// Writes what comes after the entries, if it is more than their container's default.
    #[inline(never)]
    fn tail(&mut self, v: u32, plan: &Plan, out: &mut Output<'_>) -> Result<()> {
        self.level_defaults(out)?;
        let after = self.arena.get(plan.group).next;
        let object = if plan.state == NIL { NIL } else { self.arena.get(self.arena.get(v).eff).next };
        if after == NIL && object == NIL {
            return Ok(());
        }
        let mut steps = Steps::new();
        steps.groups(&self.arena, after, self.protocol);
        if plan.state != NIL {
            steps.0.push(Step::Op(b'b'));
            steps.groups(&self.arena, object, self.protocol);
        }
        self.put_steps(&steps, out)
    }

    /// Writes a record of steps that closes the innermost level, or says that it stays open.
    #[inline(never)]
    pub fn put_steps(&mut self, steps: &Steps, out: &mut Output<'_>) -> Result<()> {
        if !matches!(steps.0.first(), Some(Step::Op(STAY | SET_AND_STAY))) {
            self.level_defaults(out)?;
        }
        let level = self.levels.len() - 1;
        let l = &self.levels[level];
        let mut key = if l.prefix.is_empty() { String::from("$") } else { l.prefix.clone() };
        key.push('!');
        let partition = l.partition.clone();
        let l = &mut self.levels[level];
        l.steps += 1;
        if l.steps > 1 {
            key.push('~');
            keys::number(&mut key, l.steps);
        }
        while !self.table.add(&partition, &key, self.base)? {
            key.push('~');
        }
        self.enc.clear();
        tag(&mut self.enc.out, PROG);
        head(&mut self.enc.out, cbor::ARRAY, 1 + steps.0.len() as u64);
        head(&mut self.enc.out, cbor::UINT, level as u64);
        for s in &steps.0 {
            match s {
                Step::Push(n) => self.enc.encode(*n, 4, false, &self.arena, &self.names, &self.globals, &self.table),
                Step::Op(op) => {
                    tag(&mut self.enc.out, OP);
                    head(&mut self.enc.out, cbor::UINT, *op as u64);
                }
            }
        }
        self.write(&partition, &key, out)
    }
}

/// What is done on the stack one after another.
pub struct Steps(pub Vec<Step>);

/// One step.
#[derive(Clone, Copy)]
pub enum Step {
    /// An expression is evaluated.
    Push(u32),
    /// An opcode is run.
    Op(u8),
}

impl Steps {
    pub fn new() -> Steps {
        Steps(Vec::new())
    }

    /// The steps of groups of effects on what is on top of the stack.
    fn groups(&mut self, a: &Arena, first: u32, protocol: u8) {
        let mut at = first;
        while at != NIL {
            let g = a.get(at);
            let op = match g.what() {
                APPEND => b'e',
                ASSIGN => b'u',
                ADD => 0x90,
                BUILD => b'b',
                _ => b'0',
            };
            let mut item = g.a;
            if protocol == 0 && g.what() <= ASSIGN {
                // One by one, as that protocol can.
                let mut n = 0;
                while item != NIL {
                    self.0.push(Step::Push(item));
                    item = a.get(item).next;
                    n += 1;
                    if g.what() == APPEND || n % 2 == 0 {
                        self.0.push(Step::Op(if g.what() == APPEND { b'a' } else { b's' }));
                    }
                }
                at = g.next;
                continue;
            }
            if g.what() <= ADD {
                self.0.push(Step::Op(b'('));
            }
            while item != NIL {
                self.0.push(Step::Push(item));
                item = a.get(item).next;
                if g.what() == DISCARD {
                    self.0.push(Step::Op(op));
                }
            }
            if g.what() != DISCARD {
                self.0.push(Step::Op(op));
            }
            at = g.next;
        }
    }
}
