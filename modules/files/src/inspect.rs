//! What a folder holds, for people.

use torpor::cbor::Reader;
use torpor::{Key, Output, Record, Result, Summary, Visitor};

use crate::entry::{attributes, Kind};
use crate::PIECES;

/// Counts entries by kind, and files by the ending of their names.
pub struct Kinds<'s> {
    summary: &'s mut Summary,
    files: u64,
    folders: u64,
    links: u64,
    bytes: u64,
    open: bool,
}

impl<'s> Kinds<'s> {
    pub fn new(summary: &'s mut Summary) -> Kinds<'s> {
        Kinds { summary, files: 0, folders: 0, links: 0, bytes: 0, open: false }
    }

    pub fn write(&self, schema: u64, out: &mut Output<'_>) -> Result<()> {
        let first = [
            ("schema", schema),
            ("files", self.files),
            ("folders", self.folders),
            ("links", self.links),
            ("file_bytes", self.bytes),
        ];
        self.summary.write(&first, out)
    }

    /// Counts an entry by its record, of which the end may be missing.
    fn count(&mut self, encoded: &[u8]) {
        let r = match Record::parse(encoded) {
            Ok(r) => r,
            Err(_) => return,
        };
        let path = match r.key {
            Key::Text(k) => k.as_bytes(),
            Key::Bytes(k) => k,
        };
        if path.windows(2).any(|w| w == PIECES) {
            return self.summary.kind("piece", r.value.len() as u64);
        }
        let mut value = Reader::new(r.value);
        // A map that is not all here says too many pairs for its bytes: its head is one byte.
        let pairs = r.value.first().map_or(0, |b| (*b & 0x1f) as usize);
        let mut skipped = Reader::new(r.value.get(1..).unwrap_or(&[]));
        let a = match value.map() {
            Ok(pairs) => attributes(&mut value, pairs),
            Err(_) => attributes(&mut skipped, pairs),
        };
        let a = match a {
            Ok(a) => a,
            Err(_) => return self.summary.kind("unknown", r.value.len() as u64),
        };
        match a.kind {
            Kind::File => {
                self.files += 1;
                self.bytes += a.content;
                self.summary.kind(ending(path), a.content);
            }
            Kind::Folder => self.folders += 1,
            Kind::Link | Kind::Hardlink => self.links += 1,
        }
        self.summary.kind(a.kind.name(), a.content);
    }
}

/// The kind of a file by the ending of its name: `*.ldb`.
fn ending(path: &[u8]) -> &str {
    let name = path.rsplit(|b| *b == b'/').next().unwrap_or(&[]);
    let dot = match name.iter().rposition(|b| *b == b'.') {
        Some(dot) if dot > 0 && name.len() - dot <= 16 => dot,
        _ => return "other files",
    };
    match core::str::from_utf8(&name[dot..]) {
        Ok(ending) if ending.len() > 1 => ending,
        _ => "other files",
    }
}

impl Visitor for Kinds<'_> {
    fn record(&mut self, encoded: &[u8]) -> Result<()> {
        self.count(encoded);
        self.summary.record(encoded)
    }

    fn batch(&mut self, encoded: &[u8]) -> Result<()> {
        self.summary.batch(encoded)
    }

    fn fragment(&mut self, piece: &[u8], more: bool) -> Result<()> {
        if !self.open {
            self.count(piece);
        }
        self.open = more;
        self.summary.fragment(piece, more)
    }
}
