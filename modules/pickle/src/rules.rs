//! The table of migration in the settings: names that have changed, attributes to drop and to default.

use torpor::cbor::{Reader, ARRAY, MAP, TEXT};
use torpor::{Call, Code, Error, Result, Text};

/// How many attributes of one class may have defaults.
const MAX_DEFAULTS: usize = 64;

/// What is to be done to the state of the instances of one class.
#[derive(Default)]
pub struct Class {
    pub drop: Vec<Vec<u8>>,
    /// Attributes and their values, one encoded atom each.
    pub default: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Class {
    pub fn drops(&self, key: &[u8]) -> bool {
        self.drop.iter().any(|d| d == key)
    }

    /// The bit of the default for an attribute.
    pub fn bit(&self, key: &[u8]) -> u64 {
        self.default.iter().position(|d| d.0 == key).map_or(0, |at| 1 << at)
    }

    /// The bits of all defaults.
    pub fn bits(&self) -> u64 {
        (0..self.default.len()).fold(0, |b, at| b | 1 << at)
    }
}

/// The table.
#[derive(Default)]
pub struct Rules {
    rename: Vec<(Vec<u8>, Vec<u8>)>,
    names: Vec<Vec<u8>>,
    pub classes: Vec<Class>,
}

fn wrong(name: &str, expected: &str) -> Error {
    Call::wrong_setting(name, expected)
}

impl Rules {
    /// Reads the setting `rename`: a map of old names of modules or classes to new ones.
    #[inline(never)]
    pub fn rename(&mut self, mut r: Reader<'_>) -> Result<()> {
        let bad = || wrong("rename", "a map of names to names");
        for _ in 0..r.map().map_err(|_| bad())? {
            let old = r.text().map_err(|_| bad())?;
            let new = r.text().map_err(|_| bad())?;
            if old.is_empty() || new.is_empty() || new.contains('\n') {
                return Err(bad());
            }
            self.rename.push((old.into(), new.into()));
        }
        self.rename.sort();
        Ok(())
    }

    /// Refuses a table that would change again what it has changed.
    #[inline(never)]
    pub fn check(&self) -> Result<()> {
        let parts = |s: &'_ [u8]| -> Option<usize> {
            // By custom, a class has a capital.
            let at = s.iter().rposition(|b| *b == b'.')?;
            s.get(at + 1).filter(|b| b.is_ascii_uppercase()).map(|_| at)
        };
        for (_, new) in &self.rename {
            for (old, _) in &self.rename {
                let again = new == old
                    || parts(new).map_or(false, |at| new[..at] == old[..])
                    || parts(old).map_or(false, |at| old[..at] == new[..]);
                if again {
                    let name = std::str::from_utf8(new).unwrap_or("");
                    let msg = Text::new().str("the new name ").str(name).str(" would change again");
                    return Err(Error::new(Code::Unsupported, msg).path("settings.rename"));
                }
            }
        }
        Ok(())
    }

    /// The class of a name, which is made if it has no rules yet.
    #[inline(never)]
    fn class(&mut self, name: &str) -> usize {
        match self.names.iter().position(|n| n == name.as_bytes()) {
            Some(at) => at,
            None => {
                self.names.push(name.into());
                self.classes.push(Class::default());
                self.names.len() - 1
            }
        }
    }

    /// Reads the setting `drop`: `module.Class.attribute`, or the attributes by class.
    #[inline(never)]
    pub fn drop(&mut self, mut r: Reader<'_>) -> Result<()> {
        let bad = || wrong("drop", "an array of module.Class.attribute, or a map of classes to arrays of attributes");
        if r.major() == Some(ARRAY) {
            for _ in 0..r.array().map_err(|_| bad())? {
                let (class, attribute) = r.text().ok().and_then(|t| t.rsplit_once('.')).ok_or_else(bad)?;
                let at = self.class(class);
                self.classes[at].drop.push(attribute.into());
            }
            return Ok(());
        }
        for _ in 0..r.map().map_err(|_| bad())? {
            let at = self.class(r.text().map_err(|_| bad())?);
            for _ in 0..r.array().map_err(|_| bad())? {
                let attribute = r.text().map_err(|_| bad())?;
                self.classes[at].drop.push(attribute.into());
            }
        }
        Ok(())
    }

