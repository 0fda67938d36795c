//! One event, packed.
//!
//! All integers are little-endian `u32` words and every record starts at a multiple of 4, so that a `Uint32Array`
//! over the buffer reads them.
//!
//! ```text
//! word 0    kind | flags << 8 | the code of a close << 16
//! word 1    length of the whole record in bytes, padding included
//! word 2,3  id, low and high half: a socket id, or a request id for request, upgrade and abort
//! word 4    length of the token in bytes; 0xffff_ffff: no token
//! word 5    length of the payload in bytes
//! word 6    open, message, drain, close: how many milliseconds the handler may take; 0: any time
//! then      the token, padded to a multiple of 4; the payload; padding to a multiple of 4
//! ```
//!
//! The payload of a message is its data, of a close its reason, of open, request and upgrade a
//! [request block](super::request_block). The data of a large text, which word 0 tells by a flag, does not stand in its
//! record but beside the buffer, in the order of the records: it becomes a string without a copy in between.

use std::ops::Range;

use super::request_block::RequestBlock;
use crate::id::{RequestId, SocketId};
use crate::large_text::LargeText;

/// Bytes of a record before its token.
pub(super) const HEAD: usize = 28;
pub(super) const NO_TOKEN: u32 = u32::MAX;

pub(crate) mod kind {
    pub(crate) const OPEN: u8 = 1;
    pub(crate) const MESSAGE: u8 = 2;
    pub(crate) const DRAIN: u8 = 3;
    pub(crate) const CLOSE: u8 = 4;
    pub(crate) const REQUEST: u8 = 5;
    pub(crate) const UPGRADE: u8 = 6;
    pub(crate) const ABORT: u8 = 7;
}

/// Flag of a message record: it came as text.
pub(crate) const FLAG_TEXT: u8 = 1;
/// Flag of a text record: every byte is ASCII, so that a reader may take the cheapest decoder.
pub(crate) const FLAG_ASCII: u8 = 2;
/// Flag of a text record: its data stands beside the buffer.
pub(super) const FLAG_LARGE: u8 = 4;

/// One event, borrowed from its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A socket has been opened.
    Open {
        /// The new socket.
        socket: SocketId,
        /// Its token, if the upgrade was accepted with one.
        token: Option<&'a [u8]>,
        /// The request that was upgraded.
        request: RequestBlock<'a>,
    },
    /// A message came.
    Message {
        /// Who sent it.
        socket: SocketId,
        /// The socket's token when the message was read.
        token: Option<&'a [u8]>,
        /// The data; valid UTF-8 when `text`.
        payload: &'a [u8],
        /// A text message, otherwise binary.
        text: bool,
        /// A text message of nothing but ASCII.
        ascii: bool,
    },
    /// What waited for a socket that was over half of its backpressure limit has gone out.
    Drain {
        /// The socket.
        socket: SocketId,
        /// Its token.
        token: Option<&'a [u8]>,
    },
    /// A socket has closed; its last event.
    Close {
        /// The socket.
        socket: SocketId,
        /// Its token.
        token: Option<&'a [u8]>,
        /// The close code; 1005 without one, 1006 without a close frame.
        code: u16,
        /// The close reason, UTF-8.
        reason: &'a [u8],
    },
    /// An HTTP request waits for [`Broker::respond`](crate::Broker::respond).
    Request {
        /// The request.
        request: RequestId,
        /// Its content.
        block: RequestBlock<'a>,
    },
    /// A WebSocket upgrade waits for [`Broker::decide`](crate::Broker::decide).
    Upgrade {
        /// The request.
        request: RequestId,
        /// Its content.
        block: RequestBlock<'a>,
    },
    /// The client of a request went away before its answer, or ended its side of the connection: the two cannot be told apart.
    /// It may still be answered.
    Abort {
        /// The request.
        request: RequestId,
    },
}

/// A message in a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PackedMessage<'a> {
    /// The data of a text, valid UTF-8.
    Text(&'a [u8]),
    /// The data of a text stands elsewhere.
    LargeText,
    /// Where the data of a binary message stands in [`Batch::packed`](crate::Batch::packed), and in every copy of that.
    Bytes(Range<usize>),
}

