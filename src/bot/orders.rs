//! Carries out what somebody asks for, and says what came of it.

use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;
use grasp_mirror_commands::{
    Command, Found, Nip05, RepoName, Scope, Target,
    approve::{self, Decided},
    archive, failure, help, hints, list, parse, pause, reject, resume,
    resync::{self, Resync},
    servers, status,
    unwatch::{self, Unwatched},
    version,
    watch::{self, Watched},
    why,
};
use nostr::prelude::{Filter, Kind, Metadata, PublicKey, RelayUrl, Timestamp};
use tokio::time::timeout;

use super::{Bot, forget::said_to_forget};
use crate::{
    cycle::{self, CycleError, PairError},
    git::GitError,
    model::{coordinate::Coordinate, policy::Rule},
    plan::{
        catalog::{self, Catalog},
        settings::Settings,
    },
    relay::{direct::Question, nip05},
    report::{Report, answers},
    store::StoreError,
};

/// How long relays are asked for the repositories of somebody who is watched from now on, before the answer.
const FIRST_LOOK: Duration = Duration::from_millis(1_200);

/// The same of a relay that a person named: it is asked this once.
const HINTED_LOOK: Duration = Duration::from_secs(5);

/// Relays of one message asked.
const HINTS_MAX: usize = 8;

