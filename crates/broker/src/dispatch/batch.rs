//! A batch of events: packed records in one buffer, which crosses to a worker in one piece.
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
//! [request block](super::request_block).

use bytes::Bytes;

use super::request_block::RequestBlock;
use crate::id::{RequestId, SocketId};

/// Bytes of a record before its token.
const HEAD: usize = 28;
const NO_TOKEN: u32 = u32::MAX;

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
    /// The client of a request went away before its answer.
    Abort {
        /// The request.
        request: RequestId,
    },
}

/// Reads the records of a batch.
///
/// # Panics
/// The iterator panics on bytes that no [`Worker::take`](crate::Worker::take) gave.
pub fn events(batch: &[u8]) -> impl Iterator<Item = Event<'_>> {
    records(batch).map(Record::event)
}

pub(crate) fn records(batch: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rest = batch;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (record, tail) = rest.split_at(word(rest, 1) as usize);
        rest = tail;
        Some(Record(record))
    })
}

/// One record of a batch with its header.
#[derive(Clone, Copy)]
pub(crate) struct Record<'a>(&'a [u8]);

impl<'a> Record<'a> {
    pub(crate) fn kind(self) -> u8 {
        self.0[0]
    }

    pub(crate) fn id(self) -> u64 {
        u64::from(word(self.0, 2)) | u64::from(word(self.0, 3)) << 32
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
        self.0
    }

    fn token(self) -> Option<&'a [u8]> {
        match word(self.0, 4) {
            NO_TOKEN => None,
            length => Some(&self.0[HEAD..HEAD + length as usize]),
        }
    }

    fn payload(self) -> &'a [u8] {
        let start = HEAD + self.token().map_or(0, |token| align(token.len()));
        &self.0[start..start + word(self.0, 5) as usize]
    }

    fn event(self) -> Event<'a> {
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
                text: self.0[1] & FLAG_TEXT != 0,
                ascii: self.0[1] & FLAG_ASCII != 0,
            },
            kind::DRAIN => Event::Drain {
                socket: self.socket(),
                token: self.token(),
            },
            kind::CLOSE => Event::Close {
                socket: self.socket(),
                token: self.token(),
                code: (word(self.0, 0) >> 16) as u16,
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

/// Whose event it is.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    id: u64,
    token: Option<&'a Bytes>,
    handler_timeout: u32,
}

impl<'a> Origin<'a> {
    /// A socket with its token. Its handler may take `handler_timeout` milliseconds; 0: any time.
    pub(crate) fn socket(id: SocketId, token: Option<&'a Bytes>, handler_timeout: u32) -> Self {
        Self {
            id: id.get(),
            token,
            handler_timeout,
        }
    }

    fn of(request: RequestId) -> Self {
        Self {
            id: request.get(),
            token: None,
            handler_timeout: 0,
        }
    }
}

/// The records of one worker that a shard has gathered and not yet handed over.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    /// How many records.
    pub(crate) events: u32,
    /// How many of them are messages: what is counted when a worker dies with them.
    pub(crate) messages: u32,
    /// How many of them are closes: what must come exactly once whatever dies.
    pub(crate) closes: u32,
    /// How many of them are requests, upgrades and aborts, which are no events of a socket.
    pub(crate) requests: u32,
}

impl Batch {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn open(&mut self, of: Origin<'_>, block: &[u8]) {
        self.record(u32::from(kind::OPEN), of, block);
    }

    pub(crate) fn message(&mut self, of: Origin<'_>, payload: &[u8], flags: u8) {
        let flags = u32::from(flags) << 8;
        self.record(u32::from(kind::MESSAGE) | flags, of, payload);
    }

    pub(crate) fn drain(&mut self, of: Origin<'_>) {
        self.record(u32::from(kind::DRAIN), of, &[]);
    }

    pub(crate) fn close(&mut self, of: Origin<'_>, code: u16, reason: &str) {
        let code = u32::from(code) << 16;
        self.record(u32::from(kind::CLOSE) | code, of, reason.as_bytes());
    }

    pub(crate) fn request(&mut self, request: RequestId, block: &[u8]) {
        self.record(u32::from(kind::REQUEST), Origin::of(request), block);
    }

    pub(crate) fn upgrade(&mut self, request: RequestId, block: &[u8]) {
        self.record(u32::from(kind::UPGRADE), Origin::of(request), block);
    }

    pub(crate) fn abort(&mut self, request: RequestId) {
        self.record(u32::from(kind::ABORT), Origin::of(request), &[]);
    }

    /// Appends a record of another batch as it is.
    pub(crate) fn copy(&mut self, record: Record<'_>) {
        self.bytes.extend_from_slice(record.bytes());
        self.count(record.kind());
    }

