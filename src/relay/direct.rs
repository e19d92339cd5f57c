//! Opens what people send the bot in private, and closes what it answers: NIP-17 (a rumor of kind 14 in a seal in
//! a gift wrap, NIP-59) and NIP-04 (kind 4).
//!
//! Anyone can send a wrap, so opening does as little as it can: a stranger's seal is never decrypted, and a
//! stranger's kind 4 not even looked into.

use std::time::Duration;

use nostr::prelude::{
    Event, EventBuilder, EventId, FinalizeEvent, FinalizeUnsignedEvent, GiftWrapBuilder, Keys, Kind, Nip44,
    PublicKey, Tag, Timestamp, UnsignedEvent, nip04,
};
use serde::{Deserialize, Serialize};

/// The longest content that is decrypted, in bytes: a command is a line.
const CONTENT_MAX: usize = 64 << 10;

/// Counted from the wrap's date, which is up to two days back (NIP-59, NIP-40).
const TO_SELF_KEPT: Duration = Duration::from_secs(3 * 24 * 3_600);

/// How a message is encrypted and sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// NIP-17.
    Wrapped,
    /// NIP-04.
    Kind4,
}

/// What somebody who may command the bot said to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The rumor's id; of a kind 4, the event's. The same however often it is delivered.
    pub id: EventId,
    /// Who says it.
    pub from: PublicKey,
    /// How it came.
    pub protocol: Protocol,
    /// When it was said: the rumor's time, not the wrap's.
    pub asked_at: Timestamp,
    /// What was said.
    pub text: String,
}

/// What is in a private message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// For the bot to answer.
    Question(Question),
    /// The bot's message to itself: the copy of an answer, or a test.
    Own(UnsignedEvent),
    /// From somebody who may not command the bot. Not looked into.
    Stranger,
    /// Not a private message to the bot, or a forged one.
    Unreadable(&'static str),
}

/// Opens a private message (kind 1059 or 4) whose signature was checked, as far as its sender `is_heard`.
#[must_use]
pub fn open(event: &Event, keys: &Keys, is_heard: &dyn Fn(&PublicKey) -> bool) -> Opened {
    if event.content.len() > CONTENT_MAX {
        return Opened::Unreadable("longer than any command");
    }
    let opened = match event.kind {
        Kind::GiftWrap => unwrap(event, keys, is_heard),
        Kind::EncryptedDirectMessage if is_heard(&event.pubkey) => decrypt(event, keys),
        Kind::EncryptedDirectMessage => Ok(Opened::Stranger),
        _ => Err("not a private message"),
    };
    opened.unwrap_or_else(Opened::Unreadable)
}

fn decrypt(event: &Event, keys: &Keys) -> Result<Opened, &'static str> {
    let text = nip04::decrypt(keys.secret_key(), &event.pubkey, &event.content)
        .map_err(|_| "not encrypted to the bot (NIP-04)")?;
    Ok(Opened::Question(Question {
        id: event.id,
        from: event.pubkey,
        protocol: Protocol::Kind4,
        asked_at: event.created_at,
        text,
    }))
}

/// As `UnwrappedGift` of nostr does it, but it stops as soon as the seal turns out to be a stranger's.
fn unwrap(wrap: &Event, keys: &Keys, is_heard: &dyn Fn(&PublicKey) -> bool) -> Result<Opened, &'static str> {
    let seal = keys.nip44_decrypt(&wrap.pubkey, &wrap.content).map_err(|_| "not encrypted to the bot")?;
    let seal = Event::from_json(seal).map_err(|_| "no seal in the wrap")?;
    let own = seal.pubkey == keys.public_key();
    if !own && !is_heard(&seal.pubkey) {
        return Ok(Opened::Stranger);
    }
    if seal.kind != Kind::Seal || seal.verify().is_err() {
        return Err("a forged seal");
    }
    let rumor = keys.nip44_decrypt(&seal.pubkey, &seal.content).map_err(|_| "the seal cannot be opened")?;
    let rumor = UnsignedEvent::from_json(rumor).map_err(|_| "no rumor in the seal")?;
    if rumor.pubkey != seal.pubkey {
        return Err("the rumor's author is not the seal's");
    }
    if rumor.kind != Kind::PrivateDirectMessage {
        return Err("not a text message");
    }
    let id = rumor.compute_id();
    if rumor.id.is_some_and(|claimed| claimed != id) {
        return Err("the rumor's id is not its own");
    }
    if own {
        return Ok(Opened::Own(rumor));
    }
    Ok(Opened::Question(Question {
        id,
        from: rumor.pubkey,
        protocol: Protocol::Wrapped,
        asked_at: rumor.created_at,
        text: rumor.content,
    }))
}

