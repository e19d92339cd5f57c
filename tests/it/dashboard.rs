//! The dashboard in a real browser: it shows a real daemon's state, follows it without being loaded again, is harmless
//! whatever strangers wrote, and is of use with a keyboard, on a phone, in the dark, and with thousands of repositories.
//!
//! Screenshots are in `target/screenshots/`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use grasp_mirror::{
    http::{Bound, Library, Names, Patience},
    model::{coordinate::Coordinate, placement::Placement, server::ServerUrl, status::MirrorStatus},
    plan::{
        progress::Progress,
        record::{MirrorRecord, RepositoryRecord},
    },
    report::{
        Report,
        document::{CycleSummary, LeftAlone, RepositoryOutcome, ServerOutcome},
        history::History,
        page::{Page, Sources},
        picture::{Card, Picture},
        scoreboard::{SLOT_SECS, Scoreboard, Slot},
    },
};
use grasp_mirror_commands::archive::Kept;
use grasp_mirror_testkit::{Browser, Fault, Mirror, Owner, Server, Site, TestRelay};
use nostr::prelude::{Keys, PublicKey, Timestamp};
use serde_json::json;
use tokio::sync::watch;

const BINARY: &str = env!("CARGO_BIN_EXE_grasp-mirror");
const SOON: Duration = Duration::from_secs(30);
const HOSTILE: &str = "<script>alert('x')</script><img src=x onerror=alert(1)> \" onmouseover=\"alert(2)";

#[tokio::test]
async fn it_shows_a_real_daemon_and_follows_it() {
    let (a, b, relay) =
        tokio::join!(Server::start(), Server::builder().behind_proxy().start(), TestRelay::start());
    let owner = Owner::new("it's <b>é漢<b> 100%").at_home_on(&relay);
    let announcement = owner.announcement().at(&a).described(HOSTILE, "\u{202e}txt.\u{2066}עברית");
    owner.publish(announcement, &a).await;
    let mirror = Mirror::new(BINARY).knows(&a).knows(&b).uses(&relay).watches(&owner).shows();
    let mirror = mirror.set("limits.retry_first_secs", 1);
    let mut daemon = mirror.start_daemon();
    let site = daemon.site().await;
    daemon.wait_log("cycle done", SOON).await;

    let mut browser = Browser::start().await;
    browser.window(1280, 800, "light").await;
    browser.visit(&site.url("/"), ".matrix").await;
    let names = "[...document.querySelectorAll('.matrix .repo a')].map((a) => a.textContent)";
    assert_eq!(browser.value(names).await, json!([owner.d]));
    let signs =
        "[...document.querySelectorAll('.matrix tbody .sign')].map((sign) => sign.textContent).join('')";
    assert_eq!(browser.value(signs).await, "✓✓");
    assert_eq!(browser.complaints().await, json!([]));

    // With the keyboard alone: from the filter into the grid, along it, and into the repository.
    browser.value("window.never = 'loaded again'").await;
    browser.press("/").await;
    browser.write("no such repository").await;
    browser.wait("document.querySelector('#count').textContent.startsWith('0 of 1')").await;
    for _ in 0.."no such repository".len() {
        browser.press("Backspace").await;
    }
    // The list follows with the next frame; before it there is no grid that Tab could enter.
    browser.wait("document.querySelector('.matrix .repo a')").await;
    browser.press("Tab").await;
    for key in ["ArrowRight", "ArrowRight"] {
        browser.press(key).await;
    }
    browser.wait("document.activeElement.matches('td.cell') && !document.querySelector('#tip').hidden").await;

    // A server fails: what is focused says so by itself.
    b.proxy().fault_on("git-receive-pack", Fault::Status(500));
    owner.work.commit("README.md", "# hello again\n");
    owner.update(&a).await;
    browser.wait("document.querySelectorAll('.matrix .sign.f').length === 1").await;
    assert_eq!(browser.value("document.querySelector('.matrix .copies.few').textContent").await, "1/2");
    let told = "document.querySelector('.sign.f').nextSibling.textContent";
    let told = browser.value(told).await;
    assert!(told.as_str().unwrap().contains("failing") && told.as_str().unwrap().contains("500"), "{told}");
    browser.point_at(".matrix .sign.f").await;
    browser.wait("document.querySelector('#tip').textContent.includes('500')").await;
    assert_eq!(browser.faults().await, json!([]));
    b.proxy().heal();
    browser.wait("document.querySelectorAll('.matrix .sign.i').length === 2").await;
    assert_eq!(browser.value("window.never").await, "loaded again");
    browser.wait("document.activeElement.matches('td.cell')").await;
    browser.press("Enter").await;
    browser.wait("document.querySelectorAll('.mirrors > li').length === 2").await;

    let lead = browser.value("document.querySelector('.lead').textContent").await;
    assert!(lead.as_str().unwrap().contains(HOSTILE) && lead.as_str().unwrap().contains("עברית"), "{lead}");
    assert!(!lead.as_str().unwrap().contains(['\u{202e}', '\u{2066}']), "{lead:?}");
    let elements =
        "document.querySelectorAll('main script, main img, main b, [onerror], [onmouseover]').length";
    assert_eq!(browser.value(elements).await, 0);
    let commands = "[...document.querySelectorAll('.clone code')].map((code) => code.textContent)";
    let commands = browser.value(commands).await;
    assert!(commands.to_string().contains(&mirror.url_at(&b, &owner.d)), "{commands}");
    browser.click("summary").await;
    browser.wait("document.querySelectorAll('.log li').length >= 2").await;
    assert_eq!(browser.faults().await, json!([]));
    browser.picture("real-repository-light-1280").await;
    daemon.kill();
    browser.wait("document.querySelector('#phase').dataset.state === 'lost'").await;
    browser.close().await;
}

