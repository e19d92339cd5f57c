//! Servers that are listed because the bot had it signed: what to add to a maintainer's announcement, and what is
//! remembered of it.
//!
//! A server is to be listed when it holds a copy in the bot's namespace, so that nobody is sent where nothing is. The
//! copy stays there. A server that refuses the copy may still take what its owner lists: it is shown the announcement
//! that lists it before anybody else is. A server that somebody took out of the announcement is not added again.

use std::collections::{BTreeMap, BTreeSet};

use grasp_mirror_commands::{clean, short};
use nostr::prelude::{EventId, PublicKey, Tag, Timestamp, UnsignedEvent};
use serde::{Deserialize, Serialize};

use super::{
    catalog::Repository,
    per_server::{Mirrors, Places},
    record::{MirrorRecord, REASON_MAX},
};
use crate::model::{announcement::Announcement, server::ServerUrl, status::MirrorStatus};

/// After how many seconds a signer that said no is asked again, or what was too large is tried again.
const ASKED_AGAIN_SECS: u64 = 24 * 3_600;

/// Why a signer's key is of no use, for people.
pub const IDLE: &str = "it maintains none of the watched repositories: watch them, or have the signer's announcement and \
                        the owner's list each other as maintainers";

/// Whether `key` is a confirmed maintainer's of one of `repositories`.
#[must_use]
pub fn maintains_any(key: &PublicKey, repositories: &[Repository]) -> bool {
    let authorities = repositories.iter().filter_map(|repository| repository.authority.as_ref());
    authorities.into_iter().any(|authority| authority.confirmed.contains(key))
}

/// After how many seconds a server that did not take the announcement that lists it is shown one again.
const SHOWN_AGAIN_SECS: u64 = 30 * 24 * 3_600;

/// After how many seconds a state may be signed anew again for a server that has not brought its refs to the last one.
const GIVEN_BACK_AGAIN_SECS: u64 = 3_600;

/// For so many seconds it is not, also when somebody wants everything looked at anew: that is the same run.
const SAME_RUN_SECS: u64 = 300;

/// What is remembered of one repository's signed listings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signing {
    /// Servers of which a version of the announcement was signed that nobody has served yet.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    asked: BTreeMap<ServerUrl, Listing>,
    /// Servers that an announcement lists because of the bot.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    listed: BTreeMap<ServerUrl, Listing>,
    /// Servers that somebody took out of an announcement, whoever had listed them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    removed: BTreeSet<ServerUrl>,
    /// What each maintainer's announcement was last seen to list.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    said: BTreeMap<PublicKey, Listed>,
    /// Servers that took neither the copy nor the maintainer's announcement that lists them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    declined: BTreeMap<ServerUrl, Declined>,
    /// When a state was last signed anew for a server that lacked its git data, Unix seconds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    given_back: BTreeMap<ServerUrl, u64>,
    /// What a remote signer is to sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
}

/// Whose announcement lists a server because of the bot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Listing {
    by: PublicKey,
    /// When it was signed by this machine's clock, Unix seconds. The event itself is dated earlier.
    at: u64,
}

/// A server's answer to the announcement that lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Declined {
    words: String,
    /// When, Unix seconds.
    at: u64,
}

/// What an announcement lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Listed {
    /// When it was signed.
    at: Timestamp,
    servers: BTreeSet<ServerUrl>,
}

/// A signature that a remote signer (NIP-46) is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The events' ids.
    pub events: BTreeSet<EventId>,
    /// Whose signature.
    pub by: PublicKey,
    /// The servers it adds.
    pub servers: BTreeSet<ServerUrl>,
    /// Since when servers wait for a signature, Unix seconds.
    pub since: u64,
    /// What the signer says.
    pub stands: Stands,
}

/// How a request to a remote signer stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stands {
    /// It is on its way.
    Asked,
    /// The signer is there and has not answered: a person is to approve.
    WaitingForYou,
    /// The signer wants a person to open this address (`auth_url`).
    WaitingForYouAt(String),
    /// The signer does not answer, and why.
    Unreachable(String),
    /// The signer said no, in its words, and when, Unix seconds.
    Refused(String, u64),
    /// It is too large for a remote signer, or for the way there, in words; and since when that is known, Unix seconds.
    TooLarge(String, u64),
}

/// The longest message that every remote signer understands, in bytes: as much as NIP-44 encrypts without its extension
/// for long ones, which few know.
pub const MESSAGE_MAX: usize = 65_535;

