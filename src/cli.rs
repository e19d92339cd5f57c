//! What each command of the binary does; one function a command.

pub(crate) mod audit;
pub(crate) mod kept;
pub(crate) mod manual;
pub(crate) mod pair;
pub(crate) mod rules;

use std::{
    fmt::Display,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, absolute},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, anyhow, bail};
use grasp_mirror::{
    config::{Config, Overrides, folder_of, strange_variables},
    cycle::{self, Preview, Trigger, World},
    daemon,
    key::{self, BotKey, KeySource},
    model::coordinate::{Coordinate, npub},
    plan::progress::Progress,
    report::{Report, answers, scoreboard::Weeks, tables},
    store::{Store, lock::Lock, records::Records},
};
use grasp_mirror_commands::{Found, RepoName};
use indicatif::{ProgressBar, ProgressStyle};
use tempfile::TempDir;

use crate::{Context, Outcome, mention};

const CONFIG_EXAMPLE: &str = include_str!("../config.example.toml");
const ENV_EXAMPLE: &str = include_str!("../.env.example");

/// The configuration as the command line, the environment and the files have it.
pub(crate) fn load(overrides: &Overrides) -> anyhow::Result<Config> {
    let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    for strange in strange_variables(names) {
        tracing::warn!("{strange} (it has no effect)");
    }
    let config = Config::load(overrides, &environment)?;
    if let Some(mode) = config.environment.exposed {
        let file = folder_of(&config.path).join(".env");
        tracing::warn!(file = %file.display(), mode = format!("{mode:o}"), "others may read the keys in it: chmod 600 it");
    }
    Ok(config)
}

/// A value that is not UTF-8 is seen, too: as one that will not do, not as one that is not there.
fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// Prints `text`, with a newline. Whoever reads it may have seen enough (`| head -1`): how the command ended stays true.
fn say(text: impl Display) -> anyhow::Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// An answer of the bot's for a terminal, where what one would send to it is a command.
fn in_terminal(answer: &str) -> String {
    let named = answer.replace("Send: list", "Run: grasp-mirror status");
    named.replace("Send: ", "Run: grasp-mirror ").replace("send: ", "run: grasp-mirror ")
}

/// `init`: writes what is missing, keeps what is there.
pub(crate) fn init(context: &Context) -> anyhow::Result<Outcome> {
    let config_path = &context.overrides.config_path;
    let env_path = folder_of(config_path).join(".env");
    fs::create_dir_all(folder_of(config_path))
        .with_context(|| format!("cannot make {}", folder_of(config_path).display()))?;
    let config_text = match &context.overrides.data_dir {
        // So that the next command finds the key without the flag.
        Some(data_dir) => with_data_dir(&absolute(data_dir)?)?,
        None => CONFIG_EXAMPLE.to_owned(),
    };
    let config_written = write_new(config_path, &config_text, 0o644)?;
    let env_written = write_new(&env_path, ENV_EXAMPLE, 0o600)?;

    let config = load(&context.overrides)?;
    let bot = key::find_or_make(&config.environment.key, &config.bot.data_dir)?;
    let npub = npub(&bot.keys.public_key());
    let without_flag = Overrides { data_dir: None, ..context.overrides.clone() };
    let written = Config::load(&without_flag, &environment)?.bot.data_dir;
    if absolute(&written)? != absolute(&config.bot.data_dir)? {
        mention(format_args!(
            "{} keeps its own data_dir, {}: change it there, or give --data-dir with every command",
            config_path.display(),
            written.display()
        ));
    }
    let mut out = io::stdout().lock();
    if context.json {
        let made = matches!(bot.source, KeySource::Made(_));
        let report = serde_json::json!({
            "npub": npub, "key_made": made,
            "config": config_path.to_string_lossy(), "config_written": config_written,
            "env": env_path.to_string_lossy(), "env_written": env_written,
            "data_dir": config.bot.data_dir.to_string_lossy(),
        });
        writeln!(out, "{report}")?;
        return Ok(Outcome::Good);
    }
    for (path, written) in [(config_path, config_written), (&env_path, env_written)] {
        let what = if written { "wrote" } else { "kept (it was there)" };
        writeln!(out, "{what} {}", path.display())?;
    }
    match &bot.source {
        KeySource::Made(file) => writeln!(out, "made the bot's key: {} (back it up)", file.display())?,
        KeySource::File(file) => writeln!(out, "found the bot's key: {}", file.display())?,
        KeySource::Variable => writeln!(out, "the bot's key is in MIRROR_NSEC")?,
    }
    let with = match context.overrides.config_explicit {
        true => format!(" --config {}", config_path.display()),
        false => String::new(),
    };
    writeln!(
        out,
        "\nThe bot is {npub}\n\nNext:\n  1. In {}, set MIRROR_NPUBS (whose repositories to mirror) and\n     \
         MIRROR_ALLOWED_NPUBS (who may command the bot; your npub).\n  \
         2. grasp-mirror verify{with}       checks the settings, relays and servers\n     \
         grasp-mirror mirror-once{with}  brings everything into sync once\n     \
         grasp-mirror daemon{with}       keeps it so",
        env_path.display()
    )?;
    Ok(Outcome::Good)
}