/// One record of a batch with its header.
#[derive(Clone, Copy)]
pub(crate) struct Record<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) large: Option<&'a LargeText>,
}

impl<'a> Record<'a> {
    /// A record that was kept, of anything but a message.
    pub(crate) fn kept(bytes: &'a [u8]) -> Self {
        Self { bytes, large: None }
    }

    pub(crate) fn kind(self) -> u8 {
        self.bytes[0]
    }

    pub(crate) fn id(self) -> u64 {
        u64::from(word(self.bytes, 2)) | u64::from(word(self.bytes, 3)) << 32
    }

    /// The id as a socket's; only for the kinds that carry one.
    pub(crate) fn socket(self) -> SocketId {
        SocketId::new(self.id()).expect("written from a SocketId")
    }

    /// The id as a request's; only for the kinds that carry one.
    pub(crate) fn request(self) -> RequestId {
        RequestId::new(self.id()).expect("written from a RequestId")
    }

    pub(crate) fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Whether a handler may be given bytes of it that it keeps.
    pub(super) fn has_bytes_to_keep(self) -> bool {
        let has_block = matches!(self.kind(), kind::OPEN | kind::REQUEST | kind::UPGRADE);
        let is_binary = self.kind() == kind::MESSAGE && self.bytes[1] & FLAG_TEXT == 0;
        has_block || is_binary || word(self.bytes, 4) != NO_TOKEN
    }

    /// A message, of a record that begins at this offset of its batch; `None` for everything else.
    pub(super) fn message(self, offset: usize) -> Option<PackedMessage<'a>> {
        if self.kind() != kind::MESSAGE {
            return None;
        }
        let flags = self.bytes[1];
        Some(if flags & FLAG_TEXT == 0 {
            let Range { start, end } = self.payload_range();
            PackedMessage::Bytes(offset + start..offset + end)
        } else if flags & FLAG_LARGE == 0 {
            PackedMessage::Text(self.payload())
        } else {
            PackedMessage::LargeText
        })
    }

    fn token(self) -> Option<&'a [u8]> {
        match word(self.bytes, 4) {
            NO_TOKEN => None,
            length => self.bytes.get(HEAD..HEAD + length as usize),
        }
    }

    fn payload(self) -> &'a [u8] {
        if let Some(large) = self.large {
            return large.as_bytes();
        }
        // Of a large text that was taken nothing is here.
        self.bytes.get(self.payload_range()).unwrap_or_default()
    }

    fn payload_range(self) -> Range<usize> {
        let start = HEAD + self.token().map_or(0, |token| align(token.len()));
        start..start + word(self.bytes, 5) as usize
    }

    pub(super) fn event(self) -> Event<'a> {
        match self.kind() {
            kind::OPEN => Event::Open {
                socket: self.socket(),
                token: self.token(),
                request: RequestBlock(self.payload()),
            },
            kind::MESSAGE => Event::Message {
                socket: self.socket(),
                token: self.token(),
                payload: self.payload(),
                text: self.bytes[1] & FLAG_TEXT != 0,
                ascii: self.bytes[1] & FLAG_ASCII != 0,
            },
            kind::DRAIN => Event::Drain {
                socket: self.socket(),
                token: self.token(),
            },
            kind::CLOSE => Event::Close {
                socket: self.socket(),
                token: self.token(),
                code: (word(self.bytes, 0) >> 16) as u16,
                reason: self.payload(),
            },
            kind::REQUEST => Event::Request {
                request: self.request(),
                block: RequestBlock(self.payload()),
            },
            kind::UPGRADE => Event::Upgrade {
                request: self.request(),
                block: RequestBlock(self.payload()),
            },
            kind::ABORT => Event::Abort {
                request: self.request(),
            },
            other => unreachable!("no record has kind {other}"),
        }
    }
}

pub(super) const fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

pub(super) fn word(bytes: &[u8], n: usize) -> u32 {
    let word = bytes[4 * n..4 * n + 4].try_into().expect("four bytes");
    u32::from_le_bytes(word)
}
