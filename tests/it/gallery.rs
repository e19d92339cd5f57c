//! Made-up pictures of a daemon, for tests of what is shown of them. There is no daemon behind them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use futures::{FutureExt, future::BoxFuture};
use grasp_mirror::{
    http::{Bound, Library, Names, Patience},
    model::{coordinate::Coordinate, placement::Placement, server::ServerUrl, status::MirrorStatus},
    plan::{
        hold::{Held, Stands},
        progress::Progress,
        record::{MirrorRecord, RepositoryRecord},
    },
    report::{
        Report,
        document::{CycleSummary, LeftAlone, NotFound, RepositoryOutcome, ServerOutcome},
        history::History,
        page::{Page, Sources},
        picture::{Card, Picture},
        scoreboard::{SLOT_SECS, Scoreboard, Slot},
    },
};
use grasp_mirror_commands::archive::Kept;
use nostr::prelude::{EventId, Keys, PublicKey, Timestamp};
use tokio::sync::watch;

/// What a stranger may have written.
pub(super) const HOSTILE: &str =
    "<script>alert('x')</script><img src=x onerror=alert(1)> \" onmouseover=\"alert(2)";

/// The server that is down where there is trouble.
const DOWN: &str = "git.orangesync.tech";

const SHOWN: [&str; 12] = [
    "bloom-store",
    "dotfiles",
    "git-notes",
    "grove",
    "key-ceremony",
    "lamp-firmware",
    "negentropy-c",
    "nip-drafts",
    "relay-atlas",
    "tiny-wallet",
    "weather-station",
    "zap-splitter",
];

pub(super) fn now() -> u64 {
    Timestamp::now().as_secs()
}

/// When the made-up mirrors were looked at: the same whenever they are made up.
fn looked_at() -> u64 {
    static AT: OnceLock<u64> = OnceLock::new();
    *AT.get_or_init(now)
}

pub(super) fn npub(key: PublicKey) -> String {
    grasp_mirror::model::coordinate::npub(&key)
}

fn servers() -> Vec<ServerUrl> {
    let hosts = [
        "relay.ngit.dev",
        "gitnostr.com",
        DOWN,
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
        look_again: None,
        unlisted: Default::default(),
        refused: BTreeMap::new(),
        conversation: None,
    }
}

fn outcome(coordinate: Coordinate, mirror: impl Fn(usize) -> MirrorRecord) -> RepositoryOutcome {
    RepositoryOutcome {
        coordinate,
        state: None,
        mirrors: servers().into_iter().enumerate().map(|(at, server)| (server, mirror(at))).collect(),
        notes: Vec::new(),
        wanted: servers().len(),
        rewritten_at: None,
        held: None,
        repaired: 0,
    }
}

fn held() -> Held {
    Held {
        state: EventId::from_byte_array([1; 32]),
        since: looked_at(),
        until: looked_at() + 60_000,
        removed: 9,
        of: 12,
        stands: Stands::Waiting,
    }
}

fn down() -> MirrorRecord {
    mirror(MirrorStatus::Unreachable, Some("it cannot be reached: connection refused"))
}

/// Repositories, with some of every trouble.
pub(super) fn outcomes(number: usize, troubled: bool, owner: PublicKey) -> Vec<RepositoryOutcome> {
    let one = |n: usize| {
        let status = |at: usize| match (n % 20, at) {
            _ if !troubled => mirror(MirrorStatus::InSync, None),
            (3, _) => mirror(MirrorStatus::Failing, Some("HTTP 500 Internal Server Error")),
            (_, 2) => down(),
            (5, 4) => mirror(MirrorStatus::Refused, Some(HOSTILE)),
            (6, 5) => mirror(MirrorStatus::Pending, Some("waits its turn")),
            (7, 6) => mirror(MirrorStatus::Blocked, Some("blocked by your policy")),
            (8, 7) => mirror(MirrorStatus::AwaitingSignature, Some("waits for a signature")),
            (9, at) if at > 0 => mirror(MirrorStatus::Unreachable, Some("silent for 30 s")),
            _ => mirror(MirrorStatus::InSync, None),
        };
        let notes = if n % 50 == 7 { vec![HOSTILE.to_owned()] } else { Vec::new() };
        RepositoryOutcome { notes, ..outcome(Coordinate::new(owner, format!("repository-{n}")), status) }
    };
    (0..number).map(one).collect()
}

