//! `completions` and `man`: what shells and people are told about the binary, made from its own arguments.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use anyhow::Context as _;
use clap::Command;
use clap_complete::Shell;

use crate::Outcome;

/// The binary's name, as it is typed.
const NAME: &str = "grasp-mirror";

/// `completions`: prints the script for `shell`.
pub(crate) fn completions(mut command: Command, shell: Shell) -> anyhow::Result<Outcome> {
    // Made in memory first: the generator panics where a pipe is closed.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, NAME, &mut script);
    io::stdout().write_all(&script)?;
    Ok(Outcome::Good)
}

/// `man`: prints the page of the binary; or writes it, and one page a command, into a folder.
pub(crate) fn man(command: Command, into: Option<&Path>) -> anyhow::Result<Outcome> {
    let Some(folder) = into else {
        clap_mangen::Man::new(command.disable_help_subcommand(true)).render(&mut io::stdout())?;
        return Ok(Outcome::Good);
    };
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    clap_mangen::generate_to(command, folder)
        .with_context(|| format!("cannot write the pages into {}", folder.display()))?;
    Ok(Outcome::Good)
}
