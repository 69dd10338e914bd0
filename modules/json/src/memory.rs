//! The memory of a call: all static, so that a call of a state as most are allocates nothing, and its
//! instance can be used for the next.

use torpor::Scratch;

use crate::names::Names;
use crate::save::grow;
use crate::scan::Scanner;
use crate::style::Style;

/// How many bytes of output are gathered before they go to the host, as long as records are small.
pub const BATCH_BYTES: usize = 128 << 10;

/// The longest path that is built, and some room.
const PATH_BYTES: usize = 72 << 10;

/// How long the partitions of opened objects and arrays may be together.
const PARTS_BYTES: usize = 16 << 10;

/// Room for what is gathered and what is being written.
const OUT_BYTES: usize = BATCH_BYTES + (32 << 10);

/// What both save and load work in.
pub struct Memory {
    pub scanner: Scanner,
    pub names: Names,
    /// Of the entry under way.
    pub path: Buf<PATH_BYTES>,
    /// The name under way.
    pub name: Buf<PATH_BYTES>,
    /// The partitions of what is opened.
    pub parts: Buf<PARTS_BYTES>,
    /// The partition under way.
    pub part: Buf<PARTS_BYTES>,
    pub out: Out,
}

/// The one.
pub static MEMORY: Scratch<Memory> = Scratch::new(Memory {
    scanner: Scanner::new(),
    names: Names::new(),
    path: Buf::new(),
    name: Buf::new(),
    parts: Buf::new(),
    part: Buf::new(),
    out: Out { small: [0; OUT_BYTES], large: None },
});

impl Memory {
    /// As it was before the first call.
    pub fn clear(&mut self) {
        self.names.clear();
        self.scanner.names.clear();
        self.path.clear();
        self.parts.clear();
        self.out.large = None;
        self.scanner.style = Style::COMPACT;
    }
}

/// Output, in memory that grows for a large record.
pub struct Out {
    small: [u8; OUT_BYTES],
    large: Option<Vec<u8>>, // nothing is zeros, which take no room in the module
}

impl Out {
    /// All of it.
    #[inline(always)]
    pub fn get(&mut self) -> &mut [u8] {
        match &mut self.large {
            None => &mut self.small,
            Some(large) => large,
        }
    }

    /// Makes it twice as large, or `least` if that is more, up to `most`; or says that it cannot be. What was in
    /// it is lost.
    pub fn grow(&mut self, least: usize, most: usize) -> Result<(), ()> {
        let had = self.get().len();
        let size = (2 * had).max(least).min(most);
        if size <= had {
            return Err(());
        }
        self.large = None;
        let mut large = Vec::new();
        grow(&mut large, size)?;
        large.resize(size, 0);
        self.large = Some(large);
        Ok(())
    }
}

/// Bytes in a fixed place. What does not fit is left out, and `full` says so.
pub struct Buf<const N: usize> {
    bytes: [u8; N],
    len: usize,
    full: bool,
}

impl<const N: usize> Buf<N> {
    /// Nothing.
    pub const fn new() -> Buf<N> {
        Buf { bytes: [0; N], len: 0, full: false }
    }

    #[inline(always)]
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether something was left out since it was last empty or cut.
    #[inline(always)]
    pub fn is_full(&self) -> bool {
        self.full
    }

    #[inline(always)]
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.full = false;
    }

    #[inline(always)]
    pub fn push(&mut self, b: u8) {
        match self.bytes.get_mut(self.len) {
            Some(to) => {
                *to = b;
                self.len += 1;
            }
            None => self.full = true,
        }
    }

    #[inline(always)]
    pub fn extend(&mut self, s: &[u8]) {
        match crate::scan::put_bytes(&mut self.bytes, self.len, s) {
            Ok(len) => self.len = len,
            Err(_) => self.full = true,
        }
    }

    /// All of its memory, to write into.
    #[inline(always)]
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    #[inline(always)]
    pub fn get(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
