//! The bytes of one connection, and what a protocol makes of them.

use std::io::{self, Read, Write};

use mio::net::TcpStream;

/// Bytes that wait to be written.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    written: usize,
}

impl Outgoing {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends `bytes` and lets the caller change the copy.
    pub(crate) fn push_copy(&mut self, bytes: &[u8]) -> &mut [u8] {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        &mut self.bytes[start..]
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn waiting(&self) -> &[u8] {
        &self.bytes[self.written..]
    }
}

/// What a connection has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    /// It is ready for messages.
    Open,
    /// A message, or the body of an answer.
    Message(&'a [u8]),
    /// The connection has ended; nothing follows.
    End,
}

/// What the bytes at the front of the input are.
pub(crate) enum Step<'a> {
    /// They are not enough.
    More,
    /// So many bytes, of no concern to a work.
    Silent(usize),
    /// So many bytes, and now it is open.
    Open(usize),
    /// So many bytes, and this message.
    Message(usize, &'a [u8]),
}

/// A protocol on one connection.
pub(crate) trait Protocol {
    /// The connection is there: what to say first, and whether that makes it open.
    fn connected(&mut self, outgoing: &mut Outgoing) -> bool;

    /// # Errors
    ///
    /// What no server of the benchmark may say, in words.
    fn step<'a>(&mut self, input: &'a [u8], outgoing: &mut Outgoing) -> Result<Step<'a>, String>;
}

/// One connection.
pub(crate) struct Connection<P> {
    /// `None` once it has ended.
    pub(crate) stream: Option<TcpStream>,
    pub(crate) connecting: bool,
    pub(crate) outgoing: Outgoing,
    protocol: P,
    /// The beginning of something unfinished.
    partial: Vec<u8>,
}

impl<P: Protocol> Connection<P> {
    pub(crate) fn new(stream: TcpStream, protocol: P) -> Self {
        Self {
            stream: Some(stream),
            connecting: true,
            outgoing: Outgoing::default(),
            protocol,
            partial: Vec::new(),
        }
    }

    /// The stream is writable for the first time: it is connected, or was refused.
    pub(crate) fn begin(&mut self) -> io::Result<bool> {
        let Some(stream) = &self.stream else {
            return Ok(false);
        };
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        self.connecting = false;
        Ok(self.protocol.connected(&mut self.outgoing))
    }

    /// Reads what there is. `drain`: until there is nothing, for the end may stand behind it. Otherwise a read that did
    /// not fill `scratch` was the last: the poll is edge-triggered, and what comes later is an edge of its own.
    pub(crate) fn read(
        &mut self,
        scratch: &mut [u8],
        drain: bool,
        sink: &mut impl FnMut(&mut Outgoing, Item<'_>),
    ) -> Result<(), String> {
        loop {
            let Some(stream) = &mut self.stream else {
                return Ok(());
            };
            let count = match stream.read(scratch) {
                Ok(0) => return self.end(sink),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return self.end(sink),
            };
            self.feed(&scratch[..count], sink)?;
            if count < scratch.len() && !drain {
                return Ok(());
            }
        }
    }

    fn end(&mut self, sink: &mut impl FnMut(&mut Outgoing, Item<'_>)) -> Result<(), String> {
        self.stream = None;
        sink(&mut self.outgoing, Item::End);
        Ok(())
    }

    /// Takes bytes that were read.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        sink: &mut impl FnMut(&mut Outgoing, Item<'_>),
    ) -> Result<(), String> {
        if self.partial.is_empty() {
            let used = consume(&mut self.protocol, &mut self.outgoing, bytes, sink)?;
            self.partial.extend_from_slice(&bytes[used..]);
        } else {
            self.partial.extend_from_slice(bytes);
            let used = consume(&mut self.protocol, &mut self.outgoing, &self.partial, sink)?;
            self.partial.drain(..used);
        }
        Ok(())
    }

    /// Writes what waits, as far as the kernel takes it.
    pub(crate) fn flush(&mut self) {
        let (Some(stream), false) = (&mut self.stream, self.connecting) else {
            return;
        };
        let outgoing = &mut self.outgoing;
        while !outgoing.is_empty() {
            match stream.write(&outgoing.bytes[outgoing.written..]) {
                Ok(count) => outgoing.written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The read says how it ended.
                Err(_) => outgoing.written = outgoing.bytes.len(),
            }
            if outgoing.written == outgoing.bytes.len() {
                outgoing.bytes.clear();
                outgoing.written = 0;
            }
        }
    }
}

/// Gives what is whole to `sink`; how many bytes that were.
fn consume<P: Protocol>(
    protocol: &mut P,
    outgoing: &mut Outgoing,
    input: &[u8],
    sink: &mut impl FnMut(&mut Outgoing, Item<'_>),
) -> Result<usize, String> {
    let mut used = 0;
    loop {
        match protocol.step(&input[used..], outgoing)? {
            Step::More => return Ok(used),
            Step::Silent(count) => used += count,
            Step::Open(count) => {
                used += count;
                sink(outgoing, Item::Open);
            }
            Step::Message(count, message) => {
                used += count;
                sink(outgoing, Item::Message(message));
            }
        }
    }
}
