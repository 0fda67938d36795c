//! A client with permessage-deflate.

use std::net::SocketAddr;

use wsbroker_engine::SocketId;
use wsbroker_engine::codec::Opcode;
use wsbroker_engine::codec::client::encode_masked;
use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush};

use super::{Client, Seen, Server};

/// A client with DEFLATE of its own, as other implementations have it: one stream per direction.
pub(crate) struct Peer {
    pub(crate) client: Client,
    deflate: Deflate,
    inflate: Inflate,
    /// Whether each direction begins anew with each message.
    resets: (bool, bool),
    /// What the server answered to the offer.
    pub(crate) answer: Option<String>,
}

impl Peer {
    pub(crate) fn open(server: &Server, offer: &str) -> Self {
        Self::open_at(server.address, offer)
    }

    pub(crate) fn open_at(address: SocketAddr, offer: &str) -> Self {
        let mut client = Client::connect(address);
        let header = format!("Sec-WebSocket-Extensions: {offer}\r\n");
        let answer = client.upgrade("/", &header);
        let answer = answer.header("sec-websocket-extensions").map(str::to_owned);
        let has = |name| answer.as_ref().is_some_and(|answer| answer.contains(name));
        Self {
            client,
            deflate: Deflate::new(6, false, 15),
            inflate: Inflate::new(false, 15),
            resets: (
                has("client_no_context_takeover"),
                has("server_no_context_takeover"),
            ),
            answer,
        }
    }

    /// The same, and its id.
    pub(crate) fn open_socket(server: &Server, offer: &str) -> (Self, SocketId) {
        Self::open_socket_at(server, server.address, offer)
    }

    pub(crate) fn open_socket_at(
        server: &Server,
        address: SocketAddr,
        offer: &str,
    ) -> (Self, SocketId) {
        let known = server.journal.opened().len();
        let peer = Self::open_at(address, offer);
        let id = server.journal.wait("the socket opens", |events| {
            events.iter().filter_map(Seen::opened).nth(known)
        });
        (peer, id)
    }

    pub(crate) fn compress(&mut self, payload: &[u8]) -> Vec<u8> {
        if self.resets.0 {
            self.deflate.reset();
        }
        let mut out = vec![0; payload.len() * 2 + 100];
        let before = self.deflate.total_out();
        let flush = DeflateFlush::SyncFlush;
        self.deflate.compress(payload, &mut out, flush).expect("ok");
        out.truncate((self.deflate.total_out() - before) as usize - 4);
        out
    }

    pub(crate) fn send_compressed(&mut self, opcode: Opcode, payload: &[u8]) {
        let compressed = self.compress(payload);
        self.client.send(first_frame(opcode, true, &compressed));
    }

    /// The next message, which must be compressed, and the size it had then.
    pub(crate) fn compressed_message(&mut self) -> (Vec<u8>, usize) {
        let frame = self.client.frame();
        assert!(frame.compressed, "{frame:?}");
        let size = frame.payload.len();
        (self.inflated(&frame.payload), size)
    }

    /// The next message, in either form.
    pub(crate) fn message(&mut self) -> Vec<u8> {
        let frame = self.client.frame();
        match frame.compressed {
            true => self.inflated(&frame.payload),
            false => frame.payload,
        }
    }

    pub(crate) fn inflated(&mut self, payload: &[u8]) -> Vec<u8> {
        if self.resets.1 {
            self.inflate.reset(false);
        }
        let whole = [payload, &[0, 0, 0xFF, 0xFF]].concat();
        let mut out = vec![0; 1 << 20];
        let (taken, made) = (self.inflate.total_in(), self.inflate.total_out());
        self.inflate
            .decompress(&whole, &mut out, InflateFlush::SyncFlush)
            .expect("DEFLATE");
        assert_eq!((self.inflate.total_in() - taken) as usize, whole.len());
        out.truncate((self.inflate.total_out() - made) as usize);
        out
    }
}

pub(crate) fn first_frame(opcode: Opcode, fin: bool, payload: &[u8]) -> Vec<u8> {
    let mut frame = encode_masked(opcode, fin, [7, 6, 5, 4], payload);
    frame[0] |= 0x40;
    frame
}
