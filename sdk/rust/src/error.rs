//! What went wrong, as the host tells it to people.

use core::num::NonZeroI32;

use crate::text::Text;

/// The kind of an error: the number handed to `fail` (ABI.md, "Errors").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Code {
    /// A fault of the serializer itself.
    Internal,
    /// The input is not what it claims to be.
    Corrupt,
    /// The input is of a schema or version this serializer does not read.
    Version,
    /// The input is sound but holds what this serializer cannot keep.
    Unsupported,
    /// The input passes a limit.
    TooLarge,
    /// A serializer's own kind; numbers below 64 are reported as [`Code::Internal`].
    Own(i32),
}

impl Code {
    /// The number on the wire.
    pub const fn number(self) -> i32 {
        match self {
            Code::Internal => 1,
            Code::Corrupt => 2,
            Code::Version => 3,
            Code::Unsupported => 4,
            Code::TooLarge => 5,
            Code::Own(n) if n >= 64 => n,
            Code::Own(_) => 1,
        }
    }
}

/// An error of one call: which kind, what happened in words, where in the state (`path`, for people)
/// and at which byte of the call's input.
///
/// An Error is one number, so that a [`Result`] costs nothing on the way of those that are well. Its
/// words and places lie in memory of which a guest has one: **making an error forgets those of the
/// error before**. An error that is made is meant to be returned; where a fault may be recovered from,
/// use a type of your own, as [`cbor::Fault`](crate::cbor::Fault) is.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Error {
    number: NonZeroI32,
}

/// The result of everything in a guest that can fail.
pub type Result<T> = core::result::Result<T, Error>;

/// What is told about the last error made.
#[derive(Clone, Copy)]
pub(crate) struct Details {
    pub(crate) msg: Text,
    pub(crate) path: Text,
    pub(crate) offset: Option<u64>,
}

impl Details {
    const NONE: Details = Details { msg: Text::new(), path: Text::new(), offset: None };
}

#[cfg(target_arch = "wasm32")]
fn last<R>(f: impl FnOnce(&mut Details) -> R) -> R {
    static LAST: crate::sys::Scratch<Details> = crate::sys::Scratch::new(Details::NONE);
    LAST.with(f)
}

/// Tests run in threads, and each is a guest of its own.
#[cfg(not(target_arch = "wasm32"))]
fn last<R>(f: impl FnOnce(&mut Details) -> R) -> R {
    use std::cell::RefCell;
    std::thread_local!(static LAST: RefCell<Details> = const { RefCell::new(Details::NONE) });
    LAST.with(|d| f(&mut d.borrow_mut()))
}

impl Error {
    /// An error without a place.
    #[cold]
    #[inline(never)]
    pub fn new(code: Code, msg: impl Into<Text>) -> Error {
        let msg = msg.into();
        last(|d| *d = Details { msg, ..Details::NONE });
        Error { number: NonZeroI32::new(code.number()).unwrap_or(INTERNAL) }
    }

    /// [`Code::Corrupt`] at a byte of the input.
    #[cold]
    pub fn corrupt(offset: u64, msg: impl Into<Text>) -> Error {
        Error::new(Code::Corrupt, msg).at(offset)
    }

    /// The same error at a byte offset of the input.
    #[cold]
    #[inline(never)]
    pub fn at(self, offset: u64) -> Error {
        last(|d| d.offset = Some(offset));
        self
    }

    /// The same error at a place for people, such as `record 17` or `$.streams.orders`.
    #[cold]
    #[inline(never)]
    pub fn path(self, path: impl Into<Text>) -> Error {
        let path = path.into();
        last(|d| d.path = path);
        self
    }

    /// The number that is told to the host.
    pub(crate) fn number(&self) -> i32 {
        self.number.get()
    }

    /// What is told to the host with it.
    pub(crate) fn details(&self) -> Details {
        last(|d| *d)
    }
}

const INTERNAL: NonZeroI32 = match NonZeroI32::new(Code::Internal.number()) {
    Some(n) => n,
    None => panic!(),
};

#[cfg(test)]
impl Error {
    /// Code, message, path and offset, for tests.
    pub(crate) fn parts(&self) -> (i32, std::string::String, std::string::String, Option<u64>) {
        let d = self.details();
        (self.number(), d.msg.as_str().into(), d.path.as_str().into(), d.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_abi() {
        let all = [Code::Internal, Code::Corrupt, Code::Version, Code::Unsupported, Code::TooLarge];
        assert_eq!(all.map(Code::number), [1, 2, 3, 4, 5]);
        assert_eq!([Code::Own(64), Code::Own(7), Code::Own(-1)].map(Code::number), [64, 1, 1]);
    }

    #[test]
    fn keeps_words_and_place_of_the_last() {
        let first = Error::corrupt(9, "a line without '='").path(Text::new().str("line ").num(3));
        assert_eq!(first.parts(), (2, "a line without '='".into(), "line 3".into(), Some(9)));
        let second = Error::new(Code::TooLarge, "long");
        assert_eq!(second.parts(), (5, "long".into(), "".into(), None));
        assert_eq!(first.number(), 2);
    }

    #[test]
    fn a_result_is_one_number() {
        assert_eq!(core::mem::size_of::<Result<()>>(), 4);
    }
}
