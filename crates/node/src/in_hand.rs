//! The batch that the JavaScript of this thread works through. It is here for what does not cross with it, large texts, one
//! after the other; and for messages that a handler passes on, whose data is known by its place then.
//!
//! A thread works a batch off before it takes the next one, of whichever worker.

use std::cell::RefCell;
use std::{slice, vec};

use wsbroker_engine::{Batch, LargeText, PackedMessage};

thread_local! {
    static IN_HAND: RefCell<InHand> = RefCell::default();
}

#[derive(Default)]
struct InHand {
    batch: Batch,
    /// Where JavaScript has the records, if handlers get bytes of them.
    copy: Option<BatchCopy>,
    /// Those that have not been given yet.
    large_texts: vec::IntoIter<LargeText>,
    last_large_text: Option<LargeText>,
}

/// Memory of JavaScript's that the records of a batch were copied to.
pub(crate) struct BatchCopy {
    pub(crate) start: *const u8,
    pub(crate) length: usize,
}

/// A message of the batch.
pub(crate) enum MessageInHand<'a> {
    /// A text as it came.
    Text(&'a [u8]),
    /// The same.
    LargeText(&'a LargeText),
    /// Bytes as they are now: handlers may change them.
    Bytes(&'a [u8]),
}

/// Takes this batch in hand, and leaves the one before.
pub(crate) fn take(mut batch: Batch, copy: Option<BatchCopy>) {
    IN_HAND.set(InHand {
        large_texts: batch.take_large_texts().into_iter(),
        batch,
        copy,
        last_large_text: None,
    });
}

/// Gives JavaScript the records once more; the copy that it had is not used from here on.
pub(crate) fn copy_again<T, E>(
    make_copy: impl FnOnce(&[u8]) -> Result<(T, BatchCopy), E>,
) -> Result<T, E> {
    IN_HAND.with_borrow_mut(|in_hand| {
        in_hand.copy = None;
        let (given, copy) = make_copy(in_hand.batch.packed())?;
        in_hand.copy = Some(copy);
        Ok(given)
    })
}

pub(crate) fn leave() {
    IN_HAND.take();
}

/// Each is given once.
pub(crate) fn next_large_text() -> Option<LargeText> {
    IN_HAND.with_borrow_mut(|in_hand| {
        in_hand.last_large_text = in_hand.large_texts.next();
        in_hand.last_large_text.clone()
    })
}

/// Runs `with` on the message whose record is at this offset; no JavaScript may run meanwhile. Of large texts there is only
/// the one that was given last, and of a binary message JavaScript must still have the bytes.
pub(crate) fn with_message_at<R>(
    offset: usize,
    with: impl FnOnce(MessageInHand<'_>) -> R,
) -> Option<R> {
    IN_HAND.with_borrow(|in_hand| {
        let message = match in_hand.batch.message_at(offset)? {
            PackedMessage::Text(text) => MessageInHand::Text(text),
            PackedMessage::LargeText => MessageInHand::LargeText(in_hand.last_large_text.as_ref()?),
            PackedMessage::Bytes(place) => {
                let BatchCopy { start, length } = *in_hand.copy.as_ref()?;
                if place.end > length {
                    return None;
                }
                // SAFETY: there are so many bytes. The TypeScript gives the offset of bytes only while the handler's view
                // of them, which it holds in its hands then, has any, and nothing of the application's runs from there to
                // here: the buffer has not been transferred, and keeps its memory, which stays where it is. That
                // it is this copy's follows from who asks for a copy: the batch that is worked off, which reads its views
                // from the last one, and leaves the hand when it takes another. Nobody writes meanwhile.
                MessageInHand::Bytes(unsafe {
                    slice::from_raw_parts(start.add(place.start), place.len())
                })
            }
        };
        Some(with(message))
    })
}
