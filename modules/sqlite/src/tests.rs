//! Run on the machine itself: `rustc --test`.

use std::string::String;
use std::sync::{Mutex, MutexGuard};
use std::vec::Vec;

use torpor::cbor::{encode_head, MAP, TEXT};
use torpor::testing::{load, round_trip, save, Run};
use torpor::{Key, Record};

use crate::key::{kind, split, Builder};
use crate::sha256::Sha256;
use crate::value::Value;
use crate::Sqlite;

extern crate std;

/// Tests run at once, and the serializer's memory is static.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(|e| e.into_inner())
}

fn text(out: &mut Vec<u8>, s: &str) {
    let mut buf = [0; 9];
    let n = encode_head(&mut buf, TEXT, s.len() as u64);
    out.extend_from_slice(&buf[..n]);
    out.extend_from_slice(s.as_bytes());
}

fn database(name: &str) -> Vec<u8> {
    let mut out = std::vec![0x82, 1, 0xa7];
    for (key, value) in
        [("name", name), ("page_size", ""), ("encoding", "UTF-8"), ("auto_vacuum", ""), ("journal_mode", "wal")]
    {
        text(&mut out, key);
        if value.is_empty() && key != "name" {
            out.push(0);
        } else {
            text(&mut out, value);
        }
    }
    for key in ["user_version", "application_id"] {
        text(&mut out, key);
        out.push(0x20);
    }
    out
}

/// A table with the columns `a` and `b`; the key is `a` or none.
fn table(name: &str, key: bool, rowid: bool) -> Vec<u8> {
    let mut out = std::vec![0x82, 2, 0xa7];
    for (key, value) in [("type", "table"), ("name", name), ("table", name), ("sql", "CREATE TABLE")] {
        text(&mut out, key);
        text(&mut out, value);
    }
    text(&mut out, "columns");
    out.extend_from_slice(&[0x82, 0x61, b'a', 0x61, b'b']);
    text(&mut out, "key");
    out.extend_from_slice(if key { &[0x81, 0] } else { &[0x80] });
    text(&mut out, "rowid");
    out.push(0xf4 + rowid as u8);
    out
}

fn rows(name: &str) -> Vec<u8> {
    let mut out = std::vec![0x82, 3];
    text(&mut out, name);
    out
}

fn back(name: &str) -> Vec<u8> {
    let mut out = std::vec![0x82, 6];
    text(&mut out, name);
    out
}

fn state(items: &[&[u8]]) -> Vec<u8> {
    let mut out = crate::native::HEAD.to_vec();
    for i in items {
        out.extend_from_slice(i);
    }
    out.extend_from_slice(&[0x81, 7]);
    out
}

fn keys(records: &[u8]) -> Vec<(String, String)> {
    let mut keys = Vec::new();
    let mut at = 0;
    while at < records.len() {
        let end = match torpor::Checker::new().check(records, at).unwrap() {
            torpor::cbor::Step::Whole(end) => end,
            torpor::cbor::Step::Short(_) => panic!(),
        };
        let r = Record::parse(&records[at..end]).unwrap();
        match r.key {
            Key::Text(k) => keys.push((r.partition.into(), k.into())),
            Key::Bytes(_) => panic!(),
        }
        at = end;
    }
    keys
}

