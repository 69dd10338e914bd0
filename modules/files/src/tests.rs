//! The border between folders and records.

use super::*;
use std::string::{String, ToString};
use std::sync::{Mutex, MutexGuard};
use std::vec;
use std::vec::Vec;
use torpor::cbor::{encode_head, Reader, BYTES, MAP, NEGATIVE, TEXT, UINT};
use torpor::testing::{load, round_trip, save, Run};
use torpor::{Key, Record};

/// A guest runs one call at a time, and tests run in threads.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(|e| e.into_inner())
}

fn head(out: &mut Vec<u8>, major: u8, n: u64) {
    let mut buf = [0; 9];
    let len = encode_head(&mut buf, major, n);
    out.extend_from_slice(&buf[..len]);
}

fn string(out: &mut Vec<u8>, s: &[u8]) {
    head(out, if std::str::from_utf8(s).is_ok() { TEXT } else { BYTES }, s.len() as u64);
    out.extend_from_slice(s);
}

/// Attributes in CBOR, from pairs of a key and an encoded value.
fn map(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    head(&mut out, MAP, pairs.len() as u64);
    for (k, v) in pairs {
        string(&mut out, k.as_bytes());
        out.extend_from_slice(v);
    }
    out
}

fn text(s: &str) -> Vec<u8> {
    let mut out = Vec::new();
    string(&mut out, s.as_bytes());
    out
}

fn int(n: i64) -> Vec<u8> {
    let mut out = Vec::new();
    if n < 0 {
        head(&mut out, NEGATIVE, -(n + 1) as u64);
    } else {
        head(&mut out, UINT, n as u64);
    }
    out
}

fn entry(path: &[u8], attributes: &[u8], content: Option<&[u8]>) -> Vec<u8> {
    let mut out = vec![0x82 + content.is_some() as u8];
    string(&mut out, path);
    out.extend_from_slice(attributes);
    if let Some(c) = content {
        head(&mut out, BYTES, c.len() as u64);
        out.extend_from_slice(c);
    }
    out
}

fn folder(path: &str) -> Vec<u8> {
    entry(path.as_bytes(), &map(&[("type", text("folder")), ("mode", int(0o755)), ("mtime", int(-5))]), None)
}

fn file(path: &str, content: &[u8]) -> Vec<u8> {
    let a =
        map(&[("type", text("file")), ("mode", int(0o644)), ("mtime", int(7)), ("size", int(content.len() as i64))]);
    entry(path.as_bytes(), &a, Some(content))
}

fn link(path: &str, kind: &str, target: &str) -> Vec<u8> {
    let mut pairs = vec![("type", text(kind)), ("mtime", int(7)), ("target", text(target))];
    if kind == "hardlink" {
        pairs.remove(1);
    }
    entry(path.as_bytes(), &map(&pairs), None)
}

/// A whole state: the folder itself first.
fn state(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut out = HEADER.to_vec();
    out.extend(folder("."));
    out.extend(entries.concat());
    head(&mut out, UINT, entries.len() as u64 + 1);
    out
}

fn noise(n: usize) -> Vec<u8> {
    let mut state = 1u64;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        })
        .collect()
}

fn split(records: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = records;
    let mut all = Vec::new();
    while !rest.is_empty() {
        let n = Reader::new(rest).item().unwrap().len();
        all.push(rest[..n].to_vec());
        rest = &rest[n..];
    }
    all
}

fn keys(records: &[u8]) -> Vec<String> {
    let key = |r: &Vec<u8>| match Record::parse(r).unwrap().key {
        Key::Text(k) => k.to_string(),
        Key::Bytes(k) => std::format!("{k:?}"),
    };
    split(records).iter().map(key).collect()
}

fn rich() -> Vec<u8> {
    let sparse = map(&[
        ("type", text("file")),
        ("mode", int(0o4755)),
        ("mtime", int(1_700_000_000_123_456_789)),
        ("uid", int(0)),
        ("gid", int(4_294_967_295)),
        ("size", int(1 << 40)),
        ("data", vec![0x84, 0x00, 0x02, 0x19, 0x10, 0x00, 0x03]),
        ("xattrs", map(&[("user.a", vec![0x41, 0xff]), ("user.b", vec![0x40])])),
    ]);
    state(&[
        folder("a"),
        file("a/b", b"inside"),
        entry(b"a/\xff\n", &map(&[("type", text("folder")), ("mode", int(0)), ("mtime", int(0))]), None),
        file("a-b", b""),
        file("a0", &noise(65_536)),
        file("big", &noise(200_000)),
        link("hard", "hardlink", "a/b"),
        link("link", "link", "../elsewhere"),
        entry(b"sparse", &sparse, Some(b"12345")),
    ])
}

