//! A client's side of WebSocket, as far as a load needs it: what servers of the benchmark do not do is an error.

use wsbroker_engine::codec::client::encode_masked;
use wsbroker_engine::codec::{Opcode, accept_key};

use crate::arguments::{Dialect, Message};
use crate::payload::{self, Kind, Stamp};
use crate::stream::{Outgoing, Protocol, Step};

/// All clients have the same key, which saves them the random numbers. Servers cannot know.
const CLIENT_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// No byte of it is 0, so that no server gets around unmasking.
const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// Around a text message of Socket.IO: an event named `m` with one string.
const EVENT: (&[u8], &[u8]) = (br#"42["m",""#, br#""]"#);

/// Before a binary message of Socket.IO: an event with one attachment, which is the next frame.
const EVENT_WITH_BYTES: &[u8] = br#"451-["m",{"_placeholder":true,"num":0}]"#;

/// A message, framed and masked, into which stamps are written.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    /// Where the payload's second byte is.
    variable_at: usize,
    /// The mask as that byte meets it.
    mask: [u8; 4],
}

impl Template {
    pub(crate) fn new(kind: Kind, message: Message, dialect: Dialect) -> Self {
        let payload = payload::build(kind, message.size, Stamp::default());
        let opcode = match message.binary {
            true => Opcode::Binary,
            false => Opcode::Text,
        };
        let ((before, after), preceding) = match (dialect, message.binary) {
            (Dialect::Plain, _) => ((&b""[..], &b""[..]), Vec::new()),
            (Dialect::SocketIo, false) => (EVENT, Vec::new()),
            (Dialect::SocketIo, true) => {
                let event = encode_masked(Opcode::Text, true, MASK, EVENT_WITH_BYTES);
                ((&b""[..], &b""[..]), event)
            }
        };
        let wrapped = [before, &payload, after].concat();
        let frame = encode_masked(opcode, true, MASK, &wrapped);
        let header = frame.len() - wrapped.len();
        let mut mask = MASK;
        mask.rotate_left((before.len() + 1) % 4);
        Self {
            variable_at: preceding.len() + header + before.len() + 1,
            bytes: [preceding, frame].concat(),
            mask,
        }
    }

    pub(crate) fn write(&self, stamp: Stamp, outgoing: &mut Outgoing) {
        let mut variable = payload::variable_part(stamp);
        for (at, byte) in variable.iter_mut().enumerate() {
            *byte ^= self.mask[at % 4];
        }
        let copy = outgoing.push_copy(&self.bytes);
        copy[self.variable_at..self.variable_at + variable.len()].copy_from_slice(&variable);
    }
}

/// A close frame with code 1000.
pub(crate) fn close_frame() -> Vec<u8> {
    encode_masked(Opcode::Close, true, MASK, &1000_u16.to_be_bytes())
}

/// A client on one connection.
#[derive(Debug)]
pub(crate) struct WebSocket {
    host: String,
    dialect: Dialect,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The 101 is awaited.
    Upgrading,
    /// Socket.IO's greetings.
    Greeting,
    Open,
}

impl WebSocket {
    pub(crate) fn new(host: String, dialect: Dialect) -> Self {
        Self {
            host,
            dialect,
            phase: Phase::Upgrading,
        }
    }

    fn upgraded<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, String> {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        let size = match response.parse(input) {
            Ok(httparse::Status::Complete(size)) => size,
            Ok(httparse::Status::Partial) => return Ok(Step::More),
            Err(error) => return Err(format!("the answer to an upgrade: {error}")),
        };
        if response.code != Some(101) {
            return Err(format!(
                "the answer to an upgrade has status {:?}",
                response.code
            ));
        }
        let accepted = response.headers.iter().any(|header| {
            header.name.eq_ignore_ascii_case("sec-websocket-accept")
                && header.value == accept_key(CLIENT_KEY).as_bytes()
        });
        if !accepted {
            return Err("a 101 without the right Sec-WebSocket-Accept".to_owned());
        }
        Ok(match self.dialect {
            Dialect::Plain => {
                self.phase = Phase::Open;
                Step::Open(size)
            }
            Dialect::SocketIo => {
                self.phase = Phase::Greeting;
                Step::Silent(size)
            }
        })
    }

    fn socket_io_text<'a>(
        &mut self,
        size: usize,
        text: &'a [u8],
        outgoing: &mut Outgoing,
    ) -> Result<Step<'a>, String> {
        let mut say = |text| outgoing.push(&encode_masked(Opcode::Text, true, MASK, text));
        if self.phase == Phase::Greeting {
            if text.starts_with(b"0{") {
                say(b"40");
                return Ok(Step::Silent(size));
            }
            if text.starts_with(b"40") {
                self.phase = Phase::Open;
                return Ok(Step::Open(size));
            }
        }
        if text == b"2" {
            say(b"3");
            return Ok(Step::Silent(size));
        }
        // Its attachment follows.
        if text.starts_with(b"451-") {
            return Ok(Step::Silent(size));
        }
        let (before, after) = EVENT;
        match text
            .strip_prefix(before)
            .and_then(|text| text.strip_suffix(after))
        {
            Some(payload) => Ok(Step::Message(size, payload)),
            None => Err(format!("Socket.IO said {}", String::from_utf8_lossy(text))),
        }
    }
}

