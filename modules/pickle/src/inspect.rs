//! What `inspect` tells: records by partition, and the objects in them by class.

use torpor::cbor::{ARRAY, BYTES, MAP, TAG, TEXT};
use torpor::{Call, Input, Output, Record, Result, Scratch, Summary, Visitor};

use crate::form::*;
use crate::load::{next, Source};

static SUMMARY: Scratch<Summary> = Scratch::new(Summary::new());

/// The longest class that is told by name, in bytes.
const MAX_CLASS: usize = 256;

/// Reads records and writes their summary.
pub fn inspect(call: &Call<'_>, records: &mut Input<'_>, out: &mut Output<'_>) -> Result<()> {
    SUMMARY.with(|summary| {
        summary.clear();
        let mut record = Vec::new();
        let mut documents = 0;
        loop {
            record.clear();
            if !next(records, &mut record)? {
                break;
            }
            summary.record(&record)?;
            let r = Record::parse(&record).map_err(|f| f.error(0))?;
            documents += classes(r.value, summary);
        }
        summary.write(&[("schema", call.schema.unwrap_or(crate::schema::SCHEMA)), ("pickles", documents)], out)
    })
}

/// A collection under way: how many items are left, where what it belongs to begins, and of which class
/// that is.
struct Open {
    left: u64,
    start: usize,
    class: Option<String>,
    wraps: bool, // its first item may be the object that its state or effects follow
}

/// Counts the objects of a record by class, each with all that is in it, and gives how many pickles begin
/// in it.
fn classes(value: &[u8], summary: &mut Summary) -> u64 {
    let mut s = Source { d: value, at: 0 };
    let mut open: Vec<Open> = Vec::new();
    let mut documents = 0;
    while s.at < value.len() {
        let start = s.at;
        let (major, arg) = s.head();
        let mut left = None;
        let mut class = None;
        let mut wraps = false;
        match major {
            BYTES | TEXT => {
                s.take(arg);
            }
            ARRAY => left = Some(arg),
            MAP => left = Some(2 * arg),
            TAG => match arg {
                OBJECT | REDUCE | INST => {
                    let (_, n) = s.head();
                    class = Some(name(&mut s));
                    left = Some(n.saturating_sub(1));
                }
                CALL | NEWOBJ | NEWOBJ_EX | OBJ => {
                    let (_, n) = s.head();
                    let callable = s.at;
                    left = Some(n);
                    if s.head() == (TAG, GLOBAL) {
                        class = Some(name(&mut s));
                        left = Some(n.saturating_sub(1));
                    } else {
                        s.at = callable;
                    }
                }
                STATE | WITH | OPEN => {
                    let (_, n) = s.head();
                    left = Some(n);
                    wraps = true;
                    if arg == OPEN {
                        s.head(); // how
                        left = Some(n.saturating_sub(1));
                    }
                }
                _ => {
                    documents += (arg == DOC) as u64;
                    left = Some(1);
                }
            },
            _ => {}
        }
        if class.is_some() {
            if let Some(o) = open.last_mut() {
                if o.wraps {
                    o.class = class.take();
                    o.wraps = false;
                }
            }
        }
        if let Some(o) = open.last_mut() {
            o.wraps = false;
        }
        open.push(Open { left: left.unwrap_or(0), start, class, wraps });
        while let Some(o) = open.last_mut() {
            if o.left > 0 {
                o.left -= 1;
                break;
            }
            if let Some(class) = &o.class {
                summary.kind(class, (s.at - o.start) as u64);
            }
            open.pop();
        }
    }
    documents
}

/// The name of a class, which is a text or two.
fn name(s: &mut Source<'_>) -> String {
    let mut text = String::new();
    let mut left = 1;
    while left > 0 {
        left -= 1;
        match s.head() {
            (ARRAY, n) => left = n,
            (TAG, _) => left = left.saturating_add(1),
            (BYTES | TEXT, n) => {
                let part = String::from_utf8_lossy(s.take(n));
                if !text.is_empty() {
                    text.push(if part.contains(|c| c == '.' || c == ':') { ':' } else { '.' });
                }
                text.push_str(&part);
            }
            _ => {}
        }
    }
    if text.len() > MAX_CLASS {
        let mut n = MAX_CLASS;
        while !text.is_char_boundary(n) {
            n -= 1;
        }
        text.truncate(n);
    }
    text
}
