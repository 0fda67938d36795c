//! Publishing to N subscribers, from the call to what is given to the kernel.

use divan::Bencher;
use divan::counter::ItemsCount;
use wsbroker_engine::bench::Publishing;

const SUBSCRIBERS: [usize; 4] = [10, 100, 1000, 10_000];

/// Of 64 bytes.
const MESSAGE: &str = "abcdefghijklmnopqrstuvwxyz abcdefghijklmnopqrstuvwxyz 0123456789";

/// One message per turn of the shard.
#[divan::bench(args = SUBSCRIBERS)]
fn publish_one(bencher: Bencher<'_, '_>, subscribers: usize) {
    publish(bencher, subscribers, 1);
}

/// As many as many publishers bring in one turn: they are copied together.
#[divan::bench(args = SUBSCRIBERS)]
fn publish_thirty(bencher: Bencher<'_, '_>, subscribers: usize) {
    publish(bencher, subscribers, 30);
}

fn publish(bencher: Bencher<'_, '_>, subscribers: usize, messages: usize) {
    let mut publishing = Publishing::new(subscribers);
    let messages = vec![MESSAGE; messages];
    bencher
        .counter(ItemsCount::new(subscribers * messages.len()))
        .bench_local(|| publishing.publish(&messages));
}
