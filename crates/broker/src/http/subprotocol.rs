//! Subprotocols (RFC 6455 section 1.9): what the client offers, what this server speaks, and what is chosen.

use std::fmt;
use std::str::FromStr;

/// So many names of an offer are looked at. Clients offer a handful; a header full of commas is no reason to compare
/// for long.
const MAX_OFFERED: usize = 100;

/// The name of a subprotocol: a token in the sense of RFC 9110 section 5.6.2. Names are compared exactly.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subprotocol(Box<str>);

/// This is no name of a subprotocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidSubprotocol;

impl Subprotocol {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Subprotocol {
    type Err = InvalidSubprotocol;

    fn from_str(name: &str) -> Result<Self, InvalidSubprotocol> {
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(InvalidSubprotocol);
        }
        Ok(Self(name.into()))
    }
}

impl fmt::Display for InvalidSubprotocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a subprotocol is made of letters, digits and !#$%&'*+-.^_`|~")
    }
}

impl std::error::Error for InvalidSubprotocol {}

/// The first of the server's that the client offers. The order is the server's, for it knows what a subprotocol costs
/// and which it would rather be rid of.
pub(crate) fn choose<'a>(spoken: &'a [Subprotocol], offered: &[&str]) -> Option<&'a str> {
    let mut spoken = spoken.iter().map(Subprotocol::as_str);
    spoken.find(|name| offered.contains(name))
}

/// The names in values of `Sec-WebSocket-Protocol`. One that is not among them would make the client fail the
/// connection (RFC 6455 section 4.1).
pub(crate) fn offered<'a>(values: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a str> {
    values
        .filter_map(|value| std::str::from_utf8(value).ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .take(MAX_OFFERED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken(names: &[&str]) -> Vec<Subprotocol> {
        let parsed = names.iter().map(|name| name.parse().expect("a token"));
        parsed.collect()
    }

    fn chosen(names_spoken: &[&str], values: &[&str]) -> Option<String> {
        let offered: Vec<_> = offered(values.iter().map(|value| value.as_bytes())).collect();
        choose(&spoken(names_spoken), &offered).map(str::to_owned)
    }

    #[test]
    fn the_servers_first_that_is_offered_is_chosen() {
        let ours = ["v2", "v1"];
        assert_eq!(chosen(&ours, &["v1, v2"]).as_deref(), Some("v2"));
        assert_eq!(chosen(&ours, &["x", "v1 ,y"]).as_deref(), Some("v1"));
        assert_eq!(chosen(&ours, &["V2,v", "v22"]), None, "exactly");
        assert_eq!(chosen(&ours, &[]), None);
        assert_eq!(chosen(&[], &["v1"]), None);
    }

    #[test]
    fn a_header_full_of_names_is_not_read_to_its_end() {
        let endless = "x,".repeat(MAX_OFFERED - 1);
        assert_eq!(
            chosen(&["v"], &[&format!("{endless}v")]).as_deref(),
            Some("v")
        );
        assert_eq!(chosen(&["v"], &[&format!("{endless}x,v")]), None);
    }

    #[test]
    fn a_name_is_a_token() {
        for name in ["", "a b", "a,b", "a/b", "ä", "a\n", "\"a\"", "(a)"] {
            assert_eq!(
                name.parse::<Subprotocol>(),
                Err(InvalidSubprotocol),
                "{name}"
            );
        }
        assert!("graphql-transport-ws".parse::<Subprotocol>().is_ok());
        assert!("v10.stomp".parse::<Subprotocol>().is_ok());
    }
}
