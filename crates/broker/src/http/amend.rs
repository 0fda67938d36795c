//! What hyper refuses in a head though it is none of its business, hidden from it.
//!
//! - Bytes of a target that HTTP allows and a URL does not: `"`, `<`, `>` and a backtick. Node, curl and others send them as
//!   they are, and other servers hand them on. hyper is shown as many others, and the target gets its own back.
//! - A `Content-Length` of more than 64 bits. That is no malformed head, but a body that is too large: hyper is shown the
//!   largest length that it takes, which is more than anybody's limit.
//!
//! Both keep their length. Only heads are looked at, and only those of which it is certain where they begin; hyper parses, and
//! what is not looked at it refuses with 400.

use std::io::BufRead;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};

use http::uri::PathAndQuery;
use parking_lot::Mutex;

/// A number of so many digits may not fit 64 bits.
const LONG: usize = 20;

/// Follows what hyper reads from one head to the next.
#[derive(Debug)]
pub(super) struct Heads {
    place: Place,
    /// The last bytes that hyper was given.
    tail: [u8; 3],
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A head that it begins.
    Head,
    /// The method.
    Method,
    /// The first byte of the target.
    Target,
    /// A path, so many bytes behind its first.
    Path(usize),
    /// A request line in which there is nothing more to look at.
    Line,
    /// The headers; whether the line that it belongs to has been blank so far.
    Headers { is_blank: bool },
    /// What comes behind a head, of which there have been so many bytes.
    Behind(u64),
    /// Nobody knows.
    Somewhere,
}

/// Bytes of the target of the next request, with their places in it, for which hyper is shown others. The connection's task
/// alone comes here.
#[derive(Debug, Default)]
pub(super) struct Hidden {
    is_any: AtomicBool,
    bytes: Mutex<Vec<(usize, u8)>>,
}

/// A target as it came.
#[derive(Clone, Debug)]
pub(super) struct RawTarget(pub(super) String);

impl Hidden {
    fn add(&self, at: usize, byte: u8) {
        self.is_any.store(true, Ordering::Relaxed);
        self.bytes.lock().push((at, byte));
    }

    /// The target of the request that hyper has just read, if it was shown another.
    pub(super) fn take(&self, shown: Option<&PathAndQuery>) -> Option<RawTarget> {
        if !self.is_any.load(Ordering::Relaxed) {
            return None;
        }
        self.is_any.store(false, Ordering::Relaxed);
        let hidden = mem::take(&mut *self.bytes.lock());
        let mut target = shown?.as_str().as_bytes().to_vec();
        for (at, byte) in hidden {
            // hyper leaves a fragment out.
            if let Some(shown) = target.get_mut(at) {
                *shown = byte;
            }
        }
        String::from_utf8(target).ok().map(RawTarget)
    }
}

impl Heads {
    pub(super) fn new() -> Self {
        Self {
            place: Place::Head,
            tail: [0; 3],
        }
    }

    /// Amends what hyper is about to read. `expects_head`: it wants a head, or more of one, and of the request before this
    /// the body had so many bytes.
    pub(super) fn read(
        &mut self,
        bytes: &mut [u8],
        expects_head: bool,
        body: u64,
        hidden: &Hidden,
    ) {
        self.settle(expects_head, body);
        if let Place::Behind(count) = &mut self.place {
            *count += bytes.len() as u64;
        } else if self.place != Place::Somewhere {
            self.head(bytes, hidden);
        }
        for byte in &bytes[bytes.len().saturating_sub(self.tail.len())..] {
            self.tail = [self.tail[1], self.tail[2], *byte];
        }
    }

    /// hyper asks for more of a head only when what it has is none or not whole. So there is nothing of the next head yet if
    /// behind the last one came as much as its body had, or if an empty line came last: that would have been the end of the
    /// next one. Chunks end with an empty line as well.
    fn settle(&mut self, expects_head: bool, body: u64) {
        let is_in_head = !matches!(self.place, Place::Behind(_) | Place::Somewhere);
        if expects_head && !is_in_head {
            let ends_blank = self.tail == *b"\n\r\n" || self.tail.ends_with(b"\n\n");
            self.place = if ends_blank || self.place == Place::Behind(body) {
                Place::Head
            } else {
                Place::Somewhere
            };
        } else if !expects_head && is_in_head {
            self.place = Place::Somewhere;
        }
    }

    fn head(&mut self, bytes: &mut [u8], hidden: &Hidden) {
        let mut at = 0;
        if self.place == Place::Head {
            // Empty lines may come before.
            let begin = bytes.iter().position(|byte| !b"\r\n".contains(byte));
            let Some(begin) = begin else { return };
            at = begin;
            self.place = Place::Method;
        }
        let may_have_body = self.place != Place::Method || !b"GH".contains(&bytes[at]);
        if !matches!(self.place, Place::Headers { .. }) {
            at += self.line(&mut bytes[at..], hidden);
        }
        let Place::Headers { is_blank } = &mut self.place else {
            return;
        };
        let begins_line = at > 0 || self.tail.ends_with(b"\n");
        shorten_length(&mut bytes[at..], begins_line, *is_blank);
        self.place = if !may_have_body && bytes.ends_with(b"\r\n\r\n") {
            // `GET` and `HEAD` end with it, nearly always: it need not be looked for.
            Place::Somewhere
        } else {
            match blank_line(&bytes[at..], is_blank) {
                Some(end) => Place::Behind((bytes.len() - at - end) as u64),
                None => Place::Headers {
                    is_blank: *is_blank,
                },
            }
        };
    }