#[tokio::test]
async fn every_state_of_affairs_looks_well_in_light_and_dark_on_a_desk_and_on_a_phone() {
    let mut browser = Browser::start().await;
    for (name, gallery) in [
        ("started", Gallery::started()),
        ("empty", Gallery::of(0, false)),
        ("three", Gallery::of(3, false)),
        ("troubled", Gallery::of(12, true)),
        ("two-thousand", Gallery::of(2_000, true)),
    ] {
        let owner = gallery.owner;
        let (address, picture) = gallery.open().await;
        let url = format!("http://{address}/");
        let troubled = ("troubled-repository", format!("#/r/{}/repository-3", npub(owner)), ".mirrors");
        let mut pages = vec![(name, "#/".to_owned(), ".matrix, .empty")];
        if name == "troubled" {
            pages.extend([troubled, ("troubled-servers", "#/servers".to_owned(), ".servers")]);
        }
        let windows = [("light", 1280), ("dark", 360), ("dark", 1280), ("light", 360)];
        for (scheme, width) in windows.into_iter().take(if name == "troubled" { 4 } else { 2 }) {
            browser.window(width, 800, scheme).await;
            for (name, hash, selector) in &pages {
                browser.visit(&format!("{url}{hash}"), selector).await;
                // Neither colours nor names depend on the width or on how many there are.
                if width == 1280 && !["three", "two-thousand"].contains(name) {
                    assert_eq!(browser.faults().await, json!([]), "{name} {scheme}");
                }
                assert!(browser.overflow().await <= 0, "{name} is wider than {width} px");
                let text = browser.value("document.body.innerText").await.to_string();
                assert!(
                    !["null", "undefined", "NaN", "[object"].iter().any(|slip| text.contains(slip)),
                    "{text}"
                );
                browser.picture(&format!("{name}-{scheme}-{width}")).await;
            }
        }
        if name == "two-thousand" {
            of_two_thousand(&mut browser, &url, &picture).await;
        }
        if name == "troubled" {
            problems_are_told(&mut browser, address, &picture).await;
        }
    }
    browser.close().await;
}

