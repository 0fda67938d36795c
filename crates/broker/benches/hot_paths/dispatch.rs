//! One read, from its bytes to the events that a worker walks through.

use divan::Bencher;
use divan::counter::ItemsCount;
use wsbroker_engine::bench::Dispatching;

use crate::frames::{Content, Reads};

/// A read that is full of messages of so many bytes.
#[divan::bench(args = [64, 1024, 16 * 1024])]
fn dispatch_batch(bencher: Bencher<'_, '_>, size: usize) {
    let reads = Reads::new(Content::Ascii, size);
    dispatch(bencher, &reads.chunks[0], reads.messages);
}

/// One message, as it comes where each waits for its answer.
#[divan::bench]
fn dispatch_one(bencher: Bencher<'_, '_>) {
    let reads = Reads::new(Content::Ascii, 64);
    let frame = &reads.chunks[0][..reads.chunks[0].len() / reads.messages];
    dispatch(bencher, frame, 1);
}

fn dispatch(bencher: Bencher<'_, '_>, read: &[u8], messages: usize) {
    let mut dispatching = Dispatching::new(read);
    bencher
        .counter(ItemsCount::new(messages))
        .bench_local(|| assert_eq!(dispatching.dispatch(), messages));
}