/// The question that the bot's own message answers.
#[must_use]
pub fn answered(own: &UnsignedEvent) -> Option<EventId> {
    own.tags.event_ids().next()
}

/// One message of the bot's, closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// For whom it is.
    pub to_them: Event,
    /// The same for the bot itself, always as a wrap, so that it knows on another machine what it said.
    pub to_self: Event,
}

/// Closes what the bot says to `to`, in answer to `question` if there is one.
///
/// # Errors
///
/// The cryptography's own words; a text longer than 65,535 bytes cannot be encrypted.
pub fn close(
    keys: &Keys,
    to: PublicKey,
    question: Option<EventId>,
    protocol: Protocol,
    text: &str,
    now: Timestamp,
) -> Result<Closed, nostr::error::Error> {
    let tags = || std::iter::once(Tag::public_key(to)).chain(question.map(Tag::event));
    let rumor = to_rumor(keys, text, tags(), now);
    let to_them = match protocol {
        Protocol::Wrapped => GiftWrapBuilder::new(to, rumor.clone()).finalize(keys)?,
        Protocol::Kind4 => {
            let content = nip04::encrypt(keys.secret_key(), &to, text)?;
            EventBuilder::new(Kind::EncryptedDirectMessage, content)
                .tags(tags())
                .custom_created_at(now)
                .finalize(keys)?
        }
    };
    Ok(Closed { to_them, to_self: GiftWrapBuilder::new(keys.public_key(), rumor).finalize(keys)? })
}

/// Closes a message from the bot to itself, which relays need not keep for longer than some days; with its id.
///
/// # Errors
///
/// The cryptography's own words.
pub fn to_self(keys: &Keys, text: &str, now: Timestamp) -> Result<(EventId, Event), nostr::error::Error> {
    let rumor = to_rumor(keys, text, std::iter::once(Tag::public_key(keys.public_key())), now);
    let id = rumor.compute_id();
    let wrap = GiftWrapBuilder::new(keys.public_key(), rumor).expiration(TO_SELF_KEPT);
    Ok((id, wrap.finalize(keys)?))
}