#[test]
fn hashes() {
    for (input, want) in [
        ("", "e3b0c44298fc1c14"),
        ("abc", "ba7816bf8f01cfea"),
        ("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "248d6a61d20638b8"),
    ] {
        let mut h = Sha256::zero();
        h.begin();
        h.update(input.as_bytes());
        let hex: String = h.finish()[..8].iter().map(|b| std::format!("{:02x}", b)).collect();
        assert_eq!(hex, want);
    }
}

#[test]
fn writes_literals() {
    let mut k = Builder::new();
    for (v, want) in [
        (Value::Null, "NULL"),
        (Value::Int(i64::MIN), "-9223372036854775808"),
        (Value::Int(0), "0"),
        (Value::Float(1.5f64.to_bits()), "1.5"),
        (Value::Float((-0.0f64).to_bits()), "-0.0"),
        (Value::Float(1e300f64.to_bits()), "1e300"),
        (Value::Float(f64::NEG_INFINITY.to_bits()), "-9e999"),
        (Value::Text("it's"), "'it''s'"),
        (Value::Text("'"), "''''"),
        (Value::Blob(&[0, 0xff]), "x'00ff'"),
        (Value::Raw(&[0xff]), "CAST(x'ff' AS TEXT)"),
    ] {
        k.clear();
        k.value(v);
        assert_eq!(k.finish(), want);
    }
    for (name, want) in [
        ("orders", "orders"),
        ("_u1", "_u1"),
        ("größe", "größe"),
        ("select", "\"select\""),
        ("1a", "\"1a\""),
        ("", "\"\""),
        ("a\"b", "\"a\"\"b\""),
        ("a b", "\"a b\""),
    ] {
        k.clear();
        k.name(name);
        assert_eq!(k.finish(), want);
    }
}

#[test]
fn long_keys_are_cut_and_differ() {
    let mut seen = Vec::new();
    for (n, last) in [(4096, ""), (4097, ""), (4096, "x"), (100_000, "y"), (100_000, "z")] {
        let mut k = Builder::new();
        for _ in 0..n / 2 {
            k.push("é");
        }
        k.push(if n % 2 == 1 { "a" } else { "" });
        k.push(last);
        let key = String::from(k.finish());
        assert_eq!(key, k.finish());
        assert!(key.len() <= 4096 && (n == 4096 && last.is_empty()) != key.contains("…#"), "{}", key.len());
        assert!(!seen.contains(&key));
        seen.push(key);
    }
}

#[test]
fn takes_keys_apart() {
    assert_eq!(split("\"a\"\"b.db\".t(1)"), (Some("a\"\"b.db"), "t(1)"));
    assert_eq!(split("\"t\"(1)"), (None, "\"t\"(1)"));
    assert_eq!(split("t(1)"), (None, "t(1)"));
    assert_eq!(split("\"open"), (None, "\"open"));
    assert_eq!(kind("\"a.db\".\"x(\"(1)"), "\"x(\"");
    assert_eq!(kind("t('(')"), "t");
    assert_eq!(kind("\"a.db\".schema table t"), "schema");
    assert_eq!(kind("pragma"), "pragma");
}

#[test]
fn rows_of_every_kind() {
    let _alone = alone();
    let state = state(&[
        &database(""),
        &table("t", false, true),
        &table("k", true, false),
        &table("n", true, true),
        &rows("t"),
        &[0x84, 4, 0x20, 0xf6, 0x81, 0x41, 0xff],
        &rows("k"),
        &[0x83, 4, 0x18, 42, 0xfb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0],
        &[0x83, 4, 0x62, b'i', b'\'', 0xa1, 0x64, b'b', b'l', b'o', b'b', 3],
        &[0x83, 5, 1, 0x42, 1, 2],
        &[0x83, 5, 1, 0x41, 3],
        &rows("n"),
        &[0x84, 4, 7, 0xf6, 0x40],
        &[0x84, 4, 8, 0x41, 0xff, 0x60],
    ]);
    let records = round_trip::<Sqlite>(&state);
    let want = [
        "pragma",
        "schema table t",
        "schema table k",
        "schema table n",
        "t(rowid -1)",
        "k(42)",
        "k('i''')",
        "k('i''').b[0]",
        "k('i''').b[1]",
        "n(rowid 7)",
        "n(x'ff')",
    ];
    assert_eq!(keys(&records).iter().map(|k| k.1.as_str()).collect::<Vec<_>>(), want);
}

#[test]
fn many_databases() {
    let _alone = alone();
    let state = state(&[
        &database("123456789012_eu-west-1.db"),
        &table("t", true, false),
        &database("sub/123456789012_eu-west-1.db"),
        &table("t", true, false),
        &rows("t"),
        &[0x83, 4, 1, 2],
        &back("123456789012_eu-west-1.db"),
        &rows("t"),
        &[0x83, 4, 1, 3],
    ]);
    let records = round_trip::<Sqlite>(&state);
    let pair = |a: &str, b: &str| (String::from(a), String::from(b));
    assert_eq!(
        keys(&records)[2..],
        [
            pair("", "\"sub/123456789012_eu-west-1.db\".pragma"),
            pair("", "\"sub/123456789012_eu-west-1.db\".schema table t"),
            pair("", "\"sub/123456789012_eu-west-1.db\".t(1)"),
            pair("123456789012/eu-west-1", "t(1)"),
        ]
    );
    let mut settings = Vec::new();
    let mut buf = [0; 9];
    let n = encode_head(&mut buf, MAP, 1);
    settings.extend_from_slice(&buf[..n]);
    text(&mut settings, "partition");
    text(&mut settings, "p");
    let run = Run { settings, ..Run::default() };
    let fixed = run.save::<Sqlite>(&state).unwrap();
    assert!(keys(&fixed).iter().all(|k| k.0 == "p" && k.1.starts_with('"')));
    assert_eq!(run.load::<Sqlite>(&fixed).unwrap(), state);
    assert_eq!(load::<Sqlite>(&fixed).unwrap(), state);
}

#[test]
fn refuses() {
    let _alone = alone();
    let db = database("");
    let t = table("t", true, false);
    let r = rows("t");
    let row: &[u8] = &[0x83, 4, 1, 2];
    let cases: [(&[&[u8]], &str); 20] = [
        (&[&t], "an item before the first database"),
        (&[&db, &db], "the database is there twice"),
        (&[&db, &t, &t], "the table is there twice"),
        (&[&db, row], "a row of no table"),
        (&[&db, &r, row], "rows of a table that did not come, or whose rows come already"),
        (&[&db, &t, &r], "an item that announces others, and they do not come"),
        (&[&db, &t, &r, row, &r, row], "rows of a table that did not come, or whose rows come already"),
        (&[&db, &t, &back("")], "back to a database that did not come, or is the one already"),
        (&[&db, &t, &r, &[0x84, 4, 1, 2, 3]], "a row with more or fewer values than its table has"),
        (
            &[&db, &t, &r, &[0x83, 4, 0xf6, 2]],
            "a primary key that is NULL or too long to be a record's; save the database as pages",
        ),
        (&[&db, &t, &r, &[0x83, 4, 1, 0xf4]], "a value that SQLite has expected, not 0xf4"),
        (&[&db, &t, &r, &[0x83, 4, 1, 0xf9, 0, 0]], "a value that SQLite has expected, not 0xf9"),
        (&[&db, &t, &r, &[0x83, 4, 1, 0xfb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0]], "a number expected, not 0xfb"),
        (&[&db, &t, &r, &[0x83, 4, 1, 0x61, 0xff]], "value that is not UTF-8"),
        (&[&db, &t, &r, row, &[0x83, 5, 1, 0x41, 0]], "a piece that no row waits for"),
        (
            &[&db, &t, &r, &[0x83, 4, 1, 0xa1, 0x64, b't', b'e', b'x', b't', 2], row],
            "pieces of a long value are missing",
        ),
        (
            &[&db, &t, &r, &[0x83, 4, 1, 0xa1, 0x64, b't', b'e', b'x', b't', 2], &[0x83, 5, 1, 0x43, 0, 0, 0]],
            "pieces of more bytes than their value has",
        ),
        (&[&db, &table("n", false, false)], "a table without a key and without a rowid"),
        (&[&[0x82, 9, 9]], "an item before the first database"),
        (&[&db, &[0x82, 9, 9]], "an item of a kind that the form does not have"),
    ];
    for (items, want) in cases {
        let e = save::<Sqlite>(&state(items)).unwrap_err();
        assert!(e.msg.contains(want) || want.contains("expected") || want.contains("UTF-8"), "{:?}, want {}", e, want);
        assert!(e.code == 2 || e.code == 4, "{:?}", e);
    }
    assert_eq!(save::<Sqlite>(&[]).unwrap_err().code, 2);
    assert_eq!(save::<Sqlite>(b"\x83\x00\x6dtorpor-sqlite\x02").unwrap_err().code, 3);
    assert_eq!(round_trip::<Sqlite>(&state(&[])), []);
}
