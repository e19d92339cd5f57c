//! What the README says of the command language is what the bot itself says.
#![allow(clippy::unwrap_used, reason = "a test")]

use grasp_mirror_commands::usages;

const README: &str = include_str!("../../README.md");

#[test]
fn the_table_of_commands_is_the_bot_s_own_help() {
    let expected: Vec<String> = usages()
        // A bar would end the cell, also within code.
        .map(|usage| format!("| `{}` | {} |", usage.to_string().replace('|', "\\|"), usage.about))
        .collect();
    let table = README.split_once("## Talk to it").unwrap().1;
    let rows: Vec<&str> = table
        .lines()
        .skip_while(|line| !line.starts_with("|---"))
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert_eq!(rows, expected, "it should be:\n{}", expected.join("\n"));
}
