//! Close codes (RFC 6455 §7.4 and the IANA registry it founds) and the body of a Close frame (§5.5.1).

use super::Violation;

/// The purpose of the connection is fulfilled.
pub const NORMAL: u16 = 1000;
/// The server goes down, or a page is left.
pub const GOING_AWAY: u16 = 1001;
/// The peer broke the protocol.
pub const PROTOCOL_ERROR: u16 = 1002;
/// The kind of data is not accepted here.
pub const UNSUPPORTED_DATA: u16 = 1003;
/// Stands for a Close frame without a code; never on the wire.
pub const NO_STATUS: u16 = 1005;
/// Stands for a connection that ended without a Close frame; never on the wire.
pub const ABNORMAL: u16 = 1006;
/// The bytes do not fit the type of the message.
pub const INVALID_PAYLOAD: u16 = 1007;
/// A rule of the application was broken.
pub const POLICY_VIOLATION: u16 = 1008;
/// The message is larger than the receiver takes.
pub const MESSAGE_TOO_BIG: u16 = 1009;
/// A client misses an extension it asked for.
pub const MANDATORY_EXTENSION: u16 = 1010;
/// The server met a condition it did not expect.
pub const INTERNAL_ERROR: u16 = 1011;
/// The service restarts.
pub const SERVICE_RESTART: u16 = 1012;
/// The server is overloaded, or the peer reads too slowly.
pub const TRY_AGAIN_LATER: u16 = 1013;
/// A gateway got an invalid answer from the server behind it.
pub const BAD_GATEWAY: u16 = 1014;
/// Stands for a failed TLS handshake; never on the wire.
pub const TLS_HANDSHAKE: u16 = 1015;

/// The most bytes a reason may have: a control frame's 125 without the code's two (§5.5).
pub const MAX_REASON: usize = 123;

/// One row of [`CLOSE_CODES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseCode {
    /// The number in the frame and in the close event.
    pub code: u16,
    /// The name in the IANA registry.
    pub name: &'static str,
    /// One line that says when it is seen.
    pub text: &'static str,
}

/// Every registered close code, by number. 3000 to 3999 belong to libraries and frameworks, 4000 to 4999 to
/// applications (§7.4.2); they have no rows.
#[rustfmt::skip] // a table reads as rows
pub const CLOSE_CODES: &[CloseCode] = &[
    CloseCode { code: NORMAL, name: "Normal Closure", text: "the purpose of the connection is fulfilled" },
    CloseCode { code: GOING_AWAY, name: "Going Away", text: "the server goes down, or the page was left" },
    CloseCode { code: PROTOCOL_ERROR, name: "Protocol error", text: "the peer broke the protocol" },
    CloseCode { code: UNSUPPORTED_DATA, name: "Unsupported Data", text: "this kind of data is not accepted" },
    CloseCode { code: NO_STATUS, name: "No Status Rcvd", text: "the Close frame had no code; only in events, never sent" },
    CloseCode { code: ABNORMAL, name: "Abnormal Closure", text: "the connection ended without a Close frame; only in events, never sent" },
    CloseCode { code: INVALID_PAYLOAD, name: "Invalid frame payload data", text: "a text message or close reason was not UTF-8" },
    CloseCode { code: POLICY_VIOLATION, name: "Policy Violation", text: "a rule of the application was broken" },
    CloseCode { code: MESSAGE_TOO_BIG, name: "Message Too Big", text: "a message was larger than the receiver takes" },
    CloseCode { code: MANDATORY_EXTENSION, name: "Mandatory Ext.", text: "the client misses an extension it asked for" },
    CloseCode { code: INTERNAL_ERROR, name: "Internal Error", text: "the server met a condition it did not expect" },
    CloseCode { code: SERVICE_RESTART, name: "Service Restart", text: "the service restarts" },
    CloseCode { code: TRY_AGAIN_LATER, name: "Try Again Later", text: "the server is overloaded, or the peer reads too slowly" },
    CloseCode { code: BAD_GATEWAY, name: "Bad Gateway", text: "a gateway got an invalid answer from the server behind it" },
    CloseCode { code: TLS_HANDSHAKE, name: "TLS handshake", text: "the TLS handshake failed; only in events, never sent" },
];

/// Whether a peer's Close frame may carry `code`: 1000 to 1003, 1007 to 1014, 3000 to 4999 (§7.4).
///
/// 1004 has no meaning yet; 1005, 1006 and 1015 say how a connection ended and never go over the wire.
pub const fn is_valid_from_peer(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Whether an application may close a connection with `code`: what a peer would take.
pub const fn is_valid_to_send(code: u16) -> bool {
    is_valid_from_peer(code)
}

/// Reads the unmasked body of a Close frame: nothing, or a code and a reason.
pub(super) fn parse(payload: &[u8]) -> Result<(Option<u16>, &str), Violation> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return match payload {
            [] => Ok((None, "")),
            _ => Err(Violation::InvalidCloseLength),
        };
    };
    let code = u16::from_be_bytes(*code);
    if !is_valid_from_peer(code) {
        return Err(Violation::InvalidCloseCode);
    }
    let reason = std::str::from_utf8(reason).map_err(|_| Violation::InvalidCloseReason)?;
    Ok((Some(code), reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_knows_every_registered_code_but_1004() {
        let codes: Vec<u16> = CLOSE_CODES.iter().map(|row| row.code).collect();
        let expected: Vec<u16> = (1000..=1015).filter(|code| *code != 1004).collect();
        assert_eq!(codes, expected);
    }

    #[test]
    fn a_code_is_valid_exactly_when_it_may_go_over_the_wire() {
        let invalid = |code| {
            code < 1000
                || [1004, 1005, 1006, 1015].contains(&code)
                || (1016..3000).contains(&code)
                || code >= 5000
        };
        for code in 0..=u16::MAX {
            assert_eq!(is_valid_from_peer(code), !invalid(code), "{code}");
            assert_eq!(is_valid_to_send(code), !invalid(code), "{code}");
        }
    }

    #[test]
    fn a_close_body_is_nothing_or_a_code_and_a_reason() {
        assert_eq!(parse(b""), Ok((None, "")));
        assert_eq!(parse(b"\x03\xe8"), Ok((Some(1000), "")));
        assert_eq!(
            parse(b"\x0f\xa0gr\xc3\xbc\xc3\x9fe"),
            Ok((Some(4000), "grüße"))
        );
        assert_eq!(parse(b"\x03"), Err(Violation::InvalidCloseLength));
        assert_eq!(parse(b"\x03\xed"), Err(Violation::InvalidCloseCode));
        assert_eq!(parse(b"\x03\xe8\xc3"), Err(Violation::InvalidCloseReason));
    }

    #[test]
    fn a_bad_code_is_reported_before_a_bad_reason() {
        assert_eq!(parse(b"\x00\x00\xff"), Err(Violation::InvalidCloseCode));
    }
}
