//! What a bot's report claims, mirror by mirror, and what came of checking it from outside.
//!
//! The report names every mirror that is *not* in sync, so what it claims has to be worked out: the servers in use,
//! without those where it names a problem. The state that counts is never the report's.

use std::collections::{BTreeMap, BTreeSet};

use nostr::prelude::EventId;
use serde::Serialize;

use super::document::{Report, ReportedRepository};
use crate::model::{
    coordinate::Coordinate,
    placement::Placement,
    refs::{ObjectId, Refs},
    server::ServerUrl,
};

/// What came of checking one claim; the order is that of settling, see [`settle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The server has exactly what the maintainers signed.
    Holds,
    /// Nobody can tell now.
    Unchecked,
    /// It has not.
    DoesNotHold,
}

/// One claim, checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// The repository that is said to be in sync.
    pub a: Coordinate,
    /// Where.
    pub server: ServerUrl,
    /// How it is placed there, by what maintainers and bot have signed; absent where it has no place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Whether it is.
    pub verdict: Verdict,
    /// Why it is not, or why nobody can tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When the bot last saw it so, by its own words, Unix seconds.
    pub claimed_at: u64,
}

/// Sums over all claims that were looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sums {
    /// All of them.
    pub claims: usize,
    /// Those that hold.
    pub hold: usize,
    /// Those that do not.
    pub do_not_hold: usize,
    /// Those that could not be checked.
    pub unchecked: usize,
    /// Mirrors that the report says are in sync, and that were not looked at: left out of the sample or of the report.
    pub not_looked_at: usize,
}

/// What came of checking a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// Whose report it is, as npub.
    pub bot: String,
    /// The event it was in.
    pub report: EventId,
    /// When it was signed, Unix seconds.
    pub signed_at: u64,
    /// When the cycle it tells of ended, by its own words, Unix seconds.
    pub claimed_at: u64,
    /// How old it was when it was checked, in seconds, counted from `claimed_at`.
    pub age_secs: u64,
    /// Sums.
    pub totals: Sums,
    /// Each claim.
    pub claims: Vec<Checked>,
    /// Where the report contradicts itself; each is a claim that does not hold.
    pub contradictions: Vec<String>,
}

/// The servers on which the report says that `repo` is in sync. Where it leaves open which of them, those come into
/// question that `named` says yes to: the maintainers list them, or the bot's own announcement does.
///
/// There may be more than [`ReportedRepository::copies`]: then so many of them are claimed, and nobody knows which.
#[must_use]
pub fn claimed(
    report: &Report,
    repo: &ReportedRepository,
    named: impl Fn(&ServerUrl) -> bool,
) -> BTreeSet<ServerUrl> {
    if repo.copies == 0 {
        return BTreeSet::new();
    }
    let troubled: BTreeSet<&ServerUrl> = repo.problems.iter().map(|problem| &problem.server).collect();
    let used = report.servers.iter().filter(|server| server.unused.is_none()).map(|server| &server.url);
    let all: BTreeSet<ServerUrl> = used.filter(|url| !troubled.contains(url)).cloned().collect();
    if all.len() <= repo.copies {
        return all;
    }
    let some: BTreeSet<ServerUrl> = all.iter().filter(|url| named(url)).cloned().collect();
    if some.len() >= repo.copies { some } else { all }
}

/// Where the report contradicts itself, for people.
#[must_use]
pub fn contradictions(report: &Report) -> Vec<String> {
    let mut found = Vec::new();
    let used = report.servers.iter().filter(|server| server.unused.is_none()).count();
    for repo in &report.repos {
        let troubled: BTreeSet<&ServerUrl> = repo.problems.iter().map(|problem| &problem.server).collect();
        let there = report.servers.iter().filter(|server| server.unused.is_none());
        let left = there.filter(|server| !troubled.contains(&server.url)).count();
        if repo.copies > left {
            found.push(format!(
                "{}: {} copies, but {left} of {used} servers without a problem",
                repo.a.for_people(),
                repo.copies
            ));
        }
    }
    let sum = report.repos.iter().fold(0, |sum: usize, repo| sum.saturating_add(repo.copies));
    let in_sync = report.totals.in_sync;
    if sum > in_sync || sum < in_sync && report.truncated == 0 {
        found.push(format!("totals: {in_sync} mirrors in sync, but the repositories have {sum} copies"));
    }
    found
}

