//! Both ends of a connection with permessage-deflate: this server's, and a peer's that deflates as others do.

use super::random::Random;
use super::*;
use crate::codec::{Contexts, Direction, Inflater, Inflation, PerMessageDeflate};
use zlib_rs::{Deflate, DeflateConfig, DeflateFlush};

pub(super) fn agreed(window_bits: u8, takeover: bool) -> PerMessageDeflate {
    PerMessageDeflate {
        server: Direction::new(window_bits, takeover),
        client: Direction::new(window_bits, takeover),
    }
}

pub(super) fn takeover() -> PerMessageDeflate {
    agreed(15, true)
}

pub(super) fn no_takeover() -> PerMessageDeflate {
    agreed(15, false)
}

/// A server's end of a connection with permessage-deflate, and what came out of it.
pub(super) struct Server {
    pub(super) decoder: Decoder,
    pub(super) inflater: Inflater,
    pub(super) contexts: Contexts,
    pub(super) deflate: PerMessageDeflate,
    pub(super) discard: bool,
    pub(super) items: Vec<Got>,
}

impl Server {
    pub(super) fn new(deflate: PerMessageDeflate) -> Self {
        Self {
            decoder: Decoder::new(),
            inflater: Inflater::new(),
            contexts: Contexts::default(),
            deflate,
            discard: false,
            items: Vec::new(),
        }
    }

    pub(super) fn read(&mut self, bytes: &[u8], max_message: usize) -> Result<(), Violation> {
        let Self {
            decoder,
            inflater,
            contexts,
            deflate,
            discard,
            items,
        } = self;
        let inflation = Inflation {
            inflater,
            deflate: *deflate,
            contexts,
            discard: *discard,
            at_once: usize::MAX,
            postponed: &mut None,
        };
        let mut bytes = bytes.to_vec();
        decoder.decode(&mut bytes, max_message, Some(inflation), |item| {
            items.push(item.into());
            ControlFlow::Continue(())
        })
    }
}

/// The first frame of a compressed message.
pub(super) fn compressed(opcode: Opcode, fin: bool, payload: &[u8]) -> Vec<u8> {
    let mut frame = encode_masked(opcode, fin, KEY, payload);
    frame[0] |= 0x40;
    frame
}

/// What comes of one frame with this compressed payload.
pub(super) fn inflated(payload: &[u8]) -> Result<Vec<Got>, Violation> {
    let mut server = Server::new(takeover());
    server.read(&compressed(Opcode::Text, true, payload), ROOMY)?;
    Ok(server.items)
}

/// DEFLATE that goes on over messages, as other implementations do it: one stream that is flushed.
pub(super) struct Peer(pub(super) Deflate);

impl Peer {
    pub(super) fn new(level: i32, window_bits: i32, mem_level: i32) -> Self {
        Self(Deflate::new_with_config(DeflateConfig {
            level,
            window_bits: -window_bits,
            mem_level,
            ..DeflateConfig::default()
        }))
    }

    pub(super) fn run(&mut self, payload: &[u8], flush: DeflateFlush) -> Vec<u8> {
        let mut out = vec![0; payload.len() * 2 + 1024];
        let before = self.0.total_out();
        self.0.compress(payload, &mut out, flush).expect("deflated");
        out.truncate((self.0.total_out() - before) as usize);
        out
    }

    pub(super) fn message(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut out = self.run(payload, DeflateFlush::SyncFlush);
        if out.is_empty() {
            return vec![0]; // §7.2.3.6: a second flush without anything between
        }
        assert_eq!(out.split_off(out.len() - 4), [0, 0, 0xFF, 0xFF]);
        out
    }
}

/// JSON in several flavours, repetitions, noise: what compresses well, and what does not.
pub(super) fn random_message(random: &mut Random) -> Vec<u8> {
    let size = random.pick(&[0, 1, 5, 100, 300, 1000, 4000, 20_000, 70_000]);
    let size = size + random.below(10);
    let mut message = Vec::new();
    let noise = random.bytes(64);
    while message.len() < size {
        match random.below(4) {
            0 => message.extend_from_slice(&noise[..random.below(64)]),
            1 => message.extend_from_slice(b"{\"user\":\"alice\",\"text\":\"hello\"},"),
            2 => message.extend_from_slice(&random.next().to_le_bytes()),
            _ => {
                let from = random.below(message.len() + 1);
                let piece = message[from..].to_vec();
                message.extend_from_slice(&piece[..piece.len().min(500)]);
            }
        }
    }
    message.truncate(size);
    message
}
