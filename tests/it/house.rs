//! The house rules of ARCHITECTURE.md, read from the sources: arrows between rooms go one way, and PURE
//! rooms know no clock, no file system, no network and no randomness.
//!
//! A room is a module right under `src/`. Test code (whatever is `#[cfg(test)]`) may do as it likes.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::{Attribute, UseTree, spanned::Spanned, visit::Visit};

/// A room may use these rooms of the library beside itself.
struct Room {
    name: &'static str,
    pure: bool,
    may_use: &'static [&'static str],
}

/// Rooms that carry out what `daemon` decides. They do not know who calls them.
const EDGES: [&str; 5] = ["store", "relay", "git", "transfer", "http"];

const ROOMS: &[Room] = &[
    Room { name: "model", pure: true, may_use: &[] },
    Room { name: "plan", pure: true, may_use: &["model"] },
    Room { name: "report", pure: true, may_use: &["model", "plan"] },
    Room { name: "disk", pure: false, may_use: &[] },
    Room { name: "store", pure: false, may_use: &["model", "plan", "disk"] },
    Room { name: "tls", pure: false, may_use: &[] },
    Room { name: "relay", pure: false, may_use: &["model", "plan", "tls"] },
    Room { name: "git", pure: false, may_use: &["model", "plan", "tls", "disk"] },
    Room { name: "transfer", pure: false, may_use: &["model", "plan", "git", "relay", "disk"] },
    Room { name: "http", pure: false, may_use: &["model", "plan", "report"] },
    Room { name: "config", pure: false, may_use: &["model", "plan"] },
    Room { name: "key", pure: false, may_use: &["config"] },
    Room {
        name: "cycle",
        pure: false,
        may_use: &["model", "plan", "report", "store", "relay", "git", "transfer", "http", "config", "key"],
    },
    Room {
        name: "bot",
        pure: false,
        may_use: &["model", "plan", "report", "store", "relay", "git", "transfer", "config", "cycle"],
    },
    Room {
        name: "daemon",
        pure: false,
        may_use: &[
            "model", "plan", "report", "store", "relay", "git", "transfer", "http", "config", "key", "cycle",
            "bot",
        ],
    },
    Room {
        name: "cli",
        pure: false,
        may_use: &[
            "model", "plan", "report", "store", "relay", "git", "transfer", "http", "config", "key", "cycle",
            "bot", "daemon",
        ],
    },
];

/// The doors: they may use every room.
const DOORS: [&str; 2] = ["main", "lib"];

/// What a PURE room must not touch, as the beginning of a path.
const IMPURE: &[&str] = &[
    "tokio",
    "tokio_util",
    "futures",
    "git2",
    "gix_pack",
    "reqwest",
    "rustls",
    "tempfile",
    "dotenvy",
    "governor",
    "backon",
    "indicatif",
    "rand",
    "nostr_sdk",
    "nostr_lmdb",
    "nostr_database",
    "std::env",
    "std::fs",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
];

/// Calls that hide a clock or randomness, as the end of a path.
const IMPURE_ENDS: &[&str] =
    &["Timestamp::now", "Instant::now", "SystemTime::now", "Keys::generate", "SecretKey::generate"];

/// What the command language must not depend on.
const IO_CRATES: &[&str] = &[
    "backon",
    "dotenvy",
    "futures",
    "git2",
    "governor",
    "grasp-mirror",
    "nostr-database",
    "nostr-lmdb",
    "nostr-sdk",
    "rand",
    "reqwest",
    "rustls",
    "tempfile",
    "tokio",
];

#[test]
fn arrows_between_rooms_go_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for file in sources(&root) {
        let module = module_of(file.strip_prefix(&root).unwrap());
        let source = fs::read_to_string(&file).unwrap();
        found
            .extend(check(&module, &source).into_iter().map(|broken| format!("{}:{broken}", file.display())));
    }
    assert!(
        found.is_empty(),
        "broken house rules (the tables are in tests/it/house.rs):\n{}",
        found.join("\n")
    );
}

#[test]
fn the_command_language_does_no_io() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("commands");
    let manifest: toml::Table = fs::read_to_string(folder.join("Cargo.toml")).unwrap().parse().unwrap();
    let dependencies = manifest["dependencies"].as_table().unwrap();
    let io: Vec<_> = dependencies.keys().filter(|name| IO_CRATES.contains(&name.as_str())).collect();
    assert!(io.is_empty(), "commands/ depends on {io:?}, which do I/O");
    for file in sources(&folder.join("src")) {
        for (path, line) in paths(&[], &fs::read_to_string(&file).unwrap()) {
            assert_eq!(impure(&path), None, "{}:{line}: {path}", file.display());
        }
    }
}