/// What a server was seen to have of one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// What its refs differ in from what the maintainers signed.
    pub refs: Listing,
    /// Whether it serves a state event that says so; else why its events could not be read.
    pub serves_state: Result<bool, String>,
}

/// How a listing of refs compares with the signed state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// Exactly the same.
    Same,
    /// The first difference.
    Differ(String),
    /// The server answers, and has nothing like it.
    Absent(String),
    /// There was no answer.
    Unseen(String),
}

/// What a sight of a server says of the claim. With `signed_since` the maintainers have signed another state after the
/// report, so that a server may well have had what the report says.
#[must_use]
pub fn judge(sight: Sight, signed_since: bool) -> (Verdict, Option<String>) {
    match (sight.refs, sight.serves_state) {
        (Listing::Same, Ok(true)) => (Verdict::Holds, None),
        (Listing::Same, Ok(false)) => {
            let reason = "it lists the signed refs, and does not serve the state event that says so";
            (Verdict::DoesNotHold, Some(reason.to_owned()))
        }
        (Listing::Same, Err(reason)) => (Verdict::Unchecked, Some(reason)),
        (Listing::Differ(reason), _) if signed_since => {
            let reason = format!("the maintainers have signed another state since the report ({reason})");
            (Verdict::Unchecked, Some(reason))
        }
        (Listing::Differ(reason) | Listing::Absent(reason), _) => (Verdict::DoesNotHold, Some(reason)),
        (Listing::Unseen(reason), _) => (Verdict::Unchecked, Some(reason)),
    }
}

/// The first thing in which `listed` is not what the maintainers signed.
#[must_use]
pub fn difference(signed: &Refs, listed: &BTreeMap<String, ObjectId>) -> Option<String> {
    for (name, id) in signed {
        match listed.get(name.as_str()) {
            Some(there) if there == id => {}
            Some(there) => return Some(format!("{name} is {there}, signed is {id}")),
            None => return Some(format!("{name} is missing")),
        }
    }
    let extra = listed.keys().find(|name| !signed.contains_key(name.as_str()))?;
    Some(format!("{extra} is there, but nobody signed it"))
}

/// Of one repository's checked servers as many as it is said to have copies: where more come into question, those that
/// hold count first, then those of which nobody can tell.
#[must_use]
pub fn settle(mut checked: Vec<Checked>, copies: usize) -> Vec<Checked> {
    checked.sort_by(|a, b| (a.verdict, &a.server).cmp(&(b.verdict, &b.server)));
    checked.truncate(copies);
    checked
}

impl Sums {
    /// The sums of `claims`, of all the mirrors that `report` says are in sync.
    #[must_use]
    pub fn of(claims: &[Checked], report: &Report) -> Self {
        let count = |verdict| claims.iter().filter(|claim| claim.verdict == verdict).count();
        Self {
            claims: claims.len(),
            hold: count(Verdict::Holds),
            do_not_hold: count(Verdict::DoesNotHold),
            unchecked: count(Verdict::Unchecked),
            not_looked_at: report.totals.in_sync.saturating_sub(claims.len()),
        }
    }
}