/// `daemon`: cycles until it is told to stop.
pub(crate) fn daemon(context: &Context) -> anyhow::Result<Outcome> {
    let (ready, made) = ready_to_start(context)?;
    if let Some(npub) = made {
        // On stdout, where nothing else is said.
        if context.json {
            say(serde_json::json!({ "npub": npub, "key_made": true }))?;
        } else {
            say(format_args!("the bot is {npub}"))?;
        }
    }
    let runtime = runtime()?;
    // A file that was there and is gone, perhaps for a moment only, does not mean the defaults, with relays for everybody.
    let config_explicit = context.overrides.config_explicit || ready.config.path.exists();
    let overrides = Overrides { config_explicit, ..context.overrides.clone() };
    let reload = || Config::load(&overrides, &environment);
    let ended = runtime.block_on(daemon::run(ready.config, &ready.bot.keys, reload));
    // A pack that is being indexed is not waited for: it comes in whole or not at all.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended?;
    Ok(Outcome::Good)
}

/// `mirror-once`: one cycle, and the report.
pub(crate) fn mirror_once(context: &Context) -> anyhow::Result<Outcome> {
    let ready = ready_to_work(context)?;
    let progress = context.progress.add(spinner()?);
    let seen = runtime()?.block_on(async {
        let _lock = Lock::take(&ready.config.bot.data_dir)?;
        let mut world = world(&ready).await?;
        if world.is_paused() {
            bail!("the bot is paused: start `grasp-mirror daemon`, and send it: resume");
        }
        let done = Box::pin(world.run(Trigger::Once, None, &progress)).await?;
        if let Some(house) = world.house() {
            house.keep().await;
        }
        let weeks = world.weeks(&done.report).await?;
        anyhow::Ok(Seen { report: done.report, weeks, progress: None, paused: false })
    })?;
    progress.finish_and_clear();
    print_report(context, &seen)
}

/// `status`: the last report, also beside a running daemon; or what in it is at risk.
pub(crate) fn status(context: &Context, at_risk: bool) -> anyhow::Result<Outcome> {
    let Ready { config, bot } = ready_with_bot(context)?;
    let seen = runtime()?.block_on(async {
        let store = Store::open(&config.bot.data_dir).await?;
        let records = Records::new(store.clone(), bot.keys.clone());
        let progress = cycle::running(&records).await?;
        let report = cycle::last_report(&config, &store, &bot.keys).await?;
        let weeks = cycle::weeks(&records, &report).await?;
        let paused = cycle::own_word(&config, &bot.keys, &store).await?.settled.settings.paused;
        anyhow::Ok(Seen { report, weeks, progress, paused })
    })?;
    if at_risk { print_at_risk(context, &seen.report) } else { print_report(context, &seen) }
}

