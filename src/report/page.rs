//! All that is known of one repository, for its page.

use std::collections::BTreeMap;

use grasp_mirror_commands::{archive::Kept, clean};
use nostr::prelude::{EventId, PublicKey};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::{
    history::{Change, History},
    picture::Row,
    scoreboard::{Scoreboard, Slot},
};
use crate::{
    model::{
        announcement::{Announcement, first},
        coordinate::{Coordinate, npub},
        placement::Placement,
        server::ServerUrl,
        status::MirrorStatus,
    },
    plan::{
        catalog::Repository,
        hold::Held,
        record::{MirrorRecord, RepositoryRecord},
    },
};

/// The most old tips shown.
const TIPS_MAX: usize = 100;

/// The longest name, in characters.
const NAME_MAX: usize = 120;

/// The longest description, in characters.
const DESCRIPTION_MAX: usize = 600;

/// What `/api/repos/<npub>/<d>.json` says. Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Page {
    a: Coordinate,
    npub: String,
    d: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// For `git clone` with git-remote-nostr.
    nostr_url: String,
    copies: usize,
    wanted: usize,
    notes: Vec<String>,
    rewritten_at: Option<u64>,
    held: Option<Held>,
    deep_checked_at: Option<u64>,
    mirrors: Vec<Mirror>,
    archive: Vec<Tip>,
    /// How many old tips there are, also beyond those in `archive`.
    archived: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Mirror {
    server: ServerUrl,
    host: String,
    status: MirrorStatus,
    placement: Placement,
    reason: Option<String>,
    since: u64,
    read_back_at: Option<u64>,
    retry_at: Option<u64>,
    failures: u32,
    state: Option<EventId>,
    clone_url: String,
    history: Vec<Change>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Tip {
    at: u64,
    name: String,
    tip: String,
    until: u64,
}

/// What a page is made from.
#[derive(Debug)]
pub struct Sources<'a> {
    /// The bot's key, in whose namespace its copies lie.
    pub bot: PublicKey,
    /// How the repository stands.
    pub row: &'a Row,
    /// What is remembered of its mirrors.
    pub record: &'a RepositoryRecord,
    /// What changed.
    pub history: &'a History,
    /// Old tips, the newest first.
    pub archive: Vec<Kept>,
    /// What its maintainers say of it.
    pub repository: Option<&'a Repository>,
    /// The bot's own announcements.
    pub own: &'a [Announcement],
}

impl Page {
    /// Puts the page together.
    #[must_use]
    pub fn of(sources: Sources<'_>) -> Self {
        let Sources { bot, row, record, history, archive, repository, own } = sources;
        let announcement = repository.and_then(Repository::announcement);
        let coordinate = &row.coordinate;
        let said = |tag: &str, max: usize| {
            let text = announcement.and_then(|announcement| first(&announcement.event, tag))?;
            Some(clean(text, max)).filter(|text| !text.is_empty())
        };
        let copy = own.iter().find(|own| own.upstream.as_ref() == Some(coordinate));
        let copy =
            Coordinate::new(bot, copy.map_or(&coordinate.identifier, |copy| &copy.coordinate.identifier));
        // As it was placed (`plan::placement`).
        let path = |server: &ServerUrl, mirror: &MirrorRecord| match mirror.placement {
            Placement::Listed | Placement::Signed => {
                let listed = repository.and_then(|repository| repository.listed_by(server));
                let elsewhere = if mirror.placement == Placement::Signed { &copy } else { coordinate };
                listed.unwrap_or(elsewhere)
            }
            Placement::Lead | Placement::Namespace => &copy,
        };
        let mirrors = record.mirrors.iter().map(|(server, mirror)| Mirror {
            server: server.clone(),
            host: server.host().to_owned(),
            status: mirror.status,
            placement: mirror.placement,
            reason: mirror.reason.as_deref().map(|reason| clean(reason, 500)),
            since: mirror.since,
            read_back_at: mirror.read_back_at,
            retry_at: mirror.retry_at,
            failures: mirror.failures,
            state: mirror.state,
            clone_url: {
                let path = path(server, mirror);
                server.clone_url(&path.owner, &path.identifier).to_string()
            },
            history: history.at(server).cloned().collect(),
        });
        let mut mirrors: Vec<Mirror> = mirrors.collect();
        mirrors.sort_by_key(|mirror| mirror.status == MirrorStatus::InSync);
        let owner = npub(&coordinate.owner);
        Self {
            a: coordinate.clone(),
            nostr_url: nostr_url(&owner, &coordinate.identifier),
            npub: owner,
            d: coordinate.identifier.clone(),
            name: said("name", NAME_MAX),
            description: said("description", DESCRIPTION_MAX),
            copies: mirrors.iter().filter(|mirror| mirror.status == MirrorStatus::InSync).count(),
            wanted: record.copies_wanted(),
            notes: row.notes.clone(),
            rewritten_at: record.rewritten_at,
            held: record.held.clone().filter(Held::is_waiting),
            deep_checked_at: record.deep_checked_at,
            mirrors,
            archived: archive.len(),
            archive: archive.into_iter().take(TIPS_MAX).map(Tip::from).collect(),
        }
    }
}

impl From<Kept> for Tip {
    fn from(kept: Kept) -> Self {
        Self { at: kept.at, name: clean(&kept.name, 200), tip: kept.tip, until: kept.until }
    }
}

