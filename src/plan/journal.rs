//! What became of each question: so that a command runs at most once and its answer is given exactly once, however
//! often it is delivered and whenever the process dies.
//!
//! An entry is written before a command acts, and once more with the answer, signed, in it: from then on only that
//! same answer is sent, under the same event id, until it is delivered. Between the two a command may begin a second
//! time after a crash; what commands do can be done twice.

use nostr::prelude::{Event, EventId, PublicKey, RelayUrl, Timestamp};
use serde::{Deserialize, Serialize};

/// How old a command may be, by its own date: older ones are not run.
pub const OLDEST_SECS: u64 = 24 * 3_600;

/// How far in the future it may be dated.
pub const FARTHEST_SECS: u64 = 3_600;

/// For how long an answer is tried to be delivered.
pub const DELIVER_FOR_SECS: u64 = 24 * 3_600;

/// How often a command is begun before it is answered as failed.
pub const ATTEMPTS: u32 = 3;

/// What is remembered of one question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The question's id.
    pub id: EventId,
    /// When it was asked, Unix seconds.
    pub asked_at: u64,
    /// The question as it came, still encrypted, while it is not answered for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<Event>,
    /// The relay it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<RelayUrl>,
    /// How far it is.
    pub stage: Stage,
    /// How often it was begun.
    #[serde(default)]
    pub attempts: u32,
    /// Messages that are not delivered yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub letters: Vec<Letter>,
}

/// How far a question is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Received, not answered.
    Received,
    /// Its first answer is given ("started"); another one follows when it is done.
    Running,
    /// Answered for good.
    Answered,
}

/// A signed message on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// The message.
    pub event: Event,
    /// For whom it is: the person who asked, or the bot itself.
    pub to: PublicKey,
    /// When it was written, Unix seconds.
    pub written_at: u64,
    /// The one relay it belongs on; `None` for wherever its reader looks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_on: Option<RelayUrl>,
}

/// What is to be done with a question that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Journal it, then run it.
    Run,
    /// It is known.
    Known,
    /// It was asked too long ago.
    TooOld,
    /// It is dated in the future.
    TooNew,
}

/// Whether a question that is not known, asked at `asked_at`, is run at `now`.
#[must_use]
pub fn admit(known: bool, asked_at: Timestamp, now: Timestamp) -> Admission {
    if known {
        Admission::Known
    } else if asked_at.as_secs().saturating_add(OLDEST_SECS) < now.as_secs() {
        Admission::TooOld
    } else if asked_at.as_secs() > now.as_secs().saturating_add(FARTHEST_SECS) {
        Admission::TooNew
    } else {
        Admission::Run
    }
}

impl Entry {
    /// The question that has just arrived in `event` from `relay`.
    #[must_use]
    pub fn received(id: EventId, asked_at: Timestamp, event: Event, relay: RelayUrl) -> Self {
        Self {
            id,
            asked_at: asked_at.as_secs(),
            question: Some(event),
            relay: Some(relay),
            stage: Stage::Received,
            attempts: 0,
            letters: Vec::new(),
        }
    }

    /// A question that was answered before this machine knew of it.
    #[must_use]
    pub fn answered_elsewhere(id: EventId, answered_at: Timestamp) -> Self {
        let asked_at = answered_at.as_secs();
        Self {
            id,
            asked_at,
            question: None,
            relay: None,
            stage: Stage::Answered,
            attempts: 0,
            letters: Vec::new(),
        }
    }

    /// Counts one more try to carry it out.
    pub fn begin(&mut self) {
        self.attempts = self.attempts.saturating_add(1);
    }

    /// Takes the answer: with it written down, nothing else will ever be answered at this stage.
    pub fn answer(&mut self, letters: impl IntoIterator<Item = Letter>, stage: Stage) {
        self.letters.extend(letters);
        self.stage = stage;
        if stage == Stage::Answered {
            self.question = None;
        }
    }

    /// Takes a letter off that was delivered, or given up.
    pub fn sent(&mut self, letter: &Letter) {
        self.letters.retain(|one| one != letter);
    }

    /// Whether it is answered for good, and everything delivered.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.stage == Stage::Answered && self.letters.is_empty()
    }

    /// Whether nobody will ask for it again: it is answered, nothing is on its way, and a command of its age is
    /// not run.
    #[must_use]
    pub fn is_forgotten(&self, now: Timestamp) -> bool {
        // An answer made elsewhere is dated later than the question, and a question at most so far ahead.
        let gone = self.asked_at.saturating_add(2 * OLDEST_SECS + FARTHEST_SECS) < now.as_secs();
        gone && self.is_done()
    }
}

