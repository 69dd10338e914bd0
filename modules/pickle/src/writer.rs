//! Writes a pickle as CPython's pickler does: the shortest opcodes of the protocol, a memo of all that
//! can be shared, frames.

use torpor::{Output, Result};

/// How many bytes a frame has before it ends with the next value; longer payloads go without a frame.
const FRAME: usize = 64 << 10;

/// What is shorter stands without a frame.
const MIN_FRAME: usize = 4;

/// The writer of one pickle.
pub struct Writer {
    buf: Vec<u8>,
    pub protocol: u8,
    /// How many memo entries there are.
    pub memo: u32,
    /// What is written is to be forgotten.
    pub muted: bool,
}

impl Writer {
    pub fn new() -> Writer {
        Writer { buf: Vec::with_capacity(2 * FRAME), protocol: 0, memo: 0, muted: false }
    }

    /// Begins a pickle.
    pub fn begin(&mut self, protocol: u8, out: &mut Output<'_>) -> Result<()> {
        self.protocol = protocol;
        self.memo = 0;
        self.buf.clear();
        if protocol >= 2 {
            out.write(&[0x80, protocol])?;
        }
        Ok(())
    }

    /// Ends it.
    pub fn end(&mut self, out: &mut Output<'_>) -> Result<()> {
        self.buf.push(b'.');
        self.flush(out)
    }

    /// How much is written and memoized, to come back to.
    pub fn mute(&mut self) -> (usize, u32) {
        self.muted = true;
        (self.buf.len(), self.memo)
    }

    /// Forgets what was written since.
    pub fn unmute(&mut self, to: (usize, u32)) {
        self.muted = false;
        self.buf.truncate(to.0);
        self.memo = to.1;
    }

    /// Said before each value.
    #[inline(always)]
    pub fn boundary(&mut self, out: &mut Output<'_>) -> Result<()> {
        if self.buf.len() >= FRAME && !self.muted {
            return self.flush(out);
        }
        Ok(())
    }

    #[inline(never)]
    fn flush(&mut self, out: &mut Output<'_>) -> Result<()> {
        if self.protocol >= 4 && self.buf.len() >= MIN_FRAME {
            let mut head = [0x95, 0, 0, 0, 0, 0, 0, 0, 0];
            head[1..].copy_from_slice(&(self.buf.len() as u64).to_le_bytes());
            out.write(&head)?;
        }
        out.write(&self.buf)?;
        self.buf.clear();
        Ok(())
    }

    #[inline(always)]
    pub fn op(&mut self, op: u8) {
        self.buf.push(op);
    }

    #[inline(always)]
    pub fn ops(&mut self, ops: &[u8]) {
        self.buf.extend_from_slice(ops);
    }

    /// An opcode, a length and as many bytes. What is long goes without a frame.
    #[inline(never)]
    pub fn payload(&mut self, head: &[u8], bytes: &[u8], out: &mut Output<'_>) -> Result<()> {
        if self.muted {
            return Ok(());
        }
        if bytes.len() >= FRAME {
            self.flush(out)?;
            out.write(head)?;
            return out.write(bytes);
        }
        self.buf.extend_from_slice(head);
        self.buf.extend_from_slice(bytes);
        Ok(())
    }

    /// Memoizes what is on top of the stack and returns its index.
    #[inline(always)]
    pub fn memoize(&mut self) -> u32 {
        let at = self.memo;
        self.memo += 1;
        if self.protocol >= 4 {
            self.buf.push(0x94);
        } else if self.protocol == 0 {
            self.decimal(b'p', at);
        } else if at < 256 {
            self.ops(&[b'q', at as u8]);
        } else {
            self.buf.push(b'r');
            self.buf.extend_from_slice(&at.to_le_bytes());
        }
        at
    }

    /// Fetches what was memoized.
    #[inline(always)]
    pub fn get(&mut self, at: u32) {
        if self.protocol == 0 {
            self.decimal(b'g', at);
        } else if at < 256 {
            self.ops(&[b'h', at as u8]);
        } else {
            let b = at.to_le_bytes();
            self.ops(&[b'j', b[0], b[1], b[2], b[3]]);
        }
    }

    /// An opcode and a decimal line.
    #[inline(never)]
    pub fn decimal(&mut self, op: u8, n: u32) {
        self.buf.push(op);
        let mut digits = [0u8; 10];
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
        self.buf.extend_from_slice(&digits[at..]);
        self.buf.push(b'\n');
    }

    /// A text that is UTF-8, or with lone surrogates as Python's surrogatepass writes them.
    #[inline]
    pub fn text(&mut self, s: &[u8], out: &mut Output<'_>) -> Result<()> {
        if self.protocol == 0 {
            self.buf.push(b'V');
            raw_unicode_escape(&mut self.buf, s);
            self.buf.push(b'\n');
            return Ok(());
        }
        if s.len() < 256 && self.protocol >= 4 {
            self.ops(&[0x8c, s.len() as u8]);
            self.ops(s);
            return Ok(());
        }
        self.sized(b'X', 0x8d, s, out)
    }

    /// An opcode with a length of four bytes.
    fn sized(&mut self, op: u8, _op8: u8, s: &[u8], out: &mut Output<'_>) -> Result<()> {
        let n = (s.len() as u32).to_le_bytes();
        self.payload(&[op, n[0], n[1], n[2], n[3]], s, out)
    }

    #[inline(never)]
    pub fn bytes(&mut self, s: &[u8], out: &mut Output<'_>) -> Result<()> {
        if s.len() < 256 {
            self.ops(&[b'C', s.len() as u8]);
            self.ops(s);
            return Ok(());
        }
        self.sized(b'B', 0x8e, s, out)
    }

