use torpor::testing::{load, round_trip, save, Run};

use crate::Pickle;

fn fixtures() -> Vec<(String, Vec<u8>)> {
    let dir = std::path::Path::new(file!()).parent().unwrap().parent().unwrap().join("fixtures");
    let mut all: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().map_or(false, |e| e == "pickle" || e == "dill"))
        .map(|p| (p.display().to_string(), std::fs::read(p).unwrap()))
        .collect();
    all.sort();
    assert!(all.len() > 8);
    all
}

#[test]
fn fixtures_go_there_and_back() {
    for (name, native) in fixtures() {
        if native.len() < 10_000 {
            println!("{name}");
            round_trip::<Pickle>(&native);
        }
    }
}

#[test]
fn what_cpython_writes_comes_back_byte_for_byte() {
    for (name, native) in fixtures() {
        if name.ends_with("sns-10.pickle") || name.ends_with("sqs-10.dill") || name.ends_with("protocol-4.pickle") {
            assert!(load::<Pickle>(&save::<Pickle>(&native).unwrap()).unwrap() == native, "{name}");
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    for (_, native) in fixtures().iter().filter(|f| f.0.contains("sqs-10")) {
        for n in (0..native.len()).step_by(7) {
            assert_eq!(save::<Pickle>(&native[..n]).map_err(|e| e.code), Err(2), "at {n}");
        }
    }
}

#[test]
fn refuses_with_code_and_offset() {
    let cases: [(&[u8], i32, &str, u64); 16] = [
        (b"", 2, "an empty input is no pickle", 0),
        (b"\x80\x06N.", 3, "a pickle of protocol 6; this serializer reads 0 to 5", 0),
        (b"\x80\x04N", 2, "the input ends inside a pickle, before STOP", 3),
        (b"\x80\x04.", 2, "STOP: the stack holds too little", 2),
        (b"\x80\x04h\x05.", 2, "BINGET: there is no such memo entry", 2),
        (b"\x80\x04}(Nu.", 2, "SETITEMS: a key without a value", 5),
        (b"\x80\x04K\x01K\x02K\x03s.", 2, "SETITEM: what lies under the items can not take them", 8),
        (b"\x80\x05\x97.", 4, "", 2),
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.", 5, "", 2),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xffN.", 5, "", 2),
        (b"\x80\x04\x95\x09\x00\x00\x00\x00\x00\x00\x00N.", 2, "STOP: the pickle ends inside a frame", 12),
        (b"(N.", 2, "STOP: a mark is left on the stack", 2),
        (b"N.x", 2, "0x78 is no opcode of pickles", 2),
        (b"I1x\n.", 2, "INT: a line that is no int", 0),
        (b"Fx\n.", 2, "FLOAT: a line that is no float", 0),
        (b"X\x01\x00\x00\x00\xff.", 2, "BINUNICODE: text that is no UTF-8", 0),
    ];
    for (native, code, msg, offset) in cases {
        let f = save::<Pickle>(native).unwrap_err();
        assert_eq!((f.code, f.offset), (code, Some(offset)), "{native:x?}: {f:?}");
        assert!(msg.is_empty() || f.msg == msg, "{native:x?}: {f:?}");
    }
}

fn settings(map: &[u8]) -> Run {
    Run { settings: map.to_vec(), ..Run::default() }
}

#[test]
fn a_table_renames_drops_and_defaults() {
    // {"rename": {"a.Old": "b.New"}, "drop": ["b.New.x"], "default": {"b.New.z": 7}}
    let run = settings(b"\xa3\x66rename\xa1\x65a.Old\x65b.New\x64drop\x81\x67b.New.x\x67default\xa1\x67b.New.z\x07");
    let old = b"\x80\x02ca\nOld\n)\x81}(U\x01xK\x01X\x01\x00\x00\x00yK\x02X\x01\x00\x00\x00x]ub.";
    let native = run.load::<Pickle>(&save::<Pickle>(old).unwrap()).unwrap();
    assert!(native.windows(6).any(|w| w == b"cb\nNew") && !native.windows(4).any(|w| w == b"cold"), "{native:x?}");
    assert!(native.windows(2).any(|w| w == b"K\x07"), "{native:x?}");
    let again = run.save::<Pickle>(&native).unwrap();
    assert!(run.load::<Pickle>(&again).unwrap() == native);
    // Save gives the records of the new layout, too, and numbers them without what is dropped.
    for old in [
        &b"\x80\x02](ca\nOld\n)\x81}(X\x01\x00\x00\x00x]q\x01X\x01\x00\x00\x00y]q\x02ubh\x02]q\x03h\x03e."[..],
        b"\x80\x02](ca\nOld\n)\x81N}X\x01\x00\x00\x00x]q\x01s\x86b]q\x03h\x03e.",
    ] {
        let early = run.save::<Pickle>(old).unwrap();
        let native = run.load::<Pickle>(&save::<Pickle>(old).unwrap()).unwrap();
        assert!(run.load::<Pickle>(&early).unwrap() == native && run.save::<Pickle>(&native).unwrap() == early);
    }
    let shared = b"\x80\x02](ca\nOld\n)\x81}X\x01\x00\x00\x00x]q\x01sbh\x01e.";
    assert_eq!(run.save::<Pickle>(shared).unwrap_err().code, 4);
    assert_eq!(run.load::<Pickle>(&save::<Pickle>(shared).unwrap()).unwrap_err().code, 4);
    let twice = settings(b"\xa1\x66rename\xa2\x61a\x61b\x61b\x61c");
    assert_eq!(twice.save::<Pickle>(b"N.").unwrap_err().code, 4);
}

#[test]
fn inspect_counts_classes() {
    for (name, native) in fixtures() {
        if name.ends_with("sns-10.pickle") {
            let summary = Run::default().inspect::<Pickle>(&save::<Pickle>(&native).unwrap()).unwrap();
            let text = String::from_utf8_lossy(&summary).to_string();
            assert!(text.contains("moto.sns.models.Topic") && text.contains("123456789012/us-east-1"), "{text}");
        }
    }
}

#[test]
fn numbers_are_as_python_writes_them() {
    for (v, want) in [
        (1.0, "1.0"),
        (0.1, "0.1"),
        (1e16, "1e+16"),
        (1e15, "1000000000000000.0"),
        (1e-5, "1e-05"),
        (0.0001, "0.0001"),
        (-0.0, "-0.0"),
        (1.5e300, "1.5e+300"),
        (123456.789, "123456.789"),
        (f64::INFINITY, "inf"),
        (5e-324, "5e-324"),
    ] {
        let mut out = Vec::new();
        crate::number::float(&mut out, v);
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }
    for s in ["123456789012345678901234567890", "-9223372036854775809", "18446744073709551616", "-18446744073709551617"]
    {
        match crate::number::parse(s.as_bytes()) {
            Some(crate::number::Int::Big(mag, negative)) => {
                let mut out = Vec::new();
                crate::number::decimal(&mut out, &mag, negative);
                assert_eq!(String::from_utf8(out).unwrap(), s);
            }
            _ => panic!("{s}"),
        }
    }
}

/// A mapping's items: 4,000 lists of 256 numbers, more than can be held.
fn much(out: &mut Vec<u8>) {
    for batch in 0..4 {
        out.push(b'(');
        for i in 0..1000 {
            let key = (batch * 1000 + i).to_string();
            out.extend_from_slice(&[0x8c, key.len() as u8]);
            out.extend_from_slice(key.as_bytes());
            out.extend_from_slice(b"](");
            for n in 0..=255 {
                out.extend_from_slice(&[b'K', n]);
            }
            out.push(b'e');
        }
        out.push(b'u');
    }
}

/// A pickle of an object whose state is `x`, 1, then an attribute, then `y`, 2. `MUCH` stands for items.
fn object(attribute: &[u8]) -> Vec<u8> {
    let mut out = b"\x80\x04\x8c\x01a\x8c\x01B\x93)\x81}(\x8c\x01xK\x01".to_vec();
    let mut rest = attribute;
    while let Some(at) = rest.windows(4).position(|w| w == b"MUCH") {
        out.extend_from_slice(&rest[..at]);
        much(&mut out);
        rest = &rest[at + 4..];
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(b"\x8c\x01yK\x02ub.");
    out
}

#[test]
fn one_entry_and_then_more_than_is_held() {
    for attribute in [
        &b"\x8c\x07buckets}\x8c\x06bucket}MUCHs"[..],
        b"\x8c\x07buckets}\x8c\x09my-bucket}MUCHs",
        b"\x8c\x05empty}\x8c\x07buckets}MUCH",
        b"\x8c\x05empty}\x8c\x07not-one}MUCH",
        b"\x8c\x07buckets}\x8c\x06bucket}\x8c\x05inner}MUCHss",
        b"\x8c\x07buckets}\x8c\x06bucket\x8c\x01a\x8c\x01C\x93)\x81}(\x8c\x01k}MUCH\x8c\x01lNubs",
        b"\x8c\x07buckets\x8c\x01m\x8c\x01O\x93)R\x8c\x06bucket}MUCHs",
        b"\x8c\x04list]}MUCHa",
        b"\x8c\x07buckets}\x8c\x06bucket}MUCHs\x8c\x04more}\x8c\x05other}MUCHs",
    ] {
        let native = object(attribute);
        let records = save::<Pickle>(&native).unwrap_or_else(|f| panic!("{attribute:?}: {f:?}"));
        let loaded = load::<Pickle>(&records).unwrap();
        assert!(save::<Pickle>(&loaded).unwrap() == records, "{attribute:?}");
        // Frames and what is memoized differ, not what is done.
        let plain = |d: &[u8]| -> Vec<u8> { d.iter().copied().filter(|b| b"sabeu}])R".contains(b)).collect() };
        let tail = |d: &[u8]| plain(&d[d.len() - 40..]);
        assert_eq!(tail(&native).last(), tail(&loaded).last(), "{attribute:?}");
    }
}

#[test]
fn a_list_and_a_dict_of_one_object() {
    let mut native = b"\x80\x04\x8c\x01m\x8c\x01O\x93)R".to_vec();
    for _ in 0..200 {
        native.push(b'(');
        native.extend_from_slice(&b"K\x07".repeat(1000));
        native.push(b'e');
    }
    native.extend_from_slice(b"(\x8c\x01kK\x01\x8c\x01lK\x02u}\x8c\x01sNsb.");
    round_trip_quick(&native);
}

fn round_trip_quick(native: &[u8]) {
    let records = save::<Pickle>(native).unwrap();
    assert!(save::<Pickle>(&load::<Pickle>(&records).unwrap()).unwrap() == records);
}

#[test]
fn a_class_named_by_texts_of_their_own() {
    let run = settings(b"\xa3\x66rename\xa1\x65a.Old\x65b.New\x64drop\x81\x67b.New.x\x67default\xa1\x67b.New.z\x07");
    // "a" and "Old" are values; equal texts that are other objects name the class, and are used again.
    let native =
        b"\x80\x04](\x8c\x01a\x94\x8c\x03Old\x94\x8c\x01a\x94\x8c\x03Old\x94\x93\x94)\x81\x94}\x8c\x01x]\x94sb\
        h\x02h\x03\x93)\x81h\x02h\x03h\x05e.";
    let records = round_trip::<Pickle>(native);
    assert!(!records.windows(3).any(|w| w == b"\xd9\xea\x17"), "computed: {records:x?}");
    let new = run.load::<Pickle>(&records).unwrap();
    assert!(!new.windows(3).any(|w| w == b"\x8c\x01x"), "not dropped: {new:x?}");
    assert!(new.windows(2).any(|w| w == b"K\x07"), "no default: {new:x?}");
    let early = run.save::<Pickle>(native).unwrap();
    assert!(run.load::<Pickle>(&early).unwrap() == new && run.save::<Pickle>(&new).unwrap() == early);
    let said = Run::default().inspect::<Pickle>(&records).unwrap();
    assert!(said.windows(5).any(|w| w == b"a.Old"), "{said:x?}");
}

/// The records of a state, each with its key.
fn records_of(records: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < records.len() {
        let mut r = torpor::cbor::Reader::new(&records[at..]);
        r.item().unwrap();
        let one = records[at..at + r.offset()].to_vec();
        at += r.offset();
        match torpor::Record::parse(&one).unwrap().key {
            torpor::Key::Text(k) => all.push((k.to_string(), one.clone())),
            torpor::Key::Bytes(_) => panic!("a key of bytes"),
        }
    }
    all
}

#[test]
fn entries_of_a_missing_container_go_nowhere_else() {
    let deep = settings(b"\xa1\x65depth\x04");
    let native = b"\x80\x04}(\x8c\x04\x6e\x61\x6d\x65cm\nC\n)\x81}(\x8c\x02na}(\x8c\x01aK\x01\x8c\x01bK\x02u\x8c\x04name}(\x8c\x01cK\x03\x8c\x01dK\x04uubu.";
    let all = records_of(&deep.save::<Pickle>(native).unwrap());
    let mut checked = 0;
    for (key, _) in all.iter().filter(|r| r.0.ends_with(".name")) {
        let rest: Vec<u8> = all.iter().filter(|r| r.0 != *key).flat_map(|r| r.1.clone()).collect();
        let f = load::<Pickle>(&rest).unwrap_err();
        assert!(f.code == 2 && f.path.contains(".name["), "{key}: {f:?}");
        checked += 1;
    }
    // The same behind another pickle.
    let all = records_of(&deep.save::<Pickle>(&[&b"N."[..], native].concat()).unwrap());
    for (key, _) in all.iter().filter(|r| r.0.ends_with(".name")) {
        let rest: Vec<u8> = all.iter().filter(|r| r.0 != *key).flat_map(|r| r.1.clone()).collect();
        assert_eq!(load::<Pickle>(&rest).unwrap_err().code, 2);
        checked += 1;
    }
    assert_eq!(checked, 2);
}

#[test]
fn a_reference_into_a_record_that_has_changed_is_refused() {
    let pickle = |first: &[u8], get: u8| -> Vec<u8> {
        let head = b"\x80\x04}(\x8c\x01a}(\x8c\x01x](";
        let tail =
            [b'e', b'u', 0x8c, 1, b'b', b'}', b'(', 0x8c, 1, b'y', b'h', get, 0x8c, 1, b'z', b'N', b'u', b'u', b'.'];
        [&head[..], first, &tail[..]].concat()
    };
    // Two dicts in a list; the other record refers to the second of them.
    let one = save::<Pickle>(&pickle(b"}\x8c\x01kK\x01s}\x94\x8c\x01lK\x02s", 0)).unwrap();
    // One more comes before them.
    let two = save::<Pickle>(&pickle(b"}\x8c\x01iK\x00s}\x8c\x01kK\x01s}\x94\x8c\x01lK\x02s", 0)).unwrap();
    let (one, two) = (records_of(&one), records_of(&two));
    let at = one.iter().position(|r| r.0.contains("\"x\"")).unwrap();
    assert!(one[at].0 == two[at].0 && one[at].1 != two[at].1);
    let merged: Vec<u8> =
        one.iter().enumerate().flat_map(|(i, r)| if i == at { two[i].1.clone() } else { r.1.clone() }).collect();
    let f = load::<Pickle>(&merged).unwrap_err();
    assert!(f.code == 2 && f.msg.contains(&one[at].0) && f.path.contains("\"y\""), "{f:?}");
}

#[test]
fn tables_that_can_not_be_meant_are_refused() {
    for map in [
        &b"\xa1\x66rename\xa1\x65a.Old\x63New"[..],        // a class without a module
        b"\xa1\x66rename\xa1\x65a:Old\x63New",             // so, too
        b"\xa1\x66rename\xa1\x65a.Old\x64New.",            // no name
        b"\xa1\x66rename\xa2\x65a.old\x65b.new\x61b\x61c", // b.new is c.new the next time
        b"\xa1\x66rename\xa2\x65a.Old\x65b.New\x65a:Old\x65c.New",
        b"\xa1\x67default\xa2\x67b.New.z\x07\x65b.New\xa1\x61z\x08",
        b"\xa1\x67default\xa1\x65New.z\x07",
        b"\xa2\x64drop\x81\x67b.New.z\x67default\xa1\x67b.New.z\x07",
    ] {
        let f = settings(map).save::<Pickle>(b"N.").map_err(|f| f.code);
        assert!(matches!(f, Err(4)), "{map:x?}: {f:?}");
    }
    // Nested classes by their own names, modules with and without dots.
    let run = settings(b"\xa2\x66rename\xa2\x69a:Out.Old\x69b:Out.New\x61c\x61d\x64drop\x81\x6bb:Out.New.x");
    let native = b"\x80\x04](\x8c\x01a\x8c\x07Out.Old\x93)\x81}(\x8c\x01xK\x01\x8c\x01yK\x02ub\x8c\x01c\x8c\x01C\x93e.";
    let new = run.load::<Pickle>(&save::<Pickle>(native).unwrap()).unwrap();
    let has = |w: &[u8]| new.windows(w.len()).any(|v| v == w);
    assert!(
        has(b"\x8c\x01b\x94\x8c\x07Out.New\x94\x93") && has(b"\x8c\x01d\x94\x8c\x01C\x94\x93") && !has(b"\x8c\x01x"),
        "{new:x?}"
    );
    assert!(run.load::<Pickle>(&run.save::<Pickle>(native).unwrap()).unwrap() == new);
}

#[test]
fn objects_made_by_partial_calls_are_migrated() {
    // functools.partial(cls.__new__, cls, 1, k=2)(), as protocol 2 says what takes keywords.
    let native =
        b"\x80\x02cfunctools\npartial\ncb\ngetnew\n\x85R(cb\ngetnew\ncb\nNew\nK\x01\x86}X\x01\x00\x00\x00kK\x02sNtb)R\
        }(X\x01\x00\x00\x00x]X\x01\x00\x00\x00yK\x03ub.";
    let run = settings(b"\xa2\x64drop\x81\x67b.New.x\x67default\xa1\x67b.New.z\x07");
    let new = run.load::<Pickle>(&save::<Pickle>(native).unwrap()).unwrap();
    assert!(!new.windows(6).any(|w| w == b"X\x01\x00\x00\x00x") && new.windows(2).any(|w| w == b"K\x07"), "{new:x?}");
    let early = run.save::<Pickle>(native).unwrap();
    assert!(run.load::<Pickle>(&early).unwrap() == new && run.save::<Pickle>(&new).unwrap() == early);
}

#[test]
fn long_names_of_globals_are_refused() {
    let name = |n: usize| [&b"cm\n"[..], &b"x".repeat(n), b"\n"].concat();
    assert!(save::<Pickle>(&[&name(4000)[..], b"."].concat()).is_ok());
    assert_eq!(save::<Pickle>(&[&name(4200)[..], b"."].concat()).unwrap_err().code, 5);
    let often = [&b"("[..], &name(4000)[..], b"q\x00", &b"h\x00".repeat(10_000), b"t."].concat();
    assert_eq!(save::<Pickle>(&often).unwrap_err().code, 5);
}

#[test]
fn a_deep_chain_is_dropped_in_time() {
    let run = settings(b"\xa1\x64drop\x81\x67b.New.x");
    let depth = 50_000;
    let mut native = b"\x80\x02".to_vec();
    for _ in 0..depth {
        native.extend_from_slice(b"cb\nNew\n)\x81}(X\x01\x00\x00\x00x]X\x01\x00\x00\x00y");
    }
    native.push(b'N');
    native.extend_from_slice(&b"ub".repeat(depth));
    native.push(b'.');
    let records = run.save::<Pickle>(&native).unwrap();
    assert!(!records.windows(2).any(|w| w == b"ax"));
}
