//! Cuts expressions into records: the outermost mappings entry by entry, and whatever is large.

use std::collections::BTreeMap;

use torpor::{cbor, Output, Result};

use crate::form::*;
use crate::keys;
use crate::names::Names;
use crate::node::{encode_global, head, own_items, tag, Arena, Encoder, Global, Kind, NIL};
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
}

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
        self.base = 0;
        self.document += 1;
    }

    /// The number of a global, which is added if it is new.
    #[inline(never)]
    pub fn global(&mut self, module: &[u8], name: &[u8]) -> u32 {
        let encoded = match self.settings.rules.renamed(module, name) {
            Some((m, n)) => encode_global(&m, &n),
            None => encode_global(module, name),
        };
        if let Some(at) = self.by_name.get(&encoded) {
            return *at;
        }
        let at = self.globals.len() as u32;
        self.by_name.insert(encoded.clone(), at);
        self.globals.push(Global { encoded });
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
            (Some(Stage::Accounts), Some(account), Some(region)) => keys::is_account(account) && keys::is_region(region),
            _ => false,
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
        if self.levels.len() == MAX_LEVELS {
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
                    Some(k) => {
                        keys::segment(&mut place.key, &self.arena, &self.names, k, l.how & STATED != 0, l.count)
                    }
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
        self.levels.push(Level {
            how,
            prefix: at.prefix,
            partition: at.partition,
            index: at.index,
            stage: at.stage,
            count: 0,
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
        let after = self.arena.get(plan.group).next;
        let object = if plan.state == NIL { NIL } else { self.arena.get(self.arena.get(v).eff).next };
        if after == NIL && object == NIL {
            return Ok(());
        }
        let mut steps = Steps::new();
        steps.groups(&self.arena, after);
        if plan.state != NIL {
            steps.0.push(Step::Op(b'b'));
            steps.groups(&self.arena, object);
        }
        self.put_steps(&steps, out)
    }

    /// Writes a record of steps that closes the innermost level.
    #[inline(never)]
    pub fn put_steps(&mut self, steps: &Steps, out: &mut Output<'_>) -> Result<()> {
        let level = self.levels.len() - 1;
        let l = &self.levels[level];
        let mut key = if l.prefix.is_empty() { String::from("$") } else { l.prefix.clone() };
        key.push('!');
        let partition = l.partition.clone();
        while !self.table.add(&partition, &key, self.base)? {
            key.push('~');
        }
        self.enc.clear();
        tag(&mut self.enc.out, PROG);
        head(&mut self.enc.out, cbor::ARRAY, 1 + steps.0.len() as u64);
        head(&mut self.enc.out, cbor::UINT, level as u64);
        for s in &steps.0 {
            match s {
                Step::Push(n) => {
                    self.enc.encode(*n, 4, false, &self.arena, &self.names, &self.globals, &self.table)
                }
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
    fn groups(&mut self, a: &Arena, first: u32) {
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
            if g.what() <= ADD {
                self.0.push(Step::Op(b'('));
            }
            let mut item = g.a;
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
