//! `Sec-WebSocket-Extensions` (RFC 6455 §9.1) and what permessage-deflate agrees on there (RFC 7692 §5, §7.1).

use std::fmt;
use std::num::NonZeroU8;

/// The one extension this server speaks.
const PERMESSAGE_DEFLATE: &str = "permessage-deflate";

/// The largest window of DEFLATE, and the one without an agreement: 2^15 bytes (RFC 1951 §2).
pub const MAX_WINDOW_BITS: u8 = 15;

/// The smallest window that can be sent: zlib has none of 2^8 bytes, and answers a wish for it with twice as much.
pub const MIN_WINDOW_BITS: u8 = 9;

/// The smallest window that can be named (§7.1.2).
const LEAST_WINDOW_BITS: u8 = 8;

/// What a server wants of permessage-deflate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeflatePolicy {
    /// The largest window of each direction, as a power of two: [`MIN_WINDOW_BITS`] to [`MAX_WINDOW_BITS`]. A client can be
    /// held to it only if it offers `client_max_window_bits`.
    pub window_bits: u8,
    /// A message may refer back to those before it (context takeover), in both directions. Without it the client is told
    /// not to, which every client must obey (§7.1.1.2).
    pub takeover: bool,
}

/// What was agreed on for one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerMessageDeflate {
    /// What the server sends.
    pub server: Direction,
    /// What the client sends.
    pub client: Direction,
}

// Each socket has one.
const _: () = assert!(size_of::<Option<PerMessageDeflate>>() == 2);

/// What was agreed on for the messages of one direction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Direction(NonZeroU8);

impl Direction {
    const TAKEOVER: u8 = 0x80;

    /// `window_bits`: 1 to 15; others become the nearest. `takeover`: messages may refer back to earlier ones.
    pub fn new(window_bits: u8, takeover: bool) -> Self {
        let takeover = if takeover { Self::TAKEOVER } else { 0 };
        let window_bits = NonZeroU8::new(window_bits.min(MAX_WINDOW_BITS));
        Self(window_bits.unwrap_or(NonZeroU8::MIN) | takeover)
    }

    /// The window as a power of two: how far back a message may refer.
    pub const fn window_bits(self) -> u8 {
        self.0.get() & !Self::TAKEOVER
    }

    /// The window in bytes.
    pub const fn window(self) -> usize {
        1 << self.window_bits()
    }

    /// Messages may refer back to earlier ones.
    pub const fn takeover(self) -> bool {
        self.0.get() & Self::TAKEOVER != 0
    }
}

impl fmt::Debug for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Direction")
            .field("window_bits", &self.window_bits())
            .field("takeover", &self.takeover())
            .finish()
    }
}

/// An offer that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedOffer {
    /// What it means for the connection.
    pub deflate: PerMessageDeflate,
    /// The value of `Sec-WebSocket-Extensions` in the answer.
    pub response: String,
}

/// The header does not follow its grammar, for which the handshake fails (RFC 6455 §9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedExtensions;

/// Answers the offers of a client: the first one that can be met, in the order of its headers (RFC 7692 §5). `None`:
/// there was none, and the connection has no extension.
///
/// An offer with a parameter that is unknown, stands twice or has no valid value is declined (§7.1), and so is
/// `server_max_window_bits=8`.
///
/// # Errors
/// One of the values is not a list of extensions.
pub fn negotiate<'a>(
    values: impl IntoIterator<Item = &'a str>,
    policy: DeflatePolicy,
) -> Result<Option<AcceptedOffer>, MalformedExtensions> {
    let mut accepted = None;
    for value in values {
        let mut scanner = Scanner { rest: value };
        // Read to the end even when one was accepted: whether the header is sound does not depend on the order.
        while let Some(offer) = scanner.extension()? {
            if accepted.is_none() {
                accepted = offer.map(|offer| offer.accept(policy));
            }
        }
    }
    Ok(accepted)
}

/// The parameters of one offer that can be met.
#[derive(Clone, Copy, Debug, Default)]
struct Offer {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    /// Offered, and perhaps with the window that the client uses at most anyway.
    client_max_window_bits: Option<Option<u8>>,
}

impl Offer {
    /// Takes one parameter; `None` when the offer has to be declined for it.
    fn with(mut self, name: &str, value: Option<&str>) -> Option<Self> {
        let first = match (name, value) {
            ("server_no_context_takeover", None) => {
                !std::mem::replace(&mut self.server_no_context_takeover, true)
            }
            ("client_no_context_takeover", None) => {
                !std::mem::replace(&mut self.client_no_context_takeover, true)
            }
            ("server_max_window_bits", Some(bits)) => {
                let bits = window_bits(bits).filter(|bits| *bits >= MIN_WINDOW_BITS)?;
                self.server_max_window_bits.replace(bits).is_none()
            }
            ("client_max_window_bits", None) => self.client_max_window_bits.replace(None).is_none(),
            ("client_max_window_bits", Some(bits)) => {
                let bits = window_bits(bits)?;
                self.client_max_window_bits.replace(Some(bits)).is_none()
            }
            _ => return None,
        };
        first.then_some(self)
    }

