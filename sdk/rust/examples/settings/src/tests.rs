//! Runs on the machine itself: cargo test.

use super::Lines;
use torpor::testing::{load, round_trip, save};

const FIXTURES: [&[u8]; 4] = [
    include_bytes!("../fixtures/empty.txt"),
    include_bytes!("../fixtures/small.txt"),
    include_bytes!("../fixtures/unicode.txt"),
    include_bytes!("../fixtures/long.txt"),
];

#[test]
fn keeps_fixtures() {
    for native in FIXTURES {
        round_trip::<Lines>(native);
    }
    round_trip::<Lines>(b"=a name may be empty\na==\nb=\n");
}

#[test]
fn writes_a_record_a_line() {
    assert_eq!(save::<Lines>(b"a=1\nb=\n").unwrap(), b"\x83\x60\x61a\x611\x83\x60\x61b\x60");
}

/// Cut anywhere but behind a line, a state is refused, and the last line named.
#[test]
fn refuses_what_is_cut() {
    for native in FIXTURES {
        let mut line = 0;
        for cut in 1..native.len().min(1000) {
            if native[cut - 1] == b'\n' {
                line = cut;
                continue;
            }
            let e = save::<Lines>(&native[..cut]).unwrap_err();
            assert_eq!((e.code, e.offset), (2, Some(line as u64)), "cut at {cut}: {e:?}");
        }
    }
}

#[test]
fn refuses_other_lines() {
    for native in ["a=1\nno line\n", "b=11\na=2\n", "a=11\na=2\n", "a=1\n\n", "a=1\nb=2"] {
        let e = save::<Lines>(native.as_bytes()).unwrap_err();
        assert_eq!((e.code, e.offset), (2, native.find('\n').map(|n| n as u64 + 1)), "{native:?}: {e:?}");
    }
    assert_eq!(save::<Lines>(b"a=\xff\n").unwrap_err().code, 2);
    let long = save::<Lines>(("a=\n".to_owned() + &"n".repeat(65_537) + "=\n").as_bytes()).unwrap_err();
    assert_eq!((long.code, long.offset), (5, Some(3)));
}

#[test]
fn refuses_other_records() {
    let number = load::<Lines>(b"\x83\x60\x61a\x611\x83\x60\x61b\x01").unwrap_err();
    assert_eq!((number.code, number.offset), (2, Some(6)));
    let key_of_bytes = load::<Lines>(b"\x83\x60\x41a\x611").unwrap_err();
    assert_eq!((key_of_bytes.code, key_of_bytes.offset), (2, Some(0)));
    let out_of_order: [&[u8]; 3] = [
        b"\x83\x60\x61b\x60\x83\x60\x61a\x60",
        b"\x83\x60\x61a\x60\x83\x60\x61a\x60",
        b"\x83\x60\x61a\x60\x83\x60\x60\x60",
    ];
    for records in out_of_order {
        let e = load::<Lines>(records).unwrap_err();
        assert_eq!((e.code, e.offset), (2, Some(5)), "{records:x?}: {e:?}");
    }
}
