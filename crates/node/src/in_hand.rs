//! The batch that the JavaScript of this thread works through. It is here for what does not cross with it: large texts, one
//! after the other, and texts that a handler passes on as they came, which need not be taken out of their strings again.
//!
//! A thread works a batch off before it takes the next one, of whichever worker.

use std::cell::RefCell;
use std::vec;

use wsbroker_engine::{Batch, LargeText, PackedText};

thread_local! {
    static IN_HAND: RefCell<InHand> = RefCell::default();
}

#[derive(Default)]
struct InHand {
    batch: Batch,
    /// Those that have not been given yet.
    large_texts: vec::IntoIter<LargeText>,
    last_large_text: Option<LargeText>,
}

/// A text message of the batch.
pub(crate) enum TextInHand<'a> {
    Packed(&'a [u8]),
    Large(&'a LargeText),
}

/// Takes this batch in hand, and leaves the one before.
pub(crate) fn take(mut batch: Batch) {
    IN_HAND.set(InHand {
        large_texts: batch.take_large_texts().into_iter(),
        batch,
        last_large_text: None,
    });
}

/// The records of the batch once more.
pub(crate) fn packed<R>(with: impl FnOnce(&[u8]) -> R) -> R {
    IN_HAND.with_borrow(|in_hand| with(in_hand.batch.packed()))
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

/// Runs `with` on the text message whose record is at this offset. Of large ones there is only the one that was given last.
pub(crate) fn with_text_at<R>(offset: usize, with: impl FnOnce(TextInHand<'_>) -> R) -> Option<R> {
    IN_HAND.with_borrow(|in_hand| {
        let text = match in_hand.batch.text_at(offset)? {
            PackedText::Here(text) => TextInHand::Packed(text),
            PackedText::Large => TextInHand::Large(in_hand.last_large_text.as_ref()?),
        };
        Some(with(text))
    })
}
