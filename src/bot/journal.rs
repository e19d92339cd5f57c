//! Questions and what became of them, on the disk.

use std::time::Duration;

use grasp_mirror_commands::{Command, Scope, parse, resync};
use nostr::prelude::{Event, EventId, RelayUrl, Timestamp};
use tokio::time::timeout;

use super::{Bot, Request, forget::may_be_said, orders::Done, post::Sent};
use crate::{
    cycle::CycleError,
    plan::journal::{ATTEMPTS, Admission, Entry, Letter, Stage, admit},
    relay::direct::{self, Opened, Question},
    store::{StoreError, records::Records},
};

/// How long a command may take.
const COMMAND: Duration = Duration::from_secs(30);

const STOPPED: &str = "! I was stopped each time I tried that. Have a look at my log.";

/// Where the records of questions are.
const PREFIX: &str = "journal/";

fn record(id: EventId) -> String {
    format!("{PREFIX}{}", id.to_hex())
}

/// What was written down in earlier runs, the oldest question first.
pub(super) async fn load(records: &Records) -> Result<Vec<Entry>, StoreError> {
    let mut entries: Vec<Entry> = records.all(PREFIX).await?;
    entries.sort_by_key(|entry| (entry.asked_at, entry.id));
    Ok(entries)
}

impl Bot {
    /// Goes on with what was not finished when the program last stopped.
    pub(super) async fn resume_journal(&mut self) -> Result<(), CycleError> {
        for id in std::mem::take(&mut self.unfinished) {
            let Some(entry) = self.entries.get(&id).cloned() else { continue };
            for letter in &entry.letters {
                self.deliver(Some(entry.id), entry.relay.clone(), letter.clone());
            }
            match (entry.stage, self.question(&entry)) {
                (Stage::Answered, _) => {}
                (_, Some(question)) => self.work_off(&question).await?,
                (_, None) => self.give_up(entry.id).await?,
            }
        }
        Ok(())
    }

    fn question(&self, entry: &Entry) -> Option<Question> {
        match direct::open(entry.question.as_ref()?, &self.own.keys, &|key| self.hears(key)) {
            Opened::Question(question)
                if self.allowed.borrow().contains(&question.from) || may_be_said(&question.text) =>
            {
                Some(question)
            }
            _ => None,
        }
    }

    /// A question that has just arrived: journaled before it acts, if it acts at all.
    pub(super) async fn receive(
        &mut self,
        question: Question,
        event: Event,
        relay: RelayUrl,
    ) -> Result<(), CycleError> {
        let (id, from) = (question.id, question.from);
        let known = self.entries.contains_key(&id);
        match admit(known, question.asked_at, Timestamp::now()) {
            Admission::Known => return Ok(()),
            Admission::TooOld => {
                tracing::info!(question = %id, %from, "a command older than a day is not run");
                return Ok(());
            }
            Admission::TooNew => {
                tracing::info!(question = %id, %from, "a command from the future is not run");
                // Nor when its time has come.
                return self.note_answered(id, question.asked_at).await;
            }
            Admission::Run => {}
        }
        if parse(&question.text).is_err() && self.not_understood.check_key(&from).is_err() {
            tracing::warn!(%from, "too much in a minute that is no command; some of it is not answered");
            return self.note_answered(id, question.asked_at).await;
        }
        // It is written down when it is begun.
        self.entries.insert(id, Entry::received(id, question.asked_at, event, relay));
        self.work_off(&question).await
    }

    /// The bot answered it, here or on a machine that is gone.
    pub(super) async fn note_answered(&mut self, question: EventId, at: Timestamp) -> Result<(), CycleError> {
        if self.entries.contains_key(&question) {
            return Ok(());
        }
        let entry = Entry::answered_elsewhere(question, at);
        if !entry.is_forgotten(Timestamp::now()) {
            self.records.write(&record(question), &entry).await?;
            self.entries.insert(question, entry);
        }
        Ok(())
    }