    /// `word_0` has the kind in its lowest byte.
    fn record(&mut self, word_0: u32, of: Origin<'_>, payload: &[u8]) {
        let Origin {
            id,
            token,
            handler_timeout,
        } = of;
        let token_bytes = token.map_or(0, |token| align(token.len()));
        let length = HEAD + token_bytes + align(payload.len());
        let start = self.bytes.len();
        let mut head = [0; HEAD];
        for (word, value) in head.chunks_exact_mut(4).zip([
            word_0,
            length as u32,
            id as u32,
            (id >> 32) as u32,
            token.map_or(NO_TOKEN, |token| token.len() as u32),
            payload.len() as u32,
            handler_timeout,
        ]) {
            word.copy_from_slice(&value.to_le_bytes());
        }
        self.bytes.reserve(length);
        self.bytes.extend_from_slice(&head);
        if let Some(token) = token {
            self.bytes.extend_from_slice(token);
            self.bytes.resize(start + HEAD + token_bytes, 0);
        }
        self.bytes.extend_from_slice(payload);
        self.bytes.resize(start + length, 0);
        self.count(word_0 as u8);
    }

    fn count(&mut self, kind: u8) {
        self.events += 1;
        self.messages += u32::from(kind == kind::MESSAGE);
        self.closes += u32::from(kind == kind::CLOSE);
        self.requests += u32::from(kind >= kind::REQUEST);
    }
}

const fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

pub(super) fn word(bytes: &[u8], n: usize) -> u32 {
    let word = bytes[4 * n..4 * n + 4].try_into().expect("four bytes");
    u32::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::super::request_block::request_block;
    use super::*;

    fn socket(id: u64) -> SocketId {
        SocketId::new(id).expect("a valid id")
    }

    #[test]
    fn what_is_packed_is_read_back() {
        let mut headers = HeaderMap::new();
        headers.append("host", "example".parse().expect("a value"));
        headers.append("x-twice", "1".parse().expect("a value"));
        headers.append("x-twice", "2".parse().expect("a value"));
        let block = request_block("POST", "/a?b=c", "::1", &headers, b"body");
        let token = Bytes::from_static(b"tok");
        let mut batch = Batch::default();
        let of = |id, token| Origin::socket(socket(id), token, 1 << 31);
        batch.open(of((1 << 53) - 1, Some(&token)), &block);
        batch.message(of(2, None), "héllo".as_bytes(), FLAG_TEXT);
        let empty = Bytes::new();
        batch.message(of(2, Some(&empty)), b"", 0);
        batch.close(of(3, Some(&token)), 4001, "bye");
        let request = RequestId::new(77).expect("a valid id");
        batch.request(request, &block);
        batch.abort(request);
        assert_eq!((batch.events, batch.messages, batch.closes), (6, 2, 1));

        let bytes = batch.into_bytes();
        let timeouts: Vec<_> = records(&bytes).map(|record| word(record.0, 6)).collect();
        assert_eq!(timeouts, [1 << 31, 1 << 31, 1 << 31, 1 << 31, 0, 0]);
        let mut events = events(&bytes);
        let Some(Event::Open {
            socket: id,
            token: Some(b"tok"),
            request: opened,
        }) = events.next()
        else {
            panic!("an open event")
        };
        assert_eq!(id.get(), (1 << 53) - 1);
        assert_eq!(opened.method(), b"POST");
        assert_eq!(opened.url(), b"/a?b=c");
        assert_eq!(opened.remote_address(), b"::1");
        assert_eq!(opened.body(), b"body");
        assert_eq!(
            opened.headers().collect::<Vec<_>>(),
            [
                (&b"host"[..], &b"example"[..]),
                (b"x-twice", b"1"),
                (b"x-twice", b"2")
            ]
        );
        assert_eq!(
            events.next(),
            Some(Event::Message {
                socket: socket(2),
                token: None,
                payload: "héllo".as_bytes(),
                text: true,
                ascii: false
            })
        );
        assert_eq!(
            events.next(),
            Some(Event::Message {
                socket: socket(2),
                token: Some(b""),
                payload: b"",
                text: false,
                ascii: false
            })
        );
        assert_eq!(
            events.next(),
            Some(Event::Close {
                socket: socket(3),
                token: Some(b"tok"),
                code: 4001,
                reason: b"bye"
            })
        );
        assert!(
            matches!(events.next(), Some(Event::Request { block, .. }) if block.body() == b"body")
        );
        assert_eq!(events.next(), Some(Event::Abort { request }));
        assert_eq!(events.next(), None);
    }
}
