//! What a peer can do wrong, as data.

use super::close;

/// Makes the enum, its list and its table from one text, so that none of them can lack an entry.
macro_rules! violations {
    ($($(#[$doc:meta])* $variant:ident => $code:ident, $name:literal, $text:literal;)+) => {
        /// A breach of the protocol by the peer, found while decoding.
        ///
        /// The connection is failed with [`close_code`](Self::close_code) (RFC 6455 §7.1.7) and
        /// [`text`](Self::text) as the reason.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Violation {
            $($(#[$doc])* $variant,)+
        }

        impl Violation {
            /// Every violation there is, in the order of the declaration.
            pub const ALL: &[Violation] = &[$(Violation::$variant),+];

            /// The status code of the Close frame that answers it (§7.4.1): 1002, 1007 or 1009.
            pub const fn close_code(self) -> u16 {
                match self { $(Violation::$variant => close::$code,)+ }
            }

            /// A stable name in snake case, for counters and logs.
            pub const fn name(self) -> &'static str {
                match self { $(Violation::$variant => $name,)+ }
            }

            /// One line for a human; at most 123 bytes, so that it fits a Close frame whole (§5.5).
            pub const fn text(self) -> &'static str {
                match self { $(Violation::$variant => $text,)+ }
            }
        }
    };
}

violations! {
    /// §5.1: a client masks every frame, whatever is in it.
    UnmaskedFrame => PROTOCOL_ERROR, "unmasked_frame", "frame is not masked";
    /// §5.2: RSV1 to RSV3 are 0 unless an extension that gives them a meaning was negotiated.
    ReservedBit => PROTOCOL_ERROR, "reserved_bit", "reserved bit is set without an extension";
    /// §5.2: opcodes 3 to 7 and 11 to 15 are unassigned.
    ReservedOpcode => PROTOCOL_ERROR, "reserved_opcode", "opcode is reserved";
    /// §5.5: a control frame is not fragmented.
    FragmentedControl => PROTOCOL_ERROR, "fragmented_control", "control frame is fragmented";
    /// §5.5: a control frame carries at most 125 bytes.
    OversizedControl => PROTOCOL_ERROR, "oversized_control", "control frame is longer than 125 bytes";
    /// §5.2: the length is written in the fewest bytes that hold it.
    NonMinimalLength => PROTOCOL_ERROR, "non_minimal_length", "payload length is not in its shortest form";
    /// §5.2: the most significant bit of a 64-bit length is 0.
    LengthTooLarge => PROTOCOL_ERROR, "length_too_large", "payload length has its highest bit set";
    /// §5.4: a continuation frame, and no message has begun.
    UnexpectedContinuation => PROTOCOL_ERROR, "unexpected_continuation", "continuation frame without a message to continue";
    /// §5.4: a new message in the middle of another: fragments of messages are not interleaved.
    ExpectedContinuation => PROTOCOL_ERROR, "expected_continuation", "new message before the last one was finished";
    /// §8.1: a text message is not UTF-8, or ends inside a code point.
    InvalidUtf8 => INVALID_PAYLOAD, "invalid_utf8", "text message is not valid UTF-8";
    /// RFC 7692 §7.2.2: a compressed message is not DEFLATE, or ends inside a block.
    InvalidDeflate => INVALID_PAYLOAD, "invalid_deflate", "compressed message is not valid DEFLATE data";
    /// §5.5.1: the body of a Close frame is empty or begins with a code of two bytes.
    InvalidCloseLength => PROTOCOL_ERROR, "invalid_close_length", "close frame has a body of one byte";
    /// §7.4: the status code is out of range, or one that never goes over the wire.
    InvalidCloseCode => PROTOCOL_ERROR, "invalid_close_code", "close code is not allowed in a close frame";
    /// §5.5.1: the reason of a Close frame is not UTF-8.
    InvalidCloseReason => INVALID_PAYLOAD, "invalid_close_reason", "close reason is not valid UTF-8";
    /// §7.4.1: the message is, or says that it will be, larger than this server takes.
    MessageTooBig => MESSAGE_TOO_BIG, "message_too_big", "message is larger than the limit";
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Violation {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_violation_has_its_own_name_and_a_text_that_fits_a_close_frame() {
        let names: HashSet<_> = Violation::ALL.iter().map(|v| v.name()).collect();
        let texts: HashSet<_> = Violation::ALL.iter().map(|v| v.text()).collect();
        assert_eq!(names.len(), Violation::ALL.len());
        assert_eq!(texts.len(), Violation::ALL.len());
        for violation in Violation::ALL {
            let name = violation.name();
            assert!(
                name.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{name}"
            );
            assert!(
                (1..=close::MAX_REASON).contains(&violation.text().len()),
                "{name}"
            );
            assert_eq!(violation.to_string(), violation.text());
        }
    }

    #[test]
    fn every_violation_is_answered_with_a_code_that_may_be_sent() {
        for violation in Violation::ALL {
            assert!(
                close::is_valid_to_send(violation.close_code()),
                "{violation:?}"
            );
        }
    }
}
