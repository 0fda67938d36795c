//! The packed content of an HTTP request, as the payload of an event.
//!
//! All integers are little-endian `u32` words.
//!
//! ```text
//! words     lengths of method, url, remote address; number of headers; bytes of their names; bytes of their values; bytes
//!           of the body; length of the subprotocol
//! words     per header: length of the name, length of the value
//! then      method, url, remote address, the name of each header with a line feed behind it, the values, body,
//!           subprotocol
//! ```

use http::HeaderMap;

use super::record::word;

/// Words before the lengths of the headers.
const WORDS: usize = 8;
/// Which of them has the bytes of all names, and the bytes of all values.
const NAMES: usize = 4;
const VALUES: usize = 5;
/// Which of them has the length of the body, and of the subprotocol.
const BODY: usize = 6;
const PROTOCOL: usize = 7;

/// The packed content of an HTTP request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestBlock<'a>(pub(crate) &'a [u8]);

impl<'a> RequestBlock<'a> {
    /// The method as it came, for example `GET`.
    #[must_use]
    pub fn method(self) -> &'a [u8] {
        self.part(0).0
    }

    /// Path and query as they came.
    #[must_use]
    pub fn url(self) -> &'a [u8] {
        self.part(1).0
    }

    /// The client's IP address, or `unix`.
    #[must_use]
    pub fn remote_address(self) -> &'a [u8] {
        self.part(2).0
    }

    /// Names (lower case) and values, in the order they came.
    pub fn headers(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let mut name_at = self.part(2).1;
        let mut value_at = name_at + word(self.0, NAMES) as usize;
        (0..word(self.0, 3) as usize).map(move |n| {
            let name = &self.0[name_at..][..word(self.0, WORDS + 2 * n) as usize];
            let value = &self.0[value_at..][..word(self.0, WORDS + 2 * n + 1) as usize];
            name_at += name.len() + 1;
            value_at += value.len();
            (name, value)
        })
    }

    /// The whole body.
    #[must_use]
    pub fn body(self) -> &'a [u8] {
        let headers = word(self.0, NAMES) + word(self.0, VALUES);
        let start = self.part(2).1 + headers as usize;
        &self.0[start..start + word(self.0, BODY) as usize]
    }

    /// The subprotocol of an upgrade: of an open event the one that the client was told, before that the one that the
    /// listener would choose.
    #[must_use]
    pub fn protocol(self) -> Option<&'a [u8]> {
        let length = word(self.0, PROTOCOL) as usize;
        (length > 0).then(|| &self.0[self.0.len() - length..])
    }

    /// Part `n` of method, url, remote address, and where it ends.
    fn part(self, n: usize) -> (&'a [u8], usize) {
        let mut start = 4 * (WORDS + 2 * word(self.0, 3) as usize);
        for before in 0..n {
            start += word(self.0, before) as usize;
        }
        let end = start + word(self.0, n) as usize;
        (&self.0[start..end], end)
    }
}

/// What a request is packed from. Header names and values are as hyper read them.
pub(crate) struct Parts<'a> {
    pub(crate) method: &'a str,
    pub(crate) url: &'a str,
    pub(crate) remote_address: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
}

/// A request that is about to be packed.
pub(crate) struct Unpacked<'a> {
    parts: Parts<'a>,
    /// Of all headers, each with its line feed.
    name_bytes: usize,
    value_bytes: usize,
    length: usize,
}

impl<'a> Unpacked<'a> {
    pub(crate) fn new(parts: Parts<'a>) -> Self {
        let (mut name_bytes, mut value_bytes) = (0, 0);
        for (name, value) in parts.headers {
            name_bytes += name.as_str().len() + 1;
            value_bytes += value.len();
        }
        let words = WORDS + 2 * parts.headers.len();
        let texts = parts.method.len() + parts.url.len() + parts.remote_address.len();
        Self {
            length: 4 * words + texts + name_bytes + value_bytes + parts.body.len(),
            name_bytes,
            value_bytes,
            parts,
        }
    }

    /// How long the block will be.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn pack(&self) -> Vec<u8> {
        let mut block = Vec::new();
        self.pack_to(&mut block);
        block
    }

    /// Appends the block.
    pub(crate) fn pack_to(&self, block: &mut Vec<u8>) {
        let Parts {
            method,
            url,
            remote_address,
            headers,
            body,
        } = self.parts;
        block.reserve(self.length);
        for length in [
            method.len(),
            url.len(),
            remote_address.len(),
            headers.len(),
            self.name_bytes,
            self.value_bytes,
            body.len(),
            0,
        ] {
            push_word(block, length as u32);
        }
        for (name, value) in headers {
            push_word(block, name.as_str().len() as u32);
            push_word(block, value.len() as u32);
        }
        block.extend_from_slice(method.as_bytes());
        block.extend_from_slice(url.as_bytes());
        block.extend_from_slice(remote_address.as_bytes());
        for name in headers.iter().map(|(name, _)| name) {
            block.extend_from_slice(name.as_str().as_bytes());
            block.push(b'\n');
        }
        for value in headers.iter().map(|(_, value)| value) {
            block.extend_from_slice(value.as_bytes());
        }
        block.extend_from_slice(body);
    }
}

/// Writes down the subprotocol, in the place of another.
pub(crate) fn set_protocol(block: &mut Vec<u8>, protocol: Option<&str>) {
    let protocol = protocol.unwrap_or_default();
    let before = word(block, PROTOCOL) as usize;
    block.truncate(block.len() - before);
    block.extend_from_slice(protocol.as_bytes());
    block[4 * PROTOCOL..][..4].copy_from_slice(&(protocol.len() as u32).to_le_bytes());
}

fn push_word(bytes: &mut Vec<u8>, word: u32) {
    bytes.extend_from_slice(&word.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subprotocol_can_be_written_and_changed_and_nothing_else_is() {
        let mut headers = HeaderMap::new();
        headers.append("host", "example".parse().expect("a value"));
        headers.append("accept", "a".parse().expect("a value"));
        headers.append("accept", "".parse().expect("a value"));
        let unpacked = Unpacked::new(Parts {
            method: "GET",
            url: "/",
            remote_address: "::1",
            headers: &headers,
            body: b"body",
        });
        let plain = unpacked.pack();
        assert_eq!(plain.len(), unpacked.len());
        let mut block = plain.clone();
        for protocol in [Some("chat"), None, Some("a longer one"), Some("v1"), None] {
            set_protocol(&mut block, protocol);
            let read = RequestBlock(&block);
            assert_eq!(read.protocol(), protocol.map(str::as_bytes));
            assert_eq!((read.url(), read.body()), (&b"/"[..], &b"body"[..]));
            assert_eq!(
                read.headers().collect::<Vec<_>>(),
                [
                    (&b"host"[..], &b"example"[..]),
                    (b"accept", b"a"),
                    (b"accept", b""),
                ]
            );
        }
        assert_eq!(block, plain);
    }
}