    /// Carries out a command, or goes on with one. The start of a resync is told once.
    async fn work_off(&mut self, question: &Question) -> Result<(), CycleError> {
        let Some(entry) = self.update(question.id, Entry::begin).await? else { return Ok(()) };
        let done: Done = if entry.attempts > ATTEMPTS {
            STOPPED.to_owned().into()
        } else {
            match timeout(COMMAND, Box::pin(self.carry_out(question))).await {
                Ok(done) => done,
                Err(_) => "! That took too long, and I gave up. Send it again later.".to_owned().into(),
            }
        };
        let Some(repositories) = done.resync else {
            return self.answer(question, &done.text, Stage::Answered).await;
        };
        if done.quietly {
            self.answer(question, &done.text, Stage::Answered).await?;
        } else if entry.stage != Stage::Running {
            self.answer(question, &done.text, Stage::Running).await?;
        }
        self.request(Request::Resync { question: question.id, repositories });
        Ok(())
    }

    /// Changes what is remembered of a question, on the disk, too; returns it.
    async fn update(
        &mut self,
        id: EventId,
        change: impl FnOnce(&mut Entry),
    ) -> Result<Option<Entry>, CycleError> {
        let Some(entry) = self.entries.get_mut(&id) else { return Ok(None) };
        change(entry);
        let entry = entry.clone();
        self.records.write(&record(id), &entry).await?;
        Ok(Some(entry))
    }

    fn request(&self, request: Request) {
        if let Err(error) = self.daemon.requests.try_send(request) {
            tracing::error!(%error, "too much is asked for at once");
        }
    }

    pub(super) async fn finish_resync(
        &mut self,
        question: EventId,
        outcome: resync::Resync,
    ) -> Result<(), CycleError> {
        let Some(entry) = self.entries.get(&question).filter(|entry| entry.stage == Stage::Running) else {
            return Ok(());
        };
        let Some(question) = self.question(entry) else {
            return self.give_up(question).await;
        };
        let scope = match parse(&question.text) {
            Ok(Command::Resync(scope)) => scope,
            Ok(Command::Approve(name)) => Scope::Repository(name),
            _ => Scope::All,
        };
        self.answer(&question, &resync::reply(&scope, outcome), Stage::Answered).await
    }

    /// Whoever asked may not command the bot any more.
    async fn give_up(&mut self, question: EventId) -> Result<(), CycleError> {
        self.update(question, |entry| entry.answer([], Stage::Answered)).await.map(|_| ())
    }

    /// Signs the answer, writes it down, and sends it.
    async fn answer(&mut self, question: &Question, text: &str, stage: Stage) -> Result<(), CycleError> {
        let letters = self.letters(question, text);
        let entry = self.update(question.id, |entry| entry.answer(letters.clone(), stage)).await?;
        let asked_on = entry.and_then(|entry| entry.relay);
        for letter in letters {
            self.deliver(Some(question.id), asked_on.clone(), letter);
        }
        Ok(())
    }

    /// The answer to `question` and its copies for the bot.
    fn letters(&self, question: &Question, text: &str) -> Vec<Letter> {
        let (keys, now, to) = (&self.own.keys, Timestamp::now(), question.from);
        match direct::close(keys, to, Some(question.id), question.protocol, text, now) {
            Ok(closed) => {
                let letter = |event, to, only_on| Letter { event, to, written_at: now.as_secs(), only_on };
                // Any of its inbox relays may be the only one there is when the bot has to read this again.
                let copies = self.own.config.bot.inbox_relays.iter();
                let copy =
                    |relay: &RelayUrl| letter(closed.to_self.clone(), keys.public_key(), Some(relay.clone()));
                // The copies first: with the answer given and the disk lost they are what is left.
                copies.map(copy).chain([letter(closed.to_them, to, None)]).collect()
            }
            Err(error) => {
                tracing::error!(%error, "an answer could not be encrypted");
                Vec::new()
            }
        }
    }

    /// Takes a letter off that was delivered, or given up.
    pub(super) async fn strike_off(&mut self, sent: &Sent) -> Result<(), CycleError> {
        let Some(id) = sent.question else { return self.digest_sent(&sent.letter).await };
        self.update(id, |entry| entry.sent(&sent.letter)).await.map(|_| ())
    }

    /// Drops what nobody can ask for again.
    pub(super) async fn forget(&mut self) -> Result<(), CycleError> {
        let now = Timestamp::now();
        let gone: Vec<EventId> =
            self.entries.values().filter(|entry| entry.is_forgotten(now)).map(|entry| entry.id).collect();
        for id in gone {
            self.records.remove(&record(id)).await?;
            self.entries.remove(&id);
        }
        Ok(())
    }
}
