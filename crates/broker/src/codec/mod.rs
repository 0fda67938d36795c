//! The WebSocket protocol (RFC 6455) with compressed messages (RFC 7692), as pure functions and one small state machine:
//! bytes in, items and bytes out; no socket, no clock, no thread. All it shares is the [memory](crate::memory) of large messages.
//!
//! ```text
//! bytes ──mask──▶ frame ──(inflate)──utf8──▶ message ──▶ Item            (decoder)
//! payload ──(deflate)──▶ frame bytes, ready for any number of sockets    (encoder)
//! ```
//!
//! Only a server's side is here: what comes in must be masked, what goes out never is. [`client`] holds the one
//! function that makes a client's frames, for programs that talk to a server in raw bytes.

pub mod client;
pub mod close;
mod decoder;
mod deflate;
mod encoder;
mod extension;
mod frame;
mod handshake;
mod inflate;
mod mask;
mod message;
mod utf8;
mod violation;

pub use close::{CLOSE_CODES, CloseCode, is_valid_from_peer, is_valid_to_send};
pub use decoder::{Decoder, Item};
pub use deflate::{Compressor, Contexts};
pub use encoder::{
    MAX_CONTROL_PAYLOAD, MAX_HEADER, PING, encode_close, encode_compressed, encode_frame,
    encode_ping, encode_pong, frame_len, header, payload_of,
};
pub use extension::{
    AcceptedOffer, DeflatePolicy, Direction, MAX_WINDOW_BITS, MIN_WINDOW_BITS, MalformedExtensions,
    PerMessageDeflate, negotiate,
};
pub use frame::Opcode;
pub use handshake::{accept_key, is_valid_key};
pub use inflate::{Inflater, Inflation, LargeMessage, Postponed};
pub use message::TextBytes;
pub use violation::Violation;

#[cfg(test)]
mod tests;
