//! The hot inner paths, each from its first byte to its last without sockets and without JavaScript.
//!
//! ```text
//! cargo bench               all of them
//! cargo bench -- decode     those with this in their names
//! ```
//!
//! With `count <case> <times>` as its arguments this program does one thing with the codec so many times, for
//! `npm run instructions`.

#![allow(missing_docs)]

mod codec;
mod dispatch;
mod frames;
mod publish;

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["count"] => codec::list(),
        ["count", case, times] => codec::count(case, times),
        _ => divan::main(),
    }
}
