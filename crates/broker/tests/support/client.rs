//! A client of raw bytes: it says what a test wants said, and reads what comes with a deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use wsbroker_engine::codec::Opcode;
use wsbroker_engine::codec::client::encode_masked;

use super::DEADLINE;

/// The answer to the key that [`handshake`] sends (RFC 6455 section 1.3).
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A sound handshake; `extra` are more header lines, each ended by CRLF.
pub(crate) fn handshake(path: &str, extra: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extra}\r\n"
    )
}

/// A whole masked frame.
pub(crate) fn masked(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    encode_masked(opcode, true, [0x1D, 0xA7, 0x03, 0xF0], payload)
}

/// An answer to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut named = self.headers.iter().filter(|(n, _)| n == name);
        named.next().map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A frame from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    /// RSV1: the payload is compressed.
    pub(crate) compressed: bool,
    pub(crate) payload: Vec<u8>,
}

pub(crate) trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

pub(crate) struct Client {
    stream: Box<dyn Stream>,
    tcp: Option<TcpStream>,
    buffer: Vec<u8>,
    /// Where in `buffer` the unread bytes begin.
    at: usize,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, DEADLINE).expect("the server listens");
        Self::from_tcp(stream)
    }

    pub(crate) fn from_tcp(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        stream.set_write_timeout(Some(DEADLINE)).expect("a timeout");
        stream.set_nodelay(true).expect("an option");
        let tcp = stream.try_clone().expect("a descriptor");
        Self {
            stream: Box::new(stream),
            tcp: Some(tcp),
            buffer: Vec::new(),
            at: 0,
        }
    }

    #[cfg(unix)]
    pub(crate) fn connect_unix(path: &std::path::Path) -> Self {
        let stream = std::os::unix::net::UnixStream::connect(path).expect("the server listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        Self {
            stream: Box::new(stream),
            tcp: None,
            buffer: Vec::new(),
            at: 0,
        }
    }

    /// Connects and upgrades.
    pub(crate) fn open(address: SocketAddr) -> Self {
        let mut client = Self::connect(address);
        client.upgrade("/", "");
        client
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        self.tcp.as_ref().expect("a TCP client")
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("sent");
    }

    /// Like [`send`](Self::send), where the server may hang up in the middle.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    pub(crate) fn upgrade(&mut self, path: &str, extra: &str) -> Answer {
        self.send(handshake(path, extra));
        self.upgraded()
    }

    /// Reads the 101.
    pub(crate) fn upgraded(&mut self) -> Answer {
        let answer = self.head();
        assert_eq!(answer.status, 101, "{answer:?}");
        assert_eq!(answer.header("sec-websocket-accept"), Some(ACCEPT));
        answer
    }

    pub(crate) fn send_frame(&mut self, opcode: Opcode, payload: &[u8]) {
        self.send(masked(opcode, payload));
    }

    pub(crate) fn send_text(&mut self, text: &str) {
        self.send_frame(Opcode::Text, text.as_bytes());
    }

    /// Has this text sent back.
    pub(crate) fn assert_echoes(&mut self, text: &str) {
        self.send_text(text);
        assert_eq!(self.text(), text);
    }

    pub(crate) fn send_close(&mut self, code: u16, reason: &str) {
        let mut body = code.to_be_bytes().to_vec();
        body.extend_from_slice(reason.as_bytes());
        self.send_frame(Opcode::Close, &body);
    }

    fn unread(&self) -> &[u8] {
        &self.buffer[self.at..]
    }

    /// Reads more; `false` at the end of the stream.
    fn fill(&mut self) -> io::Result<bool> {
        if self.at > 0 && self.at == self.buffer.len() {
            self.buffer.clear();
            self.at = 0;
        } else if self.at > 1 << 20 {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        let mut piece = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut piece) {
                Ok(length) => {
                    self.buffer.extend_from_slice(&piece[..length]);
                    return Ok(length > 0);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn need(&mut self, length: usize) {
        while self.unread().len() < length {
            let more = self.fill().expect("more bytes before the deadline");
            let have = self.unread().len();
            assert!(more, "the stream ended after {have} of {length} bytes");
        }
    }

    fn consume(&mut self, length: usize) -> Vec<u8> {
        self.need(length);
        let taken = self.unread()[..length].to_vec();
        self.at += length;
        taken
    }

    /// Status and headers.
    pub(crate) fn head(&mut self) -> Answer {
        let end = loop {
            if let Some(end) = self.unread().windows(4).position(|w| w == b"\r\n\r\n") {
                break end;
            }
            let have = self.unread().len();
            self.need(have + 1);
        };
        let head = String::from_utf8(self.consume(end + 4)).expect("a head is text");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| {
            let rest = line
                .strip_prefix("HTTP/1.1 ")
                .or(line.strip_prefix("HTTP/1.0 "))?;
            rest.get(..3)?.parse().ok()
        });
        let headers = lines.filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        });
        Answer {
            status: status.unwrap_or_else(|| panic!("no status line: {head}")),
            headers: headers.collect(),
            body: Vec::new(),
        }
    }

    /// A whole answer. Every body of this server has a declared length.
    pub(crate) fn answer(&mut self) -> Answer {
        let mut answer = self.head();
        let bodiless = answer.status < 200 || [204, 304].contains(&answer.status);
        if !bodiless {
            let length = answer.header("content-length").expect("a length");
            let length = length.parse().expect("a length is a number");
            answer.body = self.consume(length);
        }
        answer
    }

    pub(crate) fn request(&mut self, request: &str) -> Answer {
        self.send(request);
        self.answer()
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.request(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"))
    }

    /// The next frame; a server's frames are whole and unmasked.
    pub(crate) fn frame(&mut self) -> Frame {
        self.need(2);
        let (first, second) = (self.unread()[0], self.unread()[1]);
        assert_eq!(
            first & 0xB0,
            0x80,
            "FIN and no other reserved bit than RSV1"
        );
        let (size, length) = match second {
            126 => {
                self.need(4);
                let bytes = [self.unread()[2], self.unread()[3]];
                (4, usize::from(u16::from_be_bytes(bytes)))
            }
            127 => {
                self.need(10);
                let bytes = self.unread()[2..10].try_into().expect("eight bytes");
                (10, u64::from_be_bytes(bytes) as usize)
            }
            length => {
                assert!(length < 126, "a server's frame is not masked");
                (2, usize::from(length))
            }
        };
        self.consume(size);
        Frame {
            opcode: first & 0x0F,
            compressed: first & 0x40 != 0,
            payload: self.consume(length),
        }
    }

    /// The next frame, which is a data frame of this opcode.
    pub(crate) fn data(&mut self, opcode: Opcode) -> Vec<u8> {
        let frame = self.frame();
        assert_eq!(frame.opcode, opcode as u8, "{frame:?}");
        assert!(!frame.compressed, "no reserved bit: {frame:?}");
        frame.payload
    }

    /// The next message; pings before it are answered.
    pub(crate) fn message(&mut self) -> Vec<u8> {
        loop {
            let frame = self.frame();
            assert!(!frame.compressed, "no reserved bit: {frame:?}");
            match frame.opcode {
                1 | 2 => return frame.payload,
                9 => self.send_frame(Opcode::Pong, &frame.payload),
                _ => panic!("a message is expected: {frame:?}"),
            }
        }
    }

    pub(crate) fn text(&mut self) -> String {
        String::from_utf8(self.data(Opcode::Text)).expect("text is UTF-8")
    }

    /// The next frame, which is a close frame: its code (1005 without) and reason.
    pub(crate) fn close_frame(&mut self) -> (u16, String) {
        let body = self.data(Opcode::Close);
        match body.split_first_chunk::<2>() {
            Some((code, reason)) => (
                u16::from_be_bytes(*code),
                String::from_utf8(reason.to_vec()).expect("a reason is UTF-8"),
            ),
            None => (1005, String::new()),
        }
    }

    /// The close frame; an echo may have been queued before it.
    pub(crate) fn last_words(&mut self) -> (u16, String) {
        loop {
            self.need(1);
            if self.unread()[0] & 0x0F == Opcode::Close as u8 {
                return self.close_frame();
            }
            self.frame();
        }
    }

    /// The stream ends in order, with nothing more before.
    pub(crate) fn end(&mut self) {
        assert!(self.unread().is_empty(), "{:?}", self.unread());
        let more = self.fill().expect("the end of the stream, and no reset");
        assert!(!more, "nothing before the end: {:?}", self.unread());
    }

    /// The stream ends, in order or by a reset; what still came.
    pub(crate) fn drained(&mut self) -> Vec<u8> {
        loop {
            match self.fill() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
                    assert!(kinds.contains(&error.kind()), "{error}");
                    break;
                }
            }
        }
        self.unread().to_vec()
    }

    /// Whether nothing comes for this long. For what must not happen while something else is shown to happen.
    pub(crate) fn is_silent_for(&mut self, time: Duration) -> bool {
        let tcp = self.tcp();
        tcp.set_read_timeout(Some(time)).expect("a timeout");
        let before = self.unread().len();
        let silent = matches!(self.fill(), Err(error) if is_timeout(&error));
        let tcp = self.tcp();
        tcp.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        silent && self.unread().len() == before
    }

    pub(crate) fn shutdown(&self) {
        self.tcp().shutdown(Shutdown::Write).expect("shut");
    }

    /// Goes away without a word: the peer gets a reset.
    pub(crate) fn reset(self) {
        let tcp = self.tcp();
        let socket = socket2::SockRef::from(tcp);
        socket.set_linger(Some(Duration::ZERO)).expect("an option");
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
