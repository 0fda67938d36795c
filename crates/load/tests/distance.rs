//! How far two cores are from each other.

#![cfg(target_os = "linux")]
#![allow(missing_docs)]

use std::process::{Command, Output};

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use serde_json::Value;

fn distance(from: usize, to: usize) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wsbroker-load"))
        .args(["distance", &from.to_string(), &to.to_string()])
        .output()
        .expect("the load generator starts")
}

#[test]
fn two_cores_are_some_nanoseconds_apart() {
    let allowed = sched_getaffinity(Pid::from_raw(0)).expect("the cores of this process");
    let mut cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core) == Ok(true));
    let (Some(from), Some(to)) = (cores.next(), cores.next()) else {
        eprintln!("this machine has one core");
        return;
    };
    let output = distance(from, to);
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let nanoseconds = report["details"]["nanoseconds"].as_f64().expect("a number");
    assert!(nanoseconds > 0.0, "{report}");
}

#[test]
fn cores_that_cannot_be_used_are_refused() {
    for (from, to) in [(0, 0), (0, CpuSet::count()), (CpuSet::count(), 0)] {
        let output = distance(from, to);
        assert!(!output.status.success(), "{from} and {to}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("core"));
    }
}
