//! The decoder: however a client's bytes are cut into reads, the same comes out.

use std::ops::ControlFlow;

use super::Choices;
use crate::codec::{
    Contexts, Decoder, Direction, Inflater, Inflation, Item, MAX_CONTROL_PAYLOAD,
    PerMessageDeflate, Violation, is_valid_from_peer,
};

const LIMITS: [usize; 8] = [0, 1, 10, 125, 126, 300, 65_536, 1 << 20];

/// Beside the message under way a decoder holds its own state, a cut header and a control frame's payload.
const HELD_BESIDE: usize = 512;

/// An item that outlives the read buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Got {
    Text(Vec<u8>, bool),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

/// The first byte chooses the limit for messages and whether they may be compressed, the next two how long the reads are;
/// the rest is what the client sends.
pub fn codec_splits(data: &[u8]) {
    let mut choices = Choices(data);
    let rules = Rules::choose(&mut choices);
    let (first, second) = (choices.byte(), choices.byte());
    check_splits(choices.0, rules, first, second);
}

/// What was agreed on with a client.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    pub(super) limit: usize,
    pub(super) deflate: Option<PerMessageDeflate>,
}

impl Rules {
    pub(super) fn choose(choices: &mut Choices<'_>) -> Self {
        let byte = choices.byte();
        let direction = |takeover| Direction::new(9 + (byte >> 4) % 7, takeover);
        Self {
            limit: LIMITS[usize::from(byte) % LIMITS.len()],
            deflate: (byte & 8 != 0).then(|| PerMessageDeflate {
                server: direction(byte & 0x80 == 0),
                client: direction(byte & 0x80 == 0),
            }),
        }
    }

    /// The most that is kept of an unfinished message.
    fn most_held(self) -> usize {
        // Compressed it may be longer than what it inflates to, by less than this.
        let compressed = self.deflate.map_or(0, |_| self.limit / 8 + 64);
        // Memory comes in sizes.
        (self.limit + compressed) / 4 * 5 + HELD_BESIDE
    }
}

/// Reads `stream` at once and in several kinds of pieces, and gives what came out.
pub(super) fn check_splits(
    stream: &[u8],
    rules: Rules,
    first: u8,
    second: u8,
) -> (Vec<Got>, Option<Violation>) {
    let whole = decode([stream], rules);
    let cut = stream.len().min(usize::from(first));
    let splits: [(&str, Vec<&[u8]>); 4] = [
        ("byte by byte", stream.chunks(1).collect()),
        ("in two", vec![&stream[..cut], &stream[cut..]]),
        (
            "in chunks",
            stream.chunks(usize::from(second) + 1).collect(),
        ),
        ("in uneven reads", uneven(stream, first, second)),
    ];
    for (how, reads) in splits {
        let split = decode(reads, rules);
        assert!(split == whole, "{how}: {split:?}\nwhole: {whole:?}");
    }
    whole
}

/// Reads of two lengths in turn, with an empty one now and then.
fn uneven(mut stream: &[u8], first: u8, second: u8) -> Vec<&[u8]> {
    let lengths = [usize::from(first), usize::from(second) % 17 + 1, 0];
    let mut reads = Vec::new();
    for length in lengths.into_iter().cycle() {
        let (read, rest) = stream.split_at(length.min(stream.len()));
        reads.push(read);
        stream = rest;
        if stream.is_empty() {
            return reads;
        }
    }
    reads
}

fn decode<'a>(
    reads: impl IntoIterator<Item = &'a [u8]>,
    rules: Rules,
) -> (Vec<Got>, Option<Violation>) {
    let mut decoder = Decoder::new();
    let mut inflater = rules.deflate.map(|_| Inflater::new());
    let mut contexts = Contexts::default();
    let mut items = Vec::new();
    let mut failed = None;
    for read in reads {
        let before = items.len();
        let mut postponed = None; // everything is inflated at once
        let inflation = rules.deflate.zip(inflater.as_mut());
        let inflation = inflation.map(|(deflate, inflater)| Inflation {
            inflater,
            deflate,
            contexts: &mut contexts,
            discard: false,
            at_once: usize::MAX,
            postponed: &mut postponed,
        });
        let result = decoder.decode(&mut read.to_vec(), rules.limit, inflation, |item| {
            items.push(keep(item, rules.limit));
            ControlFlow::Continue(())
        });
        assert!(decoder.held_bytes() <= rules.most_held());
        let window = rules.deflate.map_or(0, |deflate| deflate.client.window());
        assert!(contexts.held_bytes() <= window + HELD_BESIDE);
        if failed.is_some() {
            assert_eq!(result.err(), failed, "a violation is final");
            assert_eq!(items.len(), before, "nothing comes after a violation");
        }
        failed = result.err();
    }
    let closes = items.iter().position(|item| matches!(item, Got::Close(..)));
    assert!(
        closes.is_none_or(|at| at + 1 == items.len()),
        "a close is last"
    );
    (items, failed)
}

/// The item, which keeps what the decoder promises of any.
fn keep(item: Item<'_>, limit: usize) -> Got {
    match item {
        Item::Text { bytes, ascii } => {
            assert!(bytes.len() <= limit);
            assert!(std::str::from_utf8(&bytes).is_ok());
            assert_eq!(bytes.is_ascii(), ascii);
            Got::Text(bytes.to_vec(), ascii)
        }
        Item::Binary(bytes) => {
            assert!(bytes.len() <= limit);
            Got::Binary(bytes.to_vec())
        }
        Item::Ping(bytes) | Item::Pong(bytes) => {
            assert!(bytes.len() <= MAX_CONTROL_PAYLOAD);
            match item {
                Item::Ping(_) => Got::Ping(bytes.to_vec()),
                _ => Got::Pong(bytes.to_vec()),
            }
        }
        Item::Close { code, reason } => {
            assert!(code.is_none_or(is_valid_from_peer));
            assert!(code.is_some() || reason.is_empty());
            Got::Close(code, reason.to_owned())
        }
    }
}
