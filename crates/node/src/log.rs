//! The engine's log lines on stderr, for those who ask for them.

use tracing_subscriber::filter::LevelFilter;

/// The environment variable that turns the log on: `error`, `warn`, `info`, `debug` or `trace`.
const VARIABLE: &str = "WSBROKER_LOG";

/// Starts logging when the variable names a level. Any other value is told on stderr, once, and changes nothing.
pub(crate) fn start() {
    let Ok(level) = std::env::var(VARIABLE) else {
        return;
    };
    let Ok(level) = level.parse::<LevelFilter>() else {
        eprintln!(
            "wsbroker: {VARIABLE} is error, warn, info, debug or trace, not '{}'",
            level.escape_debug()
        );
        return;
    };
    // A program that embeds the engine may have set up a subscriber of its own; that one stays.
    let _ = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .try_init();
}
