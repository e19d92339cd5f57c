//! Runs many schedules, or shows one. `./scripts/soak` calls it.

use std::{process::ExitCode, time::Instant};

use clap::Parser;
use grasp_mirror_simulator::{Habits, run, run_all};

/// How many broken schedules are told of.
const TOLD: usize = 20;

#[derive(Parser)]
#[command(about = "Runs the bot's core through schedules of trouble, each made from its seed")]
struct Arguments {
    /// How many schedules.
    #[arg(default_value_t = 100_000)]
    schedules: u64,
    /// Runs this one only, and prints its steps.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// With --seed: as schedules were before the bot rested and owners led.
    #[arg(long, requires = "seed")]
    plain: bool,
    /// With --seed: as schedules were before servers were away for days and walks were overtaken.
    #[arg(long, requires = "seed", conflicts_with = "plain")]
    resting: bool,
    /// The first seed.
    #[arg(long, value_name = "S", default_value_t = 0)]
    from: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        let habits = match (arguments.plain, arguments.resting) {
            (true, _) => Habits::default(),
            (_, true) => Habits::resting(),
            _ => Habits::all(),
        };
        return match run(seed, habits, true).broken {
            Some(words) => {
                println!("broken: {words}");
                ExitCode::FAILURE
            }
            None => ExitCode::SUCCESS,
        };
    }
    let began = Instant::now();
    let seeds = arguments.from..arguments.from.saturating_add(arguments.schedules);
    let (broken, totals) = run_all(seeds);
    for (seed, words) in broken.iter().take(TOLD) {
        println!("seed {seed}: {words}");
    }
    let secs = began.elapsed().as_secs_f64();
    println!(
        "{} schedules in {secs:.1} s ({:.0} a second): {} broken. {totals}",
        arguments.schedules,
        arguments.schedules as f64 / secs,
        broken.len()
    );
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