fn print_at_risk(context: &Context, report: &Report) -> anyhow::Result<Outcome> {
    let at_risk: Vec<_> = report.repos.iter().filter(|repo| repo.is_at_risk()).collect();
    if context.json {
        say(serde_json::json!({ "at_risk": at_risk, "truncated": report.truncated }))?;
    } else {
        say(tables::at_risk(report, now()))?;
    }
    let good = report.cycle.number > 0 && at_risk.is_empty();
    Ok(if good { Outcome::Good } else { Outcome::NotInSync })
}

/// Unix seconds.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// `verify`: are the servers GRASP servers, and do they list exactly the signed refs? Can the signers be asked, and do the
/// rules fit together?
pub(crate) fn verify(context: &Context) -> anyhow::Result<Outcome> {
    let (ready, _folder) = ready_to_look(context)?;
    let found = runtime()?.block_on(async {
        let world = world(&ready).await?;
        anyhow::Ok(Box::pin(world.verify()).await?)
    })?;
    let good = found.is_good();
    if context.json {
        let tables::Verified { relays, servers, mirrors, signers, contradictions } = &found;
        say(serde_json::json!({
            "ok": good, "relays": relays, "servers": servers, "mirrors": mirrors, "signers": signers,
            "contradictions": contradictions,
        }))?;
    } else {
        say(tables::verify(&found))?;
    }
    Ok(if good { Outcome::Good } else { Outcome::NotInSync })
}

/// `plan`: what a cycle would do; for one repository, on every server, and why.
pub(crate) fn plan(context: &Context, repo: Option<&str>) -> anyhow::Result<Outcome> {
    let name = repo.map(RepoName::parse).transpose()?;
    let (ready, _folder) = ready_to_look(context)?;
    let which = |known: &[&Coordinate]| match &name {
        None => Ok(None),
        Some(name) => match answers::find_repo(name, known.iter().copied()) {
            Found::One(repository) => Ok(Some(answers::coordinate(&repository))),
            found => Err(anyhow!(in_terminal(&found.reply(name)))),
        },
    };
    let Preview { repo, steps, notes } = runtime()?.block_on(async {
        let world = world(&ready).await?;
        Box::pin(world.plan(which)).await?
    })?;
    if context.json {
        say(serde_json::json!({ "mirrors": steps, "notes": notes }))?;
    } else if let Some(repo) = repo {
        say(tables::plan_of(&repo, &steps, &notes))?;
    } else {
        say(tables::plan(&steps, &notes))?;
    }
    Ok(Outcome::Good)
}

/// A checked configuration and the bot's key.
struct Ready {
    config: Config,
    bot: BotKey,
}

/// What every command that works needs; a key is made now if there is none.
fn ready_to_work(context: &Context) -> anyhow::Result<Ready> {
    let (ready, made) = ready_to_start(context)?;
    if let Some(npub) = made {
        // On stderr: stdout may be data.
        mention(format_args!("the bot is {npub}"));
    }
    Ok(ready)
}

/// The same, and the npub of a key that was made now, for whoever is to hear of it.
fn ready_to_start(context: &Context) -> anyhow::Result<(Ready, Option<String>)> {
    let config = load(&context.overrides)?;
    let bot = key::find_or_make(&config.environment.key, &config.bot.data_dir)?;
    let mut made = None;
    if let KeySource::Made(file) = &bot.source {
        mention(format_args!("made the bot's key: {} (back it up)", file.display()));
        made = Some(npub(&bot.keys.public_key()));
    }
    Ok((Ready { config, bot }, made))
}

/// What every command needs that means a bot there is.
fn ready_with_bot(context: &Context) -> anyhow::Result<Ready> {
    let config = load(&context.overrides)?;
    let data_dir = &config.bot.data_dir;
    match key::find(&config.environment.key, data_dir)? {
        Some(bot) => Ok(Ready { config, bot }),
        None => bail!("there is no bot in {} yet; `grasp-mirror init` makes one", data_dir.display()),
    }
}

