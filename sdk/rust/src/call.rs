//! The parameters of a call, and what a serializer says about itself.

use crate::cbor::{Fault, Reader, TEXT};
use crate::error::{Code, Error, Result};
use crate::output::Output;
use crate::text::Text;

/// The parameters of one call (ABI.md, "Call").
#[derive(Clone, Copy, Default)]
pub struct Call<'a> {
    /// `describe`, `save`, `load`, `migrate` or `inspect`.
    pub op: &'a str,
    /// The service's name.
    pub service: &'a str,
    /// The part's name.
    pub part: &'a str,
    /// Load, inspect: the schema of the records given, if the host said.
    pub schema: Option<u64>,
    /// Migrate: the schema of the records given.
    pub from: Option<u64>,
    /// Migrate: the schema wanted.
    pub to: Option<u64>,
    /// The wall clock of this call, in nanoseconds since 1970.
    pub time: i64,
    settings: &'a [u8],
}

impl<'a> Call<'a> {
    /// Reads the map that `arg` gave. Keys it does not know are passed over.
    pub(crate) fn parse(arg: &'a [u8]) -> Result<Call<'a>> {
        Call::read(arg).map_err(|f| {
            let msg = Text::new().str("the parameters of the call: ").str(f.text().as_str());
            Error::new(Code::Internal, msg)
        })
    }

    fn read(arg: &'a [u8]) -> core::result::Result<Call<'a>, Fault> {
        let mut call = Call::default();
        let mut r = Reader::new(arg);
        for _ in 0..r.map()? {
            match r.text()? {
                "op" => call.op = r.text()?,
                "service" => call.service = r.text()?,
                "part" => call.part = r.text()?,
                "schema" => call.schema = Some(r.uint()?),
                "from" => call.from = Some(r.uint()?),
                "to" => call.to = Some(r.uint()?),
                "time" => call.time = r.int()?,
                "settings" if r.null() => {}
                "settings" => call.settings = r.item()?,
                _ => {
                    r.item()?;
                }
            }
        }
        r.end()?;
        Ok(call)
    }

    /// Walks the part's settings: names and encoded values. A name that is not among `allowed` is
    /// [`Code::Unsupported`], since a misspelled setting is worth telling.
    pub fn settings(&self, allowed: &[&str], mut each: impl FnMut(&'a str, Reader<'a>) -> Result<()>) -> Result<()> {
        if self.settings.is_empty() {
            return Ok(());
        }
        let mut r = Reader::new(self.settings);
        let wrong = |f: Fault| Error::new(Code::Unsupported, f.text()).path("settings");
        for _ in 0..r.map().map_err(wrong)? {
            if r.major() != Some(TEXT) {
                return Err(Error::new(Code::Unsupported, "names of settings are text").path("settings"));
            }
            let name = r.text().map_err(wrong)?;
            if !allowed.contains(&name) {
                let mut msg = Text::new().str("unknown setting; known are:");
                for a in allowed {
                    msg = msg.str(" ").str(a);
                }
                return Err(Error::new(Code::Unsupported, msg).path(Call::setting_path(name)));
            }
            let value = r.item().map_err(wrong)?;
            each(name, Reader::new(value))?;
        }
        Ok(())
    }

    /// For a serializer without settings: refuses every one that the part has.
    pub fn no_settings(&self) -> Result<()> {
        let mut r = Reader::new(self.settings);
        let name = match r.map() {
            Ok(0) => return Ok(()),
            Ok(_) => r.text().unwrap_or(""),
            Err(_) if self.settings.is_empty() => return Ok(()),
            Err(_) => "",
        };
        let msg = "unknown setting; this serializer has none";
        Err(Error::new(Code::Unsupported, msg).path(Call::setting_path(name)))
    }

    /// An error about the value of a setting: `expected` in words.
    pub fn wrong_setting(name: &str, expected: &str) -> Error {
        Error::new(Code::Unsupported, Text::new().str(expected).str(" expected")).path(Call::setting_path(name))
    }

    fn setting_path(name: &str) -> Text {
        Text::new().str("settings.").str(name)
    }
}

/// What a serializer says about itself (ABI.md, "Descriptor").
#[derive(Clone, Copy)]
pub struct Descriptor {
    /// Its name, as in a state file's header.
    pub name: &'static str,
    /// Its version, free text.
    pub version: &'static str,
    /// The schema of the records `save` emits.
    pub schema: u64,
    /// The schemas `load` accepts, `schema` among them.
    pub reads: &'static [u64],
    /// The media type of the native state.
    pub media: &'static str,
    /// Of `save`, `load`, `migrate`, `inspect`; the first two are required.
    pub operations: &'static [&'static str],
    /// Records leave `save` in ascending key order within a partition.
    pub ordered: bool,
    /// `load` gives back the very bytes `save` was given.
    pub canonical: bool,
}

impl Descriptor {
    /// Writes the map. `nesting` is what may follow the key of a record in the keys of those inside of it, `memory` how
    /// many bytes a call needs.
    pub(crate) fn write(&self, nesting: &str, out: &mut Output<'_>, memory: u64) -> Result<()> {
        out.map(9 + !nesting.is_empty() as usize)?;
        out.text("name")?;
        out.text(self.name)?;
        out.text("version")?;
        out.text(self.version)?;
        out.text("schema")?;
        out.uint(self.schema)?;
        out.text("reads")?;
        out.array(self.reads.len())?;
        for n in self.reads {
            out.uint(*n)?;
        }
        out.text("media")?;
        out.text(self.media)?;
        out.text("operations")?;
        out.array(self.operations.len())?;
        for op in self.operations {
            out.text(op)?;
        }
        out.text("ordered")?;
        out.bool(self.ordered)?;
        out.text("canonical")?;
        out.bool(self.canonical)?;
        if !nesting.is_empty() {
            out.text("nesting")?;
            out.text(nesting)?;
        }
        out.text("memory")?;
        out.uint(memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::host::{run, Host};
    use std::vec::Vec;

    fn encode(f: impl FnOnce(&mut Output<'_>) -> Result<()>) -> Vec<u8> {
        run(Host::default(), || {
            let mut buf = [0; 512];
            let mut out = Output::new(&mut buf);
            f(&mut out).unwrap();
            out.finish().unwrap();
        })
        .output
        .remove(0)
        .0
    }

    fn load_call() -> Vec<u8> {
        encode(|out| {
            out.map(7)?;
            out.text("op")?;
            out.text("load")?;
            out.text("service")?;
            out.text("orders")?;
            out.text("part")?;
            out.text("store")?;
            out.text("schema")?;
            out.uint(3)?;
            out.text("later")?;
            out.array(1)?;
            out.null()?;
            out.text("time")?;
            out.int(-5)?;
            out.text("settings")?;
            out.map(2)?;
            out.text("schema")?;
            out.uint(3)?;
            out.text("depth")?;
            out.uint(2)
        })
    }

    #[test]
    fn reads_the_parameters() {
        let arg = load_call();
        let call = Call::parse(&arg).unwrap();
        assert_eq!((call.op, call.service, call.part), ("load", "orders", "store"));
        assert_eq!((call.schema, call.from, call.to, call.time), (Some(3), None, None, -5));
        let mut seen = Vec::new();
        call.settings(&["schema", "depth"], |name, mut v| {
            seen.push((name, v.uint().unwrap()));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [("schema", 3), ("depth", 2)]);
        let e = call.settings(&["schema"], |_, _| Ok(())).unwrap_err();
        assert_eq!(e.parts(), (4, "unknown setting; known are: schema".into(), "settings.depth".into(), None));
        let e = call.no_settings().unwrap_err();
        assert_eq!(e.parts(), (4, "unknown setting; this serializer has none".into(), "settings.schema".into(), None));
        assert!(Call::default().no_settings().is_ok());
    }

    #[test]
    fn damaged_parameters_are_an_error() {
        let arg = load_call();
        for cut in 0..arg.len() {
            assert!(Call::parse(&arg[..cut]).is_err(), "cut at {cut}");
        }
        assert!(Call::parse(&[0xa0, 0]).is_err());
        assert!(Call::parse(&[0xa0]).is_ok());
        assert!(Call::parse(&[0xa1, 0x68, b's', b'e', b't', b't', b'i', b'n', b'g', b's', 0xf6]).is_ok());
    }

    #[test]
    fn describes() {
        const D: Descriptor = Descriptor {
            name: "n",
            version: "1",
            schema: 2,
            reads: &[1, 2],
            media: "text/plain",
            operations: &["save", "load"],
            ordered: true,
            canonical: false,
        };
        let keys = |nesting: &str| {
            let map = encode(|out| D.write(nesting, out, 4096));
            let mut r = Reader::new(&map);
            let mut keys = Vec::new();
            for _ in 0..r.map().unwrap() {
                keys.push(std::string::String::from(r.text().unwrap()));
                r.item().unwrap();
            }
            r.end().unwrap();
            keys.join(" ")
        };
        let all = "name version schema reads media operations ordered canonical";
        assert_eq!(keys(""), std::format!("{} memory", all));
        assert_eq!(keys("/"), std::format!("{} nesting memory", all));
    }
}
