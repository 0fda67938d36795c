//! The engine's log lines on stderr.

use tracing_subscriber::filter::LevelFilter;

/// The environment variable that says how much is told: `off`, `error`, `warn`, `info`, `debug` or `trace`.
const VARIABLE: &str = "WSBROKER_LOG";

/// Without the variable: what an operator has to know, which the engine tells at this level and a few times at the most.
const DEFAULT: LevelFilter = LevelFilter::ERROR;

/// Starts logging. A value of the variable that is no level is told on stderr, once, and changes nothing.
pub(crate) fn start() {
    let level = match std::env::var(VARIABLE) {
        Ok(level) => level.parse().unwrap_or_else(|_| {
            eprintln!(
                "wsbroker: {VARIABLE} is off, error, warn, info, debug or trace, not '{}'",
                level.escape_debug()
            );
            DEFAULT
        }),
        Err(_) => DEFAULT,
    };
    // A program that embeds the engine may have set up a subscriber of its own; that one stays.
    let _ = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .try_init();
}
