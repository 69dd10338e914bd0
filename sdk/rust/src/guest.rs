//! What stands between a serializer and its exports.

use crate::call::{Call, Descriptor};
use crate::cbor::{encode_head, MAP, TEXT, UINT};
use crate::error::{Code, Details, Error, Result};
use crate::input::Input;
use crate::output::Output;
use crate::sys;
use crate::text::Text;

/// The longest map of parameters a host hands over (ABI.md, "Call").
pub const MAX_ARG_BYTES: usize = 64 << 10;

/// A serializer: native state into records and back.
///
/// Each method reads its input to the end and returns; an error ends the call and nothing that was
/// written counts. Methods are pure: the same input gives the same output. Make one with
/// [`serializer!`](crate::serializer).
pub trait Serializer {
    /// What it is and can do.
    const DESCRIPTOR: Descriptor;

    /// The bytes that may follow the key of a record in the keys of those inside of it (ABI.md, "Records inside of
    /// others"): at most 16 of printable ASCII; none if no record is inside of another.
    const NESTING: &'static str = "";

    /// Reads native state and writes records.
    fn save(call: &Call<'_>, native: &mut Input<'_>, records: &mut Output<'_>) -> Result<()>;

    /// Reads records and writes native state.
    fn load(call: &Call<'_>, records: &mut Input<'_>, native: &mut Output<'_>) -> Result<()>;

    /// Reads records of schema `call.from` and writes those of `call.to`.
    fn migrate(call: &Call<'_>, _records: &mut Input<'_>, _out: &mut Output<'_>) -> Result<()> {
        Err(not_offered(call))
    }

    /// Reads records and writes a summary for people: one CBOR map.
    fn inspect(call: &Call<'_>, _records: &mut Input<'_>, _summary: &mut Output<'_>) -> Result<()> {
        Err(not_offered(call))
    }
}

fn not_offered(call: &Call<'_>) -> Error {
    Error::new(Code::Unsupported, Text::new().str("this serializer does not offer ").str(call.op))
}

/// A guest's memory: parameters, `I` bytes of input, `O` bytes of output.
pub struct Buffers<const I: usize, const O: usize> {
    arg: [u8; MAX_ARG_BYTES],
    input: [u8; I],
    output: [u8; O],
}

type Operation = fn(&Call<'_>, &mut Input<'_>, &mut Output<'_>) -> Result<()>;

impl<const I: usize, const O: usize> Buffers<I, O> {
    /// Buffers of zeros, which take no room in the module.
    pub const fn new() -> Buffers<I, O> {
        Buffers { arg: [0; MAX_ARG_BYTES], input: [0; I], output: [0; O] }
    }

    /// `torpor_describe`.
    pub fn describe(&mut self, d: &Descriptor, nesting: &str) -> i32 {
        let mut out = Output::new(&mut self.output);
        let memory = (MAX_ARG_BYTES + I + O) as u64;
        status(d.write(nesting, &mut out, memory).and_then(|()| out.finish()))
    }

    /// `torpor_save` and its like.
    #[inline(never)]
    pub fn run(&mut self, f: Operation) -> i32 {
        let n = sys::arg(&mut self.arg);
        let arg = match self.arg.get(..n) {
            Some(arg) => arg,
            None => return status(Err(Error::new(Code::TooLarge, "the parameters of the call are too long"))),
        };
        let call = match Call::parse(arg) {
            Ok(call) => call,
            Err(e) => return status(Err(e)),
        };
        let mut input = Input::new(&mut self.input);
        let mut output = Output::new(&mut self.output);
        status(f(&call, &mut input, &mut output).and_then(|()| output.finish()))
    }
}

impl<const I: usize, const O: usize> Default for Buffers<I, O> {
    fn default() -> Buffers<I, O> {
        Buffers::new()
    }
}

/// What an export returns, once the error has been told.
fn status(r: Result<()>) -> i32 {
    match r {
        Ok(()) => 0,
        Err(e) => {
            report(&e);
            e.number()
        }
    }
}

/// Tells the host of an error.
fn report(e: &Error) {
    let Details { msg, path, offset } = e.details();
    let mut map = Failure { buf: [0; 600], len: 0 };
    map.head(MAP, 1 + !path.is_empty() as u64 + offset.is_some() as u64);
    map.text("msg");
    map.text(msg.as_str());
    if !path.is_empty() {
        map.text("path");
        map.text(path.as_str());
    }
    if let Some(offset) = offset {
        map.text("offset");
        map.head(UINT, offset);
    }
    sys::fail(e.number(), &map.buf[..map.len]);
}

/// Room for two texts of 240 bytes, three names and an offset.
struct Failure {
    buf: [u8; 600],
    len: usize,
}

impl Failure {
    fn put(&mut self, bytes: &[u8]) {
        self.buf[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn head(&mut self, major: u8, arg: u64) {
        let mut head = [0; 9];
        let n = encode_head(&mut head, major, arg);
        self.put(&head[..n]);
    }

    fn text(&mut self, s: &str) {
        self.head(TEXT, s.len() as u64);
        self.put(s.as_bytes());
    }
}

/// How much a log line matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// For the author.
    Debug = 0,
    /// For who wants to know.
    Info = 1,
    /// For who should look.
    Warn = 2,
    /// For who must look.
    Error = 3,
}

/// Writes a line to the host's log, which cuts it to 1 KiB and drops lines that come too fast.
pub fn log(level: Level, line: &str) {
    sys::log(level as i32, line);
}

/// Comes to the host and back. A host ends a guest that computes for long without coming to it: call this
/// now and then in work that neither reads nor writes for more than some megabytes.
pub fn pause() {
    sys::arg(&mut []); // asks how long the parameters are
}

/// Tells the host where a guest panicked. What [`panic_handler!`](crate::panic_handler) and
/// [`panic_hook!`](crate::panic_hook) call.
pub fn report_panic(place: Option<(&str, u32)>) {
    let mut msg = Text::new().str("the serializer panicked");
    if let Some((file, line)) = place {
        msg = msg.str(" at ").str(file).str(":").num(line as u64);
    }
    report(&Error::new(Code::Internal, msg));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cbor::Reader;
    use crate::sys::host::{run, Host};
    use std::boxed::Box;

    struct Upper;

    impl Serializer for Upper {
        const DESCRIPTOR: Descriptor = Descriptor {
            name: "upper",
            version: "1",
            schema: 1,
            reads: &[1],
            media: "text/plain",
            operations: &["save", "load"],
            ordered: false,
            canonical: false,
        };

        fn save(_: &Call<'_>, native: &mut Input<'_>, records: &mut Output<'_>) -> Result<()> {
            while let Some(line) = native.until(b'\n')? {
                if line == b"bad\n" {
                    return Err(Error::corrupt(native.offset(), "bad").path("line"));
                }
                records.record("", line)?;
                records.null()?;
            }
            Ok(())
        }

        fn load(_: &Call<'_>, records: &mut Input<'_>, _: &mut Output<'_>) -> Result<()> {
            records.record().map(|_| ())
        }
    }

    fn call(input: &[u8], arg: &[u8], f: Operation) -> (i32, Host) {
        let mut status = -1;
        let host = Host { input: vec![(input.to_vec(), false)].into(), arg: arg.to_vec(), ..Host::default() };
        let mut buffers = Box::new(Buffers::<64, 64>::new());
        let host = run(host, || status = buffers.run(f));
        (status, host)
    }

    #[test]
    fn a_call_returns_its_output() {
        let (status, host) = call(b"a\nb\n", &[0xa0], Upper::save);
        assert_eq!(status, 0);
        assert!(host.failures.is_empty());
        let want = [0x83, 0x60, 0x42, b'a', b'\n', 0xf6, 0x83, 0x60, 0x42, b'b', b'\n', 0xf6];
        assert_eq!(host.output, [(want.to_vec(), 0)]);
    }

    #[test]
    fn an_error_is_told_with_its_place() {
        let (status, host) = call(b"a\nbad\n", &[0xa0], Upper::save);
        assert_eq!((status, host.output.len(), host.failures.len()), (2, 0, 1));
        let (code, map) = &host.failures[0];
        let mut r = Reader::new(map);
        assert_eq!((*code, r.map()), (2, Ok(3)));
        assert_eq!((r.text(), r.text(), r.text(), r.text()), (Ok("msg"), Ok("bad"), Ok("path"), Ok("line")));
        assert_eq!((r.text(), r.uint(), r.end()), (Ok("offset"), Ok(6), Ok(())));
    }

    #[test]
    fn the_longest_error_fits() {
        let long = Text::from("x".repeat(500).as_str());
        let host = run(Host::default(), || {
            report(&Error::corrupt(u64::MAX, long).path(long));
            report_panic(Some((long.as_str(), u32::MAX)));
        });
        for (_, map) in host.failures {
            let mut r = Reader::new(&map);
            r.item().unwrap();
            r.end().unwrap();
        }
    }

    #[test]
    fn parameters_are_checked() {
        assert_eq!(call(b"", &[0xa1], Upper::save).0, 1);
        assert_eq!(call(b"", &[0x60; MAX_ARG_BYTES + 1], Upper::save).0, 5);
        assert_eq!(call(b"", &[0xa1, 0x62, b'o', b'p', 0x61, b'x'], Upper::inspect).0, 4);
    }

    #[test]
    fn logs() {
        let host = run(Host::default(), || log(Level::Warn, "slow"));
        assert_eq!(host.lines, [(2, b"slow".to_vec())]);
    }
}