/// What a message has around an event, in bytes: ids, method, and in an answer the signature.
const AROUND: usize = 300;

/// How many bytes the longer message has in which a remote signer is asked for a signature, or gives it, when that is more
/// than [`MESSAGE_MAX`]. The event stands in it as JSON in JSON.
#[must_use]
pub fn too_large(event: &UnsignedEvent) -> Option<usize> {
    let text = serde_json::to_string(&event.as_json()).map_or(usize::MAX, |text| text.len());
    Some(text.saturating_add(AROUND)).filter(|bytes| *bytes > MESSAGE_MAX)
}

impl Stands {
    /// Why a signer is not connected to, for people; without what may be secret in an address.
    #[must_use]
    pub fn why_not_connected(&self) -> String {
        clean(
            &match self {
                Self::Asked | Self::WaitingForYou => "it waits for you to approve the connection".to_owned(),
                Self::WaitingForYouAt(url) => {
                    format!("it wants you to open a page at {}", crate::model::address::shown_text(url))
                }
                Self::Unreachable(reason) => format!("it is unreachable: {reason}"),
                Self::Refused(words, _) => format!(
                    "it refuses to connect: {words}; make a new bunker:// address for MIRROR_SIGNER, or pair again"
                ),
                Self::TooLarge(words, _) => format!("what it is asked is too large: {words}"),
            },
            REASON_MAX,
        )
    }
}

impl Request {
    /// Why the servers wait, for people. An address that is to be opened is for the operator's eyes alone, and is shown
    /// without what may be secret in it.
    #[must_use]
    pub fn reason(&self) -> String {
        let who = short(&self.by);
        clean(
            &match &self.stands {
                Stands::Asked => format!("the signer of {who} is being asked"),
                Stands::WaitingForYou => format!("waiting for you: approve it in the signer of {who}"),
                Stands::WaitingForYouAt(url) => format!(
                    "waiting for you: the signer of {who} wants you to open a page at {}; why tells its address",
                    crate::model::address::shown_text(url)
                ),
                Stands::Unreachable(reason) => {
                    format!("the signer of {who} is unreachable: {reason}; a resync asks it at once")
                }
                Stands::Refused(words, _) => {
                    format!(
                        "the signer of {who} said no: {words}; it is asked again after a day, or after a resync"
                    )
                }
                Stands::TooLarge(words, _) => format!(
                    "too large for the remote signer of {who}: {words}; put the key itself into MIRROR_SIGNER, or list the \
                     server by hand"
                ),
            },
            REASON_MAX,
        )
    }

    /// Whether the signer is to be asked (again) at `now`.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        match self.stands {
            Stands::Refused(_, at) | Stands::TooLarge(_, at) => {
                at.saturating_add(ASKED_AGAIN_SECS) <= now.as_secs()
            }
            _ => true,
        }
    }
}

impl Signing {
    /// Notes which of the servers asked for are listed now; whether there are any. To be written down before anything
    /// newer is looked at: who takes one out from now on does so knowingly.
    pub fn note_come(&mut self, repository: &Repository) -> bool {
        let come: Vec<_> = self
            .asked
            .iter()
            .filter(|(server, listing)| said(repository, &listing.by).is_some_and(|said| said.lists(server)))
            .map(|(s, l)| (s.clone(), *l))
            .collect();
        let any = !come.is_empty();
        for (server, listing) in come {
            self.asked.remove(&server);
            self.listed.insert(server, listing);
        }
        any
    }

    /// Compares what is remembered with what the maintainers say now.
    pub fn look_at(&mut self, repository: &Repository) {
        // Of these it is known when they were signed by this machine's clock.
        let ours: BTreeSet<ServerUrl> = self.asked.keys().chain(self.listed.keys()).cloned().collect();
        self.note_come(repository);
        let removed = &mut self.removed;
        self.listed.retain(|server, listing| {
            let Some(said) = said(repository, &listing.by) else { return true };
            // Who signed before ours could be seen took nothing out: it is added to theirs.
            if !said.lists(server) && said.created_at().as_secs() > listing.at {
                removed.insert(server.clone());
            }
            said.lists(server)
        });
        for said in &repository.announcements {
            let (at, servers) = (said.created_at(), said.servers());
            // Of two that were signed in one second the one that replaces the other came later.
            if let Some(before) = self.said.get(&said.author()).filter(|before| before.at <= at) {
                let gone = before.servers.difference(&servers);
                self.removed.extend(gone.filter(|server| !ours.contains(*server)).cloned());
            }
            self.said.insert(said.author(), Listed { at, servers });
        }
        self.removed.retain(|server| repository.listed_by(server).is_none());
    }

