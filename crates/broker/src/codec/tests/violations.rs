//! What breaks the protocol, and when that shows.

use super::*;

/// The shortest bytes that show each violation: with their last byte, and not before.
fn breaches() -> Vec<(Vec<u8>, Violation)> {
    use Opcode::*;
    let header = |bytes: &[u8]| [bytes, &KEY].concat();
    let after_fragment = |frame: Vec<u8>| [more(Text, b"begun"), frame].concat();
    let mut overlong_in_unfinished_frame = last(Text, b"ok\xC0 and much more");
    overlong_in_unfinished_frame.truncate(6 + 3);
    vec![
        (vec![0x81, 0x00], Violation::UnmaskedFrame),
        (vec![0x81, 0x7F], Violation::UnmaskedFrame),
        (vec![0x88, 0x02], Violation::UnmaskedFrame),
        (vec![0xC1], Violation::ReservedBit),
        (vec![0xA1], Violation::ReservedBit),
        (vec![0x91], Violation::ReservedBit),
        (vec![0xC9], Violation::ReservedBit),
        (after_fragment(vec![0x40]), Violation::ReservedBit),
        (vec![0x83], Violation::ReservedOpcode),
        (vec![0x07], Violation::ReservedOpcode),
        (vec![0x8B], Violation::ReservedOpcode),
        (vec![0x0F], Violation::ReservedOpcode),
        (vec![0x08], Violation::FragmentedControl),
        (vec![0x09], Violation::FragmentedControl),
        (vec![0x0A], Violation::FragmentedControl),
        (vec![0x88, 0xFE], Violation::OversizedControl),
        (vec![0x89, 0xFE], Violation::OversizedControl),
        (vec![0x8A, 0xFF], Violation::OversizedControl),
        (vec![0x82, 0xFE, 0, 125], Violation::NonMinimalLength),
        (vec![0x82, 0xFE, 0, 0], Violation::NonMinimalLength),
        (
            vec![0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF],
            Violation::NonMinimalLength,
        ),
        (
            vec![0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0],
            Violation::LengthTooLarge,
        ),
        (
            vec![0x82, 0xFF, 255, 255, 255, 255, 255, 255, 255, 255],
            Violation::LengthTooLarge,
        ),
        (header(&[0x80, 0x80]), Violation::UnexpectedContinuation),
        (header(&[0x00, 0x85]), Violation::UnexpectedContinuation),
        (
            [last(Text, b"whole"), header(&[0x80, 0x80])].concat(),
            Violation::UnexpectedContinuation,
        ),
        (
            after_fragment(header(&[0x81, 0x80])),
            Violation::ExpectedContinuation,
        ),
        (
            after_fragment(header(&[0x02, 0x85])),
            Violation::ExpectedContinuation,
        ),
        (last(Text, b"\xFF"), Violation::InvalidUtf8),
        (
            last(Text, "é".as_bytes()[..1].as_ref()),
            Violation::InvalidUtf8,
        ),
        (
            after_fragment(last(Continuation, b"\xE2\x82")),
            Violation::InvalidUtf8,
        ),
        (overlong_in_unfinished_frame, Violation::InvalidUtf8),
        // A surrogate whose first byte came in an earlier fragment.
        (
            [more(Text, b"\xED"), more(Continuation, b"\xA0")].concat(),
            Violation::InvalidUtf8,
        ),
        (last(Close, b"\x03"), Violation::InvalidCloseLength),
        (last(Close, b"\x03\xE7"), Violation::InvalidCloseCode),
        (last(Close, b"\x03\xEC"), Violation::InvalidCloseCode),
        (last(Close, b"\x03\xED"), Violation::InvalidCloseCode),
        (last(Close, b"\x03\xEE"), Violation::InvalidCloseCode),
        (last(Close, b"\x03\xF7"), Violation::InvalidCloseCode),
        (last(Close, b"\x0B\xB7"), Violation::InvalidCloseCode),
        (last(Close, b"\x13\x88"), Violation::InvalidCloseCode),
        (last(Close, b"\x03\xE8\xFF"), Violation::InvalidCloseReason),
        (
            header(&[0x82, 0xFF, 0, 0, 0, 0, 0, 0x10, 0, 1]),
            Violation::MessageTooBig,
        ),
        (
            header(&[0x01, 0xFF, 0x7F, 255, 255, 255, 255, 255, 255, 255]),
            Violation::MessageTooBig,
        ),
        (
            after_fragment(header(&[0x00, 0xFF, 0, 0, 0, 0, 0, 0x0F, 0xFF, 0xFC])),
            Violation::MessageTooBig,
        ),
    ]
}

#[test]
fn every_violation_shows_with_its_first_wrong_byte_and_not_before() {
    let breaches = breaches();
    for (bytes, violation) in &breaches {
        let (before, end) = bytes.split_at(bytes.len() - 1);
        assert_eq!(
            decode([before], ROOMY).1,
            None,
            "{violation:?} too early in {bytes:x?}"
        );
        assert_eq!(
            decode([&bytes[..]], ROOMY).1,
            Some(*violation),
            "{bytes:x?}"
        );
        assert_eq!(
            decode([before, end], ROOMY).1,
            Some(*violation),
            "{bytes:x?}, the last byte alone"
        );
    }
    for violation in Violation::ALL {
        if *violation == Violation::InvalidDeflate {
            continue; // only of a connection that has agreed on compression, see `compressed`
        }
        assert!(
            breaches.iter().any(|(_, v)| v == violation),
            "{violation:?} has no case"
        );
    }
}

#[test]
fn items_before_a_violation_are_given_and_nothing_after_it() {
    for (bytes, violation) in breaches() {
        let mut client = Client::default();
        let bytes = [last(Opcode::Ping, b"before"), bytes].concat();
        assert_eq!(client.read(&bytes, ROOMY), Err(violation));
        assert_eq!(client.items[0], Got::Ping(b"before".to_vec()));
        let given = client.items.len();
        let after = last(Opcode::Text, b"after");
        assert_eq!(client.read(&after, ROOMY), Err(violation), "the same again");
        assert_eq!(client.read(&[], ROOMY), Err(violation), "even for nothing");
        assert_eq!(client.items.len(), given);
        assert_eq!(client.held(), 0, "{violation:?} keeps nothing");
    }
}