/// Such as the README shows.
fn shown(owners: &[PublicKey]) -> Vec<RepositoryOutcome> {
    let one = |(n, name): (usize, &&str)| {
        let status = |at: usize| match (*name, at) {
            (_, 2) => down(),
            ("dotfiles", 1..) => mirror(MirrorStatus::Failing, Some("HTTP 507 Insufficient Storage")),
            ("zap-splitter", 5) => mirror(MirrorStatus::Pending, Some("waits its turn")),
            ("relay-atlas", 4) => mirror(MirrorStatus::Refused, Some("blocked: not on the whitelist")),
            _ => mirror(MirrorStatus::InSync, None),
        };
        let owner = owners[n % owners.len()];
        let held = (*name == "zap-splitter").then(held);
        RepositoryOutcome { held, ..outcome(Coordinate::new(owner, *name), status) }
    };
    SHOWN.iter().enumerate().map(one).collect()
}

/// A page without a daemon behind it.
pub(super) struct Gallery {
    picture: Picture,
    pub(super) owner: PublicKey,
}

impl Gallery {
    pub(super) fn started() -> Self {
        let owner = Keys::generate().public_key();
        let report = Report::of(CycleSummary::default(), &BTreeSet::new(), &[], &[], LeftAlone::default());
        let bot = Card { key: owner, name: "grasp-mirror".to_owned(), nip05: None };
        Self { picture: Picture::new(bot, 3_600, report, now()), owner }
    }

    pub(super) fn of(repositories: usize, troubled: bool) -> Self {
        let gallery = Self::started();
        let outcomes = outcomes(repositories, troubled, gallery.owner);
        let alone = Coordinate::new(gallery.owner, HOSTILE);
        let missing = Coordinate::new(gallery.owner, format!("lost {HOSTILE}"));
        let repos = troubled.then_some(missing).into_iter().collect();
        gallery.after_a_cycle(&outcomes, troubled.then_some(alone), NotFound { repos, ..NotFound::default() })
    }

    /// What the README shows.
    pub(super) fn shown() -> Self {
        let owners: Vec<PublicKey> = (0..5).map(|_| Keys::generate().public_key()).collect();
        let alone = Coordinate::new(owners[0], "diary");
        Self::started().after_a_cycle(&shown(&owners), Some(alone), NotFound::default())
    }

    fn after_a_cycle(
        mut self,
        outcomes: &[RepositoryOutcome],
        alone: Option<Coordinate>,
        not_found: NotFound,
    ) -> Self {
        let cycle = CycleSummary {
            number: 12,
            trigger: "timer".to_owned(),
            started_at: now() - 240,
            finished_at: now() - 200,
            next_at: Some(now() + 3_300),
        };
        let troubled = alone.is_some();
        let server = |url: &ServerUrl| ServerOutcome {
            url: url.clone(),
            reachable: !troubled || url.host() != DOWN,
            software: Some("ngit-grasp 3.0.9".to_owned()),
            reason: None,
            unused: None,
        };
        let servers: Vec<_> = servers().iter().map(server).collect();
        let mut authors: BTreeSet<PublicKey> =
            outcomes.iter().map(|outcome| outcome.coordinate.owner).collect();
        if authors.is_empty() {
            authors.insert(self.owner);
        }
        let why = |alone: &Coordinate| format!("its maintainer {} said: forget", npub(alone.owner));
        let forgotten: BTreeMap<_, _> = alone.into_iter().map(|alone| (alone.clone(), why(&alone))).collect();
        let left_alone = LeftAlone { forgotten, private: usize::from(troubled), ..LeftAlone::default() };
        let report = Report::telling(cycle, &authors, &servers, outcomes, left_alone, not_found);
        self.picture.end(&report, outcomes, 40_000, now() - 200);
        self.picture.settled = true;
        self
    }

    /// Shows it until the test ends.
    pub(super) async fn open(self) -> (SocketAddr, watch::Sender<Picture>) {
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
                let answered = u32::from(server.host() != DOWN || slot > 30);
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
