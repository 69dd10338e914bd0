//! Runs a serializer on the machine itself, for its unit tests, by the rules of the border between host
//! and guest (ABI.md): input comes in pieces of any size, output counts only if the input was read to
//! its end and no record is left open, and what is emitted as records is checked.
//!
//! [`round_trip`] is the test every serializer should have; [`save`] and [`load`] run one operation; a
//! [`Run`] is one call with all there is to choose. Each thread has a host of its own.

use std::boxed::Box;
use std::string::{String, ToString};
use std::vec::Vec;

use crate::call::Call;
use crate::cbor::{encode_head, Reader, Step, MAP, NEGATIVE, TEXT, UINT};
use crate::error::Code;
use crate::guest::{Buffers, Serializer};
use crate::input::Input;
use crate::output::Output;
use crate::record::Checker;
use crate::sys::host::{self, Host};

/// Why a call failed, as a host would tell it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The number of the [`Code`].
    pub code: i32,
    /// What happened.
    pub msg: String,
    /// Where in the state, for people.
    pub path: String,
    /// Where in the call's input.
    pub offset: Option<u64>,
}

/// One call: what a serializer is given beside its input.
#[derive(Clone, Default, Debug)]
pub struct Run {
    /// The most bytes a piece of input has; 0 means as many as there is room for.
    pub piece: usize,
    /// Whether the end of the input comes alone, after the last piece.
    pub late_end: bool,
    /// The part's settings: one encoded map, or nothing.
    pub settings: Vec<u8>,
    /// The schema of the records given, or wanted; 0 means the serializer's own.
    pub schema: u64,
    /// Migrate: the schema of the records given.
    pub from: u64,
    /// Migrate: the schema wanted.
    pub to: u64,
    /// The wall clock, in nanoseconds since 1970.
    pub time: i64,
}

impl Run {
    /// Native state in, records out.
    pub fn save<S: Serializer>(&self, native: &[u8]) -> Result<Vec<u8>, Failure> {
        self.run::<S>("save", S::save, native, false, true)
    }

    /// Records in, native state out.
    pub fn load<S: Serializer>(&self, records: &[u8]) -> Result<Vec<u8>, Failure> {
        self.run::<S>("load", S::load, records, true, false)
    }

    /// Records of schema `from` in, records of schema `to` out.
    pub fn migrate<S: Serializer>(&self, records: &[u8]) -> Result<Vec<u8>, Failure> {
        self.run::<S>("migrate", S::migrate, records, true, true)
    }

    /// Records in, a map for people out.
    pub fn inspect<S: Serializer>(&self, records: &[u8]) -> Result<Vec<u8>, Failure> {
        self.run::<S>("inspect", S::inspect, records, true, false)
    }

