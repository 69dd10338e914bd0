//! What went wrong, as the host tells it to people.

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
    pub fn number(self) -> i32 {
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
#[derive(Clone, Copy, Debug)]
pub struct Error {
    /// The kind.
    pub code: Code,
    /// What happened, to what, and what to do.
    pub msg: Text,
    /// Where in the state, such as `record 17` or `$.streams.orders`; may be empty.
    pub path: Text,
    /// Byte offset in the input of this call, if there is one to tell.
    pub offset: Option<u64>,
}

/// The result of everything in a guest that can fail.
pub type Result<T> = core::result::Result<T, Error>;

impl Error {
    /// An error without a place.
    pub fn new(code: Code, msg: impl Into<Text>) -> Error {
        Error { code, msg: msg.into(), path: Text::new(), offset: None }
    }

    /// [`Code::Corrupt`] at a byte of the input.
    pub fn corrupt(offset: u64, msg: impl Into<Text>) -> Error {
        Error::new(Code::Corrupt, msg).at(offset)
    }

    /// The same error with a byte offset.
    pub fn at(mut self, offset: u64) -> Error {
        self.offset = Some(offset);
        self
    }

    /// The same error with a path.
    pub fn path(mut self, path: impl Into<Text>) -> Error {
        self.path = path.into();
        self
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
    fn keeps_place() {
        let e = Error::corrupt(9, "a line without '='").path(Text::new().str("line ").num(3));
        assert_eq!((e.code, e.offset), (Code::Corrupt, Some(9)));
        assert_eq!((e.msg.as_str(), e.path.as_str()), ("a line without '='", "line 3"));
    }
}
