//! `grasp-mirror`: arguments, logging and exit codes. What the commands do is in `cli`.

mod cli;

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{ArgAction, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use grasp_mirror::config::{DEFAULT_PATH, Overrides};
use grasp_mirror_commands::{clean, with_causes};
use indicatif::{MultiProgress, ProgressDrawTarget};
use tracing_subscriber::{EnvFilter, field::MakeExt, fmt::format::debug_fn};

/// The first cycle over thousands of repositories makes millions of short-lived objects between long-lived ones; glibc's
/// allocator keeps twice as much of the system's memory for that, for good.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The longest value in the log, in characters.
const LONGEST_FIELD: usize = 2_000;

/// Keeps git repositories published over Nostr alive on every GRASP server it knows.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true, after_help = AFTER_HELP)]
struct Args {
    /// The configuration; `.env` is read from the same folder [default: ./config.toml]
    #[arg(long, global = true, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Where events, git data and the key live, whatever the configuration says
    #[arg(long, global = true, value_name = "PATH")]
    data_dir: Option<PathBuf>,
    /// Print data as JSON
    #[arg(long, global = true)]
    json: bool,
    /// Log more (twice: much more); the log goes to stderr
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// Log errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "Exit codes:
  0  everything wanted is in sync (or the check passed)
  1  an error in usage or configuration
  2  ran, but some mirror is not in sync (or a claim is false)";

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Write config.toml and .env, make the bot's key, and print its npub
    Init,
    /// Run the bot: mirror, listen for messages, report
    Daemon,
    /// Run one cycle, print the report, and end
    MirrorOnce,
    /// Print the last report
    Status {
        /// Only what has fewer than two verified copies
        #[arg(long)]
        at_risk: bool,
    },
    /// Check configuration, key, relays and servers
    Verify,
    /// Print what a cycle would do, and do nothing
    Plan {
        /// Only this repository, on every server, with the rule behind each placement
        repo: Option<String>,
    },
    /// Check what a bot says of its mirrors, as a stranger: needs no configuration, key or data folder
    Audit(cli::audit::Audited),
    /// Mirror somebody or something again, after deny
    Allow {
        /// An npub, a repository (<npub>/<name>, naddr1…, or its name) or a server
        about: String,
    },
    /// Never mirror somebody or something, or to a server; what is on the servers stays
    Deny {
        /// An npub, a repository (<npub>/<name>, naddr1…, or its name) or a server
        about: String,
    },
    /// Let a maintainer's remote signer (NIP-46) list more servers
    ///
    /// Prints an address for the signer, good for ten minutes, and waits until it has come. With --json that is a line
    /// {"uri":…} at once and a line {"paired":…} at the end.
    Pair,
    /// Follow a held state that removes most of a repository
    Approve {
        /// Its name, <npub>/<name> or naddr1…
        repo: String,
    },
    /// Do not follow that state; wait for a newer one
    Reject {
        /// Its name, <npub>/<name> or naddr1…
        repo: String,
    },
    /// List what is kept of deleted and rewritten branches and tags
    Archive {
        /// Its name, <npub>/<name> or naddr1…
        repo: String,
    },
    /// Give back a repository as it was at some time
    Restore {
        /// Its name, <npub>/<name> or naddr1…
        repo: String,
        /// Unix seconds or a date such as 2026-11-24 or 2026-11-24T12:00:00Z [default: now]
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
        /// A folder that is empty or not there
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
    },
    /// Print what a shell needs to complete commands and options
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print the manual page, or write one for every command
    Man {
        /// A folder for all pages, such as /usr/local/share/man/man1
        #[arg(long, value_name = "DIR")]
        into: Option<PathBuf>,
    },
}

/// How a command ended, when it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everything wanted is in sync, or the check passed.
    Good,
    /// It ran, but some mirror is not in sync.
    NotInSync,
}

