//! The call's input, streamed.

use crate::cbor::Step;
use crate::error::{Code, Error, Result};
use crate::record::{Checker, Record};
use crate::sys;
use crate::text::Text;

/// The input of one call: native state, or records.
///
/// It holds a window of the input in a buffer that never grows. An author either looks at the window
/// ([`bytes`](Input::bytes), [`consume`](Input::consume), [`fill`](Input::fill)), or takes one piece
/// after another ([`record`](Input::record), [`until`](Input::until)).
pub struct Input<'a> {
    buf: &'a mut [u8],
    start: usize, // the window's first byte
    end: usize,
    offset: u64, // of `start` in the input
    ended: bool,
    checker: Checker,
}

impl<'a> Input<'a> {
    /// Reads through `buf`.
    pub(crate) fn new(buf: &'a mut [u8]) -> Input<'a> {
        Input { buf, start: 0, end: 0, offset: 0, ended: false, checker: Checker::new() }
    }

    /// The bytes read and not consumed.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        self.buf.get(self.start..self.end).unwrap_or(&[])
    }

    /// Gives up the first `n` bytes of the window.
    #[inline(always)]
    pub fn consume(&mut self, n: usize) {
        debug_assert!(n <= self.end - self.start);
        self.start += n;
        self.offset += n as u64;
    }

    /// The offset in the input of the window's first byte.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the window takes up the whole buffer.
    pub fn is_full(&self) -> bool {
        self.end - self.start == self.buf.len()
    }

    /// Whether the host has said that the input ends with the window.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Adds at least one byte to the window. False means that the input has ended. A window that is
    /// full is [`Code::TooLarge`].
    pub fn fill(&mut self) -> Result<bool> {
        if self.ended {
            return Ok(false);
        }
        if self.start > 0 {
            self.buf.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buf.len() {
            let msg =
                Text::new().str("longer than this serializer's buffer of ").num(self.buf.len() as u64).str(" bytes");
            return Err(Error::new(Code::TooLarge, msg).at(self.offset));
        }
        let got = sys::next(&mut self.buf[self.end..]);
        let n = (got & 0xffff_ffff) as usize;
        self.ended = got >= 0 && got & NEXT_END != 0;
        if got < 0 || n > self.buf.len() - self.end || (n == 0 && !self.ended) {
            return Err(Error::new(Code::Internal, "the input cannot be read").at(self.offset + self.end as u64));
        }
        self.end += n;
        Ok(n > 0)
    }

    /// The next record, checked, or `None` at the end. Its memory is given up by the next call.
    ///
    /// A record longer than the buffer is [`Code::TooLarge`]: choose the buffer in
    /// [`serializer!`](crate::serializer), or read the window and use a [`Checker`].
    pub fn record(&mut self) -> Result<Option<Record<'_>>> {
        let mut from = 0;
        let end = loop {
            match self.checker.check(&self.buf[self.start..self.end], from) {
                Ok(Step::Whole(end)) => break end,
                Ok(Step::Short(at)) => from = at,
                Err(f) => return Err(f.error(self.offset)),
            }
            if !self.fill()? {
                if self.bytes().is_empty() {
                    return Ok(None);
                }
                return Err(Error::corrupt(self.offset + self.bytes().len() as u64, "the input ends inside a record"));
            }
        };
        let (start, offset) = (self.start, self.offset);
        self.consume(end);
        match Record::parse(&self.buf[start..start + end]) {
            Ok(r) => Ok(Some(r)),
            Err(f) => Err(f.error(offset)),
        }
    }

    /// The next bytes up to and including `stop`, or up to the end of the input; `None` at the end.
    /// Their memory is given up by the next call.
    ///
    /// What is longer than the buffer is [`Code::TooLarge`].
    pub fn until(&mut self, stop: u8) -> Result<Option<&[u8]>> {
        let mut from = 0;
        let n = loop {
            let at = find(self.bytes(), from, stop);
            if at < self.bytes().len() {
                break at + 1;
            }
            from = at;
            if !self.fill()? {
                break from;
            }
        };
        let start = self.start;
        self.consume(n);
        Ok(if n > 0 { Some(&self.buf[start..start + n]) } else { None })
    }
}

/// The bit of `next` that says that the input ends with these bytes.
const NEXT_END: i64 = 1 << 32;