    pub fn bytearray(&mut self, s: &[u8], out: &mut Output<'_>) -> Result<()> {
        let mut head = [0x96, 0, 0, 0, 0, 0, 0, 0, 0];
        head[1..].copy_from_slice(&(s.len() as u64).to_le_bytes());
        self.payload(&head, s, out)
    }

    /// A str of Python 2.
    #[inline(never)]
    pub fn str2(&mut self, s: &[u8], out: &mut Output<'_>) -> Result<()> {
        if self.protocol == 0 {
            self.buf.extend_from_slice(b"S'");
            for b in s {
                match *b {
                    b'\'' | b'\\' => self.ops(&[b'\\', *b]),
                    0x20..=0x7e => self.op(*b),
                    _ => {
                        let (h, l) = hex(*b);
                        self.ops(&[b'\\', b'x', h, l]);
                    }
                }
            }
            self.buf.extend_from_slice(b"'\n");
            return Ok(());
        }
        if s.len() < 256 {
            self.ops(&[b'U', s.len() as u8]);
            self.ops(s);
            return Ok(());
        }
        self.sized(b'T', 0, s, out)
    }

    #[inline(never)]
    pub fn int(&mut self, v: i64) {
        if self.protocol == 0 || (v != v as i32 as i64 && self.protocol < 2) {
            let long = v != v as i32 as i64;
            self.buf.push(if long { b'L' } else { b'I' });
            let mut digits = [0u8; 21];
            let mut at = digits.len();
            let mut rest = v.unsigned_abs();
            loop {
                at -= 1;
                digits[at] = b'0' + (rest % 10) as u8;
                rest /= 10;
                if rest == 0 {
                    break;
                }
            }
            if v < 0 {
                at -= 1;
                digits[at] = b'-';
            }
            self.buf.extend_from_slice(&digits[at..]);
            self.buf.extend_from_slice(if long { b"L\n" } else { b"\n" });
        } else if (0..256).contains(&v) {
            self.ops(&[b'K', v as u8]);
        } else if (0..65536).contains(&v) {
            self.ops(&[b'M', v as u8, (v >> 8) as u8]);
        } else if v == v as i32 as i64 {
            self.buf.push(b'J');
            self.buf.extend_from_slice(&(v as i32).to_le_bytes());
        } else {
            let b = v.to_le_bytes();
            let mut n = 8;
            while n > 1 && b[n - 1] == if v < 0 { 0xff } else { 0 } && (b[n - 2] >= 0x80) == (v < 0) {
                n -= 1;
            }
            self.ops(&[0x8a, n as u8]);
            self.ops(&b[..n]);
        }
    }

    /// An int of any size: a magnitude, big-endian, and whether the value is -1 - magnitude.
    #[inline(never)]
    pub fn big(&mut self, magnitude: &[u8], negative: bool, out: &mut Output<'_>) -> Result<()> {
        if self.protocol < 2 {
            self.buf.push(b'L');
            crate::number::decimal(&mut self.buf, magnitude, negative);
            self.buf.extend_from_slice(b"L\n");
            return Ok(());
        }
        let mut le: Vec<u8> = magnitude.iter().rev().map(|b| if negative { !*b } else { *b }).collect();
        let sign = if negative { 0xff } else { 0 };
        if le.last().map_or(true, |b| (*b >= 0x80) != negative) {
            le.push(sign);
        }
        while le.len() > 1 && le[le.len() - 1] == sign && (le[le.len() - 2] >= 0x80) == negative {
            le.pop();
        }
        if le.len() < 256 {
            self.ops(&[0x8a, le.len() as u8]);
            self.ops(&le);
            return Ok(());
        }
        self.sized(0x8b, 0, &le, out)
    }

    #[inline(never)]
    pub fn float(&mut self, bits: u64) {
        if self.protocol == 0 {
            self.buf.push(b'F');
            crate::number::float(&mut self.buf, f64::from_bits(bits));
            self.buf.push(b'\n');
            return;
        }
        self.buf.push(b'G');
        self.buf.extend_from_slice(&bits.to_be_bytes());
    }

    pub fn bool(&mut self, v: bool) {
        if self.protocol >= 2 {
            self.buf.push(0x88 + !v as u8);
        } else {
            self.buf.extend_from_slice(if v { b"I01\n" } else { b"I00\n" });
        }
    }

    /// An opcode and lines.
    #[inline(never)]
    pub fn lines(&mut self, op: u8, lines: &[&[u8]]) {
        self.buf.push(op);
        for l in lines {
            self.buf.extend_from_slice(l);
            self.buf.push(b'\n');
        }
    }
}

fn hex(b: u8) -> (u8, u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    (DIGITS[(b >> 4) as usize], DIGITS[(b & 15) as usize])
}

/// Writes text as the opcode UNICODE has it: Latin-1 where it can be, else escapes.
fn raw_unicode_escape(out: &mut Vec<u8>, s: &[u8]) {
    let mut at = 0;
    while at < s.len() {
        let (c, n) = crate::text::decode(&s[at..]);
        at += n;
        let width = match c {
            0x5c | 0 | 0x0a | 0x0d | 0x1a | 0x100..=0xffff => 4,
            0..=0xff => {
                out.push(c as u8);
                continue;
            }
            _ => 8,
        };
        out.extend_from_slice(if width == 4 { b"\\u" } else { b"\\U" });
        for i in (0..width / 2).rev() {
            let (h, l) = hex((c >> (8 * i)) as u8);
            out.extend_from_slice(&[h, l]);
        }
    }
}
