//! What `inspect` tells: how many records there are, where, and of which objects and arrays they are
//! entries.

use torpor::{walk, Call, Input, Key, Output, Record, Result, Scratch, Summary, Visitor};

use crate::path::{is_account, is_region, END};

static SUMMARY: Scratch<Summary> = Scratch::new(Summary::new());

/// Reads records and writes their summary.
pub fn inspect(call: &Call<'_>, records: &mut Input<'_>, out: &mut Output<'_>) -> Result<()> {
    SUMMARY.with(|summary| {
        summary.clear();
        let mut kinds = Kinds { summary, kind: String::new(), bytes: 0, open: false };
        walk(records, &mut kinds)?;
        summary.write(&[("schema", call.schema.unwrap_or(crate::SCHEMA))], out)
    })
}

struct Kinds<'a> {
    summary: &'a mut Summary,
    kind: String,
    bytes: u64, // of the record that comes in fragments
    open: bool,
}

impl Kinds<'_> {
    /// Takes the kind of a record: the path of what it is an entry of, accounts, regions and places in
    /// arrays left out, such as `/accounts/*/*/*` or `/posts/*`.
    fn of(&mut self, encoded: &[u8]) -> Result<()> {
        let r = Record::parse(encoded).map_err(|f| f.error(0))?;
        self.kind.clear();
        let key = match r.key {
            Key::Text(key) => key,
            Key::Bytes(_) => "",
        };
        let last = key.rfind('/').map_or("", |at| &key[at + 1..]);
        if r.value.starts_with(&[0xd8, 27, 0x81]) || r.value.starts_with(&[0xd8, 27, 0x82]) {
            self.kind.push_str("opened");
        } else if last.as_bytes() == END {
            self.kind.push_str("spaces");
        } else if key.is_empty() {
            self.kind.push_str("value");
        } else {
            let parent = &key[..key.len() - last.len() - 1];
            for token in parent.split('/').skip(1) {
                self.kind.push('/');
                let b = token.as_bytes();
                let left_out = is_account(b) || is_region(b) || (!b.is_empty() && b.iter().all(u8::is_ascii_digit));
                self.kind.push_str(if left_out { "*" } else { token });
            }
            self.kind.push_str("/*");
        }
        Ok(())
    }
}

impl Visitor for Kinds<'_> {
    fn record(&mut self, encoded: &[u8]) -> Result<()> {
        self.of(encoded)?;
        self.summary.kind(&self.kind, encoded.len() as u64);
        self.summary.record(encoded)
    }

    fn batch(&mut self, encoded: &[u8]) -> Result<()> {
        self.summary.batch(encoded)
    }

    fn fragment(&mut self, piece: &[u8], more: bool) -> Result<()> {
        if !self.open {
            self.of(piece)?;
            self.bytes = 0;
        }
        self.open = more;
        self.bytes += piece.len() as u64;
        if !more {
            self.summary.kind(&self.kind, self.bytes);
        }
        self.summary.fragment(piece, more)
    }
}
