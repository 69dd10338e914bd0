//! Text of bounded length, for error messages in a guest without an allocator.

use core::fmt;

/// How many bytes a [`Text`] holds; what goes beyond is cut at a character.
pub const TEXT_BYTES: usize = 240;

/// A short UTF-8 text held inline.
///
/// Adding never fails: what does not fit is cut at a character and the rest ignored, since a cut
/// message is better than none.
#[derive(Clone, Copy)]
pub struct Text {
    len: u8,
    full: bool,
    bytes: [u8; TEXT_BYTES],
}

impl Text {
    /// An empty text.
    pub const fn new() -> Text {
        Text { len: 0, full: false, bytes: [0; TEXT_BYTES] }
    }

    /// Adds `s`.
    #[cold]
    #[inline(never)]
    pub fn str(mut self, s: &str) -> Text {
        if self.full {
            return self;
        }
        let room = TEXT_BYTES - self.len as usize;
        let mut n = s.len();
        if n > room {
            self.full = true;
            n = room;
            while !s.is_char_boundary(n) {
                n -= 1;
            }
        }
        let at = self.len as usize;
        self.bytes[at..at + n].copy_from_slice(&s.as_bytes()[..n]);
        self.len += n as u8;
        self
    }

    /// Adds `n` in decimal.
    #[cold]
    #[inline(never)]
    pub fn num(self, n: u64) -> Text {
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        let mut rest = n;
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.str(core::str::from_utf8(&digits[at..]).unwrap_or(""))
    }

    /// Adds `b` as `0x` and two hexadecimal digits.
    #[cold]
    #[inline(never)]
    pub fn hex(self, b: u8) -> Text {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let pair = [DIGITS[(b >> 4) as usize], DIGITS[(b & 15) as usize]];
        self.str("0x").str(core::str::from_utf8(&pair).unwrap_or(""))
    }

    /// The text so far.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.len as usize]).unwrap_or("")
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Default for Text {
    fn default() -> Text {
        Text::new()
    }
}

impl From<&str> for Text {
    fn from(s: &str) -> Text {
        Text::new().str(s)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

/// So that `write!` works on it, for guests that accept the size of Rust's formatting (some 10 KB).
impl fmt::Write for Text {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        *self = self.str(s);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_strings_and_numbers() {
        let t = Text::new().str("record ").num(17).str(": ").hex(0x0f).str(" ").num(u64::MAX).num(0);
        assert_eq!(t.as_str(), "record 17: 0x0f 184467440737095516150");
    }

    #[test]
    fn cuts_at_a_character_and_stays_cut() {
        let mut t = Text::new();
        for _ in 0..TEXT_BYTES - 1 {
            t = t.str("a");
        }
        let cut = t.str("é").str("b");
        assert_eq!(cut.as_str().len(), TEXT_BYTES - 1);
        assert_eq!(t.str("b").str("c").as_str().len(), TEXT_BYTES);
    }
}
