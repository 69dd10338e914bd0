//! `json`: JSON text as records, and back to the very bytes.
//!
//! `save` opens the outer objects and arrays, each a record of its own, and makes a record of each entry
//! of what it opened; `load` writes them again. Where records begin, what they are called and what is kept
//! of spaces and spellings is in README.md.

#![deny(unsafe_code)]

mod guess;
mod inspect;
mod load;
mod memory;
mod names;
mod number;
mod path;
mod print;
mod save;
mod scan;
mod style;
mod word;

use torpor::{Call, Descriptor, Input, Output, Result, Serializer};

/// The schema of the records.
const SCHEMA: u64 = 1;

struct Json;

impl Serializer for Json {
    const DESCRIPTOR: Descriptor = Descriptor {
        name: "json",
        version: "1.0.0",
        schema: SCHEMA,
        reads: &[SCHEMA],
        media: "application/json",
        operations: &["save", "load", "migrate", "inspect"],
        ordered: false,
        canonical: true,
    };

    const NESTING: &'static str = "/";

    fn save(call: &Call<'_>, native: &mut Input<'_>, records: &mut Output<'_>) -> Result<()> {
        save::save(call, native, records)
    }

    fn load(call: &Call<'_>, records: &mut Input<'_>, native: &mut Output<'_>) -> Result<()> {
        load::load(call, records, native)
    }

    fn migrate(call: &Call<'_>, records: &mut Input<'_>, out: &mut Output<'_>) -> Result<()> {
        torpor::migrate_none(call, SCHEMA, records, out)
    }

    fn inspect(call: &Call<'_>, records: &mut Input<'_>, out: &mut Output<'_>) -> Result<()> {
        inspect::inspect(call, records, out)
    }
}

torpor::serializer!(Json, input = 131_072, output = 4_096);
torpor::panic_hook!();
