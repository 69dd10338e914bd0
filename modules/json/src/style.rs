//! How a JSON text is spaced, so that its spaces need not be kept one by one.
//!
//! A style says what stands between two tokens. It is found at the beginning of a text and kept in the
//! record of the root; what does not follow it is kept as it is spelled (README.md, "Exactness").

/// How much of a text is looked at for its style.
pub const DETECT_BYTES: usize = 64 << 10;

/// The longest space after a comma or around a colon, and the longest step of indentation.
pub const MAX_GAP: usize = 16;

/// A few bytes of white space.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    bytes: [u8; MAX_GAP],
    len: u8,
}

impl Gap {
    /// Nothing.
    pub const NONE: Gap = Gap { bytes: [0; MAX_GAP], len: 0 };

    /// A gap, if `s` is white space and short enough for one.
    pub fn new(s: &[u8]) -> Option<Gap> {
        let mut gap = Gap::NONE;
        gap.bytes.get_mut(..s.len())?.copy_from_slice(s);
        gap.len = s.len() as u8;
        Some(gap).filter(|_| is_space(s))
    }

    /// Its bytes.
    #[inline(always)]
    pub fn get(&self) -> &[u8] {
        &self.bytes[..self.len as usize % (MAX_GAP + 1)]
    }
}

/// Whether all of it is white space as JSON knows it.
pub fn is_space(s: &[u8]) -> bool {
    crate::scan::white(s, 0) == s.len()
}

/// What stands between the tokens of a text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Nothing stands anywhere: most texts that programs write for programs.
    pub compact: bool,
    /// Each entry stands on a line of its own, one `unit` further in than what holds it.
    pub indented: bool,
    /// How far in.
    pub unit: Gap,
    /// How a line ends.
    pub newline: Gap,
    /// Before a colon.
    pub before_colon: Gap,
    /// After a colon.
    pub colon: Gap,
    /// After a comma, if entries have no lines of their own.
    pub comma: Gap,
    /// Strings spell what is not ASCII as escapes, in lower case, as Python does.
    pub ascii: bool,
}

/// Where white space may stand in an object or array that is not empty.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Behind the opening bracket.
    Open,
    /// Behind a comma.
    Comma,
    /// Before the closing bracket.
    Close,
}

impl Style {
    /// No spaces at all.
    pub const COMPACT: Style = Style {
        compact: true,
        indented: false,
        unit: Gap::NONE,
        newline: Gap::NONE,
        before_colon: Gap::NONE,
        colon: Gap::NONE,
        comma: Gap::NONE,
        ascii: false,
    };

    /// Zeros, which take no room in the module.
    pub const ZERO: Style = Style { compact: false, ..Style::COMPACT };

    /// Sets `compact` by what else is set.
    pub fn settle(mut self) -> Style {
        self.compact = !self.indented && [self.before_colon, self.colon, self.comma] == [Gap::NONE; 3];
        self
    }

    /// Where the white space ends that the style wants at `p`, if it is there. `depth` is how many
    /// brackets are open around the entry.
    #[inline]
    pub fn expect(&self, place: Place, depth: usize, t: &[u8], p: usize) -> Option<usize> {
        if !self.indented {
            return if place == Place::Comma { starts(t, p, self.comma.get()) } else { Some(p) };
        }
        let mut p = starts(t, p, self.newline.get())?;
        let unit = self.unit.get();
        for _ in 0..depth - (place == Place::Close) as usize {
            p = starts(t, p, unit)?;
        }
        Some(p)
    }

    /// Adds the white space that stands there; `None` if there is no room for it.
    #[inline]
    pub fn put(&self, place: Place, depth: usize, out: &mut [u8], n: usize) -> Option<usize> {
        if !self.indented {
            return if place == Place::Comma { put(out, n, self.comma.get()) } else { Some(n) };
        }
        let mut n = put(out, n, self.newline.get())?;
        for _ in 0..depth - (place == Place::Close) as usize {
            n = put(out, n, self.unit.get())?;
        }
        Some(n)
    }

    /// The style of the text that begins with `t`.
    pub fn detect(t: &[u8]) -> Style {
        let t = &t[..t.len().min(DETECT_BYTES)];
        let mut style = Style::COMPACT;
        let mut p = if t.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        let (mut comma, mut colon, mut bracket) = (false, false, false);
        let (mut escaped, mut spelled) = (false, false);
        while p < t.len() {
            let c = t[p];
            p += 1;
            match c {
                b'"' => {
                    while p < t.len() && t[p] != b'"' {
                        match t[p] {
                            b'\\' => {
                                escaped |= t[p + 1..].starts_with(b"u") && !t[p + 2..].starts_with(b"00");
                                p += 1;
                            }
                            0x80..=0xff => spelled = true,
                            _ => {}
                        }
                        p += 1;
                    }
                    p += 1;
                    let space = space(t, p.min(t.len()));
                    if !colon && t.get(p + space.len()) == Some(&b':') {
                        style.before_colon = Gap::new(space).unwrap_or(Gap::NONE);
                    }
                }
                b':' if !colon => {
                    colon = true;
                    style.colon = Gap::new(space(t, p)).unwrap_or(Gap::NONE);
                }
                b',' if !comma => {
                    comma = true;
                    style.comma = Gap::new(space(t, p)).unwrap_or(Gap::NONE);
                }
                b'{' | b'[' if !bracket => {
                    bracket = true;
                    let space = space(t, p);
                    let line = if space.starts_with(b"\r\n") { 2 } else { space.starts_with(b"\n") as usize };
                    if let (true, Some(unit)) = (line > 0, Gap::new(&space[line..])) {
                        style.indented = !unit.get().contains(&b'\n');
                        style.unit = unit;
                        style.newline = Gap::new(&space[..line]).unwrap_or(Gap::NONE);
                    }
                }
                _ => {}
            }
        }
        if !style.indented {
            (style.unit, style.newline) = (Gap::NONE, Gap::NONE);
        } else {
            style.comma = Gap::NONE;
        }
        style.ascii = escaped && !spelled;
        style.settle()
    }
}

/// The white space at `p`.
pub fn space(t: &[u8], p: usize) -> &[u8] {
    let rest = &t[p..];
    let n = rest.iter().position(|b| !matches!(b, b' ' | b'\n' | b'\r' | b'\t')).unwrap_or(rest.len());
    &rest[..n]
}

/// Where `want` ends in `t`, if it stands at `p`.
#[inline(always)]
fn starts(t: &[u8], p: usize, want: &[u8]) -> Option<usize> {
    let end = p + want.len();
    let have = t.get(p..end)?;
    // Mostly one to four bytes: a call to compare them would take longer.
    for (a, b) in have.iter().zip(want) {
        if a != b {
            return None;
        }
    }
    Some(end)
}

/// Adds bytes; `None` if there is no room for them.
#[inline(always)]
pub fn put(out: &mut [u8], n: usize, s: &[u8]) -> Option<usize> {
    let to = out.get_mut(n..n + s.len())?;
    for (a, b) in to.iter_mut().zip(s) {
        *a = *b;
    }
    Some(n + s.len())
}