    fn run<S: Serializer>(
        &self,
        op: &str,
        f: fn(&Call<'_>, &mut Input<'_>, &mut Output<'_>) -> crate::Result<()>,
        input: &[u8],
        records_in: bool,
        records_out: bool,
    ) -> Result<Vec<u8>, Failure> {
        let mut host =
            Host { late_end: self.late_end || records_in, arg: self.arg(op, S::DESCRIPTOR.schema), ..Host::default() };
        let most = if self.piece == 0 { usize::MAX } else { self.piece };
        let whole = if records_in {
            ends(input).map_err(|at| broken(&std::format!("the input is no record at {at}")))?
        } else {
            Vec::new()
        };
        let mut from = 0;
        for end in whole.iter().copied().chain((!records_in && !input.is_empty()).then_some(input.len())) {
            for piece in input[from..end].chunks(most.min(end - from)) {
                from += piece.len();
                host.input.push_back((piece.to_vec(), records_in && from < end));
            }
        }
        let mut status = 0;
        let mut buffers = Box::new(Buffers::<131_072, 65_536>::new());
        let host = host::run(host, || status = buffers.run(f));
        if let Some((code, map)) = host.failures.first() {
            return Err(failure(*code, map));
        }
        if status != 0 || !host.ended {
            return Err(broken("the serializer returned before its input had ended"));
        }
        let mut output = Vec::new();
        let mut open = 0;
        let mut fragments = false;
        for (bytes, flags) in &host.output {
            output.extend_from_slice(bytes);
            let more = *flags != 0;
            if more && !records_out {
                return Err(broken("the serializer emitted a fragment where output has no records"));
            }
            if records_out && !more {
                let found = ends(&output[open..])
                    .map_err(|at| broken(&std::format!("what the serializer emitted is no record at {at}")))?;
                if fragments && found.len() != 1 {
                    return Err(broken("the fragments that the serializer emitted do not make one record"));
                }
                open = output.len();
            }
            fragments = more;
        }
        if fragments {
            return Err(broken("the serializer returned with a record emitted in part"));
        }
        Ok(output)
    }

    /// The parameters of the call, encoded.
    fn arg(&self, op: &str, schema: u64) -> Vec<u8> {
        let mut arg = Vec::new();
        let has = !self.settings.is_empty();
        head(&mut arg, MAP, 7 + has as u64);
        for (key, value) in [("op", op), ("service", "orders"), ("part", "store")] {
            text(&mut arg, key);
            text(&mut arg, value);
        }
        for (key, value) in
            [("schema", if self.schema == 0 { schema } else { self.schema }), ("from", self.from), ("to", self.to)]
        {
            text(&mut arg, key);
            head(&mut arg, UINT, value);
        }
        text(&mut arg, "time");
        if self.time < 0 {
            head(&mut arg, NEGATIVE, -(self.time + 1) as u64);
        } else {
            head(&mut arg, UINT, self.time as u64);
        }
        if has {
            text(&mut arg, "settings");
            arg.extend_from_slice(&self.settings);
        }
        arg
    }
}

/// Saves a native state, with its input whole.
pub fn save<S: Serializer>(native: &[u8]) -> Result<Vec<u8>, Failure> {
    Run::default().save::<S>(native)
}

/// Loads records, with each of them whole.
pub fn load<S: Serializer>(records: &[u8]) -> Result<Vec<u8>, Failure> {
    Run::default().load::<S>(records)
}

/// Saves a native state and loads it again, with input in pieces of every kind, and compares: however
/// its input is cut, a serializer must give the same output, and load must give the very bytes save was
/// given, or if it is not canonical, a state that has the same records. Gives the records. Panics,
/// saying what is wrong.
pub fn round_trip<S: Serializer>(native: &[u8]) -> Vec<u8> {
    let saved = save::<S>(native).expect("the state must be saved");
    let loaded = load::<S>(&saved).expect("the records must be loaded");
    if S::DESCRIPTOR.canonical {
        assert!(loaded == native, "load gives other bytes than save was given:\n{}", differ(native, &loaded));
    } else {
        let again = save::<S>(&loaded).expect("what load gave must be saved");
        assert!(again == saved, "a save of what load gave has other records:\n{}", differ(&saved, &again));
    }
    for piece in [0, 1, 2, 3, 7, 64, 1000, 65536] {
        for late_end in [false, true] {
            let run = Run { piece, late_end, ..Run::default() };
            let again = run.save::<S>(native);
            assert!(again.as_ref() == Ok(&saved), "save in pieces of {piece} gives other records: {:?}", again.err());
            let again = run.load::<S>(&saved);
            assert!(again.as_ref() == Ok(&loaded), "load in pieces of {piece} gives another state: {:?}", again.err());
        }
    }
    saved
}

/// Where two states part, for people.
fn differ(want: &[u8], got: &[u8]) -> String {
    let at = want.iter().zip(got).take_while(|(a, b)| a == b).count();
    let near = |s: &[u8]| String::from_utf8_lossy(&s[at.saturating_sub(20)..s.len().min(at + 20)]).to_string();
    std::format!("at {at}: {:?}, want {:?}", near(got), near(want))
}

/// The ends of records back to back, or the offset of what is none.
fn ends(records: &[u8]) -> Result<Vec<usize>, usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    while at < records.len() {
        match Checker::new().check(records, at) {
            Ok(Step::Whole(end)) => at = end,
            Ok(Step::Short(_)) => return Err(records.len()),
            Err(fault) => return Err(fault.at),
        }
        ends.push(at);
    }
    Ok(ends)
}

