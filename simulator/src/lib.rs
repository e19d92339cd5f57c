//! The pure core of grasp-mirror in a world of unreliable servers, relays and people, with a clock of its own.
//!
//! A schedule is made from a seed, and the same seed makes the same one again. The decisions are the program's own
//! ([`grasp_mirror::plan`], [`grasp_mirror::model`]); what carries them out is small and in here: [`bot`] does what
//! `src/cycle` does, `walk` what `src/transfer/mirror.rs` does with a step, [`inbox`] what `src/bot/journal.rs` does.
//! The bot may be killed between any two steps; what is on its [`disk`] survives.
//!
//! [`grasp`] is a server that does nothing wrong: the contract in `tests/contract.rs` holds for it and for the real
//! one alike. [`world`] adds the faults, [`owners`] the people. `check` says what must never happen: see there.

// A simulation stops at the first surprise.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]

pub mod bot;
mod check;
mod discover;
pub mod disk;
pub mod git;
pub mod grasp;
pub mod hold;
pub mod inbox;
mod live;
mod own;
pub mod owners;
pub mod people;
pub mod relays;
pub mod rest;
mod schedule;
mod signing;
mod walk;
pub mod world;

pub use schedule::{Outcome, run};
pub use world::Habits;

/// Seeds that found something in a world without [`Habits`]. They are always run.
pub const KNOWN_PLAIN: &[u64] = &[
    4, 17, 18, 22, 38, 43, 46, 50, 84, 145, 464, 496, 622, 954, 1437, 1841, 2489, 2942, 3193, 3772, 4605,
    5861, 7455, 10439, 137587,
];

/// Seeds that found something before servers were away for days and walks were overtaken
/// ([`Habits::resting`]). They are always run.
pub const KNOWN_RESTING: &[u64] = &[68, 81, 145, 165, 412, 462, 7882, 42656];

/// Seeds that found something before relays failed like servers and states were held ([`Habits::spreading`]). They are
/// always run.
pub const KNOWN_SPREADING: &[u64] = &[];

/// Seeds that found something before the bot had an owner's key ([`Habits::relaying`]). They are always run.
pub const KNOWN_RELAYING: &[u64] = &[260, 323, 464, 691];

/// Seeds that found something before the bot wrote down what it hears for whoever comes after it ([`Habits::signing`]).
/// They are always run.
pub const KNOWN_SIGNING: &[u64] = &[26, 103, 197];

/// Seeds that found something with all [`Habits`]. They are always run.
pub const KNOWN: &[u64] = &[232, 790, 1323, 1968];

/// A cycle in which nothing was wrong has sent nothing.
fn ledger_is_clean(world: &mut world::World) {
    if !world.ledger.sent.is_empty() || !world.ledger.pushed.is_empty() {
        let words = format!(
            "everything is well, and yet {} events are sent and {} pushes made",
            world.ledger.sent.len(),
            world.ledger.pushed.len()
        );
        world.break_promise(|| words);
    }
    let (signed, told) = (world.ledger.own.signed, world.ledger.told_relays);
    if signed > 0 || told > 0 {
        world.break_promise(|| {
            format!("everything is well, and yet {signed} lists are signed and relays are told {told} things")
        });
    }
}

/// Runs the schedules of these seeds on all processors; the broken ones, and what happened in all.
#[must_use]
pub fn run_all(seeds: std::ops::Range<u64>, habits: Habits) -> (Vec<(u64, String)>, world::Totals) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let runs = std::thread::scope(|scope| {
        let run_some = |first: u64| {
            let seeds = seeds.clone();
            move || {
                let (mut broken, mut totals) = (Vec::new(), world::Totals::default());
                for seed in seeds.skip(first as usize).step_by(threads as usize) {
                    let outcome = run(seed, habits, false);
                    broken.extend(outcome.broken.map(|words| (seed, words)));
                    totals.add(&outcome.totals);
                }
                (broken, totals)
            }
        };
        let workers: Vec<_> = (0..threads).map(|first| scope.spawn(run_some(first))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    let (mut broken, mut totals) = (Vec::new(), world::Totals::default());
    for (some, part) in runs {
        broken.extend(some);
        totals.add(&part);
    }
    broken.sort();
    (broken, totals)
}
