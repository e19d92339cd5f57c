//! One run of the binary, from its start to its end.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::process;

/// How often a running child's memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How one run of the binary ended.
#[derive(Debug, Clone)]
pub struct Run {
    /// The arguments.
    pub args: Vec<String>,
    /// The exit code; -1 when killed by a signal or the time limit.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it logged.
    pub stderr: String,
    /// Wall clock.
    pub elapsed: Duration,
    /// User and system CPU time (Linux; zero elsewhere).
    pub cpu: Duration,
    /// Peak resident memory in KiB (Linux; zero elsewhere).
    pub peak_rss_kib: u64,
    /// Whether it had to be killed for taking too long.
    pub timed_out: bool,
}

impl Run {
    /// Runs `command`, which has `args`, to its end; kills it after `limit`.
    pub(crate) async fn of(mut command: Command, args: &[&str], home: &Path, limit: Duration) -> Self {
        let name = format!("{:?}", command.get_program());
        let [stdout, stderr] = ["stdout", "stderr"].map(|name| home.join(name));
        command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap());
        // Whoever stops waiting for the run ends it.
        let guard = Guard::default();
        let abandoned = Arc::clone(&guard.0);
        let mut run = tokio::task::spawn_blocking(move || measured(command, limit, &abandoned))
            .await
            .unwrap()
            .unwrap_or_else(|error| panic!("cannot run {name}: {error}"));
        run.args = args.iter().map(|&arg| arg.to_owned()).collect();
        run.stdout = fs::read_to_string(stdout).unwrap_or_default();
        run.stderr = fs::read_to_string(stderr).unwrap_or_default();
        run
    }

    /// Stops the test unless the binary exited with `code`.
    ///
    /// # Panics
    ///
    /// With everything it printed.
    pub fn expect_code(self, code: i32) -> Self {
        assert!(
            self.code == code && !self.timed_out,
            "grasp-mirror {} ended with {}{} after {:?}, wanted {code}\n--- stdout\n{}\n--- stderr\n{}",
            self.args.join(" "),
            self.code,
            if self.timed_out { " (killed: too slow)" } else { "" },
            self.elapsed,
            self.stdout,
            self.stderr
        );
        self
    }

    /// What it printed, as JSON.
    ///
    /// # Panics
    ///
    /// When it is not JSON; with everything it printed.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| {
            panic!("not JSON: {error}\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr)
        })
    }
}

/// Says, when dropped, that nobody waits any more.
#[derive(Debug, Default)]
struct Guard(Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `command` while watching its memory. Its last CPU figure is read when it has ended but has not yet
/// been waited for, so it is exact.
fn measured(mut command: Command, limit: Duration, abandoned: &AtomicBool) -> std::io::Result<Run> {
    let start = Instant::now();
    let mut child = command.spawn()?;
    let pid = child.id();
    let (mut cpu, mut peak_rss_kib, mut timed_out) = (Duration::ZERO, 0, false);
    loop {
        peak_rss_kib = process::peak_rss(pid).unwrap_or(peak_rss_kib);
        let ended = match process::stat(pid) {
            Some((used, ended)) => {
                cpu = used;
                ended
            }
            None => child.try_wait()?.is_some(),
        };
        if ended {
            break;
        }
        if start.elapsed() > limit || abandoned.load(Ordering::Relaxed) {
            timed_out = true;
            child.kill()?;
            break;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let elapsed = start.elapsed();
    let code = child.wait()?.code().unwrap_or(-1);
    Ok(Run {
        args: Vec::new(),
        code,
        stdout: String::new(),
        stderr: String::new(),
        elapsed,
        cpu,
        peak_rss_kib,
        timed_out,
    })
}