#[test]
fn round_trips() {
    let _alone = alone();
    let records = round_trip::<Files>(&rich());
    let keys = keys(&records);
    assert_eq!(&keys[..7], [".", "a", "a/b", "[97, 47, 255, 10]", "a-b", "a0", "big"]);
    assert!(keys[7].starts_with("big//") && keys[7].len() == 5 + 16);
    let n = keys.len();
    assert_eq!(&keys[n - 4..], ["big//", "hard", "link", "sparse"]);
    round_trip::<Files>(&state(&[]));
}

#[test]
fn cut_states_are_corrupt() {
    let _alone = alone();
    let all = state(&[folder("a"), file("a/b", b"inside"), link("l", "link", "a"), file("z", &noise(70_000))]);
    for n in (0..all.len()).step_by(7).chain(0..200).chain(all.len() - 9..all.len()) {
        let f = save::<Files>(&all[..n]).unwrap_err();
        assert_eq!(f.code, 2, "{n}: {f:?}");
    }
    assert_eq!(save::<Files>(&[&all[..], &[0]].concat()).unwrap_err().msg, "bytes behind the end of the state");
}

#[test]
fn refuses_what_is_no_folder() {
    let _alone = alone();
    let attrs = |pairs: &[(&str, Vec<u8>)]| entry(b"f", &map(pairs), Some(b"12345"));
    let plain = || vec![("type", text("file")), ("mode", int(0)), ("mtime", int(0)), ("size", int(5))];
    let with = |more: Vec<(&'static str, Vec<u8>)>| attrs(&[plain(), more].concat());
    let cases: Vec<(Vec<Vec<u8>>, &str)> = vec![
        (vec![file("/etc/passwd", b"")], "absolute"),
        (vec![file("../x", b"")], "\"..\""),
        (vec![folder("a"), file("a/../../x", b"")], "\"..\""),
        (vec![file("a//b", b"")], "an empty name"),
        (vec![file("a/", b"")], "an empty name"),
        (vec![file("", b"")], "empty"),
        (vec![file("a\0b", b"")], "a zero byte"),
        (vec![file("./a", b"")], "\".\""),
        (vec![folder(".")], "a second time"),
        (vec![file("b", b""), file("a", b"")], "not in order"),
        (vec![file("a", b""), file("a", b"")], "comes twice"),
        (vec![folder("a"), file("a-", b""), file("a/b", b"")], "not in order"),
        (vec![file("a", b""), file("a/b", b"")], "or is none"),
        (vec![link("a", "link", "/"), file("a/b", b"")], "or is none"),
        (vec![file("a/b", b"")], "is missing"),
        (vec![folder("ab"), file("ab/c/d", b"")], "is missing"),
        (vec![link("h", "hardlink", "../x")], "\"..\""),
        (vec![link("h", "hardlink", ".")], "a hard link to the folder"),
        (vec![link("h", "link", "")], "no link can have"),
        (vec![entry(b"f", &map(&[("type", text("fifo"))]), None)], "the type is none"),
        (vec![entry(b"f", &map(&[("mode", int(0))]), None)], "the first attribute"),
        (
            vec![entry(b"f", &map(&[("type", text("folder")), ("mode", int(0o10000)), ("mtime", int(0))]), None)],
            "other bits",
        ),
        (
            vec![entry(b"f", &map(&[("type", text("folder")), ("mtime", int(0)), ("mode", int(0))]), None)],
            "the mode is missing",
        ),
        (
            vec![entry(
                b"f",
                &map(&[("type", text("folder")), ("mode", int(0)), ("mtime", int(0)), ("what", int(0))]),
                None,
            )],
            "unknown",
        ),
        (vec![entry(b"f", &map(&plain()), None)], "a file has content"),
        (vec![entry(b"f", &map(&plain()), Some(b"123456"))], "no byte string of the length"),
        (vec![with(vec![("data", vec![0x81, 0x05])])], "in pairs"),
        (vec![with(vec![("data", vec![0x82, 0x00, 0x05])])], "without holes"),
        (vec![with(vec![("data", vec![0x82, 0x01, 0x05])])], "of this size"),
        (vec![with(vec![("data", vec![0x84, 0x01, 0x01, 0x00, 0x01])])], "of this size"),
        (vec![with(vec![("data", vec![0x82, 0x01, 0x00])])], "of this size"),
        (vec![with(vec![("xattrs", vec![0xa0])])], "written as none"),
        (vec![with(vec![("xattrs", map(&[("b", vec![0x40]), ("a", vec![0x40])]))])], "not in order"),
        (vec![with(vec![("uid", int(0))])], "unknown"),
        (vec![entry(b"f", &[0xa1, 0x44, b't', b'y', b'p', b'e', 0x00], None)], "the first attribute"),
        (vec![vec![0x82, 0x41, b'f', 0xa0]], "written as text"),
        (vec![vec![0x81, 0x00]], "an array of two or three"),
        (vec![vec![0x60]], "neither an entry"),
        (vec![vec![0x05]], "another number of entries"),
    ];
    for (entries, msg) in cases {
        let f = save::<Files>(&state(&entries)).unwrap_err();
        assert!(f.code == 2 && f.msg.contains(msg) && f.offset.is_some(), "{f:?}, want {msg}");
    }
    let long = "x".repeat(16_385);
    assert_eq!(save::<Files>(&state(&[file(&long, b"")])).unwrap_err().code, 5);
    round_trip::<Files>(&state(&[file(&long[1..], &noise(70_000))]));
    for wrong in [&b""[..], b"\x82\x6ctorpor-files\x02", b"\x82\x6ctorpor-files\x01\x00", b"{}"] {
        assert_eq!(save::<Files>(wrong).unwrap_err().code, 2);
    }
}

#[test]
fn refuses_records_that_are_no_folder() {
    let _alone = alone();
    let all = split(&save::<Files>(&rich()).unwrap());
    let keys = keys(&all.concat());
    let at = |key: &str| keys.iter().position(|k| k == key).unwrap();
    let (big, end) = (at("big"), at("big//"));
    let fails = |records: Vec<Vec<u8>>, msg: &str| {
        let f = load::<Files>(&records.concat()).unwrap_err();
        assert!(f.code == 2 && f.msg.contains(msg), "{f:?}, want {msg}");
    };
    let without = |i: usize| [&all[..i], &all[i + 1..]].concat();
    fails(vec![], "there is no record");
    fails(without(0), "the first entry is not the folder");
    fails(without(at("a")), "is missing");
    fails(without(big), "a piece without its file");
    fails(without(big + 1), "not those of the file");
    fails(without(end), "not all there");
    fails(all[..end].to_vec(), "not all there");
    let mut swapped = all.clone();
    swapped.swap(big + 1, big + 2);
    fails(swapped, "not those of the file");
    let mut twice = all.clone();
    twice.insert(big + 1, all[big + 1].clone());
    fails(twice, "file"); // more than its content, or another order
    let mut moved = all.clone();
    let last = moved.remove(at("a0"));
    moved.push(last);
    fails(moved, "not in order");
    let mut changed = all.clone();
    *changed[big + 1].last_mut().unwrap() ^= 1;
    fails(changed, "another hash");
    let mut changed = all.clone();
    let n = changed[at("a/b")].len();
    changed[at("a/b")].truncate(n - 7);
    changed[at("a/b")].extend_from_slice(b"\x45insid");
    fails(changed, "not of the length");
    fails(vec![all[0].clone(), vec![0x83, 0x60, 0x61, b'a', 0xf6]], "a map expected");
}

#[test]
fn an_insertion_changes_few_records() {
    let _alone = alone();
    let content = noise(4 << 20);
    let before = split(&save::<Files>(&state(&[file("big", &content), file("other", &content)])).unwrap());
    let mut changed = content.clone();
    changed.splice(1_000_000..1_000_000, *b"ten bytes!");
    let after = split(&save::<Files>(&state(&[file("big", &changed), file("other", &content)])).unwrap());
    let new = after.iter().filter(|r| !before.contains(r)).count();
    assert!(before.len() > 200 && new <= 5, "{new} of {} records", after.len());
}

#[test]
fn inspect_counts_kinds() {
    let _alone = alone();
    let records = save::<Files>(&rich()).unwrap();
    for piece in [0, 100, 70_000] {
        let out = Run { piece, ..Run::default() }.inspect::<Files>(&records).unwrap();
        let mut r = Reader::new(&out);
        r.map().unwrap();
        let mut first = Vec::new();
        for _ in 0..5 {
            first.push((r.text().unwrap(), r.uint().unwrap()));
        }
        let bytes = 6 + 65_536 + 200_000 + 5;
        assert_eq!(first, [("schema", 1), ("files", 5), ("folders", 3), ("links", 2), ("file_bytes", bytes)]);
    }
}

#[test]
fn settings_and_schema() {
    let _alone = alone();
    let run = |settings: &[u8]| Run { settings: settings.to_vec(), ..Run::default() };
    let p = [&[0xa1, 0x69][..], b"partition", &[0x61, b'p']].concat();
    let records = run(&p).save::<Files>(&rich()).unwrap();
    assert!(split(&records).iter().all(|r| Record::parse(r).unwrap().partition == "p"));
    assert_eq!(load::<Files>(&records).unwrap(), rich());
    assert_eq!(run(&[0xa1, 0x61, b'q', 0x01]).save::<Files>(&rich()).unwrap_err().path, "settings.q");
    assert_eq!(run(&[0xa1, 0x61, b'q', 0x01]).load::<Files>(&records).unwrap_err().path, "settings.q");
    let run = |from, to| Run { from, to, ..Run::default() };
    assert_eq!(run(1, 1).migrate::<Files>(&records).unwrap(), records);
    assert_eq!(run(2, 1).migrate::<Files>(&records).unwrap_err().code, 3);
}
