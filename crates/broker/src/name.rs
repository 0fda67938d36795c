//! Channel names: bytes, parsed once.

use std::fmt;
use std::sync::Arc;

/// The longest channel name, in bytes.
pub const MAX_NAME_BYTES: usize = 512;

/// The name of a channel: 1 to 512 bytes of any kind. A text name stands for its UTF-8. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelName(Arc<[u8]>);

/// A channel name that is empty or too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidName {
    /// How many bytes the refused name had.
    pub length: usize,
}

impl ChannelName {
    /// # Errors
    /// [`InvalidName`] unless the name has 1 to [`MAX_NAME_BYTES`] bytes.
    pub fn new(name: &[u8]) -> Result<Self, InvalidName> {
        if (1..=MAX_NAME_BYTES).contains(&name.len()) {
            Ok(Self(name.into()))
        } else {
            Err(InvalidName { length: name.len() })
        }
    }

    /// The bytes of the name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChannelName(\"{}\")", self.0.escape_ascii())
    }
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a channel name has 1 to {MAX_NAME_BYTES} bytes, this one has {}",
            self.length
        )
    }
}

impl std::error::Error for InvalidName {}
