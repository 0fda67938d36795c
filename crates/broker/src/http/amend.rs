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
/// begin a line, or go on with one that has been blank so far or not.
fn shorten_length(headers: &mut [u8], begins_line: bool, is_blank: bool) {
    // Whatever has so many digits has one at one of these places.
    let mut at = LONG - 1;
    while at < headers.len() {
        if headers[at].is_ascii_digit() {
            let is_other = |byte: &u8| !byte.is_ascii_digit();
            let before = headers[..at].iter().rposition(is_other);
            let behind = headers[at..].iter().position(is_other);
            // One that is cut off here is left alone.
            if let (Some(before), Some(behind)) = (before, behind) {
                let number = before + 1..at + behind;
                let zeros = headers[number.clone()]
                    .iter()
                    .take_while(|digit| **digit == b'0');
                let is_long = number.len() - zeros.count() >= LONG;
                if is_long && is_length(&headers[..number.start], begins_line, is_blank) {
                    let split = number.end - (LONG - 1);
                    headers[number.start..split].fill(b'0');
                    headers[split..number.end].fill(b'9');
                }
                at = number.end;
            }
        }
        at += LONG;
    }
}

/// Whether the value of a `Content-Length` comes next, and the headers have not ended before.
fn is_length(headers: &[u8], begins_line: bool, mut is_blank: bool) -> bool {
    let begin = match headers.iter().rposition(|byte| *byte == b'\n') {
        Some(end) => end + 1,
        None if begins_line => 0,
        None => return false,
    };
    let (before, line) = headers.split_at(begin);
    let Some((name, rest)) = line.split_at_checked("content-length".len()) else {
        return false;
    };
    name.eq_ignore_ascii_case(b"content-length")
        && rest.trim_ascii_end() == b":"
        && blank_line(before, &mut is_blank).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What hyper is shown of these reads, and what of the target is put back.
    struct Reader {
        heads: Heads,
        hidden: Hidden,
    }

    impl Reader {
        fn new() -> Self {
            Self {
                heads: Heads::new(),
                hidden: Hidden::default(),
            }
        }

        fn read(&mut self, text: &str, expects_head: bool, body: u64) -> String {
            let mut bytes = text.as_bytes().to_vec();
            self.heads
                .read(&mut bytes, expects_head, body, &self.hidden);
            String::from_utf8(bytes).expect("text")
        }

        /// A head that is expected behind a body of so many bytes.
        fn head(&mut self, text: &str, body: u64) -> String {
            self.read(text, true, body)
        }

        fn raw(&self, shown: &str) -> Option<String> {
            let shown = shown.parse().expect("a target");
            self.hidden.take(Some(&shown)).map(|RawTarget(raw)| raw)
        }
    }

    const RAW: &str = "GET /a\"<`>b?c=\"<>`&d HTTP/1.1\r\nx: \"<`>\r\n\r\n";
    const SHOWN: &str = "GET /a____b?c=____&d HTTP/1.1\r\nx: \"<`>\r\n\r\n";

    #[test]
    fn a_target_gets_its_own_bytes_back_however_it_is_cut() {
        for cut in 0..RAW.len() {
            let mut reader = Reader::new();
            let (one, other) = RAW.split_at(cut);
            let shown = [one, other].map(|part| reader.head(part, 0)).concat();
            assert_eq!(shown, SHOWN, "{cut}");
            let raw = reader.raw("/a____b?c=____&d");
            assert_eq!(raw.as_deref(), Some("/a\"<`>b?c=\"<>`&d"), "{cut}");
            assert_eq!(reader.raw("/a____b"), None, "only once");
        }
    }

    #[test]
    fn a_fragment_of_which_hyper_says_nothing_is_not_put_back() {
        let mut reader = Reader::new();
        reader.head("GET /\"#\"\"\" HTTP/1.1\r\n\r\n", 0);
        assert_eq!(reader.raw("/_").as_deref(), Some("/\""));
    }

    #[test]
    fn nothing_but_paths_is_amended() {
        for line in [
            "G\"ET / HTTP/1.1",
            "GET a\"b HTTP/1.1",
            "GET http://a\"b/ HTTP/1.1",
            "GET / HTTP/1.1\"",
            "GET / \"",
            "\"",
            "GET  /\" HTTP/1.1",
        ] {
            let head = format!("{line}\r\nhost: \"\r\n\r\n");
            let mut reader = Reader::new();
            assert_eq!(reader.head(&head, 0), head);
            assert_eq!(reader.raw("/"), None);
        }
    }

    /// Each is a whole request, with what it says behind its head, and how many bytes of a body that makes.
    const BEFORE: [(&str, &str, u64); 7] = [
        ("GET / HTTP/1.1\r\n\r\n", "", 0),
        ("GET / HTTP/1.1\n\n", "", 0),
        ("POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n", "x\"", 2),
        ("GET / HTTP/1.1\r\ncontent-length: 4\r\n\r\n", "\r\n\r\n", 4),
        ("POST / HTTP/1.1\ncontent-length: 5\n\n", "GET /", 5),
        ("POST / HTTP/1.1\r\n\r\n", "1\r\n\"\r\n0\r\n\r\n", 1),
        ("POST / HTTP/1.1\r\n\r\n", "0\r\ntrailer: x\r\n\r\n", 0),
    ];

    #[test]
    fn a_head_is_found_behind_every_body() {
        for (head, rest, body) in BEFORE {
            for apart in [false, true] {
                let mut reader = Reader::new();
                if apart {
                    assert_eq!(reader.head(head, 0), head);
                    if !rest.is_empty() {
                        assert_eq!(reader.read(rest, false, 0), rest);
                    }
                } else {
                    let whole = [head, rest].concat();
                    assert_eq!(reader.head(&whole, 0), whole);
                }
                assert_eq!(reader.head(RAW, body), SHOWN, "{head:?} {rest:?} {apart}");
            }
        }
    }

    #[test]
    fn what_may_be_in_the_middle_of_a_head_is_left_alone() {
        for (head, rest, body) in BEFORE {
            for more in ["POST /x HTTP/1.1\r\nx: ", "POST /x HTTP/1.1", "P"] {
                let mut reader = Reader::new();
                reader.head(&[head, rest, more].concat(), 0);
                assert_eq!(reader.head(RAW, body), RAW, "{head:?} {rest:?}");
                // From here on it is certain again.
                assert_eq!(reader.head(RAW, 0), SHOWN, "{head:?} {rest:?}");
            }
        }
    }

    #[test]
    fn a_body_is_left_alone() {
        let mut reader = Reader::new();
        let long = "\r\ncontent-length: 99999999999999999999\r\n";
        for head in [
            "POST / HTTP/1.1\r\ncontent-length: 99\r\n\r\n",
            "GET / HTTP/1.1\r\ncontent-length: 99\r\n\r\n",
        ] {
            let whole = [head, RAW, long, "\r\n\r\n"].concat();
            assert_eq!(reader.head(&whole, 0), whole);
            assert_eq!(reader.read(RAW, false, 9), RAW);
            reader = Reader::new();
        }
    }

    /// What hyper is shown instead of this length.
    fn shown_length(line: &str) -> String {
        let mut reader = Reader::new();
        let shown = reader.head(
            &format!("POST / HTTP/1.1\r\na: b\r\n{line}\r\nc: d\r\n\r\n"),
            0,
        );
        let line = shown.split("\r\n").nth(2).expect("the header");
        line.to_owned()
    }

    #[test]
    fn a_length_that_does_not_fit_64_bits_becomes_the_largest_that_does() {
        let largest = u64::MAX.to_string();
        for (length, shown) in [
            (largest.as_str(), "09999999999999999999"),
            ("18446744073709551616", "09999999999999999999"),
            ("99999999999999999999", "09999999999999999999"),
            ("0000123456789012345678901", "0000009999999999999999999"),
        ] {
            for name in ["content-length: ", "Content-Length:", "CONTENT-LENGTH: \t"] {
                let line = format!("{name}{length}");
                assert_eq!(shown_length(&line), format!("{name}{shown}"));
            }
        }
        let endless = format!("content-length: {}", "7".repeat(10_000));
        let shown = shown_length(&endless);
        assert!(shown.ends_with("09999999999999999999") && shown.len() == endless.len());
        for line in [
            "content-length: 9999999999999999999",
            "content-length: 00000000000000000000000000000005",
            "x-content-length: 99999999999999999999",
            "content-length-x: 99999999999999999999",
            "content-length: -99999999999999999999",
            "content-length 99999999999999999999",
            "x: content-length: 99999999999999999999",
            "x: 9999999999999999999999999999999999999999999999999999",
        ] {
            assert_eq!(shown_length(line), line);
        }
    }

    #[test]
    fn a_length_is_found_wherever_it_stands_unless_it_is_cut() {
        let head = |before: usize, digits: &str| {
            let before = "y".repeat(before);
            format!("POST /{before} HTTP/1.1\r\nx: 123456\r\ncontent-length: {digits}\r\n\r\n")
        };
        let (digits, zeros) = ("9".repeat(20), "09999999999999999999");
        for before in 0..50 {
            let mut reader = Reader::new();
            assert_eq!(reader.head(&head(before, &digits), 0), head(before, zeros));
        }
        let whole = head(3, &digits);
        let number = whole.find(&digits).expect("it is there");
        for cut in 0..whole.len() {
            let mut reader = Reader::new();
            let shown = [&whole[..cut], &whole[cut..]].map(|part| reader.head(part, 0));
            let line_is_cut = (number - 15..=number + 20).contains(&cut);
            let expected = if line_is_cut {
                whole.clone()
            } else {
                head(3, zeros)
            };
            assert_eq!(shown.concat(), expected, "{cut}");
        }
    }
}
