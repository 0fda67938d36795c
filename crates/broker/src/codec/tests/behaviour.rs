//! What comes out of frames that keep to the protocol.

use super::*;

#[test]
fn the_masked_examples_of_the_rfc_are_understood() {
    // §5.7.
    assert_eq!(
        items(b"\x81\x85\x37\xFA\x21\x3D\x7F\x9F\x4D\x51\x58"),
        [text("Hello")]
    );
    assert_eq!(
        items(b"\x8A\x85\x37\xFA\x21\x3D\x7F\x9F\x4D\x51\x58"),
        [Got::Pong(b"Hello".to_vec())]
    );
}

#[test]
fn the_unmasked_examples_of_the_rfc_are_refused_from_a_client() {
    // §5.7: as a server sends them; §5.1 forbids them to a client.
    for bytes in [
        &b"\x81\x05\x48\x65\x6C\x6C\x6F"[..],
        b"\x01\x03\x48\x65\x6C",
        b"\x89\x05\x48\x65\x6C\x6C\x6F",
        b"\x82\x7E\x01\x00",
        b"\x82\x7F\0\0\0\0\0\x01\0\0",
    ] {
        assert_eq!(
            decode([bytes], ROOMY),
            (vec![], Some(Violation::UnmaskedFrame))
        );
    }
}

#[test]
fn the_fragmented_example_of_the_rfc_is_one_message() {
    // §5.7, with the key 00 00 00 00 that masking allows.
    let bytes = b"\x01\x83\0\0\0\0\x48\x65\x6C\x80\x82\0\0\0\0\x6C\x6F";
    assert_eq!(items(bytes), [text("Hello")]);
}

#[test]
fn payloads_around_every_change_of_the_length_field_come_through() {
    for len in [
        0, 1, 7, 8, 9, 124, 125, 126, 127, 65534, 65535, 65536, 65537,
    ] {
        let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let frame = last(Opcode::Binary, &payload);
        assert_eq!(items(&frame), [Got::Binary(payload)], "{len}");
    }
}

#[test]
fn several_frames_in_one_read_come_out_in_order() {
    let bytes = [
        last(Opcode::Text, b"one"),
        last(Opcode::Ping, b"two"),
        last(Opcode::Binary, b""),
        last(Opcode::Text, "drei: ü".as_bytes()),
        last(Opcode::Pong, b""),
    ]
    .concat();
    let expected = [
        text("one"),
        Got::Ping(b"two".to_vec()),
        Got::Binary(vec![]),
        text("drei: ü"),
        Got::Pong(vec![]),
    ];
    assert_eq!(items(&bytes), expected);
}

#[test]
fn control_frames_between_fragments_come_out_before_their_message() {
    // §5.4; the fragments cut the two bytes of ü.
    let bytes = [
        more(Opcode::Text, b"f\xC3"),
        last(Opcode::Ping, b"are you there?"),
        more(Opcode::Continuation, b"\xBC"),
        last(Opcode::Pong, b""),
        last(Opcode::Continuation, b"r"),
        last(Opcode::Text, b"next"),
    ]
    .concat();
    let expected = [
        Got::Ping(b"are you there?".to_vec()),
        Got::Pong(vec![]),
        text("für"),
        text("next"),
    ];
    assert_eq!(items(&bytes), expected);
}

#[test]
fn a_message_may_have_empty_fragments_anywhere() {
    let fragments: [&[&[u8]]; 4] = [
        &[b"", b""],
        &[b"", b"ab", b""],
        &[b"ab", b"", b""],
        &[b"", b"", b"", b"ab"],
    ];
    for pieces in fragments {
        for opcode in [Opcode::Text, Opcode::Binary] {
            let mut bytes = more(opcode, pieces[0]);
            for piece in &pieces[1..pieces.len() - 1] {
                bytes.extend(more(Opcode::Continuation, piece));
            }
            bytes.extend(last(Opcode::Continuation, pieces[pieces.len() - 1]));
            let whole = pieces.concat();
            let expected = match opcode {
                Opcode::Text => text(std::str::from_utf8(&whole).expect("ASCII")),
                _ => Got::Binary(whole),
            };
            assert_eq!(items(&bytes), [expected], "{opcode:?} {pieces:?}");
        }
    }
}

