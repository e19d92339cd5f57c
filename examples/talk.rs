//! How quick the bot is, as ratios to what the same machine does in the same minutes: an answer to the trip of one
//! plain event, strangers' messages to what it takes to check them, an idle minute to a minute of one core.
//!
//! `cargo run --locked --example talk` builds the bot, runs it with a relay on this machine, and prints one table after
//! two minutes. The README's figures are of the release profile (`--release`). Linux only.

use std::{
    env,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use grasp_mirror_testkit::{Chat, Daemon, Line, Mirror, Protocol, TestRelay, own_cpu, tools};
use nostr::{
    event::{Event, Kind},
    filter::Filter,
    nips::nip44,
    types::Timestamp,
};

const QUESTIONS: u64 = 100;
/// From one trip to the next. Two answers in this rhythm, each with the bot's copy to itself, stay below the 240
/// events that the bot sends to one relay in a minute, and what it can send at once.
const PACE: Duration = Duration::from_millis(200);
const STRANGERS: usize = 100;
const WRAPS_EACH: usize = 100;
const IDLE: Duration = Duration::from_secs(60);
const PROFILE: &str = if cfg!(debug_assertions) { "dev" } else { "release" };

#[tokio::main]
async fn main() -> Result<()> {
    build()?;
    let relay = TestRelay::start().await;
    let (mirror, ada) = Mirror::new(tools::bot()).uses(&relay).commanded_at(&relay).await;
    let once = mirror.once().await.expect_code(0);
    let daemon = mirror.daemon().await;
    let (out, mut back) = tokio::join!(Line::open(&relay), Line::open(&relay));
    back.listen(Filter::new().pubkey(ada.public_key())).await;

    let mut rows = Rows::new();
    idle(&daemon, once.peak_rss_kib, &mut rows).await;
    answers(&ada, &out, &mut back, &mut rows).await?;
    strangers(&mirror, &relay, &daemon, &ada, (&out, &mut back), &mut rows).await?;
    daemon.stop().await;
    println!("{}\nProfile: {PROFILE}.", rows.0);
    Ok(())
}

/// The bot as the sources are now, with the same features as this example.
fn build() -> Result<()> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What `cargo run` says of this package would make other packages' build scripts run again.
    for (name, _) in
        env::vars().filter(|(name, _)| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
    {
        cargo.env_remove(name);
    }
    let status = cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args("build --quiet --locked --bin grasp-mirror --example talk --profile".split(' '))
        .arg(PROFILE)
        .status()
        .context("cargo cannot be started")?;
    ensure!(status.success(), "the bot was not built");
    Ok(())
}

struct Rows(Table);

impl Rows {
    fn new() -> Self {
        let mut table = Table::new();
        table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─')));
        table.set_header(["what", "ratio", "to", "measured", "baseline"]);
        for column in [1, 3, 4] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self(table)
    }

    fn times(&mut self, what: &str, time: Duration, than: &str, baseline: Duration) {
        self.row(what, (time.as_secs_f64() * 1e3, "ms"), than, baseline.as_secs_f64() * 1e3);
    }

    fn memory(&mut self, what: &str, kib: u64, than: &str, baseline_kib: u64) {
        let mib = |kib: u64| kib as f64 / 1024.0;
        self.row(what, (mib(kib), "MiB"), than, mib(baseline_kib));
    }

    fn row(&mut self, what: &str, (value, unit): (f64, &str), than: &str, baseline: f64) {
        let ratio = value / baseline;
        // Small ones in full: 0.0003.
        let places = if ratio < 0.1 { 4 } else { 2 };
        self.0.add_row([
            what,
            &format!("{ratio:.places$}"),
            than,
            &format!("{value:.1} {unit}"),
            &format!("{baseline:.1} {unit}"),
        ]);
    }
}

async fn idle(daemon: &Daemon, once_kib: u64, rows: &mut Rows) {
    daemon.wait_idle().await;
    let before = daemon.cpu();
    tokio::time::sleep(IDLE).await;
    rows.times(
        "an idle minute: CPU (in steps of 10 ms)",
        daemon.cpu() - before,
        "one core, one minute",
        IDLE,
    );
    rows.memory("idle: memory", daemon.rss_kib(), "the peak of mirror-once, nothing to mirror", once_kib);
}

/// Publishes `event`; returns what arrives next on the other line, and after how long.
async fn trip(out: &Line, back: &mut Line, event: &Event) -> (Event, Duration) {
    let start = Instant::now();
    let arrival = async { (back.next().await, start.elapsed()) };
    let (answer, arrived) = tokio::join!(out.send(event), arrival);
    answer.expect_accepted();
    arrived
}

/// Plain events and questions in turn, so that all have the same machine.
async fn answers(ada: &Chat, out: &Line, back: &mut Line, rows: &mut Rows) -> Result<()> {
    let protocols = [("NIP-17", Protocol::Nip17), ("NIP-04", Protocol::Nip04)];
    let (mut plain, mut asked) = (Vec::new(), [Vec::new(), Vec::new()]);
    let mut pace = tokio::time::interval(PACE);
    let me = ada.public_key().to_hex();
    let first = Timestamp::now() - Duration::from_secs(QUESTIONS);
    for number in 0..QUESTIONS {
        pace.tick().await;
        let event = ada.sign(1, "To be read by anyone", &[&["p", &me]]);
        let (arrived, time) = trip(out, back, &event).await;
        ensure!(arrived.id == event.id, "something else arrived: {arrived:?}");
        plain.push(time);
        for ((_, protocol), times) in protocols.iter().zip(&mut asked) {
            pace.tick().await;
            let text = if number % 2 == 0 { "version" } else { "status" };
            // The same words in the same second would be the same question.
            let question = ada.question_at(*protocol, text, first + Duration::from_secs(number));
            let (arrived, time) = trip(out, back, &question.event).await;
            let answer = ada.open(&arrived).context("something else than an answer arrived")?;
            ensure!(answer.about == [question.id], "another question was answered: {answer:?}");
            times.push(time);
        }
    }
    let than = "one plain event, median";
    let baseline = percent(&mut plain, 50);
    rows.times("one plain event, 95 %", percent(&mut plain, 95), than, baseline);
    for ((name, _), mut times) in protocols.iter().zip(asked) {
        for (part, name) in [(50, format!("an answer by {name}, median")), (95, format!("{name}, 95 %"))] {
            rows.times(&name, percent(&mut times, part), than, baseline);
        }
    }
    Ok(())
}

fn percent(times: &mut [Duration], part: usize) -> Duration {
    times.sort();
    times.get(times.len() * part / 100).copied().unwrap_or_default()
}

async fn strangers(
    mirror: &Mirror,
    relay: &TestRelay,
    daemon: &Daemon,
    ada: &Chat,
    (out, back): (&Line, &mut Line),
    rows: &mut Rows,
) -> Result<()> {
    let wraps: Vec<Event> = (0..STRANGERS)
        .flat_map(|_| {
            let eve = Chat::new(mirror);
            let rumor = eve.rumor("pause", Timestamp::now());
            (0..WRAPS_EACH).map(move |_| eve.wrap(rumor.clone()).event)
        })
        .collect();
    let bytes: usize = wraps.iter().map(|wrap| wrap.as_json().len()).sum();
    let (verify, open) = (
        cpu_of(|| wraps.iter().all(|wrap| wrap.verify().is_ok()))?,
        cpu_of(|| {
            let key = mirror.keys.secret_key();
            wraps.iter().all(|wrap| nip44::decrypt(key, &wrap.pubkey, &wrap.content).is_ok())
        })?,
    );

    // Each when the one before has been passed on, or the relay would drop its listeners (as the bot survives, too).
    let mut witness = Line::open(relay).await;
    witness.listen(Filter::new().kind(Kind::GiftWrap).pubkey(mirror.bot_pubkey())).await;
    daemon.wait_idle().await;
    let (cpu, rss) = (daemon.cpu(), daemon.rss_kib());
    for wrap in &wraps {
        trip(out, &mut witness, wrap).await;
    }
    // Behind all of them.
    trip(out, back, &ada.question_at(Protocol::Nip17, "status", Timestamp::now()).event).await;
    daemon.wait_idle().await;
    let (cpu, grown) = (daemon.cpu() - cpu, daemon.rss_kib().saturating_sub(rss));
    let what = format!("{} strangers' wraps", STRANGERS * WRAPS_EACH);
    rows.times(&format!("{what}: CPU"), cpu, "checking their signatures, once", verify);
    rows.times("", cpu, "that, and opening the outer layer", verify + open);
    rows.memory(&format!("{what}: memory kept"), grown, "their JSON", u64::try_from(bytes)? / 1024);
    Ok(())
}

fn cpu_of(work: impl FnOnce() -> bool) -> Result<Duration> {
    let before = own_cpu();
    ensure!(work(), "a wrap is broken");
    Ok(own_cpu() - before)
}
