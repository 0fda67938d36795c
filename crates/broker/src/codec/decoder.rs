//! From a client's bytes to messages (RFC 6455 §6.2), however the bytes were cut into reads.

use super::close;
use super::frame::{FrameHeader, MAX_MASKED_HEADER};
use super::inflate::{Inflation, Postponed, most_compressed};
use super::message::{self, Kind, Message, TextBytes};
use super::{Opcode, Violation, mask, utf8};
use crate::memory;
use std::borrow::Cow;
use std::mem;
use std::ops::ControlFlow;

/// One thing received. It borrows from the read buffer when its frame was whole there, else from the decoder; from the
/// inflater if it was compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A text message (§5.6).
    Text {
        /// The text.
        bytes: TextBytes<'a>,
        /// Whether every byte is below 128, so that it can be read as Latin-1 too.
        ascii: bool,
    },
    /// A binary message (§5.6).
    Binary(&'a [u8]),
    /// To be answered with a Pong of the same payload (§5.5.2), at most 125 bytes.
    Ping(&'a [u8]),
    /// The answer to a Ping, or unasked for (§5.5.3).
    Pong(&'a [u8]),
    /// The peer begins or completes the closing handshake (§5.5.1); nothing comes after it.
    Close {
        /// `None` when the frame has no body, which is told to applications as 1005 (§7.1.5).
        code: Option<u16>,
        /// At most 123 bytes, often empty.
        reason: &'a str,
    },
}

/// Decodes what one client sends.
///
/// It lives as long as its connection, so between messages it is 16 bytes and owns no memory.
#[derive(Debug, Default)]
pub struct Decoder {
    /// What began in earlier reads and has not ended.
    unfinished: Option<Box<Unfinished>>,
    /// Once set, nothing more is decoded.
    ended: Option<Ended>,
}

// Tens of thousands of idle sockets hold one each.
const _: () = assert!(size_of::<Decoder>() <= 16);

/// Why decoding stopped for good.
#[derive(Clone, Copy, Debug)]
enum Ended {
    /// A Close frame came (§5.5.1: what follows it is discarded), or the sink wanted no more.
    Closed,
    /// The peer broke the protocol: where the next frame begins means nothing any more (§7.1.7).
    Failed(Violation),
}

impl From<Violation> for Ended {
    fn from(violation: Violation) -> Self {
        Self::Failed(violation)
    }
}

impl Decoder {
    /// A decoder for a connection whose first frame is to come.
    pub const fn new() -> Self {
        Self {
            unfinished: None,
            ended: None,
        }
    }

    /// Decodes all of `input`, which follows the input of the last call, and gives each item to `sink` in order.
    /// `input` is unmasked in place.
    ///
    /// `max_message` is the limit for a message of any number of frames, in bytes. It is held against what a
    /// header declares, before memory is taken; memory then follows the bytes that arrive, but for what few messages take
    /// [ahead](crate::memory). Of a compressed message it is
    /// the limit of what it inflates to, and inflating stops there.
    ///
    /// `inflation` is what compressed messages need, the same at each call; `None` when they were not agreed on.
    ///
    /// Decoding ends for good after a Close and when `sink` answers `Break`: the rest of this input and all
    /// further input is ignored.
    ///
    /// # Errors
    ///
    /// The first breach of the protocol; items before it have been given to `sink`. Every later call returns the
    /// same violation.
    pub fn decode<F>(
        &mut self,
        input: &mut [u8],
        max_message: usize,
        mut inflation: Option<Inflation<'_>>,
        mut sink: F,
    ) -> Result<(), Violation>
    where
        F: FnMut(Item<'_>) -> ControlFlow<()>,
    {
        if self.ended.is_none() {
            let ended = self.run(input, max_message, inflation.as_mut(), &mut sink);
            self.ended = ended.err();
            let over = self.ended.is_some();
            self.unfinished.take_if(|u| over || u.is_empty());
        }
        match self.ended {
            None | Some(Ended::Closed) => Ok(()),
            Some(Ended::Failed(violation)) => Err(violation),
        }
    }

    /// Bytes on the heap for a frame or message that has begun and not ended; 0 between messages.
    pub fn held_bytes(&self) -> usize {
        self.unfinished.as_deref().map_or(0, |unfinished| {
            size_of::<Unfinished>() + unfinished.buffer_bytes()
        })
    }

    fn run<F>(
        &mut self,
        mut input: &mut [u8],
        max_message: usize,
        mut inflation: Option<&mut Inflation<'_>>,
        sink: &mut F,
    ) -> Result<(), Ended>
    where
        F: FnMut(Item<'_>) -> ControlFlow<()>,
    {
        while !input.is_empty() {
            if let Some(Inflation {
                postponed: Some(postponed),
                ..
            }) = &mut inflation
            {
                postponed.rest = input.len();
                break;
            }
            if let Some(unfinished) = &mut self.unfinished
                && let Some(frame) = unfinished.frame.take()
            {
                let inflation = inflation.as_deref_mut();
                input = unfinished.receive(frame, input, max_message, inflation, sink)?;
                continue;
            }
            let Some((header, after)) = self.next_header(input, inflation.is_some())? else {
                break;
            };
            let payload_len = self.admit(&header, max_message)?;
            if header.is_unfragmented() && payload_len <= after.len() {
                let (payload, rest) = after.split_at_mut(payload_len);
                mask::apply(payload, header.mask);
                if header.compressed {
                    let inflation = inflation.as_deref_mut();
                    let payload = Cow::Borrowed(&*payload);
                    deliver_inflated(header.opcode, payload, max_message, inflation, sink)?;
                } else {
                    deliver(whole(header.opcode, payload)?, sink)?;
                }
                input = rest;
            } else {
                let frame = OpenFrame::new(&header, payload_len);
                let unfinished = self.unfinished.get_or_insert_default();
                let inflation = inflation.as_deref_mut();
                input = unfinished.receive(frame, after, max_message, inflation, sink)?;
            }
        }
        Ok(())
    }

    /// The next frame's header, and the input behind it. `None` when the input ends inside the header: then what
    /// there is of it is kept.
    #[inline]
    fn next_header<'a>(
        &mut self,
        input: &'a mut [u8],
        deflate: bool,
    ) -> Result<Option<(FrameHeader, &'a mut [u8])>, Violation> {
        if let Some(unfinished) = &mut self.unfinished
            && !unfinished.header.is_empty()
        {
            return unfinished.header.complete(input, deflate);
        }
        match FrameHeader::parse(input, deflate)? {
            Some(header) => Ok(Some((header, &mut input[header.size..]))),
            None => {
                let unfinished = self.unfinished.get_or_insert_default();
                unfinished.header.complete(input, deflate)
            }
        }
    }

    /// Checks a header against the message that is under way (§5.4) and the limit. Returns the payload's length,
    /// which now is known to fit.
    #[inline]
    fn admit(&self, header: &FrameHeader, max_message: usize) -> Result<usize, Violation> {
        let message = self.unfinished.as_ref().and_then(|u| u.message.as_ref());
        let room = match (header.opcode, message) {
            (Opcode::Continuation, Some(message)) => {
                most_bytes(max_message, message.is_compressed()).saturating_sub(message.len())
            }
            (Opcode::Continuation, None) => return Err(Violation::UnexpectedContinuation),
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(Violation::ExpectedContinuation);
            }
            (Opcode::Text | Opcode::Binary, None) => most_bytes(max_message, header.compressed),
            // Their limit is the protocol's, checked in the header.
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => usize::MAX,
        };
        match usize::try_from(header.payload_len) {
            Ok(payload_len) if payload_len <= room => Ok(payload_len),
            _ => Err(Violation::MessageTooBig),
        }
    }
}

/// The most bytes that the frames of a message may have.
#[inline]
fn most_bytes(max_message: usize, compressed: bool) -> usize {
    match compressed {
        true => most_compressed(max_message),
        false => max_message,
    }
}

/// The item that an unfragmented frame is.
// What it gives has to stay in registers, as `parse_length` has it in frame.rs: `docs/performance.md`.
#[inline(always)]
pub(super) fn whole(opcode: Opcode, payload: &[u8]) -> Result<Item<'_>, Violation> {
    Ok(match opcode {
        Opcode::Text => Item::Text {
            bytes: TextBytes::Borrowed(payload),
            ascii: utf8::check(payload)?,
        },
        // A continuation is part of a message and goes through `Unfinished`; by itself it would be bytes.
        Opcode::Binary | Opcode::Continuation => Item::Binary(payload),
        Opcode::Ping => Item::Ping(payload),
        Opcode::Pong => Item::Pong(payload),
        Opcode::Close => {
            let (code, reason) = close::parse(payload)?;
            Item::Close { code, reason }
        }
    })
}

#[inline]
fn deliver<F>(item: Item<'_>, sink: &mut F) -> Result<(), Ended>
where
    F: FnMut(Item<'_>) -> ControlFlow<()>,
{
    let last = matches!(item, Item::Close { .. });
    if sink(item).is_break() || last {
        return Err(Ended::Closed);
    }
    Ok(())
}

/// Gives on the message that `payload` was compressed from, or leaves it to be inflated later.
fn deliver_inflated<F>(
    opcode: Opcode,
    payload: Cow<'_, [u8]>,
    max_message: usize,
    inflation: Option<&mut Inflation<'_>>,
    sink: &mut F,
) -> Result<(), Ended>
where
    F: FnMut(Item<'_>) -> ControlFlow<()>,
{
    // Without an agreement the frame's header has been refused.
    let inflation = inflation.ok_or(Violation::ReservedBit)?;
    if inflation.discard {
        return Ok(());
    }
    if payload.len() > inflation.at_once {
        *inflation.postponed = Some(Postponed {
            opcode,
            payload: payload.into_owned(),
            rest: 0,
        });
        return Ok(());
    }
    let message = inflation.inflate(&payload, max_message)?;
    let delivered = whole(opcode, message)
        .map_err(Ended::from)
        .and_then(|item| deliver(item, sink));
    inflation.done();
    if let Cow::Owned(payload) = payload {
        memory::give_back(payload);
    }
    delivered
}

/// What is kept from one read to the next.
#[derive(Debug, Default)]
struct Unfinished {
    /// A header that was cut.
    header: SplitHeader,
    /// The frame whose payload is arriving; it is not there while a header is.
    frame: Option<OpenFrame>,
    /// That frame's payload when it is a control frame: apart, for it may stand inside a message.
    control: Vec<u8>,
    /// The data message under way.
    message: Option<Message>,
}

impl Unfinished {
    fn is_empty(&self) -> bool {
        self.header.is_empty() && self.frame.is_none() && self.message.is_none()
    }

    fn buffer_bytes(&self) -> usize {
        self.control.capacity() + self.message.as_ref().map_or(0, Message::capacity)
    }

    /// Takes what `input` has of the frame's payload, gives on what that completes, and returns the rest of
    /// `input`.
    fn receive<'a, F>(
        &mut self,
        mut frame: OpenFrame,
        input: &'a mut [u8],
        max_message: usize,
        inflation: Option<&mut Inflation<'_>>,
        sink: &mut F,
    ) -> Result<&'a mut [u8], Ended>
    where
        F: FnMut(Item<'_>) -> ControlFlow<()>,
    {
        let (piece, rest) = input.split_at_mut(frame.remaining.min(input.len()));
        mask::apply(piece, frame.mask);
        if frame.opcode.is_control() {
            let most = self.control.len() + frame.remaining;
            message::extend(&mut self.control, piece, most);
        } else {
            // `admit` let a first fragment through only without a message, a continuation only with one.
            let message = self
                .message
                .get_or_insert_with(|| Message::new(frame.opcode, frame.compressed));
            let most = match frame.fin {
                true => message.len() + frame.remaining,
                false => most_bytes(max_message, message.is_compressed()),
            };
            let announced = message.len() + frame.remaining;
            message.push(piece, announced, most)?;
        }

        frame.advance(piece.len());
        if frame.remaining > 0 {
            self.frame = Some(frame);
        } else if frame.opcode.is_control() {
            let payload = mem::take(&mut self.control);
            deliver(whole(frame.opcode, &payload)?, sink)?;
        } else if frame.fin
            && let Some(message) = self.message.take()
        {
            let (bytes, kind) = message.finish()?;
            let item = match kind {
                Kind::Text { ascii } => Item::Text {
                    bytes: TextBytes::BehindRoom(bytes),
                    ascii,
                },
                Kind::Binary => {
                    let delivered = deliver(Item::Binary(&bytes), sink);
                    memory::give_back(bytes);
                    delivered?;
                    return Ok(rest);
                }
                Kind::Compressed(opcode) => {
                    let payload = Cow::Owned(bytes);
                    deliver_inflated(opcode, payload, max_message, inflation, sink)?;
                    return Ok(rest);
                }
            };
            deliver(item, sink)?;
        }
        Ok(rest)
    }
}

/// A frame whose header is read and whose payload is arriving.
#[derive(Debug)]
struct OpenFrame {
    fin: bool,
    compressed: bool,
    opcode: Opcode,
    /// Turned so that the first byte to come meets its first byte.
    mask: [u8; 4],
    /// Bytes of the payload still to come.
    remaining: usize,
}

impl OpenFrame {
    fn new(header: &FrameHeader, payload_len: usize) -> Self {
        Self {
            fin: header.fin,
            compressed: header.compressed,
            opcode: header.opcode,
            mask: header.mask,
            remaining: payload_len,
        }
    }

    fn advance(&mut self, received: usize) {
        self.remaining -= received;
        self.mask = mask::advance(self.mask, received);
    }
}

/// The beginning of a header that was cut by the end of a read.
#[derive(Debug, Default)]
struct SplitHeader {
    bytes: [u8; MAX_MASKED_HEADER],
    len: u8,
}

impl SplitHeader {
    fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Goes on with `input`; when that completes the header, gives it with the input behind it and is empty again.
    fn complete<'a>(
        &mut self,
        input: &'a mut [u8],
        deflate: bool,
    ) -> Result<Option<(FrameHeader, &'a mut [u8])>, Violation> {
        let had = usize::from(self.len);
        let taken = input.len().min(MAX_MASKED_HEADER - had);
        let bytes = &mut self.bytes[..had + taken];
        bytes[had..].copy_from_slice(&input[..taken]);
        match FrameHeader::parse(bytes, deflate)? {
            Some(header) => {
                self.len = 0;
                Ok(Some((header, &mut input[header.size - had..])))
            }
            None => {
                self.len = bytes.len() as u8;
                Ok(None)
            }
        }
    }
}
