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
