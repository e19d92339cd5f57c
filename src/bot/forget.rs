//! `forget`: the one command that somebody outside the allowed npubs may send, about what they maintain themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use grasp_mirror_commands::{
    Command, Found, RepoName,
    forget::{self, Forgotten},
    parse,
};
use nostr::prelude::{PublicKey, Timestamp};

use super::{Bot, orders::OrderError};
use crate::{
    cycle::{self, CycleError, Say},
    model::coordinate::Coordinate,
    plan::{
        catalog::{self, Catalog},
        forget::{Wish, decide, have_room},
        settings::Settings,
    },
    report::answers,
    store::StoreError,
};

/// Whether somebody who maintains something may say this, also without being allowed to command.
pub(super) fn may_be_said(text: &str) -> bool {
    matches!(parse(text), Ok(Command::Forget { .. }))
}

/// Who maintains what is mirrored, and what was known when that was found out.
#[derive(Default)]
pub(super) struct Known {
    learned: Option<(u64, Settings)>,
}

impl Bot {
    async fn say(&self) -> Result<Say, StoreError> {
        let watched = self.settings().watched;
        cycle::say(&self.own.config, &self.own.store, &self.own.keys.public_key(), &watched).await
    }

    /// Finds out whose word counts beside that of the allowed npubs, when something may have changed it. On a new
    /// machine what they said before that is read again.
    pub(super) async fn know_maintainers(&mut self) -> Result<(), CycleError> {
        let now = (self.own.store.news().sources, self.settings());
        if self.maintainers_of.learned.as_ref() == Some(&now) {
            return Ok(());
        }
        let say = self.say().await?;
        let all: BTreeSet<PublicKey> = say.matters().flat_map(|matter| matter.maintainers).collect();
        self.maintainers.send_replace(Arc::new(all));
        self.maintainers_of.learned = Some(now);
        Ok(())
    }

    /// Whether this person is heard at all.
    pub(super) fn hears(&self, key: &PublicKey) -> bool {
        self.allowed.borrow().contains(key) || self.maintainers.borrow().contains(key)
    }

    /// Leaves a repository alone from now on, or takes that back.
    pub(super) async fn leave_alone(
        &mut self,
        name: &RepoName,
        undo: bool,
        from: PublicKey,
        said: String,
    ) -> Result<String, OrderError> {
        let say = self.say().await?;
        let may_command = self.allowed.borrow().contains(&from);
        let matters: BTreeMap<Coordinate, cycle::Matter> = say
            .matters()
            .filter(|matter| may_command || matter.maintainers.contains(&from))
            .map(|matter| (matter.coordinate.clone(), matter))
            .collect();
        let known = match answers::find_repo(name, matters.keys()) {
            // By the name of another of its maintainers.
            Found::None(nearest) => {
                match answers::find_repo(name, matters.values().flat_map(|one| &one.names)) {
                    Found::None(_) => Found::None(nearest),
                    found => found,
                }
            }
            found => found,
        };
        let named = match known {
            Found::One(repository) => answers::coordinate(&repository),
            Found::None(_) if !may_command => return Ok(forget::not_yours(name)),
            found => return Ok(found.reply(name)),
        };
        let Some(matter) = matters.into_values().find(|one| one.names.contains(&named)) else {
            return Ok(forget::not_yours(name));
        };
        let settings = self.settings();
        let wishes = &settings.watched.forgotten;
        let key = matter.names.iter().find(|one| wishes.contains_key(*one)).unwrap_or(&matter.coordinate);
        let before = wishes.get(key).copied();
        let maintainer = matter.maintainers.contains(&from);
        let new = Wish { by: from, maintainer, at: Timestamp::now().as_secs() };
        let decision = decide(before, new, undo, matter.muted, have_room(wishes, key));
        if decision.wish != before {
            self.change(said, |settings| {
                match decision.wish {
                    Some(wish) => settings.watched.forgotten.insert(key.clone(), wish),
                    None => settings.watched.forgotten.remove(key),
                };
            })
            .await?;
        }
        let outcome = match decision.outcome {
            Forgotten::Now { .. } => Forgotten::Now { paused: settings.paused },
            other => other,
        };
        Ok(forget::reply(&answers::named(&matter.coordinate), outcome))
    }

    /// What of `meant` is left alone although it is watched, one line each; empty when nothing is.
    pub(super) async fn left_alone_of(&self, meant: &catalog::Watched) -> Result<String, OrderError> {
        let opted_out = self.catalog().await?.opted_out;
        let of_these = opted_out.iter().filter(|(coordinate, _)| meant.wants(coordinate));
        let lines = of_these.take(5).map(|(coordinate, opted_out)| {
            format!("\n{}", forget::left_alone(&answers::named(coordinate), &opted_out.reason()))
        });
        Ok(lines.collect())
    }
}

/// What to say of a repository that is not mirrored because its maintainers want it so.
pub(super) fn said_to_forget(catalog: &Catalog, name: &RepoName) -> Option<String> {
    let Found::One(repository) = answers::find_repo(name, catalog.opted_out.keys()) else { return None };
    let opted_out = catalog.opted_out.get(&answers::coordinate(&repository))?;
    Some(forget::left_alone(&repository, &opted_out.reason()))
}