/// What every command is given.
#[derive(Debug)]
pub(crate) struct Context {
    /// Where the configuration is.
    pub(crate) overrides: Overrides,
    /// Whether data is printed as JSON.
    pub(crate) json: bool,
    /// Where progress is drawn when a person watches; hidden otherwise.
    pub(crate) progress: MultiProgress,
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nothing can be done about a closed stdout. Clap would exit 2, which is taken.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(1) } else { ExitCode::SUCCESS };
        }
    };
    let watched = io::stderr().is_terminal() && !args.quiet;
    let target = if watched { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let progress = MultiProgress::with_draw_target(target);
    start_log(args.verbose, args.quiet, Log(progress.clone()));
    let context = Context {
        overrides: Overrides {
            config_explicit: args.config.is_some(),
            config_path: args.config.unwrap_or_else(|| DEFAULT_PATH.into()),
            data_dir: args.data_dir,
        },
        json: args.json,
        progress,
    };
    let ended = match args.command {
        Command::Init => cli::init(&context),
        Command::Daemon => cli::daemon(&context),
        Command::MirrorOnce => cli::mirror_once(&context),
        Command::Status { at_risk } => cli::status(&context, at_risk),
        Command::Verify => cli::verify(&context),
        Command::Audit(audited) => cli::audit::audit(&context, &audited),
        Command::Plan { repo } => cli::plan(&context, repo.as_deref()),
        Command::Allow { about } => cli::rules::rule(&context, &about, true),
        Command::Deny { about } => cli::rules::rule(&context, &about, false),
        Command::Pair => cli::pair::pair(&context),
        Command::Approve { repo } => cli::kept::decide(&context, &repo, true),
        Command::Reject { repo } => cli::kept::decide(&context, &repo, false),
        Command::Archive { repo } => cli::kept::archive(&context, &repo),
        Command::Restore { repo, at, into } => cli::kept::restore(&context, &repo, at.as_deref(), &into),
        Command::Completions { shell } => cli::manual::completions(Args::command(), shell),
        Command::Man { into } => cli::manual::man(Args::command(), into.as_deref()),
    };
    match ended {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::NotInSync) => ExitCode::from(2),
        // Whoever reads our output has seen enough.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            mention(format_args!("grasp-mirror: {}", with_causes(error.as_ref())));
            ExitCode::from(1)
        }
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Says something on standard error. That nobody reads it, or that its disk is full, is no reason to stop.
pub(crate) fn mention(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Log lines go to stderr, so that stdout is data. `RUST_LOG` wins over `-v` and `-q`.
///
/// nostr-sdk logs as errors what is ordinary for relays (an event that crosses the end of a request, say), and
/// at debug level every message; what matters of it comes back to us as a result.
fn start_log(verbose: u8, quiet: bool, log: Log) {
    let default = match (quiet, verbose) {
        (true, _) => "error,nostr_sdk=off",
        (false, 0) => "warn,nostr_sdk=off,grasp_mirror=info",
        (false, 1) => "info,nostr_sdk=off,grasp_mirror=debug",
        (false, _) => "debug,nostr_sdk=info,grasp_mirror=trace",
    };
    let wanted = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|wanted| !wanted.trim().is_empty());
    let wanted = wanted.and_then(|wanted| {
        let filter = EnvFilter::try_new(&wanted);
        filter.inspect_err(|error| mention(format_args!("RUST_LOG has no effect: {error}"))).ok()
    });
    let filter = wanted.unwrap_or_else(|| EnvFilter::new(default));
    // Much of what is logged came from outside, such as identifiers: one event stays one clean line.
    let fields = debug_fn(|writer, field, value| {
        let text = clean(&format!("{value:?}"), LONGEST_FIELD);
        match field.name() {
            "message" => write!(writer, "{text}"),
            name => write!(writer, "{name}={text}"),
        }
    });
    tracing_subscriber::fmt()
        .fmt_fields(fields.delimited(" "))
        .with_env_filter(filter)
        .with_writer(move || log.clone())
        .with_ansi(io::stderr().is_terminal() && !wants_no_color())
        .init();
}

/// Whether somebody asked every program for plain text (<https://no-color.org>).
fn wants_no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Standard error, with the progress out of the way while a line is written.
#[derive(Clone)]
struct Log(MultiProgress);

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // As in `mention`; tracing would complain of an error on standard error, and panic.
        let _ = self.0.suspend(|| io::stderr().write_all(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