impl Letter {
    /// Whether it is too late to deliver it.
    #[must_use]
    pub fn is_too_late(&self, now: Timestamp) -> bool {
        self.written_at.saturating_add(DELIVER_FOR_SECS) < now.as_secs()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nostr::prelude::Keys;
    use proptest::prelude::*;

    use super::{super::testing::event, *};

    const DAY: u64 = 86_400;
    const START: u64 = 1_790_000_000;

    /// A process that writes what it does to a disk that survives it.
    struct Process<'world> {
        disk: &'world mut BTreeMap<EventId, Entry>,
        /// Answers as they are signed: every one is another event.
        answers: &'world mut BTreeMap<EventId, std::collections::BTreeSet<EventId>>,
        /// Steps left before it is killed.
        steps: u32,
        bot: &'world Keys,
    }

    struct Killed;

    impl Process<'_> {
        fn step(&mut self) -> Result<(), Killed> {
            self.steps = self.steps.checked_sub(1).ok_or(Killed)?;
            Ok(())
        }

        fn write(&mut self, entry: &Entry) -> Result<(), Killed> {
            self.step()?;
            self.disk.insert(entry.id, entry.clone());
            self.step()
        }

        fn work_off(&mut self, id: EventId, signed: &mut u64) -> Result<(), Killed> {
            let Some(mut entry) = self.disk.get(&id).cloned() else { return Ok(()) };
            if entry.stage != Stage::Answered {
                entry.begin();
                self.write(&entry)?;
                *signed += 1;
                let event = event(self.bot, 4, START + *signed, &[]);
                let to = self.bot.public_key();
                let letter = Letter { event, to, written_at: START, only_on: None };
                entry.answer([letter], Stage::Answered);
                self.write(&entry)?;
            }
            for letter in entry.letters.clone() {
                self.step()?;
                self.answers.entry(id).or_default().insert(letter.event.id);
                entry.sent(&letter);
                self.write(&entry)?;
            }
            Ok(())
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// However often it is killed, and wherever: every question has exactly one answer in the end.
        #[test]
        fn every_question_is_answered_once(lives in proptest::collection::vec(0..12_u32, 0..12), deliveries in 1..4_usize) {
            let (bot, person) = (Keys::generate(), Keys::generate());
            let questions: Vec<Event> = (0..3).map(|at| event(&person, 4, START + at, &[])).collect();
            let (mut disk, mut answers) = (BTreeMap::new(), BTreeMap::new());
            let mut signed = 0;
            for steps in lives.into_iter().chain([u32::MAX]) {
                let mut process = Process { disk: &mut disk, answers: &mut answers, steps, bot: &bot };
                let mut live = || {
                    for known in process.disk.keys().copied().collect::<Vec<_>>() {
                        process.work_off(known, &mut signed)?;
                    }
                    for _ in 0..deliveries {
                        for question in &questions {
                            let known = process.disk.contains_key(&question.id);
                            if admit(known, question.created_at, Timestamp::from_secs(START)) == Admission::Run {
                                let relay = RelayUrl::parse("wss://relay.example").unwrap();
                                process.write(&Entry::received(question.id, question.created_at, question.clone(), relay))?;
                                process.work_off(question.id, &mut signed)?;
                            }
                        }
                    }
                    Ok::<(), Killed>(())
                };
                let _ = live();
            }
            prop_assert_eq!(answers.len(), questions.len());
            prop_assert!(answers.values().all(|answers| answers.len() == 1), "{:?}", answers);
        }

        /// What is forgotten would not be run if it came again.
        #[test]
        fn nothing_is_forgotten_that_would_be_run_again(asked in START - 4 * DAY..START + DAY, later in 0..4 * DAY) {
            let (asked, now) = (Timestamp::from_secs(asked), Timestamp::from_secs(START + later));
            let (bot, relay) = (Keys::generate(), RelayUrl::parse("wss://relay.example").unwrap());
            let question = event(&bot, 4, asked.as_secs(), &[]);
            let mut entry = Entry::received(question.id, asked, question, relay);
            prop_assert!(!entry.is_forgotten(now));
            entry.answer([], Stage::Answered);
            prop_assert!(!entry.is_forgotten(now) || admit(false, asked, now) == Admission::TooOld);
        }
    }

    #[test]
    fn commands_are_run_for_a_day() {
        let at = |secs| admit(false, Timestamp::from_secs(secs), Timestamp::from_secs(START));
        assert_eq!(at(START - DAY), Admission::Run);
        assert_eq!(at(START - DAY - 1), Admission::TooOld);
        assert_eq!(at(START + 3_600), Admission::Run);
        assert_eq!(at(START + 3_601), Admission::TooNew);
        assert_eq!(admit(true, Timestamp::from_secs(START), Timestamp::from_secs(START)), Admission::Known);
    }
}
