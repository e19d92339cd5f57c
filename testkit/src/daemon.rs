//! `grasp-mirror daemon` as a process of its own.

use std::{
    fs::{self, File},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;

use crate::{Site, look, process};

/// From `SIGTERM` to its end: it promises ten seconds, on a machine that is not busy. Far less than it may wait for a server.
const STOPS_WITHIN: Duration = Duration::from_secs(30);
const LOG: &str = "daemon.log";
/// How many lines of its log a failed test shows.
const TAIL: usize = 60;

/// A running daemon; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    home: Arc<TempDir>,
    /// Where its own lines begin: those before it are of earlier daemons in the same folder.
    log_from: usize,
    ended: bool,
}

impl Daemon {
    pub(crate) fn start(mut command: Command, home: Arc<TempDir>) -> Self {
        let log = home.path().join(LOG);
        let log_from = fs::read_to_string(&log).map_or(0, |log| log.len());
        let to = File::options().create(true).append(true).open(&log).unwrap();
        command.stdin(Stdio::null()).stdout(to.try_clone().unwrap()).stderr(to);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self { child, home, log_from, ended: false }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged since its start.
    #[must_use]
    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.home.path().join(LOG)).unwrap_or_default();
        log.get(self.log_from..).unwrap_or_default().to_owned()
    }

    /// Waits until it listens and its first cycle has begun.
    pub async fn wait_ready(&mut self) {
        self.wait_log("ready").await;
    }

    /// Where it shows how it stands, as soon as it does; see [`crate::Mirror::shows`].
    ///
    /// # Panics
    ///
    /// When it does not.
    pub async fn site(&mut self) -> Site {
        const SAID: &str = "http://";
        self.wait_log(SAID).await;
        let log = self.log();
        let (_, rest) = log.split_once(SAID).unwrap();
        let address = rest.split('/').next().unwrap();
        Site { address: address.parse().unwrap_or_else(|error| panic!("{address:?}: {error}")) }
    }

    /// Waits until a line of its log holds `part`.
    ///
    /// # Panics
    ///
    /// When it ends before, or does not.
    pub async fn wait_log(&mut self, part: &str) {
        look::wait_until(&format!("the daemon logs {part:?}"), async || {
            self.log().contains(part) || {
                assert!(self.is_running(), "the daemon ended before it logged {part:?}");
                false
            }
        })
        .await;
    }

    /// Whether the process is alive.
    pub fn is_running(&mut self) -> bool {
        self.ended |= !matches!(self.child.try_wait(), Ok(None));
        !self.ended
    }

    /// `SIGHUP`: it is to read its configuration again.
    pub fn reload(&self) {
        process::signal(self.pid(), "HUP");
    }

    /// `SIGSTOP`: it sleeps, as the machine it runs on may.
    pub fn sleep(&self) {
        process::signal(self.pid(), "STOP");
    }

    /// `SIGCONT`.
    pub fn wake(&self) {
        process::signal(self.pid(), "CONT");
    }

    /// `SIGTERM`, and waits for an orderly end. Returns all it has logged.
    pub async fn stop(self) -> String {
        self.stop_with("TERM").await
    }

    /// Sends `signal`, and waits for an orderly end. Returns all it has logged.
    ///
    /// # Panics
    ///
    /// When it takes longer than it promises, or ends with another code than 0.
    pub async fn stop_with(mut self, signal: &str) -> String {
        process::signal(self.pid(), signal);
        let status = process::ended(&mut self.child, STOPS_WITHIN).await;
        let status = status.unwrap_or_else(|| panic!("not stopped {STOPS_WITHIN:?} after SIG{signal}"));
        self.ended = true;
        assert_eq!(status.code(), Some(0), "ended with {status} (signal {:?})", status.signal());
        self.log()
    }

    /// `SIGKILL`, as a power cut would.
    pub fn kill(mut self) {
        self.kill_now();
    }

    fn kill_now(&mut self) {
        if !self.ended {
            self.child.kill().ok();
            self.child.wait().ok();
            self.ended = true;
        }
    }

    /// User and system CPU time so far.
    ///
    /// # Panics
    ///
    /// When the process is gone.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        process::stat(self.pid()).expect("the daemon runs").0
    }

    /// Waits until it has nothing left to do: it uses hardly any CPU time.
    pub async fn wait_idle(&self) {
        let mut used = self.cpu();
        look::wait_until("the daemon is idle", async || {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let before = std::mem::replace(&mut used, self.cpu());
            used - before < Duration::from_millis(20)
        })
        .await;
    }

    /// Resident memory in KiB.
    ///
    /// # Panics
    ///
    /// When the process is gone.
    #[must_use]
    pub fn rss_kib(&self) -> u64 {
        process::rss(self.pid()).expect("the daemon runs")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill_now();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
            eprintln!("--- the last lines of the daemon ---\n{tail}\n---");
        }
    }
}