impl Audit {
    /// Whether no claim was found false.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.totals.do_not_hold == 0 && self.contradictions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use nostr::prelude::Keys;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        model::status::MirrorStatus,
        report::document::{CycleSummary, LeftAlone, Problem, ServerOutcome},
    };

    fn url(number: usize) -> ServerUrl {
        format!("wss://s{number}.example").parse().unwrap()
    }

    /// A report about one repository on servers 0 to `servers`, with problems on the first `troubled`.
    fn report(servers: usize, troubled: usize, copies: usize) -> Report {
        let outcome =
            |url| ServerOutcome { url, reachable: true, software: None, reason: None, unused: None };
        let outcomes: Vec<ServerOutcome> = (0..servers).map(|number| outcome(url(number))).collect();
        let mut report =
            Report::of(CycleSummary::default(), &BTreeSet::new(), &outcomes, &[], LeftAlone::default());
        let problem = |number| Problem {
            server: url(number),
            status: MirrorStatus::Failing,
            reason: String::new(),
            since: 0,
            retry_at: None,
        };
        report.totals.in_sync = copies;
        report.repos.push(ReportedRepository {
            a: Coordinate::new(Keys::generate().public_key(), "d"),
            state: None,
            copies,
            wanted: servers,
            may_vanish: 0,
            problems: (0..troubled).map(problem).collect(),
            notes: Vec::new(),
        });
        report
    }

    fn checked(number: usize, verdict: Verdict) -> Checked {
        let a = Coordinate::new(Keys::generate().public_key(), "d");
        Checked { a, server: url(number), placement: None, verdict, reason: None, claimed_at: 0 }
    }

    #[test]
    fn what_is_claimed_is_the_servers_without_a_problem() {
        let report = report(4, 1, 3);
        let all = claimed(&report, &report.repos[0], |_| false);
        assert_eq!(all, BTreeSet::from([url(1), url(2), url(3)]));
        assert_eq!(contradictions(&report), Vec::<String>::new());
    }

    #[test]
    fn where_the_report_leaves_open_which_servers_announcements_say_it() {
        let report = report(5, 1, 2);
        let named = |server: &ServerUrl| [url(0), url(2), url(4)].contains(server);
        assert_eq!(claimed(&report, &report.repos[0], named), BTreeSet::from([url(2), url(4)]));
        // Named are too few: any two of the four.
        assert_eq!(claimed(&report, &report.repos[0], |server| *server == url(2)).len(), 4);
        let found = [
            (1, Verdict::DoesNotHold),
            (2, Verdict::Unchecked),
            (3, Verdict::Holds),
            (4, Verdict::DoesNotHold),
        ];
        let settled = settle(found.map(|(number, verdict)| checked(number, verdict)).to_vec(), 2);
        assert_eq!(
            settled.iter().map(|one| one.verdict).collect::<Vec<_>>(),
            [Verdict::Holds, Verdict::Unchecked]
        );
    }

    #[test]
    fn a_report_that_counts_more_than_it_names_contradicts_itself() {
        let mut lies = report(3, 1, 3);
        assert_eq!(claimed(&lies, &lies.repos[0], |_| true).len(), 2);
        let owner = lies.repos[0].a.for_people();
        assert_eq!(
            contradictions(&lies),
            [format!("{owner}: 3 copies, but 2 of 3 servers without a problem")]
        );
        lies.repos[0].copies = 2;
        insta::assert_snapshot!(contradictions(&lies).join("\n"), @"totals: 3 mirrors in sync, but the repositories have 2 copies");
        lies.truncated = 1;
        assert_eq!(contradictions(&lies), Vec::<String>::new());
    }

    #[test]
    fn only_the_same_refs_with_their_state_hold() {
        let sight = |refs: Listing, serves_state| Sight { refs, serves_state };
        let words = || "why".to_owned();
        assert_eq!(judge(sight(Listing::Same, Ok(true)), false).0, Verdict::Holds);
        assert_eq!(judge(sight(Listing::Same, Ok(false)), true).0, Verdict::DoesNotHold);
        assert_eq!(judge(sight(Listing::Same, Err(words())), false).0, Verdict::Unchecked);
        for state in [Ok(true), Ok(false), Err(words())] {
            let judged = |refs: Listing, since| judge(sight(refs, state.clone()), since).0;
            assert_eq!(judged(Listing::Differ(words()), false), Verdict::DoesNotHold);
            assert_eq!(judged(Listing::Differ(words()), true), Verdict::Unchecked);
            assert_eq!(judged(Listing::Absent(words()), true), Verdict::DoesNotHold);
            assert_eq!(judged(Listing::Unseen(words()), false), Verdict::Unchecked);
        }
    }

    proptest! {
        /// Whatever a report says, no more is claimed than it counts, and what it counts and names nowhere is a
        /// contradiction.
        #[test]
        fn nothing_counted_goes_unnoticed(servers in 0..6_usize, troubled in 0..6_usize, copies in 0..9_usize, named in 0..64_u8) {
            let troubled = troubled.min(servers);
            let report = report(servers, troubled, copies);
            let is_named = |server: &ServerUrl| (0..6).any(|number| named >> number & 1 == 1 && *server == url(number));
            let servers = claimed(&report, &report.repos[0], is_named);
            let settled = settle(servers.iter().map(|_| checked(0, Verdict::DoesNotHold)).collect(), copies);
            prop_assert!(settled.len() == copies || !contradictions(&report).is_empty());
        }
    }
}
