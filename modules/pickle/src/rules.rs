//! The table of migration in the settings: names that have changed, attributes to drop and to default.

use std::collections::BTreeMap;

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

/// A module, and the name of what is in it.
type Global = (Vec<u8>, Vec<u8>);

/// The table.
#[derive(Default)]
pub struct Rules {
    /// Of classes and functions, by the joined old names: where in `new` it is.
    globals: BTreeMap<Vec<u8>, u32>,
    new: Vec<New>,
    /// Of modules: where in `news` it is.
    modules: BTreeMap<Vec<u8>, u32>,
    news: Vec<Vec<u8>>,
    /// The classes that there are rules for, by their joined names.
    names: BTreeMap<Vec<u8>, u32>,
    pub classes: Vec<Class>,
}

/// What a class or function is called now.
struct New {
    global: Global,
    sure: bool, // it can be nothing else, a module say
    void: bool, // it is something else
}

/// Two names as one key, in which one module's are together.
fn join(module: &[u8], name: &[u8]) -> Vec<u8> {
    [module, &[0xff], name].concat()
}

/// What `module:Outer.Inner` or `module.Class` names; nothing if it is neither.
fn global(name: &str) -> Option<Global> {
    let (module, inner) = name.split_once(':').or_else(|| name.rsplit_once('.'))?;
    let odd = |s: &str| s.is_empty() || s.starts_with('.') || s.ends_with('.') || s.contains(':');
    match odd(module) || odd(inner) {
        true => None,
        false => Some((module.into(), inner.into())),
    }
}

fn wrong(name: &str, expected: &str) -> Error {
    Call::wrong_setting(name, expected)
}

impl Rules {
    /// Reads the setting `rename`: a map of old names of modules or classes to new ones. A name without a
    /// colon is a module's or, read up to its last dot, a class's.
    #[inline(never)]
    pub fn rename(&mut self, mut r: Reader<'_>) -> Result<()> {
        let bad = || wrong("rename", "a map of names to names: module, module.Class or module:Outer.Inner");
        for _ in 0..r.map().map_err(|_| bad())? {
            let old = r.text().map_err(|_| bad())?;
            let new = r.text().map_err(|_| bad())?;
            let dots = |s: &str| s.is_empty() || s.starts_with('.') || s.ends_with('.') || s.contains('\n');
            if dots(old) || dots(new) {
                return Err(bad());
            }
            let colon = |s: &str| s.contains(':');
            // By custom, a class has a capital.
            let capital =
                |s: &str| s.rsplit('.').next().map_or(false, |s| s.starts_with(|c: char| c.is_ascii_uppercase()));
            let class = colon(old) || colon(new) || (capital(old) && old.contains('.'));
            match (global(old), global(new)) {
                (Some(old), Some(new)) => {
                    if self.globals.insert(join(&old.0, &old.1), self.new.len() as u32).is_some() {
                        return Err(bad());
                    }
                    self.new.push(New { global: new, sure: class, void: false });
                }
                _ if class => return Err(bad()),
                _ => {}
            }
            if !colon(old) && !colon(new) {
                if self.modules.insert(old.into(), self.news.len() as u32).is_some() {
                    return Err(bad());
                }
                self.news.push(new.into());
            }
        }
        Ok(())
    }

    /// Refuses a table that would change again what it has changed. A name that can be a module's or a
    /// class's is not a class's where that would be so.
    #[inline(never)]
    pub fn check(&mut self) -> Result<()> {
        let again = |name: &[u8]| {
            let name = std::str::from_utf8(name).unwrap_or("");
            let msg = Text::new().str("the new name ").str(name).str(" would change again");
            Err(Error::new(Code::Unsupported, msg).path("settings.rename"))
        };
        let mut void = Vec::new();
        for (old, at) in &self.globals {
            let New { global: (module, name), sure, .. } = &self.new[*at as usize];
            let full = [&module[..], b".", &name[..]].concat();
            if let Some(by) = self.globals.get(&join(module, name)) {
                if *sure || self.new[*by as usize].sure {
                    return again(&full);
                }
                void.push(*by);
            }
            if self.modules.contains_key(module) {
                let itself = old.iter().map(|b| if *b == 0xff { b'.' } else { *b }).eq(module.iter().copied());
                if *sure || !itself {
                    return again(&full);
                }
                void.push(*at);
            }
        }
        for new in &self.news {
            if self.modules.contains_key(new) {
                return again(new);
            }
            let all = join(new, b"");
            for (old, at) in self.globals.range(all.clone()..) {
                if !old.starts_with(&all) {
                    break;
                }
                if self.new[*at as usize].sure {
                    return again(new);
                }
                void.push(*at);
            }
        }
        for at in void {
            self.new[at as usize].void = true;
        }
        for c in &self.classes {
            if let Some(d) = c.default.iter().find(|d| c.drops(&d.0)) {
                let msg = Text::new().str("the attribute ").str(std::str::from_utf8(&d.0).unwrap_or(""));
                let msg = msg.str(" is to be dropped and has a default");
                return Err(Error::new(Code::Unsupported, msg).path("settings.default"));
            }
        }
        Ok(())
    }