    /// Learns what somebody took out by hand, as it was remembered elsewhere. To be looked at after it.
    pub fn take_out<'a>(&mut self, servers: impl Iterator<Item = &'a ServerUrl>) {
        self.removed.extend(servers.cloned());
    }

    /// The servers that are listed because of the bot.
    pub fn signed_on(&self) -> impl Iterator<Item = &ServerUrl> {
        self.listed.keys()
    }

    /// The servers that somebody took out by hand.
    #[must_use]
    pub fn removed(&self) -> &BTreeSet<ServerUrl> {
        &self.removed
    }

    /// A version by `by` that lists `servers` is about to be published.
    pub fn note_signed(&mut self, by: PublicKey, servers: &BTreeSet<ServerUrl>, now: Timestamp) {
        let listing = Listing { by, at: now.as_secs() };
        self.asked.extend(servers.iter().map(|server| (server.clone(), listing)));
    }

    /// The servers to be listed: those that hold a copy in the bot's namespace, unless somebody took them out.
    #[must_use]
    pub fn to_be_listed(&self, places: &Places, mirrors: &Mirrors) -> BTreeSet<ServerUrl> {
        let holds = |server: &ServerUrl| {
            mirrors.get(server).is_some_and(|mirror| mirror.status == MirrorStatus::InSync)
        };
        places
            .iter()
            .filter(|(server, place)| place.own && place.takes_pushes && holds(server))
            .map(|(server, _)| server.clone())
            .filter(|server| !self.removed.contains(server))
            .collect()
    }

    /// The servers for which the `state` is to be signed anew: a maintainer's announcement lists their path, and they have
    /// lost git data, or were never brought it, although they serve the state. `afresh`: also soon after the last time.
    #[must_use]
    pub fn to_be_given_back(
        &self,
        state: Option<EventId>,
        places: &Places,
        mirrors: &Mirrors,
        afresh: bool,
        now: Timestamp,
    ) -> BTreeSet<ServerUrl> {
        let rest = if afresh { SAME_RUN_SECS } else { GIVEN_BACK_AGAIN_SECS };
        let lacks = |server: &ServerUrl, mirror: &MirrorRecord| {
            // One that refuses the repository takes no newer state of it either.
            mirror.status != MirrorStatus::Refused
                && mirror.refs_differ.is_some()
                && mirror.refs_differ == state
                && places.get(server).is_some_and(|place| !place.own)
        };
        // A time ahead was noted by a clock that was.
        let is_recent = |at: &u64| (*at..at.saturating_add(rest)).contains(&now.as_secs());
        let was = |server| self.given_back.get(server).is_some_and(is_recent);
        let lacking = mirrors.iter().filter(|(server, mirror)| lacks(server, mirror) && !was(*server));
        lacking.map(|(server, _)| server.clone()).collect()
    }

    /// A state that is signed anew for `servers` is about to be published.
    pub fn note_given_back(&mut self, servers: &BTreeSet<ServerUrl>, now: Timestamp) {
        self.given_back.extend(servers.iter().map(|server| (server.clone(), now.as_secs())));
    }

    /// The server that refuses the copy in the bot's namespace and is to be shown an announcement that lists it; one at a
    /// time, since those that take it have to be told from those that do not. `afresh`: also one that did not take it lately.
    #[must_use]
    pub fn to_be_shown(
        &self,
        repository: &Repository,
        places: &Places,
        mirrors: &Mirrors,
        afresh: bool,
        now: Timestamp,
    ) -> Option<ServerUrl> {
        let refuses = |server: &ServerUrl| {
            mirrors.get(server).is_some_and(|mirror| mirror.status == MirrorStatus::Refused)
        };
        let said_no = |server: &ServerUrl| {
            let no = self.declined.get(server).map(|no| no.at);
            let rest = if afresh { SAME_RUN_SECS } else { SHOWN_AGAIN_SECS };
            no.is_some_and(|at| now.as_secs() < at.saturating_add(rest))
        };
        let mut own =
            places.iter().filter(|(_, place)| place.own && place.takes_pushes).map(|(server, _)| server);
        let may =
            |server: &ServerUrl| repository.listed_by(server).is_none() && !self.removed.contains(server);
        own.find(|server| refuses(server) && may(server) && !said_no(server)).cloned()
    }

    /// `server` did not take the announcement that lists it. Nobody else has seen it.
    pub fn decline(&mut self, server: &ServerUrl, words: &str, now: Timestamp) {
        self.asked.remove(server);
        let no = Declined { words: clean(words, REASON_MAX), at: now.as_secs() };
        self.declined.insert(server.clone(), no);
    }

    /// Shows the mirrors that wait for a signature as such. Each of them is a good copy in the bot's namespace. Where the
    /// server refuses the copy, the reason says what became of listing it.
    pub fn show(&self, mirrors: &mut Mirrors) {
        for (server, mirror) in mirrors.iter_mut() {
            let request = self.request.as_ref().filter(|request| request.servers.contains(server));
            match (mirror.status, request, self.declined.get(server)) {
                (MirrorStatus::InSync, Some(request), _) => {
                    mirror.status = MirrorStatus::AwaitingSignature;
                    mirror.reason = Some(request.reason());
                    mirror.since = request.since;
                }
                (MirrorStatus::Refused, Some(request), _) => {
                    mirror
                        .add_reason(&format!("to be listed by its maintainer instead: {}", request.reason()));
                }
                (MirrorStatus::Refused, None, Some(no)) => {
                    mirror.add_reason(&format!(
                        "nor does it take a maintainer's announcement that lists it: {}",
                        no.words
                    ));
                }
                _ => {}
            }
        }
    }
}