fn to_rumor(keys: &Keys, text: &str, tags: impl Iterator<Item = Tag>, now: Timestamp) -> UnsignedEvent {
    EventBuilder::new(Kind::PrivateDirectMessage, text)
        .tags(tags)
        .custom_created_at(now)
        .finalize_unsigned(keys.public_key())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use nostr::nips::nip59::GiftWrapSealBuilder;
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);

    fn rumor(from: &Keys, kind: Kind, text: &str) -> UnsignedEvent {
        EventBuilder::new(kind, text).custom_created_at(NOW).finalize_unsigned(from.public_key())
    }

    fn wrapped(from: &Keys, to: &Keys, rumor: UnsignedEvent) -> Event {
        let seal = GiftWrapSealBuilder::new(rumor, to.public_key()).finalize(from).unwrap();
        wrap(&seal.as_json(), to)
    }

    fn wrap(inside: &str, to: &Keys) -> Event {
        let once = Keys::generate();
        let content = once.nip44_encrypt(&to.public_key(), inside).unwrap();
        EventBuilder::new(Kind::GiftWrap, content).finalize(&once).unwrap()
    }

    fn reason(opened: Opened) -> &'static str {
        match opened {
            Opened::Unreadable(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn both_protocols_are_opened_and_answers_come_back_to_the_bot() {
        let (bot, person) = (Keys::generate(), Keys::generate());
        let allowed = BTreeSet::from([person.public_key()]);
        for protocol in [Protocol::Wrapped, Protocol::Kind4] {
            let sent = close(&person, bot.public_key(), None, protocol, "status", NOW).unwrap();
            let Opened::Question(question) = open(&sent.to_them, &bot, &|key| allowed.contains(key)) else {
                panic!()
            };
            assert_eq!((question.text.as_str(), question.asked_at), ("status", NOW));
            assert_eq!((question.from, question.protocol), (person.public_key(), protocol));

            let answer = close(&bot, person.public_key(), Some(question.id), protocol, "fine", NOW).unwrap();
            let Opened::Own(copy) = open(&answer.to_self, &bot, &|key| allowed.contains(key)) else {
                panic!()
            };
            assert_eq!(answered(&copy), Some(question.id));
            let bots = BTreeSet::from([bot.public_key()]);
            let Opened::Question(read) = open(&answer.to_them, &person, &|key| bots.contains(key)) else {
                panic!()
            };
            assert_eq!(read.text, "fine");
        }
    }

    #[test]
    fn strangers_and_forgeries_do_not_get_in() {
        let (bot, person, stranger) = (Keys::generate(), Keys::generate(), Keys::generate());
        let allowed = BTreeSet::from([person.public_key()]);
        let opened = |event: &Event| open(event, &bot, &|key| allowed.contains(key));
        let message = Kind::PrivateDirectMessage;
        assert_eq!(opened(&wrapped(&stranger, &bot, rumor(&stranger, message, "pause"))), Opened::Stranger);
        let kind4 = close(&stranger, bot.public_key(), None, Protocol::Kind4, "pause", NOW).unwrap();
        assert_eq!(opened(&kind4.to_them), Opened::Stranger);

        // Sealed by one, said to be from another: whichever of the two may command.
        let forged = wrapped(&person, &bot, rumor(&stranger, message, "pause"));
        assert_eq!(reason(opened(&forged)), "the rumor's author is not the seal's");
        let forged = wrapped(&stranger, &bot, rumor(&person, message, "pause"));
        assert_eq!(opened(&forged), Opened::Stranger);
        // A seal that names an author who did not sign it.
        let mut seal: serde_json::Value = serde_json::from_str(
            &GiftWrapSealBuilder::new(rumor(&person, message, "pause"), bot.public_key())
                .finalize(&stranger)
                .unwrap()
                .as_json(),
        )
        .unwrap();
        seal["pubkey"] = person.public_key().to_hex().into();
        assert_eq!(reason(opened(&wrap(&seal.to_string(), &bot))), "a forged seal");
        let mut other_id = rumor(&person, message, "pause");
        other_id.id = Some(EventId::from_byte_array([0; 32]));
        assert_eq!(reason(opened(&wrapped(&person, &bot, other_id))), "the rumor's id is not its own");
        let file = wrapped(&person, &bot, rumor(&person, Kind::from(15), "pause"));
        assert_eq!(reason(opened(&file)), "not a text message");

        let to_another = wrapped(&person, &stranger, rumor(&person, message, "pause"));
        assert_eq!(reason(opened(&to_another)), "not encrypted to the bot");
        let long = EventBuilder::new(Kind::GiftWrap, "x".repeat(1 << 20)).finalize(&person).unwrap();
        assert_eq!(reason(opened(&long)), "longer than any command");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn garbage_is_unreadable_and_nothing_worse(content in "\\PC{0,200}", inside in "\\PC{0,200}", kind in prop_oneof![Just(4_u16), Just(1059)]) {
            let (bot, person) = (Keys::generate(), Keys::generate());
            let allowed = BTreeSet::from([person.public_key()]);
            let garbage = EventBuilder::new(Kind::from(kind), content).finalize(&person).unwrap();
            prop_assert!(matches!(open(&garbage, &bot, &|key| allowed.contains(key)), Opened::Unreadable(_)));
            prop_assert!(inside.is_empty() || matches!(open(&wrap(&inside, &bot), &bot, &|key| allowed.contains(key)), Opened::Unreadable(_)));
        }
    }
}
