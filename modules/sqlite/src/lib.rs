//! `sqlite`: SQLite databases as rows.
//!
//! Native state is what the source of the same name writes (README.md, "Native form"): for each database
//! its pragmas, its schema, and the rows of its tables. Records carry the same, each with a key that says
//! in SQL's words what it is. README.md has both.

#![no_std]
#![deny(unsafe_code)]

mod key;
mod load;
mod native;
mod save;
mod sha256;
mod tables;
mod value;

#[cfg(test)]
mod tests;

use torpor::{migrate_none, Call, Descriptor, Input, Output, Result, Scratch, Serializer, Summary, Visitor};

use tables::Tables;

const SCHEMA: u64 = 1;

/// The longest record that this serializer makes or takes: a row, its names, its key.
const INPUT: usize = 3 << 20;

struct Sqlite;

static TABLES: Scratch<Tables> = Scratch::new(Tables::new());
static SUMMARY: Scratch<Summary> = Scratch::new(Summary::new());

impl Serializer for Sqlite {
    const DESCRIPTOR: Descriptor = Descriptor {
        name: "sqlite",
        version: "1.0.0",
        schema: SCHEMA,
        reads: &[SCHEMA],
        media: "application/vnd.torpor.sqlite+cbor-seq",
        operations: &["save", "load", "migrate", "inspect"],
        ordered: false,
        canonical: true,
    };

    const NESTING: &'static str = ".";

    fn save(call: &Call<'_>, native: &mut Input<'_>, records: &mut Output<'_>) -> Result<()> {
        let partition = partition(call)?;
        TABLES.with(|tables| {
            tables.clear(partition);
            save::save(tables, native, records)
        })
    }

    fn load(call: &Call<'_>, records: &mut Input<'_>, native: &mut Output<'_>) -> Result<()> {
        let partition = partition(call)?;
        TABLES.with(|tables| {
            tables.clear(partition);
            load::load(tables, records, native)
        })
    }

    fn migrate(call: &Call<'_>, records: &mut Input<'_>, out: &mut Output<'_>) -> Result<()> {
        partition(call)?;
        migrate_none(call, SCHEMA, records, out)
    }

    fn inspect(call: &Call<'_>, records: &mut Input<'_>, out: &mut Output<'_>) -> Result<()> {
        partition(call)?;
        SUMMARY.with(|summary| {
            summary.clear();
            while let Some(r) = records.record()? {
                if let torpor::Key::Text(k) = r.key {
                    summary.kind(key::kind(k), r.encoded.len() as u64);
                }
                summary.record(r.encoded)?;
            }
            summary.write(&[("schema", SCHEMA)], out)
        })
    }
}

/// The partition that the settings name, if they do.
fn partition<'a>(call: &Call<'a>) -> Result<Option<&'a str>> {
    let mut partition = None;
    call.settings(&["partition"], |name, mut value| {
        partition = match (value.text(), value.end()) {
            (Ok(p), Ok(())) if p.len() <= torpor::MAX_PARTITION_BYTES => Some(p),
            _ => return Err(Call::wrong_setting(name, "a text of at most 4096 bytes")),
        };
        Ok(())
    })?;
    Ok(partition)
}

torpor::serializer!(Sqlite, input = INPUT, output = 131_072);
torpor::panic_handler!();
