//! `records`: the serializer of services that speak records themselves.
//!
//! Native state is a CBOR sequence of records, and so is what it saves: every operation but `inspect`
//! checks each record and hands the bytes on. What it is for, and how a service's own schema number
//! travels, is in README.md.

#![no_std]
#![deny(unsafe_code)]

mod schema;

use torpor::{walk, Call, Descriptor, Input, Output, Pass, Result, Scratch, Serializer, Summary};

static SUMMARY: Scratch<Summary> = Scratch::new(Summary::new());

struct Records;

impl Serializer for Records {
    const DESCRIPTOR: Descriptor = Descriptor {
        name: "records",
        version: "1.0.0",
        schema: schema::DEFAULT,
        reads: &[schema::DEFAULT],
        media: "application/cbor-seq",
        operations: &["save", "load", "migrate", "inspect"],
        ordered: false,
        canonical: true,
    };

    fn save(call: &Call<'_>, native: &mut Input<'_>, records: &mut Output<'_>) -> Result<()> {
        schema::of(call)?;
        walk(native, &mut Pass { out: records, records: true })
    }

    fn load(call: &Call<'_>, records: &mut Input<'_>, native: &mut Output<'_>) -> Result<()> {
        schema::loadable(call)?;
        walk(records, &mut Pass { out: native, records: false })
    }

    fn migrate(call: &Call<'_>, records: &mut Input<'_>, out: &mut Output<'_>) -> Result<()> {
        schema::migratable(call)?;
        walk(records, &mut Pass { out, records: true })
    }

    fn inspect(call: &Call<'_>, records: &mut Input<'_>, out: &mut Output<'_>) -> Result<()> {
        let schema = schema::of(call)?.or(call.schema).unwrap_or(schema::DEFAULT);
        SUMMARY.with(|summary| {
            summary.clear();
            walk(records, summary)?;
            summary.write(&[("schema", schema)], out)
        })
    }
}

// The input buffer is as long as measured best (README.md, "Speed"); output is written only by
// describe and inspect.
torpor::serializer!(Records, input = 131_072, output = 4_096);
torpor::panic_handler!();
