//! What an entry is: its path and its attributes, as README.md writes them down, and nothing else.

use torpor::cbor::{Fault, Reader, Reason, BYTES, TEXT};
use torpor::{Code, Error, Text};

/// How many bytes a path may have.
pub const MAX_PATH: usize = 16 << 10;

/// How many bytes an entry may have before its content.
pub const MAX_HEAD: usize = 120 << 10;

/// The path of the folder itself, which is the first entry.
pub const ROOT: &[u8] = b".";

/// What is wrong with an entry.
pub enum Wrong {
    /// The bytes end inside it.
    Short,
    /// It is not the CBOR it should be.
    Cbor(Fault),
    /// It is, but not an entry: where, and why.
    Entry(usize, &'static str),
    /// A limit is passed.
    Large(usize, &'static str),
}

impl From<Fault> for Wrong {
    fn from(f: Fault) -> Wrong {
        match f.reason {
            Reason::Short => Wrong::Short,
            _ => Wrong::Cbor(f),
        }
    }
}

impl Wrong {
    /// As an error, where the entry began at `offset` and is called `path`.
    #[cold]
    pub fn error(&self, offset: u64, path: &[u8]) -> Error {
        let e = match self {
            Wrong::Short => Error::corrupt(offset, "the entry is cut"),
            Wrong::Cbor(f) => f.error(offset),
            Wrong::Entry(at, why) => Error::corrupt(offset + *at as u64, *why),
            Wrong::Large(at, why) => Error::new(Code::TooLarge, *why).at(offset + *at as u64),
        };
        e.path(told(path))
    }
}

/// A path for people.
pub fn told(path: &[u8]) -> Text {
    match core::str::from_utf8(path) {
        Ok(s) => Text::new().str(s),
        Err(e) => Text::new()
            .str(core::str::from_utf8(path.get(..e.valid_up_to()).unwrap_or(&[])).unwrap_or(""))
            .str("\u{fffd}…"),
    }
}

pub type Result<T> = core::result::Result<T, Wrong>;

/// The kinds of entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    File,
    Folder,
    Link,
    Hardlink,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::File => "file",
            Kind::Folder => "folder",
            Kind::Link => "link",
            Kind::Hardlink => "hardlink",
        }
    }
}

/// The attributes of an entry.
#[derive(Clone, Copy, Debug)]
pub struct Attributes {
    pub kind: Kind,
    /// How many bytes of content there are: the size of a file but for its holes.
    pub content: u64,
    /// How many pairs of the map they are.
    pub pairs: usize,
    /// Where in the map the first and the last of them begin and end.
    pub start: usize,
    pub end: usize,
}

/// A string that is text if it is UTF-8, and bytes otherwise: its content. One content has one spelling.
pub fn name<'a>(r: &mut Reader<'a>) -> Result<&'a [u8]> {
    let at = r.offset();
    if r.major() != Some(BYTES) {
        return Ok(r.text()?.as_bytes());
    }
    let s = r.bytes()?;
    if core::str::from_utf8(s).is_ok() {
        return Err(Wrong::Entry(at, "bytes that are UTF-8 are written as text"));
    }
    Ok(s)
}

/// The next key if it is `want`.
fn key(r: &mut Reader<'_>, left: &mut usize, want: &str) -> Result<bool> {
    if *left == 0 {
        return Ok(false);
    }
    let mut ahead = *r;
    if ahead.major().is_none() {
        return Err(Wrong::Short);
    }
    if ahead.major() != Some(TEXT) || ahead.text()? != want {
        return Ok(false);
    }
    *r = ahead;
    *left -= 1;
    Ok(true)
}

fn required(r: &mut Reader<'_>, left: &mut usize, want: &'static str, why: &'static str) -> Result<()> {
    let at = r.offset();
    if key(r, left, want)? {
        return Ok(());
    }
    Err(Wrong::Entry(at, why))
}

/// Reads attributes from the first pair of a map of `pairs` on, and stops before what is none of them.
pub fn attributes(r: &mut Reader<'_>, pairs: usize) -> Result<Attributes> {
    let start = r.offset();
    let mut left = pairs;
    required(r, &mut left, "type", "the first attribute is the type")?;
    let at = r.offset();
    let kind = match r.text()? {
        "file" => Kind::File,
        "folder" => Kind::Folder,
        "link" => Kind::Link,
        "hardlink" => Kind::Hardlink,
        _ => return Err(Wrong::Entry(at, "the type is none of file, folder, link and hardlink")),
    };
    let mut content = 0;
    if kind != Kind::Hardlink {
        if kind != Kind::Link {
            required(r, &mut left, "mode", "the mode is missing")?;
            let at = r.offset();
            if r.uint()? > 0o7777 {
                return Err(Wrong::Entry(at, "the mode has other bits than those of permissions"));
            }
        }
        required(r, &mut left, "mtime", "the time of the last change is missing")?;
        r.int()?;
        if key(r, &mut left, "uid")? {
            let at = r.offset();
            if r.uint()? > u32::MAX as u64 {
                return Err(Wrong::Entry(at, "the owner is no number of 32 bits"));
            }
            required(r, &mut left, "gid", "an owner without a group")?;
            let at = r.offset();
            if r.uint()? > u32::MAX as u64 {
                return Err(Wrong::Entry(at, "the group is no number of 32 bits"));
            }
        }
    }
    if kind == Kind::File {
        required(r, &mut left, "size", "the size is missing")?;
        let at = r.offset();
        let size = r.uint()?;
        if size > i64::MAX as u64 {
            return Err(Wrong::Entry(at, "no file is so large"));
        }
        content = size;
        if key(r, &mut left, "data")? {
            content = data(r, size)?;
        }
    }
    if kind == Kind::Link || kind == Kind::Hardlink {
        required(r, &mut left, "target", "the target is missing")?;
        let at = r.offset();
        let target = name(r)?;
        if target.is_empty() || target.contains(&0) {
            return Err(Wrong::Entry(at, "no link can have this target"));
        }
        if kind == Kind::Hardlink {
            path(target).map_err(|why| Wrong::Entry(at, why))?;
            if target == ROOT {
                return Err(Wrong::Entry(at, "a hard link to the folder"));
            }
        }
    }
    if kind != Kind::Hardlink && kind != Kind::Link && key(r, &mut left, "xattrs")? {
        xattrs(r)?;
    }
    Ok(Attributes { kind, content, pairs: pairs - left, start, end: r.offset() })
}

