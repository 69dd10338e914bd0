//! A serializer for files of lines "name=value", sorted by name: one record a line.

use torpor::cbor::Reader;
use torpor::{Call, Code, Descriptor, Error, Input, Key, Output, Result, Serializer, MAX_KEY_BYTES};

struct Lines;

impl Serializer for Lines {
    const DESCRIPTOR: Descriptor = Descriptor {
        name: "settings",
        version: "1.0.0",
        schema: 1,
        reads: &[1],
        media: "text/plain",
        operations: &["save", "load"],
        ordered: false,
        canonical: true, // load gives back the very bytes save was given
    };

    fn save(call: &Call<'_>, native: &mut Input<'_>, records: &mut Output<'_>) -> Result<()> {
        call.no_settings()?;
        let mut last: Option<String> = None;
        loop {
            let at = native.offset();
            let line = match native.until(b'\n')? {
                Some(line) => std::str::from_utf8(line).unwrap_or(""),
                None => return Ok(()),
            };
            match line.strip_suffix('\n').and_then(|l| l.split_once('=')) {
                Some((name, _)) if name.len() > MAX_KEY_BYTES => {
                    return Err(Error::new(Code::TooLarge, "a name of more than 65536 bytes").at(at));
                }
                Some((name, value)) if last.as_deref() < Some(name) => {
                    records.record("", name)?;
                    records.text(value)?;
                    last.get_or_insert_with(String::new).replace_range(.., name);
                }
                _ => return Err(Error::corrupt(at, "not a line of name=value in UTF-8, sorted by name")),
            }
        }
    }

    fn load(call: &Call<'_>, records: &mut Input<'_>, native: &mut Output<'_>) -> Result<()> {
        call.no_settings()?;
        let mut last: Option<String> = None;
        loop {
            let at = records.offset();
            let (key, value) = match records.record()? {
                Some(r) => (r.key, Reader::new(r.value).text()),
                None => return Ok(()),
            };
            match (key, value) {
                (Key::Text(name), Ok(value)) if last.as_deref() < Some(name) => {
                    for part in [name, "=", value, "\n"] {
                        native.write(part.as_bytes())?;
                    }
                    last.get_or_insert_with(String::new).replace_range(.., name);
                }
                _ => return Err(Error::corrupt(at, "not a record of a name and a value in text, sorted by name")),
            }
        }
    }
}

torpor::serializer!(Lines);
torpor::panic_hook!();

#[cfg(test)]
mod tests;
