//! The call's output, streamed.

use crate::cbor::{encode_head, ARRAY, BYTES, MAP, NEGATIVE, OTHER, TAG, TEXT, UINT};
use crate::error::{Code, Error, Result};
use crate::record::{Key, RECORD_HEAD};
use crate::sys;

/// The output of one call: records, native state, or one CBOR map.
///
/// Small writes gather in a buffer. Records leave it whole; one that is longer than the buffer leaves
/// in fragments.
pub struct Output<'a> {
    buf: &'a mut [u8],
    len: usize,
    whole: usize,   // where in buf the record under way begins
    records: bool,  // a record is under way, so that what is emitted needs framing
    fragment: bool, // part of the record under way has been emitted
}

impl<'a> Output<'a> {
    /// Gathers in `buf`, which is not empty.
    pub(crate) fn new(buf: &'a mut [u8]) -> Output<'a> {
        Output { buf, len: 0, whole: 0, records: false, fragment: false }
    }

    /// Begins a record; the items written next are its value, which is one item. The record ends where
    /// the next one begins, or with the call.
    pub fn record<'k>(&mut self, partition: &str, key: impl Into<Key<'k>>) -> Result<()> {
        self.close()?;
        self.records = true;
        self.write(&[RECORD_HEAD])?;
        self.text(partition)?;
        match key.into() {
            Key::Text(k) => self.text(k),
            Key::Bytes(k) => self.bytes(k),
        }
    }

    /// Writes bytes as they are: native state, or encoded items.
    #[inline(never)]
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.len == self.buf.len() {
                self.make_room()?;
            }
            let n = rest.len().min(self.buf.len() - self.len);
            self.buf[self.len..self.len + n].copy_from_slice(&rest[..n]);
            self.len += n;
            rest = &rest[n..];
        }
        Ok(())
    }

    /// Hands bytes to the host without the detour over the buffer: whole records, or with `more` a
    /// fragment of one (ABI.md, "Fragments"), or native state.
    #[inline(always)]
    pub fn emit(&mut self, bytes: &[u8], more: bool) -> Result<()> {
        if self.len > 0 {
            self.finish()?;
        }
        emit(bytes, more)
    }

    /// An unsigned integer.
    pub fn uint(&mut self, v: u64) -> Result<()> {
        self.head(UINT, v)
    }

    /// A signed integer.
    pub fn int(&mut self, v: i64) -> Result<()> {
        if v < 0 {
            return self.head(NEGATIVE, -(v + 1) as u64);
        }
        self.head(UINT, v as u64)
    }

    /// A text string.
    pub fn text(&mut self, s: &str) -> Result<()> {
        self.head(TEXT, s.len() as u64)?;
        self.write(s.as_bytes())
    }

    /// A byte string.
    pub fn bytes(&mut self, s: &[u8]) -> Result<()> {
        self.head(BYTES, s.len() as u64)?;
        self.write(s)
    }

    /// The head of an array; its `n` items follow.
    pub fn array(&mut self, n: usize) -> Result<()> {
        self.head(ARRAY, n as u64)
    }

    /// The head of a map; its `n` pairs follow.
    pub fn map(&mut self, n: usize) -> Result<()> {
        self.head(MAP, n as u64)
    }

    /// A tag; its content follows.
    pub fn tag(&mut self, n: u64) -> Result<()> {
        self.head(TAG, n)
    }

    /// True or false.
    pub fn bool(&mut self, v: bool) -> Result<()> {
        self.head(OTHER, 20 + v as u64)
    }

    /// Null.
    pub fn null(&mut self) -> Result<()> {
        self.head(OTHER, 22)
    }

    /// A float, in eight bytes.
    pub fn float(&mut self, v: f64) -> Result<()> {
        self.write(&[OTHER << 5 | 27])?;
        self.write(&v.to_bits().to_be_bytes())
    }

    /// The head of an item of `major` type (see [`cbor`](crate::cbor)), in its shortest form.
    #[inline(never)]
    pub fn head(&mut self, major: u8, arg: u64) -> Result<()> {
        let mut buf = [0; 9];
        let n = encode_head(&mut buf, major, arg);
        self.write(&buf[..n])
    }

    /// Ends the record under way and hands over all that is gathered.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.close()?;
        self.records = false;
        let n = core::mem::take(&mut self.len);
        self.whole = 0;
        if n > 0 {
            emit(&self.buf[..n], false)?;
        }
        Ok(())
    }

    /// Ends the record under way, if there is one.
    fn close(&mut self) -> Result<()> {
        if self.fragment {
            // Its last fragment must go alone. It is not empty: a fragment is emitted only when more
            // bytes wait to be written.
            self.fragment = false;
            emit(&self.buf[..self.len], false)?;
            self.len = 0;
        }
        self.whole = self.len;
        Ok(())
    }

    /// Makes room in a full buffer for bytes that are about to be written.
    fn make_room(&mut self) -> Result<()> {
        if !self.records {
            self.len = 0;
            return emit(self.buf, false);
        }
        if self.whole > 0 {
            emit(&self.buf[..self.whole], false)?;
            self.buf.copy_within(self.whole..self.len, 0);
            self.len -= self.whole;
            self.whole = 0;
            return Ok(());
        }
        self.fragment = true;
        self.len = 0;
        emit(self.buf, true)
    }
}