#[test]
fn breaches_are_found() {
    for (module, source, part) in [
        ("model", "use std::time::{Duration, SystemTime};", "SystemTime"),
        ("model", "use std::{collections::BTreeMap, fs as disk};", "std::fs"),
        ("model::x", "fn f() { let _ = Timestamp::now(); }", "Timestamp::now"),
        ("plan", "fn f() { tokio::spawn(async {}); }", "tokio"),
        ("plan", "fn f() { macro_of!(a, ::git2::Oid::zero()); }", "git2"),
        ("plan", "use std::time; fn f() { time::Instant::now(); }", "Instant::now"),
        ("plan::retry", "use super::super::store::Db;", "plan → store"),
        ("model", "use crate::plan::Step;", "model → plan"),
        ("model", "pub fn f(x: crate::plan::Step) {}", "model → plan"),
        ("report", "use crate::{model::State, store::{Db}};", "report → store"),
        ("relay", "use crate::git;", "relay → git"),
        ("transfer", "use crate::http::Page;", "transfer → http"),
        ("store", "use crate::daemon::Handle;", "store → daemon"),
        ("git", "use crate::config::Limits;", "git → config"),
        ("http", "use crate::*;", "http → *"),
        ("cellar", "use std::fmt;", "cellar is not on the list"),
    ] {
        let found = check(&segments(module), source);
        assert!(found.iter().any(|broken| broken.contains(part)), "{source} in {module}: {found:?}");
    }
}

#[test]
fn what_is_allowed_is_not_reported() {
    for (module, source) in [
        ("model", "use std::time::Duration; use nostr::Timestamp; use std::net::IpAddr;"),
        ("plan", "use crate::model::State; use super::model;"),
        ("plan::retry", "use super::converge; use self::x; use crate::plan::y;"),
        ("model", "#[cfg(test)] mod tests { use std::fs; use crate::daemon; }"),
        ("transfer", "use crate::{git::Pack, relay, model}; use tokio::fs;"),
        ("main", "use grasp_mirror::daemon; use tokio::main;"),
        ("model", "/// See [`crate::plan`]. `tokio::spawn`\nfn f() { let s = \"std::fs\"; }"),
    ] {
        assert_eq!(check(&segments(module), source), Vec::<String>::new(), "{source} in {module}");
    }
}

#[test]
fn edges_know_neither_each_other_nor_their_callers() {
    for room in ROOMS.iter().filter(|room| EDGES.contains(&room.name)) {
        for used in room.may_use {
            let arrow = format!("{} → {used}", room.name);
            assert!(!["cli", "config", "cycle", "daemon"].contains(used), "{arrow}");
            let allowed = ["transfer → git", "transfer → relay"].contains(&arrow.as_str());
            assert!(allowed || !EDGES.contains(used), "{arrow}");
        }
    }
}

/// What `source`, the module `module`, breaks.
fn check(module: &[String], source: &str) -> Vec<String> {
    let here = module.first().map_or("lib", String::as_str);
    if DOORS.contains(&here) {
        return Vec::new();
    }
    let Some(room) = ROOMS.iter().find(|room| room.name == here) else {
        return vec![format!(
            " the room {here} is not on the list: place it there, with the arrows it may have"
        )];
    };
    let mut broken = BTreeSet::new();
    for (path, line) in paths(module, source) {
        if let Some(other) = path.strip_prefix("crate::").map(|rest| rest.split("::").next().unwrap_or(rest))
            && other != here
            && !room.may_use.contains(&other)
            && (other == "*" || ROOMS.iter().any(|room| room.name == other))
        {
            broken.insert((line, format!("{here} → {other} ({path})")));
        }
        if room.pure
            && let Some(why) = impure(&path)
        {
            broken.insert((line, format!("{here} is PURE and uses {why} ({path})")));
        }
    }
    broken.into_iter().map(|(line, what)| format!("{line}: {what}")).collect()
}

fn impure(path: &str) -> Option<&'static str> {
    let begins =
        |with: &str| path == with || path.strip_prefix(with).is_some_and(|rest| rest.starts_with("::"));
    let ends = |with: &str| path == with || path.strip_suffix(with).is_some_and(|rest| rest.ends_with("::"));
    let beginning = IMPURE.iter().copied().find(|with| begins(with));
    beginning.or_else(|| IMPURE_ENDS.iter().copied().find(|with| ends(with)))
}