impl Protocol for WebSocket {
    fn connected(&mut self, outgoing: &mut Outgoing) -> bool {
        let path = match self.dialect {
            Dialect::Plain => "/",
            Dialect::SocketIo => "/socket.io/?EIO=4&transport=websocket",
        };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {CLIENT_KEY}\r\n\r\n",
            self.host
        );
        outgoing.push(request.as_bytes());
        false
    }

    #[inline]
    fn step<'a>(&mut self, input: &'a [u8], outgoing: &mut Outgoing) -> Result<Step<'a>, String> {
        if self.phase == Phase::Upgrading {
            return self.upgraded(input);
        }
        let Some((first, start, end)) = frame(input)? else {
            return Ok(Step::More);
        };
        let Some(payload) = input.get(start..end) else {
            return Ok(Step::More);
        };
        match (first, self.dialect) {
            (0x81 | 0x82, Dialect::Plain) | (0x82, Dialect::SocketIo) => {
                Ok(Step::Message(end, payload))
            }
            (0x81, Dialect::SocketIo) => self.socket_io_text(end, payload, outgoing),
            // Its end, which follows, is what counts.
            (0x88, _) => Ok(Step::Silent(end)),
            (0x89, _) => {
                outgoing.push(&encode_masked(Opcode::Pong, true, MASK, payload));
                Ok(Step::Silent(end))
            }
            (0x8A, _) => Ok(Step::Silent(end)),
            _ => Err(format!(
                "a frame that begins with {first:#04x} is not expected"
            )),
        }
    }
}

/// The first byte of the frame at the front, where its payload begins and where it ends.
#[inline]
fn frame(input: &[u8]) -> Result<Option<(u8, usize, usize)>, String> {
    let [first, second, rest @ ..] = input else {
        return Ok(None);
    };
    let (start, length) = match *second {
        length @ 0..=125 => (2, u64::from(length)),
        126 => match rest.first_chunk() {
            Some(length) => (4, u64::from(u16::from_be_bytes(*length))),
            None => return Ok(None),
        },
        127 => match rest.first_chunk() {
            Some(length) => (10, u64::from_be_bytes(*length)),
            None => return Ok(None),
        },
        _ => return Err("a server's frame must not be masked".to_owned()),
    };
    match usize::try_from(length)
        .ok()
        .and_then(|length| length.checked_add(start))
    {
        Some(end) => Ok(Some((*first, start, end))),
        None => Err(format!("a frame of {length} bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wsbroker_engine::codec::{Decoder, Item};

    const STAMP: Stamp = Stamp {
        channel: 12,
        sender: 3,
        sequence: 0xABCDEF,
    };

    /// The messages that a server reads from a template with [`STAMP`] written into it.
    fn read_by_a_server(template: &Template) -> Vec<Vec<u8>> {
        let mut outgoing = Outgoing::default();
        template.write(STAMP, &mut outgoing);
        let mut messages = Vec::new();
        let mut bytes = outgoing.waiting().to_vec();
        Decoder::new()
            .decode(&mut bytes, 1 << 20, None, |item| {
                match item {
                    Item::Text { bytes, .. } => messages.push(bytes.to_vec()),
                    Item::Binary(bytes) => messages.push(bytes.to_vec()),
                    _ => panic!("only messages"),
                }
                std::ops::ControlFlow::Continue(())
            })
            .expect("valid frames");
        messages
    }

    #[test]
    fn a_stamp_is_masked_where_it_stands() {
        for size in [32, 64, 126, 1000, 70_000] {
            for binary in [false, true] {
                let message = Message { size, binary };
                let expected = payload::build(Kind::Publish, size, STAMP);
                let template = Template::new(Kind::Publish, message, Dialect::Plain);
                assert_eq!(
                    read_by_a_server(&template),
                    vec![expected.clone()],
                    "{size}"
                );

                let template = Template::new(Kind::Publish, message, Dialect::SocketIo);
                let wrapped = match binary {
                    true => vec![EVENT_WITH_BYTES.to_vec(), expected],
                    false => vec![[EVENT.0, &expected, EVENT.1].concat()],
                };
                assert_eq!(read_by_a_server(&template), wrapped, "{size}");
            }
        }
    }

    #[test]
    fn frames_are_found_however_they_are_cut() {
        for length in [0_usize, 5, 125, 126, 65_535, 65_536] {
            let (header, size) = wsbroker_engine::codec::header(Opcode::Binary, length);
            for cut in 0..size {
                assert_eq!(frame(&header[..cut]), Ok(None));
            }
            assert_eq!(
                frame(&header[..size]),
                Ok(Some((0x82, size, size + length)))
            );
        }
        assert!(frame(&[0x81, 0x80]).is_err());
        assert!(frame(&[0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255]).is_err());
    }

    #[test]
    fn socket_io_greets_before_it_is_open() {
        let mut socket = WebSocket::new("x".to_owned(), Dialect::SocketIo);
        socket.phase = Phase::Greeting;
        let mut outgoing = Outgoing::default();
        let mut step = |text: &[u8]| {
            let frame = wsbroker_engine::codec::encode_frame(Opcode::Text, text);
            match socket.step(&frame, &mut outgoing).expect("expected words") {
                Step::Silent(_) => "silent".to_owned(),
                Step::Open(_) => "open".to_owned(),
                Step::Message(_, message) => String::from_utf8_lossy(message).into_owned(),
                Step::More => "more".to_owned(),
            }
        };
        assert_eq!(step(b"0{\"sid\":\"a\"}"), "silent");
        assert_eq!(step(b"40{\"sid\":\"b\"}"), "open");
        assert_eq!(step(b"2"), "silent");
        assert_eq!(step(b"42[\"m\",\"hello\"]"), "hello");
    }
}
