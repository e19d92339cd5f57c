//! A log of how branches, tags and `HEAD` changed, so that it can be told what there was at any time.
//!
//! Git's own logs are no help: they go with the ref they are about. The file `refs.log` in the repository's folder has
//! one line a change, `<unix seconds> <name> <old> <new>`, where `-` stands for nothing, and at its beginning
//! `<unix seconds> begin`, or `<unix seconds> begin empty` when there was nothing before. A change is written down
//! before it is made; one that was not made then is written down again the next time, with the same old value, so that
//! reading backwards it does no harm.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    iter,
};

use super::{ObjectId, Refs, Repository};
use crate::model::refs::RefName;

const FILE: &str = "refs.log";
const NOTHING: &str = "-";

/// What a repository had at some time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Past {
    /// Its branches and tags.
    pub refs: Refs,
    /// What `HEAD` named, as far as that is known.
    pub head: Option<RefName>,
    /// Since when (Unix seconds) every change is known; `None` when none is.
    pub known_since: Option<u64>,
    /// Whether there was nothing here before `known_since`.
    pub began_empty: bool,
}

/// The log, read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Log {
    begin: Option<u64>,
    began_empty: bool,
    changes: Vec<Change>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    at: u64,
    name: String,
    old: String,
}

impl Log {
    /// Lines that make no sense are passed over: a power cut may have torn one.
    fn parse(text: &str) -> Self {
        let mut log = Self::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let Some(at) = words.first().and_then(|at| at.parse::<u64>().ok()) else { continue };
            match words.as_slice() {
                [_, "begin"] => (log.begin, log.began_empty) = (Some(at), false),
                [_, "begin", "empty"] => (log.begin, log.began_empty) = (Some(at), true),
                [_, name, old, _] => {
                    log.changes.push(Change { at, name: (*name).to_owned(), old: (*old).to_owned() });
                }
                _ => {}
            }
        }
        log
    }

    /// Takes every change after `at` back, the newest first.
    fn undo(&self, refs: &mut Refs, head: &mut Option<RefName>, at: u64) {
        for change in self.changes.iter().rev().filter(|change| change.at > at) {
            if change.name == "HEAD" {
                *head = change.old.parse().ok();
            } else if let Ok(name) = change.name.parse::<RefName>() {
                match ObjectId::from_hex(change.old.as_bytes()) {
                    Ok(old) => refs.insert(name, old),
                    Err(_) => refs.remove(&name),
                };
            }
        }
    }
}