/// Emits, or says that the host wants no more.
#[inline(always)]
fn emit(bytes: &[u8], more: bool) -> Result<()> {
    if sys::emit(bytes, more) {
        return Ok(());
    }
    Err(Error::new(Code::Internal, "the host refused the output"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cbor::{Fault, Reader};
    use crate::record::Record;
    use crate::sys::host::{run, Host};
    use std::vec::Vec;

    fn collect(size: usize, f: impl FnOnce(&mut Output<'_>)) -> Vec<(Vec<u8>, u32)> {
        run(Host::default(), || {
            let mut buf = vec![0; size];
            let mut out = Output::new(&mut buf);
            f(&mut out);
            out.finish().unwrap();
        })
        .output
    }

    #[test]
    fn records_leave_whole_or_in_fragments_of_one() {
        let values = [1usize, 0, 3, 40, 2, 100, 1, 15, 16, 17, 18, 19, 20];
        for size in 1..64 {
            let output = collect(size, |out| {
                for (i, n) in values.iter().enumerate() {
                    out.record("p", ["k", "key"][i % 2]).unwrap();
                    out.bytes(&vec![i as u8; *n]).unwrap();
                }
            });
            let mut open = Vec::new();
            let mut found = Vec::new();
            for (bytes, flags) in output {
                assert!(!bytes.is_empty() && bytes.len() <= size);
                let had = !open.is_empty();
                open.extend_from_slice(&bytes);
                if flags == 1 {
                    continue;
                }
                let mut rest = &open[..];
                while !rest.is_empty() {
                    let n = Reader::new(rest).item().unwrap().len();
                    let r = Record::parse(&rest[..n]).unwrap();
                    assert_eq!(r.partition, "p");
                    found.push(Reader::new(r.value).bytes().unwrap().len());
                    rest = &rest[n..];
                    assert!(!had || rest.is_empty(), "a last fragment with another record behind it");
                }
                open.clear();
            }
            assert!(open.is_empty());
            assert_eq!(found, values, "buffer of {size}");
        }
    }

    #[test]
    fn native_state_has_no_framing() {
        let text: Vec<u8> = (0..100).collect();
        for size in [1, 3, 64, 100, 200] {
            let output = collect(size, |out| {
                for c in text.chunks(7) {
                    out.write(c).unwrap();
                }
                out.emit(b"tail", false).unwrap();
            });
            assert!(output.iter().all(|(_, flags)| *flags == 0));
            let all: Vec<u8> = output.into_iter().flat_map(|(b, _)| b).collect();
            assert_eq!(all, [&text[..], b"tail"].concat());
        }
    }

    #[test]
    fn writes_each_kind() -> core::result::Result<(), Fault> {
        let out = collect(64, |out| {
            out.array(9).unwrap();
            out.uint(300).unwrap();
            out.int(-300).unwrap();
            out.int(i64::MIN).unwrap();
            out.bool(true).unwrap();
            out.bool(false).unwrap();
            out.null().unwrap();
            out.tag(1).unwrap();
            out.float(1.5).unwrap();
            out.map(1).unwrap();
            out.text("é").unwrap();
            out.bytes(&[7]).unwrap();
            out.int(7).unwrap();
        });
        let mut r = Reader::new(&out[0].0);
        assert_eq!((r.array()?, r.uint()?, r.int()?, r.int()?), (9, 300, -300, i64::MIN));
        assert_eq!((r.bool()?, r.bool()?, r.null(), r.tag()?), (true, false, true, 1));
        assert_eq!(r.item()?, [0xfb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0]);
        assert_eq!((r.map()?, r.text()?, r.bytes()?, r.uint()?), (1, "é", &[7][..], 7));
        r.end()
    }

    #[test]
    fn a_refusal_is_an_error() {
        run(Host { refuse: true, ..Host::default() }, || {
            let mut buf = [0; 4];
            assert!(Output::new(&mut buf).emit(b"x", false).is_err());
            assert!(Output::new(&mut buf).write(b"12345").is_err());
        });
    }
}