#[test]
fn a_close_frame_brings_its_code_and_reason() {
    for (payload, code, reason) in [
        (&b""[..], None, ""),
        (b"\x03\xE8", Some(1000), ""),
        (b"\x03\xE9bye", Some(1001), "bye"),
        (b"\x0B\xB8", Some(3000), ""),
        (b"\x13\x87\xE2\x82\xAC", Some(4999), "€"),
    ] {
        let expected = Got::Close(code, reason.to_owned());
        assert_eq!(items(&last(Opcode::Close, payload)), [expected]);
    }
}

#[test]
fn nothing_is_decoded_after_a_close() {
    // §5.5.1, whatever it is and whichever read it comes in.
    let mut client = Client::default();
    let close = last(Opcode::Close, b"\x03\xE8");
    let bytes = [last(Opcode::Text, b"a"), close, last(Opcode::Text, b"b")].concat();
    assert_eq!(client.read(&bytes, ROOMY), Ok(()));
    assert_eq!(client.read(b"\xFF\xFF", ROOMY), Ok(()));
    assert_eq!(
        client.items,
        [text("a"), Got::Close(Some(1000), String::new())]
    );
    assert_eq!(client.held(), 0);
}

#[test]
fn a_close_inside_a_message_drops_the_message() {
    let mut client = Client::default();
    let bytes = [more(Opcode::Text, b"begun"), last(Opcode::Close, b"")].concat();
    assert_eq!(client.read(&bytes, ROOMY), Ok(()));
    assert_eq!(client.items, [Got::Close(None, String::new())]);
    assert_eq!(client.held(), 0);
}

#[test]
fn nothing_is_decoded_after_the_sink_has_enough() {
    let mut decoder = Decoder::new();
    let mut seen = 0;
    let mut bytes = last(Opcode::Text, b"a").repeat(3);
    for _ in 0..2 {
        let result = decoder.decode(&mut bytes.clone(), ROOMY, None, |_| {
            seen += 1;
            ControlFlow::Break(())
        });
        assert_eq!(result, Ok(()));
    }
    bytes.truncate(1);
    assert_eq!(
        decoder.decode(&mut bytes, ROOMY, None, |_| unreachable!()),
        Ok(())
    );
    assert_eq!(seen, 1);
    assert_eq!(decoder.held_bytes(), 0);
}

#[test]
fn a_sink_may_be_a_trait_object() {
    let mut count = 0;
    let sink: &mut dyn FnMut(Item<'_>) -> ControlFlow<()> = &mut |_| {
        count += 1;
        ControlFlow::Continue(())
    };
    let mut bytes = last(Opcode::Text, b"a").repeat(3);
    assert_eq!(Decoder::new().decode(&mut bytes, ROOMY, None, sink), Ok(()));
    assert_eq!(count, 3);
}

#[test]
fn ascii_is_told_however_the_text_arrived() {
    for (message, ascii) in [
        ("0123456789".repeat(60), true),
        ("é".repeat(300), false),
        ("a".repeat(299) + "é", false),
    ] {
        let middle = message.len() / 2;
        let whole = last(Opcode::Text, message.as_bytes());
        let fragments = [
            more(Opcode::Text, &message.as_bytes()[..middle]),
            last(Opcode::Continuation, &message.as_bytes()[middle..]),
        ]
        .concat();
        let expected = [Got::Text(message, ascii)];
        assert_eq!(items(&whole), expected);
        assert_eq!(items(&fragments), expected);
        let (split, violation) = decode(whole.chunks(100), ROOMY);
        assert_eq!((&split[..], violation), (&expected[..], None));
    }
}
