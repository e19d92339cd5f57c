//! What a command costs: started through this program, whose only child it then is.

use std::{
    env,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use grasp_mirror_testkit::{Cost, cost_of_children, tools};

/// Runs `command` and prints CPU time in microseconds and peak memory in KiB, with all of its children.
pub fn print(command: &[String]) -> Result<()> {
    let (program, args) = command.split_first().context("no command")?;
    let status = Command::new(program).args(args).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "{command:?} ended with {status}");
    let cost = cost_of_children();
    println!("{} {}", cost.cpu.as_micros(), cost.peak_kib);
    Ok(())
}

/// What `git` with these arguments costs in the folder of `git`.
pub async fn of(git: Command) -> Result<(Cost, Duration)> {
    let mut command = Command::new(env::current_exe()?);
    if let Some(folder) = git.get_current_dir() {
        command.current_dir(folder);
        tools::isolate(&mut command, folder);
    }
    // git has them from the kit, and perhaps more.
    for (name, value) in git.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command.args(["cost", "--"]).arg(git.get_program()).args(git.get_args());
    let start = Instant::now();
    let printed = tools::must(command).await;
    let wall = start.elapsed();
    let mut numbers = printed.split_whitespace().map(str::parse::<u64>);
    let (Some(Ok(cpu)), Some(Ok(peak_kib))) = (numbers.next(), numbers.next()) else {
        anyhow::bail!("no figures in {printed:?}");
    };
    Ok((Cost { cpu: Duration::from_micros(cpu), peak_kib }, wall))
}

/// Adds what comes one after the other.
pub fn add(sum: Cost, more: Cost) -> Cost {
    Cost { cpu: sum.cpu + more.cpu, peak_kib: sum.peak_kib.max(more.peak_kib) }
}

/// The one in the middle, by CPU time.
pub fn median(mut costs: Vec<Cost>) -> Cost {
    costs.sort_by_key(|cost| cost.cpu);
    costs.get(costs.len() / 2).copied().unwrap_or_default()
}
