//! Someone who talks to the bot by direct message, in both protocols.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Deref,
    sync::Mutex,
};

use nostr::{
    event::{Event, EventBuilder, EventId, FinalizeEvent, FinalizeUnsignedEvent, Kind, Tag, UnsignedEvent},
    filter::Filter,
    key::{Keys, PublicKey},
    nips::{
        nip04, nip44,
        nip59::{GiftWrapBuilder, GiftWrapSealBuilder, UnwrappedGift},
    },
    types::Timestamp,
};

use crate::{Address, Mirror, Person, look, wire};

/// How a message is encrypted and carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Gift wraps: 1059 → 13 → 14.
    Nip17,
    /// Kind 4.
    Nip04,
}

/// A message to the bot.
#[derive(Debug, Clone)]
pub struct Question {
    /// What an answer names: the rumor, or the event of kind 4.
    pub id: EventId,
    /// What relays carry. The same question can be wrapped more than once.
    pub event: Event,
}

impl Question {
    fn protocol(&self) -> Protocol {
        if self.event.kind == Kind::GiftWrap { Protocol::Nip17 } else { Protocol::Nip04 }
    }
}

/// A message from the bot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The rumor, or the event of kind 4.
    pub id: EventId,
    /// How it came.
    pub protocol: Protocol,
    /// What it says.
    pub text: String,
    /// The questions that it names in `e` tags.
    pub about: Vec<EventId>,
    /// When it was written.
    pub created_at: Timestamp,
}

/// A person, the bot, and the relays between them.
#[derive(Debug)]
pub struct Chat {
    person: Person,
    bot: PublicKey,
    asks_at: Vec<String>,
    hears_at: Vec<String>,
    /// When each text was asked last.
    asked: Mutex<HashMap<String, Timestamp>>,
}

impl Deref for Chat {
    type Target = Person;

    fn deref(&self) -> &Person {
        &self.person
    }
}

impl Chat {
    /// Someone new, who knows the bot and no relay.
    #[must_use]
    pub fn new(mirror: &Mirror) -> Self {
        Self {
            person: Person::new(),
            bot: mirror.bot_pubkey(),
            asks_at: Vec::new(),
            hears_at: Vec::new(),
            asked: Mutex::default(),
        }
    }

    /// Someone new, who asks and hears at `relay`, and says so there.
    pub async fn at(mirror: &Mirror, relay: impl Address) -> Self {
        let chat = Self::new(mirror).asks_at(&relay).hears_at(&relay);
        chat.introduce(relay).await;
        chat
    }

    /// Questions go to this relay.
    #[must_use]
    pub fn asks_at(mut self, relay: impl Address) -> Self {
        self.asks_at.push(relay.ws());
        self
    }

    /// Answers are looked for on this relay.
    #[must_use]
    pub fn hears_at(mut self, relay: impl Address) -> Self {
        self.hears_at.push(relay.ws());
        self
    }

    /// Tells `relay` where this person is reached: kinds 10050 and 10002.
    ///
    /// # Panics
    ///
    /// When it refuses.
    pub async fn introduce(&self, relay: impl Address) {
        for (kind, name) in [(10050, "relay"), (10002, "r")] {
            let tags: Vec<_> = self.hears_at.iter().map(|url| [name, url.as_str()]).collect();
            let tags: Vec<_> = tags.iter().map(<[_; 2]>::as_slice).collect();
            wire::send(&self.sign(kind, "", &tags), relay.ws()).await.expect_accepted();
        }
    }

    /// What a gift wrap to the bot holds, written at `created_at`.
    #[must_use]
    pub fn rumor(&self, text: &str, created_at: Timestamp) -> UnsignedEvent {
        let mut rumor = EventBuilder::new(Kind::PrivateDirectMessage, text)
            .tag(Tag::public_key(self.bot))
            .custom_created_at(created_at)
            .finalize_unsigned(self.public_key());
        rumor.ensure_id();
        rumor
    }

    /// Wraps `rumor`, whoever it says it is from, to the bot.
    ///
    /// # Panics
    ///
    /// When it is too long for the protocol.
    #[must_use]
    pub fn wrap(&self, rumor: UnsignedEvent) -> Question {
        self.wrap_to(self.bot, rumor)
    }

    /// Wraps `rumor` so that only `reader` can open it.
    ///
    /// # Panics
    ///
    /// When it is too long for the protocol.
    #[must_use]
    pub fn wrap_to(&self, reader: PublicKey, mut rumor: UnsignedEvent) -> Question {
        let id = rumor.id();
        let event = GiftWrapBuilder::new(reader, rumor).finalize(&self.keys).unwrap();
        Question { id, event }
    }

    /// Wraps `rumor` to the bot with a chosen date on the outside, instead of any in the last two days.
    ///
    /// # Panics
    ///
    /// When it is too long for the protocol.
    #[must_use]
    pub fn wrap_dated(&self, mut rumor: UnsignedEvent, created_at: Timestamp) -> Question {
        let id = rumor.id();
        let seal = GiftWrapSealBuilder::new(rumor, self.bot).finalize(&self.keys).unwrap().as_json();
        let nobody = Keys::generate();
        let content = nip44::encrypt(nobody.secret_key(), &self.bot, seal, nip44::Version::V2).unwrap();
        let event = EventBuilder::new(Kind::GiftWrap, content)
            .tag(Tag::public_key(self.bot))
            .custom_created_at(created_at)
            .finalize(&nobody)
            .unwrap();
        Question { id, event }
    }

