//! What the bot and the daemon's loop say to each other.

use std::collections::BTreeSet;

use grasp_mirror_commands::resync::Resync;
use nostr::prelude::{EventId, RelayUrl};
use tokio::sync::{mpsc, watch};

use crate::{config::Config, cycle::CycleDone, model::coordinate::Coordinate, plan::settings::Settings};

/// What the bot wants of the daemon's loop.
#[derive(Debug)]
pub enum Request {
    /// Look at these repositories anew, then say so.
    Resync {
        /// The command.
        question: EventId,
        /// Which; `None` for all.
        repositories: Option<BTreeSet<Coordinate>>,
    },
    /// The bot's own lists name other relays than before: be there.
    Move,
}

/// What the daemon's loop tells the bot.
#[derive(Debug)]
pub enum Tidings {
    /// A cycle ended.
    Cycle(Box<CycleDone>),
    /// Something that was heard between cycles was followed.
    Followed(Box<CycleDone>),
    /// A resync ended.
    Resynced {
        /// The command.
        question: EventId,
        /// What came of it.
        outcome: Resync,
    },
    /// The operator changed the configuration.
    Config(Box<Config>),
}

/// The loop's side.
#[derive(Debug)]
pub struct Doors {
    /// What to mirror; `None` while that is not known.
    pub settings: watch::Receiver<Option<Settings>>,
    /// What is asked for.
    pub requests: mpsc::Receiver<Request>,
    /// What became of it.
    pub tidings: mpsc::Sender<Tidings>,
    /// Whether a cycle is running.
    pub busy: watch::Sender<bool>,
    /// Inbox relays that do not deliver.
    pub silent: watch::Receiver<BTreeSet<RelayUrl>>,
}

/// The bot's side; the fields are those of [`Doors`].
pub(super) struct Loop {
    pub(super) settings: watch::Sender<Option<Settings>>,
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) tidings: mpsc::Receiver<Tidings>,
    pub(super) busy: watch::Receiver<bool>,
    pub(super) silent: watch::Sender<BTreeSet<RelayUrl>>,
}

/// Both sides; at most `queue` messages wait in one direction.
pub(super) fn doors(queue: usize) -> (Loop, Doors) {
    let (settings_sender, settings) = watch::channel(None);
    let (requests_sender, requests) = mpsc::channel(queue);
    let (tidings, tidings_receiver) = mpsc::channel(queue);
    let (busy, busy_receiver) = watch::channel(false);
    let (silent_sender, silent) = watch::channel(BTreeSet::new());
    let bot = Loop {
        settings: settings_sender,
        requests: requests_sender,
        tidings: tidings_receiver,
        busy: busy_receiver,
        silent: silent_sender,
    };
    (bot, Doors { settings, requests, tidings, busy, silent })
}
