//! Messages that are inflated piece by piece: they become what they become at once.

use super::deflating::{Peer, Server, compressed, no_takeover, takeover};
use super::random::Random;
use super::*;
use crate::codec::{Inflater, Inflation, LargeMessage, PerMessageDeflate};
use zlib_rs::DeflateFlush;

/// What a server with this agreement makes of `frames`, if it inflates nothing at once and each message `piece` bytes at
/// a time.
fn in_pieces(
    deflate: PerMessageDeflate,
    mut frames: Vec<u8>,
    max: usize,
    piece: usize,
) -> (Vec<Got>, Result<(), Violation>) {
    let mut server = Server::new(deflate);
    let mut input = frames.as_mut_slice();
    loop {
        let mut postponed = None;
        let inflation = Inflation {
            inflater: &mut Inflater::new(),
            deflate,
            contexts: &mut server.contexts,
            discard: false,
            at_once: 0,
            postponed: &mut postponed,
        };
        let items = &mut server.items;
        let result = server.decoder.decode(input, max, Some(inflation), |item| {
            items.push(item.into());
            ControlFlow::Continue(())
        });
        let (Ok(()), Some(message)) = (result, postponed) else {
            return (server.items, result);
        };
        let taken = input.len() - message.rest();
        input = &mut input[taken..];
        match inflate(&mut server, LargeMessage::new(message), max, piece) {
            Ok(item) => server.items.push(item),
            Err(violation) => return (server.items, Err(violation)),
        }
    }
}

fn inflate(
    server: &mut Server,
    mut message: LargeMessage,
    max: usize,
    piece: usize,
) -> Result<Got, Violation> {
    let mut inflation = Inflation {
        inflater: &mut server.inflater,
        deflate: server.deflate,
        contexts: &mut server.contexts,
        discard: false,
        at_once: 0,
        postponed: &mut None,
    };
    loop {
        if let Some(item) = message.advance(&mut inflation, max, piece)? {
            return Ok(item.into());
        }
    }
}

fn at_once(
    deflate: PerMessageDeflate,
    frames: &[u8],
    max: usize,
) -> (Vec<Got>, Result<(), Violation>) {
    let mut server = Server::new(deflate);
    let result = server.read(frames, max);
    (server.items, result)
}

#[track_caller]
fn agree(deflate: PerMessageDeflate, frames: &[u8], max: usize) {
    let expected = at_once(deflate, frames, max);
    for piece in [1, 2, 7, 64, 1000, usize::MAX] {
        let got = in_pieces(deflate, frames.to_vec(), max, piece);
        assert!(
            got == expected,
            "{piece} bytes at a time: {got:?}\nat once: {expected:?}"
        );
    }
}

#[test]
fn messages_between_others() {
    let mut random = Random(1);
    let mut peer = Peer::new(6, 15, 8);
    let mut frames = last(Opcode::Text, b"plain");
    for size in [0, 1, 100, 5000, 70_000] {
        let message: Vec<u8> = (0..size).map(|_| b'a' + random.below(4) as u8).collect();
        let mut payload = peer.run(&message, DeflateFlush::SyncFlush);
        payload.truncate(payload.len() - 4);
        frames.extend(compressed(Opcode::Text, true, &payload));
        frames.extend(last(Opcode::Ping, b"between"));
    }
    frames.extend(last(Opcode::Binary, b"the end"));
    agree(takeover(), &frames, ROOMY);
    assert_eq!(at_once(takeover(), &frames, ROOMY).0.len(), 12);
    agree(takeover(), &frames, 4999);
    agree(takeover(), &frames, 69_999);
}

#[test]
fn streams_that_end_within_a_message() {
    let stream = |text: &str| Peer::new(6, 15, 8).run(text.as_bytes(), DeflateFlush::Finish);
    for payload in [
        stream("one"),
        [stream("one"), stream("two")].concat(),
        [stream("one"), vec![0]].concat(),
        [[3, 0].repeat(16), stream("after 16")].concat(),
        [3, 0].repeat(17),
        [3, 0].repeat(40),
    ] {
        agree(
            no_takeover(),
            &compressed(Opcode::Text, true, &payload),
            ROOMY,
        );
    }
}

#[test]
fn what_is_no_message() {
    let mut random = Random(1);
    for _ in 0..200 {
        let garbage: Vec<u8> = (0..random.below(50))
            .map(|_| random.below(256) as u8)
            .collect();
        agree(
            no_takeover(),
            &compressed(Opcode::Binary, true, &garbage),
            ROOMY,
        );
    }
    // Bad UTF-8; a message that is cut; a bomb.
    let deflated = |bytes: &[u8]| Peer::new(6, 15, 8).run(bytes, DeflateFlush::SyncFlush);
    let bad = deflated(&[0xFF; 3]);
    agree(
        no_takeover(),
        &compressed(Opcode::Text, true, &bad[..bad.len() - 4]),
        ROOMY,
    );
    let good = deflated(&[7; 3000]);
    for cut in 1..good.len() {
        agree(
            no_takeover(),
            &compressed(Opcode::Binary, true, &good[..cut]),
            ROOMY,
        );
    }
    let bomb = deflated(&vec![0; 1 << 20]);
    agree(
        no_takeover(),
        &compressed(Opcode::Binary, true, &bomb[..bomb.len() - 4]),
        10_000,
    );
}