/// What every command that only looks needs. Where there is no bot yet it makes none: another one stands in for it, in
/// a folder that is gone when the command ends.
fn ready_to_look(context: &Context) -> anyhow::Result<(Ready, Option<TempDir>)> {
    let mut config = load(&context.overrides)?;
    if let Some(bot) = key::find(&config.environment.key, &config.bot.data_dir)? {
        return Ok((Ready { config, bot }, None));
    }
    mention(format_args!(
        "there is no bot in {} yet; `grasp-mirror init` makes one, with another npub than what is shown here",
        config.bot.data_dir.display()
    ));
    let folder = tempfile::tempdir().context("cannot make a folder to look from")?;
    config.bot.data_dir = folder.path().to_owned();
    let bot = key::find_or_make(&config.environment.key, &config.bot.data_dir)?;
    Ok((Ready { config, bot }, Some(folder)))
}

/// A world that does what the bot's own lists say.
async fn world(ready: &Ready) -> anyhow::Result<World> {
    let Ready { config, bot } = ready;
    let store = Store::open(&config.bot.data_dir).await?;
    let mut world = World::new(config, &bot.keys, &store)?;
    if world.recall().await?.watched.is_empty() {
        mention(format_args!(
            "nobody is watched: set MIRROR_NPUBS (in .env beside {}) to the npubs whose repositories are to be \
             mirrored",
            config.path.display()
        ));
    }
    world.warn_of_contradictions();
    Ok(world)
}

/// Threads for reading the store and local copies. Tokio's own 512 would all be used when thousands of repositories are
/// walked at once, and each keeps its stack and its share of the heap.
const BLOCKING_THREADS: usize = 16;

/// Threads that talk to servers and people. A walk is many short steps that wake each other, and more threads, which would
/// wake each other, too, gain nothing. Git and the store, which take long, have threads of their own.
const WORKER_THREADS: usize = 1;

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
}

/// A line that shows a person how far a cycle is.
fn spinner() -> anyhow::Result<ProgressBar> {
    let bar = ProgressBar::new(0);
    bar.set_style(ProgressStyle::with_template("{spinner} {msg} {pos}/{len} repositories, {elapsed}")?);
    bar.enable_steady_tick(Duration::from_millis(100));
    Ok(bar)
}

/// The report, and beside it what is not published.
#[derive(serde::Serialize)]
struct Seen {
    #[serde(flatten)]
    report: Report,
    /// How the servers did; for people.
    #[serde(skip)]
    weeks: Weeks,
    /// How far the cycle is that runs just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<Progress>,
    /// Whether the bot was told to write nothing; for people.
    #[serde(skip)]
    paused: bool,
}

fn print_report(context: &Context, seen: &Seen) -> anyhow::Result<Outcome> {
    let Seen { report, weeks, progress, paused } = seen;
    if context.json {
        say(serde_json::to_string(seen)?)?;
    } else {
        let now = now();
        if *paused {
            say("Paused. Send the bot: resume\n")?;
        }
        if let Some(progress) = progress {
            say(format_args!(
                "{}\n",
                grasp_mirror_commands::status::progress(&answers::under_way(progress), now)
            ))?;
        }
        say(tables::status(report, weeks, now))?;
    }
    let ran = report.cycle.number > 0;
    Ok(if ran && report.is_in_sync() { Outcome::Good } else { Outcome::NotInSync })
}

/// The example with another `data_dir`.
fn with_data_dir(data_dir: &Path) -> anyhow::Result<String> {
    let data_dir = data_dir.to_str().context("--data-dir is not UTF-8, which config.toml cannot hold")?;
    let quoted = toml::Value::from(data_dir).to_string();
    Ok(CONFIG_EXAMPLE.replacen("data_dir = \"./data\"", &format!("data_dir = {quoted}"), 1))
}

/// Writes `text` to `path` unless something is there; whether it wrote.
fn write_new(path: &Path, text: &str, mode: u32) -> anyhow::Result<bool> {
    let failed = || format!("cannot write {}", path.display());
    match OpenOptions::new().write(true).create_new(true).mode(mode).open(path) {
        Ok(mut file) => {
            let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
            if written.is_err() {
                // Half of it would be kept by the next try.
                let _ = fs::remove_file(path);
            }
            written.with_context(failed)?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error).with_context(failed),
    }
}
