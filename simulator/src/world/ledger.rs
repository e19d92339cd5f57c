//! What the bot did and what happened: what it is judged by, and the figures.

use std::collections::{BTreeMap, BTreeSet};

use grasp_mirror::{
    model::{coordinate::Coordinate, replace::wins},
    plan::settings::AUTHORS,
};
use nostr::event::{Event, EventId};

use crate::hold::Decisions;

/// What the bot did, to be compared with what it may do.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Events sent in this cycle, with how often.
    pub sent: BTreeMap<(usize, EventId), u32>,
    /// Pushes of heads and tags in this cycle.
    pub pushed: BTreeMap<(usize, Coordinate), u32>,
    /// What servers said in this cycle that they serve.
    pub said_to_serve: BTreeSet<(usize, EventId)>,
    /// Mirrors that failed: for which state, how often in a row, and when last.
    pub failed: BTreeMap<(usize, Coordinate), (Option<EventId>, u32, u64)>,
    /// Servers that were down: how often in a row, and when last.
    pub tries: BTreeMap<usize, (u32, u64)>,
    /// What was refused for good, since when the bot was last told to look anew.
    pub refused: BTreeSet<(usize, EventId)>,
    /// When each server last answered.
    pub answered: BTreeMap<usize, u64>,
    /// The same, when the bot last lived long enough to write it down.
    pub noted: BTreeMap<usize, u64>,
    /// The families of which something newer was heard in this cycle.
    pub overtaken: BTreeSet<String>,
    /// Events sent to relays since the cycle before.
    pub told_relays: u32,
    /// The bot's lists, as they should be known to it.
    pub own: OwnLists,
    /// States that are held, and what people said of them.
    pub decisions: Decisions,
    /// When the bot last had a server listed that an owner's announcement did not list, and whether it has seen that.
    pub listings: BTreeMap<(Coordinate, usize), (u64, bool)>,
    /// What it signed with an owner's key.
    pub signed_for_owners: BTreeSet<EventId>,
    /// Until when the bot's record of a mirror says that its server wants to be left alone.
    pub told: BTreeMap<(usize, Coordinate), u64>,
    /// Until when servers want to be left alone, by their own words, and for which repository that was said.
    pub cools: BTreeMap<usize, u64>,
}

/// What the bot has heard and said of its own lists since it last lost its disk.
#[derive(Clone, Debug, Default)]
pub struct OwnLists {
    /// Whom it follows: the newest list that it signed or was shown.
    pub authors: Option<Event>,
    /// Lists signed since the cycle before.
    pub signed: u32,
    /// How often this process looked for its lists.
    pub looks: u32,
}

impl OwnLists {
    /// The bot signed this, or was shown it.
    pub(crate) fn learn(&mut self, event: &Event) {
        if event.kind == AUTHORS && self.authors.as_ref().is_none_or(|known| wins(event, known)) {
            self.authors = Some(event.clone());
        }
    }
}

/// What happened in all schedules.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Requests of the bot, and writes to its disk.
    pub steps: u64,
    /// Cycles begun.
    pub cycles: u64,
    /// Times the bot was killed.
    pub crashes: u64,
    /// Events sent.
    pub sends: u64,
    /// Pushes.
    pub pushes: u64,
    /// Commands that came in, counting each delivery.
    pub commands: u64,
    /// Repositories that were left in peace in a cycle.
    pub rests: u64,
    /// Walks that ended because something newer was signed.
    pub overtakes: u64,
    /// Copies that moved to another server.
    pub moves: u64,
    /// Times the bot lost its disk.
    pub losses: u64,
    /// States that were held, at first.
    pub holds: u64,
    /// Walks that ended since their server wants to be left alone for so long.
    pub cool_downs: u64,
    /// Times something was signed with an owner's key.
    pub listings: u64,
}

impl Totals {
    /// Counts what happened elsewhere, too.
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.cycles += other.cycles;
        self.crashes += other.crashes;
        self.sends += other.sends;
        self.pushes += other.pushes;
        self.commands += other.commands;
        self.rests += other.rests;
        self.overtakes += other.overtakes;
        self.moves += other.moves;
        self.losses += other.losses;
        self.holds += other.holds;
        self.cool_downs += other.cool_downs;
        self.listings += other.listings;
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { steps, cycles, crashes, sends, pushes, commands, rests, overtakes, moves, .. } = self;
        let Self { losses, holds, cool_downs, listings, .. } = self;
        write!(
            f,
            "{steps} steps in {cycles} cycles, {crashes} kills, {losses} disks lost, {sends} events sent, {pushes} pushes, {commands} commands delivered, {rests} rests, {overtakes} walks overtaken, {moves} copies moved, {holds} states held, {cool_downs} cool-downs, {listings} listings signed"
        )
    }
}