impl Repository {
    /// What this repository had at `at` (Unix seconds), worked out from what it has now.
    ///
    /// Before [`Past::known_since`] it is a guess: for each ref the tip that was archived first after `at`, else the
    /// oldest value that is known. A ref that was created in that time is in it all the same.
    ///
    /// # Errors
    ///
    /// When the refs cannot be read.
    pub fn past(&self, at: u64) -> Result<Past, super::GitError> {
        let text = match fs::read_to_string(self.path.join(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(self.io("reading the log of changes")(error)),
        };
        let log = Log::parse(&text);
        let mut refs = self.refs()?;
        let mut head = self.head()?;
        log.undo(&mut refs, &mut head, at);
        if log.begin.is_none_or(|begin| at < begin) {
            if log.began_empty {
                refs.clear();
            }
            // The newest first: of several, the oldest one stays.
            for archived in self.archived()? {
                let is_logged = log.begin.is_some_and(|begin| archived.at >= begin);
                if archived.at > at && !is_logged {
                    refs.insert(archived.name, archived.tip);
                }
            }
        }
        Ok(Past { refs, head, known_since: log.begin, began_empty: log.began_empty })
    }

    /// The branch that `HEAD` names, whether it is there or not.
    fn head(&self) -> Result<Option<RefName>, super::GitError> {
        let raw = self.raw()?;
        let head = raw.find_reference("HEAD").map_err(self.git("reading HEAD"))?;
        Ok(head.symbolic_target().ok().flatten().and_then(|name| name.parse().ok()))
    }

    /// Writes down, before it happens, that `old` becomes `new`.
    pub(super) fn log_changes(
        &self,
        (old, new): (&Refs, &Refs),
        head: Option<(&str, &str)>,
        now: u64,
    ) -> io::Result<()> {
        let mut lines = String::new();
        let path = self.path.join(FILE);
        let is_new = !path.exists();
        if is_new {
            let empty = if old.is_empty() { " empty" } else { "" };
            lines.push_str(&format!("{now} begin{empty}"));
        }
        // What a new repository begins with needs no line a ref.
        if !(is_new && old.is_empty()) {
            let shown = |id: Option<&ObjectId>| id.map_or(NOTHING.to_owned(), ToString::to_string);
            let gone = old.keys().filter(|name| !new.contains_key(*name));
            for name in gone.chain(new.keys()) {
                let (before, after) = (old.get(name), new.get(name));
                if before != after {
                    lines.push_str(&format!("\n{now} {name} {} {}", shown(before), shown(after)));
                }
            }
            if let Some((before, after)) = head {
                lines.push_str(&format!("\n{now} HEAD {before} {after}"));
            }
        }
        if lines.is_empty() {
            return Ok(());
        }
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        // Both ends: the last line may have been torn.
        file.write_all(format!("\n{lines}\n").as_bytes())?;
        file.sync_data()
    }

    /// Forgets the changes before `before`.
    pub(super) fn shorten_log(&self, before: u64) -> io::Result<()> {
        let path = self.path.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let log = Log::parse(&text);
        if log.changes.iter().all(|change| change.at >= before) {
            return Ok(());
        }
        let is_kept = |line: &&str| {
            let (at, rest) = line.split_once(' ').unwrap_or_default();
            !rest.starts_with("begin") && at.parse::<u64>().is_ok_and(|at| at >= before)
        };
        let begin = format!("{before} begin");
        let lines = iter::once(begin.as_str()).chain(text.lines().filter(is_kept));
        self.replace(&path, lines.flat_map(|line| [line, "\n"]).collect::<String>().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn refs() -> impl Strategy<Value = Refs> {
        let name = (0_u8..5).prop_map(|n| format!("refs/heads/{n}").parse::<RefName>().unwrap());
        proptest::collection::btree_map(name, (1_u8..4).prop_map(|n| ObjectId::Sha1([n; 20])), 0..5)
    }

    fn repository() -> (tempfile::TempDir, Repository) {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::open_or_create(&dir.path().join("x.git")).unwrap();
        (dir, repository)
    }

    fn at(log: &Log, today: &Refs, at: u64) -> Refs {
        let mut refs = today.clone();
        log.undo(&mut refs, &mut None, at);
        refs
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Whatever happened, and with steps that were broken off and done again: every time since the log begins
        /// comes back, also when older parts are forgotten.
        #[test]
        fn every_time_comes_back(
            steps in proptest::collection::vec((refs(), any::<bool>()), 1..8),
            forgotten in 0_u64..10,
        ) {
            let (_dir, repository) = repository();
            let mut history = vec![(0, Refs::new())];
            for (step, (new, broken_off)) in steps.into_iter().enumerate() {
                let now = 10 * (step as u64 + 1);
                let old = history.last().unwrap().1.clone();
                repository.log_changes((&old, &new), None, now).unwrap();
                history.push((now, if broken_off && step > 0 { old } else { new }));
            }
            let today = &history.last().unwrap().1;
            let read = || Log::parse(&fs::read_to_string(repository.path.join(FILE)).unwrap());
            for (since, refs) in history.iter().skip(1) {
                prop_assert_eq!(&at(&read(), today, since + 5), refs);
            }
            let begin = 10 * forgotten;
            repository.shorten_log(begin).unwrap();
            let log = read();
            for (since, refs) in history.iter().skip(1).filter(|(since, _)| since + 5 >= log.begin.unwrap()) {
                prop_assert_eq!(&at(&log, today, since + 5), refs);
            }
        }
    }

    #[test]
    fn a_torn_line_is_passed_over() {
        let log = Log::parse("\n5 begin empty\n\n7 refs/heads/a - 0101\n8 refs/he\n9 refs/heads/b - 02\n");
        assert_eq!((log.begin, log.began_empty, log.changes.len()), (Some(5), true, 2));
    }
}
