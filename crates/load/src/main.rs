//! The load generator of the benchmark: one thread, many sockets, every message verified.
//!
//! It is the same for every server, and speaks one tiny protocol with them, told by the first byte of a message:
//! see [`payload`]. It prints one JSON object, see [`report`].
//!
//! | module | its subject |
//! |---|---|
//! | [`arguments`] | the command line |
//! | [`target`] | which address, from which addresses |
//! | [`stream`], [`websocket`], [`http`] | bytes in and out; what they mean |
//! | [`pool`] | many connections on one thread |
//! | [`payload`], [`ledger`] | what a message carries; what is missing, twice or out of order |
//! | [`meter`], [`process`], [`report`] | the measured window, whose CPU time, what is told |
//! | `work` | one file per kind of load |

#[cfg(target_os = "linux")]
mod arguments;
#[cfg(target_os = "linux")]
mod http;
#[cfg(target_os = "linux")]
mod ledger;
#[cfg(target_os = "linux")]
mod meter;
#[cfg(target_os = "linux")]
mod payload;
#[cfg(target_os = "linux")]
mod pool;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod stream;
#[cfg(target_os = "linux")]
mod target;
#[cfg(target_os = "linux")]
mod websocket;
#[cfg(target_os = "linux")]
mod work;

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use std::io::Write;

    let arguments = <arguments::Arguments as clap::Parser>::parse();
    let report = work::run(&arguments);
    let (line, code) = match &report {
        Ok(report) if report.is_sound() => (serde_json::to_string(report), ExitCode::SUCCESS),
        Ok(report) => (serde_json::to_string(report), ExitCode::from(3)),
        Err(error) => {
            eprintln!("wsbroker-load: {error}");
            return ExitCode::FAILURE;
        }
    };
    let line = line.expect("a report is plain data");
    match writeln!(std::io::stdout(), "{line}") {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!(
        "wsbroker-load: it reads /proc and the kernel's receive timestamps, so it runs on Linux"
    );
    ExitCode::FAILURE
}