    /// Hides bytes of the target, and gives how much of this is request line.
    fn line(&mut self, bytes: &mut [u8], hidden: &Hidden) -> usize {
        let mut at = 0;
        if let Some(end) = line_feed(bytes)
            && !has_hidden(&bytes[..end])
        {
            self.place = Place::Headers { is_blank: true };
            return end + 1;
        }
        while at < bytes.len() && !matches!(self.place, Place::Headers { .. }) {
            let rest = &bytes[at..];
            let length = match self.place {
                Place::Target => Some(0),
                Place::Method => rest.iter().position(|byte| *byte <= b' '),
                Place::Path(_) => rest
                    .iter()
                    .position(|byte| is_hidden(*byte) || matches!(byte, b' ' | b'\n')),
                _ => line_feed(rest),
            };
            let seen = length.unwrap_or(rest.len());
            let Some(byte) = bytes.get_mut(at + seen) else {
                if let Place::Path(place) = &mut self.place {
                    *place += seen;
                }
                return bytes.len();
            };
            self.place = match (self.place, *byte) {
                (_, b'\n') => Place::Headers { is_blank: true },
                (Place::Method, b' ') => Place::Target,
                (Place::Target, b'/') => Place::Path(1),
                (Place::Path(place), unlike) if unlike != b' ' => {
                    hidden.add(place + seen, unlike);
                    *byte = b'_';
                    Place::Path(place + seen + 1)
                }
                _ => Place::Line,
            };
            at += seen + 1;
        }
        at
    }
}

fn is_hidden(byte: u8) -> bool {
    matches!(byte, b'"' | b'<' | b'>' | b'`')
}

/// Without branches, so that many bytes are looked at together: most lines have none.
fn has_hidden(line: &[u8]) -> bool {
    let is = |byte: u8, hidden: u8| u8::from(byte == hidden);
    let any = line.iter().fold(0, |any, byte| {
        any | is(*byte, b'"') | is(*byte, b'<') | is(*byte, b'>') | is(*byte, b'`')
    });
    any != 0
}

/// Where the first of them is.
fn line_feed(mut bytes: &[u8]) -> Option<usize> {
    let all = bytes;
    let length = bytes.skip_until(b'\n').ok()?; // from memory, by the fastest way there is
    all[..length].ends_with(b"\n").then(|| length - 1)
}

/// Where what comes behind the empty line begins. `is_blank`: whether the line that these bytes go on with has been so, and
/// then whether the last of them has.
fn blank_line(bytes: &[u8], is_blank: &mut bool) -> Option<usize> {
    let mut at = 0;
    while let Some(length) = line_feed(&bytes[at..]) {
        *is_blank &= matches!(&bytes[at..at + length], b"" | b"\r");
        at += length + 1;
        if *is_blank {
            return Some(at);
        }
        *is_blank = true;
    }
    *is_blank &= matches!(&bytes[at..], b"" | b"\r");
    None
}

/// Exchanges a `Content-Length` of more than 64 bits, if these headers have one, for the largest number of 19 digits. They
/// begin a line, or go on with one that has been blank so far or not. No byte is looked at more than a few times, whatever
/// these are.
fn shorten_length(headers: &mut [u8], begins_line: bool, mut is_blank: bool) {
    let mut line = begins_line.then_some(0);
    let mut lines_seen = 0;
    let mut end_of_headers = None;
    // Whatever has so many digits has one at one of these places.
    let mut at = LONG - 1;
    while at < headers.len() {
        if headers[at].is_ascii_digit() {
            let is_other = |byte: &u8| !byte.is_ascii_digit();
            // One that is cut off here is left alone.
            let Some(behind) = headers[at..].iter().position(is_other) else {
                return;
            };
            let end = at + behind;
            if let Some(before) = headers[..at].iter().rposition(is_other) {
                let number = before + 1..end;
                let zeros = headers[number.clone()]
                    .iter()
                    .take_while(|digit| **digit == b'0');
                if number.len() - zeros.count() >= LONG {
                    let lines = &headers[lines_seen..number.start];
                    if let Some(feed) = lines.iter().rposition(|byte| *byte == b'\n') {
                        line = Some(lines_seen + feed + 1);
                    }
                    lines_seen = number.start;
                    let end_of_headers = *end_of_headers.get_or_insert_with(|| {
                        blank_line(headers, &mut is_blank).unwrap_or(headers.len())
                    });
                    if number.start >= end_of_headers {
                        return;
                    }
                    if line.is_some_and(|line| is_length(&headers[line..number.start])) {
                        let split = number.end - (LONG - 1);
                        headers[number.start..split].fill(b'0');
                        headers[split..number.end].fill(b'9');
                    }
                }
            }
            at = end;
        }
        at += LONG;
    }
}

/// Whether the value of a `Content-Length` comes behind this beginning of a line.
fn is_length(line: &[u8]) -> bool {
    line.split_at_checked("content-length".len())
        .is_some_and(|(name, rest)| {
            name.eq_ignore_ascii_case(b"content-length") && rest.trim_ascii_end() == b":"
        })
}

#[cfg(test)]
mod tests;
