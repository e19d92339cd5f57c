//! What the README says of commands and configuration is what the program itself says.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::BTreeSet,
    fs, mem,
    path::{Path, PathBuf},
};

use grasp_mirror_commands::usages;

use super::packaging::commands;

const README: &str = include_str!("../../README.md");
const ARCHITECTURE: &str = include_str!("../../ARCHITECTURE.md");
const CONFIG_EXAMPLE: &str = include_str!("../../config.example.toml");

/// The rows of the first table below `heading`.
fn table(heading: &str) -> Vec<&'static str> {
    let (_, text) = README.split_once(heading).unwrap();
    let rows = text.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    rows.take_while(|line| line.starts_with('|')).collect()
}

#[test]
fn the_table_of_commands_is_the_bot_s_own_help() {
    let expected: Vec<String> = usages()
        // A bar would end the cell, also within code.
        .map(|usage| format!("| `{}` | {} |", usage.to_string().replace('|', "\\|"), usage.about))
        .collect();
    assert_eq!(table("## Talk to it"), expected, "it should be:\n{}", expected.join("\n"));
}

#[test]
fn every_command_of_the_program_has_its_row() {
    let cells = table("| command | does | exit code |").into_iter().filter_map(|row| row.split('|').nth(1));
    let told =
        cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).filter_map(|code| code.split(' ').next());
    assert_eq!(told.map(str::to_owned).collect::<BTreeSet<_>>(), commands().into_iter().collect());
}

/// One row a key: its section and name, its default, and the first sentence of what the example says of it.
fn keys() -> Vec<String> {
    let mut rows = Vec::new();
    for section in CONFIG_EXAMPLE.split("\n[").skip(1) {
        let (name, body) = section.split_once("]\n").unwrap();
        // Exceptions have no defaults.
        let body = body.split("\n# [policy").next().unwrap();
        let (mut comment, mut lines) = (String::new(), body.lines());
        while let Some(line) = lines.next() {
            let unset = line.strip_prefix("# ");
            let is_name = |key: &str| key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            let Some((key, value)) = unset.unwrap_or(line).split_once(" = ").filter(|(key, _)| is_name(key))
            else {
                comment = [&comment, unset.unwrap_or_default()].join(" ");
                continue;
            };
            let default = match value {
                _ if unset.is_some() => "–".to_owned(),
                "[" => format!("{} of them", lines.by_ref().take_while(|line| *line != "]").count()),
                value => format!("`{value}`"),
            };
            let about = mem::take(&mut comment).trim().replace('|', "\\|");
            let sentence = about.split_once(". ").map_or(about.trim_end_matches('.'), |(first, _)| first);
            rows.push(format!("| `{name}.{key}` | {default} | {sentence} |"));
        }
    }
    rows
}

#[test]
fn the_table_of_keys_is_the_example_s_which_is_the_code_s() {
    let expected = keys();
    assert_eq!(table("## Configuration"), expected, "it should be:\n{}", expected.join("\n"));
}

/// All files below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// What stands between the marks of code, and where links lead to, outside of blocks of code.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let prose = text.split("```").step_by(2);
    prose.flat_map(|prose| {
        let code = prose.split('`').skip(1).step_by(2);
        let links = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        code.chain(links)
    })
}

#[test]
fn every_file_that_the_documents_name_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = files(&root.join("src"));
    let mut checked = 0;
    for name in named(README).chain(named(ARCHITECTURE)) {
        let name = name.split_whitespace().next().unwrap_or_default().trim_start_matches("./");
        let is_path =
            ["src/", "tests/", "scripts/", "contrib/", "docs/"].iter().any(|at| name.starts_with(at));
        let there = match name.rsplit_once('.') {
            _ if is_path => root.join(name).exists(),
            // Named by its place in a room.
            Some((_, "rs")) => sources.iter().any(|file| file.ends_with(name)),
            Some((_, "md")) => root.join(name).exists(),
            _ => continue,
        };
        checked += 1;
        assert!(there, "{name} is named, and is not there");
    }
    assert!(checked > 60, "{checked}");
}