/// Every path that `source` names, made absolute where it begins with `crate`, `self` or `super`; with its line.
fn paths(module: &[String], source: &str) -> Vec<(String, usize)> {
    let file = syn::parse_file(source).unwrap_or_else(|error| panic!("{module:?}: {error}"));
    let mut reader = Reader { module: module.to_vec(), found: Vec::new() };
    reader.visit_file(&file);
    reader.found
}

struct Reader {
    module: Vec<String>,
    found: Vec<(String, usize)>,
}

impl Reader {
    fn note(&mut self, path: &[String], at: Span) {
        let (mut base, mut rest) = (self.module.clone(), path);
        match rest.first().map(String::as_str) {
            Some("crate" | "grasp_mirror") => {
                base.clear();
                rest = &rest[1..];
            }
            Some("self") => rest = &rest[1..],
            Some("super") => {
                while rest.first().is_some_and(|word| word == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            _ => return self.found.push((path.join("::"), at.start().line)),
        }
        let absolute = [&["crate".to_owned()], &base[..], rest].concat();
        self.found.push((absolute.join("::"), at.start().line));
    }

    fn tree(&mut self, tree: &UseTree, before: &[String]) {
        let with = |name: &dyn ToString| [before, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.tree(&path.tree, &with(&path.ident)),
            UseTree::Name(name) if name.ident == "self" => self.note(before, name.span()),
            UseTree::Name(name) => self.note(&with(&name.ident), name.span()),
            UseTree::Rename(name) if name.ident == "self" => self.note(before, name.span()),
            UseTree::Rename(name) => self.note(&with(&name.ident), name.span()),
            UseTree::Glob(glob) => self.note(&with(&"*"), glob.span()),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(tree, before)),
        }
    }

    /// Paths in the body of a macro, which nobody has parsed.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        let mut start = Span::call_site();
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.flush(&mut path, start);
                        start = ident.span();
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                other => {
                    self.flush(&mut path, start);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.flush(&mut path, start);
    }

    fn flush(&mut self, path: &mut Vec<String>, start: Span) {
        if path.len() > 1 {
            self.note(path, start);
        }
        path.clear();
    }
}

fn only_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "test")
    })
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if !only_for_tests(attributes) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        syn::visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let words: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if words.len() > 1 {
            self.note(&words, path.span());
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone());
    }
}

fn segments(module: &str) -> Vec<String> {
    module.split("::").map(str::to_owned).collect()
}

/// `plan/retry.rs` and `plan/retry/mod.rs` are `plan::retry`.
fn module_of(file: &Path) -> Vec<String> {
    let mut words: Vec<_> =
        file.with_extension("").iter().map(|word| word.to_string_lossy().into_owned()).collect();
    if words.last().is_some_and(|word| word == "mod") {
        words.pop();
    }
    words
}

/// The sources under `folder` without those that only tests see.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = BTreeSet::new();
    collect(folder, &mut files);
    let for_tests: BTreeSet<_> = files.iter().flat_map(|file| test_modules(file)).collect();
    files.into_iter().filter(|file| !for_tests.iter().any(|module| file.starts_with(module))).collect()
}

fn collect(folder: &Path, files: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.insert(path);
        }
    }
}

/// Where the modules lie that `file` declares for tests only: the file, and the folder of the same name.
fn test_modules(file: &Path) -> Vec<PathBuf> {
    let source = syn::parse_file(&fs::read_to_string(file).unwrap()).unwrap();
    let (beside, stem) = (file.parent().unwrap(), file.file_stem().unwrap());
    let below =
        if ["mod", "lib", "main"].iter().any(|root| stem == *root) { beside } else { &beside.join(stem) };
    let mut found = Vec::new();
    for item in source.items {
        if let syn::Item::Mod(module) = item
            && module.content.is_none()
            && only_for_tests(&module.attrs)
        {
            let named = module.attrs.iter().find_map(|attribute| match &attribute.meta {
                syn::Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
                    syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(path), .. }) => Some(path.value()),
                    _ => None,
                },
                _ => None,
            });
            found.extend(match named {
                Some(path) => vec![beside.join(path)],
                None => {
                    vec![below.join(format!("{}.rs", module.ident)), below.join(module.ident.to_string())]
                }
            });
        }
    }
    found
}