/// A failure that the serializer did not tell itself.
fn broken(msg: &str) -> Failure {
    Failure { code: Code::Internal.number(), msg: msg.into(), path: String::new(), offset: None }
}

fn failure(code: i32, map: &[u8]) -> Failure {
    let mut f = Failure { code, msg: String::new(), path: String::new(), offset: None };
    let mut r = Reader::new(map);
    for _ in 0..r.map().unwrap_or(0) {
        match r.text() {
            Ok("msg") => f.msg = r.text().unwrap_or("").into(),
            Ok("path") => f.path = r.text().unwrap_or("").into(),
            _ => f.offset = r.uint().ok(),
        }
    }
    f
}

fn head(out: &mut Vec<u8>, major: u8, arg: u64) {
    let mut buf = [0; 9];
    let n = encode_head(&mut buf, major, arg);
    out.extend_from_slice(&buf[..n]);
}

fn text(out: &mut Vec<u8>, s: &str) {
    head(out, TEXT, s.len() as u64);
    out.extend_from_slice(s.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Descriptor, Error, Result};

    /// Chops native state at every blank; what it does wrong is what the state says.
    struct Words;

    impl Serializer for Words {
        const DESCRIPTOR: Descriptor = Descriptor {
            name: "words",
            version: "1",
            schema: 3,
            reads: &[3],
            media: "text/plain",
            operations: &["save", "load", "migrate"],
            ordered: false,
            canonical: true,
        };

        fn save(call: &Call<'_>, native: &mut Input<'_>, records: &mut Output<'_>) -> Result<()> {
            assert_eq!(
                (call.op, call.service, call.part, call.schema, call.time),
                ("save", "orders", "store", Some(3), -7)
            );
            call.settings(&["deep"], |_, mut v| v.bool().map(|_| ()).map_err(|f| f.error(0)))?;
            loop {
                let at = native.offset();
                let word = match native.until(b' ')? {
                    Some(word) => word,
                    None => return Ok(()),
                };
                match word {
                    b"stop " => return Ok(()),
                    b"bad " => return Err(Error::corrupt(at, "a bad word").path("words")),
                    b"open " => records.emit(&[0x83], true)?,
                    b"junk " => records.emit(&[0x82], false)?,
                    b"two " => {
                        records.emit(&[0x83, 0x60, 0x60, 0xf6], true)?;
                        records.emit(&[0x83, 0x60, 0x60, 0xf6], false)?;
                    }
                    word => {
                        records.record("", &at.to_be_bytes()[..])?;
                        records.bytes(word)?;
                    }
                }
            }
        }

        fn load(_: &Call<'_>, records: &mut Input<'_>, native: &mut Output<'_>) -> Result<()> {
            while let Some(r) = records.record()? {
                let at = r.value.len();
                match Reader::new(r.value).bytes() {
                    Ok(b"fragment ") => native.emit(b"x", true)?,
                    Ok(word) => native.write(word)?,
                    Err(f) => return Err(f.error(at as u64)),
                }
            }
            Ok(())
        }
    }

    fn run(native: &str) -> core::result::Result<Vec<u8>, Failure> {
        Run { time: -7, ..Run::default() }.save::<Words>(native.as_bytes())
    }

    #[test]
    fn gives_what_was_emitted() {
        assert_eq!(run("").unwrap(), []);
        let records = run("one two-and ").unwrap();
        assert_eq!(&records[..4], &[0x83, 0x60, 0x48, 0]);
        assert_eq!(load::<Words>(&records).unwrap(), b"one two-and ");
        let long = "w".repeat(100_000) + " and " + &"v".repeat(100_000);
        let records = run(&long).unwrap();
        for piece in [1000, 100_000] {
            let run = Run { piece, ..Run::default() };
            assert_eq!(run.load::<Words>(&records).unwrap(), long.as_bytes());
        }
    }

    #[test]
    fn tells_failures() {
        let told = run("one bad ").unwrap_err();
        assert_eq!(told, Failure { code: 2, msg: "a bad word".into(), path: "words".into(), offset: Some(4) });
    }

    #[test]
    fn tells_breaches() {
        let long = "stop ".to_string() + &"x".repeat(200_000);
        assert_eq!(run(&long).unwrap_err().msg, "the serializer returned before its input had ended");
        assert_eq!(run("open ").unwrap_err().msg, "the serializer returned with a record emitted in part");
        assert_eq!(run("junk ").unwrap_err().msg, "what the serializer emitted is no record at 0");
        assert_eq!(run("two ").unwrap_err().msg, "the fragments that the serializer emitted do not make one record");
        let fragment = run("fragment ").unwrap();
        assert_eq!(
            load::<Words>(&fragment).unwrap_err().msg,
            "the serializer emitted a fragment where output has no records"
        );
        assert_eq!(load::<Words>(&[0x82]).unwrap_err().msg, "the input is no record at 0");
        assert_eq!(load::<Words>(&fragment[..5]).unwrap_err().msg, "the input is no record at 5");
        let not_offered = Run { from: 1, to: 2, ..Run::default() };
        assert_eq!(not_offered.migrate::<Words>(&[]).unwrap_err().code, 4);
        assert_eq!(not_offered.inspect::<Words>(&[]).unwrap_err().msg, "this serializer does not offer inspect");
    }

    /// Keeps each byte as a record; its load gives the first `KEPT` of them, in lower case.
    struct Letters<const KEPT: usize>;

    impl<const KEPT: usize> Serializer for Letters<KEPT> {
        const DESCRIPTOR: Descriptor = Descriptor {
            name: "letters",
            version: "1",
            schema: 1,
            reads: &[1],
            media: "text/plain",
            operations: &["save", "load"],
            ordered: false,
            canonical: false,
        };

        fn save(_: &Call<'_>, native: &mut Input<'_>, records: &mut Output<'_>) -> Result<()> {
            while native.fill()? {
                let at = native.offset();
                for (i, letter) in native.bytes().iter().enumerate() {
                    records.record("", &(at + i as u64).to_be_bytes()[..])?;
                    records.bytes(&[letter.to_ascii_lowercase()])?;
                }
                native.consume(native.bytes().len());
            }
            Ok(())
        }

        fn load(_: &Call<'_>, records: &mut Input<'_>, native: &mut Output<'_>) -> Result<()> {
            let mut left = KEPT;
            while let Some(r) = records.record()? {
                if left > 0 {
                    native.write(Reader::new(r.value).bytes().unwrap())?;
                    left -= 1;
                }
            }
            Ok(())
        }
    }

    #[test]
    fn keeps_records_where_bytes_are_not() {
        assert_eq!(round_trip::<Letters<9>>(b"aBc"), round_trip::<Letters<3>>(b"Abc"));
    }

    #[test]
    #[should_panic(expected = "a save of what load gave has other records")]
    fn finds_all_records_lost() {
        round_trip::<Letters<0>>(b"aBc");
    }

    #[test]
    #[should_panic(expected = "a save of what load gave has other records")]
    fn finds_the_last_record_lost() {
        round_trip::<Letters<2>>(b"aBc");
    }

    #[test]
    fn hands_over_settings() {
        let with = |settings: &[u8]| Run { time: -7, settings: settings.to_vec(), ..Run::default() }.save::<Words>(b"");
        assert!(with(&[0xa1, 0x64, b'd', b'e', b'e', b'p', 0xf5]).is_ok());
        assert_eq!(with(&[0xa1, 0x64, b'w', b'i', b'd', b'e', 0xf5]).unwrap_err().path, "settings.wide");
    }
}
