//! Limits, and what a peer can make the decoder hold.

use super::*;

/// More than the decoder's own state on the heap, less than anything a peer declares here.
const SMALL: usize = 256;

#[test]
fn a_message_of_exactly_the_limit_is_taken() {
    let payload = vec![7; 1000];
    let fragments = [
        more(Opcode::Binary, &payload[..400]),
        more(Opcode::Continuation, &payload[400..]),
        last(Opcode::Continuation, b""),
    ]
    .concat();
    for bytes in [last(Opcode::Binary, &payload), fragments] {
        let expected = vec![Got::Binary(payload.clone())];
        assert_eq!(decode([&bytes[..]], 1000), (expected.clone(), None));
        assert_eq!(decode(bytes.chunks(7), 1000), (expected, None));
        assert_eq!(decode([&bytes[..]], 999).1, Some(Violation::MessageTooBig));
    }
}

#[test]
fn control_frames_do_not_count_against_the_limit() {
    let ping = last(Opcode::Ping, &[1; 125]);
    let bytes = [
        more(Opcode::Binary, b"ab"),
        ping,
        last(Opcode::Continuation, b""),
    ]
    .concat();
    let expected = vec![Got::Ping(vec![1; 125]), Got::Binary(b"ab".to_vec())];
    assert_eq!(decode([&bytes[..]], 2), (expected, None));
}

#[test]
fn a_limit_of_zero_takes_empty_messages_only() {
    assert_eq!(
        decode([&last(Opcode::Text, b"")[..]], 0),
        (vec![text("")], None)
    );
    assert_eq!(
        decode([&last(Opcode::Text, b"a")[..]], 0).1,
        Some(Violation::MessageTooBig)
    );
}

#[test]
fn a_declared_length_takes_no_memory() {
    // One byte over the limit, the limit, and a first fragment of the limit.
    let limit = 1 << 30;
    let header = |first, len: u64| [&[first, 0xFF][..], &len.to_be_bytes(), &KEY].concat();
    let mut client = Client::default();
    assert_eq!(
        client.read(&header(0x82, limit + 1), limit as usize),
        Err(Violation::MessageTooBig)
    );
    assert_eq!(client.held(), 0);
    for first in [0x82, 0x02, 0x81, 0x01] {
        let mut client = Client::default();
        assert_eq!(client.read(&header(first, limit), limit as usize), Ok(()));
        assert!(client.held() < SMALL, "{} bytes held", client.held());
        // So short a one that memory would be taken ahead.
        let mut another = Client::default();
        assert_eq!(
            another.read(&header(first, 1 << 20), limit as usize),
            Ok(())
        );
        assert!(another.held() < SMALL, "{} bytes held", another.held());
        assert_eq!(client.read(&KEY, limit as usize), Ok(()));
        assert!(client.held() < SMALL, "{} bytes held", client.held());
    }
}

/// Reads a text of `length` bytes in a thousand pieces; what is held after each.
fn held_while_arriving(length: usize) -> impl Iterator<Item = (usize, usize)> {
    let frame = last(Opcode::Text, &vec![b'x'; length]);
    let step = length / 1000;
    let mut client = Client::default();
    let mut held = Vec::new();
    for (n, read) in frame.chunks(step).enumerate() {
        assert_eq!(client.read(read, 2 * length), Ok(()));
        held.push(((n + 1) * step, client.held()));
    }
    assert_eq!(client.held(), 0);
    assert_eq!(client.items, [Got::Text("x".repeat(length), true)]);
    let mut sizes: Vec<_> = held.iter().map(|(_, held)| held).collect();
    sizes.dedup();
    assert!(
        sizes.len() < 25,
        "grew {} times: not geometric",
        sizes.len()
    );
    held.into_iter()
}

#[test]
fn memory_follows_what_arrived_and_is_given_back_with_the_message() {
    const TOO_LARGE_TO_BE_TAKEN_AHEAD: usize = 8_000_000;
    for (arrived, held) in held_while_arriving(TOO_LARGE_TO_BE_TAKEN_AHEAD) {
        assert!(held <= SMALL + 2 * arrived, "{held} held of {arrived}");
        assert!(held <= SMALL + TOO_LARGE_TO_BE_TAKEN_AHEAD, "{held} held");
    }
}

