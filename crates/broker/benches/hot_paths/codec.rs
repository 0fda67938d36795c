//! Decoding what was read, and encoding what is sent.

use std::hint::black_box;
use std::ops::ControlFlow;

use divan::Bencher;
use divan::counter::ItemsCount;
use wsbroker_engine::codec::{Decoder, Opcode, encode_frame};

use crate::frames::{Content, Reads};

/// One thing that is done with the codec, by its name.
struct Case {
    name: &'static str,
    what: What,
}

enum What {
    Decode(Content, usize),
    Encode(usize),
}

const CASES: [Case; 7] = [
    Case {
        name: "decode-text-64",
        what: What::Decode(Content::Ascii, 64),
    },
    Case {
        name: "decode-greek-64",
        what: What::Decode(Content::Greek, 64),
    },
    Case {
        name: "decode-binary-64",
        what: What::Decode(Content::Binary, 64),
    },
    Case {
        name: "decode-binary-16k",
        what: What::Decode(Content::Binary, 16 * 1024),
    },
    Case {
        name: "decode-binary-1m",
        what: What::Decode(Content::Binary, 1024 * 1024),
    },
    Case {
        name: "encode-64",
        what: What::Encode(64),
    },
    Case {
        name: "encode-16k",
        what: What::Encode(16 * 1024),
    },
];

impl Case {
    /// How many messages one run takes, and a run.
    fn prepare(&self) -> (usize, Box<dyn FnMut()>) {
        match self.what {
            What::Decode(content, size) => {
                let mut reads = Reads::new(content, size);
                (reads.messages, Box::new(move || decode(&mut reads)))
            }
            What::Encode(size) => {
                let payload = vec![b'a'; size];
                let encode = move || {
                    black_box(encode_frame(Opcode::Text, black_box(&payload)));
                };
                (1, Box::new(encode))
            }
        }
    }
}

fn decode(reads: &mut Reads) {
    let mut decoder = Decoder::new();
    let mut messages = 0;
    for chunk in &mut reads.chunks {
        let decoded = decoder.decode(black_box(chunk), usize::MAX, None, |item| {
            black_box(item);
            messages += 1;
            ControlFlow::Continue(())
        });
        assert_eq!(decoded, Ok(()));
    }
    assert_eq!(messages, reads.messages);
}

#[divan::bench(args = CASES.iter().map(|case| case.name))]
fn message(bencher: Bencher<'_, '_>, name: &str) {
    let (messages, mut run) = find(name).prepare();
    bencher
        .counter(ItemsCount::new(messages))
        .bench_local(&mut run);
}

fn find(name: &str) -> &'static Case {
    let case = CASES.iter().find(|case| case.name == name);
    case.unwrap_or_else(|| panic!("there is no case {name}"))
}

/// Tells of each case how many messages one time takes.
#[expect(clippy::print_stdout, reason = "a script reads it")]
pub(crate) fn list() {
    for case in &CASES {
        println!("{} {}", case.name, case.prepare().0);
    }
}

pub(crate) fn count(name: &str, times: &str) {
    let times: usize = times.parse().expect("a number of times");
    let (_, mut run) = find(name).prepare();
    for _ in 0..times {
        run();
    }
}
