//! What the kernel says about a process, and signals to it.

use std::{
    fmt::Display,
    fs,
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant},
};

/// `/proc/<pid>/stat` counts in these (`USER_HZ`, the same on every Linux).
const TICK: Duration = Duration::from_millis(10);

/// Peak resident memory in KiB.
pub(crate) fn peak_rss(pid: u32) -> Option<u64> {
    memory(pid, "VmHWM:")
}

/// Resident memory in KiB.
pub(crate) fn rss(pid: u32) -> Option<u64> {
    memory(pid, "VmRSS:")
}

fn memory(pid: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system CPU time of this process so far.
///
/// # Panics
///
/// When this is no Linux.
#[must_use]
pub fn own_cpu() -> Duration {
    stat("self").expect("/proc knows this process").0
}

/// CPU time used so far, and whether the process has ended.
pub(crate) fn stat(pid: impl Display) -> Option<(Duration, bool)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u32 = fields.get(11)?.parse::<u32>().ok()? + fields.get(12)?.parse::<u32>().ok()?;
    Some((TICK * ticks, fields.first() == Some(&"Z")))
}

/// Sends `signal` (such as `TERM`) as an operator would.
pub(crate) fn signal(pid: u32, signal: &str) {
    let status = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
    assert!(status.is_ok_and(|status| status.success()), "kill -{signal} {pid}");
}

/// Waits until `child` has ended; `None` when it has not within `limit`.
pub(crate) async fn ended(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(None) if start.elapsed() < limit => tokio::time::sleep(Duration::from_millis(20)).await,
            Ok(status) => return status,
            Err(error) => panic!("waiting for {}: {error}", child.id()),
        }
    }
}
