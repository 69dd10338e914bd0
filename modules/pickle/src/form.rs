//! The form of records (README.md, "Records"): tags and numbers that save and load agree on.

/// The first of a block of tags that were unassigned when this was written.
const BLOCK: u64 = 0xea00;

pub const OBJECT: u64 = 27; // registered: type name and arguments
pub const SET: u64 = 258; // registered: a set
pub const REF: u64 = BLOCK;
pub const STATE: u64 = BLOCK + 1;
pub const WITH: u64 = BLOCK + 2;
pub const TUPLE: u64 = BLOCK + 3;
pub const FROZENSET: u64 = BLOCK + 4;
pub const GLOBAL: u64 = BLOCK + 5;
pub const REDUCE: u64 = BLOCK + 6;
pub const CALL: u64 = BLOCK + 7;
pub const NEWOBJ: u64 = BLOCK + 8;
pub const NEWOBJ_EX: u64 = BLOCK + 9;
pub const OBJ: u64 = BLOCK + 10;
pub const INST: u64 = BLOCK + 11;
pub const OWN: u64 = BLOCK + 12;
pub const WTF8: u64 = BLOCK + 13;
pub const STR: u64 = BLOCK + 14;
pub const BYTEARRAY: u64 = BLOCK + 15;
pub const PERSID: u64 = BLOCK + 16;
pub const BINPERSID: u64 = BLOCK + 17;
pub const EXT: u64 = BLOCK + 18;
pub const MADE: u64 = BLOCK + 19;
pub const BEFORE: u64 = BLOCK + 20;
pub const PART: u64 = BLOCK + 21;
pub const PARTS: u64 = BLOCK + 22;
pub const COMPUTED: u64 = BLOCK + 23;
pub const SHARED: u64 = BLOCK + 24;
pub const DOC: u64 = BLOCK + 25;
pub const OPEN: u64 = BLOCK + 26;
pub const PROG: u64 = BLOCK + 27;
pub const OP: u64 = BLOCK + 28;

// An OP at the beginning of a PROG, instead of setting the last entries and closing the container:
pub const UNSET_ALL: u8 = 0; // they are left on the stack
pub const STAY: u8 = 1; // so, and the container stays open
pub const SET_AND_STAY: u8 = 2;

// What a group of effects does.
pub const APPEND: u32 = 0;
pub const ASSIGN: u32 = 1;
pub const ADD: u32 = 2;
pub const BUILD: u32 = 3;
pub const DISCARD: u32 = 4;

// How an opened container takes its entries: APPEND, ASSIGN or ADD, and these bits.
pub const SINGLE: u32 = 4; // the first entry stands without a mark
pub const STATED: u32 = 8; // the container is the state of the object under it

/// How deep levels of opened containers go.
pub const MAX_LEVELS: usize = 16;

/// How deep a value may be when what is deeper becomes a part of its own.
pub const PART_DEPTH: u32 = 48;

/// How many items the pickler sets at once.
pub const BATCH: u32 = 1000;

/// The longest segment of a key.
pub const MAX_SEGMENT: usize = 512;

/// What an object is by: the two names last said before it in its record. A reference from another record
/// holds a print of that, so that it is not taken for another object once the record has changed.
#[derive(Clone, Copy, Default)]
pub struct Context(u32, u32);

impl Context {
    /// Behind a part of the record.
    pub const PART: Context = Context(1, 1);

    /// A name, by its hash, has been said.
    #[inline(always)]
    pub fn say(&mut self, hash: u32) {
        *self = Context(self.1, hash);
    }

    /// The print of an object of this sort that begins here.
    #[inline(always)]
    pub fn print(self, sort: u32) -> u8 {
        ((self.0.rotate_left(5) ^ self.1 ^ sort.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b) >> 24) as u8
    }
}

// Sorts of objects.
pub const A_DICT: u32 = 1;
pub const A_LIST: u32 = 2;
pub const A_SET: u32 = 3;
pub const A_TUPLE: u32 = 4;
pub const AN_ATOM: u32 = 5;
pub const A_SHARED: u32 = 6;
pub const ELSE: u32 = 7;