#[test]
fn no_more_memory_is_taken_ahead_than_is_announced() {
    const LENGTH: usize = 1_000_000;
    let held: Vec<_> = held_while_arriving(LENGTH).collect();
    for (arrived, held) in &held {
        assert!(*held <= SMALL + LENGTH / 4 * 5, "{held} held of {arrived}");
    }
    let (_, first) = held[0];
    assert!(
        held[..999].iter().all(|(_, held)| *held == first),
        "it was moved"
    );
}

#[test]
fn a_message_of_a_hundred_thousand_fragments_grows_a_few_times_only() {
    const FRAGMENTS: usize = 100_000;
    let mut client = Client::default();
    let mut sizes = Vec::new();
    for n in 0..FRAGMENTS {
        let opcode = if n == 0 {
            Opcode::Text
        } else {
            Opcode::Continuation
        };
        assert_eq!(client.read(&more(opcode, b"x"), ROOMY), Ok(()));
        assert!(client.held() <= SMALL + 2 * (n + 1));
        if sizes.last() != Some(&client.held()) {
            sizes.push(client.held());
        }
    }
    assert!(
        sizes.len() < 25,
        "grew {} times: not geometric",
        sizes.len()
    );
    assert_eq!(client.read(&last(Opcode::Continuation, b""), ROOMY), Ok(()));
    assert_eq!(client.items, [Got::Text("x".repeat(FRAGMENTS), true)]);
    assert_eq!(client.held(), 0);
}

#[test]
fn empty_fragments_without_end_take_no_memory() {
    let mut client = Client::default();
    assert_eq!(client.read(&more(Opcode::Text, b""), ROOMY), Ok(()));
    let held = client.held();
    assert!(held < SMALL);
    let many = more(Opcode::Continuation, b"").repeat(1000);
    for _ in 0..100 {
        assert_eq!(client.read(&many, ROOMY), Ok(()));
        assert_eq!(client.held(), held);
    }
}

#[test]
fn whole_frames_are_neither_copied_nor_held() {
    let mut bytes = [
        last(Opcode::Text, b"text"),
        last(Opcode::Binary, &[1; 70_000]),
        last(Opcode::Ping, b"ping"),
        last(Opcode::Pong, b"pong"),
        last(Opcode::Close, b"\x03\xE8bye"),
    ]
    .concat();
    let mut decoder = Decoder::new();
    let buffer = bytes.as_ptr_range();
    let mut borrowed = 0;
    let result = decoder.decode(&mut bytes, ROOMY, None, |item| {
        let payload = match &item {
            Item::Text { bytes, .. } => &**bytes,
            Item::Binary(bytes) | Item::Ping(bytes) | Item::Pong(bytes) => bytes,
            Item::Close { reason, .. } => reason.as_bytes(),
        };
        assert!(buffer.contains(&payload.as_ptr()), "{item:?} was copied");
        borrowed += 1;
        ControlFlow::Continue(())
    });
    assert_eq!((result, borrowed), (Ok(()), 5));
    assert_eq!(decoder.held_bytes(), 0);
}

#[test]
fn nothing_is_held_between_messages_and_something_inside_one() {
    let bytes = [
        more(Opcode::Text, b"ab"),
        last(Opcode::Ping, b"p"),
        last(Opcode::Continuation, b"c"),
    ]
    .concat();
    let mut client = Client::default();
    for (n, byte) in bytes.iter().enumerate() {
        assert_eq!(
            client.held(),
            0,
            "only before the first byte and after the last"
        );
        for part in &bytes[..n] {
            assert_eq!(client.read(&[*part], ROOMY), Ok(()));
            assert!(client.held() > 0);
        }
        assert_eq!(client.read(&bytes[n..], ROOMY), Ok(()), "from {byte:x} on");
    }
    assert_eq!(client.held(), 0);
    assert_eq!(client.items.len(), 2 * bytes.len());
}