/// `nostr://<npub>/<identifier>`, as ngit reads it.
fn nostr_url(owner: &str, identifier: &str) -> String {
    const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    format!("nostr://{owner}/{}", utf8_percent_encode(identifier, PLAIN))
}

/// What the server page says of each server.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServerPlot {
    server: ServerUrl,
    /// Slots of [`super::scoreboard::SLOT_SECS`], the oldest first: begin, and what was seen.
    slots: Vec<(u64, Slot)>,
    week: Slot,
}

/// The last day of each server, slot by slot, and the last seven days added up. `now` is Unix seconds.
#[must_use]
pub fn server_plots(boards: BTreeMap<ServerUrl, Scoreboard>, now: u64) -> Vec<ServerPlot> {
    const DAY_SECS: u64 = 86_400;
    let plot = |(server, board): (ServerUrl, Scoreboard)| ServerPlot {
        server,
        slots: board.since(now.saturating_sub(DAY_SECS)).collect(),
        week: board.week(now),
    };
    boards.into_iter().map(plot).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::sync::Arc;

    use nostr::prelude::{Keys, Kind, Tag, Timestamp};

    use super::*;
    use crate::{
        model::draft::Draft,
        plan::catalog::{self, Limits, Watched},
        report::picture::testing::{NOW, mirror, outcome, picture},
    };

    fn announced(keys: &Keys, tags: &[&[&str]]) -> Announcement {
        let tags = tags.iter().map(|tag| Tag::parse(tag.iter().copied()).unwrap()).collect();
        let draft = Draft {
            kind: Kind::GitRepoAnnouncement,
            tags,
            content: String::new(),
            created_at: Timestamp::from_secs(NOW),
        };
        Announcement::read(draft.sign(keys).unwrap()).unwrap()
    }

    #[test]
    fn it_says_where_each_copy_is_cloned_and_cleans_what_the_owner_wrote() {
        let bot = Keys::generate();
        let own_place =
            MirrorRecord { placement: Placement::Namespace, ..mirror(MirrorStatus::InSync, None) };
        let down = mirror(MirrorStatus::Unreachable, Some("no\u{202e}\nanswer"));
        let listed = mirror(MirrorStatus::InSync, None);
        let mut outcome =
            outcome("a b", &[("a.example", own_place), ("b.example", down), ("c.example", listed)]);
        let owner = Keys::generate();
        outcome.coordinate = Coordinate::new(owner.public_key(), "a b");
        let mut it = picture();
        let report = it.report.clone();
        it.end(&report, std::slice::from_ref(&outcome), 1, NOW);
        let a = outcome.coordinate.to_string();
        let own = [announced(&bot, &[&["d", "a b-79be667e"], &["u", &a]])];
        let owners = announced(
            &owner,
            &[&["d", "a b"], &["name", "<script>alert(1)</script>\u{202e}"], &["description", "  "]],
        );
        let watched = Watched { repositories: [outcome.coordinate.clone()].into(), ..Watched::default() };
        let limits = Limits { max_refs: 9, max_repos_per_author: 9 };
        let catalog = catalog::build(&[owners.event], &watched, &bot.public_key(), limits);
        let mut history = History::default();
        history.note(&outcome.mirrors, NOW);
        let record = RepositoryRecord { mirrors: outcome.mirrors.clone(), ..RepositoryRecord::default() };
        let kept =
            |n: u64| Kept { at: n, name: format!("refs/heads/{n}"), tip: "1".repeat(40), until: n + 1 };
        let page = Page::of(Sources {
            bot: bot.public_key(),
            row: &Arc::clone(&it.rows[0]),
            record: &record,
            history: &history,
            archive: (0..150).map(kept).collect(),
            repository: catalog.repositories.first(),
            own: &own,
        });
        let json = serde_json::to_value(&page).unwrap();
        assert_eq!(json["name"], "<script>alert(1)</script>");
        assert!(json.get("description").is_none());
        assert_eq!((json["copies"].as_u64(), json["archived"].as_u64()), (Some(2), Some(150)));
        assert_eq!(json["archive"].as_array().unwrap().len(), TIPS_MAX);
        let (first, second) = (&json["mirrors"][0], &json["mirrors"][1]);
        assert_eq!(
            (first["status"].as_str(), first["reason"].as_str()),
            (Some("unreachable"), Some("no answer"))
        );
        assert_eq!(first["history"][0]["status"], "unreachable");
        let npub = npub(&bot.public_key());
        assert_eq!(second["clone_url"], format!("https://a.example/{npub}/a%20b-79be667e.git"));
        let npub = super::npub(&owner.public_key());
        assert_eq!(json["mirrors"][2]["clone_url"], format!("https://c.example/{npub}/a%20b.git"));
        assert_eq!(json["nostr_url"], format!("nostr://{}/a%20b", json["npub"].as_str().unwrap()));
    }

    #[test]
    fn a_servers_plot_is_its_last_day() {
        let mut board = Scoreboard::default();
        let seen = Slot { asked: 1, answered: 1, latency_ms: 9, slowest_ms: 9, ..Slot::default() };
        for hours in [48, 12, 0] {
            board.note(seen, NOW + (48 - hours) * 3_600);
        }
        let server: ServerUrl = "wss://a.example".parse().unwrap();
        let plots = server_plots(BTreeMap::from([(server, board)]), NOW + 48 * 3_600);
        assert_eq!((plots[0].slots.len(), plots[0].week.asked), (2, 3));
    }
}
