//! A batch of events: packed [records](super::record) in one buffer, which crosses to a worker in one piece.

use bytes::Bytes;

use super::record::{
    Event, FLAG_ASCII, FLAG_LARGE, FLAG_TEXT, HEAD, NO_TOKEN, PackedMessage, Record, align, kind,
    word,
};
use crate::codec::TextBytes;
use crate::id::{RequestId, SocketId};
use crate::large_text::LargeText;
use crate::memory;

/// Texts from this size on stand beside the buffer. Below it a copy costs less than the call that fetches one. Bytes never do:
/// a handler gets a view of the buffer.
const LARGE: usize = 8 * 1024;

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

/// Events of one worker: what a shard has gathered, or what [`Worker::take`](crate::Worker::take) gives.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Large texts, in the order of their records.
    large: Vec<LargeText>,
    /// How many bytes these have.
    large_bytes: usize,
    /// How much the first record makes room for.
    expected: usize,
    /// There are bytes in it that a handler may keep: of a request, of a token, of a binary message.
    has_bytes_to_keep: bool,
    /// How many records.
    pub(crate) events: u32,
    /// How many of them are messages: what is counted when a worker dies with them.
    pub(crate) messages: u32,
    /// How many of them are closes: what must come exactly once whatever dies.
    pub(crate) closes: u32,
    /// How many of them are requests, upgrades and aborts, which are no events of a socket.
    pub(crate) requests: u32,
}

/// A batch makes room for so much at first: what a busy turn gathers before it hands over, in bytes.
const MOST_EXPECTED: usize = 64 * 1024;