    /// Reads the setting `default`: values by `module.Class.attribute`, or by class and attribute.
    #[inline(never)]
    pub fn defaults(&mut self, mut r: Reader<'_>) -> Result<()> {
        let bad = || wrong("default", "a map of module.Class.attribute to null, a bool, a number or a short text");
        for _ in 0..r.map().map_err(|_| bad())? {
            let name = r.text().map_err(|_| bad())?;
            if r.major() == Some(MAP) {
                for _ in 0..r.map().map_err(|_| bad())? {
                    let attribute = r.text().map_err(|_| bad())?;
                    let value = r.item().map_err(|_| bad())?;
                    self.one(name, attribute, value)?;
                }
                continue;
            }
            let (class, attribute) = name.rsplit_once('.').ok_or_else(bad)?;
            let value = r.item().map_err(|_| bad())?;
            self.one(class, attribute, value)?;
        }
        Ok(())
    }

    #[inline(never)]
    fn one(&mut self, class: &str, attribute: &str, value: &[u8]) -> Result<()> {
        let bad = || wrong("default", "a map of module.Class.attribute to null, a bool, a number or a short text");
        let mut r = Reader::new(value);
        let short = match value[0] >> 5 {
            0 | 1 => r.int().is_ok(),
            TEXT => r.text().map_or(false, |t| t.len() <= crate::names::MAX_NAME),
            _ => matches!(value[0], 0xf4..=0xf6 | 0xf9..=0xfb),
        };
        let value = match value {
            [0xf9, h, l] => float(half(u16::from_be_bytes([*h, *l]))),
            [0xfa, a, b, c, d] => float(f32::from_bits(u32::from_be_bytes([*a, *b, *c, *d])) as f64),
            _ => value.to_vec(),
        };
        let at = self.class(class);
        let c = &mut self.classes[at];
        if !short
            || attribute.len() > crate::names::MAX_NAME
            || c.default.len() == MAX_DEFAULTS
            || c.drops(attribute.as_bytes())
        {
            return Err(bad());
        }
        c.default.push((attribute.into(), value));
        Ok(())
    }

    /// The new names of a global, if they have changed.
    #[inline(never)]
    pub fn renamed(&self, module: &[u8], name: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        if self.rename.is_empty() {
            return None;
        }
        let find = |s: &[u8]| self.rename.binary_search_by(|r| r.0[..].cmp(s)).ok().map(|at| &self.rename[at].1);
        let full = [module, b".", name].concat();
        if let Some(new) = find(&full) {
            let at = new.iter().rposition(|b| *b == b'.').unwrap_or(0);
            return Some((new[..at].to_vec(), new[at + 1..].to_vec()));
        }
        find(module).map(|new| (new.clone(), name.to_vec()))
    }

    /// The rules of a class by its number and 1, or 0. The names are the new ones.
    #[inline(never)]
    pub fn of(&self, module: &[u8], name: &[u8]) -> u32 {
        if self.names.is_empty() {
            return 0;
        }
        let full = [module, b".", name].concat();
        self.names.iter().position(|n| *n == full).map_or(0, |at| at as u32 + 1)
    }

    /// Whether a callable makes an instance of its first argument.
    pub fn makes_first(module: &[u8], name: &[u8]) -> bool {
        matches!(module, b"copyreg" | b"copy_reg")
            && matches!(name, b"_reconstructor" | b"__newobj__" | b"__newobj_ex__")
    }
}

fn float(v: f64) -> Vec<u8> {
    let mut out = vec![0xfb];
    out.extend_from_slice(&v.to_bits().to_be_bytes());
    out
}

/// A float of 16 bits.
fn half(h: u16) -> f64 {
    let (exp, man) = ((h >> 10 & 31) as i32, (h & 1023) as f64);
    let v = match exp {
        0 => man / 16_777_216.0,
        31 if man == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => f64::from_bits(((exp - 15 + 1023) as u64) << 52) * (1.0 + man / 1024.0),
    };
    if h >> 15 == 1 {
        -v
    } else {
        v
    }
}