async fn of_two_thousand(browser: &mut Browser, url: &str, picture: &watch::Sender<Picture>) {
    browser.window(1280, 800, "light").await;
    browser.visit(url, ".matrix").await;
    let painted = "performance.getEntriesByName('first-contentful-paint')[0].startTime";
    println!("first paint after {} ms", browser.value(painted).await);
    let rows = "document.querySelectorAll('.matrix tbody tr').length";
    assert_eq!(browser.value(rows).await, 100, "a page, however many there are");
    let first = "document.querySelector('.matrix tbody tr').textContent";
    assert!(browser.value(first).await.as_str().unwrap().contains("0/"), "problems first");
    browser.click("#next").await;
    browser.wait("document.querySelector('.pager').textContent.startsWith('101–200 of 2,000')").await;
    assert_eq!(browser.value("document.activeElement.id").await, "next");
    browser.click("#filter").await;
    browser.write("repository-1999").await;
    browser.wait("document.querySelectorAll('.matrix tbody tr').length === 1").await;
    // What changes is told by name, not sent all over again.
    let mut outcomes = outcomes(2_000, true, picture.borrow().bot.key);
    outcomes.retain(|outcome| outcome.coordinate.identifier != "repository-1999");
    let report = picture.borrow().report.clone();
    picture.send_modify(|picture| picture.follow(&report, &outcomes));
    browser.wait("document.querySelector('#count').textContent === '0 of 1,999 repositories'").await;
    let again = "performance.getEntriesByName(new URL('/api/mirrors.json', location).href).length";
    assert_eq!(browser.value(again).await, 1, "all is read once");
    assert_eq!(browser.complaints().await, json!([]));
}

async fn problems_are_told(browser: &mut Browser, address: SocketAddr, picture: &watch::Sender<Picture>) {
    let url = &format!("http://{address}/");
    let banner =
        "document.querySelector('#banner').hidden ? '' : document.querySelector('#banner').textContent";
    browser.window(1280, 800, "dark").await;
    browser.visit(url, ".matrix").await;
    assert_eq!(browser.value(banner).await, "");
    let alone = "document.querySelector('details.alone').innerText";
    browser.click("details.alone summary").await;
    let told = browser.value(alone).await;
    let told = told.as_str().unwrap();
    assert!(told.contains("1 because somebody wants it so, 1 private"), "{told}");
    assert!(told.contains(HOSTILE) && told.contains("said: forget"), "{told}");
    picture.send_modify(|picture| picture.fail(HOSTILE, now()));
    browser.wait("document.querySelector('#banner').textContent.includes('alert(1)')").await;
    assert_eq!(browser.value("document.querySelector('#phase').dataset.state").await, "failing");
    assert_eq!(browser.value("document.querySelector('details.alone').open").await, true);
    assert_eq!(browser.complaints().await, json!([]));
    browser.picture("failing-dark-1280").await;
    // A young good cycle still counts; an old one does not.
    let site = Site { address };
    assert_eq!(site.get("/healthz").await.status, 200);
    picture.send_modify(|picture| picture.good_at = Some(now() - 4 * 3_600 - 60));
    browser.wait("document.querySelector('#banner').textContent.includes('4 h ago')").await;
    let said = site.get("/healthz").await;
    assert_eq!((said.status, said.json()["phase"].as_str()), (503, Some("failing")), "{said:?}");
    assert!(said.body.contains("the last one failed: <script>"), "{said:?}");
    assert_eq!(said.headers["content-type"], "application/json");
    assert_eq!(site.get("/readyz").await.status, 200);
    picture.send_modify(|picture| {
        picture.failed = None;
        picture.paused = true;
    });
    browser.wait("document.querySelector('#banner').textContent.includes('resume')").await;
    assert_eq!(browser.complaints().await, json!([]));
    // A hostile reason is text, also where it is pointed at.
    browser.point_at(".sign.r").await;
    browser.wait("document.querySelector('#tip').textContent.includes('onerror')").await;
    assert_eq!(browser.value("document.querySelectorAll('#tip img, #tip script').length").await, 0);
    assert_eq!(browser.faults().await, json!([]));
}

