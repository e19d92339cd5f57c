//! Questions and what became of them, on the disk.

use std::time::Duration;

use grasp_mirror_commands::{Command, Scope, parse, resync};
use nostr::prelude::{Event, EventId, RelayUrl, Timestamp};
use tokio::time::timeout;

use super::{Bot, Request, orders::Done, post::Sent};
use crate::{
    cycle::CycleError,
    plan::journal::{ATTEMPTS, Admission, Entry, Letter, Stage, admit},
    relay::direct::{self, Opened, Protocol, Question},
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
                (Stage::Received, Some(question)) => self.work_off(&question).await?,
                (Stage::Running, Some(question)) => self.begin_again(&question).await?,
                // Whoever asked may not command the bot any more.
                (_, None) => self.close_entry(entry.id, [], Stage::Answered).await?,
            }
        }
        Ok(())
    }

    fn question(&self, entry: &Entry) -> Option<Question> {
        match direct::open(entry.question.as_ref()?, &self.own.keys, &self.allowed.borrow()) {
            Opened::Question(question) => Some(question),
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
        let entry = Entry::received(id, question.asked_at, event, relay);
        self.records.write(&record(id), &entry).await?;
        self.entries.insert(id, entry);
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

    async fn work_off(&mut self, question: &Question) -> Result<(), CycleError> {
        let done: Done = if self.attempt(question.id).await? > ATTEMPTS {
            STOPPED.to_owned().into()
        } else {
            match timeout(COMMAND, Box::pin(self.carry_out(&question.text))).await {
                Ok(done) => done,
                Err(_) => "! That took too long, and I gave up. Send it again later.".to_owned().into(),
            }
        };
        let stage = if done.resync.is_some() { Stage::Running } else { Stage::Answered };
        self.answer(question, &done.text, stage).await?;
        if let Some(repositories) = done.resync {
            self.request(Request::Resync { question: question.id, repositories });
        }
        Ok(())
    }

    /// Writes down that a command is begun; returns how often it was.
    async fn attempt(&mut self, id: EventId) -> Result<u32, CycleError> {
        let Some(entry) = self.entries.get_mut(&id) else { return Ok(0) };
        entry.attempts = entry.attempts.saturating_add(1);
        let entry = entry.clone();
        self.records.write(&record(id), &entry).await?;
        Ok(entry.attempts)
    }

    fn request(&self, request: Request) {
        if let Err(error) = self.daemon.requests.try_send(request) {
            tracing::error!(%error, "too much is asked for at once");
        }
    }

    /// A resync that was under way when the program stopped: its start was told already.
    async fn begin_again(&mut self, question: &Question) -> Result<(), CycleError> {
        if self.attempt(question.id).await? > ATTEMPTS {
            return self.answer(question, STOPPED, Stage::Answered).await;
        }
        let done = Box::pin(self.carry_out(&question.text)).await;
        match done.resync {
            Some(repositories) => {
                self.request(Request::Resync { question: question.id, repositories });
                Ok(())
            }
            // It fits nothing any more, or the bot is paused: that is the second answer.
            None => self.answer(question, &done.text, Stage::Answered).await,
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
            // Whoever asked may not command the bot any more.
            return self.close_entry(question, [], Stage::Answered).await;
        };
        let scope = match parse(&question.text) {
            Ok(Command::Resync(scope)) => scope,
            _ => Scope::All,
        };
        self.answer(&question, &resync::reply(&scope, outcome), Stage::Answered).await
    }

    /// Signs the answer, writes it down, and sends it.
    async fn answer(&mut self, question: &Question, text: &str, stage: Stage) -> Result<(), CycleError> {
        let letters = self.letters(question.from, Some(question.id), question.protocol, text);
        self.close_entry(question.id, letters.clone(), stage).await?;
        let asked_on = self.entries.get(&question.id).and_then(|entry| entry.relay.clone());
        for letter in letters {
            self.deliver(Some(question.id), asked_on.clone(), letter);
        }
        Ok(())
    }

    async fn close_entry(
        &mut self,
        id: EventId,
        letters: impl IntoIterator<Item = Letter>,
        stage: Stage,
    ) -> Result<(), CycleError> {
        let Some(entry) = self.entries.get_mut(&id) else { return Ok(()) };
        entry.answer(letters, stage);
        let entry = entry.clone();
        self.records.write(&record(id), &entry).await?;
        Ok(())
    }

    /// A message to `to` and its copies for the bot.
    pub(super) fn letters(
        &self,
        to: nostr::prelude::PublicKey,
        question: Option<EventId>,
        protocol: Protocol,
        text: &str,
    ) -> Vec<Letter> {
        let (keys, now) = (&self.own.keys, Timestamp::now());
        match direct::close(keys, to, question, protocol, text, now) {
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
        let Some(entry) = self.entries.get_mut(&id) else { return Ok(()) };
        entry.sent(&sent.letter);
        let entry = entry.clone();
        self.records.write(&record(id), &entry).await?;
        Ok(())
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
