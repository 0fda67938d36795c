//! The decoder as a server meets it: raw bytes of a client, cut into reads in any way.

mod behaviour;
mod compressed;
mod deflating;
mod large;
mod limits;
mod model;
mod negotiation;
mod random;
mod reference;
mod round_trips;
mod splits;
mod violations;

use super::client::encode_masked;
use super::{Decoder, Item, Opcode, Violation};
use std::ops::ControlFlow;

/// A limit that these tests do not reach unless they mean to.
const ROOMY: usize = 1 << 20;

/// An [`Item`] that outlives the read buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Got {
    Text(String, bool),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

impl From<Item<'_>> for Got {
    fn from(item: Item<'_>) -> Self {
        match item {
            Item::Text { bytes, ascii } => {
                let text = std::str::from_utf8(&bytes).expect("the decoder promises UTF-8");
                Got::Text(text.to_owned(), ascii)
            }
            Item::Binary(bytes) => Got::Binary(bytes.to_vec()),
            Item::Ping(bytes) => Got::Ping(bytes.to_vec()),
            Item::Pong(bytes) => Got::Pong(bytes.to_vec()),
            Item::Close { code, reason } => Got::Close(code, reason.to_owned()),
        }
    }
}

fn text(text: &str) -> Got {
    Got::Text(text.to_owned(), text.is_ascii())
}

/// A decoder with what came out of it.
#[derive(Default)]
struct Client {
    decoder: Decoder,
    items: Vec<Got>,
}

impl Client {
    fn read(&mut self, bytes: &[u8], max_message: usize) -> Result<(), Violation> {
        let items = &mut self.items;
        self.decoder
            .decode(&mut bytes.to_vec(), max_message, None, |item| {
                items.push(item.into());
                ControlFlow::Continue(())
            })
    }

    fn held(&self) -> usize {
        self.decoder.held_bytes()
    }
}

/// Everything that comes out of `reads`, up to the first violation.
fn decode<'a>(
    reads: impl IntoIterator<Item = &'a [u8]>,
    max_message: usize,
) -> (Vec<Got>, Option<Violation>) {
    let mut client = Client::default();
    let violation = reads
        .into_iter()
        .find_map(|read| client.read(read, max_message).err());
    (client.items, violation)
}

/// The items of `bytes`, which break no rule.
fn items(bytes: &[u8]) -> Vec<Got> {
    let (items, violation) = decode([bytes], ROOMY);
    assert_eq!(violation, None, "after {items:?}");
    items
}

const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// The last or only frame of a message, or a control frame.
fn last(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    encode_masked(opcode, true, KEY, payload)
}

/// A frame of a message that goes on.
fn more(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    encode_masked(opcode, false, KEY, payload)
}
