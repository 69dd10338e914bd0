//! `pickle`: Python pickles of protocols 0 to 5, read without importing or running anything.
//!
//! Save runs the opcodes on a machine that builds expressions (`save`, `node`) and cuts them into records
//! (`records`, `keys`, `table`); load writes them as CPython's pickler would (`load`, `writer`). What
//! records look like is in README.md.

#![deny(unsafe_code)]

mod form;
mod inspect;
mod keys;
mod load;
mod memo;
mod names;
mod node;
mod number;
mod ops;
mod records;
mod rules;
mod save;
mod schema;
mod settings;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod writer;

use torpor::{Call, Descriptor, Input, Output, Result, Serializer};

struct Pickle;

impl Serializer for Pickle {
    const DESCRIPTOR: Descriptor = Descriptor {
        name: "pickle",
        version: "1.0.0",
        schema: schema::SCHEMA,
        reads: &[schema::SCHEMA],
        media: "application/x-python-pickle",
        operations: &["save", "load", "migrate", "inspect"],
        ordered: false,
        canonical: false,
    };

    const NESTING: &'static str = ".[!";

    fn save(call: &Call<'_>, native: &mut Input<'_>, out: &mut Output<'_>) -> Result<()> {
        let settings = settings::Settings::of(call)?;
        save::Machine::new(records::Records::new(&settings), native, out).run()
    }

    fn load(call: &Call<'_>, records: &mut Input<'_>, native: &mut Output<'_>) -> Result<()> {
        schema::loadable(call)?;
        let settings = settings::Settings::of(call)?;
        load::Loader::new(&settings).run(records, native)
    }

    fn migrate(call: &Call<'_>, records: &mut Input<'_>, out: &mut Output<'_>) -> Result<()> {
        settings::Settings::of(call)?;
        torpor::migrate_none(call, schema::SCHEMA, records, out)
    }

    fn inspect(call: &Call<'_>, records: &mut Input<'_>, out: &mut Output<'_>) -> Result<()> {
        settings::Settings::of(call)?;
        inspect::inspect(call, records, out)
    }
}

torpor::serializer!(Pickle, input = 131_072, output = 65_536);
torpor::panic_hook!();
