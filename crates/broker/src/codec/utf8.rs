//! UTF-8 (RFC 6455 §8.1): of a message in one piece, and of one that arrives in pieces cut anywhere.

use super::Violation;

/// Checks a whole text and says whether it is ASCII only.
///
/// ASCII is looked for first: it is what most messages are, that check is the cheaper one and proves both.
#[inline]
pub(super) fn check(text: &[u8]) -> Result<bool, Violation> {
    if text.is_ascii() {
        return Ok(true);
    }
    match simdutf8::basic::from_utf8(text) {
        Ok(_) => Ok(false),
        Err(_) => Err(Violation::InvalidUtf8),
    }
}

/// Checks a text piece by piece; a violation shows at the first byte that no continuation can mend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Utf8Stream {
    /// The beginning of a code point that the next piece must go on with: at most three of its four bytes.
    pending: [u8; 3],
    pending_len: u8,
    ascii: bool,
}

impl Utf8Stream {
    pub(super) const fn new() -> Self {
        Self {
            pending: [0; 3],
            pending_len: 0,
            ascii: true,
        }
    }

    /// Takes the next piece of the text.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), Violation> {
        let rest = self.finish_pending(piece)?;
        if rest.is_ascii() {
            return Ok(());
        }
        self.ascii = false;
        let Err(error) = simdutf8::compat::from_utf8(rest) else {
            return Ok(());
        };
        if error.error_len().is_some() {
            return Err(Violation::InvalidUtf8);
        }
        // An incomplete code point at the end is a lead byte and at most two more.
        let tail = &rest[error.valid_up_to()..];
        self.pending[..tail.len()].copy_from_slice(tail);
        self.pending_len = tail.len() as u8;
        Ok(())
    }

    /// Ends the text: it must not stop inside a code point. Says whether it was ASCII only.
    pub(super) fn finish(self) -> Result<bool, Violation> {
        match self.pending_len {
            0 => Ok(self.ascii),
            _ => Err(Violation::InvalidUtf8),
        }
    }

    /// Completes the pending code point with bytes of `piece`, as far as they go; returns those left.
    fn finish_pending<'a>(&mut self, piece: &'a [u8]) -> Result<&'a [u8], Violation> {
        let pending_len = usize::from(self.pending_len);
        if pending_len == 0 {
            return Ok(piece);
        }
        let mut point = [0; 4];
        point[..pending_len].copy_from_slice(&self.pending[..pending_len]);
        for (taken, &byte) in piece.iter().enumerate() {
            let len = pending_len + taken + 1;
            point[len - 1] = byte;
            match std::str::from_utf8(&point[..len]) {
                Ok(_) => {
                    self.pending_len = 0;
                    return Ok(&piece[taken + 1..]);
                }
                Err(error) if error.error_len().is_some() => return Err(Violation::InvalidUtf8),
                // Fewer than four bytes: four are a code point or an error.
                Err(_) => {
                    self.pending[len - 1] = byte;
                    self.pending_len = len as u8;
                }
            }
        }
        Ok(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the stream must answer after `text`, by the standard library: `None` is an error, else whether
    /// the text may end here.
    fn reference(text: &[u8]) -> Option<bool> {
        match std::str::from_utf8(text) {
            Ok(_) => Some(true),
            Err(error) if error.error_len().is_none() => Some(false),
            Err(_) => None,
        }
    }

    fn pushed(pieces: &[&[u8]]) -> Option<bool> {
        let mut stream = Utf8Stream::new();
        for piece in pieces {
            stream.push(piece).ok()?;
        }
        Some(stream.finish().is_ok())
    }

    /// Lead bytes, boundaries of every range in the UTF-8 table, and their neighbours.
    const EDGES: [u8; 20] = [
        0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xED,
        0xEF, 0xF0, 0xF4, 0xF5, 0xFF,
    ];

    #[test]
    fn every_short_sequence_of_edge_bytes_cut_anywhere_equals_the_standard_library() {
        for n in 0..EDGES.len().pow(4) {
            let text: [u8; 4] =
                std::array::from_fn(|i| EDGES[n / EDGES.len().pow(i as u32) % EDGES.len()]);
            let expected = reference(&text);
            for cut in 0..=text.len() {
                assert_eq!(
                    pushed(&[&text[..cut], &text[cut..]]),
                    expected,
                    "{text:x?} cut at {cut}"
                );
            }
            let bytes: Vec<&[u8]> = text.chunks(1).collect();
            assert_eq!(pushed(&bytes), expected, "{text:x?} byte by byte");
        }
    }

    #[test]
    fn a_violation_shows_at_its_first_impossible_byte() {
        // A surrogate is impossible from its second byte on, a code point over 10FFFF too (Autobahn 6.4).
        for (possible, impossible) in [
            (&b"\xCE\xBA\xED"[..], 0xA0),
            (b"\xF4", 0x90),
            (b"\xE0", 0x80),
            (b"ab", 0xC0),
        ] {
            let mut stream = Utf8Stream::new();
            assert_eq!(stream.push(possible), Ok(()));
            assert_eq!(stream.push(&[impossible]), Err(Violation::InvalidUtf8));
        }
    }

    #[test]
    fn ascii_is_told_for_a_whole_text_and_for_pieces() {
        for (text, ascii) in [
            ("", true),
            ("plain", true),
            ("ünïcödé", false),
            ("plain till the last é", false),
        ] {
            assert_eq!(check(text.as_bytes()), Ok(ascii));
            for cut in 0..=text.len() {
                let mut stream = Utf8Stream::new();
                stream
                    .push(&text.as_bytes()[..cut])
                    .expect("a piece of valid text");
                stream
                    .push(&text.as_bytes()[cut..])
                    .expect("a piece of valid text");
                assert_eq!(stream.finish(), Ok(ascii), "{text} cut at {cut}");
            }
        }
        assert_eq!(check(b"\xFF"), Err(Violation::InvalidUtf8));
    }
}
