//! The part's settings.

use torpor::{Call, Result};

use crate::rules::Rules;

/// Depth and sizes at which values become records of their own.
pub struct Settings {
    pub depth: u32,
    pub split: usize,
    pub rules: Rules,
}

const MAX_DEPTH: u64 = 8;
const MIN_SPLIT: u64 = 1 << 10;
const MAX_SPLIT: u64 = 16 << 20;

impl Settings {
    pub fn of(call: &Call<'_>) -> Result<Settings> {
        let mut s = Settings { depth: 2, split: 64 << 10, rules: Rules::default() };
        call.settings(&["depth", "split", "rename", "drop", "default"], |name, mut value| {
            match name {
                "rename" => return s.rules.rename(value),
                "drop" => return s.rules.drop(value),
                "default" => return s.rules.defaults(value),
                _ => {}
            }
            let n = value.uint();
            let whole = value.end().is_ok();
            match (name, n) {
                ("depth", Ok(n)) if whole && n <= MAX_DEPTH => s.depth = n as u32,
                ("depth", _) => return Err(Call::wrong_setting(name, "a whole number from 0 to 8")),
                ("split", Ok(n)) if whole && (MIN_SPLIT..=MAX_SPLIT).contains(&n) => s.split = n as usize,
                _ => return Err(Call::wrong_setting(name, "a number of bytes from 1024 to 16777216")),
            }
            Ok(())
        })?;
        s.rules.check()?;
        Ok(s)
    }
}