    /// The class of a name, which is made if it has no rules yet.
    #[inline(never)]
    fn class(&mut self, name: &str) -> Option<&mut Class> {
        let (module, name) = global(name)?;
        let key = join(&module, &name);
        let at = match self.names.get(&key) {
            Some(at) => *at as usize,
            None => {
                self.names.insert(key, self.classes.len() as u32);
                self.classes.push(Class::default());
                self.classes.len() - 1
            }
        };
        self.classes.get_mut(at)
    }

    /// Reads the setting `drop`: `module.Class.attribute`, or the attributes by class.
    #[inline(never)]
    pub fn drop(&mut self, mut r: Reader<'_>) -> Result<()> {
        let bad = || wrong("drop", "an array of module.Class.attribute, or a map of classes to arrays of attributes");
        if r.major() == Some(ARRAY) {
            for _ in 0..r.array().map_err(|_| bad())? {
                let (class, attribute) = r.text().ok().and_then(|t| t.rsplit_once('.')).ok_or_else(bad)?;
                self.class(class).ok_or_else(bad)?.drop.push(attribute.into());
            }
            return Ok(());
        }
        for _ in 0..r.map().map_err(|_| bad())? {
            let class = self.class(r.text().map_err(|_| bad())?).ok_or_else(bad)?;
            for _ in 0..r.array().map_err(|_| bad())? {
                let attribute = r.text().map_err(|_| bad())?;
                class.drop.push(attribute.into());
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
        let c = self.class(class).ok_or_else(bad)?;
        if c.default.iter().any(|d| d.0 == attribute.as_bytes()) {
            let msg = Text::new().str("the attribute ").str(attribute).str(" has two defaults");
            return Err(Error::new(Code::Unsupported, msg).path("settings.default"));
        }
        if !short || attribute.len() > crate::names::MAX_NAME || c.default.len() == MAX_DEFAULTS {
            return Err(bad());
        }
        c.default.push((attribute.into(), value));
        Ok(())
    }

    /// The new names of a global, if they have changed.
    #[inline(never)]
    pub fn renamed(&self, module: &[u8], name: &[u8]) -> Option<Global> {
        if self.modules.is_empty() && self.globals.is_empty() {
            return None;
        }
        if let Some(at) = self.globals.get(&join(module, name)) {
            let new = &self.new[*at as usize];
            if !new.void {
                return Some(new.global.clone());
            }
        }
        self.modules.get(module).map(|at| (self.news[*at as usize].clone(), name.to_vec()))
    }

    /// The rules of a class by its number and 1, or 0. The names are the new ones.
    #[inline(never)]
    pub fn of(&self, module: &[u8], name: &[u8]) -> u32 {
        if self.names.is_empty() {
            return 0;
        }
        self.names.get(&join(module, name)).map_or(0, |at| *at as u32 + 1)
    }

    /// Whether a callable makes an instance of its first argument.
    pub fn makes_first(module: &[u8], name: &[u8]) -> bool {
        matches!(module, b"copyreg" | b"copy_reg")
            && matches!(name, b"_reconstructor" | b"__newobj__" | b"__newobj_ex__")
    }
}

/// Whether a callable calls what its state says, of whose arguments the first may be a class.
pub fn makes_partial(module: &[u8], name: &[u8]) -> bool {
    module == b"functools" && name == b"partial"
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
