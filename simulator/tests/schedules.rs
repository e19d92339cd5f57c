//! Ten thousand schedules, and those that found something once.

#![allow(clippy::panic, reason = "a test")]

use grasp_mirror_simulator::{KNOWN, run, run_all};

#[test]
fn schedules_that_found_something_find_nothing_more() {
    for seed in KNOWN {
        if let Some(words) = run(*seed, false).broken {
            panic!("seed {seed}: {words}\n./scripts/soak --seed {seed} shows its steps");
        }
    }
}

#[test]
fn ten_thousand_schedules_keep_every_promise() {
    let (broken, totals) = run_all(0..10_000);
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
    let (a, b) = (run(7, false), run(7, false));
    assert_eq!((a.totals.steps, a.totals.sends, a.broken), (b.totals.steps, b.totals.sends, b.broken));
}
