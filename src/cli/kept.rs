//! `approve`, `reject`, `archive`, `restore`: what becomes of states that take something away, and of what they took.
//!
//! All of them may stand beside a running daemon, so none takes the data folder's lock: a verdict is a record that
//! nobody else writes, and the rest only reads.

use std::{
    io::{self, Write},
    path::Path,
};

use anyhow::{Context as _, anyhow, bail};
use grasp_mirror::{
    config::Config,
    cycle,
    git::{Past, Repository},
    model::coordinate::Coordinate,
    report::answers,
    store::{Store, records::Records},
};
use grasp_mirror_commands::{
    Found, RepoName,
    approve::{self, Decided},
    archive, count, moment, reject,
};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

use super::{Ready, in_terminal, ready_with_bot, runtime, say};
use crate::{Context, Outcome};

/// Lines printed of an archive; JSON has them all.
const MAX_LINES: usize = 1_000;

/// The repository that a person named, and where things are.
struct Named {
    config: Config,
    records: Records,
    coordinate: Coordinate,
}

async fn find(context: &Context, name: &str) -> anyhow::Result<Named> {
    let name = RepoName::parse(name)?;
    let Ready { config, bot } = ready_with_bot(context)?;
    let store = Store::open(&config.bot.data_dir).await?;
    let watched = cycle::own_word(&config, &bot.keys, &store).await?.settled.settings.watched;
    let known = cycle::known(&config, &store, &bot.keys.public_key(), &watched).await?;
    let known = known.repositories.iter().map(|repository| &repository.coordinate);
    let coordinate = match answers::find_repo(&name, known) {
        Found::One(repository) => answers::coordinate(&repository),
        found => bail!("{}", in_terminal(&found.reply(&name))),
    };
    Ok(Named { config, records: Records::new(store, bot.keys), coordinate })
}

/// `approve` and `reject`.
pub(crate) fn decide(context: &Context, name: &str, approved: bool) -> anyhow::Result<Outcome> {
    let (repo, decided) = runtime()?.block_on(async {
        let named = find(context, name).await?;
        let decided = cycle::decide(&named.records, &named.coordinate, approved).await?;
        anyhow::Ok((answers::named(&named.coordinate), decided))
    })?;
    let text = if approved {
        let next = "The next cycle follows it; a message to the bot would be followed at once.";
        approve::reply(&repo, decided, next)
    } else {
        reject::reply(&repo, decided)
    };
    let written = matches!(decided, Decided::Written { .. });
    if context.json {
        say(serde_json::json!({ "written": written, "approved": approved, "said": text }))?;
    } else {
        say(in_terminal(&text))?;
    }
    Ok(if written { Outcome::Good } else { Outcome::NotInSync })
}

/// `archive`: the old tips that are kept.
pub(crate) fn archive(context: &Context, name: &str) -> anyhow::Result<Outcome> {
    let (coordinate, kept) = runtime()?.block_on(async {
        let named = find(context, name).await?;
        let kept = cycle::old_tips(&named.config, &named.coordinate).await?;
        anyhow::Ok((named.coordinate, kept))
    })?;
    let mut out = io::stdout().lock();
    if context.json {
        let kept = kept.iter().map(|kept| {
            serde_json::json!({ "at": kept.at, "ref": kept.name, "tip": kept.tip, "until": kept.until })
        });
        let document = serde_json::json!({ "a": coordinate.to_string(), "kept": kept.collect::<Vec<_>>() });
        writeln!(out, "{document}")?;
    } else {
        writeln!(out, "{}", archive::reply(&answers::named(&coordinate), &kept, MAX_LINES))?;
    }
    Ok(Outcome::Good)
}

/// `restore`: an ordinary repository as it was at some time.
pub(crate) fn restore(
    context: &Context,
    name: &str,
    at: Option<&str>,
    into: &Path,
) -> anyhow::Result<Outcome> {
    let at = match at {
        Some(at) => seconds(at)?,
        None => u64::try_from(Timestamp::now().as_second())?,
    };
    let named = runtime()?.block_on(find(context, name))?;
    let folder = cycle::local_copy(&named.config, &named.coordinate)
        .with_context(|| format!("{} has no local copy", named.coordinate.for_people()))?;
    let copy = Repository::open(&folder)?
        .with_context(|| format!("there is no local copy of {} yet", named.coordinate.for_people()))?;
    let past = copy.past(at)?;
    if past.refs.is_empty() {
        bail!("there was nothing in {} at {}", named.coordinate.for_people(), moment(at));
    }
    copy.restore(&past.refs, past.head.as_ref(), into)
        .with_context(|| format!("cannot restore into {}", into.display()))?;
    let certain = is_certain(&past, at);
    let mut out = io::stdout().lock();
    if context.json {
        let refs = past.refs.iter().map(|(name, tip)| (name.to_string(), tip.to_string().into()));
        let document = serde_json::json!({
            "a": named.coordinate.to_string(), "at": at, "into": into.to_string_lossy(), "certain": certain,
            "known_since": past.known_since, "refs": refs.collect::<serde_json::Map<_, _>>(),
        });
        writeln!(out, "{document}")?;
        return Ok(Outcome::Good);
    }
    let refs = count(past.refs.len(), "branch or tag", "branches and tags");
    let (name, at_text) = (answers::named(&named.coordinate), moment(at));
    writeln!(out, "{name} as this mirror had it at {at_text}: {refs} in {}", into.display())?;
    if certain {
        writeln!(out, "Every change since then was written down, so this is exactly what was here.")?;
    } else {
        let since = past.known_since.map_or("now".to_owned(), moment);
        writeln!(
            out,
            "Changes are written down since {since} only. What was rewound or deleted before is as it was, as far as \
             it is still kept (see archive); branches and tags that were new then may be among these."
        )?;
    }
    Ok(Outcome::Good)
}

/// Whether nothing about the past is guessed.
fn is_certain(past: &Past, at: u64) -> bool {
    past.known_since.is_some_and(|since| since <= at)
}

/// A time as a person writes it: Unix seconds, or a date, with or without a time of day; UTC where it names no zone.
fn seconds(text: &str) -> anyhow::Result<u64> {
    let found = if let Ok(seconds) = text.parse::<u64>() {
        return Ok(seconds);
    } else if let Ok(time) = text.parse::<Timestamp>() {
        time
    } else {
        let time: DateTime = text.parse().map_err(|_| {
            anyhow!("--at: expected Unix seconds or a date such as 2026-11-24 or 2026-11-24T12:00:00Z, found {text:?}")
        })?;
        time.to_zoned(TimeZone::UTC)?.timestamp()
    };
    u64::try_from(found.as_second()).context("--at: that is before 1970")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn times_are_taken_as_people_write_them() {
        for (text, expected) in [
            ("1795521600", 1_795_521_600),
            ("2026-11-24T12:00:00Z", 1_795_521_600),
            ("2026-11-24 12:00", 1_795_521_600),
            ("2026-11-24T13:00:00+01:00", 1_795_521_600),
            ("2026-11-24", 1_795_478_400),
        ] {
            assert_eq!(seconds(text).unwrap(), expected, "{text}");
        }
        for bad in ["yesterday", "2026-13-01", "-5", ""] {
            assert!(seconds(bad).unwrap_err().to_string().contains("--at"), "{bad}");
        }
    }
}
