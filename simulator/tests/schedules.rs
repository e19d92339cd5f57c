//! Ten thousand schedules, and those that found something once.

#![allow(clippy::panic, reason = "a test")]

use grasp_mirror_simulator::{
    Habits, KNOWN, KNOWN_PLAIN, KNOWN_RELAYING, KNOWN_RESTING, KNOWN_SIGNING, KNOWN_SPREADING, run, run_all,
};

#[test]
fn schedules_that_found_something_find_nothing_more() {
    for (seeds, habits, how) in [
        (KNOWN, Habits::all(), ""),
        (KNOWN_SIGNING, Habits::signing(), " --signing"),
        (KNOWN_RELAYING, Habits::relaying(), " --relaying"),
        (KNOWN_SPREADING, Habits::spreading(), " --spreading"),
        (KNOWN_RESTING, Habits::resting(), " --resting"),
        (KNOWN_PLAIN, Habits::default(), " --plain"),
    ] {
        for seed in seeds {
            if let Some(words) = run(*seed, habits, false).broken {
                panic!("seed {seed}: {words}\n./scripts/soak --seed {seed}{how} shows its steps");
            }
        }
    }
}

#[test]
fn ten_thousand_schedules_keep_every_promise() {
    let (broken, totals) = run_all(0..10_000, Habits::all());
    println!("{totals}");
    if let Some((seed, words)) = broken.first() {
        panic!(
            "{} are broken. Seed {seed}: {words}\n./scripts/soak --seed {seed} shows its steps",
            broken.len()
        );
    }
}

#[test]
fn the_same_seed_makes_the_same_schedule() {
    let (a, b) = (run(7, Habits::all(), false), run(7, Habits::all(), false));
    assert_eq!((a.totals.steps, a.totals.sends, a.broken), (b.totals.steps, b.totals.sends, b.broken));
}