    fn accept(self, policy: DeflatePolicy) -> AcceptedOffer {
        let mut response = PERMESSAGE_DEFLATE.to_owned();
        let server_takeover = policy.takeover && !self.server_no_context_takeover;
        if !server_takeover {
            response.push_str("; server_no_context_takeover");
        }
        let client_takeover = policy.takeover && !self.client_no_context_takeover;
        if !client_takeover {
            response.push_str("; client_no_context_takeover");
        }
        let asked = self.server_max_window_bits;
        let server_window_bits = asked.unwrap_or(MAX_WINDOW_BITS).min(policy.window_bits);
        // A wish is answered even if it is for the largest (§7.1.2.1).
        if asked.is_some() || server_window_bits < MAX_WINDOW_BITS {
            response.push_str(&format!("; server_max_window_bits={server_window_bits}"));
        }
        let client_window_bits = self.client_window(policy, client_takeover, &mut response);
        AcceptedOffer {
            deflate: PerMessageDeflate {
                server: Direction::new(server_window_bits, server_takeover),
                client: Direction::new(client_window_bits, client_takeover),
            },
            response,
        }
    }

    /// The client is held to our window where that saves memory and it has offered to be (§7.1.2.2).
    fn client_window(
        self,
        policy: DeflatePolicy,
        client_takeover: bool,
        response: &mut String,
    ) -> u8 {
        let own = self.client_max_window_bits.flatten();
        let own = own.unwrap_or(MAX_WINDOW_BITS);
        let offered = self.client_max_window_bits.is_some();
        if client_takeover && offered && policy.window_bits < own {
            let bits = policy.window_bits;
            response.push_str(&format!("; client_max_window_bits={bits}"));
            return bits;
        }
        // A client on zlib that says 8 means 9.
        own.max(MIN_WINDOW_BITS)
    }
}

/// A number from 8 to 15 as §7.1.2 wants it: decimal, without leading zeros.
fn window_bits(value: &str) -> Option<u8> {
    let sound = !value.starts_with('0') && value.bytes().all(|byte| byte.is_ascii_digit());
    let bits = value.parse().ok().filter(|_| sound)?;
    (LEAST_WINDOW_BITS..=MAX_WINDOW_BITS)
        .contains(&bits)
        .then_some(bits)
}

/// Reads a list of extensions (RFC 6455 §9.1) from its front.
struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    /// The next extension: the offer it is, or `Some(None)` for one to decline. `None` at the end of the list.
    fn extension(&mut self) -> Result<Option<Option<Offer>>, MalformedExtensions> {
        // A list may have empty elements (RFC 9110 §5.6.1).
        while self.skip(',') {}
        if self.rest.is_empty() {
            return Ok(None);
        }
        let name = self.token()?;
        let mut offer = (name == PERMESSAGE_DEFLATE).then(Offer::default);
        while self.skip(';') {
            let name = self.token()?;
            let value = match self.skip('=') {
                true => Some(self.value()?),
                false => None,
            };
            offer = offer.and_then(|offer| offer.with(name, value.as_deref()));
        }
        match self.rest.is_empty() || self.rest.starts_with(',') {
            true => Ok(Some(offer)),
            false => Err(MalformedExtensions),
        }
    }

    /// Skips white space, the character, and white space behind it; whether the character was there.
    fn skip(&mut self, wanted: char) -> bool {
        let rest = self.rest.trim_start_matches([' ', '\t']);
        let found = rest.strip_prefix(wanted);
        self.rest = found.map_or(rest, |rest| rest.trim_start_matches([' ', '\t']));
        found.is_some()
    }

    fn token(&mut self) -> Result<&'a str, MalformedExtensions> {
        let end = self.rest.find(|c| !is_token(c)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        match token {
            "" => Err(MalformedExtensions),
            _ => Ok(token),
        }
    }

    /// A token, or a quoted string that is one inside.
    fn value(&mut self) -> Result<String, MalformedExtensions> {
        let Some(quoted) = self.rest.strip_prefix('"') else {
            return self.token().map(str::to_owned);
        };
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        while let Some((at, character)) = characters.next() {
            let character = match character {
                '"' if value.is_empty() => break,
                '"' => {
                    self.rest = &quoted[at + 1..];
                    return Ok(value);
                }
                '\\' => match characters.next() {
                    Some((_, escaped)) => escaped,
                    None => break,
                },
                plain => plain,
            };
            if !is_token(character) {
                break;
            }
            value.push(character);
        }
        Err(MalformedExtensions)
    }
}

/// RFC 9110 §5.6.2.
fn is_token(character: char) -> bool {
    character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(character)
}

impl fmt::Display for MalformedExtensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sec-WebSocket-Extensions is not a list of extensions")
    }
}

impl std::error::Error for MalformedExtensions {}
