//! The packed content of an HTTP request, as the payload of an event.
//!
//! All integers are little-endian `u32` words.
//!
//! ```text
//! words     lengths of method, url, remote address; number of headers; bytes of all headers; bytes of the body
//! words     per header: length of the name, length of the value
//! then      method, url, remote address, name and value of each header in turn, body
//! ```

use http::HeaderMap;

use super::batch::word;

/// The packed content of an HTTP request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestBlock<'a>(pub(super) &'a [u8]);

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
        let mut at = self.part(2).1;
        (0..word(self.0, 3) as usize).map(move |n| {
            let name = word(self.0, 6 + 2 * n) as usize;
            let value = word(self.0, 7 + 2 * n) as usize;
            let start = at;
            at += name + value;
            (
                &self.0[start..start + name],
                &self.0[start + name..start + name + value],
            )
        })
    }

    /// The whole body.
    #[must_use]
    pub fn body(self) -> &'a [u8] {
        let start = self.part(2).1 + word(self.0, 4) as usize;
        &self.0[start..start + word(self.0, 5) as usize]
    }

    /// Part `n` of method, url, remote address, and where it ends.
    fn part(self, n: usize) -> (&'a [u8], usize) {
        let mut start = 4 * (6 + 2 * word(self.0, 3) as usize);
        for before in 0..n {
            start += word(self.0, before) as usize;
        }
        let end = start + word(self.0, n) as usize;
        (&self.0[start..end], end)
    }
}

/// Packs the content of a request. Header names and values come as hyper read them.
pub(crate) fn request_block(
    method: &str,
    url: &str,
    remote_address: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Vec<u8> {
    let header_bytes: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    let words = 6 + 2 * headers.len();
    let size =
        4 * words + method.len() + url.len() + remote_address.len() + header_bytes + body.len();
    let mut block = Vec::with_capacity(size);
    for length in [
        method.len(),
        url.len(),
        remote_address.len(),
        headers.len(),
        header_bytes,
        body.len(),
    ] {
        push_word(&mut block, length as u32);
    }
    for (name, value) in headers {
        push_word(&mut block, name.as_str().len() as u32);
        push_word(&mut block, value.len() as u32);
    }
    block.extend_from_slice(method.as_bytes());
    block.extend_from_slice(url.as_bytes());
    block.extend_from_slice(remote_address.as_bytes());
    for (name, value) in headers {
        block.extend_from_slice(name.as_str().as_bytes());
        block.extend_from_slice(value.as_bytes());
    }
    block.extend_from_slice(body);
    block
}

fn push_word(bytes: &mut Vec<u8>, word: u32) {
    bytes.extend_from_slice(&word.to_le_bytes());
}
