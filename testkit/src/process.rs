//! What the kernel says about a process, and signals to it.

use std::{
    fmt::Display,
    fs,
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant},
};

use nix::{
    sys::resource::{UsageWho, getrusage},
    time::{ClockId, clock_getcpuclockid},
    unistd::Pid,
};
use tokio::signal::unix::{SignalKind, signal as on_signal};

/// `/proc/<pid>/stat` counts in these (`USER_HZ`, the same on every Linux).
const TICK: Duration = Duration::from_millis(10);

/// What finished programs have cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// User and system CPU time.
    pub cpu: Duration,
    /// Peak resident memory in KiB of the largest of them.
    pub peak_kib: u64,
}

/// Waits until this process is told to stop (SIGINT or SIGTERM).
pub async fn stopped() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (on_signal(SignalKind::interrupt()), on_signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// What all children of this process that have ended, and theirs, have cost so far.
///
/// # Panics
///
/// When this is no Unix.
#[must_use]
pub fn cost_of_children() -> Cost {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("every process may ask");
    let micros = |time: nix::sys::time::TimeVal| {
        u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap_or_default()
    };
    Cost {
        cpu: Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time())),
        peak_kib: u64::try_from(usage.max_rss()).unwrap_or_default(),
    }
}

/// User and system CPU time of a process that runs, to the nanosecond; threads that have ended count.
///
/// # Panics
///
/// When there is no such process.
#[must_use]
pub fn cpu(pid: u32) -> Duration {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process id"));
    now(clock_getcpuclockid(pid).expect("the process runs"))
}

/// That, and the CPU time of its children that have ended, which comes in hundredths of a second.
///
/// # Panics
///
/// When there is no such process.
#[must_use]
pub fn tree_cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = fields[13].parse::<u32>().unwrap() + fields[14].parse::<u32>().unwrap();
    cpu(pid) + TICK * ticks
}

fn now(clock: ClockId) -> Duration {
    clock.now().expect("the clock goes").into()
}

/// Peak resident memory in KiB.
#[must_use]
pub fn peak_rss(pid: u32) -> Option<u64> {
    memory(pid, "VmHWM:")
}

/// Resident memory in KiB.
#[must_use]
pub fn rss(pid: u32) -> Option<u64> {
    memory(pid, "VmRSS:")
}

/// What of that belongs to the process alone, in KiB: the rest are files that it has mapped, which the system may take back.
#[must_use]
pub fn own_memory(pid: u32) -> Option<u64> {
    memory(pid, "RssAnon:")
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
/// When this is no Unix.
#[must_use]
pub fn own_cpu() -> Duration {
    now(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

/// CPU time used so far, and whether the process has ended.
pub(crate) fn stat(pid: impl Display) -> Option<(Duration, bool)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u32 = fields.get(11)?.parse::<u32>().ok()? + fields.get(12)?.parse::<u32>().ok()?;
    Some((TICK * ticks, fields.first() == Some(&"Z")))
}

/// The processes that `pid` has started and that are there still.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let parent = |stat: String| stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    all.filter(|one| fs::read_to_string(format!("/proc/{one}/stat")).ok().and_then(parent) == Some(pid))
        .collect()
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