/// What `by` announces.
fn said<'a>(repository: &'a Repository, by: &PublicKey) -> Option<&'a Announcement> {
    repository.announcements.iter().find(|said| said.author() == *by)
}

/// The confirmed maintainer's announcement that one of `keys` can sign, the owner's first.
#[must_use]
pub fn signable<'a>(repository: &'a Repository, keys: &BTreeSet<PublicKey>) -> Option<&'a Announcement> {
    let confirmed = &repository.authority.as_ref()?.confirmed;
    repository
        .announcements
        .iter()
        .find(|said| confirmed.contains(&said.author()) && keys.contains(&said.author()))
}

/// The authoritative state once more, one second later, by `author`. `None` where there is none.
///
/// A server that has the state by way of the bot's copy does not bring it to the owner's path by itself, and takes no push
/// for a state that it serves already.
#[must_use]
pub fn said_again(repository: &Repository, author: PublicKey) -> Option<UnsignedEvent> {
    let state = &repository.state.as_ref()?.event;
    let created_at = Timestamp::from_secs(state.created_at.as_secs().checked_add(1)?);
    Some(UnsignedEvent::new(
        author,
        created_at,
        state.kind,
        state.tags.iter().cloned(),
        state.content.clone(),
    ))
}

/// The next version of `current`: with `servers` in `clone` and `relays`, only what is missing added, all else as it is.
/// `None` when nothing is missing.
///
/// It is dated one second after what it replaces and not by the clock, so that whatever another client signs at the same
/// time wins.
#[must_use]
pub fn amended(current: &Announcement, servers: &BTreeSet<ServerUrl>) -> Option<UnsignedEvent> {
    let (author, identifier) = (current.author(), &current.coordinate.identifier);
    let clone = servers.iter().filter(|server| !current.has_clone_at(server));
    let clone: Vec<String> = clone.map(|server| server.clone_url(&author, identifier).to_string()).collect();
    let relays = servers.iter().filter(|server| !current.has_relay(server));
    let relays: Vec<String> = relays.map(ToString::to_string).collect();
    if clone.is_empty() && relays.is_empty() {
        return None;
    }
    let mut tags: Vec<Tag> = current.event.tags.iter().cloned().collect();
    for (name, more) in [("clone", clone), ("relays", relays)] {
        if more.is_empty() {
            continue;
        }
        match tags.iter_mut().find(|tag| tag.kind() == name) {
            Some(tag) => tag.extend(more),
            None => tags.push(Tag::custom(name, more)),
        }
    }
    let created_at = Timestamp::from_secs(current.created_at().as_secs().checked_add(1)?);
    let content = current.event.content.clone();
    Some(UnsignedEvent::new(author, created_at, current.event.kind, tags, content))
}

#[cfg(test)]
mod tests;
