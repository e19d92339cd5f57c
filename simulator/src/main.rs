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
    /// As schedules were before the bot rested and owners led.
    #[arg(long)]
    plain: bool,
    /// As schedules were before servers were away for days and walks were overtaken.
    #[arg(long, conflicts_with = "plain")]
    resting: bool,
    /// As schedules were before relays failed like servers and states were held.
    #[arg(long, conflicts_with_all = ["plain", "resting"])]
    spreading: bool,
    /// As schedules were before the bot had an owner's key.
    #[arg(long, conflicts_with_all = ["plain", "resting", "spreading"])]
    relaying: bool,
    /// As schedules were before the bot wrote down what it hears for whoever comes after it.
    #[arg(long, conflicts_with_all = ["plain", "resting", "spreading", "relaying"])]
    signing: bool,
    /// The first seed.
    #[arg(long, value_name = "S", default_value_t = 0)]
    from: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let habits = match &arguments {
        Arguments { plain: true, .. } => Habits::default(),
        Arguments { resting: true, .. } => Habits::resting(),
        Arguments { spreading: true, .. } => Habits::spreading(),
        Arguments { relaying: true, .. } => Habits::relaying(),
        Arguments { signing: true, .. } => Habits::signing(),
        _ => Habits::all(),
    };
    if let Some(seed) = arguments.seed {
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
    let (broken, totals) = run_all(seeds, habits);
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
