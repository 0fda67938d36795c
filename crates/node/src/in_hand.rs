//! The batch that the JavaScript of this thread works through. It is here for what does not cross with it: large texts, one
//! after the other, and data that a handler passes on as it came, which need not be taken out of its value again.
//!
//! A thread works a batch off before it takes the next one, of whichever worker.

use std::cell::RefCell;
use std::sync::Arc;
use std::vec;

use wsbroker_engine::{Batch, LargeText, PackedData};

use crate::lent::Lent;

thread_local! {
    static IN_HAND: RefCell<InHand> = RefCell::default();
}

#[derive(Default)]
struct InHand {
    records: Records,
    /// Those that have not been given yet.
    large_texts: vec::IntoIter<LargeText>,
    last_large_text: Option<LargeText>,
}

/// The records of a batch.
pub(crate) enum Records {
    /// JavaScript has a copy of them, and may have written to it.
    Copied(Batch),
    /// JavaScript has them, and may have written there.
    Lent(Arc<Lent>),
}

impl Default for Records {
    fn default() -> Self {
        Self::Copied(Batch::default())
    }
}

/// The data of a message of the batch.
pub(crate) enum DataInHand<'a> {
    Text(&'a [u8]),
    LargeText(&'a LargeText),
    Bytes(&'a [u8]),
}

/// Takes this batch in hand, and leaves the one before.
pub(crate) fn take(records: Records, large_texts: Vec<LargeText>) {
    IN_HAND.set(InHand {
        records,
        large_texts: large_texts.into_iter(),
        last_large_text: None,
    });
}

/// The records of the batch once more.
pub(crate) fn packed<R>(with: impl FnOnce(&[u8]) -> R) -> R {
    IN_HAND.with_borrow(|in_hand| match &in_hand.records {
        Records::Copied(batch) => with(batch.packed()),
        Records::Lent(lent) => lent.with(with),
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

/// Runs `with` on the data of the message whose record is at this offset. Of large texts there is only the one that was given
/// last. Bytes may be other ones by now, and of a copied batch only JavaScript has those: `None`. So is what was a text, and has
/// been written to as only one who leaves the view that a handler got can do.
pub(crate) fn with_data_at<R>(offset: usize, with: impl FnOnce(DataInHand<'_>) -> R) -> Option<R> {
    IN_HAND.with_borrow(|in_hand| {
        let with_data = |packed: &[u8], is_lent: bool| {
            let data = match Batch::data_at(packed, offset)? {
                PackedData::Text(text) if is_lent && str::from_utf8(text).is_err() => return None,
                PackedData::Text(text) => DataInHand::Text(text),
                PackedData::LargeText => DataInHand::LargeText(in_hand.last_large_text.as_ref()?),
                PackedData::Bytes(bytes) if is_lent => DataInHand::Bytes(bytes),
                PackedData::Bytes(_) => return None,
            };
            Some(with(data))
        };
        match &in_hand.records {
            Records::Copied(batch) => with_data(batch.packed(), false),
            Records::Lent(lent) => lent.with(|packed| with_data(packed, true)),
        }
    })
}
