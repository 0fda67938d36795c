//! What a process has used, from `/proc` and the kernel's CPU clocks.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use serde::Serialize;

use crate::pool::words;

/// Another process of this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    pid: i32,
    clock: ClockId,
}

impl Process {
    pub(crate) fn new(pid: i32) -> Result<Self, String> {
        let clock = clock_getcpuclockid(Pid::from_raw(pid))
            .map_err(|error| format!("process {pid}: {error}"))?;
        let process = Self { pid, clock };
        process.used()?;
        Ok(process)
    }

    /// What it has used by now.
    pub(crate) fn used(self) -> Result<Used, String> {
        Ok(Used {
            cpu: cpu_time(self.clock)?,
            threads: self.threads()?,
        })
    }

    /// The bytes that are resident now, counted page by page: `statm` may be some pages off per core.
    pub(crate) fn resident(self) -> Result<u64, String> {
        let path = format!("/proc/{}/smaps_rollup", self.pid);
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        text.lines()
            .find_map(|line| line.strip_prefix("Rss:")?.trim().strip_suffix("kB"))
            .and_then(|kib| kib.trim().parse::<u64>().ok())
            .map(|kib| kib * 1024)
            .ok_or_else(|| format!("{path} has no Rss"))
    }

    /// Threads that end while we look are left out.
    fn threads(self) -> Result<BTreeMap<u32, Thread>, String> {
        let path = format!("/proc/{}/task", self.pid);
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(&path).map_err(|error| format!("{path}: {error}"))? {
            let folder = entry.map_err(words)?.path();
            let read = |file| fs::read_to_string(folder.join(file)).ok();
            let tid = folder
                .file_name()
                .and_then(|name| name.to_str()?.parse().ok());
            let nanoseconds = read("schedstat")
                .and_then(|text| text.split_ascii_whitespace().next()?.parse().ok())
                .map(Duration::from_nanos);
            if let (Some(tid), Some(cpu), Some(name)) = (tid, nanoseconds, read("comm")) {
                let name = name.trim_end().to_owned();
                threads.insert(tid, Thread { name, cpu });
            }
        }
        Ok(threads)
    }
}

/// What a process had used at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Used {
    /// Of all threads, those that have ended included, to the nanosecond. `schedstat` of a thread that is running is up
    /// to a tick behind.
    cpu: Duration,
    threads: BTreeMap<u32, Thread>,
}

#[derive(Clone, Debug)]
struct Thread {
    name: String,
    cpu: Duration,
}

/// What a process has used from one moment to another.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    /// The same by thread, as the scheduler counts it: it may be a tick off.
    threads: Vec<ThreadUsage>,
    /// Threads that ended meanwhile: `threads` lacks them, `cpuSeconds` does not.
    threads_ended: usize,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ThreadUsage {
    name: String,
    cpu_seconds: f64,
}

impl Used {
    pub(crate) fn until(&self, later: &Self) -> Usage {
        let mut by_name: BTreeMap<&str, Duration> = BTreeMap::new();
        for (tid, thread) in &later.threads {
            let before = self
                .threads
                .get(tid)
                .map_or(Duration::ZERO, |thread| thread.cpu);
            *by_name.entry(&thread.name).or_default() += thread.cpu.saturating_sub(before);
        }
        let mut threads: Vec<_> = by_name
            .into_iter()
            .filter(|(_, cpu)| !cpu.is_zero())
            .map(|(name, cpu)| ThreadUsage {
                name: name.to_owned(),
                cpu_seconds: cpu.as_secs_f64(),
            })
            .collect();
        threads.sort_by(|a, b| b.cpu_seconds.total_cmp(&a.cpu_seconds));
        Usage {
            cpu_seconds: later.cpu.saturating_sub(self.cpu).as_secs_f64(),
            threads,
            threads_ended: self
                .threads
                .keys()
                .filter(|tid| !later.threads.contains_key(tid))
                .count(),
        }
    }
}

/// The CPU time of this process.
pub(crate) fn own_cpu() -> Result<Duration, String> {
    cpu_time(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

fn cpu_time(clock: ClockId) -> Result<Duration, String> {
    clock
        .now()
        .map(Duration::from)
        .map_err(|error| format!("the CPU clock: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_uses_time_and_one_that_waits_does_not() {
        let me = Process::new(std::process::id() as i32).expect("this process");
        let before = me.used().expect("its times");
        let own = own_cpu().expect("its time");
        let mut spun = 0_u64;
        while own_cpu().expect("its time") < own + Duration::from_millis(30) {
            spun = std::hint::black_box(spun + 1);
        }
        let usage = before.until(&me.used().expect("its times"));
        assert!(usage.cpu_seconds >= 0.03, "{usage:?}");
        assert!(me.resident().expect("its memory") > 100_000);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(Process::new(i32::MAX).is_err());
    }
}
