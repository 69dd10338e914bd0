//! `files`: the serializer of folders.
//!
//! Native state is a sequence of entries, sorted by path, as the source `runtime/source/files` writes it.
//! Each becomes a record whose key is its path; the content of large files is cut by content into records
//! of their own. README.md has both forms in full.

#![no_std]
#![deny(unsafe_code)]

mod entry;
mod inspect;
mod load;
mod save;

use torpor::cut::Occurrences;
use torpor::{
    migrate_none, walk, Call, Descriptor, Input, Output, Result, Scratch, Serializer, Summary, MAX_PARTITION_BYTES,
};

use entry::Before;

/// What every native state begins with: the array of a name and a version.
pub const HEADER: &[u8] = b"\x82\x6ctorpor-files\x01";

/// A file with more bytes of content has them in records of their own.
pub const INLINE: u64 = 64 << 10;

/// Pieces are of 16 KiB on average, of 64 KiB at most.
pub const PIECE_BITS: u32 = 14;

/// What stands between a file's path and the name of a piece of it in a key. No path has it.
pub const PIECES: &[u8] = b"//";

const SCHEMA: u64 = 1;

struct Files;

/// What one call keeps beside its buffers.
pub struct Memory {
    before: Before,
    counts: Occurrences,
    key: [u8; entry::MAX_PATH + 32],
}

static MEMORY: Scratch<Memory> =
    Scratch::new(Memory { before: Before::new(), counts: Occurrences::new(), key: [0; entry::MAX_PATH + 32] });
static SUMMARY: Scratch<Summary> = Scratch::new(Summary::new());

impl Serializer for Files {
    const DESCRIPTOR: Descriptor = Descriptor {
        name: "files",
        version: "1.0.0",
        schema: SCHEMA,
        reads: &[SCHEMA],
        media: "application/vnd.torpor.files+cbor-seq",
        operations: &["save", "load", "migrate", "inspect"],
        ordered: false,
        canonical: true,
    };

    fn save(call: &Call<'_>, native: &mut Input<'_>, records: &mut Output<'_>) -> Result<()> {
        let partition = partition(call)?;
        MEMORY.with(|m| save::save(m, partition, native, records))
    }

    fn load(call: &Call<'_>, records: &mut Input<'_>, native: &mut Output<'_>) -> Result<()> {
        partition(call)?;
        MEMORY.with(|m| load::load(m, records, native))
    }

    fn migrate(call: &Call<'_>, records: &mut Input<'_>, out: &mut Output<'_>) -> Result<()> {
        partition(call)?;
        migrate_none(call, SCHEMA, records, out)
    }

    fn inspect(call: &Call<'_>, records: &mut Input<'_>, out: &mut Output<'_>) -> Result<()> {
        partition(call)?;
        SUMMARY.with(|summary| {
            summary.clear();
            let mut kinds = inspect::Kinds::new(summary);
            walk(records, &mut kinds)?;
            kinds.write(SCHEMA, out)
        })
    }
}

/// The partition of all records: the setting `partition`, or none.
fn partition<'a>(call: &Call<'a>) -> Result<&'a str> {
    let mut partition = "";
    call.settings(&["partition"], |name, mut value| {
        partition = match (value.text(), value.end()) {
            (Ok(p), Ok(())) if p.len() <= MAX_PARTITION_BYTES => p,
            _ => return Err(Call::wrong_setting(name, "a text of at most 4096 bytes")),
        };
        Ok(())
    })?;
    Ok(partition)
}

// The input holds an entry up to its content, and a record whole: the longest is 64 KiB of content behind
// attributes.
torpor::serializer!(Files, input = 262_144, output = 131_072);
torpor::panic_handler!();

#[cfg(test)]
extern crate std;

#[cfg(test)]
mod tests;