/// Why a command could not be carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum OrderError {
    /// The machine is at fault.
    #[error(transparent)]
    Cycle(#[from] CycleError),
    /// It is not known yet what is to be changed.
    #[error("my relays do not show me my own lists, which I would replace")]
    Unread,
    /// The local copy.
    #[error(transparent)]
    Git(#[from] GitError),
    /// A remote signer.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// Somebody else keeps changing the same list.
    #[error("another client changes the same list at the same time")]
    Overtaken,
}

impl From<StoreError> for OrderError {
    fn from(error: StoreError) -> Self {
        Self::Cycle(error.into())
    }
}

/// What came of a command.
#[derive(Debug)]
pub(super) struct Done {
    /// What to say.
    pub(super) text: String,
    /// What is to be looked at anew; a second answer follows when that is done. `None` inside means everything.
    pub(super) resync: Option<Option<BTreeSet<Coordinate>>>,
    /// Whether nothing is said when that is done.
    pub(super) quietly: bool,
}

impl From<String> for Done {
    fn from(text: String) -> Self {
        Self { text, resync: None, quietly: false }
    }
}

impl Bot {
    /// Does what somebody asks for.
    pub(super) async fn carry_out(&mut self, question: &Question) -> Done {
        let command = match parse(&question.text) {
            Ok(command) => command,
            Err(error) => return error.to_string().into(),
        };
        let command = match command.nip05().cloned() {
            None => command,
            // No stranger sends the bot around.
            Some(_) if !self.allowed.borrow().contains(&question.from) => command,
            Some(name) => match self.resolve(&name).await {
                Ok(author) => command.resolved(author),
                Err(reason) => return failure::unresolved(&name, &reason).into(),
            },
        };
        match self.obey(command.clone(), question).await {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(command = command.name(), %error, "a command failed");
                failure::failed(&command, &error.to_string(), "Nothing was changed. Send it again later.")
                    .into()
            }
        }
    }

    async fn resolve(&self, name: &Nip05) -> Result<PublicKey, String> {
        nip05::resolve(&self.guard, name).await.map_err(|error| error.to_string())
    }

    async fn obey(&mut self, command: Command, question: &Question) -> Result<Done, OrderError> {
        let now = Timestamp::now().as_secs();
        let said = command.to_string();
        let text = match command {
            Command::Help(topic) => help::reply(topic),
            Command::Version => version::reply(env!("CARGO_PKG_VERSION"), self.started_at.as_secs(), now),
            Command::Watch(target) => {
                let outcome = self.watch(&target, hints(&question.text), said).await?;
                let meant = watched(&target).map(|(_, meant)| meant).unwrap_or_default();
                format!("{}{}", watch::reply(&target, &outcome), self.left_alone_of(&meant).await?)
            }
            Command::Unwatch(target) => {
                let outcome = self.unwatch(&target, said).await?;
                unwatch::reply(&target, outcome)
            }
            Command::List => self.list().await?,
            Command::Status(None) => {
                let mut overview = answers::overview(&self.report().await?, self.settings().paused);
                overview.under_way = cycle::running(&self.records).await?.as_ref().map(answers::under_way);
                status::reply(&overview, now)
            }
            Command::Status(Some(name)) => match self.find(&name).await? {
                Err(which) => which,
                Ok(coordinate) => {
                    let record = cycle::remembered(&self.records, &coordinate).await?;
                    let report = self.report().await?;
                    status::reply_repo(&answers::repository(&report, &coordinate, &record), now)
                }
            },
            Command::Why { repo, server } => match self.find(&repo).await? {
                Err(which) => which,
                Ok(coordinate) => {
                    let record = cycle::remembered(&self.records, &coordinate).await?;
                    let mut notes = answers::notes(&self.report().await?, &coordinate, &record);
                    notes.extend(self.page_to_open(&coordinate).await?);
                    let (repo, server) = (answers::named(&coordinate), server.as_deref());
                    why::reply(&repo, server, &answers::why(&record, server), &notes, now)
                }
            },
            Command::Servers => {
                let report = self.report().await?;
                let weeks = cycle::weeks(&self.records, &report).await?;
                servers::reply(&answers::servers(&report, &self.settings().servers, &weeks))
            }
            Command::Pause => pause::reply(!self.set_paused(true, said).await?),
            Command::Resume => resume::reply(self.set_paused(false, said).await?),
            Command::Pair => self.pair().await?,
            Command::Resync(scope) => return self.resync(&scope).await,
            Command::Allow(matter) => self.allow(&matter, said).await?,
            Command::Deny(matter) => self.deny(&matter, said).await?,
            Command::Approve(name) => return self.decide(&name, true).await,
            Command::Reject(name) => return self.decide(&name, false).await,
            Command::Archive(name) => match self.find(&name).await? {
                Err(which) => which,
                Ok(coordinate) => self.archive(&coordinate).await?,
            },
            Command::Forget { repo, undo } => self.leave_alone(&repo, undo, question.from, said).await?,
        };
        Ok(text.into())
    }

    pub(super) fn settings(&self) -> Settings {
        self.daemon.settings.borrow().clone().unwrap_or_default()
    }

    pub(super) async fn report(&self) -> Result<Report, OrderError> {
        Ok(cycle::last_report(&self.own.config, &self.own.store, &self.own.keys).await?)
    }

    /// Whether that changed anything.
    async fn set_paused(&mut self, paused: bool, said: String) -> Result<bool, OrderError> {
        if self.settings().paused == paused {
            return Ok(false);
        }
        self.change(said, |settings| settings.paused = paused).await?;
        Ok(true)
    }

    async fn watch(
        &mut self,
        target: &Target,
        hints: Vec<RelayUrl>,
        said: String,
    ) -> Result<Watched, OrderError> {
        let Some((owner, meant)) = watched(target) else { return Ok(Watched::Already) };
        let bot = self.own.keys.public_key();
        if owner == bot {
            return Ok(Watched::Me);
        }
        if self.settings().watched.includes(&meant) {
            return Ok(Watched::Already);
        }
        self.first_look(owner, hints).await;
        let known = cycle::known(&self.own.config, &self.own.store, &bot, &meant).await?;
        self.change(said, |settings| settings.watched.add(meant.clone())).await?;
        let policy = self.policy();
        let rule = match target {
            Target::Repository(repository) => policy.admits(&answers::coordinate(repository)),
            _ => policy.denies(&Rule::Author(owner)),
        };
        Ok(match rule {
            Ok(()) if !known.unannounced.is_empty() => Watched::NotFound,
            Ok(()) => Watched::Added { repos: known.repositories.len() },
            Err(rule) => Watched::Denied { rule: rule.to_string() },
        })
    }

    /// Asks for what somebody announces, so that the answer can say how much that is. What only a relay has that the
    /// person named beside it (`hints`) is found here: what is announced names its own relays.
    async fn first_look(&self, owner: PublicKey, hints: Vec<RelayUrl>) {
        let servers = self.settings();
        let servers = servers.servers.iter().map(|server| server.relay_url());
        let bot = &self.own.config.bot;
        let relays: BTreeSet<RelayUrl> =
            servers.chain(&bot.relays).chain(&bot.index_relays).cloned().collect();
        let hints: BTreeSet<RelayUrl> = hints.into_iter().take(HINTS_MAX).collect();
        let filter = Filter::new().kinds([Kind::GitRepoAnnouncement, Kind::Metadata]).author(owner);
        let looks = relays.union(&hints).map(|relay| {
            let read = cycle::read_into(&self.own.store, &self.own.relays, relay, vec![filter.clone()]);
            timeout(if hints.contains(relay) { HINTED_LOOK } else { FIRST_LOOK }, read)
        });
        join_all(looks).await;
    }

    async fn unwatch(&mut self, target: &Target, said: String) -> Result<Unwatched, OrderError> {
        let Some((owner, meant)) = watched(target) else { return Ok(Unwatched::Never) };
        let now = self.settings().watched;
        let by_name = now.includes(&meant);
        let is_there = meant.repositories.is_disjoint(&self.catalog().await?.unannounced);
        if by_name {
            self.change(said, |settings| settings.watched.remove(&meant)).await?;
        }
        Ok(match target {
            Target::Repository(_) if now.authors.contains(&owner) && is_there => Unwatched::WithAuthor,
            _ if by_name => Unwatched::Removed,
            _ => Unwatched::Never,
        })
    }

    /// What is known so far of what is watched.
    pub(super) async fn catalog(&self) -> Result<Catalog, OrderError> {
        let watched = self.settings().watched;
        let bot = self.own.keys.public_key();
        Ok(cycle::known(&self.own.config, &self.own.store, &bot, &watched).await?)
    }

    /// The repositories known so far of what is watched.
    pub(super) async fn known(&self) -> Result<Vec<Coordinate>, OrderError> {
        let catalog = self.catalog().await?;
        Ok(catalog.repositories.into_iter().map(|repository| repository.coordinate).collect())
    }

    async fn list(&self) -> Result<String, OrderError> {
        let watched = self.settings().watched;
        let profiles = Filter::new().kind(Kind::Metadata).authors(watched.authors.iter().copied());
        let profiles = self.own.store.query(profiles).await?;
        let name = |author: &PublicKey| {
            let profile = profiles.iter().find(|event| event.pubkey == *author)?;
            let profile: Metadata = serde_json::from_str(&profile.content).ok()?;
            profile.display_name.filter(|name| !name.is_empty()).or(profile.name)
        };
        let catalog = self.catalog().await?;
        let known = catalog.repositories.iter().map(|repository| &repository.coordinate);
        let (authors, repositories) = answers::list(&watched, known, &catalog.unannounced, name);
        let left_alone = catalog.opted_out.iter().map(|(name, one)| (answers::named(name), one.reason()));
        let left_alone: Vec<_> = left_alone.collect();
        Ok(list::reply(&authors, &repositories, &left_alone, &answers::ruled(&self.policy())))
    }

    /// The repository a person means, or what to say when it is not exactly one.
    async fn find(&self, name: &RepoName) -> Result<Result<Coordinate, String>, OrderError> {
        let catalog = self.catalog().await?;
        let known = catalog.repositories.iter().map(|repository| &repository.coordinate);
        let found = match answers::find_repo(name, known) {
            Found::One(repository) => return Ok(Ok(answers::coordinate(&repository))),
            found => found,
        };
        if let Some(said) = said_to_forget(&catalog, name) {
            return Ok(Err(said));
        }
        Ok(Err(match answers::find_repo(name, &catalog.unannounced) {
            Found::One(repository) => {
                answers::not_found_by_name(&self.report().await?, &answers::coordinate(&repository))
            }
            _ => found.reply(name),
        }))
    }

    async fn resync(&mut self, scope: &Scope) -> Result<Done, OrderError> {
        if self.settings().paused {
            return Ok(resync::reply(scope, Resync::Paused).into());
        }
        let known = self.known().await?;
        let meant: Option<BTreeSet<Coordinate>> = match scope {
            Scope::All => None,
            Scope::Author(author) => {
                Some(known.iter().filter(|coordinate| coordinate.owner == *author).cloned().collect())
            }
            Scope::Repository(name) => match self.find(name).await? {
                Ok(coordinate) => Some(BTreeSet::from([coordinate])),
                Err(which) => return Ok(which.into()),
            },
            Scope::Nip05(_) => Some(BTreeSet::new()),
        };
        let repos = meant.as_ref().map_or(known.len(), BTreeSet::len);
        if repos == 0 && (meant.is_some() || self.settings().watched.is_empty()) {
            return Ok(resync::reply(scope, Resync::Nothing).into());
        }
        let outcome = if *self.daemon.busy.borrow() { Resync::Queued } else { Resync::Started { repos } };
        Ok(Done { text: resync::reply(scope, outcome), resync: Some(meant), quietly: false })
    }

    /// Writes down what is to become of the state that is held, and has the next cycle do it.
    async fn decide(&mut self, name: &RepoName, approved: bool) -> Result<Done, OrderError> {
        let coordinate = match self.find(name).await? {
            Err(which) => return Ok(which.into()),
            Ok(coordinate) => coordinate,
        };
        let decided = cycle::decide(&self.records, &coordinate, approved).await?;
        let (repo, paused) = (answers::named(&coordinate), self.settings().paused);
        let text = match (approved, paused) {
            (true, true) => approve::reply(&repo, decided, "I am paused; I follow it when you send: resume"),
            (true, false) => approve::reply(&repo, decided, "I'll tell you when it is done."),
            (false, _) => reject::reply(&repo, decided),
        };
        let again = matches!(decided, Decided::Written { .. }) && !paused;
        let resync = again.then(|| Some(BTreeSet::from([coordinate])));
        Ok(Done { text, resync, quietly: !approved })
    }

    async fn archive(&self, coordinate: &Coordinate) -> Result<String, OrderError> {
        /// As many lines as a phone shows.
        const MAX_LINES: usize = 20;
        let kept = cycle::old_tips(&self.own.config, coordinate).await?;
        Ok(archive::reply(&answers::named(coordinate), &kept, MAX_LINES))
    }
}

/// Whose it is, and what is meant; `None` for a name that was not looked up.
fn watched(target: &Target) -> Option<(PublicKey, catalog::Watched)> {
    let mut meant = catalog::Watched::default();
    let owner = match target {
        Target::Author(author) => {
            meant.authors.insert(*author);
            *author
        }
        Target::Repository(repository) => {
            meant.repositories.insert(answers::coordinate(repository));
            repository.author
        }
        Target::Nip05(_) | Target::Theirs { .. } => return None,
    };
    Some((owner, meant))
}