    /// A message to the bot written at `created_at`, not sent.
    ///
    /// # Panics
    ///
    /// When it is too long for the protocol.
    #[must_use]
    pub fn question_at(&self, protocol: Protocol, text: &str, created_at: Timestamp) -> Question {
        match protocol {
            Protocol::Nip17 => self.wrap(self.rumor(text, created_at)),
            Protocol::Nip04 => {
                let content = nip04::encrypt(self.keys.secret_key(), &self.bot, text).unwrap();
                let event = EventBuilder::new(Kind::EncryptedDirectMessage, content)
                    .tag(Tag::public_key(self.bot))
                    .custom_created_at(created_at)
                    .finalize(&self.keys)
                    .unwrap();
                Question { id: event.id, event }
            }
        }
    }

    /// Sends a question once, to every relay where this person asks.
    ///
    /// # Panics
    ///
    /// When one of them refuses it.
    pub async fn send(&self, question: &Question) {
        for relay in &self.asks_at {
            wire::send(&question.event, relay).await.expect_accepted();
        }
    }

    /// Asks now; the same words again are another question.
    ///
    /// # Panics
    ///
    /// Never: no holder of the lock does.
    pub async fn ask(&self, protocol: Protocol, text: &str) -> Question {
        let asked_at = {
            let mut asked = self.asked.lock().unwrap();
            // In the same second it would be the same rumor.
            let again = asked.get(text).map_or(Timestamp::zero(), |last| *last + 1_u64);
            let at = Timestamp::now().max(again);
            asked.insert(text.to_owned(), at);
            at
        };
        let question = self.question_at(protocol, text, asked_at);
        self.send(&question).await;
        question
    }

    /// Asks now, and waits for the (first) answer.
    pub async fn answer_to(&self, protocol: Protocol, text: &str) -> String {
        let question = self.ask(protocol, text).await;
        self.answers(&question, 1).await.swap_remove(0).text
    }

    /// Asks for a resync in these words; waits for its end, and returns what was said then.
    ///
    /// # Panics
    ///
    /// When the bot does not say once that it begins, and once what came of it.
    pub async fn resync(&self, text: &str) -> String {
        let question = self.ask(Protocol::Nip17, text).await;
        let answers = self.answers(&question, 2).await;
        // Both may be of the same second.
        let mut ends = answers.iter().filter(|answer| !answer.text.contains("I'll tell you when it is done"));
        let (Some(end), None) = (ends.next(), ends.next()) else { panic!("one end in {answers:#?}") };
        end.text.clone()
    }

    /// Waits until the bot has answered something asked now; it has then heard what was sent before.
    pub async fn catch_up(&self) {
        self.answer_to(Protocol::Nip17, "status no-such-repository").await;
    }

    /// All the bot has said to this person, each message once, oldest first.
    ///
    /// # Panics
    ///
    /// When a message that claims to be from the bot breaks its protocol.
    pub async fn heard(&self) -> Vec<Heard> {
        let mut heard = BTreeMap::new();
        for relay in &self.hears_at {
            let mail =
                Filter::new().kinds([Kind::GiftWrap, Kind::EncryptedDirectMessage]).pubkey(self.public_key());
            for event in wire::fetch_as(Some(&self.keys), relay, mail).await {
                if let Some(one) = self.open(&event) {
                    heard.insert(one.id, one);
                }
            }
        }
        let mut heard: Vec<_> = heard.into_values().collect();
        heard.sort_by_key(|one| one.created_at);
        heard
    }

    /// What `event`, addressed to this person, says; `None` when it is not from the bot.
    ///
    /// # Panics
    ///
    /// When it claims to be from the bot and breaks its protocol.
    #[must_use]
    pub fn open(&self, event: &Event) -> Option<Heard> {
        let about = |tags: &nostr::event::Tags| tags.event_ids().collect();
        if event.kind == Kind::EncryptedDirectMessage {
            let text = || nip04::decrypt(self.keys.secret_key(), &self.bot, &event.content).unwrap();
            return (event.pubkey == self.bot).then(|| Heard {
                id: event.id,
                protocol: Protocol::Nip04,
                text: text(),
                about: about(&event.tags),
                created_at: event.created_at,
            });
        }
        let mut gift = UnwrappedGift::from_gift_wrap(&self.keys, event).unwrap();
        assert_eq!(gift.rumor.kind, Kind::PrivateDirectMessage);
        assert!(gift.rumor.tags.public_keys().any(|to| to == self.public_key()), "{:?}", gift.rumor);
        (gift.sender == self.bot).then(|| Heard {
            id: gift.rumor.id(),
            protocol: Protocol::Nip17,
            text: gift.rumor.content.clone(),
            about: about(&gift.rumor.tags),
            created_at: gift.rumor.created_at,
        })
    }

    /// The answers that are here, each once.
    pub async fn answers_now(&self, question: &Question) -> Vec<Heard> {
        let mut heard = self.heard().await;
        heard.retain(|one| one.about.contains(&question.id));
        heard
    }

    /// Waits for this many answers.
    ///
    /// # Panics
    ///
    /// When they do not come, more than that do, or they come in the other protocol.
    pub async fn answers(&self, question: &Question, count: usize) -> Vec<Heard> {
        let mut answers = Vec::new();
        look::wait_until("the bot has answered", async || {
            answers = self.answers_now(question).await;
            answers.len() >= count
        })
        .await;
        assert_eq!(answers.len(), count, "{answers:#?}");
        assert!(answers.iter().all(|answer| answer.protocol == question.protocol()), "{answers:#?}");
        answers
    }
}

/// A gift wrap to `reader` from nobody, with content that means nothing.
///
/// # Panics
///
/// Never: any text can be signed.
#[must_use]
pub fn junk(kind: u16, reader: PublicKey, content: &str) -> Event {
    EventBuilder::new(Kind::from(kind), content)
        .tag(Tag::public_key(reader))
        .finalize(&Keys::generate())
        .unwrap()
}
