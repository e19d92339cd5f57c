//! Joins the packs of a bare repository as housekeeping does, and says what came of it.
//!
//! ```text
//! cargo run --release --example consolidate -- some.git [base.git commit]
//! ```
//!
//! With a base it first borrows from that, if it holds `commit`.

use std::{env, path::Path};

use anyhow::{Context, ensure};
use grasp_mirror::git::Repository;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let open = |path: &String| -> anyhow::Result<Repository> {
        Repository::open(Path::new(path))?.with_context(|| format!("no repository at {path}"))
    };
    let repository = open(arguments.first().context("which repository?")?)?;
    if let [_, base, commit] = arguments.as_slice() {
        let borrows = repository.borrow_from(&open(base)?, &[commit.parse()?])?;
        ensure!(borrows, "it does not borrow from {base}");
    }
    match repository.consolidate(0, &|| true)? {
        Some(done) => {
            println!(
                "{} packs, {} bytes, are now {} bytes",
                done.joined, done.before_bytes, done.after_bytes
            );
        }
        None => println!("nothing to do"),
    }
    Ok(())
}
