//! The service's own schema number.
//!
//! The runtime keeps it (in the part's configuration and the state file's header) and says it in each
//! call; the setting `schema` makes this serializer hold the call against it.

use torpor::{Call, Code, Error, Result, Text};

/// The schema of a service that names none.
pub const DEFAULT: u64 = 1;

const SETTING: &str = "schema";

/// Reads the settings: the schema the service speaks, if the part's settings name it.
pub fn of(call: &Call<'_>) -> Result<Option<u64>> {
    let mut schema = None;
    call.settings(&[SETTING], |name, mut value| {
        schema = match (value.uint(), value.end()) {
            (Ok(n), Ok(())) if n > 0 => Some(n),
            _ => return Err(Call::wrong_setting(name, "a whole number from 1")),
        };
        Ok(())
    })?;
    Ok(schema)
}

/// Refuses records of another schema than the settings name.
pub fn loadable(call: &Call<'_>) -> Result<()> {
    match (call.schema, of(call)?) {
        (Some(given), Some(speaks)) if given != speaks => Err(other(given, "the service speaks", speaks)),
        _ => Ok(()),
    }
}

/// Refuses a change of schema: what a service's values mean is its own affair.
pub fn migratable(call: &Call<'_>) -> Result<()> {
    of(call)?;
    match (call.from, call.to) {
        (Some(from), Some(to)) if from == to => Ok(()),
        (Some(from), Some(to)) => Err(other(from, "wanted is", to)),
        _ => Err(Error::new(Code::Internal, "the call does not say from which schema to which")),
    }
}

fn other(given: u64, want: &str, schema: u64) -> Error {
    let msg = Text::new().str("the records are of schema ").num(given).str(", ").str(want).str(" schema ").num(schema);
    Error::new(
        Code::Version,
        msg.str("; this serializer knows no way between a service's own schemas: use one that does"),
    )
}