/// The runs of a file that has holes: pairs of how many bytes of hole come first and how many of data follow.
/// Gives how many bytes of data there are.
fn data(r: &mut Reader<'_>, size: u64) -> Result<u64> {
    let at = r.offset();
    let n = r.array()?;
    if n % 2 != 0 {
        return Err(Wrong::Entry(at, "runs of data come in pairs"));
    }
    let (mut end, mut content) = (0u64, 0u64);
    for i in 0..n / 2 {
        let (skip, len) = (r.uint()?, r.uint()?);
        end = match end.checked_add(skip).and_then(|e| e.checked_add(len)) {
            Some(end) if end <= size && len > 0 && (skip > 0 || i == 0) => end,
            _ => return Err(Wrong::Entry(at, "the runs of data are not those of a file of this size")),
        };
        content += len;
    }
    if content == size {
        return Err(Wrong::Entry(at, "runs of data of a file without holes"));
    }
    Ok(content)
}

/// Extended attributes, by name.
fn xattrs(r: &mut Reader<'_>) -> Result<()> {
    let mut last = "";
    let at = r.offset();
    let n = r.map()?;
    if n == 0 {
        return Err(Wrong::Entry(at, "no extended attributes are written as none"));
    }
    for _ in 0..n {
        let at = r.offset();
        let name = r.text()?;
        if name <= last || name.as_bytes().contains(&0) {
            return Err(Wrong::Entry(at, "the names of extended attributes are not in order"));
        }
        last = name;
        r.bytes()?;
    }
    Ok(())
}

/// Whether bytes are a path below the folder, and as it is written.
pub fn path(p: &[u8]) -> core::result::Result<(), &'static str> {
    if p == ROOT {
        return Ok(());
    }
    if p.contains(&0) {
        return Err("a path with a zero byte");
    }
    for component in p.split(|b| *b == b'/') {
        match component {
            b"" => return Err("a path that is absolute, empty, or has an empty name in it"),
            b"." | b".." => return Err("a path with \".\" or \"..\" in it"),
            _ => {}
        }
    }
    Ok(())
}

/// The path before the entry, which is enough to hold order and folders against.
pub struct Before {
    path: [u8; MAX_PATH],
    len: usize,
    kind: Kind,
    entries: u64,
}

impl Before {
    pub const fn new() -> Before {
        Before { path: [0; MAX_PATH], len: 0, kind: Kind::File, entries: 0 }
    }

    pub fn clear(&mut self) {
        self.len = 0;
        self.entries = 0;
    }

    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Whether `path` is the last entry's.
    pub fn is(&self, path: &[u8]) -> bool {
        self.entries > 0 && self.path.get(..self.len) == Some(path)
    }

    /// Checks the next entry: that it comes behind the one before, so that none comes twice, and that the folder
    /// it lies in came before it. All names below a folder follow it at once, so the path before tells.
    pub fn next(&mut self, p: &[u8], kind: Kind) -> core::result::Result<(), &'static str> {
        path(p)?;
        let before = self.path.get(..self.len).unwrap_or(&[]);
        if self.entries == 0 {
            if p != ROOT || kind != Kind::Folder {
                return Err("the first entry is not the folder itself");
            }
        } else if p == ROOT {
            return Err("the folder itself a second time");
        } else {
            if before != ROOT && !after(before, p) {
                return Err("the paths are not in order, or one comes twice: such states cannot be merged");
            }
            if let Some(slash) = p.iter().rposition(|b| *b == b'/') {
                let parent = p.get(..slash).unwrap_or(&[]);
                let inside =
                    before.len() > slash && before.get(..slash) == Some(parent) && before.get(slash) == Some(&b'/');
                if !inside && !(before == parent && self.kind == Kind::Folder) {
                    return Err("the folder that it lies in is missing, or is none");
                }
            }
        }
        match self.path.get_mut(..p.len()) {
            Some(room) => room.copy_from_slice(p),
            None => return Err("the path is too long"),
        }
        self.len = p.len();
        self.kind = kind;
        self.entries += 1;
        Ok(())
    }
}

/// Whether `b` comes behind `a`: names are compared one by one from the first folder down, as bytes.
fn after(a: &[u8], b: &[u8]) -> bool {
    let low = |c: &u8| if *c == b'/' { 0 } else { *c }; // no name has a zero
    a.iter().map(low).lt(b.iter().map(low))
}