impl Batch {
    /// The events in their order.
    pub fn events(&self) -> impl Iterator<Item = Event<'_>> {
        self.records().map(Record::event)
    }

    /// The records, packed as the top of `dispatch/record.rs` tells, for a reader in another language.
    #[must_use]
    pub fn packed(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether a reader in another language may give parts of the buffer on as they are, so that it must stay: those of
    /// requests, tokens and binary messages. Everything else is decoded at once.
    #[must_use]
    pub fn has_bytes_to_keep(&self) -> bool {
        self.has_bytes_to_keep
    }

    /// The large texts, whose data does not stand in their records. Afterwards they are empty in the batch.
    #[must_use]
    pub fn take_large_texts(&mut self) -> Vec<LargeText> {
        self.large_bytes = 0;
        std::mem::take(&mut self.large)
    }

    /// The message whose record begins at this offset of [`packed`](Self::packed).
    #[must_use]
    pub fn message_at(&self, offset: usize) -> Option<PackedMessage<'_>> {
        let rest = self.bytes.get(offset..).filter(|rest| rest.len() >= HEAD)?;
        let bytes = rest.get(..word(rest, 1) as usize)?;
        if bytes.len() < HEAD {
            return None;
        }
        Record { bytes, large: None }.message(offset)
    }

    /// An empty batch that expects as much as this one has got.
    pub(crate) fn next_one(&self) -> Self {
        let mut next = Self::default();
        next.expected = self.bytes.len().min(MOST_EXPECTED);
        next
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let mut rest = self.bytes.as_slice();
        let mut large = self.large.iter();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (bytes, tail) = rest.split_at(word(rest, 1) as usize);
            rest = tail;
            let is_large = bytes[0] == kind::MESSAGE && bytes[1] & FLAG_LARGE != 0;
            let large = if is_large { large.next() } else { None };
            Some(Record { bytes, large })
        })
    }

    /// Its bytes, those of large texts included.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() + self.large_bytes
    }

    /// Appends all of another batch.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.make_room(other.bytes.len());
        self.bytes.extend_from_slice(&other.bytes);
        self.large.append(&mut other.large);
        self.large_bytes += other.large_bytes;
        self.has_bytes_to_keep |= other.has_bytes_to_keep;
        self.events += other.events;
        self.messages += other.messages;
        self.closes += other.closes;
        self.requests += other.requests;
    }

    pub(crate) fn open(&mut self, of: Origin<'_>, block: &[u8]) {
        self.record(u32::from(kind::OPEN), of, block, block.len());
    }

    pub(crate) fn text(&mut self, of: Origin<'_>, text: TextBytes<'_>, ascii: bool) {
        let flags = if ascii {
            FLAG_TEXT | FLAG_ASCII
        } else {
            FLAG_TEXT
        };
        if text.len() < LARGE {
            return self.message(of, &text, text.len(), flags);
        }
        let large = LargeText::received(text);
        let length = large.as_bytes().len();
        self.message(of, &[], length, flags | FLAG_LARGE);
        self.large_bytes += length;
        self.large.push(large);
    }

    pub(crate) fn binary(&mut self, of: Origin<'_>, bytes: &[u8]) {
        self.message(of, bytes, bytes.len(), 0);
    }

    fn message(&mut self, of: Origin<'_>, payload: &[u8], payload_length: usize, flags: u8) {
        let flags = u32::from(flags) << 8;
        self.record(
            u32::from(kind::MESSAGE) | flags,
            of,
            payload,
            payload_length,
        );
    }

    pub(crate) fn drain(&mut self, of: Origin<'_>) {
        self.record(u32::from(kind::DRAIN), of, &[], 0);
    }

    pub(crate) fn close(&mut self, of: Origin<'_>, code: u16, reason: &str) {
        let code = u32::from(code) << 16;
        let reason = reason.as_bytes();
        self.record(u32::from(kind::CLOSE) | code, of, reason, reason.len());
    }

    pub(crate) fn request(&mut self, request: RequestId, block: &[u8]) {
        let of = Origin::of(request);
        self.record(u32::from(kind::REQUEST), of, block, block.len());
    }

    pub(crate) fn upgrade(&mut self, request: RequestId, block: &[u8]) {
        let of = Origin::of(request);
        self.record(u32::from(kind::UPGRADE), of, block, block.len());
    }

    pub(crate) fn abort(&mut self, request: RequestId) {
        self.record(u32::from(kind::ABORT), Origin::of(request), &[], 0);
    }

    /// Appends a record of another batch as it is.
    pub(crate) fn copy(&mut self, record: Record<'_>) {
        self.make_room(record.bytes().len());
        self.bytes.extend_from_slice(record.bytes());
        if let Some(large) = record.large {
            self.large_bytes += large.as_bytes().len();
            self.large.push(large.clone());
        }
        self.count(record.kind(), record.has_bytes_to_keep());
    }

    /// `word_0` has the kind in its lowest byte. `payload` is what stands in the record, of a length that may stand beside.
    fn record(&mut self, word_0: u32, of: Origin<'_>, payload: &[u8], payload_length: usize) {
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
            payload_length as u32,
            handler_timeout,
        ]) {
            word.copy_from_slice(&value.to_le_bytes());
        }
        self.make_room(length);
        self.bytes.extend_from_slice(&head);
        if let Some(token) = token {
            self.bytes.extend_from_slice(token);
            self.bytes.resize(start + HEAD + token_bytes, 0);
        }
        self.bytes.extend_from_slice(payload);
        self.bytes.resize(start + length, 0);
        let record = Record {
            bytes: &self.bytes[start..],
            large: None,
        };
        let (kind, has_bytes_to_keep) = (record.kind(), record.has_bytes_to_keep());
        self.count(kind, has_bytes_to_keep);
    }

    /// In memory that goes from one batch to the next.
    #[inline]
    fn make_room(&mut self, more: usize) {
        let needed = self.bytes.len() + more;
        if needed > self.bytes.capacity() {
            memory::grow(&mut self.bytes, needed.max(self.expected), usize::MAX);
        }
    }

    fn count(&mut self, kind: u8, has_bytes_to_keep: bool) {
        self.has_bytes_to_keep |= has_bytes_to_keep;
        self.events += 1;
        self.messages += u32::from(kind == kind::MESSAGE);
        self.closes += u32::from(kind == kind::CLOSE);
        self.requests += u32::from(kind >= kind::REQUEST);
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        memory::give_back(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::super::request_block::{Parts, Unpacked};
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
        let block = Unpacked::new(Parts {
            method: "POST",
            url: "/a?b=c",
            remote_address: "::1",
            headers: &headers,
            body: b"body",
        })
        .pack();
        let token = Bytes::from_static(b"tok");
        let mut batch = Batch::default();
        let of = |id, token| Origin::socket(socket(id), token, 1 << 31);
        batch.open(of((1 << 53) - 1, Some(&token)), &block);
        batch.text(of(2, None), TextBytes::Borrowed("héllo".as_bytes()), false);
        let empty = Bytes::new();
        batch.binary(of(2, Some(&empty)), b"");
        batch.close(of(3, Some(&token)), 4001, "bye");
        let request = RequestId::new(77).expect("a valid id");
        batch.request(request, &block);
        batch.abort(request);
        assert_eq!((batch.events, batch.messages, batch.closes), (6, 2, 1));

        let timeouts: Vec<_> = batch.records().map(|r| word(r.bytes, 6)).collect();
        assert_eq!(timeouts, [1 << 31, 1 << 31, 1 << 31, 1 << 31, 0, 0]);
        let mut events = batch.events();
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

    #[test]
    fn a_message_is_found_by_the_offset_of_its_record() {
        let mut batch = Batch::default();
        let token = Bytes::from_static(b"token");
        let mut offsets = Vec::new();
        for (data, token) in [
            ("one", None),
            ("", Some(&token)),
            ("thr\u{e9}", Some(&token)),
        ] {
            let of = Origin::socket(socket(1), token, 0);
            let text = batch.packed().len();
            batch.text(of, TextBytes::Borrowed(data.as_bytes()), false);
            let bytes = batch.packed().len();
            batch.binary(of, data.as_bytes());
            offsets.push((text, bytes, data.as_bytes()));
        }
        for (text, bytes, data) in offsets {
            assert_eq!(batch.message_at(text), Some(PackedMessage::Text(data)));
            let Some(PackedMessage::Bytes(place)) = batch.message_at(bytes) else {
                panic!("no bytes at {bytes}");
            };
            assert_eq!(&batch.packed()[place], data);
        }
        let of = Origin::socket(socket(1), None, 0);
        let large = batch.packed().len();
        batch.text(of, TextBytes::Borrowed(&[b'a'; LARGE]), true);
        assert_eq!(batch.message_at(large), Some(PackedMessage::LargeText));
        let others = batch.packed().len();
        batch.drain(of);
        for offset in (others..=batch.packed().len()).chain([1, 4, usize::MAX]) {
            assert_eq!(batch.message_at(offset), None);
        }
    }

    #[test]
    fn a_batch_makes_room_for_what_the_last_one_got_once_it_gets_something() {
        let of = Origin::socket(socket(1), None, 0);
        let mut batch = Batch::default();
        batch.binary(of, &[7; 50_000]);
        for _ in 0..3 {
            batch = batch.next_one();
            assert_eq!(batch.bytes.capacity(), 0);
            batch.binary(of, b"short");
            assert!((50_000..=62_600).contains(&batch.bytes.capacity()));
            batch.binary(of, &[7; 50_000]);
        }
        let huge = vec![7; 8 * MOST_EXPECTED];
        batch.binary(of, &huge);
        batch = batch.next_one();
        batch.binary(of, b"short");
        assert!(batch.bytes.capacity() <= MOST_EXPECTED * 5 / 4);
    }

    #[test]
    fn a_batch_of_which_handlers_keep_nothing_can_be_told() {
        let of = Origin::socket(socket(1), None, 0);
        let token = Bytes::from_static(b"token");
        let mut plain = Batch::default();
        plain.text(of, TextBytes::Borrowed(b"text"), true);
        plain.drain(of);
        plain.close(of, 1000, "reason");
        assert!(!plain.has_bytes_to_keep());
        let keeps: [fn(&mut Batch, Origin<'_>, Option<&Bytes>); 4] = [
            |batch, of, _| batch.binary(of, b""),
            |batch, of, _| batch.open(of, b"block"),
            |batch, _, _| batch.request(RequestId::new(1).expect("a valid id"), b"block"),
            |batch, _, token| batch.drain(Origin::socket(socket(1), token, 0)),
        ];
        for keep in keeps {
            let mut kept = Batch::default();
            keep(&mut kept, of, Some(&token));
            assert!(kept.has_bytes_to_keep());
            let mut copy = Batch::default();
            kept.records().for_each(|record| copy.copy(record));
            assert!(copy.has_bytes_to_keep());
            let mut joined = Batch::default();
            plain.records().for_each(|record| joined.copy(record));
            assert!(!joined.has_bytes_to_keep());
            joined.append(kept);
            assert!(joined.has_bytes_to_keep());
        }
    }

    #[test]
    fn large_texts_keep_their_places_when_batches_are_joined_and_handed_on() {
        let texts = [1, LARGE - 1, LARGE, 7, LARGE + 1, 3 * LARGE];
        let mut whole = Batch::default();
        for (n, size) in texts.into_iter().enumerate() {
            let mut part = Batch::default();
            let of = Origin::socket(socket(n as u64 + 1), None, 0);
            part.text(of, TextBytes::Borrowed(&vec![b'a' + n as u8; size]), true);
            part.binary(of, &vec![n as u8; size]);
            whole.append(part);
        }
        let mut copy = Batch::default();
        whole.records().for_each(|record| copy.copy(record));
        for batch in [&whole, &copy] {
            let mut events = batch.events();
            for (n, size) in texts.into_iter().enumerate() {
                for (byte, is_text) in [(b'a' + n as u8, true), (n as u8, false)] {
                    let Some(Event::Message { payload, text, .. }) = events.next() else {
                        panic!("a message")
                    };
                    assert_eq!((payload, text), (vec![byte; size].as_slice(), is_text));
                }
            }
            assert_eq!(events.next(), None);
            let size: usize = texts.iter().sum();
            assert!(batch.len() >= 2 * size && batch.packed().len() < batch.len());
        }
        assert_eq!(copy.len(), whole.len());
        assert_eq!(whole.take_large_texts().len(), 3);
    }
}