/// Where `stop` is first in `s` from `from` on, or the length of `s`: eight bytes at a time.
fn find(s: &[u8], from: usize, stop: u8) -> usize {
    const LOW: u64 = 0x0101_0101_0101_0101;
    let mut at = from;
    while let Some(word) = s.get(at..at + 8).and_then(|w| w.try_into().ok()) {
        // A byte that is `stop` becomes 0, and the lowest 0 is the lowest bit that stays.
        let zeros = u64::from_le_bytes(word) ^ (LOW * stop as u64);
        let hit = zeros.wrapping_sub(LOW) & !zeros & (LOW << 7);
        if hit != 0 {
            return at + hit.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while s.get(at).map_or(false, |b| *b != stop) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Key;
    use crate::sys::host::{run, Host};
    use std::vec::Vec;

    const TWO: [u8; 12] = [0x83, 0x60, 0x61, b'a', 0xf6, 0x83, 0x61, b'p', 0x41, 9, 0x18, 99];

    fn pieces(data: &[u8], step: usize, late_end: bool) -> Host {
        let input = data.chunks(step).map(|c| (c.to_vec(), false)).collect();
        Host { input, late_end, ..Host::default() }
    }

    #[test]
    fn finds_a_byte() {
        let mut s: Vec<u8> = (0..=255).collect();
        s.extend_from_slice(&[0x0a, 0x0b, 0x8a, 0x0a, 0x09, 0x0a]);
        for stop in [0, 1, 9, 0x0a, 0x0b, 0x7f, 0x80, 0x8a, 0xff] {
            for from in 0..s.len() {
                for end in from..s.len() {
                    let want = s[from..end].iter().position(|b| *b == stop).map_or(end, |at| from + at);
                    assert_eq!(find(&s[..end], from, stop), want, "{stop} in {from}..{end}");
                }
            }
        }
    }

    #[test]
    fn records_in_pieces_of_any_size() {
        for step in 1..=TWO.len() {
            for late_end in [false, true] {
                run(pieces(&TWO, step, late_end), || {
                    let mut buf = [0; 16];
                    let mut input = Input::new(&mut buf);
                    let a = input.record().unwrap().unwrap();
                    assert_eq!((a.partition, a.key, a.value), ("", Key::Text("a"), &[0xf6][..]));
                    let b = input.record().unwrap().unwrap();
                    assert_eq!((b.partition, b.key, b.value), ("p", Key::Bytes(&[9]), &[0x18, 99][..]));
                    assert_eq!(input.offset(), TWO.len() as u64);
                    for _ in 0..2 {
                        assert!(input.record().unwrap().is_none());
                    }
                });
            }
        }
    }

    #[test]
    fn a_cut_record_is_corrupt() {
        for cut in 1..TWO.len() {
            run(pieces(&TWO[..cut], 3, true), || {
                let mut buf = [0; 16];
                let mut input = Input::new(&mut buf);
                let mut found = 0;
                let last = loop {
                    match input.record() {
                        Ok(Some(_)) => found += 1,
                        other => break other.map(|_| ()),
                    }
                };
                if cut == 5 {
                    assert!(last.is_ok() && found == 1);
                    return;
                }
                let e = last.unwrap_err();
                assert_eq!((e.number(), e.details().offset, found), (2, Some(cut as u64), (cut > 5) as u32));
            });
        }
    }

    #[test]
    fn what_does_not_fit_is_too_large() {
        run(pieces(&TWO, 4, false), || {
            let mut buf = [0; 6];
            let mut input = Input::new(&mut buf);
            assert!(input.record().unwrap().is_some());
            let e = input.record().unwrap_err();
            assert_eq!((e.number(), e.details().offset), (5, Some(5)));
        });
    }

    #[test]
    fn until_gives_lines() {
        for step in 1..=8 {
            run(pieces(b"a\n\nlast", step, step % 2 == 0), || {
                let mut buf = [0; 5];
                let mut input = Input::new(&mut buf);
                let mut lines: Vec<Vec<u8>> = Vec::new();
                while let Some(line) = input.until(b'\n').unwrap() {
                    lines.push(line.to_vec());
                }
                assert_eq!(lines, [&b"a\n"[..], b"\n", b"last"]);
            });
        }
    }

    #[test]
    fn empty_input() {
        run(Host::default(), || {
            let mut buf = [0; 8];
            let mut input = Input::new(&mut buf);
            assert!(input.record().unwrap().is_none());
            assert!(input.until(0).unwrap().is_none());
            assert!(input.ended());
        });
    }

    #[test]
    fn the_host_is_not_asked_past_the_end() {
        let host = run(pieces(&TWO, 12, false), || {
            let mut buf = [0; 16];
            let mut input = Input::new(&mut buf);
            while input.record().unwrap().is_some() {}
        });
        assert_eq!(host.nexts, 1);
    }
}