fn now() -> u64 {
    Timestamp::now().as_secs()
}

/// When the made-up mirrors were looked at: the same whenever they are made up.
fn looked_at() -> u64 {
    static AT: OnceLock<u64> = OnceLock::new();
    *AT.get_or_init(now)
}

fn npub(key: PublicKey) -> String {
    grasp_mirror::model::coordinate::npub(&key)
}

fn servers() -> Vec<ServerUrl> {
    let hosts = [
        "relay.ngit.dev",
        "gitnostr.com",
        "git.orangesync.tech",
        "ngit.danconwaydev.com",
        "git.shakespeare.diy",
        "git.upleb.uk",
        "grasp.budabit.club",
        "git.uid.ovh",
        "git.vps.satsnode.xyz",
    ];
    hosts.map(|host| format!("wss://{host}").parse().unwrap()).into()
}

fn mirror(status: MirrorStatus, reason: Option<&str>) -> MirrorRecord {
    MirrorRecord {
        status,
        placement: Placement::Namespace,
        reason: reason.map(str::to_owned),
        since: looked_at() - 7_200,
        read_back_at: Some(looked_at() - 600),
        retry_at: (status == MirrorStatus::Failing).then(|| looked_at() + 300),
        failures: 0,
        failure: None,
        state: None,
        refs_differ: None,
        refused: BTreeMap::new(),
        conversation: None,
    }
}

/// Made-up repositories, with some of every trouble.
fn outcomes(number: usize, troubled: bool, owner: PublicKey) -> Vec<RepositoryOutcome> {
    let outcome = |n: usize| {
        let status = |at: usize| match (n % 20, at) {
            _ if !troubled => mirror(MirrorStatus::InSync, None),
            (3, _) => mirror(MirrorStatus::Failing, Some("HTTP 500 Internal Server Error")),
            (_, 2) => mirror(MirrorStatus::Unreachable, Some("it cannot be reached: connection refused")),
            (5, 4) => mirror(MirrorStatus::Refused, Some(HOSTILE)),
            (6, 5) => mirror(MirrorStatus::Pending, Some("waits its turn")),
            (7, 6) => mirror(MirrorStatus::Blocked, Some("blocked by your policy")),
            (8, 7) => mirror(MirrorStatus::AwaitingSignature, Some("waits for a signature")),
            (9, at) if at > 0 => mirror(MirrorStatus::Unreachable, Some("silent for 30 s")),
            _ => mirror(MirrorStatus::InSync, None),
        };
        RepositoryOutcome {
            coordinate: Coordinate::new(owner, format!("repository-{n}")),
            state: None,
            mirrors: servers().into_iter().enumerate().map(|(at, server)| (server, status(at))).collect(),
            notes: if n % 50 == 7 { vec![HOSTILE.to_owned()] } else { Vec::new() },
            wanted: servers().len(),
            rewritten_at: None,
            held: None,
            repaired: 0,
        }
    };
    (0..number).map(outcome).collect()
}

/// A page without a daemon behind it.
pub(super) struct Gallery {
    picture: Picture,
    owner: PublicKey,
}

impl Gallery {
    fn started() -> Self {
        let owner = Keys::generate().public_key();
        let report = Report::of(CycleSummary::default(), &BTreeSet::new(), &[], &[], LeftAlone::default());
        let bot = Card { key: owner, name: "grasp-mirror".to_owned(), nip05: None };
        Self { picture: Picture::new(bot, 3_600, report, now()), owner }
    }

