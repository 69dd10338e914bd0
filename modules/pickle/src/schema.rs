//! The schema of these records.

use torpor::{Call, Code, Error, Result, Text};

/// The one schema there is.
pub const SCHEMA: u64 = 1;

/// Refuses records of another schema.
pub fn loadable(call: &Call<'_>) -> Result<()> {
    match call.schema {
        Some(given) if given != SCHEMA => Err(other(given, "read is", SCHEMA)),
        _ => Ok(()),
    }
}

fn other(given: u64, want: &str, schema: u64) -> Error {
    let msg = Text::new().str("the records are of schema ").num(given).str(", ").str(want).str(" schema ").num(schema);
    Error::new(Code::Version, msg)
}