    pub(super) fn of(repositories: usize, troubled: bool) -> Self {
        let mut gallery = Self::started();
        let cycle = CycleSummary {
            number: 12,
            trigger: "timer".to_owned(),
            started_at: now() - 240,
            finished_at: now() - 200,
            next_at: Some(now() + 3_300),
        };
        let server = |url: &ServerUrl| ServerOutcome {
            url: url.clone(),
            reachable: !troubled || url.host() != "git.orangesync.tech",
            software: Some("ngit-grasp 3.0.9".to_owned()),
            unused: None,
        };
        let servers: Vec<_> = servers().iter().map(server).collect();
        let outcomes = outcomes(repositories, troubled, gallery.owner);
        let authors = BTreeSet::from([gallery.owner]);
        let alone = Coordinate::new(gallery.owner, HOSTILE);
        let reason = format!("its maintainer {} said: forget", npub(gallery.owner));
        let forgotten: BTreeMap<_, _> = troubled.then_some((alone, reason)).into_iter().collect();
        let left_alone = LeftAlone { forgotten, private: usize::from(troubled), ..LeftAlone::default() };
        let report = Report::of(cycle, &authors, &servers, &outcomes, left_alone);
        gallery.picture.end(&report, &outcomes, 40_000, now() - 200);
        gallery.picture.settled = true;
        gallery
    }

    /// Shows it until the test ends.
    async fn open(self) -> (SocketAddr, watch::Sender<Picture>) {
        self.open_with(Patience::default()).await
    }

    pub(super) async fn open_with(self, patience: Patience) -> (SocketAddr, watch::Sender<Picture>) {
        let bound = Bound::to("127.0.0.1:0".parse().unwrap()).await.unwrap().with(patience);
        let address = bound.address();
        let (sender, receiver) = watch::channel(self.picture);
        tokio::spawn(bound.serve(receiver, watch::channel(Names::default()).1, Arc::new(Shelf)));
        (address, sender)
    }
}

struct Shelf;

impl Library for Shelf {
    fn page(&self, picture: Picture, coordinate: Coordinate) -> BoxFuture<'_, Result<Option<Page>, String>> {
        let row = picture.row(&coordinate).cloned().unwrap();
        let outcome = outcomes(4, true, coordinate.owner).remove(3);
        let mut history = History::default();
        for hours in (0..40).rev() {
            let status = if hours % 7 == 0 { MirrorStatus::Failing } else { MirrorStatus::InSync };
            let reason = (status == MirrorStatus::Failing).then_some(HOSTILE);
            let mirrors = servers().into_iter().map(|server| (server, mirror(status, reason))).collect();
            history.note(&mirrors, now() - hours * 3_600);
        }
        let record = RepositoryRecord { mirrors: outcome.mirrors, ..RepositoryRecord::default() };
        let kept = |n: u64| Kept {
            at: now() - n * 90_000,
            name: format!("refs/heads/{HOSTILE}"),
            tip: "1".repeat(40),
            until: now() + 900_000,
        };
        let page = Page::of(Sources {
            bot: picture.bot.key,
            row: &row,
            record: &record,
            history: &history,
            archive: (1..4).map(kept).collect(),
            repository: None,
            own: &[],
        });
        async move { Ok(Some(page)) }.boxed()
    }

    fn scoreboards(
        &self,
        servers: Vec<ServerUrl>,
    ) -> BoxFuture<'_, Result<BTreeMap<ServerUrl, Scoreboard>, String>> {
        let board = |(at, server): (usize, ServerUrl)| {
            let mut board = Scoreboard::default();
            for slot in (0..96_u32).rev() {
                let answered = u32::from(at != 2 || slot > 30);
                let latency_ms = answered * (40 + 25 * at as u32 + slot * 7 % 23);
                let (failures, refusals) = (u32::from(slot % 23 == 5), u32::from(slot % 41 == 9));
                let seen =
                    Slot { asked: 1, answered, latency_ms, slowest_ms: latency_ms, failures, refusals };
                board.note(seen, now() - u64::from(slot) * SLOT_SECS);
            }
            (server, board)
        };
        async move { Ok(servers.into_iter().enumerate().map(board).collect()) }.boxed()
    }

    fn progress(&self) -> BoxFuture<'_, Result<Option<Progress>, String>> {
        async { Ok(None) }.boxed()
    }
}
